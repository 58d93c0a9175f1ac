//! `otlake journal`: what is in the write-ahead journal, and a way on when it is damaged.

mod json;
mod seals;
mod text;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use self::seals::Seals;
use super::args::{JournalCommand, JournalInspectArgs, JournalRepairArgs};
use super::{data_dir_flag, program_name, table};
use crate::data_dir::DataDir;
use crate::disk::RealDisk;
use crate::journal::inspect::{Inspection, inspect};
use crate::journal::repair::repair;
use crate::server_file::ServerFile;

/// Runs `otlake journal`.
///
/// # Errors
/// One line, when there is no journal, it cannot be read, or it is damaged and not to be repaired yet.
pub(super) fn run(command: JournalCommand) -> anyhow::Result<ExitCode> {
    match command {
        JournalCommand::Inspect(args) => run_inspect(&args),
        JournalCommand::Repair(args) => run_repair(&args),
    }
}

/// A journal that was looked at, and what is known of its seals.
struct Found {
    inspection: Inspection,
    seals: Seals,
    /// The process id of the server that writes to it.
    server: Option<u32>,
}

fn run_inspect(args: &JournalInspectArgs) -> anyhow::Result<ExitCode> {
    let data_dir = journal_of(&args.journal.data_dir)?;
    let found = look(&data_dir)?;
    let shown = if args.json {
        json::inspection(&found).to_string()
    } else {
        text::inspection(&found)
    };
    table::print(&shown)?;
    if !found.inspection.is_damaged() {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.json {
        table::print(&format!("\n{}", ways_on(&found, &data_dir)))?;
    }
    Ok(ExitCode::FAILURE)
}

fn run_repair(args: &JournalRepairArgs) -> anyhow::Result<ExitCode> {
    let data_dir = journal_of(&args.journal.data_dir)?;
    // Nobody may write while the damage is judged, and none of it is judged twice.
    let _locked = DataDir::open(&data_dir)?;
    let found = look(&data_dir)?;
    if !found.inspection.is_damaged() {
        table::print(&text::nothing_to_repair(&found))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(trouble) = &found.seals.trouble {
        bail!(
            "{trouble}; the lake must be readable: a repair has to know which seals are in it, or their rows would be stored again; nothing was changed"
        );
    }
    if !args.skip_damaged {
        table::print(&text::would_give_up(&found))?;
        let flag = data_dir_flag(&data_dir);
        bail!(
            "the journal is damaged, and nothing was changed: to give that up and keep everything else, `{} journal repair --skip-damaged{flag}`",
            program_name()
        );
    }
    let repaired = repair(&RealDisk, &found.inspection)?;
    table::print(&text::repaired(&found, &repaired))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder, absolute, if there is a journal in it.
fn journal_of(data_dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let data_dir = std::path::absolute(data_dir)?;
    if !data_dir.join("journal").is_dir() {
        bail!(
            "there is no journal in {}: name the server's folder with --data-dir",
            data_dir.display()
        );
    }
    Ok(data_dir)
}

fn look(data_dir: &Path) -> anyhow::Result<Found> {
    let server = ServerFile::running(data_dir).map(|server| server.pid);
    let mut inspection = inspect(&RealDisk, &data_dir.join("journal"))?;
    // Without damage nobody asks for the seals, and the lake need not be opened.
    let seals = if inspection.is_damaged() {
        let seals = Seals::find(data_dir, &inspection).context("cannot read the staged seals")?;
        inspection.restore_cuts(&seals.cuts);
        seals
    } else {
        Seals::default()
    };
    Ok(Found {
        inspection,
        seals,
        server,
    })
}

/// What to do about damage.
fn ways_on(found: &Found, data_dir: &Path) -> String {
    if let Some(trouble) = &found.seals.trouble {
        return format!(
            "Which rows are in the lake, and so lost or not, cannot be told: {trouble}.\n\
             Restore the damaged files from a copy; or make the lake readable and look again"
        );
    }
    format!(
        "Restore the damaged files from a copy; or keep everything else and give up {}:\n  {} journal repair --skip-damaged{}",
        text::given_up(found),
        program_name(),
        data_dir_flag(data_dir)
    )
}
