//! When rows are cut into a seal, what a flush promises, and what is said about it afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use otlake::proto::admin::{FlushRequest, FlushResponse, SealsRequest, StatusRequest};
use otlake::proto::admin::{Seal, StatusResponse};

use crate::support::load::{Load, logs, spans};
use crate::support::{Server, ServerBuilder, eventually};

async fn send(server: &Server, seqs: std::ops::Range<i64>) {
    server.logs().await.export(logs("a", seqs)).await.unwrap();
}

async fn flush(server: &Server) -> FlushResponse {
    let request = FlushRequest { timeout_ms: 20_000 };
    server
        .admin()
        .await
        .flush(request)
        .await
        .unwrap()
        .into_inner()
}

async fn status(server: &Server) -> StatusResponse {
    let status = server.admin().await.status(StatusRequest {}).await;
    status.unwrap().into_inner()
}

async fn seals(server: &Server) -> Vec<Seal> {
    let seals = server.admin().await.seals(SealsRequest { limit: 0 }).await;
    seals.unwrap().into_inner().seals
}

/// Rows accepted, and where the status says they are: buffered, staged, committed.
fn rows(status: &StatusResponse) -> (u64, [u64; 3]) {
    let accepted = status.signals.iter().map(|signal| signal.accepted_rows);
    let mut places = [0; 3];
    for table in &status.tables {
        places[0] += table.buffered_rows;
        places[1] += table.staged_rows;
        places[2] += table.committed_rows;
    }
    (accepted.sum(), places)
}

/// Scenario: more rows than the target size, three times, and no other reason for a cut.
/// Guarantees: each time a seal is cut by size, before anybody asks.
#[tokio::test]
async fn a_full_buffer_is_cut() {
    let server = Server::with(&["--seal-target-bytes", "16KiB", "--seal-max-age", "1h"]);
    for round in 0..3 {
        send(&server, round * 200..round * 200 + 200).await;
        eventually("a seal", async || {
            server.count("SELECT count(*) FROM otlake_seals WHERE cause = 'size'") == round + 1
        })
        .await;
    }
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 600);
}

/// Scenario: a few rows, and nobody asks.
/// Guarantees: they are in the lake once they have the maximum age, and not long before.
#[tokio::test]
async fn old_rows_are_cut() {
    let server = Server::with(&["--seal-max-age", "300ms"]);
    send(&server, 0..10).await;
    eventually("the rows", async || {
        server.count("SELECT count(*) FROM otlp_logs") == 10
    })
    .await;
    let query =
        "SELECT cause, date_diff('millisecond', opened_at, sealed_at) >= 290 FROM otlake_seals";
    assert_eq!(server.sql(query), [["age", "true"]]);
}

