//! Metric data points to the five `otlp_metrics_*` tables.

use arrow::array::ArrayRef;
use arrow::datatypes::{
    Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt32Type, UInt64Type,
};

use super::batch;
use super::columns::{Booleans, CountLists, DoubleLists, Interned, Numbers, TextColumn};
use super::context::{Context, ContextColumns, ResourceFields, ScopeFields};
use super::points::{
    ExpHistogramPoint, HistogramPoint, MetricFields, MetricKind, NumberPoint, NumberValue,
    PointFields, SummaryPoint,
};
use super::{EXPECTED_ROWS_MAX, Meter, PushError, RecordError, Rejections, Rows, schema, time};
use crate::memory::{MemoryError, Reservation};
use crate::signal::Table;

/// Builds the rows of the five metric tables in request order.
#[derive(Debug)]
pub struct MetricRows {
    meter: Meter,
    rejections: Rejections,
    current: Current,
    gauge: NumberColumns,
    sum: NumberColumns,
    histogram: HistogramColumns,
    exp_histogram: ExpHistogramColumns,
    summary: SummaryColumns,
}

/// The resource, scope and metric that the next points belong to.
#[derive(Debug, Default)]
struct Current {
    context: Context,
    texts: [String; 4],
    kind: MetricKind,
    /// Counts the changes of the metric.
    generation: u64,
}

impl MetricRows {
    /// A builder for one request, whose memory is taken from `reservation`.
    #[must_use]
    pub fn new(reservation: Reservation) -> MetricRows {
        MetricRows {
            meter: Meter::new(reservation),
            rejections: Rejections::default(),
            current: Current::default(),
            gauge: NumberColumns::new(Table::Gauge),
            sum: NumberColumns::new(Table::Sum),
            histogram: HistogramColumns::new(),
            exp_histogram: ExpHistogramColumns::new(),
            summary: SummaryColumns::new(),
        }
    }

    /// So many points of a table will come: memory for them is taken once, within bounds.
    pub fn expect(&mut self, table: Table, points: usize) {
        let rows = points.min(EXPECTED_ROWS_MAX);
        match table {
            Table::Gauge => self.gauge.expect(rows),
            Table::Sum => self.sum.expect(rows),
            Table::Histogram => self.histogram.expect(rows),
            Table::ExpHistogram => self.exp_histogram.expect(rows),
            Table::Summary => self.summary.expect(rows),
            Table::Logs | Table::Traces => {}
        }
    }

    /// Sets the resource of the metrics that follow, and clears the scope.
    pub fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.current.context.set_resource(resource);
    }

    /// Sets the scope of the metrics that follow.
    pub fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.current.context.set_scope(scope);
    }

    /// Sets the metric of the points that follow.
    pub fn set_metric(&mut self, metric: &MetricFields<'_>) {
        let texts = [
            metric.name,
            metric.description,
            metric.unit,
            metric.metadata,
        ];
        for (text, new) in self.current.texts.iter_mut().zip(texts) {
            text.clear();
            text.push_str(new);
        }
        self.current.kind = metric.kind;
        self.current.generation += 1;
    }

    /// Appends a point of the current gauge or sum, or counts its refusal.
    ///
    /// # Errors
    /// [`MemoryError`] when there is no memory for it.
    pub fn push_number(&mut self, number: &NumberPoint<'_>) -> Result<(), MemoryError> {
        let columns = match self.current.kind {
            MetricKind::Sum { .. } => &mut self.sum,
            _ => &mut self.gauge,
        };
        let outcome = columns.append(&mut self.meter, &self.current, number);
        self.rejections.absorb(outcome)
    }

    /// Appends a point of the current histogram, or counts its refusal.
    ///
    /// # Errors
    /// [`MemoryError`] when there is no memory for it.
    pub fn push_histogram(&mut self, histogram: &HistogramPoint<'_>) -> Result<(), MemoryError> {
        let outcome = self
            .histogram
            .append(&mut self.meter, &self.current, histogram);
        self.rejections.absorb(outcome)
    }

    /// Appends a point of the current exponential histogram, or counts its refusal.
    ///
    /// # Errors
    /// [`MemoryError`] when there is no memory for it.
    pub fn push_exp_histogram(
        &mut self,
        histogram: &ExpHistogramPoint<'_>,
    ) -> Result<(), MemoryError> {
        let outcome = self
            .exp_histogram
            .append(&mut self.meter, &self.current, histogram);
        self.rejections.absorb(outcome)
    }

    /// Appends a point of the current summary, or counts its refusal.
    ///
    /// # Errors
    /// [`MemoryError`] when there is no memory for it.
    pub fn push_summary(&mut self, summary: &SummaryPoint<'_>) -> Result<(), MemoryError> {
        let outcome = self.summary.append(&mut self.meter, &self.current, summary);
        self.rejections.absorb(outcome)
    }

    /// Ends the request.
    ///
    /// # Errors
    /// [`MemoryError`] when the finished rows hold more than could be reserved.
    pub fn finish(mut self) -> Result<Rows, MemoryError> {
        let tables = [
            (Table::Gauge, self.gauge.finish()),
            (Table::Sum, self.sum.finish()),
            (Table::Histogram, self.histogram.finish()),
            (Table::ExpHistogram, self.exp_histogram.finish()),
            (Table::Summary, self.summary.finish()),
        ];
        let batches = tables
            .into_iter()
            .filter_map(|(table, columns)| Some((table, batch(table, columns?))))
            .collect();
        Rows::new(batches, self.rejections, self.meter.reservation)
    }
}

