//! `otlake generate`: man pages and shell completions, made of the same description as `--help`.

use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::args::{Cli, GenerateCommand};

/// Runs the command.
///
/// # Errors
/// When the folder, or standard output, cannot be written.
pub(super) fn run(command: GenerateCommand) -> anyhow::Result<ExitCode> {
    match command {
        GenerateCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "otlake", &mut script);
            std::io::stdout()
                .write_all(&script)
                .context("cannot write the script")?;
        }
        GenerateCommand::Man { dir } => {
            fs::create_dir_all(&dir)
                .with_context(|| format!("cannot make the folder {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), &dir)
                .with_context(|| format!("cannot write man pages into {}", dir.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
