//! `--protocol otap` against a server of the three Arrow services in the same process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::HeaderMap;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::*;
use crate::otap_producer::tests::reader::Reader;
use crate::proto::arrow::{ArrowPayloadType, BatchArrowRecords, BatchStatus, StatusCode};

/// What the server does.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Every batch is kept.
    Accept,
    /// Every batch is kept; the statuses come in threes, the last first, and what is left at the end.
    Backwards,
    /// Every batch is refused.
    Refuse(StatusCode, &'static str),
    /// Every batch is kept, after this many milliseconds.
    Slow(u64),
    /// No status ever.
    Silence,
    /// The stream ends well after so many statuses.
    EndAfter(usize),
    /// The stream ends badly after so many statuses.
    BreakAfter(usize, Code),
    /// Every batch is kept, and the stream ends badly.
    EndBadly,
    /// The status is for a batch that does not exist.
    Unknown,
    /// No stream is taken.
    Reject(Code),
}

/// A stream as it came.
struct Received {
    path: String,
    headers: HeaderMap,
    batches: Vec<BatchArrowRecords>,
    /// Whether the sender said that nothing follows.
    is_closed: bool,
}

#[derive(Clone)]
struct Shared {
    answer: Answer,
    streams: Arc<Mutex<Vec<Received>>>,
}

struct StreamServer {
    address: SocketAddr,
    shared: Shared,
    task: JoinHandle<()>,
}

impl StreamServer {
    async fn start(answer: Answer) -> StreamServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            answer,
            streams: Arc::default(),
        };
        let router = Router::new().fallback_service(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        StreamServer {
            address,
            shared,
            task,
        }
    }

    /// Runs the command; says whether all was acknowledged.
    async fn run(&self, line: &str) -> anyhow::Result<bool> {
        generated(&self.args(line)).await
    }

    fn args(&self, line: &str) -> SendArgs {
        parsed(&format!(
            "otlake send --protocol otap --endpoint {} --quiet {line}",
            self.address
        ))
    }

    fn streams(&self) -> Vec<Received> {
        std::mem::take(&mut self.shared.streams.lock().unwrap())
    }
}

impl Drop for StreamServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service<http::Request<Body>> for Shared {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.clone();
        let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
        Box::pin(async move {
            let place = {
                let mut streams = shared.streams.lock().unwrap();
                streams.push(Received {
                    path,
                    headers,
                    batches: Vec::new(),
                    is_closed: false,
                });
                streams.len() - 1
            };
            let codec = ProstCodec::<BatchStatus, BatchArrowRecords>::default();
            let mut grpc = Grpc::new(codec)
                .accept_compressed(CompressionEncoding::Zstd)
                .accept_compressed(CompressionEncoding::Gzip);
            Ok(grpc.streaming(Handler { shared, place }, request).await)
        })
    }
}

struct Handler {
    shared: Shared,
    place: usize,
}

impl StreamingService<BatchArrowRecords> for Handler {
    type Response = BatchStatus;
    type ResponseStream = ReceiverStream<Result<BatchStatus, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<BatchArrowRecords>>) -> Self::Future {
        if let Answer::Reject(code) = self.shared.answer {
            return std::future::ready(Err(Status::new(code, "no streams here")));
        }
        let (statuses, answers) = mpsc::channel(100);
        let (shared, place) = (self.shared.clone(), self.place);
        tokio::spawn(serve(shared, place, request.into_inner(), statuses));
        std::future::ready(Ok(Response::new(ReceiverStream::new(answers))))
    }
}

