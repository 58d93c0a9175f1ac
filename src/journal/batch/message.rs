//! Reading one Arrow IPC message: a record batch without its schema.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_ipc::MessageHeader;
use arrow_ipc::reader::RecordBatchDecoder;

use super::layout;

/// Marks the beginning of an encapsulated IPC message, before its metadata's length.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];

/// What stands before a message's metadata: the continuation mark and the metadata's length.
pub(super) const MESSAGE_PREFIX_BYTES: usize = 8;

/// Reads one encapsulated message, whose metadata must be that of a batch as the journal writes it.
pub(super) fn decode(message: &Buffer, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let prefix = message
        .split_first_chunk::<MESSAGE_PREFIX_BYTES>()
        .ok_or("an Arrow message ends inside its prefix")?
        .0;
    let (mark, len) = prefix.split_at(4);
    if mark != CONTINUATION {
        return Err("an Arrow message does not begin with its mark".to_owned());
    }
    let len = len.try_into().map_or(0, u32::from_le_bytes);
    let body_at = usize::try_from(len)
        .ok()
        .and_then(|len| len.checked_add(MESSAGE_PREFIX_BYTES))
        .filter(|at| *at <= message.len())
        .ok_or("an Arrow message ends inside its metadata")?;
    let metadata = message
        .get(MESSAGE_PREFIX_BYTES..body_at)
        .unwrap_or_default();
    let parsed =
        arrow_ipc::root_as_message(metadata).map_err(|error| format!("Arrow metadata: {error}"))?;
    if parsed.header_type() != MessageHeader::RecordBatch {
        return Err("an Arrow message is not a record batch".to_owned());
    }
    let batch = parsed
        .header_as_record_batch()
        .ok_or("an Arrow message has no record batch")?;
    let body = message.slice(body_at);
    layout::check(&batch, &body, schema).map_err(|what| format!("Arrow batch: {what}"))?;
    let version = parsed.version();
    let dictionaries = HashMap::new();
    let read = || {
        RecordBatchDecoder::try_new(&body, batch, Arc::clone(schema), &dictionaries, &version)
            .and_then(RecordBatchDecoder::read_record_batch)
    };
    // The last net: what was checked is what is known to make arrow-ipc panic.
    std::panic::catch_unwind(AssertUnwindSafe(read))
        .map_err(|_| "Arrow batch: reading it panicked".to_owned())?
        .map_err(|error| format!("Arrow batch: {error}"))
}
