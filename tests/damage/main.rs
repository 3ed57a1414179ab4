//! Every damage to an archive is found, by its name and by nothing else, in memory and on a disk alike.
#![allow(clippy::unwrap_used)] // helpers of tests are tests
#![allow(missing_docs)]

mod chains;
mod kept;
mod listings;
mod objects;
mod untouched;
mod world;
