//! The forms single values are written in, the same in flags, environment and file.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use tracing_subscriber::EnvFilter;

use crate::signal::Durability;

/// A number of bytes, written `16MiB`, `64KB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        match text.trim().parse::<ByteSize>() {
            Ok(size) => Ok(Size(size.as_u64())),
            Err(_) => Err(format!(
                "`{text}` is not a size: write 16MiB, 64KB or a plain number of bytes"
            )),
        }
    }
}

impl fmt::Display for Size {
    /// In the largest binary unit that divides it, so that nothing is rounded away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size(bytes) = *self;
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if bytes > 0 && bytes.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", bytes >> shift);
            }
        }
        write!(f, "{bytes}")
    }
}

/// A length of time, written `5s`, `15m`, `500ms` or `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        match humantime::parse_duration(text.trim()) {
            Ok(duration) => Ok(Span(duration)),
            Err(_) => Err(format!(
                "`{text}` is not a duration: write 500ms, 5s, 15m or 1h"
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

/// A whole number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u32);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Count, String> {
        match text.trim().parse() {
            Ok(count) => Ok(Count(count)),
            Err(_) => Err(format!(
                "`{text}` is not a whole number from 0 to {}",
                u32::MAX
            )),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An address to listen on, written `127.0.0.1:4317`, `[::1]:4317` or `localhost:4317`.
///
/// Other names are refused: what a name resolves to can change, and the rule for a token depends on the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let text = text.trim();
        let localhost = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.parse().ok()?;
            host.eq_ignore_ascii_case("localhost")
                .then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        };
        match text.parse().ok().or_else(localhost) {
            Some(address) => Ok(ListenAddress(address)),
            None => Err(format!(
                "`{text}` is not an address to listen on: write 127.0.0.1:4317, [::1]:4317, localhost:4317 or 0.0.0.0:4317"
            )),
        }
    }
}

/// A text that must never be shown: `Debug` and `Display` print a mask of fixed length.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for comparing and sending only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(********)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

// Written by hand and here: how settings are read is nothing that the shared words should know.
impl ValueEnum for Durability {
    fn value_variants<'a>() -> &'a [Durability] {
        &[Durability::Journal, Durability::Memory, Durability::Lake]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Durability::Journal => "Once its rows are in the journal, synced to disk",
            Durability::Memory => {
                "Once its rows are in memory; a crash loses up to a seal's worth of what was acknowledged"
            }
            Durability::Lake => {
                "Once its rows are in the lake, for OTAP streams and patient clients: an answer can take as long as --seal-max-age and a publish"
            }
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Durability, String> {
        let found = Durability::value_variants()
            .iter()
            .find(|known| known.name() == text);
        found
            .copied()
            .ok_or_else(|| format!("`{text}` is not a durability: write journal, memory or lake"))
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// None is let in without one
    #[default]
    Required,
    /// Who shows one must show a good one
    Optional,
}

impl ClientAuth {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ClientAuth::Required => "required",
            ClientAuth::Optional => "optional",
        }
    }
}

impl FromStr for ClientAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<ClientAuth, String> {
        match text {
            "required" => Ok(ClientAuth::Required),
            "optional" => Ok(ClientAuth::Optional),
            _ => Err(format!("`{text}` is neither: write required or optional")),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal only.
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "human" => Ok(LogFormat::Human),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is not a log format: write human or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        })
    }
}

/// What is logged: a level, or the directives of tracing's `EnvFilter`, known to parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogLevel {
    /// The text for `EnvFilter`. A plain level is otlake's own; libraries stay at `warn`, or `error` and `off` below it.
    #[must_use]
    pub fn directives(&self) -> String {
        match self.0.as_str() {
            quiet @ ("off" | "error" | "warn") => quiet.to_owned(),
            level if LEVELS.contains(&level) => format!("warn,otlake={level}"),
            directives => directives.to_owned(),
        }
    }
}

impl Default for LogLevel {
    fn default() -> LogLevel {
        LogLevel("info".to_owned())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        let text = text.trim();
        let level = text.to_ascii_lowercase();
        if LEVELS.contains(&level.as_str()) {
            return Ok(LogLevel(level));
        }
        // A lone word would be taken for a target's name: then a mistyped level would log nothing.
        let is_directive = text.contains('=') || text.contains(',');
        if is_directive && EnvFilter::builder().parse(text).is_ok() {
            return Ok(LogLevel(text.to_owned()));
        }
        Err(format!(
            "`{text}` is not a log level: write off, error, warn, info, debug, trace or directives such as info,otlake::lake=debug"
        ))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
