//! The values of one column, by row.
//!
//! Nothing here indexes by a key or an offset without looking at the length.

use std::borrow::Cow;
use std::ops::Range;

use arrow::array::{
    Array, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray,
    StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::TimestampNanosecondType;

/// Where the rows of a column find their values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    pub(super) keys: Keys<'a>,
    /// Null rows.
    pub(super) nulls: Option<&'a NullBuffer>,
    /// Null dictionary values.
    pub(super) value_nulls: Option<&'a NullBuffer>,
    /// Null rows of the struct around.
    pub(super) outer: Option<&'a NullBuffer>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'a> {
    Native,
    U8(&'a [u8]),
    U16(&'a [u16]),
}

fn is_null(nulls: Option<&NullBuffer>, place: usize) -> bool {
    nulls.is_some_and(|nulls| place >= nulls.len() || nulls.is_null(place))
}

impl Places<'_> {
    /// Of a column that is not there: without keys every row is null.
    pub(super) const NONE: Places<'static> = Places {
        keys: Keys::U8(&[]),
        nulls: None,
        value_nulls: None,
        outer: None,
    };

    /// The place of a row's value among the column's distinct values; `None` is null.
    #[inline]
    fn of(&self, row: usize) -> Option<usize> {
        if is_null(self.outer, row) || is_null(self.nulls, row) {
            return None;
        }
        let place = match self.keys {
            Keys::Native => return Some(row),
            Keys::U8(keys) => usize::from(*keys.get(row)?),
            Keys::U16(keys) => usize::from(*keys.get(row)?),
        };
        (!is_null(self.value_nulls, place)).then_some(place)
    }

    fn is_dictionary(&self) -> bool {
        !matches!(self.keys, Keys::Native)
    }

    /// The places of all rows at once, [`NO_PLACE`] for null: where they are asked for again and again.
    pub(super) fn all(&self, rows: usize) -> Vec<u32> {
        let mut all: Vec<u32> = match self.keys {
            Keys::Native => (0..).take(rows).collect(),
            Keys::U8(keys) => keys.iter().take(rows).map(|key| u32::from(*key)).collect(),
            Keys::U16(keys) => keys.iter().take(rows).map(|key| u32::from(*key)).collect(),
        };
        all.resize(rows, NO_PLACE);
        if self.outer.is_some() || self.nulls.is_some() || self.value_nulls.is_some() {
            for (row, place) in all.iter_mut().enumerate() {
                if self.of(row).is_none() {
                    *place = NO_PLACE;
                }
            }
        }
        all
    }
}

/// The place of a null in [`Places::all`]. A table has fewer than 2^30 rows.
pub(super) const NO_PLACE: u32 = u32::MAX;

/// A column of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a, T: ArrowPrimitiveType> {
    pub(super) places: Places<'a>,
    pub(super) values: &'a [T::Native],
}

impl<'a, T: ArrowPrimitiveType> Numbers<'a, T> {
    pub(super) const NONE: Numbers<'static, T> = Numbers {
        places: Places::NONE,
        values: &[],
    };

    /// A row's number; `None` is null.
    #[inline]
    pub(super) fn get(&self, row: usize) -> Option<T::Native> {
        self.values.get(self.places.of(row)?).copied()
    }

    /// A row's number; null is the protobuf default.
    #[inline]
    pub(super) fn or_zero(&self, row: usize) -> T::Native {
        self.get(row).unwrap_or_default()
    }

    /// Whether two rows have the same number; null is no number.
    #[inline]
    pub(super) fn same_number(&self, left: usize, right: usize) -> bool {
        // Mostly they differ, which is seen without a look at what is null.
        let may_be = match self.places.keys {
            Keys::Native => self.values.get(left) == self.values.get(right),
            Keys::U8(_) | Keys::U16(_) => true,
        };
        may_be
            && self
                .get(left)
                .is_some_and(|number| self.get(right) == Some(number))
    }

    /// The numbers of all rows, if none is null: as they lie there, or gathered where rows share them.
    pub(super) fn whole(&self, rows: usize) -> Option<Cow<'a, [T::Native]>> {
        let Places {
            keys,
            nulls: None,
            value_nulls: None,
            outer: None,
        } = self.places
        else {
            return None;
        };
        let values = self.values;
        match keys {
            Keys::Native => values.get(..rows).map(Cow::Borrowed),
            Keys::U8(keys) => gathered(values, keys.get(..rows)?),
            Keys::U16(keys) => gathered(values, keys.get(..rows)?),
        }
    }
}

