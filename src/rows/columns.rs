//! Column builders for what Arrow's own do not do cheaply: text that repeats over many rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, ListBuilder, NullBufferBuilder, PrimitiveBuilder,
    StringViewArray, UInt64Builder, make_view,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field};

use super::is_id;

/// A nullable text column of string views over one buffer.
///
/// Text that stands in many rows (resource and scope attributes, metric names) is written once with
/// [`TextColumn::intern`] and costs 16 bytes in each further row.
#[derive(Debug)]
pub(super) struct TextColumn {
    views: Vec<u128>,
    nulls: NullBufferBuilder,
    data: Vec<u8>,
}

/// Text already in a column's buffer; `None` is null.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interned(Option<u128>);

impl TextColumn {
    pub(super) fn new() -> TextColumn {
        TextColumn {
            views: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            data: Vec::new(),
        }
    }

    /// Appends text; empty text is null.
    pub(super) fn push(&mut self, text: &str) {
        let interned = self.intern(text);
        self.push_interned(interned);
    }

    /// Appends an id as lower-case hex.
    pub(super) fn push_hex(&mut self, id: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0u8; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(id) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let interned = self.intern_bytes(&hex[..id.len().min(16) * 2]);
        self.push_interned(interned);
    }

    /// Appends an id of `LEN` bytes as hex, or null when it is not one.
    pub(super) fn push_id<const LEN: usize>(&mut self, id: &[u8]) {
        if is_id::<LEN>(id) {
            self.push_hex(id);
        } else {
            self.push_null();
        }
    }

    /// Writes text without a row; null when empty.
    pub(super) fn intern(&mut self, text: &str) -> Interned {
        self.intern_bytes(text.as_bytes())
    }

    /// Appends text that was interned in this column.
    pub(super) fn push_interned(&mut self, text: Interned) {
        match text.0 {
            Some(view) => {
                self.views.push(view);
                self.nulls.append_non_null();
            }
            None => self.push_null(),
        }
    }

    pub(super) fn push_null(&mut self) {
        self.views.push(0);
        self.nulls.append_null();
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let buffers = match std::mem::take(&mut self.data) {
            data if data.is_empty() => Vec::new(),
            data => vec![Buffer::from_vec(data)],
        };
        let views = ScalarBuffer::from(std::mem::take(&mut self.views));
        let array = StringViewArray::try_new(views, buffers, self.nulls.finish());
        Arc::new(array.expect("views point at whole texts inside the column's own buffer"))
    }

    /// Gives back the memory that growing has taken ahead.
    pub(super) fn shrink(&mut self) {
        self.views.shrink_to_fit();
        self.data.shrink_to_fit();
    }

    fn intern_bytes(&mut self, text: &[u8]) -> Interned {
        if text.is_empty() {
            return Interned(None);
        }
        let offset = u32::try_from(self.data.len())
            .expect("a request's text stays below 4 GiB: its body and the memory budget bound it");
        if text.len() > 12 {
            self.data.extend_from_slice(text);
        }
        Interned(Some(make_view(text, 0, offset)))
    }
}

/// A nullable primitive column.
#[derive(Debug)]
pub(super) struct Numbers<T: ArrowPrimitiveType>(PrimitiveBuilder<T>);

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn new() -> Numbers<T> {
        Numbers(PrimitiveBuilder::with_capacity(0))
    }

    pub(super) fn push(&mut self, value: T::Native) {
        self.0.append_value(value);
    }

    pub(super) fn push_option(&mut self, value: Option<T::Native>) {
        self.0.append_option(value);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// A boolean column.
#[derive(Debug)]
pub(super) struct Booleans(BooleanBuilder);

impl Booleans {
    pub(super) fn new() -> Booleans {
        Booleans(BooleanBuilder::with_capacity(0))
    }

    pub(super) fn push(&mut self, value: bool) {
        self.0.append_value(value);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// A column of lists of unsigned integers; an empty list stays an empty list.
#[derive(Debug)]
pub(super) struct CountLists(ListBuilder<UInt64Builder>);

impl CountLists {
    pub(super) fn new() -> CountLists {
        CountLists(
            ListBuilder::with_capacity(UInt64Builder::with_capacity(0), 0)
                .with_field(Arc::new(Field::new("element", DataType::UInt64, true))),
        )
    }

    pub(super) fn push(&mut self, values: &[u64]) {
        self.0.values().append_slice(values);
        self.0.append(true);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// A column of lists of doubles; an empty list stays an empty list.
#[derive(Debug)]
pub(super) struct DoubleLists(ListBuilder<Float64Builder>);

impl DoubleLists {
    pub(super) fn new() -> DoubleLists {
        DoubleLists(
            ListBuilder::with_capacity(Float64Builder::with_capacity(0), 0)
                .with_field(Arc::new(Field::new("element", DataType::Float64, true))),
        )
    }

    pub(super) fn push(&mut self, values: &[f64]) {
        self.0.values().append_slice(values);
        self.0.append(true);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}
