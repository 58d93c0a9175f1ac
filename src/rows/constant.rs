//! Columns that have nothing in them: texts that are all null, numbers that are all zero.
//!
//! Most requests have several, and requests of one sender mostly have as many rows: each thread keeps the last such columns and
//! hands them out again. Of a request of ten records that spares a third of all allocations, which another thread would free.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, PrimitiveArray, new_null_array};
use arrow::datatypes::{ArrowPrimitiveType, DataType};

/// Longer columns are not kept: they are seldom, and cost little beside their rows.
const KEPT_ROWS_MAX: usize = 1024;

/// Columns that a thread keeps: a few types, and a few lengths of each.
const KEPT_MAX: usize = 16;

thread_local! {
    /// Those handed out last at the end.
    static KEPT: RefCell<Vec<ArrayRef>> = const { RefCell::new(Vec::new()) };
}

/// So many texts that are null.
pub(super) fn nulls(rows: usize) -> ArrayRef {
    let make = || new_null_array(&DataType::Utf8View, rows);
    kept(&DataType::Utf8View, rows, make)
}

/// So many zeros.
pub(super) fn zeros<T: ArrowPrimitiveType>(rows: usize) -> ArrayRef {
    let make = || {
        let values = vec![T::Native::default(); rows];
        Arc::new(PrimitiveArray::<T>::new(values.into(), None)) as ArrayRef
    };
    kept(&T::DATA_TYPE, rows, make)
}

fn kept(data_type: &DataType, rows: usize, make: impl FnOnce() -> ArrayRef) -> ArrayRef {
    if rows > KEPT_ROWS_MAX {
        return make();
    }
    KEPT.with_borrow_mut(|kept| {
        let is_it = |column: &ArrayRef| column.len() == rows && column.data_type() == data_type;
        match kept.iter().rposition(is_it) {
            Some(place) => {
                if let Some(behind) = kept.get_mut(place..) {
                    behind.rotate_left(1);
                }
            }
            None => {
                if kept.len() == KEPT_MAX {
                    kept.remove(0);
                }
                kept.push(make());
            }
        }
        kept.last()
            .cloned()
            .unwrap_or_else(|| new_null_array(data_type, rows))
    })
}
