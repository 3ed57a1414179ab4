//! An archive in a bucket: the whole way, what is said before anything is leased, and damage.

use std::process::Command;

use auditlake_test_servers::aws::{self, Endpoints};
use auditlake_test_servers::{Answer, FaultProxy, ministack};
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use serde_json::{Value, json};

use crate::support::{Corpus, Done, Plan, Process, Workspace, files_below, finish};

/// A workspace whose archive is a bucket behind a proxy.
struct InBucket {
    workspace: Workspace,
    bucket: String,
    proxy: FaultProxy,
    /// Past the proxy.
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl InBucket {
    /// With a corpus to archive.
    fn new() -> (Self, Corpus) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(ministack());
        let client = aws::s3_client(&server.url);
        let bucket = aws::unique_name("e2e");
        runtime.block_on(aws::create_bucket(&client, &bucket));
        let mut workspace = Workspace::new();
        workspace
            .set("archive.kind", "\"s3\"")
            .set("archive.s3.bucket", &format!("{bucket:?}"))
            .set("archive.s3.prefix", "\"temporal/audit\"")
            .set("archive.s3.force_path_style", "true")
            .set("batch.max_records", "200");
        let corpus = Plan { seed: 40, lines: 1_000, files: 1, pad: 0 }.corpus();
        corpus.write_to(&workspace.input());
        (Self { workspace, bucket, proxy: FaultProxy::start_blocking(&server.url), client, runtime }, corpus)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(arguments);
        Endpoints { s3: Some(self.proxy.url().to_owned()), ..Endpoints::default() }.set_for(&mut command);
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(arguments))
    }

    #[track_caller]
    fn catch_up(&self) -> Value {
        self.run(&["catch-up", "--json"]).expect(0).json()
    }

    /// The report of a proof that ends with this code.
    #[track_caller]
    fn verify(&self, code: i32, arguments: &[&str]) -> Value {
        self.run(&[&["verify", "--json"], arguments].concat()).expect(code).json()
    }

    /// Asserts that both proofs find this and nothing else.
    #[track_caller]
    fn assert_damage(&self, kind: &str, key: &str) {
        for arguments in [&[][..], &["--fast"]] {
            let report = self.verify(1, arguments);
            let found: Vec<_> =
                report["findings"].as_array().unwrap().iter().map(|f| (&f["kind"], &f["key"])).collect();
            assert_eq!(found, [(&json!(kind), &json!(key))], "{arguments:?}: {report:#}");
        }
    }

    fn path(key: &str) -> String {
        format!("temporal/audit/{key}")
    }

    /// Every object below the prefix.
    fn keys(&self) -> Vec<String> {
        let pages = self.client.list_objects_v2().bucket(&self.bucket).into_paginator().send();
        let pages = self.runtime.block_on(pages.collect::<Result<Vec<_>, _>>()).unwrap();
        let keys = pages.iter().flat_map(ListObjectsV2Output::contents).map(|object| object.key().unwrap().to_owned());
        keys.map(|key| key.strip_prefix("temporal/audit/").unwrap_or(&key).to_owned()).collect()
    }

    fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let found = self.client.get_object().bucket(&self.bucket).key(Self::path(key)).send().await.unwrap();
            found.body.collect().await.unwrap().to_vec()
        })
    }

    fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        let body = ByteStream::from(body.into());
        let put = self.client.put_object().bucket(&self.bucket).key(path).body(body);
        self.runtime.block_on(put.checksum_algorithm(ChecksumAlgorithm::Sha256).send()).unwrap();
    }

    fn delete(&self, key: &str) {
        let delete = self.client.delete_object().bucket(&self.bucket).key(Self::path(key)).send();
        self.runtime.block_on(delete).unwrap();
    }

    /// Brings the archive to a disk, to be read as any other.
    fn download(&self) {
        for key in self.keys() {
            let path = self.workspace.archive().join(&key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.get(&key)).unwrap();
        }
    }

    /// The last line that it said.
    #[track_caller]
    fn complaint(&self, code: i32) -> String {
        let done = self.run(&["catch-up"]).expect(code);
        let leases = files_below(&self.workspace.state().join("leases"));
        assert!(leases.is_empty(), "before the first lease is taken: {leases:?}");
        done.stderr.lines().last().unwrap().to_owned()
    }
}

