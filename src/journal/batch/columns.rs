//! Which columns of a batch are written: a column that is null in every row is not, one that has the same value in every row
//! is written once. Telemetry has many of both: a resource's attributes stand in every row of a request.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::encode::{fixed_width, width};
use super::layout::ROW_BYTES_MIN;
use crate::rows::schema::schema;
use crate::signal::Table;

/// Which columns of a batch are written, by their place in the schema.
pub(super) struct Written {
    /// The columns that differ from row to row; one at least that is wide, so that a reader can hold the rows to the bytes.
    pub(super) columns: Vec<u32>,
    /// The columns that have the same value in every row; one row of them is written.
    pub(super) constant_columns: Vec<u32>,
}

impl Written {
    /// Looks at a batch of one row at least.
    pub(super) fn new(batch: &RecordBatch) -> Written {
        let (mut columns, mut constant_columns) = (Vec::new(), Vec::new());
        for (place, column) in (0..).zip(batch.columns()) {
            if column.null_count() == column.len() {
                continue;
            }
            if is_constant(column) {
                constant_columns.push(place);
            } else {
                columns.push(place);
            }
        }
        let is_wide = |place: &u32| {
            let column = batch.columns().get(*place as usize);
            column.is_some_and(|column| width(column.data_type()) >= ROW_BYTES_MIN)
        };
        if !columns.iter().any(is_wide) {
            let constant = constant_columns.iter().position(is_wide);
            // The first column is a time, in every table.
            columns.push(constant.map_or(0, |found| constant_columns.remove(found)));
        }
        Written {
            columns,
            constant_columns,
        }
    }
}

/// The columns at these places.
pub(super) fn at<'a, 'p>(
    batch: &'a RecordBatch,
    places: &'p [u32],
) -> impl Iterator<Item = &'a ArrayRef> + use<'a, 'p> {
    let column = |place: &u32| batch.columns().get(*place as usize);
    places.iter().filter_map(column)
}

/// Whether every row has the same value: told for columns of a fixed width without nulls, by their bytes. Texts count
/// as the same when they are one text, stored once, as the builders do with those that repeat.
fn is_constant(column: &ArrayRef) -> bool {
    if column.null_count() > 0 || column.len() < 2 {
        return false;
    }
    fixed_width(column).is_some_and(|(values, width)| {
        let values = values.as_slice();
        values.get(width..) == values.get(..values.len() - width)
    })
}

/// The part of a schema that a message has.
pub(super) fn part_of(written: &SchemaRef, columns: &[u32]) -> Result<SchemaRef, String> {
    let fields = columns.iter().map(|place| {
        let field = written.fields().get(*place as usize);
        field
            .cloned()
            .ok_or_else(|| format!("the batch has a column {place}, the segment has not"))
    });
    let fields = fields.collect::<Result<Vec<_>, String>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Puts a batch together again, in the columns that its table has today: one that was not written is null.
pub(super) fn restore(
    table: Table,
    batch: &RecordBatch,
    constants: Option<&RecordBatch>,
) -> Result<RecordBatch, String> {
    let rows = batch.num_rows();
    let first = UInt64Array::from_value(0, rows);
    let schema = schema(table);
    let column = |field: &arrow::datatypes::Field| -> Result<ArrayRef, ArrowError> {
        let is_same = |column: &&ArrayRef| column.data_type() == field.data_type();
        if let Some(column) = batch.column_by_name(field.name()).filter(is_same) {
            return Ok(Arc::clone(column));
        }
        let constant = constants.and_then(|constants| constants.column_by_name(field.name()));
        match constant.filter(is_same) {
            Some(column) => take(column, &first, None),
            None => Ok(new_null_array(field.data_type(), rows)),
        }
    };
    let columns: Result<Vec<_>, _> = schema.fields().iter().map(|field| column(field)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(schema, columns, &options))
        .map_err(|error| error.to_string())
}
