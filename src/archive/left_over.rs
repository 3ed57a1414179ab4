//! What is left of a batch whose lease row was lost: its objects, and no manifest.
//!
//! Nobody knows any more where the batch was to end. But an object's rows end somewhere, and the last of them all is a
//! place at which the batch can be cut again: read up to there, every object that stands comes out as it stands, and
//! those that had not been put yet hold a part of what they were to hold. The rest is the next batch's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::chain::ChainError;
use super::{ArchiveError, ArchiveStore, Listed};
use crate::batch::Window;
use crate::encode::keys::{self, DataKey, Encoding, ParsedKey};
use crate::encode::read::{Projection, ReadError, read_rejects, read_rows};
use crate::encode::{Compression, Format, Layout, PartitionKey};
use crate::lease::{LeaseRow, LeftOver};
use crate::source::{Position, ShardId};

/// The objects of every batch that has no manifest, by the shards' names in keys. `next` tells the number of a shard's
/// first batch without one; none where the shard is of no interest. What belongs to no next batch is left for `verify` to
/// find. Pure.
pub fn left_over_keys(listing: &[Listed], next: impl Fn(&str) -> Option<u64>) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Listed { key, .. } in listing {
        if let Some(name) = keys::data_batch(key)
            && next(name.folder) == Some(name.batch_seq)
        {
            found.entry(name.folder).or_default().push(key);
        }
    }
    found
}

/// All objects with rows or rejects.
pub async fn list_data(archive: &dyn ArchiveStore) -> Result<Vec<Listed>, ArchiveError> {
    Ok([archive.list(keys::EVENTS_PREFIX).await?, archive.list(keys::REJECTED_PREFIX).await?].concat())
}

/// Gives each row that was made anew what is left of its next batch. `layout` and `window` are the configured ones, for
/// what objects don't tell. The shards whose left-over objects can't be read, and why.
pub async fn find(
    archive: &dyn ArchiveStore,
    rows: &mut [LeaseRow],
    layout: &Layout,
    window: Duration,
) -> Result<Vec<(ShardId, ChainError)>, ArchiveError> {
    let listing = list_data(archive).await?;
    let next: BTreeMap<String, u64> =
        rows.iter().filter(|row| !row.ended).map(|row| (keys::encode_shard(&row.shard), row.batch_seq)).collect();
    let found = left_over_keys(&listing, |folder| next.get(folder).copied());
    let mut failures = Vec::new();
    for row in rows {
        let Some(keys) = found.get(keys::encode_shard(&row.shard).as_str()) else { continue };
        match read(archive, &row.shard, keys, layout, window).await {
            Ok(left_over) => {
                tracing::info!(shard = %row.shard, batch_seq = row.batch_seq, objects = keys.len(), through = %left_over.through,
                    "objects stand of a batch whose lease row was lost; the next batch takes them up");
                row.left_over = Some(left_over);
            }
            Err(ChainError::Archive(error)) => return Err(error),
            Err(damaged) => failures.push((row.shard.clone(), damaged)),
        }
    }
    Ok(failures)
}

async fn read(
    archive: &dyn ArchiveStore,
    shard: &ShardId,
    keys: &[&str],
    layout: &Layout,
    window: Duration,
) -> Result<LeftOver, ChainError> {
    let mut through: Option<Position> = None;
    let mut start = None;
    let mut layout = layout.clone();
    let mut partitions = BTreeSet::new();
    for &key in keys {
        let damaged = |reason: String| ChainError::Damaged { key: key.to_owned(), reason };
        let Some(bytes) = archive.get(key).await? else { return Err(damaged("came and went".to_owned())) };
        let data = match keys::parse_object_key(key) {
            Some(ParsedKey::Events(data)) => {
                layout = layout_of(&data, layout);
                partitions.insert(data.partition.to_owned());
                data
            }
            Some(ParsedKey::Rejected(data)) => data,
            _ => return Err(damaged("is no object with rows".to_owned())),
        };
        if *start.get_or_insert(data.window_start) != data.window_start {
            return Err(damaged(format!("is of another window than {}: they can't be of one batch", keys[0])));
        }
        let last = last_position(bytes, key, shard).map_err(|error| damaged(unreadable(&error)))?;
        through = through.max(last);
    }
    let nothing = || ChainError::Damaged { key: keys[0].to_owned(), reason: "holds no rows".to_owned() };
    let (Some(through), Some(start)) = (through, start) else { return Err(nothing()) };
    Ok(LeftOver { window: Window::of_length(start, window), through, layout, partitions })
}

