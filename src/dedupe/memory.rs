//! [`Claims`] in this process's memory, for tests: what is remembered here is forgotten with the process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::verdict::{Holder, Judgement, judge};
use super::{Claim, ClaimError, Claims, Core, Identity, Verdict};
use crate::ops::planted::{Bug, planted};
use crate::source::{Position, ShardId};

/// Claims that are kept for ever: a window says how long they are kept at least.
#[derive(Debug, Default)]
pub struct MemoryClaims {
    holders: Mutex<HashMap<Key, Vec<Held>>>,
    /// What is remembered from the next flush on.
    late: Mutex<Vec<(Key, Held)>>,
}

/// What the versions of a record have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    LogId(String),
    Content([u8; 32]),
}

#[derive(Clone, Debug)]
struct Held {
    version: i32,
    shard: ShardId,
    payload: Position,
    index: u32,
    core: Core,
    verdict: Verdict,
}

impl MemoryClaims {
    /// Nobody has claimed anything.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Claims for MemoryClaims {
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], _now: Timestamp) -> Result<Vec<Verdict>, ClaimError> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = |claim: &Claim<'_>| {
            let (verdict, taken) = one(&holders, shard, claim);
            if planted(Bug::ClaimAfterPut) {
                self.late.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
            } else if let Some((key, held)) = taken {
                holders.entry(key).or_default().push(held);
            }
            verdict
        };
        Ok(claims.iter().map(answer).collect())
    }

    async fn flush(&self) -> Result<(), ClaimError> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, held) in self.late.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            holders.entry(key).or_default().push(held);
        }
        Ok(())
    }
}

/// What becomes of a claim, and what it takes, if it takes anything.
fn one(holders: &HashMap<Key, Vec<Held>>, shard: &ShardId, claim: &Claim<'_>) -> (Verdict, Option<(Key, Held)>) {
    let (key, version) = match claim.identity {
        Identity::LogId { log_id, version } => (Key::LogId(log_id.to_owned()), version),
        Identity::Content(digest) => (Key::Content(digest), 0),
    };
    let seen = holders.get(&key).into_iter().flatten().map(|held| Holder {
        version: held.version,
        own: held.shard == *shard && held.payload == *claim.position.payload && held.index == claim.position.index,
        core: held.core,
        verdict: held.verdict,
    });
    match judge(version, &claim.core, seen) {
        Judgement::Known(verdict) => (verdict, None),
        Judgement::Taken(verdict) => {
            let held = Held {
                version,
                shard: shard.clone(),
                payload: claim.position.payload.clone(),
                index: claim.position.index,
                core: claim.core,
                verdict,
            };
            (verdict, Some((key, held)))
        }
    }
}
