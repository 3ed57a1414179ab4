//! What Google's emulator has to be told: that a stream is over.
//!
//! Version 0.8.20 fails where a client resets a stream (`NoSuchMethodError` in its log), and does not look where one is cut
//! off. The stream goes on there for as long as the emulator runs, and takes messages that nobody gets: each stays away until
//! its deadline is over, and may be taken again. It does hear of a client that ends its side of a stream, and so that is what
//! it is told in the place of both. Nothing else is changed on the way.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How long the emulator may take to end what its client has left.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So many bytes tell it from HTTP/1.
const TELLING: usize = 3;

// RFC 9113, 4.1 and 6.
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Stands before the emulator at `upstream`, an `http://host:port`, for as long as the process lives; its own address.
pub(super) fn stand_before(upstream: &str) -> String {
    let upstream = upstream.strip_prefix("http://").expect("the emulator speaks HTTP").to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // A test that blocks its own thread does not stop it, nor does the end of a test's runtime.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let upstream = upstream.clone();
                #[allow(clippy::disallowed_methods, reason = "it lives as long as its connection")]
                tokio::spawn(async move {
                    // Whoever is cut off tells it.
                    let _ = serve(client, &upstream).await;
                });
            }
        });
    });
    url
}

async fn serve(mut client: TcpStream, upstream: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut begun = [0; PREFACE.len()];
    client.read_exact(&mut begun[..TELLING]).await?;
    if begun[..TELLING] != PREFACE[..TELLING] {
        server.write_all(&begun[..TELLING]).await?;
        return tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop);
    }
    // In one piece: the emulator takes what begins with less for HTTP/1.
    client.read_exact(&mut begun[TELLING..]).await?;
    server.write_all(&begun).await?;
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let streams = Streams::default();
    tokio::select! {
        there = streams.there(from_client, to_server) => there,
        back = streams.back(from_server, to_client) => back,
    }
}

/// The streams of one connection, as both sides see them.
#[derive(Default)]
struct Streams {
    open: Mutex<Open>,
    all_ended: Notify,
}

impl Streams {
    fn with<T>(&self, look: impl FnOnce(&mut Open) -> T) -> T {
        look(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From the client to the server, until both are done with each other.
    async fn there(&self, mut client: impl AsyncRead + Unpin, mut server: impl AsyncWrite + Unpin) -> io::Result<()> {
        while let Ok(frame) = Frame::read(&mut client).await {
            if let Some(frame) = self.with(|open| open.sent(frame)) {
                server.write_all(&frame.0).await?;
            }
        }
        for end in self.with(Open::end_all) {
            server.write_all(&end.0).await?;
        }
        let ended = async {
            while !self.with(|open| open.is_answered()) {
                self.all_ended.notified().await;
            }
        };
        let _ = tokio::time::timeout(ENDED_WITHIN, ended).await;
        Ok(())
    }

    /// From the server to the client; to nobody, once it has left.
    async fn back(&self, mut server: impl AsyncRead + Unpin, mut client: impl AsyncWrite + Unpin) -> io::Result<()> {
        loop {
            let frame = Frame::read(&mut server).await?;
            let _ = client.write_all(&frame.0).await;
            self.with(|open| open.answered(&frame));
            self.all_ended.notify_one();
        }
    }
}

/// Which streams are not over yet (pure).
#[derive(Default)]
struct Open {
    /// Those that the client may still send on.
    by_client: BTreeSet<u32>,
    /// Those that the server may still send on.
    by_server: BTreeSet<u32>,
}

impl Open {
    /// What the server gets in the place of what the client sent.
    fn sent(&mut self, frame: Frame) -> Option<Frame> {
        let stream = frame.stream();
        if frame.kind() == HEADERS {
            self.by_client.insert(stream);
            self.by_server.insert(stream);
        }
        let was_open = frame.ends() && self.by_client.remove(&stream);
        match frame.kind() {
            RST_STREAM if self.by_server.contains(&stream) => was_open.then(|| Frame::end(stream)),
            _ => Some(frame),
        }
    }

    fn answered(&mut self, frame: &Frame) {
        if frame.ends() {
            self.by_server.remove(&frame.stream());
        }
    }

    /// What the server gets of a client that has left.
    fn end_all(&mut self) -> Vec<Frame> {
        let left = std::mem::take(&mut self.by_client);
        left.into_iter().filter(|stream| self.by_server.contains(stream)).map(Frame::end).collect()
    }

    fn is_answered(&self) -> bool {
        self.by_server.is_empty()
    }
}

/// A frame, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame(Vec<u8>);

impl Frame {
    /// What has ended in the middle of a frame has sent none of it.
    async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = vec![0; FRAME_HEAD];
        from.read_exact(&mut bytes).await?;
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        bytes.resize(FRAME_HEAD + length, 0);
        from.read_exact(&mut bytes[FRAME_HEAD..]).await?;
        Ok(Self(bytes))
    }

    /// No more comes on this stream: empty data, and the end.
    fn end(stream: u32) -> Self {
        let mut bytes = vec![0, 0, 0, DATA, END_STREAM];
        bytes.extend(stream.to_be_bytes());
        Self(bytes)
    }

    fn kind(&self) -> u8 {
        self.0[3]
    }

    fn stream(&self) -> u32 {
        u32::from_be_bytes([self.0[5] & 0x7f, self.0[6], self.0[7], self.0[8]])
    }

    /// Whether its sender sends no more on its stream.
    fn ends(&self) -> bool {
        self.kind() == RST_STREAM || (matches!(self.kind(), DATA | HEADERS) && self.0[4] & END_STREAM != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, body: &[u8]) -> Frame {
        let mut bytes = vec![0, 0, u8::try_from(body.len()).unwrap(), kind, flags, 0, 0, 0, stream];
        bytes.extend(body);
        Frame(bytes)
    }

    fn headers(flags: u8) -> Frame {
        frame(HEADERS, flags, 1, b"head")
    }

    fn reset() -> Frame {
        frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])
    }

