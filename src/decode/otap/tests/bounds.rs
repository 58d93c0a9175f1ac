//! Each limit, one beyond it.

use super::super::held::{BATCH_BYTES_MAX, STREAM_BYTES_MAX};
use super::super::prewalk::{
    DICTIONARY_ENTRIES_MAX, FIELD_DEPTH_MAX, FIELDS_MAX, ITEMS_MAX, MESSAGES_MAX, ROWS_MAX,
};
use super::*;
use arrow::array::{BinaryArray, ListArray, NullArray, StructArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Int8Type, UInt16Type, UInt32Type, UnionFields, UnionMode,
};
use flatbuffers::FlatBufferBuilder;

fn column(column: impl Array + 'static) -> RecordBatch {
    table_of(vec![("column", Arc::new(column))])
}

fn column_of_type(data_type: &DataType) -> RecordBatch {
    table_of(vec![("column", new_empty_array(data_type))])
}

/// A record of one batch that begins a stream.
fn record(table: &RecordBatch) -> Bytes {
    Producer::new(&table.schema()).record(std::slice::from_ref(table))
}

fn lost_record(record: Bytes) -> String {
    lost(&mut decoder(), &logs_batch("1", record))
}

/// Why a batch is refused whose stream goes on.
fn refused_record(record: Bytes) -> String {
    let mut decoder = decoder();
    let what = refused(&mut decoder, &logs_batch("1", record));
    assert_eq!(decoder.readers(), 1);
    what
}

fn nested(depth: usize) -> DataType {
    (0..depth).fold(DataType::UInt8, |inner, _| {
        DataType::Struct(vec![Field::new("inner", inner, true)].into())
    })
}

fn entries(count: usize) -> RecordBatch {
    let values = BinaryArray::from_iter_values((0..count).map(|_| b""));
    let keys = UInt16Array::from(vec![0]);
    column(DictionaryArray::<UInt16Type>::new(keys, Arc::new(values)))
}

fn keyed<K: ArrowDictionaryKeyType>() -> RecordBatch {
    let values = Box::new(DataType::Utf8);
    column_of_type(&DataType::Dictionary(Box::new(K::DATA_TYPE), values))
}

/// Scenario: for each limit of a schema, a dictionary or a batch a record at it, and one beyond.
/// Guarantees: the first is read; the second loses the stream, or is refused if it is the batch's, and the message names the
/// limit.
#[test]
fn limits_of_records_are_held() {
    let fields = |count: usize| {
        let empty: ArrayRef = Arc::new(NullArray::new(1));
        let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        table_of(
            names
                .iter()
                .map(|it| (it.as_str(), empty.clone()))
                .collect(),
        )
    };
    let items = |count: usize| {
        let field = Arc::new(Field::new("item", DataType::Null, true));
        let values = Arc::new(NullArray::new(count));
        let offsets = OffsetBuffer::from_lengths([count]);
        column(ListArray::new(field, offsets, values, None))
    };
    let fixed = |width: i32| column_of_type(&DataType::FixedSizeBinary(width));
    let rows = |count: usize| column(NullArray::new(count));
    let depth = |depth: usize| column_of_type(&nested(depth - 1));
    let cases = [
        (
            fields(FIELDS_MAX),
            fields(FIELDS_MAX + 1),
            "more than 512 columns",
        ),
        (items(ITEMS_MAX), items(ITEMS_MAX + 1), "limit 33554432"),
        (fixed(256), fixed(257), "limit 256"),
        (rows(ROWS_MAX), rows(ROWS_MAX + 1), "limit 2097152"),
        (
            depth(FIELD_DEPTH_MAX),
            depth(FIELD_DEPTH_MAX + 1),
            "nest deeper than 8",
        ),
        (
            entries(DICTIONARY_ENTRIES_MAX),
            entries(DICTIONARY_ENTRIES_MAX + 1),
            "65537 entries, limit 65536",
        ),
    ];
    for (good, bad, expected) in cases {
        let read = decoder().read(&logs_batch("1", record(&good)), 0);
        assert!(read.is_ok(), "{expected}: {read:?}");
        let is_batches = expected.ends_with("33554432") || expected.ends_with("2097152");
        let what = match is_batches {
            true => refused_record(record(&bad)),
            false => lost_record(record(&bad)),
        };
        assert!(what.contains(expected), "{what}, and not {expected}");
    }
}

