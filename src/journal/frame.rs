//! One frame: a header that checks itself and its payload. The layout is in [`super`].

/// The header's length, bytes.
pub(super) const HEADER_BYTES: usize = 48;

/// Frames begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// The longest payload, bytes.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 1 << 30;

/// The longest payload that is not a batch, bytes: a start or a note with all the requests that can be remembered has less
/// than a quarter of it.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// No journal gets here: a sequence or a seal's number above it is not one that was written.
pub(super) const SEQUENCE_MAX: u64 = 1 << 62;

const MAGIC: [u8; 4] = *b"OJF1";

/// Where the header's own checksum stands.
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Start = 1,
    Batch = 2,
    Cut = 3,
    Note = 4,
    Idle = 5,
    Close = 6,
    Gap = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        let kinds = [
            Kind::Start,
            Kind::Batch,
            Kind::Cut,
            Kind::Note,
            Kind::Idle,
            Kind::Close,
            Kind::Gap,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The longest payload of the kind, bytes.
    fn payload_bytes_max(self) -> u64 {
        match self {
            Kind::Batch => PAYLOAD_BYTES_MAX,
            _ => RECORD_BYTES_MAX,
        }
    }

    /// The kind in one word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Batch => "batch",
            Kind::Cut => "cut",
            Kind::Note => "note",
            Kind::Idle => "idle",
            Kind::Close => "close",
            Kind::Gap => "gap",
        }
    }
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// They were never one, or are not as they were written.
    Broken(&'static str),
    /// They are as they were written, with this salt, and this otlake does not understand them.
    Foreign(&'static str, u32),
}

impl NoHeader {
    pub(super) fn what(self) -> &'static str {
        match self {
            NoHeader::Broken(what) | NoHeader::Foreign(what, _) => what,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc32c: u32,
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) settled: u64,
    /// The same in all frames of a segment, and in no other: a file that is used again has frames of before.
    pub(super) salt: u32,
}

impl Header {
    /// Bytes of the whole frame: header, payload and the zeros after it.
    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.payload_bytes))
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [(usize, &[u8]); 8] = [
            (0, &MAGIC),
            (4, &[self.kind as u8]),
            (8, &self.payload_bytes.to_le_bytes()),
            (12, &self.payload_crc32c.to_le_bytes()),
            (16, &self.sequence.to_le_bytes()),
            (24, &self.synced.to_le_bytes()),
            (32, &self.settled.to_le_bytes()),
            (40, &self.salt.to_le_bytes()),
        ];
        for (at, field) in fields {
            for (to, from) in bytes.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
        }
        let crc = crc32c::crc32c(bytes.get(..CHECKED_BYTES).unwrap_or_default());
        for (to, from) in bytes.iter_mut().skip(CHECKED_BYTES).zip(crc.to_le_bytes()) {
            *to = from;
        }
        bytes
    }

    /// Reads a header.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, NoHeader> {
        if !bytes.starts_with(&MAGIC) {
            return Err(NoHeader::Broken("no frame begins here"));
        }
        let (checked, crc) = bytes.split_at(CHECKED_BYTES);
        if crc32c::crc32c(checked).to_le_bytes() != crc {
            let what = "the frame's header does not have its checksum";
            return Err(NoHeader::Broken(what));
        }
        let salt = u32::from_le_bytes(field(bytes, 40));
        let kind = bytes.get(4).copied().and_then(Kind::from_byte);
        let kind = kind.ok_or(NoHeader::Foreign(
            "the frame is of a kind that this otlake does not know; a later one wrote it",
            salt,
        ))?;
        let payload_bytes = u32::from_le_bytes(field(bytes, 8));
        if u64::from(payload_bytes) > kind.payload_bytes_max() {
            let what = "the frame is longer than any of its kind is";
            return Err(NoHeader::Foreign(what, salt));
        }
        Ok(Header {
            kind,
            payload_bytes,
            payload_crc32c: u32::from_le_bytes(field(bytes, 12)),
            sequence: u64::from_le_bytes(field(bytes, 16)),
            synced: u64::from_le_bytes(field(bytes, 24)),
            settled: u64::from_le_bytes(field(bytes, 32)),
            salt,
        })
    }
}

/// `N` bytes of a header; zeros where there are none.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let part = bytes.get(at..at + N).and_then(|part| part.try_into().ok());
    part.unwrap_or([0; N])
}

/// Bytes of a frame with a payload of this length.
pub(super) fn frame_bytes(payload_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + payload_bytes + padding(payload_bytes)
}

/// Zeros after a payload of this length.
pub(super) fn padding(payload_bytes: u64) -> u64 {
    payload_bytes.next_multiple_of(ALIGNMENT as u64) - payload_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a header is written and read; then each of its bytes is changed in turn.
    /// Guarantees: it comes back as it was, and no change goes unnoticed.
    #[test]
    fn a_header_checks_itself() {
        let header = Header {
            kind: Kind::Batch,
            payload_bytes: 1001,
            payload_crc32c: 0xdead_beef,
            sequence: 7,
            synced: 4096,
            settled: 6,
            salt: 77,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(header.frame_bytes(), 48 + 1008);
        for at in 0..HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(Header::decode(&changed).is_err(), "byte {at}");
        }
    }
}
