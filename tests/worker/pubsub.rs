//! Workers that receive from a subscription: killed, slept, and with acknowledgements that fail in every way.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auditlake::lease::{LeaseRow, LeaseStore as _};
use auditlake::source::pubsub::memory::Acks;
use auditlake::source::pubsub::{Appended, Message, ReceiveError, SpoolName};
use auditlake::source::{ShardId, Source as _};
use tokio_util::sync::CancellationToken;

use super::assert_each_once;
use super::spooled::{Process, Reach, Spooled};

#[tokio::test(start_paused = true)]
async fn in_a_window_of_35_minutes_messages_are_acknowledged_within_seconds_and_archived_in_one_batch() {
    let mut spooled = Spooled::new().await;
    spooled.world.settings.limits.window = Duration::from_mins(35);
    // Windows are aligned to the clock: it begins with one.
    let into = spooled.world.now().as_second().rem_euclid(35 * 60).unsigned_abs();
    spooled.world.sleep(Duration::from_secs(35 * 60 - into)).await;
    let process = spooled.start("a");
    for id in 0..200 {
        spooled.publish(id..id + 1);
        spooled.world.sleep(Duration::from_secs(10)).await;
        assert_eq!(spooled.subscription.unacknowledged(), 0, "message {id} waits for its acknowledgement");
    }
    assert_eq!(spooled.world.manifests().await.len(), 0, "the window is open");
    spooled.world.sleep(Duration::from_mins(3)).await;
    let manifests = spooled.world.manifests().await;
    assert_eq!((manifests.len(), manifests[0].counts.archived), (1, 200));
    spooled.world.sleep(Duration::from_mins(2)).await;
    assert_eq!(spooled.standing().await.len(), 1, "all but the last segment, which the checkpoint lies in");
    process.stop().await;
    spooled.assert_all_is_archived_once(200).await;
}

