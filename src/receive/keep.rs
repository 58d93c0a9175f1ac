//! Where the rows of accepted requests go, as `--durability` says.
//!
//! | durability | rows | answered |
//! |---|---|---|
//! | memory | into the seal queue | then |
//! | journal | into the journal, which hands them to the seal queue once they are synced | then |
//! | lake | the same | once the seal that they are in is committed |

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::intake::{Keep, Receipt};
use super::refusal::Refusal;
use crate::journal::{Append, Journal, JournalError, batch};
use crate::rows::Rows;
use crate::seal::queue::SealQueue;
use crate::signal::{Durability, SealId};
use crate::telemetry::Reason;

/// Rows that take more memory than this are encoded for the journal on a thread of their own.
const INLINE_ENCODE_BYTES_MAX: u64 = 256 << 10;

/// Keeps rows in memory until they are sealed.
pub struct MemoryKeep {
    /// Where they go.
    pub queue: Arc<SealQueue>,
    /// Bounds the disk that they will need.
    pub journal: Arc<Journal>,
}

impl Keep for MemoryKeep {
    fn keep(&self, rows: Rows, receipt: Receipt) {
        let room = self.journal.check_room().map_err(Refusal::from);
        if room.is_err() {
            self.queue.cut_for_room();
        }
        let pushed = room.and_then(|()| Ok(self.queue.push(rows, 0)?));
        receipt.finish(pushed.map(|_| ()));
    }
}

/// Keeps rows in the journal.
#[derive(Clone)]
pub struct JournalKeep {
    /// The journal.
    pub journal: Arc<Journal>,
    /// What is in it and in no seal yet is cut when it has no room.
    pub queue: Arc<SealQueue>,
    /// Answers wait for the commit, when there is something to watch.
    pub committed: Option<watch::Receiver<SealId>>,
}

impl JournalKeep {
    /// Rows whose requests are answered as `durability` says; `committed` tells the newest seal in the lake.
    #[must_use]
    pub fn new(
        journal: Arc<Journal>,
        queue: Arc<SealQueue>,
        durability: Durability,
        committed: watch::Receiver<SealId>,
    ) -> JournalKeep {
        let waits = durability == Durability::Lake;
        JournalKeep {
            journal,
            queue,
            committed: waits.then_some(committed),
        }
    }
}

impl Keep for JournalKeep {
    fn keep(&self, rows: Rows, receipt: Receipt) {
        let keep = self.clone();
        if rows.reservation.bytes() <= INLINE_ENCODE_BYTES_MAX {
            keep.append(rows, receipt);
        } else {
            tokio::task::spawn_blocking(move || keep.append(rows, receipt));
        }
    }
}

impl JournalKeep {
    fn append(self, rows: Rows, receipt: Receipt) {
        let encoded = match batch::encode(&rows.batches, receipt.digest()) {
            Ok(encoded) => encoded,
            Err(error) => {
                let message = format!("the rows cannot be written to the journal: {error}");
                receipt.finish(Err(Refusal::new(Reason::Internal, message)));
                return;
            }
        };
        let runtime = Handle::current();
        let JournalKeep {
            journal,
            queue,
            committed,
        } = self;
        journal.append(Append {
            rows,
            encoded,
            done: Box::new(move |outcome| match (outcome, committed) {
                (Err(error), _) => {
                    if error.is_want_of_room() {
                        queue.cut_for_room();
                    }
                    receipt.finish(Err(error.into()));
                }
                (Ok(_), None) => receipt.finish(Ok(())),
                (Ok(None), Some(_)) => receipt.finish(Err(JournalError::Closed.into())),
                (Ok(Some(seal)), Some(committed)) => {
                    runtime.spawn(finish_with_commit(receipt, seal, committed));
                }
            }),
        });
    }
}

/// Answers once the seal is in the lake.
async fn finish_with_commit(
    receipt: Receipt,
    seal: SealId,
    mut committed: watch::Receiver<SealId>,
) {
    let arrived = committed.wait_for(|id| *id >= seal).await.map(|_| ());
    // The journal has the rows, and a retry of them is known.
    receipt.finish(arrived.map_err(|_| JournalError::Closed.into()));
}
