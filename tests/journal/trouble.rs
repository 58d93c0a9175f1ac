//! A disk that is full, fails, or comes back, case by case: what is refused, and that service returns.

use std::io::ErrorKind;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use otlake::disk::Disk as _;
use otlake::journal::{JournalError, scan};

use super::alone::{Alone, Settings, cut_record, digest, found, segment};
use super::damage::{batches, disk, mended};
use super::world::{HOUR, append, journal_dir, rows_of};
use crate::support::faulty_disk::{FaultyDisk, Op};

fn settings(segment_bytes: u64) -> Settings {
    Settings {
        segment_bytes,
        moment: Duration::ZERO,
        ..Settings::default()
    }
}

fn kill(disk: &FaultyDisk, alone: &Alone) {
    disk.go_down();
    alone.journal.finish();
    disk.restart();
}

fn syncs(disk: &FaultyDisk) -> usize {
    let log = disk.log();
    log.iter().filter(|(op, _)| *op == Op::Sync).count()
}

/// Scenario: the disk has no room for a request, and says so; then there is room.
/// Guarantees: it is refused, nothing is written; service returns by itself.
#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let disk = disk();
    let alone = Alone::start(&disk, &Settings::default(), 0).unwrap();
    alone.send(&[(1, 1)]).remove(0).unwrap();
    disk.set_capacity(disk.used() + (1 << 20) + 3000);
    let written = disk.log().len();
    assert_eq!(alone.send(&[(2, 60)])[0], Err(JournalError::NoSpace));
    assert_eq!(disk.log().len(), written);
    assert_eq!(alone.journal.trouble(), Some(JournalError::NoSpace));
    disk.heal();
    assert_eq!(alone.journal.trouble(), None);
    alone.send(&[(2, 2)]).remove(0).unwrap();
    kill(&disk, &alone);
    assert_eq!(found(&disk, &mended(&disk)), batches(1..=2));
}

/// Scenario: the disk has room for a request, but then not for staging what is in the journal; and then hardly any.
/// Guarantees: it is refused, and told which of the two it is.
#[test]
fn room_for_staging_is_kept() {
    let disk = disk();
    let alone = Alone::start(&disk, &Settings::default(), 0).unwrap();
    alone.send(&[(1, 1)]).remove(0).unwrap();
    for (free, error) in [
        ((4 << 20) + 1000, JournalError::SpaceKept),
        (4 << 19, JournalError::NoSpace),
    ] {
        disk.claim_free(free);
        assert_eq!(alone.send(&[(2, 60)])[0], Err(error.clone()));
        assert_eq!(alone.journal.trouble(), Some(error));
    }
    disk.claim_free(1 << 40);
    alone.send(&[(2, 2)]).remove(0).unwrap();
    assert_eq!(alone.journal.trouble(), None);
}

/// Scenario: the last segment is written over a longer spare when the server stops in order.
/// Guarantees: what the spare had behind is gone: the journal ends with its end.
#[test]
fn an_orderly_end_leaves_nothing_of_a_spare() {
    let disk = disk();
    let alone = Alone::start(&disk, &settings(12_000), 0).unwrap();
    alone.send(&[(1, 90)]);
    alone.send(&[(2, 90)]);
    alone.send(&[(3, 90)]);
    let has_spare = || {
        let paths = disk.shared().list(&journal_dir()).unwrap();
        let mut names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        names.any(|name| name.starts_with("spare-"))
    };
    alone.cut(cut_record(1, 3)).unwrap();
    alone.publish(1);
    assert!(has_spare());
    let mut number = 4;
    while has_spare() {
        assert!(number < 50, "the spares are not used");
        alone.send(&[(number, 1)]);
        number += 1;
    }
    alone.journal.finish();
    let found = scan(&disk, &journal_dir()).unwrap();
    assert_eq!(found.torn, None);
    assert_eq!(found.last_sequence, u64::from(number - 1));
}

