//! Data points of the four tables that hold the five kinds, with their attributes and exemplars.

use arrow::datatypes::{DataType, TimeUnit};

use super::attributes::{AttributeTable, Attributes};
use super::column::{Cell, Column};
use super::exemplars::{ExemplarTable, Exemplars};
use super::ids::IdColumn;
use super::list::ListColumn;
use super::options::Options;
use super::stream::{Presence, Session, Stream, group};
use super::{Built, ProduceError};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::common::v1::KeyValue;
use crate::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use crate::proto::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
    number_data_point,
};

/// What every table of data points has.
struct PointColumns {
    stream: Stream,
    id: IdColumn,
    parent: IdColumn,
    start_time: Column,
    time: Column,
    flags: Column,
    attributes: AttributeTable,
    /// Summaries have none.
    exemplars: Option<ExemplarTable>,
}

/// The data points of one table of a batch so far, and what hangs on them.
#[derive(Default)]
pub(super) struct Points<'a> {
    rows: usize,
    next_id: u32,
    attributes: Attributes<'a>,
    exemplars: Exemplars<'a>,
}

/// What every data point has.
struct Common<'a> {
    parent: u32,
    start_time: u64,
    time: u64,
    flags: u32,
    attributes: &'a [KeyValue],
    exemplars: &'a [Exemplar],
}

impl PointColumns {
    fn new(
        points: ArrowPayloadType,
        attributes: ArrowPayloadType,
        exemplars: Option<[ArrowPayloadType; 2]>,
        options: &Options,
    ) -> PointColumns {
        let timestamp = |name| Column::new(name, DataType::Timestamp(TimeUnit::Nanosecond, None));
        PointColumns {
            stream: Stream::new(points),
            id: IdColumn::delta("id", DataType::UInt32, options),
            parent: IdColumn::delta("parent_id", DataType::UInt16, options).required(),
            start_time: timestamp("start_time_unix_nano"),
            time: timestamp("time_unix_nano"),
            flags: Column::new("flags", DataType::UInt32),
            attributes: AttributeTable::wide(attributes, options),
            exemplars: exemplars
                .map(|[table, attributes]| ExemplarTable::new(table, attributes, options)),
        }
    }

    /// Takes the next data point and says its row.
    fn add<'a>(&mut self, points: &mut Points<'a>, point: &Common<'a>) -> usize {
        let row = points.rows;
        points.rows += 1;
        if !(point.attributes.is_empty() && point.exemplars.is_empty()) {
            let id = points.next_id;
            points.next_id += 1;
            self.id.set(row, id, true);
            self.attributes
                .add(&mut points.attributes, id, point.attributes);
            let exemplars = point.exemplars.iter().map(|exemplar| (id, exemplar));
            points.exemplars.extend(exemplars);
        }
        self.parent.set(row, point.parent, true);
        self.start_time.set_nonzero(row, point.start_time);
        self.time.set_nonzero(row, point.time);
        self.flags.set_nonzero(row, point.flags.into());
        row
    }

    /// Writes the table with its kind's own columns, and the tables below it.
    fn finish<const N: usize>(
        &mut self,
        points: Points<'_>,
        own: [Built; N],
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        let (rows, options) = (points.rows, &session.options);
        let columns = [
            self.id.finish(rows, options)?,
            self.parent.finish(rows, options)?,
            self.start_time.finish(rows, options)?,
            self.time.finish(rows, options)?,
            self.flags.finish(rows, options)?,
        ];
        self.stream
            .write(columns.into_iter().chain(own), rows, session)?;
        self.attributes.finish(&points.attributes, session)?;
        match &mut self.exemplars {
            Some(table) => table.finish(points.exemplars, session),
            None => Ok(()),
        }
    }
}

/// NUMBER_DATA_POINTS: of gauges and sums.
pub(super) struct NumberTable {
    common: PointColumns,
    int_value: Column,
    double_value: Column,
}

impl NumberTable {
    pub(super) fn new(options: &Options) -> NumberTable {
        NumberTable {
            common: PointColumns::new(
                ArrowPayloadType::NumberDataPoints,
                ArrowPayloadType::NumberDpAttrs,
                Some([
                    ArrowPayloadType::NumberDpExemplars,
                    ArrowPayloadType::NumberDpExemplarAttrs,
                ]),
                options,
            ),
            int_value: Column::new("int_value", DataType::Int64),
            double_value: Column::new("double_value", DataType::Float64),
        }
    }

