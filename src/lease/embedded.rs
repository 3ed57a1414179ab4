//! [`LeaseStore`] in a directory of a local disk: one JSON file a shard, replaced as a whole.
//!
//! A file's name is its shard's, percent-encoded but for `[A-Za-z0-9._-]`, with `.json` behind it. A name that would get
//! too long is cut and told from others by `~` and the SHA-256 of the shard's name. The row within says whose it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{LeaseError, LeaseRow, LeaseStore, Listing};
use crate::digest::Digest;
use crate::ops::disk;
use crate::source::ShardId;

const SUFFIX: &str = ".json";
/// What file systems allow, less what is put behind the name.
const NAME_BYTES: usize = 255 - SUFFIX.len() - disk::UNFINISHED.len();
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

/// Rows that outlive the process.
#[derive(Debug)]
pub struct EmbeddedLeases {
    directory: PathBuf,
    /// Held from reading the counter to writing the row; `None` for those who only look.
    writing: Option<Mutex<()>>,
}

impl EmbeddedLeases {
    /// Opens the rows of a directory, which is created where it is missing, and removes what a crash left unfinished.
    /// The caller holds the lock of the state directory: no other process writes here.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, LeaseError> {
        let directory = directory.into();
        disk::create_directory(&directory)
            .and_then(|()| disk::remove_unfinished(&directory))
            .map_err(|error| unavailable(&directory, &error))?;
        Ok(Self { directory, writing: Some(Mutex::new(())) })
    }

    /// Looks at the rows of a directory, while another process may be writing them.
    pub fn look(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), writing: None }
    }

    fn path(&self, shard: &ShardId) -> PathBuf {
        self.directory.join(file_name(shard))
    }

    fn read(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        let path = self.path(shard);
        let Some(row) = read(&path, shard)? else { return Ok(None) };
        if row.shard == *shard {
            return Ok(Some(row));
        }
        // A file system that ignores case makes two shards meet here.
        let reason = format!("{} holds the row of {}", path.display(), row.shard);
        Err(LeaseError::Damaged { shard: shard.clone(), reason })
    }

    /// Writes the row if the stored one's counter is `expected` (`None`: there is no row).
    fn write(&self, row: &LeaseRow, expected: Option<u64>) -> Result<(), LeaseError> {
        let mut json =
            serde_json::to_vec_pretty(row).map_err(|error| LeaseError::Unavailable { reason: error.to_string() })?;
        json.push(b'\n');
        self.change(row, expected, |path| disk::replace_file(path, &json))
    }

    /// Changes the row's file if the stored row's counter is `expected` (`None`: there is no row).
    fn change(
        &self,
        row: &LeaseRow,
        expected: Option<u64>,
        change: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), LeaseError> {
        let Some(writing) = &self.writing else {
            let reason = format!("{} was opened to be looked at only", self.directory.display());
            return Err(LeaseError::Unavailable { reason });
        };
        // It guards no data of its own, so a panic elsewhere has left nothing half done in it.
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.read(&row.shard)?.map(|stored| stored.counter) != expected {
            return Err(LeaseError::Conflict { shard: row.shard.clone() });
        }
        let path = self.path(&row.shard);
        change(&path).map_err(|error| unavailable(&path, &error))
    }
}

#[async_trait]
impl LeaseStore for EmbeddedLeases {
    async fn look(&self) -> Result<Listing, LeaseError> {
        let names = disk::file_names(&self.directory).map_err(|error| unavailable(&self.directory, &error))?;
        let mut listing = Listing::default();
        for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
            let path = self.directory.join(name);
            match read(&path, &shard_of(name)) {
                Ok(None) => {}
                Ok(Some(row)) if file_name(&row.shard) == *name => listing.rows.push(row),
                Ok(Some(row)) => {
                    let reason = format!("{} holds the row of {}", path.display(), row.shard);
                    listing.damaged.push(LeaseError::Damaged { shard: shard_of(name), reason });
                }
                Err(damaged @ LeaseError::Damaged { .. }) => listing.damaged.push(damaged),
                Err(error) => return Err(error),
            }
        }
        listing.rows.sort_by(|a, b| a.shard.cmp(&b.shard));
        Ok(listing)
    }

    async fn get(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        self.read(shard)
    }

    async fn create(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        self.write(row, None)
    }

    async fn replace(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        match row.counter.checked_sub(1) {
            Some(stored) => self.write(row, Some(stored)),
            None => Err(LeaseError::Conflict { shard: row.shard.clone() }),
        }
    }

    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        self.change(row, Some(row.counter), disk::remove_file)
    }

    fn sole_worker(&self) -> bool {
        self.writing.is_some()
    }
}

