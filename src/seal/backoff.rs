//! Pauses between attempts that fail: of the sealer to stage, of the publisher to publish.

use std::time::Duration;

/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Counts the failures in a row of one thing that is tried again and again.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts one more failure; answers how long to pause after it.
    pub fn next_pause(&mut self) -> Duration {
        let doubled = 1 << self.failures.min(10);
        self.failures += 1;
        PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX)
    }

    /// Failures so far.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: something fails more often than the doubling can count.
    /// Guarantees: the pauses double from the shortest, and end at the longest.
    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..40).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(&pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[8..], [10_000; 32]);
        assert_eq!(backoff.failures(), 40);
    }
}
