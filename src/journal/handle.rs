//! The journal as others hold it: what they hand over waits here for the journal's thread.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::batch::EncodedBatch;
use super::digest::Digest;
use super::error::JournalError;
use super::records::{CutRecord, Note};
use super::scan::Scan;
use super::store::Store;
use super::writer::Writer;
use crate::disk::Disk;
use crate::latency::{Latencies, Latency};
use crate::rows::Rows;
use crate::signal::{Durability, SealId};

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The folder of the segments; it is made where it is missing.
    pub dir: PathBuf,
    /// A segment that has reached this length is followed by the next, bytes.
    pub segment_bytes: u64,
    /// Bytes that journal and staged files may take together.
    pub disk_bytes_max: u64,
    /// When requests are answered: tells which of them may be without their answer after a crash.
    pub durability: Durability,
    /// How long after it was written an answer counts as perhaps not arrived; [`MOMENT`](super::MOMENT).
    pub moment: Duration,
}

/// Takes rows with their sequence; answers their seal.
pub type Deliver = Box<dyn FnMut(Rows, u64) -> Option<SealId> + Send>;

/// Answers digests and the time that each has left.
pub type Remembered = Box<dyn Fn() -> Vec<(Digest, Duration)> + Send>;

/// What the journal calls.
pub struct Hooks {
    /// Takes the rows of a synced batch, in the order of sequences; answers the seal they will be in, `None` when
    /// nothing takes rows any more (the next start finds them in the journal).
    pub deliver: Deliver,
    /// Bytes of staged files that are not in the lake yet.
    pub staged_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The requests that are remembered now, and how long they are to be remembered further.
    pub remembered: Remembered,
}

/// What became of a batch: the seal that its rows will be in, if it is known.
pub type Outcome = Result<Option<SealId>, JournalError>;

/// One request to journal.
pub struct Append {
    /// Its rows, handed on once they are on disk.
    pub rows: Rows,
    /// The same rows as they are written.
    pub encoded: EncodedBatch,
    /// Told the outcome, on the journal's thread.
    pub done: Box<dyn FnOnce(Outcome) + Send>,
}

/// Counts since the start, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Requests journaled.
    pub requests: u64,
    /// Syncs that they shared, with those of cuts, and how long each took.
    pub syncs: Latencies,
    /// Segments there are.
    pub segments: u64,
    /// Their length, bytes.
    pub bytes: u64,
}

/// The journal, open for writing.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) config: JournalConfig,
    pub(super) staged_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    pub(super) waiting: Mutex<Waiting>,
    pub(super) changed: Condvar,
    /// Told when the thread has done what it took.
    pub(super) done: Condvar,
    pub(super) requests: AtomicU64,
    pub(super) syncs: Latency,
    pub(super) segments: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) spare_bytes: AtomicU64,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) appends: Vec<Append>,
    /// The thread waits for so many requests, or a little longer; 0 when it does not.
    pub(super) gathering: usize,
    pub(super) cuts: Vec<(CutRecord, SyncSender<Result<(), JournalError>>)>,
    pub(super) note: Note,
    pub(super) published: Option<SealId>,
    /// The thread is at work on what it took.
    pub(super) busy: bool,
    /// The thread waits; nothing was due when it began to.
    pub(super) is_resting: bool,
    /// No more batches are taken.
    pub(super) closed: bool,
    /// The thread is to end once nothing waits.
    pub(super) ending: bool,
    /// The thread has ended: nothing is written any more.
    pub(super) ended: bool,
    pub(super) poisoned: Option<String>,
    /// The disk was full at the last attempt, and this much room was asked for.
    pub(super) space_wanted: Option<u64>,
}

