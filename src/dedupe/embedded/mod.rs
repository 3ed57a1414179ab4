//! [`Claims`] in a directory of a local disk: a log of all claims that hold, and an index of it in memory.
//!
//! | file | what it is |
//! |---|---|
//! | `head.json` | what of the log is sealed (the `head` module) |
//! | `00000001.log`, ... | claims of 45 bytes each, in the order in which they were made (`segment`, `entry`) |
//!
//! A claim costs 45 bytes of disk and about 15 bytes of memory, for the dedupe window and up to a segment longer. One
//! process at a time: [`crate::ops::state_dir::StateDir`] holds the lock.

mod entry;
mod head;
mod index;
mod log;
mod segment;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rayon::prelude::*;

use self::entry::{Entry, Hashes, IdentityHash, PositionHasher};
use self::index::{Index, Location};
use self::log::Log;
use super::verdict::{Holder, Judgement, judge};
use super::{Claim, ClaimError, Claims, Core, Verdict};
use crate::source::ShardId;

/// Fewer claims than these are hashed before other threads are awake.
const WORTH_SHARING: usize = 512;

/// How claims are kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a claim is kept at least.
    pub window: Duration,
    /// Random bytes, for a directory that has none yet: the secret of its hashes.
    pub secret: [u8; 16],
    /// How many claims a segment holds; from 1 to 1,048,576. Claims expire by whole segments.
    pub segment_claims: u32,
}

impl Options {
    /// Segments of the usual length.
    pub fn new(window: Duration, secret: [u8; 16]) -> Self {
        Self { window, secret, segment_claims: Location::SEGMENT_ENTRIES }
    }
}

/// What claims take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The claims that hold.
    pub claims: usize,
    /// Those of them that a crash would lose.
    pub unsealed: u32,
    /// The files they stand in.
    pub segments: usize,
    /// Bytes of these files.
    pub disk_bytes: u64,
    /// Bytes of memory.
    pub memory_bytes: usize,
}

/// Claims that outlive the process.
pub struct EmbeddedClaims {
    options: Options,
    hashes: Hashes,
    is_new: bool,
    state: Mutex<State>,
}

struct State {
    log: Log,
    index: Index,
    /// Where claims to the identity in question may stand; kept for its capacity.
    candidates: Vec<Location>,
}

/// A claim as it is compared.
struct Hashed {
    identity: IdentityHash,
    version: i32,
    position: u64,
    core: Core,
}

impl EmbeddedClaims {
    /// Opens the claims of a directory, which is created where it is missing. Claims that were not flushed are gone.
    ///
    /// [`ClaimError::Damaged`] names the file and the byte where what was flushed is not there any more as it was:
    /// `rebuild-state` makes the claims anew from the archive.
    pub fn open(directory: impl AsRef<Path>, options: Options, now: Timestamp) -> Result<Self, ClaimError> {
        let segment_claims = options.segment_claims.clamp(1, Location::SEGMENT_ENTRIES);
        let options = Options { segment_claims, ..options };
        let mut index = Index::new();
        let log = Log::open(directory.as_ref(), options.secret, |identity, location| index.insert(identity, location))?;
        let (hashes, is_new) = (Hashes::new(log.secret()), log.is_new());
        let mut state = State { log, index, candidates: Vec::new() };
        state.expire(options.horizon(now))?;
        Ok(Self { options, hashes, is_new, state: Mutex::new(state) })
    }

    /// Whether nothing had ever been flushed here when it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// How many claims hold.
    pub fn len(&self) -> Result<usize, ClaimError> {
        Ok(self.state()?.index.len())
    }

    /// Whether no claim holds.
    pub fn is_empty(&self) -> Result<bool, ClaimError> {
        Ok(self.len()? == 0)
    }

    /// What the claims take.
    pub fn stats(&self) -> Result<Stats, ClaimError> {
        let state = self.state()?;
        Ok(Stats {
            claims: state.index.len(),
            unsealed: state.log.unsealed(),
            segments: state.log.segments(),
            disk_bytes: state.log.disk_bytes(),
            memory_bytes: state.index.bytes() + state.log.tail_bytes(),
        })
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, ClaimError> {
        // A panic may have come between the log and the index; what is on the disk is as good as it was.
        self.state.lock().map_err(|_| ClaimError::Damaged("in memory, by a panic: restart auditlake".to_owned()))
    }
}

impl Options {
    fn horizon(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.window).unwrap_or(Timestamp::MIN)
    }
}

#[async_trait]
impl Claims for EmbeddedClaims {
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], now: Timestamp) -> Result<Vec<Verdict>, ClaimError> {
        let hash = |positions: &mut PositionHasher<'_>, claim: &Claim<'_>| {
            let (identity, version) = self.hashes.identity(&claim.identity);
            Hashed { identity, version, position: positions.hash(claim.position), core: claim.core }
        };
        let positions = || self.hashes.positions(shard);
        // Before the lock, so that shards wait for each other only while they really meet.
        let hashed: Vec<Hashed> = if claims.len() < WORTH_SHARING {
            let mut positions = positions();
            claims.iter().map(|claim| hash(&mut positions, claim)).collect()
        } else {
            claims.par_iter().with_min_len(WORTH_SHARING / 2).map_init(positions, hash).collect()
        };
        let mut state = self.state()?;
        hashed.iter().map(|claim| state.claim(claim, &self.options, now)).collect()
    }

    async fn flush(&self) -> Result<(), ClaimError> {
        self.state()?.log.seal()
    }
}

impl State {
    fn claim(&mut self, claim: &Hashed, options: &Options, now: Timestamp) -> Result<Verdict, ClaimError> {
        let verdict = match self.judge(claim)? {
            Judgement::Known(verdict) => return Ok(verdict),
            Judgement::Taken(verdict) => verdict,
        };
        if self.log.last_claims() >= options.segment_claims {
            self.log.roll()?;
            self.expire(options.horizon(now))?;
        }
        let Hashed { identity, version, position, core } = *claim;
        let location = self.log.append(&Entry { identity, position, core, version, verdict }, now)?;
        self.index.insert(&identity, location);
        Ok(verdict)
    }

    fn judge(&mut self, claim: &Hashed) -> Result<Judgement, ClaimError> {
        self.candidates.clear();
        self.candidates.extend(self.index.find(&claim.identity));
        let log = &self.log;
        self.candidates.sort_unstable_by_key(|&location| log.age(location));
        let mut holders = Vec::new(); // allocates for those that are known only
        for &location in &self.candidates {
            let entry = log.entry(location)?;
            if entry.identity == claim.identity {
                let Entry { version, core, verdict, position, .. } = entry;
                holders.push(Holder { version, own: position == claim.position, core, verdict });
            }
        }
        Ok(judge(claim.version, &claim.core, holders))
    }

    fn expire(&mut self, horizon: Timestamp) -> Result<(), ClaimError> {
        for segment in self.log.expire(horizon)? {
            self.index.forget_segment(segment);
        }
        Ok(())
    }
}
