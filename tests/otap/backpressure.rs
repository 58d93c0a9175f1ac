//! A server that has no room says so batch by batch, and goes on with the same stream once it has.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use otlake::otap_producer::{Dictionaries, Options, Producer};
use otlake::proto::arrow::{BatchArrowRecords, StatusCode};
use otlake::proto::logs::v1::LogRecord;
use otlake::signal::Signal;
use prost::Message as _;
use tonic::Code;

use crate::support::crash_load::Random;
use crate::support::fake_clock::FakeClock;
use crate::support::otap_load::produce;
use crate::support::otlp::{Export, kv, resource, text};
use crate::support::outage::{LakeAway, skip};
use crate::support::raw::{accepted_rows, refused};
use crate::support::stream::OtapStream;
use crate::support::{Server, ServerBuilder, eventually};

const LOGS: &str = "SELECT count(*) FROM otlp_logs";

/// Text of the one record of a batch, unless the client's is another, bytes.
const TEXT_BYTES: usize = 256 << 10;

/// So much a stream may hold when memory is short, however long it is idle, bytes.
const HELD_BYTES_SPARED: usize = 1 << 20;

/// More batches than any of these servers has room for.
const BATCHES_MAX: usize = 100;

/// A stream, what is written on it, and how many batches were taken.
struct Client {
    stream: OtapStream,
    producer: Producer,
    random: Random,
    text_bytes: usize,
    taken: u64,
}

impl Client {
    async fn connect(server: &Server, dictionaries: Dictionaries) -> Client {
        Client {
            stream: OtapStream::open(server, Signal::Logs).await,
            producer: Producer::new(Options {
                dictionaries,
                ..Options::default()
            }),
            random: Random::new(1),
            text_bytes: TEXT_BYTES,
            taken: 0,
        }
    }

    /// Sends a batch of one record, as no other, and answers its status.
    async fn send(&mut self) -> (StatusCode, String) {
        let batch = self.batch();
        let (code, message) = self.stream.exchange(&batch).await;
        self.taken += u64::from(code == StatusCode::Ok);
        (code, message)
    }

    fn batch(&mut self) -> BatchArrowRecords {
        let words = std::iter::repeat_with(|| format!("{:016x}", self.random.next()));
        let record = LogRecord {
            body: text(&words.take(self.text_bytes / 16).collect::<String>()),
            ..LogRecord::default()
        };
        let request = Export::logs(resource(vec![]), Default::default(), vec![record]);
        produce(&mut self.producer, &request)
    }

    /// Sends until a batch is refused, and answers why.
    async fn fill(&mut self) -> String {
        for _ in 0..BATCHES_MAX {
            let (code, message) = self.send().await;
            if code != StatusCode::Ok {
                assert_eq!(code, StatusCode::Unavailable, "{message}");
                return message;
            }
        }
        panic!("there is always room");
    }
}

/// Scenario: the lake is away until the journal may not grow any more, and then back.
/// Guarantees: each batch meanwhile gets UNAVAILABLE with the reason, on new streams too; the stream stays, and takes batches
/// again by itself.
/// Everything taken is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_batches_and_keeps_the_stream() {
    let server = Server::with(&["--seal-max-age", "50ms", "--journal-max-bytes", "4MiB"]);
    let mut client = Client::connect(&server, Dictionaries::Delta).await;
    assert_eq!(client.send().await.0, StatusCode::Ok);
    let away = LakeAway::take(&server.data_dir());
    let why = client.fill().await;
    assert!(why.contains("--journal-max-bytes"), "{why}");
    for _ in 0..2 {
        assert_eq!(client.send().await.0, StatusCode::Unavailable);
    }
    assert_eq!(refused_on_a_new_stream(&server).await, Code::Ok);
    let status = server.status().await;
    assert_eq!(refused(&status, "otap", "disk_full"), (4, 0));
    away.put_back();
    // What is let go of makes room bit by bit.
    for _ in 0..2 {
        eventually("room", async || client.send().await.0 == StatusCode::Ok).await;
    }
    finish(server, client).await;
}