fn file_name(shard: &ShardId) -> String {
    let mut name = utf8_percent_encode(shard.as_str(), ENCODED).to_string();
    if name.len() > NAME_BYTES {
        let digest = Digest::of(shard.as_str().as_bytes()).to_string();
        name.truncate(NAME_BYTES - 1 - digest.len());
        // No encoded name has a `~`.
        name = format!("{name}~{digest}");
    }
    name + SUFFIX
}

/// The shard whose row should be in the file of this name. Of a name that was cut only the row could say; the file's name
/// is the next best.
fn shard_of(name: &str) -> ShardId {
    let encoded = name.strip_suffix(SUFFIX).unwrap_or(name);
    let decoded = percent_decode_str(encoded).decode_utf8().ok().map(ShardId::new);
    decoded.filter(|shard| file_name(shard) == name).unwrap_or_else(|| ShardId::new(name))
}

fn read(path: &Path, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
    let Some(bytes) = disk::read_if_there(path).map_err(|error| unavailable(path, &error))? else { return Ok(None) };
    let damaged = |error: serde_json::Error| LeaseError::Damaged {
        shard: shard.clone(),
        reason: format!("{}: {error}", path.display()),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn unavailable(path: &Path, error: &std::io::Error) -> LeaseError {
    LeaseError::Unavailable { reason: disk::explain(path, error) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::io::ErrorKind;

    use tempfile::tempdir;

    use super::*;
    use crate::ops::disk::fault::{Step, clear, fail};

    fn row(shard: &str, counter: u64) -> LeaseRow {
        LeaseRow { counter, ..LeaseRow::new(ShardId::new(shard), Vec::new()) }
    }

    fn name(shard: &str) -> String {
        file_name(&ShardId::new(shard))
    }

    #[test]
    fn file_names_are_readable_safe_and_distinct() {
        assert_eq!(name("shardId-000000000001"), "shardId-000000000001.json");
        assert_eq!(name("2026/a b~ü"), "2026%2Fa%20b%7E%C3%BC.json");
        assert_eq!(name(".."), "...json");
        assert_eq!(name(""), ".json");
        let long = |tail: &str| "é/".repeat(200) + tail;
        let exact = "x".repeat(NAME_BYTES);
        let names: Vec<String> =
            [&long("a"), &long("b"), &exact, &(exact.clone() + "x"), "a%2Fb", "a/b"].map(name).into();
        assert!(names.iter().all(|name| name.len() + disk::UNFINISHED.len() <= 255), "{names:?}");
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert_eq!(name(&exact), exact + ".json");
    }

    #[tokio::test]
    async fn a_row_outlives_the_store_and_reads_as_json() {
        let directory = tempdir().unwrap();
        EmbeddedLeases::open(directory.path()).unwrap().create(&row("a/b", 0)).await.unwrap();
        let text = fs::read_to_string(directory.path().join("a%2Fb.json")).unwrap();
        assert!(text.contains("\"checkpoint\": \"TRIM_HORIZON\""), "{text}");
        let again = EmbeddedLeases::open(directory.path()).unwrap();
        assert_eq!(again.list().await.unwrap(), [row("a/b", 0)]);
    }

    #[tokio::test]
    async fn what_a_crash_left_unfinished_is_removed_and_never_listed() {
        let directory = tempdir().unwrap();
        let unfinished = directory.path().join("a.json.tmp");
        fs::write(&unfinished, "{\"sha").unwrap();
        assert_eq!(EmbeddedLeases::look(directory.path()).list().await.unwrap(), []);
        assert!(unfinished.exists());
        let leases = EmbeddedLeases::open(directory.path()).unwrap();
        assert!(!unfinished.exists());
        leases.create(&row("a", 0)).await.unwrap();
    }

    #[tokio::test]
    async fn damage_names_the_file() {
        let directory = tempdir().unwrap();
        let leases = EmbeddedLeases::open(directory.path()).unwrap();
        leases.create(&row("a", 0)).await.unwrap();
        fs::write(directory.path().join("a.json"), "{").unwrap();
        let shard = ShardId::new("a");
        for error in [
            leases.get(&shard).await.unwrap_err(),
            leases.list().await.unwrap_err(),
            leases.create(&row("a", 0)).await.unwrap_err(),
            leases.replace(&row("a", 1)).await.unwrap_err(),
        ] {
            assert!(matches!(&error, LeaseError::Damaged { reason, .. } if reason.contains("a.json")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_row_under_another_shards_name_is_damage() {
        let directory = tempdir().unwrap();
        let leases = EmbeddedLeases::open(directory.path()).unwrap();
        leases.create(&row("a", 0)).await.unwrap();
        fs::rename(directory.path().join("a.json"), directory.path().join("b.json")).unwrap();
        assert!(matches!(leases.get(&ShardId::new("b")).await, Err(LeaseError::Damaged { .. })));
        assert!(matches!(leases.list().await, Err(LeaseError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_damaged_row_hides_none_of_the_others() {
        let directory = tempdir().unwrap();
        let leases = EmbeddedLeases::open(directory.path()).unwrap();
        for name in ["a", "b/1", "c"] {
            leases.create(&row(name, 0)).await.unwrap();
        }
        fs::write(directory.path().join("b%2F1.json"), "{").unwrap();
        let listing = leases.look().await.unwrap();
        assert_eq!(listing.rows, [row("a", 0), row("c", 0)]);
        let [damaged @ LeaseError::Damaged { reason, .. }] = &listing.damaged[..] else { panic!("{listing:?}") };
        assert_eq!(damaged.shard(), Some(&ShardId::new("b/1")), "as its manifests name it");
        assert!(reason.contains("b%2F1.json"), "{reason}");
    }

    #[tokio::test]
    async fn on_a_full_disk_the_old_row_stays_whole_and_the_next_try_succeeds() {
        let directory = tempdir().unwrap();
        let leases = EmbeddedLeases::open(directory.path()).unwrap();
        leases.create(&row("a", 0)).await.unwrap();
        for step in [Step::Write, Step::Sync] {
            fail(step, 0, ErrorKind::StorageFull);
            let error = leases.replace(&row("a", 1)).await.unwrap_err();
            let LeaseError::Unavailable { reason } = error else { panic!("{error}") };
            assert!(reason.ends_with("a.json: no space left on the disk"), "{reason}");
            assert_eq!(leases.list().await.unwrap(), [row("a", 0)]);
        }
        leases.replace(&row("a", 1)).await.unwrap();
        assert_eq!(leases.list().await.unwrap(), [row("a", 1)]);
        assert_eq!(clear(), 0);
    }

    #[tokio::test]
    async fn who_only_looks_sees_each_write_and_writes_nothing() {
        let directory = tempdir().unwrap();
        let leases = EmbeddedLeases::open(directory.path()).unwrap();
        let looking = EmbeddedLeases::look(directory.path());
        leases.create(&row("a", 0)).await.unwrap();
        leases.replace(&row("a", 1)).await.unwrap();
        assert_eq!(looking.get(&ShardId::new("a")).await.unwrap(), Some(row("a", 1)));
        assert!(matches!(looking.create(&row("b", 0)).await, Err(LeaseError::Unavailable { .. })));
        assert!(matches!(looking.replace(&row("a", 2)).await, Err(LeaseError::Unavailable { .. })));
        assert!(leases.sole_worker() && !looking.sole_worker());
    }
}
