//! A table of attributes: of resources, scopes, records, data points and what hangs on them.

use arrow::datatypes::DataType;

use super::ProduceError;
use super::column::{Cell, Column};
use super::ids::IdColumn;
use super::options::Options;
use super::stream::{Session, Stream};
use super::values::{ValueCell, ValueColumns};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::common::v1::KeyValue;

/// One attribute of the batch.
#[derive(Clone, Copy, Debug)]
struct Attribute<'a> {
    parent: u32,
    key: Cell<'a>,
    value: ValueCell<'a>,
}

/// The attributes of a batch, until they can be sorted.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a>(Vec<Attribute<'a>>);

/// The columns of a table of attributes.
pub(super) struct AttributeTable {
    stream: Stream,
    parent: IdColumn,
    key: Column,
    value: ValueColumns,
}

impl AttributeTable {
    /// A table whose parents' ids have 16 bits.
    pub(super) fn narrow(payload_type: ArrowPayloadType, options: &Options) -> AttributeTable {
        let parent = IdColumn::quasi_delta(DataType::UInt16, options);
        AttributeTable::new(payload_type, parent, options)
    }

    /// A table whose parents' ids have 32 bits.
    pub(super) fn wide(payload_type: ArrowPayloadType, options: &Options) -> AttributeTable {
        let parent = IdColumn::quasi_delta(DataType::UInt32, options).dictionary(options);
        AttributeTable::new(payload_type, parent, options)
    }

    fn new(payload_type: ArrowPayloadType, parent: IdColumn, options: &Options) -> AttributeTable {
        AttributeTable {
            stream: Stream::new(payload_type),
            parent,
            key: Column::new("key", DataType::Utf8)
                .dictionary(options)
                .required(),
            value: ValueColumns::new(options),
        }
    }

    /// Adds a parent's attributes to those of the batch.
    pub(super) fn add<'a>(
        &mut self,
        attributes: &mut Attributes<'a>,
        parent: u32,
        added: &'a [KeyValue],
    ) {
        attributes.0.extend(added.iter().map(|added| Attribute {
            parent,
            key: self.key.bytes(added.key.as_bytes()),
            value: self.value.cell(added.value.as_ref()),
        }));
    }

    /// Writes the batch's attributes, sorted by type, key, value and parent: equal ones come together, so that their parents'
    /// ids become small differences.
    pub(super) fn finish(
        &mut self,
        attributes: &Attributes<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        let attributes = &attributes.0;
        let mut order: Vec<(u128, u32)> = (0_u32..)
            .zip(attributes)
            .map(|(place, attribute)| (attribute.sort_key(), place))
            .collect();
        order.sort_unstable();
        let mut before: Option<&Attribute<'_>> = None;
        for (row, (_, place)) in order.into_iter().enumerate() {
            let attribute = &attributes[place as usize];
            let continues = before.is_some_and(|before| {
                before.key == attribute.key && self.value.is_equal(&before.value, &attribute.value)
            });
            self.parent.set(row, attribute.parent, continues);
            self.key.set(row, attribute.key);
            self.value.set(row, attribute.value);
            before = Some(attribute);
        }
        let (rows, options) = (attributes.len(), &session.options);
        let head = [
            self.parent.finish(rows, options)?,
            self.key.finish(rows, options)?,
        ];
        let value = self.value.finish(rows, options)?;
        self.stream
            .write(head.into_iter().chain(value), rows, session)
    }
}

impl Attribute<'_> {
    /// Type, key, value, parent, from the highest bits to the lowest.
    fn sort_key(&self) -> u128 {
        let value = self.value.cell.map_or(0, Cell::sort_key);
        u128::from(self.value.kind as u8) << 96
            | u128::from(self.key.sort_key()) << 64
            | u128::from(value) << 32
            | u128::from(self.parent)
    }
}
