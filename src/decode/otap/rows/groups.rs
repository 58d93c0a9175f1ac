//! Joins: which rows of a table of children belong to which row of their parents' table.

use std::ops::Range;

use super::columns::Columns;
use super::malformed;
use crate::decode::DecodeError;

/// Marks of an [`Index`] beside row numbers, which stay below 2^30.
const NOBODY: u32 = u32::MAX;
const SEVERAL: u32 = u32::MAX - 1;

/// Ids up to this one are looked up in a list with a place for each, however few rows there are: all 16-bit ids are.
const DIRECT_ID_MAX: usize = u16::MAX as usize;

/// Finds the row that an id names.
#[derive(Debug)]
pub(super) struct Index {
    rows: usize,
    lookup: Lookup,
    /// Whether there may be children of parents that have no row.
    is_partial: bool,
}

#[derive(Debug)]
enum Lookup {
    /// The row of each id.
    Direct(Vec<u32>),
    /// Ids with their rows, ascending.
    Sorted(Vec<(u32, u32)>),
}

impl Index {
    /// An index over the ids of a table's rows. A null id names no row.
    pub(super) fn new(ids: &[Option<u32>]) -> Index {
        let rows = (0..).zip(ids).filter_map(|(row, id)| Some(((*id)?, row)));
        let id_max = ids.iter().flatten().max().map_or(0, |id| *id as usize);
        let lookup = if id_max <= DIRECT_ID_MAX.max(ids.len().saturating_mul(4)) {
            let mut direct = vec![NOBODY; id_max + 1];
            for (id, row) in rows {
                if let Some(slot) = direct.get_mut(id as usize) {
                    *slot = if *slot == NOBODY { row } else { SEVERAL };
                }
            }
            Lookup::Direct(direct)
        } else {
            let mut sorted = rows.collect::<Vec<(u32, u32)>>();
            sorted.sort_unstable();
            Lookup::Sorted(sorted)
        };
        Index {
            rows: ids.len(),
            lookup,
            is_partial: false,
        }
    }

    /// The index, of parents that are known by their records only, as resources and scopes are. Producers (Rust's) write the
    /// attributes of those without a record too, which make no row over OTLP either. But where no record names any, it is the
    /// ids that are missing.
    pub(super) fn partial(self) -> Index {
        Index {
            is_partial: self.rows > 0,
            ..self
        }
    }

    /// The row of an id: [`NOBODY`] and [`SEVERAL`] where there is not exactly one.
    fn find(&self, id: u32) -> u32 {
        match &self.lookup {
            Lookup::Direct(direct) => direct.get(id as usize).copied().unwrap_or(NOBODY),
            Lookup::Sorted(sorted) => {
                let start = sorted.partition_point(|(other, _)| *other < id);
                let mut found = sorted.iter().skip(start).take_while(|(of, _)| *of == id);
                match (found.next(), found.next()) {
                    (None, _) => NOBODY,
                    (Some((_, row)), None) => *row,
                    _ => SEVERAL,
                }
            }
        }
    }
}

/// The rows of a table of children, by the row of their parent, else in their own order or a given one.
#[derive(Debug)]
pub(super) struct Groups {
    /// Where in `rows` each parent's children begin, and the end of the last.
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Groups {
    /// Groups children by the parents that their ids name.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when a child's parent does not exist, but for [`Index::partial`], or is one of several with
    /// that id: to drop the child, or to guess, would lose data without a word.
    pub(super) fn new(
        columns: &Columns<'_>,
        parents: Vec<u32>,
        index: &Index,
    ) -> Result<Groups, DecodeError> {
        let rows = 0..u32::try_from(parents.len()).expect("a table has fewer than 2^30 rows");
        Groups::in_order(columns, parents, index, [rows])
    }

    /// Groups children, those of one parent in the order that `order` has all rows in.
    ///
    /// # Errors
    /// As [`Groups::new`].
    pub(super) fn in_order(
        columns: &Columns<'_>,
        mut parents: Vec<u32>,
        index: &Index,
        order: impl IntoIterator<Item = Range<u32>>,
    ) -> Result<Groups, DecodeError> {
        if parents.is_empty() {
            return Ok(Groups {
                starts: Vec::new(),
                rows: Vec::new(),
            });
        }
        for (row, parent) in parents.iter_mut().enumerate() {
            let found = index.find(*parent);
            if found >= SEVERAL && !(found == NOBODY && index.is_partial) {
                return orphan(columns, row, *parent, found);
            }
            *parent = found;
        }
        let (starts, rows) = counting_sort(&parents, index.rows, order);
        Ok(Groups { starts, rows })
    }

    /// Puts for each row the label that it has.
    pub(super) fn relabel(&mut self, labels: &[u32]) {
        for row in &mut self.rows {
            *row = labels.get(*row as usize).copied().unwrap_or(NOBODY);
        }
    }

    /// The rows of a parent's children, or their labels.
    #[inline]
    pub(super) fn of(&self, parent: usize) -> &[u32] {
        match (self.starts.get(parent), self.starts.get(parent + 1)) {
            (Some(start), Some(end)) => self
                .rows
                .get(*start as usize..*end as usize)
                .unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Sorts rows by their keys, which are below `keys`; a row with another key is left out. Those of one key stay in `order`. Answers
/// where each key's rows begin, with the end of the last, and the rows; behind them stand zeros for those left out.
pub(super) fn counting_sort(
    key_of_row: &[u32],
    keys: usize,
    order: impl IntoIterator<Item = Range<u32>>,
) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; keys + 1];
    for key in key_of_row {
        // Counted one further on, so that the sums below are starts.
        if let Some(count) = starts.get_mut((*key as usize).saturating_add(1)) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut next = starts.clone();
    let mut rows = vec![0u32; key_of_row.len()];
    for run in order {
        let keys_of_run = key_of_row.get(run.start as usize..run.end as usize);
        for (row, key) in run.zip(keys_of_run.unwrap_or_default()) {
            if (*key as usize) < keys
                && let Some(next) = next.get_mut(*key as usize)
            {
                if let Some(place) = rows.get_mut(*next as usize) {
                    *place = row;
                }
                *next += 1;
            }
        }
    }
    (starts, rows)
}

fn orphan<T>(columns: &Columns<'_>, row: usize, parent: u32, found: u32) -> Result<T, DecodeError> {
    let table = columns.table();
    malformed(match found {
        SEVERAL => format!("row {row} of {table} has parent {parent}, which several rows are"),
        _ => format!("row {row} of {table} has parent {parent}, which does not exist"),
    })
}
