//! What a start makes of a journal that is not as it was written: an end that was never synced is cut off, all else is
//! told with its place, and nothing is touched.

use std::path::Path;

use otlake::disk::Disk as _;
use otlake::journal::scan::secure_end;
use otlake::journal::{Damage, Scan, ScanError, scan};

use super::alone::{Alone, Batch, Settings, cut_record, found, segment};
use super::world::{ROOT, flags_of, journal_dir};
use crate::support::faulty_disk::FaultyDisk;
use crate::support::journal_input::{frame, salted, sum};

const HEADER_BYTES: usize = 48;
pub const MAGIC_BYTES: usize = 16;

pub fn disk() -> FaultyDisk {
    let disk = FaultyDisk::new(1, Path::new(ROOT));
    disk.create_dir_all(&journal_dir()).unwrap();
    disk.sync_dir(Path::new(ROOT)).unwrap();
    disk
}

/// A journal of requests 1 to `requests` with their number of records, sent one by one, and a cut at the second. It ends
/// as after a crash.
pub fn journal(requests: u32, segment_bytes: u64) -> FaultyDisk {
    let disk = disk();
    let settings = Settings {
        segment_bytes,
        ..Settings::default()
    };
    let alone = Alone::start(&disk, &settings, 0).unwrap();
    for number in 1..=requests {
        alone.send(&[(number, number)]).remove(0).unwrap();
        if number == 2 {
            alone.cut(cut_record(1, 2)).unwrap();
        }
    }
    disk.go_down();
    alone.journal.finish();
    disk.restart();
    disk
}

pub fn batches(numbers: std::ops::RangeInclusive<u32>) -> Vec<Batch> {
    let batch = |number| (u64::from(number), flags_of(number, number));
    numbers.map(batch).collect()
}

/// Where the frames of a segment begin, and its end.
pub fn places(content: &[u8]) -> Vec<usize> {
    let mut places = vec![MAGIC_BYTES];
    while let Some(len) = content
        .get(places[places.len() - 1] + 8..)
        .and_then(|rest| rest.first_chunk())
    {
        let payload = u32::from_le_bytes(*len) as usize;
        places.push(places[places.len() - 1] + HEADER_BYTES + payload.next_multiple_of(8));
    }
    places
}

/// A disk with only these segments, as numbered.
pub fn with(segments: &[(u64, &[u8])]) -> FaultyDisk {
    let disk = disk();
    for (number, content) in segments {
        disk.put(&segment(*number), content);
    }
    disk
}

