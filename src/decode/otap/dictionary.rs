//! Dictionaries that grow.
//!
//! Every batch of a stream adds its new values to the dictionaries that the ones before have filled. They grow in their place,
//! as long as no table of this batch refers to them: copied each time, the dictionary of bodies or of trace ids would cost more
//! than the batch.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, FixedSizeBinaryArray, GenericByteArray,
    PrimitiveArray, downcast_primitive_array,
};
use arrow::compute::concat;
use arrow::datatypes::{ByteArrayType, DataType};
use arrow::error::ArrowError;

/// The dictionary `before` with more values.
///
/// # Errors
/// [`ArrowError`] of values of another type, and of more than an array can have.
pub(super) fn append(before: ArrayRef, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if before.data_type() != values.data_type() {
        // It says what is wrong.
        return concat(&[&*before, &**values]);
    }
    match before.data_type() {
        DataType::Utf8 => append_bytes(
            before.as_string::<i32>().clone(),
            before,
            values.as_string(),
        ),
        DataType::Binary => append_bytes(
            before.as_binary::<i32>().clone(),
            before,
            values.as_binary(),
        ),
        DataType::FixedSizeBinary(_) => append_fixed(before, values.as_fixed_size_binary()),
        _ => append_numbers(before, values),
    }
}

fn append_bytes<T: ByteArrayType<Offset = i32>>(
    array: GenericByteArray<T>,
    before: ArrayRef,
    values: &GenericByteArray<T>,
) -> Result<ArrayRef, ArrowError> {
    drop(before);
    match array.into_builder() {
        Ok(mut builder) => {
            builder.append_array(values)?;
            Ok(Arc::new(builder.finish()))
        }
        Err(shared) => concat(&[&shared, values]),
    }
}

fn append_numbers(before: ArrayRef, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    fn of<T: ArrowPrimitiveType>(
        before: ArrayRef,
        values: &PrimitiveArray<T>,
    ) -> Result<ArrayRef, ArrowError> {
        let array = before.as_primitive::<T>().clone();
        drop(before);
        match array.into_builder() {
            Ok(mut builder) => {
                builder.append_array(values);
                Ok(Arc::new(builder.finish()))
            }
            Err(shared) => concat(&[&shared, values]),
        }
    }
    let values = values.as_ref();
    downcast_primitive_array!(
        values => of(before, values),
        _ => concat(&[&*before, values]),
    )
}

fn append_fixed(before: ArrayRef, values: &FixedSizeBinaryArray) -> Result<ArrayRef, ArrowError> {
    if before.null_count() > 0 || values.null_count() > 0 {
        return concat(&[&*before, values]);
    }
    let array = before.as_fixed_size_binary().clone();
    drop(before);
    let entries = array.len();
    let (value_bytes, bytes, _) = array.into_parts();
    // With its length each time, which ids of no bytes do not give.
    let array =
        |bytes, entries| FixedSizeBinaryArray::try_new_with_len(value_bytes, bytes, None, entries);
    match bytes.into_mutable() {
        Ok(mut bytes) => {
            bytes.extend_from_slice(values.value_data());
            Ok(Arc::new(array(bytes.into(), entries + values.len())?))
        }
        Err(bytes) => concat(&[&array(bytes, entries)?, values]),
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use arrow::array::{
        BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
        UInt8Array, new_empty_array,
    };

    use super::*;

    fn ids(count: u8, from: u8) -> ArrayRef {
        let ids = (from..from + count).map(|id| Some([id; 16]));
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap())
    }

    fn sometimes_null(count: u8, from: u8) -> ArrayRef {
        let ids = (from..from + count).map(|id| (id % 3 > 0).then_some([id; 8]));
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 8).unwrap())
    }

    /// The values `from` and up, of every type that a dictionary may have, and of one that it may not.
    fn arrays(count: u8, from: u8) -> Vec<ArrayRef> {
        let numbers = || (from..from + count).map(i64::from);
        let texts = || (from..from + count).map(|number| format!("text {number}"));
        vec![
            ids(count, from),
            sometimes_null(count, from),
            Arc::new(StringArray::from_iter_values(texts())),
            Arc::new(BinaryArray::from_iter_values(texts())),
            Arc::new(Int64Array::from_iter_values(numbers())),
            Arc::new(
                numbers()
                    .map(|it| (it % 2 == 0).then_some(it))
                    .collect::<Int64Array>(),
            ),
            Arc::new(TimestampNanosecondArray::from_iter_values(numbers()).with_timezone("UTC")),
            Arc::new(UInt8Array::from_iter_values(from..from + count)),
            Arc::new(Float64Array::from_iter_values(
                (from..from + count).map(f64::from),
            )),
            Arc::new(BooleanArray::from_iter(
                numbers().map(|it| Some(it % 2 == 0)),
            )),
        ]
    }

    /// Scenario: dictionaries of every type grow in several steps, none at all among them, alone and while another holds them.
    /// Guarantees: what comes out is what copying both would give, and who held the dictionary before still has the old one.
    #[test]
    fn every_type_grows() {
        for (place, empty) in arrays(0, 0).into_iter().enumerate() {
            let mut grown = new_empty_array(empty.data_type());
            let mut from = 0;
            for (count, is_held) in [(3, false), (0, false), (5, true), (1, false), (60, true)] {
                let values = &arrays(count, from)[place];
                let expected = concat(&[&*grown, &**values]).unwrap();
                let held = is_held.then(|| (Arc::clone(&grown), concat(&[&*grown]).unwrap()));
                grown = append(grown, values).unwrap();
                assert_eq!(*grown, *expected);
                if let Some((held, before)) = held {
                    assert_eq!(*held, *before);
                }
                from += count;
            }
            assert_eq!(grown.len(), 69);
        }
    }

    /// Scenario: a dictionary of ids and one of numbers that nobody holds, with room left.
    /// Guarantees: they grow where they lie, and are not copied with every batch.
    #[test]
    fn a_dictionary_grows_in_its_place() {
        let empty = new_empty_array(&DataType::FixedSizeBinary(16));
        let mut grown = append(empty, &ids(100, 0)).unwrap();
        let mut moves = 0;
        for from in 100..200 {
            let before = grown.as_fixed_size_binary().value_data().as_ptr();
            grown = append(grown, &ids(1, from)).unwrap();
            let now = grown.as_fixed_size_binary().value_data().as_ptr();
            moves += u32::from(!ptr::eq(before, now));
        }
        assert!(moves < 4, "{moves}");

        let mut grown: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let mut moves = 0;
        for from in 100..200 {
            let before = grown
                .as_primitive::<arrow::datatypes::Int64Type>()
                .values()
                .as_ptr();
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values([from]));
            grown = append(grown, &values).unwrap();
            let now = grown
                .as_primitive::<arrow::datatypes::Int64Type>()
                .values()
                .as_ptr();
            moves += u32::from(!ptr::eq(before, now));
        }
        assert!(moves < 4, "{moves}");
    }

    /// Scenario: values of another type, and ids of another length.
    /// Guarantees: an error, not a dictionary.
    #[test]
    fn other_types_are_refused() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert!(append(ids(1, 0), &texts).is_err());
        assert!(append(ids(1, 0), &sometimes_null(1, 0)).is_err());
        assert!(append(texts, &ids(1, 0)).is_err());
    }
}
