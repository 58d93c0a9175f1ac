//! Makes a staged seal visible in the lake: all its tables at once, and exactly once.
//!
//! Inside one transaction: look the seal up; move its files into the lake's folder; register them; insert the
//! seal's row; commit. A crash at any point leaves each file in one of two places, and the next attempt goes on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use duckdb::{Connection, params};

use super::LakeConfig;
use super::connection::{absolute, check_schema_name, open_read_write};
use super::error::LakeError;
use super::maintain::Maintenance;
use super::sql::{identifier, literal};
use super::tables::{METADATA, SEALS, prepare, rows_column};
use crate::disk::{Disk as _, RealDisk};
use crate::seal::ledger::{LakeFiles, unix_ms};
use crate::seal::staged::{StagedFile, StagedSeal};
use crate::signal::{SealId, Table, WriterId};

/// A file in the lake's folder by which it is known.
const MARKER: &str = "otlake.lake";
const MARKER_TEXT: &[u8] = b"otlake knows this folder as its lake's by this file.\n";

/// The lake, open for writing. There is one in a process, owned by the publisher's thread.
pub struct Lake {
    pub(super) config: LakeConfig,
    pub(super) maintenance: Maintenance,
    writer: WriterId,
    /// `None` after a failure: what state the connection is in is unknown then, so the next attempt opens another.
    connection: Option<Connection>,
    /// Seals published through `connection`.
    connection_seals: u32,
}

/// DuckLake keeps a little of every snapshot it saw in memory, about 20 KB a seal, so the connection is renewed after
/// this many seals: 20 MB, and an hour or more at one seal each few seconds.
const CONNECTION_SEALS_MAX: u32 = 1000;

impl Lake {
    /// Opens the lake, and makes it when neither catalog nor folder are there.
    ///
    /// # Errors
    /// [`LakeError::NoDataFolder`] when the catalog is there and the folder is not; otherwise what failed.
    pub fn open(config: &LakeConfig, writer: &WriterId) -> Result<Lake, LakeError> {
        check_schema_name(&config.schema)?;
        if !config.catalog.path().exists() {
            let folder = config.catalog.path().parent().unwrap_or(Path::new("."));
            for folder in [folder, &config.data_path] {
                if !folder.as_os_str().is_empty() {
                    fs::create_dir_all(folder).map_err(LakeError::io("make folder", folder))?;
                }
            }
        }
        if !config.data_path.is_dir() {
            return Err(no_data_folder(config));
        }
        let connection = open_read_write(config)?;
        prepare(&connection, config)?;
        mark_data_folder(&connection, config)?;
        Ok(Lake {
            maintenance: Maintenance::new(config),
            config: config.clone(),
            writer: writer.clone(),
            connection: Some(connection),
            connection_seals: 0,
        })
    }

    /// Whether the seal's rows are in the lake already.
    ///
    /// # Errors
    /// [`LakeError::NotAttached`] after a failed publish, and whatever DuckDB says.
    pub fn is_published(&self, id: SealId) -> Result<bool, LakeError> {
        self.find(self.connection()?, id)
    }

