//! One stream's readers, fed by arrow-ipc's own writer.

mod bounds;
mod columns;
mod damage;
mod headers;
mod lost;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, StringArray, UInt8Array, UInt16Array,
};
use arrow::datatypes::{Field, Schema, SchemaRef, UInt8Type};
use arrow::record_batch::RecordBatch;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MessageHeader};
use bytes::Bytes;

use super::prewalk::Messages;
use super::readers::READERS_PER_TYPE_MAX;
use super::*;
use crate::proto::arrow::ArrowPayload;

const COMPRESSIONS: [Option<CompressionType>; 3] = [
    None,
    Some(CompressionType::ZSTD),
    Some(CompressionType::LZ4_FRAME),
];

/// An Arrow IPC stream as a producer writes it: each record holds what came since the one before.
struct Producer {
    writer: StreamWriter<Vec<u8>>,
}

impl Producer {
    /// A stream as df_engine writes it: zstd, and deltas of dictionaries.
    fn new(schema: &Schema) -> Producer {
        Producer::with(
            schema,
            Some(CompressionType::ZSTD),
            DictionaryHandling::Delta,
        )
    }

    fn with(
        schema: &Schema,
        compression: Option<CompressionType>,
        dictionaries: DictionaryHandling,
    ) -> Producer {
        let options = IpcWriteOptions::default()
            .try_with_compression(compression)
            .unwrap()
            .with_dictionary_handling(dictionaries);
        let writer = StreamWriter::try_new_with_options(Vec::new(), schema, options).unwrap();
        Producer { writer }
    }

    fn record(&mut self, batches: &[RecordBatch]) -> Bytes {
        for batch in batches {
            self.writer.write(batch).unwrap();
        }
        self.writer.flush().unwrap();
        Bytes::from(std::mem::take(self.writer.get_mut()))
    }

    /// The same, and the stream's end.
    fn last_record(&mut self, batches: &[RecordBatch]) -> Bytes {
        let record = self.record(batches);
        self.writer.finish().unwrap();
        let end = std::mem::take(self.writer.get_mut());
        Bytes::from([&record[..], &end].concat())
    }
}

impl StreamDecoder {
    /// Reads the tables of a batch.
    fn read(&mut self, batch: &BatchArrowRecords, beside: u64) -> Result<Tables, OtapError> {
        self.read_walked(Walked::new(self.signal, batch), beside)
    }
}

fn payload(payload_type: ArrowPayloadType, schema_id: &str, record: Bytes) -> ArrowPayload {
    ArrowPayload {
        schema_id: schema_id.to_owned(),
        r#type: payload_type.into(),
        record,
    }
}

fn batch_of(arrow_payloads: Vec<ArrowPayload>) -> BatchArrowRecords {
    BatchArrowRecords {
        batch_id: 0,
        arrow_payloads,
        headers: Bytes::new(),
    }
}

fn logs_payload(schema_id: &str, record: Bytes) -> ArrowPayload {
    payload(ArrowPayloadType::Logs, schema_id, record)
}

fn logs_batch(schema_id: &str, record: Bytes) -> BatchArrowRecords {
    batch_of(vec![logs_payload(schema_id, record)])
}

