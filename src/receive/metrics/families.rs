//! Every family, in the order of docs/METRICS.md; a test holds the two together.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;

use super::page::{Family, Page};
use super::process;
use crate::receive::overview::{JournalStatus, Overview};
use crate::seal::ledger::Snapshot;
use crate::signal::{Protocol, Signal, Table};
use crate::telemetry::{Accepted, Reason, Refused};

/// Writes the whole page.
pub(super) fn write(overview: &Overview, encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let mut page = Page::new(encoder);
    let seals = overview.ledger.snapshot();
    let journal = (overview.journal_status)();
    received(&mut page, overview)?;
    refused(&mut page, overview)?;
    tokens(&mut page, overview)?;
    connections(&mut page, overview, &journal)?;
    queries(&mut page, overview)?;
    buffered(&mut page, overview, &seals)?;
    journaled(&mut page, &journal)?;
    staged(&mut page, &seals)?;
    sealed(&mut page, overview, &seals)?;
    lake(&mut page, &seals)?;
    maintained(&mut page, &seals)?;
    server(&mut page, overview)
}

/// A moment, as the time since the Unix epoch.
fn moment(unix_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0))
}

fn received(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let counters = &overview.counters;
    let pairs = || {
        let signals = Signal::ALL.into_iter();
        signals.flat_map(|signal| Protocol::ALL.map(|protocol| (signal, protocol)))
    };
    let labels = |signal: Signal, protocol: Protocol| {
        [("signal", signal.name()), ("protocol", protocol.name())]
    };
    let accepted: Vec<_> = pairs()
        .map(|(signal, protocol)| {
            (
                labels(signal, protocol),
                counters.accepted(signal, protocol),
            )
        })
        .collect();
    let each = |count: fn(&Accepted) -> u64| {
        let samples = accepted.iter();
        samples.map(move |(labels, accepted)| (*labels, count(accepted)))
    };
    page.counters(
        Family::plain(
            "otlake_requests",
            "Requests accepted, partly refused ones included; over OTAP, batches.",
        ),
        each(|accepted| accepted.requests),
    )?;
    page.counters(
        Family::plain("otlake_rows", "Rows accepted."),
        each(|accepted| accepted.rows),
    )?;
    page.counters(
        Family::bytes(
            "otlake_received",
            "Bodies of accepted requests, after decompression.",
        ),
        each(|accepted| accepted.bytes),
    )?;
    page.counters(
        Family::plain(
            "otlake_repeated_requests",
            "Retries of requests that were kept already: answered as success, not stored again.",
        ),
        each(|accepted| accepted.repeated),
    )?;
    page.histograms(
        Family::seconds(
            "otlake_answer_duration",
            "From a request's whole body to its answer, where it was accepted.",
        ),
        pairs().map(|(signal, protocol)| {
            (labels(signal, protocol), counters.answers(signal, protocol))
        }),
    )
}

fn refused(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let refused = overview.counters.refused();
    let each = |of_rows: bool| {
        let counts = refused
            .iter()
            .map(move |((signal, protocol, reason), refused)| {
                let labels = [
                    ("signal", signal.map_or("-", Signal::name)),
                    ("protocol", protocol.name()),
                    ("reason", reason.name()),
                ];
                (
                    labels,
                    if of_rows {
                        refused.rows
                    } else {
                        refused.requests
                    },
                )
            });
        counts.filter(|(_, count)| *count > 0)
    };
    page.counters(
        Family::plain("otlake_refused_requests", "Requests refused whole."),
        each(false),
    )?;
    page.counters(
        Family::plain(
            "otlake_refused_rows",
            "Records refused alone, in requests that were otherwise accepted.",
        ),
        each(true),
    )
}

