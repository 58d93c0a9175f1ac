//! What is looked at in each Arrow IPC message before anything goes by it.
//!
//! What the arrays hold, offsets, dictionary keys, UTF-8, is checked when they are made ([`super::batch`]). The lengths in a
//! message's metadata are checked here: a message of a few bytes could otherwise reach outside of its body, or take all memory
//! for what a compressed buffer says it becomes. Before anything is allocated:
//!
//! | of | checked |
//! |---|---|
//! | a message | mark, length of metadata and body within the record; flatbuffer verified within [`METADATA_BYTES_MAX`] |
//! | a schema | [`FIELDS_MAX`], [`FIELD_DEPTH_MAX`], only the types of OTAP and their wider kin, dictionary keys u8 or u16 |
//! | a batch | [`ROWS_MAX`], a node for each column, its buffers within the body, with room for all rows once decompressed |
//!
//! Types that OTAP does not have are refused even in columns that would be ignored: unions, run-end encoding, maps, views,
//! lists of a fixed size, decimals, intervals. Custom metadata of messages and schemas is ignored.
//!
//! Source: Arrow columnar format, "Serialization and Interprocess Communication"; `Message.fbs`, `Schema.fbs`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow_ipc::{
    BodyCompressionMethod, CompressionType, Endianness, FieldNode, MetadataVersion, Type,
};
use bytes::Bytes;
use flatbuffers::{ForwardsUOffset, Vector, VerifierOptions};

/// A message's metadata, bytes. A schema of OTAP takes about 10 KiB, a batch 100 bytes a column.
pub const METADATA_BYTES_MAX: usize = 64 << 10;

/// Messages in one record. Producers send a schema, dictionaries and one batch.
pub const MESSAGES_MAX: usize = 256;

/// Columns of a schema, with those inside of others. OTAP's widest table has about 40.
pub const FIELDS_MAX: usize = 512;

/// How deeply columns may nest. OTAP's deepest is a list in a struct.
pub const FIELD_DEPTH_MAX: usize = 8;

/// Rows of one record batch.
pub const ROWS_MAX: usize = 1 << 21;

/// Items of a list column over all of its rows.
pub const ITEMS_MAX: usize = 1 << 25;

/// Entries of one dictionary: as many as its keys, u8 or u16, can tell apart.
pub const DICTIONARY_ENTRIES_MAX: usize = 1 << 16;

/// Bytes of a value of a fixed width. OTAP's are the ids, 16 and 8.
const FIXED_BYTES_MAX: i32 = 256;

/// Marks the beginning of an encapsulated IPC message, before its metadata's length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// What stands before a compressed buffer: how long it was, or that it is not compressed.
const NOT_COMPRESSED: i64 = -1;

/// Bounds the work of verifying: a flatbuffer's parts may be shared, and count each time.
const VERIFIED: VerifierOptions = VerifierOptions {
    max_depth: 64,
    max_tables: 4 * FIELDS_MAX,
    max_apparent_size: 2 * METADATA_BYTES_MAX,
    ignore_missing_null_terminator: false,
};

/// One encapsulated message, verified.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) metadata: arrow_ipc::Message<'a>,
    /// Shares the record's bytes.
    pub(super) body: Buffer,
}

impl Message<'_> {
    /// What reading it and making rows of it may take: the bytes of its buffers, decompressed, and
    /// [`WEIGHT_PER_ROW`] for each row.
    pub(super) fn weight(&self) -> u64 {
        let Some(batch) = batch(&self.metadata) else {
            return 0;
        };
        let is_compressed = batch.compression().is_some();
        let buffers = batch.buffers().into_iter().flatten();
        let bytes = buffers.map(|buffer| {
            let stored = stored(buffer, &self.body);
            let bytes = stored.and_then(|stored| decompressed_bytes(stored, is_compressed));
            // What is wrong will be told when it is read.
            bytes.map_or(0, |bytes| bytes as u64)
        });
        let rows = count(batch.length()).map_or(0, |rows| rows as u64);
        let rows = rows.saturating_mul(WEIGHT_PER_ROW);
        bytes.fold(rows, u64::saturating_add)
    }
}

