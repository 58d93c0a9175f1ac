//! The headers of a stream.

use super::super::headers::*;
use super::*;

/// A block, and what it becomes.
type Request = (&'static [u8], &'static [(&'static str, &'static str)]);

/// RFC 7541, C.4: three requests with Huffman coding, whose dynamic table goes on.
const REQUESTS: [Request; 3] = [
    (
        &[
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab,
            0x90, 0xf4, 0xff,
        ],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ],
    ),
    (
        &[
            0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf,
        ],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
            ("cache-control", "no-cache"),
        ],
    ),
    (
        &[
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f,
            0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ],
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    ),
];

fn pairs(pairs: &[(&str, &str)]) -> Vec<Header> {
    let owned =
        |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    pairs.iter().map(owned).collect()
}

/// A literal that goes into the table, not Huffman-coded.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x40];
    for text in [name, value] {
        integer(&mut block, text.len());
        block.extend(text);
    }
    block
}

/// A length: seven bits, and what is more in groups of seven.
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap() | 0x80);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap());
}

fn lost_headers(decoder: &mut StreamDecoder, block: &[u8]) -> String {
    match decoder.headers(block).unwrap_err() {
        OtapError::Stream(DecodeError::Malformed(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Scenario: the RFC's three requests as the headers of three batches, with batches that have none between them.
/// Guarantees: each is decoded with what the ones before put into the table.
#[test]
fn the_table_goes_on_from_batch_to_batch() {
    let mut decoder = decoder();
    for (block, expected) in REQUESTS {
        assert_eq!(decoder.headers(block).unwrap(), pairs(expected));
        assert_eq!(decoder.headers(b"").unwrap(), []);
    }
}

/// Scenario: the second request of the RFC without the first.
/// Guarantees: it names an entry that is not there: the stream is lost, for batches too.
#[test]
fn headers_that_miss_the_table_lose_the_stream() {
    let mut decoder = decoder();
    let what = lost_headers(&mut decoder, REQUESTS[1].0);
    assert!(what.contains("not HPACK"), "{what}");
    assert_eq!(lost(&mut decoder, &batch_of(Vec::new())), what);
    assert_eq!(lost_headers(&mut decoder, REQUESTS[0].0), what);
}

/// Scenario: headers beyond each limit, and at it.
/// Guarantees: beyond it the stream is lost and the limit named; at it they are decoded.
#[test]
fn headers_are_bounded() {
    // An entry of 2000 bytes; naming it takes one byte.
    let entry = literal(b"n", &[b'v'; 1999]);
    let named = |times: usize| [&entry[..], &vec![0x80 | 62; times]].concat();
    let within = HEADERS_BYTES_MAX / 2000;
    let fields = vec![0x82; HEADER_FIELDS_MAX];
    let value = vec![b'v'; HEADERS_BYTES_MAX];
    let update = |bytes: usize| {
        let mut block = vec![0x3f];
        let mut rest = Vec::new();
        // The same groups of seven, behind a prefix of five bits.
        integer(&mut rest, bytes - 31 + 127);
        block.extend(&rest[1..]);
        block.push(0x82);
        block
    };
    let cases = [
        (Some(named(within - 1)), named(within), "limit 65536"),
        (
            Some(fields.clone()),
            [&fields[..], &[0x82]].concat(),
            "more than 256 fields",
        ),
        (
            Some(literal(b"", &value[8..])),
            literal(b"n", &value),
            "bytes, limit 65536",
        ),
        (
            Some(update(HEADER_TABLE_BYTES_MAX)),
            update(HEADER_TABLE_BYTES_MAX + 1),
            "exceeds the maximum size",
        ),
        (None, vec![0xff; 8], "cut off"),
        (None, vec![0x40, 0x7f], "cut off"),
        (None, vec![0x80], "not HPACK"),
    ];
    for (good, bad, expected) in cases {
        if let Some(good) = good {
            decoder().headers(&good).unwrap();
        }
        let what = lost_headers(&mut decoder(), &bad);
        assert!(what.contains(expected), "{what}, and not {expected}");
    }
}

/// Scenario: the RFC's requests, cut off at every byte and with every byte changed.
/// Guarantees: no panic; what is shown of the decoder has no header in it.
#[test]
fn damaged_headers_are_errors() {
    for (block, _) in REQUESTS {
        for at in 0..block.len() {
            let _ = decoder().headers(&block[..at]);
            for byte in 0..=u8::MAX {
                let mut changed = block.to_vec();
                changed[at] = byte;
                let mut decoder = decoder();
                let _ = decoder.headers(&changed);
                assert!(!format!("{decoder:?}").contains("example"));
            }
        }
    }
}
