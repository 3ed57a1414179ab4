//! What is wrong is named: the exact words and the exit code (2 for configuration and arguments, 1 for the moment).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Done, Plan, Record, Truth, Workspace, files_below, finish, wait_until};

/// The one line on stderr; nothing on stdout.
#[track_caller]
fn complaint(done: Done, code: i32) -> String {
    let done = done.expect(code);
    assert_eq!((done.stdout.as_str(), done.stderr.lines().count()), ("", 1), "{}", done.stderr);
    done.stderr.trim_end().to_owned()
}

fn with_record() -> Workspace {
    let workspace = Workspace::new();
    workspace.feed("a.ndjson", Record::new(1).line(0) + "\n");
    workspace
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    let mut workspace = with_record();
    workspace.set("batch.windw", "\"30m\"");
    for command in
        [&["catch-up"][..], &["run"], &["status"], &["verify"], &["rebuild-state"], &["ddl", "duckdb"], &["config"]]
    {
        let said = complaint(workspace.run(command), 2);
        assert_eq!(said, "auditlake: unknown key `batch.windw`; did you mean `batch.window`?", "{command:?}");
    }
}

#[test]
fn a_variable_that_names_no_key_is_named_as_the_key_it_would_be() {
    let workspace = with_record();
    let said = complaint(finish(workspace.command(&["config"]).env("AUDITLAKE__ARCHIVE__FROMAT", "ndjson")), 2);
    assert_eq!(said, "auditlake: unknown key `archive.fromat`; did you mean `archive.format`?");
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_what_would_be_right() {
    for (key, value, said) in [
        (
            "batch.window",
            "\"half an hour\"",
            "batch.window: `half an hour` is no duration; write `30m`, `1h 30m` or `35d`",
        ),
        ("batch.window", "30", "batch.window: `30` is no duration; write `30m`, `1h 30m` or `35d`"),
        ("batch.window", "true", "batch.window: not a duration; write `30m`, `1h 30m` or `35d`"),
        ("batch.max_bytes", "\"plenty\"", "batch.max_bytes: `plenty` is no size; write `128MiB` or a number of bytes"),
        ("batch.max_records", "0", "batch.max_records: must be more than 0"),
        ("archive.compression_level", "23", "archive.compression_level: 23 is not between 1 and 22"),
    ] {
        let mut workspace = with_record();
        workspace.set("archive.compression", "\"zstd\"").set(key, value);
        assert_eq!(complaint(workspace.run(&["catch-up"]), 2), format!("auditlake: {said}"));
        assert!(!workspace.state().exists() && !workspace.archive().exists());
    }
}

#[test]
fn toml_that_is_none_is_named_by_its_line() {
    let workspace = with_record();
    fs::write(workspace.config(), "[batch]\nwindow = \"30m\"\n[archive\n").unwrap();
    let said = complaint(workspace.run(&["catch-up"]), 2);
    let expected = format!("auditlake: {}: line 3: unclosed table, expected `]`", workspace.config().display());
    assert_eq!(said, expected);
}

#[test]
fn a_configuration_that_is_missing_is_named() {
    let said = complaint(finish(&mut Workspace::bare_command(&["run", "--config", "nowhere.toml"])), 2);
    assert_eq!(said, "auditlake: nowhere.toml: No such file or directory (os error 2)");
}

#[test]
fn without_a_source_it_says_which_key_to_set() {
    let workspace = Workspace::new();
    for command in ["catch-up", "run", "status", "check"] {
        let mut command = Workspace::bare_command(&[command]);
        let said = complaint(finish(command.current_dir(workspace.path(""))), 2);
        assert_eq!(
            said,
            "auditlake: source.file.path: is required: the file or directory to archive; is --config missing?"
        );
        assert!(!workspace.state().exists() && !workspace.archive().exists());
    }
}

#[test]
fn without_an_archive_where_none_was_configured_it_asks_for_the_configuration() {
    let workspace = Workspace::new();
    let complain =
        |command: &str| complaint(finish(Workspace::bare_command(&[command]).current_dir(workspace.path(""))), 2);
    for command in ["verify", "rebuild-state"] {
        let said =
            "auditlake: archive.local.path: archive: No such file or directory (os error 2); is --config missing?";
        assert_eq!(complain(command), said);
    }
    fs::create_dir(workspace.archive()).unwrap();
    for command in ["verify", "rebuild-state"] {
        let said = complain(command);
        assert!(said.ends_with("there is no archive here: _auditlake.json is missing; is --config missing?"), "{said}");
    }
}

#[test]
fn a_state_that_is_no_directory_or_may_not_be_read_is_named_with_its_key() {
    let mut workspace = with_record();
    elsewhere(&mut workspace);
    fs::write(workspace.path("file"), "x").unwrap();
    let file = workspace.path("file");
    workspace.set_path("state.embedded.path", &file);
    // Told apart from one that is missing: by that `verify` would not prove the chain's end, and `status` say that nobody reads.
    let said = workspace.run(&["status"]).expect(1).stderr;
    let begins = format!("auditlake: state.embedded.path: the state directory is unavailable: {}", file.display());
    assert!(said.starts_with(&begins), "{said}");

    elsewhere(&mut workspace);
    as_nobody(&workspace, &["catch-up"]).expect(0);
    forbid(&workspace.path("out/state"));
    for command in ["catch-up", "status", "verify"] {
        let done = as_nobody(&workspace, &[command]).expect(1);
        let said = done.stderr.trim_end();
        assert_eq!(done.stdout.is_empty(), command != "status", "it shows what it could read");
        assert!(said.starts_with("auditlake: state.embedded.path: the state directory is unavailable: "), "{said}");
        assert!(said.ends_with("; let the user that runs auditlake read and write there"), "{said}");
    }
}

#[test]
fn a_source_that_is_missing_is_named_with_its_key_before_anything_is_made() {
    let mut workspace = with_record();
    let path = workspace.path("nowhere");
    workspace.set_path("source.file.path", &path);
    for command in ["catch-up", "run", "status"] {
        let said = complaint(workspace.run(&[command]), 2);
        let expected =
            format!("auditlake: source.file.path: {}: No such file or directory (os error 2)", path.display());
        assert_eq!(said, expected, "{command}");
    }
    assert!(!workspace.state().exists() && !workspace.archive().exists());
}

/// Runs the binary as one who is not root: root reads everything. The binary is copied to where that one may read it.
fn as_nobody(workspace: &Workspace, arguments: &[&str]) -> Done {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let copy = workspace.path("auditlake");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_auditlake"), &copy).unwrap();
    }
    let mut command = Command::new(copy);
    command.args(arguments).arg("--config").arg(workspace.config()).env_clear();
    if is_root {
        for directory in ["out", "out/state", "out/archive"] {
            let _ = fs::create_dir(workspace.path(directory));
            std::os::unix::fs::chown(workspace.path(directory), Some(65_534), Some(65_534)).unwrap();
        }
        command.uid(65_534).gid(65_534);
    }
    finish(&mut command)
}

