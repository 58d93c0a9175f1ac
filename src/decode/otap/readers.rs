//! The Arrow IPC readers of one stream, one for each payload type and schema id.
//!
//! | a record | its reader |
//! |---|---|
//! | begins with a schema, its id is new | begins; the one of that type that was used longest ago goes, beyond [`READERS_PER_TYPE_MAX`] |
//! | begins with a schema, its id is known | begins anew, without dictionaries: a producer that went back to a schema it had given up |
//! | begins without a schema, its id is known | goes on: same schema, dictionaries as they are |
//! | begins without a schema, its id is new | the stream is lost |
//! | ends with the mark of a stream's end | is gone; the next record of that id must begin with a schema |
//!
//! A dictionary batch replaces the dictionary, or appends to it if it is a delta. Dictionaries are copied out of the record
//! that brought them, which would otherwise be held as a whole for some of its bytes.

use std::collections::HashMap;
use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_ipc::MessageHeader;

use super::batch;
use super::dictionary::append;
use super::held::Memory;
use super::inflate::inflate;
use super::prewalk::{self, Checked, DICTIONARY_ENTRIES_MAX, Message};
use super::walked::Payload;
use crate::decode::DecodeError;
use crate::proto::arrow::ArrowPayloadType;

/// Readers of one payload type. A producer goes on with one, and begins another when a column comes.
pub const READERS_PER_TYPE_MAX: usize = 4;

/// What a column's description takes in memory beside its texts, bytes.
const FIELD_BYTES: u64 = 256;

/// The batches of a record, in order; or why the first that cannot be taken cannot be. The reader goes on all the same: a
/// batch leaves nothing behind that those after it need, as dictionaries do.
pub(super) type Batches = Result<Vec<RecordBatch>, DecodeError>;

/// The readers of one stream, those used longest ago first.
#[derive(Debug, Default)]
pub(super) struct Readers {
    readers: Vec<Reader>,
}

impl Readers {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.readers.len()
    }

    /// Reads the messages of a record. Dictionaries and buffers take bytes of `memory`.
    ///
    /// # Errors
    /// [`DecodeError`]; the reader is gone then, and what the client sends for it next cannot be read.
    pub(super) fn read(
        &mut self,
        record: &Payload<'_>,
        memory: &mut Memory,
    ) -> Result<Batches, DecodeError> {
        let (payload_type, schema_id) = (record.of, record.schema_id);
        let mut batches = Ok(Vec::new());
        let mut reader = self.take(payload_type, schema_id);
        let mut is_first = true;
        for message in &record.messages {
            let kind = message.metadata.header_type();
            if kind == MessageHeader::Schema {
                if !is_first {
                    return Err(malformed("a schema is not the first of its messages"));
                }
                if let Some(given_up) = reader.take() {
                    memory.release(given_up.bytes());
                }
                reader = Some(Reader::begin(payload_type, schema_id, message, memory)?);
            } else {
                let reader = reader.as_mut().ok_or_else(|| {
                    malformed("it does not begin with a schema, and no record before it did")
                })?;
                match kind {
                    MessageHeader::DictionaryBatch => reader.read_dictionary(message, memory)?,
                    MessageHeader::RecordBatch => {
                        batches = batches.and_then(|mut batches: Vec<RecordBatch>| {
                            batches.push(reader.read_batch(message, memory)?);
                            Ok(batches)
                        });
                    }
                    other => {
                        return Err(malformed(&format!("an Arrow message is a {other:?}")));
                    }
                }
            }
            is_first = false;
        }
        match reader {
            Some(ended) if record.is_ended => memory.release(ended.bytes()),
            Some(reader) => self.put(reader, memory),
            None => return Err(malformed("it begins no Arrow IPC stream")),
        }
        Ok(batches)
    }

    fn take(&mut self, payload_type: ArrowPayloadType, schema_id: &str) -> Option<Reader> {
        let is_it =
            |reader: &Reader| reader.payload_type == payload_type && reader.schema_id == schema_id;
        let place = self.readers.iter().position(is_it)?;
        Some(self.readers.remove(place))
    }

    /// Puts a reader behind the others; the first of its type goes if there are too many.
    fn put(&mut self, reader: Reader, memory: &mut Memory) {
        let payload_type = reader.payload_type;
        self.readers.push(reader);
        let is_of_type = |reader: &Reader| reader.payload_type == payload_type;
        let count = self.readers.iter().filter(|it| is_of_type(it)).count();
        if count > READERS_PER_TYPE_MAX
            && let Some(oldest) = self.readers.iter().position(is_of_type)
        {
            memory.release(self.readers.remove(oldest).bytes());
        }
    }
}

