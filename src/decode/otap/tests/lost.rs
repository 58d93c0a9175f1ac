//! What loses a stream, and what is one batch's alone.

use super::*;

const ATTRS: ArrowPayloadType = ArrowPayloadType::LogAttrs;

/// A stream of logs with attributes, whose dictionary grows with each batch.
struct Growing {
    producer: Producer,
    values: Vec<String>,
}

impl Growing {
    fn new() -> Growing {
        Growing {
            producer: Producer::new(&logs(0, &[], &[]).schema()),
            values: Vec::new(),
        }
    }

    /// A record whose one row has the newest value.
    fn next(&mut self) -> Bytes {
        self.values.push(format!("value {}", self.values.len()));
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let newest = u8::try_from(values.len() - 1).unwrap();
        self.producer.record(&[logs(0, &[newest], &values)])
    }

    fn check(&mut self, decoder: &mut StreamDecoder) {
        let record = self.next();
        let tables = decoder.read(&batch_of(vec![payload(ATTRS, "1", record)]), 0);
        let tables = tables.unwrap();
        let newest = self.values.last().unwrap().clone();
        assert_eq!(texts(tables.get(ATTRS).unwrap()), [Some(newest)]);
    }
}

/// Scenario: payloads that are refused, before and behind one that brings a delta; then the stream goes on.
/// Guarantees: the batch is refused, the delta was taken all the same, and no memory stays with the batch.
#[test]
fn a_refused_batch_leaves_the_stream_intact() {
    let junk = Bytes::from_static(b"junk");
    let with_number = |number| ArrowPayload {
        schema_id: "1".to_owned(),
        r#type: number,
        record: junk.clone(),
    };
    let long_id = "x".repeat(SCHEMA_ID_BYTES_MAX + 1);
    let refusals = [
        (with_number(0), "UNKNOWN is not taken in a stream of logs"),
        (with_number(25), "MULTIVARIATE_METRICS is not taken"),
        (with_number(40), "SPANS is not taken"),
        (with_number(99), "no payload type 99"),
        (with_number(-1), "no payload type -1"),
        (
            payload(ATTRS, &long_id, junk.clone()),
            "129 bytes, limit 128",
        ),
    ];
    let budget = budget();
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    let mut growing = Growing::new();
    growing.check(&mut decoder);
    for (wrong, expected) in refusals {
        for is_first in [true, false] {
            let mut payloads = vec![payload(ATTRS, "1", growing.next()), wrong.clone()];
            if is_first {
                payloads.reverse();
            }
            let what = refused(&mut decoder, &batch_of(payloads));
            assert!(what.contains(expected), "{what}");
            assert_eq!(budget.reserved(), decoder.held_bytes());
            growing.check(&mut decoder);
        }
    }
}

/// Scenario: one type comes twice, under one id and under two.
/// Guarantees: the batch is refused, both payloads were read.
#[test]
fn a_type_that_comes_twice_is_refused_after_it_was_read() {
    let mut decoder = decoder();
    let (mut growing, mut other) = (Growing::new(), Growing::new());
    growing.check(&mut decoder);
    let twice = vec![
        payload(ATTRS, "1", growing.next()),
        payload(ATTRS, "1", growing.next()),
        payload(ATTRS, "2", other.next()),
    ];
    let what = refused(&mut decoder, &batch_of(twice));
    assert_eq!(what, "the batch has LOG_ATTRS twice");
    growing.check(&mut decoder);
    assert_eq!(decoder.readers(), 2);
}

/// Scenario: each signal's stream gets every type there is.
/// Guarantees: a stream takes the attributes of resources and scopes and its own types, and no type is taken twice over.
#[test]
fn a_stream_takes_the_types_of_its_signal() {
    let numbers = 0..=50;
    let types: Vec<ArrowPayloadType> = numbers
        .filter_map(|number| ArrowPayloadType::try_from(number).ok())
        .collect();
    assert_eq!(types.len(), 28);
    let counts = Signal::ALL.map(|signal| types.iter().filter(|it| is_of(signal, **it)).count());
    assert_eq!(counts, [4, 8, 18]);
    assert!(counts.iter().all(|count| *count <= PAYLOADS_MAX));
}

