//! Metrics of every kind: against OTLP's decoder, and the rules of single columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Float64Builder, Int32Array,
    Int64Array, ListArray, ListBuilder, StructArray, TimestampNanosecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array, UInt64Builder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::UInt8Type;
use proptest::prelude::*;
use prost::Message;

use super::attributes::{any_attributes, attribute, attributes};
use super::produce::{AttributeRows, Counter, Group, Producer};
use super::*;
use crate::decode::protobuf;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{InstrumentationScope, KeyValue};
use crate::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use crate::proto::metrics::v1::metric::Data;
use crate::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use crate::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, number_data_point,
};
use crate::proto::resource::v1::Resource;

fn times(times: impl Iterator<Item = u64>) -> ArrayRef {
    let times = times.map(u64::cast_signed);
    Arc::new(TimestampNanosecondArray::from_iter_values(times))
}

fn counts(counts: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(counts))
}

fn doubles(doubles: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(doubles.collect::<Float64Array>())
}

fn count_lists<'l>(lists: impl Iterator<Item = &'l [u64]>) -> ArrayRef {
    let mut builder = ListBuilder::new(UInt64Builder::new());
    for list in lists {
        builder.values().append_slice(list);
        builder.append(!list.is_empty());
    }
    Arc::new(builder.finish())
}

fn double_lists<'l>(lists: impl Iterator<Item = &'l [f64]>) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    for list in lists {
        builder.values().append_slice(list);
        builder.append(!list.is_empty());
    }
    Arc::new(builder.finish())
}

/// What the tables of every kind of point need of it.
struct Point<'a> {
    metric: u32,
    attributes: &'a [KeyValue],
    exemplars: &'a [Exemplar],
    start: u64,
    time: u64,
    flags: u32,
}

/// The tables of exemplars, sorted by value as producers do.
fn exemplars(
    producer: &mut Producer,
    mut exemplars: Vec<(u32, &Exemplar)>,
    of: (ArrowPayloadType, ArrowPayloadType),
) {
    if exemplars.is_empty() {
        return;
    }
    let int = |exemplar: &Exemplar| match exemplar.value {
        Some(exemplar::Value::AsInt(int)) => Some(int),
        _ => None,
    };
    let double = |exemplar: &Exemplar| match exemplar.value {
        Some(exemplar::Value::AsDouble(double)) => Some(double),
        _ => None,
    };
    exemplars.sort_by(|(_, left), (_, right)| {
        let doubles = double(left)
            .unwrap_or(-1.0)
            .total_cmp(&double(right).unwrap_or(-1.0));
        int(left).cmp(&int(right)).then(doubles)
    });
    let (mut counter, mut attributes) = (Counter::default(), AttributeRows::default());
    let ids = exemplars.iter().map(|(_, exemplar)| {
        let id = counter.next_if(!exemplar.filtered_attributes.is_empty())?;
        attributes.add(id, &exemplar.filtered_attributes);
        Some(id)
    });
    let ids = ids.collect::<Vec<Option<u32>>>();
    let parents = exemplars
        .iter()
        .map(|(parent, _)| *parent)
        .collect::<Vec<u32>>();
    let parents = producer.parents(&parents, |row| {
        let (left, right) = (exemplars[row - 1].1, exemplars[row].1);
        int(left) == int(right) && double(left) == double(right)
    });
    let all = || exemplars.iter().map(|(_, exemplar)| *exemplar);
    let batch = table(vec![
        (
            "id",
            Arc::new(UInt32Array::from(producer.own_ids(&ids))) as ArrayRef,
        ),
        ("parent_id", Arc::new(UInt32Array::from(parents))),
        (
            "time_unix_nano",
            times(all().map(|exemplar| exemplar.time_unix_nano)),
        ),
        (
            "int_value",
            Arc::new(all().map(int).collect::<Int64Array>()),
        ),
        ("double_value", doubles(all().map(double))),
        (
            "span_id",
            producer.identifiers(all().map(|exemplar| exemplar.span_id.as_ref()), 8),
        ),
        (
            "trace_id",
            producer.identifiers(all().map(|exemplar| exemplar.trace_id.as_ref()), 16),
        ),
    ]);
    let batch = producer.stated(&batch, "quasidelta");
    producer.tables.push((of.0, batch));
    producer.attributes(of.1, attributes, true);
}

