//! What was found once, and must stay fixed: operations instead of seeds, which may bring something else tomorrow.

use crate::sim::operation::{Content, Moment, Operation, Port};
use crate::sim::{Shape, run};

/// Runs the operations with the first few seeds: what is left to chance is when each call comes.
fn hold(operations: &[Operation]) {
    for seed in 0..10 {
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
    for number in 1..40 {
        let at = Moment::Call { number, of: Some(Port::Leases), behind: true };
        hold(&[
            put(0),
            Operation::Advance { seconds: 30 },
            Operation::Crash { worker: 0, at, back_in: 60 },
            Operation::Crash { worker: 1, at, back_in: 60 },
            Operation::Split { shard: 0 },
            put(2),
            put(3),
            Operation::Advance { seconds: 200 },
        ]);
    }
}
