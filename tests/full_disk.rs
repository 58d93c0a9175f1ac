//! A disk that is full, or a journal that may not grow: requests are told to come back, and nothing that was
//! acknowledged is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::support::crash_load::{CrashLoad, Temper};
use crate::support::outage::{LakeAway, SmallDisk, skip};
use crate::support::{Server, ServerBuilder, data_dir, eventually, read_log};

const MIB: u64 = 1 << 20;

/// Text that each log record carries, so that disks fill.
const PADDING_BYTES: usize = 2000;

/// What the load may still write before its disk is full.
const LEFT_BYTES: u64 = 4 * MIB;

/// A server whose data folder is on a disk that will soon be full, and clients that send.
async fn on_a_small_disk(test: &str) -> Option<(SmallDisk, Server, CrashLoad)> {
    let dir = TempDir::new().unwrap();
    let disk = match SmallDisk::mount(&dir, "", 64) {
        Ok(disk) => disk,
        Err(why) => {
            skip(test, &why);
            return None;
        }
    };
    let args = ["--seal-max-age", "100ms"];
    let server = ServerBuilder::again(dir).args(&args).start();
    let load = start_load(&server).await;
    disk.fill_up(LEFT_BYTES);
    refused(&load).await;
    Some((disk, server, load))
}

async fn start_load(server: &Server) -> CrashLoad {
    let load = CrashLoad::with_padding(&[Temper::GivesUp, Temper::Retries], PADDING_BYTES);
    load.aim(server);
    acknowledged(&load).await;
    load
}

async fn acknowledged(load: &CrashLoad) {
    let before = load.acknowledged();
    eventually("acknowledgements", async || {
        load.acknowledged() >= before + 100
    })
    .await;
}

async fn refused(load: &CrashLoad) {
    let before = load.refused();
    eventually("refusals", async || load.refused() >= before + 100).await;
}

/// While requests are refused: the server is up, and says that it is not well.
async fn assert_degraded(server: &Server) {
    assert_eq!(server.get("/healthz").await.status, 200);
    eventually("trouble", async || {
        server.get("/readyz").await.status == 503
    })
    .await;
    assert_ne!(server.status().await.degraded, "");
}

/// Service is back without a restart, and everything that was acknowledged is in the lake once.
async fn assert_recovered(server: &Server, load: CrashLoad) {
    acknowledged(&load).await;
    eventually("readiness", async || {
        server.get("/readyz").await.status == 200
    })
    .await;
    let sent = load.finish().await;
    server.flush().await;
    sent.assert_refusals_are_retryable();
    sent.assert_exactly_once(&server.data_dir());
}

/// Scenario: under load the disk of the data folder, lake and catalog included, becomes full; later there is room again.
/// Guarantees: requests get UNAVAILABLE or 503 and nothing else while it lasts, and the server stays up; then it serves
/// again by itself, and everything acknowledged before, meanwhile and after is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_until_there_is_room() {
    let Some((disk, mut server, load)) =
        on_a_small_disk("a_full_disk_refuses_until_there_is_room").await
    else {
        return;
    };
    assert_degraded(&server).await;
    refused(&load).await;
    assert!(server.child.try_wait().unwrap().is_none());
    disk.make_room();
    assert_recovered(&server, load).await;
}

/// Scenario: the server is killed while the disk is full, started while it still is, killed again, and started once
/// there is room.
/// Guarantees: a start on a full disk succeeds or says what it cannot do; everything acknowledged is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_on_a_full_disk_loses_nothing() {
    let Some((disk, server, load)) = on_a_small_disk("a_kill_on_a_full_disk_loses_nothing").await
    else {
        return;
    };
    let log_before = server.log().len();
    let dir = server.kill();
    load.aim_nowhere();
    let dir = match ServerBuilder::again(dir).try_start() {
        Ok(server) => server.kill(),
        Err((status, dir)) => {
            assert_eq!(status.code(), Some(1));
            let log = read_log(&dir).split_off(log_before);
            assert!(log.contains("error: cannot "), "{log}");
            assert!(log.contains("make room"), "{log}");
            dir
        }
    };
    disk.make_room();
    let args = ["--seal-max-age", "100ms"];
    let server = ServerBuilder::again(dir).args(&args).start();
    load.aim(&server);
    assert_recovered(&server, load).await;
}

/// Scenario: the lake's folder is away for so long that journal and staged files reach `--journal-max-bytes`.
/// Guarantees: then, and not before, requests get UNAVAILABLE or 503, and the folder stays about as small as it was
/// told to; when the lake is back the server serves again by itself, and everything acknowledged is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_until_the_lake_is_back() {
    let max_bytes = 4 * MIB;
    let server = Server::with(&["--seal-max-age", "50ms", "--journal-max-bytes", "4MiB"]);
    let load = start_load(&server).await;
    let away = LakeAway::take(&server.data_dir());
    refused(&load).await;
    let held = bytes_below(&server.data_dir(), &["journal", "staged"]);
    assert!((max_bytes / 2..max_bytes * 5 / 4).contains(&held), "{held}");
    assert_degraded(&server).await;
    away.put_back();
    assert_recovered(&server, load).await;
}

/// Scenario: the data folder is on a small disk, the lake on a large one, and no seal is due for an hour.
/// Guarantees: when the journal leaves no room but that for staging, its rows are cut and published, and service goes on, as
/// often as it takes; without rows nothing is cut; everything acknowledged is in the lake once.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_is_emptied_into_the_lake() {
    let (dir, lake) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let _disk = match SmallDisk::mount(&dir, "", 16) {
        Ok(disk) => disk,
        Err(why) => return skip("a_small_disk_is_emptied_into_the_lake", &why),
    };
    symlink(lake.path(), data_dir(&dir).join("lake")).unwrap();
    let args = ["--seal-max-age", "1h"];
    let server = ServerBuilder::again(dir).args(&args).start();
    let load = start_load(&server).await;
    let cuts = "SELECT count(*) FROM otlake_seals WHERE cause = 'room'";
    eventually("cuts for want of room", async || server.count(cuts) >= 2).await;
    assert!(load.refused() > 0);
    assert_recovered(&server, load).await;
    let seals = server.status().await.committed_seals;
    let room = u64::try_from(server.count(cuts)).unwrap();
    assert!((room..=room + 1).contains(&seals), "{room} of {seals}");
}

/// The size of all files in these folders.
fn bytes_below(data_dir: &Path, folders: &[&str]) -> u64 {
    let mut waiting: Vec<_> = folders.iter().map(|name| data_dir.join(name)).collect();
    let mut bytes = 0;
    while let Some(folder) = waiting.pop() {
        // Files come and go meanwhile.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
