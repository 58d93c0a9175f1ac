//! Attribute values: read into a small tree, because their keys are sorted, and written as text.

use std::borrow::Cow;
use std::convert::Infallible;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess};

use super::Source;
use super::read::{Field, List, Message, ReadMessage};
use crate::decode::VALUE_DEPTH_MAX;
use crate::rows::JsonText;

/// How many values nest before the rest is passed over and read anew, so that serde_json counts its levels from zero:
/// it stops at 128, and one value can be four of them.
const DEPTH_STEP: usize = 16;

/// The entries of one attribute list, in order of arrival.
pub(super) type Entries<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// An `AnyValue` (OTLP `common.proto`).
#[derive(Debug, Default)]
pub(super) enum Value<'a> {
    #[default]
    Empty,
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    List(Vec<Value<'a>>),
    Map(Entries<'a>),
}

// What `RECORD_PARTS_MAX` counts with.
const _: () = assert!(size_of::<(Cow<'static, str>, Value<'static>)>() <= 56);

impl Value<'_> {
    /// Writes the value as attributes are written.
    pub(super) fn write(&self, json: &mut JsonText) {
        match self {
            Value::Empty => json.null(),
            Value::Text(text) => json.string(text),
            Value::Bool(value) => json.bool(*value),
            Value::Int(value) => json.int(*value),
            Value::Double(value) => json.double(*value),
            Value::Bytes(bytes) => json.bytes(bytes),
            Value::List(items) => {
                let Ok(()) = json.array(items, |json, item| {
                    item.write(json);
                    Ok::<(), Infallible>(())
                });
            }
            Value::Map(entries) => {
                let mut entries: Vec<(&str, &Value<'_>)> =
                    entries.iter().map(|(key, value)| (&**key, value)).collect();
                let Ok(()) = json.object(&mut entries, |json, value| {
                    value.write(json);
                    Ok::<(), Infallible>(())
                });
            }
        }
    }

    /// The value as plain text: a string as it is, nothing for an empty value, else as attributes are written.
    pub(super) fn text<'t>(&'t self, scratch: &'t mut JsonText) -> &'t str {
        match self {
            Value::Empty => "",
            Value::Text(text) => text,
            other => {
                scratch.clear();
                other.write(scratch);
                scratch.as_str()
            }
        }
    }
}

/// Writes a list's entries as one object; a list without entries stays empty text.
pub(super) fn write_entries(entries: &mut Entries<'_>, json: &mut JsonText) {
    json.clear();
    if entries.is_empty() {
        return;
    }
    let Ok(()) = json.object(entries, |json, value| {
        value.write(json);
        Ok::<(), Infallible>(())
    });
}

/// The value of the last entry with this key.
pub(super) fn last<'e, 'a>(entries: &'e Entries<'a>, key: &str) -> Option<&'e Value<'a>> {
    let entry = entries.iter().rev().find(|(name, _)| name == key);
    entry.map(|(_, value)| value)
}

/// Reads an attribute list into `entries`, in place of what was there.
pub(super) fn read_entries<'a, A: MapAccess<'a>>(
    field: Field<'_, 'a, A>,
    source: &Source<'a>,
    entries: &mut Entries<'a>,
) -> Result<(), A::Error> {
    entries.clear();
    field.list(&mut KeyValues {
        source,
        depth: 1,
        entries,
    })
}

/// Reads an attribute list and writes it as one object into `json`.
pub(super) fn read_attributes<'a, A: MapAccess<'a>>(
    field: Field<'_, 'a, A>,
    source: &Source<'a>,
    entries: &mut Entries<'a>,
    json: &mut JsonText,
) -> Result<(), A::Error> {
    read_entries(field, source, entries)?;
    write_entries(entries, json);
    Ok(())
}

/// Reads one value that stands in no list.
pub(super) fn read_value<'a, A: MapAccess<'a>>(
    field: Field<'_, 'a, A>,
    source: &Source<'a>,
) -> Result<Value<'a>, A::Error> {
    let mut value = AnyValue::new(source, 1);
    field.message(&mut value)?;
    Ok(value.value)
}

struct AnyValue<'s, 'a> {
    source: &'s Source<'a>,
    /// 1 for the value of an attribute, one more in each list or map.
    depth: usize,
    value: Value<'a>,
}

impl<'s, 'a> AnyValue<'s, 'a> {
    fn new(source: &'s Source<'a>, depth: usize) -> AnyValue<'s, 'a> {
        AnyValue {
            source,
            depth,
            value: Value::Empty,
        }
    }

