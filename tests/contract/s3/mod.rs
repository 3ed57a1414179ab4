//! The archive in a bucket: the port's contract, whole objects and parts alike, and what the bucket may do to it.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod faults;
mod probes;

use std::sync::Arc;
use std::time::Duration;

use auditlake::archive::s3::{Encryption, LockMode, Retention, S3Options};
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, Put, S3Archive, Stat, identity};
use auditlake::aws;
use auditlake::digest::Digest;
use auditlake::ops::clock::{Clock as _, SystemClock};
use auditlake::ops::retry::RetryPolicy;
use auditlake_test_servers::{Answer, FaultProxy, aws as servers, ministack};
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::archive_store::keeps_the_contract;

/// A bucket of one test, behind a proxy.
pub(crate) struct Bucket {
    name: String,
    proxy: FaultProxy,
    /// Past the proxy: how a test looks at the bucket, or does damage.
    direct: Client,
}

/// The product's own client, but that it waits for two seconds and not for a minute.
fn client(url: &str) -> Client {
    let config = aws_config::SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new(servers::REGION))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "tests")))
        .endpoint_url(url)
        .retry_config(RetryConfig::standard().with_max_attempts(1))
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(2)).build());
    aws::s3_client(&config.build(), true)
}

impl Bucket {
    pub(crate) async fn new() -> Self {
        let server = ministack().await;
        let direct = servers::s3_client(&server.url);
        let name = servers::unique_name("archive");
        servers::create_bucket(&direct, &name).await;
        Self { name, proxy: FaultProxy::start(&server.url).await, direct }
    }

    fn options(&self) -> S3Options {
        S3Options { prefix: "/audit/logs/".into(), ..S3Options::new(&self.name) }
    }

    fn archive_with(&self, options: S3Options) -> S3Archive {
        S3Archive::new(client(self.proxy.url()), options, Arc::new(SystemClock::start())).unwrap()
    }

    pub(crate) fn archive(&self) -> S3Archive {
        self.archive_with(self.options())
    }

    /// An archive that puts in parts whatever is larger than a mebibyte.
    fn parts(&self) -> S3Archive {
        self.archive_with(S3Options { multipart_above: 1 << 20, part_bytes: 5 << 20, ..self.options() })
    }

    /// An archive that gives up at the first failure.
    fn impatient(&self) -> S3Archive {
        self.archive_with(S3Options { retry: RetryPolicy { give_up_after: Some(Duration::ZERO) }, ..self.options() })
    }

