//! What was found once, and must stay fixed: operations instead of seeds, which may bring something else tomorrow.

use crate::sim::operation::{Content, Moment, Operation, Port};
use crate::sim::{Shape, run};

/// Runs the operations with so many seeds: what is left to chance is when each call comes.
fn hold(operations: &[Operation], seeds: u64) {
    hold_as(Shape::default(), operations, seeds);
}

fn hold_as(shape: Shape, operations: &[Operation], seeds: u64) {
    for seed in 0..seeds {
        let violations = run(seed, shape, operations, false).violations;
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    }
}

fn put(shard: u8) -> Operation {
    Operation::Put { shard, payloads: vec![vec![Content::Fresh], vec![Content::Fresh]] }
}

/// The row of an ended shard went with its owner's help alone: one that died between the commit of the end and the giving
/// up left it there for ever.
#[test]
fn the_row_of_an_ended_shard_goes_though_its_owner_died() {
    for number in 5..20 {
        let at = Moment::Call { number, of: Some(Port::Leases), behind: true };
        hold(
            &[
                put(0),
                Operation::Advance { seconds: 30 },
                Operation::Crash { worker: 0, at, back_in: 60 },
                Operation::Crash { worker: 1, at, back_in: 60 },
                Operation::Split { shard: 0 },
                put(2),
                put(3),
                Operation::Advance { seconds: 200 },
            ],
            8,
        );
    }
}

/// Who is in the middle of a commit when the lease table is lost goes on with it for a moment.
#[test]
fn a_batch_that_is_under_way_when_the_rows_are_lost_stands_once() {
    for table in [false, true] {
        for number in 1..8 {
            for seconds in [1, 4, 8] {
                let at = Moment::Call { number, of: Some(Port::Archive), behind: number % 2 == 0 };
                hold(
                    &[
                        Operation::Stop { worker: 1 },
                        put(0),
                        Operation::Advance { seconds: 90 },
                        Operation::Put {
                            shard: 0,
                            payloads: vec![vec![Content::Fresh], vec![Content::Garbage], vec![Content::Fresh]],
                        },
                        Operation::Advance { seconds: 70 },
                        Operation::Freeze { worker: 0, at, seconds },
                        Operation::Start { worker: 2 },
                        Operation::Advance { seconds: 8 },
                        put(0),
                        Operation::LoseLeases { table },
                        Operation::Advance { seconds: 60 },
                    ],
                    3,
                );
            }
        }
    }
}

/// Who wakes when even the seal of its spool is gone puts segments behind its end. They were found by the spool's row alone,
/// which goes once a later spool vouches for its end: then nobody ever archived them.
#[test]
fn what_is_put_behind_the_end_of_a_spool_is_found_though_its_row_is_gone() {
    for seconds in [5, 20, 60] {
        let operations = [
            put(0),
            Operation::Advance { seconds: 10 },
            // The sleeper has these in hand, and lets others have them meanwhile.
            put(0),
            Operation::Age { worker: 0 },
            put(0),
            Operation::Advance { seconds },
            put(0),
            Operation::Advance { seconds: 120 },
        ];
        hold_as(Shape::on_spools(), &operations, 8);
    }
}

/// Who had slept through the loss of its lease found gone what others had archived and removed, and called for a human.
#[test]
fn who_slept_while_others_archived_its_spool_tells_of_no_loss() {
    for number in 1..5 {
        let operations = [
            Operation::Stop { worker: 1 },
            Operation::Start { worker: 2 },
            put(0),
            Operation::Advance { seconds: 20 },
            put(0),
            Operation::Advance { seconds: 8 },
            // It has just taken the lease that the other one gives up.
            Operation::Freeze {
                worker: 2,
                at: Moment::Call { number, of: Some(Port::Leases), behind: true },
                seconds: 150,
            },
            Operation::Stop { worker: 0 },
            Operation::Advance { seconds: 12 },
            Operation::Start { worker: 3 },
            Operation::Advance { seconds: 250 },
        ];
        hold_as(Shape { faults: false, ..Shape::on_spools() }, &operations, 8);
    }
}

/// The first row of all may be made, and a manifest be put by it, between two looks at the rows of another worker: that one
/// took the rows for lost.
#[test]
fn rows_that_were_made_and_used_since_the_last_look_are_not_lost() {
    let operations = [
        Operation::Advance { seconds: 20 },
        Operation::Start { worker: 2 },
        Operation::Crash { worker: 0, at: Moment::Now, back_in: 17 },
        put(0),
        put(0),
        // By its clock, the window is over at once.
        Operation::Unsteady { worker: 2, seconds: 38 },
        put(0),
        Operation::Advance { seconds: 20 },
    ];
    hold_as(Shape::on_spools(), &operations, 60);
}

/// Of a shard without manifests, whose objects could not be read when its row was lost, whoever started later knew nothing: it
/// took it for a new one, and under another layout put its records beside those that stood.
#[test]
fn objects_that_could_not_be_read_when_the_rows_were_lost_are_not_forgotten() {
    let with_a_reject = |shard| Operation::Put {
        shard,
        payloads: vec![vec![Content::Fresh], vec![Content::Garbage], vec![Content::Fresh]],
    };
    let operations = [
        with_a_reject(0),
        Operation::Advance { seconds: 5 },
        put(1),
        Operation::Advance { seconds: 80 },
        Operation::Intrude { shard: 2 },
        with_a_reject(2),
        Operation::Advance { seconds: 120 },
        Operation::LoseLeases { table: false },
        Operation::Advance { seconds: 120 },
        Operation::Configure { layout: 3, window: 1, records: 1 },
        Operation::CatchUp,
        Operation::Advance { seconds: 60 },
    ];
    hold(&operations, 24);
}
