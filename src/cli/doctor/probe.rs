//! An empty request, sent as an exporter would send its own: it takes the same way, and leaves nothing.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HttpClient, Error as HttpError};
use hyper_util::rt::TokioExecutor;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::exporter::{Exporter, Speaks, signal_path};
use crate::cli::args::ClientTlsArgs;
use crate::cli::client::{self, Found, Target};
use crate::cli::tls::{self, Above};
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use crate::server_file::ServerTls;
use crate::signal::Signal;

/// How the server's log and counts know these requests.
pub(super) const DOCTOR: &str = concat!("otlake-doctor/", env!("CARGO_PKG_VERSION"));

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends an empty request of a signal.
///
/// # Errors
/// One line: what the server says, or why it was not reached.
pub(super) async fn probe(exporter: &Exporter, url: &Uri, signal: Signal) -> anyhow::Result<()> {
    let sent = async {
        match exporter.speaks {
            Speaks::Grpc => over_grpc(exporter, url, signal).await,
            Speaks::Http | Speaks::HttpJson => over_http(exporter, url, signal).await,
        }
    };
    let answered = tokio::time::timeout(TIMEOUT, sent).await;
    answered.unwrap_or_else(|_| Err(anyhow!("no answer within {TIMEOUT:?}")))
}

fn tls_of(exporter: &Exporter) -> ClientTlsArgs {
    ClientTlsArgs {
        ca: exporter.ca.clone(),
        cert: exporter.cert.clone(),
        key: exporter.key.clone(),
    }
}

fn headers_of(exporter: &Exporter) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &exporter.headers {
        let lower = name.to_ascii_lowercase();
        let name = HeaderName::try_from(lower).with_context(|| format!("{name} is no header"))?;
        // What is in it may be a token.
        let value = HeaderValue::try_from(value)
            .map_err(|_| anyhow!("the header {name} holds what no header may"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

async fn over_grpc(exporter: &Exporter, url: &Uri, signal: Signal) -> anyhow::Result<()> {
    let target = Target {
        url: url.to_string().trim_end_matches('/').to_owned(),
        tls: tls_of(exporter),
        // What server.json says of its certificate no exporter knows.
        found: Found::Stranger,
        data_dir: Default::default(),
    };
    let channel = client::channel_as(&target, TIMEOUT, DOCTOR).await?;
    let metadata = MetadataMap::from_headers(headers_of(exporter)?);
    fn request<T: Default>(metadata: MetadataMap) -> tonic::Request<T> {
        tonic::Request::from_parts(metadata, Default::default(), T::default())
    }
    let answer = match signal {
        Signal::Logs => {
            let request = request::<ExportLogsServiceRequest>(metadata);
            let answer = LogsServiceClient::new(channel).export(request).await;
            answer.map(|_| ())
        }
        Signal::Traces => {
            let request = request::<ExportTraceServiceRequest>(metadata);
            let answer = TraceServiceClient::new(channel).export(request).await;
            answer.map(|_| ())
        }
        Signal::Metrics => {
            let request = request::<ExportMetricsServiceRequest>(metadata);
            let answer = MetricsServiceClient::new(channel).export(request).await;
            answer.map(|_| ())
        }
    };
    answer.map_err(|status| said(&status, &target.url))
}

fn said(status: &Status, url: &str) -> anyhow::Error {
    let is_of_server = std::error::Error::source(status).is_none();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition
            if is_of_server =>
        {
            anyhow!("the server says: {}", status.message())
        }
        _ => client::explain(status, url, true),
    }
}

async fn over_http(exporter: &Exporter, url: &Uri, signal: Signal) -> anyhow::Result<()> {
    let mut target = url.to_string().trim_end_matches('/').to_owned();
    if exporter.appends_path {
        target += &signal_path(signal);
    }
    let (content_type, body) = match exporter.speaks {
        Speaks::HttpJson => ("application/json", Bytes::from_static(b"{}")),
        _ => ("application/x-protobuf", Bytes::new()),
    };
    let mut request = Request::post(&target).body(Full::new(body))?;
    *request.headers_mut() = headers_of(exporter)?;
    let own = [(USER_AGENT, DOCTOR), (CONTENT_TYPE, content_type)];
    for (name, value) in own {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let config = tls::config(&target, &tls_of(exporter), None, Above::Http1)?;
    let connector = tls::connector(HttpConnector::new(), &config);
    let client = HttpClient::builder(TokioExecutor::new()).build(connector);
    let sent = client.request(request).await;
    let (parts, body) = sent
        .map_err(|error| unreachable(&error, &target))?
        .into_parts();
    if parts.status.is_success() {
        return Ok(());
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = message(&parts.headers, &body);
    bail!("{} to {target}: {message}", parts.status.as_u16());
}

/// What an error's `google.rpc.Status` says.
fn message(headers: &HeaderMap, body: &Bytes) -> String {
    let content_type = headers.get(CONTENT_TYPE);
    let is_json =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let said = match is_json {
        true => serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|status| Some(status.get("message")?.as_str()?.to_owned())),
        false => {
            let status = <tonic_types::Status as prost::Message>::decode(body.clone());
            status.ok().map(|status| status.message)
        }
    };
    said.filter(|said| !said.is_empty())
        .unwrap_or_else(|| "and no word why: is it otlake that listens there?".to_owned())
}

fn unreachable(error: &HttpError, url: &str) -> anyhow::Error {
    match tls::explain(error) {
        Some(why) => anyhow!("cannot speak with {url}: {why}"),
        None => anyhow!("nothing answers at {url} ({})", client::innermost(error)),
    }
}

/// Asks the HTTP port for `/readyz`. `known` is what the server has written down of its certificate.
///
/// # Errors
/// One line, when it does not answer as otlake does.
pub(super) async fn ready(
    base: &str,
    args: &ClientTlsArgs,
    known: Option<&ServerTls>,
) -> anyhow::Result<()> {
    let url = format!("{base}/readyz");
    let config = tls::config(&url, args, known, Above::Http1)?;
    let connector = tls::connector(HttpConnector::new(), &config);
    let client = HttpClient::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(&url)
        .header(USER_AGENT, DOCTOR)
        .body(Empty::<Bytes>::new())?;
    let answered = tokio::time::timeout(TIMEOUT, client.request(request)).await;
    let answer = answered
        .map_err(|_| anyhow!("no answer from {url} within {TIMEOUT:?}"))?
        .map_err(|error| unreachable(&error, &url))?;
    match answer.status().as_u16() {
        // Degraded is told by its status.
        200 | 503 => Ok(()),
        other => bail!("{url} answers {other}: is it otlake's HTTP port?"),
    }
}

/// Asks quack what it is; it says so to whoever comes with a GET. It speaks plain HTTP.
///
/// # Errors
/// One line, when nothing answers there, or something else.
pub(super) async fn quack(place: &str) -> anyhow::Result<()> {
    let url = format!("http://{place}/");
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    let request = Request::get(&url)
        .header(USER_AGENT, DOCTOR)
        .body(Empty::<Bytes>::new())?;
    let asked = async {
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| unreachable(&error, &url))?;
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        anyhow::ensure!(
            String::from_utf8_lossy(&body).contains("Quack"),
            "something else than quack answers there"
        );
        Ok(())
    };
    let answered = tokio::time::timeout(TIMEOUT, asked).await;
    answered.unwrap_or_else(|_| Err(anyhow!("no answer within {TIMEOUT:?}")))
}
