//! Opening: settings, extensions, tables of earlier versions.

use super::*;
use crate::lake::LakeError;
use crate::lake::connection::open_read_write;

#[test]
fn catalogs_are_written_as_they_are_read() {
    for text in ["sqlite:/a/b c.sqlite", "duckdb:x.duckdb"] {
        assert_eq!(text.parse::<Catalog>().unwrap().to_string(), text);
    }
    for text in ["postgres:dbname=x", "sqlite:", "/a/b.sqlite", ""] {
        let error = text.parse::<Catalog>().unwrap_err().to_string();
        assert!(
            error.contains("sqlite:<file>") && error.contains("duckdb:<file>"),
            "{error}"
        );
    }
}

/// Scenario: `otlake query` before any server ran.
/// Guarantees: a clear error, and no empty catalog is left behind.
#[test]
fn reading_a_lake_that_is_not_there_says_so() {
    let fixture = Fixture::new();
    let error = open_read_only(&fixture.config).unwrap_err();
    assert!(error.is_missing_lake(), "{error}");
    assert!(!fixture.config.catalog.path().exists());
}

#[test]
fn a_reader_cannot_write() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let reader = open_read_only(&fixture.config).unwrap();
    assert!(reader.execute_batch("DELETE FROM otlp_logs").is_err());
}

/// Scenario: the server starts again on a lake that is as it should be.
/// Guarantees: nothing is changed, so there is no new snapshot.
#[test]
fn a_second_start_makes_no_snapshot() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let count = "SELECT count(*) FROM ducklake_snapshots('lake')";
    let before = fixture.ask(count);
    drop(fixture.open());
    assert_eq!(fixture.ask(count), before);
}

/// Scenario: a lake of an earlier version lacks columns, with rows in it.
/// Guarantees: the columns are added, old rows show NULL there, new rows are published, both merge.
#[test]
fn missing_columns_are_added() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let connection = open_read_write(&fixture.config).unwrap();
    connection
        .execute_batch(
            "ALTER TABLE lake.main.otlp_logs DROP COLUMN scope_schema_url;
             ALTER TABLE lake.main.otlp_logs DROP COLUMN flags;
             INSERT INTO lake.main.otlp_logs (service_name) VALUES ('old');",
        )
        .unwrap();
    drop(connection);
    let mut lake = fixture.open();
    lake.publish(&fixture.stage(1, &[Table::Logs], 1)).unwrap();
    assert_eq!(
        fixture
            .ask("SELECT count(*) FROM otlp_logs WHERE flags IS NULL AND scope_schema_url IS NULL"),
        2
    );
}

#[test]
fn a_column_of_another_type_is_named() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let connection = open_read_write(&fixture.config).unwrap();
    connection
        .execute_batch(
            "ALTER TABLE lake.main.otlp_traces DROP COLUMN kind;
             ALTER TABLE lake.main.otlp_traces ADD COLUMN kind VARCHAR;",
        )
        .unwrap();
    drop(connection);
    let Err(error) = Lake::open(&fixture.config, &fixture.writer) else {
        panic!("the lake opened");
    };
    let text = error.to_string();
    assert!(matches!(error, LakeError::ColumnType { .. }), "{text}");
    assert!(
        text.contains("column kind of otlp_traces is VARCHAR in the lake and must be INTEGER"),
        "{text}"
    );
}

/// Scenario: the data folder was moved as a whole, so the path in the catalog is wrong.
/// Guarantees: it opens at its new place, with its rows, for reading and for writing.
#[test]
fn a_moved_data_folder_opens() {
    let mut fixture = Fixture::new();
    let old = fixture.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    fixture.config.catalog = Catalog::Sqlite(old.join("it's a catalog.sqlite"));
    fixture.config.data_path = old.join("lake");
    fixture
        .open()
        .publish(&fixture.stage(1, &[Table::Logs], 1))
        .unwrap();
    let new = fixture.dir.path().join("new");
    fs::rename(&old, &new).unwrap();
    fixture.config.catalog = Catalog::Sqlite(new.join("it's a catalog.sqlite"));
    fixture.config.data_path = new.join("lake");
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 1);
    fixture
        .open()
        .publish(&fixture.stage(2, &[Table::Logs], 1))
        .unwrap();
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 2);
}

#[test]
fn another_schema_is_kept_apart() {
    let mut fixture = Fixture::new();
    fixture.config.schema = "team_a".to_owned();
    let mut lake = fixture.open();
    for id in 1..=9 {
        lake.publish(&fixture.stage(id, &[Table::Logs], 1)).unwrap();
    }
    while lake.maintain_step(Load::Quiet).unwrap() != crate::lake::MaintainStep::Idle {}
    assert_eq!(lake.live_files().unwrap()[0].files, 1);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 9);
    fixture.config.schema = "no such".to_owned();
    assert!(open_read_only(&fixture.config).is_err());
}

/// Scenario: an extension is nowhere, or the file is broken.
/// Guarantees: one error with every place and the command that fixes it.
#[test]
fn a_missing_extension_lists_what_was_tried() {
    use crate::lake::{Attempt, LakeError};
    let error = LakeError::Extension {
        name: "ducklake".to_owned(),
        version: "v1.5.5".to_owned(),
        platform: "linux_amd64".to_owned(),
        tried: vec![
            Attempt {
                place: "/a".to_owned(),
                reason: "not there".to_owned(),
            },
            Attempt {
                place: "INSTALL ducklake".to_owned(),
                reason: "no network".to_owned(),
            },
        ],
    };
    assert_eq!(
        error.to_string(),
        "cannot load DuckDB's extension ducklake (DuckDB v1.5.5, linux_amd64); run scripts/setup, or name a \
         folder that has it with --extension-dir; tried:\n  /a: not there\n  INSTALL ducklake: no network"
    );
}
