//! Spans and metrics with everything that hangs on them.

use arrow::datatypes::DataType;

use super::*;
use crate::proto::metrics::v1::metric::Data;
use crate::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use crate::proto::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, number_data_point,
};
use crate::proto::trace::v1::span::{Event, Link};
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// A span of this number, with as many events and links.
fn span(number: u8) -> Span {
    let event = |n: u8| Event {
        name: ["retry", "", "exception"][usize::from(n) % 3].to_owned(),
        time_unix_nano: u64::from(number) * 10 + u64::from(n),
        attributes: match n % 2 {
            0 => vec![],
            _ => vec![kv("event of", int(number.into()))],
        },
        ..Event::default()
    };
    let link = |n: u8| Link {
        trace_id: match n % 3 {
            0 => Bytes::new(),
            n => vec![n; 16].into(),
        },
        span_id: vec![number; 8].into(),
        trace_state: "s".to_owned(),
        flags: n.into(),
        attributes: match n % 2 {
            0 => vec![],
            _ => vec![kv("link of", int(number.into()))],
        },
        ..Link::default()
    };
    Span {
        trace_id: vec![9; 16].into(),
        span_id: vec![number; 8].into(),
        name: "GET".to_owned(),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 1_000 + u64::from(number),
        kind: 2,
        events: (0..number).map(event).collect(),
        links: (0..number).map(link).collect(),
        status: Some(Status {
            message: "bad".to_owned(),
            code: 2,
        }),
        ..Span::default()
    }
}

/// Scenario: spans with none to six events and links, written in each way, twice.
/// Guarantees: columns of the span; each event and link is at its span, and their attributes at them.
#[test]
fn events_and_links_find_their_spans() {
    let scope_spans = vec![ScopeSpans {
        spans: (0..7).map(span).collect(),
        ..ScopeSpans::default()
    }];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    };
    for options in all_options() {
        let (mut producer, mut reader) = (Producer::new(options.clone()), Reader::default());
        for _ in 0..2 {
            let tables = reader.read(&producer.traces(&request).unwrap());
            let root = tables.get(ArrowPayloadType::Spans);
            let ids = root.ids("id", None);
            assert_eq!(ids[..3], [None, Some(0), Some(1)]);
            assert_eq!(root.text("span_id", 3), "03".repeat(8));
            assert_eq!(root.text("status.status_message", 3), "bad");
            assert_eq!(root.text("duration_time_unix_nano", 3), "PT0.000000003S");
            assert!(!root.column("name").unwrap().0.is_nullable());

            let events = tables.get(ArrowPayloadType::SpanEvents);
            let names = events.texts("name");
            let continues = |row: usize| names[row] == names[row - 1];
            let parents = events.ids("parent_id", Some(&continues));
            let attributes = tables.attributes(ArrowPayloadType::SpanEventAttrs);
            assert_eq!(parents.len(), 21);
            for (row, id) in events.ids("id", None).into_iter().enumerate() {
                let number = parents[row].unwrap() + 1;
                let time = events.column("time_unix_nano").unwrap().1;
                let time = arrow::compute::cast(&time, &DataType::Int64).unwrap();
                let time: i64 = arrow::util::display::array_value_to_string(&time, row)
                    .unwrap()
                    .parse()
                    .unwrap();
                assert_eq!(time / 10, i64::from(number), "{options:?}");
                assert_eq!(id.is_some(), time % 2 == 1);
                if let Some(id) = id {
                    assert_eq!(attributes[&id], [format!("event of=2:{number}")]);
                }
            }

            let links = tables.get(ArrowPayloadType::SpanLinks);
            let traces = links.texts("trace_id");
            // No trace is the same as no trace here.
            let continues = |row: usize| traces[row] == traces[row - 1];
            let parents = links.ids("parent_id", Some(&continues));
            let attributes = tables.attributes(ArrowPayloadType::SpanLinkAttrs);
            assert_eq!(parents.len(), 21);
            for (row, id) in links.ids("id", None).into_iter().enumerate() {
                let number = parents[row].unwrap() + 1;
                let span_id = format!("{number:02x}").repeat(8);
                assert_eq!(links.text("span_id", row), span_id, "{options:?}");
                if let Some(id) = id {
                    assert_eq!(attributes[&id], [format!("link of=2:{number}")]);
                }
            }
        }
    }
}

/// Exemplars of a point: one number twice, a double, a zero, and no value twice.
fn exemplars(point: &str) -> Vec<Exemplar> {
    let values = [
        Some(exemplar::Value::AsInt(7)),
        Some(exemplar::Value::AsInt(7)),
        Some(exemplar::Value::AsDouble(0.5)),
        Some(exemplar::Value::AsInt(0)),
        None,
        None,
    ];
    let exemplars = values.into_iter().map(|value| Exemplar {
        time_unix_nano: 5,
        value,
        trace_id: vec![1; 16].into(),
        filtered_attributes: vec![kv("of", text(point))],
        ..Exemplar::default()
    });
    exemplars.collect()
}

