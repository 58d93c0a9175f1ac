//! Clients that go away while their rows are being kept. The server's receivers run in the test, before a keeper that
//! keeps when it is told to.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use otlake::memory::Budget;
use otlake::receive::intake::{Intake, Keep, Receipt};
use otlake::receive::listener::{self, ConnectionLimits, Served};
use otlake::receive::refusal::Refusal;
use otlake::receive::retries::Retries;
use otlake::receive::{grpc, http as otlp_http};
use otlake::rows::Rows;
use otlake::signal::{Protocol, Signal};
use otlake::telemetry::{Counters, Reason};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tonic::Code;

use crate::support::eventually;
use crate::support::frames::{
    HEADERS, PING, http2_call, http2_cancel, http2_connect, http2_ping, read_until,
};
use crate::support::raw::{EXPORT_LOGS, PROTOBUF, call, frame, post};
use crate::support::telemetry::{log, logs};

/// Holds what it is given until the test decides.
#[derive(Default)]
struct Held {
    waiting: Mutex<Vec<(Rows, Receipt)>>,
    kept: AtomicUsize,
}

impl Keep for Held {
    fn keep(&self, rows: Rows, receipt: Receipt) {
        self.waiting.lock().unwrap().push((rows, receipt));
    }
}

struct Receiver {
    held: Arc<Held>,
    counters: Arc<Counters>,
    retries: Arc<Retries>,
    open: Arc<AtomicUsize>,
    grpc: SocketAddr,
    http: SocketAddr,
    _stop: watch::Sender<bool>,
}

impl Receiver {
    async fn start() -> Receiver {
        let held = Arc::new(Held::default());
        let counters = Arc::new(Counters::default());
        let retries = Retries::new(Duration::from_secs(300), 1, Box::new(|_| {}));
        let intake = Intake::new(
            Budget::new(64 << 20),
            Arc::clone(&counters),
            Arc::clone(&held) as Arc<dyn Keep>,
            Arc::clone(&retries),
            16 << 20,
        );
        let limits = ConnectionLimits {
            permits: Arc::new(Semaphore::new(100)),
            open: Arc::default(),
            max_concurrent_streams: 100,
        };
        let open = Arc::clone(&limits.open);
        let (_stop, stop) = watch::channel(false);
        let serve = async |router: Router, protocol| {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let served = Served {
                router,
                protocol,
                secured: None,
                retries: Arc::clone(&retries),
                counters: Arc::clone(&counters),
            };
            let (limits, stop) = (limits.clone(), stop.clone());
            tokio::spawn(listener::serve(socket, served, limits, stop));
            address
        };
        Receiver {
            grpc: serve(grpc::with_exports(Router::new(), &intake), Protocol::Grpc).await,
            http: serve(otlp_http::routes(&intake), Protocol::Http).await,
            held,
            counters,
            retries,
            open,
            _stop,
        }
    }

    fn waiting(&self) -> usize {
        self.held.waiting.lock().unwrap().len()
    }

    /// Waits until so many requests wait to be kept.
    async fn wait_for(&self, waiting: usize) {
        eventually("the requests' arrival", async || self.waiting() == waiting).await;
    }

    /// Waits until so many connections are open.
    async fn wait_for_connections(&self, open: usize) {
        eventually("the end of a connection", async || {
            self.open.load(std::sync::atomic::Ordering::Relaxed) == open
        })
        .await;
    }