fn tokens(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let tokens = overview.counters.tokens();
    let each = |count: fn(&Accepted) -> u64| {
        let samples = tokens.iter();
        samples.map(move |token| ([("token", token.name())], count(&token.counted())))
    };
    page.counters(
        Family::plain(
            "otlake_token_requests",
            "Requests accepted that showed the token.",
        ),
        each(|counted| counted.requests),
    )?;
    page.counters(
        Family::plain(
            "otlake_token_rows",
            "Rows of requests that showed the token.",
        ),
        each(|counted| counted.rows),
    )?;
    page.counters(
        Family::bytes(
            "otlake_token_received",
            "Bodies of accepted requests that showed the token, after decompression.",
        ),
        each(|counted| counted.bytes),
    )?;
    let refused: Vec<_> = tokens
        .iter()
        .flat_map(|token| {
            let labels = |reason: Reason| [("token", token.name()), ("reason", reason.name())];
            let refused = token.refused().into_iter();
            refused.map(move |(reason, refused)| (labels(reason), refused))
        })
        .collect();
    let each = |count: fn(&Refused) -> u64| {
        let samples = refused.iter();
        let samples = samples.map(move |(labels, refused)| (*labels, count(refused)));
        samples.filter(|(_, count)| *count > 0)
    };
    page.counters(
        Family::plain(
            "otlake_token_refused_requests",
            "Requests refused whole that showed the token.",
        ),
        each(|refused| refused.requests),
    )?;
    page.counters(
        Family::plain(
            "otlake_token_refused_rows",
            "Records refused alone, in requests that showed the token and were otherwise accepted.",
        ),
        each(|refused| refused.rows),
    )
}

fn connections(page: &mut Page<'_>, overview: &Overview, journal: &JournalStatus) -> fmt::Result {
    let count = |open: &std::sync::atomic::AtomicUsize| open.load(Ordering::Relaxed) as u64;
    page.gauge(
        Family::plain("otlake_connections", "Open connections."),
        count(&overview.connections),
    )?;
    page.gauge(
        Family::plain(
            "otlake_connections_limit",
            "How many there may be: --max-connections.",
        ),
        overview.identity.connections_max as u64,
    )?;
    page.gauge(
        Family::plain("otlake_otap_streams", "Open OTAP streams."),
        count(&overview.otap_streams),
    )?;
    page.gauge(
        Family::plain(
            "otlake_remembered_requests",
            "Requests remembered because their answer may not have reached the client.",
        ),
        journal.remembered,
    )
}

/// What comes over quack; nothing where it is not let in.
fn queries(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    if overview.identity.quack.is_none() {
        return Ok(());
    }
    let queries = &overview.queries;
    page.gauges(
        Family::plain("otlake_quack_sessions", "Open sessions of other DuckDBs."),
        queries.open_sessions().map(|open| ([], open)),
    )?;
    page.counter(
        Family::plain(
            "otlake_quack_sessions_opened",
            "Sessions of other DuckDBs that were let in.",
        ),
        queries.sessions_total(),
    )?;
    page.counter(
        Family::plain(
            "otlake_quack_queries",
            "Statements of other DuckDBs that were run.",
        ),
        queries.run_total(),
    )?;
    let refused = queries.refused().into_iter();
    page.counters(
        Family::plain(
            "otlake_quack_refused",
            "Sessions and statements of other DuckDBs that were refused.",
        ),
        refused.map(|(reason, count)| ([("reason", reason.name())], count)),
    )
}

