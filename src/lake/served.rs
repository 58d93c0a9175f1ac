//! Reads the lake for others, in the server's own process, for as long as it runs.
//!
//! A DuckDB of its own, apart from the publisher's: whoever queries can neither write to the lake nor hold the publisher
//! up. It has the lake attached read-only, to a private copy of the catalog, for the reason that `reader` gives: DuckDB
//! reads a live SQLite catalog in several steps, and a merge between them makes tables look empty.
//!
//! # Invariants
//! - **Before each query the copy is as new as the catalog** ([`ServedLake::refresh`]), so what a flush has waited for is
//!   seen by every query after it, and what was seen once is seen again.
//! - **A copy never changes**, and is attached under a number of its own. What has the lake's name is a database of views,
//!   which lead to the newest copy and are replaced all in one transaction. So a transaction sees one moment of all
//!   tables, from its first query on. (Attaching the newest copy under the lake's name itself would take the former
//!   one from under a query that is about to begin: DuckLake looks its catalog up by name.)
//! - **A copy is there while it is read**: it is detached [`GRACE`] after it was replaced, which takes nothing from a
//!   transaction that reads it, and removed once nobody has it open any more.
//! - **Nothing outside of the lake's folder and its own can be opened**, and no setting changed, once
//!   [`ServedLake::lock`] was called. DuckDB's SQLite functions do not keep to that: who serves strangers must not let
//!   them call any.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use duckdb::{Config, Connection};

use super::connection::{Attachment, absolute, attach, check_schema_name, open};
use super::error::LakeError;
use super::reader::{DUCKDB_LOG, SQLITE_LOG, copy_catalog, with_suffix};
use super::sql::{identifier, literal};
use super::tables::SEALS;
use super::{Catalog, LakeConfig, extensions};
use crate::signal::Table;

/// Memory of all queries together; more goes to temporary files.
const MEMORY_MAX: &str = "1GB";

/// Temporary files of all queries together: the journal must keep room on the disk that it may share.
const SPILL_MAX: &str = "4GB";

/// File systems stamp a change with a clock that ticks: changes nearer to each other than this may look the same.
const STAMP_TICK: Duration = Duration::from_millis(100);

/// The same where whole seconds are all that is stamped.
const COARSE_STAMP_TICK: Duration = Duration::from_secs(2);

/// A query that was planned against a copy when it was replaced has opened it by then.
const GRACE: Duration = Duration::from_secs(5);

/// The lake, open for the queries of others.
pub struct ServedLake {
    config: LakeConfig,
    /// What the lake is called in SQL.
    name: String,
    // Dropped in this order: DuckDB has files of the folder open.
    current: Mutex<Current>,
    folder: Folder,
}

/// The copy that is attached, and the connection that attaches.
struct Current {
    connection: Connection,
    /// Counts the copies.
    number: u64,
    /// The catalog's files when they were copied; `None` before the first time.
    copied: Option<(Stamps, SystemTime)>,
    /// The copy that the views lead to; `None` before the first.
    newest: Option<Copy>,
    former: Vec<Former>,
}

/// A copy of the catalog, and the name under which it is attached.
struct Copy {
    name: String,
    path: PathBuf,
}

/// A copy that no view leads to any more.
struct Former {
    copy: Copy,
    replaced: Instant,
    is_attached: bool,
}

/// What tells that the catalog's file and its log have not changed.
type Stamps = [Option<Stamp>; 2];

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: FileId,
    bytes: u64,
    modified: SystemTime,
}

/// A file by device and inode.
type FileId = (u64, u64);

impl Stamp {
    /// Whether a change after `at` would get another stamp than this one.
    fn is_settled(&self, at: SystemTime) -> bool {
        let since = self.modified.duration_since(SystemTime::UNIX_EPOCH);
        let is_coarse = since.is_ok_and(|since| since.subsec_nanos() == 0);
        let tick = if is_coarse {
            COARSE_STAMP_TICK
        } else {
            STAMP_TICK
        };
        self.modified + tick < at
    }
}

