//! Durations and sizes as people write them.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value as a file has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Number(u64),
    Text(String),
}

/// A duration, written `30m`, `1h 30m`, `35d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// This many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that loses nothing, and none longer than a day: months have no length.
        let milliseconds = self.0.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        match units.iter().find(|(size, _)| milliseconds >= *size && milliseconds.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", milliseconds / size),
            None => write!(f, "{milliseconds}ms"),
        }
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = |text: &dyn fmt::Display| {
            de::Error::custom(format!("`{text}` is no duration; write `30m`, `1h 30m` or `35d`"))
        };
        match Form::deserialize(deserializer) {
            Ok(Form::Text(text)) => humantime::parse_duration(&text).map(Self).map_err(|_| wrong(&text)),
            // Of what? Whoever writes a number means seconds, or minutes.
            Ok(Form::Number(number)) => Err(wrong(&number)),
            Err(_) => Err(de::Error::custom("not a duration; write `30m`, `1h 30m` or `35d`")),
        }
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["30m", "1h 30m", "35d"] })
    }
}

/// A number of bytes, written `128MiB`, `64 kB`, `1000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanBytes(ByteSize);

impl HumanBytes {
    /// This many mebibytes.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(ByteSize::mib(mebibytes))
    }

    /// The bytes.
    pub fn as_u64(self) -> u64 {
        self.0.as_u64()
    }
}

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only units that lose nothing: what is printed reads back as the same number.
        let bytes = self.as_u64();
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", bytes / size),
            None => write!(f, "{bytes}B"),
        }
    }
}

impl fmt::Debug for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HumanBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Form::deserialize(deserializer) {
            Ok(Form::Number(bytes)) => return Ok(Self(ByteSize(bytes))),
            Ok(Form::Text(text)) => text,
            Err(_) => return Err(de::Error::custom("not a size; write `128MiB` or a number of bytes")),
        };
        let parsed = text.parse::<ByteSize>();
        parsed
            .map(Self)
            .map_err(|_| de::Error::custom(format!("`{text}` is no size; write `128MiB` or a number of bytes")))
    }
}

impl JsonSchema for HumanBytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "examples": ["128MiB", 134_217_728] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1000, 1024, 1 << 20, (1 << 20) + 1, 128 << 20, 3 << 30] {
            let size = HumanBytes(ByteSize(bytes));
            let json = serde_json::to_string(&size).unwrap();
            assert_eq!(serde_json::from_str::<HumanBytes>(&json).unwrap().as_u64(), bytes, "{json}");
        }
        assert_eq!(HumanDuration::from_secs(35 * 86_400).to_string(), "35d");
        for seconds in [0, 1, 90, 1800, 35 * 86_400] {
            let json = serde_json::to_string(&HumanDuration::from_secs(seconds)).unwrap();
            assert_eq!(serde_json::from_str::<HumanDuration>(&json).unwrap().get().as_secs(), seconds, "{json}");
        }
    }

    #[test]
    fn what_is_no_duration_is_named() {
        let error = serde_json::from_str::<HumanDuration>("\"half an hour\"").unwrap_err().to_string();
        assert!(error.contains("`half an hour` is no duration; write `30m`"), "{error}");
    }
}
