//! Telemetry that looks real, made cheaply: which request holds which records, and their OTLP protobuf bytes.
//!
//! ```text
//! Plan     count, batch, signals  -> the requests of a run, each a range of records with their sequence numbers
//! Catalog  seed, run              -> templates of every record (see [`template`]), shared by all connections
//! Encoder  request, time          -> the bytes of its Export request, through buffers it keeps
//! ```
//!
//! Invariants:
//! - Every record of a run carries a different `otlake.seq`, and together they are `0..total`: signal by signal, so that
//!   `--signal all --count 10` numbers logs 0..10, spans 10..20 and data points 20..30.
//! - The same seed, run and times give the same bytes, whichever connection asks for a request, and in whatever order.
//! - Ids depend on the run, so that two runs into one lake share no trace.

mod logs;
mod metrics;
mod template;
mod traces;

use bytes::{BufMut, BytesMut};
use prost::Message;

use crate::proto::common::v1::any_value::Value;
use crate::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::resource::v1::Resource;
use crate::signal::Signal;

pub(super) use template::{RUN_KEY, SEQ_KEY};
use template::{mix, put_message};

/// The requests of a run: `count` records of each signal, `batch` in a request, signals taking turns.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    count: u64,
    batch: u64,
    signals: Vec<Signal>,
}

/// Some records of one signal, to be sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// What the records are.
    pub(super) signal: Signal,
    /// How many records there are.
    pub(super) records: u64,
    /// `otlake.seq` of the first; the others follow.
    pub(super) first_seq: u64,
    /// How many records of the run are sent before these: what pacing goes by.
    pub(super) sent_before: u64,
    /// The first record's place among those of its signal.
    first: u64,
    /// The request's place in the run.
    index: u64,
}

impl Plan {
    /// A run of `count` records of each of `signals`; `count` and `batch` are 1 at least, `signals` is not empty.
    pub(super) fn new(count: u64, batch: u64, signals: Vec<Signal>) -> Plan {
        assert!(count > 0 && batch > 0 && !signals.is_empty());
        Plan {
            count,
            batch,
            signals,
        }
    }

    /// Records in the whole run.
    pub(super) fn records(&self) -> u64 {
        self.count.saturating_mul(self.signals.len() as u64)
    }

    /// The signals of the run.
    pub(super) fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// The request with this place in the run, or `None` after the last.
    pub(super) fn request(&self, index: u64) -> Option<Request> {
        let turns = self.signals.len() as u64;
        let (round, turn) = (index / turns, index % turns);
        let first = round.checked_mul(self.batch)?;
        if first >= self.count {
            return None;
        }
        let records = self.batch.min(self.count - first);
        Some(Request {
            signal: *self.signals.get(usize::try_from(turn).ok()?)?,
            records,
            first_seq: turn * self.count + first,
            sent_before: first * turns + turn * records,
            first,
            index,
        })
    }
}

/// Everything that can be made before the first request: resources and the templates of all records.
#[derive(Debug)]
pub(super) struct Catalog {
    /// Encoded resources, one a service.
    resources: Vec<Vec<u8>>,
    /// Encoded scopes: records of a request are divided among them.
    scopes: Vec<Vec<u8>>,
    logs: logs::Logs,
    traces: traces::Traces,
    metrics: metrics::Metrics,
    ids: Ids,
}

impl Catalog {
    /// Builds the templates. `run` is written into every record; `start_unix_nano` is when cumulative sums began.
    pub(super) fn new(seed: u64, run: &str, start_unix_nano: u64) -> Catalog {
        let run_number = run
            .bytes()
            .fold(0, |number, byte| mix(number, u64::from(byte)));
        let run = attribute(RUN_KEY, run);
        Catalog {
            resources: SERVICES.map(resource).into(),
            scopes: SCOPES.map(scope).into(),
            logs: logs::Logs::new(seed, &run),
            traces: traces::Traces::new(seed, &run),
            metrics: metrics::Metrics::new(seed, &run, start_unix_nano),
            ids: Ids(mix(seed, run_number)),
        }
    }
}

/// Writes requests. Each connection has its own, because it keeps buffers.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    scope: Vec<u8>,
    resource: Vec<u8>,
    metrics: metrics::Buffers,
}

