//! Exemplars of data points, and their attributes.

use arrow::datatypes::{DataType, TimeUnit};

use super::ProduceError;
use super::attributes::{AttributeTable, Attributes};
use super::column::Column;
use super::ids::{Equality, IdColumn};
use super::options::Options;
use super::stream::{Session, Stream};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::metrics::v1::Exemplar;
use crate::proto::metrics::v1::exemplar::Value;

/// The exemplars of a batch with their parents, until they can be sorted.
pub(super) type Exemplars<'a> = Vec<(u32, &'a Exemplar)>;

/// The table of one kind of data points' exemplars, and that of their attributes.
pub(super) struct ExemplarTable {
    stream: Stream,
    id: IdColumn,
    parent: IdColumn,
    time: Column,
    int_value: Column,
    double_value: Column,
    span_id: Column,
    trace_id: Column,
    attributes: AttributeTable,
    equality: Equality,
}

impl ExemplarTable {
    pub(super) fn new(
        exemplars: ArrowPayloadType,
        attributes: ArrowPayloadType,
        options: &Options,
    ) -> ExemplarTable {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let id =
            |name, width| Column::new(name, DataType::FixedSizeBinary(width)).dictionary(options);
        ExemplarTable {
            stream: Stream::new(exemplars),
            id: IdColumn::delta("id", DataType::UInt32, options),
            parent: IdColumn::quasi_delta(DataType::UInt32, options),
            time: Column::new("time_unix_nano", timestamp),
            int_value: Column::new("int_value", DataType::Int64),
            double_value: Column::new("double_value", DataType::Float64),
            span_id: id("span_id", 8),
            trace_id: id("trace_id", 16),
            attributes: AttributeTable::wide(attributes, options),
            equality: Equality::of(options),
        }
    }

    /// Writes the batch's exemplars, sorted by value and parent, and their attributes.
    pub(super) fn finish(
        &mut self,
        mut exemplars: Exemplars<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        exemplars.sort_by_key(|(parent, exemplar)| (value_bits(exemplar), *parent));
        let mut attributes = Attributes::default();
        let mut next_id = 0;
        let mut before = None;
        for (row, (parent, exemplar)) in exemplars.iter().enumerate() {
            if !exemplar.filtered_attributes.is_empty() {
                self.id.set(row, next_id, true);
                self.attributes
                    .add(&mut attributes, next_id, &exemplar.filtered_attributes);
                next_id += 1;
            }
            // No value is the same as no value, unlike among attributes.
            let continues = before.is_some_and(|before| self.is_same(before, exemplar.value));
            self.parent.set(row, *parent, continues);
            self.time.set_nonzero(row, exemplar.time_unix_nano);
            match exemplar.value {
                Some(Value::AsInt(number)) => self.int_value.set_word(row, number.cast_unsigned()),
                Some(Value::AsDouble(number)) => self.double_value.set_word(row, number.to_bits()),
                None => {}
            }
            self.span_id
                .set_id(row, &exemplar.span_id, &session.options);
            self.trace_id
                .set_id(row, &exemplar.trace_id, &session.options);
            before = Some(exemplar.value);
        }
        let (rows, options) = (exemplars.len(), &session.options);
        let columns = [
            self.id.finish(rows, options)?,
            self.parent.finish(rows, options)?,
            self.time.finish(rows, options)?,
            self.int_value.finish(rows, options)?,
            self.double_value.finish(rows, options)?,
            self.span_id.finish(rows, options)?,
            self.trace_id.finish(rows, options)?,
        ];
        self.stream.write(columns, rows, session)?;
        self.attributes.finish(&attributes, session)
    }

    fn is_same(&self, left: Option<Value>, right: Option<Value>) -> bool {
        match (left, right) {
            (Some(Value::AsDouble(left)), Some(Value::AsDouble(right))) => {
                self.equality.is_equal(left.to_bits(), right.to_bits())
            }
            (left, right) => left == right,
        }
    }
}

/// The value's kind and bits: sorting by it brings equal values together.
fn value_bits(exemplar: &Exemplar) -> Option<(bool, u64)> {
    match exemplar.value? {
        Value::AsInt(number) => Some((false, number.cast_unsigned())),
        Value::AsDouble(number) => Some((true, number.to_bits())),
    }
}
