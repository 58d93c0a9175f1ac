//! A stop keeps what was acknowledged, tells clients to come back, and ends in time.

use std::convert::Infallible;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use otlake::proto::admin::{StatusRequest, StopRequest};
use otlake::receive::otap::stream_path;
use otlake::server_file::ServerFile;
use prost::Message as _;
use rustix::process::Signal;
use tonic::Code;

use crate::support::crash_load::{CrashLoad, Temper};
use crate::support::frames::{Http2, http2_call, http2_connect, http2_headers};
use crate::support::load::{Load, logs};
use crate::support::raw::{EXPORT_LOGS, accepted_rows};
use crate::support::{Server, ServerBuilder, data_dir, eventually, otlake, read_log, sql};

/// Waits until the server has said that it stops.
async fn stopping(server: &Server) {
    eventually("the stop", async || server.log().contains("stopping")).await;
}

/// Folders of seals that wait on disk.
fn staged_seals(dir: &std::path::Path) -> usize {
    fs::read_dir(dir.join("staged")).unwrap().count()
}

/// Sends from many connections, stops the server in the middle by `stop`, and counts with SQL.
async fn stop_under_load(stop: impl AsyncFnOnce(&Server)) {
    let mut server = Server::with(&["--seal-max-age", "100ms"]);
    let load = Load::start(&server, 3, 2).await;
    eventually("some load", async || load.acknowledged() >= 300).await;
    stop(&server).await;
    let status = tokio::task::block_in_place(|| server.wait());
    let sent = load.finish().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(ServerFile::read(&server.data_dir()).is_none());
    sent.assert_exactly_once(&server.data_dir());
    sent.assert_refusals_are_retryable();
}

/// Scenario: SIGTERM while five clients send in closed loops.
/// Guarantees: every acknowledged record is in the lake once, refusals are retryable, exit code 0, no `server.json`.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_keeps_what_was_acknowledged() {
    stop_under_load(async |server| server.signal(Signal::TERM)).await;
}

/// Scenario: the same with SIGINT, as Ctrl-C sends it.
/// Guarantees: the same.
#[tokio::test(flavor = "multi_thread")]
async fn sigint_under_load_keeps_what_was_acknowledged() {
    stop_under_load(async |server| server.signal(Signal::INT)).await;
}

/// Scenario: the same with the admin service's Stop.
/// Guarantees: the call is answered, then the same.
#[tokio::test(flavor = "multi_thread")]
async fn stop_over_the_admin_service_keeps_what_was_acknowledged() {
    stop_under_load(async |server| {
        server.admin().await.stop(StopRequest {}).await.unwrap();
    })
    .await;
}

/// Scenario: SIGTERM while clients have several batches in flight on OTAP streams; some of them send again, to the next run,
/// what was not acknowledged.
/// Guarantees: every acknowledged batch is in the lake once and whole, batches that were sent again included; streams end with
/// UNAVAILABLE, and nothing else is refused; exit code 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_streams_keeps_what_was_acknowledged() {
    let args = ["--seal-max-age", "100ms"];
    let server = Server::with(&args);
    let load = CrashLoad::over_otap(&[Temper::GivesUp, Temper::Retries]);
    load.aim(&server);
    eventually("some load", async || load.acknowledged() >= 300).await;
    let (status, dir) = tokio::task::block_in_place(|| server.stop());
    assert_eq!(status.code(), Some(0), "{}", read_log(&dir));
    load.aim_nowhere();
    let server = ServerBuilder::again(dir).args(&args).start();
    load.aim(&server);
    let before = load.acknowledged();
    eventually("more load", async || load.acknowledged() >= before + 100).await;
    let sent = load.finish().await;
    sent.assert_refusals_are_retryable();
    server.flush().await;
    sent.assert_exactly_once(&server.data_dir());
}

/// Scenario: SIGTERM in the moment in which `server.json` appears.
/// Guarantees: that is a graceful stop already, not the death of an unprepared process.
#[test]
fn sigterm_right_after_the_start_is_graceful() {
    for _ in 0..5 {
        let (status, dir) = Server::start().stop();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(ServerFile::read(&data_dir(&dir)).is_none());
    }
}

/// Scenario: the buffer holds rows that no seal has taken yet when the stop comes.
/// Guarantees: they are in the lake after it, in a seal whose cause says so.
#[tokio::test]
async fn stop_commits_the_open_buffer() {
    let server = Server::start();
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    let (status, dir) = server.stop();
    assert_eq!(status.code(), Some(0));
    let seals = sql(&data_dir(&dir), "SELECT cause, rows FROM otlake_seals");
    assert_eq!(seals, [["stop", "10"]]);
}

