//! The command line: one file a command, `args` for what each takes.

pub mod args;
mod client;
mod doctor;
mod failure;
mod flush;
mod generate;
mod healthcheck;
mod journal;
mod query;
mod seals;
#[doc(hidden)]
pub mod send;
mod serve;
mod status;
mod stop;
mod table;
mod tail;
mod tls;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use args::{Cli, Command};

use crate::config::lake::DATA_DIR;

/// Parses the arguments, runs the command, and prints its error.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args),
        Command::Query(args) => block_on(query::run(args)),
        Command::Flush(args) => block_on(flush::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Healthcheck(args) => block_on(healthcheck::run(args)),
        Command::Seals(args) => block_on(seals::run(args)),
        Command::Journal(command) => journal::run(command),
        Command::Tail(args) => block_on(tail::run(args)),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Stop(args) => block_on(stop::run(args)),
        Command::Send(args) => block_on(send::run(args)),
        Command::Generate(command) => generate::run(command),
    };
    outcome.unwrap_or_else(|error| failure::report(&error))
}

/// Runs a client command.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(command)
}

/// How this program was called, to repeat it in hints.
fn program_name() -> String {
    std::env::args()
        .next()
        .map_or_else(|| "otlake".to_owned(), |name| shell_quoted(&name))
}

/// The flag that names a data folder in hints, with a blank before it; nothing for the default one.
fn data_dir_flag(data_dir: &Path) -> String {
    let is_default = std::path::absolute(DATA_DIR).is_ok_and(|default| default == data_dir);
    if is_default {
        return String::new();
    }
    format!(
        " --data-dir {}",
        shell_quoted(&data_dir.display().to_string())
    )
}

/// Text that a shell takes as one word.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
