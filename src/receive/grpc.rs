//! OTLP/gRPC: unary `Export` for the three signals, beside health, reflection and the admin service.
//!
//! The message is taken as raw bytes: decoding it into structs first would cost more than all the rest. Its frame is
//! read here and not by tonic, so that one set of limits, memory reservations and decompressors holds for both protocols.
//!
//! Source: OTLP 1.x, "OTLP/gRPC"; gRPC over HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use tower::Service;

use super::answer::WayBack;
use super::body::{self, Compression};
use super::intake::{Accepted, Export, Intake, MEMORY_WAIT_MAX};
use super::refusal::Refusal;
use super::status::{self, ExportResponse};
use crate::decode::Encoding;
use crate::memory::Reservation;
use crate::signal::{Protocol, Signal};
use crate::telemetry::{Client, Reason, TokenUse};

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// What stands before each message: whether it is compressed, and its length.
pub(super) const FRAME_HEAD_BYTES: usize = 5;

/// The longest `user-agent` that is kept for the log.
const USER_AGENT_BYTES_MAX: usize = 200;

/// The gRPC path of a signal's `Export`.
#[must_use]
pub fn export_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    }
}

/// The signal whose `Export` has this path.
#[must_use]
pub fn signal_of(path: &str) -> Option<Signal> {
    Signal::ALL
        .into_iter()
        .find(|signal| export_path(*signal) == path)
}

/// Adds the three `Export` methods to the other services, and the answer to every method that does not exist.
pub fn with_exports(services: Router, intake: &Arc<Intake>) -> Router {
    let mut router = services;
    for signal in Signal::ALL {
        let service = ExportService {
            signal,
            intake: Arc::clone(intake),
        };
        router = router.route_service(export_path(signal), service);
    }
    let intake = Arc::clone(intake);
    router.fallback(move |request: Request<Body>| async move { unknown_method(&intake, &request) })
}

fn unknown_method(intake: &Intake, request: &Request<Body>) -> Response {
    let refusal = Refusal::new(
        Reason::UnknownPath,
        "there is no such method; OTLP/gRPC is Export of opentelemetry.proto.collector.logs.v1.LogsService, \
         .trace.v1.TraceService and .metrics.v1.MetricsService",
    );
    intake.refuse(None, Protocol::Grpc, &refusal, &client(request));
    status::to_grpc_response(&refusal)
}

/// Who sent a request, as its headers, its connection and the gate say.
pub(super) fn client<B>(request: &Request<B>) -> Client {
    let user_agent = request.headers().get(header::USER_AGENT);
    let user_agent = user_agent.map_or("", |value| value.to_str().unwrap_or_default());
    Client {
        peer: request.extensions().get::<SocketAddr>().copied(),
        user_agent: user_agent.chars().take(USER_AGENT_BYTES_MAX).collect(),
        token: request.extensions().get::<Arc<TokenUse>>().cloned(),
    }
}

/// Serves one signal's `Export`.
#[derive(Clone)]
struct ExportService {
    signal: Signal,
    intake: Arc<Intake>,
}

impl Service<Request<Body>> for ExportService {
    type Response = Response;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ExportService { signal, intake } = self.clone();
        Box::pin(async move { Ok(export(signal, &intake, request).await) })
    }
}

async fn export(signal: Signal, intake: &Arc<Intake>, request: Request<Body>) -> Response {
    let client = client(&request);
    let way_back = WayBack::of(&request);
    intake.wait_for_memory(MEMORY_WAIT_MAX).await;
    let outcome = match read_message(request, intake).await {
        Ok((body, body_reservation)) => {
            let export = Export {
                signal,
                protocol: Protocol::Grpc,
                encoding: Encoding::Protobuf,
                body,
                body_reservation,
                client,
            };
            intake.accept(export).await
        }
        Err(refusal) => {
            intake.refuse(Some(signal), Protocol::Grpc, &refusal, &client);
            Err(refusal)
        }
    };
    match outcome {
        Ok(Accepted {
            rejections,
            delivery,
        }) => {
            let response = accepted(&ExportResponse::new(signal, &rejections));
            way_back.watch(response, delivery)
        }
        Err(refusal) => refused(&refusal),
    }
}

/// Reads the call's only message and decompresses it.
async fn read_message(
    request: Request<Body>,
    intake: &Intake,
) -> Result<(Bytes, Reservation), Refusal> {
    let malformed = |what: &str| Err(Refusal::new(Reason::Malformed, what));
    let compression = Compression::of_grpc(request.headers())?;
    let max_bytes = intake.max_body_bytes;
    let body = request.into_body();
    let (framed, reservation) =
        body::receive(body, max_bytes, FRAME_HEAD_BYTES, &intake.budget).await?;
    let Some((&[is_compressed, ref length @ ..], message)) =
        framed.split_first_chunk::<FRAME_HEAD_BYTES>()
    else {
        return malformed("the call carries no message");
    };
    match u64::from(u32::from_be_bytes(*length)).cmp(&(message.len() as u64)) {
        std::cmp::Ordering::Less => return malformed("the call carries more than one message"),
        std::cmp::Ordering::Greater => return malformed("the call ends inside its message"),
        std::cmp::Ordering::Equal => {}
    }
    let message = framed.slice(FRAME_HEAD_BYTES..);
    match (is_compressed, compression) {
        (0, _) => Ok((message, reservation)),
        (1, Compression::Identity) => {
            malformed("the message is compressed, and grpc-encoding does not say how")
        }
        (1, _) => body::inflate(message, reservation, compression, max_bytes, &intake.budget).await,
        _ => malformed("the message's compression flag is neither 0 nor 1"),
    }
}

/// An answer's message in its frame, not compressed.
pub(super) fn frame(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(FRAME_HEAD_BYTES + message.len());
    framed.put_u8(0);
    // The longest answer is a few hundred bytes.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// The one message of the answer, and the trailers that say OK.
fn accepted(response: &ExportResponse) -> Response {
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(frame(response)).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    let content_type = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

pub(super) fn refused(refusal: &Refusal) -> Response {
    let mut response = status::to_grpc_response(refusal);
    if refusal.reason == Reason::UnsupportedCompression {
        let accepted = HeaderValue::from_static("gzip,zstd,deflate,identity");
        response
            .headers_mut()
            .insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    response
}
