//! Attribute tables: the rows of each parent as one JSON object.
//!
//! Every distinct key is ranked and formatted once a batch, so that the keys of a parent are sorted as numbers and written
//! as copies. Where equal attributes stand together, as quasi-delta encoding wants them, key and value are formatted once
//! for all of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{UInt16Type, UInt32Type};

use super::arrays::{NO_PLACE, Texts};
use super::columns::Columns;
use super::groups::{Groups, Index, counting_sort};
use super::ids::Parents;
use super::values::Values;
use super::{check_text, check_texts, columns_of};
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::JsonText;

/// One attribute table, its rows grouped by parent.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    keys: Keys<'a>,
    values: Values<'a>,
    members: Members,
    /// The runs of each parent's rows, sorted by key: of a repeated one the last is last.
    groups: Groups,
    /// The parent at hand, if one was turned to.
    parent: Option<usize>,
    json: JsonText,
    /// Bytes written for all parents so far.
    written: usize,
}

impl<'a> Attributes<'a> {
    /// The table of a type whose parents have 16-bit ids; an empty one when it did not come.
    pub(super) fn of_u16(
        tables: &'a Tables,
        of: ArrowPayloadType,
        parents: &Index,
    ) -> Result<Attributes<'a>, DecodeError> {
        Attributes::new::<UInt16Type>(&columns_of(tables, of)?, parents)
    }

    /// The table of a type whose parents have 32-bit ids; an empty one when it did not come.
    pub(super) fn of_u32(
        tables: &'a Tables,
        of: ArrowPayloadType,
        parents: &Index,
    ) -> Result<Attributes<'a>, DecodeError> {
        Attributes::new::<UInt32Type>(&columns_of(tables, of)?, parents)
    }

    fn new<T>(columns: &Columns<'a>, index: &Index) -> Result<Attributes<'a>, DecodeError>
    where
        T: ArrowPrimitiveType<Native: Into<u32>>,
    {
        columns.require(&["key", "type"])?;
        let keys = Keys::new(columns.texts("key")?, columns.rows());
        let values = Values::new(columns)?;
        let parents = Parents::<T>::new(columns)?;
        let mut repeats = vec![false; columns.rows()];
        let mut others = Vec::new();
        if parents.is_quasi_delta() {
            repeats = keys.repeats();
            values.repeat(&mut repeats, parents.explicit());
            others = values.other_texts(&repeats);
        }
        let parents = parents.quasi_delta(|row| repeats.get(row).is_some_and(|it| *it))?;
        let mut groups = Groups::in_order(columns, parents, index, keys.order())?;
        for row in others {
            if let Some(repeats) = repeats.get_mut(row) {
                *repeats = false;
            }
        }
        let (members, run_of_row) = Members::new(&repeats, &keys.ranks);
        groups.relabel(&run_of_row);
        Ok(Attributes {
            groups,
            keys,
            values,
            members,
            parent: None,
            json: JsonText::new(),
            written: 0,
        })
    }

    /// Turns to the attributes of a parent, by its row.
    pub(super) fn select(&mut self, parent: usize) {
        self.parent = Some(parent);
    }

    /// The runs of the parent at hand.
    #[inline]
    fn runs(&self) -> &[u32] {
        self.parent.map_or(&[], |parent| self.groups.of(parent))
    }

    /// The row of a key at the parent at hand, the last of a repeated one.
    fn row_of(&self, key: &str) -> Option<usize> {
        let runs = self.runs();
        if runs.is_empty() {
            return None;
        }
        let rank = self.keys.rank_of(key)?;
        let end = runs.partition_point(|run| self.members.rank(*run) <= rank);
        let found = self.members.run(*runs.get(end.checked_sub(1)?)?)?;
        (found.rank == rank).then_some(found.row as usize)
    }

    /// Whether any parent has an attribute of this key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.keys.rank_of(key).is_some()
    }

    /// The value of a key when it is a string; empty otherwise.
    pub(super) fn string(&self, key: &str) -> Result<&'a str, DecodeError> {
        match self.row_of(key) {
            Some(row) => Ok(self.values.text(row)?.unwrap_or_default()),
            None => Ok(""),
        }
    }

    /// The value of a key as text: a string as it is, every other kind as JSON, an empty one as none.
    pub(super) fn text(&mut self, key: &str) -> Result<Cow<'a, str>, DecodeError> {
        let Some(row) = self.row_of(key) else {
            return Ok("".into());
        };
        if let Some(text) = self.values.text(row)? {
            return Ok(text.into());
        }
        let mut json = JsonText::new();
        self.values.write(&mut json, row)?;
        Ok(match json.as_str() {
            "null" => "".into(),
            text => text.to_owned().into(),
        })
    }

    /// The attributes of the parent at hand as one JSON object; empty when there are none.
    pub(super) fn write(&mut self) -> Result<&str, DecodeError> {
        let Attributes {
            keys,
            values,
            members,
            json,
            ..
        } = self;
        json.clear();
        let mut runs = self.parent.map_or(&[][..], |parent| self.groups.of(parent));
        while let Some((run, others)) = runs.split_first() {
            runs = others;
            let rank = members.rank(*run);
            if others
                .first()
                .is_some_and(|next| members.rank(*next) == rank)
            {
                continue;
            }
            let member = members.text(*run, |json, row| {
                json.raw(keys.before_value(rank));
                values.write(json, row)
            })?;
            if json.is_empty() {
                // Without the comma before it.
                json.raw("{");
                json.raw(member.get(1..).unwrap_or_default());
            } else {
                json.raw(member);
            }
            check_text(json.len())?;
        }
        if !json.is_empty() {
            json.end_object();
        }
        self.written = self.written.saturating_add(json.len());
        check_texts(self.written)?;
        Ok(json.as_str())
    }
}