/// The columns that every metric table has.
#[derive(Debug)]
struct PointColumns {
    table: Table,
    rows: usize,
    time: Numbers<TimestampNanosecondType>,
    start_time: Numbers<TimestampNanosecondType>,
    /// Name, description, unit, metadata.
    metric: [TextColumn; 4],
    interned: [Interned; 4],
    generation: u64,
    context: ContextColumns,
    attributes: TextColumn,
    flags: Numbers<UInt32Type>,
    exemplars: TextColumn,
    temporality: Numbers<Int32Type>,
    is_monotonic: Booleans,
}

impl PointColumns {
    fn new(table: Table) -> PointColumns {
        PointColumns {
            table,
            rows: 0,
            time: Numbers::new(),
            start_time: Numbers::new(),
            metric: std::array::from_fn(|_| TextColumn::new()),
            interned: Default::default(),
            generation: 0,
            context: ContextColumns::new(),
            attributes: TextColumn::new(),
            flags: Numbers::new(),
            exemplars: TextColumn::new(),
            temporality: Numbers::new(),
            is_monotonic: Booleans::new(),
        }
    }

    fn expect(&mut self, rows: usize) {
        self.time.expect(rows);
        self.start_time.expect(rows);
        for column in &mut self.metric {
            column.expect(rows);
        }
        self.context.expect(rows);
        self.attributes.expect(rows);
        self.flags.expect(rows);
        self.exemplars.expect(rows);
        self.temporality.expect(rows);
    }

    /// Checks the point and appends its shared columns; `list_items` are the numbers in its list columns.
    fn append(
        &mut self,
        meter: &mut Meter,
        current: &Current,
        point: &PointFields<'_>,
        list_items: usize,
    ) -> Result<(), PushError> {
        let at = time(point.time_unix_nano)?;
        let start = time(point.start_time_unix_nano)?;
        let mut cost = schema::fixed_row_bytes(self.table)
            + point.attributes.len()
            + point.exemplars_json.len()
            + list_items * 8
            + self.context.cost(&current.context);
        let metric_bytes = current.texts.iter().map(String::len).sum::<usize>();
        if self.generation != current.generation {
            cost += metric_bytes;
        }
        meter.add(cost, current.context.bytes() + metric_bytes)?;

        self.rows += 1;
        self.time.push_option(at);
        self.start_time.push_option(start);
        if self.generation != current.generation {
            for ((column, text), slot) in self
                .metric
                .iter_mut()
                .zip(&current.texts)
                .zip(&mut self.interned)
            {
                *slot = column.intern(text);
            }
            self.generation = current.generation;
        }
        for (column, text) in self.metric.iter_mut().zip(self.interned) {
            column.push_interned(text);
        }
        self.context.push(&current.context);
        self.attributes.push(point.attributes);
        self.flags.push(point.flags);
        self.exemplars.push(point.exemplars_json);
        match current.kind {
            MetricKind::Gauge | MetricKind::Summary => {}
            MetricKind::Sum {
                aggregation_temporality,
                is_monotonic,
            } => {
                self.temporality.push(aggregation_temporality);
                self.is_monotonic.push(is_monotonic);
            }
            MetricKind::Histogram {
                aggregation_temporality,
            }
            | MetricKind::ExpHistogram {
                aggregation_temporality,
            } => self.temporality.push(aggregation_temporality),
        }
        Ok(())
    }

