//! A row of the archive's own NDJSON, read back as the record that it is: normalising again changes nothing.

use std::borrow::Cow;

use super::details::one_line;
use super::fields::{is_artefact, last_of_each};
use super::normalise::object_of;
use super::scan::{self, Members};
use super::strings;
use super::{DetailsSource, Outcome, PrincipalType, Record, SCHEMA_VERSION, time};

/// Columns that tell how a row came to be where it is, not what the record says; a new row gets its own.
const PROVENANCE: [&str; 6] =
    ["source_label", "source_kind", "source_shard", "source_position", "arrival_time", "source_message"];

/// The note of what became of the row when it was archived; as little a part of what the record says.
const CONFLICT_NOTE: &str = "dedupe_conflict";

/// The record of a canonical row; `None` where the object is no such row, or one that was tampered with: then the
/// ordinary rules apply.
pub(super) fn read<'a>(json: &'a str, members: &Members<'a>) -> Option<Record<'a>> {
    let mut row = Row { columns: last_of_each(members.list.clone()), repeats: members.may_repeat };
    if time::integer(row.take("schema_version")?).map(i32::try_from) != Some(Ok(SCHEMA_VERSION)) {
        return None;
    }
    let details_source = details_source(&row.string("details_source")??)?;
    let details = match row.take("details")? {
        "null" => None,
        text => Some(one_line(text, row.repeats)),
    };
    if details.is_none() != (details_source == DetailsSource::None) {
        return None;
    }
    for column in PROVENANCE {
        row.take(column);
    }
    let record = Record {
        log_id: row.string("log_id")?,
        version: time::integer(row.take("version")?)?.try_into().ok()?,
        emit_time: row.string("emit_time")?.map(|text| time::parse(&text)).transpose().ok()?,
        operation: row.string("operation")?,
        operation_canonical: row.string("operation_canonical")?,
        resource_category: row.string("resource_category")??,
        action: row.string("action")??,
        status: row.string("status")?,
        outcome: outcome(&row.string("outcome")??)?,
        principal_type: match row.string("principal_type")? {
            None => None,
            Some(text) => Some(principal_type(&text)?),
        },
        principal_id: row.string("principal_id")?,
        principal_name: row.string("principal_name")?,
        principal_api_key_id: row.string("principal_api_key_id")?,
        actor_email: row.string("actor_email")?,
        x_forwarded_for: row.string("x_forwarded_for")?,
        ip_chain: row.strings("ip_chain")?,
        client_ip: row.string("client_ip")?,
        async_operation_id: row.string("async_operation_id")?,
        namespace: row.string("namespace")?,
        details,
        details_source,
        deprecated: row.object("deprecated")?,
        notes: row.strings("notes")?.into_iter().filter(|note| *note != CONFLICT_NOTE).collect(),
        raw: match row.take("raw") {
            None | Some("null") => Cow::Borrowed(json),
            Some(raw) => strings::string_of(raw).unwrap_or(Cow::Borrowed(raw)),
        },
        unknown_fields: row.object("unknown_fields")?,
    };
    Some(row.with_unknown_columns(record))
}

/// The columns that have not been read yet.
struct Row<'a> {
    columns: Vec<scan::Member<'a>>,
    repeats: bool,
}

impl<'a> Row<'a> {
    fn take(&mut self, column: &str) -> Option<&'a str> {
        let place = self.columns.iter().position(|member| member.key == column)?;
        Some(self.columns.remove(place).value)
    }

    /// `Some(None)` for null; `None` where there is no such column or it is no string.
    #[expect(clippy::option_option, reason = "with `?` in front of each column nothing reads more plainly")]
    fn string(&mut self, column: &str) -> Option<Option<Cow<'a, str>>> {
        match self.take(column)? {
            "null" => Some(None),
            value => strings::string_of(value).map(Some),
        }
    }

    fn strings(&mut self, column: &str) -> Option<Vec<Cow<'a, str>>> {
        scan::elements_of(self.take(column)?)?.into_iter().map(strings::string_of).collect()
    }

    fn object(&mut self, column: &str) -> Option<Cow<'a, str>> {
        let value = self.take(column)?;
        value.starts_with('{').then(|| one_line(value, self.repeats))
    }

    /// Columns that others have added are unknown fields of the record.
    fn with_unknown_columns(self, mut record: Record<'a>) -> Record<'a> {
        let added: Vec<_> = self.columns.iter().filter(|member| !is_artefact(member.key)).copied().collect();
        if !added.is_empty() {
            let unknown = record.unknown_fields.into_owned();
            let members = scan::members_of(&unknown).unwrap_or_default().into_iter().chain(added);
            let members = last_of_each(members.collect());
            let merged = object_of(members.iter().map(|member| (member.key, member.value)), self.repeats);
            record.unknown_fields = Cow::Owned(merged.into_owned());
        }
        record
    }
}

