//! `otlake tail`: what is accepted, shown to whoever watches, while it happens.
//!
//! ```text
//! request accepted -> [`Tails::offer`]: its batches, shared, into each tail's queue -> the tail's task: filter, records -> gRPC
//! ```
//! Receiving never waits: a request costs one atomic load while nobody watches, and a queue that is full passes it by. What
//! a tail does not show is counted and told to it.
//!
//! | bound | what for |
//! |---|---|
//! | [`TAILS_MAX`] | tails at once |
//! | [`QUEUE_BYTES_MAX`], [`QUEUE_BATCHES_MAX`] | requests that wait to be looked at by one tail; they are held beside the memory budget |
//! | [`RECORDS_PER_SECOND_MAX`] | records that one tail makes, so that it leaves the processors to receiving |
//! | `records::TEXT_BYTES_MAX` | a text in a record |

mod records;
mod stream;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;

pub use self::stream::{Filter, Messages, UnknownSignal, stream};
use crate::rows::{Rows, batch_bytes};
use crate::signal::Table;

/// Tails at once.
pub const TAILS_MAX: usize = 8;

/// Memory of the requests that wait to be looked at by one tail, bytes. A request that is larger is not shown.
pub const QUEUE_BYTES_MAX: u64 = 16 << 20;

/// How many requests wait to be looked at by one tail.
pub const QUEUE_BATCHES_MAX: usize = 256;

/// Records that a tail makes a second.
pub const RECORDS_PER_SECOND_MAX: u32 = 5_000;

/// An accepted request as it is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    batches: Arc<[(Table, RecordBatch)]>,
    rows: u64,
    bytes: u64,
}

impl Shown {
    /// Shares the rows of a request.
    fn of(rows: &Rows) -> Shown {
        let bytes = rows.batches.iter().map(|(_, batch)| batch_bytes(batch));
        Shown {
            bytes: bytes.sum(),
            rows: rows.rows(),
            batches: rows.batches.as_slice().into(),
        }
    }
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub struct Tails {
    open: AtomicUsize,
    skipped: AtomicU64,
    queues: Mutex<Vec<Arc<Queue>>>,
}

/// What one tail has not looked at yet.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Shown>,
    bytes: AtomicU64,
    /// Records that it was not shown, and has not been told of.
    skipped: AtomicU64,
}

/// There are [`TAILS_MAX`] tails already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {TAILS_MAX} tails already, and no more are served")]
pub struct TooMany;

impl Tails {
    /// A request's rows, to be offered once they are accepted; `None` while nobody watches.
    #[must_use]
    pub fn show(&self, rows: &Rows) -> Option<Shown> {
        (self.open.load(Ordering::Relaxed) > 0).then(|| Shown::of(rows))
    }

    /// Shows an accepted request to everybody who has room for it. Never waits.
    pub fn offer(&self, shown: &Shown) {
        for queue in self.lock().iter() {
            if !queue.offer(shown) {
                queue.skip(shown.rows);
                self.skipped.fetch_add(shown.rows, Ordering::Relaxed);
            }
        }
    }

