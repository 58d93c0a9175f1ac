//! Composition: what is started in which order, and stopped in which.
//!
//! | start | stop |
//! |---|---|
//! | files of TLS and tokens read; data folder, locked | readiness off, no new connections |
//! | listeners bound | requests in flight end |
//! | journal read, lake opened, seals of the last run brought to disk | the open buffer is sealed and staged |
//! | journal, publisher, sealer; open rows of the last run | staged seals are published |
//! | quack, where it is asked for | quack, once what it was asked is answered |
//! | servers; `server.json` | `server.json` removed, folder unlocked |
//!
//! The whole stop takes `shutdown_grace` at most. What is staged and not published by then waits on disk for the next
//! start; rows that could not even be staged are lost, and the exit code says so.

mod notify;
mod pipeline;
pub(crate) mod reload;
mod surface;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use self::pipeline::Pipeline;
use self::reload::{Reload, Secrets};
use self::surface::{QuackPort, ServedSurface};
use crate::config::{ClientAuth, Config, TlsConfig};
use crate::data_dir::{DataDir, DataDirError};
use crate::disk::{Disk as _, RealDisk};
use crate::journal::ScanError;
use crate::lake::LakeError;
use crate::receive::admin::AdminService;
use crate::receive::auth::Gate;
use crate::receive::intake::{Intake, Keep};
use crate::receive::keep::{JournalKeep, MemoryKeep};
use crate::receive::listener::{self, ConnectionLimits, Secured, Served};
use crate::receive::overview::{Identity, JournalStatus, Overview, QuackIdentity};
use crate::receive::readiness::Readiness;
use crate::receive::router;
use crate::seal::ledger::unix_ms;
use crate::seal::queue::SealQueue;
use crate::seal::recovery::RecoveryError;
use crate::server_file::{self, LakeFile, ServerFile};
use crate::signal::{Durability, Protocol};
use crate::sql::surface::SurfaceError;
use crate::telemetry::Counters;

/// Connections that wait in the system's backlog.
const BACKLOG: i32 = 1024;