/// Scenario: a group of requests is written in part when the disk runs full, which it did not say before; then there is
/// room; then the power is lost.
/// Guarantees: the group is refused whole and leaves nothing behind; what comes next is there.
#[test]
fn a_disk_that_fills_in_a_write_keeps_nothing_of_it() {
    for seed in 0..20 {
        let disk = disk();
        let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
        alone.send(&[(1, 1)]).remove(0).unwrap();
        disk.claim_free(1 << 40);
        disk.set_capacity(disk.used() + 4000);
        let outcomes = alone.send(&[(8, 1), (9, 1), (10, 90)]);
        assert_eq!(outcomes[0], Ok(Some(otlake::signal::SealId(1))));
        assert_eq!(
            outcomes[1..],
            [Err(JournalError::NoSpace), Err(JournalError::NoSpace)]
        );
        disk.heal();
        alone.send(&[(2, 2)]).remove(0).unwrap();
        disk.go_down();
        alone.journal.finish();
        disk.crash(seed);
        let numbers: Vec<u32> = found(&disk, &mended(&disk))
            .iter()
            .map(|(_, flags)| flags[0] / 1000)
            .collect();
        assert_eq!(numbers, [1, 8, 2], "seed {seed}");
    }
}

/// Scenario: the disk runs full inside of a write, and the next segment is begun then; the power is lost.
/// Guarantees: the segment that was cut off is synced before: every start succeeds.
#[test]
fn a_segment_is_left_only_once_its_cut_end_is_synced() {
    for seed in 0..40 {
        let disk = disk();
        let alone = Alone::start(&disk, &settings(12_000), 0).unwrap();
        alone.send(&[(1, 90), (2, 3)]);
        disk.claim_free(1 << 40);
        disk.set_capacity(disk.used() + 4000);
        assert_eq!(alone.send(&[(3, 90)])[0], Err(JournalError::NoSpace));
        disk.heal();
        disk.crash_at(1 + seed % 8);
        alone.send(&[(4, 1)]);
        disk.go_down();
        alone.journal.finish();
        disk.crash(seed);
        assert!(mended(&disk).last_sequence >= 2, "seed {seed}");
    }
}

/// Scenario: a sync fails, and after it everything is tried; then the server is started again, without a power loss and
/// with one.
/// Guarantees: everything is refused as poisoned; the file is never written or synced again; the next start finds what was
/// answered, and makes durable what it takes up, though the system takes it for written.
#[test]
fn after_a_failed_sync_nothing_is_written_until_the_next_start() {
    for seed in 0..20 {
        let disk = disk();
        let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
        alone.send(&[(1, 1)]).remove(0).unwrap();
        disk.fail(Op::Sync, 0, ErrorKind::Other);
        let is_poisoned = |error: &JournalError| matches!(error, JournalError::Poisoned(_));
        assert!(is_poisoned(&alone.send(&[(2, 2)]).remove(0).unwrap_err()));
        let before = disk.log();
        assert!(is_poisoned(&alone.send(&[(3, 3)]).remove(0).unwrap_err()));
        assert!(is_poisoned(&alone.cut(cut_record(1, 1)).unwrap_err()));
        alone.note_undelivered(1);
        alone.publish(1);
        assert!(is_poisoned(&alone.journal.trouble().unwrap()));
        alone.journal.finish();
        assert_eq!(disk.log(), before);

        disk.restart();
        let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
        let taken_up = alone.found.clone();
        assert!([1, 2].contains(&taken_up.len()));
        // What was taken up is relied on: a new segment follows it.
        alone.send(&[(4, 4)]).remove(0).unwrap();
        disk.go_down();
        alone.journal.finish();
        disk.crash(seed);
        let again = found(&disk, &mended(&disk));
        assert_eq!(again[..taken_up.len()], taken_up, "seed {seed}");
        assert_eq!(again.len(), taken_up.len() + 1);
    }
}

/// Scenario: no new segment can be made, for want of file descriptors or room; then it can.
/// Guarantees: requests and cuts are refused meanwhile, with the reason, and taken again after; nothing is poisoned.
#[test]
fn a_segment_that_cannot_be_made_is_tried_again() {
    for error in [ErrorKind::ResourceBusy, ErrorKind::StorageFull] {
        let disk = disk();
        let settings = Settings {
            segment_bytes: 1,
            ..Settings::default()
        };
        let alone = Alone::start(&disk, &settings, 0).unwrap();
        alone.send(&[(1, 1)]).remove(0).unwrap();
        disk.fail(Op::Create, 0, error);
        let refused = alone.send(&[(2, 2)]).remove(0).unwrap_err();
        let expected = match error {
            ErrorKind::StorageFull => matches!(refused, JournalError::NoSpace),
            _ => matches!(refused, JournalError::NoSegment(_)),
        };
        assert!(expected, "{refused:?}");
        disk.fail(Op::Create, 0, error);
        alone.cut(cut_record(1, 1)).unwrap_err();
        alone.send(&[(2, 2)]).remove(0).unwrap();
        alone.cut(cut_record(1, 2)).unwrap();
        kill(&disk, &alone);
        let scan = mended(&disk);
        assert_eq!(found(&disk, &scan), batches(1..=2));
        assert_eq!(scan.cuts, [cut_record(1, 2)]);
    }
}

