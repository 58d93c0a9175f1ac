//! The running server as the admin service and the metrics see it. Nothing is counted here: each figure is asked for where
//! it is kept.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::readiness::Readiness;
use super::tail::Tails;
use crate::latency::Latencies;
use crate::memory::Budget;
use crate::seal::ledger::Ledger;
use crate::seal::queue::SealQueue;
use crate::signal::{Durability, Protocol, SealId, WriterId};
use crate::telemetry::{Counters, Queries};

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Names the data folder.
    pub writer: WriterId,
    /// When the server started, Unix milliseconds.
    pub started_unix_ms: i64,
    /// Protocol and address of each listener.
    pub listeners: Vec<(Protocol, String)>,
    /// Whether a token is asked for.
    pub token_required: bool,
    /// What protects connections: nothing, `tls` or `mtls`.
    pub transport_security: &'static str,
    /// The lake's catalog, as configured.
    pub catalog: String,
    /// The lake's data folder.
    pub data_path: String,
    /// `--max-connections`.
    pub connections_max: usize,
    /// Where other DuckDBs query, where they are let in.
    pub quack: Option<QuackIdentity>,
}

/// The surface for other DuckDBs.
#[derive(Clone, Debug)]
pub struct QuackIdentity {
    /// As bound.
    pub address: String,
    /// What the lake is called there.
    pub lake_name: String,
}

/// What the journal holds and has done, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// When requests are answered.
    pub durability: Durability,
    /// The journal's files, bytes.
    pub journal_bytes: u64,
    /// How many files those are.
    pub journal_segments: u64,
    /// Disk space for the journal and the staged files together, bytes.
    pub disk_bytes_max: u64,
    /// What can still be written on the data folder's disk, bytes; `None` when the system does not tell.
    pub disk_free_bytes: Option<u64>,
    /// Requests journaled since the start.
    pub requests: u64,
    /// Syncs that those requests shared, and how long each took.
    pub syncs: Latencies,
    /// Requests remembered now because their answer may not have reached the client.
    pub remembered: u64,
}

/// The running server.
pub struct Overview {
    /// What does not change.
    pub identity: Identity,
    /// The receiver's counters.
    pub counters: Arc<Counters>,
    /// What has come over quack.
    pub queries: Arc<Queries>,
    /// The memory budget.
    pub budget: Budget,
    /// The open buffer.
    pub queue: Arc<SealQueue>,
    /// The seals.
    pub ledger: Arc<Ledger>,
    /// Asks the journal.
    pub journal_status: Box<dyn Fn() -> JournalStatus + Send + Sync>,
    /// The probes' answer.
    pub readiness: Arc<Readiness>,
    /// Open connections.
    pub connections: Arc<AtomicUsize>,
    /// Open OTAP streams.
    pub otap_streams: Arc<AtomicUsize>,
    /// Who watches what is accepted.
    pub tails: Arc<Tails>,
}

/// What a flush has brought to the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Rows that were not in the lake before.
    pub rows: u64,
    /// The newest seal in the lake.
    pub seal: SealId,
}

/// Why not everything is in the lake; nothing is lost, and it is tried further.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The server stops, which brings everything to the lake or leaves it on disk.
    #[error("the server is stopping")]
    Stopping,
    /// The time was over first.
    #[error(
        "not everything is in the lake after {waited:?}; nothing is lost and it is tried further. {why}"
    )]
    Late {
        /// How long it was waited.
        waited: Duration,
        /// What is in the way, where that is known.
        why: String,
    },
}

impl Overview {
    /// Brings everything received so far to the lake, and waits for it.
    ///
    /// # Errors
    /// [`FlushError`] when it is not there in time.
    pub async fn flush(&self, timeout: Duration) -> Result<Flushed, FlushError> {
        let mut committed = self.ledger.watch_committed();
        let before = self.ledger.waiting_rows();
        let (through, buffered) = self.queue.cut_now();
        let arrival = committed.wait_for(|id| *id >= through);
        match tokio::time::timeout(timeout, arrival).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(FlushError::Stopping),
            Err(_) => {
                let why = self.readiness.trouble().unwrap_or_default();
                let waited = timeout;
                return Err(FlushError::Late { waited, why });
            }
        }
        let seal = *committed.borrow();
        let rows = before + buffered;
        Ok(Flushed { rows, seal })
    }
}
