//! Spans to `otlp_traces`.

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType, UInt32Type};

use super::columns::{Numbers, TextColumn};
use super::context::{Context, ContextColumns, ResourceFields, ScopeFields};
use super::{
    EXPECTED_ROWS_MAX, Meter, PushError, RecordError, Rejections, Rows, batch, is_id, schema, time,
};
use crate::memory::{MemoryError, Reservation};
use crate::signal::Table;

/// One span (OTLP `trace.proto`, `Span`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanFields<'a> {
    /// Unix nanoseconds; 0 when unset.
    pub start_time_unix_nano: u64,
    /// Unix nanoseconds; 0 when unset.
    pub end_time_unix_nano: u64,
    /// 16 bytes, required.
    pub trace_id: &'a [u8],
    /// 8 bytes, required.
    pub span_id: &'a [u8],
    /// 8 bytes, or empty for a root span.
    pub parent_span_id: &'a [u8],
    /// W3C trace state.
    pub trace_state: &'a str,
    /// The span's name.
    pub name: &'a str,
    /// OTLP's number of the kind.
    pub kind: i32,
    /// OTLP's number of the status code: 0 unset, 1 ok, 2 error.
    pub status_code: i32,
    /// The status' message.
    pub status_message: &'a str,
    /// Attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// Events as one JSON list; empty when there are none.
    pub events_json: &'a str,
    /// Links as one JSON list; empty when there are none.
    pub links_json: &'a str,
    /// Attributes its sender dropped.
    pub dropped_attributes_count: u32,
    /// Events its sender dropped.
    pub dropped_events_count: u32,
    /// Links its sender dropped.
    pub dropped_links_count: u32,
    /// W3C trace flags and more.
    pub flags: u32,
}

/// Builds `otlp_traces` rows in request order.
#[derive(Debug)]
pub struct TraceRows {
    meter: Meter,
    rejections: Rejections,
    context: Context,
    rows: usize,
    start_time: Numbers<TimestampNanosecondType>,
    duration: Numbers<Int64Type>,
    trace_id: TextColumn,
    span_id: TextColumn,
    parent_span_id: TextColumn,
    trace_state: TextColumn,
    name: TextColumn,
    kind: Numbers<Int32Type>,
    status_code: Numbers<Int32Type>,
    status_message: TextColumn,
    attributes: TextColumn,
    events: TextColumn,
    links: TextColumn,
    dropped: [Numbers<UInt32Type>; 3],
    flags: Numbers<UInt32Type>,
    context_columns: ContextColumns,
}

impl TraceRows {
    /// A builder for one request, whose memory is taken from `reservation`.
    #[must_use]
    pub fn new(reservation: Reservation) -> TraceRows {
        TraceRows {
            meter: Meter::new(reservation),
            rejections: Rejections::default(),
            context: Context::default(),
            rows: 0,
            start_time: Numbers::new(),
            duration: Numbers::new(),
            trace_id: TextColumn::new(),
            span_id: TextColumn::new(),
            parent_span_id: TextColumn::new(),
            trace_state: TextColumn::new(),
            name: TextColumn::new(),
            kind: Numbers::new(),
            status_code: Numbers::new(),
            status_message: TextColumn::new(),
            attributes: TextColumn::new(),
            events: TextColumn::new(),
            links: TextColumn::new(),
            dropped: std::array::from_fn(|_| Numbers::new()),
            flags: Numbers::new(),
            context_columns: ContextColumns::new(),
        }
    }

    /// So many records will be pushed next, or fewer: memory for them is taken at once.
    pub fn expect(&mut self, records: usize) {
        let rows = records.min(EXPECTED_ROWS_MAX);
        self.start_time.expect(rows);
        self.duration.expect(rows);
        self.trace_id.expect(rows);
        self.span_id.expect(rows);
        self.parent_span_id.expect(rows);
        self.trace_state.expect(rows);
        self.name.expect(rows);
        self.kind.expect(rows);
        self.status_code.expect(rows);
        self.status_message.expect(rows);
        self.attributes.expect(rows);
        self.events.expect(rows);
        self.links.expect(rows);
        self.flags.expect(rows);
        for dropped in &mut self.dropped {
            dropped.expect(rows);
        }
        self.context_columns.expect(rows);
    }

    /// Sets the resource of the spans that follow, and clears the scope.
    pub fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.context.set_resource(resource);
    }

    /// Sets the scope of the spans that follow.
    pub fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.context.set_scope(scope);
    }

    /// Appends one span, or counts its refusal.
    ///
    /// # Errors
    /// [`MemoryError`] when there is no memory for it.
    pub fn push(&mut self, span: &SpanFields<'_>) -> Result<(), MemoryError> {
        let outcome = self.append(span);
        self.rejections.absorb(outcome)
    }

    fn append(&mut self, span: &SpanFields<'_>) -> Result<(), PushError> {
        if !is_id::<16>(span.trace_id) {
            return Err(RecordError::BadTraceId.into());
        }
        if !is_id::<8>(span.span_id) {
            return Err(RecordError::BadSpanId.into());
        }
        if !matches!(span.parent_span_id.len(), 0 | 8) {
            return Err(RecordError::BadParentSpanId.into());
        }
        let start = time(span.start_time_unix_nano)?;
        let end = time(span.end_time_unix_nano)?;
        self.meter.add(
            schema::fixed_row_bytes(Table::Traces)
                + 64
                + span.trace_state.len()
                + span.name.len()
                + span.status_message.len()
                + span.attributes.len()
                + span.events_json.len()
                + span.links_json.len()
                + self.context_columns.cost(&self.context),
            self.context.bytes(),
        )?;

        self.rows += 1;
        self.start_time.push_option(start);
        // Both are between 0 and i64::MAX, so the difference fits.
        self.duration
            .push_option(start.zip(end).map(|(start, end)| end - start));
        self.trace_id.push_id::<16>(span.trace_id);
        self.span_id.push_id::<8>(span.span_id);
        self.parent_span_id.push_id::<8>(span.parent_span_id);
        self.trace_state.push(span.trace_state);
        self.name.push(span.name);
        self.kind.push(span.kind);
        self.status_code.push(span.status_code);
        self.status_message.push(span.status_message);
        self.attributes.push(span.attributes);
        self.events.push(span.events_json);
        self.links.push(span.links_json);
        let [attributes, events, links] = &mut self.dropped;
        attributes.push(span.dropped_attributes_count);
        events.push(span.dropped_events_count);
        links.push(span.dropped_links_count);
        self.flags.push(span.flags);
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
                self.start_time.finish(),
                self.duration.finish(),
                self.trace_id.finish(),
                self.span_id.finish(),
                self.parent_span_id.finish(),
                self.trace_state.finish(),
            ];
            columns.extend(context.resource);
            columns.extend([
                self.name.finish(),
                self.kind.finish(),
                self.status_code.finish(),
                self.status_message.finish(),
            ]);
            columns.extend(context.scope);
            columns.extend([
                self.attributes.finish(),
                self.events.finish(),
                self.links.finish(),
            ]);
            columns.extend(self.dropped.each_mut().map(Numbers::finish));
            columns.push(self.flags.finish());
            columns.extend(context.extra);
            batches.push((Table::Traces, batch(Table::Traces, columns)));
        }
        Rows::new(batches, self.rejections, self.meter.reservation)
    }
}
