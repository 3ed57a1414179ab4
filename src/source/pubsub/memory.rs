//! The in-memory twin of a subscription: it delivers again, forgets acknowledgements, or does not answer them. And what
//! a test may know of the objects of a spool.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::names::parse_key;
use super::segment::{Kind, Message, decode};
use super::subscriber::{Acknowledge, FlowControl, Received, Subscribe, Subscriber, Subscription, SubscriptionError};
use crate::ops::clock::Clock;

/// How long a message stays away whose receiver is gone.
const DEADLINE: Duration = Duration::from_secs(10);

/// What becomes of acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// They count.
    #[default]
    Count,
    /// They are answered, and do not count: the message comes again.
    Lost,
    /// They fail.
    Fail,
    /// They are never answered, and do not count.
    Mute,
    /// They count after so long, and are answered then.
    Late(Duration),
}

/// A subscription in memory. Clones share it.
#[derive(Clone)]
pub struct MemorySubscription {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    changed: Arc<Notify>,
    name: Arc<str>,
}

#[derive(Default)]
struct State {
    /// All that is not acknowledged, by number.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    acks: Acks,
    acknowledged: BTreeMap<u64, Message>,
    deliveries: u64,
    away: bool,
    known: Subscription,
}

struct Waiting {
    message: Message,
    out: Out,
    deliveries: u32,
}

impl Waiting {
    /// Whether the receiver that got it with this delivery has it.
    fn is_held(&self, delivery: u32) -> bool {
        self.out == Out::Held && self.deliveries == delivery
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Out {
    /// It can be delivered, from this monotonic time on.
    From(Duration),
    /// A receiver has it.
    Held,
}

impl MemorySubscription {
    /// One without messages.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let name = "projects/test/subscriptions/memory".into();
        Self { state: Arc::default(), clock, changed: Arc::default(), name }
    }

    /// Publishes a message; its number.
    pub fn publish(&self, data: impl Into<Bytes>) -> u64 {
        let mut state = self.state();
        let (number, data) = (state.next, data.into());
        state.next += 1;
        let message = Message {
            id: number.to_string(),
            arrival: self.clock.now(),
            attributes: BTreeMap::new(),
            ordering_key: String::new(),
            delivery_attempt: None,
            data,
        };
        state.waiting.insert(number, Waiting { message, out: Out::From(Duration::ZERO), deliveries: 0 });
        self.changed.notify_waiters();
        number
    }

    /// What becomes of acknowledgements from now on.
    pub fn acks(&self, acks: Acks) {
        self.state().acks = acks;
    }

    /// Whether it answers when it is looked at.
    pub fn away(&self, away: bool) {
        self.state().away = away;
    }

    /// What was acknowledged never comes again, and who lets a deadline pass can't acknowledge any more.
    pub fn with_exactly_once(&self) {
        self.state().known.exactly_once = true;
    }

    /// Whether that is promised.
    pub fn is_exactly_once(&self) -> bool {
        self.state().known.exactly_once
    }

    /// The deadline of a message passes, though its receiver has it still: it can be delivered again at once.
    pub fn lapse(&self, id: &str) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if let Some(waiting) = number(id).and_then(|number| state.waiting.get_mut(&number)) {
            waiting.out = Out::From(now);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A message comes again though it was acknowledged, as it may where nothing else is promised.
    pub fn bring_back(&self, id: &str) {
        let mut state = self.state();
        if let Some((number, message)) = number(id).and_then(|number| state.acknowledged.remove_entry(&number)) {
            state.waiting.insert(number, Waiting { message, out: Out::From(Duration::ZERO), deliveries: 1 });
        }
        self.changed.notify_waiters();
    }

    /// Gives messages up after so many deliveries, as far as it says.
    pub fn with_dead_letters(&self, max_delivery_attempts: u32) {
        self.state().known.max_delivery_attempts = Some(max_delivery_attempts);
    }

    /// How many messages are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.state().waiting.len()
    }

    /// How many messages are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.state().acknowledged.len()
    }

    /// How often a message was delivered, all together.
    pub fn deliveries(&self) -> u64 {
        self.state().deliveries
    }

