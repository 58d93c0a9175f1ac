//! Logs: against OTLP's decoder, and the rules of single columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, StringArray, TimestampNanosecondArray, UInt16Array, UInt32Array,
};
use proptest::prelude::*;
use prost::Message;

use super::attributes::{any, attribute, attributes, nested};
use super::produce::{AttributeRows, Counter, Group, Producer};
use super::*;
use crate::decode::protobuf;
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::proto::resource::v1::Resource;

fn times(times: impl Iterator<Item = u64>) -> ArrayRef {
    let times = times.map(u64::cast_signed);
    Arc::new(TimestampNanosecondArray::from_iter_values(times))
}

/// The tables of a request.
fn produce(request: &ExportLogsServiceRequest, form: &Form) -> Tables {
    let mut producer = Producer::new(form);
    let mut rows = Vec::new();
    let mut scopes = 0;
    for (number, group) in request.resource_logs.iter().enumerate() {
        let resource = group.resource.as_ref().unwrap();
        let resource = Group::resource(number, resource, &group.schema_url);
        for logs in &group.scope_logs {
            let scope = Group::scope(scopes, logs.scope.as_ref().unwrap(), &logs.schema_url);
            scopes += 1;
            rows.extend(logs.log_records.iter().map(|log| (resource, scope, log)));
        }
    }
    let (mut counter, mut attributes) = (Counter::default(), AttributeRows::default());
    let ids = rows.iter().map(|(_, _, log)| {
        let id = counter.next_if(!log.attributes.is_empty())?;
        attributes.add(id, &log.attributes);
        Some(id)
    });
    let ids = ids.collect::<Vec<Option<u32>>>();
    let contexts = rows.iter().map(|(resource, scope, _)| (resource, scope));
    let mut columns = producer.context(&contexts.collect::<Vec<(&Group<'_>, &Group<'_>)>>());
    let logs = || rows.iter().map(|(_, _, log)| *log);
    let ids = producer.own_ids(&ids).into_iter();
    let bodies = logs().map(|log| log.body.clone());
    let body = producer.values(&bodies.collect::<Vec<Option<AnyValue>>>());
    columns.extend([
        (
            "id",
            Arc::new(
                ids.map(|id| id.map(|id| id as u16))
                    .collect::<UInt16Array>(),
            ) as ArrayRef,
        ),
        (
            "time_unix_nano",
            times(logs().map(|log| log.time_unix_nano)),
        ),
        (
            "observed_time_unix_nano",
            times(logs().map(|log| log.observed_time_unix_nano)),
        ),
        (
            "trace_id",
            producer.identifiers(logs().map(|log| log.trace_id.as_ref()), 16),
        ),
        (
            "span_id",
            producer.identifiers(logs().map(|log| log.span_id.as_ref()), 8),
        ),
        (
            "severity_number",
            producer.shared(Arc::new(Int32Array::from_iter_values(
                logs().map(|log| log.severity_number),
            ))),
        ),
        (
            "severity_text",
            producer.texts(logs().map(|log| log.severity_text.as_str())),
        ),
        (
            "event_name",
            producer.texts(logs().map(|log| log.event_name.as_str())),
        ),
        ("body", structure(body)),
        (
            "dropped_attributes_count",
            Arc::new(UInt32Array::from_iter_values(
                logs().map(|log| log.dropped_attributes_count),
            )),
        ),
        (
            "flags",
            Arc::new(UInt32Array::from_iter_values(logs().map(|log| log.flags))),
        ),
    ]);
    let root = producer.stated(&table(columns), "delta");
    producer.tables.push((ArrowPayloadType::Logs, root));
    producer.attributes(ArrowPayloadType::LogAttrs, attributes, false);
    producer.finish()
}

fn expected(request: &ExportLogsServiceRequest) -> Rows {
    let budget = Budget::new(256 << 20);
    protobuf::decode(
        Signal::Logs,
        &request.encode_to_vec(),
        RECEIVED,
        budget.empty(),
    )
    .unwrap()
}

