//! Arrays and maps as CBOR: of indefinite length, text keys, null for an empty value.
//!
//! Source: RFC 8949, and OTAP's `ser` columns.

use std::convert::Infallible;

use minicbor::Encoder;
use minicbor::encode::Error;

use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, KeyValue};

/// Appends an array.
pub(super) fn write_array(values: &[AnyValue], out: &mut Vec<u8>) {
    array(&mut Encoder::new(out), values).expect("writing to memory does not fail");
}

/// Appends a map; its entries stay in their order.
pub(super) fn write_map(entries: &[KeyValue], out: &mut Vec<u8>) {
    map(&mut Encoder::new(out), entries).expect("writing to memory does not fail");
}

fn array(to: &mut Encoder<&mut Vec<u8>>, values: &[AnyValue]) -> Result<(), Error<Infallible>> {
    to.begin_array()?;
    for item in values {
        value(to, Some(item))?;
    }
    to.end()?;
    Ok(())
}

fn map(to: &mut Encoder<&mut Vec<u8>>, entries: &[KeyValue]) -> Result<(), Error<Infallible>> {
    to.begin_map()?;
    for entry in entries {
        to.str(&entry.key)?;
        value(to, entry.value.as_ref())?;
    }
    to.end()?;
    Ok(())
}

fn value(
    to: &mut Encoder<&mut Vec<u8>>,
    value: Option<&AnyValue>,
) -> Result<(), Error<Infallible>> {
    match value.and_then(|value| value.value.as_ref()) {
        // A place in a table of strings belongs to profiles, where the table is.
        None | Some(Value::StringValueStrindex(_)) => to.null()?,
        Some(Value::StringValue(text)) => to.str(text)?,
        Some(Value::BoolValue(truth)) => to.bool(*truth)?,
        Some(Value::IntValue(number)) => to.i64(*number)?,
        Some(Value::DoubleValue(number)) => to.f64(*number)?,
        Some(Value::BytesValue(bytes)) => to.bytes(bytes)?,
        Some(Value::ArrayValue(values)) => return array(to, &values.values),
        Some(Value::KvlistValue(entries)) => return map(to, &entries.values),
    };
    Ok(())
}
