//! Servers to test against, and faults between them and who is tested.
//!
//! ```no_run
//! # async fn test() {
//! use auditlake_test_servers::{Answer, FaultProxy, aws, ministack};
//!
//! let server = ministack().await;
//! let proxy = FaultProxy::start(&server.url).await;
//! proxy.on("PutItem").next(2).answer(Answer::dynamodb("ProvisionedThroughputExceededException"));
//! let client = aws::dynamodb_client(proxy.url());
//! # }
//! ```
//!
//! | module | what it has |
//! |---|---|
//! | [`kinesis`], [`ministack`] | servers that all tests of all processes share; they start by themselves and end when nobody uses them any more |
//! | [`pubsub::server`] | the same for Pub/Sub, or Google's emulator where there is one |
//! | [`OwnServer`] | one for a single test |
//! | [`aws`] | clients, streams, buckets, and the environment of a child process |
//! | [`FaultProxy`] | what no server does by itself: throttling, lost answers, cuts, delays, silence |

// Real servers are waited for in real time.
#![allow(clippy::disallowed_methods, reason = "the determinism fence is around the product, not around its observers")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that can't go on panics")]

pub mod aws;
mod own;
mod proxy;
pub mod pubsub;
mod shared;

pub use own::OwnServer;
pub use proxy::{Answer, Fault, FaultProxy, Headers, Matching, Recorded, Request};
pub use shared::Server;

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// kinesis-local: Kinesis as it is described, with splits, merges, and `SubscribeToShard`. A few thousand records a
    /// shard at most: its puts get slower with each.
    Kinesis,
    /// `MiniStack`: `DynamoDB`, S3 and Glue; and a Kinesis that is fast but never to be resharded, since the parents
    /// vanish.
    Ministack,
    /// Google's in-memory fake of Pub/Sub, behind a part of its REST API. It knows no order, no dead letters, no
    /// exactly-once delivery and no flow control.
    Pubsub,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kinesis => "kinesis",
            Self::Ministack => "ministack",
            Self::Pubsub => "pubsub",
        }
    }
}

/// The shared server for Kinesis. Use names of your own ([`aws::unique_name`]).
pub async fn kinesis() -> Server {
    Server::shared(Kind::Kinesis).await
}

/// The shared server for `DynamoDB` and S3. Use names of your own ([`aws::unique_name`]).
pub async fn ministack() -> Server {
    Server::shared(Kind::Ministack).await
}
