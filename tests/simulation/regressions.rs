//! What was found once, and must stay fixed: operations instead of seeds, which may bring something else tomorrow.

use crate::sim::operation::{Content, Moment, Operation, Port};
use crate::sim::{Shape, run};

/// Runs the operations with so many seeds: what is left to chance is when each call comes.
fn hold(operations: &[Operation], seeds: u64) {
    for seed in 0..seeds {
        let violations = run(seed, Shape::default(), operations, false).violations;
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
