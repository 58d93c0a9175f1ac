//! `otlake status`: what the running server has received, refused, buffered and committed.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::args::StatusArgs;
use super::client::{ANSWER_TIMEOUT, Client, Target};
use super::table::{self, ago, bytes, columns, count, counted, facts};
use crate::proto::admin::{
    ClientSeen, Quack, Refusal, SignalStatus, StatusRequest, StatusResponse, TableFiles,
    TokenStatus,
};
use crate::signal::Durability;

/// Runs `otlake status`.
///
/// # Errors
/// One line, when there is no server.
pub(super) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    let mut client = Client::connect(&target, args.client.token.as_ref(), ANSWER_TIMEOUT).await?;
    let status = match client.admin.status(StatusRequest {}).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(client.explain(&status)),
    };
    if args.json {
        table::print(&as_json(&status).to_string())?;
    } else {
        table::print(as_text(&status, SystemTime::now()).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(status: &StatusResponse, now: SystemTime) -> String {
    let mut out = String::new();
    let mut section = |title: &str, body: String| {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}{title}\n{body}"); // Writing to a String cannot fail.
    };
    section(&title(status), facts(&server_facts(status, now)));
    section("Lake", facts(&lake_facts(status, now)));
    section("Received since the start", received(&status.signals));
    if !status.tokens.is_empty() {
        section("Received by token", tokens(&status.tokens));
    }
    section("Refused since the start", refused(&status.refusals));
    if let Some(refused) = refused_by_token(&status.tokens) {
        section("Refused by token", refused);
    }
    section("Tables", tables(&status.tables));
    out
}

fn title(status: &StatusResponse) -> String {
    match status.degraded.as_str() {
        "" => format!("otlake {}: ready", status.version),
        reason => format!("otlake {}: degraded, {reason}", status.version),
    }
}

fn server_facts(status: &StatusResponse, now: SystemTime) -> Vec<(&'static str, String)> {
    let started =
        UNIX_EPOCH + Duration::from_millis(u64::try_from(status.started_unix_ms).unwrap_or(0));
    let up = now.duration_since(started).unwrap_or_default();
    let listeners = status
        .listeners
        .iter()
        .map(|listener| format!("{} {}", listener.protocol, listener.address));
    let transport = match status.transport_security.as_str() {
        "" => "plain HTTP",
        "mtls" => "TLS, and every client shows a certificate",
        _ => "TLS",
    };
    let token = if status.token_required {
        "required"
    } else {
        "not required"
    };
    let mut facts = vec![
        (
            "process",
            format!("{}, up {}", status.pid, table::duration(up)),
        ),
        ("listens", listeners.collect::<Vec<_>>().join(", ")),
        ("transport", transport.to_owned()),
        ("token", token.to_owned()),
    ];
    facts.extend(status.quack.as_ref().map(|quack| ("quack", queries(quack))));
    facts.extend([
        (
            "connections",
            format!(
                "{}, {} open",
                count(status.connections.into()),
                counted(status.otap_streams.into(), "OTAP stream")
            ),
        ),
        (
            "memory",
            format!(
                "{} of {} reserved, oldest row {}",
                bytes(status.buffered_bytes),
                bytes(status.buffered_bytes_max),
                match status.oldest_buffered_age_ms {
                    0 => "none".to_owned(),
                    age_ms => table::duration(Duration::from_millis(age_ms)),
                }
            ),
        ),
        ("durability", status.durability.clone()),
    ]);
    facts.extend(journal(status).map(|text| ("journal", text)));
    facts.push(("disk", disk(status)));
    if status.remembered_requests > 0 {
        let remembered = counted(status.remembered_requests, "request");
        let why = "whose answer may not have reached the client";
        facts.push(("remembered", format!("{remembered} {why}")));
    }
    facts
}

/// Where other DuckDBs query, and what they have asked.
fn queries(quack: &Quack) -> String {
    let refused: u64 = quack.refusals.iter().map(|refusal| refusal.count).sum();
    let run = counted(quack.queries, "statement");
    let open = match quack.sessions {
        Some(open) => format!(", {} open", counted(open, "session")),
        None => String::new(),
    };
    format!(
        "quack:{}, the lake is `{}` there; {run} run, {} refused{open}",
        quack.address,
        quack.lake_name,
        count(refused)
    )
}

/// What the journal takes and what it has cost; `None` when there is none. Without `--durability` journal there can be
/// what is left of one, from a run that had it.
fn journal(status: &StatusResponse) -> Option<String> {
    if status.durability != Durability::Journal.name() && status.journal_segments == 0 {
        return None;
    }
    let (size, segments) = (bytes(status.journal_bytes), status.journal_segments);
    let mut text = format!("{size} in {}", counted(segments, "segment"));
    if status.journal_requests > 0 {
        let requests = counted(status.journal_requests, "request");
        let syncs = counted(status.journal_syncs, "sync");
        text += &format!("; {requests} written in {syncs}");
    }
    Some(text)
}

/// What is used of `--journal-max-bytes`.
fn disk(status: &StatusResponse) -> String {
    let staged = status.tables.iter().map(|table| table.staged_bytes);
    let staged = staged.fold(0, u64::saturating_add);
    let used = bytes(status.journal_bytes.saturating_add(staged));
    let (max, staged) = (bytes(status.disk_bytes_max), bytes(staged));
    let free = match status.disk_free_bytes {
        0 => String::new(),
        free => format!("; {} free", bytes(free)),
    };
    format!("{used} of {max} used, {staged} of it by staged files{free}")
}

fn lake_facts(status: &StatusResponse, now: SystemTime) -> Vec<(&'static str, String)> {
    let last_error = if status.last_error.is_empty() {
        "none".to_owned()
    } else {
        format!(
            "{}: {}",
            ago(status.last_error_unix_ms, now),
            status.last_error
        )
    };
    let runs = counted(status.maintenance_runs, "run");
    let maintenance = match status.maintenance_last_error.as_str() {
        "" => runs,
        error => {
            let when = ago(status.maintenance_last_error_unix_ms, now);
            format!("{runs}, the last attempt failed {when}: {error}")
        }
    };
    vec![
        ("catalog", status.catalog.clone()),
        ("data", status.data_path.clone()),
        ("writer", status.writer_id.clone()),
        (
            "seals",
            format!(
                "{} committed, {} staged and not in the lake yet",
                count(status.committed_seals),
                count(status.staged_seals)
            ),
        ),
        ("last commit", ago(status.last_commit_unix_ms, now)),
        ("last error", last_error),
        ("maintenance", maintenance),
    ]
}

fn received(signals: &[SignalStatus]) -> String {
    let with_repeated = signals.iter().any(|signal| signal.repeated_requests > 0);
    let rows: Vec<_> = signals
        .iter()
        .map(|signal| {
            let mut row = vec![
                signal.signal.clone(),
                signal.protocol.clone(),
                count(signal.requests),
                count(signal.accepted_rows),
                bytes(signal.accepted_bytes),
                count(signal.refused_requests),
                count(signal.refused_rows),
            ];
            row.extend(with_repeated.then(|| count(signal.repeated_requests)));
            row
        })
        .collect();
    let mut header = vec![
        "signal",
        "protocol",
        "requests",
        "rows",
        "bytes",
        "refused requests",
        "records refused alone",
    ];
    header.extend(with_repeated.then_some("repeated requests"));
    columns(&header, &rows, 2)
}

fn tokens(tokens: &[TokenStatus]) -> String {
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            vec![
                token.name.clone(),
                count(token.requests),
                count(token.accepted_rows),
                bytes(token.accepted_bytes),
                count(token.refused_requests),
            ]
        })
        .collect();
    let header = ["token", "requests", "rows", "bytes", "refused requests"];
    columns(&header, &rows, 1)
}

