//! Rows as text, to compare what different decoders make of the same telemetry.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray as _};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt32Type, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use otlake::rows::Rows;
use otlake::signal::Table;
use serde_json::{Map, Value};

/// One row: its columns by name; null is left out.
pub type Row = BTreeMap<String, String>;

/// The rows of each table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowTexts(pub BTreeMap<Table, Vec<Row>>);

impl RowTexts {
    /// Adds a request's rows.
    pub fn add(&mut self, rows: &Rows) {
        for (table, batch) in &rows.batches {
            self.0.entry(*table).or_default().extend(texts(batch));
        }
    }

    /// Forgets the order of the rows.
    pub fn sort(&mut self) {
        for rows in self.0.values_mut() {
            rows.sort();
        }
    }

    /// Changes every row.
    pub fn each(&mut self, mut change: impl FnMut(Table, &mut Row)) {
        for (table, rows) in &mut self.0 {
            for row in rows {
                change(*table, row);
            }
        }
    }
}

/// Fails with the first rows that differ.
pub fn assert_same(ours: &RowTexts, expected: &RowTexts, what: &str) {
    let tables: Vec<_> = ours.0.keys().chain(expected.0.keys()).collect();
    for table in tables {
        let rows = |texts: &RowTexts| texts.0.get(table).cloned().unwrap_or_default();
        let (ours, expected) = (rows(ours), rows(expected));
        for (place, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
            assert_eq!(ours, expected, "{what}: row {place} of {}", table.name());
        }
        assert_eq!(
            ours.len(),
            expected.len(),
            "{what}: rows of {}",
            table.name()
        );
    }
}

fn texts(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default();
    let schema = batch.schema();
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| {
            let formatter = ArrayFormatter::try_new(column, &options).unwrap();
            (field.name(), column, formatter)
        })
        .collect();
    let row = |place| {
        let valid = columns
            .iter()
            .filter(|(_, column, _)| column.is_valid(place));
        valid
            .map(|(name, _, formatter)| ((*name).clone(), formatter.value(place).to_string()))
            .collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Rows as JSON objects, columns that are null left out: as `scripts/interop/otap/expected_rows.py` writes them.
pub fn json_rows(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    let columns: Vec<_> = schema.fields().iter().zip(batch.columns()).collect();
    let row = |place| {
        let valid = columns.iter().filter(|(_, column)| column.is_valid(place));
        let cells = valid.map(|(field, column)| {
            let name = field.name();
            let is_json =
                name.ends_with("_attributes") || name.ends_with("_json") || name == "metadata";
            let cell = match json_cell(&**column, place) {
                Value::String(text) if is_json => serde_json::from_str(&text).unwrap(),
                cell => cell,
            };
            (name.clone(), cell)
        });
        cells.collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

fn json_cell(column: &dyn Array, place: usize) -> Value {
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().value(place).into(),
        DataType::Boolean => column.as_boolean().value(place).into(),
        DataType::Timestamp(..) => {
            let column = column.as_primitive::<TimestampNanosecondType>();
            column.value(place).into()
        }
        DataType::Int64 => column.as_primitive::<Int64Type>().value(place).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(place).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(place).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(place).into(),
        DataType::Float64 => match column.as_primitive::<Float64Type>().value(place) {
            finite if finite.is_finite() => finite.into(),
            other => other.to_string().into(),
        },
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(place);
            let items = (0..items.len()).map(|item| json_cell(&*items, item));
            items.collect()
        }
        other => panic!("a column of type {other}"),
    }
}
