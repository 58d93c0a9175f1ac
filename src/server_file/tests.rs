use super::*;

use crate::data_dir::DataDir;
use crate::lake::Catalog;

fn lake_in(data_dir: &Path) -> LakeConfig {
    LakeArgs::default()
        .resolve(data_dir)
        .expect("the default lake is valid")
}

fn server_in(data_dir: &Path) -> ServerFile {
    let address = |text: &str| text.parse().expect("an address");
    let lake = LakeFile::new(&lake_in(data_dir), data_dir);
    ServerFile::new(address("0.0.0.0:4317"), address("[::]:4318"), lake)
}

/// Scenario: a server that listens everywhere writes its file while it holds the lock, and a client reads it.
/// Guarantees: everything comes back; the addresses can be connected to; only the owner can read the file.
#[test]
fn a_running_server_is_found_with_addresses_that_can_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = DataDir::open(dir.path()).unwrap();
    let written = server_in(dir.path());
    written.write(dir.path()).unwrap();
    let found = ServerFile::running(dir.path()).unwrap();
    assert_eq!(found, written);
    assert_eq!(found.grpc.to_string(), "127.0.0.1:4317");
    assert_eq!(found.http.to_string(), "[::1]:4318");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(dir.path().join(SERVER_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Scenario: a server was killed; its process id belongs to somebody else now.
/// Guarantees: the lock decides, not the process id; the file can still be read as it is.
#[test]
fn a_file_left_by_a_killed_server_is_no_server() {
    let dir = tempfile::tempdir().unwrap();
    server_in(dir.path()).write(dir.path()).unwrap(); // Our own id: alive for sure.
    drop(DataDir::open(dir.path()).unwrap());
    assert_eq!(ServerFile::running(dir.path()), None);
    assert!(ServerFile::read(dir.path()).is_some());
}

/// Scenario: the file is there without a lock file.
/// Guarantees: then the process id decides.
#[test]
fn without_a_lock_file_the_process_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = server_in(dir.path());
    file.write(dir.path()).unwrap();
    assert!(ServerFile::running(dir.path()).is_some());
    file.pid = 0x7fff_fff0; // Over Linux' largest process id.
    file.write(dir.path()).unwrap();
    assert_eq!(ServerFile::running(dir.path()), None);
}

/// Scenario: a client looks before, while and after a server holds the folder.
/// Guarantees: looking tells which, and does not take the lock away.
#[test]
fn looking_leaves_the_lock_alone() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(lock_is_held(dir.path()), None);
    let server = DataDir::open(dir.path()).unwrap();
    assert_eq!(lock_is_held(dir.path()), Some(true));
    drop(server);
    assert_eq!(lock_is_held(dir.path()), Some(false));
    assert!(DataDir::open(dir.path()).is_ok());
}

/// Scenario: remove when there is a file, and again when there is none; then half a file.
/// Guarantees: both removals succeed; a file that is not JSON reads as none.
#[test]
fn removing_twice_is_fine_and_a_torn_file_is_none() {
    let dir = tempfile::tempdir().unwrap();
    server_in(dir.path()).write(dir.path()).unwrap();
    ServerFile::remove(dir.path()).unwrap();
    ServerFile::remove(dir.path()).unwrap();
    assert_eq!(ServerFile::read(dir.path()), None);
    fs::write(dir.path().join(SERVER_FILE), "{\"version\": \"0.1").unwrap();
    assert_eq!(ServerFile::read(dir.path()), None);
}

/// Scenario: the server stopped and left `lake.json`, then the whole data folder was moved.
/// Guarantees: the lake is found inside the folder where it is now.
#[test]
fn a_moved_data_folder_still_finds_its_lake() {
    let old = Path::new("/srv/old");
    let new = tempfile::tempdir().unwrap();
    LakeFile::new(&lake_in(old), old).write(new.path()).unwrap();
    let args = LakeFile::read(new.path())
        .unwrap()
        .complete(LakeArgs::default(), new.path());
    let lake = args.resolve(new.path()).unwrap();
    assert_eq!(
        lake.catalog,
        Catalog::Sqlite(new.path().join("catalog.sqlite"))
    );
    assert_eq!(lake.data_path, new.path().join("lake"));
}

/// Scenario: a lake outside the data folder, as flags of the server placed it.
/// Guarantees: absolute paths and names survive; what the user gives goes before; a named catalog is another lake.
#[test]
fn the_users_words_go_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let lake = LakeArgs {
        catalog: Some("duckdb:/elsewhere/c.db".to_owned()),
        data_path: Some("/elsewhere/files".into()),
        schema: Some("telemetry".to_owned()),
        extension_dir: Some("/ext".into()),
    };
    let config = lake.resolve(dir.path()).unwrap();
    LakeFile::new(&config, dir.path())
        .write(dir.path())
        .unwrap();
    let read = || LakeFile::read(dir.path()).unwrap();

    let args = read().complete(LakeArgs::default(), dir.path());
    assert_eq!(args.catalog.as_deref(), Some("duckdb:/elsewhere/c.db"));
    assert_eq!(
        args.data_path.as_deref(),
        Some(Path::new("/elsewhere/files"))
    );
    assert_eq!(args.schema.as_deref(), Some("telemetry"));
    assert_eq!(args.extension_dir.as_deref(), Some(Path::new("/ext")));

    let other_schema = LakeArgs {
        schema: Some("other".to_owned()),
        ..LakeArgs::default()
    };
    let args = read().complete(other_schema, dir.path());
    assert_eq!(args.schema.as_deref(), Some("other"));
    assert_eq!(args.catalog.as_deref(), Some("duckdb:/elsewhere/c.db"));

    let other_lake = LakeArgs {
        catalog: Some("sqlite:/other".to_owned()),
        ..LakeArgs::default()
    };
    let args = read().complete(other_lake, dir.path());
    assert_eq!(args.schema, None);
    assert_eq!(args.data_path, None);
}
