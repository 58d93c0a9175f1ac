//! What the server has refused since its start, and what to do about it: the probable cause first.

use std::time::{Duration, SystemTime};

use super::exporter::Facts;
use super::probe::DOCTOR;
use super::report::Section;
use crate::cli::table::{ago, counted};
use crate::proto::admin::{ClientSeen, Refusal, StatusResponse};

/// A refusal this long ago may well be settled.
const RECENT: Duration = Duration::from_secs(600);

/// Reasons in the order in which a request meets them: who has the wrong port meets nothing else, and who has no token is
/// not told of its body. Others come last.
const FIRST: [&str; 10] = [
    "tls_handshake",
    "wrong_protocol",
    "forbidden_host",
    "forbidden_origin",
    "unknown_path",
    "wrong_method",
    "unauthenticated",
    "not_permitted",
    "unsupported_media_type",
    "unsupported_compression",
];

/// What was refused; none where nothing was.
pub(super) fn look(status: &StatusResponse, facts: &Facts, now: SystemTime) -> Option<Section> {
    let mut section = Section::new("Refused");
    let rank = |refusal: &&Refusal| {
        let place = FIRST.iter().position(|reason| *reason == refusal.reason);
        place.unwrap_or(FIRST.len())
    };
    let mut refusals: Vec<&Refusal> = status.refusals.iter().collect();
    refusals.sort_by_key(rank);
    for refusal in &refusals {
        let requests = refusal.requests.saturating_sub(refusal.own_requests);
        if requests > 0 || refusal.rows > 0 {
            of_clients(refusal, requests, status, facts, now, &mut section);
        }
    }
    for refusal in refusals {
        let is_own = refusal.own_requests > 0 && refusal.own_requests == refusal.requests;
        // What this command was refused a moment ago it tells by itself.
        if is_own && !refusal.last_user_agent.starts_with(DOCTOR) {
            let what = told(refusal, refusal.own_requests, now);
            section.note(format!("otlake's own commands, no client: {what}"));
        }
    }
    (!section.findings.is_empty()).then_some(section)
}

fn of_clients(
    refusal: &Refusal,
    requests: u64,
    status: &StatusResponse,
    facts: &Facts,
    now: SystemTime,
    section: &mut Section,
) {
    let what = told(refusal, requests, now);
    let age = u64::try_from(refusal.last_unix_ms).map(Duration::from_millis);
    let age = age.map(|at| {
        now.duration_since(SystemTime::UNIX_EPOCH + at)
            .unwrap_or_default()
    });
    let is_recent = age.is_ok_and(|age| age < RECENT);
    if requests == 0 {
        section.note(format!("{what} -- {}", advice(refusal, facts)));
    } else if !is_recent {
        section.note(what);
    } else if is_settled(refusal, &status.clients) {
        section.note(format!("{what} -- it was accepted since"));
    } else {
        section.change(what, advice(refusal, facts));
    }
}

/// What was refused, of clients where they are among those; `requests` are theirs.
fn told(refusal: &Refusal, requests: u64, now: SystemTime) -> String {
    let amount = match (requests, refusal.rows) {
        (0, rows) => counted(rows, "record"),
        (requests, _) => counted(requests, "request"),
    };
    let mut from = Vec::new();
    if !refusal.last_user_agent.is_empty() {
        from.push(refusal.last_user_agent.clone());
    }
    if !refusal.last_token.is_empty() {
        from.push(format!("token {}", refusal.last_token));
    }
    from.push(refusal.last_peer.clone());
    format!(
        "{}: {amount}, {} over {}, the last {} from {}: {}",
        refusal.reason,
        refusal.signal,
        refusal.protocol,
        ago(refusal.last_unix_ms, now),
        from.join(", "),
        refusal.last_message
    )
}

/// Whether the same client was taken in after it was refused.
fn is_settled(refusal: &Refusal, clients: &[ClientSeen]) -> bool {
    !refusal.last_user_agent.is_empty()
        && clients.iter().any(|client| {
            client.user_agent == refusal.last_user_agent
                && [&client.signal, "-"].contains(&refusal.signal.as_str())
                && client.last_unix_ms > refusal.last_unix_ms
        })
}

/// What to do about a refusal.
fn advice(refusal: &Refusal, facts: &Facts) -> String {
    let is_literal = refusal.last_message.contains("${");
    match (refusal.reason.as_str(), refusal.protocol.as_str()) {
        ("unauthenticated", _) if is_literal => {
            "write the token itself in the client's header (authorization: Bearer TOKEN): its settings are taken as they are, and in a shell ${...} is expanded between double quotes alone"
                .to_owned()
        }
        // What the listener speaks is known, and so is what the client should.
        ("wrong_protocol", protocol) if !refusal.last_message.contains("TLS") => {
            let (spoken, other, right) = match protocol {
                "http" => ("OTLP/HTTP", "OTLP/gRPC", facts.grpc_port),
                _ => ("OTLP/gRPC", "OTLP/HTTP", facts.http_port),
            };
            format!("set the client's port to {right}, which is for {other}, or let it speak {spoken} (OTEL_EXPORTER_OTLP_PROTOCOL)")
        }
        (reason, _) => general_advice(reason).to_owned(),
    }
}

/// What to do about a reason; docs/OPERATIONS.md has more.
fn general_advice(reason: &str) -> &'static str {
    match reason {
        "unauthenticated" => "give the client the token, as authorization: Bearer TOKEN",
        "not_permitted" => "give the client a token that is for this, or change the token file",
        "tls_handshake" => {
            "see the log for which and why: http:// or https://, the issuer, a client certificate"
        }
        "forbidden_origin" => "--cors-origin, if the page may send",
        "forbidden_host" => {
            "write localhost or 127.0.0.1 in the client's endpoint, or use --allowed-host"
        }
        "unknown_path" | "wrong_method" => {
            "correct the client's endpoint: OTEL_EXPORTER_OTLP_ENDPOINT wants no path, a signal's own endpoint the whole path, such as /v1/logs"
        }
        "unsupported_media_type" => "set the client to protobuf or JSON",
        "unsupported_compression" => "set the client's compression to gzip, zstd, deflate or none",
        "wrong_protocol" => "write https:// in the client's endpoint, and do not turn its TLS off",
        "body_too_large" | "rows_too_large" => {
            "let the client send smaller batches, or raise --max-body-bytes"
        }
        "memory_full" => {
            "the lake or the disk is behind, or raise --max-buffered-bytes; clients that can come again"
        }
        "disk_full" => "make room on the disk, or bring the lake back; clients that can come again",
        "journal_failed" => "see the log, look at the disk, and start otlake again",
        "stopping" | "incomplete" => "nothing, if it was once: clients that can come again",
        "malformed" => {
            "the client sends what is no OTLP: is it set to the right protocol and content type?"
        }
        "internal" => "this is a bug in otlake: please report it",
        _ => {
            "the client's records break a rule of docs/TABLES.md; the rest of their requests was kept"
        }
    }
}
