//! What the keys of an archive say: which shard and batch an object belongs to.
//!
//! | object | key |
//! |---|---|
//! | an event object | `events/<partitions>/20261121T093000Z-<shard>-00000042.<format>` |
//! | a reject object | `rejected/<partitions>/20261121T093000Z-<shard>-00000042.ndjson` |
//! | a manifest | `_manifests/<shard>/00000042.json` |
//!
//! `<shard>` is percent-encoded, so that it holds no `/`, and shortened where that is too long; the number is the batch's, of at least eight digits.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::digest::Digest;
use crate::source::ShardId;

/// The folder of all manifests.
pub const MANIFESTS: &str = "_manifests/";
/// The folder of all event objects.
pub const EVENTS: &str = "events/";
/// The folder of all reject objects.
pub const REJECTED: &str = "rejected/";
/// What `check` puts to try its permission.
pub const ACCESS_TEST: &str = "audit-log-access-test";

/// What stands in a shard's name as it is: no character that a file system, a glob or a URL gives a meaning to.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// `20261121T093000Z-`, in characters.
const WINDOW_LENGTH: usize = 17;

/// File systems take 255 bytes a name; window, number and extension need some.
const MAX_ENCODED: usize = 120;

/// The batch that an object belongs to, as its key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchName<'a> {
    /// The shard, encoded: a shortened name can't be turned back, so compare with [`encode_shard`].
    pub folder: &'a str,
    /// The batch's number in it.
    pub batch_seq: u64,
}

/// A shard's name as a part of keys.
pub fn encode_shard(shard: &ShardId) -> String {
    let encoded = utf8_percent_encode(shard.as_str(), KEPT).to_string();
    if encoded.len() <= MAX_ENCODED {
        return encoded;
    }
    // `~` stands in no other encoded name, so names stay apart.
    format!("{}~{}", &encoded[..MAX_ENCODED - 17], &Digest::of(shard.as_str().as_bytes()).to_string()[..16])
}

/// The key of a batch's manifest.
pub fn manifest_key(shard: &ShardId, batch_seq: u64) -> String {
    manifest_key_in(&encode_shard(shard), batch_seq)
}

/// The same, of a shard whose name is encoded.
pub fn manifest_key_in(folder: &str, batch_seq: u64) -> String {
    format!("{MANIFESTS}{folder}/{batch_seq:08}.json")
}

/// Whose manifest stands under this key; none where it is not a key that [`manifest_key`] gives.
pub fn parse_manifest_key(key: &str) -> Option<BatchName<'_>> {
    let (folder, file) = key.strip_prefix(MANIFESTS)?.split_once('/')?;
    let batch_seq = file.strip_suffix(".json")?.parse().ok()?;
    // One manifest, one key: an alias (`7.json`) is somebody else's file.
    let ours = is_encoded(folder) && manifest_key_in(folder, batch_seq) == key;
    ours.then_some(BatchName { folder, batch_seq })
}

/// Whose event or reject object stands under this key; none where it can't be one.
pub fn parse_object_key(key: &str) -> Option<BatchName<'_>> {
    let (_partitions, file) = key.strip_prefix(EVENTS).or_else(|| key.strip_prefix(REJECTED))?.rsplit_once('/')?;
    let (window, rest) = file.split_at_checked(WINDOW_LENGTH)?;
    // No extension holds a hyphen, and every shard's name may.
    let (folder, numbered) = rest.rsplit_once('-')?;
    let (digits, _extension) = numbered.split_once('.')?;
    let batch_seq = digits.parse().ok()?;
    let ours = window.ends_with("Z-") && is_encoded(folder) && digits == format!("{batch_seq:08}");
    ours.then_some(BatchName { folder, batch_seq })
}

fn is_encoded(folder: &str) -> bool {
    !folder.is_empty() && folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-%~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_key_and_its_parser_agree() {
        for shard in ["shardId-000000000001", "2026/11/audit.json", "a b%c", "\u{e9}", &"long/".repeat(50)] {
            let shard = ShardId::new(shard);
            let key = manifest_key(&shard, 42);
            assert!(key.ends_with("/00000042.json") && key.len() < 160, "{key}");
            assert_eq!(key.matches('/').count(), 2, "{key}");
            assert_eq!(parse_manifest_key(&key), Some(BatchName { folder: &encode_shard(&shard), batch_seq: 42 }));
        }
    }

    #[test]
    fn an_alias_of_a_manifest_key_is_no_manifest() {
        for key in ["_manifests/a/7.json", "_manifests/a b/00000007.json", "_manifests/00000007.json", "_manifests/a/x"]
        {
            assert_eq!(parse_manifest_key(key), None, "{key}");
        }
    }

    #[test]
    fn an_object_key_tells_its_shard_and_batch() {
        let dated = "events/dt=2026-11-21/20261121T093000Z-shardId-0001-00000042.parquet";
        assert_eq!(parse_object_key(dated), Some(BatchName { folder: "shardId-0001", batch_seq: 42 }));
        let dotted = "rejected/dt=2026-11-21/20261121T093000Z-a%2Fb.json-123456789.ndjson.zst";
        assert_eq!(parse_object_key(dotted), Some(BatchName { folder: "a%2Fb.json", batch_seq: 123_456_789 }));
        for key in ["events/x.parquet", "events/dt=1/20261121T093000Z-s-42.parquet", "x/20261121T093000Z-s-00000042.x"]
        {
            assert_eq!(parse_object_key(key), None, "{key}");
        }
    }
}
