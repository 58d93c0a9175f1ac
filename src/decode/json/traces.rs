//! Spans of OTLP/JSON, with their events and links.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};

use super::Source;
use super::groups::Target;
use super::read::{Field, List, Message, ReadMessage};
use super::scalar::Id;
use super::value::{Entries, read_attributes};
use crate::memory::MemoryError;
use crate::rows::{
    EventFields, JsonText, LinkFields, ResourceFields, Rows, ScopeFields, SpanFields, TraceRows,
};

/// Feeds spans into their builder.
pub(super) struct TraceTarget<'a> {
    rows: TraceRows,
    scratch: Scratch<'a>,
}

/// Memory reused from span to span.
#[derive(Default)]
struct Scratch<'a> {
    entries: Entries<'a>,
    attributes: JsonText,
    events: JsonText,
    links: JsonText,
    /// The attributes of one event or link.
    item_attributes: JsonText,
}

impl TraceTarget<'_> {
    pub(super) fn new(rows: TraceRows) -> Self {
        TraceTarget {
            rows,
            scratch: Scratch::default(),
        }
    }
}

impl<'a> Target<'a> for TraceTarget<'a> {
    const RESOURCES: [&'static str; 2] = ["resourceSpans", "resource_spans"];
    const SCOPES: [&'static str; 2] = ["scopeSpans", "scope_spans"];
    const RECORDS: [&'static str; 2] = ["spans", "spans"];

    fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.rows.set_resource(resource);
    }

    fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.rows.set_scope(scope);
    }

    fn next<A: SeqAccess<'a>>(
        &mut self,
        source: &Source<'a>,
        records: &mut A,
    ) -> Result<bool, A::Error> {
        let mut span = Span::new(source, &mut self.scratch);
        match records.next_element_seed(ReadMessage(&mut span))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => {}
        }
        let Span {
            fields, ids, texts, ..
        } = span;
        let [trace_id, span_id, parent_span_id] = &ids;
        let [trace_state, name, status_message] = &texts;
        self.rows
            .push(&SpanFields {
                trace_id: trace_id.as_bytes(),
                span_id: span_id.as_bytes(),
                parent_span_id: parent_span_id.as_bytes(),
                trace_state,
                name,
                status_message,
                attributes: self.scratch.attributes.as_str(),
                events_json: self.scratch.events.as_str(),
                links_json: self.scratch.links.as_str(),
                ..fields
            })
            .map_err(|error| source.abort(error.into()))?;
        Ok(true)
    }

    fn finish(self) -> Result<Rows, MemoryError> {
        self.rows.finish()
    }
}

struct Span<'s, 'a> {
    source: &'s Source<'a>,
    scratch: &'s mut Scratch<'a>,
    /// The numbers of the span.
    fields: SpanFields<'static>,
    /// Trace, span and parent span.
    ids: [Id; 3],
    /// Trace state, name and status message.
    texts: [Cow<'a, str>; 3],
}

impl<'s, 'a> Span<'s, 'a> {
    fn new(source: &'s Source<'a>, scratch: &'s mut Scratch<'a>) -> Span<'s, 'a> {
        scratch.attributes.clear();
        scratch.events.clear();
        scratch.links.clear();
        Span {
            source,
            scratch,
            fields: SpanFields::default(),
            ids: Default::default(),
            texts: Default::default(),
        }
    }

