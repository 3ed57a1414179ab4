//! Dates are UTC, whatever the machine thinks (SCENARIOS.md, 28).

use std::fs;

use crate::support::{Workspace, duckdb, finish};

#[test]
fn the_last_and_the_first_instant_of_a_year_fall_on_their_own_dates_in_new_york_too() {
    let mut workspace = Workspace::new();
    workspace.set("archive.format", "\"parquet\"").set("archive.partition_by", r#"["dt", "hour"]"#);
    let line = |id: &str, time: &str| {
        format!(r#"{{"operation":"UserLogin","emit_time":"{time}","log_id":"{id}","status":"OK","version":1}}"#) + "\n"
    };
    let times = [
        ("a", "2026-12-31T23:59:59.999Z"),
        ("b", "2027-01-01T00:00:00Z"),
        ("c", "2026-12-31T19:00:00-05:00"),
        ("d", "2027-01-01T05:29:59+05:30"),
    ];
    workspace.feed("a.ndjson", times.map(|(id, time)| line(id, time)).concat());

    finish(workspace.command(&["catch-up"]).env("TZ", "America/New_York")).expect(0);
    finish(workspace.command(&["verify"]).env("TZ", "America/New_York")).expect(0);

    let sql = finish(workspace.command(&["ddl", "duckdb"]).env("TZ", "America/New_York")).expect(0).stdout;
    let query = "SELECT CAST(dt AS VARCHAR) || ' ' || hour || ' ' || string_agg(log_id, '' ORDER BY log_id) FROM audit_events GROUP BY dt, hour ORDER BY 1";
    let rows: Vec<String> = duckdb(&sql, query).iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(rows, ["2026-12-31 23 ad", "2027-01-01 00 bc"]);
}

#[test]
fn a_late_record_goes_to_its_own_date_and_one_without_a_time_to_that_of_its_arrival() {
    let workspace = Workspace::new();
    let record = |id: &str, time: &str| format!("{{\"operation\":\"UserLogin\",\"log_id\":\"{id}\"{time}}}\n");
    let lines = [
        record("now", r#","emit_time":"2026-11-21T09:30:00Z""#),
        record("late", r#","emit_time":"2019-02-28T23:00:00Z""#),
        record("timeless", ""),
    ];
    let file = workspace.feed("a.ndjson", lines.concat());
    let arrival = std::time::UNIX_EPOCH + std::time::Duration::from_hours(498_192);
    fs::File::options().append(true).open(file).unwrap().set_modified(arrival).unwrap();
    workspace.catch_up();
    workspace.verify();
    let mut folders: Vec<String> =
        workspace.objects("events").iter().map(|key| key.split('/').nth(1).unwrap().to_owned()).collect();
    folders.dedup();
    assert_eq!(folders, ["dt=2019-02-28", "dt=2026-11-01", "dt=2026-11-21"]);
    assert!(workspace.objects("events")[0].ends_with("/20261101T000000Z-a.ndjson-00000000.ndjson"));
}
