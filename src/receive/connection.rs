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
//!
//! Bytes are those of the socket: under TLS the encrypted ones. There the peer may first say that it is done; a reset
//! after our own last words of TLS is then for those.

mod io;
mod opening;
mod stream;

use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::Version;
use socket2::SockRef;
use tokio::net::TcpStream;

pub(super) use self::io::Io;
pub(super) use self::opening::Opening;
pub(super) use self::stream::WatchedStream;
use super::retries::{Connection, Retries};
use crate::journal::Digest;

/// An answer older than this has arrived when its connection breaks, or nobody waits for it any more.
const MOMENT: Duration = Duration::from_secs(1);

/// Recent answers of one connection; of more, the oldest are taken as arrived.
const RECENT_MAX: usize = 256;

/// No peer says that it is done after so many bytes.
const NOT_DONE: u64 = u64::MAX;

/// The first byte of a TLS record that belongs to a handshake, RFC 8446 section 5.1; of no HTTP request.
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// The answers that one connection has written within the last moment.
///
/// Shared by the connection's task, which writes the bytes, and the requests' tasks, which note their answers.
#[derive(Debug)]
pub(super) struct RecentAnswers {
    retries: Arc<Retries>,
    /// There while the connection is.
    stream: Weak<TcpStream>,
    /// Our direction was ended.
    has_finished: AtomicBool,
    /// Bytes that the kernel has taken.
    written: AtomicU64,
    /// Bytes that had been written when the peer said, in TLS, that it was done; [`NOT_DONE`] until then.
    done_at: AtomicU64,
    /// The peer's first byte is that of a TLS handshake.
    begins_tls: AtomicBool,
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
    lingering: Option<Arc<TcpStream>>,
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
    fn new(retries: &Arc<Retries>, stream: Weak<TcpStream>) -> Arc<RecentAnswers> {
        Arc::new(RecentAnswers {
            retries: Arc::clone(retries),
            stream,
            has_finished: AtomicBool::new(false),
            written: AtomicU64::new(0),
            done_at: AtomicU64::new(NOT_DONE),
            begins_tls: AtomicBool::new(false),
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
    pub(super) fn note(self: &Arc<Self>, digest: Digest) {
        let noted = Instant::now();
        let connection: Weak<Self> = Arc::downgrade(self);
        self.retries.answered(digest, connection);
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

    /// The peer has said, in TLS, that it is done.
    fn peer_is_done(&self) {
        let written = self.written.load(Ordering::Acquire);
        let _ =
            self.done_at
                .compare_exchange(NOT_DONE, written, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether the connection's end will be asked after some answer.
    fn has_answers(&self) -> bool {
        let state = self.lock();
        !state.has_ended && !state.answers.is_empty()
    }

    /// The first bytes that the peer has sent.
    fn began(&self, bytes: &[u8]) {
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            self.begins_tls.store(true, Ordering::Release);
        }
    }

    /// Whether the peer speaks TLS.
    pub(super) fn begins_tls(&self) -> bool {
        self.begins_tls.load(Ordering::Acquire)
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

    /// The connection has ended; what is told first counts. Whoever comes second waits until it is told.
    fn ended(&self, end: impl FnOnce() -> End) {
        let mut state = self.lock();
        if state.has_ended {
            return;
        }
        state.has_ended = true;
        let answers = std::mem::take(&mut state.answers);
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
        let Some(stream) = self.lock().lingering.take() else {
            return;
        };
        let read_on = async {
            // The peer closes when it sees our end of the stream.
            let _ = self.finish(&stream);
            let mut unread = [0; 1024];
            loop {
                let read = match stream.readable().await {
                    Ok(()) => stream.try_read(&mut unread),
                    Err(error) => Err(error),
                };
                match read {
                    Ok(0) => return self.ended(|| self.closed(&stream, false)),
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return self.ended(|| self.failed(&stream, &error)),
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

    /// Ends our direction. A connection that has none any more has nothing to end.
    fn finish(&self, stream: &TcpStream) -> std::io::Result<()> {
        self.has_finished.store(true, Ordering::Release);
        SockRef::from(stream).shutdown(Shutdown::Write)
    }

    /// The end of a connection that the peer has closed.
    fn closed(&self, stream: &TcpStream, is_reset: bool) -> End {
        let written = self.written.load(Ordering::Acquire);
        // The end of the stream counts as one byte.
        let end = u64::from(self.has_finished.load(Ordering::Acquire));
        let outstanding = unacknowledged(stream).map_or(0, |bytes| bytes.saturating_sub(end));
        End::Closed(Close {
            written,
            acknowledged: written.saturating_sub(outstanding),
            is_reset: is_reset || !matches!(stream.take_error(), Ok(None)),
        })
    }

    fn failed(&self, stream: &TcpStream, error: &std::io::Error) -> End {
        let written = self.written.load(Ordering::Acquire);
        let is_after_done = self.done_at.load(Ordering::Acquire) < written;
        // So a reset is told once the peer has closed: the close says more.
        if error.kind() == std::io::ErrorKind::BrokenPipe || is_after_done {
            return self.closed(stream, true);
        }
        End::Broken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection for RecentAnswers {
    /// A reset is in the socket before anything is that the peer sent later; it need not have been read from there.
    fn look(&self) {
        let Some(stream) = self.stream.upgrade() else {
            return;
        };
        // A socket whose connection is gone has no peer.
        if stream.peer_addr().is_err() {
            self.ended(|| match stream.take_error() {
                Ok(Some(error)) => self.failed(&stream, &error),
                _ => self.closed(&stream, false),
            });
        }
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
        let recent = RecentAnswers::new(&retries, Weak::new());
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