/// Opens a stream on a server without room, which must go well: a client that cannot open one believes that there is no OTAP.
/// Its batch is refused for now, and the stream ends well.
async fn refused_on_a_new_stream(server: &Server) -> Code {
    let mut client = Client::connect(server, Dictionaries::Native).await;
    client.random = Random::new(9);
    assert_eq!(client.send().await.0, StatusCode::Unavailable);
    client.stream.close_send();
    client.stream.end().await.1.code()
}

/// A server with a small buffer whose sealer cannot make room: it has nowhere to write.
fn without_room() -> (Server, impl FnOnce()) {
    let server = Server::with(&[
        "--seal-max-age",
        "1h",
        "--max-buffered-bytes",
        "4MiB",
        "--max-body-bytes",
        "1MiB",
    ]);
    let staged = server.data_dir().join("staged");
    let away = server.data_dir().join("staged-away");
    fs::rename(&staged, &away).unwrap();
    fs::write(&staged, "in the way").unwrap();
    (server, move || {
        fs::remove_file(&staged).unwrap();
        fs::rename(&away, &staged).unwrap();
    })
}

/// Scenario: batches without dictionaries fill the memory while nothing can be sealed; then it can.
/// Guarantees: each batch meanwhile gets UNAVAILABLE with the reason, on new streams too, and leaves nothing behind; the stream
/// stays, and takes batches again.
#[tokio::test(flavor = "multi_thread")]
async fn full_memory_refuses_batches_and_keeps_the_stream() {
    let (server, make_room) = without_room();
    let mut client = Client::connect(&server, Dictionaries::Native).await;
    let why = client.fill().await;
    assert!(why.contains("--max-buffered-bytes"), "{why}");
    let full = server.status().await;
    assert_eq!(client.send().await.0, StatusCode::Unavailable);
    assert_eq!(refused_on_a_new_stream(&server).await, Code::Ok);
    let status = server.status().await;
    assert_eq!(status.buffered_bytes, full.buffered_bytes);
    assert_eq!(refused(&status, "otap", "memory_full"), (3, 0));
    assert_eq!(accepted_rows(&status), client.taken);
    make_room();
    server.flush().await;
    assert_eq!(client.send().await.0, StatusCode::Ok);
    finish(server, client).await;
}

/// Scenario: a batch of a few kilobytes whose rows need more memory than there is at all, between others.
/// Guarantees: it gets INVALID_ARGUMENT and the advice to send less, never to be sent again; the stream goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_fits_is_not_to_be_sent_again() {
    let (server, _) = without_room();
    let mut client = Client::connect(&server, Dictionaries::Delta).await;
    client.text_bytes = 1 << 10;
    assert_eq!(client.send().await.0, StatusCode::Ok);
    let record = LogRecord {
        attributes: vec![kv("text", text(&"x".repeat(TEXT_BYTES)))],
        ..LogRecord::default()
    };
    let request = Export::logs(resource(vec![]), Default::default(), vec![record; 64]);
    let batch = produce(&mut client.producer, &request);
    assert!(batch.encoded_len() < 64 << 10);
    let (code, message) = client.stream.exchange(&batch).await;
    assert_eq!(code, StatusCode::InvalidArgument, "{message}");
    assert!(message.contains("send smaller batches"), "{message}");
    let status = server.status().await;
    assert_eq!(refused(&status, "otap", "rows_too_large"), (1, 0));
    assert_eq!(client.send().await.0, StatusCode::Ok);
}