/// What a row of a table weighs beside its bytes: it may have none.
const WEIGHT_PER_ROW: u64 = 64;

/// The messages of a record, one after the other.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    bytes: &'a [u8],
    /// The same bytes.
    record: Buffer,
    /// Where the next message begins.
    pub(super) at: usize,
    count: usize,
    /// Whether the record ended its IPC stream.
    pub(super) is_ended: bool,
}

impl<'a> Messages<'a> {
    /// The messages of a record, from its first byte.
    pub(super) fn new(record: &'a Bytes) -> Messages<'a> {
        Messages {
            bytes: record,
            record: Buffer::from(record.clone()),
            at: 0,
            count: 0,
            is_ended: false,
        }
    }

    /// The next message; none at the record's end, or behind a mark that ends its stream.
    pub(super) fn next(&mut self) -> Result<Option<Message<'a>>, String> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        if self.is_ended {
            return Err("bytes follow the end of its Arrow IPC stream".to_owned());
        }
        self.count += 1;
        if self.count > MESSAGES_MAX {
            return Err(format!("it has more than {MESSAGES_MAX} Arrow messages"));
        }
        if self.bytes(4)? != CONTINUATION {
            return Err("an Arrow message does not begin with its mark".to_owned());
        }
        let len = self.bytes(4)?.try_into().map_or(0, u32::from_le_bytes);
        if len == 0 {
            self.is_ended = true;
            return self.next();
        }
        let metadata_bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if metadata_bytes > METADATA_BYTES_MAX {
            return Err(format!(
                "an Arrow message claims {metadata_bytes} bytes of metadata, limit {METADATA_BYTES_MAX}"
            ));
        }
        let metadata_bytes = self.bytes(metadata_bytes)?;
        let metadata = verified(metadata_bytes)?;
        if !matches!(
            metadata.version(),
            MetadataVersion::V4 | MetadataVersion::V5
        ) {
            return Err("an Arrow message is of another version than 4 and 5".to_owned());
        }
        let body_bytes = usize::try_from(metadata.bodyLength())
            .map_err(|_| "an Arrow message's body has a length below zero".to_owned())?;
        let begin = self.at;
        self.bytes(body_bytes)?;
        Ok(Some(Message {
            metadata,
            body: self.record.slice_with_length(begin, body_bytes),
        }))
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or("it ends inside an Arrow message")?;
        self.at += count;
        Ok(bytes)
    }
}

/// A message's metadata, verified.
fn verified(metadata: &[u8]) -> Result<arrow_ipc::Message<'_>, String> {
    arrow_ipc::root_as_message_with_opts(&VERIFIED, metadata)
        .map_err(|error| format!("an Arrow message's metadata: {error}"))
}

/// The batch in a message: that of a dictionary or a table.
fn batch<'a>(metadata: &arrow_ipc::Message<'a>) -> Option<arrow_ipc::RecordBatch<'a>> {
    let dictionary = metadata.header_as_dictionary_batch();
    let batch = dictionary.and_then(|dictionary| dictionary.data());
    batch.or_else(|| metadata.header_as_record_batch())
}

/// A schema, and the type of each dictionary's values by the dictionary's id.
pub(super) type ReadSchema = (Schema, HashMap<i64, DataType>);

/// Reads the schema of a message, without its custom metadata; fields keep theirs.
pub(super) fn schema(message: &Message<'_>) -> Result<ReadSchema, String> {
    let schema = message.metadata.header_as_schema();
    let schema = schema.ok_or("an Arrow message has no schema")?;
    if schema.endianness() != Endianness::Little {
        return Err("its numbers are big-endian".to_owned());
    }
    let mut count = 0;
    check_fields(schema.fields(), 1, &mut count)?;
    let schema = arrow_ipc::convert::try_fb_to_schema(schema)
        .map_err(|error| format!("its schema: {error}"))?;
    let mut dictionaries = HashMap::new();
    collect_dictionaries(&schema.fields, &mut dictionaries)?;
    Ok((Schema::new(nullable(&schema.fields)), dictionaries))
}

