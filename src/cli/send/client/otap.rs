//! OTAP: one bidirectional gRPC stream a signal, several batches in flight on each.
//!
//! ```text
//! submit -> Producer -> batches ---------> server
//!    \-> waiting: batch id -> answer <--- reader task <- statuses
//! ```
//!
//! A stream that ended, whyever, answers what waits on it, and the next batch opens another one, with a producer of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{ACCEPTED, Outcome, Target, grpc, late, pause};
use crate::cli::args::ArrowCompression;
use crate::otap_producer::{Compression, Options, ProduceError, Producer};
use crate::proto::arrow::{BatchArrowRecords, BatchStatus, StatusCode};
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::signal::Signal;

/// A channel with one connection, and on it a stream for each signal that was sent.
#[derive(Debug)]
pub(in crate::cli::send) struct OtapClient {
    grpc: Grpc<Channel>,
    authorization: Option<AsciiMetadataValue>,
    timeout: Duration,
    options: Options,
    /// Batches of one stream that may wait for their status.
    in_flight: usize,
    /// In the order of [`Signal::ALL`].
    streams: [Option<Stream>; 3],
    /// How streams ended that did not end well, though all their batches were answered.
    ends: Vec<Outcome>,
    failures: Arc<AtomicU32>,
}

/// How batches are written, and how many may wait.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) compression: ArrowCompression,
    pub(super) in_flight: u32,
}

/// A stream as the sender has it.
#[derive(Debug)]
struct Stream {
    producer: Producer,
    is_used: bool,
    /// `None` once no batch follows.
    batches: Option<mpsc::Sender<BatchArrowRecords>>,
    waiting: Arc<Waiting>,
    permits: Arc<Semaphore>,
    reader: JoinHandle<Option<Outcome>>,
}

/// A batch on its way.
#[derive(Debug)]
pub(in crate::cli::send) struct Sent {
    /// Of its message, before the transport's compression.
    pub(in crate::cli::send) bytes: usize,
    at: Instant,
    limit: Duration,
    answer: oneshot::Receiver<(Outcome, Instant)>,
    failures: Arc<AtomicU32>,
    /// Gives the batch's place to another one.
    _permit: OwnedSemaphorePermit,
}

impl OtapClient {
    pub(super) async fn connect(
        target: &Target,
        settings: &Settings,
    ) -> anyhow::Result<OtapClient> {
        let (grpc, authorization) = grpc::open(target).await?;
        let compression = match settings.compression {
            ArrowCompression::None => Compression::None,
            ArrowCompression::Zstd => Compression::Zstd,
        };
        Ok(OtapClient {
            grpc,
            authorization,
            timeout: target.timeout,
            options: Options {
                compression,
                ..Options::default()
            },
            in_flight: usize::try_from(settings.in_flight)?,
            streams: [None, None, None],
            ends: Vec::new(),
            failures: Arc::default(),
        })
    }

    /// How often in a row a batch was not answered in time, or a stream broke.
    pub(in crate::cli::send) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes an Export request, OTLP protobuf, as a batch and sends it, as soon as fewer than `in_flight` wait.
    ///
    /// # Errors
    /// When the request is not what it should be, or too large for a batch; nothing is sent then.
    pub(in crate::cli::send) async fn submit(
        &mut self,
        signal: Signal,
        request: &Bytes,
    ) -> anyhow::Result<Sent> {
        let request = Export::decode(signal, request)?;
        loop {
            let mut stream = match self.streams[signal as usize].take() {
                Some(stream) => stream,
                None => {
                    tokio::time::sleep(pause(self.failures())).await;
                    self.open(signal)
                }
            };
            let permit = Arc::clone(&stream.permits)
                .acquire_owned()
                .await
                .context("the semaphore is never closed")?;
            let batch = match request.produce(&mut stream.producer) {
                Ok(batch) => batch,
                Err(error) => {
                    // After another error nothing can follow on the stream.
                    if matches!(error, ProduceError::TooManyParents { .. }) {
                        self.streams[signal as usize] = Some(stream);
                    }
                    return Err(error.into());
                }
            };
            let (answer, answered) = oneshot::channel();
            let sent = Sent {
                bytes: batch.encoded_len(),
                at: Instant::now(),
                limit: self.timeout,
                answer: answered,
                failures: Arc::clone(&self.failures),
                _permit: permit,
            };
            if let Err((end, answer)) = stream.waiting.add(batch.batch_id, answer) {
                self.ends.extend(stream.reader.await?);
                if stream.is_used {
                    continue;
                }
                // It was never a stream: another one would not be either.
                let _ = answer.send((end, Instant::now()));
                return Ok(sent);
            }
            stream.is_used = true;
            if let Some(batches) = &stream.batches {
                // Fails when the stream has ended; the batch's answer says so.
                let _ = batches.send(batch).await;
            }
            self.streams[signal as usize] = Some(stream);
            return Ok(sent);
        }
    }

