//! The fields of a record as they came, under either spelling; nothing is decided here but which text is which field.

use std::borrow::Cow;
use std::collections::HashSet;

use super::notes::{Note, Notes};
use super::scan::{self, Member, Members};
use super::strings;

/// The fields that a record may have at its top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    LogId,
    Version,
    EmitTime,
    Operation,
    Status,
    Principal,
    XForwardedFor,
    AsyncOperationId,
    RawDetails,
    // Deprecated, in the order in which the archive's column lists them.
    UserEmail,
    Level,
    CallerIpAddress,
    Details,
    Category,
    RequestId,
}

impl Field {
    const COUNT: usize = 15;

    /// The deprecated ones.
    pub(super) const DEPRECATED: [Self; 6] =
        [Self::UserEmail, Self::Level, Self::CallerIpAddress, Self::Details, Self::Category, Self::RequestId];

    /// The `snake_case` name.
    #[inline]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LogId => "log_id",
            Self::Version => "version",
            Self::EmitTime => "emit_time",
            Self::Operation => "operation",
            Self::Status => "status",
            Self::Principal => "principal",
            Self::XForwardedFor => "x_forwarded_for",
            Self::AsyncOperationId => "async_operation_id",
            Self::RawDetails => "raw_details",
            Self::UserEmail => "user_email",
            Self::Level => "level",
            Self::CallerIpAddress => "caller_ip_address",
            Self::Details => "details",
            Self::Category => "category",
            Self::RequestId => "request_id",
        }
    }

    /// The field of this name, and whether the name is in `camelCase`.
    #[inline]
    fn of(name: &str) -> Option<(Self, bool)> {
        // As bytes the names become a decision tree; as strings, a comparison each.
        Some(match name.as_bytes() {
            b"log_id" => (Self::LogId, false),
            b"logId" => (Self::LogId, true),
            b"version" => (Self::Version, false),
            b"emit_time" => (Self::EmitTime, false),
            b"emitTime" => (Self::EmitTime, true),
            b"operation" => (Self::Operation, false),
            b"status" => (Self::Status, false),
            b"principal" => (Self::Principal, false),
            b"x_forwarded_for" => (Self::XForwardedFor, false),
            b"xForwardedFor" => (Self::XForwardedFor, true),
            b"async_operation_id" => (Self::AsyncOperationId, false),
            b"asyncOperationId" => (Self::AsyncOperationId, true),
            b"raw_details" => (Self::RawDetails, false),
            b"rawDetails" => (Self::RawDetails, true),
            b"user_email" => (Self::UserEmail, false),
            b"userEmail" => (Self::UserEmail, true),
            b"level" => (Self::Level, false),
            b"caller_ip_address" => (Self::CallerIpAddress, false),
            b"callerIpAddress" => (Self::CallerIpAddress, true),
            b"details" => (Self::Details, false),
            b"category" => (Self::Category, false),
            b"request_id" => (Self::RequestId, false),
            b"requestId" => (Self::RequestId, true),
            _ => return None,
        })
    }
}

/// Whether a record may have a top-level key of this name.
pub(super) fn is_known_key(name: &str) -> bool {
    Field::of(name).is_some()
}

/// N9: what protobuf libraries add, which says nothing.
#[inline]
pub(super) fn is_artefact(name: &str) -> bool {
    matches!(name, "$typeName" | "$unknown")
}

/// N1: null and `""` are missing.
#[inline]
fn present(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !matches!(value.as_bytes(), b"null" | b"\"\""))
}

/// Both spellings of a field: the last value of each key (N13).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spellings<'a> {
    snake: Option<&'a str>,
    camel: Option<&'a str>,
}

impl<'a> Spellings<'a> {
    /// The text that counts (N3), whatever its type.
    #[inline]
    pub(super) fn text(self) -> Option<&'a str> {
        present(self.snake).or(present(self.camel))
    }

    /// The value that counts (N3): of the spellings that `read` accepts, snake before camel. Notes a spelling that is
    /// refused (N5) and two that differ.
    #[inline]
    pub(super) fn read<T: PartialEq>(
        self,
        name: &str,
        notes: &mut Notes,
        read: impl Fn(&'a str) -> Option<T>,
    ) -> Option<T> {
        if self.camel.is_none() {
            return self.read_one(name, notes, read);
        }
        let mut accept = |value: Option<&'a str>| {
            let read = read(present(value)?);
            if read.is_none() {
                notes.take_of(Note::TypeMismatch, name);
            }
            read
        };
        let (snake, camel) = (accept(self.snake), accept(self.camel));
        match (snake, camel) {
            (Some(snake), Some(camel)) => {
                if snake != camel {
                    notes.take_of(Note::SpellingConflict, name);
                }
                Some(snake)
            }
            (snake, camel) => snake.or(camel),
        }
    }

    /// The value of a field that has one spelling only, or whose spellings are not compared.
    #[inline]
    pub(super) fn read_one<T>(
        self,
        name: &str,
        notes: &mut Notes,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let read = read(self.text()?);
        if read.is_none() {
            notes.take_of(Note::TypeMismatch, name);
        }
        read
    }

    /// The string that counts. Its record may have escapes, or has none at all.
    #[inline]
    pub(super) fn string(self, name: &str, has_escapes: bool, notes: &mut Notes) -> Option<Cow<'a, str>> {
        if has_escapes {
            self.read(name, notes, strings::string_of)
        } else {
            self.read(name, notes, strings::inside_of).map(Cow::Borrowed)
        }
    }

    /// Both spellings, where they are present.
    #[inline]
    pub(super) fn both(self) -> (Option<&'a str>, Option<&'a str>) {
        (present(self.snake), present(self.camel))
    }

    #[inline]
    fn set(&mut self, camel: bool, value: &'a str) {
        *(if camel { &mut self.camel } else { &mut self.snake }) = Some(value);
    }
}