/// Scenario: three tables of as many rows as one may have, in a few hundred bytes.
/// Guarantees: what it takes to make rows of them is counted before it is taken; the batch is refused alone, and nothing
/// stays reserved.
#[test]
fn what_tables_take_while_they_become_rows_is_bounded() {
    let budget = budget();
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    let rows = record(&column(NullArray::new(ROWS_MAX)));
    assert!(rows.len() < 1000);
    let types = [
        ArrowPayloadType::Logs,
        ArrowPayloadType::LogAttrs,
        ArrowPayloadType::ResourceAttrs,
    ];
    let payloads = types.map(|of| payload(of, "1", rows.clone()));
    let what = refused(&mut decoder, &batch_of(payloads.to_vec()));
    assert!(what.contains("limit 268435456"), "{what}");
    assert_eq!(budget.reserved(), decoder.held_bytes());
}

/// Scenario: two batches of a payload have more rows together than one may have.
/// Guarantees: both are read, so that only the batch is refused.
#[test]
fn rows_of_all_batches_of_a_payload_are_counted() {
    let rows = column(NullArray::new(ROWS_MAX / 2 + 1));
    let mut producer = Producer::new(&rows.schema());
    let record = producer.record(&[rows.clone(), rows]);
    let what = refused(&mut decoder(), &logs_batch("1", record));
    assert!(what.contains("limit 2097152"), "{what}");
}

/// Scenario: a dictionary grows by deltas, beyond its limit in the end.
/// Guarantees: the entries of all deltas count.
#[test]
fn the_entries_of_all_deltas_count() {
    let mut producer = Producer::new(&entries(1).schema());
    let mut decoder = decoder();
    for count in [40_000, DICTIONARY_ENTRIES_MAX] {
        let record = producer.record(&[entries(count)]);
        decoder.read(&logs_batch("1", record), 0).unwrap();
    }
    let record = producer.record(&[entries(DICTIONARY_ENTRIES_MAX + 9)]);
    assert!(messages(&record).contains(&(MessageHeader::DictionaryBatch, true)));
    let what = lost(&mut decoder, &logs_batch("1", record));
    assert!(what.contains("65545 entries, limit 65536"), "{what}");
}

/// Scenario: columns of types that OTAP has not, and dictionaries with other keys than u8 and u16.
/// Guarantees: each loses the stream before the type is built.
#[test]
fn types_that_otap_has_not_are_refused() {
    let values = Arc::new(Field::new("entries", nested(1), true));
    let union_fields = UnionFields::from_fields([Field::new("a", DataType::UInt8, true)]);
    let types = [
        DataType::Map(values, false),
        DataType::Union(union_fields, UnionMode::Dense),
        DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", DataType::UInt8, true)),
        ),
        DataType::Utf8View,
        DataType::BinaryView,
        DataType::Decimal128(1, 1),
        DataType::new_fixed_size_list(DataType::UInt8, 2, true),
    ];
    for data_type in types {
        let schema = Schema::new(vec![Field::new("column", data_type, true)]);
        let what = lost_record(Producer::new(&schema).record(&[]));
        assert!(what.contains("which OTAP has not"), "{what}");
    }
    for table in [keyed::<Int8Type>(), keyed::<UInt32Type>()] {
        let what = lost_record(Producer::new(&table.schema()).record(&[]));
        assert!(what.contains("not u8 or u16"), "{what}");
    }
    let values = Arc::new(StructArray::new_null(
        vec![Field::new("a", DataType::UInt8, true)].into(),
        1,
    ));
    let nested = DictionaryArray::<UInt16Type>::new(UInt16Array::from(vec![0]), values);
    let what = lost_record(record(&column(nested)));
    assert!(what.contains("values that nest"), "{what}");
}

