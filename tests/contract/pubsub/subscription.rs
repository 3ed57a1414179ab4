//! The contract of [`Subscribe`]: what receiving and acknowledging promise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auditlake::ops::clock::{Clock as _, PausedClock};
use auditlake::source::pubsub::memory::MemorySubscription;
use auditlake::source::pubsub::{FlowControl, PubsubSubscription, Received, Subscribe, Subscriber, SubscriptionError};
use auditlake_test_servers::aws::unique_name;
use auditlake_test_servers::pubsub::{PROJECT, Publish, Stage, Topic, server};
use serde_json::json;

const WIDE: FlowControl = FlowControl { messages: 10_000, bytes: 10 << 20 };

/// A subscription and the way to fill it.
#[async_trait]
pub(crate) trait Fixture: Send + Sync {
    fn subscription(&self) -> &dyn Subscribe;
    /// Publishes messages.
    async fn publish(&self, messages: &[String]);
    /// Lets time pass.
    async fn rest(&self, duration: Duration);
    /// Whether no more messages are handed out than flow control says. `false`: THIS SERVER KNOWS NO FLOW CONTROL, so
    /// nothing is proved of it.
    fn controls_flow(&self) -> bool;
}

struct Memory {
    clock: Arc<PausedClock>,
    subscription: MemorySubscription,
}

impl Memory {
    fn new() -> Self {
        let clock = Arc::new(PausedClock::start("2026-11-21T09:31:00Z".parse().unwrap()));
        Self { subscription: MemorySubscription::new(clock.clone()), clock }
    }
}

#[async_trait]
impl Fixture for Memory {
    fn subscription(&self) -> &dyn Subscribe {
        &self.subscription
    }

    async fn publish(&self, messages: &[String]) {
        for message in messages {
            self.subscription.publish(message.clone());
        }
    }

    async fn rest(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    fn controls_flow(&self) -> bool {
        true
    }
}

/// All at once, each on a subscription of its own: they wait for deadlines.
pub(crate) async fn keeps_the_contract<F: Fixture>(new: impl AsyncFn() -> F) {
    tokio::join!(
        Box::pin(async { messages_come_with_all_that_is_known_of_them(&new().await).await }),
        Box::pin(async { what_is_acknowledged_does_not_come_again(&new().await).await }),
        Box::pin(async { what_is_dropped_comes_again(&new().await).await }),
        Box::pin(async { who_was_stopped_can_still_acknowledge_and_gives_the_rest_back(&new().await).await }),
        Box::pin(async { no_more_is_handed_out_than_is_asked_for(&new().await).await }),
        Box::pin(async { a_cancelled_call_loses_nothing(&new().await).await }),
        Box::pin(async { the_subscription_can_be_looked_at(&new().await).await }),
    );
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("message {number}")).collect()
}

fn text(received: &Received) -> String {
    String::from_utf8(received.message.data.to_vec()).unwrap()
}

/// The next messages, for as long as they come within a while.
async fn receive(fixture: &dyn Fixture, subscriber: &mut dyn Subscriber, within: Duration) -> Vec<Received> {
    let mut received = Vec::new();
    loop {
        tokio::select! {
            biased;
            next = subscriber.next() => received.push(next.unwrap()),
            () = fixture.rest(within) => return received,
        }
    }
}

fn sorted(received: &[Received]) -> BTreeSet<String> {
    received.iter().map(text).collect()
}

async fn messages_come_with_all_that_is_known_of_them(fixture: &dyn Fixture) {
    fixture.publish(&texts(0..30)).await;
    let mut subscriber = fixture.subscription().subscribe(WIDE);
    let received = receive(fixture, subscriber.as_mut(), Duration::from_secs(2)).await;
    assert_eq!(sorted(&received), texts(0..30).into_iter().collect());
    let ids: BTreeSet<&str> = received.iter().map(|received| received.message.id.as_str()).collect();
    assert_eq!(ids.len(), 30);
    assert!(received.iter().all(|received| received.message.arrival.as_second() > 1_700_000_000));
}

async fn what_is_acknowledged_does_not_come_again(fixture: &dyn Fixture) {
    fixture.publish(&texts(0..30)).await;
    let mut subscriber = fixture.subscription().subscribe(WIDE);
    for received in receive(fixture, subscriber.as_mut(), Duration::from_secs(2)).await {
        received.acknowledge.acknowledge().await.unwrap();
    }
    subscriber.stop();
    subscriber.closed().await;
    drop(subscriber);
    let mut subscriber = fixture.subscription().subscribe(WIDE);
    let again = receive(fixture, subscriber.as_mut(), Duration::from_secs(15)).await;
    assert_eq!(sorted(&again), BTreeSet::new());
}

