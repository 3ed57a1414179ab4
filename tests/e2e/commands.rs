//! The commands around the main job: what they print.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Record, Workspace, finish};

const COMMANDS: [&str; 9] =
    ["run", "catch-up", "check", "status", "verify", "rebuild-state", "import-checkpoints", "ddl", "config"];

#[test]
fn every_command_has_a_help_that_names_it() {
    let help = finish(&mut Workspace::bare_command(&["--help"])).expect(0).stdout;
    for command in COMMANDS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
        let own = finish(&mut Workspace::bare_command(&[command, "--help"])).expect(0);
        assert!(own.stdout.contains(&format!("Usage: auditlake {command}")) && own.stderr.is_empty(), "{own:?}");
        assert!(own.stdout.contains("--config <FILE>"), "{}", own.stdout);
    }
    for code in ["Exit codes:\n  0  done\n", "\n  1  ", "\n  2  the configuration", "\n  3  `catch-up` is done"] {
        assert!(help.contains(code), "{code}: {help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = finish(&mut Workspace::bare_command(&["--version"])).expect(0).stdout;
    assert_eq!(version, concat!("auditlake ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_effective_configuration_is_a_configuration_and_shows_what_the_environment_set() {
    let workspace = Workspace::new();
    let mut command = workspace.command(&["config"]);
    command.env("AUDITLAKE__BATCH__WINDOW", "5m").env("AUDITLAKE__ARCHIVE__KEEP_RAW", "false");
    let printed = finish(&mut command).expect(0).stdout;
    assert!(printed.contains("window = \"5m\"") && printed.contains("keep_raw = false"), "{printed}");
    std::fs::write(workspace.config(), &printed).unwrap();
    assert_eq!(workspace.run(&["config"]).expect(0).stdout, printed, "it reads back as itself");
    let json = workspace.run(&["config", "--json"]).expect(0).json();
    assert_eq!(json["batch"]["window"], "5m");
}

#[test]
fn the_schema_and_the_defaults_need_no_configuration() {
    let schema = finish(&mut Workspace::bare_command(&["config", "schema"])).expect(0).json();
    assert_eq!(schema["properties"]["batch"]["properties"]["window"]["type"], "string");
    assert!(schema["properties"]["source"]["description"].is_string());
    let defaults = finish(&mut Workspace::bare_command(&["config", "defaults"])).expect(0).stdout;
    assert!(defaults.contains("[archive]") && defaults.contains("window = \"30m\""), "{defaults}");
}

#[test]
fn athena_and_trino_get_tables_and_the_latest_view() {
    let workspace = Workspace::new();
    for engine in ["athena", "trino"] {
        let done = workspace.run(&["ddl", engine, "--location", "s3://bucket/prefix", "--database", "audit"]).expect(0);
        for word in ["audit_events", "audit_events_latest", "audit_rejected", "s3://bucket/prefix/events", "audit."] {
            assert!(done.stdout.contains(word), "{engine}: {word}: {}", done.stdout);
        }
    }
}

#[test]
fn ddl_for_a_place_elsewhere_names_that_place() {
    let workspace = Workspace::new();
    let sql = workspace.run(&["ddl", "duckdb", "--location", "s3://bucket/prefix/"]).expect(0).stdout;
    assert!(sql.contains("'s3://bucket/prefix/events/dt=*/*.ndjson'"), "{sql}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = Workspace::bare_command(&["config", "schema"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn data_goes_to_stdout_and_nothing_else_does() {
    let workspace = Workspace::new();
    workspace.feed("a.ndjson", Record::new(1).line(0) + "\nno record\n");
    for command in [&["catch-up", "--json"][..], &["status", "--json"], &["verify", "--json"]] {
        let mut command = workspace.command(command);
        let done = finish(command.env("RUST_LOG", "debug")).expect(0);
        done.json();
        assert!(BufReader::new(done.stderr.as_bytes()).lines().all(|line| line.unwrap().starts_with('{')), "{done:?}");
    }
}

#[test]
fn verify_covers_the_windows_that_it_is_asked_for() {
    let workspace = Workspace::new();
    workspace.feed("a.ndjson", Record::new(1).line(0));
    workspace.catch_up();
    let read = |arguments: &[&str]| {
        let report = workspace.run(&[&["verify", "--json"], arguments].concat()).expect(0).json();
        report["objects_read"].as_u64().unwrap()
    };
    assert_eq!(read(&[]), 1);
    assert_eq!(read(&["--fast"]), 0);
    assert_eq!(read(&["--until", "2020-01-01"]), 0);
    assert_eq!(read(&["--since", "2020-01-01"]), 1);
    assert_eq!(read(&["--since", "2020-01-01T00:00:00Z", "--until", "9000-01-01"]), 1);
}
