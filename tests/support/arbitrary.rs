//! Random OTLP requests of every signal, with weird ids, times, numbers and deep values among them.

use bytes::Bytes;
use otlake::proto::collector::logs::v1::ExportLogsServiceRequest;
use otlake::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use otlake::proto::collector::trace::v1::ExportTraceServiceRequest;
use otlake::proto::common::v1::any_value::Value as Any;
use otlake::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use otlake::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use otlake::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, number_data_point,
};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::otlp::{Export, array, kv, map};

/// So many cases, the same ones in every run. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` look further.
pub fn seeded(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(u64::from(cases));
    }
    config
}

/// A request of any signal.
pub fn export() -> impl Strategy<Value = Export> {
    prop_oneof![logs(), traces(), metrics()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-c]{0,2}",
        1 => Just("service.name".to_owned()),
        1 => Just("event.name".to_owned()),
        2 => any::<String>(),
        1 => "[\u{0}-\u{1f}\"\\\\\u{7f}\u{2028}é\u{1f980}]{0,20}",
    ]
}

fn id(len: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => vec(any::<u8>(), len),
        1 => Just(Vec::new()),
        1 => Just(vec![0; len]),
        1 => vec(any::<u8>(), 0..40),
    ]
    .prop_map(Bytes::from)
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 1_700_000_000_000_000_000..1_800_000_000_000_000_000u64,
        2 => Just(0),
        2 => 0..=i64::MAX as u64,
        1 => any::<u64>(),
        1 => Just(i64::MAX as u64),
        1 => Just(i64::MAX as u64 + 1),
    ]
}

/// Any double. NaN is one value: JSON has no payloads.
fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => any::<f64>(),
        2 => prop::num::f64::ANY,
        1 => prop::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 5e-324, 0.1]),
    ]
    .prop_map(|value| if value.is_nan() { f64::NAN } else { value })
}

/// A double of a field without presence. A negative zero is left out: prost takes it for the default and does not
/// write it.
fn plain_double() -> impl Strategy<Value = f64> {
    double().prop_map(|value| if value == 0.0 { 0.0 } else { value })
}

fn small_or_any() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 0..9u32, any::<u32>()]
}

fn value() -> impl Strategy<Value = Option<AnyValue>> {
    let some = |value| Some(AnyValue { value: Some(value) });
    let leaf = prop_oneof![
        Just(None),
        Just(Some(AnyValue { value: None })),
        text().prop_map(move |text| some(Any::StringValue(text))),
        any::<i64>().prop_map(move |value| some(Any::IntValue(value))),
        double().prop_map(move |value| some(Any::DoubleValue(value))),
        any::<bool>().prop_map(move |value| some(Any::BoolValue(value))),
        vec(any::<u8>(), 0..20).prop_map(move |bytes| some(Any::BytesValue(bytes.into()))),
    ];
    let tree = leaf.prop_recursive(5, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(array),
            vec((text(), inner), 0..4).prop_map(|entries| {
                map(entries
                    .into_iter()
                    .map(|(key, value)| kv(&key, value))
                    .collect())
            }),
        ]
    });
    // Deeper than a random tree gets: up to the bound itself.
    (
        tree,
        prop_oneof![9 => Just(0..0), 1 => (0..55usize).prop_map(|depth| 0..depth)],
    )
        .prop_map(|(value, levels)| {
            levels.fold(value, |value, level| match level % 3 {
                0 => map(vec![kv("k", value)]),
                _ => array([value]),
            })
        })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let entry = (text(), value()).prop_map(|(key, value)| kv(&key, value));
    prop_oneof![1 => Just(Vec::new()), 3 => vec(entry, 0..5)]
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    let resource = (attributes(), small_or_any()).prop_map(|(attributes, dropped)| Resource {
        attributes,
        dropped_attributes_count: dropped,
        ..Resource::default()
    });
    option::of(resource)
}

fn scope() -> impl Strategy<Value = Option<InstrumentationScope>> {
    let scope = (text(), text(), attributes(), small_or_any()).prop_map(
        |(name, version, attributes, dropped)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count: dropped,
        },
    );
    option::of(scope)
}

/// A scope, its schema URL and its records.
type ScopeGroup<T> = (Option<InstrumentationScope>, String, Vec<T>);

/// A resource, its schema URL and its scopes.
type ResourceGroup<T> = (Option<Resource>, String, Vec<ScopeGroup<T>>);