fn request(groups: Vec<(Vec<KeyValue>, Vec<LogRecord>)>) -> ExportLogsServiceRequest {
    let groups = groups
        .into_iter()
        .enumerate()
        .map(|(number, (attributes, logs))| {
            let dropped = number as u32;
            let (head, tail) = logs.split_at(logs.len() / 2);
            let scopes = [head, tail]
                .into_iter()
                .enumerate()
                .map(|(scope, logs)| ScopeLogs {
                    scope: Some(InstrumentationScope {
                        name: format!("scope {scope}"),
                        version: "1.2".into(),
                        attributes: attributes.iter().take(scope).cloned().collect(),
                        dropped_attributes_count: dropped,
                    }),
                    log_records: logs.to_vec(),
                    schema_url: format!("https://example.com/scope/{scope}"),
                });
            ResourceLogs {
                resource: Some(Resource {
                    attributes: attributes.clone(),
                    dropped_attributes_count: dropped,
                    ..Resource::default()
                }),
                scope_logs: scopes.collect(),
                schema_url: format!("https://example.com/{number}"),
            }
        });
    ExportLogsServiceRequest {
        resource_logs: groups.collect(),
    }
}

fn log(number: u8, body: Option<Value>, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: u64::from(number) * 1_000_000_007,
        observed_time_unix_nano: u64::from(number % 3) * 1_000_000_009,
        severity_number: i32::from(number % 25),
        severity_text: if number.is_multiple_of(2) { "INFO" } else { "" }.to_owned(),
        body: body.map(|value| AnyValue { value: Some(value) }),
        attributes,
        dropped_attributes_count: number.into(),
        flags: 1,
        trace_id: if number.is_multiple_of(2) {
            vec![number; 16]
        } else {
            Vec::new()
        }
        .into(),
        span_id: vec![number; 8].into(),
        event_name: if number == 4 { "named" } else { "" }.to_owned(),
    }
}

/// Scenario: logs with every kind of body and attribute, two resources, scopes and schema URLs, an `event.name` attribute,
/// a time out of range, in every legal form of their tables.
/// Guarantees: the rows, column by column, that OTLP gives; the log out of range is refused alone.
#[test]
fn logs_give_the_rows_of_otlp() {
    let resource = |name: &str| {
        vec![
            attribute("service.name", Value::StringValue(name.into())),
            attribute("service.namespace", Value::IntValue(7)),
            attribute("service.instance.id", Value::StringValue("i\n\"1\"".into())),
            attribute("host", nested(3)),
        ]
    };
    let events = vec![
        attribute(
            "event.name",
            Value::StringValue("from the attribute".into()),
        ),
        attribute("z", Value::DoubleValue(f64::NAN)),
        attribute("a", Value::BytesValue(vec![0, 255].into())),
    ];
    let mut out_of_range = log(9, None, attributes(2));
    out_of_range.time_unix_nano = u64::MAX;
    let request = request(vec![
        (
            resource("one"),
            vec![
                log(
                    0,
                    Some(Value::StringValue("text \u{1}".into())),
                    attributes(9),
                ),
                log(1, Some(Value::IntValue(-3)), attributes(9)),
                log(2, Some(Value::DoubleValue(0.5)), events.clone()),
                log(3, Some(Value::BoolValue(true)), Vec::new()),
                log(4, Some(nested(5)), events),
                log(5, Some(Value::StringValue(String::new())), attributes(4)),
            ],
        ),
        (
            resource("two"),
            vec![
                log(
                    6,
                    Some(Value::BytesValue(vec![1, 2, 3].into())),
                    attributes(9),
                ),
                out_of_range,
                log(7, None, attributes(1)),
            ],
        ),
    ]);
    let expected = expected(&request);
    assert_eq!((expected.rows(), expected.rejections.total()), (8, 1));
    for form in forms() {
        let rows = decode(Signal::Logs, &produce(&request, &form)).unwrap();
        assert_same(&rows, &expected);
        assert_eq!(
            column(&rows, Table::Logs, "event_name")[2],
            "from the attribute",
            "{form:?}"
        );
    }
}

