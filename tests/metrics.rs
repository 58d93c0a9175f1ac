//! `GET /metrics`: what it says, in which format, to whom; and that docs/METRICS.md and the dashboard say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use http::Method;
use prost::Message as _;

use crate::support::open_metrics::{self, Page};
use crate::support::raw::{EXPORT_LOGS, EXPORT_TRACES, JSON, PROTOBUF, call, frame, refused};
use crate::support::telemetry::{log, logs, span, spans};
use crate::support::{Answer, Server, ServerBuilder, eventually, otlake};

const TOKENS: [(&str, &str, &str); 3] = [
    ("agents", "ingest", "0123456789abcdef-agents"),
    ("board", "query", "0123456789abcdef-board"),
    ("ops", "admin", "0123456789abcdef-ops"),
];

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A server with the three tokens in its folder.
fn with_tokens() -> Server {
    let builder = ServerBuilder::new().args(&["--seal-max-age", "1h"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let lines = TOKENS.map(|(name, role, token)| format!("{name} {role} {token}\n"));
    fs::write(&path, lines.concat()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // It is read at the start; that it is gone later changes nothing.
    let server = builder
        .args(&["--token-file", path.to_str().unwrap()])
        .args(&["--quack-listen", "127.0.0.1:0"])
        .env("OTLAKE_QUACK_TOKEN", crate::support::quack::TOKEN)
        .start();
    drop(folder);
    server
}

async fn get(server: &Server, headers: &[(&str, &str)]) -> Answer {
    server.request(Method::GET, "/metrics", headers, "").await
}

async fn scrape(server: &Server) -> Page {
    let answer = get(server, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    open_metrics::open_metrics(&answer.text())
}

/// Some of everything: accepted over each protocol, refused whole and in part.
async fn use_it(server: &Server, token: &[(&str, &str)]) {
    let two = logs(vec![log("a"), log("b")]).encode_to_vec();
    let with = |more: &[(&'static str, &'static str)]| {
        let all = more.iter().chain(token);
        all.copied().collect::<Vec<_>>()
    };
    let sent = call(server.grpc, EXPORT_LOGS, token, frame(false, &two)).await;
    assert_eq!(sent.status.code(), tonic::Code::Ok);
    for _ in 0..2 {
        let sent = server
            .post(
                "/v1/logs",
                &with(&[("content-type", PROTOBUF)]),
                two.clone(),
            )
            .await;
        assert_eq!(sent.status, 200);
    }
    let mut wrong = span(2);
    wrong.span_id = vec![1, 2, 3].into();
    let spans = spans(vec![span(1), wrong]).encode_to_vec();
    let sent = call(server.grpc, EXPORT_TRACES, token, frame(false, &spans)).await;
    assert_eq!(sent.status.code(), tonic::Code::Ok);
    let broken = server
        .post("/v1/logs", &with(&[("content-type", JSON)]), "{")
        .await;
    assert_eq!(broken.status, 400);
    let nowhere = server
        .post("/", &with(&[("content-type", JSON)]), "{}")
        .await;
    assert_eq!(nowhere.status, 404);
    let url = format!("http://{}", server.grpc);
    let mut send = otlake();
    send.args([
        "send",
        "--protocol",
        "otap",
        "--count",
        "7",
        "--endpoint",
        &url,
    ]);
    if let Some((_, token)) = token.first() {
        send.args(["--token", token]);
    }
    assert!(send.output().unwrap().status.success());
}

fn of<'a>(signal: &'a str, protocol: &'a str) -> [(&'a str, &'a str); 2] {
    [("signal", signal), ("protocol", protocol)]
}

/// Scenario: requests over every protocol, some refused, a flush, and two scrapes.
/// Guarantees: each count is what was sent and what `otlake status` says; what is a histogram counts the same things; rows are
/// in memory before the flush and committed after it.
#[tokio::test]
async fn counts_are_those_of_the_status() {
    let server = Server::start();
    use_it(&server, &[]).await;
    let page = scrape(&server).await;
    let status = server.status().await;
    for signal in &status.signals {
        let labels = of(&signal.signal, &signal.protocol);
        let value = |name| page.value(name, &labels);
        let pairs = [
            ("otlake_requests_total", signal.requests),
            ("otlake_rows_total", signal.accepted_rows),
            ("otlake_received_bytes_total", signal.accepted_bytes),
            ("otlake_repeated_requests_total", signal.repeated_requests),
            ("otlake_answer_duration_seconds_count", signal.requests),
        ];
        for (name, expected) in pairs {
            assert_eq!(value(name), expected as f64, "{name} {labels:?}");
        }
    }
    assert_eq!(page.value("otlake_rows_total", &of("logs", "http")), 4.0);
    assert_eq!(page.value("otlake_rows_total", &of("logs", "otap")), 7.0);
    assert_eq!(page.value("otlake_rows_total", &of("traces", "grpc")), 1.0);
    let refused_as = |signal, reason| {
        [
            ("signal", signal),
            ("protocol", if signal == "traces" { "grpc" } else { "http" }),
            ("reason", reason),
        ]
    };
    let whole = "otlake_refused_requests_total";
    assert_eq!(page.value(whole, &refused_as("logs", "malformed")), 1.0);
    assert_eq!(page.value(whole, &refused_as("-", "unknown_path")), 1.0);
    let alone = "otlake_refused_rows_total";
    assert_eq!(page.value(alone, &refused_as("traces", "bad_span_id")), 1.0);
    assert_eq!(page.find(whole, &refused_as("traces", "bad_span_id")), None);
    assert_eq!(refused(&status, "http", "malformed"), (1, 0));

    assert_eq!(page.sum("otlake_buffered_rows"), 14.0);
    assert_eq!(page.sum("otlake_committed_rows_total"), 0.0);
    let syncs = page.value("otlake_journal_sync_duration_seconds_count", &[]);
    assert!(syncs >= 1.0 && syncs <= status.journal_syncs as f64);
    assert_eq!(server.flush().await, 14);
    eventually("the lake's files being counted", async || {
        scrape(&server).await.sum("otlake_lake_files") >= 2.0
    })
    .await;
    let page = scrape(&server).await;
    assert_eq!(page.sum("otlake_buffered_rows"), 0.0);
    assert_eq!(page.sum("otlake_committed_rows_total"), 14.0);
    for count in [
        "otlake_committed_seals_total",
        "otlake_seal_fill_duration_seconds_count",
        "otlake_seal_stage_duration_seconds_count",
        "otlake_seal_publish_duration_seconds_count",
        "otlake_seal_duration_seconds_count",
        "otlake_ready",
        "otlake_build_info",
    ] {
        let found = page.sum(count);
        assert_eq!(found, 1.0, "{count}");
    }
    let whole = page.value("otlake_seal_duration_seconds_sum", &[]);
    let publish = page.value("otlake_seal_publish_duration_seconds_sum", &[]);
    assert!(publish > 0.0 && whole > 0.0);
    assert!(page.value("otlake_lake_snapshots", &[]) >= 1.0);
    assert!(page.value("otlake_disk_free_bytes", &[]) > 0.0);
    assert!(page.value("otlake_last_commit_timestamp_seconds", &[]) > 1.7e9);
}

/// Scenario: the same server is asked for both formats, by a GET and a HEAD.
/// Guarantees: each is what its specification says, to the letter, with the content type that it has; both say the same.
#[tokio::test]
async fn both_formats_are_to_the_letter() {
    let server = with_tokens();
    let token = ("x-api-key", TOKENS[0].2);
    let board = ("x-api-key", TOKENS[1].2);
    use_it(&server, &[token]).await;
    let open = get(&server, &[board]).await;
    assert_eq!(open.header("content-type"), OPEN_METRICS);
    let page = open_metrics::open_metrics(&open.text());
    let older = get(&server, &[board, ("accept", "text/plain;version=0.0.4")]).await;
    assert_eq!(older.header("content-type"), TEXT);
    let text = open_metrics::prometheus(&older.text());
    assert_eq!(page.sample_names(), text.sample_names());
    for (name, family) in &text.0 {
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            _ if name == "otlake_build_info" => "_info",
            _ => "",
        };
        let same = &page.0[name.strip_suffix(suffix).unwrap()];
        assert_eq!(same.help, family.help);
        assert_eq!(same.samples.len(), family.samples.len(), "{name}");
    }

    let head = server.request(Method::HEAD, "/metrics", &[board], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), OPEN_METRICS);
}

/// Scenario: tokens for each role, a wrong one and none; a page's origin, another host; a method that is not GET.
/// Guarantees: who may ask for the status may read the metrics, nobody else; refusals of them are counted; a token is in none
/// of it, its name is.
#[tokio::test]
async fn who_may_ask_for_the_status_may_read() {
    let server = with_tokens();
    for (name, role, token) in TOKENS {
        let bearer = format!("Bearer {token}");
        let answer = get(&server, &[("authorization", &bearer)]).await;
        let expected = if role == "ingest" { 403 } else { 200 };
        assert_eq!(answer.status, expected, "{name}");
    }
    assert_eq!(get(&server, &[]).await.status, 401);
    assert_eq!(get(&server, &[("x-api-key", "wrong")]).await.status, 401);
    let key = ("x-api-key", TOKENS[2].2);
    let page = [key, ("origin", "https://page.example")];
    assert_eq!(get(&server, &page).await.status, 403);
    let foreign = [key, ("host", "evil.example")];
    assert_eq!(get(&server, &foreign).await.status, 403);
    let posted = server.post("/metrics", &[key], "x").await;
    assert_eq!(posted.status, 405);
    assert_eq!(posted.header("allow"), "GET, HEAD");

    let answer = get(&server, &[key]).await;
    for (_, _, token) in TOKENS {
        assert!(!answer.text().contains(token));
    }
    let page = open_metrics::open_metrics(&answer.text());
    let reason = |reason| {
        let labels = [("signal", "-"), ("protocol", "http"), ("reason", reason)];
        page.value("otlake_refused_requests_total", &labels)
    };
    assert_eq!(reason("unauthenticated"), 2.0);
    assert_eq!(reason("not_permitted"), 1.0);
    assert_eq!(reason("forbidden_origin"), 1.0);
    assert_eq!(reason("forbidden_host"), 1.0);
    let refused = "otlake_token_refused_requests_total";
    let of = |token, reason| page.find(refused, &[("token", token), ("reason", reason)]);
    assert_eq!(of("agents", "not_permitted"), Some(1.0));
    // With the right token: a page's origin, another host. Those are looked at before it.
    assert_eq!(of("ops", "forbidden_origin"), None);
    assert_eq!(page.sum(refused), 1.0);
}

/// Scenario: a request of which a record is refused, one that is refused whole, and one for another role, with their tokens.
/// Guarantees: metrics and status have each by the token's name and its reason, and agree with the counts without names.
#[tokio::test]
async fn refusals_are_counted_by_token_and_reason() {
    let server = with_tokens();
    let (agents, board) = (("x-api-key", TOKENS[0].2), ("x-api-key", TOKENS[1].2));
    use_it(&server, &[agents]).await;
    let message = frame(false, &logs(vec![log("a")]).encode_to_vec());
    let sent = call(server.grpc, EXPORT_LOGS, &[board], message).await;
    assert_eq!(sent.status.code(), tonic::Code::PermissionDenied);
    let page = open_metrics::open_metrics(&get(&server, &[board]).await.text());
    let of = |name: &str, token, reason| {
        let name = format!("otlake_token_refused_{name}_total");
        page.find(&name, &[("token", token), ("reason", reason)])
    };
    assert_eq!(of("requests", "agents", "malformed"), Some(1.0));
    assert_eq!(of("requests", "agents", "unknown_path"), Some(1.0));
    assert_eq!(of("requests", "agents", "bad_span_id"), None);
    assert_eq!(of("rows", "agents", "bad_span_id"), Some(1.0));
    assert_eq!(of("requests", "board", "not_permitted"), Some(1.0));
    for kind in ["requests", "rows"] {
        let (by_token, in_all) = ("otlake_token_refused_", "otlake_refused_");
        let sum = |family| page.sum(&format!("{family}{kind}_total"));
        assert_eq!(sum(by_token), sum(in_all), "{kind}");
    }

    let status = server.status_with(Some(TOKENS[1].2)).await;
    let refusals = |name: &str| {
        let of = status.tokens.iter().find(|token| token.name == name);
        let refusals = of.unwrap().refusals.iter();
        let by_reason = refusals.map(|it| (it.reason.clone(), it.requests, it.rows));
        by_reason.collect::<BTreeSet<_>>()
    };
    let refusal = |reason: &str, requests, rows| (reason.to_owned(), requests, rows);
    let of_agents = [
        refusal("malformed", 1, 0),
        refusal("unknown_path", 1, 0),
        refusal("bad_span_id", 0, 1),
    ];
    assert_eq!(refusals("agents"), BTreeSet::from(of_agents));
    let of_board = [refusal("not_permitted", 1, 0)];
    assert_eq!(refusals("board"), BTreeSet::from(of_board));
}

/// A metric as the document has it, or the server.
type Described = (String, String, BTreeSet<String>);

/// The tables of docs/METRICS.md: name to type, unit and labels.
fn documented() -> BTreeMap<String, Described> {
    let text = fs::read_to_string(docs().join("METRICS.md")).unwrap();
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, unit, labels, meaning, _] = cells[..] else {
            continue;
        };
        let Some(name) = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        assert!(!meaning.is_empty(), "{line}");
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        let described = (kind.to_owned(), unit.to_owned(), labels.collect());
        let before = metrics.insert(name.to_owned(), described);
        assert!(before.is_none(), "{name} is there twice");
    }
    metrics
}

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Scenario: a server that has received, refused and committed, with tokens; and docs/METRICS.md.
/// Guarantees: every metric that the server has is in the document with its type, unit and labels, and the other way round.
#[tokio::test]
async fn the_document_has_what_the_server_has() {
    let server = with_tokens();
    use_it(&server, &[("x-api-key", TOKENS[0].2)]).await;
    let answer = get(&server, &[("x-api-key", TOKENS[1].2)]).await;
    let page = open_metrics::open_metrics(&answer.text());
    let served: BTreeMap<String, Described> = page
        .0
        .iter()
        .map(|(name, family)| {
            let suffix = match family.kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let described = (family.kind.clone(), family.unit.clone(), family.labels());
            (format!("{name}{suffix}"), described)
        })
        .collect();
    let documented = documented();
    assert!(documented.len() > 40);
    for (name, described) in &served {
        assert_eq!(documented.get(name), Some(described), "{name}, served");
    }
    for (name, described) in &documented {
        assert_eq!(served.get(name), Some(described), "{name}, documented");
    }
}