async fn what_is_dropped_comes_again(fixture: &dyn Fixture) {
    fixture.publish(&texts(0..5)).await;
    let mut subscriber = fixture.subscription().subscribe(WIDE);
    let first = receive(fixture, subscriber.as_mut(), Duration::from_secs(2)).await;
    let ids: BTreeSet<String> = first.iter().map(|received| received.message.id.clone()).collect();
    drop(first);
    let again = receive(fixture, subscriber.as_mut(), Duration::from_secs(15)).await;
    assert_eq!(again.iter().map(|received| received.message.id.clone()).collect::<BTreeSet<_>>(), ids);
}

async fn who_was_stopped_can_still_acknowledge_and_gives_the_rest_back(fixture: &dyn Fixture) {
    fixture.publish(&texts(0..20)).await;
    let mut first = fixture.subscription().subscribe(WIDE);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(first.next().await.unwrap());
    }
    first.stop();
    let had = sorted(&held);
    for received in held {
        received.acknowledge.acknowledge().await.unwrap();
    }
    first.closed().await;
    drop(first);
    let mut second = fixture.subscription().subscribe(WIDE);
    let rest = sorted(&receive(fixture, second.as_mut(), Duration::from_secs(15)).await);
    assert_eq!(rest, texts(0..20).into_iter().filter(|text| !had.contains(text)).collect());
}

async fn no_more_is_handed_out_than_is_asked_for(fixture: &dyn Fixture) {
    if !fixture.controls_flow() {
        return;
    }
    fixture.publish(&texts(0..20)).await;
    let mut subscriber = fixture.subscription().subscribe(FlowControl { messages: 3, ..WIDE });
    let mut received = receive(fixture, subscriber.as_mut(), Duration::from_secs(2)).await;
    assert_eq!(received.len(), 3);
    received.pop().unwrap().acknowledge.acknowledge().await.unwrap();
    assert_eq!(receive(fixture, subscriber.as_mut(), Duration::from_secs(2)).await.len(), 1);
}

async fn a_cancelled_call_loses_nothing(fixture: &dyn Fixture) {
    fixture.publish(&texts(0..50)).await;
    let mut subscriber = fixture.subscription().subscribe(WIDE);
    let mut received = Vec::new();
    let mut patience = 2000;
    while received.len() < 50 && patience > 0 {
        tokio::select! {
            biased;
            next = subscriber.next() => received.push(next.unwrap()),
            () = fixture.rest(Duration::from_millis(5)) => patience -= 1,
        }
    }
    assert_eq!(sorted(&received), texts(0..50).into_iter().collect());
}

async fn the_subscription_can_be_looked_at(fixture: &dyn Fixture) {
    assert!(fixture.subscription().name().starts_with("projects/"));
    fixture.subscription().look().await.unwrap();
}

/// The real client, on a real server.
struct Google {
    topic: Topic,
    stage: Stage,
    subscription: PubsubSubscription,
}

