//! `check`: what a worker will need is tried before it is needed, and what is missing is named.

use std::fs;

use auditlake_test_servers::{Answer, FaultProxy};
use serde_json::{Value, json};

use crate::support::{Cloud, Feed, PREFIX, Plan, Workspace, assert_all_is_archived_once, wait_until};

fn steps(report: &Value) -> Vec<(&str, &Value)> {
    report["steps"].as_array().unwrap().iter().map(|step| (step["what"].as_str().unwrap(), &step["ok"])).collect()
}

#[test]
fn files_a_directory_and_a_disk_are_tried_and_left_as_they_were() {
    let workspace = Workspace::new();
    let corpus = Plan { seed: 81, lines: 100, files: 1, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());
    for _ in 0..2 {
        let done = workspace.run(&["check"]).expect(0);
        assert!(done.stdout.contains("  ✓ read a shard\n") && done.stdout.ends_with("all of it works\n"), "{done:#?}");
    }
    assert!(workspace.archive().join("audit-log-access-test").exists());
    assert!(!workspace.archive().join("_auditlake.json").exists(), "an archive is made by its first worker");
    workspace.catch_up();
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
    workspace.run(&["check"]).expect(0);
    workspace.verify();
    assert_eq!(workspace.catch_up()["records"], 0);
}

#[test]
fn what_can_not_be_found_is_named_and_the_rest_is_tried() {
    let mut workspace = Workspace::new();
    let nowhere = workspace.path("nowhere");
    workspace.set_path("source.file.path", &nowhere);
    fs::write(workspace.archive(), "a file").unwrap();
    let report = workspace.run(&["check", "--json"]).expect(1).json();
    assert_eq!(report["ok"], false);
    let [find, .., put] = &report["steps"].as_array().unwrap()[..] else { panic!("{report}") };
    assert!(find["error"].as_str().unwrap().contains("nowhere: No such file"), "{report}");
    assert!(put["error"].as_str().unwrap().contains("is not a folder"), "{report}");
    let tried: Vec<_> = steps(&report).into_iter().filter(|(_, ok)| **ok == Value::Bool(true)).collect();
    assert_eq!(tried.len(), 3, "the state's: {report}");
}

#[test]
fn a_state_directory_that_a_worker_has_is_nothing_that_is_missing() {
    let workspace = Workspace::new();
    Plan { seed: 83, lines: 100, files: 1, pad: 0 }.corpus().write_to(&workspace.input());
    workspace.catch_up();
    let process = workspace.start(&["run"]);
    wait_until("it has started", || process.stderr().contains("\"started\""));
    let said = workspace.run(&["check"]).expect(0).stdout;
    let remark = format!(
        "  ✓ open it\n    remark: the state directory `{}` is in use by process {}, and was looked at only; until that ends, \
         no other worker can begin with it\n  ✓ read the leases\n  - make a lease row once, change it, remove it  not tried\n",
        workspace.state().display(),
        process.id()
    );
    assert!(said.contains(&remark) && said.contains("  ✓ be the archive of this state\n"), "{said}");
    assert!(said.ends_with("all that was tried works, with 1 remark\n"), "{said}");
    let report = workspace.run(&["check", "--json"]).expect(0).json();
    assert_eq!(report["ok"], true, "{report:#}");

    // What is missing is missing all the same.
    fs::rename(workspace.archive().join("_auditlake.json"), workspace.path("away")).unwrap();
    let said = workspace.run(&["check"]).expect(1).stdout;
    assert!(said.contains("is not there; is its disk mounted?") && said.ends_with("1 thing is missing\n"), "{said}");
    process.signal("TERM");
    process.wait();
}

