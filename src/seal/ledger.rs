//! The ledger: what has become of the seals, for everybody who asks.
//!
//! | state | entered by | rows are |
//! |---|---|---|
//! | staging | the sealer's cut | in memory |
//! | staged | the manifest is on disk, or found there at the start | in `<data-dir>/staged` |
//! | failing | a publish was refused; it is tried again | in `<data-dir>/staged` |
//! | committed | the lake's transaction | in the lake |
//!
//! Seals are published in order, so one number, the highest committed seal, tells a waiting flush whether its rows
//! have arrived.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::staged::StagedSeal;
use crate::latency::{Latencies, Latency};
use crate::signal::{CutCause, SealId, Table};

/// How many finished seals are remembered for `otlake seals`.
pub const RECENT_SEALS_MAX: usize = 1000;

/// Where a seal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealState {
    /// Being written to Parquet.
    Staging,
    /// On disk, waiting to be published.
    Staged,
    /// On disk, and the last attempt to publish it failed.
    Failing,
    /// In the lake.
    Committed,
}

impl SealState {
    /// The state in one word, as `otlake seals` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SealState::Staging => "staging",
            SealState::Staged => "staged",
            SealState::Failing => "failing",
            SealState::Committed => "committed",
        }
    }
}

/// What is remembered of one seal.
#[derive(Clone, Debug)]
pub struct SealRecord {
    /// Its number.
    pub id: SealId,
    /// Where it stands.
    pub state: SealState,
    /// Why it was cut.
    pub cause: CutCause,
    /// Rows by table, in the order of [`Table::ALL`].
    pub rows: [u64; Table::ALL.len()],
    /// Parquet bytes by table; zero while staging.
    pub bytes: [u64; Table::ALL.len()],
    /// Receipt of the oldest row, Unix milliseconds.
    pub opened_unix_ms: i64,
    /// The cut, Unix milliseconds.
    pub sealed_unix_ms: i64,
    /// The commit, Unix milliseconds; 0 before it.
    pub committed_unix_ms: i64,
    /// How long staging took.
    pub stage_ms: f64,
    /// How long the publish that succeeded took.
    pub publish_ms: f64,
    /// The last failure of its stage or publish, kept after a later success.
    pub error: String,
    /// Attempts to publish it.
    pub attempts: u32,
}

/// Rows and bytes of one table in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Rows.
    pub rows: u64,
    /// Bytes: Parquet bytes for staged and committed seals.
    pub bytes: u64,
}

/// Live data files of one table in the lake, as of the last count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LakeFiles {
    /// Live data files.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
}

/// An error and when it happened.
#[derive(Clone, Debug, Default)]
pub struct LastError {
    /// The message; empty when there was none.
    pub message: String,
    /// When, Unix milliseconds.
    pub unix_ms: i64,
}

/// Everything the ledger knows, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Seals being written to Parquet.
    pub staging_seals: u64,
    /// Amounts being written, by table, as they are in memory.
    pub staging: [Amount; Table::ALL.len()],
    /// Seals on disk and not in the lake.
    pub staged_seals: u64,
    /// Staged amounts by table.
    pub staged: [Amount; Table::ALL.len()],
    /// Seals committed since the start.
    pub committed_seals: u64,
    /// Amounts committed since the start, by table.
    pub committed: [Amount; Table::ALL.len()],
    /// The last commit, Unix milliseconds; 0 before the first.
    pub last_commit_unix_ms: i64,
    /// The last failure of a stage or publish.
    pub last_error: LastError,
    /// Why rows do not reach the lake now; empty when they do.
    pub degraded: String,
    /// Live files by table.
    pub files: [LakeFiles; Table::ALL.len()],
    /// Attempts to seal or stage that failed, since the start.
    pub stage_failures: u64,
    /// Attempts to publish that failed, since the start.
    pub publish_failures: u64,
    /// Snapshots in the lake, as of the last count.
    pub lake_snapshots: u64,
    /// Completed maintenance runs.
    pub maintenance_runs: u64,
    /// When the last of them ended, Unix milliseconds; 0 before the first.
    pub maintenance_last_unix_ms: i64,
    /// Steps of maintenance that failed, since the start.
    pub maintenance_failures: u64,
    /// Files that merges have replaced, since the start.
    pub merged_files: u64,
    /// Why the last step of maintenance failed; empty when it did not.
    pub maintenance_error: LastError,
}

