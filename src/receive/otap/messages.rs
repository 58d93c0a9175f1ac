//! The messages of a gRPC stream, read off the request's body one after the other.
//!
//! Bytes are reserved from the memory budget as they arrive. While it is spent nothing is read, and HTTP/2's flow control
//! holds the client back; only a wait that leads nowhere ends the stream.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;

use crate::memory::{Budget, MemoryError, Reservation};
use crate::receive::body::{self, Compression};
use crate::receive::grpc::FRAME_HEAD_BYTES;
use crate::receive::pace::Pace;
use crate::receive::refusal::Refusal;
use crate::telemetry::Reason;

/// How long a message waits for memory in its middle, or before it is read: less than the five seconds after which exporters
/// send a batch again that is still here.
pub(super) const MEMORY_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often it looks again.
const MEMORY_WAIT_STEP: Duration = Duration::from_millis(5);

/// Memory is reserved this far ahead.
const STEP_BYTES: usize = 64 << 10;

/// So much of a message that is too large is kept, to tell whose it is: one block of zstd.
const BEGINNING_BYTES_MAX: usize = 132 << 10;

/// What the body holds next.
pub(super) enum Next {
    /// A whole message, as it was sent.
    Message(Framed),
    /// A message that is longer than is taken, by its beginning. Nothing can be read behind it.
    TooLarge(Framed),
    /// The client has closed its side.
    End,
}

/// A message, or a part of one, with its compression flag.
pub(super) struct Framed {
    is_compressed: u8,
    bytes: Bytes,
    reservation: Reservation,
}

/// Reads messages. What is read of one stays here when the future that waits for the rest is dropped.
pub(super) struct Messages {
    body: Body,
    compression: Compression,
    max_bytes: usize,
    budget: Budget,
    /// Arrived, and not looked at.
    pending: Bytes,
    head: Vec<u8>,
    message: Vec<u8>,
    reservation: Reservation,
    /// That of the message which has begun. Between messages a stream may be silent for as long as it likes.
    pace: Pace,
}

impl Messages {
    /// The messages of a body; none of them larger than `max_bytes`, compressed or not.
    pub(super) fn new(
        body: Body,
        compression: Compression,
        max_bytes: usize,
        budget: &Budget,
    ) -> Messages {
        Messages {
            body,
            compression,
            max_bytes,
            budget: budget.clone(),
            pending: Bytes::new(),
            head: Vec::with_capacity(FRAME_HEAD_BYTES),
            message: Vec::new(),
            reservation: budget.empty(),
            pace: Pace::new(),
        }
    }

