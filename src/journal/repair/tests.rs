//! Journals over the real file system, damaged in every way, repaired, and read again.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tempfile::TempDir;

use super::super::inspect::inspect;
use super::super::segment::SegmentReader;
use super::super::{Append, Digest, Hooks, Journal, JournalConfig, MOMENT, Scan, batch, replay};
use super::*;
use crate::decode::{Encoding, decode};
use crate::disk::{DiskRead, RealDisk};
use crate::memory::Budget;
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::rows::Rows;
use crate::signal::{CutCause, Durability, SealId, Signal, Table};

/// Batches in the journal that the tests damage.
const BATCHES: u64 = 14;

/// What the journal has in each batch.
type Batches = BTreeMap<u64, Vec<(Table, RecordBatch)>>;

fn rows(sequence: u64) -> Rows {
    let log_records = (0..sequence).map(|number| LogRecord {
        time_unix_nano: number + 1,
        severity_text: format!("a text that is longer than a view holds, {number} of {sequence}"),
        ..LogRecord::default()
    });
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: log_records.collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    let body = prost::Message::encode_to_vec(&request);
    let reservation = Budget::new(1 << 30).empty();
    decode(Signal::Logs, Encoding::Protobuf, &body, 7, reservation).unwrap()
}

fn cut(seal: u64, through: u64) -> CutRecord {
    CutRecord {
        seal: SealId(seal),
        through,
        cause: CutCause::Age,
        opened_unix_ms: 1,
        sealed_unix_ms: i64::MAX,
    }
}

/// A journal of [`BATCHES`] batches, the n-th with n rows, in several segments; seals 1 to 3 are cut at 4, 7 and 11.
fn journal() -> TempDir {
    let dir = TempDir::new().unwrap();
    let config = JournalConfig {
        dir: dir.path().to_owned(),
        segment_bytes: 2_500,
        disk_bytes_max: 1 << 40,
        durability: Durability::Journal,
        moment: MOMENT,
    };
    let hooks = Hooks {
        deliver: Box::new(|_, _| Some(SealId(1))),
        staged_bytes: Box::new(|| 0),
        remembered: Box::new(|| vec![(Digest(9), Duration::from_secs(3))]),
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let journal = Journal::start(disk, config, &Scan::default(), 0, hooks).unwrap();
    for sequence in 1..=BATCHES {
        let (done, outcome) = sync_channel(1);
        let rows = rows(sequence);
        let encoded = batch::encode(&rows.batches, Some(Digest(sequence.into()))).unwrap();
        journal.append(Append {
            rows,
            encoded,
            done: Box::new(move |outcome| done.send(outcome).unwrap()),
        });
        outcome.recv().unwrap().unwrap();
        match sequence {
            5 => journal.cut(cut(1, 4)).unwrap(),
            7 => journal.cut(cut(2, 7)).unwrap(),
            11 => journal.cut(cut(3, 11)).unwrap(),
            _ => {}
        }
    }
    journal.finish();
    dir
}

/// A journal's files, to make it again and again.
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn of(dir: &Path) -> Files {
        let paths = RealDisk.list(dir).unwrap();
        let named = paths.into_iter().filter(|path| path.is_file()).map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        });
        Files(named.collect())
    }

    fn write(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (name, content) in &self.0 {
            fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }
}

fn found(dir: &Path) -> Batches {
    let scan = scan(&RealDisk, dir).unwrap();
    let mut all = Batches::new();
    replay(&RealDisk, &scan, 1..=scan.last_sequence, |stored| {
        assert!(all.insert(stored.sequence, stored.batches).is_none());
        Ok::<(), ScanError>(())
    })
    .unwrap();
    all
}

fn expected() -> Batches {
    let batches = (1..=BATCHES).map(|sequence| (sequence, rows(sequence).batches));
    batches.collect()
}