/// The same fields, each of which may be null: the Go producer declares fields as not null, and writes null in them for an
/// empty text, an empty list and 0.
fn nullable(fields: &Fields) -> Fields {
    let fields = fields.iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Struct(children) => DataType::Struct(nullable(children)),
            DataType::List(item) => DataType::List(one_nullable(item)),
            DataType::LargeList(item) => DataType::LargeList(one_nullable(item)),
            other => other.clone(),
        };
        (**field)
            .clone()
            .with_data_type(data_type)
            .with_nullable(true)
    });
    fields.collect()
}

/// One field of [`nullable`].
fn one_nullable(field: &FieldRef) -> FieldRef {
    let fields = nullable(&Fields::from(vec![Arc::clone(field)]));
    fields.first().map_or_else(|| Arc::clone(field), Arc::clone)
}

/// Checks the columns of a schema before they become Arrow's types.
fn check_fields<'a>(
    fields: Option<Vector<'a, ForwardsUOffset<arrow_ipc::Field<'a>>>>,
    depth: usize,
    count: &mut usize,
) -> Result<(), String> {
    for field in fields.into_iter().flatten() {
        if depth > FIELD_DEPTH_MAX {
            return Err(format!("its columns nest deeper than {FIELD_DEPTH_MAX}"));
        }
        *count += 1;
        if *count > FIELDS_MAX {
            return Err(format!("it has more than {FIELDS_MAX} columns"));
        }
        let is_nested = match field.type_type() {
            Type::Struct_ | Type::List | Type::LargeList => true,
            Type::Null | Type::Int | Type::FloatingPoint | Type::Bool => false,
            Type::Binary | Type::LargeBinary | Type::Utf8 | Type::LargeUtf8 => false,
            Type::Date | Type::Time | Type::Timestamp | Type::Duration => false,
            Type::FixedSizeBinary => {
                let width = field.type_as_fixed_size_binary();
                let width = width.map_or(0, |width| width.byteWidth());
                if !(1..=FIXED_BYTES_MAX).contains(&width) {
                    return Err(format!(
                        "a column has values of {width} bytes, limit {FIXED_BYTES_MAX}"
                    ));
                }
                false
            }
            other => return Err(format!("a column is of type {other:?}, which OTAP has not")),
        };
        if let Some(dictionary) = field.dictionary() {
            let keys = dictionary.indexType();
            let keys = keys.map_or((32, true), |keys| (keys.bitWidth(), keys.is_signed()));
            if !matches!(keys, (8 | 16, false)) {
                return Err("a dictionary's keys are not u8 or u16".to_owned());
            }
            if is_nested {
                return Err("a dictionary has values that nest".to_owned());
            }
        }
        check_fields(field.children(), depth + 1, count)?;
    }
    Ok(())
}

