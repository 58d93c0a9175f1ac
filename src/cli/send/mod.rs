//! `otlake send`: an OTLP client for trying a server and measuring it.
//!
//! ```text
//! generate: Plan + Catalog -> Encoder -> (json) -> client -> Outcome -> report: Tally -> Report
//! files:    a file's requests ------------------/          \-> a line each
//! ```
//!
//! A closed loop: each connection has one request in flight (over OTAP several batches of each stream), and asks a shared
//! counter for the next one. Nothing is retried; what the server refuses is counted by its reason.

#[doc(hidden)]
pub mod bodies;
mod client;
mod clock;
mod endpoint;
mod files;
mod generate;
mod guess;
mod json;
mod pace;
mod report;
mod streams;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::client::{Client, Encoding, Outcome, Target, pause};
use self::clock::{Clock, unix_nano};
use self::generate::{Catalog, Encoder, Plan, Request};
use self::pace::Pace;
use self::report::{Report, Tally};
use super::args::{SendArgs, SendProtocol, SendSignal};
use super::failure::UsageError;
use super::table;
use crate::otap_producer::PARENTS_MAX;
use crate::signal::{Protocol, Signal};

/// Decides what the generated records say: fixed, so that runs compare.
const SEED: u64 = 0x07_1a_4e;
/// Requests of one connection that may find no server, one after the other, before the run is given up: after some four seconds
/// where nobody listens.
const UNREACHED_MAX: u32 = 10;

/// Runs the command. Success means that everything was acknowledged.
///
/// # Errors
/// When nothing can be sent at all: bad address, no server, bad files.
pub(super) async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    check_protocol(&args)?;
    let complete = if args.files.is_empty() {
        generated(&args).await?
    } else {
        files::send(&args).await?
    };
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Refuses what only OTAP goes by when another protocol is meant: it would be ignored.
fn check_protocol(args: &SendArgs) -> Result<(), UsageError> {
    if args.protocol == SendProtocol::Otap {
        return match usize::try_from(args.batch) {
            Ok(..=PARENTS_MAX) => Ok(()),
            _ => Err(UsageError(format!(
                "--batch {}: a batch of OTAP holds {PARENTS_MAX} records at most",
                args.batch
            ))),
        };
    }
    let given = [
        ("--in-flight", args.in_flight.is_some()),
        ("--arrow-compression", args.arrow_compression.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(UsageError(format!(
            "{flag} is for --protocol otap: add that, or leave {flag} out"
        ))),
        None => Ok(()),
    }
}

/// Sends generated telemetry; says whether all of it was acknowledged.
async fn generated(args: &SendArgs) -> anyhow::Result<bool> {
    let signals = match args.signal {
        None | Some(SendSignal::Logs) => vec![Signal::Logs],
        Some(SendSignal::Traces) => vec![Signal::Traces],
        Some(SendSignal::Metrics) => vec![Signal::Metrics],
        Some(SendSignal::All) => Signal::ALL.to_vec(),
    };
    let plan = Plan::new(args.count, args.batch.into(), signals);
    let target = Target::new(args, transport(args.protocol))?;
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(target.connect().await?);
    }
    let run = random_name();
    let start = Instant::now();
    let (stop, stopped) = watch::channel(None);
    let shared = Arc::new(Shared {
        catalog: Catalog::new(SEED, &run, unix_nano()?),
        encoding: match args.protocol {
            SendProtocol::Grpc | SendProtocol::Http | SendProtocol::Otap => Encoding::Protobuf,
            SendProtocol::HttpJson => Encoding::Json,
        },
        next: AtomicU64::new(0),
        pace: args.rate.map(|rate| Pace::new(start, rate)),
        clock: Clock::new(args.over, plan.records())?,
        progress: progress(plan.records(), args.quiet),
        plan,
        stop,
    });
    let mut connections = JoinSet::new();
    for client in clients {
        connections.spawn(send_all(Arc::clone(&shared), client, stopped.clone()));
    }
    let tally = tokio::select! {
        tally = collect(&mut connections) => tally?,
        signal = tokio::signal::ctrl_c() => {
            signal.context("cannot wait for Ctrl-C")?;
            shared.stop.send_replace(Some("interrupted".to_owned()));
            tokio::select! {
                tally = collect(&mut connections) => tally?,
                // Pressed again: the last answers are not worth waiting for.
                _ = tokio::signal::ctrl_c() => return Ok(false),
            }
        }
    };
    let elapsed = start.elapsed();
    shared.progress.finish_and_clear();
    let report = Report {
        run: &run,
        signals: shared.plan.signals(),
        planned: shared.plan.records(),
        elapsed,
        ended_early: stopped.borrow().clone(),
        hint: target.hint().filter(|_| tally.acknowledged() == 0),
        tally,
    };
    if !(args.quiet && report.is_complete()) {
        table::print(report.to_string().trim_end())?;
    }
    Ok(report.is_complete())
}