    /// Reads the events or links into their text, in place of what was there.
    fn read_items<A: MapAccess<'a>>(
        &mut self,
        field: Field<'_, 'a, A>,
        kind: ItemKind,
    ) -> Result<(), A::Error> {
        let Scratch {
            entries,
            events,
            links,
            item_attributes: attributes,
            ..
        } = &mut *self.scratch;
        let list = match kind {
            ItemKind::Event => events,
            ItemKind::Link => links,
        };
        list.clear();
        field.list(&mut Items {
            source: self.source,
            kind,
            list,
            entries,
            attributes,
        })?;
        match kind {
            ItemKind::Event => self.scratch.events.end_list(),
            ItemKind::Link => self.scratch.links.end_list(),
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Span<'_, 'a> {
    const EXPECTED: &'static str = "a span object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let fields = &mut self.fields;
        let [trace_id, span_id, parent_span_id] = &mut self.ids;
        let [trace_state, span_name, _] = &mut self.texts;
        match name {
            "traceId" | "trace_id" => *trace_id = field.id()?,
            "spanId" | "span_id" => *span_id = field.id()?,
            "parentSpanId" | "parent_span_id" => *parent_span_id = field.id()?,
            "traceState" | "trace_state" => *trace_state = field.text()?,
            "flags" => fields.flags = field.int()?,
            "name" => *span_name = field.text()?,
            "kind" => fields.kind = field.enumeration(kind)?,
            "startTimeUnixNano" | "start_time_unix_nano" => {
                fields.start_time_unix_nano = field.int()?;
            }
            "endTimeUnixNano" | "end_time_unix_nano" => fields.end_time_unix_nano = field.int()?,
            "attributes" => {
                let Scratch {
                    entries,
                    attributes,
                    ..
                } = &mut *self.scratch;
                read_attributes(field, self.source, entries, attributes)?;
            }
            "droppedAttributesCount" | "dropped_attributes_count" => {
                fields.dropped_attributes_count = field.int()?;
            }
            "events" => self.read_items(field, ItemKind::Event)?,
            "droppedEventsCount" | "dropped_events_count" => {
                fields.dropped_events_count = field.int()?;
            }
            "links" => self.read_items(field, ItemKind::Link)?,
            "droppedLinksCount" | "dropped_links_count" => {
                fields.dropped_links_count = field.int()?;
            }
            "status" => {
                field.message(&mut Status(self))?;
            }
            _ => field.skip()?,
        }
        Ok(())
    }
}

struct Status<'x, 's, 'a>(&'x mut Span<'s, 'a>);

impl<'a> Message<'a> for Status<'_, '_, 'a> {
    const EXPECTED: &'static str = "a status object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let [_, _, message] = &mut self.0.texts;
        match name {
            "message" => *message = field.text()?,
            "code" => self.0.fields.status_code = field.enumeration(status_code)?,
            _ => field.skip()?,
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Event,
    Link,
}

/// The events or the links of a span.
struct Items<'s, 'a> {
    source: &'s Source<'a>,
    kind: ItemKind,
    list: &'s mut JsonText,
    entries: &'s mut Entries<'a>,
    attributes: &'s mut JsonText,
}

impl<'a> List<'a> for Items<'_, 'a> {
    const EXPECTED: &'static str = "a list of events or links";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        self.attributes.clear();
        let mut item = Item {
            source: self.source,
            kind: self.kind,
            entries: self.entries,
            attributes: self.attributes,
            fields: LinkFields::default(),
            time_unix_nano: 0,
            ids: Default::default(),
            text: Cow::default(),
        };
        match items.next_element_seed(ReadMessage(&mut item))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => self.source.count_part()?,
        }
        let [trace_id, span_id] = &item.ids;
        match self.kind {
            ItemKind::Event => self.list.push_event(&EventFields {
                time_unix_nano: item.time_unix_nano,
                name: &item.text,
                attributes: item.attributes.as_str(),
                dropped_attributes_count: item.fields.dropped_attributes_count,
            }),
            ItemKind::Link => self.list.push_link(&LinkFields {
                trace_id: trace_id.as_bytes(),
                span_id: span_id.as_bytes(),
                trace_state: &item.text,
                attributes: item.attributes.as_str(),
                ..item.fields
            }),
        }
        Ok(true)
    }
}

/// A `Span.Event` or a `Span.Link`.
struct Item<'s, 'a> {
    source: &'s Source<'a>,
    kind: ItemKind,
    entries: &'s mut Entries<'a>,
    attributes: &'s mut JsonText,
    fields: LinkFields<'static>,
    time_unix_nano: u64,
    /// Trace and span.
    ids: [Id; 2],
    /// An event's name, or a link's trace state.
    text: Cow<'a, str>,
}

impl<'a> Message<'a> for Item<'_, 'a> {
    const EXPECTED: &'static str = "an event or link object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let [trace_id, span_id] = &mut self.ids;
        match (self.kind, name) {
            (_, "attributes") => {
                read_attributes(field, self.source, self.entries, self.attributes)?;
            }
            (_, "droppedAttributesCount" | "dropped_attributes_count") => {
                self.fields.dropped_attributes_count = field.int()?;
            }
            (ItemKind::Event, "name") => self.text = field.text()?,
            (ItemKind::Event, "timeUnixNano" | "time_unix_nano") => {
                self.time_unix_nano = field.int()?;
            }
            (ItemKind::Link, "traceId" | "trace_id") => *trace_id = field.id()?,
            (ItemKind::Link, "spanId" | "span_id") => *span_id = field.id()?,
            (ItemKind::Link, "traceState" | "trace_state") => self.text = field.text()?,
            (ItemKind::Link, "flags") => self.fields.flags = field.int()?,
            _ => field.skip()?,
        }
        Ok(())
    }
}

fn kind(name: &str) -> Option<i32> {
    Some(match name {
        "SPAN_KIND_UNSPECIFIED" => 0,
        "SPAN_KIND_INTERNAL" => 1,
        "SPAN_KIND_SERVER" => 2,
        "SPAN_KIND_CLIENT" => 3,
        "SPAN_KIND_PRODUCER" => 4,
        "SPAN_KIND_CONSUMER" => 5,
        _ => return None,
    })
}

fn status_code(name: &str) -> Option<i32> {
    Some(match name {
        "STATUS_CODE_UNSET" => 0,
        "STATUS_CODE_OK" => 1,
        "STATUS_CODE_ERROR" => 2,
        _ => return None,
    })
}
