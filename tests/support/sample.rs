//! One realistic request a signal that uses everything OTLP has, for tests that compare ways of sending it.

use bytes::Bytes;
use otlake::proto::common::v1::{InstrumentationScope, KeyValue};
use otlake::proto::logs::v1::LogRecord;
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use otlake::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, number_data_point,
};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::{Span, Status, span};

use super::otlp::{
    Export, array, boolean, bytes, double, empty, id, int, kv, map, metric, resource, text,
};

/// 2025-01-02 03:04:05.123456789 UTC.
pub const AT: u64 = 1_735_787_045_123_456_789;

/// The three requests, each with two resources, the second one bare.
pub fn exports() -> [Export; 3] {
    [logs(), traces(), metrics()]
}

/// Values of every kind, keys out of order and repeated, text beyond ASCII.
pub fn attributes() -> Vec<KeyValue> {
    vec![
        kv("zeta", text("naïve ☕ 日本語 \u{1f980} \"q\" \\ \n\t\u{1}")),
        kv("int", int(i64::MIN)),
        kv("double", double(0.1)),
        kv("nan", double(f64::NAN)),
        kv("inf", double(f64::NEG_INFINITY)),
        kv("bool", boolean(false)),
        kv("bytes", bytes(&[0, 1, 254, 255])),
        kv("empty", empty()),
        kv("no value", None),
        kv("", text("")),
        kv(
            "array",
            array([text("a"), int(1), empty(), array([boolean(true)])]),
        ),
        kv(
            "map",
            map(vec![
                kv("β", int(2)),
                kv("a", map(vec![])),
                kv("β", array([])),
            ]),
        ),
        kv("int", int(7)),
    ]
}

fn service() -> Resource {
    Resource {
        dropped_attributes_count: 3,
        ..resource(vec![
            kv("service.name", text("checkout-überall")),
            kv("service.namespace", text("shop")),
            kv(
                "service.instance.id",
                text("627cc493-f310-47de-96bd-71410b7dec09"),
            ),
            kv("process.command_args", array([text("run"), text("--fast")])),
            kv("host.cpu.count", int(64)),
        ])
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "io.opentelemetry.contrib.mongodb".into(),
        version: "1.2.3-β".into(),
        attributes: attributes(),
        dropped_attributes_count: 9,
    }
}

/// Adds the groups of `more` to `export`.
fn with(mut export: Export, more: Export) -> Export {
    match (&mut export, more) {
        (Export::Logs(to), Export::Logs(from)) => to.resource_logs.extend(from.resource_logs),
        (Export::Traces(to), Export::Traces(from)) => to.resource_spans.extend(from.resource_spans),
        (Export::Metrics(to), Export::Metrics(from)) => {
            to.resource_metrics.extend(from.resource_metrics);
        }
        _ => unreachable!("both are of one signal"),
    }
    export
}

fn bare() -> (Resource, InstrumentationScope) {
    (resource(vec![]), InstrumentationScope::default())
}

fn logs() -> Export {
    let full = LogRecord {
        time_unix_nano: AT,
        observed_time_unix_nano: AT + 1,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: text("payment of 12 € failed\n\tat line 1"),
        attributes: attributes(),
        dropped_attributes_count: 2,
        flags: 1,
        trace_id: id(16, 1),
        span_id: id(8, 0xf0),
        event_name: "payment.failed".into(),
    };
    let body = |body| LogRecord {
        time_unix_nano: AT + 2,
        body,
        ..LogRecord::default()
    };
    let undated = LogRecord {
        observed_time_unix_nano: AT + 3,
        attributes: vec![kv("event.name", text("from.attribute"))],
        trace_id: Bytes::from_static(&[0; 16]),
        ..LogRecord::default()
    };
    let records = vec![
        full,
        body(map(attributes())),
        body(array([int(1), text("two")])),
        body(bytes(b"\x00binary")),
        body(double(f64::INFINITY)),
        body(empty()),
        body(None),
        undated.clone(),
    ];
    let (no_resource, no_scope) = bare();
    with(
        Export::logs(service(), scope(), records),
        Export::logs(no_resource, no_scope, vec![undated]),
    )
}

