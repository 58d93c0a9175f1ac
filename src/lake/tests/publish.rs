//! Publishing: exactly once, whatever happens on the way.

use super::*;
use crate::lake::LakeError;

/// Scenario: a seal with rows in all seven tables is published.
/// Guarantees: every row is there, times to the nanosecond, and the seal's row tells what it brought.
#[test]
fn a_published_seal_is_readable_in_all_tables() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(1, &Table::ALL, 3);
    lake.publish(&seal).unwrap();
    for table in Table::ALL {
        assert_eq!(
            fixture.ask(&format!("SELECT count(*) FROM {table}")),
            3,
            "{table}"
        );
    }
    let last = fixture.ask("SELECT max(epoch_ns(time_unix_nano)) FROM otlp_logs");
    assert_eq!(last, 1_000_000_002);
    let recorded =
        "SELECT count(*) FROM otlake_seals WHERE seal_id = 1 AND rows = 21 AND logs_rows = 3
        AND metrics_exp_histogram_rows = 3 AND cause = 'age' AND writer_id LIKE '%badcafe'
        AND committed_at >= sealed_at AND sealed_at > opened_at AND publish_ms > 0 AND journaled_through = 1
        AND abs(epoch(committed_at) - epoch(now())) < 60";
    assert_eq!(fixture.ask(recorded), 1);
    assert!(lake.is_published(SealId(1)).unwrap());
    assert!(!lake.is_published(SealId(2)).unwrap());
    let files = lake.live_files().unwrap();
    assert!(
        files
            .iter()
            .all(|table| table.files == 1 && table.bytes > 0)
    );
    let path = fixture.config.data_path.join("main/otlp_logs");
    assert!(path.join("0badcafe-0000000000000001.parquet").is_file());
}

/// Scenario: the outcome of a publish was unknown, so the seal is published again, staged anew or not.
/// Guarantees: its rows are stored once.
#[test]
fn publishing_a_seal_twice_stores_it_once() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(1, &[Table::Logs, Table::Sum], 3);
    lake.publish(&seal).unwrap();
    lake.publish(&seal).unwrap();
    drop(lake);
    let again = fixture.stage(1, &[Table::Logs, Table::Sum], 3);
    fixture.open().publish(&again).unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 3);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlake_seals"), 1);
}

/// Scenario: a crash after some files moved into the lake's folder and before the commit.
/// Guarantees: publishing again finds them there and stores every row once.
#[test]
fn a_crash_between_move_and_commit_is_made_good() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(7, &[Table::Logs, Table::Traces], 2);
    let dir = fixture.config.data_path.join("main/otlp_logs");
    fs::create_dir_all(&dir).unwrap();
    let moved = dir.join("0badcafe-0000000000000007.parquet");
    fs::rename(seal.dir.join("otlp_logs.parquet"), &moved).unwrap();
    // Maintenance in between must not take the file for garbage.
    while lake.maintain_step(Load::Quiet).unwrap() != crate::lake::MaintainStep::Idle {}
    assert!(moved.is_file());
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 0);
    lake.publish(&seal).unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_traces"), 2);
}

/// Scenario: a file of the seal is not valid Parquet, which DuckLake finds in the middle of the transaction.
/// Guarantees: nothing of the seal is visible; with the file repaired the same lake publishes it.
#[test]
fn a_failed_transaction_leaves_nothing_and_can_be_repeated() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(1, &[Table::Logs, Table::Traces], 2);
    let good = fs::read(seal.dir.join("otlp_traces.parquet")).unwrap();
    fs::write(
        seal.dir.join("otlp_traces.parquet"),
        b"PAR1 not parquet PAR1",
    )
    .unwrap();
    let error = lake.publish(&seal).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 0);
    assert!(matches!(
        lake.is_published(SealId(1)),
        Err(LakeError::NotAttached)
    ));
    fs::write(seal.dir.join("otlp_traces.parquet"), good).unwrap();
    lake.publish(&seal).unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_traces"), 2);
}

/// Scenario: the lake's folder goes away (an unmounted volume) and comes back.
/// Guarantees: no new folder is made in its place, the error names it, and afterwards publishing works.
#[test]
fn a_lake_folder_that_is_away_is_waited_for() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    lake.publish(&fixture.stage(1, &[Table::Logs], 1)).unwrap();
    let away = fixture.dir.path().join("away");
    fs::rename(&fixture.config.data_path, &away).unwrap();
    let seal = fixture.stage(2, &[Table::Logs], 1);
    for _ in 0..2 {
        let error = lake.publish(&seal).unwrap_err();
        assert!(matches!(error, LakeError::NoDataFolder { .. }), "{error}");
    }
    assert!(!fixture.config.data_path.exists());
    assert!(Lake::open(&fixture.config, &fixture.writer).is_err());
    fs::rename(&away, &fixture.config.data_path).unwrap();
    lake.publish(&seal).unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
}

