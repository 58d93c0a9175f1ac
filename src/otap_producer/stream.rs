//! One table's IPC streams: one schema after the other, each with its own id.

use std::mem;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullBufferBuilder, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamWriter};

use super::options::{Compression, Dictionaries, Options};
use super::{Built, ProduceError};
use crate::proto::arrow::{ArrowPayload, ArrowPayloadType};

/// Level of Zstandard: its default, which the collector's exporter has too.
const ZSTD_LEVEL: i32 = 3;

/// What the tables of a stream share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) options: Options,
    /// How many schema ids were given out.
    schema_ids: u64,
    /// The payloads of the batch so far.
    pub(super) payloads: Vec<ArrowPayload>,
}

impl Session {
    pub(super) fn new(options: Options) -> Session {
        Session {
            options,
            schema_ids: 0,
            payloads: Vec::new(),
        }
    }
}

/// The IPC streams of one table, of which one is being written.
pub(super) struct Stream {
    payload_type: ArrowPayloadType,
    /// How many streams there were.
    begun: u64,
    current: Option<Current>,
}

struct Current {
    schema: SchemaRef,
    schema_id: String,
    batches: u64,
    writer: StreamWriter<Vec<u8>>,
}

impl Stream {
    pub(super) fn new(payload_type: ArrowPayloadType) -> Stream {
        Stream {
            payload_type,
            begun: 0,
            current: None,
        }
    }

    /// Adds the table's payload to the batch, if the table has rows.
    ///
    /// Another schema than that of the batch before begins a new IPC stream, with a new schema id.
    pub(super) fn write(
        &mut self,
        columns: impl IntoIterator<Item = Built>,
        rows: usize,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        if rows == 0 {
            return Ok(());
        }
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().flatten().unzip();
        let schema = Arc::new(Schema::new(fields));
        let reset = session.options.schema_reset_batches;
        let is_continued = |current: &Current| {
            current.schema == schema && reset.is_none_or(|reset| current.batches < reset.get())
        };
        let mut current = match self.current.take() {
            Some(current) if is_continued(&current) => current,
            _ => self.begin(&schema, session)?,
        };
        current.batches += 1;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let table = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let count = session.options.record_batches;
        for (offset, length) in cut(rows, count) {
            current.writer.write(&table.slice(offset, length))?;
        }
        session.payloads.push(ArrowPayload {
            schema_id: current.schema_id.clone(),
            r#type: self.payload_type.into(),
            record: mem::take(current.writer.get_mut()).into(),
        });
        self.current = Some(current);
        Ok(())
    }

    /// Begins an IPC stream; its schema message is what the writer holds then.
    fn begin(&mut self, schema: &SchemaRef, session: &mut Session) -> Result<Current, ArrowError> {
        self.begun += 1;
        session.schema_ids += 1;
        let id = if session.options.shared_schema_ids {
            self.begun
        } else {
            session.schema_ids
        };
        let options = write_options(&session.options)?;
        Ok(Current {
            schema: Arc::clone(schema),
            schema_id: id.to_string(),
            batches: 0,
            writer: StreamWriter::try_new_with_options(Vec::new(), schema, options)?,
        })
    }
}

fn write_options(options: &Options) -> Result<IpcWriteOptions, ArrowError> {
    let handling = match options.dictionaries {
        Dictionaries::Delta => DictionaryHandling::Delta,
        _ => DictionaryHandling::Resend,
    };
    let write = IpcWriteOptions::default().with_dictionary_handling(handling);
    match options.compression {
        Compression::None => Ok(write),
        Compression::Zstd => write
            .try_with_compression(Some(CompressionType::ZSTD))?
            .try_with_compression_level(Some(ZSTD_LEVEL)),
    }
}

/// Offset and length of the pieces of a table, none of them empty.
fn cut(rows: usize, pieces: NonZeroUsize) -> impl Iterator<Item = (usize, usize)> {
    let length = rows.div_ceil(pieces.get()).max(1);
    (0..rows)
        .step_by(length)
        .map(move |offset| (offset, length.min(rows - offset)))
}

/// A struct of those columns that are there, or `None` if none is.
pub(super) fn group(
    name: &str,
    columns: impl IntoIterator<Item = Built>,
    nulls: Option<NullBuffer>,
) -> Result<Built, ProduceError> {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().flatten().unzip();
    if columns.is_empty() {
        return Ok(None);
    }
    let array = StructArray::try_new(Fields::from(fields), columns, nulls)?;
    let data_type = arrow::array::Array::data_type(&array).clone();
    Ok(Some((Field::new(name, data_type, true), Arc::new(array))))
}

/// Which rows of a struct are there.
pub(super) struct Presence {
    is_seen: bool,
    len: usize,
    nulls: NullBufferBuilder,
}

impl Presence {
    pub(super) fn new() -> Presence {
        Presence {
            is_seen: false,
            len: 0,
            nulls: NullBufferBuilder::new(0),
        }
    }

    /// Says that the row, which comes after all that were named, is there.
    pub(super) fn set(&mut self, row: usize) {
        self.is_seen = true;
        self.nulls.append_n_nulls(row - self.len);
        self.nulls.append_non_null();
        self.len = row + 1;
    }

    /// Whether the struct's column has a reason to be there.
    pub(super) fn is_needed(&self, options: &Options) -> bool {
        self.is_seen || !options.late_columns
    }

    /// The nulls of a batch with so many rows; begins the next batch.
    pub(super) fn finish(&mut self, rows: usize) -> Option<NullBuffer> {
        self.nulls.append_n_nulls(rows - self.len);
        self.len = 0;
        self.nulls.finish()
    }
}
