//! The examples of RECORDS.md, payload by payload: every field, every reject, every dedupe key and verdict.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test")]

use std::collections::{BTreeSet, HashMap};

use auditlake::dedupe::{Core, Verdict};
use auditlake::record::{
    Decoded, IdentityKey, Record, RejectReason, Rules, decode, dedupe_key, format_time, identity_of, unpack,
};
use base64::prelude::*;
use serde_json::{Value, json};

fn rules() -> Rules {
    Rules { trusted_proxies: vec!["198.51.100.0/24".parse().unwrap()], max_payload_bytes: 1 << 20 }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// N11 and N12 with nothing but a map.
#[derive(Default)]
struct Dedupe {
    cores: HashMap<String, Vec<Core>>,
    versions: HashMap<String, Vec<i32>>,
}

impl Dedupe {
    fn claim(&mut self, record: &Record<'_>) -> Verdict {
        let core = IdentityKey::of_archive(uuid::Uuid::nil()).core_of(record);
        let cores = self.cores.entry(dedupe_key(&identity_of(record))).or_default();
        if cores.iter().any(|known| known.same_event(&core)) {
            return Verdict::Duplicate;
        }
        cores.push(core);
        if cores.len() > 1 {
            return Verdict::Conflict;
        }
        let Some(log_id) = &record.log_id else { return Verdict::New };
        let versions = self.versions.entry(log_id.to_string()).or_default();
        let verdict = match versions.iter().max() {
            None => Verdict::New,
            Some(greatest) if record.version > *greatest => Verdict::NewerVersion,
            Some(_) => Verdict::OlderVersion,
        };
        versions.push(record.version);
        verdict
    }
}

fn as_json(record: &Record<'_>, verdict: Verdict) -> Value {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let mut notes: Vec<_> = record.notes.iter().map(ToString::to_string).collect();
    if verdict == Verdict::Conflict {
        notes.push("dedupe_conflict".to_owned());
    }
    json!({
        "schema_version": auditlake::record::SCHEMA_VERSION,
        "dedupe_key": dedupe_key(&identity_of(record)),
        "log_id": record.log_id,
        "version": record.version,
        "emit_time": record.emit_time.map(format_time),
        "operation": record.operation,
        "operation_canonical": record.operation_canonical,
        "resource_category": record.resource_category,
        "action": record.action,
        "status": record.status,
        "outcome": record.outcome.as_str(),
        "principal_type": record.principal_type.map(auditlake::record::PrincipalType::as_str),
        "principal_id": record.principal_id,
        "principal_name": record.principal_name,
        "principal_api_key_id": record.principal_api_key_id,
        "actor_email": record.actor_email,
        "x_forwarded_for": record.x_forwarded_for,
        "client_ip": record.client_ip,
        "ip_chain": record.ip_chain,
        "async_operation_id": record.async_operation_id,
        "namespace": record.namespace,
        "details": record.details.as_deref().map(parse),
        "details_source": record.details_source.as_str(),
        "deprecated": parse(&record.deprecated),
        "unknown_fields": parse(&record.unknown_fields),
        "notes": notes,
        "dedupe": verdict.as_str(),
    })
}

fn check(payload: &[u8], expected: &Value, dedupe: &mut Dedupe) {
    let case = &expected["case"];
    let rules = rules();
    let unpacked = unpack(payload, rules.max_payload_bytes);
    let (mut records, mut rejects) = (Vec::new(), Vec::new());
    for Decoded { index, outcome } in decode(&unpacked, &rules) {
        match outcome {
            Ok(record) => {
                let verdict = dedupe.claim(&record);
                records.push(as_json(&record, verdict));
            }
            Err(reject) => rejects.push(json!({ "index": index, "reason": reject.reason.as_str() })),
        }
    }
    assert_eq!(Value::Array(rejects), expected["rejects"], "case {case}");
    let expected = expected["records"].as_array().unwrap();
    assert_eq!(records.len(), expected.len(), "case {case}");
    for (record, expected) in records.iter().zip(expected) {
        let (record, expected) = (record.as_object().unwrap(), expected.as_object().unwrap());
        let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(record), names(expected), "case {case}");
        for (field, value) in expected {
            if field == "notes" {
                let set =
                    |notes: &Value| notes.as_array().unwrap().iter().map(ToString::to_string).collect::<BTreeSet<_>>();
                assert_eq!(set(&record[field]), set(value), "case {case}, {field}");
            } else {
                assert_eq!(&record[field], value, "case {case}, {field}");
            }
        }
    }
}

#[test]
fn every_case_becomes_what_the_rules_expect() {
    let mut dedupe = Dedupe::default();
    let expected = lines(include_str!("golden/cases.expected.ndjson"));
    let cases: Vec<_> = include_str!("golden/cases.ndjson").lines().collect();
    assert_eq!((cases.len(), expected.len()), (25, 25));
    for (case, expected) in cases.iter().zip(&expected) {
        check(case.as_bytes(), expected, &mut dedupe);
    }
}

#[test]
fn every_framing_becomes_what_the_rules_expect() {
    let expected = lines(include_str!("golden/framing.expected.ndjson"));
    let payloads = lines(include_str!("golden/framing.ndjson"));
    assert_eq!((payloads.len(), expected.len()), (6, 6));
    for (payload, expected) in payloads.iter().zip(&expected) {
        let payload = BASE64_STANDARD.decode(payload["payload_base64"].as_str().unwrap()).unwrap();
        check(&payload, expected, &mut Dedupe::default());
    }
}

#[test]
fn the_cases_as_one_file_give_the_same_records_and_rejects_as_one_by_one() {
    let rules = rules();
    let text = include_str!("golden/cases.ndjson");
    let whole = unpack(text.as_bytes(), rules.max_payload_bytes);
    let as_whole: Vec<_> = decode(&whole, &rules).map(|decoded| decoded.outcome).collect();
    let lines: Vec<_> = text.lines().map(|line| unpack(line.as_bytes(), rules.max_payload_bytes)).collect();
    let one_by_one: Vec<_> =
        lines.iter().flat_map(|line| decode(line, &rules)).map(|decoded| decoded.outcome).collect();
    assert_eq!(as_whole, one_by_one);
    assert_eq!(as_whole.iter().filter_map(|outcome| outcome.as_ref().err()).count(), 3);
    assert!(as_whole.iter().flat_map(Result::as_ref).all(|record| text.contains(&*record.raw)));
    assert_eq!(as_whole[22].as_ref().unwrap_err().reason, RejectReason::EmitTimeInvalid);
}

/// Real payloads with bytes replaced, taken out and put in: whatever comes, it is a record or a reject.
#[test]
fn no_mutation_of_a_payload_makes_decoding_panic() {
    use proptest::prelude::*;
    let lines: Vec<&str> = include_str!("golden/cases.ndjson").lines().collect();
    let pieces =
        ["\"", "{", "}", "[", "]", ",", ":", "\\", "\\u", "null", "1e400", "\u{feff}", "\n", "\u{0}", "\"seconds\":"];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0..4_usize, 0..pieces.len()), 1..6);
    let rules = rules();
    let config = ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(line in 0..lines.len(), edits in edits)| {
        let mut payload = lines[line].as_bytes().to_vec();
        for (at, removed, piece) in edits {
            let at = at.index(payload.len() + 1);
            let end = (at + removed).min(payload.len());
            payload.splice(at..end, pieces[piece].bytes());
        }
        let unpacked = unpack(&payload, rules.max_payload_bytes);
        for (index, element) in decode(&unpacked, &rules).enumerate() {
            prop_assert_eq!(element.index as usize, index);
        }
    });
}
