//! Writing the Arrow IPC messages of a request's rows.
//!
//! arrow-ipc's own writer takes a record batch: for that a batch had to be made of the columns that are written, and a schema
//! for it, and each column taken apart again, in some three hundred allocations. Of a request of ten records that was a
//! tenth of all work. Here the columns' buffers are listed as they are; the bytes are those that arrow-ipc writes.

use std::cell::RefCell;

use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use arrow::downcast_primitive_array;
use arrow::error::ArrowError;
use arrow_ipc::{FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use flatbuffers::FlatBufferBuilder;

use super::super::frame::ALIGNMENT;
use super::message::{CONTINUATION, MESSAGE_PREFIX_BYTES};

/// What pads pieces to [`ALIGNMENT`].
const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// A piece of a payload.
enum Piece<'a> {
    /// A buffer of the rows.
    Shared(&'a Buffer),
    Own(Buffer),
    Padding(usize),
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Shared(buffer) => buffer,
            Piece::Own(buffer) => buffer,
            Piece::Padding(bytes) => ZEROS.get(..*bytes).unwrap_or_default(),
        }
    }

    fn into_buffer(self) -> Buffer {
        match self {
            Piece::Shared(buffer) => buffer.clone(),
            Piece::Own(buffer) => buffer,
            Piece::Padding(bytes) => Buffer::from(ZEROS.get(..bytes).unwrap_or_default()),
        }
    }
}

/// A payload on the way: a head, and messages behind it.
pub(super) struct Pieces<'a> {
    pieces: Vec<Piece<'a>>,
    bytes: usize,
}

impl<'a> Pieces<'a> {
    /// Pieces with room for a head, which is known last.
    pub(super) fn new() -> Pieces<'a> {
        // Two messages of a table of logs have about ninety.
        let mut pieces = Vec::with_capacity(128);
        pieces.push(Piece::Padding(0));
        Pieces { pieces, bytes: 0 }
    }

    /// Appends one message: rows of these columns, all that there are or the first alone. Answers its length, bytes.
    pub(super) fn message(
        &mut self,
        columns: impl Iterator<Item = &'a ArrayRef>,
        rows: usize,
    ) -> Result<u64, ArrowError> {
        METADATA.with_borrow_mut(|metadata| {
            metadata.clear();
            let (place, begin) = (self.pieces.len(), self.bytes);
            self.pieces.push(Piece::Padding(0));
            for column in columns {
                self.column(metadata, column, rows)?;
            }
            let metadata = Buffer::from_vec(metadata.finish(rows, self.bytes - begin));
            self.bytes += metadata.len();
            if let Some(piece) = self.pieces.get_mut(place) {
                *piece = Piece::Own(metadata);
            }
            Ok((self.bytes - begin) as u64)
        })
    }

    /// The whole payload, with its head: in one piece when it is no longer than `copied_bytes_max`, else sharing the rows'
    /// buffers.
    pub(super) fn with_head(mut self, head: Vec<u8>, copied_bytes_max: usize) -> Vec<Buffer> {
        let bytes = self.bytes + head.len();
        if let Some(piece) = self.pieces.first_mut() {
            *piece = Piece::Own(Buffer::from_vec(head));
        }
        if bytes > copied_bytes_max {
            let pieces = self.pieces.into_iter().map(Piece::into_buffer);
            return pieces.filter(|piece| !piece.is_empty()).collect();
        }
        let mut copied = Vec::with_capacity(bytes);
        for piece in &self.pieces {
            copied.extend_from_slice(piece.bytes());
        }
        vec![Buffer::from_vec(copied)]
    }

    /// Bytes of the messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn column(
        &mut self,
        metadata: &mut Metadata,
        column: &'a ArrayRef,
        rows: usize,
    ) -> Result<(), ArrowError> {
        self.nulls(metadata, column, rows);
        if let Some((values, width)) = fixed_width(column) {
            if rows == column.len() {
                self.buffer(metadata, Piece::Shared(values));
            } else {
                let first = values.slice_with_length(0, values.len().min(rows * width));
                self.buffer(metadata, Piece::Own(first));
            }
            if let Some(texts) = column.as_string_view_opt() {
                metadata
                    .text_buffers
                    .push(number(texts.data_buffers().len()));
                for buffer in texts.data_buffers().iter() {
                    self.buffer(metadata, Piece::Shared(buffer));
                }
            }
            return Ok(());
        }
        match column.data_type() {
            DataType::Boolean if rows == column.len() => {
                let values = column.as_boolean().values().sliced();
                self.buffer(metadata, Piece::Own(values));
                Ok(())
            }
            DataType::List(_) if rows == column.len() => self.list(metadata, column),
            other => Err(ArrowError::IpcError(format!("no table writes {other} so"))),
        }
    }

    /// A column's node, and which of its rows are null.
    fn nulls(&mut self, metadata: &mut Metadata, column: &dyn Array, rows: usize) {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        let count = nulls.map_or(0, NullBuffer::null_count);
        metadata
            .nodes
            .push(FieldNode::new(number(rows), number(count)));
        let nulls = nulls.map(|nulls| Piece::Own(nulls.inner().sliced()));
        self.buffer(metadata, nulls.unwrap_or(Piece::Padding(0)));
    }

    /// Lists of numbers without nulls among them.
    fn list(&mut self, metadata: &mut Metadata, column: &'a ArrayRef) -> Result<(), ArrowError> {
        let lists = column.as_list::<i32>();
        let offsets = lists.offsets();
        let place = |offset: i32| usize::try_from(offset).unwrap_or(0);
        let (first, last) = (place(offsets.first()), place(offsets.last()));
        let from_zero = match first {
            0 => offsets.inner().inner().clone(),
            _ => OffsetBuffer::<i32>::from_lengths(offsets.lengths())
                .inner()
                .inner()
                .clone(),
        };
        self.buffer(metadata, Piece::Own(from_zero));
        let items = lists.values();
        let values = fixed_width(items).filter(|_| items.null_count() == 0);
        let (values, width) = values.ok_or_else(|| {
            ArrowError::IpcError("a list has other items than numbers".to_owned())
        })?;
        let rows = number(last - first);
        metadata.nodes.push(FieldNode::new(rows, 0));
        self.buffer(metadata, Piece::Padding(0));
        let values = values.slice_with_length(first * width, (last - first) * width);
        self.buffer(metadata, Piece::Own(values));
        Ok(())
    }

    /// Appends a buffer of a message's body, and zeros behind it.
    fn buffer(&mut self, metadata: &mut Metadata, piece: Piece<'a>) {
        let len = piece.bytes().len();
        let buffers = &mut metadata.buffers;
        buffers.push(arrow_ipc::Buffer::new(metadata.body_bytes, number(len)));
        if len > 0 {
            self.pieces.push(piece);
            let padding = len.next_multiple_of(ALIGNMENT) - len;
            if padding > 0 {
                self.pieces.push(Piece::Padding(padding));
            }
            self.bytes += len + padding;
            metadata.body_bytes += number(len + padding);
        }
    }
}

