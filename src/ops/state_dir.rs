//! The state directory of an embedded deployment: leases, checkpoints and claims on a local disk.
//!
//! | name | what it is |
//! |---|---|
//! | `format` | the number of the directory's format |
//! | `lock` | held by the process that uses the directory; holds its process id |
//! | `archive.json` | the archive that the state belongs to |
//! | `leases/` | [`crate::lease::embedded`] |
//! | `claims/` | [`crate::dedupe::embedded`] |

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::disk;

/// The format of the directory as a whole; its parts have formats of their own.
const FORMAT: &str = "1";
/// Who looks whether the directory is in use holds its lock for a moment: how often, and after how long, whoever wants
/// it tries again.
const LOCK_RETRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process works with it.
    #[error("the state directory `{}` is in use by process {}", path.display(), pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string()))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, where it has said which.
        pid: Option<u32>,
    },
    /// It belongs to another archive.
    #[error("the state directory `{}` belongs to the archive {bound}, not to {asked}", path.display())]
    OtherArchive {
        /// The directory.
        path: PathBuf,
        /// The archive it belongs to.
        bound: Uuid,
        /// The archive it was to be used for.
        asked: Uuid,
    },
    /// There is none; said only to those who came to look.
    #[error("there is no state directory `{}`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// What is in it can't be understood.
    #[error("the state directory is damaged or of another version: {reason}")]
    Damaged {
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// The disk refuses.
    #[error("the state directory is unavailable: {reason}")]
    Unavailable {
        /// Which path, and what happened.
        reason: String,
    },
}

/// What came of [`StateDir::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The directory belonged to no archive until now.
    New,
    /// The directory has belonged to this archive before.
    Same,
}

#[derive(Serialize, Deserialize)]
struct Bound {
    archive_id: Uuid,
}

/// A state directory that this process alone works with, for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked; the lock ends with the file, and with the process however that ends.
    _lock: File,
}

/// A state directory as a reader sees it, while another process may be working with it.
#[derive(Clone, Debug)]
pub struct StateView {
    path: PathBuf,
}

