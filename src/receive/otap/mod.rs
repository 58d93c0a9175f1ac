//! OTAP: bidirectional gRPC streams of Arrow record batches, beside OTLP on the same port.
//!
//! Framed here and not by tonic, as OTLP is: one set of limits, memory reservations and decompressors holds for both, and a
//! message that is too large still gets its status.
//!
//! Source: OTAP (otel-arrow), "OTAP Formal Specification", 3 and 4; gRPC over HTTP/2.

mod idle;
mod messages;
mod statuses;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, header};
use tokio::sync::watch;
use tower::Service;

use self::messages::Messages;
use self::statuses::StatusBody;
use self::stream::{Shared, Stream};
use super::answer::WayBack;
use super::auth::Gate;
use super::body::Compression;
use super::grpc::{client, refused};
use super::intake::Intake;
use super::refusal::Refusal;
use crate::signal::{Protocol, Signal};

/// The largest first message of a stream that has no token yet: anyone can send it, and the token comes in it.
const UNKNOWN_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The gRPC path of a signal's stream.
#[must_use]
pub fn stream_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/opentelemetry.proto.experimental.arrow.v1.ArrowLogsService/ArrowLogs",
        Signal::Traces => {
            "/opentelemetry.proto.experimental.arrow.v1.ArrowTracesService/ArrowTraces"
        }
        Signal::Metrics => {
            "/opentelemetry.proto.experimental.arrow.v1.ArrowMetricsService/ArrowMetrics"
        }
    }
}

/// The signal whose stream has this path.
#[must_use]
pub fn signal_of(path: &str) -> Option<Signal> {
    Signal::ALL
        .into_iter()
        .find(|signal| stream_path(*signal) == path)
}

/// Adds the three streams to a router. They check the token themselves, as it may come with the batches. `open` counts the
/// streams; they end in order when `stop` turns true.
pub fn with_streams(
    mut router: Router,
    intake: &Arc<Intake>,
    gate: &Gate,
    open: &Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) -> Router {
    let shared = Shared {
        turns: Arc::default(),
        intake: Arc::clone(intake),
        gate: gate.clone(),
        stop,
    };
    for signal in Signal::ALL {
        let service = StreamService {
            signal,
            shared: shared.clone(),
            open: Arc::clone(open),
        };
        router = router.route_service(stream_path(signal), service);
    }
    router
}

/// Counts a stream as long as it is open.
struct OpenStream(Arc<AtomicUsize>);

impl OpenStream {
    fn new(open: &Arc<AtomicUsize>) -> OpenStream {
        open.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(open))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one signal's streams.
#[derive(Clone)]
struct StreamService {
    signal: Signal,
    shared: Shared,
    open: Arc<AtomicUsize>,
}

impl Service<Request<Body>> for StreamService {
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = client(&request);
        let response = match self.open(request) {
            Ok(response) => response,
            Err(refusal) => {
                let intake = &self.shared.intake;
                intake.refuse(Some(self.signal), Protocol::Otap, &refusal, &client);
                refused(&refusal)
            }
        };
        std::future::ready(Ok(response))
    }
}

impl StreamService {
    /// Opens a stream. Nothing that passes by itself keeps it from being opened: the Go exporter would take that for a server
    /// without OTAP, and never try again.
    fn open(&self, request: Request<Body>) -> Result<Response, Refusal> {
        let compression = Compression::of_grpc(request.headers())?;
        let wants_token = self.shared.gate.lacks_token(request.headers());
        if !wants_token {
            self.shared.gate.check_token(request.headers())?;
        }
        let connection = WayBack::of(&request).connection();
        let client = client(&request);
        let intake = &self.shared.intake;
        let messages = Messages::new(
            request.into_body(),
            compression,
            match wants_token {
                true => intake.max_body_bytes.min(UNKNOWN_MESSAGE_BYTES_MAX),
                false => intake.max_body_bytes,
            },
            &intake.budget,
        );
        let stream = Stream::new(&self.shared, self.signal, client, messages, wants_token);
        let body = StatusBody::new(stream, connection, OpenStream::new(&self.open));
        let mut response = Response::new(Body::new(body));
        let content_type = HeaderValue::from_static("application/grpc");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        Ok(response)
    }
}
