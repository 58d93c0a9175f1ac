//! A small producer: from OTLP messages to the tables that the decoder reads, in any legal form.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    StringArray, UInt8Array, UInt16Array, UInt32Array,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use minicbor::Encoder;

use super::{Columns, Form, structure, table, with_encoding};
use crate::decode::otap::tables::Tables;
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::resource::v1::Resource;

/// A batch under construction.
pub(super) struct Producer {
    pub(super) form: Form,
    pub(super) tables: Vec<(ArrowPayloadType, RecordBatch)>,
}

/// Attributes with their parents.
#[derive(Default)]
pub(super) struct AttributeRows(Vec<(u32, KeyValue)>);

impl AttributeRows {
    /// Adds the attributes of a parent.
    pub(super) fn add(&mut self, parent: u32, attributes: &[KeyValue]) {
        let rows = attributes
            .iter()
            .map(|attribute| (parent, attribute.clone()));
        self.0.extend(rows);
    }
}

/// Numbers things that have children, and leaves the others without an id.
#[derive(Default)]
pub(super) struct Counter(u32);

impl Counter {
    pub(super) fn next_if(&mut self, has_children: bool) -> Option<u32> {
        has_children.then(|| {
            self.0 += 1;
            self.0 - 1
        })
    }
}

pub(super) fn kind_of(value: &Option<AnyValue>) -> u8 {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        None | Some(Value::StringValueStrindex(_)) => 0,
        Some(Value::StringValue(_)) => 1,
        Some(Value::IntValue(_)) => 2,
        Some(Value::DoubleValue(_)) => 3,
        Some(Value::BoolValue(_)) => 4,
        Some(Value::KvlistValue(_)) => 5,
        Some(Value::ArrayValue(_)) => 6,
        Some(Value::BytesValue(_)) => 7,
    }
}

/// Writes a value as the producers do: maps and lists of indefinite length.
pub(super) fn cbor(encoder: &mut Encoder<&mut Vec<u8>>, value: &Option<AnyValue>) {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        None | Some(Value::StringValueStrindex(_)) => drop(encoder.null().unwrap()),
        Some(Value::StringValue(text)) => drop(encoder.str(text).unwrap()),
        Some(Value::IntValue(int)) => drop(encoder.i64(*int).unwrap()),
        Some(Value::DoubleValue(double)) => drop(encoder.f64(*double).unwrap()),
        Some(Value::BoolValue(bool)) => drop(encoder.bool(*bool).unwrap()),
        Some(Value::BytesValue(bytes)) => drop(encoder.bytes(bytes).unwrap()),
        Some(Value::ArrayValue(list)) => {
            encoder.begin_array().unwrap();
            for value in &list.values {
                cbor(encoder, &Some(value.clone()));
            }
            encoder.end().unwrap();
        }
        Some(Value::KvlistValue(map)) => {
            encoder.begin_map().unwrap();
            for entry in &map.values {
                encoder.str(&entry.key).unwrap();
                cbor(encoder, &entry.value);
            }
            encoder.end().unwrap();
        }
    }
}

/// A scalar's order within its kind.
fn order(left: &Option<AnyValue>, right: &Option<AnyValue>) -> Ordering {
    let inner = |value: &Option<AnyValue>| value.as_ref().and_then(|value| value.value.clone());
    match (inner(left), inner(right)) {
        (Some(Value::StringValue(left)), Some(Value::StringValue(right))) => left.cmp(&right),
        (Some(Value::IntValue(left)), Some(Value::IntValue(right))) => left.cmp(&right),
        (Some(Value::DoubleValue(left)), Some(Value::DoubleValue(right))) => left.total_cmp(&right),
        (Some(Value::BoolValue(left)), Some(Value::BoolValue(right))) => left.cmp(&right),
        (Some(Value::BytesValue(left)), Some(Value::BytesValue(right))) => left.cmp(&right),
        _ => Ordering::Equal,
    }
}

impl Producer {
    pub(super) fn new(form: &Form) -> Producer {
        Producer {
            form: form.clone(),
            tables: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Tables {
        super::tables(self.tables)
    }

    /// The array with a dictionary, if the form has them.
    pub(super) fn shared(&self, array: ArrayRef) -> ArrayRef {
        let Some(keys) = &self.form.keys else {
            return array;
        };
        let dictionary =
            |values: DataType| DataType::Dictionary(Box::new(keys.clone()), Box::new(values));
        let values = array.data_type().clone();
        if !matches!(values, DataType::Duration(_)) {
            return cast(&array, &dictionary(values)).unwrap();
        }
        // Arrow does not make dictionaries of durations, but of the integers that they are.
        let ints = cast(&array, &DataType::Int64).unwrap();
        let ints = cast(&ints, &dictionary(DataType::Int64)).unwrap();
        let ints = ints.as_any_dictionary();
        ints.with_values(cast(ints.values(), &values).unwrap())
    }

    pub(super) fn texts<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> ArrayRef {
        self.shared(Arc::new(StringArray::from_iter_values(texts)))
    }

    /// Ids of `LEN` bytes; an empty one is null.
    pub(super) fn identifiers<'t>(
        &self,
        ids: impl IntoIterator<Item = &'t [u8]>,
        len: i32,
    ) -> ArrayRef {
        let ids = ids.into_iter().map(|id| (!id.is_empty()).then_some(id));
        let ids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, len).unwrap();
        self.shared(Arc::new(ids))
    }

