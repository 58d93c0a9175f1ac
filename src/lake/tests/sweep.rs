//! Sweeping: what crashes left goes, and nothing else, whatever else is wrong.

use std::fs::{FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::SystemTime;

use super::*;
use crate::lake::connection::open_read_write;

const HOUR: Duration = Duration::from_secs(3600);

/// A name as DuckLake gives one to a file.
fn ducklake_name(number: u32) -> String {
    format!("ducklake-01a1fcbb-0000-7000-8000-0000{number:08}.parquet")
}

/// Sets the file's time of modification back.
fn set_back(path: &Path, age: Duration) {
    let times = FileTimes::new().set_modified(SystemTime::now() - age);
    File::open(path).unwrap().set_times(times).unwrap();
}

impl Fixture {
    fn folder(&self, table: &str) -> PathBuf {
        self.config.data_path.join("main").join(table)
    }

    /// Writes a file into a table's folder, modified `age` ago.
    fn leave(&self, table: &str, name: &str, age: Duration) -> PathBuf {
        let dir = self.folder(table);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, "left").unwrap();
        set_back(&path, age);
        path
    }

    /// The files in a table's folder that DuckLake wrote.
    fn by_ducklake(&self, table: Table) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder(table.name())).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.to_string_lossy().contains("/ducklake-"));
        paths.sort();
        paths
    }

    /// A lake whose logs were merged into one file.
    fn merged(&self) -> Lake {
        let mut lake = self.open();
        for id in 1..=8 {
            let seal = self.stage(id, &[Table::Logs], 2);
            lake.publish(&seal).unwrap();
            seal.remove(&RealDisk).unwrap();
        }
        assert_eq!(maintain(&mut lake), 1);
        lake
    }
}

/// Maintains a lake that was opened anew, which sweeps.
fn sweep(fixture: &Fixture) {
    maintain(&mut fixture.open());
}

/// Scenario: the folders hold old and young files, of merges, copies and seals, that the catalog does not know, and files
/// of others. Files that it knows are old as well.
/// Guarantees: what only a crash can have left goes once it is old; all else stays.
#[test]
fn only_what_a_crash_left_goes_and_only_when_it_is_old() {
    let mut fixture = Fixture::new();
    // Nothing of the merged seals is in the catalog any more.
    fixture.config.snapshot_retention = Duration::ZERO;
    drop(fixture.merged());
    sweep(&fixture);
    assert_eq!(
        fs::read_dir(fixture.folder("otlp_logs")).unwrap().count(),
        1
    );
    let old = HOUR + Duration::from_secs(60);
    let young = HOUR - Duration::from_secs(60);
    set_back(&fixture.by_ducklake(Table::Logs)[0], old);

    let delete_file = ducklake_name(2).replace(".parquet", "-delete.parquet");
    let goes = [
        fixture.leave("otlp_logs", &ducklake_name(1), old),
        fixture.leave("otlp_logs", &delete_file, old),
        fixture.leave("otlake_seals", &ducklake_name(3), old),
        // A copy that did not end, and the file of a seal that is in the lake.
        fixture.leave("otlp_traces", "0badcafe-0000000000000077.partial", old),
        fixture.leave("otlp_traces", "0badcafe-0000000000000008.parquet", old),
    ];
    let read_only = fixture.leave("otlp_logs", &ducklake_name(4), old);
    fs::set_permissions(&read_only, Permissions::from_mode(0o400)).unwrap();
    let link = fixture.folder("otlp_logs").join(ducklake_name(5));
    symlink(&read_only, &link).unwrap();
    let folder = fixture.folder("otlp_logs").join(ducklake_name(6));
    fs::create_dir(&folder).unwrap();
    set_back(&folder, old);
    let stays = [
        fixture.leave("otlp_logs", &ducklake_name(7), young),
        fixture.leave("otlp_logs", "0badcafe-0000000000000078.partial", young),
        fixture.leave("otlp_logs", "0badcafe-0000000000000007.parquet", young),
        // Seals that are not in the lake: this writer's, and another's. They may be published yet.
        fixture.leave("otlp_logs", "0badcafe-0000000000000078.parquet", old),
        fixture.leave("otlp_logs", "deadbeef-0000000000000008.parquet", old),
        // Names that nobody of us gives.
        fixture.leave("otlp_logs", "0badcafe-8.parquet", old),
        fixture.leave("otlp_logs", "0badcafe-8.partial", old),
        fixture.leave("otlp_logs", "notes-0000000000000008.parquet", old),
        fixture.leave("otlp_logs", "ducklake-notes.txt", old),
        fixture.leave("somebodys_table", &ducklake_name(8), old),
        read_only,
        link,
        folder,
    ];
    let mut lake = fixture.open();
    assert_eq!(
        lake.maintain_step(Load::Quiet).unwrap(),
        MaintainStep::Expired
    );
    let swept = MaintainStep::Swept {
        files: 5,
        bytes: 20,
    };
    assert_eq!(lake.maintain_step(Load::Quiet).unwrap(), swept);
    for path in goes {
        assert!(!path.exists(), "{} stayed", path.display());
    }
    for path in stays {
        assert!(path.symlink_metadata().is_ok(), "{} went", path.display());
    }
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 16);
}

