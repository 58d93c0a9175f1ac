//! Log records of OTLP/JSON.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};

use super::Source;
use super::groups::Target;
use super::read::{Field, Message, ReadMessage};
use super::scalar::Id;
use super::value::{Entries, Value, last, read_entries, read_value, write_entries};
use crate::memory::MemoryError;
use crate::rows::{JsonText, LogFields, LogRows, ResourceFields, Rows, ScopeFields};

/// Feeds log records into their builder.
pub(super) struct LogTarget<'a> {
    rows: LogRows,
    entries: Entries<'a>,
    attributes: JsonText,
    body: JsonText,
}

impl LogTarget<'_> {
    pub(super) fn new(rows: LogRows) -> Self {
        LogTarget {
            rows,
            entries: Entries::new(),
            attributes: JsonText::new(),
            body: JsonText::new(),
        }
    }
}

impl<'a> Target<'a> for LogTarget<'a> {
    const RESOURCES: [&'static str; 2] = ["resourceLogs", "resource_logs"];
    const SCOPES: [&'static str; 2] = ["scopeLogs", "scope_logs"];
    const RECORDS: [&'static str; 2] = ["logRecords", "log_records"];

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
        self.entries.clear();
        let mut record = LogRecord::new(source, &mut self.entries);
        match records.next_element_seed(ReadMessage(&mut record))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => {}
        }
        let LogRecord {
            fields,
            ids,
            texts,
            body,
            ..
        } = record;
        write_entries(&mut self.entries, &mut self.attributes);
        let [severity_text, event_name] = &texts;
        let event_name = match (&**event_name, last(&self.entries, "event.name")) {
            ("", Some(Value::Text(name))) => name,
            (name, _) => name,
        };
        let [trace_id, span_id] = &ids;
        self.rows
            .push(&LogFields {
                trace_id: trace_id.as_bytes(),
                span_id: span_id.as_bytes(),
                severity_text,
                event_name,
                body: body.text(&mut self.body),
                attributes: self.attributes.as_str(),
                ..fields
            })
            .map_err(|error| source.abort(error.into()))?;
        Ok(true)
    }

    fn finish(self) -> Result<Rows, MemoryError> {
        self.rows.finish()
    }
}

struct LogRecord<'s, 'a> {
    source: &'s Source<'a>,
    entries: &'s mut Entries<'a>,
    /// The numbers of the record.
    fields: LogFields<'static>,
    /// Trace and span.
    ids: [Id; 2],
    /// Severity and event name.
    texts: [Cow<'a, str>; 2],
    body: Value<'a>,
}

impl<'s, 'a> LogRecord<'s, 'a> {
    fn new(source: &'s Source<'a>, entries: &'s mut Entries<'a>) -> LogRecord<'s, 'a> {
        LogRecord {
            source,
            entries,
            fields: LogFields::default(),
            ids: Default::default(),
            texts: Default::default(),
            body: Value::Empty,
        }
    }
}

impl<'a> Message<'a> for LogRecord<'_, 'a> {
    const EXPECTED: &'static str = "a log record object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let fields = &mut self.fields;
        let [trace_id, span_id] = &mut self.ids;
        let [severity_text, event_name] = &mut self.texts;
        match name {
            "timeUnixNano" | "time_unix_nano" => fields.time_unix_nano = field.int()?,
            "observedTimeUnixNano" | "observed_time_unix_nano" => {
                fields.observed_time_unix_nano = field.int()?;
            }
            "severityNumber" | "severity_number" => {
                fields.severity_number = field.enumeration(severity_number)?;
            }
            "severityText" | "severity_text" => *severity_text = field.text()?,
            "body" => self.body = read_value(field, self.source)?,
            "attributes" => read_entries(field, self.source, self.entries)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                fields.dropped_attributes_count = field.int()?;
            }
            "flags" => fields.flags = field.int()?,
            "traceId" | "trace_id" => *trace_id = field.id()?,
            "spanId" | "span_id" => *span_id = field.id()?,
            "eventName" | "event_name" => *event_name = field.text()?,
            _ => field.skip()?,
        }
        Ok(())
    }
}

/// The number of a `SeverityNumber`: `SEVERITY_NUMBER_INFO` is 9, and each level has three more above it.
fn severity_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SEVERITY_NUMBER_")?;
    if name == "UNSPECIFIED" {
        return Some(0);
    }
    let (level, above) = match name.as_bytes() {
        [level @ .., b'2'] => (level, 1),
        [level @ .., b'3'] => (level, 2),
        [level @ .., b'4'] => (level, 3),
        level => (level, 0),
    };
    let base = match level {
        b"TRACE" => 1,
        b"DEBUG" => 5,
        b"INFO" => 9,
        b"WARN" => 13,
        b"ERROR" => 17,
        b"FATAL" => 21,
        _ => return None,
    };
    Some(base + above)
}
