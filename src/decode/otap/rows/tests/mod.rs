//! What the tables of a batch become, held against what OTLP's decoder makes of the same telemetry.

mod arbitrary;
mod attributes;
mod cbor;
mod ids;
mod logs;
mod metrics;
mod produce;
mod refusals;
mod traces;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;

use super::rows;
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::memory::Budget;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::Rows;
use crate::signal::{Signal, Table};

const RECEIVED: i64 = 1_700_000_000_000_000_000;

/// The columns of a table under construction.
type Columns = Vec<(&'static str, ArrayRef)>;

/// Where a column says how it is encoded.
const ENCODING: &str = "encoding";

fn fields(columns: &Columns) -> Fields {
    columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect()
}

/// A table of named columns.
fn table(columns: Columns) -> RecordBatch {
    let schema = Schema::new(fields(&columns));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
}

/// A struct column of named columns.
fn structure(columns: Columns) -> ArrayRef {
    let fields = fields(&columns);
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    Arc::new(StructArray::new(fields, arrays, None))
}

/// The field with its encoding in the metadata.
fn stating(field: &Field, encoding: &str) -> Field {
    let metadata = HashMap::from([(ENCODING.to_owned(), encoding.to_owned())]);
    field.clone().with_metadata(metadata)
}

/// The table with the encoding of one of its columns in that column's metadata.
fn with_encoding(batch: &RecordBatch, column: &str, encoding: &str) -> RecordBatch {
    let fields = batch.schema_ref().fields().iter().map(|field| {
        if field.name() == column {
            stating(field, encoding)
        } else {
            field.as_ref().clone()
        }
    });
    let schema = Schema::new(fields.collect::<Vec<Field>>());
    RecordBatch::try_new(Arc::new(schema), batch.columns().to_vec()).unwrap()
}

/// The table without one of its columns.
fn without(batch: &RecordBatch, column: &str) -> RecordBatch {
    let mut batch = batch.clone();
    let place = batch.schema_ref().index_of(column).unwrap();
    batch.remove_column(place);
    batch
}

/// The table with a column in another's place, or added.
fn with(batch: &RecordBatch, column: &'static str, array: ArrayRef) -> RecordBatch {
    let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
    let schema = batch.schema();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if field.name() != column {
            columns.push((field.as_ref().clone(), array.clone()));
        }
    }
    columns.push((Field::new(column, array.data_type().clone(), true), array));
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn tables(list: impl IntoIterator<Item = (ArrowPayloadType, RecordBatch)>) -> Tables {
    let mut tables = Tables::default();
    for (of, batch) in list {
        tables.insert(of, batch);
    }
    tables
}

fn decode(signal: Signal, tables: &Tables) -> Result<Rows, DecodeError> {
    rows(signal, tables, RECEIVED, Budget::new(256 << 20).empty())
}

fn malformed(result: Result<Rows, DecodeError>) -> String {
    match result {
        Err(DecodeError::Malformed(reason)) => reason,
        other => panic!("not malformed: {other:?}"),
    }
}

/// One column of one table as text; null is `-`.
fn column(rows: &Rows, table: Table, name: &str) -> Vec<String> {
    let Some((_, batch)) = rows.batches.iter().find(|(of, _)| *of == table) else {
        return Vec::new();
    };
    let column = batch.column_by_name(name).unwrap();
    (0..batch.num_rows())
        .map(|row| match column.is_null(row) {
            true => "-".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        })
        .collect()
}

/// Asserts that two requests gave the same rows: every column of every table, and what was refused.
#[track_caller]
fn assert_same(found: &Rows, expected: &Rows) {
    for (table, batch) in &expected.batches {
        for (place, field) in batch.schema_ref().fields().iter().enumerate() {
            let found = column(found, *table, field.name());
            let expected = column(expected, *table, field.name());
            assert_eq!(
                found,
                expected,
                "{table:?}, column {place} {}",
                field.name()
            );
        }
    }
    // NaN is not equal to itself, so batches of it only compare as text.
    assert_eq!(found.batches.len(), expected.batches.len());
    assert_eq!(found.rows(), expected.rows());
    assert_eq!(found.rejections, expected.rejections);
}

/// How a producer writes its tables.
#[derive(Clone, Debug)]
struct Form {
    /// The key type of dictionary columns; without one they are native.
    keys: Option<DataType>,
    /// Whether ids are plain, delta or quasi-delta encoded.
    plain: bool,
    /// Whether the metadata says how. It must where ids are plain.
    stated: bool,
}

/// The forms that producers write, and the others that are legal.
fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for keys in [None, Some(DataType::UInt8), Some(DataType::UInt16)] {
        for (plain, stated) in [(false, false), (false, true), (true, true)] {
            forms.push(Form {
                keys: keys.clone(),
                plain,
                stated,
            });
        }
    }
    forms
}
