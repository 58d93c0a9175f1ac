//! One request's rows as a frame's payload, and back.
//!
//! ```text
//! head's length (u32)  BatchHead  zeros up to 8  { Arrow IPC message  [ Arrow IPC message ] } of each table
//! ```
//! The second message is there when columns have the same value in every row; it has them once.
//!
//! Writing shares the batches' own buffers. Reading trusts nothing: the checksum says that the bytes are those that were
//! written, not that they make sense.

mod columns;
mod encode;
mod layout;
mod message;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use prost::Message as _;

use self::columns::{Written, at, part_of, restore};
use self::encode::Pieces;
use super::digest::Digest;
use super::frame::{ALIGNMENT, PAYLOAD_BYTES_MAX};
use super::records::{BatchHead, Column, Part, TableSchema};
use crate::rows::schema::{Kind, columns as table_columns};
use crate::signal::Table;

/// Payloads up to this size are copied together: so many little pieces cost more to write than to copy.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// A head has a digest, and for each table its name and the places of its columns: less than a tenth of this.
const HEAD_BYTES_MAX: usize = 16 << 10;

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

/// Encodes the rows of one request.
///
/// # Errors
/// [`ArrowError`] when the rows cannot be written as Arrow IPC, or are larger than a frame can be.
pub fn encode(
    batches: &[(Table, RecordBatch)],
    digest: Option<Digest>,
) -> Result<EncodedBatch, ArrowError> {
    let mut pieces = Pieces::new();
    let mut head = BatchHead {
        digest: digest.map_or_else(Vec::new, |digest| digest.to_bytes().to_vec()),
        parts: Vec::with_capacity(batches.len()),
    };
    for (table, batch) in batches {
        let Written {
            columns,
            constant_columns,
        } = Written::new(batch);
        head.parts.push(Part {
            table: table.name().to_owned(),
            rows: batch.num_rows() as u64,
            bytes: pieces.message(at(batch, &columns), batch.num_rows())?,
            constant_bytes: match constant_columns.is_empty() {
                true => 0,
                false => pieces.message(at(batch, &constant_columns), 1)?,
            },
            columns,
            constant_columns,
        });
    }
    let head = encode_head(&head);
    let bytes = head.len() + pieces.bytes();
    if bytes as u64 > PAYLOAD_BYTES_MAX {
        return Err(ArrowError::IpcError(format!(
            "the rows of one request take {bytes} bytes, a journal frame holds {PAYLOAD_BYTES_MAX}"
        )));
    }
    let parts = pieces.with_head(head, COPIED_BYTES_MAX);
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

/// The columns of all tables, for a segment's start.
pub(super) fn table_schemas() -> Vec<TableSchema> {
    let of = |table: Table| TableSchema {
        table: table.name().to_owned(),
        columns: table_columns(table)
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
    if len > HEAD_BYTES_MAX {
        return Err("the batch's head is longer than any head is".to_owned());
    }
    let head = rest.get(..len).ok_or("the batch ends inside its head")?;
    let head = BatchHead::decode(head).map_err(|error| format!("the batch's head: {error}"))?;
    let begin = (4 + len).next_multiple_of(ALIGNMENT);
    Ok((head, begin))
}

/// Reads the rows of a payload, in the columns of this otlake.
pub(super) fn decode(
    payload: &Buffer,
    schemas: &Schemas,
) -> Result<(BatchHead, Vec<(Table, RecordBatch)>), String> {
    let (head, begin) = decode_head(payload)?;
    let mut messages = Messages { payload, at: begin };
    let mut batches = Vec::new();
    for part in &head.parts {
        let table = Table::from_name(&part.table)
            .ok_or_else(|| format!("the batch is for the unknown table {:?}", part.table))?;
        let written = schemas
            .tables
            .get(&table)
            .ok_or_else(|| format!("the segment has no columns for {table}"))?;
        let batch = messages.next(part.bytes, &part_of(written, &part.columns)?)?;
        if batch.num_rows() as u64 != part.rows {
            return Err(format!(
                "the batch has {} rows for {table} and should have {}",
                batch.num_rows(),
                part.rows
            ));
        }
        let constants = if part.constant_columns.is_empty() {
            None
        } else {
            let schema = part_of(written, &part.constant_columns)?;
            let constants = messages.next(part.constant_bytes, &schema)?;
            Some(constants).filter(|constants| constants.num_rows() == 1)
        };
        if constants.is_none() && !part.constant_columns.is_empty() {
            return Err(format!("the constant columns for {table} are not one row"));
        }
        batches.push((table, restore(table, &batch, constants.as_ref())?));
    }
    Ok((head, batches))
}

/// The messages behind a payload's head, one after the other.
struct Messages<'a> {
    payload: &'a Buffer,
    at: usize,
}

impl Messages<'_> {
    fn next(&mut self, bytes: u64, schema: &SchemaRef) -> Result<RecordBatch, String> {
        let bytes = usize::try_from(bytes).map_err(|error| error.to_string())?;
        let end = self.at.checked_add(bytes);
        let end = end
            .filter(|end| *end <= self.payload.len())
            .ok_or("the batch ends inside a table's message")?;
        let message = self.payload.slice_with_length(self.at, bytes);
        self.at = end;
        message::decode(&message, schema)
    }
}
