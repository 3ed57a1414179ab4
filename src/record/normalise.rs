//! One JSON value becomes one canonical record: RECORDS.md's table and its rules N1 to N9 and N13.

use std::borrow::Cow;

use jiff::Timestamp;

use super::details::{self, Content};
use super::fields::{Field, Fields, PrincipalFields};
use super::notes::{Note, Notes};
use super::scan::{self, Members};
use super::semantic::SameJson;
use super::{DetailsSource, Outcome, PrincipalType, Record, RejectReason, Rules};
use super::{canonical, client_ip, operations, time};

/// Makes the canonical record of a JSON value, or says why there is none (N6).
///
/// A row of the archive's own NDJSON is taken as it is.
pub fn normalise<'a>(json: &'a str, rules: &Rules) -> Result<Record<'a>, RejectReason> {
    let json = json.trim_matches([' ', '\n', '\r', '\t']);
    let mut members = Members::default();
    match scan::object(json, 0, &mut members) {
        Ok(end) if end == json.len() => normalise_object(json, &members, rules),
        _ if scan::is_value(json) => Err(RejectReason::NotAnObject),
        _ => Err(RejectReason::InvalidJson),
    }
}

/// As [`normalise`], for an object whose members are known.
pub(super) fn normalise_object<'a>(
    json: &'a str,
    members: &Members<'a>,
    rules: &Rules,
) -> Result<Record<'a>, RejectReason> {
    let mut notes = Notes::default();
    let fields = Fields::collect(members, &mut notes);
    if fields.unknown.iter().any(|member| member.key == "schema_version")
        && let Some(row) = canonical::read(json, members)
    {
        return Ok(row);
    }
    if !fields.any_known {
        return Err(RejectReason::NotAnAuditRecord);
    }
    let emit_time = emit_time(&fields, &mut notes)?;
    let version = version(&fields)?;
    Ok(record(json, &fields, emit_time, version, notes, rules))
}

fn record<'a>(
    json: &'a str,
    fields: &Fields<'a>,
    emit_time: Option<Timestamp>,
    version: i32,
    mut notes: Notes,
    rules: &Rules,
) -> Record<'a> {
    let notes_ref = &mut notes;
    let log_id = fields.string(Field::LogId, notes_ref);
    if log_id.is_none() {
        notes_ref.take(Note::LogIdMissing);
    }
    let operation = Operation::of(fields, notes_ref);
    let (status, outcome) = outcome(fields, notes_ref);
    let principal = Principal::of(fields, notes_ref);
    let x_forwarded_for = x_forwarded_for(fields, notes_ref);
    let (ip_chain, client_ip) = addresses(x_forwarded_for.as_ref(), rules, notes_ref);
    let async_operation_id = async_operation_id(fields, notes_ref);
    let details = Details::of(fields, notes_ref);
    Record {
        log_id,
        version,
        emit_time,
        operation: operation.verbatim,
        operation_canonical: operation.canonical,
        resource_category: Cow::Borrowed(operation.category),
        action: Cow::Borrowed(operation.action),
        status,
        outcome,
        actor_email: principal.email(),
        principal_type: principal.kind,
        principal_id: principal.id,
        principal_name: principal.name,
        principal_api_key_id: principal.api_key_id,
        x_forwarded_for,
        ip_chain,
        client_ip,
        async_operation_id,
        namespace: details.namespace,
        details: details.text,
        details_source: details.source,
        deprecated: deprecated(fields),
        unknown_fields: unknown_fields(fields),
        notes: notes.into_list(),
        raw: Cow::Borrowed(json),
    }
}

fn emit_time(fields: &Fields<'_>, notes: &mut Notes) -> Result<Option<Timestamp>, RejectReason> {
    let (snake, camel) = fields.get(Field::EmitTime).both();
    let Some(text) = snake.or(camel) else {
        notes.take(Note::EmitTimeMissing);
        return Ok(None);
    };
    let time = time::read(text).map_err(|_| RejectReason::EmitTimeInvalid)?;
    if snake.is_some() && camel.is_some_and(|camel| time::read(camel) != Ok(time)) {
        notes.take_of(Note::SpellingConflict, Field::EmitTime.name());
    }
    Ok(Some(time))
}

fn version(fields: &Fields<'_>) -> Result<i32, RejectReason> {
    let Some(text) = fields.get(Field::Version).text() else { return Ok(0) };
    time::integer(text).and_then(|version| version.try_into().ok()).ok_or(RejectReason::VersionInvalid)
}

