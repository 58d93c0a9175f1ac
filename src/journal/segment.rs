//! Reading a segment, frame by frame, trusting nothing in it.

use std::io;
use std::path::{Path, PathBuf};

use arrow::buffer::Buffer;
use prost::Message as _;

use super::error::{Damage, ScanError};
use super::frame::{ALIGNMENT, HEADER_BYTES, Header, Kind, NoHeader};
use super::records::Start;
use crate::disk::{Disk, DiskRead};

/// What a segment begins with; the last character is the format's version.
pub(super) const MAGIC: &[u8; 16] = b"otlake journal 1";

/// The ending of a segment's file name.
const SUFFIX: &str = ".journal";

/// How many bytes behind a bad frame are compared with checksums, in lengths of the segment, before it counts as damage:
/// bytes that imitate headers must not make a start slow.
const SEARCH_FACTOR: u64 = 4;

/// Read at once when frames are searched for.
const SEARCH_STEP_BYTES: usize = 1 << 20;

/// A segment's file.
#[must_use]
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016}{SUFFIX}")
}

/// The number in a segment's file name; `None` for other files.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let is_ours = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| digits.parse().ok()).flatten()
}

/// A frame as it was found.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) header: Header,
    pub(super) payload: Buffer,
}

/// Why no frame could be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file system refused.
    Io(io::Error),
    /// There is no whole frame at this offset.
    Bad {
        /// Where, bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// What lies behind a bad frame of the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing that was written once the bad frame was synced: it was never acknowledged.
    Unsynced,
    /// A frame that knows the bad one to have been synced, at this offset.
    Synced(u64),
    /// It cannot be told: too much there looks like frames, or a later otlake wrote it.
    Unclear,
}

/// Reads the frames of a segment in order.
pub(super) struct SegmentReader {
    path: PathBuf,
    file: Box<dyn DiskRead>,
    len: u64,
    offset: u64,
    /// What the start says of the frames behind it; `None` before it was read.
    salt: Option<u32>,
}