    /// The table's columns in its schema's order, around the ones that only its kind has; `None` without rows.
    fn finish(&mut self, own: Vec<ArrayRef>) -> Option<Vec<ArrayRef>> {
        if self.rows == 0 {
            return None;
        }
        let [name, description, unit, metadata] = self.metric.each_mut().map(TextColumn::finish);
        let context = self.context.finish();
        let mut columns = vec![
            self.time.finish(),
            self.start_time.finish(),
            name,
            description,
            unit,
        ];
        columns.extend(own);
        columns.extend(context.resource);
        columns.extend(context.scope);
        columns.push(self.attributes.finish());
        columns.push(self.flags.finish());
        if self.table != Table::Summary {
            columns.push(self.exemplars.finish());
        }
        match self.table {
            Table::Sum => columns.extend([self.temporality.finish(), self.is_monotonic.finish()]),
            Table::Histogram | Table::ExpHistogram => columns.push(self.temporality.finish()),
            _ => {}
        }
        columns.push(metadata);
        columns.extend(context.extra);
        Some(columns)
    }
}

#[derive(Debug)]
struct NumberColumns {
    points: PointColumns,
    int_value: Numbers<Int64Type>,
    double_value: Numbers<Float64Type>,
}

impl NumberColumns {
    fn new(table: Table) -> NumberColumns {
        NumberColumns {
            points: PointColumns::new(table),
            int_value: Numbers::new(),
            double_value: Numbers::new(),
        }
    }

    fn expect(&mut self, rows: usize) {
        self.points.expect(rows);
        self.int_value.expect(rows);
        self.double_value.expect(rows);
    }

    fn append(
        &mut self,
        meter: &mut Meter,
        current: &Current,
        number: &NumberPoint<'_>,
    ) -> Result<(), PushError> {
        self.points.append(meter, current, &number.point, 0)?;
        let (int, double) = match number.value {
            NumberValue::None => (None, None),
            NumberValue::Int(value) => (Some(value), None),
            NumberValue::Double(value) => (None, Some(value)),
        };
        self.int_value.push_option(int);
        self.double_value.push_option(double);
        Ok(())
    }

    fn finish(&mut self) -> Option<Vec<ArrayRef>> {
        let own = vec![self.int_value.finish(), self.double_value.finish()];
        self.points.finish(own)
    }
}

/// Count, sum, min and max of a histogram's points.
#[derive(Debug)]
struct DistributionColumns {
    count: Numbers<UInt64Type>,
    sum_min_max: [Numbers<Float64Type>; 3],
}

impl DistributionColumns {
    fn new() -> DistributionColumns {
        DistributionColumns {
            count: Numbers::new(),
            sum_min_max: std::array::from_fn(|_| Numbers::new()),
        }
    }

    fn expect(&mut self, rows: usize) {
        self.count.expect(rows);
        for column in &mut self.sum_min_max {
            column.expect(rows);
        }
    }

    fn push(&mut self, count: u64, sum_min_max: [Option<f64>; 3]) {
        self.count.push(count);
        for (column, value) in self.sum_min_max.iter_mut().zip(sum_min_max) {
            column.push_option(value);
        }
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut columns = vec![self.count.finish()];
        columns.extend(self.sum_min_max.each_mut().map(Numbers::finish));
        columns
    }
}

#[derive(Debug)]
struct HistogramColumns {
    points: PointColumns,
    distribution: DistributionColumns,
    bucket_counts: CountLists,
    explicit_bounds: DoubleLists,
}

impl HistogramColumns {
    fn new() -> HistogramColumns {
        HistogramColumns {
            points: PointColumns::new(Table::Histogram),
            distribution: DistributionColumns::new(),
            bucket_counts: CountLists::new(),
            explicit_bounds: DoubleLists::new(),
        }
    }

    fn expect(&mut self, rows: usize) {
        self.points.expect(rows);
        self.distribution.expect(rows);
    }

    fn append(
        &mut self,
        meter: &mut Meter,
        current: &Current,
        histogram: &HistogramPoint<'_>,
    ) -> Result<(), PushError> {
        let buckets = histogram.bucket_counts.len();
        let bounds = histogram.explicit_bounds.len();
        if buckets != 0 && buckets != bounds + 1 {
            return Err(RecordError::BadBuckets.into());
        }
        self.points
            .append(meter, current, &histogram.point, buckets + bounds)?;
        self.distribution.push(
            histogram.count,
            [histogram.sum, histogram.min, histogram.max],
        );
        self.bucket_counts.push(histogram.bucket_counts);
        self.explicit_bounds.push(histogram.explicit_bounds);
        Ok(())
    }

