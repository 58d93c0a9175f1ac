//! `otlake tail`: what it shows and leaves out, how it ends, and that nobody waits for it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use otlake::proto::admin::{TailRequest, TailResponse};
use prost::Message as _;
use rustix::process::Signal;
use tonic::Streaming;

use crate::support::open_metrics::open_metrics;
use crate::support::raw::{EXPORT_LOGS, EXPORT_TRACES, JSON, call, frame};
use crate::support::telemetry::{attribute, log, logs_of, span, spans};
use crate::support::{PATIENCE, Server, ServerBuilder, eventually, otlake};

/// A running `otlake tail`.
struct Tail {
    child: Child,
    /// There until it is closed.
    out: Option<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
}

impl Tail {
    /// Starts it, and waits until it watches.
    fn start(server: &Server, args: &[&str]) -> Tail {
        let mut command = otlake();
        command.arg("tail").args(args);
        command.arg("--data-dir").arg(server.data_dir());
        let mut tail = Tail::spawn(command);
        let mut first = String::new();
        tail.err.read_line(&mut first).unwrap();
        assert!(first.contains("watching"), "{first}");
        tail
    }

    fn spawn(mut command: Command) -> Tail {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        Tail {
            out: child.stdout.take().map(BufReader::new),
            err: BufReader::new(child.stderr.take().unwrap()),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let out = self.out.as_mut().unwrap();
        assert!(out.read_line(&mut line).unwrap() > 0, "it has ended");
        line.strip_suffix('\n').unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; answers what it said then.
    fn end(mut self) -> (ExitStatus, String, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(rest) = &mut self.out {
            rest.read_to_string(&mut out).unwrap();
        }
        self.err.read_to_string(&mut err).unwrap();
        (status, out, err)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn send_log(server: &Server, service: &str, body: &str) {
    let request = logs_of(vec![attribute("service.name", service)], vec![log(body)]);
    let sent = call(
        server.grpc,
        EXPORT_LOGS,
        &[],
        frame(false, &request.encode_to_vec()),
    )
    .await;
    assert_eq!(sent.status.code(), tonic::Code::Ok);
}

async fn send_span(server: &Server) {
    let request = spans(vec![span(7)]).encode_to_vec();
    let sent = call(server.grpc, EXPORT_TRACES, &[], frame(false, &request)).await;
    assert_eq!(sent.status.code(), tonic::Code::Ok);
}

fn send(server: &Server, args: &[&str]) {
    let url = format!("http://{}", server.grpc);
    let mut send = otlake();
    send.args(["send", "--endpoint", &url]).args(args);
    let sent = send.output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
}

/// Scenario: a tail; then records over gRPC, OTAP and HTTP, and a request that is refused; then Ctrl-C.
/// Guarantees: a line for each record that was accepted, in order, with time, signal, service and what it is; nothing of what
/// was refused. Ctrl-C ends it with exit code 0 and without a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_shown() {
    let server = Server::start();
    send_log(&server, "before", "nobody watches").await;
    let mut tail = Tail::start(&server, &[]);
    send_log(&server, "shop", "hello").await;
    let told = tail.line();
    assert_eq!(
        told,
        "2026-02-02T02:40:00.000Z  logs     shop              hello"
    );
    send_span(&server).await;
    let told = tail.line();
    assert!(
        told.contains("  traces ") && told.ends_with("  span 7 (1us)"),
        "{told}"
    );
    send(&server, &["--protocol", "otap", "--count", "3"]);
    for _ in 0..3 {
        let told = tail.line();
        assert!(told.contains("  logs "), "{told}");
    }
    let broken = server
        .post("/v1/logs", &[("content-type", JSON)], "{")
        .await;
    assert_eq!(broken.status, 400);
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"paid"}]}]}]}"#;
    let sent = server
        .post("/v1/logs", &[("content-type", JSON)], body)
        .await;
    assert_eq!(sent.status, 200);
    let told = tail.line();
    assert!(
        told.ends_with("  logs     unknown_service   paid"),
        "{told}"
    );
    tail.signal(Signal::INT);
    let (status, out, err) = tail.end();
    assert_eq!(status.code(), Some(0), "{err}");
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
    eventually("the tail's end", async || {
        open_metrics(&server.get("/metrics").await.text()).sum("otlake_tails") == 0.0
    })
    .await;
}

