//! The archive in a bucket: the port's contract, whole objects and parts alike, and what the bucket may do to it.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::sync::Arc;
use std::time::Duration;

use auditlake::archive::s3::{Encryption, LockMode, Probe, Retention, S3Options};
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, Put, S3Archive, Stat, identity};
use auditlake::aws;
use auditlake::digest::Digest;
use auditlake::ops::clock::{Clock as _, SystemClock};
use auditlake::ops::retry::RetryPolicy;
use auditlake_test_servers::{Answer, FaultProxy, aws as servers, ministack};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::archive_store::keeps_the_contract;

/// A bucket of one test, behind a proxy.
struct Bucket {
    name: String,
    proxy: FaultProxy,
    /// Past the proxy: how a test looks at the bucket, or does damage.
    direct: Client,
}

/// The client as the product makes it: it sends each call once.
fn client(url: &str) -> Client {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(2)).build();
    let config = servers::s3_client(url).config().to_builder();
    Client::from_conf(
        config.retry_config(RetryConfig::standard().with_max_attempts(1)).timeout_config(timeouts).build(),
    )
}

impl Bucket {
    async fn new() -> Self {
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

    fn archive(&self) -> S3Archive {
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
    assert!(matches!(error, ArchiveError::Refused { .. }), "{error:?}");
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

/// What may befall any call and passes.
fn passing() -> Vec<(&'static str, Answer)> {
    vec![
        ("SlowDown", Answer::s3_slow_down()),
        ("InternalError", Answer::s3(500, "InternalError")),
        ("a gateway's 502", Answer::new(502).body("<html>Bad Gateway</html>")),
        ("a gateway's 504", Answer::new(504)),
        ("RequestTimeout", Answer::s3(400, "RequestTimeout")),
        ("expired credentials", Answer::s3(400, "ExpiredToken")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_in_every_call() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    for (number, (what, answer)) in passing().into_iter().enumerate() {
        for operation in ["PutObject", "GetObject", "HeadObject", "ListObjectsV2", "UploadPart"] {
            bucket.proxy.on(operation).next(2).answer(answer.clone());
        }
        for operation in ["CreateMultipartUpload", "CompleteMultipartUpload"] {
            bucket.proxy.on(operation).next(1).answer(answer.clone());
        }
        let (small, parts) = (format!("small/{number}"), format!("parts/{number}"));
        assert_eq!(archive.put_if_absent(&small, body(&small)).await.unwrap(), Put::Created, "{what}");
        assert_eq!(archive.get(&small).await.unwrap(), Some(body(&small)), "{what}");
        assert_eq!(archive.stat(&small).await.unwrap().unwrap().bytes, 7, "{what}");
        assert_eq!(archive.list(&small).await.unwrap().len(), 1, "{what}");
        assert_eq!(archive.put_if_absent(&parts, large()).await.unwrap(), Put::Created, "{what}");
        assert!(archive.get(&parts).await.unwrap().unwrap() == large(), "{what}");
        bucket.proxy.heal();
    }
    assert_eq!(bucket.uploads().await, 0, "uploads that came to nothing were cleared away");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_soon_is_left_to_the_caller_to_try_again() {
    let bucket = Bucket::new().await;
    let archive = bucket.impatient();
    archive.put_if_absent("a", body("x")).await.unwrap();
    bucket.proxy.on_any().answer(Answer::s3_slow_down());
    let errors = [
        archive.put_if_absent("b", body("x")).await.unwrap_err(),
        archive.get("a").await.unwrap_err(),
        archive.stat("a").await.unwrap_err(),
        archive.list("").await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.may_pass() && matches!(error, ArchiveError::Unavailable { .. }), "{error:?}");
    }
    bucket.proxy.heal();
    assert_eq!(archive.put_if_absent("b", body("x")).await.unwrap(), Put::Created);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_resets_and_silence_end_in_one_object() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    bucket.proxy.on("PutObject").next(1).cut();
    assert_eq!(archive.put_if_absent("cut", body("cut")).await.unwrap(), Put::Created);

    // It took effect, and nobody was told: what is found standing is looked at by whoever put it.
    bucket.proxy.on("PutObject").next(1).lose_answer();
    assert_eq!(archive.put_if_absent("lost", body("lost")).await.unwrap(), Put::Exists);
    assert_eq!(archive.get("lost").await.unwrap(), Some(body("lost")));

    // Whoever completes an upload that is complete may be told so again, or that an object stands: either is true.
    let lost = bucket.proxy.on("CompleteMultipartUpload").next(1).lose_answer();
    archive.put_if_absent("parts", large()).await.unwrap();
    assert_eq!(lost.hits(), 1);
    assert_eq!(archive.put_if_absent("parts", body("another")).await.unwrap(), Put::Exists);
    assert!(archive.get("parts").await.unwrap().unwrap() == large());

    // Longer than a call may take.
    bucket.proxy.on("PutObject").next(1).delay_answer(Duration::from_secs(4));
    assert_eq!(archive.put_if_absent("slow", body("slow")).await.unwrap(), Put::Exists);
    bucket.proxy.on("GetObject").next(1).hang();
    assert_eq!(archive.get("slow").await.unwrap(), Some(body("slow")));
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_read_again_and_never_taken_for_whole() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    archive.put_if_absent("a", large()).await.unwrap();
    bucket.proxy.on("GetObject").next(2).cut_answer_after(1 << 20);
    assert!(archive.get("a").await.unwrap().unwrap() == large());

    bucket.proxy.on("GetObject").cut_answer_after(1 << 20);
    let error = bucket.impatient().get("a").await.unwrap_err();
    assert!(matches!(error, ArchiveError::Unavailable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changed_on_its_way_is_noticed_in_both_directions() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    let flip = |body: &mut Bytes| {
        let mut bytes = body.to_vec();
        bytes[2] ^= 1;
        *body = bytes.into();
    };
    bucket.proxy.on("PutObject").next(1).edit_request(move |request| flip(&mut request.body));
    assert_eq!(archive.put_if_absent("a", body("sound")).await.unwrap(), Put::Created);
    assert_eq!(bucket.proxy.count("PutObject"), 2, "the store refused the first");

    bucket.proxy.on("GetObject").next(1).edit_answer(move |answer| flip(&mut answer.body));
    assert_eq!(archive.get("a").await.unwrap(), Some(body("sound")));
    assert_eq!(bucket.proxy.count("GetObject"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_an_answer_of_200_is_a_failure_and_tried_again() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    for (key, answer) in [
        ("internal", Answer::s3_error_in_200()),
        ("slow", Answer::s3(200, "SlowDown")),
        ("unknown", Answer::s3(200, "SomethingNew")),
    ] {
        let fault = bucket.proxy.on("CompleteMultipartUpload").next(1).answer(answer);
        assert_eq!(archive.put_if_absent(key, large()).await.unwrap(), Put::Created, "{key}");
        assert_eq!(fault.hits(), 1);
        assert!(archive.get(key).await.unwrap().unwrap() == large(), "{key}");
    }
    bucket.proxy.on("CompleteMultipartUpload").answer(Answer::s3_error_in_200());
    let options = S3Options { multipart_above: 0, ..bucket.options() };
    let retry = RetryPolicy { give_up_after: Some(Duration::ZERO) };
    let error =
        bucket.archive_with(S3Options { retry, ..options }).put_if_absent("never", body("x")).await.unwrap_err();
    assert!(error.may_pass(), "{error:?}");
    assert_eq!(archive.get("never").await.unwrap(), None);
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_tried_again_and_is_no_proof_that_an_object_stands() {
    let bucket = Bucket::new().await;
    let archive = bucket.parts();
    bucket.proxy.on("PutObject").next(2).answer(Answer::s3_conflict());
    bucket.proxy.on("CompleteMultipartUpload").next(1).answer(Answer::s3_conflict());
    assert_eq!(archive.put_if_absent("a", body("x")).await.unwrap(), Put::Created);
    assert_eq!(archive.put_if_absent("b", large()).await.unwrap(), Put::Created);
    assert_eq!(bucket.proxy.count("CreateMultipartUpload"), 2, "an upload that met a conflict is begun anew");
    assert_eq!(bucket.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_refused_at_once_with_what_is_wrong_and_what_to_do() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    let (name, objects) = (&bucket.name, format!("arn:aws:s3:::{}/audit/logs/*", bucket.name));
    for (answer, expected) in [
        (Answer::s3_access_denied(), format!("allow s3:PutObject on {objects}")),
        (Answer::s3(404, "NoSuchBucket"), format!("there is no bucket `{name}` there")),
        (Answer::s3(403, "InvalidAccessKeyId"), "the credentials are not known there".into()),
        (Answer::s3(403, "SignatureDoesNotMatch"), "the credentials are not known there".into()),
        (
            Answer::s3(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-3"),
            "the bucket's region is `eu-west-3`: correct archive.s3.region".into(),
        ),
        (Answer::s3(400, "AuthorizationHeaderMalformed"), "correct archive.s3.region".into()),
        (Answer::s3(400, "KMS.DisabledException"), "see to the key of archive.s3.kms_key_id".into()),
        (Answer::s3(400, "InvalidStorageClass"), "correct archive.s3.storage_class".into()),
        (Answer::s3(400, "InvalidRequest"), "said by the fault proxy (HTTP 400)".into()),
        (Answer::s3(501, "NotImplemented"), "the store does not know what is asked of it".into()),
    ] {
        let fault = bucket.proxy.on("PutObject").answer(answer);
        let said = refusal(&archive.put_if_absent("events/a", body("x")).await.unwrap_err());
        assert_eq!(fault.hits(), 1, "no second try: {said}");
        assert!(said.starts_with("the archive refuses events/a: s3://") && said.contains(&expected), "{said}");
        fault.heal();
    }
    bucket.proxy.on_any().answer(Answer::new(403));
    let said = refusal(&archive.stat("events/a").await.unwrap_err());
    assert!(said.contains(&format!("allow s3:GetObject on {objects}")), "{said}");
    let said = refusal(&archive.list("events/").await.unwrap_err());
    assert!(said.contains(&format!("allow s3:ListBucket on arn:aws:s3:::{name}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_from_one_that_refuses() {
    let bucket = Bucket::new().await;
    bucket.proxy.on("PutObject").answer(Answer::s3(507, "XMinioStorageFull"));
    let error = bucket.impatient().put_if_absent("a", body("x")).await.unwrap_err();
    assert!(matches!(error, ArchiveError::OutOfSpace { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_bucket_passes_every_probe_again_and_again() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    for _ in 0..2 {
        for probe in Probe::ALL {
            archive.probe(probe).await.unwrap();
        }
    }
    assert_eq!(bucket.uploads().await, 0);
    assert!(identity::look(&archive).await.unwrap().is_none(), "what the probes put keeps no archive from being made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_notice_of_the_condition_is_refused() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    let deaf = |operation| bucket.proxy.on(operation).edit_request(|request| request.headers.remove("if-none-match"));
    let fault = deaf("PutObject");
    let said = refusal(&archive.probe(Probe::PutOnce).await.unwrap_err());
    assert!(said.contains("takes no notice of `If-None-Match: *` on PutObject and would overwrite"), "{said}");
    fault.heal();
    archive.probe(Probe::PutOnce).await.unwrap();

    deaf("CompleteMultipartUpload");
    let said = refusal(&archive.probe(Probe::PutPartsOnce).await.unwrap_err());
    assert!(said.contains("takes no notice of `If-None-Match: *` on CompleteMultipartUpload"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_probe_names_the_permission_that_is_missing() {
    let bucket = Bucket::new().await;
    let archive = bucket.archive();
    for (probe, operation, permission) in [
        (Probe::List, "ListObjectsV2", "s3:ListBucket"),
        (Probe::Read, "GetObject", "s3:GetObject"),
        (Probe::PutOnce, "PutObject", "s3:PutObject"),
        (Probe::PutPartsOnce, "UploadPart", "s3:PutObject"),
        (Probe::PutPartsOnce, "AbortMultipartUpload", "s3:AbortMultipartUpload"),
    ] {
        archive.probe(Probe::PutOnce).await.unwrap();
        let fault = bucket.proxy.on(operation).answer(Answer::s3_access_denied());
        let said = refusal(&archive.probe(probe).await.unwrap_err());
        assert!(said.contains(&format!("allow {permission} on arn:aws:s3:::{}", bucket.name)), "{said}");
        fault.heal();
    }
    let nowhere = S3Options { bucket: servers::unique_name("nowhere"), ..bucket.options() };
    let said = refusal(&bucket.archive_with(nowhere).probe(Probe::List).await.unwrap_err());
    assert!(said.contains("there is no bucket `nowhere-"), "{said}");
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
