//! Several batches of one stream that wait for their answers.

use std::time::Duration;

use otlake::otap_producer::{Options, Producer};
use otlake::proto::arrow::{BatchArrowRecords, BatchStatus, StatusCode};
use otlake::proto::logs::v1::LogRecord;
use otlake::signal::Signal;
use rustix::process::Signal as ProcessSignal;
use tonic::Code;

use crate::support::otap_load::produce;
use crate::support::otlp::{Export, resource, text};
use crate::support::stream::OtapStream;
use crate::support::{Server, eventually};

/// Batches of a stream that a server takes before it has answered one: as many as df_engine sends.
const IN_FLIGHT_MAX: usize = 64;

/// Batches are answered once they are in the lake, whose next commit is an hour away.
const UNANSWERED: [&str; 4] = ["--seal-max-age", "1h", "--durability", "lake"];

/// Batches of one log record each, no two the same.
fn batches(count: usize) -> Vec<BatchArrowRecords> {
    let mut producer = Producer::new(Options::default());
    let batch = |number| {
        let record = LogRecord {
            body: text(&format!("record {number}")),
            ..LogRecord::default()
        };
        let request = Export::logs(resource(vec![]), Default::default(), vec![record]);
        produce(&mut producer, &request)
    };
    (0..count).map(batch).collect()
}

/// Waits until so many rows wait in memory.
async fn buffered(server: &Server, rows: usize) {
    eventually("the rows", async || {
        let tables = server.status().await.tables;
        let buffered = tables.iter().map(|table| table.buffered_rows).sum::<u64>();
        buffered == rows as u64
    })
    .await;
}

fn assert_all_taken(mut statuses: Vec<BatchStatus>, batches: usize) {
    statuses.sort_by_key(|status| status.batch_id);
    let ids = statuses.iter().map(|status| status.batch_id);
    assert!(ids.eq(0..i64::try_from(batches).unwrap()), "{statuses:?}");
    for status in statuses {
        assert_eq!(status.status_code(), StatusCode::Ok, "{status:?}");
    }
}

/// Scenario: a client sends one batch more than a stream may have in flight, and closes its side, while nothing is answered; then
/// a commit is asked for, and another.
/// Guarantees: as many are taken as may be, the last one only when others have their answers; each is answered once.
#[tokio::test]
async fn a_stream_has_so_many_batches_in_flight() {
    let server = Server::with(&UNANSWERED);
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    let batches = batches(IN_FLIGHT_MAX + 1);
    for batch in &batches {
        stream.send(batch).await;
    }
    stream.close_send();
    buffered(&server, IN_FLIGHT_MAX).await;
    assert_eq!(server.flush().await, IN_FLIGHT_MAX as u64);
    let mut statuses = Vec::new();
    for _ in 0..IN_FLIGHT_MAX {
        statuses.push(stream.status().await.unwrap());
    }
    buffered(&server, 1).await;
    assert_eq!(server.flush().await, 1);
    let (last, end) = stream.end().await;
    statuses.extend(last);
    assert_all_taken(statuses, batches.len());
    assert_eq!(end.code(), Code::Ok);
}

/// Scenario: the server is stopped while batches wait to be in the lake.
/// Guarantees: they get there with the stop and are answered, and then the stream ends with UNAVAILABLE.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_was_read() {
    let mut server = Server::with(&UNANSWERED);
    let mut stream = OtapStream::open(&server, Signal::Logs).await;
    let batches = batches(3);
    for batch in &batches {
        stream.send(batch).await;
    }
    buffered(&server, batches.len()).await;
    server.signal(ProcessSignal::TERM);
    let end = tokio::time::timeout(Duration::from_secs(20), stream.end()).await;
    let (statuses, end) = end.expect("the stream's end");
    assert_all_taken(statuses, batches.len());
    assert_eq!(end.code(), Code::Unavailable);
    let status = tokio::task::block_in_place(|| server.wait());
    assert_eq!(status.code(), Some(0));
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 3);
}
