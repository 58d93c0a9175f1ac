//! Keeps the lake small: merges small files, expires old snapshots, removes files that nothing needs any more, and those
//! that a crash left (`sweep`).
//!
//! Files are merged within tiers of size, the smallest first:
//!
//! | tier | merged when it has |
//! |---|---|
//! | below 256 KiB | 8 files |
//! | below 4 MiB | 4 files |
//! | below 64 MiB | 4 files |
//! | below the target size | 4 files |
//!
//! While seals come within a second of each other it takes four times the files: a merge that is broken off for the next
//! seal was work for nothing. While requests hold more than half of their memory besides, it takes sixty-four times: what a
//! merge takes, some 250 MB, comes on top of that.
//!
//! So a table at rest has at most 7 + 3 + 3 + 3 files below the target size, and a row is rewritten a few times a tier: the
//! cost grows with the logarithm of the table's size. DuckLake keeps the snapshots that a merge spans apart
//! inside the merged file, so time travel within the retention still works.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::LakeConfig;
use super::error::LakeError;
use super::giveway::Patience;
use super::publish::Lake;
use super::queue::PublishQueue;
use super::sql::literal;
use super::sweep::Swept;
use super::tables::{METADATA, SEALS, live_files_sql};
use crate::seal::ledger::unix_ms;

/// Upper ends of the tiers below the target size, bytes, with the files that start a merge.
const TIERS: [(u64, u64); 3] = [(256 << 10, 8), (4 << 20, 4), (64 << 20, 4)];

/// Files that start a merge in the tier that ends at the target size.
const LAST_TIER_FILES: u64 = 4;

/// What goes on beside maintenance: how much merging can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// No seal has come of late.
    Quiet,
    /// Seals come in quickly.
    Seals,
    /// They do, and requests hold more than half of their memory.
    Memory,
}

impl Load {
    /// So many times the files it takes to start a merge.
    fn crowd_factor(self) -> u64 {
        match self {
            Load::Quiet => 1,
            Load::Seals => 4,
            Load::Memory => 64,
        }
    }
}

/// DuckLake keeps few rows inside the catalog. Beyond this many the seals' rows move to a Parquet file.
const INLINED_SEALS_MAX: i64 = 5000;

/// Old files removed by one clean-up.
const REMOVED_FILES_MAX: usize = 10_000;

/// Old snapshots are expired this often within their retention, between these limits.
const EXPIRE_PER_RETENTION: u32 = 4;
const EXPIRE_PAUSE_MIN: Duration = Duration::from_secs(1);
const EXPIRE_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What crashes left is looked for at the first step after a start, and then this often.
const SWEEP_PAUSE: Duration = Duration::from_secs(3600);

/// What one step of maintenance did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaintainStep {
    /// Nothing: no more work remains now.
    Idle,
    /// Merged small files of a table; more work may remain.
    Merged {
        /// The table.
        table: String,
        /// Files that were read.
        files_read: u64,
        /// Files that were written.
        files_written: u64,
    },
    /// Broke a merge off, because a seal waits or the server stops.
    GaveWay,
    /// Expired old snapshots and removed the files of expired ones; more work may remain.
    Expired,
    /// Removed what crashes left in the lake's folder; more work may remain.
    Swept {
        /// Files that were removed.
        files: u64,
        /// Their size, bytes.
        bytes: u64,
    },
}

/// What maintenance remembers from step to step.
pub(super) struct Maintenance {
    pub(super) tiers: Vec<Tier>,
    expire_pause: Duration,
    expire_due: Instant,
    sweep_due: Instant,
    /// Files in a tier that a merge left as they were, such as those from before and after a column was added.
    /// It is not tried again until their number changes.
    unmergeable: HashMap<(String, usize), u64>,
    /// Whose seals a merge is broken off for.
    pub(super) gives_way_to: Option<PublishQueue>,
    pub(super) patience: Patience,
}

/// Files of `from..to` bytes, merged when there are `files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tier {
    pub(super) from: u64,
    pub(super) to: u64,
    files: u64,
}

/// A tier of a table that has enough files for a merge.
pub(super) struct Crowd {
    pub(super) table: String,
    pub(super) tier_index: usize,
    files: u64,
}

impl Maintenance {
    pub(super) fn new(config: &LakeConfig) -> Maintenance {
        let pause = config.snapshot_retention / EXPIRE_PER_RETENTION;
        Maintenance {
            tiers: tiers(config.target_file_size_bytes),
            expire_pause: pause.clamp(EXPIRE_PAUSE_MIN, EXPIRE_PAUSE_MAX),
            expire_due: Instant::now(),
            sweep_due: Instant::now(),
            unmergeable: HashMap::new(),
            gives_way_to: None,
            patience: Patience::default(),
        }
    }
}

