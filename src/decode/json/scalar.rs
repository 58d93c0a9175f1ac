//! Numbers, enums, ids and bytes, from the text of one JSON scalar.
//!
//! Numbers are read from their text and not through serde_json's own, whose doubles can be off by one in the last place:
//! the same telemetry must give the same rows over protobuf. The errors say what was expected, never what was there.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::value::RawValue;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// An id as it came: empty, or up to 16 bytes, whose length the record's own rule judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Id {
    bytes: [u8; 16],
    len: usize,
}

impl Id {
    /// Reads hex of either case. What is no id at all becomes one zero byte: of the wrong length everywhere.
    pub(super) fn from_hex(text: &str) -> Id {
        let bad = Id {
            bytes: [0; 16],
            len: 1,
        };
        let digits = text.as_bytes();
        if digits.len() > 32 || !digits.len().is_multiple_of(2) {
            return bad;
        }
        let mut id = Id::default();
        for (byte, pair) in id.bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = match pair {
                [high, low] => (hex_digit(*high), hex_digit(*low)),
                _ => (None, None),
            };
            match high.zip(low) {
                Some((high, low)) => *byte = high << 4 | low,
                None => return bad,
            }
        }
        id.len = digits.len() / 2;
        id
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The text of a JSON number, or of a string; `None` for null.
fn content<'a>(
    raw: &'a RawValue,
    expected: &'static str,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let json = raw.get();
    match json.as_bytes() {
        [b'n', ..] => Ok(None),
        [b'-' | b'0'..=b'9', ..] => Ok(Some(Cow::Borrowed(json))),
        [b'"', ..] if json.contains('\\') => serde_json::from_str(json)
            .map(|text: String| Some(Cow::Owned(text)))
            .map_err(|_| expected),
        [b'"', ..] => Ok(json.get(1..json.len() - 1).map(Cow::Borrowed)),
        _ => Err(expected),
    }
}

/// An integer that fits `T`: digits, or a float of integral value (proto3 allows exponents).
pub(super) fn int<T: TryFrom<i128>>(raw: &RawValue) -> Result<Option<T>, &'static str> {
    const EXPECTED: &str = "expected an integer, as a number or a string";
    let Some(text) = content(raw, EXPECTED)? else {
        return Ok(None);
    };
    let wide = integral(&text).ok_or(EXPECTED)?;
    let fitting = T::try_from(wide).map_err(|_| "integer out of its field's range")?;
    Ok(Some(fitting))
}

/// The value of an integer, also of one with a point or an exponent, to its last digit: a double has too few digits for a time.
/// Saturates far outside what any field holds.
fn integral(text: &str) -> Option<i128> {
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    decimal(text)?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let magnitude = mantissa.trim_start_matches(['+', '-']);
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent: i64 = exponent.parse().ok()?;
    let zeros = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(dropped)?;
    // Below zero there is something behind the point.
    let zeros = u32::try_from(zeros).ok()?;
    let value = significant.parse::<i128>().ok();
    let value = value.zip(10i128.checked_pow(zeros));
    let value = value.and_then(|(value, power)| value.checked_mul(power));
    let value = value.unwrap_or(i128::MAX);
    Some(if mantissa.starts_with('-') {
        -value
    } else {
        value
    })
}

/// A finite double in JSON's own notation; `str::parse` rounds correctly, but also knows names that JSON does not.
fn decimal(text: &str) -> Option<f64> {
    let is_notation = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.bytes()
        .all(is_notation)
        .then(|| text.parse().ok())
        .flatten()
        .filter(|value: &f64| value.is_finite())
}

/// A double: a number, its text, or the name of a value that JSON has no number for.
pub(super) fn double(raw: &RawValue) -> Result<Option<f64>, &'static str> {
    const EXPECTED: &str = "expected a double, as a number or a string";
    let Some(text) = content(raw, EXPECTED)? else {
        return Ok(None);
    };
    match &*text {
        "NaN" => Ok(Some(f64::NAN)),
        "Infinity" => Ok(Some(f64::INFINITY)),
        "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
        text => decimal(text).map(Some).ok_or(EXPECTED),
    }
}

/// An enum's number, or its name.
pub(super) fn enumeration(
    raw: &RawValue,
    number_of: fn(&str) -> Option<i32>,
) -> Result<i32, &'static str> {
    const EXPECTED: &str = "expected an enum's number or name";
    let Some(text) = content(raw, EXPECTED)? else {
        return Ok(0);
    };
    match integral(&text) {
        Some(number) => i32::try_from(number).map_err(|_| EXPECTED),
        None => number_of(&text).ok_or(EXPECTED),
    }
}

/// Bytes from base64 of either alphabet, padded or not.
pub(super) fn base64(text: &str) -> Result<Vec<u8>, &'static str> {
    let engine = match text.contains(['-', '_']) {
        true => BASE64_URL_SAFE,
        false => BASE64_STANDARD,
    };
    engine.decode(text).map_err(|_| "expected base64")
}
