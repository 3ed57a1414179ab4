//! The lease table of a Kinesis Client Library application, to be looked at and taken over from.
//!
//! | the library's version | what its table holds |
//! |---|---|
//! | 1, 2 | one item a shard |
//! | 3 | the same, with `throughputKBps`, and `checkpointOwner` while a lease is handed over; leader and metrics are in tables of their own |
//! | 3.5 and later | leader, migrations and worker metrics too, told by `entityType` (`LEASE` or none is a shard's) |
//!
//! A checkpoint names the last user record that was processed, as ours does. Multi-stream tables are not taken over.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use smol_str::SmolStr;

use super::item::{ARCHIVE, COUNTER, Item, KEY};
use crate::aws::dynamodb::{Fault, fault};
use crate::lease::{LeaseError, LeaseRow};
use crate::source::{Checkpoint, HashRange, Position, SequenceNumber, ShardId};

/// All of a table, at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    items: BTreeMap<String, Item>,
}

/// One shard's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KclLease {
    /// The shard.
    pub shard: ShardId,
    /// Who held it last.
    pub owner: Option<String>,
    /// How far it was processed.
    pub checkpoint: KclCheckpoint,
    /// How often it changed hands since the checkpoint last moved.
    pub switches: u64,
    /// The shards it came from.
    pub parents: Vec<ShardId>,
    /// The shards that came from it.
    pub children: Vec<ShardId>,
    /// Its share of the stream.
    pub hash_range: Option<HashRange>,
}

/// How far a shard was processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KclCheckpoint {
    /// Nothing of it.
    TrimHorizon,
    /// Nothing of it, and what the application would have begun with is not in the table but in its configuration.
    Unsettled(&'static str),
    /// All of it.
    ShardEnd,
    /// Everything up to and including this record.
    At(Position),
}

impl Snapshot {
    /// Reads the whole table, consistently.
    pub async fn read(client: &Client, table: &str) -> Result<Self, LeaseError> {
        let mut items = BTreeMap::new();
        let mut after = None;
        loop {
            let scan = client.scan().table_name(table).consistent_read(true).set_exclusive_start_key(after);
            let page = scan.send().await.map_err(|error| match fault(table, "Scan", &error) {
                Fault::Unavailable { reason, .. } => LeaseError::Unavailable { reason },
                Fault::Refused { reason } | Fault::NoTable { reason } => LeaseError::Refused { reason },
                Fault::Condition => LeaseError::Refused { reason: "a scan has no condition".to_owned() },
            })?;
            for item in page.items() {
                let Some(key) = text(item, KEY) else {
                    let reason = format!("{table} is no lease table of the Kinesis Client Library: it has no {KEY}");
                    return Err(LeaseError::Refused { reason });
                };
                items.insert(key.to_owned(), item.clone());
            }
            after = page.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() {
                return Ok(Self { items });
            }
        }
    }

    /// What has been written between this snapshot and a `later` one: by a fleet that is alive.
    pub fn moved(&self, later: &Self) -> Option<String> {
        let keys = self.items.keys().chain(later.items.keys().filter(|key| !self.items.contains_key(*key)));
        for key in keys {
            let (before, after) = (self.items.get(key), later.items.get(key));
            if before == after {
                continue;
            }
            let owner = |name| [after, before].into_iter().flatten().find_map(|item| text(item, name));
            let by = owner("checkpointOwner").or_else(|| owner("leaseOwner")).or_else(|| owner("ownerName"));
            let by = by.map_or_else(|| "an unknown worker".to_owned(), |owner| format!("the worker {owner}"));
            return Some(format!("the row `{key}` was written by {by}"));
        }
        None
    }

    /// The leases of its shards, in the order of their names; else what is wrong with one.
    pub fn leases(&self) -> Result<Vec<KclLease>, String> {
        let is_lease = |item: &&Item| text(item, "entityType").is_none_or(|kind| kind == "LEASE");
        self.items.values().filter(is_lease).map(lease).collect()
    }
}