/// The value that each key names.
fn gathered<T: Copy>(values: &[T], keys: &[impl Copy + Into<usize>]) -> Option<Cow<'static, [T]>>
where
    [T]: ToOwned<Owned = Vec<T>>,
{
    let mut numbers = Vec::with_capacity(keys.len());
    for key in keys {
        numbers.push(*values.get((*key).into())?);
    }
    Some(Cow::Owned(numbers))
}

impl Numbers<'_, TimestampNanosecondType> {
    /// A row's time as OTLP has it: what is above `i64::MAX` there comes as a negative number here.
    pub(super) fn unix_nano(&self, row: usize) -> u64 {
        self.or_zero(row).cast_unsigned()
    }
}

/// Gives a column of values of any length the methods that its readers and caches need.
macro_rules! by_place {
    ($(#[$doc:meta])* $name:ident, $array:ty, $item:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name<'a> {
            pub(super) places: Places<'a>,
            pub(super) values: Option<&'a $array>,
        }

        #[allow(dead_code, reason = "each column needs some of them")]
        impl<'a> $name<'a> {
            /// The place of a row's value among the distinct values; `None` is null.
            #[inline]
            pub(super) fn place(&self, row: usize) -> Option<usize> {
                self.places.of(row)
            }

            /// The value at a place.
            #[inline]
            pub(super) fn at(&self, place: usize) -> Option<$item> {
                let values = self.values.filter(|values| place < values.len())?;
                Some(values.value(place))
            }

            /// A row's value; `None` is null.
            #[inline]
            pub(super) fn get(&self, row: usize) -> Option<$item> {
                self.at(self.place(row)?)
            }

            /// A row's value; null is the protobuf default.
            #[inline]
            pub(super) fn or_default(&self, row: usize) -> $item {
                self.get(row).unwrap_or_default()
            }

            /// Whether two rows have the same value; null is the same as null.
            pub(super) fn same(&self, left: usize, right: usize) -> bool {
                let (left, right) = (self.place(left), self.place(right));
                left == right
                    || left.and_then(|place| self.at(place))
                        == right.and_then(|place| self.at(place))
            }

            /// How many distinct values there are, if rows share them.
            pub(super) fn shared(&self) -> Option<usize> {
                let values = self.values.filter(|_| self.places.is_dictionary())?;
                Some(values.len())
            }
        }
    };
}

by_place!(
    /// A column of text.
    Texts, StringArray, &'a str
);
by_place!(
    /// A column of bytes.
    Blobs, BinaryArray, &'a [u8]
);
by_place!(
    /// A column of ids of one length; null is no bytes.
    Identifiers, FixedSizeBinaryArray, &'a [u8]
);
by_place!(
    /// A column of booleans.
    Switches, BooleanArray, bool
);

/// Where the rows of a list column find their items.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges<'a> {
    pub(super) outer: Option<&'a NullBuffer>,
    pub(super) list: Option<&'a ListArray>,
}

impl Ranges<'_> {
    /// The items of a row; null is an empty list.
    pub(super) fn of(&self, row: usize) -> Range<usize> {
        let Some(list) = self.list else { return 0..0 };
        if is_null(self.outer, row) || is_null(list.nulls(), row) {
            return 0..0;
        }
        let offsets = list.value_offsets();
        let at = |place: usize| offsets.get(place).and_then(|at| usize::try_from(*at).ok());
        match (at(row), at(row + 1)) {
            (Some(start), Some(end)) => start..end,
            _ => 0..0,
        }
    }
}

/// A column of lists of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists<'a, T: ArrowPrimitiveType> {
    pub(super) ranges: Ranges<'a>,
    pub(super) items: Numbers<'a, T>,
}

impl<T: ArrowPrimitiveType> Lists<'_, T> {
    /// Copies the items of a row; a null among them is the protobuf default.
    pub(super) fn copy(&self, row: usize, into: &mut Vec<T::Native>) {
        into.clear();
        into.extend(self.ranges.of(row).map(|item| self.items.or_zero(item)));
    }
}
