//! Rows in Arrow 58.
//!
//! Texts become plain ones: what a program that uses DuckDB's crate would have at hand, and the older library's readers of
//! views copy them anyway.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::Array as _;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use arrow58::ipc::reader::StreamReader;
use arrow58::record_batch::RecordBatch as OlderBatch;

/// Puts batches of one table together, as one batch of the older Arrow.
pub fn older(batches: &[RecordBatch]) -> OlderBatch {
    let all = concat_batches(&batches[0].schema(), batches).unwrap();
    let columns: Vec<_> = all
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => cast(column, &DataType::Utf8).unwrap(),
            _ => Arc::clone(column),
        })
        .collect();
    let schema = all.schema();
    let fields = schema.fields().iter().zip(&columns);
    let fields: Vec<Field> = fields
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    let plain = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &plain.schema()).unwrap();
    writer.write(&plain).unwrap();
    let bytes = writer.into_inner().unwrap();
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).unwrap();
    reader.next().unwrap().unwrap()
}