fn lease(item: &Item) -> Result<KclLease, String> {
    let key = text(item, KEY).unwrap_or_default();
    if item.contains_key(ARCHIVE) {
        return Err(format!("the row `{key}` is auditlake's own: this is no other application's table"));
    }
    if item.contains_key("streamName") {
        return Err(format!("the row `{key}` is of a multi-stream application, whose tables can't be taken over"));
    }
    let wrong = |what: &str| format!("the row `{key}` is none of the Kinesis Client Library: {what}");
    number(item, COUNTER).ok_or_else(|| wrong("it has no leaseCounter"))?;
    let sub_sequence = number(item, "checkpointSubSequenceNumber").unwrap_or_default();
    let checkpoint = match text(item, "checkpoint") {
        Some("TRIM_HORIZON") => KclCheckpoint::TrimHorizon,
        Some("LATEST") => KclCheckpoint::Unsettled("LATEST"),
        Some("AT_TIMESTAMP") => KclCheckpoint::Unsettled("AT_TIMESTAMP"),
        Some("SHARD_END") => KclCheckpoint::ShardEnd,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            KclCheckpoint::At(Position { sequence: SequenceNumber::new(digits), sub_sequence })
        }
        Some(other) => return Err(wrong(&format!("its checkpoint is `{other}`"))),
        None => return Err(wrong("it has no checkpoint")),
    };
    let hash_range = match (text(item, "startingHashKey"), text(item, "endingHashKey")) {
        (Some(start), Some(end)) => Some(HashRange { start: SmolStr::new(start), end: SmolStr::new(end) }),
        _ => None,
    };
    Ok(KclLease {
        shard: ShardId::new(key),
        owner: text(item, "leaseOwner").map(ToOwned::to_owned),
        checkpoint,
        switches: number(item, "ownerSwitchesSinceCheckpoint").unwrap_or_default(),
        parents: set(item, "parentShardId"),
        children: set(item, "childShardIds"),
        hash_range,
    })
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn set(item: &Item, name: &str) -> Vec<ShardId> {
    let names = item.get(name).and_then(|value| AttributeValue::as_ss(value).ok());
    let mut shards: Vec<ShardId> = names.into_iter().flatten().map(ShardId::new).collect();
    shards.sort();
    shards
}

/// The lease rows that go on where the application stopped, in the order of their shards; else why there are none.
///
/// A shard that has been begun came from shards that had been processed to their ends: the library reads no child before,
/// and then removes the parents' rows. So rows are made for them too, ended, wherever the rows themselves or `lineage`
/// (each shard's parents, as the stream lists them) tell of them: without one, a parent that the stream still has would
/// be read from its beginning.
///
/// A shard of which nothing was processed begins at `since` where its row says `LATEST` or `AT_TIMESTAMP`: the table does
/// not say which time that was.
pub fn take_over(
    leases: &[KclLease],
    since: Option<Timestamp>,
    lineage: &BTreeMap<ShardId, Vec<ShardId>>,
) -> Result<Vec<LeaseRow>, String> {
    let mut rows: BTreeMap<ShardId, LeaseRow> = BTreeMap::new();
    for lease in leases {
        rows.insert(lease.shard.clone(), row(lease, since)?);
    }
    let parents_of = |shard: &ShardId| {
        let of_row = leases.iter().find(|lease| lease.shard == *shard).map(|lease| &lease.parents);
        of_row.filter(|parents| !parents.is_empty()).or_else(|| lineage.get(shard)).cloned().unwrap_or_default()
    };
    let begun = |lease: &&KclLease| matches!(lease.checkpoint, KclCheckpoint::ShardEnd | KclCheckpoint::At(_));
    let mut ended: Vec<ShardId> = leases.iter().filter(begun).flat_map(|lease| parents_of(&lease.shard)).collect();
    while let Some(shard) = ended.pop() {
        if rows.contains_key(&shard) {
            continue;
        }
        let parents = parents_of(&shard);
        ended.extend(parents.iter().cloned());
        rows.insert(shard.clone(), LeaseRow { ended: true, ..LeaseRow::new(shard, parents) });
    }
    Ok(rows.into_values().collect())
}

