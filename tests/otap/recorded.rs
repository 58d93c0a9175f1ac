//! Streams that the collector's `otelarrow` exporter has sent, recorded by `scripts/interop-collector --record`.
//!
//! Beside each are the rows that it must give, and the OTLP that went into the collector. The rows were made of that by
//! `scripts/interop/otap/expected_rows.py`, without otlake. And they must be what our own decoder of OTLP makes of it, but for
//! what the exporter itself changes, which is spelled out here.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use otlake::decode::otap::StreamDecoder;
use otlake::decode::otap::message::parse;
use otlake::decode::{Encoding, decode};
use otlake::memory::Budget;
use otlake::receive::otap::stream_path;
use otlake::rows::Rows;
use otlake::signal::{Signal, Table};
use serde_json::{Map, Value};

use crate::support::rows::{Row, RowTexts, assert_same, json_rows};

/// When all of it was received.
const RECEIVED: i64 = 1_700_000_000_000_000_000;

/// One recorded stream.
pub struct Recording {
    pub name: String,
    pub signal: Signal,
    /// The `BatchArrowRecords` messages.
    pub messages: Vec<Bytes>,
    /// The OTLP requests; the n-th became the n-th batch.
    pub inputs: Vec<Bytes>,
    /// The headers of each batch.
    pub headers: Vec<Vec<(String, String)>>,
    /// The rows of each batch, in any order.
    expected: Vec<Vec<Expected>>,
}

/// One row as the fixture has it: table and columns. Sorts by its text.
type Expected = String;

/// All of them.
pub fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/otap");
    let entries = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().map(|folder| read(folder)).collect()
}

/// The recording of this name.
pub fn recording(name: &str) -> Recording {
    let found = recordings()
        .into_iter()
        .find(|recording| recording.name == name);
    found.unwrap()
}

fn read(folder: &Path) -> Recording {
    let index = fs::read_to_string(folder.join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let signal = Signal::ALL
        .into_iter()
        .find(|signal| index["signal"] == signal.name());
    let batches = index["batches"].as_array().unwrap().iter();
    let expected = expected(folder, batches.len());
    // What the exporter calls.
    assert_eq!(index["method"], stream_path(signal.unwrap()));
    Recording {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        signal: signal.unwrap(),
        messages: messages(&folder.join("stream.binpb.zst")),
        inputs: messages(&folder.join("input.binpb.zst")),
        headers: batches
            .map(|batch| serde_json::from_value(batch["headers"].clone()).unwrap())
            .collect(),
        expected,
    }
}

/// The rows that a folder's file says, by batch.
fn expected(folder: &Path, batches: usize) -> Vec<Vec<Expected>> {
    let text = match fs::read_to_string(folder.join("rows.jsonl")) {
        Ok(text) => text,
        Err(_) => {
            let compressed = fs::read(folder.join("rows.jsonl.zst")).unwrap();
            String::from_utf8(zstd::decode_all(&*compressed).unwrap()).unwrap()
        }
    };
    let mut expected = vec![Vec::new(); batches];
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let batch = usize::try_from(line["batch"].as_u64().unwrap()).unwrap();
        let mut row = line["row"].take();
        if row["time_unix_nano"] == "received" {
            row["time_unix_nano"] = RECEIVED.into();
        }
        let row = row.as_object().unwrap().clone();
        expected[batch].push(row_text(line["table"].as_str().unwrap(), row));
    }
    expected.iter_mut().for_each(|rows| rows.sort());
    expected
}

/// A row's text. The exporter sorts events, links and exemplars in its own way.
fn row_text(table: &str, mut row: Map<String, Value>) -> Expected {
    for name in ["events_json", "links_json", "exemplars_json"] {
        if let Some(Value::Array(items)) = row.get_mut(name) {
            items.sort_by_key(ToString::to_string);
        }
    }
    format!("{table} {}", Value::Object(row))
}

/// The messages of a file, each behind its length.
fn messages(file: &Path) -> Vec<Bytes> {
    let mut rest = Bytes::from(zstd::decode_all(&*fs::read(file).unwrap()).unwrap());
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let len = prost::decode_length_delimiter(&mut rest).unwrap();
        messages.push(rest.split_to(len));
    }
    messages
}

