//! Named tokens from a file: what each is for, by which name it is counted, and how they change.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use otlake::proto::admin::{StatusResponse, TokenStatus};
use prost::Message as _;
use rustix::process::Signal;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::support::raw::{EXPORT_LOGS, JSON, call, frame, refused};
use crate::support::telemetry::{log, logs};
use crate::support::{Server, ServerBuilder, eventually, otlake};

const AGENTS: &str = "0123456789abcdef-agents";
const BOARD: &str = "0123456789abcdef-board";
const OPS: &str = "0123456789abcdef-ops";
const OWN: &str = "0123456789abcdef-own";

fn file() -> String {
    format!("# who may what\nagents ingest {AGENTS}\nboard  query  {BOARD}\nops    admin  {OPS}\n")
}

/// A token file that only its owner reads, in a folder of its own.
struct TokenFile(tempfile::TempDir);

impl TokenFile {
    fn new(text: &str) -> TokenFile {
        let file = TokenFile(tempfile::tempdir().unwrap());
        file.write(text);
        file
    }

    /// By a rename, so that nobody sees half of it.
    fn write(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("tokens")
    }

    fn builder(&self) -> ServerBuilder {
        let path = self.path();
        let args = [
            "--token-file",
            path.to_str().unwrap(),
            "--seal-max-age",
            "1h",
        ];
        ServerBuilder::new().args(&args)
    }
}

async fn over_grpc(server: &Server, token: &str) -> tonic::Status {
    let bearer = format!("Bearer {token}");
    let body = frame(false, &logs(vec![log("x")]).encode_to_vec());
    let headers = [("authorization", bearer.as_str())];
    call(server.grpc, EXPORT_LOGS, &headers, body).await.status
}

async fn over_http(server: &Server, token: &str) -> u16 {
    let headers = [("content-type", JSON), ("x-api-key", token)];
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
    server
        .post("/v1/logs", &headers, body)
        .await
        .status
        .as_u16()
}

fn run(server: &Server, token: &str, args: &[&str]) -> Output {
    let mut command = otlake();
    command.args(args).args(["--token", token]);
    command.arg("--data-dir").arg(server.data_dir());
    command.output().unwrap()
}

fn send_otap(server: &Server, token: &str) -> bool {
    let url = format!("http://{}", server.grpc);
    let send = ["send", "--protocol", "otap", "--count", "5"];
    let sent = otlake()
        .args(send)
        .args(["--endpoint", &url, "--token", token])
        .output();
    sent.unwrap().status.success()
}

fn token<'a>(status: &'a StatusResponse, name: &str) -> &'a TokenStatus {
    status
        .tokens
        .iter()
        .find(|token| token.name == name)
        .unwrap()
}

/// Scenario: a token for each role, and that of `--token`, for every kind of call.
/// Guarantees: each may do what it is for and is else told, with its name, what it is not for: PERMISSION_DENIED or 403;
/// each name has its counts; no token is in the log.
#[tokio::test]
async fn each_token_does_what_it_is_for() {
    let tokens = TokenFile::new(&file());
    let mut server = tokens.builder().env("OTLAKE_TOKEN", OWN).start();
    for (token, name, may) in [
        (AGENTS, "agents", [true, false, false]),
        (BOARD, "board", [false, true, false]),
        (OPS, "ops", [false, true, false]),
        (OWN, "--token", [true, true, false]),
    ] {
        let sent = over_grpc(&server, token).await;
        let expected = if may[0] {
            Code::Ok
        } else {
            Code::PermissionDenied
        };
        assert_eq!(sent.code(), expected, "{name}");
        if !may[0] {
            let told = sent.message();
            assert!(
                told.contains(name) && told.contains("needs one for ingest"),
                "{told}"
            );
        }
        let expected = if may[0] { 200 } else { 403 };
        assert_eq!(over_http(&server, token).await, expected, "{name}");
        assert_eq!(send_otap(&server, token), may[0], "{name}");
        for read in [&["status"][..], &["flush"], &["seals"]] {
            let output = run(&server, token, read);
            assert_eq!(output.status.success(), may[1], "{name} {read:?}");
        }
        let mut reflection = ServerReflectionClient::new(server.channel().await);
        let mut request = tonic::Request::new(tokio_stream::empty::<ServerReflectionRequest>());
        request
            .metadata_mut()
            .insert("x-api-key", token.parse().unwrap());
        reflection.server_reflection_info(request).await.unwrap();
    }
    for token in [AGENTS, BOARD] {
        let error = run(&server, token, &["stop"]);
        let error = String::from_utf8_lossy(&error.stderr).into_owned();
        assert!(error.contains("needs one for admin"), "{error}");
    }
    let status = server.status_with(Some(BOARD)).await;
    let of = |name| {
        let token = token(&status, name);
        (token.requests, token.accepted_rows, token.refused_requests)
    };
    // One request over gRPC and over HTTP, a batch of five over OTAP; status, flush, seals and stop are refused.
    assert_eq!(of("agents"), (3, 7, 4));
    assert_eq!(of("board"), (0, 0, 4));
    assert_eq!(of("ops"), (0, 0, 3));
    assert_eq!(of("--token"), (3, 7, 0));
    assert_eq!(refused(&status, "grpc", "not_permitted").0, 2 + 4 + 1);
    let logged = server.refusals_logged("not_permitted").concat();
    assert!(logged.contains("token=\"board\""), "{logged}");
    assert!(run(&server, OPS, &["stop"]).status.success());
    assert!(server.wait().success());
    assert!(
        server.log().contains("asked to stop token=\"ops\""),
        "{}",
        server.log()
    );
    assert!(
        !server.log().contains("0123456789abcdef"),
        "{}",
        server.log()
    );
    assert!(
        !server.log().contains("can read the tokens"),
        "{}",
        server.log()
    );
}