fn forbid(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
}

fn elsewhere(workspace: &mut Workspace) {
    let (state, archive) = (workspace.path("out/state"), workspace.path("out/archive"));
    workspace.set_path("state.embedded.path", &state).set_path("archive.local.path", &archive);
}

#[test]
fn a_directory_that_may_not_be_read_is_named() {
    let mut workspace = with_record();
    elsewhere(&mut workspace);
    forbid(&workspace.input());
    let said = complaint(as_nobody(&workspace, &["catch-up"]), 2);
    let path = workspace.input();
    assert_eq!(said, format!("auditlake: source.file.path: {}: Permission denied (os error 13)", path.display()));
}

#[test]
fn a_directory_below_the_source_that_may_not_be_read_is_an_error_and_the_rest_goes_on() {
    let mut workspace = with_record();
    elsewhere(&mut workspace);
    let path = workspace.input().join("secret");
    fs::create_dir(&path).unwrap();
    forbid(&path);
    let done = as_nobody(&workspace, &["catch-up", "--json"]).expect(1);
    assert_eq!(done.json()["archived"], 1);
    assert!(
        done.stderr.ends_with("1 shard stopped with an error: secret: Permission denied (os error 13)\n"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_file_that_may_not_be_read_stops_its_shard_alone() {
    let mut workspace = with_record();
    elsewhere(&mut workspace);
    forbid(&workspace.feed("b.ndjson", Record::new(2).line(0)));
    workspace.feed("c.ndjson", Record::new(3).line(0));
    let done = as_nobody(&workspace, &["catch-up", "--json"]).expect(1);
    let summary = done.json();
    assert_eq!(summary["archived"], 2);
    assert_eq!(
        summary["failures"],
        json!([{ "shard": "b.ndjson", "error": "b.ndjson: Permission denied (os error 13)" }])
    );
}

#[test]
fn an_archive_that_is_not_the_states_is_refused_by_every_command_that_needs_both() {
    let workspace = with_record();
    workspace.catch_up();
    let id = |workspace: &Workspace| -> String {
        let identity = crate::support::read_json(&workspace.archive().join("_auditlake.json"));
        identity["archive_id"].as_str().unwrap().to_owned()
    };
    let first = id(&workspace);
    fs::rename(workspace.archive(), workspace.path("away")).unwrap();
    fs::rename(workspace.state(), workspace.path("state-away")).unwrap();
    workspace.catch_up();
    fs::remove_dir_all(workspace.state()).unwrap();
    fs::rename(workspace.path("state-away"), workspace.state()).unwrap();
    let expected = format!(
        "auditlake: the state directory `{}` belongs to the archive {first}, not to {}; one state directory goes with \
         one archive: set state.embedded.path and archive.local.path to a pair",
        workspace.state().display(),
        id(&workspace)
    );
    for command in ["catch-up", "run", "rebuild-state", "verify", "status"] {
        assert_eq!(complaint(workspace.run(&[command]), 2), expected, "{command}");
    }
}

#[test]
fn a_directory_that_holds_something_else_is_no_archive() {
    let workspace = with_record();
    fs::create_dir(workspace.archive()).unwrap();
    fs::write(workspace.archive().join("holiday.jpg"), "x").unwrap();
    let expected = format!(
        "auditlake: archive.local.path: {}: not an archive: there are other objects (holiday.jpg, for one) but no \
         _auditlake.json",
        workspace.archive().display()
    );
    for command in ["catch-up", "run"] {
        assert_eq!(complaint(workspace.run(&[command]), 2), expected);
    }
    assert_eq!(files_below(&workspace.archive()).len(), 1, "nothing was put there");
}

#[test]
fn an_archive_that_is_missing_is_named_to_those_who_only_read() {
    let workspace = with_record();
    let path = workspace.archive();
    for command in ["verify", "rebuild-state"] {
        let said = complaint(workspace.run(&[command]), 2);
        let expected =
            format!("auditlake: archive.local.path: {}: No such file or directory (os error 2)", path.display());
        assert_eq!(said, expected);
    }
    fs::create_dir(&path).unwrap();
    for command in ["verify", "rebuild-state"] {
        let said = complaint(workspace.run(&[command]), 2);
        let expected = format!(
            "auditlake: archive.local.path: {}: there is no archive here: _auditlake.json is missing",
            path.display()
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn an_archive_that_is_a_file_is_named_with_its_key() {
    let workspace = with_record();
    fs::write(workspace.archive(), "x").unwrap();
    for command in ["catch-up", "verify"] {
        let said = complaint(workspace.run(&[command]), 2);
        assert_eq!(said, format!("auditlake: archive.local.path: {}: is not a folder", workspace.archive().display()));
    }
}

#[test]
fn a_state_directory_in_use_is_refused_with_the_process_that_uses_it() {
    let workspace = with_record();
    let process = workspace.start(&["run"]);
    wait_until("it has started", || process.stderr().contains("\"started\""));
    let expected = format!(
        "auditlake: the state directory `{}` is in use by process {}",
        workspace.state().display(),
        process.id()
    );
    for command in ["catch-up", "run", "rebuild-state"] {
        assert_eq!(complaint(workspace.run(&[command]), 1), expected);
    }
    // Those who only look are not kept out.
    workspace.run(&["status"]).expect(0);
    workspace.run(&["verify"]).expect(0);
    process.signal("TERM");
    process.wait().expect(0);
    workspace.catch_up();
}

#[test]
fn unknown_commands_and_arguments_are_named() {
    for (arguments, words) in [
        (&["frobnicate"][..], "error: unrecognized subcommand 'frobnicate'"),
        (&["catch-up", "--frob"], "error: unexpected argument '--frob' found"),
        (&["ddl", "oracle"], "error: invalid value 'oracle' for '<ENGINE>'"),
        (&["verify", "--since", "yesterday"], "error: invalid value 'yesterday' for '--since <TIME>'"),
    ] {
        let done = finish(&mut Workspace::bare_command(arguments)).expect(2);
        assert!(done.stderr.starts_with(words) && done.stdout.is_empty(), "{done:?}");
    }
}

#[test]
fn athena_needs_a_place_in_an_object_store() {
    let said = complaint(with_record().run(&["ddl", "athena"]), 2);
    let expected = "auditlake: --location: this engine reads object stores, not local disks; give `s3://bucket/prefix`";
    assert_eq!(said, expected);
}

/// Two files archived, one of them changed, a third added: the changed one is named, the third is archived.
fn after_a_change(change: impl FnOnce(&Workspace)) -> String {
    let workspace = Workspace::new();
    let mut truth = Truth::default();
    let mut feed = |name: &str, numbers: std::ops::Range<u64>| {
        let lines: String = numbers.map(Record::new).inspect(|r| truth.add(*r)).map(|r| r.line(0) + "\n").collect();
        workspace.feed(name, lines);
    };
    feed("a.ndjson", 0..5);
    feed("b.ndjson", 5..9);
    workspace.catch_up();
    change(&workspace);
    feed("c.ndjson", 9..12);
    let done = workspace.run(&["catch-up", "--json"]).expect(1);
    let summary = done.json();
    assert_eq!((&summary["archived"], &summary["complete"]), (&json!(3), &json!(false)));
    let failures = summary["failures"].as_array().unwrap();
    assert_eq!((failures.len(), &failures[0]["shard"]), (1, &json!("a.ndjson")));
    let text = workspace.run(&["catch-up"]).expect(1).stdout;
    assert!(text.starts_with("incomplete: some shards stopped with an error\n"), "{text}");
    let error = failures[0]["error"].as_str().unwrap().to_owned();
    assert!(text.ends_with(&format!("\nfailed: {error}\n")), "{text}");
    truth.assert_holds(&workspace.archived());
    workspace.verify();
    error
}

#[test]
fn a_file_that_shrank_is_named_and_its_neighbours_are_archived() {
    let error = after_a_change(|workspace| drop(workspace.feed("a.ndjson", Record::new(0).line(0))));
    let length = |records: u64| (0..records).map(|n| Record::new(n).line(0).len() + 1).sum::<usize>() - 1;
    let expected = format!(
        "a.ndjson: the file shrank or was replaced: it is archived up to byte {}, but holds {} now; restore it, or give \
         the new content a name of its own",
        length(5),
        length(1)
    );
    assert_eq!(error, expected);
}

#[test]
fn a_file_that_was_replaced_is_named_and_its_neighbours_are_archived() {
    let error = after_a_change(|workspace| {
        let lines: String = (100..110).map(|n| Record::new(n).line(300) + "\n").collect();
        workspace.feed("a.ndjson", lines);
    });
    assert!(error.starts_with("a.ndjson: the file was replaced or changed: the record at byte "), "{error}");
    assert!(error.ends_with("; restore it, or give the new content a name of its own"), "{error}");
}

#[test]
fn a_gzip_file_that_was_cut_off_is_named_and_its_neighbours_are_archived() {
    let workspace = Workspace::new();
    let corpus = Plan { seed: 50, lines: 600, files: 3, pad: 0 }.corpus();
    workspace.feed("a.ndjson", &corpus.files[0]);
    let whole = crate::main_job::gzip(&corpus.files[1]);
    workspace.feed("b.ndjson.gz", &whole[..whole.len() * 2 / 3]);
    workspace.feed("c.ndjson", &corpus.files[2]);

    let summary = workspace.run(&["catch-up", "--json"]).expect(1).json();

    let failures = summary["failures"].as_array().unwrap();
    let error = failures[0]["error"].as_str().unwrap();
    assert_eq!(failures.len(), 1, "{summary:#}");
    assert!(error.starts_with("b.ndjson.gz: the compressed file is cut off or damaged behind byte "), "{error}");
    assert!(error.ends_with("nothing is skipped: restore the file and run again"), "{error}");
    let before_the_cut = workspace.archived().events.len();
    workspace.verify();
    assert!(before_the_cut > 450, "what comes before is archived, as it says: {before_the_cut}");

    workspace.feed("b.ndjson.gz", whole);
    workspace.catch_up();
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn a_value_that_is_too_large_stops_its_file_with_the_key_to_raise() {
    let mut workspace = Workspace::new();
    workspace.set("limits.max_payload_bytes", "\"64KiB\"");
    let mut truth = Truth::default();
    let (small, large, other) = (Record::new(1), Record::new(2), Record::new(3));
    let first = small.line(0) + "\n";
    workspace.feed("a.ndjson", format!("{first}{}\n", large.line(100_000)));
    workspace.feed("b.ndjson", other.line(0));

    let summary = workspace.run(&["catch-up", "--json"]).expect(1).json();
    let expected = format!(
        "a.ndjson: the value at byte {} is larger than limits.max_payload_bytes (64.0 KiB); raise it to read this file",
        first.len()
    );
    assert_eq!(summary["failures"][0]["error"], expected.as_str());
    assert_eq!((&summary["archived"], &summary["rejected"]), (&json!(2), &json!(0)), "what comes before is archived");
    workspace.verify();

    workspace.set("limits.max_payload_bytes", "\"1MiB\"");
    workspace.catch_up();
    for record in [small, large, other] {
        truth.add(record);
    }
    truth.assert_holds(&workspace.archived());
}

#[test]
fn an_archive_or_a_state_within_the_source_is_refused() {
    for (key, place) in
        [("archive.local.path", "archive"), ("state.embedded.path", "state"), ("archive.local.path", "../input/x")]
    {
        let mut workspace = with_record();
        let path = workspace.input().join(place);
        workspace.set_path(key, &path);
        let said = complaint(workspace.run(&["catch-up"]), 2);
        let expected = format!("auditlake: {key}: `{}` lies within source.file.path, which is read", path.display());
        assert_eq!(said, expected);
    }
}

#[test]
fn an_archive_within_the_source_by_way_of_a_link_is_refused() {
    let mut workspace = with_record();
    let link = workspace.path("link");
    std::os::unix::fs::symlink(workspace.input(), &link).unwrap();
    workspace.set_path("archive.local.path", &link.join("archive"));
    let said = complaint(workspace.run(&["catch-up"]), 2);
    assert!(said.ends_with("lies within source.file.path, which is read"), "{said}");
}