impl Google {
    async fn new(settings: &serde_json::Value) -> Self {
        let (server, stage) = server().await;
        let name = unique_name("audit");
        let (url, settings) = (server.url.clone(), settings.clone());
        let topic = blocking(move || Topic::create(&url, &name, &settings)).await;
        let subscription = PubsubSubscription::open(PROJECT, &topic.name, Some(&server.url)).await.unwrap();
        Self { topic, stage, subscription }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[async_trait]
impl Fixture for Google {
    fn subscription(&self) -> &dyn Subscribe {
        &self.subscription
    }

    async fn publish(&self, messages: &[String]) {
        let messages: Vec<Publish> = messages.iter().map(Publish::new).collect();
        let topic = self.topic.clone();
        blocking(move || topic.publish(&messages)).await;
    }

    async fn rest(&self, duration: Duration) {
        crate::source::rest(duration).await;
    }

    fn controls_flow(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_client_keeps_the_contract_of_a_subscription() {
    keeps_the_contract(async || Google::new(&json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_there_is_refused_by_its_name() {
    let (server, _) = server().await;
    let subscription = PubsubSubscription::open(PROJECT, "nowhere", Some(&server.url)).await.unwrap();
    let error = subscription.look().await.unwrap_err();
    let words = error.to_string();
    assert!(matches!(error, SubscriptionError::Refused(_)), "{words}");
    assert!(words.starts_with("projects/audit-tests/subscriptions/nowhere: "), "{words}");
    assert!(words.contains("make it, or correct source.pubsub.project"), "{words}");
    // Whoever receives all the same is told, too.
    let error = subscription.subscribe(WIDE).next().await.map(drop).unwrap_err();
    assert!(error.to_string().contains("make it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_told_within_its_time() {
    let subscription = PubsubSubscription::open(PROJECT, "s", Some("http://127.0.0.1:1")).await.unwrap();
    let error = subscription.look().await.unwrap_err();
    assert!(matches!(error, SubscriptionError::Unavailable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscription_promises_is_known() {
    let plain = Google::new(&json!({})).await;
    let known = plain.subscription.look().await.unwrap();
    assert_eq!((known.exactly_once, known.max_delivery_attempts), (false, None));
    if plain.stage == Stage::Fake {
        return;
    }
    let other = Google::new(&json!({})).await;
    let dead_letters = json!({ "deadLetterTopic": other.topic.topic(), "maxDeliveryAttempts": 7 });
    let settings = json!({ "enableExactlyOnceDelivery": true, "deadLetterPolicy": dead_letters });
    let known = Google::new(&settings).await.subscription.look().await.unwrap();
    assert_eq!((known.exactly_once, known.max_delivery_attempts), (true, Some(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_client_keeps_the_contract_with_exactly_once_delivery() {
    if server().await.1 == Stage::Emulator {
        keeps_the_contract(async || Google::new(&json!({ "enableExactlyOnceDelivery": true })).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_key_come_in_their_order() {
    let google = Google::new(&json!({ "enableMessageOrdering": true })).await;
    if google.stage == Stage::Fake {
        return;
    }
    let keyed = |data: String| Publish { ordering_key: "key".to_owned(), ..Publish::new(data) };
    let (topic, messages) = (google.topic.clone(), texts(0..50).into_iter().map(keyed).collect::<Vec<_>>());
    blocking(move || topic.publish(&messages)).await;
    let mut subscriber = google.subscription.subscribe(WIDE);
    let received = receive(&google, subscriber.as_mut(), Duration::from_secs(5)).await;
    assert_eq!(received.iter().map(text).collect::<Vec<_>>(), texts(0..50));
    assert!(received.iter().all(|received| received.message.ordering_key == "key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_dropped_again_and_again_counts_it_and_goes_to_the_dead_letters() {
    let dead = Google::new(&json!({})).await;
    if dead.stage == Stage::Fake {
        return;
    }
    let policy = json!({ "deadLetterTopic": dead.topic.topic(), "maxDeliveryAttempts": 5 });
    let google = Google::new(&json!({ "deadLetterPolicy": policy })).await;
    google.publish(&texts(0..1)).await;
    let mut subscriber = google.subscription.subscribe(WIDE);
    let mut buried = dead.subscription.subscribe(WIDE);
    for attempt in 1..=5 {
        let received = subscriber.next().await.unwrap();
        assert_eq!((text(&received), received.message.delivery_attempt), (texts(0..1).remove(0), Some(attempt)));
    }
    assert_eq!(text(&buried.next().await.unwrap()), texts(0..1)[0]);
}

/// What Google says of subscriptions; the servers of the tests have none of it.
#[tokio::test(start_paused = true)]
async fn the_twin_refuses_late_acknowledgements_where_it_promises_exactly_once_delivery() {
    for exactly_once in [false, true] {
        let twin = Memory::new();
        if exactly_once {
            twin.subscription.with_exactly_once();
        }
        twin.publish(&texts(0..1)).await;
        let (mut first, mut second) = (twin.subscription.subscribe(WIDE), twin.subscription.subscribe(WIDE));
        let late = first.next().await.unwrap();
        twin.subscription.lapse(&late.message.id);
        let again = second.next().await.unwrap();
        assert_eq!(again.message.id, late.message.id);
        assert_eq!(late.acknowledge.acknowledge().await.is_err(), exactly_once);
        assert_eq!(twin.subscription.unacknowledged(), usize::from(exactly_once));
        again.acknowledge.acknowledge().await.unwrap();
        assert_eq!(twin.subscription.unacknowledged(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_twin_keeps_the_contract_of_a_subscription() {
    keeps_the_contract(async || Memory::new()).await;
}
