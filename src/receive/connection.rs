//! Connections: what each has answered of late, and whether it ended in a way that lost the answer.
//!
//! An answer that was written is in our kernel, on its way, in the peer's kernel or read. How the connection ends tells:
//!
//! | end | the answers of the last moment |
//! |---|---|
//! | the peer closes, and its kernel has acknowledged the answer | arrived: a close over unread bytes would be a reset |
//! | the peer closes, and the answer is not acknowledged | lost |
//! | the peer closes and resets, and nothing was sent after the answer | lost: the reset is for the unread answer |
//! | the peer closes and resets what was sent after the answer | as the close itself |
//! | reset, timed out or any other error | lost, or so soon after that it cannot be told |
//!
//! A further request over HTTP/1 shows that the answer before it arrived.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Version;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::retries::Retries;
use crate::journal::Digest;

/// An answer older than this has arrived when its connection breaks, or nobody waits for it any more.
const MOMENT: Duration = Duration::from_secs(1);

/// Recent answers of one connection; of more, the oldest are taken as arrived.
const RECENT_MAX: usize = 256;

/// The answers that one connection has written within the last moment.
///
/// Shared by the connection's task, which writes the bytes, and the requests' tasks, which note their answers.
#[derive(Debug)]
pub(super) struct RecentAnswers {
    retries: Arc<Retries>,
    /// Bytes that the kernel has taken.
    written: AtomicU64,
    /// Whether an answer waits to be flushed: spares nearly every flush the lock.
    is_flush_awaited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    answers: VecDeque<Recent>,
    /// The connection has ended, one way or the other.
    has_ended: bool,
    /// A connection that we closed first: kept for a moment to see how it ends.
    lingering: Option<TcpStream>,
}

#[derive(Debug)]
struct Recent {
    digest: Digest,
    noted: Instant,
    place: Place,
}

/// Where an answer ends among the bytes written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Somewhere after so many: it is not flushed yet.
    After(u64),
    /// At or before so many.
    Until(u64),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer closed it.
    Closed(Close),
    /// It broke.
    Broken,
}

/// What is known when the peer has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Close {
    /// Bytes written.
    written: u64,
    /// As many of them as the peer's kernel has acknowledged.
    acknowledged: u64,
    /// A reset came after the close.
    is_reset: bool,
}

