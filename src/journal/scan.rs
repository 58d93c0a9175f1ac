//! Reading a journal whole at the start: is it as it was written, where does it end, what was cut.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message as _;

use super::batch::{Schemas, decode_head};
use super::digest::Digest;
use super::error::{Damage, ScanError};
use super::frame::{Kind, SEQUENCE_MAX};
use super::records::{Cut, CutRecord, Gap, Note, Start};
use super::segment::{Behind, Fault, Frame, SegmentReader, number_of};
use crate::disk::Disk;

/// Requests remembered from one journal; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 65_536;

/// A journal as it was found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// The seals that were cut, in order.
    pub cuts: Vec<CutRecord>,
    /// The sequence before the first batch that is still there: all up to it were published.
    pub before_first: u64,
    /// The sequence of the last batch.
    pub last_sequence: u64,
    /// Batches that a repair gave up.
    pub given_up: u64,
    /// Requests whose answer cannot have reached their client, and for how long they were still to be remembered; `None`
    /// for the whole window. A digest stands here as often as requests with it are remembered.
    pub remembered: Vec<(Digest, Option<Duration>)>,
    /// What was written and never synced, at the end of the last segment.
    pub torn: Option<Torn>,
}

/// One segment as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// Its length up to the last good frame, bytes.
    pub bytes: u64,
    /// Up to where its frames know it to be synced, bytes.
    pub synced: u64,
    /// When it was made, Unix milliseconds.
    pub created_unix_ms: i64,
    /// The sequence before its first batch.
    pub before_first: u64,
    /// The sequence of its last batch; `before_first` when it has none.
    pub last_sequence: u64,
    /// Its frames.
    pub frames: u64,
    /// Its batches.
    pub batches: u64,
    /// The rows in its batches.
    pub rows: u64,
}

/// The end of a segment that was never synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub path: PathBuf,
    /// Where the last good frame ends.
    pub offset: u64,
    /// Bytes from there on.
    pub bytes: u64,
    /// They may as well be left from an earlier use of the file.
    pub is_overwritten: bool,
}

/// Reads the journal in `dir`; changes nothing. A folder that is not there is an empty journal.
///
/// # Errors
/// [`ScanError::Damaged`] for the first thing that is not as it was written, [`ScanError::Io`].
pub fn scan(disk: &dyn Disk, dir: &Path) -> Result<Scan, ScanError> {
    let mut state = State::default();
    let paths = segment_paths(disk, dir)?;
    for (place, path) in paths.iter().enumerate() {
        let is_last = place + 1 == paths.len();
        state.segment(disk, path, is_last)?;
    }
    Ok(state.finish())
}

/// The segments' files in `dir`, oldest first; other files are not looked at.
///
/// # Errors
/// [`ScanError::Io`].
pub fn segment_paths(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, ScanError> {
    let paths = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(ScanError::io(dir))?,
    };
    let numbered = paths
        .into_iter()
        .filter_map(|path| Some((number_of(&path)?, path)));
    Ok(numbered.collect::<BTreeMap<_, _>>().into_values().collect())
}

#[derive(Default)]
struct State {
    scan: Scan,
    settled: u64,
    /// Batches behind `settled`, whose requests may not have their answer.
    unsettled: VecDeque<(u64, Digest)>,
    /// Of the segment that is read.
    is_overwritten: bool,
    remembered: VecDeque<(Digest, Option<Duration>)>,
}

