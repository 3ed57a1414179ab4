//! 2. Decode and 3. normalise: bytes become canonical records (RECORDS.md). Pure: no I/O, no clock.
//!
//! | step | function |
//! |---|---|
//! | a growing file is cut into payloads | [`split()`] |
//! | a payload is decompressed | [`unpack`] |
//! | its values become records or rejects | [`decode`] ([`elements`], then [`normalise()`]) |
//! | a record is told from its copies | [`identity_of`], [`IdentityKey::core_of`] |

mod canonical;
mod client_ip;
mod details;
mod fields;
mod framing;
mod identity;
mod key_log;
mod normalise;
mod notes;
mod operations;
mod scan;
mod semantic;
mod split;
mod strings;
mod time;
mod unpack;

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use framing::{Element, Elements, elements};
pub use identity::{CoreFields, CoreHasher, IdentityKey, content_key, dedupe_key, identity_of};
pub use normalise::normalise;
pub use split::{Split, split};
pub use time::format as format_time;
pub use unpack::{Unpacked, unpack};

/// The canonical record's `schema_version`.
pub const SCHEMA_VERSION: i32 = 1;

/// One canonical record. Text is borrowed from the payload wherever the payload holds it as it is.
///
/// Provenance (source, shard, position, arrival) is not part of it: it travels beside the record, in
/// [`crate::encode::Row`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Verbatim, never parsed; `None` where the record has none.
    pub log_id: Option<Cow<'a, str>>,
    /// 0 where the record has none.
    pub version: i32,
    /// Full precision; `None` where the record has none.
    pub emit_time: Option<Timestamp>,
    /// Verbatim.
    pub operation: Option<Cow<'a, str>>,
    /// By the catalogue, else verbatim.
    pub operation_canonical: Option<Cow<'a, str>>,
    /// By the catalogue, else `unknown`.
    pub resource_category: Cow<'a, str>,
    /// The verb: `login`, `create`, …, `other`.
    pub action: Cow<'a, str>,
    /// Verbatim, never invented.
    pub status: Option<Cow<'a, str>>,
    /// What came of the operation.
    pub outcome: Outcome,
    /// The kind of principal.
    pub principal_type: Option<PrincipalType>,
    /// The principal's id.
    pub principal_id: Option<Cow<'a, str>>,
    /// The principal's name; a user's e-mail address.
    pub principal_name: Option<Cow<'a, str>>,
    /// The API key that was used.
    pub principal_api_key_id: Option<Cow<'a, str>>,
    /// The name of a user, if it is an address.
    pub actor_email: Option<Cow<'a, str>>,
    /// Verbatim.
    pub x_forwarded_for: Option<Cow<'a, str>>,
    /// The addresses of `x_forwarded_for`, cleaned.
    pub ip_chain: Vec<Cow<'a, str>>,
    /// From the right, the first address outside the trusted proxies.
    pub client_ip: Option<Cow<'a, str>>,
    /// Verbatim.
    pub async_operation_id: Option<Cow<'a, str>>,
    /// Out of the details.
    pub namespace: Option<Cow<'a, str>>,
    /// JSON text without line breaks.
    pub details: Option<Cow<'a, str>>,
    /// Which field `details` is.
    pub details_source: DetailsSource,
    /// JSON text of an object: every deprecated field that was present and not empty, verbatim.
    pub deprecated: Cow<'a, str>,
    /// JSON text of an object: every top-level field that is not known.
    pub unknown_fields: Cow<'a, str>,
    /// The decisions taken, in RECORDS.md's order.
    pub notes: Vec<Cow<'a, str>>,
    /// The record's own JSON text, as it came.
    pub raw: Cow<'a, str>,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Neither status nor level tell.
    #[default]
    Unknown,
    /// The status is OK, or the level is informational.
    Success,
    /// Any other status, or an error level.
    Failure,
}

impl Outcome {
    /// The word in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// The kind of principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalType {
    /// A person.
    User,
    /// A service account.
    ServiceAccount,
    /// Anything else that was named.
    Other,
}

impl PrincipalType {
    /// The word in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
            Self::Other => "other",
        }
    }
}

/// Which field the details came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetailsSource {
    /// There are none.
    #[default]
    None,
    /// The current field.
    RawDetails,
    /// The deprecated field.
    Details,
}

impl DetailsSource {
    /// The word in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RawDetails => "raw_details",
            Self::Details => "details",
        }
    }
}

