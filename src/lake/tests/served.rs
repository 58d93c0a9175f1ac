//! The lake for queries of others: always new, never half, and nothing else.

use super::*;
use crate::lake::ServedLake;

fn served(fixture: &Fixture, name: &str) -> ServedLake {
    ServedLake::open(&fixture.config, name, &fixture.dir.path().join("quack")).unwrap()
}

fn kinds() -> [Fixture; 2] {
    let sqlite = Fixture::new();
    [
        sqlite,
        Fixture::with(|dir| Catalog::DuckDb(dir.join("catalog.duckdb"))),
    ]
}

/// Scenario: rows are published and merged while a transaction reads two tables, one of them for the first time after it.
/// Guarantees: the transaction sees one moment to its end; others see each commit after the next refresh; with either catalog.
#[test]
fn a_transaction_keeps_its_moment_and_others_move_on() {
    for fixture in kinds() {
        let mut lake = fixture.open();
        let served = served(&fixture, "otel");
        let tables = [Table::Logs, Table::Traces];
        lake.publish(&fixture.stage(1, &tables, 10)).unwrap();
        served.refresh().unwrap();
        let (reader, other) = (served.connect().unwrap(), served.connect().unwrap());
        reader.execute_batch("BEGIN").unwrap();
        assert_eq!(ask(&reader, "SELECT count(*) FROM otel.main.otlp_logs"), 10);
        for id in 2..=8 {
            lake.publish(&fixture.stage(id, &tables, 10)).unwrap();
            served.refresh().unwrap();
            let rows = i64::try_from(id).unwrap() * 10;
            assert_eq!(ask(&other, "SELECT count(*) FROM otlp_logs"), rows);
        }
        assert!(maintain(&mut lake) > 0);
        served.refresh().unwrap();
        assert_eq!(ask(&reader, "SELECT count(*) FROM otlp_logs"), 10);
        assert_eq!(
            ask(&reader, "SELECT count(*) FROM otel.main.otlp_traces"),
            10
        );
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(ask(&reader, "SELECT count(*) FROM otlp_traces"), 80);
        assert_eq!(ask(&other, "SELECT count(*) FROM otlp_logs"), 80);
    }
}

/// Scenario: the settings are locked; then files outside of the lake, settings and the lake itself are reached for.
/// Guarantees: none is; the lake can still be read, and refreshed.
#[test]
fn a_locked_lake_opens_nothing_else() {
    for fixture in kinds() {
        let mut lake = fixture.open();
        let served = served(&fixture, "lake");
        served.lock().unwrap();
        let reader = served.connect().unwrap();
        let secret = fixture.dir.path().join("secret.csv");
        fs::write(&secret, "a\n1\n").unwrap();
        for sql in [
            format!("FROM read_csv('{}')", secret.display()),
            format!("COPY (SELECT 1) TO '{}'", secret.display()),
            format!("ATTACH '{}/x.db'", fixture.dir.path().display()),
            "SET enable_external_access = true".to_owned(),
            "SET GLOBAL memory_limit = '1TB'".to_owned(),
            "INSERT INTO lake.main.otlp_logs (body) VALUES ('x')".to_owned(),
            "DROP TABLE lake.main.otlp_logs".to_owned(),
        ] {
            assert!(reader.execute_batch(&sql).is_err(), "{sql}");
        }
        lake.publish(&fixture.stage(1, &[Table::Logs], 10)).unwrap();
        served.refresh().unwrap();
        assert_eq!(
            ask(&reader, "SELECT count(service_name) FROM otlp_logs"),
            10
        );
    }
}

/// Scenario: the catalog is gone when a query comes.
/// Guarantees: the refresh says so instead of showing what was there; when it is back, it goes on.
#[test]
fn a_catalog_that_is_gone_is_told() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let served = served(&fixture, "lake");
    lake.publish(&fixture.stage(1, &[Table::Logs], 10)).unwrap();
    drop(lake);
    let catalog = fixture.config.catalog.path().to_owned();
    let aside = catalog.with_extension("aside");
    fs::rename(&catalog, &aside).unwrap();
    assert!(served.refresh().is_err());
    fs::rename(&aside, &catalog).unwrap();
    served.refresh().unwrap();
    let reader = served.connect().unwrap();
    assert_eq!(ask(&reader, "SELECT count(*) FROM otlp_logs"), 10);
}

/// Scenario: nothing changes for a while, then something does.
/// Guarantees: the catalog is copied again only then.
#[test]
fn an_unchanged_catalog_is_not_copied_again() {
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    lake.publish(&fixture.stage(1, &[Table::Logs], 10)).unwrap();
    let served = served(&fixture, "lake");
    let reader = served.connect().unwrap();
    let copy = "SELECT max_by(database_name, database_oid) FROM duckdb_databases() WHERE database_name LIKE '%catalog'";
    let name = || -> String { reader.query_row(copy, [], |row| row.get(0)).unwrap() };
    // What changed a moment ago may change again under the same time.
    let settled = || {
        let mut before = String::new();
        while before != name() {
            before = name();
            std::thread::sleep(Duration::from_millis(10));
            served.refresh().unwrap();
        }
        before
    };
    let first = settled();
    served.refresh().unwrap();
    assert_eq!(name(), first);
    lake.publish(&fixture.stage(2, &[Table::Logs], 10)).unwrap();
    served.refresh().unwrap();
    assert_ne!(name(), first);
}
