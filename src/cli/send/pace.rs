//! `--rate`: when each request is due.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// An even flow of records from one moment on.
///
/// A request is due when all records before it should have gone, counted from the start and never from the request
/// before: a late timer delays one request and not the run. A sender that falls behind catches up as fast as the server lets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    records_per_second: NonZeroU64,
}

impl Pace {
    /// A flow that starts at `start`.
    pub(super) fn new(start: Instant, records_per_second: NonZeroU64) -> Pace {
        Pace {
            start,
            records_per_second,
        }
    }

    /// When the record that has `sent_before` records before it is due.
    pub(super) fn due(&self, sent_before: u64) -> Instant {
        self.start + after(sent_before, self.records_per_second)
    }
}

/// How long `records` take at a rate; a time too long to count is a century.
fn after(records: u64, records_per_second: NonZeroU64) -> Duration {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);
    let nanos = u128::from(records) * 1_000_000_000 / u128::from(records_per_second.get());
    u64::try_from(nanos).map_or(CENTURY, |nanos| Duration::from_nanos(nanos).min(CENTURY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(records_per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(records_per_second).unwrap()
    }

    /// Scenario: rates that do not divide a second, far into a run.
    /// Guarantees: the error stays below a nanosecond, however many requests went before.
    #[test]
    fn requests_are_due_without_drift() {
        assert_eq!(after(0, rate(7)), Duration::ZERO);
        assert_eq!(after(100, rate(1000)), Duration::from_millis(100));
        assert_eq!(after(7 * 86_400, rate(7)), Duration::from_secs(86_400));
        assert_eq!(after(1, rate(3)), Duration::from_nanos(333_333_333));
        assert_eq!(
            after(3_000_000_000, rate(3)),
            Duration::from_secs(1_000_000_000)
        );
        assert!(after(u64::MAX, rate(1)) > Duration::from_secs(1 << 30));
    }

    /// Scenario: requests of a paced run.
    /// Guarantees: each is due a batch's time after the one before, from the start on.
    #[test]
    fn due_times_count_from_the_start() {
        let start = Instant::now();
        let pace = Pace::new(start, rate(500));
        assert_eq!(pace.due(0), start);
        assert_eq!(pace.due(50) - pace.due(0), Duration::from_millis(100));
        assert_eq!(pace.due(150) - start, Duration::from_millis(300));
    }
}
