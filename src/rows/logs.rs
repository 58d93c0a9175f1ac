//! Log records to `otlp_logs`.

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, TimestampNanosecondType, UInt32Type};

use super::columns::{Numbers, TextColumn};
use super::context::{Context, ContextColumns, ResourceFields, ScopeFields};
use super::{EXPECTED_ROWS_MAX, Meter, PushError, Rejections, Rows, batch, schema, time};
use crate::memory::{MemoryError, Reservation};
use crate::signal::Table;

/// One log record (OTLP `logs.proto`, `LogRecord`).
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFields<'a> {
    /// When it happened, Unix nanoseconds; 0 when unset.
    pub time_unix_nano: u64,
    /// When it was observed, Unix nanoseconds; 0 when unset.
    pub observed_time_unix_nano: u64,
    /// 16 bytes, or empty.
    pub trace_id: &'a [u8],
    /// 8 bytes, or empty.
    pub span_id: &'a [u8],
    /// OTLP's number, 1 to 24; 0 when unset.
    pub severity_number: i32,
    /// The source's own word for the severity.
    pub severity_text: &'a str,
    /// The record's event name, or where that is empty its attribute `event.name`.
    pub event_name: &'a str,
    /// The body as text: a string as it is, every other kind as attributes are written.
    pub body: &'a str,
    /// Attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// Attributes its sender dropped.
    pub dropped_attributes_count: u32,
    /// W3C trace flags.
    pub flags: u32,
}

/// Builds `otlp_logs` rows in request order.
#[derive(Debug)]
pub struct LogRows {
    received_unix_nano: i64,
    meter: Meter,
    rejections: Rejections,
    context: Context,
    rows: usize,
    time: Numbers<TimestampNanosecondType>,
    observed_time: Numbers<TimestampNanosecondType>,
    trace_id: TextColumn,
    span_id: TextColumn,
    severity_number: Numbers<Int32Type>,
    severity_text: TextColumn,
    event_name: TextColumn,
    body: TextColumn,
    attributes: TextColumn,
    dropped_attributes: Numbers<UInt32Type>,
    flags: Numbers<UInt32Type>,
    context_columns: ContextColumns,
}

impl LogRows {
    /// A builder for one request received at `received_unix_nano`, whose memory is taken from `reservation`.
    #[must_use]
    pub fn new(received_unix_nano: i64, reservation: Reservation) -> LogRows {
        LogRows {
            received_unix_nano,
            meter: Meter::new(reservation),
            rejections: Rejections::default(),
            context: Context::default(),
            rows: 0,
            time: Numbers::new(),
            observed_time: Numbers::new(),
            trace_id: TextColumn::new(),
            span_id: TextColumn::new(),
            severity_number: Numbers::new(),
            severity_text: TextColumn::new(),
            event_name: TextColumn::new(),
            body: TextColumn::new(),
            attributes: TextColumn::new(),
            dropped_attributes: Numbers::new(),
            flags: Numbers::new(),
            context_columns: ContextColumns::new(),
        }
    }

    /// So many records will be pushed next, or fewer: memory for them is taken at once.
    pub fn expect(&mut self, records: usize) {
        let rows = records.min(EXPECTED_ROWS_MAX);
        self.time.expect(rows);
        self.observed_time.expect(rows);
        self.trace_id.expect(rows);
        self.span_id.expect(rows);
        self.severity_number.expect(rows);
        self.severity_text.expect(rows);
        self.event_name.expect(rows);
        self.body.expect(rows);
        self.attributes.expect(rows);
        self.dropped_attributes.expect(rows);
        self.flags.expect(rows);
        self.context_columns.expect(rows);
    }

    /// Sets the resource of the records that follow, and clears the scope.
    pub fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.context.set_resource(resource);
    }

    /// Sets the scope of the records that follow.
    pub fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.context.set_scope(scope);
    }

    /// Appends one record, or counts its refusal.
    ///
    /// # Errors
    /// [`MemoryError`] when there is no memory for it.
    pub fn push(&mut self, record: &LogFields<'_>) -> Result<(), MemoryError> {
        let outcome = self.append(record);
        self.rejections.absorb(outcome)
    }

    fn append(&mut self, record: &LogFields<'_>) -> Result<(), PushError> {
        let observed = time(record.observed_time_unix_nano)?;
        let happened = time(record.time_unix_nano)?
            .or(observed)
            .unwrap_or(self.received_unix_nano);
        self.meter.add(
            schema::fixed_row_bytes(Table::Logs)
                + 48
                + record.severity_text.len()
                + record.event_name.len()
                + record.body.len()
                + record.attributes.len()
                + self.context_columns.cost(&self.context),
            self.context.bytes(),
        )?;

        self.rows += 1;
        self.time.push(happened);
        self.observed_time.push_option(observed);
        self.trace_id.push_id::<16>(record.trace_id);
        self.span_id.push_id::<8>(record.span_id);
        self.severity_number.push(record.severity_number);
        self.severity_text.push(record.severity_text);
        self.event_name.push(record.event_name);
        self.body.push(record.body);
        self.attributes.push(record.attributes);
        self.dropped_attributes
            .push(record.dropped_attributes_count);
        self.flags.push(record.flags);
        self.context_columns.push(&self.context);
        Ok(())
    }

    /// Ends the request.
    ///
    /// # Errors
    /// [`MemoryError`] when the finished rows hold more than could be reserved.
    pub fn finish(mut self) -> Result<Rows, MemoryError> {
        let mut batches = Vec::new();
        if self.rows > 0 {
            let context = self.context_columns.finish();
            let mut columns: Vec<ArrayRef> = vec![
                self.time.finish(),
                self.observed_time.finish(),
                self.trace_id.finish(),
                self.span_id.finish(),
            ];
            columns.extend(context.resource);
            columns.extend([
                self.severity_number.finish(),
                self.severity_text.finish(),
                self.event_name.finish(),
                self.body.finish(),
            ]);
            columns.extend(context.scope);
            columns.extend([
                self.attributes.finish(),
                self.dropped_attributes.finish(),
                self.flags.finish(),
            ]);
            columns.extend(context.extra);
            batches.push((Table::Logs, batch(Table::Logs, columns)));
        }
        Rows::new(batches, self.rejections, self.meter.reservation)
    }
}