/// Signals this soon after the first are the same wish: some senders signal the process and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// While requests that wait for the lake end, a seal is cut this often.
const CUT_PAUSE: Duration = Duration::from_millis(50);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A listener cannot be bound.
    #[error("cannot listen on {address} ({setting}): {reason}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Where it was set.
        setting: String,
        /// What is in the way and what to do.
        reason: String,
    },
    /// The lake cannot be opened.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lake cannot be opened, and the disk has hardly any room: DuckDB does not tell one from the other.
    #[error("{source}; the disk of {} has {free_bytes} bytes left: make room on it", dir.display())]
    LakeDiskFull {
        /// DuckDB's words.
        source: Box<LakeError>,
        /// The data folder.
        dir: PathBuf,
        /// Its disk's free space, bytes.
        free_bytes: u64,
    },
    /// The journal of the last run cannot be read.
    #[error(transparent)]
    Journal(#[from] ScanError),
    /// What the last run left cannot be brought to disk.
    #[error(transparent)]
    Recovery(#[from] RecoveryError<LakeError>),
    /// TLS cannot be spoken, or the token file cannot be used.
    #[error(transparent)]
    Secrets(#[from] reload::SecretsError),
    /// Other DuckDBs cannot query the lake.
    #[error(transparent)]
    Surface(#[from] SurfaceError),
    /// Reflection cannot be set up.
    #[error(transparent)]
    Reflection(#[from] router::ReflectionError),
    /// The system refused a thread, a signal handler or a file.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// What became of the rows when the server stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Farewell {
    /// Seals left on disk for the next start.
    pub staged_seals_left: usize,
    /// Rows that wait in the journal for the next start.
    pub rows_journaled: u64,
    /// Rows that were in memory alone and are lost.
    pub rows_lost: u64,
}

/// A running server.
pub struct Daemon {
    config: Config,
    data_dir: DataDir,
    addresses: Addresses,
    readiness: Arc<Readiness>,
    pipeline: Pipeline,
    stop_requested: Arc<Notify>,
    stop_listening: watch::Sender<bool>,
    servers: [JoinHandle<()>; 2],
    /// Looks after the files of TLS and tokens, where there are any.
    reload: Option<JoinHandle<()>>,
    /// Where other DuckDBs query, where that is asked for.
    surface: Option<ServedSurface>,
    signals: Signals,
}

/// Where the server listens, as bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// OTLP/gRPC, health, reflection and admin.
    pub grpc: SocketAddr,
    /// OTLP/HTTP and the probes.
    pub http: SocketAddr,
    /// Queries of other DuckDBs, where they are let in.
    pub quack: Option<SocketAddr>,
}

impl Daemon {
    /// Starts everything. When it returns, both listeners answer.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Daemon, StartError> {
        let counters = Arc::new(Counters::default());
        let reload = Reload::new(Secrets::read(&config)?, &counters);
        let data_dir = DataDir::open(&config.data_dir)?;
        let sockets = [
            bind(config.grpc_listen, &config, "grpc-listen")?,
            bind(config.http_listen, &config, "http-listen")?,
        ];
        let quack_port = QuackPort::reserve(&config)?;
        let addresses = Addresses {
            grpc: sockets[0].local_addr()?,
            http: sockets[1].local_addr()?,
            quack: quack_port.as_ref().map(QuackPort::address),
        };
        let pipeline = Pipeline::start(&config, &data_dir).await?;
        let readiness = Readiness::new(Arc::clone(&pipeline.ledger), Arc::clone(&pipeline.journal));
        let stop_requested = Arc::new(Notify::new());
        let connections = ConnectionLimits {
            permits: Arc::new(Semaphore::new(config.max_connections)),
            open: Arc::new(AtomicUsize::new(0)),
            max_concurrent_streams: config.max_concurrent_streams,
        };
        let (stop_listening, stop) = watch::channel(false);
        let stops = Stops {
            requested: Arc::clone(&stop_requested),
            begun: stop.clone(),
        };
        let parts = Parts {
            config: &config,
            data_dir: &data_dir,
            addresses,
            pipeline: &pipeline,
            readiness: &readiness,
            connections: &connections,
            counters,
            reload: &reload,
        };
        let (served, overview) = parts.served(stops)?;
        let surface = match quack_port {
            Some(port) => {
                let stopping = stop.clone();
                let stop = Arc::clone(&stop_requested);
                Some(
                    ServedSurface::start(&config, addresses, port, overview, stop, stopping)
                        .await?,
                )
            }
            None => None,
        };
        // Before the first request is answered: a signal from here on must not end the process unprepared. Not
        // earlier: until now it should.
        let signals = Signals::new()?;
        let hangup = reload.hangup()?;
        let lake_file = LakeFile::new(&config.lake, data_dir.path());
        lake_file.write(data_dir.path())?;
        let mut server_file = ServerFile::new(addresses.grpc, addresses.http, lake_file);
        server_file.quack = addresses.quack.map(server_file::for_clients);
        server_file.tls = reload.tls().map(|tls| reload::server_tls(&tls));
        let serve = |socket, served| {
            let (connections, stop) = (connections.clone(), stop.clone());
            tokio::spawn(listener::serve(socket, served, connections, stop))
        };
        let ([grpc, http], [grpc_served, http_served]) = (sockets, served);
        let servers = [serve(grpc, grpc_served), serve(http, http_served)];
        server_file.write(data_dir.path())?;
        let reload = hangup.map(|hangup| reload.start(hangup, server_file, data_dir.path(), stop));
        notify::ready(addresses);
        notify::start_watchdog();
        Ok(Daemon {
            config,
            data_dir,
            addresses,
            readiness,
            pipeline,
            stop_requested,
            stop_listening,
            servers,
            reload,
            surface,
            signals,
        })
    }

    /// Where the server listens, as bound.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The settings the server runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Waits for SIGTERM, SIGINT or `otlake stop`.
    pub async fn wait_for_stop(&mut self) {
        tokio::select! {
            name = self.signals.next() => tracing::info!(signal = name, "stopping; a second signal leaves at once"),
            () = self.stop_requested.notified() => tracing::info!("stopping; a signal leaves at once"),
        }
    }

    /// Stops in order; see the module's table. A signal meanwhile ends the process at once.
    pub async fn stop(self) -> Farewell {
        let deadline = Instant::now() + self.config.shutdown_grace;
        tokio::spawn(leave_at_a_signal(
            self.signals,
            self.data_dir.path().to_owned(),
        ));
        notify::stopping();
        self.readiness.stop();
        self.stop_listening.send_replace(true);
        // It would else write a file that is about to be removed. An error of its own is told already.
        if let Some(reload) = self.reload {
            let _ = reload.await;
        }
        // Requests that wait for the lake would else wait for their seal's age too.
        let waits_for_lake = self.config.durability == Durability::Lake;
        let cutting =
            waits_for_lake.then(|| tokio::spawn(keep_cutting(Arc::clone(&self.pipeline.queue))));
        // Half of the time for the peers of both, so that the other half is left for the rows.
        let peers_until = tokio::time::Instant::now() + self.config.shutdown_grace / 2;
        for mut server in self.servers {
            if tokio::time::timeout_at(peers_until, &mut server)
                .await
                .is_err()
            {
                tracing::warn!("requests in flight did not end in time");
                server.abort();
            }
        }
        if let Some(cutting) = cutting {
            cutting.abort();
        }
        let ledger = Arc::clone(&self.pipeline.ledger);
        let pipeline = self.pipeline;
        let finished = tokio::task::spawn_blocking(move || pipeline.finish(deadline));
        let farewell = match finished.await {
            Ok(farewell) => farewell,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        };
        if let Some(surface) = self.surface {
            surface.finish(farewell.rows_lost, deadline).await;
        }
        if let Err(error) = ServerFile::remove(self.data_dir.path()) {
            tracing::debug!(%error, "server.json cannot be removed");
        }
        let committed = ledger.snapshot().committed;
        tracing::info!(
            rows_committed = committed.iter().map(|amount| amount.rows).sum::<u64>(),
            staged_seals_left = farewell.staged_seals_left,
            rows_journaled = farewell.rows_journaled,
            rows_lost = farewell.rows_lost,
            "stopped"
        );
        farewell
    }
}

/// How a stop is asked for, and told.
struct Stops {
    requested: Arc<Notify>,
    begun: watch::Receiver<bool>,
}

/// What the listeners' services are made of.
struct Parts<'a> {
    config: &'a Config,
    data_dir: &'a DataDir,
    addresses: Addresses,
    pipeline: &'a Pipeline,
    readiness: &'a Arc<Readiness>,
    connections: &'a ConnectionLimits,
    counters: Arc<Counters>,
    reload: &'a Reload,
}

impl Parts<'_> {
    /// What the two listeners serve: gRPC, then HTTP; and the running server as others see it.
    fn served(self, stops: Stops) -> Result<([Served; 2], Arc<Overview>), StartError> {
        let pipeline = self.pipeline;
        let intake = Intake::new(
            pipeline.budget.clone(),
            Arc::clone(&self.counters),
            keep(self.config, pipeline),
            Arc::clone(&pipeline.retries),
            self.config.max_body_bytes,
        );
        let gate = Gate::new(self.reload.tokens(), self.config.cors_origins.clone());
        let overview = Arc::new(self.overview(&gate, &intake));
        let admin = AdminService {
            overview: Arc::clone(&overview),
            stop: stops.requested,
            stopping: stops.begun.clone(),
        };
        let Addresses { grpc, http, .. } = self.addresses;
        let hosts = &self.config.allowed_hosts;
        let (at_grpc, at_http) = (gate.at(grpc, hosts), gate.at(http, hosts));
        let grpc_router = router::grpc(&at_grpc, &intake, admin, http.port(), stops.begun)?;
        let http_router = router::http(&at_http, &intake, &overview, grpc.port());
        let served = |router, protocol| Served {
            router,
            protocol,
            secured: self.reload.tls().map(|tls| Secured {
                tls,
                plain: router::without_tls(&intake, protocol),
            }),
            retries: Arc::clone(&pipeline.retries),
            counters: Arc::clone(&self.counters),
        };
        let listeners = [
            served(grpc_router, Protocol::Grpc),
            served(http_router, Protocol::Http),
        ];
        Ok((listeners, overview))
    }

    fn overview(&self, gate: &Gate, intake: &Intake) -> Overview {
        let (config, pipeline) = (self.config, self.pipeline);
        Overview {
            identity: Identity {
                writer: self.data_dir.writer().clone(),
                started_unix_ms: unix_ms(),
                listeners: vec![
                    (Protocol::Grpc, self.addresses.grpc.to_string()),
                    (Protocol::Http, self.addresses.http.to_string()),
                ],
                token_required: gate.wants_token(),
                transport_security: transport_security(config),
                catalog: config.lake.catalog.to_string(),
                data_path: config.lake.data_path.display().to_string(),
                connections_max: config.max_connections,
                quack: quack_identity(config, self.addresses),
            },
            counters: Arc::clone(&self.counters),
            queries: Arc::default(),
            budget: pipeline.budget.clone(),
            queue: Arc::clone(&pipeline.queue),
            ledger: Arc::clone(&pipeline.ledger),
            journal_status: journal_status(config, pipeline, self.data_dir.path()),
            readiness: Arc::clone(self.readiness),
            connections: Arc::clone(&self.connections.open),
            otap_streams: Arc::default(),
            tails: Arc::clone(&intake.tails),
        }
    }
}

