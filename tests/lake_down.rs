//! A lake that is away delays publishing only.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use otlake::lake::{LakeReader, open_read_only};
use otlake::proto::admin::{FlushRequest, SealsRequest, StatusRequest, StatusResponse};
use tempfile::TempDir;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::load::{Load, SEQ, Sent, logs};
use crate::support::otlp::{kv, text};
use crate::support::outage::{LakeAway, SmallDisk, outage_min, skip};
use crate::support::{PATIENCE, Server, ServerBuilder, data_dir, eventually, lake_config};

async fn status(server: &Server) -> StatusResponse {
    let status = server.admin().await.status(StatusRequest {}).await;
    status.unwrap().into_inner()
}

/// How long the lake is away when outages have their full length.
const FOLDER_OUTAGE: Duration = Duration::from_secs(60);
const LOCK_OUTAGE: Duration = Duration::from_secs(30);

/// What memory may grow by while the lake is away, however much is staged meanwhile: buffers of the sockets, of the
/// Parquet writer, of attempts to publish.
const GROWTH_BYTES_MAX: usize = 32 << 20;

/// The lake is away and clients send: all that must be seen from outside while it lasts.
async fn assert_degraded(server: &Server, load: &Load, outage: Duration) {
    let (started, resident) = (Instant::now(), server.memory_bytes("VmRSS"));
    eventually("trouble", async || {
        !status(server).await.degraded.is_empty()
    })
    .await;
    let before = load.acknowledged();
    eventually("more load", async || load.acknowledged() >= before + 100).await;

    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("degraded"), "{}", answer.text());
    assert!(answer.text().contains("published"), "{}", answer.text());
    assert_eq!(answer.text().lines().count(), 1, "{}", answer.text());
    assert_eq!(server.get("/healthz").await.status, 200);
    eventually("NOT_SERVING", async || {
        server.health().await == [ServingStatus::NotServing; 2]
    })
    .await;

    let told = status(server).await;
    assert!(told.staged_seals > 0);
    assert!(told.tables[0].staged_rows > 0);
    assert!(!told.last_error.is_empty());
    assert!(told.degraded.contains(&told.last_error), "{told:?}");
    assert!(told.last_error_unix_ms >= told.started_unix_ms);

    while started.elapsed() < outage_min(outage) {
        let before = load.acknowledged();
        eventually("more load", async || load.acknowledged() >= before + 100).await;
        assert_eq!(server.get("/readyz").await.status, 503);
        assert_memory_is_flat(server, resident);
    }
}

fn assert_memory_is_flat(server: &Server, before: usize) {
    let after = server.memory_bytes("VmRSS");
    assert!(
        after < before + GROWTH_BYTES_MAX,
        "memory grew from {before} to {after} bytes"
    );
}

/// The lake is back: everything arrives, once and in the order of the seals, and the probes say that all is well.
async fn assert_recovered(server: &Server, load: Load) {
    eventually("readiness", async || {
        server.get("/readyz").await.status == 200
    })
    .await;
    let before = load.acknowledged();
    eventually("more load", async || load.acknowledged() >= before + 20).await;
    let sent = load.finish().await;
    no_backlog(server).await;
    server.flush().await;
    assert_nothing_refused(&sent);
    sent.assert_exactly_once(&server.data_dir());
    eventually("SERVING", async || {
        server.health().await == [ServingStatus::Serving; 2]
    })
    .await;
    let told = status(server).await;
    assert_eq!((told.staged_seals, told.degraded.as_str()), (0, ""));
    let backwards = "SELECT count(*) FROM (
        SELECT committed_at < lag(committed_at) OVER (ORDER BY seal_id) AS back FROM otlake_seals) WHERE back";
    assert_eq!(server.count(backwards), 0);
    let rows = server.count("SELECT sum(logs_rows) FROM otlake_seals");
    assert_eq!(
        server.count(&format!("SELECT count(DISTINCT {SEQ}) FROM otlp_logs")),
        rows
    );
    let staged = fs::read_dir(server.data_dir().join("staged")).unwrap();
    assert_eq!(staged.count(), 0);
}

/// Waits until the staged seals are published, for as long as they become fewer.
async fn no_backlog(server: &Server) {
    let mut least = u64::MAX;
    while least > 0 {
        eventually("a smaller backlog", async || {
            let staged = status(server).await.staged_seals;
            let is_smaller = staged < least;
            least = staged.min(least);
            is_smaller
        })
        .await;
    }
}

fn assert_nothing_refused(sent: &Sent) {
    assert!(sent.statuses.is_empty(), "{:?}", sent.statuses);
    assert!(sent.http_refusals.is_empty(), "{:?}", sent.http_refusals);
    assert_eq!(sent.http_unanswered, 0);
}