/// Scenario: a removed segment was kept to be written over, and that it was removed could not be made durable; then it is
/// written over, and the power is lost.
/// Guarantees: every start succeeds: what may still be a segment is not written over.
#[test]
fn a_segment_whose_removal_is_not_durable_is_not_written_over() {
    for seed in 0..40 {
        let disk = disk();
        let alone = Alone::start(&disk, &settings(1), 0).unwrap();
        alone.send(&[(1, 1)]).remove(0).unwrap();
        alone.send(&[(2, 2)]).remove(0).unwrap();
        alone.cut(cut_record(1, 1)).unwrap();
        disk.fail(Op::SyncDir, 0, ErrorKind::Other);
        alone.publish(1);
        disk.crash_at(1 + seed % 6);
        alone.send(&[(3, 3)]);
        disk.go_down();
        alone.journal.finish();
        disk.crash(seed);
        assert!(mended(&disk).last_sequence >= 2, "seed {seed}");
    }
}

/// Scenario: journal and staged files have the size they are allowed; the rows reach the lake while requests keep coming.
/// Guarantees: all are refused, with the sizes, cuts are not; then room is made and they are taken.
#[test]
fn a_full_journal_takes_requests_again_when_its_rows_are_in_the_lake() {
    let disk = disk();
    let settings = Settings {
        disk_bytes_max: 40_000,
        ..settings(8_000)
    };
    let alone = Alone::start(&disk, &settings, 0).unwrap();
    let is_full = |number| {
        matches!(
            alone.send(&[(number, 90)])[0],
            Err(JournalError::Full { .. })
        )
    };
    let accepted = (1..20).find(|number| is_full(*number)).unwrap() - 1;
    assert!(matches!(
        alone.journal.trouble(),
        Some(JournalError::Full { .. })
    ));
    assert!(alone.journal.check_room().is_err());
    alone.cut(cut_record(1, u64::from(accepted))).unwrap();
    assert!(is_full(50));
    // The news comes together with one more request: the journal has no idle moment.
    let (release, held) = sync_channel::<()>(0);
    let (tell, outcomes) = sync_channel(9);
    let budget = otlake::memory::Budget::new(1 << 30);
    let request = |number| rows_of(number, 90, &budget);
    let first = append(request(51), digest(51), tell.clone(), None);
    alone.journal.append(otlake::journal::Append {
        done: Box::new(move |outcome| {
            tell.send(outcome).unwrap();
            let _ = held.recv();
        }),
        ..first
    });
    assert!(outcomes.recv().unwrap().is_err());
    alone.journal.published(otlake::signal::SealId(1));
    let (tell, second) = sync_channel(1);
    alone
        .journal
        .append(append(request(52), digest(52), tell, None));
    drop(release);
    let _ = second.recv().unwrap();
    let taken = (53..60).find(|number| !is_full(*number));
    assert!(taken.is_some(), "{:?}", alone.journal.stats());
    alone.journal.finish();
}

/// Scenario: a journal that is full is started again, its rows are all in the lake, and requests are remembered.
/// Guarantees: room is made for new ones.
#[test]
fn a_full_journal_of_the_last_run_makes_room() {
    let disk = disk();
    let full = Settings {
        disk_bytes_max: 30_000,
        ..settings(4_000)
    };
    let alone = Alone::start(&disk, &full, 0).unwrap();
    let accepted = (1..20)
        .take_while(|number| alone.send(&[(*number, 60)])[0].is_ok())
        .count() as u64;
    alone.cut(cut_record(1, accepted)).unwrap();
    alone.note_undelivered(1);
    kill(&disk, &alone);
    let alone = Alone::start(&disk, &full, accepted).unwrap();
    assert!(!alone.remembered.lock().unwrap().is_empty());
    let taken = (50..55).find(|number| alone.send(&[(*number, 1)])[0].is_ok());
    assert!(taken.is_some(), "{:?}", alone.journal.stats());
    kill(&disk, &alone);
    let remembered = scan(&disk, &journal_dir()).unwrap().remembered;
    assert!(remembered.iter().any(|(known, _)| *known == digest(1)));
}

