//! The value rules of docs/TABLES.md, one exact row after the other.
//!
//! Each request goes in over gRPC and, into the same lake, as JSON over HTTP: every row has to be there twice.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use otlake::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use otlake::proto::logs::v1::LogRecord;
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use otlake::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, number_data_point,
};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::{Span, Status, span};

use crate::support::Server;
use crate::support::otlp::{
    Export, array, boolean, bytes, double, empty, id, int, kv, map, metric, resource, text,
};
use crate::support::sample::AT;

/// [`AT`] as DuckDB prints it.
const AT_TEXT: &str = "2025-01-02 03:04:05.123456789";
const TRACE: &str = "0102030405060708090a0b0c0d0e0f10";
const SPAN: &str = "a1a2a3a4a5a6a7a8";

/// The latest time that signed nanoseconds hold. DuckDB reads it as its `infinity`, so dates end one before.
const LAST: u64 = i64::MAX as u64 - 1;

/// Sends each request over gRPC and as JSON; each answer says that `refused` records were refused.
async fn lake_with_refusals(exports: &[Export], refused: i64) -> Server {
    let server = Server::start();
    for export in exports {
        let over_grpc = export.send_grpc(&server, None).await;
        let as_json = export.send_json(&server).await;
        assert_eq!(over_grpc.0, refused, "{over_grpc:?}");
        assert_eq!(over_grpc, as_json);
    }
    server.flush().await;
    server
}

async fn lake_of(export: Export) -> Server {
    lake_with_refusals(&[export], 0).await
}

/// The rows of `SELECT columns FROM source ORDER BY order`, each of which must have arrived twice.
fn assert_rows(server: &Server, columns: &str, source: &str, order: &str, expected: &[&[&str]]) {
    let query =
        format!("SELECT {columns}, count(*) AS arrived FROM {source} GROUP BY ALL ORDER BY ALL");
    let ordered = format!("SELECT * FROM ({query}) ORDER BY {order}");
    let expected: Vec<Vec<&str>> = expected
        .iter()
        .map(|row| [row, &["2"][..]].concat())
        .collect();
    assert_eq!(server.sql(&ordered), expected, "{columns}");
}

/// The one row of a table, all its columns by name and in order, which must have arrived twice.
fn assert_row(server: &Server, table: &str, expected: &[(&str, &str)]) {
    let named = "SELECT column_name FROM (DESCRIBE ";
    let names: Vec<String> = server
        .sql(&format!("{named} {table})"))
        .into_iter()
        .map(|row| row.concat())
        .collect();
    let expected_names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected_names, "{table}");
    let rows = server.sql(&format!("SELECT * FROM {table}"));
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in rows {
        let row: Vec<(&str, &str)> = expected_names
            .iter()
            .zip(&row)
            .map(|(name, cell)| (*name, cell.as_str()))
            .collect();
        assert_eq!(row, expected, "{table}");
    }
}

fn service() -> Resource {
    Resource {
        dropped_attributes_count: 1,
        ..resource(vec![
            kv("service.name", text("shop")),
            kv("service.namespace", text("eu")),
            kv("service.instance.id", text("i-1")),
        ])
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "lib".into(),
        version: "2".into(),
        attributes: vec![kv("s", int(1))],
        dropped_attributes_count: 2,
    }
}

fn logs(records: Vec<LogRecord>) -> Export {
    Export::logs(resource(vec![]), InstrumentationScope::default(), records)
}

fn spans(spans: Vec<Span>) -> Export {
    Export::spans(resource(vec![]), InstrumentationScope::default(), spans)
}

fn metrics(metrics: Vec<Metric>) -> Export {
    Export::metrics(resource(vec![]), InstrumentationScope::default(), metrics)
}

/// A log record numbered by its severity.
fn log(number: i32) -> LogRecord {
    LogRecord {
        time_unix_nano: AT,
        severity_number: number,
        ..LogRecord::default()
    }
}

/// A valid span of this name.
fn named_span(name: &str) -> Span {
    Span {
        trace_id: id(16, 1),
        span_id: id(8, 0xa1),
        name: name.into(),
        ..Span::default()
    }
}

const RESOURCE_JSON: &str =
    r#"{"service.instance.id":"i-1","service.name":"shop","service.namespace":"eu"}"#;
const RESOURCE_URL: &str = "https://schema.test/resource";
const SCOPE_URL: &str = "https://schema.test/scope";

