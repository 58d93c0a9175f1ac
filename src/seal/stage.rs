//! Stage: a seal's rows as Parquet, synced to disk.
//!
//! One file a table, written by arrow-rs: zstd 1, no dictionary for columns whose values seldom repeat, times as
//! deltas. Each choice is measured (docs/DESIGN.md). Tables are written in parallel on a few threads.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::queue::Seal;
use super::staged::{StagedFile, StagedSeal, file_name, remove_attempt};
use crate::disk::{Disk, DiskFile};
use crate::rows::schema::{Kind, columns, schema};
use crate::signal::Table;

/// Rows in a row group: what DuckDB hands to one thread at a time.
const ROW_GROUP_ROWS: usize = 256 << 10;

/// Encoded bytes at which a row group ends early.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Text written out at once: bounds what a batch with long repeated texts costs while it is encoded.
const SLICE_TEXT_BYTES: u64 = 16 << 20;

/// Threads that write tables.
const STAGE_THREADS: usize = 2;

/// Why a seal could not be staged. Its rows stay in memory and are tried again.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The disk refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The Parquet writer failed.
    #[error("cannot write {}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        source: ParquetError,
    },
}

/// Writes the seal below `staged_dir` and syncs it; returns once a restart would find it.
///
/// # Errors
/// [`StageError`]; what was written so far is removed, or overwritten by the next attempt.
pub fn stage(disk: &dyn Disk, seal: &Seal, staged_dir: &Path) -> Result<StagedSeal, StageError> {
    let started = Instant::now();
    let dir = staged_dir.join(seal.id.to_string());
    remove_attempt(disk, &dir)
        .and_then(|()| disk.create_dir_all(&dir))
        .map_err(|source| io_error(&dir, source))?;
    let files = write_tables(disk, seal, &dir)?;
    let staged = StagedSeal {
        id: seal.id,
        cause: seal.cause,
        dir: dir.clone(),
        files,
        opened_unix_ms: seal.opened_unix_ms,
        sealed_unix_ms: seal.sealed_unix_ms,
        journaled_through: seal.journaled_through,
        stage_ms: started.elapsed().as_secs_f64() * 1e3,
    };
    disk.sync_dir(&dir)
        .and_then(|()| staged.write_manifest(disk))
        .map_err(|source| io_error(&dir, source))?;
    Ok(staged)
}

fn io_error(path: &Path, source: io::Error) -> StageError {
    StageError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Writes every table, [`STAGE_THREADS`] at a time.
fn write_tables(disk: &dyn Disk, seal: &Seal, dir: &Path) -> Result<Vec<StagedFile>, StageError> {
    let waiting = Mutex::new(seal.tables.iter());
    let next = || {
        let mut waiting = waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        waiting.next()
    };
    let work = || {
        let mut files = Vec::new();
        while let Some((table, batches)) = next() {
            files.push(write_table(disk, *table, batches, dir)?);
        }
        Ok(files)
    };
    let mut files = if seal.tables.len() == 1 {
        work()?
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..STAGE_THREADS.min(seal.tables.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mut files = Vec::new();
            for thread in threads {
                match thread.join() {
                    Ok(written) => files.extend(written?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(files)
        })?
    };
    files.sort_by_key(|file| file.table);
    Ok(files)
}

/// Writes and syncs one table's file.
fn write_table(
    disk: &dyn Disk,
    table: Table,
    batches: &[RecordBatch],
    dir: &Path,
) -> Result<StagedFile, StageError> {
    let path = dir.join(file_name(table));
    let parquet_error = |source| StageError::Parquet {
        path: path.clone(),
        source,
    };
    let file = disk
        .create(&path)
        .map_err(|source| io_error(&path, source))?;
    let file = Summed {
        file,
        bytes: 0,
        crc32c: 0,
    };
    let options = ArrowWriterOptions::new()
        .with_properties(properties(table))
        // Readers go by Parquet's own types; the Arrow schema would only say how we held the rows.
        .with_skip_arrow_metadata(true);
    let mut writer =
        ArrowWriter::try_new_with_options(file, schema(table), options).map_err(parquet_error)?;
    let mut rows = 0;
    for batch in batches {
        rows += batch.num_rows() as u64;
        for slice in slices(batch) {
            writer.write(&slice).map_err(parquet_error)?;
            if writer.in_progress_size() >= ROW_GROUP_BYTES {
                writer.flush().map_err(parquet_error)?;
            }
        }
    }
    let mut written = writer.into_inner().map_err(parquet_error)?;
    written
        .file
        .sync()
        .map_err(|source| io_error(&path, source))?;
    Ok(StagedFile {
        table,
        rows,
        bytes: written.bytes,
        crc32c: written.crc32c,
    })
}

/// A file, and what its manifest has to say of it.
struct Summed {
    file: Box<dyn DiskFile>,
    bytes: u64,
    crc32c: u32,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let bytes = bytes.get(..written).unwrap_or(bytes);
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.bytes += bytes.len() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Cuts a batch into parts of about [`SLICE_TEXT_BYTES`] of text, as it is once shared texts are written out.
fn slices(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let text_bytes: u64 = batch
        .columns()
        .iter()
        .filter(|column| column.data_type() == &DataType::Utf8View)
        .flat_map(|column| column.as_string_view().lengths())
        .map(u64::from)
        .sum();
    let rows = batch.num_rows();
    let parts = usize::try_from(text_bytes / SLICE_TEXT_BYTES + 1).unwrap_or(usize::MAX);
    let step = rows.div_ceil(parts).max(1);
    (0..rows)
        .step_by(step)
        .map(move |start| batch.slice(start, step.min(rows - start)))
}

/// How the table's columns are encoded.
fn properties(table: Table) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(format!("otlake {}", env!("CARGO_PKG_VERSION")));
    for (name, kind) in columns(table) {
        let path = ColumnPath::from(name);
        if kind == Kind::Time {
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        } else if is_seldom_repeated(name) {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
        }
        if is_free_text(name) {
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    properties.build()
}

/// Columns whose smallest and largest value tell nothing: to find them, each value is compared twice.
fn is_free_text(column: &str) -> bool {
    column.ends_with("_attributes")
        || column.ends_with("_json")
        || matches!(
            column,
            "body" | "metadata" | "description" | "status_status_message"
        )
}

/// Columns whose values are mostly different from row to row: a dictionary only costs time there.
fn is_seldom_repeated(column: &str) -> bool {
    matches!(
        column,
        "trace_id"
            | "span_id"
            | "parent_span_id"
            | "body"
            | "log_attributes"
            | "span_attributes"
            | "duration_time_unix_nano"
            | "events_json"
            | "links_json"
            | "exemplars_json"
    )
}
