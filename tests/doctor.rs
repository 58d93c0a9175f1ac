//! `otlake doctor`: what it says of servers that are well and not, and of the mistakes that clients' settings have.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use http::Method;
use tempfile::TempDir;

use crate::support::outage::LakeAway;
use crate::support::raw::JSON;
use crate::support::{Server, ServerBuilder, eventually, otlake};

const TOKEN: &str = "0123456789abcdef-token";

/// A home with settings in it, and a shell's variables.
pub struct Machine {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    pub fn new() -> Machine {
        Machine {
            home: TempDir::new().unwrap(),
            variables: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Machine {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn write(self, path: &str, text: &str) -> Machine {
        let path = self.home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn doctor(&self, args: &[&str]) -> Output {
        let mut command = otlake();
        for (name, _) in std::env::vars() {
            let is_agents = ["OTEL_", "CLAUDE_", "CODEX_", "GEMINI_"];
            if is_agents.iter().any(|start| name.starts_with(start)) {
                command.env_remove(name);
            }
        }
        command.arg("doctor").args(args);
        command.env("HOME", self.home.path());
        command.envs(self.variables.clone());
        command.output().unwrap()
    }

    /// What it says of a server of this folder, and its exit code.
    pub fn look(&self, server: &Server, args: &[&str]) -> (String, i32) {
        let data_dir = server.data_dir();
        let mut all = vec!["--data-dir", data_dir.to_str().unwrap()];
        all.extend(args);
        let output = self.doctor(&all);
        assert!(output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        (text, output.status.code().unwrap())
    }
}

/// A finding and what is advised about it, each in part.
#[track_caller]
pub fn assert_change(text: &str, what: &str, advice: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.windows(2).any(|pair| {
        let is_change = pair[0].trim_start().starts_with("CHANGE");
        is_change && pair[0].contains(what) && pair[1].contains("->") && pair[1].contains(advice)
    });
    assert!(found, "no CHANGE of {what:?} with {advice:?} in:\n{text}");
}

fn changes(text: &str) -> usize {
    text.lines()
        .filter(|line| line.trim_start().starts_with("CHANGE"))
        .count()
}

/// Scenario: no server; then one that is well, with nothing received; then with rows of three signals.
/// Guarantees: without one it says how to go on, with exit code 1; a server that is well is told so, with 0; who sent is listed with
/// service, user agent, signal and rows; the same as JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_well_is_told_so() {
    let machine = Machine::new();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let none = machine.doctor(&["--endpoint", &format!("http://{nobody}")]);
    assert_eq!(none.status.code(), Some(1));
    let text = String::from_utf8(none.stdout).unwrap();
    assert_change(&text, "it cannot be reached", "otlake serve");

    let server = Server::start();
    let (text, code) = machine.look(&server, &[]);
    assert_eq!((code, changes(&text)), (0, 0), "{text}");
    assert!(text.contains("nothing was accepted since the start"));
    assert!(text.ends_with("All is well.\n"), "{text}");

    let url = format!("http://{}", server.grpc);
    let mut send = otlake();
    send.args([
        "send",
        "--signal",
        "all",
        "--count",
        "200",
        "--endpoint",
        &url,
    ]);
    assert!(send.output().unwrap().status.success());
    let (text, code) = machine.look(&server, &[]);
    assert_eq!(code, 0, "{text}");
    for signal in ["logs", "traces", "metrics"] {
        let lines = text
            .lines()
            .filter(|line| line.contains("otlake-send/") && line.contains(&format!("  {signal} ")));
        assert!(lines.count() > 0, "{text}");
    }
    let (json, code) = machine.look(&server, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["ok"].as_bool()), (0, Some(true)), "{json}");
    let clients = server.status().await.clients;
    let rows: u64 = clients.iter().map(|client| client.rows).sum();
    assert_eq!(rows, 600);
}

/// Scenario: every setting as the README has it, for a server with a token: the shell, Codex, Claude Code, Gemini CLI.
/// Guarantees: each is tried and taken; nothing is to be changed; no token is shown, and nothing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn good_settings_are_tried_and_taken() {
    let server = ServerBuilder::new().env("OTLAKE_TOKEN", TOKEN).start();
    let (grpc, http) = (server.grpc, server.http);
    let codex = format!(
        "{{ otlp-grpc = {{ endpoint = \"http://{grpc}\", headers = {{ authorization = \"Bearer {TOKEN}\" }} }} }}"
    );
    let metrics = format!(
        "{{ otlp-http = {{ endpoint = \"http://{http}/v1/metrics\", protocol = \"binary\", headers = {{ x-api-key = \"{TOKEN}\" }} }} }}"
    );
    let claude = serde_json::json!({"env": {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1", "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1", "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": format!("http://localhost:{}", http.port()),
        "OTEL_EXPORTER_OTLP_HEADERS": format!("authorization=Bearer%20{TOKEN}"),
    }});
    let gemini = serde_json::json!({"telemetry": {
        "enabled": true, "target": "local", "otlpEndpoint": "http://elsewhere.example:1", "otlpProtocol": "grpc",
    }});
    let machine = Machine::new()
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{grpc}"))
        .with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .with("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer {TOKEN}"))
        .with("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", format!("http://{http}/v1/metrics"))
        .with("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
        .write(".codex/config.toml", &format!("[otel]\nexporter = {codex}\ntrace_exporter = {codex}\nmetrics_exporter = {metrics}\n"))
        .write(".claude/settings.json", &claude.to_string())
        .write(".gemini/settings.json", &gemini.to_string());
    let (text, code) = machine.look(&server, &["--token", TOKEN]);
    assert_eq!((code, changes(&text)), (0, 0), "{text}");
    let taken = text.lines().filter(|line| line.contains(" are taken at "));
    assert_eq!(taken.count(), 4 * 3, "{text}");
    assert!(!text.contains(TOKEN), "{text}");
    let status = server.status_with(Some(TOKEN)).await;
    assert_eq!(
        status
            .signals
            .iter()
            .map(|signal| signal.accepted_rows)
            .sum::<u64>(),
        0
    );
    assert!(status.clients.is_empty() && status.refusals.is_empty());
}

/// Scenario: Codex with an endpoint without a scheme, a token that is a literal variable, no `trace_exporter`, and over HTTP without
/// the signal's path; with settings that cannot be understood; without telemetry.
/// Guarantees: each mistake is told with what to write instead, and exit code 1; no telemetry is no mistake.
#[tokio::test(flavor = "multi_thread")]
async fn the_mistakes_of_codex_are_told() {
    let server = Server::start();
    let (grpc, http) = (server.grpc, server.http);
    let config = format!(
        "[otel]\nexporter = {{ otlp-grpc = {{ endpoint = \"{grpc}\", headers = {{ x-otlp-meta = \"${{TOKEN}}\" }} }} }}\n\
         [otel.metrics_exporter.\"otlp-http\"]\nendpoint = \"http://{http}\"\nprotocol = \"binary\"\n"
    );
    let machine = Machine::new().write(".codex/config.toml", &config);
    let (text, code) = machine.look(&server, &[]);
    assert_eq!((code, changes(&text)), (1, 4), "{text}");
    assert_change(&text, "has no scheme", &format!("write http://{grpc}"));
    assert_change(&text, "holds ${TOKEN} as it is written", "the value itself");
    assert_change(&text, "there is no trace_exporter", "add trace_exporter");
    assert_change(
        &text,
        "lacks the path of its signal",
        &format!("write http://{http}/v1/metrics"),
    );
    assert!(text.ends_with("4 things are to be changed.\n"));

    let elsewhere = machine.home.path().join("elsewhere");
    let machine = machine
        .write("elsewhere/config.toml", "[otel]\nexporter = {\n")
        .with("CODEX_HOME", elsewhere.to_str().unwrap());
    let (text, code) = machine.look(&server, &[]);
    assert_eq!(code, 1);
    assert_change(&text, "cannot be understood", "correct it");

    let machine = Machine::new().write(".codex/config.toml", "model = \"x\"\n");
    let (text, code) = machine.look(&server, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("there is no [otel]"));
}

/// Scenario: Claude Code that is not enabled, lacks an exporter and a protocol; Gemini CLI that is not enabled, and writes to a file.
/// Guarantees: each is told with what to set.
#[tokio::test(flavor = "multi_thread")]
async fn the_mistakes_of_claude_code_and_gemini_are_told() {
    let server = Server::start();
    let endpoint = format!("http://{}", server.grpc);
    let env = serde_json::json!({"env": {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}});
    let gemini = serde_json::json!({"telemetry": {"otlpEndpoint": endpoint}});
    let machine = Machine::new()
        .write(".claude/settings.json", &env.to_string())
        .write(".gemini/settings.json", &gemini.to_string());
    let (text, _) = machine.look(&server, &[]);
    assert_change(
        &text,
        "CLAUDE_CODE_ENABLE_TELEMETRY is not set",
        "set CLAUDE_CODE_ENABLE_TELEMETRY=1",
    );
    assert_change(&text, "is not enabled", "\"enabled\": true");

    let env = serde_json::json!({"env": {
        "CLAUDE_CODE_ENABLE_TELEMETRY": 1, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_TRACES_EXPORTER": "otlp",
    }});
    let gemini = serde_json::json!({"telemetry": {"enabled": true, "outfile": "/tmp/x", "otlpEndpoint": endpoint}});
    let machine = Machine::new()
        .write(".claude/settings.json", &env.to_string())
        .write(".gemini/settings.json", &gemini.to_string());
    let (text, code) = machine.look(&server, &[]);
    assert_eq!(code, 1);
    assert_change(
        &text,
        "OTEL_METRICS_EXPORTER is not otlp",
        "set OTEL_METRICS_EXPORTER=otlp",
    );
    assert_change(
        &text,
        "BETA is not set",
        "set CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1",
    );
    assert_change(&text, "PROTOCOL is not set", "grpc");
    assert_change(&text, "outfile is /tmp/x", "remove outfile");
}

/// Scenario: a shell's variables with the HTTP port for gRPC and the reverse, no protocol with gRPC's port, a path too much, a port
/// where nothing listens, https for a server without TLS; a token missing, wrong, and literal.
/// Guarantees: each is told with what to write, and a wrong token by the server's own words; none is shown.
#[tokio::test(flavor = "multi_thread")]
async fn the_mistakes_of_variables_are_told() {
    let server = Server::start();
    let (grpc, http) = (server.grpc.port(), server.http.port());
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let on = |port: u16| format!("http://localhost:{port}");
    for (endpoint, protocol, what, advice) in [
        (
            on(http),
            "grpc",
            "this is OTLP/gRPC",
            format!("the port to {grpc}"),
        ),
        (
            on(grpc),
            "http/protobuf",
            "this is OTLP/HTTP",
            format!("the port to {http}"),
        ),
        (
            on(grpc),
            "",
            "no protocol is set",
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc".to_owned(),
        ),
        (
            on(http) + "/v1/logs",
            "http/json",
            "the client adds it again",
            format!("write {}", on(http)),
        ),
        (
            on(nobody),
            "grpc",
            "nothing listens",
            format!("the port to {grpc}"),
        ),
        (
            format!("https://localhost:{grpc}"),
            "grpc",
            "does not speak TLS",
            "http://".to_owned(),
        ),
        (
            on(http),
            "otlp",
            "there is no protocol otlp",
            "http/protobuf".to_owned(),
        ),
    ] {
        let machine = Machine::new()
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .with("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let (text, code) = machine.look(&server, &[]);
        assert_eq!(code, 1, "{text}");
        assert_change(&text, what, &advice);
    }

    let server = ServerBuilder::new().env("OTLAKE_TOKEN", TOKEN).start();
    let wrong = "0123456789abcdef-wrong";
    for (headers, what, advice) in [
        (String::new(), "no token is sent", "Bearer TOKEN"),
        (
            format!("authorization=Bearer {wrong}"),
            "is not taken",
            "the server says: the token is wrong",
        ),
        (
            format!("authorization={wrong}"),
            "does not begin with Bearer",
            "Bearer TOKEN",
        ),
        (
            "x-api-key=${OTLAKE_TOKEN}".to_owned(),
            "holds ${OTLAKE_TOKEN}",
            "expanded",
        ),
    ] {
        let machine = Machine::new()
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", on(server.grpc.port()))
            .with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            .with("OTEL_EXPORTER_OTLP_HEADERS", headers);
        let (text, code) = machine.look(&server, &["--token", TOKEN]);
        assert_eq!(code, 1, "{text}");
        assert_change(&text, what, advice);
        assert!(!text.contains(wrong) && !text.contains(TOKEN), "{text}");
    }
    // Its own refusals are not taken for a client's, and the command's own token is looked at too.
    let (text, code) = Machine::new().look(&server, &["--token", TOKEN]);
    assert_eq!(code, 0, "{text}");
    let (text, code) = Machine::new().look(&server, &["--token", wrong]);
    assert_eq!(code, 1);
    assert_change(&text, "does not say how it is", "refuses the token");
}

/// Scenario: clients that the server refuses: without the path, with a path twice, at the other port by both protocols, with broken
/// JSON; one of them gets it right afterwards.
/// Guarantees: the server's log and the doctor say what each has done wrong and from whom; who got it right is no trouble any more.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_with_their_reason() {
    let server = Server::start();
    let send = async |path: &str, agent: &str, body: &'static str| {
        let headers = [("content-type", JSON), ("user-agent", agent)];
        server
            .request(Method::POST, path, &headers, body)
            .await
            .status
            .as_u16()
    };
    assert_eq!(send("/", "pathless/1", "{}").await, 404);
    assert!(
        server.log().contains("lacks the path of its signal"),
        "{}",
        server.log()
    );
    let (text, code) = Machine::new().look(&server, &[]);
    assert_eq!(code, 1);
    assert_change(
        &text,
        "unknown_path: 1 request, - over http",
        "correct the client's endpoint",
    );
    assert!(
        text.contains("from pathless/1") && text.contains("lacks the path"),
        "{text}"
    );
    assert_eq!(send("/v1/logs/v1/logs", "twice/1", "{}").await, 404);
    let (text, _) = Machine::new().look(&server, &[]);
    assert!(
        text.contains("from twice/1") && text.contains("adds it once more"),
        "{text}"
    );

