//! The streams over real sockets: one status a batch, whatever happens to the batch or to the stream.

use std::time::Duration;

use bytes::Bytes;
use otlake::proto::arrow::{ArrowPayload, ArrowPayloadType, BatchArrowRecords, StatusCode};
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use otlake::signal::Signal;
use prost::Message as _;
use rustix::process::Signal as ProcessSignal;
use tonic::Code;

use super::recorded::recording;
use crate::support::raw::{accepted_rows, frame, refused};
use crate::support::stream::OtapStream;
use crate::support::{Server, ServerBuilder, data_dir, eventually, sql};

const LOGS: &str = "SELECT count(*) FROM otlp_logs";
const TOKEN: &str = "0123456789abcdef-token";

/// The batches of a recorded stream of logs, and how many rows they have.
fn batches() -> (Vec<BatchArrowRecords>, u64) {
    let recording = recording("logs-late-columns");
    let batches = recording.messages.iter();
    let batches: Vec<_> = batches
        .map(|message| BatchArrowRecords::decode(&**message).unwrap())
        .collect();
    let rows = recording.inputs.iter().map(|input| {
        let request = ExportLogsServiceRequest::decode(&**input).unwrap();
        let scopes = request
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs);
        scopes
            .map(|scope| scope.log_records.len() as u64)
            .sum::<u64>()
    });
    (batches, rows.sum())
}

/// Batches that the server has accepted over OTAP, and those it has recognised as retries.
async fn accepted(server: &Server) -> (u64, u64) {
    let status = server.status().await;
    let signals = status.signals.iter().filter(|of| of.protocol == "otap");
    signals.fold((0, 0), |(requests, repeated), of| {
        (requests + of.requests, repeated + of.repeated_requests)
    })
}

/// Scenario: a recorded stream as the exporter sent it, compressed with what it calls `zstdarrow5`; then the client closes
/// its side.
/// Guarantees: one OK a batch, then the stream ends with OK; all rows are in the lake, counted as OTAP's.
#[tokio::test]
async fn a_stream_is_taken_in() {
    let server = Server::start();
    let (batches, rows) = batches();
    let headers = [("grpc-encoding", "zstdarrow5")];
    let mut stream = OtapStream::open_with(&server, Signal::Logs, &headers).await;
    assert_eq!(server.status().await.otap_streams, 1);
    for batch in &batches {
        let message = zstd::encode_all(&batch.encode_to_vec()[..], 5).unwrap();
        stream.send_raw(frame(true, &message)).await;
    }
    stream.close_send();
    let (mut statuses, end) = stream.end().await;
    assert_eq!(end.code(), Code::Ok);
    statuses.sort_by_key(|status| status.batch_id);
    assert_eq!(statuses.len(), batches.len());
    for (status, batch) in statuses.iter().zip(&batches) {
        assert_eq!(status.batch_id, batch.batch_id);
        assert_eq!(status.status_code(), StatusCode::Ok);
    }
    server.flush().await;
    assert_eq!(server.count(LOGS), i64::try_from(rows).unwrap());
    let status = server.status().await;
    assert_eq!(accepted_rows(&status), rows);
    assert_eq!(accepted(&server).await, (batches.len() as u64, 0));
    eventually("the end of the stream", async || {
        server.status().await.otap_streams == 0
    })
    .await;
}

