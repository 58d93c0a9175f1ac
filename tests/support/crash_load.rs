//! Senders that outlive the server: they go on when it is killed and started again under another address.
//!
//! Each request carries [`BATCH`] sequence numbers of its own, one a row, so that SQL can tell a request that is lost, in
//! the lake twice, or there in part. A sender has one of the [`WIRES`] and one of two tempers:
//!
//! | temper | when a request is not answered with success |
//! |---|---|
//! | [`Temper::GivesUp`] | goes on with the next one; whether the first was stored stays unknown |
//! | [`Temper::Retries`] | sends the very same bytes again until they are, over as many starts as it takes; over OTAP the same rows |

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::{Gauge, NumberDataPoint, Sum, number_data_point};
use otlake::signal::{Protocol, Signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::load::{logs, spans, unix_nano};
use super::otlp::{Export, kv, metric, resource, text};
use super::raw::{EXPORT_LOGS, EXPORT_METRICS, EXPORT_TRACES, JSON, PROTOBUF, compress, frame};
use super::{PATIENCE, Server, otap_load, sql};

/// Numbers of one request: all of them are in the lake, or none.
pub const BATCH: i64 = 5;

/// A sender's rest after each request: tests want concurrency, not the machine's last cycle.
pub(super) const REST: Duration = Duration::from_millis(2);

/// The pause before the same bytes are sent again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// One way to speak to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    protocol: Protocol,
    pub(super) signal: Signal,
    is_json: bool,
    is_gzip: bool,
}

const fn wire(protocol: Protocol, signal: Signal, is_json: bool, is_gzip: bool) -> Wire {
    Wire {
        protocol,
        signal,
        is_json,
        is_gzip,
    }
}

/// Every protocol, encoding and signal, with gzip and without.
const WIRES: [Wire; 10] = [
    wire(Protocol::Otap, Signal::Logs, false, false),
    wire(Protocol::Otap, Signal::Traces, false, false),
    wire(Protocol::Otap, Signal::Metrics, false, false),
    wire(Protocol::Grpc, Signal::Logs, false, false),
    wire(Protocol::Http, Signal::Logs, false, true),
    wire(Protocol::Http, Signal::Logs, true, false),
    wire(Protocol::Grpc, Signal::Traces, false, true),
    wire(Protocol::Http, Signal::Traces, true, true),
    wire(Protocol::Grpc, Signal::Metrics, false, false),
    wire(Protocol::Http, Signal::Metrics, false, false),
];

/// What a sender does when a request is not answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    GivesUp,
    Retries,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    http: SocketAddr,
}

/// Running senders.
pub struct CrashLoad {
    senders: Vec<JoinHandle<Sent>>,
    addresses: watch::Sender<Option<Addresses>>,
    shared: Arc<Shared>,
}

/// What all senders of a load share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    /// Bytes of text that each log record carries beside its number.
    padding_bytes: usize,
    pub(super) next_request: AtomicI64,
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) retried: AtomicU64,
}

/// What the senders learned about their requests.
#[derive(Debug, Default)]
pub struct Sent {
    /// Requests that were answered with success. A request that is retried always is, in the end.
    pub acknowledged: Vec<i64>,
    /// Attempts that were sent again.
    pub retried: u64,
    /// Attempts that were answered with anything else, by what was said.
    pub refusals: BTreeMap<String, u64>,
    /// Attempts that were not answered.
    pub unanswered: u64,
}

/// The bytes of one request, the same at every attempt.
struct Attempt {
    protocol: Protocol,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
    /// The body of the answer that says that every row was taken.
    success: &'static [u8],
}

enum Answered {
    Success,
    Refused(String),
    /// The connection ended, or there was none.
    Nothing,
}

impl CrashLoad {
    /// Starts one sender a wire for each of the tempers. They send once they are [aimed](CrashLoad::aim).
    pub fn start(tempers: &[Temper]) -> CrashLoad {
        CrashLoad::with_padding(tempers, 0)
    }

    /// The same with larger log records.
    pub fn with_padding(tempers: &[Temper], padding_bytes: usize) -> CrashLoad {
        CrashLoad::over(&WIRES, tempers, padding_bytes)
    }

