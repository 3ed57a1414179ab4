//! One file, page by page.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use jiff::Timestamp;
use tokio::task::{JoinHandle, spawn_blocking};

use super::content::Content;
use super::{FileOptions, io_error, modified};
use crate::batch::Window;
use crate::ops::clock::Clock;
use crate::record::{Split, split};
use crate::source::{Checkpoint, Next, Page, Payload, Position, Reading, ShardId, ShardReader, SourceError, Until};

/// How many bytes of payloads make a page, and how many are read at once.
const PAGE_BYTES: usize = 1 << 20;

/// Reads a file on a blocking thread, one page ahead of whoever asks for them.
pub(super) struct FileReader {
    shard: ShardId,
    clock: Arc<dyn Clock>,
    state: State,
}

/// The cursor is here or with a page under way; a call that is cancelled leaves the page under way for the next call.
enum State {
    Idle(Box<Cursor>),
    Reading(JoinHandle<(Box<Cursor>, Result<Page, SourceError>)>),
    Failed,
}

impl FileReader {
    pub(super) async fn open(
        shard: ShardId,
        path: PathBuf,
        options: Arc<FileOptions>,
        clock: Arc<dyn Clock>,
        reading: Reading,
    ) -> Result<Self, SourceError> {
        let name = shard.clone();
        let opened = spawn_blocking(move || Cursor::open(name, path, options, reading)).await;
        let cursor = opened.map_err(|panic| stopped(&shard, panic.to_string()))??;
        Ok(Self { shard, clock, state: State::Idle(Box::new(cursor)) })
    }

    fn read_on(&self, mut cursor: Box<Cursor>) -> State {
        let now = self.clock.now();
        State::Reading(spawn_blocking(move || {
            let page = cursor.page(now);
            (cursor, page)
        }))
    }
}

#[async_trait]
impl ShardReader for FileReader {
    async fn next(&mut self) -> Result<Page, SourceError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(cursor) => self.state = self.read_on(cursor),
            state => self.state = state,
        }
        let State::Reading(page) = &mut self.state else {
            return Err(stopped(&self.shard, "its reader has failed before".into()));
        };
        let finished = page.await;
        self.state = State::Failed;
        let (cursor, page) = finished.map_err(|panic| stopped(&self.shard, panic.to_string()))?;
        let page = page?;
        self.state = if page.next == Next::More { self.read_on(cursor) } else { State::Idle(cursor) };
        Ok(page)
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

/// A place in a file's content.
struct Cursor {
    shard: ShardId,
    path: PathBuf,
    options: Arc<FileOptions>,
    until: Until,
    content: Content,
    /// The file that is open, as (device, inode).
    file: (u64, u64),
    /// Content read and not yet taken.
    buffer: BytesMut,
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
    /// The arrival time is given, not the file's.
    arrival_fixed: bool,
    /// The last page ended at the file's end, where it waits for more.
    waiting: bool,
    /// Stored bytes that pages have accounted for.
    reported: u64,
}

impl Cursor {
    fn open(shard: ShardId, path: PathBuf, options: Arc<FileOptions>, reading: Reading) -> Result<Self, SourceError> {
        let metadata = std::fs::metadata(&path).map_err(|error| io_error(&shard, &error))?;
        let stored_limit = match &reading.until {
            Until::Target(target) => target.before.as_u64().unwrap_or(u64::MAX),
            Until::Forever | Until::Through(_) => u64::MAX,
        };
        let offset = checkpoint_offset(&shard, &reading.after)?;
        let opened = Content::open(&path, stored_limit.max(offset), offset);
        let (content, skipped) = opened.map_err(|error| io_error(&shard, &error))?;
        let visible = match &reading.until {
            Until::Through(through) => payload_end(&shard, through)?,
            Until::Forever | Until::Target(_) => u64::MAX,
        };
        let mut cursor = Self {
            file: (metadata.dev(), metadata.ino()),
            arrival: reading.arrival.unwrap_or_else(|| modified(&metadata)),
            arrival_fixed: reading.arrival.is_some(),
            until: reading.until,
            buffer: BytesMut::new(),
            is_final: false,
            damage: None,
            waiting: false,
            reported: 0,
            shard,
            path,
            options,
            content,
            offset: skipped,
            visible,
            enough: visible,
        };
        cursor.resume(offset, &reading.after)?;
        Ok(cursor)
    }

