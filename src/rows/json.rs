//! The JSON text of attributes, bodies, events, links and exemplars.
//!
//! Written straight into one reused string, without a tree between. Rules (docs/TABLES.md): keys sorted bytewise, the
//! last of a repeated key wins, ints as digits, doubles as the shortest text that reads back, NaN and the infinities
//! as the strings of OTLP/JSON, bytes as base64 (OTLP, "JSON Protobuf Encoding").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::columns::HEX;

/// A JSON text under construction. Always valid UTF-8; valid JSON once its callers have closed what they opened.
#[derive(Debug, Default)]
pub struct JsonText {
    out: String,
}

impl JsonText {
    /// An empty text.
    #[must_use]
    pub fn new() -> JsonText {
        JsonText::default()
    }

    /// Forgets the text, keeps the memory.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// The text so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.out
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Begins a member of an object that is all of the text: with the brace if it is the first, else with a comma.
    #[inline]
    pub fn begin_member(&mut self) {
        self.out.push(if self.out.is_empty() { '{' } else { ',' });
    }

    /// Ends an object that has members.
    #[inline]
    pub fn end_object(&mut self) {
        self.out.push('}');
    }

    /// Writes text that is JSON already: punctuation, or another finished text.
    #[inline]
    pub fn raw(&mut self, json: &str) {
        self.out.push_str(json);
    }

    /// Writes a JSON string.
    #[inline]
    pub fn string(&mut self, text: &str) {
        self.out.reserve(text.len() + 2);
        self.out.push('"');
        // Without a way out of the loop, so that many bytes are looked at together.
        let is_plain = !text.bytes().fold(false, |any, byte| any | is_escaped(byte));
        if is_plain {
            self.out.push_str(text);
        } else {
            self.escape(text);
        }
        self.out.push('"');
    }

    #[cold]
    fn escape(&mut self, text: &str) {
        let mut plain = 0;
        for (place, byte) in text.bytes().enumerate() {
            if !is_escaped(byte) {
                continue;
            }
            // The escaped bytes are ASCII, so both places are character boundaries.
            self.out
                .push_str(text.get(plain..place).unwrap_or_default());
            plain = place + 1;
            match byte {
                b'"' => self.out.push_str("\\\""),
                b'\\' => self.out.push_str("\\\\"),
                b'\n' => self.out.push_str("\\n"),
                b'\r' => self.out.push_str("\\r"),
                b'\t' => self.out.push_str("\\t"),
                0x08 => self.out.push_str("\\b"),
                0x0c => self.out.push_str("\\f"),
                control => {
                    const DIGITS: &[u8; 16] = b"0123456789abcdef";
                    self.out.push_str("\\u00");
                    self.out.push(char::from(DIGITS[usize::from(control >> 4)]));
                    self.out.push(char::from(DIGITS[usize::from(control & 15)]));
                }
            }
        }
        self.out.push_str(text.get(plain..).unwrap_or_default());
    }

    /// Writes a signed integer in digits.
    pub fn int(&mut self, value: i64) {
        self.out.push_str(itoa::Buffer::new().format(value));
    }

    /// Writes an unsigned integer in digits.
    pub fn uint(&mut self, value: u64) {
        self.out.push_str(itoa::Buffer::new().format(value));
    }

    /// Writes a double: the shortest text that reads back, or the OTLP/JSON string of a value JSON has no number for.
    pub fn double(&mut self, value: f64) {
        if value.is_finite() {
            self.out.push_str(ryu::Buffer::new().format_finite(value));
        } else if value.is_nan() {
            self.out.push_str("\"NaN\"");
        } else if value > 0.0 {
            self.out.push_str("\"Infinity\"");
        } else {
            self.out.push_str("\"-Infinity\"");
        }
    }

    /// Writes a boolean.
    pub fn bool(&mut self, value: bool) {
        self.out.push_str(if value { "true" } else { "false" });
    }

    /// Writes null: OTLP's empty value.
    pub fn null(&mut self) {
        self.out.push_str("null");
    }

    /// Writes bytes as a base64 string, standard alphabet, padded.
    pub fn bytes(&mut self, value: &[u8]) {
        self.out.push('"');
        BASE64.encode_string(value, &mut self.out);
        self.out.push('"');
    }