/// Scenario: the same with dictionaries that grow by each batch.
/// Guarantees: each batch gets UNAVAILABLE, and with the one whose values there is no memory for the stream ends, since those
/// behind it may need them; everything it held is given back, and the next stream takes batches.
#[tokio::test(flavor = "multi_thread")]
async fn no_memory_for_a_dictionary_ends_the_stream() {
    let (server, make_room) = without_room();
    let mut client = Client::connect(&server, Dictionaries::Delta).await;
    client.fill().await;
    loop {
        let batch = client.batch();
        client.stream.send(&batch).await;
        match client.stream.status().await {
            Some(status) => assert_eq!(status.status_code(), StatusCode::Unavailable),
            None => break,
        }
    }
    let end = client.stream.grpc_status().unwrap();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    make_room();
    server.flush().await;
    eventually("all memory back", async || {
        server.status().await.buffered_bytes == 0
    })
    .await;
    let mut next = Client::connect(&server, Dictionaries::Delta).await;
    next.random = Random::new(2);
    assert_eq!(next.send().await.0, StatusCode::Ok);
    next.taken += client.taken;
    finish(server, next).await;
}

/// Scenario: two streams hold dictionaries, of more than a MiB and of little; requests that do not end take the rest of the
/// memory. Nothing is sent on the streams for a minute. Then the server is killed and started again.
/// Guarantees: the first stream ends with UNAVAILABLE and the words what to do, and gives all back that it held; the second
/// stays. Its client goes on with a new stream; every row is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_gives_its_memory_back_when_it_is_short() {
    let clock = match FakeClock::new() {
        Ok(clock) => clock,
        Err(why) => {
            return skip(
                "an_idle_stream_gives_its_memory_back_when_it_is_short",
                &why,
            );
        }
    };
    let sizes = ["--max-buffered-bytes=16MiB", "--seal-target-bytes=8MiB"];
    let server = clock.give_to(ServerBuilder::new()).args(&sizes);
    let server = server.args(&["--seal-max-age", "1h"]).start();
    let mut idle = Client::connect(&server, Dictionaries::Delta).await;
    for _ in 0..HELD_BYTES_SPARED / TEXT_BYTES + 1 {
        assert_eq!(idle.send().await.0, StatusCode::Ok);
    }
    let mut small = Client::connect(&server, Dictionaries::Delta).await;
    small.random = Random::new(2);
    small.text_bytes = 1 << 10;
    assert_eq!(small.send().await.0, StatusCode::Ok);
    // Idle for longer than these requests, which are given up themselves after a pause of 30 s.
    clock.forward(20);
    let unfinished = [begin_request(&server), begin_request(&server)];
    eventually("memory is short", async || {
        server.status().await.buffered_bytes > 15 << 20
    })
    .await;
    let before = server.status().await;
    clock.forward(20 + 15);
    eventually("the end of the stream", async || {
        server.status().await.otap_streams == 1
    })
    .await;
    let after = server.status().await;
    assert!(before.buffered_bytes - after.buffered_bytes > HELD_BYTES_SPARED as u64);
    let (left, end) = idle.stream.end().await;
    assert_eq!(left, []);
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("open a new stream"), "{end}");
    assert_eq!(refused(&after, "otap", "memory_full"), (1, 0));

    drop(unfinished);
    // What the server's threads wait for would take a minute longer by this clock.
    let server = ServerBuilder::again(server.kill()).start();
    let mut again = Client::connect(&server, Dictionaries::Delta).await;
    again.random = idle.random;
    assert_eq!(again.send().await.0, StatusCode::Ok);
    again.taken += idle.taken + small.taken;
    finish(server, again).await;
}

/// Begins a request that takes 6 MiB of memory and does not end.
fn begin_request(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 8000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b' '; 6 << 20]).unwrap();
    stream
}

/// Everything that was taken is in the lake, once, and nothing else.
async fn finish(server: Server, mut client: Client) {
    client.stream.close_send();
    let end = tokio::time::timeout(Duration::from_secs(10), client.stream.end()).await;
    assert_eq!(end.expect("the stream's end").1.code(), Code::Ok);
    server.flush().await;
    assert_eq!(server.count(LOGS), i64::try_from(client.taken).unwrap());
    assert_eq!(server.status().await.buffered_bytes, 0);
}