/// One metric of each kind, and one of none.
fn metrics() -> Vec<Metric> {
    let attributes = |point: &str| vec![kv("point", text(point))];
    let number = |point: &str, value| NumberDataPoint {
        attributes: attributes(point),
        time_unix_nano: 3,
        exemplars: exemplars(point),
        value,
        ..NumberDataPoint::default()
    };
    let zero = Some(number_data_point::Value::AsInt(0));
    let half = Some(number_data_point::Value::AsDouble(0.5));
    let kinds = vec![
        Data::Gauge(Gauge {
            data_points: vec![number("g0", zero), number("g1", half), number("g2", None)],
        }),
        Data::Sum(Sum {
            data_points: vec![number("s0", zero)],
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                attributes: attributes("h0"),
                exemplars: exemplars("h0"),
                count: 3,
                sum: Some(0.0),
                max: Some(2.5),
                bucket_counts: vec![1, 2],
                explicit_bounds: vec![0.5],
                ..HistogramDataPoint::default()
            }],
            aggregation_temporality: 1,
        }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![
                ExponentialHistogramDataPoint::default(),
                ExponentialHistogramDataPoint {
                    attributes: attributes("e1"),
                    exemplars: exemplars("e1"),
                    scale: -3,
                    positive: Some(Buckets {
                        offset: -2,
                        bucket_counts: vec![4, 0, 5],
                    }),
                    negative: Some(Buckets::default()),
                    ..ExponentialHistogramDataPoint::default()
                },
            ],
            aggregation_temporality: 1,
        }),
        Data::Summary(Summary {
            data_points: vec![SummaryDataPoint {
                attributes: attributes("u0"),
                count: 2,
                quantile_values: vec![ValueAtQuantile {
                    quantile: 0.5,
                    value: 8.0,
                }],
                ..SummaryDataPoint::default()
            }],
        }),
    ];
    let metric = |data| Metric {
        name: "m".to_owned(),
        unit: "s".to_owned(),
        data,
        metadata: vec![kv("meta", text("data"))],
        ..Metric::default()
    };
    kinds
        .into_iter()
        .map(Some)
        .chain([None])
        .map(metric)
        .collect()
}

/// Scenario: metrics of all kinds in each way of writing, twice; points with and without values, with exemplars that share values.
/// Guarantees: each point is at its metric; each attribute and exemplar at its point; each exemplar's attribute at it.
#[test]
fn points_and_exemplars_find_their_parents() {
    use ArrowPayloadType as Type;
    let scope_metrics = vec![ScopeMetrics {
        metrics: metrics(),
        ..ScopeMetrics::default()
    }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    };
    for options in all_options() {
        let (mut producer, mut reader) = (Producer::new(options.clone()), Reader::default());
        for _ in 0..2 {
            let tables = reader.read(&producer.metrics(&request).unwrap());
            let root = tables.get(Type::UnivariateMetrics);
            assert_eq!(root.texts("metric_type"), ["1", "2", "3", "4", "5", "0"]);
            assert_eq!(root.ids("id", None), [0, 1, 2, 3, 4, 5].map(Some));
            assert_eq!(
                root.texts("aggregation_temporality"),
                ["", "2", "1", "1", "", ""]
            );
            assert_eq!(root.text("is_monotonic", 1), "true");
            assert_eq!(tables.attributes(Type::MetricAttrs).len(), 6);

            for (points, attributes, parents, names) in [
                (
                    Type::NumberDataPoints,
                    Type::NumberDpAttrs,
                    vec![0, 0, 0, 1],
                    vec!["g0", "g1", "g2", "s0"],
                ),
                (
                    Type::HistogramDataPoints,
                    Type::HistogramDpAttrs,
                    vec![2],
                    vec!["h0"],
                ),
                (
                    Type::ExpHistogramDataPoints,
                    Type::ExpHistogramDpAttrs,
                    vec![3, 3],
                    vec!["", "e1"],
                ),
                (
                    Type::SummaryDataPoints,
                    Type::SummaryDpAttrs,
                    vec![4],
                    vec!["u0"],
                ),
            ] {
                let table = tables.get(points);
                let found = table.ids("parent_id", None);
                assert_eq!(found, parents.into_iter().map(Some).collect::<Vec<_>>());
                let attributes = tables.attributes(attributes);
                for (id, name) in table.ids("id", None).into_iter().zip(names) {
                    match id {
                        Some(id) => assert_eq!(attributes[&id], [format!("point=1:{name}")]),
                        None => assert_eq!(name, ""),
                    }
                }
            }
            for (points, attributes, exemplars, exemplar_attributes) in [
                (
                    Type::NumberDataPoints,
                    Type::NumberDpAttrs,
                    Type::NumberDpExemplars,
                    Type::NumberDpExemplarAttrs,
                ),
                (
                    Type::HistogramDataPoints,
                    Type::HistogramDpAttrs,
                    Type::HistogramDpExemplars,
                    Type::HistogramDpExemplarAttrs,
                ),
                (
                    Type::ExpHistogramDataPoints,
                    Type::ExpHistogramDpAttrs,
                    Type::ExpHistogramDpExemplars,
                    Type::ExpHistogramDpExemplarAttrs,
                ),
            ] {
                let names = tables.attributes(attributes);
                let table = tables.get(exemplars);
                let value = |row| {
                    (
                        table.text("int_value", row),
                        table.text("double_value", row),
                    )
                };
                // No value is the same as no value here.
                let continues = |row: usize| value(row) == value(row - 1);
                let parents = table.ids("parent_id", Some(&continues));
                let own = tables.attributes(exemplar_attributes);
                let points = tables.get(points).ids("id", None).into_iter().flatten();
                assert_eq!(table.rows(), 6 * points.count());
                for (row, id) in table.ids("id", None).into_iter().enumerate() {
                    let point = names[&parents[row].unwrap()][0].replace("point", "of");
                    assert_eq!(own[&id.unwrap()], [point], "{options:?}");
                }
            }
        }
    }
}

