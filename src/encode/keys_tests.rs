use proptest::prelude::*;

use super::*;
use crate::encode::samples;

fn window() -> Window {
    Window::holding("2026-11-21T09:45:00Z".parse().unwrap(), std::time::Duration::from_mins(30))
}

#[test]
fn keys_are_those_of_the_contract() {
    let layout = samples::layout();
    let shard = ShardId::new("shardId-000000000007");
    assert_eq!(
        object_key("dt=2026-11-21", &window(), &shard, 42, &layout),
        "events/dt=2026-11-21/20261121T093000Z-shardId-000000000007-00000042.parquet"
    );
    assert_eq!(
        rejected_key("dt=2026-11-21", &window(), &shard, 42),
        "rejected/dt=2026-11-21/20261121T093000Z-shardId-000000000007-00000042.ndjson"
    );
    assert_eq!(manifest_key(&shard, 42), "_manifests/shardId-000000000007/00000042.json");
    let ndjson = |compression| extension(&Layout { format: Format::Ndjson, compression, ..samples::layout() });
    assert_eq!(
        [Compression::Zstd, Compression::Gzip, Compression::None].map(ndjson),
        ["ndjson.zst", "ndjson.gz", "ndjson"]
    );
}

#[test]
fn the_two_sides_of_new_year_fall_on_their_own_dates_whatever_the_time_zone() {
    // jiff reads TZ when it asks for the system's zone; nothing here does. A child process proves it, since the
    // environment of this one is shared with other tests.
    if std::env::var("TZ").as_deref() != Ok("America/New_York") {
        let this = std::env::current_exe().unwrap();
        let name = "encode::keys::tests::the_two_sides_of_new_year_fall_on_their_own_dates_whatever_the_time_zone";
        let status = std::process::Command::new(this).args(["--exact", name]).env("TZ", "America/New_York").status();
        assert!(status.unwrap().success());
    }
    let layout = Layout { partition_by: vec![PartitionKey::Dt, PartitionKey::Hour], ..samples::layout() };
    for (emit_time, path) in [
        ("2026-12-31T23:59:59.999Z", "dt=2026-12-31/hour=23"),
        ("2027-01-01T00:00:00Z", "dt=2027-01-01/hour=00"),
        ("2027-01-01T00:30:00+01:00", "dt=2026-12-31/hour=23"),
    ] {
        let mut sample = samples::full();
        sample.record.emit_time = Some(emit_time.parse().unwrap());
        assert_eq!(partition_path(&sample.row(), &layout), path);
    }
}

#[test]
fn a_row_without_emit_time_goes_to_the_date_of_its_arrival() {
    let mut sample = samples::full();
    sample.record.emit_time = None;
    sample.arrival = "2026-11-22T00:00:00Z".parse().unwrap();
    assert_eq!(partition_path(&sample.row(), &samples::layout()), "dt=2026-11-22");
}

#[test]
fn dates_at_the_ends_of_time_stay_readable() {
    for (emit_time, path) in [
        ("0000-12-31T23:59:59Z", "dt=0001-01-01"),
        ("-000044-03-15T12:00:00Z", "dt=0001-01-01"),
        ("0001-01-02T00:00:00Z", "dt=0001-01-02"),
        ("9999-12-30T22:00:00Z", "dt=9999-12-30"),
    ] {
        let mut sample = samples::full();
        sample.record.emit_time = Some(emit_time.parse().unwrap());
        assert_eq!(partition_path(&sample.row(), &samples::layout()), path);
    }
}

#[test]
fn partition_values_are_percent_encoded() {
    let mut sample = samples::full();
    sample.record.resource_category = "a/b=c %".into();
    let layout = Layout {
        partition_by: vec![PartitionKey::SourceLabel, PartitionKey::ResourceCategory],
        source_label: "über".to_owned(),
        ..samples::layout()
    };
    assert_eq!(partition_path(&sample.row(), &layout), "source_label=%C3%BCber/resource_category=a%2Fb%3Dc%20%25");
    sample.record.resource_category = "".into();
    assert!(partition_path(&sample.row(), &layout).ends_with("resource_category=__HIVE_DEFAULT_PARTITION__"));
    let none = Layout { partition_by: vec![], ..samples::layout() };
    assert_eq!(partition_path(&sample.row(), &none), "");
    assert!(parse_object_key(&object_key("", &window(), &ShardId::new("s"), 0, &none)).is_some());
}

