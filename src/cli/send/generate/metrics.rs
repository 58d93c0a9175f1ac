//! Data points of all five metric kinds, with exemplars where OTLP has them.

use prost::Message;

use super::template::{Slot, Template, Values, mix, put_message};
use super::{Ids, Records, SPANS_IN_TRACE, attribute, id_marker, int_attribute};
use crate::proto::common::v1::KeyValue;
use crate::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use crate::proto::metrics::v1::number_data_point::Value;
use crate::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use crate::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, Sum, SummaryDataPoint, exemplar,
};

/// How many different points a metric has, apart from times, ids and the values of gauges and sums.
const VARIANTS: u64 = 16;
/// Points of one metric before the next one's turn.
const POINTS_IN_METRIC: u64 = 4;

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    GaugeDouble,
    GaugeInt,
    SumInt,
    SumDouble,
    Histogram,
    ExpHistogram,
    Summary,
}

/// The metrics that are reported, in turn.
const METRICS: [(Kind, [&str; 3]); 7] = [
    (
        Kind::GaugeDouble,
        ["system.cpu.utilization", "Share of the CPU in use", "1"],
    ),
    (
        Kind::GaugeInt,
        ["jvm.memory.used", "Memory in use by the pool", "By"],
    ),
    (
        Kind::SumInt,
        ["shop.orders.placed", "Orders placed", "{order}"],
    ),
    (
        Kind::SumDouble,
        ["process.cpu.time", "CPU time spent by the process", "s"],
    ),
    (
        Kind::Histogram,
        [
            "http.server.request.duration",
            "Duration of HTTP requests",
            "s",
        ],
    ),
    (
        Kind::ExpHistogram,
        ["rpc.client.duration", "Duration of outgoing calls", "ms"],
    ),
    (
        Kind::Summary,
        ["go.gc.pause", "Pauses of the garbage collector", "s"],
    ),
];

/// One metric's templates.
#[derive(Debug)]
struct Series {
    kind: Kind,
    /// Encoded `Metric` without its data.
    metric: Vec<u8>,
    /// Which field of `Metric` holds the data.
    data_field: u8,
    /// What follows the data points: temporality and monotonicity, encoded.
    data_tail: Vec<u8>,
    points: Vec<Template>,
}

/// The templates of data points.
#[derive(Debug)]
pub(super) struct Metrics {
    series: Vec<Series>,
    seed: u64,
    start_unix_nano: u64,
}

/// Reused while messages are nested.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    data: Vec<u8>,
    metric: Vec<u8>,
}

impl Metrics {
    pub(super) fn new(seed: u64, run: &KeyValue, start_unix_nano: u64) -> Metrics {
        let series = METRICS
            .into_iter()
            .map(|(kind, names)| series(kind, names, seed, run))
            .collect();
        Metrics {
            series,
            seed,
            start_unix_nano,
        }
    }

    /// Appends the data points, grouped by metric, to a `ScopeMetrics`.
    pub(super) fn write(
        &self,
        records: &Records,
        ids: Ids,
        buffers: &mut Buffers,
        out: &mut Vec<u8>,
    ) {
        let mut values = Values::default();
        let mut points = records.iter().peekable();
        while let Some(&(first, ..)) = points.peek() {
            let group = first / POINTS_IN_METRIC;
            let series = &self.series[group as usize % self.series.len()];
            buffers.data.clear();
            while let Some((n, seq, time)) =
                points.next_if(|&(n, ..)| n / POINTS_IN_METRIC == group)
            {
                let random = mix(self.seed, n);
                let (high, low) = ids.trace(n / SPANS_IN_TRACE);
                values.set(Slot::Start, self.start_unix_nano.min(time));
                values.set(Slot::Time, time);
                values.set(Slot::TraceHigh, high);
                values.set(Slot::TraceLow, low);
                values.set(Slot::Span, ids.span(n));
                values.set(Slot::Value, value_bits(series.kind, n, random));
                let variant = random as usize % series.points.len();
                series.points[variant].write(&mut buffers.data, 1, seq, &values);
            }
            buffers.data.extend_from_slice(&series.data_tail);
            buffers.metric.clear();
            buffers.metric.extend_from_slice(&series.metric);
            put_message(&mut buffers.metric, series.data_field, &buffers.data);
            put_message(out, 2, &buffers.metric);
        }
    }
}

/// The number of a gauge's or sum's point, as the bits of its field.
fn value_bits(kind: Kind, n: u64, random: u64) -> u64 {
    match kind {
        Kind::GaugeDouble => ((random % 10_000) as f64 / 10_000.0).to_bits(),
        Kind::GaugeInt => (64 << 20) + random % (512 << 20),
        Kind::SumInt => n, // cumulative: it only grows
        Kind::SumDouble => (n as f64 * 0.0125).to_bits(),
        Kind::Histogram | Kind::ExpHistogram | Kind::Summary => 0,
    }
}

