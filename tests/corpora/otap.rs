//! What the fuzzers of OTAP begin with.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray,
    StringArray, StructArray, TimestampNanosecondArray, UInt8Array, UInt16Array,
};
use arrow::datatypes::{Field, UInt8Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamWriter};
use bytes::Bytes;
use otlake::proto::arrow::ArrowPayloadType as Type;
use otlake::proto::arrow::{ArrowPayload, BatchArrowRecords};
use prost::Message as _;

use super::write;

/// A type's IPC stream, and what each of its batches has.
struct Written {
    payload_type: Type,
    writer: StreamWriter<Vec<u8>>,
    table: fn(usize) -> RecordBatch,
}

impl Written {
    fn new(
        payload_type: Type,
        compression: Option<CompressionType>,
        table: fn(usize) -> RecordBatch,
    ) -> Written {
        let options = IpcWriteOptions::default()
            .try_with_compression(compression)
            .unwrap()
            .with_dictionary_handling(DictionaryHandling::Delta);
        let schema = table(0).schema();
        let writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
        Written {
            payload_type,
            writer,
            table,
        }
    }

    fn record(&mut self, number: usize) -> Bytes {
        self.writer.write(&(self.table)(number)).unwrap();
        self.writer.flush().unwrap();
        Bytes::from(std::mem::take(self.writer.get_mut()))
    }
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Texts of a dictionary that has one more in each batch; long enough to be smaller when they are compressed, which they are
/// not otherwise.
fn texts(number: usize) -> ArrayRef {
    let text = |it| format!("text {it} ").repeat(20);
    let values: Vec<String> = (0..=number + 1).map(text).collect();
    let newest = u8::try_from(number).unwrap();
    let keys = UInt8Array::from(vec![newest, newest + 1]);
    let values = Arc::new(StringArray::from(values));
    Arc::new(DictionaryArray::<UInt8Type>::new(keys, values))
}

fn numbers() -> ArrayRef {
    Arc::new(UInt16Array::from(vec![1, 1]))
}

fn times() -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(vec![1, 2]))
}

fn attributes(number: usize) -> RecordBatch {
    table(vec![
        ("parent_id", numbers()),
        ("key", texts(number)),
        ("type", Arc::new(UInt8Array::from(vec![1, 2]))),
        (
            "str",
            Arc::new(StringArray::from(vec![Some("value"), None])),
        ),
        ("int", Arc::new(Int64Array::from(vec![None, Some(7)]))),
    ])
}

fn logs(number: usize) -> RecordBatch {
    let id = Field::new("id", numbers().data_type().clone(), true);
    let body = vec![
        Field::new("type", arrow::datatypes::DataType::UInt8, false),
        Field::new("str", texts(0).data_type().clone(), true),
    ];
    let types: ArrayRef = Arc::new(UInt8Array::from(vec![1, 1]));
    table(vec![
        ("id", numbers()),
        (
            "resource",
            Arc::new(StructArray::new(vec![id].into(), vec![numbers()], None)),
        ),
        ("time_unix_nano", times()),
        ("severity_text", texts(number)),
        (
            "body",
            Arc::new(StructArray::new(
                body.into(),
                vec![types, texts(number)],
                None,
            )),
        ),
    ])
}

fn spans(number: usize) -> RecordBatch {
    let fixed = |byte: u8, len: usize| -> ArrayRef {
        let values = [vec![byte; len], vec![byte + 1; len]];
        Arc::new(FixedSizeBinaryArray::try_from_iter(values.into_iter()).unwrap())
    };
    table(vec![
        ("id", numbers()),
        ("start_time_unix_nano", times()),
        ("trace_id", fixed(1, 16)),
        ("span_id", fixed(1, 8)),
        ("name", texts(number)),
    ])
}

fn metrics(number: usize) -> RecordBatch {
    table(vec![
        ("id", numbers()),
        ("metric_type", Arc::new(UInt8Array::from(vec![3, 3]))),
        ("name", texts(number)),
    ])
}

fn histograms(_: usize) -> RecordBatch {
    let counts = [Some(vec![Some(1), Some(2)]), None];
    table(vec![
        ("parent_id", numbers()),
        ("time_unix_nano", times()),
        ("sum", Arc::new(Float64Array::from(vec![1.5, 2.5]))),
        (
            "bucket_counts",
            Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(counts)),
        ),
    ])
}

/// Writes the inputs that the fuzzers begin with: three batches of each signal, in each compression, with dictionaries that
/// grow, and headers.
#[test]
#[ignore = "writes the first inputs of the fuzzers anew: only where their format has changed"]
fn write_the_first_inputs() {
    type Tables = &'static [(Type, fn(usize) -> RecordBatch)];
    let signals: [(&str, Tables); 3] = [
        (
            "logs",
            &[
                (Type::Logs, logs),
                (Type::LogAttrs, attributes),
                (Type::ResourceAttrs, attributes),
            ],
        ),
        (
            "traces",
            &[(Type::Spans, spans), (Type::ScopeAttrs, attributes)],
        ),
        (
            "metrics",
            &[
                (Type::UnivariateMetrics, metrics),
                (Type::HistogramDataPoints, histograms),
            ],
        ),
    ];
    let compressions = [
        ("plain", None),
        ("zstd", Some(CompressionType::ZSTD)),
        ("lz4", Some(CompressionType::LZ4_FRAME)),
    ];
    for (signal, (name, tables)) in (0..).zip(signals) {
        for (how, compression) in compressions {
            let mut streams: Vec<Written> = tables
                .iter()
                .map(|(payload_type, table)| Written::new(*payload_type, compression, *table))
                .collect();
            let mut records = vec![Vec::new(); streams.len()];
            let mut stream = vec![signal];
            for number in 0..3 {
                let mut batch = BatchArrowRecords {
                    batch_id: i64::try_from(number).unwrap(),
                    headers: headers(number),
                    ..BatchArrowRecords::default()
                };
                for (place, written) in streams.iter_mut().enumerate() {
                    let record = written.record(number);
                    records[place].extend(u16::try_from(record.len()).unwrap().to_le_bytes());
                    records[place].extend_from_slice(&record);
                    batch.arrow_payloads.push(ArrowPayload {
                        schema_id: place.to_string(),
                        r#type: written.payload_type.into(),
                        record,
                    });
                }
                stream.extend(batch.encode_length_delimited_to_vec());
                if number == 0 {
                    let one = [&[signal][..], &batch.encode_to_vec()].concat();
                    write("otap_batch", &format!("{name}_{how}"), &one);
                }
            }
            write("otap_stream", &format!("{name}_{how}"), &stream);
            let payload_type = u8::try_from(i32::from(streams[0].payload_type)).unwrap();
            let first = [&[payload_type][..], &records[0]].concat();
            write("otap_prewalk", &format!("{name}_{how}"), &first);
        }
    }
}

/// The headers of RFC 7541, C.3: the second and third name what the ones before put into the table.
fn headers(number: usize) -> Bytes {
    Bytes::from_static(match number {
        0 => b"\x82\x86\x84\x41\x0fwww.example.com",
        1 => b"\x82\x86\x84\xbe\x58\x08no-cache",
        _ => b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    })
}