/// Nothing where nothing was refused that showed a token.
fn refused_by_token(tokens: &[TokenStatus]) -> Option<String> {
    let of = |token: &TokenStatus| {
        let refusals = token.refusals.iter();
        let row = refusals.map(|refusal| {
            vec![
                token.name.clone(),
                refusal.reason.clone(),
                count(refusal.requests),
                count(refusal.rows),
            ]
        });
        row.collect::<Vec<_>>()
    };
    let rows: Vec<_> = tokens.iter().flat_map(of).collect();
    let header = ["token", "reason", "requests", "records alone"];
    (!rows.is_empty()).then(|| columns(&header, &rows, 2))
}

fn refused(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "  nothing".to_owned();
    }
    let rows: Vec<_> = refusals
        .iter()
        .map(|refusal| {
            vec![
                refusal.signal.clone(),
                refusal.protocol.clone(),
                refusal.reason.clone(),
                count(refusal.requests),
                count(refusal.rows),
            ]
        })
        .collect();
    columns(
        &["signal", "protocol", "reason", "requests", "records alone"],
        &rows,
        3,
    )
}

fn tables(tables: &[TableFiles]) -> String {
    let rows: Vec<_> = tables
        .iter()
        .map(|table| {
            let amount = |rows, size| [count(rows), bytes(size)];
            let mut row = vec![table.table.clone()];
            row.extend(amount(table.buffered_rows, table.buffered_bytes));
            row.extend(amount(table.staged_rows, table.staged_bytes));
            row.extend(amount(table.committed_rows, table.committed_bytes));
            row.extend(amount(table.files, table.file_bytes));
            row
        })
        .collect();
    let header = [
        "table",
        "buffered",
        "bytes",
        "staged",
        "bytes",
        "committed",
        "bytes",
        "files",
        "bytes",
    ];
    columns(&header, &rows, 1)
}

