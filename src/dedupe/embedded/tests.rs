//! What happens when the disk fails, the process dies or the files are touched. What is true of every adapter stands in
//! `tests/contract/claims.rs`.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::dedupe::Identity;
use crate::ops::disk::fault::{Step, clear, fail};
use crate::record::DetailsSource;
use crate::source::Position;

const WINDOW: Duration = Duration::from_secs(100);

struct Lab {
    directory: TempDir,
    segment_claims: u32,
}

impl Lab {
    fn new(segment_claims: u32) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), segment_claims }
    }

    fn open_at(&self, second: i64) -> Result<EmbeddedClaims, ClaimError> {
        let options = Options { segment_claims: self.segment_claims, ..Options::new(WINDOW, [5; 16]) };
        EmbeddedClaims::open(self.directory.path(), options, at(second))
    }

    fn open(&self) -> EmbeddedClaims {
        self.open_at(0).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files, by name, with their content.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = crate::ops::disk::file_names(self.directory.path()).unwrap();
        names.into_iter().map(|name| (name.clone(), fs::read(self.path(&name)).unwrap())).collect()
    }

    fn restore(&self, files: &[(String, Vec<u8>)]) {
        for (name, _) in self.files() {
            fs::remove_file(self.path(&name)).unwrap();
        }
        for (name, bytes) in files {
            fs::write(self.path(name), bytes).unwrap();
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// Claims record `number` from `position`, one second after the other.
async fn claim(claims: &EmbeddedClaims, number: u64, position: u64) -> Result<Verdict, ClaimError> {
    let log_id = format!("record-{number}");
    let payload = Position::new(position);
    let claim = Claim {
        identity: Identity::LogId { log_id: &log_id, version: 1 },
        position: payload.record(0),
        core: Core { base: number, details_source: DetailsSource::RawDetails, details: 0 },
    };
    let answer = claims.claim(&ShardId::new("s"), &[claim], at(number.cast_signed())).await?;
    Ok(answer[0])
}

async fn claim_all(claims: &EmbeddedClaims, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(claim(claims, number, number).await.unwrap(), Verdict::New, "{number}");
    }
}

/// Whether somebody else than this position has claimed the record. Claims it where nobody has.
async fn is_taken(claims: &EmbeddedClaims, number: u64) -> bool {
    match claim(claims, number, 1_000_000).await.unwrap() {
        Verdict::New => false,
        Verdict::Duplicate => true,
        other => panic!("{other:?}"),
    }
}

fn reason(error: ClaimError) -> String {
    match error {
        ClaimError::Unavailable(reason) => reason,
        other => panic!("{other}"),
    }
}

fn damage<T>(result: Result<T, ClaimError>) -> String {
    match result {
        Err(ClaimError::Damaged(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no damage was found"),
    }
}

#[tokio::test]
async fn flushed_claims_survive_and_others_can_be_made_again() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    assert!(claims.is_new());
    claim_all(&claims, 0..10).await;
    claims.flush().await.unwrap();
    claim_all(&claims, 10..20).await;
    assert_eq!(claims.stats().unwrap().unsealed, 10);
    drop(claims);

    let claims = lab.open();
    assert!(!claims.is_new());
    assert_eq!(claims.len().unwrap(), 10);
    assert_eq!(claim(&claims, 3, 3).await.unwrap(), Verdict::New);
    for number in 0..20 {
        assert_eq!(is_taken(&claims, number).await, number < 10, "{number}");
    }
}

#[tokio::test]
async fn a_directory_is_new_until_something_is_flushed() {
    let lab = Lab::new(1000);
    claim_all(&lab.open(), 0..3).await;
    let claims = lab.open();
    assert!(claims.is_new() && claims.is_empty().unwrap());
    claims.flush().await.unwrap();
    assert!(lab.open().is_new());
    claim_all(&claims, 0..1).await;
    claims.flush().await.unwrap();
    assert!(!lab.open().is_new());
}

#[tokio::test]
async fn the_secret_of_a_directory_stays() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    claim_all(&claims, 0..3).await;
    claims.flush().await.unwrap();
    let other = Options::new(WINDOW, [99; 16]);
    let claims = EmbeddedClaims::open(lab.directory.path(), other, at(0)).unwrap();
    assert!(is_taken(&claims, 1).await);
}

#[tokio::test]
async fn segments_follow_each_other_and_all_are_found_again() {
    let lab = Lab::new(7);
    let claims = lab.open();
    claim_all(&claims, 0..50).await;
    claims.flush().await.unwrap();
    let stats = claims.stats().unwrap();
    assert_eq!((stats.claims, stats.segments, stats.unsealed, stats.disk_bytes), (50, 8, 0, (50 + 8) * 45));
    let claims = lab.open();
    assert_eq!(claims.len().unwrap(), 50);
    for number in 0..50 {
        assert_eq!(claim(&claims, number, number).await.unwrap(), Verdict::New);
        assert!(is_taken(&claims, number).await);
    }
    assert_eq!(claims.len().unwrap(), 50);
}

#[tokio::test]
async fn segments_older_than_the_window_go_and_only_they() {
    let lab = Lab::new(10);
    let claims = lab.open();
    claim_all(&claims, 0..131).await; // the 14th segment begins at 130 s: what was made before 30 s is too old
    assert_eq!(claims.stats().unwrap().segments, 11);
    assert_eq!(claims.len().unwrap(), 131 - 30);
    assert_eq!(lab.files().first().unwrap().0, "00000004.log");
    assert!(is_taken(&claims, 30).await);
    assert!(!is_taken(&claims, 29).await);
    claims.flush().await.unwrap();
    drop(claims);

    let claims = lab.open_at(150).unwrap();
    assert_eq!(claims.stats().unwrap().segments, 9);
    assert!(is_taken(&claims, 50).await);
    // However old, the segment that is written to stays.
    let claims = lab.open_at(100_000).unwrap();
    assert_eq!(claims.stats().unwrap().segments, 1);
    assert!(!claims.is_new());
    assert!(is_taken(&claims, 130).await);
}

#[tokio::test]
async fn expiry_that_a_crash_cut_short_is_finished() {
    let lab = Lab::new(10);
    let claims = lab.open();
    claim_all(&claims, 0..25).await;
    claims.flush().await.unwrap();
    drop(claims);
    let before = lab.files();
    drop(lab.open_at(115).unwrap());
    let after = lab.files();
    assert_eq!(after.len(), before.len() - 1);
    // The head is the new one, the file not deleted yet.
    fs::write(lab.path(&before[0].0), &before[0].1).unwrap();
    drop(lab.open_at(0).unwrap());
    assert_eq!(lab.files(), after);
}

#[tokio::test]
async fn a_last_flush_torn_at_any_byte_keeps_all_before_it() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    claim_all(&claims, 0..5).await;
    claims.flush().await.unwrap();
    let before = lab.files();
    claim_all(&claims, 5..9).await;
    claims.flush().await.unwrap();
    drop(claims);
    let log = fs::read(lab.path("00000001.log")).unwrap();
    let sealed = before.iter().find(|(name, _)| name == "00000001.log").unwrap().1.len();
    for length in sealed..=log.len() {
        // The crash came before the head was replaced: everything behind the old seal is a torn tail, whole or not.
        lab.restore(&before);
        for tail in [log[..length].to_vec(), [&log[..sealed], &vec![0; length - sealed]].concat()] {
            fs::write(lab.path("00000001.log"), tail).unwrap();
            let claims = lab.open();
            assert_eq!(claims.len().unwrap(), 5, "{length}");
            assert_eq!(fs::metadata(lab.path("00000001.log")).unwrap().len(), sealed as u64);
        }
        let claims = lab.open();
        claim_all(&claims, 5..9).await;
        claims.flush().await.unwrap();
        assert_eq!(lab.open().len().unwrap(), 9);
    }
}

