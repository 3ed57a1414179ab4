use super::*;
use crate::encode::samples::{Sample, empty, full, generate, layout};
use crate::encode::{Format, ObjectEncoder};

fn ndjson(compression: Compression) -> Layout {
    Layout { format: Format::Ndjson, compression, ..layout() }
}

fn encode(samples: &[Sample], layout: &Layout) -> Vec<u8> {
    let mut object = ObjectEncoder::new(layout).unwrap();
    for sample in samples {
        object.append(&sample.row());
    }
    object.finish().unwrap().bytes.join().to_vec()
}

#[test]
fn a_line_has_every_column_in_order_and_json_as_json() {
    let mut sample = full();
    sample.record.emit_time = Some("2026-11-21T09:30:00.123456789Z".parse().unwrap());
    sample.conflict = true;
    let text = String::from_utf8(encode(&[sample.clone()], &ndjson(Compression::None))).unwrap();
    assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
    let mut at = 0;
    for column in &COLUMNS {
        let name = format!("\"{}\":", column.name);
        at += text[at..].find(&name).unwrap_or_else(|| panic!("{name} after byte {at} of {text}"));
    }
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["emit_time"], "2026-11-21T09:30:00.123456789Z");
    assert_eq!(value["details"]["region"], "aws-eu-west-1");
    assert_eq!(value["deprecated"]["level"], "LOG_LEVEL_INFO");
    assert_eq!(value["source_message"]["attributes"]["from"], "\"größer\"\n");
    assert!(text.contains(&format!(r#","source_message":{},"raw":"#, sample.source_message.unwrap())), "{text}");
    assert!(text.contains(r#""unknown_fields":{"new":null,"n":1.50}"#), "numbers keep their spelling");
    assert_eq!(value["notes"], serde_json::json!(["operation_unknown", "dedupe_conflict"]));
    assert_eq!(value["raw"], *sample.record.raw);
    assert_eq!(value["source_kind"], "kinesis");
}

#[test]
fn absent_values_are_null_and_present() {
    let layout = Layout { keep_raw: false, ..ndjson(Compression::None) };
    let value: serde_json::Value = serde_json::from_slice(&encode(&[empty(0)], &layout)).unwrap();
    let object = value.as_object().unwrap();
    assert_eq!(object.len(), COLUMNS.len());
    for column in &COLUMNS {
        assert_eq!(object[column.name].is_null(), column.nullable, "{}", column.name);
    }
    assert_eq!(value["ip_chain"], serde_json::json!([]));
}

#[test]
fn line_breaks_and_quotes_in_text_break_no_line() {
    let mut sample = full();
    sample.record.principal_name = Some("a\n\"b\"\\\u{0}\u{2028}\u{1f600}".into());
    let bytes = encode(&[sample.clone(), sample.clone()], &ndjson(Compression::None));
    let lines: Vec<_> = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2);
    let value: serde_json::Value = serde_json::from_slice(lines[1]).unwrap();
    assert_eq!(value["principal_name"], *sample.record.principal_name.unwrap());
}

#[test]
fn compressed_objects_hold_the_plain_bytes_and_are_the_same_every_time() {
    let samples = generate(2_000);
    let plain = encode(&samples, &ndjson(Compression::None));
    let gzip = encode(&samples, &ndjson(Compression::Gzip));
    let zstd = encode(&samples, &ndjson(Compression::Zstd));
    let mut back = Vec::new();
    // One member: a reader that stops after the first has it all.
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut back).unwrap();
    assert_eq!(back, plain);
    assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], "no name, no time, no system");
    let mut first = zstd::stream::read::Decoder::new(&zstd[..]).unwrap().single_frame();
    back.clear();
    std::io::Read::read_to_end(&mut first, &mut back).unwrap();
    assert_eq!(back, plain);
    assert_eq!(gzip, encode(&samples, &ndjson(Compression::Gzip)));
    assert_eq!(zstd, encode(&samples, &ndjson(Compression::Zstd)));
}

#[test]
fn snappy_is_refused() {
    assert!(ObjectEncoder::new(&ndjson(Compression::Snappy)).err().unwrap().to_string().contains("snappy"));
}
