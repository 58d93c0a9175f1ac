//! What refuses a batch, and what does not.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array,
};
use arrow::datatypes::Int32Type;

use super::*;

fn narrow(ids: Vec<Option<u16>>) -> ArrayRef {
    Arc::new(UInt16Array::from(ids))
}

fn attributes(parents: ArrayRef) -> RecordBatch {
    let rows = parents.len();
    table(vec![
        ("parent_id", parents),
        ("key", Arc::new(StringArray::from(vec!["k"; rows]))),
        ("type", Arc::new(UInt8Array::from(vec![0; rows]))),
    ])
}

/// Two logs with the ids 3 and 4, and one with none.
fn logs() -> RecordBatch {
    table(vec![("id", narrow(vec![Some(3), None, Some(1)]))])
}

fn decode_logs(
    root: RecordBatch,
    others: impl IntoIterator<Item = (ArrowPayloadType, RecordBatch)>,
) -> Result<Rows, DecodeError> {
    let all = [(ArrowPayloadType::Logs, root)].into_iter().chain(others);
    decode(Signal::Logs, &tables(all))
}

/// Scenario: no tables, and attribute tables without their root.
/// Guarantees: an empty batch, no rows and no error.
#[test]
fn a_batch_without_its_root_is_empty() {
    for signal in [Signal::Logs, Signal::Traces, Signal::Metrics] {
        assert_eq!(decode(signal, &Tables::default()).unwrap().rows(), 0);
        let orphans = attributes(narrow(vec![Some(0)]));
        let tables = tables([
            (ArrowPayloadType::ResourceAttrs, orphans.clone()),
            (ArrowPayloadType::LogAttrs, orphans),
        ]);
        assert_eq!(decode(signal, &tables).unwrap().rows(), 0);
    }
}

/// Scenario: the tables of another signal, and multivariate metrics.
/// Guarantees: the batch is refused rather than taken for an empty one.
#[test]
fn tables_of_another_signal_are_refused() {
    let tables = tables([(ArrowPayloadType::Logs, logs())]);
    assert_eq!(
        malformed(decode(Signal::Traces, &tables)),
        "LOGS is no table of this stream's signal"
    );
    let tables = super::tables([(ArrowPayloadType::MultivariateMetrics, logs())]);
    assert_eq!(
        malformed(decode(Signal::Metrics, &tables)),
        "multivariate metrics are not supported"
    );
}

/// Scenario: attributes of a log that does not exist, of a resource and a scope where no log has any, and of a log that is there
/// twice.
/// Guarantees: the batch is refused, with table, row and parent; two logs of one id without children are taken.
#[test]
fn orphans_refuse_the_batch() {
    let of = |of, parent: u16| (of, attributes(narrow(vec![Some(parent)])));
    let rows = decode_logs(logs(), [of(ArrowPayloadType::LogAttrs, 4)]).unwrap();
    assert_eq!(
        column(&rows, Table::Logs, "log_attributes"),
        ["-", "-", r#"{"k":null}"#]
    );
    for (table, parent) in [
        (ArrowPayloadType::LogAttrs, 5),
        (ArrowPayloadType::ResourceAttrs, 0),
        (ArrowPayloadType::ScopeAttrs, 0),
    ] {
        let reason = malformed(decode_logs(logs(), [of(table, parent)]));
        let name = table.as_str_name();
        assert_eq!(
            reason,
            format!("row 0 of {name} has parent {parent}, which does not exist")
        );
    }
    let twice = table(vec![("id", narrow(vec![Some(3), Some(0)]))]);
    let reason = malformed(decode_logs(
        twice.clone(),
        [of(ArrowPayloadType::LogAttrs, 3)],
    ));
    assert_eq!(
        reason,
        "row 0 of LOG_ATTRS has parent 3, which several rows are"
    );
    assert_eq!(decode_logs(twice, []).unwrap().rows(), 2);
}

/// Scenario: attributes of resources and scopes with records, and of others without any.
/// Guarantees: the former are with their records, the latter ignored: there is no record that they say anything about.
#[test]
fn resources_without_records_are_no_orphans() {
    let ids = || structure(vec![("id", narrow(vec![None, Some(1)]))]);
    let root = table(vec![("resource", ids()), ("scope", ids())]);
    let of = |of| (of, attributes(narrow(vec![Some(0), Some(1), Some(6)])));
    let others = [
        of(ArrowPayloadType::ResourceAttrs),
        of(ArrowPayloadType::ScopeAttrs),
    ];
    let rows = decode_logs(root, others).unwrap();
    for name in ["resource_attributes", "scope_attributes"] {
        let texts = column(&rows, Table::Logs, name);
        assert_eq!(texts, ["-", r#"{"k":null}"#], "{name}");
    }
}

/// Scenario: a parent that is null.
/// Guarantees: the batch is refused, with column and row.
#[test]
fn a_null_parent_refuses_the_batch() {
    let attrs = attributes(narrow(vec![Some(3), None]));
    let reason = malformed(decode_logs(logs(), [(ArrowPayloadType::LogAttrs, attrs)]));
    assert_eq!(reason, "column parent_id of LOG_ATTRS is null in row 1");
}

/// Scenario: the columns that attributes need, one by one taken away.
/// Guarantees: each is named.
#[test]
fn required_columns_are_named() {
    let attrs = attributes(narrow(vec![Some(3)]));
    for name in ["parent_id", "key", "type"] {
        let attrs = without(&attrs, name);
        let reason = malformed(decode_logs(logs(), [(ArrowPayloadType::LogAttrs, attrs)]));
        assert_eq!(reason, format!("column {name} of LOG_ATTRS is missing"));
    }
    let body = structure(vec![(
        "str",
        Arc::new(StringArray::from(vec!["s"; 3])) as ArrayRef,
    )]);
    let reason = malformed(decode_logs(with(&logs(), "body", body), []));
    assert_eq!(reason, "column body.type of LOGS is missing");
}

/// Scenario: every column of LOGS with another type than it has, native and by dictionary, and one that is unknown.
/// Guarantees: the batch is refused with table and column; the unknown column is ignored.
#[test]
fn columns_of_another_type_are_named() {
    let strange: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]));
    for name in [
        "id",
        "time_unix_nano",
        "observed_time_unix_nano",
        "trace_id",
        "span_id",
        "severity_number",
        "severity_text",
        "dropped_attributes_count",
        "flags",
        "event_name",
        "schema_url",
        "resource",
        "scope",
        "body",
    ] {
        let reason = malformed(decode_logs(with(&logs(), name, strange.clone()), []));
        assert!(
            reason.starts_with(&format!("column {name} of LOGS is of the unexpected type")),
            "{reason}"
        );
    }
    let rows = decode_logs(with(&logs(), "unknown", strange), []).unwrap();
    assert_eq!(rows.rows(), 3);
    let nested = structure(vec![(
        "id",
        Arc::new(Int64Array::from(vec![0; 3])) as ArrayRef,
    )]);
    let reason = malformed(decode_logs(with(&logs(), "scope", nested), []));
    assert_eq!(
        reason,
        "column scope.id of LOGS is of the unexpected type Int64"
    );
}