#[test]
fn a_bucket_holds_what_was_read_once_and_proves_it() {
    let (mut world, corpus) = InBucket::new();
    let summary = world.catch_up();
    assert_eq!(summary["complete"], json!(true));
    assert_eq!(world.catch_up()["batches"], json!(0));

    let report = world.verify(0, &[]);
    assert_eq!((&report["tail_proved"], &report["in_flight"]), (&json!(true), &json!(0)));
    assert_eq!(report["rows"], json!(corpus.truth.archived() + corpus.truth.rejected()));
    world.proxy.forget();
    let fast = world.verify(0, &["--fast"]);
    assert_eq!((&fast["objects_read"], &fast["by_checksum"]), (&json!(0), &report["objects"]));
    assert_eq!(fast["by_size_only"], json!(0));
    let read = world.proxy.requests_for("GetObject");
    assert!(read.iter().all(|request| !request.target.contains("/events/")), "only manifests are read");

    let status = world.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&status["archive_id"], &status["shards"][0]["state"]), (&report["archive_id"], &json!("caught up")));

    std::fs::remove_dir_all(world.workspace.state()).unwrap();
    let rebuilt = world.run(&["rebuild-state", "--json"]).expect(0).json();
    assert_eq!(rebuilt["shards"], json!(1));
    assert_eq!(world.catch_up()["batches"], json!(0), "nothing is read twice");

    world.download();
    corpus.truth.assert_holds(&world.workspace.archived());
    world.workspace.set("archive.kind", "\"local\"");
    assert_eq!(world.workspace.run(&["verify", "--json"]).expect(0).json()["rows"], report["rows"]);
}

#[test]
fn the_sql_for_a_bucket_names_it_and_how_to_reach_it() {
    let (mut world, _) = InBucket::new();
    world.catch_up();
    let root = format!("s3://{}/temporal/audit/events/", world.bucket);
    for engine in ["duckdb", "athena", "trino"] {
        let done = world.run(&["ddl", engine]).expect(0);
        assert!(done.stdout.contains(&root) && !done.stderr.contains("another format"), "{done:?}");
    }
    world.workspace.set("archive.s3.region", "\"us-east-1\"");
    let sql = world.run(&["ddl", "duckdb"]).expect(0).stdout;
    assert!(sql.contains("CREATE OR REPLACE SECRET") && sql.contains("REGION 'us-east-1'"), "{sql}");
    assert!(sql.contains("-- To reach the bucket, first run"), "{sql}");
    let host =
        |url: &str| format!("ENDPOINT '{}', USE_SSL false", url.trim_start_matches("http://").trim_end_matches('/'));
    assert!(sql.contains(&host(world.proxy.url())), "the environment's: {sql}");

    world.workspace.set("archive.compression", "\"gzip\"");
    assert!(world.run(&["ddl", "duckdb"]).expect(0).stderr.contains("this SQL opens all but "));
    world.proxy.on("ListObjectsV2").answer(Answer::s3_access_denied());
    let done = world.run(&["ddl", "duckdb"]).expect(0);
    assert!(done.stderr.contains("s3:ListBucket") && done.stdout.contains(&root), "{done:?}");

    // Past the proxy, which stays the environment's.
    let direct = world.runtime.block_on(ministack()).url.clone();
    world.workspace.set("archive.s3.endpoint_url", &format!("{direct:?}"));
    world.proxy.on("ListObjectsV2").answer(Answer::s3_access_denied());
    let done = world.run(&["ddl", "duckdb"]).expect(0);
    assert!(!done.stderr.contains("s3:ListBucket") && done.stdout.contains(&host(&direct)), "{done:?}");
}

