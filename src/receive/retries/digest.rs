//! The digest of rows: what a batch is known by whose bytes mean nothing without the dictionaries of its stream.

use arrow::array::{Array, AsArray as _};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::downcast_primitive_array;
use twox_hash::XxHash3_128;

use crate::journal::Digest;
use crate::rows::Rows;

/// Digests columns as they are laid out: the builders lay the same rows out alike.
pub(super) fn digest_rows(rows: &Rows, seed: u64) -> Digest {
    let mut hasher = Hasher(XxHash3_128::with_seed(seed));
    for (table, batch) in &rows.batches {
        hasher.number(table.index());
        for column in batch.columns() {
            hasher.array(column);
        }
    }
    Digest(hasher.0.finish_128())
}

struct Hasher(XxHash3_128);

impl Hasher {
    fn number(&mut self, number: usize) {
        self.0.write(&(number as u64).to_le_bytes());
    }

    fn array(&mut self, array: &dyn Array) {
        self.number(array.len());
        let is_null = array.null_count() == array.len();
        self.number(usize::from(is_null));
        if is_null {
            return;
        }
        self.number(usize::from(array.nulls().is_some()));
        if let Some(nulls) = array.nulls() {
            self.number(nulls.offset());
            self.bytes(nulls.buffer());
        }
        downcast_primitive_array!(
            array => self.bytes(array.values().inner()),
            DataType::Utf8View => {
                let texts = array.as_string_view();
                self.bytes(texts.views().inner());
                self.all(texts.data_buffers());
            }
            DataType::Boolean => {
                let values = array.as_boolean().values();
                self.number(values.offset());
                self.bytes(values.inner());
            }
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                self.bytes(lists.offsets().inner().inner());
                self.array(lists.values());
            }
            // No table has another type today.
            _ => {
                let data = array.to_data();
                self.number(data.offset());
                self.all(data.buffers());
                for child in data.child_data() {
                    self.array(&arrow::array::make_array(child.clone()));
                }
            }
        );
    }

    fn all(&mut self, buffers: &[Buffer]) {
        for buffer in buffers {
            self.bytes(buffer);
        }
    }

    /// Of bytes that go on as they begin only the beginning: many columns have one value, or none, in all of their rows, and
    /// comparing is cheaper than digesting.
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        let (head, rest) = bytes.split_at(bytes.len().min(VIEW_BYTES));
        let is_repeated = bytes.starts_with(rest);
        self.number(usize::from(is_repeated));
        self.0.write(if is_repeated { head } else { bytes });
    }
}

/// What a text takes in each row, bytes; smaller values that repeat do so at this distance too.
const VIEW_BYTES: usize = size_of::<u128>();

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: columns' bytes: none, few, of one repeated value in more and fewer rows, with another value in any place.
    /// Guarantees: each has a digest of its own, the same every time.
    #[test]
    fn columns_that_differ_anywhere_have_other_digests() {
        let digest = |bytes: &[u8]| {
            let mut hasher = Hasher(XxHash3_128::with_seed(7));
            hasher.bytes(bytes);
            hasher.0.finish_128()
        };
        let repeated = |rows: usize| b"0123456789abcdef".repeat(rows);
        let mut columns: Vec<Vec<u8>> = (0..40).map(|len| vec![0; len]).collect();
        columns.extend((1..40).map(repeated));
        let changed = (0..640).map(|place| {
            let mut column = repeated(40);
            column[place] ^= 1;
            column
        });
        columns.extend(changed);
        columns.push(repeated(40));
        let digests: std::collections::BTreeSet<u128> =
            columns.iter().map(|column| digest(column)).collect();
        assert_eq!(digests.len(), columns.len());
        assert_eq!(digest(&repeated(40)), digest(&repeated(40)));
    }
}
