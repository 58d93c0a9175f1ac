//! Many small batches into one: what keeps single-record requests cheap to hold and to stage.

use arrow::array::{Array, ArrayRef, StringViewArray};
use arrow::compute::concat;
use arrow::record_batch::RecordBatch;

use super::batch;
use super::columns::{Interned, TextColumn};
use crate::signal::Table;

/// Puts batches of one table together, in order. Texts are copied into one buffer a column, and a text that repeats
/// from row to row (resources, scopes, names) is stored once.
#[must_use]
pub fn compact(table: Table, batches: &[RecordBatch]) -> RecordBatch {
    let width = batches.first().map_or(0, RecordBatch::num_columns);
    let columns = (0..width)
        .map(|place| {
            let parts: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(place)).collect();
            compact_column(&parts)
        })
        .collect();
    batch(table, columns)
}

fn compact_column(parts: &[&ArrayRef]) -> ArrayRef {
    let texts: Option<Vec<&StringViewArray>> = parts
        .iter()
        .map(|part| part.as_any().downcast_ref::<StringViewArray>())
        .collect();
    let Some(texts) = texts else {
        // One part alone would not be copied, and go on sharing the memory that it is in.
        let empty = parts.first().map(|part| part.slice(0, 0));
        let parts = parts.iter().map(|part| part.as_ref());
        let parts: Vec<&dyn Array> = parts.chain(empty.as_deref()).collect();
        return concat(&parts).expect("batches of one table have the same column types");
    };
    let mut column = TextColumn::new();
    let mut last = ("", Interned::default());
    for text in texts.into_iter().flatten() {
        match text {
            None => column.push_null(),
            Some(text) => {
                if text != last.0 {
                    last = (text, column.intern(text));
                }
                column.push_interned(last.1);
            }
        }
    }
    // What the batches held together was reserved: this one must not hold more.
    column.shrink();
    column.finish()
}
