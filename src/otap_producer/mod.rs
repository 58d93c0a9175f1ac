//! OTAP as it is sent: OTLP messages to the Arrow record batches of one stream, for `otlake send` and the tests.
//!
//! ```text
//! request -> logs | traces | metrics: rows of every table -> columns (ids, dictionaries) -> stream: IPC messages -> payloads
//!              \-> attributes, events, links, points, exemplars: sorted, then rows of their own tables
//! ```
//!
//! | kept for a stream | why |
//! |---|---|
//! | which columns were ever used | a column is left out until its first value, and stays from then on |
//! | each column's dictionary | values are sent once; it grows from keys of 8 bits to 16 to none |
//! | each table's IPC stream | a schema is sent once; another one begins a new IPC stream under a new schema id |
//!
//! Invariants:
//! - A batch has a table at most once, and only tables with rows.
//! - Ids count from 0 within a batch; a record without anything below it has none. Attributes are sorted by type, key and value
//!   (not by their order, but so that equal ones come together), other tables by what their parent ids go by.
//! - What quasi-delta takes for equal is what readers do: null keys of events, links and exemplars equal each other, those of attributes
//!   do not; doubles (and bytes that are null) as [`IdEncoding`] says.
//!
//! Source: OTAP (otel-arrow), "OTAP Formal Specification"; where it and the producers differ, the producers.

mod attributes;
mod cbor;
mod column;
mod exemplars;
mod ids;
mod interner;
mod list;
mod logs;
mod metrics;
mod options;
mod origins;
mod points;
mod span_parts;
mod stream;
mod traces;
mod values;

use std::fmt;
use std::mem;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use bytes::Bytes;

use self::logs::LogTables;
use self::metrics::MetricTables;
use self::stream::Session;
use self::traces::TraceTables;
use crate::proto::arrow::BatchArrowRecords;
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;

pub use self::options::{Compression, Dictionaries, IdEncoding, Options};

/// Parents of one kind in a batch: what ids of 16 bits tell apart, less one.
pub const PARENTS_MAX: usize = 65_535;

/// A column, if the batch has it.
type Built = Option<(Field, ArrayRef)>;

/// Why a request cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// Ids do not reach; the request has to be divided. The stream is as it was.
    #[error("a batch holds {found} {parents}, limit {PARENTS_MAX}: divide it")]
    TooManyParents {
        /// What there is too much of.
        parents: &'static str,
        /// How many there are.
        found: usize,
    },
    /// The values of a column do not fit into one array. The stream cannot go on.
    #[error("column {column} of a batch takes {bytes} bytes, limit {}", i32::MAX)]
    ColumnTooLarge {
        /// The column's name.
        column: &'static str,
        /// How large it would be.
        bytes: usize,
    },
    /// Arrow refused an array or a message, which is a mistake of the producer. The stream cannot go on.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

/// Writes the batches of one stream.
///
/// A stream carries one signal; a producer that is given several writes them all, each with its own tables.
pub struct Producer {
    session: Session,
    batches: i64,
    logs: Option<Box<LogTables>>,
    traces: Option<Box<TraceTables>>,
    metrics: Option<Box<MetricTables>>,
}

impl Producer {
    /// The state of a stream that begins.
    #[must_use]
    pub fn new(options: Options) -> Producer {
        Producer {
            session: Session::new(options),
            batches: 0,
            logs: None,
            traces: None,
            metrics: None,
        }
    }

    /// Writes a batch of log records. `headers` stay empty: they are the caller's to set.
    ///
    /// Trace and span ids of a wrong length are left out, and entities and places in tables of strings are not carried. Which
    /// attribute of a repeated key comes last is left open.
    ///
    /// # Errors
    /// [`ProduceError`]; no batch id is used up then.
    pub fn logs(
        &mut self,
        request: &ExportLogsServiceRequest,
    ) -> Result<BatchArrowRecords, ProduceError> {
        let options = &self.session.options;
        let tables = self
            .logs
            .get_or_insert_with(|| Box::new(LogTables::new(options)));
        tables.write(request, &mut self.session)?;
        Ok(self.batch())
    }

    /// Writes a batch of spans; else as [`Producer::logs`]. A span's ids of a wrong length become zeros.
    ///
    /// # Errors
    /// [`ProduceError`]; no batch id is used up then.
    pub fn traces(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<BatchArrowRecords, ProduceError> {
        let options = &self.session.options;
        let tables = self
            .traces
            .get_or_insert_with(|| Box::new(TraceTables::new(options)));
        tables.write(request, &mut self.session)?;
        Ok(self.batch())
    }

    /// Writes a batch of metrics; else as [`Producer::logs`].
    ///
    /// # Errors
    /// [`ProduceError`]; no batch id is used up then.
    pub fn metrics(
        &mut self,
        request: &ExportMetricsServiceRequest,
    ) -> Result<BatchArrowRecords, ProduceError> {
        let options = &self.session.options;
        let tables = self
            .metrics
            .get_or_insert_with(|| Box::new(MetricTables::new(options)));
        tables.write(request, &mut self.session)?;
        Ok(self.batch())
    }

    /// The batch of the payloads that were written.
    fn batch(&mut self) -> BatchArrowRecords {
        let mut payloads = mem::take(&mut self.session.payloads);
        if self.session.options.root_last {
            payloads.reverse();
        }
        let batch_id = self.batches;
        self.batches += 1;
        BatchArrowRecords {
            batch_id,
            arrow_payloads: payloads,
            headers: Bytes::new(),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("options", &self.session.options)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

fn check_parents(parents: &'static str, found: usize) -> Result<(), ProduceError> {
    if found > PARENTS_MAX {
        return Err(ProduceError::TooManyParents { parents, found });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
