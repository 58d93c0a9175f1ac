//! Ids: delta and quasi-delta encoding, and joins.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, StringArray, UInt8Array, UInt16Array,
    UInt32Array,
};
use arrow::datatypes::{UInt16Type, UInt32Type};
use proptest::prelude::*;

use super::super::columns::Columns;
use super::super::groups::{Groups, Index};
use super::super::ids::{Parents, own};
use super::*;

fn own_ids(ids: Vec<Option<u16>>, encoding: Option<&str>) -> Result<Vec<Option<u32>>, DecodeError> {
    let mut batch = table(vec![("id", Arc::new(UInt16Array::from(ids)) as ArrayRef)]);
    if let Some(encoding) = encoding {
        batch = with_encoding(&batch, "id", encoding);
    }
    own::<UInt16Type>(&Columns::of_table("T", Some(&batch))?, "id")
}

/// Scenario: ids with nulls between them and a sum beyond 16 bits, in every encoding.
/// Guarantees: nulls stay and do not count, the sum wraps around, plain ids are as they are, unknown encodings are refused.
#[test]
fn own_ids_are_differences_unless_they_say_otherwise() {
    let ids = vec![Some(65_535), None, Some(2), Some(0), None];
    let sums = [Some(65_535), None, Some(1), Some(1), None];
    assert_eq!(own_ids(ids.clone(), None).unwrap(), sums);
    assert_eq!(own_ids(ids.clone(), Some("delta")).unwrap(), sums);
    let plain = [Some(65_535), None, Some(2), Some(0), None];
    assert_eq!(own_ids(ids.clone(), Some("plain")).unwrap(), plain);
    for encoding in ["quasidelta", "", "Plain"] {
        let error = own_ids(ids.clone(), Some(encoding)).unwrap_err();
        assert!(error.to_string().contains("column id of T"), "{error}");
    }
}

/// Scenario: an id column that is missing.
/// Guarantees: no row has an id.
#[test]
fn a_missing_id_column_is_null() {
    let batch = table(vec![(
        "x",
        Arc::new(UInt16Array::from(vec![1, 2])) as ArrayRef,
    )]);
    let columns = Columns::of_table("T", Some(&batch)).unwrap();
    assert_eq!(own::<UInt16Type>(&columns, "id").unwrap(), [None, None]);
}

