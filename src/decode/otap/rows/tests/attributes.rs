//! Attributes: values of every kind, and how tables of them are read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray,
    UInt8Array, UInt16Array,
};
use arrow::datatypes::UInt8Type;
use proptest::prelude::*;

use super::*;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// A map that nests lists and maps.
pub(super) fn nested(depth: usize) -> Value {
    if depth == 0 {
        return Value::IntValue(1);
    }
    let inner = AnyValue {
        value: Some(nested(depth - 1)),
    };
    if depth.is_multiple_of(2) {
        let values = vec![inner, AnyValue { value: None }];
        return Value::ArrayValue(ArrayValue { values });
    }
    Value::KvlistValue(KeyValueList {
        values: vec![
            attribute("z", Value::StringValue("last\n".into())),
            KeyValue {
                key: "nested".into(),
                value: Some(inner),
                ..KeyValue::default()
            },
            attribute("a", Value::DoubleValue(-0.0)),
        ],
    })
}

/// The first attributes of a list with every kind.
pub(super) fn attributes(count: usize) -> Vec<KeyValue> {
    let all = vec![
        attribute("text", Value::StringValue("a \"quoted\" text".into())),
        attribute("int", Value::IntValue(i64::MIN)),
        attribute("double", Value::DoubleValue(0.1)),
        attribute("bool", Value::BoolValue(false)),
        attribute("map", nested(3)),
        attribute("list", nested(4)),
        attribute("bytes", Value::BytesValue(vec![7; 20].into())),
        attribute("", Value::StringValue(String::new())),
        KeyValue {
            key: "empty".into(),
            ..KeyValue::default()
        },
    ];
    all.into_iter().take(count).collect()
}

/// Any value, of few distinct ones, so that neighbours are often equal.
pub(super) fn any() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[ab\"]{0,2}".prop_map(Value::StringValue),
        (-1i64..2).prop_map(Value::IntValue),
        prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(1.5),
            Just(f64::NAN),
            Just(f64::INFINITY)
        ]
        .prop_map(Value::DoubleValue),
        proptest::bool::ANY.prop_map(Value::BoolValue),
        proptest::collection::vec(0u8..2, 0..3).prop_map(|bytes| Value::BytesValue(bytes.into())),
        (0usize..4).prop_map(nested),
    ]
}

/// Any attributes of few distinct keys, each of them once.
pub(super) fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let entries = proptest::collection::btree_map("[kl]{0,2}", any(), 0..5);
    entries.prop_map(|entries| {
        let entries = entries.into_iter();
        entries.map(|(key, value)| attribute(&key, value)).collect()
    })
}

/// The attributes of logs with the ids 0 and up, from an attribute table.
fn log_attributes(ids: u16, attrs: RecordBatch) -> Result<Vec<String>, DecodeError> {
    let ids = UInt16Array::from_iter_values((0..ids).map(|id| u16::from(id > 0)));
    let root = table(vec![("id", Arc::new(ids) as ArrayRef)]);
    let tables = tables([
        (ArrowPayloadType::Logs, root),
        (ArrowPayloadType::LogAttrs, attrs),
    ]);
    let rows = decode(Signal::Logs, &tables)?;
    Ok(column(&rows, Table::Logs, "log_attributes"))
}

fn attribute_table(parents: Vec<u16>, keys: Vec<&str>, kinds: Vec<u8>) -> RecordBatch {
    table(vec![
        (
            "parent_id",
            Arc::new(UInt16Array::from(parents)) as ArrayRef,
        ),
        ("key", Arc::new(StringArray::from(keys))),
        ("type", Arc::new(UInt8Array::from(kinds))),
    ])
}