/// One Arrow IPC stream.
#[derive(Debug)]
struct Reader {
    payload_type: ArrowPayloadType,
    schema_id: String,
    schema: SchemaRef,
    schema_bytes: u64,
    /// The type of each dictionary's values.
    value_types: HashMap<i64, DataType>,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Reader {
    fn begin(
        payload_type: ArrowPayloadType,
        schema_id: &str,
        message: &Message<'_>,
        memory: &mut Memory,
    ) -> Result<Reader, DecodeError> {
        let (schema, value_types) = prewalk::schema(message).map_err(DecodeError::Malformed)?;
        let schema_bytes = schema_id.len() as u64 + fields_bytes(schema.fields());
        memory.hold(schema_bytes)?;
        Ok(Reader {
            payload_type,
            schema_id: schema_id.to_owned(),
            schema: Arc::new(schema),
            schema_bytes,
            value_types,
            dictionaries: HashMap::new(),
        })
    }

    /// Bytes held of the stream's memory.
    fn bytes(&self) -> u64 {
        let dictionaries = self.dictionaries.values().map(array_bytes);
        self.schema_bytes + dictionaries.sum::<u64>()
    }

    fn read_dictionary(
        &mut self,
        message: &Message<'_>,
        memory: &mut Memory,
    ) -> Result<(), DecodeError> {
        let metadata = message.metadata.header_as_dictionary_batch();
        let metadata = metadata.ok_or_else(|| malformed("an Arrow message has no dictionary"))?;
        let batch = metadata.data();
        let batch = batch.ok_or_else(|| malformed("a dictionary has no values"))?;
        let id = metadata.id();
        let value_type = self.value_types.get(&id);
        let value_type =
            value_type.ok_or_else(|| malformed(&format!("no column has the dictionary {id}")))?;
        let before = self.dictionaries.get(&id);
        let is_delta = metadata.isDelta();
        if is_delta && before.is_none() {
            return Err(malformed(&format!(
                "dictionary {id} is appended to before it begins"
            )));
        }
        let bytes_before = before.map_or(0, array_bytes);
        let entries = before.filter(|_| is_delta).map_or(0, |before| before.len());
        let entries_new = usize::try_from(batch.length()).unwrap_or(usize::MAX);
        let entries = entries.saturating_add(entries_new);
        if entries > DICTIONARY_ENTRIES_MAX {
            return Err(malformed(&format!(
                "dictionary {id} has {entries} entries, limit {DICTIONARY_ENTRIES_MAX}"
            )));
        }
        let checked = prewalk::check_batch(&batch, &message.body, iter::once(value_type))
            .map_err(DecodeError::Malformed)?;
        let bytes_new = checked.bytes;
        memory.use_for_batch(bytes_new)?;
        // What is copied: both at once, and the tables read before may go on with the old one.
        memory.use_for_batch(bytes_before.saturating_add(bytes_new))?;
        let field = Field::new("values", value_type.clone(), true);
        let schema = Arc::new(Schema::new(vec![field]));
        let values = self.decode(message, batch, &checked, &schema)?;
        let values = values.columns().first();
        let values = values.ok_or_else(|| malformed("a dictionary has no values"))?;
        let before = match is_delta {
            true => self.dictionaries.remove(&id),
            false => None,
        };
        let before = before.unwrap_or_else(|| new_empty_array(value_type));
        let grown = guarded(|| append(before, values))?;
        memory.release(bytes_before);
        memory.hold(array_bytes(&grown))?;
        self.dictionaries.insert(id, grown);
        Ok(())
    }

    fn read_batch(
        &self,
        message: &Message<'_>,
        memory: &mut Memory,
    ) -> Result<RecordBatch, DecodeError> {
        let batch = message.metadata.header_as_record_batch();
        let batch = batch.ok_or_else(|| malformed("an Arrow message has no record batch"))?;
        let data_types = self.schema.fields().iter().map(|field| field.data_type());
        let checked = prewalk::check_batch(&batch, &message.body, data_types)
            .map_err(DecodeError::Malformed)?;
        memory.use_for_batch(checked.bytes)?;
        self.decode(message, batch, &checked, &self.schema)
    }

    fn decode(
        &self,
        message: &Message<'_>,
        batch: arrow_ipc::RecordBatch<'_>,
        checked: &Checked,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, DecodeError> {
        let buffers = inflate(checked, &message.body).map_err(DecodeError::Malformed)?;
        let nodes = batch.nodes().into_iter().flatten();
        guarded(|| batch::read(schema, checked.rows, nodes, buffers, &self.dictionaries))
    }
}

/// Makes one table of the batches of a payload; none if they have no rows.
pub(super) fn table(
    batches: &[RecordBatch],
    memory: &mut Memory,
) -> Result<Option<RecordBatch>, DecodeError> {
    let has_rows = |batch: &&RecordBatch| batch.num_rows() > 0;
    let batches: Vec<&RecordBatch> = batches.iter().filter(has_rows).collect();
    let (first, others) = match batches.as_slice() {
        [] => return Ok(None),
        [only] => return Ok(Some((*only).clone())),
        [first, others @ ..] => (*first, others),
    };
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    if rows > prewalk::ROWS_MAX {
        return Err(malformed(&format!(
            "its batches have {rows} rows, limit {}",
            prewalk::ROWS_MAX
        )));
    }
    for batch in iter::once(&first).chain(others) {
        for column in batch.columns() {
            memory.use_for_batch(slice_bytes(column))?;
        }
    }
    let schema = first.schema();
    guarded(|| arrow::compute::concat_batches(&schema, batches)).map(Some)
}

/// Makes arrays. The last net: what was checked before is what is known to make their constructors panic.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, DecodeError> {
    std::panic::catch_unwind(AssertUnwindSafe(read))
        .map_err(|_| malformed("reading an Arrow message panicked"))?
        .map_err(|error| malformed(&error.to_string()))
}

/// Bytes that an array holds that shares nothing.
fn array_bytes(array: &ArrayRef) -> u64 {
    array.get_array_memory_size() as u64
}

/// Bytes that a copy of an array takes.
fn slice_bytes(array: &ArrayRef) -> u64 {
    let bytes = array.to_data().get_slice_memory_size();
    bytes.map_or(u64::MAX, |bytes| bytes as u64)
}

fn fields_bytes(fields: &Fields) -> u64 {
    let field_bytes = |field: &Arc<Field>| {
        let metadata = field.metadata().iter();
        let metadata = metadata.map(|(key, value)| (key.len() + value.len()) as u64 + FIELD_BYTES);
        let children = match field.data_type() {
            DataType::Struct(children) => fields_bytes(children),
            DataType::List(items) | DataType::LargeList(items) => {
                fields_bytes(&Fields::from(vec![Arc::clone(items)]))
            }
            DataType::Timestamp(_, Some(zone)) => zone.len() as u64,
            _ => 0,
        };
        FIELD_BYTES + field.name().len() as u64 + metadata.sum::<u64>() + children
    };
    fields.iter().map(field_bytes).sum()
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}
