//! The segments on disk: appending frames, syncing, going on to the next, removing the oldest.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::buffer::Buffer;
use prost::Message;

use super::batch::{EncodedBatch, table_schemas};
use super::digest::Digest;
use super::error::JournalError;
use super::frame::{HEADER_BYTES, Header, Kind, frame_bytes, padding};
use super::records::{Remembered, Start};
use super::scan::Scan;
use super::segment::{MAGIC, file_name};
use super::spares::Spares;
use crate::disk::{Disk, DiskFile};

/// A segment of this length, all of it published, is left for a new one while nothing else happens.
const ROTATE_IDLE_BYTES: u64 = 4 << 20;

/// A frame to be written.
pub(super) struct NewFrame<'a> {
    kind: Kind,
    payload: Payload<'a>,
}

enum Payload<'a> {
    Batch(&'a EncodedBatch),
    Record(Vec<u8>),
}

impl<'a> NewFrame<'a> {
    pub(super) fn batch(encoded: &'a EncodedBatch) -> NewFrame<'a> {
        NewFrame {
            kind: Kind::Batch,
            payload: Payload::Batch(encoded),
        }
    }

    pub(super) fn record(kind: Kind, record: &impl Message) -> NewFrame<'static> {
        NewFrame {
            kind,
            payload: Payload::Record(record.encode_to_vec()),
        }
    }

    pub(super) fn empty(kind: Kind) -> NewFrame<'static> {
        NewFrame {
            kind,
            payload: Payload::Record(Vec::new()),
        }
    }

    fn bytes_and_crc(&self) -> (u32, u32) {
        match &self.payload {
            Payload::Batch(encoded) => (encoded.bytes, encoded.crc32c),
            // A few hundred bytes; a start with all that can be remembered has 2 MiB.
            Payload::Record(bytes) => (
                u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                crc32c::crc32c(bytes),
            ),
        }
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (buffers, record): (&[Buffer], &[u8]) = match &self.payload {
            Payload::Batch(encoded) => (&encoded.parts, &[]),
            Payload::Record(bytes) => (&[], bytes),
        };
        buffers.iter().map(Buffer::as_slice).chain([record])
    }
}

/// A segment that is no longer written.
struct Closed {
    path: PathBuf,
    last_sequence: u64,
    bytes: u64,
}

/// The segment that is written.
struct Active {
    file: Box<dyn DiskFile>,
    /// The file's length: more than has been written, when it is a spare that is written over.
    file_bytes: u64,
    salt: u32,
    path: PathBuf,
    /// The length of what every segment begins with, bytes.
    begun: u64,
    /// Its length, bytes.
    end: u64,
    /// Up to where it is synced.
    synced: u64,
    /// Something was done to it since: written, or a write that failed cut off.
    is_dirty: bool,
}

/// The journal's folder.
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    closed: VecDeque<Closed>,
    closed_bytes: u64,
    active: Option<Active>,
    spares: Spares,
    next_segment: u64,
    sequence: u64,
    /// Every batch up to this one was answered more than a moment ago.
    pub(super) settled: u64,
    /// The newest `settled` that stands in a frame.
    pub(super) settled_written: u64,
}