/// Scenario: one log with a key three times, and others around it.
/// Guarantees: keys are sorted bytewise, the last of the repeated key wins.
#[test]
fn keys_are_sorted_and_the_last_repeated_key_wins() {
    let keys = vec!["b", "a", "é", "b", "B", "b"];
    let attrs = attribute_table(vec![0; 6], keys, vec![2; 6]);
    let attrs = with_encoding(&attrs, "parent_id", "plain");
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 6]));
    let texts = log_attributes(1, with(&attrs, "int", ints)).unwrap();
    assert_eq!(texts, [r#"{"B":5,"a":2,"b":6,"é":3}"#]);
}

/// Scenario: a type says there is a value, and its column has null there, or is missing.
/// Guarantees: the default of the type.
#[test]
fn null_values_are_the_default_of_their_type() {
    let keys = vec!["0", "1", "2", "3", "4", "5", "6", "7"];
    let kinds = (0..8).collect::<Vec<u8>>();
    let attrs = attribute_table(vec![0; 8], keys, kinds);
    let expected = r#"{"0":null,"1":"","2":0,"3":0.0,"4":false,"5":{},"6":[],"7":""}"#;
    assert_eq!(log_attributes(1, attrs.clone()).unwrap(), [expected]);
    let mut nulls = attrs;
    let columns: [(&str, ArrayRef); 6] = [
        ("str", Arc::new(StringArray::from(vec![None::<&str>; 8]))),
        ("int", Arc::new(Int64Array::from(vec![None; 8]))),
        ("double", Arc::new(Float64Array::from(vec![None; 8]))),
        ("bool", Arc::new(BooleanArray::from(vec![None; 8]))),
        ("bytes", Arc::new(BinaryArray::from(vec![None; 8]))),
        ("ser", Arc::new(BinaryArray::from(vec![None; 8]))),
    ];
    for (name, array) in columns {
        nulls = with(&nulls, name, array);
    }
    assert_eq!(log_attributes(1, nulls).unwrap(), [expected]);
}

/// Scenario: a dictionary that has one text twice, and a null among its values, for keys and for values.
/// Guarantees: quasi-delta encoding and sorting see the texts, not the dictionary's places; null is the empty text.
#[test]
fn dictionaries_are_read_by_value() {
    let dictionary = |keys: Vec<u8>, values: Vec<Option<&str>>| -> ArrayRef {
        let values = Arc::new(StringArray::from(values));
        Arc::new(DictionaryArray::<UInt8Type>::new(
            UInt8Array::from(keys),
            values,
        ))
    };
    // The second row equals the first, though at other places, so its parent is 0 + 1; the third does not.
    let attrs = attribute_table(vec![0, 1, 1], vec![""; 3], vec![1; 3]);
    let keys = dictionary(vec![0, 2, 1], vec![Some("k"), None, Some("k")]);
    let texts = dictionary(vec![1, 0, 2], vec![Some("v"), Some("v"), None]);
    let attrs = with(&with(&attrs, "key", keys), "str", texts);
    assert_eq!(
        log_attributes(2, attrs).unwrap(),
        [r#"{"k":"v"}"#, r#"{"":"","k":"v"}"#]
    );
}

/// Scenario: one long dictionary value under very many keys of one log.
/// Guarantees: the batch is refused before its text takes more memory than one record's may.
#[test]
fn a_small_table_cannot_grow_without_bound() {
    let count = 200;
    let keys = (0..count)
        .map(|key| format!("{key}"))
        .collect::<Vec<String>>();
    let attrs = attribute_table(
        vec![0; count],
        keys.iter().map(String::as_str).collect(),
        vec![1; count],
    );
    let value = "x".repeat(1 << 20);
    let values = Arc::new(StringArray::from(vec![value.as_str()]));
    let texts = DictionaryArray::<UInt8Type>::new(UInt8Array::from(vec![0; count]), values);
    let attrs = with(
        &with_encoding(&attrs, "parent_id", "plain"),
        "str",
        Arc::new(texts),
    );
    let result = log_attributes(1, attrs);
    let why = result.unwrap_err();
    assert!(matches!(&why, DecodeError::Malformed(what) if what.contains("limit 67108864")));
}

/// Scenario: a type that does not exist.
/// Guarantees: the batch is refused, with the column.
#[test]
fn unknown_value_types_are_refused() {
    let attrs = attribute_table(vec![0], vec!["k"], vec![8]);
    let error = log_attributes(1, attrs).unwrap_err().to_string();
    assert_eq!(error, "column type of LOG_ATTRS is 8 in row 0, limit 7");
}
