//! A record's attributes: collected, and written as one JSON object.

use std::cmp::Reverse;

use super::value::{string_value, write_optional, write_value};
use super::wire::{Fields, check_list, text};
use crate::decode::DecodeError;
use crate::rows::{JsonText, is_escaped};

/// Attributes, buckets, bounds or quantiles in one list of one record. The scratch space for them is 64 bytes an
/// entry, so one record needs 8 MiB of it at most.
pub(super) const LIST_ITEMS_MAX: usize = 1 << 17;

/// A key and the bytes of its `AnyValue`; `None` where the value is unset.
pub(super) type Entry<'a> = (&'a str, Option<&'a [u8]>);

/// Collects a record's attributes and writes them as one JSON object. Reused from record to record.
///
/// The records of a request mostly have one of a few sets of keys: what is known of a set is neither checked, nor sorted, nor
/// escaped again. That was a fifth of what decoding took.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    entries: Vec<Entry<'a>>,
    /// The object. What is in it is known to be text once it is whole.
    object: Vec<u8>,
    /// A value that is not a plain string.
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
    /// What stands before each value, one behind the other: bracket or comma, the key, a colon, and the quote that only a
    /// string begins with.
    text: JsonText,
}

impl<'a> Attributes<'a> {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.is_expected = true;
    }

    /// Adds one `KeyValue`.
    #[inline]
    pub(super) fn push(&mut self, key_value: &'a [u8]) -> Result<(), DecodeError> {
        let (key, any_value) = key_value_parts(key_value)?;
        let place = self.entries.len();
        let expected = self.key_sets.first().and_then(|set| set.keys.get(place));
        let key = match expected {
            Some(expected) if is_same(expected.as_bytes(), key) => expected,
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
        let keys = set.text.as_str().as_bytes();
        let out = &mut self.object;
        out.clear();
        let mut start = 0;
        for (place, end) in &set.order {
            out.extend_from_slice(keys.get(start..*end).unwrap_or_default());
            start = *end;
            let value = self.entries.get(*place).and_then(|(_, value)| *value);
            if let Some(text) = value.and_then(plain_string) {
                out.extend_from_slice(text);
                out.push(b'"');
            } else {
                // It has its own quotes, if any.
                out.pop();
                self.json.clear();
                write_optional(&mut self.json, value, 0)?;
                out.extend_from_slice(self.json.as_str().as_bytes());
            }
        }
        out.push(b'}');
        if set.keys.len() > KEY_SET_KEYS_MAX || set.text.len() > KEY_SET_BYTES_MAX {
            self.key_sets.remove(0);
        }
        // Quotes stand around each string, so the whole is text only if each of them is.
        text(&self.object)
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
            text.raw(":\"");
            *end = text.len();
        }
    }
}

/// Whether keys are the same. Most are, and short: eight bytes at a time, without a call.
#[inline]
fn is_same(expected: &[u8], key: &[u8]) -> bool {
    if expected.len() != key.len() {
        return false;
    }
    match (expected.last_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(expected_end), Some(key_end)) => {
            let (expected, _) = expected.as_chunks::<8>();
            let (key, _) = key.as_chunks::<8>();
            expected_end == key_end && expected.iter().zip(key).all(|(a, b)| a == b)
        }
        _ => expected == key,
    }
}

/// A length-delimited field at the beginning, with this key and a length of one byte; and what stands behind it.
#[inline(always)]
fn short_field(bytes: &[u8], key: u8) -> Option<(&[u8], &[u8])> {
    match bytes {
        [first, len, rest @ ..] if *first == key && *len < 0x80 => {
            rest.split_at_checked(usize::from(*len))
        }
        _ => None,
    }
}

/// The bytes of an `AnyValue` that is one short string without anything to escape, as most values are; not known to be
/// text yet. All others are for [`write_value`].
#[inline]
fn plain_string(any_value: &[u8]) -> Option<&[u8]> {
    let (text, rest) = short_field(any_value, STRING_FIELD)?;
    // Without a way out of the loop, so that many bytes are looked at together.
    let is_plain = !text.iter().fold(false, |any, byte| any | is_escaped(*byte));
    (rest.is_empty() && is_plain).then_some(text)
}

