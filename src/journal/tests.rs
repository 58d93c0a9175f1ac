//! The journal over the real file system: what is written is found again. Failing disks are in tests/journal.rs.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tempfile::TempDir;

use super::*;
use crate::decode::{Encoding, decode};
use crate::disk::{Disk, RealDisk};
use crate::memory::Budget;
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::rows::Rows;
use crate::signal::{CutCause, Durability, SealId, Signal, Table};

fn rows(numbers: std::ops::Range<u64>) -> Rows {
    let log_records = numbers.map(|number| LogRecord {
        time_unix_nano: number + 1,
        severity_text: format!("a text that is longer than a view holds, number {number}"),
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

struct Delivered(Arc<Mutex<Vec<(u64, u64)>>>);

fn start(dir: &TempDir, segment_bytes: u64) -> (Arc<Journal>, Scan, Delivered) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let scan = scan(&*disk, dir.path()).unwrap();
    let config = JournalConfig {
        dir: dir.path().to_owned(),
        segment_bytes,
        disk_bytes_max: 1 << 40,
        durability: Durability::Journal,
        moment: MOMENT,
    };
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&delivered);
    let hooks = Hooks {
        deliver: Box::new(move |rows, sequence| {
            seen.lock().unwrap().push((sequence, rows.rows()));
            Some(SealId(1))
        }),
        staged_bytes: Box::new(|| 0),
        remembered: Box::new(|| vec![(Digest(9), Duration::from_secs(3))]),
    };
    let journal = Journal::start(disk, config, &scan, scan.before_first, hooks).unwrap();
    (journal, scan, Delivered(delivered))
}

fn append(journal: &Journal, numbers: std::ops::Range<u64>, digest: u128) -> Outcome {
    let (done, outcome) = sync_channel(1);
    let rows = rows(numbers);
    let encoded = batch::encode(&rows.batches, Some(Digest(digest))).unwrap();
    journal.append(Append {
        rows,
        encoded,
        done: Box::new(move |outcome| done.send(outcome).unwrap()),
    });
    outcome.recv().unwrap()
}

fn found(scan: &Scan) -> Vec<(u64, Vec<(Table, RecordBatch)>)> {
    let mut all = Vec::new();
    replay(&RealDisk, scan, 1..=scan.last_sequence, |stored| {
        all.push((stored.sequence, stored.batches));
        Ok::<(), ScanError>(())
    })
    .unwrap();
    all
}

/// Scenario: small and large requests and a cut over several segments, then the journal is read again.
/// Guarantees: every batch comes back with its rows, value by value, in order; so does the cut; the requests answered
/// in the last moment are remembered.
#[test]
fn what_is_written_is_found_again() {
    let dir = TempDir::new().unwrap();
    let (journal, _, delivered) = start(&dir, 40_000);
    for (number, count) in [1, 10, 2000, 1].into_iter().enumerate() {
        let outcome = append(&journal, 0..count, number as u128);
        assert_eq!(outcome, Ok(Some(SealId(1))));
    }
    let cut = CutRecord {
        seal: SealId(5),
        through: 3,
        cause: CutCause::Age,
        opened_unix_ms: 1,
        sealed_unix_ms: 2,
    };
    journal.cut(cut).unwrap();
    let expected = vec![(1, 1), (2, 10), (3, 2000), (4, 1)];
    assert_eq!(*delivered.0.lock().unwrap(), expected);
    assert_eq!(journal.stats().requests, 4);

    let scan = scan(&RealDisk, dir.path()).unwrap();
    assert_eq!(scan.last_sequence, 4);
    assert_eq!(scan.cuts, [cut]);
    assert_eq!(scan.last_cut(), 3);
    assert_eq!(scan.segments.len(), 2, "{:?}", scan.segments);
    let remembered: Vec<u128> = scan.remembered.iter().map(|(digest, _)| digest.0).collect();
    assert_eq!(remembered, [9, 0, 1, 2, 3]);
    for ((sequence, count), (found_sequence, batches)) in expected.into_iter().zip(found(&scan)) {
        assert_eq!(sequence, found_sequence);
        assert_eq!(batches, rows(0..count).batches);
    }
    journal.finish();
}

/// Scenario: requests with columns that are null, that have one value, that have two, in every row or in some.
/// Guarantees: what is left out comes back, and takes no room: a row of a large request less than its own text twice.
#[test]
fn columns_that_repeat_are_written_once() {
    let rows = rows(0..1000);
    let encoded = batch::encode(&rows.batches, None).unwrap();
    let text = "a text that is longer than a view holds, number 999".len() as u64;
    assert!(encoded.bytes() < 1000 * 2 * text, "{}", encoded.bytes());

    let dir = TempDir::new().unwrap();
    let (journal, _, _) = start(&dir, 1 << 20);
    for count in [1, 2, 3] {
        append(&journal, 0..count, 1).unwrap();
    }
    journal.finish();
    let scan = scan(&RealDisk, dir.path()).unwrap();
    for (count, (_, batches)) in (1..).zip(found(&scan)) {
        assert_eq!(batches, self::rows(0..count).batches);
    }
}

/// Scenario: of two requests answered a moment ago one is noted as without its answer, and then its retry came.
/// Guarantees: after a crash it is remembered once, until the retry's answer counts as arrived: here by an orderly end.
#[test]
fn a_noted_request_is_remembered_once() {
    let dir = TempDir::new().unwrap();
    let (journal, _, _) = start(&dir, 1 << 20);
    append(&journal, 0..1, 1).unwrap();
    append(&journal, 0..1, 2).unwrap();
    let remembered = || {
        let scan = scan(&RealDisk, dir.path()).unwrap();
        let mut digests: Vec<u128> = scan.remembered.iter().map(|(digest, _)| digest.0).collect();
        digests.sort_unstable();
        digests
    };
    journal.note_undelivered(Digest(1));
    journal.wait_idle();
    assert_eq!(remembered(), [1, 2, 9]);
    // The retry's answer may not have arrived either: only a moment later it counts.
    journal.note_repeated(Digest(1));
    journal.wait_idle();
    assert_eq!(remembered(), [1, 2, 9]);
    journal.finish();
    assert_eq!(remembered(), [9]);
}

/// Scenario: everything is published and the journal ends in order; then it begins again.
/// Guarantees: segments that nothing needs are gone, sequences go on, nothing is remembered but what the hook names.
#[test]
fn an_orderly_end_leaves_nothing_to_do() {
    let dir = TempDir::new().unwrap();
    let (journal, _, _) = start(&dir, 1);
    for number in 0..3 {
        append(&journal, 0..1, number).unwrap();
    }
    let cut = CutRecord {
        seal: SealId(1),
        through: 3,
        cause: CutCause::Stop,
        opened_unix_ms: 1,
        sealed_unix_ms: 2,
    };
    journal.cut(cut).unwrap();
    journal.published(SealId(1));
    journal.finish();
    let (journal, scan, _) = start(&dir, 1);
    assert_eq!(scan.segments.len(), 1, "{:?}", scan.segments);
    assert_eq!((scan.last_sequence, scan.last_cut()), (3, 3));
    assert_eq!(scan.remembered.len(), 1);
    assert_eq!(found(&scan).len(), 0);
    append(&journal, 0..1, 7).unwrap();
    let again = super::scan(&RealDisk, dir.path()).unwrap();
    assert_eq!(again.last_sequence, 4);
    journal.finish();
}
