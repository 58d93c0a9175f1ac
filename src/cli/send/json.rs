//! OTLP/JSON of Export requests, written straight into a buffer.
//!
//! Fields with their default value are left out, as SDKs do; ids are hexadecimal, 64-bit integers are strings, enums numbers.
//!
//! Source: the OTLP specification, "JSON Protobuf Encoding".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::logs::v1::LogRecord;
use crate::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use crate::proto::metrics::v1::metric::Data;
use crate::proto::metrics::v1::number_data_point::Value as Number;
use crate::proto::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    SummaryDataPoint, exemplar,
};
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::Span;
use crate::signal::Signal;

/// Appends the JSON of an Export request that is given as protobuf.
///
/// # Errors
/// When `request` is not an Export request of the signal.
pub(super) fn write(signal: Signal, request: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match signal {
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(request)?;
            object(out, |o| {
                o.array("resourceLogs", &request.resource_logs, |o, group| {
                    o.resource(group.resource.as_ref());
                    o.array("scopeLogs", &group.scope_logs, |o, group| {
                        o.scope(group.scope.as_ref());
                        o.array("logRecords", &group.log_records, log_record);
                        o.text("schemaUrl", &group.schema_url);
                    });
                    o.text("schemaUrl", &group.schema_url);
                });
            });
        }
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(request)?;
            object(out, |o| {
                o.array("resourceSpans", &request.resource_spans, |o, group| {
                    o.resource(group.resource.as_ref());
                    o.array("scopeSpans", &group.scope_spans, |o, group| {
                        o.scope(group.scope.as_ref());
                        o.array("spans", &group.spans, span);
                        o.text("schemaUrl", &group.schema_url);
                    });
                    o.text("schemaUrl", &group.schema_url);
                });
            });
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(request)?;
            object(out, |o| {
                o.array("resourceMetrics", &request.resource_metrics, |o, group| {
                    o.resource(group.resource.as_ref());
                    o.array("scopeMetrics", &group.scope_metrics, |o, group| {
                        o.scope(group.scope.as_ref());
                        o.array("metrics", &group.metrics, metric);
                        o.text("schemaUrl", &group.schema_url);
                    });
                    o.text("schemaUrl", &group.schema_url);
                });
            });
        }
    }
    Ok(())
}

fn log_record(o: &mut Object<'_>, record: &LogRecord) {
    o.u64("timeUnixNano", record.time_unix_nano);
    o.u64("observedTimeUnixNano", record.observed_time_unix_nano);
    o.i32("severityNumber", record.severity_number);
    o.text("severityText", &record.severity_text);
    if let Some(body) = &record.body {
        o.object("body", |o| any_value(o, body));
    }
    o.attributes("attributes", &record.attributes);
    o.u32("droppedAttributesCount", record.dropped_attributes_count);
    o.u32("flags", record.flags);
    o.hex("traceId", &record.trace_id);
    o.hex("spanId", &record.span_id);
    o.text("eventName", &record.event_name);
}

fn span(o: &mut Object<'_>, span: &Span) {
    o.hex("traceId", &span.trace_id);
    o.hex("spanId", &span.span_id);
    o.text("traceState", &span.trace_state);
    o.hex("parentSpanId", &span.parent_span_id);
    o.u32("flags", span.flags);
    o.text("name", &span.name);
    o.i32("kind", span.kind);
    o.u64("startTimeUnixNano", span.start_time_unix_nano);
    o.u64("endTimeUnixNano", span.end_time_unix_nano);
    o.attributes("attributes", &span.attributes);
    o.u32("droppedAttributesCount", span.dropped_attributes_count);
    o.array("events", &span.events, |o, event| {
        o.u64("timeUnixNano", event.time_unix_nano);
        o.text("name", &event.name);
        o.attributes("attributes", &event.attributes);
        o.u32("droppedAttributesCount", event.dropped_attributes_count);
    });
    o.u32("droppedEventsCount", span.dropped_events_count);
    o.array("links", &span.links, |o, link| {
        o.hex("traceId", &link.trace_id);
        o.hex("spanId", &link.span_id);
        o.text("traceState", &link.trace_state);
        o.attributes("attributes", &link.attributes);
        o.u32("droppedAttributesCount", link.dropped_attributes_count);
        o.u32("flags", link.flags);
    });
    o.u32("droppedLinksCount", span.dropped_links_count);
    if let Some(status) = &span.status {
        o.object("status", |o| {
            o.text("message", &status.message);
            o.i32("code", status.code);
        });
    }
}

