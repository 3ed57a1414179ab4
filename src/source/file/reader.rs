//! One file, page by page.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Buf as _;
use jiff::Timestamp;
use tokio::task::{JoinHandle, spawn_blocking};

use super::buffer::Buffer;
use super::content::Content;
use super::{FileOptions, io_error, modified};
use crate::batch::Window;
use crate::ops::clock::Clock;
use crate::record::{Split, split};
use crate::source::{
    Checkpoint, Next, Page, Payload, Position, Reading, ShardId, ShardReader, SourceError, Target, Until,
};

/// How many bytes of payloads make a page, and how many are read at once.
const PAGE_BYTES: usize = 4 << 20;

/// Reads a file on a blocking thread, one page ahead of whoever asks for them. The file is open only while there is
/// something to read: a daemon follows more files than a process may have open.
pub(super) struct FileReader {
    file: File,
    clock: Arc<dyn Clock>,
    state: State,
}

/// Which file, and how it is read.
#[derive(Clone)]
struct File {
    shard: ShardId,
    path: PathBuf,
    options: Arc<FileOptions>,
}

/// A call that is cancelled leaves the page under way for the next call.
enum State {
    Open(Box<Cursor>),
    Reading(JoinHandle<Read>),
    Parked(Box<Parked>),
    Failed,
}

/// What a blocking thread gives back.
type Read = Result<(Page, State), SourceError>;

/// A file whose end was reached, to be opened again once it has changed.
struct Parked {
    reading: Reading,
    arrival: Timestamp,
    seen: Seen,
    /// From when on to look again though nothing has changed: something stands behind what was read, whose end is
    /// waited for.
    look_again: Option<Timestamp>,
}

/// What shows whether a file has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    length: u64,
    modified: Timestamp,
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), length: metadata.len(), modified: modified(metadata) }
    }
}

impl FileReader {
    pub(super) async fn open(
        shard: ShardId,
        path: PathBuf,
        options: Arc<FileOptions>,
        clock: Arc<dyn Clock>,
        reading: Reading,
    ) -> Result<Self, SourceError> {
        let file = File { shard, path, options };
        let (opening, now) = (file.clone(), clock.now());
        let opened = spawn_blocking(move || Cursor::open(opening, reading, None, now)).await;
        let cursor = opened.map_err(|panic| stopped(&file.shard, panic.to_string()))??;
        Ok(Self { file, clock, state: State::Open(Box::new(cursor)) })
    }

    /// The next page of what is open or parked, on a blocking thread.
    fn read(&self, state: State) -> JoinHandle<Read> {
        let (file, now) = (self.file.clone(), self.clock.now());
        spawn_blocking(move || {
            let cursor = match state {
                State::Open(cursor) => cursor,
                State::Parked(parked) => match parked.wake(file, now)? {
                    Woken::Changed(cursor) => cursor,
                    Woken::Same(parked) => {
                        let (next, read_through) = (Next::CaughtUp, now);
                        let page = Page {
                            payloads: Vec::new(),
                            next,
                            read_through,
                            bytes: 0,
                            gap: None,
                            behind: None,
                            held: None,
                        };
                        return Ok((page, State::Parked(parked)));
                    }
                },
                State::Reading(_) | State::Failed => return Err(stopped(&file.shard, "its reader has failed".into())),
            };
            cursor.page(now)
        })
    }
}

#[async_trait]
impl ShardReader for FileReader {
    async fn next(&mut self) -> Result<Page, SourceError> {
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Reading(page) => State::Reading(page),
            idle => State::Reading(self.read(idle)),
        };
        let State::Reading(page) = &mut self.state else { unreachable!("it was just set") };
        let read = page.await;
        self.state = State::Failed;
        let (page, state) = read.map_err(|panic| stopped(&self.file.shard, panic.to_string()))??;
        self.state = if page.next == Next::More { State::Reading(self.read(state)) } else { state };
        Ok(page)
    }
}

/// What became of a parked file.
enum Woken {
    Changed(Box<Cursor>),
    Same(Box<Parked>),
}

impl Parked {
    fn wake(self: Box<Self>, file: File, now: Timestamp) -> Result<Woken, SourceError> {
        let metadata = match std::fs::metadata(&file.path) {
            Ok(metadata) => metadata,
            // It was read to its end, and whoever keeps it may remove it. Should it come back, it must be what it was.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Woken::Same(self)),
            Err(error) => return Err(io_error(&file.shard, &error)),
        };
        if Seen::of(&metadata) != self.seen || self.look_again.is_some_and(|time| time <= now) {
            return Ok(Woken::Changed(Box::new(Cursor::open(file, self.reading, Some(self.arrival), now)?)));
        }
        Ok(Woken::Same(self))
    }
}

