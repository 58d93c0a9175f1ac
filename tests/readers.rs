//! Others read the lake while the server writes to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use otlake::lake::{Catalog, LakeConfig, open_read_only};
use otlake::proto::admin::StatusRequest;

use crate::support::load::{Load, logs, spans};
use crate::support::{
    PATIENCE, Server, ServerBuilder, data_dir, eventually, lake_config, query_all,
};

/// Tells the reading process which data folder to read.
const READER_DATA_DIR: &str = "TEST_READER_DATA_DIR";

/// A reader leaves once this file is there.
const READ_ENOUGH: &str = "read-enough";

/// The rows of two tables and what the seals say they should be, in one look.
const LOOK: &str = "SELECT (SELECT count(*) FROM otlp_logs), (SELECT count(*) FROM otlp_traces),
    (SELECT coalesce(sum(logs_rows), 0) FROM otlake_seals),
    (SELECT coalesce(sum(traces_rows), 0) FROM otlake_seals),
    (SELECT count(*) FROM otlake_seals)";

/// Looks again and again, on connections of its own, until `enough`; answers how many seals it saw come.
fn read_until(data_dir: &Path, enough: impl Fn() -> bool) -> i64 {
    let (mut first, mut last) = (None, [0; 5]);
    while !enough() {
        let lake = open_read_only(&lake_config(data_dir)).unwrap();
        for _ in 0..5 {
            let cells = query_all(&lake, LOOK).remove(0);
            let seen: Vec<i64> = cells.iter().map(|cell| cell.parse().unwrap()).collect();
            let seen = <[i64; 5]>::try_from(seen).unwrap();
            assert_eq!(seen[..2], seen[2..4], "half a seal");
            for (before, now) in last.iter().zip(&seen) {
                assert!(before <= now, "{last:?}, then {seen:?}");
            }
            last = seen;
            first.get_or_insert(seen[4]);
        }
    }
    last[4] - first.unwrap_or(0)
}

/// Not a test by itself: the other process of `another_process_reads_while_the_server_writes`.
#[test]
fn reading_process() {
    let Some(data_dir) = std::env::var_os(READER_DATA_DIR) else {
        return;
    };
    let data_dir = PathBuf::from(data_dir);
    let started = Instant::now();
    let enough = || data_dir.join(READ_ENOUGH).exists() || started.elapsed() > PATIENCE;
    let seals = read_until(&data_dir, enough);
    assert!(seals > 0, "no seal came while this process read");
}

fn spawn_reading_process(data_dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["readers::reading_process", "--exact", "--nocapture"])
        .env(READER_DATA_DIR, data_dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Scenario: the server publishes many small seals, merges them and expires snapshots; a thread of this process and
/// another process read all the while.
/// Guarantees: no error on either side; counts only grow; a seal is seen in all of its tables or in none.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_reads_while_the_server_writes() {
    let server = Server::with(&["--seal-max-age", "50ms", "--snapshot-retention", "30s"]);
    let data_dir = server.data_dir();
    let process = spawn_reading_process(&data_dir);
    let enough = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (data_dir, enough) = (data_dir.clone(), Arc::clone(&enough));
        move || read_until(&data_dir, || enough.load(Ordering::Relaxed))
    });

    let load = Load::start(&server, 1, 1).await;
    let mut client = server.traces().await;
    let mut admin = server.admin().await;
    let mut first = 0;
    eventually("enough seals", async || {
        client.export(spans("a", first..first + 3)).await.unwrap();
        first += 3;
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        status.committed_seals >= 40
    })
    .await;
    let sent = load.finish().await;
    server.flush().await;
    // While seals come quickly, merging waits.
    eventually("a merge", async || {
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        status.maintenance_runs > 0
    })
    .await;

    enough.store(true, Ordering::Relaxed);
    std::fs::write(data_dir.join(READ_ENOUGH), "").unwrap();
    assert!(reader.join().unwrap() > 0);
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.last_error, "");
    assert_eq!(status.maintenance_last_error, "");
    sent.assert_exactly_once(&data_dir);
}

/// Scenario: a reader remembers a snapshot; meanwhile rows are published and the files merged.
/// Guarantees: within the retention the snapshot can be read as it was, although its rows lie in a file with later ones.
#[tokio::test]
async fn an_old_snapshot_stays_as_it_was() {
    let server = Server::start();
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    server.flush().await;
    let snapshot = server.count("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')");
    for seal in 1..10 {
        let first = seal * 10;
        client.export(logs("a", first..first + 10)).await.unwrap();
        server.flush().await;
    }
    let live = "SELECT count(*) FROM ducklake_list_files('lake', 'otlp_logs')";
    eventually("a merge", async || server.count(live) < 10).await;
    let then = format!("SELECT count(*) FROM otlp_logs AT (VERSION => {snapshot})");
    assert_eq!(server.count(&then), 10);
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 100);
}

/// Scenario: a catalog that is a DuckDB file, which one process alone can have open.
/// Guarantees: the server receives, publishes and merges as always; while it runs a reader is told why it cannot read;
/// after it stopped all rows are there, and a second run goes on with them.
#[tokio::test]
async fn a_duckdb_catalog_works_end_to_end() {
    let builder = ServerBuilder::new();
    let place = data_dir_of(&builder);
    let catalog = format!("duckdb:{}", place.join("catalog.duckdb").display());
    let args = ["--catalog", catalog.as_str(), "--seal-max-age", "1h"];
    let lake = LakeConfig {
        catalog: Catalog::DuckDb(place.join("catalog.duckdb")),
        ..lake_config(&place)
    };
    let mut builder = builder;
    for run in 0..2 {
        let server = builder.args(&args).start();
        let mut client = server.logs().await;
        for seal in 0..10 {
            let first = (run * 10 + seal) * 10;
            client.export(logs("a", first..first + 10)).await.unwrap();
            assert_eq!(server.flush().await, 10);
        }
        let refused = open_read_only(&lake).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("open in another process"), "{refused}");
        assert!(refused.contains("sqlite:"), "{refused}");
        let (status, dir) = server.stop();
        assert!(status.success());
        let reader = open_read_only(&lake).unwrap();
        let count = "SELECT count(*), count(DISTINCT body) FROM otlp_logs";
        let rows = ((run + 1) * 100).to_string();
        assert_eq!(query_all(&reader, count), [[rows.clone(), rows]]);
        drop(reader);
        builder = ServerBuilder::again(dir);
    }
    assert!(!place.join("catalog.sqlite").exists());
}

/// Where the builder's server will have its data.
fn data_dir_of(builder: &ServerBuilder) -> PathBuf {
    let command = builder.command();
    let mut args = command.get_args();
    args.find(|arg| *arg == "--data-dir");
    PathBuf::from(args.next().unwrap())
}

/// Scenario: the data folder is moved to another place while no server runs.
/// Guarantees: the rows can be read there, and a server goes on there.
#[tokio::test]
async fn a_moved_data_folder_is_the_same_lake() {
    let server = Server::start();
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    let (status, dir) = server.stop();
    assert!(status.success());
    let new = tempfile::TempDir::new().unwrap();
    std::fs::rename(data_dir(&dir), data_dir(&new)).unwrap();
    let server = ServerBuilder::again(new)
        .args(&["--seal-max-age", "1h"])
        .start();
    let mut client = server.logs().await;
    client.export(logs("a", 10..20)).await.unwrap();
    server.flush().await;
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 20);
}
