//! Manifests beyond what a lease row allows, and whether each fits the chain all the same: an older state, or a second one,
//! leaves some that do; somebody who only wants to do harm seldom one. Pure.

use super::judge::{Chain, Loaded};
use super::report::Kind;
use crate::archive::chain::{follows, runs_forward};
use crate::ops::words::counted;

impl Chain {
    /// Reports each, and whether it goes on from the one before it. `newest` is the last that the row allows.
    pub(super) fn report_rogues(&mut self, newest: Option<&Loaded>, rogues: &[Loaded]) {
        let before = std::iter::once(newest).chain(rogues.iter().map(Some));
        for (before, rogue) in before.zip(rogues) {
            let fit = match misfit(before.filter(|before| before.number + 1 == rogue.number), rogue) {
                None if rogue.number == 0 => "it can be a shard's first".to_owned(),
                None => format!("it fits manifest {}: it names it, and goes on where that ends", rogue.number - 1),
                Some(why) => format!("it does not fit the chain: {why}"),
            };
            self.excused.insert(rogue.number);
            let required = counted(self.bounds.required(), "batch");
            let objects = rogue.parsed.as_ref().map_or(0, |manifest| manifest.objects.len());
            let detail = format!(
                "the lease row counts {required} and shows no batch {} under way: by it, nobody put this manifest, nor the \
                 {} that it lists; {fit}",
                rogue.number,
                counted(objects as u64, "object")
            );
            self.report_manifest(Kind::UnlistedObject, rogue.number, detail);
        }
    }
}

/// Why a manifest is none that could have been put behind `before`.
fn misfit(before: Option<&Loaded>, rogue: &Loaded) -> Option<String> {
    let manifest = match &rogue.parsed {
        Ok(manifest) => manifest,
        Err(fault) => return Some(format!("it {fault}")),
    };
    if !runs_forward(&manifest.range) {
        return Some(format!("its range {} runs backwards", manifest.range));
    }
    let previous = manifest.previous?;
    let Some(before) = before else { return Some(format!("manifest {} is not there", rogue.number - 1)) };
    if previous != before.digest {
        return Some(format!(
            "it names {previous} as its predecessor, manifest {} is {}",
            before.number, before.digest
        ));
    }
    let before = before.parsed.as_ref().ok()?;
    if before.shard_end {
        return Some(format!("the shard ended with manifest {}", before.batch_seq));
    }
    let (ends, begins) = (&before.range.through, &manifest.range.after);
    follows(ends, begins)
        .err()
        .map(|_| format!("manifest {} ends at {ends}, it begins after {begins}", before.batch_seq))
}
