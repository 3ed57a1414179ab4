//! A directory with a configuration, input, state and archive of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::archived::{Archived, files_below, read_json};
use super::process::{Done, Process, finish};

/// Removed with all that is in it when it is dropped.
pub struct Workspace {
    root: TempDir,
    keys: BTreeMap<String, String>,
}

impl Workspace {
    /// An empty input, NDJSON without compression, and a short wait for unfinished lines.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Others than the owner may come in: some tests run the binary as somebody else.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut workspace = Self { root, keys: BTreeMap::new() };
        fs::create_dir(workspace.input()).unwrap();
        let quoted = |path: PathBuf| format!("{:?}", path.to_str().unwrap());
        for (key, value) in [
            ("source.label", "\"test\"".to_owned()),
            ("source.file.path", quoted(workspace.input())),
            ("source.file.poll", "\"100ms\"".to_owned()),
            ("source.file.settle", "\"500ms\"".to_owned()),
            ("state.embedded.path", quoted(workspace.state())),
            ("archive.local.path", quoted(workspace.archive())),
            ("archive.format", "\"ndjson\"".to_owned()),
            ("archive.compression", "\"none\"".to_owned()),
            ("metrics.listen", "\"off\"".to_owned()),
        ] {
            workspace.keys.insert(key.to_owned(), value);
        }
        workspace.write_config();
        workspace
    }

    /// Sets a key of the configuration; `value` is TOML.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.keys.insert(key.to_owned(), value.to_owned());
        self.write_config();
        self
    }

    /// Sets a key to a path.
    pub fn set_path(&mut self, key: &str, path: &Path) -> &mut Self {
        self.set(key, &format!("{:?}", path.to_str().unwrap()))
    }

    fn write_config(&self) {
        let text: String = self.keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        fs::write(self.config(), text).unwrap();
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.path("auditlake.toml")
    }

    /// What is read.
    pub fn input(&self) -> PathBuf {
        self.path("input")
    }

    /// Leases and claims.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// What is written.
    pub fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    /// Something else in the workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts a file into the input.
    pub fn feed(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.input().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Appends to a file of the input.
    pub fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.input().join(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// The binary with these arguments and this workspace's configuration, in an environment that sets nothing.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Self::bare_command(arguments);
        command.arg("--config").arg(self.config()).current_dir(self.root.path());
        command
    }

    /// The binary with these arguments alone.
    pub fn bare_command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_auditlake"));
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(arguments))
    }

    /// Starts the binary.
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start(&mut self.command(arguments))
    }

    /// `catch-up`, which must succeed; its summary.
    #[track_caller]
    pub fn catch_up(&self) -> Value {
        self.run(&["catch-up", "--json"]).expect(0).json()
    }

    /// `verify`, which must find nothing; its report.
    #[track_caller]
    pub fn verify(&self) -> Value {
        self.run(&["verify", "--json"]).proof()
    }

    /// The rows of the archive.
    pub fn archived(&self) -> Archived {
        Archived::read(&self.archive())
    }

    /// How many event rows stand, by their lines; cheap enough to ask again and again.
    pub fn archived_rows(&self) -> u64 {
        let lines = |path: &PathBuf| fs::read(path).unwrap_or_default().split(|byte| *byte == b'\n').count() - 1;
        files_below(&self.archive().join("events")).iter().map(lines).sum::<usize>() as u64
    }

    /// The names of the objects below a folder of the archive.
    pub fn objects(&self, folder: &str) -> Vec<String> {
        let root = self.archive();
        let name = |path: PathBuf| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        files_below(&root.join(folder)).into_iter().map(name).collect()
    }

    /// How many manifests stand.
    pub fn manifests(&self) -> usize {
        self.objects("_manifests").len()
    }

    /// The lease row of a shard whose name needs no encoding.
    pub fn lease(&self, shard: &str) -> Value {
        read_json(&self.state().join(format!("leases/{shard}.json")))
    }
}
