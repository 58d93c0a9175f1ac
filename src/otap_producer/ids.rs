//! Columns of ids: each written as the difference to the one before, always or where the row continues the one before.

use arrow::datatypes::DataType;

use super::column::Column;
use super::options::{IdEncoding, Options};
use super::{Built, ProduceError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Delta,
    QuasiDelta,
}

/// When quasi-delta takes doubles for equal. Those who do not mark their columns, such as Go's producer, compare numbers: NaN
/// equals nothing and the zeros equal each other; those who do compare as Arrow does, by bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Equality {
    Numbers,
    Bits,
}

impl Equality {
    pub(super) fn of(options: &Options) -> Equality {
        match options.ids {
            IdEncoding::Unmarked => Equality::Numbers,
            _ => Equality::Bits,
        }
    }

    /// Whether the doubles with these bits are equal.
    pub(super) fn is_equal(self, left: u64, right: u64) -> bool {
        match self {
            Equality::Numbers => f64::from_bits(left) == f64::from_bits(right),
            Equality::Bits => left == right,
        }
    }
}

/// A column of ids.
pub(super) struct IdColumn {
    column: Column,
    encoding: Encoding,
    /// The id before, or 0.
    last: u32,
}

impl IdColumn {
    /// A column whose own encoding is delta.
    pub(super) fn delta(name: &'static str, data_type: DataType, options: &Options) -> IdColumn {
        IdColumn::new(Column::new(name, data_type), Encoding::Delta, options)
    }

    /// A column of parent ids whose own encoding is quasi-delta.
    pub(super) fn quasi_delta(data_type: DataType, options: &Options) -> IdColumn {
        let column = Column::new("parent_id", data_type).required();
        IdColumn::new(column, Encoding::QuasiDelta, options)
    }

    fn new(column: Column, own: Encoding, options: &Options) -> IdColumn {
        let encoding = match options.ids {
            IdEncoding::Unmarked | IdEncoding::Marked => own,
            IdEncoding::Plain => Encoding::Plain,
            IdEncoding::Delta => Encoding::Delta,
        };
        let mark = (options.ids != IdEncoding::Unmarked).then_some(match encoding {
            Encoding::Plain => "plain",
            Encoding::Delta => "delta",
            Encoding::QuasiDelta => "quasidelta",
        });
        IdColumn {
            column: column.encoded(mark),
            encoding,
            last: 0,
        }
    }

    /// The column with a dictionary, if dictionaries are wanted: of what is written, not of the ids.
    pub(super) fn dictionary(mut self, options: &Options) -> IdColumn {
        self.column = self.column.dictionary(options);
        self
    }

    /// The column, always there and never null.
    pub(super) fn required(mut self) -> IdColumn {
        self.column = self.column.required();
        self
    }

    /// Sets a row. `continues` says that the row is like the one before in what quasi-delta goes by.
    ///
    /// Rows without an id are passed over: the next one counts from the last that had one.
    pub(super) fn set(&mut self, row: usize, id: u32, continues: bool) {
        let is_difference = match self.encoding {
            Encoding::Plain => false,
            Encoding::Delta => true,
            Encoding::QuasiDelta => continues,
        };
        let written = if is_difference {
            // A narrow column takes the low bits, which is the difference there.
            id.wrapping_sub(self.last)
        } else {
            id
        };
        self.last = id;
        self.column.set_word(row, u64::from(written));
    }

    /// As [`Column::finish`].
    pub(super) fn finish(&mut self, rows: usize, options: &Options) -> Result<Built, ProduceError> {
        self.last = 0;
        self.column.finish(rows, options)
    }
}