/// Collects which types the dictionaries' values have. Columns may share a dictionary if they are of one type.
fn collect_dictionaries(
    fields: &Fields,
    dictionaries: &mut HashMap<i64, DataType>,
) -> Result<(), String> {
    for field in fields {
        match field.data_type() {
            DataType::Dictionary(_, values) => {
                let id = dictionary_id(field).ok_or("a dictionary has no id")?;
                let known = dictionaries.entry(id).or_insert_with(|| (**values).clone());
                if known != &**values {
                    return Err(format!("dictionary {id} has values of two types"));
                }
            }
            DataType::Struct(children) => collect_dictionaries(children, dictionaries)?,
            DataType::List(items) | DataType::LargeList(items) => {
                collect_dictionaries(&Fields::from(vec![items.clone()]), dictionaries)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The dictionary of a field.
pub(super) fn dictionary_id(field: &Field) -> Option<i64> {
    #[expect(deprecated, reason = "there is no other place for it")]
    field.dict_id()
}

/// A batch whose lengths were checked against its body.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) rows: usize,
    pub(super) buffers: Vec<CheckedBuffer>,
    pub(super) codec: Option<CompressionType>,
    /// What reading it may allocate, bytes. Uncompressed buffers count as well: one that is not aligned is copied, and buffers
    /// may overlap.
    pub(super) bytes: u64,
}

/// One buffer of such a batch.
#[derive(Debug)]
pub(super) struct CheckedBuffer {
    /// Where it stands in the body, without the length that is before a compressed one.
    pub(super) stored: Range<usize>,
    pub(super) is_compressed: bool,
    /// Its length once it is decompressed.
    pub(super) bytes: usize,
    /// Whether it is looked at: which rows are null is not where none is.
    pub(super) is_read: bool,
}

/// Checks a batch of these columns against its body.
pub(super) fn check_batch<'a>(
    batch: &arrow_ipc::RecordBatch<'_>,
    body: &[u8],
    data_types: impl Iterator<Item = &'a DataType>,
) -> Result<Checked, String> {
    let codec = match batch.compression() {
        None => None,
        Some(compression) => {
            let codec = compression.codec();
            let is_known = [CompressionType::ZSTD, CompressionType::LZ4_FRAME].contains(&codec);
            if compression.method() != BodyCompressionMethod::BUFFER || !is_known {
                return Err("a body is compressed in another way than zstd and lz4".to_owned());
            }
            Some(codec)
        }
    };
    let rows = count(batch.length())?;
    if rows > ROWS_MAX {
        return Err(format!("a batch has {rows} rows, limit {ROWS_MAX}"));
    }
    if batch
        .variadicBufferCounts()
        .is_some_and(|it| !it.is_empty())
    {
        return Err("a batch has variadic buffers, which no column of OTAP has".to_owned());
    }
    let mut walk = Walk {
        nodes: batch.nodes().into_iter().flatten(),
        buffers: batch.buffers().into_iter().flatten(),
        body,
        is_compressed: codec.is_some(),
        checked: Vec::with_capacity(batch.buffers().map_or(0, |buffers| buffers.len())),
        bytes: 0,
    };
    for data_type in data_types {
        if walk.column(data_type)? != rows {
            return Err("a column has another count of rows than its batch".to_owned());
        }
    }
    if walk.nodes.next().is_some() || walk.buffers.next().is_some() {
        return Err("a batch has more columns than its schema".to_owned());
    }
    Ok(Checked {
        rows,
        buffers: walk.checked,
        codec,
        bytes: walk.bytes,
    })
}

fn count(length: i64) -> Result<usize, String> {
    usize::try_from(length).map_err(|_| "a count is below zero".to_owned())
}

/// A buffer as it stands in its message's body.
fn stored<'b>(buffer: &arrow_ipc::Buffer, body: &'b [u8]) -> Result<&'b [u8], String> {
    let (offset, length) = (count(buffer.offset())?, count(buffer.length())?);
    let end = offset.checked_add(length);
    let stored = end.and_then(|end| body.get(offset..end));
    stored.ok_or_else(|| "a buffer is outside of its body".to_owned())
}

/// The bytes of a buffer once it is decompressed, as it claims itself.
fn decompressed_bytes(stored: &[u8], is_compressed: bool) -> Result<usize, String> {
    if !is_compressed || stored.is_empty() {
        return Ok(stored.len());
    }
    let (prefix, rest) = stored
        .split_first_chunk::<8>()
        .ok_or("a compressed buffer ends inside its length")?;
    match i64::from_le_bytes(*prefix) {
        NOT_COMPRESSED => Ok(rest.len()),
        length => count(length),
    }
}

/// Goes through the columns as [`super::batch`] does.
struct Walk<'a, N, B> {
    nodes: N,
    buffers: B,
    body: &'a [u8],
    is_compressed: bool,
    checked: Vec<CheckedBuffer>,
    /// All buffers, decompressed.
    bytes: u64,
}