/// A server with a few seals in its lake, and clients that send.
async fn under_load() -> (Server, Load) {
    under_load_in(TempDir::new().unwrap()).await
}

async fn under_load_in(dir: TempDir) -> (Server, Load) {
    let args = ["--seal-max-age", "50ms"];
    let server = ServerBuilder::again(dir).args(&args).start();
    let load = Load::start(&server, 2, 1).await;
    eventually("a commit", async || {
        status(&server).await.committed_seals >= 2
    })
    .await;
    (server, load)
}

/// Puts a file in the place of a folder, or the folder back.
fn swap(folder: &Path, away: &Path) {
    if away.exists() {
        fs::remove_file(folder).unwrap();
        fs::rename(away, folder).unwrap();
    } else {
        fs::rename(folder, away).unwrap();
        fs::write(folder, "in the way").unwrap();
    }
}

/// Scenario: under load the lake's whole folder is taken away, as a volume that is not mounted, and put back.
/// Guarantees: not one request is refused; probes and status say what is wrong; then all is there, once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_goes_and_comes_back() {
    let (server, load) = under_load().await;
    let away = LakeAway::take(&server.data_dir());
    assert_degraded(&server, &load, FOLDER_OUTAGE).await;
    away.put_back();
    assert_recovered(&server, load).await;
}

/// Scenario: the folder goes and an empty one is in its place, as where a volume was mounted.
/// Guarantees: nothing is published into the empty folder, and no server starts with it; then all is there, once.
#[tokio::test]
async fn an_empty_folder_is_not_taken_for_the_lake() {
    let server = Server::start();
    let lake = server.data_dir().join("lake");
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    server.flush().await;
    let away = LakeAway::take(&server.data_dir());
    fs::create_dir(&lake).unwrap();
    client.export(logs("a", 10..20)).await.unwrap();
    let request = FlushRequest { timeout_ms: 300 };
    let refused = server.admin().await.flush(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    let said = refused.message();
    assert!(said.contains("put the folder back"), "{said}");
    away.put_back();
    server.flush().await;
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 20);

    let (_, dir) = server.stop();
    let _away = LakeAway::take(&data_dir(&dir));
    fs::create_dir(&lake).unwrap();
    let again = ServerBuilder::again(dir);
    let output = again.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("put the folder back"), "{said}");
    assert_eq!(fs::read_dir(&lake).unwrap().count(), 0);
}

/// Scenario: under load one table's folder turns into something that cannot be written, and back.
/// Guarantees: the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_tables_folder_refuses_and_heals() {
    let (server, load) = under_load().await;
    let table = server.data_dir().join("lake/main/otlp_logs");
    let away = server.data_dir().join("away");
    swap(&table, &away);
    assert_degraded(&server, &load, FOLDER_OUTAGE).await;
    swap(&table, &away);
    assert_recovered(&server, load).await;
}

/// Scenario: under load the file system of the lake's folder, another than the data folder's, turns read-only, and back.
/// Guarantees: the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_lake_heals() {
    let dir = TempDir::new().unwrap();
    let disk = match SmallDisk::mount(&dir, "lake", 256) {
        Ok(disk) => disk,
        Err(why) => return skip("a_read_only_lake_heals", &why),
    };
    let (server, load) = under_load_in(dir).await;
    eventually("no open file", async || disk.set_read_only(true).is_ok()).await;
    assert_degraded(&server, &load, FOLDER_OUTAGE).await;
    disk.set_read_only(false).unwrap();
    assert_recovered(&server, load).await;
}

/// Scenario: the lake is away while four times as much as memory may grow by is received, in many seals.
/// Guarantees: all of it is acknowledged and waits on disk, not in memory; then it is in the lake, once.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_while_the_lake_is_away() {
    let server = Server::with(&["--seal-max-age", "50ms", "--seal-target-bytes", "2MiB"]);
    // What is grown once for all is grown while the lake is there.
    send_mib(&server, 0..24).await;
    server.flush().await;
    let away = LakeAway::take(&server.data_dir());
    let resident = server.memory_bytes("VmRSS");
    let mib = 24..24 + 4 * i64::try_from(GROWTH_BYTES_MAX >> 20).unwrap();
    send_mib(&server, mib.clone()).await;
    eventually("staging", async || {
        status(&server).await.buffered_bytes == 0
    })
    .await;
    assert!(status(&server).await.staged_seals >= 20);
    assert_memory_is_flat(&server, resident);
    away.put_back();
    server.flush().await;
    let counts = format!("SELECT count(*), count(DISTINCT {SEQ}) FROM otlp_logs");
    let all = mib.end.to_string();
    assert_eq!(server.sql(&counts), [[all.clone(), all]]);
}