impl RecentAnswers {
    pub(super) fn new(retries: &Arc<Retries>) -> Arc<RecentAnswers> {
        Arc::new(RecentAnswers {
            retries: Arc::clone(retries),
            written: AtomicU64::new(0),
            is_flush_awaited: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// A request has arrived.
    pub(super) fn request_arrived(&self, version: Version) {
        if version < Version::HTTP_2 {
            self.lock().answers.clear();
        }
    }

    /// A request's answer is being written.
    pub(super) fn note(&self, digest: Digest) {
        let noted = Instant::now();
        let place = Place::After(self.written.load(Ordering::Acquire));
        let mut state = self.lock();
        if state.has_ended {
            drop(state);
            self.retries.undelivered(&[digest]);
            return;
        }
        while let Some(oldest) = state.answers.front()
            && (state.answers.len() >= RECENT_MAX || noted - oldest.noted > MOMENT)
        {
            state.answers.pop_front();
        }
        state.answers.push_back(Recent {
            digest,
            noted,
            place,
        });
        self.is_flush_awaited.store(true, Ordering::Release);
    }

    fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Release);
    }

    /// All that was to be written is written.
    fn flushed(&self) {
        if !self.is_flush_awaited.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        let written = self.written.load(Ordering::Acquire);
        let mut is_flush_awaited = false;
        for answer in &mut state.answers {
            match answer.place {
                Place::After(before) if before < written => answer.place = Place::Until(written),
                Place::After(_) => is_flush_awaited = true,
                Place::Until(_) => {}
            }
        }
        self.is_flush_awaited
            .store(is_flush_awaited, Ordering::Release);
    }

    /// The connection has ended; what is told first counts.
    fn ended(&self, end: impl FnOnce() -> End) {
        let mut state = self.lock();
        if state.has_ended {
            return;
        }
        state.has_ended = true;
        let answers = std::mem::take(&mut state.answers);
        drop(state);
        let of_late = |answer: &Recent| answer.noted.elapsed() <= MOMENT;
        if !answers.iter().any(of_late) {
            return;
        }
        let end = end();
        let lost: Vec<Digest> = answers
            .into_iter()
            .filter(of_late)
            .filter(|answer| answer.is_lost(end))
            .map(|answer| answer.digest)
            .collect();
        if !lost.is_empty() {
            tracing::debug!(answers = lost.len(), ?end, "a connection lost its answers");
            self.retries.undelivered(&lost);
        }
    }

    /// Waits, if we closed the connection first, for the peer's close: at most a moment.
    pub(super) async fn linger(&self) {
        let Some(mut stream) = self.lock().lingering.take() else {
            return;
        };
        let read_on = async {
            // The peer closes when it sees our end of the stream.
            let _ = stream.shutdown().await;
            let mut unread = [0; 1024];
            loop {
                match stream.read(&mut unread).await {
                    Ok(0) => return self.ended(|| self.closed(&stream, true, false)),
                    Ok(_) => {}
                    Err(error) => return self.ended(|| self.failed(&stream, true, &error)),
                }
            }
        };
        // When the moment is over, nothing has broken within it.
        let _ = tokio::time::timeout(MOMENT, read_on).await;
        let written = self.written.load(Ordering::Acquire);
        let arrived = Close {
            written,
            acknowledged: written,
            is_reset: false,
        };
        self.ended(|| End::Closed(arrived));
    }

    /// The end of a connection that the peer has closed. `has_finished` if we have, too.
    fn closed(&self, stream: &TcpStream, has_finished: bool, is_reset: bool) -> End {
        let written = self.written.load(Ordering::Acquire);
        // The end of the stream counts as one byte.
        let end = u64::from(has_finished);
        let outstanding = unacknowledged(stream).map_or(0, |bytes| bytes.saturating_sub(end));
        End::Closed(Close {
            written,
            acknowledged: written.saturating_sub(outstanding),
            is_reset: is_reset || !matches!(stream.take_error(), Ok(None)),
        })
    }

    fn failed(&self, stream: &TcpStream, has_finished: bool, error: &io::Error) -> End {
        // So a reset is told once the peer has closed: the close says more.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return self.closed(stream, has_finished, true);
        }
        End::Broken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn is_lost(&self, end: End) -> bool {
        match (end, self.place) {
            (End::Broken, _) | (End::Closed(_), Place::After(_)) => true,
            (End::Closed(close), Place::Until(place)) => {
                close.acknowledged < place || (close.is_reset && close.written == place)
            }
        }
    }
}

/// A connection's stream, which notices how it ends.
pub(super) struct WatchedStream {
    /// There until it is dropped.
    stream: Option<TcpStream>,
    has_finished: bool,
    recent: Arc<RecentAnswers>,
}

impl WatchedStream {
    pub(super) fn new(stream: TcpStream, recent: &Arc<RecentAnswers>) -> WatchedStream {
        WatchedStream {
            stream: Some(stream),
            has_finished: false,
            recent: Arc::clone(recent),
        }
    }

    /// Does something with the stream; an error ends the connection.
    fn poll<T>(
        &mut self,
        work: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let done = work(Pin::new(stream));
        if let Poll::Ready(Err(error)) = &done {
            let end = || self.recent.failed(stream, self.has_finished, error);
            self.recent.ended(end);
        }
        done
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let has_room = buffer.remaining() > 0;
        let done = self.poll(|stream| stream.poll_read(context, buffer));
        let is_end = has_room && buffer.filled().len() == before;
        if let (Poll::Ready(Ok(())), true, Some(stream)) = (&done, is_end, &self.stream) {
            let end = || self.recent.closed(stream, self.has_finished, false);
            self.recent.ended(end);
        }
        done
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = self.poll(|stream| stream.poll_write(context, bytes));
        if let Poll::Ready(Ok(written)) = &done {
            self.recent.wrote(*written);
        }
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = self.poll(|stream| stream.poll_write_vectored(context, bytes));
        if let Poll::Ready(Ok(written)) = &done {
            self.recent.wrote(*written);
        }
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.recent.flushed();
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_finished = true;
        self.poll(|stream| stream.poll_shutdown(context))
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        let mut state = self.recent.lock();
        if state.answers.is_empty() {
            state.has_ended = true;
        } else if !state.has_ended {
            state.lingering = self.stream.take();
        }
    }
}

/// Bytes that were written and that the peer's kernel has not acknowledged, our end of the stream among them. It is
/// still known when the connection has been reset. None where the system does not tell.
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
))]
fn unacknowledged(stream: &TcpStream) -> Option<u64> {
    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `SIOCOUTQ` of these architectures, tcp(7).
    const OUTQ: Opcode = 0x5411;
    // SAFETY: on the architectures above `OUTQ` is SIOCOUTQ, which on a TCP socket, as `stream` is, writes one C int to
    // its argument and does nothing else. `Getter` passes a pointer to room for exactly that.
    #[allow(unsafe_code)]
    let bytes = unsafe { ioctl(stream, Getter::<OUTQ, i32>::new()) };
    bytes.ok().and_then(|bytes| u64::try_from(bytes).ok())
}

