//! A server that belongs to one test.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde::Deserialize;

use crate::Kind;
use crate::shared::{directory, end, serve};

/// A server of its own for a test that needs one: it starts empty, and nobody else is there. Stopped when dropped, and
/// also when the test is killed.
#[derive(Debug)]
pub struct OwnServer {
    /// Where it listens, without a slash at the end.
    pub url: String,
    /// The process id of the server itself.
    pub process: u32,
    supervisor: Option<Child>,
}

#[derive(Deserialize)]
struct Started {
    url: String,
    server: u32,
}

impl OwnServer {
    /// Starts one; takes about a second.
    pub async fn start(kind: Kind) -> Self {
        tokio::task::spawn_blocking(move || Self::start_now(kind)).await.unwrap()
    }

    fn start_now(kind: Kind) -> Self {
        let mut supervisor =
            serve("own", kind, &directory()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Started = serde_json::from_str(&line).unwrap_or_else(|error| {
            let status = supervisor.wait();
            panic!("{} did not start ({status:?}, {error}): its words are above", kind.name())
        });
        Self { url: started.url, process: started.server, supervisor: Some(supervisor) }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            end(supervisor);
        }
    }
}
