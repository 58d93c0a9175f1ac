//! What the functions ask and tell the running server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::uri::{ListenUri, Transport};
use crate::config::SealConfig;
use crate::receive::overview::Overview;

/// How long a flush waits for rows to be in the lake.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// A listener for telemetry, as bound.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// What it speaks.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// Whether inside TLS.
    pub is_tls: bool,
}

impl Listener {
    /// The URI that names it.
    #[must_use]
    pub fn uri(&self) -> ListenUri {
        ListenUri::of(self.address)
    }
}

/// The running server, for the functions.
pub struct Control {
    /// What it has received and committed.
    pub overview: Arc<Overview>,
    /// Its listeners; the first names the server in lists of its seals.
    pub listeners: Vec<Listener>,
    /// What the lake is called in SQL.
    pub lake_name: String,
    /// The schema of the lake's tables.
    pub schema: String,
    /// When the open buffer is cut.
    pub seal: SealConfig,
    /// Told when somebody asks for the stop.
    pub stop: Arc<Notify>,
    /// Turns true when the stop has begun.
    pub stopping: watch::Receiver<bool>,
    /// The rows that the stop has lost, once it is over.
    pub lost: watch::Receiver<Option<u64>>,
    /// How long a flush waits for the publisher.
    pub flush_time_max: Duration,
    /// Waits for the publisher, on DuckDB's threads.
    pub runtime: Handle,
    /// Somebody has called `otlp_stop`.
    pub stop_called: AtomicBool,
}

/// What became of a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// `sealed`, `error`, or that there is no such server.
    pub status: String,
    /// Rows that were not in the lake before.
    pub rows: u64,
    /// Seals committed since the start.
    pub seals_total: u64,
    /// Why not everything is in the lake.
    pub error: Option<String>,
}

/// What became of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Which listeners were stopped, or that there is no such server.
    pub status: String,
    /// Rows that were acknowledged and are lost.
    pub dropped_rows: u64,
}

impl Control {
    /// Brings everything received so far to the lake. Blocks until it is there, or the time is over.
    pub(super) fn flush(&self, uri: &ListenUri) -> Flushed {
        if !self.is_named(uri) {
            return Flushed {
                status: none_listens(uri),
                rows: 0,
                seals_total: 0,
                error: None,
            };
        }
        let flushed = self
            .runtime
            .block_on(self.overview.flush(self.flush_time_max));
        let (status, rows, error) = match flushed {
            Ok(flushed) => ("sealed", flushed.rows, None),
            Err(error) => ("error", 0, Some(error.to_string())),
        };
        Flushed {
            status: status.to_owned(),
            rows,
            seals_total: self.overview.ledger.snapshot().committed_seals,
            error,
        }
    }

    /// Stops the server, whichever of its listeners was named, or none. Blocks until it has stopped but for quack.
    pub(super) fn stop(&self, uri: Option<&ListenUri>) -> Stopped {
        if let Some(uri) = uri
            && !self.is_named(uri)
        {
            return Stopped {
                status: none_listens(uri),
                dropped_rows: 0,
            };
        }
        tracing::info!("asked to stop, over quack");
        self.stop_called.store(true, Ordering::Relaxed);
        self.stop.notify_one();
        let mut lost = self.lost.clone();
        let dropped_rows = self.runtime.block_on(async move {
            // It ends without an answer only where the process ends at once.
            let lost = lost.wait_for(Option::is_some).await;
            lost.ok().and_then(|lost| *lost).unwrap_or(0)
        });
        let mut uris: Vec<String> = self
            .listeners
            .iter()
            .map(|one| one.uri().to_string())
            .collect();
        uris.sort();
        let mut status = format!("Stopped listening on {}", uris.join(", "));
        if dropped_rows > 0 {
            status.push_str(&format!("; dropped {dropped_rows} rows"));
        }
        Stopped {
            status,
            dropped_rows,
        }
    }

    /// Whether the stop has begun.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether a query waits, or has waited, for the end of the stop.
    pub(super) fn was_stopped_by_a_query(&self) -> bool {
        self.stop_called.load(Ordering::Relaxed)
    }

    fn is_named(&self, uri: &ListenUri) -> bool {
        let mut listeners = self.listeners.iter();
        listeners.any(|one| uri.names(one.address, one.transport))
    }
}

fn none_listens(uri: &ListenUri) -> String {
    format!("No server found listening on {uri}")
}