fn traces() -> Export {
    let event = |name: &str, attributes| span::Event {
        time_unix_nano: AT + 10,
        name: name.into(),
        attributes,
        dropped_attributes_count: 1,
    };
    let link = span::Link {
        trace_id: id(16, 0x20),
        span_id: id(8, 0x30),
        trace_state: "rojo=00f067aa0ba902b7".into(),
        attributes: attributes(),
        dropped_attributes_count: 4,
        flags: 0x301,
    };
    let full = Span {
        trace_id: id(16, 1),
        span_id: id(8, 2),
        trace_state: "congo=t61rcWkgMzE".into(),
        parent_span_id: id(8, 3),
        flags: 0x101,
        name: "POST /pay/{id}".into(),
        kind: 3,
        start_time_unix_nano: AT,
        end_time_unix_nano: AT + 1_234_567_891,
        attributes: attributes(),
        dropped_attributes_count: 5,
        events: vec![event("exception", attributes()), event("", vec![])],
        dropped_events_count: 6,
        links: vec![link, span::Link::default()],
        dropped_links_count: 7,
        status: Some(Status {
            message: "card \"declined\"".into(),
            code: 2,
        }),
    };
    let least = Span {
        trace_id: id(16, 9),
        span_id: id(8, 9),
        start_time_unix_nano: AT,
        end_time_unix_nano: AT - 1,
        ..Span::default()
    };
    let (no_resource, no_scope) = bare();
    with(
        Export::spans(service(), scope(), vec![full, least.clone()]),
        Export::spans(no_resource, no_scope, vec![least]),
    )
}

fn number(value: Option<number_data_point::Value>) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: AT - 60_000_000_000,
        time_unix_nano: AT,
        exemplars: exemplars(),
        flags: u32::from(value.is_none()),
        value,
    }
}

fn exemplars() -> Vec<Exemplar> {
    vec![
        Exemplar {
            filtered_attributes: attributes(),
            time_unix_nano: AT - 1,
            span_id: id(8, 4),
            trace_id: id(16, 5),
            value: Some(exemplar::Value::AsInt(-3)),
        },
        Exemplar {
            value: Some(exemplar::Value::AsDouble(f64::NAN)),
            ..Exemplar::default()
        },
    ]
}

fn metrics() -> Export {
    use number_data_point::Value::{AsDouble, AsInt};
    let numbers = vec![
        number(Some(AsInt(i64::MAX))),
        number(Some(AsDouble(-0.25))),
        number(Some(AsDouble(f64::NAN))),
        number(Some(AsDouble(f64::INFINITY))),
        number(None),
    ];
    let gauge = Data::Gauge(Gauge {
        data_points: numbers.clone(),
    });
    let sum = Data::Sum(Sum {
        data_points: numbers,
        aggregation_temporality: 2,
        is_monotonic: true,
    });
    let described = Metric {
        description: "Größe der Warteschlange".into(),
        unit: "{request}".into(),
        metadata: attributes(),
        ..metric("queue.length", gauge)
    };
    let all = vec![
        described,
        metric("requests", sum),
        metric("latency", histogram()),
        metric("latency.exp", exp_histogram()),
        metric("latency.summary", summary()),
    ];
    let (no_resource, no_scope) = bare();
    let more = Export::metrics(no_resource, no_scope, all.clone());
    with(Export::metrics(service(), scope(), all), more)
}

fn histogram() -> Data {
    let full = HistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        count: u64::MAX,
        sum: Some(12.5),
        bucket_counts: vec![1, 0, u64::MAX],
        explicit_bounds: vec![-0.5, 1e300],
        exemplars: exemplars(),
        flags: 0,
        min: Some(0.0),
        max: Some(f64::MAX),
    };
    Data::Histogram(Histogram {
        data_points: vec![full, HistogramDataPoint::default()],
        aggregation_temporality: 1,
    })
}

fn exp_histogram() -> Data {
    let full = ExponentialHistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        count: 9,
        sum: Some(-1.0),
        scale: -4,
        zero_count: 2,
        positive: Some(Buckets {
            offset: -7,
            bucket_counts: vec![3, 0, 1 << 60],
        }),
        negative: Some(Buckets {
            offset: i32::MAX,
            bucket_counts: vec![],
        }),
        flags: 0,
        exemplars: exemplars(),
        min: None,
        max: Some(f64::NAN),
        zero_threshold: 1e-9,
    };
    Data::ExponentialHistogram(ExponentialHistogram {
        data_points: vec![full, ExponentialHistogramDataPoint::default()],
        aggregation_temporality: 2,
    })
}

fn summary() -> Data {
    let at = |quantile, value| ValueAtQuantile { quantile, value };
    let full = SummaryDataPoint {
        attributes: attributes(),
        start_time_unix_nano: AT - 1,
        time_unix_nano: AT,
        count: 100,
        sum: 0.3,
        quantile_values: vec![at(0.0, -1.0), at(0.99, f64::INFINITY), at(1.0, 5e-324)],
        flags: 0,
    };
    Data::Summary(Summary {
        data_points: vec![full, SummaryDataPoint::default()],
    })
}
