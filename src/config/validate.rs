//! From what the sources say to the [`Config`] that holds.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::duckdb_otlp;
use super::error::ConfigError;
use super::lake::{self, LakeArgs};
use super::limits;
use super::origin::{Origin, Origins};
use super::quack;
use super::raw::RawSettings;
use super::sources::Sources;
use super::value::{Count, LogFormat, LogLevel, Secret, Size, Span};
use super::{
    AllowedHosts, Auth, ClientAuth, ClientCa, Config, CorsOrigins, LogConfig, OpenReason,
    SealConfig, TlsConfig, Tokens,
};
use crate::lake::LakeConfig;

const TOKEN_CHARS_MIN: usize = 16;
const TOKEN_CHARS_MAX: usize = 1024;
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;

/// Checks each setting, then the relations between them.
pub(super) fn validate(mut sources: Sources) -> Result<Config, ConfigError> {
    let sources = &mut sources;
    let data_dir = data_dir(sources)?;
    let (grpc_listen, http_listen) = listeners(sources)?;
    let tls = tls(sources)?;
    let mut auth = auth(
        sources,
        [("grpc-listen", grpc_listen), ("http-listen", http_listen)],
        tls.as_ref(),
    )?;
    let cors_origins = cors_origins(sources)?;
    let allowed_hosts = allowed_hosts(sources)?;
    let durability = sources
        .pick("durability", |raw| raw.durability.take())
        .unwrap_or_default();
    let dedup_window = ranged(
        sources,
        "dedup-window",
        |raw| raw.dedup_window,
        Span(limits::DEDUP_WINDOW),
        limits::DEDUP_WINDOW_RANGE,
    )?;
    let bytes = byte_limits(sources)?;
    let max_age = ranged(
        sources,
        "seal-max-age",
        |raw| raw.seal_max_age,
        Span(limits::SEAL_MAX_AGE),
        limits::SEAL_MAX_AGE_RANGE,
    )?;
    let connections = ranged(
        sources,
        "max-connections",
        |raw| raw.max_connections,
        Count(limits::CONNECTIONS),
        limits::CONNECTIONS_RANGE,
    )?;
    let streams = ranged(
        sources,
        "max-concurrent-streams",
        |raw| raw.max_concurrent_streams,
        Count(limits::CONCURRENT_STREAMS),
        limits::CONCURRENT_STREAMS_RANGE,
    )?;
    let grace = ranged(
        sources,
        "shutdown-grace",
        |raw| raw.shutdown_grace,
        Span(limits::SHUTDOWN_GRACE),
        limits::SHUTDOWN_GRACE_RANGE,
    )?;
    let lake = lake_config(sources, &data_dir)?;
    let taken = [("grpc-listen", grpc_listen), ("http-listen", http_listen)];
    let quack = quack::validate(sources, &auth, taken)?;
    if let Auth::Token(tokens) = &mut auth {
        tokens.quack = quack.as_ref().map(|quack| quack.token.clone());
    }
    let log = log(sources)?;
    Ok(Config {
        data_dir,
        grpc_listen,
        http_listen,
        auth,
        tls,
        cors_origins,
        allowed_hosts,
        max_body_bytes: to_usize(bytes.body),
        max_buffered_bytes: bytes.buffered,
        max_connections: to_usize(u64::from(connections.0)),
        max_concurrent_streams: streams.0,
        durability,
        dedup_window: dedup_window.0,
        journal_max_bytes: bytes.journal,
        seal: SealConfig {
            target_bytes: bytes.seal_target,
            max_age: max_age.0,
        },
        lake,
        quack,
        shutdown_grace: grace.0,
        log,
        foreign: std::mem::take(&mut sources.foreign_variables).settled(&sources.origins),
        origins: std::mem::take(&mut sources.origins),
    })
}

fn data_dir(sources: &mut Sources) -> Result<PathBuf, ConfigError> {
    let path = sources
        .pick("data-dir", |raw| raw.data_dir.take())
        .unwrap_or_else(|| PathBuf::from(lake::DATA_DIR));
    lake::absolute(&path).map_err(|reason| sources.bad_value("data-dir", reason))
}