    let grpc_at_http = crate::support::raw::call(
        server.http,
        crate::support::raw::EXPORT_LOGS,
        &[("user-agent", "grpc/1")],
        vec![0; 5],
    )
    .await;
    let told = grpc_at_http.status.message().to_owned();
    assert!(
        told.contains(&format!(
            "OTLP/gRPC is served on port {}",
            server.grpc.port()
        )),
        "{told}"
    );
    let http_at_grpc =
        crate::support::raw::post(server.grpc, "/v1/traces", &[("user-agent", "http/1")], "").await;
    assert!(
        http_at_grpc
            .text()
            .contains(&format!("port {}", server.http.port()))
    );
    let (text, _) = Machine::new().look(&server, &[]);
    assert_change(
        &text,
        "wrong_protocol: 1 request, logs over http, the last",
        &format!("set the client's port to {}", server.grpc.port()),
    );
    assert_change(
        &text,
        "wrong_protocol: 1 request, traces over grpc, the last",
        &format!("set the client's port to {}", server.http.port()),
    );
    let place = |what: &str| text.find(what).unwrap();
    assert!(place("wrong_protocol:") < place("unknown_path:"), "{text}");

    let server = Server::start();
    let send = async |body: &'static str| {
        let headers = [("content-type", JSON), ("user-agent", "learner/1")];
        server
            .request(Method::POST, "/v1/logs", &headers, body)
            .await
            .status
            .as_u16()
    };
    assert_eq!(send("{").await, 400);
    let (text, code) = Machine::new().look(&server, &[]);
    assert_eq!(code, 1);
    assert_change(&text, "malformed", "no OTLP");
    eventually("a later request", async || {
        let sent = send(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#).await;
        assert_eq!(sent, 200);
        let (text, code) = Machine::new().look(&server, &[]);
        code == 0 && text.contains("it was accepted since")
    })
    .await;
}

/// Scenario: an operator's commands without a token and with a wrong one; then a client with a literal variable for its token.
/// Guarantees: the commands are told to be no client's mistake; the client's is to be changed, by its own user agent and count, with
/// what to write instead.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_attempts_are_no_clients_mistakes() {
    let server = ServerBuilder::new().env("OTLAKE_TOKEN", TOKEN).start();
    let data_dir = server.data_dir();
    for token in [&[][..], &["--token", "0123456789abcdef-wrong"]] {
        let mut status = otlake();
        status
            .arg("status")
            .args(token)
            .arg("--data-dir")
            .arg(&data_dir);
        assert!(!status.output().unwrap().status.success());
    }
    let (text, code) = Machine::new().look(&server, &["--token", TOKEN]);
    assert_eq!((code, changes(&text)), (0, 0), "{text}");
    let own = "otlake's own commands, no client: unauthenticated: 2 requests, - over grpc";
    assert!(text.contains(own), "{text}");

