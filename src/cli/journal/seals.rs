//! Which seals are safe without the journal: those that are staged whole, and those in the lake.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anyhow::Context as _;

use crate::config::LakeArgs;
use crate::data_dir;
use crate::disk::{Disk as _, RealDisk};
use crate::journal::CutRecord;
use crate::journal::inspect::Inspection;
use crate::lake::{LakeConfig, LakeError, is_marked, open_read_only};
use crate::seal::ledger::one_line;
use crate::seal::staged::StagedSeal;
use crate::server_file::LakeFile;
use crate::signal::{CutCause, SealId};

/// Where the rows of a seal are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the lake.
    Lake,
    /// Staged, every file as its manifest says.
    Staged,
    /// Nobody knows: the lake cannot be read.
    Unknown,
    /// In the journal alone.
    Journal,
}

impl Place {
    /// Whether a seal there needs the journal no more.
    pub(super) fn is_safe(self) -> bool {
        matches!(self, Place::Lake | Place::Staged)
    }
}

/// The seals that a data folder has outside of its journal.
#[derive(Debug, Default)]
pub(super) struct Seals {
    staged: BTreeSet<SealId>,
    published: BTreeSet<SealId>,
    /// Their cuts, where they hold batches of the journal.
    pub(super) cuts: Vec<CutRecord>,
    /// Why the lake cannot be read.
    pub(super) trouble: Option<String>,
}

impl Seals {
    /// Looks into the staged folder, and into the lake for the seals of this journal.
    pub(super) fn find(data_dir: &Path, inspection: &Inspection) -> io::Result<Seals> {
        let mut seals = Seals::default();
        seals.find_staged(&data_dir.join("staged"))?;
        if let Err(error) = seals.find_published(data_dir, inspection) {
            seals.trouble = Some(one_line(&format!("{error:#}")));
        }
        Ok(seals)
    }

    pub(super) fn place(&self, seal: SealId) -> Place {
        if self.published.contains(&seal) {
            Place::Lake
        } else if self.staged.contains(&seal) {
            Place::Staged
        } else if self.trouble.is_some() {
            Place::Unknown
        } else {
            Place::Journal
        }
    }

    fn find_staged(&mut self, dir: &Path) -> io::Result<()> {
        let folders = match RealDisk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        for folder in folders {
            let seal = match StagedSeal::read(&RealDisk, &folder) {
                Ok(Some(seal)) => seal,
                Ok(None) => continue,
                // Not a seal's folder, or one that a start stages again.
                Err(error)
                    if [io::ErrorKind::NotADirectory, io::ErrorKind::InvalidData]
                        .contains(&error.kind()) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            if seal.check(&RealDisk).is_ok() {
                self.staged.insert(seal.id);
            }
            self.cuts.push(CutRecord {
                seal: seal.id,
                through: seal.journaled_through,
                cause: seal.cause,
                opened_unix_ms: seal.opened_unix_ms,
                sealed_unix_ms: seal.sealed_unix_ms,
            });
        }
        Ok(())
    }

    fn find_published(&mut self, data_dir: &Path, inspection: &Inspection) -> anyhow::Result<()> {
        let Some(writer) = data_dir::writer(data_dir)? else {
            return Ok(());
        };
        let args = match LakeFile::read(data_dir) {
            Some(file) => file.complete(LakeArgs::default(), data_dir),
            None => LakeArgs::default(),
        };
        let config = args.resolve(data_dir)?;
        let opened = match open_read_only(&config) {
            Err(LakeError::NoLake { .. }) if !may_have_published(data_dir, &config)? => {
                return Ok(());
            }
            Err(LakeError::NoLake { catalog }) => Err(LakeError::NoCatalog { catalog }),
            opened => opened,
        };
        let lake = opened.context("cannot read the lake")?;
        // Those of the journal's cuts, and those whose cut may be lost.
        let first = inspection.cuts.iter().map(|cut| cut.seal.0).min();
        let created = inspection.created_unix_ms().unwrap_or(0);
        let read = || -> duckdb::Result<Vec<CutRecord>> {
            let mut statement = lake.prepare(
                "SELECT seal_id, coalesce(journaled_through, 0), cause, epoch_ms(opened_at), epoch_ms(sealed_at)
                 FROM otlake_seals WHERE writer_id = ? AND (seal_id >= ? OR sealed_at >= make_timestamp(?))",
            )?;
            let parameters = duckdb::params![
                writer.0,
                first.unwrap_or(u64::MAX),
                created.saturating_mul(1000)
            ];
            let cuts = statement.query_map(parameters, |row| {
                let cause: Option<String> = row.get(2)?;
                let cause = cause.as_deref().and_then(CutCause::from_name);
                Ok(CutRecord {
                    seal: SealId(row.get(0)?),
                    through: row.get(1)?,
                    cause: cause.unwrap_or(CutCause::Flush),
                    opened_unix_ms: row.get::<_, Option<i64>>(3)?.unwrap_or_default(),
                    sealed_unix_ms: row.get::<_, Option<i64>>(4)?.unwrap_or_default(),
                })
            })?;
            cuts.collect()
        };
        let cuts = read().context("cannot read otlake_seals")?;
        self.published.extend(cuts.iter().map(|cut| cut.seal));
        self.cuts.extend(cuts);
        Ok(())
    }
}

/// Whether a lake that is not there may have been there before: a server of this folder was ready once and wrote down
/// where its lake is, or numbered a seal, or the lake's folder says so itself.
fn may_have_published(data_dir: &Path, config: &LakeConfig) -> io::Result<bool> {
    Ok(LakeFile::is_there(data_dir)?
        || data_dir::seal_sequence(data_dir).try_exists()?
        || is_marked(config))
}