/// The offsets, kinds, sequences and lengths of a whole segment's frames.
fn frames(path: &Path) -> Vec<(u64, Header)> {
    let mut reader = SegmentReader::open(&RealDisk, path).unwrap();
    reader.read_magic().unwrap();
    let mut all = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        all.push((frame.offset, frame.header));
    }
    all
}

fn flip(path: &Path, offset: u64) {
    let mut content = fs::read(path).unwrap();
    let at = usize::try_from(offset).unwrap();
    content[at] ^= 0x04;
    fs::write(path, content).unwrap();
}

/// Inspects, repairs, and answers what a start then finds.
fn repaired(dir: &Path) -> (Inspection, Repair, Batches) {
    let inspection = inspect(&RealDisk, dir).unwrap();
    let repair = repair(&RealDisk, &inspection).unwrap();
    let again = inspect(&RealDisk, dir).unwrap();
    assert!(!again.is_damaged(), "{:?}", again.places);
    assert_eq!(again.last_sequence, inspection.last_sequence);
    (inspection, repair, found(dir))
}

/// Scenario: a whole journal, and one whose end was being written.
/// Guarantees: every frame, batch, row and cut is counted; there is nothing to repair; the torn end is told as such.
#[test]
fn a_whole_journal_has_no_damage() {
    let dir = journal();
    let inspection = inspect(&RealDisk, dir.path()).unwrap();
    assert!(!inspection.is_damaged() && inspection.torn.is_none());
    assert!(inspection.segments.len() > 3, "{:?}", inspection.segments);
    let rows: u64 = inspection.segments.iter().map(|segment| segment.rows).sum();
    assert_eq!(rows, BATCHES * (BATCHES + 1) / 2);
    assert_eq!(inspection.cuts, [cut(1, 4), cut(2, 7), cut(3, 11)]);
    assert_eq!(
        (inspection.before_first, inspection.last_sequence),
        (0, BATCHES)
    );
    let by_seal = [
        (Some(SealId(1)), 2..=4),
        (Some(SealId(2)), 5..=7),
        (Some(SealId(3)), 8..=11),
        (None, 12..=13),
    ];
    assert_eq!(inspection.by_seal(&(2..=13)), by_seal);
    let last = &inspection.segments.last().unwrap().path;
    let mut content = fs::read(last).unwrap();
    content.extend_from_slice(b"OJF1 and then the power went");
    fs::write(last, content).unwrap();
    let inspection = inspect(&RealDisk, dir.path()).unwrap();
    assert!(!inspection.is_damaged());
    assert_eq!(inspection.torn.as_ref().unwrap().bytes, 28);
    let before = Files::of(dir.path()).0;
    assert!(repair(&RealDisk, &inspection).unwrap().replaced.is_empty());
    assert_eq!(Files::of(dir.path()).0, before);
}

/// Scenario: one byte is changed in each frame's header, then in its payload.
/// Guarantees: a start refuses, unless it is the torn end; the repair gives up that frame's batch and nothing else, tells
/// which, and keeps the damaged file as it was.
#[test]
fn a_damaged_frame_costs_itself_alone() {
    let original = journal();
    let files = Files::of(original.path());
    let all = expected();
    let last = files.0.last().unwrap().0.clone();
    let mut damaged = 0;
    for (name, content) in &files.0 {
        let frames = frames(&original.path().join(name));
        for (place, (offset, header)) in frames.iter().enumerate() {
            for inside in [20, 48 + u64::from(header.payload_bytes) / 2] {
                if inside >= 48 + u64::from(header.payload_bytes) {
                    continue;
                }
                let dir = files.write();
                flip(&dir.path().join(name), offset + inside);
                let is_end = *name == last && place + 1 == frames.len();
                assert_eq!(scan(&RealDisk, dir.path()).is_err(), !is_end);
                if is_end {
                    continue;
                }
                damaged += 1;
                let bad = fs::read(dir.path().join(name)).unwrap();
                let (inspection, repair, found) = repaired(dir.path());
                let mut wanted = all.clone();
                let [at] = &inspection.places[..] else {
                    panic!("{:?}", inspection.places)
                };
                if header.kind == Kind::Batch {
                    let sequence = header.sequence;
                    wanted.remove(&sequence);
                    assert_eq!(at.missing, Some(sequence..=sequence));
                    if inside > 48 {
                        assert_eq!(at.rows, Some(sequence));
                    }
                } else {
                    assert_eq!(at.missing, None);
                }
                assert_eq!(found, wanted, "{name} {header:?} {inside}");
                let (path, kept) = &repair.replaced[0];
                assert_eq!(path, &dir.path().join(name));
                assert_eq!(fs::read(kept).unwrap(), bad);
                assert_ne!(&bad, content);
            }
        }
    }
    assert!(damaged > 2 * 14, "{damaged}");
}

