//! One connection: its requests, one after the other, and what befalls them.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::message::{Answer, Request};
use super::operation::operation;
use super::rule::Action;
use super::shared::{Recorded, Shared};
use super::wire::{Framing, Head, Link, Reader, write_piece};

/// Shorter than any server keeps a connection that is of no use: one that is about to be closed is never used again.
const STALE: Duration = Duration::from_secs(1);

/// How a request ended.
enum Ended {
    /// The connection is of further use.
    Well,
    /// Everything was said; the connection ends.
    Closed,
    /// The connection is to be reset.
    Cut,
}

pub(super) async fn serve(stream: TcpStream, shared: &Shared, is_cut: impl Future<Output = ()>) {
    let Ok(mut client) = Link::new(stream) else { return };
    let mut server = None;
    let ended = tokio::select! {
        biased;
        () = is_cut => Ended::Cut,
        ended = exchanges(&mut client, &mut server, shared) => ended,
    };
    match ended {
        Ended::Cut => client.reset(),
        Ended::Closed | Ended::Well => _ = client.writer.shutdown().await,
    }
}

async fn exchanges(client: &mut Link, server: &mut Option<Link>, shared: &Shared) -> Ended {
    loop {
        match exchange(client, server, shared).await {
            Ok(Ended::Well) => {}
            Ok(ended) => return ended,
            // The server broke off, or the client did: nothing that is left to say would be understood.
            Err(_) => return Ended::Cut,
        }
    }
}

/// A request on its way.
struct Call<'a> {
    shared: &'a Shared,
    record: u64,
    head: Head,
    /// How its body comes from the client.
    framing: Framing,
    /// The body, where it was read whole.
    whole: Option<Bytes>,
}

/// What is done to an answer.
enum Fate {
    Pass,
    Lose,
    CutAfter(u64),
    Delay(Duration),
    Edit(std::sync::Arc<dyn Fn(&mut Answer) + Send + Sync>),
}

