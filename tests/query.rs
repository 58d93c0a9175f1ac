//! `otlake query` as people type it: several statements, and names that are not known.

use std::process::Output;

use crate::support::{Server, otlake};

fn query(server: &Server, args: &[&str]) -> (i32, String, String) {
    let mut command = otlake();
    command.arg("query").args(args);
    command.arg("--data-dir").arg(server.data_dir());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code().unwrap(), stdout, stderr)
}

/// Scenario: two statements with rows, as a table, as lines and as CSV; an error in the second.
/// Guarantees: both show their rows where the format has room; else neither runs, which is wrong usage and says what to do; what
/// came before an error is shown.
#[test]
fn several_statements_show_their_rows() {
    let server = Server::start();
    let two = "SELECT 1 AS one; SELECT 2 AS two";
    let (code, table, _) = query(&server, &[two]);
    assert_eq!(code, 0);
    assert!(
        table.find("one").unwrap() < table.find("two").unwrap(),
        "{table}"
    );
    let (_, lines, _) = query(&server, &[two, "--format", "ndjson"]);
    assert_eq!(lines, "{\"one\": 1}\n{\"two\": 2}\n");
    for format in ["csv", "json"] {
        let (code, rows, error) = query(&server, &[two, "--format", format]);
        assert_eq!((code, rows.as_str()), (2, ""));
        assert!(error.contains("--format table or ndjson"), "{error}");
    }
    let (code, lines, error) = query(
        &server,
        &["SELECT 1 AS one; FROM nowhere", "--format", "ndjson"],
    );
    assert_eq!((code, lines.as_str()), (1, "{\"one\": 1}\n"));
    assert!(error.contains("nowhere does not exist"), "{error}");
}

/// Scenario: a table's name without its beginning, one that nothing is near to, and a function of the server's.
/// Guarantees: only what the lake has is suggested.
#[test]
fn only_the_lakes_own_names_are_suggested() {
    let server = Server::start();
    for (sql, said) in [
        ("FROM lgs", "Did you mean \"otlp_logs\"?"),
        ("FROM everything", "The lake has otlp_logs, otlp_traces, "),
        ("FROM otlp_flush('otlp:')", "`otlake flush`"),
    ] {
        let (code, _, error) = query(&server, &[sql]);
        assert_eq!(code, 1);
        assert!(error.contains(said), "{sql}: {error}");
        for inside in ["pg_", "pragma_", "duckdb_", "test_"] {
            assert!(!error.contains(inside), "{sql}: {error}");
        }
    }
    let (_, _, error) = query(&server, &["FROM all_types()"]);
    assert!(
        error.contains("all_types does not exist") && !error.contains("Did you mean"),
        "{error}"
    );
}
