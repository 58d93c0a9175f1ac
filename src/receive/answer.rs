//! The answer to an accepted request, until hyper has taken the last of it.
//!
//! An answer that is dropped before, because the client has gone away or has reset the stream, was not delivered. One
//! that is taken is *written*: from then on [`RecentAnswers`] watches how its connection ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::connection::RecentAnswers;
use super::retries::Delivery;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most digits of a `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// What an answer needs to reach its client before the deadline: this, and at most a tenth of the timeout.
const WAY_MAX: Duration = Duration::from_millis(50);

/// Where a request came from, and so where its answer goes.
pub(super) struct WayBack {
    connection: Option<Arc<RecentAnswers>>,
    /// Later than this the answer finds nobody who waits for it.
    latest: Option<Instant>,
    is_http2: bool,
}

impl WayBack {
    /// The way back of a request whose head has just arrived.
    pub(super) fn of<B>(request: &Request<B>) -> WayBack {
        let now = Instant::now();
        let timeout = grpc_timeout(request.headers());
        WayBack {
            connection: request.extensions().get().cloned(),
            latest: timeout.and_then(|timeout| now.checked_add(timeout - way(timeout))),
            is_http2: request.version() >= Version::HTTP_2,
        }
    }

    /// The connection, which watches over what is written to it.
    pub(super) fn connection(&self) -> Option<Arc<RecentAnswers>> {
        self.connection.clone()
    }

    /// Has the answer watched until it is written.
    pub(super) fn watch(self, response: Response, delivery: Delivery) -> Response {
        let sending = Sending {
            delivery,
            way_back: self,
        };
        response.map(|body| Body::new(AnswerBody::new(body, sending)))
    }
}

/// How long an answer may be on its way.
fn way(timeout: Duration) -> Duration {
    WAY_MAX.min(timeout / 10)
}

/// How long the client waits, as its `grpc-timeout` says. One that is not to be understood says nothing.
///
/// Source: gRPC over HTTP/2, "Timeout".
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// An answer that is not written yet. Dropped, its delivery remembers the request.
struct Sending {
    delivery: Delivery,
    way_back: WayBack,
}

impl Sending {
    fn written(self) {
        let is_late = |latest| Instant::now() > latest;
        if self.way_back.latest.is_some_and(is_late) {
            return;
        }
        let connection = self.way_back.connection;
        self.delivery.written(|digest| {
            if let Some(connection) = connection {
                connection.note(digest);
            }
        });
    }
}

/// A body that knows when the last of it was taken.
struct AnswerBody {
    body: Body,
    sending: Option<Sending>,
    /// Over HTTP/2 the end is asked for: what was taken before it may still wait for the peer's window.
    is_http2: bool,
}

impl AnswerBody {
    fn new(body: Body, sending: Sending) -> AnswerBody {
        let is_http2 = sending.way_back.is_http2;
        let mut answer = AnswerBody {
            body,
            sending: Some(sending),
            is_http2,
        };
        // An empty body is not polled over HTTP/1: it is written with the head, as soon as it is there.
        answer.written_if(answer.is_end_stream());
        answer
    }

    fn written_if(&mut self, is_written: bool) {
        if is_written && let Some(sending) = self.sending.take() {
            sending.written();
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let is_last = match &frame {
            // Trailers are the last of an answer.
            Some(Ok(frame)) => frame.is_trailers() || self.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        self.written_if(is_last);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        !self.is_http2 && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(value: &'static str) -> Option<Duration> {
        let value = http::HeaderValue::from_static(value);
        grpc_timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)]))
    }

    /// Scenario: timeouts in each unit, and values that the specification does not allow.
    /// Guarantees: read to the letter; what is not to be understood is no timeout.
    #[test]
    fn a_grpc_timeout_is_read_to_the_letter() {
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("3M"), Some(Duration::from_secs(180)));
        assert_eq!(timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("7u"), Some(Duration::from_micros(7)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(timeout("0S"), Some(Duration::ZERO));
        for wrong in [
            "",
            "S",
            "10",
            "10s",
            "123456789m",
            "-1S",
            "+1S",
            "1.5S",
            "1 S",
        ] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }

    /// Scenario: a long and a short timeout.
    /// Guarantees: the way back takes little of either.
    #[test]
    fn the_way_back_is_a_small_part_of_the_timeout() {
        assert_eq!(way(Duration::from_secs(10)), WAY_MAX);
        let short = Duration::from_millis(100);
        assert_eq!(way(short), Duration::from_millis(10));
    }
}