    fn finish(&mut self) -> Option<Vec<ArrayRef>> {
        let mut own = self.distribution.finish();
        own.extend([self.bucket_counts.finish(), self.explicit_bounds.finish()]);
        self.points.finish(own)
    }
}

#[derive(Debug)]
struct ExpHistogramColumns {
    points: PointColumns,
    distribution: DistributionColumns,
    scale: Numbers<Int32Type>,
    zero_count: Numbers<UInt64Type>,
    zero_threshold: Numbers<Float64Type>,
    positive_offset: Numbers<Int32Type>,
    positive_counts: CountLists,
    negative_offset: Numbers<Int32Type>,
    negative_counts: CountLists,
}

impl ExpHistogramColumns {
    fn new() -> ExpHistogramColumns {
        ExpHistogramColumns {
            points: PointColumns::new(Table::ExpHistogram),
            distribution: DistributionColumns::new(),
            scale: Numbers::new(),
            zero_count: Numbers::new(),
            zero_threshold: Numbers::new(),
            positive_offset: Numbers::new(),
            positive_counts: CountLists::new(),
            negative_offset: Numbers::new(),
            negative_counts: CountLists::new(),
        }
    }

    fn expect(&mut self, rows: usize) {
        self.points.expect(rows);
        self.distribution.expect(rows);
        self.scale.expect(rows);
        self.zero_count.expect(rows);
        self.zero_threshold.expect(rows);
        self.positive_offset.expect(rows);
        self.negative_offset.expect(rows);
    }

    fn append(
        &mut self,
        meter: &mut Meter,
        current: &Current,
        histogram: &ExpHistogramPoint<'_>,
    ) -> Result<(), PushError> {
        let items = histogram.positive_bucket_counts.len() + histogram.negative_bucket_counts.len();
        self.points
            .append(meter, current, &histogram.point, items)?;
        self.distribution.push(
            histogram.count,
            [histogram.sum, histogram.min, histogram.max],
        );
        self.scale.push(histogram.scale);
        self.zero_count.push(histogram.zero_count);
        self.zero_threshold.push(histogram.zero_threshold);
        self.positive_offset.push(histogram.positive_offset);
        self.positive_counts.push(histogram.positive_bucket_counts);
        self.negative_offset.push(histogram.negative_offset);
        self.negative_counts.push(histogram.negative_bucket_counts);
        Ok(())
    }

    fn finish(&mut self) -> Option<Vec<ArrayRef>> {
        let mut own = self.distribution.finish();
        own.extend([
            self.scale.finish(),
            self.zero_count.finish(),
            self.zero_threshold.finish(),
            self.positive_offset.finish(),
            self.positive_counts.finish(),
            self.negative_offset.finish(),
            self.negative_counts.finish(),
        ]);
        self.points.finish(own)
    }
}

#[derive(Debug)]
struct SummaryColumns {
    points: PointColumns,
    count: Numbers<UInt64Type>,
    sum: Numbers<Float64Type>,
    quantiles: DoubleLists,
    quantile_values: DoubleLists,
}

impl SummaryColumns {
    fn new() -> SummaryColumns {
        SummaryColumns {
            points: PointColumns::new(Table::Summary),
            count: Numbers::new(),
            sum: Numbers::new(),
            quantiles: DoubleLists::new(),
            quantile_values: DoubleLists::new(),
        }
    }

    fn expect(&mut self, rows: usize) {
        self.points.expect(rows);
        self.count.expect(rows);
        self.sum.expect(rows);
    }

    fn append(
        &mut self,
        meter: &mut Meter,
        current: &Current,
        summary: &SummaryPoint<'_>,
    ) -> Result<(), PushError> {
        let items = summary.quantiles.len() + summary.quantile_values.len();
        self.points.append(meter, current, &summary.point, items)?;
        self.count.push(summary.count);
        self.sum.push(summary.sum);
        self.quantiles.push(summary.quantiles);
        self.quantile_values.push(summary.quantile_values);
        Ok(())
    }

    fn finish(&mut self) -> Option<Vec<ArrayRef>> {
        let own = vec![
            self.count.finish(),
            self.sum.finish(),
            self.quantiles.finish(),
            self.quantile_values.finish(),
        ];
        self.points.finish(own)
    }
}
