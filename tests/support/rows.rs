//! Rows as text, to compare what different decoders make of the same telemetry.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use otlake::rows::Rows;
use otlake::signal::Table;

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