/// Why something went to quarantine (RECORDS.md N6 and framing). The only reasons there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// Not JSON.
    InvalidJson,
    /// Not UTF-8.
    NotUtf8,
    /// JSON, but no object.
    NotAnObject,
    /// An object with no known key at all.
    NotAnAuditRecord,
    /// `emit_time` is there and is no time; bare numbers are not.
    EmitTimeInvalid,
    /// `version` is there and is no 32-bit integer.
    VersionInvalid,
    /// gzip or zstd by its first bytes, but damaged.
    DecompressionFailed,
    /// Larger than `limits.max_payload_bytes` once decompressed.
    PayloadTooLarge,
}

impl RejectReason {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::InvalidJson,
        Self::NotUtf8,
        Self::NotAnObject,
        Self::NotAnAuditRecord,
        Self::EmitTimeInvalid,
        Self::VersionInvalid,
        Self::DecompressionFailed,
        Self::PayloadTooLarge,
    ];

    /// The word in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::NotUtf8 => "not_utf8",
            Self::NotAnObject => "not_an_object",
            Self::NotAnAuditRecord => "not_an_audit_record",
            Self::EmitTimeInvalid => "emit_time_invalid",
            Self::VersionInvalid => "version_invalid",
            Self::DecompressionFailed => "decompression_failed",
            Self::PayloadTooLarge => "payload_too_large",
        }
    }
}

/// The part of the configuration that decides what a record becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Proxies whose addresses are passed over when the client's is looked for.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// The most that a payload may hold, in bytes, after decompression.
    pub max_payload_bytes: u64,
}

/// What became of one value, or of what should have been one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Its place within the payload; records and rejects count alike.
    pub index: u32,
    /// The record, or why there is none. Boxed, since a page may hold many more rejects than records.
    pub outcome: Result<Box<Record<'a>>, Reject<'a>>,
}

/// Something for quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject<'a> {
    /// Why.
    pub reason: RejectReason,
    /// Its bytes as they came: a record's JSON text, a line, or a whole payload.
    pub raw: &'a [u8],
}

/// The records and rejects of a payload, in order.
///
/// ```
/// # use auditlake::record::{Rules, decode, unpack};
/// let rules = Rules { max_payload_bytes: 1 << 20, ..Rules::default() };
/// let payloads = [br#"{"operation":"UserLogin","status":"OK"}"#.as_slice(), b"no JSON"];
/// let page: Vec<_> = payloads.iter().map(|payload| unpack(payload, rules.max_payload_bytes)).collect();
/// let decoded: Vec<_> = page.iter().flat_map(|unpacked| decode(unpacked, &rules)).collect();
/// assert_eq!(decoded[0].outcome.as_ref().unwrap().action, "login");
/// assert_eq!(decoded[1].outcome.as_ref().unwrap_err().reason.as_str(), "invalid_json");
/// ```
pub fn decode<'a, 'r>(unpacked: &'a Unpacked<'_>, rules: &'r Rules) -> impl Iterator<Item = Decoded<'a>> + use<'a, 'r> {
    let mut elements = elements(unpacked);
    let mut decoder = Decoder::default();
    std::iter::from_fn(move || decoder.next(&mut elements, rules))
}

/// Decodes payloads, one after the other, in room that is asked for once.
#[derive(Default)]
pub struct Decoder<'a> {
    members: scan::Members<'a>,
}

impl<'a> Decoder<'a> {
    /// As [`decode`].
    pub fn decode<'d>(
        &'d mut self,
        unpacked: &'a Unpacked<'_>,
        rules: &'d Rules,
    ) -> impl Iterator<Item = Decoded<'a>> + use<'a, 'd> {
        let mut elements = elements(unpacked);
        std::iter::from_fn(move || self.next(&mut elements, rules))
    }

    #[inline]
    fn next(&mut self, elements: &mut Elements<'a>, rules: &Rules) -> Option<Decoded<'a>> {
        Some(match elements.advance(&mut self.members)? {
            Element::Reject { index, reason, raw } => Decoded { index, outcome: Err(Reject { reason, raw }) },
            Element::Value { index, json } => {
                let record = if json.starts_with('{') {
                    normalise::normalise_object(json, &self.members, rules)
                } else {
                    Err(RejectReason::NotAnObject)
                };
                Decoded {
                    index,
                    outcome: record.map(Box::new).map_err(|reason| Reject { reason, raw: json.as_bytes() }),
                }
            }
        })
    }
}
