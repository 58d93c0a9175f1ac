//! What the decoder makes of single bodies, and of the captured requests of a real client.

use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::{RECORD_PARTS_MAX, decode, decode_lines};
use crate::decode::{DecodeError, VALUE_DEPTH_MAX};
use crate::memory::Budget;
use crate::rows::{RecordError, Rows};
use crate::signal::{Signal, Table};

const RECEIVED: i64 = 1_700_000_000_000_000_000;

fn json(signal: Signal, body: &str) -> Result<Rows, DecodeError> {
    decode(
        signal,
        body.as_bytes(),
        RECEIVED,
        Budget::new(256 << 20).empty(),
    )
}

fn lines(body: &str) -> Result<Rows, DecodeError> {
    let reservation = Budget::new(256 << 20).empty();
    decode_lines(Signal::Logs, body.as_bytes(), RECEIVED, reservation)
}

fn logs(records: &str) -> Result<Rows, DecodeError> {
    let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#);
    json(Signal::Logs, &body)
}

fn spans(spans: &str) -> Result<Rows, DecodeError> {
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    json(Signal::Traces, &body)
}

fn metrics(metrics: &str) -> Result<Rows, DecodeError> {
    let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#);
    json(Signal::Metrics, &body)
}

fn malformed(result: Result<Rows, DecodeError>) -> String {
    match result {
        Err(DecodeError::Malformed(reason)) => reason,
        other => panic!("not malformed: {other:?}"),
    }
}

/// One column of one table as text; null is `-`.
fn column(rows: &Rows, table: Table, name: &str) -> Vec<String> {
    let Some((_, batch)) = rows.batches.iter().find(|(of, _)| *of == table) else {
        return Vec::new();
    };
    let column = batch.column_by_name(name).unwrap();
    (0..batch.num_rows())
        .map(|row| match column.is_null(row) {
            true => "-".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        })
        .collect()
}

#[track_caller]
fn assert_cells(rows: &Rows, table: Table, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(column(rows, table, name), [*value], "{name}");
    }
}

