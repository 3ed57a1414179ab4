//! Which requests a fault befalls, and what it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::message::{Answer, Request};
use super::shared::Shared;

/// What befalls a request.
#[derive(Clone)]
pub(super) enum Action {
    Answer(Answer),
    Cut,
    LoseAnswer,
    CutAnswerAfter(u64),
    Delay(Duration),
    DelayAnswer(Duration),
    Hang,
    EditRequest(Arc<dyn Fn(&mut Request) + Send + Sync>),
    EditAnswer(Arc<dyn Fn(&mut Answer) + Send + Sync>),
}

/// Which requests.
#[derive(Clone, Debug, Default)]
struct Pattern {
    operation: Option<String>,
    target: Option<String>,
    body: Option<Vec<u8>>,
}

impl Pattern {
    fn fits_head(&self, operation: &str, target: &str) -> bool {
        self.operation.as_ref().is_none_or(|wanted| wanted == operation)
            && self.target.as_ref().is_none_or(|part| target.contains(part.as_str()))
    }

    fn fits_body(&self, body: Option<&[u8]>) -> bool {
        let has =
            |part: &Vec<u8>| body.is_some_and(|body| body.windows(part.len().max(1)).any(|window| window == part));
        self.body.as_ref().is_none_or(has)
    }
}

/// A fault that is set up.
pub(super) struct Rule {
    pub(super) id: u64,
    pattern: Pattern,
    skip: u64,
    every: u64,
    most: Option<u64>,
    seen: u64,
    hits: Arc<AtomicU64>,
    action: Action,
}

impl Rule {
    fn is_spent(&self) -> bool {
        self.most.is_some_and(|most| self.hits.load(Ordering::Relaxed) >= most)
    }

    /// Whether the body must be known before it is clear what to do.
    pub(super) fn wants_body(&self, operation: &str, target: &str) -> bool {
        let edits = matches!(self.action, Action::EditRequest(_));
        !self.is_spent() && self.pattern.fits_head(operation, target) && (edits || self.pattern.body.is_some())
    }

    /// Counts a request that fits; what befalls it, if its turn has come.
    pub(super) fn strike(&mut self, operation: &str, target: &str, body: Option<&[u8]>) -> Option<Action> {
        if self.is_spent() || !self.pattern.fits_head(operation, target) || !self.pattern.fits_body(body) {
            return None;
        }
        self.seen += 1;
        let is_hit = self.seen > self.skip && (self.seen - self.skip).is_multiple_of(self.every);
        is_hit.then(|| {
            self.hits.fetch_add(1, Ordering::Relaxed);
            self.action.clone()
        })
    }
}

/// Says which requests a fault befalls: all that fit until it is healed, unless told otherwise. End it with what befalls
/// them.
///
/// Where several faults fit, the one that was set up first, and whose turn it is, strikes; the others count the request
/// if they were set up before that one.
#[must_use = "nothing happens before it is said what befalls them"]
pub struct Matching<'a> {
    shared: &'a Arc<Shared>,
    pattern: Pattern,
    skip: u64,
    every: u64,
    most: Option<u64>,
}

impl<'a> Matching<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, operation: Option<&str>) -> Self {
        let pattern = Pattern { operation: operation.map(str::to_owned), ..Pattern::default() };
        Self { shared, pattern, skip: 0, every: 1, most: None }
    }

    /// Only where path and query, as they are sent, have this part.
    pub fn target_has(mut self, part: &str) -> Self {
        self.pattern.target = Some(part.to_owned());
        self
    }

    /// Only where the body has this part. Such bodies are read whole before they are forwarded.
    pub fn body_has(mut self, part: impl AsRef<[u8]>) -> Self {
        self.pattern.body = Some(part.as_ref().to_vec());
        self
    }

    /// The first of those that fit pass.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// So many of those that fit, and no more.
    pub fn next(mut self, requests: u64) -> Self {
        self.most = Some(requests);
        self
    }

    /// Every nth of those that fit.
    pub fn every(mut self, nth: u64) -> Self {
        self.every = nth.max(1);
        self
    }

    fn set_up(self, action: Action) -> Fault {
        let hits = Arc::new(AtomicU64::new(0));
        let (pattern, skip, every, most) = (self.pattern, self.skip, self.every, self.most);
        let id = self.shared.add_rule(|id| Rule {
            id,
            pattern,
            skip,
            every,
            most,
            seen: 0,
            hits: Arc::clone(&hits),
            action,
        });
        Fault { id, hits, shared: Arc::clone(self.shared) }
    }

    /// The proxy answers; the server never hears of it.
    pub fn answer(self, answer: Answer) -> Fault {
        self.set_up(Action::Answer(answer))
    }

    /// The connection is reset; the server never hears of it.
    pub fn cut(self) -> Fault {
        self.set_up(Action::Cut)
    }

    /// The server does it and answers; the connection is reset before any of the answer is passed on.
    pub fn lose_answer(self) -> Fault {
        self.set_up(Action::LoseAnswer)
    }

    /// The connection ends after so many bytes of the answer's body.
    pub fn cut_answer_after(self, bytes: u64) -> Fault {
        self.set_up(Action::CutAnswerAfter(bytes))
    }

    /// It reaches the server so much later; also where the client has given up meanwhile.
    pub fn delay(self, by: Duration) -> Fault {
        self.set_up(Action::Delay(by))
    }

    /// The server does it at once; its answer arrives so much later.
    pub fn delay_answer(self, by: Duration) -> Fault {
        self.set_up(Action::DelayAnswer(by))
    }

    /// Nothing happens until the fault is healed. Then it is forwarded, unless the client has given up.
    pub fn hang(self) -> Fault {
        self.set_up(Action::Hang)
    }

    /// The server gets it changed.
    pub fn edit_request(self, edit: impl Fn(&mut Request) + Send + Sync + 'static) -> Fault {
        self.set_up(Action::EditRequest(Arc::new(edit)))
    }

    /// The client gets the answer changed. Such an answer is read whole first.
    pub fn edit_answer(self, edit: impl Fn(&mut Answer) + Send + Sync + 'static) -> Fault {
        self.set_up(Action::EditAnswer(Arc::new(edit)))
    }
}

/// A fault that was set up. It stays when this is dropped.
#[derive(Clone)]
pub struct Fault {
    id: u64,
    hits: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Fault {
    /// It befalls nobody any more; what hangs by it goes on.
    pub fn heal(&self) {
        self.shared.remove_rules(|rule| rule.id == self.id);
    }

    /// How many requests it befell.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({}, {} hits)", self.id, self.hits())
    }
}
