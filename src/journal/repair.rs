//! Giving up what is damaged, and nothing else.
//!
//! Each damaged segment is written anew, with everything in it that can be read and a gap for the batches that cannot;
//! a segment that is missing gets an empty one in its place. The order, so that a crash between any two steps leaves a
//! journal that can be repaired again:
//!
//! 1. the new segment, as `<name>.partial`, synced;
//! 2. a copy of the damaged one, as `damaged/<name>.<n>`, synced;
//! 3. the new one gets its name, and the folder is synced.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message;

use super::error::ScanError;
use super::frame::{Header, Kind, padding};
use super::inspect::{Inspection, MissingRun, Segment};
use super::records::{Cut, CutRecord, Gap, Note, Start};
use super::salvage::{Content, Piece, Progress, Salvage};
use super::scan::scan;
use super::segment::{Frame, MAGIC, file_name};
use super::store::{new_salt, new_start};
use crate::disk::{Disk, DiskFile};

/// The folder of damaged files in the journal's.
const DAMAGED_DIR: &str = "damaged";

/// Segments in a row that are made again; more can only be missing before a file that is none of this journal.
const MISSING_MAX: u64 = 1024;

/// Copied at once.
const COPY_STEP_BYTES: usize = 1 << 20;

/// Why a journal cannot be repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The journal cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The file system refused.
    #[error("cannot write {}: {source}; nothing more is lost by that, repair again", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file stands far from the others.
    #[error(
        "{missing} segments are missing before {}: move it away if it does not belong to this journal",
        path.display()
    )]
    FarAway {
        /// The file.
        path: PathBuf,
        /// Segments between it and the one before.
        missing: u64,
    },
    /// What was written is not a whole journal.
    #[error(
        "the journal is repaired and cannot be read all the same; this is a bug, please report it: {0}"
    )]
    InVain(ScanError),
}

/// What a repair has done.
#[derive(Debug, Default)]
pub struct Repair {
    /// The files that were replaced, with where the damaged ones are kept.
    pub replaced: Vec<(PathBuf, PathBuf)>,
    /// The files that were missing and are there again, empty.
    pub made: Vec<PathBuf>,
    /// The lost cuts that are there again.
    pub cuts: Vec<CutRecord>,
}

/// Repairs the journal that `inspection` describes. Nobody may write to it meanwhile.
///
/// # Errors
/// [`RepairError`]; what was damaged is as it was, or kept aside.
pub fn repair(disk: &dyn Disk, inspection: &Inspection) -> Result<Repair, RepairError> {
    for run in &inspection.missing_runs {
        let missing = run.last - run.first + 1;
        if missing > MISSING_MAX {
            let path = inspection.dir.join(file_name(run.last + 1));
            return Err(RepairError::FarAway { path, missing });
        }
    }
    let mut repairer = Repairer {
        disk,
        inspection,
        cuts: inspection.restored_cuts.iter().copied().collect(),
        repair: Repair::default(),
    };
    let mut runs = inspection.missing_runs.iter().peekable();
    for segment in &inspection.segments {
        while let Some(run) = runs.next_if(|run| run.first < segment.number) {
            repairer.make_missing(run)?;
        }
        if segment.is_damaged {
            repairer.rewrite(segment)?;
        }
    }
    scan(disk, &inspection.dir).map_err(RepairError::InVain)?;
    Ok(repairer.repair)
}

struct Repairer<'a> {
    disk: &'a dyn Disk,
    inspection: &'a Inspection,
    /// Lost cuts that are not written yet.
    cuts: VecDeque<CutRecord>,
    repair: Repair,
}

