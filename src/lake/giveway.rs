//! Giving way: a merge is broken off when a seal comes to be published, or when the server stops.
//!
//! A merge of large files takes seconds, and nobody should wait for it. But under a load that never pauses no merge would
//! ever end, and the lake would fill with small files. So a seal that finds a merge running waits as long as the merge's
//! patience says: a moment at first, which small merges need to end, then longer each time that merging was broken off,
//! until one gets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use duckdb::InterruptHandle;

use super::queue::PublishQueue;

/// How long a seal waits for a merge at first: many end within it.
const PATIENCE_MIN: Duration = Duration::from_millis(50);

/// How long it waits after a merge was broken off once; doubled each further time.
const PATIENCE_GROWN: Duration = Duration::from_secs(1);

/// How long a seal waits at most for a merge, after it was broken off again and again.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// An interrupt that comes before its statement begins is lost, so it is repeated until the statement has ended.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(10);

/// How long seals wait for a merge that is running when they come.
#[derive(Debug)]
pub(super) struct Patience {
    current: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            current: PATIENCE_MIN,
        }
    }
}

impl Patience {
    /// A merge was broken off.
    pub(super) fn grow(&mut self) {
        self.current = (self.current * 2).clamp(PATIENCE_GROWN, PATIENCE_MAX);
    }

    /// A merge got through.
    pub(super) fn reset(&mut self) {
        self.current = PATIENCE_MIN;
    }
}

/// Does `work` on the connection that `handle` interrupts, and interrupts it when `queue` needs the publisher;
/// `before_interrupt` runs first.
pub(super) fn while_nothing_waits<T>(
    queue: &PublishQueue,
    handle: &Arc<InterruptHandle>,
    patience: &Patience,
    before_interrupt: impl Fn() + Sync,
    work: impl FnOnce() -> T,
) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = || {
            if queue.wait_until_needed(&over, patience.current) {
                while !over.load(Ordering::Relaxed) {
                    before_interrupt();
                    handle.interrupt();
                    thread::sleep(INTERRUPT_PAUSE);
                }
            }
        };
        let watching = thread::Builder::new()
            .name("otlake-giveway".to_owned())
            .spawn_scoped(scope, watch);
        if let Err(error) = watching {
            // Without the watch the merge is merely not broken off.
            tracing::debug!(%error, "no thread to watch a merge");
        }
        let done = work();
        over.store(true, Ordering::Relaxed);
        queue.wake();
        done
    })
}
