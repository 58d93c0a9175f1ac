//! The settings as they are written, from any of the three sources.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::quack::QuackAddress;
use super::value::{ClientAuth, Count, ListenAddress, LogFormat, LogLevel, Secret, Size, Span};
use crate::signal::Durability;

// Plain comments: clap would print a doc comment here as the help of every command that flattens the struct.
// One list of settings for flags, environment and file. `None` means this source does not set it. clap does not
// read the environment itself: kept apart, each source can be named in errors and in `--check`.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "the struct's description is a plain comment, for clap; each field has its own"
)]
pub struct RawSettings {
    /// Where OTLP/gRPC listens; port 0 takes a free one [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    #[serde(deserialize_with = "lenient")]
    pub grpc_listen: Option<ListenAddress>,

    /// Where OTLP/HTTP listens; port 0 takes a free one [default: 127.0.0.1:4318]
    #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
    #[serde(deserialize_with = "lenient")]
    pub http_listen: Option<ListenAddress>,

    /// Token that every request must carry, as `authorization: Bearer` or `x-api-key`: 16 visible ASCII characters or
    /// more. Other users of the machine can see flags: prefer the variable or the file
    #[arg(long, value_name = "TOKEN", help_heading = "Access")]
    #[serde(deserialize_with = "lenient")]
    pub token: Option<Secret>,

    /// File with named tokens, a line each: NAME ROLES TOKEN, where ROLES are of ingest, query and admin, joined by
    /// commas; taken up again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    #[serde(deserialize_with = "lenient")]
    pub token_file: Option<PathBuf>,

    /// Take requests from anyone, on an address that others can reach too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Access")]
    #[serde(deserialize_with = "lenient")]
    pub no_auth: Option<bool>,

    /// Browser origin that may send, such as https://app.example.com, or `*`; repeat it or separate by commas
    /// [default: none, requests with an Origin are refused]
    #[arg(
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    #[serde(deserialize_with = "text_list")]
    pub cors_origin: Option<Vec<String>>,

    /// Host by which clients may name a server that listens on a loopback address, beside localhost and loopback
    /// addresses, such as the name that a reverse proxy passes on, or `*`; repeat it or separate by commas [default: none]
    #[arg(
        long,
        value_name = "HOST",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    #[serde(deserialize_with = "text_list")]
    pub allowed_host: Option<Vec<String>>,

    /// Speak TLS on both listeners, with this certificate: a PEM file, its issuers after it. Taken up again when it
    /// changes, and on SIGHUP
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    #[serde(deserialize_with = "lenient")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    #[serde(deserialize_with = "lenient")]
    pub tls_key: Option<PathBuf>,

    /// Mutual TLS: clients show a certificate that one of this PEM file has issued
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    #[serde(deserialize_with = "lenient")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether every client must show a certificate [default: required, with --tls-client-ca]
    #[arg(long, value_name = "WHETHER", help_heading = "TLS")]
    #[serde(deserialize_with = "lenient")]
    pub tls_client_auth: Option<ClientAuth>,

    /// Let DuckDB's of other processes query the lake here, with their extension quack [default: off; as a bare flag
    /// 127.0.0.1:9494, and 9494 is the port where an address names none]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1", help_heading = "SQL")]
    #[serde(deserialize_with = "lenient")]
    pub quack_listen: Option<QuackAddress>,

    /// Token of those who query over quack, needed with --quack-listen and another one than --token. Whoever has it can
    /// read the whole lake, flush and stop
    #[arg(long, value_name = "TOKEN", help_heading = "SQL")]
    #[serde(deserialize_with = "lenient")]
    pub quack_token: Option<Secret>,

    /// What the lake is called in SQL over quack: a letter or `_`, then letters, digits or `_` [default: lake]
    #[arg(long, value_name = "NAME", help_heading = "SQL")]
    #[serde(deserialize_with = "lenient")]
    pub lake_name: Option<String>,

    /// The server's own folder: lock, journal, staged files and, unless placed elsewhere, the lake [default: ./otlake-data]
    #[arg(long, value_name = "DIR", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub data_dir: Option<PathBuf>,

    /// DuckLake's catalog: sqlite:FILE or duckdb:FILE [default: sqlite:DATA_DIR/catalog.sqlite]
    #[arg(long, value_name = "CATALOG", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub catalog: Option<String>,