/// What all connections share.
struct Shared {
    plan: Plan,
    catalog: Catalog,
    encoding: Encoding,
    /// The request that is taken next.
    next: AtomicU64,
    pace: Option<Pace>,
    clock: Clock,
    progress: ProgressBar,
    /// Why the run ends before its last request, once it does.
    stop: watch::Sender<Option<String>>,
}

/// The counts of all connections, once the last has ended.
async fn collect(connections: &mut JoinSet<anyhow::Result<Tally>>) -> anyhow::Result<Tally> {
    let mut sum = Tally::new();
    while let Some(tally) = connections.join_next().await {
        sum.merge(tally.context("a connection's task failed")??);
    }
    Ok(sum)
}

/// Sends request after request over one connection, until there is no more or the run is stopped.
async fn send_all(
    shared: Arc<Shared>,
    mut client: Client,
    mut stopped: watch::Receiver<Option<String>>,
) -> anyhow::Result<Tally> {
    if let Client::Otap(client) = client {
        return streams::send_all(&shared, client, stopped).await;
    }
    let mut tally = Tally::new();
    let mut writer = Writer::default();
    let mut unreached = 0;
    while stopped.borrow().is_none() {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = shared.plan.request(index) else {
            break;
        };
        if let Some(pace) = shared.pace {
            tokio::select! {
                () = sleep_until(pace.due(request.sent_before)) => {}
                _ = stopped.changed() => break,
            }
        }
        let time = shared.clock.time(&request)?;
        let body = writer.write(&shared.catalog, &request, shared.encoding, time)?;
        let bytes = body.len();
        let sent = Instant::now();
        let outcome = client.send(request.signal, shared.encoding, body).await?;
        let took = sent.elapsed();
        unreached = match outcome {
            Outcome::Unanswered { .. } => unreached + 1,
            _ => 0,
        };
        let pause = match outcome.is_disconnected() {
            true => pause(unreached),
            false => Duration::ZERO,
        };
        tally.count(request.signal, request.records, bytes, took, outcome);
        shared.progress.inc(request.records);
        if unreached == UNREACHED_MAX {
            let why = format!("the server did not answer {UNREACHED_MAX} requests in a row");
            shared.stop.send_replace(Some(why));
        } else if !pause.is_zero() {
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopped.changed() => {}
            }
        }
    }
    Ok(tally)
}

/// Writes the bodies of one connection's requests, in buffers that it keeps.
#[derive(Default)]
struct Writer {
    encoder: Encoder,
    body: BytesMut,
    json: Vec<u8>,
}

impl Writer {
    fn write(
        &mut self,
        catalog: &Catalog,
        request: &Request,
        encoding: Encoding,
        time_unix_nano: u64,
    ) -> anyhow::Result<Bytes> {
        // Once the request before is gone, its memory is taken again.
        self.encoder
            .encode(catalog, request, time_unix_nano, &mut self.body);
        if encoding == Encoding::Json {
            self.json.clear();
            json::write(request.signal, &self.body, &mut self.json)
                .context("generated telemetry is not OTLP")?;
            self.body.clear();
            self.body.put_slice(&self.json);
        }
        Ok(self.body.split().freeze())
    }
}

/// The transport of a choice on the command line.
fn transport(protocol: SendProtocol) -> Protocol {
    match protocol {
        SendProtocol::Grpc | SendProtocol::Otap => Protocol::Grpc,
        SendProtocol::Http | SendProtocol::HttpJson => Protocol::Http,
    }
}

/// A bar on standard error if a person watches, else nothing.
fn progress(records: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {human_pos}/{human_len} records  {per_sec}  {eta} left",
    )
    .expect("the template is fixed and well-formed");
    let bar = ProgressBar::with_draw_target(Some(records), ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Eight hexadecimal digits that name a run.
fn random_name() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string(); // its last half is random
    id.chars().skip(id.len() - 8).collect()
}

#[cfg(test)]
mod tests;