#[tokio::test]
async fn a_log_shorter_than_what_was_flushed_is_damage_at_any_length() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    claim_all(&claims, 0..5).await;
    claims.flush().await.unwrap();
    let log = fs::read(lab.path("00000001.log")).unwrap();
    for length in 0..log.len() {
        fs::write(lab.path("00000001.log"), &log[..length]).unwrap();
        let damage = damage(lab.open_at(0));
        let expected = format!("00000001.log: ends at byte {length}, although it was sealed up to byte 270");
        assert!(damage.ends_with(&expected), "{damage}");
    }
}

#[tokio::test]
async fn a_changed_byte_anywhere_is_damage() {
    let lab = Lab::new(4);
    let claims = lab.open();
    claim_all(&claims, 0..10).await;
    claims.flush().await.unwrap();
    drop(claims);
    for (name, good) in lab.files() {
        for byte in 0..good.len() {
            let mut bytes = good.clone();
            bytes[byte] ^= 0x10;
            fs::write(lab.path(&name), &bytes).unwrap();
            let damage = damage(lab.open_at(0));
            assert!(damage.contains(&name) && (damage.contains("byte") || name == "head.json"), "{byte}: {damage}");
        }
        fs::write(lab.path(&name), &good).unwrap();
    }
    assert_eq!(lab.open().len().unwrap(), 10);
}

