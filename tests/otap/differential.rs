//! What goes through our producer and the decoder of streams gives the rows that OTLP gives; and damage gives no others.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use otlake::decode::otap::message::parse;
use otlake::decode::otap::{OtapError, StreamDecoder};
use otlake::decode::{DecodeError, Encoding, decode};
use otlake::memory::Budget;
use otlake::otap_producer::{Dictionaries, Options, Producer};
use otlake::proto::arrow::BatchArrowRecords;
use otlake::proto::logs::v1::LogRecord;
use otlake::receive::retries::Retries;
use otlake::rows::Rows;
use otlake::signal::Signal;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use serde_json::Value;

use super::produced::{options, requests};
use crate::support::arbitrary::seeded;
use crate::support::otap_load::produce;
use crate::support::otlp::{Export, int, kv, resource};
use crate::support::rows::{RowTexts, assert_same};

/// When all of it was received.
const RECEIVED: i64 = 1_700_000_000_000_000_000;

/// More than any of these streams takes, bytes.
const BUDGET_BYTES: u64 = 1 << 30;

proptest! {
    #![proptest_config(seeded(400))]

    /// Scenario: random requests as the batches of one stream, written in every way that the producer has.
    /// Guarantees: each gives the rows of the same request over OTLP, in the same order, and the same refusals; only the order
    /// of events, links and exemplars may be another. All memory is given back.
    #[test]
    fn produced_streams_give_the_rows_of_otlp(requests in requests(), options in options()) {
        let budget = Budget::new(BUDGET_BYTES);
        let mut decoder = StreamDecoder::new(requests[0].signal(), &budget);
        let mut producer = Producer::new(options);
        for (place, request) in requests.iter().enumerate() {
            let message = Bytes::from(produce(&mut producer, request).encode_to_vec());
            let batch = parse(&message).unwrap();
            prop_assert_eq!(batch.batch_id, place as i64);
            prop_assert_eq!(decoder.headers(&batch.headers), Ok(vec![]));
            let rows = decoder.decode(&batch, RECEIVED, budget.empty()).unwrap();
            prop_assert_eq!(budget.reserved(), rows.reservation.bytes() + decoder.held_bytes());
            assert_as_over_otlp(&rows, request, place);
            drop(rows);
        }
        drop(decoder);
        prop_assert_eq!(budget.reserved(), 0);
    }

    /// Scenario: random requests, each on one stream behind others, and again on a new one.
    /// Guarantees: the same rows in the same order, down to events, links and exemplars: the digest by which a retry is
    /// recognised is the same.
    #[test]
    fn a_request_is_the_same_on_another_stream(requests in requests(), options in options()) {
        let signal = requests[0].signal();
        let budget = Budget::new(BUDGET_BYTES);
        let retries = Retries::new(Duration::from_secs(60), 1, Box::new(|_| {}));
        let mut producer = Producer::new(options.clone());
        let mut decoder = StreamDecoder::new(signal, &budget);
        for request in &requests {
            let batch = produce(&mut producer, request);
            let first = decoder.decode(&batch, RECEIVED, budget.empty()).unwrap();
            let again = produce(&mut Producer::new(options.clone()), request);
            let mut another = StreamDecoder::new(signal, &budget);
            let again = another.decode(&again, RECEIVED, budget.empty()).unwrap();
            assert_same(&texts(&again), &texts(&first), "the new stream");
            prop_assert_eq!(retries.digest_rows(signal, &again), retries.digest_rows(signal, &first));
        }
    }

    /// Scenario: streams of which some batches are damaged: bytes flipped, records cut off, payloads gone, twice, or under each
    /// other's types.
    /// Guarantees: no panic; where the stream is lost everything after has the same error and nothing is held any more; each
    /// sound batch that is taken gives the rows of OTLP, as long as nothing that it builds on was damaged; all memory is given
    /// back.
    #[test]
    fn damaged_streams_give_no_other_rows(
        requests in requests(),
        options in options(),
        damages in vec(prop_oneof![1 => Just(None), 1 => damage().prop_map(Some)], 4),
    ) {
        let budget = Budget::new(BUDGET_BYTES);
        let mut decoder = StreamDecoder::new(requests[0].signal(), &budget);
        // Every record then begins with its schema, and has all of its dictionaries.
        let builds_on_none = options.schema_reset_batches.is_some_and(|reset| reset.get() == 1);
        let mut producer = Producer::new(options);
        let mut is_sound = true;
        let mut lost = None;
        for (place, (request, damage)) in requests.iter().zip(&damages).enumerate() {
            let mut batch = produce(&mut producer, request);
            let was_damaged = damage.as_ref().is_some_and(|damage| damage.apply(&mut batch));
            is_sound = !was_damaged && (is_sound || builds_on_none);
            let message = Bytes::from(batch.encode_to_vec());
            let decoded = decoder.decode(&parse(&message).unwrap(), RECEIVED, budget.empty());
            match (&decoded, &lost) {
                (_, Some(lost)) => prop_assert_eq!(decoded.as_ref().err(), Some(lost)),
                (Ok(rows), None) => {
                    prop_assert_eq!(budget.reserved(), rows.reservation.bytes() + decoder.held_bytes());
                    if is_sound {
                        assert_as_over_otlp(rows, request, place);
                    }
                }
                (Err(error), None) => {
                    prop_assert!(!is_sound, "{}", error);
                    prop_assert!(!error.to_string().contains("panicked"), "{}", error);
                    if matches!(error, OtapError::Stream(_)) {
                        prop_assert_eq!((decoder.held_bytes(), decoder.readers()), (0, 0));
                        lost = Some(error.clone());
                    }
                }
            }
            drop(decoded);
            prop_assert_eq!(budget.reserved(), decoder.held_bytes());
        }
        prop_assert_eq!(decoder.headers(&[]).err(), lost);
        drop(decoder);
        prop_assert_eq!(budget.reserved(), 0);
    }

    /// Scenario: random requests as the batches of one stream, and each over OTLP, where there is little memory: from too little
    /// for any of them to enough for most.
    /// Guarantees: on both ways a request is refused as a whole, and only for want of memory, or gives the rows that it gives
    /// where there is enough. So do those behind a refused one while the stream goes on; a stream that is lost holds nothing.
    /// All memory is given back.
    #[test]
    fn little_memory_refuses_whole_requests(requests in requests(), options in options(), bits in 10..20) {
        let bytes = 1u64 << bits;
        let (budget, budget_otlp) = (Budget::new(bytes), Budget::new(bytes));
        let mut decoder = StreamDecoder::new(requests[0].signal(), &budget);
        let mut producer = Producer::new(options);
        let mut is_lost = false;
        for (place, request) in requests.iter().enumerate() {
            let batch = produce(&mut producer, request);
            match decoder.decode(&batch, RECEIVED, budget.empty()) {
                Ok(rows) => {
                    prop_assert!(!is_lost);
                    assert_as_over_otlp(&rows, request, place);
                }
                Err(OtapError::Batch(DecodeError::Memory(_))) => prop_assert!(!is_lost),
                Err(OtapError::Stream(DecodeError::Memory(_))) => {
                    is_lost = true;
                    prop_assert_eq!(decoder.held_bytes(), 0);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
            prop_assert_eq!(budget.reserved(), decoder.held_bytes());
            let body = request.to_protobuf();
            match decode(request.signal(), Encoding::Protobuf, &body, RECEIVED, budget_otlp.empty()) {
                Ok(rows) => assert_as_over_otlp(&rows, request, place),
                Err(error) => prop_assert!(matches!(error, DecodeError::Memory(_)), "{}", error),
            }
            prop_assert_eq!(budget_otlp.reserved(), 0);
        }
        drop(decoder);
        prop_assert_eq!(budget.reserved(), 0);
    }
}

/// Scenario: batches with ever more distinct names and numbers, more than keys of 8 bits tell apart, then more than those of 16,
/// and old values again, under each kind of dictionary.
/// Guarantees: the rows of OTLP throughout.
#[test]
fn growing_dictionaries_give_the_rows_of_otlp() {
    for dictionaries in [
        Dictionaries::Delta,
        Dictionaries::Resend,
        Dictionaries::Renew,
    ] {
        let budget = Budget::new(BUDGET_BYTES);
        let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
        let mut producer = Producer::new(Options {
            dictionaries,
            ..Options::default()
        });
        for (place, numbers) in [0..200, 150..300, 0..1, 300..40_000, 39_000..66_000, 0..300]
            .into_iter()
            .enumerate()
        {
            let request = distinct(numbers);
            let batch = produce(&mut producer, &request);
            let rows = decoder.decode(&batch, RECEIVED, budget.empty()).unwrap();
            assert_as_over_otlp(&rows, &request, place);
        }
    }
}

/// A log record a number, named by it and with it as an attribute.
fn distinct(numbers: Range<i64>) -> Export {
    let records = numbers.map(|number| LogRecord {
        event_name: format!("event {number}"),
        attributes: vec![kv("number", int(number))],
        ..LogRecord::default()
    });
    Export::logs(resource(vec![]), Default::default(), records.collect())
}

/// What happens to a batch on its way.
#[derive(Clone, Debug)]
enum Damage {
    /// Bits of a record's byte turn over.
    Flip(Index, Index, u8),
    /// A record ends early.
    Cut(Index, Index),
    /// A payload does not arrive.
    Drop(Index),
    /// A payload arrives twice.
    Double(Index),
    /// Two payloads have each other's types.
    Swap(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<Index>;
    prop_oneof![
        4 => (place(), place(), 1..=u8::MAX).prop_map(|(payload, byte, bits)| Damage::Flip(payload, byte, bits)),
        2 => (place(), place()).prop_map(|(payload, byte)| Damage::Cut(payload, byte)),
        1 => place().prop_map(Damage::Drop),
        1 => place().prop_map(Damage::Double),
        1 => (place(), place()).prop_map(|(one, other)| Damage::Swap(one, other)),
    ]
}

impl Damage {
    /// Damages a batch; answers whether it is another one now.
    fn apply(&self, batch: &mut BatchArrowRecords) -> bool {
        let payloads = &mut batch.arrow_payloads;
        let count = payloads.len();
        if count == 0 {
            return false;
        }
        match self {
            Damage::Flip(payload, byte, bits) => {
                let payload = &mut payloads[payload.index(count)];
                let mut record = payload.record.to_vec();
                let byte = byte.index(record.len());
                record[byte] ^= bits;
                payload.record = record.into();
            }
            Damage::Cut(payload, byte) => {
                let record = &mut payloads[payload.index(count)].record;
                record.truncate(byte.index(record.len()));
            }
            Damage::Drop(payload) => drop(payloads.remove(payload.index(count))),
            Damage::Double(payload) => payloads.push(payloads[payload.index(count)].clone()),
            Damage::Swap(one, other) => {
                let (one, other) = (one.index(count), other.index(count));
                let swapped = payloads[one].r#type;
                payloads[one].r#type = payloads[other].r#type;
                payloads[other].r#type = swapped;
                return one != other;
            }
        }
        true
    }
}

fn assert_as_over_otlp(rows: &Rows, request: &Export, place: usize) {
    let budget = Budget::new(BUDGET_BYTES);
    let (signal, body) = (request.signal(), request.to_protobuf());
    let expected = decode(signal, Encoding::Protobuf, &body, RECEIVED, budget.empty());
    let expected = expected.unwrap();
    assert_eq!(rows.rejections, expected.rejections, "batch {place}");
    let what = format!("batch {place}");
    assert_same(&normalized(rows), &normalized(&expected), &what);
}

/// Rows, the lists of events, links and exemplars in them in one order.
fn normalized(rows: &Rows) -> RowTexts {
    let mut texts = texts(rows);
    texts.each(|_, row| {
        for name in ["events_json", "links_json", "exemplars_json"] {
            if let Some(list) = row.get_mut(name) {
                let mut items: Vec<Value> = serde_json::from_str(list).unwrap();
                items.sort_by_key(ToString::to_string);
                *list = Value::from(items).to_string();
            }
        }
    });
    texts
}

fn texts(rows: &Rows) -> RowTexts {
    let mut texts = RowTexts::default();
    texts.add(rows);
    texts
}