async fn serve(
    shared: Shared,
    place: usize,
    mut batches: Streaming<BatchArrowRecords>,
    statuses: mpsc::Sender<Result<BatchStatus, Status>>,
) {
    let ok = |batch_id| BatchStatus {
        batch_id,
        ..BatchStatus::default()
    };
    let (mut held, mut sent) = (Vec::new(), 0);
    loop {
        match shared.answer {
            Answer::EndAfter(most) if sent == most => return,
            Answer::BreakAfter(most, code) if sent == most => {
                let _ = statuses.send(Err(Status::new(code, "broken"))).await;
                return;
            }
            _ => {}
        }
        let Ok(Some(batch)) = batches.message().await else {
            break;
        };
        let id = batch.batch_id;
        shared.streams.lock().unwrap()[place].batches.push(batch);
        match shared.answer {
            Answer::Backwards => held.push(id),
            Answer::Silence => continue,
            Answer::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
        if matches!(shared.answer, Answer::Backwards) {
            if held.len() == 3 {
                for id in held.drain(..).rev() {
                    statuses.send(Ok(ok(id))).await.unwrap();
                }
            }
            continue;
        }
        let status = match shared.answer {
            Answer::Refuse(code, message) => BatchStatus {
                batch_id: id,
                status_code: code.into(),
                status_message: message.to_owned(),
            },
            Answer::Unknown => ok(id + 1_000),
            _ => ok(id),
        };
        sent += 1;
        let _ = statuses.send(Ok(status)).await;
    }
    for id in held {
        statuses.send(Ok(ok(id))).await.unwrap();
    }
    shared.streams.lock().unwrap()[place].is_closed = true;
    match shared.answer {
        Answer::EndBadly => {
            let end = Status::unavailable("going away");
            let _ = statuses.send(Err(end)).await;
        }
        Answer::Silence => std::future::pending().await,
        _ => {}
    }
}

/// The values of `otlake.seq` in a stream.
fn seqs(stream: &Received) -> Vec<u64> {
    let mut reader = Reader::default();
    let mut found = Vec::new();
    for (place, batch) in stream.batches.iter().enumerate() {
        assert_eq!(batch.batch_id, place as i64);
        let tables = reader.read(batch);
        for payload_type in tables.types() {
            if !matches!(
                payload_type,
                ArrowPayloadType::LogAttrs
                    | ArrowPayloadType::SpanAttrs
                    | ArrowPayloadType::NumberDpAttrs
                    | ArrowPayloadType::SummaryDpAttrs
                    | ArrowPayloadType::HistogramDpAttrs
                    | ArrowPayloadType::ExpHistogramDpAttrs
            ) {
                continue;
            }
            let attributes = tables.attributes(payload_type);
            let texts = attributes.values().flatten();
            found.extend(
                texts.filter_map(|text| text.strip_prefix("otlake.seq=2:")?.parse::<u64>().ok()),
            );
        }
    }
    found
}

/// Scenario: all signals over two connections, with and without compression of messages and of the data in them, statuses in order
/// and out of it, a token.
/// Guarantees: every record arrives once, each signal on a stream of its own service, opened with the token, closed and ended well.
#[tokio::test]
async fn every_record_arrives_once_over_streams() {
    for (answer, compression) in [
        (Answer::Accept, "none --arrow-compression zstd"),
        (Answer::Accept, "zstd --arrow-compression none"),
        (Answer::Backwards, "gzip --in-flight 3"),
    ] {
        let server = StreamServer::start(answer).await;
        let line = format!(
            "--signal all --count 205 --batch 20 --connections 2 --token 0123456789abcdef --compression {compression}"
        );
        assert!(server.run(&line).await.unwrap());
        let streams = server.streams();
        let mut seqs: Vec<u64> = streams.iter().flat_map(seqs).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (0..615).collect::<Vec<u64>>(), "{compression}");
        let paths: BTreeSet<&str> = streams.iter().map(|stream| &*stream.path).collect();
        assert_eq!(paths.len(), 3, "{paths:?}");
        for stream in &streams {
            assert!(stream.is_closed);
            assert_eq!(stream.headers["authorization"], "Bearer 0123456789abcdef");
        }
    }
}

/// The report of a run of 30 log records, ten in a batch.
async fn report(answer: Answer, more: &str) -> String {
    let server = StreamServer::start(answer).await;
    let args = server.args(&format!("--count 30 --batch 10 {more}"));
    report_of_run(&args, 30, 10).await
}

/// Scenario: statuses other than OK, none at all, streams that break, end early, badly or are refused, and a status too many.
/// Guarantees: the report says each with its code and message, and counts only what was acknowledged.
#[tokio::test]
async fn what_the_server_says_of_streams_is_reported() {
    let refuse = Answer::Refuse(StatusCode::ResourceExhausted, "disk full");
    let text = report(refuse, "").await;
    assert!(text.contains("acknowledged   0\n"), "{text}");
    let lines =
        "refused        30\n  RESOURCE_EXHAUSTED: 30 records in 3 requests\n    disk full\n";
    assert!(text.contains(lines), "{text}");

    let text = report(Answer::Silence, "--timeout 50ms").await;
    let lines = "unanswered     30\n  no answer in time: 30 records in 3 requests\n";
    assert!(text.contains(lines), "{text}");

    let text = report(Answer::Reject(Code::Unauthenticated), "--in-flight 1").await;
    let lines = "  UNAUTHENTICATED: 30 records in 3 requests\n    no streams here\n";
    assert!(text.contains(lines), "{text}");

    // The third batch finds the broken stream, or is the one that learns of it.
    let text = report(Answer::BreakAfter(2, Code::DataLoss), "--in-flight 1").await;
    let lines = "unanswered     10\n  no status, the stream ended: 10 records in 1 requests\n    DATA_LOSS: broken\n";
    let is_told = text.contains("acknowledged   20\nrefused        0\n") && text.contains(lines);
    let resent = "streams        some ended badly, after the answers to all their batches\n    DATA_LOSS: broken\n";
    let is_resent = text.contains("acknowledged   30\n") && text.contains(resent);
    assert!(is_told || is_resent, "{text}");

    let text = report(Answer::EndBadly, "").await;
    assert!(
        text.contains("acknowledged   30\nrefused        0\n"),
        "{text}"
    );
    let lines = "all their batches\n    UNAVAILABLE: going away\n";
    assert!(text.contains(lines), "{text}");

    let text = report(Answer::Unknown, "--in-flight 1").await;
    let lines = "  no status, the stream ended: 30 records in 3 requests\n    INTERNAL: the server sent a status for batch 1000, which did not wait for one\n";
    assert!(text.contains(lines), "{text}");
}

