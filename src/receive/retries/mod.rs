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

mod answered;
mod delivery;
mod digest;
mod in_flight;
mod remembered;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use twox_hash::XxHash3_128;

use self::answered::Answered;
use self::digest::digest_rows;
use self::in_flight::InFlight;
use self::remembered::{Remembered, Taken};
use crate::decode::Encoding;
use crate::journal::Digest;
use crate::rows::Rows;
use crate::signal::Signal;

pub use self::answered::Connection;
pub use self::delivery::{Answer, Committer, Delivery, Entered, Failure};

/// How many requests are remembered at most: some 10 MB.
pub const REMEMBERED_MAX: usize = 65_536;

/// How long a request waits for an equal one whose answer is on its way: longer than it takes to hear that its client
/// has gone, and short for those who send the same bytes again and again.
const EQUAL_WAIT_MAX: Duration = Duration::from_millis(100);

/// How often it is logged that requests were forgotten before their time.
const FORGOTTEN_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Stands for an encoding where rows are digested and not bytes.
const ROWS: u64 = 0xff;

/// What becomes of a request's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is remembered from now on.
    Remembered(Digest),
    /// Its retry came, and used it up.
    Repeated(Digest),
}

/// Told of every change but forgetting, from any thread; must not block.
pub type OnChange = Box<dyn Fn(Change) + Send + Sync>;

/// The requests that are remembered. One for all listeners.
pub struct Retries {
    window: Duration,
    seed: u64,
    on_change: OnChange,
    /// Whether anything is remembered or undecided: spares nearly every request the lock. Written under the lock.
    knows_any: AtomicBool,
    /// Requests whose answer is not written yet.
    in_flight: InFlight,
    /// Requests whose answer was written a moment ago.
    answered: Answered,
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
    pub fn new(window: Duration, seed: u64, on_change: OnChange) -> Arc<Retries> {
        Arc::new(Retries {
            window,
            seed,
            on_change,
            knows_any: AtomicBool::new(false),
            in_flight: InFlight::default(),
            answered: Answered::default(),
            state: Mutex::default(),
            decided: Notify::new(),
            forgotten: AtomicU64::new(0),
        })
    }

    /// The digest of a request's decompressed body: XXH3, 128 bits, seeded by the data folder, the signal and the encoding,
    /// so that the same bytes at another path are another request. None when nothing is remembered.
    #[must_use]
    pub fn digest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Option<Digest> {
        if self.window.is_zero() {
            return None;
        }
        let seed = self.seed_of(signal, encoding as u64);
        let hash = XxHash3_128::oneshot_with_seed(seed, body);
        Some(Digest(hash))
    }

    /// The digest of rows that did not come as bytes of their own, but by dictionaries that earlier requests of the stream
    /// have filled: what their columns hold. None when nothing is remembered.
    #[must_use]
    pub fn digest_rows(&self, signal: Signal, rows: &Rows) -> Option<Digest> {
        if self.window.is_zero() || rows.batches.is_empty() {
            return None;
        }
        Some(digest_rows(rows, self.seed_of(signal, ROWS)))
    }

    fn seed_of(&self, signal: Signal, encoding: u64) -> u64 {
        let path = (signal as u64) << 8 | encoding;
        // Far apart, so that no folder's seed is another's with another path.
        self.seed
            .wrapping_add(path.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Both ends of a request that is about to be kept. Without a digest nothing of it is remembered.
    #[must_use]
    pub fn track<E>(self: &Arc<Self>, digest: Option<Digest>) -> (Committer<E>, Answer<E>) {
        delivery::pair(self, digest)
    }

    /// Whether a request is a retry of a remembered one, which is then used up: the request is to be answered, not kept.
    ///
    /// A request with the same bytes whose answer is on its way is waited for: its client may have gone away and come back
    /// in one packet, and then both news are here and only their order is not. For a moment, that is: one whose client
    /// still waits is another request. One that is answered has its connection looked at: a reset that came before the retry
    /// may not have been read. While one has lost its client and is not decided yet, this waits for the decision: as long as
    /// that request would have waited for its answer.
    ///
    /// A request that is none is in flight from its first moment here, and the task is left once: so a request whose stream
    /// was reset before it was looked at is dropped here, and not kept after the retry that came behind the reset.
    ///
    /// # Errors
    /// [`Entered`] when it is no retry.
    pub async fn take(self: &Arc<Self>, digest: Digest) -> Result<Delivery, Entered> {
        let entered = Entered::new(self, digest);
        tokio::task::yield_now().await;
        self.in_flight
            .wait(digest, entered.ticket(), EQUAL_WAIT_MAX)
            .await;
        if let Some(connection) = self.answered.get(digest)
            && let Some(connection) = connection.upgrade()
        {
            connection.look();
        }
        loop {
            // Made before the look, so that no decision after it is missed.
            let decided = self.decided.notified();
            match self.look(digest) {
                Poll::Ready(delivery) => return delivery.ok_or(entered),
                Poll::Pending => decided.await,
            }
        }
    }

    /// What is known of a request now; pending while one with the same bytes is undecided.
    fn look(self: &Arc<Self>, digest: Digest) -> Poll<Option<Delivery>> {
        if !self.knows_any.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        match self.change(|remembered| remembered.take(digest, Instant::now())) {
            Taken::Repeat => {
                (self.on_change)(Change::Repeated(digest));
                Poll::Ready(Some(Delivery::of_retry(self, digest)))
            }
            Taken::New => Poll::Ready(None),
            Taken::Undecided => Poll::Pending,
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

    /// A request is answered on a connection that will tell if the answer does not arrive.
    pub(super) fn answered(&self, digest: Digest, connection: Weak<dyn Connection>) {
        self.answered.insert(digest, connection);
    }

    /// Remembers requests that are kept and whose answer did not arrive.
    pub(super) fn undelivered(&self, digests: &[Digest]) {
        self.tell(digests);
        self.insert(digests, Instant::now() + self.window);
    }

    /// The answer to a request is dropped. `outcome` ends the wait for it and says whether the request was kept, if that
    /// is decided; it is called under the lock.
    fn give_up(&self, digest: Digest, outcome: impl FnOnce() -> Option<bool>) {
        let is_kept = self.change(|remembered| {
            let is_kept = outcome();
            if is_kept != Some(false) {
                remembered.add_undecided(digest);
            }
            is_kept
        });
        if is_kept == Some(true) {
            self.decide(digest, true);
        }
    }

    /// It is decided whether a request that has lost its client is kept.
    fn decide(&self, digest: Digest, is_kept: bool) {
        if is_kept {
            self.tell(&[digest]);
        }
        let expires = Instant::now() + self.window;
        let forgotten = self.change(|remembered| {
            remembered.remove_undecided(digest);
            match is_kept {
                true => remembered.remember(digest, expires),
                false => 0,
            }
        });
        self.decided.notify_waiters();
        self.count_forgotten(forgotten);
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

    /// Tells that requests will be remembered: before a retry can find them, so that its own news comes after.
    fn tell(&self, digests: &[Digest]) {
        for digest in digests {
            (self.on_change)(Change::Remembered(*digest));
        }
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
