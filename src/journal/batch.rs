//! One request's rows as a frame's payload, and back.
//!
//! ```text
//! head's length (u32)  BatchHead  zeros up to 8  { continuation, metadata, body of one table's Arrow IPC message } ...
//! ```
//! Writing shares the batches' own buffers. Reading trusts nothing: the checksum says that the bytes are those that were
//! written, not that they make sense.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_ipc::{MessageHeader, MetadataVersion};
use prost::Message as _;

use super::digest::Digest;
use super::frame::{ALIGNMENT, PAYLOAD_BYTES_MAX};
use super::records::{BatchHead, Column, Part, TableSchema};
use crate::rows::schema::{Kind, columns, schema};
use crate::signal::Table;

/// Payloads up to this size are copied together: so many little pieces cost more to write than to copy.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// Marks the beginning of an encapsulated IPC message, before its metadata's length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// What stands before a message's metadata: the continuation mark and the metadata's length.
const MESSAGE_PREFIX_BYTES: usize = 8;

/// A request's rows, ready to be written.
#[derive(Debug)]
pub struct EncodedBatch {
    /// The payload in pieces; most are the rows' own buffers.
    pub(super) parts: Vec<Buffer>,
    /// The payload's length, bytes.
    pub(super) bytes: u32,
    /// The payload's CRC32C.
    pub(super) crc32c: u32,
}

impl EncodedBatch {
    /// The payload's length, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }
}

thread_local! {
    /// An encoder a table, past its schema message.
    static ENCODERS: RefCell<[Option<StreamEncoder>; Table::ALL.len()]> = const { RefCell::new([const { None }; Table::ALL.len()]) };
}

/// Encodes the rows of one request.
///
/// # Errors
/// [`ArrowError`] when the rows cannot be written as Arrow IPC, or are larger than a frame can be.
pub fn encode(
    batches: &[(Table, RecordBatch)],
    digest: Option<Digest>,
) -> Result<EncodedBatch, ArrowError> {
    let mut messages = Vec::new();
    let mut head = BatchHead {
        digest: digest.map_or_else(Vec::new, |digest| digest.to_bytes().to_vec()),
        parts: Vec::with_capacity(batches.len()),
    };
    for (table, batch) in batches {
        let message = encode_table(*table, batch)?;
        head.parts.push(Part {
            table: table.name().to_owned(),
            rows: batch.num_rows() as u64,
            bytes: message.iter().map(|part| part.len() as u64).sum(),
        });
        messages.extend(message);
    }
    let head = encode_head(&head);
    let bytes = head.len() + messages.iter().map(Buffer::len).sum::<usize>();
    if bytes as u64 > PAYLOAD_BYTES_MAX {
        return Err(ArrowError::IpcError(format!(
            "the rows of one request take {bytes} bytes, a journal frame holds {PAYLOAD_BYTES_MAX}"
        )));
    }
    let parts = if bytes <= COPIED_BYTES_MAX {
        let mut copied = Vec::with_capacity(bytes);
        copied.extend_from_slice(&head);
        for message in &messages {
            copied.extend_from_slice(message);
        }
        vec![Buffer::from_vec(copied)]
    } else {
        let mut parts = vec![Buffer::from_vec(head)];
        parts.extend(messages);
        parts
    };
    let crc32c = parts
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    Ok(EncodedBatch {
        parts,
        bytes: u32::try_from(bytes).map_err(|error| ArrowError::IpcError(error.to_string()))?,
        crc32c,
    })
}

