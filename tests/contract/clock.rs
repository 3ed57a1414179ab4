//! The contract of [`Clock`].

use std::time::Duration;

use auditlake::ops::clock::{Clock, PausedClock, SystemClock};

const NAP: Duration = Duration::from_millis(30);

async fn keeps_the_contract(clock: &dyn Clock) {
    let (now, monotonic) = (clock.now(), clock.monotonic());
    clock.sleep(NAP).await;
    assert!(clock.monotonic() >= monotonic + NAP, "a sleep takes as long as it was asked for");
    assert!(clock.now() > now, "the time of day passes too");

    let monotonic = clock.monotonic();
    tokio::join!(clock.sleep(NAP), clock.sleep(NAP), clock.sleep(NAP));
    assert!(clock.monotonic() < monotonic + NAP * 3, "sleepers do not wait for one another");

    let mut last = clock.monotonic();
    for _ in 0..1000 {
        let next = clock.monotonic();
        assert!(next >= last, "monotonic time never goes back");
        last = next;
    }
    clock.sleep(Duration::ZERO).await;
}

#[tokio::test]
async fn the_machines_clock_keeps_the_contract() {
    keeps_the_contract(&SystemClock::start()).await;
}

#[tokio::test(start_paused = true)]
async fn the_twin_keeps_the_contract() {
    let clock = PausedClock::start("2026-11-21T09:31:00Z".parse().unwrap());
    keeps_the_contract(&clock).await;
    clock.sleep(Duration::from_hours(24)).await;
    assert!(clock.now().to_string().starts_with("2026-11-22T09:31:00"), "{}", clock.now());
}