fn buffered(page: &mut Page<'_>, overview: &Overview, seals: &Snapshot) -> fmt::Result {
    page.gauge(
        Family::bytes(
            "otlake_memory_reserved",
            "Memory reserved for everything between receipt and the staged file.",
        ),
        overview.budget.reserved(),
    )?;
    page.gauge(
        Family::bytes(
            "otlake_memory_limit",
            "How much there may be: --max-buffered-bytes.",
        ),
        overview.budget.limit(),
    )?;
    let (open, oldest) = overview.queue.buffered();
    // Until the whole seal is on disk its rows are in memory.
    let both = || Table::ALL.into_iter().zip(open).zip(seals.staging);
    page.gauges(
        Family::plain(
            "otlake_buffered_rows",
            "Rows in memory, until their seal is staged.",
        ),
        both().map(|((table, open), staging)| (of(table), open.rows + staging.rows)),
    )?;
    page.gauges(
        Family::bytes("otlake_buffered", "Memory that these rows take."),
        both().map(|((table, open), staging)| (of(table), open.bytes + staging.bytes)),
    )?;
    page.gauge_of_time(
        Family::seconds(
            "otlake_buffered_oldest_age",
            "Age of the oldest row that is in no seal; 0 when there is none.",
        ),
        oldest,
    )
}

/// The label that names a table.
fn of(table: Table) -> [(&'static str, &'static str); 1] {
    [("table", table.name())]
}

fn journaled(page: &mut Page<'_>, journal: &JournalStatus) -> fmt::Result {
    page.gauge(
        Family::bytes("otlake_journal", "The journal's files."),
        journal.journal_bytes,
    )?;
    page.gauge(
        Family::plain("otlake_journal_segments", "How many files those are."),
        journal.journal_segments,
    )?;
    page.counter(
        Family::plain(
            "otlake_journal_requests",
            "Requests written to the journal.",
        ),
        journal.requests,
    )?;
    page.histograms(
        Family::seconds(
            "otlake_journal_sync_duration",
            "Syncs of the journal, which requests share.",
        ),
        [([], journal.syncs)],
    )?;
    page.gauge(
        Family::bytes(
            "otlake_disk_limit",
            "What journal and staged files may take together: --journal-max-bytes.",
        ),
        journal.disk_bytes_max,
    )?;
    page.gauges(
        Family::bytes(
            "otlake_disk_free",
            "Free space on the disk of the data folder.",
        ),
        journal.disk_free_bytes.map(|free| ([], free)),
    )
}

fn staged(page: &mut Page<'_>, seals: &Snapshot) -> fmt::Result {
    page.gauge(
        Family::plain(
            "otlake_staged_seals",
            "Seals on disk that are not in the lake yet.",
        ),
        seals.staged_seals,
    )?;
    let each = || Table::ALL.into_iter().zip(seals.staged);
    page.gauges(
        Family::plain("otlake_staged_rows", "Their rows."),
        each().map(|(table, staged)| (of(table), staged.rows)),
    )?;
    page.gauges(
        Family::bytes("otlake_staged", "Their Parquet files."),
        each().map(|(table, staged)| (of(table), staged.bytes)),
    )
}

fn sealed(page: &mut Page<'_>, overview: &Overview, seals: &Snapshot) -> fmt::Result {
    let took = overview.ledger.latencies();
    page.histograms(
        Family::seconds(
            "otlake_seal_fill_duration",
            "From the receipt of a seal's oldest row until it was cut.",
        ),
        [([], took.fill)],
    )?;
    page.histograms(
        Family::seconds(
            "otlake_seal_stage_duration",
            "Writing a seal to Parquet, synced.",
        ),
        [([], took.stage)],
    )?;
    page.histograms(
        Family::seconds(
            "otlake_seal_publish_duration",
            "The lake's transaction of a seal, the attempt that succeeded.",
        ),
        [([], took.publish)],
    )?;
    page.histograms(
        Family::seconds(
            "otlake_seal_duration",
            "From the receipt of a seal's oldest row until it was in the lake.",
        ),
        [([], took.total)],
    )?;
    page.counters(
        Family::plain(
            "otlake_seal_failures",
            "Attempts to stage or publish a seal that failed; they are repeated.",
        ),
        [
            ([("step", "stage")], seals.stage_failures),
            ([("step", "publish")], seals.publish_failures),
        ],
    )
}

