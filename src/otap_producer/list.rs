//! Columns of lists: numbers of eight bytes, or pairs of them.

use std::mem;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, ListArray, NullBufferBuilder, StructArray, make_array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use super::options::Options;
use super::{Built, ProduceError};

/// An optional column of lists. Rows that nothing is set for are null.
pub(super) struct ListColumn {
    name: &'static str,
    /// Names of the fields, if a list's items are structs; else the one item is nameless.
    fields: Vec<&'static str>,
    number: DataType,
    is_seen: bool,
    offsets: Vec<i32>,
    /// The numbers of each field.
    numbers: Vec<Vec<u64>>,
    nulls: NullBufferBuilder,
}

impl ListColumn {
    /// A column of lists of numbers, each of eight bytes.
    pub(super) fn new(name: &'static str, number: DataType) -> ListColumn {
        ListColumn::of_structs(name, number, vec![""])
    }

    /// A column of lists of structs whose fields are numbers of the same type.
    pub(super) fn of_structs(
        name: &'static str,
        number: DataType,
        fields: Vec<&'static str>,
    ) -> ListColumn {
        ListColumn {
            name,
            number,
            is_seen: false,
            offsets: vec![0],
            numbers: vec![Vec::new(); fields.len()],
            fields,
            nulls: NullBufferBuilder::new(0),
        }
    }

    /// Sets a row, which comes after all that are set, to a list that is not empty: the bits of each item's fields.
    pub(super) fn set<const N: usize>(
        &mut self,
        row: usize,
        items: impl IntoIterator<Item = [u64; N]>,
    ) {
        debug_assert_eq!(N, self.fields.len());
        let before = self.items();
        for item in items {
            for (numbers, number) in self.numbers.iter_mut().zip(item) {
                numbers.push(number);
            }
        }
        if self.items() == before {
            return;
        }
        self.is_seen = true;
        self.fill(row, before);
        self.nulls.append_non_null();
        self.offsets.push(offset(self.items()));
    }

    fn items(&self) -> usize {
        self.numbers.first().map_or(0, Vec::len)
    }

    fn fill(&mut self, rows: usize, items: usize) {
        self.nulls.append_n_nulls(rows + 1 - self.offsets.len());
        self.offsets.resize(rows + 1, offset(items));
    }

    /// As [`super::column::Column::finish`].
    pub(super) fn finish(&mut self, rows: usize, options: &Options) -> Result<Built, ProduceError> {
        if !self.is_seen && options.late_columns {
            return Ok(None);
        }
        self.fill(rows, self.items());
        let offsets = mem::replace(&mut self.offsets, vec![0]);
        let columns: Vec<ArrayRef> = self
            .numbers
            .iter_mut()
            .map(|numbers| {
                let numbers = mem::take(numbers);
                let builder = ArrayData::builder(self.number.clone()).len(numbers.len());
                let data = builder.add_buffer(Buffer::from_vec(numbers)).build()?;
                Ok(make_array(data))
            })
            .collect::<Result<_, ArrowError>>()?;
        let items: ArrayRef = match <[ArrayRef; 1]>::try_from(columns) {
            Ok([numbers]) => numbers,
            Err(columns) => {
                let field = |name: &&str| Field::new(*name, self.number.clone(), true);
                let fields: Fields = self.fields.iter().map(field).collect();
                Arc::new(StructArray::try_new(fields, columns, None)?)
            }
        };
        let item = Arc::new(Field::new("item", items.data_type().clone(), true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let array = ListArray::try_new(item, offsets, items, self.nulls.finish())?;
        let field = Field::new(self.name, array.data_type().clone(), true);
        Ok(Some((field, Arc::new(array))))
    }
}

/// Where a list ends. More items than that do not fit into the memory of a request.
fn offset(items: usize) -> i32 {
    i32::try_from(items).expect("2^31 numbers of eight bytes are more than a request holds")
}
