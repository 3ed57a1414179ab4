//! Clients of the servers, what tests do with them again and again, and the environment of a child process.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Shard, StreamStatus};

/// The region of all test servers.
pub const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "test";
const SECRET_KEY: &str = "test";
/// No step takes this long, however loaded the machine.
const PATIENCE: Duration = Duration::from_mins(1);
const TICK: Duration = Duration::from_millis(20);
/// What one `PutRecords` may take; of bytes 10 MiB, and fewer are safer.
const MOST_RECORDS: usize = 500;
const MOST_BYTES: usize = 4 * 1024 * 1024;

fn http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests")
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(5)
}

/// The beginning of a client's configuration: each service has a type of its own for the same settings.
macro_rules! config_at {
    ($sdk:ident, $url:expr) => {
        $sdk::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http())
            .region(Region::new(REGION))
            .credentials_provider(credentials())
            .retry_config(retries())
            .endpoint_url($url)
    };
}

/// A client of Kinesis at this address. A client belongs to the runtime of its test.
pub fn kinesis_client(url: &str) -> aws_sdk_kinesis::Client {
    aws_sdk_kinesis::Client::from_conf(config_at!(aws_sdk_kinesis, url).build())
}

/// A client of `DynamoDB` at this address.
pub fn dynamodb_client(url: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::from_conf(config_at!(aws_sdk_dynamodb, url).build())
}

/// A client of S3 at this address, with the bucket in the path.
pub fn s3_client(url: &str) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(config_at!(aws_sdk_s3, url).force_path_style(true).build())
}

/// A name that no other test has, of this run or another; fit for streams, tables and buckets.
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    format!("{prefix}-{:x}-{started:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a bucket.
pub async fn create_bucket(client: &aws_sdk_s3::Client, bucket: &str) {
    let created = client.create_bucket().bucket(bucket).send().await;
    created.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
}

/// Creates a stream and waits until it can be used.
pub async fn create_stream(client: &aws_sdk_kinesis::Client, stream: &str, shards: i32) {
    let created = client.create_stream().stream_name(stream).shard_count(shards).send().await;
    created.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    wait_until_active(client, stream).await;
}

/// Waits until no change of a stream is under way.
pub async fn wait_until_active(client: &aws_sdk_kinesis::Client, stream: &str) {
    let started = Instant::now();
    loop {
        let described = client.describe_stream_summary().stream_name(stream).send().await;
        let described = described.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
        let status = described.stream_description_summary().map(|summary| summary.stream_status().clone());
        if status == Some(StreamStatus::Active) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{stream} remains {status:?}");
        tokio::time::sleep(TICK).await;
    }
}

/// All shards of a stream, ended ones too.
pub async fn shards(client: &aws_sdk_kinesis::Client, stream: &str) -> Vec<Shard> {
    let mut shards = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let request = client.list_shards();
        let request = match next.take() {
            Some(token) => request.next_token(token),
            None => request.stream_name(stream),
        };
        let listed = request.send().await.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
        shards.extend_from_slice(listed.shards());
        next = listed.next_token().map(str::to_owned);
        if next.is_none() {
            return shards;
        }
    }
}

/// Whether a shard takes records.
pub fn is_open(shard: &Shard) -> bool {
    shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_none())
}

fn hash_range(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (range.starting_hash_key().parse().unwrap(), range.ending_hash_key().parse().unwrap())
}

/// Splits a shard in the middle; its children, in the order of their hash keys.
pub async fn split_shard(client: &aws_sdk_kinesis::Client, stream: &str, shard: &str) -> Vec<String> {
    let before = shards(client, stream).await;
    let parent = before.iter().find(|known| known.shard_id() == shard).unwrap_or_else(|| panic!("there is no {shard}"));
    let (first, last) = hash_range(parent);
    let middle = first + (last - first) / 2 + 1;
    let split = client.split_shard().stream_name(stream).shard_to_split(shard);
    let split = split.new_starting_hash_key(middle.to_string()).send().await;
    split.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    new_shards(client, stream, &before).await
}

/// Merges two neighbours; their child.
pub async fn merge_shards(client: &aws_sdk_kinesis::Client, stream: &str, shard: &str, neighbour: &str) -> String {
    let before = shards(client, stream).await;
    let merged = client.merge_shards().stream_name(stream).shard_to_merge(shard).adjacent_shard_to_merge(neighbour);
    merged.send().await.unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    new_shards(client, stream, &before).await.remove(0)
}

