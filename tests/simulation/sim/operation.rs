//! What happens to the world, step by step: generated from a seed, and shrunk by proptest.

use proptest::collection::vec;
use proptest::prelude::*;

/// One step. Numbers name shards, records and workers by counting on from the first, round and round, so that a list of
/// operations makes sense with any of them left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Payloads arrive on a shard.
    Put { shard: u8, payloads: Vec<Vec<Content>> },
    /// A shard ends, and two take its place.
    Split { shard: u8 },
    /// Two shards end, and one takes their place.
    Merge { first: u8, second: u8 },
    /// Time passes.
    Advance { seconds: u16 },
    /// A worker is gone, at the `calls`-th call of a port from now on (or now), and comes back.
    Crash { worker: u8, at: Moment, back_in: u8 },
    /// A worker stands still, as after SIGSTOP, and goes on later.
    Freeze { worker: u8, at: Moment, seconds: u8 },
    /// A worker that was not there is started.
    Start { worker: u8 },
    /// A worker is told to stop, and does not come back by itself.
    Stop { worker: u8 },
    /// A `catch-up` is started beside the workers.
    CatchUp,
    /// A port is bad for a while: for everybody, or for one worker.
    Fault { port: Port, worker: Option<u8>, kind: Kind, seconds: u8 },
    /// All ports are well again.
    Heal,
    /// The lease table is gone, until somebody starts; or it stands there empty, and nobody is told.
    LoseLeases { table: bool },
    /// Workers that start from now on are configured otherwise.
    Configure { layout: u8, window: u8, records: u8 },
    /// The stream forgets its oldest payloads: those that were archived, or unread ones as well where nothing is under
    /// way.
    Trim { shard: u8, payloads: u8, unread: bool },
    /// The stream no longer lists shards that ended and were archived.
    ForgetShards,
    /// Somebody puts an object of another kind where the shard's next one is to stand.
    Intrude { shard: u8 },
    /// A worker's wall clock jumps.
    Skew { worker: u8, seconds: i16 },
    /// A worker's wall clock is off by up to so much, now this way and now that, whenever it is asked.
    Unsteady { worker: u8, seconds: u8 },
    /// A message comes again that a worker has, and one that was acknowledged.
    Redeliver { message: u16 },
    /// A worker stands still for longer than seals are kept, and nobody else is there for most of that time.
    Age { worker: u8 },
}

/// What stands in a payload. Numbers name records that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A record that was never seen.
    Fresh,
    /// A record that was.
    Copy(u16),
    /// Another record under the same identity.
    Conflict(u16),
    /// The next version of a record.
    Newer(u16),
    /// A record without `log_id`.
    Nameless(u8),
    /// No record.
    Garbage,
}

/// Where a worker is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Wherever it stands.
    Now,
    /// At this call (from 1) of any port, or of one; before it takes effect or behind it.
    Call { number: u8, of: Option<Port>, behind: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Port {
    /// The stream, or the subscription.
    Source,
    Claims,
    Archive,
    Leases,
    /// The store of spools.
    Spools,
}

/// How a port is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No call takes effect.
    Away,
    /// Every other call fails.
    Flaky,
    /// Of every other call, the answer is lost.
    LostAnswers,
    /// Calls take up to seconds.
    Slow,
    /// Calls get no answer for a minute.
    Mute,
    /// Calls fail, and take effect up to half a minute later.
    Late,
}

fn moment() -> impl Strategy<Value = Moment> {
    let call =
        (1..60_u8, of_port(), any::<bool>()).prop_map(|(number, of, behind)| Moment::Call { number, of, behind });
    prop_oneof![1 => Just(Moment::Now), 4 => call]
}

fn of_port() -> impl Strategy<Value = Option<Port>> {
    prop_oneof![2 => Just(None), 3 => port().prop_map(Some)]
}

fn port() -> impl Strategy<Value = Port> {
    prop_oneof![1 => Just(Port::Source), 1 => Just(Port::Claims), 2 => Just(Port::Archive), 3 => Just(Port::Leases)]
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        8 => Just(Content::Fresh),
        5 => any::<u16>().prop_map(Content::Copy),
        2 => any::<u16>().prop_map(Content::Conflict),
        2 => any::<u16>().prop_map(Content::Newer),
        1 => (0..8_u8).prop_map(Content::Nameless),
        1 => Just(Content::Garbage),
    ]
}

fn payloads() -> impl Strategy<Value = Vec<Vec<Content>>> {
    // Garbage stands alone: what is unreadable between records is the framing's affair, which has tests of its own.
    let payload = vec(content(), 1..4).prop_map(|mut contents| {
        if let Some(place) = contents.iter().position(|content| *content == Content::Garbage) {
            contents = vec![contents[place]];
        }
        contents
    });
    vec(payload, 1..8)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        1 => Just(Kind::Away),
        2 => Just(Kind::Flaky),
        3 => Just(Kind::LostAnswers),
        1 => Just(Kind::Slow),
        1 => Just(Kind::Mute),
        3 => Just(Kind::Late),
    ]
}

fn worker() -> impl Strategy<Value = u8> {
    0..4_u8
}

fn shard() -> impl Strategy<Value = u8> {
    any::<u8>()
}

