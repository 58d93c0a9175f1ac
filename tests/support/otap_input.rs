//! Bytes of any kind as an OTAP stream: what the fuzzers feed, and the test that replays their corpora.
//!
//! | input | bytes |
//! |---|---|
//! | of [`batch`] | the signal; one `BatchArrowRecords` |
//! | of [`stream`] | the signal; `BatchArrowRecords` messages, each behind its length (varint) |
//! | of [`records`] | the payload type; records, each behind its length (u16) |

use bytes::Bytes;
use otlake::decode::otap::message::{leading_batch_id, parse};
use otlake::decode::otap::{OtapError, PAYLOADS_MAX, StreamDecoder};
use otlake::memory::Budget;
use otlake::proto::arrow::{ArrowPayload, ArrowPayloadType, BatchArrowRecords};
use otlake::signal::Signal;
use prost::Message as _;

/// What the streams of one input may take, bytes: enough for any honest input of the fuzzers' sizes.
const BUDGET_BYTES: u64 = 64 << 20;

/// Batches of one input: more take time and show nothing new.
const BATCHES_MAX: usize = 64;

/// So much of a message is enough to tell its id.
const BEGINNING_BYTES: usize = 64;

/// When the batches come.
const RECEIVED: i64 = 1_700_000_000_000_000_000;

/// One batch on a new stream.
pub fn batch(input: &[u8]) {
    let Some((signal, message)) = input.split_first() else {
        return;
    };
    if let Some(batch) = read(&Bytes::copy_from_slice(message)) {
        decode(signal_of(*signal), &[batch]);
    }
}

/// A sequence of batches on one stream, as far as they are protobuf.
pub fn stream(input: &[u8]) {
    let Some((signal, messages)) = input.split_first() else {
        return;
    };
    let mut rest = Bytes::copy_from_slice(messages);
    let mut batches = Vec::new();
    while !rest.is_empty() && batches.len() < BATCHES_MAX {
        let len = prost::decode_length_delimiter(&mut rest);
        let Some(len) = len.ok().filter(|len| *len <= rest.len()) else {
            break;
        };
        let Some(batch) = read(&rest.split_to(len)) else {
            break;
        };
        batches.push(batch);
    }
    decode(signal_of(*signal), &batches);
}

/// Records of one Arrow IPC stream, a batch each.
pub fn records(input: &[u8]) {
    let Some((payload_type, rest)) = input.split_first() else {
        return;
    };
    let payload_type = ArrowPayloadType::try_from(i32::from(*payload_type));
    let payload_type = payload_type.unwrap_or(ArrowPayloadType::ResourceAttrs);
    let mut rest = Bytes::copy_from_slice(rest);
    let mut batches = Vec::new();
    while rest.len() > 2 && batches.len() < BATCHES_MAX {
        let len = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        let _ = rest.split_to(2);
        let record = rest.split_to(len.min(rest.len()));
        let batch = BatchArrowRecords {
            arrow_payloads: vec![ArrowPayload {
                schema_id: "1".to_owned(),
                r#type: payload_type.into(),
                record,
            }],
            ..BatchArrowRecords::default()
        };
        let batch = read(&batch.encode_to_vec().into());
        batches.push(batch.expect("a library's message is one"));
    }
    for signal in Signal::ALL {
        decode(signal, &batches);
    }
}

fn signal_of(byte: u8) -> Signal {
    Signal::ALL[usize::from(byte) % Signal::ALL.len()]
}

/// A message as the server reads it, which must be as a protobuf library does. They may differ where groups nest to the limit
/// of 100, of which a library takes off what they stand in, and where there are more payloads than are taken.
fn read(message: &Bytes) -> Option<BatchArrowRecords> {
    match (parse(message), BatchArrowRecords::decode(message.clone())) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs);
            let written = theirs.encode_to_vec();
            let beginning = &written[..written.len().min(BEGINNING_BYTES)];
            let is_told = theirs.batch_id != 0 || !theirs.arrow_payloads.is_empty();
            let id = is_told.then_some(theirs.batch_id);
            assert_eq!(leading_batch_id(beginning), id);
            Some(ours)
        }
        (Ok(ours), Err(error)) => {
            assert!(error.to_string().contains("recursion limit"), "{error}");
            Some(ours)
        }
        (Err(error), Ok(theirs)) => {
            assert!(theirs.arrow_payloads.len() > PAYLOADS_MAX, "{error}");
            None
        }
        (Err(_), Err(_)) => {
            // Only the beginning of it may be there.
            let _ = leading_batch_id(message);
            None
        }
    }
}

/// Decodes the batches as one stream, and checks what holds whatever they are: memory is accounted for, a lost stream stays
/// lost, and no panic had to be caught.
fn decode(signal: Signal, batches: &[BatchArrowRecords]) {
    let budget = Budget::new(BUDGET_BYTES);
    let mut decoder = StreamDecoder::new(signal, &budget);
    let mut lost = None;
    for batch in batches {
        let headers = decoder.headers(&batch.headers);
        let decoded = decoder.decode(batch, RECEIVED, budget.empty());
        if let Ok(rows) = &decoded {
            assert_eq!(
                budget.reserved(),
                rows.reservation.bytes() + decoder.held_bytes()
            );
        }
        let error = headers.err().or(decoded.err());
        assert_eq!(budget.reserved(), decoder.held_bytes());
        if let Some(error) = &error {
            assert!(!error.to_string().contains("panicked"), "{error}");
        }
        if lost.is_some() {
            assert_eq!(error, lost);
        } else if matches!(error, Some(OtapError::Stream(_))) {
            assert_eq!((decoder.held_bytes(), decoder.readers()), (0, 0));
            lost = error;
        }
    }
    drop(decoder);
    assert_eq!(budget.reserved(), 0);
}
