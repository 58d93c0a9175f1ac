//! OTLP/gRPC: unary `Export` for the three signals, beside health, reflection and the admin service.
//!
//! The messages are taken as raw bytes: decoding them into structs first would cost more than all the rest. tonic does
//! the framing and the decompression; this module puts its answers into OTLP's words where they differ.
//!
//! Source: OTLP 1.x, "OTLP/gRPC"; gRPC over HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use http::{Request, header};
use prost::Message as _;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tower::Service;

use super::body::AdmittedBody;
use super::intake::{Export, Intake};
use super::refusal::Refusal;
use super::status::{self, ExportResponse};
use crate::decode::Encoding;
use crate::memory::{Budget, Reservation};
use crate::signal::{Protocol, Signal};
use crate::telemetry::{Client, Reason};

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

/// Who sent a request, as its headers and its connection say.
pub(super) fn client<B>(request: &Request<B>) -> Client {
    let user_agent = request.headers().get(header::USER_AGENT);
    let user_agent = user_agent.map_or("", |value| value.to_str().unwrap_or_default());
    Client {
        peer: request.extensions().get::<SocketAddr>().copied(),
        user_agent: user_agent.chars().take(USER_AGENT_BYTES_MAX).collect(),
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
        Box::pin(async move {
            let client = client(&request);
            let codec = RawCodec {
                budget: intake.budget.clone(),
            };
            let reached = Arc::new(AtomicBool::new(false));
            let export = ExportMethod {
                signal,
                intake: Arc::clone(&intake),
                client: client.clone(),
                reached: Arc::clone(&reached),
            };
            let request = request.map(|body| AdmittedBody::new(body, &intake.budget));
            let response = Grpc::new(codec)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .accept_compressed(CompressionEncoding::Deflate)
                .max_decoding_message_size(intake.max_body_bytes)
                .unary(export, request)
                .await;
            let response = response.map(Body::new);
            if reached.load(Ordering::Relaxed) {
                return Ok(response); // What went wrong behind that point was counted there.
            }
            Ok(settle(response, signal, &intake, &client))
        })
    }
}

/// Puts the failures that tonic found before a request reached us into OTLP's words, and counts them.
///
/// tonic calls an oversize message OUT_OF_RANGE, which OTLP clients retry for ever, and broken framing INTERNAL.
fn settle(response: Response, signal: Signal, intake: &Intake, client: &Client) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let message = status.message();
    let refusal = match status.code() {
        Code::Ok => return response,
        Code::OutOfRange => Refusal::body_too_large(intake.max_body_bytes),
        Code::ResourceExhausted if message.starts_with("Error decompressing") => {
            Refusal::body_too_large(intake.max_body_bytes)
        }
        Code::ResourceExhausted => Refusal::new(Reason::RowsTooLarge, message),
        Code::Unavailable => Refusal::new(Reason::MemoryFull, message),
        Code::Unimplemented => Refusal::new(Reason::UnsupportedCompression, message),
        Code::Internal | Code::InvalidArgument => Refusal::new(Reason::Malformed, message),
        _ => Refusal::new(Reason::Incomplete, message),
    };
    intake.refuse(Some(signal), Protocol::Grpc, &refusal, client);
    if refusal.reason == Reason::UnsupportedCompression {
        return response; // It carries grpc-accept-encoding, which tells the client what to use instead.
    }
    status::to_grpc_response(&refusal)
}

struct ExportMethod {
    signal: Signal,
    intake: Arc<Intake>,
    client: Client,
    /// Set once a message came this far.
    reached: Arc<AtomicBool>,
}

impl UnaryService<Message> for ExportMethod {
    type Response = ExportResponse;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<tonic::Response<ExportResponse>, Status>> + Send>,
    >;

    fn call(&mut self, request: tonic::Request<Message>) -> Self::Future {
        self.reached.store(true, Ordering::Relaxed);
        let message = request.into_inner();
        let signal = self.signal;
        let intake = Arc::clone(&self.intake);
        let export = Export {
            signal,
            protocol: Protocol::Grpc,
            encoding: Encoding::Protobuf,
            body: message.bytes,
            body_reservation: message.reservation,
            client: self.client.clone(),
        };
        Box::pin(async move {
            match intake.accept(export).await {
                Ok(rejections) => {
                    let response = ExportResponse::new(signal, &rejections);
                    Ok(tonic::Response::new(response))
                }
                Err(refusal) => Err(status::to_grpc(&refusal)),
            }
        })
    }
}

/// One message, decompressed and not decoded.
struct Message {
    bytes: Bytes,
    reservation: Reservation,
}

/// Hands messages over as they are; answers with an [`ExportResponse`].
#[derive(Clone)]
struct RawCodec {
    budget: Budget,
}

impl Codec for RawCodec {
    type Encode = ExportResponse;
    type Decode = Message;
    type Encoder = ResponseEncoder;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> ResponseEncoder {
        ResponseEncoder
    }

    fn decoder(&mut self) -> RawCodec {
        self.clone()
    }
}

impl Decoder for RawCodec {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        let len = source.remaining();
        let reservation = self.budget.reserve(len as u64);
        let reservation = reservation.map_err(|error| status::to_grpc(&error.into()))?;
        Ok(Some(Message {
            bytes: source.copy_to_bytes(len),
            reservation,
        }))
    }
}

struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Item = ExportResponse;
    type Error = Status;

    fn encode(&mut self, response: ExportResponse, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let encoded = response.encode(into);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}
