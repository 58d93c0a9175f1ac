//! What `otlake status`, `/metrics` and `otlake doctor` say of the surface for other DuckDBs.

use otlake::proto::admin::Quack;

use crate::doctor::{Machine, assert_change};
use crate::support::open_metrics::{self, Page};
use crate::support::quack::{Client, TOKEN, serve};
use crate::support::{Server, ServerBuilder, eventually, otlake};

async fn scrape(server: &Server) -> Page {
    open_metrics::open_metrics(&server.get("/metrics").await.text())
}

async fn quack(server: &Server) -> Quack {
    server.status().await.quack.unwrap()
}

/// Scenario: queries, some of which DuckDB refuses, a statement that is more than a query, wrong tokens, and a DuckDB that stays
/// attached for a while.
/// Guarantees: status, its text and JSON, and the metrics say where quack listens and count the same; sessions come and go; no
/// token is shown.
#[tokio::test(flavor = "multi_thread")]
async fn queries_are_counted_and_shown() {
    let server = serve(&["--seal-max-age", "1h", "--lake-name", "otel"]);
    let client = Client::of(&server);
    let new = quack(&server).await;
    assert_eq!(new.address, client.quack.to_string());
    assert_eq!(new.lake_name, "otel");
    assert_eq!((new.queries, new.sessions_total), (0, 0));
    assert!(new.refusals.is_empty());

    for _ in 0..3 {
        client.ask("SELECT count(*) FROM otlp_logs");
    }
    client.refusal("SELECT no_such_column FROM otlp_logs", TOKEN);
    client.refusal("DETACH lake", TOKEN);
    for _ in 0..2 {
        client.refusal("SELECT 1", "0123456789abcdef-wrong");
    }
    let asked = quack(&server).await;
    let refusals = asked.refusals.iter();
    let refusals: Vec<_> = refusals.map(|it| (it.reason.as_str(), it.count)).collect();
    assert_eq!(refusals, [("unauthenticated", 2), ("not_permitted", 1)]);
    // Each of these is a session with one statement; what DuckDB finds a mistake in was run all the same.
    assert_eq!((asked.queries, asked.sessions_total), (4, 5));

    let page = scrape(&server).await;
    assert_eq!(page.value("otlake_quack_queries_total", &[]), 4.0);
    assert_eq!(page.value("otlake_quack_sessions_opened_total", &[]), 5.0);
    for (reason, count) in [
        ("unauthenticated", 2.0),
        ("not_permitted", 1.0),
        ("stopping", 0.0),
        ("catalog", 0.0),
    ] {
        let refused = page.value("otlake_quack_refused_total", &[("reason", reason)]);
        assert_eq!(refused, count, "{reason}");
    }

    let before = quack(&server).await.sessions.unwrap();
    let attach = format!(
        "ATTACH 'quack:{}' AS r (TYPE quack, TOKEN '{TOKEN}')",
        client.quack
    );
    client.duckdb.execute_batch(&attach).unwrap();
    assert_eq!(quack(&server).await.sessions, Some(before + 1));
    let open = scrape(&server).await.value("otlake_quack_sessions", &[]);
    assert_eq!(open, (before + 1) as f64);
    client.duckdb.execute_batch("DETACH r").unwrap();
    eventually("the session to go", async || {
        quack(&server).await.sessions == Some(before)
    })
    .await;

    let shown = |args: &[&str]| {
        let mut command = otlake();
        command
            .arg("status")
            .args(args)
            .arg("--data-dir")
            .arg(server.data_dir());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = shown(&[]);
    let place = format!("quack:{}, the lake is `otel` there", client.quack);
    assert!(
        text.contains(&place) && text.contains("3 refused"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&shown(&["--json"])).unwrap();
    assert_eq!(json["quack"]["address"], client.quack.to_string());
    assert_eq!(json["quack"]["refusals"][0]["reason"], "unauthenticated");
    for shown in [text, json.to_string(), server.log()] {
        assert!(
            !shown.contains(TOKEN) && !shown.contains("wrong-"),
            "{shown}"
        );
    }
}

/// Scenario: a server without the surface.
/// Guarantees: neither status nor metrics speak of it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_where_nobody_is_let_in() {
    let server = Server::start();
    assert_eq!(server.status().await.quack, None);
    let page = server.get("/metrics").await.text();
    assert!(!page.contains("quack"), "{page}");
}

/// Scenario: quack on a loopback address, and where others can reach it.
/// Guarantees: the latter is warned about, in the log and in the banner, with what to do instead.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_is_warned_about() {
    for (listen, is_warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let server = ServerBuilder::new()
            .args(&["--quack-listen", listen])
            .env("OTLAKE_QUACK_TOKEN", TOKEN)
            .start();
        let mut banner = String::new();
        eventually("the banner", async || {
            banner = server.banner();
            banner.contains("for those with its token")
        })
        .await;
        let log = server.log();
        for part in [
            "WARN quack listens where others",
            "unencrypted",
            "ssh -L",
            "TLS",
        ] {
            assert_eq!(log.contains(part), is_warned, "{part} in {log}");
        }
        let is_told = banner.contains("PLAIN HTTP: token and answers");
        assert_eq!(is_told, is_warned, "{listen}: {banner}");
        assert!(!log.contains(TOKEN));
    }
}

/// Scenario: a server without the surface; one with it, asked with the right token and a wrong one; one whose surface others can
/// reach.
/// Guarantees: the doctor says whether quack answers and how its token is tried; what was refused is told with what to do; that others
/// can reach it is to be changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_quack() {
    let machine = Machine::new();
    let (text, code) = machine.look(&Server::start(), &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("--quack-listen is not set"), "{text}");

    let server = serve(&[]);
    let client = Client::of(&server);
    client.ask("SELECT 1");
    client.refusal("SELECT 1", "0123456789abcdef-wrong");
    let (text, code) = machine.look(&server, &[]);
    assert_eq!(code, 0, "{text}");
    for part in [
        format!(
            "quack answers at quack:{}; the lake is `lake` there",
            client.quack
        ),
        format!(
            "FROM quack_query('quack:{}', 'FROM otlp_server_list()'",
            client.quack
        ),
        "1 time since the start: the token was wrong".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    assert!(!text.contains(TOKEN), "{text}");

    let server = ServerBuilder::new()
        .args(&["--quack-listen", "0.0.0.0:0"])
        .env("OTLAKE_QUACK_TOKEN", TOKEN)
        .start();
    let port = Client::of(&server).quack.port();
    let everywhere = format!("0.0.0.0:{port}");
    let (text, code) = machine.look(&server, &[]);
    assert_eq!(code, 1, "{text}");
    assert_change(&text, &format!("quack listens at {everywhere}"), "a tunnel");
    assert!(
        text.contains(&format!("quack answers at quack:127.0.0.1:{port}")),
        "{text}"
    );
}
