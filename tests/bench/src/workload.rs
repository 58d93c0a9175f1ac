//! What is decoded and written: the telemetry of `otlake send`, and what coding agents sent.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use otlake::cli::send::bodies::{as_json, bodies};
use otlake::decode::{Encoding, decode};
use otlake::memory::Budget;
use otlake::otap_producer::{Options, Producer};
use otlake::rows::Rows;
use otlake::signal::Signal;
use prost::Message as _;

/// When everything is received, Unix nanoseconds.
pub const RECEIVED_UNIX_NANO: i64 = 1_700_000_001_000_000_000;

/// A request's body.
#[derive(Clone, Debug)]
pub struct Body {
    /// Whose records are in it.
    pub signal: Signal,
    /// OTLP protobuf.
    pub protobuf: Bytes,
}

/// Bodies that are worked on together, in order.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What it is called in the table.
    pub name: &'static str,
    /// The requests.
    pub bodies: Vec<Body>,
    /// Rows that come of all of them.
    pub rows: usize,
}

impl Workload {
    /// What `otlake send` sends: about 250 B a log record with 4 attributes and 7 of its resource, about 200 B a span, and
    /// metrics of every kind.
    pub fn generated(signal: Signal, requests: u64, batch: u64) -> Workload {
        let bodies = bodies(signal, requests, batch).into_iter();
        let of = |protobuf| Body { signal, protobuf };
        Workload::new(signal.name(), bodies.map(of).collect())
    }

    /// The captured requests of `tests/fixtures/agents/<folder>`, `times` times.
    pub fn captured(name: &'static str, folder: &str, times: usize) -> Workload {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = root.join("../fixtures/agents").join(folder);
        let index = fs::read_to_string(dir.join("index.jsonl")).unwrap();
        let captured: Vec<Body> = index
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |key: &str| entry[key].as_str().unwrap();
                let signals = Signal::ALL.into_iter();
                let mut signals = signals.filter(|signal| signal.name() == text("signal"));
                Body {
                    signal: signals.next().unwrap(),
                    protobuf: fs::read(dir.join(text("file"))).unwrap().into(),
                }
            })
            .collect();
        Workload::new(name, vec![captured; times].concat())
    }

    fn new(name: &'static str, bodies: Vec<Body>) -> Workload {
        let mut workload = Workload {
            name,
            bodies,
            rows: 0,
        };
        let decoded = workload.decoded();
        workload.rows = decoded.iter().map(|rows| rows.rows() as usize).sum();
        workload
    }

    /// The rows of every request.
    pub fn decoded(&self) -> Vec<Rows> {
        let budget = Budget::new(u64::MAX);
        let decoded = self.bodies.iter().map(|body| {
            let (signal, protobuf) = (body.signal, &body.protobuf);
            let rows = decode(
                signal,
                Encoding::Protobuf,
                protobuf,
                RECEIVED_UNIX_NANO,
                budget.empty(),
            );
            rows.unwrap()
        });
        decoded.collect()
    }

    /// The bodies as OTLP/JSON.
    pub fn json(&self) -> Vec<Bytes> {
        let bodies = self.bodies.iter();
        bodies
            .map(|body| as_json(body.signal, &body.protobuf).unwrap())
            .collect()
    }

    /// The bodies as the `BatchArrowRecords` messages of one OTAP stream a signal, as the collector's exporter writes them.
    pub fn otap(&self) -> Vec<Bytes> {
        use otlake::proto::collector::{logs, metrics, trace};
        let mut producers = Signal::ALL.map(|_| Producer::new(Options::default()));
        let bodies = self.bodies.iter();
        bodies
            .map(|body| {
                let producer = &mut producers[body.signal as usize];
                let protobuf = body.protobuf.clone();
                let batch = match body.signal {
                    Signal::Logs => producer
                        .logs(&logs::v1::ExportLogsServiceRequest::decode(protobuf).unwrap()),
                    Signal::Traces => producer
                        .traces(&trace::v1::ExportTraceServiceRequest::decode(protobuf).unwrap()),
                    Signal::Metrics => producer.metrics(
                        &metrics::v1::ExportMetricsServiceRequest::decode(protobuf).unwrap(),
                    ),
                };
                batch.unwrap().encode_to_vec().into()
            })
            .collect()
    }
}
