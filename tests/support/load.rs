//! Senders in closed loops that number what they send, so that SQL can tell loss and duplicates from the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use otlake::proto::collector::trace::v1::ExportTraceServiceRequest;
use otlake::proto::common::v1::any_value::Value;
use otlake::proto::common::v1::{AnyValue, KeyValue};
use otlake::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::Server;

/// Log records of one request of a sender.
const BATCH: i64 = 5;

/// 2026-01-01, Unix nanoseconds: record `n` is dated `n` seconds later.
const FIRST_UNIX_NANO: u64 = 1_767_225_600_000_000_000;

/// SQL for the sequence number of a log.
pub const SEQ: &str = "CAST(log_attributes->>'$.seq' AS BIGINT)";

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn resource(service: &str) -> Resource {
    Resource {
        attributes: vec![attribute(
            "service.name",
            Value::StringValue(service.to_owned()),
        )],
        ..Resource::default()
    }
}

pub fn unix_nano(seq: i64) -> u64 {
    FIRST_UNIX_NANO + u64::try_from(seq).unwrap() * 1_000_000_000
}

/// One log record a number, with the number as attribute `seq` and in the time.
pub fn logs(service: &str, seqs: impl IntoIterator<Item = i64>) -> ExportLogsServiceRequest {
    let log_records = seqs.into_iter().map(|seq| LogRecord {
        time_unix_nano: unix_nano(seq),
        body: Some(AnyValue {
            value: Some(Value::StringValue(format!("record {seq}"))),
        }),
        attributes: vec![attribute("seq", Value::IntValue(seq))],
        ..LogRecord::default()
    });
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(service)),
            scope_logs: vec![ScopeLogs {
                log_records: log_records.collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

/// One span a number.
pub fn spans(service: &str, seqs: impl IntoIterator<Item = i64>) -> ExportTraceServiceRequest {
    let spans = seqs.into_iter().map(|seq| Span {
        trace_id: Bytes::copy_from_slice(&(1_i128 + i128::from(seq)).to_be_bytes()),
        span_id: Bytes::copy_from_slice(&(seq + 1).to_be_bytes()),
        name: format!("span {seq}"),
        start_time_unix_nano: unix_nano(seq),
        end_time_unix_nano: unix_nano(seq) + 1_000_000,
        ..Span::default()
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service)),
            scope_spans: vec![ScopeSpans {
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// What a sender learned about its requests.
#[derive(Debug, Default)]
pub struct Sent {
    /// Numbers whose request was answered with success.
    pub acknowledged: Vec<i64>,
    /// gRPC statuses of the requests that were not.
    pub statuses: Vec<Status>,
    /// HTTP answers of the requests that were not.
    pub http_refusals: Vec<StatusCode>,
    /// Requests over HTTP that got no answer.
    pub http_unanswered: usize,
}

/// Running senders.
pub struct Load {
    senders: Vec<JoinHandle<Sent>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicI64>,
}

/// What all senders of a load share.
#[derive(Clone)]
struct Shared {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicI64>,
    acknowledged: Arc<AtomicI64>,
}

impl Shared {
    fn next(&self) -> Option<std::ops::Range<i64>> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
        Some(first..first + BATCH)
    }

    fn acknowledge(&self, sent: &mut Sent, seqs: std::ops::Range<i64>) {
        sent.acknowledged.extend(seqs);
        self.acknowledged.fetch_add(BATCH, Ordering::Relaxed);
    }
}

/// A sender rests after each request: tests want concurrency, not the machine's last cycle.
async fn rest(failed: bool) {
    tokio::time::sleep(Duration::from_millis(if failed { 20 } else { 1 })).await;
}

impl Load {
    /// Starts senders, each with a connection of its own.
    pub async fn start(server: &Server, grpc: usize, http: usize) -> Load {
        let shared = Shared {
            stop: Arc::default(),
            next: Arc::default(),
            acknowledged: Arc::default(),
        };
        let mut senders = Vec::new();
        for _ in 0..grpc {
            let client = server.logs().await;
            senders.push(tokio::spawn(send_grpc(client, shared.clone())));
        }
        for _ in 0..http {
            let uri = format!("http://{}/v1/logs", server.http);
            senders.push(tokio::spawn(send_http(uri, shared.clone())));
        }
        Load {
            senders,
            stop: shared.stop,
            acknowledged: shared.acknowledged,
        }
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends the senders, each after the answer it waits for.
    pub async fn finish(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for sender in self.senders {
            let sent = sender.await.unwrap();
            all.acknowledged.extend(sent.acknowledged);
            all.statuses.extend(sent.statuses);
            all.http_refusals.extend(sent.http_refusals);
            all.http_unanswered += sent.http_unanswered;
        }
        all.acknowledged.sort_unstable();
        all
    }
}

async fn send_grpc(
    mut client: otlake::proto::collector::logs::v1::logs_service_client::LogsServiceClient<
        tonic::transport::Channel,
    >,
    shared: Shared,
) -> Sent {
    let mut sent = Sent::default();
    while let Some(seqs) = shared.next() {
        match client.export(logs("load-grpc", seqs.clone())).await {
            Ok(_) => shared.acknowledge(&mut sent, seqs),
            Err(status) => sent.statuses.push(status),
        }
        rest(!sent.statuses.is_empty()).await;
    }
    sent
}

async fn send_http(uri: String, shared: Shared) -> Sent {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut sent = Sent::default();
    while let Some(seqs) = shared.next() {
        let body = logs("load-http", seqs.clone()).encode_to_vec();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&uri)
            .header("content-type", "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answered = match client.request(request).await {
            Ok(response) => {
                let status = response.status();
                response.into_body().collect().await.ok().map(|_| status)
            }
            Err(_) => None,
        };
        match answered {
            Some(StatusCode::OK) => shared.acknowledge(&mut sent, seqs),
            Some(refused) => sent.http_refusals.push(refused),
            None => sent.http_unanswered += 1,
        }
        rest(answered != Some(StatusCode::OK)).await;
    }
    sent
}

impl Sent {
    /// Every acknowledged number is in the lake, and no number, acknowledged or not, is in it twice.
    pub fn assert_exactly_once(&self, data_dir: &std::path::Path) {
        let query = format!("SELECT {SEQ} AS seq, count(*) FROM otlp_logs GROUP BY seq");
        let found: BTreeMap<i64, u64> = super::sql(data_dir, &query)
            .into_iter()
            .map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap()))
            .collect();
        let lost: Vec<i64> = self
            .acknowledged
            .iter()
            .copied()
            .filter(|seq| !found.contains_key(seq))
            .collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged records are lost, such as {:?}",
            lost.len(),
            self.acknowledged.len(),
            lost.first()
        );
        let twice: Vec<_> = found.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "in the lake more than once: {twice:?}");
    }

    /// Nothing was refused but by words that tell a client to come back.
    pub fn assert_refusals_are_retryable(&self) {
        for status in &self.statuses {
            // The client's own word for a connection that closed before the request was sent is `Cancelled`.
            // A stream that crossed the server's last GOAWAY was never taken; tonic's client calls it internal.
            let is_retryable = matches!(status.code(), Code::Unavailable | Code::Cancelled)
                || format!("{status:?}").contains("GoAway(b\"\", NO_ERROR, Remote)");
            assert!(is_retryable, "{status:?}");
        }
        for status in &self.http_refusals {
            assert_eq!(*status, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
