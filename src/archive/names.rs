//! What the keys of an archive say: which shard and batch an object belongs to.
//!
//! | object | key |
//! |---|---|
//! | an event object | `events/<partitions>/20261121T093000Z-<shard>-00000042.<format>` |
//! | a reject object | `rejected/<partitions>/20261121T093000Z-<shard>-00000042.ndjson` |
//! | a manifest | `_manifests/<shard>/00000042.json` |
//!
//! `<shard>` is percent-encoded, so that it holds no `/`; the number is the batch's, of at least eight digits.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

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

/// The batch that an object belongs to, as its key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchName {
    /// The shard.
    pub shard: ShardId,
    /// The batch's number in it.
    pub batch_seq: u64,
}

/// The folder of one shard's manifests, with its `/`.
pub fn manifest_folder(shard: &ShardId) -> String {
    format!("{MANIFESTS}{}/", utf8_percent_encode(shard.as_str(), KEPT))
}

/// The key of a batch's manifest.
pub fn manifest_key(shard: &ShardId, batch_seq: u64) -> String {
    format!("{}{batch_seq:08}.json", manifest_folder(shard))
}

/// Whose manifest stands under this key; none where the key is not exactly what [`manifest_key`] gives.
pub fn parse_manifest_key(key: &str) -> Option<BatchName> {
    let (folder, file) = key.strip_prefix(MANIFESTS)?.split_once('/')?;
    let batch_seq = file.strip_suffix(".json")?.parse().ok()?;
    let name = BatchName { shard: decode(folder)?, batch_seq };
    // One manifest, one key: an alias (`7.json`, `%41`) is somebody else's file.
    (manifest_key(&name.shard, name.batch_seq) == key).then_some(name)
}

/// Whose event or reject object stands under this key; none where it can't be one.
pub fn parse_object_key(key: &str) -> Option<BatchName> {
    let (folder, file) = key.rsplit_once('/')?;
    let ours = [EVENTS, REJECTED].iter().any(|root| folder.starts_with(root.trim_end_matches('/')));
    let (window, rest) = file.split_at_checked(WINDOW_LENGTH)?;
    // No extension holds a hyphen, and every shard's name may.
    let (shard, numbered) = rest.rsplit_once('-')?;
    let (digits, _extension) = numbered.split_once('.')?;
    let plausible = ours && window.ends_with("Z-") && digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    plausible.then_some(BatchName { shard: decode(shard)?, batch_seq: digits.parse().ok()? })
}

fn decode(encoded: &str) -> Option<ShardId> {
    percent_decode_str(encoded).decode_utf8().ok().filter(|name| !name.is_empty()).map(ShardId::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_key_and_its_parser_agree() {
        for shard in ["shardId-000000000001", "2026/11/audit.json", "a b%c", "é"] {
            let shard = ShardId::new(shard);
            let key = manifest_key(&shard, 42);
            assert!(key.ends_with("/00000042.json"), "{key}");
            assert_eq!(key.matches('/').count(), 2, "{key}");
            assert_eq!(parse_manifest_key(&key), Some(BatchName { shard, batch_seq: 42 }));
        }
    }

    #[test]
    fn an_alias_of_a_manifest_key_is_no_manifest() {
        for key in ["_manifests/a/7.json", "_manifests/%61/00000007.json", "_manifests/00000007.json", "_manifests/a/x"]
        {
            assert_eq!(parse_manifest_key(key), None, "{key}");
        }
    }

    #[test]
    fn an_object_key_tells_its_shard_and_batch() {
        let of = |shard: &str, batch_seq| Some(BatchName { shard: ShardId::new(shard), batch_seq });
        let dated = "events/dt=2026-11-21/20261121T093000Z-shardId-0001-00000042.parquet";
        assert_eq!(parse_object_key(dated), of("shardId-0001", 42));
        let dotted = "rejected/dt=2026-11-21/20261121T093000Z-a%2Fb.json-123456789.ndjson.zst";
        assert_eq!(parse_object_key(dotted), of("a/b.json", 123_456_789));
        for key in
            ["events/x.parquet", "events/dt=1/20261121T093000Z-s-42.parquet", "other/20261121T093000Z-s-00000042.x"]
        {
            assert_eq!(parse_object_key(key), None, "{key}");
        }
    }
}
