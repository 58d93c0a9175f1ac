//! The decoders: protobuf and JSON agree, and no bytes make them panic.

use otlake::decode::{DecodeError, Encoding, VALUE_DEPTH_MAX};
use otlake::proto::common::v1::AnyValue;
use otlake::proto::logs::v1::LogRecord;
use otlake::rows::Rows;
use otlake::signal::{Signal, Table};
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::support::arbitrary::{self, seeded};
use crate::support::otlp::{Export, array, int, kv, map, resource, text};
use crate::support::otlp_input::{assert_same, decode_bytes};
use crate::support::sample;

fn protobuf(signal: Signal, body: &[u8]) -> Result<Rows, DecodeError> {
    decode_bytes(signal, Encoding::Protobuf, body)
}

/// Decodes a request from protobuf, JSON and NDJSON and checks that the three agree.
fn decode_all_ways(export: &Export) -> Result<Rows, DecodeError> {
    let signal = export.signal();
    let rows = protobuf(signal, &export.to_protobuf());
    let json = export.to_json();
    for (encoding, body) in [
        (Encoding::Json, json.to_string()),
        (Encoding::Json, serde_json::to_string_pretty(&json).unwrap()),
        (Encoding::Ndjson, export.to_ndjson()),
    ] {
        match (&rows, decode_bytes(signal, encoding, body.as_bytes())) {
            (Ok(rows), Ok(from_json)) => {
                assert_eq!(rows.rejections, from_json.rejections, "{encoding:?}");
                assert_same(rows, &from_json);
            }
            (Err(_), Err(_)) => {}
            (rows, from_json) => panic!("{encoding:?}: {from_json:?}, from protobuf: {rows:?}"),
        }
    }
    rows
}

proptest! {
    #![proptest_config(seeded(300))]

    /// Scenario: random requests of every signal, with weird ids, times, numbers, repeated keys and deep values.
    /// Guarantees: protobuf, JSON and NDJSON give the same rows and rejections, and every record is one or the other.
    #[test]
    fn protobuf_and_json_give_the_same_rows(export in arbitrary::export()) {
        let rows = decode_all_ways(&export).unwrap();
        prop_assert_eq!(rows.rows() + rows.rejections.total(), export.records());
    }

    /// Scenario: a valid body is cut off anywhere.
    /// Guarantees: no panic; what still decodes has at most the records of the whole.
    #[test]
    fn truncated_bodies_never_panic(export in arbitrary::export(), cut: prop::sample::Index) {
        let body = export.to_protobuf();
        let cut = cut.index(body.len() + 1);
        if let Ok(rows) = protobuf(export.signal(), &body[..cut]) {
            prop_assert!(rows.rows() + rows.rejections.total() <= export.records());
        }
    }

    /// Scenario: bytes of a valid body are overwritten anywhere, and it is taken for another signal.
    /// Guarantees: no panic, and memory is accounted for.
    #[test]
    fn damaged_bodies_never_panic(
        export in arbitrary::export(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut body = export.to_protobuf().to_vec();
        for (place, byte) in damage {
            if !body.is_empty() {
                let place = place.index(body.len());
                body[place] = byte;
            }
        }
        for signal in Signal::ALL {
            let _ = protobuf(signal, &body);
        }
    }

    /// Scenario: any bytes at all.
    /// Guarantees: no panic, and memory is accounted for.
    #[test]
    fn any_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for signal in Signal::ALL {
            for encoding in [Encoding::Protobuf, Encoding::Json, Encoding::Ndjson] {
                let _ = decode_bytes(signal, encoding, &body);
            }
        }
    }

    /// Scenario: bytes that read as fields, with numbers and lengths near the ones of OTLP, nested in each other.
    /// Guarantees: no panic, and memory is accounted for.
    #[test]
    fn near_messages_never_panic(message in near_message()) {
        for signal in Signal::ALL {
            let _ = protobuf(signal, &message);
        }
    }
}

/// A message of random fields, nested as OTLP's are: most of its fields are messages again.
fn near_message() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(|value| (WireType::Varint, encoded(value))),
        any::<[u8; 8]>().prop_map(|bytes| (WireType::SixtyFourBit, bytes.to_vec())),
        any::<[u8; 4]>().prop_map(|bytes| (WireType::ThirtyTwoBit, bytes.to_vec())),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| (WireType::LengthDelimited, with_length(&bytes))),
    ];
    let field = leaf.prop_recursive(8, 40, 5, |inner| {
        prop::collection::vec((1..14u32, inner), 0..5)
            .prop_map(|fields| (WireType::LengthDelimited, with_length(&message(fields))))
    });
    prop::collection::vec((1..14u32, field), 0..5).prop_map(message)
}

fn message(fields: Vec<(u32, (WireType, Vec<u8>))>) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, (wire_type, content)) in fields {
        encode_key(number, wire_type, &mut message);
        message.extend(content);
    }
    message
}

fn encoded(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(value, &mut bytes);
    bytes
}

