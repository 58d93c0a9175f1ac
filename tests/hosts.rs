//! Which hosts a server on a loopback address answers for: a site can point its name there (DNS rebinding).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::raw::{EXPORT_LOGS, accepted_rows, frame, refused};
use crate::support::telemetry::{log, logs};
use crate::support::{Server, ServerBuilder};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const OTAP_LOGS: &str = "/opentelemetry.proto.experimental.arrow.v1.ArrowLogsService/ArrowLogs";

/// What another site is called, in the ways in which a request can name it; and what looks like this machine.
const FOREIGN: [&str; 12] = [
    "evil.example",
    "evil.example:4318",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "localhost@evil.example",
    "otlake",
    "192.168.1.5:4318",
    "0.0.0.0:4318",
    "[2001:db8::1]:4318",
    "127.1",
    "a b",
];

/// What this machine is called by whoever runs on it.
const OWN: [&str; 9] = [
    "localhost",
    "LocalHost:4318",
    "localhost.",
    "app.localhost:1",
    "127.0.0.1",
    "127.9.8.7:4318",
    "[::1]",
    "[::1]:4318",
    "[::ffff:127.0.0.1]:4318",
];

/// Sends these bytes on a connection of their own and reads all that is answered.
fn say(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// POSTs a log record to the target, with these header lines.
fn post(address: SocketAddr, target: &str, version: &str, lines: &str) -> String {
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1"}]}]}]}"#;
    let head = format!(
        "POST {target} HTTP/{version}\r\n{lines}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    say(address, &format!("{head}{body}"))
}

/// Calls a gRPC method with one log record, under any `:authority`; and whatever `Host` comes beside it.
///
/// The connection ends without a farewell, which can be a reset: the record names the authority, so that the next call
/// is not taken for a retry of this one.
async fn call(address: SocketAddr, path: &str, authority: &str, host: Option<&str>) -> Status {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let message = match path {
        EXPORT_LOGS => frame(false, &logs(vec![log(authority)]).encode_to_vec()),
        _ => frame(false, &[]),
    };
    let mut request = Request::post(format!("http://{authority}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let request = request.body(Full::new(Bytes::from(message))).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned();
    drop(sender);
    connection.abort();
    Status::from_header_map(&parts.headers)
        .or_else(|| Status::from_header_map(&trailers.unwrap_or_default()))
        .unwrap()
}

/// Scenario: requests for other sites' names at a loopback address over HTTP/1.1: in the header, in one of two headers,
/// in the target; to the paths of OTLP and to a probe.
/// Guarantees: 403 that names the flag, nothing is taken in, and each is counted and logged.
#[tokio::test]
async fn other_hosts_are_refused_over_http() {
    let server = Server::start();
    let mut refusals = 0;
    let mut refuse = |answer: String| {
        refusals += 1;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains("--allowed-host"), "{answer}");
    };
    for host in FOREIGN {
        let lines = format!("host: {host}\r\n");
        refuse(post(server.http, "/v1/logs", "1.1", &lines));
        refuse(say(
            server.http,
            &format!("GET /healthz HTTP/1.1\r\n{lines}connection: close\r\n\r\n"),
        ));
    }
    let two = "host: localhost\r\nhost: evil.example\r\n";
    refuse(post(server.http, "/v1/logs", "1.1", two));
    let target = "http://evil.example/v1/logs";
    refuse(post(server.http, target, "1.1", "host: localhost\r\n"));
    let status = server.status().await;
    assert_eq!(refused(&status, "http", "forbidden_host"), (refusals, 0));
    assert_eq!(accepted_rows(&status), 0);
    assert!(!server.refusals_logged("forbidden_host").is_empty());
}

/// Scenario: requests for the machine itself, in every way to name it; and without a host, as HTTP/1.0 allows.
/// Guarantees: taken in over HTTP and gRPC.
#[tokio::test]
async fn the_machines_own_names_are_let_in() {
    let server = Server::start();
    for host in OWN {
        let lines = format!("host: {host}\r\n");
        let answer = post(server.http, "/v1/logs", "1.1", &lines);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        let status = call(server.grpc, EXPORT_LOGS, host, None).await;
        assert_eq!(status.code(), Code::Ok, "{host}: {status:?}");
    }
    let answer = post(server.http, "/v1/logs", "1.0", "");
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    let rows = 2 * OWN.len() as u64 + 1;
    assert_eq!(accepted_rows(&server.status().await), rows);
}

/// Scenario: gRPC calls to a loopback address whose `:authority` or `host` is another site's: OTLP, OTAP, health.
/// Guarantees: PERMISSION_DENIED that names the flag, nothing is taken in.
#[tokio::test]
async fn other_hosts_are_refused_over_grpc() {
    let server = Server::start();
    let mut refusals = 0;
    for (authority, host) in [
        ("evil.example:4317", None),
        ("192.168.1.5:4317", None),
        ("localhost:4317", Some("evil.example")),
    ] {
        for path in [EXPORT_LOGS, OTAP_LOGS, HEALTH] {
            let status = call(server.grpc, path, authority, host).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{authority} {path}");
            assert!(status.message().contains("--allowed-host"), "{status:?}");
            refusals += 1;
        }
    }
    let status = server.status().await;
    assert_eq!(refused(&status, "grpc", "forbidden_host"), (refusals, 0));
    assert_eq!(accepted_rows(&status), 0);
}

/// Scenario: names that were allowed, in another case and with a port; and every name by `*`.
/// Guarantees: they pass over both protocols, others are refused still.
#[tokio::test]
async fn configured_hosts_are_let_in() {
    let args = ["--allowed-host", "Telemetry.example,[fd00::1]"];
    let server = Server::with(&args);
    for (host, is_allowed) in [
        ("telemetry.EXAMPLE:80", true),
        ("[fd00::1]:4318", true),
        ("localhost", true),
        ("sub.telemetry.example", false),
        ("evil.example", false),
    ] {
        let answer = post(server.http, "/v1/logs", "1.1", &format!("host: {host}\r\n"));
        let code = if is_allowed { "200" } else { "403" };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{host}: {answer}"
        );
        let status = call(server.grpc, EXPORT_LOGS, host, None).await;
        assert_eq!(status.code() == Code::Ok, is_allowed, "{host}: {status:?}");
    }
    let server = Server::with(&["--allowed-host", "*"]);
    let answer = post(server.http, "/v1/logs", "1.1", "host: evil.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Scenario: a server on every address, as in a container, is asked for by any name.
/// Guarantees: it takes requests for all of them; a page's `Origin` is refused all the same.
#[tokio::test]
async fn servers_that_others_reach_answer_for_every_host() {
    let server = ServerBuilder::new()
        .args(&["--http-listen", "0.0.0.0:0"])
        .args(&["--grpc-listen", "0.0.0.0:0", "--no-auth"])
        .start();
    for host in ["otlake", "otlake.observability.svc:4318"] {
        let answer = post(server.http, "/v1/logs", "1.1", &format!("host: {host}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        let status = call(server.grpc, EXPORT_LOGS, host, None).await;
        assert_eq!(status.code(), Code::Ok, "{host}: {status:?}");
    }
    let page = "host: otlake\r\norigin: http://otlake\r\n";
    let answer = post(server.http, "/v1/logs", "1.1", page);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("--cors-origin"), "{answer}");
}
