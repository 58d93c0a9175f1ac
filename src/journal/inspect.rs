//! A journal read as far as it can be: what is in it, what is damaged, and what is missing by that.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::error::ScanError;
use super::frame::Kind;
use super::records::{CutRecord, Note};
use super::salvage::{Bad, Beginning, Content, Piece, Progress, Salvage, missing};
use super::scan::{Torn, segment_paths};
use super::segment::{Frame, MAGIC, file_name, number_of};
use super::spares::is_spare;
use crate::disk::Disk;
use crate::signal::SealId;

/// Damaged places that are described; further ones are counted, so that garbage cannot fill the memory.
pub const PLACES_MAX: usize = 1000;

/// Requests remembered from one journal; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 65_536;

/// What a journal holds.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The folder.
    pub dir: PathBuf,
    /// The segments, oldest first; not a last one of which nothing was ever synced.
    pub segments: Vec<Segment>,
    /// What is damaged or missing, in order; at most [`PLACES_MAX`].
    pub places: Vec<Place>,
    /// Further damaged places.
    pub places_more: u64,
    /// Damaged bytes, over all places.
    pub damaged_bytes: u64,
    /// Batches that are missing, as far as the frames around the places tell.
    pub missing_batches: u64,
    /// The seals that were cut, in order, as far as that is not lost.
    pub cuts: Vec<CutRecord>,
    /// Cuts that are lost in a damaged place and known from elsewhere; see [`Inspection::restore_cuts`].
    pub restored_cuts: Vec<CutRecord>,
    /// The sequence before the first batch that is still there.
    pub before_first: u64,
    /// The sequence of the last batch.
    pub last_sequence: u64,
    /// What was written and never synced, at the end of the last segment. No damage: the next start cuts it off.
    pub torn: Option<Torn>,
    /// Spare segments, to be written over; nothing in them counts.
    pub spares: Vec<PathBuf>,
    /// What else is in the folder; nothing of it is looked at.
    pub others: Vec<PathBuf>,
    /// Segments that are missing between others.
    pub(super) missing_runs: Vec<MissingRun>,
}

/// A segment, as far as it can be read.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// The file's length, bytes.
    pub bytes: u64,
    /// When it was made, Unix milliseconds; 0 when that is lost.
    pub created_unix_ms: i64,
    /// The otlake that made it; empty when that is lost.
    pub version: String,
    /// Its whole frames by kind.
    pub frames: BTreeMap<&'static str, u64>,
    /// Its whole batches.
    pub batches: u64,
    /// The rows in them.
    pub rows: u64,
    /// The sequences of its first and last whole batch.
    pub sequences: Option<(u64, u64)>,
    /// Whether it is damaged, or ends before the next one goes on.
    pub is_damaged: bool,
    /// What was kept before it.
    pub(super) before: Progress,
    pub(super) is_last: bool,
    /// The batch it begins after; `None` when nothing in it or before it tells.
    pub(super) starts_with: Option<u64>,
    /// The batch it must end with, for the next one to go on; `None` when that is its own last.
    pub(super) ends_with: Option<u64>,
    /// Digests of the requests that were remembered before it; kept when its own start is lost.
    pub(super) remembered: Vec<Vec<u8>>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment's file; the first of those that are missing.
    pub path: PathBuf,
    /// Where in it, bytes.
    pub offset: u64,
    /// Bytes up to the next whole frame; 0 when something is missing here, and nothing is in its place.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
    /// The batches that are missing by it, and by the other places between the same two frames.
    pub missing: Option<RangeInclusive<u64>>,
    /// Whether frames before and after it tell which batches are missing.
    pub is_bounded: bool,
    /// The rows of its first batch, where its head can still be read.
    pub rows: Option<u64>,
}

/// Segments that are missing between two others.
#[derive(Clone, Copy, Debug)]
pub(super) struct MissingRun {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) starts_with: Option<u64>,
    pub(super) ends_with: Option<u64>,
}