/// The text that `value`, an `AnyValue`, has among a log's attributes.
fn attribute(value: &str) -> Result<String, DecodeError> {
    let rows = logs(&format!(
        r#"{{"attributes":[{{"key":"k","value":{value}}}]}}"#
    ))?;
    let text = column(&rows, Table::Logs, "log_attributes").remove(0);
    let value = text
        .strip_prefix(r#"{"k":"#)
        .and_then(|text| text.strip_suffix('}'));
    Ok(value.unwrap().to_owned())
}

/// Scenario: every kind of attribute value, in every spelling that is tolerated.
/// Guarantees: the text of docs/TABLES.md.
#[test]
fn attribute_values_follow_the_rules() {
    for (value, text) in [
        ("{}", "null"),
        ("null", "null"),
        (r#"{"stringValue":null}"#, "null"),
        (r#"{"stringValue":"a\"\u00e9"}"#, r#""a\"é""#),
        (r#"{"string_value":""}"#, r#""""#),
        (r#"{"boolValue":false}"#, "false"),
        (
            r#"{"intValue":"-9223372036854775808"}"#,
            "-9223372036854775808",
        ),
        (r#"{"intValue":9223372036854775807}"#, "9223372036854775807"),
        (r#"{"intValue":1.5e3}"#, "1500"),
        (r#"{"intValue":"1e3"}"#, "1000"),
        (r#"{"intValue":-0}"#, "0"),
        // More digits than a double has.
        (
            r#"{"intValue":1735787045123456789.0}"#,
            "1735787045123456789",
        ),
        (
            r#"{"intValue":"-173.5787045123456789e16"}"#,
            "-1735787045123456789",
        ),
        (
            r#"{"intValue":1735787045123456789000e-3}"#,
            "1735787045123456789",
        ),
        (r#"{"intValue":0.0e99999999999999999999}"#, "0"),
        (r#"{"doubleValue":1}"#, "1.0"),
        (r#"{"doubleValue":"0.1"}"#, "0.1"),
        (
            r#"{"doubleValue":0.30000000000000004}"#,
            "0.30000000000000004",
        ),
        (
            r#"{"doubleValue":122.416294033786585}"#,
            "122.41629403378658",
        ),
        (r#"{"doubleValue":"NaN"}"#, r#""NaN""#),
        (r#"{"doubleValue":"-Infinity"}"#, r#""-Infinity""#),
        (r#"{"double_value":"Infinity"}"#, r#""Infinity""#),
        (r#"{"bytesValue":"+/8="}"#, r#""+/8=""#),
        (r#"{"bytesValue":"-_8"}"#, r#""+/8=""#),
        (r#"{"bytesValue":""}"#, r#""""#),
        (r#"{"arrayValue":{}}"#, "[]"),
        (r#"{"arrayValue":{"values":null}}"#, "[]"),
        (
            r#"{"arrayValue":{"values":[{"intValue":"1"},null,{}]}}"#,
            "[1,null,null]",
        ),
        (r#"{"kvlistValue":{}}"#, "{}"),
        (
            r#"{"kvlistValue":{"values":[{"key":"b","value":{"intValue":1}},null,{"key":"a"},{"key":"b"}]}}"#,
            r#"{"a":null,"b":null}"#,
        ),
        (
            r#"{"intValue":1,"doubleValue":2,"stringValue":null}"#,
            "2.0",
        ),
        (r#"{"doubleValue":2,"arrayValue":{}}"#, "[]"),
        (r#"{"unknown":[{"x":[1,2,{}]}],"intValue":7}"#, "7"),
    ] {
        assert_eq!(attribute(value).unwrap(), text, "{value}");
    }
}

/// Scenario: values of the wrong type, out of range or with unknown names.
/// Guarantees: the body is malformed, and the reason does not quote it.
#[test]
fn wrong_values_are_malformed() {
    for value in [
        r#"{"stringValue":5}"#,
        r#"{"stringValue":["secret"]}"#,
        r#"{"boolValue":"secret"}"#,
        r#"{"boolValue":1}"#,
        r#"{"boolValue":1e308}"#,
        r#"{"intValue":"secret"}"#,
        r#"{"intValue":""}"#,
        r#"{"intValue":1.5}"#,
        r#"{"intValue":true}"#,
        r#"{"intValue":"9223372036854775808"}"#,
        r#"{"intValue":"-9223372036854775808.5"}"#,
        r#"{"intValue":9223372036854775807.9}"#,
        r#"{"intValue":1e-99999999999999999999}"#,
        r#"{"intValue":1e99999999999999999999}"#,
        r#"{"intValue":"."}"#,
        r#"{"intValue":"-"}"#,
        r#"{"intValue":"1e"}"#,
        r#"{"intValue":1e30}"#,
        r#"{"intValue":"inf"}"#,
        r#"{"doubleValue":"secret"}"#,
        r#"{"doubleValue":"nan"}"#,
        r#"{"doubleValue":1e999}"#,
        r#"{"doubleValue":{}}"#,
        r#"{"bytesValue":"se cret"}"#,
        r#"{"bytesValue":"a"}"#,
        r#"{"arrayValue":[]}"#,
        r#"{"arrayValue":{"values":{}}}"#,
        r#"{"kvlistValue":{"values":["secret"]}}"#,
        r#""secret \", expected secret""#,
        r#"{"stringValue":"\ud800"}"#,
    ] {
        let reason = malformed(logs(&format!(
            r#"{{"attributes":[{{"key":"k","value":{value}}}]}}"#
        )));
        assert!(reason.starts_with("OTLP/JSON: "), "{value}: {reason}");
        assert!(reason.contains(" at line 1 column "), "{value}: {reason}");
        assert!(!reason.contains("secret"), "{value}: {reason}");
        assert!(reason.len() < 300, "{value}: {reason}");
    }
    for record in [
        r#"{"severityNumber":"SEVERITY_NUMBER_INFO5"}"#,
        r#"{"severityNumber":"INFO"}"#,
        r#"{"severityNumber":4294967296}"#,
        r#"{"timeUnixNano":-1}"#,
        r#"{"timeUnixNano":"18446744073709551616"}"#,
        r#"{"flags":4294967296}"#,
        r#"{"traceId":5}"#,
        r#"{"attributes":{}}"#,
        r#"5"#,
        r#"[]"#,
        r#"{"#,
        r#"{"a" 1}"#,
    ] {
        malformed(logs(record));
    }
}

/// Scenario: a log record with every field, its resource and schema URL behind the records.
/// Guarantees: every column, whatever the order of the keys.
#[test]
fn a_log_with_everything_behind_it() {
    let body = r#"{"resourceLogs":[{
      "scopeLogs":[{
        "logRecords":[{
          "eventName":"","traceId":"000102030405060708090A0b0c0d0e0f","spanId":"0001020304050607",
          "timeUnixNano":"1700000000000000001","observedTimeUnixNano":1700000000000000002,
          "severityNumber":"SEVERITY_NUMBER_WARN2","severityText":"warn","flags":"1","droppedAttributesCount":2,
          "body":{"kvlistValue":{"values":[{"key":"z","value":{"intValue":"1"}},{"key":"a","value":{"boolValue":true}}]}},
          "attributes":[{"key":"event.name","value":{"stringValue":"first"}},{"value":{"stringValue":"last"},"key":"event.name"}]
        }],
        "schemaUrl":"scope-url",
        "scope":{"name":"lib","version":"1","attributes":[{"key":"s","value":{"doubleValue":1}}],"droppedAttributesCount":4}
      }],
      "schemaUrl":"resource-url",
      "resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"old"}},{"key":"service.name","value":{"stringValue":"shop"}},
        {"key":"service.namespace","value":{"intValue":"5"}},
        {"key":"service.instance.id","value":{"arrayValue":{"values":[{"boolValue":true}]}}}],
        "droppedAttributesCount":3}
    }]}"#;
    let rows = json(Signal::Logs, body).unwrap();
    assert_cells(
        &rows,
        Table::Logs,
        &[
            ("time_unix_nano", "2023-11-14T22:13:20.000000001"),
            ("observed_time_unix_nano", "2023-11-14T22:13:20.000000002"),
            ("trace_id", "000102030405060708090a0b0c0d0e0f"),
            ("span_id", "0001020304050607"),
            ("service_name", "shop"),
            ("service_namespace", "5"),
            ("service_instance_id", "[true]"),
            ("severity_number", "14"),
            ("severity_text", "warn"),
            ("event_name", "last"),
            ("body", r#"{"a":true,"z":1}"#),
            (
                "resource_attributes",
                r#"{"service.instance.id":[true],"service.name":"shop","service.namespace":5}"#,
            ),
            ("scope_name", "lib"),
            ("scope_version", "1"),
            ("scope_attributes", r#"{"s":1.0}"#),
            ("log_attributes", r#"{"event.name":"last"}"#),
            ("dropped_attributes_count", "2"),
            ("flags", "1"),
            ("resource_schema_url", "resource-url"),
            ("scope_schema_url", "scope-url"),
            ("resource_dropped_attributes_count", "3"),
            ("scope_dropped_attributes_count", "4"),
        ],
    );
}

/// Scenario: the same request in snake_case, pretty-printed, with a byte order mark, with nulls and unknown fields.
/// Guarantees: the same row.
#[test]
fn spellings_give_the_same_row() {
    let plain = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
      "scopeLogs":[{"scope":{"name":"n"},"logRecords":[{"timeUnixNano":"5","severityNumber":9,"eventName":"e",
      "body":{"stringValue":"b"},"droppedAttributesCount":1}]}]}]}"#;
    let snake = "\u{feff}\r\n".to_owned()
        + r#"{ "x": {"y": [[[null, {}]]]}, "resource_logs": [ null, {"resource": {"entityRefs": [{}], "attributes":
      [ {"key": "service.name", "value": {"string_value": "s"}} ]}, "schema_url": null, "scope_logs": [ null,
      {"scope": {"name": "n", "version": null, "attributes": null}, "log_records": [ null, {"time_unix_nano": 5.0,
      "severity_number": "9", "event_name": "e", "trace_id": null, "attributes": [], "body": {"string_value": "b"},
      "flags": null, "dropped_attributes_count": "1", "new": "field"} ] } ] } ] }
"#;
    let [plain, snake] = [plain, &snake].map(|body| json(Signal::Logs, body).unwrap());
    assert_eq!(plain.batches, snake.batches);
    assert_eq!(plain.rows(), 1);
}

/// Scenario: logs with defaults, and with ids that are none.
/// Guarantees: nulls and the time of receipt; a bad id of a log is null.
#[test]
fn log_defaults_and_bad_ids() {
    let rows = logs(r#"{},{"traceId":"0123456789abcdef","spanId":"zz","body":{"intValue":3}},
        {"traceId":"00000000000000000000000000000000","spanId":"é0","body":{"stringValue":""},"eventName":"mine",
         "attributes":[{"key":"event.name","value":{"intValue":1}}]}"#)
    .unwrap();
    assert_eq!(column(&rows, Table::Logs, "trace_id"), ["-"; 3]);
    assert_eq!(column(&rows, Table::Logs, "span_id"), ["-"; 3]);
    assert_eq!(column(&rows, Table::Logs, "body"), ["-", "3", "-"]);
    assert_eq!(column(&rows, Table::Logs, "event_name"), ["-", "-", "mine"]);
    assert_eq!(
        column(&rows, Table::Logs, "service_name"),
        ["unknown_service"; 3]
    );
    assert_eq!(
        column(&rows, Table::Logs, "time_unix_nano"),
        ["2023-11-14T22:13:20"; 3]
    );
    assert_eq!(rows.rejections.total(), 0);
}

/// Scenario: empty requests and empty bodies.
/// Guarantees: an empty object is a request without rows; nothing at all is malformed, but as NDJSON has no lines.
#[test]
fn empty_requests_succeed() {
    for signal in Signal::ALL {
        for body in [
            "{}",
            r#"{"resourceLogs":[],"resourceSpans":[{}],"resourceMetrics":null}"#,
        ] {
            assert_eq!(json(signal, body).unwrap().rows(), 0);
        }
        for body in ["", " ", "null", "[]", "1", "{}{}", "\u{feff}", "{\"a\":1,}"] {
            malformed(json(signal, body));
        }
    }
    assert_eq!(lines("\r\n\n").unwrap().rows(), 0);
}

/// Scenario: a list of records stands twice in one object.
/// Guarantees: malformed, because the records of one would vanish; other keys: the last wins.
#[test]
fn repeated_keys() {
    let twice = r#""logRecords":[{}],"logRecords":[{}]"#;
    let reason = malformed(json(
        Signal::Logs,
        &format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{{twice}}}]}}]}}"#),
    ));
    assert!(reason.contains("stands twice"), "{reason}");
    malformed(json(
        Signal::Logs,
        r#"{"resourceLogs":[],"resourceLogs":[]}"#,
    ));
    malformed(json(
        Signal::Logs,
        r#"{"resourceLogs":[{"scopeLogs":[],"scope_logs":[]}]}"#,
    ));
    let rows = logs(
        r#"{"body":{"intValue":1},"body":{"intValue":2},"attributes":[{"key":"a"}],"attributes":[]}"#,
    );
    assert_cells(
        &rows.unwrap(),
        Table::Logs,
        &[("body", "2"), ("log_attributes", "-")],
    );
}

/// Scenario: NDJSON with blank lines, CRLF and a bad line.
/// Guarantees: one request a line; the error names the body's line and column, and nothing is kept.
#[test]
fn ndjson_is_one_request_a_line() {
    let line = |body: &str| {
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{body}}}]}}]}}]}}"#)
    };
    let [one, two, bad] = [r#"{"intValue":1}"#, r#"{"intValue":"2"}"#, "5"].map(line);
    let rows = lines(&format!("\u{feff}{one}\r\n\n  \r\n{two}")).unwrap();
    assert_eq!(column(&rows, Table::Logs, "body"), ["1", "2"]);
    let budget = Budget::new(1 << 20);
    let body = format!("{one}\r\n\r\n{bad}\n{two}\n");
    let reason = malformed(decode_lines(
        Signal::Logs,
        body.as_bytes(),
        RECEIVED,
        budget.empty(),
    ));
    assert!(reason.contains(" at line 3 column "), "{reason}");
    assert_eq!(budget.reserved(), 0);
    assert!(malformed(lines("{}\nnull")).ends_with("at line 2 column 0"));
    assert!(malformed(lines("{}\n{")).contains("at line 2 column 1"));
}