/// Scenario: the file changes: another token under a name, a name less, a mistake, and with SIGHUP the first text again.
/// Guarantees: what is new is taken within seconds and what is gone is not; the mistake is told without a token, and changes
/// nothing; a name's counts go on.
#[tokio::test]
async fn a_changed_file_is_taken_up() {
    let tokens = TokenFile::new(&file());
    let server = tokens.builder().start();
    let is_taken = async |token: &str| over_http(&server, token).await == 200;
    assert!(is_taken(AGENTS).await);

    let other = "fedcba9876543210-agents";
    tokens.write(&format!("agents ingest,query {other}\n"));
    eventually("the new token", async || is_taken(other).await).await;
    assert!(!is_taken(AGENTS).await);
    assert_eq!(over_http(&server, BOARD).await, 401);
    let status = server.status_with(Some(other)).await;
    assert_eq!(token(&status, "agents").requests, 2);

    tokens.write(&format!("agents everything {OWN}\n"));
    eventually("the refusal", async || {
        server
            .log()
            .contains("tokens:1: the second column is not a list of roles")
    })
    .await;
    assert!(is_taken(other).await && !is_taken(OWN).await);
    assert!(server.log().contains("the old tokens stay in use"));

    tokens.write(&file());
    server.signal(Signal::HUP);
    eventually("the first token", async || is_taken(AGENTS).await).await;
    assert!(!is_taken(other).await);
    assert!(
        !server.log().contains("0123456789abcdef"),
        "{}",
        server.log()
    );
}

/// Scenario: token files that cannot be used, at the start and by `--check`; one that every user can read.
/// Guarantees: exit code 2, one line with the file and what is wrong, no token in it; the last is warned about.
#[test]
fn a_token_file_that_cannot_be_used_is_named() {
    for (text, part) in [
        ("", "holds no token"),
        (
            "agents ingest ${TOKEN_0123456789abcdef}\n",
            "tokens:1: the token starts with `${`",
        ),
        (
            "agents 0123456789abcdef ingest\n",
            "tokens:1: the second column",
        ),
        ("agents ingest 0123456789\n", "10 characters"),
    ] {
        let tokens = TokenFile::new(text);
        for check in [&[][..], &["--check"]] {
            let output = tokens.builder().args(check).command().output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                error.lines().count() == 1 && error.contains(part),
                "{error}"
            );
            assert!(!error.contains("0123456789abcdef"), "{error}");
        }
    }
    let none = ServerBuilder::new().args(&["--token-file", "/nowhere/tokens"]);
    let output = none.command().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("cannot read the token file /nowhere/tokens"),
        "{error}"
    );

    let tokens = TokenFile::new(&file());
    fs::set_permissions(tokens.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let server = tokens.builder().args(&["--grpc-listen=0.0.0.0:0"]).start();
    assert!(
        server.log().contains("can read the tokens"),
        "{}",
        server.log()
    );
    assert!(server.banner().contains("needs the token"));
}

/// Scenario: a token of the file is quack's too, whoever may do what with it.
/// Guarantees: the server does not start, and names the token's name and not the token.
#[test]
fn quacks_token_is_nobody_elses() {
    let quack = "0123456789abcdef-quack";
    let tokens = TokenFile::new(&format!("agents ingest {quack}\n"));
    let server = tokens.builder().args(&["--quack-listen", "127.0.0.1:0"]);
    let server = server.env("OTLAKE_QUACK_TOKEN", quack);
    let output = server.command().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("the token agents in"), "{error}");
    assert!(error.contains("is quack's too"), "{error}");
    assert!(!error.contains(quack), "{error}");
}