impl ServedLake {
    /// Opens a DuckDB with the lake attached as `name`, and views of its tables that need no name before them. `folder` is
    /// for its copies and temporary files: what a killed process left there is removed.
    ///
    /// # Errors
    /// [`LakeError::Extension`] when quack or what it needs is not there, and whatever DuckDB or the file system says.
    pub fn open(config: &LakeConfig, name: &str, folder: &Path) -> Result<ServedLake, LakeError> {
        check_schema_name(&config.schema)?;
        check_schema_name(name)?;
        let folder = Folder::make(folder)?;
        let settings = Config::default()
            .max_memory(MEMORY_MAX)
            .and_then(|settings| settings.with("max_temp_directory_size", SPILL_MAX))
            .map_err(LakeError::duckdb("configure DuckDB"))?;
        let connection = open(settings, &folder.0.join("spill"))?;
        extensions::load(&connection, config)?;
        extensions::load_quack(&connection, config)?;
        let served = ServedLake {
            config: config.clone(),
            name: name.to_owned(),
            current: Mutex::new(Current {
                connection,
                number: 0,
                copied: None,
                newest: None,
                former: Vec::new(),
            }),
            folder,
        };
        served.make_databases()?;
        served.refresh()?;
        served.make_plain_views()?;
        Ok(served)
    }

    /// Another connection to the same DuckDB.
    ///
    /// # Errors
    /// [`LakeError::DuckDb`].
    pub fn connect(&self) -> Result<Connection, LakeError> {
        let current = self.lock_current();
        let connection = current.connection.try_clone();
        connection.map_err(LakeError::duckdb("open a connection for queries"))
    }

    /// What the lake is called in SQL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets this DuckDB open nothing but the lake's files, nor change a setting, from now on and for good.
    ///
    /// # Errors
    /// [`LakeError::DuckDb`].
    pub fn lock(&self) -> Result<(), LakeError> {
        let folders = [&absolute(&self.config.data_path), &absolute(&self.folder.0)];
        let folders = folders.map(|folder| literal(&format!("{}/", folder.display())));
        let sql = format!(
            "SET allowed_directories = [{}]; SET enable_external_access = false; SET lock_configuration = true",
            folders.join(", ")
        );
        let current = self.lock_current();
        let locked = current.connection.execute_batch(&sql);
        locked.map_err(LakeError::duckdb("lock DuckDB's settings"))
    }

    /// Makes sure that what can be read is the catalog of now. Cheap when it has not changed.
    ///
    /// # Errors
    /// Whatever keeps the catalog from being copied or attached. What could be read before still can.
    pub fn refresh(&self) -> Result<(), LakeError> {
        let mut current = self.lock_current();
        current.remove_unread();
        let stamps = self.stamps()?;
        if current.is_of(&stamps) {
            return Ok(());
        }
        // Before the copy: what changes after this moment is newer than the copy, or found to be too near to it.
        let now = SystemTime::now();
        current.number += 1;
        let copy = self.copy(current.number)?;
        if let Err(error) = self.lead_to(&current.connection, &copy) {
            let _ = current.connection.execute_batch("ROLLBACK");
            current.detach(&copy);
            remove_copy(&copy.path);
            return Err(error);
        }
        if let Some(copy) = current.newest.replace(copy) {
            current.former.push(Former {
                copy,
                replaced: Instant::now(),
                is_attached: true,
            });
        }
        current.copied = Some((stamps, now));
        Ok(())
    }

    /// Copies the catalog, as of now.
    fn copy(&self, number: u64) -> Result<Copy, LakeError> {
        let path = self.folder.0.join(format!("catalog-{number}"));
        let log = match self.config.catalog {
            Catalog::Sqlite(_) => SQLITE_LOG,
            Catalog::DuckDb(_) => DUCKDB_LOG,
        };
        copy_catalog(self.config.catalog.path(), &path, log)?;
        let name = format!("{}_{number}", self.name);
        Ok(Copy { name, path })
    }

    /// Attaches a copy, and lets the views lead to it, all at once.
    fn lead_to(&self, connection: &Connection, copy: &Copy) -> Result<(), LakeError> {
        let mut config = self.config.clone();
        config.catalog = match self.config.catalog {
            Catalog::Sqlite(_) => Catalog::Sqlite(copy.path.clone()),
            Catalog::DuckDb(_) => Catalog::DuckDb(copy.path.clone()),
        };
        let metadata = format!("{}_catalog", copy.name);
        attach(
            connection,
            &config,
            &Attachment::beside(&copy.name, &metadata),
        )?;
        let (lake, schema) = (identifier(&self.name), identifier(&self.config.schema));
        let inside = identifier(&copy.name);
        let views = tables().map(|table| {
            format!(
                "CREATE OR REPLACE VIEW {lake}.{schema}.{table} AS FROM {inside}.{schema}.{table};"
            )
        });
        let sql = format!("BEGIN; {} COMMIT", views.collect::<String>());
        let led = connection.execute_batch(&sql);
        led.map_err(LakeError::duckdb("show the newest catalog"))
    }

