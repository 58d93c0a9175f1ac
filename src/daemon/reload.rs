//! Files that are taken up again while the server runs: those of TLS, and the tokens.
//!
//! Looked at every second, so that it works over every file system and for files that are swapped by a link. Files that
//! change one after the other are read once they stay as they are. What is refused is told, and what was there stays.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::notify;
use crate::config::tokens::{NamedToken, TokenFileError};
use crate::config::{Auth, Config, TlsConfig, Tokens};
use crate::receive::tls::{Loaded, Tls, TlsError};
use crate::receive::tokens::TokenBook;
use crate::server_file::{ServerFile, ServerTls};
use crate::telemetry::Counters;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The files as they were at the start, read and checked before anything is bound.
pub(crate) struct Secrets {
    tls: Option<(Files, TlsConfig, Loaded)>,
    tokens: Option<(Files, Tokens, Vec<NamedToken>)>,
}

/// Why the files of TLS or the tokens are refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
}

impl Secrets {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`SecretsError`] for the first that is no good.
    pub(crate) fn read(config: &Config) -> Result<Secrets, SecretsError> {
        let tls = match &config.tls {
            None => None,
            Some(settings) => {
                let ca = settings.client_ca.as_ref().map(|ca| ca.path.clone());
                let paths = [settings.cert.clone(), settings.key.clone()];
                let files = Files::new(paths.into_iter().chain(ca));
                Some((files, settings.clone(), Loaded::read(settings)?))
            }
        };
        let tokens = match &config.auth {
            Auth::Open { .. } => None,
            Auth::Token(source) => {
                let files = Files::new(source.file.clone());
                Some((files, source.clone(), TokenBook::read(source)?))
            }
        };
        Ok(Secrets { tls, tokens })
    }
}

/// The files in use, and how they looked when they were read.
pub(super) struct Reload {
    tls: Option<(Files, Arc<Tls>)>,
    tokens: Option<(Files, Arc<TokenBook>)>,
}

impl Reload {
    pub(super) fn new(secrets: Secrets, counters: &Arc<Counters>) -> Reload {
        let tls = secrets.tls.map(|(files, settings, loaded)| {
            let tls = Tls::new(settings, loaded);
            (files, Arc::new(tls))
        });
        let tokens = secrets.tokens.map(|(files, source, named)| {
            let book = TokenBook::new(source, &named, counters);
            (files, Arc::new(book))
        });
        Reload { tls, tokens }
    }

    /// TLS of the listeners, if they speak it.
    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.as_ref().map(|(_, tls)| Arc::clone(tls))
    }

    /// The tokens, if any is asked for.
    pub(super) fn tokens(&self) -> Option<Arc<TokenBook>> {
        self.tokens.as_ref().map(|(_, tokens)| Arc::clone(tokens))
    }

    /// Takes SIGHUP from now on, if there are files to look after, or it comes from a service manager. Else it stays what it
    /// is for every program: the end, when its terminal closes.
    ///
    /// # Errors
    /// What the system says when it cannot be waited for.
    pub(super) fn hangup(&self) -> io::Result<Option<UnixSignal>> {
        let has_files = |files: &Files| !files.paths.is_empty();
        let has_tokens = self
            .tokens
            .as_ref()
            .is_some_and(|(files, _)| has_files(files));
        if self.tls.is_none() && !has_tokens && !notify::is_supervised() {
            return Ok(None);
        }
        signal(SignalKind::hangup()).map(Some)
    }

    /// Looks after the files until `stop` turns true.
    pub(super) fn start(
        self,
        hangup: UnixSignal,
        server_file: ServerFile,
        data_dir: &Path,
        stop: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let watcher = Watcher {
            reload: self,
            server_file,
            data_dir: data_dir.to_owned(),
        };
        tokio::spawn(watcher.run(hangup, stop))
    }
}

struct Watcher {
    reload: Reload,
    server_file: ServerFile,
    data_dir: PathBuf,
}

