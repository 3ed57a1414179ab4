//! Small disks: tmpfs of a few hundred kilobytes, mounted for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the process that runs a test again, in a namespace where it may mount.
const INSIDE: &str = "AUDITLAKE_E2E_NAMESPACE";

/// A mounted tmpfs; unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `kilobytes` at `path`, which is created.
    pub fn mount(path: PathBuf, kilobytes: u32) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = mount(&path, &format!("size={kilobytes}k"));
        assert!(mounted, "no tmpfs could be mounted at {}", path.display());
        Self { path }
    }

    /// Gives it another size.
    pub fn resize(&self, kilobytes: u32) {
        assert!(mount(&self.path, &format!("remount,size={kilobytes}k")), "the tmpfs could not be made larger");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

fn mount(path: &Path, options: &str) -> bool {
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status();
    status.is_ok_and(|status| status.success())
}

fn may_mount() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let may = mount(directory.path(), "size=4k");
    if may {
        let _ = Command::new("umount").arg(directory.path()).status();
    }
    may
}

/// Runs a test that mounts disks: here, where that is allowed, else in a user namespace of its own. Where neither is
/// possible the test fails: a full disk that was never tried proves nothing.
#[track_caller]
pub fn with_mounts(test: &str, body: impl FnOnce()) {
    if may_mount() {
        return body();
    }
    assert!(std::env::var_os(INSIDE).is_none(), "no tmpfs can be mounted, not even in a user namespace");
    let mut command = Command::new("unshare");
    command.arg("--user").arg("--map-root-user").arg("--mount");
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().unwrap_or_else(|error| panic!("unshare: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the test did not run in its namespace: {said}");
}