    fn stamps(&self) -> Result<Stamps, LakeError> {
        let file = self.config.catalog.path();
        let log = match self.config.catalog {
            Catalog::Sqlite(_) => with_suffix(file, SQLITE_LOG),
            Catalog::DuckDb(_) => with_suffix(file, DUCKDB_LOG),
        };
        Ok([stamp(file)?, stamp(&log)?])
    }

    /// The database with the lake's name.
    fn make_databases(&self) -> Result<(), LakeError> {
        let (lake, schema) = (identifier(&self.name), identifier(&self.config.schema));
        let sql =
            format!("ATTACH ':memory:' AS {lake}; CREATE SCHEMA IF NOT EXISTS {lake}.{schema}");
        let current = self.lock_current();
        let made = current.connection.execute_batch(&sql);
        made.map_err(LakeError::duckdb("make a database of views"))
    }

    /// So that `FROM otlp_logs` works for those who attach this DuckDB over quack, and in a new connection.
    fn make_plain_views(&self) -> Result<(), LakeError> {
        let (lake, schema) = (identifier(&self.name), identifier(&self.config.schema));
        let views =
            tables().map(|table| format!("CREATE VIEW {table} AS FROM {lake}.{schema}.{table};"));
        let current = self.lock_current();
        let made = current.connection.execute_batch(&views.collect::<String>());
        made.map_err(LakeError::duckdb("make views of the lake's tables"))
    }

    fn lock_current(&self) -> MutexGuard<'_, Current> {
        // What was attached stays attached until something else is: a panic leaves nothing half done.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// Whether the copy is that of the catalog with these stamps.
    fn is_of(&self, stamps: &Stamps) -> bool {
        let Some((of, at)) = &self.copied else {
            return false;
        };
        of == stamps && stamps.iter().flatten().all(|stamp| stamp.is_settled(*at))
    }

    /// Detaches the former copies that no query begins to read any more, and removes those that none reads.
    fn remove_unread(&mut self) {
        let is_due = |former: &Former| former.replaced.elapsed() >= GRACE;
        if !self.former.iter().any(is_due) {
            return;
        }
        let mut due: Vec<Former> = Vec::new();
        for mut former in std::mem::take(&mut self.former) {
            if is_due(&former) {
                if std::mem::take(&mut former.is_attached) {
                    self.detach(&former.copy);
                }
                due.push(former);
            } else {
                self.former.push(former);
            }
        }
        // Where the system does not say what is open, copies stay until the server ends.
        let open = open_files();
        for former in due {
            let found = fs::metadata(&former.copy.path);
            let is_unread = match (&open, found) {
                (Some(open), Ok(found)) => !open.contains(&id(&found)),
                _ => false,
            };
            if is_unread {
                remove_copy(&former.copy.path);
            } else {
                self.former.push(former);
            }
        }
    }

    /// Takes a copy's name away; transactions that read it go on.
    fn detach(&self, copy: &Copy) {
        let sql = format!("DETACH DATABASE IF EXISTS {}", identifier(&copy.name));
        if let Err(error) = self.connection.execute_batch(&sql) {
            tracing::debug!(%error, "a former copy of the catalog stays attached");
        }
    }
}

/// The tables of a lake, quoted.
fn tables() -> impl Iterator<Item = String> {
    let names = Table::ALL.map(Table::name).into_iter();
    names.chain([SEALS]).map(identifier)
}

/// A folder of its owner's alone, which goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(path: &Path) -> Result<Folder, LakeError> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LakeError::io("clear", path)(error));
            }
            _ => {}
        }
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(LakeError::io("make folder", path))?;
        Ok(Folder(path.to_owned()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left the next start removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stamp(path: &Path) -> Result<Option<Stamp>, LakeError> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(LakeError::io("look at the catalog", path))?,
    };
    let modified = found
        .modified()
        .map_err(LakeError::io("look at the catalog", path))?;
    Ok(Some(Stamp {
        file: id(&found),
        bytes: found.len(),
        modified,
    }))
}

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// The files that this process has open; `None` where the system does not say.
fn open_files() -> Option<HashSet<FileId>> {
    let entries = fs::read_dir("/dev/fd").ok()?;
    let files = entries.flatten().filter_map(|entry| {
        // What the link leads to, which may be closed by now.
        let metadata = fs::metadata(entry.path()).ok()?;
        Some(id(&metadata))
    });
    Some(files.collect())
}

/// A leftover goes with the folder.
fn remove_copy(copy: &Path) {
    for log in ["", SQLITE_LOG, "-shm", DUCKDB_LOG] {
        let mut name = copy.as_os_str().to_owned();
        name.push(log);
        let _ = fs::remove_file(PathBuf::from(name));
    }
}