    async fn uploads(&self) -> usize {
        let listed = self.direct.list_multipart_uploads().bucket(&self.name).send().await.unwrap();
        listed.uploads().len()
    }
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// So large that it takes three parts.
fn large() -> Bytes {
    (0..11_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn refusal(error: &ArchiveError) -> String {
    assert!(matches!(error, ArchiveError::Refused { .. } | ArchiveError::OutOfReach { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract() {
    let bucket = Bucket::new().await;
    keeps_the_contract(Arc::new(bucket.archive())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_in_parts_keeps_the_contract() {
    let bucket = Bucket::new().await;
    let options = S3Options { multipart_above: 0, part_bytes: 5 << 20, ..bucket.options() };
    keeps_the_contract(Arc::new(bucket.archive_with(options))).await;
    assert!(bucket.proxy.count("CompleteMultipartUpload") > 20);
    assert_eq!(bucket.uploads().await, 0, "no parts are left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_below_two_prefixes_of_a_bucket_do_not_see_one_another() {
    let bucket = Bucket::new().await;
    let at = |prefix: &str| bucket.archive_with(S3Options { prefix: prefix.into(), ..bucket.options() });
    let (one, two, root) = (at("a"), at("a/"), at(""));
    assert_eq!(one.put_if_absent("k", body("one")).await.unwrap(), Put::Created);
    assert_eq!(two.put_if_absent("k", body("two")).await.unwrap(), Put::Exists, "slashes make no difference");
    assert_eq!(at("ab").put_if_absent("k", body("other")).await.unwrap(), Put::Created);
    assert_eq!(one.list("").await.unwrap(), [Listed { key: "k".into(), bytes: 3 }]);
    let keys: Vec<_> = root.list("").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["a/k", "ab/k"]);
    assert_eq!(one.place(), format!("s3://{}/a", bucket.name));
    assert_eq!(root.place(), format!("s3://{}", bucket.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_a_page_holds_are_all_listed_in_their_order() {
    let bucket = Bucket::new().await;
    let mut puts = JoinSet::new();
    for worker in 0..16 {
        let (client, name) = (bucket.direct.clone(), bucket.name.clone());
        puts.spawn(async move {
            for n in (worker..2100).step_by(16) {
                let key = format!("audit/logs/many/{n:05}");
                client.put_object().bucket(&name).key(key).body(ByteStream::from_static(b"x")).send().await.unwrap();
            }
        });
    }
    puts.join_all().await;
    let archive = bucket.archive();
    bucket.proxy.on("ListObjectsV2").skip(1).next(1).answer(Answer::s3_slow_down());
    let listed = archive.list("many/").await.unwrap();
    let expected: Vec<_> = (0..2100).map(|n| Listed { key: format!("many/{n:05}"), bytes: 1 }).collect();
    assert_eq!(listed, expected);
    assert_eq!(bucket.proxy.count("ListObjectsV2"), 4, "three pages, one of them asked for twice");

    bucket.proxy.forget();
    assert_eq!(archive.list_some("many/", 3).await.unwrap(), expected[..3]);
    assert_eq!(archive.list_some("many/", 1500).await.unwrap(), expected[..1500]);
    assert_eq!(bucket.proxy.count("ListObjectsV2"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_somebody_made_in_a_console_is_no_object() {
    let bucket = Bucket::new().await;
    for key in ["audit/logs/", "audit/logs/events/"] {
        bucket.direct.put_object().bucket(&bucket.name).key(key).send().await.unwrap();
    }
    let archive = bucket.archive();
    assert_eq!(archive.list("").await.unwrap(), []);
    assert_eq!(archive.list_some("", 1).await.unwrap(), []);
    assert!(identity::look(&archive).await.unwrap().is_none(), "an archive may be made there");
    archive.put_if_absent("events/a", body("x")).await.unwrap();
    assert_eq!(archive.list("").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_keeps_of_an_object_is_told_without_reading_it() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    archive.put_if_absent("whole", body("whole")).await.unwrap();
    archive.put_if_absent("parts", large()).await.unwrap();
    let whole = Stat { bytes: 5, sha256: Some(Digest::of(b"whole")) };
    assert_eq!(archive.stat("whole").await.unwrap(), Some(whole));
    // What stands for a whole made of parts is a digest of digests.
    assert_eq!(archive.stat("parts").await.unwrap(), Some(Stat { bytes: 11 << 20, sha256: None }));
    assert_eq!(bucket.proxy.count("GetObject"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_gets_what_the_settings_say_and_never_an_encoding() {
    let bucket = Bucket::new().await;
    let locked = servers::unique_name("locked");
    let made = bucket.direct.create_bucket().bucket(&locked).object_lock_enabled_for_bucket(true).send().await;
    made.unwrap();
    let archive = bucket.archive_with(S3Options {
        bucket: locked.clone(),
        encryption: Some(Encryption::Kms { key_id: Some("a-key".into()), bucket_key: true }),
        storage_class: Some("STANDARD_IA".into()),
        tags: [("team".into(), "audit & co".into())].into(),
        retention: Some(Retention { mode: LockMode::Governance, retain: Duration::from_hours(24) }),
        multipart_above: 1 << 20,
        part_bytes: 5 << 20,
        ..bucket.options()
    });
    archive.put_if_absent("events/a.ndjson.gz", body("x")).await.unwrap();
    archive.put_if_absent("events/b.parquet", large()).await.unwrap();

    let until = SystemClock::start().now() + Duration::from_hours(24);
    for (operation, content_type, sha256) in [
        ("PutObject", "application/gzip", Digest::of(b"x")),
        ("CreateMultipartUpload", "application/vnd.apache.parquet", Digest::of(&large())),
    ] {
        let sent = bucket.proxy.requests_for(operation).pop().unwrap().headers;
        let is = |name: &str, value: &str| assert_eq!(sent.get(name), Some(value), "{operation}: {name}");
        is("content-type", content_type);
        is("x-amz-meta-sha256", &sha256.to_string());
        is("x-amz-server-side-encryption", "aws:kms");
        is("x-amz-server-side-encryption-aws-kms-key-id", "a-key");
        is("x-amz-server-side-encryption-bucket-key-enabled", "true");
        is("x-amz-storage-class", "STANDARD_IA");
        is("x-amz-tagging", "team=audit%20%26%20co");
        is("x-amz-object-lock-mode", "GOVERNANCE");
        let told: jiff::Timestamp = sent.get("x-amz-object-lock-retain-until-date").unwrap().parse().unwrap();
        assert!((until.as_second() - told.as_second()).abs() < 120, "{told} is a day from now, {until}");
    }
    for request in bucket.proxy.requests() {
        assert_eq!(request.headers.get("content-encoding"), None, "{}", request.operation);
        // What not every store knows, and the SDK would add by itself.
        let own = |name: &str| name.starts_with("x-amz-checksum-crc") || name == "x-amz-trailer";
        assert!(!request.headers.iter().any(|(name, _)| own(name)), "{}", request.operation);
    }
    for key in ["events/a.ndjson.gz", "events/b.parquet"] {
        let head = bucket.direct.head_object().bucket(&locked).key(format!("audit/logs/{key}")).send().await;
        assert_eq!(head.unwrap().content_encoding(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_put_has_the_condition_and_a_checksum() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    archive.put_if_absent("a", body("x")).await.unwrap();
    archive.put_if_absent("b", large()).await.unwrap();
    let header = |operation: &str, name: &str| -> Vec<Option<String>> {
        let requests = bucket.proxy.requests_for(operation);
        requests.iter().map(|request| request.headers.get(name).map(str::to_owned)).collect()
    };
    assert_eq!(header("PutObject", "if-none-match"), [Some("*".into())]);
    assert_eq!(header("CompleteMultipartUpload", "if-none-match"), [Some("*".into())]);
    let sha256 = "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="; // printf x | openssl dgst -sha256 -binary | base64
    assert_eq!(header("PutObject", "x-amz-checksum-sha256"), [Some(sha256.into())]);
    let parts = header("UploadPart", "x-amz-checksum-sha256");
    assert!(parts.len() == 3 && parts.iter().all(Option::is_some), "{parts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_workers_that_make_the_archive_at_once_all_get_the_same() {
    let bucket = Bucket::new().await;
    bucket.proxy.on("PutObject").next(1).lose_answer();
    let mut workers = JoinSet::new();
    for worker in 1..=8 {
        let archive = bucket.archive();
        workers.spawn(async move {
            let new_id = || Uuid::from_u128(worker);
            identity::open_or_create(&archive, jiff::Timestamp::UNIX_EPOCH, new_id).await.unwrap().archive_id
        });
    }
    let ids = workers.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(identity::read(&bucket.archive()).await.unwrap().archive_id, ids[0]);
}

#[tokio::test]
async fn the_products_client_leaves_checksums_and_retries_to_the_adapter() {
    let patience = aws::Patience { attempt: Duration::from_secs(1), attempts: 1 };
    let access = aws::Access { region: Some("eu-west-1"), ..aws::Access::default() };
    let client = aws::s3_client(&aws::sdk_config(access, patience).await, true);
    assert_eq!(client.config().retry_config().unwrap().max_attempts(), 1);
}
