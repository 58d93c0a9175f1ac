//! Maintenance: few files, sorted and compressed, nothing lost, no reader disturbed.

use std::env;
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::lake::PublishQueue;

/// Parquet files of a table that are on disk, live or not.
fn files_on_disk(fixture: &Fixture, table: Table) -> usize {
    let dir = fixture.config.data_path.join("main").join(table.name());
    fs::read_dir(dir).unwrap().count()
}

/// Scenario: small files of a table are merged, some of them without their all-null columns.
/// Guarantees: the same rows, sorted by service and time, zstd.
#[test]
fn a_merge_keeps_rows_and_sorts_them() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    for id in 1..=8 {
        let seal = fixture.stage(id, &[Table::Logs], 10);
        if id % 2 == 0 {
            let path = seal.dir.join("otlp_logs.parquet");
            write_parquet(&path, &without_nulls(&batch(Table::Logs, id, 10)));
        }
        lake.publish(&seal).unwrap();
    }
    assert_eq!(maintain(&mut lake), 1);
    assert_eq!(lake.live_files().unwrap()[0].files, 1);
    assert_eq!(
        fixture.ask("SELECT count(DISTINCT time_unix_nano) FROM otlp_logs"),
        80
    );
    let reader = open_read_only(&fixture.config).unwrap();
    let merged: String = reader
        .query_row(
            "SELECT data_file FROM ducklake_list_files('lake', 'otlp_logs')",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let unsorted = format!(
        "SELECT count(*) FROM (SELECT (service_name, time_unix_nano) AS k, lag(k) OVER (ORDER BY file_row_number) AS p
         FROM read_parquet('{merged}', file_row_number => true)) WHERE p > k"
    );
    assert_eq!(ask(&reader, &unsorted), 0);
    let other =
        format!("SELECT count(*) FROM parquet_metadata('{merged}') WHERE compression <> 'ZSTD'");
    assert_eq!(ask(&reader, &other), 0);
}

/// Scenario: a seal waits in the queue while files of 400,000 rows are merged, and later none does.
/// Guarantees: the merge is broken off and leaves no file and no row behind or missing; the seal is published through the
/// same connection; the merge gets through once nothing waits.
#[test]
fn a_merge_gives_way_to_a_waiting_seal() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let queue = PublishQueue::new();
    lake.give_way_to(queue.clone());
    for id in 1..=8 {
        let seal = fixture.stage(id, &[Table::Logs], 50_000);
        lake.publish(&seal).unwrap();
    }
    assert_eq!(
        lake.maintain_step(Load::Quiet).unwrap(),
        MaintainStep::Expired
    );
    let swept = MaintainStep::Swept { files: 0, bytes: 0 };
    assert_eq!(lake.maintain_step(Load::Quiet).unwrap(), swept);
    let waiting = fixture.stage(9, &[Table::Logs], 10);
    queue.push(waiting.clone());
    assert_eq!(
        lake.maintain_step(Load::Quiet).unwrap(),
        MaintainStep::GaveWay
    );
    let files = files_on_disk(&fixture, Table::Logs);
    assert_eq!((lake.live_files().unwrap()[0].files, files), (8, 8));

    lake.publish(&waiting).unwrap();
    queue.done();
    assert_eq!(maintain(&mut lake), 1);
    assert_eq!(lake.live_files().unwrap()[0].files, 1);
    assert_eq!(
        fixture.ask("SELECT count(*) FROM otlp_logs"),
        8 * 50_000 + 10
    );
}

/// Scenario: eight small files, thirty-one, thirty-two; then seals no longer come.
/// Guarantees: while seals come merging waits for four times the files, while memory is short for many more; at rest for none.
#[test]
fn merging_waits_under_load() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    maintain(&mut lake);
    let mut seals = 1..;
    let mut fill_up = |lake: &mut Lake, files: usize| {
        for id in seals.by_ref().take(files) {
            lake.publish(&fixture.stage(id, &[Table::Logs], 2)).unwrap();
        }
    };
    for files in [8, 23] {
        fill_up(&mut lake, files);
        for load in [Load::Seals, Load::Memory] {
            assert_eq!(lake.maintain_step(load).unwrap(), MaintainStep::Idle);
        }
    }
    fill_up(&mut lake, 1);
    let step = lake.maintain_step(Load::Memory).unwrap();
    assert_eq!(step, MaintainStep::Idle);
    let step = lake.maintain_step(Load::Seals).unwrap();
    assert!(
        matches!(step, MaintainStep::Merged { files_read: 32, .. }),
        "{step:?}"
    );
    fill_up(&mut lake, 8);
    assert_eq!(maintain(&mut lake), 1);
}

