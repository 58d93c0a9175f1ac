//! Other DuckDBs query the running server, over quack.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use otlake::config::SealConfig;
use otlake::proto::admin::StatusRequest;
use otlake::signal::SealId;
use otlake::sql::control::{Control, Listener};
use otlake::sql::functions;
use otlake::sql::uri::Transport;
use tokio::sync::watch;

use crate::support::load::{logs, spans};
use crate::support::quack::{Client, TOKEN, builder, serve};
use crate::support::request_input::overview;
use crate::support::{Server, ServerBuilder, eventually, query_all, read_log};

/// As duckdb-otlp's users have it, with its ports and a token to be put in.
const FLUSH: &str = "FROM quack_query('quack:localhost:9494', 'SELECT * FROM otlp_flush(''otlp:0.0.0.0:4318'')', token = '...')";
const NEWEST: &str = "FROM quack_query('quack:localhost:9494', $$ SELECT trace_id, name, service_name, duration_time_unix_nano FROM lake.main.otlp_traces ORDER BY start_time_unix_nano DESC LIMIT 20 $$, token = '...')";

/// The rows of two tables and what the seals say they should be, in one look.
const LOOK: &str =
    "SELECT (SELECT count(*) FROM lake.main.otlp_logs), (SELECT count(*) FROM otlp_traces),
    (SELECT coalesce(sum(logs_rows), 0) FROM otlake_seals),
    (SELECT coalesce(sum(traces_rows), 0) FROM otlake_seals)";

/// Scenario: the two statements that duckdb-otlp's users have in their notes, with this server's ports and token in them.
/// Guarantees: they run as they are; the flush waits until its rows can be queried, though the listener is bound to another
/// address than the URI says.
#[tokio::test(flavor = "multi_thread")]
async fn statements_of_duckdb_otlp_run_unchanged() {
    let server = serve(&["--seal-max-age", "1h"]);
    let client = Client::of(&server);
    let put_in = |statement: &str| {
        statement
            .replace(
                "localhost:9494",
                &format!("localhost:{}", client.quack.port()),
            )
            .replace("0.0.0.0:4318", &format!("0.0.0.0:{}", server.http.port()))
            .replace("token = '...'", &format!("token = '{TOKEN}'"))
    };
    let mut traces = server.traces().await;
    for batch in 0..3 {
        let first = batch * 30;
        traces
            .export(spans("shop", first..first + 30))
            .await
            .unwrap();
        let flushed = query_all(&client.duckdb, &put_in(FLUSH));
        let seals = (batch + 1).to_string();
        assert_eq!(flushed, [["sealed", "30", &seals, "NULL"]]);
        let newest = query_all(&client.duckdb, &put_in(NEWEST));
        assert_eq!(newest.len(), 20);
        assert!(newest.iter().all(|row| row[2] == "shop"), "{newest:?}");
        let newest_first =
            "SELECT trace_id FROM otlp_traces ORDER BY start_time_unix_nano DESC LIMIT 1";
        assert_eq!(newest[0][0], server.sql(newest_first)[0][0]);
    }
}

