//! Each fault once, against a server that tells what it was told; and many requests at once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, FaultProxy};

/// What a message was: its first line, its header, its body.
type Message = (String, Vec<String>, Vec<u8>);

/// Reads a message, by other code than the proxy's; none at the end.
fn read_message(from: &mut BufReader<TcpStream>, is_answer_to_head: bool) -> std::io::Result<Option<Message>> {
    let mut line = || -> std::io::Result<String> {
        let mut text = String::new();
        from.read_line(&mut text)?;
        Ok(text.trim_end().to_owned())
    };
    let first = line()?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        headers.push(header.to_ascii_lowercase());
    }
    let mut body = Vec::new();
    if headers.contains(&"transfer-encoding: chunked".to_owned()) {
        loop {
            let mut size = String::new();
            from.read_line(&mut size)?;
            let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
            from.read_exact(&mut chunk)?;
            if chunk.len() == 2 {
                break;
            }
            body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    } else if let Some(length) = headers.iter().find_map(|header| header.strip_prefix("content-length: "))
        && !is_answer_to_head
    {
        body.resize(length.parse().unwrap(), 0);
        from.read_exact(&mut body)?;
    }
    Ok(Some((first, headers, body)))
}

/// Answers each request with its body, and keeps what came. `/chunked` is answered in three chunks, slowly; `/stale`
/// ends the connection after the answer, without a word.
struct Echo {
    url: String,
    heard: Arc<Mutex<Vec<Message>>>,
    connections: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let echo = Self { url, heard: Arc::default(), connections: Arc::default() };
        let (heard, connections) = (Arc::clone(&echo.heard), Arc::clone(&echo.connections));
        thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::Relaxed);
                let heard = Arc::clone(&heard);
                thread::spawn(move || Self::serve(stream.unwrap(), &heard));
            }
        });
        echo
    }

    fn serve(mut stream: TcpStream, heard: &Mutex<Vec<Message>>) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(message) = read_message(&mut reader, false)? {
            heard.lock().unwrap().push(message.clone());
            let (first, _, body) = message;
            if first.contains("/chunked") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for chunk in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
                    stream.write_all(chunk.as_bytes())?;
                    thread::sleep(Duration::from_millis(150));
                }
                continue;
            }
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nx-from: echo\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            if !first.starts_with("HEAD") {
                answer.extend_from_slice(&body);
            }
            stream.write_all(&answer)?;
            if first.contains("/stale") {
                return Ok(());
            }
        }
        Ok(())
    }

    fn heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

/// A connection to the proxy.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(proxy: &FaultProxy) -> Self {
        let stream = TcpStream::connect(proxy.url().trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, method: &str, target: &str, body: &str) -> std::io::Result<()> {
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nhost: here\r\nx-secret: s\r\ncontent-length: {length}\r\n\r\n");
        self.0.get_mut().write_all((head + body).as_bytes())
    }

    /// Status and body.
    fn ask(&mut self, method: &str, target: &str, body: &str) -> std::io::Result<(u16, String)> {
        self.send(method, target, body)?;
        self.receive(method == "HEAD")
    }

    fn receive(&mut self, is_answer_to_head: bool) -> std::io::Result<(u16, String)> {
        let message = read_message(&mut self.0, is_answer_to_head)?;
        let (first, _, body) = message.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((first.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap()))
    }
}

fn set_up() -> (Echo, FaultProxy) {
    let echo = Echo::start();
    let proxy = FaultProxy::start_blocking(&echo.url);
    (echo, proxy)
}

fn put(proxy: &FaultProxy, body: &str) -> Option<(u16, String)> {
    Client::new(proxy).ask("PUT", "/b/k", body).ok()
}

const PASSED: u16 = 200;

#[test]
fn without_a_fault_everything_passes_and_is_recorded() {
    let (echo, proxy) = set_up();
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("PUT", "/b/k?x-id=PutObject", "hello").unwrap(), (PASSED, "hello".into()));
    assert_eq!(client.ask("HEAD", "/b/k", "").unwrap(), (PASSED, String::new()));
    assert_eq!(client.ask("GET", "/b/k", "").unwrap(), (PASSED, String::new()));
    let requests = proxy.requests();
    let told: Vec<_> = requests.iter().map(|r| (r.operation.as_str(), r.body_length, r.status)).collect();
    assert_eq!(told, [("PutObject", 5, Some(200)), ("HeadObject", 0, Some(200)), ("GetObject", 0, Some(200))]);
    assert_eq!((requests[0].target.as_str(), requests[0].headers.get("X-Secret")), ("/b/k?x-id=PutObject", Some("s")));
    assert_eq!((proxy.count("PutObject"), proxy.count("ListBuckets"), echo.heard()), (1, 0, 3));
    assert_eq!(echo.connections.load(Ordering::Relaxed), 1, "the connection to the server was kept");
    proxy.forget();
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn an_answer_in_pieces_passes_piece_by_piece() {
    let (_echo, proxy) = set_up();
    let mut client = Client::new(&proxy);
    client.send("GET", "/b/chunked", "").unwrap();
    let asked = Instant::now();
    let mut line = String::new();
    while line.trim_end() != "one" {
        line.clear();
        client.0.read_line(&mut line).unwrap();
    }
    assert!(asked.elapsed() < Duration::from_millis(140), "the first piece waited for the others");
    let mut rest = [0; 13];
    client.0.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.ask("PUT", "/b/k", "after").unwrap().1, "after");
}

