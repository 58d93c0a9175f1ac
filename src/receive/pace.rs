//! How slowly a body, or a message of a stream, may come: it holds memory, and a place among the connections.
//!
//! There is no limit to the whole time, which a large body over a slow line needs, but two to its pace:
//!
//! | limit | against |
//! |---|---|
//! | nothing comes for [`PAUSE_MAX`] | who has gone, or is silent |
//! | it has fallen behind [`BYTES_PER_S_MIN`] by [`LAG_MAX`] | who sends a byte every now and then |
//!
//! What comes faster catches up, and never gets ahead: who has sent much in a moment cannot drip for hours after it. Only time
//! in which we wait for the peer counts.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The longest that nothing may come of what has begun.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What has to come, on the whole, in a second. A line on which TCP works at all carries more (a modem of 2,400 bit/s about
/// 200), and what other servers ask for is two to five times as much.
const BYTES_PER_S_MIN: u32 = 100;

/// How far it may fall behind: twice the longest pause, so that nobody is given up for a pause that is allowed.
const LAG_MAX: Duration = Duration::from_secs(60);

/// Why nothing more is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooSlow {
    /// It pauses for too long.
    #[error("nothing more comes of it")]
    Silent,
    /// It has fallen behind.
    #[error("it comes too slowly, with less than {BYTES_PER_S_MIN} bytes a second")]
    Behind,
}

/// The pace of one body or message.
#[derive(Debug)]
pub(super) struct Pace {
    /// How much longer may be waited if nothing comes.
    left: Duration,
}

impl Pace {
    /// Of something that begins.
    pub(super) fn new() -> Pace {
        Pace { left: LAG_MAX }
    }

    /// Waits for the next part. What is here already is never too late. The time counts once the part is here: dropped before,
    /// it was not waited for.
    ///
    /// # Errors
    /// [`TooSlow`] when the peer is not waited for any longer.
    pub(super) async fn next<F: Future>(&mut self, part: F) -> Result<F::Output, TooSlow> {
        let began = Instant::now();
        let (limit, why) = match self.left < PAUSE_MAX {
            true => (self.left, TooSlow::Behind),
            false => (PAUSE_MAX, TooSlow::Silent),
        };
        let part = timeout(limit, part).await.map_err(|_| why)?;
        self.left = self.left.saturating_sub(began.elapsed());
        Ok(part)
    }

    /// A part of so many bytes has come.
    pub(super) fn received(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let worth = Duration::from_secs(1) * bytes / BYTES_PER_S_MIN;
        self.left = LAG_MAX.min(self.left + worth);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// How long a peer is waited for, by the paused clock, that sends parts of so many bytes, each so long after the other.
    async fn waited(bytes: usize, pause: Duration, parts: u32) -> (Duration, Result<(), TooSlow>) {
        let began = Instant::now();
        let mut pace = Pace::new();
        for _ in 0..parts {
            if let Err(why) = pace.next(sleep(pause)).await {
                return (began.elapsed(), Err(why));
            }
            pace.received(bytes);
        }
        (began.elapsed(), Ok(()))
    }

    /// Scenario: peers that send one byte now and then, as often as you like; one that begins with a megabyte; slow ones that
    /// keep the pace, with pauses, for an hour; a silent one.
    /// Guarantees: who drips is given up in about a minute, whatever came before; who keeps the pace never is.
    #[tokio::test(start_paused = true)]
    async fn who_drips_is_given_up_and_who_is_slow_is_not() {
        let second = Duration::from_secs(1);
        for pause in [second / 20, second, 29 * second] {
            let (waited, end) = waited(1, pause, 100_000).await;
            assert_eq!(end, Err(TooSlow::Behind), "{pause:?}");
            assert!(
                (LAG_MAX..2 * LAG_MAX).contains(&waited),
                "{pause:?}: {waited:?}"
            );
        }
        let mut pace = Pace::new();
        pace.received(1 << 20);
        assert_eq!(pace.left, LAG_MAX);

        let rate = usize::try_from(BYTES_PER_S_MIN).unwrap();
        for (bytes, pause) in [(rate, 1), (29 * rate, 29), (1 << 14, 30)] {
            let pause = pause * second - Duration::from_millis(1);
            let parts = 3600 / u32::try_from(pause.as_secs() + 1).unwrap();
            assert_eq!(waited(bytes, pause, parts).await.1, Ok(()), "{pause:?}");
        }
        let (waited, end) = waited(1 << 20, 31 * second, 1).await;
        assert_eq!((waited, end), (PAUSE_MAX, Err(TooSlow::Silent)));
    }

    /// Scenario: a part is waited for in vain, and given up for something else, again and again; then it has come.
    /// Guarantees: only waiting to the end counts, and what is here is taken.
    #[tokio::test(start_paused = true)]
    async fn what_is_here_is_never_too_late() {
        let mut pace = Pace::new();
        for _ in 0..100 {
            let wait = pace.next(std::future::pending::<()>());
            assert!(timeout(PAUSE_MAX / 2, wait).await.is_err());
        }
        assert_eq!(pace.left, LAG_MAX);
        pace.left = Duration::ZERO;
        assert_eq!(pace.next(std::future::ready(7)).await, Ok(7));
        let wait = pace.next(std::future::pending::<()>());
        assert_eq!(wait.await, Err(TooSlow::Behind));
    }
}