/// Scenario: batches of multivariate metrics and of spans in a stream of logs, and one with two payloads of one type, before
/// good ones.
/// Guarantees: each gets INVALID_ARGUMENT and leaves nothing; the stream goes on, and the good ones are taken.
#[tokio::test]
async fn a_bad_batch_is_refused_alone() {
    let server = Server::start();
    let (batches, rows) = batches();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    let first = &batches[0].arrow_payloads[0];
    let of_type = |payload_type: ArrowPayloadType| ArrowPayload {
        r#type: payload_type.into(),
        ..first.clone()
    };
    let bad = [
        (
            vec![of_type(ArrowPayloadType::MultivariateMetrics)],
            "MULTIVARIATE_METRICS",
        ),
        (vec![of_type(ArrowPayloadType::Spans)], "SPANS"),
        (vec![first.clone(), first.clone()], "LOGS twice"),
    ];
    for (place, (arrow_payloads, why)) in (1000..).zip(bad) {
        let batch = BatchArrowRecords {
            batch_id: place,
            arrow_payloads,
            headers: Bytes::new(),
        };
        let (code, message) = stream.exchange(&batch).await;
        assert_eq!(code, StatusCode::InvalidArgument);
        assert!(message.contains(why), "{message}");
    }
    for batch in &batches {
        assert_eq!(stream.exchange(batch).await.0, StatusCode::Ok);
    }
    stream.close_send();
    assert_eq!(stream.end().await.1.code(), Code::Ok);
    let status = server.status().await;
    assert_eq!(refused(&status, "otap", "malformed"), (3, 0));
    assert_eq!(accepted_rows(&status), rows);
}

/// Scenario: a batch without payloads, and one with attributes of logs but without the logs.
/// Guarantees: both are taken as the empty batches that they are.
#[tokio::test]
async fn an_empty_batch_is_taken() {
    let server = Server::start();
    let (batches, _) = batches();
    let is_attributes =
        |payload: &&ArrowPayload| payload.r#type == i32::from(ArrowPayloadType::LogAttrs);
    let payloads = batches.iter().flat_map(|batch| &batch.arrow_payloads);
    let attributes = payloads.clone().find(is_attributes).unwrap();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    for (batch_id, arrow_payloads) in (0..).zip([vec![], vec![attributes.clone()]]) {
        let batch = BatchArrowRecords {
            batch_id,
            arrow_payloads,
            headers: Bytes::new(),
        };
        assert_eq!(stream.exchange(&batch).await.0, StatusCode::Ok);
    }
    stream.close_send();
    assert_eq!(stream.end().await.1.code(), Code::Ok);
    assert_eq!(accepted_rows(&server.status().await), 0);
    assert_eq!(server.flush().await, 0);
}

/// Scenario: the second batch of a stream has a record that is cut off; others are sent behind it.
/// Guarantees: it gets INVALID_ARGUMENT, and only then the stream ends: its client will not send it again. The same batches
/// but for it are taken on the next stream, those before it are not stored again.
#[tokio::test]
async fn a_batch_that_breaks_the_stream_is_told_first() {
    let server = Server::start();
    let (batches, _) = batches();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    assert_eq!(stream.exchange(&batches[0]).await.0, StatusCode::Ok);
    let mut broken = batches[1].clone();
    let record = &mut broken.arrow_payloads[0].record;
    record.truncate(record.len() / 2);
    stream.send(&broken).await;
    stream.send(&batches[2]).await;
    let status = stream.status().await.unwrap();
    assert_eq!(status.batch_id, broken.batch_id);
    assert_eq!(status.status_code(), StatusCode::InvalidArgument);
    assert!(!status.status_message.is_empty());
    let (left, end) = stream.end().await;
    assert_eq!(left, []);
    assert_eq!(end.code(), Code::InvalidArgument);
    let mut next = OtapStream::open(&server, Signal::Logs).await;
    assert_eq!(next.exchange(&batches[0]).await.0, StatusCode::Ok);
    assert_eq!(refused(&server.status().await, "otap", "malformed"), (1, 0));
}