    pub(super) fn add<'a>(
        &mut self,
        points: &mut Points<'a>,
        parent: u32,
        point: &'a NumberDataPoint,
    ) {
        let common = Common {
            parent,
            start_time: point.start_time_unix_nano,
            time: point.time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &point.exemplars,
        };
        let row = self.common.add(points, &common);
        // A zero is a value, and no value is none.
        match point.value {
            Some(number_data_point::Value::AsInt(number)) => {
                self.int_value.set_word(row, number.cast_unsigned());
            }
            Some(number_data_point::Value::AsDouble(number)) => {
                self.double_value.set_word(row, number.to_bits());
            }
            None => {}
        }
    }

    pub(super) fn finish(
        &mut self,
        points: Points<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        let own = [
            self.int_value.finish(points.rows, &session.options)?,
            self.double_value.finish(points.rows, &session.options)?,
        ];
        self.common.finish(points, own, session)
    }
}

/// SUMMARY_DATA_POINTS.
pub(super) struct SummaryTable {
    common: PointColumns,
    count: Column,
    sum: Column,
    quantiles: ListColumn,
}

impl SummaryTable {
    pub(super) fn new(options: &Options) -> SummaryTable {
        SummaryTable {
            common: PointColumns::new(
                ArrowPayloadType::SummaryDataPoints,
                ArrowPayloadType::SummaryDpAttrs,
                None,
                options,
            ),
            count: Column::new("count", DataType::UInt64),
            sum: Column::new("sum", DataType::Float64),
            quantiles: ListColumn::of_structs(
                "quantile",
                DataType::Float64,
                vec!["quantile", "value"],
            ),
        }
    }

    pub(super) fn add<'a>(
        &mut self,
        points: &mut Points<'a>,
        parent: u32,
        point: &'a SummaryDataPoint,
    ) {
        let common = Common {
            parent,
            start_time: point.start_time_unix_nano,
            time: point.time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &[],
        };
        let row = self.common.add(points, &common);
        self.count.set_nonzero(row, point.count);
        self.sum.set_nonzero(row, point.sum.to_bits());
        let quantiles = point.quantile_values.iter();
        self.quantiles.set(
            row,
            quantiles.map(|pair| [pair.quantile.to_bits(), pair.value.to_bits()]),
        );
    }

    pub(super) fn finish(
        &mut self,
        points: Points<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        let (rows, options) = (points.rows, &session.options);
        let own = [
            self.count.finish(rows, options)?,
            self.sum.finish(rows, options)?,
            self.quantiles.finish(rows, options)?,
        ];
        self.common.finish(points, own, session)
    }
}

/// HISTOGRAM_DATA_POINTS.
pub(super) struct HistogramTable {
    common: PointColumns,
    count: Column,
    sum: Column,
    bucket_counts: ListColumn,
    explicit_bounds: ListColumn,
    min: Column,
    max: Column,
}

impl HistogramTable {
    pub(super) fn new(options: &Options) -> HistogramTable {
        HistogramTable {
            common: PointColumns::new(
                ArrowPayloadType::HistogramDataPoints,
                ArrowPayloadType::HistogramDpAttrs,
                Some([
                    ArrowPayloadType::HistogramDpExemplars,
                    ArrowPayloadType::HistogramDpExemplarAttrs,
                ]),
                options,
            ),
            count: Column::new("count", DataType::UInt64),
            sum: Column::new("sum", DataType::Float64),
            bucket_counts: ListColumn::new("bucket_counts", DataType::UInt64),
            explicit_bounds: ListColumn::new("explicit_bounds", DataType::Float64),
            min: Column::new("min", DataType::Float64),
            max: Column::new("max", DataType::Float64),
        }
    }

    pub(super) fn add<'a>(
        &mut self,
        points: &mut Points<'a>,
        parent: u32,
        point: &'a HistogramDataPoint,
    ) {
        let common = Common {
            parent,
            start_time: point.start_time_unix_nano,
            time: point.time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &point.exemplars,
        };
        let row = self.common.add(points, &common);
        self.count.set_nonzero(row, point.count);
        set_double(&mut self.sum, row, point.sum);
        set_double(&mut self.min, row, point.min);
        set_double(&mut self.max, row, point.max);
        let counts = point.bucket_counts.iter().map(|count| [*count]);
        self.bucket_counts.set(row, counts);
        let bounds = point.explicit_bounds.iter().map(|bound| [bound.to_bits()]);
        self.explicit_bounds.set(row, bounds);
    }

    pub(super) fn finish(
        &mut self,
        points: Points<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        let (rows, options) = (points.rows, &session.options);
        let own = [
            self.count.finish(rows, options)?,
            self.sum.finish(rows, options)?,
            self.bucket_counts.finish(rows, options)?,
            self.explicit_bounds.finish(rows, options)?,
            self.min.finish(rows, options)?,
            self.max.finish(rows, options)?,
        ];
        self.common.finish(points, own, session)
    }
}

