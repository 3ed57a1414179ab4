//! A disk that runs full: a clear error, nothing lost, and on it goes once there is room.

use crate::support::{Corpus, Plan, SmallDisk, Workspace, wait_until, with_mounts};

/// About 2 MB of objects.
fn corpus() -> Corpus {
    Plan { seed: 20, lines: 1_500, files: 2, pad: 0 }.corpus()
}

fn workspace(corpus: &Corpus) -> Workspace {
    let mut workspace = Workspace::new();
    workspace.set("batch.max_records", "200");
    corpus.write_to(&workspace.input());
    workspace
}

#[test]
fn catch_up_on_a_full_archive_disk_says_so_and_completes_when_there_is_room() {
    with_mounts("full_disk::catch_up_on_a_full_archive_disk_says_so_and_completes_when_there_is_room", || {
        let corpus = corpus();
        let workspace = workspace(&corpus);
        let disk = SmallDisk::mount(workspace.archive(), 1_000);

        let done = workspace.run(&["catch-up", "--json"]).expect(1);
        let summary = done.json();
        assert_eq!((&summary["complete"], &summary["stopped"]), (&false.into(), &false.into()));
        let failures = summary["failures"].as_array().unwrap();
        assert_eq!(failures.len(), 2, "{summary:#}");
        for failure in failures {
            let error = failure["error"].as_str().unwrap();
            assert!(error.starts_with("no space left in the archive for events/dt=2026-11-0"), "{error}");
        }
        assert!(done.stderr.contains("\"level\":\"WARN\"") && done.stderr.contains("no space left"), "{}", done.stderr);
        workspace.verify();
        let text = workspace.run(&["catch-up"]).expect(1).stdout;
        assert!(text.contains("\nfailed: part-0.ndjson: no space left in the archive for events/"), "{text}");

        disk.resize(64_000);
        workspace.catch_up();
        corpus.truth.assert_holds(&workspace.archived());
        workspace.verify();
    });
}

#[test]
fn catch_up_on_a_full_state_disk_says_so_and_completes_when_there_is_room() {
    with_mounts("full_disk::catch_up_on_a_full_state_disk_says_so_and_completes_when_there_is_room", || {
        let corpus = corpus();
        let workspace = workspace(&corpus);
        let disk = SmallDisk::mount(workspace.state(), 48);

        let done = workspace.run(&["catch-up", "--json"]).expect(1);
        let said = done.stdout + &done.stderr;
        assert!(
            said.contains(workspace.state().to_str().unwrap()) && said.contains("no space left on the disk"),
            "{said}"
        );
        workspace.verify();

        disk.resize(64_000);
        workspace.catch_up();
        corpus.truth.assert_holds(&workspace.archived());
        workspace.verify();
    });
}

#[test]
fn run_on_a_full_archive_disk_waits_warns_and_goes_on_by_itself() {
    with_mounts("full_disk::run_on_a_full_archive_disk_waits_warns_and_goes_on_by_itself", || {
        let corpus = corpus();
        let mut workspace = workspace(&corpus);
        workspace.set("batch.window", "\"1s\"");
        let disk = SmallDisk::mount(workspace.archive(), 1_000);

        let mut process = workspace.start(&["run"]);
        let warning = |line: &str| {
            line.contains("\"level\":\"WARN\"") && line.contains("no space left in the archive for events/")
        };
        wait_until("it warns", || process.stderr().lines().filter(|line| warning(line)).count() >= 3);
        assert!(process.runs());
        workspace.verify();

        disk.resize(64_000);
        wait_until("all is archived", || workspace.archived_rows() == corpus.truth.archived());
        process.signal("TERM");
        let done = process.wait().expect(0);
        assert!(!done.stderr.contains("\"level\":\"ERROR\""), "{}", done.stderr);
        corpus.truth.assert_holds(&workspace.archived());
        workspace.verify();
    });
}