/// Scenario: a server that ends each stream well after two statuses, one batch in flight.
/// Guarantees: the sender goes on with another stream, whose batches count from 0 and can be read alone.
#[tokio::test]
async fn a_stream_that_ended_is_followed_by_another() {
    let server = StreamServer::start(Answer::EndAfter(2)).await;
    let text = report_of_run(&server.args("--in-flight 1"), 100, 10).await;
    let streams = server.streams();
    assert!(streams.len() >= 5, "{}: {text}", streams.len());
    let kept: Vec<u64> = streams.iter().flat_map(seqs).collect();
    assert!(
        text.contains(&format!("acknowledged   {}\n", kept.len())),
        "{text}"
    );
}

/// Scenario: a server that goes silent in a long run.
/// Guarantees: the run ends soon and says failure.
#[tokio::test]
async fn a_silent_server_ends_the_run_of_streams() {
    let server = StreamServer::start(Answer::Silence).await;
    let line = "--count 1000000 --batch 1 --timeout 20ms";
    assert!(!server.run(line).await.unwrap());
    let batches: usize = server
        .streams()
        .iter()
        .map(|stream| stream.batches.len())
        .sum();
    assert!(batches <= 100, "{batches}");
}

/// Scenario: a server that takes 60 ms for each of six batches, which all wait at once.
/// Guarantees: the time to an answer is that from sending the batch to its status, the last being answered sixth.
#[tokio::test]
async fn the_time_to_a_status_is_reported() {
    let server = StreamServer::start(Answer::Slow(60)).await;
    let text = report_of_run(&server.args("--in-flight 6"), 60, 10).await;
    let max = text.split("max ").nth(1).unwrap();
    let max: f64 = max.split(" ms").next().unwrap().parse().unwrap();
    assert!((300.0..5000.0).contains(&max), "{text}");
}

/// Scenario: protobuf files over streams, one of them not OTLP.
/// Guarantees: each goes out as a batch of its signal; the bad one fails alone.
#[tokio::test]
async fn files_become_batches() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(SEED, "3f9a1c07", 0);
    let plan = Plan::new(3, 3, Signal::ALL.to_vec());
    let mut files = Vec::new();
    for index in 0..3 {
        let request = plan.request(index).unwrap();
        let body = Writer::default()
            .write(
                &catalog,
                &request,
                Encoding::Protobuf,
                1_700_000_000_000_000_000,
            )
            .unwrap();
        let path = folder.path().join(format!("{}.pb", request.signal));
        fs::write(&path, body).unwrap();
        files.push(path.display().to_string());
    }
    let server = StreamServer::start(Answer::Accept).await;
    assert!(files::send(&server.args(&files.join(" "))).await.unwrap());
    let streams = server.streams();
    assert_eq!(streams.len(), 3);
    assert!(streams.iter().all(|stream| stream.is_closed));
    let mut found: Vec<u64> = streams.iter().flat_map(seqs).collect();
    found.sort_unstable();
    assert_eq!(found, (0..9).collect::<Vec<u64>>());

    let bad = folder.path().join("bad-logs.pb");
    fs::write(&bad, b"\x0a\x05no").unwrap();
    let server = StreamServer::start(Answer::Accept).await;
    let line = format!("--signal logs {} {}", bad.display(), files[0]);
    assert!(!files::send(&server.args(&line)).await.unwrap());
    assert_eq!(server.streams().iter().flat_map(seqs).count(), 3);
}

/// Scenario: batches larger than OTAP's ids.
/// Guarantees: one line that names the option and the bound, before anything is sent.
#[tokio::test]
async fn batches_that_are_too_large_are_refused_at_once() {
    let server = StreamServer::start(Answer::Accept).await;
    let error = run(server.args("--batch 65536")).await.unwrap_err();
    assert!(error.is::<UsageError>());
    assert_eq!(
        error.to_string(),
        "--batch 65536: a batch of OTAP holds 65535 records at most"
    );
    assert!(server.streams().is_empty());
}
