//! The tables of data points, with their attributes and exemplars.

use arrow::datatypes::{
    Float64Type, Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type,
};

use super::arrays::{Lists, Numbers, Ranges};
use super::attributes::Attributes;
use super::columns::Columns;
use super::exemplars::Exemplars;
use super::groups::{Groups, Index};
use super::ids::{self, Parents};
use super::{NumberValues, columns_of};
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{
    ExpHistogramPoint, HistogramPoint, MetricRows, NumberPoint, PointFields, SummaryPoint,
};

/// The columns that one kind of point has beside those of all.
pub(super) trait PointColumns<'a>: Sized {
    const POINTS: ArrowPayloadType;
    const ATTRIBUTES: ArrowPayloadType;
    /// The table of exemplars, and that of their attributes.
    const EXEMPLARS: Option<(ArrowPayloadType, ArrowPayloadType)>;

    fn new(columns: &Columns<'a>) -> Result<Self, DecodeError>;

    /// Pushes the point of a row.
    fn push(
        &mut self,
        row: usize,
        point: PointFields<'_>,
        rows: &mut MetricRows,
    ) -> Result<(), DecodeError>;
}

/// The points of one kind, by metric.
#[derive(Debug)]
pub(super) struct PointTable<'a, Own> {
    points: usize,
    groups: Groups,
    start_time: Numbers<'a, TimestampNanosecondType>,
    time: Numbers<'a, TimestampNanosecondType>,
    flags: Numbers<'a, UInt32Type>,
    attributes: Attributes<'a>,
    exemplars: Option<Exemplars<'a>>,
    own: Own,
}

impl<'a, Own: PointColumns<'a>> PointTable<'a, Own> {
    pub(super) fn new(
        tables: &'a Tables,
        metrics: &Index,
    ) -> Result<PointTable<'a, Own>, DecodeError> {
        let columns = columns_of(tables, Own::POINTS)?;
        let parents = Parents::<UInt16Type>::new(&columns)?.delta()?;
        let index = Index::new(&ids::own::<UInt32Type>(&columns, "id")?);
        let exemplars = Own::EXEMPLARS
            .map(|(of, attributes)| Exemplars::new(tables, of, attributes, &index))
            .transpose()?;
        Ok(PointTable {
            points: columns.rows(),
            groups: Groups::new(&columns, parents, metrics)?,
            start_time: columns.times("start_time_unix_nano")?,
            time: columns.times("time_unix_nano")?,
            flags: columns.numbers("flags")?,
            attributes: Attributes::of_u32(tables, Own::ATTRIBUTES, &index)?,
            exemplars,
            own: Own::new(&columns)?,
        })
    }

    /// How many points there are.
    pub(super) fn points(&self) -> usize {
        self.points
    }

    /// Whether a metric has points of this kind.
    pub(super) fn has_points(&self, metric: usize) -> bool {
        !self.groups.of(metric).is_empty()
    }

    /// Pushes the points of a metric.
    pub(super) fn push(&mut self, metric: usize, rows: &mut MetricRows) -> Result<(), DecodeError> {
        for row in self.groups.of(metric) {
            let row = *row as usize;
            self.attributes.select(row);
            let exemplars_json = match &mut self.exemplars {
                Some(exemplars) => exemplars.list(row)?,
                None => "",
            };
            let point = PointFields {
                time_unix_nano: self.time.unix_nano(row),
                start_time_unix_nano: self.start_time.unix_nano(row),
                attributes: self.attributes.write()?,
                flags: self.flags.or_zero(row),
                exemplars_json,
            };
            self.own.push(row, point, rows)?;
        }
        Ok(())
    }
}

/// What NUMBER_DATA_POINTS has.
#[derive(Debug)]
pub(super) struct NumberColumns<'a>(NumberValues<'a>);

