//! Receiving by Google's own client.
//!
//! It keeps messages from being delivered to others for as long as their handlers live, by asking for a minute again and
//! again, and for an hour at most. It never says when it has acknowledged a message of an ordinary subscription, and of one
//! with exactly-once delivery it may never do.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::Error;
use google_cloud_pubsub::client::{Subscriber as Client, SubscriptionAdmin};
use google_cloud_pubsub::model;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownToken};
use jiff::Timestamp;

use super::segment::Message;
use super::subscriber::{Acknowledge, FlowControl, Received, Subscribe, Subscriber, Subscription, SubscriptionError};
use crate::ops::words::causes;

/// How long a look at the subscription may take.
const LOOK_WITHIN: Duration = Duration::from_secs(15);

/// For how long a message is kept from others at a time, and so for how long what a killed worker held stays away. A put may take longer:
/// Google's client asks again. Less would have it ask more often, and a worker that stands still for a moment lose what it holds.
const KEPT_AT_ONCE: Duration = Duration::from_mins(1);

/// For how long a message is kept from others at most: a store that is away for longer gets it again.
const KEPT_FOR: Duration = Duration::from_hours(1);

/// A subscription of Google Pub/Sub.
pub struct PubsubSubscription {
    name: String,
    client: Client,
    admin: SubscriptionAdmin,
}

impl PubsubSubscription {
    /// The subscription of this name, short or full. Asks the service nothing: [`look`](Subscribe::look) does.
    ///
    /// Without an `endpoint` it is Google's own. One without encryption (`http://`) is an emulator's, which knows no
    /// credentials; everywhere else they come by Google's usual chain.
    pub async fn open(project: &str, subscription: &str, endpoint: Option<&str>) -> Result<Self, SubscriptionError> {
        // Google's clients have none of their own here; one that somebody else has chosen is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (mut client, mut admin) = (Client::builder(), SubscriptionAdmin::builder());
        if let Some(endpoint) = endpoint {
            (client, admin) = (client.with_endpoint(endpoint), admin.with_endpoint(endpoint));
            if endpoint.starts_with("http://") {
                let anonymous = || anonymous::Builder::new().build();
                (client, admin) = (client.with_credentials(anonymous()), admin.with_credentials(anonymous()));
            }
        }
        let refused = |error: &dyn std::error::Error| {
            SubscriptionError::Refused(format!("Google's client can't be made: {}", causes(error)))
        };
        Ok(Self {
            name: subscription_name(project, subscription),
            client: client.build().await.map_err(|error| refused(&error))?,
            admin: admin.build().await.map_err(|error| refused(&error))?,
        })
    }
}

/// `projects/p/subscriptions/s`, whether it was asked for so or as `s`.
pub fn subscription_name(project: &str, subscription: &str) -> String {
    if subscription.starts_with("projects/") {
        subscription.to_owned()
    } else {
        format!("projects/{project}/subscriptions/{subscription}")
    }
}

#[async_trait]
impl Subscribe for PubsubSubscription {
    fn name(&self) -> &str {
        &self.name
    }

    async fn look(&self) -> Result<Subscription, SubscriptionError> {
        let asked = self.admin.get_subscription().set_subscription(&self.name).send();
        let Ok(found) = tokio::time::timeout(LOOK_WITHIN, asked).await else {
            let seconds = LOOK_WITHIN.as_secs();
            return Err(SubscriptionError::Unavailable(format!(
                "{}: no answer within {seconds} s, from the service or from where Google's chain looks for credentials",
                self.name
            )));
        };
        let found = found.map_err(|error| fault(&self.name, &error))?;
        let refused = |reason: &str| Err(SubscriptionError::Refused(format!("{}: {reason}", self.name)));
        if found.detached {
            return refused("it is detached from its topic, and gets no messages any more: make another one");
        }
        if found.push_config.is_some_and(|push| !push.push_endpoint.is_empty()) {
            return refused("it pushes its messages elsewhere: make one that is pulled from");
        }
        let dead_letters = found.dead_letter_policy.map(|policy| policy.max_delivery_attempts);
        Ok(Subscription {
            exactly_once: found.enable_exactly_once_delivery,
            max_delivery_attempts: dead_letters.and_then(|attempts| attempts.try_into().ok()),
        })
    }