/// Scenario: each segment but the first and last is missing in turn, and two together.
/// Guarantees: an empty one takes its place; its batches are given up and told, all others come back.
#[test]
fn a_missing_segment_is_made_again() {
    let files = Files::of(journal().path());
    let count = files.0.len();
    let mut cases: Vec<std::ops::Range<usize>> = (1..count - 1).map(|at| at..at + 1).collect();
    cases.push(1..3);
    for lost in cases {
        let dir = files.write();
        let mut wanted = expected();
        for (name, _) in &files.0[lost.clone()] {
            let path = dir.path().join(name);
            for (_, header) in frames(&path) {
                if header.kind == Kind::Batch {
                    wanted.remove(&header.sequence);
                }
            }
            fs::remove_file(path).unwrap();
        }
        let (inspection, repair, found) = repaired(dir.path());
        assert_eq!(found, wanted);
        assert_eq!(repair.made.len(), lost.len());
        assert!(repair.replaced.is_empty());
        let given_up = BATCHES - u64::try_from(wanted.len()).unwrap();
        assert_eq!(inspection.missing_batches, given_up);
    }
}

/// Scenario: a cut is lost with its frame, and the seal is known from elsewhere, beside seals of an older journal.
/// Guarantees: the cut is there again at its place; the others are not.
#[test]
fn a_lost_cut_is_written_again() {
    let original = journal();
    let files = Files::of(original.path());
    let known = [cut(1, 4), cut(2, 7), cut(3, 11)];
    let mut old = cut(0, 3);
    old.sealed_unix_ms = 1;
    let mut lost = 0;
    for (name, _) in &files.0 {
        for (offset, header) in frames(&original.path().join(name)) {
            if header.kind != Kind::Cut {
                continue;
            }
            lost += 1;
            let dir = files.write();
            flip(&dir.path().join(name), offset + 20);
            let mut inspection = inspect(&RealDisk, dir.path()).unwrap();
            assert_eq!(inspection.cuts.len(), 2);
            inspection.restore_cuts(&[known[2], old, known[1], known[0]]);
            let repair = repair(&RealDisk, &inspection).unwrap();
            assert_eq!(repair.cuts.len(), 1);
            assert_eq!(scan(&RealDisk, dir.path()).unwrap().cuts, known);
            assert_eq!(found(dir.path()), expected());
        }
    }
    assert_eq!(lost, 3);
}

/// Scenario: the last quarter of a segment, with a cut, and the next segment's start are lost.
/// Guarantees: what is missing is told for the batches between; requests stay remembered; the cut is back.
#[test]
fn damage_over_the_end_of_a_segment_is_bounded() {
    let files = Files::of(journal().path());
    for at in 0..files.0.len() - 2 {
        let dir = files.write();
        let [first, second] = [at, at + 1].map(|at| dir.path().join(&files.0[at].0));
        let end = files.0[at].1.len() * 3 / 4;
        fs::write(&first, &files.0[at].1[..end]).unwrap();
        flip(&second, 70);
        let mut inspection = inspect(&RealDisk, dir.path()).unwrap();
        inspection.restore_cuts(&[cut(1, 4), cut(2, 7), cut(3, 11)]);
        let before = inspection.missing_batches;
        repair(&RealDisk, &inspection).unwrap();
        let scan = scan(&RealDisk, dir.path()).unwrap();
        assert_eq!(scan.cuts, [cut(1, 4), cut(2, 7), cut(3, 11)]);
        assert_eq!(scan.given_up, before);
        let all = found(dir.path());
        assert_eq!(all.len() as u64, BATCHES - before);
        let wanted = expected();
        assert!(
            all.iter()
                .all(|(sequence, batches)| wanted[sequence] == *batches)
        );
        assert!(
            scan.remembered
                .iter()
                .any(|(digest, _)| *digest == Digest(9))
        );
    }
}