/// The tables of points: what all have, `own` columns, attributes and exemplars.
fn points(
    producer: &mut Producer,
    points: &[Point<'_>],
    own: Columns,
    of: [ArrowPayloadType; 2],
    exemplar_tables: Option<(ArrowPayloadType, ArrowPayloadType)>,
) {
    if points.is_empty() {
        return;
    }
    let (mut counter, mut attributes, mut all_exemplars) =
        (Counter::default(), AttributeRows::default(), Vec::new());
    let ids = points.iter().map(|point| {
        let id = counter.next_if(!(point.attributes.is_empty() && point.exemplars.is_empty()))?;
        attributes.add(id, point.attributes);
        all_exemplars.extend(point.exemplars.iter().map(|exemplar| (id, exemplar)));
        Some(id)
    });
    let ids = ids.collect::<Vec<Option<u32>>>();
    let parents = points.iter().map(|point| Some(point.metric));
    let parents = producer.own_ids(&parents.collect::<Vec<Option<u32>>>());
    let parents = parents
        .into_iter()
        .map(|parent| parent.map(|parent| parent as u16));
    let mut columns: Columns = vec![
        ("id", Arc::new(UInt32Array::from(producer.own_ids(&ids)))),
        ("parent_id", Arc::new(parents.collect::<UInt16Array>())),
        (
            "start_time_unix_nano",
            times(points.iter().map(|point| point.start)),
        ),
        (
            "time_unix_nano",
            times(points.iter().map(|point| point.time)),
        ),
        (
            "flags",
            Arc::new(UInt32Array::from_iter_values(
                points.iter().map(|point| point.flags),
            )),
        ),
    ];
    columns.extend(own);
    let batch = producer.stated(&table(columns), "delta");
    producer.tables.push((of[0], batch));
    producer.attributes(of[1], attributes, true);
    if let Some(of) = exemplar_tables {
        exemplars(producer, all_exemplars, of);
    }
}

/// A list of structs of a quantile and its value.
fn quantiles(points: &[&SummaryDataPoint]) -> ArrayRef {
    let all = || points.iter().flat_map(|point| &point.quantile_values);
    let items = structure(vec![
        ("quantile", doubles(all().map(|at| Some(at.quantile)))),
        ("value", doubles(all().map(|at| Some(at.value)))),
    ]);
    let lengths = points.iter().map(|point| point.quantile_values.len());
    let field = Field::new("item", items.data_type().clone(), true);
    let offsets = OffsetBuffer::from_lengths(lengths);
    Arc::new(ListArray::new(Arc::new(field), offsets, items, None))
}

fn buckets<'b>(all: impl Iterator<Item = &'b Option<Buckets>> + Clone) -> ArrayRef {
    let offsets = all
        .clone()
        .map(|side| side.as_ref().map(|side| side.offset));
    let lists = all.map(|side| side.as_ref().map_or(&[][..], |side| &side.bucket_counts));
    structure(vec![
        (
            "offset",
            Arc::new(offsets.collect::<Int32Array>()) as ArrayRef,
        ),
        ("bucket_counts", count_lists(lists)),
    ])
}

macro_rules! point {
    ($metric:expr, $point:expr, $exemplars:expr) => {
        Point {
            metric: $metric,
            attributes: &$point.attributes,
            exemplars: $exemplars,
            start: $point.start_time_unix_nano,
            time: $point.time_unix_nano,
            flags: $point.flags,
        }
    };
}