impl<'a> PointColumns<'a> for NumberColumns<'a> {
    const POINTS: ArrowPayloadType = ArrowPayloadType::NumberDataPoints;
    const ATTRIBUTES: ArrowPayloadType = ArrowPayloadType::NumberDpAttrs;
    const EXEMPLARS: Option<(ArrowPayloadType, ArrowPayloadType)> = Some((
        ArrowPayloadType::NumberDpExemplars,
        ArrowPayloadType::NumberDpExemplarAttrs,
    ));

    fn new(columns: &Columns<'a>) -> Result<Self, DecodeError> {
        Ok(NumberColumns(NumberValues::new(columns)?))
    }

    fn push(
        &mut self,
        row: usize,
        point: PointFields<'_>,
        rows: &mut MetricRows,
    ) -> Result<(), DecodeError> {
        let value = self.0.get(row)?;
        Ok(rows.push_number(&NumberPoint { point, value })?)
    }
}

/// What the points of both histograms have.
#[derive(Debug)]
struct Distribution<'a> {
    count: Numbers<'a, UInt64Type>,
    sum: Numbers<'a, Float64Type>,
    min: Numbers<'a, Float64Type>,
    max: Numbers<'a, Float64Type>,
}

impl<'a> Distribution<'a> {
    fn new(columns: &Columns<'a>) -> Result<Distribution<'a>, DecodeError> {
        Ok(Distribution {
            count: columns.numbers("count")?,
            sum: columns.numbers("sum")?,
            min: columns.numbers("min")?,
            max: columns.numbers("max")?,
        })
    }
}

/// What HISTOGRAM_DATA_POINTS has.
#[derive(Debug)]
pub(super) struct HistogramColumns<'a> {
    distribution: Distribution<'a>,
    bucket_counts: Lists<'a, UInt64Type>,
    explicit_bounds: Lists<'a, Float64Type>,
    counts: Vec<u64>,
    bounds: Vec<f64>,
}

impl<'a> PointColumns<'a> for HistogramColumns<'a> {
    const POINTS: ArrowPayloadType = ArrowPayloadType::HistogramDataPoints;
    const ATTRIBUTES: ArrowPayloadType = ArrowPayloadType::HistogramDpAttrs;
    const EXEMPLARS: Option<(ArrowPayloadType, ArrowPayloadType)> = Some((
        ArrowPayloadType::HistogramDpExemplars,
        ArrowPayloadType::HistogramDpExemplarAttrs,
    ));

    fn new(columns: &Columns<'a>) -> Result<Self, DecodeError> {
        Ok(HistogramColumns {
            distribution: Distribution::new(columns)?,
            bucket_counts: columns.lists("bucket_counts")?,
            explicit_bounds: columns.lists("explicit_bounds")?,
            counts: Vec::new(),
            bounds: Vec::new(),
        })
    }

    fn push(
        &mut self,
        row: usize,
        point: PointFields<'_>,
        rows: &mut MetricRows,
    ) -> Result<(), DecodeError> {
        self.bucket_counts.copy(row, &mut self.counts);
        self.explicit_bounds.copy(row, &mut self.bounds);
        Ok(rows.push_histogram(&HistogramPoint {
            point,
            count: self.distribution.count.or_zero(row),
            sum: self.distribution.sum.get(row),
            min: self.distribution.min.get(row),
            max: self.distribution.max.get(row),
            bucket_counts: &self.counts,
            explicit_bounds: &self.bounds,
        })?)
    }
}

/// The buckets of an exponential histogram on one side of zero.
#[derive(Debug)]
struct Buckets<'a> {
    offset: Numbers<'a, Int32Type>,
    bucket_counts: Lists<'a, UInt64Type>,
    counts: Vec<u64>,
}

impl<'a> Buckets<'a> {
    fn new(columns: &Columns<'a>) -> Result<Buckets<'a>, DecodeError> {
        Ok(Buckets {
            offset: columns.numbers("offset")?,
            bucket_counts: columns.lists("bucket_counts")?,
            counts: Vec::new(),
        })
    }
}

/// What EXP_HISTOGRAM_DATA_POINTS has.
#[derive(Debug)]
pub(super) struct ExpHistogramColumns<'a> {
    distribution: Distribution<'a>,
    scale: Numbers<'a, Int32Type>,
    zero_count: Numbers<'a, UInt64Type>,
    zero_threshold: Numbers<'a, Float64Type>,
    positive: Buckets<'a>,
    negative: Buckets<'a>,
}