    /// Changes the largest message that is taken.
    pub(super) fn take_up_to(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// The next message. Can be dropped and asked again.
    ///
    /// # Errors
    /// [`Refusal`]: the body ends inside a message, or there is no memory for it. The stream is over then.
    pub(super) async fn next(&mut self) -> Result<Next, Refusal> {
        loop {
            self.take_head();
            if let Some((is_compressed, len)) = self.length() {
                let is_too_large = len > self.max_bytes;
                let wanted = match is_too_large {
                    true => len.min(BEGINNING_BYTES_MAX),
                    false => len,
                };
                self.take_message(wanted).await?;
                if self.message.len() == wanted {
                    self.head.clear();
                    let framed = Framed {
                        is_compressed,
                        bytes: Bytes::from(std::mem::take(&mut self.message)),
                        reservation: self.reservation.take(),
                    };
                    return Ok(match is_too_large {
                        true => Next::TooLarge(framed),
                        false => Next::Message(framed),
                    });
                }
            }
            let frame = if self.head.is_empty() {
                self.pace = Pace::new();
                self.body.frame().await
            } else {
                let frame = self.pace.next(self.body.frame()).await;
                frame.map_err(|why| incomplete(&format!("a message has begun, and {why}")))?
            };
            match frame {
                Some(Ok(frame)) => {
                    self.pending = frame.into_data().unwrap_or_default();
                    self.pace.received(self.pending.len());
                }
                Some(Err(error)) => return Err(incomplete(&error.to_string())),
                None if self.head.is_empty() => return Ok(Next::End),
                None => return Err(incomplete("it ends inside a message")),
            }
        }
    }

    fn take_head(&mut self) {
        let missing = FRAME_HEAD_BYTES.saturating_sub(self.head.len());
        let taken = self.pending.split_to(missing.min(self.pending.len()));
        self.head.extend_from_slice(&taken);
    }

    /// The flag and the length, once the head is whole.
    fn length(&self) -> Option<(u8, usize)> {
        let (is_compressed, length) = self.head.split_first()?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        Some((
            *is_compressed,
            usize::try_from(length).unwrap_or(usize::MAX),
        ))
    }

    /// Takes what has arrived of a message.
    async fn take_message(&mut self, wanted: usize) -> Result<(), Refusal> {
        let missing = wanted - self.message.len();
        let len = self.message.len() + missing.min(self.pending.len());
        if len as u64 > self.reservation.bytes() {
            let ahead = (len + STEP_BYTES).min(wanted.max(len));
            reserve(&mut self.reservation, ahead as u64).await?;
        }
        let taken = self.pending.split_to(len - self.message.len());
        self.message.extend_from_slice(&taken);
        Ok(())
    }

    /// Decompresses a message.
    ///
    /// # Errors
    /// [`Refusal`]: too large, no memory, or not decompressible.
    pub(super) async fn inflate(
        &mut self,
        framed: Framed,
    ) -> Result<(Bytes, Reservation), Refusal> {
        let Framed {
            is_compressed,
            bytes,
            reservation,
        } = framed;
        match (is_compressed, self.compression) {
            (0, _) => Ok((bytes, reservation)),
            (1, Compression::Identity) => Err(Refusal::new(
                Reason::Malformed,
                "the message is compressed, and grpc-encoding does not say how",
            )),
            (1, compression) => {
                body::inflate(
                    bytes,
                    reservation,
                    compression,
                    self.max_bytes,
                    &self.budget,
                )
                .await
            }
            _ => Err(Refusal::new(
                Reason::Malformed,
                "the message's compression flag is neither 0 nor 1",
            )),
        }
    }

    /// What a message's first bytes are when it is decompressed; little, or nothing where that fails.
    pub(super) fn beginning(&self, raw: &Raw) -> Bytes {
        match raw.is_compressed {
            0 => raw.bytes.clone(),
            _ => body::inflate_beginning(&raw.bytes, self.compression),
        }
    }
}

/// A message's bytes as they came.
#[derive(Clone)]
pub(super) struct Raw {
    is_compressed: u8,
    bytes: Bytes,
}

impl Framed {
    /// The same bytes, shared.
    pub(super) fn raw(&self) -> Raw {
        Raw {
            is_compressed: self.is_compressed,
            bytes: self.bytes.clone(),
        }
    }
}

/// Reserves memory, waiting for it where others have it now.
pub(super) async fn reserve(reservation: &mut Reservation, bytes: u64) -> Result<(), Refusal> {
    let until = Instant::now() + MEMORY_WAIT_MAX;
    loop {
        match reservation.grow_to(bytes) {
            Ok(()) => return Ok(()),
            Err(error @ MemoryError::NeverFits { .. }) => return Err(error.into()),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => tokio::time::sleep(MEMORY_WAIT_STEP).await,
        }
    }
}

fn incomplete(why: &str) -> Refusal {
    Refusal::new(Reason::Incomplete, format!("the stream ended early: {why}"))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_stream::iter;

    use super::*;
    use crate::receive::pace::PAUSE_MAX;

    const MAX_BYTES: usize = 1000;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
        bytes
    }

