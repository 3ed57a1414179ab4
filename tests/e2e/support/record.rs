//! Invented audit records in the shapes that there are. A record is its number, its version and its variant; the same
//! three give the same text.

use std::fmt::Write as _;

use jiff::Timestamp;

/// 2026-11-01T00:00:00Z.
const START: i64 = 1_793_491_200;
/// How many days the records' times are spread over.
const DAYS: u64 = 3;

/// A number that looks like chance and is none (`SplitMix64`).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How a record is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The stream of 2026.
    New,
    /// What the web interface downloads: camelCase, times as numbers. Says the same as [`Style::New`].
    Download,
    /// The stream of 2024: deprecated fields.
    Old,
    /// Old and new fields side by side.
    Transition,
    /// The stream of 2023: no `log_id`.
    Anonymous,
}

/// One record. `variant` is what somebody changed under the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Tells it from every other.
    pub number: u64,
    /// Its version.
    pub version: u32,
    /// 0, or another content under the same identity.
    pub variant: u32,
}

impl Record {
    /// The first version of a record.
    pub fn new(number: u64) -> Self {
        Self { number, version: 0, variant: 0 }
    }

    /// The style that it comes in.
    pub fn style(self) -> Style {
        match mix(self.number) % 16 {
            0..=7 => Style::New,
            8..=9 => Style::Download,
            10..=12 => Style::Old,
            13..=14 => Style::Transition,
            _ => Style::Anonymous,
        }
    }

    /// The identity that Temporal gave it.
    pub fn log_id(self) -> Option<String> {
        (self.style() != Style::Anonymous).then(|| format!("{:016x}{:016x}", mix(self.number), self.number))
    }

    /// Tells its content from every other; stands in its details.
    pub fn tag(self) -> String {
        format!("r{}v{}c{}", self.number, self.version, self.variant)
    }

    fn second(self) -> i64 {
        START + i64::try_from(mix(self.number ^ 0x4d) % (DAYS * 86_400)).unwrap()
    }

    fn time(self) -> String {
        Timestamp::from_second(self.second()).unwrap().to_string().replace('Z', ".250Z")
    }

    /// Its line, without the line break; about 450 bytes and `pad` more.
    pub fn line(self, pad: usize) -> String {
        self.line_as(self.style(), pad)
    }

    /// Its line in another style: the same record if that is [`Style::New`] for [`Style::Download`], or the reverse.
    pub fn line_as(self, style: Style, pad: usize) -> String {
        let chance = mix(self.number ^ 0xabcd);
        let operation = ["CreateNamespace", "UpdateUser", "DeleteAPIKey", "UserLogin", "Dream"][(chance % 5) as usize];
        let user = chance % 97;
        let status = if chance.is_multiple_of(11) { "PermissionDenied" } else { "OK" };
        let level = if status == "OK" { "INFO" } else { "ERROR" };
        let ip = format!("203.0.113.{}, 198.51.100.{}", chance % 250, chance % 13);
        let (version, time, tag) = (self.version, self.time(), self.tag());
        let details =
            format!(r#"{{"tag":"{tag}","namespace":"shop-{}.a1b2c","note":"{}"}}"#, user % 7, padding(chance, pad));
        let principal = |key: &str| {
            format!(r#"{{"id":"u-{user}","type":"user","name":"user{user}@example.com","{key}":"key-{}"}}"#, user % 5)
        };
        let id = self.log_id().unwrap_or_default();
        let job = format!("job-{:x}", chance >> 32);
        let email = format!("user{user}@example.com");
        let mut line = match style {
            Style::New => format!(
                r#"{{"operation":"{operation}","principal":{},"raw_details":{details},"x_forwarded_for":"{ip}","emit_time":"{time}","log_id":"{id}","async_operation_id":"{job}","status":"{status}","version":{version}}}"#,
                principal("api_key_id")
            ),
            Style::Download => format!(
                r#"{{"operation":"{operation}","principal":{},"rawDetails":{details},"xForwardedFor":"{ip}","emitTime":{{"seconds":{},"nanos":250000000}},"logId":"{id}","asyncOperationId":"{job}","status":"{status}","version":{version}}}"#,
                principal("apiKeyId"),
                self.second()
            ),
            Style::Old => format!(
                r#"{{"emit_time":"{time}","level":"LOG_LEVEL_{level}","caller_ip_address":"{ip}","user_email":"{email}","operation":"{operation}","details":{details},"status":"{status}","category":"LOG_CATEGORY_ADMIN","log_id":"{id}","request_id":"{job}","principal":{},"version":{version}}}"#,
                principal("api_key_id")
            ),
            Style::Transition => format!(
                r#"{{"emit_time":"{time}","level":"LOG_LEVEL_{level}","caller_ip_address":"{ip}","x_forwarded_for":"{ip}","user_email":"{email}","operation":"{operation}API","details":{{"additional_message":"finished unary call"}},"raw_details":{details},"status":"{status}","log_id":"{id}","principal":{},"version":{version}}}"#,
                principal("api_key_id")
            ),
            Style::Anonymous => format!(
                r#"{{"emit_time":"{time}","level":"LOG_LEVEL_{level}","user_email":"{email}","operation":"{operation}","details":{details},"status":"{status}","category":"LOG_CATEGORY_ADMIN"}}"#
            ),
        };
        if version == 0 && style == Style::Old {
            line = line.replace(r#","version":0"#, "");
        }
        line
    }
}

/// Text that compresses about as badly as identifiers do.
fn padding(seed: u64, length: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    let mut number = seed;
    while text.len() < length {
        number = mix(number);
        write!(text, "{number:016x}").unwrap();
    }
    text.truncate(length);
    text
}
