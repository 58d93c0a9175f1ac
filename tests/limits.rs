//! Limits hold: on bodies, on memory, on connections and streams.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::raw::{
    COMPRESSIONS, EXPORT_LOGS, GrpcAnswer, JSON, PROTOBUF, accepted_rows, compress, export, refused,
};
use crate::support::telemetry::{attribute, log, logs, logs_of};
use crate::support::{Answer, Server, eventually};

const BODY_MAX: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// Settings with which nothing is sealed before it is asked for.
const UNSEALED: [&str; 2] = ["--seal-max-age", "1h"];

fn with(args: &[&str]) -> Server {
    Server::with(&[&UNSEALED, args].concat())
}

async fn post(server: &Server, encoding: &str, message: &[u8]) -> Answer {
    let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
    server
        .post("/v1/logs", &headers, compress(encoding, message))
        .await
}

/// One log record in a request of exactly `len` bytes.
fn request_of(len: usize) -> Vec<u8> {
    request_of_text(len, "x")
}

/// The same, its text made of one letter.
fn request_of_text(len: usize, letter: &str) -> Vec<u8> {
    let spare = len - logs(vec![log("")]).encoded_len();
    // Each of the five lengths around the text takes more bytes as the text grows.
    let found = (spare - 24..spare).map(|text| logs(vec![log(letter.repeat(text))]));
    let mut found = found.filter(|request| request.encoded_len() == len);
    found.next().unwrap().encode_to_vec()
}

fn assert_too_large_grpc(answer: &GrpcAnswer, what: &str) {
    assert_eq!(answer.status.code(), Code::ResourceExhausted, "{what}");
    assert_eq!(answer.retry_info(), None, "{what}: must not be retried");
    assert!(
        answer.status.message().contains("--max-body-bytes"),
        "{what}: {}",
        answer.status
    );
}

fn assert_too_large_http(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 413, "{what}");
    assert!(!answer.headers.contains_key("retry-after"), "{what}");
    let status = answer.rpc_status();
    assert_eq!(status.code, Code::ResourceExhausted as i32, "{what}");
    assert!(status.details.is_empty(), "{what}");
    assert!(
        status.message.contains("--max-body-bytes"),
        "{what}: {}",
        status.message
    );
}

/// Scenario: bodies of exactly the limit and one byte more, plain and compressed, over both protocols.
/// Guarantees: the first is taken; the second is RESOURCE_EXHAUSTED without RetryInfo / 413, counted, and not stored.
#[tokio::test]
async fn a_body_may_reach_the_limit_and_not_pass_it() {
    let server = with(&["--max-body-bytes", "64KiB"]);
    let over = request_of(BODY_MAX + 1);
    // Each is another one: what comes again after a connection that broke is taken for a retry.
    let ways = [
        ("identity", ["a", "b"]),
        ("gzip", ["c", "d"]),
        ("zstd", ["e", "f"]),
        ("deflate", ["g", "h"]),
    ];
    for (encoding, letters) in ways {
        let [fits_grpc, fits_http] = letters.map(|letter| request_of_text(BODY_MAX, letter));
        let answer = export(&server, EXPORT_LOGS, encoding, &fits_grpc).await;
        assert_eq!(
            answer.status.code(),
            Code::Ok,
            "{encoding}: {}",
            answer.status
        );
        assert_eq!(
            post(&server, encoding, &fits_http).await.status,
            200,
            "{encoding}"
        );

        assert_too_large_grpc(
            &export(&server, EXPORT_LOGS, encoding, &over).await,
            encoding,
        );
        assert_too_large_http(&post(&server, encoding, &over).await, encoding);
    }
    let status = server.status().await;
    for protocol in ["grpc", "http"] {
        assert_eq!(
            refused(&status, protocol, "body_too_large"),
            (4, 0),
            "{protocol}"
        );
    }
    assert_eq!(server.flush().await, 8);
}

/// Scenario: 64 MiB of zeros in a body of a few KiB, in each compression, over both protocols.
/// Guarantees: refused as too large without being unpacked into memory; nothing stays reserved.
#[tokio::test]
async fn compressed_bombs_are_refused_and_not_unpacked() {
    let server = with(&["--max-body-bytes", "64KiB"]);
    let before = peak_bytes(&server);
    let zeros = vec![0; 64 * MIB];
    for encoding in COMPRESSIONS {
        let answer = export(&server, EXPORT_LOGS, encoding, &zeros).await;
        assert_too_large_grpc(&answer, encoding);
        let headers = [("content-type", JSON), ("content-encoding", encoding)];
        let bomb = compress(encoding, &zeros);
        let answer = server.post("/v1/logs", &headers, bomb).await;
        // The deflated zeros alone are over the limit already.
        assert_too_large_http(&answer, encoding);
    }
    let grown = peak_bytes(&server) - before;
    assert!(grown < 24 * MIB, "grown by {grown} bytes");
    assert_eq!(server.status().await.buffered_bytes, 0);
}

