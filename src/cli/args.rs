//! What each command takes: plain data, no behaviour.

mod help;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};

use crate::config::value::Span;
use crate::config::{LakeArgs, RawSettings, Secret, variable_name};

/// What `otlake --version` says: the program, its commit, and what it was built for. `-V` says the first line.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit   ",
    env!("OTLAKE_COMMIT"),
    "\nDuckDB   ",
    env!("OTLAKE_DUCKDB_VERSION"),
    // The format of the lakes that DuckDB's extension of this version makes; a test looks at one.
    "\nDuckLake 1.0"
);

/// Receives OpenTelemetry over OTLP/gRPC and OTLP/HTTP and writes it to a DuckLake
#[derive(Clone, Debug, Parser)]
#[command(version, long_version = LONG_VERSION, max_term_width = 110, after_help = help::OTLAKE)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// Run the receiver until SIGTERM, Ctrl-C or `otlake stop`
    #[command(after_help = help::SERVE)]
    Serve(Box<ServeArgs>),
    /// Query the lake with SQL, read-only, whether a server runs or not
    #[command(after_help = help::QUERY)]
    Query(QueryArgs),
    /// Make everything received so far queryable, and wait for it
    #[command(after_help = help::FLUSH)]
    Flush(FlushArgs),
    /// Show what the running server has received, refused, buffered and committed
    #[command(after_help = help::STATUS)]
    Status(StatusArgs),
    /// Say in one line and the exit code whether the server is fit to be sent to, as for a container's health check
    #[command(after_help = help::HEALTHCHECK)]
    Healthcheck(HealthcheckArgs),
    /// List the most recent seals (the units of commit), newest first; without a server, those in the lake
    #[command(after_help = help::SEALS)]
    Seals(SealsArgs),
    /// Show what arrives, while it does, one line a record, until Ctrl-C
    #[command(after_help = help::TAIL)]
    Tail(TailArgs),
    /// Look at the server and at the settings of this machine's clients, and say what to change
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// Look into the write-ahead journal, and repair a damaged one
    #[command(subcommand, after_help = help::JOURNAL)]
    Journal(JournalCommand),
    /// Stop the running server gracefully, as SIGTERM does, and wait until it has ended
    #[command(after_help = help::STOP)]
    Stop(StopArgs),
    /// Send telemetry, generated or from files, and measure the answers
    #[command(after_help = help::SEND)]
    Send(SendArgs),
    /// Write man pages, or completions for a shell
    #[command(subcommand, after_help = help::GENERATE)]
    Generate(GenerateCommand),
}

/// What `otlake generate` writes.
#[derive(Clone, Debug, Subcommand)]
pub enum GenerateCommand {
    /// Write completions for a shell to standard output
    #[command(after_help = help::GENERATE)]
    Completions {
        /// The shell that is to complete
        shell: clap_complete::Shell,
    },
    /// Write a man page for each command into a folder
    #[command(after_help = help::GENERATE)]
    Man {
        /// The folder; it is made if it is not there
        dir: PathBuf,
    },
}

// The doc comment of an `Args` struct would replace its command's description: plain comments for these.

// `otlake serve`
#[derive(Clone, Debug, Args)]
#[command(mut_args(name_variable))]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct ServeArgs {
    /// The settings that flags set.
    #[command(flatten)]
    pub settings: RawSettings,

    /// TOML file with settings; its keys are the flags' names
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub config: Option<PathBuf>,

    /// Check the settings, print them with where each came from, and exit
    #[arg(long, help_heading = "Process")]
    pub check: bool,
}

/// Says in the help which variable sets what the flag sets. `Config::load` reads the variables, not clap.
fn name_variable(arg: Arg) -> Arg {
    let Some(key) = arg.get_long().filter(|key| *key != "check") else {
        return arg;
    };
    let text = format!(
        "{} [env: {}]",
        arg.get_help().map(ToString::to_string).unwrap_or_default(),
        variable_name(key)
    );
    arg.help(text)
}

