//! One stream: batches in, one status each out.
//!
//! ```text
//! messages -> inflate -> headers -> decode -> keep (several at a time) -> status
//! ```
//! Batches are decoded one after the other, as their dictionaries ask for; they are kept beside each other, and a status is
//! given as soon as its batch is durable, in whatever order.
//!
//! | what happens | the batch's status | the stream |
//! |---|---|---|
//! | the batch is kept, or a retry of one that is | OK | goes on |
//! | its content is wrong | INVALID_ARGUMENT | goes on |
//! | no room in memory or on disk, or the server stops | UNAVAILABLE | goes on |
//! | it is too large, or nothing behind it can be understood | INVALID_ARGUMENT | ends with INVALID_ARGUMENT |
//! | no memory for the dictionaries it brings | UNAVAILABLE | ends with UNAVAILABLE |
//! | no memory for its bytes | | the same |
//! | it holds much while a batch of it finds no room in memory | UNAVAILABLE | the same |
//! | it holds much while memory is short, and its client is idle | | the same |
//! | a token is missing or wrong | UNAUTHENTICATED | ends with UNAUTHENTICATED |
//! | the client closes its side | | ends with OK once every batch has its status |
//! | the server stops | | the same with UNAVAILABLE: batches without a status are to be sent again |
//!
//! The Go exporter drops what gets RESOURCE_EXHAUSTED, so that is never said. A bad batch is told before the stream ends: else
//! it would be sent again on the next one, for ever.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};

use super::idle::{SPARED_BYTES, until_it_must_end};
use super::messages::{Framed, MEMORY_WAIT_MAX, Messages, Next, reserve};
use crate::decode::otap::message::{leading_batch_id, parse};
use crate::decode::otap::{OtapError, StreamDecoder, Walked};
use crate::proto::arrow::{BatchArrowRecords, BatchStatus, StatusCode};
use crate::receive::auth::Gate;
use crate::receive::intake::{Intake, received_unix_nano};
use crate::receive::refusal::Refusal;
use crate::receive::retries::Delivery;
use crate::rows::Rows;
use crate::signal::{Protocol, Signal};
use crate::telemetry::{Client, Reason};

/// Batches of one stream that are decoded and wait to be durable; then the stream is not read. Producers have 64 at most.
const IN_FLIGHT_MAX: usize = 64;

/// Batches up to this weight are decoded where they arrive, within about a millisecond; heavier ones would hold up the other
/// streams of the thread. Handing all over took 1.33 instead of 1.24 CPU seconds a million logs received.
const INLINE_WEIGHT_MAX: u64 = 1 << 20;

/// What a batch and its rows take of memory, about, for each byte of its weight.
const ROOM_PER_WEIGHT: u64 = 4;

/// A status to be written. Dropped before, its batch is remembered.
pub(super) struct Answer {
    pub(super) status: BatchStatus,
    pub(super) delivery: Option<Delivery>,
}

/// What all streams share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) intake: Arc<Intake>,
    pub(super) gate: Gate,
    /// Whose batch is decoded while memory is short.
    pub(super) turns: Arc<Mutex<()>>,
    /// Turns true when the server stops.
    pub(super) stop: watch::Receiver<bool>,
}

/// One open stream.
pub(super) struct Stream {
    shared: Shared,
    signal: Signal,
    client: Client,
    messages: Messages,
    /// There but while it is decoding.
    decoder: Option<Box<StreamDecoder>>,
    /// Whether each batch has to carry a token.
    wants_token: bool,
    in_flight: JoinSet<Answer>,
    /// Which batch each task of those is for.
    batch_ids: HashMap<Id, i64>,
    /// There once nothing more is read: how the stream ends.
    end: Option<Result<(), Refusal>>,
}

impl Stream {
    pub(super) fn new(
        shared: &Shared,
        signal: Signal,
        client: Client,
        messages: Messages,
        wants_token: bool,
    ) -> Stream {
        Stream {
            shared: shared.clone(),
            signal,
            client,
            messages,
            decoder: Some(Box::new(StreamDecoder::new(signal, &shared.intake.budget))),
            wants_token,
            in_flight: JoinSet::new(),
            batch_ids: HashMap::new(),
            end: None,
        }
    }

