//! Column builders for what Arrow's own do not do cheaply: text that repeats over many rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowNativeTypeOp as _, BooleanBuilder, ByteView, Float64Builder, ListBuilder,
    NullBufferBuilder, PrimitiveArray, StringViewArray, UInt64Builder, make_view,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field};

use super::{constant, is_id};

/// A nullable text column of string views over one buffer.
///
/// Text that stands in many rows (resource and scope attributes, metric names) is written once with
/// [`TextColumn::intern`] and costs 16 bytes in each further row.
#[derive(Debug)]
pub(super) struct TextColumn {
    /// The view of empty text, which is null, is 0, and of no other. Nothing is here before the first text.
    views: Vec<u128>,
    /// The rows before the first text.
    leading_nulls: usize,
    data: Vec<u8>,
    expected: usize,
}

/// Memory for texts that is taken ahead of them, bytes.
const TEXT_BYTES_AHEAD_MAX: usize = 64 << 10;

/// Text already in a column's buffer; the view 0 is null.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interned(u128);

/// Text of up to so many bytes stands in its view.
const INLINE_TEXT_BYTES_MAX: usize = 12;

impl TextColumn {
    pub(super) fn new() -> TextColumn {
        TextColumn {
            views: Vec::new(),
            leading_nulls: 0,
            data: Vec::new(),
            expected: 0,
        }
    }

    /// So many rows more will come: memory for them is taken once, when the first has text.
    pub(super) fn expect(&mut self, rows: usize) {
        self.expected = self.views.len().max(self.leading_nulls) + rows;
        if !self.views.is_empty() {
            self.views.reserve(rows);
        }
    }

    /// Appends text; empty text is null.
    #[inline]
    pub(super) fn push(&mut self, text: &str) {
        let interned = self.intern_own(text.as_bytes());
        self.push_interned(interned);
    }

