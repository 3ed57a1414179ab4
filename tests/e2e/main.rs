//! End to end: the real binary, real files, real disks, real signals. Nothing of the library is called; what must come
//! of an input is told by the generator that wrote it.
//!
//! | module | what is proved |
//! |---|---|
//! | `main_job`, `forms`, `lost_state`, `dates`, `commands` | what a user does with it, and what comes out |
//! | `crash`, `failpoints` | killed at any moment and at every step: archived exactly once |
//! | `fleet`, `fleet_storm` | many workers on a stream, a table and a bucket, and all that can befall them |
//! | `fleet_faults`, `fleet_late`, `fleet_crash` | services that fail, writes that come too late, deaths at every step |
//! | `fleet_reads` | what is read of a stream, and what is refused |
//! | `fleet_pubsub` | a subscription, by way of spools |
//! | `full_disk`, `daemon`, `memory` | a disk that runs full, a process that is to stop, what it takes |
//! | `status` | what is shown where something does not answer or is not there |
//! | `check` | what is tried before anything depends on it |
//! | `admin`, `page` | what a running worker answers over HTTP, and how it looks in a browser |
//! | `s3`, `dynamodb` | the archive in a bucket, the state in tables |
//! | `bad_input`, `damage` | what is said about wrong input and about damage |

// Real processes are waited for in real time.
#![allow(clippy::disallowed_methods, reason = "the determinism fence is around the product, not around its observers")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that can't go on panics")]
#![allow(unreachable_pub, reason = "what a test crate has, nobody else reaches")]

mod support;

mod admin;
mod bad_input;
mod check;
mod commands;
mod crash;
mod daemon;
mod damage;
mod dates;
mod dynamodb;
mod fleet;
mod fleet_faults;
mod fleet_late;
mod fleet_pubsub;
mod fleet_reads;
mod fleet_storm;
mod forms;
mod full_disk;
mod kinesis;
mod lost_state;
mod main_job;
mod memory;
mod page;
mod s3;
mod status;

#[cfg(feature = "failpoints")]
mod failpoints;
#[cfg(feature = "failpoints")]
mod fleet_crash;

#[cfg(not(feature = "failpoints"))]
#[test]
#[ignore = "the binary was built without its failpoints; `make test` builds it with them"]
fn the_process_is_killed_at_every_step_of_the_protocol() {}