/// What was done.
struct Operation<'a> {
    verbatim: Option<Cow<'a, str>>,
    canonical: Option<Cow<'a, str>>,
    category: &'static str,
    action: &'static str,
}

impl<'a> Operation<'a> {
    fn of(fields: &Fields<'a>, notes: &mut Notes) -> Self {
        let verbatim = fields.string(Field::Operation, notes);
        let Some(name) = &verbatim else {
            notes.take(Note::OperationMissing);
            return Self { verbatim, canonical: None, category: operations::UNKNOWN, action: operations::action("") };
        };
        if let Some(listed) = operations::look_up(name) {
            let canonical = Some(Cow::Borrowed(listed.canonical));
            return Self { verbatim, canonical, category: listed.category, action: listed.action };
        }
        notes.take(Note::OperationUnknown);
        let action = operations::action(name);
        Self { canonical: verbatim.clone(), verbatim, category: operations::UNKNOWN, action }
    }
}

fn outcome<'a>(fields: &Fields<'a>, notes: &mut Notes) -> (Option<Cow<'a, str>>, Outcome) {
    let status = fields.string(Field::Status, notes);
    let by_level = fields.string(Field::Level, notes).map_or(Outcome::Unknown, |level| outcome_of_level(&level));
    let outcome = match &status {
        Some(status) if status.eq_ignore_ascii_case("OK") => Outcome::Success,
        Some(_) => Outcome::Failure,
        None => by_level,
    };
    if by_level != Outcome::Unknown {
        if status.is_none() {
            notes.take(Note::OutcomeFromLevel);
        } else if by_level != outcome {
            notes.take(Note::ConflictLevel);
        }
    }
    (status, outcome)
}

/// `LOG_LEVEL_INFO` or `INFO`, in any case; a warning tells nothing.
fn outcome_of_level(level: &str) -> Outcome {
    const PREFIX: &str = "LOG_LEVEL_";
    let level = match level.split_at_checked(PREFIX.len()) {
        Some((prefix, level)) if prefix.eq_ignore_ascii_case(PREFIX) => level,
        _ => level,
    };
    let is_one_of = |levels: [&str; 2]| levels.iter().any(|name| level.eq_ignore_ascii_case(name));
    if is_one_of(["INFO", "DEBUG"]) {
        Outcome::Success
    } else if is_one_of(["ERROR", "FATAL"]) {
        Outcome::Failure
    } else {
        Outcome::Unknown
    }
}

/// Who did it.
#[derive(Default)]
struct Principal<'a> {
    kind: Option<PrincipalType>,
    id: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    api_key_id: Option<Cow<'a, str>>,
}

impl<'a> Principal<'a> {
    /// The principal; a user by `user_email` where there is none (N2, N4).
    fn of(fields: &Fields<'a>, notes: &mut Notes) -> Self {
        let read = |value| PrincipalFields::of(value, fields.has_escapes);
        let given = fields.get(Field::Principal).read_one(Field::Principal.name(), notes, read);
        let user_email = fields.string(Field::UserEmail, notes);
        let Some(given) = given.filter(|given| !given.is_empty()) else {
            if user_email.is_none() {
                return Self::default();
            }
            notes.take(Note::PrincipalFromUserEmail);
            return Self { kind: Some(PrincipalType::User), name: user_email, ..Self::default() };
        };
        let mut principal = Self {
            kind: given.kind.string("principal_type", fields.has_escapes, notes).map(|kind| principal_type(&kind)),
            id: given.id.string("principal_id", fields.has_escapes, notes),
            name: given.name.string("principal_name", fields.has_escapes, notes),
            api_key_id: given.api_key_id.string("principal_api_key_id", fields.has_escapes, notes),
        };
        if principal.kind == Some(PrincipalType::Other) {
            notes.take(Note::PrincipalTypeUnknown);
        }
        match (user_email, &principal.name) {
            (Some(_), _) if principal.kind != Some(PrincipalType::User) => notes.take(Note::UserEmailIgnoredNonUser),
            (Some(email), None) => {
                notes.take(Note::PrincipalNameFromUserEmail);
                principal.name = Some(email);
            }
            (Some(email), Some(name)) if email != *name && email.to_lowercase() != name.to_lowercase() => {
                notes.take(Note::ConflictUserEmail);
            }
            (None, _) | (Some(_), Some(_)) => {}
        }
        principal
    }

