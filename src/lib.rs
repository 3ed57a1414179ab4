//! auditlake drains Temporal Cloud audit logs into an archive that its owner can query, trust and prove complete.
//!
//! The folders stand in the order of the data's way; each holds its words and pure logic, its trait if it faces the
//! outside, one file per adapter, and its in-memory twin:
//!
//! | folder | what happens there | port |
//! |---|---|---|
//! | [`source`] | payloads come in, each with its position | [`source::Source`] |
//! | [`record`] | payloads are decoded and normalised (pure) | |
//! | [`dedupe`] | each record claims its `(log_id, version)` | [`dedupe::Claims`] |
//! | [`batch`] | records gather into windows (pure) | |
//! | [`encode`] | rows become the bytes of an object (pure) | |
//! | [`archive`] | objects and manifests are put down, never overwritten | [`archive::ArchiveStore`] |
//! | [`lease`] | who reads which shard, and how far they got | [`lease::LeaseStore`] |
//! | [`worker`] | the only loops; `worker/commit.rs` alone moves a checkpoint | |
//! | [`verify`] | the archive is read back and proved | |
//! | [`ops`] | clock, retry, telemetry, shutdown | [`ops::clock::Clock`] |

pub mod app;
pub mod archive;
pub mod aws;
pub mod batch;
pub mod cli;
pub mod config;
pub mod dedupe;
pub mod digest;
pub mod encode;
pub mod lease;
pub mod ops;
pub mod record;
pub mod source;
pub mod verify;
pub mod worker;