    /// Ids of a table's own rows, as the form encodes them.
    pub(super) fn own_ids(&self, ids: &[Option<u32>]) -> Vec<Option<u32>> {
        let mut before = 0;
        let delta = ids.iter().map(|id| {
            let id = (*id)?;
            let delta = id.wrapping_sub(before);
            before = id;
            Some(delta)
        });
        if self.form.plain {
            ids.to_vec()
        } else {
            delta.collect()
        }
    }

    /// Parents as the form encodes them: a difference where a row is the same as the one before.
    pub(super) fn parents(&self, parents: &[u32], same: impl Fn(usize) -> bool) -> Vec<u32> {
        let encoded = (0..parents.len()).map(|row| {
            if row > 0 && same(row) && !self.form.plain {
                parents[row].wrapping_sub(parents[row - 1])
            } else {
                parents[row]
            }
        });
        encoded.collect()
    }

    /// The table with the metadata that the form has, for the columns `id` and `parent_id`.
    pub(super) fn stated(&self, batch: &RecordBatch, parents: &str) -> RecordBatch {
        if !self.form.stated {
            return batch.clone();
        }
        let encoding = |of: &'static str| if self.form.plain { "plain" } else { of };
        let batch = with_encoding(batch, "id", encoding("delta"));
        let parents = match parents {
            "delta" => encoding("delta"),
            _ => encoding("quasidelta"),
        };
        with_encoding(&batch, "parent_id", parents)
    }

    /// The columns of values; those that no row has a value in are left out.
    pub(super) fn values(&self, values: &[Option<AnyValue>]) -> Columns {
        let inner = |row: usize| values[row].as_ref().and_then(|value| value.value.as_ref());
        let rows = 0..values.len();
        let texts = rows.clone().map(|row| match inner(row) {
            Some(Value::StringValue(text)) => Some(text.as_str()),
            _ => None,
        });
        let ints = rows.clone().map(|row| match inner(row) {
            Some(Value::IntValue(int)) => Some(*int),
            _ => None,
        });
        let doubles = rows.clone().map(|row| match inner(row) {
            Some(Value::DoubleValue(double)) => Some(*double),
            _ => None,
        });
        let bools = rows.clone().map(|row| match inner(row) {
            Some(Value::BoolValue(bool)) => Some(*bool),
            _ => None,
        });
        let bytes = rows.clone().map(|row| match inner(row) {
            Some(Value::BytesValue(bytes)) => Some(bytes.as_ref()),
            _ => None,
        });
        let trees = rows.map(|row| {
            let mut tree = Vec::new();
            matches!(kind_of(&values[row]), 5 | 6).then(|| {
                cbor(&mut Encoder::new(&mut tree), &values[row]);
                tree
            })
        });
        let kinds = values.iter().map(kind_of);
        let mut columns: Columns = vec![("type", Arc::new(UInt8Array::from_iter_values(kinds)))];
        let shared: [(&str, ArrayRef, bool); 6] = [
            ("str", Arc::new(texts.collect::<StringArray>()), true),
            ("int", Arc::new(ints.collect::<Int64Array>()), true),
            ("double", Arc::new(doubles.collect::<Float64Array>()), false),
            ("bool", Arc::new(bools.collect::<BooleanArray>()), false),
            ("bytes", Arc::new(bytes.collect::<BinaryArray>()), true),
            ("ser", Arc::new(trees.collect::<BinaryArray>()), true),
        ];
        for (name, array, dictionary) in shared {
            if array.null_count() < array.len() {
                let array = if dictionary {
                    self.shared(array)
                } else {
                    array
                };
                columns.push((name, array));
            }
        }
        columns
    }

