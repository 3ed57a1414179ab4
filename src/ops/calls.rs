//! Calls to services, counted. One count for the whole process: clients are made in many places, and whoever pays for the
//! calls, or is throttled, pays for all of them together.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A call of one API: the service's name in IAM (`dynamodb`) and the operation's (`PutItem`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The service.
    pub service: &'static str,
    /// The operation.
    pub operation: String,
}

/// What kept a call from its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallError {
    /// The service asks for fewer calls.
    Throttled,
    /// The service could not do it: 5xx.
    Server,
    /// The service would not do it: 4xx.
    Refused,
    /// No answer in time.
    Timeout,
    /// The connection failed, or broke.
    Network,
}

impl CallError {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Network => "network",
        }
    }
}

/// What became of the calls of one API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many were sent, each attempt counted.
    pub sent: u64,
    /// How many of them the client sent again by itself.
    pub again: u64,
    /// How many failed, by what kept them from an answer. That an object or a row is not as a condition says is an answer.
    pub errors: BTreeMap<CallError, u64>,
}

static COUNTED: Mutex<BTreeMap<Call, Calls>> = Mutex::new(BTreeMap::new());

/// Counts something of a call.
pub fn count(service: &'static str, operation: &str, change: impl FnOnce(&mut Calls)) {
    let call = Call { service, operation: operation.into() };
    change(COUNTED.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default());
}

/// All that was counted since the process began.
pub fn counted() -> BTreeMap<Call, Calls> {
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