/// Scenario: ids of another length, dictionaries with keys or values of another type.
/// Guarantees: each is refused.
#[test]
fn near_types_are_refused() {
    let short = FixedSizeBinaryArray::try_from_iter(vec![vec![1u8; 8]; 3].into_iter()).unwrap();
    let long_keys = Int32Array::from(vec![0, 0, 0]);
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["t"]));
    let by_i32 = DictionaryArray::<Int32Type>::new(long_keys, texts.clone());
    let of_texts =
        DictionaryArray::<arrow::datatypes::UInt8Type>::new(UInt8Array::from(vec![0; 3]), texts);
    let cases: [(&str, ArrayRef); 4] = [
        ("trace_id", Arc::new(short)),
        ("severity_text", Arc::new(by_i32)),
        ("severity_number", Arc::new(of_texts)),
        ("flags", Arc::new(BooleanArray::from(vec![true; 3]))),
    ];
    for (name, array) in cases {
        let reason = malformed(decode_logs(with(&logs(), name, array), []));
        assert!(
            reason.starts_with(&format!("column {name} of LOGS")),
            "{reason}"
        );
    }
}

/// Scenario: an attribute table whose parents are of the other width.
/// Guarantees: it is refused rather than read with another wrap-around.
#[test]
fn parents_of_another_width_are_refused() {
    let attrs = attributes(Arc::new(UInt32Array::from(vec![3])));
    let reason = malformed(decode_logs(logs(), [(ArrowPayloadType::LogAttrs, attrs)]));
    assert_eq!(
        reason,
        "column parent_id of LOG_ATTRS is of the unexpected type UInt32"
    );
}

/// Scenario: rows whose resource goes back and forth, and whose schema URL and dropped count change alone.
/// Guarantees: each row has its own resource, scope and URL; a null id has no attributes.
#[test]
fn resources_may_change_from_row_to_row() {
    let ids = narrow(vec![Some(1), Some(65_535), None, Some(1), Some(0), Some(0)]);
    let urls = vec![None, Some("u"), Some("u"), Some("u"), Some("v"), Some("v")];
    let urls: ArrayRef = Arc::new(StringArray::from(urls));
    let dropped: ArrayRef = Arc::new(UInt32Array::from(vec![0, 0, 0, 0, 0, 9]));
    let resource = structure(vec![
        ("id", ids),
        ("schema_url", urls),
        ("dropped_attributes_count", dropped),
    ]);
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "b", "a", "a", "a"]));
    let scope = structure(vec![("name", names)]);
    let root = table(vec![("resource", resource), ("scope", scope)]);
    let attrs = table(vec![
        ("parent_id", narrow(vec![Some(0), Some(1)])),
        ("key", Arc::new(StringArray::from(vec!["service.name"; 2]))),
        ("type", Arc::new(UInt8Array::from(vec![1, 1]))),
        ("str", Arc::new(StringArray::from(vec!["zero", "one"]))),
    ]);
    let rows = decode_logs(root, [(ArrowPayloadType::ResourceAttrs, attrs)]).unwrap();
    let expected = |name: &str, texts: [&str; 6]| {
        assert_eq!(column(&rows, Table::Logs, name), texts, "{name}");
    };
    expected(
        "service_name",
        ["one", "zero", "unknown_service", "one", "one", "one"],
    );
    expected("resource_schema_url", ["-", "u", "u", "u", "v", "v"]);
    expected(
        "resource_dropped_attributes_count",
        ["0", "0", "0", "0", "0", "9"],
    );
    expected("scope_name", ["a", "b", "b", "a", "a", "a"]);
}

/// Scenario: a budget too small for the rows.
/// Guarantees: the batch is refused for memory, and nothing stays reserved.
#[test]
fn rows_beyond_the_budget_are_refused() {
    let budget = Budget::new(16);
    let tables = tables([(ArrowPayloadType::Logs, logs())]);
    let result = rows(Signal::Logs, &tables, RECEIVED, budget.empty());
    assert!(matches!(result, Err(DecodeError::Memory(_))));
    assert_eq!(budget.reserved(), 0);
}
