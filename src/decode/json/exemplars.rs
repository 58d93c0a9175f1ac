//! Exemplars of OTLP/JSON, and the value they share with number points.

use serde::de::{MapAccess, SeqAccess};

use super::Source;
use super::read::{Field, List, Message, ReadMessage};
use super::scalar::Id;
use super::value::{Entries, read_attributes};
use crate::rows::{ExemplarFields, JsonText, NumberValue};

/// The value of a number point or an exemplar.
pub(super) fn number_field<'a, A: MapAccess<'a>>(
    number: &mut NumberValue,
    name: &str,
    field: Field<'_, 'a, A>,
) -> Result<(), A::Error> {
    let value = match name {
        "asInt" | "as_int" => field.optional_int()?.map(NumberValue::Int),
        "asDouble" | "as_double" => field.optional_double()?.map(NumberValue::Double),
        _ => return field.skip(),
    };
    *number = value.unwrap_or(*number);
    Ok(())
}

/// The exemplars of a point, appended to their text.
pub(super) struct Exemplars<'s, 'a> {
    pub(super) source: &'s Source<'a>,
    pub(super) list: &'s mut JsonText,
    pub(super) entries: &'s mut Entries<'a>,
    pub(super) attributes: &'s mut JsonText,
}

impl<'a> List<'a> for Exemplars<'_, 'a> {
    const EXPECTED: &'static str = "a list of exemplars";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        self.attributes.clear();
        let mut exemplar = Exemplar {
            source: self.source,
            entries: self.entries,
            attributes: self.attributes,
            time_unix_nano: 0,
            value: NumberValue::None,
            ids: Default::default(),
        };
        match items.next_element_seed(ReadMessage(&mut exemplar))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => self.source.count_part()?,
        }
        let [trace_id, span_id] = &exemplar.ids;
        self.list.push_exemplar(&ExemplarFields {
            time_unix_nano: exemplar.time_unix_nano,
            value: exemplar.value,
            trace_id: trace_id.as_bytes(),
            span_id: span_id.as_bytes(),
            filtered_attributes: exemplar.attributes.as_str(),
        });
        Ok(true)
    }
}

struct Exemplar<'s, 'a> {
    source: &'s Source<'a>,
    entries: &'s mut Entries<'a>,
    attributes: &'s mut JsonText,
    time_unix_nano: u64,
    value: NumberValue,
    /// Trace and span.
    ids: [Id; 2],
}

impl<'a> Message<'a> for Exemplar<'_, 'a> {
    const EXPECTED: &'static str = "an exemplar object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let [trace_id, span_id] = &mut self.ids;
        match name {
            "timeUnixNano" | "time_unix_nano" => self.time_unix_nano = field.int()?,
            "traceId" | "trace_id" => *trace_id = field.id()?,
            "spanId" | "span_id" => *span_id = field.id()?,
            "filteredAttributes" | "filtered_attributes" => {
                read_attributes(field, self.source, self.entries, self.attributes)?;
            }
            _ => number_field(&mut self.value, name, field)?,
        }
        Ok(())
    }
}
