//! [`Claims`] in a DynamoDB table, shared by any number of workers.
//!
//! | module | what it does |
//! |---|---|
//! | `item` | who holds an identity, as an item; pure |
//! | `call` | what one call has to write and read; pure |
//! | `pace` | how many calls to the table may be under way; pure but for the waiting |
//! | `statements` | 25 conditional writes a call, 100 reads a call |
//! | `marker` | which archive, and which generation of claims |
//!
//! Every write is conditional by itself, so that of any number of workers one is first. An answer is durable when it is
//! given: [`Claims::flush`] only makes sure that the table is still the one it was.

mod call;
mod item;
mod marker;
mod pace;
mod statements;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;

use self::call::{Call, Done, Write};
use self::item::MOST_HOLDERS;
use self::pace::Gate;
use self::statements::{READS, STATEMENTS};
use super::{Claim, ClaimError, Claims, Verdict};
use crate::ops::clock::Clock;
use crate::ops::identity::random_bytes;
use crate::ops::words::counted;
use crate::source::ShardId;

pub use marker::{ClaimsTable, Marker, table};

/// How long a call is tried again that gets nowhere.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many calls of this process may be under way: 400 claims.
const MOST_CALLS: u32 = 16;

/// The claims of one archive, in a table.
pub struct DynamoClaims {
    table: ClaimsTable,
    generation: String,
    /// Whether they count: their marker stands, and must go on standing.
    is_marked: bool,
    /// Seconds.
    window: i64,
    clock: Arc<dyn Clock>,
    gate: Gate,
}

impl DynamoClaims {
    /// The claims that `marker` says count, each kept for `window` at least.
    pub fn open(table: ClaimsTable, marker: &Marker, window: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { is_marked: true, ..Self::remaking(table, marker, window, clock) }
    }

    /// The claims of `marker`, which does not stand yet, or is not complete: to be made anew from the archive.
    pub fn remaking(table: ClaimsTable, marker: &Marker, window: Duration, clock: Arc<dyn Clock>) -> Self {
        let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        let generation = marker.generation.clone();
        Self { table, generation, is_marked: false, window, clock, gate: Gate::new(MOST_CALLS) }
    }

    /// Makes all writes that the call waits for; the worst thing that kept one from being made.
    async fn write(&self, call: &mut Call<'_>) -> Result<Option<String>, ClaimError> {
        let writes = call.writes();
        for (_, write) in writes.iter().filter(|(_, write)| write.holders.len() == MOST_HOLDERS) {
            tracing::warn!(
                identity = write.key,
                holders = MOST_HOLDERS,
                "too many different records claim one identity: further ones are archived as conflicts, and their copies too"
            );
        }
        let batch = async |writes: &[(usize, Write)]| {
            let outcomes = self.table.write(&self.gate, writes.iter().map(|(_, write)| write)).await?;
            Ok::<_, ClaimError>((writes.iter().map(|(group, _)| *group).collect::<Vec<_>>(), outcomes))
        };
        let mut failure = None;
        for done in join_all(writes.chunks(STATEMENTS).map(batch)).await {
            let (groups, outcomes) = done?;
            for (group, outcome) in groups.into_iter().zip(outcomes) {
                match outcome {
                    Ok(done) => call.done(group, done),
                    Err(reason) => failure = Some(reason),
                }
            }
        }
        Ok(failure)
    }

    /// Reads all items that the call waits for; the worst thing that kept one from being read.
    async fn read(&self, call: &mut Call<'_>) -> Result<Option<String>, ClaimError> {
        let reads = call.reads();
        let batch = async |reads: &[(usize, String)]| {
            let found = self.table.read(&self.gate, reads.iter().map(|(_, key)| key.as_str())).await?;
            Ok::<_, ClaimError>((reads.to_vec(), found))
        };
        let mut failure = None;
        for done in join_all(reads.chunks(READS).map(batch)).await {
            let (reads, mut found) = done?;
            for (group, key) in reads {
                match found.take(&key) {
                    Some(item) => call.done(group, Done::Found(item)),
                    None => failure = found.failure.clone().or(failure),
                }
            }
        }
        Ok(failure)
    }
}

#[async_trait]
impl Claims for DynamoClaims {
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], now: Timestamp) -> Result<Vec<Verdict>, ClaimError> {
        let mut call = Call::new(&self.generation, shard, claims, now, self.window);
        let (mut open, mut since, mut round) = (call.open(), self.clock.monotonic(), 0);
        while open > 0 {
            let written = self.write(&mut call).await?;
            let read = self.read(&mut call).await?;
            if call.open() < open {
                (open, since, round) = (call.open(), self.clock.monotonic(), 0);
            }
            let failure = written.or(read);
            if open > 0 && self.clock.monotonic().saturating_sub(since) >= PATIENCE {
                let reason = failure.unwrap_or_else(|| "others write the same items all the time".to_owned());
                let (claims, table) = (counted(open as u64, "claim"), &self.table.name);
                return Err(ClaimError::Unavailable(format!("{claims} not settled in {table}: {reason}")));
            }
            if open > 0 && failure.is_some() {
                self.clock.sleep(pace::pause(round, u16::from_le_bytes(random_bytes()))).await;
                round += 1;
            }
        }
        Ok(call.verdicts())
    }

    async fn flush(&self) -> Result<(), ClaimError> {
        if !self.is_marked {
            return Ok(());
        }
        match self.table.marker().await? {
            Some(marker) if marker.generation == self.generation => Ok(()),
            _ => Err(ClaimError::Lost(format!(
                "those in the table {} were removed or made anew while this worker counted by them; what has not been \
                 committed is read again by whoever starts anew",
                self.table.name
            ))),
        }
    }
}