/// The text of attributes, as members of an object: of each run of rows that have the same one it is written once.
#[derive(Debug, Default)]
struct Members {
    runs: Vec<Run>,
    text: JsonText,
}

/// Rows that stand together and have the same attribute.
#[derive(Debug)]
struct Run {
    /// The first of them.
    row: u32,
    /// The rank of their key.
    rank: u32,
    /// Start and end in the text; an empty range is not written yet.
    range: [usize; 2],
}

impl Members {
    /// `repeats` says of each row whether it has the text of the row before. Answers the run of each row, too.
    fn new(repeats: &[bool], ranks: &[u32]) -> (Members, Vec<u32>) {
        let mut runs: Vec<Run> = Vec::new();
        let mut run_of_row = Vec::with_capacity(repeats.len());
        let mut last = 0u32;
        for ((row, repeats), rank) in (0..).zip(repeats).zip(ranks) {
            // The first row begins the first run.
            if !repeats || runs.is_empty() {
                last = u32::try_from(runs.len()).expect("there are no more runs than rows");
                runs.push(Run {
                    row,
                    rank: *rank,
                    range: [0, 0],
                });
            }
            run_of_row.push(last);
        }
        let text = JsonText::new();
        (Members { runs, text }, run_of_row)
    }

    #[inline]
    fn run(&self, run: u32) -> Option<&Run> {
        self.runs.get(run as usize)
    }

    #[inline]
    fn rank(&self, run: u32) -> u32 {
        self.run(run).map_or(UNSEEN, |run| run.rank)
    }

    /// A comma and the attribute of a run, as `format` writes it.
    #[inline]
    fn text(
        &mut self,
        run: u32,
        format: impl FnOnce(&mut JsonText, usize) -> Result<(), DecodeError>,
    ) -> Result<&str, DecodeError> {
        let Some(run) = self.runs.get_mut(run as usize) else {
            return Ok("");
        };
        if run.range[0] == run.range[1] {
            let start = self.text.len();
            self.text.raw(",");
            format(&mut self.text, run.row as usize)?;
            run.range = [start, self.text.len()];
        }
        let [start, end] = run.range;
        Ok(self.text.as_str().get(start..end).unwrap_or_default())
    }
}

/// The keys of an attribute table.
#[derive(Debug)]
struct Keys<'a> {
    /// The distinct keys in bytewise order; a key's place here is its rank.
    names: Vec<&'a str>,
    /// The rank of each row's key.
    ranks: Vec<u32>,
    /// Rows whose key is null, if any is.
    nulls: Option<Vec<bool>>,
    /// What stands before a value, of every rank: `"key":`.
    before_values: Vec<JsonText>,
}

/// A key that no row had yet.
const UNSEEN: u32 = u32::MAX;

