//! Who else on this machine can read what a server writes: nobody, unless a group is to.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use otlake::lake::{Catalog, LakeConfig, open_read_only};
use tempfile::TempDir;

use crate::support::load::logs;
use crate::support::outage::skip;
use crate::support::{Server, ServerBuilder, data_dir, eventually, lake_config, otlake, query_all};

/// The rights of a file or folder.
fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The rights of what may have gone since it was found: a server that cleans up after a merge goes on meanwhile.
fn mode_if_there(path: &Path) -> Option<u32> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata.permissions().mode() & 0o7777),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// Every file and folder below a folder, and the folder itself.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return found,
        entries => entries.unwrap(),
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Commits until files of the lake were merged: those are made by DuckDB.
async fn fill(server: &Server, lake: &LakeConfig) {
    let mut client = server.logs().await;
    for seal in 0..10 {
        let rows = logs("a", seal * 10..seal * 10 + 10);
        client.export(rows).await.unwrap();
        server.flush().await;
    }
    let live = "SELECT count(*) FROM ducklake_list_files('lake', 'otlp_logs')";
    let live = || query_all(&open_read_only(lake).unwrap(), live)[0][0].parse::<u64>();
    eventually("a merge", async || live().unwrap() < 10).await;
    // One that is not merged yet.
    client.export(logs("b", 0..10)).await.unwrap();
    server.flush().await;
}

/// What of these others than the owner have a right to.
fn open_to_others(paths: &[PathBuf]) -> Vec<(PathBuf, u32)> {
    let modes = paths
        .iter()
        .filter_map(|path| Some((path.clone(), mode_if_there(path)?)));
    modes.filter(|(_, mode)| mode & 0o077 != 0).collect()
}

/// Scenario: an empty folder with the usual rights, such as a new volume, is given as the data folder; rows are committed
/// and merged, and the server stops and starts again with the folder open to others once more.
/// Guarantees: folder and all in it are their owner's alone while the server runs and after it, and the log says so.
#[tokio::test]
async fn the_data_folder_is_its_owners_alone() {
    let dir = TempDir::new().unwrap();
    let folder = data_dir(&dir);
    let mut builder = ServerBuilder::again(dir).args(&["--seal-max-age", "1h"]);
    fs::create_dir(&folder).unwrap();
    for _ in 0..2 {
        set_mode(&folder, 0o755);
        let server = builder.start();
        assert_eq!(mode(&folder), 0o700);
        assert!(server.log().contains("its owner's alone from now on"));
        fill(&server, &lake_config(&folder)).await;
        let paths = walk(&folder);
        assert!(paths.len() > 15, "{paths:?}");
        assert_eq!(open_to_others(&paths), []);
        let (status, dir) = server.stop();
        assert!(status.success());
        assert_eq!(open_to_others(&walk(&folder)), []);
        builder = ServerBuilder::again(dir).args(&["--seal-max-age", "1h"]);
    }
}

/// Scenario: the data folder has something else in it, and is open to others; the same with a folder like `/tmp`.
/// Guarantees: its rights are left alone, the log warns, and what the server makes in it is its owner's alone.
#[tokio::test]
async fn a_folder_that_is_not_otlakes_alone_keeps_its_rights() {
    for (rights, has_other) in [(0o755, true), (0o1777, false)] {
        let dir = TempDir::new().unwrap();
        let folder = data_dir(&dir);
        fs::create_dir(&folder).unwrap();
        if has_other {
            fs::write(folder.join("notes.txt"), "not otlake's").unwrap();
            set_mode(&folder.join("notes.txt"), 0o644);
        }
        set_mode(&folder, rights);
        let server = ServerBuilder::again(dir)
            .args(&["--seal-max-age", "1h"])
            .start();
        assert_eq!(mode(&folder), rights);
        assert!(server.log().contains("other users can look into"));
        fill(&server, &lake_config(&folder)).await;
        let made: Vec<_> = walk(&folder)
            .into_iter()
            .filter(|path| *path != folder && !path.ends_with("notes.txt"))
            .collect();
        assert!(made.len() > 15, "{made:?}");
        assert_eq!(open_to_others(&made), []);
        if has_other {
            assert_eq!(mode(&folder.join("notes.txt")), 0o644);
        }
    }
}

