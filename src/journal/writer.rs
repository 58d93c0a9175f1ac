//! Writing: one thread that takes all that waits, writes it at once, syncs it once, and answers all of it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::digest::Digest;
use super::error::{FREE_BYTES_MIN, JournalError};
use super::frame::{Kind, frame_bytes};
use super::handle::{Append, Deliver, Remembered, Shared, Waiting};
use super::records::{Cut, CutRecord, Note};
use super::scan::Scan;
use super::store::{NewFrame, Store};
use crate::signal::{Durability, SealId};

/// Bytes written with one sync, one frame at least: bounds how long the first of a group waits for the last.
const GROUP_BYTES_MAX: u64 = 16 << 20;

/// How long requests wait for others to share their sync with.
const GATHER_MAX: Duration = Duration::from_micros(200);

/// After this part of a moment without a write an idle frame tells of the last sync: before, what was synced last cannot
/// be told from what never was, if it is damaged.
const TELL_SYNCED_PART: u32 = 20;

/// How long a retry is remembered further after a crash, if its answer did not count as arrived by then.
const REPEAT_LEFT: Duration = Duration::from_secs(60);

/// Digests that are kept to be noted once the disk takes them; the oldest are given up first.
const UNWRITTEN_MAX: usize = 65_536;

/// What the thread takes at once.
struct Work {
    appends: Vec<Append>,
    cuts: Vec<(CutRecord, SyncSender<Result<(), JournalError>>)>,
    note: Note,
    published: Option<SealId>,
    ending: bool,
}

