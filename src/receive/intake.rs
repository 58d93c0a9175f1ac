//! The intake: where every protocol's requests become rows and enter the seal queue.
//!
//! ```text
//! body (admitted by bytes) -> decode -> [journal] -> seal queue -> answer
//! ```
//! The journal is to come: its append takes that place between decode and queue, and a request will be answered after it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use crate::decode::{self, DecodeError, Encoding};
use crate::memory::{Budget, Reservation};
use crate::rows::{Rejections, Rows};
use crate::seal::queue::SealQueue;
use crate::signal::{Protocol, Signal};
use crate::telemetry::{Client, Counters, Reason};

/// Bodies up to this size are decoded where they arrive; larger ones would hold up the other connections of the thread.
const INLINE_DECODE_BYTES_MAX: usize = 64 << 10;

/// How long a request waits, before its body is read, for memory that is nearly spent. Most clients do not retry, so a
/// short wait is better for them than a refusal; a long one is worse, since they send one request after the other.
const MEMORY_WAIT_MAX: Duration = Duration::from_millis(150);

/// How often a waiting request looks again.
const MEMORY_WAIT_STEP: Duration = Duration::from_millis(5);

/// A request whose body is complete and decompressed.
#[derive(Debug)]
pub struct Export {
    /// What it carries.
    pub signal: Signal,
    /// How it came.
    pub protocol: Protocol,
    /// How its body is encoded.
    pub encoding: Encoding,
    /// The body.
    pub body: Bytes,
    /// Covers the body's memory.
    pub body_reservation: Reservation,
    /// Who sent it.
    pub client: Client,
}

/// Takes requests in. One for all listeners.
pub struct Intake {
    /// The memory budget.
    pub budget: Budget,
    /// The receiver's counters.
    pub counters: Arc<Counters>,
    /// The largest body after decompression, bytes.
    pub max_body_bytes: usize,
    queue: Arc<SealQueue>,
    /// Bounds how many large bodies are decoded at once, and so what they hold beyond their reservations.
    decoders: Semaphore,
}

impl Intake {
    /// An intake that feeds `queue`.
    #[must_use]
    pub fn new(
        budget: Budget,
        counters: Arc<Counters>,
        queue: Arc<SealQueue>,
        max_body_bytes: usize,
    ) -> Arc<Intake> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Arc::new(Intake {
            budget,
            counters,
            max_body_bytes,
            queue,
            decoders: Semaphore::new(threads),
        })
    }

    /// Holds a request back for a moment while memory is nearly spent, so that what is being staged can make room.
    ///
    /// Answers in any case: if there is still no room then, the request is refused where its bytes do not fit.
    pub async fn wait_for_memory(&self) {
        // The last eighth is for requests that are inside already.
        let nearly_spent = self.budget.limit() / 8 * 7;
        let until = Instant::now() + MEMORY_WAIT_MAX;
        while self.budget.reserved() > nearly_spent && Instant::now() < until {
            tokio::time::sleep(MEMORY_WAIT_STEP).await;
        }
    }

    /// Decodes a request and keeps its rows; answers with the records that were refused alone.
    ///
    /// # Errors
    /// [`Refusal`], counted and logged; nothing of the request is kept then.
    pub async fn accept(self: &Arc<Self>, export: Export) -> Result<Rejections, Refusal> {
        let Export {
            signal,
            protocol,
            encoding,
            body,
            body_reservation,
            client,
        } = export;
        let bytes = body.len();
        let outcome = match self.decode(signal, encoding, body).await {
            Ok(Ok(rows)) => self.keep(rows),
            Ok(Err(error)) => Err(refusal(error, &body_reservation)),
            Err(refusal) => Err(refusal),
        };
        drop(body_reservation);
        match outcome {
            Ok((rows, rejections)) => {
                self.counters
                    .accept(signal, protocol, rows, bytes, &rejections, &client);
                Ok(rejections)
            }
            Err(refusal) => {
                self.refuse(Some(signal), protocol, &refusal, &client);
                Err(refusal)
            }
        }
    }

    /// Counts and logs a refusal.
    pub fn refuse(
        &self,
        signal: Option<Signal>,
        protocol: Protocol,
        refusal: &Refusal,
        client: &Client,
    ) {
        let key = (signal, protocol, refusal.reason);
        self.counters.refuse_request(key, &refusal.message, client);
    }

    async fn decode(
        self: &Arc<Self>,
        signal: Signal,
        encoding: Encoding,
        body: Bytes,
    ) -> Result<Result<Rows, DecodeError>, Refusal> {
        let received = received_unix_nano();
        let reservation = self.budget.empty();
        if body.len() <= INLINE_DECODE_BYTES_MAX {
            return Ok(decode::decode(
                signal,
                encoding,
                &body,
                received,
                reservation,
            ));
        }
        let Ok(_turn) = self.decoders.acquire().await else {
            return Err(Refusal::new(Reason::Internal, "the decoders are closed"));
        };
        let decoding = tokio::task::spawn_blocking(move || {
            decode::decode(signal, encoding, &body, received, reservation)
        });
        decoding.await.map_err(|_| {
            Refusal::new(
                Reason::Internal,
                "decoding this request failed inside otlake; this is a bug, please report it",
            )
        })
    }

    fn keep(&self, rows: Rows) -> Result<(u64, Rejections), Refusal> {
        let count = rows.rows();
        let rejections = rows.rejections.clone();
        if count > 0 {
            self.queue.push(rows, 0)?;
        }
        Ok((count, rejections))
    }
}

/// A request that could not be decoded. Its own body does not count as memory that others may give back.
fn refusal(error: DecodeError, body: &Reservation) -> Refusal {
    match error {
        DecodeError::Memory(error) => error.holding(body.bytes()).into(),
        malformed => malformed.into(),
    }
}

fn received_unix_nano() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
    })
}