async fn new_shards(client: &aws_sdk_kinesis::Client, stream: &str, before: &[Shard]) -> Vec<String> {
    wait_until_active(client, stream).await;
    let known: BTreeSet<_> = before.iter().map(Shard::shard_id).collect();
    let mut new = shards(client, stream).await;
    new.retain(|shard| !known.contains(shard.shard_id()));
    new.sort_by_key(hash_range);
    new.iter().map(|shard| shard.shard_id().to_owned()).collect()
}

/// One record for [`put_records`].
#[derive(Clone, Debug)]
pub struct Put {
    /// What the shard is chosen by.
    pub partition_key: String,
    /// The payload.
    pub data: Vec<u8>,
    /// The shard's hash key, where the partition key is not to choose.
    pub explicit_hash_key: Option<String>,
}

impl Put {
    /// Where the partition key leads.
    pub fn new(partition_key: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self { partition_key: partition_key.into(), data: data.into(), explicit_hash_key: None }
    }

    /// To this shard, whatever the partition key.
    pub fn to_shard(shard: &Shard, data: impl Into<Vec<u8>>) -> Self {
        let key = hash_range(shard).0.to_string();
        Self { explicit_hash_key: Some(key), ..Self::new("any", data) }
    }
}

/// Puts records, in their order but for those that were throttled, which are put again; where each went: shard and
/// sequence number.
pub async fn put_records(client: &aws_sdk_kinesis::Client, stream: &str, records: &[Put]) -> Vec<(String, String)> {
    let mut places = vec![None; records.len()];
    let mut moved = Instant::now();
    let mut left: Vec<usize> = (0..records.len()).collect();
    while !left.is_empty() {
        let batch = first_batch(records, &left);
        let entries = batch.iter().map(|number| entry(&records[*number])).collect();
        match client.put_records().stream_name(stream).set_records(Some(entries)).send().await {
            Ok(put) => {
                for (number, result) in batch.iter().zip(put.records()) {
                    places[*number] = result.shard_id().zip(result.sequence_number()).map(owned);
                }
            }
            Err(error) if moved.elapsed() > PATIENCE => panic!("{}", DisplayErrorContext(error)),
            // Throttled as a whole, or an answer lost on the way: what was put may be put twice, as every producer does.
            Err(_) => {}
        }
        let before = left.len();
        left.retain(|number| places[*number].is_none());
        if left.len() < before {
            moved = Instant::now();
        } else {
            assert!(moved.elapsed() < PATIENCE, "{stream} takes no records");
            tokio::time::sleep(TICK).await;
        }
    }
    places.into_iter().flatten().collect()
}

/// As many of those that are left as one call may take.
fn first_batch(records: &[Put], left: &[usize]) -> Vec<usize> {
    let mut bytes = 0;
    let fits = |number: &usize| {
        bytes += records[*number].data.len() + records[*number].partition_key.len();
        bytes <= MOST_BYTES
    };
    let batch: Vec<usize> = left.iter().copied().take(MOST_RECORDS).take_while(fits).collect();
    if batch.is_empty() { left[..1].to_vec() } else { batch }
}

fn entry(put: &Put) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .partition_key(&put.partition_key)
        .set_explicit_hash_key(put.explicit_hash_key.clone())
        .data(Blob::new(put.data.clone()))
        .build()
        .unwrap()
}

fn owned((shard, number): (&str, &str)) -> (String, String) {
    (shard.to_owned(), number.to_owned())
}

/// Where a child process finds the services.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Of Kinesis.
    pub kinesis: Option<String>,
    /// Of `DynamoDB`.
    pub dynamodb: Option<String>,
    /// Of S3.
    pub s3: Option<String>,
}

impl Endpoints {
    /// The environment of a process that is to use these and nothing else.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            // What stands in the home directory of who runs the tests is no part of them.
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ];
        let named = [
            ("AWS_ENDPOINT_URL_KINESIS", &self.kinesis),
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb),
            ("AWS_ENDPOINT_URL_S3", &self.s3),
        ];
        environment.extend(named.into_iter().filter_map(|(name, url)| Some((name, url.clone()?))));
        environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Sets it for a command, and removes every other setting of AWS.
    pub fn set_for(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment());
    }
}
