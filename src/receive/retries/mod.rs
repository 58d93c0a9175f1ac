//! Retries: requests whose answer cannot have reached their client, remembered by a digest of their bytes.
//!
//! A client that got no answer sends the same bytes again. They are answered as success then, and not stored again. A
//! request whose answer was delivered and that comes again is new data: people repeat a curl, load tools a payload.
//!
//! | what happens to a request that is kept | remembered |
//! |---|---|
//! | its future is dropped while it waits ([`Answer`]): the client went away | once it is kept |
//! | its answer is dropped before it is written ([`Delivery`]) | at once |
//! | its answer is written after the client's deadline ([`super::answer`]) | at once |
//! | its connection breaks within a moment of the answer ([`super::connection`]) | at once |
//! | the server crashes after the journal had it | by the recovery ([`Retries::remember`]) |
//! | anything else | no |
//!
//! What is remembered is used up by the retry; if its answer does not arrive either, it is remembered again.

mod delivery;
mod remembered;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use twox_hash::XxHash3_128;

use self::remembered::{Remembered, Taken};
use crate::decode::Encoding;
use crate::signal::Signal;

pub use self::delivery::{Answer, Committer, Delivery, Failure};

/// How long a request is remembered, if the settings say nothing else.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(300);

/// How many requests are remembered at most: some 10 MB.
pub const REMEMBERED_MAX: usize = 65_536;

/// Counters of the requests that wait for their outcome: enough that unequal requests seldom share one.
const WAITING_COUNTERS: usize = 1024;

/// How often it is logged that requests were forgotten before their time.
const FORGOTTEN_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What the bytes of a request are known by: XXH3, 128 bits, of the decompressed body, seeded by the data folder, the
/// signal and the encoding. The same bytes at another path are another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

/// Told of every request that is newly remembered, from any thread; must not block.
pub type OnRemember = Box<dyn Fn(Digest) + Send + Sync>;

/// The requests that are remembered. One for all listeners.
pub struct Retries {
    window: Duration,
    seed: u64,
    on_remember: OnRemember,
    /// Whether anything is remembered or undecided: spares nearly every request the lock. Written under the lock.
    knows_any: AtomicBool,
    /// Requests whose answer waits for the outcome, counted by a part of their digest.
    waiting: [AtomicU32; WAITING_COUNTERS],
    state: Mutex<State>,
    /// Told whenever something undecided is decided.
    decided: Notify,
    forgotten: AtomicU64,
}

#[derive(Default)]
struct State {
    remembered: Remembered,
    /// When it was last logged that requests were forgotten.
    logged: Option<Instant>,
}

impl Retries {
    /// Remembers for `window`; zero turns everything off. `seed` belongs to the data folder, so that digests from the
    /// folder's journal are still good.
    #[must_use]
    pub fn new(window: Duration, seed: u64, on_remember: OnRemember) -> Arc<Retries> {
        Arc::new(Retries {
            window,
            seed,
            on_remember,
            knows_any: AtomicBool::new(false),
            waiting: [const { AtomicU32::new(0) }; WAITING_COUNTERS],
            state: Mutex::default(),
            decided: Notify::new(),
            forgotten: AtomicU64::new(0),
        })
    }

    /// The digest of a request's decompressed body; none when nothing is remembered.
    #[must_use]
    pub fn digest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Option<Digest> {
        if self.window.is_zero() {
            return None;
        }
        let path = (signal as u64) << 8 | encoding as u64;
        // Far apart, so that no folder's seed is another's with another path.
        let seed = self
            .seed
            .wrapping_add(path.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let hash = XxHash3_128::oneshot_with_seed(seed, body);
        Some(Digest(hash.to_le_bytes()))
    }

    /// Both ends of a request that is about to be kept. Without a digest nothing of it is remembered.
    #[must_use]
    pub fn track<E>(self: &Arc<Self>, digest: Option<Digest>) -> (Committer<E>, Answer<E>) {
        delivery::pair(self, digest)
    }

    /// Whether a request is a retry of a remembered one, which is then used up: the request is to be answered, not kept.
    ///
    /// While a request with the same bytes has lost its client and is not decided yet, this waits for the decision: as
    /// long as that request would have waited for its answer.
    pub async fn take(self: &Arc<Self>, digest: Digest) -> Option<Delivery> {
        // The client may have gone away and come back at once, on one connection even: then both news are here, and the
        // task that drops the first answer is to run before this one.
        if self.waiting(digest).load(Ordering::Acquire) > 0 {
            for _ in 0..16 { tokio::task::yield_now().await; }
        }
        loop {
            if !self.knows_any.load(Ordering::Acquire) {
                return None;
            }
            // Made before the look, so that no decision after it is missed.
            let decided = self.decided.notified();
            let taken = self.change(|remembered| remembered.take(digest, Instant::now()));
            match taken {
                Taken::Repeat => return Some(Delivery::new(self, Some(digest))),
                Taken::New => return None,
                Taken::Undecided => decided.await,
            }
        }
    }

    /// Remembers a request of an earlier run for the time it has left, at most the window. Nobody is told.
    pub fn remember(&self, digest: Digest, left: Duration) {
        let expires = Instant::now() + left.min(self.window);
        self.insert(&[digest], expires);
    }

    /// Every remembered request with the time it has left; one with the same bytes as another stands beside it.
    #[must_use]
    pub fn remembered(&self) -> Vec<(Digest, Duration)> {
        self.change(|remembered| remembered.all(Instant::now()))
    }

    /// How many requests are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.change(|remembered| remembered.len(Instant::now()))
    }

