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
/// How long a server stays that nobody uses: the next test of a run takes less to begin.
const IDLE: Duration = Duration::from_secs(10);
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
    #[cfg(test)]
    server: u32,
    #[cfg(test)]
    supervisor: u32,
}

/// The locks that say that this process uses a server. Held until the process ends.
static USED: Mutex<Vec<(Kind, File)>> = Mutex::new(Vec::new());

impl Server {
    /// Finds the shared one, or starts it.
    pub(crate) async fn shared(kind: Kind) -> Self {
        let found = tokio::task::spawn_blocking(move || {
            let meeting = Meeting { kind, directory: directory(), idle: IDLE };
            {
                let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
                if used.iter().all(|(known, _)| *known != kind) {
                    used.push((kind, meeting.use_it()));
                }
            }
            meeting.server()
        });
        found.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}

/// The files by which processes find the same server.
struct Meeting {
    kind: Kind,
    directory: PathBuf,
    idle: Duration,
}

impl Meeting {
    fn file(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.kind.name()))
    }

    /// The lock of one who uses it, whose holder finds that the server stays.
    fn use_it(&self) -> File {
        let users = open(&self.file("users"));
        users.lock_shared().unwrap();
        users
    }

    fn server(&self) -> Server {
        if let Some(server) = self.running() {
            return server;
        }
        let start = open(&self.file("start"));
        start.lock().unwrap();
        // Somebody else may have started it meanwhile.
        self.running().unwrap_or_else(|| self.start())
    }

    /// The server that runs, if one does. Where somebody is in charge of one, its answer may take its time.
    fn running(&self) -> Option<Server> {
        let asked = Instant::now();
        while self.is_supervised() {
            if let Some(state) = self.state()
                && answers(&state.url)
            {
                return Some(Server { url: state.url });
            }
            assert!(
                asked.elapsed() < PATIENCE,
                "{} does not answer; see {}",
                self.kind.name(),
                self.directory.display()
            );
            thread::sleep(TICK);
        }
        None
    }

    fn state(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.file("json")).ok()?).ok()
    }

    fn is_supervised(&self) -> bool {
        matches!(open(&self.file("supervisor")).try_lock(), Err(TryLockError::WouldBlock))
    }

    fn start(&self) -> Server {
        let log = self.file("supervisor.log");
        let mut supervisor = serve("shared", self.kind, &self.directory)
            .arg(self.idle.as_secs_f64().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            // Looked at first: it publishes before it ends.
            let ended = supervisor.try_wait().unwrap();
            if let Some(state) = self.state()
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
    let pubsub = tools.join("pubsub/pstest");
    for needed in [&python, &package, &pubsub] {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(idle: Duration) -> (tempfile::TempDir, Meeting) {
        let directory = tempfile::tempdir().unwrap();
        let meeting = Meeting { kind: Kind::Ministack, directory: directory.path().to_owned(), idle };
        (directory, meeting)
    }

    fn kill(process: u32) {
        let status = Command::new("sh").args(["-c", &format!("kill -KILL {process}")]).status().unwrap();
        assert!(status.success());
    }

    #[track_caller]
    fn wait_until_gone(url: &str) {
        let started = Instant::now();
        while answers(url) {
            assert!(started.elapsed() < Duration::from_secs(20), "it is still there");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn who_comes_at_once_or_later_finds_the_same_server() {
        let (_directory, meeting) = meeting(IDLE);
        let _user = meeting.use_it();
        let found: Vec<Server> = thread::scope(|scope| {
            let seekers: Vec<_> = (0..8).map(|_| scope.spawn(|| meeting.server())).collect();
            seekers.into_iter().map(|seeker| seeker.join().unwrap()).collect()
        });
        assert!(found.iter().all(|server| *server == found[0]), "{found:?}");
        assert_eq!(meeting.server(), found[0]);
    }

    #[test]
    fn a_server_that_died_is_replaced() {
        let (_directory, meeting) = meeting(IDLE);
        let _user = meeting.use_it();
        let first = meeting.server();
        let state = meeting.state().unwrap();
        kill(state.server);
        wait_until_gone(&first.url);
        let second = meeting.server();
        assert_ne!(first, second);
        assert!(answers(&second.url));

        // And one whose supervisor died: it goes with it, or is ended by the next.
        kill(meeting.state().unwrap().supervisor);
        while meeting.is_supervised() {
            thread::sleep(TICK);
        }
        let third = meeting.server();
        assert_ne!(second, third);
        wait_until_gone(&second.url);
        assert!(answers(&third.url));
    }

    #[test]
    fn a_server_that_nobody_uses_ends_and_leaves_nothing() {
        let (directory, meeting) = meeting(Duration::from_secs(1));
        let user = meeting.use_it();
        let server = meeting.server();
        thread::sleep(Duration::from_secs(3));
        assert!(answers(&server.url), "it is used");
        drop(user);
        wait_until_gone(&server.url);
        let _user = meeting.use_it();
        assert!(meeting.state().is_none());
        assert!(!directory.path().join("ministack.json").exists());
        assert!(answers(&meeting.server().url), "it starts again");
    }

    #[test]
    fn a_server_ends_when_its_directory_vanishes() {
        let (directory, meeting) = meeting(IDLE);
        let _user = meeting.use_it();
        let server = meeting.server();
        drop(directory);
        wait_until_gone(&server.url);
    }
}