/// Scenario: the columns of each function, asked of DuckDB.
/// Guarantees: names, order and types are duckdb-otlp's.
#[tokio::test(flavor = "multi_thread")]
async fn functions_have_the_columns_of_duckdb_otlp() {
    let server = serve(&["--seal-max-age", "1h"]);
    let client = Client::of(&server);
    let uri = format!("otlp:localhost:{}", server.http.port());
    for (function, columns) in [
        (
            "otlp_server_list()".to_owned(),
            "listen_uri VARCHAR, listen_url VARCHAR, host VARCHAR, port USMALLINT, schema_name VARCHAR, active_requests UBIGINT, \
             total_requests UBIGINT, total_rows UBIGINT, is_listening BOOLEAN, last_error VARCHAR, catalog_name VARCHAR, \
             buffered_rows UBIGINT, admitted_bytes UBIGINT, seal_target_bytes UBIGINT, seal_max_age_ms BIGINT, \
             oldest_buffered_age_ms BIGINT, last_seal_age_ms BIGINT, seals_total UBIGINT, committed_rows_total UBIGINT, \
             seal_failures_total UBIGINT, seal_last_error VARCHAR, maintenance_runs_total UBIGINT, \
             maintenance_failures_total UBIGINT, last_maintenance_age_ms BIGINT, maintenance_last_error VARCHAR, \
             buffered_bytes UBIGINT, promoted_columns_total UBIGINT, transport VARCHAR",
        ),
        (
            "otlp_seal_list()".to_owned(),
            "listen_uri VARCHAR, seal_sequence UBIGINT, started_unix_ms BIGINT, completed_unix_ms BIGINT, duration_ms BIGINT, \
             append_duration_ms BIGINT, commit_duration_ms BIGINT, rows_committed UBIGINT, admitted_bytes UBIGINT, success BOOLEAN, \
             seals_total UBIGINT, seal_failures_total UBIGINT, committed_rows_total UBIGINT, error VARCHAR",
        ),
        (
            format!("otlp_flush('{uri}')"),
            "status VARCHAR, sealed_rows UBIGINT, seals_total UBIGINT, error VARCHAR",
        ),
        (
            format!("otlp_stop('{uri}')"),
            "status VARCHAR, dropped_rows UBIGINT",
        ),
        (
            "otlp_stop()".to_owned(),
            "status VARCHAR, dropped_rows UBIGINT",
        ),
        (
            "otlp_uri_parser('otlp:')".to_owned(),
            "host VARCHAR, port USMALLINT, ipv6 BOOLEAN, url VARCHAR",
        ),
    ] {
        let described = client.ask(&format!("DESCRIBE FROM {function}"));
        let found: Vec<String> = described
            .iter()
            .map(|row| format!("{} {}", row[0], row[1]))
            .collect();
        let wanted: Vec<&str> = columns.split(',').map(str::trim).collect();
        assert_eq!(found, wanted, "{function}");
    }
    let parsed = "SELECT unnest(otlp_uri_parser('otlp:[::1]:99'))";
    let cells = ["::1", "99", "true", "http://[::1]:99"];
    assert_eq!(client.ask(parsed), [cells]);
    assert_eq!(client.ask("FROM otlp_uri_parser('otlp:[::1]:99')"), [cells]);
    let refused = client.refusal("SELECT otlp_uri_parser('http://x')", TOKEN);
    assert!(refused.contains("needs to start with 'otlp:'"), "{refused}");
}

