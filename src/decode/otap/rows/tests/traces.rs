//! Spans with their events and links: against OTLP's decoder, and the rules of single columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DurationNanosecondArray, FixedSizeBinaryArray, Int32Array, StringArray,
    TimestampNanosecondArray, UInt16Array, UInt32Array,
};
use proptest::prelude::*;
use prost::Message;

use super::attributes::{any_attributes, attribute, attributes};
use super::produce::{AttributeRows, Counter, Group, Producer};
use super::*;
use crate::decode::protobuf;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::proto::common::v1::InstrumentationScope;
use crate::proto::common::v1::KeyValue;
use crate::proto::common::v1::any_value::Value;
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::span::{Event, Link};
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use crate::rows::RecordError;

fn times(times: impl Iterator<Item = u64>) -> ArrayRef {
    let times = times.map(u64::cast_signed);
    Arc::new(TimestampNanosecondArray::from_iter_values(times))
}

fn counts(counts: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(counts))
}

fn wide(ids: Vec<Option<u32>>) -> ArrayRef {
    Arc::new(UInt32Array::from(ids))
}

fn narrow(ids: impl IntoIterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt16Array::from_iter_values(
        ids.into_iter().map(|id| id as u16),
    ))
}

/// The tables of events, sorted by name as producers do; `events` are with the ids of their spans.
fn events(producer: &mut Producer, mut events: Vec<(u32, &Event)>) {
    if events.is_empty() {
        return;
    }
    events.sort_by(|left, right| left.1.name.cmp(&right.1.name));
    let (mut counter, mut attributes) = (Counter::default(), AttributeRows::default());
    let ids = events.iter().map(|(_, event)| {
        let id = counter.next_if(!event.attributes.is_empty())?;
        attributes.add(id, &event.attributes);
        Some(id)
    });
    let ids = ids.collect::<Vec<Option<u32>>>();
    let parents = events
        .iter()
        .map(|(parent, _)| *parent)
        .collect::<Vec<u32>>();
    let parents = producer.parents(&parents, |row| events[row].1.name == events[row - 1].1.name);
    let all = || events.iter().map(|(_, event)| *event);
    let batch = table(vec![
        ("id", wide(producer.own_ids(&ids))),
        ("parent_id", narrow(parents)),
        (
            "time_unix_nano",
            times(all().map(|event| event.time_unix_nano)),
        ),
        (
            "name",
            producer.texts(all().map(|event| event.name.as_str())),
        ),
        (
            "dropped_attributes_count",
            counts(all().map(|event| event.dropped_attributes_count)),
        ),
    ]);
    let batch = producer.stated(&batch, "quasidelta");
    producer.tables.push((ArrowPayloadType::SpanEvents, batch));
    producer.attributes(ArrowPayloadType::SpanEventAttrs, attributes, true);
}

/// The tables of links, sorted by trace id as producers do; `links` are with the ids of their spans.
fn links(producer: &mut Producer, mut links: Vec<(u32, &Link)>) {
    if links.is_empty() {
        return;
    }
    links.sort_by(|left, right| left.1.trace_id.cmp(&right.1.trace_id));
    let (mut counter, mut attributes) = (Counter::default(), AttributeRows::default());
    let ids = links.iter().map(|(_, link)| {
        let id = counter.next_if(!link.attributes.is_empty())?;
        attributes.add(id, &link.attributes);
        Some(id)
    });
    let ids = ids.collect::<Vec<Option<u32>>>();
    let parents = links
        .iter()
        .map(|(parent, _)| *parent)
        .collect::<Vec<u32>>();
    let parents = producer.parents(&parents, |row| {
        links[row].1.trace_id == links[row - 1].1.trace_id
    });
    let all = || links.iter().map(|(_, link)| *link);
    let batch = table(vec![
        ("id", wide(producer.own_ids(&ids))),
        ("parent_id", narrow(parents)),
        (
            "trace_id",
            producer.identifiers(all().map(|link| link.trace_id.as_ref()), 16),
        ),
        (
            "span_id",
            producer.identifiers(all().map(|link| link.span_id.as_ref()), 8),
        ),
        (
            "trace_state",
            producer.texts(all().map(|link| link.trace_state.as_str())),
        ),
        (
            "dropped_attributes_count",
            counts(all().map(|link| link.dropped_attributes_count)),
        ),
        ("flags", counts(all().map(|link| link.flags))),
    ]);
    let batch = producer.stated(&batch, "quasidelta");
    producer.tables.push((ArrowPayloadType::SpanLinks, batch));
    producer.attributes(ArrowPayloadType::SpanLinkAttrs, attributes, true);
}