fn damage_of(disk: &FaultyDisk) -> Damage {
    match scan(disk, &journal_dir()) {
        Err(ScanError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

/// Scans, mends the end, and scans again: what is there then.
pub fn mended(disk: &FaultyDisk) -> Scan {
    let first = scan(disk, &journal_dir()).unwrap();
    secure_end(disk, &first).unwrap();
    let again = scan(disk, &journal_dir()).unwrap();
    assert_eq!(again.torn, None);
    assert_eq!(again.last_sequence, first.last_sequence);
    again
}

/// Scenario: the last segment ends at each of its bytes in turn.
/// Guarantees: all whole frames before are there, the rest is cut off, no error.
#[test]
fn a_torn_end_is_cut_off_at_every_byte() {
    let content = journal(4, 1 << 20).content(&segment(1));
    let places = places(&content);
    for len in 0..content.len() {
        let disk = with(&[(1, &content[..len])]);
        let scan = mended(&disk);
        let whole = places.iter().filter(|place| **place <= len).count();
        // The first two places are the start's and that of the frame behind it.
        let frames = whole.saturating_sub(2);
        let expected = [0, 1, 2, 2, 3, 4][frames];
        assert_eq!(found(&disk, &scan), batches(1..=expected), "at {len}");
        assert_eq!(scan.cuts.len(), usize::from(frames >= 3), "at {len}");
        assert_eq!(
            disk.list(&journal_dir()).unwrap().len(),
            usize::from(whole >= 2)
        );
    }
}

/// Scenario: the last frame was written in part: zeros, or bytes of anything, stand where it should, also more of them.
/// Guarantees: it is cut off; what is before is there.
#[test]
fn an_end_of_zeros_or_anything_is_cut_off() {
    let content = journal(3, 1 << 20).content(&segment(1));
    let places = places(&content);
    let last = places[places.len() - 2];
    for fill in [0, 0xff, b'O'] {
        for len in [last + 1, last + 200, content.len(), content.len() + 5000] {
            let mut torn = content[..last].to_vec();
            torn.resize(len, fill);
            let disk = with(&[(1, &torn)]);
            let scan = mended(&disk);
            assert_eq!(found(&disk, &scan), batches(1..=2), "{fill} to {len}");
        }
    }
}

/// Scenario: a file of no length, or of zeros alone, behind the last segment: its beginning was never synced.
/// Guarantees: it is removed and its number used again.
#[test]
fn a_segment_of_which_nothing_was_synced_is_removed() {
    let content = journal(2, 1 << 20).content(&segment(1));
    for rest in [
        &b""[..],
        b"otlake journal \0",
        &[0; 9000],
        b"otlake journ",
        b"otlake journal 1OJF1",
    ] {
        let disk = with(&[(1, &content), (2, rest)]);
        let scan = mended(&disk);
        assert_eq!(found(&disk, &scan), batches(1..=2));
        assert_eq!((scan.next_segment(), scan.segments.len()), (2, 1));
    }
}

/// Scenario: one bit is flipped in each eighth byte of a segment that is not the last.
/// Guarantees: damage, with the file and the frame; only what nothing depends on, the zeros behind payloads, goes unnoticed.
#[test]
fn a_flipped_bit_before_the_last_segment_is_damage() {
    let disk = journal(4, 2_000);
    let (first, second) = (disk.content(&segment(1)), disk.content(&segment(2)));
    let places = places(&first);
    for at in (0..first.len()).step_by(8) {
        let mut flipped = first.clone();
        flipped[at] ^= 0x04;
        let damage = damage_of(&with(&[(1, &flipped), (2, &second)]));
        let begin = places.iter().rev().find(|place| **place <= at);
        let expected = begin.map_or(0, |place| *place as u64);
        assert_eq!((damage.path, damage.offset), (segment(1), expected), "{at}");
    }
}

/// Scenario: one bit is flipped in each eighth byte of the last segment.
/// Guarantees: damage where a later frame knows the frame to be synced, and nothing is changed; else the end is cut off.
#[test]
fn a_flipped_bit_in_the_last_segment_is_damage_once_it_was_synced() {
    let content = journal(4, 1 << 20).content(&segment(1));
    let places = places(&content);
    let last = places[places.len() - 2];
    for at in (0..content.len()).step_by(8) {
        let mut flipped = content.clone();
        flipped[at] ^= 0x40;
        let disk = with(&[(1, &flipped)]);
        if at < last {
            assert_eq!(damage_of(&disk).path, segment(1), "{at}");
            assert_eq!(disk.content(&segment(1)), flipped);
        } else {
            assert_eq!(found(&disk, &mended(&disk)), batches(1..=3), "{at}");
        }
    }
}

/// Scenario: a segment is missing, or is there under another number, or follows one that ends earlier.
/// Guarantees: damage, told with the file that shows it.
#[test]
fn a_missing_segment_is_damage() {
    let disk = journal(8, 2_000);
    let contents: Vec<Vec<u8>> = (1..=3)
        .map(|number| disk.content(&segment(number)))
        .collect();
    let damage = damage_of(&with(&[(1, &contents[0]), (3, &contents[2])]));
    assert_eq!(damage.path, segment(3));
    assert!(damage.what.contains("segment 2"), "{damage}");
    let damage = damage_of(&with(&[(1, &contents[0]), (2, &contents[2])]));
    assert!(damage.what.contains("another name"), "{damage}");
    let shorter = &contents[0][..places(&contents[0])[2]];
    let damage = damage_of(&with(&[(1, shorter), (2, &contents[1])]));
    assert!(damage.what.contains("ends with"), "{damage}");
    // Without the first ones the others are what is left when those are published.
    let disk = with(&[(2, &contents[1]), (3, &contents[2])]);
    let scan = mended(&disk);
    assert_eq!(
        found(&disk, &scan).len() as u64,
        scan.last_sequence - scan.before_first
    );
}

/// Scenario: files of other names lie in the journal's folder.
/// Guarantees: they are not looked at, and stay.
#[test]
fn files_of_other_names_are_left_alone() {
    let content = journal(2, 1 << 20).content(&segment(1));
    let disk = with(&[(1, &content)]);
    let names = [
        "1.journal",
        "0000000000000002.journal.partial",
        "notes.txt",
        "00000000000000x2.journal",
    ];
    for name in names {
        disk.put(&journal_dir().join(name), b"anything");
    }
    assert_eq!(found(&disk, &mended(&disk)), batches(1..=2));
    assert_eq!(disk.list(&journal_dir()).unwrap().len(), names.len() + 1);
}

/// Scenario: a later otlake wrote the end of the journal: a frame of a kind that is not known, a segment of another version.
/// Guarantees: damage, and not an end to be cut off: those frames may hold what was acknowledged.
#[test]
fn what_a_later_otlake_wrote_is_not_cut_off() {
    let content = journal(2, 1 << 20).content(&segment(1));
    let mut later = frame(1, 2, b"something new");
    later[4] = 99;
    let later = salted(later, &content);
    let disk = with(&[(1, &[&content[..], &later].concat())]);
    let damage = damage_of(&disk);
    assert_eq!(damage.offset, content.len() as u64);
    assert!(damage.what.contains("kind"), "{damage}");

    let mut second = content.clone();
    second[15] = b'2';
    let damage = damage_of(&with(&[(1, &second)]));
    assert!(damage.what.contains("version"), "{damage}");
    let damage = damage_of(&with(&[(1, &content), (2, &second[..MAGIC_BYTES])]));
    assert!(damage.what.contains("version"), "{damage}");
}

/// Scenario: the end is torn inside of a request whose text imitates whole frames, which know everything to be synced; then
/// such a frame has the segment's salt, which no client knows.
/// Guarantees: what a client sends cannot keep a start from cutting the end off; what the journal wrote can.
#[test]
fn an_end_that_imitates_frames_is_cut_off() {
    let content = journal(2, 1 << 20).content(&segment(1));
    let mut imitation = frame(5, 2, b"");
    imitation[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    sum(&mut imitation, 0, None);
    let torn = |frame: &[u8]| [&content[..], b"OJF1 torn here  ", frame].concat();
    let disk = with(&[(1, &torn(&imitation))]);
    assert_eq!(found(&disk, &mended(&disk)), batches(1..=2));
    let real = salted(imitation, &content);
    let disk = with(&[(1, &torn(&real))]);
    assert_eq!(damage_of(&disk).offset, content.len() as u64);
}
