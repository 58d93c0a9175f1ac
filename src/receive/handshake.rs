//! How a connection to a listener with TLS begins: a handshake, or plain HTTP by mistake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::{Io, RecentAnswers, TLS_HANDSHAKE, WatchedStream};
use super::refusal::Refusal;
use super::retries::Retries;
use super::tls::{self, Tls};
use crate::telemetry::Reason;

/// From accepting to the end of the handshake. It is a few milliseconds of work and two ways through the network.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer that was told of a failed handshake may take to read it.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// A connection that can carry HTTP.
pub(super) struct Opened {
    pub(super) io: Io,
    pub(super) recent: Arc<RecentAnswers>,
    /// Whether it is inside TLS.
    pub(super) is_secure: bool,
}

/// A connection that came to nothing.
pub(super) struct Failed {
    /// Why.
    pub(super) refusal: Refusal,
    /// There when the peer was told.
    stream: Option<WatchedStream>,
}

impl Failed {
    fn new(message: String, stream: Option<WatchedStream>) -> Failed {
        Failed {
            refusal: Refusal::new(Reason::TlsHandshake, message),
            stream,
        }
    }

    /// Reads on until the peer closes, for a moment: closed over unread bytes, the connection would be reset, and the peer
    /// might never read why.
    pub(super) async fn linger(self) {
        let Some(mut stream) = self.stream else {
            return;
        };
        let read_on = async {
            stream.shutdown().await?;
            let mut unread = [0; 1024];
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it has read it is its own affair.
        let _ = timeout(LINGER_MAX, read_on).await;
    }
}

/// Leads the handshake; a connection that begins with anything but TLS is given back as it is. `None` when the peer went
/// away without a word, as checks for an open port do.
///
/// # Errors
/// [`Failed`], which says why there is no connection.
pub(super) async fn open(
    stream: TcpStream,
    retries: &Arc<Retries>,
    tls: &Tls,
) -> Result<Option<Opened>, Failed> {
    let opening = async {
        let mut first = [0];
        let peeked = stream.peek(&mut first).await;
        if peeked.map_err(|error| (error, None))? == 0 {
            return Ok(None);
        }
        let (stream, recent) = WatchedStream::new(stream, retries);
        if first != [TLS_HANDSHAKE] {
            return Ok(Some(Opened {
                io: Io::Plain(stream),
                recent,
                is_secure: false,
            }));
        }
        let accepted = tls.acceptor().accept(stream).into_fallible().await;
        let stream = accepted.map_err(|(error, stream)| (error, Some(stream)))?;
        Ok(Some(Opened {
            io: Io::tls(stream, &recent),
            recent,
            is_secure: true,
        }))
    };
    match timeout(HANDSHAKE_TIMEOUT, opening).await {
        Ok(opened) => opened.map_err(|(error, stream)| Failed::new(tls::explain(&error), stream)),
        Err(_) => {
            let message = format!("the TLS handshake did not end within {HANDSHAKE_TIMEOUT:?}");
            Err(Failed::new(message, None))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::TlsConfig;
    use crate::receive::tls::Loaded;

    /// A certificate for nobody, from openssl, and its key.
    fn tls() -> Tls {
        let dir = tempfile::tempdir().unwrap();
        let new = ["req", "-x509", "-nodes", "-newkey", "ec", "-subj", "/CN=x"];
        let curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let files = ["-keyout", "key", "-out", "cert"];
        let made = std::process::Command::new("openssl")
            .current_dir(dir.path())
            .args(new)
            .args(curve)
            .args(files)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let files = TlsConfig {
            cert: dir.path().join("cert"),
            key: dir.path().join("key"),
            client_ca: None,
        };
        let loaded = Loaded::read(&files).unwrap();
        Tls::new(files, loaded)
    }

    /// Scenario: a peer that sends nothing, one that sends the begin of a handshake, one that goes away at once, and one that
    /// goes away in the middle.
    /// Guarantees: the first two are given up when their time is over; the third is no trouble, the fourth is told.
    #[tokio::test]
    async fn a_handshake_has_a_limited_time() {
        let tls = tls();
        let retries = Retries::new(Duration::ZERO, 0, Box::new(|_| {}));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let begin: &[u8] = &[TLS_HANDSHAKE, 3, 1, 0, 200, 1];
        for (sent, leaves, told) in [
            (&b""[..], false, Some("did not end within 10s")),
            (begin, false, Some("did not end within 10s")),
            (b"", true, None),
            (begin, true, Some("ended inside the TLS handshake")),
        ] {
            let address = listener.local_addr().unwrap();
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(sent).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let peer = if leaves {
                drop(peer);
                None
            } else {
                Some(peer)
            };
            // A clock that jumps would be faster than a socket's end.
            if !leaves {
                tokio::time::pause();
            }
            let opened = open(stream, &retries, &tls).await;
            if !leaves {
                tokio::time::resume();
            }
            match (opened, told) {
                (Ok(None), None) => {}
                (Err(failed), Some(told)) => {
                    let message = failed.refusal.message;
                    assert!(message.contains(told), "{message}");
                }
                (opened, _) => panic!("{sent:?} {leaves}: {:?}", opened.is_ok()),
            }
            drop(peer);
        }
    }
}