// How to find and address the running server.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described where it is flattened")]
pub struct ClientArgs {
    /// Address of the server's gRPC port [default: as the server of --data-dir says, else http://127.0.0.1:4317]
    #[arg(
        long,
        value_name = "URL",
        env = "OTLAKE_ENDPOINT",
        help_heading = "Server"
    )]
    pub endpoint: Option<String>,

    /// The server's token
    #[arg(
        long,
        value_name = "TOKEN",
        env = "OTLAKE_TOKEN",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub token: Option<Secret>,

    /// How to speak TLS with it.
    #[command(flatten)]
    pub tls: ClientTlsArgs,

    /// The server's data folder
    #[arg(long, value_name = "DIR", env = "OTLAKE_DATA_DIR", default_value = crate::config::lake::DATA_DIR, help_heading = "Server")]
    pub data_dir: PathBuf,
}

// Whom a client trusts, and who it says it is.
#[derive(Clone, Debug, Default, Args)]
#[allow(missing_docs, reason = "described where it is flattened")]
pub struct ClientTlsArgs {
    /// PEM file with the issuer of the server's certificate, for https:// endpoints and those without a scheme [default: those
    /// that this machine trusts; the server of --data-dir is known by its certificate]
    #[arg(long, value_name = "FILE", env = "OTLAKE_CA", help_heading = "Server")]
    pub ca: Option<PathBuf>,

    /// PEM file with the client's certificate, where the server asks for one
    #[arg(
        long,
        value_name = "FILE",
        env = "OTLAKE_CERT",
        help_heading = "Server"
    )]
    pub cert: Option<PathBuf>,

    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", env = "OTLAKE_KEY", help_heading = "Server")]
    pub key: Option<PathBuf>,
}

impl ClientTlsArgs {
    /// What an endpoint without a scheme means: who names an issuer wants TLS, and no token sent in the clear.
    #[must_use]
    pub fn default_scheme(&self) -> &'static str {
        if self.ca.is_some() { "https" } else { "http" }
    }
}

// `otlake query`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct QueryArgs {
    /// The statement, or several with `;` between them; `-`, or nothing with a pipe, reads it from standard input
    #[arg(value_name = "SQL")]
    pub sql: Option<String>,

    /// How rows are printed
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Table)]
    pub format: OutputFormat,

    /// Do not ask the running server to commit first what it has received
    #[arg(long)]
    pub no_flush: bool,

    /// Where the lake is.
    #[command(flatten)]
    pub lake: LakeArgs,

    /// Which server to flush, and whose data folder.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// How `otlake query` prints rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people
    Table,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
}

// `otlake flush`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct FlushArgs {
    /// How long to wait for the commit, 1ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,

    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

// `otlake status`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

// `otlake healthcheck`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct HealthcheckArgs {
    /// How long the answer may take, 1ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = timeout)]
    pub timeout: Duration,

    /// Ask only whether the server answers: a lake that is down delays rows, and a restart does not bring it back
    #[arg(long)]
    pub live: bool,

    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

// `otlake seals`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct SealsArgs {
    /// How many at most, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

// `otlake tail`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct TailArgs {
    /// Only this service; can be given more than once [default: all]
    #[arg(long, value_name = "NAME")]
    pub service: Vec<String>,

    /// Only this signal; can be given more than once [default: all]
    #[arg(long, value_enum)]
    pub signal: Vec<TailSignal>,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

// `otlake doctor`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What `otlake tail` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TailSignal {
    /// Log records
    Logs,
    /// Spans
    Traces,
    /// Metric data points of all five kinds
    Metrics,
}

/// The commands of `otlake journal`.
#[derive(Clone, Debug, Subcommand)]
pub enum JournalCommand {
    /// Show what is in the journal, and what is damaged; changes nothing, also while a server runs
    #[command(after_help = help::JOURNAL_INSPECT)]
    Inspect(JournalInspectArgs),
    /// Repair a damaged journal: give up what cannot be read, and keep everything else
    #[command(after_help = help::JOURNAL_REPAIR)]
    Repair(JournalRepairArgs),
}

// Which journal.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described where it is flattened")]
pub struct JournalArgs {
    /// The server's data folder
    #[arg(long, value_name = "DIR", env = "OTLAKE_DATA_DIR", default_value = crate::config::lake::DATA_DIR)]
    pub data_dir: PathBuf,
}

// `otlake journal inspect`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct JournalInspectArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// The journal.
    #[command(flatten)]
    pub journal: JournalArgs,
}