    /// Whether no request is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests were forgotten before their time, for want of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Remembers requests that are kept and whose answer did not arrive.
    pub(super) fn undelivered(&self, digests: &[Digest]) {
        let expires = Instant::now() + self.window;
        self.insert(digests, expires);
        self.tell(digests);
    }

    /// The answer to a request is dropped. `outcome` ends the wait for it and says whether the request was kept, if that
    /// is decided; it is called under the lock.
    fn give_up(&self, digest: Digest, outcome: impl FnOnce() -> Option<bool>) {
        let expires = Instant::now() + self.window;
        let forgotten = self.change(|remembered| match outcome() {
            Some(true) => Some(remembered.remember(digest, expires)),
            Some(false) => None,
            None => {
                remembered.add_undecided(digest);
                None
            }
        });
        self.count_kept(digest, forgotten);
    }

    /// It is decided whether a request that has lost its client is kept.
    fn decide(&self, digest: Digest, is_kept: bool) {
        let expires = Instant::now() + self.window;
        let forgotten = self.change(|remembered| {
            remembered.remove_undecided(digest);
            is_kept.then(|| remembered.remember(digest, expires))
        });
        self.decided.notify_waiters();
        self.count_kept(digest, forgotten);
    }

    /// What is left to do without the lock when a request was remembered, and for it others forgotten.
    fn count_kept(&self, digest: Digest, forgotten: Option<u64>) {
        if let Some(forgotten) = forgotten {
            self.count_forgotten(forgotten);
            self.tell(&[digest]);
        }
    }

    fn insert(&self, digests: &[Digest], expires: Instant) {
        let forgotten = self.change(|remembered| {
            let inserted = digests.iter();
            inserted
                .map(|digest| remembered.remember(*digest, expires))
                .sum()
        });
        self.count_forgotten(forgotten);
    }

    fn tell(&self, digests: &[Digest]) {
        for digest in digests {
            (self.on_remember)(*digest);
        }
    }

    /// Counts the requests that wait for their outcome, with this digest and a few others.
    fn waiting(&self, digest: Digest) -> &AtomicU32 {
        let Digest([first, second, ..]) = digest;
        let place = usize::from(u16::from_le_bytes([first, second]));
        &self.waiting[place % WAITING_COUNTERS]
    }

    fn count_forgotten(&self, count: u64) {
        if count == 0 {
            return;
        }
        let total = self.forgotten.fetch_add(count, Ordering::Relaxed) + count;
        let mut state = self.lock();
        let is_due = |logged: Instant| logged.elapsed() >= FORGOTTEN_LOG_INTERVAL;
        if !state.logged.is_none_or(is_due) {
            return;
        }
        state.logged = Some(Instant::now());
        drop(state);
        tracing::warn!(
            forgotten = total,
            limit = REMEMBERED_MAX,
            "more requests lost their answer than are remembered; if the oldest are sent again they are stored twice"
        );
    }

    /// Looks at or changes what is remembered.
    fn change<T>(&self, work: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state.remembered);
        let knows_any = state.remembered.knows_any();
        self.knows_any.store(knows_any, Ordering::Release);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Retries");
        shown.field("window", &self.window).finish_non_exhaustive()
    }
}
