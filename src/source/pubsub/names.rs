//! What spools, their segments and their shards are called. Pure.
//!
//! | name | what |
//! |---|---|
//! | `spool-1795254660000-ab12cd34` | a spool: the millisecond in which it was begun, and something unique |
//! | `<spool>/00000042` | the key of its segment 42, below the folder of spools; of its seal, where it ends with that |
//! | `<spool>` | the shard that a spool is |
//! | `<spool>-late-00000042` | the shard that segment 42 is by itself, found in a spool that had been archived to its end |

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::source::ShardId;

/// What stands between a spool's name and the number of a segment that came late.
const LATE: &str = "-late-";

/// A spool's name. No two spools ever share one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpoolName(SmolStr);

impl SpoolName {
    /// The spool of this name, if it can be one's.
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = !name.is_empty() && name.bytes().all(is_plain) && !name.contains(LATE);
        fits.then(|| Self(SmolStr::new(name)))
    }

    /// The name of a spool that is begun now. `random` makes it unique.
    pub fn begun(now: Timestamp, random: [u8; 4]) -> Self {
        Self(smol_str::format_smolstr!("spool-{:013}-{}", now.as_millisecond().max(0), hex::encode(random)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a segment.
    pub fn key(&self, number: u64) -> String {
        format!("{}/{number:08}", self.0)
    }

    /// What the keys of all of its segments begin with.
    pub fn folder(&self) -> String {
        format!("{}/", self.0)
    }
}

impl fmt::Display for SpoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The spool and the number of a segment's key; none where it is not a segment's.
pub(super) fn parse_key(key: &str) -> Option<(SpoolName, u64)> {
    let (spool, number) = key.split_once('/')?;
    let (spool, parsed) = (SpoolName::new(spool)?, number.parse().ok()?);
    (spool.key(parsed) == key).then_some((spool, parsed))
}

/// What a shard is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A spool, from its first segment to its seal.
    Whole(SpoolName),
    /// One segment, put behind the end of a spool.
    Late(SpoolName, u64),
}

impl Part {
    /// The part that is the shard of this name, if it can be one's.
    pub(super) fn of(shard: &ShardId) -> Option<Self> {
        let Some((spool, number)) = shard.as_str().split_once(LATE) else {
            return SpoolName::new(shard.as_str()).map(Self::Whole);
        };
        let late = Self::Late(SpoolName::new(spool)?, number.parse().ok()?);
        (late.shard() == *shard).then_some(late)
    }

    /// Its name as a shard.
    pub(super) fn shard(&self) -> ShardId {
        match self {
            Self::Whole(spool) => ShardId::new(spool.as_str()),
            Self::Late(spool, number) => ShardId::new(format!("{spool}{LATE}{number:08}")),
        }
    }

    /// The spool that it is in.
    pub(super) fn spool(&self) -> &SpoolName {
        match self {
            Self::Whole(spool) | Self::Late(spool, _) => spool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_being_written() {
        let now = "2026-11-21T09:31:00Z".parse().unwrap();
        let spool = SpoolName::begun(now, [0xab, 0x12, 0xcd, 0x34]);
        assert_eq!(spool.as_str(), "spool-1795253460000-ab12cd34");
        assert_eq!(parse_key(&spool.key(42)), Some((spool.clone(), 42)));
        assert_eq!(parse_key(&spool.key(123_456_789_012)), Some((spool.clone(), 123_456_789_012)));
        for part in [Part::Whole(spool.clone()), Part::Late(spool, 7)] {
            assert_eq!(Part::of(&part.shard()), Some(part));
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        for key in ["spool-1", "spool-1/7", "spool-1/00000007/x", "spool-1/x0000007", "Spool/00000007", "/00000007"] {
            assert_eq!(parse_key(key), None, "{key}");
        }
        for shard in ["", "a/b", "spool-1-late-7", "spool-1-late-", "shardId-000000000001"] {
            assert_eq!(Part::of(&ShardId::new(shard)), None, "{shard}");
        }
    }

    #[test]
    fn spools_are_listed_in_the_order_in_which_they_were_begun() {
        let at = |second| SpoolName::begun(Timestamp::from_second(second).unwrap(), [0; 4]);
        assert!(at(9) < at(10) && at(999_999_999) < at(1_000_000_000));
    }
}
