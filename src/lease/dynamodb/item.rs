//! A lease row as an item.
//!
//! | attribute | of | what it is |
//! |---|---|---|
//! | `leaseKey` S | KCL | the shard's name; see [`key`] |
//! | `leaseOwner` S | KCL | the owner; absent where there is none |
//! | `leaseCounter` N | KCL | grows with every write |
//! | `checkpoint` S | KCL | `TRIM_HORIZON`, `AT_TIMESTAMP`, `SHARD_END`, or the sequence number of the last payload archived |
//! | `checkpointSubSequenceNumber` N | KCL | its sub-sequence number, else 0 |
//! | `ownerSwitchesSinceCheckpoint` N | KCL | |
//! | `parentShardId` SS, `childShardIds` SS | KCL | absent where there are none |
//! | `startingHashKey` S, `endingHashKey` S | KCL | absent where the shard has none |
//! | `pendingCheckpointState` S | KCL | the batch under way, as JSON; absent where there is none |
//! | `auditlake_archive` S | ours | the archive that the row belongs to; what has none is no row of ours |
//! | `auditlake_shard` S | ours | the shard's name |
//! | `auditlake_checkpoint` S | ours | the checkpoint with its digest, as JSON |
//! | `auditlake_parents` L, `auditlake_children` L | ours | the same shards as in the sets, in order |
//! | `auditlake_batch_seq` N, `auditlake_chain_head` S, `auditlake_caught_up` BOOL, `auditlake_read_through` S, `auditlake_wanted_by` S, `auditlake_taken_at` S, `auditlake_failover` N (milliseconds), `auditlake_origin` S, `auditlake_remade_at` N, `auditlake_compared` S (JSON), `auditlake_stopped` S (JSON), `auditlake_left_over` S (JSON) | ours | the row's fields of these names |
//!
//! What stands twice, for those who know the Kinesis Client Library and exactly, must agree: a checkpoint that somebody
//! edited in one place is found out.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use uuid::Uuid;

use crate::digest::Digest;
use crate::lease::{LeaseRow, WorkerId};
use crate::source::{Checkpoint, HashRange, ShardId};

/// An item's attributes.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The key attribute.
pub(super) const KEY: &str = "leaseKey";
/// The attribute that every write is conditional on.
pub(super) const COUNTER: &str = "leaseCounter";
/// The attribute that tells our rows from others.
pub(super) const ARCHIVE: &str = "auditlake_archive";

/// Why an item is no row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Another program's, or another archive's.
    Foreign(String),
    /// Ours, and not as we write it.
    Damaged(String),
}

/// The key of a shard's item: its name. DynamoDB's keys have 1 to 2,048 bytes; what does not fit (of files: an empty
/// name, a very long path) is replaced by its SHA-256.
pub(super) fn key(shard: &ShardId) -> String {
    const HASHED: &str = "auditlake~";
    let name = shard.as_str();
    if name.is_empty() || name.len() > 1024 || name.starts_with(HASHED) {
        return format!("{HASHED}{}", Digest::of(name.as_bytes()));
    }
    name.to_owned()
}

/// The row's item.
pub(super) fn to_item(row: &LeaseRow, archive: Uuid) -> Item {
    let (checkpoint, sub_sequence) = checkpoint_words(row);
    let mut item = Item::new();
    let mut put = |name: &str, value: Option<AttributeValue>| {
        if let Some(value) = value {
            item.insert(name.to_owned(), value);
        }
    };
    put(KEY, Some(AttributeValue::S(key(&row.shard))));
    put("leaseOwner", row.owner.as_ref().map(text));
    put(COUNTER, Some(number(row.counter)));
    put("checkpoint", Some(AttributeValue::S(checkpoint)));
    put("checkpointSubSequenceNumber", Some(number(sub_sequence)));
    put("ownerSwitchesSinceCheckpoint", Some(number(row.switches)));
    put("parentShardId", set(&row.parents));
    put("childShardIds", set(&row.children));
    put("startingHashKey", row.hash_range.as_ref().map(|range| text(&range.start)));
    put("endingHashKey", row.hash_range.as_ref().map(|range| text(&range.end)));
    put("pendingCheckpointState", row.pending.as_ref().map(json));
    put(ARCHIVE, Some(text(&archive)));
    put("auditlake_shard", Some(text(&row.shard)));
    put("auditlake_checkpoint", Some(json(&row.checkpoint)));
    put("auditlake_parents", list(&row.parents));
    put("auditlake_children", list(&row.children));
    put("auditlake_batch_seq", Some(number(row.batch_seq)));
    put("auditlake_chain_head", row.chain_head.as_ref().map(text));
    put("auditlake_caught_up", Some(AttributeValue::Bool(row.caught_up)));
    put("auditlake_read_through", row.read_through.as_ref().map(text));
    put("auditlake_wanted_by", row.wanted_by.as_ref().map(text));
    put("auditlake_failover", row.failover.map(|failover| number(failover.as_millis() as u64)));
    put("auditlake_taken_at", row.taken_at.as_ref().map(text));
    put("auditlake_origin", row.origin.as_ref().map(text));
    put("auditlake_remade_at", row.remade_at.map(number));
    put("auditlake_compared", row.compared.as_ref().map(json));
    put("auditlake_stopped", row.stopped.as_ref().map(json));
    put("auditlake_left_over", row.left_over.as_ref().map(json));
    item
}

