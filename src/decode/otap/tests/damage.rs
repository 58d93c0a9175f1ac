//! Records of every kind of damage: no panic, and never more memory than the limits allow.

use super::*;
use arrow::array::{ListArray, StructArray};
use arrow::datatypes::UInt64Type;
use proptest::prelude::*;

/// A small table with each shape of buffers: fixed, texts, lists, dictionaries, structs. The texts are long enough to be
/// smaller when they are compressed, which they are not otherwise.
fn small() -> RecordBatch {
    let long = "text ".repeat(20);
    let entry = "entry ".repeat(20);
    let list =
        ListArray::from_iter_primitive::<UInt64Type, _, _>([Some(vec![Some(1), Some(2)]), None]);
    let child = Field::new("id", arrow::datatypes::DataType::UInt16, true);
    let resource = StructArray::new(
        vec![child].into(),
        vec![Arc::new(UInt16Array::from(vec![Some(1), None]))],
        None,
    );
    table_of(vec![
        ("resource", Arc::new(resource)),
        ("severity_text", dictionary(&[1, 9], &["abc", &entry])),
        (
            "body",
            Arc::new(StringArray::from(vec![long.as_str(), "é"])),
        ),
        ("list", Arc::new(list)),
    ])
}

/// Two records: one that begins a stream and one that goes on with a delta.
fn records(compression: Option<CompressionType>) -> [Bytes; 2] {
    let mut producer = Producer::with(&small().schema(), compression, DictionaryHandling::Delta);
    let first = producer.record(&[small()]);
    let mut columns = small().columns().to_vec();
    let (entry, other) = ("entry ".repeat(20), "other ".repeat(20));
    columns[1] = dictionary(&[2, 0], &["abc", &entry, &other]);
    let grown = RecordBatch::try_new(small().schema(), columns).unwrap();
    [first, producer.record(&[grown])]
}

/// Reads the records into one stream, whatever they are; panics that are caught count as panics.
fn read_all<'a>(records: impl IntoIterator<Item = &'a [u8]>) {
    let budget = budget();
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    for record in records {
        let batch = logs_batch("1", Bytes::copy_from_slice(record));
        match decoder.read(&batch, 0) {
            Ok(tables) => {
                if let Some(table) = tables.get(ArrowPayloadType::Logs) {
                    // What came through validation can be looked at.
                    let _ = format!("{table:?}");
                }
            }
            Err(OtapError::Stream(error)) => {
                assert!(!error.to_string().contains("panicked"), "{error}");
                assert_eq!(budget.reserved(), 0);
            }
            Err(OtapError::Batch(error)) => {
                assert!(!error.to_string().contains("panicked"), "{error}");
                assert_eq!(budget.reserved(), decoder.held_bytes());
            }
        }
    }
    drop(decoder);
    assert_eq!(budget.reserved(), 0);
}

/// Scenario: the records of these tests in each compression.
/// Guarantees: compression makes them smaller, so that there is something to damage in it.
#[test]
fn the_records_are_compressed() {
    let [plain, zstd, lz4] = COMPRESSIONS.map(|compression| records(compression)[0].len());
    assert!(zstd < plain && lz4 < plain, "{plain}, {zstd}, {lz4}");
}

/// Scenario: each record cut off at every byte, then one that is whole.
/// Guarantees: no panic; a record that ends inside a message loses the stream.
#[test]
fn records_cut_off_anywhere_are_errors() {
    for compression in COMPRESSIONS {
        let [first, second] = records(compression);
        let ends = |record: &Bytes| {
            let mut messages = Messages::new(record);
            let mut ends = vec![0];
            while messages.next().unwrap().is_some() {
                ends.push(messages.at);
            }
            ends
        };
        let firsts = ends(&first);
        for at in 1..first.len() {
            let cut = first.slice(..at);
            let mut decoder = decoder();
            let read = decoder.read(&logs_batch("1", cut), 0);
            assert_eq!(read.is_ok(), firsts.contains(&at), "at {at}");
            read_all([&first[..at], &second[..]]);
        }
        for at in 0..second.len() {
            read_all([&first[..], &second[..at], &second[..]]);
        }
    }
}

/// Scenario: each byte of each record changed in four ways.
/// Guarantees: no panic, and all memory is given back.
#[test]
fn records_with_any_byte_changed_do_not_panic() {
    for compression in COMPRESSIONS {
        let [first, second] = records(compression);
        for at in 0..first.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = first.to_vec();
                changed[at] ^= change;
                read_all([&changed[..], &second[..]]);
            }
        }
        for at in 0..second.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = second.to_vec();
                changed[at] ^= change;
                read_all([&first[..], &changed[..], &second[..]]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Scenario: several bytes and words of a record changed, at any alignment of the record in its message.
    /// Guarantees: no panic, and all memory is given back.
    #[test]
    fn records_with_much_changed_do_not_panic(
        compression in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![-1_i64, 0, 1, 8, 1 << 20, i64::MAX])),
            0..2,
        ),
        shift in 0..8_usize,
    ) {
        let [first, second] = records(COMPRESSIONS[compression]);
        let mut changed = vec![0; shift];
        changed.extend_from_slice(&first);
        for (at, byte) in changes {
            let at = shift + at.index(first.len());
            changed[at] = byte;
        }
        for (at, word) in words {
            let at = shift + at.index(first.len() / 8) * 8;
            changed[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let changed = Bytes::from(changed);
        read_all([&changed[shift..], &second[..]]);
    }
}
