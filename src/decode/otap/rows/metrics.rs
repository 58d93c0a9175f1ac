//! The tables of metrics: UNIVARIATE_METRICS and METRIC_ATTRS, above the data points of four kinds.

use arrow::datatypes::{Int32Type, UInt8Type, UInt16Type};

use super::arrays::{Numbers, Switches, Texts};
use super::attributes::Attributes;
use super::columns::Columns;
use super::context::Contexts;
use super::groups::Index;
use super::points::{
    ExpHistogramColumns, HistogramColumns, NumberColumns, PointTable, SummaryColumns,
};
use super::{columns_of, ids, malformed};
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::memory::Reservation;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{MetricFields, MetricKind, MetricRows, Rows};
use crate::signal::Table;

pub(super) fn rows(tables: &Tables, reservation: Reservation) -> Result<Rows, DecodeError> {
    let mut rows = MetricRows::new(reservation);
    let root = columns_of(tables, ArrowPayloadType::UnivariateMetrics)?;
    if root.rows() > 0 {
        let mut metrics = Metrics::new(tables, &root)?;
        metrics.announce(&mut rows);
        for row in 0..root.rows() {
            metrics.push(row, &mut rows)?;
        }
    }
    Ok(rows.finish()?)
}

#[derive(Debug)]
struct Metrics<'a> {
    contexts: Contexts<'a>,
    metric_type: Numbers<'a, UInt8Type>,
    name: Texts<'a>,
    description: Texts<'a>,
    unit: Texts<'a>,
    aggregation_temporality: Numbers<'a, Int32Type>,
    is_monotonic: Switches<'a>,
    metadata: Attributes<'a>,
    numbers: PointTable<'a, NumberColumns<'a>>,
    histograms: PointTable<'a, HistogramColumns<'a>>,
    exp_histograms: PointTable<'a, ExpHistogramColumns<'a>>,
    summaries: PointTable<'a, SummaryColumns<'a>>,
}

impl<'a> Metrics<'a> {
    fn new(tables: &'a Tables, root: &Columns<'a>) -> Result<Metrics<'a>, DecodeError> {
        root.require(&["id", "metric_type", "name"])?;
        let index = Index::new(&ids::own::<UInt16Type>(root, "id")?);
        Ok(Metrics {
            contexts: Contexts::new(tables, root)?,
            metric_type: root.numbers("metric_type")?,
            name: root.texts("name")?,
            description: root.texts("description")?,
            unit: root.texts("unit")?,
            aggregation_temporality: root.numbers("aggregation_temporality")?,
            is_monotonic: root.switches("is_monotonic")?,
            metadata: Attributes::of_u16(tables, ArrowPayloadType::MetricAttrs, &index)?,
            numbers: PointTable::new(tables, &index)?,
            histograms: PointTable::new(tables, &index)?,
            exp_histograms: PointTable::new(tables, &index)?,
            summaries: PointTable::new(tables, &index)?,
        })
    }

    /// Says how many points come. Those of gauges and sums are in one table: mostly they are of sums.
    fn announce(&self, rows: &mut MetricRows) {
        rows.expect(Table::Sum, self.numbers.points());
        rows.expect(Table::Histogram, self.histograms.points());
        rows.expect(Table::ExpHistogram, self.exp_histograms.points());
        rows.expect(Table::Summary, self.summaries.points());
    }

    /// Pushes the points of one metric.
    fn push(&mut self, row: usize, rows: &mut MetricRows) -> Result<(), DecodeError> {
        let Some(kind) = self.kind(row)? else {
            return Ok(()); // A metric without points gives no rows.
        };
        self.contexts.advance(row, rows)?;
        self.metadata.select(row);
        rows.set_metric(&MetricFields {
            name: self.name.or_default(row),
            description: self.description.or_default(row),
            unit: self.unit.or_default(row),
            metadata: self.metadata.write()?,
            kind,
        });
        match kind {
            MetricKind::Gauge | MetricKind::Sum { .. } => self.numbers.push(row, rows),
            MetricKind::Histogram { .. } => self.histograms.push(row, rows),
            MetricKind::ExpHistogram { .. } => self.exp_histograms.push(row, rows),
            MetricKind::Summary => self.summaries.push(row, rows),
        }
    }

    /// The kind of a metric that has points, all of which are of that kind.
    fn kind(&self, row: usize) -> Result<Option<MetricKind>, DecodeError> {
        let aggregation_temporality = self.aggregation_temporality.or_zero(row);
        let metric_type = self.metric_type.or_zero(row);
        let kind = match metric_type {
            0 => None,
            1 => Some(MetricKind::Gauge),
            2 => Some(MetricKind::Sum {
                aggregation_temporality,
                is_monotonic: self.is_monotonic.or_default(row),
            }),
            3 => Some(MetricKind::Histogram {
                aggregation_temporality,
            }),
            4 => Some(MetricKind::ExpHistogram {
                aggregation_temporality,
            }),
            5 => Some(MetricKind::Summary),
            other => {
                return malformed(format!("metric_type is {other} in row {row}, limit 5"));
            }
        };
        let points = [
            self.numbers.has_points(row),
            self.histograms.has_points(row),
            self.exp_histograms.has_points(row),
            self.summaries.has_points(row),
        ];
        let own = match kind {
            None => [false; 4],
            Some(MetricKind::Gauge | MetricKind::Sum { .. }) => [true, false, false, false],
            Some(MetricKind::Histogram { .. }) => [false, true, false, false],
            Some(MetricKind::ExpHistogram { .. }) => [false, false, true, false],
            Some(MetricKind::Summary) => [false, false, false, true],
        };
        if points.iter().zip(own).any(|(has, own)| *has && !own) {
            return malformed(format!(
                "the metric in row {row} has metric_type {metric_type} and points of another one"
            ));
        }
        Ok(kind.filter(|_| points.contains(&true)))
    }
}