/// EXP_HISTOGRAM_DATA_POINTS.
pub(super) struct ExpHistogramTable {
    common: PointColumns,
    count: Column,
    sum: Column,
    scale: Column,
    zero_count: Column,
    positive: BucketColumns,
    negative: BucketColumns,
    min: Column,
    max: Column,
    zero_threshold: Column,
}

impl ExpHistogramTable {
    pub(super) fn new(options: &Options) -> ExpHistogramTable {
        ExpHistogramTable {
            common: PointColumns::new(
                ArrowPayloadType::ExpHistogramDataPoints,
                ArrowPayloadType::ExpHistogramDpAttrs,
                Some([
                    ArrowPayloadType::ExpHistogramDpExemplars,
                    ArrowPayloadType::ExpHistogramDpExemplarAttrs,
                ]),
                options,
            ),
            count: Column::new("count", DataType::UInt64),
            sum: Column::new("sum", DataType::Float64),
            scale: Column::new("scale", DataType::Int32),
            zero_count: Column::new("zero_count", DataType::UInt64),
            positive: BucketColumns::new("positive"),
            negative: BucketColumns::new("negative"),
            min: Column::new("min", DataType::Float64),
            max: Column::new("max", DataType::Float64),
            zero_threshold: Column::new("zero_threshold", DataType::Float64),
        }
    }

    pub(super) fn add<'a>(
        &mut self,
        points: &mut Points<'a>,
        parent: u32,
        point: &'a ExponentialHistogramDataPoint,
    ) {
        let common = Common {
            parent,
            start_time: point.start_time_unix_nano,
            time: point.time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &point.exemplars,
        };
        let row = self.common.add(points, &common);
        self.count.set_nonzero(row, point.count);
        set_double(&mut self.sum, row, point.sum);
        self.scale
            .set_nonzero(row, point.scale.cast_unsigned().into());
        self.zero_count.set_nonzero(row, point.zero_count);
        self.positive.set(row, point.positive.as_ref());
        self.negative.set(row, point.negative.as_ref());
        set_double(&mut self.min, row, point.min);
        set_double(&mut self.max, row, point.max);
        self.zero_threshold
            .set_nonzero(row, point.zero_threshold.to_bits());
    }

    pub(super) fn finish(
        &mut self,
        points: Points<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        let (rows, options) = (points.rows, &session.options);
        let own = [
            self.count.finish(rows, options)?,
            self.sum.finish(rows, options)?,
            self.scale.finish(rows, options)?,
            self.zero_count.finish(rows, options)?,
            self.positive.finish(rows, options)?,
            self.negative.finish(rows, options)?,
            self.min.finish(rows, options)?,
            self.max.finish(rows, options)?,
            self.zero_threshold.finish(rows, options)?,
        ];
        self.common.finish(points, own, session)
    }
}

/// The buckets of one sign.
struct BucketColumns {
    name: &'static str,
    is_there: Presence,
    offset: Column,
    counts: ListColumn,
}

impl BucketColumns {
    fn new(name: &'static str) -> BucketColumns {
        BucketColumns {
            name,
            is_there: Presence::new(),
            // Required, so that the struct has a column even if all buckets are empty.
            offset: Column::new("offset", DataType::Int32).required(),
            counts: ListColumn::new("bucket_counts", DataType::UInt64),
        }
    }

    fn set(&mut self, row: usize, buckets: Option<&Buckets>) {
        let Some(buckets) = buckets else {
            return;
        };
        self.is_there.set(row);
        let offset = u64::from(buckets.offset.cast_unsigned());
        self.offset.set(row, Cell::Word(offset));
        let counts = buckets.bucket_counts.iter().map(|count| [*count]);
        self.counts.set(row, counts);
    }

    fn finish(&mut self, rows: usize, options: &Options) -> Result<Built, ProduceError> {
        if !self.is_there.is_needed(options) {
            return Ok(None);
        }
        let columns = [
            self.offset.finish(rows, options)?,
            self.counts.finish(rows, options)?,
        ];
        group(self.name, columns, self.is_there.finish(rows))
    }
}

/// Sets a row to a double that may be absent: a zero is there.
fn set_double(column: &mut Column, row: usize, value: Option<f64>) {
    if let Some(value) = value {
        column.set_word(row, value.to_bits());
    }
}