/// Scenario: a new server, then rows that wait, then rows in the lake.
/// Guarantees: there is a row for each listener, with the server's figures in both; what has not happened yet is NULL; every
/// accepted row is either buffered or committed.
#[tokio::test(flavor = "multi_thread")]
async fn lists_say_how_the_server_is() {
    let server = serve(&["--seal-max-age", "1h", "--seal-target-bytes", "1MiB"]);
    let client = Client::of(&server);
    let listeners = client.ask(
        "SELECT listen_uri, listen_url, transport, schema_name, catalog_name, seal_target_bytes, seal_max_age_ms, is_listening
         FROM otlp_server_list() ORDER BY transport",
    );
    let row = |address: SocketAddr, transport: &str| {
        let (uri, url) = (format!("otlp:{address}"), format!("http://{address}"));
        let server = ["main", "lake", "1048576", "3600000", "true"];
        let own = [uri, url, transport.to_owned()].into_iter();
        own.chain(server.map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(
        listeners,
        [row(server.grpc, "grpc"), row(server.http, "http")]
    );
    let figures = "SELECT DISTINCT total_requests, total_rows, buffered_rows, committed_rows_total, seals_total,
         oldest_buffered_age_ms IS NULL, last_seal_age_ms IS NULL, last_error IS NULL AND seal_last_error IS NULL,
         buffered_bytes > 0, active_requests FROM otlp_server_list()";
    let of = |cells: &str| vec![cells.split(' ').map(str::to_owned).collect::<Vec<_>>()];
    assert_eq!(client.ask(figures), of("0 0 0 0 0 true true true false 0"));
    assert!(client.ask("FROM otlp_seal_list()").is_empty());

    let mut logs_client = server.logs().await;
    logs_client.export(logs("shop", 0..7)).await.unwrap();
    assert_eq!(client.ask(figures), of("1 7 7 0 0 false true true true 0"));

    server.flush().await;
    assert_eq!(client.ask(figures), of("1 7 0 7 1 true false true false 0"));
    logs_client.export(logs("shop", 7..10)).await.unwrap();
    server.flush().await;
    let seals = client.ask(
        "SELECT listen_uri, rows_committed, success, seals_total, seal_failures_total, committed_rows_total, error,
             duration_ms = completed_unix_ms - started_unix_ms, admitted_bytes > 0
         FROM otlp_seal_list() ORDER BY seal_sequence",
    );
    let uri = format!("otlp:{}", server.http);
    let first = [
        uri.as_str(),
        "7",
        "true",
        "1",
        "0",
        "7",
        "NULL",
        "true",
        "true",
    ];
    let second = [
        uri.as_str(),
        "3",
        "true",
        "2",
        "0",
        "10",
        "NULL",
        "true",
        "true",
    ];
    assert_eq!(seals, [first, second]);
}

/// Scenario: URIs of this server's, of another one, and texts that are none.
/// Guarantees: either listener's name flushes; another's is answered that there is none, as by duckdb-otlp.
#[tokio::test(flavor = "multi_thread")]
async fn servers_are_known_by_their_uris() {
    let server = serve(&["--seal-max-age", "1h"]);
    let client = Client::of(&server);
    let (http, grpc) = (server.http.port(), server.grpc.port());
    for uri in [
        format!("otlp:127.0.0.1:{http}"),
        format!("otlp://localhost:{grpc}"),
        format!("otap:localhost:{grpc}"),
    ] {
        let flushed = client.ask(&format!("FROM otlp_flush('{uri}')"));
        assert_eq!(flushed, [["sealed", "0", "0", "NULL"]]);
    }
    for uri in [
        format!("otlp:elsewhere:{http}"),
        format!("otap:localhost:{http}"),
        "otlp:127.0.0.1:1".to_owned(),
    ] {
        let none = format!("No server found listening on {uri}");
        let flushed = client.ask(&format!("FROM otlp_flush('{uri}')"));
        assert_eq!(flushed, [[none.as_str(), "0", "0", "NULL"]]);
        let stopped = client.ask(&format!("CALL otlp_stop('{uri}')"));
        assert_eq!(stopped, [[none.as_str(), "0"]]);
    }
    for (uri, why) in [("NULL", "NULL"), ("'http://x'", "needs to start with")] {
        let refused = client.refusal(&format!("FROM otlp_flush({uri})"), TOKEN);
        assert!(refused.contains(why), "{refused}");
    }
}

/// Scenario: a flush while a seal does not get into the lake, whose trouble is known, with a wait that is over soon.
/// Guarantees: the answer is `error` with the reason, and that nothing is lost; the counts are those of what is in the lake.
#[test]
fn a_flush_that_takes_too_long_says_why() {
    let dir = tempfile::TempDir::new().unwrap();
    let (intake, _) = crate::support::kept::intake(1 << 20);
    let overview = overview(dir.path(), &intake, SealId(5));
    overview.ledger.seal_failed("the lake's disk is gone");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let control = Control {
        overview,
        listeners: vec![Listener {
            transport: Transport::Http,
            address: "127.0.0.1:4318".parse().unwrap(),
            is_tls: false,
        }],
        lake_name: "lake".to_owned(),
        schema: "main".to_owned(),
        seal: SealConfig {
            target_bytes: 1 << 20,
            max_age: Duration::from_secs(3600),
        },
        stop: Arc::default(),
        stopping: watch::channel(false).1,
        lost: watch::channel(None).1,
        flush_time_max: Duration::from_millis(10),
        runtime: runtime.handle().clone(),
        stop_called: AtomicBool::new(false),
    };
    let duckdb = duckdb::Connection::open_in_memory().unwrap();
    functions::register(&duckdb, &Arc::new(control)).unwrap();
    let mut rows = query_all(&duckdb, "FROM otlp_flush('otlp:localhost')");
    let error = rows[0].pop().unwrap();
    assert_eq!(rows, [["error", "0", "0"]]);
    for part in [
        "not everything is in the lake after 10ms",
        "nothing is lost",
        "the lake's disk is gone",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

/// Scenario: rows that wait, and the server is stopped over quack: by a listener's name, and by none.
/// Guarantees: the answer comes once the rows are in the lake, and names both listeners; the process ends well.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_answered_once_the_rows_are_in_the_lake() {
    for named in [true, false] {
        let mut server = serve(&["--seal-max-age", "1h"]);
        let client = Client::of(&server);
        server
            .logs()
            .await
            .export(logs("shop", 0..5))
            .await
            .unwrap();
        let uri = format!("'otlp:{}'", server.http);
        let stop = if named { uri } else { String::new() };
        let stopped = client.ask(&format!("FROM otlp_stop({stop})"));
        let mut uris = [server.grpc, server.http].map(|address| format!("otlp:{address}"));
        uris.sort();
        let status = format!("Stopped listening on {}", uris.join(", "));
        assert_eq!(stopped, [[status.as_str(), "0"]]);
        assert!(server.wait().success(), "{}", server.log());
        assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 5);
        assert!(!server.data_dir().join("quack").exists());
    }
}

/// Scenario: wrong tokens, and statements that are more than queries, from a client with the right one.
/// Guarantees: none is run, the log says why without token or statement, and the lake is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn who_queries_can_do_nothing_else() {
    let server = serve(&["--seal-max-age", "1h"]);
    let client = Client::of(&server);
    server
        .logs()
        .await
        .export(logs("shop", 0..5))
        .await
        .unwrap();
    server.flush().await;
    for token in ["wrong", "quack-token-0123456780", "quack-token-01234567890"] {
        let refused = client.refusal("SELECT 1", token);
        assert!(refused.contains("Authentication failed"), "{refused}");
    }
    let database = server.data_dir().join("catalog.sqlite");
    let parquet = server.data_dir().join("lake/main/otlp_logs/*.parquet");
    for statement in [
        "DELETE FROM lake.main.otlp_logs".to_owned(),
        "CREATE TABLE secretly (i INTEGER)".to_owned(),
        "COPY (SELECT 1) TO '/tmp/otlake-must-not-be'".to_owned(),
        "SET memory_limit = '1TB'".to_owned(),
        "DETACH lake".to_owned(),
        "CALL quack_stop('quack:127.0.0.1:9494')".to_owned(),
        "SELECT * FROM ducklake_cleanup_old_files('lake', cleanup_all => true)".to_owned(),
        "FROM read_text('/etc/hostname')".to_owned(),
        format!(
            "FROM sqlite_scan('{}', 'ducklake_snapshot')",
            database.display()
        ),
        format!("FROM '{}'", parquet.display()),
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '/tmp/otlake-must-not-be'".to_owned(),
        "EXPLAIN /**/ANALYZE COPY (SELECT 1) TO '/tmp/otlake-must-not-be'".to_owned(),
        "EXPLAIN (ANALYZE) SELECT 1; DETACH lake; SELECT 5".to_owned(),
        "SELECT json_serialize_plan('FROM range(1)')".to_owned(),
        // Brought by extensions: DuckLake, quack.
        "SELECT murmur3_32('x')".to_owned(),
        "SELECT quack_uri_parser('quack:x')".to_owned(),
        "SELECT sleep_ms(1)".to_owned(),
    ] {
        let refused = client.refusal(&statement, TOKEN);
        assert!(
            refused.contains("Authorization failed"),
            "{statement}: {refused}"
        );
    }
    let unknown = client.refusal("SELECT no_such_function(1)", TOKEN);
    assert!(unknown.contains("does not exist"), "{unknown}");
    let log = server.log();
    assert!(log.contains("refused over quack: a wrong token"), "{log}");
    assert!(
        log.contains("only queries, otlake's functions and transactions"),
        "{log}"
    );
    assert!(
        !log.contains("quack-token") && !log.contains("DELETE"),
        "{log}"
    );
    assert_eq!(client.count("SELECT count(*) FROM otlp_logs"), 5);
}

/// Scenario: a client attaches the server's DuckDB, and reads and tries to change it as if it were its own.
/// Guarantees: the tables are there by their plain names, with what a flush has brought; nothing can be made or changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_lake_can_be_attached() {
    let server = serve(&["--seal-max-age", "1h"]);
    let client = Client::of(&server);
    let run = |sql: &str| client.duckdb.execute_batch(sql);
    let attach = format!(
        "ATTACH 'quack:{}' AS r (TYPE quack, TOKEN '{TOKEN}')",
        client.quack
    );
    run(&attach).unwrap();
    let mut logs_client = server.logs().await;
    for batch in 0..2 {
        let first = batch * 5;
        logs_client
            .export(logs("shop", first..first + 5))
            .await
            .unwrap();
        server.flush().await;
        let rows = query_all(
            &client.duckdb,
            "SELECT count(*), min(service_name) FROM r.main.otlp_logs",
        );
        assert_eq!(rows, [[(first + 5).to_string(), "shop".to_owned()]]);
    }
    run("USE r").unwrap();
    assert_eq!(
        query_all(&client.duckdb, "SELECT count(*) FROM otlp_traces"),
        [["0"]]
    );
    for statement in [
        "CREATE TABLE t (i INTEGER)",
        "INSERT INTO otlp_logs SELECT * FROM otlp_logs",
    ] {
        assert!(run(statement).is_err(), "{statement}");
    }
}