/// A length as Arrow's metadata has it; none is near the limit.
fn number(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// The values of a column of a fixed width, and that width, bytes. Of texts these are the views.
pub(super) fn fixed_width(column: &dyn Array) -> Option<(&Buffer, usize)> {
    let values = downcast_primitive_array!(
        column => column.values().inner(),
        DataType::Utf8View => column.as_string_view().views().inner(),
        _ => return None,
    );
    Some((values, width(column.data_type())))
}

/// Bytes that each row takes in a column of a fixed width; 0 in others.
pub(super) fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Utf8View => 16,
        data_type => data_type.primitive_width().unwrap_or(0),
    }
}

thread_local! {
    static METADATA: RefCell<Metadata> = RefCell::default();
}

/// What a message says of the columns in it. Used again for the next one.
#[derive(Default)]
struct Metadata {
    nodes: Vec<FieldNode>,
    buffers: Vec<arrow_ipc::Buffer>,
    /// Of each column of texts, how many buffers they are in.
    text_buffers: Vec<i64>,
    body_bytes: i64,
    builder: FlatBufferBuilder<'static>,
}

impl Metadata {
    fn clear(&mut self) {
        self.nodes.clear();
        self.buffers.clear();
        self.text_buffers.clear();
        self.body_bytes = 0;
        self.builder.reset();
    }

    /// What stands before a message's body.
    fn finish(&mut self, rows: usize, body_bytes: usize) -> Vec<u8> {
        let builder = &mut self.builder;
        let buffers = builder.create_vector(&self.buffers);
        let nodes = builder.create_vector(&self.nodes);
        let text_buffers = match self.text_buffers.is_empty() {
            true => None,
            false => Some(builder.create_vector(&self.text_buffers)),
        };
        let mut batch = RecordBatchBuilder::new(builder);
        batch.add_length(number(rows));
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        if let Some(text_buffers) = text_buffers {
            batch.add_variadicBufferCounts(text_buffers);
        }
        let batch = batch.finish();
        let mut message = MessageBuilder::new(builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(MessageHeader::RecordBatch);
        message.add_bodyLength(number(body_bytes));
        message.add_header(batch.as_union_value());
        let message = message.finish();
        builder.finish(message, None);
        let metadata = builder.finished_data();
        let len = (MESSAGE_PREFIX_BYTES + metadata.len()).next_multiple_of(ALIGNMENT);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(CONTINUATION);
        // A few bytes for each column.
        let metadata_bytes = u32::try_from(len - MESSAGE_PREFIX_BYTES).unwrap_or(u32::MAX);
        bytes.extend(metadata_bytes.to_le_bytes());
        bytes.extend_from_slice(metadata);
        bytes.resize(len, 0);
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int32Array, ListArray, StringViewArray};
    use arrow::datatypes::{Float64Type, UInt64Type};
    use arrow::record_batch::RecordBatch;
    use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};

