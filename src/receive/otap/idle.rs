//! Streams whose clients are idle, when memory is short.
//!
//! A stream may be silent for as long as it likes, and keeps its dictionaries meanwhile: its client goes on where it was. But
//! these bytes are of the budget that all share, and nothing else makes room of them. So while that is nearly spent, a stream
//! ends that holds much and of which nothing has come for a while; its client begins a new one when it has something to send.

use std::time::Duration;

use bytesize::ByteSize;

use crate::memory::Budget;
use crate::receive::refusal::Refusal;
use crate::telemetry::Reason;

/// How long no whole message may come while memory is short. Exporters that are at work send one every few seconds.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How often it looks then whether memory is short.
const LOOK_STEP: Duration = Duration::from_secs(1);

/// A stream that holds no more than this is left alone, bytes: ending it makes no room, and its client much work.
pub(super) const SPARED_BYTES: u64 = 1 << 20;

/// Waits until a stream that waits for its next message, and holds `held_bytes` of the budget, has to end; answers why.
/// Dropped when something happens on the stream, and begun anew.
pub(super) async fn until_it_must_end(budget: &Budget, held_bytes: u64) -> Refusal {
    if held_bytes <= SPARED_BYTES {
        return std::future::pending().await;
    }
    tokio::time::sleep(IDLE_MAX).await;
    while !budget.is_nearly_spent() {
        tokio::time::sleep(LOOK_STEP).await;
    }
    Refusal::new(
        Reason::MemoryFull,
        format!(
            "memory is short, and this stream held {} of it for {} s without a batch; open a new stream",
            ByteSize(held_bytes),
            IDLE_MAX.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const LIMIT: u64 = 80 << 20;
    const DAY: Duration = Duration::from_secs(86_400);

    /// Scenario: an idle stream holds much; for a day there is memory, then others take it.
    /// Guarantees: it stays as long as there is memory, and ends soon after there is not, to be tried again, in words that say
    /// what to do.
    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_ends_when_memory_is_short() {
        let budget = Budget::new(LIMIT);
        let mut others = budget.reserve(LIMIT / 8 * 7).unwrap();
        let mut end = Box::pin(until_it_must_end(&budget, SPARED_BYTES + 1));
        assert!(timeout(DAY, &mut end).await.is_err());
        others.grow_to(LIMIT / 8 * 7 + 1).unwrap();
        let short = Instant::now();
        let refusal = end.await;
        assert!(short.elapsed() <= LOOK_STEP);
        assert!(refusal.is_retryable());
        assert!(
            refusal.message.contains("open a new stream"),
            "{}",
            refusal.message
        );
    }

    /// Scenario: memory is short from the beginning; a stream holds much, and others hold little.
    /// Guarantees: the first has its time, and not much more; the others are never ended.
    #[tokio::test(start_paused = true)]
    async fn who_is_not_idle_yet_or_holds_little_stays() {
        let budget = Budget::new(LIMIT);
        let _others = budget.reserve(LIMIT).unwrap();
        let begun = Instant::now();
        until_it_must_end(&budget, SPARED_BYTES + 1).await;
        assert!((IDLE_MAX..IDLE_MAX + LOOK_STEP).contains(&begun.elapsed()));
        for held_bytes in [0, SPARED_BYTES] {
            let end = until_it_must_end(&budget, held_bytes);
            assert!(timeout(DAY, end).await.is_err());
        }
    }
}