    /// The next status; none when the stream is over.
    ///
    /// # Errors
    /// [`Refusal`] when the stream is over, and not because the client is done.
    pub(super) async fn next(&mut self) -> Result<Option<Answer>, Refusal> {
        loop {
            if self.end.is_some() {
                return match self.in_flight.join_next_with_id().await {
                    Some(done) => Ok(Some(self.answer(done))),
                    None => self.end.take().unwrap_or(Ok(())).map(|()| None),
                };
            }
            let is_full = self.in_flight.len() >= IN_FLIGHT_MAX;
            let is_idle = self.in_flight.is_empty();
            let held_bytes = self.held_bytes();
            let mut stop = self.shared.stop.clone();
            let next = tokio::select! {
                biased;
                Some(done) = self.in_flight.join_next_with_id() => return Ok(Some(self.answer(done))),
                _ = stop.wait_for(|stop| *stop) => Err(stopping()),
                next = read(&self.shared, &mut self.messages), if !is_full => next,
                refusal = until_it_must_end(&self.shared.intake.budget, held_bytes), if is_idle => Err(refusal),
            };
            match next {
                Ok(Next::Message(framed)) => {
                    if let Some(answer) = self.take(framed).await {
                        return Ok(Some(answer));
                    }
                }
                Ok(Next::TooLarge(framed)) => {
                    let refusal = Refusal::body_too_large(self.shared.intake.max_body_bytes);
                    let beginning = self.messages.beginning(&framed.raw());
                    // Where it is not known whose it is, the stream's end tells it, after the statuses that are left.
                    if let Some(answer) = self.refuse_stream(leading_batch_id(&beginning), refusal)
                    {
                        return Ok(Some(answer));
                    }
                }
                Ok(Next::End) => self.end = Some(Ok(())),
                Err(refusal) => {
                    if refusal.reason != Reason::Stopping {
                        self.count(&refusal);
                    }
                    self.end = Some(Err(refusal));
                }
            }
        }
    }

    /// The status of a batch whose task has ended. One that panicked, a bug of ours, has its status too: else the batch would
    /// be sent again on the next stream, for ever.
    fn answer(&mut self, done: Result<(Id, Answer), JoinError>) -> Answer {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let batch_id = self.batch_ids.remove(&id);
        done.map_or_else(
            |_| refused(batch_id.unwrap_or_default(), &internal()),
            |(_, answer)| answer,
        )
    }

    /// Takes one message. Answers the status of a batch that is refused at once.
    async fn take(&mut self, framed: Framed) -> Option<Answer> {
        let raw = framed.raw();
        let (message, reservation) = match self.messages.inflate(framed).await {
            Ok(inflated) => inflated,
            Err(refusal) => {
                let beginning = self.messages.beginning(&raw);
                return self.refuse_stream(leading_batch_id(&beginning), refusal);
            }
        };
        drop(raw);
        let bytes = message.len();
        let batch = match parse(&message) {
            Ok(batch) => batch,
            Err(error) => return self.refuse_stream(leading_batch_id(&message), error.into()),
        };
        let batch_id = batch.batch_id;
        let decoded = self.decode(batch, bytes).await;
        drop((message, reservation));
        match decoded {
            Ok(rows) => {
                self.keep(batch_id, rows, bytes).await;
                None
            }
            // Its dictionaries are part of what is missing: a new stream begins without.
            Err(Failure::Batch(refusal))
                if refusal.reason == Reason::MemoryFull && self.held_bytes() > SPARED_BYTES =>
            {
                self.refuse_stream(Some(batch_id), refusal)
            }
            Err(Failure::Batch(refusal)) => {
                self.count(&refusal);
                Some(refused(batch_id, &refusal))
            }
            Err(Failure::Stream(refusal)) => self.refuse_stream(Some(batch_id), refusal),
        }
    }

    /// Bytes of memory that dictionaries and schemas hold.
    fn held_bytes(&self) -> u64 {
        self.decoder.as_ref().map_or(0, |it| it.held_bytes())
    }