fn number_points(producer: &mut Producer, all: &[(u32, &NumberDataPoint)]) {
    let list = all
        .iter()
        .map(|(metric, point)| point!(*metric, point, &point.exemplars));
    let ints = all.iter().map(|(_, point)| match point.value {
        Some(number_data_point::Value::AsInt(int)) => Some(int),
        _ => None,
    });
    let values = all.iter().map(|(_, point)| match point.value {
        Some(number_data_point::Value::AsDouble(double)) => Some(double),
        _ => None,
    });
    let own: Columns = vec![
        ("int_value", Arc::new(ints.collect::<Int64Array>())),
        ("double_value", doubles(values)),
    ];
    points(
        producer,
        &list.collect::<Vec<Point<'_>>>(),
        own,
        [
            ArrowPayloadType::NumberDataPoints,
            ArrowPayloadType::NumberDpAttrs,
        ],
        Some((
            ArrowPayloadType::NumberDpExemplars,
            ArrowPayloadType::NumberDpExemplarAttrs,
        )),
    );
}

fn histogram_points(producer: &mut Producer, all: &[(u32, &HistogramDataPoint)]) {
    let list = all
        .iter()
        .map(|(metric, point)| point!(*metric, point, &point.exemplars));
    let own = vec![
        ("count", counts(all.iter().map(|(_, point)| point.count))),
        ("sum", doubles(all.iter().map(|(_, point)| point.sum))),
        ("min", doubles(all.iter().map(|(_, point)| point.min))),
        ("max", doubles(all.iter().map(|(_, point)| point.max))),
        (
            "bucket_counts",
            count_lists(all.iter().map(|(_, point)| &point.bucket_counts[..])),
        ),
        (
            "explicit_bounds",
            double_lists(all.iter().map(|(_, point)| &point.explicit_bounds[..])),
        ),
    ];
    points(
        producer,
        &list.collect::<Vec<Point<'_>>>(),
        own,
        [
            ArrowPayloadType::HistogramDataPoints,
            ArrowPayloadType::HistogramDpAttrs,
        ],
        Some((
            ArrowPayloadType::HistogramDpExemplars,
            ArrowPayloadType::HistogramDpExemplarAttrs,
        )),
    );
}

fn exp_histogram_points(producer: &mut Producer, all: &[(u32, &ExponentialHistogramDataPoint)]) {
    let list = all
        .iter()
        .map(|(metric, point)| point!(*metric, point, &point.exemplars));
    let scales = all.iter().map(|(_, point)| point.scale);
    let own = vec![
        ("count", counts(all.iter().map(|(_, point)| point.count))),
        ("sum", doubles(all.iter().map(|(_, point)| point.sum))),
        ("min", doubles(all.iter().map(|(_, point)| point.min))),
        ("max", doubles(all.iter().map(|(_, point)| point.max))),
        (
            "scale",
            Arc::new(Int32Array::from_iter_values(scales)) as ArrayRef,
        ),
        (
            "zero_count",
            counts(all.iter().map(|(_, point)| point.zero_count)),
        ),
        (
            "zero_threshold",
            doubles(all.iter().map(|(_, point)| Some(point.zero_threshold))),
        ),
        (
            "positive",
            buckets(all.iter().map(|(_, point)| &point.positive)),
        ),
        (
            "negative",
            buckets(all.iter().map(|(_, point)| &point.negative)),
        ),
    ];
    points(
        producer,
        &list.collect::<Vec<Point<'_>>>(),
        own,
        [
            ArrowPayloadType::ExpHistogramDataPoints,
            ArrowPayloadType::ExpHistogramDpAttrs,
        ],
        Some((
            ArrowPayloadType::ExpHistogramDpExemplars,
            ArrowPayloadType::ExpHistogramDpExemplarAttrs,
        )),
    );
}