/// Scenario: half of a request's body is on its way when the stop comes, the other half follows.
/// Guarantees: the request is answered with success, and its rows are in the lake.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_taken_in() {
    let mut server = Server::start();
    let body = logs("a", 0..10).encode_to_vec();
    let mut socket = begin_request(&server, &body);
    server.signal(Signal::TERM);
    stopping(&server).await;
    socket.write_all(&body[body.len() / 2..]).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
}

/// Sends head and first half of a request's body, and waits until the server has begun with it.
fn begin_request(server: &Server, body: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(server.http).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // The server answers 100 once it reads the body.
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut proceed = [0; 25];
    socket.read_exact(&mut proceed).unwrap();
    assert_eq!(&proceed, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(&body[..body.len() / 2]).unwrap();
    socket
}

/// Sends the head of a gRPC request whose body never comes; it is given up when the answer is dropped.
async fn stall_over_grpc(server: &Server) -> tokio::task::JoinHandle<()> {
    let body = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = http::Request::post(format!(
        "http://{}/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        server.grpc
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(body)
    .unwrap();
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let stalled = tokio::spawn(async move {
        let _ = client.request(request).await;
    });
    let mut admin = server.admin().await;
    eventually("a connection", async || {
        let status = admin.status(StatusRequest {}).await.unwrap();
        // This one, that of the admin client, and the test's others.
        status.into_inner().connections >= 4
    })
    .await;
    stalled
}

/// Scenario: on each port one client stalls in the middle of a request and never goes on.
/// Guarantees: both together get half of the time, and the stop ends with the acknowledged rows in the lake.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_clients_do_not_hold_up_the_stop() {
    let mut server = Server::with(&["--seal-max-age", "1h", "--shutdown-grace", "4s"]);
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    let body = logs("a", 10..20).encode_to_vec();
    let _over_http = begin_request(&server, &body);
    let _over_grpc = stall_over_grpc(&server).await;
    let started = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let took = started.elapsed();
    assert!(took > Duration::from_secs(1), "nobody stalled: {took:?}");
    assert!(took < Duration::from_millis(3800), "{took:?}");
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
}

/// Scenario: peers over HTTP/2 that have fallen asleep: on a connection without a request, in an OTAP stream, after an answer.
/// None of them says anything to the server's farewell.
/// Guarantees: nobody waits for them as for a request in flight, for which there is half of the time; the rows are in the lake.
#[tokio::test(flavor = "multi_thread")]
async fn sleeping_peers_do_not_hold_up_the_stop() {
    let mut server = Server::with(&["--seal-max-age", "1h", "--shutdown-grace", "100s"]);
    let message = logs("a", 0..10).encode_to_vec();
    let mut answered = Http2::connect(server.grpc);
    answered.send(&http2_call(1, EXPORT_LOGS, &message));
    assert_eq!(answered.header(1, "grpc-status"), "0");
    let mut streaming = Http2::connect(server.grpc);
    let path = stream_path(otlake::signal::Signal::Logs);
    streaming.send(&http2_headers(1, path, "application/grpc"));
    let _silent = [server.grpc, server.http].map(http2_connect);
    let started = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!(!server.log().contains("did not end in time"));
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
}

/// Scenario: the stop waits for a lake that is away; clients knock, on open connections and on new ones.
/// Guarantees: UNAVAILABLE and refused connections, nothing that looks like success.
#[tokio::test(flavor = "multi_thread")]
async fn requests_during_the_stop_are_turned_away() {
    let mut server = Server::with(&["--seal-max-age", "1h", "--shutdown-grace", "2s"]);
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    let lake = server.data_dir().join("lake");
    let away = server.data_dir().join("away");
    fs::rename(&lake, &away).unwrap();
    server.signal(Signal::TERM);
    stopping(&server).await;
    eventually("a closed port", async || {
        TcpStream::connect(server.http).is_err() && TcpStream::connect(server.grpc).is_err()
    })
    .await;
    assert!(server.child.try_wait().unwrap().is_none(), "still stopping");
    let status = client.export(logs("a", 10..20)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(server.wait().code(), Some(0));
    fs::rename(&away, &lake).unwrap();
}

/// Scenario: the lake is away for the whole stop, and back for the next start.
/// Guarantees: the stop ends in its time with exit code 0 and the seals on disk; the next run publishes them, once;
/// a flush then has nothing left to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn stop_without_a_lake_leaves_the_seals_for_the_next_start() {
    let server = Server::with(&["--seal-max-age", "50ms", "--shutdown-grace", "1s"]);
    let load = Load::start(&server, 2, 1).await;
    eventually("some load", async || load.acknowledged() >= 100).await;
    let (lake, away) = (
        server.data_dir().join("lake"),
        server.data_dir().join("away"),
    );
    fs::rename(&lake, &away).unwrap();
    let before = load.acknowledged();
    eventually("more load", async || load.acknowledged() >= before + 100).await;
    let started = Instant::now();
    let (status, dir) = tokio::task::block_in_place(|| server.stop());
    let sent = load.finish().await;
    assert_eq!(status.code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert!(staged_seals(&data_dir(&dir)) > 0);
    sent.assert_refusals_are_retryable();

    fs::rename(&away, &lake).unwrap();
    let server = ServerBuilder::again(dir)
        .args(&["--seal-max-age", "1h"])
        .start();
    server.flush().await;
    sent.assert_exactly_once(&server.data_dir());
    assert_eq!(staged_seals(&server.data_dir()), 0);
    let twice = "SELECT count(*) FROM (SELECT 1 FROM otlake_seals GROUP BY writer_id, seal_id HAVING count(*) > 1)";
    assert_eq!(server.count(twice), 0);
}

/// Scenario: a second signal while the stop waits for a lake that is away.
/// Guarantees: the process ends at once, and its exit code is not 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT)] {
        let mut server = Server::start();
        let mut client = server.logs().await;
        client.export(logs("a", 0..10)).await.unwrap();
        fs::rename(
            server.data_dir().join("lake"),
            server.data_dir().join("away"),
        )
        .unwrap();
        server.signal(first);
        eventually("a staged seal", async || {
            staged_seals(&server.data_dir()) == 1
        })
        .await;
        // For a second after the first one, further signals count as the same.
        let started = Instant::now();
        let status = loop {
            server.signal(second);
            if let Some(status) = server.child.try_wait().unwrap() {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.code().is_some_and(|code| code != 0), "{status}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
        assert!(!server.data_dir().join("server.json").exists());
    }
}

/// Scenario: the same wish arrives as several signals, milliseconds apart, as from senders that signal a process and its
/// group.
/// Guarantees: it is one graceful stop; every acknowledged row is in the lake.
#[tokio::test(flavor = "multi_thread")]
async fn signals_in_quick_succession_are_one_stop() {
    let mut server = Server::start();
    let mut client = server.logs().await;
    client.export(logs("a", 0..1000)).await.unwrap();
    server.signal(Signal::TERM);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if server.child.try_wait().unwrap().is_none() {
            server.signal(Signal::TERM);
        }
    }
    assert!(server.wait().success());
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 1000);
}

/// Scenario: `otlake send` over each protocol, at an even pace, while the server stops and starts again at the same addresses.
/// Guarantees: the sender does not give up: what it sends afterwards is acknowledged too, and what it counts is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_outlives_a_restart() {
    for protocol in ["grpc", "http", "otap"] {
        let server = Server::start();
        let (grpc, http) = (server.grpc.to_string(), server.http.to_string());
        let endpoint = if protocol == "http" { &http } else { &grpc };
        let line = format!("--endpoint {endpoint} --protocol {protocol} --count 4000 --batch 1");
        let sender = otlake()
            .arg("send")
            .args(line.split(' '))
            .args(["--rate", "1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let rows = async |server: &Server| {
            server.flush().await;
            server.count("SELECT count(*) FROM otlp_logs")
        };
        eventually("rows before the restart", async || {
            accepted_rows(&server.status().await) > 0
        })
        .await;
        let (status, dir) = server.stop();
        assert_eq!(status.code(), Some(0));
        let again = ["--grpc-listen", &grpc, "--http-listen", &http];
        let server = ServerBuilder::again(dir).args(&again).start();
        let before = rows(&server).await;
        let output = tokio::task::block_in_place(|| sender.wait_with_output()).unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(!report.contains("ended early"), "{report}");
        let acknowledged = report
            .lines()
            .find_map(|line| line.strip_prefix("acknowledged"));
        let acknowledged: i64 = acknowledged.unwrap().trim().parse().unwrap();
        let arrived = rows(&server).await;
        assert!(
            arrived > before && arrived >= acknowledged,
            "{before} {arrived} {report}"
        );
        let distinct =
            "SELECT count(DISTINCT CAST(log_attributes ->> 'otlake.seq' AS BIGINT)) FROM otlp_logs";
        assert_eq!(server.count(distinct), arrived, "{report}");
    }
}
