//! The columns of an AnyValue: `type`, and one for each kind of value.

use arrow::datatypes::DataType;

use super::column::{Cell, Column};
use super::ids::Equality;
use super::options::Options;
use super::{Built, ProduceError, cbor};
use crate::proto::common::v1::AnyValue;
use crate::proto::common::v1::any_value::Value;

/// Numbers of the kinds in the column `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty = 0,
    Str = 1,
    Int = 2,
    Double = 3,
    Bool = 4,
    Map = 5,
    Slice = 6,
    Bytes = 7,
}

/// A value on its way into the columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueCell<'a> {
    pub(super) kind: Kind,
    /// `None` is a null in the kind's column.
    pub(super) cell: Option<Cell<'a>>,
}

/// The columns of an AnyValue.
pub(super) struct ValueColumns {
    kind: Column,
    text: Column,
    int: Column,
    double: Column,
    boolean: Column,
    bytes: Column,
    nested: Column,
    defaults_as_null: bool,
    equality: Equality,
}

impl ValueColumns {
    pub(super) fn new(options: &Options) -> ValueColumns {
        let wide = |name, data_type| Column::new(name, data_type).dictionary(options).wide();
        ValueColumns {
            kind: Column::new("type", DataType::UInt8).required(),
            text: wide("str", DataType::Utf8),
            int: wide("int", DataType::Int64),
            double: Column::new("double", DataType::Float64),
            boolean: Column::new("bool", DataType::Boolean),
            bytes: wide("bytes", DataType::Binary),
            nested: wide("ser", DataType::Binary),
            defaults_as_null: options.defaults_as_null,
            equality: Equality::of(options),
        }
    }

    /// The cell of a value.
    pub(super) fn cell<'a>(&mut self, value: Option<&'a AnyValue>) -> ValueCell<'a> {
        let keep = |is_default: bool| !(is_default && self.defaults_as_null);
        let (kind, cell) = match value.and_then(|value| value.value.as_ref()) {
            // A place in a table of strings belongs to profiles, where the table is.
            None | Some(Value::StringValueStrindex(_)) => (Kind::Empty, None),
            Some(Value::StringValue(text)) => (
                Kind::Str,
                keep(text.is_empty()).then(|| self.text.bytes(text.as_bytes())),
            ),
            Some(Value::IntValue(number)) => (
                Kind::Int,
                keep(*number == 0).then(|| self.int.word(number.cast_unsigned())),
            ),
            Some(Value::DoubleValue(number)) => {
                let bits = number.to_bits();
                (Kind::Double, keep(bits == 0).then_some(Cell::Word(bits)))
            }
            Some(Value::BoolValue(truth)) => (
                Kind::Bool,
                keep(!truth).then_some(Cell::Word(u64::from(*truth))),
            ),
            Some(Value::BytesValue(bytes)) => (
                Kind::Bytes,
                keep(bytes.is_empty()).then(|| self.bytes.bytes(bytes)),
            ),
            Some(Value::ArrayValue(array)) => {
                let write = |out: &mut Vec<u8>| cbor::write_array(&array.values, out);
                (Kind::Slice, Some(self.nested.written(write)))
            }
            Some(Value::KvlistValue(map)) => {
                let write = |out: &mut Vec<u8>| cbor::write_map(&map.values, out);
                (Kind::Map, Some(self.nested.written(write)))
            }
        };
        ValueCell { kind, cell }
    }

    /// Whether quasi-delta takes two values for equal: never empty ones, maps and arrays, and null only of bytes, by Go.
    pub(super) fn is_equal(&self, left: &ValueCell<'_>, right: &ValueCell<'_>) -> bool {
        if left.kind != right.kind {
            return false;
        }
        match (left.kind, left.cell, right.cell) {
            (Kind::Empty | Kind::Map | Kind::Slice, ..) => false,
            (Kind::Bytes, None, None) => self.equality == Equality::Numbers,
            (_, None, _) | (_, _, None) => false,
            (Kind::Double, Some(Cell::Word(left)), Some(Cell::Word(right))) => {
                self.equality.is_equal(left, right)
            }
            (_, left, right) => left == right,
        }
    }

    /// Sets a row.
    pub(super) fn set(&mut self, row: usize, value: ValueCell<'_>) {
        self.kind.set(row, Cell::Word(value.kind as u64));
        let column = match value.kind {
            Kind::Empty => return,
            Kind::Str => &mut self.text,
            Kind::Int => &mut self.int,
            Kind::Double => &mut self.double,
            Kind::Bool => &mut self.boolean,
            Kind::Bytes => &mut self.bytes,
            Kind::Map | Kind::Slice => &mut self.nested,
        };
        if let Some(cell) = value.cell {
            column.set(row, cell);
        }
    }

    /// As [`Column::finish`], for each.
    pub(super) fn finish(
        &mut self,
        rows: usize,
        options: &Options,
    ) -> Result<[Built; 7], ProduceError> {
        Ok([
            self.kind.finish(rows, options)?,
            self.text.finish(rows, options)?,
            self.int.finish(rows, options)?,
            self.double.finish(rows, options)?,
            self.boolean.finish(rows, options)?,
            self.bytes.finish(rows, options)?,
            self.nested.finish(rows, options)?,
        ])
    }
}
