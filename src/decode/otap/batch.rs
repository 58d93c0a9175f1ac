//! Record batches: a message's buffers as arrays.
//!
//! arrow-ipc's own reader makes an `ArrayData` of each column, validates that, and makes an array of it: some ten allocations a
//! column, and a batch of metrics has a hundred columns. Here each array is made at once, by constructors that check what they
//! are given: offsets, UTF-8, the keys of dictionaries.
//!
//! Source: Arrow columnar format, "Serialization and Interprocess Communication", "RecordBatch message".

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayData, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, GenericByteArray,
    GenericListArray, NullArray, OffsetSizeTrait, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StructArray, make_array, new_empty_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, BinaryType, ByteArrayType, DataType,
    DurationNanosecondType, Field, FieldRef, Fields, Float64Type, Int32Type, Int64Type,
    LargeBinaryType, LargeUtf8Type, SchemaRef, TimeUnit, TimestampNanosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type, Utf8Type,
};
use arrow::error::ArrowError;
use arrow_ipc::FieldNode;

use super::prewalk::dictionary_id;

/// Reads a batch whose nodes and buffers were checked against `schema`; `buffers` are plain. The columns share them.
///
/// # Errors
/// [`ArrowError`] when the arrays do not hold what their types ask for.
pub(super) fn read<'a>(
    schema: &SchemaRef,
    rows: usize,
    nodes: impl Iterator<Item = &'a FieldNode>,
    buffers: Vec<Buffer>,
    dictionaries: &HashMap<i64, ArrayRef>,
) -> Result<RecordBatch, ArrowError> {
    let mut reading = Reading {
        nodes,
        buffers: buffers.into_iter(),
        dictionaries,
    };
    let columns = reading.columns(schema.fields())?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Goes through nodes and buffers as they stand in the message: those of a column before those of its children.
struct Reading<'d, N> {
    nodes: N,
    buffers: std::vec::IntoIter<Buffer>,
    dictionaries: &'d HashMap<i64, ArrayRef>,
}