/// The metrics' names in a query.
fn names_in(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("otlake_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// Every query of a dashboard, wherever it stands.
fn queries(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if name == "expr" || name == "query" => {
                        found.push(text.clone());
                    }
                    value => queries(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                queries(item, found);
            }
        }
        _ => {}
    }
}

/// Scenario: docs/grafana-dashboard.json and the alerts of docs/METRICS.md, beside the metrics that are documented.
/// Guarantees: the dashboard can be read, its panels have numbers of their own and lie beside each other; it and the alerts ask
/// for metrics that exist.
#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let mut exist = BTreeSet::new();
    for (name, (kind, _, _)) in documented() {
        if kind == "histogram" {
            exist.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        exist.insert(name);
    }
    let text = fs::read_to_string(docs().join("grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    let asked: BTreeSet<String> = found.iter().flat_map(|query| names_in(query)).collect();
    assert!(asked.len() > 20, "{asked:?}");
    assert!(asked.is_subset(&exist), "{:?}", asked.difference(&exist));

    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        let number = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24, "{panel}");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(
                    places.insert((x, y)),
                    "{} lies over another",
                    panel["title"]
                );
            }
        }
    }

    let document = fs::read_to_string(docs().join("METRICS.md")).unwrap();
    let alerts = document.split("## What to alert on").nth(1).unwrap();
    let asked = names_in(alerts);
    assert!(asked.len() > 5 && asked.is_subset(&exist), "{asked:?}");
}
