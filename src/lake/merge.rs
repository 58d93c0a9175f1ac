//! Merges the files of a crowded tier into one, sorted as the table is.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use super::error::LakeError;
use super::giveway::while_nothing_waits;
use super::maintain::Crowd;
use super::publish::Lake;
use super::sql::literal;
use super::tables::METADATA;

/// What DuckDB says of a statement that was interrupted.
const INTERRUPTED: &str = "Interrupted!";

/// What DuckDB says to a rollback when there is nothing to roll back.
const NO_TRANSACTION: &str = "no transaction is active";

/// How the names of the files begin that DuckLake writes itself; ours begin with the writer's id.
const MERGED_PREFIX: &str = "ducklake-";

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
            connection.execute_batch("COMMIT")?;
            counted
        };
        let dir = self
            .config
            .data_path
            .join(&self.config.schema)
            .join(&crowd.table);
        let before = merged_files(&dir)?;
        let merged = match &self.maintenance.gives_way_to {
            None => merge(),
            Some(queue) => {
                let handle = connection.interrupt_handle();
                while_nothing_waits(queue, &handle, &self.maintenance.patience, merge)
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
                self.remove_unfinished(&dir, &before)?;
                Ok(None)
            }
            Err(error) => Err(action()(error)),
        }
    }

    /// Removes the file that a broken-off merge was writing: DuckLake forgets it there.
    ///
    /// Only files that appeared during the merge and that the catalog does not know. Nobody else merges in this lake: a
    /// catalog that several servers share will need another rule.
    fn remove_unfinished(&self, dir: &Path, before: &HashSet<OsString>) -> Result<(), LakeError> {
        for name in merged_files(dir)?.difference(before) {
            let ending = literal(&format!("%{}", name.to_string_lossy()));
            let sql = format!(
                "SELECT (SELECT count(*) FROM {METADATA}.ducklake_data_file WHERE path LIKE {ending})
                      + (SELECT count(*) FROM {METADATA}.ducklake_files_scheduled_for_deletion WHERE path LIKE {ending})"
            );
            let known: i64 = self
                .connection()?
                .query_row(&sql, [], |row| row.get(0))
                .map_err(LakeError::duckdb("look up the file of a merge"))?;
            if known == 0 {
                let path = dir.join(name);
                fs::remove_file(&path)
                    .map_err(LakeError::io("remove the unfinished file", &path))?;
            }
        }
        Ok(())
    }
}

/// The files in a table's folder that DuckLake wrote.
fn merged_files(dir: &Path) -> Result<HashSet<OsString>, LakeError> {
    let list = || -> io::Result<HashSet<OsString>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
        let is_merged = |name: &OsString| name.to_string_lossy().starts_with(MERGED_PREFIX);
        names
            .filter(|name| name.as_ref().map_or(true, is_merged))
            .collect()
    };
    list().map_err(LakeError::io("read", dir))
}