/// Scenario: a lake outside of the data folder, with and without `--lake-group-readable`; its folder hands its group on.
/// Guarantees: without, its files and folders are their owner's alone; with it the group may read all of them, written by
/// otlake, SQLite and DuckDB alike, and others nothing; nobody may write, and the data folder stays closed.
#[tokio::test]
async fn the_lake_is_open_to_its_group_when_asked_for() {
    for is_open in [false, true] {
        let dir = TempDir::new().unwrap();
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).unwrap();
        set_mode(&shared, 0o2750);
        let catalog = format!("sqlite:{}", shared.join("catalog.sqlite").display());
        let files = shared.join("files").display().to_string();
        let lake = ["--catalog", &catalog, "--data-path", &files];
        let group: &[&str] = if is_open {
            &["--lake-group-readable"]
        } else {
            &[]
        };
        let server = ServerBuilder::again(dir)
            .args(&["--seal-max-age", "1h"])
            .args(&lake)
            .args(group)
            .start();
        let lake = LakeConfig {
            catalog: Catalog::Sqlite(shared.join("catalog.sqlite")),
            data_path: shared.join("files"),
            ..lake_config(&server.data_dir())
        };
        fill(&server, &lake).await;
        assert_eq!(open_to_others(&walk(&server.data_dir())), []);
        let made: Vec<_> = walk(&shared)
            .into_iter()
            .filter(|path| *path != shared && !path.ends_with("otlake.lake"))
            .collect();
        let parquet = made.iter().filter(|path| {
            let extension = path.extension();
            extension.is_some_and(|extension| extension == "parquet")
        });
        assert!(parquet.count() > 1, "{made:?}");
        for path in made {
            let is_dir = path.is_dir();
            let Some(mode) = mode_if_there(&path) else {
                continue;
            };
            let of_group = match (is_open, is_dir) {
                (false, _) => 0,
                (true, true) => 0o050,
                (true, false) => 0o040,
            };
            assert_eq!(mode & 0o077, of_group, "{}", path.display());
        }
    }
}

/// The user and group that have no rights but those of everybody.
const NOBODY: u32 = 65_534;

/// Runs `otlake query` on a data folder as who is bound by the rights of files: the superuser is not.
fn query_without_rights(folder: &Path) -> std::io::Result<Output> {
    let mut query = otlake();
    query
        .args(["query", "FROM otlp_logs", "--data-dir"])
        .arg(folder);
    if rustix::process::geteuid().is_root() {
        query.uid(NOBODY).gid(NOBODY);
    }
    query.output()
}

/// Scenario: somebody asks for rows of a lake of which one part after the other may not be read: the data folder, the file that
/// names the lake, the catalog, the lake's folder, a file of rows; and of a data folder that is a file.
/// Guarantees: each time the error names what may not be read and, where rights are missing, says what to do; never that there is no lake.
#[tokio::test]
async fn who_may_not_read_the_lake_is_told_so() {
    let server = Server::start();
    let rows = logs("a", 0..10);
    server.logs().await.export(rows).await.unwrap();
    server.flush().await;
    let (status, dir) = server.stop();
    assert!(status.success());
    let folder = data_dir(&dir);
    set_mode(dir.path(), 0o755);
    for path in walk(&folder) {
        set_mode(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    match query_without_rights(&folder) {
        // All may be read, so this is a machine on which nobody may run the binary or read DuckDB's.
        Err(error) => return skip("who_may_not_read_the_lake_is_told_so", &error.to_string()),
        Ok(output) if !output.status.success() => {
            return skip("who_may_not_read_the_lake_is_told_so", &said(&output));
        }
        Ok(_) => {}
    }

    let lake = lake_config(&folder);
    let is_rows = |path: &PathBuf| path.extension().is_some_and(|it| it == "parquet");
    let parquet = walk(&lake.data_path).into_iter().find(is_rows).unwrap();
    let lake_json = folder.join("lake.json");
    for (denied, named) in [
        (&folder, &lake_json),
        (&lake_json, &lake_json),
        (
            &folder.join("catalog.sqlite"),
            &folder.join("catalog.sqlite"),
        ),
        (&lake.data_path, &lake.data_path),
        (&parquet, &parquet),
    ] {
        let before = mode(denied);
        set_mode(denied, 0);
        let output = query_without_rights(&folder).unwrap();
        set_mode(denied, before);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let told = [
            named.to_str().unwrap(),
            "ermission denied",
            "--lake-group-readable",
        ];
        for told in told {
            assert!(said.contains(told), "{denied:?}: {said}");
        }
        assert!(!said.contains("no lake"), "{said}");
    }
    let output = query_without_rights(&lake_json).unwrap();
    let said = said(&output);
    assert!(
        said.contains("Not a directory") && !said.contains("no lake"),
        "{said}"
    );
}