/// The item's row, if it is one of this archive's.
pub(super) fn from_item(item: &Item, archive: Uuid) -> Result<LeaseRow, Unfit> {
    let fields = Fields(item);
    match fields.text(ARCHIVE) {
        Ok(Some(id)) if id == archive.to_string() => {}
        Ok(Some(id)) => return Err(Unfit::Foreign(format!("belongs to the archive {id}, not to {archive}"))),
        Ok(None) | Err(_) => return Err(Unfit::Foreign(format!("was not written by auditlake: it has no {ARCHIVE}"))),
    }
    let row = fields.row().map_err(Unfit::Damaged)?;
    let (checkpoint, sub_sequence) = checkpoint_words(&row);
    let found = (fields.text("checkpoint"), fields.number("checkpointSubSequenceNumber"));
    if found != (Ok(Some(&checkpoint)), Ok(Some(sub_sequence))) {
        let reason = format!("checkpoint and auditlake_checkpoint ({}) disagree: was it edited?", row.checkpoint);
        return Err(Unfit::Damaged(reason));
    }
    Ok(row)
}

/// The checkpoint in the Kinesis Client Library's words, and its sub-sequence number.
fn checkpoint_words(row: &LeaseRow) -> (String, u64) {
    let sub_sequence = row.checkpoint.position().map_or(0, |position| position.sub_sequence);
    let word = match &row.checkpoint {
        _ if row.ended => SHARD_END.to_owned(),
        Checkpoint::TrimHorizon => "TRIM_HORIZON".to_owned(),
        Checkpoint::Since(_) => "AT_TIMESTAMP".to_owned(),
        Checkpoint::Imported(position) | Checkpoint::At { position, .. } => position.sequence.to_string(),
    };
    (word, sub_sequence)
}

const SHARD_END: &str = "SHARD_END";

fn text(value: &(impl ToString + ?Sized)) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn json(value: &impl serde::Serialize) -> AttributeValue {
    AttributeValue::S(serde_json::to_string(value).expect("a row has no map keys but strings"))
}

fn list(shards: &[ShardId]) -> Option<AttributeValue> {
    let names = shards.iter().map(|shard| AttributeValue::S(shard.to_string()));
    (!shards.is_empty()).then(|| AttributeValue::L(names.collect()))
}

/// A set has no empty and no equal members.
fn set(shards: &[ShardId]) -> Option<AttributeValue> {
    let mut names: Vec<String> = shards.iter().map(ToString::to_string).filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    (!names.is_empty()).then_some(AttributeValue::Ss(names))
}

/// The attributes of an item, read as what they should be; else which of them is not, in words.
struct Fields<'a>(&'a Item);