/// The step that needs the action, its error, and whether all others stand as they should.
#[track_caller]
fn assert_named(report: &Value, operation: &str, action: &str) {
    let steps = report["steps"].as_array().unwrap();
    let failed: Vec<&Value> = steps.iter().filter(|step| step["ok"] == false).collect();
    let needs = |step: &&&Value| step["actions"].as_array().unwrap().iter().any(|needed| needed == action);
    let step = failed.iter().find(needs).unwrap_or_else(|| panic!("{operation}: {report:#}"));
    assert!(step["error"].as_str().unwrap().contains(action), "{operation}: {report:#}");
}

#[test]
fn every_permission_that_is_missing_is_named_as_iam_names_it() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(82));
    cloud.set("state.dynamodb.create_tables", "true");
    cloud.put(&mut feed, 10);
    let check = |cloud: &Cloud, code| cloud.run(&["check", "--json"]).expect(code).json();
    let report = check(&cloud, 0);
    assert_eq!(steps(&report).len(), 13, "{report:#}");
    assert!(cloud.leases().is_empty(), "the row that was tried is gone");
    let needs = |report: &Value, action: &str| report.to_string().contains(&format!("\"dynamodb:{action}\""));
    for (action, key, value) in [
        ("UpdateContinuousBackups", "point_in_time_recovery", "true"),
        ("TagResource", "tags", "{ owner = \"audit\" }"),
    ] {
        assert!(!needs(&report, action), "{action} is not configured: {report:#}");
        cloud.set(&format!("state.dynamodb.{key}"), value);
        assert!(needs(&check(&cloud, 0), action), "{action}");
    }

    let denied = |faults: &FaultProxy, operation: &str, answer: Answer, action: &str| {
        let fault = faults.on(operation).answer(answer);
        assert_named(&check(&cloud, 1), operation, action);
        assert!(fault.hits() > 0, "{operation}");
        fault.heal();
    };
    for operation in ["DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"] {
        let answer = Answer::kinesis("AccessDeniedException");
        denied(&cloud.kinesis_faults, operation, answer, &format!("kinesis:{operation}"));
    }
    for (operation, action) in [
        ("DescribeTable", "DescribeTable"),
        ("Scan", "Scan"),
        ("PutItem", "PutItem"),
        ("GetItem", "GetItem"),
        ("DeleteItem", "DeleteItem"),
        ("BatchExecuteStatement", "PartiQLInsert"),
    ] {
        let answer = Answer::dynamodb("AccessDeniedException");
        denied(&cloud.dynamodb_faults, operation, answer, &format!("dynamodb:{action}"));
    }
    for (operation, action) in [
        ("ListObjectsV2", "ListBucket"),
        ("GetObject", "GetObject"),
        ("PutObject", "PutObject"),
        ("AbortMultipartUpload", "AbortMultipartUpload"),
    ] {
        denied(&cloud.s3_faults, operation, Answer::s3_access_denied(), &format!("s3:{action}"));
    }

    cloud.catch_up();
    check(&cloud, 0);
    assert_all_is_archived_once(&cloud, &feed);
}

fn remarks(report: &Value) -> Vec<(&str, &str)> {
    let steps = report["steps"].as_array().unwrap().iter();
    steps.filter_map(|step| Some((step["what"].as_str().unwrap(), step["remark"].as_str()?))).collect()
}

#[test]
fn tables_that_nobody_works_with_are_remarked_upon_where_workers_work_with_others() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(84));
    cloud.put(&mut feed, 10);
    cloud.catch_up();
    let report = cloud.run(&["check", "--json"]).expect(0).json();
    assert!(remarks(&report).is_empty(), "{report:#}");

    let mistyped = format!("{}-typo", cloud.tables);
    cloud.set("state.dynamodb.table_prefix", &format!("{mistyped:?}")).set("state.dynamodb.create_tables", "true");
    let report = cloud.run(&["check", "--json"]).expect(0).json();
    let [("open it", made), ("be the archive of this state", unknown)] = remarks(&report)[..] else {
        panic!("{report:#}")
    };
    assert!(made.contains(&format!("made just now: {mistyped}-leases, {mistyped}-claims;")), "{made}");
    for said in [&format!("nothing of it in the tables {mistyped}-leases"), "correct state.dynamodb.table_prefix"] {
        assert!(unknown.contains(said), "{unknown}");
    }
    let again = cloud.run(&["check"]).expect(0).stdout;
    assert!(again.contains("    remark: the archive ") && !again.contains("made just now"), "{again}");
    assert!(again.ends_with("all of it works, with 1 remark\n"), "{again}");
}