    /// Says on every stream that no batch follows. Statuses still come.
    pub(in crate::cli::send) fn close_send(&mut self) {
        for stream in self.streams.iter_mut().flatten() {
            stream.batches = None;
        }
    }

    /// Ends every stream: no batch follows, and the server's end is waited for.
    ///
    /// Returns how streams of this connection ended that did not end well, though all their batches were answered.
    pub(in crate::cli::send) async fn close(&mut self) -> anyhow::Result<Vec<Outcome>> {
        let mut ends = std::mem::take(&mut self.ends);
        self.close_send();
        for stream in self.streams.iter_mut().filter_map(Option::take) {
            let mut reader = stream.reader;
            match timeout(self.timeout, &mut reader).await {
                Ok(end) => ends.extend(end?),
                Err(_) => {
                    reader.abort();
                    ends.push(Outcome::Unanswered {
                        reason: "no end of the stream in time".to_owned(),
                        message: format!("it did not end within {:?} (--timeout)", self.timeout),
                    });
                }
            }
        }
        Ok(ends)
    }

    fn open(&self, signal: Signal) -> Stream {
        let (batches, received) = mpsc::channel(self.in_flight);
        let mut request = Request::new(ReceiverStream::new(received));
        if let Some(value) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        let waiting = Arc::new(Waiting::new(Arc::clone(&self.failures)));
        let reader = read(
            self.grpc.clone(),
            request,
            path(signal),
            Arc::clone(&waiting),
        );
        Stream {
            producer: Producer::new(self.options.clone()),
            is_used: false,
            batches: Some(batches),
            waiting,
            permits: Arc::new(Semaphore::new(self.in_flight)),
            reader: tokio::spawn(reader),
        }
    }
}

impl Sent {
    /// What became of the batch, and how long after sending that was known.
    pub(in crate::cli::send) async fn outcome(self) -> (Outcome, Duration) {
        match timeout_at(self.at + self.limit, self.answer).await {
            Ok(Ok((outcome, at))) => (outcome, at - self.at),
            Ok(Err(_)) => (ended(), self.at.elapsed()),
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                (late(self.limit), self.limit)
            }
        }
    }
}

/// A request that can be written as a batch.
enum Export {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Export {
    fn decode(signal: Signal, request: &Bytes) -> anyhow::Result<Export> {
        // A handle of the bytes: what is bytes in the message shares them.
        let request = Bytes::clone(request);
        match signal {
            Signal::Logs => ExportLogsServiceRequest::decode(request).map(Export::Logs),
            Signal::Traces => ExportTraceServiceRequest::decode(request).map(Export::Traces),
            Signal::Metrics => ExportMetricsServiceRequest::decode(request).map(Export::Metrics),
        }
        .with_context(|| format!("is not {signal} in OTLP protobuf, and cannot become OTAP"))
    }

