//! Everything behind the receivers: the journal, the seal queue, and the threads that bring its rows into the lake.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use twox_hash::XxHash3_64;

use super::{Farewell, StartError};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::disk::{Disk, RealDisk};
use crate::journal::scan::secure_end;
use crate::journal::{Hooks, Journal, JournalConfig, JournalError, MOMENT, Scan, scan};
use crate::lake::{Lake, LakeConfig, LakeError, PublishQueue, Publisher};
use crate::memory::Budget;
use crate::receive::retries::{Change, Retries};
use crate::seal::ledger::Ledger;
use crate::seal::queue::{SealLimits, SealQueue, SealSequence};
use crate::seal::recovery::{Recovery, recover, refill};
use crate::seal::sealer::{Sealer, SealerParts};
use crate::signal::{SealId, WriterId};

/// The length at which a segment of the journal is followed by the next, where the journal may be large.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The journal may have this many segments at least before it is full: only whole ones can be removed.
const SEGMENTS_MIN: u64 = 16;

/// With less room than this on the disk, a lake that cannot be opened lacks it: opening takes a few hundred KiB.
const FULL_DISK_BYTES_MAX: u64 = 1 << 20;

/// The running stations, and what they share.
pub(super) struct Pipeline {
    pub(super) budget: Budget,
    pub(super) retries: Arc<Retries>,
    pub(super) journal: Arc<Journal>,
    pub(super) queue: Arc<SealQueue>,
    pub(super) ledger: Arc<Ledger>,
    sealer: Sealer,
    publish_queue: PublishQueue,
    publisher: std::thread::JoinHandle<usize>,
}

/// What the last run left, brought to disk, and the lake it goes to.
struct Found {
    lake: Lake,
    last_published: SealId,
    scan: Scan,
    recovery: Recovery,
}

impl Pipeline {
    /// Opens the lake, takes up what the last run left, and starts the threads. When it returns, every row that was
    /// acknowledged is in the lake, staged, or in the open buffer.
    pub(super) async fn start(config: &Config, data_dir: &DataDir) -> Result<Pipeline, StartError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let found = {
            let (disk, lake_config) = (Arc::clone(&disk), config.lake.clone());
            let writer = data_dir.writer().clone();
            let (journal_dir, staged_dir) = (data_dir.journal(), data_dir.staged());
            // DuckDB blocks, and so does reading; the reactor has nothing else to do yet, but timers and signals stay alive.
            // On a thread of its own, from which DuckDB's threads have their name.
            let (done, found) = tokio::sync::oneshot::channel();
            std::thread::Builder::new()
                .name("otlake-lake".into())
                .spawn(move || {
                    let found = find(&*disk, &lake_config, &writer, &journal_dir, &staged_dir);
                    // Nobody waits any more only when the process ends.
                    let _ = done.send(found);
                })?;
            found.await.map_err(std::io::Error::other)??
        };
        let Found {
            lake,
            last_published,
            scan,
            recovery,
        } = found;
        let noted = Arc::new(OnceLock::new());
        let retries = retries(config, data_dir.writer(), &scan, &noted);
        let last_staged = recovery.staged.last().map_or(SealId(0), |seal| seal.id);
        let last_cut = scan.cuts.last().map_or(SealId(0), |cut| cut.seal);
        let sequence = SealSequence::open(&disk, &data_dir.seal_sequence(), last_staged)?;
        let limits = SealLimits {
            target_bytes: config.seal.target_bytes,
            max_age: config.seal.max_age,
        };
        let queue = SealQueue::new(limits, sequence.after(last_cut).after(last_published));
        let ledger = Arc::new(Ledger::new());
        let publish_queue = PublishQueue::new();
        for seal in recovery.staged {
            ledger.staged(&seal);
            publish_queue.push(seal);
        }
        let journal = Journal::start(
            Arc::clone(&disk),
            journal_config(config, data_dir),
            &scan,
            recovery.published_through,
            hooks(&queue, &ledger, &retries),
        )?;
        // Nothing was remembered before that the journal does not know.
        let _ = noted.set(Arc::downgrade(&journal));
        tokio::spawn(tell_published(Arc::clone(&ledger), Arc::clone(&journal)));
        let budget = Budget::new(config.max_buffered_bytes);
        let publisher = Publisher::spawn(
            config.lake.clone(),
            data_dir.writer().clone(),
            lake,
            publish_queue.clone(),
            Arc::clone(&ledger),
            budget.clone(),
        )?;
        let (publish, cuts) = (publish_queue.clone(), Arc::clone(&journal));
        let sealer = Sealer::spawn(SealerParts {
            queue: Arc::clone(&queue),
            ledger: Arc::clone(&ledger),
            disk: Arc::clone(&disk),
            staged_dir: data_dir.staged(),
            record_cut: Box::new(move |cut| cuts.cut(cut)),
            publish: Box::new(move |seal| publish.push(seal)),
        })?;
        let pipeline = Pipeline {
            budget,
            retries,
            journal,
            queue,
            ledger,
            sealer,
            publish_queue,
            publisher,
        };
        pipeline.refill(disk, scan).await?;
        Ok(pipeline)
    }

    /// Puts the rows that were in the open buffer there again. The sealer runs by now, so they need not all fit.
    async fn refill(&self, disk: Arc<dyn Disk>, scan: Scan) -> Result<(), StartError> {
        let (queue, budget) = (Arc::clone(&self.queue), self.budget.clone());
        let refilling = tokio::task::spawn_blocking(move || {
            refill(&*disk, &scan, &budget, |rows, sequence| {
                // The queue is closed by a stop alone, and there is none before the start is over.
                let _ = queue.push(rows, sequence);
            })
        });
        let rows = refilling.await.map_err(std::io::Error::other)??;
        if rows > 0 {
            tracing::info!(rows, "took rows up from the journal of the last run");
        }
        Ok(())
    }

    /// Seals, stages and publishes what is there, until `deadline`. Blocks.
    pub(super) fn finish(self, deadline: Instant) -> Farewell {
        self.journal.close();
        self.queue.close();
        // Without a journal to note the cut in, nothing more can be staged: the next start does it.
        let is_poisoned = matches!(self.journal.trouble(), Some(JournalError::Poisoned(_)));
        let stage_until = if is_poisoned {
            Instant::now()
        } else {
            deadline
        };
        let unstaged = self.sealer.finish(stage_until);
        self.publish_queue.close(deadline);
        let staged_seals_left = self.publisher.join().unwrap_or_else(|_| {
            tracing::error!("the publisher panicked; staged seals wait for the next start");
            1
        });
        let published = *self.ledger.watch_committed().borrow();
        self.journal.published(published);
        self.journal.finish();
        Farewell {
            staged_seals_left,
            rows_journaled: unstaged.journaled,
            rows_lost: unstaged.lost,
        }
    }
}