impl SegmentReader {
    /// Opens a segment; the first frame follows. A file too short for its magic text has no frames.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<SegmentReader, ScanError> {
        let opened = disk.open(path).and_then(|file| {
            let len = file.len()?;
            Ok((file, len))
        });
        let (file, len) = opened.map_err(ScanError::io(path))?;
        Ok(SegmentReader {
            path: path.to_owned(),
            file,
            len,
            offset: 0,
            salt: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length, bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at `offset`, which must not be behind the file's end.
    pub(super) fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Reads the magic text.
    pub(super) fn read_magic(&mut self) -> Result<(), Fault> {
        let mut magic = [0; MAGIC.len()];
        let bad = |what: &str| Fault::Bad {
            offset: 0,
            what: what.to_owned(),
        };
        if self.len < MAGIC.len() as u64 {
            return Err(bad("the file ends inside its first words"));
        }
        self.file.read_exact_at(&mut magic, 0).map_err(Fault::Io)?;
        if magic != *MAGIC {
            return Err(bad(
                "the file does not begin with the words of a journal of version 1",
            ));
        }
        self.offset = MAGIC.len() as u64;
        Ok(())
    }

    /// Reads magic text and start frame.
    pub(super) fn read_start(&mut self) -> Result<(Frame, Start), Fault> {
        self.read_magic()?;
        let offset = self.offset;
        let bad = |what: String| Fault::Bad { offset, what };
        let frame = self
            .next()?
            .ok_or_else(|| bad("the file has no start frame".to_owned()))?;
        if frame.header.kind != Kind::Start {
            return Err(bad(format!(
                "a {} frame stands where the start should",
                frame.header.kind.name()
            )));
        }
        let start = Start::decode(frame.payload.as_slice())
            .map_err(|error| bad(format!("the start frame: {error}")))?;
        self.salt = Some(frame.header.salt);
        Ok((frame, start))
    }

    /// The next frame; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Fault> {
        if self.offset == self.len {
            return Ok(None);
        }
        let header = self.header_at(self.offset)?;
        let payload = self.payload(self.offset, &header)?;
        let frame = Frame {
            offset: self.offset,
            header,
            payload: Buffer::from_vec(payload),
        };
        self.offset += header.frame_bytes();
        Ok(Some(frame))
    }

    /// The header at `offset`, of a frame that ends inside the file.
    pub(super) fn header_at(&self, offset: u64) -> Result<Header, Fault> {
        let bad = |what: &str| Fault::Bad {
            offset,
            what: what.to_owned(),
        };
        let left = self.len.saturating_sub(offset);
        if left < HEADER_BYTES as u64 {
            return Err(bad("the file ends inside a frame's header"));
        }
        let mut bytes = [0; HEADER_BYTES];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(Fault::Io)?;
        let header = Header::decode(&bytes).map_err(|none| bad(none.what()))?;
        if !self.has_salt(header.salt) {
            return Err(bad("the frame is left from an earlier use of the file"));
        }
        if header.frame_bytes() > left {
            return Err(bad("the file ends inside a frame"));
        }
        Ok(header)
    }

    /// Whether a frame with this salt belongs to this segment.
    fn has_salt(&self, salt: u32) -> bool {
        self.salt.is_none_or(|own| own == salt)
    }

    /// A frame's payload, which must have its checksum. No longer than the file, whatever the header says: that was looked
    /// at first.
    fn payload(&self, offset: u64, header: &Header) -> Result<Vec<u8>, Fault> {
        let payload = self.unchecked_payload(offset, header)?;
        if crc32c::crc32c(&payload) != header.payload_crc32c {
            return Err(Fault::Bad {
                offset,
                what: "the frame's content does not have its checksum".to_owned(),
            });
        }
        Ok(payload)
    }

    /// What stands where a frame's payload should, whether that is what was written or not.
    pub(super) fn unchecked_payload(&self, offset: u64, header: &Header) -> Result<Vec<u8>, Fault> {
        let len = usize::try_from(header.payload_bytes).map_err(|_| Fault::Bad {
            offset,
            what: "the frame is longer than memory".to_owned(),
        })?;
        let mut payload = vec![0; len];
        self.file
            .read_exact_at(&mut payload, offset + HEADER_BYTES as u64)
            .map_err(Fault::Io)?;
        Ok(payload)
    }

    /// The offset of the next whole frame at or behind `from`, if there is one.
    ///
    /// # Errors
    /// [`Fault::Bad`] when too many bytes had to be compared, or a later otlake wrote some of them.
    pub(super) fn find_frame(
        &self,
        from: u64,
        budget: &mut u64,
    ) -> Result<Option<(u64, Header)>, Fault> {
        let mut step = vec![0; SEARCH_STEP_BYTES];
        let mut at = from.next_multiple_of(ALIGNMENT as u64);
        while at + HEADER_BYTES as u64 <= self.len {
            let take =
                usize::try_from(self.len - at).map_or(step.len(), |left| left.min(step.len()));
            let bytes = step.get_mut(..take).unwrap_or_default();
            self.file.read_exact_at(bytes, at).map_err(Fault::Io)?;
            // Headers are looked at where they are whole in this step; the next one begins with the rest.
            for (place, window) in bytes.windows(HEADER_BYTES).enumerate().step_by(ALIGNMENT) {
                let offset = at + place as u64;
                let header = match window.first_chunk().map(Header::decode) {
                    Some(Ok(header)) => header,
                    Some(Err(NoHeader::Foreign(what, salt))) if self.has_salt(salt) => {
                        let what = what.to_owned();
                        return Err(Fault::Bad { offset, what });
                    }
                    _ => continue,
                };
                let fits = header.frame_bytes() <= self.len - offset;
                if !fits || !self.has_salt(header.salt) {
                    continue;
                }
                let Some(left) = budget.checked_sub(header.frame_bytes()) else {
                    return Err(Fault::Bad {
                        offset,
                        what: "too much here looks like frames".to_owned(),
                    });
                };
                *budget = left;
                match self.payload(offset, &header) {
                    Ok(_) => return Ok(Some((offset, header))),
                    Err(Fault::Bad { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            at += (take.saturating_sub(HEADER_BYTES) + ALIGNMENT) as u64 / ALIGNMENT as u64
                * ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// How much [`SegmentReader::find_frame`] may compare in this segment.
    pub(super) fn search_budget(&self) -> u64 {
        self.len.saturating_mul(SEARCH_FACTOR)
    }

    /// Whether what stands at `offset` is as it was written, by a later otlake; 0 is the beginning of the segment.
    fn is_foreign(&self, offset: u64) -> Result<bool, Fault> {
        let magic_bytes = MAGIC.len() as u64;
        let mut at = offset;
        if offset == 0 && self.len >= magic_bytes {
            let mut magic = [0; MAGIC.len()];
            self.file.read_exact_at(&mut magic, 0).map_err(Fault::Io)?;
            // The last character is the version; a zero there was not written yet.
            let (version, words) = magic.split_last().map_or((0, &[][..]), |(v, w)| (*v, w));
            let is_a_version = MAGIC.starts_with(words) && version.is_ascii_alphanumeric();
            if magic != *MAGIC && is_a_version {
                return Ok(true);
            }
            at = magic_bytes;
        }
        if self.len.saturating_sub(at) < HEADER_BYTES as u64 {
            return Ok(false);
        }
        let mut bytes = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut bytes, at).map_err(Fault::Io)?;
        let none = Header::decode(&bytes).err();
        Ok(matches!(none, Some(NoHeader::Foreign(_, salt)) if self.has_salt(salt)))
    }

    /// What lies behind the bad frame at `offset`.
    pub(super) fn behind(&self, offset: u64) -> Result<Behind, Fault> {
        if self.is_foreign(offset)? {
            return Ok(Behind::Unclear);
        }
        let mut budget = self.search_budget();
        let mut from = offset + 1;
        loop {
            match self.find_frame(from, &mut budget) {
                Ok(None) => return Ok(Behind::Unsynced),
                Ok(Some((at, header))) if header.synced > offset => return Ok(Behind::Synced(at)),
                Ok(Some((at, header))) => from = at + header.frame_bytes(),
                Err(Fault::Bad { .. }) => return Ok(Behind::Unclear),
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts a fault in this file's words.
    pub(super) fn error(&self, fault: Fault) -> ScanError {
        match fault {
            Fault::Io(source) => ScanError::io(&self.path)(source),
            Fault::Bad { offset, what } => ScanError::Damaged(Damage {
                path: self.path.clone(),
                offset,
                what,
            }),
        }
    }
}