impl<'m, N, B> Walk<'_, N, B>
where
    N: Iterator<Item = &'m FieldNode>,
    B: Iterator<Item = &'m arrow_ipc::Buffer>,
{
    /// Checks a column; answers its rows.
    fn column(&mut self, data_type: &DataType) -> Result<usize, String> {
        let node = self.nodes.next().ok_or("a column is missing")?;
        let (rows, nulls) = (count(node.length())?, count(node.null_count())?);
        if rows > ITEMS_MAX {
            return Err(format!("a column has {rows} items, limit {ITEMS_MAX}"));
        }
        if nulls > rows {
            return Err("a column has more nulls than rows".to_owned());
        }
        if matches!(data_type, DataType::Null) {
            return Ok(rows);
        }
        let bitmap_bytes = rows.div_ceil(8);
        if nulls > 0 {
            self.buffer(bitmap_bytes, 1)?;
        } else {
            self.next(0, 1)?.is_read = false;
        }
        match data_type {
            DataType::Boolean => self.buffer(bitmap_bytes, 1)?,
            DataType::Utf8 | DataType::Binary => {
                self.offsets(rows, 4)?;
                self.buffer(0, 1)?;
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                self.offsets(rows, 8)?;
                self.buffer(0, 1)?;
            }
            DataType::FixedSizeBinary(width) => {
                let width = usize::try_from(*width).unwrap_or(usize::MAX);
                self.buffer(rows.saturating_mul(width), 1)?;
            }
            DataType::List(items) => {
                self.offsets(rows, 4)?;
                self.column(items.data_type())?;
            }
            DataType::LargeList(items) => {
                self.offsets(rows, 8)?;
                self.column(items.data_type())?;
            }
            DataType::Struct(fields) => {
                for field in fields {
                    if self.column(field.data_type())? != rows {
                        return Err("a struct's column has another count of rows".to_owned());
                    }
                }
            }
            DataType::Dictionary(keys, _) => {
                let width = keys.primitive_width().unwrap_or(1);
                self.buffer(rows.saturating_mul(width), width)?;
            }
            other => {
                let width = other.primitive_width();
                let width = width.ok_or_else(|| format!("a column is of type {other}"))?;
                self.buffer(rows.saturating_mul(width), 1)?;
            }
        }
        Ok(rows)
    }

    /// The offsets of `rows` lists or texts; those of none may be left out.
    fn offsets(&mut self, rows: usize, width: usize) -> Result<(), String> {
        let offsets = if rows == 0 { 0 } else { rows + 1 };
        self.buffer(offsets.saturating_mul(width), width)
    }

    /// The next buffer: once decompressed it has so many bytes at least, and where `width` is not 1 only whole elements.
    fn buffer(&mut self, bytes_min: usize, width: usize) -> Result<(), String> {
        self.next(bytes_min, width).map(|_| ())
    }

    fn next(&mut self, bytes_min: usize, width: usize) -> Result<&mut CheckedBuffer, String> {
        let buffer = self.buffers.next().ok_or("a buffer is missing")?;
        let stored = stored(buffer, self.body)?;
        let bytes = decompressed_bytes(stored, self.is_compressed)?;
        if bytes < bytes_min || bytes % width != 0 {
            return Err("a buffer has not the length that its rows need".to_owned());
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let begin = count(buffer.offset())?;
        let prefix = match self.is_compressed && !stored.is_empty() {
            true => stored.first_chunk().copied(),
            false => None,
        };
        let prefix_bytes = prefix.map_or(0, |prefix| prefix.len());
        self.checked.push(CheckedBuffer {
            stored: begin + prefix_bytes..begin + stored.len(),
            is_compressed: prefix
                .is_some_and(|prefix| i64::from_le_bytes(prefix) != NOT_COMPRESSED),
            bytes,
            is_read: true,
        });
        self.checked.last_mut().ok_or_else(String::new)
    }
}
