//! Makes a staged seal visible in the lake: all its tables at once, and exactly once.
//!
//! Inside one transaction: look the seal up; move its files into the lake's folder; register them; insert the
//! seal's row; commit. A crash at any point leaves each file in one of two places, and the next attempt goes on.

use std::time::Instant;

use duckdb::{Connection, params};

use super::LakeConfig;
use super::connection::{check_schema_name, open_read_write};
use super::crash::crash_point;
use super::error::LakeError;
use super::folder::{CatalogFile, check_data_folder, make_folders, mark_data_folder, sync_folders};
use super::maintain::Maintenance;
use super::place::{destination, last_placed, place};
use super::sql::{identifier, literal};
use super::tables::{METADATA, SEALS, live_files_sql, prepare, rows_column};
use crate::disk::{Disk as _, RealDisk};
use crate::seal::ledger::{LakeFiles, unix_ms};
use crate::seal::staged::{StagedFile, StagedSeal};
use crate::signal::{SealId, Table, WriterId};

/// The lake, open for writing. There is one in a process, owned by the publisher's thread.
pub struct Lake {
    pub(super) config: LakeConfig,
    pub(super) maintenance: Maintenance,
    writer: WriterId,
    /// `None` after a failure: what state the connection is in is unknown then, so the next attempt opens another.
    connection: Option<Connection>,
    /// The catalog of `connection`.
    attached_to: CatalogFile,
    /// Seals published through `connection`.
    connection_seals: u32,
}

/// Rows by table, in the order of [`Table::ALL`].
type TableRows = [u64; Table::ALL.len()];

/// DuckLake keeps a little of every snapshot it saw in memory, about 20 KB a seal, so the connection is renewed after
/// this many seals: 20 MB, and an hour or more at one seal each few seconds.
const CONNECTION_SEALS_MAX: u32 = 1000;

impl Lake {
    /// Opens the lake, and makes it when neither catalog nor folder are there.
    ///
    /// # Errors
    /// [`LakeError::NoDataFolder`] when the catalog is there and the folder is not, [`LakeError::NoCatalog`] when the folder
    /// is a lake's and the catalog is not there; otherwise what failed.
    pub fn open(config: &LakeConfig, writer: &WriterId) -> Result<Lake, LakeError> {
        check_schema_name(&config.schema)?;
        make_folders(config)?;
        let connection = open_read_write(config)?;
        prepare(&connection, config)?;
        mark_data_folder(&connection, config)?;
        sync_folders(config)?;
        Ok(Lake {
            maintenance: Maintenance::new(config),
            config: config.clone(),
            writer: writer.clone(),
            connection: Some(connection),
            attached_to: CatalogFile::find(config)?,
            connection_seals: 0,
        })
    }

    /// Whether the seal's rows are in the lake already.
    ///
    /// # Errors
    /// [`LakeError::NotAttached`] after a failed publish, and whatever DuckDB says.
    pub fn is_published(&self, id: SealId) -> Result<bool, LakeError> {
        Ok(self.recorded_rows(self.connection()?, id)?.is_some())
    }

    /// The highest number that a seal of this writer has, or had, in the lake; 0 when there is none. New seals are numbered
    /// above it, also where the data folder is an older copy than the lake: a number used twice would be taken for a
    /// seal that is published.
    ///
    /// # Errors
    /// [`LakeError::NotAttached`] after a failed publish, and whatever DuckDB or the file system says.
    pub fn last_seal(&self) -> Result<SealId, LakeError> {
        let sql = format!(
            "SELECT coalesce(max(seal_id), 0) FROM {} WHERE writer_id = {}",
            self.qualified(SEALS),
            literal(&self.writer.0),
        );
        let recorded = self
            .connection()?
            .query_row(&sql, [], |row| row.get(0))
            .map_err(LakeError::duckdb("look up the last seal"))?;
        // The catalog can be an older copy too: its files tell.
        let placed = last_placed(&self.config, &self.writer)?;
        Ok(SealId(recorded).max(placed))
    }

    /// Whether a staged file is in its place in the lake's folder: an earlier publish has moved it there.
    #[must_use]
    pub fn has_file(&self, seal: &StagedSeal, file: &StagedFile) -> bool {
        destination(&self.config, &self.writer, seal, file).is_file()
    }

