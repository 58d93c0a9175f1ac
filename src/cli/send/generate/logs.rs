//! Log records: requests served, slow queries, retries, failures.

use prost::Message;

use super::template::{Slot, Template, Values, mix};
use super::{Ids, Records, SPANS_IN_TRACE, any, attribute, id_marker, int_attribute};
use crate::proto::common::v1::KeyValue;
use crate::proto::common::v1::any_value::Value;
use crate::proto::logs::v1::LogRecord;

/// How many different log lines there are, apart from the request id inside each.
const TEMPLATES: u64 = 256;
/// How much later than it happened a record was observed, nanoseconds.
const OBSERVED_DELAY_NS: u64 = 180_000;

/// The templates of log records.
#[derive(Debug)]
pub(super) struct Logs {
    templates: Vec<Template>,
    seed: u64,
}

impl Logs {
    pub(super) fn new(seed: u64, run: &KeyValue) -> Logs {
        let templates = (0..TEMPLATES)
            .map(|n| template(mix(seed, n), run))
            .collect();
        Logs { templates, seed }
    }

    /// Appends the records to a `ScopeLogs`.
    pub(super) fn write(&self, records: &Records, ids: Ids, out: &mut Vec<u8>) {
        let mut values = Values::default();
        for (n, seq, time) in records.iter() {
            let random = mix(self.seed, n);
            let (high, low) = ids.trace(n / SPANS_IN_TRACE);
            values.set(Slot::Time, time);
            values.set(Slot::Observed, time + OBSERVED_DELAY_NS);
            values.set(Slot::TraceHigh, high);
            values.set(Slot::TraceLow, low);
            values.set(Slot::Span, ids.span(n));
            values.set_text(Slot::Text, random);
            let template = &self.templates[(random >> 32) as usize % self.templates.len()];
            template.write(out, 2, seq, &values);
        }
    }
}

const ROUTES: [&str; 6] = [
    "/api/orders",
    "/api/cart/items",
    "/api/products",
    "/api/payments",
    "/api/shipments",
    "/api/session",
];

fn template(random: u64, run: &KeyValue) -> Template {
    let route = ROUTES[random as usize % ROUTES.len()];
    let id = (random >> 8) % 90_000 + 10_000;
    let ms = (random >> 24) % 240 + 2;
    let request = String::from_utf8_lossy(&Slot::Text.marker()).into_owned();
    // Of 16 lines: 11 information, 2 debug, 2 warnings, 1 error.
    let (severity, text, body, status) = match random >> 60 {
        0..8 => (
            9,
            "INFO",
            format!("GET {route}/{id} answered 200 in {ms} ms, request {request}"),
            200,
        ),
        8..11 => (
            9,
            "INFO",
            format!("POST {route} created {id} in {ms} ms, request {request}"),
            201,
        ),
        11..13 => (
            5,
            "DEBUG",
            format!("cache lookup {route}/{id} missed, loading; request {request}"),
            200,
        ),
        13..15 => (
            13,
            "WARN",
            format!("slow query on {route}: {ms}0 ms for {id} rows, request {request}"),
            200,
        ),
        _ => (
            17,
            "ERROR",
            format!("upstream of {route} timed out after {ms}0 ms, request {request}"),
            504,
        ),
    };
    let head = LogRecord {
        time_unix_nano: Slot::Time.marker_u64(),
        severity_number: severity,
        severity_text: text.to_owned(),
        body: Some(any(Value::StringValue(body))),
        attributes: vec![
            attribute("http.route", route),
            int_attribute("http.response.status_code", status),
            run.clone(),
        ],
        ..LogRecord::default()
    };
    let tail = LogRecord {
        flags: 1,
        trace_id: id_marker([Slot::TraceHigh, Slot::TraceLow]),
        span_id: id_marker([Slot::Span]),
        observed_time_unix_nano: Slot::Observed.marker_u64(),
        ..LogRecord::default()
    };
    Template::new(head.encode_to_vec(), 6, tail.encode_to_vec())
}
