//! What keeps a server from starting is said in one line; what it runs with can be seen.

use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use otlake::server_file::ServerFile;
use tempfile::TempDir;

use crate::support::load::logs;
use crate::support::{OTLAKE, PATIENCE, Server, ServerBuilder, data_dir, otlake, sql};

/// Runs a command that is expected to end by itself.
fn run(mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{command:?} did not end: {}", text(&output.stderr));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one line of error that a command left, which must have ended with this exit code.
fn one_line(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert_eq!(text(&output.stdout), "");
    errors[0].to_owned()
}

/// `otlake serve --check` with flags, in a folder of its own.
fn check(dir: &TempDir) -> Command {
    let mut command = otlake();
    command.args(["serve", "--check"]).current_dir(dir.path());
    command
}

/// Scenario: a second server on the data folder of one that runs.
/// Guarantees: it does not start, one line names folder and process, and the first is not disturbed.
#[tokio::test]
async fn a_second_server_on_one_folder_is_refused() {
    let server = Server::start();
    let mut second = otlake();
    second
        .args(["serve", "--grpc-listen", "127.0.0.1:0"])
        .args(["--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_dir());
    let error = one_line(&run(second), 1);
    let folder = server.data_dir().canonicalize().unwrap();
    assert!(error.contains(&*folder.to_string_lossy()), "{error}");
    let pid = format!("process {}", server.child.id());
    assert!(error.contains(&pid), "{error}");

    let file = ServerFile::running(&server.data_dir()).unwrap();
    assert_eq!((file.pid, file.grpc), (server.child.id(), server.grpc));
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    assert_eq!(server.flush().await, 10);
}

/// Scenario: the port of either listener is taken by another program.
/// Guarantees: one line names the port and the flag that chooses another.
#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--grpc-listen", "--http-listen"] {
        let builder = ServerBuilder::new().args(&[flag, &address]);
        let error = one_line(&run(builder.command()), 1);
        let port = format!("port {} is in use", taken.local_addr().unwrap().port());
        assert!(error.contains(&port), "{error}");
        assert!(error.contains(flag), "{error}");
    }
}

/// Scenario: port 0 on both listeners.
/// Guarantees: the banner and `server.json` name the ports that were really taken, and both answer.
#[tokio::test]
async fn port_0_is_told_as_the_real_port() {
    let server = Server::start();
    assert!(server.grpc.port() != 0 && server.http.port() != 0);
    let banner = server.banner();
    for address in [server.grpc, server.http] {
        assert!(banner.contains(&address.to_string()), "{banner}");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.flush().await, 0);
}

/// Scenario: both listeners on IPv6's loopback.
/// Guarantees: both answer there; the banner's endpoint has the brackets that a URL needs.
#[tokio::test]
async fn ipv6_works_for_both_listeners() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this machine has no IPv6: nothing was tested");
        return;
    }
    let args = ["--grpc-listen=[::1]:0", "--http-listen=[::1]:0"];
    let server = Server::with(&args);
    assert!(server.grpc.is_ipv6() && server.http.is_ipv6());
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    assert_eq!(server.get("/readyz").await.status, 200);
    server.flush().await;
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
    let endpoint = format!("http://[::1]:{}", server.grpc.port());
    assert!(server.banner().contains(&endpoint), "{}", server.banner());
}

/// Scenario: a server stops and another starts on the same data folder.
/// Guarantees: the rows of the first are there, and those of the second join them.
#[tokio::test]
async fn a_restart_keeps_the_rows() {
    let server = Server::start();
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    let (_, dir) = server.stop();
    let server = ServerBuilder::again(dir)
        .args(&["--seal-max-age", "1h"])
        .start();
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 10);
    let mut client = server.logs().await;
    client.export(logs("a", 10..20)).await.unwrap();
    let (_, dir) = server.stop();
    let query = "SELECT count(*), count(DISTINCT body) FROM otlp_logs";
    assert_eq!(sql(&data_dir(&dir), query), [["20", "20"]]);
}