/// What a read at the end of the visible content found.
enum End {
    /// There is more after all.
    More,
    /// Nothing for now.
    Wait,
    /// What is in the buffer is all there is.
    Final,
}

/// A place in an open file's content.
struct Cursor {
    file: File,
    /// What was asked for; its `after` moves along.
    reading: Reading,
    content: Content,
    seen: Seen,
    /// Content read and not yet taken.
    buffer: Buffer,
    /// Where the buffer begins in the content.
    offset: u64,
    /// The content ends here for this reader, because a batch that is read again ended here.
    visible: u64,
    /// A reader that has come this far has all that it was asked for.
    enough: u64,
    /// No more is coming: what has no end yet is taken as it is.
    is_final: bool,
    /// Why the compressed content could not be read any further.
    damage: Option<io::Error>,
    arrival: Timestamp,
    last: Option<Payload>,
    /// Stored bytes that pages have accounted for.
    reported: u64,
}

impl Cursor {
    /// Opens the file behind `reading.after`. `before` is the arrival time of what was read until now: what is found
    /// within its window has it too, and so has what comes with an earlier time, as a copied or touched file does. Else
    /// one batch would have two arrival times, of which its lease row remembers one.
    fn open(file: File, reading: Reading, before: Option<Timestamp>, now: Timestamp) -> Result<Self, SourceError> {
        let shard = &file.shard;
        let metadata = std::fs::metadata(&file.path).map_err(|error| io_error(shard, &error))?;
        let stored_limit = match &reading.until {
            Until::Target(Target::Before { sequence, .. }) => sequence.as_u64().unwrap_or(u64::MAX),
            Until::Target(Target::Arrival(_)) | Until::Forever | Until::Through(_) => u64::MAX,
        };
        let visible = match &reading.until {
            Until::Through(through) => payload_end(shard, through)?,
            Until::Forever | Until::Target(_) => u64::MAX,
        };
        let offset = checkpoint_offset(shard, &reading.after)?;
        let opened = Content::open(&file.path, stored_limit.max(offset), offset);
        let (content, skipped) = opened.map_err(|error| io_error(shard, &error))?;
        let window = |arrival| Window::holding(arrival, file.options.window);
        // What is here has arrived: a window in the future would be open until then.
        let noticed = modified(&metadata).min(now);
        let before = before.filter(|&before| window(before).start >= window(noticed).start);
        let mut cursor = Self {
            seen: Seen::of(&metadata),
            arrival: reading.arrival.or(before).unwrap_or(noticed),
            buffer: Buffer::default(),
            offset: skipped,
            visible,
            enough: visible,
            is_final: false,
            damage: None,
            last: None,
            reported: if before.is_some() { content.stored_bytes() } else { 0 },
            content,
            file,
            reading,
        };
        cursor.resume(offset)?;
        Ok(cursor)
    }

    /// Proves that the payload at the checkpoint is still there, and steps over it.
    fn resume(&mut self, offset: u64) -> Result<(), SourceError> {
        let Checkpoint::At { position, bytes, .. } = self.reading.after.clone() else { return Ok(()) };
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        while self.offset == offset && self.buffer.len() < length {
            if self.fill(length - self.buffer.len())? == 0 {
                break;
            }
        }
        if self.offset != offset || self.buffer.len() < length {
            let is = self.offset + self.buffer.len() as u64;
            let reason = format!(
                "the file shrank or was replaced: it is archived up to byte {}, but holds {is} now; restore it, or \
                 give the new content a name of its own",
                offset + bytes
            );
            return Err(stopped(&self.file.shard, reason));
        }
        let payload = self.buffer.split_to(length);
        self.offset += bytes;
        if Checkpoint::at(position, &payload) != self.reading.after {
            let reason = format!(
                "the file was replaced or changed: the record at byte {offset} is not the one that was archived from \
                 there; restore it, or give the new content a name of its own"
            );
            return Err(stopped(&self.file.shard, reason));
        }
        Ok(())
    }