/// Scenario: a message beyond `--max-body-bytes`, plain, compressed, and only when it is decompressed.
/// Guarantees: it gets INVALID_ARGUMENT with the limit, then the stream ends.
#[tokio::test]
async fn a_message_that_is_too_large_is_told() {
    let server = Server::with(&["--seal-max-age", "1h", "--max-body-bytes", "64KiB"]);
    let mut noise = batches().0[0].clone();
    noise.batch_id = 7;
    let mut state = 1_u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    });
    noise.arrow_payloads[0].record = bytes.take(300_000).collect();
    let mut zeros = noise.clone();
    zeros.arrow_payloads[0].record = vec![0; 100_000].into();
    let zstd = |batch: &BatchArrowRecords| {
        frame(
            true,
            &zstd::encode_all(&batch.encode_to_vec()[..], 1).unwrap(),
        )
    };
    for message in [
        frame(false, &noise.encode_to_vec()),
        zstd(&noise),
        zstd(&zeros),
    ] {
        let headers = [("grpc-encoding", "zstd")];
        let mut stream = OtapStream::open_with(&server, Signal::Logs, &headers).await;
        stream.send_raw(message).await;
        let status = stream.status().await.unwrap();
        assert_eq!(status.batch_id, 7);
        assert_eq!(status.status_code(), StatusCode::InvalidArgument);
        let message = &status.status_message;
        assert!(message.contains("--max-body-bytes"), "{message}");
        assert_eq!(stream.end().await.1.code(), Code::InvalidArgument);
    }
    let status = server.status().await;
    assert_eq!(refused(&status, "otap", "body_too_large"), (3, 0));
}

/// Scenario: a message that is too large and does not tell whose it is, behind a batch whose answer waits for the lake.
/// Guarantees: the batch gets its status, and the stream ends with INVALID_ARGUMENT and the limit.
#[tokio::test]
async fn a_message_of_nobody_that_is_too_large_ends_the_stream() {
    let args = ["--seal-max-age", "300ms", "--durability", "lake"];
    let server = Server::with(&[&args[..], &["--max-body-bytes", "64KiB"]].concat());
    let (batches, _) = batches();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    stream.send(&batches[0]).await;
    stream.send_raw(frame(false, &[0xff; 200_000])).await;
    let (statuses, end) = stream.end().await;
    let [status] = &statuses[..] else {
        panic!("{statuses:?}");
    };
    assert_eq!(status.batch_id, batches[0].batch_id);
    assert_eq!(status.status_code(), StatusCode::Ok);
    assert_eq!(end.code(), Code::InvalidArgument);
    assert!(end.message().contains("--max-body-bytes"), "{end}");
}

/// Scenario: answers wait for the lake, whose next commit is an hour away; several batches are sent, then a commit is asked for.
/// Guarantees: all are read before one is answered, and all are answered once they are in the lake.
#[tokio::test]
async fn batches_are_kept_beside_each_other() {
    let server = Server::with(&["--seal-max-age", "1h", "--durability", "lake"]);
    let (batches, rows) = batches();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    for batch in &batches {
        stream.send(batch).await;
    }
    stream.close_send();
    eventually("all rows", async || {
        accepted_buffered(&server).await == rows
    })
    .await;
    assert_eq!(server.flush().await, rows);
    let (statuses, end) = stream.end().await;
    assert_eq!(statuses.len(), batches.len());
    assert!(
        statuses
            .iter()
            .all(|status| status.status_code() == StatusCode::Ok)
    );
    assert_eq!(end.code(), Code::Ok);
}

/// Rows that wait in memory.
async fn accepted_buffered(server: &Server) -> u64 {
    let status = server.status().await;
    status.tables.iter().map(|table| table.buffered_rows).sum()
}

/// Scenario: a client sends batches, goes away without reading a status, and sends them again on another connection, as
/// exporters do when their stream breaks; then once more after it has read the statuses.
/// Guarantees: the first time they are stored once and counted as repeated; the second time they are new.
#[tokio::test]
async fn batches_of_a_broken_stream_are_stored_once() {
    let server = Server::with(&["--seal-max-age", "1h", "--durability", "lake"]);
    let (batches, rows) = batches();
    let first = OtapStream::open(&server, Signal::Logs).await;
    for batch in &batches {
        first.send(batch).await;
    }
    eventually("all rows", async || {
        accepted_buffered(&server).await == rows
    })
    .await;
    drop(first);
    eventually("the end of the stream", async || {
        server.status().await.otap_streams == 0
    })
    .await;
    for _ in 0..2 {
        let mut again = OtapStream::open(&server, Signal::Logs).await;
        for batch in &batches {
            again.send(batch).await;
        }
        again.close_send();
        // At first those of the stream that broke, then those that are new.
        let flushing = async {
            eventually("the rows", async || {
                accepted_buffered(&server).await == rows
            })
            .await;
            server.flush().await
        };
        let ((statuses, end), _) = tokio::join!(again.end(), flushing);
        assert_eq!(statuses.len(), batches.len());
        assert!(
            statuses
                .iter()
                .all(|status| status.status_code() == StatusCode::Ok)
        );
        assert_eq!(end.code(), Code::Ok);
    }
    let batches = batches.len() as u64;
    assert_eq!(accepted(&server).await, (2 * batches, batches));
    assert_eq!(server.count(LOGS), i64::try_from(2 * rows).unwrap());
}