fn summary_points(producer: &mut Producer, all: &[(u32, &SummaryDataPoint)]) {
    let list = all
        .iter()
        .map(|(metric, point)| point!(*metric, point, &[]));
    let own = vec![
        ("count", counts(all.iter().map(|(_, point)| point.count))),
        ("sum", doubles(all.iter().map(|(_, point)| Some(point.sum)))),
        (
            "quantile",
            quantiles(&all.iter().map(|(_, point)| *point).collect::<Vec<_>>()),
        ),
    ];
    points(
        producer,
        &list.collect::<Vec<Point<'_>>>(),
        own,
        [
            ArrowPayloadType::SummaryDataPoints,
            ArrowPayloadType::SummaryDpAttrs,
        ],
        None,
    );
}

/// A metric's columns that its data gives: type, temporality, whether it is monotonic.
fn kind(metric: &Metric) -> (u8, i32, bool) {
    match &metric.data {
        None => (0, 0, false),
        Some(Data::Gauge(_)) => (1, 0, false),
        Some(Data::Sum(sum)) => (2, sum.aggregation_temporality, sum.is_monotonic),
        Some(Data::Histogram(histogram)) => (3, histogram.aggregation_temporality, false),
        Some(Data::ExponentialHistogram(histogram)) => {
            (4, histogram.aggregation_temporality, false)
        }
        Some(Data::Summary(_)) => (5, 0, false),
    }
}

/// The tables of a request.
fn produce(request: &ExportMetricsServiceRequest, form: &Form) -> Tables {
    let mut producer = Producer::new(form);
    let mut rows = Vec::new();
    for (number, group) in request.resource_metrics.iter().enumerate() {
        let resource = group.resource.as_ref().unwrap();
        let resource = Group::resource(number, resource, &group.schema_url);
        for metrics in &group.scope_metrics {
            let scope = Group::scope(number, metrics.scope.as_ref().unwrap(), &metrics.schema_url);
            rows.extend(
                metrics
                    .metrics
                    .iter()
                    .map(|metric| (resource, scope, metric)),
            );
        }
    }
    let contexts = rows.iter().map(|(resource, scope, _)| (resource, scope));
    let mut columns = producer.context(&contexts.collect::<Vec<(&Group<'_>, &Group<'_>)>>());
    let metrics = || rows.iter().map(|(_, _, metric)| *metric);
    let ids = (0..rows.len())
        .map(|id| Some(id as u32))
        .collect::<Vec<Option<u32>>>();
    let ids = producer
        .own_ids(&ids)
        .into_iter()
        .map(|id| id.map(|id| id as u16));
    let temporality = Int32Array::from_iter_values(metrics().map(|metric| kind(metric).1));
    let monotonic = metrics()
        .map(|metric| Some(kind(metric).2))
        .collect::<BooleanArray>();
    columns.extend([
        ("id", Arc::new(ids.collect::<UInt16Array>()) as ArrayRef),
        (
            "metric_type",
            Arc::new(UInt8Array::from_iter_values(
                metrics().map(|metric| kind(metric).0),
            )),
        ),
        (
            "name",
            producer.texts(metrics().map(|metric| metric.name.as_str())),
        ),
        (
            "description",
            producer.texts(metrics().map(|metric| metric.description.as_str())),
        ),
        (
            "unit",
            producer.texts(metrics().map(|metric| metric.unit.as_str())),
        ),
        (
            "aggregation_temporality",
            producer.shared(Arc::new(temporality)),
        ),
        ("is_monotonic", Arc::new(monotonic)),
    ]);
    let root = producer.stated(&table(columns), "delta");
    producer
        .tables
        .push((ArrowPayloadType::UnivariateMetrics, root));
    let mut metadata = AttributeRows::default();
    let (mut numbers, mut histograms, mut exp_histograms, mut summaries) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, metric) in (0..).zip(metrics()) {
        metadata.add(id, &metric.metadata);
        match metric.data.as_ref() {
            None => {}
            Some(Data::Gauge(of)) => numbers.extend(of.data_points.iter().map(|at| (id, at))),
            Some(Data::Sum(of)) => numbers.extend(of.data_points.iter().map(|at| (id, at))),
            Some(Data::Histogram(of)) => {
                histograms.extend(of.data_points.iter().map(|at| (id, at)));
            }
            Some(Data::ExponentialHistogram(of)) => {
                exp_histograms.extend(of.data_points.iter().map(|at| (id, at)));
            }
            Some(Data::Summary(of)) => summaries.extend(of.data_points.iter().map(|at| (id, at))),
        }
    }
    producer.attributes(ArrowPayloadType::MetricAttrs, metadata, false);
    number_points(&mut producer, &numbers);
    histogram_points(&mut producer, &histograms);
    exp_histogram_points(&mut producer, &exp_histograms);
    summary_points(&mut producer, &summaries);
    producer.finish()
}