fn listeners(sources: &mut Sources) -> Result<(SocketAddr, SocketAddr), ConfigError> {
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let grpc = sources
        .pick("grpc-listen", |raw| raw.grpc_listen.take())
        .map_or(loopback(GRPC_PORT), |listen| listen.0);
    let http = sources
        .pick("http-listen", |raw| raw.http_listen.take())
        .map_or(loopback(HTTP_PORT), |listen| listen.0);
    if same_port(grpc, http) {
        return Err(ConfigError::Conflict(format!(
            "{} {grpc} and {} {http} are the same port: OTLP/gRPC and OTLP/HTTP need one each",
            sources.origins.place("grpc-listen"),
            sources.origins.place("http-listen"),
        )));
    }
    Ok((grpc, http))
}

/// Whether both cannot be bound at once. A wildcard takes the port on every address of its family, and that of
/// IPv6 takes IPv4's too.
pub(super) fn same_port(one: SocketAddr, two: SocketAddr) -> bool {
    let covers = |wide: IpAddr, other: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || wide.is_ipv4() == other.is_ipv4())
    };
    let overlap = one.ip() == two.ip() || covers(one.ip(), two.ip()) || covers(two.ip(), one.ip());
    one.port() != 0 && one.port() == two.port() && overlap
}

/// The files of TLS: certificate and key come together, the rest needs them.
fn tls(sources: &mut Sources) -> Result<Option<TlsConfig>, ConfigError> {
    let cert = path(sources, "tls-cert", |raw| raw.tls_cert.take())?;
    let key = path(sources, "tls-key", |raw| raw.tls_key.take())?;
    let client_ca = path(sources, "tls-client-ca", |raw| raw.tls_client_ca.take())?;
    let auth = sources.pick("tls-client-auth", |raw| raw.tls_client_auth.take());
    let needs = |key: &str, other: &str| {
        Err(ConfigError::Conflict(format!(
            "{} needs --{other} too",
            sources.origins.place(key)
        )))
    };
    match (cert, key) {
        (Some(_), None) => needs("tls-cert", "tls-key"),
        (None, Some(_)) => needs("tls-key", "tls-cert"),
        (None, None) if client_ca.is_some() => needs("tls-client-ca", "tls-cert and --tls-key"),
        _ if auth.is_some() && client_ca.is_none() => needs("tls-client-auth", "tls-client-ca"),
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsConfig {
            cert,
            key,
            client_ca: client_ca.map(|path| ClientCa {
                path,
                auth: auth.unwrap_or_default(),
            }),
        })),
    }
}

/// Picks a path and makes it absolute.
fn path(
    sources: &mut Sources,
    key: &'static str,
    take: impl Fn(&mut RawSettings) -> Option<PathBuf>,
) -> Result<Option<PathBuf>, ConfigError> {
    let picked = sources.pick(key, take);
    let absolute = picked.map(|path| lake::absolute(&path)).transpose();
    absolute.map_err(|reason| sources.bad_value(key, reason))
}

fn auth(
    sources: &mut Sources,
    listeners: [(&str, SocketAddr); 2],
    tls: Option<&TlsConfig>,
) -> Result<Auth, ConfigError> {
    let token = sources.pick("token", |raw| raw.token.take());
    let file = path(sources, "token-file", |raw| raw.token_file.take())?;
    let no_auth = sources
        .pick("no-auth", |raw| raw.no_auth.take())
        .unwrap_or(false);
    if token.is_some() || file.is_some() {
        if no_auth {
            let key = if token.is_some() {
                "token"
            } else {
                "token-file"
            };
            return Err(ConfigError::Conflict(format!(
                "{} and {} contradict each other: remove one",
                sources.origins.place(key),
                sources.origins.place("no-auth"),
            )));
        }
        if let Some(token) = &token {
            check_token(token).map_err(|reason| sources.bad_value("token", reason))?;
        }
        let quack = None;
        return Ok(Auth::Token(Tokens { token, file, quack }));
    }
    let client_auth = tls.and_then(|tls| tls.client_ca.as_ref()).map(|ca| ca.auth);
    if no_auth {
        return Ok(Auth::Open {
            because: OpenReason::NoAuth,
        });
    }
    if client_auth == Some(ClientAuth::Required) {
        return Ok(Auth::Open {
            because: OpenReason::ClientCertificate,
        });
    }
    match listeners
        .into_iter()
        .find(|(_, address)| !address.ip().to_canonical().is_loopback())
    {
        Some((key, address)) => Err(ConfigError::Conflict(format!(
            "{} {address} can be reached from other machines: set a token ({}, {TOKEN_CHARS_MIN} characters or more) or --token-file, or --no-auth to let anyone send",
            sources.origins.place(key),
            match sources.origins.of(key) {
                Origin::Foreign(_) => duckdb_otlp::TOKEN,
                _ => "OTLAKE_TOKEN",
            }
        ))),
        None => Ok(Auth::Open {
            because: OpenReason::Loopback,
        }),
    }
}