/// Scenario: a payload behind a good one cannot be read; then good batches, headers and an empty batch come.
/// Guarantees: the stream is lost: the same error ever after, and nothing is held.
#[test]
fn a_payload_that_cannot_be_read_loses_the_stream() {
    let budget = budget();
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    let mut growing = Growing::new();
    growing.check(&mut decoder);
    assert!(budget.reserved() > 0);
    let payloads = vec![
        payload(ATTRS, "1", growing.next()),
        payload(ArrowPayloadType::Logs, "1", Bytes::from_static(b"junk")),
    ];
    let error = decoder.read(&batch_of(payloads), 0).unwrap_err();
    assert!(error.to_string().starts_with("payload LOGS: "), "{error}");
    assert_eq!((budget.reserved(), decoder.readers()), (0, 0));
    for _ in 0..2 {
        let batch = batch_of(vec![payload(ATTRS, "1", growing.next())]);
        assert_eq!(decoder.read(&batch, 0).unwrap_err(), error);
        let decoded = decoder.decode(&batch, 1, budget.empty());
        assert_eq!(decoded.unwrap_err(), error);
        assert_eq!(decoder.headers(&[0x82]).unwrap_err(), error);
    }
    assert_eq!(budget.reserved(), 0);
}

/// Scenario: a record of an id that never began; one whose schema is not first; bytes behind the end; a reader used after its
/// end; a delta of no dictionary; a dictionary of no column; a message of another kind.
/// Guarantees: each loses the stream, and says why.
#[test]
fn records_that_do_not_follow_lose_the_stream() {
    let batch = logs(0, &[0], &["a"]);
    let begun = || {
        let mut producer = Producer::new(&batch.schema());
        let record = producer.record(std::slice::from_ref(&batch));
        (producer, record)
    };
    let (mut producer, first) = begun();
    let next = producer.record(std::slice::from_ref(&batch));
    let delta = producer.record(&[logs(0, &[1], &["a", "b"])]);
    let ended = begun().0.last_record(&[]);
    let after = [&first[..], &ended[..], &next[..]].concat();
    // Streams that begin with a schema alone.
    let narrow = table_of(vec![(
        "id",
        Arc::new(UInt16Array::from(vec![1])) as ArrayRef,
    )]);
    let narrow = Producer::new(&narrow.schema()).record(&[]);
    let begins_empty = Producer::new(&batch.schema()).record(&[]);
    let cases = [
        (vec![next.clone()], "does not begin with a schema"),
        (vec![Bytes::new()], "begins no Arrow IPC stream"),
        (vec![[&first[..], &first].concat().into()], "not the first"),
        (vec![after.into()], "follow the end"),
        (
            vec![[&first[..], &ended].concat().into(), next.clone()],
            "does not begin with a schema",
        ),
        (vec![begins_empty, delta.clone()], "before it begins"),
        (vec![narrow, delta], "no column has the dictionary 0"),
    ];
    for (records, expected) in cases {
        let mut decoder = decoder();
        let (last, before) = records.split_last().unwrap();
        for record in before {
            decoder.read(&logs_batch("1", record.clone()), 0).unwrap();
        }
        let what = lost(&mut decoder, &logs_batch("1", last.clone()));
        assert!(what.contains(expected), "{what}, and not {expected}");
    }
}

