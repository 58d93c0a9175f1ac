//! Maps and lists: CBOR to JSON text.
//!
//! What `AnyValue` can hold is taken, in every encoding of RFC 8949 that has it: definite and indefinite lengths, integers up
//! to 64 signed bits, floats of all widths, text, bytes, booleans, null. Tags, other simple values and keys that are not text
//! are refused. One pass over the bytes; each level of maps copies its text once.

use std::borrow::Cow;
use std::ops::Range;

use minicbor::Decoder;
use minicbor::data::Type;

use super::malformed;
use crate::decode::{DecodeError, VALUE_DEPTH_MAX};
use crate::rows::JsonText;

/// Entries of one map, as OTLP's decoder takes them.
const MAP_ENTRIES_MAX: usize = 1 << 14;

/// Writes one CBOR value as JSON.
///
/// # Errors
/// [`DecodeError::Malformed`] when the bytes are not exactly one value, or nest too deep.
pub(super) fn write(json: &mut JsonText, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(bytes);
    value(json, &mut decoder, 0)?;
    match bytes.len() - decoder.position() {
        0 => Ok(()),
        rest => malformed(format!("{rest} bytes follow a CBOR value")),
    }
}

fn bad(error: &minicbor::decode::Error) -> DecodeError {
    DecodeError::Malformed(format!("a CBOR value cannot be parsed: {error}"))
}

fn value(json: &mut JsonText, decoder: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    if depth == VALUE_DEPTH_MAX {
        return malformed(format!(
            "an attribute value nests more than {VALUE_DEPTH_MAX} levels deep"
        ));
    }
    let found = decoder.datatype().map_err(|error| bad(&error))?;
    match found {
        Type::Null => {
            decoder.null().map_err(|error| bad(&error))?;
            json.null();
        }
        Type::Undefined => {
            decoder.undefined().map_err(|error| bad(&error))?;
            json.null();
        }
        Type::Bool => json.bool(decoder.bool().map_err(|error| bad(&error))?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => integer(json, decoder)?,
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => integer(json, decoder)?,
        Type::F16 => json.double(decoder.f16().map_err(|error| bad(&error))?.into()),
        Type::F32 => json.double(decoder.f32().map_err(|error| bad(&error))?.into()),
        Type::F64 => json.double(decoder.f64().map_err(|error| bad(&error))?),
        Type::String | Type::StringIndef => json.string(&text(decoder)?),
        Type::Bytes => json.bytes(decoder.bytes().map_err(|error| bad(&error))?),
        Type::BytesIndef => {
            let mut bytes = Vec::new();
            for chunk in decoder.bytes_iter().map_err(|error| bad(&error))? {
                bytes.extend_from_slice(chunk.map_err(|error| bad(&error))?);
            }
            json.bytes(&bytes);
        }
        Type::Array | Type::ArrayIndef => array(json, decoder, depth)?,
        Type::Map | Type::MapIndef => map(json, decoder, depth)?,
        Type::Simple | Type::Tag | Type::Break | Type::Unknown(_) => {
            return malformed(format!("a CBOR value holds the unexpected item {found}"));
        }
    }
    Ok(())
}

fn integer(json: &mut JsonText, decoder: &mut Decoder<'_>) -> Result<(), DecodeError> {
    json.int(decoder.i64().map_err(|error| bad(&error))?);
    Ok(())
}

fn text<'a>(decoder: &mut Decoder<'a>) -> Result<Cow<'a, str>, DecodeError> {
    if decoder.datatype().map_err(|error| bad(&error))? == Type::String {
        return Ok(decoder.str().map_err(|error| bad(&error))?.into());
    }
    let chunks = decoder.str_iter().map_err(|error| bad(&error))?;
    let text = chunks.collect::<Result<String, _>>();
    Ok(text.map_err(|error| bad(&error))?.into())
}

/// Counts the items of an array or map: a length stated before them, or a break after them.
struct Items {
    left: Option<u64>,
}

impl Items {
    /// Whether another item follows; takes the break.
    fn next(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, DecodeError> {
        if let Some(left) = &mut self.left {
            let more = *left > 0;
            *left = left.saturating_sub(1);
            return Ok(more);
        }
        let ends = decoder.datatype().map_err(|error| bad(&error))? == Type::Break;
        if ends {
            decoder.set_position(decoder.position() + 1);
        }
        Ok(!ends)
    }
}

fn array(json: &mut JsonText, decoder: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    let mut items = Items {
        left: decoder.array().map_err(|error| bad(&error))?,
    };
    let mut first = true;
    json.raw("[");
    while items.next(decoder)? {
        json.raw(if first { "" } else { "," });
        first = false;
        value(json, decoder, depth + 1)?;
    }
    json.raw("]");
    Ok(())
}

fn map(json: &mut JsonText, decoder: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    let mut items = Items {
        left: decoder.map().map_err(|error| bad(&error))?,
    };
    // Written in the order they come, then copied in the order of their keys.
    let mut values = JsonText::new();
    let mut entries: Vec<(Cow<'_, str>, Range<usize>)> = Vec::new();
    while items.next(decoder)? {
        if entries.len() == MAP_ENTRIES_MAX {
            return malformed(format!(
                "a map in an attribute value has more than {MAP_ENTRIES_MAX} entries"
            ));
        }
        let key = text(decoder)?;
        let start = values.len();
        value(&mut values, decoder, depth + 1)?;
        entries.push((key, start..values.len()));
    }
    json.object(&mut entries, |json, range| {
        json.raw(values.as_str().get(range.clone()).unwrap_or_default());
        Ok(())
    })
}