/// The columns of spans beside their ids and context.
fn span_columns(producer: &Producer, spans: &[&Span]) -> Columns {
    let all = || spans.iter().copied();
    let status = || all().map(|span| span.status.clone().unwrap_or_default());
    let messages = status()
        .map(|status| status.message)
        .collect::<Vec<String>>();
    let durations = all().map(|span| {
        let duration = span
            .end_time_unix_nano
            .wrapping_sub(span.start_time_unix_nano);
        duration.cast_signed()
    });
    let ints = |ints: &mut dyn Iterator<Item = i32>| -> ArrayRef {
        producer.shared(Arc::new(Int32Array::from_iter_values(ints)))
    };
    vec![
        (
            "start_time_unix_nano",
            times(all().map(|span| span.start_time_unix_nano)),
        ),
        (
            "duration_time_unix_nano",
            producer.shared(Arc::new(DurationNanosecondArray::from_iter_values(
                durations,
            ))),
        ),
        (
            "trace_id",
            producer.identifiers(all().map(|span| span.trace_id.as_ref()), 16),
        ),
        (
            "span_id",
            producer.identifiers(all().map(|span| span.span_id.as_ref()), 8),
        ),
        (
            "parent_span_id",
            producer.identifiers(all().map(|span| span.parent_span_id.as_ref()), 8),
        ),
        (
            "trace_state",
            producer.texts(all().map(|span| span.trace_state.as_str())),
        ),
        ("name", producer.texts(all().map(|span| span.name.as_str()))),
        ("kind", ints(&mut all().map(|span| span.kind))),
        (
            "dropped_attributes_count",
            counts(all().map(|span| span.dropped_attributes_count)),
        ),
        (
            "dropped_events_count",
            counts(all().map(|span| span.dropped_events_count)),
        ),
        (
            "dropped_links_count",
            counts(all().map(|span| span.dropped_links_count)),
        ),
        ("flags", counts(all().map(|span| span.flags))),
        (
            "status",
            structure(vec![
                ("code", ints(&mut status().map(|status| status.code))),
                (
                    "status_message",
                    producer.texts(messages.iter().map(String::as_str)),
                ),
            ]),
        ),
    ]
}

/// The tables of a request.
fn produce(request: &ExportTraceServiceRequest, form: &Form) -> Tables {
    let mut producer = Producer::new(form);
    let mut rows = Vec::new();
    for (number, group) in request.resource_spans.iter().enumerate() {
        let resource = group.resource.as_ref().unwrap();
        let resource = Group::resource(number, resource, &group.schema_url);
        for spans in &group.scope_spans {
            let scope = Group::scope(number, spans.scope.as_ref().unwrap(), &spans.schema_url);
            rows.extend(spans.spans.iter().map(|span| (resource, scope, span)));
        }
    }
    let mut counter = Counter::default();
    let (mut attributes, mut all_events, mut all_links) =
        (AttributeRows::default(), Vec::new(), Vec::new());
    let ids = rows.iter().map(|(_, _, span)| {
        let alone = span.attributes.is_empty() && span.events.is_empty() && span.links.is_empty();
        let id = counter.next_if(!alone)?;
        attributes.add(id, &span.attributes);
        all_events.extend(span.events.iter().map(|event| (id, event)));
        all_links.extend(span.links.iter().map(|link| (id, link)));
        Some(id)
    });
    let ids = ids.collect::<Vec<Option<u32>>>();
    let contexts = rows.iter().map(|(resource, scope, _)| (resource, scope));
    let mut columns = producer.context(&contexts.collect::<Vec<(&Group<'_>, &Group<'_>)>>());
    let ids = producer.own_ids(&ids).into_iter();
    let ids = ids
        .map(|id| id.map(|id| id as u16))
        .collect::<UInt16Array>();
    columns.push(("id", Arc::new(ids)));
    let spans = rows
        .iter()
        .map(|(_, _, span)| *span)
        .collect::<Vec<&Span>>();
    columns.extend(span_columns(&producer, &spans));
    let root = producer.stated(&table(columns), "delta");
    producer.tables.push((ArrowPayloadType::Spans, root));
    producer.attributes(ArrowPayloadType::SpanAttrs, attributes, false);
    events(&mut producer, all_events);
    links(&mut producer, all_links);
    producer.finish()
}

