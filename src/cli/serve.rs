//! `otlake serve`: settings to a running server, and the banner that says how to use it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use rustix::fs::Mode;

use super::args::ServeArgs;
use crate::config::{Auth, ClientAuth, Config, LogFormat, OpenReason};
use crate::daemon::reload::Secrets;
use crate::daemon::{Addresses, Daemon, StartError};
use crate::journal::ScanError;
use crate::seal::recovery::RecoveryError;
use crate::signal::Durability;
use crate::telemetry;

/// Runs the server until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::load(args.settings, args.config, std::env::vars_os()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    if args.check || config.foreign.dry_run {
        if let Err(error) = Secrets::read(&config) {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(2));
        }
        print!("{}", config.effective());
        return Ok(ExitCode::SUCCESS);
    }
    keep_files_private(&config);
    telemetry::start_logging(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("otlake-io")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let format = config.log.format;
    runtime
        .block_on(serve(config))
        .or_else(|error| match format {
            LogFormat::Human => Err(error),
            // Whoever reads the log as JSON gets the reason as JSON too.
            LogFormat::Json => {
                tracing::error!(error = format!("{error:#}"), "failed");
                Ok(super::failure::code(&error))
            }
        })
}

/// Takes the rights of others off all files that the process makes. otlake's own get their mode when they are made, but
/// catalog, merged files and the lake's folders are made by SQLite and DuckDB, and only the process's mask holds there.
fn keep_files_private(config: &Config) {
    let mask = if config.lake.is_group_readable {
        Mode::from_raw_mode(0o027)
    } else {
        Mode::from_raw_mode(0o077)
    };
    rustix::process::umask(mask);
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let data_dir = config.data_dir.clone();
    let started = Daemon::start(config).await;
    let mut daemon = started.map_err(|error| explain(error, &data_dir))?;
    let Addresses { grpc, http, quack } = daemon.addresses();
    let quack = quack.map(tracing::field::display);
    tracing::info!(%grpc, %http, quack, "ready");
    print!("{}", banner(daemon.config(), daemon.addresses()));
    daemon.wait_for_stop().await;
    let farewell = daemon.stop().await;
    if farewell.staged_seals_left > 0 {
        tracing::warn!(
            seals = farewell.staged_seals_left,
            "seals are staged on disk and not in the lake yet; the next start publishes them"
        );
    }
    if farewell.rows_journaled > 0 {
        tracing::warn!(
            rows = farewell.rows_journaled,
            "rows are in the journal and not in the lake yet; the next start takes them up"
        );
    }
    if farewell.rows_lost > 0 {
        tracing::error!(
            rows = farewell.rows_lost,
            "rows could not be written to disk and are lost"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what to do where the error's own text cannot know how this program was called.
fn explain(error: StartError, data_dir: &Path) -> anyhow::Error {
    let damage = match &error {
        StartError::Journal(ScanError::Damaged(damage))
        | StartError::Recovery(RecoveryError::Journal(ScanError::Damaged(damage))) => damage,
        _ => return error.into(),
    };
    let (program, flag) = (super::program_name(), super::data_dir_flag(data_dir));
    anyhow!(
        "the journal, which has what was acknowledged and is not in the lake yet, is damaged: {damage}. Nothing was changed. \
         `{program} journal inspect{flag}` shows what it affects. Then restore that file from a copy, or give up what cannot \
         be read and keep everything else with `{program} journal repair --skip-damaged{flag}`"
    )
}

/// What a person needs right after the start.
fn banner(config: &Config, addresses: Addresses) -> String {
    let Addresses { grpc, http, .. } = addresses;
    let (auth, grpc_headers, sdk_headers) = match &config.auth {
        Auth::Token(_) => (
            "every client needs the token: authorization: Bearer TOKEN",
            ", headers = { authorization = \"Bearer TOKEN\" }",
            " OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer TOKEN'",
        ),
        Auth::Open {
            because: OpenReason::Loopback,
        } => (
            "no token: every program on this machine can send (set --token to change that)",
            "",
            "",
        ),
        Auth::Open {
            because: OpenReason::NoAuth,
        } => (
            "NO TOKEN: everyone who can reach these ports can send (--no-auth)",
            "",
            "",
        ),
        Auth::Open {
            because: OpenReason::ClientCertificate,
        } => (
            "every client needs a certificate of --tls-client-ca",
            "",
            "",
        ),
    };
    let (endpoint, transport) = transport(config, for_clients(grpc));
    let sdk_headers = format!("{}{sdk_headers}", sdk_files(config));
    let codex = format!("{{ otlp-grpc = {{ endpoint = \"{endpoint}\"{grpc_headers} }} }}");
    let data_dir = super::shell_quoted(&config.data_dir.display().to_string());
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\
otlake {version}
  OTLP/gRPC  {grpc}, and OTAP
  OTLP/HTTP  {http}
  lake       {catalog}, files in {files}
  transport  {transport}
  access     {auth}
  answers    {answers}
{sql}
  OpenTelemetry SDK
    export OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_EXPORTER_OTLP_PROTOCOL=grpc{sdk_headers}
  Codex (~/.codex/config.toml)
    [otel]
    exporter = {codex}
    trace_exporter = {codex}
    metrics_exporter = {codex}
  Claude Code
    export CLAUDE_CODE_ENABLE_TELEMETRY=1 CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1 OTEL_LOGS_EXPORTER=otlp \\
      OTEL_METRICS_EXPORTER=otlp OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=grpc \\
      OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}{sdk_headers}
  Query
    {token}{program} query --data-dir {data_dir} \"SELECT * FROM otlp_logs ORDER BY time_unix_nano DESC LIMIT 10\"
",
        version = env!("CARGO_PKG_VERSION"),
        catalog = config.lake.catalog,
        files = config.lake.data_path.display(),
        answers = answers(config.durability),
        sql = sql(config, addresses),
        program = super::program_name(),
        token = match config.auth {
            Auth::Token(_) => "OTLAKE_TOKEN=TOKEN ",
            Auth::Open { .. } => "",
        },
    );
    text
}

/// Where other DuckDBs query, and what was taken from duckdb-otlp's environment.
fn sql(config: &Config, addresses: Addresses) -> String {
    let mut text = String::new();
    if let (Some(quack), Some(address)) = (&config.quack, addresses.quack) {
        let name = &quack.lake_name;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  quack      quack:{address}, for those with its token; the lake is `{name}` there{}",
            match address.ip().to_canonical().is_loopback() {
                true => "",
                false => " (PLAIN HTTP: token and answers cross the network unencrypted)",
            }
        );
    }
    for line in config.foreign.told() {
        let _ = writeln!(text, "  duckdb-otlp {line}");
    }
    text
}

