//! A deterministic simulation of auditlake: see README.md beside this file.

#![allow(clippy::print_stdout)] // what was simulated, for whoever wants to see it

mod regressions;
#[path = "../worker/settings.rs"]
mod settings;
mod sim;

use sim::{Shape, Stats, check, generated, run};

/// Checks so many seeds, from `first` on.
fn hold(first: u64, seeds: u64, shape: Shape) {
    let mut stats = Stats::default();
    for seed in first..first + seeds {
        match check(seed, shape) {
            Ok(more) => stats += more,
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{stats}");
}

/// One test for every hundred seeds, so that they run beside each other.
macro_rules! hold_with_seeds {
    ($($name:ident from $first:literal as $shape:expr;)*) => {
        $(#[test] fn $name() { hold($first, 100, $shape); })*
    };
}

hold_with_seeds! {
    everything_stands_once_with_seeds_from_0 from 0 as Shape::default();
    everything_stands_once_with_seeds_from_100 from 100 as Shape::default();
    everything_stands_once_with_seeds_from_200 from 200 as Shape::default();
    everything_stands_once_with_seeds_from_300 from 300 as Shape::default();
    everything_stands_once_with_seeds_from_400 from 400 as Shape::default();
    everything_stands_once_with_seeds_from_500 from 500 as Shape::default();
    everything_spooled_stands_once_with_seeds_from_0 from 0 as Shape::on_spools();
    everything_spooled_stands_once_with_seeds_from_100 from 100 as Shape::on_spools();
    everything_spooled_stands_once_with_seeds_from_200 from 200 as Shape::on_spools();
}

#[test]
fn where_nothing_goes_wrong_nothing_does() {
    hold(0, 40, Shape { faults: false, ..Shape::default() });
    hold(0, 40, Shape { faults: false, ..Shape::on_spools() });
}

#[test]
fn long_lives_end_as_well_as_short_ones() {
    hold(10_000, 10, Shape { operations: 250, ..Shape::default() });
    hold(10_000, 5, Shape { operations: 250, ..Shape::on_spools() });
}

#[test]
fn a_seed_gives_the_same_log_twice_and_another_seed_another() {
    for shape in [Shape::default(), Shape::on_spools()] {
        let logs = [1, 1, 2, 2, 3, 3].map(|seed| run(seed, shape, &generated(seed, shape), true).log);
        for pair in logs.chunks(2) {
            let differs = pair[0].lines().zip(pair[1].lines()).find(|(first, second)| first != second);
            assert!(pair[0] == pair[1], "{differs:?}");
        }
        let lines: usize = logs.iter().map(|log| log.lines().count()).sum();
        assert!(lines > 5_000, "all that happens is in them: {lines}");
        assert!(logs[0] != logs[2] && logs[2] != logs[4]);
    }
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use auditlake::ops::planted::Bug;

    use super::*;

    #[test]
    fn every_bug_that_is_planted_is_found_within_two_hundred_seeds() {
        for bug in Bug::ALL {
            let found = sim::find(bug, Shape::default(), 200);
            println!("{bug:?}: {found:?}");
            assert!(found.is_some(), "{bug:?}");
        }
    }
}
