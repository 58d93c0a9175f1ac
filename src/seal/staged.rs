//! A staged seal: one folder of Parquet files and a manifest, everything synced to disk.
//!
//! `<data-dir>/staged/<seal id>/` holds one file a table and `manifest.json`. The manifest is written last and
//! renamed into place, so a folder without one is an unfinished stage and its rows are elsewhere: in memory or in the
//! journal. It has the CRC32C of each file. From here the rows need no memory: a restart finds the folder, checks it and
//! publishes it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::signal::{CutCause, SealId, Table};

/// The manifest's file name inside a staged seal's folder.
const MANIFEST: &str = "manifest.json";

/// The layout of the manifest; a newer one is refused, never guessed at.
const MANIFEST_VERSION: u32 = 3;

/// Read at once when a file's checksum is compared.
const CHECK_STEP_BYTES: usize = 1 << 20;

/// One table's Parquet file of a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// The table whose rows it holds.
    pub table: Table,
    /// Rows in the file, at least one.
    pub rows: u64,
    /// The file's size, bytes.
    pub bytes: u64,
    /// CRC32C (Castagnoli) of the whole file.
    pub crc32c: u32,
}

impl StagedFile {
    /// The file's name inside the seal's folder.
    #[must_use]
    pub fn name(&self) -> String {
        file_name(self.table)
    }
}

/// The name of a table's file inside a staged seal's folder.
#[must_use]
pub fn file_name(table: Table) -> String {
    format!("{table}.parquet")
}

/// A seal whose rows are on disk as Parquet and wait to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedSeal {
    /// The seal's number.
    pub id: SealId,
    /// Why it was cut.
    pub cause: CutCause,
    /// The folder with its files.
    pub dir: PathBuf,
    /// One file for each table that has rows, in the order of [`Table::ALL`].
    pub files: Vec<StagedFile>,
    /// Receipt of its oldest row, Unix milliseconds.
    pub opened_unix_ms: i64,
    /// The cut, Unix milliseconds.
    pub sealed_unix_ms: i64,
    /// The journal's sequence of the last batch it holds; 0 when none of its rows is in the journal.
    pub journaled_through: u64,
    /// How long writing and syncing the files took.
    pub stage_ms: f64,
}

/// What every layout begins with.
#[derive(Deserialize)]
struct Layout {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    seal_id: u64,
    cause: CutCause,
    opened_unix_ms: i64,
    sealed_unix_ms: i64,
    journaled_through: u64,
    stage_us: u64,
    files: Vec<ManifestFile>,
    /// CRC32C of the manifest written in one line, with 0 here.
    crc32c: u32,
}

impl Manifest {
    fn checksum(&mut self) -> serde_json::Result<u32> {
        let stored = std::mem::take(&mut self.crc32c);
        let line = serde_json::to_vec(self)?;
        self.crc32c = stored;
        Ok(crc32c::crc32c(&line))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    table: String,
    rows: u64,
    bytes: u64,
    crc32c: u32,
}

impl StagedSeal {
    /// Rows over all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Parquet bytes over all tables.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Rows of one table.
    #[must_use]
    pub fn table_rows(&self, table: Table) -> u64 {
        self.files
            .iter()
            .find(|file| file.table == table)
            .map_or(0, |file| file.rows)
    }

