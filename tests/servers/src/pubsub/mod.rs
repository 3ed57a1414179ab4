//! Topics and subscriptions of a Pub/Sub server, by Google's REST API.

mod ended;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{LazyLock, Once};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Kind, Server};

/// The project of all tests.
pub const PROJECT: &str = "audit-tests";
/// No answer takes this long, however loaded the machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many messages are published at a time.
const MOST_MESSAGES: usize = 500;

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Google's emulator, at `PUBSUB_EMULATOR_HOST`, behind what tells it of streams that are over: no flow control.
    Emulator,
    /// Google's in-memory fake: no order, no dead letters, no exactly-once delivery, no flow control, no seek.
    Fake,
}

/// The shared server, or the one that `PUBSUB_EMULATOR_HOST` names. What it can't show is said in each test's
/// output.
#[allow(clippy::print_stderr, reason = "shown with the test's output")]
pub async fn server() -> (Server, Stage) {
    static SAID: Once = Once::new();
    static EMULATOR: LazyLock<Option<String>> = LazyLock::new(|| {
        let host = std::env::var("PUBSUB_EMULATOR_HOST").ok()?;
        Some(ended::stand_before(&format!("http://{host}")))
    });
    if let Some(url) = EMULATOR.clone() {
        SAID.call_once(|| {
            eprintln!(
                "NOT PROVED HERE: flow control: Google's emulator sends more than it is asked for. It never hears that a \
                 stream was cancelled or cut, and is told that the client has ended it in the place of that."
            );
        });
        return (Server { url }, Stage::Emulator);
    }
    SAID.call_once(|| {
        eprintln!(
            "NOT PROVED HERE: order by key, dead letters, exactly-once delivery and flow control: this Pub/Sub server is \
             Google's in-memory fake, which has none of them. `make test-pubsub-google` proves the first three, on Google's \
             emulator."
        );
    });
    (Server::shared(Kind::Pubsub).await, Stage::Fake)
}

/// A topic and a subscription of it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The server's address.
    pub url: String,
    /// The name of both.
    pub name: String,
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// Its bytes.
    pub data: String,
    /// What is said of it.
    pub attributes: BTreeMap<String, String>,
    /// Its ordering key; empty for none.
    pub ordering_key: String,
}

impl Publish {
    /// A message without attributes or a key.
    pub fn new(data: impl Into<String>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }
}

impl Topic {
    /// Makes a topic of this name, and a subscription with these settings.
    pub fn create(url: &str, name: &str, settings: &Value) -> Self {
        let topic = Self { url: url.into(), name: name.into() };
        topic.call("PUT", &topic.topic(), &json!({}));
        let mut subscription = json!({ "topic": topic.topic(), "ackDeadlineSeconds": 10 });
        subscription.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        topic.call("PUT", &topic.subscription(), &subscription);
        topic
    }

    /// The topic's full name.
    pub fn topic(&self) -> String {
        format!("projects/{PROJECT}/topics/{}", self.name)
    }

    /// The subscription's full name.
    pub fn subscription(&self) -> String {
        format!("projects/{PROJECT}/subscriptions/{}", self.name)
    }

    /// Publishes messages; their ids.
    pub fn publish(&self, messages: &[Publish]) -> Vec<String> {
        let mut ids = Vec::new();
        for messages in messages.chunks(MOST_MESSAGES) {
            let message = |message: &Publish| {
                let mut value = json!({ "data": base64(message.data.as_bytes()), "attributes": message.attributes });
                if !message.ordering_key.is_empty() {
                    value["orderingKey"] = message.ordering_key.clone().into();
                }
                value
            };
            let messages: Vec<Value> = messages.iter().map(message).collect();
            let answer = self.call("POST", &format!("{}:publish", self.topic()), &json!({ "messages": messages }));
            let published = answer["messageIds"].as_array().into_iter().flatten().filter_map(Value::as_str);
            ids.extend(published.map(ToOwned::to_owned));
        }
        ids
    }

    /// How many messages can be had now: none are out, or acknowledged. Those that it finds are out for ten seconds.
    pub fn waiting(&self) -> usize {
        let asked = json!({ "maxMessages": 1000, "returnImmediately": true });
        let answer = self.call("POST", &format!("{}:pull", self.subscription()), &asked);
        answer["receivedMessages"].as_array().map_or(0, Vec::len)
    }

    fn call(&self, method: &str, name: &str, body: &Value) -> Value {
        let (status, answer) = call(&self.url, method, &format!("/v1/{name}"), &body.to_string());
        assert_eq!(status, 200, "{method} {name}: {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

/// One request, on a connection of its own, whose end is the answer's where none is told. Google's emulator tells it, and leaves
/// the connection open.
fn call(url: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("{url}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream);
    let mut lines = answer.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let status = lines.next().unwrap_or_else(|| panic!("{url}: no answer"));
    let length = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let length = length.last().unwrap_or(u64::MAX);
    let mut body = String::new();
    answer.take(length).read_to_string(&mut body).unwrap();
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("no status: {status}")), body)
}

/// Base64, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number =
            three.iter().fold(0u32, |number, byte| (number << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[tokio::test]
    async fn what_is_published_can_be_pulled() {
        let (server, _) = server().await;
        let topic = Topic::create(&server.url, &crate::aws::unique_name("topic"), &json!({}));
        let attributes = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let second = Publish { attributes, ordering_key: "key".into(), ..Publish::new("two") };
        assert_eq!(topic.publish(&[Publish::new("one"), second]).len(), 2);
        let mut found = 0;
        while found < 2 {
            found += topic.waiting();
        }
        assert_eq!(found, 2);
    }
}
