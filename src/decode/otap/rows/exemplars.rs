//! The tables of exemplars: `*_DP_EXEMPLARS` and `*_DP_EXEMPLAR_ATTRS`.

use arrow::datatypes::{TimestampNanosecondType, UInt32Type};

use super::arrays::{Identifiers, Numbers};
use super::attributes::Attributes;
use super::groups::{Groups, Index};
use super::ids::{self, Parents, same_double};
use super::{NumberValues, check_text, columns_of};
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{ExemplarFields, JsonText};

/// The exemplars of one kind of data point.
#[derive(Debug)]
pub(super) struct Exemplars<'a> {
    groups: Groups,
    time: Numbers<'a, TimestampNanosecondType>,
    values: NumberValues<'a>,
    trace_id: Identifiers<'a>,
    span_id: Identifiers<'a>,
    attributes: Attributes<'a>,
    json: JsonText,
}

impl<'a> Exemplars<'a> {
    pub(super) fn new(
        tables: &'a Tables,
        of: ArrowPayloadType,
        attributes: ArrowPayloadType,
        points: &Index,
    ) -> Result<Exemplars<'a>, DecodeError> {
        let columns = columns_of(tables, of)?;
        let values = NumberValues::new(&columns)?;
        let parents = Parents::<UInt32Type>::new(&columns)?;
        let explicit = parents.explicit();
        // No value is the same as no value: both producers agree.
        let parents = parents.quasi_delta(|row| {
            values.ints.get(row) == values.ints.get(row - 1)
                && same_double(&values.doubles, (row, row - 1), explicit)
        })?;
        let index = Index::new(&ids::own::<UInt32Type>(&columns, "id")?);
        Ok(Exemplars {
            groups: Groups::new(&columns, parents, points)?,
            time: columns.times("time_unix_nano")?,
            values,
            trace_id: columns.identifiers("trace_id", 16)?,
            span_id: columns.identifiers("span_id", 8)?,
            attributes: Attributes::of_u32(tables, attributes, &index)?,
            json: JsonText::new(),
        })
    }

    /// The exemplars of a point as one JSON list; empty when there are none.
    pub(super) fn list(&mut self, point: usize) -> Result<&str, DecodeError> {
        self.json.clear();
        for row in self.groups.of(point) {
            let row = *row as usize;
            self.attributes.select(row);
            self.json.push_exemplar(&ExemplarFields {
                time_unix_nano: self.time.unix_nano(row),
                value: self.values.get(row)?,
                trace_id: self.trace_id.or_default(row),
                span_id: self.span_id.or_default(row),
                filtered_attributes: self.attributes.write()?,
            });
            check_text(self.json.len())?;
        }
        self.json.end_list();
        Ok(self.json.as_str())
    }
}
