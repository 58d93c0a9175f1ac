//! Stage: a seal's rows to Parquet, beside what DuckDB does with the same rows: its appender and `INSERT ... FROM arrow`
//! into a DuckLake's table, which is how duckdb-otlp writes.
//!
//! DuckDB gets the rows in the Arrow of its crate, put together into one batch a table; neither that nor opening the lake
//! is timed. Its threads are two, as the server's staging has. What is on disk afterwards is counted, and our files are
//! synced while DuckDB's are not.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use arrow::record_batch::RecordBatch;
use arrow58::record_batch::RecordBatch as OlderBatch;
use duckdb::Connection;
use duckdb::vtab::arrow::{ArrowVTab, arrow_recordbatch_to_query_params};
use otlake::disk::RealDisk;
use otlake::rows::schema::columns;
use otlake::seal::queue::Seal;
use otlake::seal::stage::stage;
use otlake::signal::{CutCause, SealId, Signal, Table};
use otlake_bench::measure::{Contender, measure};
use otlake_bench::older::older;
use otlake_bench::workload::Workload;
use tempfile::TempDir;

use crate::report::{Beside, Line, Report};
use crate::{BATCH, Options};

/// Rows are staged in larger amounts than they come in: so many times those of a decoding round.
const TIMES_ROWS: usize = 4;

/// Where scripts/setup puts DuckDB's extensions.
const EXTENSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vendor/extensions");

/// Rows of each table.
pub type Tables = Vec<(Table, Vec<RecordBatch>)>;

pub fn run(options: &Options, report: &mut Report) {
    for signal in Signal::ALL {
        let requests = (options.rows * TIMES_ROWS / BATCH) as u64;
        let workload = Workload::generated(signal, requests, BATCH as u64);
        let dir = TempDir::new().unwrap();
        let seal = seal(SealId(1), tables(&workload));
        let older: Vec<(Table, OlderBatch)> = seal
            .tables
            .iter()
            .map(|(table, batches)| (*table, older(batches)))
            .collect();
        let [appending, inserting] =
            ["appender", "insert"].map(|name| Lake::open(dir.path(), name, &older));
        // The bytes that the last round wrote.
        let written = RefCell::new([0; 3]);
        let mut contenders = [
            Contender::new("otlake", || {
                let staged = stage(&RealDisk, &seal, &dir.path().join("staged")).unwrap();
                written.borrow_mut()[0] = staged.bytes();
                staged.files.len()
            }),
            Contender::new("DuckDB's appender", || {
                written.borrow_mut()[1] = appending.append(&older);
                older.len()
            }),
            Contender::new("INSERT FROM arrow", || {
                written.borrow_mut()[2] = inserting.insert();
                older.len()
            }),
        ];
        let times = measure(options.rounds.div_ceil(2), &mut contenders);
        let names = contenders.each_ref().map(|contender| contender.name);
        let bytes = written
            .borrow()
            .map(|bytes| bytes as f64 / workload.rows as f64);
        for other in 1..names.len() {
            report.line(&Line {
                stage: "stage to Parquet",
                workload: workload.name,
                rows: workload.rows,
                seconds: times.median(0),
                bytes_a_row: bytes[0],
                beside: Some(Beside {
                    name: names[other],
                    seconds: times.median(other),
                    ratio: times.ratio_to(other),
                    bytes_a_row: Some(bytes[other]),
                }),
            });
        }
    }
}

/// The rows of a workload by table, in the batches of its requests.
pub fn tables(workload: &Workload) -> Tables {
    let mut tables: Tables = Vec::new();
    for (table, batch) in workload.decoded().into_iter().flat_map(|rows| rows.batches) {
        match tables.iter_mut().find(|(known, _)| *known == table) {
            Some((_, batches)) => batches.push(batch),
            None => tables.push((table, vec![batch])),
        }
    }
    tables
}

/// A seal with these rows.
pub fn seal(id: SealId, tables: Tables) -> Seal {
    Seal {
        id,
        cause: CutCause::Size,
        tables,
        opened_unix_ms: 0,
        sealed_unix_ms: 0,
        journaled_through: 0,
        unjournaled_rows: 0,
        reservation: None,
    }
}

/// A DuckLake with our tables, and the rows that are inserted into them.
struct Lake {
    connection: Connection,
    inserts: Vec<(String, [usize; 2])>,
    files: std::path::PathBuf,
}

impl Lake {
    fn open(dir: &Path, name: &str, rows: &[(Table, OlderBatch)]) -> Lake {
        let connection = Connection::open_in_memory().unwrap();
        let platform: String = connection
            .query_row("PRAGMA platform", [], |row| row.get(0))
            .unwrap();
        let version: String = connection
            .query_row("PRAGMA version", [], |row| row.get(0))
            .unwrap();
        let (catalog, files) = (dir.join(name), dir.join(format!("{name}-files")));
        let (catalog, shown) = (catalog.display(), files.display());
        let attach = format!(
            "SET threads = 2;
             LOAD '{EXTENSIONS}/{version}/{platform}/ducklake.duckdb_extension';
             ATTACH 'ducklake:{catalog}' AS lake (DATA_PATH '{shown}');"
        );
        connection.execute_batch(&attach).unwrap();
        connection
            .register_table_function::<ArrowVTab>("arrow")
            .unwrap();
        let mut inserts = Vec::new();
        for (table, batch) in rows {
            let columns: Vec<String> = columns(*table)
                .into_iter()
                .map(|(name, kind)| format!("\"{name}\" {}", kind.sql()))
                .collect();
            let create = format!("CREATE TABLE lake.main.{table} ({})", columns.join(", "));
            connection.execute_batch(&create).unwrap();
            let insert = format!("INSERT INTO lake.main.{table} SELECT * FROM arrow(?, ?)");
            inserts.push((insert, arrow_recordbatch_to_query_params(batch.clone())));
        }
        Lake {
            connection,
            inserts,
            files,
        }
    }

    /// Appends the rows, and answers the bytes of the files that this made.
    fn append(&self, rows: &[(Table, OlderBatch)]) -> u64 {
        let before = bytes_below(&self.files);
        for (table, batch) in rows {
            let connection = &self.connection;
            let mut appender = connection
                .appender_to_catalog_and_db(table.name(), "lake", "main")
                .unwrap();
            appender.append_record_batch(batch.clone()).unwrap();
            appender.flush().unwrap();
        }
        bytes_below(&self.files) - before
    }

    /// Inserts the rows, and answers the bytes of the files that this made.
    fn insert(&self) -> u64 {
        let before = bytes_below(&self.files);
        for (insert, parameters) in &self.inserts {
            self.connection.execute(insert, *parameters).unwrap();
        }
        bytes_below(&self.files) - before
    }
}

/// The length of all files in a folder and those below it, bytes.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => bytes_below(&path),
            false => fs::metadata(&path).unwrap().len(),
        }
    };
    entries.map(of).sum()
}
