//! What a producer writes, read back with plain arrow-ipc.

mod dictionaries;
pub(crate) mod reader;
mod signals;

use self::reader::{Message, Reader, messages};
use std::num::{NonZeroU64, NonZeroUsize};

use proptest::prelude::{
    Just, ProptestConfig, Strategy, prop, prop_assert_eq, prop_oneof, proptest,
};

use super::*;
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use crate::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::proto::resource::v1::Resource;

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(value: &str) -> Option<AnyValue> {
    any(Value::StringValue(value.to_owned()))
}

fn int(value: i64) -> Option<AnyValue> {
    any(Value::IntValue(value))
}

fn kv(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

/// A record with these attributes.
fn record(attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: 1,
        attributes,
        ..LogRecord::default()
    }
}

/// Records of one resource and scope, neither with anything of its own.
fn request(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs {
        log_records,
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        scope_logs,
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }
}

/// Attributes of every kind, many of them the same for several records.
fn weird_attributes(n: i64) -> Vec<KeyValue> {
    let nested = KeyValueList {
        values: vec![kv("a", int(-1)), kv("b", None)],
    };
    let array = ArrayValue {
        values: vec![text("x").unwrap(), any(Value::BoolValue(true)).unwrap()],
    };
    vec![
        kv("same", text("same")),
        kv("empty text", text("")),
        kv("route", text(&format!("/{}", n % 3))),
        kv("same", text("again")),
        kv("int", int(n % 2)),
        kv(
            "double",
            any(Value::DoubleValue(
                [0.0, -0.0, 0.5, f64::NAN][n as usize % 4],
            )),
        ),
        kv("true", any(Value::BoolValue(n % 2 == 0))),
        kv(
            "bytes",
            any(Value::BytesValue(vec![1, (n % 2) as u8].into())),
        ),
        kv("no bytes", any(Value::BytesValue(Bytes::new()))),
        kv("map", any(Value::KvlistValue(nested))),
        kv("array", any(Value::ArrayValue(array))),
        kv("none", None),
        kv("zero", any(Value::DoubleValue([0.0, -0.0][n as usize % 2]))),
    ]
}

/// What [`reader::Tables::attributes`] shall say of [`weird_attributes`].
fn weird_text(n: i64) -> Vec<String> {
    let mut expected = vec![
        "array=6:9f6178f5ff".to_owned(),
        format!("bytes=7:010{}", n % 2),
        format!("double=3:{}", ["0.0", "-0.0", "0.5", "NaN"][n as usize % 4]),
        "empty text=1:".to_owned(),
        format!("int=2:{}", n % 2),
        "map=5:bf6161206162f6ff".to_owned(),
        "no bytes=7:".to_owned(),
        "none=0:".to_owned(),
        format!("route=1:/{}", n % 3),
        "same=1:again".to_owned(),
        "same=1:same".to_owned(),
        format!("true=4:{}", n % 2 == 0),
        format!("zero=3:{}", ["0.0", "-0.0"][n as usize % 2]),
    ];
    expected.sort();
    expected
}

/// Every way of writing that keeps all values.
fn all_options() -> Vec<Options> {
    let mut all = Vec::new();
    for dictionaries in [
        Dictionaries::Delta,
        Dictionaries::Resend,
        Dictionaries::Renew,
        Dictionaries::Native,
    ] {
        for ids in [
            IdEncoding::Unmarked,
            IdEncoding::Marked,
            IdEncoding::Plain,
            IdEncoding::Delta,
        ] {
            for (late_columns, pieces) in [(true, 1), (false, 3)] {
                all.push(Options {
                    dictionaries,
                    ids,
                    late_columns,
                    record_batches: pieces.try_into().unwrap(),
                    ..Options::default()
                });
            }
        }
    }
    all
}