    fn subscribe(&self, flow: FlowControl) -> Box<dyn Subscriber> {
        let bounded = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let stream = self
            .client
            .subscribe(&self.name)
            .set_max_outstanding_messages(bounded(flow.messages))
            .set_max_outstanding_bytes(bounded(flow.bytes))
            .set_max_lease_extension(KEPT_AT_ONCE)
            .set_max_lease(KEPT_FOR)
            .build();
        let end = stream.shutdown_token();
        Box::new(Stream { subscription: self.name.clone(), end, next: Some(next_of(stream)) })
    }
}

/// What an error means, by what the caller can do.
fn fault(name: &str, error: &Error) -> SubscriptionError {
    let code = error.status().map_or_else(String::new, |status| status.code.to_string());
    let advice = match code.as_str() {
        "NOT_FOUND" => "there is no such subscription: make it, or correct source.pubsub.project and subscription",
        "PERMISSION_DENIED" => "grant roles/pubsub.subscriber and roles/pubsub.viewer on it",
        "UNAUTHENTICATED" => "the credentials are not known there: look at what Google's chain finds",
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" => "correct source.pubsub",
        _ if error.is_authentication() => {
            "there are no credentials that can be used: set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth \
             application-default login`, or give the machine a service account"
        }
        _ => return SubscriptionError::Unavailable(format!("{name}: {}", causes(error))),
    };
    SubscriptionError::Refused(format!("{name}: {}; {advice}", causes(error)))
}

struct Stream {
    subscription: String,
    /// What is waited for, kept through calls that are cancelled: each time it is dropped, Google's client begins to connect anew.
    /// None once it was stopped.
    next: Option<BoxFuture<'static, Next>>,
    end: ShutdownToken,
}

/// What came, and the stream that it came from.
type Next = (Option<Result<(model::Message, Handler), Error>>, MessageStream);

fn next_of(mut messages: MessageStream) -> BoxFuture<'static, Next> {
    async move { (messages.next().await, messages) }.boxed()
}

#[async_trait]
impl Subscriber for Stream {
    async fn next(&mut self) -> Result<Received, SubscriptionError> {
        let Some(next) = &mut self.next else { return std::future::pending().await };
        let (came, messages) = next.await;
        self.next = Some(next_of(messages));
        match came {
            Some(Ok((message, handler))) => Ok(received(message, handler)),
            Some(Err(error)) => Err(fault(&self.subscription, &error)),
            None => Err(SubscriptionError::Unavailable(format!("{}: the stream has ended", self.subscription))),
        }
    }

    fn stop(&mut self) {
        self.next = None;
    }

    async fn closed(&mut self) {
        self.end.shutdown().await;
    }
}

fn received(message: model::Message, handler: Handler) -> Received {
    let published = message.publish_time.and_then(|time| Timestamp::new(time.seconds(), time.nanos()).ok());
    let message = Message {
        id: message.message_id,
        // The service sets it, always.
        arrival: published.unwrap_or(Timestamp::UNIX_EPOCH),
        attributes: message.attributes.into_iter().collect(),
        ordering_key: message.ordering_key,
        delivery_attempt: handler.delivery_attempt().and_then(|attempt| attempt.try_into().ok()),
        data: message.data,
    };
    Received { message, acknowledge: Box::new(Handle(handler)) }
}

struct Handle(Handler);

impl Acknowledge for Handle {
    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), String>> {
        match self.0 {
            Handler::ExactlyOnce(handler) => {
                async move { handler.confirmed_ack().await.map_err(|error| causes(&error)) }.boxed()
            }
            // Sent when it can be, in a batch; there is no answer to wait for.
            handler => async move {
                handler.ack();
                Ok(())
            }
            .boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_may_be_named_in_full() {
        assert_eq!(subscription_name("p", "s"), "projects/p/subscriptions/s");
        assert_eq!(subscription_name("p", "projects/q/subscriptions/s"), "projects/q/subscriptions/s");
    }
}