impl State {
    fn segment(&mut self, disk: &dyn Disk, path: &Path, is_last: bool) -> Result<(), ScanError> {
        let mut reader = SegmentReader::open(disk, path)?;
        self.is_overwritten = false;
        let started = match reader.read_start() {
            Ok((frame, start)) => self.start(&reader, &frame, &start)?,
            Err(fault) if is_last => return self.torn(&reader, fault, 0),
            Err(fault) => return Err(reader.error(fault)),
        };
        self.scan.segments.push(started);
        loop {
            let begin = reader.offset();
            match reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.frame(&reader, &frame)?,
                Err(fault) if is_last => return self.torn(&reader, fault, begin),
                Err(fault) => return Err(reader.error(fault)),
            }
        }
    }

    fn start(
        &mut self,
        reader: &SegmentReader,
        frame: &Frame,
        start: &Start,
    ) -> Result<SegmentInfo, ScanError> {
        let damaged = |what: String| Err(damage(reader, frame.offset, what));
        let number = number_of(reader.path()).unwrap_or_default();
        if start.segment != number {
            return damaged(format!(
                "this is segment {} under another name",
                start.segment
            ));
        }
        if let Err(what) = Schemas::new(&start.schemas) {
            return damaged(what);
        }
        if frame.header.sequence > SEQUENCE_MAX {
            return damaged(format!("there is no sequence {}", frame.header.sequence));
        }
        match self.scan.segments.last() {
            None => {
                self.scan.before_first = frame.header.sequence;
                self.scan.last_sequence = frame.header.sequence;
            }
            Some(before) if before.number + 1 != number => {
                return damaged(format!("segment {} before it is missing", number - 1));
            }
            Some(_) if self.scan.last_sequence != frame.header.sequence => {
                return damaged(format!(
                    "it goes on after batch {}, the segment before ends with {}",
                    frame.header.sequence, self.scan.last_sequence
                ));
            }
            Some(_) => {}
        }
        self.is_overwritten = start.is_overwritten;
        // A newer start has all that was remembered when it was written.
        self.remembered.clear();
        for remembered in &start.remembered {
            if let Some(digest) = Digest::from_bytes(&remembered.digest) {
                let left = Duration::from_millis(remembered.left_ms);
                self.remember(digest, Some(left));
            }
        }
        self.settle(frame.header.settled);
        Ok(SegmentInfo {
            number,
            path: reader.path().to_owned(),
            bytes: reader.offset(),
            synced: 0,
            created_unix_ms: start.created_unix_ms,
            before_first: frame.header.sequence,
            last_sequence: frame.header.sequence,
            frames: 1,
            batches: 0,
            rows: 0,
        })
    }

    fn frame(&mut self, reader: &SegmentReader, frame: &Frame) -> Result<(), ScanError> {
        let damaged = |what: String| Err(damage(reader, frame.offset, what));
        let payload = frame.payload.as_slice();
        let header = &frame.header;
        let expected = match header.kind {
            Kind::Batch => self.scan.last_sequence + 1,
            _ => self.scan.last_sequence,
        };
        if header.sequence != expected {
            return damaged(format!(
                "a {} frame has sequence {}, {expected} should follow",
                header.kind.name(),
                header.sequence
            ));
        }
        self.settle(header.settled);
        let mut rows = 0;
        match header.kind {
            Kind::Start => return damaged("a second start frame".to_owned()),
            Kind::Batch => match decode_head(payload) {
                Ok((head, _)) => {
                    rows = head.rows();
                    if let Some(digest) = Digest::from_bytes(&head.digest) {
                        self.unsettled.push_back((header.sequence, digest));
                        if self.unsettled.len() > REMEMBERED_MAX {
                            self.unsettled.pop_front();
                        }
                    }
                }
                Err(what) => return damaged(what),
            },
            Kind::Cut => match Cut::decode(payload).ok().and_then(|cut| cut.record()) {
                Some(cut) if self.follows(&cut) => self.scan.cuts.push(cut),
                Some(_) => return damaged("a cut that does not follow the one before".to_owned()),
                None => return damaged("a cut that cannot be understood".to_owned()),
            },
            Kind::Note => match Note::decode(payload) {
                Ok(note) => self.note(&note),
                Err(error) => return damaged(format!("a note: {error}")),
            },
            Kind::Idle | Kind::Close => {}
            Kind::Gap => match Gap::decode(payload) {
                Ok(gap) if (header.sequence..=SEQUENCE_MAX).contains(&gap.through) => {
                    self.scan.given_up += gap.through - header.sequence;
                    self.scan.last_sequence = gap.through;
                }
                _ => return damaged("a gap that cannot be understood".to_owned()),
            },
        }
        if header.kind == Kind::Batch {
            self.scan.last_sequence = header.sequence;
        }
        let last_sequence = self.scan.last_sequence;
        if let Some(segment) = self.scan.segments.last_mut() {
            segment.frames += 1;
            segment.batches += u64::from(header.kind == Kind::Batch);
            segment.rows = segment.rows.saturating_add(rows);
            segment.last_sequence = last_sequence;
            segment.bytes = reader.offset();
            segment.synced = segment.synced.max(header.synced);
        }
        Ok(())
    }

    fn follows(&self, cut: &CutRecord) -> bool {
        let is_after = |before: &CutRecord| before.seal < cut.seal && before.through < cut.through;
        let is_known = cut.through <= self.scan.last_sequence && cut.seal.0 <= SEQUENCE_MAX;
        is_known && self.scan.cuts.last().is_none_or(is_after)
    }

    /// Judges the bad frame at the end of the last segment.
    fn torn(&mut self, reader: &SegmentReader, fault: Fault, begin: u64) -> Result<(), ScanError> {
        if matches!(fault, Fault::Io(_)) {
            return Err(reader.error(fault));
        }
        match reader.behind(begin).map_err(|fault| reader.error(fault))? {
            Behind::Unsynced => {
                self.scan.torn = Some(Torn {
                    path: reader.path().to_owned(),
                    offset: begin,
                    bytes: reader.len() - begin,
                    is_overwritten: self.is_overwritten,
                });
                Ok(())
            }
            Behind::Synced(_) | Behind::Unclear => Err(reader.error(fault)),
        }
    }

    fn settle(&mut self, settled: u64) {
        self.settled = self.settled.max(settled);
        let settled = self.settled;
        let is_settled = |(sequence, _): &(u64, Digest)| *sequence <= settled;
        while self.unsettled.front().is_some_and(is_settled) {
            self.unsettled.pop_front();
        }
    }

    fn note(&mut self, note: &Note) {
        for digest in note
            .undelivered
            .iter()
            .filter_map(|d| Digest::from_bytes(d))
        {
            // It is one request, known twice: as without an answer, and as perhaps without one.
            let known = self
                .unsettled
                .iter()
                .position(|(_, known)| *known == digest);
            if let Some(place) = known {
                self.unsettled.remove(place);
            }
            self.remember(digest, None);
        }
        for digest in note.repeated.iter().filter_map(|d| Digest::from_bytes(d)) {
            let found = self
                .remembered
                .iter()
                .position(|(known, _)| *known == digest);
            if let Some(place) = found {
                self.remembered.remove(place);
            }
        }
    }

    fn remember(&mut self, digest: Digest, left: Option<Duration>) {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((digest, left));
    }

    fn finish(self) -> Scan {
        let mut scan = self.scan;
        let unsettled = self.unsettled.into_iter().map(|(_, digest)| (digest, None));
        scan.remembered = self.remembered.into_iter().chain(unsettled).collect();
        scan
    }
}