    /// Writes an id, of 16 bytes at most, as a string of lower-case hex digits.
    pub fn hex(&mut self, id: &[u8]) {
        let mut digits = [0; 32];
        let (pairs, _) = digits.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(id) {
            *pair = HEX[usize::from(*byte)];
        }
        let digits = digits.get(..2 * id.len()).unwrap_or(&digits);
        self.out.push('"');
        self.out
            .push_str(std::str::from_utf8(digits).unwrap_or_default());
        self.out.push('"');
    }

    /// Writes an object with its keys sorted bytewise; of a repeated key the last entry wins.
    ///
    /// `write_value` writes one value. The entries are left sorted.
    ///
    /// # Errors
    /// Whatever `write_value` gives.
    pub fn object<K: AsRef<str>, V, E>(
        &mut self,
        entries: &mut [(K, V)],
        mut write_value: impl FnMut(&mut JsonText, &V) -> Result<(), E>,
    ) -> Result<(), E> {
        // A stable sort keeps the order of arrival among equal keys, so the last one is the one that wins.
        entries.sort_by(|a, b| a.0.as_ref().as_bytes().cmp(b.0.as_ref().as_bytes()));
        self.out.push('{');
        let mut first = true;
        for (place, (key, value)) in entries.iter().enumerate() {
            let next = entries.get(place + 1);
            if next.is_some_and(|(next, _)| next.as_ref() == key.as_ref()) {
                continue;
            }
            if !first {
                self.out.push(',');
            }
            first = false;
            self.string(key.as_ref());
            self.out.push(':');
            write_value(self, value)?;
        }
        self.out.push('}');
        Ok(())
    }

    /// Writes an array.
    ///
    /// # Errors
    /// Whatever `write_item` gives.
    pub fn array<V, E>(
        &mut self,
        items: impl IntoIterator<Item = V>,
        mut write_item: impl FnMut(&mut JsonText, V) -> Result<(), E>,
    ) -> Result<(), E> {
        self.out.push('[');
        for (place, item) in items.into_iter().enumerate() {
            if place > 0 {
                self.out.push(',');
            }
            write_item(self, item)?;
        }
        self.out.push(']');
        Ok(())
    }
}

/// Whether a byte of a JSON string is written as an escape.
pub(crate) fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Scenario: every character that JSON escapes, and text around it.
    /// Guarantees: a JSON parser reads back exactly what was written.
    #[test]
    fn strings_read_back() {
        for text in [
            "",
            "plain",
            "\"\\\u{8}\u{c}\n\r\t\u{1}\u{1f}é😀\u{7f}",
            "a\"b",
        ] {
            let mut json = JsonText::new();
            json.string(text);
            assert_eq!(serde_json::from_str::<String>(json.as_str()).unwrap(), text);
        }
    }

    /// Scenario: numbers at the ends of their ranges.
    /// Guarantees: integers keep every digit, doubles read back bit for bit, the rest are OTLP/JSON's strings.
    #[test]
    fn numbers_keep_their_value() {
        let mut json = JsonText::new();
        json.int(i64::MIN);
        assert_eq!(json.as_str(), "-9223372036854775808");
        for value in [0.1, 1.0, -0.0, 1e300, f64::MIN_POSITIVE, 123_456_789.125] {
            json.clear();
            json.double(value);
            let back: f64 = json.as_str().parse().unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{}", json.as_str());
        }
        for (value, text) in [
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            json.clear();
            json.double(value);
            assert_eq!(json.as_str(), text);
        }
    }

    /// Scenario: keys out of order, one of them three times.
    /// Guarantees: bytewise order, and the last of the repeated key.
    #[test]
    fn objects_are_sorted_and_the_last_repeated_key_wins() {
        let mut entries = vec![("b", 1), ("a", 2), ("é", 3), ("b", 4), ("B", 5), ("b", 6)];
        let mut json = JsonText::new();
        json.object(&mut entries, |json, value| {
            json.int(*value);
            Ok::<(), Infallible>(())
        })
        .unwrap();
        assert_eq!(json.as_str(), r#"{"B":5,"a":2,"b":6,"é":3}"#);
    }
}