    /// Publishes the seal. A seal that is in the lake already is left as it is, which is a success too; the caller
    /// then removes the staged folder.
    ///
    /// # Errors
    /// Nothing of the seal is visible after an error, or, when the connection broke in the commit, all of it is:
    /// calling again finds out.
    pub fn publish(&mut self, seal: &StagedSeal) -> Result<(), LakeError> {
        if self.connection_seals >= CONNECTION_SEALS_MAX {
            self.detach();
        }
        let outcome = self.attach().and_then(|()| self.try_publish(seal));
        self.connection_seals += 1;
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    /// Counts the live files of each table, with one query of the catalog.
    ///
    /// # Errors
    /// [`LakeError::NotAttached`] after a failed publish, and whatever DuckDB says.
    pub fn live_files(&self) -> Result<[LakeFiles; Table::ALL.len()], LakeError> {
        let sql = format!(
            "SELECT t.table_name, count(*)::UBIGINT, sum(f.file_size_bytes)::UBIGINT
             {} GROUP BY ALL",
            live_files_sql(&self.config.schema)
        );
        let action = || LakeError::duckdb("count the lake's files");
        let mut statement = self.connection()?.prepare(&sql).map_err(action())?;
        let mut rows = statement.query([]).map_err(action())?;
        let mut counted = [LakeFiles::default(); Table::ALL.len()];
        while let Some(row) = rows.next().map_err(action())? {
            let name: String = row.get(0).map_err(action())?;
            if let Some(table) = Table::from_name(&name) {
                counted[table.index()] = LakeFiles {
                    files: row.get(1).map_err(action())?,
                    bytes: row.get(2).map_err(action())?,
                };
            }
        }
        Ok(counted)
    }

    pub(super) fn connection(&self) -> Result<&Connection, LakeError> {
        self.connection.as_ref().ok_or(LakeError::NotAttached)
    }

    /// Gives the connection up: the next step opens another.
    pub(super) fn detach(&mut self) {
        self.connection = None;
    }

    /// Opens the connection again after a failure. Never makes a new lake in place of one that is gone.
    pub(super) fn attach(&mut self) -> Result<(), LakeError> {
        check_data_folder(&self.config)?;
        if self.connection.is_some() {
            return Ok(());
        }
        if !self.config.catalog.path().exists() {
            return Err(LakeError::NoCatalog {
                catalog: self.config.catalog.clone(),
            });
        }
        self.connection = Some(open_read_write(&self.config)?);
        self.connection_seals = 0;
        Ok(())
    }

    /// A table of the lake with its schema, quoted.
    pub(super) fn qualified(&self, table: &str) -> String {
        format!(
            "lake.{}.{}",
            identifier(&self.config.schema),
            identifier(table)
        )
    }

    fn find(&self, connection: &Connection, id: SealId) -> Result<bool, LakeError> {
        // As literals, so that DuckLake can leave out files by their statistics.
        let sql = format!(
            "SELECT count(*) FROM {} WHERE writer_id = {} AND seal_id = {}",
            self.qualified(SEALS),
            literal(&self.writer.0),
            id.0
        );
        let found: i64 = connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(LakeError::duckdb(format!("look up seal {id}")))?;
        Ok(found > 0)
    }

    fn try_publish(&self, seal: &StagedSeal) -> Result<(), LakeError> {
        let started = Instant::now();
        let connection = self.connection()?;
        run(connection, "BEGIN", seal.id, "begin the transaction of")?;
        let end = self
            .in_transaction(connection, seal, started)
            .and_then(|written| {
                let end = if written { "COMMIT" } else { "ROLLBACK" };
                run(connection, end, seal.id, "commit")
            });
        if end.is_err() {
            // The connection is dropped next; a failed rollback changes nothing.
            let _ = connection.execute_batch("ROLLBACK");
        }
        end
    }

    /// Answers whether there is anything to commit: not when the seal was published before.
    fn in_transaction(
        &self,
        connection: &Connection,
        seal: &StagedSeal,
        started: Instant,
    ) -> Result<bool, LakeError> {
        if self.find(connection, seal.id)? {
            return Ok(false);
        }
        for file in &seal.files {
            let path = self.place(seal, file)?;
            let sql = format!(
                "CALL ducklake_add_data_files('lake', {}, {}, schema => {}, allow_missing => true)",
                literal(file.table.name()),
                literal(&path.to_string_lossy()),
                literal(&self.config.schema),
            );
            run(connection, &sql, seal.id, "register the files of")?;
        }
        if !seal.files.is_empty() {
            RealDisk
                .sync_dir(&seal.dir)
                .map_err(LakeError::io("sync", &seal.dir))?;
        }
        self.insert_seal(connection, seal, started)?;
        Ok(true)
    }

    fn insert_seal(
        &self,
        connection: &Connection,
        seal: &StagedSeal,
        started: Instant,
    ) -> Result<(), LakeError> {
        let rows = Table::ALL.map(rows_column).join(", ");
        let counts = Table::ALL
            .map(|table| seal.table_rows(table).to_string())
            .join(", ");
        let sql = format!(
            "INSERT INTO {} (writer_id, seal_id, cause, rows, {rows}, bytes, opened_at, sealed_at, stage_ms,
                 publish_ms, committed_at, journaled_through)
             VALUES (?, ?, ?, ?, {counts}, ?, make_timestamp(?), make_timestamp(?), ?, ?, make_timestamp(?), ?)",
            self.qualified(SEALS)
        );
        let micros = |unix_ms: i64| unix_ms.saturating_mul(1000);
        connection
            .execute(
                &sql,
                params![
                    self.writer.0,
                    seal.id.0,
                    seal.cause.name(),
                    seal.rows(),
                    seal.bytes(),
                    micros(seal.opened_unix_ms),
                    micros(seal.sealed_unix_ms),
                    seal.stage_ms,
                    started.elapsed().as_secs_f64() * 1e3,
                    micros(unix_ms()),
                    seal.journaled_through,
                ],
            )
            .map_err(LakeError::duckdb(format!("record seal {}", seal.id)))?;
        Ok(())
    }