/// Scenario: the server is stopped while a stream is open and idle, with batches answered on it.
/// Guarantees: the stream ends with UNAVAILABLE, the server in order, and everything answered is in the lake.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_streams() {
    let mut server = Server::start();
    let (batches, rows) = batches();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    for batch in &batches {
        assert_eq!(stream.exchange(batch).await.0, StatusCode::Ok);
    }
    server.signal(ProcessSignal::TERM);
    let (left, end) = tokio::time::timeout(Duration::from_secs(10), stream.end())
        .await
        .unwrap();
    assert_eq!(left, []);
    assert_eq!(end.code(), Code::Unavailable);
    let status = tokio::task::block_in_place(|| server.wait());
    assert_eq!(status.code(), Some(0));
    assert_eq!(server.count(LOGS), i64::try_from(rows).unwrap());
}

/// Scenario: the server is killed once batches are answered; the next start gets the same batches on a new stream.
/// Guarantees: what was answered is there. What was answered in the last second before counts as not arrived: the same
/// batches are known, and stored once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let server = Server::start();
    let (batches, rows) = batches();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    for batch in &batches {
        stream.send(batch).await;
    }
    for _ in &batches {
        assert_eq!(stream.status().await.unwrap().status_code(), StatusCode::Ok);
    }
    let server = ServerBuilder::again(server.kill())
        .args(&["--seal-max-age", "1h"])
        .start();
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    for batch in &batches {
        assert_eq!(stream.exchange(batch).await.0, StatusCode::Ok);
    }
    assert_eq!(accepted(&server).await, (0, batches.len() as u64));
    let (_, dir) = server.stop();
    let counted = sql(&data_dir(&dir), LOGS);
    assert_eq!(counted, [[rows.to_string()]]);
}

/// Scenario: a server with a token; streams with the right one, a wrong one and none when they are opened, and with
/// batches whose headers carry it, or not.
/// Guarantees: a wrong one does not open a stream. Without one the stream is opened, and each batch's headers must have it,
/// in whole or as a reference to those before: UNAUTHENTICATED ends the stream.
#[tokio::test]
async fn the_token_comes_with_the_stream_or_with_its_batches() {
    let server = ServerBuilder::new()
        .args(&["--seal-max-age", "1h"])
        .env("OTLAKE_TOKEN", TOKEN)
        .start();
    let (batches, _) = batches();
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let mut stream = OtapStream::open_with(&server, Signal::Logs, &headers).await;
    assert_eq!(stream.exchange(&batches[0]).await.0, StatusCode::Ok);

    let headers = [("authorization", "Bearer wrong-wrong-wrong-wrong")];
    let mut stream = OtapStream::open_with(&server, Signal::Logs, &headers).await;
    assert_eq!(stream.end().await.1.code(), Code::Unauthenticated);

    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    let with_headers = |place: usize, headers: Bytes| BatchArrowRecords {
        headers,
        ..batches[place].clone()
    };
    let literal = literal_header(INDEXED, "authorization", &bearer);
    let with_token = with_headers(0, literal);
    assert_eq!(stream.exchange(&with_token).await.0, StatusCode::Ok);
    // The first entry of the dynamic table, as Go's encoder says it the second time.
    let again = with_headers(1, Bytes::from_static(&[0x80 | 62]));
    assert_eq!(stream.exchange(&again).await.0, StatusCode::Ok);
    let without = with_headers(2, Bytes::new());
    assert_eq!(
        stream.exchange(&without).await.0,
        StatusCode::Unauthenticated
    );
    assert_eq!(stream.end().await.1.code(), Code::Unauthenticated);
    let status = server.status_with(Some(TOKEN)).await;
    assert_eq!(refused(&status, "otap", "unauthenticated"), (2, 0));
    // The batches that were taken, wherever their token was; the last stream had shown it too.
    let token = &status.tokens[0];
    assert_eq!((token.name.as_str(), token.requests), ("--token", 3));
}