impl<'n, N: Iterator<Item = &'n FieldNode>> Reading<'_, N> {
    fn columns(&mut self, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
        fields.iter().map(|field| self.column(field)).collect()
    }

    fn column(&mut self, field: &Field) -> Result<ArrayRef, ArrowError> {
        let node = self.nodes.next().ok_or_else(|| missing("column"))?;
        let (rows, nulls) = (count(node.length())?, count(node.null_count())?);
        if *field.data_type() == DataType::Null {
            return match nulls == rows {
                true => Ok(Arc::new(NullArray::new(rows))),
                false => Err(wrong("a column of nulls has other values".to_owned())),
            };
        }
        let nulls = self.nulls(rows, nulls)?;
        Ok(match field.data_type() {
            DataType::Boolean => {
                let values = BooleanBuffer::new(self.bytes(rows.div_ceil(8))?, 0, rows);
                Arc::new(BooleanArray::new(values, nulls))
            }
            DataType::Utf8 => self.texts::<Utf8Type>(rows, nulls)?,
            DataType::LargeUtf8 => self.texts::<LargeUtf8Type>(rows, nulls)?,
            DataType::Binary => self.texts::<BinaryType>(rows, nulls)?,
            DataType::LargeBinary => self.texts::<LargeBinaryType>(rows, nulls)?,
            DataType::FixedSizeBinary(width) => {
                let bytes = usize::try_from(*width).unwrap_or_default();
                let values = self.bytes(rows.saturating_mul(bytes))?;
                Arc::new(FixedSizeBinaryArray::try_new(*width, values, nulls)?)
            }
            DataType::List(items) => self.lists::<i32>(rows, nulls, items)?,
            DataType::LargeList(items) => self.lists::<i64>(rows, nulls, items)?,
            DataType::Struct(fields) => {
                let columns = self.columns(fields)?;
                let fields = fields.clone();
                Arc::new(StructArray::try_new_with_length(
                    fields, columns, nulls, rows,
                )?)
            }
            DataType::Dictionary(keys, values) => {
                let id = dictionary_id(field).ok_or_else(|| missing("dictionary"))?;
                // One whose values are all null may have had no dictionary.
                let values = match self.dictionaries.get(&id) {
                    Some(values) => Arc::clone(values),
                    None => new_empty_array(values),
                };
                match **keys {
                    DataType::UInt8 => self.dictionary::<UInt8Type>(rows, nulls, values)?,
                    _ => self.dictionary::<UInt16Type>(rows, nulls, values)?,
                }
            }
            DataType::UInt8 => Arc::new(self.numbers::<UInt8Type>(rows, nulls)?),
            DataType::UInt16 => Arc::new(self.numbers::<UInt16Type>(rows, nulls)?),
            DataType::UInt32 => Arc::new(self.numbers::<UInt32Type>(rows, nulls)?),
            DataType::UInt64 => Arc::new(self.numbers::<UInt64Type>(rows, nulls)?),
            DataType::Int32 => Arc::new(self.numbers::<Int32Type>(rows, nulls)?),
            DataType::Int64 => Arc::new(self.numbers::<Int64Type>(rows, nulls)?),
            DataType::Float64 => Arc::new(self.numbers::<Float64Type>(rows, nulls)?),
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                let times = self.numbers::<TimestampNanosecondType>(rows, nulls)?;
                Arc::new(times.with_timezone_opt(zone.clone()))
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                Arc::new(self.numbers::<DurationNanosecondType>(rows, nulls)?)
            }
            other => {
                let width = other.primitive_width();
                let width = width.ok_or_else(|| wrong(format!("a column is of type {other}")))?;
                let values = self.bytes(rows.saturating_mul(width))?;
                let data = ArrayData::builder(other.clone()).len(rows);
                make_array(data.nulls(nulls).add_buffer(values).build()?)
            }
        })
    }

    fn nulls(&mut self, rows: usize, count: usize) -> Result<Option<NullBuffer>, ArrowError> {
        let bits = self.buffer()?;
        if count == 0 {
            return Ok(None);
        }
        let bits = part(&bits, rows.div_ceil(8))?;
        let nulls = NullBuffer::new(BooleanBuffer::new(bits, 0, rows));
        match nulls.null_count() == count {
            true => Ok(Some(nulls)),
            false => Err(wrong(format!(
                "a column says that it has {count} nulls and has {}",
                nulls.null_count()
            ))),
        }
    }

    fn numbers<T: ArrowPrimitiveType>(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<PrimitiveArray<T>, ArrowError> {
        let bytes = rows.saturating_mul(size_of::<T::Native>());
        let values = ScalarBuffer::new(self.bytes(bytes)?, 0, rows);
        PrimitiveArray::try_new(values, nulls)
    }

    fn dictionary<K: ArrowDictionaryKeyType>(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
        values: ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        let keys = self.numbers::<K>(rows, nulls)?;
        Ok(Arc::new(DictionaryArray::try_new(keys, values)?))
    }

    fn texts<T: ByteArrayType>(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let offsets = self.offsets::<T::Offset>(rows)?;
        let values = self.buffer()?;
        Ok(Arc::new(GenericByteArray::<T>::try_new(
            offsets, values, nulls,
        )?))
    }

    fn lists<O: OffsetSizeTrait>(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
        items: &FieldRef,
    ) -> Result<ArrayRef, ArrowError> {
        let offsets = self.offsets::<O>(rows)?;
        let values = self.column(items)?;
        let items = Arc::clone(items);
        Ok(Arc::new(GenericListArray::try_new(
            items, offsets, values, nulls,
        )?))
    }

    /// The offsets of `rows` lists or texts; those of none may be left out.
    fn offsets<O: OffsetSizeTrait>(&mut self, rows: usize) -> Result<OffsetBuffer<O>, ArrowError> {
        let bytes = (rows + 1).saturating_mul(size_of::<O>());
        let buffer = self.buffer()?;
        if rows == 0 {
            return Ok(OffsetBuffer::new_empty());
        }
        let offsets = ScalarBuffer::<O>::new(part(&buffer, bytes)?, 0, rows + 1);
        let is_below_zero = offsets.first().is_none_or(|first| *first < O::usize_as(0));
        if is_below_zero || !offsets.is_sorted() {
            return Err(wrong("the offsets of a column do not ascend".to_owned()));
        }
        Ok(OffsetBuffer::new(offsets))
    }

    /// The first bytes of the next buffer.
    fn bytes(&mut self, bytes: usize) -> Result<Buffer, ArrowError> {
        part(&self.buffer()?, bytes)
    }

    fn buffer(&mut self) -> Result<Buffer, ArrowError> {
        self.buffers.next().ok_or_else(|| missing("buffer"))
    }
}

fn part(buffer: &Buffer, bytes: usize) -> Result<Buffer, ArrowError> {
    match buffer.len() >= bytes {
        true => Ok(buffer.slice_with_length(0, bytes)),
        false => Err(wrong("a buffer is shorter than its rows need".to_owned())),
    }
}

fn count(length: i64) -> Result<usize, ArrowError> {
    usize::try_from(length).map_err(|_| wrong("a count is below zero".to_owned()))
}

fn missing(what: &str) -> ArrowError {
    wrong(format!("a {what} is missing"))
}

fn wrong(what: String) -> ArrowError {
    ArrowError::IpcError(what)
}
