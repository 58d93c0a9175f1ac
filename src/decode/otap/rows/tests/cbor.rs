//! Maps and lists: CBOR to JSON text.

use super::super::cbor::write;
use crate::decode::VALUE_DEPTH_MAX;
use crate::rows::JsonText;

fn json(bytes: &[u8]) -> Result<String, String> {
    let mut json = JsonText::new();
    write(&mut json, bytes).map_err(|error| error.to_string())?;
    Ok(json.as_str().to_owned())
}

/// Scenario: every item that a value can be, in every encoding it has (RFC 8949, appendix A, and the diagnostic in the test).
/// Guarantees: the JSON text of docs/TABLES.md.
#[test]
fn every_encoding_is_read() {
    let cases: &[(&[u8], &str)] = &[
        (b"\xf6", "null"),
        (b"\xf7", "null"),
        (b"\xf5", "true"),
        (b"\xf4", "false"),
        (b"\x17", "23"),
        (b"\x18\xff", "255"),
        (b"\x19\x01\x00", "256"),
        (b"\x1a\xff\xff\xff\xff", "4294967295"),
        (
            b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff",
            "9223372036854775807",
        ),
        (b"\x20", "-1"),
        (b"\x38\x80", "-129"),
        (b"\x39\x80\x00", "-32769"),
        (b"\x3a\x80\x00\x00\x00", "-2147483649"),
        (
            b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff",
            "-9223372036854775808",
        ),
        (b"\xf9\x3c\x00", "1.0"),
        (b"\xf9\x7e\x00", "\"NaN\""),
        (b"\xfa\x3f\xc0\x00\x00", "1.5"),
        (b"\xfb\x3f\xb9\x99\x99\x99\x99\x99\x9a", "0.1"),
        (b"\x62\x22\x0a", r#""\"\n""#),
        (b"\x7f\x61a\x60\x61b\xff", r#""ab""#),
        (b"\x42\x00\xff", r#""AP8=""#),
        (b"\x5f\x41\x00\x40\x41\xff\xff", r#""AP8=""#),
        (b"\x80", "[]"),
        (b"\x82\x01\x61a", r#"[1,"a"]"#),
        (b"\x9f\x01\x9f\xff\xff", "[1,[]]"),
        (b"\xa0", "{}"),
        (b"\xbf\xff", "{}"),
        (
            b"\xa2\x61b\x01\x61a\xa1\x60\xf6",
            r#"{"a":{"":null},"b":1}"#,
        ),
        (
            b"\xbf\x61b\x01\x61a\x02\x7f\x61b\xff\x03\xff",
            r#"{"a":2,"b":3}"#,
        ),
    ];
    for (bytes, text) in cases {
        assert_eq!(json(bytes).as_deref(), Ok(*text), "{bytes:02x?}");
    }
}

/// Scenario: bytes that are no value, or one that OTLP cannot have.
/// Guarantees: each is refused.
#[test]
fn other_bytes_are_refused() {
    let cases: &[&[u8]] = &[
        b"",
        b"\xff",
        b"\x01\x01",
        b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\x3b\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xc0\x60",
        b"\xe0",
        b"\xf8\xff",
        b"\x61\xff",
        b"\x62a",
        b"\x7f\x01\xff",
        b"\x5f\x61a\xff",
        b"\x82\x01",
        b"\x9f\x01",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x01\x01",
        b"\xbf\x61a\xff",
        b"\x1c",
    ];
    for bytes in cases {
        assert!(json(bytes).is_err(), "{bytes:02x?} gave {:?}", json(bytes));
    }
}

/// Scenario: lists nested to the limit, and one level more.
/// Guarantees: the same limit as OTLP has, without a deep stack.
#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| [vec![0x9f; levels], vec![0xff; levels]].concat();
    assert!(json(&nested(VALUE_DEPTH_MAX)).is_ok());
    let error = json(&nested(VALUE_DEPTH_MAX + 1)).unwrap_err();
    assert!(error.contains("levels deep"), "{error}");
    assert!(json(&vec![0x9f; 1 << 20]).is_err());
    assert!(json(&vec![0x81; 1 << 20]).is_err());
}

/// Scenario: a map with more entries than are taken.
/// Guarantees: it is refused, one with as many as are taken is not.
#[test]
fn maps_are_bounded() {
    let map = |entries: u16| {
        [
            &[0xb9][..],
            &entries.to_be_bytes(),
            &b"\x60\x01".repeat(entries.into()),
        ]
        .concat()
    };
    assert_eq!(json(&map(1 << 14)).unwrap(), r#"{"":1}"#);
    assert!(json(&map((1 << 14) + 1)).unwrap_err().contains("entries"));
}