    /// The same over OTAP alone.
    pub fn over_otap(tempers: &[Temper]) -> CrashLoad {
        let is_otap = |wire: &Wire| wire.protocol == Protocol::Otap;
        let wires: Vec<Wire> = WIRES.into_iter().filter(is_otap).collect();
        CrashLoad::over(&wires, tempers, 0)
    }

    fn over(wires: &[Wire], tempers: &[Temper], padding_bytes: usize) -> CrashLoad {
        let (addresses, _) = watch::channel(None);
        let shared = Arc::new(Shared {
            padding_bytes,
            ..Shared::default()
        });
        let mut senders = Vec::new();
        for temper in tempers {
            for wire in wires {
                let (aim, shared) = (addresses.subscribe(), Arc::clone(&shared));
                senders.push(match wire.protocol {
                    Protocol::Otap => tokio::spawn(otap_load::send(*wire, *temper, aim, shared)),
                    _ => tokio::spawn(send(*wire, *temper, aim, shared)),
                });
            }
        }
        CrashLoad {
            senders,
            addresses,
            shared,
        }
    }

    /// From now on requests go to this server.
    pub fn aim(&self, server: &Server) {
        let Server { grpc, http, .. } = *server;
        self.addresses.send_replace(Some(Addresses { grpc, http }));
    }

    /// From now on requests wait: the port of a server that is gone may be anyone's.
    pub fn aim_nowhere(&self) {
        self.addresses.send_replace(None);
    }

    /// Requests acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Attempts refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends the senders: those that give up after the answer they wait for, those that retry once it is a success.
    pub async fn finish(self) -> Sent {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for sender in self.senders {
            let sent = tokio::time::timeout(PATIENCE, sender).await;
            let sent = sent.expect("a sender still has no success").unwrap();
            all.acknowledged.extend(sent.acknowledged);
            all.unanswered += sent.unanswered;
            for (said, times) in sent.refusals {
                *all.refusals.entry(said).or_default() += times;
            }
        }
        all.retried = self.shared.retried.load(Ordering::Relaxed);
        all
    }
}

async fn send(
    wire: Wire,
    temper: Temper,
    mut addresses: watch::Receiver<Option<Addresses>>,
    shared: Arc<Shared>,
) -> Sent {
    let client = Client::builder(TokioExecutor::new())
        .http2_only(wire.protocol == Protocol::Grpc)
        .build_http();
    let mut sent = Sent::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let request = shared.next_request.fetch_add(1, Ordering::Relaxed);
        let attempt = wire.attempt(&wire.export(request, temper, &shared));
        loop {
            let Ok(aim) = addresses.wait_for(Option::is_some).await.map(|aim| *aim) else {
                return sent;
            };
            match attempt.make(&client, aim.unwrap()).await {
                Answered::Success => {
                    sent.acknowledged.push(request);
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Answered::Refused(said) => {
                    *sent.refusals.entry(said).or_default() += 1;
                    shared.refused.fetch_add(1, Ordering::Relaxed);
                }
                Answered::Nothing => sent.unanswered += 1,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            if temper == Temper::GivesUp {
                break;
            }
            shared.retried.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(REST).await;
    }
    sent
}

impl Wire {
    /// The request with this number.
    pub(super) fn export(self, request: i64, temper: Temper, shared: &Shared) -> Export {
        // Found in the lake, this says at once who sent a row.
        let service = format!("{temper:?} {self:?}");
        let seqs = request * BATCH..(request + 1) * BATCH;
        match self.signal {
            Signal::Logs => {
                let mut export = logs(&service, seqs);
                if shared.padding_bytes > 0 {
                    pad(&mut export, request, shared.padding_bytes);
                }
                Export::Logs(export)
            }
            Signal::Traces => Export::Traces(spans(&service, seqs)),
            Signal::Metrics => points(&service, seqs),
        }
    }

    /// The request in this wire's words.
    fn attempt(self, export: &Export) -> Attempt {
        let (message, content_type) = if self.is_json {
            (Bytes::from(export.to_json().to_string()), JSON)
        } else {
            (export.to_protobuf(), PROTOBUF)
        };
        let encoding = if self.is_gzip { "gzip" } else { "identity" };
        let message = compress(encoding, &message);
        match self.protocol {
            Protocol::Grpc | Protocol::Otap => Attempt {
                protocol: Protocol::Grpc,
                path: grpc_path(self.signal).to_owned(),
                headers: vec![
                    ("content-type", "application/grpc"),
                    ("te", "trailers"),
                    ("grpc-encoding", encoding),
                ],
                body: frame(self.is_gzip, &message).into(),
                success: &[0; 5],
            },
            Protocol::Http => Attempt {
                protocol: Protocol::Http,
                path: export.path(),
                headers: vec![
                    ("content-type", content_type),
                    ("content-encoding", encoding),
                ],
                body: message.into(),
                success: if self.is_json { b"{}" } else { b"" },
            },
        }
    }
}

fn grpc_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => EXPORT_LOGS,
        Signal::Traces => EXPORT_TRACES,
        Signal::Metrics => EXPORT_METRICS,
    }
}

