//! What became of a run: counted by each connection, added up, and told on standard output.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::client::Outcome;
use super::generate::{RUN_KEY, SEQ_KEY};
use crate::signal::{Signal, Table};

/// Distinct messages that are kept of each reason.
const MESSAGES_MAX: usize = 3;
/// Longest time to an answer that is told apart, microseconds: twice the longest `--timeout`.
const ACK_US_MAX: u64 = 2 * 3_600_000_000;

/// Counts of one connection, or of all.
#[derive(Debug)]
pub(super) struct Tally {
    /// Records sent, in the order of [`Signal::ALL`].
    records: [u64; 3],
    requests: u64,
    /// Before compression.
    bytes: u64,
    /// Records the server answered for and kept.
    acknowledged: u64,
    /// Records the server refused alone.
    rejected: u64,
    /// Messages of partial successes.
    rejections: Messages,
    /// Messages that came with requests kept in full.
    warnings: Messages,
    /// How streams ended that did not end well, though all their batches were answered.
    ends: Messages,
    /// Requests the server did not take.
    refused: BTreeMap<String, Failure>,
    /// Requests without an answer.
    unanswered: BTreeMap<String, Failure>,
    /// From sending to answer, microseconds, answered requests only.
    ack_us: Histogram<u64>,
}

/// Requests that failed for the same reason.
#[derive(Debug, Default)]
struct Failure {
    requests: u64,
    records: u64,
    messages: Messages,
}

/// The first few distinct messages.
#[derive(Debug, Default)]
struct Messages(Vec<String>);

impl Messages {
    fn add(&mut self, message: String) {
        if !message.is_empty() && self.0.len() < MESSAGES_MAX && !self.0.contains(&message) {
            self.0.push(message);
        }
    }

    fn merge(&mut self, other: Messages) {
        other.0.into_iter().for_each(|message| self.add(message));
    }
}

impl Failure {
    fn merge(&mut self, other: Failure) {
        self.requests += other.requests;
        self.records += other.records;
        self.messages.merge(other.messages);
    }
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            records: [0; 3],
            requests: 0,
            bytes: 0,
            acknowledged: 0,
            rejected: 0,
            rejections: Messages::default(),
            warnings: Messages::default(),
            ends: Messages::default(),
            refused: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            ack_us: Histogram::new(3).expect("three digits are allowed"),
        }
    }

    /// Counts a request and what became of it.
    pub(super) fn count(
        &mut self,
        signal: Signal,
        records: u64,
        bytes: usize,
        took: Duration,
        outcome: Outcome,
    ) {
        self.records[signal as usize] += records;
        self.requests += 1;
        self.bytes += bytes as u64;
        if !matches!(outcome, Outcome::Unanswered { .. }) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            // Not `saturating_record`: it never grows the histogram, and counts what does not fit as the smallest.
            self.ack_us
                .record(micros.min(ACK_US_MAX))
                .expect("the histogram grows to two hours");
        }
        match outcome {
            Outcome::Accepted { rejected, message } => {
                let rejected = rejected.min(records);
                self.acknowledged += records - rejected;
                self.rejected += rejected;
                if rejected > 0 {
                    self.rejections.add(message);
                } else {
                    self.warnings.add(message);
                }
            }
            Outcome::Refused { reason, message } => {
                fail(&mut self.refused, reason, records, message);
            }
            Outcome::Unanswered { reason, message } => {
                fail(&mut self.unanswered, reason, records, message);
            }
        }
    }

    /// Notes that a stream ended badly, though all its batches were answered.
    pub(super) fn note_end(&mut self, end: Outcome) {
        let (Outcome::Refused { reason, message } | Outcome::Unanswered { reason, message }) = end
        else {
            return;
        };
        self.ends.add(format!("{reason}: {message}"));
    }

    /// Adds another connection's counts.
    pub(super) fn merge(&mut self, other: Tally) {
        for (sum, records) in self.records.iter_mut().zip(other.records) {
            *sum += records;
        }
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.acknowledged += other.acknowledged;
        self.rejected += other.rejected;
        self.rejections.merge(other.rejections);
        self.warnings.merge(other.warnings);
        self.ends.merge(other.ends);
        for (reason, failure) in other.refused {
            self.refused.entry(reason).or_default().merge(failure);
        }
        for (reason, failure) in other.unanswered {
            self.unanswered.entry(reason).or_default().merge(failure);
        }
        self.ack_us += other.ack_us;
    }

    /// Records the server answered for and kept.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

fn fail(failures: &mut BTreeMap<String, Failure>, reason: String, records: u64, message: String) {
    let failure = failures.entry(reason).or_default();
    failure.requests += 1;
    failure.records += records;
    failure.messages.add(message);
}

