//! Reading a segment that may be damaged: what is whole in it, and what lies between.
//!
//! A frame is kept when a start would take it: it is whole, it can be understood, and it follows what was kept before.
//! Everything else is damage, up to the next frame that is kept. What a client sent can imitate frames, and is met as
//! such where the header around it is broken: so a frame that was searched for must fit in more ways.

use std::ops::RangeInclusive;
use std::path::Path;

use prost::Message as _;

use super::batch::{self, Schemas, decode_head};
use super::error::ScanError;
use super::frame::{HEADER_BYTES, Header, Kind, SEQUENCE_MAX};
use super::records::{Cut, CutRecord, Gap, Note, Part, Start};
use super::segment::{Behind, Fault, Frame, MAGIC, SegmentReader, number_of};
use crate::disk::Disk;

/// How many bytes are compared with checksums while frames are searched for, in lengths of the segment: a repair may
/// take longer than a start.
const SEARCH_FACTOR: u64 = 64;

/// What was kept so far, over all segments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The last batch, also of those that are known to be missing; `None` until a frame tells.
    pub(super) last: Option<u64>,
    pub(super) cut: Option<CutRecord>,
    pub(super) settled: u64,
}

/// A piece of a segment.
#[derive(Debug)]
pub(super) enum Piece {
    /// A frame to keep, and what it holds.
    Frame(Frame, Content),
    /// Bytes that are not kept.
    Bad(Bad),
    /// The end of the last segment, from this offset on: it was never synced.
    Torn(u64),
}

/// What a kept frame holds.
#[derive(Debug)]
pub(super) enum Content {
    /// A batch of so many rows.
    Batch { rows: u64 },
    /// A cut.
    Cut(CutRecord),
    /// What became known of requests.
    Note(Note),
    /// The last batch that an earlier repair gave up.
    Gap { through: u64 },
    /// Nothing.
    Other,
}

/// Bytes that are not kept.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) what: String,
    /// The rows of the batch that stood here, where its head can still be read.
    pub(super) rows: Option<u64>,
}

/// What a segment begins with.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// The start's record, if it can be read.
    pub(super) start: Option<Start>,
    /// The sequence in the start's header, if that can be read.
    pub(super) sequence: Option<u64>,
    pub(super) settled: u64,
    /// What is wrong with it.
    pub(super) bad: Option<Bad>,
}

/// Reads one segment.
pub(super) struct Salvage {
    reader: SegmentReader,
    is_last: bool,
    budget: u64,
    schemas: Schemas,
    /// The newest `synced` of a kept frame: it only grows in a file.
    synced: u64,
    ended: bool,
}

