//! The values of one dictionary, each once, in the order in which they came.

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use twox_hash::XxHash3_64;

/// Values that a dictionary may hold: what keys of 16 bits reach, less one.
pub(super) const DICTIONARY_VALUES_MAX: usize = 65_535;
/// Bytes that a dictionary may hold; values that large are not worth one, and receivers have to keep it.
const DICTIONARY_BYTES_MAX: usize = 8 << 20;

/// A set of values that gives each a number: its place in the dictionary.
///
/// It may grow over its bounds within a batch; [`Interner::is_full`] says so, and the column then gives it up.
pub(super) struct Interner {
    /// Bytes of each value, if all are the same.
    width: Option<usize>,
    /// The values, one after the other.
    data: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
    numbers: HashTable<u32>,
    /// The values as an array; kept while nothing is new, so that the writer sees at once that nothing is.
    array: Option<ArrayRef>,
}

impl Interner {
    pub(super) fn new(width: Option<usize>) -> Interner {
        Interner {
            width,
            data: Vec::new(),
            ends: Vec::new(),
            numbers: HashTable::new(),
            array: None,
        }
    }

    /// The number of the value, which is added if it is new.
    pub(super) fn number(&mut self, value: &[u8]) -> u32 {
        let (data, ends) = (&self.data, &self.ends);
        let hash = XxHash3_64::oneshot(value);
        let is_value = |number: &u32| slice(data, ends, *number as usize) == value;
        if let Some(number) = self.numbers.find(hash, is_value) {
            return *number;
        }
        let number = u32::try_from(self.ends.len())
            .expect("a batch has fewer values than a request of 4 GiB has bytes");
        self.data.extend_from_slice(value);
        self.ends.push(self.data.len());
        self.array = None;
        let (data, ends) = (&self.data, &self.ends);
        self.numbers.insert_unique(hash, number, |number| {
            XxHash3_64::oneshot(slice(data, ends, *number as usize))
        });
        number
    }

    /// The value with this number.
    pub(super) fn value(&self, number: u32) -> &[u8] {
        slice(&self.data, &self.ends, number as usize)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is more than a dictionary may hold.
    pub(super) fn is_full(&self) -> bool {
        self.len() > DICTIONARY_VALUES_MAX || self.data.len() > DICTIONARY_BYTES_MAX
    }

    /// Forgets all values.
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.numbers.clear();
        self.array = None;
    }

    /// The values as an array of `data_type`; the same one until there is a new value.
    pub(super) fn array(&mut self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        if let Some(array) = &self.array {
            return Ok(ArrayRef::clone(array));
        }
        let mut builder = ArrayData::builder(data_type.clone()).len(self.ends.len());
        if self.width.is_none() {
            let ends = self
                .ends
                .iter()
                .map(|end| i32::try_from(*end).unwrap_or(i32::MAX));
            let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
            builder = builder.add_buffer(Buffer::from_vec(offsets));
        }
        let data = builder
            .add_buffer(Buffer::from_slice_ref(&self.data))
            .build()?;
        let array = make_array(data);
        self.array = Some(ArrayRef::clone(&array));
        Ok(array)
    }
}

fn slice<'a>(data: &'a [u8], ends: &[usize], number: usize) -> &'a [u8] {
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    &data[start..ends[number]]
}