// `otlake journal repair`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct JournalRepairArgs {
    /// Give up what is damaged; without this nothing is changed, and what would be given up is shown
    #[arg(long)]
    pub skip_damaged: bool,

    /// The journal.
    #[command(flatten)]
    pub journal: JournalArgs,
}

// `otlake stop`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct StopArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

// `otlake send`
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "described by the command's variant")]
pub struct SendArgs {
    /// Files to send instead of generated records: OTLP protobuf (by --protocol), JSON or NDJSON (always over HTTP)
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// What to generate [default: logs], or what the files hold [default: told from content and name]
    #[arg(long, value_enum)]
    pub signal: Option<SendSignal>,

    /// Records to generate, of each signal
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "files")]
    pub count: u64,

    /// Records in one request, 1 to 100000, over OTAP to 65535
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "files")]
    pub batch: u32,

    /// Records a second over all connections [default: as fast as they are taken]
    #[arg(long, value_name = "N", conflicts_with = "files")]
    pub rate: Option<NonZeroU64>,

    /// Let the records have happened evenly over so long before the run, 1ms to 1000d [default: each as it is sent]
    #[arg(long, value_name = "DURATION", value_parser = over, conflicts_with = "files")]
    pub over: Option<Duration>,

    /// Connections that send at the same time, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "files")]
    pub connections: u32,

    /// How to send
    #[arg(long, value_enum, default_value_t = SendProtocol::Grpc)]
    pub protocol: SendProtocol,

    /// How requests are compressed
    #[arg(long, value_enum, default_value_t = SendCompression::None)]
    pub compression: SendCompression,

    /// Batches of a stream that may wait for an answer, 1 to 1024 [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "files", help_heading = "OTAP")]
    pub in_flight: Option<u32>,

    /// How the Arrow data inside a batch is compressed [default: zstd]
    #[arg(long, value_enum, help_heading = "OTAP")]
    pub arrow_compression: Option<ArrowCompression>,

    /// Where to send [default: http://127.0.0.1:4317 for grpc and otap, http://127.0.0.1:4318 for http and http-json]
    #[arg(
        long,
        value_name = "URL",
        env = "OTLAKE_SEND_ENDPOINT",
        help_heading = "Server"
    )]
    pub endpoint: Option<String>,

    /// The server's token
    #[arg(
        long,
        value_name = "TOKEN",
        env = "OTLAKE_TOKEN",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub token: Option<Secret>,

    /// How to speak TLS with it.
    #[command(flatten)]
    pub tls: ClientTlsArgs,

    /// How long to wait for one answer, 1ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout, help_heading = "Server")]
    pub timeout: Duration,

    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// What `otlake send` generates, or finds in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendSignal {
    /// Log records
    Logs,
    /// Spans
    Traces,
    /// Metric data points of all five kinds
    Metrics,
    /// All three
    All,
}

/// How `otlake send` speaks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendProtocol {
    /// OTLP/gRPC
    Grpc,
    /// OTLP/HTTP with protobuf
    Http,
    /// OTLP/HTTP with JSON
    HttpJson,
    /// OTAP: a gRPC stream of Arrow record batches a connection and signal
    Otap,
}

/// How `otlake send` compresses the Arrow data inside OTAP's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArrowCompression {
    /// Not at all
    None,
    /// Zstandard
    Zstd,
}

/// How `otlake send` compresses requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendCompression {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
    /// zlib's deflate
    Deflate,
}

/// A time to wait: the admin service counts it in 32-bit milliseconds, and an hour is more than enough.
fn timeout(text: &str) -> Result<Duration, String> {
    let Span(duration) = text.parse()?;
    if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&duration) {
        Ok(duration)
    } else {
        Err("it can be from 1ms to 1h".to_owned())
    }
}

/// How far back generated records reach.
fn over(text: &str) -> Result<Duration, String> {
    let Span(duration) = text.parse()?;
    if (Duration::from_millis(1)..=Duration::from_secs(1000 * 86_400)).contains(&duration) {
        Ok(duration)
    } else {
        Err("it can be from 1ms to 1000d".to_owned())
    }
}

#[cfg(test)]
mod tests;
