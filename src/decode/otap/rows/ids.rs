//! Ids: delta and quasi-delta encoded, added with wrap-around, valid within one batch.
//!
//! How a column is encoded follows from the table unless the field's metadata says otherwise. The Go producer writes no
//! metadata, the Rust one does; where both encode one case differently the metadata tells them apart (see
//! [`Parents::explicit`]).

use arrow::array::{ArrowNativeTypeOp, ArrowPrimitiveType};
use arrow::datatypes::Float64Type;

use super::arrays::Numbers;
use super::columns::Columns;
use super::malformed;
use crate::decode::DecodeError;

/// The key of the field metadata that names a column's encoding.
const ENCODING: &str = "encoding";

/// How the numbers of an id column stand for ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Each is the id.
    Plain,
    /// Each is added to the one before.
    Delta,
    /// Added to the one before in a row that equals the row before, else the id.
    QuasiDelta,
}

/// What the field of a column says of its encoding.
fn stated(columns: &Columns<'_>, name: &str) -> Result<Option<Encoding>, DecodeError> {
    let Some((field, _)) = columns.find(name) else {
        return Ok(None);
    };
    match field.metadata().get(ENCODING).map(String::as_str) {
        None => Ok(None),
        Some("plain") => Ok(Some(Encoding::Plain)),
        Some("delta") => Ok(Some(Encoding::Delta)),
        Some("quasidelta") => Ok(Some(Encoding::QuasiDelta)),
        Some(_) => malformed(format!(
            "{} has an encoding that is not plain, delta or quasidelta",
            columns.name(name)
        )),
    }
}

/// The ids of a column that names its own rows, delta encoded by default. A null stays one, and is no part of the sum.
pub(super) fn own<T>(columns: &Columns<'_>, name: &str) -> Result<Vec<Option<u32>>, DecodeError>
where
    T: ArrowPrimitiveType<Native: Into<u32>>,
{
    let numbers = columns.numbers::<T>(name)?;
    let encoding = stated(columns, name)?.unwrap_or(Encoding::Delta);
    if encoding == Encoding::QuasiDelta {
        return malformed(format!("{} cannot be quasidelta", columns.name(name)));
    }
    let mut id = T::Native::default();
    let mut next = |number: T::Native| -> u32 {
        id = match encoding {
            Encoding::Plain => number,
            _ => id.add_wrapping(number),
        };
        id.into()
    };
    Ok(match numbers.whole(columns.rows()) {
        Some(numbers) => numbers.iter().map(|number| Some(next(*number))).collect(),
        None => (0..columns.rows())
            .map(|row| numbers.get(row).map(&mut next))
            .collect(),
    })
}

/// The column `parent_id` of a table of children.
#[derive(Debug)]
pub(super) struct Parents<'a, T: ArrowPrimitiveType> {
    columns: Columns<'a>,
    numbers: Numbers<'a, T>,
    stated: Option<Encoding>,
}

impl<'a, T> Parents<'a, T>
where
    T: ArrowPrimitiveType<Native: Into<u32>>,
{
    pub(super) const NAME: &'static str = "parent_id";

    pub(super) fn new(columns: &Columns<'a>) -> Result<Parents<'a, T>, DecodeError> {
        columns.require(&[Self::NAME])?;
        Ok(Parents {
            columns: *columns,
            numbers: columns.numbers::<T>(Self::NAME)?,
            stated: stated(columns, Self::NAME)?,
        })
    }

    /// Whether the metadata says that the column is quasi-delta encoded. Such a producer compares as Arrow does: doubles by
    /// their bits, and a null value is never the same. One that says nothing compares as Go does: NaN is never the same,
    /// the zeros are, and no bytes (which it writes as null) are the same as no bytes.
    pub(super) fn explicit(&self) -> bool {
        self.stated == Some(Encoding::QuasiDelta)
    }

    /// Whether a column that is quasi-delta encoded by default is so.
    pub(super) fn is_quasi_delta(&self) -> bool {
        self.stated.unwrap_or(Encoding::QuasiDelta) == Encoding::QuasiDelta
    }

    /// The parents of all rows, delta encoded by default.
    pub(super) fn delta(&self) -> Result<Vec<u32>, DecodeError> {
        if self.explicit() {
            let name = self.columns.name(Self::NAME);
            return malformed(format!("{name} cannot be quasidelta"));
        }
        self.decode(self.stated.unwrap_or(Encoding::Delta), |_| true)
    }

    /// The parents of all rows, quasi-delta encoded by default; `same` says whether a row equals the one before.
    pub(super) fn quasi_delta(
        &self,
        same: impl Fn(usize) -> bool,
    ) -> Result<Vec<u32>, DecodeError> {
        self.decode(self.stated.unwrap_or(Encoding::QuasiDelta), same)
    }

    fn decode(
        &self,
        encoding: Encoding,
        same: impl Fn(usize) -> bool,
    ) -> Result<Vec<u32>, DecodeError> {
        let rows = self.columns.rows();
        let number = |row| {
            self.numbers.get(row).ok_or_else(|| {
                let name = self.columns.name(Self::NAME);
                DecodeError::Malformed(format!("{name} is null in row {row}"))
            })
        };
        let numbers = match self.numbers.whole(rows) {
            Some(numbers) => numbers,
            None => (0..rows).map(number).collect::<Result<_, _>>()?,
        };
        let mut parent = T::Native::default();
        let parents = numbers.iter().enumerate().map(|(row, number)| {
            let adds = match encoding {
                Encoding::Plain => false,
                Encoding::Delta => true,
                Encoding::QuasiDelta => row > 0 && same(row),
            };
            parent = if adds {
                parent.add_wrapping(*number)
            } else {
                *number
            };
            parent.into()
        });
        Ok(parents.collect())
    }
}

/// Whether two rows have the same double, as the producer compares (see [`Parents::explicit`]). Null is the same as null.
pub(super) fn same_double(
    doubles: &Numbers<'_, Float64Type>,
    (left, right): (usize, usize),
    explicit: bool,
) -> bool {
    match (doubles.get(left), doubles.get(right)) {
        (Some(left), Some(right)) if explicit => left.to_bits() == right.to_bits(),
        (left, right) => left == right,
    }
}