/// How long the seals of this run took, those that were found at its start from there on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealLatencies {
    /// From the oldest row's receipt to the cut.
    pub fill: Latencies,
    /// Writing a seal to Parquet.
    pub stage: Latencies,
    /// The publish that succeeded.
    pub publish: Latencies,
    /// From the oldest row's receipt to the commit.
    pub total: Latencies,
}

#[derive(Default)]
struct Durations {
    fill: Latency,
    stage: Latency,
    publish: Latency,
    total: Latency,
}

#[derive(Default)]
struct Inner {
    snapshot: Snapshot,
    recent: VecDeque<SealRecord>,
    stage_trouble: String,
    publish_trouble: String,
}

/// The shared account of all seals. Cheap to update: once a seal, never once a row.
pub struct Ledger {
    inner: Mutex<Inner>,
    committed: watch::Sender<SealId>,
    started: Instant,
    /// Their counts are those of cut, staged and committed seals.
    took: Durations,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger::new()
    }
}

impl Ledger {
    /// A ledger without seals.
    #[must_use]
    pub fn new() -> Ledger {
        Ledger {
            inner: Mutex::new(Inner::default()),
            committed: watch::Sender::new(SealId(0)),
            started: Instant::now(),
            took: Durations::default(),
        }
    }

    /// Since when this ledger is kept.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The sealer cut a seal and begins to stage it.
    pub fn cut(
        &self,
        id: SealId,
        cause: CutCause,
        amounts: [Amount; Table::ALL.len()],
        opened_unix_ms: i64,
        sealed_unix_ms: i64,
    ) {
        self.took
            .fill
            .observe(between(opened_unix_ms, sealed_unix_ms));
        let mut inner = self.lock();
        inner.snapshot.staging_seals += 1;
        // The one sealer stages one seal at a time.
        inner.snapshot.staging = amounts;
        inner.remember(SealRecord {
            id,
            state: SealState::Staging,
            cause,
            rows: amounts.map(|amount| amount.rows),
            bytes: [0; Table::ALL.len()],
            opened_unix_ms,
            sealed_unix_ms,
            committed_unix_ms: 0,
            stage_ms: 0.0,
            publish_ms: 0.0,
            error: String::new(),
            attempts: 0,
        });
    }

    /// The buffer could not even be cut; its rows stay in memory.
    pub fn seal_failed(&self, error: &str) {
        let error = &one_line(error);
        let mut inner = self.lock();
        inner.snapshot.stage_failures += 1;
        inner.note(error);
        inner.stage_trouble = format!("rows cannot be sealed: {error}");
        inner.judge();
    }

    /// Writing the seal's files failed; it stays in memory and is tried again.
    pub fn stage_failed(&self, id: SealId, error: &str) {
        let error = &one_line(error);
        let mut inner = self.lock();
        inner.snapshot.stage_failures += 1;
        inner.fail(id, error);
        inner.stage_trouble = format!("rows cannot be staged: {error}");
        inner.judge();
    }

    /// The seal is on disk: freshly staged, or found there at the start.
    pub fn staged(&self, seal: &StagedSeal) {
        let mut inner = self.lock();
        inner.stage_trouble.clear();
        let mut record = SealRecord {
            id: seal.id,
            state: SealState::Staged,
            cause: seal.cause,
            rows: [0; Table::ALL.len()],
            bytes: [0; Table::ALL.len()],
            opened_unix_ms: seal.opened_unix_ms,
            sealed_unix_ms: seal.sealed_unix_ms,
            committed_unix_ms: 0,
            stage_ms: seal.stage_ms,
            publish_ms: 0.0,
            error: String::new(),
            attempts: 0,
        };
        for file in &seal.files {
            let place = file.table.index();
            record.rows[place] = file.rows;
            record.bytes[place] = file.bytes;
            inner.snapshot.staged[place].rows += file.rows;
            inner.snapshot.staged[place].bytes += file.bytes;
        }
        inner.snapshot.staged_seals += 1;
        match inner.find(seal.id) {
            Some(known) => {
                record.error = std::mem::take(&mut known.error);
                *known = record;
                self.took.stage.observe(milliseconds(seal.stage_ms));
                inner.snapshot.staging_seals = inner.snapshot.staging_seals.saturating_sub(1);
                inner.snapshot.staging = Default::default();
            }
            None => inner.remember(record),
        }
        inner.judge();
    }

