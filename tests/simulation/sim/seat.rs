//! A worker's process, seen from outside: it runs, stands still, or is gone; and its clocks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::lease::WorkerId;
use auditlake::ops::clock::{Clock, PausedClock};
use auditlake::source::ShardId;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::operation::{Moment, Port};
use super::random::below;

/// What a worker's ports and its clock ask before they do anything.
pub(crate) struct Seat {
    pub(crate) worker: WorkerId,
    /// The workers of one number come one after the other.
    pub(crate) number: usize,
    pub(crate) clock: PausedClock,
    /// How far its wall clock is off, in seconds, and by how much more it is off at times.
    skew: AtomicI64,
    unsteady: AtomicU8,
    state: Mutex<State>,
    woken: Notify,
    /// The shards that it was told of: a listing that is behind does not take them away again.
    pub(crate) known: Mutex<BTreeSet<ShardId>>,
    /// The messages that it was given, in their order.
    given: Mutex<Vec<String>>,
}

struct State {
    life: Life,
    /// Since when it stands still, if it does.
    still_since: Duration,
    armed: Option<Armed>,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Awake,
    /// It stands still until this time of the simulation.
    AsleepUntil(Duration),
    Dead,
}

/// What strikes a worker at one of its calls.
#[derive(Clone, Copy, Debug)]
struct Armed {
    left: u8,
    of: Option<Port>,
    behind: bool,
    strike: Strike,
}

/// What strikes a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    Crash,
    Freeze(Duration),
}

impl Seat {
    pub(crate) fn new(worker: WorkerId, number: usize, clock: PausedClock) -> Self {
        let state = Mutex::new(State { life: Life::Awake, still_since: Duration::ZERO, armed: None });
        Self {
            worker,
            number,
            clock,
            skew: AtomicI64::new(0),
            unsteady: AtomicU8::new(0),
            state,
            woken: Notify::new(),
            known: Mutex::default(),
            given: Mutex::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn life(&self) -> Life {
        self.state().life
    }

    /// Strikes now, or arms the strike.
    pub(crate) fn strike(&self, strike: Strike, at: Moment) {
        match at {
            Moment::Now => self.hit(strike),
            Moment::Call { number, of, behind } => {
                self.state().armed = Some(Armed { left: number, of, behind, strike });
            }
        }
    }

    fn hit(&self, strike: Strike) {
        let mut state = self.state();
        state.armed = None;
        state.still_since = self.clock.monotonic();
        state.life = match (state.life, strike) {
            (Life::Dead, _) | (_, Strike::Crash) => Life::Dead,
            (_, Strike::Freeze(duration)) => Life::AsleepUntil(self.clock.monotonic() + duration),
        };
    }

    /// Nothing strikes any more.
    pub(crate) fn disarm(&self) {
        self.state().armed = None;
    }

    /// It goes on, if it stood still and its time has come, or `at_once`.
    pub(crate) fn wake(&self, at_once: bool) {
        let mut state = self.state();
        if let Life::AsleepUntil(until) = state.life
            && (at_once || until <= self.clock.monotonic())
        {
            state.life = Life::Awake;
            drop(state);
            self.woken.notify_waiters();
        }
    }

    /// A call is reached, or is behind its effect; whether it was struck dead right there.
    pub(crate) fn reach(&self, port: Port, behind: bool) -> bool {
        let mut state = self.state();
        let Some(armed) = &mut state.armed else { return false };
        if armed.of.is_some_and(|of| of != port) || armed.behind != behind {
            return false;
        }
        armed.left = armed.left.saturating_sub(1);
        let (left, strike) = (armed.left, armed.strike);
        drop(state);
        if left == 0 {
            self.hit(strike);
        }
        left == 0 && strike == Strike::Crash
    }

    /// Waits for as long as the worker stands still; for ever if it is gone.
    pub(crate) async fn awake(&self) {
        loop {
            let woken = self.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            match self.life() {
                Life::Awake => return,
                Life::AsleepUntil(_) => woken.await,
                Life::Dead => std::future::pending().await,
            }
        }
    }

    /// For how long it has stood still, if it does.
    pub(crate) fn still_for(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.state().still_since)
    }

    /// It is given a message.
    pub(crate) fn holds(&self, message: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_owned());
    }

    /// The message that it was given last.
    pub(crate) fn last_given(&self) -> Option<String> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// All that it was given since the last time.
    pub(crate) fn let_go(&self) -> Vec<String> {
        std::mem::take(&mut self.given.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its wall clock jumps.
    pub(crate) fn skew(&self, by: i16) {
        self.skew.fetch_add(i64::from(by), Ordering::Relaxed);
    }

    /// Its wall clock jumps to and fro.
    pub(crate) fn unsettle(&self, by: u8) {
        self.unsteady.store(by, Ordering::Relaxed);
    }

    /// Its wall clock is right again.
    pub(crate) fn set_right(&self) {
        self.skew.store(0, Ordering::Relaxed);
        self.unsteady.store(0, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for Seat {
    fn now(&self) -> Timestamp {
        let (skew, unsteady) = (self.skew.load(Ordering::Relaxed), self.unsteady.load(Ordering::Relaxed));
        let reach = i64::from(unsteady);
        let more = if reach == 0 { 0 } else { below(2 * u64::from(unsteady) + 1).cast_signed() - reach };
        self.clock.now() + SignedDuration::from_secs(skew + more)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
        self.awake().await;
    }
}
