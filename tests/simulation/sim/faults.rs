//! Which calls of the ports go wrong, and how.

use std::time::Duration;

use super::operation::{Kind, Port};
use super::random::{below, once_in, up_to};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It fails and changes nothing.
    NotDone,
    /// It takes effect, and the caller is told that it failed.
    LostAnswer,
    /// It takes effect, and takes effect once more, as where a client sends a call again by itself; the caller hears of the
    /// second time.
    Twice,
    /// The caller is told that it failed; it takes effect so much later.
    Late(Duration),
    /// It is not answered for so long; then the caller is told that it failed, though it may have taken effect.
    Mute(Duration),
    /// It takes so long.
    Slow(Duration),
}

/// The longest that a call takes where nothing is wrong.
const LATENCY: Duration = Duration::from_millis(12);
/// The longest that a call which is slow takes.
const SLOW: Duration = Duration::from_secs(8);
/// A client gives a call up after this long.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The longest that a call takes effect behind the caller's back.
const LATE: Duration = Duration::from_secs(30);
/// Of so many calls, one goes wrong all the time.
const NOISE: u64 = 150;

/// The faults that are on.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) noise: bool,
    active: Vec<Active>,
    /// How many calls went wrong.
    pub(crate) injected: u64,
}

struct Active {
    port: Port,
    /// The worker's number; all workers where none is given.
    worker: Option<usize>,
    kind: Kind,
    until: Duration,
}

impl Faults {
    pub(crate) fn add(&mut self, port: Port, worker: Option<usize>, kind: Kind, until: Duration) {
        self.active.push(Active { port, worker, kind, until });
    }

    /// All is well again.
    pub(crate) fn heal(&mut self) {
        self.active.clear();
    }

    /// What happens to a call.
    pub(crate) fn decide(&mut self, port: Port, worker: usize, now: Duration) -> Fault {
        self.active.retain(|active| active.until > now);
        let is_struck = |active: &&Active| active.port == port && active.worker.is_none_or(|number| number == worker);
        let fault = match self.active.iter().find(is_struck) {
            Some(active) => of_kind(active.kind),
            None if self.noise && once_in(NOISE) => match below(6) {
                0 | 1 => Fault::LostAnswer,
                2 => Fault::NotDone,
                3 => Fault::Twice,
                4 => Fault::Late(up_to(LATE)),
                _ => Fault::Slow(up_to(SLOW)),
            },
            None => Fault::None,
        };
        self.injected += u64::from(fault != Fault::None);
        fault
    }
}

fn of_kind(kind: Kind) -> Fault {
    let every_other = |fault| if once_in(2) { fault } else { Fault::None };
    match kind {
        Kind::Away => Fault::NotDone,
        Kind::Flaky => every_other(Fault::NotDone),
        Kind::LostAnswers => every_other(if once_in(3) { Fault::Twice } else { Fault::LostAnswer }),
        Kind::Slow => Fault::Slow(up_to(SLOW)),
        Kind::Mute => Fault::Mute(TIMEOUT),
        Kind::Late => every_other(Fault::Late(up_to(LATE))),
    }
}

/// How long a call is on its way, there or back, where nothing is wrong.
pub(crate) fn latency() -> Duration {
    up_to(LATENCY)
}
