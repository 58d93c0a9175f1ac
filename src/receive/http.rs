//! OTLP/HTTP: POST /v1/logs, /v1/traces, /v1/metrics, and the two probes.
//!
//! Source: OTLP 1.x, "OTLP/HTTP".

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

use super::answer::WayBack;
use super::body::{self, Compression};
use super::grpc::client;
use super::intake::{Accepted, Export, Intake, MEMORY_WAIT_MAX};
use super::readiness::Readiness;
use super::refusal::Refusal;
use super::status;
use crate::decode::Encoding;
use crate::signal::{Protocol, Signal};
use crate::telemetry::Reason;

/// The three paths, for messages.
const PATHS: &str = "/v1/logs, /v1/traces and /v1/metrics";

/// The HTTP path of a signal.
#[must_use]
pub fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/v1/logs",
        Signal::Traces => "/v1/traces",
        Signal::Metrics => "/v1/metrics",
    }
}

/// The routes of OTLP/HTTP and the answers to everything else that arrives there.
pub fn routes(intake: &Arc<Intake>) -> Router {
    let mut router = Router::new();
    for signal in Signal::ALL {
        let export = move |State(intake): State<Arc<Intake>>, request: Request<Body>| async move {
            export(signal, intake, request).await
        };
        router = router.route(path(signal), post(export).fallback(wrong_method));
    }
    router.fallback(unknown_path).with_state(Arc::clone(intake))
}

/// The probes: open to all, since they tell nothing and take nothing.
pub fn probes(readiness: &Arc<Readiness>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(readiness))
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    match readiness.trouble() {
        None => "ready\n".into_response(),
        Some(trouble) => {
            let text = format!("degraded: {trouble}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn export(signal: Signal, intake: Arc<Intake>, request: Request<Body>) -> Response {
    let client = client(&request);
    let way_back = WayBack::of(&request);
    let encoding = match encoding(request.headers()) {
        Ok(encoding) => encoding,
        Err(refusal) => {
            intake.refuse(Some(signal), Protocol::Http, &refusal, &client);
            return status::to_http(&refusal, Encoding::Json);
        }
    };
    let read = match compression(request.headers()) {
        Ok(compression) => {
            intake.wait_for_memory(MEMORY_WAIT_MAX).await;
            let max = intake.max_body_bytes;
            body::read(request.into_body(), compression, max, &intake.budget).await
        }
        Err(refusal) => Err(refusal),
    };
    let (body, body_reservation) = match read {
        Ok(read) => read,
        Err(refusal) => {
            intake.refuse(Some(signal), Protocol::Http, &refusal, &client);
            return status::to_http(&refusal, encoding);
        }
    };
    let export = Export {
        signal,
        protocol: Protocol::Http,
        encoding,
        body,
        body_reservation,
        client,
    };
    match intake.accept(export).await {
        Ok(Accepted {
            rejections,
            delivery,
        }) => {
            let response = status::accepted_http(signal, encoding, &rejections);
            way_back.watch(response, delivery)
        }
        Err(refusal) => status::to_http(&refusal, encoding),
    }
}

/// The encoding that a request's `content-type` names.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let content_type = header_text(headers, header::CONTENT_TYPE);
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Ok(Encoding::Ndjson),
        "application/grpc" => Err(Refusal::new(
            Reason::UnsupportedMediaType,
            "gRPC goes to the OTLP/gRPC port, and to its own paths",
        )),
        _ => Err(Refusal::new(
            Reason::UnsupportedMediaType,
            "the content-type must be application/x-protobuf, application/json or application/x-ndjson",
        )),
    }
}

/// The encoding to answer in, whatever else is wrong with the request.
pub(super) fn answer_encoding(headers: &HeaderMap) -> Encoding {
    encoding(headers).unwrap_or(Encoding::Json)
}

fn compression(headers: &HeaderMap) -> Result<Compression, Refusal> {
    Compression::parse(Some(header_text(headers, header::CONTENT_ENCODING)))
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    let value = headers.get(name);
    // A value that is not text is not one of ours either.
    value.map_or("", |value| value.to_str().unwrap_or("?"))
}

async fn unknown_path(State(intake): State<Arc<Intake>>, request: Request<Body>) -> Response {
    let mistake = mistake(request.uri().path());
    let refusal = Refusal::new(
        Reason::UnknownPath,
        format!("there is nothing at this path; OTLP/HTTP is served at {PATHS}{mistake}"),
    );
    intake.refuse(None, Protocol::Http, &refusal, &client(&request));
    status::to_http(&refusal, answer_encoding(request.headers()))
}

/// What was meant by a path that is none of ours.
fn mistake(path: &str) -> &'static str {
    let has_signal = |path: &str| {
        Signal::ALL
            .iter()
            .any(|signal| path.ends_with(self::path(*signal)))
    };
    let before = path.rsplit_once("/v1/").map(|(before, _)| before);
    if path.trim_matches('/').is_empty() {
        ": the client's endpoint lacks the path of its signal, and the client adds none"
    } else if !has_signal(path) {
        ""
    } else if before.is_some_and(has_signal) {
        ": the client's endpoint has the path of a signal, and the client adds it once more"
    } else {
        ": the client's endpoint has something before the path of its signal"
    }
}

/// Refuses a method that the paths do not take, and names the one that they do.
pub(super) async fn wrong_method(
    State(intake): State<Arc<Intake>>,
    request: Request<Body>,
) -> Response {
    let refusal = Refusal::new(
        Reason::WrongMethod,
        format!("{PATHS} take POST, not {}", request.method()),
    );
    intake.refuse(None, Protocol::Http, &refusal, &client(&request));
    let mut response = status::to_http(&refusal, answer_encoding(request.headers()));
    let allowed = HeaderValue::from_static("POST");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}
