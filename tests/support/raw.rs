//! Requests byte by byte: what no well-behaved client sends, and what the answers really hold.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use otlake::proto::admin::admin_client::AdminClient;
use otlake::proto::admin::{StatusRequest, StatusResponse};
use prost::Message as _;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::{Answer, Server};

/// gRPC paths of the three `Export` methods.
pub const EXPORT_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub const EXPORT_TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Content types of OTLP/HTTP.
pub const PROTOBUF: &str = "application/x-protobuf";
pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";

/// Every compression that both protocols take.
pub const COMPRESSIONS: [&str; 3] = ["gzip", "zstd", "deflate"];

/// The answer to a gRPC call.
#[derive(Debug)]
pub struct GrpcAnswer {
    /// `grpc-status` with message and details, from headers or trailers.
    pub status: Status,
    pub headers: HeaderMap,
    /// The response messages with their frames.
    pub body: Bytes,
}

impl GrpcAnswer {
    /// The pause that the answer's `google.rpc.RetryInfo` asks for.
    pub fn retry_info(&self) -> Option<Duration> {
        self.status.get_details_retry_info()?.retry_delay
    }

    /// The first response message.
    pub fn message<M: prost::Message + Default>(&self) -> M {
        M::decode(self.body.slice(5..)).unwrap()
    }
}

/// Puts a message into a gRPC frame.
pub fn frame(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(is_compressed)];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

/// Calls a gRPC method with any body.
pub async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> GrpcAnswer {
    let mut request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = Status::from_header_map(&parts.headers)
        .or_else(|| Status::from_header_map(&trailers))
        .unwrap_or_else(|| panic!("no grpc-status: {parts:?} {trailers:?}"));
    GrpcAnswer {
        status,
        headers: parts.headers,
        body: collected.to_bytes(),
    }
}

/// Exports one message over gRPC, under one of [`COMPRESSIONS`] or `identity`.
pub async fn export(server: &Server, path: &str, encoding: &str, message: &[u8]) -> GrpcAnswer {
    if encoding == "identity" {
        return call(server.grpc, path, &[], frame(false, message)).await;
    }
    let framed = frame(true, &compress(encoding, message));
    call(server.grpc, path, &[("grpc-encoding", encoding)], framed).await
}

/// POSTs over HTTP/1.1 to any port.
pub async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub fn compress(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match encoding {
        "identity" => bytes.to_vec(),
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        other => panic!("no compression {other}"),
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The `google.rpc.Status` of an error, in the encoding that the answer names.
    pub fn rpc_status(&self) -> tonic_types::Status {
        match self.header("content-type") {
            PROTOBUF => tonic_types::Status::decode(self.body.clone()).unwrap(),
            JSON => {
                let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
                tonic_types::Status {
                    code: json["code"].as_i64().unwrap().try_into().unwrap(),
                    message: json["message"].as_str().unwrap().to_owned(),
                    details: Vec::new(),
                }
            }
            other => panic!("{other}: {}", self.text()),
        }
    }
}

impl Server {
    /// What `otlake status` shows.
    pub async fn status(&self) -> StatusResponse {
        self.status_with(None).await
    }

    /// What `grpc.health.v1` says of the server and of one of its services.
    pub async fn health(&self) -> [ServingStatus; 2] {
        let mut client = HealthClient::new(self.channel().await);
        let mut told = [ServingStatus::Unknown; 2];
        for (service, told) in ["", "opentelemetry.proto.collector.logs.v1.LogsService"]
            .into_iter()
            .zip(&mut told)
        {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            *told = client.check(request).await.unwrap().into_inner().status();
        }
        told
    }

    /// What `otlake status` shows, of a server that may want a token.
    pub async fn status_with(&self, token: Option<&str>) -> StatusResponse {
        let mut request = tonic::Request::new(StatusRequest {});
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("x-api-key", token.parse().unwrap());
        }
        let mut admin = AdminClient::new(self.channel().await);
        admin.status(request).await.unwrap().into_inner()
    }

    /// The lines of the log that say that something was refused for this reason.
    pub fn refusals_logged(&self, reason: &str) -> Vec<String> {
        let reason = format!("reason=\"{reason}\"");
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("refused: "));
        lines
            .filter(|line| line.contains(&reason))
            .map(str::to_owned)
            .collect()
    }
}

/// How many requests and records were refused for a reason, over all signals.
pub fn refused(status: &StatusResponse, protocol: &str, reason: &str) -> (u64, u64) {
    let rows = status.refusals.iter();
    rows.filter(|refusal| refusal.protocol == protocol && refusal.reason == reason)
        .fold((0, 0), |(requests, rows), refusal| {
            (requests + refusal.requests, rows + refusal.rows)
        })
}

/// How many rows were accepted of all signals over all protocols.
pub fn accepted_rows(status: &StatusResponse) -> u64 {
    status
        .signals
        .iter()
        .map(|signal| signal.accepted_rows)
        .sum()
}
