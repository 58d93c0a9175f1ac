//! One value of a result as text and as JSON.
//!
//! Scalars read as DuckDB casts them to VARCHAR. Lists, structs and maps are JSON in every format: `[1, 2]` and
//! `{"a": 1}` can be read back by anything, DuckDB included. In JSON, numbers and booleans stand bare with all their
//! digits, `NaN` and the infinities are strings, and everything else is a string.

use std::fmt::Write as _;

use duckdb::arrow::array::{Array, ArrayRef, AsArray};
use duckdb::arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use duckdb::core::{LogicalTypeHandle, LogicalTypeId};
use serde::de::IgnoredAny;

use super::time;

/// What DuckDB knows about a type that its Arrow form does not say, along the tree of nested types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The Arrow type says it all.
    Plain,
    /// 128 bits without sign, carried as if with one.
    UHugeInt,
    /// Bits, carried as bytes.
    Bit,
    /// Text that is JSON.
    Json,
    /// The types inside: one of a list, two of a map, one a field of a struct or union.
    Nested(Vec<Kind>),
}

impl Kind {
    /// Reads the type of a result's column.
    ///
    /// # Errors
    /// The name of a type that loses something on its way through Arrow.
    pub(super) fn of(logical: &LogicalTypeHandle) -> Result<Kind, &'static str> {
        Ok(match logical.id() {
            LogicalTypeId::UHugeint => Kind::UHugeInt,
            LogicalTypeId::Bit => Kind::Bit,
            LogicalTypeId::TimeTZ => return Err("TIME WITH TIME ZONE"),
            LogicalTypeId::Bignum => return Err("BIGNUM"),
            LogicalTypeId::Geometry => return Err("GEOMETRY"),
            LogicalTypeId::List
            | LogicalTypeId::Array
            | LogicalTypeId::Map
            | LogicalTypeId::Struct
            | LogicalTypeId::Union => {
                let inner = 0..logical.num_children();
                let inner: Result<_, _> = inner.map(|n| Kind::of(&logical.child(n))).collect();
                Kind::Nested(inner?)
            }
            _ if logical.get_alias().as_deref() == Some("JSON") => Kind::Json,
            _ => Kind::Plain,
        })
    }

    fn inner(&self, index: usize) -> &Kind {
        match self {
            Kind::Nested(inner) => inner.get(index).unwrap_or(&Kind::Plain),
            _ => &Kind::Plain,
        }
    }
}

/// How the text of a scalar stands in JSON.
enum Form {
    /// As it is.
    Bare,
    /// In quotes.
    Quoted,
}

/// An Arrow type that DuckDB is not known to send.
#[derive(Debug, thiserror::Error)]
#[error("cannot print a value of Arrow type {0}: cast it, such as with ::VARCHAR")]
pub(super) struct Unprintable(DataType);

/// Appends the value as table and CSV show it. `false`: it is NULL, and nothing was appended.
pub(super) fn write_text(
    kind: &Kind,
    array: &ArrayRef,
    row: usize,
    out: &mut String,
) -> Result<bool, Unprintable> {
    if is_null(array, row) {
        return Ok(false);
    }
    match (kind, array.data_type()) {
        (Kind::Nested(_), _) => write_nested(kind, array, row, out)?,
        _ => {
            write_scalar(kind, array, row, out)?;
        }
    }
    Ok(true)
}

/// Appends the value as JSON.
pub(super) fn write_json(
    kind: &Kind,
    array: &ArrayRef,
    row: usize,
    out: &mut String,
) -> Result<(), Unprintable> {
    if is_null(array, row) {
        out.push_str("null");
        return Ok(());
    }
    if matches!(kind, Kind::Nested(_)) {
        return write_nested(kind, array, row, out);
    }
    let mut text = String::new();
    match write_scalar(kind, array, row, &mut text)? {
        Form::Quoted if *kind == Kind::Json && is_json(&text) => write_compact(&text, out),
        Form::Quoted => write_quoted(&text, out),
        Form::Bare => out.push_str(match text.as_str() {
            "nan" | "-nan" => "\"NaN\"",
            "inf" => "\"Infinity\"",
            "-inf" => "\"-Infinity\"",
            number => number,
        }),
    }
    Ok(())
}