    /// Keeps everything that waits.
    fn keep(&self) {
        for (_, receipt) in self.take() {
            receipt.finish(Ok(()));
            let kept = &self.held.kept;
            kept.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn take(&self) -> Vec<(Rows, Receipt)> {
        std::mem::take(&mut *self.held.waiting.lock().unwrap())
    }

    fn kept(&self) -> usize {
        self.held.kept.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Requests accepted as new, and those recognised as retries.
    fn counted(&self, protocol: Protocol) -> (u64, u64) {
        let accepted = self.counters.accepted(Signal::Logs, protocol);
        (accepted.requests, accepted.repeated)
    }
}

fn request(text: &str) -> Bytes {
    logs(vec![log(text)]).encode_to_vec().into()
}

/// Sends a request over HTTP/1.1 and keeps the connection.
async fn send(receiver: &Receiver, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(receiver.http).await.unwrap();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// Sends a request over HTTP/1.1 in a task of its own; answers with the status.
fn retry(receiver: &Receiver, body: &Bytes) -> tokio::task::JoinHandle<u16> {
    let (address, body) = (receiver.http, body.clone());
    tokio::spawn(async move {
        let headers = [("content-type", PROTOBUF)];
        post(address, "/v1/logs", &headers, body)
            .await
            .status
            .as_u16()
    })
}

/// Scenario: a client over HTTP/1.1 goes away while its rows are being kept; the rows are kept; it comes again twice.
/// Guarantees: kept once and counted as accepted; the first repetition is answered at once, the second one is new.
#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_kept_once() {
    let receiver = Receiver::start().await;
    let body = request("once");
    let stream = send(&receiver, &body).await;
    receiver.wait_for(1).await;
    drop(stream);
    receiver.wait_for_connections(0).await;
    assert_eq!(receiver.counted(Protocol::Http), (0, 0));
    receiver.keep();
    assert_eq!(receiver.counted(Protocol::Http), (1, 0));
    assert_eq!(receiver.retries.len(), 1);
    assert_eq!(retry(&receiver, &body).await.unwrap(), 200);
    assert_eq!(receiver.counted(Protocol::Http), (1, 1));
    let second = retry(&receiver, &body);
    receiver.wait_for(1).await;
    receiver.keep();
    assert_eq!(second.await.unwrap(), 200);
    assert_eq!((receiver.kept(), receiver.retries.len()), (2, 0));
}

/// Scenario: the client comes again while its first request is still being kept; that one is kept, refused, or given up.
/// Guarantees: the retry waits; it is answered if the first one was kept, and otherwise kept itself.
#[tokio::test]
async fn a_retry_waits_for_the_decision() {
    for is_kept in [true, false] {
        let receiver = Receiver::start().await;
        let body = request("once");
        let stream = send(&receiver, &body).await;
        receiver.wait_for(1).await;
        drop(stream);
        receiver.wait_for_connections(0).await;
        let again = retry(&receiver, &body);
        receiver.wait_for_connections(1).await;
        let other = retry(&receiver, &request("another"));
        receiver.wait_for(2).await;
        assert!(!again.is_finished() && !other.is_finished());
        if is_kept {
            receiver.keep();
            assert_eq!(again.await.unwrap(), 200);
            assert_eq!(receiver.counted(Protocol::Http), (2, 1));
        } else {
            let refusal = Refusal::new(Reason::Stopping, "no more");
            for (_, receipt) in receiver.take() {
                receipt.finish(Err(refusal.clone()));
            }
            assert_eq!(other.await.unwrap(), 503);
            receiver.wait_for(1).await;
            receiver.keep();
            assert_eq!(again.await.unwrap(), 200);
            assert_eq!(receiver.counted(Protocol::Http), (1, 0));
        }
        assert_eq!(receiver.retries.len(), 0);
    }
}

/// Scenario: whoever keeps the rows drops a receipt.
/// Guarantees: the request is refused as our own fault, counted, and not remembered.
#[tokio::test]
async fn a_receipt_that_is_dropped_refuses_the_request() {
    let receiver = Receiver::start().await;
    let waiting = retry(&receiver, &request("once"));
    receiver.wait_for(1).await;
    drop(receiver.take());
    assert_eq!(waiting.await.unwrap(), 500);
    let accepted = receiver.counters.accepted(Signal::Logs, Protocol::Http);
    assert_eq!((accepted.requests, accepted.refused_requests), (0, 1));
    assert!(receiver.retries.is_empty());
}

/// Scenario: a gRPC client drops its call while the rows are being kept, and calls again in the same packet; then the
/// rows are kept. Many times.
/// Guarantees: kept once, whichever task hears of it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_and_repeated_at_once_is_kept_once() {
    let receiver = Receiver::start().await;
    let mut stream = http2_connect(receiver.grpc);
    let mut kept_twice = 0;
    for round in 0..100_u32 {
        let message = request(&format!("round {round}"));
        let (first, again) = (4 * round + 1, 4 * round + 3);
        let call = http2_call(first, EXPORT_LOGS, &message);
        stream.write_all(&call).unwrap();
        receiver.wait_for(1).await;
        let call = http2_call(again, EXPORT_LOGS, &message);
        let in_one = [http2_cancel(first), call, http2_ping()].concat();
        stream.write_all(&in_one).unwrap();
        read_until(&mut stream, PING, 0);
        // The retry waits for the first one, and so does not come here.
        tokio::time::sleep(Duration::from_millis(2)).await;
        kept_twice += receiver.waiting() - 1;
        receiver.keep();
        read_until(&mut stream, HEADERS, again);
    }
    assert_eq!(kept_twice, 0);
    let (requests, repeated) = receiver.counted(Protocol::Grpc);
    assert_eq!(requests + repeated, 200);
}

/// Scenario: rows are kept just after the deadline that the call has given, and its answer is sent all the same.
/// Guarantees: it counts as not delivered; the retry is answered and not kept.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_delivered() {
    let receiver = Receiver::start().await;
    let message = frame(false, &request("once"));
    let late = tokio::spawn({
        let (address, message) = (receiver.grpc, message.clone());
        async move { call(address, EXPORT_LOGS, &[("grpc-timeout", "100m")], message).await }
    });
    receiver.wait_for(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    receiver.keep();
    assert_eq!(late.await.unwrap().status.code(), Code::Ok);
    assert_eq!(receiver.retries.len(), 1);
    let again = call(receiver.grpc, EXPORT_LOGS, &[], message).await;
    assert_eq!(again.status.code(), Code::Ok);
    assert_eq!(receiver.counted(Protocol::Grpc), (1, 1));
    assert_eq!((receiver.kept(), receiver.waiting()), (1, 0));
}

/// Scenario: a connection breaks while some of its calls wait and one has just been answered.
/// Guarantees: all that are kept in the end are remembered.
#[tokio::test]
async fn a_connection_that_breaks_loses_all_its_answers() {
    let receiver = Receiver::start().await;
    let bodies: Vec<Bytes> = (0..3).map(|number| request(&format!("{number}"))).collect();
    let mut streams = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        streams.push(send(&receiver, body).await);
        receiver.wait_for(number + 1).await;
    }
    // The first is answered, and its answer left unread.
    let (_, receipt) = receiver.held.waiting.lock().unwrap().remove(0);
    receipt.finish(Ok(()));
    streams[0].readable().await.unwrap();
    drop(streams);
    receiver.wait_for_connections(0).await;
    assert_eq!(receiver.retries.len(), 1);
    receiver.keep();
    assert_eq!(receiver.retries.len(), 3);
    for body in &bodies {
        assert_eq!(retry(&receiver, body).await.unwrap(), 200);
    }
    assert_eq!(receiver.counted(Protocol::Http), (3, 3));
}