async fn exchange(client: &mut Link, server: &mut Option<Link>, shared: &Shared) -> io::Result<Ended> {
    let Some(head) = client.reader.request().await? else { return Ok(Ended::Closed) };
    let [method, target] = head.start.clone();
    let operation = operation(&method, &target, &head.headers);
    let record = shared.record(Recorded {
        at: Instant::now(),
        operation: operation.clone(),
        method,
        target: target.clone(),
        headers: head.headers.clone(),
        body_length: 0,
        status: None,
    });
    let framing = Framing::of_request(&head)?;
    if head.headers.has_word("expect", "100-continue") {
        client.writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut call = Call { shared, record, head, framing, whole: None };
    if shared.wants_body(&operation, &target) {
        call.read_body(&mut client.reader).await?;
    }
    let mut fate = Fate::Pass;
    match shared.strike(&operation, &target, call.whole.as_deref()) {
        None => {}
        Some((_, Action::Cut)) => return Ok(Ended::Cut),
        Some((_, Action::Answer(answer))) => {
            call.read_body(&mut client.reader).await?;
            call.answer(&mut client.writer, &answer).await?;
            return Ok(if call.head.is_last { Ended::Closed } else { Ended::Well });
        }
        Some((rule, Action::Hang)) => {
            call.read_body(&mut client.reader).await?;
            tokio::select! {
                () = shared.healed(rule) => {}
                () = gone(&mut client.reader) => return Ok(Ended::Cut),
            }
        }
        Some((_, Action::Delay(by))) => {
            call.read_body(&mut client.reader).await?;
            tokio::time::sleep(by).await;
        }
        Some((_, Action::EditRequest(edit))) => {
            call.read_body(&mut client.reader).await?;
            call.edit(&*edit);
        }
        Some((_, Action::LoseAnswer)) => fate = Fate::Lose,
        Some((_, Action::CutAnswerAfter(bytes))) => fate = Fate::CutAfter(bytes),
        Some((_, Action::DelayAnswer(by))) => fate = Fate::Delay(by),
        Some((_, Action::EditAnswer(edit))) => fate = Fate::Edit(edit),
    }
    call.forward(client, server, fate).await
}

/// Waits until the client has given up.
async fn gone(reader: &mut Reader) {
    while let Ok(true) = reader.fill().await {}
}

impl Call<'_> {
    async fn read_body(&mut self, from: &mut Reader) -> io::Result<()> {
        if self.whole.is_none() {
            let body = from.whole(self.framing).await?;
            self.shared.amend(self.record, |recorded| recorded.body_length = body.len() as u64);
            self.whole = Some(body);
        }
        Ok(())
    }

    fn edit(&mut self, edit: &dyn Fn(&mut Request)) {
        let [method, target] = self.head.start.clone();
        let body = self.whole.take().unwrap_or_default();
        let mut request = Request { method, target, headers: self.head.headers.clone(), body };
        edit(&mut request);
        self.head.start = [request.method, request.target];
        self.head.headers = request.headers;
        self.whole = Some(request.body);
    }

    fn answered(&self, status: u16) {
        self.shared.amend(self.record, |recorded| recorded.status = Some(status));
    }

    /// Answers without the server.
    async fn answer(&self, into: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
        let head = Head { start: Default::default(), headers: answer.headers.clone(), is_last: false };
        let is_head = self.head.start[0] == "HEAD";
        let framing = match (answer.status, answer.headers.get("content-length")) {
            (204 | 304, _) => Framing::None,
            // The length of what a GET would give.
            (_, Some(length)) if is_head => Framing::Length(length.trim().parse().unwrap_or_default()),
            _ => Framing::Length(answer.body.len() as u64),
        };
        let mut whole = head.text(&format!("HTTP/1.1 {} -", answer.status), framing).into_bytes();
        if !is_head {
            whole.extend_from_slice(&answer.body);
        }
        self.answered(answer.status);
        into.write_all(&whole).await
    }

    async fn forward(&self, client: &mut Link, server: &mut Option<Link>, fate: Fate) -> io::Result<Ended> {
        let mut link = match server.take() {
            Some(link) if link.used.elapsed() < STALE && link.is_quiet() => link,
            _ => Link::new(TcpStream::connect(&self.shared.upstream).await?)?,
        };
        let (ended, may_stay) = self.converse(client, &mut link, fate).await?;
        if may_stay {
            link.used = Instant::now();
            *server = Some(link);
        }
        Ok(if self.head.is_last { close(ended) } else { ended })
    }

    /// Sends the request and passes the answer on; whether the server's connection is of further use.
    async fn converse(&self, client: &mut Link, server: &mut Link, fate: Fate) -> io::Result<(Ended, bool)> {
        let sent = self.send(&mut client.reader, &mut server.writer);
        let mut answered = pin!(self.receive(&mut server.reader, &mut client.writer, fate));
        tokio::select! {
            biased;
            sent = sent => match sent {
                Ok(()) => answered.await,
                Err(Broken::Client(error)) => Err(error),
                // It may have answered before it stopped listening.
                Err(Broken::Server) => Ok((close(answered.await?.0), false)),
            },
            // It did not want to hear all of it; what the client still says belongs to no request.
            answered = &mut answered => Ok((close(answered?.0), false)),
        }
    }

    async fn send(&self, from: &mut Reader, into: &mut OwnedWriteHalf) -> Result<(), Broken> {
        let framing = match (&self.whole, self.framing) {
            (Some(body), Framing::None) if body.is_empty() => Framing::None,
            (Some(body), _) => Framing::Length(body.len() as u64),
            (None, framing) => framing,
        };
        let [method, target] = &self.head.start;
        let mut first = self.head.text(&format!("{method} {target} HTTP/1.1"), framing).into_bytes();
        if let Some(body) = &self.whole {
            first.extend_from_slice(body);
        }
        into.write_all(&first).await.map_err(|_| Broken::Server)?;
        if self.whole.is_some() {
            return Ok(());
        }
        let mut left = framing;
        while let Some(piece) = from.piece(&mut left).await.map_err(Broken::Client)? {
            self.shared.amend(self.record, |recorded| recorded.body_length += piece.len() as u64);
            write_piece(into, framing, &piece).await.map_err(|_| Broken::Server)?;
        }
        if matches!(framing, Framing::Chunked(_)) {
            write_piece(into, framing, &[]).await.map_err(|_| Broken::Server)?;
        }
        Ok(())
    }

    /// Passes the answer on; whether the server's connection is of further use.
    async fn receive(&self, from: &mut Reader, into: &mut OwnedWriteHalf, fate: Fate) -> io::Result<(Ended, bool)> {
        let (status, head) = from.answer().await?;
        let method = &self.head.start[0];
        let framing = Framing::of_answer(method, status, &head.headers)?;
        let may_stay = !head.is_last && framing != Framing::ToTheEnd;
        let mut most = u64::MAX;
        match fate {
            Fate::Pass => {}
            Fate::Lose => {
                from.whole(framing).await?;
                return Ok((Ended::Cut, may_stay));
            }
            Fate::CutAfter(bytes) => most = bytes,
            Fate::Delay(by) => tokio::time::sleep(by).await,
            Fate::Edit(edit) => {
                let body = from.whole(framing).await?;
                let mut answer = Answer { status, headers: head.headers, body };
                edit(&mut answer);
                self.answer(into, &answer).await?;
                return Ok((Ended::Well, may_stay));
            }
        }
        self.answered(status);
        let said = match (framing, head.headers.get("content-length")) {
            // The length of what a GET would give.
            (Framing::None, Some(length)) => length.trim().parse().map_or(framing, Framing::Length),
            _ => framing,
        };
        let first = head.text(&format!("HTTP/1.1 {status} {}", head.start[1]), said);
        into.write_all(first.as_bytes()).await?;
        let mut left = framing;
        while let Some(mut piece) = from.piece(&mut left).await? {
            piece.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            write_piece(into, framing, &piece).await?;
            most -= piece.len() as u64;
            if most == 0 {
                return Ok((Ended::Closed, false));
            }
        }
        if matches!(framing, Framing::Chunked(_)) {
            write_piece(into, framing, &[]).await?;
        }
        Ok((if framing == Framing::ToTheEnd { Ended::Closed } else { Ended::Well }, may_stay))
    }
}

/// Which side broke off while the request was sent.
enum Broken {
    Client(io::Error),
    Server,
}

fn close(ended: Ended) -> Ended {
    match ended {
        Ended::Well => Ended::Closed,
        ended => ended,
    }
}
