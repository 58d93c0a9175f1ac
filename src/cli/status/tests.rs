use super::*;
use crate::proto::admin::{Listener, TokenRefusal};

fn example() -> StatusResponse {
    StatusResponse {
        version: "0.1.0".to_owned(),
        pid: 4242,
        writer_id: "writer-1".to_owned(),
        started_unix_ms: 1_767_225_600_000,
        listeners: vec![
            Listener {
                protocol: "grpc".to_owned(),
                address: "127.0.0.1:4317".to_owned(),
            },
            Listener {
                protocol: "http".to_owned(),
                address: "[::1]:4318".to_owned(),
            },
        ],
        catalog: "sqlite:/d/catalog.sqlite".to_owned(),
        data_path: "/d/lake".to_owned(),
        signals: vec![SignalStatus {
            signal: "logs".to_owned(),
            protocol: "grpc".to_owned(),
            requests: 12,
            accepted_rows: 1_234_567,
            accepted_bytes: 3 << 20,
            refused_requests: 0,
            refused_rows: 2,
            repeated_requests: 0,
        }],
        refusals: vec![Refusal {
            signal: "logs".to_owned(),
            protocol: "grpc".to_owned(),
            reason: "bad_span_id".to_owned(),
            requests: 0,
            rows: 2,
            ..Refusal::default()
        }],
        buffered_bytes: 1536,
        buffered_bytes_max: 512 << 20,
        oldest_buffered_age_ms: 1200,
        committed_seals: 17,
        last_commit_unix_ms: 1_767_225_690_000,
        tables: vec![TableFiles {
            table: "otlp_logs".to_owned(),
            committed_rows: 1_234_567,
            committed_bytes: 60 << 20,
            files: 3,
            file_bytes: 61 << 20,
            ..TableFiles::default()
        }],
        maintenance_runs: 3,
        connections: 2,
        otap_streams: 1,
        durability: "journal".to_owned(),
        journal_bytes: 1536 << 10,
        journal_segments: 2,
        disk_bytes_max: 8 << 30,
        journal_requests: 1000,
        journal_syncs: 120,
        ..StatusResponse::default()
    }
}

const TEXT: &str = "\
otlake 0.1.0: ready
  process      4242, up 1m 40s
  listens      grpc 127.0.0.1:4317, http [::1]:4318
  transport    plain HTTP
  token        not required
  connections  2, 1 OTAP stream open
  memory       1.5 KiB of 512.0 MiB reserved, oldest row 1s
  durability   journal
  journal      1.5 MiB in 2 segments; 1,000 requests written in 120 syncs
  disk         1.5 MiB of 8.0 GiB used, 0 B of it by staged files

Lake
  catalog      sqlite:/d/catalog.sqlite
  data         /d/lake
  writer       writer-1
  seals        17 committed, 0 staged and not in the lake yet
  last commit  10s ago
  last error   none
  maintenance  3 runs

Received since the start
  signal  protocol  requests       rows    bytes  refused requests  records refused alone
  logs    grpc            12  1,234,567  3.0 MiB                 0                      2

Refused since the start
  signal  protocol  reason       requests  records alone
  logs    grpc      bad_span_id         0              2

Tables
  table      buffered  bytes  staged  bytes  committed     bytes  files     bytes
  otlp_logs         0    0 B       0    0 B  1,234,567  60.0 MiB      3  61.0 MiB
";

/// Scenario: a server that is well, a hundred seconds after its start.
/// Guarantees: the sections as docs show them.
#[test]
fn the_text_has_all_sections() {
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_700);
    assert_eq!(as_text(&example(), now), TEXT);
}

/// Scenario: a server whose lake cannot be written.
/// Guarantees: the first line says so, and the last error and its age are shown, that of maintenance too.
#[test]
fn trouble_is_in_the_first_line() {
    let status = StatusResponse {
        degraded: "rows are not reaching the lake".to_owned(),
        last_error: "disk full".to_owned(),
        last_error_unix_ms: 1_767_225_695_000,
        maintenance_runs: 1,
        maintenance_last_error: "no folder".to_owned(),
        maintenance_last_error_unix_ms: 1_767_225_692_000,
        refusals: Vec::new(),
        ..example()
    };
    let text = as_text(&status, UNIX_EPOCH + Duration::from_secs(1_767_225_700));
    assert!(text.starts_with("otlake 0.1.0: degraded, rows are not reaching the lake\n"));
    assert!(text.contains("last error   5s ago: disk full\n"));
    assert!(text.contains("maintenance  1 run, the last attempt failed 8s ago: no folder\n"));
    assert!(text.contains("Refused since the start\n  nothing\n"));
}