    /// Appends an id of `LEN` bytes as lower-case hex, or null when it is not one.
    #[inline]
    pub(super) fn push_id<const LEN: usize>(&mut self, id: &[u8]) {
        match id.first_chunk::<LEN>() {
            // Of a length that the compiler knows, so that it is copied without a call.
            Some(bytes) if is_id::<LEN>(id) => {
                let hex = bytes.map(|byte| HEX[usize::from(byte)]);
                let interned = self.intern_own(hex.as_flattened());
                self.push_interned(interned);
            }
            _ => self.push_null(),
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
        if self.views.is_empty() {
            self.push_first(text, 1);
        } else {
            self.views.push(text.0);
        }
    }

    /// Appends text that was interned in this column to so many rows.
    pub(super) fn push_run(&mut self, text: Interned, rows: usize) {
        if self.views.is_empty() {
            self.push_first(text, rows);
        } else {
            self.views.extend(std::iter::repeat_n(text.0, rows));
        }
    }

    #[inline]
    pub(super) fn push_null(&mut self) {
        self.push_interned(Interned::default());
    }

    /// Appends while there was no text yet: many columns never have any, and then need no memory.
    fn push_first(&mut self, text: Interned, rows: usize) {
        if text.0 == 0 {
            self.leading_nulls += rows;
            return;
        }
        let rows = self.leading_nulls + rows;
        self.views.reserve_exact(rows.max(self.expected));
        self.views.resize(self.leading_nulls, 0);
        self.views.resize(rows, text.0);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        if self.views.is_empty() {
            return constant::nulls(std::mem::take(&mut self.leading_nulls));
        }
        self.leading_nulls = 0;
        let data = std::mem::take(&mut self.data);
        let buffers: Arc<[Buffer]> = match data.is_empty() {
            true => Arc::new([]),
            false => Arc::new([Buffer::from_vec(data)]),
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

    /// Writes the text of one row, and takes memory for those of the others if it is the first.
    #[inline]
    fn intern_own(&mut self, text: &[u8]) -> Interned {
        if self.data.capacity() == 0 && text.len() > INLINE_TEXT_BYTES_MAX {
            self.expect_texts(text.len());
        }
        self.intern_bytes(text)
    }

    #[cold]
    fn expect_texts(&mut self, bytes: usize) {
        // They differ a little.
        let all = (bytes + bytes / 8).saturating_mul(self.expected);
        self.data
            .reserve_exact(all.min(TEXT_BYTES_AHEAD_MAX).max(bytes));
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
    buffers: Arc<[Buffer]>,
    nulls: Option<NullBuffer>,
) -> StringViewArray {
    // SAFETY: only `intern_bytes` makes views, each of one whole text of UTF-8 that it has put into the view or into the one
    // buffer, which grows only; null is empty text. Builds with debug assertions, as all tests are, check it.
    #[allow(unsafe_code)]
    unsafe {
        StringViewArray::new_unchecked(views, buffers, nulls)
    }
}

/// Puts a column's parts together, and checks them.
#[cfg(debug_assertions)]
fn string_views(
    views: ScalarBuffer<u128>,
    buffers: Arc<[Buffer]>,
    nulls: Option<NullBuffer>,
) -> StringViewArray {
    StringViewArray::try_new(views, buffers, nulls)
        .expect("views point at whole texts inside the column's own buffer")
}

/// Each byte as two lower-case hex digits.
pub(super) const HEX: [[u8; 2]; 256] = {
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
pub(super) struct Numbers<T: ArrowPrimitiveType> {
    /// Nothing is here before the first value that is not zero.
    values: Vec<T::Native>,
    /// The rows before it.
    leading_zeros: usize,
    nulls: NullBufferBuilder,
    expected: usize,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn new() -> Numbers<T> {
        Numbers {
            values: Vec::new(),
            leading_zeros: 0,
            nulls: NullBufferBuilder::new(0),
            expected: 0,
        }
    }

    /// So many rows more will come: memory for them is taken once, when the first is not zero.
    pub(super) fn expect(&mut self, rows: usize) {
        self.expected = self.values.len().max(self.leading_zeros) + rows;
        if !self.values.is_empty() {
            self.values.reserve(rows);
        }
    }

    #[inline]
    pub(super) fn push(&mut self, value: T::Native) {
        self.nulls.append_non_null();
        self.push_value(value);
    }

    /// Appends the same value to so many rows.
    pub(super) fn push_run(&mut self, value: T::Native, rows: usize) {
        self.nulls.append_n_non_nulls(rows);
        if self.values.is_empty() {
            self.push_first(value, rows);
        } else {
            self.values.extend(std::iter::repeat_n(value, rows));
        }
    }

    #[inline]
    pub(super) fn push_option(&mut self, value: Option<T::Native>) {
        self.nulls.append(value.is_some());
        self.push_value(value.unwrap_or_default());
    }

    #[inline]
    fn push_value(&mut self, value: T::Native) {
        if self.values.is_empty() {
            self.push_first(value, 1);
        } else {
            self.values.push(value);
        }
    }

    /// Appends while there were only zeros yet: many columns never have anything else, and then need no memory.
    fn push_first(&mut self, value: T::Native, rows: usize) {
        // Bit for bit: a negative zero is another value.
        if value.is_eq(T::Native::ZERO) {
            self.leading_zeros += rows;
            return;
        }
        let rows = self.leading_zeros + rows;
        self.values.reserve_exact(rows.max(self.expected));
        self.values.resize(self.leading_zeros, T::Native::ZERO);
        self.values.resize(rows, value);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let zeros = std::mem::take(&mut self.leading_zeros);
        let nulls = self.nulls.finish();
        if !self.values.is_empty() {
            let values = std::mem::take(&mut self.values);
            return Arc::new(PrimitiveArray::<T>::new(values.into(), nulls));
        }
        match nulls {
            None => constant::zeros::<T>(zeros),
            nulls => {
                let values = vec![T::Native::ZERO; zeros];
                Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
            }
        }
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

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _, Float64Array};
    use arrow::datatypes::Float64Type;

    use super::*;

    /// Scenario: texts and nulls in every order, one by one and in runs, with rows expected, too few, too many or none.
    /// Guarantees: every row comes back; a column that never had text is null in all of its rows, of which there are as many.
    #[test]
    fn texts_come_back_whatever_was_expected() {
        let long = "a text that is longer than a view holds";
        let inputs: [&[&str]; 6] = [
            &["", "", ""],
            &["", "", "a"],
            &["a", "", long],
            &[long, long, ""],
            &["", long],
            &[""; 2000],
        ];
        for (input, expected) in inputs
            .iter()
            .flat_map(|input| [0, 1, 3, 5000].map(|n| (input, n)))
        {
            let (mut single, mut runs) = (TextColumn::new(), TextColumn::new());
            for (place, text) in input.iter().enumerate() {
                if place % 2 == 0 {
                    single.expect(expected);
                    runs.expect(expected);
                }
                single.push(text);
                let interned = runs.intern(text);
                runs.push_run(interned, 2);
            }
            let (single, runs) = (single.finish(), runs.finish());
            let texts = input
                .iter()
                .map(|text| Some(*text).filter(|text| !text.is_empty()));
            let twice = texts.clone().flat_map(|text| [text; 2]);
            assert_eq!(
                single.as_string_view().iter().collect::<Vec<_>>(),
                texts.collect::<Vec<_>>()
            );
            assert_eq!(
                runs.as_string_view().iter().collect::<Vec<_>>(),
                twice.collect::<Vec<_>>()
            );
        }
    }

    /// Scenario: zeros before, between and behind other numbers, negative zeros and nulls, with rows expected or not.
    /// Guarantees: every row comes back, bit for bit.
    #[test]
    fn numbers_come_back_whatever_was_expected() {
        let inputs: [&[Option<f64>]; 7] = [
            &[Some(0.0), Some(0.0)],
            &[Some(-0.0), Some(0.0)],
            &[Some(0.0), Some(-0.0)],
            &[Some(0.0), None, Some(0.0)],
            &[None, None],
            &[Some(1.0), None, Some(0.0)],
            &[Some(0.0); 2000],
        ];
        for (input, expected) in inputs
            .iter()
            .flat_map(|input| [0, 1, 5000].map(|n| (input, n)))
        {
            let mut numbers = Numbers::<Float64Type>::new();
            numbers.expect(expected);
            for value in *input {
                numbers.push_option(*value);
            }
            let finished = numbers.finish();
            let finished = finished.as_primitive::<Float64Type>();
            assert_eq!(finished, &Float64Array::from(input.to_vec()));
            let is_negative = |value: f64| value.is_sign_negative();
            let signs = finished.iter().map(|value| value.map(is_negative));
            let expected_signs = input.iter().map(|value| value.map(is_negative));
            assert!(signs.eq(expected_signs));
            assert_eq!(
                finished.null_count(),
                input.iter().filter(|value| value.is_none()).count()
            );
        }
    }
}