    /// Proves that the payload at the checkpoint is still there, and steps over it.
    fn resume(&mut self, offset: u64, after: &Checkpoint) -> Result<(), SourceError> {
        let Checkpoint::At { position, bytes, .. } = after else { return Ok(()) };
        let length = usize::try_from(*bytes).unwrap_or(usize::MAX);
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
            return Err(stopped(&self.shard, reason));
        }
        let payload = self.buffer.split_to(length);
        self.offset += bytes;
        if Checkpoint::at(position.clone(), &payload) != *after {
            let reason = format!(
                "the file was replaced or changed: the record at byte {offset} is not the one that was archived from \
                 there; restore it, or give the new content a name of its own"
            );
            return Err(stopped(&self.shard, reason));
        }
        Ok(())
    }

    fn page(&mut self, now: Timestamp) -> Result<Page, SourceError> {
        let mut payloads = Vec::new();
        let mut taken = 0;
        if std::mem::take(&mut self.waiting) {
            self.look_for_more(now)?;
        }
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
                Err(_) if !payloads.is_empty() && !matches!(self.until, Until::Through(_)) => break Next::More,
                Err(error) => return Err(error),
                Ok(None) if self.fill(PAGE_BYTES)? > 0 => {}
                Ok(None) if self.at_end() => {}
                // The same of damage.
                Ok(None) if self.damage.is_some() && !payloads.is_empty() => break Next::More,
                Ok(None) => match self.look_for_more(now)? {
                    End::More => {}
                    End::Wait => {
                        self.waiting = true;
                        break Next::CaughtUp;
                    }
                    End::Final => self.is_final = true,
                },
            }
        };
        let stored = self.content.stored_bytes();
        let bytes = stored.saturating_sub(self.reported);
        self.reported = stored;
        let read_through = if next == Next::More { self.arrival } else { now };
        Ok(Page { payloads, next, read_through, bytes, gap: None })
    }

    /// Everything that this reader was asked for has been taken.
    fn at_end(&self) -> bool {
        self.offset >= self.enough || (self.is_final && self.buffer.is_empty())
    }

    /// The next payload of the buffer, or `None` where it holds no whole one.
    fn step(&mut self) -> Result<Option<Payload>, SourceError> {
        while !self.buffer.is_empty() {
            match split(&self.buffer, self.is_final || self.all_is_buffered()) {
                Split::Blank { len } => self.skip(len),
                Split::Unit { skip, len } => {
                    self.skip(skip);
                    // What a batch under way has taken is taken again, whatever the limit is now.
                    if len as u64 > self.options.max_payload_bytes && !matches!(self.until, Until::Through(_)) {
                        return Err(self.too_large());
                    }
                    let position = Position::new(self.offset);
                    let data = self.buffer.split_to(len).freeze();
                    self.offset += len as u64;
                    return self.checked(Payload { position, arrival: self.arrival, data }).map(Some);
                }
                Split::NeedMore if self.buffer.len() as u64 > self.options.max_payload_bytes => {
                    return Err(self.too_large());
                }
                Split::NeedMore => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The buffer begins with a value that is larger than may be read.
    fn too_large(&self) -> SourceError {
        let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let reason = format!(
            "the value at byte {} is larger than limits.max_payload_bytes ({}); raise it to read this file",
            self.offset + blank as u64,
            bytesize::ByteSize(self.options.max_payload_bytes)
        );
        stopped(&self.shard, reason)
    }

    /// A batch that is read again must end in the payload that it ended in.
    fn checked(&self, payload: Payload) -> Result<Payload, SourceError> {
        match &self.until {
            Until::Through(through) if self.offset >= self.visible && payload.checkpoint() != *through => {
                let reason = format!(
                    "the file was changed while a batch was under way: the record at byte {} is not the one that the \
                     batch ended with; restore the file to finish the batch",
                    payload.position.sequence
                );
                Err(stopped(&self.shard, reason))
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
        let held = self.buffer.len();
        self.buffer.resize(held + most, 0);
        let read = self.content.read(&mut self.buffer[held..]);
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(read) => Ok(read),
            Err(error) if !self.content.is_plain() => {
                self.damage = Some(error);
                Ok(0)
            }
            Err(error) => Err(io_error(&self.shard, &error)),
        }
    }

    /// At the end of the content as it was: what now?
    fn look_for_more(&mut self, now: Timestamp) -> Result<End, SourceError> {
        if matches!(self.until, Until::Through(_)) {
            let reason = format!(
                "the file shrank while a batch was under way: the batch ends at byte {}, the file at {}; restore the \
                 file to finish the batch",
                self.visible,
                self.offset + self.buffer.len() as u64
            );
            return Err(stopped(&self.shard, reason));
        }
        let metadata = std::fs::metadata(&self.path).map_err(|error| io_error(&self.shard, &error))?;
        if (metadata.dev(), metadata.ino()) != self.file || metadata.len() < self.content.stored_bytes() {
            let reason = "the file shrank or was replaced while it was read; give new content a name of its own";
            return Err(stopped(&self.shard, reason.into()));
        }
        let grown = metadata.len() > self.content.stored_bytes();
        match self.until {
            Until::Forever if grown => self.grow(&metadata).map(|()| End::More),
            Until::Forever => Ok(self.wait()),
            _ if self.damage.is_some() => Err(self.damaged()),
            _ if self.buffer.is_empty() => Ok(End::Final),
            // A line that its writer had begun: it is taken whole, though its end lies behind the target.
            _ if grown && self.content.is_plain() => {
                self.enough = self.content.stored_bytes();
                self.content.set_limit(metadata.len());
                Ok(End::More)
            }
            _ if is_whole(&self.buffer) => Ok(End::Final),
            _ if now.duration_since(modified(&metadata)) >= self.settle() => Ok(End::Final),
            _ => Ok(End::Wait),
        }
    }

    fn settle(&self) -> jiff::SignedDuration {
        jiff::SignedDuration::try_from(self.options.settle).unwrap_or(jiff::SignedDuration::MAX)
    }

    fn wait(&mut self) -> End {
        if let Some(damage) = &self.damage {
            tracing::warn!(shard = %self.shard, byte = self.offset, error = %damage,
                "the compressed file ends in the middle or is damaged; waiting for the rest of it");
        }
        End::Wait
    }

    fn damaged(&mut self) -> SourceError {
        let damage = self.damage.take().map_or_else(String::new, |error| error.to_string());
        let reason = format!(
            "the compressed file is cut off or damaged behind byte {} of its content ({damage}); what comes before is \
             archived, nothing is skipped: restore the file and run again",
            self.offset + self.buffer.len() as u64
        );
        stopped(&self.shard, reason)
    }

    /// The file has grown: what is new arrives now.
    fn grow(&mut self, metadata: &std::fs::Metadata) -> Result<(), SourceError> {
        let noticed = modified(metadata);
        let window = |arrival| Window::holding(arrival, self.options.window);
        if !self.arrival_fixed && window(noticed) != window(self.arrival) {
            self.arrival = noticed;
        }
        if !self.content.is_plain() {
            // A decoder that has seen its end reads no further: begin again, and pass over what is taken.
            let skip = self.offset + self.buffer.len() as u64;
            let opened = Content::open(&self.path, u64::MAX, skip);
            let (content, skipped) = opened.map_err(|error| io_error(&self.shard, &error))?;
            self.damage = (skipped < skip).then(|| io::ErrorKind::UnexpectedEof.into());
            self.content = content;
        }
        Ok(())
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
