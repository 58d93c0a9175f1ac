//! Whether the metadata of an Arrow batch is what the journal writes, before arrow-ipc goes by it.
//!
//! arrow-ipc checks what the arrays hold. But it slices buffers out of the body as the metadata says, looks at them as
//! rows of numbers, and panics where that does not come out even. So here, for each column: there is a node of as many
//! rows as the batch has, and each of its buffers lies behind the one before it, inside of the body, with room for all
//! rows. So all columns together hold no more than the body.

use arrow::datatypes::{DataType, Schema};
use arrow_ipc::{Buffer, FieldNode};

use super::super::frame::ALIGNMENT;
use crate::rows::EXPANDED_BYTES_MAX;

/// One column at least is as wide as a time: no row takes less.
pub(super) const ROW_BYTES_MIN: usize = 8;

/// A view of a text: length, and the text itself or where it is.
const VIEW_BYTES: usize = 16;

/// An offset of a list.
const OFFSET_BYTES: usize = 4;

/// Checks the metadata of a batch.
pub(super) fn check(
    batch: &arrow_ipc::RecordBatch<'_>,
    body: &[u8],
    schema: &Schema,
) -> Result<(), &'static str> {
    if batch.compression().is_some() {
        return Err("it is compressed, which no journal is");
    }
    let rows = usize::try_from(batch.length()).map_err(|_| "its count of rows is negative")?;
    if rows > body.len() / ROW_BYTES_MIN {
        return Err("it has more rows than its body can hold");
    }
    let mut walk = Walk {
        nodes: batch.nodes().into_iter().flatten(),
        buffers: batch.buffers().into_iter().flatten(),
        view_buffers: batch.variadicBufferCounts().into_iter().flatten(),
        body,
        at: 0,
        text_bytes: 0,
    };
    for field in schema.fields() {
        if walk.column(field.data_type())? != rows {
            return Err("a column has another count of rows");
        }
    }
    if walk.nodes.next().is_some() || walk.buffers.next().is_some() {
        return Err("it has more columns than its table");
    }
    if walk.view_buffers.next().is_some() {
        return Err("it has more texts than its table");
    }
    Ok(())
}

/// Goes through the columns as arrow-ipc does.
struct Walk<'a, N, B, V> {
    nodes: N,
    buffers: B,
    /// How many buffers the texts of a column are in, for each column of texts.
    view_buffers: V,
    body: &'a [u8],
    /// Where the last buffer ended.
    at: usize,
    /// All texts, those that are shared as often as they are used.
    text_bytes: u64,
}

impl<'a, 'm, N, B, V> Walk<'a, N, B, V>
where
    N: Iterator<Item = &'m FieldNode>,
    B: Iterator<Item = &'m Buffer>,
    V: Iterator<Item = i64>,
{
    /// Checks a column; answers its rows.
    fn column(&mut self, data_type: &DataType) -> Result<usize, &'static str> {
        let node = self.nodes.next().ok_or("a column is missing")?;
        let rows = usize::try_from(node.length()).map_err(|_| "a count of rows is negative")?;
        let nulls = usize::try_from(node.null_count()).map_err(|_| "a count is negative")?;
        if nulls > rows {
            return Err("a column has more nulls than rows");
        }
        let bitmap_bytes = rows.div_ceil(8);
        self.buffer(if nulls > 0 { bitmap_bytes } else { 0 }, 1)?;
        match data_type {
            DataType::Utf8View => {
                let views = self.elements(rows, VIEW_BYTES)?;
                self.texts(views)?;
            }
            DataType::Boolean => drop(self.buffer(bitmap_bytes, 1)?),
            DataType::List(items) => {
                let offsets = if rows == 0 { 0 } else { rows + 1 };
                self.elements(offsets, OFFSET_BYTES)?;
                self.column(items.data_type())?;
            }
            other => {
                let width = other
                    .primitive_width()
                    .ok_or("no table has such a column")?;
                self.elements(rows, width)?;
            }
        }
        Ok(rows)
    }

    /// The next buffer, which holds at least so many elements of this width, and only whole ones.
    fn elements(&mut self, count: usize, width: usize) -> Result<&'a [u8], &'static str> {
        let bytes = count.checked_mul(width).ok_or("a column is too long")?;
        self.buffer(bytes, width)
    }

    fn buffer(&mut self, bytes_min: usize, width: usize) -> Result<&'a [u8], &'static str> {
        let buffer = self.buffers.next().ok_or("a buffer is missing")?;
        let offset = usize::try_from(buffer.offset()).map_err(|_| "an offset is negative")?;
        let bytes = usize::try_from(buffer.length()).map_err(|_| "a length is negative")?;
        if offset < self.at || offset % ALIGNMENT != 0 {
            return Err("a buffer is not behind the one before");
        }
        if bytes < bytes_min || bytes % width != 0 {
            return Err("a buffer is too short for its rows");
        }
        let end = offset.checked_add(bytes);
        let content = end.and_then(|end| self.body.get(offset..end));
        self.at = offset + bytes.min(self.body.len());
        content.ok_or("a buffer is outside of the body")
    }

    /// The buffers that a column's texts are in, and how long they are when each is written out: arrow-ipc looks at each
    /// view's text, so a few bytes that are shared by many would take it for ever.
    fn texts(&mut self, views: &[u8]) -> Result<(), &'static str> {
        for view in views.chunks_exact(VIEW_BYTES) {
            let len = view.first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
            self.text_bytes += u64::from(len);
        }
        if self.text_bytes > EXPANDED_BYTES_MAX {
            return Err("it has more text than a request may have");
        }
        let count = self.view_buffers.next().ok_or("the texts are missing")?;
        if count < 0 {
            return Err("a count of buffers is negative");
        }
        // Each takes a buffer of the list, which ends.
        for _ in 0..count {
            self.buffer(0, 1)?;
        }
        Ok(())
    }
}