/// Asks again and again until `enough`: counts only grow, are never less than what a flush has answered for, and seals are
/// seen whole.
fn look_until(client: &Client, flushed: &AtomicI64, flush: &str, enough: &AtomicBool) -> usize {
    let mut last = [0; 4];
    let mut looks = 0;
    while !enough.load(Ordering::Relaxed) {
        let floor = flushed.load(Ordering::SeqCst);
        let cells = client.ask(LOOK).remove(0);
        let seen: Vec<i64> = cells.iter().map(|cell| cell.parse().unwrap()).collect();
        let seen = <[i64; 4]>::try_from(seen).unwrap();
        assert_eq!(seen[..2], seen[2..], "half a seal");
        assert!(seen[0] >= floor, "{seen:?} after a flush of {floor} rows");
        for (before, now) in last.iter().zip(&seen) {
            assert!(before <= now, "{last:?}, then {seen:?}");
        }
        last = seen;
        looks += 1;
        if looks % 10 == 0 {
            assert_eq!(client.ask(flush)[0][0], "sealed");
        }
    }
    looks
}

/// Scenario: many small seals, merges and clean-ups while two clients query and flush without a pause; with a catalog of each
/// kind.
/// Guarantees: no query fails; a count never goes down, nor below what a flush before it has brought to the lake; each seal
/// is seen in all of its tables or in none; former copies of the catalog do not pile up.
#[tokio::test(flavor = "multi_thread")]
async fn counts_never_go_down_under_merges() {
    for kind in ["sqlite", "duckdb"] {
        let mut builder =
            builder().args(&["--seal-max-age", "50ms", "--snapshot-retention", "30s"]);
        let elsewhere = tempfile::TempDir::new().unwrap();
        let catalog = format!("{kind}:{}", elsewhere.path().join("catalog").display());
        builder = builder.args(&["--catalog", &catalog]);
        let server = builder.start();
        let flush = format!("FROM otlp_flush('otlp:localhost:{}')", server.grpc.port());
        let flushed = Arc::new(AtomicI64::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let clients = [(); 2].map(|()| {
            let client = Client::of(&server);
            let (flushed, enough, flush) =
                (Arc::clone(&flushed), Arc::clone(&enough), flush.clone());
            std::thread::spawn(move || look_until(&client, &flushed, &flush, &enough))
        });
        let (mut logs_client, mut traces) = (server.logs().await, server.traces().await);
        let mut admin = server.admin().await;
        let mut first = 0;
        eventually("seals and a merge", async || {
            let seqs = first..first + 3;
            logs_client.export(logs("a", seqs.clone())).await.unwrap();
            traces.export(spans("a", seqs)).await.unwrap();
            first += 3;
            if first % 30 == 0 {
                server.flush().await;
                flushed.store(first, Ordering::SeqCst);
            }
            let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
            let files = status
                .tables
                .iter()
                .find(|table| table.table == "otlp_logs");
            let is_merged = files.is_some_and(|table| table.files + 5 < status.committed_seals);
            status.committed_seals >= 40 && is_merged
        })
        .await;
        enough.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
        let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(
            (status.last_error, status.maintenance_last_error),
            (String::new(), String::new())
        );
        let client = Client::of(&server);
        eventually("former copies to go", async || {
            client.count("SELECT count(*) FROM otlp_logs");
            copies(&server) == 1
        })
        .await;
    }
}

/// Copies of the catalog in the data folder.
fn copies(server: &Server) -> usize {
    let entries = fs::read_dir(server.data_dir().join("quack")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| {
            name.starts_with("catalog-") && !name.contains("wal") && !name.contains("shm")
        })
        .count()
}

/// Scenario: a server is killed, and another starts in its folder, with the lake under a name of its own.
/// Guarantees: what the first one left for its queries is gone; the lake has its name, beside the plain names of the tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_nothing_behind_for_the_next() {
    let server = serve(&["--seal-max-age", "1h"]);
    server
        .logs()
        .await
        .export(logs("shop", 0..5))
        .await
        .unwrap();
    server.flush().await;
    let dir = server.kill();
    let left = crate::support::data_dir(&dir).join("quack");
    fs::write(left.join("catalog-77"), "old").unwrap();
    let server = ServerBuilder::again(dir)
        .args(&["--quack-listen", "127.0.0.1:0", "--lake-name", "otel"])
        .env("OTLAKE_QUACK_TOKEN", TOKEN)
        .start();
    assert!(!left.join("catalog-77").exists());
    let client = Client::of(&server);
    assert_eq!(client.count("SELECT count(*) FROM otel.main.otlp_logs"), 5);
    assert_eq!(client.count("SELECT count(*) FROM otlp_logs"), 5);
    let names = "SELECT DISTINCT catalog_name FROM otlp_server_list()";
    assert_eq!(client.ask(names), [["otel"]]);
    let banner = server.banner();
    assert!(banner.contains("the lake is `otel` there"), "{banner}");
    assert!(!banner.contains(TOKEN));
}