    /// Folder of the lake's Parquet files [default: DATA_DIR/lake]
    #[arg(long, value_name = "DIR", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub data_path: Option<PathBuf>,

    /// Schema of the lake's tables: a letter or `_`, then letters, digits or `_` [default: main]
    #[arg(long, value_name = "NAME", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub schema: Option<String>,

    /// Folder with DuckDB's extensions [default: the one scripts/setup made, else DuckDB's own]
    #[arg(long, value_name = "DIR", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub extension_dir: Option<PathBuf>,

    /// Small files of the lake are merged until they have this size [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub target_file_size: Option<Size>,

    /// How long an old snapshot of the lake stays readable [default: 15m]
    #[arg(long, value_name = "DURATION", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub snapshot_retention: Option<Span>,

    /// Let the group of the lake's folder read the lake: its files get mode 0640 and not 0600. Needs --catalog and
    /// --data-path outside of the data folder, which is its owner's alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Lake")]
    #[serde(deserialize_with = "lenient")]
    pub lake_group_readable: Option<bool>,

    /// When a request is answered [default: journal]
    #[arg(long, value_name = "WHEN", help_heading = "Durability")]
    #[serde(deserialize_with = "lenient")]
    pub durability: Option<Durability>,

    /// How long a request whose answer cannot have reached its client is remembered, so that its retry is not stored
    /// twice, up to 1h; 0s turns it off [default: 5m]
    #[arg(long, value_name = "DURATION", help_heading = "Durability")]
    #[serde(deserialize_with = "lenient")]
    pub dedup_window: Option<Span>,

    /// Disk space for the journal and staged files together, 1MiB to 64TiB; over it, requests are told to come back
    /// [default: 8GiB]
    #[arg(long, value_name = "SIZE", help_heading = "Durability")]
    #[serde(deserialize_with = "lenient")]
    pub journal_max_bytes: Option<Size>,

    /// Commit what was received once it takes this many bytes of memory, at most half of --max-buffered-bytes and of
    /// --journal-max-bytes [default: 128MiB, or a quarter of the smaller of the two if that is less]
    #[arg(long, value_name = "SIZE", help_heading = "Commits")]
    #[serde(deserialize_with = "lenient")]
    pub seal_target_bytes: Option<Size>,

    /// Commit what was received once it is this old, 10ms to 1h [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Commits")]
    #[serde(deserialize_with = "lenient")]
    pub seal_max_age: Option<Span>,

    /// Largest request body after decompression [default: 16MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    #[serde(deserialize_with = "lenient")]
    pub max_body_bytes: Option<Size>,

    /// Memory for everything between receipt and the staged file; over it, requests are told to come back [default: 512MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    #[serde(deserialize_with = "lenient")]
    pub max_buffered_bytes: Option<Size>,

    /// Open connections over both listeners [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    #[serde(deserialize_with = "lenient")]
    pub max_connections: Option<Count>,

    /// HTTP/2 streams on one connection [default: 256]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    #[serde(deserialize_with = "lenient")]
    pub max_concurrent_streams: Option<Count>,

    /// How long a graceful stop may take, 0s to 1h [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Process")]
    #[serde(deserialize_with = "lenient")]
    pub shutdown_grace: Option<Span>,

    /// How the server's log on stderr looks; colours on a terminal only [default: human]
    #[arg(long, value_name = "FORMAT", help_heading = "Process")]
    #[serde(deserialize_with = "lenient")]
    pub log_format: Option<LogFormat>,

    /// off, error, warn, info, debug or trace, or directives such as info,otlake::lake=debug [default: RUST_LOG, else info]
    #[arg(long, value_name = "LEVEL", help_heading = "Process")]
    #[serde(deserialize_with = "lenient")]
    pub log_level: Option<LogLevel>,
}

/// Takes a text, a number or a boolean and reads it as a flag's text would be read: `64` and `"64"` are one.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    deserializer
        .deserialize_any(TextVisitor(PhantomData))
        .map(Some)
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a whole number or a boolean")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
}

/// Takes a list of texts, or one text with commas.
fn text_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct ListVisitor;

    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts, or a text with commas")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text.split(',').map(|part| part.trim().to_owned()).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(ListVisitor).map(Some)
}