/// Scenario: two batches of records with attributes of every kind and none, two resources, three scopes, written in each way.
/// Guarantees: every attribute is at its parent, whatever the encodings; records without attributes have no id.
#[test]
fn attributes_find_their_parents() {
    let resource = |n: i64| ResourceLogs {
        resource: Some(Resource {
            attributes: weird_attributes(n),
            dropped_attributes_count: n as u32,
            ..Resource::default()
        }),
        scope_logs: (0..=n)
            .map(|scope| ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: format!("scope {scope}"),
                    attributes: vec![kv("scope", int(scope))],
                    ..InstrumentationScope::default()
                }),
                log_records: (0..5)
                    .map(|n| record(if n == 2 { vec![] } else { weird_attributes(n) }))
                    .collect(),
                schema_url: "scope's".to_owned(),
            })
            .collect(),
        schema_url: format!("resource's {n}"),
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![resource(0), resource(1)],
    };
    for options in all_options() {
        let (mut producer, mut reader) = (Producer::new(options.clone()), Reader::default());
        for batch_id in 0..3 {
            let batch = producer.logs(&request).unwrap();
            assert_eq!(batch.batch_id, batch_id);
            let tables = reader.read(&batch);
            let root = tables.get(ArrowPayloadType::Logs);
            assert_eq!(root.rows(), 15, "{options:?}");

            let ids = root.ids("id", None);
            let attributes = tables.attributes(ArrowPayloadType::LogAttrs);
            for (row, id) in ids.into_iter().enumerate() {
                match row % 5 {
                    2 => assert_eq!(id, None),
                    n => assert_eq!(
                        attributes[&id.unwrap()],
                        weird_text(n as i64),
                        "{options:?}"
                    ),
                }
            }
            let resources = root.ids("resource.id", None);
            let attributes = tables.attributes(ArrowPayloadType::ResourceAttrs);
            let scopes = root.ids("scope.id", None);
            let of_scopes = tables.attributes(ArrowPayloadType::ScopeAttrs);
            for row in 0..15 {
                let n = i64::from(row >= 5);
                assert_eq!(attributes[&resources[row].unwrap()], weird_text(n));
                let scope = usize::from(row >= 10);
                assert_eq!(
                    of_scopes[&scopes[row].unwrap()],
                    [format!("scope=2:{scope}")]
                );
                assert_eq!(root.text("scope.name", row), format!("scope {scope}"));
                assert_eq!(root.text("schema_url", row), "scope's");
                assert_eq!(
                    root.text("resource.schema_url", row),
                    format!("resource's {n}")
                );
            }
        }
    }
}

/// Scenario: zeros, false, empty texts and bytes written as nulls, by producers that mark their columns and that do not.
/// Guarantees: the type is still there, and each attribute at its parent, though only the latter take no bytes for equal.
#[test]
fn defaults_can_be_nulls() {
    for ids in [IdEncoding::Unmarked, IdEncoding::Marked] {
        let options = Options {
            defaults_as_null: true,
            ids,
            ..Options::default()
        };
        let attributes = || {
            vec![
                kv("bytes", any(Value::BytesValue(Bytes::new()))),
                kv("text", text("")),
                kv("int", int(0)),
                kv("false", any(Value::BoolValue(false))),
            ]
        };
        let logs = request((0..3).map(|_| record(attributes())).collect());
        let batch = Producer::new(options).logs(&logs).unwrap();
        let tables = Reader::default().read(&batch);
        let table = tables.get(ArrowPayloadType::LogAttrs);
        assert!(table.column("int").is_none() && table.column("str").is_none());
        let found = tables.attributes(ArrowPayloadType::LogAttrs);
        assert_eq!(found.len(), 3);
        for attributes in found.into_values() {
            assert_eq!(attributes, ["bytes=7:", "false=4:", "int=2:", "text=1:"]);
        }
        let last = table.text("parent_id", 11);
        assert_eq!(last, if ids == IdEncoding::Marked { "2" } else { "1" });
    }
}

/// An attribute's value of any kind, few of each, so that many are equal.
fn random_value() -> impl Strategy<Value = Option<AnyValue>> {
    let leaf = prop_oneof![
        Just(None),
        "[ab]{0,2}".prop_map(|value| text(&value)),
        (-1..2_i64).prop_map(int),
        prop::sample::select(vec![0.0, -0.0, f64::NAN, 1.5])
            .prop_map(|value| any(Value::DoubleValue(value))),
        any_bool().prop_map(|value| any(Value::BoolValue(value))),
        "[ab]{0,1}".prop_map(|value| any(Value::BytesValue(value.into()))),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(|values| {
            let values = values.into_iter().map(Option::unwrap_or_default).collect();
            any(Value::ArrayValue(ArrayValue { values }))
        })
    })
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

