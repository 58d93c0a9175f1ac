//! The columns that both decoders have, as texts that are equal where the values are.

use std::collections::BTreeMap;

use ::otlp2records::InputFormat;
use arrow58::array::{Array as _, ArrayRef, AsArray as _};
use arrow58::compute::cast;
use arrow58::datatypes::{DataType, Int64Type};
use arrow58::record_batch::RecordBatch;
use arrow58::util::display::{ArrayFormatter, FormatOptions};
use otlake::decode::{Encoding, decode};
use otlake::memory::Budget;
use otlake::signal::Signal;
use otlake_bench::older::older;
use otlake_bench::otlp2records;
use otlake_bench::workload::RECEIVED_UNIX_NANO;
use serde_json::Value;

/// A row's columns by name; null is left out.
pub type Row = BTreeMap<String, String>;

/// Columns of ours that the other decoder has not.
const OURS_ALONE: [&str; 4] = [
    "resource_schema_url",
    "scope_schema_url",
    "resource_dropped_attributes_count",
    "scope_dropped_attributes_count",
];

/// Columns whose text is JSON.
const JSON: [&str; 6] = [
    "resource_attributes",
    "scope_attributes",
    "log_attributes",
    "span_attributes",
    "events_json",
    "links_json",
];

/// How the names of columns with numbers end.
const NUMBERS: [&str; 6] = ["_count", "flags", "_number", "kind", "_code", "_unix_nano"];

/// The members of an event or a link that the other decoder has not.
const MEMBERS_OURS_ALONE: [&str; 2] = ["dropped_attributes_count", "flags"];

/// What our decoding makes of a body.
pub fn ours(signal: Signal, body: &[u8]) -> Vec<Row> {
    let reservation = Budget::new(u64::MAX).empty();
    let rows = decode(
        signal,
        Encoding::Protobuf,
        body,
        RECEIVED_UNIX_NANO,
        reservation,
    )
    .unwrap();
    assert_eq!(rows.rejections.total(), 0);
    let batches = rows.batches.iter();
    let mut rows: Vec<Row> = batches
        .flat_map(|(_, batch)| texts(&older(std::slice::from_ref(batch))))
        .collect();
    for row in &mut rows {
        row.retain(|name, _| !OURS_ALONE.contains(&name.as_str()));
        // No time of its own: the time of observation, and without that the one of receipt.
        let observed = row.get("observed_time_unix_nano");
        if row.get("time_unix_nano") == observed || observed.is_none() {
            row.remove("time_unix_nano");
        }
    }
    rows
}

/// What the other decoder makes of it.
pub fn theirs(signal: Signal, body: &[u8]) -> Vec<Row> {
    let batches = otlp2records::decode(signal, InputFormat::Protobuf, body).unwrap();
    let mut rows: Vec<Row> = batches.iter().flat_map(texts).collect();
    for row in &mut rows {
        if row.get("service_name").map(String::as_str) == Some("unknown") {
            row.insert("service_name".into(), "unknown_service".into());
        }
        let observed = row.get("observed_time_unix_nano");
        if row.get("time_unix_nano") == observed || observed.is_none() {
            row.remove("time_unix_nano");
        }
    }
    rows
}

fn texts(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default();
    let schema = batch.schema();
    let columns: Vec<(&String, ArrayRef)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (field.name(), plain(column)))
        .collect();
    let formatters: Vec<_> = columns
        .iter()
        .map(|(_, column)| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    let row = |place| {
        let columns = columns.iter().zip(&formatters);
        columns
            .filter(|((_, column), _)| column.is_valid(place))
            .filter_map(|((name, _), formatter)| {
                let text = formatter.value(place).to_string();
                agreed(name, text).map(|text| ((*name).clone(), text))
            })
            .collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Durations as their nanoseconds.
fn plain(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Duration(_) => {
            let plain = cast(column, &DataType::Int64).unwrap();
            assert_eq!(plain.as_primitive::<Int64Type>().len(), column.len());
            plain
        }
        _ => column.clone(),
    }
}

/// A value as both write it; `None` where one writes a null and the other the default.
fn agreed(name: &str, text: String) -> Option<String> {
    let is_list = ["events_json", "links_json"].contains(&name);
    let text = if JSON.contains(&name) {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        if let (true, Value::Array(parts)) = (is_list, &mut value) {
            parts.iter_mut().for_each(without_defaults);
        }
        canonical(&value)
    } else if name == "body" || name.starts_with("service_") {
        // What is not a text but a number, a list or a map is written as JSON; a double as a service's name is not.
        match serde_json::from_str(&text) {
            Ok(Value::Number(number)) if name != "body" => number.as_f64().map(double)?,
            Ok(value) => canonical(&value),
            Err(_) => text,
        }
    } else {
        text
    };
    let is_number = NUMBERS.iter().any(|end| name.ends_with(end));
    let is_default = text.is_empty() || text == "{}" || (is_number && text == "0");
    (!is_default).then_some(text)
}

/// Leaves out of an event or a link what is empty or zero, and what ours alone has.
fn without_defaults(part: &mut Value) {
    if let Value::Object(members) = part {
        members.retain(|name, value| {
            let is_default = match value {
                Value::Object(map) => map.is_empty(),
                Value::String(text) => text.is_empty() || text.bytes().all(|byte| byte == b'0'),
                Value::Number(number) => number.as_u64() == Some(0),
                _ => false,
            };
            !is_default && !MEMBERS_OURS_ALONE.contains(&name.as_str())
        });
    }
}

fn double(value: f64) -> String {
    format!("{value:e}")
}

/// JSON with sorted keys, in which doubles are written in one way.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map(double).unwrap(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", values.join(","))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}
