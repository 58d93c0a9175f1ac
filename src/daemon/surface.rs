//! The SQL surface among the rest: when it is started, and how the stop ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::{Addresses, StartError, bound, cannot_bind};
use crate::config::Config;
use crate::receive::overview::Overview;
use crate::sql::control::{Control, FLUSH_TIME_MAX, Listener};
use crate::sql::surface::{Surface, SurfaceError};
use crate::sql::uri::Transport;

/// How long queries may still run after everything else has stopped.
const LAST_QUERIES: Duration = Duration::from_secs(2);

/// How long quack may take to close its connections.
const CLOSING: Duration = Duration::from_secs(1);

/// What it needs of the data folder.
const FOLDER: &str = "quack";

/// The port of quack, held until quack takes it: quack lets any number of programs of a user share one, and the second
/// would take half of the first one's queries.
pub(super) struct QuackPort {
    socket: Socket,
    address: SocketAddr,
}

impl QuackPort {
    /// Holds the port, where quack is asked for.
    ///
    /// # Errors
    /// [`StartError::Bind`].
    pub(super) fn reserve(config: &Config) -> Result<Option<QuackPort>, StartError> {
        let Some(quack) = &config.quack else {
            return Ok(None);
        };
        // Without listening: nobody is told that somebody is there, and the port is free at once when it is let go.
        let reserved = bound(quack.listen).and_then(|socket| {
            let address = socket.local_addr()?.as_socket();
            Ok((socket, address.unwrap_or(quack.listen)))
        });
        let (socket, address) =
            reserved.map_err(|error| cannot_bind(quack.listen, config, "quack-listen", &error))?;
        Ok(Some(QuackPort { socket, address }))
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The running surface.
pub(super) struct ServedSurface {
    surface: Arc<Surface>,
    lost: watch::Sender<Option<u64>>,
}

impl ServedSurface {
    /// Opens the lake for queries, and quack on the port that was held for it.
    ///
    /// # Errors
    /// [`StartError::Surface`], and [`StartError::System`] without a thread.
    pub(super) async fn start(
        config: &Config,
        addresses: Addresses,
        port: QuackPort,
        overview: Arc<Overview>,
        stop: Arc<Notify>,
        stopping: watch::Receiver<bool>,
    ) -> Result<ServedSurface, StartError> {
        let Some(quack) = config.quack.clone() else {
            return Err(
                std::io::Error::other("a port was held for quack without its settings").into(),
            );
        };
        let (lost, lost_told) = watch::channel(None);
        let is_tls = config.tls.is_some();
        let listener = |transport, address| Listener {
            transport,
            address,
            is_tls,
        };
        let control = Arc::new(Control {
            overview,
            listeners: vec![
                listener(Transport::Http, addresses.http),
                listener(Transport::Grpc, addresses.grpc),
            ],
            lake_name: quack.lake_name.clone(),
            schema: config.lake.schema.clone(),
            seal: config.seal,
            stop,
            stopping,
            lost: lost_told,
            flush_time_max: FLUSH_TIME_MAX,
            runtime: Handle::current(),
            stop_called: AtomicBool::new(false),
        });
        let (lake, folder) = (config.lake.clone(), config.data_dir.join(FOLDER));
        let start = move || -> Result<Arc<Surface>, SurfaceError> {
            let QuackPort { socket, address } = port;
            drop(socket);
            Surface::start(&quack, &lake, &folder, address, control)
        };
        let surface = on_a_thread("otlake-sql", start)?.await;
        let surface = surface.map_err(std::io::Error::other)??;
        if let Some(address) = addresses.quack {
            warn_of_strangers(address);
        }
        Ok(ServedSurface { surface, lost })
    }

    /// Tells who waits for the stop what it has lost, and ends quack. Queries that take longer end with the process.
    pub(super) async fn finish(self, rows_lost: u64, deadline: Instant) {
        self.lost.send_replace(Some(rows_lost));
        let until = deadline.max(Instant::now() + LAST_QUERIES);
        let surface = self.surface;
        let stop = move || surface.stop(until);
        match on_a_thread("otlake-sql", stop) {
            Ok(stopped) => {
                let stopped = tokio::time::timeout_at((until + CLOSING).into(), stopped);
                if stopped.await.is_err() {
                    tracing::warn!("queries over quack did not end in time");
                }
            }
            Err(error) => tracing::warn!(%error, "no thread to stop quack"),
        }
    }
}

/// quack has no TLS of its own, and only its client knows what lies between.
fn warn_of_strangers(address: SocketAddr) {
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    tracing::warn!(
        %address,
        "quack listens where others can reach it, and speaks plain HTTP: its token and all answers cross the network unencrypted. \
         Use --quack-listen 127.0.0.1 and a tunnel (ssh -L 9494:127.0.0.1:9494 HOST), or a proxy that speaks TLS before it \
         (docs/SECURITY.md, Queries over quack)"
    );
}

/// Does what blocks in DuckDB on a thread of its own, from which DuckDB's threads have their name.
fn on_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<oneshot::Receiver<T>> {
    let (done, outcome) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody waits any more only when the process ends.
            let _ = done.send(work());
        })?;
    Ok(outcome)
}
