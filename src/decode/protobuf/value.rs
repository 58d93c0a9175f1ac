//! Values, resources and scopes: OTLP `common.proto` and `resource.proto`.

use super::attributes::{Attributes, Entry, key_value_parts};
use super::wire::{Fields, check_list, malformed, text};
use crate::decode::{DecodeError, VALUE_DEPTH_MAX};
use crate::rows::{JsonText, ResourceFields, ScopeFields};

/// Entries of a map inside an attribute's value.
const NESTED_ITEMS_MAX: usize = 1 << 14;

fn entry(key_value: &[u8]) -> Result<Entry<'_>, DecodeError> {
    let (key, any_value) = key_value_parts(key_value)?;
    Ok((text(key)?, any_value))
}

/// The text of an `AnyValue` that is a string.
pub(super) fn string_value(any_value: &[u8]) -> Result<Option<&str>, DecodeError> {
    let mut fields = Fields::new(any_value);
    let mut text = None;
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => text = Some(value.text()?),
            2..=7 => text = None,
            _ => {}
        }
    }
    Ok(text)
}

/// Writes an `AnyValue` as JSON; an unset one as null.
pub(super) fn write_value(
    json: &mut JsonText,
    any_value: &[u8],
    depth: usize,
) -> Result<(), DecodeError> {
    if depth == VALUE_DEPTH_MAX {
        return malformed(format!(
            "an attribute value nests more than {VALUE_DEPTH_MAX} levels deep"
        ));
    }
    // The value is a oneof: of several the last one counts.
    let mut fields = Fields::new(any_value);
    let mut last = None;
    while let Some((number, value)) = fields.next()? {
        if (1..=7).contains(&number) {
            last = Some((number, value));
        }
    }
    match last {
        None => json.null(),
        Some((1, value)) => json.string(value.text()?),
        Some((2, value)) => json.bool(value.bool()?),
        Some((3, value)) => json.int(value.int64()?),
        Some((4, value)) => json.double(value.double()?),
        Some((5, value)) => write_array(json, value.bytes()?, depth)?,
        Some((6, value)) => write_map(json, value.bytes()?, depth)?,
        Some((_, value)) => json.bytes(value.bytes()?),
    }
    Ok(())
}

pub(super) fn write_optional(
    json: &mut JsonText,
    any_value: Option<&[u8]>,
    depth: usize,
) -> Result<(), DecodeError> {
    match any_value {
        Some(any_value) => write_value(json, any_value, depth),
        None => {
            json.null();
            Ok(())
        }
    }
}

fn write_array(json: &mut JsonText, array: &[u8], depth: usize) -> Result<(), DecodeError> {
    let mut fields = Fields::new(array);
    let mut first = true;
    json.raw("[");
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            json.raw(if first { "" } else { "," });
            first = false;
            write_value(json, value.bytes()?, depth + 1)?;
        }
    }
    json.raw("]");
    Ok(())
}

fn write_map(json: &mut JsonText, map: &[u8], depth: usize) -> Result<(), DecodeError> {
    let mut fields = Fields::new(map);
    let mut entries = Vec::new();
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            entries.push(entry(value.bytes()?)?);
            check_list(entries.len(), NESTED_ITEMS_MAX)?;
        }
    }
    json.object(&mut entries, |json, value| {
        write_optional(json, *value, depth + 1)
    })
}

/// Reads a `Resource` and hands its fields on. Several parts of one resource are merged, as protobuf asks.
pub(super) fn resource<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    schema_url: &str,
    set: impl FnOnce(&ResourceFields<'_>),
) -> Result<(), DecodeError> {
    let mut attributes = Attributes::default();
    let mut dropped_attributes_count = 0;
    for part in parts {
        let mut fields = Fields::new(part);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => attributes.push(value.bytes()?)?,
                2 => dropped_attributes_count = value.uint32()?,
                _ => {}
            }
        }
    }
    let service_name = attributes.text("service.name")?;
    let service_namespace = attributes.text("service.namespace")?;
    let service_instance_id = attributes.text("service.instance.id")?;
    set(&ResourceFields {
        service_name: service_name.as_deref().unwrap_or_default(),
        service_namespace: service_namespace.as_deref().unwrap_or_default(),
        service_instance_id: service_instance_id.as_deref().unwrap_or_default(),
        attributes: attributes.write()?,
        schema_url,
        dropped_attributes_count,
    });
    Ok(())
}

/// Reads an `InstrumentationScope` and hands its fields on. Several parts of one scope are merged.
pub(super) fn scope<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    schema_url: &str,
    set: impl FnOnce(&ScopeFields<'_>),
) -> Result<(), DecodeError> {
    let mut attributes = Attributes::default();
    let mut scope = ScopeFields {
        schema_url,
        ..ScopeFields::default()
    };
    for part in parts {
        let mut fields = Fields::new(part);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => scope.name = value.text()?,
                2 => scope.version = value.text()?,
                3 => attributes.push(value.bytes()?)?,
                4 => scope.dropped_attributes_count = value.uint32()?,
                _ => {}
            }
        }
    }
    set(&ScopeFields {
        attributes: attributes.write()?,
        ..scope
    });
    Ok(())
}