impl Salvage {
    /// Opens a segment and reads its beginning; `None` when it is the last, and none of it was ever synced.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        is_last: bool,
        progress: &Progress,
    ) -> Result<(Salvage, Option<Beginning>), ScanError> {
        let reader = SegmentReader::open(disk, path)?;
        let mut salvage = Salvage {
            budget: reader.len().saturating_mul(SEARCH_FACTOR),
            reader,
            is_last,
            schemas: Schemas::new(&batch::table_schemas()).unwrap_or_default(),
            synced: 0,
            ended: false,
        };
        let beginning = match salvage.reader.read_start() {
            Ok((frame, start)) => salvage.whole_start(frame.header, start),
            Err(Fault::Bad { offset, what }) => {
                if is_last && salvage.is_torn(0)? {
                    salvage.ended = true;
                    return Ok((salvage, None));
                }
                salvage.broken_start(offset, what, progress)?
            }
            Err(fault) => return Err(salvage.reader.error(fault)),
        };
        Ok((salvage, Some(beginning)))
    }

    /// The file's length, bytes.
    pub(super) fn len(&self) -> u64 {
        self.reader.len()
    }

    fn whole_start(&mut self, header: Header, mut start: Start) -> Beginning {
        let number = number_of(self.reader.path()).unwrap_or_default();
        let mut bad = None;
        if start.segment != number {
            bad = Some(format!(
                "this is segment {} under another name",
                start.segment
            ));
            start.segment = number;
        }
        let start = match Schemas::new(&start.schemas) {
            Ok(schemas) => {
                self.schemas = schemas;
                Some(start)
            }
            Err(what) => {
                bad = Some(what);
                None
            }
        };
        Beginning {
            start,
            sequence: has_sequence(&header).then_some(header.sequence),
            settled: header.settled,
            bad: bad.map(|what| Bad {
                offset: MAGIC.len() as u64,
                bytes: 0,
                what,
                rows: None,
            }),
        }
    }

    /// A start that cannot be read as it should, because of what is wrong at `offset`: it may be that only the words before
    /// it are broken.
    fn broken_start(
        &mut self,
        offset: u64,
        what: String,
        progress: &Progress,
    ) -> Result<Beginning, ScanError> {
        let magic = MAGIC.len() as u64;
        let mut beginning = Beginning::default();
        let mut end = self.len().min(magic);
        let mut bad_end = end;
        if self.len() > magic {
            let header = self.reader.header_at(magic).ok();
            let frame = self.frame_and_next(magic)?.map(|(frame, _)| frame);
            let is_start = |header: &Header| header.kind == Kind::Start;
            let start = frame
                .as_ref()
                .filter(|frame| is_start(&frame.header))
                .and_then(|frame| Start::decode(&*frame.payload).ok());
            match (frame, start) {
                (Some(frame), Some(start)) => {
                    beginning = self.whole_start(frame.header, start);
                    end = magic + frame.header.frame_bytes();
                }
                (Some(frame), None) if !is_start(&frame.header) => end = magic,
                _ => {
                    let header = header.filter(is_start).filter(has_sequence);
                    beginning.sequence = header.map(|header| header.sequence);
                    beginning.settled = header.map_or(0, |header| header.settled);
                    end = self.find_next(magic, progress)?.0;
                    bad_end = end;
                }
            }
        }
        self.reader.seek(end);
        beginning.bad = Some(Bad {
            offset,
            bytes: bad_end.saturating_sub(offset),
            what,
            rows: None,
        });
        Ok(beginning)
    }

    /// The next piece; `None` at the end. What is kept is counted in `progress`.
    pub(super) fn next(&mut self, progress: &mut Progress) -> Result<Option<Piece>, ScanError> {
        if self.ended {
            return Ok(None);
        }
        let begin = self.reader.offset();
        let what = match self.reader.next() {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => match self.content(&frame, progress) {
                Ok(content) => {
                    self.keep(&frame, &content, progress);
                    return Ok(Some(Piece::Frame(frame, content)));
                }
                Err(what) => what,
            },
            Err(fault) => {
                let what = self.damage(fault)?;
                if self.is_last && self.is_torn(begin)? {
                    self.ended = true;
                    return Ok(Some(Piece::Torn(begin)));
                }
                what
            }
        };
        let rows = self.rows_at(begin);
        let (end, is_unclear) = self.find_next(begin, progress)?;
        self.reader.seek(end);
        let unclear = if is_unclear {
            ", and too much behind it looks like frames"
        } else {
            ""
        };
        Ok(Some(Piece::Bad(Bad {
            offset: begin,
            bytes: end - begin,
            what: format!("{what}{unclear}"),
            rows,
        })))
    }

    fn keep(&mut self, frame: &Frame, content: &Content, progress: &mut Progress) {
        self.synced = self.synced.max(frame.header.synced);
        progress.settled = progress.settled.max(frame.header.settled);
        progress.last = Some(match content {
            Content::Gap { through } => *through,
            _ => frame.header.sequence,
        });
        if let Content::Cut(cut) = content {
            progress.cut = Some(*cut);
        }
    }

    /// What a whole frame holds, as a start would read it; `Err` says why a start would not take it. Batches may be missing
    /// before it.
    fn content(&self, frame: &Frame, progress: &Progress) -> Result<Content, String> {
        let header = &frame.header;
        let payload = frame.payload.as_slice();
        if header.kind == Kind::Start {
            return Err("a second start frame".to_owned());
        }
        if !has_sequence(header) {
            return Err(format!("no journal comes to sequence {}", header.sequence));
        }
        let least = first_expected(header.kind, progress);
        if least.is_some_and(|least| header.sequence < least) {
            return Err(format!(
                "a {} frame has sequence {}, {} or more should follow",
                header.kind.name(),
                header.sequence,
                least.unwrap_or_default()
            ));
        }
        match header.kind {
            Kind::Batch if header.sequence == 0 => Err("a batch has sequence 0".to_owned()),
            Kind::Batch => {
                let (head, _) = batch::decode(&frame.payload, &self.schemas)?;
                let rows = head.parts.iter().map(|part| part.rows);
                Ok(Content::Batch {
                    rows: rows.fold(0, u64::saturating_add),
                })
            }
            Kind::Cut => {
                let cut = Cut::decode(payload).ok().and_then(|cut| cut.record());
                let cut = cut.ok_or("a cut that cannot be understood")?;
                let is_after = progress
                    .cut
                    .is_none_or(|before| before.seal < cut.seal && before.through < cut.through);
                if !is_after || cut.through > header.sequence {
                    return Err("a cut that does not follow the one before".to_owned());
                }
                Ok(Content::Cut(cut))
            }
            Kind::Note => Note::decode(payload)
                .map(Content::Note)
                .map_err(|error| format!("a note: {error}")),
            Kind::Gap => match Gap::decode(payload) {
                Ok(gap) if (header.sequence..=SEQUENCE_MAX).contains(&gap.through) => {
                    Ok(Content::Gap {
                        through: gap.through,
                    })
                }
                _ => Err("a gap that cannot be understood".to_owned()),
            },
            Kind::Start | Kind::Idle | Kind::Close => Ok(Content::Other),
        }
    }

    /// Where the next frame that can be kept begins behind the bad one at `begin`: the file's end when there is none. Also
    /// whether the search was given up.
    fn find_next(&mut self, begin: u64, progress: &Progress) -> Result<(u64, bool), ScanError> {
        // An intact header tells where the next frame begins: what lies before that is not searched.
        let header = self.reader.header_at(begin).ok();
        let told = header.map(|header| begin + header.frame_bytes());
        let mut from = told.unwrap_or(begin + 1);
        loop {
            match self.reader.find_frame(from, &mut self.budget) {
                Ok(None) => return Ok((self.len(), false)),
                Err(Fault::Bad { .. }) => return Ok((self.len(), true)),
                Err(fault) => return Err(self.reader.error(fault)),
                Ok(Some((offset, header))) => {
                    let is_told = told == Some(offset);
                    if self.is_plausible(offset, &header, begin, is_told, progress)? {
                        return Ok((offset, false));
                    }
                    from = offset + header.frame_bytes();
                }
            }
        }
    }

    /// Whether the whole frame at `offset` is one to keep, and not bytes inside another that imitate one.
    fn is_plausible(
        &mut self,
        offset: u64,
        header: &Header,
        begin: u64,
        is_told: bool,
        progress: &Progress,
    ) -> Result<bool, ScanError> {
        let Some((frame, next)) = self.frame_and_next(offset)? else {
            return Ok(false);
        };
        if self.content(&frame, progress).is_err() {
            return Ok(false);
        }
        if is_told {
            return Ok(true);
        }
        let fits = (self.synced..=offset).contains(&header.synced)
            && header.settled >= progress.settled
            && header.settled <= header.sequence;
        // Either no more batches are missing than the damaged bytes can have held, or the frame behind goes on from here.
        let missing_max = (offset - begin) / HEADER_BYTES as u64;
        let least = first_expected(header.kind, progress);
        let is_near = least.is_none_or(|least| header.sequence - least <= missing_max);
        let goes_on = offset + header.frame_bytes() == self.len()
            || next.is_some_and(|next| follows(header, &next));
        Ok(fits && (is_near || goes_on))
    }

    /// The whole frame at `offset`, and the header behind it.
    fn frame_and_next(
        &mut self,
        offset: u64,
    ) -> Result<Option<(Frame, Option<Header>)>, ScanError> {
        self.reader.seek(offset);
        let frame = match self.reader.next() {
            Ok(frame) => frame,
            Err(fault) => self.damage(fault).map(|_| None)?,
        };
        let next = self.reader.header_at(self.reader.offset()).ok();
        Ok(frame.map(|frame| (frame, next)))
    }

    /// The rows that the damaged frame at `offset` had, by its head, as far as that can be trusted.
    fn rows_at(&self, offset: u64) -> Option<u64> {
        let header = self.reader.header_at(offset).ok()?;
        let payload = self.reader.unchecked_payload(offset, &header).ok()?;
        let (head, begin) = (header.kind == Kind::Batch)
            .then(|| decode_head(&payload).ok())
            .flatten()?;
        let sum = |of: fn(&Part) -> u64| {
            let mut values = head.parts.iter().map(of);
            values.try_fold(0_u64, u64::checked_add)
        };
        let bytes = sum(|part| part.bytes.saturating_add(part.constant_bytes))?;
        let rows = sum(|part| part.rows)?;
        // A row takes a bit at least.
        let fits = bytes.checked_add(begin as u64) == Some(payload.len() as u64);
        (fits && rows <= bytes.saturating_mul(8)).then_some(rows)
    }

    fn is_torn(&self, offset: u64) -> Result<bool, ScanError> {
        let behind = self.reader.behind(offset);
        let behind = behind.map_err(|fault| self.reader.error(fault))?;
        Ok(behind == Behind::Unsynced)
    }

    /// What is damaged; the file system's refusal stays an error.
    fn damage(&self, fault: Fault) -> Result<String, ScanError> {
        match fault {
            Fault::Bad { what, .. } => Ok(what),
            Fault::Io(_) => Err(self.reader.error(fault)),
        }
    }
}

fn has_sequence(header: &Header) -> bool {
    header.sequence <= SEQUENCE_MAX
}

/// The least sequence that a frame of this kind can have.
fn first_expected(kind: Kind, progress: &Progress) -> Option<u64> {
    progress
        .last
        .map(|last| last + u64::from(kind == Kind::Batch))
}

fn follows(before: &Header, after: &Header) -> bool {
    after.kind != Kind::Start
        && match before.kind {
            // It has its own words on what follows.
            Kind::Gap => after.sequence >= before.sequence,
            _ => after.sequence == before.sequence + u64::from(after.kind == Kind::Batch),
        }
}

/// The batches between the last kept one and one that comes `before` a kept frame, if there are any.
pub(super) fn missing(last: u64, before: u64) -> Option<RangeInclusive<u64>> {
    (last < before).then(|| last + 1..=before)
}
