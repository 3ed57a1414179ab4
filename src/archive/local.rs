//! The archive on a local disk: a folder.
//!
//! An object comes to stand under its key by a hard link, which the file system makes whole or not at all and never
//! over a name that is taken:
//!
//! | step | after a crash behind it |
//! |---|---|
//! | 1. write `.tmp/<pid>-<n>`, fsync it | a stray file that no listing shows; removed when the archive is next opened |
//! | 2. link it to its key | the object stands, whole; whether the disk knows its name is open |
//! | 3. fsync its folder | the object is durable |
//! | 4. remove the temporary name | |
//!
//! A caller that crashed between 2 and 3 puts again and finds the object: so step 3 is done for an object that exists,
//! too, before that is reported.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ArchiveError, ArchiveStore, Listed, Put, Stat, check_key, check_prefix};
use crate::encode::Pieces;
use crate::ops::disk;

/// Where objects are written before they have a name. On the archive's own file system, since a link can't leave it;
/// hidden, so that no `**` of a query engine looks into it.
const TEMP: &str = ".tmp";

/// What `mkfs` leaves at the root of a disk, readable by root alone: nothing of ours is in it.
const LOST_AND_FOUND: &str = "lost+found";

/// Read only, for everyone: nothing is ever overwritten, and so a stray `>>` or an editor fails before it breaks a
/// digest. Removing an object asks for the right to its folder, not for this.
const OBJECT_MODE: u32 = 0o444;

/// Numbers the temporary files of this process.
static TEMP_NUMBER: AtomicU64 = AtomicU64::new(0);

/// An archive in a folder of a local disk. Any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct LocalArchive {
    disk: Arc<Disk>,
}

impl LocalArchive {
    /// The archive in `root`. Makes nothing: folders are made by the first put, so that commands that only read may
    /// open an archive which they can't write. Removes what dead processes left half-written, if it may.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] where `root` is something else than a folder.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ArchiveError> {
        let disk = Disk { root: root.into(), durable: Mutex::default(), hard_links: true };
        if fs::metadata(&disk.root).is_ok_and(|root| !root.is_dir()) {
            let reason = format!("{} is not a folder", disk.root.display());
            return Err(ArchiveError::Refused { key: String::new(), reason });
        }
        disk.remove_stale();
        Ok(Self { disk: Arc::new(disk) })
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Disk) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || work(&disk)).await.unwrap_or_else(|stopped| {
            Err(ArchiveError::Unavailable { key: key.to_owned(), reason: stopped.to_string() })
        })
    }
}

impl LocalArchive {
    /// Removes an object, if it is there; its folder, too, where it was the last one in it. For spools alone: an archive
    /// keeps what it holds.
    pub(crate) async fn remove_segment(&self, key: &str) -> Result<(), ArchiveError> {
        check_key(key)?;
        let owned = key.to_owned();
        self.blocking(key, move |disk| disk.remove(&owned).map_err(|failure| failure.explain(&owned))).await
    }
}

#[async_trait]
impl ArchiveStore for LocalArchive {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        self.put_pieces_if_absent(key, &body.into()).await
    }

    async fn put_pieces_if_absent(&self, key: &str, body: &Pieces) -> Result<Put, ArchiveError> {
        check_key(key)?;
        let (owned, body) = (key.to_owned(), body.clone());
        self.blocking(key, move |disk| disk.put(&owned, body.pieces()).map_err(|failure| failure.explain(&owned))).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        check_key(key)?;
        let owned = key.to_owned();
        self.blocking(key, move |disk| disk.get(&owned).map_err(|failure| failure.explain(&owned))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        check_prefix(prefix)?;
        let owned = prefix.to_owned();
        self.blocking(prefix, move |disk| disk.list(&owned).map_err(|failure| failure.explain(&owned))).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        check_key(key)?;
        let owned = key.to_owned();
        self.blocking(key, move |disk| disk.stat(&owned).map_err(|failure| failure.explain(&owned))).await
    }
}

/// The folder, and what is known of it.
#[derive(Debug)]
struct Disk {
    root: PathBuf,
    /// Folders that this process has made durable, with all that lead to them.
    durable: Mutex<HashSet<PathBuf>>,
    /// Whether the file system has hard links; tests take them away.
    hard_links: bool,
}

/// A call of the operating system that failed, and at which path.
#[derive(Debug)]
struct Failure {
    path: PathBuf,
    error: io::Error,
}

/// Names the path at which a call failed.
fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    |error| Failure { path: path.to_owned(), error }
}

impl Failure {
    /// What the caller can do about it.
    fn explain(self, key: &str) -> ArchiveError {
        let key = key.to_owned();
        let reason = disk::explain(&self.path, &self.error);
        match self.error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ArchiveError::OutOfSpace { key },
            ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::FileTooLarge => ArchiveError::Refused { key, reason },
            _ => ArchiveError::Unavailable { key, reason },
        }
    }
}

/// A file without a name of its own yet. Its temporary name goes with it.
struct Staged {
    path: PathBuf,
    /// Open and locked for as long as its writer lives: by that [`Disk::remove_stale`] tells a dead one's.
    _file: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays behind is removed when the archive is next opened.
        let _ = fs::remove_file(&self.path);
    }
}

impl Disk {
    fn put(&self, key: &str, body: &[impl AsRef<[u8]>]) -> Result<Put, Failure> {
        let path = self.root.join(key);
        let folder = path.parent().expect("a key lies below the root");
        // Asked first, so that a batch which is put again is not written again. The link has the last word.
        let put = match path.symlink_metadata() {
            Ok(standing) if standing.is_dir() => return Err(at(&path)(ErrorKind::IsADirectory.into())),
            Ok(_) => Put::Exists,
            Err(_) => {
                self.make_durable(folder)?;
                self.publish(&self.stage(body)?, &path)?
            }
        };
        if put == Put::Exists {
            self.make_durable(folder)?;
            sync(&path)?;
        }
        sync(folder)?;
        Ok(put)
    }