/// Everything the server said: keys are the proto's, times are RFC 3339 in UTC, what never happened is null.
fn as_json(status: &StatusResponse) -> Value {
    let text_or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "version": status.version,
        "pid": status.pid,
        "writer_id": status.writer_id,
        "started_at": table::utc_json(status.started_unix_ms),
        "ready": status.degraded.is_empty(),
        "degraded": text_or_null(&status.degraded),
        "listeners": status.listeners.iter().map(|listener| json!({
            "protocol": listener.protocol,
            "address": listener.address,
        })).collect::<Vec<_>>(),
        "token_required": status.token_required,
        "transport_security": text_or_null(&status.transport_security),
        "quack": status.quack.as_ref().map(quack_json),
        "clients": status.clients.iter().map(client_json).collect::<Vec<_>>(),
        "tokens": status.tokens.iter().map(token_json).collect::<Vec<_>>(),
        "connections": status.connections,
        "otap_streams": status.otap_streams,
        "catalog": status.catalog,
        "data_path": status.data_path,
        "buffered_bytes": status.buffered_bytes,
        "buffered_bytes_max": status.buffered_bytes_max,
        "oldest_buffered_age_ms": status.oldest_buffered_age_ms,
        "durability": status.durability,
        "journal_bytes": status.journal_bytes,
        "journal_segments": status.journal_segments,
        "disk_bytes_max": status.disk_bytes_max,
        "disk_free_bytes": (status.disk_free_bytes > 0).then_some(status.disk_free_bytes),
        "journal_requests": status.journal_requests,
        "journal_syncs": status.journal_syncs,
        "remembered_requests": status.remembered_requests,
        "staged_seals": status.staged_seals,
        "committed_seals": status.committed_seals,
        "last_commit_at": table::utc_json(status.last_commit_unix_ms),
        "last_error": text_or_null(&status.last_error),
        "last_error_at": table::utc_json(status.last_error_unix_ms),
        "maintenance_runs": status.maintenance_runs,
        "maintenance_last_error": text_or_null(&status.maintenance_last_error),
        "maintenance_last_error_at": table::utc_json(status.maintenance_last_error_unix_ms),
        "signals": status.signals.iter().map(signal_json).collect::<Vec<_>>(),
        "refusals": status.refusals.iter().map(refusal_json).collect::<Vec<_>>(),
        "tables": status.tables.iter().map(table_json).collect::<Vec<_>>(),
    })
}

fn quack_json(quack: &Quack) -> Value {
    json!({
        "address": quack.address,
        "lake_name": quack.lake_name,
        "sessions": quack.sessions,
        "sessions_total": quack.sessions_total,
        "queries": quack.queries,
        "refusals": quack.refusals.iter().map(|refusal| json!({
            "reason": refusal.reason,
            "count": refusal.count,
        })).collect::<Vec<_>>(),
    })
}

fn signal_json(signal: &SignalStatus) -> Value {
    json!({
        "signal": signal.signal,
        "protocol": signal.protocol,
        "requests": signal.requests,
        "accepted_rows": signal.accepted_rows,
        "accepted_bytes": signal.accepted_bytes,
        "refused_requests": signal.refused_requests,
        "refused_rows": signal.refused_rows,
        "repeated_requests": signal.repeated_requests,
    })
}

fn client_json(client: &ClientSeen) -> Value {
    json!({
        "service": client.service,
        "user_agent": client.user_agent,
        "signal": client.signal,
        "protocol": client.protocol,
        "last_at": table::utc_json(client.last_unix_ms),
        "requests": client.requests,
        "rows": client.rows,
    })
}

fn token_json(token: &TokenStatus) -> Value {
    json!({
        "name": token.name,
        "requests": token.requests,
        "accepted_rows": token.accepted_rows,
        "accepted_bytes": token.accepted_bytes,
        "refused_requests": token.refused_requests,
        "refusals": token.refusals.iter().map(|refusal| json!({
            "reason": refusal.reason,
            "requests": refusal.requests,
            "rows": refusal.rows,
        })).collect::<Vec<_>>(),
    })
}

fn refusal_json(refusal: &Refusal) -> Value {
    json!({
        "signal": refusal.signal,
        "protocol": refusal.protocol,
        "reason": refusal.reason,
        "requests": refusal.requests,
        "rows": refusal.rows,
        "last_at": table::utc_json(refusal.last_unix_ms),
        "last_peer": refusal.last_peer,
        "last_user_agent": refusal.last_user_agent,
        "last_token": refusal.last_token,
        "last_message": refusal.last_message,
        "own_requests": refusal.own_requests,
    })
}

fn table_json(table: &TableFiles) -> Value {
    json!({
        "table": table.table,
        "buffered_rows": table.buffered_rows,
        "buffered_bytes": table.buffered_bytes,
        "staged_rows": table.staged_rows,
        "staged_bytes": table.staged_bytes,
        "committed_rows": table.committed_rows,
        "committed_bytes": table.committed_bytes,
        "files": table.files,
        "file_bytes": table.file_bytes,
    })
}

#[cfg(test)]
mod tests;
