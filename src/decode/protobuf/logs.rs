//! OTLP `logs.proto`: `LogRecord`.

use super::SignalDecoder;
use super::attributes::Attributes;
use super::value::{string_value, write_value};
use super::wire::Fields;
use crate::decode::DecodeError;
use crate::rows::{JsonText, LogFields, LogRows, ResourceFields, ScopeFields};

pub(super) struct Decoder<'a, 'r> {
    rows: &'r mut LogRows,
    attributes: Attributes<'a>,
    body: JsonText,
}

impl<'r> Decoder<'_, 'r> {
    pub(super) fn new(rows: &'r mut LogRows) -> Self {
        Decoder {
            rows,
            attributes: Attributes::default(),
            body: JsonText::new(),
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
        self.body.clear();
        let mut log = LogFields::default();
        let mut body = None;
        let mut fields = Fields::new(record);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => log.time_unix_nano = value.fixed64()?,
                2 => log.severity_number = value.int32()?,
                3 => log.severity_text = value.text()?,
                5 => body = Some(value.bytes()?),
                6 => self.attributes.push(value.bytes()?)?,
                7 => log.dropped_attributes_count = value.uint32()?,
                8 => log.flags = value.fixed32()?,
                9 => log.trace_id = value.bytes()?,
                10 => log.span_id = value.bytes()?,
                11 => log.observed_time_unix_nano = value.fixed64()?,
                12 => log.event_name = value.text()?,
                _ => {}
            }
        }
        if log.event_name.is_empty() {
            log.event_name = self.attributes.string("event.name")?;
        }
        if let Some(body) = body {
            log.body = body_text(body, &mut self.body)?;
        }
        log.attributes = self.attributes.write()?;
        Ok(self.rows.push(&log)?)
    }
}

/// A string body as it is, every other kind as attributes are written, an unset one as nothing.
fn body_text<'t>(any_value: &'t [u8], json: &'t mut JsonText) -> Result<&'t str, DecodeError> {
    if any_value.is_empty() {
        return Ok("");
    }
    if let Some(text) = string_value(any_value)? {
        return Ok(text);
    }
    write_value(json, any_value, 0)?;
    Ok(match json.as_str() {
        "null" => "",
        text => text,
    })
}
