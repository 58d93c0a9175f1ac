//! Settings: from flags, environment and file to one [`Config`], checked before anything is bound.
//!
//! ```text
//! flags (clap)        --grpc-listen ...    RawSettings  \
//! environment         OTLAKE_GRPC_LISTEN   RawSettings   > first one set wins > validate > Config + Origins
//! TOML file           grpc-listen = ...    RawSettings  /
//! duckdb-otlp's names OTEL_HTTP_ADDR       RawSettings /    only with DUCKDB_MODE, see `duckdb_otlp`
//! ```
//!
//! Invariants:
//! - After [`Config::load`] no `Option` means "default", every path is absolute, every limit is inside its range
//!   and the limits fit together (see [`limits`]).
//! - An unknown key in the file and an unknown `OTLAKE_*` variable are errors: a typing mistake never becomes a default.
//! - A token is never printed: not by `Debug`, not by [`Config::effective`], not inside an error.

pub mod cors;
mod duckdb_otlp;
mod effective;
mod error;
pub mod hosts;
pub mod lake;
pub mod limits;
mod origin;
pub mod quack;
mod raw;
pub mod secret_file;
mod sources;
pub mod tokens;
mod validate;
pub mod value;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use cors::CorsOrigins;
pub use duckdb_otlp::Foreign;
pub use error::{ConfigError, Suggestion};
pub use hosts::AllowedHosts;
pub use lake::LakeArgs;
pub use origin::{Origin, Origins};
pub use quack::QuackConfig;
pub use raw::RawSettings;
pub use sources::{OTHER_VARIABLES, variable_name};
pub use value::{ClientAuth, LogFormat, LogLevel, Secret};

use crate::lake::LakeConfig;
use crate::signal::Durability;

/// Everything `otlake serve` needs to know, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's own folder: lock, staged files, by default the lake too. Absolute.
    pub data_dir: PathBuf,
    /// Where OTLP/gRPC, health, reflection and the admin service listen; port 0 lets the system choose.
    pub grpc_listen: SocketAddr,
    /// Where OTLP/HTTP listens; port 0 lets the system choose.
    pub http_listen: SocketAddr,
    /// Who may send.
    pub auth: Auth,
    /// TLS on both listeners; `None` is plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Which browser origins may send.
    pub cors_origins: CorsOrigins,
    /// Under which names a listener on a loopback address may be reached; others ask for none.
    pub allowed_hosts: AllowedHosts,
    /// The largest request body after decompression, bytes.
    pub max_body_bytes: usize,
    /// The budget for everything between receipt and the staged file, bytes.
    pub max_buffered_bytes: u64,
    /// Open connections over both listeners.
    pub max_connections: usize,
    /// HTTP/2 streams on one connection.
    pub max_concurrent_streams: u32,
    /// When a request is answered.
    pub durability: Durability,
    /// How long a request whose answer cannot have reached its client is remembered; zero remembers none.
    pub dedup_window: Duration,
    /// Disk space for the journal and the staged files together, bytes.
    pub journal_max_bytes: u64,
    /// When the open buffer is cut.
    pub seal: SealConfig,
    /// Where the rows go.
    pub lake: LakeConfig,
    /// Where other DuckDBs query the lake; `None` is nowhere.
    pub quack: Option<QuackConfig>,
    /// How long a graceful stop may take before the process leaves anyway.
    pub shutdown_grace: Duration,
    /// The server's own log.
    pub log: LogConfig,
    /// Where each setting came from, by key; for messages and [`Config::effective`].
    pub origins: Origins,
    /// What duckdb-otlp's environment said.
    pub foreign: Foreign,
}

/// Who may send, decided at the start.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Anyone who can reach the port.
    Open {
        /// Why that is allowed.
        because: OpenReason,
    },
    /// Whoever shows a token.
    Token(Tokens),
}

/// Where the tokens are: at least one of the two is there.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The token that may do everything.
    pub token: Option<Secret>,
    /// The file with named tokens. Absolute.
    pub file: Option<PathBuf>,
    /// Quack's token, which none of the others may be.
    pub quack: Option<Secret>,
}

/// The files of TLS. Absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, its issuers after it, PEM.
    pub cert: PathBuf,
    /// The certificate's private key, PEM.
    pub key: PathBuf,
    /// Who may issue clients' certificates; `None` asks for none.
    pub client_ca: Option<ClientCa>,
}

/// Mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCa {
    /// The certificates of the issuers, PEM.
    pub path: PathBuf,
    /// Whether a client must show a certificate.
    pub auth: ClientAuth,
}

/// Why the server runs without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenReason {
    /// Both listeners are on this machine's loopback: worth a notice.
    Loopback,
    /// The user said `--no-auth`.
    NoAuth,
    /// Clients show a certificate instead.
    ClientCertificate,
}

/// When the open buffer is cut into a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealConfig {
    /// Decoded bytes in the open buffer at which it is cut.
    pub target_bytes: u64,
    /// Age of the buffer's oldest row at which it is cut.
    pub max_age: Duration,
}

/// How the server logs about itself, to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Lines for people or JSON objects.
    pub format: LogFormat,
    /// What is logged.
    pub level: LogLevel,
}

impl Config {
    /// Reads the file, if there is one, and the environment, lays flags over them and validates the whole.
    ///
    /// `config_file` is the value of `--config`; without it `OTLAKE_CONFIG` names the file. `environment` is
    /// normally [`std::env::vars_os`]. Binds nothing and creates nothing; looks at the working folder only to
    /// make paths absolute.
    ///
    /// # Errors
    /// [`ConfigError`] with the first setting that is unknown, unreadable, outside its range or contradicts another.
    pub fn load(
        flags: RawSettings,
        config_file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        validate::validate(sources::gather(flags, config_file, environment)?)
    }

    /// The settings in effect as a TOML file, each with a comment that says where it came from.
    ///
    /// `--config` takes the text back. The token alone is left out, as a comment: a mask that could be read back
    /// would become a token that everybody knows.
    #[must_use]
    pub fn effective(&self) -> String {
        effective::render(self)
    }
}
