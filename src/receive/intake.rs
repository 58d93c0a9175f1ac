//! The intake: where every protocol's requests become rows and enter the seal queue.
//!
//! ```text
//! body (admitted by bytes) -> decode -> retry? -> keep: journal, seal queue -> answer
//! ```
//! Where rows are kept is a [`Keep`]; a request is answered when it has finished the request's [`Receipt`]. Whether the
//! client is still there then makes no difference to the rows: they are kept once, and a retry of them is only answered.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::refusal::Refusal;
use super::retries::{Answer, Committer, Delivery, Entered, Failure, Retries};
use super::services::services;
use super::tail::{Shown, Tails};
use crate::decode::{self, DecodeError, Encoding};
use crate::journal::Digest;
use crate::memory::{Budget, Reservation};
use crate::rows::{Rejections, Rows};
use crate::signal::{Protocol, Signal};
use crate::telemetry::{Active, Client, Counters, Reason, Sent, Taken};

/// Bodies up to this size are decoded where they arrive, within about a millisecond; larger ones would hold up the other
/// connections of the thread, but handing one over wakes another thread and then this one again.
fn inline_decode_bytes_max(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Protobuf => 1 << 20,
        Encoding::Json | Encoding::Ndjson => 256 << 10,
    }
}

/// How long a single request waits, before its body is read, for memory that is nearly spent. Most clients do not retry, so a
/// short wait is better for them than a refusal; a long one is worse, since they send one request after the other.
pub const MEMORY_WAIT_MAX: Duration = Duration::from_millis(150);

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

/// A request that was taken in, or a retry of one.
#[derive(Debug)]
pub struct Accepted {
    /// The records of it that were refused alone.
    pub rejections: Rejections,
    /// Its success on the way to the client.
    pub delivery: Delivery,
}

/// Dropped when a batch's rows are handed on to where they are kept, or never will be.
pub type HandedOn = oneshot::Sender<()>;

/// Where the rows of accepted requests are kept.
pub trait Keep: Send + Sync {
    /// Takes the rows of one request, whole, and finishes its receipt once they are durable: now or later, from any
    /// thread. Must not block.
    fn keep(&self, rows: Rows, receipt: Receipt);
}

/// A request whose rows are to be kept: counts and tells what became of them, whether its client still waits or not.
/// Dropped unfinished, it refuses the request.
pub struct Receipt {
    /// There until it is finished.
    open: Option<OpenReceipt>,
    digest: Option<Digest>,
}

struct OpenReceipt {
    tally: Tally,
    rows: u64,
    sent: Vec<Sent>,
    rejections: Rejections,
    committer: Committer<Refusal>,
    /// The rows again, for whoever watches.
    shown: Option<Shown>,
}

impl Receipt {
    /// What the request's bytes are known by, if a retry of it is to be recognised: what the journal keeps with its
    /// rows, to [`Retries::remember`] it after a crash.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Tells what became of the rows.
    pub fn finish(mut self, outcome: Result<(), Refusal>) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Result<(), Refusal>) {
        let Some(open) = self.open.take() else {
            return;
        };
        match &outcome {
            Ok(()) => {
                open.tally.accept(&open);
                if let Some(shown) = &open.shown {
                    open.tally.tails.offer(shown);
                }
            }
            Err(refusal) => open.tally.refuse(refusal),
        }
        open.committer.finish(outcome);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle(Err(abandoned()));
    }
}

/// Counts what becomes of one request.
struct Tally {
    counters: Arc<Counters>,
    tails: Arc<Tails>,
    signal: Signal,
    protocol: Protocol,
    bytes: usize,
    client: Client,
    /// When all of it was here.
    arrived: Instant,
    _active: Active,
}

impl Tally {
    fn accept(&self, receipt: &OpenReceipt) {
        self.counters.accept(&Taken {
            signal: self.signal,
            protocol: self.protocol,
            rows: receipt.rows,
            sent: &receipt.sent,
            bytes: self.bytes,
            rejections: &receipt.rejections,
            client: &self.client,
            took: self.arrived.elapsed(),
        });
    }

    fn repeat(&self) {
        self.counters.repeat(self.signal, self.protocol);
        tracing::debug!(
            signal = self.signal.name(),
            protocol = self.protocol.name(),
            peer = self.client.peer.map(tracing::field::display),
            "a retry of a request that is kept already: answered, not stored again"
        );
    }

    fn refuse(&self, refusal: &Refusal) {
        let key = (Some(self.signal), self.protocol, refusal.reason);
        self.counters
            .refuse_request(key, &refusal.message, &self.client);
    }
}

/// Takes requests in. One for all listeners.
pub struct Intake {
    /// The memory budget.
    pub budget: Budget,
    /// The receiver's counters.
    pub counters: Arc<Counters>,
    /// The largest body after decompression, bytes.
    pub max_body_bytes: usize,
    /// Who watches what is accepted.
    pub tails: Arc<Tails>,
    keep: Arc<dyn Keep>,
    retries: Arc<Retries>,
    /// Bounds how many large bodies are decoded at once, and so what they hold beyond their reservations.
    decoders: Semaphore,
}