impl Lake {
    /// Lets merges be broken off when a seal waits in `queue`, or when it is closed.
    pub fn give_way_to(&mut self, queue: PublishQueue) {
        self.maintenance.gives_way_to = Some(queue);
    }

    /// Does one bounded piece of maintenance: at most one merged file, or one clean-up. Call it again until it
    /// answers [`MaintainStep::Idle`], as long as nothing waits to be published. Under load it merges only where files have
    /// become very many.
    ///
    /// # Errors
    /// What DuckDB says; the lake is unchanged by the failed step and opened again at the next.
    pub fn maintain_step(&mut self, load: Load) -> Result<MaintainStep, LakeError> {
        let outcome = self
            .attach()
            .and_then(|()| self.try_maintain(load.crowd_factor()));
        if outcome.is_err() {
            self.detach();
        }
        outcome
    }

    /// When the next clean-up is due. Merging becomes due by publishing.
    #[must_use]
    pub fn maintenance_due(&self) -> Instant {
        self.maintenance.expire_due
    }

    fn try_maintain(&mut self, factor: u64) -> Result<MaintainStep, LakeError> {
        if Instant::now() >= self.maintenance.expire_due {
            self.expire()?;
            self.maintenance.expire_due = Instant::now() + self.maintenance.expire_pause;
            return Ok(MaintainStep::Expired);
        }
        if Instant::now() >= self.maintenance.sweep_due {
            // Whatever comes of it: merging must not wait for files that cannot be removed.
            self.maintenance.sweep_due = Instant::now() + SWEEP_PAUSE;
            let Swept { files, bytes } = self.sweep()?;
            return Ok(MaintainStep::Swept { files, bytes });
        }
        let Some(crowd) = self.smallest_crowd(factor)? else {
            return Ok(MaintainStep::Idle);
        };
        let Some((files_read, files_written)) = self.merge(&crowd)? else {
            self.maintenance.patience.grow();
            return Ok(MaintainStep::GaveWay);
        };
        self.maintenance.patience.reset();
        let key = (crowd.table.clone(), crowd.tier_index);
        if files_written == 0 {
            self.maintenance.unmergeable.insert(key, crowd.files);
        } else {
            self.maintenance.unmergeable.remove(&key);
        }
        Ok(MaintainStep::Merged {
            table: crowd.table,
            files_read,
            files_written,
        })
    }

    /// The lowest tier of any table with enough files for a merge, times `factor`.
    fn smallest_crowd(&self, factor: u64) -> Result<Option<Crowd>, LakeError> {
        let tiers = &self.maintenance.tiers;
        let bounds: Vec<String> = tiers.iter().map(|tier| tier.to.to_string()).collect();
        let sql = format!(
            "SELECT t.table_name,
                    len(list_filter([{}], lambda bound: bound <= f.file_size_bytes))::UBIGINT AS tier,
                    count(*)::UBIGINT
             {} GROUP BY ALL ORDER BY tier, t.table_name",
            bounds.join(", "),
            live_files_sql(&self.config.schema)
        );
        let action = || LakeError::duckdb("count the lake's small files");
        let mut statement = self.connection()?.prepare(&sql).map_err(action())?;
        let mut rows = statement.query([]).map_err(action())?;
        while let Some(row) = rows.next().map_err(action())? {
            let table: String = row.get(0).map_err(action())?;
            let tier_index: usize = row.get(1).map_err(action())?;
            let files: u64 = row.get(2).map_err(action())?;
            // Past the last tier are the files that have the target size.
            let crowded = tiers
                .get(tier_index)
                .is_some_and(|tier| files >= tier.files * factor);
            let key = (table, tier_index);
            if crowded && self.maintenance.unmergeable.get(&key) != Some(&files) {
                return Ok(Some(Crowd {
                    table: key.0,
                    tier_index,
                    files,
                }));
            }
        }
        Ok(None)
    }

