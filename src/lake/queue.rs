//! Staged seals on their way to the publisher.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::seal::staged::StagedSeal;

/// Waiting without a limit is done in steps of this length.
const WATCH_STEP: Duration = Duration::from_secs(60);

/// Seals that wait to be published, in order. Clones share one queue.
///
/// An entry is a few hundred bytes, its rows are on disk: the disk budget bounds the queue.
#[derive(Clone, Default)]
pub struct PublishQueue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seals: VecDeque<StagedSeal>,
    deadline: Option<Instant>,
}

/// What the publisher finds.
pub(super) enum Next {
    /// The oldest seal; it stays in the queue until [`PublishQueue::done`].
    Seal(StagedSeal),
    /// Nothing waits, and the time given is over.
    Idle,
    /// Nothing waits, and nothing will come.
    Closed,
}

impl PublishQueue {
    /// An open, empty queue.
    #[must_use]
    pub fn new() -> PublishQueue {
        PublishQueue::default()
    }

    /// Appends a seal. After [`PublishQueue::close`] too: it is published if time remains, else it stays staged.
    pub fn push(&self, seal: StagedSeal) {
        self.lock().seals.push_back(seal);
        self.shared.changed.notify_all();
    }

    /// Lets the publisher end: it publishes what is queued, tries what fails until `deadline`, and leaves the rest
    /// staged on disk. Wakes it from any pause. Call it after the last push.
    pub fn close(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
        self.shared.changed.notify_all();
    }

    /// Seals that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().seals.len()
    }

    /// Whether no seal waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The oldest seal, waiting for one until `until`.
    pub(super) fn next(&self, until: Instant) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(seal) = state.seals.front() {
                return Next::Seal(seal.clone());
            }
            if state.deadline.is_some() {
                return Next::Closed;
            }
            let now = Instant::now();
            if now >= until {
                return Next::Idle;
            }
            state = self.wait(state, until, now);
        }
    }

    /// The oldest seal is in the lake.
    pub(super) fn done(&self) {
        self.lock().seals.pop_front();
    }

    /// When a closed queue's publisher must end; `None` while it is open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// Sleeps until `until`, or until an open queue is closed.
    pub(super) fn pause(&self, until: Instant) {
        let mut state = self.lock();
        let was_open = state.deadline.is_none();
        loop {
            let now = Instant::now();
            if now >= until || (was_open && state.deadline.is_some()) {
                return;
            }
            state = self.wait(state, until, now);
        }
    }

    /// Waits until the publisher is needed: a seal has waited for `patience`, or the queue is closed. `false` when `over`
    /// came first; whoever sets it calls [`PublishQueue::wake`].
    pub(super) fn wait_until_needed(&self, over: &AtomicBool, patience: Duration) -> bool {
        let mut state = self.lock();
        let mut seal_since = None;
        loop {
            if over.load(Ordering::Relaxed) {
                return false;
            }
            let now = Instant::now();
            let mut until = now + WATCH_STEP;
            if !state.seals.is_empty() {
                let needed = *seal_since.get_or_insert(now) + patience;
                if now >= needed {
                    return true;
                }
                until = until.min(needed);
            }
            if state.deadline.is_some() {
                return true;
            }
            state = self.wait(state, until, now);
        }
    }

    /// Wakes whoever waits, to look again.
    pub(super) fn wake(&self) {
        // Under the lock: who has looked and does not wait yet must not miss it.
        let _state = self.lock();
        self.shared.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one push or pop: a panic elsewhere leaves nothing half done.
        let locked = self.shared.state.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: Instant,
        now: Instant,
    ) -> MutexGuard<'a, State> {
        let waited = self.shared.changed.wait_timeout(state, until - now);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
