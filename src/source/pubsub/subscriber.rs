//! What receives messages: the seam between the spool and Pub/Sub.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::segment::Message;

/// What there is to know of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Acknowledgements are answered, and what was acknowledged never comes again.
    pub exactly_once: bool,
    /// After so many deliveries a message goes to the dead-letter topic, where there is one.
    pub max_delivery_attempts: Option<u32>,
}

/// How much a subscriber may hand out that has not been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowControl {
    /// The most messages.
    pub messages: u64,
    /// The most bytes.
    pub bytes: u64,
}

/// Why nothing can be received; by what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// It may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// A human is needed: a subscription that is not there, a permission that is missing.
    #[error("{0}")]
    Refused(String),
}

/// A subscription that can be looked at and received from.
#[async_trait]
pub trait Subscribe: Send + Sync {
    /// Its full name, for people.
    fn name(&self) -> &str;

    /// Looks at it. A success proves that the service answers, too.
    async fn look(&self) -> Result<Subscription, SubscriptionError>;

    /// Begins to receive.
    fn subscribe(&self, flow: FlowControl) -> Box<dyn Subscriber>;
}

/// Receives messages. Each one is kept from being delivered to others for as long as its [`Acknowledge`] lives.
#[async_trait]
pub trait Subscriber: Send {
    /// The next message, however long it takes to come. Cancelling the call loses nothing.
    async fn next(&mut self) -> Result<Received, SubscriptionError>;

    /// Receives no more: what was not handed out yet goes back. What was can still be acknowledged.
    fn stop(&mut self);

    /// Waits until all acknowledgements have been sent, once it was stopped.
    async fn closed(&mut self);
}

/// A message, and the right to acknowledge it.
pub struct Received {
    /// The message.
    pub message: Message,
    /// Acknowledges it. Dropped instead, the message comes again.
    pub acknowledge: Box<dyn Acknowledge>,
}

/// The right to acknowledge one message.
pub trait Acknowledge: Send {
    /// Acknowledges it. May never return, so it is to be bounded; an error means that the message may come again.
    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), String>>;
}

/// How long acknowledgements of one segment may take.
pub(super) const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);

/// How long all of them may take once the worker was told to stop: there must be time left to end the spool, within the
/// default `worker.shutdown_grace` of 25 s.
pub(super) const ACKNOWLEDGE_AT_THE_END_WITHIN: Duration = Duration::from_secs(15);