    /// How many watch.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Records that tails were not shown, since the start.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Begins to watch.
    fn watch(self: &Arc<Self>) -> Result<Watch, TooMany> {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        let queue = Arc::new(Queue {
            sender,
            bytes: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        });
        let mut queues = self.lock();
        if queues.len() >= TAILS_MAX {
            return Err(TooMany);
        }
        queues.push(Arc::clone(&queue));
        self.open.store(queues.len(), Ordering::Relaxed);
        Ok(Watch {
            tails: Arc::clone(self),
            queue,
            receiver,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        // Only whole queues are put in and taken out.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Puts a request in, if there is room.
    fn offer(&self, shown: &Shown) -> bool {
        // Whoever offers holds the lock of all queues, and taking out only makes room.
        if self.bytes.load(Ordering::Relaxed) + shown.bytes > QUEUE_BYTES_MAX {
            return false;
        }
        self.bytes.fetch_add(shown.bytes, Ordering::Relaxed);
        let is_taken = self.sender.try_send(shown.clone()).is_ok();
        if !is_taken {
            self.bytes.fetch_sub(shown.bytes, Ordering::Relaxed);
        }
        is_taken
    }

    fn skip(&self, records: u64) {
        self.skipped.fetch_add(records, Ordering::Relaxed);
    }
}

/// One who watches; dropped, it does no more.
#[derive(Debug)]
struct Watch {
    tails: Arc<Tails>,
    queue: Arc<Queue>,
    receiver: mpsc::Receiver<Shown>,
}

impl Watch {
    /// The next request. It counts as waiting until it is dropped.
    async fn next(&mut self) -> Option<Taken> {
        let shown = self.receiver.recv().await?;
        Some(Taken {
            shown,
            queue: Arc::clone(&self.queue),
        })
    }

    /// Takes note of records that it will not show.
    fn skip(&self, records: u64) {
        self.queue.skip(records);
        self.tails.skipped.fetch_add(records, Ordering::Relaxed);
    }

    /// Records that it has not shown since it was last asked.
    fn take_skipped(&self) -> u64 {
        self.queue.skipped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut queues = self.tails.lock();
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.tails.open.store(queues.len(), Ordering::Relaxed);
    }
}

/// A request that a tail looks at.
#[derive(Debug)]
struct Taken {
    shown: Shown,
    queue: Arc<Queue>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.queue
            .bytes
            .fetch_sub(self.shown.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Encoding, decode};
    use crate::memory::Budget;
    use crate::signal::Signal;

    /// A request with so many records, each with a body of so many bytes.
    pub(super) fn rows(records: usize, body_bytes: usize) -> Rows {
        let record = serde_json::json!({"timeUnixNano": "5", "body": {"stringValue": "x".repeat(body_bytes)}});
        let resource = serde_json::json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
        let body = serde_json::json!({"resourceLogs": [{
            "resource": resource, "scopeLogs": [{"logRecords": vec![record; records]}],
        }]});
        let body = bytes::Bytes::from(body.to_string());
        let budget = Budget::new(1 << 30);
        decode(Signal::Logs, Encoding::Json, &body, 1, budget.empty()).unwrap()
    }

    /// Scenario: nobody watches; then a tail does and takes nothing; it takes some, and goes.
    /// Guarantees: nothing is shared while nobody watches; a queue takes what its bounds say and no more, all else is counted as
    /// skipped; what was taken makes room once it is dropped; who goes is not offered to any more.
    #[tokio::test]
    async fn a_queue_that_is_full_passes_requests_by() {
        let tails = Arc::new(Tails::default());
        let small = rows(2, 10);
        assert!(tails.show(&small).is_none());
        let mut watch = tails.watch().unwrap();
        let shown = tails.show(&small).unwrap();
        for _ in 0..QUEUE_BATCHES_MAX + 3 {
            tails.offer(&shown);
        }
        assert_eq!((tails.skipped(), watch.take_skipped()), (6, 6));
        assert_eq!(watch.take_skipped(), 0);
        for _ in 0..QUEUE_BATCHES_MAX {
            assert_eq!(watch.next().await.unwrap().shown.rows, 2);
        }

        let large = tails.show(&rows(1, 5 << 20)).unwrap();
        for _ in 0..4 {
            tails.offer(&large);
        }
        assert_eq!(watch.take_skipped(), 1);
        let taken = watch.next().await.unwrap();
        tails.offer(&large);
        assert_eq!(watch.take_skipped(), 1);
        drop(taken);
        tails.offer(&large);
        assert_eq!(watch.take_skipped(), 0);
        let too_large = tails.show(&rows(1, 17 << 20)).unwrap();
        tails.offer(&too_large);
        assert_eq!(watch.take_skipped(), 1);

        let skipped = tails.skipped();
        drop(watch);
        assert!(tails.show(&small).is_none());
        tails.offer(&too_large);
        assert_eq!((tails.open(), tails.skipped()), (0, skipped));
    }

    /// Scenario: more tails than are served, one of which goes.
    /// Guarantees: those beyond the bound are refused; a place that was given back is given again.
    #[test]
    fn tails_are_bounded() {
        let tails = Arc::new(Tails::default());
        let mut open: Vec<Watch> = (0..TAILS_MAX).map(|_| tails.watch().unwrap()).collect();
        assert!(tails.watch().is_err());
        open.pop();
        assert!(tails.watch().is_ok());
    }
}