#[tokio::test]
async fn missing_swapped_foreign_and_overlong_files_are_damage() {
    let lab = Lab::new(4);
    let claims = lab.open();
    claim_all(&claims, 0..10).await;
    claims.flush().await.unwrap();
    drop(claims);
    let files = lab.files();
    for (name, _) in &files {
        fs::remove_file(lab.path(name)).unwrap();
        assert!(damage(lab.open_at(0)).ends_with(&format!("{name}: the file is missing")));
        lab.restore(&files);
    }
    fs::copy(lab.path("00000001.log"), lab.path("00000002.log")).unwrap();
    assert!(damage(lab.open_at(0)).contains("00000002.log: byte 20 "));
    lab.restore(&files);
    fs::copy(lab.path("00000001.log"), lab.path("00000009.log")).unwrap();
    assert!(damage(lab.open_at(0)).ends_with("00000009.log: the head knows nothing of this file"));
    lab.restore(&files);
    fs::write(lab.path("00000001.log"), [&files[0].1[..], b"more"].concat()).unwrap();
    assert!(damage(lab.open_at(0)).contains("00000001.log: goes on behind byte 225"));
    lab.restore(&files);
    assert_eq!(lab.open().len().unwrap(), 10);
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_new_segment_or_head_is_cleared_away() {
    let lab = Lab::new(4);
    let claims = lab.open();
    claim_all(&claims, 0..4).await;
    claims.flush().await.unwrap();
    drop(claims);
    let files = lab.files();
    fs::write(lab.path("00000002.log"), b"auditl").unwrap();
    fs::write(lab.path("head.json.tmp"), b"{").unwrap();
    let claims = lab.open();
    assert_eq!(claims.len().unwrap(), 4);
    assert_eq!(lab.files(), files);
    claim_all(&claims, 4..5).await;
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_a_later_flush_succeeds() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    claim_all(&claims, 0..5).await;
    claims.flush().await.unwrap();
    claim_all(&claims, 5..10).await;
    // The claims themselves, then the head.
    for (passing, file) in [(0, "00000001.log"), (1, "head.json")] {
        fail(Step::Write, passing, ErrorKind::StorageFull);
        let reason = reason(claims.flush().await.unwrap_err());
        assert!(reason.ends_with(&format!("{file}: no space left on the disk")), "{reason}");
        assert!(is_taken(&claims, 7).await);
        let now = lab.files();
        let crashed = Lab::new(1000);
        crashed.restore(&now);
        assert_eq!(crashed.open().len().unwrap(), 5);
    }
    claims.flush().await.unwrap();
    assert_eq!(lab.open().len().unwrap(), 10);
    assert_eq!(clear(), 0);
}

#[tokio::test]
async fn a_failed_sync_is_made_good_by_writing_again() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    claim_all(&claims, 0..5).await;
    claims.flush().await.unwrap();
    for (from, passing) in [(5, 0), (10, 1)] {
        claim_all(&claims, from..from + 5).await;
        fail(Step::Sync, passing, ErrorKind::Other);
        assert!(claims.flush().await.is_err());
        assert!(is_taken(&claims, from + 1).await);
        claims.flush().await.unwrap();
        assert_eq!(claims.stats().unwrap().unsealed, 0);
        assert_eq!(lab.open().len().unwrap(), usize::try_from(from + 5).unwrap());
    }
    assert_eq!(clear(), 0);
}

#[tokio::test]
async fn claims_that_a_failing_disk_forgot_are_damage_for_ever() {
    let lab = Lab::new(1000);
    let claims = lab.open();
    claim_all(&claims, 0..5).await;
    fail(Step::Sync, 0, ErrorKind::Other);
    assert!(claims.flush().await.is_err());
    // The kernel has dropped the page that it could not write; the disk has what was there before.
    let mut log = fs::read(lab.path("00000001.log")).unwrap();
    log[100..].fill(0);
    let file = fs::OpenOptions::new().write(true).open(lab.path("00000001.log")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &log, 0).unwrap();
    for _ in 0..2 {
        let damage = damage(claims.flush().await);
        assert!(damage.contains("00000001.log: what was written from byte 45 on was lost"), "{damage}");
    }
    assert_eq!(lab.open().len().unwrap(), 0);
}