/// Scenario: a small zstd frame that asks its reader for a window of 128 MiB.
/// Guarantees: refused as malformed over both protocols; the window is not allocated.
#[tokio::test]
async fn a_zstd_window_beyond_the_standard_is_refused() {
    let server = with(&[]);
    let before = peak_bytes(&server);
    let message = request_of(BODY_MAX);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&message).unwrap();
    let body = encoder.finish().unwrap();

    let headers = [("content-type", PROTOBUF), ("content-encoding", "zstd")];
    let answer = server.post("/v1/logs", &headers, body.clone()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let headers = [("grpc-encoding", "zstd")];
    let framed = crate::support::raw::frame(true, &body);
    let answer = crate::support::raw::call(server.grpc, EXPORT_LOGS, &headers, framed).await;
    assert_eq!(
        answer.status.code(),
        Code::InvalidArgument,
        "{}",
        answer.status
    );
    let grown = peak_bytes(&server) - before;
    assert!(grown < 24 * MIB, "grown by {grown} bytes");
}

/// Scenario: a head that announces a body over the limit, and no byte of it.
/// Guarantees: 413 comes at once.
#[test]
fn an_announced_length_over_the_limit_is_refused_at_once() {
    let server = with(&["--max-body-bytes", "64KiB"]);
    let mut stream = connect(server.http);
    let head = "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 65537\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert!(answer_line(&mut stream).starts_with("HTTP/1.1 413 "));
}

/// Scenario: a client sends 32 MiB over HTTP in one piece, twice the default limit, without waiting for an answer: with a
/// known length, with a wrong content type, to a wrong path.
/// Guarantees: it reads why it was refused, instead of a connection reset that it would take for a reason to try again.
#[tokio::test]
async fn the_refusal_of_a_large_body_reaches_its_sender() {
    let server = with(&[]);
    for _ in 0..5 {
        let answer = post(&server, "identity", &vec![0; 32 * MIB]).await;
        assert_too_large_http(&answer, "32 MiB");
        let answer = server.post("/v1/logs", &[], vec![0; 32 * MIB]).await;
        assert_eq!(answer.status, 415);
        let answer = server.post("/", &[], vec![0; 32 * MIB]).await;
        assert_eq!(answer.status, 404);
    }
}

/// Fills the buffer until a request is refused, alternating the protocols; answers with the rows that were taken.
async fn fill(server: &Server, request: &[u8]) -> (u64, GrpcAnswer, Answer) {
    for taken in 0..1000 {
        let answer = export(server, EXPORT_LOGS, "identity", request).await;
        if answer.status.code() != Code::Ok {
            return (taken, answer, post(server, "identity", request).await);
        }
    }
    panic!("the buffer is never full");
}

/// Scenario: the buffer is filled while nothing is sealed, then flushed.
/// Guarantees: UNAVAILABLE with RetryInfo / 503 with Retry-After, nothing of the refused request is kept; after the
/// flush the same request is taken, and the bytes in use return to nothing.
#[tokio::test]
async fn a_full_buffer_pushes_back_until_it_is_flushed() {
    let server = with(&[
        "--max-buffered-bytes",
        "4MiB",
        "--seal-target-bytes",
        "2MiB",
        "--max-body-bytes",
        "256KiB",
    ]);
    // The sealer cannot make room: it has nowhere to write.
    let staged = server.data_dir().join("staged");
    let away = server.data_dir().join("staged-away");
    std::fs::rename(&staged, &away).unwrap();
    std::fs::write(&staged, "in the way").unwrap();

    let request = request_of(256 << 10);
    let (taken, over_grpc, over_http) = fill(&server, &request).await;
    assert!(taken >= 4, "{taken}");
    assert_eq!(
        over_grpc.status.code(),
        Code::Unavailable,
        "{}",
        over_grpc.status
    );
    assert_eq!(over_grpc.retry_info(), Some(Duration::from_secs(1)));
    assert_eq!(over_http.status, 503);
    assert_eq!(over_http.header("retry-after"), "1");
    let rpc_status = over_http.rpc_status();
    assert_eq!(rpc_status.code, Code::Unavailable as i32);
    assert!(
        !rpc_status.details.is_empty(),
        "RetryInfo belongs into the body too"
    );
    let status = server.status().await;
    assert_eq!(accepted_rows(&status), taken);
    for protocol in ["grpc", "http"] {
        assert_eq!(
            refused(&status, protocol, "memory_full"),
            (1, 0),
            "{protocol}"
        );
    }
    assert!(status.buffered_bytes <= status.buffered_bytes_max);
    assert!(status.buffered_bytes > status.buffered_bytes_max / 2);

    std::fs::remove_file(&staged).unwrap();
    std::fs::rename(&away, &staged).unwrap();
    server.flush().await;
    assert_eq!(server.status().await.buffered_bytes, 0);
    let answer = export(&server, EXPORT_LOGS, "identity", &request).await;
    assert_eq!(answer.status.code(), Code::Ok, "{}", answer.status);
    assert_eq!(post(&server, "identity", &request).await.status, 200);
    server.flush().await;
    assert_eq!(
        server.count("SELECT count(*) FROM otlp_logs"),
        i64::try_from(taken).unwrap() + 2
    );
    assert_eq!(server.status().await.buffered_bytes, 0);
}