    fn produce(&self, producer: &mut Producer) -> Result<BatchArrowRecords, ProduceError> {
        match self {
            Export::Logs(request) => producer.logs(request),
            Export::Traces(request) => producer.traces(request),
            Export::Metrics(request) => producer.metrics(request),
        }
    }
}

/// The batches of one stream that have no status yet.
#[derive(Debug)]
struct Waiting {
    state: Mutex<State>,
    failures: Arc<AtomicU32>,
}

#[derive(Debug)]
enum State {
    Open {
        waiting: HashMap<i64, Answer>,
        /// Whether the server has sent a status.
        is_answered: bool,
    },
    /// How the stream ended.
    Ended(Outcome),
}

type Answer = oneshot::Sender<(Outcome, Instant)>;

impl Waiting {
    fn new(failures: Arc<AtomicU32>) -> Waiting {
        Waiting {
            state: Mutex::new(State::Open {
                waiting: HashMap::new(),
                is_answered: false,
            }),
            failures,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch; fails with the stream's end when it has ended.
    fn add(&self, batch_id: i64, answer: Answer) -> Result<(), (Outcome, Answer)> {
        match &mut *self.lock() {
            State::Open { waiting, .. } => {
                waiting.insert(batch_id, answer);
                Ok(())
            }
            State::Ended(end) => Err((end.clone(), answer)),
        }
    }

    /// Answers a batch.
    ///
    /// # Errors
    /// When there is no such batch, or not any more.
    fn answer(&self, status: BatchStatus) -> Result<(), Status> {
        let now = Instant::now();
        let answer = match &mut *self.lock() {
            State::Open {
                waiting,
                is_answered,
            } => {
                *is_answered = true;
                waiting.remove(&status.batch_id)
            }
            State::Ended(_) => None,
        };
        let Some(answer) = answer else {
            let id = status.batch_id;
            return Err(Status::internal(format!(
                "the server sent a status for batch {id}, which did not wait for one"
            )));
        };
        self.failures.store(0, Ordering::Relaxed);
        // A batch that was given up listens no more.
        let _ = answer.send((outcome(status), now));
        Ok(())
    }

    /// Answers all batches that are left, and those that come, with the stream's end. Says whether there were any.
    fn end(&self, end: &Outcome) -> bool {
        let now = Instant::now();
        let before = std::mem::replace(&mut *self.lock(), State::Ended(end.clone()));
        let State::Open {
            waiting,
            is_answered,
        } = before
        else {
            return false;
        };
        let outcome = match is_answered {
            true => without_status(end),
            false => end.clone(),
        };
        // Those that were given up have been counted.
        let waiting = waiting.into_values().filter(|answer| !answer.is_closed());
        let mut is_any = false;
        for answer in waiting {
            is_any = true;
            let _ = answer.send((outcome.clone(), now));
        }
        if matches!(end, Outcome::Unanswered { .. }) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        is_any
    }
}

/// Reads the statuses of a stream until it ends. Returns its end if that is bad and no batch was left to be told.
async fn read(
    mut grpc: Grpc<Channel>,
    request: Request<ReceiverStream<BatchArrowRecords>>,
    path: PathAndQuery,
    waiting: Arc<Waiting>,
) -> Option<Outcome> {
    let statuses = async {
        grpc.ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        // Returns with the server's headers, which may come with the first status only.
        let codec = ProstCodec::<BatchArrowRecords, BatchStatus>::default();
        let mut statuses = grpc.streaming(request, path, codec).await?.into_inner();
        while let Some(status) = statuses.message().await? {
            waiting.answer(status)?;
        }
        Ok(())
    };
    let (is_good, end) = match statuses.await {
        Ok(()) => (true, ended()),
        Err(status) => (false, grpc::refused(&status)),
    };
    let is_told = waiting.end(&end);
    (!is_good && !is_told).then_some(end)
}

/// What a batch's status says.
fn outcome(status: BatchStatus) -> Outcome {
    let reason = match StatusCode::try_from(status.status_code) {
        Ok(StatusCode::Ok) if status.status_message.is_empty() => return ACCEPTED,
        Ok(StatusCode::Ok) => {
            return Outcome::Accepted {
                rejected: 0,
                message: status.status_message,
            };
        }
        Ok(code) => code.as_str_name().to_owned(),
        Err(_) => format!("status code {}", status.status_code),
    };
    Outcome::Refused {
        reason,
        message: status.status_message,
    }
}

/// The outcome of a batch without a status on a stream that took others: it may have been kept. On one that took none, it is
/// refused as the stream is.
fn without_status(end: &Outcome) -> Outcome {
    match end {
        Outcome::Refused { reason, message } => Outcome::Unanswered {
            reason: "no status, the stream ended".to_owned(),
            message: format!("{reason}: {message}"),
        },
        other => other.clone(),
    }
}

/// The outcome of a batch whose stream ended as if all were well.
fn ended() -> Outcome {
    Outcome::Unanswered {
        reason: "no status".to_owned(),
        message: "the server ended the stream without a status for the batch".to_owned(),
    }
}

fn path(signal: Signal) -> PathAndQuery {
    PathAndQuery::from_static(match signal {
        Signal::Logs => "/opentelemetry.proto.experimental.arrow.v1.ArrowLogsService/ArrowLogs",
        Signal::Traces => {
            "/opentelemetry.proto.experimental.arrow.v1.ArrowTracesService/ArrowTraces"
        }
        Signal::Metrics => {
            "/opentelemetry.proto.experimental.arrow.v1.ArrowMetricsService/ArrowMetrics"
        }
    })
}
