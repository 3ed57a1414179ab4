//! The page, looked at in a browser: two workers on one stream, with all there is to be seen on it.

use std::collections::HashSet;
use std::fs;
use std::thread;
use std::time::Duration;

use auditlake_test_servers::aws::Put;

use crate::support::{Cloud, Feed, get, look_at, mix, served_at, stop_all, wait_until};

/// As a pod's name makes it.
fn worker_name(number: u64) -> String {
    format!("auditlake-production-eu-central-1-6f7c9d5b8-{:05}", mix(number) % 100_000)
}

#[test]
fn the_page_can_be_read_on_a_desk_and_on_a_phone() {
    let (mut cloud, mut feed) = (Cloud::new(4), Feed::new(61));
    cloud.set("batch.window", "\"1s\"");
    cloud.put(&mut feed, 100);
    cloud.catch_up();
    let damaged = cloud.objects("events/").swap_remove(0);
    cloud.put_object(&damaged, b"not what was put".to_vec());
    cloud.run(&["verify", "--record"]).expect(1);

    let listen = [("AUDITLAKE__METRICS__LISTEN", "127.0.0.1:0")];
    let workers = vec![cloud.worker_with(&worker_name(1), &listen), cloud.worker_with(&worker_name(2), &listen)];
    let address = served_at(&workers[0].process);
    let page = || get(&address, "/").body;
    wait_until("each reads two", || workers.iter().all(|worker| worker.leases_held(&cloud) == 2));
    wait_until("all of it is there", || {
        cloud.put(&mut feed, 5);
        cloud.put_these(&(0..8).map(unreadable).collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(500));
        let page = page();
        ["read elsewhere", "rejected/", "found damage"].iter().all(|word| page.contains(word))
    });

    let named = [damaged, cloud.stream.clone(), format!("s3://{}", cloud.bucket), worker_name(1), worker_name(2)];
    let shown = page();
    let rejected = shown.find("rejected/").unwrap();
    let rejected: String = shown[rejected..].chars().take_while(|letter| *letter != '<').collect();
    for said in &named {
        assert!(shown.contains(said), "no {said}: {shown}");
    }
    let looks = look_at(&format!("http://{address}/")).unwrap_or_default();
    for seen in &looks {
        let screen = format!("{} pixels, {}; see {}", seen.width, seen.scheme, seen.picture.display());
        assert!(seen.sideways.is_empty(), "{screen}: one has to scroll sideways in {:?}", seen.sideways);
        assert!(seen.cut.is_empty(), "{screen}: {:?} is cut off", seen.cut);
        // Where newer batches came meanwhile, it has moved down, not away.
        for said in named.iter().chain([&rejected]) {
            assert!(seen.text.contains(said), "{screen}: no {said} in {}", seen.text);
        }
    }
    let pictures: HashSet<_> = looks.iter().map(|seen| fs::read(&seen.picture).unwrap()).collect();
    assert_eq!(pictures.len(), looks.len(), "a phone is no desk, and night is not day");
    stop_all(workers);
}

/// No audit record, and unlike any other.
fn unreadable(number: u64) -> Put {
    let data = format!("{{\"log_id\": {number}").into_bytes();
    Put { partition_key: number.to_string(), data, explicit_hash_key: None }
}
