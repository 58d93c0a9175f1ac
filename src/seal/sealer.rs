//! The sealer: a thread that takes seals from the queue, has their cut journaled, stages them, and hands them to whoever
//! publishes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::ledger::Ledger;
use super::queue::{Seal, SealQueue};
use super::stage::stage;
use super::staged::StagedSeal;
use crate::disk::Disk;
use crate::journal::{CutRecord, JournalError};

/// A running sealer.
pub struct Sealer {
    thread: JoinHandle<Unstaged>,
    give_up: Arc<AtomicBool>,
}

/// Rows that a sealer left behind when it had to give up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unstaged {
    /// Rows in the journal: the next start finds them.
    pub journaled: u64,
    /// Rows that were in memory alone.
    pub lost: u64,
}

/// What a sealer works with.
pub struct SealerParts {
    /// Where the seals come from.
    pub queue: Arc<SealQueue>,
    /// Where it says what becomes of them.
    pub ledger: Arc<Ledger>,
    /// Where they are staged.
    pub disk: Arc<dyn Disk>,
    /// In which folder.
    pub staged_dir: PathBuf,
    /// Makes the cut of a seal with journaled rows durable, before it is staged.
    pub record_cut: Box<dyn Fn(CutRecord) -> Result<(), JournalError> + Send>,
    /// Takes each staged seal, in order.
    pub publish: Box<dyn Fn(StagedSeal) + Send>,
}

impl Sealer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's error when no thread can be started.
    pub fn spawn(parts: SealerParts) -> std::io::Result<Sealer> {
        let give_up = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            parts,
            give_up: Arc::clone(&give_up),
        };
        let thread = thread::Builder::new()
            .name("otlake-sealer".into())
            .spawn(move || worker.run())?;
        Ok(Sealer { thread, give_up })
    }

    /// Waits until everything in the closed queue is staged, at most until `deadline`. Answers what could not be staged.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> Unstaged {
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                self.give_up.store(true, Ordering::Relaxed);
                // Wakes it from a pause.
                self.thread.thread().unpark();
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().unwrap_or_else(|_| {
            tracing::error!(
                "the sealer panicked; rows that are neither staged nor journaled are lost"
            );
            Unstaged {
                journaled: 0,
                lost: u64::MAX,
            }
        })
    }
}

impl Unstaged {
    /// Adds rows, so many of which the journal does not have.
    fn add(&mut self, rows: u64, unjournaled: u64) {
        self.journaled += rows.saturating_sub(unjournaled);
        self.lost += unjournaled;
    }
}

struct Worker {
    parts: SealerParts,
    give_up: Arc<AtomicBool>,
}

impl Worker {
    /// Stages seals until the queue is closed and empty. Answers what was given up.
    fn run(&self) -> Unstaged {
        let SealerParts { queue, ledger, .. } = &self.parts;
        let mut left = Unstaged::default();
        let mut backoff = Backoff::default();
        loop {
            match queue.next_seal() {
                Ok(None) => return left,
                Ok(Some(seal)) => {
                    backoff = Backoff::default();
                    ledger.cut(
                        seal.id,
                        seal.cause,
                        seal.amounts(),
                        seal.opened_unix_ms,
                        seal.sealed_unix_ms,
                    );
                    match self.stage_until_done(&seal) {
                        Some(staged) => (self.parts.publish)(staged),
                        None => left.add(seal.rows().iter().sum(), seal.unjournaled_rows),
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a seal's number cannot be made durable; rows stay in memory");
                    ledger.seal_failed(&error.to_string());
                    if !self.pause(backoff.next_pause()) {
                        let (rows, unjournaled) = queue.left();
                        left.add(rows, unjournaled);
                        return left;
                    }
                }
            }
        }
    }

    /// Tries until the seal is on disk; `None` when the sealer has to give up.
    fn stage_until_done(&self, seal: &Seal) -> Option<StagedSeal> {
        let SealerParts { ledger, disk, .. } = &self.parts;
        self.record_until_done(seal)?;
        let mut backoff = Backoff::default();
        loop {
            match stage(&**disk, seal, &self.parts.staged_dir) {
                Ok(staged) => {
                    ledger.staged(&staged);
                    return Some(staged);
                }
                Err(error) => {
                    tracing::error!(seal = seal.id.0, %error, "a seal cannot be staged; its rows stay in memory and it is tried again");
                    ledger.stage_failed(seal.id, &error.to_string());
                    if !self.pause(backoff.next_pause()) {
                        return None;
                    }
                }
            }
        }
    }

    /// Has the cut journaled: only then does a replay give the seal the same rows, and only then may it be staged.
    fn record_until_done(&self, seal: &Seal) -> Option<()> {
        if seal.journaled_through == 0 {
            return Some(());
        }
        let cut = CutRecord {
            seal: seal.id,
            through: seal.journaled_through,
            cause: seal.cause,
            opened_unix_ms: seal.opened_unix_ms,
            sealed_unix_ms: seal.sealed_unix_ms,
        };
        let mut backoff = Backoff::default();
        loop {
            let error = match (self.parts.record_cut)(cut) {
                Ok(()) => return Some(()),
                Err(error) => error,
            };
            tracing::error!(seal = seal.id.0, %error, "a seal's cut cannot be journaled; its rows stay in memory and in the journal");
            let ledger = &self.parts.ledger;
            ledger.stage_failed(seal.id, &error.to_string());
            if !self.pause(backoff.next_pause()) {
                return None;
            }
        }
    }

    /// Waits; `false` when it is time to give up.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.give_up.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        !self.give_up.load(Ordering::Relaxed)
    }
}
