//! Events, links and exemplars: lists inside a record, kept as one JSON text each.
//!
//! Zero counts, unset times, empty objects and absent or invalid ids are left out; an empty list is null.

use super::json::JsonText;
use super::{NumberValue, is_id};

/// One event of a span (OTLP `trace.proto`, `Span.Event`).
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFields<'a> {
    /// Unix nanoseconds; 0 when unset.
    pub time_unix_nano: u64,
    /// The event's name.
    pub name: &'a str,
    /// Attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// Attributes its sender dropped.
    pub dropped_attributes_count: u32,
}

/// One link of a span (OTLP `trace.proto`, `Span.Link`).
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkFields<'a> {
    /// 16 bytes.
    pub trace_id: &'a [u8],
    /// 8 bytes.
    pub span_id: &'a [u8],
    /// W3C trace state.
    pub trace_state: &'a str,
    /// Attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// Attributes its sender dropped.
    pub dropped_attributes_count: u32,
    /// W3C trace flags and more.
    pub flags: u32,
}

/// One exemplar of a data point (OTLP `metrics.proto`, `Exemplar`).
#[derive(Clone, Copy, Debug, Default)]
pub struct ExemplarFields<'a> {
    /// Unix nanoseconds; 0 when unset.
    pub time_unix_nano: u64,
    /// The measured value; an int stays an int.
    pub value: NumberValue,
    /// 16 bytes, or empty.
    pub trace_id: &'a [u8],
    /// 8 bytes, or empty.
    pub span_id: &'a [u8],
    /// Filtered attributes as one JSON object; empty when there are none.
    pub filtered_attributes: &'a str,
}

/// Writes the members of one object, with the commas between them.
struct Members<'a> {
    json: &'a mut JsonText,
    first: bool,
}

impl<'a> Members<'a> {
    /// Opens an object inside a list: the list's bracket or comma comes first.
    fn open(json: &'a mut JsonText) -> Members<'a> {
        json.raw(if json.is_empty() { "[{" } else { ",{" });
        Members { json, first: true }
    }

    /// Begins a member: `start` is the comma before it, its key and the colon.
    fn member(&mut self, start: &'static str) -> &mut JsonText {
        let start = match self.first {
            true => start.get(1..).unwrap_or_default(),
            false => start,
        };
        self.json.raw(start);
        self.first = false;
        self.json
    }

    fn uint(&mut self, start: &'static str, value: u64) {
        if value != 0 {
            self.member(start).uint(value);
        }
    }

    fn object(&mut self, start: &'static str, object: &str) {
        if !object.is_empty() {
            self.member(start).raw(object);
        }
    }

    fn close(self) {
        self.json.raw("}");
    }
}

impl JsonText {
    /// Appends an event to a list under construction (see [`JsonText::end_list`]).
    pub fn push_event(&mut self, event: &EventFields<'_>) {
        let mut members = Members::open(self);
        members.uint(r#","time_unix_nano":"#, event.time_unix_nano);
        members.member(r#","name":"#).string(event.name);
        members.object(r#","attributes":"#, event.attributes);
        members.uint(
            r#","dropped_attributes_count":"#,
            event.dropped_attributes_count.into(),
        );
        members.close();
    }

    /// Appends a link to a list under construction (see [`JsonText::end_list`]).
    pub fn push_link(&mut self, link: &LinkFields<'_>) {
        let mut members = Members::open(self);
        if is_id::<16>(link.trace_id) {
            members.member(r#","trace_id":"#).hex(link.trace_id);
        }
        if is_id::<8>(link.span_id) {
            members.member(r#","span_id":"#).hex(link.span_id);
        }
        if !link.trace_state.is_empty() {
            members
                .member(r#","trace_state":"#)
                .string(link.trace_state);
        }
        members.object(r#","attributes":"#, link.attributes);
        members.uint(
            r#","dropped_attributes_count":"#,
            link.dropped_attributes_count.into(),
        );
        members.uint(r#","flags":"#, link.flags.into());
        members.close();
    }

    /// Appends an exemplar to a list under construction (see [`JsonText::end_list`]).
    pub fn push_exemplar(&mut self, exemplar: &ExemplarFields<'_>) {
        let mut members = Members::open(self);
        members.uint(r#","time_unix_nano":"#, exemplar.time_unix_nano);
        match exemplar.value {
            NumberValue::None => {}
            NumberValue::Int(value) => members.member(r#","value":"#).int(value),
            NumberValue::Double(value) => members.member(r#","value":"#).double(value),
        }
        if is_id::<16>(exemplar.trace_id) {
            members.member(r#","trace_id":"#).hex(exemplar.trace_id);
        }
        if is_id::<8>(exemplar.span_id) {
            members.member(r#","span_id":"#).hex(exemplar.span_id);
        }
        members.object(r#","filtered_attributes":"#, exemplar.filtered_attributes);
        members.close();
    }

    /// Ends a list of events, links or exemplars; a list without items stays empty, which the builders store as null.
    pub fn end_list(&mut self) {
        if !self.is_empty() {
            self.raw("]");
        }
    }
}
