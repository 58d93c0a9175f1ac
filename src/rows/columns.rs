//! Column builders for what Arrow's own do not do cheaply: text that repeats over many rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, ByteView, Float64Builder, ListBuilder, PrimitiveBuilder,
    StringViewArray, UInt64Builder, make_view,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field};

use super::is_id;

/// A nullable text column of string views over one buffer.
///
/// Text that stands in many rows (resource and scope attributes, metric names) is written once with
/// [`TextColumn::intern`] and costs 16 bytes in each further row.
#[derive(Debug)]
pub(super) struct TextColumn {
    /// The view of empty text, which is null, is 0, and of no other.
    views: Vec<u128>,
    data: Vec<u8>,
}

/// Text already in a column's buffer; the view 0 is null.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interned(u128);

/// Text of up to so many bytes stands in its view.
const INLINE_TEXT_BYTES_MAX: usize = 12;

impl TextColumn {
    pub(super) fn new() -> TextColumn {
        TextColumn {
            views: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Appends text; empty text is null.
    #[inline]
    pub(super) fn push(&mut self, text: &str) {
        let interned = self.intern(text);
        self.push_interned(interned);
    }

    /// Appends an id as lower-case hex.
    #[inline]
    pub(super) fn push_hex(&mut self, id: &[u8]) {
        let mut hex = [0u8; 32];
        let (pairs, _) = hex.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(id) {
            *pair = HEX[usize::from(*byte)];
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
    #[inline]
    pub(super) fn intern(&mut self, text: &str) -> Interned {
        self.intern_bytes(text.as_bytes())
    }

    /// Appends text that was interned in this column.
    #[inline]
    pub(super) fn push_interned(&mut self, text: Interned) {
        self.views.push(text.0);
    }

    /// Appends text that was interned in this column to so many rows.
    pub(super) fn push_run(&mut self, text: Interned, rows: usize) {
        self.views.extend(std::iter::repeat_n(text.0, rows));
    }

    #[inline]
    pub(super) fn push_null(&mut self) {
        self.views.push(0);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let buffers = match std::mem::take(&mut self.data) {
            data if data.is_empty() => Vec::new(),
            data => vec![Buffer::from_vec(data)],
        };
        let views = std::mem::take(&mut self.views);
        let nulls = views.contains(&0).then(|| {
            let is_text = |row| views.get(row).is_some_and(|view: &u128| *view != 0);
            NullBuffer::new(BooleanBuffer::collect_bool(views.len(), is_text))
        });
        Arc::new(string_views(views.into(), buffers, nulls))
    }

    /// Gives back the memory that growing has taken ahead.
    pub(super) fn shrink(&mut self) {
        self.views.shrink_to_fit();
        self.data.shrink_to_fit();
    }

    #[inline]
    fn intern_bytes(&mut self, text: &[u8]) -> Interned {
        let Some(prefix) = text
            .first_chunk::<4>()
            .filter(|_| text.len() > INLINE_TEXT_BYTES_MAX)
        else {
            return Interned(make_view(text, 0, 0));
        };
        let too_long =
            "a request's text stays below 4 GiB: its body and the memory budget bound it";
        let offset = u32::try_from(self.data.len()).expect(too_long);
        let length = u32::try_from(text.len()).expect(too_long);
        self.data.extend_from_slice(text);
        let view = ByteView {
            length,
            prefix: u32::from_le_bytes(*prefix),
            buffer_index: 0,
            offset,
        };
        Interned(view.as_u128())
    }
}

/// Puts a column's parts together without looking at its texts again: they came as `str`, and a shared one would be
/// looked at in every row. That was a seventh of what decoding took.
#[cfg(not(debug_assertions))]
fn string_views(
    views: ScalarBuffer<u128>,
    buffers: Vec<Buffer>,
    nulls: Option<NullBuffer>,
) -> StringViewArray {
    // SAFETY: only `intern_bytes` makes views, each of one whole text of UTF-8 that it has put into the view or into the one
    // buffer, which grows only; null is empty text. Builds with debug assertions, as all tests are, check it.
    #[allow(unsafe_code)]
    unsafe {
        StringViewArray::new_unchecked(views, buffers.into(), nulls)
    }
}

/// Puts a column's parts together, and checks them.
#[cfg(debug_assertions)]
fn string_views(
    views: ScalarBuffer<u128>,
    buffers: Vec<Buffer>,
    nulls: Option<NullBuffer>,
) -> StringViewArray {
    StringViewArray::try_new(views, buffers, nulls)
        .expect("views point at whole texts inside the column's own buffer")
}

/// Each byte as two lower-case hex digits.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    hex
};

/// A nullable primitive column.
#[derive(Debug)]
pub(super) struct Numbers<T: ArrowPrimitiveType>(PrimitiveBuilder<T>);

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn new() -> Numbers<T> {
        Numbers(PrimitiveBuilder::with_capacity(0))
    }

    #[inline]
    pub(super) fn push(&mut self, value: T::Native) {
        self.0.append_value(value);
    }

    /// Appends the same value to so many rows.
    pub(super) fn push_run(&mut self, value: T::Native, rows: usize) {
        self.0.append_value_n(value, rows);
    }

    #[inline]
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
