//! A reverse proxy that does to requests what no test server does by itself.

mod connection;
mod message;
mod operation;
mod rule;
mod shared;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::thread;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub use message::{Answer, Headers, Request};
pub use rule::{Fault, Matching};
pub use shared::Recorded;
use shared::{Line, Shared};

/// Stands before a server, on a port of its own, and passes everything on both ways as it comes. What the test sets up
/// befalls the requests ([`FaultProxy::on`]); all are recorded.
///
/// It runs on a thread of its own: a test that blocks its own does not stop it, nor does tokio's paused time.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    stop: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl FaultProxy {
    /// Starts one before `upstream`, an `http://host:port`.
    #[allow(clippy::unused_async, reason = "as the servers start")]
    pub async fn start(upstream: &str) -> Self {
        Self::start_blocking(upstream)
    }

    /// The same, where nothing is async.
    pub fn start_blocking(upstream: &str) -> Self {
        let address = upstream.strip_prefix("http://").expect("the proxy speaks HTTP").trim_end_matches('/');
        let shared = Arc::new(Shared::new(address.to_owned()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(&listener, &serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url, shared, stop: Some((stop, thread)) }
    }

    /// Where it listens, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A fault for one operation, named as in the service's documentation: `GetRecords`, `PutItem`, `ListObjectsV2`.
    pub fn on(&self, operation: &str) -> Matching<'_> {
        Matching::new(&self.shared, Some(operation))
    }

    /// A fault for all operations.
    pub fn on_any(&self) -> Matching<'_> {
        Matching::new(&self.shared, None)
    }

    /// Ends all faults; [`FaultProxy::up`] as well.
    pub fn heal(&self) {
        self.shared.remove_rules(|_| true);
        self.up();
    }

    /// Cuts all connections, and every new one as soon as it is made.
    pub fn down(&self) {
        self.shared.line.send_modify(|line| *line = Line { is_down: true, cuts: line.cuts + 1 });
    }

    /// The server is to be reached again.
    pub fn up(&self) {
        self.shared.line.send_modify(|line| line.is_down = false);
    }

    /// Cuts all connections there are; new ones work.
    pub fn cut_all(&self) {
        self.shared.line.send_modify(|line| line.cuts += 1);
    }

    /// All requests that came, in their order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.records(|recorded| Some(recorded.clone()))
    }

    /// The requests for one operation.
    pub fn requests_for(&self, operation: &str) -> Vec<Recorded> {
        self.shared.records(|recorded| (recorded.operation == operation).then(|| recorded.clone()))
    }

    /// How many requests for an operation came.
    pub fn count(&self, operation: &str) -> usize {
        self.shared.records(|recorded| (recorded.operation == operation).then_some(())).len()
    }

    /// Forgets the requests that came so far.
    pub fn forget(&self) {
        self.shared.forget();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultProxy({} before {})", self.url, self.shared.upstream)
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection to its end, or until everything is cut.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut line = shared.line.subscribe();
    let Line { is_down, cuts } = *line.borrow_and_update();
    let is_cut = async {
        if !is_down {
            let _ = line.wait_for(|line| line.cuts != cuts).await;
        }
    };
    connection::serve(stream, &shared, is_cut).await;
}
