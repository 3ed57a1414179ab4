use super::*;
use crate::encode::samples::{Sample, empty, generate, layout};
use crate::encode::{Compression, Format, Layout, ObjectEncoder, RejectRow, keys};

fn layouts() -> Vec<Layout> {
    let of = |format, compression| Layout { format, compression, ..layout() };
    vec![
        of(Format::Parquet, Compression::Zstd),
        of(Format::Parquet, Compression::Gzip),
        of(Format::Parquet, Compression::Snappy),
        of(Format::Parquet, Compression::None),
        of(Format::Ndjson, Compression::Zstd),
        of(Format::Ndjson, Compression::Gzip),
        of(Format::Ndjson, Compression::None),
        Layout { keep_raw: false, ..of(Format::Parquet, Compression::Zstd) },
        Layout { keep_raw: false, ..of(Format::Ndjson, Compression::Zstd) },
    ]
}

fn encode(samples: &[Sample], layout: &Layout) -> Bytes {
    let mut object = ObjectEncoder::new(layout).unwrap();
    for sample in samples {
        object.append(&sample.row());
    }
    object.finish().unwrap().bytes.join()
}

fn key(layout: &Layout) -> String {
    format!("events/x.{}", keys::extension(layout))
}

fn read(bytes: &Bytes, layout: &Layout, projection: Projection) -> Vec<ArchivedRow> {
    read_rows(bytes.clone(), &key(layout), projection).unwrap().map(Result::unwrap).collect()
}

/// What must come back of a sample.
fn expected(sample: &Sample, layout: &Layout, projection: Projection) -> ArchivedRow {
    let own = |text: &Option<std::borrow::Cow<'static, str>>| text.as_deref().map(str::to_owned);
    let record = &sample.record;
    let cut = |at: Timestamp| match layout.format {
        Format::Ndjson => at,
        Format::Parquet => Timestamp::from_microsecond(crate::encode::time_text::floor_micros(at)).unwrap(),
    };
    let core = ArchivedCore {
        operation_canonical: own(&record.operation_canonical),
        outcome: record.outcome,
        principal_type: record.principal_type,
        principal_id: own(&record.principal_id),
        principal_name: own(&record.principal_name),
        principal_api_key_id: own(&record.principal_api_key_id),
        async_operation_id: own(&record.async_operation_id),
        client_ip: own(&record.client_ip),
        details: own(&record.details),
        details_source: record.details_source,
        raw: layout.keep_raw.then(|| record.raw.to_string()),
    };
    ArchivedRow {
        log_id: own(&record.log_id),
        version: record.version,
        emit_time: record.emit_time.map(cut),
        arrival: cut(sample.arrival),
        shard: sample.shard.clone(),
        payload: sample.payload.clone(),
        index: sample.index,
        conflict: sample.conflict,
        core: (projection == Projection::Core).then_some(core),
    }
}

#[test]
fn what_was_written_is_read_back_from_every_format() {
    let mut samples = generate(2_500);
    samples.insert(7, empty(7));
    samples[9].record.emit_time = Some("1969-12-31T23:59:59.9999999Z".parse().unwrap());
    for layout in layouts() {
        let bytes = encode(&samples, &layout);
        for projection in [Projection::Keys, Projection::Core] {
            let rows = read(&bytes, &layout, projection);
            assert_eq!(rows.len(), samples.len());
            for (row, sample) in rows.iter().zip(&samples) {
                assert_eq!(*row, expected(sample, &layout, projection), "{layout:?}");
            }
        }
    }
}

#[test]
fn a_row_gives_a_record_that_has_the_core_of_the_one_written() {
    let sample = generate(1).remove(0);
    let bytes = encode(std::slice::from_ref(&sample), &layout());
    let rows = read(&bytes, &layout(), Projection::Core);
    let record = rows[0].record();
    assert_eq!(record.operation_canonical, sample.record.operation_canonical);
    assert_eq!(record.principal_name, sample.record.principal_name);
    assert_eq!(record.details, sample.record.details);
    assert_eq!(record.raw, sample.record.raw);
    assert_eq!(rows[0].position().to_string(), sample.row().position.to_string());
}

#[test]
fn an_object_of_no_rows_reads_as_none() {
    for layout in layouts() {
        assert!(read(&encode(&[], &layout), &layout, Projection::Keys).is_empty());
    }
}