impl Repairer<'_> {
    /// Puts empty segments in the place of missing ones; the first has the gap.
    fn make_missing(&mut self, run: &MissingRun) -> Result<(), RepairError> {
        let mut sequence = self.sequence(run.starts_with);
        let progress = self.progress_before(run.first);
        for number in run.first..=run.last {
            let path = self.inspection.dir.join(file_name(number));
            let mut new = NewSegment::create(self.disk, &path)?;
            new.start(&new_start(number, Vec::new()), sequence, progress.settled)?;
            new.go_on(run.ends_with.unwrap_or(sequence))?;
            self.write_cuts(&mut new, progress.cut)?;
            sequence = new.sequence;
            new.sync()?;
            self.install(&new)?;
            self.repair.made.push(path);
        }
        Ok(())
    }

    /// What was kept before a missing segment.
    fn progress_before(&self, number: u64) -> Progress {
        let segments = &self.inspection.segments;
        let after = segments.iter().find(|segment| segment.number > number);
        after.map_or_else(Progress::default, |segment| segment.before)
    }

    fn rewrite(&mut self, segment: &Segment) -> Result<(), RepairError> {
        let opened = Salvage::open(self.disk, &segment.path, segment.is_last, &segment.before)?;
        let (mut salvage, Some(beginning)) = opened else {
            return Ok(());
        };
        let mut new = NewSegment::create(self.disk, &segment.path)?;
        let mut progress = Progress {
            last: segment.starts_with,
            settled: segment.before.settled.max(beginning.settled),
            cut: segment.before.cut,
        };
        let is_lost = beginning.start.is_none();
        let start = beginning.start;
        let start = start.unwrap_or_else(|| new_start(segment.number, Vec::new()));
        new.start(&start, self.sequence(segment.starts_with), progress.settled)?;
        if is_lost && !segment.remembered.is_empty() {
            let note = Note {
                undelivered: segment.remembered.clone(),
                repeated: Vec::new(),
            };
            new.record(Kind::Note, &note)?;
        }
        loop {
            let last_cut = progress.cut;
            let Some(piece) = salvage.next(&mut progress)? else {
                break;
            };
            if let Piece::Frame(frame, content) = piece {
                let before = frame.header.sequence - u64::from(frame.header.kind == Kind::Batch);
                new.go_on(before)?;
                self.write_cuts(&mut new, last_cut)?;
                new.copy(&frame, &content)?;
            }
        }
        if let Some(sequence) = segment.ends_with {
            new.go_on(sequence)?;
        }
        self.write_cuts(&mut new, progress.cut)?;
        new.sync()?;
        let kept = self.keep_aside(&segment.path)?;
        self.install(&new)?;
        self.repair.replaced.push((segment.path.clone(), kept));
        Ok(())
    }

    /// The sequence after which a segment goes on, where nothing before it is left to tell: that of the first frame.
    fn sequence(&self, starts_with: Option<u64>) -> u64 {
        starts_with.unwrap_or(self.inspection.before_first)
    }

    /// Writes the lost cuts that are due: their batches have passed, and so have all earlier cuts. `last` is the last cut
    /// so far that was not lost.
    fn write_cuts(
        &mut self,
        new: &mut NewSegment,
        last: Option<CutRecord>,
    ) -> Result<(), RepairError> {
        while let Some(cut) = self.cuts.front().copied() {
            if last.is_some_and(|last| last.seal > cut.seal) {
                // It cannot have stood in a damaged place.
                self.cuts.pop_front();
                continue;
            }
            let earlier = self
                .inspection
                .cuts
                .iter()
                .filter(|other| other.seal < cut.seal);
            let has_passed = earlier.map(|other| other.seal).max() == last.map(|last| last.seal);
            if !has_passed || cut.through > new.sequence {
                break;
            }
            new.record(Kind::Cut, &Cut::from(cut))?;
            self.repair.cuts.push(cut);
            self.cuts.pop_front();
        }
        Ok(())
    }

    /// Copies a damaged segment to where it is kept. A copy, so that it never lacks in its own place.
    fn keep_aside(&self, path: &Path) -> Result<PathBuf, RepairError> {
        let dir = self.inspection.dir.join(DAMAGED_DIR);
        let made = self.disk.create_dir_all(&dir);
        made.and_then(|()| self.disk.sync_dir(&self.inspection.dir))
            .map_err(write_error(&dir))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let there = self.disk.list(&dir).map_err(ScanError::io(&dir))?;
        let free = (1_u64..).map(|count| dir.join(format!("{name}.{count}")));
        let kept = free.into_iter().find(|kept| !there.contains(kept));
        let kept = kept.unwrap_or_else(|| dir.join(&*name));
        let partial = dir.join(format!("{name}.partial"));
        let source = self.disk.open(path).map_err(ScanError::io(path))?;
        let len = source.len().map_err(ScanError::io(path))?;
        let mut file = self.disk.create(&partial).map_err(write_error(&partial))?;
        let mut step = vec![0; COPY_STEP_BYTES];
        let mut at = 0;
        while at < len {
            let take = usize::try_from(len - at).map_or(step.len(), |left| left.min(step.len()));
            let part = step.get_mut(..take).unwrap_or_default();
            source
                .read_exact_at(part, at)
                .map_err(ScanError::io(path))?;
            file.write_all(part).map_err(write_error(&partial))?;
            at += part.len() as u64;
        }
        file.sync()
            .and_then(|()| self.disk.rename(&partial, &kept))
            .and_then(|()| self.disk.sync_dir(&dir))
            .map_err(write_error(&kept))?;
        Ok(kept)
    }

    /// Gives a new segment, which is synced, its name.
    fn install(&self, new: &NewSegment) -> Result<(), RepairError> {
        self.disk
            .rename(&new.partial, &new.path)
            .and_then(|()| self.disk.sync_dir(&self.inspection.dir))
            .map_err(write_error(&new.path))
    }
}

