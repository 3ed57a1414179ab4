//! A row of the archive's own NDJSON, read back as the record that it is: normalising again changes nothing.

use std::borrow::Cow;

use super::details::one_line;
use super::fields::{is_artefact, last_of_each};
use super::normalise::object_of;
use super::scan::{self, Members};
use super::{DetailsSource, Outcome, PrincipalType, Record, SCHEMA_VERSION, time};

/// Columns that tell how a row came to be where it is, not what the record says; a new row gets its own.
const PROVENANCE: [&str; 5] = ["source_label", "source_kind", "source_shard", "source_position", "arrival_time"];

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
        notes: row.strings("notes")?,
        raw: match row.take("raw") {
            None | Some("null") => Cow::Borrowed(json),
            Some(raw) => scan::string_of(raw).unwrap_or(Cow::Borrowed(raw)),
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
            value => scan::string_of(value).map(Some),
        }
    }

    fn strings(&mut self, column: &str) -> Option<Vec<Cow<'a, str>>> {
        scan::elements_of(self.take(column)?)?.into_iter().map(scan::string_of).collect()
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
