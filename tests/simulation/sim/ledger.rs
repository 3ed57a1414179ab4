//! What was ever put into the stream, and what must therefore stand in the archive.

use std::collections::BTreeMap;

use auditlake::source::{Position, ShardId};
use serde_json::json;

use super::operation::Content;
use crate::settings::record;

/// What a row of the archive is known by: `log_id` (nothing where there is none), version, and what makes it another
/// event than others of that identity.
pub(crate) type Event = (String, i32, String);

/// All shards that there ever were.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) shards: BTreeMap<ShardId, Shard>,
    /// The records that came so far, for copies.
    seen: Vec<Event>,
    fresh: u64,
    pub(crate) records: u64,
    /// What was published, by the ids of the messages.
    published: BTreeMap<String, Written>,
}

#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) parents: Vec<ShardId>,
    pub(crate) payloads: Vec<Put>,
    pub(crate) ended: bool,
    /// The source lists it no more.
    pub(crate) forgotten: bool,
}

/// A payload.
pub(crate) struct Put {
    pub(crate) position: Position,
    pub(crate) events: Vec<Event>,
    pub(crate) is_garbage: bool,
    pub(crate) kept: Kept,
}

/// Whether the stream still has a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    /// It was trimmed when it had been archived.
    Trimmed,
    /// It was trimmed before that. Only where something of its shard had been archived can anybody tell.
    Lost {
        can_be_told: bool,
    },
}

impl Put {
    /// The stream has it no more.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.kept != Kept::Yes
    }

    /// It was trimmed before anybody had archived it.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.kept, Kept::Lost { .. })
    }
}

/// A payload that is about to be put.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) body: String,
    events: Vec<Event>,
    is_garbage: bool,
}

impl Ledger {
    /// Writes a payload.
    pub(crate) fn write(&mut self, contents: &[Content]) -> Written {
        let mut events = Vec::new();
        let mut lines = Vec::new();
        for content in contents {
            let event = match content {
                Content::Garbage => {
                    self.fresh += 1;
                    lines.push(format!("?{}", self.fresh));
                    continue;
                }
                Content::Nameless(number) => (String::new(), 0, format!("nobody-{number}")),
                Content::Fresh => self.fresh(),
                Content::Copy(number) => self.earlier(*number),
                Content::Conflict(number) => {
                    let (id, version, _) = self.earlier(*number);
                    (id, version, format!("other-{}", number % 3))
                }
                Content::Newer(number) => {
                    let (id, version, who) = self.earlier(*number);
                    (id, version + 1, who)
                }
            };
            lines.push(text(&event));
            if !event.0.is_empty() {
                self.seen.push(event.clone());
            }
            events.push(event);
        }
        self.records += contents.len() as u64;
        Written { body: lines.join("\n"), is_garbage: events.is_empty(), events }
    }

    /// Enters a payload that was put.
    pub(crate) fn enter(&mut self, shard: &ShardId, written: Written, position: Position) {
        let Written { events, is_garbage, .. } = written;
        let put = Put { position, events, is_garbage, kept: Kept::Yes };
        self.shards.entry(shard.clone()).or_default().payloads.push(put);
    }

    /// Remembers a message that was published.
    pub(crate) fn publish(&mut self, id: String, written: Written) {
        self.published.insert(id, written);
    }

    /// The ids of all messages.
    pub(crate) fn published(&self) -> Vec<String> {
        self.published.keys().cloned().collect()
    }

    /// Enters a message that came to stand in a spool: each time that it does, it is a payload.
    pub(crate) fn enter_message(&mut self, shard: &ShardId, id: &str, position: Position) {
        let written = self.published.get(id).cloned();
        self.enter(shard, written.expect("it was published"), position);
    }

    fn fresh(&mut self) -> Event {
        self.fresh += 1;
        (format!("log-{}", self.fresh), 2, "alice".to_owned())
    }

    fn earlier(&mut self, number: u16) -> Event {
        match self.seen.len() {
            0 => self.fresh(),
            // The last few are met more often: their batches are still open.
            seen => self.seen[seen - 1 - usize::from(number) % seen.min(60)].clone(),
        }
    }

    /// The shards that can be written to, in their order.
    pub(crate) fn open_shards(&self) -> Vec<ShardId> {
        self.shards.iter().filter(|(_, shard)| !shard.ended).map(|(id, _)| id.clone()).collect()
    }

    /// Whether anything was trimmed that nobody had archived.
    pub(crate) fn has_losses(&self) -> bool {
        self.shards.values().any(|shard| shard.payloads.iter().any(Put::is_lost))
    }
}

fn text((log_id, version, who): &Event) -> String {
    let mut record = record(log_id);
    record["version"] = json!(version);
    record["principal"]["name"] = json!(who);
    if log_id.is_empty() {
        let fields = record.as_object_mut().expect("a record is an object");
        fields.remove("log_id");
        fields.remove("version");
    }
    record.to_string()
}