    /// An attempt to publish the seal failed; it is tried again.
    pub fn publish_failed(&self, id: SealId, error: &str) {
        let error = &one_line(error);
        let mut inner = self.lock();
        inner.snapshot.publish_failures += 1;
        inner.fail(id, error);
        if let Some(record) = inner.find(id) {
            record.state = SealState::Failing;
            record.attempts += 1;
        }
        inner.publish_trouble = format!("rows cannot be published to the lake: {error}");
        inner.judge();
    }

    /// The seal's rows are in the lake.
    pub fn committed(&self, seal: &StagedSeal, publish_ms: f64) {
        let mut inner = self.lock();
        let now = unix_ms();
        for file in &seal.files {
            let place = file.table.index();
            let staged = &mut inner.snapshot.staged[place];
            staged.rows = staged.rows.saturating_sub(file.rows);
            staged.bytes = staged.bytes.saturating_sub(file.bytes);
            inner.snapshot.committed[place].rows += file.rows;
            inner.snapshot.committed[place].bytes += file.bytes;
        }
        inner.snapshot.staged_seals = inner.snapshot.staged_seals.saturating_sub(1);
        self.took.publish.observe(milliseconds(publish_ms));
        self.took.total.observe(between(seal.opened_unix_ms, now));
        inner.snapshot.last_commit_unix_ms = now;
        inner.publish_trouble.clear();
        if let Some(record) = inner.find(seal.id) {
            record.state = SealState::Committed;
            record.committed_unix_ms = now;
            record.publish_ms = publish_ms;
            record.attempts += 1;
        }
        inner.judge();
        drop(inner);
        self.committed.send_replace(seal.id);
    }

    /// A maintenance run ended, after all its steps.
    pub fn maintained(&self) {
        let mut inner = self.lock();
        inner.snapshot.maintenance_runs += 1;
        inner.snapshot.maintenance_last_unix_ms = unix_ms();
    }

    /// A merge replaced so many files.
    pub fn merged(&self, files: u64) {
        self.lock().snapshot.merged_files += files;
    }

    /// A step of maintenance ended: one that succeeds takes back what was said of an earlier failure.
    pub fn maintenance_step(&self, trouble: Option<&str>) {
        let mut inner = self.lock();
        inner.snapshot.maintenance_failures += u64::from(trouble.is_some());
        inner.snapshot.maintenance_error = match trouble {
            None => LastError::default(),
            Some(error) => LastError {
                message: one_line(error),
                unix_ms: unix_ms(),
            },
        };
    }

    /// The lake's live files were counted.
    pub fn counted_files(&self, files: [LakeFiles; Table::ALL.len()]) {
        self.lock().snapshot.files = files;
    }

    /// The lake's snapshots were counted.
    pub fn counted_snapshots(&self, snapshots: u64) {
        self.lock().snapshot.lake_snapshots = snapshots;
    }

