//! OTLP `trace.proto`: `Span` with its events, links and status.

use super::SignalDecoder;
use super::attributes::Attributes;
use super::wire::Fields;
use crate::decode::DecodeError;
use crate::rows::{
    EventFields, JsonText, LinkFields, ResourceFields, ScopeFields, SpanFields, TraceRows,
};

pub(super) struct Decoder<'a, 'r> {
    rows: &'r mut TraceRows,
    attributes: Attributes<'a>,
    nested: Attributes<'a>,
    events: JsonText,
    links: JsonText,
}

impl<'r> Decoder<'_, 'r> {
    pub(super) fn new(rows: &'r mut TraceRows) -> Self {
        Decoder {
            rows,
            attributes: Attributes::default(),
            nested: Attributes::default(),
            events: JsonText::new(),
            links: JsonText::new(),
        }
    }
}

impl<'a> SignalDecoder<'a> for Decoder<'a, '_> {
    fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.rows.set_resource(resource);
    }

    fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.rows.set_scope(scope);
    }

    fn expect(&mut self, records: usize) {
        self.rows.expect(records);
    }

    fn record(&mut self, record: &'a [u8]) -> Result<(), DecodeError> {
        self.attributes.clear();
        self.events.clear();
        self.links.clear();
        let mut span = SpanFields::default();
        let mut fields = Fields::new(record);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => span.trace_id = value.bytes()?,
                2 => span.span_id = value.bytes()?,
                3 => span.trace_state = value.text()?,
                4 => span.parent_span_id = value.bytes()?,
                5 => span.name = value.text()?,
                6 => span.kind = value.int32()?,
                7 => span.start_time_unix_nano = value.fixed64()?,
                8 => span.end_time_unix_nano = value.fixed64()?,
                9 => self.attributes.push(value.bytes()?)?,
                10 => span.dropped_attributes_count = value.uint32()?,
                11 => event(value.bytes()?, &mut self.nested, &mut self.events)?,
                12 => span.dropped_events_count = value.uint32()?,
                13 => link(value.bytes()?, &mut self.nested, &mut self.links)?,
                14 => span.dropped_links_count = value.uint32()?,
                15 => status(value.bytes()?, &mut span)?,
                16 => span.flags = value.fixed32()?,
                _ => {}
            }
        }
        self.events.end_list();
        self.links.end_list();
        span.events_json = self.events.as_str();
        span.links_json = self.links.as_str();
        span.attributes = self.attributes.write()?;
        Ok(self.rows.push(&span)?)
    }
}

fn status<'a>(status: &'a [u8], span: &mut SpanFields<'a>) -> Result<(), DecodeError> {
    let mut fields = Fields::new(status);
    while let Some((number, value)) = fields.next()? {
        match number {
            2 => span.status_message = value.text()?,
            3 => span.status_code = value.int32()?,
            _ => {}
        }
    }
    Ok(())
}

fn event<'a>(
    message: &'a [u8],
    attributes: &mut Attributes<'a>,
    events: &mut JsonText,
) -> Result<(), DecodeError> {
    attributes.clear();
    let mut event = EventFields::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => event.time_unix_nano = value.fixed64()?,
            2 => event.name = value.text()?,
            3 => attributes.push(value.bytes()?)?,
            4 => event.dropped_attributes_count = value.uint32()?,
            _ => {}
        }
    }
    event.attributes = attributes.write()?;
    events.push_event(&event);
    Ok(())
}

fn link<'a>(
    message: &'a [u8],
    attributes: &mut Attributes<'a>,
    links: &mut JsonText,
) -> Result<(), DecodeError> {
    attributes.clear();
    let mut link = LinkFields::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => link.trace_id = value.bytes()?,
            2 => link.span_id = value.bytes()?,
            3 => link.trace_state = value.text()?,
            4 => attributes.push(value.bytes()?)?,
            5 => link.dropped_attributes_count = value.uint32()?,
            6 => link.flags = value.fixed32()?,
            _ => {}
        }
    }
    link.attributes = attributes.write()?;
    links.push_link(&link);
    Ok(())
}