/// Scenario: one request whose rows need more than the whole buffer.
/// Guarantees: it is not retryable, since it can never succeed: RESOURCE_EXHAUSTED without RetryInfo / 413.
#[tokio::test]
async fn rows_that_never_fit_are_not_to_be_sent_again() {
    let server = with(&["--max-buffered-bytes", "256KiB"]);
    let request = logs(vec![log("x"); 2000]).encode_to_vec();
    let answer = export(&server, EXPORT_LOGS, "identity", &request).await;
    assert_eq!(
        answer.status.code(),
        Code::ResourceExhausted,
        "{}",
        answer.status
    );
    assert_eq!(answer.retry_info(), None);
    let answer = post(&server, "identity", &request).await;
    assert_eq!(answer.status, 413);
    assert!(!answer.headers.contains_key("retry-after"));
    let status = server.status().await;
    for protocol in ["grpc", "http"] {
        assert_eq!(
            refused(&status, protocol, "rows_too_large"),
            (1, 0),
            "{protocol}"
        );
    }
    assert_eq!(status.buffered_bytes, 0);
}

/// The most memory the server has ever held, bytes.
fn peak_bytes(server: &Server) -> usize {
    server.memory_bytes("VmHWM")
}

/// 16 MiB of empty log records: two bytes each on the wire, hundreds as a row.
fn empty_records() -> Vec<u8> {
    let records = b"\x12\x00".repeat(8 * MIB - 16);
    let mut scope = vec![0x12];
    prost::encoding::encode_varint(records.len() as u64, &mut scope);
    scope.extend(records);
    let mut request = vec![0x0a];
    prost::encoding::encode_varint(scope.len() as u64, &mut request);
    request.extend(scope);
    assert!(request.len() <= 16 * MIB);
    request
}

/// Scenario: 16 MiB of empty records, as they are and as a zstd body of a few KiB, over both protocols, against a
/// buffer of 64 MiB.
/// Guarantees: refused without more memory than the buffer and the bodies; nothing stays reserved.
#[tokio::test]
async fn millions_of_empty_records_do_not_pass_the_memory_limit() {
    let server = with(&["--max-buffered-bytes", "64MiB"]);
    let before = peak_bytes(&server);
    let request = empty_records();
    for encoding in ["identity", "zstd"] {
        let answer = export(&server, EXPORT_LOGS, encoding, &request).await;
        assert_eq!(
            answer.status.code(),
            Code::ResourceExhausted,
            "{}",
            answer.status
        );
        assert_eq!(post(&server, encoding, &request).await.status, 413);
    }
    let grown = peak_bytes(&server) - before;
    assert!(grown < 144 * MIB, "grown by {grown} bytes");
    assert_eq!(server.status().await.buffered_bytes, 0);
    assert_eq!(server.flush().await, 0);
}

/// Scenario: a resource attribute of 1 MiB, shared by so many small records that written out it would be several GiB.
/// Guarantees: refused whole, and not written out on the way; a few such records are taken.
#[tokio::test]
async fn a_huge_shared_resource_is_refused_and_not_expanded() {
    let server = with(&[]);
    let before = peak_bytes(&server);
    let sharing = |records| -> ExportLogsServiceRequest {
        logs_of(
            vec![attribute("huge", "x".repeat(MIB))],
            vec![log(""); records],
        )
    };
    let few = export(
        &server,
        EXPORT_LOGS,
        "identity",
        &sharing(4).encode_to_vec(),
    )
    .await;
    assert_eq!(few.status.code(), Code::Ok, "{}", few.status);
    let many = sharing(5000).encode_to_vec();
    for encoding in ["identity", "zstd"] {
        let answer = export(&server, EXPORT_LOGS, encoding, &many).await;
        assert_eq!(
            answer.status.code(),
            Code::ResourceExhausted,
            "{}",
            answer.status
        );
        assert_eq!(answer.retry_info(), None);
        assert_eq!(post(&server, encoding, &many).await.status, 413);
    }
    let grown = peak_bytes(&server) - before;
    assert!(grown < 48 * MIB, "grown by {grown} bytes");
    assert_eq!(server.flush().await, 4);
}