/// Scenario: the retention is longer than an hour, so a transaction may be too.
/// Guarantees: the retention counts.
#[test]
fn a_file_within_the_retention_stays() {
    let mut fixture = Fixture::new();
    fixture.config.snapshot_retention = 3 * HOUR;
    drop(fixture.open());
    let within = fixture.leave("otlp_logs", &ducklake_name(1), 2 * HOUR);
    let older = fixture.leave("otlp_logs", &ducklake_name(2), 4 * HOUR);
    sweep(&fixture);
    assert!(within.exists() && !older.exists());
}

/// Scenario: the lake is maintained again and again.
/// Guarantees: the folders are read at the first time, and then once an hour.
#[test]
fn a_sweep_comes_once_an_hour() {
    let mut fixture = Fixture::new();
    fixture.config.snapshot_retention = Duration::ZERO;
    let mut lake = fixture.open();
    maintain(&mut lake);
    let left = fixture.leave("otlp_logs", &ducklake_name(1), 2 * HOUR);
    let due = lake.maintenance_due();
    std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
    assert_eq!(
        lake.maintain_step(Load::Quiet).unwrap(),
        MaintainStep::Expired
    );
    maintain(&mut lake);
    assert!(left.exists());
    sweep(&fixture);
    assert!(!left.exists());
}

/// Scenario: the catalog is replaced by an older copy, or by a new one, to which the newest merged files are unknown; they
/// get old.
/// Guarantees: nothing that was committed once is removed: with the right catalog all rows are there again.
#[test]
fn the_wrong_catalog_costs_no_file() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    lake.publish(&fixture.stage(100, &[Table::Logs], 2))
        .unwrap();
    drop(lake);
    let catalog = fixture.config.catalog.path();
    let (older, right) = (
        fixture.dir.path().join("older"),
        fixture.dir.path().join("right"),
    );
    fs::copy(catalog, &older).unwrap();
    drop(fixture.merged());
    // Somebody else writes a file too; the sweep of the next start sees it.
    let plain = open_read_write(&fixture.config).unwrap();
    let insert = "INSERT INTO lake.main.otlp_logs SELECT * FROM lake.main.otlp_logs";
    plain.execute_batch(insert).unwrap();
    drop(plain);
    sweep(&fixture);
    let rows = fixture.ask("SELECT count(*) FROM otlp_logs");
    assert_eq!(rows, 36);
    let files = fixture.by_ducklake(Table::Logs);
    assert_eq!(files.len(), 2, "{files:?}");
    for path in &files {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o222, 0, "{}", path.display());
        set_back(path, 100 * HOUR);
    }

    fs::rename(catalog, &right).unwrap();
    fs::rename(&older, catalog).unwrap();
    sweep(&fixture);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
    assert_eq!(fixture.by_ducklake(Table::Logs), files);

    fs::remove_file(catalog).unwrap();
    // A lake whose mark is gone too passes for a new one.
    fs::remove_file(fixture.config.data_path.join("otlake.lake")).unwrap();
    sweep(&fixture);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 0);

    fs::rename(&right, catalog).unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), rows);
}

/// Scenario: a DuckDB file as the catalog.
/// Guarantees: the same, without a copy.
#[test]
fn a_duckdb_catalog_is_swept_too() {
    let fixture = Fixture::with(|dir| Catalog::DuckDb(dir.join("catalog.duckdb")));
    drop(fixture.merged());
    let merged = fixture.by_ducklake(Table::Logs);
    set_back(&merged[0], 2 * HOUR);
    let left = fixture.leave("otlp_logs", &ducklake_name(1), 2 * HOUR);
    sweep(&fixture);
    assert!(!left.exists());
    assert_eq!(fixture.by_ducklake(Table::Logs), merged);
}
