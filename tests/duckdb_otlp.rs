//! A server in the environment that duckdb-otlp's daemon was started in.

use std::process::{Command, Output};

use crate::support::{ServerBuilder, eventually, otlake};

/// What a person has in `.env`, with this test's places; the tokens are secrets.
fn environment(place: &str) -> Vec<(&'static str, String)> {
    [
        ("DUCKDB_MODE", "local-ducklake"),
        ("DUCKLAKE_NAME", "otel"),
        ("DUCKLAKE_CATALOG_PATH", "PLACE/ducklake/catalog.duckdb"),
        ("DUCKLAKE_DATA_PATH", "PLACE/ducklake/storage"),
        ("DUCKDB_OTLP_TOKEN", "secret-ingest-token"),
        ("OTEL_HTTP_ADDR", "127.0.0.1:0"),
        ("DUCKDB_QUACK_ENABLED", "1"),
        ("DUCKDB_QUACK_ADDR", "127.0.0.1:0"),
        ("DUCKDB_QUACK_TOKEN", "secret-quack-token"),
        ("DUCKDB_OTLP_SEAL_MAX_AGE_MS", "100"),
        ("DUCKDB_OTLP_HTTP_THREADS", "4"),
    ]
    .map(|(name, value)| (name, value.replace("PLACE", place)))
    .into()
}

fn check(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let told =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    let told = told.concat();
    assert!(!told.contains("secret-"), "{told}");
    (output, told)
}

/// Scenario: duckdb-otlp's environment and no setting of otlake's but its folder and its gRPC port.
/// Guarantees: the server listens, asks for the token, and keeps the lake where it was told; the banner says what was taken
/// and what was not, without secrets.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_in_duckdb_otlps_environment() {
    let place = tempfile::TempDir::new().unwrap();
    let path = place.path().to_str().unwrap();
    let mut builder = ServerBuilder::new();
    for (name, value) in environment(path) {
        builder = builder.env(name, &value);
    }
    let server = builder.start();
    let send = async |token: Option<&str>| {
        let json =
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        server
            .post("/v1/logs", &headers, json.to_owned())
            .await
            .status
    };
    assert_eq!(send(None).await, 401);
    assert_eq!(send(Some("secret-ingest-token")).await, 200);
    let committed = || {
        server.log().contains("ready")
            && place
                .path()
                .join("ducklake/storage/main/otlp_logs")
                .is_dir()
    };
    eventually("the commit that its seal age asks for", async || {
        committed()
    })
    .await;
    assert!(place.path().join("ducklake/catalog.duckdb").is_file());
    let banner = server.banner();
    for part in [
        "took DUCKDB_MODE=local-ducklake from duckdb-otlp's environment",
        "took DUCKLAKE_NAME=otel as lake-name",
        "took DUCKDB_OTLP_TOKEN=******** as token",
        "took DUCKDB_OTLP_SEAL_MAX_AGE_MS=100 as seal-max-age",
        "took DUCKDB_QUACK_ADDR=127.0.0.1:0 as quack-listen",
        "nothing like it: DUCKDB_OTLP_HTTP_THREADS",
        "the lake is `otel` there",
    ] {
        assert!(banner.contains(part), "{part} in {banner}");
    }
    assert!(!banner.contains("secret-") && !server.log().contains("secret-"));
    let (status, _dir) = server.stop();
    assert!(status.success());
}

fn serve(place: &tempfile::TempDir) -> Command {
    let mut command = otlake();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(place.path().join("data"));
    command.envs(environment(place.path().to_str().unwrap()));
    command
}

/// Scenario: the same with `DRY_RUN`, and with both of its variables for a token.
/// Guarantees: the settings are printed with where they came from, which token counts and which does not, and nothing is touched.
#[test]
fn a_dry_run_checks_and_touches_nothing() {
    let place = tempfile::TempDir::new().unwrap();
    let more = [
        ("DRY_RUN", "1"),
        ("OTEL_AUTH_TOKEN", "secret-another-token"),
    ];
    let (output, told) = check(serve(&place).envs(more));
    assert!(output.status.success(), "{told}");
    for part in [
        "# took DRY_RUN as --check",
        "# duckdb-otlp's DUCKLAKE_CATALOG_PATH",
        "# quack-token: ******** (duckdb-otlp's DUCKDB_QUACK_TOKEN; masked)",
        "# took OTEL_AUTH_TOKEN=******** as token",
        "# DUCKDB_OTLP_TOKEN is overridden by OTEL_AUTH_TOKEN",
        "lake-name = \"otel\"",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// Scenario: a mode that otlake does not have, a catalog that is no file, quack without its token, and a switch that is neither on
/// nor off.
/// Guarantees: each is refused by the variable's name, with what to do, and nothing is touched.
#[test]
fn what_otlake_does_not_have_is_refused() {
    let place = tempfile::TempDir::new().unwrap();
    for (name, value, begins, has) in [
        (
            "DUCKDB_MODE",
            "motherduck",
            "DUCKDB_MODE: motherduck writes to MotherDuck",
            "local-ducklake (or ducklake-local, which is the same)",
        ),
        (
            "DUCKLAKE_CATALOG_PATH",
            "postgres:dbname=otel password=secret-password",
            "DUCKLAKE_CATALOG_PATH: `postgres:` is a catalog in PostgreSQL",
            "docs/FROM-DUCKDB-OTLP.md",
        ),
        (
            "DUCKDB_QUACK_TOKEN",
            "",
            "DUCKDB_QUACK_ADDR needs a token",
            "set DUCKDB_QUACK_TOKEN;",
        ),
        (
            "DUCKDB_QUACK_ENABLED",
            "maybe",
            "DUCKDB_QUACK_ENABLED: `maybe` is neither yes nor no",
            "write 1, true, yes or on",
        ),
    ] {
        let (output, told) = check(serve(&place).env(name, value));
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.starts_with(&format!("error: {begins}")), "{told}");
        assert!(told.contains(has), "{told}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
