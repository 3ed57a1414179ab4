//! For how long a look waits for an answer, and who is named when none comes.

use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use aws_config::SdkConfig;

use super::source::place;
use crate::aws::{Access, Patience, endpoint, sdk_config};
use crate::cli::Failure;
use crate::config::{ArchiveChoice, Config, SourceChoice, StateChoice};
use crate::ops::clock::Clock;

/// Who only looks waits no longer for one part: whatever is slower is, to somebody who asks what is wrong, what is wrong.
const PATIENCE: Duration = Duration::from_secs(15);

/// One of those that a command asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Part {
    Source,
    State,
    Archive,
}

/// What `part` answers in time; else a failure that names who was asked.
pub(in crate::cli) async fn in_time<T>(
    config: &Config,
    clock: &dyn Clock,
    part: Part,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        answered = answer => answered,
        () = clock.sleep(PATIENCE) => Err(anyhow!(no_answer(config, part, PATIENCE).await).into()),
    }
}

/// Waits for `part` as long as it takes, and says so where that is longer than a look would wait.
pub(super) async fn however_long<T>(
    config: &Config,
    clock: &dyn Clock,
    part: Part,
    ready: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut ready = std::pin::pin!(ready);
    tokio::select! {
        ready = &mut ready => return ready,
        () = clock.sleep(PATIENCE) => {}
    }
    let (whereabouts, seconds) = (whereabouts(config, part).await, PATIENCE.as_secs());
    tracing::warn!("{whereabouts}: not ready after {seconds} s; still trying");
    ready.await
}

/// That `part` gave no answer in this time, and who was asked.
pub(in crate::cli) async fn no_answer(config: &Config, part: Part, patience: Duration) -> String {
    format!("{}: no answer within {} s", whereabouts(config, part).await, patience.as_secs())
}

/// The part's section of the configuration, with its endpoint, its region, or its place on a disk.
async fn whereabouts(config: &Config, part: Part) -> String {
    let in_bucket = config.archive.kind == ArchiveChoice::S3;
    match part {
        Part::Source => match config.source.kind {
            SourceChoice::File => format!("source.file.path: {}", place(config)),
            SourceChoice::Kinesis => service("source.kinesis", config.source.kinesis.access(), "Kinesis").await,
            SourceChoice::Pubsub => format!("source.pubsub: {}", place(config)),
        },
        Part::State if config.state.kind == StateChoice::Dynamodb => {
            service("state.dynamodb", config.state.dynamodb.access(), "DynamoDB").await
        }
        Part::State => format!("state.embedded.path: {}", config.state.embedded.path.display()),
        Part::Archive if in_bucket => service("archive.s3", config.archive.s3.access(), "S3").await,
        Part::Archive => format!("archive.local.path: {}", config.archive.local.path.display()),
    }
}

/// As [`asked`], of the client that this access gives. Nothing is asked.
pub(super) async fn service(section: &str, access: Access<'_>, name: &'static str) -> String {
    asked(section, &Box::pin(sdk_config(access, Patience { attempt: PATIENCE, attempts: 1 })).await, name)
}

/// The section, and the endpoint that its client takes, else its region.
pub(super) fn asked(section: &str, sdk: &SdkConfig, name: &'static str) -> String {
    let region = || sdk.region().map(ToString::to_string).unwrap_or_default();
    format!("{section} ({})", endpoint(sdk, name).unwrap_or_else(region))
}
