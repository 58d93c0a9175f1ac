//! What HTTP is spoken over: the connection's stream as it is, or TLS over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::{RecentAnswers, WatchedStream};

/// How long a peer may take to close its socket after it has said, in TLS, that it is done. Most do both at once.
const CLOSE_PATIENCE: Duration = Duration::from_millis(100);

/// Reads of what a peer sends after it has said that it is done.
const UNREAD_MAX: usize = 16;

/// A connection's stream, plain or inside TLS.
pub(in crate::receive) enum Io {
    /// As it is.
    Plain(WatchedStream),
    /// Inside TLS.
    Tls(Box<Tls>),
}

/// A stream inside TLS.
pub(in crate::receive) struct Tls {
    stream: TlsStream<WatchedStream>,
    recent: Arc<RecentAnswers>,
    /// There while the end of the socket is waited for.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Io {
    /// A stream whose handshake is over.
    pub(in crate::receive) fn tls(
        stream: TlsStream<WatchedStream>,
        recent: &Arc<RecentAnswers>,
    ) -> Io {
        Io::Tls(Box::new(Tls {
            stream,
            recent: Arc::clone(recent),
            patience: None,
        }))
    }
}

impl Tls {
    /// Waits, once the peer says that it is done, for what its socket says: that tells whether it has read its answers. It
    /// has to be heard before our own last words are sent, as these meet a closed socket and are answered by a reset.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (socket, _) = self.stream.get_mut();
        for _ in 0..UNREAD_MAX {
            let mut unread = [0; 1024];
            let mut unread = ReadBuf::new(&mut unread);
            match Pin::new(&mut *socket).poll_read(context, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                Poll::Ready(_) => break,
                Poll::Pending if !self.recent.has_answers() => break,
                Poll::Pending => {
                    let patience = self
                        .patience
                        .get_or_insert_with(|| Box::pin(sleep(CLOSE_PATIENCE)));
                    ready!(patience.as_mut().poll(context));
                    break;
                }
            }
        }
        self.recent.peer_is_done();
        Poll::Ready(())
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tls = match &mut *self {
            Io::Plain(stream) => return Pin::new(stream).poll_read(context, buffer),
            Io::Tls(tls) => tls,
        };
        let room = buffer.remaining();
        let read = ready!(Pin::new(&mut tls.stream).poll_read(context, buffer));
        if read.is_ok() && room > 0 && buffer.remaining() == room {
            ready!(tls.poll_end(context));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(tls) => Pin::new(&mut tls.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Io::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(context),
        }
    }
}
