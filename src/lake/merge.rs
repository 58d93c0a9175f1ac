//! Merges the files of a crowded tier into one, sorted as the table is.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::crash::crash_point;
use super::error::LakeError;
use super::giveway::while_nothing_waits;
use super::maintain::Crowd;
use super::publish::Lake;
use super::sql::literal;
use super::sweep::known_names;

/// What DuckDB says of a statement that was interrupted.
const INTERRUPTED: &str = "Interrupted!";

/// What DuckDB says to a rollback when there is nothing to roll back.
const NO_TRANSACTION: &str = "no transaction is active";

impl Lake {
    /// Merges the crowd into one file, sorted as the table is. Answers files read and written; `None` when it was
    /// broken off.
    pub(super) fn merge(&self, crowd: &Crowd) -> Result<Option<(u64, u64)>, LakeError> {
        let Some(tier) = self.maintenance.tiers.get(crowd.tier_index) else {
            return Ok(Some((0, 0)));
        };
        let minimum = match tier.from {
            0 => String::new(),
            from => format!(", min_file_size => {from}"),
        };
        let sql = format!(
            "CALL ducklake_merge_adjacent_files('lake', {}, schema => {}, max_compacted_files => 1,
                 max_file_size => {}{minimum})",
            literal(&crowd.table),
            literal(&self.config.schema),
            tier.to,
        );
        let connection = self.connection()?;
        let merge = || -> duckdb::Result<(u64, u64)> {
            // DuckLake plans the merge when it is prepared and keeps that transaction: both steps must be in one,
            // or DuckDB fails an assertion.
            connection.execute_batch("BEGIN")?;
            let counted = connection
                .prepare(&sql)?
                .query_map([], |row| Ok((row.get(2)?, row.get(3)?)))?
                .try_fold((0, 0), |(read, written): (u64, u64), file| {
                    let (more_read, more_written): (u64, u64) = file?;
                    Ok((read + more_read, written + more_written))
                });
            crash_point!("merge written");
            connection.execute_batch("COMMIT")?;
            counted
        };
        let open = Mutex::new(HashSet::new());
        let note_open = || {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            open.extend(open_files());
        };
        let merged = match &self.maintenance.gives_way_to {
            None => merge(),
            Some(queue) => {
                let handle = connection.interrupt_handle();
                let patience = &self.maintenance.patience;
                while_nothing_waits(queue, &handle, patience, note_open, merge)
            }
        };
        let action = || LakeError::duckdb(format!("merge files of {}", crowd.table));
        match merged {
            Ok(files) => {
                self.keep_committed(&crowd.table);
                Ok(Some(files))
            }
            Err(error) if error.to_string().contains(INTERRUPTED) => {
                match connection.execute_batch("ROLLBACK") {
                    // The interrupt came before the transaction began, or in its commit, which ends it either way.
                    Err(error) if error.to_string().contains(NO_TRANSACTION) => {}
                    ended => ended.map_err(action())?,
                }
                let open = open.into_inner().unwrap_or_else(PoisonError::into_inner);
                self.remove_unfinished(&crowd.table, &open)?;
                Ok(None)
            }
            Err(error) => Err(action()(error)),
        }
    }

    /// Removes the file that a broken-off merge was writing: DuckLake forgets it there.
    ///
    /// Only what this process had `open`: another one, such as a plain DuckDB, may write to the same table and not have
    /// committed yet. What is overlooked here, the next sweep finds.
    fn remove_unfinished(&self, table: &str, open: &HashSet<FileId>) -> Result<(), LakeError> {
        let dir = self.config.data_path.join(&self.config.schema).join(table);
        let known = known_names(self.connection()?)?;
        let unfinished = || -> io::Result<Vec<PathBuf>> {
            let mut unfinished = Vec::new();
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let is_known = known.contains(&*entry.file_name().to_string_lossy());
                // An error: another process that cleans up was faster.
                let is_open = |found: Metadata| open.contains(&file_id(&found));
                if !is_known && entry.metadata().is_ok_and(is_open) {
                    unfinished.push(entry.path());
                }
            }
            Ok(unfinished)
        };
        for path in unfinished().map_err(LakeError::io("read", &dir))? {
            fs::remove_file(&path).map_err(LakeError::io("remove the unfinished file", &path))?;
        }
        Ok(())
    }
}

/// A file by device and inode.
type FileId = (u64, u64);

fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// The files that this process has open; none where the system does not say.
fn open_files() -> Vec<FileId> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let files = entries.flatten().filter_map(|entry| {
        // What the link leads to, which may be closed by now.
        let metadata = fs::metadata(entry.path()).ok()?;
        metadata.is_file().then(|| file_id(&metadata))
    });
    files.collect()
}
