//! One suite a port. Every adapter passes its port's suite, the in-memory twin and the real one alike.

mod archive_store;
mod claims;
mod lease_store;
mod source;