impl Journal {
    /// Goes on with the journal that `scan` found, of which the batches up to `published` are in the lake. Writes
    /// nothing yet: the first segment is made when there is something to write.
    ///
    /// # Errors
    /// The system's error when the folder cannot be made or no thread started.
    pub fn start(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        scan: &Scan,
        published: u64,
        hooks: Hooks,
    ) -> io::Result<Arc<Journal>> {
        disk.create_dir_all(&config.dir)?;
        let store = Store::new(
            Arc::clone(&disk),
            config.dir.clone(),
            config.segment_bytes,
            scan,
        );
        let shared = Arc::new(Shared {
            disk,
            config,
            staged_bytes: hooks.staged_bytes,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            done: Condvar::new(),
            requests: AtomicU64::new(0),
            syncs: Latency::default(),
            segments: AtomicU64::new(store.segments()),
            bytes: AtomicU64::new(store.bytes()),
            spare_bytes: AtomicU64::new(0),
        });
        let remembered = match shared.config.durability {
            Durability::Memory => Box::new(Vec::new),
            _ => hooks.remembered,
        };
        let mut writer = Writer::new(
            Arc::clone(&shared),
            store,
            hooks.deliver,
            remembered,
            scan,
            published,
        );
        let thread = thread::Builder::new()
            .name("otlake-journal".into())
            .spawn(move || writer.run())?;
        Ok(Arc::new(Journal {
            shared,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Has a request written with the next group. Returns at once; the outcome is told to [`Append::done`].
    pub fn append(&self, append: Append) {
        let mut waiting = self.shared.lock();
        let refusal = waiting.refusal();
        if let Some(error) = refusal {
            drop(waiting);
            (append.done)(Err(error));
            return;
        }
        waiting.appends.push(append);
        // Only the first one, or the last one that it waits for, is news to the thread.
        let is_news = waiting.appends.len() == 1 || waiting.appends.len() == waiting.gathering;
        // Woken while the lock is held, it would only run into it, sleep again and be woken a second time.
        drop(waiting);
        if is_news {
            self.shared.changed.notify_one();
        }
    }

    /// Writes a cut and syncs it. Blocks.
    ///
    /// # Errors
    /// [`JournalError`]; the seal must not be staged then.
    pub fn cut(&self, cut: CutRecord) -> Result<(), JournalError> {
        let (done, outcome) = sync_channel(1);
        let mut waiting = self.shared.lock();
        if waiting.ended {
            return Err(JournalError::Closed);
        }
        if let Some(reason) = &waiting.poisoned {
            return Err(JournalError::Poisoned(reason.clone()));
        }
        waiting.cuts.push((cut, done));
        self.shared.changed.notify_one();
        drop(waiting);
        // What the thread cannot answer any more it drops, when it ends and when it panics.
        outcome.recv().unwrap_or(Err(JournalError::Closed))
    }

    /// A seal, and so every one before it, is in the lake.
    pub fn published(&self, seal: SealId) {
        let mut waiting = self.shared.lock();
        waiting.published = waiting.published.max(Some(seal));
        self.shared.changed.notify_one();
    }

    /// Notes that a request's answer cannot have reached its client; written with the next group, not synced for it.
    pub fn note_undelivered(&self, digest: Digest) {
        self.note(|note| note.undelivered.push(digest.to_bytes().to_vec()));
    }

    /// Notes that the retry of a remembered request came.
    pub fn note_repeated(&self, digest: Digest) {
        self.note(|note| note.repeated.push(digest.to_bytes().to_vec()));
    }

    fn note(&self, add: impl FnOnce(&mut Note)) {
        // What is in memory alone is gone after a crash: remembered then, a retry of it would be lost.
        if self.shared.config.durability != Durability::Memory {
            add(&mut self.shared.lock().note);
            self.shared.changed.notify_one();
        }
    }

    /// Why nothing can be journaled now; `None` when it can.
    #[must_use]
    pub fn trouble(&self) -> Option<JournalError> {
        let shared = &self.shared;
        let mut waiting = shared.lock();
        if let Some(reason) = &waiting.poisoned {
            return Some(JournalError::Poisoned(reason.clone()));
        }
        if let Some(wanted) = waiting.space_wanted {
            let free = shared.disk.free_bytes(&shared.config.dir);
            if let Ok(free) = free
                && free < wanted
            {
                return Some(JournalError::no_space(free));
            }
            waiting.space_wanted = None;
        }
        drop(waiting);
        shared.full_without_spares().err()
    }

    /// Whether rows that are not journaled may be taken in: the bound on the disk holds for them too.
    ///
    /// # Errors
    /// [`JournalError::Full`].
    pub fn check_room(&self) -> Result<(), JournalError> {
        self.shared.full_without_spares()
    }

    /// Counts and sizes.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let shared = &self.shared;
        JournalStats {
            requests: shared.requests.load(Ordering::Relaxed),
            syncs: shared.syncs.so_far(),
            segments: shared.segments.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// Waits until the thread has done all that it was given so far, and all that is due, removing old segments too.
    pub fn wait_idle(&self) {
        let mut waiting = self.shared.lock();
        while !waiting.ended && (!waiting.is_resting || waiting.has_work()) {
            waiting = self
                .shared
                .done
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more batches, and waits until those taken are delivered. Cuts are still written.
    pub fn close(&self) {
        let mut waiting = self.shared.lock();
        waiting.closed = true;
        while waiting.busy || !waiting.appends.is_empty() {
            waiting = self
                .shared
                .done
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes that the stop was in order, and ends the thread. Call it last.
    pub fn finish(&self) {
        self.close();
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        let thread = self.thread.lock();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is one push or one flag: a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything fits once the spares are given up, as they are for the next request.
    fn full_without_spares(&self) -> Result<(), JournalError> {
        let spares = self.spare_bytes.load(Ordering::Relaxed);
        match self.full(0) {
            Err(JournalError::Full { used, max }) if used.saturating_sub(spares) < max => Ok(()),
            other => other,
        }
    }

    /// Whether `more` bytes fit into what journal and staged files may take.
    pub(super) fn full(&self, more: u64) -> Result<(), JournalError> {
        let used = self.bytes.load(Ordering::Relaxed) + (self.staged_bytes)();
        let max = self.config.disk_bytes_max;
        if used + more >= max {
            return Err(JournalError::Full { used, max });
        }
        Ok(())
    }
}

impl Waiting {
    fn refusal(&self) -> Option<JournalError> {
        match &self.poisoned {
            Some(reason) => Some(JournalError::Poisoned(reason.clone())),
            None => self.closed.then_some(JournalError::Closed),
        }
    }

    pub(super) fn has_work(&self) -> bool {
        let note = &self.note;
        !self.appends.is_empty()
            || !self.cuts.is_empty()
            || self.published.is_some()
            || !note.undelivered.is_empty()
            || !note.repeated.is_empty()
    }
}