fn expected(request: &ExportTraceServiceRequest) -> Rows {
    let budget = Budget::new(256 << 20);
    protobuf::decode(
        Signal::Traces,
        &request.encode_to_vec(),
        RECEIVED,
        budget.empty(),
    )
    .unwrap()
}

/// Two resources with one scope each.
fn request(first: Vec<Span>, second: Vec<Span>) -> ExportTraceServiceRequest {
    let groups = [first, second]
        .into_iter()
        .enumerate()
        .map(|(number, spans)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", Value::BoolValue(number == 0))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "scope".into(),
                    attributes: attributes(number),
                    ..InstrumentationScope::default()
                }),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        });
    ExportTraceServiceRequest {
        resource_spans: groups.collect(),
    }
}

fn event(number: u8, attributes: Vec<KeyValue>) -> Event {
    Event {
        time_unix_nano: u64::from(number) << 40,
        name: ["exception", "", "retry"][usize::from(number % 3)].into(),
        attributes,
        dropped_attributes_count: (number % 2).into(),
    }
}

fn link(number: u8, attributes: Vec<KeyValue>) -> Link {
    Link {
        trace_id: vec![number % 2 + 1; 16].into(),
        span_id: vec![number; 8].into(),
        trace_state: if number.is_multiple_of(2) { "a=b" } else { "" }.into(),
        attributes,
        dropped_attributes_count: (number % 3).into(),
        flags: number.into(),
    }
}

fn span(number: u8, attributes: Vec<KeyValue>, events: Vec<Event>, links: Vec<Link>) -> Span {
    let start = 1_700_000_000_000_000_000 + u64::from(number);
    Span {
        trace_id: vec![number / 2 + 1; 16].into(),
        span_id: vec![number + 1; 8].into(),
        trace_state: "k=v".into(),
        parent_span_id: if number.is_multiple_of(2) {
            Vec::new()
        } else {
            vec![number; 8]
        }
        .into(),
        flags: 257,
        name: format!("GET /{}", number % 3),
        kind: (number % 6).into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + u64::from(number) * 1_000,
        attributes,
        dropped_attributes_count: number.into(),
        events,
        dropped_events_count: 2,
        links,
        dropped_links_count: 3,
        status: (!number.is_multiple_of(3)).then(|| Status {
            message: "it \"failed\"".into(),
            code: (number % 3).into(),
        }),
    }
}

/// Scenario: spans with attributes, events and links that have attributes themselves; one ends before it starts, one has
/// not ended, one ends out of range, one has no trace id; in every legal form of their tables.
/// Guarantees: the rows, column by column, that OTLP gives; the last two are refused alone.
#[test]
fn spans_give_the_rows_of_otlp() {
    let mut backwards = span(4, attributes(3), Vec::new(), Vec::new());
    backwards.end_time_unix_nano = backwards.start_time_unix_nano - 5;
    let mut open = span(5, Vec::new(), vec![event(1, Vec::new())], Vec::new());
    open.end_time_unix_nano = 0;
    let mut out_of_range = span(6, Vec::new(), Vec::new(), vec![link(3, Vec::new())]);
    out_of_range.end_time_unix_nano = u64::MAX;
    let mut nameless = span(7, attributes(9), Vec::new(), Vec::new());
    nameless.trace_id = Vec::new().into();
    let request = request(
        vec![
            span(
                0,
                attributes(9),
                vec![
                    event(2, attributes(5)),
                    event(3, Vec::new()),
                    event(6, attributes(9)),
                ],
                vec![link(1, attributes(2)), link(2, Vec::new())],
            ),
            span(1, Vec::new(), Vec::new(), Vec::new()),
            span(2, attributes(9), vec![event(0, attributes(9))], Vec::new()),
            backwards,
        ],
        vec![
            open,
            out_of_range,
            nameless,
            span(
                3,
                Vec::new(),
                Vec::new(),
                vec![link(1, attributes(9)), link(0, attributes(1))],
            ),
        ],
    );
    // Tables of events and links come sorted, so OTLP's must be in that order for the same text.
    let mut sorted = request.clone();
    for spans in sorted
        .resource_spans
        .iter_mut()
        .flat_map(|group| &mut group.scope_spans)
    {
        for span in &mut spans.spans {
            span.events
                .sort_by(|left, right| left.name.cmp(&right.name));
            span.links
                .sort_by(|left, right| left.trace_id.cmp(&right.trace_id));
        }
    }
    let expected = expected(&sorted);
    assert_eq!((expected.rows(), expected.rejections.total()), (6, 2));
    for form in forms() {
        let rows = decode(Signal::Traces, &produce(&request, &form)).unwrap();
        assert_same(&rows, &expected);
        let durations = column(&rows, Table::Traces, "duration_time_unix_nano");
        assert_eq!(durations[3..5], ["-5", "-"], "{form:?}");
    }
}

