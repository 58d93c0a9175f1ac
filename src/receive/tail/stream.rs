//! One tail: from its queue to its client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::records::{Records, TEXT_BYTES_MAX};
use super::{RECORDS_PER_SECOND_MAX, Shown, Tails, TooMany, Watch};
use crate::proto::admin::{TailRecord, TailResponse};
use crate::signal::{Signal, Table};

/// Records in one message: with all texts at their longest it is below what clients take, 4 MiB.
const MESSAGE_RECORDS_MAX: usize = 64;
const _: () = assert!(MESSAGE_RECORDS_MAX * 6 * TEXT_BYTES_MAX < 4 << 20);

/// Messages that wait for the client.
const MESSAGES_MAX: usize = 4;

/// Skipped records are told this often at least.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// What a tail shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    services: Vec<String>,
    signals: Vec<Signal>,
}

/// No signal has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no signal {0:?}: logs, traces, metrics")]
pub struct UnknownSignal(String);

impl Filter {
    /// Only these services and signals; of what nothing is named everything is shown.
    ///
    /// # Errors
    /// [`UnknownSignal`].
    pub fn new(services: Vec<String>, signals: &[String]) -> Result<Filter, UnknownSignal> {
        let signal = |name: &String| {
            let named = Signal::ALL.into_iter().find(|signal| signal.name() == name);
            named.ok_or_else(|| UnknownSignal(name.clone()))
        };
        Ok(Filter {
            services,
            signals: signals.iter().map(signal).collect::<Result<_, _>>()?,
        })
    }

    fn has_table(&self, table: Table) -> bool {
        self.signals.is_empty() || self.signals.contains(&table.signal())
    }

    fn has_service(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| name == service)
    }
}

/// The messages of a tail.
pub type Messages = ReceiverStream<Result<TailResponse, Status>>;

/// Begins a tail. It ends when its client goes, or `stop` turns true.
///
/// # Errors
/// [`TooMany`].
pub fn stream(
    tails: &Arc<Tails>,
    filter: Filter,
    stop: watch::Receiver<bool>,
) -> Result<Messages, TooMany> {
    let watch = tails.watch()?;
    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let tail = Tail {
        watch,
        filter,
        sender,
        allowance: Allowance::new(),
    };
    // Ends with the client, and with the server.
    tokio::spawn(tail.run(stop));
    Ok(ReceiverStream::new(messages))
}

struct Tail {
    watch: Watch,
    filter: Filter,
    sender: mpsc::Sender<Result<TailResponse, Status>>,
    allowance: Allowance,
}

/// The client has gone.
struct Gone;