/// Scenario: tails of one service, of two signals, of a signal that there is not; in JSON.
/// Guarantees: each shows what it asks for and nothing else; a line is an object with what the record has.
#[tokio::test(flavor = "multi_thread")]
async fn tails_show_what_they_ask_for() {
    let server = Server::start();
    let mut shop = Tail::start(&server, &["--service", "shop", "--json"]);
    let mut spans = Tail::start(&server, &["--signal", "traces", "--signal", "metrics"]);
    for (service, body) in [("other", "1"), ("shop", "2"), ("sho", "3"), ("shop", "4")] {
        send_log(&server, service, body).await;
    }
    for body in ["2", "4"] {
        let object: serde_json::Value = serde_json::from_str(&shop.line()).unwrap();
        let expected = serde_json::json!({
            "time": "2026-02-02T02:40:00.000000000Z", "signal": "logs", "service": "shop", "body": body,
            "attributes": {},
        });
        let mut object = object;
        // Whether there are none or an empty object is the table's matter.
        object["attributes"] = serde_json::json!({});
        assert_eq!(object, expected);
    }
    send_span(&server).await;
    assert!(spans.line().contains("span 7"));
    send(&server, &["--signal", "metrics", "--count", "1"]);
    assert!(spans.line().contains("  metrics "));

    let unknown = otlake()
        .args(["tail", "--signal", "spans"])
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

/// Scenario: the server stops, and is killed, while tails watch; and nobody reads a tail's output any more.
/// Guarantees: the first two end with exit code 1 and one line that says why, and hold no stop up; the last with 0 and silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_a_clear_line() {
    let server = Server::start();
    let tail = Tail::start(&server, &[]);
    let began = Instant::now();
    let (stopped, _dir) = server.stop();
    assert!(stopped.success());
    // A stop that waited for it would take half of --shutdown-grace.
    assert!(began.elapsed().as_secs() < 12);
    let (status, _, err) = tail.end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(err, "error: the tail has ended: the server is stopping\n");

    let server = Server::start();
    let tail = Tail::start(&server, &[]);
    let _dir = server.kill();
    let (status, _, err) = tail.end();
    assert_eq!(status.code(), Some(1));
    assert!(
        err.contains("has the server ended?") && err.lines().count() == 1,
        "{err}"
    );

    let server = Server::start();
    let mut tail = Tail::start(&server, &[]);
    tail.out = None;
    send_log(&server, "shop", "hello").await;
    let (status, _, err) = tail.end();
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

/// Scenario: a server with tokens for each role.
/// Guarantees: a tail needs one for `query`.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_needs_the_role_query() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let tokens = "agents ingest 0123456789abcdef-agents\nboard query 0123456789abcdef-board\n";
    std::fs::write(&path, tokens).unwrap();
    let builder = ServerBuilder::new().args(&["--token-file", path.to_str().unwrap()]);
    let server = builder.start();
    let tail = Tail::start(&server, &["--token", "0123456789abcdef-board"]);
    drop(tail);
    for token in ["0123456789abcdef-agents", "0123456789abcdef-wrong"] {
        let mut command = otlake();
        command.args(["tail", "--token", token, "--data-dir"]);
        let (status, _, err) = Tail::spawn_in(command.arg(server.data_dir())).end();
        assert_eq!(status.code(), Some(1));
        assert!(err.contains("token") && !err.contains(token), "{err}");
    }
}

impl Tail {
    fn spawn_in(command: &mut Command) -> Tail {
        let mut own = otlake();
        own.args(command.get_args());
        Tail::spawn(own)
    }
}

/// A tail whose client reads nothing.
async fn silent_tail(server: &Server) -> Streaming<TailResponse> {
    let request = TailRequest::default();
    server
        .admin()
        .await
        .tail(request)
        .await
        .unwrap()
        .into_inner()
}

/// Scenario: as many tails as are served, none of which is read, while a hundred thousand records with long bodies arrive; one
/// more tail; then all are read.
/// Guarantees: everything is accepted; each record is either shown or told as skipped, to each; the tail beyond the bound is
/// refused; the places are free again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_tail() {
    let server = Server::start();
    let mut tails = Vec::new();
    for _ in 0..8 {
        tails.push(silent_tail(&server).await);
    }
    let refused = server.admin().await.tail(TailRequest::default()).await;
    assert!(refused.unwrap_err().message().contains("8 tails"));
    let records = 100_000;
    send(
        &server,
        &["--count", "100000", "--batch", "500", "--connections", "4"],
    );
    let page = open_metrics(&server.get("/metrics").await.text());
    assert_eq!(page.sum("otlake_tails"), 8.0);
    assert!(page.sum("otlake_tail_skipped_records_total") > 0.0);
    for mut tail in tails {
        let (mut seen, mut skipped) = (0, 0);
        while seen + skipped < records {
            let message = tail.message().await.unwrap().unwrap();
            seen += message.records.len() as u64;
            skipped += message.skipped;
        }
        assert_eq!(seen + skipped, records);
        assert!(seen > 0 && skipped > 0);
    }
    eventually("the tails' end", async || {
        open_metrics(&server.get("/metrics").await.text()).sum("otlake_tails") == 0.0
    })
    .await;
    drop(silent_tail(&server).await);
}