#[test]
fn the_same_rows_in_other_bytes_are_the_same_and_others_are_not() {
    let samples = generate(1_500);
    let mut changed = samples.clone();
    changed[1_499].index += 1;
    let mut flagged = samples.clone();
    flagged[700].conflict ^= true;
    for layout in layouts() {
        let level = Layout { compression_level: 1, ..layout.clone() };
        let (a, b) = (encode(&samples, &layout), encode(&samples, &level));
        if layout.compression == Compression::Zstd {
            assert_ne!(a, b, "the levels must differ for this test to mean something");
        }
        let key = key(&layout);
        assert!(same_rows(a.clone(), b, &key).unwrap());
        assert!(!same_rows(a.clone(), encode(&changed, &layout), &key).unwrap());
        assert!(!same_rows(a.clone(), encode(&flagged, &layout), &key).unwrap());
        assert!(!same_rows(a.clone(), encode(&samples[..1_499], &layout), &key).unwrap());
        assert!(!same_rows(encode(&samples[1..], &layout), a, &key).unwrap());
    }
}

#[test]
fn damage_is_an_error_and_never_fewer_rows() {
    let samples = generate(1_500);
    for layout in layouts() {
        let whole = encode(&samples, &layout);
        for cut in [1, whole.len() / 2, whole.len() - 1] {
            let rows = read_rows(whole.slice(..cut), &key(&layout), Projection::Keys);
            let failed = rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).is_err();
            assert!(failed, "{layout:?} cut to {cut} bytes");
        }
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let error = |key: &str, bytes: &'static [u8]| {
        let rows = read_rows(Bytes::from_static(bytes), key, Projection::Keys);
        rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).unwrap_err().to_string()
    };
    assert_eq!(error("events/x.avro", b""), "no known format: events/x.avro");
    assert!(error("x.parquet", b"PAR1").starts_with("not readable as parquet: "));
    assert!(error("x.ndjson.zst", b"not zstd").starts_with("not readable as zstd: "));
    assert!(error("x.ndjson.gz", b"not gzip").starts_with("not readable as gzip: "));
    assert!(error("x.ndjson", b"{\"version\":1}\n").starts_with("row 0: missing field `log_id`"));
    assert_eq!(error("x.ndjson", b"{"), "row 0: its line does not end");
    let line = br#"{"log_id":null,"version":1,"emit_time":null,"notes":[],"source_shard":"s","source_position":"1/2","arrival_time":"2026-11-21T09:30:00Z"}
"#;
    assert_eq!(error("x.ndjson", line), "row 0: source_position \"1/2\" is no position");
}

#[test]
fn a_parquet_file_of_others_is_refused_by_the_column_it_lacks() {
    use std::sync::Arc;
    let array: arrow_array::ArrayRef = Arc::new(arrow_array::Int32Array::from(vec![1]));
    let batch = arrow_array::RecordBatch::try_from_iter([("version", array)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap().into();
    let error = read_rows(bytes, "x.parquet", Projection::Keys).err().unwrap();
    assert_eq!(error.to_string(), "column log_id: is not there");
}

#[test]
fn rejects_are_read_back_and_compared() {
    let layout = layout();
    let (shard, payload) = (ShardId::new("s \"quoted\""), Position::new(17));
    let write = |index| {
        let mut lines = Vec::new();
        for reason in [RejectReason::NotUtf8, RejectReason::InvalidJson] {
            let arrival = "2026-11-21T09:30:00.5Z".parse().unwrap();
            let position = payload.record(index);
            let source_message = (index == 3).then_some(r#"{"message_id":"1"}"#);
            let row = RejectRow { reason, shard: &shard, position, arrival, source_message, raw: b"\xff\x00bytes" };
            crate::encode::reject::write_reject(&mut lines, &row, &layout);
        }
        Bytes::from(lines)
    };
    let rows: Vec<_> = read_rejects(write(3)).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].reason, rows[1].reason), (RejectReason::NotUtf8, RejectReason::InvalidJson));
    assert_eq!((&rows[0].shard, &rows[0].payload, rows[0].index), (&shard, &payload, 3));
    assert_eq!(&rows[0].raw[..], b"\xff\x00bytes");
    assert_eq!(rows[0].arrival.to_string(), "2026-11-21T09:30:00.5Z");
    let text = |index| String::from_utf8(write(index).to_vec()).unwrap();
    assert_eq!(text(3).matches(r#","source_message":{"message_id":"1"},"raw_base64":"#).count(), 2);
    assert_eq!(text(4).matches(r#","source_message":null,"raw_base64":"#).count(), 2);
    let key = "rejected/dt=2026-11-21/x.ndjson";
    assert!(!same_rows(write(3), write(4), key).unwrap());
    let first_line = write(3).iter().position(|b| *b == b'\n').unwrap() + 1;
    assert!(!same_rows(write(3), write(3).slice(..first_line), key).unwrap());
    assert!(read_rejects(write(3).slice(..20)).unwrap().next().unwrap().is_err());
}