fn schema_of(columns: &[(&str, ArrayRef)]) -> SchemaRef {
    let field =
        |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn table_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let schema = schema_of(&columns);
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// A column of texts with this dictionary; a key that it does not have is a null.
fn dictionary(keys: &[u8], values: &[&str]) -> ArrayRef {
    let keys: UInt8Array = keys
        .iter()
        .map(|key| Some(*key).filter(|key| usize::from(*key) < values.len()))
        .collect();
    let values = Arc::new(StringArray::from(values.to_vec()));
    Arc::new(DictionaryArray::<UInt8Type>::new(keys, values))
}

/// A little of the table of logs: ids from `first` on, and texts of a dictionary.
fn logs(first: u16, keys: &[u8], values: &[&str]) -> RecordBatch {
    let ids = UInt16Array::from_iter_values((first..).take(keys.len()));
    table_of(vec![
        ("id", Arc::new(ids)),
        ("severity_text", dictionary(keys, values)),
    ])
}

fn texts(table: &RecordBatch) -> Vec<Option<String>> {
    let column = table.column_by_name("severity_text").unwrap();
    let column = column.as_dictionary::<UInt8Type>();
    let values = column.downcast_dict::<StringArray>().unwrap();
    values.into_iter().map(|it| it.map(str::to_owned)).collect()
}

fn ids(table: &RecordBatch) -> Vec<u16> {
    let column = table.column_by_name("id").unwrap();
    column
        .as_primitive::<arrow::datatypes::UInt16Type>()
        .values()
        .to_vec()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

/// What the messages of a record are, and whether dictionaries are deltas.
fn messages(record: &Bytes) -> Vec<(MessageHeader, bool)> {
    let mut messages = Messages::new(record);
    let mut found = Vec::new();
    while let Some(message) = messages.next().unwrap() {
        let dictionary = message.metadata.header_as_dictionary_batch();
        let is_delta = dictionary.is_some_and(|dictionary| dictionary.isDelta());
        found.push((message.metadata.header_type(), is_delta));
    }
    found
}

fn budget() -> Budget {
    Budget::new(1 << 30)
}

fn decoder() -> StreamDecoder {
    StreamDecoder::new(Signal::Logs, &budget())
}

fn read_logs(decoder: &mut StreamDecoder, schema_id: &str, record: Bytes) -> RecordBatch {
    let tables = decoder.read(&logs_batch(schema_id, record), 0).unwrap();
    tables.get(ArrowPayloadType::Logs).unwrap().clone()
}

fn lost(decoder: &mut StreamDecoder, batch: &BatchArrowRecords) -> String {
    match decoder.read(batch, 0).unwrap_err() {
        OtapError::Stream(DecodeError::Malformed(what)) => what,
        other => panic!("{other:?}"),
    }
}

fn refused(decoder: &mut StreamDecoder, batch: &BatchArrowRecords) -> String {
    match decoder.read(batch, 0).unwrap_err() {
        OtapError::Batch(DecodeError::Malformed(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Scenario: three batches of one stream, the second and third without a schema, in each compression.
/// Guarantees: each is read as it was written, and the stream holds no more after the third than after the second.
#[test]
fn a_stream_goes_on_without_its_schema() {
    for compression in COMPRESSIONS {
        let first = logs(0, &[0, 1, 9], &["INFO", "WARN"]);
        let mut producer = Producer::with(&first.schema(), compression, DictionaryHandling::Delta);
        let mut decoder = decoder();
        let mut held = Vec::new();
        for batch in [first, logs(3, &[1], &["INFO", "WARN"]), logs(4, &[], &[])] {
            let record = producer.record(std::slice::from_ref(&batch));
            let has_schema = messages(&record).first().unwrap().0 == MessageHeader::Schema;
            assert_eq!(has_schema, held.is_empty());
            let tables = decoder.read(&logs_batch("7", record), 0).unwrap();
            match tables.get(ArrowPayloadType::Logs) {
                Some(table) => {
                    assert_eq!((ids(table), texts(table)), (ids(&batch), texts(&batch)));
                }
                None => assert_eq!(batch.num_rows(), 0),
            }
            held.push(decoder.held_bytes());
        }
        assert_eq!(decoder.readers(), 1);
        assert_eq!(held[1], held[0], "{compression:?}");
    }
}

/// Scenario: a dictionary grows from batch to batch, then is another one, then grows again.
/// Guarantees: deltas append, others replace; keys mean what the producer meant.
#[test]
fn dictionaries_grow_by_deltas_and_are_replaced() {
    for compression in COMPRESSIONS {
        let steps: [(&[u8], &[&str], bool); 4] = [
            (&[0], &["a"], false),
            (&[1, 0, 2], &["a", "b", "c"], true),
            (&[0, 1], &["x", "y"], false),
            (&[2, 0], &["x", "y", "z"], true),
        ];
        let schema = logs(0, &[], &[]).schema();
        let mut producer = Producer::with(&schema, compression, DictionaryHandling::Delta);
        let mut decoder = decoder();
        for (keys, values, is_delta) in steps {
            let batch = logs(0, keys, values);
            let record = producer.record(std::slice::from_ref(&batch));
            let written = messages(&record);
            assert!(written.contains(&(MessageHeader::DictionaryBatch, is_delta)));
            let table = read_logs(&mut decoder, "", record);
            assert_eq!(texts(&table), texts(&batch));
        }
    }
}

/// Scenario: a producer without deltas, which sends the whole dictionary again as it grows.
/// Guarantees: it is read, and what is held is the last dictionary alone.
#[test]
fn dictionaries_that_are_sent_again_are_replaced() {
    let schema = logs(0, &[], &[]).schema();
    let mut producer = Producer::with(&schema, None, DictionaryHandling::Resend);
    let mut decoder = decoder();
    let long = "x".repeat(10_000);
    let record = producer.record(&[logs(0, &[0], &[&long])]);
    read_logs(&mut decoder, "a", record);
    assert!(decoder.held_bytes() > 10_000);
    let record = producer.record(&[logs(0, &[1], &["short", "other"])]);
    let table = read_logs(&mut decoder, "a", record);
    assert_eq!(texts(&table), some(&["other"]));
    assert!(decoder.held_bytes() < 10_000);
}

/// Scenario: a record of three batches, with a delta and a replaced dictionary between them.
/// Guarantees: one table comes out, of all rows in order.
#[test]
fn the_batches_of_a_payload_become_one_table() {
    for compression in COMPRESSIONS {
        let batches = [
            logs(0, &[0, 0], &["a"]),
            logs(2, &[1], &["a", "b"]),
            logs(3, &[0], &["c"]),
        ];
        let mut producer =
            Producer::with(&batches[0].schema(), compression, DictionaryHandling::Delta);
        let record = producer.record(&batches);
        assert_eq!(messages(&record).len(), 7);
        let table = read_logs(&mut decoder(), "1", record);
        assert_eq!(ids(&table), [0, 1, 2, 3]);
        assert_eq!(texts(&table), some(&["a", "a", "b", "c"]));
    }
}

/// Scenario: a column comes, so that the producer begins a stream of another id; the old id is used once more.
/// Guarantees: both are read, each with its own schema and dictionary.
#[test]
fn a_new_id_begins_a_stream_of_its_own() {
    let narrow = table_of(vec![("severity_text", dictionary(&[0], &["old"]))]);
    let wide = logs(5, &[0], &["new"]);
    let mut first = Producer::new(&narrow.schema());
    let mut second = Producer::new(&wide.schema());
    let mut decoder = decoder();
    read_logs(
        &mut decoder,
        "1",
        first.record(std::slice::from_ref(&narrow)),
    );
    let table = read_logs(&mut decoder, "2", second.record(&[wide]));
    assert_eq!((ids(&table), texts(&table)), (vec![5], some(&["new"])));
    let table = read_logs(&mut decoder, "1", first.record(&[narrow]));
    assert_eq!((table.num_columns(), texts(&table)), (1, some(&["old"])));
    assert_eq!(decoder.readers(), 2);
}

/// Scenario: one more id than a type may have readers; then the id used longest ago, and the others.
/// Guarantees: the others go on, that one does not; what it held is given back.
#[test]
fn the_reader_used_longest_ago_is_retired() {
    let batch = logs(0, &[0], &["a"]);
    let mut producers: Vec<Producer> = (0..=READERS_PER_TYPE_MAX)
        .map(|_| Producer::new(&batch.schema()))
        .collect();
    let mut decoder = decoder();
    let mut held = 0;
    for (number, producer) in producers.iter_mut().enumerate() {
        held = decoder.held_bytes();
        let record = producer.record(std::slice::from_ref(&batch));
        read_logs(&mut decoder, &number.to_string(), record);
    }
    assert_eq!(decoder.readers(), READERS_PER_TYPE_MAX);
    assert_eq!(decoder.held_bytes(), held);
    for (number, producer) in producers.iter_mut().enumerate().rev() {
        let record = producer.record(std::slice::from_ref(&batch));
        if number > 0 {
            let table = read_logs(&mut decoder, &number.to_string(), record);
            assert_eq!(texts(&table), some(&["a"]));
        } else {
            let what = lost(&mut decoder, &logs_batch("0", record));
            assert!(what.contains("does not begin with a schema"), "{what}");
        }
    }
}

/// Scenario: two types use one schema id, as df_engine's producer may after a reset.
/// Guarantees: each has a reader of its own.
#[test]
fn types_share_schema_ids() {
    let batch = |text: &str| logs(0, &[0], &[text]);
    let types = [ArrowPayloadType::Logs, ArrowPayloadType::LogAttrs];
    let mut producers = types.map(|_| Producer::new(&batch("").schema()));
    let mut decoder = decoder();
    for text in ["one", "two"] {
        let mut payloads = Vec::new();
        for (producer, payload_type) in producers.iter_mut().zip(types) {
            let name = format!("{} {text}", payload_type.as_str_name());
            payloads.push(payload(payload_type, "1", producer.record(&[batch(&name)])));
        }
        // Their order is not fixed.
        payloads.reverse();
        let tables = decoder.read(&batch_of(payloads), 0).unwrap();
        for payload_type in types {
            let name = format!("{} {text}", payload_type.as_str_name());
            assert_eq!(texts(tables.get(payload_type).unwrap()), some(&[&name]));
        }
    }
    assert_eq!(decoder.readers(), 2);
}

/// Scenario: a producer goes back to a schema that it had given up, under its old id, and begins anew.
/// Guarantees: the reader begins anew too: other schema, no dictionaries, nothing held twice.
#[test]
fn a_schema_under_a_known_id_restarts_its_reader() {
    let mut decoder = decoder();
    let first = logs(0, &[0], &["before"]);
    let record = Producer::new(&first.schema()).record(std::slice::from_ref(&first));
    read_logs(&mut decoder, "1", record.clone());
    let held = decoder.held_bytes();
    let other = table_of(vec![("severity_text", dictionary(&[1], &["a", "behind"]))]);
    let mut producer = Producer::new(&other.schema());
    let table = read_logs(
        &mut decoder,
        "1",
        producer.record(std::slice::from_ref(&other)),
    );
    assert_eq!((table.num_columns(), texts(&table)), (1, some(&["behind"])));
    let table = read_logs(&mut decoder, "1", producer.record(&[other]));
    assert_eq!(texts(&table), some(&["behind"]));
    assert_eq!(
        texts(&read_logs(&mut decoder, "1", record)),
        some(&["before"])
    );
    assert_eq!((decoder.readers(), decoder.held_bytes()), (1, held));
}

/// Scenario: a record ends its IPC stream; the next begins one under the same id.
/// Guarantees: both are read; between them nothing is held.
#[test]
fn an_ended_stream_begins_again() {
    let batch = logs(0, &[0], &["a"]);
    let mut decoder = decoder();
    for _ in 0..2 {
        let mut producer = Producer::new(&batch.schema());
        let record = producer.last_record(std::slice::from_ref(&batch));
        let table = read_logs(&mut decoder, "1", record);
        assert_eq!(texts(&table), some(&["a"]));
        assert_eq!((decoder.readers(), decoder.held_bytes()), (0, 0));
    }
}

/// Scenario: a schema and no batch; a record without a byte where the stream goes on; a column of nulls without its dictionary.
/// Guarantees: they are tables without rows, and nulls.
#[test]
fn little_or_nothing_is_a_table() {
    let batch = logs(0, &[], &[]);
    let mut producer = Producer::new(&batch.schema());
    let mut decoder = decoder();
    for record in [producer.record(&[]), Bytes::new()] {
        let tables = decoder.read(&logs_batch("1", record), 0).unwrap();
        assert!(tables.get(ArrowPayloadType::Logs).is_none());
    }
    let record = producer.record(&[logs(0, &[9, 9], &[])]);
    assert_eq!(texts(&read_logs(&mut decoder, "1", record)), [None, None]);
    let tables = decoder.read(&batch_of(Vec::new()), 0).unwrap();
    assert!(tables.get(ArrowPayloadType::Logs).is_none());
}

/// Scenario: all types that OTAP's tables have, and those that are as good.
/// Guarantees: none is refused, in any compression, and the fields keep their metadata.
#[test]
fn every_type_of_otap_is_read() {
    use arrow::array::*;
    use arrow::datatypes::*;
    let list =
        ListArray::from_iter_primitive::<UInt64Type, _, _>([Some(vec![Some(1), None]), None]);
    let ids = FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [2; 16]].into_iter()).unwrap();
    let spans: DictionaryArray<UInt16Type> = DictionaryArray::new(
        UInt16Array::from(vec![0, 1]),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 8], [2; 8]].into_iter()).unwrap()),
    );
    let durations: DictionaryArray<UInt8Type> = DictionaryArray::new(
        UInt8Array::from(vec![Some(0), None]),
        Arc::new(DurationNanosecondArray::from(vec![7])),
    );
    let inner = Field::new("id", DataType::UInt16, true)
        .with_metadata([("encoding".to_owned(), "delta".to_owned())]);
    let resource = StructArray::new(
        vec![inner, Field::new("counts", list.data_type().clone(), true)].into(),
        vec![
            Arc::new(UInt16Array::from(vec![None, Some(2)])),
            Arc::new(list),
        ],
        Some(vec![true, false].into()),
    );
    let table = table_of(vec![
        ("resource", Arc::new(resource)),
        (
            "time",
            Arc::new(TimestampNanosecondArray::from(vec![1, 2]).with_timezone("UTC")),
        ),
        ("trace_id", Arc::new(ids)),
        ("span_id", Arc::new(spans)),
        ("duration", Arc::new(durations)),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("double", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
        ("int", Arc::new(Int64Array::from(vec![None, Some(-1)]))),
        ("ser", Arc::new(BinaryArray::from_vec(vec![b"", b"\xff"]))),
        ("large", Arc::new(LargeStringArray::from(vec!["a", "b"]))),
        ("nothing", Arc::new(NullArray::new(2))),
        ("type", Arc::new(UInt8Array::from(vec![0, 7]))),
    ]);
    for compression in COMPRESSIONS {
        let mut producer = Producer::with(&table.schema(), compression, DictionaryHandling::Delta);
        let record = producer.record(std::slice::from_ref(&table));
        let read = read_logs(&mut decoder(), "1", record);
        assert_eq!(
            format!("{:?}", read.columns()),
            format!("{:?}", table.columns())
        );
        for (read, written) in read.schema().fields().iter().zip(table.schema().fields()) {
            assert_eq!(read.data_type(), written.data_type());
            assert_eq!(read.name(), written.name());
        }
        let encoding = |table: &RecordBatch| {
            let resource = table.column_by_name("resource").unwrap();
            let id = resource.as_struct().fields()[0].clone();
            id.metadata().get("encoding").cloned()
        };
        assert_eq!(encoding(&read), encoding(&table));
        assert!(encoding(&read).is_some());
    }
}
