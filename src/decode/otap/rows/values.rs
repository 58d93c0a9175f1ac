//! `AnyValue`: the columns of an attribute table's values, or of a log's body, and their text.
//!
//! A dictionary's value is formatted the first time a row has it; every further row copies the text.

use std::borrow::Cow;

use arrow::datatypes::{Float64Type, Int64Type, UInt8Type};

use super::arrays::{Blobs, NO_PLACE, Numbers, Switches, Texts};
use super::cbor;
use super::columns::Columns;
use super::ids::same_double;
use super::malformed;
use crate::decode::DecodeError;
use crate::rows::JsonText;

/// What the column `type` says a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Text,
    Int,
    Double,
    Bool,
    Map,
    List,
    Bytes,
}

/// The value columns.
#[derive(Debug)]
pub(super) struct Values<'a> {
    columns: Columns<'a>,
    /// What `type` says of each row; null is 0.
    kinds: Cow<'a, [u8]>,
    texts: Texts<'a>,
    /// Where in `texts` each row has its text, as [`super::arrays::Places::all`] has it.
    text_places: Vec<u32>,
    ints: Numbers<'a, Int64Type>,
    doubles: Numbers<'a, Float64Type>,
    bools: Switches<'a>,
    bytes: Blobs<'a>,
    trees: Blobs<'a>,
    formatted_texts: Formatted,
    formatted_bytes: Formatted,
    formatted_trees: Formatted,
}

impl<'a> Values<'a> {
    pub(super) fn new(columns: &Columns<'a>) -> Result<Values<'a>, DecodeError> {
        let kinds = columns.numbers::<UInt8Type>("type")?;
        let kinds = match kinds.whole(columns.rows()) {
            Some(kinds) => kinds,
            None => (0..columns.rows()).map(|row| kinds.or_zero(row)).collect(),
        };
        let texts = columns.texts("str")?;
        Ok(Values {
            columns: *columns,
            kinds,
            texts,
            text_places: texts.places.all(columns.rows()),
            ints: columns.numbers("int")?,
            doubles: columns.numbers("double")?,
            bools: columns.switches("bool")?,
            bytes: columns.blobs("bytes")?,
            trees: columns.blobs("ser")?,
            formatted_texts: Formatted::default(),
            formatted_bytes: Formatted::default(),
            formatted_trees: Formatted::default(),
        })
    }

    /// What a row's value is.
    pub(super) fn kind(&self, row: usize) -> Result<Kind, DecodeError> {
        Ok(match self.kinds.get(row).copied().unwrap_or_default() {
            0 => Kind::Empty,
            1 => Kind::Text,
            2 => Kind::Int,
            3 => Kind::Double,
            4 => Kind::Bool,
            5 => Kind::Map,
            6 => Kind::List,
            7 => Kind::Bytes,
            other => {
                let name = self.columns.name("type");
                return malformed(format!("{name} is {other} in row {row}, limit 7"));
            }
        })
    }

    /// The text of a row whose value is one, as it is.
    pub(super) fn text(&self, row: usize) -> Result<Option<&'a str>, DecodeError> {
        Ok(match self.kind(row)? {
            Kind::Text => {
                let place = self.text_place(row) as usize;
                Some(self.texts.at(place).unwrap_or_default())
            }
            _ => None,
        })
    }

    /// Where in `texts` a row has its text; [`NO_PLACE`] is null.
    #[inline]
    fn text_place(&self, row: usize) -> u32 {
        self.text_places.get(row).copied().unwrap_or(NO_PLACE)
    }