impl<'a> Fields<'a> {
    fn row(&self) -> Result<LeaseRow, String> {
        let ended = self.text("checkpoint")? == Some(SHARD_END);
        let hash_range = match (self.text("startingHashKey")?, self.text("endingHashKey")?) {
            (Some(start), Some(end)) => Some(HashRange { start: SmolStr::new(start), end: SmolStr::new(end) }),
            _ => None,
        };
        Ok(LeaseRow {
            shard: ShardId::new(self.required("auditlake_shard", self.text("auditlake_shard"))?),
            parents: self.shards("auditlake_parents")?,
            owner: self.text("leaseOwner")?.map(WorkerId::new),
            counter: self.required(COUNTER, self.number(COUNTER))?,
            checkpoint: self.required("auditlake_checkpoint", self.json("auditlake_checkpoint"))?,
            ended,
            batch_seq: self.required("auditlake_batch_seq", self.number("auditlake_batch_seq"))?,
            chain_head: self
                .text("auditlake_chain_head")?
                .map(|hex| from_json_text("auditlake_chain_head", hex))
                .transpose()?,
            pending: self.json("pendingCheckpointState")?,
            caught_up: self.truth("auditlake_caught_up")?,
            read_through: self.parsed::<Timestamp>("auditlake_read_through")?,
            wanted_by: self.text("auditlake_wanted_by")?.map(WorkerId::new),
            failover: self.number("auditlake_failover")?.map(Duration::from_millis),
            taken_at: self.parsed::<Timestamp>("auditlake_taken_at")?,
            switches: self.number("ownerSwitchesSinceCheckpoint")?.unwrap_or_default(),
            children: self.shards("auditlake_children")?,
            hash_range,
            origin: self.text("auditlake_origin")?.map(SmolStr::new),
            remade_at: self.number("auditlake_remade_at")?,
            compared: self.json("auditlake_compared")?,
            stopped: self.json("auditlake_stopped")?,
            left_over: self.json("auditlake_left_over")?,
        })
    }

    #[allow(clippy::unused_self)] // reads as the others do
    fn required<T>(&self, name: &str, value: Result<Option<T>, String>) -> Result<T, String> {
        value?.ok_or_else(|| format!("{name} is missing"))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        let of =
            |value: &'a AttributeValue| value.as_s().map(String::as_str).map_err(|_| format!("{name} is no string"));
        self.0.get(name).map(of).transpose()
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let of = |value: &AttributeValue| value.as_n().ok().and_then(|digits| digits.parse().ok());
        self.0.get(name).map(|value| of(value).ok_or_else(|| format!("{name} is no whole number"))).transpose()
    }

    fn truth(&self, name: &str) -> Result<bool, String> {
        let of =
            |value: &AttributeValue| value.as_bool().copied().map_err(|_| format!("{name} is neither true nor false"));
        Ok(self.0.get(name).map(of).transpose()?.unwrap_or_default())
    }

    fn shards(&self, name: &str) -> Result<Vec<ShardId>, String> {
        let wrong = || format!("{name} is no list of strings");
        let Some(value) = self.0.get(name) else { return Ok(Vec::new()) };
        let names = value.as_l().map_err(|_| wrong())?.iter();
        names.map(|name| name.as_s().map(ShardId::new).map_err(|_| wrong())).collect()
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| text.parse().map_err(|_| format!("{name} can't be read: {text}"));
        self.text(name)?.map(parse).transpose()
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| serde_json::from_str(text).map_err(|error| format!("{name} can't be read: {error}"));
        self.text(name)?.map(parse).transpose()
    }
}

