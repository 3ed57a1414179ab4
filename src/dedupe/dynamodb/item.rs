//! Who holds an identity, as an item of the table.
//!
//! | attribute | what it is |
//! |---|---|
//! | `id` S | the generation of the claims, then `#L#` and the `log_id`, `#H#` and the SHA-256 of one that is too long for a key, or `#C#` and the SHA-256 of a record without one |
//! | `h` B | a 1, then 38 bytes for each holder, in the order in which they came to hold it |
//! | `r` N | grows with every write |
//! | `expires_at` N | when the last of the claims is older than the dedupe window, in seconds since 1970: the table's time to live |
//!
//! | bytes of a holder | field |
//! |---|---|
//! | 0..16 | position: the first half of the SHA-256 of shard, sequence number, sub-sequence number and index |
//! | 16..24, 24..32 | `core.base`, `core.details` |
//! | 32..36 | version; 0 for content |
//! | 36, 37 | the details' source, the verdict |
//!
//! Numbers are little-endian. A new record's item has about 130 bytes.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest as _, Sha256};

use crate::dedupe::verdict::{Holder, Judgement, judge};
use crate::dedupe::{Claim, Core, Identity, Verdict};
use crate::digest::Digest;
use crate::record::DetailsSource;
use crate::source::{RecordPosition, ShardId};

/// How many different records may hold one `log_id`. Beyond it, another one is a conflict that is archived and not
/// remembered: its own copies are archived too. DynamoDB's 400 KB would come at 10,500; a write of 39 KB is what one
/// claim may cost at most.
pub(super) const MOST_HOLDERS: usize = 1024;

const FORMAT: u8 = 1;
const HOLDER_BYTES: usize = 38;
/// DynamoDB's keys have 2,048 bytes at most.
const LONGEST_KEY_PART: usize = 1024;

/// The hash of a position; only ever compared with those of its own identity.
pub(super) type Place = [u8; 16];

/// A claim that stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) core: Core,
    pub(super) version: i32,
    pub(super) verdict: Verdict,
}

/// An item that stands in the table.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) holders: Vec<Held>,
    pub(super) revision: u64,
    pub(super) expires_at: i64,
}

/// The key of an identity in this generation.
pub(super) fn key(generation: &str, identity: &Identity<'_>) -> String {
    match identity {
        Identity::LogId { log_id, .. } if log_id.len() > LONGEST_KEY_PART => {
            format!("{generation}#H#{}", Digest::of(log_id.as_bytes()))
        }
        Identity::LogId { log_id, .. } => format!("{generation}#L#{log_id}"),
        Identity::Content(digest) => format!("{generation}#C#{}", hex::encode(digest)),
    }
}

/// The version that is claimed.
pub(super) fn version(identity: &Identity<'_>) -> i32 {
    match identity {
        Identity::LogId { version, .. } => *version,
        Identity::Content(_) => 0,
    }
}

/// The hash of a position in a shard.
pub(super) fn place(shard: &ShardId, position: RecordPosition<'_>) -> Place {
    let mut hash = Sha256::new();
    for text in [shard.as_str(), position.payload.sequence.as_str()] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(position.payload.sub_sequence.to_le_bytes());
    hash.update(position.index.to_le_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut place = Place::default();
    place.copy_from_slice(&digest[..16]);
    place
}

/// Answers one claim, which becomes a holder where it has to; whether it has become one.
pub(super) fn answer(holders: &mut Vec<Held>, shard: &ShardId, claim: &Claim<'_>) -> (Verdict, bool) {
    let (place, version, core) = (place(shard, claim.position), version(&claim.identity), claim.core);
    let seen = holders.iter().map(|held| Holder {
        version: held.version,
        own: held.place == place,
        core: held.core,
        verdict: held.verdict,
    });
    match judge(version, &core, seen) {
        Judgement::Known(verdict) => (verdict, false),
        // The holders no longer change, so this is the answer to a replay too.
        Judgement::Taken(verdict) if holders.len() >= MOST_HOLDERS => (verdict, false),
        Judgement::Taken(verdict) => {
            holders.push(Held { place, core, version, verdict });
            (verdict, true)
        }
    }
}

/// The holders' bytes.
pub(super) fn to_bytes(holders: &[Held]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + holders.len() * HOLDER_BYTES);
    bytes.push(FORMAT);
    for held in holders {
        bytes.extend(held.place);
        bytes.extend(held.core.base.to_le_bytes());
        bytes.extend(held.core.details.to_le_bytes());
        bytes.extend(held.version.to_le_bytes());
        bytes.push(match held.core.details_source {
            DetailsSource::None => 0,
            DetailsSource::RawDetails => 1,
            DetailsSource::Details => 2,
        });
        bytes.push(match held.verdict {
            Verdict::New => 0,
            Verdict::NewerVersion => 1,
            Verdict::OlderVersion => 2,
            // A duplicate holds nothing and is never stored.
            Verdict::Conflict | Verdict::Duplicate => 3,
        });
    }
    bytes
}

/// The holders of these bytes, or `None` where they are none.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Vec<Held>> {
    let (&format, holders) = bytes.split_first()?;
    if format != FORMAT || holders.len() % HOLDER_BYTES != 0 {
        return None;
    }
    holders.chunks_exact(HOLDER_BYTES).map(held).collect()
}

