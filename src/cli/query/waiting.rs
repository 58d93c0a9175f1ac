//! What a stopped server left outside of the lake: a query does not see it.

use std::collections::BTreeSet;
use std::path::Path;

use duckdb::Connection;

use crate::cli::table::{bytes, counted, rows};
use crate::data_dir;
use crate::disk::{Disk as _, RealDisk};
use crate::journal::inspect::inspect;
use crate::journal::scan::segment_paths;
use crate::seal::staged::StagedSeal;

/// A journal of up to this many bytes is read to know what of it is not in the lake: some tenths of a second.
const JOURNAL_READ_BYTES_MAX: u64 = 64 << 20;

/// One line about the rows that are acknowledged and not in the lake, as far as that can be known cheaply; `None` when
/// there are none, or nothing can be told.
pub(super) fn note(data_dir: &Path, lake: &Connection) -> Option<String> {
    let published = Published::find(data_dir, lake)?;
    let staged = published.staged(&data_dir.join("staged"));
    let staged_rows: u64 = staged.iter().map(StagedSeal::rows).sum();
    let covered = staged.iter().map(|seal| seal.journaled_through);
    let covered = covered.fold(published.through, u64::max);
    let mut parts = Vec::new();
    if staged_rows > 0 {
        parts.push(format!("{} staged", rows(staged_rows)));
    }
    parts.extend(journaled(&data_dir.join("journal"), covered));
    if parts.is_empty() {
        return None;
    }
    Some(format!(
        "note: not in the lake yet: {}; start otlake to bring that there",
        parts.join(", ")
    ))
}

/// The seals of this data folder that are in the lake.
struct Published {
    seals: BTreeSet<u64>,
    /// The journal's batches up to this one.
    through: u64,
}

impl Published {
    fn find(data_dir: &Path, lake: &Connection) -> Option<Published> {
        let writer = data_dir::writer(data_dir).ok()??;
        let sql =
            "SELECT seal_id, coalesce(journaled_through, 0) FROM otlake_seals WHERE writer_id = ?";
        let mut statement = lake.prepare(sql).ok()?;
        let found = statement.query_map([writer.0], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))
        });
        let found: Vec<(u64, u64)> = found.ok()?.collect::<Result<_, _>>().ok()?;
        Some(Published {
            through: found.iter().map(|(_, through)| *through).max().unwrap_or(0),
            seals: found.into_iter().map(|(seal, _)| seal).collect(),
        })
    }

    /// The staged seals that are not among them.
    fn staged(&self, dir: &Path) -> Vec<StagedSeal> {
        let folders = RealDisk.list(dir).unwrap_or_default();
        let seals = folders
            .iter()
            .filter_map(|folder| StagedSeal::read(&RealDisk, folder).ok().flatten());
        seals
            .filter(|seal| !self.seals.contains(&seal.id.0))
            .collect()
    }
}

/// What is in the journal behind the batch `covered`.
fn journaled(dir: &Path, covered: u64) -> Option<String> {
    let segments = segment_paths(&RealDisk, dir).ok()?;
    let sizes = segments.iter().filter_map(|path| path.metadata().ok());
    let size: u64 = sizes.map(|segment| segment.len()).sum();
    if size > JOURNAL_READ_BYTES_MAX {
        return Some(format!("perhaps some of the journal's {}", bytes(size)));
    }
    let inspection = inspect(&RealDisk, dir).ok()?;
    if inspection.is_damaged() {
        return Some("perhaps some of the journal, which is damaged".to_owned());
    }
    match inspection
        .last_sequence
        .saturating_sub(covered.max(inspection.before_first))
    {
        0 => None,
        requests => Some(format!("{} in the journal", counted(requests, "request"))),
    }
}
