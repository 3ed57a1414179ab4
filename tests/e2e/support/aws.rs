//! A stream, a table and a bucket of one's own, and the binary on them: as many workers as a test wants.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use auditlake_test_servers::aws::{
    Endpoints, Put, create_bucket, create_stream, dynamodb_client, is_open, kinesis_client, merge_shards, put_records,
    s3_client, shards, split_shard, unique_name,
};
use auditlake_test_servers::{FaultProxy, Request, kinesis, ministack};
use aws_sdk_dynamodb::operation::scan::ScanError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::archived::Archived;
use super::feed::Feed;
use super::process::{Done, Process, finish, wait_until};
use super::workspace::Workspace;

/// One archive in the cloud, with what feeds it. The binary reaches each service through a proxy of its own; the
/// fixture goes past them.
pub struct Cloud {
    workspace: Workspace,
    runtime: Runtime,
    /// The stream's name.
    pub stream: String,
    /// The bucket's name.
    pub bucket: String,
    /// What the names of the tables begin with.
    pub tables: String,
    /// Past the proxies.
    pub(super) kinesis: aws_sdk_kinesis::Client,
    pub(super) dynamodb: aws_sdk_dynamodb::Client,
    pub(super) s3: aws_sdk_s3::Client,
    /// Faults of Kinesis.
    pub kinesis_faults: FaultProxy,
    /// Faults of `DynamoDB`.
    pub dynamodb_faults: FaultProxy,
    /// Faults of S3.
    pub s3_faults: FaultProxy,
    /// The `ETag`s of the objects that were downloaded.
    pub(super) mirrored: Mutex<BTreeMap<String, String>>,
}

/// Which server plays Kinesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// True in every detail, a few thousand records a shard at most.
    Exact,
    /// For many records; shards never change.
    Fast,
}

impl Cloud {
    /// A stream of so many shards that may be split and merged, and takes a few thousand records a shard at most.
    pub fn new(shards: i32) -> Self {
        Self::on(Stage::Exact, shards)
    }

    /// A stream of so many shards that takes many records, and is never to be split or merged.
    pub fn for_many_records(shards: i32) -> Self {
        Self::on(Stage::Fast, shards)
    }

    fn on(stage: Stage, shards: i32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let others = runtime.block_on(ministack()).url;
        let streams = match stage {
            Stage::Exact => runtime.block_on(kinesis()).url,
            Stage::Fast => others.clone(),
        };
        let cloud = Self {
            workspace: Workspace::new(),
            stream: unique_name("audit"),
            bucket: unique_name("audit"),
            tables: unique_name("audit"),
            kinesis: kinesis_client(&streams),
            dynamodb: dynamodb_client(&others),
            s3: s3_client(&others),
            kinesis_faults: FaultProxy::start_blocking(&streams),
            dynamodb_faults: FaultProxy::start_blocking(&others),
            s3_faults: FaultProxy::start_blocking(&others),
            mirrored: Mutex::default(),
            runtime,
        };
        if stage == Stage::Fast {
            cloud.kinesis_faults.on("GetShardIterator").edit_request(write_numbers_as_ministack_does);
        }
        cloud.wait(create_stream(&cloud.kinesis, &cloud.stream, shards));
        cloud.wait(create_bucket(&cloud.s3, &cloud.bucket));
        cloud.configured()
    }

    /// Short windows, a short failover, and eyes that look often.
    fn configured(mut self) -> Self {
        for (key, value) in [
            ("source.kind", "kinesis"),
            ("source.kinesis.stream", &self.stream.clone()),
            ("source.kinesis.poll", "200ms"),
            ("source.kinesis.list_shards", "2s"),
            ("state.kind", "dynamodb"),
            ("state.dynamodb.table_prefix", &self.tables.clone()),
            ("archive.kind", "s3"),
            ("archive.s3.bucket", &self.bucket.clone()),
            ("archive.s3.prefix", PREFIX),
            ("batch.window", "2s"),
            ("lease.failover", "3s"),
        ] {
            self.workspace.set(key, &format!("{value:?}"));
        }
        self.workspace.set("archive.s3.force_path_style", "true");
        self
    }