/// A union has no nulls of its own: its member is null.
fn is_null(array: &ArrayRef, row: usize) -> bool {
    array.is_null(row) || matches!(array.data_type(), DataType::Null)
}

fn write_nested(
    kind: &Kind,
    array: &ArrayRef,
    row: usize,
    out: &mut String,
) -> Result<(), Unprintable> {
    match array.data_type() {
        DataType::List(_) => write_list(kind, &array.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => write_list(kind, &array.as_list::<i64>().value(row), out),
        DataType::FixedSizeList(..) => {
            write_list(kind, &array.as_fixed_size_list().value(row), out)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let fields = fields.iter().zip(columns).enumerate();
            write_joined('{', '}', fields, out, |(n, (field, column)), out| {
                write_quoted(field.name(), out);
                out.push_str(": ");
                write_json(kind.inner(n), column, row, out)
            })
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else {
                return Err(Unprintable(array.data_type().clone()));
            };
            write_joined('{', '}', 0..entries.len(), out, |entry, out| {
                write_key(kind.inner(0), keys, entry, out)?;
                out.push_str(": ");
                write_json(kind.inner(1), values, entry, out)
            })
        }
        DataType::Union(..) => {
            let union = array.as_union();
            let member = union.type_id(row);
            let index = usize::try_from(member).unwrap_or(0); // DuckDB numbers members from 0.
            let child = union.child(member);
            write_json(kind.inner(index), child, union.value_offset(row), out)
        }
        other => Err(Unprintable(other.clone())),
    }
}

fn write_list(kind: &Kind, items: &ArrayRef, out: &mut String) -> Result<(), Unprintable> {
    write_joined('[', ']', 0..items.len(), out, |item, out| {
        write_json(kind.inner(0), items, item, out)
    })
}

fn write_joined<I>(
    open: char,
    close: char,
    items: impl Iterator<Item = I>,
    out: &mut String,
    mut write: impl FnMut(I, &mut String) -> Result<(), Unprintable>,
) -> Result<(), Unprintable> {
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write(item, out)?;
    }
    out.push(close);
    Ok(())
}

/// JSON's keys are strings, whatever a map has.
fn write_key(
    kind: &Kind,
    keys: &ArrayRef,
    row: usize,
    out: &mut String,
) -> Result<(), Unprintable> {
    let mut text = String::new();
    write_text(kind, keys, row, &mut text)?;
    write_quoted(&text, out);
    Ok(())
}