/// Scenario: a record of more messages than are read; metadata that claims too much, and that is too much.
/// Guarantees: each loses the stream, and the message names the limit.
#[test]
fn limits_of_messages_are_held() {
    let table = column(NullArray::new(1));
    let mut producer = Producer::new(&table.schema());
    let good = producer.record(&vec![table.clone(); MESSAGES_MAX - 1]);
    decoder().read(&logs_batch("1", good), 0).unwrap();
    let mut producer = Producer::new(&table.schema());
    let what = lost_record(producer.record(&vec![table; MESSAGES_MAX]));
    assert!(what.contains("more than 256 Arrow messages"), "{what}");

    for claimed in [u32::MAX, 0x7fff_ffff, 65_537] {
        let head = [[0xff; 4], claimed.to_le_bytes()].concat();
        let what = lost_record(Bytes::from(head));
        assert!(what.contains(&format!("claims {claimed} bytes")), "{what}");
        assert!(what.contains("limit 65536"), "{what}");
    }
    let old = [8_u32.to_le_bytes(); 4].concat();
    let what = lost_record(Bytes::from(old));
    assert!(what.contains("does not begin with its mark"), "{what}");
}

/// Scenario: a batch of more payloads than are taken.
/// Guarantees: the stream is lost, as they are not read.
#[test]
fn payloads_of_a_batch_are_counted() {
    let one = payload(ArrowPayloadType::Logs, "1", Bytes::new());
    let batch = batch_of(vec![one; PAYLOADS_MAX + 1]);
    let what = lost(&mut decoder(), &batch);
    assert!(what.contains("33 payloads, limit 32"), "{what}");
}

/// Scenario: a compressed buffer of a few bytes claims to become more than a batch may take, or than any memory.
/// Guarantees: the batch is refused before anything is allocated for it; a length below zero and one that is wrong too.
#[test]
fn what_a_compressed_buffer_claims_is_bounded() {
    let text = "x".repeat(1000);
    let table = column(StringArray::from(vec![text]));
    let good = record(&table);
    let begin = {
        let prefix = 1000_i64.to_le_bytes();
        let is_prefix = |bytes: &[u8]| bytes == prefix;
        // The offsets before it have the same number.
        good.windows(8).rposition(is_prefix).unwrap()
    };
    let limit = i64::try_from(BATCH_BYTES_MAX).unwrap();
    for (claim, expected) in [
        (limit, "once it is decompressed, limit 268435456"),
        (i64::MAX, "once it is decompressed, limit 268435456"),
        (-2, "below zero"),
        (
            1001,
            "has 1000 bytes once it is decompressed, but claims 1001",
        ),
        (
            999,
            "has 1000 bytes once it is decompressed, but claims 999",
        ),
        (500, "small"),
    ] {
        let mut bad = good.to_vec();
        bad[begin..begin + 8].copy_from_slice(&claim.to_le_bytes());
        let what = refused_record(Bytes::from(bad));
        assert!(what.contains(expected), "{what}, and not {expected}");
    }
}

/// Scenario: dictionaries of several ids, of 20 MiB each.
/// Guarantees: the stream is lost as they pass what one may hold, and everything is given back.
#[test]
fn what_a_stream_holds_is_bounded() {
    let budget = budget();
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    let text = "x".repeat(20 << 20);
    let table = logs(0, &[0], &[&text]);
    for number in 0..3 {
        let batch = logs_batch(&number.to_string(), record(&table));
        drop(decoder.read(&batch, 0).unwrap());
        assert!(decoder.held_bytes() <= STREAM_BYTES_MAX);
    }
    let what = lost(&mut decoder, &logs_batch("3", record(&table)));
    assert!(what.contains("limit 67108864"), "{what}");
    assert_eq!(budget.reserved(), 0);
}

