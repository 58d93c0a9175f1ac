//! The tables of spans: SPANS, SPAN_ATTRS, and events and links with their attributes.

use arrow::datatypes::{
    DurationNanosecondType, Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type,
};

use super::arrays::{Identifiers, Numbers, Texts};
use super::attributes::Attributes;
use super::columns::Columns;
use super::context::Contexts;
use super::groups::{Groups, Index};
use super::ids::{self, Parents};
use super::{check_text, columns_of};
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::memory::Reservation;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{EventFields, JsonText, LinkFields, Rows, SpanFields, TraceRows};

pub(super) fn rows(tables: &Tables, reservation: Reservation) -> Result<Rows, DecodeError> {
    let mut rows = TraceRows::new(reservation);
    let root = columns_of(tables, ArrowPayloadType::Spans)?;
    if root.rows() > 0 {
        let mut spans = Spans::new(tables, &root)?;
        rows.expect(root.rows());
        for row in 0..root.rows() {
            spans.contexts.advance(row, &mut rows)?;
            rows.push(&spans.span(row)?)?;
        }
    }
    Ok(rows.finish()?)
}

#[derive(Debug)]
struct Spans<'a> {
    contexts: Contexts<'a>,
    start_time: Numbers<'a, TimestampNanosecondType>,
    duration: Numbers<'a, DurationNanosecondType>,
    trace_id: Identifiers<'a>,
    span_id: Identifiers<'a>,
    parent_span_id: Identifiers<'a>,
    trace_state: Texts<'a>,
    name: Texts<'a>,
    kind: Numbers<'a, Int32Type>,
    status_code: Numbers<'a, Int32Type>,
    status_message: Texts<'a>,
    dropped_attributes: Numbers<'a, UInt32Type>,
    dropped_events: Numbers<'a, UInt32Type>,
    dropped_links: Numbers<'a, UInt32Type>,
    flags: Numbers<'a, UInt32Type>,
    attributes: Attributes<'a>,
    events: Events<'a>,
    links: Links<'a>,
}

impl<'a> Spans<'a> {
    fn new(tables: &'a Tables, root: &Columns<'a>) -> Result<Spans<'a>, DecodeError> {
        root.require(&[
            "start_time_unix_nano",
            "duration_time_unix_nano",
            "trace_id",
            "span_id",
            "name",
        ])?;
        let status = root.structure("status")?;
        let index = Index::new(&ids::own::<UInt16Type>(root, "id")?);
        Ok(Spans {
            contexts: Contexts::new(tables, root)?,
            start_time: root.times("start_time_unix_nano")?,
            duration: root.durations("duration_time_unix_nano")?,
            trace_id: root.identifiers("trace_id", 16)?,
            span_id: root.identifiers("span_id", 8)?,
            parent_span_id: root.identifiers("parent_span_id", 8)?,
            trace_state: root.texts("trace_state")?,
            name: root.texts("name")?,
            kind: root.numbers("kind")?,
            status_code: status.numbers("code")?,
            status_message: status.texts("status_message")?,
            dropped_attributes: root.numbers("dropped_attributes_count")?,
            dropped_events: root.numbers("dropped_events_count")?,
            dropped_links: root.numbers("dropped_links_count")?,
            flags: root.numbers("flags")?,
            attributes: Attributes::of_u16(tables, ArrowPayloadType::SpanAttrs, &index)?,
            events: Events::new(tables, &index)?,
            links: Links::new(tables, &index)?,
        })
    }

    fn span(&mut self, row: usize) -> Result<SpanFields<'_>, DecodeError> {
        self.attributes.select(row);
        let start = self.start_time.unix_nano(row);
        // An end before the epoch or beyond 64 signed bits wraps to a time out of range, which the builder refuses.
        let end = start.wrapping_add_signed(self.duration.or_zero(row));
        Ok(SpanFields {
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            trace_id: self.trace_id.or_default(row),
            span_id: self.span_id.or_default(row),
            parent_span_id: self.parent_span_id.or_default(row),
            trace_state: self.trace_state.or_default(row),
            name: self.name.or_default(row),
            kind: self.kind.or_zero(row),
            status_code: self.status_code.or_zero(row),
            status_message: self.status_message.or_default(row),
            attributes: self.attributes.write()?,
            events_json: self.events.list(row)?,
            links_json: self.links.list(row)?,
            dropped_attributes_count: self.dropped_attributes.or_zero(row),
            dropped_events_count: self.dropped_events.or_zero(row),
            dropped_links_count: self.dropped_links.or_zero(row),
            flags: self.flags.or_zero(row),
        })
    }
}