/// The thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    store: Store,
    deliver: Deliver,
    remembered: Remembered,
    /// Seals that were cut and are not in the lake, with their last batch.
    cuts: VecDeque<(SealId, u64)>,
    /// Every batch up to this one is in the lake.
    published: u64,
    /// Up to which batch answers were given, and when.
    answered: VecDeque<(Instant, u64)>,
    /// What could not be noted yet.
    unwritten: Note,
    /// Retries that were answered, and when that counts as arrived: until then a crash must find the request remembered.
    repeats: VecDeque<(Instant, Vec<u8>)>,
    /// When it was last synced.
    synced: Option<Instant>,
    /// Requests that were written together the last time.
    last_group: usize,
    /// Spares are of no use any more.
    is_ending: bool,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Store,
        deliver: Deliver,
        remembered: Remembered,
        scan: &Scan,
        published: u64,
    ) -> Writer {
        let cuts = scan.cuts.iter();
        Writer {
            shared,
            store,
            deliver,
            remembered,
            cuts: cuts.map(|cut| (cut.seal, cut.through)).collect(),
            published,
            answered: VecDeque::new(),
            unwritten: Note::default(),
            repeats: VecDeque::new(),
            synced: None,
            last_group: 0,
            is_ending: false,
            uncut_bytes: 0,
            last_cut_bytes: 0,
        }
    }

    pub(super) fn run(&mut self) {
        let _guard = PanicGuard(Arc::clone(&self.shared));
        self.tidy(true);
        self.publish_stats();
        loop {
            let work = self.next_work();
            if let Some(seal) = work.published {
                self.take_published(seal);
            }
            let has_cuts = !work.cuts.is_empty();
            let note = self.due_note(work.note);
            self.write_note(note);
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

    /// When there is something to do without being asked.
    fn due(&self) -> Option<Instant> {
        let moment = self.shared.config.moment;
        let settles = self.answered.front().map(|(when, _)| *when + moment);
        let repeats = self.repeats.front().map(|(when, _)| *when);
        let tells = self.synced.map(|when| when + moment / TELL_SYNCED_PART);
        [settles, repeats, tells].into_iter().flatten().min()
    }

    /// Waits for something to do; also for the moment to settle what was answered.
    fn next_work(&mut self) -> Work {
        let mut waiting = self.shared.lock();
        loop {
            let due = self.due();
            let now = Instant::now();
            if waiting.has_work() || waiting.ending || due.is_some_and(|when| when <= now) {
                break;
            }
            waiting.is_resting = true;
            self.shared.done.notify_all();
            let changed = &self.shared.changed;
            waiting = match due {
                None => changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(when) => {
                    let waited = changed.wait_timeout(waiting, when - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        (waiting.busy, waiting.is_resting) = (true, false);
        let waiting = &mut *self.gather(waiting);
        Work {
            appends: std::mem::take(&mut waiting.appends),
            cuts: std::mem::take(&mut waiting.cuts),
            note: std::mem::take(&mut waiting.note),
            published: waiting.published.take(),
            ending: waiting.ending && !waiting.has_work(),
        }
    }

    /// Gives others a moment to come along, as many as came the last time: those that send one request after the other
    /// come at once when they are answered at once, and then share a sync. Who is alone does not wait.
    fn gather<'a>(&self, mut waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        if waiting.appends.is_empty() || self.last_group < 2 {
            return waiting;
        }
        waiting.gathering = self.last_group;
        let until = Instant::now() + GATHER_MAX;
        loop {
            let now = Instant::now();
            let is_enough = waiting.appends.len() >= self.last_group
                || !waiting.cuts.is_empty()
                || waiting.closed;
            if is_enough || now >= until {
                waiting.gathering = 0;
                return waiting;
            }
            let waited = self.shared.changed.wait_timeout(waiting, until - now);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
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
            if self.cuts.is_empty() {
                // Nothing is being staged.
                self.last_cut_bytes = 0;
            }
            if self.shared.config.durability == Durability::Lake {
                self.answered.push_back((Instant::now(), through));
            }
        }
    }

    /// Holds retries back until their answer counts as arrived.
    fn due_note(&mut self, mut note: Note) -> Note {
        let now = Instant::now();
        let due = now + self.shared.config.moment;
        let repeated = std::mem::take(&mut note.repeated);
        self.repeats
            .extend(repeated.into_iter().map(|digest| (due, digest)));
        while self.repeats.front().is_some_and(|(when, _)| *when <= now) {
            note.repeated
                .extend(self.repeats.pop_front().map(|(_, digest)| digest));
        }
        note
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
        if !appends.is_empty() {
            self.last_group = appends.len();
        }
        let mut appends = appends.into_iter().peekable();
        while appends.peek().is_some() {
            let mut group = Vec::new();
            let mut group_bytes = 0;
            while let Some(append) = appends.next_if(|append| {
                let bytes = frame_bytes(append.encoded.bytes());
                group_bytes == 0 || group_bytes + bytes <= GROUP_BYTES_MAX
            }) {
                let bytes = frame_bytes(append.encoded.bytes());
                match self.make_room(group_bytes + bytes) {
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

    /// Whether `more` bytes fit into what journal and staged files may take, without spare segments if need be.
    fn make_room(&mut self, more: u64) -> Result<(), JournalError> {
        self.shared.full(more).or_else(|_| {
            self.store.remove_spares();
            self.publish_stats();
            self.shared.full(more)
        })
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
            // For the next attempt.
            self.store.remove_spares();
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
        // First all are delivered, which takes a while, then all are answered: the threads that go on with them are woken
        // once, and not after each.
        let deliver = |append: Append| {
            sequence += 1;
            ((self.deliver)(append.rows, sequence), append.done)
        };
        let delivered: Vec<_> = group.into_iter().map(deliver).collect();
        for (seal, done) in delivered {
            done(Ok(seal));
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
                Err(JournalError::no_space(free))
            }
            // The write itself will tell.
            _ => Ok(()),
        }
    }

    fn write(&mut self, frames: &[NewFrame<'_>]) -> Result<(), JournalError> {
        if let Some(reason) = &self.shared.lock().poisoned {
            return Err(JournalError::Poisoned(reason.clone()));
        }
        let remembered = remembered(&self.remembered, &self.repeats);
        let written = self.store.write(frames, &remembered);
        // Whatever is written tells of the sync before it.
        self.synced = None;
        written.map_err(|error| self.failed(error))
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let began = Instant::now();
        let synced = self.store.sync();
        self.shared.syncs.observe(began.elapsed());
        synced.map_err(|error| self.failed(error))?;
        self.synced = Some(Instant::now());
        Ok(())
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
        let tell_after = self.shared.config.moment / TELL_SYNCED_PART;
        let tells = self.synced.is_some_and(|when| when + tell_after <= now);
        if is_idle && ((is_news && self.answered.is_empty()) || tells) {
            // Not synced: without it a little more is remembered than need be, and what is at the end cannot be told from
            // what was never synced.
            if let Err(error) = self.write(&[NewFrame::empty(Kind::Idle)]) {
                tracing::debug!(%error, "an idle frame was not written");
            }
            self.synced = None;
        }
    }

    /// Removes segments that nothing needs any more.
    fn tidy(&mut self, is_idle: bool) {
        let done = self.published.min(self.store.settled);
        let is_poisoned = self.shared.lock().poisoned.is_some();
        if is_idle && self.store.is_worth_rotating(done) && !is_poisoned {
            let remembered = remembered(&self.remembered, &self.repeats);
            let rotated = self.store.rotate(&remembered);
            if let Err(error) = rotated {
                let error = self.failed(error);
                tracing::debug!(%error, "no new segment was made");
            }
        }
        // What is remembered stands in a newer segment's start, or there is nothing.
        if self.store.has_active() || remembered(&self.remembered, &self.repeats)().is_empty() {
            let may_keep = !is_poisoned && !self.is_ending;
            self.store.remove_through(done, may_keep);
        }
    }

    fn publish_stats(&self) {
        let shared = &self.shared;
        shared.bytes.store(self.store.bytes(), Ordering::Relaxed);
        let spare_bytes = self.store.spare_bytes();
        shared.spare_bytes.store(spare_bytes, Ordering::Relaxed);
        shared
            .segments
            .store(self.store.segments(), Ordering::Relaxed);
    }

    /// The stop was in order: every answer that was given was written before.
    fn end(&mut self) {
        if let Some((_, through)) = self.answered.back().copied() {
            self.store.settled = self.store.settled.max(through);
        }
        let repeated = self.repeats.drain(..).map(|(_, digest)| digest).collect();
        self.write_note(Note {
            undelivered: Vec::new(),
            repeated,
        });
        if self.store.has_active() {
            let closed = self.write(&[NewFrame::empty(Kind::Close)]);
            // What a spare has behind its end is of no use any more, and would look like something that was not synced.
            let cut = closed.and_then(|()| {
                let cut = self.store.cut_to_length();
                cut.map_err(|error| self.failed(error))
            });
            if let Err(error) = cut.and_then(|()| self.sync()) {
                tracing::warn!(%error, "the journal's end was not written; the next start reads it as after a crash");
                return;
            }
        }
        self.is_ending = true;
        self.tidy(false);
        self.store.remove_spares();
        self.publish_stats();
    }
}

/// What is remembered: also the requests whose retry was answered a moment ago.
fn remembered<'a>(
    hook: &'a Remembered,
    repeats: &'a VecDeque<(Instant, Vec<u8>)>,
) -> impl Fn() -> Vec<(Digest, Duration)> + 'a {
    move || {
        let mut all = hook();
        let digests = repeats.iter().filter_map(|(_, d)| Digest::from_bytes(d));
        all.extend(digests.map(|digest| (digest, REPEAT_LEFT)));
        all
    }
}
