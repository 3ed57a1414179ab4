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
        let given = fields.get(Field::Principal).read_one(Field::Principal.name(), notes, PrincipalFields::of);
        let user_email = fields.string(Field::UserEmail, notes);
        let Some(given) = given.filter(|given| !given.is_empty()) else {
            if user_email.is_none() {
                return Self::default();
            }
            notes.take(Note::PrincipalFromUserEmail);
            return Self { kind: Some(PrincipalType::User), name: user_email, ..Self::default() };
        };
        let mut principal = Self {
            kind: given.kind.string("principal_type", notes).map(|kind| principal_type(&kind)),
            id: given.id.string("principal_id", notes),
            name: given.name.string("principal_name", notes),
            api_key_id: given.api_key_id.string("principal_api_key_id", notes),
        };
        if principal.kind == Some(PrincipalType::Other) {
            notes.take(Note::PrincipalTypeUnknown);
        }
        match (user_email, &principal.name) {
            (None, _) => {}
            (Some(_), _) if principal.kind != Some(PrincipalType::User) => notes.take(Note::UserEmailIgnoredNonUser),
            (Some(email), None) => {
                notes.take(Note::PrincipalNameFromUserEmail);
                principal.name = Some(email);
            }
            (Some(email), Some(name)) if email.to_lowercase() != name.to_lowercase() => {
                notes.take(Note::ConflictUserEmail);
            }
            (Some(_), Some(_)) => {}
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