fn peaceful() -> BoxedStrategy<Operation> {
    prop_oneof![
        12 => (shard(), payloads()).prop_map(|(shard, payloads)| Operation::Put { shard, payloads }),
        1 => shard().prop_map(|shard| Operation::Split { shard }),
        1 => (shard(), shard()).prop_map(|(first, second)| Operation::Merge { first, second }),
        5 => (1..30_u16).prop_map(|seconds| Operation::Advance { seconds }),
        2 => (30..400_u16).prop_map(|seconds| Operation::Advance { seconds }),
        2 => worker().prop_map(|worker| Operation::Start { worker }),
        1 => worker().prop_map(|worker| Operation::Stop { worker }),
        1 => Just(Operation::CatchUp),
        1 => (0..6_u8, 0..3_u8, 0..3_u8)
            .prop_map(|(layout, window, records)| Operation::Configure { layout, window, records }),
        1 => (shard(), 1..20_u8).prop_map(|(shard, payloads)| Operation::Trim { shard, payloads, unread: false }),
        1 => Just(Operation::ForgetShards),
    ]
    .boxed()
}

fn hostile() -> BoxedStrategy<Operation> {
    prop_oneof![
        5 => (worker(), moment(), 0..40_u8).prop_map(|(worker, at, back_in)| Operation::Crash { worker, at, back_in }),
        5 => (worker(), moment(), 1..60_u8).prop_map(|(worker, at, seconds)| Operation::Freeze { worker, at, seconds }),
        6 => (port(), proptest::option::weighted(0.4, worker()), kind(), 1..90_u8)
            .prop_map(|(port, worker, kind, seconds)| Operation::Fault { port, worker, kind, seconds }),
        1 => Just(Operation::Heal),
        1 => any::<bool>().prop_map(|table| Operation::LoseLeases { table }),
        1 => (shard(), 1..20_u8).prop_map(|(shard, payloads)| Operation::Trim { shard, payloads, unread: true }),
        1 => shard().prop_map(|shard| Operation::Intrude { shard }),
        1 => (worker(), -600..600_i16).prop_map(|(worker, seconds)| Operation::Skew { worker, seconds }),
        2 => (worker(), 5..60_u8).prop_map(|(worker, seconds)| Operation::Unsteady { worker, seconds }),
    ]
    .boxed()
}

fn port_of_spools() -> impl Strategy<Value = Port> {
    prop_oneof![4 => Just(Port::Spools), 3 => Just(Port::Source), 2 => Just(Port::Archive), 2 => port()]
}

fn moment_in_spools() -> impl Strategy<Value = Moment> {
    let of = prop_oneof![1 => Just(None), 3 => port_of_spools().prop_map(Some)];
    let call = (1..40_u8, of, any::<bool>()).prop_map(|(number, of, behind)| Moment::Call { number, of, behind });
    prop_oneof![1 => Just(Moment::Now), 4 => call]
}

fn peaceful_with_spools() -> BoxedStrategy<Operation> {
    prop_oneof![
        14 => payloads().prop_map(|payloads| Operation::Put { shard: 0, payloads }),
        6 => (1..30_u16).prop_map(|seconds| Operation::Advance { seconds }),
        2 => (30..300_u16).prop_map(|seconds| Operation::Advance { seconds }),
        2 => worker().prop_map(|worker| Operation::Start { worker }),
        1 => worker().prop_map(|worker| Operation::Stop { worker }),
        1 => Just(Operation::CatchUp),
        1 => (0..6_u8, 0..3_u8, 0..3_u8)
            .prop_map(|(layout, window, records)| Operation::Configure { layout, window, records }),
    ]
    .boxed()
}

fn hostile_with_spools() -> BoxedStrategy<Operation> {
    prop_oneof![
        20 => (worker(), moment_in_spools(), 0..40_u8)
            .prop_map(|(worker, at, back_in)| Operation::Crash { worker, at, back_in }),
        // Long enough for others to take its spool and to seal it.
        20 => (worker(), moment_in_spools(), 1..200_u8)
            .prop_map(|(worker, at, seconds)| Operation::Freeze { worker, at, seconds }),
        24 => (port_of_spools(), proptest::option::weighted(0.4, worker()), kind(), 1..90_u8)
            .prop_map(|(port, worker, kind, seconds)| Operation::Fault { port, worker, kind, seconds }),
        8 => any::<u16>().prop_map(|message| Operation::Redeliver { message }),
        4 => Just(Operation::Heal),
        4 => any::<bool>().prop_map(|table| Operation::LoseLeases { table }),
        4 => (worker(), -600..600_i16).prop_map(|(worker, seconds)| Operation::Skew { worker, seconds }),
        4 => (worker(), 5..60_u8).prop_map(|(worker, seconds)| Operation::Unsteady { worker, seconds }),
        1 => worker().prop_map(|worker| Operation::Age { worker }),
    ]
    .boxed()
}

/// Lists of up to `length` operations on a stream, or on spools; without faults where they are not wanted.
pub(crate) fn operations(length: usize, with_faults: bool, spooled: bool) -> BoxedStrategy<Vec<Operation>> {
    let (peaceful, hostile) =
        if spooled { (peaceful_with_spools(), hostile_with_spools()) } else { (peaceful(), hostile()) };
    let operation = if with_faults { prop_oneof![2 => peaceful, 1 => hostile].boxed() } else { peaceful };
    vec(operation, 0..=length).boxed()
}