fn random_options() -> impl Strategy<Value = Options> {
    let all = all_options();
    (0..all.len(), any_bool(), any_bool(), 0..3_u64).prop_map(
        move |(place, defaults_as_null, root_last, reset)| Options {
            defaults_as_null,
            root_last,
            schema_reset_batches: NonZeroU64::new(reset),
            ..all[place].clone()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// Scenario: random attributes in several batches of one stream, written in a random way.
    /// Guarantees: each batch says of each record what the request said.
    #[test]
    fn any_attributes_of_any_batches_read_back(
        batches in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(("[ab]", random_value()), 0..4), 1..12),
            1..4,
        ),
        options in random_options(),
    ) {
        // What a record's attributes say, written alone and without any difference to another.
        let alone = |attributes: &[KeyValue]| {
            let options = Options { ids: IdEncoding::Plain, ..options.clone() };
            let batch = Producer::new(options).logs(&request(vec![record(attributes.to_vec())]));
            let tables = Reader::default().read(&batch.unwrap());
            tables.attributes(ArrowPayloadType::LogAttrs).remove(&0).unwrap()
        };
        let (mut producer, mut reader) = (Producer::new(options.clone()), Reader::default());
        for attributes in batches {
            let records: Vec<Vec<KeyValue>> = attributes
                .into_iter()
                .map(|of_record| of_record.into_iter().map(|(key, value)| kv(&key, value)).collect())
                .collect();
            let logs = request(records.iter().cloned().map(record).collect());
            let tables = reader.read(&producer.logs(&logs).unwrap());
            let ids = tables.get(ArrowPayloadType::Logs).ids("id", None);
            for (attributes, id) in records.iter().zip(ids) {
                prop_assert_eq!(attributes.is_empty(), id.is_none());
                if let Some(id) = id {
                    let found = &tables.attributes(ArrowPayloadType::LogAttrs)[&id];
                    prop_assert_eq!(found, &alone(attributes));
                }
            }
        }
    }
}

/// Scenario: a thousand records with the same attribute, by quasi-delta.
/// Guarantees: all parent ids but the first are written as 1.
#[test]
fn quasi_delta_pays() {
    let records = (0..1000).map(|n| record(vec![kv("n", int(n)), kv("k", text("v"))]));
    let batch = Producer::new(Options::default())
        .logs(&request(records.collect()))
        .unwrap();
    let tables = Reader::default().read(&batch);
    let table = tables.get(ArrowPayloadType::LogAttrs);
    let parents = table.texts("parent_id");
    assert_eq!(table.texts("key")[..1000], vec!["k"; 1000]);
    assert_eq!(parents[0], "0");
    assert_eq!(parents[1..1000], vec!["1"; 999]);
}

/// Scenario: columns that get their first value in the second batch, and none in the third.
/// Guarantees: they are absent, then there under a new schema id, and stay; other tables go on under theirs.
#[test]
fn columns_appear_with_their_first_value() {
    let plain = || request(vec![record(vec![kv("k", text("v"))])]);
    let mut named = plain();
    let record = &mut named.resource_logs[0].scope_logs[0].log_records[0];
    record.event_name = "late".to_owned();
    record.flags = 7;

    let (mut producer, mut reader) = (Producer::new(Options::default()), Reader::default());
    let batches = [&plain(), &named, &plain()].map(|request| producer.logs(request).unwrap());
    let roots: Vec<&str> = batches
        .iter()
        .map(|batch| &*batch.arrow_payloads[0].schema_id)
        .collect();
    assert!(roots[0] != roots[1] && roots[1] == roots[2], "{roots:?}");
    let attributes = batches
        .iter()
        .map(|batch| &batch.arrow_payloads[1].schema_id);
    assert!(
        attributes
            .clone()
            .all(|id| *id == batches[0].arrow_payloads[1].schema_id)
    );
    assert_ne!(roots[0], batches[0].arrow_payloads[1].schema_id);

    let names = batches.map(|batch| {
        let tables = reader.read(&batch);
        let root = tables.get(ArrowPayloadType::Logs);
        let column = root.column("event_name");
        column.map(|_| (root.text("event_name", 0), root.text("flags", 0)))
    });
    let late = ("late".to_owned(), "7".to_owned());
    let empty = (String::new(), String::new());
    assert_eq!(names, [None, Some(late), Some(empty)]);

    let all = Options {
        late_columns: false,
        ..Options::default()
    };
    let batch = Producer::new(all).logs(&plain()).unwrap();
    let tables = Reader::default().read(&batch);
    assert!(
        tables
            .get(ArrowPayloadType::Logs)
            .column("event_name")
            .is_some()
    );
    assert!(
        tables
            .get(ArrowPayloadType::Logs)
            .column("body.ser")
            .is_some()
    );
}

/// Scenario: bodies of every kind, one empty and one that is not there.
/// Guarantees: type and value of each; only the one that is not there is null.
#[test]
fn bodies_keep_their_kind() {
    let bodies = weird_attributes(1).into_iter().map(|attribute| LogRecord {
        body: Some(attribute.value.unwrap_or_default()),
        ..LogRecord::default()
    });
    let mut records: Vec<LogRecord> = bodies.collect();
    records.push(LogRecord::default());
    let batch = Producer::new(Options::default())
        .logs(&request(records))
        .unwrap();
    let tables = Reader::default().read(&batch);
    assert_eq!(tables.types(), [ArrowPayloadType::Logs]);
    let root = tables.get(ArrowPayloadType::Logs);
    let kinds = [
        "1", "1", "1", "1", "2", "3", "4", "7", "7", "5", "6", "0", "3", "",
    ];
    assert_eq!(root.texts("body.type"), kinds);
    assert_eq!(root.texts("body.str")[..4], ["same", "", "/1", "again"]);
    assert_eq!(root.text("body.int", 4), "1");
    assert_eq!(root.text("body.ser", 9), "bf6161206162f6ff");
    assert!(root.is_null("body", 13) && !root.is_null("body", 11));
}

