use std::fs;
use std::io::Write as _;
use std::sync::Mutex;

use super::*;
use crate::source::{Checkpoint, Next, Payload, Until};

/// A clock that stands still at a moment that the test chooses.
struct FixedClock(Mutex<Timestamp>);

#[async_trait]
impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _: Duration) {}
}

struct Files {
    directory: tempfile::TempDir,
    clock: Arc<FixedClock>,
    source: FileSource,
}

impl Files {
    fn new() -> Self {
        Self::with_limit(1 << 20)
    }

    fn with_limit(max_payload_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Long after every file was written: nothing is waited for.
        let clock = Arc::new(FixedClock(Mutex::new("2200-01-01T00:00:00Z".parse().unwrap())));
        let options = FileOptions {
            path: directory.path().into(),
            window: Duration::from_mins(30),
            settle: Duration::from_secs(5),
            max_payload_bytes,
        };
        Self { source: FileSource::new(options, clock.clone()), directory, clock }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = fs::OpenOptions::new().append(true).open(self.directory.path().join(name));
        file.unwrap().write_all(content.as_ref()).unwrap();
    }

    fn touch(&self, name: &str, time: &str) {
        let time: Timestamp = time.parse().unwrap();
        let file = fs::File::options().append(true).open(self.directory.path().join(name));
        file.unwrap().set_modified(time.into()).unwrap();
    }

    /// As if the clock stood at the moment of the file's last modification.
    fn rewind_clock(&self, name: &str) {
        let metadata = fs::metadata(self.directory.path().join(name)).unwrap();
        *self.clock.0.lock().unwrap() = modified(&metadata);
    }

    async fn target(&self, name: &str) -> Until {
        let shards = self.source.shards().await.unwrap();
        Until::Target(shards.into_iter().find(|shard| shard.id.as_str() == name).unwrap().end)
    }

    async fn open(&self, name: &str, after: Checkpoint, until: Until) -> Result<Box<dyn ShardReader>, SourceError> {
        self.source.open(&ShardId::new(name), Reading { after, read_through: None, until, arrival: None }).await
    }

    /// Everything from `after` to where the file ends now.
    async fn read(&self, name: &str, after: Checkpoint) -> Result<Vec<Payload>, SourceError> {
        let mut reader = self.open(name, after, self.target(name).await).await?;
        drain(reader.as_mut()).await.map(|(payloads, next)| {
            assert_eq!(next, Next::Reached);
            payloads
        })
    }

