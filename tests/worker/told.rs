//! What the log says: each line about a shard names it, whoever wrote the line.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auditlake::ops::telemetry::{in_json, in_text};
use auditlake::worker::board::Ended;
use serde_json::Value;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;

use super::fleet::{put_everywhere, shared_world, start};
use super::world::{World, record};

/// What was logged.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Told {
    /// The lines that have these words in them.
    fn lines_with(&self, words: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let found: Vec<String> = text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect();
        assert!(!found.is_empty(), "no line says `{words}`:\n{text}");
        found
    }

    fn objects_with(&self, words: &str) -> Vec<Value> {
        self.lines_with(words).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn warnings() -> EnvFilter {
    EnvFilter::new("warn")
}

fn json(told: &Told) -> impl Subscriber + Send + Sync + use<> {
    json_of(told, warnings())
}

fn json_of(told: &Told, filter: EnvFilter) -> impl Subscriber + Send + Sync + use<> {
    let told = told.clone();
    in_json(filter, move || told.clone())
}

fn text(told: &Told) -> impl Subscriber + Send + Sync + use<> {
    let told = told.clone();
    in_text(warnings(), move || told.clone())
}

const TRIED_AGAIN: &str = "a step failed and is tried again";

/// Two shards, and an archive that takes no rows for a while.
async fn commit_to_an_archive_that_is_away() {
    let mut world = World::new().await;
    world.settings.retry.give_up_after = None;
    world.settings.limits.max_records = 2;
    for shard in ["a", "b"] {
        (0..2).for_each(|id| world.put(shard, &record(format!("{shard}{id}"))));
    }
    *world.faults.refuse_puts.lock().unwrap() = Some("events/".into());
    world
        .run_while(async {
            world.sleep(Duration::from_mins(1)).await;
            *world.faults.refuse_puts.lock().unwrap() = None;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_tried_again_names_its_shard_and_its_batch() {
    let told = Told::default();
    let logging = tracing::subscriber::set_default(json(&told));
    commit_to_an_archive_that_is_away().await;
    drop(logging);
    let lines = told.objects_with(TRIED_AGAIN);
    for shard in ["a", "b"] {
        assert!(lines.iter().any(|line| line["shard"] == shard), "{lines:#?}");
    }
    for line in lines {
        assert_eq!((&line["level"], &line["batch_seq"]), (&"WARN".into(), &0.into()), "{line:#}");
        assert!(line["range"].as_str().unwrap().starts_with("(TRIM_HORIZON"), "{line:#}");
        assert!(line["error"].as_str().unwrap().contains("refused") && line["pause_ms"].is_u64(), "{line:#}");
        assert!(line.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()), "{line:#}");
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_terminal_too() {
    let told = Told::default();
    let logging = tracing::subscriber::set_default(text(&told));
    commit_to_an_archive_that_is_away().await;
    drop(logging);
    let lines = told.lines_with(TRIED_AGAIN);
    let plain: Vec<String> = lines.iter().map(|line| without_colours(line)).collect();
    for shard in ["a", "b"] {
        let named = format!(" shard={shard} batch_seq=0 range=(TRIM_HORIZON");
        assert!(plain.iter().any(|line| line.contains(" WARN ") && line.contains(&named)), "{plain:#?}");
    }
}

/// A line without what a terminal makes colours of.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, text)| text))
}

/// A renewal is a task of its own.
#[tokio::test(start_paused = true)]
async fn a_lease_that_can_not_be_renewed_and_is_lost_names_its_shard_once() {
    let told = Told::default();
    let logging = tracing::subscriber::set_default(json(&told));
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..4);
    let worker = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    worker.faults.leases_away.store(true, Ordering::SeqCst);
    world.sleep(Duration::from_secs(40)).await;
    let lost = world.totals.board.shown().lost;
    assert_eq!(lost, [(Ended::Expired, 2)].into(), "nobody took them");
    worker.kill().await;
    drop(logging);
    for words in ["the lease could not be renewed", "the lease is lost"] {
        let lines = told.lines_with(words);
        for line in &lines {
            assert_eq!(line.matches("\"shard\":").count(), 1, "{line}");
        }
        let shards: Vec<Value> = told.objects_with(words).into_iter().map(|line| line["shard"].clone()).collect();
        assert!(shards.contains(&"s0".into()) && shards.contains(&"s1".into()), "{shards:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_lease_names_the_one_that_died_with_it_and_nobody_where_it_was_given_back() {
    let told = Told::default();
    let logging = tracing::subscriber::set_default(json_of(&told, EnvFilter::new("info")));
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..4);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    a.stop().await;
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(5)).await;
    b.kill().await;
    let c = start(&world, "c");
    world.sleep(Duration::from_mins(1)).await;
    c.stop().await;
    drop(logging);
    let lines = told.objects_with("took the lease");
    let taken: Vec<_> = lines.iter().map(|line| (line["worker"].as_str().unwrap(), line.get("before"))).collect();
    assert_eq!(taken, [("a", None), ("b", None), ("c", Some(&"b".into()))], "{lines:#?}");
}