    /// The messages of a body that arrives in pieces of so many bytes.
    fn messages(body: &[u8], piece: usize, compression: Compression, budget: &Budget) -> Messages {
        let pieces: Vec<_> = body
            .chunks(piece)
            .map(|piece| {
                Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::copy_from_slice(piece)))
            })
            .collect();
        let body = Body::new(StreamBody::new(iter(pieces)).boxed_unsync());
        Messages::new(body, compression, MAX_BYTES, budget)
    }

    async fn next_message(messages: &mut Messages) -> Bytes {
        let Ok(Next::Message(framed)) = messages.next().await else {
            panic!("no message");
        };
        messages.inflate(framed).await.unwrap().0
    }

    /// Scenario: an empty message, one of the largest size and a compressed one, in pieces of every size.
    /// Guarantees: each is read whole, then the end; nothing stays reserved.
    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let largest = vec![7; MAX_BYTES];
        let compressed = zstd::encode_all(&largest[..], 1).unwrap();
        let body = [framed(0, b""), framed(0, &largest), framed(1, &compressed)].concat();
        let budget = Budget::new(1 << 20);
        for piece in 1..=body.len() {
            let mut messages = messages(&body, piece, Compression::Zstd, &budget);
            assert_eq!(next_message(&mut messages).await, "");
            assert_eq!(next_message(&mut messages).await, largest);
            assert_eq!(next_message(&mut messages).await, largest);
            assert!(matches!(messages.next().await, Ok(Next::End)));
        }
        assert_eq!(budget.reserved(), 0);
    }

    /// Scenario: a body that ends at every byte of its second message.
    /// Guarantees: the first one is read, then the stream counts as ended early, but for the end between the two.
    #[tokio::test]
    async fn an_end_inside_a_message_is_told() {
        let first = framed(0, b"first");
        let body = [first.clone(), framed(0, b"second")].concat();
        let budget = Budget::new(1 << 20);
        for end in first.len()..body.len() {
            let mut messages = messages(&body[..end], 3, Compression::Identity, &budget);
            assert_eq!(next_message(&mut messages).await, "first");
            let next = messages.next().await;
            if end == first.len() {
                assert!(matches!(next, Ok(Next::End)));
            } else {
                assert_eq!(next.err().unwrap().reason, Reason::Incomplete);
            }
        }
    }

    /// Scenario: a message longer than is taken, plain and compressed, and one that is only when it is decompressed.
    /// Guarantees: refused without being held; its beginning can still be read.
    #[tokio::test]
    async fn a_message_that_is_too_large_is_known_by_its_beginning() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        let random: Vec<u8> = (0..400_000).map(|_| random()).collect();
        let compressed = zstd::encode_all(&random[..], 1).unwrap();
        let budget = Budget::new(1 << 20);
        let barely = vec![1; MAX_BYTES + 1];
        for (flag, message) in [(0, &random), (1, &compressed), (0, &barely)] {
            let body = framed(flag, message);
            let mut messages = messages(&body, 10_000, Compression::Zstd, &budget);
            let Ok(Next::TooLarge(framed)) = messages.next().await else {
                panic!("taken");
            };
            assert!(budget.reserved() < 300_000);
            let beginning = messages.beginning(&framed.raw());
            assert!(beginning.len() >= 64);
            assert!(
                [&random, &barely]
                    .iter()
                    .any(|whole| whole.starts_with(&beginning))
            );
        }
        let zeros = zstd::encode_all(&[0; MAX_BYTES + 1][..], 1).unwrap();
        let mut messages = messages(&framed(1, &zeros), 10, Compression::Zstd, &budget);
        let Ok(Next::Message(framed)) = messages.next().await else {
            panic!("{} bytes are too large", zeros.len());
        };
        let raw = framed.raw();
        let refusal = messages.inflate(framed).await.err().unwrap();
        assert_eq!(refusal.reason, Reason::BodyTooLarge);
        assert_eq!(messages.beginning(&raw), vec![0; 64]);
    }

    /// Scenario: others hold all memory when a message arrives, and give it back after a while.
    /// Guarantees: the message waits and is read.
    #[tokio::test]
    async fn a_message_waits_for_memory() {
        let budget = Budget::new(100);
        let others = budget.reserve(100).unwrap();
        let mut messages = messages(&framed(0, b"message"), 100, Compression::Identity, &budget);
        let give_back = async {
            tokio::time::sleep(4 * MEMORY_WAIT_STEP).await;
            drop(others);
        };
        let (message, ()) = tokio::join!(next_message(&mut messages), give_back);
        assert_eq!(message, "message");
    }

    /// Scenario: messages with a flag that does not exist, and compressed without a word how.
    /// Guarantees: refused as malformed.
    #[tokio::test]
    async fn a_flag_that_says_nothing_is_refused() {
        let budget = Budget::new(1 << 20);
        for flag in [1, 2] {
            let mut messages = messages(&framed(flag, b"x"), 10, Compression::Identity, &budget);
            let Ok(Next::Message(framed)) = messages.next().await else {
                panic!("no message");
            };
            let refusal = messages.inflate(framed).await.err().unwrap();
            assert_eq!(refusal.reason, Reason::Malformed);
        }
    }

    /// Scenario: a client is silent for a day between two messages, and then in the midst of one.
    /// Guarantees: the first is no matter; the second ends the stream, and gives the memory back.
    #[tokio::test(start_paused = true)]
    async fn who_stops_within_a_message_is_not_waited_for() {
        let day = Duration::from_secs(86_400);
        let pieces = [
            (Duration::ZERO, framed(0, b"first")),
            (day, vec![0, 0, 0, 1, 0, 7]),
        ];
        let later = tokio_stream::StreamExt::then(iter(pieces), |(pause, bytes)| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(bytes)))
        });
        let then_nothing = tokio_stream::StreamExt::chain(later, tokio_stream::pending());
        let body = Body::new(StreamBody::new(then_nothing).boxed_unsync());
        let budget = Budget::new(1 << 20);
        let mut messages = Messages::new(body, Compression::Identity, MAX_BYTES, &budget);
        let begun = tokio::time::Instant::now();
        assert_eq!(next_message(&mut messages).await, "first");
        let refusal = messages.next().await.err().unwrap();
        assert_eq!(refusal.reason, Reason::Incomplete);
        assert!((day..day + 2 * PAUSE_MAX).contains(&begun.elapsed()));
        drop(messages);
        assert_eq!(budget.reserved(), 0);
    }
}