#[test]
fn lost_answers_throttling_and_conflicts_leave_every_record_once() {
    let (world, corpus) = InBucket::new();
    world.proxy.on("PutObject").target_has("/events/").skip(1).next(1).lose_answer();
    world.proxy.on("PutObject").target_has("/_manifests/").skip(1).next(1).lose_answer();
    world.proxy.on("PutObject").target_has("/_manifests/").skip(2).next(2).answer(Answer::s3_conflict());
    world.proxy.on_any().every(4).next(12).answer(Answer::s3_slow_down());
    let done = world.run(&["catch-up", "--json"]).expect(0);
    assert!(done.stderr.contains("an earlier attempt had put this object; it is adopted"), "{}", done.stderr);
    world.proxy.heal();
    world.verify(0, &[]);
    world.download();
    corpus.truth.assert_holds(&world.workspace.archived());
}

#[test]
fn what_somebody_else_put_under_a_batchs_key_is_never_overwritten() {
    let (world, _) = InBucket::new();
    let fault = world.proxy.on("PutObject").target_has("/events/").answer(Answer::s3_access_denied());
    let denied = world.run(&["catch-up"]).expect(1).stderr;
    assert!(denied.contains("allow s3:PutObject on arn:aws:s3:::"), "{denied}");
    let mut target = world.proxy.requests_for("PutObject").into_iter().map(|request| request.target);
    let target = target.rfind(|target| target.contains("/events/")).unwrap();
    let path = target.split('?').next().unwrap().trim_start_matches(&format!("/{}/", world.bucket)).replace("%3D", "=");
    fault.heal();

    world.put(&path, "{\"log_id\":\"another's\"}\n");
    let stopped = world.run(&["catch-up"]).expect(1).stderr;
    assert!(stopped.contains("stands in the archive already and is not of this batch"), "{stopped}");
    let key = path.strip_prefix("temporal/audit/").unwrap();
    assert_eq!(world.get(key), b"{\"log_id\":\"another's\"}\n");
    world.delete(key);
    world.catch_up();
    world.verify(0, &[]);
}

#[test]
fn a_wrong_bucket_a_missing_permission_and_a_deaf_store_show_before_the_first_lease() {
    let (mut world, _) = InBucket::new();
    let place = format!("archive.s3: s3://{}/temporal/audit: ", world.bucket);
    for (operation, expected) in [
        ("ListObjectsV2", "allow s3:ListBucket on arn:aws:s3:::"),
        ("GetObject", "allow s3:GetObject on arn:aws:s3:::"),
        ("PutObject", "allow s3:PutObject on arn:aws:s3:::"),
        ("AbortMultipartUpload", "allow s3:AbortMultipartUpload on arn:aws:s3:::"),
    ] {
        let fault = world.proxy.on(operation).answer(Answer::s3_access_denied());
        let said = world.complaint(1);
        assert!(said.starts_with(&format!("auditlake: {place}")) && said.contains(expected), "{said}");
        fault.heal();
    }
    for operation in ["PutObject", "CompleteMultipartUpload"] {
        let fault = world.proxy.on(operation).edit_request(|request| request.headers.remove("if-none-match"));
        let said = world.complaint(1);
        assert!(said.contains(&format!("takes no notice of `If-None-Match: *` on {operation}")), "{said}");
        fault.heal();
    }
    assert_eq!(world.keys(), ["audit-log-access-test"], "no archive was made");

    world.workspace.set("archive.s3.region", "\"eu-west-3\"");
    assert!(world.complaint(1).contains("the bucket's region is `us-east-1`: correct archive.s3.region"));
    world.workspace.set("archive.s3.region", "\"us-east-1\"");
    world.workspace.set("archive.s3.bucket", "\"no-such-bucket-of-ours\"");
    let said = world.complaint(1);
    assert!(
        said.contains("there is no bucket `no-such-bucket-of-ours` there: make it, or correct archive.s3.bucket"),
        "{said}"
    );
}

