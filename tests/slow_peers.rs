//! Peers that are slow, silent or restless do not keep others out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use otlake::receive::otap::stream_path;
use otlake::signal::Signal;
use prost::Message as _;

use crate::support::fake_clock::FakeClock;
use crate::support::frames::{
    Http2, http2_call, http2_cancel, http2_connect, http2_data, http2_headers,
};
use crate::support::outage::skip;
use crate::support::raw::{EXPORT_LOGS, PROTOBUF, accepted_rows, frame, refused};
use crate::support::telemetry::{log, logs};
use crate::support::{PATIENCE, Server, ServerBuilder};

/// What comes on a connection until the server closes it.
fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    loop {
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return said,
            Ok(len) => said.extend(&part[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return said,
            Err(error) => panic!("the connection stands: {error}"),
        }
    }
}

/// Scenario: on both ports of a server that takes eight connections, eight of them say nothing, a part of HTTP/2's preface, a
/// part of a request's head, or nothing more after a request was answered.
/// Guarantees: the server closes all of them by itself, and serves who comes then.
#[tokio::test]
async fn silent_peers_lose_their_place() {
    let server = Server::with(&["--max-connections", "8"]);
    let mut silent = Vec::new();
    for address in [server.grpc, server.http] {
        for said in [
            "",
            "PRI * HTTP/2.0\r\n",
            "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nx: ",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
            silent.push(stream);
        }
    }
    for stream in silent {
        until_closed(stream);
    }
    let answer = server.get("/healthz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(accepted_rows(&server.status().await), 0);
}

/// Scenario: a peer opens streams and resets them at once, a thousand in one piece.
/// Guarantees: the connection is ended, with ENHANCE_YOUR_CALM; others are served.
#[tokio::test]
async fn who_resets_streams_as_fast_as_possible_is_disconnected() {
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: [u8; 4] = 11u32.to_be_bytes();
    let server = Server::start();
    let mut stream = http2_connect(server.grpc);
    let restless: Vec<u8> = (0..1000)
        .flat_map(|call| {
            let id = 2 * call + 1;
            [http2_call(id, EXPORT_LOGS, &[]), http2_cancel(id)].concat()
        })
        .collect();
    // It may be closed before all is written.
    let _ = stream.write_all(&restless);
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut said = &until_closed(stream)[..];
    let mut codes = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *kind == GOAWAY {
            codes.push(rest[4..8].to_vec());
        }
        said = rest.get(len..).unwrap_or_default();
    }
    // Where the connection was closed over bytes that we had still sent, its last words can be lost.
    assert!(
        codes.is_empty() || codes == [ENHANCE_YOUR_CALM],
        "{codes:?}"
    );
    assert_eq!(server.get("/healthz").await.status, 200);
}

/// The stream of a body that comes in parts over HTTP/2.
const PARTS: u32 = 1;

/// The stream beside it on the connection to the gRPC port.
const OTAP: u32 = 3;

/// Three requests for logs that have begun: over HTTP/1.1, over HTTP/2, and a gRPC call beside an OTAP stream.
struct Begun {
    http1: TcpStream,
    http2: Http2,
    grpc: Http2,
}

impl Begun {
    /// Begins the requests; the first says how long its body will be.
    fn at(server: &Server, body_bytes: usize) -> Begun {
        let mut http1 = TcpStream::connect(server.http).unwrap();
        http1.set_nodelay(true).unwrap();
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: {PROTOBUF}\r\nconnection: close\r\ncontent-length: {body_bytes}\r\n\r\n"
        );
        http1.write_all(head.as_bytes()).unwrap();
        let mut http2 = Http2::connect(server.http);
        http2.send(&http2_headers(PARTS, "/v1/logs", PROTOBUF));
        let mut grpc = Http2::connect(server.grpc);
        for (stream, path) in [(PARTS, EXPORT_LOGS), (OTAP, stream_path(Signal::Logs))] {
            grpc.send(&http2_headers(stream, path, "application/grpc"));
        }
        Begun { http1, http2, grpc }
    }

    /// Sends the next part of each body. The server's system has it then.
    fn send(&mut self, part: &[u8], framed: &[u8], is_end: bool) {
        // Who has its answer already may be disconnected.
        let _ = self.http1.write_all(part);
        self.http2.send(&http2_data(PARTS, is_end, part));
        self.grpc.send(&http2_data(PARTS, is_end, framed));
    }
}

/// Makes some seconds go by, and has the server see it.
async fn go_by(server: &Server, clock: &FakeClock, now_s: &mut u64, seconds: u64) {
    *now_s += seconds;
    clock.forward(*now_s);
    assert_eq!(server.get("/healthz").await.status, 200);
}

