//! The server: reached, step by step, and what it says of itself.

use std::time::{Duration, SystemTime};

use http::Uri;

use super::exporter::Facts;
use super::probe;
use super::quack;
use super::refusals;
use super::report::Section;
use crate::cli::args::ClientArgs;
use crate::cli::client::{ANSWER_TIMEOUT, Client, Found, Target};
use crate::cli::table::{ago, bytes, columns, count, counted, duration};
use crate::proto::admin::{StatusRequest, StatusResponse};

/// Less free space than this on the data folder's disk is too little, bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// So much of a bound is too much, in tenths.
const FULL_TENTHS: u64 = 8;

/// Clients that are listed.
const CLIENTS_SHOWN: usize = 20;

/// What was found, and the facts for looking at clients; none when the server does not tell them.
pub(super) async fn look(args: &ClientArgs, target: &Target) -> (Vec<Section>, Option<Facts>) {
    let url = &target.url;
    let mut section = Section::new(format!("Server {url}"));
    let known = known(target);
    let mut client = match Client::connect(target, args.token.as_ref(), ANSWER_TIMEOUT).await {
        Ok(client) => client,
        Err(error) => {
            section.change("it cannot be reached", error.to_string());
            return (vec![section], known);
        }
    };
    section.fine("it can be reached");
    let status = match client.admin.status(StatusRequest {}).await {
        Ok(status) => status.into_inner(),
        Err(status) => {
            let why = client.explain(&status);
            section.change("it does not say how it is", why.to_string());
            return (vec![section], known);
        }
    };
    let now = SystemTime::now();
    let facts = facts(&status, target);
    about(&status, args.token.is_some(), now, &mut section);
    http_port(args, target, &facts, &mut section).await;
    quack::look(status.quack.as_ref(), &facts.host, &mut section).await;
    let mut sections = vec![section, health(&status, now), clients(&status, now)];
    sections.extend(refusals::look(&status, &facts, now));
    (sections, Some(facts))
}

fn host(target: &Target) -> String {
    let url = target.url.parse::<Uri>().ok();
    url.and_then(|url| url.host().map(str::to_owned))
        .unwrap_or_default()
}

/// What the data folder says of a server that runs.
fn known(target: &Target) -> Option<Facts> {
    let Found::Running(file) = &target.found else {
        return None;
    };
    Some(Facts {
        host: host(target),
        grpc_port: file.grpc.port(),
        http_port: file.http.port(),
        wants_token: false,
        speaks_tls: file.tls.is_some(),
    })
}

fn facts(status: &StatusResponse, target: &Target) -> Facts {
    let port = |protocol: &str| {
        let listener = status
            .listeners
            .iter()
            .find(|listener| listener.protocol == protocol);
        let address = listener.and_then(|listener| listener.address.rsplit_once(':'));
        address
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or_default()
    };
    Facts {
        host: host(target),
        grpc_port: port("grpc"),
        http_port: port("http"),
        wants_token: status.token_required,
        speaks_tls: !status.transport_security.is_empty(),
    }
}

fn about(status: &StatusResponse, has_token: bool, now: SystemTime, section: &mut Section) {
    let started = u64::try_from(status.started_unix_ms).unwrap_or(0);
    let up = now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_millis(started));
    section.fine(format!(
        "otlake {}, process {}, up {}",
        status.version,
        status.pid,
        duration(up.unwrap_or_default())
    ));
    if status.version != env!("CARGO_PKG_VERSION") {
        section.note(format!(
            "this command is of otlake {}",
            env!("CARGO_PKG_VERSION")
        ));
    }
    match status.transport_security.as_str() {
        "" if is_reachable_by_others(status) => section.change(
            "it listens without TLS on an address that others can reach: tokens and telemetry can be read on the way",
            "--tls-cert and --tls-key, or a proxy that speaks TLS before it (docs/SECURITY.md)",
        ),
        "" => section.fine("plain HTTP, for this machine alone"),
        "mtls" => section.fine("TLS, and every client shows a certificate"),
        _ => section.fine("TLS"),
    }
    match (status.token_required, has_token) {
        (true, _) => section.fine("the token is taken; clients need one"),
        (false, true) => section.note("a token is given here, and the server asks for none"),
        (false, false) if status.transport_security != "mtls" && is_reachable_by_others(status) => {
            section.change(
                "it asks for no token on an address that others can reach: everyone can send",
                "--token-file (docs/SECURITY.md)",
            );
        }
        (false, false) => section.fine("no token is needed"),
    }
}