/// Says what is wrong without a word of the token.
pub(super) fn check_token(token: &Secret) -> Result<(), String> {
    let text = token.expose();
    if text.starts_with("${") {
        return Err(
            "the token starts with `${`: a variable was not expanded; give its value".to_owned(),
        );
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has a space, a control character or a character outside ASCII: only visible ASCII can be sent in a header".to_owned());
    }
    if !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len()) {
        return Err(format!(
            "the token has {} characters: it needs {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX}; `openssl rand -hex 16` makes one",
            text.len()
        ));
    }
    Ok(())
}

fn cors_origins(sources: &mut Sources) -> Result<CorsOrigins, ConfigError> {
    let list = sources
        .pick("cors-origin", |raw| raw.cors_origin.take())
        .unwrap_or_default();
    CorsOrigins::from_list(&list).map_err(|reason| sources.bad_value("cors-origin", reason))
}

fn allowed_hosts(sources: &mut Sources) -> Result<AllowedHosts, ConfigError> {
    let list = sources
        .pick("allowed-host", |raw| raw.allowed_host.take())
        .unwrap_or_default();
    AllowedHosts::from_list(&list).map_err(|reason| sources.bad_value("allowed-host", reason))
}

/// The limits on memory and disk that depend on each other as [`limits`] says, all in bytes.
struct ByteLimits {
    body: u64,
    buffered: u64,
    journal: u64,
    seal_target: u64,
}

/// Picks the limits, with defaults that follow from what was set, and holds them to their relations.
fn byte_limits(sources: &mut Sources) -> Result<ByteLimits, ConfigError> {
    let buffered = ranged(
        sources,
        "max-buffered-bytes",
        |raw| raw.max_buffered_bytes,
        Size(limits::BUFFERED_BYTES),
        limits::BUFFERED_BYTES_RANGE,
    )?;
    let journal = ranged(
        sources,
        "journal-max-bytes",
        |raw| raw.journal_max_bytes,
        Size(limits::JOURNAL_BYTES),
        limits::JOURNAL_BYTES_RANGE,
    )?;
    let seal_default = Size(limits::default_seal_target_bytes(buffered.0, journal.0));
    let seal = ranged(
        sources,
        "seal-target-bytes",
        |raw| raw.seal_target_bytes,
        seal_default,
        limits::SEAL_TARGET_BYTES_RANGE,
    )?;
    let body_default = Size(limits::default_body_bytes(buffered.0));
    let body = ranged(
        sources,
        "max-body-bytes",
        |raw| raw.max_body_bytes,
        body_default,
        limits::BODY_BYTES_RANGE,
    )?;
    if seal_default.0 != limits::SEAL_TARGET_BYTES {
        let smaller = if journal < buffered {
            "journal-max-bytes"
        } else {
            "max-buffered-bytes"
        };
        default_follows(sources, "seal-target-bytes", smaller);
    }
    if body_default.0 != limits::BODY_BYTES {
        default_follows(sources, "max-body-bytes", "max-buffered-bytes");
    }
    let limits = ByteLimits {
        body: body.0,
        buffered: buffered.0,
        journal: journal.0,
        seal_target: seal.0,
    };
    limits.fit_together(&sources.origins)?;
    Ok(limits)
}

/// Notes, unless the user set `key`, that its default follows from another setting.
fn default_follows(sources: &mut Sources, key: &'static str, from: &'static str) {
    if !sources.origins.is_set(key) {
        sources.origins.note(key, Origin::DefaultFrom(from));
    }
}

