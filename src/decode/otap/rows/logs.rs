//! The tables of log records: LOGS and LOG_ATTRS.

use arrow::datatypes::{Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type};

use super::arrays::{Identifiers, Numbers, Texts};
use super::attributes::Attributes;
use super::columns::Columns;
use super::columns_of;
use super::context::Contexts;
use super::groups::Index;
use super::ids;
use super::values::{Kind, Values};
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::memory::Reservation;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{JsonText, LogFields, LogRows, Rows};

pub(super) fn rows(
    tables: &Tables,
    received_unix_nano: i64,
    reservation: Reservation,
) -> Result<Rows, DecodeError> {
    let mut rows = LogRows::new(received_unix_nano, reservation);
    let root = columns_of(tables, ArrowPayloadType::Logs)?;
    if root.rows() > 0 {
        let mut logs = Logs::new(tables, &root)?;
        rows.expect(root.rows());
        for row in 0..root.rows() {
            logs.contexts.advance(row, &mut rows)?;
            rows.push(&logs.record(row)?)?;
        }
    }
    Ok(rows.finish()?)
}

/// The attribute that names a record's event where it has no name itself.
const EVENT_NAME: &str = "event.name";

#[derive(Debug)]
struct Logs<'a> {
    contexts: Contexts<'a>,
    time: Numbers<'a, TimestampNanosecondType>,
    observed_time: Numbers<'a, TimestampNanosecondType>,
    trace_id: Identifiers<'a>,
    span_id: Identifiers<'a>,
    severity_number: Numbers<'a, Int32Type>,
    severity_text: Texts<'a>,
    event_name: Texts<'a>,
    dropped: Numbers<'a, UInt32Type>,
    flags: Numbers<'a, UInt32Type>,
    body: Values<'a>,
    body_json: JsonText,
    attributes: Attributes<'a>,
    has_event_names: bool,
}

impl<'a> Logs<'a> {
    fn new(tables: &'a Tables, root: &Columns<'a>) -> Result<Logs<'a>, DecodeError> {
        let body = root.structure("body")?;
        if root.find("body").is_some() {
            body.require(&["type"])?;
        }
        let index = Index::new(&ids::own::<UInt16Type>(root, "id")?);
        let attributes = Attributes::of_u16(tables, ArrowPayloadType::LogAttrs, &index)?;
        Ok(Logs {
            contexts: Contexts::new(tables, root)?,
            time: root.times("time_unix_nano")?,
            observed_time: root.times("observed_time_unix_nano")?,
            trace_id: root.identifiers("trace_id", 16)?,
            span_id: root.identifiers("span_id", 8)?,
            severity_number: root.numbers("severity_number")?,
            severity_text: root.texts("severity_text")?,
            event_name: root.texts("event_name")?,
            dropped: root.numbers("dropped_attributes_count")?,
            flags: root.numbers("flags")?,
            body: Values::new(&body)?,
            body_json: JsonText::new(),
            has_event_names: attributes.has_key(EVENT_NAME),
            attributes,
        })
    }

    fn record(&mut self, row: usize) -> Result<LogFields<'_>, DecodeError> {
        self.attributes.select(row);
        let event_name = match self.event_name.or_default(row) {
            "" if self.has_event_names => self.attributes.string(EVENT_NAME)?,
            name => name,
        };
        // A string body as it is, every other kind as attributes are written, an empty one as nothing.
        let body = match self.body.kind(row)? {
            Kind::Empty => "",
            Kind::Text => self.body.text(row)?.unwrap_or_default(),
            _ => {
                self.body_json.clear();
                self.body.write(&mut self.body_json, row)?;
                match self.body_json.as_str() {
                    "null" => "",
                    text => text,
                }
            }
        };
        Ok(LogFields {
            time_unix_nano: self.time.unix_nano(row),
            observed_time_unix_nano: self.observed_time.unix_nano(row),
            trace_id: self.trace_id.or_default(row),
            span_id: self.span_id.or_default(row),
            severity_number: self.severity_number.or_zero(row),
            severity_text: self.severity_text.or_default(row),
            event_name,
            body,
            attributes: self.attributes.write()?,
            dropped_attributes_count: self.dropped.or_zero(row),
            flags: self.flags.or_zero(row),
        })
    }
}
