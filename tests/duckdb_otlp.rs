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

/// Scenario: the same with `DRY_RUN`, also with both tokens, without quack's token, with a catalog that is no file, a switch that is neither
/// on nor off, and with a mode that otlake does not have.
/// Guarantees: the first prints the settings with where they came from, and touches nothing, of both tokens
/// the one that counts and the one that does not; the others are refused.
#[test]
fn a_dry_run_checks_and_other_modes_are_refused() {
    let place = tempfile::TempDir::new().unwrap();
    let path = place.path().to_str().unwrap();
    let serve = || {
        let mut command = otlake();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(place.path().join("data"));
        command.envs(environment(path));
        command
    };
    let (output, told) = check(serve().env("DRY_RUN", "1"));
    assert!(output.status.success(), "{told}");
    for part in [
        "# took DRY_RUN as --check",
        "# duckdb-otlp's DUCKLAKE_CATALOG_PATH",
        "# quack-token: ******** (duckdb-otlp's DUCKDB_QUACK_TOKEN; masked)",
        "lake-name = \"otel\"",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let two = check(serve().envs([
        ("DRY_RUN", "1"),
        ("OTEL_AUTH_TOKEN", "secret-another-token"),
    ]));
    for part in [
        "# took OTEL_AUTH_TOKEN=******** as token",
        "# DUCKDB_OTLP_TOKEN is overridden by OTEL_AUTH_TOKEN",
    ] {
        assert!(two.1.contains(part), "{part} in {}", two.1);
    }
    let elsewhere = "postgres:dbname=otel password=secret-password";
    let (output, told) = check(serve().env("DUCKLAKE_CATALOG_PATH", elsewhere));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told.starts_with("error: DUCKLAKE_CATALOG_PATH: `postgres:` is a catalog in PostgreSQL"),
        "{told}"
    );
    let (output, told) = check(serve().env("DUCKDB_QUACK_TOKEN", ""));
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("set DUCKDB_QUACK_TOKEN;"), "{told}");
    let (output, told) = check(serve().env("DUCKDB_QUACK_ENABLED", "maybe"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told.starts_with("error: DUCKDB_QUACK_ENABLED: `maybe` is neither yes nor no"),
        "{told}"
    );
    let (output, told) = check(serve().env("DUCKDB_MODE", "motherduck"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told.starts_with("error: DUCKDB_MODE: motherduck writes to MotherDuck"),
        "{told}"
    );
    assert!(told.contains("docs/FROM-DUCKDB-OTLP.md"), "{told}");
    assert!(told.contains("local-ducklake (or ducklake-local"), "{told}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