/// Scenario: rows wait for an hour to pass; somebody asks for a flush, then for another.
/// Guarantees: the first brings all rows into the lake and says how many and in which seal; the second answers at
/// once that nothing was to be done.
#[tokio::test]
async fn a_flush_answers_when_the_rows_are_there() {
    let server = Server::start();
    assert_eq!(flush(&server).await, FlushResponse::default());
    send(&server, 0..10).await;
    let mut client = server.traces().await;
    client.export(spans("a", 0..5)).await.unwrap();
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 0);

    let flushed = flush(&server).await;
    assert_eq!(flushed.rows, 15);
    let seal = "SELECT seal_id, cause, rows, logs_rows, traces_rows FROM otlake_seals";
    let id = flushed.seal_id.to_string();
    assert_eq!(server.sql(seal), [[id.as_str(), "flush", "15", "10", "5"]]);
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
    assert_eq!(server.count("SELECT count(*) FROM otlp_traces"), 5);

    let started = Instant::now();
    let again = flush(&server).await;
    assert_eq!((again.rows, again.seal_id), (0, flushed.seal_id));
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// Scenario: many clients each send, flush and look, at the same time, while age cuts seals too.
/// Guarantees: each of them finds its own rows in the lake once its flush is answered.
#[tokio::test(flavor = "multi_thread")]
async fn everyone_finds_their_rows_after_their_flush() {
    let server = Server::with(&["--seal-max-age", "20ms"]);
    let server = std::sync::Arc::new(server);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4 {
        let server = std::sync::Arc::clone(&server);
        clients.spawn(async move {
            for round in 0..5 {
                let first = (number * 5 + round) * 10;
                let name = format!("client-{number}");
                let mut client = server.logs().await;
                client.export(logs(&name, first..first + 10)).await.unwrap();
                flush(&server).await;
                let query = format!("SELECT count(*) FROM otlp_logs WHERE service_name = '{name}'");
                let found = tokio::task::block_in_place(|| server.count(&query));
                assert_eq!(found, (round + 1) * 10);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

/// Scenario: three runs on one data folder, seals in each.
/// Guarantees: numbers go up and none is used twice; the rows a seal says it has are those the tables have; nothing
/// is committed before the seal that comes before it.
#[tokio::test]
async fn seal_numbers_ascend_over_restarts() {
    let mut builder = ServerBuilder::new();
    let mut ids = Vec::new();
    for run in 0..3 {
        let server = builder.args(&["--seal-max-age", "1h"]).start();
        for seal in 0..2 {
            let first = (run * 2 + seal) * 10;
            send(&server, first..first + 10).await;
            ids.push(flush(&server).await.seal_id);
        }
        let (status, dir) = server.stop();
        assert!(status.success());
        builder = ServerBuilder::again(dir);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let server = builder.start();
    let stored: Vec<u64> = server
        .sql("SELECT seal_id FROM otlake_seals ORDER BY committed_at, seal_id")
        .iter()
        .map(|row| row[0].parse().unwrap())
        .collect();
    assert_eq!(stored, ids);
    let writers = server.sql("SELECT DISTINCT writer_id FROM otlake_seals");
    let writer = fs::read_to_string(server.data_dir().join("writer_id")).unwrap();
    assert_eq!(writers, [[writer.trim()]]);
    let summed = server.count("SELECT sum(logs_rows) FROM otlake_seals");
    assert_eq!(summed, server.count("SELECT count(*) FROM otlp_logs"));
    assert_eq!(summed, 60);
}

/// Scenario: rows on their way, looked at after each step.
/// Guarantees: every accepted row is told to be in one place, buffered, staged or committed; the seals' list and the
/// files' count agree with the lake.
#[tokio::test]
async fn status_and_seals_account_for_every_row() {
    let server = Server::start();
    send(&server, 0..10).await;
    let mut client = server.traces().await;
    client.export(spans("a", 0..5)).await.unwrap();
    let told = status(&server).await;
    assert_eq!(rows(&told), (15, [15, 0, 0]));
    assert!(told.buffered_bytes > 0 && told.buffered_bytes < told.buffered_bytes_max);
    assert_eq!((told.staged_seals, told.committed_seals), (0, 0));

    let flushed = flush(&server).await;
    let told = status(&server).await;
    assert_eq!(rows(&told), (15, [0, 0, 15]));
    assert_eq!((told.staged_seals, told.committed_seals), (0, 1));
    assert_eq!((told.buffered_bytes, told.oldest_buffered_age_ms), (0, 0));
    assert!(told.last_commit_unix_ms >= told.started_unix_ms);
    assert_eq!((told.degraded.as_str(), told.last_error.as_str()), ("", ""));
    let files: Vec<u64> = told.tables.iter().map(|table| table.files).collect();
    assert_eq!(files, [1, 1, 0, 0, 0, 0, 0]);

    send(&server, 10..20).await;
    flush(&server).await;
    let listed = seals(&server).await;
    assert_eq!(listed.len(), 2);
    assert!(listed[0].seal_id > listed[1].seal_id, "newest first");
    let seal = &listed[1];
    assert_eq!(seal.seal_id, flushed.seal_id);
    assert_eq!(
        (seal.state.as_str(), seal.cause.as_str()),
        ("committed", "flush")
    );
    assert_eq!((seal.rows, seal.attempts, seal.error.as_str()), (15, 1, ""));
    assert!(seal.stage_ms > 0.0 && seal.publish_ms > 0.0);
    assert!(seal.total_ms >= seal.publish_ms.floor(), "{seal:?}");
    let stored = server.sql("SELECT rows, bytes FROM otlake_seals ORDER BY seal_id LIMIT 1");
    assert_eq!(stored, [[seal.rows.to_string(), seal.bytes.to_string()]]);
}

/// Scenario: the folder for staged seals is unusable for a while, under load.
/// Guarantees: rows stay in memory and are told to be there, the probes say what is wrong, and afterwards every
/// acknowledged row is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_staged_wait_in_memory() {
    let server = Server::with(&["--seal-max-age", "50ms"]);
    let (staged, away) = (
        server.data_dir().join("staged"),
        server.data_dir().join("away"),
    );
    fs::rename(&staged, &away).unwrap();
    fs::write(&staged, "in the way").unwrap();
    let load = Load::start(&server, 2, 1).await;
    eventually("trouble", async || {
        !status(&server).await.degraded.is_empty()
    })
    .await;
    let before = load.acknowledged();
    eventually("more load", async || load.acknowledged() >= before + 50).await;
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("staged"), "{}", answer.text());
    let sent = load.finish().await;
    let told = status(&server).await;
    let accepted = u64::try_from(sent.acknowledged.len()).unwrap();
    assert_eq!(rows(&told), (accepted, [accepted, 0, 0]));
    assert!(told.last_error.contains("staged"), "{}", told.last_error);

    fs::remove_file(&staged).unwrap();
    fs::rename(&away, &staged).unwrap();
    flush(&server).await;
    assert_eq!(rows(&status(&server).await), (accepted, [0, 0, accepted]));
    assert_eq!(server.get("/readyz").await.status, 200);
    sent.assert_exactly_once(&server.data_dir());
}

/// Scenario: enough small files of two services for a merge.
/// Guarantees: staged and merged files are both compressed with zstd; a merged one is sorted by service and time.
#[tokio::test]
async fn merged_files_are_sorted_and_compressed() {
    let server = Server::start();
    let mut client = server.logs().await;
    for seal in (0..8).rev() {
        for service in ["zebra", "ant"] {
            let first = seal * 10;
            let request = logs(service, (first..first + 10).rev());
            client.export(request).await.unwrap();
        }
        flush(&server).await;
        if seal == 7 {
            assert_eq!(codecs(&server), BTreeSet::from(["ZSTD".to_owned()]));
        }
    }
    let live = "SELECT count(*) FROM ducklake_list_files('lake', 'otlp_logs')";
    eventually("a merge", async || server.count(live) == 1).await;
    assert_eq!(codecs(&server), BTreeSet::from(["ZSTD".to_owned()]));
    let file = &server.sql("SELECT data_file FROM ducklake_list_files('lake', 'otlp_logs')")[0][0];
    let disorder = format!(
        "SELECT count(*) FROM (
             SELECT (service_name, time_unix_nano) < lag((service_name, time_unix_nano))
                 OVER (ORDER BY file_row_number) AS back
             FROM read_parquet('{file}', file_row_number = true)) WHERE back"
    );
    assert_eq!(server.count(&disorder), 0);
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 160);
}

/// How the columns of the logs' live files are compressed.
fn codecs(server: &Server) -> BTreeSet<String> {
    let files = server.sql("SELECT data_file FROM ducklake_list_files('lake', 'otlp_logs')");
    let mut codecs = BTreeSet::new();
    for file in files {
        let query = format!(
            "SELECT DISTINCT compression FROM parquet_metadata('{}')",
            file[0]
        );
        codecs.extend(server.sql(&query).into_iter().flatten());
    }
    codecs
}