fn unreadable(error: &ReadError) -> String {
    format!(
        "{error}; it has the name of the shard's next batch, and no manifest tells of it: find out who put it there, move it \
         out of the archive, and run again"
    )
}

/// The configured layout, but for what the key tells of the one that the object was put under. Its level nothing tells, nor
/// does it matter: an object is adopted by its rows.
fn layout_of(data: &DataKey<'_>, configured: Layout) -> Layout {
    let (format, compression) = match data.encoding {
        Encoding::Parquet if configured.format == Format::Parquet => (Format::Parquet, configured.compression),
        Encoding::Parquet => (Format::Parquet, Compression::Zstd),
        Encoding::Ndjson => (Format::Ndjson, Compression::None),
        Encoding::NdjsonGzip => (Format::Ndjson, Compression::Gzip),
        Encoding::NdjsonZstd => (Format::Ndjson, Compression::Zstd),
    };
    let folders = data.partition.split('/').filter_map(|folder| folder.split('=').next());
    let partition_by = folders.filter_map(PartitionKey::named).collect();
    let (least, most) = compression.levels().into_inner();
    let compression_level = configured.compression_level.clamp(least, most);
    Layout { format, compression, compression_level, partition_by, ..configured }
}

/// The place of the last row, all of which must be the shard's.
fn last_position(bytes: bytes::Bytes, key: &str, shard: &ShardId) -> Result<Option<Position>, ReadError> {
    let foreign = |row: u64, of: &ShardId| ReadError::Row { row, reason: format!("is of the shard {of}") };
    let mut last = None;
    let mut take = |row: u64, of: ShardId, payload: Position| {
        if of != *shard {
            return Err(foreign(row, &of));
        }
        last = last.take().max(Some(payload));
        Ok(())
    };
    if key.starts_with(keys::REJECTED_PREFIX) {
        for (number, reject) in (0..).zip(read_rejects(bytes)?) {
            let reject = reject?;
            take(number, reject.shard, reject.payload)?;
        }
    } else {
        for (number, row) in (0..).zip(read_rows(bytes, key, Projection::Keys)?) {
            let row = row?;
            take(number, row.shard, row.payload)?;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::MemoryArchive;
    use crate::config::Config;

    const WINDOW: Duration = Duration::from_mins(30);

    fn listed(keys: &[&str]) -> Vec<Listed> {
        keys.iter().map(|key| Listed { key: (*key).to_owned(), bytes: 1 }).collect()
    }

    fn reject(shard: &str, position: &str) -> String {
        let row = serde_json::json!({
            "reason": "not_utf8", "source_label": "x", "source_kind": "file", "source_shard": shard,
            "source_position": position, "arrival_time": "2026-11-21T09:31:00Z", "raw_base64": "",
        });
        format!("{row}\n")
    }

    async fn found(objects: &[(&str, String)]) -> Result<Option<LeftOver>, String> {
        let archive = MemoryArchive::new();
        for (key, body) in objects {
            archive.overwrite(key, body.clone());
        }
        let mut rows = [LeaseRow { batch_seq: 3, ..LeaseRow::new(ShardId::new("s"), Vec::new()) }];
        let failures = find(&archive, &mut rows, &Config::default().layout(), WINDOW).await.unwrap();
        let [row] = rows;
        failures.into_iter().next().map_or(Ok(row.left_over), |(_, error)| Err(error.to_string()))
    }

    #[test]
    fn only_objects_of_a_shards_next_batch_are_left_over() {
        let listing = listed(&[
            "events/dt=2026-11-20/20261121T093000Z-s-00000002.parquet",
            "events/dt=2026-11-21/20261121T093000Z-s-00000003.parquet",
            "events/dt=2026-11-21/20261121T093000Z-s-00000004.parquet",
            "events/dt=2026-11-21/20261121T093000Z-t-00000003.parquet",
            "events/dt=2026-11-21/something else",
            "rejected/dt=2026-11-21/20261121T093000Z-s-00000003.ndjson",
        ]);
        let found = left_over_keys(&listing, |folder| (folder == "s").then_some(3));
        assert_eq!(found, BTreeMap::from([("s", vec![listing[1].key.as_str(), listing[5].key.as_str()])]));
    }

    #[test]
    fn the_level_is_one_that_the_compression_has_whatever_is_configured() {
        let level = |key: &str, compression, compression_level| {
            let Some(ParsedKey::Events(data)) = keys::parse_object_key(key) else { panic!("{key}") };
            let configured = Layout { compression, compression_level, ..Config::default().layout() };
            layout_of(&data, configured).compression_level
        };
        assert_eq!(level("events/20261121T093000Z-s-00000003.ndjson.gz", Compression::Zstd, 19), 9);
        assert_eq!(level("events/20261121T093000Z-s-00000003.ndjson.zst", Compression::Gzip, 0), 1);
        assert_eq!(level("events/20261121T093000Z-s-00000003.ndjson.zst", Compression::None, 7), 7);
    }

    #[test]
    fn the_key_tells_the_layout_that_the_configuration_may_no_longer_have() {
        let configured = Config::default().layout();
        for (key, format, compression, partition_by) in [
            (
                "events/dt=2026-11-21/20261121T093000Z-s-00000003.parquet",
                Format::Parquet,
                Compression::Zstd,
                vec![PartitionKey::Dt],
            ),
            ("events/20261121T093000Z-s-00000003.ndjson", Format::Ndjson, Compression::None, vec![]),
            (
                "events/source_label=x/hour=09/20261121T093000Z-s-00000003.ndjson.gz",
                Format::Ndjson,
                Compression::Gzip,
                vec![PartitionKey::SourceLabel, PartitionKey::Hour],
            ),
        ] {
            let Some(ParsedKey::Events(data)) = keys::parse_object_key(key) else { panic!("{key}") };
            let layout = layout_of(&data, configured.clone());
            assert_eq!((layout.format, layout.compression), (format, compression), "{key}");
            assert_eq!(layout.partition_by, partition_by, "{key}");
            assert!(keys::is_of_layout(key, &layout), "{key}");
        }
    }

    #[tokio::test]
    async fn the_batch_ends_with_the_last_row_of_all_its_objects() {
        let key = |day: &str| format!("rejected/dt=2026-11-{day}/20261121T093000Z-s-00000003.ndjson");
        let (first, second) = (key("20"), key("21"));
        let rejects = |positions: &[&str]| positions.iter().map(|position| reject("s", position)).collect::<String>();
        let objects =
            [(first.as_str(), rejects(&["9/0/0", "12/0/0"])), (second.as_str(), rejects(&["7/0/0", "11/0/1"]))];
        let left_over = found(&objects).await.unwrap().unwrap();
        assert_eq!(left_over.through, Position::new(12));
        let start = "2026-11-21T09:30:00Z".parse().unwrap();
        assert_eq!(left_over.window, Window::of_length(start, WINDOW));
        assert_eq!(found(&[]).await, Ok(None));
    }

    #[tokio::test]
    async fn objects_that_can_not_be_of_one_batch_of_the_shard_are_told() {
        let key = "rejected/dt=2026-11-21/20261121T093000Z-s-00000003.ndjson";
        let other_window = "rejected/dt=2026-11-21/20261121T100000Z-s-00000003.ndjson";
        let row = || reject("s", "9/0/0");
        for (objects, words) in [
            (vec![(key, reject("t", "9/0/0"))], "is of the shard t"),
            (vec![(key, String::new())], "holds no rows"),
            (vec![(key, "{".to_owned())], "move it out of the archive"),
            (vec![(key, row()), (other_window, row())], "is of another window"),
        ] {
            let error = found(&objects).await.unwrap_err();
            assert!(error.starts_with("rejected/") && error.contains(words), "{error}");
        }
    }
}