fn held(bytes: &[u8]) -> Option<Held> {
    let details_source = match bytes[36] {
        0 => DetailsSource::None,
        1 => DetailsSource::RawDetails,
        2 => DetailsSource::Details,
        _ => return None,
    };
    let verdict = match bytes[37] {
        0 => Verdict::New,
        1 => Verdict::NewerVersion,
        2 => Verdict::OlderVersion,
        3 => Verdict::Conflict,
        _ => return None,
    };
    Some(Held {
        place: *bytes.first_chunk()?,
        core: Core {
            base: u64::from_le_bytes(*bytes[16..].first_chunk()?),
            details_source,
            details: u64::from_le_bytes(*bytes[24..].first_chunk()?),
        },
        version: i32::from_le_bytes(*bytes[32..].first_chunk()?),
        verdict,
    })
}

/// The item of these attributes, else what is wrong with it.
pub(super) fn from_attributes(attributes: &HashMap<String, AttributeValue>) -> Result<Item, String> {
    let key = attributes.get("id").and_then(|id| id.as_s().ok()).map_or("?", String::as_str);
    let wrong = |name: &str| format!("the item `{key}` has no sound {name}");
    let holders = attributes.get("h").and_then(|holders| from_bytes(holders.as_b().ok()?.as_ref()));
    Ok(Item {
        holders: holders.ok_or_else(|| wrong("h"))?,
        revision: number(attributes, "r").ok_or_else(|| wrong("r"))?,
        expires_at: number(attributes, "expires_at").ok_or_else(|| wrong("expires_at"))?,
    })
}

fn number<T: std::str::FromStr>(attributes: &HashMap<String, AttributeValue>, name: &str) -> Option<T> {
    attributes.get(name)?.as_n().ok()?.parse().ok()
}

/// An attribute of holders.
pub(super) fn blob(holders: &[Held]) -> AttributeValue {
    AttributeValue::B(Blob::new(to_bytes(holders)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Position, SequenceNumber};

    fn core(base: u64) -> Core {
        Core { base, details_source: DetailsSource::Details, details: !base }
    }

    fn claim(position: &Position, base: u64) -> Claim<'_> {
        Claim { identity: Identity::LogId { log_id: "x", version: 1 }, position: position.record(0), core: core(base) }
    }

    #[test]
    fn holders_survive_their_bytes() {
        let verdicts = [Verdict::New, Verdict::NewerVersion, Verdict::OlderVersion, Verdict::Conflict];
        let sources = [DetailsSource::None, DetailsSource::RawDetails, DetailsSource::Details, DetailsSource::None];
        let held = |(verdict, details_source)| Held {
            place: [7; 16],
            core: Core { base: u64::MAX - 1, details_source, details: 3 },
            version: i32::MIN,
            verdict,
        };
        let holders: Vec<Held> = verdicts.into_iter().zip(sources).map(held).collect();
        let bytes = to_bytes(&holders);
        assert_eq!(bytes.len(), 1 + 4 * 38);
        assert_eq!(format!("{:?}", from_bytes(&bytes).unwrap()), format!("{holders:?}"));
    }

    #[test]
    fn bytes_that_are_no_holders_are_refused() {
        let whole = to_bytes(&[Held { place: [0; 16], core: core(1), version: 1, verdict: Verdict::New }]);
        for broken in [&[][..], &[2], &whole[..20], &[&whole[..37], &[9, 0]].concat(), &[&whole[..38], &[9]].concat()] {
            assert!(from_bytes(broken).is_none(), "{broken:?}");
        }
        assert!(from_bytes(&[1]).unwrap().is_empty());
    }

    #[test]
    fn keys_of_different_identities_differ_and_fit() {
        let id = |log_id: &'static str| key("g", &Identity::LogId { log_id, version: 1 });
        let long = "x".repeat(5000);
        let hashed = key("g", &Identity::LogId { log_id: &long, version: 1 });
        assert_eq!(id("abc"), "g#L#abc");
        assert_eq!(hashed.len(), 4 + 64);
        let content = key("g", &Identity::Content([0x63; 32]));
        assert_ne!(content, id("6363636363636363636363636363636363636363636363636363636363636363"));
    }

    #[test]
    fn places_differ_wherever_positions_do() {
        let at = |shard: &str, digits: &str, sub_sequence, index| {
            let position = Position { sequence: SequenceNumber::new(digits), sub_sequence };
            place(&ShardId::new(shard), position.record(index))
        };
        let places = [
            at("a", "1", 0, 0),
            at("a1", "1", 0, 0),
            at("a", "11", 0, 0),
            at("a", "1", 1, 0),
            at("a", "1", 0, 1),
            at("", "1", 0, 0),
        ];
        let distinct: std::collections::HashSet<_> = places.iter().collect();
        assert_eq!(distinct.len(), places.len());
    }

    #[test]
    fn beyond_the_most_holders_a_record_is_a_conflict_that_is_not_remembered() {
        let (shard, mut holders) = (ShardId::new("s"), Vec::new());
        for n in 0..MOST_HOLDERS as u64 {
            assert!(answer(&mut holders, &shard, &claim(&Position::new(n), n)).1);
        }
        let full = to_bytes(&holders);
        assert!(full.len() < 40_000);
        for _ in 0..2 {
            let beyond = answer(&mut holders, &shard, &claim(&Position::new(5000), 5000));
            assert_eq!(beyond, (Verdict::Conflict, false));
        }
        assert_eq!(answer(&mut holders, &shard, &claim(&Position::new(9000), 3)), (Verdict::Duplicate, false));
        assert_eq!(answer(&mut holders, &shard, &claim(&Position::new(0), 0)), (Verdict::New, false));
        assert_eq!(to_bytes(&holders), full);
    }
}
