use bytes::BytesMut;
use serde_json::{Value as Json, json};

use super::super::generate::{Catalog, Encoder, Plan};
use super::*;
use crate::proto::common::v1::{ArrayValue, KeyValueList};
use crate::proto::logs::v1::{ResourceLogs, ScopeLogs};

const NOW: u64 = 1_760_000_000_000_000_000;

fn to_json(signal: Signal, request: &[u8]) -> Json {
    let mut out = Vec::new();
    write(signal, request, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// Scenario: a log record with every kind of value, and text that needs escapes.
/// Guarantees: the document is what the specification says, field by field.
#[test]
fn every_kind_of_value_is_written_as_specified() {
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    };
    let record = LogRecord {
        time_unix_nano: u64::MAX,
        severity_number: 9,
        body: Some(any(Value::StringValue("say \"hi\"\n\u{1}é".to_owned()))),
        attributes: vec![
            attribute("int", Value::IntValue(i64::MIN)),
            attribute("double", Value::DoubleValue(0.1)),
            attribute("nan", Value::DoubleValue(f64::NAN)),
            attribute("infinity", Value::DoubleValue(f64::NEG_INFINITY)),
            attribute("bool", Value::BoolValue(false)),
            attribute("bytes", Value::BytesValue(Bytes::from_static(&[0, 255]))),
            attribute(
                "list",
                Value::ArrayValue(ArrayValue {
                    values: vec![any(Value::IntValue(1)), AnyValue { value: None }],
                }),
            ),
            attribute(
                "map",
                Value::KvlistValue(KeyValueList {
                    values: vec![attribute("in", Value::StringValue(String::new()))],
                }),
            ),
            KeyValue {
                key: "none".to_owned(),
                ..KeyValue::default()
            },
        ],
        trace_id: Bytes::from_static(&[0xab; 16]),
        flags: 1,
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            schema_url: "https://schema".to_owned(),
            ..ResourceLogs::default()
        }],
    };
    let expected = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
        "timeUnixNano": "18446744073709551615",
        "severityNumber": 9,
        "body": {"stringValue": "say \"hi\"\n\u{1}é"},
        "attributes": [
            {"key": "int", "value": {"intValue": "-9223372036854775808"}},
            {"key": "double", "value": {"doubleValue": 0.1}},
            {"key": "nan", "value": {"doubleValue": "NaN"}},
            {"key": "infinity", "value": {"doubleValue": "-Infinity"}},
            {"key": "bool", "value": {"boolValue": false}},
            {"key": "bytes", "value": {"bytesValue": "AP8="}},
            {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [{"key": "in", "value": {"stringValue": ""}}]}}},
            {"key": "none"},
        ],
        "flags": 1,
        "traceId": "abababababababababababababababab",
    }]}], "schemaUrl": "https://schema"}]});
    assert_eq!(to_json(Signal::Logs, &request.encode_to_vec()), expected);
}

/// How many times a key occurs anywhere in a document.
fn occurrences(document: &Json, key: &str) -> usize {
    match document {
        Json::Object(fields) => fields
            .iter()
            .map(|(name, value)| usize::from(name == key) + occurrences(value, key))
            .sum(),
        Json::Array(items) => items.iter().map(|item| occurrences(item, key)).sum(),
        _ => 0,
    }
}

/// Scenario: generated requests as JSON.
/// Guarantees: the same number of records with the same ids and values as the protobuf they were made of.
#[test]
fn json_says_what_the_protobuf_says() {
    let catalog = Catalog::new(7, "3f9a1c07", NOW);
    let plan = Plan::new(56, 56, Signal::ALL.to_vec());
    let body = |index| {
        let mut out = BytesMut::new();
        Encoder::default().encode(&catalog, &plan.request(index).unwrap(), NOW, &mut out);
        out.freeze()
    };
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };

    let logs = ExportLogsServiceRequest::decode(body(0)).unwrap();
    let document = to_json(Signal::Logs, &body(0));
    assert_eq!(occurrences(&document, "severityText"), 56);
    let record = &logs.resource_logs[0].scope_logs[1].log_records[3];
    let found = &document["resourceLogs"][0]["scopeLogs"][1]["logRecords"][3];
    assert_eq!(found["timeUnixNano"], record.time_unix_nano.to_string());
    assert_eq!(found["spanId"], hex(&record.span_id));
    assert_eq!(found["severityNumber"], record.severity_number);
    assert_eq!(
        found["attributes"][3],
        json!({"key": "otlake.seq", "value": {"intValue": "31"}})
    );

    let traces = ExportTraceServiceRequest::decode(body(1)).unwrap();
    let document = to_json(Signal::Traces, &body(1));
    assert_eq!(occurrences(&document, "endTimeUnixNano"), 56);
    let span = &traces.resource_spans[0].scope_spans[0].spans[7];
    let found = &document["resourceSpans"][0]["scopeSpans"][0]["spans"][7];
    assert_eq!(found["parentSpanId"], hex(&span.parent_span_id));
    assert_eq!(found["links"][0]["traceId"], hex(&span.links[0].trace_id));
    assert_eq!(
        (found["kind"].as_i64(), found["name"].as_str()),
        (Some(5), Some(span.name.as_str()))
    );

    let metrics = ExportMetricsServiceRequest::decode(body(2)).unwrap();
    let document = to_json(Signal::Metrics, &body(2));
    assert_eq!(occurrences(&document, "startTimeUnixNano"), 56);
    let metric = &metrics.resource_metrics[0].scope_metrics[0].metrics[5];
    let found = &document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][5];
    let Some(Data::ExponentialHistogram(data)) = &metric.data else {
        panic!("{metric:?}")
    };
    let point = &data.data_points[0];
    let found = &found["exponentialHistogram"]["dataPoints"][0];
    assert_eq!(found["count"], point.count.to_string());
    assert_eq!(found["scale"], 3);
    assert_eq!(found["positive"]["offset"], 16);
    let counts: Vec<String> = point
        .positive
        .as_ref()
        .unwrap()
        .bucket_counts
        .iter()
        .map(u64::to_string)
        .collect();
    assert_eq!(found["positive"]["bucketCounts"], json!(counts));
    assert_eq!(found["exemplars"][0]["asDouble"], 6.4);
}

/// Scenario: bytes that are no request.
/// Guarantees: an error, not half a document that is taken for a whole one.
#[test]
fn garbage_is_an_error() {
    assert!(write(Signal::Logs, b"\xff\xff", &mut Vec::new()).is_err());
}