/// A segment as it is written anew.
struct NewSegment {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    partial: PathBuf,
    end: u64,
    sequence: u64,
    settled: u64,
    salt: u32,
}

impl NewSegment {
    fn create(disk: &dyn Disk, path: &Path) -> Result<NewSegment, RepairError> {
        let partial = path.with_extension("journal.partial");
        let mut file = disk.create(&partial).map_err(write_error(&partial))?;
        file.write_all(MAGIC).map_err(write_error(&partial))?;
        Ok(NewSegment {
            file,
            path: path.to_owned(),
            partial,
            end: MAGIC.len() as u64,
            sequence: 0,
            settled: 0,
            salt: new_salt(),
        })
    }

    fn start(&mut self, start: &Start, sequence: u64, settled: u64) -> Result<(), RepairError> {
        self.sequence = sequence;
        self.settled = settled;
        self.record(Kind::Start, start)
    }

    fn record(&mut self, kind: Kind, record: &impl Message) -> Result<(), RepairError> {
        self.write(kind, &record.encode_to_vec())
    }

    /// Writes that the batches up to this one are given up, if any are missing.
    fn go_on(&mut self, through: u64) -> Result<(), RepairError> {
        if through > self.sequence {
            self.record(Kind::Gap, &Gap { through })?;
            self.sequence = through;
        }
        Ok(())
    }

    fn copy(&mut self, frame: &Frame, content: &Content) -> Result<(), RepairError> {
        self.sequence = frame.header.sequence;
        self.settled = self.settled.max(frame.header.settled);
        self.write(frame.header.kind, &frame.payload)?;
        if let Content::Gap { through } = content {
            self.sequence = *through;
        }
        Ok(())
    }

    fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<(), RepairError> {
        let payload_bytes = payload.len() as u64;
        let header = Header {
            kind,
            // Copied, or a record of a few MiB at most.
            payload_bytes: u32::try_from(payload_bytes).unwrap_or(u32::MAX),
            payload_crc32c: crc32c::crc32c(payload),
            sequence: self.sequence,
            // The file gets its name once it is synced whole: all before this frame is.
            synced: self.end,
            settled: self.settled,
            salt: self.salt,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(payload);
        let zeros = usize::try_from(padding(payload_bytes)).unwrap_or_default();
        bytes.resize(bytes.len() + zeros, 0);
        let written = self.file.write_all(&bytes);
        written.map_err(write_error(&self.partial))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), RepairError> {
        self.file.sync().map_err(write_error(&self.partial))
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> RepairError + '_ {
    move |source| RepairError::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