    fn page(mut self: Box<Self>, now: Timestamp) -> Read {
        let mut payloads = Vec::new();
        let mut taken = 0;
        let next = loop {
            if taken >= PAGE_BYTES {
                break Next::More;
            }
            if self.at_end() {
                break Next::Reached;
            }
            match self.step() {
                Ok(Some(payload)) => {
                    taken += payload.data.len().max(1);
                    payloads.push(payload);
                }
                // What was read before it is handed over first; the next page says it again. A batch that is read again
                // is finished whole or not at all.
                Err(_) if !payloads.is_empty() && !self.reads_again() => break Next::More,
                Err(error) => return Err(error),
                Ok(None) if self.fill(PAGE_BYTES)? > 0 => {}
                Ok(None) if self.at_end() => {}
                // The same of damage.
                Ok(None) if self.damage.is_some() && !payloads.is_empty() => break Next::More,
                Ok(None) => match self.look_for_more(now)? {
                    End::More => {}
                    End::Wait => break Next::CaughtUp,
                    End::Final => self.is_final = true,
                },
            }
        };
        let stored = self.content.stored_bytes();
        let bytes = stored.saturating_sub(self.reported);
        self.reported = stored;
        if let Some(last) = payloads.last() {
            self.last = Some(Payload::clone(last));
        }
        let read_through = if next == Next::More { self.arrival } else { now };
        let page = Page { payloads, next, read_through, bytes, gap: None, behind: None, held: None };
        let state = if next == Next::CaughtUp { State::Parked(Box::new(self.park(now))) } else { State::Open(self) };
        Ok((page, state))
    }

    /// Closes the file until it changes. A begun line is read again then.
    fn park(self, now: Timestamp) -> Parked {
        let settled = self.seen.modified.saturating_add(self.settle()).unwrap_or(Timestamp::MAX);
        let look_again = match () {
            () if self.buffer.is_empty() => None,
            () if self.content.is_plain() => Some(Timestamp::MIN),
            // To look into a compressed file again is to read it from its start: once, when its writer is done.
            () => Some(settled).filter(|&settled| settled > now),
        };
        let after = self.last.map_or(self.reading.after, |last| last.checkpoint());
        Parked { reading: Reading { after, ..self.reading }, arrival: self.arrival, seen: self.seen, look_again }
    }

    /// Everything that this reader was asked for has been taken.
    fn at_end(&self) -> bool {
        let follows = self.reading.until == Until::Forever;
        self.offset >= self.enough || (self.is_final && self.buffer.is_empty() && !follows)
    }

