//! What is counted by the names of tokens.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Accepted, Reason, Refused};

/// A token's name, and what it was used for since the start.
#[derive(Debug)]
pub struct TokenUse {
    name: String,
    requests: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// By reason: of those there are some twenty.
    refused: Mutex<BTreeMap<Reason, Refused>>,
}

impl TokenUse {
    pub(super) fn new(name: &str) -> TokenUse {
        TokenUse {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// What the token is called; never the token.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn accept(&self, rows: u64, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, reason: Reason, refused: Refused) {
        let mut by_reason = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = by_reason.entry(reason).or_default();
        counted.requests += refused.requests;
        counted.rows += refused.rows;
    }

    /// What was refused of it, by reason.
    #[must_use]
    pub fn refused(&self) -> Vec<(Reason, Refused)> {
        let by_reason = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        by_reason.iter().map(|entry| (*entry.0, *entry.1)).collect()
    }

    /// What was counted of it, as for a signal.
    #[must_use]
    pub fn counted(&self) -> Accepted {
        let refused = self.refused();
        Accepted {
            requests: self.requests.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            refused_requests: refused.iter().map(|(_, refused)| refused.requests).sum(),
            refused_rows: refused.iter().map(|(_, refused)| refused.rows).sum(),
            ..Accepted::default()
        }
    }
}