    async fn complaint(&self, name: &str, after: Checkpoint) -> String {
        match self.read(name, after).await {
            Err(SourceError::Stopped { shard, reason }) => {
                assert_eq!(shard.as_str(), name);
                reason
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn drain(reader: &mut dyn ShardReader) -> Result<(Vec<Payload>, Next), SourceError> {
    let mut payloads = Vec::new();
    loop {
        let page = reader.next().await?;
        payloads.extend(page.payloads);
        if page.next != Next::More {
            return Ok((payloads, page.next));
        }
    }
}

fn texts(payloads: &[Payload]) -> Vec<&str> {
    payloads.iter().map(|payload| std::str::from_utf8(&payload.data).unwrap()).collect()
}

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const LINES: &str = "{\"a\":1}\n{\"b\":2}\n\n{\"c\":3}\n";

#[tokio::test]
async fn every_file_below_the_directory_is_a_shard_in_the_order_of_their_names() {
    let files = Files::new();
    for name in ["b.ndjson", "a/z.ndjson", "a.ndjson", ".hidden", "50%.ndjson", "ü.ndjson"] {
        files.write(name, "{}\n");
    }
    let shards = files.source.shards().await.unwrap();
    let names: Vec<&str> = shards.iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(names, ["50%25.ndjson", "a.ndjson", "a/z.ndjson", "b.ndjson", "ü.ndjson"]);
    for name in names {
        assert_eq!(files.read(name, Checkpoint::TrimHorizon).await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn plain_gzip_and_zstd_hold_the_same_payloads_at_the_same_positions() {
    let files = Files::new();
    files.write("plain", LINES);
    files.write("gzip", gzip(LINES));
    files.write("two-members", [gzip(&LINES[..16]), gzip(&LINES[16..])].concat());
    files.write("zstd", zstd::encode_all(LINES.as_bytes(), 3).unwrap());
    for name in ["plain", "gzip", "two-members", "zstd"] {
        let payloads = files.read(name, Checkpoint::TrimHorizon).await.unwrap();
        assert_eq!(texts(&payloads), ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"], "{name}");
        let offsets: Vec<_> = payloads.iter().map(|payload| payload.position.sequence.as_u64().unwrap()).collect();
        assert_eq!(offsets, [0, 8, 17], "{name}");
    }
}

#[tokio::test]
async fn reading_resumes_behind_any_payload() {
    let files = Files::new();
    files.write("plain", LINES);
    files.write("gzip", gzip(LINES));
    for name in ["plain", "gzip"] {
        let all = files.read(name, Checkpoint::TrimHorizon).await.unwrap();
        for (index, payload) in all.iter().enumerate() {
            let rest = files.read(name, payload.checkpoint()).await.unwrap();
            assert_eq!(texts(&rest), texts(&all[index + 1..]), "{name} after {index}");
        }
    }
}

#[tokio::test]
async fn a_file_of_many_pages_is_read_whole() {
    let files = Files::new();
    let lines: String =
        (0..100_000).map(|n| format!("{{\"number\":{n},\"padding\":\"................\"}}\n")).collect();
    files.write("many", &lines);
    let payloads = files.read("many", Checkpoint::TrimHorizon).await.unwrap();
    assert_eq!(payloads.len(), 100_000);
    assert!(texts(&payloads).into_iter().eq(lines.lines()));
    let rest = files.read("many", payloads[77_777].checkpoint()).await.unwrap();
    assert_eq!(rest.len(), 100_000 - 77_778);
}

#[tokio::test]
async fn a_document_of_many_lines_is_one_payload() {
    let files = Files::new();
    let document = "[\n  {\"a\": 1},\n  {\"b\": 2}\n]";
    files.write("page.json", format!("{document}\n{{\"c\":3}}\n"));
    let payloads = files.read("page.json", Checkpoint::TrimHorizon).await.unwrap();
    assert_eq!(texts(&payloads), [document, "{\"c\":3}"]);
}

#[tokio::test]
async fn a_value_beyond_the_limit_stops_the_file_and_names_the_key() {
    let files = Files::with_limit(1000);
    files.write("big.json", format!("{{\"a\":1}}\n[\"{}\"", "x".repeat(5000)));
    let reason = files.complaint("big.json", Checkpoint::TrimHorizon).await;
    assert!(reason.starts_with("the value at byte 8 is larger than limits.max_payload_bytes (1000 B)"), "{reason}");
}

#[tokio::test]
async fn a_value_beyond_the_limit_stops_the_file_wherever_the_buffer_ends_and_what_is_before_it_is_read() {
    let files = Files::with_limit(1000);
    files.write("big.json", format!("{{\"a\":1}}\n[\"{}\"]\n{{\"b\":2}}\n", "x".repeat(5000)));
    let mut reader = files.open("big.json", Checkpoint::TrimHorizon, files.target("big.json").await).await.unwrap();
    let page = reader.next().await.unwrap();
    assert_eq!((texts(&page.payloads), page.next), (vec!["{\"a\":1}"], Next::More));
    let reason = reader.next().await.unwrap_err().to_string();
    assert!(reason.contains("the value at byte 8 is larger than limits.max_payload_bytes (1000 B)"), "{reason}");
}

#[tokio::test]
async fn a_file_that_shrank_under_its_checkpoint_is_an_error() {
    let files = Files::new();
    files.write("f", LINES);
    let last = files.read("f", Checkpoint::TrimHorizon).await.unwrap().pop().unwrap();
    files.write("f", "{\"a\":1}\n");
    let reason = files.complaint("f", last.checkpoint()).await;
    assert!(
        reason.starts_with("the file shrank or was replaced: it is archived up to byte 24, but holds 8"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_file_that_was_replaced_under_its_checkpoint_is_an_error() {
    let files = Files::new();
    files.write("f", LINES);
    let last = files.read("f", Checkpoint::TrimHorizon).await.unwrap().pop().unwrap();
    files.write("f", LINES.replace("\"c\":3", "\"c\":4"));
    let reason = files.complaint("f", last.checkpoint()).await;
    assert!(reason.starts_with("the file was replaced or changed: the record at byte 17"), "{reason}");
}

#[tokio::test]
async fn a_copy_of_the_file_in_its_place_is_the_same_file() {
    let files = Files::new();
    files.write("f", LINES);
    let last = files.read("f", Checkpoint::TrimHorizon).await.unwrap().pop().unwrap();
    fs::remove_file(files.directory.path().join("f")).unwrap();
    files.write("f", format!("{LINES}{{\"d\":4}}\n"));
    assert_eq!(texts(&files.read("f", last.checkpoint()).await.unwrap()), ["{\"d\":4}"]);
}

#[tokio::test]
async fn what_is_appended_after_the_target_was_fixed_is_left_for_the_next_run() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n");
    let until = files.target("f").await;
    files.append("f", "{\"b\":2}\n");
    let mut reader = files.open("f", Checkpoint::TrimHorizon, until).await.unwrap();
    let (payloads, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&payloads), next), (vec!["{\"a\":1}"], Next::Reached));
}

#[tokio::test]
async fn a_line_whose_writer_goes_on_is_taken_whole() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n{\"b\"");
    files.rewind_clock("f");
    let until = files.target("f").await;
    let mut reader = files.open("f", Checkpoint::TrimHorizon, until).await.unwrap();
    let (payloads, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&payloads), next), (vec!["{\"a\":1}"], Next::CaughtUp));
    files.append("f", ":2}\n{\"c\":3}\n");
    let (payloads, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&payloads), next), (vec!["{\"b\":2}"], Next::Reached));
}

#[tokio::test]
async fn a_line_that_its_writer_left_unfinished_is_taken_as_it_is() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n{\"b\"");
    let payloads = files.read("f", Checkpoint::TrimHorizon).await.unwrap();
    assert_eq!(texts(&payloads), ["{\"a\":1}", "{\"b\""]);
    files.append("f", ":2}\n{\"c\":3}\n");
    let rest = files.read("f", payloads[1].checkpoint()).await.unwrap();
    assert_eq!(texts(&rest), [":2}", "{\"c\":3}"], "nothing is passed over");
}

#[tokio::test]
async fn a_complete_last_line_needs_no_line_break_and_no_waiting() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n{\"b\":2}");
    files.rewind_clock("f");
    assert_eq!(files.read("f", Checkpoint::TrimHorizon).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_follower_sees_appended_lines_and_waits_for_their_ends() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n");
    let mut reader = files.open("f", Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), ["{\"a\":1}"]);
    files.append("f", "{\"b\":2}\n{\"c\"");
    let (payloads, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&payloads), next), (vec!["{\"b\":2}"], Next::CaughtUp));
    assert!(drain(reader.as_mut()).await.unwrap().0.is_empty());
    files.append("f", ":3}\n");
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), ["{\"c\":3}"]);
}

