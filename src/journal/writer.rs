//! Writing: one thread that takes all that waits, writes it at once, syncs it once, and answers all of it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::batch::EncodedBatch;
use super::digest::Digest;
use super::error::JournalError;
use super::frame::{Kind, frame_bytes};
use super::records::{Cut, CutRecord, Note};
use super::scan::Scan;
use super::store::{NewFrame, Store};
use crate::disk::Disk;
use crate::rows::Rows;
use crate::signal::{Durability, SealId};

/// Bytes written with one sync, one frame at least: bounds how long the first of a group waits for the last.
const GROUP_BYTES_MAX: u64 = 16 << 20;

/// Room kept on the disk beside what the rows need to be staged.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// Digests that are kept to be noted once the disk takes them; the oldest are given up first.
const UNWRITTEN_MAX: usize = 65_536;

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

/// What the journal calls.
pub struct Hooks {
    /// Takes the rows of a synced batch, in the order of sequences; answers the seal they will be in, `None` when
    /// nothing takes rows any more (the next start finds them in the journal).
    pub deliver: Box<dyn FnMut(Rows, u64) -> Option<SealId> + Send>,
    /// Bytes of staged files that are not in the lake yet.
    pub staged_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The requests that are remembered now, and how long they are to be remembered further.
    pub remembered: Box<dyn Fn() -> Vec<(Digest, Duration)> + Send>,
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
    /// Syncs that they shared, with those of cuts.
    pub syncs: u64,
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

struct Shared {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    staged_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Told when the thread has done what it took.
    done: Condvar,
    requests: AtomicU64,
    syncs: AtomicU64,
    segments: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    appends: Vec<Append>,
    cuts: Vec<(CutRecord, SyncSender<Result<(), JournalError>>)>,
    note: Note,
    published: Option<SealId>,
    /// The thread is at work on what it took.
    busy: bool,
    /// No more batches are taken.
    closed: bool,
    /// The thread is to end once nothing waits.
    ending: bool,
    /// The thread has ended: nothing is written any more.
    ended: bool,
    poisoned: Option<String>,
    /// The disk was full at the last attempt, and this much room was asked for.
    space_wanted: Option<u64>,
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
            syncs: AtomicU64::new(0),
            segments: AtomicU64::new(store.segments()),
            bytes: AtomicU64::new(store.bytes()),
        });
        let remembered = match shared.config.durability {
            Durability::Memory => Box::new(Vec::new),
            _ => hooks.remembered,
        };
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            store,
            deliver: hooks.deliver,
            remembered,
            cuts: scan
                .cuts
                .iter()
                .map(|cut| (cut.seal, cut.through))
                .collect(),
            published,
            answered: VecDeque::new(),
            unwritten: Note::default(),
            uncut_bytes: 0,
            last_cut_bytes: 0,
        };
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
        self.shared.changed.notify_one();
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
            if free.is_ok_and(|free| free < wanted) {
                return Some(JournalError::NoSpace);
            }
            waiting.space_wanted = None;
        }
        drop(waiting);
        shared.full(0).err()
    }

    /// Whether rows that are not journaled may be taken in: the bound on the disk holds for them too.
    ///
    /// # Errors
    /// [`JournalError::Full`].
    pub fn check_room(&self) -> Result<(), JournalError> {
        self.shared.full(0)
    }

    /// Counts and sizes.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let shared = &self.shared;
        JournalStats {
            requests: shared.requests.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            segments: shared.segments.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// Waits until the thread has done all that it was given so far, removing old segments too.
    pub fn wait_idle(&self) {
        let mut waiting = self.shared.lock();
        while !waiting.ended && (waiting.busy || waiting.has_work()) {
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
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is one push or one flag: a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `more` bytes fit into what journal and staged files may take.
    fn full(&self, more: u64) -> Result<(), JournalError> {
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

    fn has_work(&self) -> bool {
        let note = &self.note;
        !self.appends.is_empty()
            || !self.cuts.is_empty()
            || self.published.is_some()
            || !note.undelivered.is_empty()
            || !note.repeated.is_empty()
    }
}

/// What the thread takes at once.
struct Work {
    appends: Vec<Append>,
    cuts: Vec<(CutRecord, SyncSender<Result<(), JournalError>>)>,
    note: Note,
    published: Option<SealId>,
    ending: bool,
}

/// The thread's own.
struct Writer {
    shared: Arc<Shared>,
    store: Store,
    deliver: Box<dyn FnMut(Rows, u64) -> Option<SealId> + Send>,
    remembered: Box<dyn Fn() -> Vec<(Digest, Duration)> + Send>,
    /// Seals that were cut and are not in the lake, with their last batch.
    cuts: VecDeque<(SealId, u64)>,
    /// Every batch up to this one is in the lake.
    published: u64,
    /// Up to which batch answers were given, and when.
    answered: VecDeque<(Instant, u64)>,
    /// What could not be noted yet.
    unwritten: Note,
    /// Journaled since the last cut, bytes.
    uncut_bytes: u64,
    /// Journaled between the last two cuts: being staged.
    last_cut_bytes: u64,
}

/// Refuses everything when the thread panics, so that nobody waits for it.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut waiting = self.0.lock();
            waiting.poisoned =
                Some("its thread panicked; this is a bug, please report it".to_owned());
            (waiting.busy, waiting.ended) = (false, true);
            let dropped = (
                std::mem::take(&mut waiting.appends),
                std::mem::take(&mut waiting.cuts),
            );
            drop(waiting);
            drop(dropped);
            self.0.done.notify_all();
        }
    }
}