/// What stands before a length-delimited field 1 and 2: a `KeyValue`'s key and value. Field 1 of an `AnyValue` is a string.
const KEY_FIELD: u8 = 1 << 3 | 2;
const VALUE_FIELD: u8 = 2 << 3 | 2;
const STRING_FIELD: u8 = 1 << 3 | 2;

/// The key of a `KeyValue`, not checked yet, and its value.
#[inline]
pub(super) fn key_value_parts(key_value: &[u8]) -> Result<(&[u8], Option<&[u8]>), DecodeError> {
    // As nearly all are: both fields once, in order, each with a length of one byte.
    if let Some((key, rest)) = short_field(key_value, KEY_FIELD)
        && let Some((value, [])) = short_field(rest, VALUE_FIELD)
    {
        return Ok((key, Some(value)));
    }
    any_key_value_parts(key_value)
}

/// The same of every `KeyValue`.
fn any_key_value_parts(key_value: &[u8]) -> Result<(&[u8], Option<&[u8]>), DecodeError> {
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

    /// Scenario: values of every kind, short and long strings, with bytes to escape and bytes that are not UTF-8, cut in pieces
    /// and with bytes behind them.
    /// Guarantees: an attribute is written, or refused, as its value alone is.
    #[test]
    fn plain_strings_are_written_as_any_value_is() {
        let mut values: Vec<Vec<u8>> = vec![Vec::new(), vec![0x10, 1], vec![0x18, 7], vec![0x0a]];
        for text in [
            "",
            "plain",
            "é",
            "a\"b",
            "\n",
            &"long ".repeat(60),
            &"x".repeat(127),
        ] {
            let value = AnyValue {
                value: Some(AnyKind::StringValue(text.to_owned())),
            };
            let value = value.encode_to_vec();
            values.push([&value[..], &[0x10, 1]].concat());
            values.push([&value[..], &value[..]].concat());
            values.push(value[..value.len() - 1].to_vec());
            values.push(value);
        }
        values.extend([
            vec![0x0a, 1, 0xff],
            vec![0x0a, 2, 0xc3, b'"'],
            vec![0x0a, 1, 0xc3],
        ]);
        for value in &values {
            let len = u8::try_from(value.len() % 128).unwrap();
            if usize::from(len) != value.len() {
                continue;
            }
            let entry = [&[0x0a, 1, b'k', 0x12, len], &value[..]].concat();
            let mut attributes = Attributes::default();
            attributes.clear();
            attributes.push(&entry).unwrap();
            let mut plain = JsonText::new();
            plain.raw("{\"k\":");
            let expected = write_value(&mut plain, value, 0);
            plain.raw("}");
            match (expected, attributes.write()) {
                (Ok(()), Ok(written)) => assert_eq!(written, plain.as_str()),
                (Err(expected), Err(error)) => assert_eq!(error, expected),
                other => panic!("{value:?}: {other:?}"),
            }
        }
    }

    proptest::proptest! {
        /// Scenario: any bytes, most of which look like a `KeyValue`.
        /// Guarantees: the way for the usual shape finds what the way for every shape finds, or leaves it to that.
        #[test]
        fn the_short_way_is_the_long_way(
            key in proptest::collection::vec(proptest::num::u8::ANY, 0..4),
            value in proptest::collection::vec(proptest::num::u8::ANY, 0..4),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..3),
            place in 0usize..12,
            byte in proptest::num::u8::ANY,
        ) {
            let mut bytes = [&[0x0a, 3][..], &key, &[0x12, 3], &value, &rest].concat();
            bytes[1] = u8::try_from(key.len()).unwrap();
            bytes[3 + key.len()] = u8::try_from(value.len()).unwrap();
            if let Some(changed) = bytes.get_mut(place) {
                *changed = byte;
            }
            proptest::prop_assert_eq!(key_value_parts(&bytes), any_key_value_parts(&bytes));
            let same = [&key[..], &value, &rest].concat();
            let other = [&key[..], &rest, &value].concat();
            proptest::prop_assert_eq!(is_same(&same, &other), same == other);
        }
    }
}