/// The ids of logs' attributes: `(parent_id, type, key)` a row, beside value columns.
fn attribute_parents(
    rows: &[(u16, u8, &str)],
    values: Vec<(&'static str, ArrayRef)>,
    encoding: Option<&str>,
) -> Vec<String> {
    let parents = rows.iter().map(|row| row.0);
    let keys = rows.iter().map(|row| row.2);
    let kinds = rows.iter().map(|row| row.1);
    let mut columns: super::Columns = vec![
        (
            "parent_id",
            Arc::new(UInt16Array::from_iter_values(parents)),
        ),
        ("key", Arc::new(StringArray::from_iter_values(keys))),
        ("type", Arc::new(UInt8Array::from_iter_values(kinds))),
    ];
    columns.extend(values);
    let mut attrs = table(columns);
    if let Some(encoding) = encoding {
        attrs = with_encoding(&attrs, "parent_id", encoding);
    }
    let ids: ArrayRef = Arc::new(UInt16Array::from(vec![0, 1, 1, 1]));
    let tables = tables([
        (ArrowPayloadType::Logs, table(vec![("id", ids)])),
        (ArrowPayloadType::LogAttrs, attrs),
    ]);
    let rows = decode(Signal::Logs, &tables).unwrap();
    column(&rows, Table::Logs, "log_attributes")
}

/// Scenario: attribute rows that equal the row before in some of kind, key and value; among them null, empty, map and list.
/// Guarantees: a parent id is a difference only after a row of the same kind, key and value, which those never are.
#[test]
fn attributes_are_quasi_delta_encoded() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![
        Some("v"),
        Some("v"),
        Some("v"),
        Some("w"),
        None,
        None,
        None,
    ]));
    let rows = [
        (0, 1, "a"),
        (2, 1, "a"),
        (1, 1, "b"),
        (1, 1, "c"),
        (2, 1, "d"),
        (2, 1, "d"),
        (3, 0, "d"),
    ];
    for encoding in [None, Some("quasidelta")] {
        assert_eq!(
            attribute_parents(&rows, vec![("str", texts.clone())], encoding),
            [
                r#"{"a":"v"}"#,
                r#"{"b":"v","c":"w"}"#,
                r#"{"a":"v","d":""}"#,
                r#"{"d":null}"#
            ]
        );
    }
    let trees: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\xa0"[..]; 4]));
    let rows = [(1, 5, "a"), (2, 5, "a"), (1, 6, "b"), (2, 6, "b")];
    assert_eq!(
        attribute_parents(&rows, vec![("ser", trees)], None),
        ["-", r#"{"a":{},"b":{}}"#, r#"{"a":{},"b":{}}"#, "-"]
    );
    let rows = [(1, 0, "a"), (2, 0, "a")];
    assert_eq!(
        attribute_parents(&rows, vec![], None),
        ["-", r#"{"a":null}"#, r#"{"a":null}"#, "-"]
    );
}

/// Scenario: the same rows, said to be plain or delta encoded.
/// Guarantees: the metadata decides.
#[test]
fn the_metadata_says_how_parents_are_encoded() {
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![7, 7, 8]));
    let rows = [(1, 2, "a"), (1, 2, "b"), (1, 2, "b")];
    let plain = attribute_parents(&rows, vec![("int", ints.clone())], Some("plain"));
    assert_eq!(plain, ["-", r#"{"a":7,"b":8}"#, "-", "-"]);
    let delta = attribute_parents(&rows, vec![("int", ints)], Some("delta"));
    assert_eq!(delta, ["-", r#"{"a":7}"#, r#"{"b":7}"#, r#"{"b":8}"#]);
}

/// Scenario: zeros of both signs, NaN twice, and no bytes twice, as the Go producer encodes them (which writes no metadata
/// and no bytes as null) and as the Rust one does.
/// Guarantees: each is decoded as its producer compares.
#[test]
fn each_producer_is_decoded_as_it_compares() {
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, f64::NAN]));
    let rows = [(0, 3, "z"), (1, 3, "z"), (0, 3, "n"), (1, 3, "n")];
    let values = || vec![("double", doubles.clone())];
    let expected = [
        r#"{"n":"NaN","z":0.0}"#,
        r#"{"n":"NaN","z":-0.0}"#,
        "-",
        "-",
    ];
    // Only NaN after NaN is a difference for Rust, only -0.0 after 0.0 for Go: with 1 on top of 0 both read as 1.
    assert_eq!(attribute_parents(&rows, values(), None), expected);
    assert_eq!(
        attribute_parents(&rows, values(), Some("quasidelta")),
        expected
    );
    // On top of 1 they differ.
    let rows = [(1, 3, "z"), (1, 3, "z"), (1, 3, "n"), (1, 3, "n")];
    assert_eq!(
        attribute_parents(&rows, values(), None),
        ["-", r#"{"n":"NaN","z":0.0}"#, r#"{"z":-0.0}"#, "-"]
    );
    assert_eq!(
        attribute_parents(&rows, values(), Some("quasidelta")),
        ["-", r#"{"n":"NaN","z":-0.0}"#, r#"{"n":"NaN"}"#, "-"]
    );
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![None::<&[u8]>; 2]));
    let rows = [(1, 7, "b"), (1, 7, "b")];
    assert_eq!(
        attribute_parents(&rows, vec![("bytes", bytes.clone())], None),
        ["-", r#"{"b":""}"#, r#"{"b":""}"#, "-"]
    );
    assert_eq!(
        attribute_parents(&rows, vec![("bytes", bytes)], Some("quasidelta")),
        ["-", r#"{"b":""}"#, "-", "-"]
    );
}

/// The children of each parent, or why there are none.
fn join(parents: &[Option<u32>], children: Vec<u32>) -> Result<Vec<Vec<u32>>, String> {
    let columns = Columns::of_table("CHILDREN", None).unwrap();
    let index = Index::new(parents);
    let groups = Groups::new(&columns, children, &index).map_err(|error| error.to_string())?;
    Ok((0..parents.len())
        .map(|parent| groups.of(parent).to_vec())
        .collect())
}

/// Scenario: parents with and without an id, some of them with the same, small and very large ids.
/// Guarantees: children come in their own order; one without a parent, or with two, is refused.
#[test]
fn children_are_joined_to_the_one_parent_that_exists() {
    for far in [0, 1 << 20, u32::MAX - 9] {
        let parents = [Some(far + 4), None, Some(far), Some(far + 9), Some(far + 9)];
        let children = vec![far, far + 4, far, far + 4, far];
        let joined = join(&parents, children).unwrap();
        assert_eq!(joined, [vec![1, 3], vec![], vec![0, 2, 4], vec![], vec![]]);
        assert_eq!(
            join(&parents, vec![far, far + 5]).unwrap_err(),
            format!(
                "row 1 of CHILDREN has parent {}, which does not exist",
                far + 5
            )
        );
        assert_eq!(
            join(&parents, vec![far + 9]).unwrap_err(),
            format!(
                "row 0 of CHILDREN has parent {}, which several rows are",
                far + 9
            )
        );
    }
    assert_eq!(join(&[Some(1)], vec![]).unwrap(), [Vec::<u32>::new()]);
    assert!(join(&[], vec![0]).is_err());
}

proptest! {
    /// Scenario: any ids with nulls between them, encoded as differences.
    /// Guarantees: the same ids.
    #[test]
    fn differences_read_back(ids in proptest::collection::vec(proptest::option::of(0u32..), 0..50)) {
        let mut before = 0u32;
        let encoded = ids.iter().map(|id| {
            let difference = (*id)?.wrapping_sub(before);
            before = (*id)?;
            Some(difference)
        });
        let encoded: ArrayRef = Arc::new(encoded.collect::<UInt32Array>());
        let batch = table(vec![("id", encoded)]);
        let columns = Columns::of_table("T", Some(&batch)).unwrap();
        prop_assert_eq!(own::<UInt32Type>(&columns, "id").unwrap(), ids);
    }

    /// Scenario: any parents of rows with few distinct values, encoded as differences where the value stays.
    /// Guarantees: the same parents.
    #[test]
    fn quasi_differences_read_back(rows in proptest::collection::vec((0u16.., 0u8..3), 1..50)) {
        let same = |row: usize| rows[row].1 == rows[row - 1].1;
        let encoded = (0..rows.len()).map(|row| match row > 0 && same(row) {
            true => rows[row].0.wrapping_sub(rows[row - 1].0),
            false => rows[row].0,
        });
        let encoded: ArrayRef = Arc::new(UInt16Array::from_iter_values(encoded));
        let batch = table(vec![("parent_id", encoded)]);
        let columns = Columns::of_table("T", Some(&batch)).unwrap();
        let parents = Parents::<UInt16Type>::new(&columns).unwrap().quasi_delta(same).unwrap();
        let expected = rows.iter().map(|row| u32::from(row.0)).collect::<Vec<u32>>();
        prop_assert_eq!(parents, expected);
    }

    /// Scenario: any parents and children.
    /// Guarantees: every child stands with its parent, once, in order.
    #[test]
    fn joins_are_complete(
        parents in proptest::collection::btree_set(0u32..200_000, 1..40),
        children in proptest::collection::vec(0usize..40, 0..60),
    ) {
        let parents = parents.into_iter().rev().map(Some).collect::<Vec<Option<u32>>>();
        let places = children.iter().map(|place| place % parents.len()).collect::<Vec<usize>>();
        let ids = places.iter().map(|place| parents[*place].unwrap()).collect();
        let joined = join(&parents, ids).unwrap();
        for (parent, rows) in joined.iter().enumerate() {
            let expected = (0u32..).zip(&places).filter(|(_, place)| **place == parent);
            let expected = expected.map(|(row, _)| row).collect::<Vec<u32>>();
            prop_assert_eq!(rows, &expected);
        }
    }
}