/// SPAN_EVENTS and SPAN_EVENT_ATTRS.
#[derive(Debug)]
struct Events<'a> {
    groups: Groups,
    time: Numbers<'a, TimestampNanosecondType>,
    name: Texts<'a>,
    dropped: Numbers<'a, UInt32Type>,
    attributes: Attributes<'a>,
    json: JsonText,
}

impl<'a> Events<'a> {
    fn new(tables: &'a Tables, spans: &Index) -> Result<Events<'a>, DecodeError> {
        let columns = columns_of(tables, ArrowPayloadType::SpanEvents)?;
        columns.require(&["name"])?;
        let name = columns.texts("name")?;
        let parents = Parents::<UInt16Type>::new(&columns)?;
        let parents = parents.quasi_delta(|row| name.same(row, row - 1))?;
        let index = Index::new(&ids::own::<UInt32Type>(&columns, "id")?);
        Ok(Events {
            groups: Groups::new(&columns, parents, spans)?,
            time: columns.times("time_unix_nano")?,
            name,
            dropped: columns.numbers("dropped_attributes_count")?,
            attributes: Attributes::of_u32(tables, ArrowPayloadType::SpanEventAttrs, &index)?,
            json: JsonText::new(),
        })
    }

    /// The events of a span as one JSON list; empty when there are none.
    fn list(&mut self, span: usize) -> Result<&str, DecodeError> {
        self.json.clear();
        for row in self.groups.of(span) {
            let row = *row as usize;
            self.attributes.select(row);
            self.json.push_event(&EventFields {
                time_unix_nano: self.time.unix_nano(row),
                name: self.name.or_default(row),
                attributes: self.attributes.write()?,
                dropped_attributes_count: self.dropped.or_zero(row),
            });
            check_text(self.json.len())?;
        }
        self.json.end_list();
        Ok(self.json.as_str())
    }
}

/// SPAN_LINKS and SPAN_LINK_ATTRS.
#[derive(Debug)]
struct Links<'a> {
    groups: Groups,
    trace_id: Identifiers<'a>,
    span_id: Identifiers<'a>,
    trace_state: Texts<'a>,
    dropped: Numbers<'a, UInt32Type>,
    flags: Numbers<'a, UInt32Type>,
    attributes: Attributes<'a>,
    json: JsonText,
}

impl<'a> Links<'a> {
    fn new(tables: &'a Tables, spans: &Index) -> Result<Links<'a>, DecodeError> {
        let columns = columns_of(tables, ArrowPayloadType::SpanLinks)?;
        let trace_id = columns.identifiers("trace_id", 16)?;
        let parents = Parents::<UInt16Type>::new(&columns)?;
        let parents = parents.quasi_delta(|row| trace_id.same(row, row - 1))?;
        let index = Index::new(&ids::own::<UInt32Type>(&columns, "id")?);
        Ok(Links {
            groups: Groups::new(&columns, parents, spans)?,
            trace_id,
            span_id: columns.identifiers("span_id", 8)?,
            trace_state: columns.texts("trace_state")?,
            dropped: columns.numbers("dropped_attributes_count")?,
            flags: columns.numbers("flags")?,
            attributes: Attributes::of_u32(tables, ArrowPayloadType::SpanLinkAttrs, &index)?,
            json: JsonText::new(),
        })
    }

    /// The links of a span as one JSON list; empty when there are none.
    fn list(&mut self, span: usize) -> Result<&str, DecodeError> {
        self.json.clear();
        for row in self.groups.of(span) {
            let row = *row as usize;
            self.attributes.select(row);
            self.json.push_link(&LinkFields {
                trace_id: self.trace_id.or_default(row),
                span_id: self.span_id.or_default(row),
                trace_state: self.trace_state.or_default(row),
                attributes: self.attributes.write()?,
                dropped_attributes_count: self.dropped.or_zero(row),
                flags: self.flags.or_zero(row),
            });
            check_text(self.json.len())?;
        }
        self.json.end_list();
        Ok(self.json.as_str())
    }
}
