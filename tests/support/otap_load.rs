//! The senders of a [crash load](super::crash_load) that speak OTAP: streams with several batches in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use otlake::otap_producer::{Options, Producer};
use otlake::proto::arrow::{BatchArrowRecords, BatchStatus, StatusCode};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::PATIENCE;
use super::crash_load::{Addresses, COME_BACK_OTAP, REST, RETRY_PAUSE, Sent, Shared, Temper, Wire};
use super::otlp::Export;
use super::stream::OtapStream;

/// Batches of a stream that wait for their statuses.
const IN_FLIGHT: usize = 8;

/// Batches of a stream, after which its client closes it and opens the next.
const BATCHES_MAX: i64 = 200;

/// Writes a request as the stream's next batch.
pub fn produce(producer: &mut Producer, request: &Export) -> BatchArrowRecords {
    let batch = match request {
        Export::Logs(request) => producer.logs(request),
        Export::Traces(request) => producer.traces(request),
        Export::Metrics(request) => producer.metrics(request),
    };
    batch.unwrap()
}

/// One client, stream after stream.
struct Sender {
    wire: Wire,
    temper: Temper,
    shared: Arc<Shared>,
    /// Requests to be sent again, in order.
    again: VecDeque<i64>,
    sent: Sent,
}

/// Sends until the load is stopped.
pub(super) async fn send(
    wire: Wire,
    temper: Temper,
    mut addresses: watch::Receiver<Option<Addresses>>,
    shared: Arc<Shared>,
) -> Sent {
    let mut sender = Sender {
        wire,
        temper,
        shared,
        again: VecDeque::new(),
        sent: Sent::default(),
    };
    while sender.has_more() {
        let Ok(aim) = addresses.wait_for(Option::is_some).await.map(|aim| *aim) else {
            break;
        };
        let opened = OtapStream::connect(aim.unwrap().grpc, wire.signal, &[]);
        match timeout(PATIENCE, opened).await.expect("an answer's head") {
            Some(stream) => sender.drive(stream).await,
            None => sender.sent.unanswered += 1,
        }
        sleep(RETRY_PAUSE).await;
    }
    sender.sent
}

impl Sender {
    fn has_more(&self) -> bool {
        !self.again.is_empty() || !self.shared.stop.load(Ordering::Relaxed)
    }

    /// Sends on one stream until it ends, from this side or the other.
    async fn drive(&mut self, mut stream: OtapStream) {
        let mut producer = Producer::new(Options::default());
        let mut in_flight = BTreeMap::new();
        let mut next_batch = 0;
        loop {
            while in_flight.len() < IN_FLIGHT && next_batch < BATCHES_MAX && self.has_more() {
                let request = self.next_request();
                let export = self.wire.export(request, self.temper, &self.shared);
                let batch = produce(&mut producer, &export);
                next_batch = batch.batch_id + 1;
                in_flight.insert(batch.batch_id, request);
                let sent = timeout(PATIENCE, stream.send(&batch)).await;
                sent.expect("the server reads, or the stream ends");
            }
            if in_flight.is_empty() {
                stream.close_send();
            }
            let next = timeout(PATIENCE, stream.try_status()).await;
            match next.expect("a status, or the stream's end") {
                Ok(Some(status)) => {
                    let request = in_flight.remove(&status.batch_id);
                    self.judge(request.expect("a status for each batch"), &status)
                        .await;
                }
                Ok(None) => {
                    self.note_end(&stream, in_flight.is_empty());
                    break;
                }
                // The server is gone.
                Err(_) => break,
            }
        }
        self.sent.unanswered += in_flight.len() as u64;
        if self.temper == Temper::Retries {
            let retried = in_flight.len() as u64;
            self.shared.retried.fetch_add(retried, Ordering::Relaxed);
            self.again.extend(in_flight.into_values());
        }
    }

    fn next_request(&mut self) -> i64 {
        let next = || self.shared.next_request.fetch_add(1, Ordering::Relaxed);
        self.again.pop_front().unwrap_or_else(next)
    }

    async fn judge(&mut self, request: i64, status: &BatchStatus) {
        if status.status_code() == StatusCode::Ok && status.status_message.is_empty() {
            self.sent.acknowledged.push(request);
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            sleep(REST).await;
            return;
        }
        self.refuse(match status.status_code() {
            StatusCode::Unavailable => COME_BACK_OTAP.to_owned(),
            _ => format!("{status:?}"),
        });
        if self.temper == Temper::Retries {
            self.shared.retried.fetch_add(1, Ordering::Relaxed);
            self.again.push_back(request);
        }
        sleep(RETRY_PAUSE).await;
    }

    /// A stream ends with OK once everything is answered, or because the server stops.
    fn note_end(&mut self, stream: &OtapStream, is_answered: bool) {
        let status = stream.grpc_status();
        match status.as_ref().map(tonic::Status::code) {
            Some(Code::Ok) if is_answered => {}
            Some(Code::Unavailable) => {}
            _ => self.refuse(format!("the stream ended with {status:?}")),
        }
    }

    fn refuse(&mut self, said: String) {
        *self.sent.refusals.entry(said).or_default() += 1;
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }
}