/// Scenario: values of points that are zero, absent or lists.
/// Guarantees: a zero with presence is there, what is absent is null; lists and structs hold their items.
#[test]
fn values_of_points_are_exact() {
    use ArrowPayloadType as Type;
    let scope_metrics = vec![ScopeMetrics {
        metrics: metrics(),
        ..ScopeMetrics::default()
    }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    };
    let batch = Producer::new(Options::default()).metrics(&request).unwrap();
    let tables = Reader::default().read(&batch);
    let numbers = tables.get(Type::NumberDataPoints);
    assert_eq!(numbers.texts("int_value"), ["0", "", "", "0"]);
    assert_eq!(numbers.texts("double_value"), ["", "0.5", "", ""]);
    let histograms = tables.get(Type::HistogramDataPoints);
    assert_eq!(histograms.text("sum", 0), "0.0");
    assert!(histograms.column("min").is_none());
    assert_eq!(histograms.text("max", 0), "2.5");
    assert_eq!(histograms.text("bucket_counts", 0), "[1, 2]");
    assert_eq!(histograms.text("explicit_bounds", 0), "[0.5]");
    let exp = tables.get(Type::ExpHistogramDataPoints);
    assert_eq!(exp.texts("scale"), ["", "-3"]);
    assert_eq!(exp.texts("positive.offset"), ["", "-2"]);
    assert_eq!(exp.texts("positive.bucket_counts"), ["", "[4, 0, 5]"]);
    assert_eq!(exp.texts("negative.offset"), ["", "0"]);
    let summaries = tables.get(Type::SummaryDataPoints);
    assert_eq!(
        summaries.text("quantile", 0),
        "[{quantile: 0.5, value: 8.0}]"
    );
}

/// Scenario: a span with events and links, on a stream that had its names and traces before in the other order, and on a new one.
/// Guarantees: events and links come in the same order: readers know a retry by its rows.
#[test]
fn events_and_links_keep_their_order_on_another_stream() {
    let request = |numbers: [u8; 2]| {
        let event = |n: u8| Event {
            name: format!("event {n}"),
            ..Event::default()
        };
        let link = |n: u8| Link {
            trace_id: vec![n; 16].into(),
            ..Link::default()
        };
        let span = Span {
            events: numbers.map(event).to_vec(),
            links: numbers.map(link).to_vec(),
            ..Span::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: vec![span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    };
    let order = |requests: &[[u8; 2]]| {
        let (mut producer, mut reader) = (Producer::new(Options::default()), Reader::default());
        let tables = requests.iter().map(|numbers| {
            let batch = producer.traces(&request(*numbers)).unwrap();
            let tables = reader.read(&batch);
            [
                (ArrowPayloadType::SpanEvents, "name"),
                (ArrowPayloadType::SpanLinks, "trace_id"),
            ]
            .map(|(of, column)| tables.get(of).texts(column))
        });
        tables.last().unwrap()
    };
    let alone = order(&[[1, 2]]);
    assert_ne!(alone[0][0], alone[0][1]);
    assert_eq!(order(&[[2, 1], [1, 2]]), alone);
}
