//! What the decoders hand over of a metric: its own fields, and its points of each kind.

/// The value of a number point or an exemplar.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NumberValue {
    /// No value was recorded.
    #[default]
    None,
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
}

/// What a metric's kind adds to each of its points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricKind {
    /// A gauge.
    #[default]
    Gauge,
    /// A sum.
    Sum {
        /// OTLP's number: 0 unspecified, 1 delta, 2 cumulative.
        aggregation_temporality: i32,
        /// Whether it only grows.
        is_monotonic: bool,
    },
    /// A histogram with explicit bounds.
    Histogram {
        /// OTLP's number.
        aggregation_temporality: i32,
    },
    /// A histogram with exponential bounds.
    ExpHistogram {
        /// OTLP's number.
        aggregation_temporality: i32,
    },
    /// A summary.
    Summary,
}

/// What the points of one metric share (OTLP `metrics.proto`, `Metric`).
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricFields<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// Its description.
    pub description: &'a str,
    /// Its unit (UCUM).
    pub unit: &'a str,
    /// `Metric.metadata` as one JSON object; empty when there is none.
    pub metadata: &'a str,
    /// Its kind.
    pub kind: MetricKind,
}

/// What points of every kind have.
#[derive(Clone, Copy, Debug, Default)]
pub struct PointFields<'a> {
    /// Unix nanoseconds; 0 when unset.
    pub time_unix_nano: u64,
    /// Unix nanoseconds; 0 when unset.
    pub start_time_unix_nano: u64,
    /// Attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// OTLP's data point flags.
    pub flags: u32,
    /// Exemplars as one JSON list; empty when there are none. A summary has none.
    pub exemplars_json: &'a str,
}

/// A point of a gauge or a sum (OTLP `metrics.proto`, `NumberDataPoint`).
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberPoint<'a> {
    /// What every point has.
    pub point: PointFields<'a>,
    /// The value; a point without one is kept with both columns null.
    pub value: NumberValue,
}

/// A point of a histogram (OTLP `metrics.proto`, `HistogramDataPoint`).
#[derive(Clone, Copy, Debug, Default)]
pub struct HistogramPoint<'a> {
    /// What every point has.
    pub point: PointFields<'a>,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Observations by bucket: one more than there are bounds, or none at all.
    pub bucket_counts: &'a [u64],
    /// The bounds between the buckets.
    pub explicit_bounds: &'a [f64],
}

/// A point of an exponential histogram (OTLP `metrics.proto`, `ExponentialHistogramDataPoint`).
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpHistogramPoint<'a> {
    /// What every point has.
    pub point: PointFields<'a>,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The resolution.
    pub scale: i32,
    /// Observations within `zero_threshold` of zero.
    pub zero_count: u64,
    /// The width of the zero bucket.
    pub zero_threshold: f64,
    /// The index of the first positive bucket.
    pub positive_offset: i32,
    /// Observations by positive bucket.
    pub positive_bucket_counts: &'a [u64],
    /// The index of the first negative bucket.
    pub negative_offset: i32,
    /// Observations by negative bucket.
    pub negative_bucket_counts: &'a [u64],
}

/// A point of a summary (OTLP `metrics.proto`, `SummaryDataPoint`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SummaryPoint<'a> {
    /// What every point has.
    pub point: PointFields<'a>,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The quantiles, 0 to 1.
    pub quantiles: &'a [f64],
    /// The value at each of them.
    pub quantile_values: &'a [f64],
}