/// A finished run, to be printed.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// Value of `otlake.run`.
    pub(super) run: &'a str,
    /// What was sent.
    pub(super) signals: &'a [Signal],
    /// Records that were to be sent.
    pub(super) planned: u64,
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
    /// Why it ended before everything was sent.
    pub(super) ended_early: Option<String>,
    /// Advice, when nothing was accepted.
    pub(super) hint: Option<String>,
    /// The counts.
    pub(super) tally: Tally,
}

impl Report<'_> {
    /// Whether all of the run was sent and acknowledged.
    pub(super) fn is_complete(&self) -> bool {
        self.tally.acknowledged == self.planned
    }

    /// A statement that counts the records of the run that are in the lake, are missing, and are there twice.
    ///
    /// It has no double quotes and no dollar signs, so that a shell takes it between double quotes.
    pub(super) fn sql(&self) -> String {
        let tables: Vec<String> = Table::ALL
            .into_iter()
            .filter(|table| self.signals.contains(&table.signal()))
            .map(|table| {
                let attributes = match table.signal() {
                    Signal::Logs => "log_attributes",
                    Signal::Traces => "span_attributes",
                    Signal::Metrics => "metric_attributes",
                };
                format!(
                    "  SELECT CAST({attributes} ->> '{SEQ_KEY}' AS BIGINT) AS seq FROM {table} \
                     WHERE ({attributes} ->> '{RUN_KEY}') = '{}'",
                    self.run
                )
            })
            .collect();
        format!(
            "SELECT count(*) AS arrived, greatest(0, {} - count(DISTINCT seq)) AS lost, count(*) - count(DISTINCT seq) AS duplicates FROM (\n\
             {}\n)",
            self.tally.acknowledged,
            tables.join("\n  UNION ALL\n"),
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let sent: u64 = tally.records.iter().sum();
        if let Some(why) = &self.ended_early {
            writeln!(
                f,
                "ended early    {why}; {} records were not sent",
                self.planned - sent
            )?;
        }
        writeln!(
            f,
            "sent           {} in {} requests, {}",
            kinds(&tally.records),
            tally.requests,
            megabytes(tally.bytes)
        )?;
        writeln!(f, "acknowledged   {}", tally.acknowledged)?;
        messages(f, &tally.warnings)?;
        write_failures(f, "refused", &tally.refused)?;
        writeln!(
            f,
            "rejected       {} (single records, in requests that were accepted)",
            tally.rejected
        )?;
        messages(f, &tally.rejections)?;
        if !tally.unanswered.is_empty() {
            write_failures(f, "unanswered", &tally.unanswered)?;
        }
        if !tally.ends.0.is_empty() {
            writeln!(
                f,
                "streams        some ended badly, after the answers to all their batches"
            )?;
            messages(f, &tally.ends)?;
        }
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        writeln!(f, "elapsed        {seconds:.3} s")?;
        writeln!(
            f,
            "rate           {:.0} records/s acknowledged, {:.1} MB/s sent before gRPC's or HTTP's compression",
            tally.acknowledged as f64 / seconds,
            tally.bytes as f64 / 1e6 / seconds
        )?;
        writeln!(
            f,
            "ack            p50 {}, p99 {}, max {}",
            milliseconds(tally.ack_us.value_at_quantile(0.5)),
            milliseconds(tally.ack_us.value_at_quantile(0.99)),
            milliseconds(tally.ack_us.max())
        )?;
        if let Some(hint) = &self.hint {
            writeln!(f, "hint           {hint}")?;
        }
        if tally.acknowledged > 0 {
            writeln!(
                f,
                "\nTo count loss and duplicates of this run (with --data-dir, if the lake is not in ./otlake-data):\n"
            )?;
            writeln!(f, "otlake query \"{}\"", self.sql())?;
        }
        Ok(())
    }
}

/// `10 log records, 10 spans`.
fn kinds(records: &[u64; 3]) -> String {
    let kinds: Vec<String> = Signal::ALL
        .into_iter()
        .zip(records)
        .filter(|(_, count)| **count > 0)
        .map(|(signal, count)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{count} {}{plural}", signal.record_name())
        })
        .collect();
    if kinds.is_empty() {
        "nothing".to_owned()
    } else {
        kinds.join(", ")
    }
}

fn write_failures(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    failures: &BTreeMap<String, Failure>,
) -> fmt::Result {
    let records: u64 = failures.values().map(|failure| failure.records).sum();
    writeln!(f, "{title:<14} {records}")?;
    for (reason, failure) in failures {
        writeln!(
            f,
            "  {reason}: {} records in {} requests",
            failure.records, failure.requests
        )?;
        messages(f, &failure.messages)?;
    }
    Ok(())
}

fn messages(f: &mut fmt::Formatter<'_>, messages: &Messages) -> fmt::Result {
    for message in &messages.0 {
        f.write_str("    ")?;
        // A server's words must not move the cursor.
        for character in message.chars() {
            f.write_char(if character.is_control() {
                ' '
            } else {
                character
            })?;
        }
        f.write_char('\n')?;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1e3)
}

#[cfg(test)]
mod tests;