fn metric(o: &mut Object<'_>, metric: &Metric) {
    o.text("name", &metric.name);
    o.text("description", &metric.description);
    o.text("unit", &metric.unit);
    o.attributes("metadata", &metric.metadata);
    match &metric.data {
        Some(Data::Gauge(gauge)) => o.object("gauge", |o| {
            o.array("dataPoints", &gauge.data_points, number_point);
        }),
        Some(Data::Sum(sum)) => o.object("sum", |o| {
            o.array("dataPoints", &sum.data_points, number_point);
            o.i32("aggregationTemporality", sum.aggregation_temporality);
            o.bool("isMonotonic", sum.is_monotonic);
        }),
        Some(Data::Histogram(histogram)) => o.object("histogram", |o| {
            o.array("dataPoints", &histogram.data_points, histogram_point);
            o.i32("aggregationTemporality", histogram.aggregation_temporality);
        }),
        Some(Data::ExponentialHistogram(histogram)) => o.object("exponentialHistogram", |o| {
            o.array("dataPoints", &histogram.data_points, exp_histogram_point);
            o.i32("aggregationTemporality", histogram.aggregation_temporality);
        }),
        Some(Data::Summary(summary)) => o.object("summary", |o| {
            o.array("dataPoints", &summary.data_points, summary_point);
        }),
        None => {}
    }
}

fn number_point(o: &mut Object<'_>, point: &NumberDataPoint) {
    o.attributes("attributes", &point.attributes);
    o.u64("startTimeUnixNano", point.start_time_unix_nano);
    o.u64("timeUnixNano", point.time_unix_nano);
    match point.value {
        Some(Number::AsDouble(number)) => o.f64("asDouble", number),
        Some(Number::AsInt(number)) => o.quoted("asInt", number),
        None => {}
    }
    o.array("exemplars", &point.exemplars, exemplar);
    o.u32("flags", point.flags);
}

fn histogram_point(o: &mut Object<'_>, point: &HistogramDataPoint) {
    o.attributes("attributes", &point.attributes);
    o.u64("startTimeUnixNano", point.start_time_unix_nano);
    o.u64("timeUnixNano", point.time_unix_nano);
    o.u64("count", point.count);
    o.optional_f64("sum", point.sum);
    o.list("bucketCounts", &point.bucket_counts, |out, &count| {
        put_quoted(out, count);
    });
    o.list("explicitBounds", &point.explicit_bounds, |out, &bound| {
        put_f64(out, bound);
    });
    o.array("exemplars", &point.exemplars, exemplar);
    o.u32("flags", point.flags);
    o.optional_f64("min", point.min);
    o.optional_f64("max", point.max);
}

fn exp_histogram_point(o: &mut Object<'_>, point: &ExponentialHistogramDataPoint) {
    o.attributes("attributes", &point.attributes);
    o.u64("startTimeUnixNano", point.start_time_unix_nano);
    o.u64("timeUnixNano", point.time_unix_nano);
    o.u64("count", point.count);
    o.optional_f64("sum", point.sum);
    o.i32("scale", point.scale);
    o.u64("zeroCount", point.zero_count);
    let buckets = |o: &mut Object<'_>, name, buckets: &Option<Buckets>| {
        if let Some(buckets) = buckets {
            o.object(name, |o| {
                o.i32("offset", buckets.offset);
                o.list("bucketCounts", &buckets.bucket_counts, |out, &count| {
                    put_quoted(out, count);
                });
            });
        }
    };
    buckets(o, "positive", &point.positive);
    buckets(o, "negative", &point.negative);
    o.u32("flags", point.flags);
    o.array("exemplars", &point.exemplars, exemplar);
    o.optional_f64("min", point.min);
    o.optional_f64("max", point.max);
    if point.zero_threshold != 0.0 {
        o.f64("zeroThreshold", point.zero_threshold);
    }
}

fn summary_point(o: &mut Object<'_>, point: &SummaryDataPoint) {
    o.attributes("attributes", &point.attributes);
    o.u64("startTimeUnixNano", point.start_time_unix_nano);
    o.u64("timeUnixNano", point.time_unix_nano);
    o.u64("count", point.count);
    o.f64("sum", point.sum);
    o.array("quantileValues", &point.quantile_values, |o, value| {
        o.f64("quantile", value.quantile);
        o.f64("value", value.value);
    });
    o.u32("flags", point.flags);
}

fn exemplar(o: &mut Object<'_>, exemplar: &Exemplar) {
    o.attributes("filteredAttributes", &exemplar.filtered_attributes);
    o.u64("timeUnixNano", exemplar.time_unix_nano);
    match exemplar.value {
        Some(exemplar::Value::AsDouble(number)) => o.f64("asDouble", number),
        Some(exemplar::Value::AsInt(number)) => o.quoted("asInt", number),
        None => {}
    }
    o.hex("spanId", &exemplar.span_id);
    o.hex("traceId", &exemplar.trace_id);
}

