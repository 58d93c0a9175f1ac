//! A time limit for the first bytes of a connection.
//!
//! Which HTTP a client speaks is told by its first bytes: HTTP/2 begins with its 24-byte preface. From there on hyper has
//! limits of its own, for the head of a request and for peers that are gone; while it waits for these bytes it has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail when its peer has not said in time which HTTP it speaks.
///
/// Invariant: once that is told the stream is as it was, for as long as the connection lives.
pub(in crate::receive) struct Opening<S> {
    stream: S,
    /// Gone once it is told.
    awaited: Option<Awaited>,
}

struct Awaited {
    /// Bytes of the preface that have come.
    known: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Opening<S> {
    /// The time begins now.
    pub(in crate::receive) fn new(stream: S, limit: Duration) -> Opening<S> {
        let awaited = Awaited {
            known: 0,
            deadline: Box::pin(sleep(limit)),
        };
        Opening {
            stream,
            awaited: Some(awaited),
        }
    }
}

impl Awaited {
    /// Whether it is told by these bytes: they complete the preface, are none of it, or there are no more.
    fn is_told(&mut self, bytes: &[u8]) -> bool {
        let expected = PREFACE.get(self.known..).unwrap_or_default();
        self.known += bytes.len();
        bytes.is_empty() || bytes.len() >= expected.len() || !expected.starts_with(bytes)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Opening { stream, awaited } = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(context, buffer);
        let Some(opening) = awaited else {
            return read;
        };
        match &read {
            Poll::Pending => match opening.deadline.as_mut().poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer does not say which HTTP it speaks",
                ))),
            },
            Poll::Ready(outcome) => {
                let bytes = buffer.filled().get(before..).unwrap_or_default();
                if outcome.is_err() || opening.is_told(bytes) {
                    *awaited = None;
                }
                read
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// What reading comes to, by the paused clock, of a peer that sends these bytes and is silent then.
    async fn outcome(bytes: &[u8]) -> (usize, io::ErrorKind) {
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut stream = Opening::new(stream, LIMIT);
        let began = Instant::now();
        // A byte at a time, as the slowest peer would.
        for byte in bytes {
            peer.write_all(&[*byte]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), *byte);
        }
        let silent = tokio::time::timeout(100 * LIMIT, stream.read_u8()).await;
        match silent {
            Ok(failed) => {
                assert_eq!(began.elapsed(), LIMIT);
                (bytes.len(), failed.unwrap_err().kind())
            }
            Err(_) => (bytes.len(), io::ErrorKind::WouldBlock),
        }
    }

    /// Scenario: peers that say nothing, a part of HTTP/2's preface, all of it, or something else; and are silent then.
    /// Guarantees: reading fails in time for those from which nobody can tell what they speak; the others may be silent
    /// for as long as they like.
    #[tokio::test(start_paused = true)]
    async fn only_who_does_not_say_what_it_speaks_is_given_up() {
        for known in 0..PREFACE.len() {
            let (_, kind) = outcome(&PREFACE[..known]).await;
            assert_eq!(kind, io::ErrorKind::TimedOut, "{known}");
        }
        for told in [PREFACE, b"GET", b"PRI * HTTP/1", b"\x16"] {
            let (_, kind) = outcome(told).await;
            assert_eq!(kind, io::ErrorKind::WouldBlock, "{told:?}");
        }
    }
}