/// What the exporter changes (Go module otel-arrow 0.46): attributes without a value are not sent; a histogram's sum, min and
/// max of 0 are not either; a metric's metadata is lost; events, links and exemplars come in another order.
fn as_the_exporter_sends(table: Table, row: &mut Row) {
    for (name, text) in row.iter_mut() {
        if name.ends_with("_attributes") || name.ends_with("_json") {
            let mut value: Value = serde_json::from_str(text).unwrap();
            without_empty(&mut value);
            *text = value.to_string();
        }
    }
    row.retain(|name, text| {
        let is_attributes = name.ends_with("_attributes");
        let is_zero = ["sum", "min", "max"].contains(&name.as_str()) && text == "0.0";
        let is_histogram = matches!(table, Table::Histogram | Table::ExpHistogram);
        !(is_attributes && text == "{}" || is_histogram && is_zero || name == "metadata")
    });
}

/// Drops the empty values of attribute objects, and sorts lists of events, links and exemplars.
fn without_empty(value: &mut Value) {
    match value {
        Value::Object(attributes) => attributes.retain(|_, value| !value.is_null()),
        Value::Array(items) => {
            for item in items.iter_mut() {
                let item = item.as_object_mut().unwrap();
                for key in ["attributes", "filtered_attributes"] {
                    let Some(attributes) = item.get_mut(key) else {
                        continue;
                    };
                    without_empty(attributes);
                    if attributes.as_object().unwrap().is_empty() {
                        item.remove(key);
                    }
                }
            }
            items.sort_by_key(ToString::to_string);
        }
        _ => {}
    }
}

/// Scenario: streams of the real exporter: every kind of value, events and links, all kinds of metrics, dictionaries that
/// grow over u8, are replaced, or are given up, columns that appear late, with compressed and plain payloads.
/// Guarantees: the rows of each batch are those that stand beside the stream, and those of the OTLP request that went in; its
/// headers are those that were recorded, and all memory is given back.
#[test]
fn the_real_exporters_streams_give_the_rows_of_their_input() {
    let budget = Budget::new(1 << 30);
    let recordings = recordings();
    assert_eq!(recordings.len(), 7);
    for recording in recordings {
        let Recording { name, signal, .. } = &recording;
        let mut decoder = StreamDecoder::new(*signal, &budget);
        assert_eq!(recording.messages.len(), recording.inputs.len());
        let batches = recording.messages.iter().zip(&recording.inputs);
        let beside = recording.headers.iter().zip(&recording.expected);
        for ((message, input), (headers, expected)) in batches.zip(beside) {
            let batch = parse(message).unwrap();
            let what = format!("{name}, batch {}", batch.batch_id);
            let decoded = decoder.headers(&batch.headers).unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let decoded = decoded
                .iter()
                .map(|(name, value)| (text(name), text(value)));
            assert_eq!(decoded.collect::<Vec<_>>(), *headers, "{what}");
            let ours = decoder.decode(&batch, RECEIVED, budget.empty());
            let ours = ours.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(ours.rejections.total(), 0, "{what}");
            assert_rows(&ours, expected, &what);
            let over_otlp = decode(*signal, Encoding::Protobuf, input, RECEIVED, budget.empty());
            assert_same(&as_sent(&ours), &as_sent(&over_otlp.unwrap()), &what);
        }
        assert!(budget.reserved() > 0);
        drop(decoder);
        assert_eq!(budget.reserved(), 0);
    }
}

/// Fails with the first row that is not among the others.
fn assert_rows(ours: &Rows, expected: &[Expected], what: &str) {
    let rows = ours.batches.iter().flat_map(|(table, batch)| {
        let rows = json_rows(batch).into_iter();
        rows.map(|row| row_text(table.name(), row))
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    for (ours, expected) in rows.iter().zip(expected) {
        assert_eq!(ours, expected, "{what}");
    }
    assert_eq!(rows.len(), expected.len(), "{what}");
}

/// Rows in any order, without what the exporter changes.
fn as_sent(rows: &Rows) -> RowTexts {
    let mut texts = RowTexts::default();
    texts.add(rows);
    texts.each(as_the_exporter_sends);
    texts.sort();
    texts
}