impl Tail {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let sender = self.sender.clone();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {
                // For a client that takes nothing the stream just ends.
                let _ = sender.try_send(Err(Status::unavailable("the server is stopping")));
            }
            () = sender.closed() => {}
            _ = self.show() => {}
        }
    }

    async fn show(&mut self) -> Result<(), Gone> {
        loop {
            match tokio::time::timeout(TELL_PAUSE, self.watch.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(taken)) => self.show_request(&taken.shown).await?,
                Err(_) => {}
            }
            let skipped = self.watch.take_skipped();
            if skipped > 0 {
                self.send(Vec::new(), skipped).await?;
            }
        }
    }

    async fn show_request(&mut self, shown: &Shown) -> Result<(), Gone> {
        for (table, batch) in shown.batches.iter() {
            if !self.filter.has_table(*table) {
                continue;
            }
            let rows = Records::new(*table, batch);
            let mut records = Vec::new();
            for row in 0..batch.num_rows() {
                if !self.filter.has_service(rows.service(row)) {
                    continue;
                }
                if !self.allowance.take() {
                    self.watch.skip(1);
                    continue;
                }
                records.push(rows.record(row));
                if records.len() == MESSAGE_RECORDS_MAX {
                    self.send(std::mem::take(&mut records), 0).await?;
                }
            }
            if !records.is_empty() {
                self.send(records, 0).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, records: Vec<TailRecord>, skipped: u64) -> Result<(), Gone> {
        let message = TailResponse { records, skipped };
        self.sender.send(Ok(message)).await.map_err(|_| Gone)
    }
}

/// How many records may still be made in this second.
struct Allowance {
    began: Instant,
    left: u32,
}

impl Allowance {
    fn new() -> Allowance {
        Allowance {
            began: Instant::now(),
            left: RECORDS_PER_SECOND_MAX,
        }
    }

    fn take(&mut self) -> bool {
        if self.left == 0 {
            if self.began.elapsed() < Duration::from_secs(1) {
                return false;
            }
            *self = Allowance::new();
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::receive::tail::tests::rows;

    /// Scenario: one request with twice as many records as a tail makes a second; then nothing.
    /// Guarantees: the tail shows as many as it may at most a second, in messages of the size that clients take, and tells of
    /// every other that it left it out.
    #[tokio::test]
    async fn a_tail_makes_no_more_than_it_may() {
        let tails = Arc::new(Tails::default());
        let (_stop, stop) = watch::channel(false);
        let mut messages = stream(&tails, Filter::default(), stop).unwrap();
        let records = 2 * u64::from(RECORDS_PER_SECOND_MAX);
        let shown = tails
            .show(&rows(usize::try_from(records).unwrap(), 1))
            .unwrap();
        tails.offer(&shown);
        let (mut seen, mut skipped) = (0, 0);
        while seen + skipped < records {
            let message = messages.next().await.unwrap().unwrap();
            assert!(message.records.len() <= MESSAGE_RECORDS_MAX);
            seen += message.records.len() as u64;
            skipped += message.skipped;
        }
        assert_eq!(seen + skipped, records);
        // A slow machine may have begun the next second.
        assert!(seen >= u64::from(RECORDS_PER_SECOND_MAX));
        assert_eq!(tails.skipped(), skipped);
    }

    /// Scenario: a client that reads nothing while thousands of requests come; then it reads, and the server stops.
    /// Guarantees: offering goes on; every record is either in a message or told as skipped, or the stream ends by the stop.
    #[tokio::test]
    async fn a_client_that_does_not_read_holds_nobody_up() {
        let tails = Arc::new(Tails::default());
        let (stopping, stop) = watch::channel(false);
        let mut messages = stream(&tails, Filter::default(), stop).unwrap();
        let shown = tails.show(&rows(1, 1)).unwrap();
        let offered = 3000;
        for _ in 0..offered {
            tails.offer(&shown);
        }
        let (mut seen, mut skipped) = (0, 0);
        while seen + skipped < offered {
            let message = messages.next().await.unwrap().unwrap();
            seen += message.records.len() as u64;
            skipped += message.skipped;
        }
        assert!(seen > 0 && skipped > 0, "{seen} {skipped}");
        stopping.send_replace(true);
        let ended = messages.next().await.unwrap();
        assert_eq!(ended.unwrap_err().code(), tonic::Code::Unavailable);
        assert!(messages.next().await.is_none());
        assert_eq!(tails.open(), 0);
    }

    /// Scenario: filters of every kind.
    /// Guarantees: what nothing is said of is shown; a signal that there is not is told.
    #[test]
    fn filters_show_what_is_named() {
        let all = Filter::default();
        assert!(all.has_table(Table::Sum) && all.has_service("") && all.has_service("shop"));
        let signals = ["logs".to_owned(), "metrics".to_owned()];
        let some = Filter::new(vec!["shop".to_owned()], &signals).unwrap();
        assert!(some.has_table(Table::Logs) && some.has_table(Table::Summary));
        assert!(!some.has_table(Table::Traces));
        assert!(some.has_service("shop") && !some.has_service("sho"));
        assert!(Filter::new(Vec::new(), &["spans".to_owned()]).is_err());
    }
}