/// Gives each record an attribute that compresses badly.
fn pad(
    export: &mut otlake::proto::collector::logs::v1::ExportLogsServiceRequest,
    request: i64,
    bytes: usize,
) {
    let mut random = Random::new(request.unsigned_abs());
    let groups = export.resource_logs.iter_mut();
    let scopes = groups.flat_map(|group| &mut group.scope_logs);
    for record in scopes.flat_map(|scope| &mut scope.log_records) {
        let words = std::iter::repeat_with(|| format!("{:016x}", random.next()));
        let padding: String = words.take(bytes.div_ceil(16)).collect();
        record.attributes.push(kv("padding", text(&padding)));
    }
}

/// One point a number: those of even numbers in one table, those of odd numbers in another.
fn points(service: &str, seqs: std::ops::Range<i64>) -> Export {
    let (odd, even): (Vec<i64>, Vec<i64>) = seqs.partition(|seq| seq % 2 == 1);
    let data_points = |seqs: Vec<i64>| {
        let points = seqs.into_iter().map(|seq| NumberDataPoint {
            time_unix_nano: unix_nano(seq),
            value: Some(number_data_point::Value::AsInt(seq)),
            ..NumberDataPoint::default()
        });
        points.collect()
    };
    let gauge = Gauge {
        data_points: data_points(even),
    };
    let sum = Sum {
        data_points: data_points(odd),
        aggregation_temporality: 2,
        is_monotonic: true,
    };
    Export::metrics(
        resource(vec![kv("service.name", text(service))]),
        Default::default(),
        vec![
            metric("even", Data::Gauge(gauge)),
            metric("odd", Data::Sum(sum)),
        ],
    )
}