    #[test]
    fn a_stream_that_is_reset_is_ended() {
        let mut open = Open::default();
        for frame in [headers(0), frame(DATA, 0, 1, b"one")] {
            assert_eq!(open.sent(frame.clone()), Some(frame));
        }
        assert_eq!(open.sent(reset()), Some(Frame::end(1)));
        assert!(!open.is_answered());
        open.answered(&headers(END_STREAM));
        assert!(open.is_answered());
        assert_eq!(open.end_all(), []);
    }

    #[test]
    fn a_stream_is_ended_once() {
        let mut ended = Open::default();
        ended.sent(headers(0));
        ended.sent(frame(DATA, END_STREAM, 1, b"last"));
        assert_eq!(ended.sent(reset()), None);
        assert_eq!(ended.end_all(), []);
        let mut answered = Open::default();
        answered.sent(headers(0));
        answered.answered(&headers(END_STREAM));
        assert_eq!(answered.end_all(), []);
        answered.sent(headers(0));
        answered.answered(&headers(END_STREAM));
        assert_eq!(answered.sent(reset()), Some(reset()), "the server has ended it, and so it does no harm");
    }

    #[test]
    fn a_flag_of_another_kind_of_frame_is_no_end() {
        let (settings_taken, ping_answered) = (frame(4, 1, 0, &[]), frame(6, 1, 0, &[0; 8]));
        assert!(!settings_taken.ends() && !ping_answered.ends());
    }

    /// Two connections to a server of its own: what it gets of a client that is killed in the middle of a frame, and of one
    /// that speaks HTTP/1.
    #[tokio::test]
    async fn who_leaves_has_ended_all_its_streams() {
        let emulator = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = stand_before(&format!("http://{}", emulator.local_addr().unwrap()));
        let address = url.trim_start_matches("http://");

        let mut client = TcpStream::connect(address).await.unwrap();
        let whole = headers(0);
        client.write_all(&[&PREFACE[..], &whole.0, &[0, 0, 9, DATA, 0, 0]].concat()).await.unwrap();
        let (mut served, _) = emulator.accept().await.unwrap();
        let mut preface = [0; PREFACE.len()];
        served.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, PREFACE);
        assert_eq!(Frame::read(&mut served).await.unwrap(), whole);
        drop(client);
        assert_eq!(Frame::read(&mut served).await.unwrap(), Frame::end(1));
        served.write_all(&headers(END_STREAM).0).await.unwrap();
        assert_eq!(served.read(&mut [0]).await.unwrap(), 0, "it is cut once the stream has ended");

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut served, _) = emulator.accept().await.unwrap();
        let mut came = String::new();
        served.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "GET / HTTP/1.0\r\n\r\n");
        served.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
        drop(served);
        came.clear();
        client.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "HTTP/1.0 200 OK\r\n\r\n");
    }
}