/// Scenario: bodies over HTTP/1.1, HTTP/2 and gRPC of which a byte comes every seven seconds, while an OTAP stream is silent, by
/// a clock that runs ahead.
/// Guarantees: after a minute, and not before, each is refused in its protocol's words, counted and logged, and holds no memory.
/// The stream goes on.
#[tokio::test]
async fn who_drips_a_body_is_given_up() {
    let clock = match FakeClock::new() {
        Ok(clock) => clock,
        Err(why) => return skip("who_drips_a_body_is_given_up", &why),
    };
    let server = clock.give_to(ServerBuilder::new().args(&["--seal-max-age", "1h"]));
    let server = server.start();
    let mut begun = Begun::at(&server, 1000);
    let mut now_s = 0;
    loop {
        begun.send(b"x", b"x", false);
        let status = server.status().await;
        let given_up = ["http", "grpc"].map(|protocol| refused(&status, protocol, "incomplete").0);
        if given_up == [2, 1] && status.buffered_bytes == 0 {
            break;
        }
        assert!(now_s >= 60 || given_up == [0, 0], "{now_s}: {given_up:?}");
        assert!(now_s < 150, "{given_up:?}");
        go_by(&server, &clock, &mut now_s, 7).await;
    }
    let too_slow = "the request's body ended early: it comes too slowly";
    let said = until_closed(begun.http1);
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(said.contains(too_slow), "{said}");
    assert_eq!(begun.http2.header(PARTS, ":status"), "400");
    let said = begun.http2.body(PARTS);
    assert!(said.contains(too_slow), "{said}");
    let cancelled = i32::from(tonic::Code::Cancelled).to_string();
    assert_eq!(begun.grpc.header(PARTS, "grpc-status"), cancelled);
    for protocol in ["http", "grpc"] {
        let logged = server.refusals_logged("incomplete");
        let of = format!("protocol=\"{protocol}\"");
        assert!(
            logged
                .iter()
                .any(|line| line.contains(&of) && line.contains(too_slow))
        );
    }
    begun.grpc.send(&http2_data(OTAP, true, b""));
    assert_eq!(begun.grpc.header(OTAP, "grpc-status"), "0");
}

/// Scenario: calls of the health and the admin service over HTTP/1.1, where nothing else would find the peer out, of which no
/// more than two bytes ever come, by a clock that runs ahead; and one that declares more than it may send.
/// Guarantees: the first two are given up as other requests are, the third is refused at once; each is counted.
#[tokio::test]
async fn who_stops_within_a_call_of_any_service_is_given_up() {
    let clock = match FakeClock::new() {
        Ok(clock) => clock,
        Err(why) => return skip("who_stops_within_a_call_of_any_service_is_given_up", &why),
    };
    let server = clock.give_to(ServerBuilder::new().args(&["--seal-max-age", "1h"]));
    let server = server.start();
    let begin = |path: &str, bytes: usize| {
        let mut stream = TcpStream::connect(server.grpc).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\ncontent-length: {bytes}\r\n\r\n\0\0"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let (health, status) = (
        "/grpc.health.v1.Health/Check",
        "/otlake.admin.v1.Admin/Status",
    );
    let begun = [begin(health, 100), begin(status, 100)];
    let too_large = begin(health, 1 << 20);
    let mut now_s = 0;
    while refused(&server.status().await, "grpc", "incomplete").0 < 2 {
        assert!(now_s < 100);
        go_by(&server, &clock, &mut now_s, 7).await;
    }
    assert!(now_s >= 30, "{now_s}");
    assert_eq!(
        refused(&server.status().await, "grpc", "body_too_large"),
        (1, 0)
    );
    for stream in begun {
        let said = until_closed(stream);
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("grpc-status: 1\r\n"), "{said}");
    }
    let said = until_closed(too_large);
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("grpc-status: 8\r\n"), "{said}");
}

/// Scenario: the same requests by a slow line: some kilobytes after each pause of 28 seconds, for four minutes.
/// Guarantees: all are accepted.
#[tokio::test]
async fn who_is_slow_is_waited_for() {
    const PAUSES: usize = 9;
    let clock = match FakeClock::new() {
        Ok(clock) => clock,
        Err(why) => return skip("who_is_slow_is_waited_for", &why),
    };
    // Without the journal, whose thread waits for a moment by the system's own clock.
    let args = ["--seal-max-age", "1h", "--durability", "memory"];
    let server = clock.give_to(ServerBuilder::new().args(&args)).start();
    let message = logs(vec![log("slow ".repeat(8_000))]).encode_to_vec();
    let framed = frame(false, &message);
    let mut begun = Begun::at(&server, message.len());
    let mut now_s = 0;
    let parts = |body: &[u8]| {
        let parts = body.chunks(body.len().div_ceil(PAUSES + 1));
        parts.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let parts = parts(&message).into_iter().zip(parts(&framed));
    for (number, (part, framed)) in parts.enumerate() {
        if number > 0 {
            go_by(&server, &clock, &mut now_s, 28).await;
        }
        begun.send(&part, &framed, number == PAUSES);
    }
    let said = until_closed(begun.http1);
    assert!(said.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(begun.http2.header(PARTS, ":status"), "200");
    assert_eq!(begun.grpc.header(PARTS, "grpc-status"), "0");
    let status = server.status().await;
    assert_eq!(refused(&status, "http", "incomplete"), (0, 0));
    assert_eq!(accepted_rows(&status), 3);
}