    /// Completes the stage: writes the manifest, synced, under its final name, and syncs the folder and its parent.
    ///
    /// # Errors
    /// Any I/O error; the folder then counts as unfinished.
    pub fn write_manifest(&self, disk: &dyn Disk) -> io::Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time that has passed"
        )]
        let stage_us = (self.stage_ms * 1e3) as u64;
        let mut manifest = Manifest {
            version: MANIFEST_VERSION,
            seal_id: self.id.0,
            cause: self.cause,
            opened_unix_ms: self.opened_unix_ms,
            sealed_unix_ms: self.sealed_unix_ms,
            journaled_through: self.journaled_through,
            stage_us,
            crc32c: 0,
            files: self
                .files
                .iter()
                .map(|file| ManifestFile {
                    table: file.table.name().to_owned(),
                    rows: file.rows,
                    bytes: file.bytes,
                    crc32c: file.crc32c,
                })
                .collect(),
        };
        manifest.crc32c = manifest.checksum()?;
        disk.write_synced(
            &self.dir.join(MANIFEST),
            &serde_json::to_vec_pretty(&manifest)?,
        )?;
        self.dir.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
    }

    /// Reads a staged seal back from its folder; `None` when the stage never finished. Its files are not looked at:
    /// [`StagedSeal::check`] does that.
    ///
    /// # Errors
    /// An I/O error, or `InvalidData` when the manifest is of another version, does not have its checksum or cannot be
    /// understood. The text names the file.
    pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<StagedSeal>> {
        let path = dir.join(MANIFEST);
        let text = match disk.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, error)),
        };
        let seal = StagedSeal::parse(&text, dir).map_err(|error| named(&path, error))?;
        if dir.file_name() != Some(OsStr::new(&seal.id.to_string())) {
            return Err(invalid(format!(
                "{} is of seal {}",
                path.display(),
                seal.id.0
            )));
        }
        Ok(Some(seal))
    }

    fn parse(text: &[u8], dir: &Path) -> io::Result<StagedSeal> {
        // First: other layouts have other fields.
        let Layout { version } = serde_json::from_slice(text)?;
        if version != MANIFEST_VERSION {
            return Err(invalid(format!(
                "it has layout {version}, this otlake reads {MANIFEST_VERSION}"
            )));
        }
        let mut manifest: Manifest = serde_json::from_slice(text)?;
        if manifest.checksum()? != manifest.crc32c {
            return Err(invalid("it does not have its checksum".to_owned()));
        }
        let files = manifest
            .files
            .into_iter()
            .map(|file| {
                let table = Table::from_name(&file.table)
                    .ok_or_else(|| invalid(format!("unknown table {:?}", file.table)))?;
                Ok(StagedFile {
                    table,
                    rows: file.rows,
                    bytes: file.bytes,
                    crc32c: file.crc32c,
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
        let stage_ms = manifest.stage_us as f64 / 1e3;
        Ok(StagedSeal {
            id: SealId(manifest.seal_id),
            cause: manifest.cause,
            dir: dir.to_owned(),
            files,
            opened_unix_ms: manifest.opened_unix_ms,
            sealed_unix_ms: manifest.sealed_unix_ms,
            journaled_through: manifest.journaled_through,
            stage_ms,
        })
    }

    /// Compares the files with the manifest: their length and CRC32C. A file that is not there was moved into the lake's
    /// folder by a publish that did not end; the next one goes on from there.
    ///
    /// # Errors
    /// An I/O error, or `InvalidData` that names the file that differs.
    pub fn check(&self, disk: &dyn Disk) -> io::Result<()> {
        for file in &self.files {
            let path = self.dir.join(file.name());
            let (bytes, crc32c) = match checksum(disk, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(|error| named(&path, error))?,
            };
            if (bytes, crc32c) != (file.bytes, file.crc32c) {
                return Err(invalid(format!(
                    "{} has {bytes} bytes with checksum {crc32c:08x}, its manifest says {} bytes with {:08x}",
                    path.display(),
                    file.bytes,
                    file.crc32c
                )));
            }
        }
        Ok(())
    }

    /// The files that are not in the folder: moved into the lake's folder by a publish that did not end, or lost.
    #[must_use]
    pub fn absent(&self, disk: &dyn Disk) -> Vec<&StagedFile> {
        let is_absent = |file: &&StagedFile| {
            let opened = disk.open(&self.dir.join(file.name()));
            opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        self.files.iter().filter(is_absent).collect()
    }

    /// Removes the folder, once its rows are in the lake.
    ///
    /// # Errors
    /// Any I/O error other than the folder being gone already.
    pub fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove_dir_all(&self.dir)
    }
}

/// A file's length and CRC32C.
fn checksum(disk: &dyn Disk, path: &Path) -> io::Result<(u64, u32)> {
    let file = disk.open(path)?;
    let len = file.len()?;
    let mut step = vec![0; CHECK_STEP_BYTES];
    let (mut at, mut crc) = (0, 0);
    while at < len {
        let take = usize::try_from(len - at).map_or(step.len(), |left| left.min(step.len()));
        let part = step.get_mut(..take).unwrap_or_default();
        file.read_exact_at(part, at)?;
        crc = crc32c::crc32c_append(crc, part);
        at += part.len() as u64;
    }
    Ok((len, crc))
}

/// A seal's folder with a manifest that cannot be read.
#[derive(Debug)]
pub struct DamagedStage {
    /// The seal, by the folder's name.
    pub id: SealId,
    /// The folder.
    pub dir: PathBuf,
    /// What is wrong; the text names the file.
    pub error: io::Error,
}

/// What an earlier run left in the folder of staged seals.
#[derive(Debug, Default)]
pub struct Found {
    /// The seals, oldest first.
    pub seals: Vec<StagedSeal>,
    /// Folders of seals that cannot be read.
    pub damaged: Vec<DamagedStage>,
}

/// Finds the staged seals that an earlier run left. Folders whose stage never finished are removed; what does not have
/// the name of a seal is not looked at.
///
/// # Errors
/// Any I/O error of the folder itself.
pub fn find(disk: &dyn Disk, staged_dir: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for dir in disk.list(staged_dir)? {
        let Some(id) = seal_of(&dir) else {
            continue;
        };
        match StagedSeal::read(disk, &dir) {
            Ok(Some(seal)) => found.seals.push(seal),
            Ok(None) => {
                tracing::info!(dir = %dir.display(), "removed a stage that never finished");
                disk.remove_dir_all(&dir)?;
            }
            Err(error) => found.damaged.push(DamagedStage { id, dir, error }),
        }
    }
    found.seals.sort_by_key(|seal| seal.id);
    Ok(found)
}

/// The seal whose folder has this name, if it is one of a seal's.
fn seal_of(dir: &Path) -> Option<SealId> {
    let name = dir.file_name()?.to_str()?;
    let id = SealId(name.parse().ok()?);
    (id.to_string() == name).then_some(id)
}

/// Removes what an attempt to stage a seal left: the manifest first, so that what is left after a crash meanwhile is an
/// unfinished stage and not a seal without its files.
///
/// # Errors
/// Any I/O error other than the folder being gone already.
pub fn remove_attempt(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.remove_file(&dir.join(MANIFEST)) {
        Ok(()) => disk.sync_dir(dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    disk.remove_dir_all(dir)
}

/// An error whose text names the file.
fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
