//! One suite a port. Every adapter passes its port's suite, the in-memory twin and the real one alike.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod archive_store;
mod claims;
mod clock;
mod dynamodb;
mod dynamodb_claims;
mod dynamodb_leases;
mod dynamodb_tables;
mod kinesis;
mod lease_held;
mod lease_store;
mod pubsub;
mod s3;
mod source;
