//! The simulation: a world of real workers over twins of the five ports, in simulated time, moved by operations and
//! struck by faults that a seed decides, and judged at every step and at the end. README.md says what counts.

mod apply;
mod books;
mod end;
mod faults;
mod faulty;
mod judge;
mod ledger;
mod log;
pub(crate) mod operation;
mod random;
mod seat;
mod shared;
mod spooled;
mod world;

use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use auditlake::ops::identity::seeded;
use auditlake::ops::planted::Bug;
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Builder;

use log::Log;
use operation::{Operation, operations};
use world::World;

/// How many shorter or simpler lists are tried where one fails.
const SHRINKS: u32 = 300;

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// How many operations there are.
    pub(crate) operations: usize,
    /// Whether there are faults.
    pub(crate) faults: bool,
    /// Whether records come from a subscription, by way of spools; from a stream otherwise.
    pub(crate) spooled: bool,
    /// What is planted, where anything can be.
    #[cfg_attr(not(feature = "planted-bugs"), allow(dead_code))]
    pub(crate) planted: Option<Bug>,
}

impl Shape {
    /// A run whose records come from a subscription.
    pub(crate) fn on_spools() -> Self {
        Self { spooled: true, ..Self::default() }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { operations: 40, faults: true, spooled: false, planted: None }
    }
}

/// What runs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) seeds: u64,
    pub(crate) simulated: Duration,
    pub(crate) starts: u64,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) records: u64,
    pub(crate) batches: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        self.starts += other.starts;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.records += other.records;
        self.batches += other.batches;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, simulated, starts, crashes, faults, records, batches } = self;
        let hours = simulated.as_secs_f64() / 3600.0;
        write!(
            f,
            "{seeds} seeds, {hours:.1} simulated hours, {starts} starts, {crashes} crashes, {faults} faults, \
             {records} records, {batches} batches"
        )
    }
}

/// What came of one run.
pub(crate) struct Run {
    pub(crate) stats: Stats,
    pub(crate) violations: Vec<String>,
    pub(crate) log: String,
}

/// A seed for which an invariant does not hold, and the least that shows it.
pub(crate) struct Failure {
    seed: u64,
    violations: Vec<String>,
    operations: Vec<Operation>,
    shrunk_from: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}:", self.seed)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "with {} of {} operations:", self.operations.len(), self.shrunk_from)?;
        for operation in &self.operations {
            writeln!(f, "  {operation:?},")?;
        }
        Ok(())
    }
}

/// Runs the operations, with whatever else the seed decides.
pub(crate) fn run(seed: u64, shape: Shape, operations: &[Operation], keeps_log: bool) -> Run {
    let _seeded = seeded(seed);
    #[cfg(feature = "planted-bugs")]
    let _planted = auditlake::ops::planted::plant(shape.planted);
    let log = Log::new(keeps_log);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let world = tracing::subscriber::with_default(log.subscriber(), || {
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(log.clone(), shape, operations))))
    });
    let (stats, violations) = world.unwrap_or_else(|_| (Stats::default(), vec!["the simulation panicked".to_owned()]));
    Run { stats, violations, log: log.text() }
}

async fn live(log: Log, shape: Shape, operations: &[Operation]) -> (Stats, Vec<String>) {
    let mut world = World::new(log, shape).await;
    world.start(0);
    world.start(1);
    for operation in operations {
        if world.is_over() {
            break;
        }
        world.apply(operation).await;
    }
    if !world.is_over() {
        world.end().await;
    }
    world.finish()
}

/// Runs what the seed generates; where that fails, looks for the least that does.
pub(crate) fn check(seed: u64, shape: Shape) -> Result<Stats, Failure> {
    let mut tree = tree(seed, shape);
    let first = run(seed, shape, &tree.current(), false);
    if first.violations.is_empty() {
        return Ok(first.stats);
    }
    let operations = tree.current();
    let shrunk_from = operations.len();
    let mut failure = Failure { seed, violations: first.violations, operations, shrunk_from };
    let mut tries = SHRINKS;
    let mut simpler = tree.simplify();
    while simpler && tries > 0 {
        tries -= 1;
        let run = run(seed, shape, &tree.current(), false);
        if run.violations.is_empty() {
            simpler = tree.complicate();
        } else {
            failure.violations = run.violations;
            failure.operations = tree.current();
            simpler = tree.simplify();
        }
    }
    Err(failure)
}

/// How many seeds it takes to find the bug that is planted, of so many from the first on; and how it shows.
#[cfg(feature = "planted-bugs")]
pub(crate) fn find(bug: Bug, shape: Shape, seeds: u64) -> Option<(u64, String)> {
    let shape = Shape { planted: Some(bug), spooled: bug.is_of_spools(), ..shape };
    (0..seeds).find_map(|seed| {
        let violations = run(seed, shape, &generated(seed, shape), false).violations;
        violations.into_iter().next().map(|violation| (seed + 1, violation))
    })
}

/// The operations that a seed generates.
pub(crate) fn generated(seed: u64, shape: Shape) -> Vec<Operation> {
    tree(seed, shape).current()
}

fn tree(seed: u64, shape: Shape) -> impl ValueTree<Value = Vec<Operation>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let operations = operations(shape.operations, shape.faults, shape.spooled);
    loop {
        // What can be shrunk to nothing may be little from the start.
        let tree = operations.new_tree(&mut runner).expect("any operations will do");
        if tree.current().len() * 4 >= shape.operations * 3 {
            return tree;
        }
    }
}