/// Scenario: one row a second, sealed every 5 s, maintained between publishes.
/// Guarantees: at most 20 live files a table, and with a short retention few files and snapshots remain at all.
#[test]
fn many_small_seals_leave_few_files() {
    let seals: u64 = env::var("OTLAKE_TEST_SEALS").map_or(60, |n| n.parse().unwrap());
    let mut fixture = Fixture::new();
    fixture.config.snapshot_retention = Duration::ZERO;
    let mut lake = fixture.open();
    let (mut publish, mut merge, mut merges, mut worst) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for id in 1..=seals {
        let seal = fixture.stage(id, &[Table::Logs, Table::Traces, Table::Sum], 5);
        let started = Instant::now();
        lake.publish(&seal).unwrap();
        publish += started.elapsed();
        seal.remove(&crate::disk::RealDisk).unwrap();
        let started = Instant::now();
        merges += maintain(&mut lake);
        merge += started.elapsed();
        worst = lake
            .live_files()
            .unwrap()
            .iter()
            .map(|table| table.files)
            .max()
            .unwrap()
            .max(worst);
    }
    assert!(worst <= 20, "{worst} files");
    // The next clean-up takes what the last merges replaced; its pause is a second at this retention.
    let wait = lake
        .maintenance_due()
        .saturating_duration_since(Instant::now());
    std::thread::sleep(wait + Duration::from_millis(5));
    maintain(&mut lake);
    let on_disk = files_on_disk(&fixture, Table::Logs);
    let catalog = fs::metadata(fixture.config.catalog.path()).unwrap().len();
    let snapshots = fixture.ask("SELECT count(*) FROM ducklake_snapshots('lake')");
    println!(
        "{seals} seals of 3 tables: publish {:?} each, maintain {:?} each, {merges} merges, at most {worst} live files, \
         {on_disk} on disk, {snapshots} snapshots, catalog {catalog} bytes, {} KiB resident",
        publish / u32::try_from(seals).unwrap(),
        merge / u32::try_from(seals).unwrap(),
        resident_kib(),
    );
    assert_eq!(on_disk as u64, lake.live_files().unwrap()[0].files);
    assert!(snapshots <= 2, "{snapshots} snapshots");
    assert!(catalog < 4 << 20, "{catalog} bytes");
    let rows = i64::try_from(seals * 5).unwrap();
    assert_eq!(
        fixture.ask("SELECT count(DISTINCT time_unix_nano) FROM otlp_logs"),
        rows
    );
    assert_eq!(fixture.ask("SELECT count(*) FROM otlake_seals"), rows / 5);
}

fn resident_kib() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    line.chars().filter(char::is_ascii_digit).collect()
}

/// Scenario: files were merged a moment ago, the retention is not over.
/// Guarantees: the replaced files stay on disk for readers that still use them.
#[test]
fn replaced_files_stay_for_the_retention() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    for id in 1..=8 {
        lake.publish(&fixture.stage(id, &[Table::Logs], 1)).unwrap();
    }
    maintain(&mut lake);
    drop(lake);
    // A new start cleans up first thing.
    maintain(&mut fixture.open());
    assert_eq!(files_on_disk(&fixture, Table::Logs), 9);
}

const CHILD: &str = "OTLAKE_TEST_READER";

/// Scenario: another process reads again and again while this one publishes and merges.
/// Guarantees: it never meets an error, and never sees fewer rows than before or a part of a seal.
#[test]
fn another_process_reads_while_this_one_writes_and_merges() {
    if let Ok(dir) = env::var(CHILD) {
        return read_repeatedly(Path::new(&dir));
    }
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("lake::tests::maintain::another_process_reads_while_this_one_writes_and_merges")
        .env(CHILD, fixture.dir.path())
        .spawn()
        .unwrap();
    for id in 1..=60 {
        let seal = fixture.stage(id, &[Table::Logs, Table::Traces], 5);
        lake.publish(&seal).unwrap();
        maintain(&mut lake);
    }
    fs::write(fixture.dir.path().join("enough"), "").unwrap();
    assert!(child.wait().unwrap().success());
}

fn read_repeatedly(dir: &Path) {
    let fixture = Fixture::at(dir);
    let (mut seen, mut reads) = (0, 0);
    let started = Instant::now();
    while !dir.join("enough").exists() && started.elapsed() < Duration::from_secs(60) {
        let reader = open_read_only(&fixture.config).unwrap();
        let logs = ask(
            &reader,
            "SELECT count(DISTINCT time_unix_nano) FROM otlp_logs",
        );
        let spans = ask(
            &reader,
            "SELECT count(DISTINCT start_time_unix_nano) FROM otlp_traces",
        );
        std::thread::sleep(Duration::from_millis(20));
        let again = ask(
            &reader,
            "SELECT count(DISTINCT time_unix_nano) FROM otlp_logs",
        );
        assert_eq!(logs, again, "an open reader moved on");
        assert!(logs >= seen && logs % 5 == 0, "{logs} after {seen}");
        assert_eq!(logs, spans);
        seen = logs;
        reads += 1;
    }
    println!(
        "{reads} reads in {:?}, {seen} rows in the end",
        started.elapsed()
    );
}

/// Scenario: the seals' rows in the catalog are many and are moved to a file.
/// Guarantees: a seal is still found, and none is published again.
#[test]
fn a_seal_is_found_after_its_row_left_the_catalog() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(3, &[Table::Logs], 1);
    lake.publish(&seal).unwrap();
    lake.connection()
        .unwrap()
        .execute_batch("CALL ducklake_flush_inlined_data('lake', schema_name => 'main', table_name => 'otlake_seals')")
        .unwrap();
    assert!(lake.is_published(SealId(3)).unwrap());
    lake.publish(&fixture.stage(3, &[Table::Logs], 1)).unwrap();
    lake.publish(&fixture.stage(4, &[Table::Logs], 1)).unwrap();
    assert!(lake.is_published(SealId(3)).unwrap() && lake.is_published(SealId(4)).unwrap());
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlake_seals"), 2);
}
