//! Data points of OTLP/JSON, of the five kinds.

use serde::de::{Error as _, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::Source;
use super::exemplars::{Exemplars, number_field};
use super::read::{Field, List, Message, ReadMessage};
use super::scalar;
use super::value::{Entries, read_attributes};
use crate::rows::{
    ExpHistogramPoint, HistogramPoint, JsonText, MetricKind, MetricRows, NumberPoint, NumberValue,
    PointFields, SummaryPoint,
};

/// Memory reused from point to point.
#[derive(Default)]
pub(super) struct PointScratch<'a> {
    entries: Entries<'a>,
    attributes: JsonText,
    exemplars: JsonText,
    /// The attributes of one exemplar.
    filtered_attributes: JsonText,
    /// Buckets of a histogram, or the positive ones.
    counts: Vec<u64>,
    negative_counts: Vec<u64>,
    /// Bounds of a histogram, or quantiles.
    doubles: Vec<f64>,
    quantile_values: Vec<f64>,
}

impl PointScratch<'_> {
    fn clear(&mut self) {
        self.attributes.clear();
        self.exemplars.clear();
        self.counts.clear();
        self.negative_counts.clear();
        self.doubles.clear();
        self.quantile_values.clear();
    }
}

/// The points of the builder's current metric.
pub(super) struct Points<'s, 'a> {
    source: &'s Source<'a>,
    kind: MetricKind,
    rows: &'s mut MetricRows,
    scratch: &'s mut PointScratch<'a>,
}

impl<'s, 'a> Points<'s, 'a> {
    pub(super) fn new(
        source: &'s Source<'a>,
        kind: MetricKind,
        rows: &'s mut MetricRows,
        scratch: &'s mut PointScratch<'a>,
    ) -> Points<'s, 'a> {
        Points {
            source,
            kind,
            rows,
            scratch,
        }
    }
}

impl<'a> List<'a> for Points<'_, 'a> {
    const EXPECTED: &'static str = "a list of data points";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        self.source.begin_record();
        self.scratch.clear();
        let mut point = Point {
            source: self.source,
            kind: self.kind,
            scratch: self.scratch,
            fields: PointFields::default(),
            number: NumberValue::None,
            distribution: ExpHistogramPoint::default(),
        };
        match items.next_element_seed(ReadMessage(&mut point))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => {}
        }
        let Point {
            fields,
            number,
            distribution,
            ..
        } = point;
        let scratch = &*self.scratch;
        let point = PointFields {
            attributes: scratch.attributes.as_str(),
            exemplars_json: scratch.exemplars.as_str(),
            ..fields
        };
        match self.kind {
            MetricKind::Gauge | MetricKind::Sum { .. } => self.rows.push_number(&NumberPoint {
                point,
                value: number,
            }),
            MetricKind::Histogram { .. } => self.rows.push_histogram(&HistogramPoint {
                point,
                count: distribution.count,
                sum: distribution.sum,
                min: distribution.min,
                max: distribution.max,
                bucket_counts: &scratch.counts,
                explicit_bounds: &scratch.doubles,
            }),
            MetricKind::ExpHistogram { .. } => self.rows.push_exp_histogram(&ExpHistogramPoint {
                point,
                positive_bucket_counts: &scratch.counts,
                negative_bucket_counts: &scratch.negative_counts,
                ..distribution
            }),
            MetricKind::Summary => self.rows.push_summary(&SummaryPoint {
                point,
                count: distribution.count,
                sum: distribution.sum.unwrap_or_default(),
                quantiles: &scratch.doubles,
                quantile_values: &scratch.quantile_values,
            }),
        }
        .map_err(|error| self.source.abort(error.into()))?;
        Ok(true)
    }
}

/// A point of any kind; the fields that its own kind does not have are unknown ones.
struct Point<'s, 'a> {
    source: &'s Source<'a>,
    kind: MetricKind,
    scratch: &'s mut PointScratch<'a>,
    fields: PointFields<'static>,
    number: NumberValue,
    /// The numbers of a histogram of either kind, or of a summary.
    distribution: ExpHistogramPoint<'static>,
}

impl<'a> Message<'a> for Point<'_, 'a> {
    const EXPECTED: &'static str = "a data point object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let PointScratch {
            entries,
            attributes,
            ..
        } = &mut *self.scratch;
        match (name, self.kind) {
            ("timeUnixNano" | "time_unix_nano", _) => self.fields.time_unix_nano = field.int()?,
            ("startTimeUnixNano" | "start_time_unix_nano", _) => {
                self.fields.start_time_unix_nano = field.int()?;
            }
            ("attributes", _) => read_attributes(field, self.source, entries, attributes)?,
            ("flags", _) => self.fields.flags = field.int()?,
            (_, MetricKind::Summary) => self.summary_field(name, field)?,
            ("exemplars", _) => self.exemplars(field)?,
            (_, MetricKind::Gauge | MetricKind::Sum { .. }) => {
                number_field(&mut self.number, name, field)?;
            }
            (_, MetricKind::Histogram { .. }) => self.histogram_field(name, field)?,
            (_, MetricKind::ExpHistogram { .. }) => self.exp_histogram_field(name, field)?,
        }
        Ok(())
    }
}