impl<'a> PointColumns<'a> for ExpHistogramColumns<'a> {
    const POINTS: ArrowPayloadType = ArrowPayloadType::ExpHistogramDataPoints;
    const ATTRIBUTES: ArrowPayloadType = ArrowPayloadType::ExpHistogramDpAttrs;
    const EXEMPLARS: Option<(ArrowPayloadType, ArrowPayloadType)> = Some((
        ArrowPayloadType::ExpHistogramDpExemplars,
        ArrowPayloadType::ExpHistogramDpExemplarAttrs,
    ));

    fn new(columns: &Columns<'a>) -> Result<Self, DecodeError> {
        Ok(ExpHistogramColumns {
            distribution: Distribution::new(columns)?,
            scale: columns.numbers("scale")?,
            zero_count: columns.numbers("zero_count")?,
            zero_threshold: columns.numbers("zero_threshold")?,
            positive: Buckets::new(&columns.structure("positive")?)?,
            negative: Buckets::new(&columns.structure("negative")?)?,
        })
    }

    fn push(
        &mut self,
        row: usize,
        point: PointFields<'_>,
        rows: &mut MetricRows,
    ) -> Result<(), DecodeError> {
        for side in [&mut self.positive, &mut self.negative] {
            side.bucket_counts.copy(row, &mut side.counts);
        }
        Ok(rows.push_exp_histogram(&ExpHistogramPoint {
            point,
            count: self.distribution.count.or_zero(row),
            sum: self.distribution.sum.get(row),
            min: self.distribution.min.get(row),
            max: self.distribution.max.get(row),
            scale: self.scale.or_zero(row),
            zero_count: self.zero_count.or_zero(row),
            zero_threshold: self.zero_threshold.or_zero(row),
            positive_offset: self.positive.offset.or_zero(row),
            positive_bucket_counts: &self.positive.counts,
            negative_offset: self.negative.offset.or_zero(row),
            negative_bucket_counts: &self.negative.counts,
        })?)
    }
}

/// What SUMMARY_DATA_POINTS has.
#[derive(Debug)]
pub(super) struct SummaryColumns<'a> {
    count: Numbers<'a, UInt64Type>,
    sum: Numbers<'a, Float64Type>,
    items: Ranges<'a>,
    quantile: Numbers<'a, Float64Type>,
    value: Numbers<'a, Float64Type>,
    quantiles: Vec<f64>,
    quantile_values: Vec<f64>,
}

impl<'a> PointColumns<'a> for SummaryColumns<'a> {
    const POINTS: ArrowPayloadType = ArrowPayloadType::SummaryDataPoints;
    const ATTRIBUTES: ArrowPayloadType = ArrowPayloadType::SummaryDpAttrs;
    const EXEMPLARS: Option<(ArrowPayloadType, ArrowPayloadType)> = None;

    fn new(columns: &Columns<'a>) -> Result<Self, DecodeError> {
        let (items, item) = columns.lists_of_structs("quantile")?;
        Ok(SummaryColumns {
            count: columns.numbers("count")?,
            sum: columns.numbers("sum")?,
            items,
            quantile: item.numbers("quantile")?,
            value: item.numbers("value")?,
            quantiles: Vec::new(),
            quantile_values: Vec::new(),
        })
    }

    fn push(
        &mut self,
        row: usize,
        point: PointFields<'_>,
        rows: &mut MetricRows,
    ) -> Result<(), DecodeError> {
        let items = self.items.of(row);
        self.quantiles.clear();
        self.quantile_values.clear();
        for item in items {
            self.quantiles.push(self.quantile.or_zero(item));
            self.quantile_values.push(self.value.or_zero(item));
        }
        let summary = SummaryPoint {
            point,
            count: self.count.or_zero(row),
            sum: self.sum.or_zero(row),
            quantiles: &self.quantiles,
            quantile_values: &self.quantile_values,
        };
        Ok(rows.push_summary(&summary)?)
    }
}
