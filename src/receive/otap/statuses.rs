//! The body of a stream's response: the stream itself, one gRPC message a status, and the trailers.
//!
//! hyper polls it, and that is what drives the stream: a client that does not read its statuses is not read from, and when it
//! goes away everything of the stream is dropped with the body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};

use super::OpenStream;
use super::stream::{Answer, Stream};
use crate::receive::connection::RecentAnswers;
use crate::receive::grpc::{GRPC_STATUS, frame};
use crate::receive::refusal::Refusal;
use crate::receive::status;

type Step = (Box<Stream>, Result<Option<Answer>, Refusal>);

/// The response's body.
pub(super) struct StatusBody {
    /// There until the trailers are written.
    step: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    connection: Option<Arc<RecentAnswers>>,
    _open: OpenStream,
}

impl StatusBody {
    pub(super) fn new(
        stream: Stream,
        connection: Option<Arc<RecentAnswers>>,
        open: OpenStream,
    ) -> StatusBody {
        StatusBody {
            step: Some(Box::pin(step(Box::new(stream)))),
            connection,
            _open: open,
        }
    }

    /// The status goes out now: from here on it is the connection's matter.
    fn write(&self, answer: Answer) -> Bytes {
        if let Some(delivery) = answer.delivery {
            delivery.written(|digest| {
                if let Some(connection) = &self.connection {
                    connection.note(digest);
                }
            });
        }
        frame(&answer.status)
    }
}

async fn step(mut stream: Box<Stream>) -> Step {
    let next = stream.next().await;
    (stream, next)
}

impl HttpBody for StatusBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(running) = &mut self.step else {
            return Poll::Ready(None);
        };
        let (stream, next) = ready!(running.as_mut().poll(context));
        let frame = match next {
            Ok(Some(answer)) => {
                self.step = Some(Box::pin(step(stream)));
                Frame::data(self.write(answer))
            }
            ended => {
                self.step = None;
                Frame::trailers(trailers(ended.err().as_ref()))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

fn trailers(refusal: Option<&Refusal>) -> HeaderMap {
    let ok = || HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let Some(refusal) = refusal else {
        return ok();
    };
    let mut trailers = HeaderMap::new();
    let status = status::to_grpc_stream(refusal);
    match status.add_header(&mut trailers) {
        Ok(()) => trailers,
        // A message that cannot stand in a header is left out.
        Err(_) => {
            let code = i32::from(status.code());
            HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(code))])
        }
    }
}