/// Scenario: a program of the same user listens on the port for quack, which quack by itself would share with it.
/// Guarantees: the server does not start, and says which setting to change.
#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let started = ServerBuilder::new()
        .args(&["--quack-listen", &address, "--quack-token", TOKEN])
        .try_start();
    let Err((status, dir)) = started else {
        panic!("it has started")
    };
    assert_eq!(status.code(), Some(1));
    let log = read_log(&dir);
    assert!(
        log.contains(&format!("cannot listen on {address} (--quack-listen)")),
        "{log}"
    );
    assert!(!log.contains(TOKEN));
}

/// Scenario: a long query runs while the server is told to stop.
/// Guarantees: the stop does not wait for it much longer than its grace, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_query_does_not_hold_the_stop_up() {
    let mut server = serve(&["--seal-max-age", "1h", "--shutdown-grace", "1s"]);
    let client = Client::of(&server);
    server
        .logs()
        .await
        .export(logs("shop", 0..5))
        .await
        .unwrap();
    let watch = Client::of(&server);
    let sessions = || watch.count("FROM duckdb_connection_count()");
    let before = sessions();
    let asking = std::thread::spawn(move || {
        let remote = client.remote("SELECT count(*) FROM range(100000000000) a", TOKEN);
        client.duckdb.execute_batch(&remote).is_err()
    });
    eventually("the query", async || sessions() > before).await;
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    assert!(asking.join().unwrap());
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 5);
}