fn with_length(content: &[u8]) -> Vec<u8> {
    [&encoded(content.len() as u64), content].concat()
}

/// One length-delimited field.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    message(vec![(
        number,
        (WireType::LengthDelimited, with_length(content)),
    )])
}

/// Scenario: the sample of each signal, which uses all of OTLP.
/// Guarantees: the encodings agree on it, and every record becomes a row.
#[test]
fn the_sample_decodes_alike_from_every_encoding() {
    for export in sample::exports() {
        let rows = decode_all_ways(&export).unwrap();
        assert_eq!(rows.rows(), export.records());
    }
}

/// Scenario: the sample of each signal, cut off behind every one of its bytes.
/// Guarantees: no panic; a cut inside of a group is an error, since the group's length no longer fits.
#[test]
fn every_truncation_of_the_sample_is_refused() {
    for export in sample::exports() {
        let body = export.to_protobuf();
        let whole = (0..body.len()).filter(|cut| protobuf(export.signal(), &body[..*cut]).is_ok());
        // Two resources: before the first, and between them.
        assert_eq!(whole.count(), 2, "{}", export.signal());
    }
}

/// Fields that OTLP does not have, of every wire type, groups among them.
fn unknown_fields() -> Vec<u8> {
    let mut fields = message(vec![
        (99, (WireType::Varint, encoded(u64::MAX))),
        (1000, (WireType::SixtyFourBit, vec![1; 8])),
        (536_870_911, (WireType::ThirtyTwoBit, vec![2; 4])),
        (
            98,
            (WireType::LengthDelimited, with_length(b"\xff not UTF-8")),
        ),
    ]);
    encode_key(97, WireType::StartGroup, &mut fields);
    encode_key(1, WireType::StartGroup, &mut fields);
    fields.extend(field(2, b"inside"));
    encode_key(1, WireType::EndGroup, &mut fields);
    encode_key(97, WireType::EndGroup, &mut fields);
    fields
}

/// Scenario: a later OTLP's fields, and groups, in front of and behind the known ones on every level of a log request.
/// Guarantees: they are stepped over; the row is as without them.
#[test]
fn unknown_fields_and_groups_are_skipped() {
    let around = |content: Vec<u8>| [unknown_fields(), content, unknown_fields()].concat();
    let build = |around: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let value = around(text("v").unwrap().encode_to_vec());
        let key_value = around([field(1, b"service.name"), field(2, &value)].concat());
        let resource = around(field(1, &key_value));
        let scope = around([field(1, b"lib"), field(3, &key_value)].concat());
        let record = around([field(6, &key_value), field(5, &value)].concat());
        let scope_logs = around([field(2, &record), field(1, &scope)].concat());
        let resource_logs = around([field(2, &scope_logs), field(1, &resource)].concat());
        around(field(1, &resource_logs))
    };
    let plain = protobuf(Signal::Logs, &build(&|content| content)).unwrap();
    let padded = protobuf(Signal::Logs, &build(&around)).unwrap();
    assert_eq!(plain.rows(), 1);
    assert_same(&plain, &padded);
}

/// Scenario: groups that are closed wrongly, never closed, never opened, or nested without end.
/// Guarantees: each is malformed, and the nesting does not exhaust the stack.
#[test]
fn broken_groups_are_malformed() {
    let keys = |keys: &[(u32, WireType)]| {
        let mut body = Vec::new();
        for (number, wire_type) in keys {
            encode_key(*number, *wire_type, &mut body);
        }
        body
    };
    use WireType::{EndGroup, StartGroup};
    for body in [
        keys(&[(9, StartGroup)]),
        keys(&[(9, EndGroup)]),
        keys(&[(9, StartGroup), (8, EndGroup)]),
        keys(&[
            (9, StartGroup),
            (8, StartGroup),
            (9, EndGroup),
            (8, EndGroup),
        ]),
        keys(&vec![(9, StartGroup); 1 << 20]),
        vec![0x0e],
        vec![0x0f],
        vec![0x00],
        vec![0xff; 11],
    ] {
        for signal in Signal::ALL {
            let error = protobuf(signal, &body).unwrap_err();
            assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
        }
    }
}

/// The metric request around one data point of a kind.
fn point_request(kind: u32, point: &[u8]) -> Vec<u8> {
    let metric = field(kind, &field(1, point));
    field(1, &field(2, &field(2, &metric)))
}