/// Scenario: a cut, a request and a note come when the journal has ended.
/// Guarantees: they are refused; nobody waits.
#[test]
fn what_comes_after_the_end_is_refused() {
    let disk = disk();
    let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
    alone.send(&[(1, 1)]).remove(0).unwrap();
    alone.journal.finish();
    assert_eq!(alone.cut(cut_record(1, 1)), Err(JournalError::Closed));
    assert_eq!(alone.send(&[(2, 2)])[0], Err(JournalError::Closed));
    alone.note_undelivered(1);
    alone.publish(1);
    alone.journal.finish();
}

/// Scenario: a hundred requests at the same time, in one group.
/// Guarantees: they share one write and one sync.
#[test]
fn a_group_shares_one_write_and_one_sync() {
    let disk = disk();
    let alone = Alone::start(&disk, &Settings::default(), 0).unwrap();
    alone.send(&[(1, 1)]).remove(0).unwrap();
    let (before, operations) = (syncs(&disk), disk.log().len());
    let group: Vec<(u32, u32)> = (2..103).map(|number| (number, 1)).collect();
    assert!(alone.send(&group).iter().all(Result::is_ok));
    // The first went alone.
    assert_eq!(syncs(&disk) - before, 2);
    assert_eq!(disk.log().len() - operations, 4);
    alone.journal.finish();
}

/// Scenario: of five requests two were answered more than a moment ago, one just now; one has no answer because its sync
/// failed; one was noted as undelivered, long ago.
/// Guarantees: after a crash those are remembered whose answer may be missing, and no others; after an orderly stop only
/// the noted one.
#[test]
fn a_crash_remembers_whose_answer_may_be_missing() {
    let remembered = |disk: &FaultyDisk| {
        let scan = scan(disk, &journal_dir()).unwrap();
        let mut numbers: Vec<u128> = scan.remembered.iter().map(|(digest, _)| digest.0).collect();
        numbers.sort_unstable();
        numbers
    };
    let disk = disk();
    let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
    alone.send(&[(1, 1), (2, 2)]);
    alone.note_undelivered(2);
    kill(&disk, &alone);
    assert_eq!(remembered(&disk), [2]);

    let slow = Settings {
        moment: HOUR,
        ..settings(1 << 20)
    };
    let alone = Alone::start(&disk, &slow, 0).unwrap();
    alone.send(&[(3, 3)]).remove(0).unwrap();
    kill(&disk, &alone);
    assert_eq!(remembered(&disk), [2, 3]);

    let alone = Alone::start(&disk, &slow, 0).unwrap();
    assert!(alone.repeat(3));
    alone.send(&[(4, 4)]).remove(0).unwrap();
    alone.journal.finish();
    assert_eq!(remembered(&disk), [2]);
    assert!(disk.list(&journal_dir()).unwrap().contains(&segment(3)));
}

/// Scenario: the clock is set back by years between two runs.
/// Guarantees: order is that of sequences; nothing is lost or forgotten. (Times of segments are for people.)
#[test]
fn a_clock_set_back_changes_nothing() {
    use crate::support::journal_input::{frame, salted, start};
    use prost::Message as _;

    let disk = disk();
    let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
    alone.send(&[(1, 1)]).remove(0).unwrap();
    kill(&disk, &alone);
    // As the first run had its clock in the year 2100.
    let content = disk.content(&segment(1));
    let old = u32::from_le_bytes(content[24..28].try_into().unwrap()) as usize;
    let mut later = start(1);
    later.created_unix_ms = 4_102_444_800_000;
    let begin = salted(frame(1, 0, &later.encode_to_vec()), &content);
    let rest = &content[16 + 48 + old.next_multiple_of(8)..];
    disk.put(&segment(1), &[&content[..16], &begin, rest].concat());

    let alone = Alone::start(&disk, &settings(1 << 20), 0).unwrap();
    alone.send(&[(2, 2)]).remove(0).unwrap();
    kill(&disk, &alone);
    let scan = mended(&disk);
    assert_eq!(found(&disk, &scan), batches(1..=2));
    assert!(scan.segments[0].created_unix_ms > scan.segments[1].created_unix_ms);
}
