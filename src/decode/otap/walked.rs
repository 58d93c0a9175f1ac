//! A batch whose Arrow messages are told apart and verified; nothing of it is read yet, and no state changed.

use super::prewalk::{Message, Messages};
use super::{PAYLOADS_MAX, SCHEMA_ID_BYTES_MAX, is_of, within};
use crate::decode::DecodeError;
use crate::proto::arrow::{ArrowPayload, ArrowPayloadType, BatchArrowRecords};
use crate::signal::Signal;

/// The messages of a batch.
#[derive(Debug)]
pub struct Walked<'a> {
    pub(super) payloads: Vec<Payload<'a>>,
    /// Why the batch is refused; its payloads are read all the same. The first reason counts.
    pub(super) refused: Option<DecodeError>,
    /// Why the stream is lost.
    pub(super) lost: Option<DecodeError>,
    weight: u64,
}

/// The messages of one payload.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    pub(super) of: ArrowPayloadType,
    pub(super) schema_id: &'a str,
    pub(super) messages: Vec<Message<'a>>,
    /// Whether they end their Arrow IPC stream.
    pub(super) is_ended: bool,
}

impl<'a> Walked<'a> {
    /// Finds the messages of a batch in a stream of `signal`.
    #[must_use]
    pub fn new(signal: Signal, batch: &'a BatchArrowRecords) -> Walked<'a> {
        let mut walked = Walked {
            payloads: Vec::with_capacity(batch.arrow_payloads.len().min(PAYLOADS_MAX)),
            refused: None,
            lost: None,
            weight: 0,
        };
        walked.lost = walked.walk(signal, &batch.arrow_payloads).err();
        walked
    }

    /// What decoding the batch may take: the bytes of its buffers once they are decompressed, as they claim themselves, and 64
    /// for each row of each table and dictionary.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    fn walk(&mut self, signal: Signal, payloads: &'a [ArrowPayload]) -> Result<(), DecodeError> {
        if payloads.len() > PAYLOADS_MAX {
            return Err(DecodeError::Malformed(format!(
                "the batch has {} payloads, limit {PAYLOADS_MAX}",
                payloads.len()
            )));
        }
        for payload in payloads {
            match taken_type(signal, payload) {
                Ok(of) => self.payload(of, payload)?,
                Err(what) => self.refuse(what),
            }
        }
        Ok(())
    }

    fn payload(
        &mut self,
        of: ArrowPayloadType,
        payload: &'a ArrowPayload,
    ) -> Result<(), DecodeError> {
        let mut walk = Messages::new(&payload.record);
        let mut messages = Vec::new();
        let malformed = |what| within(of, DecodeError::Malformed(what));
        while let Some(message) = walk.next().map_err(malformed)? {
            self.weight = self.weight.saturating_add(message.weight());
            messages.push(message);
        }
        if self.payloads.iter().any(|before| before.of == of) {
            self.refuse(format!("the batch has {} twice", of.as_str_name()));
        }
        self.payloads.push(Payload {
            of,
            schema_id: &payload.schema_id,
            messages,
            is_ended: walk.is_ended,
        });
        Ok(())
    }

    fn refuse(&mut self, what: String) {
        self.refused.get_or_insert(DecodeError::Malformed(what));
    }
}

/// The type of a payload, if such ones are read.
fn taken_type(signal: Signal, payload: &ArrowPayload) -> Result<ArrowPayloadType, String> {
    let bytes = payload.schema_id.len();
    if bytes > SCHEMA_ID_BYTES_MAX {
        return Err(format!(
            "a schema id has {bytes} bytes, limit {SCHEMA_ID_BYTES_MAX}"
        ));
    }
    let payload_type = ArrowPayloadType::try_from(payload.r#type)
        .map_err(|_| format!("there is no payload type {}", payload.r#type))?;
    if !is_of(signal, payload_type) {
        return Err(format!(
            "a payload {} is not taken in a stream of {signal}",
            payload_type.as_str_name()
        ));
    }
    Ok(payload_type)
}
