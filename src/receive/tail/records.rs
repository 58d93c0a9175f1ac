//! Rows as the records that a tail shows.

use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;

use crate::proto::admin::TailRecord;
use crate::receive::services;
use crate::signal::Table;

/// The longest text of a record, bytes; of a longer one the beginning is shown.
pub(super) const TEXT_BYTES_MAX: usize = 8 << 10;

/// The rows of one table, from which single ones are shown.
pub(super) struct Records<'a> {
    table: Table,
    batch: &'a RecordBatch,
}

impl<'a> Records<'a> {
    pub(super) fn new(table: Table, batch: &'a RecordBatch) -> Records<'a> {
        Records { table, batch }
    }

    /// A row's service; empty when it has none.
    pub(super) fn service(&self, row: usize) -> &str {
        let names = self.column("service_name");
        names.map_or("", |names| services::name(names.as_string_view(), row))
    }

    /// A row.
    pub(super) fn record(&self, row: usize) -> TailRecord {
        let text = |name| self.text(name, row);
        let record = TailRecord {
            time_unix_nano: self
                .number::<TimestampNanosecondType>(self.table.time_column(), row)
                .unwrap_or_default(),
            signal: self.table.signal().name().to_owned(),
            service: cut(self.service(row)),
            ..TailRecord::default()
        };
        match self.table {
            Table::Logs => TailRecord {
                name: text("event_name"),
                body: text("body"),
                severity: text("severity_text"),
                trace_id: text("trace_id"),
                span_id: text("span_id"),
                attributes: text("log_attributes"),
                ..record
            },
            Table::Traces => TailRecord {
                name: text("name"),
                trace_id: text("trace_id"),
                span_id: text("span_id"),
                duration_nano: self.number::<Int64Type>("duration_time_unix_nano", row),
                is_error: self.number::<Int32Type>("status_code", row) == Some(STATUS_ERROR),
                attributes: text("span_attributes"),
                ..record
            },
            Table::Gauge | Table::Sum => TailRecord {
                name: text("name"),
                unit: text("unit"),
                value: self.value(row),
                attributes: text("metric_attributes"),
                ..record
            },
            Table::Histogram | Table::ExpHistogram | Table::Summary => TailRecord {
                name: text("name"),
                unit: text("unit"),
                value: self.number::<Float64Type>("sum", row),
                count: self.number::<UInt64Type>("count", row),
                attributes: text("metric_attributes"),
                ..record
            },
        }
    }

    fn value(&self, row: usize) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let whole = || Some(self.number::<Int64Type>("int_value", row)? as f64);
        self.number::<Float64Type>("double_value", row)
            .or_else(whole)
    }

    fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.batch.column_by_name(name)
    }

    fn text(&self, name: &str, row: usize) -> String {
        let column = self.column(name).map(|column| column.as_string_view());
        let column = column.filter(|column| column.is_valid(row));
        column
            .map(|column| cut(column.value(row)))
            .unwrap_or_default()
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &str, row: usize) -> Option<T::Native> {
        let column = self.column(name)?.as_primitive_opt::<T>()?;
        column.is_valid(row).then(|| column.value(row))
    }
}

/// OTLP's status code of a span that failed.
const STATUS_ERROR: i32 = 2;

/// A text, or its beginning.
fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