impl Attempt {
    /// Sends the bytes once.
    async fn make(
        &self,
        client: &Client<HttpConnector, Full<Bytes>>,
        addresses: Addresses,
    ) -> Answered {
        let address = match self.protocol {
            Protocol::Grpc | Protocol::Otap => addresses.grpc,
            Protocol::Http => addresses.http,
        };
        let mut request = Request::post(format!("http://{address}{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(self.body.clone())).unwrap();
        let exchange = async {
            let (parts, body) = client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Some((parts, trailers, body.to_bytes()))
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        match answered.expect("neither an answer nor the connection's end") {
            None => Answered::Nothing,
            Some((parts, trailers, body)) => match self.protocol {
                Protocol::Grpc | Protocol::Otap => {
                    self.judge_grpc(&parts.headers, &trailers, &body)
                }
                Protocol::Http => self.judge_http(parts.status, &parts.headers, &body),
            },
        }
    }

    fn judge_grpc(&self, headers: &HeaderMap, trailers: &HeaderMap, body: &Bytes) -> Answered {
        let status = Status::from_header_map(trailers).or_else(|| Status::from_header_map(headers));
        let Some(status) = status else {
            return Answered::Nothing;
        };
        let pause = status.get_details_retry_info();
        match status.code() {
            Code::Ok if body.as_ref() == self.success => Answered::Success,
            Code::Ok => Answered::Refused(format!("a success with reservations: {body:?}")),
            Code::Unavailable if pause.is_some() => Answered::Refused(COME_BACK_GRPC.to_owned()),
            _ => Answered::Refused(format!("{status:?}")),
        }
    }

    fn judge_http(&self, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Answered {
        match status {
            StatusCode::OK if body.as_ref() == self.success => Answered::Success,
            StatusCode::OK => Answered::Refused(format!("a success with reservations: {body:?}")),
            StatusCode::SERVICE_UNAVAILABLE if headers.contains_key("retry-after") => {
                Answered::Refused(COME_BACK_HTTP.to_owned())
            }
            _ => Answered::Refused(format!("{status} {headers:?} {body:?}")),
        }
    }
}

/// What a client that is to come back is told.
const COME_BACK_GRPC: &str = "UNAVAILABLE with RetryInfo";
const COME_BACK_HTTP: &str = "503 with Retry-After";
pub(super) const COME_BACK_OTAP: &str = "the status UNAVAILABLE";

/// Every sequence number in the lake, as often as it is there.
const SEQS: &str = "
    SELECT CAST(log_attributes->>'$.seq' AS BIGINT) AS seq FROM otlp_logs
    UNION ALL SELECT CAST('0x' || span_id AS BIGINT) - 1 FROM otlp_traces
    UNION ALL SELECT int_value FROM otlp_metrics_gauge
    UNION ALL SELECT int_value FROM otlp_metrics_sum";

/// What is wrong with the requests in a lake, by their numbers; and how many rows were looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub rows: i64,
    /// Acknowledged, and not there.
    pub lost: Vec<i64>,
    /// There more than once.
    pub twice: Vec<i64>,
    /// There with some of their rows only.
    pub in_part: Vec<i64>,
}

impl Sent {
    /// Every acknowledged request is in the lake whole, and none, acknowledged or not, is in it twice or in part.
    /// Answers how many rows were looked at.
    pub fn assert_exactly_once(&self, data_dir: &Path) -> i64 {
        let count = self.count(data_dir);
        let wrong = [&count.lost, &count.twice, &count.in_part];
        let [lost, twice, in_part] = wrong.map(|requests| {
            let some = &requests[..requests.len().min(5)];
            format!("{} {some:?}", requests.len())
        });
        assert!(
            wrong.iter().all(|requests| requests.is_empty()),
            "of {} acknowledged requests, and {} rows: lost {lost}, there twice {twice}, in part {in_part}",
            self.acknowledged.len(),
            count.rows
        );
        assert_books_are_right(data_dir, count.rows);
        count.rows
    }

    /// Compares what was acknowledged with what is in the lake.
    pub fn count(&self, data_dir: &Path) -> Count {
        let query = format!(
            "SELECT seq // {BATCH} AS request, count(*) AS rows, count(DISTINCT seq) AS seqs FROM ({SEQS})
             GROUP BY request ORDER BY request"
        );
        let (mut count, mut found) = (Count::default(), BTreeSet::new());
        for row in sql(data_dir, &query) {
            let [request, rows, seqs] = [0, 1, 2].map(|place| row[place].parse().unwrap());
            found.insert(request);
            count.rows += rows;
            if rows > seqs {
                count.twice.push(request);
            }
            if seqs < BATCH {
                count.in_part.push(request);
            }
        }
        let acknowledged = self.acknowledged.iter().copied();
        count.lost = acknowledged
            .filter(|request| !found.contains(request))
            .collect();
        count
    }

    /// Nothing was refused but by words that tell a client to come back.
    pub fn assert_refusals_are_retryable(&self) {
        let mut said = self.refusals.keys();
        let come_back = [COME_BACK_GRPC, COME_BACK_HTTP, COME_BACK_OTAP];
        assert!(
            said.all(|said| come_back.contains(&said.as_str())),
            "{:#?}",
            self.refusals
        );
    }
}

/// The seals' own table counts the rows that are there, each seal once.
fn assert_books_are_right(data_dir: &Path, rows: i64) {
    let query = "SELECT coalesce(sum(rows), 0), count(*) - count(DISTINCT (writer_id, seal_id)) FROM otlake_seals";
    assert_eq!(sql(data_dir, query), [[rows.to_string(), "0".to_owned()]]);
}

/// Numbers that look random and are the same for the same seed (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A time in the range, to the millisecond.
    pub fn ms(&mut self, range: std::ops::RangeInclusive<u64>) -> Duration {
        let (start, end) = range.into_inner();
        Duration::from_millis(start + self.next() % (end - start + 1))
    }
}
