//! The contract of the [`Claims`] port.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use auditlake::dedupe::embedded::{EmbeddedClaims, Options};
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::dedupe::{Claim, Claims, Core, Identity, Verdict};
use auditlake::record::DetailsSource;
use auditlake::source::{Position, ShardId};
use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::dynamodb;

use Verdict::{Conflict, Duplicate, New, NewerVersion, OlderVersion};

/// Runs one test of the suite against new claims of each kind.
async fn with_each_store<F: Future<Output = ()>>(test: impl Fn(Box<dyn Claims>) -> F) {
    test(Box::new(MemoryClaims::new())).await;
    let directory = TempDir::new().unwrap();
    test(Box::new(embedded(directory.path(), 1 << 20))).await;
    test(Box::new(dynamodb::claims().await)).await;
}

fn embedded(directory: &Path, segment_claims: u32) -> EmbeddedClaims {
    let options = Options { segment_claims, ..Options::new(Duration::from_hours(35 * 24), [1; 16]) };
    EmbeddedClaims::open(directory, options, now()).unwrap()
}

pub(crate) fn now() -> Timestamp {
    "2026-11-21T09:30:00Z".parse().unwrap()
}

/// One claim, and who makes it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) shard: &'static str,
    pub(crate) position: Position,
    pub(crate) index: u32,
    pub(crate) identity: Known,
    pub(crate) core: Core,
}

#[derive(Clone, Debug)]
pub(crate) enum Known {
    LogId(String, i32),
    Content([u8; 32]),
}

/// A copy of version 1 of record `id` with the given core, at `position` of shard `a`.
pub(crate) fn copy(id: &str, core: u64, position: u64) -> Arrival {
    let core = Core { base: core, details_source: DetailsSource::RawDetails, details: 0 };
    Arrival { shard: "a", position: Position::new(position), index: 0, identity: Known::LogId(id.to_owned(), 1), core }
}

impl Arrival {
    fn version(self, version: i32) -> Self {
        match self.identity {
            Known::LogId(id, _) => Self { identity: Known::LogId(id, version), ..self },
            Known::Content(_) => self,
        }
    }

    pub(crate) fn claim(&self) -> Claim<'_> {
        let identity = match &self.identity {
            Known::LogId(log_id, version) => Identity::LogId { log_id, version: *version },
            Known::Content(digest) => Identity::Content(*digest),
        };
        Claim { identity, position: self.position.record(self.index), core: self.core }
    }
}

pub(crate) async fn ask(claims: &dyn Claims, copy: &Arrival) -> Verdict {
    claims.claim(&ShardId::new(copy.shard), &[copy.claim()], now()).await.unwrap()[0]
}