fn details_source(text: &str) -> Option<DetailsSource> {
    [DetailsSource::None, DetailsSource::RawDetails, DetailsSource::Details]
        .into_iter()
        .find(|word| word.as_str() == text)
}

fn outcome(text: &str) -> Option<Outcome> {
    [Outcome::Unknown, Outcome::Success, Outcome::Failure].into_iter().find(|word| word.as_str() == text)
}

fn principal_type(text: &str) -> Option<PrincipalType> {
    [PrincipalType::User, PrincipalType::ServiceAccount, PrincipalType::Other]
        .into_iter()
        .find(|word| word.as_str() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Rules, normalise};
    use super::*;

    /// A row in the order of RECORDS.md's table, as the archive's NDJSON has it.
    fn row(record: &Record<'_>, raw: bool) -> String {
        let text = |value: &dyn erased::Json| value.json();
        let provenance =
            [("source_label", "prod"), ("source_kind", "kinesis"), ("source_shard", "s"), ("source_position", "1/0/0")];
        let mut columns = vec![
            ("schema_version", "1".to_owned()),
            ("log_id", text(&record.log_id)),
            ("version", record.version.to_string()),
            ("emit_time", text(&record.emit_time.map(|time| Cow::from(time::format(time))))),
            ("operation", text(&record.operation)),
            ("operation_canonical", text(&record.operation_canonical)),
            ("resource_category", text(&record.resource_category)),
            ("action", text(&record.action)),
            ("status", text(&record.status)),
            ("outcome", text(&Cow::from(record.outcome.as_str()))),
            ("principal_type", text(&record.principal_type.map(|kind| Cow::from(kind.as_str())))),
            ("principal_id", text(&record.principal_id)),
            ("principal_name", text(&record.principal_name)),
            ("principal_api_key_id", text(&record.principal_api_key_id)),
            ("actor_email", text(&record.actor_email)),
            ("x_forwarded_for", text(&record.x_forwarded_for)),
            ("ip_chain", text(&record.ip_chain)),
            ("client_ip", text(&record.client_ip)),
            ("async_operation_id", text(&record.async_operation_id)),
            ("namespace", text(&record.namespace)),
            ("details", record.details.as_deref().unwrap_or("null").to_owned()),
            ("details_source", text(&Cow::from(record.details_source.as_str()))),
            ("deprecated", record.deprecated.to_string()),
            ("unknown_fields", record.unknown_fields.to_string()),
            ("notes", text(&record.notes)),
        ];
        columns.extend(provenance.map(|(name, value)| (name, format!("\"{value}\""))));
        columns.push(("arrival_time", "\"2026-11-04T01:02:03Z\"".to_owned()));
        columns.push(("source_message", r#"{"message_id":"1"}"#.to_owned()));
        if raw {
            columns.push(("raw", text(&record.raw)));
        }
        let columns: Vec<_> = columns.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", columns.join(","))
    }

    /// What a column may hold, as JSON.
    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }

        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }

    fn assert_nothing_changes(json: &str) {
        let rules = Rules { trusted_proxies: vec!["198.51.100.0/24".parse().unwrap()], max_payload_bytes: 1 << 20 };
        let Ok(record) = normalise(json, &rules) else { return };
        let line = row(&record, true);
        assert_eq!(normalise(&line, &Rules::default()).unwrap(), record, "{line}");
        let line = row(&record, false);
        assert_eq!(normalise(&line, &rules).unwrap(), Record { raw: Cow::Borrowed(&line), ..record }, "{line}");
    }

    #[test]
    fn every_golden_record_is_read_back_as_it_was_written() {
        for json in include_str!("../../tests/golden/cases.ndjson").lines() {
            assert_nothing_changes(json);
        }
        assert_nothing_changes(
            r#"{"log_id":"x","details":{"a":"\u00e9\n"},"status":"","x":null,"x_forwarded_for":"?,::ffff:1.2.3.4"}"#,
        );
    }

    fn line() -> String {
        let record = normalise(r#"{"log_id":"x","operation":"UserLogin","more":1}"#, &Rules::default()).unwrap();
        row(&record, false)
    }

    #[test]
    fn a_row_that_says_what_no_row_says_goes_by_the_ordinary_rules() {
        for (from, to) in [
            ("\"schema_version\":1", "\"schema_version\":2"),
            ("\"schema_version\":1", "\"schema_version\":\"one\""),
            ("\"outcome\":\"unknown\"", "\"outcome\":\"maybe\""),
            ("\"notes\":[", "\"notes\":[5,"),
            ("\"details\":null", "\"details\":{}"),
            ("\"details_source\":\"none\"", "\"details_source\":null"),
            ("\"ip_chain\":[]", "\"ip_chain\":null"),
            ("\"deprecated\":{}", "\"deprecated\":[]"),
            ("\"principal_type\":null", "\"principal_type\":\"admin\""),
            ("\"log_id\":\"x\",", ""),
        ] {
            let line = line().replacen(from, to, 1);
            let record = normalise(&line, &Rules::default()).unwrap();
            assert!(record.unknown_fields.contains("resource_category"), "{line}");
        }
        let line = line().replace("\"version\":0", "\"version\":0.5");
        assert!(normalise(&line, &Rules::default()).is_err());
    }

    #[test]
    fn a_conflict_of_another_archive_is_none_of_this_one() {
        let record = normalise(r#"{"log_id":"x","operation":"UserLogin"}"#, &Rules::default()).unwrap();
        let line = row(&record, false).replace("\"notes\":[", "\"notes\":[\"dedupe_conflict\",");
        let line = line.replace(",]", "]");
        assert_eq!(normalise(&line, &Rules::default()).unwrap().notes, record.notes);
    }

    #[test]
    fn columns_added_by_others_are_unknown_fields() {
        let line = line().replace("\"action\"", "\"team\":{\"a\":1},\"action\"");
        let record = normalise(&line, &Rules::default()).unwrap();
        assert_eq!((&*record.unknown_fields, &*record.action), (r#"{"more":1,"team":{"a":1}}"#, "login"));
        assert_nothing_changes(&line);
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                json!(null),
                json!(""),
                json!("OK"),
                json!("LOG_LEVEL_ERROR"),
                json!("2026-11-04T01:02:03.004Z"),
                json!("user"),
                json!(5),
                json!(2.5),
                json!(true),
                json!("{\"a\":1}"),
                json!("192.0.2.1, ?"),
                json!("é\n\"\\"),
                json!("UserLogin"),
                json!({"fields": {"a": {"stringValue": "x"}}}),
                json!({"seconds": 5}),
                json!({"namespace": "n"}),
            ]),
            "\\PC{0,6}".prop_map(|text| json!(text)),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            let key =
                prop::sample::select(vec!["type", "id", "name", "api_key_id", "apiKeyId", "fields", "namespace", "a"]);
            prop::collection::hash_map(key, inner, 0..4).prop_map(|map| json!(map))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn normalising_again_changes_nothing(
            members in prop::collection::vec((prop::sample::select(vec![
                "log_id", "logId", "version", "emit_time", "emitTime", "operation", "status", "principal", "x_forwarded_for",
                "xForwardedFor", "async_operation_id", "raw_details", "rawDetails", "user_email", "level", "caller_ip_address",
                "details", "category", "request_id", "$typeName", "new", "schema_version", "notes", "raw", "arrival_time",
            ]), value(), prop::sample::select(vec!["", " ", "\n"])), 0..9),
        ) {
            let members: Vec<_> = members.iter().map(|(key, value, gap)| format!("\"{key}\":{gap}{value}")).collect();
            assert_nothing_changes(&format!("{{{}}}", members.join(",")));
        }

        #[test]
        fn no_row_however_changed_panics(at in any::<prop::sample::Index>(), length in 0..9_usize, with in "[\\[\\]{}\",:0-9a]{0,4}") {
            let mut line = line();
            let at = at.index(line.len());
            line.replace_range(at..(at + length).min(line.len()), &with);
            let _ = normalise(&line, &Rules::default());
        }
    }
}