fn from_json_text<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value).map_err(|error| format!("{name} can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Position, SequenceNumber};

    const ARCHIVE_ID: Uuid = Uuid::from_u128(1);

    fn row() -> LeaseRow {
        LeaseRow {
            owner: Some(WorkerId::new("w")),
            counter: 7,
            checkpoint: Checkpoint::at(Position { sequence: SequenceNumber::new("495903"), sub_sequence: 4 }, b"x"),
            hash_range: Some(HashRange { start: "0".into(), end: "3402823669".into() }),
            children: vec![ShardId::new("c")],
            switches: 2,
            ..LeaseRow::new(ShardId::new("shardId-000000000001"), vec![ShardId::new("p2"), ShardId::new("p1")])
        }
    }

    #[test]
    fn those_who_know_the_kinesis_client_library_can_read_a_row() {
        let item = to_item(&row(), ARCHIVE_ID);
        let (s, n) = (|text: &str| AttributeValue::S(text.into()), |digits: &str| AttributeValue::N(digits.into()));
        for (name, value) in [
            ("leaseKey", s("shardId-000000000001")),
            ("leaseOwner", s("w")),
            ("leaseCounter", n("7")),
            ("checkpoint", s("495903")),
            ("checkpointSubSequenceNumber", n("4")),
            ("ownerSwitchesSinceCheckpoint", n("2")),
            ("parentShardId", AttributeValue::Ss(vec!["p1".into(), "p2".into()])),
            ("childShardIds", AttributeValue::Ss(vec!["c".into()])),
            ("startingHashKey", s("0")),
            ("endingHashKey", s("3402823669")),
        ] {
            assert_eq!(item.get(name), Some(&value), "{name}");
        }
        assert!(!item.contains_key("pendingCheckpointState"));
        assert_eq!(from_item(&item, ARCHIVE_ID), Ok(row()));
    }

    #[test]
    fn what_a_row_does_not_have_its_item_does_not_have() {
        let bare = LeaseRow::new(ShardId::new("s"), Vec::new());
        let item = to_item(&bare, ARCHIVE_ID);
        for name in ["leaseOwner", "parentShardId", "childShardIds", "startingHashKey", "auditlake_chain_head"] {
            assert!(!item.contains_key(name), "{name}");
        }
        assert_eq!(item["checkpoint"], AttributeValue::S("TRIM_HORIZON".into()));
        let ended = LeaseRow { ended: true, ..row() };
        assert_eq!(to_item(&ended, ARCHIVE_ID)["checkpoint"], AttributeValue::S("SHARD_END".into()));
        assert_eq!(from_item(&to_item(&ended, ARCHIVE_ID), ARCHIVE_ID), Ok(ended));
        let since = LeaseRow { checkpoint: Checkpoint::Since(Timestamp::UNIX_EPOCH), ..bare };
        assert_eq!(to_item(&since, ARCHIVE_ID)["checkpoint"], AttributeValue::S("AT_TIMESTAMP".into()));
        assert_eq!(from_item(&to_item(&since, ARCHIVE_ID), ARCHIVE_ID), Ok(since));
    }

    #[test]
    fn a_row_of_another_program_or_archive_is_told_from_a_damaged_one() {
        let mut kcl = to_item(&row(), ARCHIVE_ID);
        kcl.retain(|name, _| !name.starts_with("auditlake_"));
        assert!(
            matches!(from_item(&kcl, ARCHIVE_ID), Err(Unfit::Foreign(reason)) if reason.contains("not written by"))
        );
        let other = to_item(&row(), Uuid::from_u128(2));
        assert!(matches!(from_item(&other, ARCHIVE_ID), Err(Unfit::Foreign(reason)) if reason.contains("belongs to")));
        for name in ["auditlake_checkpoint", "auditlake_batch_seq", "leaseCounter", "auditlake_shard"] {
            let mut damaged = to_item(&row(), ARCHIVE_ID);
            damaged.remove(name);
            assert_eq!(from_item(&damaged, ARCHIVE_ID), Err(Unfit::Damaged(format!("{name} is missing"))));
            damaged.insert(name.to_owned(), AttributeValue::Null(true));
            assert!(matches!(from_item(&damaged, ARCHIVE_ID), Err(Unfit::Damaged(_))), "{name}");
        }
    }

    #[test]
    fn an_edited_checkpoint_is_found_out() {
        for (name, value) in [
            ("checkpoint", AttributeValue::S("495904".into())),
            ("checkpoint", AttributeValue::S("TRIM_HORIZON".into())),
            ("checkpointSubSequenceNumber", AttributeValue::N("5".into())),
        ] {
            let mut edited = to_item(&row(), ARCHIVE_ID);
            edited.insert(name.to_owned(), value);
            assert!(matches!(from_item(&edited, ARCHIVE_ID), Err(Unfit::Damaged(reason)) if reason.contains("edited")));
        }
    }

    #[test]
    fn a_name_that_no_key_can_hold_has_a_key() {
        let key = |name: &str| key(&ShardId::new(name));
        assert_eq!(key("shardId-000000000001"), "shardId-000000000001");
        let hashed = [key(""), key(&"x".repeat(3000)), key(&key(""))];
        assert!(hashed.iter().all(|key| key.len() == 74 && key.starts_with("auditlake~")), "{hashed:?}");
        assert!(hashed[0] != hashed[1] && hashed[0] != hashed[2]);
    }
}
