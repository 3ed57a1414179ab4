//! What each stage on the way from bytes to objects takes, in one thread: `make bench-stages` measures time,
//! `make bench-instructions` counts instructions. Benches of divan, but for
//!
//! - `stages list`: the names of the stages whose instructions can be counted;
//! - `stages once NAME`: runs one of them once, in [`counted_stage`], and prints how many records it took.

#![allow(clippy::print_stdout, reason = "it is a program")]

mod commit;
mod stages;

use std::any::Any;
use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan};

use crate::stages::{STAGES, Stage, Work, records};

/// As in the program: a good part of the instructions is the allocator's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => STAGES.iter().filter(|stage| stage.repeatable).for_each(|stage| println!("{}", stage.name)),
        ["once", name] => match STAGES.iter().find(|stage| stage.name == name) {
            Some(stage) => once(stage),
            None => return ExitCode::FAILURE,
        },
        _ => Divan::from_args().main(),
    }
    ExitCode::SUCCESS
}

#[divan::bench(args = &STAGES, sample_count = 20, sample_size = 1)]
fn stage(bencher: Bencher, stage: &Stage) {
    bencher.counter(ItemsCount::new(records())).with_inputs(stage.prepare).bench_local_values(|work| work());
}

/// Runs a stage twice: the first time, what is lazy is made and memory is asked for.
fn once(stage: &Stage) {
    drop((stage.prepare)()());
    drop(counted_stage((stage.prepare)()));
    println!("{}", records());
}

/// What callgrind counts within: it goes by the name.
#[inline(never)]
fn counted_stage(work: Work) -> Box<dyn Any> {
    black_box(work())
}