/// A record's top-level fields.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    known: [Spellings<'a>; Field::COUNT],
    /// What is not known, in order; a key that came again stands where it came last.
    pub(super) unknown: Vec<Member<'a>>,
    /// Whether there was a known key at all, with whatever value.
    pub(super) any_known: bool,
    /// Whether some object of the record has a key twice; then it is noted.
    pub(super) repeats: bool,
    /// Whether some string of the record has escapes.
    pub(super) has_escapes: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn collect(members: &Members<'a>, notes: &mut Notes) -> Self {
        let repeats = members.may_repeat && note_repeats(&members.list, notes);
        let mut collected = Self {
            known: Default::default(),
            unknown: Vec::new(),
            any_known: false,
            repeats,
            has_escapes: members.has_escapes,
        };
        for member in &members.list {
            // A key spelled with escapes is the key it spells; where none may come twice, none is.
            let name = if members.may_repeat { member.name() } else { Cow::Borrowed(member.key) };
            match Field::of(&name) {
                Some((field, camel)) => {
                    collected.any_known = true;
                    collected.known[field as usize].set(camel, member.value);
                }
                None if is_artefact(&name) => {}
                None => collected.unknown.push(*member),
            }
        }
        if repeats {
            collected.unknown = last_of_each(collected.unknown);
        }
        collected
    }

    #[inline]
    pub(super) fn get(&self, field: Field) -> Spellings<'a> {
        self.known[field as usize]
    }

    /// The string of a field.
    #[inline]
    pub(super) fn string(&self, field: Field, notes: &mut Notes) -> Option<Cow<'a, str>> {
        self.get(field).string(field.name(), self.has_escapes, notes)
    }
}

/// The fields of a record's principal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PrincipalFields<'a> {
    pub(super) kind: Spellings<'a>,
    pub(super) id: Spellings<'a>,
    pub(super) name: Spellings<'a>,
    pub(super) api_key_id: Spellings<'a>,
}

impl<'a> PrincipalFields<'a> {
    /// `None` where the value is no object. Other keys, N9's among them, say nothing.
    #[inline]
    pub(super) fn of(value: &'a str, has_escapes: bool) -> Option<Self> {
        let mut fields = Self::default();
        let name = |member: &Member<'a>| if has_escapes { member.name() } else { Cow::Borrowed(member.key) };
        let is_object = scan::each_member_of(value, |member| match &*name(&member) {
            "type" => fields.kind.set(false, member.value),
            "id" => fields.id.set(false, member.value),
            "name" => fields.name.set(false, member.value),
            "api_key_id" => fields.api_key_id.set(false, member.value),
            "apiKeyId" => fields.api_key_id.set(true, member.value),
            _ => {}
        });
        is_object.then_some(fields)
    }

    /// Whether it says anything (N1).
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        [self.kind, self.id, self.name, self.api_key_id].iter().all(|spellings| spellings.text().is_none())
    }
}

/// Notes every key that an object has twice, at any depth (N13); whether there was one.
fn note_repeats(members: &[Member<'_>], notes: &mut Notes) -> bool {
    let mut seen = HashSet::with_capacity(members.len());
    let mut found = false;
    for member in members {
        let name = member.name();
        if seen.contains(&name) {
            found = true;
            notes.take_of(Note::DuplicateKey, &name);
        }
        seen.insert(name);
    }
    members.iter().fold(found, |found, member| note_repeats_of(member.value, notes) | found)
}

/// As [`note_repeats`], for any value.
pub(super) fn note_repeats_of(value: &str, notes: &mut Notes) -> bool {
    if let Some(members) = scan::members_of(value) {
        note_repeats(&members, notes)
    } else if let Some(elements) = scan::elements_of(value) {
        elements.iter().fold(false, |found, element| note_repeats_of(element, notes) | found)
    } else {
        false
    }
}

/// The last member of each name, in order (N13).
pub(super) fn last_of_each(members: Vec<Member<'_>>) -> Vec<Member<'_>> {
    let mut seen = HashSet::with_capacity(members.len());
    let mut kept: Vec<_> = members.into_iter().rev().filter(|member| seen.insert(member.name())).collect();
    kept.reverse();
    kept
}