fn series(kind: Kind, [name, description, unit]: [&str; 3], seed: u64, run: &KeyValue) -> Series {
    let metric = Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        ..Metric::default()
    };
    let sum = Sum {
        aggregation_temporality: CUMULATIVE,
        is_monotonic: true,
        ..Sum::default()
    };
    let (data_field, data_tail) = match kind {
        Kind::GaugeDouble | Kind::GaugeInt => (5, vec![]),
        Kind::SumInt | Kind::SumDouble => (7, sum.encode_to_vec()),
        Kind::Histogram => {
            let data = Histogram {
                aggregation_temporality: DELTA,
                ..Histogram::default()
            };
            (9, data.encode_to_vec())
        }
        Kind::ExpHistogram => {
            let data = ExponentialHistogram {
                aggregation_temporality: DELTA,
                ..ExponentialHistogram::default()
            };
            (10, data.encode_to_vec())
        }
        Kind::Summary => (11, vec![]),
    };
    let points = (0..VARIANTS)
        .map(|variant| {
            let attributes = vec![
                attribute("host.zone", ZONES[variant as usize % ZONES.len()]),
                int_attribute("worker.id", variant as i64),
                run.clone(),
            ];
            point(kind, mix(seed, variant), attributes)
        })
        .collect();
    Series {
        kind,
        metric: metric.encode_to_vec(),
        data_field,
        data_tail,
        points,
    }
}

const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];

fn point(kind: Kind, random: u64, attributes: Vec<KeyValue>) -> Template {
    match kind {
        Kind::GaugeDouble | Kind::SumDouble | Kind::GaugeInt | Kind::SumInt => {
            number_point(kind, attributes)
        }
        Kind::Histogram => histogram_point(random, attributes),
        Kind::ExpHistogram => exp_histogram_point(random, attributes),
        Kind::Summary => summary_point(random, attributes),
    }
}

fn exemplar(value: exemplar::Value) -> Exemplar {
    Exemplar {
        filtered_attributes: vec![attribute("http.request.method", "POST")],
        time_unix_nano: Slot::Time.marker_u64(),
        span_id: id_marker([Slot::Span]),
        trace_id: id_marker([Slot::TraceHigh, Slot::TraceLow]),
        value: Some(value),
    }
}

fn number_point(kind: Kind, attributes: Vec<KeyValue>) -> Template {
    let marker = Slot::Value.marker();
    let (value, exemplars) = match kind {
        Kind::SumInt => (
            Value::AsInt(i64::from_le_bytes(marker)),
            vec![exemplar(exemplar::Value::AsInt(1))],
        ),
        Kind::GaugeInt => (Value::AsInt(i64::from_le_bytes(marker)), vec![]),
        _ => (Value::AsDouble(f64::from_le_bytes(marker)), vec![]),
    };
    let head = NumberDataPoint {
        attributes,
        start_time_unix_nano: Slot::Start.marker_u64(),
        time_unix_nano: Slot::Time.marker_u64(),
        exemplars,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    Template::new(head.encode_to_vec(), 7, vec![])
}

fn histogram_point(random: u64, attributes: Vec<KeyValue>) -> Template {
    let bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
    let bucket_counts: Vec<u64> = [3, 9, 31, 24, 11, 5, 2, 1, 0]
        .iter()
        .enumerate()
        .map(|(place, usual)| usual + (random >> (place * 4)) % 4)
        .collect();
    let count = bucket_counts.iter().sum();
    let head = HistogramDataPoint {
        attributes,
        start_time_unix_nano: Slot::Start.marker_u64(),
        time_unix_nano: Slot::Time.marker_u64(),
        count,
        sum: Some(count as f64 * 0.043),
        bucket_counts,
        explicit_bounds: bounds.to_vec(),
        exemplars: vec![exemplar(exemplar::Value::AsDouble(0.0372))],
        ..HistogramDataPoint::default()
    };
    let tail = HistogramDataPoint {
        min: Some(0.0021),
        max: Some(1.31),
        ..HistogramDataPoint::default()
    };
    Template::new(head.encode_to_vec(), 9, tail.encode_to_vec())
}

fn exp_histogram_point(random: u64, attributes: Vec<KeyValue>) -> Template {
    let positive: Vec<u64> = (0..10)
        .map(|place| (random >> (place * 5)) % 32 + 1)
        .collect();
    let zero_count = random % 3;
    let count = positive.iter().sum::<u64>() + zero_count;
    let head = ExponentialHistogramDataPoint {
        attributes,
        ..ExponentialHistogramDataPoint::default()
    };
    let tail = ExponentialHistogramDataPoint {
        start_time_unix_nano: Slot::Start.marker_u64(),
        time_unix_nano: Slot::Time.marker_u64(),
        count,
        sum: Some(count as f64 * 6.25),
        scale: 3,
        zero_count,
        positive: Some(Buckets {
            offset: 16,
            bucket_counts: positive,
        }),
        exemplars: vec![exemplar(exemplar::Value::AsDouble(6.4))],
        min: Some(0.0),
        max: Some(9.4),
        ..ExponentialHistogramDataPoint::default()
    };
    Template::new(head.encode_to_vec(), 1, tail.encode_to_vec())
}

fn summary_point(random: u64, attributes: Vec<KeyValue>) -> Template {
    let unit = 0.0001 + (random % 100) as f64 * 0.00001;
    let count = random % 500 + 100;
    let quantile_values = [(0.0, 0.5), (0.5, 1.0), (0.99, 3.5), (1.0, 5.0)]
        .map(|(quantile, factor)| ValueAtQuantile {
            quantile,
            value: unit * factor,
        })
        .to_vec();
    let head = SummaryDataPoint {
        attributes,
        start_time_unix_nano: Slot::Start.marker_u64(),
        time_unix_nano: Slot::Time.marker_u64(),
        count,
        sum: count as f64 * unit,
        quantile_values,
        ..SummaryDataPoint::default()
    };
    Template::new(head.encode_to_vec(), 7, vec![])
}