fn lake(page: &mut Page<'_>, seals: &Snapshot) -> fmt::Result {
    page.counter(
        Family::plain("otlake_committed_seals", "Seals committed to the lake."),
        seals.committed_seals,
    )?;
    let committed = || Table::ALL.into_iter().zip(seals.committed);
    page.counters(
        Family::plain("otlake_committed_rows", "Their rows."),
        committed().map(|(table, committed)| (of(table), committed.rows)),
    )?;
    page.counters(
        Family::bytes("otlake_committed", "Their Parquet files."),
        committed().map(|(table, committed)| (of(table), committed.bytes)),
    )?;
    page.gauge_of_time(
        Family::seconds(
            "otlake_last_commit_timestamp",
            "When the last seal was committed, as Unix time; 0 before the first.",
        ),
        moment(seals.last_commit_unix_ms),
    )?;
    let files = || Table::ALL.into_iter().zip(seals.files);
    page.gauges(
        Family::plain("otlake_lake_files", "Live data files in the lake."),
        files().map(|(table, files)| (of(table), files.files)),
    )?;
    page.gauges(
        Family::bytes("otlake_lake", "Their size."),
        files().map(|(table, files)| (of(table), files.bytes)),
    )?;
    page.gauge(
        Family::plain("otlake_lake_snapshots", "Snapshots that the lake keeps."),
        seals.lake_snapshots,
    )
}

fn maintained(page: &mut Page<'_>, seals: &Snapshot) -> fmt::Result {
    page.counter(
        Family::plain("otlake_maintenance_runs", "Runs of maintenance that ended."),
        seals.maintenance_runs,
    )?;
    page.counter(
        Family::plain(
            "otlake_maintenance_failures",
            "Steps of maintenance that failed; they are repeated.",
        ),
        seals.maintenance_failures,
    )?;
    page.gauge(
        Family::plain(
            "otlake_maintenance_failing",
            "1 while the last step of maintenance has failed, else 0.",
        ),
        u64::from(!seals.maintenance_error.message.is_empty()),
    )?;
    page.counter(
        Family::plain(
            "otlake_maintenance_merged_files",
            "Files that merges have replaced.",
        ),
        seals.merged_files,
    )?;
    page.gauge_of_time(
        Family::seconds(
            "otlake_maintenance_last_run_timestamp",
            "When the last run ended, as Unix time; 0 before the first.",
        ),
        moment(seals.maintenance_last_unix_ms),
    )
}

fn server(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    page.gauge(
        Family::plain("otlake_ready", "1 when /readyz says ready, else 0."),
        u64::from(overview.readiness.trouble().is_none()),
    )?;
    page.gauge(
        Family::plain("otlake_tails", "otlake tail commands that watch."),
        overview.tails.open() as u64,
    )?;
    page.counter(
        Family::plain(
            "otlake_tail_skipped_records",
            "Records that came faster than a tail could take them, and were left out of it.",
        ),
        overview.tails.skipped(),
    )?;
    page.info(
        Family::plain(
            "otlake_build",
            "The version that runs, and the commit it was made from.",
        ),
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("OTLAKE_COMMIT")),
        ],
    )?;
    page.gauge_of_time(
        Family::seconds(
            "process_start_time",
            "When the server was started, as Unix time.",
        ),
        moment(overview.identity.started_unix_ms),
    )?;
    page.counter_of_time(
        Family::seconds(
            "process_cpu",
            "Processor time of the process, user and system.",
        ),
        process::cpu_time(),
    )?;
    page.gauges(
        Family::bytes(
            "process_resident_memory",
            "Memory of the process that is in RAM.",
        ),
        process::resident_bytes().map(|bytes| ([], bytes)),
    )?;
    page.gauges(
        Family::plain(
            "process_open_fds",
            "Files and sockets that the process has open.",
        ),
        process::open_fds().map(|open| ([], open)),
    )?;
    page.gauges(
        Family::plain("process_max_fds", "How many it may have open."),
        process::max_fds().map(|max| ([], max)),
    )
}