/// Connects; waits for an answer less long than the server lets an idle connection stand.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    stream
}

/// Asks for the probe and keeps the connection open.
fn ask(stream: &mut TcpStream) {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
}

/// The first line of the answer.
fn answer_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Scenario: three connections to a server that takes two.
/// Guarantees: the third waits unanswered until one of the others closes, and is then served.
#[test]
fn one_connection_too_many_waits_until_another_closes() {
    let server = with(&["--max-connections", "2"]);
    let mut open: Vec<_> = (0..2).map(|_| connect(server.http)).collect();
    for stream in &mut open {
        ask(stream);
        assert!(answer_line(stream).starts_with("HTTP/1.1 200 "));
    }
    let mut third = connect(server.http);
    ask(&mut third);
    third
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(
        third.read(&mut [0; 1]).is_err(),
        "the third connection was served"
    );
    drop(open.pop());
    third
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    assert!(answer_line(&mut third).starts_with("HTTP/1.1 200 "));
}

/// Scenario: a server that takes one connection is asked several times on one port, then on the other.
/// Guarantees: each is served; the limit counts connections, and none is kept for a port that is not used.
#[test]
fn a_single_connection_is_enough_for_either_port() {
    let server = with(&["--max-connections", "1"]);
    for address in [
        server.http,
        server.grpc,
        server.grpc,
        server.http,
        server.http,
    ] {
        let mut stream = connect(address);
        ask(&mut stream);
        assert!(answer_line(&mut stream).starts_with("HTTP/1.1 "));
    }
}

/// Scenario: one HTTP/2 connection opens a stream more than it may, all of them with unfinished bodies.
/// Guarantees: the last one is not begun before another ends.
#[tokio::test]
async fn one_stream_too_many_waits_until_another_ends() {
    let server = with(&["--max-concurrent-streams", "2"]);
    let stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_max_send_streams(0) // Wait for what the server allows.
            .handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let mut requests = Vec::new();
    for _ in 0..3 {
        let (body, frames) = mpsc::channel::<Bytes>(1);
        let frames = ReceiverStream::new(frames)
            .map(|data| Ok::<_, std::io::Error>(http_body::Frame::data(data)));
        let request = http::Request::post(format!("http://{}/v1/logs", server.http))
            .header("content-type", JSON)
            .body(StreamBody::new(frames).boxed_unsync())
            .unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        body.send(Bytes::from_static(b"{")).await.unwrap();
        requests.push((body, answer));
    }
    // Two bodies are being read: one more part of each is taken. The third's first part still waits.
    let (third_body, third) = requests.pop().unwrap();
    for (body, _) in &requests {
        body.send(Bytes::from_static(b" ")).await.unwrap();
        body.send(Bytes::from_static(b" ")).await.unwrap();
    }
    let more = third_body.try_send(Bytes::from_static(b"}"));
    assert!(more.is_err(), "the third stream was begun");
    for (body, answer) in requests {
        body.send(Bytes::from_static(b"}")).await.unwrap();
        drop(body);
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    third_body.send(Bytes::from_static(b"}")).await.unwrap();
    drop(third_body);
    assert_eq!(third.await.unwrap().unwrap().status(), 200);
    connection.abort();
}

/// Scenario: a client goes away in the middle of its body.
/// Guarantees: the request is counted as incomplete, nothing of it is kept, and its memory is given back.
#[tokio::test]
async fn an_interrupted_body_leaves_nothing_behind() {
    let server = with(&[]);
    let mut stream = connect(server.http);
    let head = "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[b' '; 50_000]).unwrap();
    eventually("the body's arrival", async || {
        server.status().await.buffered_bytes >= 50_000
    })
    .await;
    drop(stream);
    eventually("the body's end", async || {
        server.status().await.buffered_bytes == 0
    })
    .await;
    let status = server.status().await;
    assert_eq!(refused(&status, "http", "incomplete"), (1, 0));
    assert_eq!(server.flush().await, 0);
}