    /// The messages that are not acknowledged, by their ids.
    pub fn waiting(&self) -> Vec<String> {
        self.state().waiting.values().map(|waiting| waiting.message.id.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It can be delivered again once its deadline is over, unless it has been acknowledged or somebody else has it.
    fn give_back(&self, number: u64, delivery: u32) {
        let from = Out::From(self.clock.monotonic() + DEADLINE);
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(&number).filter(|waiting| waiting.is_held(delivery)) {
            waiting.out = from;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// In how long a message can be delivered again that can't be now.
    fn next_deadline(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let left = |waiting: &Waiting| match waiting.out {
            Out::From(from) => from.checked_sub(now).filter(|left| !left.is_zero()),
            Out::Held => None,
        };
        self.state().waiting.values().filter_map(left).min()
    }

    /// Lets an acknowledgement count, if it may.
    fn count(&self, number: u64, delivery: u32) -> Result<(), String> {
        let mut state = self.state();
        let is_held = state.waiting.get(&number).is_some_and(|waiting| waiting.is_held(delivery));
        if state.known.exactly_once && !is_held {
            return Err("the deadline of this delivery has passed".into());
        }
        if let Some(waiting) = state.waiting.remove(&number) {
            state.acknowledged.insert(number, waiting.message);
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

#[async_trait]
impl Subscribe for MemorySubscription {
    fn name(&self) -> &str {
        &self.name
    }

    async fn look(&self) -> Result<Subscription, SubscriptionError> {
        let state = self.state();
        if state.away { Err(SubscriptionError::Unavailable("it is away".into())) } else { Ok(state.known.clone()) }
    }

    fn subscribe(&self, flow: FlowControl) -> Box<dyn Subscriber> {
        Box::new(MemorySubscriber { subscription: self.clone(), flow, held: Arc::default(), stopped: false })
    }
}

/// What a receiver has that is not acknowledged: messages and bytes.
type Held = Arc<Mutex<(u64, u64)>>;

struct MemorySubscriber {
    subscription: MemorySubscription,
    flow: FlowControl,
    held: Held,
    stopped: bool,
}

impl MemorySubscriber {
    fn try_next(&self) -> Option<Received> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 >= self.flow.messages || held.1 >= self.flow.bytes {
            return None;
        }
        let now = self.subscription.clock.monotonic();
        let mut state = self.subscription.state();
        let has_dead_letters = state.known.max_delivery_attempts.is_some();
        let is_free = |waiting: &Waiting| matches!(waiting.out, Out::From(from) if from <= now);
        let (number, waiting) = state.waiting.iter_mut().find(|(_, waiting)| is_free(waiting))?;
        waiting.out = Out::Held;
        waiting.deliveries += 1;
        let delivery_attempt = has_dead_letters.then_some(waiting.deliveries);
        let message = Message { delivery_attempt, ..waiting.message.clone() };
        let (number, delivery, bytes) = (*number, waiting.deliveries, message.data.len() as u64);
        state.deliveries += 1;
        *held = (held.0 + 1, held.1 + bytes);
        let (subscription, held) = (self.subscription.clone(), self.held.clone());
        Some(Received {
            message,
            acknowledge: Box::new(Handle { subscription, held, number, delivery, bytes, done: false }),
        })
    }
}

#[async_trait]
impl Subscriber for MemorySubscriber {
    async fn next(&mut self) -> Result<Received, SubscriptionError> {
        loop {
            let changed = self.subscription.changed.clone();
            let changed = changed.notified();
            if let Some(received) = Some(()).filter(|()| !self.stopped).and_then(|()| self.try_next()) {
                return Ok(received);
            }
            let deadline = self.subscription.next_deadline();
            tokio::select! {
                biased;
                () = changed => {}
                () = self.subscription.clock.sleep(deadline.unwrap_or_default()), if deadline.is_some() => {}
            }
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    async fn closed(&mut self) {}
}

struct Handle {
    subscription: MemorySubscription,
    held: Held,
    number: u64,
    /// Which delivery of the message this is, from 1.
    delivery: u32,
    bytes: u64,
    done: bool,
}

impl Acknowledge for Handle {
    fn acknowledge(mut self: Box<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let acks = self.subscription.state().acks;
            match acks {
                Acks::Count => {}
                Acks::Late(after) => self.subscription.clock.sleep(after).await,
                Acks::Lost => return Ok(()),
                Acks::Fail => return Err("the acknowledgement failed".into()),
                Acks::Mute => std::future::pending().await,
            }
            self.subscription.count(self.number, self.delivery)?;
            self.done = true;
            Ok(())
        }
        .boxed()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = (held.0 - 1, held.1 - self.bytes);
        drop(held);
        if self.done {
            // Who waits for room has some now.
            self.subscription.changed.notify_waiters();
        } else {
            self.subscription.give_back(self.number, self.delivery);
        }
    }
}

/// The number of the message of this id.
fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

/// An object of a spool, looked into from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolObject {
    /// Its spool.
    pub spool: String,
    /// Its number there.
    pub number: u64,
    /// Whether it ends its spool.
    pub is_seal: bool,
    /// When it was made, as its maker's clock says.
    pub written: Timestamp,
    /// The ids of its messages, in their order.
    pub messages: Vec<String>,
}

/// What stands under this key in a store of spools; what is wrong with it otherwise.
pub fn look_into(key: &str, object: &Bytes) -> Result<SpoolObject, String> {
    let (spool, number) = parse_key(key).ok_or_else(|| format!("{key} is no segment's"))?;
    let segment = decode(&spool, number, object)?;
    Ok(SpoolObject {
        spool: spool.to_string(),
        number,
        is_seal: segment.header.kind == Kind::Seal,
        written: segment.header.written,
        messages: segment.messages.into_iter().map(|message| message.id).collect(),
    })
}