#[tokio::test]
async fn a_follower_takes_a_whole_document_without_a_line_break_once_it_has_settled() {
    for (name, content) in [("plain", b"[{\"a\":1},\n{\"b\":2}]".to_vec()), ("packed", gzip("[{\"a\":1},\n{\"b\":2}]"))]
    {
        let files = Files::new();
        files.write(name, content);
        files.rewind_clock(name);
        let mut reader = files.open(name, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
        assert!(drain(reader.as_mut()).await.unwrap().0.is_empty(), "its writer may go on");
        *files.clock.0.lock().unwrap() += Duration::from_secs(5);
        let (payloads, next) = drain(reader.as_mut()).await.unwrap();
        assert_eq!((payloads.len(), next), (1, Next::CaughtUp), "{name}");
        assert!(drain(reader.as_mut()).await.unwrap().0.is_empty());
    }
}

#[tokio::test]
async fn a_follower_sees_what_is_appended_to_a_compressed_file() {
    let files = Files::new();
    files.write("f.gz", gzip("{\"a\":1}\n"));
    let mut reader = files.open("f.gz", Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), ["{\"a\":1}"]);
    let member = gzip("{\"b\":2}\n");
    files.append("f.gz", &member[..10]);
    assert!(drain(reader.as_mut()).await.unwrap().0.is_empty(), "half a member is waited for");
    files.append("f.gz", &member[10..]);
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), ["{\"b\":2}"]);
}

#[tokio::test]
async fn a_follower_notices_that_its_file_was_replaced() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n");
    let mut reader = files.open("f", Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    drain(reader.as_mut()).await.unwrap();
    files.write("new", "{\"x\":1}\n{\"y\":2}\n");
    fs::rename(files.directory.path().join("new"), files.directory.path().join("f")).unwrap();
    let error = drain(reader.as_mut()).await.unwrap_err().to_string();
    assert!(error.contains("the file was replaced or changed: the record at byte 0"), "{error}");
}

#[tokio::test]
async fn a_damaged_compressed_file_gives_what_comes_before_and_then_an_error() {
    let files = Files::new();
    let whole = gzip(&LINES.repeat(1000));
    files.write("f.gz", &whole[..whole.len() / 2]);
    let until = files.target("f.gz").await;
    let mut reader = files.open("f.gz", Checkpoint::TrimHorizon, until).await.unwrap();
    let first = reader.next().await.unwrap();
    assert!(first.payloads.len() > 10 && first.next == Next::More);
    let error = reader.next().await.unwrap_err().to_string();
    assert!(error.contains("cut off or damaged behind byte"), "{error}");
}