fn is_reachable_by_others(status: &StatusResponse) -> bool {
    let addresses = status.listeners.iter().map(|listener| &listener.address);
    let parsed = addresses.map(|address| address.parse::<std::net::SocketAddr>());
    parsed
        .flatten()
        .any(|address| !address.ip().to_canonical().is_loopback())
}

async fn http_port(args: &ClientArgs, target: &Target, facts: &Facts, section: &mut Section) {
    let scheme = if facts.speaks_tls { "https" } else { "http" };
    let base = format!("{scheme}://{}:{}", facts.host, facts.http_port);
    let known = target.known();
    match probe::ready(&base, &args.tls, known.as_ref()).await {
        Ok(()) => section.fine(format!("OTLP/HTTP answers at {base}")),
        Err(error) => section.change(
            "OTLP/HTTP does not answer, OTLP/gRPC does",
            format!("{error}: is port {} let through?", facts.http_port),
        ),
    }
}

fn health(status: &StatusResponse, now: SystemTime) -> Section {
    let mut section = Section::new("Lake, memory and disk");
    match status.degraded.as_str() {
        "" if status.last_commit_unix_ms == 0 => section.fine("the lake is there, nothing was committed yet"),
        "" => section.fine(format!(
            "rows reach the lake; last commit {}",
            ago(status.last_commit_unix_ms, now)
        )),
        why => section.change(
            why,
            "nothing that was acknowledged is lost, and it is tried again: see to the cause, the server's log has more",
        ),
    }
    match status.maintenance_last_error.as_str() {
        "" => section.fine(format!(
            "{} of maintenance",
            counted(status.maintenance_runs, "run")
        )),
        why => section.change(
            format!(
                "maintenance of the lake failed {}: {why}",
                ago(status.maintenance_last_error_unix_ms, now)
            ),
            "see to the cause; without it queries become slow",
        ),
    }
    let staged: u64 = status.tables.iter().map(|table| table.staged_bytes).sum();
    let used = status.journal_bytes.saturating_add(staged);
    let what = format!(
        "journal and staged files take {} of {}",
        bytes(used),
        bytes(status.disk_bytes_max)
    );
    match is_nearly_full(used, status.disk_bytes_max) {
        true => section.change(
            what,
            "bring the lake back, or raise --journal-max-bytes: at the bound requests are refused",
        ),
        false => section.fine(what),
    }
    let what = format!(
        "{} free on the data folder's disk",
        bytes(status.disk_free_bytes)
    );
    match status.disk_free_bytes {
        0 => {}
        1..FREE_BYTES_MIN => {
            section.change(what, "make room: requests are refused before it is full")
        }
        _ => section.fine(what),
    }
    let what = format!(
        "{} of {} of memory reserved",
        bytes(status.buffered_bytes),
        bytes(status.buffered_bytes_max)
    );
    match is_nearly_full(status.buffered_bytes, status.buffered_bytes_max) {
        true => section.note(format!(
            "{what}: it is behind just now, or --max-buffered-bytes is small"
        )),
        false => section.fine(what),
    }
    section
}

fn is_nearly_full(used: u64, max: u64) -> bool {
    used > max / 10 * FULL_TENTHS
}

fn clients(status: &StatusResponse, now: SystemTime) -> Section {
    let mut section = Section::new("Last seen");
    if status.clients.is_empty() {
        section.note("nothing was accepted since the start: try `otlake send`, then look at your clients' settings below");
        return section;
    }
    let rows: Vec<_> = status
        .clients
        .iter()
        .take(CLIENTS_SHOWN)
        .map(|client| {
            let or_dash = |text: &str| match text {
                "" => "-".to_owned(),
                text => text.chars().filter(|c| !c.is_control()).collect(),
            };
            vec![
                or_dash(&client.service),
                or_dash(&client.user_agent),
                client.signal.clone(),
                client.protocol.clone(),
                count(client.rows),
                ago(client.last_unix_ms, now),
            ]
        })
        .collect();
    let header = [
        "service",
        "user agent",
        "signal",
        "protocol",
        "rows",
        "last",
    ];
    section.table = Some(columns(&header, &rows, 4));
    let all = counted(status.clients.len() as u64, "sender");
    let more = status.clients.len().saturating_sub(CLIENTS_SHOWN);
    section.fine(match more {
        0 => format!("{all}, by service, user agent, signal and protocol"),
        more => format!("{all}, of which {more} are not shown"),
    });
    section
}