/// Scenario: a log table with nothing in it but its id.
/// Guarantees: one row a log, every other field OTLP's default.
#[test]
fn missing_columns_are_the_defaults() {
    let ids: ArrayRef = Arc::new(UInt16Array::from(vec![None, None]));
    let tables = tables([(ArrowPayloadType::Logs, table(vec![("id", ids)]))]);
    let rows = decode(Signal::Logs, &tables).unwrap();
    let empty = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord::default(); 2],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    assert_same(&rows, &expected(&empty));
}

/// Scenario: times without a zone, in UTC by either name, and in another zone.
/// Guarantees: the first three are the same times, the last is refused by name.
#[test]
fn times_are_taken_in_utc_alone() {
    let times = TimestampNanosecondArray::from(vec![1_000]);
    let decode_in = |zone: Option<&str>| {
        let times: ArrayRef = Arc::new(times.clone().with_timezone_opt(zone));
        let root = table(vec![("time_unix_nano", times)]);
        decode(Signal::Logs, &tables([(ArrowPayloadType::Logs, root)]))
    };
    for zone in [None, Some("UTC"), Some("+00:00")] {
        let rows = decode_in(zone).unwrap();
        let time = column(&rows, Table::Logs, "time_unix_nano");
        assert_eq!(time, ["1970-01-01T00:00:00.000001"]);
    }
    let reason = malformed(decode_in(Some("+01:00")));
    assert!(reason.contains("column time_unix_nano of LOGS"), "{reason}");
}

/// Scenario: the attribute `event.name` is no text, or stands twice.
/// Guarantees: only text names the event; the last one does.
#[test]
fn the_last_text_of_event_name_names_the_event() {
    let event = |values: &[(u8, Option<&str>)]| {
        let parents = UInt16Array::from(vec![0; values.len()]);
        let kinds = values.iter().map(|(kind, _)| *kind);
        let kinds = arrow::array::UInt8Array::from_iter_values(kinds);
        let texts = values
            .iter()
            .map(|(_, text)| *text)
            .collect::<StringArray>();
        let keys = StringArray::from(vec!["event.name"; values.len()]);
        let attrs = table(vec![
            ("parent_id", Arc::new(parents) as ArrayRef),
            ("key", Arc::new(keys)),
            ("type", Arc::new(kinds)),
            ("str", Arc::new(texts)),
        ]);
        let root = table(vec![(
            "id",
            Arc::new(UInt16Array::from(vec![0])) as ArrayRef,
        )]);
        let tables = tables([
            (ArrowPayloadType::Logs, root),
            (ArrowPayloadType::LogAttrs, attrs),
        ]);
        let rows = decode(Signal::Logs, &tables).unwrap();
        column(&rows, Table::Logs, "event_name").remove(0)
    };
    assert_eq!(event(&[(1, Some("a")), (1, Some("b"))]), "b");
    assert_eq!(event(&[(1, Some("a")), (2, None)]), "-");
    assert_eq!(event(&[(2, None)]), "-");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Scenario: any few logs with any few attributes of few keys and values, in any form.
    /// Guarantees: the rows that OTLP gives.
    #[test]
    fn any_logs_give_the_rows_of_otlp(
        logs in proptest::collection::vec(
            (proptest::option::of(any()), super::attributes::any_attributes(), 0u8..12),
            1..12,
        ),
        form in 0usize..9,
    ) {
        let logs = logs.into_iter().map(|(body, attributes, number)| log(number, body, attributes));
        let resource = vec![attribute("service.name", Value::StringValue("s".into()))];
        let request = request(vec![(resource, logs.collect())]);
        let rows = decode(Signal::Logs, &produce(&request, &forms()[form])).unwrap();
        assert_same(&rows, &expected(&request));
    }
}