impl<'a> Keys<'a> {
    /// Ranks the keys of all rows. A null key is the empty one.
    fn new(keys: Texts<'a>, rows: usize) -> Keys<'a> {
        let places = keys.places.all(rows);
        let nulls = places.contains(&NO_PLACE);
        let nulls = nulls.then(|| places.iter().map(|place| *place == NO_PLACE).collect());
        let name_at = |place: u32| keys.at(place as usize).unwrap_or_default();
        // First every row gets its key's number in order of appearance.
        let mut seen: Vec<&str> = Vec::new();
        let mut number_of = |name: &'a str| {
            seen.push(name);
            u32::try_from(seen.len() - 1).expect("a table has fewer than 2^30 rows")
        };
        let mut by_place = vec![UNSEEN; keys.shared().unwrap_or_default()];
        let mut by_name: HashMap<&str, u32> = HashMap::new();
        let mut ranks = places;
        for rank in &mut ranks {
            let place = *rank;
            *rank = match by_place.get_mut(place as usize) {
                Some(slot) if *slot != UNSEEN => *slot,
                Some(slot) => {
                    *slot = number_of(name_at(place));
                    *slot
                }
                None => {
                    let name = name_at(place);
                    *by_name.entry(name).or_insert_with(|| number_of(name))
                }
            };
        }
        // Then the numbers are replaced by ranks. A dictionary may have one text twice: both get one rank.
        let mut order = (0..).zip(&seen).collect::<Vec<(usize, &&str)>>();
        order.sort_unstable_by_key(|(_, name)| **name);
        let mut names: Vec<&str> = Vec::with_capacity(seen.len());
        let mut rank_of_number = vec![0; seen.len()];
        for (number, name) in order {
            if names.last() != Some(name) {
                names.push(name);
            }
            if let Some(rank) = rank_of_number.get_mut(number) {
                *rank = u32::try_from(names.len() - 1).expect("there are fewer keys than rows");
            }
        }
        for rank in &mut ranks {
            *rank = rank_of_number.get(*rank as usize).copied().unwrap_or(0);
        }
        let before_value = |name: &&str| {
            let mut text = JsonText::new();
            text.string(name);
            text.raw(":");
            text
        };
        Keys {
            before_values: names.iter().map(before_value).collect(),
            names,
            ranks,
            nulls,
        }
    }

    /// All rows, sorted by key, those of one key as they come: so that no parent's are sorted alone. Rows that stand together
    /// and have one key are not told apart, since most do.
    fn order(&self) -> impl Iterator<Item = Range<u32>> {
        let (mut ranks, mut starts) = (Vec::new(), Vec::new());
        let mut end = 0u32;
        for run in self.ranks.chunk_by(|rank, next| rank == next) {
            ranks.extend(run.first());
            starts.push(end);
            end += u32::try_from(run.len()).expect("a table has fewer than 2^30 rows");
        }
        let all = 0..u32::try_from(ranks.len()).expect("there are fewer runs than rows");
        let (_, runs) = counting_sort(&ranks, self.names.len(), [all]);
        starts.push(end);
        runs.into_iter().map(move |run| {
            let start = |run: u32| starts.get(run as usize).copied().unwrap_or(end);
            start(run)..start(run + 1)
        })
    }

    fn rank_of(&self, key: &str) -> Option<u32> {
        let rank = self.names.binary_search(&key).ok()?;
        u32::try_from(rank).ok()
    }

    /// Of each row whether it has the key of the row before it; null is the same as null, and not as the empty one.
    fn repeats(&self) -> Vec<bool> {
        let mut repeats = vec![false; self.ranks.len()];
        let pairs = self.ranks.iter().zip(self.ranks.iter().skip(1));
        for (repeats, (before, rank)) in repeats.iter_mut().skip(1).zip(pairs) {
            *repeats = before == rank;
        }
        if let Some(nulls) = &self.nulls {
            let pairs = nulls.iter().zip(nulls.iter().skip(1));
            for (repeats, (before, is_null)) in repeats.iter_mut().skip(1).zip(pairs) {
                *repeats &= before == is_null;
            }
        }
        repeats
    }

    /// What stands before the value of a key.
    #[inline]
    fn before_value(&self, rank: u32) -> &str {
        let text = self.before_values.get(rank as usize);
        text.map_or("", JsonText::as_str)
    }
}
