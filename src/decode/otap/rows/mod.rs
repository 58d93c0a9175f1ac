//! From the tables of one batch to rows.
//!
//! The record batches are valid Arrow; what they say is checked here. Columns are read in place, children are grouped by the
//! row of their parent, and the same builders as OTLP's get the same fields, in the order of the root table.
//!
//! | what is wrong | what happens |
//! |---|---|
//! | a required column is missing, or a column has another type | the batch is refused, with table and column |
//! | a child's parent does not exist, or is not the only one | the batch is refused: nothing is dropped without a word |
//! | a resource or scope with attributes has no record | its attributes are ignored, as over OTLP |
//! | an optional column or a value is missing | the protobuf default |
//! | a column is unknown | it is ignored |
//! | the root table is missing | no rows: an empty batch |
//!
//! Scratch space is bounded by the tables' rows and dictionaries, and the text of one record by [`TEXT_BYTES_MAX`].

mod arrays;
mod attributes;
mod cbor;
mod columns;
mod context;
mod exemplars;
mod groups;
mod ids;
mod logs;
mod metrics;
mod points;
#[cfg(test)]
mod tests;
mod traces;
mod values;

use arrow::datatypes::{Float64Type, Int64Type};

use self::arrays::Numbers;
use self::columns::Columns;
use super::tables::Tables;
use crate::decode::DecodeError;
use crate::memory::Reservation;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{EXPANDED_BYTES_MAX, NumberValue, Rows};
use crate::signal::Signal;

/// Bytes of the JSON text of one record's attributes, events, links or exemplars, and of all resources and scopes of a batch.
/// Many rows can share one long dictionary value, so that the message's size does not bound them.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// The rows of one batch of `signal`, received at `received_unix_nano`.
///
/// Memory for the rows is taken from `reservation`, which ends up in the result.
///
/// # Errors
/// [`DecodeError`]; nothing is kept then.
///
/// Source: OTAP (otel-arrow), "OTAP Formal Specification"; where it and the producers differ, the producers.
pub(super) fn rows(
    signal: Signal,
    tables: &Tables,
    received_unix_nano: i64,
    reservation: Reservation,
) -> Result<Rows, DecodeError> {
    if tables.get(ArrowPayloadType::MultivariateMetrics).is_some() {
        return malformed("multivariate metrics are not supported");
    }
    for (of, root) in [
        (Signal::Logs, ArrowPayloadType::Logs),
        (Signal::Traces, ArrowPayloadType::Spans),
        (Signal::Metrics, ArrowPayloadType::UnivariateMetrics),
    ] {
        if of != signal && tables.get(root).is_some() {
            let table = root.as_str_name();
            return malformed(format!("{table} is no table of this stream's signal"));
        }
    }
    match signal {
        Signal::Logs => logs::rows(tables, received_unix_nano, reservation),
        Signal::Traces => traces::rows(tables, reservation),
        Signal::Metrics => metrics::rows(tables, reservation),
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Malformed(what.into()))
}

/// The columns of a table; none of them when it did not come.
fn columns_of(tables: &Tables, of: ArrowPayloadType) -> Result<Columns<'_>, DecodeError> {
    Columns::of_table(of.as_str_name(), tables.get(of))
}

/// Checks a text under construction against [`TEXT_BYTES_MAX`].
fn check_text(bytes: usize) -> Result<(), DecodeError> {
    check(bytes as u64, TEXT_BYTES_MAX as u64)
}

/// Checks the texts of all records of a table against what the rows of a batch may come to. The builders do so for the rows
/// they take; records that are refused would cost time without a bound.
fn check_texts(bytes: usize) -> Result<(), DecodeError> {
    check(bytes as u64, EXPANDED_BYTES_MAX)
}

fn check(bytes: u64, limit: u64) -> Result<(), DecodeError> {
    if bytes <= limit {
        return Ok(());
    }
    malformed(format!(
        "the texts of its attributes, events, links or exemplars take {bytes} bytes or more, limit {limit}"
    ))
}

/// The columns `int_value` and `double_value` of points and exemplars.
#[derive(Debug)]
struct NumberValues<'a> {
    columns: Columns<'a>,
    ints: Numbers<'a, Int64Type>,
    doubles: Numbers<'a, Float64Type>,
}

impl<'a> NumberValues<'a> {
    fn new(columns: &Columns<'a>) -> Result<NumberValues<'a>, DecodeError> {
        Ok(NumberValues {
            columns: *columns,
            ints: columns.numbers("int_value")?,
            doubles: columns.numbers("double_value")?,
        })
    }

    /// A row's value. One that is an integer and a double is a contradiction.
    fn get(&self, row: usize) -> Result<NumberValue, DecodeError> {
        match (self.ints.get(row), self.doubles.get(row)) {
            (None, None) => Ok(NumberValue::None),
            (Some(value), None) => Ok(NumberValue::Int(value)),
            (None, Some(value)) => Ok(NumberValue::Double(value)),
            (Some(_), Some(_)) => malformed(format!(
                "row {row} of {} has an int_value and a double_value",
                self.columns.table()
            )),
        }
    }
}