#[test]
fn shard_names_that_are_paths_or_too_long_become_harmless() {
    let encode = |name: &str| encode_shard(&ShardId::new(name));
    assert_eq!(encode("audit/2026.ndjson"), "audit%2F2026.ndjson");
    assert_eq!([encode("."), encode(".."), encode("")], ["%2E", "%2E%2E", "~"]);
    let (a, b) = (encode(&"/".repeat(300)), encode(&"/".repeat(301)));
    assert!(a != b && a.len() <= 120 && a.contains('~'), "{a}");
    assert_eq!(encode(&"x".repeat(120)), "x".repeat(120));
    assert_eq!(encode(&"x".repeat(121)).len(), 120);
    // A cut never leaves half of a percent-triplet.
    for length in 0..3 {
        let name = encode(&format!("{}{}", "x".repeat(length), "/".repeat(200)));
        let (prefix, _) = name.split_once('~').unwrap();
        assert_eq!(prefix.replace("%2F", "").replace('x', ""), "", "{name}");
    }
}

#[test]
fn keys_of_others_are_not_taken_for_ours() {
    for key in [
        "",
        "events/",
        "events/dt=2026-11-21/",
        "events/dt=2026-11-21/x.parquet",
        "events/dt=2026-11-21/20261121T093000Z-s-42.parquet",
        "events/dt=2026-11-21/20261121T093000Z-s-+0000042.parquet",
        "events/dt=2026-11-21/20261121T093000Z-s-00000042.parquet.tmp",
        "events/dt=2026-11-21/20261121T093000Z-s-00000042.avro",
        "events/dt=2026-11-21/20261121T093000Z--00000042.parquet",
        "events/../20261121T093000Z-s-00000042.parquet",
        "rejected/dt=2026-11-21/20261121T093000Z-s-00000042.parquet",
        "_manifests/s/42.json",
        "_manifests/s/00000042.json/x",
        "_manifests/00000042.json",
        "other",
    ] {
        assert_eq!(parse_object_key(key), None, "{key}");
    }
    assert_eq!(parse_object_key(IDENTITY_KEY), Some(ParsedKey::Identity));
}

fn shard_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9._-]{0,40}", "\\PC{0,60}", "[-./~%0-9]{0,200}"]
}

proptest! {
    #[test]
    fn keys_read_back_to_what_they_were_made_of(name in shard_name(), seq in any::<u64>()) {
        let shard = ShardId::new(&name);
        let encoded = encode_shard(&shard);
        let layout = samples::layout();
        let key = object_key("dt=2026-11-21", &window(), &shard, seq, &layout);
        let data = DataKey {
            partition: "dt=2026-11-21",
            window_start: window().start,
            shard: &encoded,
            batch_seq: seq,
            encoding: Encoding::Parquet,
        };
        prop_assert_eq!(parse_object_key(&key), Some(ParsedKey::Events(data.clone())));
        let rejected = rejected_key("dt=2026-11-21", &window(), &shard, seq);
        let data = DataKey { encoding: Encoding::Ndjson, ..data };
        prop_assert_eq!(parse_object_key(&rejected), Some(ParsedKey::Rejected(data)));
        let manifest = manifest_key(&shard, seq);
        prop_assert_eq!(parse_object_key(&manifest), Some(ParsedKey::Manifest { shard: &encoded, batch_seq: seq }));
        prop_assert!(encoded != "." && encoded != ".." && encoded.len() <= 120);
    }

    #[test]
    fn different_shards_have_different_keys(a in shard_name(), b in shard_name()) {
        prop_assume!(a != b);
        prop_assert_ne!(encode_shard(&ShardId::new(a)), encode_shard(&ShardId::new(b)));
    }
}
