//! What is counted of the queries that other DuckDBs send over quack.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why something was refused over quack: one word each, listed in docs/METRICS.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryRefusal {
    /// A session with a wrong token.
    Unauthenticated,
    /// A statement that is more than a query.
    NotPermitted,
    /// A query while the server stops.
    Stopping,
    /// A query while the lake's catalog cannot be read.
    Catalog,
}

impl QueryRefusal {
    /// Every reason.
    pub const ALL: [QueryRefusal; 4] = [
        QueryRefusal::Unauthenticated,
        QueryRefusal::NotPermitted,
        QueryRefusal::Stopping,
        QueryRefusal::Catalog,
    ];

    /// The reason in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            QueryRefusal::Unauthenticated => "unauthenticated",
            QueryRefusal::NotPermitted => "not_permitted",
            QueryRefusal::Stopping => "stopping",
            QueryRefusal::Catalog => "catalog",
        }
    }
}

/// Asks quack how many sessions are open; `None` when it cannot be asked just now.
type OpenSessions = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// What has come over quack since the start.
#[derive(Default)]
pub struct Queries {
    sessions: AtomicU64,
    run: AtomicU64,
    refused: [AtomicU64; QueryRefusal::ALL.len()],
    open: OnceLock<OpenSessions>,
}

impl Queries {
    /// Counts a session that was let in.
    pub fn let_in(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a statement that is run.
    pub fn run(&self) {
        self.run.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal.
    pub fn refuse(&self, reason: QueryRefusal) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Sessions that were let in.
    #[must_use]
    pub fn sessions_total(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Statements that were run; of those DuckDB may have found mistakes in some.
    #[must_use]
    pub fn run_total(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// How often something was refused, by reason.
    #[must_use]
    pub fn refused(&self) -> [(QueryRefusal, u64); QueryRefusal::ALL.len()] {
        let count = |reason: QueryRefusal| self.refused[reason as usize].load(Ordering::Relaxed);
        QueryRefusal::ALL.map(|reason| (reason, count(reason)))
    }

    /// Lets [`Queries::open_sessions`] ask quack from now on; the first who says so counts.
    pub fn ask_for_sessions(&self, ask: impl Fn() -> Option<u64> + Send + Sync + 'static) {
        // A second surface in one server there is none.
        let _ = self.open.set(Box::new(ask));
    }

    /// Sessions that are open now; `None` when quack cannot be asked.
    #[must_use]
    pub fn open_sessions(&self) -> Option<u64> {
        self.open.get()?()
    }
}