fn row(lease: &KclLease, since: Option<Timestamp>) -> Result<LeaseRow, String> {
    let checkpoint = match (&lease.checkpoint, since) {
        (KclCheckpoint::TrimHorizon | KclCheckpoint::ShardEnd, _) => Checkpoint::TrimHorizon,
        (KclCheckpoint::At(position), _) => Checkpoint::Imported(position.clone()),
        (KclCheckpoint::Unsettled(_), Some(since)) => Checkpoint::Since(since),
        (KclCheckpoint::Unsettled(word), None) => {
            return Err(format!(
                "of {} nothing was processed, and its checkpoint is {word}: the table does not say from when on records \
                 are wanted; set source.kinesis.initial_position to that time and try again",
                lease.shard
            ));
        }
    };
    Ok(LeaseRow {
        checkpoint,
        ended: lease.checkpoint == KclCheckpoint::ShardEnd,
        switches: lease.switches,
        children: lease.children.clone(),
        hash_range: lease.hash_range.clone(),
        ..LeaseRow::new(lease.shard.clone(), lease.parents.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(fields: &[(&str, AttributeValue)]) -> Item {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn n(number: u64) -> AttributeValue {
        AttributeValue::N(number.to_string())
    }

    fn lease_item(shard: &str, counter: u64, checkpoint: &str, parents: &[&str]) -> Item {
        let mut item = item(&[
            ("leaseKey", s(shard)),
            ("leaseOwner", s("worker-1")),
            ("leaseCounter", n(counter)),
            ("checkpoint", s(checkpoint)),
            ("checkpointSubSequenceNumber", n(3)),
            ("ownerSwitchesSinceCheckpoint", n(0)),
            ("startingHashKey", s("0")),
            ("endingHashKey", s("99")),
            ("throughputKBps", AttributeValue::N("12.5".into())),
        ]);
        if !parents.is_empty() {
            let parents = parents.iter().map(|&parent| parent.to_owned()).collect();
            item.insert("parentShardId".to_owned(), AttributeValue::Ss(parents));
        }
        item
    }

    fn snapshot(items: &[Item]) -> Snapshot {
        let keyed = |item: &Item| (text(item, KEY).unwrap().to_owned(), item.clone());
        Snapshot { items: items.iter().map(keyed).collect() }
    }

    fn taken(items: &[Item]) -> Vec<LeaseRow> {
        take_over(&snapshot(items).leases().unwrap(), None, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_checkpoint_is_taken_over_with_its_sub_sequence_number() {
        let rows = taken(&[lease_item("shard-1", 9, "4959", &["shard-0"])]);
        let at = Position { sequence: SequenceNumber::new("4959"), sub_sequence: 3 };
        let row = &rows[1];
        assert_eq!((row.shard.as_str(), &row.checkpoint, row.ended), ("shard-1", &Checkpoint::Imported(at), false));
        assert_eq!((row.owner.as_ref(), row.counter, row.batch_seq), (None, 0, 0));
        assert_eq!(row.hash_range.as_ref().map(|range| range.end.as_str()), Some("99"));
    }

    #[test]
    fn parents_whose_rows_the_library_has_removed_are_ended_up_to_the_oldest_known() {
        let lineage = BTreeMap::from([(ShardId::new("b"), vec![ShardId::new("a")])]);
        let leases = snapshot(&[lease_item("c", 1, "5", &["b"]), lease_item("x", 1, "TRIM_HORIZON", &["w"])]);
        let rows = take_over(&leases.leases().unwrap(), None, &lineage).unwrap();
        let shown: Vec<(&str, bool)> = rows.iter().map(|row| (row.shard.as_str(), row.ended)).collect();
        // Of `x` nothing was read, which says nothing of `w`.
        assert_eq!(shown, [("a", true), ("b", true), ("c", false), ("x", false)]);
    }

    #[test]
    fn the_end_of_a_shard_and_its_beginning_are_what_they_are_with_us() {
        let rows = taken(&[lease_item("a", 1, "SHARD_END", &[]), lease_item("b", 1, "TRIM_HORIZON", &[])]);
        assert_eq!(rows.iter().map(|row| row.ended).collect::<Vec<_>>(), [true, false]);
        assert_eq!(rows[1].checkpoint, Checkpoint::TrimHorizon);
    }

    #[test]
    fn a_checkpoint_that_is_in_the_applications_configuration_needs_a_time() {
        for word in ["LATEST", "AT_TIMESTAMP"] {
            let leases = snapshot(&[lease_item("a", 1, word, &[])]).leases().unwrap();
            let error = take_over(&leases, None, &BTreeMap::new()).unwrap_err();
            assert!(error.contains(word) && error.contains("source.kinesis.initial_position"), "{error}");
            let rows = take_over(&leases, Some(Timestamp::UNIX_EPOCH), &BTreeMap::new()).unwrap();
            assert_eq!(rows[0].checkpoint, Checkpoint::Since(Timestamp::UNIX_EPOCH));
        }
    }

    #[test]
    fn a_row_that_moves_names_its_worker_and_a_leader_counts_as_one() {
        let before = snapshot(&[lease_item("a", 1, "5", &[])]);
        assert_eq!(before.moved(&before.clone()), None);
        let renewed = before.moved(&snapshot(&[lease_item("a", 2, "5", &[])])).unwrap();
        assert_eq!(renewed, "the row `a` was written by the worker worker-1");
        let gone = before.moved(&Snapshot::default()).unwrap();
        assert!(gone.contains("worker-1"), "{gone}");
        let leader = |version: &str| {
            let fields = [("leaseKey", s("Leader")), ("entityType", s("LEADER")), ("ownerName", s("w-2"))];
            let mut leader = item(&fields);
            leader.insert("recordVersionNumber".to_owned(), s(version));
            snapshot(&[lease_item("a", 1, "5", &[]), leader])
        };
        assert!(leader("x").moved(&leader("y")).unwrap().contains("the worker w-2"));
        assert_eq!(leader("x").leases().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_lease_is_refused_by_name() {
        let with = |name: &str, value: AttributeValue| {
            let mut item = lease_item("a", 1, "5", &[]);
            item.insert(name.to_owned(), value);
            snapshot(&[item]).leases().unwrap_err()
        };
        assert!(with(ARCHIVE, s("id")).contains("auditlake's own"));
        assert!(with("streamName", s("other")).contains("multi-stream"));
        assert!(with("checkpoint", s("soon")).contains("`soon`"));
        assert!(with("leaseCounter", s("1")).contains("leaseCounter"));
    }
}