/// Opens the lake and brings every seal of the last run to disk.
fn find(
    disk: &dyn Disk,
    lake_config: &LakeConfig,
    writer: &WriterId,
    journal_dir: &Path,
    staged_dir: &Path,
) -> Result<Found, StartError> {
    // First: damage is told before anything is touched.
    let scan = scan(disk, journal_dir)?;
    let lake =
        Lake::open(lake_config, writer).map_err(|error| no_lake(disk, journal_dir, error))?;
    secure_end(disk, &scan)?;
    match &scan.torn {
        Some(torn) if !torn.is_overwritten => tracing::warn!(
            path = %torn.path.display(),
            offset = torn.offset,
            bytes = torn.bytes,
            "cut off the end of the journal, which was being written when the last run ended and is not known to have been synced"
        ),
        _ => {}
    }
    let recovery = recover(
        disk,
        &scan,
        staged_dir,
        |seal| lake.is_published(seal),
        |seal, file| lake.has_file(seal, file),
    )?;
    if !recovery.staged.is_empty() {
        tracing::info!(
            seals = recovery.staged.len(),
            restaged = recovery.restaged,
            rows = recovery.staged.iter().map(|seal| seal.rows()).sum::<u64>(),
            "found seals of the last run that are not in the lake yet"
        );
    }
    Ok(Found {
        last_published: lake.last_seal()?,
        lake,
        scan,
        recovery,
    })
}

/// A full disk is the likely cause where there is one.
fn no_lake(disk: &dyn Disk, journal_dir: &Path, source: LakeError) -> StartError {
    match disk.free_bytes(journal_dir) {
        Ok(free_bytes) if free_bytes < FULL_DISK_BYTES_MAX => StartError::LakeDiskFull {
            source: Box::new(source),
            dir: journal_dir.parent().unwrap_or(journal_dir).to_owned(),
            free_bytes,
        },
        _ => StartError::Lake(source),
    }
}

fn journal_config(config: &Config, data_dir: &DataDir) -> JournalConfig {
    JournalConfig {
        dir: data_dir.journal(),
        segment_bytes: SEGMENT_BYTES_MAX.min(config.journal_max_bytes / SEGMENTS_MIN),
        disk_bytes_max: config.journal_max_bytes,
        durability: config.durability,
        moment: MOMENT,
    }
}

fn hooks(queue: &Arc<SealQueue>, ledger: &Arc<Ledger>, retries: &Arc<Retries>) -> Hooks {
    let (queue, ledger) = (Arc::clone(queue), Arc::clone(ledger));
    let retries = Arc::clone(retries);
    Hooks {
        deliver: Box::new(move |rows, sequence| queue.push(rows, sequence).ok()),
        staged_bytes: Box::new(move || ledger.staged_bytes()),
        remembered: Box::new(move || retries.remembered()),
    }
}

/// The requests that are remembered, by digests that are this data folder's own; those of the last run too.
fn retries(
    config: &Config,
    writer: &WriterId,
    scan: &Scan,
    journal: &Arc<OnceLock<Weak<Journal>>>,
) -> Arc<Retries> {
    let journal = Arc::clone(journal);
    let note = move |change| {
        let Some(journal) = journal.get().and_then(Weak::upgrade) else {
            return;
        };
        match change {
            Change::Remembered(digest) => journal.note_undelivered(digest),
            Change::Repeated(digest) => journal.note_repeated(digest),
        }
    };
    let seed = XxHash3_64::oneshot(writer.0.as_bytes());
    let retries = Retries::new(config.dedup_window, seed, Box::new(note));
    for (digest, left) in &scan.remembered {
        retries.remember(*digest, left.unwrap_or(config.dedup_window));
    }
    retries
}

/// Tells the journal which seals it need not keep any more. Ends with the runtime.
async fn tell_published(ledger: Arc<Ledger>, journal: Arc<Journal>) {
    let mut committed = ledger.watch_committed();
    while committed.changed().await.is_ok() {
        let seal = *committed.borrow_and_update();
        journal.published(seal);
    }
}
