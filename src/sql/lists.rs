//! `otlp_server_list` and `otlp_seal_list`: names, order and types of the columns are duckdb-otlp's.

use super::control::Control;
use crate::receive::overview::Overview;
use crate::seal::ledger::{Amount, RECENT_SEALS_MAX, SealRecord, SealState, Snapshot, unix_ms};
use crate::signal::{Protocol, Signal, Table};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VARCHAR.
    Text,
    /// UBIGINT.
    Count,
    /// BIGINT.
    Number,
    /// USMALLINT.
    Port,
    /// BOOLEAN.
    Flag,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A count of things.
    Count(u64),
    /// A number with a sign.
    Number(i64),
    /// A port.
    Port(u16),
    /// Yes or no.
    Flag(bool),
    /// NULL.
    Null,
}

impl Cell {
    fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    /// NULL for a text that is empty.
    fn error(text: &str) -> Cell {
        match text {
            "" => Cell::Null,
            text => Cell::text(text),
        }
    }

    /// The time since a moment, milliseconds; NULL for 0, which is no moment.
    fn age(unix: i64, now: i64) -> Cell {
        match unix {
            0 => Cell::Null,
            unix => Cell::Number(now.saturating_sub(unix).max(0)),
        }
    }
}

/// The columns of `otlp_server_list`.
pub const SERVER_COLUMNS: [(&str, Kind); 28] = [
    ("listen_uri", Kind::Text),
    ("listen_url", Kind::Text),
    ("host", Kind::Text),
    ("port", Kind::Port),
    ("schema_name", Kind::Text),
    ("active_requests", Kind::Count),
    ("total_requests", Kind::Count),
    ("total_rows", Kind::Count),
    ("is_listening", Kind::Flag),
    ("last_error", Kind::Text),
    ("catalog_name", Kind::Text),
    ("buffered_rows", Kind::Count),
    ("admitted_bytes", Kind::Count),
    ("seal_target_bytes", Kind::Count),
    ("seal_max_age_ms", Kind::Number),
    ("oldest_buffered_age_ms", Kind::Number),
    ("last_seal_age_ms", Kind::Number),
    ("seals_total", Kind::Count),
    ("committed_rows_total", Kind::Count),
    ("seal_failures_total", Kind::Count),
    ("seal_last_error", Kind::Text),
    ("maintenance_runs_total", Kind::Count),
    ("maintenance_failures_total", Kind::Count),
    ("last_maintenance_age_ms", Kind::Number),
    ("maintenance_last_error", Kind::Text),
    ("buffered_bytes", Kind::Count),
    ("promoted_columns_total", Kind::Count),
    ("transport", Kind::Text),
];

/// The columns of `otlp_seal_list`.
pub const SEAL_COLUMNS: [(&str, Kind); 14] = [
    ("listen_uri", Kind::Text),
    ("seal_sequence", Kind::Count),
    ("started_unix_ms", Kind::Number),
    ("completed_unix_ms", Kind::Number),
    ("duration_ms", Kind::Number),
    ("append_duration_ms", Kind::Number),
    ("commit_duration_ms", Kind::Number),
    ("rows_committed", Kind::Count),
    ("admitted_bytes", Kind::Count),
    ("success", Kind::Flag),
    ("seals_total", Kind::Count),
    ("seal_failures_total", Kind::Count),
    ("committed_rows_total", Kind::Count),
    ("error", Kind::Text),
];

/// One row a listener. What is not the listener's own is the server's, and the same in each row.
pub(super) fn servers(control: &Control) -> Vec<Vec<Cell>> {
    let overview = &control.overview;
    let now = unix_ms();
    let seals = overview.ledger.snapshot();
    let (buffered, _) = overview.queue.buffered();
    let (requests, rows) = requests(overview);
    let in_memory = total(&buffered, |amount| amount.rows) + total(&seals.staging, |a| a.rows);
    let in_memory_bytes =
        total(&buffered, |amount| amount.bytes) + total(&seals.staging, |a| a.bytes);
    let waiting_rows = in_memory + total(&seals.staged, |amount| amount.rows);
    let max_age_ms = i64::try_from(control.seal.max_age.as_millis()).unwrap_or(i64::MAX);
    let is_listening = !control.is_stopping();
    let mut listeners = control.listeners.clone();
    listeners.sort_by_key(|listener| listener.uri().to_string());
    let row = |listener: &super::control::Listener| {
        let uri = listener.uri();
        vec![
            Cell::text(uri.to_string()),
            Cell::text(uri.url(listener.is_tls)),
            Cell::text(&uri.host),
            Cell::Port(uri.port),
            Cell::text(&control.schema),
            Cell::Count(overview.counters.active()),
            Cell::Count(requests),
            Cell::Count(rows),
            Cell::Flag(is_listening),
            Cell::Null,
            Cell::text(&control.lake_name),
            Cell::Count(waiting_rows),
            Cell::Count(overview.budget.reserved()),
            Cell::Count(control.seal.target_bytes),
            Cell::Number(max_age_ms),
            oldest_age(overview, now),
            Cell::age(seals.last_commit_unix_ms, now),
            Cell::Count(seals.committed_seals),
            Cell::Count(total(&seals.committed, |amount| amount.rows)),
            Cell::Count(failures(&seals)),
            // What failed and works again is over.
            Cell::error(if seals.degraded.is_empty() {
                ""
            } else {
                &seals.last_error.message
            }),
            Cell::Count(seals.maintenance_runs),
            Cell::Count(seals.maintenance_failures),
            Cell::age(seals.maintenance_last_unix_ms, now),
            Cell::error(&seals.maintenance_error.message),
            Cell::Count(in_memory_bytes),
            Cell::Count(0),
            Cell::text(listener.transport.name()),
        ]
    };
    listeners.iter().map(row).collect()
}

