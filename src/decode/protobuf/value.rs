//! Attributes, resources and scopes: OTLP `common.proto` and `resource.proto`.

use std::cmp::Reverse;

use super::wire::{Fields, check_list, malformed, text};
use crate::decode::{DecodeError, VALUE_DEPTH_MAX};
use crate::rows::{JsonText, ResourceFields, ScopeFields};

/// Attributes, buckets, bounds or quantiles in one list of one record. The scratch space for them is 64 bytes an
/// entry, so one record needs 8 MiB of it at most.
pub(super) const LIST_ITEMS_MAX: usize = 1 << 17;

/// Entries of a map inside an attribute's value.
const NESTED_ITEMS_MAX: usize = 1 << 14;

/// A key and the bytes of its `AnyValue`; `None` where the value is unset.
type Entry<'a> = (&'a str, Option<&'a [u8]>);

/// Collects a record's attributes and writes them as one JSON object. Reused from record to record.
///
/// The records of a request mostly have one of a few sets of keys: what is known of a set is neither checked, nor sorted, nor
/// escaped again. That was a fifth of what decoding took.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    entries: Vec<Entry<'a>>,
    json: JsonText,
    /// Those written last, the very last first.
    key_sets: Vec<KeySet<'a>>,
    /// Whether the keys so far are those of the first set.
    is_expected: bool,
}

/// Sets of keys that are remembered.
const KEY_SETS_MAX: usize = 8;

/// Keys, and bytes of them when written, of a set that is remembered. Larger ones would take memory, and seldom come again.
const KEY_SET_KEYS_MAX: usize = 256;
const KEY_SET_BYTES_MAX: usize = 16 << 10;

/// The keys of one record's attributes, and how they are written.
#[derive(Debug, Default)]
struct KeySet<'a> {
    /// In the order in which they came.
    keys: Vec<&'a str>,
    /// In the order in which they are written: which of the entries, and where in `text` its key ends.
    order: Vec<(usize, usize)>,
    /// What stands before each value, one behind the other: bracket or comma, the key, a colon.
    text: JsonText,
}

impl<'a> Attributes<'a> {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.json.clear();
        self.is_expected = true;
    }

    /// Adds one `KeyValue`.
    #[inline]
    pub(super) fn push(&mut self, key_value: &'a [u8]) -> Result<(), DecodeError> {
        let (key, any_value) = key_value_parts(key_value)?;
        let place = self.entries.len();
        let expected = self.key_sets.first().and_then(|set| set.keys.get(place));
        let key = match expected {
            Some(expected) if expected.as_bytes() == key => expected,
            _ => {
                self.is_expected = false;
                text(key)?
            }
        };
        self.entries.push((key, any_value));
        check_list(self.entries.len(), LIST_ITEMS_MAX)
    }

    /// The value of a key as text: a string as it is, every other kind as JSON, an unset one as none. The last of a repeated key counts.
    pub(super) fn text(&self, key: &str) -> Result<Option<std::borrow::Cow<'a, str>>, DecodeError> {
        let found = self.entries.iter().rev().find(|entry| entry.0 == key);
        let Some((_, Some(value))) = found else {
            return Ok(None);
        };
        if let Some(text) = string_value(value)? {
            return Ok(Some(text.into()));
        }
        let mut json = JsonText::new();
        write_value(&mut json, value, 0)?;
        Ok(Some(json.as_str())
            .filter(|text| *text != "null")
            .map(|text| text.to_owned().into()))
    }

    /// The value of a key when it is a string; empty otherwise. The last of a repeated key counts.
    pub(super) fn string(&self, key: &str) -> Result<&'a str, DecodeError> {
        let found = self.entries.iter().rev().find(|entry| entry.0 == key);
        match found {
            Some((_, Some(value))) => Ok(string_value(value)?.unwrap_or_default()),
            _ => Ok(""),
        }
    }

    /// Writes the attributes as one JSON object; empty when there are none.
    pub(super) fn write(&mut self) -> Result<&str, DecodeError> {
        self.json.clear();
        if self.entries.is_empty() {
            return Ok("");
        }
        let expected = self.key_sets.first().map(|set| set.keys.len());
        if !self.is_expected || expected != Some(self.entries.len()) {
            self.find_key_set();
        }
        let Some(set) = self.key_sets.first() else {
            return Ok("");
        };
        let mut start = 0;
        for (place, end) in &set.order {
            let key = set.text.as_str().get(start..*end);
            self.json.raw(key.unwrap_or_default());
            start = *end;
            let value = self.entries.get(*place).and_then(|(_, value)| *value);
            write_optional(&mut self.json, value, 0)?;
        }
        self.json.raw("}");
        if set.keys.len() > KEY_SET_KEYS_MAX || set.text.len() > KEY_SET_BYTES_MAX {
            self.key_sets.remove(0);
        }
        Ok(self.json.as_str())
    }

    /// Brings the set of the entries' keys to the first place; the one that was used longest ago goes for a new one.
    fn find_key_set(&mut self) {
        let has_keys = |set: &KeySet<'_>| {
            let keys = self.entries.iter().map(|(key, _)| key);
            set.keys.len() == self.entries.len() && set.keys.iter().eq(keys)
        };
        let found = self.key_sets.iter().position(has_keys);
        let place = match found {
            Some(place) => place,
            None => {
                if self.key_sets.len() < KEY_SETS_MAX {
                    self.key_sets.push(KeySet::default());
                }
                let last = self.key_sets.len().saturating_sub(1);
                if let Some(set) = self.key_sets.get_mut(last) {
                    set.learn(&self.entries);
                }
                last
            }
        };
        self.key_sets
            .get_mut(..=place)
            .into_iter()
            .for_each(|sets| sets.rotate_right(1));
        self.is_expected = true;
    }
}

