//! After a crash: which seals are in the lake, which are staged whole, and which must be staged again from the journal.
//!
//! | a seal that was cut | is |
//! |---|---|
//! | staged, its files as its manifest says | published as it is |
//! | staged, a file of it changed | staged again from the journal |
//! | not staged, and in the lake | done |
//! | not staged, and not in the lake | staged again from the journal, with the same number and the same rows |
//!
//! What no cut names was in the open buffer and goes there again ([`refill`]).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::queue::Seal;
use super::stage::{StageError, stage};
use super::staged::{DamagedStage, Found, StagedFile, StagedSeal, find, remove_attempt};
use crate::disk::Disk;
use crate::journal::{CutRecord, Scan, ScanError, StoredBatch, replay};
use crate::memory::{Budget, MemoryError};
use crate::rows::{Rejections, Rows, batch_bytes};
use crate::signal::{SealId, Table};

/// Why the server cannot take up where the last run ended.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError<L> {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ScanError),
    /// The folder of staged seals cannot be read.
    #[error("cannot read the staged seals of the last run: {0}")]
    Staged(io::Error),
    /// A staged file is not as it was written, and the journal no longer has its rows.
    #[error(
        "seal {seal} was staged and its rows are nowhere else, but {source}; restore the file from a copy, or move the folder {} away to give the seal's rows up",
        dir.display()
    )]
    StagedDamaged {
        /// The seal's number.
        seal: u64,
        /// Its folder.
        dir: std::path::PathBuf,
        /// What differs.
        source: io::Error,
    },
    /// A seal cannot be staged again.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The lake does not say which seals it has.
    #[error(transparent)]
    Lake(L),
}

/// Where the last run ended.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The seals that are staged, in order: to be published.
    pub staged: Vec<StagedSeal>,
    /// Seals among them that had to be staged again.
    pub restaged: usize,
    /// The journal's batches up to this one are in the lake.
    pub published_through: u64,
}

/// Brings every seal that was cut to disk. `is_published` asks the lake for a seal, `is_placed` its folder for a file of one
/// that a publish may have moved there.
///
/// # Errors
/// [`RecoveryError`]; nothing is lost by it, the next start tries again.
pub fn recover<L>(
    disk: &dyn Disk,
    scan: &Scan,
    staged_dir: &Path,
    mut is_published: impl FnMut(SealId) -> Result<bool, L>,
    is_placed: impl Fn(&StagedSeal, &StagedFile) -> bool,
) -> Result<Recovery, RecoveryError<L>> {
    let Found { seals, damaged } = find(disk, staged_dir).map_err(RecoveryError::Staged)?;
    let mut staged: BTreeMap<SealId, StagedSeal> =
        seals.into_iter().map(|seal| (seal.id, seal)).collect();
    let mut damaged: BTreeMap<SealId, DamagedStage> =
        damaged.into_iter().map(|stage| (stage.id, stage)).collect();
    let mut recovery = Recovery {
        published_through: scan.before_first,
        ..Recovery::default()
    };
    let mut before = scan.before_first;
    let mut all_published = true;
    let kept = |cut: &&CutRecord| cut.through > scan.before_first;
    for cut in scan.cuts.iter().filter(kept) {
        let in_vain = damaged.remove(&cut.seal);
        if let Some(stage) = &in_vain {
            tracing::warn!(seal = cut.seal.0, error = %stage.error, "a staged seal changed on disk");
        }
        let is_whole = staged
            .get(&cut.seal)
            .is_some_and(|seal| is_as_written(disk, seal, &is_placed));
        if !is_whole {
            if is_published(cut.seal).map_err(RecoveryError::Lake)? {
                // A folder that is left was not removed any more.
                staged.remove(&cut.seal);
                if let Some(stage) = &in_vain {
                    remove_attempt(disk, &stage.dir).map_err(RecoveryError::Staged)?;
                }
            } else {
                let seal = read_seal(disk, scan, before, cut)?;
                staged.insert(cut.seal, stage(disk, &seal, staged_dir)?);
                recovery.restaged += 1;
            }
        }
        all_published &= !staged.contains_key(&cut.seal);
        if all_published {
            recovery.published_through = cut.through;
        }
        before = cut.through;
    }
    let is_known = |seal: &StagedSeal| scan.cuts.iter().any(|cut| cut.seal == seal.id);
    for seal in staged.values().filter(|seal| !is_known(seal)) {
        if let Err(error) = seal.check(disk) {
            let (id, dir) = (seal.id, seal.dir.clone());
            damaged.insert(id, DamagedStage { id, dir, error });
        }
    }
    for (id, stage) in damaged {
        // There is no second chance for its rows, unless they are in the lake.
        if !is_published(id).map_err(RecoveryError::Lake)? {
            return Err(RecoveryError::StagedDamaged {
                seal: id.0,
                dir: stage.dir,
                source: stage.error,
            });
        }
        staged.remove(&id);
        remove_attempt(disk, &stage.dir).map_err(RecoveryError::Staged)?;
    }
    recovery.staged = staged.into_values().collect();
    Ok(recovery)
}