fn damage(reader: &SegmentReader, offset: u64, what: String) -> ScanError {
    ScanError::Damaged(Damage {
        path: reader.path().to_owned(),
        offset,
        what,
    })
}

impl Scan {
    /// The number that the next segment gets: that of a torn one of which nothing is left, too.
    #[must_use]
    pub fn next_segment(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.number) + 1
    }

    /// The last batch that was cut; those behind it were in the open buffer.
    #[must_use]
    pub fn last_cut(&self) -> u64 {
        let last = self.cuts.last().map_or(0, |cut| cut.through);
        last.max(self.before_first)
    }
}

/// Makes the end of the journal what `scan` says it is: takes away the torn part, and makes durable what is whole and
/// may never have been synced. Call it before anything relies on what was found: a process that is killed leaves frames
/// in the system's memory, where they look like any other.
///
/// # Errors
/// [`ScanError::Io`].
pub fn secure_end(disk: &dyn Disk, scan: &Scan) -> Result<(), ScanError> {
    if let Some(torn) = &scan.torn {
        cut_torn(disk, torn).map_err(ScanError::io(&torn.path))?;
    }
    match scan.segments.last() {
        Some(last) if last.synced < last.bytes => disk
            .write_again(&last.path, last.synced)
            .map_err(ScanError::io(&last.path)),
        _ => Ok(()),
    }
}

fn cut_torn(disk: &dyn Disk, torn: &Torn) -> io::Result<()> {
    if torn.offset > 0 {
        return disk.truncate(&torn.path, torn.offset);
    }
    // Not even the beginning of the segment was synced.
    disk.remove_file(&torn.path)?;
    torn.path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}
