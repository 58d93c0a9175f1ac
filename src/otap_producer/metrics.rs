//! Metrics: UNIVARIATE_METRICS, METRIC_ATTRS and the tables of data points.

use arrow::datatypes::DataType;

use super::attributes::{AttributeTable, Attributes};
use super::column::{Cell, Column};
use super::ids::IdColumn;
use super::options::Options;
use super::origins::{OriginColumns, Origins};
use super::points::{ExpHistogramTable, HistogramTable, NumberTable, Points, SummaryTable};
use super::stream::{Session, Stream};
use super::{Built, ProduceError, check_parents};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::metrics::v1::Metric;
use crate::proto::metrics::v1::metric::Data;

/// The tables of a stream of metrics.
pub(super) struct MetricTables {
    stream: Stream,
    id: IdColumn,
    origins: OriginColumns,
    metric_type: Column,
    name: Column,
    description: Column,
    unit: Column,
    temporality: Column,
    is_monotonic: Column,
    attributes: AttributeTable,
    numbers: NumberTable,
    summaries: SummaryTable,
    histograms: HistogramTable,
    exp_histograms: ExpHistogramTable,
}

/// The data points of a batch so far.
#[derive(Default)]
struct AllPoints<'a> {
    numbers: Points<'a>,
    summaries: Points<'a>,
    histograms: Points<'a>,
    exp_histograms: Points<'a>,
}

impl MetricTables {
    pub(super) fn new(options: &Options) -> MetricTables {
        let dictionary = |name, data_type| Column::new(name, data_type).dictionary(options);
        MetricTables {
            stream: Stream::new(ArrowPayloadType::UnivariateMetrics),
            id: IdColumn::delta("id", DataType::UInt16, options).required(),
            origins: OriginColumns::new(options),
            metric_type: Column::new("metric_type", DataType::UInt8).required(),
            name: dictionary("name", DataType::Utf8).required(),
            description: dictionary("description", DataType::Utf8),
            unit: dictionary("unit", DataType::Utf8),
            temporality: dictionary("aggregation_temporality", DataType::Int32),
            is_monotonic: Column::new("is_monotonic", DataType::Boolean),
            attributes: AttributeTable::narrow(ArrowPayloadType::MetricAttrs, options),
            numbers: NumberTable::new(options),
            summaries: SummaryTable::new(options),
            histograms: HistogramTable::new(options),
            exp_histograms: ExpHistogramTable::new(options),
        }
    }

    /// Adds the tables of a request to the session's batch.
    pub(super) fn write(
        &mut self,
        request: &ExportMetricsServiceRequest,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        check(request)?;
        let mut origins = Origins::default();
        let mut attributes = Attributes::default();
        let mut points = AllPoints::default();
        let mut row = 0;
        let mut id = 0;
        for of_resource in &request.resource_metrics {
            let resource = self.origins.resource(
                &mut origins,
                of_resource.resource.as_ref(),
                &of_resource.schema_url,
            );
            for of_scope in &of_resource.scope_metrics {
                let scope =
                    self.origins
                        .scope(&mut origins, of_scope.scope.as_ref(), &of_scope.schema_url);
                for metric in &of_scope.metrics {
                    self.origins.set(row, &resource, &scope);
                    self.id.set(row, id, true);
                    self.attributes.add(&mut attributes, id, &metric.metadata);
                    self.set(row, metric);
                    self.add_points(&mut points, id, metric);
                    row += 1;
                    id += 1;
                }
            }
        }
        let columns = self.finish(row, &session.options)?;
        self.stream.write(columns, row, session)?;
        self.origins.finish_attributes(&origins, session)?;
        self.attributes.finish(&attributes, session)?;
        self.numbers.finish(points.numbers, session)?;
        self.summaries.finish(points.summaries, session)?;
        self.histograms.finish(points.histograms, session)?;
        self.exp_histograms.finish(points.exp_histograms, session)
    }

    fn set(&mut self, row: usize, metric: &Metric) {
        let (metric_type, temporality) = match &metric.data {
            None => (0, 0),
            Some(Data::Gauge(_)) => (1, 0),
            Some(Data::Sum(sum)) => (2, sum.aggregation_temporality),
            Some(Data::Histogram(histogram)) => (3, histogram.aggregation_temporality),
            Some(Data::ExponentialHistogram(histogram)) => (4, histogram.aggregation_temporality),
            Some(Data::Summary(_)) => (5, 0),
        };
        self.metric_type.set(row, Cell::Word(metric_type));
        self.name.set_text(row, &metric.name);
        self.description.set_text(row, &metric.description);
        self.unit.set_text(row, &metric.unit);
        self.temporality
            .set_nonzero(row, temporality.cast_unsigned().into());
        if let Some(Data::Sum(sum)) = &metric.data {
            self.is_monotonic
                .set_nonzero(row, u64::from(sum.is_monotonic));
        }
    }

    fn add_points<'a>(&mut self, points: &mut AllPoints<'a>, id: u32, metric: &'a Metric) {
        let numbers = match &metric.data {
            None => return,
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            Some(Data::Sum(sum)) => &sum.data_points,
            Some(Data::Histogram(histogram)) => {
                for point in &histogram.data_points {
                    self.histograms.add(&mut points.histograms, id, point);
                }
                return;
            }
            Some(Data::ExponentialHistogram(histogram)) => {
                for point in &histogram.data_points {
                    self.exp_histograms
                        .add(&mut points.exp_histograms, id, point);
                }
                return;
            }
            Some(Data::Summary(summary)) => {
                for point in &summary.data_points {
                    self.summaries.add(&mut points.summaries, id, point);
                }
                return;
            }
        };
        for point in numbers {
            self.numbers.add(&mut points.numbers, id, point);
        }
    }

    fn finish(&mut self, rows: usize, options: &Options) -> Result<[Built; 10], ProduceError> {
        let [resource, scope, schema_url] = self.origins.finish(rows, options)?;
        Ok([
            self.id.finish(rows, options)?,
            resource,
            scope,
            schema_url,
            self.metric_type.finish(rows, options)?,
            self.name.finish(rows, options)?,
            self.description.finish(rows, options)?,
            self.unit.finish(rows, options)?,
            self.temporality.finish(rows, options)?,
            self.is_monotonic.finish(rows, options)?,
        ])
    }
}

fn check(request: &ExportMetricsServiceRequest) -> Result<(), ProduceError> {
    let resources = &request.resource_metrics;
    let scopes = || {
        resources
            .iter()
            .flat_map(|resource| &resource.scope_metrics)
    };
    check_parents("resources", resources.len())?;
    check_parents("scopes", scopes().count())?;
    check_parents("metrics", scopes().map(|scope| scope.metrics.len()).sum())
}