/// Where clients send to, and what protects the way.
fn transport(config: &Config, grpc: std::net::SocketAddr) -> (String, &'static str) {
    match &config.tls {
        None => (format!("http://{grpc}"), "plain HTTP"),
        Some(tls) => (
            // The certificate is for a name that only the user knows.
            format!("https://HOST:{}", grpc.port()),
            match &tls.client_ca {
                None => "TLS (HOST is a name that is in the certificate)",
                Some(ca) => match ca.auth {
                    ClientAuth::Required => {
                        "TLS, and every client shows a certificate (HOST is a name that is in the server's)"
                    }
                    ClientAuth::Optional => {
                        "TLS, and clients may show a certificate (HOST is a name that is in the server's)"
                    }
                },
            },
        ),
    }
}

/// The variables that tell an OpenTelemetry SDK the files of TLS.
fn sdk_files(config: &Config) -> &'static str {
    let Some(tls) = &config.tls else {
        return "";
    };
    match &tls.client_ca {
        None => " OTEL_EXPORTER_OTLP_CERTIFICATE=CA_FILE",
        Some(_) => {
            " OTEL_EXPORTER_OTLP_CERTIFICATE=CA_FILE OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=FILE OTEL_EXPORTER_OTLP_CLIENT_KEY=FILE"
        }
    }
}

/// When requests are answered, and what to know about it.
fn answers(durability: Durability) -> &'static str {
    match durability {
        Durability::Journal => "once rows are on disk (--durability journal)",
        Durability::Memory => {
            "ONCE ROWS ARE IN MEMORY: a crash loses those not on disk yet (--durability memory)"
        }
        Durability::Lake => {
            "once rows are in the lake: give clients the time for that (--durability lake)"
        }
    }
}

/// An address that a client on this machine can connect to.
fn for_clients(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
