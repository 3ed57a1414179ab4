//! The least that asks a server for a page.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::process::{Process, wait_until};

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The lines of the head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// The address at which a daemon answers, as soon as it says that it does.
#[track_caller]
pub fn served_at(process: &Process) -> String {
    let address = || {
        let lines: Vec<Value> = process.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.iter().find_map(|line| Some(line.get("address")?.as_str()?.to_owned()))
    };
    wait_until("it serves", || address().is_some());
    address().unwrap()
}

/// `GET path` of the server at `address`.
#[track_caller]
pub fn get(address: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.into() }
}