/// Scenario: `--check` while another program has the ports.
/// Guarantees: exit code 0, the settings in effect with the token masked, nothing bound, nothing made.
#[test]
fn check_prints_the_settings_and_does_nothing() {
    let dir = TempDir::new().unwrap();
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [grpc, http] = taken
        .each_ref()
        .map(|taken| taken.local_addr().unwrap().to_string());
    let token = "a-token-nobody-may-see";
    let mut command = check(&dir);
    command.args(["--grpc-listen", &grpc, "--http-listen", &http]);
    command.args(["--seal-max-age", "2s", "--token", token]);
    let output = run(command);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        grpc.as_str(),
        http.as_str(),
        "seal-max-age = \"2s\"",
        "masked",
        "catalog.sqlite",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!said.contains(token), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Scenario: what `--check` printed is given back as the settings file.
/// Guarantees: it is taken, and gives the same settings.
#[test]
fn check_prints_a_settings_file() {
    let dir = TempDir::new().unwrap();
    let mut command = check(&dir);
    command.args(["--seal-max-age", "2s", "--max-connections", "77"]);
    let first = text(&run(command).stdout);
    let file = dir.path().join("otlake.toml");
    fs::write(&file, &first).unwrap();
    let mut command = check(&dir);
    command.arg("--config").arg(&file);
    let second = text(&run(command).stdout);
    let settings = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap());
        lines.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(settings(&first), settings(&second));
}

/// Scenario: one setting in the file, the environment and a flag, then in fewer of them.
/// Guarantees: the flag goes before the variable, the variable before the file, the file before the default.
#[test]
fn flags_go_before_variables_and_these_before_the_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("otlake.toml");
    fs::write(&file, "seal-max-age = \"11s\"\n").unwrap();
    let all = ["--config", "otlake.toml", "--seal-max-age", "33s"];
    let cases: [(&[&str], Option<&str>, &str); 4] = [
        (&all, Some("22s"), "33s"),
        (&all[..2], Some("22s"), "22s"),
        (&all[..2], None, "11s"),
        (&[], None, "5s"),
    ];
    for (args, variable, wanted) in cases {
        let mut command = check(&dir);
        command.args(args);
        if let Some(age) = variable {
            command.env("OTLAKE_SEAL_MAX_AGE", age);
        }
        let said = text(&run(command).stdout);
        let wanted = format!("seal-max-age = \"{wanted}\"");
        assert!(said.contains(&wanted), "{wanted} is not in {said}");
    }
}

/// Scenario: a misspelt key, variable, flag, and a value out of range.
/// Guarantees: exit code 2, a message that names it and, where one is near, the right name; nothing is made.
#[test]
fn unknown_settings_are_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("otlake.toml");
    fs::write(&file, "seal-max-agee = \"11s\"\n").unwrap();
    let mut from_file = check(&dir);
    from_file.args(["--config", "otlake.toml"]);
    let mut from_environment = check(&dir);
    from_environment.env("OTLAKE_SEAL_MAX_AGEE", "11s");
    let mut from_flags = check(&dir);
    from_flags.args(["--seal-max-agee", "11s"]);
    let mut out_of_range = check(&dir);
    out_of_range.args(["--seal-max-age", "1ms"]);
    for (command, wrong, hint) in [
        (from_file, "seal-max-agee", "seal-max-age`"),
        (
            from_environment,
            "OTLAKE_SEAL_MAX_AGEE",
            "OTLAKE_SEAL_MAX_AGE`",
        ),
        (from_flags, "--seal-max-agee", "--seal-max-age'"),
        (out_of_range, "--seal-max-age", "10ms"),
    ] {
        let output = run(command);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wrong) && said.contains(hint), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Scenario: the binary alone, far from its checkout, with an empty extension folder and a home where nothing can be
/// installed.
/// Guarantees: one error that lists every place that was tried and the command that fixes it; exit code 1.
#[test]
fn missing_extensions_are_explained() {
    let dir = TempDir::new().unwrap();
    let (bin, home) = (dir.path().join("bin"), dir.path().join("home"));
    let (empty, elsewhere) = (dir.path().join("empty"), dir.path().join("elsewhere"));
    for folder in [&bin, &home, &empty, &elsewhere] {
        fs::create_dir(folder).unwrap();
    }
    let program = bin.join("otlake");
    fs::copy(OTLAKE, &program).unwrap();
    // DuckDB cannot make its own folder where a file is: no download, whether there is a network or not.
    fs::write(home.join(".duckdb"), "in the way").unwrap();
    let mut command = Command::new(program);
    command
        .args(["serve", "--grpc-listen", "127.0.0.1:0"])
        .args(["--http-listen", "127.0.0.1:0", "--extension-dir"])
        .arg(&empty)
        .env_clear()
        .env("HOME", &home)
        .current_dir(&elsewhere);
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    let (empty, bin) = (empty.display().to_string(), bin.display().to_string());
    for part in [
        "ducklake",
        "scripts/setup",
        "--extension-dir",
        empty.as_str(),
        bin.as_str(),
        "elsewhere/vendor/extensions",
        "DuckDB's own folder",
        "INSTALL ducklake",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!elsewhere.join("otlake-data/server.json").exists());
}