/// Scenario: the budget has no room for what a batch's texts or its dictionary decompress to: now, or ever.
/// Guarantees: texts are the batch's alone, a dictionary loses the stream; retryable or not as it is; what is not the stream's
/// is given back.
#[test]
fn what_has_no_memory_is_refused() {
    let long = "x".repeat(100_000);
    let texts = StringArray::from(vec![long.as_str()]);
    let texts = table_of(vec![("body", Arc::new(texts) as ArrayRef)]);
    for (table, is_lost) in [(texts, false), (logs(0, &[0], &[&long]), true)] {
        let record = Producer::new(&table.schema()).record(&[table]);
        for (limit, others, beside, is_retryable) in [
            (50_000, 0, 0, false),
            (500_000, 450_000, 0, true),
            (500_000, 450_000, 450_000, false),
        ] {
            let budget = Budget::new(limit);
            let others = budget.reserve(others).unwrap();
            let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
            let error = decoder.read(&logs_batch("1", record.clone()), beside);
            let error = match error.unwrap_err() {
                OtapError::Stream(DecodeError::Memory(error)) if is_lost => error,
                OtapError::Batch(DecodeError::Memory(error)) if !is_lost => error,
                other => panic!("{other:?}"),
            };
            assert_eq!(error.is_retryable(), is_retryable);
            assert_eq!(budget.reserved(), others.bytes() + decoder.held_bytes());
        }
    }
}

/// Scenario: a record batch of text that is not UTF-8, behind a delta and before another record batch; then the stream goes on.
/// Guarantees: the batch is refused, the stream goes on with the delta; the same in a dictionary loses it.
#[test]
fn wrong_text_is_the_batchs_alone() {
    let table = |values: &[&str], keys: &[u8], text: &str| {
        table_of(vec![
            ("severity_text", dictionary(keys, values)),
            ("body", Arc::new(StringArray::from(vec![text])) as ArrayRef),
        ])
    };
    let wrong = |record: &Bytes, text: &[u8]| {
        let at = record.windows(text.len()).position(|bytes| bytes == text);
        let mut wrong = record.to_vec();
        wrong[at.unwrap()] = 0xff;
        Bytes::from(wrong)
    };
    let first = table(&["one"], &[0], "good");
    let mut producer = Producer::with(&first.schema(), None, DictionaryHandling::Delta);
    let mut decoder = decoder();
    read_logs(&mut decoder, "1", producer.record(&[first]));
    let record = producer.record(&[
        table(&["one", "two"], &[1], "wrong"),
        table(&["one", "two", "three"], &[2], "right"),
    ]);
    let what = refused(&mut decoder, &logs_batch("1", wrong(&record, b"wrong")));
    assert!(what.to_lowercase().contains("utf-8"), "{what}");
    let next = table(&["one", "two", "three", "four"], &[2], "next");
    let next = producer.record(&[next]);
    assert_eq!(texts(&read_logs(&mut decoder, "1", next)), some(&["three"]));
    let next = table(&["one", "two", "three", "four", "five"], &[4], "next");
    let next = producer.record(&[next]);
    lost(&mut decoder, &logs_batch("1", wrong(&next, b"five")));
}

/// Scenario: a batch's tables are read and dropped, with and without a dictionary.
/// Guarantees: their memory is taken as long as they are there; the dictionary's stays with the stream, and goes with it.
#[test]
fn the_memory_of_a_batch_goes_with_its_tables() {
    let budget = budget();
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    let batch = logs(0, &[0], &[&"x".repeat(50_000)]);
    let mut producer = Producer::new(&batch.schema());
    let record = producer.record(std::slice::from_ref(&batch));
    let tables = decoder.read(&logs_batch("1", record), 0).unwrap();
    let held = decoder.held_bytes();
    assert!(held > 50_000 && budget.reserved() > held + 50_000);
    drop(tables);
    assert_eq!(budget.reserved(), held);
    drop(decoder);
    assert_eq!(budget.reserved(), 0);
}

/// Scenario: a stream's decoder moves from thread to thread, as tasks do.
/// Guarantees: it can.
#[test]
fn a_decoder_can_be_sent() {
    fn can_be_sent<T: Send>(_: &T) {}
    can_be_sent(&decoder());
}
