//! How long something took, counted in buckets: one relaxed add in a bucket and one to the sum each time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets, microseconds, from a sync of a good disk to a publish of a bad day. One more takes what is longer.
pub const BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Buckets with the one that has no end.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Counts durations from any thread.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// What a [`Latency`] has counted by some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// How many ended in each bucket alone, the last without an end.
    pub buckets: [u64; BUCKETS],
    /// All of them together, nanoseconds.
    pub sum_ns: u64,
}

impl Latency {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let us = took.as_nanos().div_ceil(1000);
        let place = BOUNDS_US.partition_point(|bound| u128::from(*bound) < us);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn so_far(&self) -> Latencies {
        let mut so_far = Latencies {
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
            ..Latencies::default()
        };
        for (count, bucket) in so_far.buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        so_far
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.so_far().count()
    }
}

impl Latencies {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: durations at, just below and just above the ends of buckets, none at all, and one of hours.
    /// Guarantees: each is in the first bucket whose end it does not exceed; all are in count and sum.
    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_fits() {
        let latency = Latency::default();
        let hours = Duration::from_secs(7200);
        let durations = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(99_999), 0),
            (Duration::from_micros(100), 0),
            (Duration::from_nanos(100_001), 1),
            (Duration::from_millis(1), 3),
            (Duration::from_secs(60), BUCKETS - 2),
            (hours, BUCKETS - 1),
        ];
        for (count, (took, place)) in durations.into_iter().enumerate() {
            let before = latency.so_far();
            latency.observe(took);
            let after = latency.so_far();
            assert_eq!(after.buckets[place], before.buckets[place] + 1, "{took:?}");
            assert_eq!(after.count(), count as u64 + 1);
        }
        let sum: Duration = durations.iter().map(|(took, _)| *took).sum();
        assert_eq!(u128::from(latency.so_far().sum_ns), sum.as_nanos());
    }
}
