//! Attribute tables: the rows of each parent as one JSON object.
//!
//! Every distinct key is ranked and formatted once a batch, so that the keys of a parent are sorted as numbers and written
//! as copies.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{UInt16Type, UInt32Type};

use super::arrays::Texts;
use super::columns::Columns;
use super::groups::{Groups, Index};
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
    groups: Groups,
    /// Rank of the key and row of each attribute of the parent at hand, sorted: of a repeated key the last one is last.
    entries: Vec<(u32, u32)>,
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
        let keys = columns.texts("key")?;
        let values = Values::new(columns)?;
        let parents = Parents::<T>::new(columns)?;
        let explicit = parents.explicit();
        let parents = parents
            .quasi_delta(|row| keys.same(row, row - 1) && values.same_as_before(row, explicit))?;
        Ok(Attributes {
            groups: Groups::new(columns, parents, index)?,
            keys: Keys::new(keys, columns.rows()),
            values,
            entries: Vec::new(),
            json: JsonText::new(),
            written: 0,
        })
    }

    /// Turns to the attributes of a parent, by its row.
    pub(super) fn select(&mut self, parent: usize) {
        let rows = self.groups.of(parent).iter();
        let ranks = &self.keys.ranks;
        let entries = rows.map(|row| (ranks.get(*row as usize).copied().unwrap_or_default(), *row));
        self.entries.clear();
        self.entries.extend(entries);
        self.entries.sort_unstable();
    }

    /// The row of a key at the parent at hand, the last of a repeated one.
    fn row_of(&self, key: &str) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let rank = self.keys.rank_of(key)?;
        let end = self.entries.partition_point(|(of, _)| *of <= rank);
        let (found, row) = self.entries.get(end.checked_sub(1)?)?;
        (*found == rank).then_some(*row as usize)
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
        let json = &mut self.json;
        json.clear();
        let mut entries = self.entries.iter().peekable();
        while let Some((rank, row)) = entries.next() {
            if entries.peek().is_some_and(|(next, _)| next == rank) {
                continue;
            }
            json.raw(if json.is_empty() { "{" } else { "," });
            json.raw(self.keys.member(*rank));
            self.values.write(json, *row as usize)?;
            check_text(json.len())?;
        }
        if !json.is_empty() {
            json.raw("}");
        }
        self.written = self.written.saturating_add(json.len());
        check_texts(self.written)?;
        Ok(json.as_str())
    }
}

/// The keys of an attribute table.
#[derive(Debug)]
struct Keys<'a> {
    /// The distinct keys in bytewise order; a key's place here is its rank.
    names: Vec<&'a str>,
    /// The rank of each row's key.
    ranks: Vec<u32>,
    /// `"key":` of every rank, one after the other.
    members: JsonText,
    /// Where each rank's text ends.
    ends: Vec<usize>,
}

/// A key that no row had yet.
const UNSEEN: u32 = u32::MAX;

impl<'a> Keys<'a> {
    /// Ranks the keys of all rows. A null key is the empty one.
    fn new(keys: Texts<'a>, rows: usize) -> Keys<'a> {
        // First every row gets its key's number in order of appearance.
        let mut seen: Vec<&str> = Vec::new();
        let mut by_place = vec![UNSEEN; keys.shared().unwrap_or_default()];
        let mut by_name: HashMap<&str, u32> = HashMap::new();
        let mut number_of = |name: &'a str| {
            seen.push(name);
            u32::try_from(seen.len() - 1).expect("a table has fewer than 2^30 rows")
        };
        let mut ranks = Vec::with_capacity(rows);
        for row in 0..rows {
            let place = keys.place(row);
            let slot = place.and_then(|place| by_place.get_mut(place));
            let name = keys.or_default(row);
            ranks.push(match slot {
                Some(slot) if *slot != UNSEEN => *slot,
                Some(slot) => {
                    *slot = number_of(name);
                    *slot
                }
                None => *by_name.entry(name).or_insert_with(|| number_of(name)),
            });
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
        let (mut members, mut ends) = (JsonText::new(), Vec::with_capacity(names.len()));
        for name in &names {
            members.string(name);
            members.raw(":");
            ends.push(members.len());
        }
        Keys {
            names,
            ranks,
            members,
            ends,
        }
    }

    fn rank_of(&self, key: &str) -> Option<u32> {
        let rank = self.names.binary_search(&key).ok()?;
        u32::try_from(rank).ok()
    }

    /// `"key":` of a rank.
    #[inline]
    fn member(&self, rank: u32) -> &str {
        let rank = rank as usize;
        let start = match rank {
            0 => Some(&0),
            rank => self.ends.get(rank - 1),
        };
        let range = start.zip(self.ends.get(rank));
        range
            .and_then(|(start, end)| self.members.as_str().get(*start..*end))
            .unwrap_or_default()
    }
}