/// Whether the files of a staged seal can be read and are as its manifest says, or are in the lake's folder.
fn is_as_written(
    disk: &dyn Disk,
    seal: &StagedSeal,
    is_placed: impl Fn(&StagedSeal, &StagedFile) -> bool,
) -> bool {
    if let Err(error) = seal.check(disk) {
        tracing::warn!(seal = seal.id.0, %error, "a staged seal changed on disk");
        return false;
    }
    let absent = seal.absent(disk);
    let lost = absent.into_iter().find(|file| !is_placed(seal, file));
    if let Some(file) = lost {
        tracing::warn!(
            seal = seal.id.0,
            file = file.name(),
            "a file of a staged seal is gone"
        );
    }
    lost.is_none()
}

/// A seal's rows out of the journal: the batches behind `before`, up to the cut.
fn read_seal(
    disk: &dyn Disk,
    scan: &Scan,
    before: u64,
    cut: &CutRecord,
) -> Result<Seal, ScanError> {
    let mut tables: [Vec<_>; Table::ALL.len()] = Default::default();
    let take = |stored: StoredBatch| {
        for (table, batch) in stored.batches {
            if let Some(batches) = tables.get_mut(table.index()) {
                batches.push(batch);
            }
        }
        Ok::<(), ScanError>(())
    };
    replay(disk, scan, before + 1..=cut.through, take)?;
    let tables = Table::ALL
        .into_iter()
        .zip(tables)
        .filter(|(_, batches)| !batches.is_empty())
        .collect();
    Ok(Seal {
        id: cut.seal,
        cause: cut.cause,
        tables,
        opened_unix_ms: cut.opened_unix_ms,
        sealed_unix_ms: cut.sealed_unix_ms,
        journaled_through: cut.through,
        unjournaled_rows: 0,
        // Before the first request is taken, the budget is nobody's.
        reservation: None,
    })
}

/// Gives the batches that were in the open buffer to `push`, with their sequence. Answers their rows.
///
/// Where `budget` is spent it waits for the sealer, which must run.
///
/// # Errors
/// [`ScanError`] when the journal cannot be read.
pub fn refill(
    disk: &dyn Disk,
    scan: &Scan,
    budget: &Budget,
    mut push: impl FnMut(Rows, u64),
) -> Result<u64, ScanError> {
    let mut count = 0;
    let mut has_waited = false;
    replay(
        disk,
        scan,
        scan.last_cut() + 1..=scan.last_sequence,
        |stored| {
            let bytes = stored.batches.iter().map(|(_, batch)| batch_bytes(batch));
            let rows = Rows {
                reservation: reserve(budget, bytes.sum(), &mut has_waited),
                batches: stored.batches,
                rejections: Rejections::default(),
            };
            count += rows.rows();
            push(rows, stored.sequence);
            Ok::<(), ScanError>(())
        },
    )?;
    Ok(count)
}

/// Reserves memory, waiting for it where others have it. More than there is at all becomes all there is.
fn reserve(budget: &Budget, bytes: u64, has_waited: &mut bool) -> crate::memory::Reservation {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(2);
    let mut wanted = bytes;
    loop {
        match budget.reserve(wanted) {
            Ok(reservation) => return reservation,
            Err(MemoryError::NeverFits { limit }) => wanted = limit,
            Err(MemoryError::Full { .. }) => {
                if !std::mem::replace(has_waited, true) {
                    tracing::info!(
                        "the last run left more rows than --max-buffered-bytes holds: waiting until some are staged"
                    );
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}