fn quack_identity(config: &Config, addresses: Addresses) -> Option<QuackIdentity> {
    Some(QuackIdentity {
        address: addresses.quack?.to_string(),
        lake_name: config.quack.as_ref()?.lake_name.clone(),
    })
}

/// What protects connections, in the word that the admin service has for it.
fn transport_security(config: &Config) -> &'static str {
    match &config.tls {
        None => "",
        Some(TlsConfig {
            client_ca: Some(ca),
            ..
        }) if ca.auth == ClientAuth::Required => "mtls",
        Some(_) => "tls",
    }
}

/// Where the rows of accepted requests go.
fn keep(config: &Config, pipeline: &Pipeline) -> Arc<dyn Keep> {
    let journal = Arc::clone(&pipeline.journal);
    match config.durability {
        Durability::Memory => Arc::new(MemoryKeep {
            queue: Arc::clone(&pipeline.queue),
            journal,
        }),
        Durability::Journal | Durability::Lake => {
            let committed = pipeline.ledger.watch_committed();
            Arc::new(JournalKeep::new(
                journal,
                Arc::clone(&pipeline.queue),
                config.durability,
                committed,
            ))
        }
    }
}

/// What `otlake status` tells of the journal.
fn journal_status(
    config: &Config,
    pipeline: &Pipeline,
    data_dir: &Path,
) -> Box<dyn Fn() -> JournalStatus + Send + Sync> {
    let data_dir = data_dir.to_owned();
    let (durability, disk_bytes_max) = (config.durability, config.journal_max_bytes);
    let (journal, retries) = (Arc::clone(&pipeline.journal), Arc::clone(&pipeline.retries));
    Box::new(move || {
        let stats = journal.stats();
        JournalStatus {
            durability,
            disk_bytes_max,
            disk_free_bytes: RealDisk.free_bytes(&data_dir).ok(),
            journal_bytes: stats.bytes,
            journal_segments: stats.segments,
            requests: stats.requests,
            syncs: stats.syncs,
            remembered: retries.len() as u64,
        }
    })
}

