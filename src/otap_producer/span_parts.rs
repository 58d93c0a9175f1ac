//! What hangs on spans: SPAN_EVENTS and SPAN_LINKS with their attributes.

use arrow::datatypes::{DataType, TimeUnit};

use super::ProduceError;
use super::attributes::{AttributeTable, Attributes};
use super::column::{Cell, Column};
use super::ids::IdColumn;
use super::options::Options;
use super::stream::{Session, Stream};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::trace::v1::span::{Event, Link};

/// The events of a batch with their parents and names, until they can be sorted.
pub(super) type Events<'a> = Vec<(u32, Cell<'a>, &'a Event)>;

/// The links of a batch with their parents and trace ids, until they can be sorted.
pub(super) type Links<'a> = Vec<(u32, Option<Cell<'a>>, &'a Link)>;

/// The table of events, and that of their attributes.
pub(super) struct EventTable {
    stream: Stream,
    id: IdColumn,
    parent: IdColumn,
    time: Column,
    name: Column,
    dropped: Column,
    attributes: AttributeTable,
}

impl EventTable {
    pub(super) fn new(options: &Options) -> EventTable {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        EventTable {
            stream: Stream::new(ArrowPayloadType::SpanEvents),
            id: IdColumn::delta("id", DataType::UInt32, options),
            parent: IdColumn::quasi_delta(DataType::UInt16, options),
            time: Column::new("time_unix_nano", timestamp),
            name: Column::new("name", DataType::Utf8)
                .dictionary(options)
                .required(),
            dropped: Column::new("dropped_attributes_count", DataType::UInt32),
            attributes: AttributeTable::wide(ArrowPayloadType::SpanEventAttrs, options),
        }
    }

    /// Adds a span's events to those of the batch.
    pub(super) fn add<'a>(&mut self, events: &mut Events<'a>, parent: u32, added: &'a [Event]) {
        let named = added
            .iter()
            .map(|event| (parent, self.name.bytes(event.name.as_bytes()), event));
        events.extend(named);
    }

    /// Writes the batch's events, sorted by name and parent, and their attributes.
    pub(super) fn finish(
        &mut self,
        mut events: Events<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        // By the name itself: a dictionary's keys are others on another stream, where the same request has to be the same rows.
        events.sort_by_key(|(parent, _, event)| (event.name.as_str(), *parent));
        let mut attributes = Attributes::default();
        let mut next_id = 0;
        let mut before = None;
        for (row, (parent, name, event)) in events.iter().enumerate() {
            if !event.attributes.is_empty() {
                self.id.set(row, next_id, true);
                self.attributes
                    .add(&mut attributes, next_id, &event.attributes);
                next_id += 1;
            }
            self.parent.set(row, *parent, before == Some(name));
            self.time.set_nonzero(row, event.time_unix_nano);
            self.name.set(row, *name);
            self.dropped
                .set_nonzero(row, event.dropped_attributes_count.into());
            before = Some(name);
        }
        let (rows, options) = (events.len(), &session.options);
        let columns = [
            self.id.finish(rows, options)?,
            self.parent.finish(rows, options)?,
            self.time.finish(rows, options)?,
            self.name.finish(rows, options)?,
            self.dropped.finish(rows, options)?,
        ];
        self.stream.write(columns, rows, session)?;
        self.attributes.finish(&attributes, session)
    }
}

/// The table of links, and that of their attributes.
pub(super) struct LinkTable {
    stream: Stream,
    id: IdColumn,
    parent: IdColumn,
    trace_id: Column,
    span_id: Column,
    trace_state: Column,
    dropped: Column,
    flags: Column,
    attributes: AttributeTable,
}

impl LinkTable {
    pub(super) fn new(options: &Options) -> LinkTable {
        let dictionary = |name, data_type| Column::new(name, data_type).dictionary(options);
        LinkTable {
            stream: Stream::new(ArrowPayloadType::SpanLinks),
            id: IdColumn::delta("id", DataType::UInt32, options),
            parent: IdColumn::quasi_delta(DataType::UInt16, options),
            trace_id: dictionary("trace_id", DataType::FixedSizeBinary(16)),
            span_id: dictionary("span_id", DataType::FixedSizeBinary(8)),
            trace_state: dictionary("trace_state", DataType::Utf8),
            dropped: Column::new("dropped_attributes_count", DataType::UInt32),
            flags: Column::new("flags", DataType::UInt32),
            attributes: AttributeTable::wide(ArrowPayloadType::SpanLinkAttrs, options),
        }
    }

    /// Adds a span's links to those of the batch.
    pub(super) fn add<'a>(
        &mut self,
        links: &mut Links<'a>,
        parent: u32,
        added: &'a [Link],
        options: &Options,
    ) {
        let named = added.iter().map(|link| {
            let trace_id = self.trace_id.id(&link.trace_id, options);
            (parent, trace_id, link)
        });
        links.extend(named);
    }

    /// Writes the batch's links, sorted by trace and parent, and their attributes.
    pub(super) fn finish(
        &mut self,
        mut links: Links<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        // By the id itself, as events by the name.
        links.sort_by_key(|(parent, _, link)| (&*link.trace_id, *parent));
        let mut attributes = Attributes::default();
        let mut next_id = 0;
        let mut before = None;
        for (row, (parent, trace_id, link)) in links.iter().enumerate() {
            if !link.attributes.is_empty() {
                self.id.set(row, next_id, true);
                self.attributes
                    .add(&mut attributes, next_id, &link.attributes);
                next_id += 1;
            }
            // No trace is the same as no trace, unlike among attributes.
            self.parent.set(row, *parent, before == Some(trace_id));
            if let Some(cell) = trace_id {
                self.trace_id.set(row, *cell);
            }
            self.span_id.set_id(row, &link.span_id, &session.options);
            self.trace_state.set_text(row, &link.trace_state);
            self.dropped
                .set_nonzero(row, link.dropped_attributes_count.into());
            self.flags.set_nonzero(row, link.flags.into());
            before = Some(trace_id);
        }
        let (rows, options) = (links.len(), &session.options);
        let columns = [
            self.id.finish(rows, options)?,
            self.parent.finish(rows, options)?,
            self.trace_id.finish(rows, options)?,
            self.span_id.finish(rows, options)?,
            self.trace_state.finish(rows, options)?,
            self.dropped.finish(rows, options)?,
            self.flags.finish(rows, options)?,
        ];
        self.stream.write(columns, rows, session)?;
        self.attributes.finish(&attributes, session)
    }
}