/// Scenario: answers without a journal: none there, and one left by an earlier run.
/// Guarantees: a journal is told of only where there is one; staged files count against the disk space in any case.
#[test]
fn without_a_journal_none_is_shown() {
    let mut status = StatusResponse {
        durability: "memory".to_owned(),
        journal_bytes: 0,
        journal_segments: 0,
        journal_requests: 0,
        ..example()
    };
    status.tables[0].staged_bytes = 3 << 20;
    assert_eq!(journal(&status), None);
    let used = |used| format!("{used} of 8.0 GiB used, 3.0 MiB of it by staged files");
    assert_eq!(disk(&status), used("3.0 MiB"));
    status.journal_bytes = 1 << 20;
    status.journal_segments = 1;
    assert_eq!(journal(&status).unwrap(), "1.0 MiB in 1 segment");
    assert_eq!(disk(&status), used("4.0 MiB"));
}

/// Scenario: requests are remembered, and some have been repeated.
/// Guarantees: both are shown then; without them neither line nor column is there.
#[test]
fn repeated_requests_are_shown_when_there_are_any() {
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_700);
    let mut status = example();
    for word in ["remembered", "repeated"] {
        assert!(!as_text(&status, now).contains(word), "{word}");
    }
    status.remembered_requests = 1;
    status.signals[0].repeated_requests = 1234;
    let text = as_text(&status, now);
    for part in [
        "  remembered   1 request whose answer may not have reached the client\n",
        "  records refused alone  repeated requests\n",
        "                      2              1,234\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// Scenario: two tokens, of which one had requests and records refused.
/// Guarantees: the text has its name with each reason, and so has the JSON; where nothing was refused there is no such section.
#[test]
fn refusals_are_shown_by_token() {
    let token = |name: &str, refusals| TokenStatus {
        name: name.to_owned(),
        requests: 12,
        refusals,
        ..TokenStatus::default()
    };
    let refusal = |reason: &str, requests, rows| TokenRefusal {
        reason: reason.to_owned(),
        requests,
        rows,
    };
    let refusals = vec![
        refusal("not_permitted", 1234, 0),
        refusal("bad_span_id", 0, 2),
    ];
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_700);
    let mut status = StatusResponse {
        tokens: vec![token("agents", refusals), token("board", Vec::new())],
        ..example()
    };
    let shown = "\
Refused by token
  token   reason         requests  records alone
  agents  not_permitted     1,234              0
  agents  bad_span_id           0              2

Tables
";
    let text = as_text(&status, now);
    assert!(text.contains(shown), "{text}");
    let tokens = as_json(&status)["tokens"].clone();
    let expected = json!({"reason": "bad_span_id", "requests": 0, "rows": 2});
    assert_eq!(tokens[0]["refusals"][1], expected);
    assert_eq!(tokens[1]["refusals"], json!([]));
    status.tokens[0].refusals.clear();
    assert!(!as_text(&status, now).contains("Refused by token"));
}

/// Scenario: the same as JSON.
/// Guarantees: numbers are numbers, times are RFC 3339, what never happened is null.
#[test]
fn json_has_everything() {
    let value = as_json(&example());
    assert_eq!(value["started_at"], "2026-01-01T00:00:00.000Z");
    assert_eq!(value["ready"], true);
    assert_eq!(value["degraded"], Value::Null);
    assert_eq!(value["last_error_at"], Value::Null);
    assert_eq!(value["signals"][0]["accepted_rows"], 1_234_567);
    assert_eq!(value["refusals"][0]["reason"], "bad_span_id");
    assert_eq!(value["tables"][0]["file_bytes"], 61 << 20);
    assert_eq!(value["signals"][0]["repeated_requests"], 0);
    assert_eq!(value["durability"], "journal");
    for (key, number) in [
        ("journal_bytes", 1536 << 10),
        ("journal_segments", 2),
        ("disk_bytes_max", 8_u64 << 30),
        ("journal_requests", 1000),
        ("journal_syncs", 120),
        ("remembered_requests", 0),
    ] {
        assert_eq!(value[key], number, "{key}");
    }
    assert_eq!(value["listeners"][1]["address"], "[::1]:4318");
}
