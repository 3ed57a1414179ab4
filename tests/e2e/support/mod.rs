//! What every module uses: a workspace to run the binary in, input with its truth, the archive read back.

mod archived;
mod aws;
mod browser;
mod cloud;
mod corpus;
mod disk;
mod engines;
mod feed;
mod http;
mod process;
mod record;
mod workspace;

pub use archived::{digest, files_below, read_json, rows};
pub use aws::{Cloud, PREFIX, Worker};
pub use browser::look_at;
pub use cloud::{assert_all_is_archived_once, stop_all, wait_until_balanced};
pub use corpus::{Corpus, Plan, Truth};
pub use disk::{SmallDisk, with_mounts};
pub use engines::duckdb;
pub use feed::Feed;
pub use http::{Answer, get, served_at};
pub use process::{Done, Process, finish, signal, wait_until};
pub use record::{Record, mix};
pub use workspace::Workspace;
