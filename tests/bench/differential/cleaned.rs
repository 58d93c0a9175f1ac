//! Random requests without what the two decoders mean to treat differently.

use std::collections::BTreeSet;

use bytes::Bytes;
use otlake::proto::common::v1::any_value::Value;
use otlake::proto::common::v1::{AnyValue, KeyValue};
use otlake::proto::logs::v1::LogRecord;
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::Span;

use crate::otlp::Export;

/// A time that everyone can hold, Unix nanoseconds.
const TIME: u64 = 1_750_000_000_000_000_000;

/// Deeper values are beyond the limit of prost, with which otlp2records reads.
const DEPTH_MAX: usize = 16;

pub fn cleaned(mut export: Export) -> Export {
    match &mut export {
        Export::Logs(request) => {
            for group in &mut request.resource_logs {
                resource(group.resource.as_mut());
                for group in &mut group.scope_logs {
                    if let Some(scope) = &mut group.scope {
                        attributes(&mut scope.attributes);
                    }
                    group.log_records.iter_mut().for_each(log_record);
                }
            }
        }
        Export::Traces(request) => {
            for group in &mut request.resource_spans {
                resource(group.resource.as_mut());
                for group in &mut group.scope_spans {
                    if let Some(scope) = &mut group.scope {
                        attributes(&mut scope.attributes);
                    }
                    group.spans.iter_mut().for_each(span);
                }
            }
        }
        Export::Metrics(_) => {}
    }
    export
}

fn resource(resource: Option<&mut Resource>) {
    if let Some(resource) = resource {
        attributes(&mut resource.attributes);
    }
}

fn log_record(record: &mut LogRecord) {
    time(&mut record.time_unix_nano);
    time(&mut record.observed_time_unix_nano);
    optional_id(&mut record.trace_id, 16);
    optional_id(&mut record.span_id, 8);
    attributes(&mut record.attributes);
    let mut keys = record.attributes.iter().map(|entry| &entry.key);
    if record.event_name.is_empty() && keys.any(|key| key == "event.name") {
        // Else ours is named by the attribute.
        record.event_name = "named".to_owned();
    }
    if let Some(body) = &mut record.body {
        value(body, 0);
    }
}

fn span(span: &mut Span) {
    time(&mut span.start_time_unix_nano);
    if span.start_time_unix_nano == 0 {
        span.start_time_unix_nano = TIME;
    }
    span.end_time_unix_nano = span
        .end_time_unix_nano
        .clamp(span.start_time_unix_nano, i64::MAX as u64 - 1);
    needed_id(&mut span.trace_id, 16);
    needed_id(&mut span.span_id, 8);
    optional_id(&mut span.parent_span_id, 8);
    attributes(&mut span.attributes);
    for event in &mut span.events {
        time(&mut event.time_unix_nano);
        attributes(&mut event.attributes);
    }
    for link in &mut span.links {
        optional_id(&mut link.trace_id, 16);
        optional_id(&mut link.span_id, 8);
        attributes(&mut link.attributes);
    }
}

fn time(time: &mut u64) {
    if *time >= i64::MAX as u64 {
        *time = TIME;
    }
}

fn optional_id(id: &mut Bytes, len: usize) {
    if id.len() != len {
        *id = Bytes::new();
    }
}

fn needed_id(id: &mut Bytes, len: usize) {
    if id.len() != len || id.iter().all(|byte| *byte == 0) {
        *id = vec![7; len].into();
    }
}

/// Attributes of a record, an event, a scope or a resource.
fn attributes(attributes: &mut Vec<KeyValue>) {
    entries(attributes, 0);
}

fn entries(attributes: &mut Vec<KeyValue>, depth: usize) {
    let mut keys = BTreeSet::new();
    attributes.retain(|entry| keys.insert(entry.key.clone()));
    for entry in attributes {
        value(entry.value.get_or_insert_default(), depth);
    }
}

fn value(any: &mut AnyValue, depth: usize) {
    match &mut any.value {
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) if depth == DEPTH_MAX => {
            any.value = Some(Value::BoolValue(true));
        }
        None => any.value = Some(Value::IntValue(1)),
        Some(Value::BytesValue(bytes)) => {
            let text = format!("{} bytes", bytes.len());
            any.value = Some(Value::StringValue(text));
        }
        Some(Value::DoubleValue(double)) if !double.is_finite() => *double = 0.25,
        Some(Value::ArrayValue(list)) => {
            let values = list.values.iter_mut();
            values.for_each(|any| value(any, depth + 1));
        }
        Some(Value::KvlistValue(map)) => entries(&mut map.values, depth + 1),
        Some(_) => {}
    }
}
