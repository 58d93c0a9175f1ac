//! An intake whose rows are counted and kept nowhere, and a runtime for it whose time passes at once.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::StreamBody;
use otlake::memory::Budget;
use otlake::receive::intake::{Intake, Keep, Receipt};
use otlake::receive::retries::Retries;
use otlake::rows::Rows;
use otlake::telemetry::Counters;
use tokio::runtime::Runtime;

/// Memory for all requests of one intake: far more than the fuzzers' inputs need.
const BUDGET_BYTES: u64 = 64 << 20;

/// Counts rows.
#[derive(Default)]
pub struct Kept(AtomicU64);

impl Keep for Kept {
    fn keep(&self, rows: Rows, receipt: Receipt) {
        self.0.fetch_add(rows.rows(), Ordering::Relaxed);
        drop(rows);
        receipt.finish(Ok(()));
    }
}

impl Kept {
    /// The rows since the last call.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// An intake that takes bodies up to this size and remembers none, and what it keeps.
pub fn intake(max_body_bytes: usize) -> (Arc<Intake>, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let intake = Intake::new(
        Budget::new(BUDGET_BYTES),
        Arc::new(Counters::default()),
        Arc::clone(&kept) as Arc<dyn Keep>,
        Retries::new(Duration::ZERO, 0, Box::new(|_| {})),
        max_body_bytes,
    );
    (intake, kept)
}

/// A body that comes in pieces of so many bytes; 0 is all at once.
pub fn pieces(body: &[u8], len: u8) -> Body {
    let len = match len {
        0 => body.len().max(1),
        len => usize::from(len),
    };
    let pieces: Vec<_> = body
        .chunks(len)
        .map(|piece| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    Body::new(StreamBody::new(tokio_stream::iter(pieces)))
}

/// Runs a future to its end. Whoever waits for nothing but time is woken at once.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap()
        });
        runtime.block_on(future)
    })
}
