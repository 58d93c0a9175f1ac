//! A server that keeps what it gets and answers what it is told, over OTLP/gRPC and OTLP/HTTP on one port.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::proto::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use crate::signal::Signal;

/// What the server says.
#[derive(Clone, Debug)]
pub(in crate::cli::send) enum Answer {
    /// Everything is kept.
    Accept,
    /// Some records are refused alone.
    Partial(i64, &'static str),
    /// The request is refused: gRPC code, HTTP status, message.
    Refuse(i32, u16, &'static str),
    /// Everything is kept, after this many milliseconds.
    Slow(u64),
    /// No answer ever.
    Silence,
}

/// A request as it came, decompressed.
#[derive(Clone, Debug)]
pub(in crate::cli::send) struct Received {
    pub(in crate::cli::send) path: String,
    pub(in crate::cli::send) headers: HeaderMap,
    pub(in crate::cli::send) body: Bytes,
}

impl Received {
    pub(in crate::cli::send) fn signal(&self) -> Signal {
        let path = &self.path;
        match () {
            () if path.contains("ogs") => Signal::Logs,
            () if path.contains("race") => Signal::Traces,
            () => Signal::Metrics,
        }
    }
}

#[derive(Clone)]
struct Shared {
    answer: Answer,
    received: Arc<Mutex<Vec<Received>>>,
}

pub(in crate::cli::send) struct Server {
    pub(in crate::cli::send) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(in crate::cli::send) async fn start(answer: Answer) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::default();
        let shared = Shared {
            answer,
            received: Arc::clone(&received),
        };
        let router = Router::new().fallback(export).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server {
            address,
            received,
            task,
        }
    }

    pub(in crate::cli::send) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn export(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes();
    let header = |name| {
        let value: Option<&HeaderValue> = parts.headers.get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let content_type = header("content-type").unwrap();
    let grpc = content_type == "application/grpc";
    let encoding = if grpc {
        let frame = body.split_to(5);
        assert_eq!(frame[1..], (body.len() as u32).to_be_bytes());
        header("grpc-encoding").filter(|_| frame[0] == 1)
    } else {
        header("content-encoding")
    };
    let body = decompress(encoding.as_deref(), &body);
    shared.received.lock().unwrap().push(Received {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body,
    });
    let answer = match shared.answer {
        Answer::Slow(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Answer::Accept
        }
        other => other,
    };
    if grpc {
        grpc_answer(answer).await
    } else {
        http_answer(answer, &content_type).await
    }
}

fn decompress(encoding: Option<&str>, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    match encoding {
        None => out.extend_from_slice(body),
        Some("gzip") => {
            GzDecoder::new(body).read_to_end(&mut out).unwrap();
        }
        Some("deflate") => {
            ZlibDecoder::new(body).read_to_end(&mut out).unwrap();
        }
        Some("zstd") => out = zstd::decode_all(body).unwrap(),
        Some(other) => panic!("{other}"),
    }
    out.into()
}

fn response(partial: Option<(i64, &str)>) -> Vec<u8> {
    ExportLogsServiceResponse {
        partial_success: partial.map(|(rejected, message)| ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: message.to_owned(),
        }),
    }
    .encode_to_vec()
}

async fn grpc_answer(answer: Answer) -> Response {
    let message = match answer {
        Answer::Accept => response(None),
        Answer::Partial(rejected, message) => response(Some((rejected, message))),
        Answer::Refuse(code, _, message) => {
            return Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", code)
                .header("grpc-message", message)
                .body(Body::empty())
                .unwrap();
        }
        Answer::Slow(_) | Answer::Silence => std::future::pending().await,
    };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(frame.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .unwrap()
}

async fn http_answer(answer: Answer, content_type: &str) -> Response {
    let json = content_type == "application/json";
    let (status, body) = match answer {
        Answer::Accept if json => (200, b"{}".to_vec()),
        Answer::Accept => (200, response(None)),
        Answer::Partial(rejected, message) if json => {
            let partial = serde_json::json!({"rejectedLogRecords": rejected.to_string(), "errorMessage": message});
            let answer = serde_json::json!({"partialSuccess": partial});
            (200, serde_json::to_vec(&answer).unwrap())
        }
        Answer::Partial(rejected, message) => (200, response(Some((rejected, message)))),
        Answer::Refuse(code, status, message) if json => {
            let answer = serde_json::json!({"code": code, "message": message});
            (status, serde_json::to_vec(&answer).unwrap())
        }
        Answer::Refuse(code, status, message) => {
            let answer = tonic_types::Status {
                code,
                message: message.to_owned(),
                details: vec![],
            };
            (status, answer.encode_to_vec())
        }
        Answer::Slow(_) | Answer::Silence => std::future::pending().await,
    };
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(body.into())
        .unwrap()
}