#[test]
fn settings_that_are_missing_are_named() {
    let (mut world, _) = InBucket::new();
    let mut command = world.command(&["catch-up"]);
    let said = finish(command.env_remove("AWS_REGION")).expect(2).stderr;
    assert!(said.contains("auditlake: archive.s3.region: is required: neither it nor AWS_REGION"), "{said}");
    world.workspace.set("archive.s3.prefix", "\"a/../b\"");
    assert!(world.complaint(2).starts_with("auditlake: archive.s3.prefix: "));
    world.workspace.set("archive.s3.bucket", "\"\"");
    for command in ["catch-up", "run", "verify", "rebuild-state", "status", "ddl"] {
        let arguments = if command == "ddl" { vec!["ddl", "duckdb"] } else { vec![command] };
        let said = world.run(&arguments).expect(2).stderr;
        assert_eq!(said, "auditlake: archive.s3.bucket: is required: the bucket of the archive\n");
    }
}

#[test]
fn a_bucket_that_holds_something_else_is_left_alone() {
    let (world, _) = InBucket::new();
    world.put("temporal/audit/holiday.jpg", "x");
    let said = world.complaint(2);
    assert!(said.contains("not an archive: there are other objects (holiday.jpg, for one)"), "{said}");
    assert_eq!(world.keys(), ["holiday.jpg"], "nothing was put there");
}

#[test]
fn damage_in_a_bucket_is_told_by_its_name_with_and_without_reading() {
    let (world, _) = InBucket::new();
    world.catch_up();
    let event = world.keys().into_iter().find(|key| key.starts_with("events/")).unwrap();
    let sound = world.get(&event);

    let mut altered = sound.clone();
    altered[10] ^= 1;
    world.put(&InBucket::path(&event), altered);
    world.assert_damage("altered_object", &event);
    world.put(&InBucket::path(&event), [&sound[..], b"{}\n"].concat());
    world.assert_damage("altered_object", &event);
    world.delete(&event);
    world.assert_damage("missing_object", &event);
    world.put(&InBucket::path(&event), sound);
    let rogue = event.replace("-00000", "-00009");
    world.put(&InBucket::path(&rogue), "{}\n");
    world.assert_damage("unlisted_object", &rogue);
    world.delete(&rogue);

    let newest = world.keys().into_iter().rfind(|key| key.starts_with("_manifests/")).unwrap();
    let manifest = world.get(&newest);
    world.delete(&newest);
    world.assert_damage("truncated_tail", &newest);
    world.put(&InBucket::path(&newest), manifest);
    assert_eq!(world.verify(0, &[])["findings"], json!([]));
}

#[test]
fn an_object_put_without_a_checksum_is_counted_as_compared_by_size_only() {
    let (world, _) = InBucket::new();
    world.catch_up();
    let key = world.keys().into_iter().find(|key| key.starts_with("events/")).unwrap();
    let mut altered = world.get(&key);
    altered[10] ^= 1;
    let body = ByteStream::from(altered);
    let put = world.client.put_object().bucket(&world.bucket).key(InBucket::path(&key)).body(body);
    world.runtime.block_on(put.checksum_algorithm(ChecksumAlgorithm::Crc32).send()).unwrap();
    // What another put there under a checksum of another kind is found by reading alone; that is said.
    let report = world.verify(0, &["--fast"]);
    assert_eq!(report["by_size_only"], json!(1));
    let text = world.run(&["verify", "--fast"]).expect(0).stdout;
    assert!(text.contains("objects by the SHA-256 that the store keeps, 1 by size only"), "{text}");
    assert_eq!(world.verify(1, &[])["findings"][0]["kind"], json!("altered_object"));
}

#[test]
fn a_daemon_waits_for_a_bucket_that_is_away_and_loses_nothing() {
    let (mut world, corpus) = InBucket::new();
    world.workspace.set("batch.window", "\"1s\"");
    let away = world.proxy.on("PutObject").target_has("/events/").answer(Answer::s3_slow_down());
    let daemon = Process::start(&mut world.command(&["run"]));
    crate::support::wait_until("puts were refused again and again", || away.hits() > 8);
    away.heal();
    daemon.wait_until_caught_up("part-0.ndjson");
    daemon.signal("TERM");
    daemon.wait().expect(0);
    world.verify(0, &[]);
    world.download();
    corpus.truth.assert_holds(&world.workspace.archived());
}