fn expected(request: &ExportMetricsServiceRequest) -> Rows {
    let budget = Budget::new(256 << 20);
    protobuf::decode(
        Signal::Metrics,
        &request.encode_to_vec(),
        RECEIVED,
        budget.empty(),
    )
    .unwrap()
}

fn request(groups: Vec<Vec<Metric>>) -> ExportMetricsServiceRequest {
    let groups = groups
        .into_iter()
        .enumerate()
        .map(|(number, metrics)| ResourceMetrics {
            resource: Some(Resource {
                attributes: attributes(number * 4),
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "meter".into(),
                    version: number.to_string(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                schema_url: "https://example.com/scope".into(),
            }],
            schema_url: "https://example.com/resource".into(),
        });
    ExportMetricsServiceRequest {
        resource_metrics: groups.collect(),
    }
}

fn metric(name: &str, data: Option<Data>) -> Metric {
    Metric {
        name: name.into(),
        description: format!("what {name} is"),
        unit: "By".into(),
        metadata: attributes(name.len() % 3),
        data,
    }
}

/// Exemplars in the order of their values, as tables of them come: without one, ints, doubles.
fn some_exemplars(number: u8) -> Vec<Exemplar> {
    let values = [
        None,
        Some(exemplar::Value::AsDouble(0.5)),
        Some(exemplar::Value::AsDouble(f64::INFINITY)),
        Some(exemplar::Value::AsInt(-1)),
        Some(exemplar::Value::AsInt(7)),
    ];
    let exemplars = values
        .into_iter()
        .zip(0u8..)
        .map(|(value, place)| Exemplar {
            filtered_attributes: attributes(usize::from(place + number) % 4),
            time_unix_nano: u64::from(number) << 30,
            span_id: if place.is_multiple_of(2) {
                Vec::new()
            } else {
                vec![place; 8]
            }
            .into(),
            trace_id: vec![place; 16].into(),
            value,
        });
    exemplars.take(usize::from(number % 6)).collect()
}

fn number(place: u8, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: u64::from(place % 2),
        time_unix_nano: 1_700_000_000_000_000_000 + u64::from(place),
        exemplars: some_exemplars(place),
        flags: (place % 2).into(),
        value: match place % 4 {
            0 => None,
            1 => Some(number_data_point::Value::AsInt(i64::from(place) - 3)),
            2 => Some(number_data_point::Value::AsDouble(f64::NAN)),
            _ => Some(number_data_point::Value::AsDouble(0.25)),
        },
    }
}

fn histogram(place: u8, bounds: Vec<f64>) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes(place.into()),
        start_time_unix_nano: 1,
        time_unix_nano: 1_700_000_000_000_000_000,
        count: place.into(),
        sum: (place.is_multiple_of(2)).then_some(0.0),
        bucket_counts: vec![
            place.into();
            if bounds.is_empty() {
                0
            } else {
                bounds.len() + 1
            }
        ],
        explicit_bounds: bounds,
        exemplars: some_exemplars(place),
        flags: 0,
        min: (place.is_multiple_of(3)).then_some(-1.5),
        max: (place % 3 == 1).then_some(9.0),
    }
}

