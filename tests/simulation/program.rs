//! `cargo run --release --example simulate -- --seeds 1000`: the simulation, for as many seeds as wanted.

#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

#[path = "../worker/settings.rs"]
mod settings;
mod sim;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use auditlake::ops::clock::{Clock as _, SystemClock};
#[cfg(feature = "planted-bugs")]
use auditlake::ops::planted::Bug;
use clap::Parser;
use sim::{Failure, Shape, Stats, check, generated, run};

/// Runs auditlake's workers in a simulated world, seed after seed, and holds them to their invariants.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print all that happens with it, without shrinking.
    #[arg(long, requires = "seed")]
    log: bool,
    /// How many operations a seed has.
    #[arg(long, default_value_t = Shape::default().operations)]
    ops: usize,
    /// What records come from: a stream, or a subscription by way of spools.
    #[arg(long, default_value = "stream", value_parser = ["stream", "spools"])]
    source: String,
    /// Whether anything goes wrong.
    #[arg(long, default_value = "all", value_parser = ["all", "none"])]
    faults: String,
    /// Plant this bug and see how many seeds it takes to find it; `all`: each after the other.
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    planted: Option<String>,
    /// How many threads; each runs seeds of its own.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

/// How the seeds are shared out, and what came of them so far.
struct Progress {
    next: AtomicU64,
    end: u64,
    sum: Mutex<(Stats, Option<Failure>)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let shape = if arguments.source == "spools" { Shape::on_spools() } else { Shape::default() };
    let shape = Shape { operations: arguments.ops, faults: arguments.faults == "all", ..shape };
    if let (Some(seed), true) = (arguments.seed, arguments.log) {
        return show(seed, shape);
    }
    #[cfg(feature = "planted-bugs")]
    if let Some(name) = &arguments.planted {
        return find_all(name, &arguments, shape);
    }
    let began = SystemClock::start();
    let (stats, failure) = check_all(&arguments, shape);
    println!("{stats} in {}", took(began));
    match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Checks all seeds that are wanted, or until one has failed.
fn check_all(arguments: &Arguments, shape: Shape) -> (Stats, Option<Failure>) {
    let (from, seeds) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let progress = Progress { next: AtomicU64::new(from), end: from + seeds, sum: Mutex::default() };
    let began = SystemClock::start();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| work(&progress, shape, began));
        }
    });
    progress.sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Checks seeds until there are none left, or one has failed.
fn work(progress: &Progress, shape: Shape, began: SystemClock) {
    loop {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if seed >= progress.end {
            return;
        }
        let checked = check(seed, shape);
        let mut sum = progress.sum.lock().unwrap_or_else(PoisonError::into_inner);
        match checked {
            Ok(stats) => sum.0 += stats,
            Err(failure) => {
                sum.1.get_or_insert(failure);
                progress.next.store(progress.end, Ordering::Relaxed);
            }
        }
        if sum.0.seeds > 0 && sum.0.seeds.is_multiple_of(500) {
            eprintln!("{} after {}", sum.0, took(began));
        }
    }
}

fn show(seed: u64, shape: Shape) -> ExitCode {
    let run = run(seed, shape, &generated(seed, shape), true);
    println!("{}{}", run.log, run.stats);
    run.violations.iter().for_each(|violation| println!("{violation}"));
    if run.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn took(began: SystemClock) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(began.monotonic().as_secs()))
}

/// Looks for this bug, or for each of them; whether they were found.
#[cfg(feature = "planted-bugs")]
fn find_all(name: &str, arguments: &Arguments, shape: Shape) -> ExitCode {
    let mut missed = 0;
    let bugs: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| name == "all" || name == format!("{bug:?}")).collect();
    for bug in &bugs {
        let began = SystemClock::start();
        if let Some((seeds, violation)) = sim::find(*bug, shape, arguments.seeds) {
            let violation: String = violation.chars().take(100).collect();
            println!("{bug:?}: found within {seeds} seeds, {}: {violation}", took(began));
        } else {
            println!("{bug:?}: NOT FOUND within {} seeds", arguments.seeds);
            missed += 1;
        }
    }
    if bugs.is_empty() {
        println!("no bug is called {name}; there are {:?}", Bug::ALL);
    }
    if missed == 0 && !bugs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