impl Store {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64, scan: &Scan) -> Store {
        let closed: VecDeque<Closed> = scan
            .segments
            .iter()
            .map(|segment| Closed {
                path: segment.path.clone(),
                last_sequence: segment.last_sequence,
                bytes: segment.bytes,
            })
            .collect();
        Store {
            spares: Spares::found(&*disk, &dir, segment_bytes),
            disk,
            dir,
            segment_bytes,
            closed_bytes: closed.iter().map(|segment| segment.bytes).sum(),
            closed,
            active: None,
            next_segment: scan.next_segment(),
            sequence: scan.last_sequence,
            // Whose answers may be missing is remembered by now; none of these is answered again.
            settled: scan.last_sequence,
            settled_written: scan.last_sequence,
        }
    }

    /// The sequence of the last batch.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn segments(&self) -> u64 {
        self.closed.len() as u64 + u64::from(self.active.is_some())
    }

    pub(super) fn bytes(&self) -> u64 {
        let length = |active: &Active| active.end.max(active.file_bytes);
        self.closed_bytes + self.active.as_ref().map_or(0, length) + self.spares.bytes()
    }

    /// Bytes of spares, which are given up where room is wanted.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.spares.bytes()
    }

    /// Makes room.
    pub(super) fn remove_spares(&mut self) {
        self.spares.remove_all(&*self.disk);
    }

    pub(super) fn has_active(&self) -> bool {
        self.active.is_some()
    }

    /// Appends frames; they are not durable before [`Store::sync`]. On a full disk nothing of them is kept.
    pub(super) fn write(
        &mut self,
        frames: &[NewFrame<'_>],
        remembered: &dyn Fn() -> Vec<(Digest, Duration)>,
    ) -> Result<(), JournalError> {
        let is_due = |active: &Active| active.end - active.begun >= self.segment_bytes;
        if self.active.as_ref().is_none_or(is_due) {
            self.rotate(remembered)?;
        }
        let Some(active) = &mut self.active else {
            return Err(JournalError::NoSpace);
        };
        let mut sequence = self.sequence;
        let headers = active.headers(frames, &mut sequence, self.settled);
        append(active, frames, &headers)?;
        self.sequence = sequence;
        self.settled_written = self.settled;
        Ok(())
    }

    /// Makes everything written durable.
    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        if let Some(active) = &mut self.active
            && active.is_dirty
        {
            active
                .file
                .sync()
                .map_err(|error| poisoned("sync", &active.path, &error))?;
            active.synced = active.end;
            active.is_dirty = false;
        }
        Ok(())
    }

    /// Whether much is held, and nothing that is needed: in the active segment, or before there is one in those of the
    /// last run.
    pub(super) fn is_worth_rotating(&self, done: u64) -> bool {
        let held = match &self.active {
            Some(active) => active.end - active.begun,
            None => self.closed_bytes,
        };
        self.sequence <= done && held >= ROTATE_IDLE_BYTES.min(self.segment_bytes)
    }

    /// Ends the active segment and begins the next.
    pub(super) fn rotate(
        &mut self,
        remembered: &dyn Fn() -> Vec<(Digest, Duration)>,
    ) -> Result<(), JournalError> {
        // Only the last segment may have an end that is not on disk, or something behind its end.
        self.cut_to_length()?;
        self.sync()?;
        let next = self.new_segment(remembered())?;
        if let Some(before) = self.active.replace(next) {
            self.closed_bytes += before.end;
            self.closed.push_back(Closed {
                path: before.path,
                last_sequence: self.sequence,
                bytes: before.end,
            });
        }
        self.next_segment += 1;
        Ok(())
    }

    /// Takes away what the file has behind what is written; not durable before [`Store::sync`].
    pub(super) fn cut_to_length(&mut self) -> Result<(), JournalError> {
        if let Some(active) = &mut self.active
            && active.end < active.file_bytes
        {
            let cut = active.file.set_len(active.end);
            cut.map_err(|error| poisoned("cut", &active.path, &error))?;
            active.file_bytes = active.end;
            active.is_dirty = true;
        }
        Ok(())
    }

    fn new_segment(&mut self, remembered: Vec<(Digest, Duration)>) -> Result<Active, JournalError> {
        let start = new_start(self.next_segment, remembered);
        match self.spares.take() {
            None => self.create_segment(&start),
            Some(spare) => match self.overwrite(&spare, &start) {
                // The file was none of the journal's yet.
                Err(error @ (JournalError::NoSegment(_) | JournalError::NoSpace)) => {
                    tracing::debug!(path = %spare.display(), %error, "a spare segment cannot be used");
                    let _ = self.disk.remove_file(&spare);
                    self.create_segment(&start)
                }
                made => made,
            },
        }
    }

    /// Makes a segment of a spare: it gets its name when it begins as it should, durably.
    fn overwrite(&self, spare: &Path, start: &Start) -> Result<Active, JournalError> {
        let opened = self.disk.overwrite(spare);
        let (file, file_bytes) = opened.map_err(|error| not_made("open", spare, &error))?;
        let mut active = Active::new(file, file_bytes, spare.to_owned());
        let start = Start {
            is_overwritten: true,
            ..start.clone()
        };
        self.begin(&mut active, &start)?;
        let path = self.dir.join(file_name(self.next_segment));
        let named = self.disk.rename(spare, &path);
        named
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| poisoned("name", &path, &error))?;
        active.path = path;
        Ok(active)
    }

    fn create_segment(&self, start: &Start) -> Result<Active, JournalError> {
        let path = self.dir.join(file_name(self.next_segment));
        let file = match self.disk.create(&path) {
            Ok(file) => file,
            Err(error) => return Err(not_made("make", &path, &error)),
        };
        let mut active = Active::new(file, 0, path);
        let made = self.begin(&mut active, start).and_then(|()| {
            let named = self.disk.sync_dir(&self.dir);
            named.map_err(|error| poisoned("sync", &active.path, &error))
        });
        if made.is_err() {
            // If it stays, the next start finds a beginning that was never synced, and removes it.
            let removed = self.disk.remove_file(&active.path);
            let _ = removed.and_then(|()| self.disk.sync_dir(&self.dir));
        }
        made.map(|()| active)
    }

    /// Writes what every segment begins with, durably.
    fn begin(&self, active: &mut Active, start: &Start) -> Result<(), JournalError> {
        let magic = io::Write::write_all(&mut active.file, MAGIC);
        magic.map_err(|error| failure("write", &active.path, &error))?;
        active.end = MAGIC.len() as u64;
        let frames = [NewFrame::record(Kind::Start, start)];
        let mut sequence = self.sequence;
        let headers = active.headers(&frames, &mut sequence, self.settled);
        append(active, &frames, &headers)?;
        let synced = active.file.sync();
        synced.map_err(|error| poisoned("sync", &active.path, &error))?;
        active.begun = active.end;
        active.synced = active.end;
        active.is_dirty = false;
        Ok(())
    }

    /// Removes the oldest segments whose batches are all among the first `done`: one after the other, also after a power
    /// loss, so that what is left has no hole. A few become spares, if they may.
    pub(super) fn remove_through(&mut self, done: u64, may_keep: bool) {
        while let Some(oldest) = self.closed.front()
            && oldest.last_sequence <= done
        {
            let removed = if may_keep {
                self.spares
                    .rename_or_remove(&*self.disk, &oldest.path, oldest.bytes)
            } else {
                self.disk.remove_file(&oldest.path).map(|()| None)
            };
            let spare = match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %oldest.path.display(), %error, "a segment that is no longer needed cannot be removed");
                    return;
                }
                removed => removed.unwrap_or_default(),
            };
            // Tried again with the next attempt: the file is not there then, which is fine.
            if let Err(error) = self.disk.sync_dir(&self.dir) {
                tracing::warn!(path = %oldest.path.display(), %error, "the removal of a segment cannot be made durable");
                return;
            }
            if let Some(spare) = spare {
                self.spares.add(spare, oldest.bytes);
            }
            self.closed_bytes -= oldest.bytes;
            self.closed.pop_front();
        }
    }
}