    let literal = [
        ("content-type", JSON),
        ("user-agent", "agent/1"),
        ("authorization", "Bearer ${OTLAKE_TOKEN}"),
    ];
    for _ in 0..3 {
        let grpc = crate::support::raw::call(
            server.grpc,
            crate::support::raw::EXPORT_LOGS,
            &literal[1..],
            vec![0; 5],
        );
        assert_eq!(grpc.await.status.code(), tonic::Code::Unauthenticated);
    }
    let (text, code) = Machine::new().look(&server, &["--token", TOKEN]);
    assert_eq!((code, changes(&text)), (1, 1), "{text}");
    assert_change(&text, "from agent/1", "write the token itself");
    assert!(text.contains("did not expand its variable"), "{text}");
}

/// Scenario: a client's settings with a literal variable in its header, at the port of the other protocol.
/// Guarantees: the port, which a request meets first, is told first; of the variable it is told what to write instead.
#[tokio::test(flavor = "multi_thread")]
async fn the_probable_cause_is_told_first() {
    let server = ServerBuilder::new().env("OTLAKE_TOKEN", TOKEN).start();
    let machine = Machine::new()
        .with(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", server.http),
        )
        .with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .with(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer ${OTLAKE_TOKEN}",
        );
    let (text, code) = machine.look(&server, &["--token", TOKEN]);
    assert_eq!((code, changes(&text)), (1, 2), "{text}");
    assert_change(
        &text,
        "this is OTLP/gRPC",
        &format!("set the port to {}", server.grpc.port()),
    );
    assert_change(
        &text,
        "holds ${OTLAKE_TOKEN} as it is written",
        "write the value itself (authorization = Bearer TOKEN)",
    );
    let place = |what: &str| text.find(what).unwrap();
    assert!(place("this is OTLP/gRPC") < place("holds ${"), "{text}");
}