    /// Reads the message of a list or map; `false` for null.
    fn descend<A: MapAccess<'a>, M: Message<'a>>(
        &self,
        field: Field<'_, 'a, A>,
        message: &mut M,
    ) -> Result<bool, A::Error> {
        if !self.depth.is_multiple_of(DEPTH_STEP) {
            return field.message(message);
        }
        match field.raw()? {
            Some(raw) => self.source.read_later(raw, ReadMessage(message)),
            None => Ok(false),
        }
    }
}

impl<'a> Message<'a> for AnyValue<'_, 'a> {
    const EXPECTED: &'static str = "an attribute value object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let value = match name {
            "stringValue" | "string_value" => field.optional_text()?.map(Value::Text),
            "boolValue" | "bool_value" => field.boolean()?.map(Value::Bool),
            "intValue" | "int_value" => field.optional_int()?.map(Value::Int),
            "doubleValue" | "double_value" => field.optional_double()?.map(Value::Double),
            "bytesValue" | "bytes_value" => field.bytes()?.map(Value::Bytes),
            "arrayValue" | "array_value" => {
                let mut array = ArrayValue {
                    source: self.source,
                    depth: self.depth + 1,
                    items: Vec::new(),
                };
                let present = self.descend(field, &mut array)?;
                present.then_some(Value::List(array.items))
            }
            "kvlistValue" | "kvlist_value" => {
                let mut map = KeyValueList {
                    source: self.source,
                    depth: self.depth + 1,
                    entries: Vec::new(),
                };
                let present = self.descend(field, &mut map)?;
                present.then_some(Value::Map(map.entries))
            }
            _ => return field.skip(),
        };
        if let Some(value) = value {
            self.value = value;
        }
        Ok(())
    }
}

struct ArrayValue<'s, 'a> {
    source: &'s Source<'a>,
    depth: usize,
    items: Vec<Value<'a>>,
}

impl<'a> Message<'a> for ArrayValue<'_, 'a> {
    const EXPECTED: &'static str = "an object with `values`";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        if name != "values" {
            return field.skip();
        }
        self.items.clear();
        field.list(self)
    }
}

impl<'a> List<'a> for ArrayValue<'_, 'a> {
    const EXPECTED: &'static str = "a list of attribute values";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        let mut value = AnyValue::new(self.source, self.depth);
        // A null in place of a value is an empty one: it keeps the places of the others.
        if items.next_element_seed(ReadItem(&mut value))?.is_none() {
            return Ok(false);
        }
        self.source.count_part()?;
        self.items.push(value.value);
        Ok(true)
    }
}

/// Reads an item of a list, where there is one: a list without items nests no deeper than itself.
struct ReadItem<'m, 's, 'a>(&'m mut AnyValue<'s, 'a>);

impl<'a> DeserializeSeed<'a> for ReadItem<'_, '_, 'a> {
    type Value = bool;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<bool, D::Error> {
        check_depth(self.0.depth)?;
        ReadMessage(self.0).deserialize(deserializer)
    }
}

struct KeyValueList<'s, 'a> {
    source: &'s Source<'a>,
    depth: usize,
    entries: Entries<'a>,
}

impl<'a> Message<'a> for KeyValueList<'_, 'a> {
    const EXPECTED: &'static str = "an object with `values`";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        if name != "values" {
            return field.skip();
        }
        self.entries.clear();
        field.list(&mut KeyValues {
            source: self.source,
            depth: self.depth,
            entries: &mut self.entries,
        })
    }
}

struct KeyValues<'s, 'a> {
    source: &'s Source<'a>,
    depth: usize,
    entries: &'s mut Entries<'a>,
}

impl<'a> List<'a> for KeyValues<'_, 'a> {
    const EXPECTED: &'static str = "a list of attributes";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        let mut entry = KeyValue {
            key: Cow::default(),
            value: AnyValue::new(self.source, self.depth),
        };
        let Some(present) = items.next_element_seed(ReadMessage(&mut entry))? else {
            return Ok(false);
        };
        if present {
            self.source.count_part()?;
            self.entries.push((entry.key, entry.value.value));
        }
        Ok(true)
    }
}

struct KeyValue<'s, 'a> {
    key: Cow<'a, str>,
    value: AnyValue<'s, 'a>,
}

impl<'a> Message<'a> for KeyValue<'_, 'a> {
    const EXPECTED: &'static str = "an attribute object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "key" => self.key = field.text()?,
            "value" => {
                check_depth(self.value.depth)?;
                self.value.value = Value::Empty;
                field.message(&mut self.value)?;
            }
            _ => field.skip()?,
        }
        Ok(())
    }
}

fn check_depth<E: Error>(depth: usize) -> Result<(), E> {
    if depth > VALUE_DEPTH_MAX {
        return Err(E::custom(format_args!(
            "attribute values nest deeper than {VALUE_DEPTH_MAX}"
        )));
    }
    Ok(())
}
