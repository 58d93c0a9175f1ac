//! Bytes of any kind as a journal that is read at a start: what the fuzzer feeds, and the test that replays its corpus.
//!
//! | byte of the input | meaning |
//! |---|---|
//! | 0 | [`SUMMED`], [`TWO`], [`STARTED`], [`COUNTED`] |
//! | 1..3 | where the second segment begins in the rest, of 65536 |
//! | 3.. | frames, or with neither [`STARTED`] nor [`SUMMED`] the files' bytes as they are |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use otlake::disk::{Disk, DiskFile, DiskRead};
use otlake::journal::records::{Column, Start, TableSchema};
use otlake::journal::scan::secure_end;
use otlake::journal::{Scan, ScanError, replay, scan};
use otlake::rows::schema::columns;
use otlake::signal::Table;
use prost::Message as _;

/// Every frame gets its checksums, so that the input comes past them.
pub const SUMMED: u8 = 1;
/// There are two segments.
pub const TWO: u8 = 2;
/// Each segment begins as one of today, and the input follows.
pub const STARTED: u8 = 4;
/// Batches get the sequences that are due.
pub const COUNTED: u8 = 8;

const MAGIC: &[u8] = b"otlake journal 1";
const HEADER_BYTES: usize = 48;
const DIR: &str = "/journal";

/// Reads the input as a start does: scans, mends the end, scans again, replays everything. What is found wrong is fine.
pub fn recover(input: &[u8]) {
    let disk = Files::default();
    for (number, segment) in (1..).zip(segments(input)) {
        disk.put(number, segment);
    }
    let dir = Path::new(DIR);
    let Ok(found) = scan(&disk, dir) else {
        return;
    };
    secure_end(&disk, &found).expect("files in memory can be changed");
    let again = scan(&disk, dir).expect("what was mended can be read");
    assert!(again.torn.is_none());
    assert_eq!(described(&again), described(&found));
    let mut before = found.before_first;
    let replayed = replay(&disk, &again, 0..=u64::MAX, |stored| {
        assert!(stored.sequence > before);
        before = stored.sequence;
        Ok::<(), ScanError>(())
    });
    match replayed {
        Ok(()) => assert!(before == found.last_sequence || found.given_up > 0),
        // Caught, but nothing to rely on.
        Err(error) => assert!(!error.to_string().contains("panicked"), "{error}"),
    }
}

fn described(scan: &Scan) -> String {
    format!(
        "{:?} {:?} {:?}",
        scan.cuts, scan.last_sequence, scan.remembered
    )
}

/// The files that an input stands for.
pub fn segments(input: &[u8]) -> Vec<Vec<u8>> {
    let Some((&[flags, low, high], rest)) = input.split_first_chunk::<3>() else {
        return Vec::new();
    };
    let share = usize::from(u16::from_le_bytes([low, high]));
    let split = match flags & TWO {
        0 => rest.len(),
        _ => rest.len() * share / (1 << 16) / 8 * 8,
    };
    let (first, second) = rest.split_at(split);
    let mut sequence = 0;
    let mut all = vec![segment(flags, 1, &mut sequence, first)];
    if flags & TWO != 0 {
        all.push(segment(flags, 2, &mut sequence, second));
    }
    all
}

fn segment(flags: u8, number: u64, sequence: &mut u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if flags & STARTED != 0 {
        bytes.extend(MAGIC);
        let payload = start(number).encode_to_vec();
        bytes.extend(frame(1, *sequence, &payload));
    }
    let from = bytes.len();
    bytes.extend(rest);
    let from = if from == 0 { MAGIC.len() } else { from };
    if flags & SUMMED != 0 {
        sum(&mut bytes, from, (flags & COUNTED != 0).then_some(sequence));
    }
    bytes
}

/// The start of a segment as it is written today.
pub fn start(segment: u64) -> Start {
    let schema = |table: Table| TableSchema {
        table: table.name().to_owned(),
        columns: columns(table)
            .into_iter()
            .map(|(name, kind)| Column {
                name: name.to_owned(),
                kind: kind.sql().to_owned(),
            })
            .collect(),
    };
    Start {
        segment,
        schemas: Table::ALL.into_iter().map(schema).collect(),
        ..Start::default()
    }
}

/// A whole frame.
pub fn frame(kind: u8, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(b"OJF1");
    bytes[4] = kind;
    bytes[8..12].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    sum(&mut bytes, 0, None);
    bytes
}

/// Gives a frame the salt of a segment.
pub fn salted(mut frame: Vec<u8>, segment: &[u8]) -> Vec<u8> {
    let salt = MAGIC.len() + 40..MAGIC.len() + 44;
    frame[40..44].copy_from_slice(&segment[salt]);
    let crc = crc32c::crc32c(&frame[..44]);
    frame[44..48].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// Takes everything from `from` on for frames, and makes their checksums right.
pub fn sum(bytes: &mut [u8], from: usize, mut sequence: Option<&mut u64>) {
    let mut at = from;
    let before = (from > MAGIC.len()).then(|| bytes[MAGIC.len()..].first_chunk::<HEADER_BYTES>());
    let mut salt = before
        .flatten()
        .map(|start| [start[40], start[41], start[42], start[43]]);
    while at + HEADER_BYTES <= bytes.len() {
        let (header, rest) = bytes[at..].split_at_mut(HEADER_BYTES);
        header[..4].copy_from_slice(b"OJF1");
        header[4] %= 8;
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap());
        let len = rest.len().min(len as usize);
        header[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        header[12..16].copy_from_slice(&crc32c::crc32c(&rest[..len]).to_le_bytes());
        // The first frame's salt is that of the whole segment.
        let salt = *salt.get_or_insert([header[40], header[41], header[42], header[43]]);
        header[40..44].copy_from_slice(&salt);
        if let Some(sequence) = &mut sequence {
            **sequence += u64::from(header[4] == 2);
            header[16..24].copy_from_slice(&sequence.to_le_bytes());
        }
        let crc = crc32c::crc32c(&header[..44]);
        header[44..48].copy_from_slice(&crc.to_le_bytes());
        at += HEADER_BYTES + len.next_multiple_of(8);
    }
}

/// A disk with the segments in memory.
#[derive(Debug, Default)]
struct Files {
    files: Mutex<BTreeMap<PathBuf, Arc<Vec<u8>>>>,
}

impl Files {
    fn put(&self, number: u64, content: Vec<u8>) {
        let path = Path::new(DIR).join(format!("{number:016}.journal"));
        self.files.lock().unwrap().insert(path, Arc::new(content));
    }
}

struct Content(Arc<Vec<u8>>);

impl DiskRead for Content {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let begin = usize::try_from(offset).map_err(io::Error::other)?;
        let part = self.0.get(begin..begin + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Disk for Files {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        let files = self.files.lock().unwrap();
        let content = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Content(Arc::clone(content))))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let content = files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        *content = Arc::new(content[..len].to_vec());
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path);
        Ok(())
    }

    fn write_again(&self, _: &Path, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn overwrite(&self, _: &Path) -> io::Result<(Box<dyn DiskFile>, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }
}
