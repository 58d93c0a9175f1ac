//! Publishing is cut off between every two of its steps, and begun again by the next start: exactly once each time.

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::lake::crash;

/// The tables and rows of the seals here: two files, so that one can be in the lake's folder without the other.
const TABLES: [Table; 2] = [Table::Logs, Table::Sum];
const ROWS: usize = 2;

/// Publishes as the publisher does.
fn publish(lake: &mut Lake, seal: &StagedSeal) {
    lake.publish(seal).unwrap();
    crash::reached("published");
    seal.remove(&RealDisk).unwrap();
}

/// What a start finds is published. Answers how much that was.
fn recover(fixture: &Fixture, lake: &mut Lake) -> usize {
    let found = fixture.staged();
    for seal in &found {
        publish(lake, seal);
    }
    found.len()
}

/// The crash points that publishing passes, in order.
fn points(fixture: &Fixture, lake: &mut Lake) -> Vec<&'static str> {
    let seal = fixture.stage(1, &TABLES, ROWS);
    let ((), points) = crash::note(|| publish(lake, &seal));
    let count = |point| points.iter().filter(|done| **done == point).count();
    assert_eq!(count("moved"), 2, "{points:?}");
    assert_eq!(count("ended"), 1, "{points:?}");
    points
}

fn assert_exactly_once(fixture: &Fixture, seals: usize) {
    let reader = open_read_only(&fixture.config).unwrap();
    for table in TABLES {
        let times = format!("SELECT count({}) FROM {table}", table.time_column());
        let each = times.replace("count(", "count(DISTINCT ");
        let rows = i64::try_from(seals * ROWS).unwrap();
        assert_eq!((ask(&reader, &times), ask(&reader, &each)), (rows, rows));
    }
    let recorded = "SELECT count(*) FROM otlake_seals";
    let each = "SELECT count(DISTINCT seal_id) FROM otlake_seals";
    let seals = i64::try_from(seals).unwrap();
    assert_eq!((ask(&reader, recorded), ask(&reader, each)), (seals, seals));
    assert!(fixture.staged().is_empty());
    assert_eq!(fs::read_dir(&fixture.staged_dir).unwrap().count(), 0);
    assert_eq!(fixture.unreferenced(), Vec::<PathBuf>::new());
}

/// Cuts a publish off at each of the points that is wanted; each time another start goes on from what is on disk.
fn crash_at_each(
    fixture: &Fixture,
    mut lake: Lake,
    points: &[&'static str],
    wanted: impl Fn(&str) -> bool,
) {
    let mut seals = 1;
    for (at, point) in points.iter().enumerate().filter(|(_, point)| wanted(point)) {
        seals += 1;
        let seal = fixture.stage(seals as u64, &TABLES, ROWS);
        let cut = crash::cut_at(at, || publish(&mut lake, &seal));
        assert_eq!(cut.unwrap_err(), *point);
        // Its connection goes without a word of ours, and DuckDB writes nothing to the catalog before a commit.
        drop(lake);
        lake = fixture.open();
        assert_eq!(recover(fixture, &mut lake), 1, "after {point:?}");
    }
    assert_exactly_once(fixture, seals);
}

/// Scenario: a crash after every single step of a publish.
/// Guarantees: the next start finds the seal and every row is in the lake once; no file is lost or left.
#[test]
fn a_crash_at_any_step_of_a_publish_is_made_good() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let points = points(&fixture, &mut lake);
    crash_at_each(&fixture, lake, &points, |_| true);
}

/// Scenario: the publish that makes good a crash is cut off itself, after every single step. The first crash is at one
/// point of each state that the disk can be in: nothing moved, one file, all files, committed.
/// Guarantees: the same.
#[test]
fn a_second_crash_at_any_step_is_made_good() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let points = points(&fixture, &mut lake);
    let place = |point| points.iter().position(|done| *done == point).unwrap();
    let firsts = ["looked up", "moved", "seal recorded", "ended"].map(place);
    let mut seals = 1;
    for first in firsts {
        for second in 0..points.len() {
            seals += 1;
            let seal = fixture.stage(seals as u64, &TABLES, ROWS);
            crash::cut_at(first, || publish(&mut lake, &seal)).unwrap_err();
            roll_back(&lake);
            // A seal that is in the lake already has fewer steps, so the second crash may not come to pass.
            if crash::cut_at(second, || recover(&fixture, &mut lake)).is_err() {
                roll_back(&lake);
                recover(&fixture, &mut lake);
            }
        }
    }
    assert_exactly_once(&fixture, seals);
}

/// What becomes of a transaction whose connection goes. A new connection for each crash would take ten times as long.
fn roll_back(lake: &Lake) {
    // There is none after the commit.
    let _ = lake.connection().unwrap().execute_batch("ROLLBACK");
}

/// Scenario: a crash while a published seal's staged folder is removed, with the manifest gone first, or last.
/// Guarantees: the next start removes the rest, and nothing is published again.
#[test]
fn a_crash_in_the_removal_of_a_staged_folder_is_made_good() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    for (id, gone) in [(1, "manifest.json"), (2, "otlp_logs.parquet")] {
        lake.publish(&fixture.stage(id, &TABLES, ROWS)).unwrap();
        // A stage that was repeated leaves files there although they were moved.
        let again = fixture.stage(id, &TABLES, ROWS);
        fs::remove_file(again.dir.join(gone)).unwrap();
    }
    drop(lake);
    assert_eq!(recover(&fixture, &mut fixture.open()), 1);
    assert_exactly_once(&fixture, 2);
}

/// Scenario: staged seals and lake are on different devices, so that files are copied; a crash after every single step
/// of a copy, and in the middle of one.
/// Guarantees: the same; no part of a copy is left, nor taken for the whole.
#[test]
fn a_crash_in_a_copy_between_devices_is_made_good() {
    let Some((fixture, _shm)) = on_two_devices() else {
        // Past the test harness, which keeps what is printed to itself.
        let note = "SKIPPED: /dev/shm is not there, or on the device of the temporary folder";
        return writeln!(io::stderr(), "{note}").unwrap();
    };
    let mut lake = fixture.open();
    let points = points(&fixture, &mut lake);
    let copied = points.iter().filter(|point| **point == "copied").count();
    assert_eq!(copied, 2, "{points:?}");
    let torn = fixture.config.data_path.join("main/otlp_logs");
    fs::write(
        torn.join("0badcafe-0000000000000002.partial"),
        "PAR1 and a pa",
    )
    .unwrap();
    let in_a_copy = |point: &str| point.starts_with("cop") || point == "moved";
    crash_at_each(&fixture, lake, &points, in_a_copy);
}

fn on_two_devices() -> Option<(Fixture, TempDir)> {
    let mut fixture = Fixture::new();
    let shm = TempDir::new_in("/dev/shm").ok()?;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    if device(shm.path()) == device(fixture.dir.path()) {
        return None;
    }
    fixture.config.data_path = shm.path().join("lake");
    Some((fixture, shm))
}