    fn email(&self) -> Option<Cow<'a, str>> {
        let is_user = self.kind == Some(PrincipalType::User);
        self.name.clone().filter(|name| is_user && name.contains('@'))
    }
}

/// Ignores case, `-`, `_` and spaces.
fn principal_type(text: &str) -> PrincipalType {
    // As nearly all are spelled.
    match text {
        "user" => return PrincipalType::User,
        "service-account" => return PrincipalType::ServiceAccount,
        _ => {}
    }
    let letters = text.chars().filter(|letter| !matches!(letter, '-' | '_' | ' '));
    let is = |name: &str| letters.clone().map(|letter| letter.to_ascii_lowercase()).eq(name.chars());
    if is("user") {
        PrincipalType::User
    } else if is("serviceaccount") {
        PrincipalType::ServiceAccount
    } else {
        PrincipalType::Other
    }
}

fn x_forwarded_for<'a>(fields: &Fields<'a>, notes: &mut Notes) -> Option<Cow<'a, str>> {
    let new = fields.string(Field::XForwardedFor, notes);
    let old = fields.string(Field::CallerIpAddress, notes);
    match (&new, &old) {
        (Some(new), Some(old)) => {
            let packed = |list: &str| list.chars().filter(|character| !character.is_whitespace()).collect::<String>();
            if new != old && packed(new) != packed(old) {
                notes.take(Note::ConflictCallerIpAddress);
            }
        }
        (None, Some(_)) => notes.take(Note::XForwardedForFromCallerIpAddress),
        (_, None) => {}
    }
    new.or(old)
}

type Addresses<'a> = (Vec<Cow<'a, str>>, Option<Cow<'a, str>>);

fn addresses<'a>(list: Option<&Cow<'a, str>>, rules: &Rules, notes: &mut Notes) -> Addresses<'a> {
    let own = |address: Cow<'_, str>| Cow::Owned(address.into_owned());
    let (chain, client, unparseable) = match list {
        None => return Addresses::default(),
        Some(Cow::Borrowed(list)) => {
            let chain = client_ip::read(list, &rules.trusted_proxies);
            (chain.addresses, chain.client, chain.unparseable)
        }
        Some(Cow::Owned(list)) => {
            let chain = client_ip::read(list, &rules.trusted_proxies);
            (chain.addresses.into_iter().map(own).collect(), chain.client.map(own), chain.unparseable)
        }
    };
    if unparseable {
        notes.take(Note::ClientIpUnparseable);
    }
    (chain, client)
}

fn async_operation_id<'a>(fields: &Fields<'a>, notes: &mut Notes) -> Option<Cow<'a, str>> {
    let new = fields.string(Field::AsyncOperationId, notes);
    let old = fields.string(Field::RequestId, notes);
    match (&new, &old) {
        (Some(new), Some(old)) if new != old => notes.take(Note::ConflictRequestId),
        (None, Some(_)) => notes.take(Note::AsyncOperationIdFromRequestId),
        _ => {}
    }
    new.or(old)
}

/// What was asked for.
struct Details<'a> {
    text: Option<Cow<'a, str>>,
    source: DetailsSource,
    namespace: Option<Cow<'a, str>>,
}

impl<'a> Details<'a> {
    fn of(fields: &Fields<'a>, notes: &mut Notes) -> Self {
        let object_or_string = |value: &'a str| value.starts_with(['{', '"']).then_some(SameJson(value));
        let object = |value: &'a str| value.starts_with('{').then_some(value);
        let raw = fields.get(Field::RawDetails).read(Field::RawDetails.name(), notes, object_or_string);
        let raw = raw.and_then(|raw| details::unwrap_raw(raw.0, fields.repeats, notes));
        let old = fields.get(Field::Details).read_one(Field::Details.name(), notes, object);
        let namespace = raw.as_ref().and_then(namespace_of).or_else(|| details::namespace(old?, fields.repeats));
        let (text, source) = match (raw, old) {
            (Some(raw), _) => (Some(raw.text), DetailsSource::RawDetails),
            (None, Some(old)) => (Some(details::one_line(old, fields.repeats)), DetailsSource::Details),
            (None, None) => (None, DetailsSource::None),
        };
        Self { text, source, namespace }
    }
}

fn namespace_of<'a>(content: &Content<'a>) -> Option<Cow<'a, str>> {
    match &content.text {
        Cow::Borrowed(text) => details::namespace(text, content.repeats),
        Cow::Owned(text) => {
            details::namespace(text, content.repeats).map(|namespace| Cow::Owned(namespace.into_owned()))
        }
    }
}

