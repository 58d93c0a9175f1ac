//! The two ends of a request that is being kept, and its answer on the way out.
//!
//! ```text
//! track -> Committer  (whoever makes the rows durable)  finish(outcome)
//!       -> Answer     (the request, waiting)            outcome().await -> Delivery -> written()
//! ```
//! hyper drops a request's future when its client goes away, and with it the answer or the delivery. Whatever is
//! dropped, and whenever: the request is remembered exactly when its rows were kept.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Retries;
use super::in_flight::Ticket;
use crate::journal::Digest;

/// Why a request was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure<E> {
    /// What the committer was finished with.
    #[error("{0}")]
    Refused(E),
    /// The committer was dropped.
    #[error("the request was given up inside otlake")]
    Abandoned,
}

/// Finished by whoever makes the rows durable, from any thread. Dropped, it counts as a failure.
#[derive(Debug)]
pub struct Committer<E> {
    /// There until the outcome is told.
    sender: Option<oneshot::Sender<Result<(), Failure<E>>>>,
    digest: Option<Digest>,
    retries: Arc<Retries>,
}

/// The request's end: waits for the outcome. Dropped, the client is gone.
#[derive(Debug)]
pub struct Answer<E> {
    receiver: oneshot::Receiver<Result<(), Failure<E>>>,
    /// There until the outcome has arrived.
    flight: Option<Flight>,
}

/// The success of a request, on its way to the client. Dropped before it was written, the request is remembered.
#[derive(Debug)]
pub struct Delivery {
    /// There until the answer is written.
    flight: Option<Flight>,
}

/// A request whose answer is on its way, until this is dropped.
#[derive(Debug)]
struct Flight {
    digest: Digest,
    ticket: Ticket,
    retries: Arc<Retries>,
}

/// A request that is on its way, and not kept yet: to be dropped once it is tracked, so that an equal one always finds it.
#[derive(Debug)]
pub struct Entered(Flight);

impl Entered {
    pub(super) fn new(retries: &Arc<Retries>, digest: Digest) -> Entered {
        Entered(Flight::new(retries, digest))
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.0.ticket
    }
}

impl Flight {
    fn new(retries: &Arc<Retries>, digest: Digest) -> Flight {
        Flight {
            digest,
            ticket: retries.in_flight.start(digest),
            retries: Arc::clone(retries),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.retries.in_flight.land(self.digest, self.ticket);
    }
}

/// Both ends of a request.
pub(super) fn pair<E>(retries: &Arc<Retries>, digest: Option<Digest>) -> (Committer<E>, Answer<E>) {
    let (sender, receiver) = oneshot::channel();
    let committer = Committer {
        sender: Some(sender),
        digest,
        retries: Arc::clone(retries),
    };
    let answer = Answer {
        receiver,
        flight: digest.map(|digest| Flight::new(retries, digest)),
    };
    (committer, answer)
}

impl<E> Committer<E> {
    /// The request's digest; none when nothing of it is to be remembered.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Tells what became of the rows.
    pub fn finish(mut self, outcome: Result<(), E>) {
        self.settle(outcome.map_err(Failure::Refused));
    }

    fn settle(&mut self, outcome: Result<(), Failure<E>>) {
        let Some(sender) = self.sender.take() else {
            return;
        };
        // The answer is gone, and has left the decision here.
        if let (Err(outcome), Some(digest)) = (sender.send(outcome), self.digest) {
            self.retries.decide(digest, outcome.is_ok());
        }
    }
}

impl<E> Drop for Committer<E> {
    fn drop(&mut self) {
        self.settle(Err(Failure::Abandoned));
    }
}

impl<E> Answer<E> {
    /// Waits for the outcome.
    ///
    /// # Errors
    /// [`Failure`]: nothing is kept then.
    pub async fn outcome(mut self) -> Result<Delivery, Failure<E>> {
        let outcome = (&mut self.receiver).await;
        // From here on the delivery answers for the digest.
        let flight = self.flight.take();
        match outcome {
            Ok(outcome) => outcome.map(|()| Delivery { flight }),
            // A committer is never dropped without a word.
            Err(_) => Err(Failure::Abandoned),
        }
    }
}

impl<E> Drop for Answer<E> {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        // Under the lock that the committer takes when it finds the channel closed: one of the two decides.
        flight.retries.give_up(flight.digest, || {
            self.receiver.close();
            self.receiver.try_recv().ok().map(|outcome| outcome.is_ok())
        });
    }
}

impl Delivery {
    /// The success of a retry, whose rows are kept already.
    pub(super) fn of_retry(retries: &Arc<Retries>, digest: Digest) -> Delivery {
        Delivery {
            flight: Some(Flight::new(retries, digest)),
        }
    }

    /// The answer is written: what happens to it from now on is the matter of its connection, which `hand_over` tells.
    /// Until then the request counts as in flight, so that a retry finds it at one or the other.
    pub fn written(mut self, hand_over: impl FnOnce(Digest)) {
        if let Some(flight) = self.flight.take() {
            hand_over(flight.digest);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.retries.undelivered(&[flight.digest]);
        }
    }
}
