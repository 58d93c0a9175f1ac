//! Tables of any content: what is valid Arrow and no producer writes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, DurationNanosecondArray,
    FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, ListArray, PrimitiveArray,
    StringArray, TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{UInt16Type, UInt32Type};
use proptest::prelude::*;

use super::produce::Producer;
use super::*;

/// What a column holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    U8,
    U16,
    U32,
    U64,
    I32,
    I64,
    F64,
    Bool,
    Text,
    Bytes,
    Tree,
    Time,
    Duration,
    Id(i32),
    Struct(&'static [(&'static str, Holds)]),
    List(&'static Holds),
}

use Holds::{
    Bool, Bytes, Duration, F64, I32, I64, Id, List, Struct, Text, Time, Tree, U8, U16, U32, U64,
};

type Described = [(&'static str, Holds)];

const RESOURCE: Holds = Struct(&[
    ("id", U16),
    ("schema_url", Text),
    ("dropped_attributes_count", U32),
]);
const SCOPE: Holds = Struct(&[("id", U16), ("name", Text), ("version", Text)]);
const VALUE: &Described = &[
    ("type", U8),
    ("str", Text),
    ("int", I64),
    ("double", F64),
    ("bool", Bool),
    ("bytes", Bytes),
    ("ser", Tree),
];
const LOGS: &Described = &[
    ("id", U16),
    ("resource", RESOURCE),
    ("scope", SCOPE),
    ("schema_url", Text),
    ("time_unix_nano", Time),
    ("trace_id", Id(16)),
    ("span_id", Id(8)),
    ("severity_number", I32),
    ("severity_text", Text),
    ("body", Struct(VALUE)),
    ("event_name", Text),
    ("flags", U32),
];
const SPANS: &Described = &[
    ("id", U16),
    ("resource", RESOURCE),
    ("scope", SCOPE),
    ("start_time_unix_nano", Time),
    ("duration_time_unix_nano", Duration),
    ("trace_id", Id(16)),
    ("span_id", Id(8)),
    ("name", Text),
    ("kind", I32),
    ("status", Struct(&[("code", I32), ("status_message", Text)])),
];
const EVENTS: &Described = &[
    ("id", U32),
    ("parent_id", U16),
    ("time_unix_nano", Time),
    ("name", Text),
];
const LINKS: &Described = &[
    ("id", U32),
    ("parent_id", U16),
    ("trace_id", Id(16)),
    ("span_id", Id(8)),
];
const ATTRIBUTES_16: &Described = &[
    ("parent_id", U16),
    ("key", Text),
    ("type", U8),
    ("str", Text),
    ("int", I64),
    ("double", F64),
    ("bool", Bool),
    ("bytes", Bytes),
    ("ser", Tree),
];
const ATTRIBUTES_32: &Described = &[
    ("parent_id", U32),
    ("key", Text),
    ("type", U8),
    ("str", Text),
    ("ser", Tree),
];
const METRICS: &Described = &[
    ("id", U16),
    ("resource", RESOURCE),
    ("scope", SCOPE),
    ("metric_type", U8),
    ("name", Text),
    ("is_monotonic", Bool),
];
const NUMBERS: &Described = &[
    ("id", U32),
    ("parent_id", U16),
    ("time_unix_nano", Time),
    ("int_value", I64),
    ("double_value", F64),
];
const BUCKETS: Holds = Struct(&[("offset", I32), ("bucket_counts", List(&U64))]);
const HISTOGRAMS: &Described = &[
    ("id", U32),
    ("parent_id", U16),
    ("count", U64),
    ("bucket_counts", List(&U64)),
    ("explicit_bounds", List(&F64)),
    ("positive", BUCKETS),
    ("negative", BUCKETS),
];
const SUMMARIES: &Described = &[
    ("id", U32),
    ("parent_id", U16),
    (
        "quantile",
        List(&Struct(&[("quantile", F64), ("value", F64)])),
    ),
];
const EXEMPLARS: &Described = &[
    ("id", U32),
    ("parent_id", U32),
    ("int_value", I64),
    ("double_value", F64),
    ("trace_id", Id(16)),
];

/// The tables of a signal; the root first.
fn described(signal: Signal) -> Vec<(ArrowPayloadType, &'static Described)> {
    use ArrowPayloadType::*;
    let mut list = match signal {
        Signal::Logs => vec![(Logs, LOGS), (LogAttrs, ATTRIBUTES_16)],
        Signal::Traces => vec![
            (Spans, SPANS),
            (SpanAttrs, ATTRIBUTES_16),
            (SpanEvents, EVENTS),
            (SpanEventAttrs, ATTRIBUTES_32),
            (SpanLinks, LINKS),
            (SpanLinkAttrs, ATTRIBUTES_32),
        ],
        Signal::Metrics => vec![
            (UnivariateMetrics, METRICS),
            (MetricAttrs, ATTRIBUTES_16),
            (NumberDataPoints, NUMBERS),
            (NumberDpAttrs, ATTRIBUTES_32),
            (NumberDpExemplars, EXEMPLARS),
            (NumberDpExemplarAttrs, ATTRIBUTES_32),
            (HistogramDataPoints, HISTOGRAMS),
            (ExpHistogramDataPoints, HISTOGRAMS),
            (SummaryDataPoints, SUMMARIES),
        ],
    };
    list.extend([(ResourceAttrs, ATTRIBUTES_16), (ScopeAttrs, ATTRIBUTES_16)]);
    list
}

/// Ids that begin with 0 and go on with `step`.
fn ids<T: ArrowPrimitiveType<Native: From<u8>>>(rows: usize, step: u8) -> ArrayRef {
    let ids = (0..rows).map(|row| T::Native::from(if row == 0 { 0 } else { step }));
    Arc::new(PrimitiveArray::<T>::from_iter_values(ids))
}

/// A stream of choices from a list of bytes; zeros at its end.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    /// A small number, seldom none.
    fn value(&mut self) -> Option<u8> {
        let choice = self.next();
        (choice % 16 != 15).then_some(choice % 16 / 5)
    }

    fn column(&mut self, holds: Holds, rows: usize) -> ArrayRef {
        // One in 64 columns holds something else.
        let holds = if self.next() == 255 {
            [U8, Text, F64, Time][usize::from(self.next() % 4)]
        } else {
            holds
        };
        let count = match holds {
            Struct(_) | List(_) => 0,
            _ => rows,
        };
        let values = (0..count)
            .map(|_| self.value())
            .collect::<Vec<Option<u8>>>();
        let values = || values.iter().copied();
        let array: ArrayRef = match holds {
            U8 => Arc::new(
                values()
                    .map(|value| value.map(|value| value * 2))
                    .collect::<UInt8Array>(),
            ),
            U16 => Arc::new(
                values()
                    .map(|value| value.map(u16::from))
                    .collect::<UInt16Array>(),
            ),
            U32 => Arc::new(
                values()
                    .map(|value| value.map(u32::from))
                    .collect::<UInt32Array>(),
            ),
            U64 => Arc::new(
                values()
                    .map(|value| value.map(u64::from))
                    .collect::<UInt64Array>(),
            ),
            I32 => Arc::new(
                values()
                    .map(|value| value.map(i32::from))
                    .collect::<Int32Array>(),
            ),
            I64 => Arc::new(
                values()
                    .map(|value| value.map(i64::from))
                    .collect::<Int64Array>(),
            ),
            F64 => Arc::new(
                values()
                    .map(|value| value.map(f64::from))
                    .collect::<Float64Array>(),
            ),
            Bool => Arc::new(
                values()
                    .map(|value| value.map(|value| value > 0))
                    .collect::<BooleanArray>(),
            ),
            Text => Arc::new(
                values()
                    .map(|value| Some(["", "event.name", "b"][usize::from(value?)]))
                    .collect::<StringArray>(),
            ),
            Bytes => Arc::new(
                values()
                    .map(|value| Some(vec![value?; 2]))
                    .collect::<BinaryArray>(),
            ),
            Tree => Arc::new(
                values()
                    .map(|value| {
                        Some([&b"\xa1\x60\x80"[..], b"\x9f\xf6\xff", b"\x01"][usize::from(value?)])
                    })
                    .collect::<BinaryArray>(),
            ),
            Time => Arc::new(
                values()
                    .map(|value| value.map(|value| i64::from(value) - 1))
                    .collect::<TimestampNanosecondArray>(),
            ),
            Duration => Arc::new(
                values()
                    .map(|value| value.map(|value| i64::from(value) - 1))
                    .collect::<DurationNanosecondArray>(),
            ),
            Id(len) => {
                let ids = values().map(|value| Some(vec![value?; len as usize]));
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, len).unwrap())
            }
            Struct(columns) => structure(self.columns(columns, rows)),
            List(items) => {
                let lengths = (0..rows)
                    .map(|_| usize::from(self.next() % 3))
                    .collect::<Vec<usize>>();
                let items = self.column(*items, lengths.iter().sum());
                let field = Field::new("item", items.data_type().clone(), true);
                return Arc::new(ListArray::new(
                    Arc::new(field),
                    OffsetBuffer::from_lengths(lengths),
                    items,
                    None,
                ));
            }
        };
        if matches!(holds, Struct(_) | Bool) {
            return array;
        }
        let keys = [None, Some(DataType::UInt8), Some(DataType::UInt16)]
            [usize::from(self.next() % 3)]
        .clone();
        Producer::new(&Form {
            keys,
            plain: false,
            stated: false,
        })
        .shared(array)
    }

    fn columns(&mut self, columns: &Described, rows: usize) -> Columns {
        let mut chosen = Columns::new();
        for (name, holds) in columns {
            // One in 64 columns is missing, but never the last: a struct has its length from its columns.
            if self.next() < 252 || chosen.is_empty() {
                // Mostly ids and parents that meet, so that what is behind them is reached.
                let array = match (*name, holds, self.next()) {
                    ("id", U16, 0..220) => ids::<UInt16Type>(rows, 1),
                    ("id", U32, 0..220) => ids::<UInt32Type>(rows, 1),
                    ("parent_id", U16, 0..220) => ids::<UInt16Type>(rows, 0),
                    ("parent_id", U32, 0..220) => ids::<UInt32Type>(rows, 0),
                    _ => self.column(*holds, rows),
                };
                chosen.push((name, array));
            }
        }
        chosen
    }

    fn table(&mut self, columns: &Described, rows: usize) -> RecordBatch {
        let mut batch = table(self.columns(columns, rows));
        for name in ["id", "parent_id"] {
            // Seldom stated, and not at the end of the choices.
            let encodings = ["plain", "delta", "quasidelta", "?"];
            if let Some(encoding) = encodings.get(usize::from((255 - self.next()) / 2)) {
                batch = with_encoding(&batch, name, encoding);
            }
        }
        batch
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Scenario: tables with any columns of few rows, ids that may or may not meet, any encodings stated.
    /// Guarantees: no panic; a batch is refused as malformed, or every record of it is a row or counted.
    #[test]
    fn any_tables_are_decoded_or_refused(
        signal in 0usize..3,
        choices in proptest::collection::vec(0u8.., 1_000..3_000),
    ) {
        let signal = [Signal::Logs, Signal::Traces, Signal::Metrics][signal];
        let mut choices = Choices(choices.iter());
        let mut list = Vec::new();
        let mut records = 0;
        for (place, (of, columns)) in described(signal).into_iter().enumerate() {
            let mut rows = usize::from(choices.next() % 4);
            if place == 0 {
                rows += 1;
                records = rows;
            }
            list.push((of, choices.table(columns, rows)));
        }
        match decode(signal, &tables(list)) {
            Ok(rows) if signal == Signal::Metrics => prop_assert!(rows.rows() < 100),
            Ok(rows) => {
                prop_assert_eq!(rows.rows() + rows.rejections.total(), records as u64);
            }
            Err(error) => prop_assert!(matches!(error, DecodeError::Malformed(_)), "{}", error),
        }
    }
}
