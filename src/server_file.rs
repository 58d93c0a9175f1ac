//! What a server leaves in its data folder for the commands that look for it.
//!
//! | file | there | says |
//! |---|---|---|
//! | `lock` | always; locked (`flock`) while a server runs ([`crate::data_dir`]) | whether one runs, also across containers |
//! | `server.json` | while a server runs, and after a crash | where it listens, and the lake |
//! | `lake.json` | from the first start on | the lake, so that `otlake query` works without the server and its flags |
//!
//! Invariants:
//! - Files are replaced by a rename: a reader sees the old text or the new, never half of one. Mode 0600.
//! - No secrets: neither token nor key is written.
//! - Whoever can write here decides which server the commands trust: the folder is the server's user's alone.
//! - Paths inside the data folder are written relative to it, so that the folder can be moved, or mounted elsewhere.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::LakeArgs;
use crate::lake::{LakeConfig, LakeError};

const LOCK_FILE: &str = "lock";
const SERVER_FILE: &str = "server.json";
const LAKE_FILE: &str = "lake.json";

/// Whether a server holds the folder's lock; `None` when that cannot be told.
fn lock_is_held(data_dir: &Path) -> Option<bool> {
    let file = File::open(data_dir.join(LOCK_FILE)).ok()?;
    match file.try_lock_shared() {
        Ok(()) => Some(false), // Given back when the file is closed.
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// `<data-dir>/server.json`: the server that runs, or ran, in this data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    /// otlake's version.
    pub version: String,
    /// The server's process.
    pub pid: u32,
    /// Where a client on this machine reaches OTLP/gRPC and the admin service, such as `127.0.0.1:4317`.
    pub grpc: SocketAddr,
    /// Where a client on this machine reaches OTLP/HTTP.
    pub http: SocketAddr,
    /// Where other DuckDBs query, where they are let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quack: Option<SocketAddr>,
    /// There when both listeners speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// The lake.
    #[serde(flatten)]
    pub lake: LakeFile,
    /// When the server started, milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
}

/// How a client on this machine knows the server, whose certificate need not be for a loopback address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTls {
    /// SHA-256 of the certificate that is shown, in hexadecimal; after it that of the one before.
    pub certificates: Vec<String>,
}

impl ServerFile {
    /// Describes this process, from the addresses as bound.
    #[must_use]
    pub fn new(grpc: SocketAddr, http: SocketAddr, lake: LakeFile) -> ServerFile {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        ServerFile {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            grpc: for_clients(grpc),
            http: for_clients(http),
            quack: None,
            tls: None,
            lake,
            started_unix_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Writes `server.json`, in place of an older one.
    ///
    /// # Errors
    /// What the system says when the file cannot be written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        replace(data_dir, SERVER_FILE, self)
    }

    /// What `server.json` says, whether that server still runs or not; `None` without one that can be read.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<ServerFile> {
        read(&data_dir.join(SERVER_FILE))
    }

    /// The server that runs in this data folder now. A file that a crash left behind is no server.
    #[must_use]
    pub fn running(data_dir: &Path) -> Option<ServerFile> {
        let file = ServerFile::read(data_dir)?;
        lock_is_held(data_dir)
            .unwrap_or_else(|| is_alive(file.pid))
            .then_some(file)
    }

    /// Takes `server.json` away; that there is none is no error.
    ///
    /// # Errors
    /// What the system says when the file is there and cannot be removed.
    pub fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(SERVER_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// `<data-dir>/lake.json`: where the lake of this data folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeFile {
    /// DuckLake's catalog, as `--catalog` takes it.
    pub catalog: String,
    /// The folder of the Parquet files.
    pub data_path: PathBuf,
    /// The schema of the tables.
    pub schema: String,
    /// The folder with DuckDB's extensions, when one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_dir: Option<PathBuf>,
}

impl LakeFile {
    /// Describes the lake of a server; `data_dir` is absolute, as the paths of a validated configuration are.
    #[must_use]
    pub fn new(lake: &LakeConfig, data_dir: &Path) -> LakeFile {
        let inside = |path: &Path| path.strip_prefix(data_dir).unwrap_or(path).to_owned();
        LakeFile {
            catalog: map_catalog_path(&lake.catalog.to_string(), inside),
            data_path: inside(&lake.data_path),
            schema: lake.schema.clone(),
            extension_dir: lake.extension_dir.clone(),
        }
    }

    /// Writes `lake.json`, in place of an older one.
    ///
    /// # Errors
    /// What the system says when the file cannot be written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        replace(data_dir, LAKE_FILE, self)
    }

    /// The lake of this data folder: as the running server has it, else as the last one had it; `None` before the first.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<LakeFile> {
        ServerFile::running(data_dir)
            .map(|server| server.lake)
            .or_else(|| read(&data_dir.join(LAKE_FILE)))
    }

    /// Checks that this user would see the file if it were there.
    ///
    /// # Errors
    /// [`LakeError::NotAllowed`], and what else the system says of a folder that is none.
    pub fn check_is_visible(data_dir: &Path) -> Result<(), LakeError> {
        let path = data_dir.join(LAKE_FILE);
        match File::open(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LakeError::unreadable(&path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether a server was ever ready in this data folder, also where its file cannot be understood.
    ///
    /// # Errors
    /// What the system says when that cannot be told.
    pub fn is_there(data_dir: &Path) -> io::Result<bool> {
        data_dir.join(LAKE_FILE).try_exists()
    }

    /// Lays what the user said over what the file says.
    ///
    /// A catalog that the user names is another lake, and the file says nothing about that one.
    #[must_use]
    pub fn complete(self, given: LakeArgs, data_dir: &Path) -> LakeArgs {
        if given.catalog.is_some() {
            return given;
        }
        let outside = |path: &Path| data_dir.join(path);
        LakeArgs {
            catalog: Some(map_catalog_path(&self.catalog, outside)),
            data_path: given.data_path.or(Some(outside(&self.data_path))),
            schema: given.schema.or(Some(self.schema)),
            extension_dir: given.extension_dir.or(self.extension_dir),
        }
    }
}

/// Applies `map` to the path of a catalog that is a file; others (a server) are left alone.
fn map_catalog_path(catalog: &str, map: impl Fn(&Path) -> PathBuf) -> String {
    match catalog.split_once(':') {
        Some((kind @ ("sqlite" | "duckdb"), path)) => {
            format!("{kind}:{}", map(Path::new(path)).display())
        }
        _ => catalog.to_owned(),
    }
}

/// "Every address" is nowhere to connect to: loopback of the same family is.
pub(crate) fn for_clients(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// Whether a process has this id now: another one may have got it since.
fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    // Not permitted means: it is there, and another user's.
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn replace(data_dir: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    // Only the server that holds the lock writes, so one name is enough.
    let new = data_dir.join(format!(".{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, data_dir.join(name))
}

#[cfg(test)]
mod tests;