/// Scenario: a server with a token; a stream without one whose first message is larger than a stranger's may be, and one
/// whose second message is, after a first with the token.
/// Guarantees: the first is refused by its size before its token is looked for; the second is taken.
#[tokio::test]
async fn a_stranger_cannot_send_much() {
    let server = ServerBuilder::new()
        .args(&["--seal-max-age", "1h"])
        .env("OTLAKE_TOKEN", TOKEN)
        .start();
    let (batches, _) = batches();
    let large = |batch: &BatchArrowRecords| BatchArrowRecords {
        headers: literal_header(0, "authorization", &format!("Bearer {TOKEN}")),
        arrow_payloads: batch.arrow_payloads.clone(),
        batch_id: batch.batch_id,
    };
    // An unknown field makes it large.
    let padded = |batch: &BatchArrowRecords| {
        let mut message = batch.encode_to_vec();
        prost::encoding::bytes::encode(15, &vec![0; 2 << 20], &mut message);
        frame(false, &message)
    };
    let stream = OtapStream::open(&server, Signal::Logs).await;
    stream.send_raw(padded(&large(&batches[0]))).await;
    let mut stream = stream;
    let status = stream.status().await.unwrap();
    assert_eq!(status.status_code(), StatusCode::InvalidArgument);
    assert_eq!(stream.end().await.1.code(), Code::InvalidArgument);

    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    assert_eq!(stream.exchange(&large(&batches[0])).await.0, StatusCode::Ok);
    stream.send_raw(padded(&large(&batches[1]))).await;
    assert_eq!(stream.status().await.unwrap().status_code(), StatusCode::Ok);
}

/// Marks a literal header that the dynamic table takes up (RFC 7541, 6.2.1); 0 is one that it does not (6.2.2).
const INDEXED: u8 = 0x40;

/// One header in HPACK: a literal, new name, no Huffman code.
fn literal_header(mark: u8, name: &str, value: &str) -> Bytes {
    let mut header = vec![mark];
    for text in [name, value] {
        header.push(u8::try_from(text.len()).unwrap());
        header.extend(text.as_bytes());
    }
    header.into()
}

/// Scenario: a stream under a compression that is none.
/// Guarantees: refused with the ones that are.
#[tokio::test]
async fn an_unknown_compression_is_refused() {
    let server = Server::start();
    let headers = [("grpc-encoding", "snappy")];
    let mut stream = OtapStream::open_with(&server, Signal::Logs, &headers).await;
    assert_eq!(stream.end().await.1.code(), Code::Unimplemented);
    assert!(stream.headers.contains_key("grpc-accept-encoding"));
}

/// Scenario: streams that end inside a message, or whose bytes are no batch.
/// Guarantees: they end with a clear status; the server goes on.
#[tokio::test]
async fn what_is_no_batch_ends_the_stream() {
    let server = Server::start();
    for (bytes, code) in [
        (&b"\0\0\0\0\x05ab"[..], Code::Cancelled),
        (b"\0\0\0\0\x02\xff\xff", Code::InvalidArgument),
        (b"\x01\0\0\0\x02ab", Code::InvalidArgument),
        (b"\x07\0\0\0\x02ab", Code::InvalidArgument),
    ] {
        let mut stream = OtapStream::open(&server, Signal::Traces).await;
        stream.send_raw(bytes.to_vec()).await;
        stream.close_send();
        let (statuses, end) = stream.end().await;
        assert_eq!(statuses, []);
        assert_eq!(end.code(), code, "{bytes:?}: {end}");
    }
    let mut empty = OtapStream::open(&server, Signal::Metrics).await;
    empty.close_send();
    assert_eq!(empty.end().await.1.code(), Code::Ok);
}