#[tokio::test]
async fn a_segment_that_could_not_be_begun_is_begun_by_the_next_claim() {
    let lab = Lab::new(4);
    let claims = lab.open();
    claim_all(&claims, 0..4).await;
    claims.flush().await.unwrap();
    // The new segment's header, then the head that names it.
    for passing in [0, 1] {
        fail(Step::Write, passing, ErrorKind::StorageFull);
        reason(claim(&claims, 4, 4).await.unwrap_err());
        assert_eq!(claims.len().unwrap(), 4);
    }
    claim_all(&claims, 4..6).await;
    claims.flush().await.unwrap();
    assert_eq!(lab.open().len().unwrap(), 6);
    assert_eq!(clear(), 0);
}

#[tokio::test]
async fn more_than_the_tail_holds_is_written_without_being_promised() {
    let lab = Lab::new(1 << 20);
    let claims = lab.open();
    let payload = Position::new(1);
    let core = Core { base: 0, details_source: DetailsSource::None, details: 0 };
    let contents: Vec<[u8; 32]> = (0..30_000_u64).map(|n| crate::digest::Digest::of(&n.to_le_bytes()).0).collect();
    let all: Vec<Claim<'_>> = (0..)
        .zip(&contents)
        .map(|(index, &digest)| Claim { identity: Identity::Content(digest), position: payload.record(index), core })
        .collect();
    let shard = ShardId::new("s");
    let answers = claims.claim(&shard, &all, at(0)).await.unwrap();
    assert!(answers.iter().all(|&verdict| verdict == Verdict::New));
    assert!(fs::metadata(lab.path("00000001.log")).unwrap().len() > 1_000_000);
    // From the file and from the tail alike:
    assert_eq!(claims.claim(&shard, &all, at(0)).await.unwrap(), answers);
    assert_eq!(claims.len().unwrap(), all.len());
    claims.flush().await.unwrap();
    let claims = lab.open();
    assert_eq!(claims.claim(&shard, &all, at(0)).await.unwrap(), answers);
    assert_eq!(claims.len().unwrap(), all.len());
}

#[tokio::test]
async fn a_tail_that_could_not_be_written_costs_no_claim() {
    let lab = Lab::new(1 << 20);
    let claims = lab.open();
    let tail = 23_301; // what fits a mebibyte
    claim_all(&claims, 0..tail).await;
    fail(Step::Write, 0, ErrorKind::StorageFull);
    assert!(reason(claim(&claims, tail, tail).await.unwrap_err()).contains("no space left"));
    assert_eq!(claims.len().unwrap(), usize::try_from(tail).unwrap());
    assert_eq!(fs::metadata(lab.path("00000001.log")).unwrap().len(), 45);
    claim_all(&claims, tail..tail + 5).await;
    claims.flush().await.unwrap();
    assert_eq!(lab.open().len().unwrap(), usize::try_from(tail).unwrap() + 5);
    assert_eq!(clear(), 0);
}

#[tokio::test]
async fn segments_whose_numbers_come_round_again_are_told_apart() {
    let lab = Lab::new(1);
    let claims = lab.open();
    let last = u64::from(3 * Location::SEGMENTS) + 5;
    claim_all(&claims, 0..last).await;
    assert_eq!(claims.len().unwrap(), 101);
    for number in last - 50..last {
        assert_eq!(claim(&claims, number, number).await.unwrap(), Verdict::New);
    }
    claims.flush().await.unwrap();
    let claims = lab.open_at(last.cast_signed()).unwrap();
    for number in last - 50..last {
        assert_eq!(claim(&claims, number, number).await.unwrap(), Verdict::New);
        assert_eq!(claims.len().unwrap(), 100);
    }
}

#[tokio::test]
async fn more_segments_than_can_be_told_apart_are_refused() {
    let lab = Lab::new(1);
    let options = Options { segment_claims: 1, ..Options::new(Duration::from_secs(1_000_000), [5; 16]) };
    let claims = EmbeddedClaims::open(lab.directory.path(), options, at(0)).unwrap();
    let most = u64::from(Location::SEGMENTS);
    claim_all(&claims, 0..most).await;
    assert!(reason(claim(&claims, most, most).await.unwrap_err()).ends_with("as many segments as there can be"));
    assert_eq!(claim(&claims, 0, 0).await.unwrap(), Verdict::New);
}
