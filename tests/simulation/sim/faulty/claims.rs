//! The claims.

use async_trait::async_trait;
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::dedupe::{Claim, ClaimError, Claims, Core, Identity, Verdict};
use auditlake::source::{Position, ShardId};
use jiff::Timestamp;

use super::{Faulty, at_once};
use crate::sim::faults::Fault;
use crate::sim::operation::Port;
use crate::sim::random::below;

/// A claim that may be on its way for longer than who made it lives.
struct Sent {
    identity: SentIdentity,
    payload: Position,
    index: u32,
    core: Core,
}

enum SentIdentity {
    LogId(String, i32),
    Content([u8; 32]),
}

impl Sent {
    fn of(claim: &Claim<'_>) -> Self {
        let identity = match claim.identity {
            Identity::LogId { log_id, version } => SentIdentity::LogId(log_id.to_owned(), version),
            Identity::Content(digest) => SentIdentity::Content(digest),
        };
        let (payload, index) = (claim.position.payload.clone(), claim.position.index);
        Self { identity, payload, index, core: claim.core }
    }

    fn claim(&self) -> Claim<'_> {
        let identity = match &self.identity {
            SentIdentity::LogId(log_id, version) => Identity::LogId { log_id, version: *version },
            SentIdentity::Content(digest) => Identity::Content(*digest),
        };
        Claim { identity, position: self.payload.record(self.index), core: self.core }
    }
}

fn unavailable(reason: &str) -> ClaimError {
    ClaimError::Unavailable(reason.to_owned())
}

#[async_trait]
impl Claims for Faulty<MemoryClaims> {
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], now: Timestamp) -> Result<Vec<Verdict>, ClaimError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let sent: Vec<Sent> = claims.iter().map(Sent::of).collect();
        let (twin, of) = (self.twin.clone(), shard.clone());
        // A call is many writes: where it fails, some of them may have been made.
        let part = below(sent.len() as u64 + 1) as usize;
        let broken = self.fault(Port::Claims) == Fault::NotDone;
        let effect = move || {
            let claims: Vec<Claim<'_>> = sent.iter().map(Sent::claim).collect();
            if broken {
                at_once(twin.claim(&of, &claims[..part], now))?;
                return Err(unavailable("simulated: not all of it was done"));
            }
            at_once(twin.claim(&of, &claims, now))
        };
        self.call(Port::Claims, format!("claim {} of {shard}", claims.len()), effect, unavailable).await
    }

    async fn flush(&self) -> Result<(), ClaimError> {
        let twin = self.twin.clone();
        self.call(Port::Claims, "flush".to_owned(), move || at_once(twin.flush()), unavailable).await
    }
}
