//! Bytes of any kind as the body of an OTLP request: what the fuzzers feed, and the test that replays their corpora.
//!
//! | input | first byte | rest |
//! |---|---|---|
//! | of [`protobuf`] | the signal | an export request |
//! | of [`json`] | the signal; 4 for a request that is given as protobuf | one OTLP/JSON document, or that request |
//! | of [`ndjson`] | the signal | OTLP/JSON documents, one a line |

use otlake::decode::{DecodeError, Encoding, decode};
use otlake::memory::Budget;
use otlake::proto::metrics::v1::metric::Data;
use otlake::rows::{Rejections, Rows, batch_bytes};
use otlake::signal::{Signal, Table};

use super::otlp::Export;
use super::otlp_json_form::protobuf_of;
use super::otlp_plain::plain;
use super::rows::{self, RowTexts};

/// More than any input of the fuzzers' sizes should need.
const BUDGET_BYTES: u64 = 1 << 30;

/// When the requests come.
const RECEIVED: i64 = 1_700_000_000_000_000_000;

/// Set in the first byte of a JSON input: the rest is protobuf, to be written as JSON.
pub const WRITTEN: u8 = 4;

/// Decodes within a budget of its own, and checks what holds for every outcome: the memory is accounted for.
pub fn decode_bytes(signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Rows, DecodeError> {
    let budget = Budget::new(BUDGET_BYTES);
    let decoded = decode(signal, encoding, body, RECEIVED, budget.empty());
    match &decoded {
        Ok(rows) => {
            let batches = rows.batches.iter();
            let bytes: u64 = batches.map(|(_, batch)| batch_bytes(batch)).sum();
            let reserved = (rows.reservation.bytes(), budget.reserved());
            assert_eq!(reserved, (bytes, bytes));
        }
        Err(_) => assert_eq!(budget.reserved(), 0),
    }
    decoded
}

/// Fails where two requests' rows are not the same, bit by bit.
pub fn assert_same(left: &Rows, right: &Rows) {
    let tables =
        |rows: &Rows| -> Vec<Table> { rows.batches.iter().map(|(table, _)| *table).collect() };
    assert_eq!(tables(left), tables(right));
    for ((table, left), (_, right)) in left.batches.iter().zip(&right.batches) {
        assert_eq!(left.schema(), right.schema(), "{table}");
        let schema = left.schema();
        let columns = left.columns().iter().zip(right.columns());
        for (field, (left, right)) in schema.fields().iter().zip(columns) {
            assert_eq!(left, right, "{table}.{}", field.name());
        }
    }
}

/// The first byte, the signal, and the rest.
pub fn split(input: &[u8]) -> Option<(u8, Signal, &[u8])> {
    let (first, body) = input.split_first()?;
    let signal = Signal::ALL.get(usize::from(*first & 3))?;
    Some((*first, *signal, body))
}

/// A request as protobuf: taken if a protobuf library takes it, with each of its records as a row or a rejection, and with
/// the rows of the request as that library writes it.
pub fn protobuf(input: &[u8]) {
    let Some((_, signal, body)) = split(input) else {
        return;
    };
    let rows = match decode_bytes(signal, Encoding::Protobuf, body) {
        Ok(rows) => rows,
        Err(error) => {
            let is_bound = is_bound(&error);
            assert!(
                is_bound || Export::from_protobuf(signal, body).is_err(),
                "{error}"
            );
            return;
        }
    };
    let export = match Export::from_protobuf(signal, &plain(signal, body)) {
        Ok(export) => export,
        // The library counts every message against it, the server values in values.
        Err(error) => {
            assert!(error.to_string().contains("recursion limit"), "{error}");
            return;
        }
    };
    assert_eq!(rows.rows() + rows.rejections.total(), export.records());
    let again = decode_bytes(signal, Encoding::Protobuf, &export.to_protobuf());
    let again = again.expect("what the library writes is taken");
    assert_eq!(rows.rejections, again.rejections);
    if !has_negative_zero(&export) {
        assert_same(&rows, &again);
    }
}

/// Whether a request is refused for a bound of ours alone.
fn is_bound(error: &DecodeError) -> bool {
    let text = error.to_string();
    ["nests more than", "a list inside a record has more than"]
        .iter()
        .any(|bound| text.contains(bound))
}

/// A library takes a negative zero for the default of a field without presence, and does not write it.
fn has_negative_zero(export: &Export) -> bool {
    let is_negative_zero = |value: f64| value.to_bits() == (-0.0f64).to_bits();
    let Export::Metrics(request) = export else {
        return false;
    };
    let groups = request.resource_metrics.iter();
    let scopes = groups.flat_map(|group| &group.scope_metrics);
    let mut metrics = scopes.flat_map(|group| &group.metrics);
    metrics.any(|metric| match &metric.data {
        Some(Data::ExponentialHistogram(data)) => {
            let mut points = data.data_points.iter();
            points.any(|point| is_negative_zero(point.zero_threshold))
        }
        Some(Data::Summary(data)) => data.data_points.iter().any(|point| {
            let at = point.quantile_values.iter();
            let mut all = at.flat_map(|at| [at.quantile, at.value]);
            is_negative_zero(point.sum) || all.any(is_negative_zero)
        }),
        _ => false,
    })
}

/// A request as OTLP/JSON: it has the rows of the protobuf that it means by the specification; spelled in another way, and as a
/// line of NDJSON, it has the same outcome. One that was protobuf has the rows that it has as protobuf.
pub fn json(input: &[u8]) {
    let Some((first, signal, body)) = split(input) else {
        return;
    };
    if first & WRITTEN != 0 {
        written_json(signal, body);
        return;
    }
    let rows = decode_bytes(signal, Encoding::Json, body);
    let Ok(text) = std::str::from_utf8(body) else {
        assert!(rows.is_err());
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if rows.is_ok() {
        serde_json::from_str::<serde::de::IgnoredAny>(text).expect("what is taken is JSON");
    }
    let again = decode_bytes(signal, Encoding::Json, respelled(text).as_bytes());
    assert_same_outcome(&rows, &again, "spelled in another way");
    if let Some(form) = protobuf_of(signal, text) {
        let meant = decode_bytes(signal, Encoding::Protobuf, &form);
        if !meant.as_ref().is_err_and(is_bound) {
            assert_same_outcome(&rows, &meant, "as protobuf");
        }
    }
    if !text.contains('\n') && !text.trim_ascii().is_empty() {
        let line = decode_bytes(signal, Encoding::Ndjson, body);
        assert_same_outcome(&rows, &line, "as a line");
    }
}

fn written_json(signal: Signal, body: &[u8]) {
    let Ok(export) = Export::from_protobuf(signal, body) else {
        return;
    };
    let rows = decode_bytes(signal, Encoding::Protobuf, &export.to_protobuf());
    if rows.as_ref().is_err_and(is_bound) || has_negative_zero(&export) {
        return;
    }
    let json = export.to_json().to_string();
    let from_json = decode_bytes(signal, Encoding::Json, json.as_bytes());
    assert_same_outcome(&rows, &from_json, "as JSON");
}

/// Requests as NDJSON: taken if each line is taken alone, with the rows of all of them.
pub fn ndjson(input: &[u8]) {
    let Some((_, signal, body)) = split(input) else {
        return;
    };
    let rows = decode_bytes(signal, Encoding::Ndjson, body);
    let Ok(text) = std::str::from_utf8(body) else {
        assert!(rows.is_err());
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.split('\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty());
    let one_by_one: Result<Vec<Rows>, DecodeError> = lines
        .map(|line| match line.starts_with('\u{feff}') {
            // Only a body begins with this mark, not a line.
            true => Err(DecodeError::Malformed("a byte order mark".to_owned())),
            false => decode_bytes(signal, Encoding::Json, line.as_bytes()),
        })
        .collect();
    match (rows, one_by_one) {
        (Ok(rows), Ok(lines)) => {
            let (mut sum, mut rejections) = (RowTexts::default(), Rejections::default());
            for line in &lines {
                sum.add(line);
                rejections.add(&line.rejections);
            }
            assert_eq!(rows.rejections, rejections);
            rows::assert_same(&texts(&rows), &sum, "line by line");
        }
        (Err(_), Err(_)) => {}
        (rows, lines) => panic!("{rows:?}, line by line {lines:?}"),
    }
}

fn texts(rows: &Rows) -> RowTexts {
    let mut texts = RowTexts::default();
    texts.add(rows);
    texts
}

/// As [`assert_same`], but every NaN is the same: JSON has only one.
fn assert_same_outcome(
    left: &Result<Rows, DecodeError>,
    right: &Result<Rows, DecodeError>,
    what: &str,
) {
    match (left, right) {
        (Ok(left), Ok(right)) => {
            assert_eq!(left.rejections, right.rejections, "{what}");
            rows::assert_same(&texts(right), &texts(left), what);
        }
        (Err(_), Err(_)) => {}
        (left, right) => panic!("{left:?}, {what}: {right:?}"),
    }
}

/// The same JSON with other white space, and with letters and digits in strings escaped.
fn respelled(json: &str) -> String {
    let mut spelled = String::with_capacity(json.len() * 6);
    let mut rest = json.chars();
    let mut is_text = false;
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                is_text = !is_text;
                spelled.push(c);
            }
            '\\' if is_text => {
                spelled.push(c);
                let escaped = rest.next();
                spelled.extend(escaped);
                if escaped == Some('u') {
                    spelled.extend(rest.by_ref().take(4));
                }
            }
            c if is_text && c.is_ascii_alphanumeric() => {
                spelled.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            ' ' | '\t' | '\r' | '\n' if !is_text => spelled.push(' '),
            '{' | '[' | ',' | ':' | ']' | '}' if !is_text => {
                spelled.push_str("\r\n\t");
                spelled.push(c);
                spelled.push(' ');
            }
            c => spelled.push(c),
        }
    }
    spelled
}