/// What a segment that is made now begins with.
pub(super) fn new_start(segment: u64, remembered: Vec<(Digest, Duration)>) -> Start {
    Start {
        segment,
        created_unix_ms: unix_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schemas: table_schemas(),
        is_overwritten: false,
        remembered: remembered
            .into_iter()
            .map(|(digest, left)| Remembered {
                digest: digest.to_bytes().to_vec(),
                left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            })
            .collect(),
    }
}

/// What marks the frames of a new segment.
pub(super) fn new_salt() -> u32 {
    let [.., a, b, c, d] = *uuid::Uuid::now_v7().as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl Active {
    fn new(file: Box<dyn DiskFile>, file_bytes: u64, path: PathBuf) -> Active {
        Active {
            file,
            file_bytes,
            salt: new_salt(),
            path,
            begun: 0,
            end: 0,
            synced: 0,
            is_dirty: true,
        }
    }

    /// The frames' headers. Counts the batches among them.
    fn headers(
        &self,
        frames: &[NewFrame<'_>],
        sequence: &mut u64,
        settled: u64,
    ) -> Vec<[u8; HEADER_BYTES]> {
        let header = |frame: &NewFrame<'_>| {
            let (payload_bytes, payload_crc32c) = frame.bytes_and_crc();
            *sequence += u64::from(frame.kind == Kind::Batch);
            let header = Header {
                kind: frame.kind,
                payload_bytes,
                payload_crc32c,
                sequence: *sequence,
                synced: self.synced,
                settled,
                salt: self.salt,
            };
            header.encode()
        };
        frames.iter().map(header).collect()
    }
}

/// Writes frames at the end of a segment, all or, on a full disk, none.
fn append(
    active: &mut Active,
    frames: &[NewFrame<'_>],
    headers: &[[u8; HEADER_BYTES]],
) -> Result<(), JournalError> {
    const ZEROS: [u8; 8] = [0; 8];
    let mut slices = Vec::new();
    let mut bytes = 0;
    for (frame, header) in frames.iter().zip(headers) {
        let payload_bytes = u64::from(frame.bytes_and_crc().0);
        slices.push(IoSlice::new(header));
        slices.extend(frame.parts().map(IoSlice::new));
        let zeros = usize::try_from(padding(payload_bytes)).unwrap_or_default();
        slices.push(IoSlice::new(ZEROS.get(..zeros).unwrap_or_default()));
        bytes += frame_bytes(payload_bytes);
    }
    slices.retain(|slice| !slice.is_empty());
    active.is_dirty = true;
    match write_all(&mut active.file, &mut slices) {
        Ok(()) => {
            active.end += bytes;
            Ok(())
        }
        Err(error) => {
            let failed = failure("write", &active.path, &error);
            if let Err(error) = active.file.set_len(active.end) {
                return Err(poisoned("cut off a failed write of", &active.path, &error));
            }
            active.file_bytes = active.end;
            Err(failed)
        }
    }
}

fn write_all(file: &mut Box<dyn DiskFile>, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut left = slices;
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A full disk passes; any other failure means that nobody knows what is on it.
fn failure(action: &str, path: &Path, error: &io::Error) -> JournalError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::NoSpace,
        _ => poisoned(action, path, error),
    }
}

/// A file that could not even be opened holds nothing that is not known.
fn not_made(action: &str, path: &Path, error: &io::Error) -> JournalError {
    match failure(action, path, error) {
        JournalError::Poisoned(what) => JournalError::NoSegment(what),
        other => other,
    }
}

fn poisoned(action: &str, path: &Path, error: &io::Error) -> JournalError {
    JournalError::Poisoned(format!("cannot {action} {}: {error}", path.display()))
}

fn unix_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}