impl Watcher {
    async fn run(mut self, mut hangup: UnixSignal, mut stop: watch::Receiver<bool>) {
        loop {
            let is_asked = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                _ = hangup.recv() => true,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            // Files can be slow. The watcher comes back from there, unless looking at them failed inside otlake.
            let looked = tokio::task::spawn_blocking(move || {
                if is_asked {
                    notify::reloading();
                }
                self.look(is_asked);
                if is_asked {
                    notify::reloaded();
                }
                self
            });
            self = match looked.await {
                Ok(watcher) => watcher,
                Err(error) => {
                    tracing::error!(%error, "TLS and token files are not looked after any more");
                    return;
                }
            };
        }
    }

    fn look(&mut self, is_asked: bool) {
        if let Some((files, tls)) = &mut self.reload.tls
            && files.are_due(is_asked)
        {
            let tls = Arc::clone(tls);
            self.take_up_tls(&tls);
        }
        if let Some((files, tokens)) = &mut self.reload.tokens
            && !files.paths.is_empty()
            && files.are_due(is_asked)
        {
            take_up_tokens(tokens);
        }
    }

    fn take_up_tls(&mut self, tls: &Tls) {
        let loaded = match Loaded::read(tls.files()) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the new TLS files are refused, the old ones stay in use: {error}");
                return;
            }
        };
        let before = tls.current();
        if let (Some(trouble), None) = (loaded.trouble(), before.trouble()) {
            let file = tls.files().cert.display();
            tracing::error!(
                "the new TLS files are refused, the old ones stay in use: the certificate {file} {trouble}"
            );
            return;
        }
        // Before the certificate is shown, so that no command on this machine meets one that it does not expect.
        if let Some(server_tls) = &mut self.server_file.tls {
            server_tls.certificates = vec![loaded.fingerprint()];
            if before.fingerprint() != loaded.fingerprint() {
                let before = before.fingerprint();
                server_tls.certificates.push(before);
            }
        }
        if let Err(error) = self.server_file.write(&self.data_dir) {
            tracing::warn!(%error, "server.json cannot be written: commands on this machine may refuse the new certificate");
        }
        tracing::info!(
            sha256 = loaded.fingerprint(),
            "TLS files taken up, for new connections"
        );
        tls.replace(loaded);
    }
}

fn take_up_tokens(tokens: &TokenBook) {
    match TokenBook::read(tokens.source()) {
        Ok(named) => {
            tokens.replace(&named);
            tracing::info!(tokens = named.len(), "token file taken up");
        }
        Err(error) => {
            tracing::error!("the new token file is refused, the old tokens stay in use: {error}");
        }
    }
}

/// What `server.json` says of TLS.
pub(super) fn server_tls(tls: &Tls) -> ServerTls {
    ServerTls {
        certificates: vec![tls.current().fingerprint()],
    }
}

/// Files that are read together.
struct Files {
    paths: Vec<PathBuf>,
    /// As they were when they were read last.
    read: Vec<Option<Stamp>>,
    /// As they were when they were looked at last.
    seen: Vec<Option<Stamp>>,
}

/// What changes when a file does: device, inode, size, and both times in nanoseconds.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Files {
    /// To be made before the files are read the first time: what changes meanwhile is then seen.
    fn new(paths: impl IntoIterator<Item = PathBuf>) -> Files {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let read = stamps(&paths);
        Files {
            seen: read.clone(),
            read,
            paths,
        }
    }

    /// Whether they are to be read: they have changed, and not just now.
    fn are_due(&mut self, is_asked: bool) -> bool {
        let now = stamps(&self.paths);
        let is_changed = now != self.read && now == self.seen;
        self.seen = now;
        if is_asked || is_changed {
            self.read.clone_from(&self.seen);
        }
        is_asked || is_changed
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let file = path.metadata().ok()?;
        Some((
            file.dev(),
            file.ino(),
            file.size(),
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ))
    };
    paths.iter().map(stamp).collect()
}