    /// Writes a row's value as JSON; an empty one as null. A value column's null is the default of its type.
    pub(super) fn write(&mut self, json: &mut JsonText, row: usize) -> Result<(), DecodeError> {
        match self.kind(row)? {
            Kind::Empty => json.null(),
            Kind::Int => json.int(self.ints.or_zero(row)),
            Kind::Double => json.double(self.doubles.or_zero(row)),
            Kind::Bool => json.bool(self.bools.or_default(row)),
            Kind::Text => {
                let place = self.text_place(row);
                let shared = self.texts.shared().map(|size| (size, place as usize));
                let texts = self.texts;
                self.formatted_texts.write(json, shared, |json| {
                    json.string(texts.at(place as usize).unwrap_or_default());
                    Ok(())
                })?;
            }
            Kind::Bytes => {
                let shared = self.bytes.shared().zip(self.bytes.place(row));
                let bytes = self.bytes.or_default(row);
                self.formatted_bytes.write(json, shared, |json| {
                    json.bytes(bytes);
                    Ok(())
                })?;
            }
            kind @ (Kind::Map | Kind::List) => {
                let shared = self.trees.shared().zip(self.trees.place(row));
                match self.trees.get(row) {
                    Some(tree) => self
                        .formatted_trees
                        .write(json, shared, |json| cbor::write(json, tree))?,
                    None => json.raw(if kind == Kind::Map { "{}" } else { "[]" }),
                }
            }
        }
        Ok(())
    }

    /// Keeps those of the marked rows that have the value of the row before, as quasi-delta encoding asks: the same kind, and
    /// the same value of it. Empty, map, list and null never have, but for what [`super::ids::Parents::explicit`] says of
    /// bytes.
    pub(super) fn repeat(&self, repeats: &mut [bool], explicit: bool) {
        let pairs = self.kinds.iter().zip(self.kinds.iter().skip(1));
        for (repeats, (before, kind)) in repeats.iter_mut().skip(1).zip(pairs) {
            *repeats &= before == kind;
        }
        for (row, repeats) in repeats.iter_mut().enumerate().skip(1) {
            *repeats = *repeats && self.is_value_before(row, explicit);
        }
    }

    /// Whether a row's value is that of the row before, both of one kind.
    #[inline]
    fn is_value_before(&self, row: usize, explicit: bool) -> bool {
        let before = row - 1;
        match self.kinds.get(row) {
            Some(1) => {
                let (place, place_before) = (self.text_place(row), self.text_place(before));
                place != NO_PLACE
                    && (place == place_before
                        || self.texts.at(place as usize) == self.texts.at(place_before as usize))
            }
            Some(2) => self.ints.same_number(row, before),
            Some(3) => {
                self.doubles.get(row).is_some()
                    && same_double(&self.doubles, (row, before), explicit)
            }
            Some(4) => {
                let bool = self.bools.get(row);
                bool.is_some() && bool == self.bools.get(before)
            }
            Some(7) if explicit => self.bytes.place(row).is_some() && self.bytes.same(row, before),
            Some(7) => self.bytes.or_default(row) == self.bytes.or_default(before),
            _ => false,
        }
    }

    /// Whether a row whose value is that of the row before has another text: zeros are equal and may have a sign.
    #[inline]
    pub(super) fn is_other_text(&self, row: usize) -> bool {
        let bits = |row| self.doubles.get(row).map(f64::to_bits);
        self.kinds.get(row) == Some(&3) && row > 0 && bits(row) != bits(row - 1)
    }
}

/// The JSON text of a dictionary's values, as far as rows had them.
#[derive(Debug, Default)]
struct Formatted {
    text: JsonText,
    /// Start and end in `text` by place in the dictionary; an empty range is one not formatted yet.
    ranges: Vec<[usize; 2]>,
}

impl Formatted {
    /// Writes the value that `format` writes; `shared` is the size of the dictionary it is from and its place there.
    fn write(
        &mut self,
        json: &mut JsonText,
        shared: Option<(usize, usize)>,
        format: impl FnOnce(&mut JsonText) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let Some((size, place)) = shared else {
            return format(json);
        };
        if self.ranges.is_empty() {
            self.ranges = vec![[0, 0]; size];
        }
        let Some(range) = self.ranges.get_mut(place) else {
            return format(json);
        };
        if range[0] == range[1] {
            let start = self.text.len();
            format(&mut self.text)?;
            *range = [start, self.text.len()];
        }
        let [start, end] = *range;
        json.raw(self.text.as_str().get(start..end).unwrap_or_default());
        Ok(())
    }
}
