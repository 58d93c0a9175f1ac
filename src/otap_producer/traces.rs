//! Spans: SPANS, SPAN_ATTRS and what hangs on spans, events and links.

use arrow::datatypes::{DataType, TimeUnit};

use super::attributes::{AttributeTable, Attributes};
use super::column::{Cell, Column};
use super::ids::IdColumn;
use super::options::Options;
use super::origins::{OriginColumns, Origins};
use super::span_parts::{EventTable, Events, LinkTable, Links};
use super::stream::{Session, Stream, group};
use super::{Built, ProduceError, check_parents};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::trace::v1::Span;

/// The tables of a stream of traces.
pub(super) struct TraceTables {
    stream: Stream,
    id: IdColumn,
    origins: OriginColumns,
    start_time: Column,
    duration: Column,
    trace_id: Column,
    span_id: Column,
    trace_state: Column,
    parent_span_id: Column,
    name: Column,
    kind: Column,
    dropped_attributes: Column,
    dropped_events: Column,
    dropped_links: Column,
    flags: Column,
    status_code: Column,
    status_message: Column,
    attributes: AttributeTable,
    events: EventTable,
    links: LinkTable,
}

impl TraceTables {
    pub(super) fn new(options: &Options) -> TraceTables {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let duration = DataType::Duration(TimeUnit::Nanosecond);
        let dictionary = |name, data_type| Column::new(name, data_type).dictionary(options);
        let count = |name| Column::new(name, DataType::UInt32);
        TraceTables {
            stream: Stream::new(ArrowPayloadType::Spans),
            id: IdColumn::delta("id", DataType::UInt16, options),
            origins: OriginColumns::new(options),
            start_time: Column::new("start_time_unix_nano", timestamp).required(),
            duration: dictionary("duration_time_unix_nano", duration).required(),
            trace_id: Column::new("trace_id", DataType::FixedSizeBinary(16)).required(),
            span_id: Column::new("span_id", DataType::FixedSizeBinary(8)).required(),
            trace_state: dictionary("trace_state", DataType::Utf8),
            parent_span_id: dictionary("parent_span_id", DataType::FixedSizeBinary(8)),
            name: dictionary("name", DataType::Utf8).required(),
            kind: dictionary("kind", DataType::Int32),
            dropped_attributes: count("dropped_attributes_count"),
            dropped_events: count("dropped_events_count"),
            dropped_links: count("dropped_links_count"),
            flags: count("flags"),
            status_code: dictionary("code", DataType::Int32),
            status_message: dictionary("status_message", DataType::Utf8),
            attributes: AttributeTable::narrow(ArrowPayloadType::SpanAttrs, options),
            events: EventTable::new(options),
            links: LinkTable::new(options),
        }
    }

    /// Adds the tables of a request to the session's batch.
    pub(super) fn write(
        &mut self,
        request: &ExportTraceServiceRequest,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        check(request)?;
        let mut origins = Origins::default();
        let mut attributes = Attributes::default();
        let (mut events, mut links) = (Events::default(), Links::default());
        let (mut row, mut next_id) = (0, 0);
        for of_resource in &request.resource_spans {
            let resource = self.origins.resource(
                &mut origins,
                of_resource.resource.as_ref(),
                &of_resource.schema_url,
            );
            for of_scope in &of_resource.scope_spans {
                let scope =
                    self.origins
                        .scope(&mut origins, of_scope.scope.as_ref(), &of_scope.schema_url);
                for span in &of_scope.spans {
                    self.origins.set(row, &resource, &scope);
                    if is_parent(span) {
                        self.id.set(row, next_id, true);
                        self.attributes
                            .add(&mut attributes, next_id, &span.attributes);
                        self.events.add(&mut events, next_id, &span.events);
                        self.links
                            .add(&mut links, next_id, &span.links, &session.options);
                        next_id += 1;
                    }
                    self.set(row, span, &session.options);
                    row += 1;
                }
            }
        }
        let columns = self.finish(row, &session.options)?;
        self.stream.write(columns, row, session)?;
        self.origins.finish_attributes(&origins, session)?;
        self.attributes.finish(&attributes, session)?;
        self.events.finish(events, session)?;
        self.links.finish(links, session)
    }

    fn set(&mut self, row: usize, span: &Span, options: &Options) {
        let duration = span
            .end_time_unix_nano
            .wrapping_sub(span.start_time_unix_nano);
        self.start_time
            .set(row, Cell::Word(span.start_time_unix_nano));
        self.duration.set_word(row, duration);
        self.trace_id.set_id(row, &span.trace_id, options);
        self.span_id.set_id(row, &span.span_id, options);
        self.trace_state.set_text(row, &span.trace_state);
        self.parent_span_id
            .set_id(row, &span.parent_span_id, options);
        self.name.set_text(row, &span.name);
        self.kind.set_nonzero(row, span.kind.cast_unsigned().into());
        self.dropped_attributes
            .set_nonzero(row, span.dropped_attributes_count.into());
        self.dropped_events
            .set_nonzero(row, span.dropped_events_count.into());
        self.dropped_links
            .set_nonzero(row, span.dropped_links_count.into());
        self.flags.set_nonzero(row, span.flags.into());
        if let Some(status) = &span.status {
            self.status_code
                .set_nonzero(row, status.code.cast_unsigned().into());
            self.status_message.set_text(row, &status.message);
        }
    }

    fn finish(&mut self, rows: usize, options: &Options) -> Result<[Built; 17], ProduceError> {
        let [resource, scope, schema_url] = self.origins.finish(rows, options)?;
        let status = [
            self.status_code.finish(rows, options)?,
            self.status_message.finish(rows, options)?,
        ];
        Ok([
            self.id.finish(rows, options)?,
            resource,
            scope,
            schema_url,
            self.start_time.finish(rows, options)?,
            self.duration.finish(rows, options)?,
            self.trace_id.finish(rows, options)?,
            self.span_id.finish(rows, options)?,
            self.trace_state.finish(rows, options)?,
            self.parent_span_id.finish(rows, options)?,
            self.name.finish(rows, options)?,
            self.kind.finish(rows, options)?,
            self.dropped_attributes.finish(rows, options)?,
            self.dropped_events.finish(rows, options)?,
            self.dropped_links.finish(rows, options)?,
            self.flags.finish(rows, options)?,
            group("status", status, None)?,
        ])
    }
}

/// Whether something hangs on the span.
fn is_parent(span: &Span) -> bool {
    !(span.attributes.is_empty() && span.events.is_empty() && span.links.is_empty())
}

fn check(request: &ExportTraceServiceRequest) -> Result<(), ProduceError> {
    let resources = &request.resource_spans;
    let scopes = || resources.iter().flat_map(|resource| &resource.scope_spans);
    let spans = scopes().flat_map(|scope| &scope.spans);
    check_parents("resources", resources.len())?;
    check_parents("scopes", scopes().count())?;
    check_parents("spans", spans.filter(|span| is_parent(span)).count())
}
