//! How many requests are under way, so that a stop need not wait for connections that only stand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::sleep;

/// How often it is looked whether one is.
const LOOK_STEP: Duration = Duration::from_millis(20);

/// Counts requests, each from its head to the end of its answer.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl InFlight {
    /// Counts one more.
    pub(super) fn begin(&self) -> Request {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Request(Arc::clone(&self.0))
    }

    /// Waits until there was none for so long.
    pub(super) async fn none_for(&self, time: Duration) {
        let Counts { begun, ended } = &*self.0;
        loop {
            let before = begun.load(Ordering::Relaxed);
            if ended.load(Ordering::Relaxed) != before {
                sleep(LOOK_STEP).await;
                continue;
            }
            sleep(time).await;
            if begun.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// A request that is under way for as long as this lives.
#[derive(Debug)]
pub(super) struct Request(Arc<Counts>);

impl Request {
    /// Has it last for as long as its answer does.
    pub(super) fn until_the_end_of(self, body: Body) -> Answer {
        Answer {
            body,
            _request: self,
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer's body, with which its request ends.
pub(super) struct Answer {
    body: Body,
    _request: Request,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const MOMENT: Duration = Duration::from_secs(2);

    /// Scenario: nothing is under way; a request is, and its answer after it; another one comes within the moment.
    /// Guarantees: the wait is over a moment after the last answer's end, by the paused clock, and not before.
    #[tokio::test(start_paused = true)]
    async fn waits_for_answers_and_a_moment() {
        let in_flight = InFlight::default();
        let began = Instant::now();
        in_flight.none_for(MOMENT).await;
        assert_eq!(began.elapsed(), MOMENT);

        let answer = in_flight.begin().until_the_end_of(Body::empty());
        let mut wait = Box::pin(in_flight.none_for(MOMENT));
        assert!(timeout(100 * MOMENT, &mut wait).await.is_err());
        drop(answer);
        assert!(timeout(MOMENT / 2, &mut wait).await.is_err());
        drop(in_flight.begin());
        let began = Instant::now();
        wait.await;
        // It is seen when the first moment is over.
        assert!((MOMENT..2 * MOMENT).contains(&began.elapsed()));
    }
}