/// Scenario: the first segment is cut off in its start, and the start of the second is lost; then the first ones of a
/// journal that has removed segments.
/// Guarantees: the first segment of all begins with batch 1; of another nothing tells what stood before its first frame.
#[test]
fn what_stood_before_the_first_frame_is_told_where_it_can_be() {
    let files = Files::of(journal().path());
    for (from, is_bounded) in [(0, true), (1, false)] {
        let dir = files.write();
        let [first, second] = [from, from + 1].map(|at| dir.path().join(&files.0[at].0));
        for (name, _) in &files.0[..from] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let kept = frames(&second)[0].1.sequence;
        fs::write(&first, &files.0[from].1[..1000]).unwrap();
        flip(&second, 70);
        let (inspection, _, found) = repaired(dir.path());
        let place = &inspection.places[0];
        assert_eq!(place.is_bounded, is_bounded, "{:?}", inspection.places);
        assert_eq!(
            inspection.missing_batches,
            if is_bounded { kept } else { 0 }
        );
        assert_eq!(found.keys().next(), Some(&(kept + 1)));
    }
}

/// Scenario: the header of a batch is broken, whose payload has a frame in it that says that a seal holds everything.
/// Guarantees: the imitation is not taken for a frame.
#[test]
fn a_frame_inside_a_payload_is_not_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(file_name(1));
    let mut new = NewSegment::create(&RealDisk, &path).unwrap();
    new.start(&new_start(1, Vec::new()), 0, 0).unwrap();
    let encoded = batch::encode(&rows(3).batches, None).unwrap();
    let payload: Vec<u8> = encoded
        .parts
        .iter()
        .flat_map(|part| part.to_vec())
        .collect();
    let batch = |new: &mut NewSegment, payload: &[u8]| {
        new.sequence += 1;
        new.write(Kind::Batch, payload).unwrap();
    };
    batch(&mut new, &payload);
    let mut imitation = NewSegment::create(&RealDisk, &dir.path().join("imitation")).unwrap();
    imitation.sequence = 2;
    imitation.end = 0; // Its writer does not know where it will stand.
    imitation.record(Kind::Cut, &Cut::from(cut(9, 2))).unwrap();
    imitation.sync().unwrap();
    let fake = fs::read(&imitation.partial).unwrap();
    let broken_at = usize::try_from(new.end).unwrap();
    batch(&mut new, &[&fake[16..], &[1; 100]].concat());
    batch(&mut new, &payload);
    new.sync().unwrap();
    let mut content = fs::read(&new.partial).unwrap();
    content[broken_at + 4] ^= 1;
    fs::write(&path, content).unwrap();
    let (inspection, _, found) = repaired(dir.path());
    assert_eq!(inspection.places.len(), 1);
    assert_eq!(inspection.cuts, []);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [1, 3]);
}

/// Scenario: a file far behind the others.
/// Guarantees: the repair refuses rather than to make all files between.
#[test]
fn a_file_from_elsewhere_is_told() {
    let files = Files::of(journal().path());
    let dir = files.write();
    let far = dir.path().join(file_name(9_999_999_999_999_999));
    fs::copy(dir.path().join(&files.0[2].0), &far).unwrap();
    let inspection = inspect(&RealDisk, dir.path()).unwrap();
    let error = repair(&RealDisk, &inspection).unwrap_err().to_string();
    assert!(error.contains(&far.display().to_string()), "{error}");
}

