//! Removes files that nothing refers to: what a crash left in the tables' folders.
//!
//! | file | left by | removed once it is old and |
//! |---|---|---|
//! | `ducklake-*.parquet` | a merge that did not commit | the catalog does not know it and never did |
//! | `<writer>-<seal>.parquet` | a folder that was restored | the catalog does not know it, and the seal is in the lake |
//! | `<writer>-<seal>.partial` | a copy that did not end | nothing more: a copy begins anew |
//!
//! All else stays. Three things make this safe:
//! - **Old.** Another writer, such as a plain DuckDB, may have written a file and not committed it yet. So a file must be
//!   older than the retention, and than [`AGE_MIN`]. A seal's file that was moved and not committed can be days old, while
//!   the lake was down: so it stays, whatever its age, until its seal is recorded, which is the moment it is committed.
//! - **The catalog of one moment.** DuckDB's SQLite scanner can miss rows while another process commits (see `reader`), so
//!   the names are read from a private copy, made after the folders were listed.
//! - **The right catalog.** To an older copy of the catalog, or to another one, the newest files are unknown. So a file
//!   that was committed once is made read-only, and a read-only file stays. Where the file system does not keep modes,
//!   DuckLake's files all stay.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use duckdb::Connection;

use super::error::LakeError;
use super::folder::marker;
use super::place::{is_partial, placed_seal};
use super::publish::Lake;
use super::reader::open_read_only;
use super::sql::literal;
use super::tables::{METADATA, SEALS};
use super::{Catalog, LakeConfig};
use crate::signal::Table;

/// A file that nothing refers to is older than this before it is removed: no transaction of another writer lasts as long.
const AGE_MIN: Duration = Duration::from_secs(3600);

/// Files removed by one sweep.
const REMOVED_FILES_MAX: usize = 10_000;

/// How the names of the files begin that DuckLake writes itself; ours begin with the writer's id.
const DUCKLAKE_PREFIX: &str = "ducklake-";

/// What one sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) files: u64,
    /// Their size.
    pub(super) bytes: u64,
}

/// Who writes files of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// DuckLake: merges, and inserts of others.
    DuckLake,
    /// A publish.
    Seal,
    /// A publish that copies.
    Copy,
}

/// A file in a table's folder whose name says who wrote it.
struct Found {
    path: PathBuf,
    name: String,
    maker: Maker,
    bytes: u64,
    modified: SystemTime,
    is_read_only: bool,
}

impl Lake {
    /// Removes what crashes left in the tables' folders, and marks what was committed since the last time.
    pub(super) fn sweep(&self) -> Result<Swept, LakeError> {
        // Before the catalog is read: what is committed in between is in the catalog then.
        let found = self.list_all()?;
        let copy = match self.config.catalog {
            Catalog::Sqlite(_) => Some(open_read_only(&self.config)?),
            Catalog::DuckDb(_) => None,
        };
        let connection = match &copy {
            Some(copy) => copy,
            // One process has the whole file: nobody commits meanwhile.
            None => self.connection()?,
        };
        let known = known_names(connection)?;
        let modes_are_kept = keep_all(&self.config, &found, &known);
        let unknown: Vec<Found> = found
            .into_iter()
            .filter(|file| !known.contains(&file.name))
            .collect();
        warn_of_kept(&unknown);
        let recorded = self.recorded_names(connection, &unknown)?;
        let age_min = self.config.snapshot_retention.max(AGE_MIN);
        let old_before = SystemTime::now().checked_sub(age_min);
        let goes = |file: &&Found| {
            let is_left = match file.maker {
                Maker::DuckLake => modes_are_kept && !file.is_read_only,
                Maker::Seal => recorded.contains(&file.name),
                Maker::Copy => true,
            };
            is_left && old_before.is_some_and(|old_before| file.modified < old_before)
        };
        Ok(remove(unknown.iter().filter(goes).take(REMOVED_FILES_MAX)))
    }

    /// Makes the files read-only that DuckLake wrote to the table and that are committed.
    pub(super) fn keep_committed(&self, table: &str) {
        let keep = || -> Result<(), LakeError> {
            let mut new = list(&self.config, table)?;
            new.retain(|file| file.maker == Maker::DuckLake && !file.is_read_only);
            if !new.is_empty() {
                keep_all(&self.config, &new, &known_names(self.connection()?)?);
            }
            Ok(())
        };
        if let Err(error) = keep() {
            // The next sweep does it.
            tracing::debug!(%error, table, "cannot mark committed files");
        }
    }

    fn list_all(&self) -> Result<Vec<Found>, LakeError> {
        let mut found = Vec::new();
        for table in Table::ALL.map(Table::name).into_iter().chain([SEALS]) {
            found.extend(list(&self.config, table)?);
        }
        Ok(found)
    }