impl Writer {
    fn run(&mut self) {
        let _guard = PanicGuard(Arc::clone(&self.shared));
        loop {
            let work = self.next_work();
            if let Some(seal) = work.published {
                self.take_published(seal);
            }
            let has_cuts = !work.cuts.is_empty();
            self.write_note(work.note);
            self.write_cuts(work.cuts);
            // Those that are refused do not count: room is made while they come.
            let is_idle = !self.write_batches(work.appends) && !has_cuts;
            self.settle(is_idle);
            self.tidy(is_idle);
            self.publish_stats();
            if work.ending {
                self.end();
            }
            self.rested(work.ending);
            if work.ending {
                return;
            }
        }
    }

    /// Waits for something to do; also for the moment to settle what was answered.
    fn next_work(&mut self) -> Work {
        let mut waiting = self.shared.lock();
        loop {
            let settles = self
                .answered
                .front()
                .map(|(when, _)| *when + self.shared.config.moment);
            let now = Instant::now();
            if waiting.has_work() || waiting.ending || settles.is_some_and(|when| when <= now) {
                break;
            }
            let changed = &self.shared.changed;
            waiting = match settles {
                None => changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(when) => {
                    let waited = changed.wait_timeout(waiting, when - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        waiting.busy = true;
        Work {
            appends: std::mem::take(&mut waiting.appends),
            cuts: std::mem::take(&mut waiting.cuts),
            note: std::mem::take(&mut waiting.note),
            published: waiting.published.take(),
            ending: waiting.ending && !waiting.has_work(),
        }
    }

    fn rested(&self, has_ended: bool) {
        let mut waiting = self.shared.lock();
        waiting.busy = false;
        if has_ended {
            waiting.ended = true;
            // Whoever waits for one of these is told that it was not written.
            waiting.cuts.clear();
        }
        drop(waiting);
        self.shared.done.notify_all();
    }

    fn take_published(&mut self, seal: SealId) {
        while let Some((id, through)) = self.cuts.front().copied()
            && id <= seal
        {
            self.cuts.pop_front();
            self.published = self.published.max(through);
            if self.shared.config.durability == Durability::Lake {
                self.answered.push_back((Instant::now(), through));
            }
        }
    }

    /// Writes what became known of requests. Not synced: it is known again or no harm after a power loss. What a full disk
    /// does not take now is written later.
    fn write_note(&mut self, note: Note) {
        let is_news = !note.undelivered.is_empty() || !note.repeated.is_empty();
        let unwritten = &mut self.unwritten;
        unwritten.undelivered.extend(note.undelivered);
        unwritten.repeated.extend(note.repeated);
        for digests in [&mut unwritten.undelivered, &mut unwritten.repeated] {
            let excess = digests.len().saturating_sub(UNWRITTEN_MAX);
            digests.drain(..excess);
        }
        if unwritten.undelivered.is_empty() && unwritten.repeated.is_empty() {
            return;
        }
        let frame = NewFrame::record(Kind::Note, unwritten);
        match self.write(&[frame]) {
            Ok(()) => self.unwritten = Note::default(),
            Err(error) if is_news => {
                tracing::warn!(%error, "remembered requests are not noted on disk: after a crash now, a retry of theirs is stored again");
            }
            Err(_) => {}
        }
    }

    fn write_cuts(&mut self, cuts: Vec<(CutRecord, SyncSender<Result<(), JournalError>>)>) {
        for (cut, done) in cuts {
            let frame = NewFrame::record(Kind::Cut, &Cut::from(cut));
            let outcome = self.write(&[frame]).and_then(|()| self.sync());
            if outcome.is_ok() {
                self.cuts.push_back((cut.seal, cut.through));
                self.last_cut_bytes = std::mem::take(&mut self.uncut_bytes);
            }
            // The sealer waits for it.
            let _ = done.send(outcome);
        }
    }

    /// Writes batches in groups of a bounded size, each with one sync, and answers them. `false` when none was written.
    fn write_batches(&mut self, appends: Vec<Append>) -> bool {
        let before = self.store.sequence();
        let mut appends = appends.into_iter().peekable();
        while appends.peek().is_some() {
            let mut group = Vec::new();
            let mut group_bytes = 0;
            while let Some(append) = appends.next_if(|append| {
                let bytes = frame_bytes(append.encoded.bytes());
                group_bytes == 0 || group_bytes + bytes <= GROUP_BYTES_MAX
            }) {
                let bytes = frame_bytes(append.encoded.bytes());
                match self.shared.full(group_bytes + bytes) {
                    Ok(()) => {
                        group_bytes += bytes;
                        group.push(append);
                    }
                    Err(error) => (append.done)(Err(error)),
                }
            }
            self.write_group(group, group_bytes);
        }
        self.store.sequence() > before
    }

    fn write_group(&mut self, group: Vec<Append>, group_bytes: u64) {
        if group.is_empty() {
            return;
        }
        let frames: Vec<NewFrame<'_>> = group
            .iter()
            .map(|append| NewFrame::batch(&append.encoded))
            .collect();
        let outcome = self
            .check_space(group_bytes)
            .and_then(|()| self.write(&frames))
            .and_then(|()| self.sync());
        drop(frames);
        if let Err(error) = outcome {
            for append in group {
                (append.done)(Err(error.clone()));
            }
            return;
        }
        self.uncut_bytes += group_bytes;
        self.publish_stats();
        self.shared.lock().space_wanted = None;
        let requests = group.len() as u64;
        self.shared.requests.fetch_add(requests, Ordering::Relaxed);
        let mut sequence = self.store.sequence() - requests;
        for append in group {
            sequence += 1;
            let seal = (self.deliver)(append.rows, sequence);
            (append.done)(Ok(seal));
        }
        if self.shared.config.durability == Durability::Journal {
            self.answered.push_back((Instant::now(), sequence));
        }
    }

    /// Whether the disk has room for more, and to stage what is not staged yet: else what is acknowledged could not
    /// leave the journal, and nothing would ever make room.
    fn check_space(&self, more: u64) -> Result<(), JournalError> {
        let shared = &self.shared;
        // Parquet takes much less than half of what the journal takes.
        let to_stage = (self.uncut_bytes + self.last_cut_bytes + more) / 2;
        let wanted = more + to_stage + FREE_BYTES_MIN;
        match shared.disk.free_bytes(&shared.config.dir) {
            Ok(free) if free < wanted => {
                shared.lock().space_wanted = Some(wanted);
                Err(JournalError::NoSpace)
            }
            // The write itself will tell.
            _ => Ok(()),
        }
    }

    fn write(&mut self, frames: &[NewFrame<'_>]) -> Result<(), JournalError> {
        if let Some(reason) = &self.shared.lock().poisoned {
            return Err(JournalError::Poisoned(reason.clone()));
        }
        let written = self.store.write(frames, &*self.remembered);
        written.map_err(|error| self.failed(error))
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.store.sync().map_err(|error| self.failed(error))
    }

    /// Takes note of a failure: a full disk passes, anything else poisons.
    fn failed(&self, error: JournalError) -> JournalError {
        let mut waiting = self.shared.lock();
        match &error {
            JournalError::Poisoned(reason) if waiting.poisoned.is_none() => {
                tracing::error!(
                    reason,
                    "the journal cannot be written: no more requests are taken until the next start"
                );
                waiting.poisoned = Some(reason.clone());
            }
            JournalError::NoSpace => waiting.space_wanted = Some(FREE_BYTES_MIN),
            _ => {}
        }
        error
    }

    /// Counts answers as arrived once their moment is over; while nothing else is written, on the disk too.
    fn settle(&mut self, is_idle: bool) {
        let now = Instant::now();
        while let Some((when, through)) = self.answered.front().copied()
            && when + self.shared.config.moment <= now
        {
            self.answered.pop_front();
            self.store.settled = self.store.settled.max(through);
        }
        let is_news = self.store.settled > self.store.settled_written;
        if is_idle && is_news && self.answered.is_empty() {
            // Not synced: without it a little more is remembered than need be.
            if let Err(error) = self.write(&[NewFrame::empty(Kind::Idle)]) {
                tracing::debug!(%error, "an idle frame was not written");
            }
        }
    }

    /// Removes segments that nothing needs any more.
    fn tidy(&mut self, is_idle: bool) {
        let done = self.published.min(self.store.settled);
        if is_idle && self.store.is_worth_rotating(done) && self.shared.lock().poisoned.is_none() {
            let rotated = self.store.rotate(&*self.remembered);
            if let Err(error) = rotated {
                let error = self.failed(error);
                tracing::debug!(%error, "no new segment was made");
            }
        }
        // What is remembered stands in a newer segment's start, or there is nothing.
        if self.store.has_active() || (self.remembered)().is_empty() {
            self.store.remove_through(done);
        }
    }

    fn publish_stats(&self) {
        let shared = &self.shared;
        shared.bytes.store(self.store.bytes(), Ordering::Relaxed);
        shared
            .segments
            .store(self.store.segments(), Ordering::Relaxed);
    }

    /// The stop was in order: every answer that was given was written before.
    fn end(&mut self) {
        if let Some((_, through)) = self.answered.back().copied() {
            self.store.settled = self.store.settled.max(through);
        }
        if self.store.has_active() {
            let closed = self.write(&[NewFrame::empty(Kind::Close)]);
            if let Err(error) = closed.and_then(|()| self.sync()) {
                tracing::warn!(%error, "the journal's end was not written; the next start reads it as after a crash");
                return;
            }
        }
        self.tidy(false);
        self.publish_stats();
    }
}