/// A small generator, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn damage(&mut self, files: &mut Files) {
        let at = self.below(files.0.len());
        let other = self.below(files.0.len());
        let foreign = files.0[other].1.clone();
        let content = &mut files.0[at].1;
        if content.is_empty() {
            return;
        }
        let from = self.below(content.len());
        let to = (from + self.below(3000)).min(content.len());
        match self.below(8) {
            0 | 1 => content[from] ^= 1 << self.below(8),
            2 => content[from..to].fill(0),
            3 => content.truncate(from),
            4 => drop(content.drain(from / 8 * 8..to / 8 * 8)),
            5 => drop(content.splice(from..from, vec![0x4f; to - from])),
            6 => *content = foreign,
            _ if files.0.len() > 2 => drop(files.0.remove(at)),
            _ => {}
        }
    }
}

/// Scenario: one to four random damages: bits, zeros, cut ends, lost and inserted blocks, segments lost or copied over.
/// Guarantees: nothing panics; what the inspection finds whole a start takes; after the repair a start takes the journal,
/// and every batch in it is as it was written.
#[test]
fn any_damage_can_be_repaired() {
    let original = journal();
    let all = expected();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..200 {
        let mut files = Files::of(original.path());
        for _ in 0..=random.below(4) {
            random.damage(&mut files);
        }
        let dir = files.write();
        let inspection = inspect(&RealDisk, dir.path()).unwrap();
        if scan(&RealDisk, dir.path()).is_err() {
            assert!(inspection.is_damaged(), "round {round}");
        }
        let (_, _, found) = repaired(dir.path());
        for (sequence, batches) in found {
            assert_eq!(all[&sequence], batches, "round {round}");
        }
    }
}

/// The file system, until it is cut off after some changes.
#[derive(Debug)]
struct CutOff(AtomicI64);

impl CutOff {
    fn step(&self) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            left if left > 0 => Ok(()),
            _ => Err(io::Error::other("cut off")),
        }
    }
}

impl Disk for CutOff {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step()?;
        RealDisk.create(path)
    }
    fn overwrite(&self, path: &Path) -> io::Result<(Box<dyn DiskFile>, u64)> {
        self.step()?;
        RealDisk.overwrite(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        RealDisk.open(path)
    }
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.step()?;
        RealDisk.truncate(path, len)
    }
    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        self.step()?;
        RealDisk.write_again(path, from)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_file(path)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.create_dir_all(dir)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

/// Scenario: a repair of three segments, one of them missing, is cut off between any two steps, then done again.
/// Guarantees: the same batches come back as if it had not been cut off, and every damaged file is kept.
#[test]
fn a_repair_that_was_cut_off_is_done_again() {
    let files = Files::of(journal().path());
    let damaged = || {
        let dir = files.write();
        let path = |at: usize| dir.path().join(&files.0[at].0);
        fs::remove_file(path(2)).unwrap();
        flip(&path(1), 70);
        let content = fs::read(path(3)).unwrap();
        fs::write(path(3), &content[..content.len() - 40]).unwrap();
        dir
    };
    let whole = damaged();
    let (_, _, wanted) = repaired(whole.path());
    assert!(wanted.len() > 5);
    let mut cut_off = 0;
    loop {
        let dir = damaged();
        let before = [1, 3].map(|at| fs::read(dir.path().join(&files.0[at].0)).unwrap());
        let inspection = inspect(&RealDisk, dir.path()).unwrap();
        let disk = CutOff(AtomicI64::new(cut_off));
        if repair(&disk, &inspection).is_ok() {
            break;
        }
        cut_off += 1;
        let (_, _, found) = repaired(dir.path());
        assert_eq!(found, wanted, "cut off after {cut_off} steps");
        let kept = RealDisk.list(&dir.path().join(DAMAGED_DIR)).unwrap();
        for content in &before {
            assert!(kept.iter().any(|kept| fs::read(kept).unwrap() == *content));
        }
    }
    assert!(cut_off > 10, "{cut_off}");
}
