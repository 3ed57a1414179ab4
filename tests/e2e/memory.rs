//! What a run takes does not grow with what it reads.

use std::fs;
use std::io::Write as _;

use crate::support::{Plan, Workspace};

#[test]
fn a_large_file_is_read_in_bounded_memory() {
    let mut workspace = Workspace::new();
    workspace
        .set("archive.format", "\"parquet\"")
        .set("archive.compression", "\"snappy\"")
        .set("limits.memory", "\"64MiB\"");
    let path = workspace.feed("large.ndjson", "");
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    for part in 0..6 {
        file.write_all(&Plan { seed: 100 + part, lines: 20_000, files: 1, pad: 750 }.corpus().files[0]).unwrap();
    }
    assert!(file.metadata().unwrap().len() > 130 << 20);

    let mut process = workspace.start(&["catch-up", "--json"]);
    let mut peak = 0;
    while process.runs() {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = high.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or(peak);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let summary = process.wait().expect(0).json();

    assert!(summary["archived"].as_u64() > Some(100_000), "{summary:#}");
    let megabytes = peak / 1024;
    assert!((1..400).contains(&megabytes), "it took {megabytes} MB at its peak");
}