    use super::*;

    fn joined(parts: &[Buffer]) -> Vec<u8> {
        parts.iter().flat_map(|part| part.to_vec()).collect()
    }

    fn plain(columns: &[(&str, ArrayRef)]) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).unwrap();
        let schema = batch.schema();
        let mut encoder = StreamEncoder::try_new_with_options(&schema, options).unwrap();
        let empty = RecordBatch::new_empty(schema);
        encoder.encode(&empty).unwrap();
        joined(&encoder.encode(&batch).unwrap())
    }

    fn columns() -> Vec<(&'static str, ArrayRef)> {
        let long = "a text that is longer than a view holds";
        let texts = [Some("short"), None, Some(long), Some("x"), Some(long)];
        let counts = [vec![1, 2], vec![], vec![3], vec![4, 5, 6], vec![7]];
        let counts = counts.map(|list| Some(list.into_iter().map(Some)));
        let bounds = [1.0, 2.0, 3.0, 4.0, 5.0].map(|bound| Some([Some(bound)]));
        vec![
            ("texts", Arc::new(StringViewArray::from_iter(texts))),
            (
                "one",
                Arc::new(StringViewArray::from(vec!["a", "b", "c", "d", "e"])),
            ),
            (
                "times",
                Arc::new(arrow::array::TimestampNanosecondArray::from(vec![
                    1, 2, 3, 4, 5,
                ])),
            ),
            (
                "numbers",
                Arc::new(Int32Array::from(vec![Some(1), None, Some(3), None, None])),
            ),
            ("doubles", Arc::new(Float64Array::from(vec![0.5; 5]))),
            (
                "flags",
                Arc::new(BooleanArray::from(vec![true, false, true, true, false])),
            ),
            (
                "some",
                Arc::new(BooleanArray::from(vec![
                    Some(true),
                    None,
                    None,
                    Some(false),
                    None,
                ])),
            ),
            (
                "counts",
                Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(counts)),
            ),
            (
                "bounds",
                Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(bounds)),
            ),
        ]
    }

    fn ours(columns: &[(&str, ArrayRef)], copied_bytes_max: usize) -> Vec<Buffer> {
        let mut pieces = Pieces::new();
        let rows = columns.first().unwrap().1.len();
        let bytes = pieces
            .message(columns.iter().map(|(_, column)| column), rows)
            .unwrap();
        let all = pieces.with_head(vec![1; 8], copied_bytes_max);
        assert_eq!(joined(&all).len() as u64, 8 + bytes);
        all
    }

    /// Scenario: columns of every type that a table has, with nulls and without, whole and a part of their rows; one alone.
    /// Guarantees: byte by byte what arrow-ipc writes, in one piece and in many.
    #[test]
    fn messages_are_those_of_arrow_ipc() {
        let all = columns();
        let slice = |begin, rows| {
            let columns = all
                .iter()
                .map(|(name, column)| (*name, column.slice(begin, rows)));
            columns.collect::<Vec<_>>()
        };
        let mut inputs = vec![all.clone(), slice(1, 3), slice(4, 1), slice(0, 1)];
        inputs.extend(all.iter().map(|column| vec![column.clone()]));
        for input in inputs {
            let expected = [vec![1; 8], plain(&input)].concat();
            let (copied, shared) = (ours(&input, 1 << 20), ours(&input, 0));
            assert_eq!(copied.len(), 1);
            assert!(shared.len() > 1);
            assert_eq!(joined(&copied), expected, "{input:?}");
            assert_eq!(joined(&shared), expected, "{input:?}");
        }
    }

    /// Scenario: the first of several rows.
    /// Guarantees: as a batch that has it alone.
    #[test]
    fn the_first_row_stands_for_all() {
        let all: Vec<_> = columns()
            .into_iter()
            .filter(|(_, column)| column.null_count() == 0)
            .collect();
        let all: Vec<_> = all
            .into_iter()
            .filter(|(_, column)| fixed_width(column).is_some())
            .collect();
        assert!(all.len() > 2);
        let first: Vec<_> = all
            .iter()
            .map(|(name, column)| (*name, column.slice(0, 1)))
            .collect();
        let mut pieces = Pieces::new();
        pieces
            .message(all.iter().map(|(_, column)| column), 1)
            .unwrap();
        assert_eq!(joined(&pieces.with_head(Vec::new(), 0)), plain(&first));
    }
}