    /// Writes `body` into a temporary file, durable.
    fn stage(&self, body: &[impl AsRef<[u8]>]) -> Result<Staged, Failure> {
        let temp = self.root.join(TEMP);
        self.make_durable(&temp)?;
        let (staged, mut file) = loop {
            let number = TEMP_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = temp.join(format!("{}-{number}", std::process::id()));
            // Two containers that share the disk may both be process 1: then one takes the next number.
            match OpenOptions::new().write(true).create_new(true).mode(OBJECT_MODE).open(&path) {
                Ok(file) => break (Staged { _file: file.try_clone().map_err(at(&path))?, path }, file),
                Err(taken) if taken.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&path)(error)),
            }
        };
        // Without locks there is no telling a dead one's files, and then they are left alone.
        let _ = file.try_lock();
        let written = body.iter().try_for_each(|piece| file.write_all(piece.as_ref()));
        written.and_then(|()| file.sync_all()).map_err(at(&staged.path))?;
        Ok(staged)
    }

    /// Gives the staged file its name, unless that is taken.
    fn publish(&self, staged: &Staged, path: &Path) -> Result<Put, Failure> {
        let linked =
            if self.hard_links { fs::hard_link(&staged.path, path) } else { Err(ErrorKind::Unsupported.into()) };
        match linked {
            Ok(()) => Ok(Put::Created),
            Err(taken) if taken.kind() == ErrorKind::AlreadyExists => Ok(Put::Exists),
            // FAT and some network file systems have no links, and say so in either way.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                self.rename_under_lock(&staged.path, path)
            }
            Err(error) => Err(at(path)(error)),
        }
    }

    /// What takes the link's place where there are none: a rename would replace an object, so everyone looks first,
    /// one at a time.
    fn rename_under_lock(&self, staged: &Path, path: &Path) -> Result<Put, Failure> {
        let lock_path = self.root.join(TEMP).join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        if path.symlink_metadata().is_ok() {
            return Ok(Put::Exists);
        }
        fs::rename(staged, path).map_err(at(path))?;
        Ok(Put::Created)
    }

    /// Makes `folder` and all that lead to it, and makes the disk know them: a folder that an earlier attempt made may
    /// not have got that far.
    fn make_durable(&self, folder: &Path) -> Result<(), Failure> {
        let known = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(folder) && folder.is_dir() {
            return Ok(());
        }
        if folder == self.root {
            fs::create_dir_all(folder).map_err(at(folder))?;
            for above in folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                // Those that may not be opened were not made by us.
                let _ = sync(above);
            }
        } else {
            let parent = folder.parent().expect("a folder of the archive lies below its root");
            self.make_durable(parent)?;
            make_folder(folder)?;
            sync(parent)?;
        }
        known().insert(folder.to_owned());
        Ok(())
    }

    fn remove(&self, key: &str) -> Result<(), Failure> {
        let path = self.root.join(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        // Not empty, or gone: either is as good.
        if let Some(folder) = path.parent().filter(|folder| *folder != self.root) {
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<Bytes>, Failure> {
        let path = self.root.join(key);
        match fs::read(&path) {
            Ok(body) => Ok(Some(body.into())),
            // A folder is no object, and below an object there is none.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// A disk keeps no digests.
    fn stat(&self, key: &str) -> Result<Option<Stat>, Failure> {
        let path = self.root.join(key);
        match path.symlink_metadata() {
            Ok(standing) if standing.is_dir() => Ok(None),
            Ok(standing) => Ok(Some(Stat { bytes: standing.len(), sha256: None })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            self.list_folder(&folder, prefix, &mut folders, &mut found)?;
        }
        // By the whole key: `a-b` stands before `a/b`, which no walk of folders gives.
        found.sort_unstable();
        Ok(found)
    }

    /// What of one folder may begin with `prefix`. Links are shown as what they are, objects of a strange size, and
    /// not followed.
    fn list_folder(
        &self,
        folder: &str,
        prefix: &str,
        folders: &mut Vec<String>,
        found: &mut Vec<Listed>,
    ) -> Result<(), Failure> {
        let path = self.root.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(at(&path)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(at(&path))?;
            let name = entry.file_name();
            if folder.is_empty() && (name == TEMP || name == LOST_AND_FOUND) {
                continue;
            }
            let name = name.to_string_lossy();
            let key = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(gone) if gone.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(at(&entry.path())(error)),
            };
            if !metadata.is_dir() && key.starts_with(prefix) {
                found.push(Listed { key, bytes: metadata.len() });
            } else if metadata.is_dir() && (key.starts_with(prefix) || prefix.starts_with(&format!("{key}/"))) {
                folders.push(key);
            }
        }
        Ok(())
    }

    /// Removes what dead processes left half-written. A living one holds a lock on its file.
    fn remove_stale(&self) {
        // All of this is tidying: whoever may not, leaves it.
        let Ok(entries) = fs::read_dir(self.root.join(TEMP)) else { return };
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if path.file_name().is_some_and(|name| name != "lock")
                && File::open(&path).is_ok_and(|f| f.try_lock().is_ok())
            {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made.map_err(at(folder)),
    }
}

/// Waits until the disk has the file's content, or the folder's names.
fn sync(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

#[cfg(test)]
mod tests;
