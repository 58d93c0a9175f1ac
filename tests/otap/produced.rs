//! Random streams of our own producer, in all of its ways of writing, and the requests they are made of.

use std::mem;
use std::num::{NonZeroU64, NonZeroUsize};

use bytes::Bytes;
use otlake::otap_producer::{Compression, Dictionaries, IdEncoding, Options};
use otlake::proto::common::v1::{InstrumentationScope, KeyValue};
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::{Exemplar, Metric};
use otlake::proto::resource::v1::Resource;
use otlake::proto::trace::v1::Span;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::arbitrary;
use crate::support::otlp::Export;

/// The requests of one stream: all of one signal, without what the producer says that it does not carry.
pub fn requests() -> impl Strategy<Value = Vec<Export>> {
    prop_oneof![
        vec(arbitrary::logs(), 1..5),
        vec(arbitrary::traces(), 1..5),
        vec(arbitrary::metrics(), 1..5),
    ]
    .prop_map(|mut requests| {
        requests.iter_mut().for_each(keep_what_is_carried);
        requests
    })
}

/// Any way of writing.
pub fn options() -> impl Strategy<Value = Options> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd)];
    let dictionaries = prop_oneof![
        Just(Dictionaries::Delta),
        Just(Dictionaries::Resend),
        Just(Dictionaries::Renew),
        Just(Dictionaries::Native),
    ];
    let ids = prop_oneof![
        Just(IdEncoding::Unmarked),
        Just(IdEncoding::Marked),
        Just(IdEncoding::Plain),
        Just(IdEncoding::Delta),
    ];
    (
        (compression, dictionaries, ids),
        any::<[bool; 5]>(),
        0..4_u64,
        1..4_usize,
    )
        .prop_map(|((compression, dictionaries, ids), flags, reset, pieces)| {
            let [
                late_columns,
                defaults_as_null,
                unset_ids_as_zeros,
                root_last,
                shared_schema_ids,
            ] = flags;
            Options {
                compression,
                dictionaries,
                ids,
                late_columns,
                defaults_as_null,
                unset_ids_as_zeros,
                schema_reset_batches: NonZeroU64::new(reset),
                root_last,
                record_batches: NonZeroUsize::new(pieces).unwrap(),
                shared_schema_ids,
            }
        })
}

/// Takes out of a request what the producer says that it does not carry: ids of a wrong length, and of attributes whose key is
/// repeated all but the last, since it sorts them.
fn keep_what_is_carried(request: &mut Export) {
    match request {
        Export::Logs(request) => {
            for group in &mut request.resource_logs {
                of_resource(group.resource.as_mut());
                for group in &mut group.scope_logs {
                    of_scope(group.scope.as_mut());
                    for record in &mut group.log_records {
                        attributes(&mut record.attributes);
                        ids(&mut record.trace_id, &mut record.span_id);
                    }
                }
            }
        }
        Export::Traces(request) => {
            for group in &mut request.resource_spans {
                of_resource(group.resource.as_mut());
                for group in &mut group.scope_spans {
                    of_scope(group.scope.as_mut());
                    group.spans.iter_mut().for_each(of_span);
                }
            }
        }
        Export::Metrics(request) => {
            for group in &mut request.resource_metrics {
                of_resource(group.resource.as_mut());
                for group in &mut group.scope_metrics {
                    of_scope(group.scope.as_mut());
                    group.metrics.iter_mut().for_each(of_metric);
                }
            }
        }
    }
}

fn of_resource(resource: Option<&mut Resource>) {
    if let Some(resource) = resource {
        attributes(&mut resource.attributes);
    }
}

fn of_scope(scope: Option<&mut InstrumentationScope>) {
    if let Some(scope) = scope {
        attributes(&mut scope.attributes);
    }
}

fn of_span(span: &mut Span) {
    attributes(&mut span.attributes);
    ids(&mut span.trace_id, &mut span.span_id);
    id(&mut span.parent_span_id, 8);
    for event in &mut span.events {
        attributes(&mut event.attributes);
    }
    for link in &mut span.links {
        attributes(&mut link.attributes);
        ids(&mut link.trace_id, &mut link.span_id);
    }
}

fn of_metric(metric: &mut Metric) {
    attributes(&mut metric.metadata);
    let point = |of_point: &mut Vec<KeyValue>, exemplars: &mut [Exemplar]| {
        attributes(of_point);
        for exemplar in exemplars {
            attributes(&mut exemplar.filtered_attributes);
            ids(&mut exemplar.trace_id, &mut exemplar.span_id);
        }
    };
    let numbers = match &mut metric.data {
        None => return,
        Some(Data::Gauge(data)) => &mut data.data_points,
        Some(Data::Sum(data)) => &mut data.data_points,
        Some(Data::Histogram(data)) => {
            for of in &mut data.data_points {
                point(&mut of.attributes, &mut of.exemplars);
            }
            return;
        }
        Some(Data::ExponentialHistogram(data)) => {
            for of in &mut data.data_points {
                point(&mut of.attributes, &mut of.exemplars);
            }
            return;
        }
        Some(Data::Summary(data)) => {
            for of in &mut data.data_points {
                point(&mut of.attributes, &mut []);
            }
            return;
        }
    };
    for of in numbers {
        point(&mut of.attributes, &mut of.exemplars);
    }
}

fn attributes(attributes: &mut Vec<KeyValue>) {
    let all = mem::take(attributes);
    for (place, attribute) in all.iter().enumerate() {
        if all[place + 1..]
            .iter()
            .all(|later| later.key != attribute.key)
        {
            attributes.push(attribute.clone());
        }
    }
}

fn ids(trace_id: &mut Bytes, span_id: &mut Bytes) {
    id(trace_id, 16);
    id(span_id, 8);
}

fn id(id: &mut Bytes, length: usize) {
    if id.len() != length {
        id.clear();
    }
}
