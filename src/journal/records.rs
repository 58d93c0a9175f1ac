//! The small payloads: protobuf messages, so that a later otlake can add fields and still read older segments.

use prost::Message;

use crate::signal::{CutCause, SealId};

/// Begins a segment.
#[derive(Clone, PartialEq, Message)]
pub struct Start {
    /// The segment's number, as in its file's name.
    #[prost(uint64, tag = "1")]
    pub segment: u64,
    /// When it was made, Unix milliseconds; for people.
    #[prost(int64, tag = "2")]
    pub created_unix_ms: i64,
    /// The otlake that made it; for people.
    #[prost(string, tag = "3")]
    pub version: String,
    /// The columns of each table's batches in this segment.
    #[prost(message, repeated, tag = "4")]
    pub schemas: Vec<TableSchema>,
    /// Requests that were remembered when the segment was made.
    #[prost(message, repeated, tag = "5")]
    pub remembered: Vec<Remembered>,
    /// Whether it is written over an older one, of which something can be left behind the last frame.
    #[prost(bool, tag = "6")]
    pub is_overwritten: bool,
}

/// The columns of a table's batches, in order. Kept here once, so that a batch needs no schema message of its own.
#[derive(Clone, PartialEq, Message)]
pub struct TableSchema {
    /// The table's name in the lake.
    #[prost(string, tag = "1")]
    pub table: String,
    /// Its columns.
    #[prost(message, repeated, tag = "2")]
    pub columns: Vec<Column>,
}

/// One column.
#[derive(Clone, PartialEq, Message)]
pub struct Column {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its type, as DuckDB calls it; docs/TABLES.md has the Arrow types.
    #[prost(string, tag = "2")]
    pub kind: String,
}

/// A request whose answer cannot have reached its client.
#[derive(Clone, PartialEq, Message)]
pub struct Remembered {
    /// Its digest, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub digest: Vec<u8>,
    /// How long it is to be remembered further, milliseconds.
    #[prost(uint64, tag = "2")]
    pub left_ms: u64,
}

/// What stands before the batches of a request.
#[derive(Clone, PartialEq, Message)]
pub struct BatchHead {
    /// The request's digest, 16 bytes; empty when requests are not remembered.
    #[prost(bytes = "vec", tag = "1")]
    pub digest: Vec<u8>,
    /// The tables' batches, in the order of their messages.
    #[prost(message, repeated, tag = "2")]
    pub parts: Vec<Part>,
}

impl BatchHead {
    /// Rows over all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let sum = |rows: u64, part: &Part| rows.saturating_add(part.rows);
        self.parts.iter().fold(0, sum)
    }
}

/// One table's batch.
#[derive(Clone, PartialEq, Message)]
pub struct Part {
    /// The table's name in the lake.
    #[prost(string, tag = "1")]
    pub table: String,
    /// Its rows.
    #[prost(uint64, tag = "2")]
    pub rows: u64,
    /// The length of the encapsulated Arrow IPC message with the columns that are written out, bytes.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// Which of the segment's columns these are, by their place; one at least.
    #[prost(uint32, repeated, tag = "4")]
    pub columns: Vec<u32>,
    /// The length of the message after it, with one row of the columns that have the same value in every row, bytes.
    #[prost(uint64, tag = "5")]
    pub constant_bytes: u64,
    /// Which columns those are. All others are null in every row.
    #[prost(uint32, repeated, tag = "6")]
    pub constant_columns: Vec<u32>,
}

/// A seal was cut.
#[derive(Clone, PartialEq, Message)]
pub struct Cut {
    /// The seal's number.
    #[prost(uint64, tag = "1")]
    pub seal_id: u64,
    /// The last batch it holds.
    #[prost(uint64, tag = "2")]
    pub through: u64,
    /// Why: `size`, `age`, `flush` or `stop`.
    #[prost(string, tag = "3")]
    pub cause: String,
    /// Receipt of the oldest row, Unix milliseconds.
    #[prost(int64, tag = "4")]
    pub opened_unix_ms: i64,
    /// The cut, Unix milliseconds.
    #[prost(int64, tag = "5")]
    pub sealed_unix_ms: i64,
}

/// What became known of a request after it was journaled.
#[derive(Clone, PartialEq, Message)]
pub struct Note {
    /// Digests, 16 bytes each, of requests whose answer cannot have reached their client.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub undelivered: Vec<Vec<u8>>,
    /// Digests, 16 bytes each, of remembered requests whose retry came.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub repeated: Vec<Vec<u8>>,
}

/// Batches that a repair gave up.
#[derive(Clone, PartialEq, Message)]
pub struct Gap {
    /// The last batch that is missing; the first is the one after the frame's own sequence.
    #[prost(uint64, tag = "1")]
    pub through: u64,
}

/// A cut, as it is written and found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRecord {
    /// The seal's number.
    pub seal: SealId,
    /// The sequence of the last batch it holds.
    pub through: u64,
    /// Why it was cut.
    pub cause: CutCause,
    /// Receipt of its oldest row, Unix milliseconds.
    pub opened_unix_ms: i64,
    /// The cut, Unix milliseconds.
    pub sealed_unix_ms: i64,
}

impl From<CutRecord> for Cut {
    fn from(record: CutRecord) -> Cut {
        Cut {
            seal_id: record.seal.0,
            through: record.through,
            cause: record.cause.name().to_owned(),
            opened_unix_ms: record.opened_unix_ms,
            sealed_unix_ms: record.sealed_unix_ms,
        }
    }
}

impl Cut {
    /// The cut, if its cause is one that this otlake knows.
    #[must_use]
    pub fn record(&self) -> Option<CutRecord> {
        Some(CutRecord {
            seal: SealId(self.seal_id),
            through: self.through,
            cause: CutCause::from_name(&self.cause)?,
            opened_unix_ms: self.opened_unix_ms,
            sealed_unix_ms: self.sealed_unix_ms,
        })
    }
}