/// Sends one log of 1 MiB a number.
async fn send_mib(server: &Server, seqs: std::ops::Range<i64>) {
    let mut client = server.logs().await;
    for seq in seqs {
        let mut request = logs("a", [seq]);
        let record = &mut request.resource_logs[0].scope_logs[0].log_records[0];
        let padding = "padding ".repeat((1 << 20) / 8);
        record.attributes.push(kv("padding", text(&padding)));
        client.export(request).await.unwrap();
    }
}

/// Scenario: under load the catalog's file is taken away and put back.
/// Guarantees: the same, and no new, empty catalog in between.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_goes_and_comes_back() {
    let (server, load) = under_load().await;
    let data_dir = server.data_dir();
    let away = data_dir.join("away");
    fs::create_dir(&away).unwrap();
    let files = ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"];
    for name in files {
        let _ = fs::rename(data_dir.join(name), away.join(name));
    }
    // SQLite goes on with the files it has open, so nothing need go wrong here; if it does, it must heal.
    let before = load.acknowledged();
    eventually("more load", async || load.acknowledged() >= before + 100).await;
    for name in files {
        let _ = fs::rename(away.join(name), data_dir.join(name));
    }
    assert_recovered(&server, load).await;
}

/// Scenario: another program holds the catalog's write lock for longer than SQLite waits for it.
/// Guarantees: requests are taken in all the while, and afterwards all is there, once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_catalog_holds_up_nothing_but_publishing() {
    let (server, load) = under_load().await;
    let lock = CatalogLock::take(&server.data_dir());
    assert_degraded(&server, &load, LOCK_OUTAGE).await;
    lock.release();
    assert_recovered(&server, load).await;
}

/// Scenario: the catalog is locked while one seal is tried again and again.
/// Guarantees: attempts leave nothing behind: no threads of a DuckDB that was given up, and so none of its memory.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_fail_leave_nothing_behind() {
    let server = Server::start();
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    server.flush().await;
    let lock = CatalogLock::take(&server.data_dir());
    client.export(logs("a", 10..20)).await.unwrap();
    let flush = tokio::spawn({
        let mut admin = server.admin().await;
        async move { admin.flush(FlushRequest { timeout_ms: 25_000 }).await }
    });
    attempts(&server, 2).await;
    let threads = server.threads();
    attempts(&server, 6).await;
    // The runtime may have started one for a task that blocks.
    assert!(server.threads() <= threads + 1, "{threads} before");
    lock.release();
    flush.await.unwrap().unwrap();
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 20);
}

/// Waits until the newest seal was tried so often.
async fn attempts(server: &Server, attempts: u32) {
    let mut admin = server.admin().await;
    eventually("attempts", async || {
        let seals = admin.seals(SealsRequest { limit: 1 }).await.unwrap();
        seals.into_inner().seals[0].attempts >= attempts
    })
    .await;
}

/// Scenario: the catalog is locked, and the server is asked to stop.
/// Guarantees: it leaves soon after its time, with exit code 0 and the seals on disk for the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_catalog_does_not_hold_up_the_stop() {
    let server = Server::with(&["--seal-max-age", "50ms", "--shutdown-grace", "1s"]);
    let load = Load::start(&server, 2, 0).await;
    eventually("a commit", async || {
        status(&server).await.committed_seals >= 1
    })
    .await;
    let lock = CatalogLock::take(&server.data_dir());
    eventually("a staged seal", async || {
        status(&server).await.staged_seals > 0
    })
    .await;
    let started = Instant::now();
    let (code, dir) = tokio::task::block_in_place(|| server.stop());
    let took = started.elapsed();
    let sent = load.finish().await;
    assert_eq!(code.code(), Some(0));
    assert!(took < Duration::from_secs(8), "{took:?}");
    lock.release();
    let server = ServerBuilder::again(dir).start();
    server.flush().await;
    sent.assert_exactly_once(&server.data_dir());
}

/// The write lock of a SQLite catalog, held by this process, which is not the server's.
struct CatalogLock {
    connection: LakeReader,
}

impl CatalogLock {
    fn take(data_dir: &Path) -> CatalogLock {
        // This connection has DuckDB's SQLite extension loaded, and nothing else to do.
        let connection = open_read_only(&lake_config(data_dir)).unwrap();
        let catalog = data_dir.join("catalog.sqlite");
        let begin = format!(
            "USE memory; DETACH lake; ATTACH '{}' AS held (TYPE sqlite); BEGIN;
             CREATE TABLE held.lock_probe (number INTEGER)",
            catalog.display()
        );
        let started = Instant::now();
        while let Err(error) = connection.execute_batch(&begin) {
            // The server may be in a transaction of its own at this moment.
            assert!(started.elapsed() < PATIENCE, "{error}");
            let _ = connection.execute_batch("ROLLBACK; DETACH held; ATTACH ':memory:' AS lake");
        }
        CatalogLock { connection }
    }

    fn release(self) {
        self.connection.execute_batch("ROLLBACK").unwrap();
    }
}