/// Here the system does not tell.
#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
)))]
fn unacknowledged(_: &TcpStream) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent() -> (Arc<Retries>, Arc<RecentAnswers>) {
        let retries = Retries::new(Duration::from_secs(60), 7, Box::new(|_| {}));
        let recent = RecentAnswers::new(&retries);
        (retries, recent)
    }

    fn digest(number: usize) -> Digest {
        Digest(number as u128)
    }

    fn close(written: u64, acknowledged: u64, is_reset: bool) -> End {
        End::Closed(Close {
            written,
            acknowledged,
            is_reset,
        })
    }

    /// Scenario: an answer that ends at byte 100 or is not flushed yet, and every end of its connection.
    /// Guarantees: as the module's table says.
    #[test]
    fn the_end_tells_whether_an_answer_is_lost() {
        let is_lost = |place, end| {
            let recent = Recent {
                digest: digest(1),
                noted: Instant::now(),
                place,
            };
            recent.is_lost(end)
        };
        let flushed = Place::Until(100);
        assert!(!is_lost(flushed, close(100, 100, false)));
        assert!(is_lost(flushed, close(100, 99, false)));
        assert!(is_lost(flushed, close(100, 100, true)));
        // Something was sent after it, such as the last words of HTTP/2.
        assert!(!is_lost(flushed, close(117, 100, true)));
        assert!(!is_lost(flushed, close(117, 100, false)));
        assert!(is_lost(flushed, close(117, 99, true)));
        assert!(is_lost(flushed, End::Broken));
        for end in [close(100, 100, false), End::Broken] {
            assert!(is_lost(Place::After(100), end));
        }
    }

    /// Scenario: answers are noted, and bytes written and flushed between them; then the peer closes with some of the
    /// bytes acknowledged.
    /// Guarantees: an answer counts up to the first flush after bytes were written for it.
    #[test]
    fn an_answer_ends_where_it_was_flushed() {
        let (retries, recent) = recent();
        recent.wrote(10);
        recent.note(digest(1));
        // Nothing was written for it yet.
        recent.flushed();
        recent.wrote(20);
        recent.flushed();
        recent.note(digest(2));
        recent.wrote(20);
        recent.flushed();
        recent.note(digest(3));
        recent.ended(|| close(50, 49, false));
        let remembered: Vec<_> = retries.remembered().iter().map(|entry| entry.0).collect();
        assert_eq!(remembered, [digest(2), digest(3)]);
    }

    /// Scenario: a connection ends twice, and an answer is noted after that.
    /// Guarantees: the first end counts; an answer that comes after it is lost.
    #[test]
    fn nothing_arrives_after_the_end() {
        let (retries, recent) = recent();
        recent.note(digest(1));
        recent.wrote(1);
        recent.flushed();
        recent.ended(|| close(1, 1, false));
        recent.ended(|| End::Broken);
        assert_eq!(retries.len(), 0);
        recent.note(digest(2));
        assert_eq!(retries.remembered()[0].0, digest(2));
    }

    /// Scenario: more answers than are held, over HTTP/2 and over HTTP/1, before the connection breaks.
    /// Guarantees: the newest of them are remembered; over HTTP/1 none before the last request.
    #[test]
    fn answers_are_bounded_and_end_with_the_next_request_of_http1() {
        let (retries, recent) = recent();
        for number in 0..RECENT_MAX + 10 {
            recent.request_arrived(Version::HTTP_2);
            recent.note(digest(number));
        }
        recent.ended(|| End::Broken);
        assert_eq!(retries.len(), RECENT_MAX);
        assert_eq!(retries.remembered()[0].0, digest(10));

        let (retries, recent) = self::recent();
        for number in 0..3 {
            recent.request_arrived(Version::HTTP_11);
            recent.note(digest(number));
        }
        recent.ended(|| End::Broken);
        assert_eq!(retries.remembered().len(), 1);
        assert_eq!(retries.remembered()[0].0, digest(2));
    }

    /// Scenario: an answer is a little older than a moment when the connection breaks, another one is new.
    /// Guarantees: only the new one is remembered.
    #[test]
    fn an_answer_of_before_has_arrived() {
        let (retries, recent) = recent();
        recent.note(digest(1));
        recent.lock().answers[0].noted -= MOMENT + Duration::from_millis(1);
        // Not dropped by the next one, which comes through another door.
        let newer = Recent {
            digest: digest(2),
            noted: Instant::now(),
            place: Place::After(0),
        };
        recent.lock().answers.push_back(newer);
        recent.ended(|| End::Broken);
        assert_eq!(retries.remembered().len(), 1);
        assert_eq!(retries.remembered()[0].0, digest(2));
    }
}