impl Encoder {
    /// Appends the Export request's bytes to `out`.
    ///
    /// One resource (the service whose turn it is) with two scopes, or one when there is a single record.
    pub(super) fn encode(
        &mut self,
        catalog: &Catalog,
        request: &Request,
        now_unix_nano: u64,
        out: &mut BytesMut,
    ) {
        self.resource.clear();
        let service = request.index as usize % catalog.resources.len();
        put_message(&mut self.resource, 1, &catalog.resources[service]);
        let middle = request.records.div_ceil(2);
        for (scope, range) in catalog
            .scopes
            .iter()
            .zip([0..middle, middle..request.records])
        {
            if range.is_empty() {
                continue;
            }
            self.scope.clear();
            put_message(&mut self.scope, 1, scope);
            let records = Records {
                first: request.first + range.start,
                first_seq: request.first_seq + range.start,
                count: range.end - range.start,
                // Records of a batch happened one after the other, the last one just now.
                now_unix_nano: now_unix_nano - (request.records - range.end) * RECORD_GAP_NS,
            };
            match request.signal {
                Signal::Logs => catalog.logs.write(&records, catalog.ids, &mut self.scope),
                Signal::Traces => catalog.traces.write(&records, catalog.ids, &mut self.scope),
                Signal::Metrics => {
                    let buffers = &mut self.metrics;
                    catalog
                        .metrics
                        .write(&records, catalog.ids, buffers, &mut self.scope);
                }
            }
            put_message(&mut self.resource, 2, &self.scope);
        }
        out.reserve(self.resource.len() + 11);
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, out);
        prost::encoding::encode_varint(self.resource.len() as u64, out);
        out.put_slice(&self.resource);
    }
}

/// Time between two records of one batch, nanoseconds.
const RECORD_GAP_NS: u64 = 10_000;

/// A run of records inside one scope.
struct Records {
    first: u64,
    first_seq: u64,
    count: u64,
    /// Time of the last.
    now_unix_nano: u64,
}

impl Records {
    /// Each record's place among those of its signal, its sequence number and its time.
    fn iter(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        (0..self.count).map(|n| {
            (
                self.first + n,
                self.first_seq + n,
                self.now_unix_nano - (self.count - 1 - n) * RECORD_GAP_NS,
            )
        })
    }
}

/// Where trace and span ids come from. Record `n` of any signal belongs to span `n` of trace `n / SPANS_IN_TRACE`.
#[derive(Clone, Copy, Debug)]
struct Ids(u64);

/// Spans of one trace.
const SPANS_IN_TRACE: u64 = 8;

impl Ids {
    fn trace(self, number: u64) -> (u64, u64) {
        (mix(self.0 ^ 1, number), mix(self.0 ^ 2, number))
    }

    fn span(self, number: u64) -> u64 {
        mix(self.0 ^ 3, number)
    }
}

/// The services that report: name, language of the SDK, version.
const SERVICES: [[&str; 3]; 6] = [
    ["checkout", "java", "4.17.2"],
    ["cart", "go", "1.9.0"],
    ["catalog", "python", "2.3.11"],
    ["payment", "dotnet", "8.0.4"],
    ["shipping", "rust", "0.31.6"],
    ["storefront", "nodejs", "22.5.1"],
];

const SCOPES: [[&str; 2]; 2] = [["shop.http.server", "1.4.0"], ["shop.orders", "4.17.2"]];

fn resource([name, language, version]: [&str; 3]) -> Vec<u8> {
    let attributes = vec![
        attribute("service.name", name),
        attribute("service.namespace", "shop"),
        attribute("service.version", version),
        attribute("service.instance.id", &format!("{name}-7d9f6c5b8-x2kqp")),
        attribute("host.name", "node-eu-west-1a-07"),
        attribute("deployment.environment.name", "production"),
        attribute("telemetry.sdk.language", language),
    ];
    Resource {
        attributes,
        ..Resource::default()
    }
    .encode_to_vec()
}

fn scope([name, version]: [&str; 2]) -> Vec<u8> {
    InstrumentationScope {
        name: name.to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    }
    .encode_to_vec()
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn attribute(key: &str, text: &str) -> KeyValue {
    key_value(key, Value::StringValue(text.to_owned()))
}

fn int_attribute(key: &str, number: i64) -> KeyValue {
    key_value(key, Value::IntValue(number))
}

/// The bytes that stand for an id while a template is made.
fn id_marker<const N: usize>(slots: [template::Slot; N]) -> bytes::Bytes {
    slots.map(template::Slot::marker).concat().into()
}

#[cfg(test)]
mod tests;
