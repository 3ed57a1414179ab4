//! Bugs on order: each takes one rule of the protocol away, to see that the simulation finds out.
//!
//! Built only with the feature `planted-bugs`; otherwise nothing is ever planted, and asking costs nothing.

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A commit replaces the lease row whatever its counter is.
    CommitWithoutCondition,
    /// Objects are put before anything says which batch they belong to.
    PrepareSkipped,
    /// A claim from the position that holds the identity is judged as anybody's.
    ClaimWithoutPosition,
    /// Claims are answered, and remembered only once the batch's objects stand.
    ClaimAfterPut,
    /// Whatever object stands under a batch's key is taken for the batch's own.
    AnyObjectAdopted,
    /// A shard is read before its parents have ended.
    ChildBeforeParents,
    /// An empty page moves the checkpoint to what was read before it.
    EmptyPageMovesCheckpoint,
    /// Whether a lease has expired is told by the time of day.
    ExpiryByWallClock,
    /// Who takes a lease drops the batch that was under way.
    PendingDropped,
    /// The manifest is put once the batch is committed.
    ManifestAfterCommit,
    /// Messages are acknowledged before their segment is put.
    AcknowledgedBeforeDurable,
    /// Whatever stands under a spool's next number is taken for the segment that was to be put there.
    SealTakenForSegment,
    /// A spool that nobody writes any more is archived to its end without a seal.
    SealSkipped,
    /// The segment that the checkpoint lies in is removed while its spool is read on.
    SegmentRemovedEarly,
    /// Nobody looks at what was put behind the end of a spool.
    LateSegmentIgnored,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::CommitWithoutCondition,
        Self::PrepareSkipped,
        Self::ClaimWithoutPosition,
        Self::ClaimAfterPut,
        Self::AnyObjectAdopted,
        Self::ChildBeforeParents,
        Self::EmptyPageMovesCheckpoint,
        Self::ExpiryByWallClock,
        Self::PendingDropped,
        Self::ManifestAfterCommit,
        Self::AcknowledgedBeforeDurable,
        Self::SealTakenForSegment,
        Self::SealSkipped,
        Self::SegmentRemovedEarly,
        Self::LateSegmentIgnored,
    ];

    /// Whether the rule is one of spools, which nobody breaks where there are none.
    pub const fn is_of_spools(self) -> bool {
        matches!(
            self,
            Self::AcknowledgedBeforeDurable
                | Self::SealTakenForSegment
                | Self::SealSkipped
                | Self::SegmentRemovedEarly
                | Self::LateSegmentIgnored
        )
    }
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub use on_order::{Planted, plant, planted};

#[cfg(feature = "planted-bugs")]
mod on_order {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// For as long as it lives, a bug is planted.
    #[derive(Debug)]
    pub struct Planted(());

    /// Plants this bug, and no other, in everything that runs on this thread.
    #[must_use = "nothing is planted any more once this is dropped"]
    pub fn plant(bug: Option<Bug>) -> Planted {
        PLANTED.set(bug);
        Planted(())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    /// Whether this bug is planted.
    #[inline]
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