/// Scenario: a log record with every field set.
/// Guarantees: the columns of `otlp_logs` in order, each with its value; ids are hex, times keep their nanoseconds.
#[tokio::test]
async fn a_full_log_record() {
    let record = LogRecord {
        time_unix_nano: AT,
        observed_time_unix_nano: AT + 1,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: text("it \"failed\"\n"),
        attributes: vec![kv("k", text("v"))],
        dropped_attributes_count: 3,
        flags: 257,
        trace_id: id(16, 1),
        span_id: id(8, 0xa1),
        event_name: "pay.failed".into(),
    };
    let server = lake_of(Export::logs(service(), scope(), vec![record])).await;
    let expected = [
        ("time_unix_nano", AT_TEXT),
        ("observed_time_unix_nano", "2025-01-02 03:04:05.12345679"),
        ("trace_id", TRACE),
        ("span_id", SPAN),
        ("service_name", "shop"),
        ("service_namespace", "eu"),
        ("service_instance_id", "i-1"),
        ("severity_number", "17"),
        ("severity_text", "ERROR"),
        ("event_name", "pay.failed"),
        ("body", "it \"failed\"\n"),
        ("resource_attributes", RESOURCE_JSON),
        ("scope_name", "lib"),
        ("scope_version", "2"),
        ("scope_attributes", r#"{"s":1}"#),
        ("log_attributes", r#"{"k":"v"}"#),
        ("dropped_attributes_count", "3"),
        ("flags", "257"),
        ("resource_schema_url", RESOURCE_URL),
        ("scope_schema_url", SCOPE_URL),
        ("resource_dropped_attributes_count", "1"),
        ("scope_dropped_attributes_count", "2"),
    ];
    assert_row(&server, "otlp_logs", &expected);
}

/// Scenario: a log record without anything but its time, in groups without resource, scope and schema URL.
/// Guarantees: every text is null but the service's name, counts and numbers are zero.
#[tokio::test]
async fn an_empty_log_record() {
    let mut export = logs(vec![log(0)]);
    if let Export::Logs(request) = &mut export {
        let group = &mut request.resource_logs[0];
        group.resource = None;
        group.schema_url.clear();
        group.scope_logs[0].scope = None;
        group.scope_logs[0].schema_url.clear();
    }
    let server = lake_of(export).await;
    let expected = [
        ("time_unix_nano", AT_TEXT),
        ("observed_time_unix_nano", "NULL"),
        ("trace_id", "NULL"),
        ("span_id", "NULL"),
        ("service_name", "unknown_service"),
        ("service_namespace", "NULL"),
        ("service_instance_id", "NULL"),
        ("severity_number", "0"),
        ("severity_text", "NULL"),
        ("event_name", "NULL"),
        ("body", "NULL"),
        ("resource_attributes", "NULL"),
        ("scope_name", "NULL"),
        ("scope_version", "NULL"),
        ("scope_attributes", "NULL"),
        ("log_attributes", "NULL"),
        ("dropped_attributes_count", "0"),
        ("flags", "0"),
        ("resource_schema_url", "NULL"),
        ("scope_schema_url", "NULL"),
        ("resource_dropped_attributes_count", "0"),
        ("scope_dropped_attributes_count", "0"),
    ];
    assert_row(&server, "otlp_logs", &expected);
}

/// Scenario: log records with ids that are absent, all zero and of a wrong length.
/// Guarantees: what is no id is null, and the record is kept.
#[tokio::test]
async fn log_ids() {
    let with_ids = |number, trace_id: &'static [u8], span_id: &'static [u8]| LogRecord {
        trace_id: Bytes::from_static(trace_id),
        span_id: Bytes::from_static(span_id),
        ..log(number)
    };
    let upper = *b"\xAB\xCD\xEF\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C\x0D";
    let records = vec![
        with_ids(1, &[], &[]),
        with_ids(2, &[0; 16], &[0; 8]),
        with_ids(3, &[7; 15], &[7; 9]),
        with_ids(4, &[7; 8], &[7; 16]),
        LogRecord {
            trace_id: Bytes::copy_from_slice(&upper),
            ..with_ids(5, &[], &[0, 0, 0, 0, 0, 0, 0, 1])
        },
    ];
    let server = lake_of(logs(records)).await;
    assert_rows(
        &server,
        "severity_number, trace_id, span_id",
        "otlp_logs",
        "severity_number",
        &[
            &["1", "NULL", "NULL"],
            &["2", "NULL", "NULL"],
            &["3", "NULL", "NULL"],
            &["4", "NULL", "NULL"],
            &["5", "abcdef0102030405060708090a0b0c0d", "0000000000000001"],
        ],
    );
}

/// Scenario: log records with both times, one of them, and the last one there is.
/// Guarantees: the observed time stands in for the time, never the other way round.
#[tokio::test]
async fn log_times() {
    let at = |number, time_unix_nano, observed_time_unix_nano| LogRecord {
        time_unix_nano,
        observed_time_unix_nano,
        ..log(number)
    };
    let records = vec![
        at(1, AT, 0),
        at(2, 0, AT),
        at(3, AT, AT - 1),
        at(4, 1, LAST),
        at(5, LAST, AT),
    ];
    let server = lake_of(logs(records)).await;
    assert_rows(
        &server,
        "severity_number, time_unix_nano, observed_time_unix_nano",
        "otlp_logs",
        "severity_number",
        &[
            &["1", AT_TEXT, "NULL"],
            &["2", AT_TEXT, AT_TEXT],
            &["3", AT_TEXT, "2025-01-02 03:04:05.123456788"],
            &[
                "4",
                "1970-01-01 00:00:00.000000001",
                "2262-04-11 23:47:16.854775806",
            ],
            &["5", "2262-04-11 23:47:16.854775806", AT_TEXT],
        ],
    );
}

/// Scenario: a log record with neither of its times.
/// Guarantees: it is dated by its receipt, and its observed time stays null.
#[tokio::test]
async fn a_log_without_times_is_dated_by_its_receipt() {
    let nanos = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos()
    };
    let record = LogRecord {
        body: text("undated"),
        ..LogRecord::default()
    };
    let before = nanos();
    let server = lake_of(logs(vec![record])).await;
    let after = nanos();
    let dated = format!(
        "SELECT count(*) FROM otlp_logs WHERE observed_time_unix_nano IS NULL
         AND epoch_ns(time_unix_nano) BETWEEN {before} AND {after}"
    );
    assert_eq!(server.count(&dated), 2);
}

/// Scenario: records of each signal with a time that signed nanoseconds do not hold, each beside a good one.
/// Guarantees: they alone are refused, and the answer counts them and says why, the same over gRPC and JSON.
#[tokio::test]
async fn times_beyond_2262_are_refused_alone() {
    let point = |time_unix_nano, start_time_unix_nano| NumberDataPoint {
        time_unix_nano,
        start_time_unix_nano,
        ..NumberDataPoint::default()
    };
    let too_late = LAST + 1;
    let exports = [
        logs(vec![
            log(1),
            LogRecord {
                time_unix_nano: too_late,
                ..log(2)
            },
            LogRecord {
                observed_time_unix_nano: u64::MAX,
                ..log(3)
            },
        ]),
        spans(vec![
            Span {
                start_time_unix_nano: too_late,
                ..named_span("late start")
            },
            Span {
                end_time_unix_nano: u64::MAX,
                ..named_span("late end")
            },
            named_span("good"),
        ]),
        metrics(vec![metric(
            "m",
            Data::Gauge(Gauge {
                data_points: vec![point(too_late, 0), point(1, 2), point(1, too_late)],
            }),
        )]),
    ];
    let server = lake_with_refusals(&exports, 2).await;
    assert_rows(&server, "severity_number", "otlp_logs", "1", &[&["1"]]);
    assert_rows(&server, "name", "otlp_traces", "1", &[&["good"]]);
    let times = "epoch_ns(time_unix_nano), epoch_ns(start_time_unix_nano)";
    assert_rows(&server, times, "otlp_metrics_gauge", "1", &[&["1", "2"]]);
    let message = exports[0].send_grpc(&server, None).await.1;
    assert_eq!(
        message,
        "2 log records refused (2 x time_out_of_range: time is above 9223372036854775806 ns (year 2262))"
    );
}

/// Scenario: spans without a valid trace, span or parent id, beside a good one.
/// Guarantees: they alone are refused; a parent of zeros is no parent.
#[tokio::test]
async fn spans_with_bad_ids_are_refused_alone() {
    let mut wrong = Vec::new();
    for trace_id in [&[][..], &[0; 16], &[1; 15], &[1; 8], &[1; 17]] {
        wrong.push(Span {
            trace_id: Bytes::from_static(trace_id),
            ..named_span("bad trace")
        });
    }
    for span_id in [&[][..], &[0; 8], &[1; 7], &[1; 16]] {
        wrong.push(Span {
            span_id: Bytes::from_static(span_id),
            ..named_span("bad span")
        });
    }
    wrong.push(Span {
        parent_span_id: Bytes::from_static(&[1; 7]),
        ..named_span("bad parent")
    });
    let refused = i64::try_from(wrong.len()).unwrap();
    wrong.insert(
        3,
        Span {
            parent_span_id: Bytes::from_static(&[0; 8]),
            ..named_span("root")
        },
    );
    wrong.push(Span {
        parent_span_id: Bytes::from_static(&[0xff; 8]),
        ..named_span("child")
    });
    let server = lake_with_refusals(&[spans(wrong)], refused).await;
    assert_rows(
        &server,
        "name, trace_id, span_id, parent_span_id",
        "otlp_traces",
        "name",
        &[
            &["child", TRACE, SPAN, "ffffffffffffffff"],
            &["root", TRACE, SPAN, "NULL"],
        ],
    );
}

/// Scenario: resources whose service name is absent, empty, no string, and given twice.
/// Guarantees: without a name it is `unknown_service`; another kind is written as attributes are; the last one counts.
#[tokio::test]
async fn service_names() {
    let named = |number, attributes: Vec<KeyValue>| {
        Export::logs(
            resource(attributes),
            InstrumentationScope::default(),
            vec![log(number)],
        )
    };
    let exports = [
        named(1, vec![kv("a", int(1))]),
        named(2, vec![kv("service.name", text(""))]),
        named(3, vec![kv("service.name", empty())]),
        named(4, vec![kv("service.name", None)]),
        named(5, vec![kv("service.name", int(5))]),
        named(
            6,
            vec![
                kv("service.name", text("first")),
                kv("service.namespace", text("")),
                kv("service.instance.id", array([text("x")])),
                kv("service.name", text("last")),
            ],
        ),
    ];
    let server = lake_with_refusals(&exports, 0).await;
    assert_rows(
        &server,
        "severity_number, service_name, service_namespace, service_instance_id, resource_attributes",
        "otlp_logs",
        "severity_number",
        &[
            &["1", "unknown_service", "NULL", "NULL", r#"{"a":1}"#],
            &[
                "2",
                "unknown_service",
                "NULL",
                "NULL",
                r#"{"service.name":""}"#,
            ],
            &[
                "3",
                "unknown_service",
                "NULL",
                "NULL",
                r#"{"service.name":null}"#,
            ],
            &[
                "4",
                "unknown_service",
                "NULL",
                "NULL",
                r#"{"service.name":null}"#,
            ],
            &["5", "5", "NULL", "NULL", r#"{"service.name":5}"#],
            &[
                "6",
                "last",
                "NULL",
                r#"["x"]"#,
                r#"{"service.instance.id":["x"],"service.name":"last","service.namespace":""}"#,
            ],
        ],
    );
}

/// Scenario: the event's name in its field, in the attribute, in both, and an attribute that is no string.
/// Guarantees: the field counts, where it is empty the attribute; the attribute stays in its place.
#[tokio::test]
async fn event_names() {
    let named = |number, field: &str, attributes: Vec<KeyValue>| LogRecord {
        event_name: field.into(),
        attributes,
        ..log(number)
    };
    let attribute = |value| vec![kv("event.name", value)];
    let records = vec![
        named(1, "field", vec![]),
        named(2, "", attribute(text("attribute"))),
        named(3, "field", attribute(text("attribute"))),
        named(4, "", attribute(int(4))),
        named(
            5,
            "",
            [attribute(text("first")), attribute(text("last"))].concat(),
        ),
    ];
    let server = lake_of(logs(records)).await;
    assert_rows(
        &server,
        "severity_number, event_name, log_attributes",
        "otlp_logs",
        "severity_number",
        &[
            &["1", "field", "NULL"],
            &["2", "attribute", r#"{"event.name":"attribute"}"#],
            &["3", "field", r#"{"event.name":"attribute"}"#],
            &["4", "NULL", r#"{"event.name":4}"#],
            &["5", "last", r#"{"event.name":"last"}"#],
        ],
    );
}

/// Every kind of value, and its text as an attribute.
fn values() -> Vec<(Option<AnyValue>, &'static str)> {
    vec![
        (text(""), r#""""#),
        (
            text("ü \"\\/\u{8}\n\u{1f}\u{7f}\u{2028}\u{1f980}"),
            "\"ü \\\"\\\\/\\b\\n\\u001f\u{7f}\u{2028}\u{1f980}\"",
        ),
        (int(0), "0"),
        (int(i64::MIN), "-9223372036854775808"),
        (int(i64::MAX), "9223372036854775807"),
        (double(0.1), "0.1"),
        (double(1.0), "1.0"),
        (double(-0.0), "-0.0"),
        (double(1e300), "1e300"),
        (double(5e-324), "5e-324"),
        (double(0.1 + 0.2), "0.30000000000000004"),
        (double(f64::MAX), "1.7976931348623157e308"),
        (double(f64::NAN), r#""NaN""#),
        (double(f64::INFINITY), r#""Infinity""#),
        (double(f64::NEG_INFINITY), r#""-Infinity""#),
        (boolean(true), "true"),
        (boolean(false), "false"),
        (empty(), "null"),
        (None, "null"),
        (bytes(&[]), r#""""#),
        (bytes(&[0xfb, 0xff, 0xfe, 0]), r#""+//+AA==""#),
        (array([]), "[]"),
        (
            array([
                text("a"),
                int(1),
                double(2.0),
                empty(),
                array([]),
                bytes(b"x"),
            ]),
            r#"["a",1,2.0,null,[],"eA=="]"#,
        ),
        (map(vec![]), "{}"),
        (
            map(vec![
                kv("b", array([map(vec![kv("", None)])])),
                kv("a", int(1)),
                kv("b", int(2)),
                kv("B", boolean(true)),
                kv("c", map(vec![kv("z", int(1)), kv("y", double(f64::NAN))])),
            ]),
            r#"{"B":true,"a":1,"b":2,"c":{"y":"NaN","z":1}}"#,
        ),
    ]
}

/// Scenario: an attribute of every kind, and a list of them out of order with a repeated and an empty key.
/// Guarantees: the exact text; keys sorted bytewise, the last of a repeated key.
#[tokio::test]
async fn attributes() {
    let mut records: Vec<LogRecord> = values()
        .into_iter()
        .zip(1..)
        .map(|((value, _), number)| LogRecord {
            attributes: vec![kv("k", value)],
            ..log(number)
        })
        .collect();
    records.push(LogRecord {
        attributes: vec![
            kv("é", int(1)),
            kv("z", int(2)),
            kv("Z", int(3)),
            kv("a.b", int(4)),
            kv("a", int(5)),
            kv("z", text("last")),
            kv("", int(6)),
            kv("a\"", int(7)),
            kv("\u{ffff}", int(8)),
            kv("\u{10000}", int(9)),
        ],
        ..log(100)
    });
    let server = lake_of(logs(records)).await;
    let sorted = "{\"\":6,\"Z\":3,\"a\":5,\"a\\\"\":7,\"a.b\":4,\"z\":\"last\",\"é\":1,\"\u{ffff}\":8,\"\u{10000}\":9}";
    let mut expected: Vec<String> = values()
        .into_iter()
        .map(|(_, text)| format!("{{\"k\":{text}}}"))
        .collect();
    expected.push(sorted.to_owned());
    let rows = server.sql(
        "SELECT log_attributes FROM otlp_logs GROUP BY severity_number, log_attributes ORDER BY severity_number",
    );
    assert_eq!(rows.concat(), expected);
    let valid = "SELECT count(*) FROM otlp_logs WHERE json_valid(log_attributes)";
    assert_eq!(
        server.count(valid),
        2 * i64::try_from(expected.len()).unwrap()
    );
}

/// Scenario: a body of every kind.
/// Guarantees: text as it is, nothing for an empty one, every other kind as attributes are written.
#[tokio::test]
async fn bodies() {
    let records = values()
        .into_iter()
        .zip(1..)
        .map(|((body, _), number)| LogRecord {
            body,
            ..log(number)
        });
    let server = lake_of(logs(records.collect())).await;
    let expected: Vec<String> = values()
        .into_iter()
        .map(|(value, written)| {
            use otlake::proto::common::v1::any_value::Value::StringValue;
            match value.and_then(|value| value.value) {
                None => "NULL".to_owned(),
                Some(StringValue(text)) if text.is_empty() => "NULL".to_owned(),
                Some(StringValue(text)) => text,
                Some(_) => written.to_owned(),
            }
        })
        .collect();
    let rows = server
        .sql("SELECT body FROM otlp_logs GROUP BY severity_number, body ORDER BY severity_number");
    assert_eq!(rows.concat(), expected);
}

/// Scenario: a span with every field set, and events and links with all and with none of their members.
/// Guarantees: the columns of `otlp_traces` in order; the exact text of `events_json` and `links_json`.
#[tokio::test]
async fn a_full_span() {
    let full = Span {
        trace_id: id(16, 1),
        span_id: id(8, 0xa1),
        trace_state: "congo=t61".into(),
        parent_span_id: id(8, 0xb1),
        flags: 0x101,
        name: "POST /pay".into(),
        kind: 2,
        start_time_unix_nano: AT,
        end_time_unix_nano: AT + 1_000_000_001,
        attributes: vec![kv("k", int(1))],
        dropped_attributes_count: 3,
        events: vec![
            span::Event {
                time_unix_nano: AT,
                name: "a \"b\"".into(),
                attributes: vec![kv("x", double(f64::NAN)), kv("n", empty())],
                dropped_attributes_count: 4,
            },
            span::Event::default(),
        ],
        dropped_events_count: 5,
        links: vec![
            span::Link {
                trace_id: id(16, 1),
                span_id: id(8, 0xa1),
                trace_state: "rojo=00".into(),
                attributes: vec![kv("l", boolean(true))],
                dropped_attributes_count: 6,
                flags: 7,
            },
            span::Link {
                trace_id: Bytes::from_static(&[0; 16]),
                span_id: Bytes::from_static(&[1; 7]),
                ..span::Link::default()
            },
        ],
        dropped_links_count: 8,
        status: Some(Status {
            message: "declined".into(),
            code: 2,
        }),
    };
    let server = lake_of(Export::spans(service(), scope(), vec![full])).await;
    let events = r#"[{"time_unix_nano":1735787045123456789,"name":"a \"b\"","attributes":{"n":null,"x":"NaN"},"dropped_attributes_count":4},{"name":""}]"#;
    let links = r#"[{"trace_id":"0102030405060708090a0b0c0d0e0f10","span_id":"a1a2a3a4a5a6a7a8","trace_state":"rojo=00","attributes":{"l":true},"dropped_attributes_count":6,"flags":7},{}]"#;
    let expected = [
        ("start_time_unix_nano", AT_TEXT),
        ("duration_time_unix_nano", "1000000001"),
        ("trace_id", TRACE),
        ("span_id", SPAN),
        ("parent_span_id", "b1b2b3b4b5b6b7b8"),
        ("trace_state", "congo=t61"),
        ("service_name", "shop"),
        ("service_namespace", "eu"),
        ("service_instance_id", "i-1"),
        ("name", "POST /pay"),
        ("kind", "2"),
        ("status_code", "2"),
        ("status_status_message", "declined"),
        ("resource_attributes", RESOURCE_JSON),
        ("scope_name", "lib"),
        ("scope_version", "2"),
        ("scope_attributes", r#"{"s":1}"#),
        ("span_attributes", r#"{"k":1}"#),
        ("events_json", events),
        ("links_json", links),
        ("dropped_attributes_count", "3"),
        ("dropped_events_count", "5"),
        ("dropped_links_count", "8"),
        ("flags", "257"),
        ("resource_schema_url", RESOURCE_URL),
        ("scope_schema_url", SCOPE_URL),
        ("resource_dropped_attributes_count", "1"),
        ("scope_dropped_attributes_count", "2"),
    ];
    assert_row(&server, "otlp_traces", &expected);
}

/// Scenario: spans that end before they start, at once, never, and over the whole of time; one without anything.
/// Guarantees: the duration is signed nanoseconds, null when either end is unknown; empty texts and lists are null.
#[tokio::test]
async fn durations_and_empty_spans() {
    let span = |name: &str, start_time_unix_nano, end_time_unix_nano| Span {
        start_time_unix_nano,
        end_time_unix_nano,
        ..named_span(name)
    };
    let all = vec![
        span("a negative", AT, AT - 5),
        span("b zero", AT, AT),
        span("c open", AT, 0),
        span("d unstarted", 0, AT),
        span("e longest", 1, LAST),
        span("f shortest", LAST, 1),
        span("", 0, 0),
    ];
    let server = lake_of(spans(all)).await;
    assert_rows(
        &server,
        "name, start_time_unix_nano, duration_time_unix_nano",
        "otlp_traces",
        "name NULLS LAST",
        &[
            &["a negative", AT_TEXT, "-5"],
            &["b zero", AT_TEXT, "0"],
            &["c open", AT_TEXT, "NULL"],
            &["d unstarted", "NULL", "NULL"],
            &[
                "e longest",
                "1970-01-01 00:00:00.000000001",
                "9223372036854775805",
            ],
            &[
                "f shortest",
                "2262-04-11 23:47:16.854775806",
                "-9223372036854775805",
            ],
            &["NULL", "NULL", "NULL"],
        ],
    );
    assert_rows(
        &server,
        "trace_state, kind, status_code, status_status_message, span_attributes, events_json, links_json, flags",
        "otlp_traces WHERE name IS NULL",
        "1",
        &[&["NULL", "0", "0", "NULL", "NULL", "NULL", "NULL", "0"]],
    );
}

fn exemplars() -> Vec<Exemplar> {
    vec![
        Exemplar {
            filtered_attributes: vec![kv("f", text("v"))],
            time_unix_nano: 9,
            span_id: id(8, 0xa1),
            trace_id: id(16, 1),
            value: Some(exemplar::Value::AsInt(-1)),
        },
        Exemplar {
            span_id: Bytes::from_static(&[0; 8]),
            value: Some(exemplar::Value::AsDouble(2.0)),
            ..Exemplar::default()
        },
        Exemplar {
            value: Some(exemplar::Value::AsDouble(f64::NEG_INFINITY)),
            ..Exemplar::default()
        },
        Exemplar::default(),
    ]
}

const EXEMPLARS: &str = r#"[{"time_unix_nano":9,"value":-1,"trace_id":"0102030405060708090a0b0c0d0e0f10","span_id":"a1a2a3a4a5a6a7a8","filtered_attributes":{"f":"v"}},{"value":2.0},{"value":"-Infinity"},{}]"#;

/// The first columns of every metric table.
const METRIC: [(&str, &str); 5] = [
    ("time_unix_nano", AT_TEXT),
    ("start_time_unix_nano", "2025-01-02 03:04:05.123456788"),
    ("name", "m"),
    ("description", "what it is"),
    ("unit", "By"),
];

/// The columns of resource, scope and point.
const POINT: [(&str, &str); 9] = [
    ("service_name", "shop"),
    ("service_namespace", "eu"),
    ("service_instance_id", "i-1"),
    ("resource_attributes", RESOURCE_JSON),
    ("scope_name", "lib"),
    ("scope_version", "2"),
    ("scope_attributes", r#"{"s":1}"#),
    ("metric_attributes", r#"{"p":1}"#),
    ("flags", "4"),
];

/// The last columns of every metric table.
const LAST_COLUMNS: [(&str, &str); 5] = [
    ("metadata", r#"{"m":"d"}"#),
    ("resource_schema_url", RESOURCE_URL),
    ("scope_schema_url", SCOPE_URL),
    ("resource_dropped_attributes_count", "1"),
    ("scope_dropped_attributes_count", "2"),
];

/// A point of each of the five kinds, with everything there is.
fn full_metrics() -> Export {
    let number = NumberDataPoint {
        attributes: vec![kv("p", int(1))],
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        exemplars: exemplars(),
        flags: 4,
        value: Some(number_data_point::Value::AsInt(i64::MIN)),
    };
    let histogram = HistogramDataPoint {
        attributes: vec![kv("p", int(1))],
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        count: u64::MAX,
        sum: Some(-0.5),
        bucket_counts: vec![0, 1 << 63, 2],
        explicit_bounds: vec![-1.5, 10.0],
        exemplars: exemplars(),
        flags: 4,
        min: Some(0.0),
        max: Some(1e300),
    };
    let exp_histogram = ExponentialHistogramDataPoint {
        attributes: vec![kv("p", int(1))],
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        count: 12,
        sum: Some(3.5),
        scale: -10,
        zero_count: 1 << 63,
        positive: Some(Buckets {
            offset: i32::MIN,
            bucket_counts: vec![1, 2, u64::MAX],
        }),
        negative: Some(Buckets {
            offset: 3,
            bucket_counts: vec![4],
        }),
        flags: 4,
        exemplars: exemplars(),
        min: Some(-2.0),
        max: Some(0.0),
        zero_threshold: 1e-9,
    };
    let at = |quantile, value| ValueAtQuantile { quantile, value };
    let summary = SummaryDataPoint {
        attributes: vec![kv("p", int(1))],
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        count: 5,
        sum: 1.25,
        quantile_values: vec![at(0.0, -1.0), at(0.5, f64::NAN), at(1.0, 7.0)],
        flags: 4,
    };
    let all = [
        Data::Gauge(Gauge {
            data_points: vec![number.clone()],
        }),
        Data::Sum(Sum {
            data_points: vec![number],
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram {
            data_points: vec![histogram],
            aggregation_temporality: 1,
        }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exp_histogram],
            aggregation_temporality: 2,
        }),
        Data::Summary(Summary {
            data_points: vec![summary],
        }),
    ];
    let all = all.map(|data| Metric {
        description: "what it is".into(),
        unit: "By".into(),
        metadata: vec![kv("m", text("d"))],
        ..metric("m", data)
    });
    Export::metrics(service(), scope(), all.into())
}

/// Scenario: one point of each of the five kinds, with everything there is.
/// Guarantees: the columns of the five tables in order, each with its value; the exact text of `exemplars_json`.
#[tokio::test]
async fn full_metric_points() {
    let server = lake_of(full_metrics()).await;
    let exemplars = ("exemplars_json", EXEMPLARS);
    let number = [
        ("int_value", "-9223372036854775808"),
        ("double_value", "NULL"),
    ];
    let gauge = [&METRIC[..], &number, &POINT, &[exemplars], &LAST_COLUMNS].concat();
    assert_row(&server, "otlp_metrics_gauge", &gauge);

    let own = [
        exemplars,
        ("aggregation_temporality", "2"),
        ("is_monotonic", "true"),
    ];
    let sum = [&METRIC[..], &number, &POINT, &own, &LAST_COLUMNS].concat();
    assert_row(&server, "otlp_metrics_sum", &sum);

    let values = [
        ("count", "18446744073709551615"),
        ("sum", "-0.5"),
        ("min", "0.0"),
        ("max", "1e+300"),
        ("bucket_counts", "[0, 9223372036854775808, 2]"),
        ("explicit_bounds", "[-1.5, 10.0]"),
    ];
    let own = [exemplars, ("aggregation_temporality", "1")];
    let histogram = [&METRIC[..], &values, &POINT, &own, &LAST_COLUMNS].concat();
    assert_row(&server, "otlp_metrics_histogram", &histogram);

    let values = [
        ("count", "12"),
        ("sum", "3.5"),
        ("min", "-2.0"),
        ("max", "0.0"),
        ("scale", "-10"),
        ("zero_count", "9223372036854775808"),
        ("zero_threshold", "1e-09"),
        ("positive_offset", "-2147483648"),
        ("positive_bucket_counts", "[1, 2, 18446744073709551615]"),
        ("negative_offset", "3"),
        ("negative_bucket_counts", "[4]"),
    ];
    let own = [exemplars, ("aggregation_temporality", "2")];
    let exp_histogram = [&METRIC[..], &values, &POINT, &own, &LAST_COLUMNS].concat();
    assert_row(&server, "otlp_metrics_exp_histogram", &exp_histogram);

    let values = [
        ("count", "5"),
        ("sum", "1.25"),
        ("quantiles", "[0.0, 0.5, 1.0]"),
        ("quantile_values", "[-1.0, nan, 7.0]"),
    ];
    let summary = [&METRIC[..], &values, &POINT, &LAST_COLUMNS].concat();
    assert_row(&server, "otlp_metrics_summary", &summary);
}

/// Scenario: gauge and sum points with an int, doubles of every sort, and none.
/// Guarantees: an int stays an int, NaN and the infinities are kept, a point without a value is kept without one.
#[tokio::test]
async fn number_points() {
    use number_data_point::Value::{AsDouble, AsInt};
    let point = |(flags, value)| NumberDataPoint {
        flags,
        value,
        ..NumberDataPoint::default()
    };
    let values = [
        (1, None),
        (2, Some(AsInt(0))),
        (3, Some(AsInt(i64::MAX))),
        (4, Some(AsDouble(0.0))),
        (5, Some(AsDouble(f64::NAN))),
        (6, Some(AsDouble(f64::INFINITY))),
        (7, Some(AsDouble(f64::NEG_INFINITY))),
        (8, Some(AsDouble(5e-324))),
    ];
    let data_points: Vec<_> = values.map(point).into();
    let gauge = metric(
        "",
        Data::Gauge(Gauge {
            data_points: data_points.clone(),
        }),
    );
    let sum = metric(
        "",
        Data::Sum(Sum {
            data_points,
            ..Sum::default()
        }),
    );
    let server = lake_of(metrics(vec![gauge, sum])).await;
    let expected: &[&[&str]] = &[
        &["1", "NULL", "NULL"],
        &["2", "0", "NULL"],
        &["3", "9223372036854775807", "NULL"],
        &["4", "NULL", "0.0"],
        &["5", "NULL", "nan"],
        &["6", "NULL", "inf"],
        &["7", "NULL", "-inf"],
        &["8", "NULL", "5e-324"],
    ];
    let columns = "flags, int_value, double_value";
    assert_rows(&server, columns, "otlp_metrics_gauge", "1", expected);
    assert_rows(&server, columns, "otlp_metrics_sum", "1", expected);
    let nulls = "time_unix_nano, start_time_unix_nano, name, description, unit, metric_attributes, exemplars_json, \
                 metadata, aggregation_temporality, is_monotonic";
    assert_rows(
        &server,
        nulls,
        "otlp_metrics_sum WHERE flags = 1",
        "1",
        &[&[
            "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "0", "false",
        ]],
    );
}

/// Scenario: distributions without sum, minimum, maximum, buckets and quantiles, and a histogram whose buckets do not
/// match its bounds.
/// Guarantees: an unset double is null and a zero is not; an absent list is an empty one; the misfit alone is refused.
#[tokio::test]
async fn least_distributions() {
    let zeros = HistogramDataPoint {
        flags: 1,
        sum: Some(0.0),
        min: Some(0.0),
        max: Some(f64::NAN),
        bucket_counts: vec![3],
        ..HistogramDataPoint::default()
    };
    let misfit = HistogramDataPoint {
        flags: 2,
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![1.0, 2.0],
        ..HistogramDataPoint::default()
    };
    let all = vec![
        metric(
            "m",
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint::default(), zeros, misfit],
                ..Histogram::default()
            }),
        ),
        metric(
            "m",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint::default()],
                ..ExponentialHistogram::default()
            }),
        ),
        metric(
            "m",
            Data::Summary(Summary {
                data_points: vec![SummaryDataPoint::default()],
            }),
        ),
        // Without points or data there are no rows.
        metric("none", Data::Gauge(Gauge::default())),
        Metric::default(),
    ];
    let server = lake_with_refusals(&[metrics(all)], 1).await;
    assert_rows(
        &server,
        "flags, count, sum, min, max, bucket_counts, explicit_bounds, aggregation_temporality",
        "otlp_metrics_histogram",
        "flags",
        &[
            &["0", "0", "NULL", "NULL", "NULL", "[]", "[]", "0"],
            &["1", "0", "0.0", "0.0", "nan", "[3]", "[]", "0"],
        ],
    );
    assert_rows(
        &server,
        "count, sum, min, max, scale, zero_count, zero_threshold, positive_offset, positive_bucket_counts, \
         negative_offset, negative_bucket_counts",
        "otlp_metrics_exp_histogram",
        "1",
        &[&[
            "0", "NULL", "NULL", "NULL", "0", "0", "0.0", "0", "[]", "0", "[]",
        ]],
    );
    assert_rows(
        &server,
        "count, sum, quantiles, quantile_values",
        "otlp_metrics_summary",
        "1",
        &[&["0", "0.0", "[]", "[]"]],
    );
    assert_eq!(server.count("SELECT count(*) FROM otlp_metrics_gauge"), 0);
}