    /// Waits for something that is async.
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// Sets a key of the configuration for the processes that start from now on; `value` is TOML.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.workspace.set(key, value);
        self
    }

    /// The binary with these arguments, on this stream, these tables and this bucket.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(arguments);
        let endpoints = Endpoints {
            kinesis: Some(self.kinesis_faults.url().to_owned()),
            dynamodb: Some(self.dynamodb_faults.url().to_owned()),
            s3: Some(self.s3_faults.url().to_owned()),
        };
        endpoints.set_for(&mut command);
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(arguments))
    }

    /// Starts a worker of this name.
    pub fn worker(&self, name: &str) -> Worker {
        self.worker_with(name, &[])
    }

    /// Starts a worker of this name, with something more in its environment.
    pub fn worker_with(&self, name: &str, environment: &[(&str, &str)]) -> Worker {
        let mut command = self.command(&["run"]);
        command.env("AUDITLAKE__WORKER__ID", name).envs(environment.iter().copied());
        Worker { name: name.to_owned(), process: Process::start(&mut command) }
    }

    /// `catch-up`, which must succeed; its summary.
    #[track_caller]
    pub fn catch_up(&self) -> Value {
        self.run(&["catch-up", "--json"]).expect(0).json()
    }

    /// `verify`, which must find nothing; its report.
    #[track_caller]
    pub fn verify(&self) -> Value {
        self.run(&["verify", "--json"]).proof()
    }

    /// `status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).expect(0).json()
    }

    /// Puts the feed's next payloads.
    pub fn put(&self, feed: &mut Feed, payloads: u64) {
        self.put_these(&feed.take(payloads));
    }

    /// Puts payloads; where each went: shard and sequence number.
    pub fn put_these(&self, payloads: &[Put]) -> Vec<(String, String)> {
        self.wait(put_records(&self.kinesis, &self.stream, payloads))
    }

    /// Puts the feed's next payloads, so many a second. Blocks: let a thread do it.
    pub fn put_at_rate(&self, feed: &mut Feed, payloads: u64, a_second: u64) {
        let started = Instant::now();
        let mut put = 0;
        while put < payloads {
            let due = (started.elapsed().as_millis() as u64 * a_second / 1000 + 1).min(payloads);
            if due > put {
                self.put(feed, due - put);
                put = due;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The names of the shards that take records, in the order of their hash keys.
    pub fn open_shards(&self) -> Vec<String> {
        let mut open = self.wait(shards(&self.kinesis, &self.stream));
        open.retain(is_open);
        open.sort_by_key(|shard| {
            shard.hash_key_range().map(|range| range.starting_hash_key().parse::<u128>().unwrap())
        });
        open.iter().map(|shard| shard.shard_id().to_owned()).collect()
    }

    /// Splits a shard in the middle; its children.
    pub fn split(&self, shard: &str) -> Vec<String> {
        self.wait(split_shard(&self.kinesis, &self.stream, shard))
    }

    /// Merges neighbours; their child.
    pub fn merge(&self, shard: &str, neighbour: &str) -> String {
        self.wait(merge_shards(&self.kinesis, &self.stream, shard, neighbour))
    }

    /// The rows of the lease table, by shard; none where there is no table yet.
    pub fn leases(&self) -> BTreeMap<String, LeaseItem> {
        let table = self.table("leases");
        let pages = self.dynamodb.scan().table_name(table).consistent_read(true).into_paginator().items().send();
        match self.wait(pages.collect::<Result<Vec<_>, _>>()) {
            Ok(items) => items.iter().filter_map(LeaseItem::of).map(|lease| (lease.shard.clone(), lease)).collect(),
            Err(error) if error.as_service_error().is_some_and(ScanError::is_resource_not_found_exception) => {
                BTreeMap::new()
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Brings the archive to a disk, as it stands now; where it is. Only what is new or changed is fetched.
    pub fn download(&self) -> PathBuf {
        let root = self.workspace.archive();
        let mut mirrored = self.mirrored.lock().unwrap();
        let objects = self.list();
        mirrored.retain(|key, _| {
            let stays = objects.contains_key(key);
            if !stays {
                fs::remove_file(root.join(key)).unwrap();
            }
            stays
        });
        for (key, tag) in objects {
            if mirrored.get(&key) != Some(&tag) {
                let path = root.join(&key);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, self.get(&key)).unwrap();
                mirrored.insert(key, tag);
            }
        }
        root
    }

    /// The objects below the prefix, with their `ETag`s.
    fn list(&self) -> BTreeMap<String, String> {
        let prefix = format!("{PREFIX}/");
        let pages = self.s3.list_objects_v2().bucket(&self.bucket).prefix(&prefix).into_paginator().send();
        let pages = self.wait(pages.collect::<Result<Vec<_>, _>>()).unwrap();
        let objects = pages.iter().flat_map(ListObjectsV2Output::contents);
        let named = objects.map(|object| {
            let key = object.key().unwrap().strip_prefix(&prefix).unwrap();
            (key.to_owned(), object.e_tag().unwrap_or_default().to_owned())
        });
        named.collect()
    }

    /// The names of the objects below a folder of the archive.
    pub fn objects(&self, folder: &str) -> Vec<String> {
        self.list().into_keys().filter(|key| key.starts_with(folder)).collect()
    }

    /// An object's bytes.
    pub fn get(&self, key: &str) -> Vec<u8> {
        self.wait(async {
            let found = self.s3.get_object().bucket(&self.bucket).key(format!("{PREFIX}/{key}")).send().await.unwrap();
            found.body.collect().await.unwrap().to_vec()
        })
    }

    /// Puts an object, or another in its place.
    pub fn put_object(&self, key: &str, bytes: Vec<u8>) {
        let put = self.s3.put_object().bucket(&self.bucket).key(format!("{PREFIX}/{key}")).body(bytes.into());
        self.wait(put.send()).unwrap();
    }

    /// The rows of the archive.
    pub fn archived(&self) -> Archived {
        Archived::read(&self.download())
    }

    /// Waits until the archive has all that was fed. What it has too much, or twice, only a proof at the end shows.
    #[track_caller]
    pub fn wait_until_archived(&self, feed: &Feed) {
        let holds = || {
            // Reading all of it back is work, and the workers need the cores.
            thread::sleep(Duration::from_millis(200));
            let archived = self.archived();
            feed.truth.events.iter().all(|key| archived.events.contains_key(key))
        };
        wait_until("all that was fed is archived", holds);
    }
}

/// `MiniStack` compares sequence numbers as text, with the zeros that it puts in front of them; the API knows none.
fn write_numbers_as_ministack_does(request: &mut Request) {
    let mut body: Value = serde_json::from_slice(&request.body).unwrap();
    if let Some(Value::String(number)) = body.get_mut("StartingSequenceNumber") {
        *number = format!("{number:0>30}");
    }
    request.body = body.to_string().into();
}

/// The archive's place in its bucket.
pub const PREFIX: &str = "temporal/audit";

/// A row of the lease table, as it stands there.
#[derive(Clone, Debug)]
pub struct LeaseItem {
    /// The shard.
    pub shard: String,
    /// The worker that holds it: its name and something unique.
    pub owner: Option<String>,
    /// Grows with every write.
    pub counter: u64,
    /// `TRIM_HORIZON`, `AT_TIMESTAMP`, `SHARD_END` or a sequence number.
    pub checkpoint: String,
    /// Whether a batch is prepared and not committed.
    pub is_pending: bool,
}

impl LeaseItem {
    /// None where the item is no shard's.
    fn of(item: &HashMap<String, AttributeValue>) -> Option<Self> {
        let text = |name: &str| item.get(name)?.as_s().ok().cloned();
        Some(Self {
            shard: text("auditlake_shard")?,
            owner: text("leaseOwner"),
            counter: item.get("leaseCounter")?.as_n().ok()?.parse().ok()?,
            checkpoint: text("checkpoint")?,
            is_pending: item.contains_key("pendingCheckpointState"),
        })
    }

    /// Whether the shard has ended and its end is committed.
    pub fn has_ended(&self) -> bool {
        self.checkpoint == "SHARD_END"
    }
}

/// A daemon. Killed when dropped.
pub struct Worker {
    /// Its name; its owner's name in the lease table begins with it.
    pub name: String,
    /// Its process, with what it says.
    pub process: Process,
}

impl Worker {
    /// SIGKILL; whether it was still running.
    pub fn kill(self) -> bool {
        self.process.kill()
    }

    /// SIGSTOP: it sleeps, and does not know it.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// SIGCONT: it goes on where it was.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// SIGTERM; how it ended.
    pub fn end(self) -> Done {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// SIGTERM; it must end well. What it said.
    #[track_caller]
    pub fn stop(self) -> Done {
        let done = self.end().expect(0);
        assert!(!done.stderr.contains("the grace is over"), "{}", done.stderr);
        done
    }

    /// Whether a lease is its own.
    pub fn holds(&self, lease: &LeaseItem) -> bool {
        lease.owner.as_ref().is_some_and(|owner| owner.starts_with(&self.name))
    }

    /// How many of the leases are its own.
    pub fn leases_held(&self, cloud: &Cloud) -> usize {
        cloud.leases().values().filter(|lease| self.holds(lease)).count()
    }
}
