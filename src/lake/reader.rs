//! Reads the lake while another process writes to it.
//!
//! DuckDB's SQLite scanner does not read in one SQLite transaction: it remembers the highest row id of a catalog
//! table and scans up to it later, on another connection. When a merge replaces catalog rows in between, the new
//! ones are past that id, and a table silently reads as empty (seen with DuckDB 1.5.5 in most runs of a test that
//! read two tables during merges). So a reader gets a private copy of the catalog, one or two MB, as of one
//! moment. Its files stay on disk for the snapshot retention. The copy also lets a user read who may not write
//! beside the catalog, where SQLite would want to make its shared-memory file.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use duckdb::Connection;

use super::connection::{absolute, check_schema_name, open_for_reading};
use super::error::LakeError;
use super::{Catalog, LakeConfig};

/// Attempts to read the catalog without a commit in the middle; commits are tens of milliseconds apart at least.
const COPY_ATTEMPTS_MAX: u32 = 100;

/// What follows a SQLite database's name in that of its write-ahead log.
pub(super) const SQLITE_LOG: &str = "-wal";

/// What follows a DuckDB file's name in that of its write-ahead log.
pub(super) const DUCKDB_LOG: &str = ".wal";

/// The pause between two attempts.
const COPY_PAUSE: Duration = Duration::from_millis(5);

/// A connection that reads the lake as it was when it was opened; a [`Connection`] in all else.
#[derive(Debug)]
pub struct LakeReader {
    // Dropped in this order: the connection has files of the folder open.
    connection: Connection,
    _folder: PrivateFolder,
}

impl Deref for LakeReader {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Opens the lake for reading, also while a server writes to it.
///
/// The lake is attached as `lake` and its schema is the current one, so `FROM otlp_logs` works. What is published
/// later is seen by opening again.
///
/// # Errors
/// [`LakeError::NoLake`] before the first start of a server, [`LakeError::NotAllowed`] for who has no right to read it,
/// [`LakeError::CatalogInUse`] for a DuckDB file that a
/// server has open, [`LakeError::Extension`], and [`LakeError::Io`] or [`LakeError::DuckDb`] for all else.
pub fn open_read_only(config: &LakeConfig) -> Result<LakeReader, LakeError> {
    check_schema_name(&config.schema)?;
    check_is_readable(config)?;
    let folder = PrivateFolder::new()?;
    let mut config = config.clone();
    if let Catalog::Sqlite(live) = &config.catalog {
        let copy = folder.path.join("catalog.sqlite");
        copy_catalog(live, &copy, SQLITE_LOG)?;
        config.catalog = Catalog::Sqlite(copy);
    }
    let connection = open_for_reading(&config, &folder.path.join("spill"))?;
    Ok(LakeReader {
        connection,
        _folder: folder,
    })
}

/// Checks that there is a lake that this user may read, as far as that can be told from catalog and folder: DuckDB would make
/// a catalog that is missing, and does not tell the one from the other.
fn check_is_readable(config: &LakeConfig) -> Result<(), LakeError> {
    let catalog = config.catalog.path();
    let file = match fs::File::open(catalog) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(LakeError::unreadable(catalog))?),
    };
    let metadata = file.map(|file| file.metadata()).transpose();
    let metadata = metadata.map_err(LakeError::unreadable(catalog))?;
    if !metadata.is_some_and(|metadata| metadata.is_file()) {
        return Err(LakeError::NoLake {
            catalog: config.catalog.clone(),
        });
    }
    // Whether something in it can be named. That it is not there is no matter to a lake without files.
    match fs::metadata(config.data_path.join(".")) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(LakeError::unreadable(&config.data_path)(error))
        }
        _ => Ok(()),
    }
}

/// Copies a database of one file and its write-ahead log, which has the file's name and `log` after it, as of one moment,
/// without a lock.
///
/// Both files are read twice, in turn: database, log, database, log. When neither changed, the moment between the
/// first two reads and the last two is one at which both were as read: as a crash would have left them, which SQLite and
/// DuckDB can open. A transaction that is only partly in the log is not committed, so they leave it out.
pub(super) fn copy_catalog(live: &Path, copy: &Path, log: &'static str) -> Result<(), LakeError> {
    let suffix = log;
    let log = with_suffix(live, suffix);
    for _ in 0..COPY_ATTEMPTS_MAX {
        let first = (read(live)?, read(&log)?);
        let second = (read(live)?, read(&log)?);
        if first != second {
            thread::sleep(COPY_PAUSE);
            continue;
        }
        write(copy, &first.0)?;
        return write(&with_suffix(copy, suffix), &first.1);
    }
    let busy = io::Error::new(io::ErrorKind::ResourceBusy, "it changes all the time");
    Err(LakeError::io("copy the catalog", live)(busy))
}

/// The file's bytes; none when it is not there, as the log of a server that was stopped.
fn read(path: &Path) -> Result<Vec<u8>, LakeError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        outcome => outcome.map_err(LakeError::unreadable(path)),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), LakeError> {
    fs::write(path, content).map_err(LakeError::io("write", path))
}

/// SQLite names the log after the file that a symbolic link leads to.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = absolute(path).into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// A folder under the system's temporary one that only this user can read. Removed on drop.
#[derive(Debug)]
struct PrivateFolder {
    path: PathBuf,
}

impl PrivateFolder {
    fn new() -> Result<PrivateFolder, LakeError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("otlake-read-{}-{count}", process::id());
            let path = env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(PrivateFolder { path }),
                // Left by a process that was killed and had our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(LakeError::io("make folder", &path)(error)),
            }
        }
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // A leftover in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.path);
    }
}