/// Scenario: a dictionary that fits beside its own message's tables with nothing to spare, in an empty server and on a stream that
/// holds another one.
/// Guarantees: what would not fit if nobody else held any memory never fits, so that it is not sent again for ever; what would
/// on a new stream is to be sent again.
#[test]
fn a_dictionary_that_can_never_fit_is_told_from_one_that_may() {
    const MIB: u64 = 1 << 20;
    let text = "x".repeat(2 << 20);
    let batch = |id: &str| logs_batch(id, record(&logs(0, &[0], &[&text])));
    let memory = |decoder: &mut StreamDecoder, id: &str| match decoder.read(&batch(id), 0) {
        Err(OtapError::Stream(DecodeError::Memory(error))) => error,
        other => panic!("{other:?}"),
    };
    // It is there twice while it is read, and once more behind that.
    let budget = Budget::new(5 * MIB);
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    assert!(!memory(&mut decoder, "0").is_retryable());
    let budget = Budget::new(7 * MIB);
    let mut decoder = StreamDecoder::new(Signal::Logs, &budget);
    drop(decoder.read(&batch("0"), 0).unwrap());
    assert!(memory(&mut decoder, "1").is_retryable());
}

/// Scenario: a batch whose metadata lists one buffer of its body again and again.
/// Guarantees: each counts, so that many cannot be copied out of a few bytes.
#[test]
fn buffers_that_overlap_count_each_time() {
    const COLUMNS: usize = 300;
    const BODY_BYTES: usize = 1 << 20;
    let fields: Vec<Field> = (0..COLUMNS)
        .map(|number| Field::new(number.to_string(), DataType::Int64, true))
        .collect();
    let schema = Producer::new(&Schema::new(fields)).record(&[]);
    let rows = i64::try_from(BODY_BYTES / 8).unwrap();
    let batch = message(BODY_BYTES, |builder| {
        let node = arrow_ipc::FieldNode::new(rows, 0);
        let nodes = builder.create_vector(&vec![node; COLUMNS]);
        let bytes = i64::try_from(BODY_BYTES).unwrap();
        let both = [
            arrow_ipc::Buffer::new(0, 0),
            arrow_ipc::Buffer::new(0, bytes),
        ];
        let buffers = builder.create_vector(&both.repeat(COLUMNS));
        let mut batch = arrow_ipc::RecordBatchBuilder::new(builder);
        batch.add_length(rows);
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        batch.finish().as_union_value()
    });
    let what = refused_record([&schema[..], &batch].concat().into());
    assert!(what.contains("limit 268435456"), "{what}");
}

/// A record batch message with this header and a body of zeros.
fn message(
    body_bytes: usize,
    header: impl FnOnce(
        &mut FlatBufferBuilder<'static>,
    ) -> flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>,
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let header = header(&mut builder);
    let mut message = arrow_ipc::MessageBuilder::new(&mut builder);
    message.add_version(arrow_ipc::MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_header(header);
    message.add_bodyLength(i64::try_from(body_bytes).unwrap());
    let message = message.finish();
    builder.finish(message, None);
    let mut metadata = builder.finished_data().to_vec();
    metadata.resize(metadata.len().next_multiple_of(8), 0);
    let len = u32::try_from(metadata.len()).unwrap();
    let mut bytes = [[0xff; 4], len.to_le_bytes()].concat();
    bytes.extend(metadata);
    bytes.resize(bytes.len() + body_bytes, 0);
    bytes
}

/// Scenario: a schema with a description of 100 KiB, and one with custom metadata that is small.
/// Guarantees: the first loses the stream; of the second only the fields' is kept.
#[test]
fn metadata_is_bounded_and_the_schemas_own_is_ignored() {
    let field = |bytes: usize| {
        Field::new("id", DataType::UInt16, true)
            .with_metadata([("encoding".to_owned(), "x".repeat(bytes))])
    };
    let schema = Schema::new(vec![field(100 << 10)]);
    let what = lost_record(Producer::new(&schema).record(&[]));
    assert!(what.contains("limit 65536"), "{what}");

    let schema =
        Schema::new_with_metadata(vec![field(5)], [("key".to_owned(), "value".to_owned())]);
    let ids: ArrayRef = Arc::new(UInt16Array::from(vec![1]));
    let table = RecordBatch::try_new(Arc::new(schema), vec![ids]).unwrap();
    let read = read_logs(&mut decoder(), "1", record(&table));
    assert_eq!(read.schema().fields(), table.schema().fields());
    assert!(read.schema().metadata().is_empty());
}