fn any_value(o: &mut Object<'_>, value: &AnyValue) {
    match &value.value {
        Some(Value::StringValue(text)) => {
            o.name("stringValue");
            put_text(o.out, text);
        }
        Some(Value::BoolValue(bool)) => {
            o.name("boolValue");
            o.out
                .extend_from_slice(if *bool { b"true" } else { b"false" });
        }
        Some(Value::IntValue(number)) => o.quoted("intValue", *number),
        Some(Value::DoubleValue(number)) => o.f64("doubleValue", *number),
        Some(Value::ArrayValue(array)) => o.object("arrayValue", |o| {
            o.array("values", &array.values, any_value);
        }),
        Some(Value::KvlistValue(list)) => o.object("kvlistValue", |o| {
            o.attributes("values", &list.values);
        }),
        Some(Value::BytesValue(bytes)) => {
            o.name("bytesValue");
            put_text(o.out, &BASE64.encode(bytes));
        }
        // An index into the tables of profiles, which logs, traces and metrics have not: there is nothing to say.
        Some(Value::StringValueStrindex(_)) | None => {}
    }
}

/// An object that is being written: commas are its business.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fields(&mut Object { out, empty: true });
    out.push(b'}');
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn object(&mut self, name: &str, fields: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        object(self.out, fields);
    }

    fn list<T>(&mut self, name: &str, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
        if items.is_empty() {
            return;
        }
        self.name(name);
        self.out.push(b'[');
        for (place, value) in items.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            item(self.out, value);
        }
        self.out.push(b']');
    }

    fn array<T>(&mut self, name: &str, items: &[T], item: impl Fn(&mut Object<'_>, &T)) {
        self.list(name, items, |out, value| object(out, |o| item(o, value)));
    }

    fn attributes(&mut self, name: &str, attributes: &[KeyValue]) {
        self.array(name, attributes, |o, attribute| {
            o.name("key");
            put_text(o.out, &attribute.key);
            if let Some(value) = &attribute.value {
                o.object("value", |o| any_value(o, value));
            }
        });
    }

    fn resource(&mut self, resource: Option<&Resource>) {
        if let Some(resource) = resource {
            self.object("resource", |o| {
                o.attributes("attributes", &resource.attributes);
                o.u32("droppedAttributesCount", resource.dropped_attributes_count);
            });
        }
    }

    fn scope(&mut self, scope: Option<&InstrumentationScope>) {
        if let Some(scope) = scope {
            self.object("scope", |o| {
                o.text("name", &scope.name);
                o.text("version", &scope.version);
                o.attributes("attributes", &scope.attributes);
                o.u32("droppedAttributesCount", scope.dropped_attributes_count);
            });
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            put_text(self.out, text);
        }
    }

    fn hex(&mut self, name: &str, bytes: &Bytes) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if !bytes.is_empty() {
            self.name(name);
            self.out.push(b'"');
            for byte in bytes {
                let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
                self.out.extend_from_slice(&digits);
            }
            self.out.push(b'"');
        }
    }

    fn quoted(&mut self, name: &str, number: impl itoa::Integer) {
        self.name(name);
        put_quoted(self.out, number);
    }

    fn u64(&mut self, name: &str, number: u64) {
        if number != 0 {
            self.quoted(name, number);
        }
    }

    fn u32(&mut self, name: &str, number: u32) {
        if number != 0 {
            self.name(name);
            put_integer(self.out, number);
        }
    }

    fn i32(&mut self, name: &str, number: i32) {
        if number != 0 {
            self.name(name);
            put_integer(self.out, number);
        }
    }

    fn bool(&mut self, name: &str, bool: bool) {
        if bool {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    fn f64(&mut self, name: &str, number: f64) {
        self.name(name);
        put_f64(self.out, number);
    }

    fn optional_f64(&mut self, name: &str, number: Option<f64>) {
        if let Some(number) = number {
            self.f64(name, number);
        }
    }
}

fn put_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn put_quoted(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.push(b'"');
    put_integer(out, number);
    out.push(b'"');
}

/// Numbers that JSON cannot write are OTLP's words for them.
fn put_f64(out: &mut Vec<u8>, number: f64) {
    let text: &[u8] = if number.is_nan() {
        b"\"NaN\""
    } else if number == f64::INFINITY {
        b"\"Infinity\""
    } else if number == f64::NEG_INFINITY {
        b"\"-Infinity\""
    } else {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
        return;
    };
    out.extend_from_slice(text);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text).expect("text can be written to memory");
}

#[cfg(test)]
mod tests;