/// Scenario: the catalog's file goes away under an open lake, is empty, and comes back.
/// Guarantees: no new catalog is made in its place, neither by the open lake nor by a new start; afterwards publishing
/// works.
#[test]
fn a_catalog_that_is_away_is_waited_for() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    lake.publish(&fixture.stage(1, &[Table::Logs], 1)).unwrap();
    let (catalog, away) = (
        fixture.config.catalog.path(),
        fixture.dir.path().join("away"),
    );
    fs::rename(catalog, &away).unwrap();
    let seal = fixture.stage(2, &[Table::Logs], 1);
    for _ in 0..2 {
        let error = lake.publish(&seal).unwrap_err();
        assert!(matches!(error, LakeError::NoCatalog { .. }), "{error}");
        assert!(lake.maintain_step(Load::Quiet).is_err());
        let opened = Lake::open(&fixture.config, &fixture.writer).map(drop);
        assert!(matches!(opened, Err(LakeError::NoCatalog { .. })));
        // As SQLite leaves it when it opens a file that is not there.
        fs::write(catalog, "").unwrap();
    }
    assert_eq!(fs::metadata(catalog).unwrap().len(), 0);
    fs::rename(&away, catalog).unwrap();
    lake.publish(&seal).unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
}

/// Scenario: an older copy of the catalog is put in its place, under an open lake.
/// Guarantees: what is published from then on is in the copy; no number is used again, though the copy does not know it.
#[test]
fn an_older_catalog_is_gone_on_with() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    lake.publish(&fixture.stage(1, &[Table::Logs], 1)).unwrap();
    let (catalog, older) = (
        fixture.config.catalog.path(),
        fixture.dir.path().join("older"),
    );
    fs::copy(catalog, &older).unwrap();
    lake.publish(&fixture.stage(2, &[Table::Logs], 1)).unwrap();
    fs::rename(&older, catalog).unwrap();
    assert_eq!(fixture.open().last_seal().unwrap(), SealId(2));
    lake.publish(&fixture.stage(3, &[Table::Logs], 1)).unwrap();
    assert_eq!(
        fixture.ask("SELECT sum(seal_id)::BIGINT FROM otlake_seals"),
        4
    );
}

/// Scenario: the data folder is an older copy than the lake, so that a seal gets a number that is used.
/// Guarantees: it is not taken for the published one; the error says so, and the lake stays as it is.
#[test]
fn another_seal_of_the_same_number_is_not_taken_for_published() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    assert_eq!(lake.last_seal().unwrap(), SealId(0));
    lake.publish(&fixture.stage(10, &[Table::Logs], 3)).unwrap();
    lake.publish(&fixture.stage(9, &[Table::Logs], 3)).unwrap();
    assert_eq!(lake.last_seal().unwrap(), SealId(10));
    let other = fixture.stage(10, &[Table::Logs, Table::Sum], 2);
    let error = lake.publish(&other).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, LakeError::SealNumberTaken { .. }), "{text}");
    assert!(text.contains("10 has 4 rows, and the lake has 3"), "{text}");
    other.check(&RealDisk).unwrap();
    assert!(other.dir.join("otlp_logs.parquet").is_file());
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 6);
}

/// Scenario: a staged file vanished from both places.
/// Guarantees: the error names both, and nothing else of the seal is published.
#[test]
fn a_lost_file_is_reported_and_the_seal_stays_out() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(1, &[Table::Logs, Table::Sum], 1);
    fs::remove_file(seal.dir.join("otlp_metrics_sum.parquet")).unwrap();
    let error = lake.publish(&seal).unwrap_err();
    assert!(matches!(error, LakeError::StagedFileLost { .. }), "{error}");
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 0);
}

/// Scenario: the catalog is a DuckDB file.
/// Guarantees: the same lake, and a reader beside the writer is told what to do.
#[test]
fn a_duckdb_catalog_works_for_one_process() {
    let fixture = Fixture::with(|dir| Catalog::DuckDb(dir.join("catalog.duckdb")));
    let mut lake = fixture.open();
    for id in 1..=10 {
        lake.publish(&fixture.stage(id, &[Table::Logs], 2)).unwrap();
    }
    while lake.maintain_step(Load::Quiet).unwrap() != crate::lake::MaintainStep::Idle {}
    assert!(lake.live_files().unwrap()[0].files < 8);
    drop(lake);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 20);
}
