//! The lake against a real DuckLake in a temporary folder.

mod crash;
mod killed;
mod maintain;
mod open;
mod publish;
mod publisher;
mod served;
mod sweep;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringViewArray, TimestampNanosecondArray, new_null_array};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use duckdb::Connection;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::{Catalog, Lake, LakeConfig, Load, MaintainStep, open_read_only};
use crate::disk::RealDisk;
use crate::rows::schema::schema;
use crate::seal::ledger::unix_ms;
use crate::seal::staged::{StagedFile, StagedSeal, find};
use crate::signal::{CutCause, SealId, Table, WriterId};

/// A data folder with the settings of a lake in it.
struct Fixture {
    dir: TempDir,
    staged_dir: PathBuf,
    config: LakeConfig,
    writer: WriterId,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(|dir| Catalog::Sqlite(dir.join("catalog.sqlite")))
    }

    fn with(catalog: impl FnOnce(&Path) -> Catalog) -> Fixture {
        Fixture::inside(tempfile::tempdir().unwrap(), catalog)
    }

    fn inside(dir: TempDir, catalog: impl FnOnce(&Path) -> Catalog) -> Fixture {
        let config = LakeConfig {
            catalog: catalog(dir.path()),
            data_path: dir.path().join("lake"),
            schema: "main".to_owned(),
            extension_dir: extension_dir(),
            target_file_size_bytes: 256 << 20,
            snapshot_retention: Duration::from_secs(900),
            is_group_readable: false,
        };
        Fixture {
            staged_dir: dir.path().join("staged"),
            dir,
            config,
            writer: WriterId("0192f0c1-7a3b-7000-8000-00000badcafe".to_owned()),
        }
    }

    /// The data folder of another process.
    fn at(dir: &Path) -> Fixture {
        // Who is killed leaves its own folder behind: it goes with the other's.
        let own = TempDir::new_in(dir).unwrap();
        let mut fixture = Fixture::inside(own, |_| Catalog::Sqlite(dir.join("catalog.sqlite")));
        fixture.staged_dir = dir.join("staged");
        fixture.config.data_path = dir.join("lake");
        fixture
    }

    fn open(&self) -> Lake {
        Lake::open(&self.config, &self.writer).unwrap()
    }

    /// Stages a seal with `rows` rows in each of `tables`, named and dated after the seal.
    fn stage(&self, id: u64, tables: &[Table], rows: usize) -> StagedSeal {
        let dir = self.staged_dir.join(SealId(id).to_string());
        fs::create_dir_all(&dir).unwrap();
        let files = tables
            .iter()
            .map(|&table| {
                let path = dir.join(crate::seal::staged::file_name(table));
                write_parquet(&path, &batch(table, id, rows));
                let content = fs::read(&path).unwrap();
                StagedFile {
                    table,
                    rows: rows as u64,
                    bytes: content.len() as u64,
                    crc32c: crc32c::crc32c(&content),
                }
            })
            .collect();
        let seal = StagedSeal {
            id: SealId(id),
            cause: CutCause::Age,
            dir,
            files,
            opened_unix_ms: unix_ms() - 5000,
            sealed_unix_ms: unix_ms(),
            journaled_through: id,
            stage_ms: 1.5,
        };
        seal.write_manifest(&RealDisk).unwrap();
        seal
    }

    /// The staged seals, read back and checked as a start does it.
    fn staged(&self) -> Vec<StagedSeal> {
        let seals = find(&RealDisk, &self.staged_dir).unwrap().seals;
        for seal in &seals {
            seal.check(&RealDisk).unwrap();
        }
        seals
    }

    /// Files in the tables' folders that the catalog does not have as live files of a table.
    fn unreferenced(&self) -> Vec<PathBuf> {
        let reader = open_read_only(&self.config).unwrap();
        let mut left = Vec::new();
        for table in Table::ALL {
            let sql = format!("SELECT data_file FROM ducklake_list_files('lake', '{table}')");
            let mut statement = reader.prepare(&sql).unwrap();
            let live: HashSet<String> = statement
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let dir = fs::canonicalize(&self.config.data_path).unwrap();
            let Ok(entries) = fs::read_dir(dir.join("main").join(table.name())) else {
                continue;
            };
            let paths = entries.map(|entry| entry.unwrap().path());
            left.extend(paths.filter(|path| !live.contains(path.to_str().unwrap())));
        }
        left
    }

    /// Answers one number of a fresh, read-only connection.
    fn ask(&self, sql: &str) -> i64 {
        ask(&open_read_only(&self.config).unwrap(), sql)
    }
}

/// Maintains until nothing is left to do; answers how many files merges wrote.
fn maintain(lake: &mut Lake) -> u64 {
    let mut merges = 0;
    loop {
        match lake.maintain_step(Load::Quiet).unwrap() {
            MaintainStep::Idle => return merges,
            MaintainStep::Merged { files_written, .. } => merges += files_written,
            MaintainStep::Expired | MaintainStep::Swept { .. } | MaintainStep::GaveWay => {}
        }
    }
}

fn ask(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The folder that scripts/setup made, also when the tests are built outside of the checkout.
fn extension_dir() -> Option<PathBuf> {
    let library = std::env::var_os("DUCKDB_LIB_DIR")?;
    Some(Path::new(&library).join("../extensions"))
}

fn batch(table: Table, id: u64, rows: usize) -> RecordBatch {
    let schema = schema(table);
    let columns = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            let time = i64::try_from(id).unwrap() * 1_000_000_000;
            match field.name().as_str() {
                // Services repeat from seal to seal, so that sorting has something to do.
                "service_name" => Arc::new(StringViewArray::from_iter_values(
                    (0..rows).map(|row| format!("service-{}", (id as usize * 7 + row) % 5)),
                )),
                name if name == table.time_column() => {
                    Arc::new(TimestampNanosecondArray::from_iter_values(
                        (0..rows).map(|row| time + row as i64),
                    ))
                }
                _ => new_null_array(field.data_type(), rows),
            }
        })
        .collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// The batch without the columns that hold only nulls.
fn without_nulls(batch: &RecordBatch) -> RecordBatch {
    let full: Vec<usize> = (0..batch.num_columns())
        .filter(|&index| batch.column(index).null_count() < batch.num_rows())
        .collect();
    batch.project(&full).unwrap()
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .build();
    let file = File::create(path).unwrap();
    let schema: Arc<Schema> = batch.schema();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}
