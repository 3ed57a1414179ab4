//! HTTP/1.1 on a connection: heads and bodies, read piece by piece and passed on as they come.

use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::message::Headers;

const LONGEST_HEAD: usize = 256 * 1024;
const MOST_HEADERS: usize = 256;
const PIECE: usize = 64 * 1024;

/// One connection, to the client or to the server.
pub(super) struct Link {
    pub(super) reader: Reader,
    pub(super) writer: OwnedWriteHalf,
    /// When it was last of use.
    pub(super) used: Instant,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (from, writer) = stream.into_split();
        Ok(Self { reader: Reader { from, buffer: BytesMut::with_capacity(PIECE) }, writer, used: Instant::now() })
    }

    /// Has the other side see a connection that was reset, once this is dropped.
    pub(super) fn reset(&self) {
        let _ = self.writer.as_ref().set_zero_linger();
    }

    /// Whether nothing has come, not even its end.
    pub(super) fn is_quiet(&self) -> bool {
        let nothing_came = self.reader.from.try_read(&mut [0]);
        self.reader.buffer.is_empty() && nothing_came.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The side of a connection that is read.
pub(super) struct Reader {
    from: OwnedReadHalf,
    buffer: BytesMut,
}

/// The first line and the header.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Of a request `[method, target]`, of an answer `[status, reason]`.
    pub(super) start: [String; 2],
    pub(super) headers: Headers,
    /// Whether the connection ends with this message.
    pub(super) is_last: bool,
}

impl Head {
    fn new(start: [String; 2], minor: Option<u8>, parsed: &[httparse::Header<'_>]) -> Self {
        let mut headers = Headers::default();
        for header in parsed {
            headers.add(header.name, String::from_utf8_lossy(header.value));
        }
        let is_last = minor == Some(0) || headers.has_word("connection", "close");
        Self { start, headers, is_last }
    }

    /// It as bytes, with a body of this framing.
    pub(super) fn text(&self, first: &str, framing: Framing) -> String {
        let mut text = format!("{first}\r\n");
        // These are about one connection, and there are two.
        let own = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "content-length", "expect"];
        for (name, value) in
            self.headers.iter().filter(|(name, _)| own.iter().all(|own| !name.eq_ignore_ascii_case(own)))
        {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        match framing {
            Framing::None => {}
            Framing::Length(length) => _ = write!(text, "content-length: {length}\r\n"),
            Framing::Chunked(_) => text.push_str("transfer-encoding: chunked\r\n"),
            Framing::ToTheEnd => text.push_str("connection: close\r\n"),
        }
        text.push_str("\r\n");
        text
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, and what is left of the present one.
    Chunked(u64),
    /// All until the connection ends.
    ToTheEnd,
}

impl Framing {
    fn of(headers: &Headers) -> io::Result<Option<Self>> {
        if headers.has_word("transfer-encoding", "chunked") {
            return Ok(Some(Self::Chunked(0)));
        }
        headers.get("content-length").map(|length| length.trim().parse().map(Self::Length).map_err(wrong)).transpose()
    }

    pub(super) fn of_request(head: &Head) -> io::Result<Self> {
        Ok(Self::of(&head.headers)?.unwrap_or(Self::None))
    }

    pub(super) fn of_answer(method: &str, status: u16, headers: &Headers) -> io::Result<Self> {
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(Self::None);
        }
        Ok(Self::of(headers)?.unwrap_or(Self::ToTheEnd))
    }
}

impl Reader {
    /// Waits for more bytes; false at the end.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(PIECE);
        Ok(self.from.read_buf(&mut self.buffer).await? > 0)
    }

    async fn must_fill(&mut self) -> io::Result<()> {
        if self.fill().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The next request's head; none where the client has ended the connection.
    pub(super) async fn request(&mut self) -> io::Result<Option<Head>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(length) = request.parse(&self.buffer).map_err(wrong)? {
                let start =
                    [request.method.unwrap_or_default().to_owned(), request.path.unwrap_or_default().to_owned()];
                let head = Head::new(start, request.version, request.headers);
                self.buffer.advance(length);
                return Ok(Some(head));
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(wrong("the head has no end"));
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next answer's head, passing over interim ones, and its status.
    pub(super) async fn answer(&mut self) -> io::Result<(u16, Head)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut answer = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) = answer.parse(&self.buffer).map_err(wrong)? {
                let status = answer.code.unwrap_or_default();
                let start = [status.to_string(), answer.reason.unwrap_or_default().to_owned()];
                let head = Head::new(start, answer.version, answer.headers);
                self.buffer.advance(length);
                if status < 200 {
                    continue;
                }
                return Ok((status, head));
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(wrong("the head has no end"));
            }
            self.must_fill().await?;
        }
    }

    /// The next piece of a body; none after its end.
    pub(super) async fn piece(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        match framing {
            Framing::None | Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                let piece = self.at_most(*left).await?;
                *left -= piece.len() as u64;
                Ok(Some(piece))
            }
            Framing::Chunked(0) => {
                let size = self.line().await?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(wrong)?;
                if size == 0 {
                    // The trailer is not passed on: nobody here uses one.
                    while !self.line().await?.is_empty() {}
                    *framing = Framing::None;
                    return Ok(None);
                }
                self.chunk(framing, size).await.map(Some)
            }
            Framing::Chunked(left) => {
                let left = *left;
                self.chunk(framing, left).await.map(Some)
            }
            Framing::ToTheEnd => {
                if self.buffer.is_empty() && !self.fill().await? {
                    return Ok(None);
                }
                Ok(Some(self.buffer.split().freeze()))
            }
        }
    }

    async fn chunk(&mut self, framing: &mut Framing, size: u64) -> io::Result<Bytes> {
        let piece = self.at_most(size).await?;
        let left = size - piece.len() as u64;
        *framing = Framing::Chunked(left);
        if left == 0 && !self.line().await?.is_empty() {
            return Err(wrong("a chunk is longer than it says"));
        }
        Ok(piece)
    }

    /// A whole body.
    pub(super) async fn whole(&mut self, mut framing: Framing) -> io::Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece(&mut framing).await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn at_most(&mut self, most: u64) -> io::Result<Bytes> {
        if self.buffer.is_empty() {
            self.must_fill().await?;
        }
        let length = self.buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.advance(end + 2);
                return Ok(line);
            }
            self.must_fill().await?;
        }
    }
}

/// Writes a piece of a body; an empty one ends it.
pub(super) async fn write_piece(into: &mut OwnedWriteHalf, framing: Framing, piece: &[u8]) -> io::Result<()> {
    if !matches!(framing, Framing::Chunked(_)) {
        return into.write_all(piece).await;
    }
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(piece);
    chunk.extend_from_slice(b"\r\n");
    into.write_all(&chunk).await
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