impl<'a> Point<'_, 'a> {
    fn exemplars<A: MapAccess<'a>>(&mut self, field: Field<'_, 'a, A>) -> Result<(), A::Error> {
        let PointScratch {
            entries,
            exemplars,
            filtered_attributes: attributes,
            ..
        } = &mut *self.scratch;
        exemplars.clear();
        field.list(&mut Exemplars {
            source: self.source,
            list: exemplars,
            entries,
            attributes,
        })?;
        exemplars.end_list();
        Ok(())
    }

    fn summary_field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "count" => self.distribution.count = field.int()?,
            "sum" => self.distribution.sum = field.optional_double()?,
            "quantileValues" | "quantile_values" => {
                self.scratch.doubles.clear();
                self.scratch.quantile_values.clear();
                field.list(&mut Quantiles {
                    source: self.source,
                    quantiles: &mut self.scratch.doubles,
                    values: &mut self.scratch.quantile_values,
                })?;
            }
            _ => field.skip()?,
        }
        Ok(())
    }

    /// The fields that histograms of both kinds have.
    fn distribution_field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "count" => self.distribution.count = field.int()?,
            "sum" => self.distribution.sum = field.optional_double()?,
            "min" => self.distribution.min = field.optional_double()?,
            "max" => self.distribution.max = field.optional_double()?,
            _ => field.skip()?,
        }
        Ok(())
    }

    fn histogram_field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "bucketCounts" | "bucket_counts" => {
                read_numbers(field, self.source, &mut self.scratch.counts, scalar::int)
            }
            "explicitBounds" | "explicit_bounds" => read_numbers(
                field,
                self.source,
                &mut self.scratch.doubles,
                scalar::double,
            ),
            _ => self.distribution_field(name, field),
        }
    }

    fn exp_histogram_field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let distribution = &mut self.distribution;
        let source = self.source;
        match name {
            "scale" => distribution.scale = field.int()?,
            "zeroCount" | "zero_count" => distribution.zero_count = field.int()?,
            "zeroThreshold" | "zero_threshold" => distribution.zero_threshold = field.double()?,
            "positive" => {
                let counts = &mut self.scratch.counts;
                distribution.positive_offset = read_buckets(field, source, counts)?;
            }
            "negative" => {
                let counts = &mut self.scratch.negative_counts;
                distribution.negative_offset = read_buckets(field, source, counts)?;
            }
            _ => self.distribution_field(name, field)?,
        }
        Ok(())
    }
}

/// How one number of a list is read from its text.
type ReadNumber<T> = fn(&RawValue) -> Result<Option<T>, &'static str>;

/// Reads a list of numbers, in place of what was there.
fn read_numbers<'a, T, A: MapAccess<'a>>(
    field: Field<'_, 'a, A>,
    source: &Source<'a>,
    numbers: &mut Vec<T>,
    read: ReadNumber<T>,
) -> Result<(), A::Error> {
    numbers.clear();
    field.list(&mut Numbers {
        source,
        numbers,
        read,
    })
}

struct Numbers<'s, 'a, T> {
    source: &'s Source<'a>,
    numbers: &'s mut Vec<T>,
    read: ReadNumber<T>,
}

impl<'a, T> List<'a> for Numbers<'_, 'a, T> {
    const EXPECTED: &'static str = "a list of numbers";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        let Some(raw) = items.next_element::<&RawValue>()? else {
            return Ok(false);
        };
        let number = (self.read)(raw).map_err(A::Error::custom)?;
        self.source.count_part()?;
        // Leaving a null out would shift the numbers after it to other buckets.
        let number = number.ok_or_else(|| A::Error::custom("null in a list of numbers"))?;
        self.numbers.push(number);
        Ok(true)
    }
}

/// Reads the positive or negative buckets of an exponential histogram; gives their offset.
fn read_buckets<'a, A: MapAccess<'a>>(
    field: Field<'_, 'a, A>,
    source: &Source<'a>,
    counts: &mut Vec<u64>,
) -> Result<i32, A::Error> {
    counts.clear();
    let mut buckets = Buckets {
        source,
        counts,
        offset: 0,
    };
    field.message(&mut buckets)?;
    Ok(buckets.offset)
}

struct Buckets<'s, 'a> {
    source: &'s Source<'a>,
    counts: &'s mut Vec<u64>,
    offset: i32,
}

impl<'a> Message<'a> for Buckets<'_, 'a> {
    const EXPECTED: &'static str = "a buckets object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "offset" => self.offset = field.int()?,
            "bucketCounts" | "bucket_counts" => {
                read_numbers(field, self.source, self.counts, scalar::int)?;
            }
            _ => field.skip()?,
        }
        Ok(())
    }
}

struct Quantiles<'s, 'a> {
    source: &'s Source<'a>,
    quantiles: &'s mut Vec<f64>,
    values: &'s mut Vec<f64>,
}

impl<'a> List<'a> for Quantiles<'_, 'a> {
    const EXPECTED: &'static str = "a list of quantiles";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        let mut item = Quantile::default();
        match items.next_element_seed(ReadMessage(&mut item))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => self.source.count_part()?,
        }
        self.quantiles.push(item.quantile);
        self.values.push(item.value);
        Ok(true)
    }
}

#[derive(Default)]
struct Quantile {
    quantile: f64,
    value: f64,
}

impl<'a> Message<'a> for Quantile {
    const EXPECTED: &'static str = "a quantile object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "quantile" => self.quantile = field.double()?,
            "value" => self.value = field.double()?,
            _ => field.skip()?,
        }
        Ok(())
    }
}