    /// The names among those of seals' files whose seal is in the lake.
    fn recorded_names(
        &self,
        connection: &Connection,
        files: &[Found],
    ) -> Result<HashSet<String>, LakeError> {
        let seals = files.iter().filter(|file| file.maker == Maker::Seal);
        let names: Vec<String> = seals.map(|file| literal(&file.name)).collect();
        if names.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = format!(
            "SELECT DISTINCT right(writer_id, 8) || '-' || lpad(seal_id::VARCHAR, 16, '0') || '.parquet' AS file_name
             FROM {} WHERE file_name IN ({})",
            self.qualified(SEALS),
            names.join(", ")
        );
        read_names(connection, &sql)
    }
}

/// The names of all files that the catalog refers to: of any snapshot that is kept, and those it wants removed.
pub(super) fn known_names(connection: &Connection) -> Result<HashSet<String>, LakeError> {
    let of = |table: &str| format!("SELECT path FROM {METADATA}.{table}");
    let paths = [
        "ducklake_data_file",
        "ducklake_delete_file",
        "ducklake_files_scheduled_for_deletion",
    ]
    .map(of)
    .join(" UNION ALL ");
    let sql = format!("SELECT DISTINCT regexp_extract(path, '[^/]*$') FROM ({paths})");
    read_names(connection, &sql)
}

fn read_names(connection: &Connection, sql: &str) -> Result<HashSet<String>, LakeError> {
    connection
        .prepare(sql)
        .and_then(|mut statement| {
            let names = statement.query_map([], |row| row.get(0))?;
            names.collect()
        })
        .map_err(LakeError::duckdb("list the lake's files"))
}

/// The files in a table's folder that we know the makers of.
fn list(config: &LakeConfig, table: &str) -> Result<Vec<Found>, LakeError> {
    let dir = config.data_path.join(&config.schema).join(table);
    let found = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(|entries| {
            let found = entries.map(|entry| examine(&entry?));
            found.filter_map(Result::transpose).collect()
        }),
    };
    found.map_err(LakeError::io("read", &dir))
}

/// What the file is; `None` when we do not know its maker, when it is no file, or gone by now.
fn examine(entry: &DirEntry) -> io::Result<Option<Found>> {
    let name = entry.file_name().to_string_lossy().into_owned();
    let maker = if name.starts_with(DUCKLAKE_PREFIX) && name.ends_with(".parquet") {
        Maker::DuckLake
    } else if placed_seal(&name).is_some() {
        Maker::Seal
    } else if is_partial(&name) {
        Maker::Copy
    } else {
        return Ok(None);
    };
    // Of the entry itself: nothing is known of what a link leads to.
    let metadata = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    Ok(Some(Found {
        path: entry.path(),
        name,
        maker,
        bytes: metadata.len(),
        modified: metadata.modified()?,
        is_read_only: metadata.permissions().readonly(),
    }))
}

/// Makes DuckLake's files read-only that the catalog knows. Answers whether modes are kept here at all.
fn keep_all(config: &LakeConfig, found: &[Found], known: &HashSet<String>) -> bool {
    let new = found.iter().filter(|file| {
        file.maker == Maker::DuckLake && !file.is_read_only && known.contains(&file.name)
    });
    let mut outcome = keep(&marker(config));
    for file in new {
        outcome = outcome.and(keep(&file.path));
    }
    match outcome {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(folder = %config.data_path.display(), %error,
                "files of merges that were cut off are not removed here: files cannot be made read-only");
            false
        }
    }
}

fn keep(path: &Path) -> io::Result<()> {
    let read = || fs::metadata(path).map(|found| found.permissions());
    let set = || -> io::Result<bool> {
        let mut permissions = read()?;
        if permissions.readonly() {
            return Ok(true);
        }
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions)?;
        Ok(read()?.readonly())
    };
    match set() {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::other("the file system does not keep modes")),
        // Another process that cleans up was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn warn_of_kept(unknown: &[Found]) {
    let mut kept = unknown
        .iter()
        .filter(|file| file.maker == Maker::DuckLake && file.is_read_only);
    if let Some(first) = kept.next() {
        tracing::warn!(files = kept.count() + 1, such_as = %first.path.display(),
            "files were in the lake's catalog once and are not any more; they are kept: is the catalog an older copy, or another one?");
    }
}

fn remove<'a>(files: impl Iterator<Item = &'a Found>) -> Swept {
    let mut swept = Swept::default();
    for file in files {
        match fs::remove_file(&file.path) {
            Ok(()) => {
                tracing::debug!(path = %file.path.display(), "removed a file that nothing refers to");
                swept.files += 1;
                swept.bytes += file.bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %file.path.display(), %error, "cannot remove a file that nothing refers to");
            }
        }
    }
    if swept.files > 0 {
        tracing::info!(
            files = swept.files,
            bytes = swept.bytes,
            "removed files that nothing refers to, as a crash leaves them"
        );
    }
    swept
}