/// Up to two resources of up to two scopes of up to three records.
fn groups<T: std::fmt::Debug + Clone>(
    record: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Vec<ResourceGroup<T>>> {
    let scopes = vec((scope(), text(), vec(record, 0..4)), 0..3);
    vec((resource(), text(), scopes), 0..3)
}

/// A request of log records.
pub fn logs() -> impl Strategy<Value = Export> {
    let record = (
        (time(), time(), any::<i32>(), text(), option::of(value())),
        (
            attributes(),
            small_or_any(),
            any::<u32>(),
            id(16),
            id(8),
            text(),
        ),
    );
    let record = record.prop_map(|(first, second)| LogRecord {
        time_unix_nano: first.0,
        observed_time_unix_nano: first.1,
        severity_number: first.2,
        severity_text: first.3,
        body: first.4.flatten(),
        attributes: second.0,
        dropped_attributes_count: second.1,
        flags: second.2,
        trace_id: second.3,
        span_id: second.4,
        event_name: second.5,
    });
    groups(record.boxed()).prop_map(|groups| {
        let resource_logs = groups.into_iter().map(|(resource, schema_url, scopes)| {
            let scope_logs = scopes
                .into_iter()
                .map(|(scope, schema_url, log_records)| ScopeLogs {
                    scope,
                    log_records,
                    schema_url,
                });
            ResourceLogs {
                resource,
                scope_logs: scope_logs.collect(),
                schema_url,
            }
        });
        Export::Logs(ExportLogsServiceRequest {
            resource_logs: resource_logs.collect(),
        })
    })
}

fn event() -> impl Strategy<Value = span::Event> {
    (time(), text(), attributes(), small_or_any()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| span::Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link() -> impl Strategy<Value = span::Link> {
    (
        id(16),
        id(8),
        text(),
        attributes(),
        small_or_any(),
        any::<u32>(),
    )
        .prop_map(
            |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| {
                span::Link {
                    trace_id,
                    span_id,
                    trace_state,
                    attributes,
                    dropped_attributes_count,
                    flags,
                }
            },
        )
}

/// A request of spans.
pub fn traces() -> impl Strategy<Value = Export> {
    let status = (text(), any::<i32>()).prop_map(|(message, code)| Status { message, code });
    let span = (
        (
            id(16),
            id(8),
            text(),
            id(8),
            any::<u32>(),
            text(),
            any::<i32>(),
            time(),
            time(),
        ),
        (
            attributes(),
            small_or_any(),
            vec(event(), 0..3),
            small_or_any(),
        ),
        (vec(link(), 0..3), small_or_any(), option::of(status)),
    );
    let span = span.prop_map(|(first, second, third)| Span {
        trace_id: first.0,
        span_id: first.1,
        trace_state: first.2,
        parent_span_id: first.3,
        flags: first.4,
        name: first.5,
        kind: first.6,
        start_time_unix_nano: first.7,
        end_time_unix_nano: first.8,
        attributes: second.0,
        dropped_attributes_count: second.1,
        events: second.2,
        dropped_events_count: second.3,
        links: third.0,
        dropped_links_count: third.1,
        status: third.2,
    });
    groups(span.boxed()).prop_map(|groups| {
        let resource_spans = groups.into_iter().map(|(resource, schema_url, scopes)| {
            let scope_spans = scopes
                .into_iter()
                .map(|(scope, schema_url, spans)| ScopeSpans {
                    scope,
                    spans,
                    schema_url,
                });
            ResourceSpans {
                resource,
                scope_spans: scope_spans.collect(),
                schema_url,
            }
        });
        Export::Traces(ExportTraceServiceRequest {
            resource_spans: resource_spans.collect(),
        })
    })
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let value = prop_oneof![
        double().prop_map(exemplar::Value::AsDouble),
        any::<i64>().prop_map(exemplar::Value::AsInt),
    ];
    let exemplar = (attributes(), time(), id(8), id(16), option::of(value)).prop_map(
        |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        },
    );
    vec(exemplar, 0..3)
}

fn number() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        double().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ];
    (
        attributes(),
        time(),
        time(),
        exemplars(),
        any::<u32>(),
        option::of(value),
    )
        .prop_map(
            |(attributes, start_time_unix_nano, time_unix_nano, exemplars, flags, value)| {
                NumberDataPoint {
                    attributes,
                    start_time_unix_nano,
                    time_unix_nano,
                    exemplars,
                    flags,
                    value,
                }
            },
        )
}