#[test]
fn a_request_in_pieces_and_one_that_asks_first_pass() {
    let (echo, proxy) = set_up();
    let mut client = Client::new(&proxy);
    let head = "PUT /b/k HTTP/1.1\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n";
    client.0.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(client.receive(false).unwrap(), (100, String::new()));
    for piece in ["5\r\nhello\r\n", "6;x=y\r\n world\r\n", "0\r\n\r\n"] {
        client.0.get_mut().write_all(piece.as_bytes()).unwrap();
    }
    assert_eq!(client.receive(false).unwrap(), (PASSED, "hello world".into()));
    assert_eq!(proxy.requests()[0].body_length, 11);
    assert!(!echo.heard.lock().unwrap()[0].1.iter().any(|header| header.starts_with("expect")));
}

#[test]
fn a_connection_that_the_server_ended_is_made_anew() {
    let (_echo, proxy) = set_up();
    let mut client = Client::new(&proxy);
    for _ in 0..5 {
        assert_eq!(client.ask("PUT", "/b/stale", "a").unwrap().0, PASSED);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_answer_of_the_proxy_never_reaches_the_server() {
    let (echo, proxy) = set_up();
    let fault = proxy.on("PutObject").next(2).answer(Answer::s3_slow_down());
    let mut client = Client::new(&proxy);
    for _ in 0..2 {
        let (status, body) = client.ask("PUT", "/b/k", "a").unwrap();
        assert!(status == 503 && body.contains("<Code>SlowDown</Code>"), "{body}");
    }
    assert_eq!(client.ask("PUT", "/b/k", "a").unwrap(), (PASSED, "a".into()));
    assert_eq!((fault.hits(), echo.heard()), (2, 1));
    assert_eq!(proxy.requests().iter().map(|r| r.status).collect::<Vec<_>>(), [Some(503), Some(503), Some(200)]);
}

#[test]
fn errors_have_the_shape_of_their_service() {
    let throttled = Answer::kinesis_throttled();
    assert_eq!(throttled.status, 400);
    assert!(String::from_utf8_lossy(&throttled.body).contains("#ProvisionedThroughputExceededException\""));
    assert_eq!(Answer::dynamodb("InternalServerError").status, 500);
    assert_eq!(Answer::s3_error_in_200().status, 200);
    assert_eq!((Answer::s3_access_denied().status, Answer::s3_conflict().status), (403, 409));
}

#[test]
fn a_lost_answer_was_given() {
    let (echo, proxy) = set_up();
    proxy.on_any().next(1).lose_answer();
    assert_eq!(put(&proxy, "a"), None);
    assert_eq!((echo.heard(), proxy.requests()[0].status), (1, None));
    assert_eq!(put(&proxy, "b").unwrap().0, PASSED);
}

#[test]
fn a_request_that_was_cut_never_reaches_the_server() {
    let (echo, proxy) = set_up();
    proxy.on_any().next(1).cut();
    assert_eq!(put(&proxy, "a"), None);
    assert_eq!(echo.heard(), 0);
}

#[test]
fn an_answer_can_break_off() {
    let (_echo, proxy) = set_up();
    proxy.on("PutObject").next(1).cut_answer_after(3);
    let mut client = Client::new(&proxy);
    client.send("PUT", "/b/k", "hello").unwrap();
    let mut all = String::new();
    client.0.read_to_string(&mut all).unwrap();
    assert!(all.contains("content-length: 5") && all.ends_with("\r\n\r\nhel"), "{all}");
}

#[test]
fn a_delayed_request_arrives_later_though_the_client_gave_up() {
    let (echo, proxy) = set_up();
    proxy.on_any().next(1).delay(Duration::from_millis(300));
    let mut client = Client::new(&proxy);
    client.send("PUT", "/b/k", "a").unwrap();
    thread::sleep(Duration::from_millis(100));
    drop(client);
    assert_eq!(echo.heard(), 0);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(echo.heard(), 1);
}

#[test]
fn a_delayed_answer_comes_late_but_the_server_acted_at_once() {
    let (echo, proxy) = set_up();
    proxy.on_any().next(1).delay_answer(Duration::from_millis(400));
    let mut client = Client::new(&proxy);
    let asked = Instant::now();
    client.send("PUT", "/b/k", "a").unwrap();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(echo.heard(), 1);
    assert_eq!(client.receive(false).unwrap().0, PASSED);
    assert!(asked.elapsed() >= Duration::from_millis(400));
}

#[test]
fn what_hangs_goes_on_when_it_is_healed_unless_the_client_is_gone() {
    let (echo, proxy) = set_up();
    let fault = proxy.on("PutObject").next(2).hang();
    let (mut stays, mut goes) = (Client::new(&proxy), Client::new(&proxy));
    stays.send("PUT", "/b/k", "stays").unwrap();
    goes.send("PUT", "/b/k", "goes").unwrap();
    thread::sleep(Duration::from_millis(200));
    drop(goes);
    assert_eq!(put(&proxy, "others pass").unwrap().0, PASSED);
    fault.heal();
    assert_eq!(stays.receive(false).unwrap(), (PASSED, "stays".into()));
    thread::sleep(Duration::from_millis(100));
    assert_eq!((echo.heard(), fault.hits()), (2, 2));
}

#[test]
fn requests_and_answers_can_be_changed() {
    let (echo, proxy) = set_up();
    proxy.on_any().next(1).edit_request(|request| {
        request.headers.remove("x-secret");
        request.body = "changed".into();
    });
    assert_eq!(put(&proxy, "a").unwrap(), (PASSED, "changed".into()));
    assert!(!echo.heard.lock().unwrap()[0].1.iter().any(|header| header.starts_with("x-secret")));
    proxy.on_any().next(1).edit_answer(|answer| {
        assert_eq!(answer.headers.get("x-from"), Some("echo"));
        answer.status = 500;
        answer.body = [&answer.body[..], b"!"].concat().into();
    });
    assert_eq!(put(&proxy, "a").unwrap(), (500, "a!".into()));
}

#[test]
fn faults_befall_those_that_fit() {
    let (_echo, proxy) = set_up();
    let by_body = proxy.on_any().body_has("poison").cut();
    let by_target = proxy.on("PutObject").target_has("/second").cut();
    let third = proxy.on("PutObject").skip(1).every(2).answer(Answer::new(500));
    assert_eq!(put(&proxy, "a poison b"), None);
    assert!(Client::new(&proxy).ask("PUT", "/b/second", "a").is_err());
    assert!(Client::new(&proxy).ask("GET", "/b/second", "").is_ok());
    let answers: Vec<_> = (0..6).map(|_| put(&proxy, "a").unwrap().0).collect();
    assert_eq!(answers, [200, 200, 500, 200, 500, 200]);
    assert_eq!((by_body.hits(), by_target.hits(), third.hits()), (1, 1, 2));
    third.heal();
    assert!((0..6).all(|_| put(&proxy, "a").unwrap().0 == 200));
    proxy.heal();
    assert_eq!(put(&proxy, "poison").unwrap().0, PASSED);
}

#[test]
fn a_server_that_is_down_is_down_for_connections_that_stood() {
    let (echo, proxy) = set_up();
    let mut stood = Client::new(&proxy);
    assert_eq!(stood.ask("PUT", "/b/k", "a").unwrap().0, PASSED);
    proxy.down();
    assert!(stood.ask("PUT", "/b/k", "a").is_err());
    assert_eq!(put(&proxy, "a"), None);
    assert_eq!(echo.heard(), 1);
    proxy.up();
    assert_eq!(put(&proxy, "a").unwrap().0, PASSED);

    let mut stood = Client::new(&proxy);
    assert_eq!(stood.ask("PUT", "/b/k", "a").unwrap().0, PASSED);
    proxy.cut_all();
    assert!(stood.ask("PUT", "/b/k", "a").is_err());
    assert_eq!(put(&proxy, "a").unwrap().0, PASSED);
}

#[test]
fn a_server_that_is_gone_looks_like_a_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start_blocking(&format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    assert_eq!(put(&proxy, "a"), None);
}

#[test]
fn many_clients_are_served_at_once() {
    let (echo, proxy) = set_up();
    proxy.on("PutObject").every(50).lose_answer();
    let started = Instant::now();
    let (clients, requests) = (16, 500);
    let lost: usize = thread::scope(|scope| {
        let one = |client| {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut connection = Client::new(proxy);
                let mut lost = 0;
                for request in 0..requests {
                    let body = format!("{client}/{request}");
                    if let Ok(answer) = connection.ask("PUT", "/b/k", &body) {
                        assert_eq!(answer, (200, body));
                    } else {
                        lost += 1;
                        connection = Client::new(proxy);
                    }
                }
                lost
            })
        };
        let threads: Vec<_> = (0..clients).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{} requests in {:?}", clients * requests, started.elapsed());
    assert_eq!((lost, echo.heard()), (clients * requests / 50, clients * requests));
    assert_eq!(proxy.count("PutObject"), clients * requests);
}