impl StateDir {
    /// Takes the directory for this process, and creates it where it is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        at(&path, disk::create_directory(&path))?;
        let lock = take_lock(&path)?;
        at(&path, disk::remove_unfinished(&path))?;
        if !format_is_known(&path)? {
            at(&path, disk::replace_file(&path.join("format"), format!("{FORMAT}\n").as_bytes()))?;
        }
        for part in [leases(&path), claims(&path)] {
            at(&part, disk::create_directory(&part))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Looks at a directory without taking it, and changes nothing.
    pub fn look(path: impl Into<PathBuf>) -> Result<StateView, StateError> {
        let path = path.into();
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StateError::Missing { path }),
            Err(error) => at(&path, Err(error)),
            Ok(found) if !found.is_dir() => at(&path, Err(io::ErrorKind::NotADirectory.into())),
            Ok(_) if format_is_known(&path)? => Ok(StateView { path }),
            Ok(_) => Err(StateError::Missing { path }),
        }
    }

    /// Makes sure that the directory is used for one archive only. Durable once it returns.
    pub fn bind(&self, archive_id: Uuid) -> Result<Binding, StateError> {
        match bound(&self.path)? {
            Some(bound) if bound == archive_id => Ok(Binding::Same),
            Some(bound) => Err(StateError::OtherArchive { path: self.path.clone(), bound, asked: archive_id }),
            None => {
                let path = self.path.join("archive.json");
                let text = serde_json::json!({ "archive_id": archive_id }).to_string() + "\n";
                at(&path, disk::replace_file(&path, text.as_bytes()))?;
                Ok(Binding::New)
            }
        }
    }

    /// Where the lease rows are.
    pub fn leases(&self) -> PathBuf {
        leases(&self.path)
    }

    /// Where the claims are.
    pub fn claims(&self) -> PathBuf {
        claims(&self.path)
    }

    /// An empty directory for claims that are made anew, which [`StateDir::adopt_new_claims`] puts in the place of the
    /// old ones. A crash in between leaves the old ones, or none: then they are made anew when they are next opened.
    pub fn new_claims(&self) -> Result<PathBuf, StateError> {
        let path = self.path.join("claims.new");
        if path.exists() {
            at(&path, std::fs::remove_dir_all(&path))?;
        }
        at(&path, disk::create_directory(&path))?;
        Ok(path)
    }

    /// Puts the claims that were made anew in the place of the old ones. Nothing may have either open.
    pub fn adopt_new_claims(&self) -> Result<(), StateError> {
        let (new, claims, old) = (self.path.join("claims.new"), self.claims(), self.path.join("claims.old"));
        if old.exists() {
            at(&old, std::fs::remove_dir_all(&old))?;
        }
        // Never half removed under their own name: that would be damage.
        at(&claims, std::fs::rename(&claims, &old))?;
        at(&claims, std::fs::rename(&new, &claims))?;
        at(&self.path, disk::sync_directory(&self.path))?;
        at(&old, std::fs::remove_dir_all(&old))
    }

    /// Removes every lease row.
    pub fn forget_leases(&self) -> Result<(), StateError> {
        let path = self.leases();
        at(&path, std::fs::remove_dir_all(&path))?;
        at(&path, disk::create_directory(&path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl StateView {
    /// The archive that the directory belongs to, if it does to any.
    pub fn archive(&self) -> Result<Option<Uuid>, StateError> {
        bound(&self.path)
    }

    /// Where the lease rows are.
    pub fn leases(&self) -> PathBuf {
        leases(&self.path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a process works with the directory; `None` where the disk does not tell.
    pub fn is_in_use(&self) -> Option<bool> {
        match File::open(self.path.join("lock")) {
            Ok(lock) => match lock.try_lock_shared() {
                Ok(()) => Some(false),
                Err(TryLockError::WouldBlock) => Some(true),
                Err(TryLockError::Error(_)) => None,
            },
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(false),
        }
    }
}

fn leases(path: &Path) -> PathBuf {
    path.join("leases")
}

fn claims(path: &Path) -> PathBuf {
    path.join("claims")
}

#[allow(clippy::disallowed_methods, reason = "at the start, before there are tasks that could be held up")]
fn take_lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join("lock");
    // Not truncated: until the lock is ours, the process id in it is another's.
    let mut file = at(&path, OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path))?;
    let mut taken = file.try_lock();
    for _ in 0..LOCK_RETRIES {
        if !matches!(taken, Err(TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(LOCK_PAUSE);
        taken = file.try_lock();
    }
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The id is a help for whoever reads the message; without it the message is as true.
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StateError::InUse { path: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return at(&path, Err(error)),
    }
    let pid = format!("{}\n", std::process::id());
    at(&path, file.set_len(0))?;
    at(&path, disk::write_all_at(&file, pid.as_bytes(), 0))?;
    Ok(file)
}

/// Whether the directory says its format; an error where it is not ours.
fn format_is_known(directory: &Path) -> Result<bool, StateError> {
    let path = directory.join("format");
    match at(&path, disk::read_if_there(&path))? {
        None => Ok(false),
        Some(format) if format.trim_ascii() == FORMAT.as_bytes() => Ok(true),
        Some(format) => Err(StateError::Damaged {
            reason: format!(
                "{} says {:?}; this auditlake knows format {FORMAT}",
                path.display(),
                String::from_utf8_lossy(&format).trim()
            ),
        }),
    }
}

fn bound(directory: &Path) -> Result<Option<Uuid>, StateError> {
    let path = directory.join("archive.json");
    let Some(bytes) = at(&path, disk::read_if_there(&path))? else { return Ok(None) };
    let bound: Bound = serde_json::from_slice(&bytes)
        .map_err(|error| StateError::Damaged { reason: format!("{}: {error}", path.display()) })?;
    Ok(Some(bound.archive_id))
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, StateError> {
    result.map_err(|error| StateError::Unavailable { reason: disk::explain(path, &error) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::ops::disk::fault::{Step, fail};

    fn somewhere() -> (TempDir, PathBuf) {
        let parent = tempdir().unwrap();
        let path = parent.path().join("deep/state");
        (parent, path)
    }

    #[test]
    fn what_is_no_directory_is_not_taken_for_one_that_is_missing() {
        let (parent, path) = somewhere();
        assert!(matches!(StateDir::look(&path), Err(StateError::Missing { .. })));
        let file = parent.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [&file, &file.join("state")] {
            let error = StateDir::look(path).unwrap_err();
            assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains(&format!("{}: ", path.display())), "{error}");
        }
    }

    #[test]
    fn a_second_process_is_told_who_was_first() {
        // The lock is the open file's, so a second opening in this process meets it as another process does.
        let (_parent, path) = somewhere();
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, StateError::InUse { pid: Some(other), .. } if other == pid));
        let expected = format!("the state directory `{}` is in use by process {pid}", path.display());
        assert_eq!(error.to_string(), expected);
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_process_id_left_by_a_dead_process_holds_nobody_up() {
        let (_parent, path) = somewhere();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("lock"), "4294967295000\n").unwrap();
        let _held = StateDir::open(&path).unwrap();
        assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn the_state_of_one_archive_is_not_used_for_another() {
        let (_parent, path) = somewhere();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.bind(one).unwrap(), Binding::New);
        assert_eq!(state.bind(one).unwrap(), Binding::Same);
        drop(state);
        let state = StateDir::open(&path).unwrap();
        let error = state.bind(other).unwrap_err();
        assert!(matches!(error, StateError::OtherArchive { bound, asked, .. } if (bound, asked) == (one, other)));
        assert_eq!(state.bind(one).unwrap(), Binding::Same);
        assert_eq!(StateDir::look(&path).unwrap().archive().unwrap(), Some(one));
    }

    #[test]
    fn looking_needs_no_lock_and_creates_nothing() {
        let (_parent, path) = somewhere();
        assert!(matches!(StateDir::look(&path), Err(StateError::Missing { .. })));
        assert!(!path.exists());
        let state = StateDir::open(&path).unwrap();
        let view = StateDir::look(&path).unwrap();
        assert_eq!(view.archive().unwrap(), None);
        assert_eq!(view.leases(), state.leases());
        assert!(state.leases().is_dir() && state.claims().is_dir());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a lock is waited for in real time")]
    fn who_looks_is_told_whether_the_directory_is_in_use_and_holds_nobody_up() {
        let (_parent, path) = somewhere();
        let state = StateDir::open(&path).unwrap();
        let view = StateDir::look(&path).unwrap();
        assert_eq!(view.is_in_use(), Some(true));
        drop(state);
        assert_eq!(view.is_in_use(), Some(false));
        let looking = File::open(path.join("lock")).unwrap();
        looking.try_lock_shared().unwrap();
        let looker = thread::spawn(move || {
            thread::sleep(LOCK_PAUSE);
            drop(looking);
        });
        StateDir::open(&path).unwrap();
        looker.join().unwrap();
    }

    #[test]
    fn a_later_format_is_refused_by_all() {
        let (_parent, path) = somewhere();
        drop(StateDir::open(&path).unwrap());
        fs::write(path.join("format"), "2\n").unwrap();
        for error in [StateDir::open(&path).unwrap_err(), StateDir::look(&path).unwrap_err()] {
            assert!(error.to_string().ends_with("format says \"2\"; this auditlake knows format 1"), "{error}");
        }
    }

    #[test]
    fn an_unreadable_binding_is_named() {
        let (_parent, path) = somewhere();
        let state = StateDir::open(&path).unwrap();
        fs::write(path.join("archive.json"), "{").unwrap();
        let error = state.bind(Uuid::nil()).unwrap_err();
        assert!(matches!(&error, StateError::Damaged { reason } if reason.contains("archive.json")), "{error}");
    }

    #[test]
    fn a_full_disk_binds_nothing() {
        let (_parent, path) = somewhere();
        let state = StateDir::open(&path).unwrap();
        fail(Step::Write, 0, ErrorKind::StorageFull);
        let error = state.bind(Uuid::nil()).unwrap_err().to_string();
        assert!(error.ends_with("archive.json: no space left on the disk"), "{error}");
        assert_eq!(state.bind(Uuid::nil()).unwrap(), Binding::New);
    }
}