/// Scenario: JSON logs, through trouble, refusals and a stop that leaves a seal staged.
/// Guarantees: every line on stderr is a JSON object with time, level and message.
#[tokio::test]
async fn json_logs_are_json_to_the_last_line() {
    let args = [
        "--log-format=json",
        "--log-level=debug",
        "--shutdown-grace=1s",
    ];
    let server = Server::with(&args);
    server.post("/v1/logs", &[], "not protobuf").await;
    server.get("/nowhere").await;
    let mut client = server.logs().await;
    client.export(logs("a", 0..10)).await.unwrap();
    fs::rename(
        server.data_dir().join("lake"),
        server.data_dir().join("away"),
    )
    .unwrap();
    let (_, dir) = server.stop();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert_json_lines(&log);
    assert!(log.contains("staged_seals_left"), "{log}");

    // The lake is still away: this start fails.
    let failed = ServerBuilder::again(dir).args(&args);
    let output = run(failed.command());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_json_lines(&said);
    assert!(said.contains("put the folder back"), "{said}");
}

fn assert_json_lines(log: &str) {
    assert!(!log.trim().is_empty());
    for line in log.lines() {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(entry[key].is_string(), "{key} is missing: {line}");
        }
    }
}

/// Scenario: a server with a token has started.
/// Guarantees: the banner has the lines to paste for an SDK, Codex (all three exporters), Claude Code and a query, with
/// the real port and without the token; the query line works as it stands.
#[tokio::test]
async fn the_banner_says_how_to_go_on() {
    let token = "a-token-nobody-may-see";
    let server = ServerBuilder::new().env("OTLAKE_TOKEN", token).start();
    let banner = server.banner();
    let endpoint = format!("http://{}", server.grpc);
    let data_dir = server.data_dir().display().to_string();
    for part in [
        &format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
        "OTEL_EXPORTER_OTLP_HEADERS=",
        "[otel]",
        &format!("\n    exporter = {{ otlp-grpc = {{ endpoint = \"{endpoint}\""),
        &format!("\n    trace_exporter = {{ otlp-grpc = {{ endpoint = \"{endpoint}\""),
        &format!("\n    metrics_exporter = {{ otlp-grpc = {{ endpoint = \"{endpoint}\""),
        "CLAUDE_CODE_ENABLE_TELEMETRY=1",
        "OTEL_LOGS_EXPORTER=otlp",
        "OTEL_METRICS_EXPORTER=otlp",
        "OTEL_TRACES_EXPORTER=otlp",
        &format!("query --data-dir {data_dir} "),
        "catalog.sqlite",
        "needs the token",
    ] {
        assert!(banner.contains(part), "{part} is not in {banner}");
    }
    assert!(!banner.contains(token) && !server.log().contains(token));
    let query = banner
        .lines()
        .find(|line| line.contains(" query "))
        .unwrap();
    let statement = query.split('"').nth(1).unwrap();
    server.sql(statement);
}

/// Scenario: servers with each durability.
/// Guarantees: banner and status say when requests are answered; memory is marked as what loses rows in a crash.
#[tokio::test]
async fn the_durability_is_told() {
    for (durability, wanted) in [
        (
            "journal",
            "\n  answers    once rows are on disk (--durability journal)\n",
        ),
        (
            "memory",
            "\n  answers    ONCE ROWS ARE IN MEMORY: a crash loses ",
        ),
        ("lake", "\n  answers    once rows are in the lake: "),
    ] {
        let args = ["--durability", durability, "--journal-max-bytes", "1GiB"];
        let server = Server::with(&args);
        let banner = server.banner();
        assert!(banner.contains(wanted), "{wanted} is not in {banner}");
        let status = server.status().await;
        assert_eq!(status.durability, durability);
        assert_eq!(status.disk_bytes_max, 1 << 30);
        assert_eq!(status.remembered_requests, 0);
        assert!(status.signals.iter().all(|of| of.repeated_requests == 0));
    }
}

/// Scenario: a server without a token, on loopback.
/// Guarantees: the banner says that every program on this machine can send.
#[tokio::test]
async fn a_server_without_token_says_so() {
    let server = Server::start();
    assert!(server.banner().contains("no token"), "{}", server.banner());
}