/// Requests handled since the start, those refused and repeated among them, and the rows that were accepted.
fn requests(overview: &Overview) -> (u64, u64) {
    let mut requests = 0;
    let mut rows = 0;
    for signal in Signal::ALL {
        for protocol in Protocol::ALL {
            let accepted = overview.counters.accepted(signal, protocol);
            requests += accepted.requests + accepted.repeated;
            rows += accepted.rows;
        }
    }
    // Some are refused before it is known what they carry.
    let refused = overview.counters.refused().into_iter();
    requests += refused.map(|(_, refused)| refused.requests).sum::<u64>();
    (requests, rows)
}

/// How long ago the oldest row that is not in the lake yet was received; NULL when all are.
fn oldest_age(overview: &Overview, now: i64) -> Cell {
    let (buffered, age) = overview.queue.buffered();
    let has_rows = total(&buffered, |amount| amount.rows) > 0;
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let recent = overview.ledger.recent(RECENT_SEALS_MAX);
    let waiting = recent
        .iter()
        .filter(|seal| seal.state != SealState::Committed)
        .map(|seal| now.saturating_sub(seal.opened_unix_ms).max(0));
    let oldest = waiting.chain(has_rows.then_some(age_ms)).max();
    oldest.map_or(Cell::Null, Cell::Number)
}

/// One row for each recent seal that is in the lake or was refused by it, the oldest first.
///
/// The running totals are those after the seal, as far as they can be told: failures to write Parquet files are not counted
/// by seal, and so are in every row.
pub(super) fn seals(control: &Control) -> Vec<Vec<Cell>> {
    let ledger = &control.overview.ledger;
    // Newest first: the totals of now are those after the newest.
    let recent = ledger.recent(RECENT_SEALS_MAX);
    let now = ledger.snapshot();
    let mut seals_total = now.committed_seals;
    let mut rows_total = total(&now.committed, |amount| amount.rows);
    let mut failures_total = failures(&now);
    let listener = control.listeners.first();
    let uri = listener.map_or(Cell::Null, |one| Cell::text(one.uri().to_string()));
    let mut rows = Vec::new();
    for seal in &recent {
        let is_committed = seal.state == SealState::Committed;
        if !is_committed && seal.state != SealState::Failing {
            continue;
        }
        let seal_rows = seal.rows.iter().sum::<u64>();
        let totals = [seals_total, failures_total, rows_total].map(Cell::Count);
        rows.push(seal_row(uri.clone(), seal, seal_rows, is_committed, totals));
        let attempts = u64::from(seal.attempts);
        failures_total =
            failures_total.saturating_sub(attempts.saturating_sub(u64::from(is_committed)));
        if is_committed {
            seals_total = seals_total.saturating_sub(1);
            rows_total = rows_total.saturating_sub(seal_rows);
        }
    }
    rows.reverse();
    rows
}

fn seal_row(
    uri: Cell,
    seal: &SealRecord,
    rows: u64,
    is_committed: bool,
    totals: [Cell; 3],
) -> Vec<Cell> {
    let milliseconds = |ms: f64| {
        let duration = std::time::Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        Cell::Number(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    };
    let [seals_total, failures_total, rows_total] = totals;
    let when = |value: i64| {
        if is_committed {
            Cell::Number(value)
        } else {
            Cell::Null
        }
    };
    let took = seal
        .committed_unix_ms
        .saturating_sub(seal.sealed_unix_ms)
        .max(0);
    vec![
        uri,
        Cell::Count(seal.id.0),
        Cell::Number(seal.sealed_unix_ms),
        when(seal.committed_unix_ms),
        when(took),
        milliseconds(seal.stage_ms),
        milliseconds(seal.publish_ms),
        Cell::Count(if is_committed { rows } else { 0 }),
        Cell::Count(if is_committed {
            seal.bytes.iter().sum()
        } else {
            0
        }),
        Cell::Flag(is_committed),
        seals_total,
        failures_total,
        rows_total,
        Cell::error(if is_committed { "" } else { &seal.error }),
    ]
}

fn failures(seals: &Snapshot) -> u64 {
    seals.stage_failures + seals.publish_failures
}

fn total(amounts: &[Amount; Table::ALL.len()], of: impl Fn(&Amount) -> u64) -> u64 {
    amounts.iter().map(of).sum()
}