    /// Moves a staged file to its place in the lake's folder, durably. An earlier attempt may have done so.
    fn place(&self, seal: &StagedSeal, file: &StagedFile) -> Result<PathBuf, LakeError> {
        let schema_dir = absolute(&self.config.data_path).join(&self.config.schema);
        let dir = schema_dir.join(file.table.name());
        for dir in [&schema_dir, &dir] {
            make_dir(dir)?;
        }
        let name = format!("{}-{}.parquet", self.writer.short(), seal.id);
        let destination = dir.join(name);
        let staged = seal.dir.join(file.name());
        move_file(&staged, &destination)?;
        RealDisk
            .sync_dir(&dir)
            .map_err(LakeError::io("sync", &dir))?;
        Ok(destination)
    }
}

/// `FROM` and `WHERE` over the live data files (`f`) of the tables (`t`) in a schema.
pub(super) fn live_files_sql(schema: &str) -> String {
    format!(
        "FROM {METADATA}.ducklake_data_file f
         JOIN {METADATA}.ducklake_table t ON t.table_id = f.table_id
         JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
         WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
           AND s.schema_name = {}",
        literal(schema)
    )
}

fn run(connection: &Connection, sql: &str, id: SealId, action: &str) -> Result<(), LakeError> {
    connection
        .execute_batch(sql)
        .map_err(LakeError::duckdb(format!("{action} seal {id}")))
}

/// Whether the lake's folder is there, and not another one in its place: merging makes missing folders, and a volume
/// that is not mounted leaves an empty one.
fn check_data_folder(config: &LakeConfig) -> Result<(), LakeError> {
    if config.data_path.join(MARKER).is_file() {
        return Ok(());
    }
    Err(no_data_folder(config))
}

/// Marks the lake's folder, unless an empty one is in the place of that with the lake's files.
fn mark_data_folder(connection: &Connection, config: &LakeConfig) -> Result<(), LakeError> {
    let marker = config.data_path.join(MARKER);
    if marker.is_file() {
        return Ok(());
    }
    let mut entries =
        fs::read_dir(&config.data_path).map_err(LakeError::io("read", &config.data_path))?;
    if entries.next().is_none() {
        let sql = format!("SELECT count(*) {}", live_files_sql(&config.schema));
        let files: i64 = connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(LakeError::duckdb("count the lake's files"))?;
        if files > 0 {
            return Err(no_data_folder(config));
        }
    }
    RealDisk
        .write_synced(&marker, MARKER_TEXT)
        .map_err(LakeError::io("write", &marker))
}

fn no_data_folder(config: &LakeConfig) -> LakeError {
    LakeError::NoDataFolder {
        path: config.data_path.clone(),
        catalog: config.catalog.clone(),
    }
}

/// Makes one folder, not its parents: the lake's own folder is never made again once it was there.
fn make_dir(dir: &Path) -> Result<(), LakeError> {
    if dir.is_dir() {
        return Ok(());
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(LakeError::io("make folder", dir)(error));
        }
        _ => {}
    }
    match dir.parent() {
        Some(parent) => RealDisk
            .sync_dir(parent)
            .map_err(LakeError::io("sync", parent)),
        None => Ok(()),
    }
}

/// Renames, or copies where the two places are on different devices. Done already is fine.
fn move_file(staged: &Path, destination: &Path) -> Result<(), LakeError> {
    let error = match fs::rename(staged, destination) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::NotFound if destination.is_file() => Ok(()),
        io::ErrorKind::NotFound if !staged.exists() => Err(LakeError::StagedFileLost {
            staged: staged.to_owned(),
            destination: destination.to_owned(),
        }),
        io::ErrorKind::CrossesDevices => copy_file(staged, destination)
            .map_err(LakeError::io("copy a staged file to", destination)),
        _ => Err(LakeError::io("move a staged file to", destination)(error)),
    }
}

/// The copy gets its name only when it is whole and synced, so a file under that name is never a part of one.
fn copy_file(staged: &Path, destination: &Path) -> io::Result<()> {
    let partial = destination.with_extension("partial");
    fs::copy(staged, &partial)?;
    File::open(&partial)?.sync_all()?;
    fs::rename(&partial, destination)?;
    // Durable before the only other copy goes.
    destination
        .parent()
        .map_or(Ok(()), |dir| RealDisk.sync_dir(dir))?;
    fs::remove_file(staged)
}
