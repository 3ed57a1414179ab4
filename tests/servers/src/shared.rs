//! Servers that all tests share, though each runs in a process of its own. The first to need one starts `serve.py`, which
//! outlives it; `serve.py` says which files they meet by.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Kind;

/// No start takes this long, however loaded the machine.
const PATIENCE: Duration = Duration::from_mins(3);
const TICK: Duration = Duration::from_millis(30);

/// A server that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens, without a slash at the end.
    pub url: String,
}

#[derive(Deserialize)]
struct State {
    url: String,
}

/// The locks that say that this process uses a server. Held until the process ends.
static USED: Mutex<Vec<(Kind, File)>> = Mutex::new(Vec::new());

impl Server {
    /// Finds the shared one, or starts it.
    pub(crate) async fn shared(kind: Kind) -> Self {
        tokio::task::spawn_blocking(move || Meeting::new(kind).server()).await.unwrap()
    }
}

/// The files by which processes find the same server.
struct Meeting {
    kind: Kind,
    directory: PathBuf,
}

impl Meeting {
    fn new(kind: Kind) -> Self {
        Self { kind, directory: directory() }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.kind.name()))
    }

    fn server(&self) -> Server {
        self.keep_in_use();
        if let Some(server) = self.running() {
            return server;
        }
        let start = open(&self.file("start"));
        start.lock().unwrap();
        // Somebody else may have started it meanwhile.
        self.running().unwrap_or_else(|| self.start())
    }

    fn keep_in_use(&self) {
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        if used.iter().all(|(kind, _)| *kind != self.kind) {
            let users = open(&self.file("users"));
            users.lock_shared().unwrap();
            used.push((self.kind, users));
        }
    }

    /// The server that runs, if one does. Where somebody is in charge of one, an answer may take its time.
    fn running(&self) -> Option<Server> {
        let asked = Instant::now();
        loop {
            let state: Option<State> =
                fs::read(self.file("json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(state) = state
                && answers(&state.url)
            {
                return Some(Server { url: state.url });
            }
            if !self.is_supervised() {
                return None;
            }
            assert!(
                asked.elapsed() < PATIENCE,
                "{} does not answer; see {}",
                self.kind.name(),
                self.directory.display()
            );
            thread::sleep(TICK);
        }
    }

    fn is_supervised(&self) -> bool {
        matches!(open(&self.file("supervisor")).try_lock(), Err(TryLockError::WouldBlock))
    }

    fn start(&self) -> Server {
        let log = self.file("supervisor.log");
        let mut supervisor = serve("shared", self.kind, &self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            // Looked at first: it publishes before it ends.
            let ended = supervisor.try_wait().unwrap();
            let state = fs::read(self.file("json")).ok().and_then(|text| serde_json::from_slice::<State>(&text).ok());
            if let Some(state) = state
                && answers(&state.url)
            {
                // Somebody must hear of its end while this process lives.
                thread::spawn(move || supervisor.wait());
                return Server { url: state.url };
            }
            if let Some(status) = ended {
                panic!("{status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{} does not start; see {}",
                self.kind.name(),
                self.directory.display()
            );
            thread::sleep(TICK);
        }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether something there speaks HTTP.
fn answers(url: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ministack/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/")
    };
    ask().unwrap_or(false)
}

/// Where this checkout's servers keep their files.
pub(crate) fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-servers");
    fs::create_dir_all(&directory).unwrap();
    directory.canonicalize().unwrap()
}

/// The command that starts a server and looks after it.
pub(crate) fn serve(mode: &str, kind: Kind, directory: &Path) -> Command {
    let Some(tools) = std::env::var_os("AUDITLAKE_TEST_TOOLS").map(PathBuf::from) else {
        panic!(
            "AUDITLAKE_TEST_TOOLS names no directory with servers to test against: run `make test`, which installs them and sets it"
        );
    };
    let python = tools.join("venv/bin/python");
    let package = tools.join("npm/node_modules/kinesis-local/main.js");
    for needed in [&python, &package] {
        assert!(needed.exists(), "there is no {}: run `make test`, which installs it", needed.display());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("serve.py");
    let mut command = Command::new(python);
    command.arg(script).arg(mode).arg(kind.name()).arg(directory).arg(tools);
    command
}

/// Ends a supervisor that was started for one test.
pub(crate) fn end(mut supervisor: Child) {
    drop(supervisor.stdin.take());
    let _ = supervisor.wait();
}