/// Reads the journal in `dir` whole, going on behind whatever is damaged; changes nothing. While a server runs its end
/// may look torn.
///
/// # Errors
/// [`ScanError::Io`].
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Inspection, ScanError> {
    let (spares, others) = other_paths(disk, dir)?;
    let mut reading = Reading {
        disk,
        inspection: Inspection {
            dir: dir.to_owned(),
            spares,
            others,
            ..Inspection::default()
        },
        progress: Progress::default(),
        is_pending: false,
        pending: Vec::new(),
        remembered: VecDeque::new(),
    };
    let paths = segment_paths(disk, dir)?;
    for (place, path) in paths.iter().enumerate() {
        match reading.segment(path, place + 1 == paths.len()) {
            // The running server removed it since.
            Err(ScanError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    reading.inspection.last_sequence = reading.progress.last.unwrap_or(0);
    Ok(reading.inspection)
}

/// What is not a segment: the spares, and the rest.
fn other_paths(disk: &dyn Disk, dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ScanError> {
    let paths = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(ScanError::io(dir))?,
    };
    let is_other = |path: &PathBuf| number_of(path).is_none();
    let others = paths.into_iter().filter(is_other);
    Ok(others.partition(|path| is_spare(path)))
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    inspection: Inspection,
    progress: Progress,
    /// Whether there are damaged places behind the last whole frame.
    is_pending: bool,
    /// Those of them that are described.
    pending: Vec<usize>,
    remembered: VecDeque<Vec<u8>>,
}

impl Reading<'_> {
    fn segment(&mut self, path: &Path, is_last: bool) -> Result<(), ScanError> {
        let before = self.progress;
        let (mut salvage, beginning) = Salvage::open(self.disk, path, is_last, &before)?;
        let Some(beginning) = beginning else {
            self.torn(path, 0, salvage.len(), false);
            return Ok(());
        };
        let number = number_of(path).unwrap_or_default();
        self.missing_segments(number);
        let is_overwritten = beginning
            .start
            .as_ref()
            .is_some_and(|start| start.is_overwritten);
        self.begin(path, number, is_last, salvage.len(), beginning);
        loop {
            let last = self.progress.last;
            match salvage.next(&mut self.progress)? {
                None => return Ok(()),
                Some(Piece::Frame(frame, content)) => self.frame(path, last, &frame, content),
                Some(Piece::Bad(bad)) => self.bad(path, bad),
                Some(Piece::Torn(offset)) => {
                    self.torn(path, offset, salvage.len(), is_overwritten);
                }
            }
        }
    }

    fn missing_segments(&mut self, number: u64) {
        let inspection = &mut self.inspection;
        let Some(before) = inspection.segments.last().map(|segment| segment.number) else {
            return;
        };
        let (first, last) = (before + 1, number.saturating_sub(1));
        if first > last {
            return;
        }
        inspection.missing_runs.push(MissingRun {
            first,
            last,
            starts_with: self.progress.last,
            ends_with: None,
        });
        let what = if first == last {
            "the file is missing".to_owned()
        } else {
            format!("this file and those up to {} are missing", file_name(last))
        };
        let path = inspection.dir.join(file_name(first));
        self.add(place(&path, 0, what));
    }

    fn begin(&mut self, path: &Path, number: u64, is_last: bool, bytes: u64, beginning: Beginning) {
        let Beginning {
            start,
            sequence,
            settled,
            bad,
        } = beginning;
        let before = self.progress;
        // The first segment of all begins with the first batch.
        let sequence = sequence.or((number == 1).then_some(0));
        if let (Some(sequence), None) = (sequence, &bad) {
            self.start_follows(sequence);
        }
        let mut segment = Segment {
            number,
            path: path.to_owned(),
            bytes,
            created_unix_ms: start.as_ref().map_or(0, |start| start.created_unix_ms),
            version: start
                .as_ref()
                .map_or_else(String::new, |start| start.version.clone()),
            frames: BTreeMap::new(),
            batches: 0,
            rows: 0,
            sequences: None,
            is_damaged: false,
            before,
            is_last,
            starts_with: None,
            ends_with: None,
            remembered: Vec::new(),
        };
        match start {
            Some(start) => {
                segment.frames.insert(Kind::Start.name(), 1);
                let digests = start.remembered.into_iter().map(|known| known.digest);
                self.remembered = digests.take(REMEMBERED_MAX).collect();
            }
            None => segment.remembered = self.remembered.iter().cloned().collect(),
        }
        self.inspection.segments.push(segment);
        if let Some(bad) = bad {
            if self.progress.last.is_none() {
                // Nothing tells what is missing by the places before.
                self.pending.clear();
            }
            self.bad(path, bad);
            // What the header says of a start whose rest is lost, or that stands under another name, tells the first batch
            // of all; the others are told by the segment before.
            if let Some(sequence) = sequence.filter(|_| self.progress.last.is_none()) {
                self.inspection.before_first = sequence;
                self.progress.last = Some(sequence);
            }
        } else if let Some(sequence) = sequence.filter(|at| self.progress.last > Some(*at)) {
            let ends = self.progress.last.unwrap_or_default();
            let what =
                format!("it goes on after batch {sequence}, the segment before ends with {ends}");
            self.add(place(path, MAGIC.len() as u64, what));
        }
        self.progress.settled = self.progress.settled.max(settled);
        if let Some(segment) = self.inspection.segments.last_mut() {
            segment.starts_with = self.progress.last;
        }
    }

    /// A whole start says after which batch its segment goes on: what is missing there is missing in what came before.
    fn start_follows(&mut self, sequence: u64) {
        let last = self.progress.last;
        if last > Some(sequence) {
            return;
        }
        let end = self.inspection.segments.last().map(|segment| {
            let what = format!("the file ends with batch {}", last.unwrap_or_default());
            place(&segment.path, segment.bytes, what)
        });
        self.go_on(last, sequence, end);
        if last == Some(sequence) {
            return;
        }
        self.progress.last = Some(sequence);
        let number = self
            .inspection
            .segments
            .last()
            .map(|segment| segment.number);
        let run = self.inspection.missing_runs.last_mut();
        match run.filter(|run| Some(run.first) > number) {
            Some(run) => run.ends_with = Some(sequence),
            None => {
                if let Some(segment) = self.inspection.segments.last_mut() {
                    segment.ends_with = Some(sequence);
                    segment.is_damaged = true;
                }
            }
        }
    }

    fn frame(&mut self, path: &Path, last: Option<u64>, frame: &Frame, content: Content) {
        let header = &frame.header;
        let before = header.sequence - u64::from(header.kind == Kind::Batch);
        let here = place(
            path,
            frame.offset,
            "batches are missing before it".to_owned(),
        );
        self.go_on(last, before, Some(here));
        let Some(segment) = self.inspection.segments.last_mut() else {
            return;
        };
        *segment.frames.entry(header.kind.name()).or_default() += 1;
        match content {
            Content::Batch { rows } => {
                segment.batches += 1;
                segment.rows = segment.rows.saturating_add(rows);
                let first = segment
                    .sequences
                    .map_or(header.sequence, |(first, _)| first);
                segment.sequences = Some((first, header.sequence));
            }
            Content::Cut(cut) => self.inspection.cuts.push(cut),
            Content::Note(note) => self.note(note),
            Content::Gap { .. } | Content::Other => {}
        }
    }

    /// A whole frame, behind the batch `before`. `here` is the place if batches are missing and nothing was bad.
    fn go_on(&mut self, last: Option<u64>, before: u64, here: Option<Place>) {
        let Some(last) = last else {
            // Nobody knows what stood before.
            self.inspection.before_first = before;
            self.is_pending = false;
            self.pending.clear();
            return;
        };
        let missing = missing(last, before);
        if missing.is_some()
            && !self.is_pending
            && let Some(here) = here
        {
            self.add(here);
        }
        self.is_pending = false;
        self.inspection.missing_batches += before.saturating_sub(last);
        for at in self.pending.drain(..) {
            if let Some(place) = self.inspection.places.get_mut(at) {
                place.missing.clone_from(&missing);
                place.is_bounded = true;
            }
        }
    }

    fn bad(&mut self, path: &Path, bad: Bad) {
        self.inspection.damaged_bytes += bad.bytes;
        self.add(Place {
            bytes: bad.bytes,
            rows: bad.rows,
            ..place(path, bad.offset, bad.what)
        });
    }

    fn add(&mut self, place: Place) {
        let inspection = &mut self.inspection;
        let segments = inspection.segments.iter_mut();
        if let Some(segment) = segments.rev().find(|segment| segment.path == place.path) {
            segment.is_damaged = true;
        }
        self.is_pending = true;
        if inspection.places.len() < PLACES_MAX {
            self.pending.push(inspection.places.len());
            inspection.places.push(place);
        } else {
            inspection.places_more += 1;
        }
    }

    fn torn(&mut self, path: &Path, offset: u64, len: u64, is_overwritten: bool) {
        self.inspection.torn = Some(Torn {
            path: path.to_owned(),
            offset,
            bytes: len - offset,
            is_overwritten,
        });
    }

    fn note(&mut self, note: Note) {
        for digest in note.undelivered {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.pop_front();
            }
            self.remembered.push_back(digest);
        }
        for digest in note.repeated {
            if let Some(at) = self.remembered.iter().position(|known| *known == digest) {
                self.remembered.remove(at);
            }
        }
    }
}

fn place(path: &Path, offset: u64, what: String) -> Place {
    Place {
        path: path.to_owned(),
        offset,
        bytes: 0,
        what,
        missing: None,
        is_bounded: false,
        rows: None,
    }
}

impl Inspection {
    /// Whether anything that was synced is not there as it was written.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.places.is_empty()
    }

    /// When the oldest segment was made whose start can be read, Unix milliseconds.
    #[must_use]
    pub fn created_unix_ms(&self) -> Option<i64> {
        let created = self.segments.iter().map(|segment| segment.created_unix_ms);
        created.filter(|created| *created > 0).min()
    }

    /// Looks for cuts that are lost in a damaged place among the seals that are staged or in the lake. Without them a
    /// start would take what such a seal holds for rows that were never cut, and store it again.
    pub fn restore_cuts(&mut self, known: &[CutRecord]) {
        // Sequences begin again when a journal was empty once: a seal from before this one is none of its.
        let first = self.cuts.iter().map(|cut| cut.seal).min();
        let created = self.created_unix_ms();
        let is_ours = |cut: &CutRecord| {
            first.is_some_and(|first| cut.seal > first)
                || created.is_some_and(|created| cut.sealed_unix_ms >= created)
        };
        let mut known: Vec<CutRecord> = known.iter().copied().filter(is_ours).collect();
        known.sort_by_key(|cut| cut.seal);
        for cut in known {
            let in_range = (self.before_first + 1..=self.last_sequence).contains(&cut.through);
            let mut others = self.cuts.iter().chain(&self.restored_cuts);
            let fits = others.all(|other| match other.seal.cmp(&cut.seal) {
                Ordering::Less => other.through < cut.through,
                Ordering::Equal => false,
                Ordering::Greater => other.through > cut.through,
            });
            if self.is_damaged() && in_range && fits {
                self.restored_cuts.push(cut);
            }
        }
    }

    /// Some batches by the seal they belong to; `None` for those that were in no seal yet.
    #[must_use]
    pub fn by_seal(
        &self,
        batches: &RangeInclusive<u64>,
    ) -> Vec<(Option<SealId>, RangeInclusive<u64>)> {
        let mut cuts: Vec<&CutRecord> = self.cuts.iter().chain(&self.restored_cuts).collect();
        cuts.sort_by_key(|cut| cut.through);
        let mut from = *batches.start();
        let mut parts = Vec::new();
        for cut in cuts {
            let to = cut.through.min(*batches.end());
            if from <= to {
                parts.push((Some(cut.seal), from..=to));
                from = to + 1;
            }
        }
        if from <= *batches.end() {
            parts.push((None, from..=*batches.end()));
        }
        parts
    }
}