#[test]
fn of_a_bucket_that_is_not_there_that_is_said_once() {
    let mut cloud = Cloud::new(1);
    cloud.set("archive.s3.bucket", "\"no-such-bucket-of-ours\"").set("state.dynamodb.create_tables", "true");
    let said = cloud.run(&["check"]).expect(1).stdout;
    let archive = said.split("\narchive: ").nth(1).unwrap();
    assert_eq!(archive.matches("there is no bucket `no-such-bucket-of-ours`").count(), 1, "{said}");
    assert_eq!((archive.matches("  not tried\n").count(), archive.matches("✓").count()), (5, 0), "{said}");
    assert!(said.ends_with("1 thing is missing\n"), "{said}");
}

#[test]
fn a_directory_that_nothing_is_known_of_is_remarked_upon() {
    let mut workspace = Workspace::new();
    Plan { seed: 85, lines: 100, files: 1, pad: 0 }.corpus().write_to(&workspace.input());
    workspace.catch_up();
    let elsewhere = workspace.path("elsewhere");
    workspace.set_path("state.embedded.path", &elsewhere);
    let report = workspace.run(&["check", "--json"]).expect(0).json();
    let [(_, remark)] = remarks(&report)[..] else { panic!("{report:#}") };
    assert!(remark.contains("correct state.embedded.path"), "{remark}");
}

#[test]
fn what_would_be_refused_later_is_refused_here() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(83));
    cloud.put(&mut feed, 10);
    cloud.catch_up();
    cloud.run(&["check"]).expect(0);
    cloud.set("archive.s3.prefix", "\"elsewhere\"");
    let done = cloud.run(&["check"]).expect(1);
    assert!(done.stdout.contains("is not there; is it another bucket or prefix?"), "{done:#?}");
    cloud.set("archive.s3.prefix", &format!("{PREFIX:?}"));
    cloud.run(&["check"]).expect(0);

    let shard = cloud.open_shards()[0].clone();
    cloud.edit_lease(&shard, "auditlake_checkpoint", "nonsense");
    let done = cloud.run(&["check"]).expect(1);
    assert!(done.stdout.contains(&format!("the lease row of {shard} is damaged")), "{done:#?}");
    let status = cloud.run(&["status", "--json"]).expect(1);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["shards"].as_array().unwrap().len(), 2, "the others are shown: {status:#}");
    assert_eq!(status["damaged"].as_array().unwrap().len(), 1, "{status:#}");
    let finds = |cloud: &Cloud| {
        let report: Value = serde_json::from_str(&cloud.run(&["verify", "--json"]).expect(1).stdout).unwrap();
        let [finding] = &report["findings"].as_array().unwrap()[..] else { panic!("not one finding: {report:#}") };
        assert_eq!((&finding["kind"], &finding["shard"]), (&json!("damaged_lease_row"), &json!(shard)));
        assert_eq!((&report["tail_proved"], &report["shards"]), (&json!(false), &json!(2)));
    };
    finds(&cloud);

    cloud.edit_lease(&shard, "auditlake_archive", "7d95f4d5-7258-460d-a505-633144de2f38");
    finds(&cloud);
    let status = cloud.run(&["status"]).expect(1).stdout;
    assert!(status.contains(&format!("damaged: the lease row of {shard} is damaged: it belongs to")), "{status}");
    assert!(status.contains(&cloud.open_shards()[1]), "the others are shown: {status}");
}
