//! Accepting connections: one loop for both listeners, bounded, with a graceful end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service as _;

use super::connection::{Io, Opening, RecentAnswers, WatchedStream};
use super::handshake;
use super::in_flight::InFlight;
use super::refusal::Refusal;
use super::retries::Retries;
use super::tls::Tls;
use crate::signal::Protocol;
use crate::telemetry::{Client, Counters, Reason};

/// HTTP/2 flow control: what a peer may send before we have taken it. Large enough for one whole batch in flight.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Request headers over both protocols.
const HEADER_BYTES_MAX: u32 = 64 << 10;

/// A peer that says nothing at first, that sends half a request head, or that is silent between two requests over
/// HTTP/1.1 is given up after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 pings find peers that are gone without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams that the peer has reset and that are not taken note of yet. One more ends the connection: opening and
/// resetting streams as fast as possible (CVE-2023-44487) would make us work for nothing.
const PENDING_RESETS_MAX: usize = 20;

/// Streams that we have reset for the peer's errors. One more ends the connection.
const ERROR_RESETS_MAX: usize = 1024;

/// How long a stop waits for connections on which nothing is under way: HTTP/2 ends by a farewell that the peer answers, and
/// a peer that is asleep, or gone without a word, never does.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// The pause after an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections of all listeners share.
#[derive(Clone)]
pub struct ConnectionLimits {
    /// One permit a connection.
    pub permits: Arc<Semaphore>,
    /// Open connections.
    pub open: Arc<AtomicUsize>,
    /// HTTP/2 streams on one connection.
    pub max_concurrent_streams: u32,
}

/// What a listener serves, and who is told of what went wrong.
#[derive(Clone)]
pub struct Served {
    /// Answers requests.
    pub router: Router,
    /// What the listener is for.
    pub protocol: Protocol,
    /// There when the listener speaks TLS.
    pub secured: Option<Secured>,
    /// Told of answers that were lost.
    pub retries: Arc<Retries>,
    /// Counts connections that came to nothing.
    pub counters: Arc<Counters>,
}

/// TLS of a listener.
#[derive(Clone)]
pub struct Secured {
    /// Certificate and key.
    pub tls: Arc<Tls>,
    /// Answers requests that come without TLS.
    pub plain: Router,
}

/// Counts one connection as long as it lives.
struct Counted {
    open: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    fn new(open: &Arc<AtomicUsize>, permit: OwnedSemaphorePermit) -> Counted {
        open.fetch_add(1, Ordering::Relaxed);
        Counted {
            open: Arc::clone(open),
            _permit: permit,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves `listener` until `stop` turns true; then lets requests in flight end. Connections without any have a moment.
///
/// A full house waits in the system's backlog: accepting stops until a connection closes. The permit is taken after
/// the connection, so that a listener that nobody uses keeps none from the other.
///
/// Requests whose answer is lost with their connection are remembered. A TLS handshake keeps nobody from being accepted.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    limits: ConnectionLimits,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let in_flight = InFlight::default();
    let builder = builder(&limits);
    loop {
        let next = async {
            let accepted = listener.accept().await;
            (accepted, Arc::clone(&limits.permits).acquire_owned().await)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok(permit) = permit else { break };
        match accepted {
            Ok((stream, peer)) => {
                let counted = Counted::new(&limits.open, permit);
                let connection = Connection {
                    peer,
                    served: served.clone(),
                    builder: builder.clone(),
                    watcher: graceful.watcher(),
                    in_flight: in_flight.clone(),
                    stop: stop.clone(),
                };
                tokio::spawn(connection.run(stream, counted));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = in_flight.none_for(FAREWELL_MAX) => {
            tracing::debug!("connections whose peers do not answer were left");
        }
    }
}

fn builder(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

/// A connection in a task of its own.
struct Connection {
    peer: SocketAddr,
    served: Served,
    builder: auto::Builder<TokioExecutor>,
    /// Asks it to end when the server stops.
    watcher: Watcher,
    in_flight: InFlight,
    /// Ends it before it has begun.
    stop: watch::Receiver<bool>,
}

impl Connection {
    /// Serves the connection to its end.
    async fn run(mut self, stream: TcpStream, _counted: Counted) {
        // Small answers must not wait for the peer's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        let router = self.served.router.clone();
        let retries = Arc::clone(&self.served.retries);
        let Some(secured) = self.served.secured.clone() else {
            let (stream, recent) = WatchedStream::new(stream, &retries);
            return self.serve(Io::Plain(stream), recent, router).await;
        };
        let opening = handshake::open(stream, &retries, &secured.tls);
        let opened = tokio::select! {
            opened = opening => opened,
            _ = self.stop.wait_for(|stop| *stop) => return,
        };
        match opened {
            Ok(Some(opened)) => {
                let router = match opened.is_secure {
                    true => router,
                    false => secured.plain,
                };
                self.serve(opened.io, opened.recent, router).await;
            }
            Ok(None) => {}
            Err(failed) => {
                self.served.refuse(self.peer, &failed.refusal);
                failed.linger().await;
            }
        }
    }

    async fn serve(self, io: Io, recent: Arc<RecentAnswers>, router: Router) {
        let (peer, answers) = (self.peer, Arc::clone(&recent));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut router = router.clone();
            let answers = Arc::clone(&answers);
            let open = self.in_flight.begin();
            async move {
                answers.request_arrived(request.version());
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(answers);
                let response: Result<_, Infallible> = router.call(request).await;
                response.map(|response| response.map(|body| open.until_the_end_of(body)))
            }
        });
        let io = TokioIo::new(Opening::new(io, HEADER_TIMEOUT));
        let connection = self.builder.serve_connection(io, service);
        let connection = self.watcher.watch(connection.into_owned());
        if let Err(error) = connection.await {
            if self.served.secured.is_none() && recent.begins_tls() {
                let why = format!(
                    "the client speaks TLS, and this port does not: give the client http://, or the server --tls-cert and \
                     --tls-key ({})",
                    self.served.protocol
                );
                self.served
                    .refuse(peer, &Refusal::new(Reason::TlsHandshake, why));
            } else {
                tracing::debug!(%peer, error, "a connection ended with an error");
            }
        }
        recent.linger().await;
    }
}

impl Served {
    /// Counts and logs a connection that came to nothing.
    fn refuse(&self, peer: SocketAddr, refusal: &Refusal) {
        let client = Client {
            peer: Some(peer),
            user_agent: String::new(),
            token: None,
        };
        let key = (None, self.protocol, refusal.reason);
        self.counters.refuse_request(key, &refusal.message, &client);
    }
}
