//! Rows: what every decoder ends in, and the value rules they share.
//!
//! A decoder feeds borrowed fields into one builder a signal ([`LogRows`], [`TraceRows`], [`MetricRows`]); the builder
//! applies the rules of docs/TABLES.md (ids to hex, zero times to null, empty text to null, ...) and ends in
//! [`Rows`]: at most one Arrow record batch a table. So the same telemetry gives the same rows whatever carried it.
//!
//! Pure: no clock beyond the given receipt time, no I/O, no async. Memory is bounded: each builder reserves what it
//! holds from the [`Budget`](crate::memory::Budget) before it grows further.

mod columns;
mod compact;
mod constant;
mod context;
mod json;
mod logs;
mod metrics;
mod nested;
mod points;
pub mod schema;
mod traces;

use std::fmt;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;

pub use compact::compact;
pub use context::{ResourceFields, ScopeFields};
pub use json::JsonText;
pub(crate) use json::is_escaped;
pub use logs::{LogFields, LogRows};
pub use metrics::MetricRows;
pub use nested::{EventFields, ExemplarFields, LinkFields};
pub use points::{
    ExpHistogramPoint, HistogramPoint, MetricFields, MetricKind, NumberPoint, NumberValue,
    PointFields, SummaryPoint,
};
pub use traces::{SpanFields, TraceRows};

use crate::memory::{MemoryError, Reservation};
use crate::signal::{Signal, Table};

/// The rows of one request, with the memory they hold.
#[derive(Debug)]
pub struct Rows {
    /// At most one batch a table, in the order of [`Table::ALL`], none of them empty.
    pub batches: Vec<(Table, RecordBatch)>,
    /// The records that were refused alone.
    pub rejections: Rejections,
    /// Covers the batches' memory; travels with them until they are staged.
    pub reservation: Reservation,
}

impl Rows {
    /// Settles the reservation to what the batches really hold.
    fn new(
        batches: Vec<(Table, RecordBatch)>,
        rejections: Rejections,
        mut reservation: Reservation,
    ) -> Result<Rows, MemoryError> {
        let bytes = batches
            .iter()
            .map(|(_, batch)| batch_bytes(batch))
            .sum::<u64>();
        reservation.grow_to(bytes)?;
        reservation.shrink_to(bytes);
        Ok(Rows {
            batches,
            rejections,
            reservation,
        })
    }

    /// Rows over all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.batches
            .iter()
            .map(|(_, batch)| batch.num_rows() as u64)
            .sum()
    }
}

/// The memory a batch holds, bytes.
#[must_use]
pub fn batch_bytes(batch: &RecordBatch) -> u64 {
    batch.get_array_memory_size() as u64
}

/// Why one record was refused while the rest of its request was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RecordError {
    /// A span's trace id is not 16 bytes, or all zero.
    #[error("trace id is not 16 bytes or is all zero")]
    BadTraceId,
    /// A span's id is not 8 bytes, or all zero.
    #[error("span id is not 8 bytes or is all zero")]
    BadSpanId,
    /// A span's parent id is neither empty nor 8 bytes.
    #[error("parent span id is neither empty nor 8 bytes")]
    BadParentSpanId,
    /// A time is beyond the year 2262, the last that 64-bit signed nanoseconds hold.
    #[error("time is above {TIME_MAX} ns (year 2262)")]
    TimeOutOfRange,
    /// A histogram's bucket counts do not match its bounds.
    #[error("bucket_counts is not one longer than explicit_bounds")]
    BadBuckets,
}

impl RecordError {
    /// Every reason, in the order they are counted.
    pub const ALL: [RecordError; 5] = [
        RecordError::BadTraceId,
        RecordError::BadSpanId,
        RecordError::BadParentSpanId,
        RecordError::TimeOutOfRange,
        RecordError::BadBuckets,
    ];

    /// The reason in one word, as `otlake status` counts it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RecordError::BadTraceId => "bad_trace_id",
            RecordError::BadSpanId => "bad_span_id",
            RecordError::BadParentSpanId => "bad_parent_span_id",
            RecordError::TimeOutOfRange => "time_out_of_range",
            RecordError::BadBuckets => "bad_buckets",
        }
    }
}

/// Why a builder did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The record is wrong; the others can still be taken.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is no memory for it; the whole request must be refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The records of one request that were refused alone, counted by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    counts: [u64; RecordError::ALL.len()],
}

