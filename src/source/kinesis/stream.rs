//! The stream: which one it is, whether it still is that one, and what all readers of it share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::StreamStatus;
use jiff::Timestamp;

use super::fault::{Fault, fault};
use crate::ops::clock::Clock;

/// For how long an answer to "is it still the same stream?" is good. The question may be asked 20 times a second in an
/// account.
pub(super) const CHECK_AGE: Duration = Duration::from_secs(10);

/// What the service says of a stream.
#[derive(Clone, Debug)]
struct Description {
    arn: String,
    created: Timestamp,
    retention: Duration,
}

impl Description {
    fn origin(&self) -> String {
        format!("{}@{}", self.arn, self.created)
    }
}

/// One stream, from its creation to its deletion.
pub(super) struct Stream {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    /// As it was asked for: a name or an ARN.
    name: String,
    pub(super) arn: String,
    pub(super) origin: String,
    created: Timestamp,
    retention: Mutex<Duration>,
    /// When it was last seen to be the same, in monotonic time. Held while asking, so that one question serves all.
    checked: tokio::sync::Mutex<Duration>,
}

impl Stream {
    /// Looks the stream up, by name or ARN.
    pub(super) async fn find(client: Client, name: &str, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        let is = describe(&client, name).await?;
        Ok(Self {
            name: name.into(),
            origin: is.origin(),
            created: is.created,
            arn: is.arn,
            retention: Mutex::new(is.retention),
            checked: tokio::sync::Mutex::new(clock.monotonic()),
            client,
            clock,
        })
    }

    /// For how long the stream keeps a record.
    pub(super) fn retention(&self) -> Duration {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this still is the stream that was found at first, as of at most `age` ago. A stream that was deleted, or
    /// made anew under the same name, is a fault for a human: positions in the one mean nothing in the other.
    pub(super) async fn check(&self, age: Duration) -> Result<(), Fault> {
        let asked = self.clock.monotonic();
        let mut checked = self.checked.lock().await;
        if *checked + age > asked {
            return Ok(());
        }
        let is = match describe(&self.client, &self.name).await {
            Ok(is) => is,
            Err(Fault::Missing(words)) => {
                let name = &self.name;
                return Err(Fault::Stopped(format!("the stream {name} is not there any more: {words}")));
            }
            Err(other) => return Err(other),
        };
        if is.origin() != self.origin {
            return Err(Fault::Stopped(format!(
                "the stream {} was deleted and made anew: it was made at {}, the one that is being archived at {}. What \
                 the old one still held is lost. To archive the new one, restart with another state and another archive",
                self.name, is.created, self.created
            )));
        }
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = is.retention;
        *checked = self.clock.monotonic();
        Ok(())
    }

    /// Why `what` was answered by "not found": the stream is gone, is another one, or has no such thing.
    pub(super) async fn explain_missing(&self, what: &str, words: &str) -> Fault {
        match self.check(Duration::ZERO).await {
            Ok(()) => Fault::Stopped(format!("{what} is not there, though its stream is: {words}")),
            Err(fault) => fault,
        }
    }
}

async fn describe(client: &Client, name: &str) -> Result<Description, Fault> {
    let call = client.describe_stream_summary();
    let call = if name.starts_with("arn:") { call.stream_arn(name) } else { call.stream_name(name) };
    let answer = call.send().await.map_err(|error| fault("DescribeStreamSummary", &error))?;
    let Some(is) = answer.stream_description_summary else {
        return Err(Fault::Passing("DescribeStreamSummary: an empty answer".into()));
    };
    match &is.stream_status {
        StreamStatus::Creating => return Err(Fault::Passing(format!("the stream {name} is still being made"))),
        StreamStatus::Deleting => return Err(Fault::Stopped(format!("the stream {name} is being deleted"))),
        _ => {}
    }
    Ok(Description {
        created: timestamp(&is.stream_creation_timestamp),
        retention: Duration::from_secs(u64::try_from(is.retention_period_hours).unwrap_or(24) * 3600),
        arn: is.stream_arn,
    })
}

/// A time of the service, which counts milliseconds and writes them as fractions of seconds.
pub(super) fn timestamp(time: &DateTime) -> Timestamp {
    let milliseconds = (time.as_nanos() + 500_000).div_euclid(1_000_000);
    let milliseconds = i64::try_from(milliseconds).unwrap_or(0);
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time as the service takes it.
pub(super) fn date_time(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_milliseconds_however_their_fractions_were_rounded() {
        for milliseconds in [0, 1, 1_795_270_990_543, 1_795_270_990_999, -1] {
            let time = Timestamp::from_millisecond(milliseconds).unwrap();
            assert_eq!(timestamp(&date_time(time)), time);
            assert_eq!(timestamp(&DateTime::from_secs_f64(milliseconds as f64 / 1000.0)), time);
        }
    }
}
