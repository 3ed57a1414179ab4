//! What the embedded state asks of a local disk: writes that are whole and durable, or did not happen.
//!
//! Every write and sync of the state directory goes through here, so that a test can make one of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the name of a file ends with while it is being written; a reader passes such files over.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Writes all of `bytes` at `offset`. On an error any part of them may have been written.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(test)]
    if let Err(error) = fault::check(fault::Step::Write) {
        // A disk that runs full takes what fits.
        file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
        return Err(error);
    }
    file.write_all_at(bytes, offset)
}

/// Makes what was written to `file` survive a crash. After an error what was written since the last success may be
/// lost although a read still shows it (Linux marks the pages clean): it must be written again.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    fault::check(fault::Step::Sync)?;
    file.sync_data()
}

/// Makes the creations, renamings and deletions in a directory survive a crash.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates `directory` and what is missing above it, so that it survives a crash.
pub(crate) fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_directory(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

/// Puts `bytes` in place of what `path` holds, if it holds anything. A reader sees the old content or the new, whole;
/// on an error either of them stands there.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(path);
    write_new(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| {
        // It is passed over and removed at the next start as well; there is nothing to do about a second error.
        let _ = fs::remove_file(&unfinished);
    })?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a file for good.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    write_all_at(&file, bytes, 0)?;
    sync(&file)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Removes what a crash left unfinished in a directory.
pub(crate) fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for name in file_names(directory)? {
        if name.ends_with(UNFINISHED) {
            fs::remove_file(directory.join(name))?;
        }
    }
    Ok(())
}

/// The names in a directory, in order. Names that are not Unicode are none of ours and left out.
pub(crate) fn file_names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// The content of a file, or `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path and the cause, in words, and what to do about it where that is known.
pub(crate) fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull => format!("{path}: no space left on the disk"),
        ErrorKind::QuotaExceeded => format!("{path}: no space left within the quota"),
        ErrorKind::ReadOnlyFilesystem => format!("{path}: {error}; remount the disk for writing"),
        ErrorKind::PermissionDenied => {
            format!("{path}: {error}; let the user that runs auditlake read and write there")
        }
        _ => format!("{path}: {error}"),
    }
}

/// Lets a test make the disk fail. Per thread, so that tests don't meet.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::RefCell;
    use std::io;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Step {
        Write,
        Sync,
    }

    thread_local! {
        static PLANNED: RefCell<Vec<(Step, usize, io::ErrorKind)>> = const { RefCell::new(Vec::new()) };
    }

    /// The step after `passing` more of its kind fails, once.
    pub(crate) fn fail(step: Step, passing: usize, kind: io::ErrorKind) {
        PLANNED.with_borrow_mut(|planned| planned.push((step, passing, kind)));
    }

    /// Forgets failures that have not come up; returns how many.
    pub(crate) fn clear() -> usize {
        PLANNED.with_borrow_mut(|planned| std::mem::take(planned).len())
    }

    pub(super) fn check(step: Step) -> io::Result<()> {
        PLANNED.with_borrow_mut(|planned| {
            let mut due = None;
            for (index, (at, passing, kind)) in planned.iter_mut().enumerate().filter(|(_, (at, ..))| *at == step) {
                debug_assert_eq!(*at, step);
                match passing.checked_sub(1) {
                    Some(left) => *passing = left,
                    None => due = due.or(Some((index, *kind))),
                }
            }
            due.map_or(Ok(()), |(index, kind)| {
                planned.remove(index);
                Err(kind.into())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fault::{Step, clear, fail};
    use super::*;

    #[test]
    fn a_file_that_could_not_be_replaced_keeps_its_content_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("row");
        replace_file(&path, b"old").unwrap();
        for step in [Step::Write, Step::Sync] {
            fail(step, 0, ErrorKind::StorageFull);
            let error = replace_file(&path, b"new and longer").unwrap_err();
            assert!(explain(&path, &error).ends_with("row: no space left on the disk"));
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(file_names(directory.path()).unwrap(), ["row"]);
        }
        replace_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(clear(), 0);
    }

    #[test]
    fn unfinished_files_are_removed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.json.tmp", "b.tmp"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_unfinished(directory.path()).unwrap();
        assert_eq!(file_names(directory.path()).unwrap(), ["a.json"]);
    }

    #[test]
    fn directories_are_created_with_what_is_missing_above_them() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        create_directory(&deep).unwrap();
        create_directory(&deep).unwrap();
        assert!(deep.is_dir());
    }

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_if_there(&directory.path().join("none")).unwrap(), None);
        assert!(read_if_there(directory.path()).is_err());
    }

    #[test]
    fn a_planned_failure_comes_after_the_steps_it_lets_pass_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("f")).unwrap();
        fail(Step::Sync, 1, ErrorKind::Other);
        assert!(sync(&file).is_ok());
        assert!(sync(&file).is_err());
        assert!(sync(&file).is_ok());
    }
}
