use super::*;

fn from(toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("source.file.path = \"in\"\n{toml}")).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    load(Some(file.path()), environment).map_err(|error| error.to_string())
}

fn complaint(toml: &str) -> String {
    from(toml, &[]).unwrap_err()
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = from("", &[]).unwrap();
    assert_eq!(config.batch.window.to_string(), "30m");
    assert_eq!(config.batch.max_bytes.to_string(), "128MiB");
    assert_eq!(config.dedupe.window.get().as_secs(), 35 * 86_400);
    assert!(config.archive.keep_raw && config.archive.compression_level == 3);
}

#[test]
fn the_defaults_read_back_as_themselves() {
    let text = toml::to_string_pretty(&Config::default()).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default(), "{text}");
}

#[test]
fn an_unknown_key_is_named_with_the_known_one_most_like_it() {
    assert_eq!(complaint("batch.windw = \"30m\""), "unknown key `batch.windw`; did you mean `batch.window`?");
    assert_eq!(complaint("[archve]\nformat = \"ndjson\""), "unknown key `archve`; did you mean `archive`?");
    assert_eq!(complaint("[batch]\nzzz = 1"), "unknown key `batch.zzz`");
}

#[test]
fn a_wrong_value_is_named_with_its_key() {
    let wrong = complaint("batch.window = \"half an hour\"");
    assert_eq!(wrong, "batch.window: `half an hour` is no duration; write `30m`, `1h 30m` or `35d`");
    assert!(complaint("archive.format = \"orc\"").starts_with("archive.format: unknown variant `orc`"));
    assert!(complaint("batch.max_records = \"many\"").starts_with("batch.max_records: "));
    assert!(complaint("source.kind = \"kafka\"").starts_with("source.kind: unknown variant `kafka`, expected "));
    assert!(complaint("source.kinesis.initial_position = \"oldest\"").contains("neither `trim_horizon` nor `latest`"));
    assert!(complaint("lease.failover = \"500ms\"").starts_with("lease.failover: "));
    assert!(complaint("record.trusted_proxies = [\"ten\"]").starts_with("record.trusted_proxies[0]: "));
    let wrong = complaint("archive.partition_by = \"dt\"");
    assert!(
        wrong.starts_with("archive.partition_by: ") && wrong.ends_with(r#"a list, as in `["dt", "hour"]`"#),
        "{wrong}"
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    assert!(
        complaint("archive.format = \"json\"\narchive.compression = \"snappy\"").starts_with("archive.compression: ")
    );
    assert_eq!(complaint("archive.compression_level = 23"), "archive.compression_level: 23 is not between 1 and 22");
    assert_eq!(complaint("archive.partition_by = [\"dt\", \"dt\"]"), "archive.partition_by: `dt` stands twice");
    assert_eq!(complaint("batch.window = \"1500ms\""), "batch.window: must be a whole number of seconds, at least one");
    assert!(
        complaint("archive.local.path = \"in/archive\"").starts_with("archive.local.path: `in/archive` lies within")
    );
}

#[test]
fn a_variable_of_the_environment_overrides_its_key() {
    let config = from(
        "batch.window = \"1h\"",
        &[
            ("AUDITLAKE__BATCH__WINDOW", "5m"),
            ("AUDITLAKE__BATCH__MAX_RECORDS", "7"),
            ("AUDITLAKE__SOURCE__LABEL", "123"),
            ("AUDITLAKE__SOURCE__FILE__PATH", "elsewhere"),
            ("AUDITLAKE__ARCHIVE__KEEP_RAW", "false"),
            ("AUDITLAKE__ARCHIVE__PARTITION_BY", "[\"dt\", \"hour\"]"),
            ("AUDITLAKE_FAILPOINT", "not a key"),
        ],
    )
    .unwrap();
    assert_eq!((config.batch.window.to_string().as_str(), config.batch.max_records), ("5m", 7));
    assert_eq!((config.source.label.as_str(), config.archive.keep_raw), ("123", false));
    assert_eq!(config.source.file.path, Some("elsewhere".into()));
    assert_eq!(config.archive.partition_by.len(), 2);
}

#[test]
fn a_variable_that_names_no_key_is_refused() {
    let error = from("", &[("AUDITLAKE__BATCH__WINDWO", "5m")]).unwrap_err();
    assert_eq!(error, "unknown key `batch.windwo`; did you mean `batch.window`?");
}

#[test]
fn a_line_that_is_no_toml_is_named_by_its_number() {
    assert!(complaint("[batch\nwindow = 1").contains(": line 2: "), "{}", complaint("[batch\nwindow = 1"));
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Some(Path::new("nowhere.toml")), std::iter::empty()).unwrap_err().to_string();
    assert!(error.starts_with("nowhere.toml: No such file"), "{error}");
}

#[test]
fn paths_that_would_hold_one_another_are_refused() {
    assert!(
        complaint("state.embedded.path = \"archive/state\"")
            .ends_with("lies within archive.local.path, which holds nothing but the archive")
    );
    assert_eq!(complaint("archive.local.path = \"\""), "archive.local.path: is empty");
    assert_eq!(complaint("dedupe.window = \"0s\""), "dedupe.window: must be more than 0");
}

#[test]
fn a_path_that_is_not_used_may_lie_anywhere() {
    let bucket = "archive.kind = \"s3\"\narchive.s3.bucket = \"b\"\narchive.local.path = \"in/archive\"";
    assert!(from(bucket, &[]).is_ok());
}

#[test]
fn settings_of_a_bucket_that_would_be_passed_over_are_refused() {
    let kms = "goes with archive.s3.sse = \"aws:kms\" only";
    assert_eq!(complaint("archive.s3.kms_key_id = \"k\""), format!("archive.s3.kms_key_id: {kms}"));
    assert_eq!(
        complaint("archive.s3.bucket_key = true\narchive.s3.sse = \"AES256\""),
        format!("archive.s3.bucket_key: {kms}")
    );
    assert!(from("archive.s3.kms_key_id = \"k\"\narchive.s3.sse = \"aws:kms\"", &[]).is_ok());
    let lock = "archive.s3.object_lock = { mode = \"governance\", retain = \"0s\" }";
    assert_eq!(complaint(lock), "archive.s3.object_lock.retain: must be more than 0");
}

#[test]
fn the_schema_describes_every_section() {
    let schema = schema();
    for section in ["source", "state", "archive", "batch", "record", "dedupe", "lease", "limits", "worker", "metrics"] {
        assert!(schema["properties"][section]["properties"].is_object(), "{section}");
    }
}

#[test]
fn spools_have_a_folder_of_their_own() {
    for prefix in ["spool", "", "_", "_a/b", "_manifests", "/_verify/", "_auditlake.json"] {
        let complaint = complaint(&format!("source.pubsub.spool.prefix = {prefix:?}"));
        assert!(complaint.starts_with("source.pubsub.spool.prefix: "), "{complaint}");
    }
    assert!(from("source.pubsub.spool.prefix = \"_segments\"", &[]).is_ok());
    let within =
        "source.kind = \"pubsub\"\nsource.pubsub.spool.store = \"local\"\nsource.pubsub.spool.path = \"archive/x\"";
    assert!(complaint(within).starts_with("source.pubsub.spool.path: `archive/x` lies within archive.local.path"));
}

#[test]
fn the_samples_are_read() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for sample in ["local.toml", "kinesis.toml", "pubsub.toml"] {
        load(Some(&samples.join(sample)), std::iter::empty()).unwrap_or_else(|error| panic!("{sample}: {error}"));
    }
}

#[test]
fn an_initial_position_is_a_word_or_a_time() {
    let position = |text: &str| {
        let variable = ("AUDITLAKE__SOURCE__KINESIS__INITIAL_POSITION".to_owned(), text.to_owned());
        load(None, [variable].into_iter()).unwrap().source.kinesis.initial_position
    };
    assert_eq!(position("LATEST"), crate::source::InitialPosition::Latest);
    let time = "2026-11-21T00:00:00Z";
    assert_eq!(position(time), crate::source::InitialPosition::At(time.parse().unwrap()));
}

#[test]
fn a_variable_with_one_underscore_too_few_is_not_passed_over() {
    for (name, meant) in [
        ("AUDITLAKE_BATCH__WINDOW", "AUDITLAKE__BATCH__WINDOW"),
        ("AUDITLAKE_BATCH_WINDOW", "AUDITLAKE__BATCH__WINDOW"),
        ("AUDITLAKE_STATE_DYNAMODB_TABLE_PREFIX", "AUDITLAKE__STATE__DYNAMODB__TABLE_PREFIX"),
    ] {
        let complaint = from("", &[(name, "1m")]).unwrap_err();
        assert_eq!(complaint, format!("{name}: is no setting of ours; did you mean {meant}?"));
    }
}