    /// Publishes the seal. A seal that is in the lake already is left as it is, which is a success too; the caller
    /// then removes the staged folder.
    ///
    /// # Errors
    /// Nothing of the seal is visible after an error, or, when the connection broke in the commit, all of it is:
    /// calling again finds out. [`LakeError::SealNumberTaken`] when the lake has another seal of its number.
    pub fn publish(&mut self, seal: &StagedSeal) -> Result<(), LakeError> {
        if self.connection_seals >= CONNECTION_SEALS_MAX {
            self.detach();
        }
        let outcome = self.attach().and_then(|()| self.try_publish(seal));
        self.connection_seals += 1;
        if outcome.is_err() {
            self.detach();
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

    /// Counts the snapshots that are kept.
    ///
    /// # Errors
    /// As [`Lake::live_files`].
    pub fn snapshots(&self) -> Result<u64, LakeError> {
        let sql = format!("SELECT count(*)::UBIGINT FROM {METADATA}.ducklake_snapshot");
        let counted = self.connection()?.query_row(&sql, [], |row| row.get(0));
        counted.map_err(LakeError::duckdb("count the lake's snapshots"))
    }

    pub(super) fn connection(&self) -> Result<&Connection, LakeError> {
        self.connection.as_ref().ok_or(LakeError::NotAttached)
    }

    /// Gives the connection up: the next step opens another.
    pub(super) fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            // After a commit that failed, the lake as it is attached keeps its DuckDB alive, with a thread and some 3 MB,
            // even when the connection is closed. What the detaching says of it changes nothing.
            let _ = connection.execute_batch("DETACH lake");
        }
    }

    /// Makes sure that the connection is open, and to the catalog that is there. Never makes a new lake in place of one
    /// that is gone: DuckDB opens the catalog by its name in each transaction, and makes an empty one that is missing.
    pub(super) fn attach(&mut self) -> Result<(), LakeError> {
        check_data_folder(&self.config)?;
        let catalog = CatalogFile::find(&self.config)?;
        if self.connection.is_some() && self.attached_to == catalog {
            return Ok(());
        }
        self.detach();
        sync_folders(&self.config)?;
        self.connection = Some(open_read_write(&self.config)?);
        self.attached_to = catalog;
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

    /// The rows that the lake has of a seal, by table; `None` when it is not in the lake.
    fn recorded_rows(
        &self,
        connection: &Connection,
        id: SealId,
    ) -> Result<Option<TableRows>, LakeError> {
        let action = || LakeError::duckdb(format!("look up seal {}", id.0));
        // As literals, so that DuckLake can leave out files by their statistics.
        let sql = format!(
            "SELECT {} FROM {} WHERE writer_id = {} AND seal_id = {}",
            Table::ALL
                .map(|table| format!("coalesce({}, 0)", rows_column(table)))
                .join(", "),
            self.qualified(SEALS),
            literal(&self.writer.0),
            id.0
        );
        let mut statement = connection.prepare(&sql).map_err(action())?;
        let mut found = statement.query([]).map_err(action())?;
        let Some(row) = found.next().map_err(action())? else {
            return Ok(None);
        };
        let mut rows = TableRows::default();
        for (place, rows) in rows.iter_mut().enumerate() {
            *rows = row.get(place).map_err(action())?;
        }
        Ok(Some(rows))
    }

    fn try_publish(&self, seal: &StagedSeal) -> Result<(), LakeError> {
        let started = Instant::now();
        let connection = self.connection()?;
        crash_point!("nothing");
        run(connection, "BEGIN", seal.id, "begin the transaction of")?;
        crash_point!("begun");
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
        crash_point!("ended");
        end
    }

    /// Answers whether there is anything to commit: not when the seal was published before.
    fn in_transaction(
        &self,
        connection: &Connection,
        seal: &StagedSeal,
        started: Instant,
    ) -> Result<bool, LakeError> {
        if let Some(recorded) = self.recorded_rows(connection, seal.id)? {
            return is_same(seal, &recorded).map(|()| false);
        }
        crash_point!("looked up");
        for file in &seal.files {
            let path = place(&self.config, &self.writer, seal, file)?;
            let sql = format!(
                "CALL ducklake_add_data_files('lake', {}, {}, schema => {}, allow_missing => true)",
                literal(file.table.name()),
                literal(&path.to_string_lossy()),
                literal(&self.config.schema),
            );
            run(connection, &sql, seal.id, "register the files of")?;
            crash_point!("registered");
        }
        if !seal.files.is_empty() {
            RealDisk
                .sync_dir(&seal.dir)
                .map_err(LakeError::io("sync", &seal.dir))?;
            crash_point!("staged folder synced");
        }
        self.insert_seal(connection, seal, started)?;
        crash_point!("seal recorded");
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
}

/// Whether the seal of this number in the lake is this one. A seal that is staged again has the same rows.
fn is_same(seal: &StagedSeal, recorded: &TableRows) -> Result<(), LakeError> {
    if Table::ALL.map(|table| seal.table_rows(table)) == *recorded {
        return Ok(());
    }
    Err(LakeError::SealNumberTaken {
        seal: seal.id,
        rows: seal.rows(),
        recorded: recorded.iter().sum(),
    })
}

fn run(connection: &Connection, sql: &str, id: SealId, action: &str) -> Result<(), LakeError> {
    connection
        .execute_batch(sql)
        .map_err(LakeError::duckdb(format!("{action} seal {}", id.0)))
}