    /// The next payload of the buffer, or `None` where it holds no whole one.
    fn step(&mut self) -> Result<Option<Payload>, SourceError> {
        while !self.buffer.is_empty() {
            match split(&self.buffer, self.is_final || self.all_is_buffered()) {
                Split::Blank { len } => self.skip(len),
                // What a batch under way has taken is taken again, whatever the limit is now.
                Split::Unit { skip, len }
                    if len as u64 > self.file.options.max_payload_bytes && !self.reads_again() =>
                {
                    return Err(self.too_large(skip));
                }
                Split::Unit { skip, len } => {
                    self.skip(skip);
                    let position = Position::new(self.offset);
                    let data = self.buffer.split_to(len).freeze();
                    self.offset += len as u64;
                    return self
                        .checked(Payload { position, arrival: self.arrival, source_message: None, data })
                        .map(Some);
                }
                Split::NeedMore if self.buffer.len() as u64 > self.file.options.max_payload_bytes => {
                    return Err(self.too_large(0));
                }
                Split::NeedMore => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The value behind `skip` bytes can't be held.
    fn too_large(&self, skip: usize) -> SourceError {
        let blank = self.buffer[skip..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let reason = format!(
            "the value at byte {} is larger than limits.max_payload_bytes ({}); raise it to read this file",
            self.offset + (skip + blank) as u64,
            bytesize::ByteSize(self.file.options.max_payload_bytes)
        );
        stopped(&self.file.shard, reason)
    }

    /// This is a batch under way, read again.
    fn reads_again(&self) -> bool {
        matches!(self.reading.until, Until::Through(_))
    }

    /// A batch that is read again must end in the payload that it ended in.
    fn checked(&self, payload: Payload) -> Result<Payload, SourceError> {
        match &self.reading.until {
            Until::Through(through) if self.offset >= self.visible && payload.checkpoint() != *through => {
                let reason = format!(
                    "the file was changed while a batch was under way: the record at byte {} is not the one that the \
                     batch ended with; restore the file to finish the batch",
                    payload.position.sequence
                );
                Err(stopped(&self.file.shard, reason))
            }
            _ => Ok(payload),
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.offset += bytes as u64;
    }

    /// A batch that is read again has all of its content in the buffer.
    fn all_is_buffered(&self) -> bool {
        self.offset + self.buffer.len() as u64 >= self.visible
    }

    /// Reads up to `most` bytes more into the buffer; 0 at the end of what there is.
    fn fill(&mut self, most: usize) -> Result<usize, SourceError> {
        let end = self.offset + self.buffer.len() as u64;
        // Doubling what waits keeps a long document's cost linear.
        let most = most.max(self.buffer.len()).min(usize::try_from(self.visible - end).unwrap_or(usize::MAX));
        if most == 0 || self.damage.is_some() {
            return Ok(0);
        }
        match self.buffer.fill(&mut self.content, most) {
            Ok(read) => Ok(read),
            Err(error) if !self.content.is_plain() => {
                self.damage = Some(error);
                Ok(0)
            }
            Err(error) => Err(io_error(&self.file.shard, &error)),
        }
    }

    /// At the end of the content as it was: what now?
    fn look_for_more(&mut self, now: Timestamp) -> Result<End, SourceError> {
        if self.reads_again() {
            let reason = format!(
                "the file shrank while a batch was under way: the batch ends at byte {}, the file at {}; restore the \
                 file to finish the batch",
                self.visible,
                self.offset + self.buffer.len() as u64
            );
            return Err(stopped(&self.file.shard, reason));
        }
        if self.reading.until == Until::Forever && (self.damage.is_some() || self.buffer.is_empty()) {
            if let Some(damage) = &self.damage {
                tracing::warn!(shard = %self.file.shard, byte = self.offset, error = %damage,
                    "the compressed file ends in the middle or is damaged; waiting for it to change: restore it if nobody is writing it");
            }
            return Ok(End::Wait);
        }
        if self.damage.is_some() {
            return Err(self.damaged());
        }
        let metadata = std::fs::metadata(&self.file.path).map_err(|error| io_error(&self.file.shard, &error))?;
        let grown = metadata.len() > self.content.stored_bytes();
        // A time in the future tells as little of a living writer as one that is long past.
        let settled = now.duration_since(modified(&metadata)).abs() >= self.settle();
        match self.reading.until {
            // A document needs no line break behind it; a line that is not whole is waited for, however long.
            Until::Forever if settled && is_whole(&self.buffer) => Ok(End::Final),
            Until::Forever => Ok(End::Wait),
            _ if self.buffer.is_empty() => Ok(End::Final),
            // A line that its writer had begun: it is taken whole, though its end lies behind the target.
            _ if grown && self.content.is_plain() => {
                self.enough = self.content.stored_bytes();
                self.content.set_limit(metadata.len());
                Ok(End::More)
            }
            _ if settled || is_whole(&self.buffer) => Ok(End::Final),
            _ => Ok(End::Wait),
        }
    }

    fn settle(&self) -> jiff::SignedDuration {
        jiff::SignedDuration::try_from(self.file.options.settle).unwrap_or(jiff::SignedDuration::MAX)
    }

    fn damaged(&mut self) -> SourceError {
        let damage = self.damage.take().map_or_else(String::new, |error| error.to_string());
        let reason = format!(
            "the compressed file is cut off or damaged behind byte {} of its content ({damage}); what comes before is \
             archived, nothing is skipped: restore the file and run again",
            self.offset + self.buffer.len() as u64
        );
        stopped(&self.file.shard, reason)
    }
}

/// Whether these bytes are complete JSON values, to which a writer has nothing to add.
fn is_whole(bytes: &[u8]) -> bool {
    serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>().all(|value| value.is_ok())
}

fn stopped(shard: &ShardId, reason: String) -> SourceError {
    SourceError::Stopped { shard: shard.clone(), reason }
}

fn checkpoint_offset(shard: &ShardId, checkpoint: &Checkpoint) -> Result<u64, SourceError> {
    let Some(position) = checkpoint.position() else { return Ok(0) };
    let offset = position.sequence.as_u64();
    offset.ok_or_else(|| stopped(shard, format!("its checkpoint {position} is no byte offset")))
}

fn payload_end(shard: &ShardId, checkpoint: &Checkpoint) -> Result<u64, SourceError> {
    let Checkpoint::At { bytes, .. } = checkpoint else { return Ok(0) };
    Ok(checkpoint_offset(shard, checkpoint)? + bytes)
}