    /// Expires snapshots past the retention, then removes files that were scheduled for removal that long ago: a
    /// reader may hold on to them since the moment of their merge, whatever snapshot they came from.
    ///
    /// Neither uses DuckLake's `older_than`. With a SQLite catalog it compares times as text, `2026-11-21 03:22` with
    /// `2026-11-21T02:22`, so that everything of the same day counts as old (DuckLake 1.0 for DuckDB 1.5.5).
    fn expire(&self) -> Result<(), LakeError> {
        self.flush_seals()?;
        let retention_ms = i64::try_from(self.config.snapshot_retention.as_millis());
        let kept_from_ms = unix_ms().saturating_sub(retention_ms.unwrap_or(i64::MAX));
        self.expire_snapshots(kept_from_ms)?;
        self.remove_old_files(kept_from_ms)
    }

    fn expire_snapshots(&self, kept_from_ms: i64) -> Result<(), LakeError> {
        let action = || LakeError::duckdb("expire old snapshots");
        let connection = self.connection()?;
        let versions: Vec<String> = connection
            .prepare(&format!(
                "SELECT snapshot_id::VARCHAR FROM {METADATA}.ducklake_snapshot
                 WHERE epoch_ms(snapshot_time::TIMESTAMPTZ) < ?
                   AND snapshot_id < (SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot)"
            ))
            .and_then(|mut statement| {
                let ids = statement.query_map([kept_from_ms], |row| row.get(0))?;
                ids.collect()
            })
            .map_err(action())?;
        if versions.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "CALL ducklake_expire_snapshots('lake', versions => [{}])",
            versions.join(", ")
        );
        connection.execute_batch(&sql).map_err(action())
    }

    /// The files first, their entries in the catalog after: a crash in between is made good by the next run.
    fn remove_old_files(&self, kept_from_ms: i64) -> Result<(), LakeError> {
        let action = || LakeError::duckdb("list the files to remove");
        let connection = self.connection()?;
        let files: Vec<(i64, String)> = connection
            .prepare(&format!(
                "SELECT data_file_id, path FROM {METADATA}.ducklake_files_scheduled_for_deletion
                 WHERE path_is_relative::INTEGER = 1 AND epoch_ms(schedule_start::TIMESTAMPTZ) < ?
                 LIMIT {REMOVED_FILES_MAX}"
            ))
            .and_then(|mut statement| {
                let files =
                    statement.query_map([kept_from_ms], |row| Ok((row.get(0)?, row.get(1)?)))?;
                files.collect()
            })
            .map_err(action())?;
        if files.is_empty() {
            return Ok(());
        }
        for (_, path) in &files {
            let path = self.config.data_path.join(path);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LakeError::io("remove the old file", &path)(error));
                }
                _ => {}
            }
        }
        let ids: Vec<String> = files.iter().map(|(id, _)| id.to_string()).collect();
        connection
            .execute_batch(&format!(
                "DELETE FROM {METADATA}.ducklake_files_scheduled_for_deletion
                 WHERE data_file_id IN ({})",
                ids.join(", ")
            ))
            .map_err(LakeError::duckdb("forget removed files"))
    }

    /// Moves the rows of the seals' table out of the catalog once they are many.
    fn flush_seals(&self) -> Result<(), LakeError> {
        let connection = self.connection()?;
        let action = || LakeError::duckdb("move seal rows out of the catalog");
        let tables: Vec<String> = connection
            .prepare(&format!(
                "SELECT i.table_name FROM {METADATA}.ducklake_inlined_data_tables i
                 JOIN {METADATA}.ducklake_table t ON t.table_id = i.table_id
                 WHERE t.table_name = {} AND t.end_snapshot IS NULL",
                literal(SEALS)
            ))
            .and_then(|mut statement| {
                let names = statement.query_map([], |row| row.get(0))?;
                names.collect()
            })
            .map_err(action())?;
        let mut rows = 0;
        for table in tables {
            let sql = format!("SELECT count(*) FROM {METADATA}.{table}");
            rows += connection
                .query_row(&sql, [], |row| row.get::<_, i64>(0))
                .map_err(action())?;
        }
        if rows < INLINED_SEALS_MAX {
            return Ok(());
        }
        connection
            .execute_batch(&format!(
                "CALL ducklake_flush_inlined_data('lake', schema_name => {}, table_name => {})",
                literal(&self.config.schema),
                literal(SEALS)
            ))
            .map_err(action())?;
        self.keep_committed(SEALS);
        Ok(())
    }
}

fn tiers(target_bytes: u64) -> Vec<Tier> {
    let below = TIERS.into_iter().filter(|(to, _)| *to < target_bytes);
    let mut from = 0;
    below
        .chain([(target_bytes, LAST_TIER_FILES)])
        .map(|(to, files)| {
            let tier = Tier { from, to, files };
            from = to;
            tier
        })
        .collect()
}