impl Rejections {
    /// Counts one refused record.
    pub fn count(&mut self, error: RecordError) {
        self.counts[error as usize] += 1;
    }

    /// Sorts an outcome: a refused record is counted, lack of memory is passed on.
    ///
    /// # Errors
    /// [`MemoryError`] as the builder gave it.
    pub fn absorb(&mut self, outcome: Result<(), PushError>) -> Result<(), MemoryError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(PushError::Record(error)) => {
                self.count(error);
                Ok(())
            }
            Err(PushError::Memory(error)) => Err(error),
        }
    }

    /// Adds another request's rejections (NDJSON: one request a line).
    pub fn add(&mut self, other: &Rejections) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }

    /// Refused records over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn by_reason(&self) -> impl Iterator<Item = (RecordError, u64)> + '_ {
        RecordError::ALL
            .into_iter()
            .zip(self.counts)
            .filter(|(_, count)| *count > 0)
    }

    /// The text of `partial_success.error_message`: what was refused and why; empty when nothing was.
    #[must_use]
    pub fn message(&self, signal: Signal) -> String {
        struct Reasons<'a>(&'a Rejections);
        impl fmt::Display for Reasons<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (place, (error, count)) in self.0.by_reason().enumerate() {
                    let comma = if place == 0 { "" } else { "; " };
                    write!(f, "{comma}{count} x {}: {error}", error.name())?;
                }
                Ok(())
            }
        }
        match self.total() {
            0 => String::new(),
            1 => format!("1 {} refused ({})", signal.record_name(), Reasons(self)),
            n => format!("{n} {}s refused ({})", signal.record_name(), Reasons(self)),
        }
    }
}

/// Bytes one request's rows may come to when the texts they share are written out in every row, as Parquet does.
///
/// Sharing makes a row with a long resource cheap in memory, so memory alone does not bound what it costs to stage.
pub(crate) const EXPANDED_BYTES_MAX: u64 = 1 << 30;

/// Keeps a builder's reservation ahead of what it holds.
#[derive(Debug)]
struct Meter {
    reservation: Reservation,
    held: u64,
    expanded: u64,
}

impl Meter {
    /// How far ahead memory is reserved, so that the shared counter is touched seldom.
    const STEP_BYTES: u64 = 256 << 10;

    fn new(reservation: Reservation) -> Meter {
        Meter {
            reservation,
            held: 0,
            expanded: 0,
        }
    }

    /// Accounts for a row about to be built: `bytes` of its own, `shared` bytes of texts it shares with other rows.
    fn add(&mut self, bytes: usize, shared: usize) -> Result<(), MemoryError> {
        self.expanded += (bytes + shared) as u64;
        if self.expanded > EXPANDED_BYTES_MAX {
            return Err(MemoryError::NeverFits {
                limit: EXPANDED_BYTES_MAX,
            });
        }
        let held = self.held + bytes as u64;
        if held > self.reservation.bytes() {
            self.reservation
                .grow_to(held + Meter::STEP_BYTES)
                .or_else(|_| self.reservation.grow_to(held))?;
        }
        self.held = held;
        Ok(())
    }
}

/// Rows that memory is taken for ahead of them, because so many records are said to come: less than a MiB.
const EXPECTED_ROWS_MAX: usize = 1024;

/// The last time there is, Unix nanoseconds. One more would still fit 64 signed bits, but DuckDB reads that as infinity.
const TIME_MAX: i64 = i64::MAX - 1;

/// Checks a time of the wire: unsigned nanoseconds, stored as signed ones; 0 is null.
fn time(unix_nano: u64) -> Result<Option<i64>, RecordError> {
    match i64::try_from(unix_nano) {
        Ok(0) => Ok(None),
        Ok(nanos) if nanos <= TIME_MAX => Ok(Some(nanos)),
        _ => Err(RecordError::TimeOutOfRange),
    }
}

/// Whether an id of the wire is one: of the right length and not all zero.
fn is_id<const LEN: usize>(id: &[u8]) -> bool {
    id.len() == LEN && id.iter().any(|byte| *byte != 0)
}

/// Puts a table's finished columns together.
fn batch(table: Table, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema::schema(table), columns)
        .expect("the builder appends to every column of its table's schema once a row")
}