fn exp_histogram(place: u8) -> ExponentialHistogramDataPoint {
    let buckets = |offset: i32| Buckets {
        offset,
        bucket_counts: (0..u64::from(place)).collect(),
    };
    ExponentialHistogramDataPoint {
        attributes: attributes(place.into()),
        time_unix_nano: 1_700_000_000_000_000_000,
        count: u64::MAX,
        sum: Some(2.5),
        scale: -3,
        zero_count: place.into(),
        positive: (place.is_multiple_of(2)).then(|| buckets(-4)),
        negative: (place.is_multiple_of(3)).then(|| buckets(4)),
        exemplars: some_exemplars(place),
        zero_threshold: 0.001,
        ..ExponentialHistogramDataPoint::default()
    }
}

fn summary(place: u8) -> SummaryDataPoint {
    let quantiles = (0..place).map(|at| ValueAtQuantile {
        quantile: f64::from(at) / 10.0,
        value: f64::from(at),
    });
    SummaryDataPoint {
        attributes: attributes(place.into()),
        time_unix_nano: 1_700_000_000_000_000_000,
        count: 3,
        sum: 4.5,
        quantile_values: quantiles.collect(),
        flags: 1,
        ..SummaryDataPoint::default()
    }
}

fn gauge(points: impl IntoIterator<Item = NumberDataPoint>) -> Option<Data> {
    Some(Data::Gauge(Gauge {
        data_points: points.into_iter().collect(),
    }))
}

/// Scenario: metrics of every kind, one without data and one without points, with metadata, attributes and exemplars that
/// have attributes themselves, two resources; in every legal form of their tables.
/// Guarantees: the rows, column by column, that OTLP gives; a histogram whose buckets do not match is refused alone.
#[test]
fn metrics_give_the_rows_of_otlp() {
    let mut mismatched = histogram(2, vec![1.0]);
    mismatched.bucket_counts = vec![1];
    let sum = Data::Sum(Sum {
        data_points: vec![number(4, attributes(2)), number(5, attributes(9))],
        aggregation_temporality: 2,
        is_monotonic: true,
    });
    let histograms = Data::Histogram(Histogram {
        data_points: vec![
            histogram(0, Vec::new()),
            mismatched,
            histogram(5, vec![0.5, 1.0]),
            histogram(1, vec![2.0]),
        ],
        aggregation_temporality: 1,
    });
    let exp_histograms = Data::ExponentialHistogram(ExponentialHistogram {
        data_points: (0..6).map(exp_histogram).collect(),
        aggregation_temporality: 2,
    });
    let summaries = Data::Summary(Summary {
        data_points: (0..3).map(summary).collect(),
    });
    let request = request(vec![
        vec![
            metric(
                "gauge",
                gauge((0..4).map(|place| number(place, attributes(place.into())))),
            ),
            metric("nothing", None),
            metric("histogram", Some(histograms)),
            metric("a sum", Some(sum)),
        ],
        vec![
            metric("exp", Some(exp_histograms)),
            metric("summary", Some(summaries)),
            metric("empty", gauge([])),
            metric("gauge", gauge([number(5, attributes(9))])),
        ],
    ]);
    let expected = expected(&request);
    assert_eq!((expected.rows(), expected.rejections.total()), (19, 1));
    assert_eq!(expected.batches.len(), 5);
    for form in forms() {
        let rows = decode(Signal::Metrics, &produce(&request, &form)).unwrap();
        assert_same(&rows, &expected);
    }
}

