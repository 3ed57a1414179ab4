//! The subscription.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::ops::clock::Clock as _;
use auditlake::source::pubsub::memory::MemorySubscription;
use auditlake::source::pubsub::{
    Acknowledge, FlowControl, Received, Subscribe, Subscriber, Subscription, SubscriptionError,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Faulty, at_once};
use crate::sim::faults::{Fault, latency};
use crate::sim::operation::Port;

fn unavailable(reason: &str) -> SubscriptionError {
    SubscriptionError::Unavailable(reason.to_owned())
}

#[async_trait]
impl Subscribe for Faulty<MemorySubscription> {
    fn name(&self) -> &str {
        self.twin.name()
    }

    async fn look(&self) -> Result<Subscription, SubscriptionError> {
        let twin = self.twin.clone();
        self.call(Port::Source, "look at the subscription".to_owned(), move || at_once(twin.look()), unavailable).await
    }

    fn subscribe(&self, flow: FlowControl) -> Box<dyn Subscriber> {
        self.log(|| "subscribes".to_owned());
        let port = Self::new(&self.twin, &self.seat, &self.shared);
        Box::new(FaultySubscriber { port, stream: self.twin.subscribe(flow), coming: None, come: None })
    }
}

struct FaultySubscriber {
    port: Faulty<MemorySubscription>,
    stream: Box<dyn Subscriber>,
    /// What happens to the next message, and when it can come at the earliest: decided once, however often the call is
    /// cancelled.
    coming: Option<(Fault, Duration)>,
    /// A message that has come and was not given yet.
    come: Option<Received>,
}

#[async_trait]
impl Subscriber for FaultySubscriber {
    /// All that is waited for comes before a message is taken, or leaves it here: a call that is cancelled loses nothing.
    async fn next(&mut self) -> Result<Received, SubscriptionError> {
        let seat = self.port.seat.clone();
        if self.come.is_none() {
            let now = seat.clock.monotonic();
            let (fault, from) = *self.coming.get_or_insert_with(|| {
                let fault = self.port.fault(Port::Source);
                let more = if let Fault::Slow(long) | Fault::Mute(long) = fault { long } else { Duration::ZERO };
                (fault, now + latency() + more)
            });
            seat.clock.sleep(from.saturating_sub(now)).await;
            seat.awake().await;
            if matches!(fault, Fault::NotDone | Fault::LostAnswer | Fault::Late(_) | Fault::Mute(_)) {
                self.coming = None;
                self.port.log(|| "simulated: the stream broke".to_owned());
                return Err(unavailable("simulated: the stream broke"));
            }
            let received = self.stream.next().await?;
            seat.holds(&received.message.id);
            self.come = Some(received);
        }
        seat.reach(Port::Source, false);
        seat.awake().await;
        self.coming = None;
        let Received { message, acknowledge } = self.come.take().expect("it has come");
        self.port.log(|| format!("receives {}", message.id));
        seat.reach(Port::Source, true);
        let port = Faulty::new(&self.port.twin, &seat, &self.port.shared);
        let handle = Arc::new(Mutex::new(Some(acknowledge)));
        Ok(Received { acknowledge: Box::new(FaultyHandle { port, id: message.id.clone(), handle }), message })
    }

    fn stop(&mut self) {
        // What was not handed out goes back.
        self.come = None;
        self.stream.stop();
    }

    async fn closed(&mut self) {
        self.stream.closed().await;
    }
}

/// The right to acknowledge a message: taken out when the acknowledgement arrives.
struct FaultyHandle {
    port: Faulty<MemorySubscription>,
    id: String,
    handle: Arc<Mutex<Option<Box<dyn Acknowledge>>>>,
}

impl Acknowledge for FaultyHandle {
    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let Self { port, id, handle } = *self;
            let is_answered = at_once(port.twin.look()).is_ok_and(|known| known.exactly_once);
            let (shared, what) = (port.shared.clone(), format!("acknowledge {id}"));
            let effect = move || {
                // One that arrives twice says nothing new.
                let Some(handle) = handle.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
                at_once(handle.acknowledge())?;
                shared.state().acknowledged(&id);
                Ok(())
            };
            let answer = port.call(Port::Source, what, effect, ToOwned::to_owned).await;
            // Of an ordinary subscription nobody hears what became of it.
            if is_answered { answer } else { Ok(()) }
        }
        .boxed()
    }
}