    /// Adds an attribute table, sorted as the producers sort.
    pub(super) fn attributes(&mut self, of: ArrowPayloadType, rows: AttributeRows, wide: bool) {
        let mut rows = rows.0;
        if rows.is_empty() {
            return;
        }
        rows.sort_by(|(left_parent, left), (right_parent, right)| {
            kind_of(&left.value)
                .cmp(&kind_of(&right.value))
                .then_with(|| left.key.cmp(&right.key))
                .then_with(|| order(&left.value, &right.value))
                .then(left_parent.cmp(right_parent))
        });
        let parents = rows.iter().map(|(parent, _)| *parent).collect::<Vec<u32>>();
        let parents = self.parents(&parents, |row| {
            let (_, left) = &rows[row - 1];
            let (_, right) = &rows[row];
            // Equal as the form's producer has it: the Rust one states its encoding and compares bits.
            let equal = match (&left.value, &right.value) {
                (Some(left), Some(right)) => match (&left.value, &right.value) {
                    (Some(Value::DoubleValue(left)), Some(Value::DoubleValue(right))) => {
                        if self.form.stated {
                            left.to_bits() == right.to_bits()
                        } else {
                            left == right
                        }
                    }
                    (left, right) => left == right,
                },
                _ => false,
            };
            left.key == right.key && equal && !matches!(kind_of(&left.value), 0 | 5 | 6)
        });
        let parent_ids: ArrayRef = if wide {
            self.shared(Arc::new(UInt32Array::from(parents)))
        } else {
            Arc::new(UInt16Array::from_iter_values(
                parents.iter().map(|parent| *parent as u16),
            ))
        };
        let keys = self.texts(rows.iter().map(|(_, attribute)| attribute.key.as_str()));
        let mut columns: Columns = vec![("parent_id", parent_ids), ("key", keys)];
        let values = rows.into_iter().map(|(_, attribute)| attribute.value);
        columns.extend(self.values(&values.collect::<Vec<Option<AnyValue>>>()));
        let batch = self.stated(&table(columns), "quasidelta");
        self.tables.push((of, batch));
    }

    /// The columns `resource`, `scope` and `schema_url` of a root table, and the tables of their attributes. Each row says
    /// which resource and scope it has, and their schema URLs.
    pub(super) fn context(&mut self, rows: &[(&Group<'_>, &Group<'_>)]) -> Columns {
        let (mut resource_attributes, mut scope_attributes) = Default::default();
        let resources = side(
            rows.iter().map(|(resource, _)| *resource),
            &mut resource_attributes,
        );
        let scopes = side(rows.iter().map(|(_, scope)| *scope), &mut scope_attributes);
        self.attributes(ArrowPayloadType::ResourceAttrs, resource_attributes, false);
        self.attributes(ArrowPayloadType::ScopeAttrs, scope_attributes, false);
        let ids = |ids: &[Option<u32>]| -> ArrayRef {
            let ids = self.own_ids(ids).into_iter();
            Arc::new(UInt16Array::from_iter(ids.map(|id| id.map(|id| id as u16))))
        };
        let dropped = |groups: &mut dyn Iterator<Item = &Group<'_>>| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(
                groups.map(|group| group.dropped),
            ))
        };
        let mut resource = vec![
            ("id", ids(&resources)),
            (
                "schema_url",
                self.texts(rows.iter().map(|row| row.0.schema_url)),
            ),
        ];
        resource.push((
            "dropped_attributes_count",
            dropped(&mut rows.iter().map(|row| row.0)),
        ));
        let scope = vec![
            ("id", ids(&scopes)),
            ("name", self.texts(rows.iter().map(|row| row.1.name))),
            ("version", self.texts(rows.iter().map(|row| row.1.version))),
            (
                "dropped_attributes_count",
                dropped(&mut rows.iter().map(|row| row.1)),
            ),
        ];
        vec![
            ("resource", self.stated_structure(resource)),
            ("scope", self.stated_structure(scope)),
            (
                "schema_url",
                self.texts(rows.iter().map(|row| row.1.schema_url)),
            ),
        ]
    }

    /// A struct column whose `id` states its encoding, if the form does.
    fn stated_structure(&self, columns: Columns) -> ArrayRef {
        let batch = self.stated(&table(columns), "delta");
        if !self.form.stated {
            let columns = [
                "id",
                "schema_url",
                "name",
                "version",
                "dropped_attributes_count",
            ]
            .into_iter()
            .filter_map(|name| Some((name, batch.column_by_name(name)?.clone())));
            return structure(columns.collect());
        }
        Arc::new(arrow::array::StructArray::from(batch))
    }
}

/// A resource or a scope, whichever it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group<'a> {
    pub(super) number: usize,
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) schema_url: &'a str,
    pub(super) attributes: &'a [KeyValue],
    pub(super) dropped: u32,
}

impl<'a> Group<'a> {
    pub(super) fn resource(number: usize, resource: &'a Resource, schema_url: &'a str) -> Self {
        Group {
            number,
            schema_url,
            attributes: &resource.attributes,
            dropped: resource.dropped_attributes_count,
            ..Group::default()
        }
    }

    pub(super) fn scope(
        number: usize,
        scope: &'a InstrumentationScope,
        schema_url: &'a str,
    ) -> Self {
        Group {
            number,
            name: &scope.name,
            version: &scope.version,
            schema_url,
            attributes: &scope.attributes,
            dropped: scope.dropped_attributes_count,
        }
    }
}

/// The id of each row's group, and the attributes of each group once.
fn side<'g>(
    groups: impl Iterator<Item = &'g Group<'g>>,
    attributes: &mut AttributeRows,
) -> Vec<Option<u32>> {
    let mut seen = Vec::new();
    let ids = groups.map(|group| {
        let id = group.number as u32;
        if !seen.contains(&id) {
            seen.push(id);
            attributes.add(id, group.attributes);
        }
        Some(id)
    });
    ids.collect()
}
