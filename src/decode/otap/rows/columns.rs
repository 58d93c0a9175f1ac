//! The columns of a table: by name, native or dictionary, of the type that is expected.
//!
//! A column that is not there reads as one whose every value is null; what null means is for the reader to say. A column of
//! another type than expected refuses the batch.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, DurationNanosecondType, FieldRef, TimeUnit, TimestampNanosecondType, UInt8Type,
    UInt16Type,
};
use arrow::record_batch::RecordBatch;

use super::arrays::{Blobs, Identifiers, Keys, Lists, Numbers, Places, Ranges, Switches, Texts};
use super::malformed;
use crate::decode::DecodeError;

/// Rows of a table that are taken, so that a row's number and two marks beside it fit 32 bits.
const ROWS_MAX: usize = 1 << 30;

/// The columns of a table, or of a struct column in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns<'a> {
    table: &'static str,
    /// The struct column these stand in; empty at the top.
    within: &'static str,
    fields: &'a [FieldRef],
    arrays: &'a [ArrayRef],
    rows: usize,
    /// Where the struct itself is null, so that its columns are.
    outer: Option<&'a NullBuffer>,
}

impl<'a> Columns<'a> {
    /// The columns of a table; none where the table did not come.
    pub(super) fn of_table(
        table: &'static str,
        batch: Option<&'a RecordBatch>,
    ) -> Result<Columns<'a>, DecodeError> {
        let Some(batch) = batch else {
            return Ok(Columns {
                table,
                within: "",
                fields: &[],
                arrays: &[],
                rows: 0,
                outer: None,
            });
        };
        let rows = batch.num_rows();
        if rows > ROWS_MAX {
            return malformed(format!("{table} has {rows} rows, limit {ROWS_MAX}"));
        }
        Ok(Columns {
            table,
            within: "",
            fields: batch.schema_ref().fields(),
            arrays: batch.columns(),
            rows,
            outer: None,
        })
    }

    /// The table's name, for messages.
    pub(super) fn table(&self) -> &'static str {
        self.table
    }

    /// Rows in the table.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Checks that columns are there that OTAP requires in a table that has rows.
    pub(super) fn require(&self, names: &[&str]) -> Result<(), DecodeError> {
        if self.rows == 0 {
            return Ok(());
        }
        match names.iter().find(|name| self.find(name).is_none()) {
            Some(name) => malformed(format!("{} is missing", self.name(name))),
            None => Ok(()),
        }
    }

    /// A column's name as messages write it.
    pub(super) fn name(&self, column: &str) -> String {
        match self.within {
            "" => format!("column {column} of {}", self.table),
            within => format!("column {within}.{column} of {}", self.table),
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<(&'a FieldRef, &'a ArrayRef)> {
        let mut columns = self.fields.iter().zip(self.arrays);
        columns.find(|(field, _)| field.name() == name)
    }

    /// The columns inside a struct column.
    pub(super) fn structure(&self, name: &'static str) -> Result<Columns<'a>, DecodeError> {
        let inside = Columns {
            within: name,
            fields: &[],
            arrays: &[],
            outer: None,
            ..*self
        };
        let Some((_, array)) = self.find(name) else {
            return Ok(inside);
        };
        let Some(structure) = array.as_struct_opt() else {
            return self.wrong_type(name, array.data_type());
        };
        Ok(Columns {
            fields: structure.fields(),
            arrays: structure.columns(),
            outer: structure.nulls(),
            ..inside
        })
    }

    fn wrong_type<T>(&self, name: &str, found: &DataType) -> Result<T, DecodeError> {
        malformed(format!(
            "{} is of the unexpected type {found}",
            self.name(name)
        ))
    }

    /// A column's array of distinct values, if the column is there and of an accepted type, and where each row finds its own.
    fn values(
        &self,
        name: &str,
        accepted: impl Fn(&DataType) -> bool,
    ) -> Result<(Places<'a>, Option<&'a dyn Array>), DecodeError> {
        let Some((_, array)) = self.find(name) else {
            return Ok((Places::NONE, None));
        };
        let array = array.as_ref();
        // A mask of nothing is none: it would be asked for every value.
        let mask = |nulls: Option<&'a NullBuffer>| nulls.filter(|it| it.null_count() > 0);
        let mut places = Places {
            keys: Keys::Native,
            nulls: mask(array.nulls()),
            value_nulls: None,
            outer: mask(self.outer),
        };
        let values = match array.data_type() {
            DataType::Dictionary(..) => {
                let values = if let Some(dictionary) = array.as_dictionary_opt::<UInt8Type>() {
                    places.keys = Keys::U8(dictionary.keys().values());
                    dictionary.values()
                } else if let Some(dictionary) = array.as_dictionary_opt::<UInt16Type>() {
                    places.keys = Keys::U16(dictionary.keys().values());
                    dictionary.values()
                } else {
                    return self.wrong_type(name, array.data_type());
                };
                places.value_nulls = mask(values.nulls());
                values.as_ref()
            }
            _ => array,
        };
        if !accepted(values.data_type()) {
            return self.wrong_type(name, array.data_type());
        }
        Ok((places, Some(values)))
    }

    /// A column of numbers.
    pub(super) fn numbers<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<Numbers<'a, T>, DecodeError> {
        self.primitives(name, |found| *found == T::DATA_TYPE)
    }

    /// A column of times: nanoseconds, without a zone or in UTC.
    pub(super) fn times(
        &self,
        name: &str,
    ) -> Result<Numbers<'a, TimestampNanosecondType>, DecodeError> {
        self.primitives(name, |found| match found {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                matches!(zone.as_deref(), None | Some("UTC" | "+00:00"))
            }
            _ => false,
        })
    }

    /// A column of durations in nanoseconds.
    pub(super) fn durations(
        &self,
        name: &str,
    ) -> Result<Numbers<'a, DurationNanosecondType>, DecodeError> {
        self.numbers(name)
    }

    fn primitives<T: ArrowPrimitiveType>(
        &self,
        name: &str,
        accepted: impl Fn(&DataType) -> bool,
    ) -> Result<Numbers<'a, T>, DecodeError> {
        let (places, values) = self.values(name, accepted)?;
        let values = values.and_then(|values| values.as_primitive_opt::<T>());
        Ok(Numbers {
            places,
            values: values.map_or(&[], |values| values.values()),
        })
    }

    /// A column of text.
    pub(super) fn texts(&self, name: &str) -> Result<Texts<'a>, DecodeError> {
        let (places, values) = self.values(name, |found| *found == DataType::Utf8)?;
        let values = values.and_then(|values| values.as_string_opt());
        Ok(Texts { places, values })
    }

    /// A column of bytes.
    pub(super) fn blobs(&self, name: &str) -> Result<Blobs<'a>, DecodeError> {
        let (places, values) = self.values(name, |found| *found == DataType::Binary)?;
        let values = values.and_then(|values| values.as_binary_opt());
        Ok(Blobs { places, values })
    }

    /// A column of ids of `bytes` bytes.
    pub(super) fn identifiers(
        &self,
        name: &str,
        bytes: i32,
    ) -> Result<Identifiers<'a>, DecodeError> {
        let expected = DataType::FixedSizeBinary(bytes);
        let (places, values) = self.values(name, |found| *found == expected)?;
        let values = values.and_then(|values| values.as_fixed_size_binary_opt());
        Ok(Identifiers { places, values })
    }

    /// A column of booleans.
    pub(super) fn switches(&self, name: &str) -> Result<Switches<'a>, DecodeError> {
        let (places, values) = self.values(name, |found| *found == DataType::Boolean)?;
        let values = values.and_then(|values| values.as_boolean_opt());
        Ok(Switches { places, values })
    }

    /// A column of lists of numbers.
    pub(super) fn lists<T: ArrowPrimitiveType>(
        &self,
        name: &'static str,
    ) -> Result<Lists<'a, T>, DecodeError> {
        let (ranges, items) = self.ranges(name)?;
        let items = match items {
            Some((field, array)) => Columns {
                within: name,
                fields: std::slice::from_ref(field),
                arrays: std::slice::from_ref(array),
                outer: None,
                ..*self
            }
            .numbers(field.name())?,
            None => Numbers::NONE,
        };
        Ok(Lists { ranges, items })
    }

    /// A column of lists of structs: where each row's items are, and the columns of the items.
    pub(super) fn lists_of_structs(
        &self,
        name: &'static str,
    ) -> Result<(Ranges<'a>, Columns<'a>), DecodeError> {
        let (ranges, items) = self.ranges(name)?;
        let mut inside = Columns {
            within: name,
            fields: &[],
            arrays: &[],
            outer: None,
            ..*self
        };
        if let Some((_, array)) = items {
            let Some(structure) = array.as_struct_opt() else {
                return self.wrong_type(name, array.data_type());
            };
            inside.fields = structure.fields();
            inside.arrays = structure.columns();
            inside.outer = structure.nulls();
        }
        Ok((ranges, inside))
    }

    #[expect(
        clippy::type_complexity,
        reason = "named once, taken apart by its two callers"
    )]
    fn ranges(
        &self,
        name: &str,
    ) -> Result<(Ranges<'a>, Option<(&'a FieldRef, &'a ArrayRef)>), DecodeError> {
        let none = Ranges {
            outer: self.outer,
            list: None,
        };
        let Some((_, array)) = self.find(name) else {
            return Ok((none, None));
        };
        match (array.as_list_opt::<i32>(), array.data_type()) {
            (Some(list), DataType::List(field)) => {
                let ranges = Ranges {
                    list: Some(list),
                    ..none
                };
                Ok((ranges, Some((field, list.values()))))
            }
            (_, found) => self.wrong_type(name, found),
        }
    }
}