/// Scenario: a wrong value deep inside a pretty-printed request.
/// Guarantees: the reason names its line and column in the whole body.
#[test]
fn errors_stand_at_their_place_in_the_body() {
    let body = "{\"resourceLogs\": [\n {\"scopeLogs\": [\n  {\"logRecords\": [\n   {},\n   {\"flags\":\n    \"no\"}]}]}]}";
    assert_eq!(
        malformed(json(Signal::Logs, body)),
        "OTLP/JSON: expected an integer, as a number or a string at line 6 column 9"
    );
    let body = r#"{"resourceLogs": [{"scopeLogs": "private"}]}"#;
    assert_eq!(
        malformed(json(Signal::Logs, body)),
        "OTLP/JSON: invalid type: string, expected a list of scopes with their records at line 1 column 41"
    );
    let reason = malformed(decode(
        Signal::Logs,
        b"{\"a\":\"\xff\"}",
        0,
        Budget::new(99).empty(),
    ));
    assert_eq!(reason, "OTLP/JSON: invalid UTF-8 at byte 6");
}

/// Scenario: values nested to the limit and one beyond, as lists and as maps, in a body and in an event.
/// Guarantees: the limit is the protobuf decoder's, whatever serde_json's own is; unknown fields may nest deeper.
#[test]
fn nesting_is_bounded() {
    let lists = |depth| r#"{"arrayValue":{"values":["#.repeat(depth) + "{}" + &"]}}".repeat(depth);
    let maps = |depth| {
        r#"{"kvlistValue":{"values":[{"key":"m","value":"#.repeat(depth)
            + "{}"
            + &"}]}}".repeat(depth)
    };
    let id = r#""traceId":"01010101010101010101010101010101","spanId":"0101010101010101""#;
    for nested in [lists, maps] as [fn(usize) -> String; 2] {
        let deepest = nested(VALUE_DEPTH_MAX - 1);
        attribute(&deepest).unwrap();
        logs(&format!(r#"{{"body":{deepest}}}"#)).unwrap();
        let events = format!(r#"{{{id},"events":[{{"attributes":[{{"value":{deepest}}}]}}]}}"#);
        assert_eq!(spans(&events).unwrap().rows(), 1);
        for depth in [VALUE_DEPTH_MAX, 1000] {
            let reason = malformed(logs(&format!(r#"{{"body":{}}}"#, nested(depth))));
            assert!(reason.contains("nest deeper than 64 at line 1"), "{reason}");
        }
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(
        json(Signal::Logs, &format!(r#"{{"x":{deep}}}"#))
            .unwrap()
            .rows(),
        0
    );
    malformed(json(Signal::Logs, &deep));
}

/// Scenario: a span with everything, then spans with bad ids.
/// Guarantees: every column; each bad span is refused alone with its reason.
#[test]
fn spans_with_everything_and_bad_ones() {
    let rows = spans(
        r#"{"status":{"code":"STATUS_CODE_ERROR","message":"broken"},"kind":"SPAN_KIND_SERVER","name":"GET",
        "traceId":"000102030405060708090a0b0c0d0e0f","spanId":"0001020304050607","parentSpanId":"0101010101010101",
        "traceState":"a=b","flags":257,"startTimeUnixNano":"100","endTimeUnixNano":"90",
        "events":[{"timeUnixNano":7,"name":"e","attributes":[{"key":"k","value":{"intValue":1}}],"droppedAttributesCount":1},{}],
        "links":[{"traceId":"000102030405060708090a0b0c0d0e0f","spanId":"0001020304050607","traceState":"c","flags":1,
          "attributes":[{"key":"l"}],"droppedAttributesCount":2},{"spanId":"0000000000000000"}],
        "attributes":[{"key":"b","value":{"stringValue":"x"}},{"key":"a","value":{"boolValue":true}}],
        "droppedAttributesCount":1,"droppedEventsCount":"2","droppedLinksCount":3},
        {"traceId":"0001020304050607","spanId":"0001020304050607"},
        {"traceId":"AAECAwQFBgcICQoLDA0ODw==","spanId":"0001020304050607"},
        {"traceId":"0123456789abcdef0123456789abcdeg","spanId":"0001020304050607"},
        {"traceId":"000102030405060708090a0b0c0d0e0f","spanId":"01234567"},
        {"traceId":"000102030405060708090a0b0c0d0e0f"},
        {"traceId":"000102030405060708090a0b0c0d0e0f","spanId":"0001020304050607","parentSpanId":"none"},
        {"traceId":"000102030405060708090a0b0c0d0e0f","spanId":"0001020304050607","endTimeUnixNano":"18446744073709551615"}"#,
    )
    .unwrap();
    assert_cells(
        &rows,
        Table::Traces,
        &[
            ("start_time_unix_nano", "1970-01-01T00:00:00.000000100"),
            ("duration_time_unix_nano", "-10"),
            ("trace_id", "000102030405060708090a0b0c0d0e0f"),
            ("span_id", "0001020304050607"),
            ("parent_span_id", "0101010101010101"),
            ("trace_state", "a=b"),
            ("name", "GET"),
            ("kind", "2"),
            ("status_code", "2"),
            ("status_status_message", "broken"),
            ("span_attributes", r#"{"a":true,"b":"x"}"#),
            (
                "events_json",
                r#"[{"time_unix_nano":7,"name":"e","attributes":{"k":1},"dropped_attributes_count":1},{"name":""}]"#,
            ),
            (
                "links_json",
                r#"[{"trace_id":"000102030405060708090a0b0c0d0e0f","span_id":"0001020304050607","trace_state":"c","attributes":{"l":null},"dropped_attributes_count":2,"flags":1},{}]"#,
            ),
            ("dropped_attributes_count", "1"),
            ("dropped_events_count", "2"),
            ("dropped_links_count", "3"),
            ("flags", "257"),
        ],
    );
    let refused: Vec<_> = rows.rejections.by_reason().collect();
    assert_eq!(
        refused,
        [
            (RecordError::BadTraceId, 3),
            (RecordError::BadSpanId, 2),
            (RecordError::BadParentSpanId, 1),
            (RecordError::TimeOutOfRange, 1),
        ]
    );
    let plain = spans(
        r#"{"traceId":"01010101010101010101010101010101","spanId":"0101010101010101","events":[],"links":null}"#,
    );
    assert_cells(
        &plain.unwrap(),
        Table::Traces,
        &[("events_json", "-"), ("links_json", "-")],
    );
}

/// Scenario: gauges and sums, with every form of value and an exemplar, and metrics without data.
/// Guarantees: ints and doubles in their own columns, a point without a value kept, no rows for metrics without data.
#[test]
fn number_points() {
    let rows = metrics(
        r#"{"name":"none"},{"name":"empty","gauge":{}},{"name":"null","sum":null},
        {"gauge":{"dataPoints":[{"asInt":"5"},{"asInt":6},{"asDouble":1},{"asDouble":"NaN"},{"flags":1},{"asInt":1,"asDouble":2.5}]},
         "name":"g","description":"d","unit":"By","metadata":[{"key":"m","value":{"intValue":1}}]},
        {"name":"s","sum":{"dataPoints":[{"timeUnixNano":"2","startTimeUnixNano":1,"asInt":"-1","attributes":[{"key":"p"}],
          "exemplars":[{"timeUnixNano":3,"asInt":"4","traceId":"000102030405060708090a0b0c0d0e0f","spanId":"0001020304050607",
            "filteredAttributes":[{"key":"f","value":{"stringValue":"x"}}]},{"asDouble":1}]}],
          "isMonotonic":true,"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA"}}"#,
    )
    .unwrap();
    assert_eq!(
        column(&rows, Table::Gauge, "int_value"),
        ["5", "6", "-", "-", "-", "-"]
    );
    assert_eq!(
        column(&rows, Table::Gauge, "double_value"),
        ["-", "-", "1.0", "NaN", "-", "2.5"]
    );
    assert_eq!(column(&rows, Table::Gauge, "metadata"), [r#"{"m":1}"#; 6]);
    assert_cells(
        &rows,
        Table::Sum,
        &[
            ("name", "s"),
            ("description", "-"),
            ("time_unix_nano", "1970-01-01T00:00:00.000000002"),
            ("start_time_unix_nano", "1970-01-01T00:00:00.000000001"),
            ("int_value", "-1"),
            ("double_value", "-"),
            ("aggregation_temporality", "1"),
            ("is_monotonic", "true"),
            ("metric_attributes", r#"{"p":null}"#),
            (
                "exemplars_json",
                r#"[{"time_unix_nano":3,"value":4,"trace_id":"000102030405060708090a0b0c0d0e0f","span_id":"0001020304050607","filtered_attributes":{"f":"x"}},{"value":1.0}]"#,
            ),
            ("metadata", "-"),
        ],
    );
    malformed(metrics(r#"{"gauge":{"dataPoints":[],"data_points":[]}}"#));
    malformed(metrics(r#"{"sum":{"aggregationTemporality":"DELTA"}}"#));
}

/// Scenario: histograms of both kinds and a summary; a histogram with wrong buckets.
/// Guarantees: every column, numbers as strings or numbers; the wrong one is refused alone.
#[test]
fn distribution_points() {
    let rows = metrics(
        r#"{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[
          {"count":"3","sum":1.5,"min":"0.5","max":1,"bucketCounts":["1",2,0],"explicitBounds":[0.5,"1"]},
          {"count":1,"bucketCounts":[1,2]}]}},
        {"name":"e","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"count":18446744073709551615,"sum":null,
          "scale":-2,"zeroCount":"4","zeroThreshold":0.25,"positive":{"offset":-3,"bucketCounts":["1","2"]},
          "negative":{"bucketCounts":[7],"offset":"5"},"exemplars":[]}]}},
        {"name":"q","summary":{"dataPoints":[{"count":2,"sum":"3.5","quantileValues":[{"quantile":0.5,"value":1},{"value":"2"},null],
          "exemplars":"not a field of a summary"}]}}"#,
    )
    .unwrap();
    assert_cells(
        &rows,
        Table::Histogram,
        &[
            ("count", "3"),
            ("sum", "1.5"),
            ("min", "0.5"),
            ("max", "1.0"),
            ("bucket_counts", "[1, 2, 0]"),
            ("explicit_bounds", "[0.5, 1.0]"),
            ("aggregation_temporality", "2"),
        ],
    );
    assert_cells(
        &rows,
        Table::ExpHistogram,
        &[
            ("count", "18446744073709551615"),
            ("sum", "-"),
            ("scale", "-2"),
            ("zero_count", "4"),
            ("zero_threshold", "0.25"),
            ("positive_offset", "-3"),
            ("positive_bucket_counts", "[1, 2]"),
            ("negative_offset", "5"),
            ("negative_bucket_counts", "[7]"),
            ("aggregation_temporality", "1"),
            ("exemplars_json", "-"),
        ],
    );
    assert_cells(
        &rows,
        Table::Summary,
        &[
            ("count", "2"),
            ("sum", "3.5"),
            ("quantiles", "[0.5, 0.0]"),
            ("quantile_values", "[1.0, 2.0]"),
        ],
    );
    let refused: Vec<_> = rows.rejections.by_reason().collect();
    assert_eq!(refused, [(RecordError::BadBuckets, 1)]);
    malformed(metrics(
        r#"{"histogram":{"dataPoints":[{"bucketCounts":[null]}]}}"#,
    ));
}

/// Scenario: bodies whose bytes would become many times as much memory: empty records, attributes, events, buckets.
/// Guarantees: refused by the budget, or by the number of parts of one record; the budget is given back.
#[test]
fn small_bytes_do_not_become_large_memory() {
    let fill = |item: &str, bytes: usize| {
        let mut items = format!("{item},").repeat(bytes / (item.len() + 1));
        items.pop();
        items
    };
    let budget = Budget::new(48 << 20);
    let records = fill("{}", 16 << 20);
    for (signal, body) in [
        (
            Signal::Logs,
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#),
        ),
        (
            Signal::Metrics,
            format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":[{records}]}}}}]}}]}}]}}"#
            ),
        ),
    ] {
        let error = decode(signal, body.as_bytes(), RECEIVED, budget.empty()).unwrap_err();
        assert!(matches!(error, DecodeError::Memory(_)), "{error:?}");
        assert_eq!(budget.reserved(), 0);
    }
    let empty = fill("{}", 4 * RECORD_PARTS_MAX);
    let zeros = fill("0", 4 * RECORD_PARTS_MAX);
    for result in [
        logs(&format!(r#"{{"attributes":[{empty}]}}"#)),
        logs(&format!(
            r#"{{"body":{{"arrayValue":{{"values":[{empty}]}}}}}}"#
        )),
        logs(&format!(
            r#"{{"body":{{"kvlistValue":{{"values":[{empty}]}}}}}}"#
        )),
        spans(&format!(r#"{{"events":[{empty}]}}"#)),
        spans(&format!(r#"{{"links":[{empty}]}}"#)),
        metrics(&format!(r#"{{"metadata":[{empty}]}}"#)),
        metrics(&format!(
            r#"{{"gauge":{{"dataPoints":[{{"exemplars":[{empty}]}}]}}}}"#
        )),
        metrics(&format!(
            r#"{{"histogram":{{"dataPoints":[{{"bucketCounts":[{zeros}]}}]}}}}"#
        )),
        metrics(&format!(
            r#"{{"summary":{{"dataPoints":[{{"quantileValues":[{empty}]}}]}}}}"#
        )),
        json(
            Signal::Logs,
            &format!(r#"{{"resourceLogs":[{{"resource":{{"attributes":[{empty}]}}}}]}}"#),
        ),
    ] {
        let reason = malformed(result);
        assert!(reason.contains("more than 131072 attributes"), "{reason}");
    }
    let many = fill("{}", RECORD_PARTS_MAX);
    let record = format!(r#"{{"attributes":[{many}]}}"#);
    assert_eq!(
        logs(&format!("{record},{record},{record},{record}"))
            .unwrap()
            .rows(),
        4
    );
}

/// Scenario: a body that is larger than the budget leaves room for.
/// Guarantees: refused before it is read.
#[test]
fn a_body_is_reserved_ahead() {
    let body = " ".repeat(100);
    let error = decode(Signal::Logs, body.as_bytes(), 0, Budget::new(199).empty()).unwrap_err();
    assert!(matches!(error, DecodeError::Memory(_)));
}

/// Scenario: the captured OTLP/JSON requests of Claude Code.
/// Guarantees: every record is accepted, with the names and times it was sent with.
#[test]
fn claude_code_requests_are_accepted_in_full() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/agents/claude-httpjson/"
    );
    let read = |signal, file: &str| {
        let body = std::fs::read(format!("{folder}{file}")).unwrap();
        let rows = decode(signal, &body, RECEIVED, Budget::new(64 << 20).empty()).unwrap();
        assert_eq!(rows.rejections.total(), 0);
        rows
    };
    let first = read(Signal::Logs, "002-logs-http.json");
    let second = read(Signal::Logs, "003-logs-http.json");
    assert_eq!(first.rows() + second.rows(), 19);
    for rows in [&first, &second] {
        assert!(
            column(rows, Table::Logs, "service_name")
                .iter()
                .all(|name| name == "claude-code")
        );
        assert!(
            column(rows, Table::Logs, "event_name")
                .iter()
                .all(|name| name != "-")
        );
        assert!(
            column(rows, Table::Logs, "time_unix_nano")
                .iter()
                .all(|at| at.starts_with("2026-"))
        );
    }
    let spans = read(Signal::Traces, "005-traces-http.json");
    assert_eq!(spans.rows(), 18);
    let durations = column(&spans, Table::Traces, "duration_time_unix_nano");
    assert!(
        durations
            .iter()
            .all(|nanos| nanos.parse::<i64>().unwrap() >= 0)
    );
    for file in ["001-metrics-http.json", "004-metrics-http.json"] {
        let metrics = read(Signal::Metrics, file);
        let sums = column(&metrics, Table::Sum, "double_value");
        assert!(
            !sums.is_empty() && sums.iter().all(|value| value != "-"),
            "{sums:?}"
        );
        assert_eq!(metrics.rows(), sums.len() as u64);
    }
}

/// JSON that is often nearly a request.
fn near_requests() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "1",
        "-1e3",
        "\"1\"",
        "true",
        "\"\\u00e9\"",
        "\n",
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"#,
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"#,
        r#""attributes":[{"key":"k","value":{"#,
        r#""body":{"#,
        r#""stringValue":"#,
        r#""intValue":"#,
        r#""arrayValue":{"values":["#,
        r#""kvlistValue":{"values":[{"#,
        r#""bytesValue":"#,
        r#""doubleValue":"#,
        r#""traceId":"#,
        r#""events":[{"#,
        r#""asInt":"#,
        r#""exemplars":[{"#,
        r#""kind":"#,
        r#""timeUnixNano":"#,
        "}]}]}]}",
        "}}]",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.concat())
}

proptest! {
    /// Scenario: any bytes at all, and text of JSON's pieces.
    /// Guarantees: rows or an error of bounded length, never a panic; the budget is given back.
    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
        text in near_requests(),
    ) {
        let budget = Budget::new(64 << 20);
        for body in [bytes.as_slice(), text.as_bytes()] {
            for signal in Signal::ALL {
                for read in [decode, decode_lines] {
                    if let Err(DecodeError::Malformed(reason)) = read(signal, body, RECEIVED, budget.empty()) {
                        prop_assert!(reason.len() < 300);
                    }
                }
            }
        }
        prop_assert_eq!(budget.reserved(), 0);
    }

    /// Scenario: integers and doubles of any value, as numbers and as strings.
    /// Guarantees: ints keep every digit, doubles read back bit for bit.
    #[test]
    fn numbers_survive(int: i64, double in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
        for quote in ["", "\""] {
            prop_assert_eq!(attribute(&format!(r#"{{"intValue":{quote}{int}{quote}}}"#)).unwrap(), int.to_string());
            let text = attribute(&format!(r#"{{"doubleValue":{quote}{double:?}{quote}}}"#)).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), double.to_bits());
        }
    }
}