/// Cuts a seal as soon as there are rows for one.
async fn keep_cutting(queue: Arc<SealQueue>) {
    loop {
        queue.cut_now();
        tokio::time::sleep(CUT_PAUSE).await;
    }
}

/// Ends the process, in the middle of whatever it does, when a further signal comes.
async fn leave_at_a_signal(mut signals: Signals, data_dir: PathBuf) {
    let asked = Instant::now();
    let name = loop {
        let name = signals.next().await;
        if asked.elapsed() >= SAME_SIGNAL {
            break name;
        }
    };
    // A file that names a dead server helps nobody; that it cannot be removed changes nothing.
    let _ = ServerFile::remove(&data_dir);
    tracing::error!(
        signal = name,
        "left at once; what is journaled and not in the lake yet is taken up by the next start"
    );
    std::process::exit(1);
}

/// The signals that ask for a stop.
struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Binds a listener; the error names the setting and, for a port in use, what to do.
fn bind(address: SocketAddr, config: &Config, setting: &str) -> Result<TcpListener, StartError> {
    let listening = || -> std::io::Result<TcpListener> {
        let socket = bound(address)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listening().map_err(|error| cannot_bind(address, config, setting, &error))
}

fn bound(address: SocketAddr) -> std::io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn cannot_bind(
    address: SocketAddr,
    config: &Config,
    setting: &str,
    error: &std::io::Error,
) -> StartError {
    StartError::Bind {
        address,
        setting: config.origins.place(setting),
        reason: match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "port {} is in use; stop what uses it, or choose another with --{setting}",
                address.port()
            ),
            _ => error.to_string(),
        },
    }
}