/// Every deprecated field that is present, verbatim, under its `snake_case` name.
fn deprecated<'a>(fields: &Fields<'a>) -> Cow<'a, str> {
    let present = Field::DEPRECATED.iter().filter_map(|field| Some((field.name(), fields.get(*field).text()?)));
    object_of(present, fields.repeats)
}

/// Every top-level key that is not known, null-valued ones too.
fn unknown_fields<'a>(fields: &Fields<'a>) -> Cow<'a, str> {
    object_of(fields.unknown.iter().map(|member| (member.key, member.value)), fields.repeats)
}

/// The JSON of an object with these members.
pub(super) fn object_of<'a>(members: impl Iterator<Item = (&'a str, &'a str)>, repeats: bool) -> Cow<'a, str> {
    let mut out = String::new();
    for (place, (key, value)) in members.enumerate() {
        if place == 0 {
            // Holds what most records have, at once.
            out.reserve(256);
            out.push('{');
        }
        details::push_key(&mut out, place, key);
        out.push_str(&details::one_line(value, repeats));
    }
    if out.is_empty() {
        return Cow::Borrowed("{}");
    }
    out.push('}');
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules() -> Rules {
        Rules { trusted_proxies: vec!["198.51.100.0/24".parse().unwrap()], max_payload_bytes: 1 << 20 }
    }

    const TIME: &str = "2026-11-04T01:02:03Z";

    /// A record that gives rise to no note, with these members replaced or added.
    fn with(changes: &Value) -> String {
        let mut record = json!({
            "emit_time": TIME, "operation": "UpdateNamespace", "status": "OK", "version": 2, "log_id": "id",
            "principal": {"type": "user", "id": "u1", "name": "Alice@example.com"},
        });
        for (key, value) in changes.as_object().unwrap() {
            record[key] = value.clone();
        }
        record.to_string()
    }

    fn check(json: &str, test: impl FnOnce(&Record<'_>)) {
        test(&normalise(json, &rules()).unwrap_or_else(|reason| panic!("{reason:?}: {json}")));
    }

    fn notes_of(changes: &Value) -> Vec<String> {
        let json = with(changes);
        normalise(&json, &rules()).unwrap().notes.iter().map(ToString::to_string).collect()
    }

    fn reason(json: &str) -> &'static str {
        normalise(json, &rules()).expect_err(json).as_str()
    }

    #[test]
    fn a_plain_record_gives_rise_to_no_note() {
        assert_eq!(notes_of(&json!({})), [""; 0]);
    }

    #[test]
    fn n1_null_empty_and_missing_are_the_same() {
        for nothing in [json!(null), json!("")] {
            let mut changes = json!({});
            for key in [
                "log_id",
                "version",
                "emit_time",
                "operation",
                "status",
                "principal",
                "x_forwarded_for",
                "async_operation_id",
                "raw_details",
                "user_email",
                "level",
                "caller_ip_address",
                "details",
                "category",
                "request_id",
            ] {
                changes[key] = nothing.clone();
            }
            check(&with(&changes), |record| {
                let missing = normalise(r#"{"version":0}"#, &rules()).unwrap();
                assert_eq!(
                    Record { raw: Cow::Borrowed(""), ..record.clone() },
                    Record { raw: Cow::Borrowed(""), ..missing }
                );
                assert_eq!(record.notes, ["emit_time_missing", "operation_missing", "log_id_missing"]);
                assert_eq!(
                    (&*record.deprecated, &*record.resource_category, &*record.action),
                    ("{}", "unknown", "other")
                );
            });
        }
        check(&with(&json!({"raw_details": {}, "details": {"a": 1}})), |record| {
            assert_eq!((record.details.as_deref(), record.details_source), (Some("{}"), DetailsSource::RawDetails));
        });
        check(&with(&json!({"principal": {"type": "", "id": null}, "user_email": "a@b"})), |record| {
            assert_eq!(record.notes, ["principal_from_user_email"], "a principal that says nothing is none");
        });
    }

    #[test]
    fn n2_a_new_field_beats_its_deprecated_one_and_only_a_real_difference_is_a_conflict() {
        for (changes, notes) in [
            (json!({"level": "LOG_LEVEL_ERROR"}), vec!["conflict:level"]),
            (json!({"level": "log_level_info"}), vec![]),
            (json!({"level": "WARNING", "status": "Denied"}), vec![]),
            (json!({"level": "FATAL", "status": "Denied"}), vec![]),
            (json!({"level": "DEBUG", "status": "Denied"}), vec!["conflict:level"]),
            (json!({"level": "INFO", "status": "ok"}), vec![]),
            (json!({"user_email": "aLICE@EXAMPLE.com"}), vec![]),
            (json!({"user_email": "bob@example.com"}), vec!["conflict:user_email"]),
            (json!({"x_forwarded_for": "192.0.2.1, 192.0.2.2", "caller_ip_address": " 192.0.2.1,192.0.2.2"}), vec![]),
            (
                json!({"x_forwarded_for": "192.0.2.1", "caller_ip_address": "192.0.2.2"}),
                vec!["conflict:caller_ip_address"],
            ),
            (json!({"caller_ip_address": "192.0.2.2"}), vec!["x_forwarded_for_from_caller_ip_address"]),
            (json!({"async_operation_id": "x", "request_id": "x"}), vec![]),
            (json!({"async_operation_id": "x", "request_id": "y"}), vec!["conflict:request_id"]),
            (json!({"requestId": "y"}), vec!["async_operation_id_from_request_id"]),
            (json!({"raw_details": {"a": 1}, "details": {"b": 1}}), vec![]),
        ] {
            assert_eq!(notes_of(&changes), notes, "{changes}");
        }
        check(
            &with(
                &json!({"async_operation_id": "x", "requestId": "y", "category": "C", "details": {"b": 1}, "level": ""}),
            ),
            |record| {
                assert_eq!(record.async_operation_id.as_deref(), Some("x"));
                assert_eq!(record.deprecated, r#"{"details":{"b":1},"category":"C","request_id":"y"}"#);
            },
        );
    }

    #[test]
    fn n3_snake_case_beats_camel_case_unless_it_is_empty() {
        check(&with(&json!({"log_id": "a", "logId": "b"})), |record| {
            assert_eq!(
                (record.log_id.as_deref(), &*record.notes),
                (Some("a"), &[Cow::from("spelling_conflict:log_id")][..])
            );
        });
        for empty in [json!(null), json!("")] {
            check(&with(&json!({"log_id": empty, "logId": "b"})), |record| {
                assert_eq!((record.log_id.as_deref(), record.notes.len()), (Some("b"), 0));
            });
        }
        for (changes, notes) in [
            (json!({"emitTime": "2026-11-04T02:02:03+01:00"}), vec![]),
            (json!({"emitTime": {"seconds": "1793754123"}}), vec![]),
            (json!({"emitTime": "never"}), vec!["spelling_conflict:emit_time"]),
            (json!({"raw_details": {"a": 3, "b": 1}, "rawDetails": {"b": 1.0, "a": 3}}), vec![]),
            (json!({"raw_details": {"a": 3}, "rawDetails": {"a": 4}}), vec!["spelling_conflict:raw_details"]),
            (
                json!({"principal": {"type": "user", "api_key_id": "a", "apiKeyId": "b"}}),
                vec!["spelling_conflict:principal_api_key_id"],
            ),
            (json!({"principal": {"type": "user", "api_key_id": "", "apiKeyId": "b"}}), vec![]),
            (
                json!({"x_forwarded_for": "192.0.2.1", "xForwardedFor": "192.0.2.2"}),
                vec!["spelling_conflict:x_forwarded_for"],
            ),
            (json!({"async_operation_id": "a", "asyncOperationId": "a"}), vec![]),
        ] {
            assert_eq!(notes_of(&changes), notes, "{changes}");
        }
    }

    #[test]
    fn n4_a_users_address_beside_a_principal_that_is_no_user_is_ignored() {
        for kind in [json!("service-account"), json!("system"), json!(null)] {
            check(&with(&json!({"user_email": "a@b", "principal": {"type": kind, "id": "x"}})), |record| {
                assert_eq!((record.principal_name.as_deref(), record.actor_email.as_deref()), (None, None));
                assert!(record.notes.contains(&"user_email_ignored_non_user".into()));
                assert_eq!(record.deprecated, r#"{"user_email":"a@b"}"#);
            });
        }
        check(&with(&json!({"user_email": "a@b", "principal": {"type": "USER"}})), |record| {
            assert_eq!((record.principal_name.as_deref(), record.actor_email.as_deref()), (Some("a@b"), Some("a@b")));
            assert_eq!(record.notes, ["principal_name_from_user_email"]);
        });
    }

    #[test]
    fn n5_a_wrong_type_is_null_and_noted() {
        for field in [
            "log_id",
            "operation",
            "status",
            "x_forwarded_for",
            "async_operation_id",
            "user_email",
            "level",
            "caller_ip_address",
            "request_id",
            "principal",
            "raw_details",
            "details",
        ] {
            for wrong in [json!(5), json!(false), json!(["x"])] {
                let notes = notes_of(&json!({field: wrong}));
                assert!(notes.contains(&format!("type_mismatch:{field}")), "{field} {wrong}: {notes:?}");
            }
        }
        check(&with(&json!({"principal": {"type": "user", "id": 5, "name": {}, "apiKeyId": []}})), |record| {
            let expected = ["principal_id", "principal_name", "principal_api_key_id"]
                .map(|field| format!("type_mismatch:{field}"));
            assert_eq!(record.notes, expected);
        });
        check(&with(&json!({"log_id": 5, "logId": "b", "details": "text"})), |record| {
            assert_eq!(record.log_id.as_deref(), Some("b"), "null does not shadow");
            assert_eq!((record.details.as_deref(), &*record.deprecated), (None, r#"{"details":"text"}"#));
            assert_eq!(record.notes, ["type_mismatch:log_id", "type_mismatch:details"]);
        });
    }

    #[test]
    fn n6_only_four_things_are_rejected() {
        for json in ["[]", "\"x\"", "5", "null"] {
            assert_eq!(reason(json), "not_an_object");
        }
        for json in ["{}", r#"{"hello":"world"}"#, r#"{"$typeName":"x"}"#, r#"{"logs":[]}"#, r#"{"schema_version":1}"#]
        {
            assert_eq!(reason(json), "not_an_audit_record");
        }
        for time in [json!(1_793_577_600), json!("yesterday"), json!(true), json!({}), json!([])] {
            assert_eq!(reason(&with(&json!({"emit_time": time}))), "emit_time_invalid", "{time}");
        }
        for version in
            [json!("x"), json!(2.5), json!("2.0"), json!(true), json!({}), json!(2_147_483_648_u32), json!("+1")]
        {
            assert_eq!(reason(&with(&json!({"version": version}))), "version_invalid", "{version}");
        }
        for (version, expected) in
            [(json!(2.0), 2), (json!("7"), 7), (json!(-1), -1), (json!(2_147_483_647), i32::MAX), (json!(""), 0)]
        {
            check(&with(&json!({"version": version})), |record| assert_eq!(record.version, expected));
        }
        check(r#"{"operation":null}"#, |record| assert_eq!(record.notes.len(), 3, "a known key is enough"));
        assert_eq!(reason("{\"operation\":"), "invalid_json");
    }

    #[test]
    fn outcomes_come_from_the_status_else_from_the_level() {
        for (status, level, outcome, notes) in [
            (json!("oK"), json!(null), Outcome::Success, 0),
            (json!("OK "), json!(null), Outcome::Failure, 0),
            (json!(null), json!("LOG_LEVEL_DEBUG"), Outcome::Success, 1),
            (json!(null), json!("fatal"), Outcome::Failure, 1),
            (json!(null), json!("LOG_LEVEL_WARNING"), Outcome::Unknown, 0),
            (json!(""), json!(null), Outcome::Unknown, 0),
        ] {
            check(&with(&json!({"status": status, "level": level})), |record| {
                assert_eq!((record.outcome, record.notes.len()), (outcome, notes), "{status} {level}");
            });
        }
    }

    #[test]
    fn principal_types_ignore_case_and_punctuation() {
        for (text, expected) in [
            ("user", PrincipalType::User),
            ("U-S_E R", PrincipalType::User),
            ("Service Account", PrincipalType::ServiceAccount),
            ("serviceaccount", PrincipalType::ServiceAccount),
            ("SERVICE_ACCOUNT", PrincipalType::ServiceAccount),
            ("users", PrincipalType::Other),
            ("-", PrincipalType::Other),
        ] {
            check(&with(&json!({"principal": {"type": text, "name": "x@y"}})), |record| {
                assert_eq!(record.principal_type, Some(expected), "{text}");
                assert_eq!(record.notes.contains(&"principal_type_unknown".into()), expected == PrincipalType::Other);
                assert_eq!(record.actor_email.is_some(), expected == PrincipalType::User);
            });
        }
    }

    #[test]
    fn an_address_that_is_none_is_noted_where_it_hides_the_client() {
        assert_eq!(notes_of(&json!({"x_forwarded_for": "192.0.2.1, unknown"})), ["client_ip_unparseable"]);
        check(&with(&json!({"x_forwarded_for": "\u{131}, 192.0.2.1:80, 198.51.100.9"})), |record| {
            assert_eq!(record.ip_chain, ["\u{131}", "192.0.2.1", "198.51.100.9"]);
            assert_eq!((record.client_ip.as_deref(), record.notes.len()), (Some("192.0.2.1"), 0));
        });
    }

    fn details(raw_details: &Value) -> (String, Vec<String>) {
        let json = with(&json!({"raw_details": raw_details}));
        let record = normalise(&json, &rules()).unwrap();
        let notes = record.notes.iter().map(ToString::to_string).collect();
        (record.details.unwrap_or_default().into_owned(), notes)
    }

    #[test]
    fn n8_a_string_is_parsed_if_it_is_json_else_kept() {
        for (text, expected) in [
            ("{\"a\" : 1}", "{\"a\" : 1}"),
            (" [1] ", "[1]"),
            ("{\"a\":\n1}", "{\"a\":1}"),
            ("text", "\"text\""),
            ("5", "5"),
            ("{\"a\":1} x", "\"{\\\"a\\\":1} x\""),
            ("null", ""),
            ("two\nlines", "\"two\\nlines\""),
        ] {
            assert_eq!(
                details(&json!(text)),
                (expected.to_owned(), vec!["raw_details_was_string".to_owned()]),
                "{text}"
            );
        }
        let (text, notes) = details(&json!(r#"{"fields":{"a":{"numberValue":1}}}"#));
        assert_eq!(
            (&*text, notes),
            (r#"{"a":1}"#, vec!["raw_details_was_string".into(), "raw_details_was_struct".into()])
        );
    }

    #[test]
    fn n8_a_struct_is_unwrapped_on_an_exact_match_only() {
        for (wrapped, expected) in [
            (json!({"fields": {}}), json!({})),
            (
                json!({"fields": {"a": {"nullValue": "NULL_VALUE"}, "b": {"bool_value": true}}}),
                json!({"a": null, "b": true}),
            ),
            (
                json!({"fields": {"a": {"listValue": {"values": [{"stringValue": ""}, {"listValue": {}}]}}}}),
                json!({"a": ["", []]}),
            ),
            (
                json!({"fields": {"a": {"structValue": {"fields": {"b": {"numberValue": 2.50}}}}}}),
                json!({"a": {"b": 2.5}}),
            ),
            (json!({"fields": [{"value": {"stringValue": "x"}, "key": "a"}]}), json!({"a": "x"})),
        ] {
            let (text, notes) = details(&wrapped);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
            assert_eq!(notes, ["raw_details_was_struct"], "{wrapped}");
        }
        for genuine in [
            json!({"fields": ["name", "email"]}),
            json!({"fields": {"a": 1}}),
            json!({"fields": {"a": {"stringValue": 1}}}),
            json!({"fields": {"a": {"stringValue": "x", "boolValue": true}}}),
            json!({"fields": {"a": {}}}),
            json!({"fields": {"a": {"numberValue": "1"}}}),
            json!({"fields": {"a": {"structValue": {"a": 1}}}}),
            json!({"fields": [{"key": "a", "value": {"stringValue": "x"}, "more": 1}]}),
            json!({"fields": {"a": {"stringValue": "x"}}, "more": 1}),
            json!({"fields": "x"}),
        ] {
            let (text, notes) = details(&genuine);
            assert_eq!((serde_json::from_str::<Value>(&text).unwrap(), notes.len()), (genuine, 0));
        }
    }

    #[test]
    fn the_namespace_is_a_string_at_the_top_of_the_details() {
        for (changes, expected) in [
            (json!({"raw_details": {"namespace": "a"}, "details": {"namespace": "b"}}), Some("a")),
            (json!({"raw_details": {"x": {"namespace": "a"}}, "details": {"namespace": "b"}}), Some("b")),
            (json!({"raw_details": {"namespace": 5}, "details": {"namespace": ""}}), None),
            (json!({"raw_details": "{\"namespace\":\"a\\u0062\"}"}), Some("ab")),
            (json!({"raw_details": {"fields": {"namespace": {"stringValue": "a"}}}}), Some("a")),
        ] {
            check(&with(&changes), |record| assert_eq!(record.namespace.as_deref(), expected, "{changes}"));
        }
    }

    #[test]
    fn n9_artefacts_are_dropped_from_the_record_its_timestamp_and_its_principal_only() {
        let changes = json!({
            "$typeName": "t", "$unknown": [], "principal": {"$typeName": "t", "type": "user", "$unknown": []},
            "emit_time": {"$typeName": "t", "seconds": 0, "$unknown": []}, "raw_details": {"$typeName": "t"},
        });
        check(&with(&changes), |record| {
            assert_eq!((&*record.unknown_fields, record.notes.len()), ("{}", 0));
            assert_eq!(record.details.as_deref(), Some(r#"{"$typeName":"t"}"#));
        });
    }

    #[test]
    fn n13_the_last_of_a_literal_duplicate_key_wins() {
        let json = r#"{"log_id":"a","log_id":"b","x":1,"x":2,"principal":{"type":"bot","type":"user"},"version":1,"version":3,
            "raw_details":{"a":1,"b":{"c":1,"c":2},"a":{"namespace":1},"namespace":"x","namespace":"y"},"emit_time":"x","emit_time":null}"#;
        check(json, |record| {
            assert_eq!((record.log_id.as_deref(), record.version, record.emit_time), (Some("b"), 3, None));
            assert_eq!((record.principal_type, record.namespace.as_deref()), (Some(PrincipalType::User), Some("y")));
            assert_eq!(record.unknown_fields, r#"{"x":2}"#);
            assert_eq!(record.details.as_deref(), Some(r#"{"b":{"c":2},"a":{"namespace":1},"namespace":"y"}"#));
            let repeated: Vec<_> = record.notes.iter().filter_map(|note| note.strip_prefix("duplicate_key:")).collect();
            assert_eq!(repeated, ["log_id", "x", "version", "emit_time", "type", "a", "namespace", "c"]);
            assert_eq!(record.raw, json, "the record's own text stays as it came");
        });
        check(r#"{"log_id":"a","log\u005fid":"b","raw_details":"{\"a\":1,\"a\":2}"}"#, |record| {
            assert_eq!((record.log_id.as_deref(), record.details.as_deref()), (Some("b"), Some(r#"{"a":2}"#)));
            assert!(
                record.notes.ends_with(&["duplicate_key:log_id".into(), "duplicate_key:a".into()]),
                "{:?}",
                record.notes
            );
        });
    }

    #[test]
    fn json_columns_have_no_line_breaks_and_are_verbatim_where_they_can_be() {
        let json = "{\"log_id\":\"x\",\"raw_details\":{\r\n \"a\\\"b \" : [ 1 ] },\"new\":{\n},\"level\" : \"I N\",\"old\":{ \"a\" : 1e2 }}";
        check(json, |record| {
            assert_eq!(record.details.as_deref(), Some(r#"{"a\"b ":[1]}"#));
            assert_eq!(record.unknown_fields, r#"{"new":{},"old":{ "a" : 1e2 }}"#);
            assert_eq!(record.deprecated, r#"{"level":"I N"}"#);
        });
    }

    #[test]
    fn notes_come_in_the_order_of_the_table() {
        let notes = notes_of(&json!({
            "logId": "x", "log_id": "", "status": 5, "level": "ERROR", "operation": "Nothing", "emit_time": "", "request_id": "r",
            "caller_ip_address": "?", "user_email": "a@b", "principal": {"type": "robot"}, "raw_details": "x", "async_operation_id": {},
        }));
        let expected = [
            "type_mismatch:status",
            "type_mismatch:async_operation_id",
            "emit_time_missing",
            "operation_unknown",
            "outcome_from_level",
            "principal_type_unknown",
            "user_email_ignored_non_user",
            "client_ip_unparseable",
            "x_forwarded_for_from_caller_ip_address",
            "async_operation_id_from_request_id",
            "raw_details_was_string",
        ];
        assert_eq!(notes, expected);
    }
}
