//! Dictionaries over the batches of a stream.

use arrow::datatypes::DataType;

use super::*;

/// A producer with these dictionaries, and bodies that do not differ by their compression.
fn producer(dictionaries: Dictionaries) -> Producer {
    Producer::new(Options {
        dictionaries,
        ..Options::default()
    })
}

/// Records whose event names are these numbers, each with an attribute of that value.
fn numbered(numbers: std::ops::Range<usize>) -> ExportLogsServiceRequest {
    let records = numbers.map(|number| LogRecord {
        event_name: format!("event {number}"),
        ..record(vec![kv("k", text(&number.to_string()))])
    });
    request(records.collect())
}

/// Scenario: batches with ever more different values.
/// Guarantees: keys of 8 bits up to 255 values, of 16 up to 65,535, native columns from then on; each step begins a new IPC
/// stream, nothing else does, and every value arrives.
#[test]
fn dictionaries_grow_from_8_bits_to_16_to_none() {
    let (mut producer, mut reader) = (producer(Dictionaries::Delta), Reader::default());
    let mut schema_ids = Vec::new();
    for (numbers, event_name, value) in [
        (0..200, (DataType::Utf8, 8), (DataType::Utf8, 16)),
        (100..255, (DataType::Utf8, 8), (DataType::Utf8, 16)),
        (254..256, (DataType::Utf8, 16), (DataType::Utf8, 16)),
        (0..3, (DataType::Utf8, 16), (DataType::Utf8, 16)),
        (256..65_535, (DataType::Utf8, 16), (DataType::Utf8, 16)),
        (65_530..65_536, (DataType::Utf8, 0), (DataType::Utf8, 0)),
        (5..9, (DataType::Utf8, 0), (DataType::Utf8, 0)),
    ] {
        let batch = producer.logs(&numbered(numbers.clone())).unwrap();
        let tables = reader.read(&batch);
        let root = tables.get(ArrowPayloadType::Logs);
        let names: Vec<String> = numbers.clone().map(|n| format!("event {n}")).collect();
        assert_eq!(root.texts("event_name"), names);
        assert_eq!(root.data_type("event_name"), event_name, "{numbers:?}");
        let attributes = tables.attributes(ArrowPayloadType::LogAttrs);
        let last = numbers.end - 1;
        assert_eq!(
            attributes[&(numbers.len() as u32 - 1)],
            [format!("k=1:{last}")]
        );
        assert_eq!(
            tables.get(ArrowPayloadType::LogAttrs).data_type("str"),
            value
        );
        let ids = batch.arrow_payloads.iter();
        schema_ids.push(
            ids.map(|payload| payload.schema_id.clone())
                .collect::<Vec<_>>(),
        );
    }
    let expected = [
        ["1", "2"],
        ["1", "2"],
        ["3", "2"],
        ["3", "2"],
        ["3", "2"],
        ["4", "5"],
        ["4", "5"],
    ];
    assert_eq!(schema_ids, expected);
}

/// What the second and third batch's root holds: two new values, then none.
fn updates(dictionaries: Dictionaries) -> [Vec<Message>; 2] {
    let (mut producer, mut reader) = (producer(dictionaries), Reader::default());
    reader.read(&producer.logs(&numbered(0..5)).unwrap());
    [3..7, 3..7].map(|numbers| {
        let batch = producer.logs(&numbered(numbers)).unwrap();
        let names = reader
            .read(&batch)
            .get(ArrowPayloadType::Logs)
            .texts("event_name");
        assert_eq!(names, ["event 3", "event 4", "event 5", "event 6"]);
        messages(&batch.arrow_payloads[0])
    })
}

/// Scenario: new values, then the same again, with each kind of dictionary.
/// Guarantees: deltas where it grows, replacements where that is asked for, and nothing where nothing is new.
#[test]
fn dictionaries_are_extended_or_replaced_as_asked() {
    let records = Message::Records { zstd: true };
    let delta = updates(Dictionaries::Delta);
    assert_eq!(delta, [vec![Message::Delta, records], vec![records]]);
    for replacing in [Dictionaries::Resend, Dictionaries::Renew] {
        let replaced = updates(replacing);
        assert_eq!(
            replaced,
            [vec![Message::Dictionary, records], vec![records]],
            "{replacing:?}"
        );
    }
    assert_eq!(
        updates(Dictionaries::Native),
        [vec![records], vec![records]]
    );
}

/// Scenario: a dictionary of one batch's values only, which others replace.
/// Guarantees: it holds no value of the batch before, and its keys do not become narrow again.
#[test]
fn renewed_dictionaries_hold_one_batch() {
    let (mut producer, mut reader) = (producer(Dictionaries::Renew), Reader::default());
    for (numbers, bits) in [(0..10, 8), (10..300, 16), (7..9, 16)] {
        let batch = producer.logs(&numbered(numbers.clone())).unwrap();
        let tables = reader.read(&batch);
        let root = tables.get(ArrowPayloadType::Logs);
        assert_eq!(root.data_type("event_name"), (DataType::Utf8, bits));
        let (_, column) = root.column("event_name").unwrap();
        let values = arrow::array::AsArray::as_any_dictionary(&column)
            .values()
            .len();
        assert_eq!(values, numbers.len());
        assert_eq!(
            root.text("event_name", 0),
            format!("event {}", numbers.start)
        );
    }
}