fn sum_min_max() -> impl Strategy<Value = [Option<f64>; 3]> {
    [
        option::of(double()),
        option::of(double()),
        option::of(double()),
    ]
}

fn histogram() -> impl Strategy<Value = HistogramDataPoint> {
    let lists = prop_oneof![
        vec((any::<u64>(), double()), 0..5).prop_map(|buckets| {
            let (mut counts, bounds): (Vec<_>, Vec<_>) = buckets.into_iter().unzip();
            counts.push(7);
            (counts, bounds)
        }),
        (vec(any::<u64>(), 0..4), vec(double(), 0..4)),
    ];
    (
        (attributes(), time(), time(), any::<u64>(), sum_min_max()),
        (lists, exemplars(), any::<u32>()),
    )
        .prop_map(|(first, (lists, exemplars, flags))| {
            let [sum, min, max] = first.4;
            HistogramDataPoint {
                attributes: first.0,
                start_time_unix_nano: first.1,
                time_unix_nano: first.2,
                count: first.3,
                sum,
                bucket_counts: lists.0,
                explicit_bounds: lists.1,
                exemplars,
                flags,
                min,
                max,
            }
        })
}

fn exp_histogram() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    let buckets = || {
        let buckets = (any::<i32>(), vec(any::<u64>(), 0..5));
        option::of(buckets.prop_map(|(offset, bucket_counts)| Buckets {
            offset,
            bucket_counts,
        }))
    };
    (
        (attributes(), time(), time(), any::<u64>(), sum_min_max()),
        (any::<i32>(), any::<u64>(), buckets(), buckets()),
        (any::<u32>(), exemplars(), plain_double()),
    )
        .prop_map(|(first, second, third)| {
            let [sum, min, max] = first.4;
            ExponentialHistogramDataPoint {
                attributes: first.0,
                start_time_unix_nano: first.1,
                time_unix_nano: first.2,
                count: first.3,
                sum,
                scale: second.0,
                zero_count: second.1,
                positive: second.2,
                negative: second.3,
                flags: third.0,
                exemplars: third.1,
                min,
                max,
                zero_threshold: third.2,
            }
        })
}

fn summary() -> impl Strategy<Value = SummaryDataPoint> {
    let at = (plain_double(), plain_double())
        .prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (
        (attributes(), time(), time(), any::<u64>(), plain_double()),
        (vec(at, 0..4), any::<u32>()),
    )
        .prop_map(|(first, (quantile_values, flags))| SummaryDataPoint {
            attributes: first.0,
            start_time_unix_nano: first.1,
            time_unix_nano: first.2,
            count: first.3,
            sum: first.4,
            quantile_values,
            flags,
        })
}

fn data() -> impl Strategy<Value = Option<Data>> {
    let kinds = prop_oneof![
        vec(number(), 0..3).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number(), 0..3), any::<i32>(), any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic,
            })
        ),
        (vec(histogram(), 0..3), any::<i32>()).prop_map(
            |(data_points, aggregation_temporality)| Data::Histogram(Histogram {
                data_points,
                aggregation_temporality,
            })
        ),
        (vec(exp_histogram(), 0..3), any::<i32>()).prop_map(
            |(data_points, aggregation_temporality)| Data::ExponentialHistogram(
                ExponentialHistogram {
                    data_points,
                    aggregation_temporality,
                }
            )
        ),
        vec(summary(), 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    prop_oneof![1 => Just(None), 9 => kinds.prop_map(Some)]
}

/// A request of metrics.
pub fn metrics() -> impl Strategy<Value = Export> {
    let metric = (text(), text(), text(), data(), attributes()).prop_map(
        |(name, description, unit, data, metadata)| Metric {
            name,
            description,
            unit,
            metadata,
            data,
        },
    );
    groups(metric.boxed()).prop_map(|groups| {
        let resource_metrics = groups.into_iter().map(|(resource, schema_url, scopes)| {
            let scope_metrics =
                scopes
                    .into_iter()
                    .map(|(scope, schema_url, metrics)| ScopeMetrics {
                        scope,
                        metrics,
                        schema_url,
                    });
            ResourceMetrics {
                resource,
                scope_metrics: scope_metrics.collect(),
                schema_url,
            }
        });
        Export::Metrics(ExportMetricsServiceRequest {
            resource_metrics: resource_metrics.collect(),
        })
    })
}
