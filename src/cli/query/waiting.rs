//! What a stopped server left outside of the lake: a query does not see it.

use std::collections::BTreeSet;
use std::path::Path;

use duckdb::Connection;

use crate::cli::table::{bytes, counted, rows};
use crate::data_dir;
use crate::disk::{Disk as _, RealDisk};
use crate::journal::CutRecord;
use crate::journal::inspect::{Inspection, inspect};
use crate::journal::scan::segment_paths;
use crate::seal::staged::StagedSeal;
use crate::signal::SealId;

/// A journal of up to this many bytes is read to know what of it is not in the lake: some tenths of a second.
const JOURNAL_READ_BYTES_MAX: u64 = 64 << 20;

/// One line about the rows that are acknowledged and not in the lake, as far as that can be known cheaply; `None` when
/// there are none, or nothing can be told.
pub(super) fn note(data_dir: &Path, lake: &Connection) -> Option<String> {
    let staged = staged(&data_dir.join("staged"));
    let journal = Journal::look(&data_dir.join("journal"));
    let cut = journal.cuts().iter().map(|cut| cut.seal);
    let first = staged.iter().map(|seal| seal.id).chain(cut).min();
    let mut safe = match first {
        None => BTreeSet::new(),
        Some(first) => published(data_dir, lake, first)?,
    };
    let waiting = staged.iter().filter(|seal| !safe.contains(&seal.id));
    let staged_rows: u64 = waiting.map(StagedSeal::rows).sum();
    safe.extend(staged.iter().map(|seal| seal.id));
    let mut parts = Vec::new();
    if staged_rows > 0 {
        parts.push(format!("{} staged", rows(staged_rows)));
    }
    parts.extend(journal.told(&safe));
    if parts.is_empty() {
        return None;
    }
    Some(format!(
        "note: not in the lake yet: {}; start otlake to bring that there",
        parts.join(", ")
    ))
}

/// The seals of this data folder from `first` on that are in the lake; `None` when that cannot be told.
fn published(data_dir: &Path, lake: &Connection, first: SealId) -> Option<BTreeSet<SealId>> {
    let writer = data_dir::writer(data_dir).ok()??;
    let sql = "SELECT seal_id FROM otlake_seals WHERE writer_id = ? AND seal_id >= ?";
    let mut statement = lake.prepare(sql).ok()?;
    let of = duckdb::params![writer.0, first.0];
    let seals = statement.query_map(of, |row| Ok(SealId(row.get(0)?)));
    seals.ok()?.collect::<Result<_, _>>().ok()
}

fn staged(dir: &Path) -> Vec<StagedSeal> {
    let folders = RealDisk.list(dir).unwrap_or_default();
    let read = |folder| StagedSeal::read(&RealDisk, folder).ok().flatten();
    folders.iter().filter_map(|folder| read(folder)).collect()
}

/// The journal, as far as it is read.
enum Journal {
    Read(Box<Inspection>),
    /// What can be said without reading it.
    Unread(String),
}

impl Journal {
    fn look(dir: &Path) -> Journal {
        let segments = segment_paths(&RealDisk, dir).unwrap_or_default();
        let sizes = segments.iter().filter_map(|path| path.metadata().ok());
        let size: u64 = sizes.map(|segment| segment.len()).sum();
        if size > JOURNAL_READ_BYTES_MAX {
            return Journal::Unread(format!("perhaps some of the journal's {}", bytes(size)));
        }
        match inspect(&RealDisk, dir) {
            Ok(inspection) if !inspection.is_damaged() => Journal::Read(Box::new(inspection)),
            _ => Journal::Unread("perhaps some of the journal, which cannot be read".to_owned()),
        }
    }

    fn cuts(&self) -> &[CutRecord] {
        match self {
            Journal::Read(inspection) => &inspection.cuts,
            Journal::Unread(_) => &[],
        }
    }

    /// What is in it and in none of these seals. A seal's cut is there as long as its batches are.
    fn told(self, safe: &BTreeSet<SealId>) -> Option<String> {
        let inspection = match self {
            Journal::Unread(text) => return Some(text),
            Journal::Read(inspection) => inspection,
        };
        let cuts = inspection.cuts.iter();
        let covered = cuts
            .filter(|cut| safe.contains(&cut.seal))
            .map(|cut| cut.through)
            .fold(inspection.before_first, u64::max);
        match inspection.last_sequence.saturating_sub(covered) {
            0 => None,
            requests => Some(format!("{} in the journal", counted(requests, "request"))),
        }
    }
}
