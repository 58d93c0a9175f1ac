//! One Arrow IPC message: a record batch without its schema.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_ipc::{MessageHeader, MetadataVersion};

use super::super::frame::ALIGNMENT;

/// Marks the beginning of an encapsulated IPC message, before its metadata's length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// What stands before a message's metadata: the continuation mark and the metadata's length.
const MESSAGE_PREFIX_BYTES: usize = 8;

thread_local! {
    /// An encoder past its schema message: the segment's start has the columns. Messages of any columns go through it.
    static ENCODER: RefCell<Option<StreamEncoder>> = const { RefCell::new(None) };
}

/// Encodes a batch. The pieces share its buffers.
pub(super) fn encode(batch: &RecordBatch) -> Result<Vec<Buffer>, ArrowError> {
    ENCODER.with_borrow_mut(|slot| {
        let mut encoder = match slot.take() {
            Some(encoder) => encoder,
            None => new_encoder()?,
        };
        let message = encoder.encode(batch)?;
        *slot = Some(encoder);
        Ok(message)
    })
}

fn new_encoder() -> Result<StreamEncoder, ArrowError> {
    let schema = Arc::new(Schema::empty());
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut encoder = StreamEncoder::try_new_with_options(&schema, options)?;
    encoder.encode(&RecordBatch::new_empty(schema))?;
    Ok(encoder)
}

/// Reads one encapsulated message.
///
/// arrow-ipc checks what the arrays hold, but slices buffers out of the body as the metadata says, and panics where
/// that is outside: so every buffer is held to the body first.
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
    check_layout(&batch, body.len(), schema)?;
    let version = parsed.version();
    let dictionaries = HashMap::new();
    RecordBatchDecoder::try_new(&body, batch, Arc::clone(schema), &dictionaries, &version)
        .and_then(RecordBatchDecoder::read_record_batch)
        .map_err(|error| format!("Arrow batch: {error}"))
}

/// Whether the metadata of a batch stays inside its body.
fn check_layout(
    batch: &arrow_ipc::RecordBatch<'_>,
    body_bytes: usize,
    schema: &Schema,
) -> Result<(), String> {
    if batch.compression().is_some() {
        return Err("an Arrow batch is compressed, which no journal writes".to_owned());
    }
    let body_bytes = i64::try_from(body_bytes).map_err(|error| error.to_string())?;
    for buffer in batch.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        let fits = buffer.offset() >= 0
            && buffer.length() >= 0
            && end.is_some_and(|end| end <= body_bytes);
        if !fits {
            return Err("a buffer of an Arrow batch is outside of its body".to_owned());
        }
    }
    // A row takes a bit at least, in whichever column: more rows than bits cannot be.
    let rows_max = body_bytes.saturating_mul(8).saturating_add(1);
    let is_count = |count: i64| (0..=rows_max).contains(&count);
    let nodes = batch.nodes().into_iter().flatten();
    let mut counts = nodes.flat_map(|node| [node.length(), node.null_count()]);
    let variadic = batch.variadicBufferCounts();
    let mut variadic_counts = variadic.iter().flatten();
    if !is_count(batch.length())
        || !counts.all(is_count)
        || !variadic_counts.all(is_count)
        || schema.fields().is_empty()
    {
        return Err("the counts of an Arrow batch cannot be".to_owned());
    }
    Ok(())
}
