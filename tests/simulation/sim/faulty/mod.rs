//! The ports as a worker has them: the twins, behind everything that can go wrong on the way to them and back.

mod archive;
mod claims;
mod leases;
mod source;
mod spools;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use auditlake::ops::clock::Clock as _;
use futures_util::FutureExt as _;

pub(crate) use archive::all_objects;
pub(crate) use source::{LISTED_WITHIN, stream};
pub(crate) use spools::{Spools, Watched};

use super::faults::{Fault, latency};
use super::operation::Port;
use super::random::{once_in, up_to};
use super::seat::Seat;
use super::shared::Shared;

/// A port of one worker.
pub(crate) struct Faulty<T> {
    twin: Arc<T>,
    seat: Arc<Seat>,
    shared: Arc<Shared>,
}

/// The longest that what a dead worker has sent is still under way.
const BURIED: Duration = Duration::from_secs(5);

impl<T> Faulty<T> {
    pub(crate) fn new(twin: &Arc<T>, seat: &Arc<Seat>, shared: &Arc<Shared>) -> Self {
        Self { twin: twin.clone(), seat: seat.clone(), shared: shared.clone() }
    }

    fn fault(&self, port: Port) -> Fault {
        self.shared.state().faults.decide(port, self.seat.number, self.seat.clock.monotonic())
    }

    fn log(&self, line: impl FnOnce() -> String) {
        self.shared.log.add(|| format!("{:?} {} {}", self.seat.clock.monotonic(), self.seat.worker, line()));
    }

    /// A call: there, its effect, and back. `what` names it.
    async fn call<R, E>(
        &self,
        port: Port,
        what: String,
        effect: impl Fn() -> Result<R, E> + Send + Sync + 'static,
        unavailable: impl Fn(&str) -> E,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: Send + std::fmt::Display + 'static,
    {
        let fault = self.fault(port);
        let effect = Arc::new(effect);
        let clock = &self.seat.clock;
        if self.seat.reach(port, false) && once_in(3) {
            // It is on the wire, and arrives though nobody waits for the answer any more.
            self.later(&what, up_to(BURIED), effect.clone());
        }
        clock.sleep(latency()).await;
        if let Fault::Slow(long) = fault {
            clock.sleep(long).await;
        }
        self.seat.awake().await;
        let failed = |reason: &str| {
            self.log(|| format!("{what}: {reason}"));
            Err(unavailable(reason))
        };
        match fault {
            Fault::NotDone => return failed("simulated: not done"),
            Fault::Late(late) => {
                self.later(&what, late, effect);
                return failed("simulated: not done yet");
            }
            Fault::Mute(long) => {
                if once_in(2) {
                    let _ = self.done(&what, &*effect);
                }
                clock.sleep(long).await;
                self.seat.awake().await;
                return failed("simulated: no answer");
            }
            _ => {}
        }
        let mut result = self.done(&what, &*effect);
        if fault == Fault::Twice {
            result = self.done(&what, &*effect);
        }
        self.seat.reach(port, true);
        self.seat.awake().await;
        clock.sleep(latency()).await;
        self.seat.awake().await;
        if fault == Fault::LostAnswer { failed("simulated: the answer was lost") } else { result }
    }

    fn done<R, E: std::fmt::Display>(&self, what: &str, effect: &impl Fn() -> Result<R, E>) -> Result<R, E> {
        let result = effect();
        self.log(|| format!("{what}: {}", result.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned())));
        result
    }

    /// Lets a call take effect when nobody waits for it any more.
    #[allow(clippy::disallowed_methods)] // what is on the wire belongs to no worker
    fn later<R, E>(&self, what: &str, late: Duration, effect: Arc<impl Fn() -> Result<R, E> + Send + Sync + 'static>)
    where
        R: Send + 'static,
        E: Send + std::fmt::Display + 'static,
    {
        let late_call = Self::new(&self.twin, &self.seat, &self.shared).into_untyped();
        let what = format!("late {what}");
        let sent_to = self.shared.state().table;
        self.shared.state().in_flight += 1;
        tokio::spawn(async move {
            let (clock, shared) = (late_call.seat.clock, late_call.shared.clone());
            clock.sleep(late).await;
            if shared.state().arrives(sent_to, clock.monotonic()) {
                drop(late_call.done(&what, &*effect));
            }
            shared.state().in_flight -= 1;
        });
    }

    fn into_untyped(self) -> Faulty<()> {
        Faulty { twin: Arc::new(()), seat: self.seat, shared: self.shared }
    }
}

/// The twins never wait for anything.
pub(crate) fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("a twin answers at once")
}