impl Intake {
    /// An intake whose rows go to `keep`.
    #[must_use]
    pub fn new(
        budget: Budget,
        counters: Arc<Counters>,
        keep: Arc<dyn Keep>,
        retries: Arc<Retries>,
        max_body_bytes: usize,
    ) -> Arc<Intake> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Arc::new(Intake {
            budget,
            counters,
            max_body_bytes,
            tails: Arc::default(),
            keep,
            retries,
            decoders: Semaphore::new(threads),
        })
    }

    /// Holds a request back for a moment while memory is nearly spent, so that what is being staged can make room.
    ///
    /// Answers in any case: if there is still no room then, the request is refused where its bytes do not fit.
    pub async fn wait_for_memory(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.budget.is_nearly_spent() && Instant::now() < until {
            tokio::time::sleep(MEMORY_WAIT_STEP).await;
        }
    }

    /// Decodes a request and keeps its rows; a retry of a request that is kept is only answered.
    ///
    /// Dropped while the rows are being kept, they are kept all the same, and the request is remembered.
    ///
    /// # Errors
    /// [`Refusal`], counted and logged; nothing of the request is kept then.
    pub async fn accept(self: &Arc<Self>, export: Export) -> Result<Accepted, Refusal> {
        let Export {
            signal,
            protocol,
            encoding,
            body,
            body_reservation,
            client,
        } = export;
        let tally = Tally {
            counters: Arc::clone(&self.counters),
            tails: Arc::clone(&self.tails),
            signal,
            protocol,
            bytes: body.len(),
            client,
            arrived: Instant::now(),
            _active: self.counters.handle(),
        };
        let decoded = self.decode(signal, encoding, body).await;
        let decoded = decoded
            .and_then(|decoded| decoded.map_err(|error| refusal(error, &body_reservation)))
            .inspect_err(|refusal| tally.refuse(refusal))?;
        drop(body_reservation);
        self.take_in(decoded, tally, None).await
    }

    /// Keeps the rows of one batch of a stream, which were `bytes` large on the wire after decompression; a retry of a
    /// batch that is kept is only answered. `handed_on` is dropped when there is nothing left to do with the rows but to wait.
    ///
    /// # Errors
    /// [`Refusal`], counted and logged; nothing of the batch is kept then.
    pub async fn accept_rows(
        &self,
        signal: Signal,
        rows: Rows,
        bytes: usize,
        client: Client,
        handed_on: HandedOn,
    ) -> Result<Accepted, Refusal> {
        let tally = Tally {
            counters: Arc::clone(&self.counters),
            tails: Arc::clone(&self.tails),
            signal,
            protocol: Protocol::Otap,
            bytes,
            client,
            arrived: Instant::now(),
            _active: self.counters.handle(),
        };
        let digest = self.retries.digest_rows(signal, &rows);
        let decoded = Decoded { rows, digest };
        self.take_in(decoded, tally, Some(handed_on)).await
    }

    async fn take_in(
        &self,
        decoded: Decoded,
        tally: Tally,
        handed_on: Option<HandedOn>,
    ) -> Result<Accepted, Refusal> {
        let rejections = decoded.rows.rejections.clone();
        let entered = match decoded.digest {
            None => None,
            Some(digest) => match self.retries.take(digest).await {
                Ok(delivery) => {
                    tally.repeat();
                    return Ok(Accepted {
                        rejections,
                        delivery,
                    });
                }
                Err(entered) => Some(entered),
            },
        };
        let answer = self.keep(decoded, tally, entered);
        drop(handed_on);
        let delivery = answer.outcome().await.map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal,
            Failure::Abandoned => abandoned(),
        })?;
        Ok(Accepted {
            rejections,
            delivery,
        })
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
    ) -> Result<Result<Decoded, DecodeError>, Refusal> {
        let received = received_unix_nano();
        let reservation = self.budget.empty();
        let is_small = body.len() <= inline_decode_bytes_max(encoding);
        let retries = Arc::clone(&self.retries);
        let work = move || {
            let rows = decode::decode(signal, encoding, &body, received, reservation)?;
            // Of a request without rows nothing could be stored twice.
            let digest = match rows.batches.is_empty() {
                true => None,
                false => retries.digest(signal, encoding, &body),
            };
            Ok(Decoded { rows, digest })
        };
        if is_small {
            return Ok(work());
        }
        let Ok(_turn) = self.decoders.acquire().await else {
            return Err(Refusal::new(Reason::Internal, "the decoders are closed"));
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| {
            Refusal::new(
                Reason::Internal,
                "decoding this request failed inside otlake; this is a bug, please report it",
            )
        })
    }

    /// Hands the rows on to where they are kept.
    fn keep(&self, decoded: Decoded, tally: Tally, entered: Option<Entered>) -> Answer<Refusal> {
        let Decoded { rows, digest } = decoded;
        let (committer, answer) = self.retries.track(digest);
        drop(entered);
        let (signal, protocol) = (tally.signal, tally.protocol);
        let sent = self
            .counters
            .sent(signal, protocol, &tally.client, &services(&rows));
        let receipt = Receipt {
            open: Some(OpenReceipt {
                tally,
                rows: rows.rows(),
                sent,
                rejections: rows.rejections.clone(),
                committer,
                shown: self.tails.show(&rows),
            }),
            digest,
        };
        if rows.batches.is_empty() {
            receipt.finish(Ok(()));
        } else {
            self.keep.keep(rows, receipt);
        }
        answer
    }
}

/// A request's rows, and what its bytes are known by.
struct Decoded {
    rows: Rows,
    digest: Option<Digest>,
}

/// Nobody said what became of the rows.
fn abandoned() -> Refusal {
    Refusal::new(
        Reason::Internal,
        "keeping this request failed inside otlake; this is a bug, please report it",
    )
}

/// A request that could not be decoded. Its own body does not count as memory that others may give back.
fn refusal(error: DecodeError, body: &Reservation) -> Refusal {
    error.holding(body.bytes()).into()
}

pub(super) fn received_unix_nano() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
    })
}