impl<'a> KeySet<'a> {
    /// Works out how these keys are written: sorted bytewise; of a repeated key the last counts.
    fn learn(&mut self, entries: &[Entry<'a>]) {
        let KeySet { keys, order, text } = self;
        keys.clear();
        keys.extend(entries.iter().map(|(key, _)| *key));
        let key = |place: usize| keys.get(place).copied().unwrap_or_default();
        order.clear();
        order.extend((0..keys.len()).map(|place| (place, 0)));
        order.sort_unstable_by_key(|(place, _)| (key(*place).as_bytes(), Reverse(*place)));
        order.dedup_by_key(|(place, _)| key(*place));
        text.clear();
        for (place, end) in order {
            text.raw(if text.is_empty() { "{" } else { "," });
            text.string(key(*place));
            text.raw(":");
            *end = text.len();
        }
    }
}

fn entry(key_value: &[u8]) -> Result<Entry<'_>, DecodeError> {
    let (key, any_value) = key_value_parts(key_value)?;
    Ok((text(key)?, any_value))
}

/// The key of a `KeyValue`, not checked yet, and its value.
#[inline]
fn key_value_parts(key_value: &[u8]) -> Result<(&[u8], Option<&[u8]>), DecodeError> {
    let mut fields = Fields::new(key_value);
    let (mut key, mut any_value) = (&b""[..], None);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => key = value.bytes()?,
            2 => any_value = Some(value.bytes()?),
            _ => {}
        }
    }
    Ok((key, any_value))
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

fn write_optional(
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

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::common::v1::any_value::Value as AnyKind;
    use crate::proto::common::v1::{AnyValue, KeyValue};

    fn key_value(key: &str, value: i64) -> Vec<u8> {
        let value = AnyValue {
            value: Some(AnyKind::IntValue(value)),
        };
        KeyValue {
            key: key.to_owned(),
            value: Some(value),
            ..KeyValue::default()
        }
        .encode_to_vec()
    }

    /// What `write` must give: a map keeps the last value of a key, in the order of its bytes.
    fn plain(record: &[(&str, i64)]) -> String {
        let sorted: std::collections::BTreeMap<_, _> = record.iter().copied().collect();
        serde_json::to_string(&sorted).unwrap()
    }

    /// Scenario: records whose keys are those of the record before, those of an earlier one, fewer, more, others in the same
    /// places, in another order, repeated, or too many to be remembered; more different ones than are remembered.
    /// Guarantees: each is written as if it came alone.
    #[test]
    fn records_are_written_as_if_each_came_alone() {
        let many: Vec<String> = (0..300).map(|key| format!("key{key}")).collect();
        let many: Vec<(&str, i64)> = many.iter().map(|key| (&**key, 1)).collect();
        let long = "\u{1}".repeat(KEY_SET_BYTES_MAX);
        let shapes: [&[(&str, i64)]; 14] = [
            &[("b", 1), ("a", 2)],
            &[("b", 3), ("a", 4)],
            &[("b", 5)],
            &[("b", 5), ("a", 6), ("c", 7)],
            &[("a", 2), ("b", 1)],
            &[("b", 1), ("a", 2), ("b", 3), ("b", 4)],
            &[("\"", 1), ("", 2), ("é\n", 3)],
            &many,
            &[(&long, 1), ("x", 2)],
            &[("d", 1)],
            &[("e", 1)],
            &[("f", 1)],
            &[("g", 1)],
            &[("h", 1)],
        ];
        let records = shapes.iter().chain(shapes.iter().rev()).chain(&shapes);
        let records: Vec<(String, Vec<Vec<u8>>)> = records
            .map(|record| {
                let entries = record.iter().map(|(key, value)| key_value(key, *value));
                (plain(record), entries.collect())
            })
            .collect();
        let mut attributes = Attributes::default();
        for (expected, entries) in &records {
            attributes.clear();
            for entry in entries {
                attributes.push(entry).unwrap();
            }
            assert_eq!(attributes.write().unwrap(), expected);
            assert!(attributes.key_sets.len() <= KEY_SETS_MAX);
            let is_small = |set: &KeySet<'_>| set.text.len() <= KEY_SET_BYTES_MAX;
            assert!(attributes.key_sets.iter().all(is_small));
        }
    }

    /// Scenario: a key that is not UTF-8 where another one was expected, and alone.
    /// Guarantees: refused.
    #[test]
    fn keys_are_utf8() {
        let good = key_value("key", 1);
        let mut bad = good.clone();
        bad[2] = 0xff;
        let mut attributes = Attributes::default();
        assert!(attributes.push(&bad).is_err());
        attributes.clear();
        attributes.push(&good).unwrap();
        attributes.write().unwrap();
        attributes.clear();
        assert!(attributes.push(&bad).is_err());
    }
}