#[tokio::test]
async fn a_batch_is_read_again_exactly_whatever_was_appended_since() {
    let files = Files::new();
    // The last line is half a document: with what comes later it would be read otherwise.
    files.write("f", "{\"a\":1}\n{\"b\":\n");
    let payloads = files.read("f", Checkpoint::TrimHorizon).await.unwrap();
    assert_eq!(texts(&payloads), ["{\"a\":1}", "{\"b\":"]);
    files.append("f", "2}\n{\"c\":3}\n");
    let arrival = payloads[0].arrival;
    let reading = Reading {
        after: Checkpoint::TrimHorizon,
        until: Until::Through(payloads[1].checkpoint()),
        read_through: None,
        arrival: Some(arrival),
    };
    let mut reader = files.source.open(&ShardId::new("f"), reading).await.unwrap();
    let (again, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&again), next), (texts(&payloads), Next::Reached));
    assert!(again.iter().all(|payload| payload.arrival == arrival));
}

#[tokio::test]
async fn a_batch_that_was_changed_since_is_not_read_again() {
    let files = Files::new();
    files.write("f", LINES);
    let payloads = files.read("f", Checkpoint::TrimHorizon).await.unwrap();
    files.write("f", LINES.replace("\"c\":3", "\"c\":4"));
    let until = Until::Through(payloads[2].checkpoint());
    let mut reader = files.open("f", Checkpoint::TrimHorizon, until).await.unwrap();
    let error = drain(reader.as_mut()).await.unwrap_err().to_string();
    assert!(error.contains("was changed while a batch was under way"), "{error}");
}

#[tokio::test]
async fn what_is_appended_within_a_window_has_one_arrival_time() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n");
    let path = files.directory.path().join("f");
    let set = |time: &str| {
        let time: Timestamp = time.parse().unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(time.into()).unwrap();
    };
    set("2026-11-21T09:31:00Z");
    let mut reader = files.open("f", Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    let mut arrivals = Vec::new();
    for time in ["2026-11-21T09:31:00Z", "2026-11-21T09:59:00Z", "2026-11-21T10:01:00Z"] {
        let (payloads, _) = drain(reader.as_mut()).await.unwrap();
        arrivals.push(payloads[0].arrival.to_string());
        files.append("f", "{\"b\":2}\n");
        set(time);
    }
    assert_eq!(arrivals, ["2026-11-21T09:31:00Z"; 3].map(String::from));
    let (payloads, _) = drain(reader.as_mut()).await.unwrap();
    assert_eq!(payloads[0].arrival.to_string(), "2026-11-21T10:01:00Z");
}

#[tokio::test]
async fn a_file_whose_time_goes_backwards_keeps_the_arrival_time_of_its_open_batch() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n");
    files.touch("f", "2026-11-21T09:31:00Z");
    let mut reader = files.open("f", Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    let first = drain(reader.as_mut()).await.unwrap().0.remove(0).arrival;
    files.append("f", "{\"b\":2}\n");
    files.touch("f", "2026-11-10T00:00:00Z");
    assert_eq!(drain(reader.as_mut()).await.unwrap().0[0].arrival, first);
}

#[tokio::test]
async fn a_file_from_the_future_arrives_now() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n");
    files.touch("f", "2300-01-01T00:00:00Z");
    let payloads = files.read("f", Checkpoint::TrimHorizon).await.unwrap();
    assert_eq!(payloads[0].arrival, files.clock.now());
}

#[tokio::test]
async fn a_begun_line_from_the_future_is_not_waited_for() {
    let files = Files::new();
    files.write("f", "{\"a\":1}\n{\"b\"");
    files.touch("f", "2300-01-01T00:00:00Z");
    assert_eq!(texts(&files.read("f", Checkpoint::TrimHorizon).await.unwrap()), ["{\"a\":1}", "{\"b\""]);
}

#[tokio::test]
async fn a_link_that_leads_nowhere_fails_alone() {
    let files = Files::new();
    files.write("f", LINES);
    std::os::unix::fs::symlink("nowhere", files.directory.path().join("link")).unwrap();
    let shards = files.source.shards().await.unwrap();
    assert_eq!(shards.iter().map(|shard| shard.id.as_str()).collect::<Vec<_>>(), ["f", "link"]);
    assert!(files.complaint("link", Checkpoint::TrimHorizon).await.contains("No such file"));
}

#[tokio::test]
async fn a_file_as_the_path_is_one_shard() {
    let files = Files::new();
    files.write("only.ndjson", LINES);
    let options = FileOptions { path: files.directory.path().join("only.ndjson"), ..(*files.source.options).clone() };
    let source = FileSource::new(options, files.clock.clone());
    let shards = source.shards().await.unwrap();
    assert_eq!(shards.len(), 1);
    let reading = Reading {
        after: Checkpoint::TrimHorizon,
        until: Until::Target(shards[0].end.clone()),
        read_through: None,
        arrival: None,
    };
    let mut reader = source.open(&shards[0].id, reading).await.unwrap();
    assert_eq!(drain(reader.as_mut()).await.unwrap().0.len(), 3);
}