/// Asks for each copy in a call of its own, then for all of them again: the answers stay.
pub(crate) async fn expect(claims: &dyn Claims, expected: &[(Arrival, Verdict)]) {
    for round in ["first", "again", "after a flush"] {
        for (copy, verdict) in expected {
            assert_eq!(ask(claims, copy).await, *verdict, "{round}: {copy:?}");
        }
        if round == "again" {
            claims.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_first_to_claim_wins_for_ever_and_every_other_copy_is_a_duplicate() {
    with_each_store(async |claims| {
        let other_index = Arrival { index: 1, ..copy("x", 1, 10) };
        let other_sub_sequence =
            Arrival { position: Position { sub_sequence: 1, ..Position::new(10) }, ..copy("x", 1, 10) };
        let other_shard = Arrival { shard: "b", ..copy("x", 1, 10) };
        let expected = [
            (copy("x", 1, 10), New),
            (copy("x", 1, 11), Duplicate),
            (other_index, Duplicate),
            (other_sub_sequence, Duplicate),
            (other_shard, Duplicate),
            (copy("y", 1, 11), New),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn a_changed_record_is_a_conflict_and_claims_beside_the_first() {
    with_each_store(async |claims| {
        let expected = [
            (copy("x", 1, 10), New),
            (copy("x", 2, 11), Conflict),
            (copy("x", 3, 12), Conflict),
            (copy("x", 1, 13), Duplicate),
            (copy("x", 2, 14), Duplicate),
            (copy("x", 3, 15), Duplicate),
            (copy("x", 4, 16), Conflict),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn the_holder_that_came_first_answers_where_several_could() {
    // A position that brings another core than it did before: only a changed reading of records does that.
    with_each_store(async |claims| {
        for id in ["x", "y", "z"] {
            for core in 0..100 {
                let expected = if core == 0 { New } else { Conflict };
                assert_eq!(ask(&*claims, &copy(id, core, core)).await, expected);
            }
            for core in 1..100 {
                assert_eq!(ask(&*claims, &copy(id, core, core - 1)).await, if core == 1 { New } else { Conflict });
                assert_eq!(ask(&*claims, &copy(id, core - 1, core)).await, Duplicate);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn details_are_compared_when_both_come_from_the_same_field() {
    with_each_store(async |claims| {
        let with = |details_source, details, position| Arrival {
            core: Core { base: 1, details_source, details },
            ..copy("x", 1, position)
        };
        let expected = [
            (with(DetailsSource::RawDetails, 1, 10), New),
            (with(DetailsSource::RawDetails, 1, 11), Duplicate),
            (with(DetailsSource::RawDetails, 2, 12), Conflict),
            (with(DetailsSource::Details, 9, 13), Duplicate),
            (with(DetailsSource::None, 0, 14), Duplicate),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn versions_of_a_log_id_are_kept_and_told_by_their_order() {
    with_each_store(async |claims| {
        let expected = [
            (copy("x", 1, 10).version(5), New),
            (copy("x", 1, 11).version(7), NewerVersion),
            (copy("x", 1, 12).version(6), OlderVersion),
            (copy("x", 1, 13).version(-1), OlderVersion),
            (copy("x", 1, 14).version(8), NewerVersion),
            (copy("x", 1, 15).version(7), Duplicate),
            (copy("x", 2, 16).version(7), Conflict),
            (copy("y", 1, 17).version(1), New),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn versions_at_the_ends_of_their_range_are_versions() {
    with_each_store(async |claims| {
        let expected = [
            (copy("x", 1, 10).version(0), New),
            (copy("x", 1, 11).version(i32::MAX), NewerVersion),
            (copy("x", 1, 12).version(i32::MIN), OlderVersion),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn a_call_is_answered_in_order_and_its_later_claims_see_the_earlier() {
    with_each_store(async |claims| {
        let copies = [
            copy("x", 1, 10),
            copy("x", 1, 11),
            copy("x", 1, 12).version(2),
            copy("x", 2, 13),
            copy("x", 2, 14),
            copy("x", 1, 10),
        ];
        let call: Vec<Claim<'_>> = copies.iter().map(Arrival::claim).collect();
        for _ in 0..2 {
            let answers = claims.claim(&ShardId::new("a"), &call, now()).await.unwrap();
            assert_eq!(answers, [New, Duplicate, NewerVersion, Conflict, Duplicate, New]);
        }
        assert_eq!(claims.claim(&ShardId::new("a"), &[], now()).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_position_may_hold_many_identities_and_an_odd_name_is_as_good_as_any() {
    with_each_store(async |claims| {
        let names = ["", " ", "x#1", "x", "日本", &"long".repeat(1000), "a\0b"];
        let expected: Vec<(Arrival, Verdict)> = names.iter().map(|name| (copy(name, 1, 10), New)).collect();
        expect(&*claims, &expected).await;
        let odd = Arrival { shard: "../ü \n", ..copy("x", 1, 10) };
        assert_eq!(ask(&*claims, &odd).await, Duplicate);
    })
    .await;
}

#[tokio::test]
async fn content_is_an_identity_without_versions() {
    with_each_store(async |claims| {
        let content =
            |byte, core, position| Arrival { identity: Known::Content([byte; 32]), ..copy("", core, position) };
        let expected = [
            (content(b'c', 1, 10), New),
            (content(b'd', 1, 11), New),
            (content(b'c', 1, 12), Duplicate),
            (content(b'c', 2, 13), Conflict),
            (copy(&"c".repeat(32), 1, 14).version(0), New),
            (copy(&"63".repeat(32), 1, 15).version(0), New),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn long_sequence_numbers_are_told_apart_by_their_last_digit() {
    with_each_store(async |claims| {
        let at = |digits: &str| Arrival {
            position: Position { sequence: auditlake::source::SequenceNumber::new(digits), sub_sequence: 0 },
            ..copy("x", 1, 0)
        };
        let expected = [
            (at("49590338271490256608559692538361571095921575989136588898"), New),
            (at("49590338271490256608559692538361571095921575989136588899"), Duplicate),
            (at("4959033827149025660855969253836157109592157598913658889"), Duplicate),
        ];
        expect(&*claims, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn many_claims_stay_apart() {
    with_each_store(async |claims| {
        let copies: Vec<Arrival> = (0..20_000).map(|n| copy(&format!("log-{n}"), n % 7, n)).collect();
        let call: Vec<Claim<'_>> = copies.iter().map(Arrival::claim).collect();
        for (shard, verdict) in [("a", New), ("b", Duplicate), ("a", New)] {
            let answers = claims.claim(&ShardId::new(shard), &call, now()).await.unwrap();
            assert!(answers.iter().all(|&answer| answer == verdict), "{shard}");
            claims.flush().await.unwrap();
        }
    })
    .await;
}

/// What happens to the embedded claims between two calls.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Flush,
    FlushAndReopen,
}

fn any_copy() -> impl Strategy<Value = Arrival> {
    let identity = prop_oneof![
        6 => ("[xyz]", -1..3_i32).prop_map(|(id, version)| Known::LogId(id, version)),
        1 => (0..2_u8).prop_map(|byte| Known::Content([byte; 32])),
    ];
    let source = prop_oneof![Just(DetailsSource::None), Just(DetailsSource::RawDetails), Just(DetailsSource::Details)];
    let place = (prop_oneof![Just("a"), Just("b")], 0..6_u64, 0..2_u32);
    (identity, 0..2_u64, source, 0..2_u64, place).prop_map(
        |(identity, base, details_source, details, (shard, sequence, index))| Arrival {
            shard,
            position: Position::new(sequence),
            index,
            identity,
            core: Core { base, details_source, details },
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![6 => Just(Event::Nothing), 1 => Just(Event::Flush), 1 => Just(Event::FlushAndReopen)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_claims_of_dynamodb_answer_as_the_twin_in_memory_does(
        calls in proptest::collection::vec(proptest::collection::vec(any_copy(), 1..12), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (twin, claims) = (MemoryClaims::new(), dynamodb::claims().await);
            for copies in &calls {
                let shard = ShardId::new(copies[0].shard);
                let call: Vec<Claim<'_>> = copies.iter().map(Arrival::claim).collect();
                let answers = claims.claim(&shard, &call, now()).await.unwrap();
                prop_assert_eq!(answers, twin.claim(&shard, &call, now()).await.unwrap(), "{:?}", copies);
            }
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_claims_answer_as_the_twin_in_memory_does(
        steps in proptest::collection::vec((any_copy(), any_event()), 1..60),
        segment_claims in 2..20_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let twin = MemoryClaims::new();
            let mut claims = embedded(directory.path(), segment_claims);
            for (copy, event) in &steps {
                prop_assert_eq!(ask(&claims, copy).await, ask(&twin, copy).await, "{:?}", copy);
                if !matches!(event, Event::Nothing) {
                    claims.flush().await.unwrap();
                }
                if matches!(event, Event::FlushAndReopen) {
                    drop(claims);
                    claims = embedded(directory.path(), segment_claims);
                }
            }
            Ok(())
        })?;
    }
}
