//! The stream of a connection, which notices how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::RecentAnswers;
use crate::receive::retries::Retries;

/// A connection's stream. Shared, so that others can look how the connection stands.
pub(in crate::receive) struct WatchedStream {
    stream: Arc<TcpStream>,
    recent: Arc<RecentAnswers>,
    has_begun: bool,
}

impl WatchedStream {
    pub(in crate::receive) fn new(
        stream: TcpStream,
        retries: &Arc<Retries>,
    ) -> (WatchedStream, Arc<RecentAnswers>) {
        let stream = Arc::new(stream);
        let recent = RecentAnswers::new(retries, Arc::downgrade(&stream));
        let watched = WatchedStream {
            stream,
            recent: Arc::clone(&recent),
            has_begun: false,
        };
        (watched, recent)
    }

    /// An error ends the connection.
    fn watch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let end = || self.recent.failed(&self.stream, error);
            self.recent.ended(end);
        })
    }

    /// Reads what is there. A read that did not fill the buffer has emptied the socket: it need not be asked again before
    /// the system tells of more. That spares a call for each request.
    fn read(&self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        let room = buffer.remaining();
        let mut read = Err(io::ErrorKind::WouldBlock.into());
        // What became ready since the call began stays so: nothing is missed.
        let _ = self.stream.try_io(Interest::READABLE, || {
            read = self.stream.try_read_buf(buffer);
            match &read {
                Ok(bytes) if (1..room).contains(bytes) => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        read
    }

    fn poll_written(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let is_ready = ready!(self.stream.poll_write_ready(context));
            match is_ready.and_then(|()| write(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    let written = self.watch(written);
                    if let Ok(bytes) = &written {
                        self.recent.wrote(*bytes);
                    }
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let has_room = buffer.remaining() > 0;
        let filled = buffer.filled().len();
        loop {
            let is_ready = ready!(self.stream.poll_read_ready(context));
            match is_ready.and_then(|()| self.read(buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let read = self.watch(read);
                    if has_room && matches!(read, Ok(0)) {
                        self.recent
                            .ended(|| self.recent.closed(&self.stream, false));
                    }
                    if !self.has_begun && matches!(read, Ok(1..)) {
                        self.has_begun = true;
                        self.recent
                            .began(buffer.filled().get(filled..).unwrap_or_default());
                    }
                    return Poll::Ready(read.map(|_| ()));
                }
            }
        }
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(context, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.recent.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = self.recent.finish(&self.stream);
        Poll::Ready(self.watch(finished))
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        let mut state = self.recent.lock();
        if state.answers.is_empty() {
            state.has_ended = true;
        } else if !state.has_ended {
            state.lingering = Some(Arc::clone(&self.stream));
        }
    }
}