fn encode_head(head: &BatchHead) -> Vec<u8> {
    let message = head.encode_to_vec();
    // Sixteen bytes of digest and a few words a table.
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend(message);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

fn encode_table(table: Table, batch: &RecordBatch) -> Result<Vec<Buffer>, ArrowError> {
    ENCODERS.with_borrow_mut(|encoders| {
        let Some(slot) = encoders.get_mut(table.index()) else {
            return Ok(Vec::new());
        };
        let mut encoder = match slot.take() {
            Some(encoder) => encoder,
            None => new_encoder(table)?,
        };
        let message = encoder.encode(batch)?;
        *slot = Some(encoder);
        Ok(message)
    })
}

/// An encoder that has given its schema message: the segment's start has the columns.
fn new_encoder(table: Table) -> Result<StreamEncoder, ArrowError> {
    let schema = schema(table);
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut encoder = StreamEncoder::try_new_with_options(&schema, options)?;
    encoder.encode(&RecordBatch::new_empty(schema))?;
    Ok(encoder)
}

/// The columns of all tables, for a segment's start.
pub(super) fn table_schemas() -> Vec<TableSchema> {
    let of = |table: Table| TableSchema {
        table: table.name().to_owned(),
        columns: columns(table)
            .into_iter()
            .map(|(name, kind)| Column {
                name: name.to_owned(),
                kind: kind.sql().to_owned(),
            })
            .collect(),
    };
    Table::ALL.into_iter().map(of).collect()
}

/// The schemas that a segment was written with.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    tables: HashMap<Table, SchemaRef>,
}

impl Schemas {
    /// Understands the columns that a segment's start lists.
    pub(super) fn new(schemas: &[TableSchema]) -> Result<Schemas, String> {
        let mut tables = HashMap::new();
        for listed in schemas {
            let Some(table) = Table::from_name(&listed.table) else {
                continue;
            };
            let fields = listed.columns.iter().map(|column| {
                let kind = Kind::from_sql(&column.kind).ok_or_else(|| {
                    format!("{} has a column of type {}", listed.table, column.kind)
                })?;
                Ok(Field::new(&column.name, kind.arrow(), true))
            });
            let fields = fields.collect::<Result<Vec<_>, String>>()?;
            tables.insert(table, Arc::new(Schema::new(fields)));
        }
        Ok(Schemas { tables })
    }
}

/// The head of a payload and where its messages begin.
pub(super) fn decode_head(payload: &[u8]) -> Result<(BatchHead, usize), String> {
    let (len, rest) = payload
        .split_first_chunk::<4>()
        .ok_or("the batch has no head")?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|error| error.to_string())?;
    let head = rest.get(..len).ok_or("the batch ends inside its head")?;
    let head = BatchHead::decode(head).map_err(|error| format!("the batch's head: {error}"))?;
    let begin = (4 + len).next_multiple_of(ALIGNMENT);
    Ok((head, begin))
}

/// Reads the rows of a payload, in the columns of this otlake: one that the segment lacks is null.
pub(super) fn decode(
    payload: &Buffer,
    schemas: &Schemas,
) -> Result<(BatchHead, Vec<(Table, RecordBatch)>), String> {
    let (head, mut at) = decode_head(payload)?;
    let mut batches = Vec::new();
    for part in &head.parts {
        let table = Table::from_name(&part.table)
            .ok_or_else(|| format!("the batch is for the unknown table {:?}", part.table))?;
        let bytes = usize::try_from(part.bytes).map_err(|error| error.to_string())?;
        let end = at
            .checked_add(bytes)
            .filter(|end| *end <= payload.len())
            .ok_or("the batch ends inside a table's message")?;
        let written = schemas
            .tables
            .get(&table)
            .ok_or_else(|| format!("the segment has no columns for {table}"))?;
        let message = payload.slice_with_length(at, bytes);
        let batch = decode_message(&message, written)?;
        if batch.num_rows() as u64 != part.rows {
            return Err(format!(
                "the batch has {} rows for {table} and should have {}",
                batch.num_rows(),
                part.rows
            ));
        }
        batches.push((table, in_todays_columns(table, &batch)?));
        at = end;
    }
    Ok((head, batches))
}

/// Reads one encapsulated message.
///
/// arrow-ipc checks what the arrays hold, but slices buffers out of the body as the metadata says, and panics where
/// that is outside: so every buffer is held to the body first.
fn decode_message(message: &Buffer, schema: &SchemaRef) -> Result<RecordBatch, String> {
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

/// The batch in the columns that its table has today, each with buffers of its own.
fn in_todays_columns(table: Table, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let schema = schema(table);
    if batch.schema_ref().fields() == schema.fields() {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<Field>| -> ArrayRef {
        let found = batch.column_by_name(field.name());
        let found = found.filter(|column| column.data_type() == field.data_type());
        found.map_or_else(
            || new_null_array(field.data_type(), batch.num_rows()),
            Arc::clone,
        )
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())
}
