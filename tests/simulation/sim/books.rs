//! What stood and stands in the spools, and what may.

use std::collections::{BTreeMap, BTreeSet};

use auditlake::digest::Digest;
use auditlake::source::pubsub::memory::{SpoolObject, look_into};
use auditlake::source::{Position, ShardId};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::shared::State;

/// For how long a seal stands at least, by the clocks of those who put and remove it: they may differ.
const SEALS_STAND: SignedDuration = SignedDuration::from_hours(40 * 24 - 6);

/// All that was ever put into the spools.
#[derive(Default)]
pub(crate) struct Books {
    spools: BTreeMap<String, Spool>,
    /// The messages that stood in a segment.
    durable: BTreeSet<String>,
}

#[derive(Default)]
struct Spool {
    objects: BTreeMap<u64, Object>,
    /// The number of its first seal.
    end: Option<u64>,
    /// That seal was kept for as long as it is of use, and is gone.
    is_forgotten: bool,
}

struct Object {
    digest: Digest,
    /// It was put where nothing told any more that its spool had ended: it is a shard of its own.
    is_late: bool,
    stands: bool,
    seal_of: Option<Timestamp>,
}

impl Books {
    /// Whether the shard is a spool, or was put behind the end of one.
    pub(crate) fn have(&self, shard: &ShardId) -> bool {
        self.spools.keys().any(|spool| shard.as_str().starts_with(spool))
    }

    /// An object was put where none stood: the shard that it belongs to; what is wrong with it otherwise.
    fn enter(&mut self, put: &SpoolObject, body: &Bytes, is_archived: bool) -> Result<Entered, String> {
        let SpoolObject { spool: name, number, .. } = put;
        let spool = self.spools.entry(name.clone()).or_default();
        let digest = Digest::of(body);
        let before = spool.objects.get(number);
        let what = || format!("{name}/{number:08}");
        if before.is_some_and(|before| before.stands) {
            return Err(format!("invariant 5: {} was overwritten", what()));
        }
        // Whoever slept between a put and its answer may put once more what is archived and gone by now.
        let is_again = before.is_some_and(|before| before.digest == digest);
        // Where the seal is gone, so is all that told of an earlier put.
        let is_late = spool.end.is_some_and(|end| *number >= end) || (is_again && spool.is_forgotten);
        if !is_again && before.is_some_and(|before| before.seal_of.is_none()) {
            return Err(format!("invariant 5: {} is another segment than the one that stood there", what()));
        }
        if !is_again && is_late && !spool.is_forgotten {
            return Err(format!("invariant 11: {} was put behind the seal of its spool", what()));
        }
        if !is_again && !is_late && is_archived {
            return Err(format!("invariant 11: {} was put into a spool that is archived to its end", what()));
        }
        if *number > 0 && !spool.objects.contains_key(&(number - 1)) {
            return Err(format!("invariant 11: {} was put, and none before it", what()));
        }
        let seal_of = put.is_seal.then_some(put.written);
        spool.objects.insert(*number, Object { digest, is_late, stands: true, seal_of });
        if put.is_seal {
            spool.end.get_or_insert(*number);
        }
        self.durable.extend(put.messages.iter().cloned());
        Ok(Entered { shard: shard_of(name, *number, is_late), is_again: is_again && !is_late })
    }
}

/// What was put.
struct Entered {
    shard: ShardId,
    /// It stood there before, and is of the same shard.
    is_again: bool,
}

fn shard_of(spool: &str, number: u64, is_late: bool) -> ShardId {
    ShardId::new(if is_late { format!("{spool}-late-{number:08}") } else { spool.to_owned() })
}

impl State {
    /// An object was put into the store of spools, where none stood.
    pub(crate) fn segment_put(&mut self, key: &str, body: &Bytes) {
        let put = match look_into(key, body) {
            Ok(put) => put,
            Err(reason) => return self.judge.violated(format!("{key} is no object of a spool: {reason}")),
        };
        let is_archived = self.judge.ended.contains(&ShardId::new(&put.spool));
        match self.books.enter(&put, body, is_archived) {
            Err(what) => self.judge.violated(what),
            Ok(Entered { is_again: true, .. }) => {}
            Ok(Entered { shard, .. }) if put.is_seal => {
                if let Some(sealed) = self.ledger.shards.get_mut(&shard) {
                    sealed.ended = true;
                }
            }
            Ok(Entered { shard, .. }) => {
                let position = |place: usize| Position { sequence: put.number.into(), sub_sequence: place as u64 };
                for (place, id) in put.messages.iter().enumerate() {
                    self.ledger.enter_message(&shard, id, position(place));
                }
            }
        }
    }

    /// An object of a spool was removed.
    pub(crate) fn segment_removed(&mut self, key: &str, now: Timestamp) {
        let Some((name, number)) = key.split_once('/') else { return };
        let number: u64 = number.parse().expect("it was put");
        let spool = self.books.spools.get_mut(name).expect("it was put");
        let object = spool.objects.get_mut(&number).expect("it was put");
        object.stands = false;
        let may_go = if let Some(written) = object.seal_of {
            spool.is_forgotten = true;
            now.duration_since(written) >= SEALS_STAND
        } else {
            let shard = shard_of(name, number, object.is_late);
            let through = self.judge.through(&shard).and_then(|through| through.position());
            let through = through.and_then(|position| position.sequence.as_u64());
            through.is_some_and(|at| number < at || (number == at && self.judge.ended.contains(&shard)))
        };
        if !may_go {
            self.judge.violated(format!("invariant 12: {key} was removed before its time"));
        }
    }

    /// An acknowledgement counts.
    pub(crate) fn acknowledged(&mut self, id: &str) {
        if !self.books.durable.contains(id) {
            self.judge.violated(format!("invariant 12: message {id} was acknowledged and stands in no segment"));
        }
    }
}
