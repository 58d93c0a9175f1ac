//! Requests whose answer is not written yet, by their digest.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::journal::Digest;

/// So many locks share the requests: enough that connections seldom meet at one.
const SHARDS: usize = 64;

/// A place in the order in which requests went in flight.
pub(super) type Ticket = u64;

/// The requests in flight. A shard holds a few at a time, so it is a list.
pub(super) struct InFlight {
    shards: [Mutex<Vec<(Digest, Ticket)>>; SHARDS],
    next: AtomicU64,
    /// Whoever waits for one to land.
    waiting: AtomicUsize,
    landed: Notify,
}

impl Default for InFlight {
    fn default() -> InFlight {
        InFlight {
            shards: [const { Mutex::new(Vec::new()) }; SHARDS],
            next: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            landed: Notify::new(),
        }
    }
}

impl InFlight {
    pub(super) fn start(&self, digest: Digest) -> Ticket {
        let mut shard = self.shard(digest);
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        shard.push((digest, ticket));
        ticket
    }

    pub(super) fn land(&self, digest: Digest, ticket: Ticket) {
        let mut shard = self.shard(digest);
        if let Some(place) = shard.iter().position(|entry| *entry == (digest, ticket)) {
            shard.swap_remove(place);
        }
        drop(shard);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.landed.notify_waiters();
        }
    }

    /// Waits until the equal requests that went in flight before a ticket have landed, at most for `limit`.
    pub(super) async fn wait(&self, digest: Digest, before: Ticket, limit: Duration) {
        if !self.has(digest, before) {
            return;
        }
        let _waiter = Waiter::new(&self.waiting);
        let landed = async {
            loop {
                // Made before the look, so that no landing after it is missed.
                let landed = self.landed.notified();
                if !self.has(digest, before) {
                    return;
                }
                landed.await;
            }
        };
        let _ = tokio::time::timeout(limit, landed).await;
    }

    fn has(&self, digest: Digest, before: Ticket) -> bool {
        let shard = self.shard(digest);
        shard
            .iter()
            .any(|(equal, ticket)| *equal == digest && *ticket < before)
    }

    fn shard(&self, digest: Digest) -> MutexGuard<'_, Vec<(Digest, Ticket)>> {
        let [first, ..] = digest.to_bytes();
        let shard = &self.shards[usize::from(first) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one who waits, also when its future is dropped.
struct Waiter<'a>(&'a AtomicUsize);

impl Waiter<'_> {
    fn new(waiting: &AtomicUsize) -> Waiter<'_> {
        waiting.fetch_add(1, Ordering::SeqCst);
        Waiter(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
