use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::metrics::v1::metric::Data;
use crate::proto::trace::v1::Span;

const NOW: u64 = 1_760_000_000_000_000_000;
const RUN: &str = "3f9a1c07";

fn catalog() -> Catalog {
    Catalog::new(7, RUN, NOW - 1_000_000_000)
}

/// The bodies of all requests of a plan, each through an encoder that wrote others before.
fn bodies(plan: &Plan) -> Vec<(Request, Vec<u8>)> {
    let (catalog, mut encoder) = (catalog(), Encoder::default());
    (0..)
        .map_while(|index| plan.request(index))
        .map(|request| {
            let mut out = BytesMut::new();
            encoder.encode(&catalog, &request, NOW, &mut out);
            (request, out.to_vec())
        })
        .collect()
}

/// The attributes of every record, in order.
fn attributes(signal: Signal, body: &[u8]) -> Vec<Vec<KeyValue>> {
    match signal {
        Signal::Logs => ExportLogsServiceRequest::decode(body)
            .unwrap()
            .resource_logs
            .into_iter()
            .flat_map(|group| group.scope_logs)
            .flat_map(|group| group.log_records)
            .map(|record| record.attributes)
            .collect(),
        Signal::Traces => spans(body)
            .into_iter()
            .map(|span| span.attributes)
            .collect(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(body)
            .unwrap()
            .resource_metrics
            .into_iter()
            .flat_map(|group| group.scope_metrics)
            .flat_map(|group| group.metrics)
            .flat_map(|metric| point_attributes(metric.data.unwrap()))
            .collect(),
    }
}

fn spans(body: &[u8]) -> Vec<Span> {
    ExportTraceServiceRequest::decode(body)
        .unwrap()
        .resource_spans
        .into_iter()
        .flat_map(|group| group.scope_spans)
        .flat_map(|group| group.spans)
        .collect()
}

fn point_attributes(data: Data) -> Vec<Vec<KeyValue>> {
    match data {
        Data::Gauge(data) => data.data_points.into_iter().map(|p| p.attributes).collect(),
        Data::Sum(data) => data.data_points.into_iter().map(|p| p.attributes).collect(),
        Data::Histogram(data) => data.data_points.into_iter().map(|p| p.attributes).collect(),
        Data::ExponentialHistogram(data) => {
            data.data_points.into_iter().map(|p| p.attributes).collect()
        }
        Data::Summary(data) => data.data_points.into_iter().map(|p| p.attributes).collect(),
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> &'a Value {
    let mut found = attributes.iter().filter(|attribute| attribute.key == key);
    let value = found.next().and_then(|attribute| attribute.value.as_ref());
    assert!(found.next().is_none(), "{key} twice");
    value.and_then(|value| value.value.as_ref()).unwrap()
}

fn seqs(signal: Signal, body: &[u8]) -> Vec<u64> {
    attributes(signal, body)
        .iter()
        .map(|attributes| {
            assert_eq!(
                value(attributes, RUN_KEY),
                &Value::StringValue(RUN.to_owned())
            );
            match value(attributes, SEQ_KEY) {
                Value::IntValue(seq) => u64::try_from(*seq).unwrap(),
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

/// Scenario: runs whose count is, and is not, a multiple of the batch; of one signal and of all.
/// Guarantees: the records carry the numbers 0..total, each once, and each request holds what its plan says.
#[test]
fn sequence_numbers_are_complete_and_unique() {
    for (count, batch, signals) in [
        (1, 1, vec![Signal::Logs]),
        (1000, 64, vec![Signal::Traces]),
        (20_000, 300, vec![Signal::Metrics]),
        (257, 100, Signal::ALL.to_vec()),
        (5, 1000, Signal::ALL.to_vec()),
    ] {
        let plan = Plan::new(count, batch, signals);
        let mut seen = Vec::new();
        let mut sent = 0;
        for (request, body) in bodies(&plan) {
            let found = seqs(request.signal, &body);
            let expected: Vec<u64> = (request.first_seq..)
                .take(request.records as usize)
                .collect();
            assert_eq!(found, expected, "{request:?}");
            assert_eq!(request.sent_before, sent);
            sent += request.records;
            seen.extend(found);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..plan.records()).collect::<Vec<u64>>());
    }
}

/// Scenario: one request written twice, by encoders with different pasts.
/// Guarantees: the same bytes; other bytes for another run.
#[test]
fn the_same_request_is_the_same_bytes() {
    let plan = Plan::new(500, 50, Signal::ALL.to_vec());
    let all = bodies(&plan);
    for (request, body) in &all {
        let mut out = BytesMut::new();
        Encoder::default().encode(&catalog(), request, NOW, &mut out);
        assert_eq!(&out[..], &body[..]);
        out.clear();
        let other = Catalog::new(7, "00000000", NOW - 1_000_000_000);
        Encoder::default().encode(&other, request, NOW, &mut out);
        assert_ne!(&out[..], &body[..]);
    }
}

/// Scenario: requests read and written again by prost.
/// Guarantees: not a byte differs, so fields stand in order, lengths are shortest, and no marker of a template is left.
#[test]
fn requests_are_what_prost_would_write() {
    let plan = Plan::new(3000, 500, Signal::ALL.to_vec());
    for (request, body) in bodies(&plan) {
        let again = match request.signal {
            Signal::Logs => ExportLogsServiceRequest::decode(&body[..])
                .unwrap()
                .encode_to_vec(),
            Signal::Traces => ExportTraceServiceRequest::decode(&body[..])
                .unwrap()
                .encode_to_vec(),
            Signal::Metrics => ExportMetricsServiceRequest::decode(&body[..])
                .unwrap()
                .encode_to_vec(),
        };
        assert!(again == body, "{request:?}");
        assert!(!body.windows(7).any(|bytes| bytes == b"~@otlk~"));
    }
}

/// Scenario: full batches of logs and spans.
/// Guarantees: a log record is about 250 bytes with 4 attributes, a span about 200, a resource has 7 attributes.
#[test]
fn sizes_are_as_promised() {
    let mean = |signal| {
        let (request, body) = bodies(&Plan::new(2000, 2000, vec![signal])).remove(0);
        body.len() as f64 / request.records as f64
    };
    let (log, span) = (mean(Signal::Logs), mean(Signal::Traces));
    assert!((235.0..265.0).contains(&log), "{log}");
    assert!((185.0..225.0).contains(&span), "{span}");

    let (_, body) = bodies(&Plan::new(10, 10, vec![Signal::Logs])).remove(0);
    assert!(
        attributes(Signal::Logs, &body)
            .iter()
            .all(|list| list.len() == 4)
    );
    let request = ExportLogsServiceRequest::decode(&body[..]).unwrap();
    let resource = request.resource_logs[0].resource.as_ref().unwrap();
    assert_eq!(resource.attributes.len(), 7);
    assert_eq!(request.resource_logs[0].scope_logs.len(), 2);
}

/// Scenario: eighty traces.
/// Guarantees: each is a tree with one root, children begin after their parents, ids are unique, and there are events, links
/// and errors, all inside the span's time.
#[test]
fn spans_make_trees() {
    let (_, body) = bodies(&Plan::new(640, 640, vec![Signal::Traces])).remove(0);
    let spans = spans(&body);
    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in &spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    assert_eq!(traces.len(), 80);
    let ids: HashSet<&[u8]> = spans.iter().map(|span| &span.span_id[..]).collect();
    assert_eq!(ids.len(), spans.len());
    for spans in traces.values() {
        assert_eq!(spans.len(), 8);
        let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
        assert_eq!(roots.count(), 1);
        for span in spans {
            assert!(
                span.start_time_unix_nano < span.end_time_unix_nano
                    && span.end_time_unix_nano <= NOW
            );
            let times = span.start_time_unix_nano..=span.end_time_unix_nano;
            assert!(
                span.events
                    .iter()
                    .all(|event| times.contains(&event.time_unix_nano))
            );
            if !span.parent_span_id.is_empty() {
                let parent = spans
                    .iter()
                    .find(|other| other.span_id == span.parent_span_id)
                    .unwrap();
                assert!(parent.start_time_unix_nano < span.start_time_unix_nano);
            }
        }
    }
    let starts: Vec<u64> = traces
        .values()
        .map(|spans| spans[0].start_time_unix_nano)
        .collect();
    assert!(starts.iter().all(|start| *start > NOW - 2_000_000_000));
    assert!(spans.iter().any(|span| !span.events.is_empty()));
    assert!(
        spans
            .iter()
            .any(|span| span.status.as_ref().is_some_and(|status| status.code == 2))
    );
    // Links point at spans that were sent.
    let links: Vec<_> = spans.iter().flat_map(|span| &span.links).collect();
    assert_eq!(links.len(), 80);
    assert!(links.iter().all(|link| ids.contains(&link.span_id[..])));
}

/// Scenario: a batch of data points.
/// Guarantees: all five kinds, gauges of both number types, exemplars, counts that are the sum of their buckets.
#[test]
fn metrics_are_of_all_kinds() {
    let (_, body) = bodies(&Plan::new(100, 100, vec![Signal::Metrics])).remove(0);
    let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
    let metrics: Vec<_> = request
        .resource_metrics
        .iter()
        .flat_map(|group| &group.scope_metrics)
        .flat_map(|group| &group.metrics)
        .collect();
    let names: BTreeSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names.len(), 7);
    let mut exemplars = 0;
    let mut kinds = BTreeSet::new();
    for metric in metrics {
        match metric.data.as_ref().unwrap() {
            Data::Gauge(data) => {
                kinds.insert("gauge");
                assert!(data.data_points.iter().all(|point| point.value.is_some()));
            }
            Data::Sum(data) => {
                kinds.insert("sum");
                assert!(data.is_monotonic && data.aggregation_temporality == 2);
                exemplars += data
                    .data_points
                    .iter()
                    .map(|point| point.exemplars.len())
                    .sum::<usize>();
            }
            Data::Histogram(data) => {
                kinds.insert("histogram");
                for point in &data.data_points {
                    assert_eq!(point.count, point.bucket_counts.iter().sum::<u64>());
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    exemplars += point.exemplars.len();
                }
            }
            Data::ExponentialHistogram(data) => {
                kinds.insert("exponential histogram");
                for point in &data.data_points {
                    let buckets = &point.positive.as_ref().unwrap().bucket_counts;
                    assert_eq!(point.count, point.zero_count + buckets.iter().sum::<u64>());
                    exemplars += point.exemplars.len();
                }
            }
            Data::Summary(data) => {
                kinds.insert("summary");
                assert!(
                    data.data_points
                        .iter()
                        .all(|point| point.quantile_values.len() == 4)
                );
            }
        }
    }
    assert_eq!(kinds.len(), 5);
    assert!(exemplars > 20, "{exemplars}");
}
