//! Whether the server is fit to be sent to, for probes, health and `otlake status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::journal::Journal;
use crate::seal::ledger::Ledger;

/// The answer to "are you ready".
pub struct Readiness {
    ledger: Arc<Ledger>,
    journal: Arc<Journal>,
    stopping: AtomicBool,
}

impl Readiness {
    /// Ready as long as the journal can be written and the ledger sees rows reach the lake, and until the stop.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, journal: Arc<Journal>) -> Arc<Readiness> {
        Arc::new(Readiness {
            ledger,
            journal,
            stopping: AtomicBool::new(false),
        })
    }

    /// The server stops: not ready from now on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Why the server is not ready; `None` when it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("the server is stopping".to_owned());
        }
        let journal = self.journal.trouble().map(|error| error.to_string());
        journal.or_else(|| self.ledger.degraded())
    }
}