/// Scenario: bodies of messages compressed and not.
/// Guarantees: the messages say so.
#[test]
fn bodies_of_messages_are_compressed_as_asked() {
    let logs = request(vec![record(vec![kv("k", text("v"))])]);
    for (compression, zstd) in [(Compression::Zstd, true), (Compression::None, false)] {
        let options = Options {
            compression,
            ..Options::default()
        };
        let batch = Producer::new(options).logs(&logs).unwrap();
        Reader::default().read(&batch);
        for payload in &batch.arrow_payloads {
            assert_eq!(messages(payload).last(), Some(&Message::Records { zstd }));
        }
    }
}

/// Scenario: payloads in the other order, schema ids of their own for each type, new ones every two batches, cut tables.
/// Guarantees: each option does what it says.
#[test]
fn the_order_the_ids_and_the_pieces_can_be_others() {
    let logs = request((0..10).map(|n| record(vec![kv("k", int(n))])).collect());
    let options = Options {
        root_last: true,
        shared_schema_ids: true,
        schema_reset_batches: NonZeroU64::new(2),
        record_batches: NonZeroUsize::new(4).unwrap(),
        ..Options::default()
    };
    let (mut producer, mut reader) = (Producer::new(options), Reader::default());
    let mut ids = Vec::new();
    for _ in 0..5 {
        let batch = producer.logs(&logs).unwrap();
        let [attributes, root] = &batch.arrow_payloads[..] else {
            panic!("{batch:?}");
        };
        assert_eq!(root.r#type(), ArrowPayloadType::Logs);
        assert_eq!(root.schema_id, attributes.schema_id);
        let records = messages(root)
            .into_iter()
            .filter(|message| matches!(message, Message::Records { .. }));
        assert_eq!(records.count(), 4);
        let found = reader.read(&batch).attributes(ArrowPayloadType::LogAttrs);
        assert_eq!(found[&9], ["k=2:9"]);
        ids.push(root.schema_id.clone());
    }
    assert_eq!(ids, ["1", "1", "2", "2", "3"]);
}

/// Scenario: ids that are there, are not, and have a wrong length.
/// Guarantees: the last two are nulls, or zeros if asked for.
#[test]
fn unset_ids_are_nulls_or_zeros() {
    let with = |trace_id: &'static [u8]| LogRecord {
        trace_id: trace_id.into(),
        ..LogRecord::default()
    };
    let logs = request(vec![with(&[1; 16]), with(&[]), with(&[2; 15])]);
    for (unset_ids_as_zeros, unset) in [(false, String::new()), (true, "00".repeat(16))] {
        let options = Options {
            unset_ids_as_zeros,
            ..Options::default()
        };
        let batch = Producer::new(options).logs(&logs).unwrap();
        let tables = Reader::default().read(&batch);
        let found = tables.get(ArrowPayloadType::Logs).texts("trace_id");
        assert_eq!(found, ["01".repeat(16), unset.clone(), unset]);
    }
}

/// Scenario: one record with attributes more than ids tell apart, then as many as they do.
/// Guarantees: an error that says so and uses up no batch id; the stream goes on.
#[test]
fn too_many_parents_are_refused() {
    let mut records = vec![record(vec![kv("k", text("v"))]); PARENTS_MAX + 1];
    let mut producer = Producer::new(Options::default());
    let error = producer.logs(&request(records.clone())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a batch holds 65536 log records, limit 65535: divide it"
    );
    records[7].attributes.clear();
    let batch = producer.logs(&request(records)).unwrap();
    assert_eq!(batch.batch_id, 0);
    let tables = Reader::default().read(&batch);
    let ids = tables.get(ArrowPayloadType::Logs).ids("id", None);
    assert_eq!(ids[65_535], Some(65_534));
    let attributes = tables.attributes(ArrowPayloadType::LogAttrs);
    assert_eq!(attributes.len(), PARENTS_MAX);
}

/// Scenario: a request without records.
/// Guarantees: a batch without payloads, which is an empty batch.
#[test]
fn nothing_is_no_payload() {
    let mut producer = Producer::new(Options::default());
    let batch = producer.logs(&ExportLogsServiceRequest::default()).unwrap();
    assert!(batch.arrow_payloads.is_empty());
    let batch = producer.logs(&request(vec![])).unwrap();
    assert_eq!((batch.batch_id, batch.arrow_payloads.len()), (1, 0));
}
