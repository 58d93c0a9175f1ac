//! OTLP requests as tests build them: prost messages, and their OTLP/JSON. [`super::otlp_send`] sends either.
//!
//! The JSON is written here from the specification ("JSON Protobuf Encoding") and not with the crate's own code, so that
//! it can bear witness against it: hex ids, 64-bit integers as strings, base64, absent fields left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use otlake::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use otlake::proto::collector::trace::v1::ExportTraceServiceRequest;
use otlake::proto::common::v1::any_value::Value as Any;
use otlake::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use otlake::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, SummaryDataPoint, exemplar, exponential_histogram_data_point,
    number_data_point,
};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use otlake::signal::Signal;
use prost::Message;
use serde_json::{Value, json};

/// An export request of any signal.
#[derive(Clone, Debug, PartialEq)]
pub enum Export {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Export {
    /// Log records of one resource and scope.
    pub fn logs(resource: Resource, scope: InstrumentationScope, records: Vec<LogRecord>) -> Self {
        Export::Logs(ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope),
                    log_records: records,
                    schema_url: "https://schema.test/scope".into(),
                }],
                schema_url: "https://schema.test/resource".into(),
            }],
        })
    }

    /// Spans of one resource and scope.
    pub fn spans(resource: Resource, scope: InstrumentationScope, spans: Vec<Span>) -> Self {
        Export::Traces(ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    schema_url: "https://schema.test/scope".into(),
                }],
                schema_url: "https://schema.test/resource".into(),
            }],
        })
    }

    /// Metrics of one resource and scope.
    pub fn metrics(resource: Resource, scope: InstrumentationScope, metrics: Vec<Metric>) -> Self {
        Export::Metrics(ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope),
                    metrics,
                    schema_url: "https://schema.test/scope".into(),
                }],
                schema_url: "https://schema.test/resource".into(),
            }],
        })
    }

    pub fn signal(&self) -> Signal {
        match self {
            Export::Logs(_) => Signal::Logs,
            Export::Traces(_) => Signal::Traces,
            Export::Metrics(_) => Signal::Metrics,
        }
    }

    /// The path of OTLP/HTTP.
    pub fn path(&self) -> String {
        format!("/v1/{}", self.signal())
    }

    pub fn to_protobuf(&self) -> Bytes {
        match self {
            Export::Logs(request) => request.encode_to_vec(),
            Export::Traces(request) => request.encode_to_vec(),
            Export::Metrics(request) => request.encode_to_vec(),
        }
        .into()
    }

    pub fn to_json(&self) -> Value {
        match self {
            Export::Logs(request) => {
                json!({"resourceLogs": list(&request.resource_logs, resource_logs)})
            }
            Export::Traces(request) => {
                json!({"resourceSpans": list(&request.resource_spans, resource_spans)})
            }
            Export::Metrics(request) => {
                json!({"resourceMetrics": list(&request.resource_metrics, resource_metrics)})
            }
        }
    }

    /// One request a line, one line a resource.
    pub fn to_ndjson(&self) -> String {
        let lines: Vec<String> = match self {
            Export::Logs(request) => lines(&request.resource_logs, "resourceLogs", resource_logs),
            Export::Traces(request) => {
                lines(&request.resource_spans, "resourceSpans", resource_spans)
            }
            Export::Metrics(request) => lines(
                &request.resource_metrics,
                "resourceMetrics",
                resource_metrics,
            ),
        };
        lines.join("\n")
    }

    /// Adds an attribute to every resource.
    pub fn mark(&self, key: &str, value: &str) -> Export {
        let mut marked = self.clone();
        let add = |resource: &mut Option<Resource>| {
            let attributes = &mut resource.get_or_insert_default().attributes;
            attributes.push(kv(key, text(value)));
        };
        match &mut marked {
            Export::Logs(request) => {
                let groups = request.resource_logs.iter_mut();
                groups.for_each(|group| add(&mut group.resource));
            }
            Export::Traces(request) => {
                let groups = request.resource_spans.iter_mut();
                groups.for_each(|group| add(&mut group.resource));
            }
            Export::Metrics(request) => {
                let groups = request.resource_metrics.iter_mut();
                groups.for_each(|group| add(&mut group.resource));
            }
        }
        marked
    }

    /// The request that these bytes are.
    pub fn from_protobuf(signal: Signal, body: &[u8]) -> Result<Export, prost::DecodeError> {
        Ok(match signal {
            Signal::Logs => Export::Logs(Message::decode(body)?),
            Signal::Traces => Export::Traces(Message::decode(body)?),
            Signal::Metrics => Export::Metrics(Message::decode(body)?),
        })
    }

    /// Records of the request, whether they become rows or are refused.
    pub fn records(&self) -> u64 {
        let points = |data: &Data| match data {
            Data::Gauge(data) => data.data_points.len(),
            Data::Sum(data) => data.data_points.len(),
            Data::Histogram(data) => data.data_points.len(),
            Data::ExponentialHistogram(data) => data.data_points.len(),
            Data::Summary(data) => data.data_points.len(),
        };
        let count: usize = match self {
            Export::Logs(request) => {
                let groups = &request.resource_logs;
                let scopes = groups.iter().flat_map(|group| &group.scope_logs);
                scopes.map(|group| group.log_records.len()).sum()
            }
            Export::Traces(request) => {
                let groups = &request.resource_spans;
                let scopes = groups.iter().flat_map(|group| &group.scope_spans);
                scopes.map(|group| group.spans.len()).sum()
            }
            Export::Metrics(request) => {
                let groups = &request.resource_metrics;
                let scopes = groups.iter().flat_map(|group| &group.scope_metrics);
                let metrics = scopes.flat_map(|group| &group.metrics);
                let data = metrics.filter_map(|metric| metric.data.as_ref());
                data.map(points).sum()
            }
        };
        count as u64
    }
}

