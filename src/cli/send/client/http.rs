//! OTLP/HTTP, protobuf and JSON, over HTTP/1.1.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use serde_json::Value;
use tokio::time::timeout;

use super::grpc::accepted;
use super::{ACCEPTED, Encoding, Outcome, Target, disconnected, late};
use crate::cli::args::SendCompression;
use crate::cli::tls::{self, Connector};
use crate::proto::collector::logs::v1::ExportLogsServiceResponse;
use crate::signal::Signal;

pub(super) const USER_AGENT: &str = concat!("otlake-send/", env!("CARGO_PKG_VERSION"));
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// As much of an answer that is not OTLP's as is shown, characters.
const SHOWN_CHARS_MAX: usize = 200;

/// A client that keeps one connection alive.
#[derive(Debug)]
pub(in crate::cli::send) struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    /// One for each signal, in the order of [`Signal::ALL`].
    uris: [Uri; 3],
    headers: HeaderMap,
    compression: SendCompression,
    timeout: Duration,
}

impl HttpClient {
    pub(super) fn new(target: &Target) -> anyhow::Result<HttpClient> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(target.timeout));
        let connector = tls::connector(connector, &target.tls);
        let uri = |signal: Signal| -> anyhow::Result<Uri> {
            let url = format!("{}/v1/{signal}", target.endpoint.url());
            url.parse().with_context(|| format!("{url} is not a URL"))
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::USER_AGENT,
            HeaderValue::from_static(USER_AGENT),
        );
        if let Some(value) = &target.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let name = match target.compression {
            SendCompression::None => None,
            SendCompression::Gzip => Some("gzip"),
            SendCompression::Zstd => Some("zstd"),
            SendCompression::Deflate => Some("deflate"),
        };
        if let Some(name) = name {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        Ok(HttpClient {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(1)
                .build(connector),
            uris: [
                uri(Signal::Logs)?,
                uri(Signal::Traces)?,
                uri(Signal::Metrics)?,
            ],
            headers,
            compression: target.compression,
            timeout: target.timeout,
        })
    }

    pub(super) async fn send(
        &mut self,
        signal: Signal,
        encoding: Encoding,
        body: Bytes,
    ) -> Outcome {
        let body = compress(self.compression, body);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uris[signal as usize].clone();
        *request.headers_mut() = self.headers.clone();
        let content_type = HeaderValue::from_static(match encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        });
        request.headers_mut().insert(CONTENT_TYPE, content_type);

        let answer = async {
            match self.client.request(request).await {
                Ok(response) => read(response).await,
                Err(error) => disconnected(&error),
            }
        };
        timeout(self.timeout, answer)
            .await
            .unwrap_or_else(|_| late(self.timeout))
    }
}

/// The same levels as tonic's, so that both protocols compare.
fn compress(compression: SendCompression, body: Bytes) -> Bytes {
    let gone = "memory takes every write";
    match compression {
        SendCompression::None => body,
        SendCompression::Gzip => {
            let mut encoder =
                GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(6));
            encoder.write_all(&body).expect(gone);
            encoder.finish().expect(gone).into()
        }
        SendCompression::Deflate => {
            let mut encoder =
                ZlibEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(6));
            encoder.write_all(&body).expect(gone);
            encoder.finish().expect(gone).into()
        }
        SendCompression::Zstd => zstd::encode_all(body.as_ref(), zstd::DEFAULT_COMPRESSION_LEVEL)
            .expect(gone)
            .into(),
    }
}

async fn read(response: Response<Incoming>) -> Outcome {
    let status = response.status();
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let protobuf = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/x-protobuf"));
    let encoding = match (json, protobuf) {
        (true, _) => Some(Encoding::Json),
        (_, true) => Some(Encoding::Protobuf),
        _ => None,
    };
    match Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
    {
        Ok(body) => outcome(status, encoding, &body.to_bytes()),
        Err(error) => disconnected(error.as_ref()),
    }
}

/// What an answer means.
pub(super) fn outcome(status: StatusCode, encoding: Option<Encoding>, body: &[u8]) -> Outcome {
    if !status.is_success() {
        return Outcome::Refused {
            reason: status.to_string(),
            message: error_message(encoding, body),
        };
    }
    let read = match encoding {
        _ if body.is_empty() => Some(ACCEPTED),
        Some(Encoding::Json) => partial_success(body),
        Some(Encoding::Protobuf) => ExportLogsServiceResponse::decode(body).ok().map(accepted),
        None => None,
    };
    read.unwrap_or_else(|| Outcome::Refused {
        reason: format!("{status}, but not in OTLP's words"),
        message: shown(body),
    })
}

fn partial_success(body: &[u8]) -> Option<Outcome> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let partial = match answer.as_object()?.get("partialSuccess") {
        None | Some(Value::Null) => return Some(ACCEPTED),
        Some(partial) => partial.as_object()?,
    };
    let rejected = ["rejectedLogRecords", "rejectedSpans", "rejectedDataPoints"]
        .iter()
        .find_map(|name| partial.get(*name));
    let rejected = match rejected {
        Some(Value::String(digits)) => digits.parse().ok()?,
        Some(number) => number.as_u64()?,
        None => 0,
    };
    let message = partial.get("errorMessage").and_then(Value::as_str);
    Some(Outcome::Accepted {
        rejected,
        message: message.unwrap_or_default().to_owned(),
    })
}

/// The message of a `google.rpc.Status`, or what there is instead.
fn error_message(encoding: Option<Encoding>, body: &[u8]) -> String {
    let message = match encoding {
        Some(Encoding::Json) => serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned())),
        Some(Encoding::Protobuf) => tonic_types::Status::decode(body)
            .ok()
            .map(|status| status.message),
        None => None,
    };
    message.unwrap_or_else(|| shown(body))
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body)
        .trim()
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect()
}