/// Scenario: the number lists of both histograms packed, unpacked, and in several packed runs.
/// Guarantees: the rows are the same; protobuf asks parsers to take each form.
#[test]
fn repeated_scalars_are_accepted_packed_and_unpacked() {
    let fixed =
        |number, value: [u8; 8]| message(vec![(number, (WireType::SixtyFourBit, value.to_vec()))]);
    let [one, two] = [1u64.to_le_bytes(), 2u64.to_le_bytes()];
    let bound = 0.5f64.to_le_bytes();
    let packed = [field(6, &[one, two].concat()), field(7, &bound)].concat();
    let unpacked = [fixed(6, one), fixed(7, bound), fixed(6, two)].concat();
    let runs = [
        field(6, &one),
        field(6, &[]),
        field(7, &bound),
        field(6, &two),
    ]
    .concat();
    let [packed, unpacked, runs] = [packed, unpacked, runs]
        .map(|point| protobuf(Signal::Metrics, &point_request(9, &point)).unwrap());
    assert_eq!((packed.rows(), packed.rejections.total()), (1, 0));
    assert_same(&packed, &unpacked);
    assert_same(&packed, &runs);

    let varint = |value| message(vec![(2, (WireType::Varint, encoded(value)))]);
    let packed = field(2, &[encoded(300), encoded(u64::MAX)].concat());
    let unpacked = [varint(300), varint(u64::MAX)].concat();
    let [packed, unpacked] = [packed, unpacked]
        .map(|buckets| protobuf(Signal::Metrics, &point_request(10, &field(8, &buckets))).unwrap());
    assert_eq!(packed.rows(), 1);
    assert_same(&packed, &unpacked);
}

/// Scenario: a message field of each sort stands in several parts, as concatenated messages have it.
/// Guarantees: the parts are merged, as protobuf asks; no record of the earlier part vanishes.
#[test]
fn messages_in_several_parts_are_merged() {
    let resource_part =
        |key: &str, value: &str| resource(vec![kv(key, text(value))]).encode_to_vec();
    let record = LogRecord::default().encode_to_vec();
    let scope_logs = field(2, &record);
    let group = [
        field(1, &resource_part("service.name", "first")),
        field(
            2,
            &[
                scope_logs,
                field(1, &field(1, b"lib")),
                field(1, &field(2, b"2")),
            ]
            .concat(),
        ),
        field(1, &resource_part("b", "c")),
        field(1, &resource_part("service.name", "last")),
    ];
    let merged = protobuf(Signal::Logs, &field(1, &group.concat())).unwrap();
    let whole = [
        field(
            1,
            &resource(vec![kv("b", text("c")), kv("service.name", text("last"))]).encode_to_vec(),
        ),
        field(
            2,
            &[
                field(1, &[field(1, b"lib"), field(2, b"2")].concat()),
                field(2, &record),
            ]
            .concat(),
        ),
    ];
    let whole = protobuf(Signal::Logs, &field(1, &whole.concat())).unwrap();
    assert_eq!(whole.rows(), 1);
    assert_same(&whole, &merged);

    for (kind, table) in [
        (5, Table::Gauge),
        (7, Table::Sum),
        (9, Table::Histogram),
        (10, Table::ExpHistogram),
        (11, Table::Summary),
    ] {
        let part = field(kind, &field(1, &[]));
        let metric = [part.clone(), part].concat();
        let rows = protobuf(Signal::Metrics, &field(1, &field(2, &field(2, &metric)))).unwrap();
        assert_eq!(rows.rows(), 2, "{table}");
    }
}

/// A log whose attribute nests `depth` values, the innermost one an integer or a list or map without entries.
fn nested(depth: usize, innermost: Option<AnyValue>, in_map: bool) -> Export {
    let value = (1..depth).fold(innermost, |value, _| match in_map {
        true => map(vec![kv("k", value)]),
        false => array([value]),
    });
    let log = LogRecord {
        attributes: vec![kv("k", value)],
        ..LogRecord::default()
    };
    Export::logs(resource(vec![]), Default::default(), vec![log])
}

/// Scenario: attribute values as deep as is allowed, and one deeper, in lists and in maps.
/// Guarantees: the encodings agree on the bound, whatever the innermost value is.
#[test]
fn the_depth_bound_is_the_same_in_every_encoding() {
    for in_map in [false, true] {
        for innermost in [int(1), None, array([]), map(vec![])] {
            let deepest = nested(VALUE_DEPTH_MAX, innermost.clone(), in_map);
            assert_eq!(
                decode_all_ways(&deepest).unwrap().rows(),
                1,
                "{innermost:?}"
            );
        }
        let too_deep = nested(VALUE_DEPTH_MAX + 1, int(1), in_map);
        decode_all_ways(&too_deep).unwrap_err();
        let too_deep = nested(VALUE_DEPTH_MAX + 1, array([]), in_map);
        decode_all_ways(&too_deep).unwrap_err();
    }
}

/// Scenario: strings that are not UTF-8, in a name and in an attribute.
/// Guarantees: the body is malformed, as proto3 asks.
#[test]
fn text_that_is_not_utf_8_is_malformed() {
    let record = |record: Vec<u8>| field(1, &field(2, &field(2, &record)));
    let bad_name = record(field(3, b"\xff"));
    let bad_value = record(field(
        6,
        &[field(1, b"k"), field(2, &field(1, b"a\xc3"))].concat(),
    ));
    let bad_key = record(field(6, &field(1, b"\x80")));
    for body in [bad_name, bad_value, bad_key] {
        let error = protobuf(Signal::Logs, &body).unwrap_err();
        assert_eq!(error.to_string(), "a protobuf string is not UTF-8");
    }
}
