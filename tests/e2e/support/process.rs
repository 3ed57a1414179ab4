//! Processes: run, watched, asked to stop, killed.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No step of these tests takes this long, however loaded the machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// It ended with this code; returns itself.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "signal {:?}\nstdout: {}\nstderr: {}", self.signal, self.stdout, self.stderr);
        self
    }

    /// The report of a proof that found nothing.
    #[track_caller]
    pub fn proof(self) -> Value {
        let report = self.expect(0).json();
        assert_eq!(report["findings"], serde_json::json!([]));
        report
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Done {
    let process = Process::start(command);
    process.wait()
}

/// A process that runs. Killed when dropped.
pub struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        command.env("RUST_LOG", "info,auditlake::worker=debug");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, out) = collect(child.stdout.take().unwrap());
        let (stderr, err) = collect(child.stderr.take().unwrap());
        Self { child, stdout, stderr, readers: vec![out, err] }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL; whether it was still running.
    pub fn kill(mut self) -> bool {
        let ran = self.runs();
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        ran && status.signal() == Some(9)
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Done {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE * 3, "it does not end; stderr: {}", self.stderr());
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let (stdout, stderr) = (self.stdout.lock().unwrap().clone(), self.stderr.lock().unwrap().clone());
        Output { status, stdout, stderr }.into()
    }

    /// Waits until a daemon has read a shard to its end and waits for more of it.
    #[track_caller]
    pub fn wait_until_caught_up(&self, shard: &str) {
        let is_it = |line: &str| line.contains("\"caught up\"") && line.contains(&format!("\"{shard}\""));
        wait_until(&format!("{shard} is read"), || self.stderr().lines().any(is_it));
    }
}

impl Drop for Process {
    #[allow(clippy::print_stderr, reason = "the harness shows it where a test has failed, and nowhere else")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // What it said last is what the failure of its test is understood by.
            let said = self.stderr();
            let last = said.lines().count().saturating_sub(30);
            let last: Vec<&str> = said.lines().skip(last).collect();
            eprintln!("process {} said last:\n{}\n", self.id(), last.join("\n"));
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, thread::JoinHandle<()>) {
    let text = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&text);
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    });
    (text, reader)
}

/// Sends a signal by its name (`TERM`, `INT`).
pub fn signal(process: u32, name: &str) {
    // The shell has `kill` built in; without unsafe code there is no other way.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap();
    assert!(status.success(), "kill -{name} {process}");
}

/// Waits for something that must come.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