/// One metric of a type, and one point of a table.
fn lone(metric_type: u8, of: ArrowPayloadType, own: Columns) -> Result<Rows, DecodeError> {
    let root = table(vec![
        ("id", Arc::new(UInt16Array::from(vec![7])) as ArrayRef),
        ("metric_type", Arc::new(UInt8Array::from(vec![metric_type]))),
        ("name", Arc::new(arrow::array::StringArray::from(vec!["m"]))),
    ]);
    let mut columns: Columns = vec![("parent_id", Arc::new(UInt16Array::from(vec![7])))];
    columns.extend(own);
    let tables = [
        (ArrowPayloadType::UnivariateMetrics, root),
        (of, table(columns)),
    ];
    decode(Signal::Metrics, &tables_of(tables))
}

fn tables_of(list: [(ArrowPayloadType, RecordBatch); 2]) -> Tables {
    tables(list)
}

/// Scenario: points with no column but their parent.
/// Guarantees: one row each, every other field OTLP's default.
#[test]
fn missing_columns_are_the_defaults() {
    for (metric_type, of, table) in [
        (1, ArrowPayloadType::NumberDataPoints, Table::Gauge),
        (2, ArrowPayloadType::NumberDataPoints, Table::Sum),
        (3, ArrowPayloadType::HistogramDataPoints, Table::Histogram),
        (
            4,
            ArrowPayloadType::ExpHistogramDataPoints,
            Table::ExpHistogram,
        ),
        (5, ArrowPayloadType::SummaryDataPoints, Table::Summary),
    ] {
        let rows = lone(metric_type, of, Vec::new()).unwrap();
        assert_eq!(column(&rows, table, "name"), ["m"]);
        assert_eq!(column(&rows, table, "time_unix_nano"), ["-"]);
        assert_eq!(column(&rows, table, "flags"), ["0"]);
        if table == Table::Histogram {
            assert_eq!(column(&rows, table, "sum"), ["-"]);
            assert_eq!(column(&rows, table, "bucket_counts"), ["[]"]);
        }
    }
}

/// Scenario: points under a metric of every other type, and types that do not exist.
/// Guarantees: the batch is refused.
#[test]
fn points_of_another_kind_are_refused() {
    let of = [
        ArrowPayloadType::NumberDataPoints,
        ArrowPayloadType::HistogramDataPoints,
        ArrowPayloadType::ExpHistogramDataPoints,
        ArrowPayloadType::SummaryDataPoints,
    ];
    for metric_type in 0..8 {
        for (place, of) in of.into_iter().enumerate() {
            let fits = matches!((metric_type, place), (1 | 2, 0) | (3, 1) | (4, 2) | (5, 3));
            let result = lone(metric_type, of, Vec::new());
            if fits {
                assert_eq!(result.unwrap().rows(), 1);
            } else {
                let reason = malformed(result);
                assert!(
                    reason.contains(&format!("metric_type is {metric_type}"))
                        || reason.contains(&format!("metric_type {metric_type}")),
                    "{reason}"
                );
            }
        }
    }
}