/// One span with the columns that are required, and no other.
fn bare(start: i64, duration: i64) -> RecordBatch {
    let ids = |len: i32| -> ArrayRef {
        let id = vec![1; len as usize];
        Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once(id)).unwrap())
    };
    table(vec![
        (
            "start_time_unix_nano",
            Arc::new(TimestampNanosecondArray::from(vec![start])),
        ),
        (
            "duration_time_unix_nano",
            Arc::new(DurationNanosecondArray::from(vec![duration])),
        ),
        ("trace_id", ids(16)),
        ("span_id", ids(8)),
        ("name", Arc::new(StringArray::from(vec!["n"]))),
    ])
}

/// Scenario: starts and durations at the ends of their ranges.
/// Guarantees: a time that 64 signed bits do not hold refuses the span alone, and no sum overflows into another time.
#[test]
fn times_out_of_range_refuse_the_span() {
    for (start, duration) in [
        (-1, 0),
        (i64::MIN, i64::MIN),
        (i64::MAX, 0),
        (1, i64::MAX),
        (5, -6),
        (i64::MAX - 1, i64::MAX),
    ] {
        let root = bare(start, duration);
        let rows = decode(Signal::Traces, &tables([(ArrowPayloadType::Spans, root)])).unwrap();
        let refused = rows
            .rejections
            .by_reason()
            .collect::<Vec<(RecordError, u64)>>();
        assert_eq!(
            refused,
            [(RecordError::TimeOutOfRange, 1)],
            "{start} {duration}"
        );
    }
    for (start, duration, text) in [
        (5, -5, "-"),
        (0, 7, "-"),
        (5, -4, "-4"),
        (1, i64::MAX - 2, "9223372036854775805"),
    ] {
        let root = bare(start, duration);
        let rows = decode(Signal::Traces, &tables([(ArrowPayloadType::Spans, root)])).unwrap();
        assert_eq!(
            column(&rows, Table::Traces, "duration_time_unix_nano"),
            [text]
        );
    }
}

/// Scenario: the columns that spans need, one by one taken away.
/// Guarantees: each is named; the others are optional.
#[test]
fn required_columns_are_named() {
    let root = bare(1, 2);
    for name in [
        "start_time_unix_nano",
        "duration_time_unix_nano",
        "trace_id",
        "span_id",
        "name",
    ] {
        let tables = tables([(ArrowPayloadType::Spans, without(&root, name))]);
        let reason = malformed(decode(Signal::Traces, &tables));
        assert_eq!(reason, format!("column {name} of SPANS is missing"));
    }
    let rows = decode(Signal::Traces, &tables([(ArrowPayloadType::Spans, root)])).unwrap();
    assert_eq!(rows.rows(), 1);
    assert_eq!(column(&rows, Table::Traces, "flags"), ["0"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Scenario: any few spans with any few attributes, and events and links with attributes, in any form.
    /// Guarantees: the rows that OTLP gives.
    #[test]
    fn any_spans_give_the_rows_of_otlp(
        spans in proptest::collection::vec((
            0u8..12,
            any_attributes(),
            proptest::collection::vec(any_attributes(), 0..3),
            proptest::collection::vec(any_attributes(), 0..3),
        ), 1..10),
        form in 0usize..9,
    ) {
        let spans = spans.into_iter().map(|(number, attributes, events, links)| {
            // Of one name and one trace each, so that their order stays.
            let events = events.into_iter().map(|attributes| event(number, attributes));
            let links = links.into_iter().map(|attributes| link(number, attributes));
            span(number, attributes, events.collect(), links.collect())
        });
        let request = request(spans.collect(), Vec::new());
        let rows = decode(Signal::Traces, &produce(&request, &forms()[form])).unwrap();
        assert_same(&rows, &expected(&request));
    }
}
