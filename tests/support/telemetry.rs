//! Telemetry made up for tests.

use bytes::Bytes;
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use otlake::proto::collector::trace::v1::ExportTraceServiceRequest;
use otlake::proto::common::v1::{AnyValue, KeyValue, any_value};
use otlake::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};

/// A moment of 2026, Unix nanoseconds.
pub const TIME: u64 = 1_770_000_000_000_000_000;

pub fn text(value: impl Into<String>) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(value.into())),
    }
}

pub fn attribute(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    }
}

pub fn log(body: impl Into<String>) -> LogRecord {
    LogRecord {
        time_unix_nano: TIME,
        body: Some(text(body)),
        ..LogRecord::default()
    }
}

/// One request with these records under one resource.
pub fn logs(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    logs_of(vec![attribute("service.name", "test")], records)
}

/// One request with these records under a resource with these attributes.
pub fn logs_of(attributes: Vec<KeyValue>, records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

/// A span that breaks no rule.
pub fn span(number: u8) -> Span {
    Span {
        trace_id: Bytes::from(vec![number; 16]),
        span_id: Bytes::from(vec![number; 8]),
        name: format!("span {number}"),
        start_time_unix_nano: TIME,
        end_time_unix_nano: TIME + 1_000,
        ..Span::default()
    }
}

/// One request with these spans.
pub fn spans(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}