/// Scenario: a point with two values, one whose dictionary's value is null, lists with nulls among their items, and quantiles without their column.
/// Guarantees: two values refuse the batch, the rest is the default.
#[test]
fn contradictions_are_refused_and_nulls_are_defaults() {
    let both: Columns = vec![
        ("int_value", Arc::new(Int64Array::from(vec![1]))),
        ("double_value", Arc::new(Float64Array::from(vec![1.0]))),
    ];
    let reason = malformed(lone(1, ArrowPayloadType::NumberDataPoints, both));
    assert_eq!(
        reason,
        "row 0 of NUMBER_DATA_POINTS has an int_value and a double_value"
    );

    let null = Int64Array::new(vec![5].into(), Some(vec![false].into()));
    let null = DictionaryArray::<UInt8Type>::new(UInt8Array::from(vec![0]), Arc::new(null));
    let own: Columns = vec![("int_value", Arc::new(null))];
    let rows = lone(1, ArrowPayloadType::NumberDataPoints, own).unwrap();
    assert_eq!(column(&rows, Table::Gauge, "int_value"), ["-"]);

    let list = ListArray::from_iter_primitive::<arrow::datatypes::UInt64Type, _, _>([Some(vec![
        Some(3),
        None,
    ])]);
    let bounds =
        ListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>([Some(vec![None])]);
    let own: Columns = vec![
        ("bucket_counts", Arc::new(list)),
        ("explicit_bounds", Arc::new(bounds)),
    ];
    let rows = lone(3, ArrowPayloadType::HistogramDataPoints, own).unwrap();
    assert_eq!(column(&rows, Table::Histogram, "bucket_counts"), ["[3, 0]"]);
    assert_eq!(
        column(&rows, Table::Histogram, "explicit_bounds"),
        ["[0.0]"]
    );

    let items: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("value", DataType::Float64, true)),
        Arc::new(Float64Array::from(vec![Some(2.0), None])) as ArrayRef,
    )]));
    let field = Field::new("item", items.data_type().clone(), true);
    let list = ListArray::new(
        Arc::new(field),
        OffsetBuffer::from_lengths([2]),
        items,
        None,
    );
    let rows = lone(
        5,
        ArrowPayloadType::SummaryDataPoints,
        vec![("quantile", Arc::new(list))],
    )
    .unwrap();
    assert_eq!(column(&rows, Table::Summary, "quantiles"), ["[0.0, 0.0]"]);
    assert_eq!(
        column(&rows, Table::Summary, "quantile_values"),
        ["[2.0, 0.0]"]
    );
}

/// Scenario: the buckets of a point are a null struct over items that are not.
/// Guarantees: the point has no buckets.
#[test]
fn a_null_struct_hides_its_columns() {
    let full = buckets(
        [Some(Buckets {
            offset: 3,
            bucket_counts: vec![1, 2],
        })]
        .iter(),
    );
    let full = full.as_any().downcast_ref::<StructArray>().unwrap().clone();
    let (fields, arrays, _) = full.into_parts();
    let null = StructArray::new(fields, arrays, Some(vec![false].into()));
    let own: Columns = vec![("positive", Arc::new(null))];
    let rows = lone(4, ArrowPayloadType::ExpHistogramDataPoints, own).unwrap();
    assert_eq!(column(&rows, Table::ExpHistogram, "positive_offset"), ["0"]);
    assert_eq!(
        column(&rows, Table::ExpHistogram, "positive_bucket_counts"),
        ["[]"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Scenario: any few gauges with any few points and attributes, in any form.
    /// Guarantees: the rows that OTLP gives.
    #[test]
    fn any_gauges_give_the_rows_of_otlp(
        metrics in proptest::collection::vec(
            proptest::collection::vec((0u8..12, any_attributes()), 0..5), 1..6),
        form in 0usize..9,
    ) {
        let metrics = metrics.into_iter().map(|points| {
            let points = points.into_iter().map(|(place, attributes)| number(place, attributes));
            metric("g", gauge(points))
        });
        let request = request(vec![metrics.collect()]);
        let rows = decode(Signal::Metrics, &produce(&request, &forms()[form])).unwrap();
        assert_same(&rows, &expected(&request));
    }
}

/// Scenario: metadata of a metric, and a key of it that is a resource's too.
/// Guarantees: the metadata stands with its metric alone.
#[test]
fn metadata_stands_with_its_metric() {
    let mut first = metric("first", gauge([number(1, Vec::new())]));
    first.metadata = vec![attribute("service.name", Value::StringValue("m".into()))];
    let mut second = metric("second", gauge([number(1, Vec::new())]));
    second.metadata = Vec::new();
    let request = request(vec![vec![first, second]]);
    let rows = decode(Signal::Metrics, &produce(&request, &forms()[0])).unwrap();
    let metadata = column(&rows, Table::Gauge, "metadata");
    assert_eq!(metadata, [r#"{"service.name":"m"}"#, "-"]);
    let services = column(&rows, Table::Gauge, "service_name");
    assert_eq!(services, ["unknown_service", "unknown_service"]);
}
