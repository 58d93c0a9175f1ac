//! `otlake query`: SQL over the lake, in this process and read-only, whether a server runs or not.
//!
//! ```text
//! SQL -> running server flushes (a failure is a warning) -> lake attached read-only -> DuckDB -> chunks -> format
//! ```
//!
//! Rows are written as they come: only tables hold up to 10,000 of them. Several statements run in order, each with its
//! rows where the format has room for them. A reader that goes away (`| head`) ends the query quietly.

mod output;
mod rows;
mod statements;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod value;
mod waiting;

use std::io::{self, BufWriter, IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::{OutputFormat, QueryArgs};
use super::client::{ANSWER_TIMEOUT, Client, Found, Target};
use super::failure::UsageError;
use super::flush::flush;
use super::table as layout;
use crate::config::Secret;
use crate::lake::{self, LakeConfig};
use crate::proto::admin::StatusRequest;
use crate::server_file::{LakeFile, ServerFile};
use rows::{QueryError, Rows};

/// How long the server may take to commit before the query goes on with what is in the lake.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs `otlake query`.
///
/// # Errors
/// [`UsageError`] or a wrong setting, and when the lake cannot be opened. An error in the SQL is written here, in
/// DuckDB's own words.
pub(super) async fn run(args: QueryArgs) -> anyhow::Result<ExitCode> {
    let data_dir = std::path::absolute(&args.client.data_dir)?;
    let lake = match LakeFile::read(&data_dir) {
        Some(file) => file.complete(args.lake.clone(), &data_dir),
        None => {
            // What it says is needed where the user does not say it.
            if args.lake.catalog.is_none() {
                LakeFile::check_is_visible(&data_dir)?;
            }
            args.lake.clone()
        }
    }
    .resolve(&data_dir)?;
    let sql = statement(args.sql.as_deref(), args.format)?;
    if !args.no_flush {
        flush_running_server(&args).await?;
    }
    // A running server brings what it has into the lake; another catalog is not this folder's.
    let is_stopped = args.client.endpoint.is_none() && ServerFile::running(&data_dir).is_none();
    let left_in = (is_stopped && args.lake.catalog.is_none()).then_some(data_dir);
    tokio::task::spawn_blocking(move || query(&lake, &sql, args.format, left_in.as_deref())).await?
}

/// The SQL from the command line, or all of standard input.
fn statement(argument: Option<&str>, format: OutputFormat) -> anyhow::Result<String> {
    let sql = match argument {
        Some(sql) if sql != "-" => sql.to_owned(),
        None if io::stdin().is_terminal() => {
            return Err(UsageError(
                "which SQL? write it as an argument, such as otlake query \"FROM otlp_logs\", or pipe it in"
                    .to_owned(),
            )
            .into());
        }
        _ => {
            let mut sql = String::new();
            io::stdin().lock().read_to_string(&mut sql)?;
            sql
        }
    };
    let parts = statements::split(&sql);
    if parts.is_empty() {
        return Err(UsageError(QueryError::NoStatement.to_string()).into());
    }
    statements::check(&parts, format).map_err(|error| UsageError(error.to_string()))?;
    Ok(sql)
}

/// Asks for a commit of what was received. Without it the query still has an answer, only an older one.
async fn flush_running_server(args: &QueryArgs) -> Result<(), UsageError> {
    let target = Target::find(&args.client)?;
    if target.found == Found::Guessed {
        return Ok(());
    }
    if let Err(error) = try_flush(&target, args.client.token.as_ref()).await {
        eprintln!("warning: not flushed, the newest rows may be missing: {error}");
    }
    Ok(())
}

/// Flushes, unless the server knows that rows do not reach the lake: that could only be waited for.
async fn try_flush(target: &Target, token: Option<&Secret>) -> anyhow::Result<()> {
    let mut client = Client::connect(target, token, ANSWER_TIMEOUT).await?;
    match client.admin.status(StatusRequest {}).await {
        Err(status) => return Err(client.explain(&status)),
        Ok(status) => {
            let degraded = status.into_inner().degraded;
            anyhow::ensure!(degraded.is_empty(), "the server is degraded, {degraded}");
        }
    }
    flush(target, token, FLUSH_TIMEOUT).await.map(drop)
}

/// `left_in` is a data folder without a server, of whose rows some may not be in the lake.
fn query(
    lake: &LakeConfig,
    sql: &str,
    format: OutputFormat,
    left_in: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let connection = lake::open_read_only(lake)?;
    if let Some(note) = left_in.and_then(|data_dir| waiting::note(data_dir, &connection)) {
        eprintln!("{note}");
    }
    match print(&connection, sql, format) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(QueryError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let error = suggest::mend(&error.to_string());
            eprintln!("{}", error.trim_end());
            if let Some(hint) = hint(&error, lake) {
                eprintln!("{hint}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What to do about an error of DuckDB's, where its own words do not say it.
fn hint(error: &str, lake: &LakeConfig) -> Option<&'static str> {
    let folder = lake.data_path.to_str()?;
    let is_ours = error.contains("Permission denied") && error.contains(folder);
    is_ours.then_some(
        "this user has no right to read the lake's files: run this as the user that the server runs as, or let a group \
         read them with `otlake serve --lake-group-readable` (docs/SECURITY.md, Files)",
    )
}

fn print(
    connection: &duckdb::Connection,
    sql: &str,
    format: OutputFormat,
) -> Result<(), QueryError> {
    let stdout = io::stdout().lock();
    let width = stdout
        .is_terminal()
        .then(|| comfy_table::Table::new().width())
        .flatten();
    let mut out = BufWriter::new(stdout);
    show(connection, sql, format, width, &mut out)?;
    Ok(out.flush()?)
}

/// Runs each statement and prints its rows, but for those that only say that they are done.
fn show(
    connection: &duckdb::Connection,
    sql: &str,
    format: OutputFormat,
    width: Option<u16>,
    out: &mut impl Write,
) -> Result<(), QueryError> {
    let mut parts = statements::split(sql);
    statements::check(&parts, format)?;
    let last = parts.pop().ok_or(QueryError::NoStatement)?;
    let mut shown = 0;
    for part in parts {
        let start = Instant::now();
        let mut rows = Rows::open(connection, &part.text)?;
        if !part.gives_rows && rows.is_acknowledgement() {
            while rows.next_chunk()?.is_some() {}
        } else {
            write_rows(&mut rows, format, width, shown, start, out)?;
            shown += 1;
        }
    }
    let start = Instant::now();
    let mut rows = Rows::open(connection, &last.text)?;
    if shown > 0 && !last.gives_rows && rows.is_acknowledgement() {
        while rows.next_chunk()?.is_some() {}
        return Ok(());
    }
    write_rows(&mut rows, format, width, shown, start, out)
}

/// Prints the rows of a statement, behind those of `shown` others.
fn write_rows(
    rows: &mut Rows<'_>,
    format: OutputFormat,
    width: Option<u16>,
    shown: usize,
    start: Instant,
    out: &mut impl Write,
) -> Result<(), QueryError> {
    if shown > 0 && !statements::holds_several(format) {
        return Err(QueryError::OneResult);
    }
    match format {
        OutputFormat::Table => {
            if shown > 0 {
                writeln!(out)?;
            }
            let count = table::table(rows, out, width)?;
            if width.is_some() {
                let count = layout::rows(u64::try_from(count).unwrap_or(u64::MAX));
                writeln!(out, "{count}, {}", layout::duration(start.elapsed()))?;
            }
        }
        OutputFormat::Json => output::json(rows, out)?,
        OutputFormat::Ndjson => output::ndjson(rows, out)?,
        OutputFormat::Csv => output::csv(rows, out)?,
    }
    Ok(out.flush()?)
}