/// The library's default limits are 1,000 messages and 100 MiB: who waits for more before it acknowledges stalls.
#[tokio::test(start_paused = true)]
async fn a_thousand_and_one_small_messages_do_not_stall() {
    for max_messages in [1, 100, 1000, 5000] {
        let mut spooled = Spooled::new().await;
        spooled.options.cut.max_messages = max_messages;
        spooled.publish(0..1001);
        let process = spooled.start("a");
        spooled.world.sleep(Duration::from_secs(10)).await;
        assert_eq!(spooled.subscription.unacknowledged(), 0);
        assert_eq!(spooled.subscription.deliveries(), 1001);
        process.stop().await;
        spooled.assert_all_is_archived_once(1001).await;
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_no_message_is_lost_and_none_archived_twice() {
    for tick in 0..48 {
        let mut spooled = Spooled::new().await;
        spooled.put_takes = Duration::from_millis(1100);
        let victim = spooled.start("victim");
        let other = (tick % 3 == 0).then(|| spooled.start("other"));
        spooled.publish(0..20);
        // Late acknowledgements may count after their process is gone, or never.
        spooled.subscription.acks(if tick % 2 == 0 { Acks::Count } else { Acks::Late(Duration::from_secs(3)) });
        spooled.world.sleep(Duration::from_millis(250 * tick)).await;
        spooled.publish(20..40);
        spooled.world.sleep(Duration::from_millis(90)).await;
        victim.kill().await;
        spooled.subscription.acks(Acks::Count);
        let successor = spooled.start("successor");
        spooled.publish(40..50);
        spooled.world.sleep(Duration::from_secs(20)).await;
        successor.stop().await;
        if let Some(other) = other {
            other.stop().await;
        }
        spooled.assert_all_is_archived_once(50).await;
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_fail_in_any_way_bring_messages_again_which_are_archived_once() {
    for acks in [Acks::Lost, Acks::Fail, Acks::Mute, Acks::Late(Duration::from_secs(8))] {
        let spooled = Spooled::new().await;
        spooled.subscription.acks(acks);
        let process = spooled.start("a");
        for id in 0..10 {
            spooled.publish(id * 10..id * 10 + 10);
            spooled.world.sleep(Duration::from_secs(10)).await;
        }
        // An answer that never comes holds up nothing: what came later is spooled, and read.
        let segments = process.receiver.counters().segments.load(Ordering::Relaxed);
        assert!(segments >= 10, "{acks:?}: {segments} segments");
        let failed = process.receiver.counters().unacknowledged.load(Ordering::Relaxed);
        assert_eq!(failed > 0, matches!(acks, Acks::Fail | Acks::Mute), "{acks:?}: {failed}");
        spooled.subscription.acks(Acks::Count);
        process.stop().await;
        spooled.assert_all_is_archived_once(100).await;
        let comes_again = !matches!(acks, Acks::Late(_));
        assert_eq!(spooled.subscription.deliveries() > 100, comes_again, "{acks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn puts_whose_answers_are_lost_add_nothing_twice() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    process.reach.lost_puts.store(40, Ordering::SeqCst);
    for id in 0..30 {
        spooled.publish(id * 5..id * 5 + 5);
        spooled.world.sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(process.reach.lost_puts.load(Ordering::SeqCst), 0);
    assert_eq!(spooled.subscription.deliveries(), 150, "nothing had to come again");
    process.stop().await;
    spooled.assert_all_is_archived_once(150).await;
    assert_eq!(spooled.world.totals.committed().counts.duplicates, 0, "each attempt was told for one's own");
}

/// Puts a process to sleep in the middle of a put, lets others seal and finish its spool, and wakes it after a while.
async fn a_writer_that_slept(spooled: Spooled, for_so_long: Duration) {
    let sleeper = spooled.start("sleeper");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(10)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    sleeper.sleep(true);
    spooled.publish(10..20);
    spooled.world.sleep(Duration::from_secs(10)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 10, "its segment does not get out");

    let other = spooled.start("other");
    spooled.world.sleep(for_so_long).await;
    let spool = spooled.standing().await.remove(0);
    assert!(spool.ends_with("/00000001"), "a seal stands where its next segment was to: {spool}");
    assert!(spooled.world.row(spool.split('/').next().unwrap()).await.ended);

    sleeper.sleep(false);
    spooled.world.sleep(Duration::from_secs(20)).await;
    assert_eq!(sleeper.receiver.counters().spools_ended_by_others.load(Ordering::Relaxed), 1);
    assert_eq!(spooled.subscription.unacknowledged(), 0, "acknowledged once they stood in a spool of its own");
    spooled.publish(20..30);
    spooled.world.sleep(Duration::from_secs(10)).await;
    sleeper.stop().await;
    other.stop().await;
    spooled.assert_all_is_archived_once(30).await;
    assert_eq!(spooled.world.totals.committed().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_can_not_add_to_a_sealed_spool() {
    a_writer_that_slept(Spooled::new().await, Duration::from_hours(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_for_weeks_finds_its_number_taken_though_its_spool_is_gone() {
    a_writer_that_slept(Spooled::for_weeks().await, Duration::from_hours(39 * 24)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_writer_adds_that_slept_for_longer_than_seals_are_kept_is_archived_all_the_same() {
    let spooled = Spooled::for_weeks().await;
    let sleeper = spooled.start("sleeper");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(10)).await;
    sleeper.sleep(true);
    spooled.publish(10..20);
    // Of these the sleeper alone knows: nobody else gets them while it lives.
    spooled.world.sleep(Duration::from_secs(10)).await;
    let (other, third) = (spooled.start("other"), spooled.start("third"));
    spooled.world.sleep(Duration::from_hours(41 * 24)).await;
    assert_eq!(spooled.standing().await, Vec::<String>::new(), "the seal is gone, too");
    sleeper.sleep(false);
    spooled.world.sleep(Duration::from_mins(2)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    // Each of them knew the seal that is gone, and what stands in its place now is none.
    other.stop().await;
    third.stop().await;
    spooled.publish(20..30);
    spooled.world.sleep(Duration::from_hours(3)).await;
    let shards: Vec<String> =
        spooled.world.leases.list().await.unwrap().iter().map(|row| row.shard.to_string()).collect();
    assert!(shards.iter().any(|shard| shard.ends_with("-late-00000001")), "{shards:?}");
    assert_eq!(sleeper.receiver.counters().spools_ended_by_others.load(Ordering::Relaxed), 1, "it was turned away");
    sleeper.stop().await;
    spooled.assert_all_is_archived_once(30).await;
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_run_takes_all_there_is_and_ends_every_spool() {
    let spooled = Spooled::new().await;
    let dead = spooled.start("dead");
    spooled.publish(0..50);
    spooled.world.sleep(Duration::from_secs(7)).await;
    dead.kill().await;
    spooled.publish(50..2500);
    // While it takes it, more comes, and then no more.
    let (summary, ()) = tokio::join!(spooled.catch_up(), async {
        for id in 0..10 {
            spooled.world.sleep(Duration::from_secs(10)).await;
            spooled.publish(2500 + id..2501 + id);
        }
    });
    assert!(summary.unwrap().failures.is_empty());
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    spooled.assert_nothing_is_left().await;
    assert_each_once(&spooled.world, 2510).await;
    let before = spooled.world.totals.committed();
    spooled.catch_up().await.unwrap();
    assert_eq!(spooled.world.totals.committed(), before, "there is nothing new");
}

#[tokio::test(start_paused = true)]
async fn that_nothing_comes_proves_nothing_where_the_service_does_not_answer() {
    let spooled = Spooled::new().await;
    spooled.subscription.away(true);
    assert!(matches!(spooled.catch_up().await, Err(ReceiveError::Subscription(_))));
    spooled.subscription.away(false);
    let (summary, ()) = tokio::join!(spooled.catch_up(), async {
        spooled.world.sleep(Duration::from_secs(5)).await;
        spooled.subscription.away(true);
    });
    assert!(matches!(summary, Err(ReceiveError::Subscription(_))));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_waits_for_a_subscription_that_is_away() {
    let spooled = Spooled::new().await;
    spooled.subscription.away(true);
    let process = spooled.start("a");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_mins(10)).await;
    assert_eq!(spooled.subscription.deliveries(), 0);
    spooled.subscription.away(false);
    spooled.world.sleep(Duration::from_mins(6)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    process.stop().await;
    spooled.assert_all_is_archived_once(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_about_to_go_to_the_dead_letters_is_counted() {
    let spooled = Spooled::new().await;
    spooled.subscription.with_dead_letters(5);
    spooled.subscription.acks(Acks::Lost);
    let process = spooled.start("a");
    spooled.publish(0..1);
    spooled.world.sleep(Duration::from_secs(40)).await;
    let near = || process.receiver.counters().near_dead_letter.load(Ordering::Relaxed);
    assert_eq!(near(), 0, "it has come {} times", spooled.subscription.deliveries());
    spooled.world.sleep(Duration::from_mins(1)).await;
    assert!(near() > 0, "it has come {} times", spooled.subscription.deliveries());
    spooled.subscription.acks(Acks::Count);
    process.stop().await;
    spooled.assert_all_is_archived_once(1).await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_live_end_no_spool_of_one_another() {
    let spooled = Spooled::new().await;
    let processes = ["a", "b", "c"].map(|name| spooled.start(name));
    for id in 0..120 {
        spooled.publish(id * 6..id * 6 + 6);
        spooled.world.sleep(Duration::from_secs(20)).await;
    }
    let ended = |process: &Process| process.receiver.counters().spools_ended_by_others.load(Ordering::Relaxed);
    assert!(processes.iter().map(ended).sum::<u64>() <= 1, "a lease is looked for elsewhere at most at first");
    for process in processes {
        process.stop().await;
    }
    spooled.assert_all_is_archived_once(720).await;
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_a_process_puts_and_acknowledges_what_it_has() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    spooled.world.sleep(Duration::from_secs(2)).await;
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(1)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 10, "they wait for others");
    process.stop().await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    spooled.assert_all_is_archived_once(10).await;
    assert_eq!(spooled.subscription.deliveries(), 10);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_are_never_answered_do_not_use_up_the_grace_of_a_stop() {
    let spooled = Spooled::new().await;
    spooled.subscription.acks(Acks::Mute);
    let process = spooled.start("a");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(1)).await;
    process.shutdown.graceful.cancel();
    spooled.world.sleep(Duration::from_secs(20)).await;
    assert!(process.task.is_finished(), "its spool is ended within the 25 s that a stop has by default");
    spooled.subscription.acks(Acks::Count);
    spooled.assert_all_is_archived_once(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_held_up_no_longer_than_its_grace_by_a_store_that_is_away() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(1)).await;
    process.reach.asleep.send_replace(true);
    process.shutdown.graceful.cancel();
    spooled.world.sleep(Duration::from_secs(25)).await;
    assert!(!process.task.is_finished());
    process.shutdown.abort.cancel();
    spooled.world.sleep(Duration::from_secs(3)).await;
    assert!(process.task.is_finished());
    spooled.assert_all_is_archived_once(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_beside_another_takes_no_new_spool_for_a_lost_one() {
    let spooled = Spooled::new().await;
    let a = spooled.start("a");
    let b = spooled.start("b");
    for id in 0..30 {
        spooled.publish(id..id + 1);
        // Its spool is begun while the other one's listing is old.
        spooled.world.sleep(Duration::from_millis(5300)).await;
        if id % 10 == 5 {
            spooled.world.sleep(Duration::from_mins(2)).await;
        }
    }
    a.stop().await;
    b.stop().await;
    spooled.assert_all_is_archived_once(30).await;
    assert_eq!(spooled.world.totals.committed().gaps, 0);
}

/// The budget of docs/operations.md: one worker, a message a second.
#[tokio::test(start_paused = true)]
async fn an_hour_of_one_message_a_second_costs_what_the_budget_says() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    let reach = process.reach.clone();
    let count = || [&reach.puts, &reach.gets, &reach.listings].map(|counter| counter.load(Ordering::SeqCst));
    let mut before = count();
    let mut acknowledged = 0;
    for second in 0..4200 {
        if second == 600 {
            (before, acknowledged) = (count(), spooled.subscription.acknowledged());
        }
        spooled.publish(second..second + 1);
        spooled.world.sleep(Duration::from_secs(1)).await;
    }
    let after = count();
    let [puts, gets, listings] = [0, 1, 2].map(|index| after[index] - before[index]);
    assert_eq!(spooled.subscription.acknowledged() - acknowledged, 3600);
    assert!((595..=605).contains(&puts), "{puts} puts");
    assert!((595..=605).contains(&gets), "{gets} gets");
    assert!((700..=790).contains(&listings), "{listings} listings");
    process.stop().await;
    spooled.assert_all_is_archived_once(4200).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_spools_survives_the_loss_of_the_lease_table() {
    let spooled = Spooled::new().await;
    let a = spooled.start("a");
    spooled.publish(0..100);
    spooled.world.sleep(Duration::from_mins(40)).await;
    spooled.publish(100..200);
    spooled.world.sleep(Duration::from_secs(10)).await;
    a.kill().await;
    spooled.world.leases.lose_all();
    let summary = spooled.catch_up().await.unwrap();
    assert!(summary.failures.is_empty(), "{summary:?}");
    assert_eq!(spooled.world.archived().await.len(), 200);
    assert!(spooled.world.proof().await.is_intact());
    let rows = spooled.world.rows_from_the_archive().await.unwrap();
    assert!(rows.iter().all(|row| row.ended), "rebuild-state makes rows of spools as of any shard");
}

#[tokio::test(start_paused = true)]
async fn rows_of_spools_go_once_nothing_stands_of_them_and_a_later_one_vouches_for_them() {
    let spooled = Spooled::for_weeks().await;
    for round in 0..6 {
        let process = spooled.start("a");
        spooled.publish(round * 10..round * 10 + 10);
        spooled.world.sleep(Duration::from_hours(2)).await;
        process.stop().await;
    }
    let rows = async || spooled.world.leases.list().await.unwrap().len();
    let last = spooled.start("last");
    spooled.world.sleep(Duration::from_hours(24)).await;
    assert_eq!(rows().await, 6);
    spooled.world.sleep(Duration::from_hours(40 * 24)).await;
    assert_eq!(spooled.standing().await, Vec::<String>::new());
    assert_eq!(rows().await, 6, "nobody vouches for them");
    spooled.publish(60..70);
    spooled.world.sleep(Duration::from_hours(4)).await;
    assert_eq!(rows().await, 1);
    last.stop().await;
    spooled.assert_all_is_archived_once(70).await;
}

/// Whoever lists a spool whose row is gone finds that it has left by the one that names it, unless another names it anew.
#[tokio::test(start_paused = true)]
async fn a_spool_that_is_gone_is_named_once_and_never_by_whoever_writes_it() {
    let spooled = Spooled::new().await;
    let reach = Reach::new(spooled.spools.clone(), spooled.keeps.clone(), Duration::ZERO);
    let source = spooled.source(&reach);
    let receiver = spooled.receiver(&source);
    let write = async |name: &str| {
        let mut writer = source.write(SpoolName::new(name).unwrap());
        let message = Message {
            id: name.into(),
            arrival: spooled.world.now(),
            attributes: BTreeMap::new(),
            ordering_key: String::new(),
            delivery_attempt: None,
            data: "{}".into(),
        };
        assert_eq!(writer.append(&[message], &CancellationToken::new()).await.unwrap(), Appended::Durable);
        writer
    };
    let _written = write("spool-written").await;
    drop(spooled.spools.remove("spool-written/00000000"));
    for shard in ["spool-written", "spool-gone"].map(ShardId::new) {
        let ended = LeaseRow { ended: true, origin: Some("spool".into()), ..LeaseRow::new(shard, Vec::new()) };
        spooled.world.leases.create(&ended).await.unwrap();
    }
    receiver.tidy().await.unwrap();
    let (_first, _second) = (write("spool-1").await, write("spool-2").await);
    let shards = source.shards().await.unwrap();
    let parents: Vec<_> = shards.into_iter().map(|shard| (shard.id.to_string(), shard.parents)).collect();
    let of = |spool: &str| parents.iter().find(|(id, _)| id == spool).unwrap().1.clone();
    assert_eq!((of("spool-1"), of("spool-2")), (vec![ShardId::new("spool-gone")], Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_may_be_removed_all_is_archived_and_it_is_removed_once_it_may_be() {
    let spooled = Spooled::new().await;
    spooled.keeps.store(true, Ordering::SeqCst);
    spooled.publish(0..10);
    for _ in 0..2 {
        assert!(spooled.catch_up().await.unwrap().failures.is_empty());
        assert_eq!(spooled.standing().await.len(), 2, "the segment and its seal");
    }
    spooled.keeps.store(false, Ordering::SeqCst);
    spooled.assert_all_is_archived_once(10).await;
}
