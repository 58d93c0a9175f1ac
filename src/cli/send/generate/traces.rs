//! Spans: an order placed, eight spans a trace, some with events, links and errors.

use prost::Message;

use super::template::{Slot, Template, Values, mix};
use super::{Ids, RECORD_GAP_NS, Records, SPANS_IN_TRACE, attribute, id_marker, int_attribute};
use crate::proto::common::v1::KeyValue;
use crate::proto::trace::v1::span::{Event, Link};
use crate::proto::trace::v1::{Span, Status};

/// How many different traces there are, apart from ids and times.
const VARIANTS: u64 = 32;
/// Every so many variants, the call to the stock service fails.
const FAILING_EVERY: u64 = 8;
/// How long before its request is sent a trace began, nanoseconds: longer than the longest trace.
const TRACE_AGE_NS: u64 = 500_000_000;

/// A span's place in the tree; times are microseconds from the start of the trace, at the usual speed.
struct Shape {
    name: &'static str,
    /// `SpanKind`: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    kind: i32,
    parent: Option<u64>,
    start_us: u64,
    end_us: u64,
    attribute: [&'static str; 2],
}

const SHAPES: [Shape; SPANS_IN_TRACE as usize] = [
    shape(
        "POST /api/orders",
        2,
        None,
        0,
        92_000,
        ["http.route", "/api/orders"],
    ),
    shape(
        "validate order",
        1,
        Some(0),
        900,
        4_100,
        ["shop.order.kind", "standard"],
    ),
    shape(
        "SELECT shop.orders",
        3,
        Some(0),
        4_600,
        12_300,
        ["db.system.name", "postgresql"],
    ),
    shape(
        "GET /api/stock/{sku}",
        3,
        Some(0),
        13_000,
        48_000,
        ["server.address", "stock"],
    ),
    shape(
        "GET /api/stock/{sku}",
        2,
        Some(3),
        15_200,
        46_100,
        ["http.route", "/api/stock/{sku}"],
    ),
    shape(
        "HGETALL",
        3,
        Some(4),
        16_000,
        19_400,
        ["db.system.name", "redis"],
    ),
    shape(
        "send orders.created",
        4,
        Some(0),
        50_000,
        56_000,
        ["messaging.system", "kafka"],
    ),
    shape(
        "process orders.created",
        5,
        Some(6),
        61_000,
        88_000,
        ["messaging.system", "kafka"],
    ),
];
const CALL: usize = 3;
const SEND: usize = 6;
const PROCESS: usize = 7;

const fn shape(
    name: &'static str,
    kind: i32,
    parent: Option<u64>,
    start_us: u64,
    end_us: u64,
    attribute: [&'static str; 2],
) -> Shape {
    Shape {
        name,
        kind,
        parent,
        start_us,
        end_us,
        attribute,
    }
}

/// The templates of spans.
#[derive(Debug)]
pub(super) struct Traces {
    variants: Vec<[Template; SPANS_IN_TRACE as usize]>,
    seed: u64,
}

impl Traces {
    pub(super) fn new(seed: u64, run: &KeyValue) -> Traces {
        let variants = (0..VARIANTS)
            .map(|variant| {
                std::array::from_fn(|place| template(place, variant, mix(seed, variant), run))
            })
            .collect();
        Traces { variants, seed }
    }

    /// Appends the records to a `ScopeSpans`.
    pub(super) fn write(&self, records: &Records, ids: Ids, out: &mut Vec<u8>) {
        let mut values = Values::default();
        for (n, seq, time) in records.iter() {
            let (trace, place) = (n / SPANS_IN_TRACE, n % SPANS_IN_TRACE);
            let shape = &SHAPES[place as usize];
            let random = mix(self.seed, trace);
            // A whole trace is faster or slower than usual by one factor, 0.25 to 4.2, so that it stays a tree in time.
            let speed = 250 + (random >> 32) % 3950;
            let start = time - place * RECORD_GAP_NS - TRACE_AGE_NS;
            let (high, low) = ids.trace(trace);
            values.set(Slot::TraceHigh, high);
            values.set(Slot::TraceLow, low);
            values.set(Slot::Span, ids.span(n));
            values.set(
                Slot::Parent,
                ids.span(trace * SPANS_IN_TRACE + shape.parent.unwrap_or_default()),
            );
            values.set(Slot::Start, start + shape.start_us * speed);
            values.set(Slot::End, start + shape.end_us * speed);
            values.set(
                Slot::Event,
                start + (shape.start_us + shape.end_us) / 2 * speed,
            );
            // A consumer's batch holds the message of the trace before, too.
            let before = trace.saturating_sub(1);
            let (high, low) = ids.trace(before);
            values.set(Slot::LinkTraceHigh, high);
            values.set(Slot::LinkTraceLow, low);
            values.set(
                Slot::LinkSpan,
                ids.span(before * SPANS_IN_TRACE + SEND as u64),
            );
            let variant = &self.variants[random as usize % self.variants.len()];
            variant[place as usize].write(out, 2, seq, &values);
        }
    }
}

fn template(place: usize, variant: u64, random: u64, run: &KeyValue) -> Template {
    let shape = &SHAPES[place];
    let failing = variant.is_multiple_of(FAILING_EVERY) && place == CALL;
    let number = match place {
        PROCESS => int_attribute("messaging.batch.message_count", 2),
        SEND => int_attribute("messaging.message.body.size", (random % 3000 + 200) as i64),
        2 | 5 => int_attribute("db.response.returned_rows", (random % 40) as i64),
        1 => int_attribute("shop.order.items", (random % 12 + 1) as i64),
        _ => int_attribute("http.response.status_code", if failing { 503 } else { 200 }),
    };
    let [key, text] = shape.attribute;
    let head = Span {
        trace_id: id_marker([Slot::TraceHigh, Slot::TraceLow]),
        span_id: id_marker([Slot::Span]),
        parent_span_id: shape
            .parent
            .map(|_| id_marker([Slot::Parent]))
            .unwrap_or_default(),
        name: shape.name.to_owned(),
        kind: shape.kind,
        start_time_unix_nano: Slot::Start.marker_u64(),
        end_time_unix_nano: Slot::End.marker_u64(),
        attributes: vec![attribute(key, text), number, run.clone()],
        ..Span::default()
    };
    let event = |name: &str, attributes| Event {
        time_unix_nano: Slot::Event.marker_u64(),
        name: name.to_owned(),
        attributes,
        ..Event::default()
    };
    let events = match place {
        CALL if failing => vec![event(
            "exception",
            vec![
                attribute("exception.type", "ServiceUnavailable"),
                attribute("exception.message", "stock answered 503"),
            ],
        )],
        SEND => vec![event("message queued", vec![])],
        1 => vec![event(
            "rule applied",
            vec![attribute("shop.rule", "one-voucher")],
        )],
        _ => vec![],
    };
    let links = if place == PROCESS {
        vec![Link {
            trace_id: id_marker([Slot::LinkTraceHigh, Slot::LinkTraceLow]),
            span_id: id_marker([Slot::LinkSpan]),
            flags: 1,
            ..Link::default()
        }]
    } else {
        vec![]
    };
    let status = failing.then(|| Status {
        message: "stock answered 503".to_owned(),
        code: 2,
    });
    let tail = Span {
        events,
        links,
        status,
        flags: 0x101, // sampled; it is known that the parent is not remote
        ..Span::default()
    };
    Template::new(head.encode_to_vec(), 9, tail.encode_to_vec())
}