/// Appends a value that is not null and not nested, as DuckDB casts it to VARCHAR.
fn write_scalar(
    kind: &Kind,
    array: &ArrayRef,
    row: usize,
    out: &mut String,
) -> Result<Form, Unprintable> {
    /// Appends a number of the given Arrow type.
    macro_rules! number {
        ($type:ty) => {{
            let _ = write!(out, "{}", array.as_primitive::<$type>().value(row));
            Form::Bare
        }};
    }
    /// Appends what a function of [`time`] makes of a value of the given Arrow type.
    macro_rules! moment {
        ($type:ty, $write:path, $unit_ns:expr) => {{
            $write(array.as_primitive::<$type>().value(row), $unit_ns, out);
            Form::Quoted
        }};
    }
    Ok(match array.data_type() {
        DataType::Boolean => {
            let _ = write!(out, "{}", array.as_boolean().value(row));
            Form::Bare
        }
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            write_float(&format!("{value:?}"), out)
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            write_float(&format!("{value:?}"), out)
        }
        DataType::Decimal128(_, scale) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            write_decimal(kind, value, *scale, out)
        }
        DataType::Utf8 => quoted(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => quoted(array.as_string::<i64>().value(row), out),
        DataType::Utf8View => quoted(array.as_string_view().value(row), out),
        DataType::Dictionary(key, _) => match key.as_ref() {
            DataType::UInt8 => write_member::<UInt8Type>(array, row, out),
            DataType::UInt16 => write_member::<UInt16Type>(array, row, out),
            DataType::UInt32 => write_member::<UInt32Type>(array, row, out),
            _ => return Err(Unprintable(array.data_type().clone())),
        },
        DataType::Binary => write_bytes(kind, array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => write_bytes(kind, array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => write_bytes(kind, array.as_binary_view().value(row), out),
        DataType::Date32 => {
            time::date(array.as_primitive::<Date32Type>().value(row), out);
            Form::Quoted
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            moment!(Time64MicrosecondType, time::time, 1_000)
        }
        DataType::Time64(TimeUnit::Nanosecond) => moment!(Time64NanosecondType, time::time, 1),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_zone)) => {
            moment!(TimestampMicrosecondType, time::timestamp_utc, 1_000)
        }
        DataType::Timestamp(TimeUnit::Second, None) => {
            moment!(TimestampSecondType, time::timestamp, 1_000_000_000)
        }
        DataType::Timestamp(TimeUnit::Millisecond, None) => {
            moment!(TimestampMillisecondType, time::timestamp, 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            moment!(TimestampMicrosecondType, time::timestamp, 1_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            moment!(TimestampNanosecondType, time::timestamp, 1)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            time::interval(value.months, value.days, value.nanoseconds, out);
            Form::Quoted
        }
        other => return Err(Unprintable(other.clone())),
    })
}

fn quoted(text: &str, out: &mut String) -> Form {
    out.push_str(text);
    Form::Quoted
}

/// A member of an ENUM.
fn write_member<K: ArrowDictionaryKeyType>(array: &ArrayRef, row: usize, out: &mut String) -> Form {
    let members = array.as_dictionary::<K>();
    let names = members.values().as_string::<i32>();
    if let Some(key) = members.key(row) {
        out.push_str(names.value(key));
    }
    Form::Quoted
}

/// Rust's shortest digits that read back as the same number, with DuckDB's exponents: `1e+16` and `1e-05`.
fn write_float(digits: &str, out: &mut String) -> Form {
    match digits.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            let _ = write!(out, "{mantissa}e{sign}{exponent:0>2}");
        }
        None if digits == "NaN" => out.push_str("nan"),
        None => out.push_str(digits),
    }
    Form::Bare
}

/// A DECIMAL, or one of the integers of 128 bits that are carried as one.
///
/// There is always a digit before the point. DuckDB leaves it out where the type has no room for one (`-.05` as
/// DECIMAL(2, 2)), but JSON wants it.
fn write_decimal(kind: &Kind, value: i128, scale: i8, out: &mut String) -> Form {
    let scale = usize::try_from(scale).unwrap_or(0); // DuckDB has no negative scales.
    if *kind == Kind::UHugeInt {
        let _ = write!(out, "{}", value.cast_unsigned());
    } else if scale == 0 {
        let _ = write!(out, "{value}");
    } else {
        let sign = if value < 0 { "-" } else { "" };
        let digits = format!("{:0>1$}", value.unsigned_abs(), scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let _ = write!(out, "{sign}{whole}.{fraction}");
    }
    Form::Bare
}

/// A BLOB as DuckDB writes it, printable ASCII as it is and the rest as `\xAB`; or the digits of a BIT.
fn write_bytes(kind: &Kind, bytes: &[u8], out: &mut String) -> Form {
    if *kind == Kind::Bit {
        // The first byte says how many bits at the front of the second only fill it up.
        let (padding, bits) = bytes.split_first().unwrap_or((&0, &[]));
        let digits = bits
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        out.extend(
            digits
                .skip(usize::from(*padding))
                .map(|bit| if bit == 1 { '1' } else { '0' }),
        );
        return Form::Quoted;
    }
    for &byte in bytes {
        match byte {
            b'\\' | b'\'' | b'"' => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    }
    Form::Quoted
}

/// Appends the text as a JSON string.
pub(super) fn write_quoted(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Appends JSON without the white space between its tokens, so that it fits on a line; digits stay as they are.
fn write_compact(json: &str, out: &mut String) {
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else if matches!(c, ' ' | '\n' | '\r' | '\t') {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
}
