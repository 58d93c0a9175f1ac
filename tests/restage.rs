//! Staged seals that changed on disk while nobody ran: the journal still has their rows.

use std::fs;
use std::path::{Path, PathBuf};

use otlake::proto::admin::FlushRequest;
use tempfile::TempDir;

use crate::support::load::logs;
use crate::support::{Server, ServerBuilder, data_dir};

/// A server that was killed with one staged seal of ten rows that its lake did not take, and the lake back in place.
async fn killed_with_a_staged_seal() -> (TempDir, PathBuf) {
    let server = Server::start();
    let (lake, away) = (
        server.data_dir().join("lake"),
        server.data_dir().join("away"),
    );
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    fs::rename(&lake, &away).unwrap();
    let request = FlushRequest { timeout_ms: 500 };
    server.admin().await.flush(request).await.unwrap_err();
    let dir = server.kill();
    let _ = fs::remove_dir_all(&lake);
    fs::rename(&away, &lake).unwrap();
    let staged = fs::read_dir(data_dir(&dir).join("staged")).unwrap();
    let folders: Vec<PathBuf> = staged.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1);
    (dir, folders[0].clone())
}

fn flip(path: &Path) {
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::write(path, content).unwrap();
}

async fn assert_whole(dir: TempDir) -> Server {
    let server = ServerBuilder::again(dir).start();
    server.flush().await;
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
    assert_eq!(
        server.count("SELECT count(*) FROM otlake_seals WHERE rows > 0"),
        1
    );
    let staged = fs::read_dir(server.data_dir().join("staged")).unwrap();
    assert_eq!(staged.count(), 0);
    server
}

/// Scenario: a byte of the staged Parquet file is changed, or of its manifest, or the file cannot be read whole.
/// Guarantees: the seal is staged again from the journal; its rows are in the lake once; the log says so.
#[tokio::test]
async fn a_staged_seal_that_changed_is_staged_again() {
    let damages: [fn(&Path); 3] = [
        |seal| flip(&seal.join("otlp_logs.parquet")),
        |seal| flip(&seal.join("manifest.json")),
        |seal| fs::write(seal.join("otlp_logs.parquet"), "").unwrap(),
    ];
    for damage in damages {
        let (dir, seal) = killed_with_a_staged_seal().await;
        damage(&seal);
        let server = assert_whole(dir).await;
        assert!(server.log().contains("changed on disk"));
    }
}

/// Scenario: the seal's folder is gone, or is there without its manifest or without its file, and folders that are no seals lie beside it.
/// Guarantees: the same; what is not a seal's is left alone.
#[tokio::test]
async fn a_staged_seal_that_is_gone_is_staged_again() {
    let damages: [fn(&Path); 3] = [
        |seal| fs::remove_dir_all(seal).unwrap(),
        |seal| fs::remove_file(seal.join("manifest.json")).unwrap(),
        |seal| fs::remove_file(seal.join("otlp_logs.parquet")).unwrap(),
    ];
    for damage in damages {
        let (dir, seal) = killed_with_a_staged_seal().await;
        damage(&seal);
        let server = assert_whole(dir).await;
        drop(server);
    }
    let (dir, seal) = killed_with_a_staged_seal().await;
    let foreign = seal.parent().unwrap().join("lost+found");
    fs::create_dir(&foreign).unwrap();
    let server = ServerBuilder::again(dir).start();
    server.flush().await;
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
    assert!(foreign.is_dir());
}

/// Scenario: the staged file is changed, and the journal is gone too.
/// Guarantees: no start; the message names the file and what to do.
#[tokio::test]
async fn a_changed_seal_without_a_journal_stops_the_start() {
    let (dir, seal) = killed_with_a_staged_seal().await;
    flip(&seal.join("otlp_logs.parquet"));
    fs::remove_dir_all(data_dir(&dir).join("journal")).unwrap();
    let output = ServerBuilder::again(dir).command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("otlp_logs.parquet"), "{said}");
    assert!(said.contains("move the folder"), "{said}");
}