impl ByteLimits {
    fn fit_together(&self, origins: &Origins) -> Result<(), ConfigError> {
        let two_seals = self.seal_target.saturating_mul(2);
        for (key, limit, why) in [
            (
                "max-buffered-bytes",
                self.buffered,
                "one seal filling while one is staged",
            ),
            (
                "journal-max-bytes",
                self.journal,
                "one seal filling while one is published",
            ),
        ] {
            if two_seals > limit {
                return Err(ConfigError::Conflict(format!(
                    "{} {} needs {} of at least {}, {why}, and it is {}: raise the latter or lower the former",
                    origins.place("seal-target-bytes"),
                    Size(self.seal_target),
                    origins.place(key),
                    Size(two_seals),
                    Size(limit),
                )));
            }
        }
        if self.body > self.buffered {
            return Err(ConfigError::Conflict(format!(
                "{} {} does not fit into {} {}: raise the latter or lower the former",
                origins.place("max-body-bytes"),
                Size(self.body),
                origins.place("max-buffered-bytes"),
                Size(self.buffered),
            )));
        }
        Ok(())
    }
}

fn lake_config(sources: &mut Sources, data_dir: &Path) -> Result<LakeConfig, ConfigError> {
    let file_size = ranged(
        sources,
        "target-file-size",
        |raw| raw.target_file_size,
        Size(limits::TARGET_FILE_BYTES),
        limits::TARGET_FILE_BYTES_RANGE,
    )?;
    let retention = ranged(
        sources,
        "snapshot-retention",
        |raw| raw.snapshot_retention,
        Span(limits::SNAPSHOT_RETENTION),
        limits::SNAPSHOT_RETENTION_RANGE,
    )?;
    let args = LakeArgs {
        catalog: sources.pick("catalog", |raw| raw.catalog.take()),
        data_path: sources.pick("data-path", |raw| raw.data_path.take()),
        schema: sources.pick("schema", |raw| raw.schema.take()),
        extension_dir: sources.pick("extension-dir", |raw| raw.extension_dir.take()),
    };
    for key in ["catalog", "data-path"] {
        if !sources.origins.is_set(key) && sources.origins.is_set("data-dir") {
            sources.origins.note(key, Origin::DefaultFrom("data-dir"));
        }
    }
    let mut lake = lake::resolve(args, data_dir, |key, reason| sources.bad_value(key, reason))?;
    lake.target_file_size_bytes = file_size.0;
    lake.snapshot_retention = retention.0;
    lake.is_group_readable = sources
        .pick("lake-group-readable", |raw| raw.lake_group_readable)
        .unwrap_or(false);
    let inside = [
        ("catalog", lake.catalog.path()),
        ("data-path", lake.data_path.as_path()),
    ];
    let inside = inside
        .into_iter()
        .find(|(_, path)| path.starts_with(data_dir));
    match inside {
        Some((key, path)) if lake.is_group_readable => Err(ConfigError::Conflict(format!(
            "{} cannot open {} to the group: it is inside the data folder, which is its owner's alone; set --{key} to a place outside of {}",
            sources.origins.place("lake-group-readable"),
            path.display(),
            data_dir.display(),
        ))),
        _ => Ok(lake),
    }
}

fn log(sources: &mut Sources) -> Result<LogConfig, ConfigError> {
    let format = sources
        .pick("log-format", |raw| raw.log_format.take())
        .unwrap_or(LogFormat::Human);
    let level = match (
        sources.pick("log-level", |raw| raw.log_level.take()),
        sources.rust_log.take(),
    ) {
        (Some(level), _) => level,
        (None, Some(text)) => {
            sources
                .origins
                .note("log-level", Origin::Environment("RUST_LOG".to_owned()));
            text.parse::<LogLevel>()
                .map_err(|reason| sources.bad_value("log-level", reason))?
        }
        (None, None) => LogLevel::default(),
    };
    Ok(LogConfig { format, level })
}

/// Picks a setting and holds it to its range.
fn ranged<T: PartialOrd + Display>(
    sources: &mut Sources,
    key: &'static str,
    get: impl Fn(&RawSettings) -> Option<T>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    let value = sources.pick(key, |raw| get(raw)).unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange {
        at: sources.origins.place(key),
        value: value.to_string(),
        min: range.start().to_string(),
        max: range.end().to_string(),
    })
}

/// Every limit that becomes a `usize` is far below 4 GiB, which fits any machine otlake runs on.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