    /// Decodes a batch, headers first.
    async fn decode(&mut self, batch: BatchArrowRecords, bytes: usize) -> Result<Rows, Failure> {
        let Some(mut decoder) = self.decoder.take() else {
            return Err(Failure::Stream(internal()));
        };
        let headers = match decoder.headers(&batch.headers) {
            Ok(headers) => headers,
            Err(error) => return Err(error.into()),
        };
        if self.wants_token {
            let check = self.shared.gate.check_token(&header_map(&headers));
            self.client.token = check.map_err(Failure::Stream)?;
            self.messages.take_up_to(self.shared.intake.max_body_bytes);
        }
        let reservation = self.shared.intake.budget.empty();
        let received = received_unix_nano();
        // A panic is a bug of ours, and ends this stream alone.
        let walked = catch_unwind(|| Walked::new(self.signal, &batch)).ok();
        let weight = walked.as_ref().map_or(0, Walked::weight);
        let _turn = wait_for_room(&self.shared, weight).await;
        let light = walked.filter(|walked| walked.weight() <= INLINE_WEIGHT_MAX);
        let done = if let Some(walked) = light {
            let work = || {
                let rows = decoder.decode_walked(walked, received, reservation);
                (decoder, rows)
            };
            catch_unwind(AssertUnwindSafe(work)).ok()
        } else {
            let work = move || {
                let rows = decoder.decode(&batch, received, reservation);
                (decoder, rows)
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        let Some((decoder, rows)) = done else {
            return Err(Failure::Stream(internal()));
        };
        self.decoder = Some(decoder);
        // Its message is still held.
        Ok(rows.map_err(|error| error.holding(bytes as u64))?)
    }

    /// Has the rows kept; their status comes when they are.
    ///
    /// Waits until they are handed on: the next batch, decoded before, would drive them out of the CPU's cache, where they are
    /// read three times on their way into the journal.
    async fn keep(&mut self, batch_id: i64, rows: Rows, bytes: usize) {
        let intake = Arc::clone(&self.shared.intake);
        let (signal, client) = (self.signal, self.client.clone());
        let (handed_on, is_handed_on) = oneshot::channel();
        let task = self.in_flight.spawn(async move {
            let accepted = intake.accept_rows(signal, rows, bytes, client, handed_on);
            match accepted.await {
                Ok(accepted) => Answer {
                    status: BatchStatus {
                        batch_id,
                        status_code: StatusCode::Ok.into(),
                        status_message: accepted.rejections.message(signal),
                    },
                    delivery: Some(accepted.delivery),
                },
                Err(refusal) => refused(batch_id, &refusal),
            }
        });
        self.batch_ids.insert(task.id(), batch_id);
        // Nothing is sent: the other end is dropped.
        let _ = is_handed_on.await;
    }

    /// Ends the stream with a refusal, which is the batch's as well if it is known which one.
    fn refuse_stream(&mut self, batch_id: Option<i64>, refusal: Refusal) -> Option<Answer> {
        self.count(&refusal);
        let answer = batch_id.map(|batch_id| refused(batch_id, &refusal));
        self.end = Some(Err(refusal));
        answer
    }

    fn count(&self, refusal: &Refusal) {
        self.shared
            .intake
            .refuse(Some(self.signal), Protocol::Otap, refusal, &self.client);
    }
}

/// Waits for memory, then reads.
async fn read(shared: &Shared, messages: &mut Messages) -> Result<Next, Refusal> {
    shared.intake.wait_for_memory(MEMORY_WAIT_MAX).await;
    messages.next().await
}

/// Waits, for a moment, until there is room for a batch of this weight and its rows: refused, it would be sent again at once.
/// While memory is short batches are decoded in turn, or all would take the same room for theirs: the turn lasts as long as
/// what is answered is kept.
async fn wait_for_room(shared: &Shared, weight: u64) -> Option<OwnedMutexGuard<()>> {
    let budget = &shared.intake.budget;
    let room = weight
        .saturating_mul(ROOM_PER_WEIGHT)
        .min(budget.limit() / 2);
    let has_room = || budget.reserve(room).is_ok();
    if has_room() && shared.turns.try_lock().is_ok() {
        return None;
    }
    let turn = Arc::clone(&shared.turns).lock_owned();
    let turn = tokio::time::timeout(MEMORY_WAIT_MAX, turn).await.ok();
    // Decoding takes what it really needs, and says what is missing.
    let _ = reserve(&mut budget.empty(), room).await;
    turn
}

/// Why a batch was not decoded.
enum Failure {
    Batch(Refusal),
    Stream(Refusal),
}

impl From<OtapError> for Failure {
    fn from(error: OtapError) -> Failure {
        match error {
            OtapError::Batch(error) => Failure::Batch(error.into()),
            OtapError::Stream(error) => Failure::Stream(error.into()),
        }
    }
}

fn refused(batch_id: i64, refusal: &Refusal) -> Answer {
    let status_code = match refusal.reason {
        _ if refusal.is_retryable() => StatusCode::Unavailable,
        Reason::Unauthenticated => StatusCode::Unauthenticated,
        Reason::Internal => StatusCode::Internal,
        _ => StatusCode::InvalidArgument,
    };
    Answer {
        status: BatchStatus {
            batch_id,
            status_code: status_code.into(),
            status_message: refusal.message.clone(),
        },
        delivery: None,
    }
}

/// The headers that a token can be in; what HTTP does not allow as a header is none of them.
fn header_map(headers: &[(Vec<u8>, Vec<u8>)]) -> HeaderMap {
    let pairs = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value)).ok()?;
        Some((name, value))
    });
    pairs.collect()
}

fn stopping() -> Refusal {
    Refusal::new(Reason::Stopping, "the server is stopping")
}

fn internal() -> Refusal {
    Refusal::new(
        Reason::Internal,
        "taking this batch failed inside otlake; this is a bug, please report it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a batch refused for every reason there is.
    /// Guarantees: what may pass is UNAVAILABLE; the rest is INVALID_ARGUMENT, but for a wrong token and our own mistakes.
    /// Nothing is RESOURCE_EXHAUSTED, which the Go exporter takes for a batch to be dropped.
    #[test]
    fn a_status_says_whether_to_send_again() {
        let code_of = |reason| {
            let answer = refused(7, &Refusal::new(reason, "why"));
            assert_eq!(answer.status.batch_id, 7);
            assert_eq!(answer.status.status_message, "why");
            answer.status.status_code()
        };
        for reason in [
            Reason::MemoryFull,
            Reason::DiskFull,
            Reason::JournalFailed,
            Reason::Stopping,
        ] {
            assert_eq!(code_of(reason), StatusCode::Unavailable);
        }
        for reason in [
            Reason::BodyTooLarge,
            Reason::RowsTooLarge,
            Reason::Malformed,
            Reason::UnsupportedCompression,
        ] {
            assert_eq!(code_of(reason), StatusCode::InvalidArgument);
        }
        let token = code_of(Reason::Unauthenticated);
        assert_eq!(token, StatusCode::Unauthenticated);
        assert_eq!(code_of(Reason::Internal), StatusCode::Internal);
    }
}
