//! The notes of a record: which decisions were taken, in the order of RECORDS.md's table.

use std::borrow::Cow;

/// The kinds of note, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    SpellingConflict,
    TypeMismatch,
    EmitTimeMissing,
    OperationMissing,
    OperationUnknown,
    OutcomeFromLevel,
    ConflictLevel,
    PrincipalTypeUnknown,
    PrincipalFromUserEmail,
    PrincipalNameFromUserEmail,
    UserEmailIgnoredNonUser,
    ConflictUserEmail,
    ClientIpUnparseable,
    XForwardedForFromCallerIpAddress,
    ConflictCallerIpAddress,
    AsyncOperationIdFromRequestId,
    ConflictRequestId,
    RawDetailsWasString,
    RawDetailsWasStruct,
    LogIdMissing,
    DuplicateKey,
}

impl Note {
    /// The note's text; those that name something end in a colon.
    fn text(self) -> &'static str {
        match self {
            Self::SpellingConflict => "spelling_conflict:",
            Self::TypeMismatch => "type_mismatch:",
            Self::EmitTimeMissing => "emit_time_missing",
            Self::OperationMissing => "operation_missing",
            Self::OperationUnknown => "operation_unknown",
            Self::OutcomeFromLevel => "outcome_from_level",
            Self::ConflictLevel => "conflict:level",
            Self::PrincipalTypeUnknown => "principal_type_unknown",
            Self::PrincipalFromUserEmail => "principal_from_user_email",
            Self::PrincipalNameFromUserEmail => "principal_name_from_user_email",
            Self::UserEmailIgnoredNonUser => "user_email_ignored_non_user",
            Self::ConflictUserEmail => "conflict:user_email",
            Self::ClientIpUnparseable => "client_ip_unparseable",
            Self::XForwardedForFromCallerIpAddress => "x_forwarded_for_from_caller_ip_address",
            Self::ConflictCallerIpAddress => "conflict:caller_ip_address",
            Self::AsyncOperationIdFromRequestId => "async_operation_id_from_request_id",
            Self::ConflictRequestId => "conflict:request_id",
            Self::RawDetailsWasString => "raw_details_was_string",
            Self::RawDetailsWasStruct => "raw_details_was_struct",
            Self::LogIdMissing => "log_id_missing",
            Self::DuplicateKey => "duplicate_key:",
        }
    }
}

/// The notes taken so far, each once.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<(Note, Cow<'static, str>)>);

impl Notes {
    /// Notes a decision.
    #[inline]
    pub(super) fn take(&mut self, note: Note) {
        self.push(note, Cow::Borrowed(note.text()));
    }

    /// Notes a decision about the field or key of this name.
    pub(super) fn take_of(&mut self, note: Note, name: &str) {
        self.push(note, Cow::Owned(format!("{}{name}", note.text())));
    }

    fn push(&mut self, note: Note, text: Cow<'static, str>) {
        if !self.0.iter().any(|(_, taken)| *taken == text) {
            self.0.push((note, text));
        }
    }

    /// The notes in the table's order; those of one kind in the order in which they were taken.
    pub(super) fn into_list<'a>(mut self) -> Vec<Cow<'a, str>> {
        self.0.sort_by_key(|(note, _)| *note);
        self.0.into_iter().map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_in_the_order_of_the_table_and_each_once() {
        let mut notes = Notes::default();
        notes.take_of(Note::DuplicateKey, "a");
        notes.take(Note::LogIdMissing);
        notes.take_of(Note::TypeMismatch, "status");
        notes.take_of(Note::TypeMismatch, "log_id");
        notes.take(Note::LogIdMissing);
        notes.take_of(Note::SpellingConflict, "x");
        let expected = [
            "spelling_conflict:x",
            "type_mismatch:status",
            "type_mismatch:log_id",
            "log_id_missing",
            "duplicate_key:a",
        ];
        assert_eq!(notes.into_list(), expected);
    }
}