/// Scenario: a server whose lake's folder is gone, and one behind TLS that is addressed by the data folder, with a client that does
/// not trust its certificate and one that does.
/// Guarantees: the trouble is told with the server's reason; of TLS it is told what the client lacks.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_lake_and_tls_is_told() {
    let server = Server::with(&["--seal-max-age", "100ms"]);
    let _away = LakeAway::take(&server.data_dir());
    let url = format!("http://{}", server.grpc);
    let sent = otlake()
        .args(["send", "--count", "1", "--endpoint", &url])
        .output();
    assert!(sent.unwrap().status.success());
    let mut text = String::new();
    eventually("the trouble", async || {
        text = Machine::new().look(&server, &[]).0;
        text.contains("cannot be published to the lake")
    })
    .await;
    assert_change(
        &text,
        "cannot be published to the lake",
        "nothing that was acknowledged is lost",
    );

    let certs = crate::support::certs::Certs::new();
    let path = |file: &str| certs.path(file).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let server = Server::with(&["--tls-cert", &cert, "--tls-key", &key]);
    let endpoint = format!("https://localhost:{}", server.grpc.port());
    let shell = Machine::new()
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let (text, code) = shell.look(&server, &[]);
    assert_eq!(code, 1, "{text}");
    assert_change(&text, "is not taken", "issuer");
    let shell = shell.with("OTEL_EXPORTER_OTLP_CERTIFICATE", ca);
    let (text, _) = shell.look(&server, &[]);
    assert!(text.contains("logs are taken at https://"), "{text}");
}
