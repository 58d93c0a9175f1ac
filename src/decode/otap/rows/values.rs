//! `AnyValue`: the columns of an attribute table's values, or of a log's body, and their text.
//!
//! A dictionary's value is formatted the first time a row has it; every further row copies the text.

use std::borrow::Cow;
use std::ops::Range;

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
        for (kind, rows) in self.runs_of_kinds() {
            let Some((first, others)) = repeats
                .get_mut(rows.clone())
                .and_then(<[_]>::split_first_mut)
            else {
                continue;
            };
            // The row before is of another kind.
            *first = false;
            let others = (rows.start + 1..).zip(others);
            match kind {
                1 => {
                    let places = self.text_places.get(rows).unwrap_or_default();
                    let pairs = places.iter().zip(places.iter().skip(1));
                    for ((_, repeats), (before, place)) in others.zip(pairs) {
                        *repeats = *repeats && self.is_same_text(*before, *place);
                    }
                }
                2 => keep(others, |row| self.ints.same_number(row, row - 1)),
                3 => keep(others, |row| {
                    self.doubles.get(row).is_some()
                        && same_double(&self.doubles, (row, row - 1), explicit)
                }),
                4 => keep(others, |row| {
                    let bool = self.bools.get(row);
                    bool.is_some() && bool == self.bools.get(row - 1)
                }),
                7 if explicit => keep(others, |row| {
                    self.bytes.place(row).is_some() && self.bytes.same(row, row - 1)
                }),
                7 => keep(others, |row| {
                    self.bytes.or_default(row) == self.bytes.or_default(row - 1)
                }),
                _ => keep(others, |_| false),
            }
        }
    }

    /// Rows that stand together and are of one kind: mostly all of a kind do.
    fn runs_of_kinds(&self) -> impl Iterator<Item = (u8, Range<usize>)> {
        let mut end = 0;
        let runs = self.kinds.chunk_by(|kind, next| kind == next);
        runs.filter_map(move |run| {
            let start = end;
            end += run.len();
            run.first().map(|kind| (*kind, start..end))
        })
    }

    /// Whether the texts at two places are the same; null is no text. A dictionary may have one twice.
    #[inline]
    fn is_same_text(&self, before: u32, place: u32) -> bool {
        place != NO_PLACE
            && (place == before || self.texts.at(place as usize) == self.texts.at(before as usize))
    }

    /// Those of the rows with the value of the row before that have another text: zeros are equal and may have a sign.
    pub(super) fn other_texts(&self, repeats: &[bool]) -> Vec<usize> {
        let bits = |row| self.doubles.get(row).map(f64::to_bits);
        let is_other = |row: &usize| {
            repeats.get(*row).is_some_and(|repeats| *repeats) && bits(*row) != bits(row - 1)
        };
        let doubles = self.runs_of_kinds().filter(|(kind, _)| *kind == 3);
        let rows = doubles.flat_map(|(_, rows)| rows.skip(1));
        rows.filter(is_other).collect()
    }
}

/// Keeps those of the marked rows of which `is_kept` is true.
fn keep<'r>(rows: impl Iterator<Item = (usize, &'r mut bool)>, is_kept: impl Fn(usize) -> bool) {
    for (row, repeats) in rows {
        *repeats = *repeats && is_kept(row);
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
