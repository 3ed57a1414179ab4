//! What stands of a batch whose lease row was lost decides which records the batch holds.
//!
//! Claims can't. A record was left out because another shard had brought it first; if that shard had nothing of it in the
//! archive when the claims were lost as well, the copy would now be the first. It would belong into an object that stands
//! without it, and is never overwritten. So it stays out, and claims nothing: whoever had it first reads it again, or
//! another copy comes first, and that one is archived.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::decoding::Part;
use crate::archive::ArchiveStore;
use crate::archive::chain::ChainError;
use crate::dedupe::{Claim, ClaimError, Claims, Verdict};
use crate::encode::read::{Projection, ReadError, read_rows};
use crate::encode::{Layout, Row, keys};
use crate::lease::LeaseRow;
use crate::source::{Position, ShardId};

/// The records of a partition's object, and which of them are conflicts.
type Held = BTreeMap<(Position, u32), bool>;

/// The records of all objects that stood when the loss was found, by partition. What was put later is not of them: its
/// records have been claimed anew, or are somebody else's.
pub(super) struct Standing {
    partitions: BTreeMap<String, Held>,
    layout: Layout,
}

/// What the objects tell of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Its partition has no object: claims decide.
    Nothing,
    /// Its partition's object does not hold it.
    LeftOut,
    /// It is there, as a conflict or not.
    Stands { conflict: bool },
}

impl Standing {
    /// Reads the objects that stood of the next batch of `row`; none where the row was not lost.
    pub(super) async fn of(archive: &dyn ArchiveStore, row: &LeaseRow) -> Result<Option<Self>, ChainError> {
        let Some(left_over) = &row.left_over else { return Ok(None) };
        let mut partitions: BTreeMap<String, Held> = BTreeMap::new();
        for partition in &left_over.partitions {
            let key = keys::object_key(partition, &left_over.window, &row.shard, row.batch_seq, &left_over.layout);
            let damaged = |reason: String| ChainError::Damaged { key: key.clone(), reason };
            let Some(bytes) = archive.get(&key).await? else {
                // Who was told that it holds other records has moved it away since: claims decide, as where nothing stood.
                tracing::warn!(shard = %row.shard, key, "an object that stood of the batch under way is gone; its records are claimed anew");
                continue;
            };
            let held = read_rows(bytes, &key, Projection::Keys).and_then(|rows| {
                rows.map(|row| row.map(|row| ((row.payload, row.index), row.conflict)))
                    .collect::<Result<Held, ReadError>>()
            });
            partitions.insert(partition.clone(), held.map_err(|error| damaged(error.to_string()))?);
        }
        Ok(Some(Self { partitions, layout: left_over.layout.clone() }))
    }

    fn tell(&self, row: &Row<'_>) -> Told {
        let Some(held) = self.partitions.get(&keys::partition_path(row, &self.layout)) else { return Told::Nothing };
        let place = (row.position.payload.clone(), row.position.index);
        held.get(&place).map_or(Told::LeftOut, |&conflict| Told::Stands { conflict })
    }

    /// The verdicts of all records, in order; those that were left out claim nothing.
    pub(super) async fn claim(
        &self,
        table: &dyn Claims,
        shard: &ShardId,
        part: Part<'_>,
        now: Timestamp,
    ) -> Result<Vec<Verdict>, ClaimError> {
        let told: Vec<Told> = part
            .iter()
            .flat_map(|(payload, decoded)| decoded.records().map(move |(index, record)| (payload, index, record)))
            .map(|(payload, index, record)| {
                let (position, arrival) = (payload.position.record(index), payload.arrival);
                // Which partition a row is in does not hang on where it came from.
                self.tell(&Row { record, shard, position, arrival, source_message: None, conflict: false })
            })
            .collect();
        let claims = part.claims();
        let wanted: Vec<Claim<'_>> =
            claims.iter().zip(&told).filter(|(_, told)| **told != Told::LeftOut).map(|(claim, _)| *claim).collect();
        let mut verdicts = table.claim(shard, &wanted, now).await?.into_iter();
        let mut next = || verdicts.next().expect("every claim is answered");
        Ok(told
            .into_iter()
            .map(|told| match told {
                Told::Nothing => next(),
                Told::LeftOut => Verdict::Duplicate,
                Told::Stands { conflict } => as_it_stands(next(), conflict),
            })
            .collect())
    }
}

/// Which of two conflicting records came first may be told otherwise by claims that were made anew. A duplicate remains
/// one: another place holds the record by now, and the commit must not adopt an object that doubles it.
fn as_it_stands(verdict: Verdict, conflict: bool) -> Verdict {
    match (verdict, conflict) {
        (Verdict::Duplicate, _) => Verdict::Duplicate,
        (_, true) => Verdict::Conflict,
        (Verdict::Conflict, false) => Verdict::New,
        (verdict, false) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_tells_which_of_two_is_the_conflict_and_never_that_a_duplicate_is_none() {
        use Verdict::{Conflict, Duplicate, New, NewerVersion};
        for (claimed, conflict, verdict) in [
            (New, false, New),
            (NewerVersion, false, NewerVersion),
            (Conflict, true, Conflict),
            (New, true, Conflict),
            (Conflict, false, New),
            (Duplicate, false, Duplicate),
            (Duplicate, true, Duplicate),
        ] {
            assert_eq!(as_it_stands(claimed, conflict), verdict, "{claimed:?} {conflict}");
        }
    }
}
