//! The sealer: a thread that takes seals from the queue, stages them, and hands them to whoever publishes.

use std::path::{Path, PathBuf};
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

/// How often a sealer that waits out a pause looks whether it should give up.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// A running sealer.
pub struct Sealer {
    thread: JoinHandle<u64>,
    give_up: Arc<AtomicBool>,
}

impl Sealer {
    /// Starts the thread. `publish` takes each staged seal, in order.
    ///
    /// # Errors
    /// The system's error when no thread can be started.
    pub fn spawn(
        queue: Arc<SealQueue>,
        ledger: Arc<Ledger>,
        disk: Arc<dyn Disk>,
        staged_dir: PathBuf,
        publish: impl Fn(StagedSeal) + Send + 'static,
    ) -> std::io::Result<Sealer> {
        let give_up = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&give_up);
        let thread = thread::Builder::new()
            .name("otlake-sealer".into())
            .spawn(move || run(&queue, &ledger, &*disk, &staged_dir, &stop, publish))?;
        Ok(Sealer { thread, give_up })
    }

    /// Waits until everything in the closed queue is staged, at most until `deadline`. Answers how many rows could
    /// not be staged and are lost.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> u64 {
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                self.give_up.store(true, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().unwrap_or_else(|_| {
            tracing::error!("the sealer panicked; rows that were not staged are lost");
            u64::MAX
        })
    }
}

/// Stages seals until the queue is closed and empty. Answers how many rows were given up.
fn run(
    queue: &SealQueue,
    ledger: &Ledger,
    disk: &dyn Disk,
    staged_dir: &Path,
    give_up: &AtomicBool,
    publish: impl Fn(StagedSeal),
) -> u64 {
    let mut lost = 0;
    let mut backoff = Backoff::default();
    loop {
        match queue.next_seal() {
            Ok(None) => return lost,
            Ok(Some(seal)) => {
                backoff = Backoff::default();
                ledger.cut(
                    seal.id,
                    seal.cause,
                    seal.amounts(),
                    seal.opened_unix_ms,
                    seal.sealed_unix_ms,
                );
                match stage_until_done(&seal, ledger, disk, staged_dir, give_up) {
                    Some(staged) => publish(staged),
                    None => lost += seal.rows().iter().sum::<u64>(),
                }
            }
            Err(error) => {
                tracing::error!(%error, "a seal's number cannot be made durable; rows stay in memory");
                ledger.seal_failed(&error.to_string());
                if !pause(backoff.next_pause(), give_up) {
                    return lost + buffered_rows(queue);
                }
            }
        }
    }
}

fn buffered_rows(queue: &SealQueue) -> u64 {
    queue.buffered().0.iter().map(|amount| amount.rows).sum()
}

/// Tries until the seal is on disk; `None` when the sealer has to give up.
fn stage_until_done(
    seal: &Seal,
    ledger: &Ledger,
    disk: &dyn Disk,
    staged_dir: &Path,
    give_up: &AtomicBool,
) -> Option<StagedSeal> {
    let mut backoff = Backoff::default();
    loop {
        match stage(disk, seal, staged_dir) {
            Ok(staged) => {
                ledger.staged(&staged);
                return Some(staged);
            }
            Err(error) => {
                tracing::error!(seal = seal.id.0, %error, "a seal cannot be staged; its rows stay in memory and it is tried again");
                ledger.stage_failed(seal.id, &error.to_string());
                if !pause(backoff.next_pause(), give_up) {
                    return None;
                }
            }
        }
    }
}

/// Waits; `false` when it is time to give up.
fn pause(pause: Duration, give_up: &AtomicBool) -> bool {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        if give_up.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(PAUSE_STEP);
    }
    !give_up.load(Ordering::Relaxed)
}