pub fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

pub fn text(value: &str) -> Option<AnyValue> {
    any(Any::StringValue(value.to_owned()))
}

pub fn int(value: i64) -> Option<AnyValue> {
    any(Any::IntValue(value))
}

pub fn double(value: f64) -> Option<AnyValue> {
    any(Any::DoubleValue(value))
}

pub fn boolean(value: bool) -> Option<AnyValue> {
    any(Any::BoolValue(value))
}

pub fn bytes(value: &'static [u8]) -> Option<AnyValue> {
    any(Any::BytesValue(Bytes::from_static(value)))
}

/// A value that is there and empty.
pub fn empty() -> Option<AnyValue> {
    Some(AnyValue { value: None })
}

pub fn array(values: impl IntoIterator<Item = Option<AnyValue>>) -> Option<AnyValue> {
    let values = values.into_iter().map(Option::unwrap_or_default).collect();
    any(Any::ArrayValue(ArrayValue { values }))
}

pub fn map(values: Vec<KeyValue>) -> Option<AnyValue> {
    any(Any::KvlistValue(KeyValueList { values }))
}

pub fn kv(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

/// A resource with these attributes.
pub fn resource(attributes: Vec<KeyValue>) -> Resource {
    Resource {
        attributes,
        ..Resource::default()
    }
}

/// A metric of this name and data.
pub fn metric(name: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// An id of so many bytes that counts up from `first`.
pub fn id(len: u8, first: u8) -> Bytes {
    (0..len)
        .map(|place| first.wrapping_add(place))
        .collect::<Vec<u8>>()
        .into()
}

fn lines<T>(groups: &[T], name: &str, group: impl Fn(&T) -> Value) -> Vec<String> {
    let line = |item: &T| json!({name: [group(item)]}).to_string();
    groups.iter().map(line).collect()
}

fn list<T>(items: &[T], item: impl Fn(&T) -> Value) -> Value {
    items.iter().map(item).collect()
}

/// An object of the fields that are not at proto3's default.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let is_default = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let fields = fields.into_iter().filter(|(_, value)| !is_default(value));
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn hex(id: &Bytes) -> Value {
    id.iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}

/// A 64-bit integer.
fn long(value: impl ToString) -> Value {
    value.to_string().into()
}

fn float(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn any_value(value: &AnyValue) -> Value {
    match &value.value {
        None => json!({}),
        Some(Any::StringValue(text)) => json!({"stringValue": text}),
        Some(Any::BoolValue(value)) => json!({"boolValue": value}),
        Some(Any::IntValue(value)) => json!({"intValue": long(value)}),
        Some(Any::DoubleValue(value)) => json!({"doubleValue": float(*value)}),
        Some(Any::BytesValue(bytes)) => json!({"bytesValue": STANDARD.encode(bytes)}),
        Some(Any::ArrayValue(array)) => {
            json!({"arrayValue": {"values": list(&array.values, any_value)}})
        }
        Some(Any::KvlistValue(map)) => {
            json!({"kvlistValue": {"values": list(&map.values, key_value)}})
        }
        // A reference into a dictionary that only profiles have.
        Some(Any::StringValueStrindex(index)) => json!({"stringValueStrindex": index}),
    }
}

fn key_value(entry: &KeyValue) -> Value {
    object([
        ("key", entry.key.clone().into()),
        ("value", entry.value.as_ref().map_or(Value::Null, any_value)),
    ])
}

fn optional<T>(message: &Option<T>, to_json: impl Fn(&T) -> Value) -> Value {
    message.as_ref().map_or(Value::Null, to_json)
}

fn resource_json(resource: &Resource) -> Value {
    object([
        ("attributes", list(&resource.attributes, key_value)),
        (
            "droppedAttributesCount",
            resource.dropped_attributes_count.into(),
        ),
    ])
}

fn scope_json(scope: &InstrumentationScope) -> Value {
    object([
        ("name", scope.name.clone().into()),
        ("version", scope.version.clone().into()),
        ("attributes", list(&scope.attributes, key_value)),
        (
            "droppedAttributesCount",
            scope.dropped_attributes_count.into(),
        ),
    ])
}

fn resource_logs(group: &ResourceLogs) -> Value {
    object([
        ("resource", optional(&group.resource, resource_json)),
        ("scopeLogs", list(&group.scope_logs, scope_logs)),
        ("schemaUrl", group.schema_url.clone().into()),
    ])
}

fn scope_logs(group: &ScopeLogs) -> Value {
    object([
        ("scope", optional(&group.scope, scope_json)),
        ("logRecords", list(&group.log_records, log_record)),
        ("schemaUrl", group.schema_url.clone().into()),
    ])
}

fn log_record(log: &LogRecord) -> Value {
    object([
        ("timeUnixNano", long(log.time_unix_nano)),
        ("observedTimeUnixNano", long(log.observed_time_unix_nano)),
        ("severityNumber", log.severity_number.into()),
        ("severityText", log.severity_text.clone().into()),
        ("body", optional(&log.body, any_value)),
        ("attributes", list(&log.attributes, key_value)),
        (
            "droppedAttributesCount",
            log.dropped_attributes_count.into(),
        ),
        ("flags", log.flags.into()),
        ("traceId", hex(&log.trace_id)),
        ("spanId", hex(&log.span_id)),
        ("eventName", log.event_name.clone().into()),
    ])
}

fn resource_spans(group: &ResourceSpans) -> Value {
    object([
        ("resource", optional(&group.resource, resource_json)),
        ("scopeSpans", list(&group.scope_spans, scope_spans)),
        ("schemaUrl", group.schema_url.clone().into()),
    ])
}

fn scope_spans(group: &ScopeSpans) -> Value {
    object([
        ("scope", optional(&group.scope, scope_json)),
        ("spans", list(&group.spans, span_json)),
        ("schemaUrl", group.schema_url.clone().into()),
    ])
}

fn span_json(span: &Span) -> Value {
    let status = span.status.as_ref();
    object([
        ("traceId", hex(&span.trace_id)),
        ("spanId", hex(&span.span_id)),
        ("traceState", span.trace_state.clone().into()),
        ("parentSpanId", hex(&span.parent_span_id)),
        ("flags", span.flags.into()),
        ("name", span.name.clone().into()),
        ("kind", span.kind.into()),
        ("startTimeUnixNano", long(span.start_time_unix_nano)),
        ("endTimeUnixNano", long(span.end_time_unix_nano)),
        ("attributes", list(&span.attributes, key_value)),
        (
            "droppedAttributesCount",
            span.dropped_attributes_count.into(),
        ),
        ("events", list(&span.events, event)),
        ("droppedEventsCount", span.dropped_events_count.into()),
        ("links", list(&span.links, link)),
        ("droppedLinksCount", span.dropped_links_count.into()),
        (
            "status",
            status.map_or(Value::Null, |status| {
                object([
                    ("message", status.message.clone().into()),
                    ("code", status.code.into()),
                ])
            }),
        ),
    ])
}

fn event(event: &span::Event) -> Value {
    object([
        ("timeUnixNano", long(event.time_unix_nano)),
        ("name", event.name.clone().into()),
        ("attributes", list(&event.attributes, key_value)),
        (
            "droppedAttributesCount",
            event.dropped_attributes_count.into(),
        ),
    ])
}

fn link(link: &span::Link) -> Value {
    object([
        ("traceId", hex(&link.trace_id)),
        ("spanId", hex(&link.span_id)),
        ("traceState", link.trace_state.clone().into()),
        ("attributes", list(&link.attributes, key_value)),
        (
            "droppedAttributesCount",
            link.dropped_attributes_count.into(),
        ),
        ("flags", link.flags.into()),
    ])
}

fn resource_metrics(group: &ResourceMetrics) -> Value {
    object([
        ("resource", optional(&group.resource, resource_json)),
        ("scopeMetrics", list(&group.scope_metrics, scope_metrics)),
        ("schemaUrl", group.schema_url.clone().into()),
    ])
}

fn scope_metrics(group: &ScopeMetrics) -> Value {
    object([
        ("scope", optional(&group.scope, scope_json)),
        ("metrics", list(&group.metrics, metric_json)),
        ("schemaUrl", group.schema_url.clone().into()),
    ])
}

fn metric_json(metric: &Metric) -> Value {
    let (kind, data) = match &metric.data {
        None => ("gauge", Value::Null),
        Some(Data::Gauge(data)) => (
            "gauge",
            json!({"dataPoints": list(&data.data_points, number_point)}),
        ),
        Some(Data::Sum(data)) => (
            "sum",
            json!({
                "dataPoints": list(&data.data_points, number_point),
                "aggregationTemporality": data.aggregation_temporality,
                "isMonotonic": data.is_monotonic,
            }),
        ),
        Some(Data::Histogram(data)) => (
            "histogram",
            json!({
                "dataPoints": list(&data.data_points, histogram_point),
                "aggregationTemporality": data.aggregation_temporality,
            }),
        ),
        Some(Data::ExponentialHistogram(data)) => (
            "exponentialHistogram",
            json!({
                "dataPoints": list(&data.data_points, exp_histogram_point),
                "aggregationTemporality": data.aggregation_temporality,
            }),
        ),
        Some(Data::Summary(data)) => (
            "summary",
            json!({"dataPoints": list(&data.data_points, summary_point)}),
        ),
    };
    object([
        ("name", metric.name.clone().into()),
        ("description", metric.description.clone().into()),
        ("unit", metric.unit.clone().into()),
        (kind, data),
        ("metadata", list(&metric.metadata, key_value)),
    ])
}

fn number_point(point: &NumberDataPoint) -> Value {
    let mut json = object([
        ("attributes", list(&point.attributes, key_value)),
        ("startTimeUnixNano", long(point.start_time_unix_nano)),
        ("timeUnixNano", long(point.time_unix_nano)),
        ("exemplars", list(&point.exemplars, exemplar_json)),
        ("flags", point.flags.into()),
    ]);
    match point.value {
        None => {}
        Some(number_data_point::Value::AsInt(value)) => json["asInt"] = long(value),
        Some(number_data_point::Value::AsDouble(value)) => json["asDouble"] = float(value),
    }
    json
}

fn exemplar_json(exemplar: &Exemplar) -> Value {
    let mut json = object([
        (
            "filteredAttributes",
            list(&exemplar.filtered_attributes, key_value),
        ),
        ("timeUnixNano", long(exemplar.time_unix_nano)),
        ("spanId", hex(&exemplar.span_id)),
        ("traceId", hex(&exemplar.trace_id)),
    ]);
    match exemplar.value {
        None => {}
        Some(exemplar::Value::AsInt(value)) => json["asInt"] = long(value),
        Some(exemplar::Value::AsDouble(value)) => json["asDouble"] = float(value),
    }
    json
}

/// Sets the optional doubles that are there, zeros too.
fn set_doubles(json: &mut Value, fields: [(&str, Option<f64>); 3]) {
    for (name, value) in fields {
        if let Some(value) = value {
            json[name] = float(value);
        }
    }
}

fn histogram_point(point: &HistogramDataPoint) -> Value {
    let mut json = object([
        ("attributes", list(&point.attributes, key_value)),
        ("startTimeUnixNano", long(point.start_time_unix_nano)),
        ("timeUnixNano", long(point.time_unix_nano)),
        ("count", long(point.count)),
        (
            "bucketCounts",
            list(&point.bucket_counts, |count| long(count)),
        ),
        (
            "explicitBounds",
            list(&point.explicit_bounds, |bound| float(*bound)),
        ),
        ("exemplars", list(&point.exemplars, exemplar_json)),
        ("flags", point.flags.into()),
    ]);
    let optional = [("sum", point.sum), ("min", point.min), ("max", point.max)];
    set_doubles(&mut json, optional);
    json
}

fn buckets(buckets: &exponential_histogram_data_point::Buckets) -> Value {
    object([
        ("offset", buckets.offset.into()),
        (
            "bucketCounts",
            list(&buckets.bucket_counts, |count| long(count)),
        ),
    ])
}

fn exp_histogram_point(point: &ExponentialHistogramDataPoint) -> Value {
    let mut json = object([
        ("attributes", list(&point.attributes, key_value)),
        ("startTimeUnixNano", long(point.start_time_unix_nano)),
        ("timeUnixNano", long(point.time_unix_nano)),
        ("count", long(point.count)),
        ("scale", point.scale.into()),
        ("zeroCount", long(point.zero_count)),
        ("zeroThreshold", float(point.zero_threshold)),
        ("positive", optional(&point.positive, buckets)),
        ("negative", optional(&point.negative, buckets)),
        ("exemplars", list(&point.exemplars, exemplar_json)),
        ("flags", point.flags.into()),
    ]);
    let optional = [("sum", point.sum), ("min", point.min), ("max", point.max)];
    set_doubles(&mut json, optional);
    json
}

fn summary_point(point: &SummaryDataPoint) -> Value {
    let quantiles = list(
        &point.quantile_values,
        |at| json!({"quantile": float(at.quantile), "value": float(at.value)}),
    );
    object([
        ("attributes", list(&point.attributes, key_value)),
        ("startTimeUnixNano", long(point.start_time_unix_nano)),
        ("timeUnixNano", long(point.time_unix_nano)),
        ("count", long(point.count)),
        ("sum", float(point.sum)),
        ("quantileValues", quantiles),
        ("flags", point.flags.into()),
    ])
}