    /// Everything known, at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.lock().snapshot.clone();
        snapshot.committed_seals = self.took.publish.count();
        snapshot
    }

    /// How long seals took so far.
    #[must_use]
    pub fn latencies(&self) -> SealLatencies {
        let took = &self.took;
        SealLatencies {
            fill: took.fill.so_far(),
            stage: took.stage.so_far(),
            publish: took.publish.so_far(),
            total: took.total.so_far(),
        }
    }

    /// Parquet bytes on disk and not in the lake.
    #[must_use]
    pub fn staged_bytes(&self) -> u64 {
        self.lock()
            .snapshot
            .staged
            .iter()
            .map(|amount| amount.bytes)
            .sum()
    }

    /// Why rows do not reach the lake now; `None` when they do.
    #[must_use]
    pub fn degraded(&self) -> Option<String> {
        let inner = self.lock();
        Some(inner.snapshot.degraded.clone()).filter(|reason| !reason.is_empty())
    }

    /// The most recent seals, newest first, at most `limit`.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<SealRecord> {
        let inner = self.lock();
        inner.recent.iter().rev().take(limit).cloned().collect()
    }

    /// Rows of seals that were cut and are not in the lake.
    #[must_use]
    pub fn waiting_rows(&self) -> u64 {
        let inner = self.lock();
        let waiting = inner
            .recent
            .iter()
            .filter(|record| record.state != SealState::Committed);
        waiting.map(|record| record.rows.iter().sum::<u64>()).sum()
    }

    /// Follows the highest seal committed by this run; 0 before the first.
    #[must_use]
    pub fn watch_committed(&self) -> watch::Receiver<SealId> {
        self.committed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters only: a panic elsewhere leaves nothing half done that a reader could not bear.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn find(&mut self, id: SealId) -> Option<&mut SealRecord> {
        self.recent.iter_mut().rev().find(|record| record.id == id)
    }

    fn remember(&mut self, record: SealRecord) {
        while self.recent.len() >= RECENT_SEALS_MAX {
            // What is not in the lake yet is never forgotten, however many they are: a flush waits for it.
            let done = self
                .recent
                .iter()
                .position(|record| record.state == SealState::Committed);
            match done {
                Some(place) => drop(self.recent.remove(place)),
                None => break,
            }
        }
        self.recent.push_back(record);
    }

    fn fail(&mut self, id: SealId, error: &str) {
        if let Some(record) = self.find(id) {
            record.error = error.to_owned();
        }
        self.note(error);
    }

    fn note(&mut self, error: &str) {
        self.snapshot.last_error = LastError {
            message: error.to_owned(),
            unix_ms: unix_ms(),
        };
    }

    fn judge(&mut self) {
        let trouble = [&self.stage_trouble, &self.publish_trouble];
        self.snapshot.degraded = trouble
            .into_iter()
            .find(|trouble| !trouble.is_empty())
            .cloned()
            .unwrap_or_default();
    }
}

/// The time from one moment of the wall clock to a later one; none when the clock was set back.
fn between(from_unix_ms: i64, to_unix_ms: i64) -> Duration {
    let ms = to_unix_ms.saturating_sub(from_unix_ms);
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

/// An error as one line: DuckDB's have several, with empty ones between, and marks below a place in the SQL.
#[must_use]
pub fn one_line(error: &str) -> String {
    let is_mark = |line: &&str| line.chars().all(|c| c == '^' || c.is_whitespace());
    let lines = error.lines().filter(|line| !is_mark(line)).map(str::trim);
    lines.collect::<Vec<_>>().join("; ").replace(":; ", ": ")
}

/// The wall clock, Unix milliseconds.
#[must_use]
pub fn unix_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a publish fails with an error of DuckDB, which has several lines.
    /// Guarantees: one line tells it wherever it is shown, with all its words.
    #[test]
    fn errors_are_told_in_one_line() {
        let ledger = Ledger::new();
        let error = "cannot commit seal 7: Failed to commit:\nIO Error: no space\n\nLINE 1: COMMIT\n        ^\n";
        ledger.publish_failed(SealId(7), error);
        let told = "cannot commit seal 7: Failed to commit: IO Error: no space; LINE 1: COMMIT";
        let snapshot = ledger.snapshot();
        assert_eq!(snapshot.last_error.message, told);
        let degraded = format!("rows cannot be published to the lake: {told}");
        assert_eq!(snapshot.degraded, degraded);
    }

    /// Scenario: maintenance fails, and then a step of it succeeds.
    /// Guarantees: the failure is told with its time, and not any more once it is over.
    #[test]
    fn a_failure_of_maintenance_is_over_with_the_next_step() {
        let ledger = Ledger::new();
        ledger.maintenance_step(Some("the lake's folder\nis gone"));
        let told = ledger.snapshot().maintenance_error;
        assert_eq!(told.message, "the lake's folder; is gone");
        assert!(told.unix_ms > 0);
        ledger.maintenance_step(None);
        let told = ledger.snapshot().maintenance_error;
        assert_eq!((&*told.message, told.unix_ms), ("", 0));
    }
}
