//! Columns of every type, held against arrow-ipc's own reader.

use std::io::Cursor;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, DurationNanosecondArray, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, LargeBinaryArray,
    LargeListArray, LargeStringArray, ListArray, NullArray, StructArray, Time64NanosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Fields, UInt64Type};
use arrow_ipc::reader::StreamReader;
use proptest::prelude::*;

use super::*;

/// What a row has in each of the columns, one way or the other; none is null.
type Cells = Vec<Option<u16>>;

fn primitives(cells: &Cells) -> Vec<ArrayRef> {
    let wide = cells.iter().map(|cell| cell.map(i64::from));
    let bytes = cells.iter().map(|cell| cell.map(|it| it.to_le_bytes()[0]));
    let signed = bytes.clone().map(|cell| cell.map(u8::cast_signed));
    let counts = cells.iter().map(|cell| cell.map(u64::from));
    let doubles = cells.iter().map(|cell| cell.map(|it| f64::from(it) / 8.0));
    let times = wide.clone().collect::<TimestampNanosecondArray>();
    vec![
        Arc::new(bytes.collect::<UInt8Array>()),
        Arc::new(signed.collect::<Int8Array>()),
        Arc::new(UInt16Array::from(cells.clone())),
        Arc::new(
            cells
                .iter()
                .map(|cell| cell.map(u32::from))
                .collect::<UInt32Array>(),
        ),
        Arc::new(
            cells
                .iter()
                .map(|cell| cell.map(i32::from))
                .collect::<Int32Array>(),
        ),
        Arc::new(counts.collect::<UInt64Array>()),
        Arc::new(wide.clone().collect::<Int64Array>()),
        Arc::new(doubles.collect::<Float64Array>()),
        Arc::new(
            cells
                .iter()
                .map(|cell| cell.map(f32::from))
                .collect::<Float32Array>(),
        ),
        Arc::new(times.clone()),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(wide.clone().collect::<TimestampMicrosecondArray>()),
        Arc::new(wide.clone().collect::<DurationNanosecondArray>()),
        Arc::new(wide.collect::<Time64NanosecondArray>()),
        Arc::new(
            cells
                .iter()
                .map(|cell| cell.map(i32::from))
                .collect::<Date32Array>(),
        ),
        Arc::new(
            cells
                .iter()
                .map(|cell| cell.map(|it| it % 2 == 0))
                .collect::<BooleanArray>(),
        ),
        Arc::new(NullArray::new(cells.len())),
    ]
}

fn texts_and_bytes(cells: &Cells) -> Vec<ArrayRef> {
    let texts: Vec<Option<String>> = cells
        .iter()
        .map(|cell| cell.map(|it| "é".repeat(usize::from(it % 5))))
        .collect();
    let bytes = || texts.iter().map(|text| text.as_ref().map(String::as_bytes));
    let ids = cells
        .iter()
        .map(|cell| cell.map(|it| [it.to_le_bytes()[0]; 16]));
    let dictionary = |keys, values| {
        let of = DataType::Dictionary(Box::new(keys), Box::new(values));
        cast(&UInt16Array::from(cells.clone()), &of).unwrap()
    };
    vec![
        Arc::new(StringArray::from(texts.clone())),
        Arc::new(LargeStringArray::from(texts.clone())),
        Arc::new(bytes().collect::<BinaryArray>()),
        Arc::new(bytes().collect::<LargeBinaryArray>()),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap()),
        dictionary(DataType::UInt16, DataType::Utf8),
        dictionary(DataType::UInt16, DataType::Int64),
    ]
}

fn nested(cells: &Cells) -> Vec<ArrayRef> {
    let items = || {
        let list = |it: u16| (0..it % 4).map(|item| Some(u64::from(item)));
        cells.iter().map(move |cell| cell.map(list))
    };
    let lists = ListArray::from_iter_primitive::<UInt64Type, _, _>(items());
    let large = LargeListArray::from_iter_primitive::<UInt64Type, _, _>(items());
    let columns: Vec<ArrayRef> = primitives(cells)
        .into_iter()
        .chain(texts_and_bytes(cells).into_iter().take(5))
        .collect();
    let fields = columns.iter().enumerate();
    let fields: Fields = fields
        .map(|(place, it)| Field::new(format!("c{place}"), it.data_type().clone(), true))
        .collect();
    let nulls = cells.iter().map(|cell| cell.is_some_and(|it| it % 3 > 0));
    let whole = StructArray::new(fields.clone(), columns.clone(), None);
    let of_structs = ListArray::new(
        Arc::new(Field::new("item", whole.data_type().clone(), true)),
        lists_of_one(cells.len()),
        Arc::new(whole),
        None,
    );
    vec![
        Arc::new(lists),
        Arc::new(large),
        Arc::new(StructArray::new(fields, columns, Some(nulls.collect()))),
        Arc::new(of_structs),
        Arc::new(StructArray::new_empty_fields(cells.len(), None)),
    ]
}

fn lists_of_one(rows: usize) -> arrow::buffer::OffsetBuffer<i32> {
    arrow::buffer::OffsetBuffer::from_lengths(std::iter::repeat_n(1, rows))
}

proptest! {
    /// Scenario: a column of any type, any of its rows null, whole or cut out of a longer one, in each compression.
    /// Guarantees: what is read is what arrow-ipc reads.
    #[test]
    fn columns_are_read_as_arrow_ipc_reads_them(
        cells in prop::collection::vec(prop::option::weighted(0.8, any::<u16>()), 0..40),
        place in any::<prop::sample::Index>(),
        cut in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        is_whole in any::<bool>(),
        compression in prop::sample::select(COMPRESSIONS.to_vec()),
    ) {
        let columns = [primitives(&cells), texts_and_bytes(&cells), nested(&cells)].concat();
        let column = place.get(&columns);
        let (begin, end) = match is_whole {
            true => (0, cells.len()),
            false => {
                let cut = [cut.0, cut.1].map(|at| at.index(cells.len() + 1));
                (cut[0].min(cut[1]), cut[0].max(cut[1]))
            }
        };
        let batch = table_of(vec![("column", column.slice(begin, end - begin))]);
        let mut producer = Producer::with(&batch.schema(), compression, DictionaryHandling::Resend);
        let record = producer.last_record(std::slice::from_ref(&batch));
        let theirs = StreamReader::try_new(Cursor::new(&record[..]), None).unwrap().next();
        let tables = decoder().read(&logs_batch("1", record.clone()), 0).unwrap();
        match tables.get(ArrowPayloadType::Logs) {
            Some(ours) => {
                let theirs = theirs.unwrap().unwrap();
                prop_assert_eq!(ours.columns(), theirs.columns());
            }
            None => prop_assert_eq!(batch.num_rows(), 0),
        }
    }
}
