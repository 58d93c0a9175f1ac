//! The message around a batch's tables, read in place.

use bytes::Bytes;

use super::PAYLOADS_MAX;
use crate::decode::DecodeError;
use crate::decode::protobuf::wire::{Fields, Value, malformed};
use crate::proto::arrow::{ArrowPayload, BatchArrowRecords};

/// Reads a `BatchArrowRecords` message; its payloads share its memory.
///
/// The number of payloads is bounded before there is memory for them: an empty one takes two bytes on the wire.
///
/// # Errors
/// [`DecodeError::Malformed`] when it is not one.
pub fn parse(message: &Bytes) -> Result<BatchArrowRecords, DecodeError> {
    let mut batch = BatchArrowRecords::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(id)) => batch.batch_id = id.cast_signed(),
            (2, Value::Bytes(_)) if batch.arrow_payloads.len() == PAYLOADS_MAX => {
                return malformed(format!("the batch has more than {PAYLOADS_MAX} payloads"));
            }
            (2, Value::Bytes(payload)) => {
                batch.arrow_payloads.push(self::payload(message, payload)?)
            }
            (3, Value::Bytes(headers)) => batch.headers = message.slice_ref(headers),
            (1..=3, _) => return malformed("a field of BatchArrowRecords has another wire type"),
            _ => {}
        }
    }
    Ok(batch)
}

fn payload(message: &Bytes, bytes: &[u8]) -> Result<ArrowPayload, DecodeError> {
    let mut payload = ArrowPayload::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(id)) => {
                let text = std::str::from_utf8(id);
                payload.schema_id = match text {
                    Ok(text) => text.to_owned(),
                    Err(_) => return malformed("a schema_id is not UTF-8"),
                };
            }
            (2, number @ Value::Varint(_)) => payload.r#type = number.int32()?,
            (3, Value::Bytes(record)) => payload.record = message.slice_ref(record),
            (1..=3, _) => return malformed("a field of ArrowPayload has another wire type"),
            _ => {}
        }
    }
    Ok(payload)
}

/// The `batch_id` that a message begins with, as every producer writes it: before the payloads, and not at all when it is 0.
/// For messages that are too large to be read.
#[must_use]
pub fn leading_batch_id(beginning: &[u8]) -> Option<i64> {
    match Fields::new(beginning).next() {
        Ok(Some((1, Value::Varint(id)))) => Some(id.cast_signed()),
        // A payload that goes on beyond what there is of it is no field.
        _ => (beginning.first() == Some(&PAYLOADS_KEY)).then_some(0),
    }
}

/// Field 2, with a length.
const PAYLOADS_KEY: u8 = 2 << 3 | 2;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn batch() -> BatchArrowRecords {
        let payload = |name: &str, number| ArrowPayload {
            schema_id: name.to_owned(),
            r#type: number,
            record: Bytes::from(name.to_owned().into_bytes()),
        };
        BatchArrowRecords {
            batch_id: 300,
            arrow_payloads: vec![payload("logs", 30), payload("attributes", 31)],
            headers: Bytes::from_static(b"headers"),
        }
    }

    /// Scenario: messages as a protobuf library writes them, the first batch of a stream among them, and with unknown fields.
    /// Guarantees: read as the library would; the payloads are parts of the message, no copies.
    #[test]
    fn a_message_is_read_in_place() {
        let first = BatchArrowRecords {
            batch_id: 0,
            ..batch()
        };
        for expected in [batch(), first, BatchArrowRecords::default()] {
            let mut bytes = expected.encode_to_vec();
            bytes.extend([15 << 3, 1]);
            let message = Bytes::from(bytes);
            let parsed = parse(&message).unwrap();
            assert_eq!(parsed, expected);
            for payload in parsed.arrow_payloads {
                assert!(message.as_ptr_range().contains(&payload.record.as_ptr()));
            }
        }
    }

    /// Scenario: payload types beyond 32 bits, beyond those there are, and negative.
    /// Guarantees: read as the library would: the low 32 bits count.
    #[test]
    fn a_payload_type_is_its_low_32_bits() {
        for wide in [30_u64, 1 << 32 | 30, 99, 1 << 31, u64::MAX] {
            let mut payload = vec![2 << 3];
            prost::encoding::encode_varint(wide, &mut payload);
            let mut bytes = vec![2 << 3 | 2, u8::try_from(payload.len()).unwrap()];
            bytes.extend(payload);
            let expected = BatchArrowRecords::decode(&*bytes).unwrap();
            assert_eq!(parse(&bytes.into()).unwrap(), expected, "{wide}");
        }
    }

    /// Scenario: a message cut off at every byte, and one with a payload too many.
    /// Guarantees: no panic; what is cut inside a field is refused, as is what has too many payloads, at once.
    #[test]
    fn a_broken_message_is_refused() {
        let whole = batch().encode_to_vec();
        for len in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..len]);
            if let Ok(parsed) = parse(&cut) {
                assert_eq!(parsed.encode_to_vec(), cut);
            }
        }
        let many = BatchArrowRecords {
            arrow_payloads: vec![ArrowPayload::default(); PAYLOADS_MAX + 1],
            ..BatchArrowRecords::default()
        };
        let error = parse(&many.encode_to_vec().into()).unwrap_err();
        assert!(error.to_string().contains("more than 32"), "{error}");
    }

    /// Scenario: the beginnings of messages, with and without an id, and of what is none.
    /// Guarantees: the id is known from the first bytes.
    #[test]
    fn the_id_stands_at_the_beginning() {
        let whole = batch().encode_to_vec();
        assert_eq!(leading_batch_id(&whole[..10]), Some(300));
        let first = BatchArrowRecords {
            batch_id: 0,
            ..batch()
        };
        assert_eq!(leading_batch_id(&first.encode_to_vec()[..10]), Some(0));
        assert_eq!(leading_batch_id(b""), None);
        assert_eq!(leading_batch_id(b"\xff"), None);
    }
}
