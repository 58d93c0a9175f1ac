//! Who may send: tokens, what is open without one, and browsers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::Method;
use otlake::proto::admin::StatusRequest;
use otlake::proto::admin::admin_client::AdminClient;
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::support::raw::{
    EXPORT_LOGS, GrpcAnswer, JSON, PROTOBUF, accepted_rows, call, frame, refused,
};
use crate::support::telemetry::{log, logs};
use crate::support::{Answer, Server, ServerBuilder};

const TOKEN: &str = "0123456789abcdef-token";
const PAGE: &str = "https://app.example.com";

fn with_token() -> Server {
    ServerBuilder::new()
        .args(&["--seal-max-age", "1h"])
        .env("OTLAKE_TOKEN", TOKEN)
        .start()
}

async fn over_grpc(server: &Server, headers: &[(&str, &str)]) -> GrpcAnswer {
    let body = frame(false, &logs(vec![log("x")]).encode_to_vec());
    call(server.grpc, EXPORT_LOGS, headers, body).await
}

async fn over_http(server: &Server, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("content-type", PROTOBUF)];
    all.extend(headers);
    let body = logs(vec![log("x")]).encode_to_vec();
    server.post("/v1/logs", &all, body).await
}

/// Scenario: the right token, in each form that clients can be made to send.
/// Guarantees: taken over both protocols.
#[tokio::test]
async fn the_token_is_taken_in_every_form() {
    let server = with_token();
    let forms = [
        ("authorization", format!("Bearer {TOKEN}")),
        ("authorization", format!("bearer {TOKEN}")),
        ("Authorization", format!("BEARER   {TOKEN}")),
        ("x-api-key", TOKEN.to_owned()),
        ("X-API-Key", TOKEN.to_owned()),
    ];
    for (name, value) in &forms {
        let headers = [(*name, value.as_str())];
        assert_eq!(
            over_grpc(&server, &headers).await.status.code(),
            Code::Ok,
            "{name}"
        );
        assert_eq!(over_http(&server, &headers).await.status, 200, "{name}");
    }
    let status = server.status_with(Some(TOKEN)).await;
    assert_eq!(accepted_rows(&status), 2 * forms.len() as u64);
    assert!(status.token_required);
}

/// Scenario: no token, a wrong one, parts of the right one, another scheme, and a variable that was not expanded.
/// Guarantees: UNAUTHENTICATED / 401 with a hint that fits; counted; the right token is nowhere in answer or log.
#[tokio::test]
async fn a_missing_or_wrong_token_is_refused_with_a_hint() {
    let server = with_token();
    let longer = format!("Bearer {TOKEN}0");
    let bad: [(&[(&str, &str)], &str); 9] = [
        (&[], "authorization: Bearer TOKEN"),
        (
            &[("authorization", "Basic dTpw")],
            "authorization: Bearer TOKEN",
        ),
        (&[("authorization", TOKEN)], "authorization: Bearer TOKEN"),
        (
            &[("authorization", "Bearer wrong-wrong-wrong-wrong")],
            "the token is wrong",
        ),
        (&[("authorization", "Bearer ")], "token"),
        (&[("authorization", &longer)], "the token is wrong"),
        (
            &[("x-api-key", &TOKEN[..TOKEN.len() - 1])],
            "the token is wrong",
        ),
        (&[("authorization", "Bearer ${TOKEN}")], "did not expand"),
        (&[("x-api-key", "${OTLAKE_TOKEN}")], "did not expand"),
    ];
    for (headers, hint) in bad {
        let answer = over_grpc(&server, headers).await;
        assert_eq!(answer.status.code(), Code::Unauthenticated, "{headers:?}");
        assert!(
            answer.status.message().contains(hint),
            "{headers:?}: {}",
            answer.status
        );

        let answer = over_http(&server, headers).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let status = answer.rpc_status();
        assert_eq!(status.code, Code::Unauthenticated as i32);
        assert!(
            status.message.contains(hint),
            "{headers:?}: {}",
            status.message
        );
        assert!(!status.message.contains(TOKEN));
    }
    let status = server.status_with(Some(TOKEN)).await;
    for protocol in ["grpc", "http"] {
        let count = refused(&status, protocol, "unauthenticated");
        assert_eq!(count, (bad.len() as u64, 0), "{protocol}");
        assert!(!server.refusals_logged("unauthenticated").is_empty());
    }
    assert_eq!(accepted_rows(&status), 0);
    assert!(
        !server.log().contains(&TOKEN[..TOKEN.len() - 1]),
        "{}",
        server.log()
    );
}

/// Sends a request's head only, and reads what the server says at once.
fn answer_to_head(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Duration::from_millis(2500); // less than the server lingers over a refused body
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let len = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

/// Scenario: the head of a request without a token announces a gigabyte, and no byte of it follows.
/// Guarantees: 401 comes at once; the body was not waited for, nor was it asked for with
/// 100 Continue.
#[test]
fn the_token_is_checked_before_the_body_is_read() {
    let server = with_token();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 1073741824\r\nexpect: 100-continue\r\n\r\n";
    let answer = answer_to_head(server.http, head);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let chunked = "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   transfer-encoding: chunked\r\n\r\n";
    let answer = answer_to_head(server.http, chunked);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

/// Scenario: a client without a token sends 8 MiB in one piece.
/// Guarantees: it reads its 401, instead of a connection reset that it would take for a reason to try again.
#[tokio::test]
async fn the_refusal_reaches_who_is_still_sending() {
    let server = with_token();
    for _ in 0..5 {
        let headers = [("content-type", PROTOBUF)];
        let answer = server.post("/v1/logs", &headers, vec![0; 8 << 20]).await;
        assert_eq!(answer.status, 401);
    }
}

/// Scenario: a gRPC call without a token sends its headers and keeps its stream open.
/// Guarantees: UNAUTHENTICATED comes before any message was sent.
#[tokio::test]
async fn the_token_is_checked_before_a_grpc_message_is_sent() {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let server = with_token();
    let body = StreamBody::new(tokio_stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, std::io::Error>,
    >());
    let client: Client<_, _> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = http::Request::post(format!("http://{}{EXPORT_LOGS}", server.grpc))
        .header("content-type", "application/grpc")
        .body(body.boxed_unsync())
        .unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(10), client.request(request)).await;
    let response = answered.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], "16");
}

/// Scenario: probes of a server that wants a token.
/// Guarantees: health, `/healthz` and `/readyz` answer without one; admin and reflection do not.
#[tokio::test]
async fn only_probes_are_open_without_a_token() {
    let server = with_token();
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(server.get(probe).await.status, 200, "{probe}");
    }
    let mut health = HealthClient::new(server.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();

    let mut admin = AdminClient::new(server.channel().await);
    let refused = admin.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let refused = reflection
        .server_reflection_info(tokio_stream::empty())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    // A path that merely looks like a probe's is none.
    for path in ["/healthz/", "/readyz/../v1/logs", "/nothing"] {
        assert_eq!(server.get(path).await.status, 401, "{path}");
    }
}

/// Starts a server that must refuse to; answers with its exit code and what it said.
fn start_failing(args: &[&str], token: Option<&str>) -> (Option<i32>, String) {
    let mut builder = ServerBuilder::new().args(args);
    if let Some(token) = token {
        builder = builder.env("OTLAKE_TOKEN", token);
    }
    // The check ends by itself, should the settings be taken after all.
    let output = builder.args(&["--check"]).command().output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Scenario: listening on other than loopback without a token.
/// Guarantees: it does not start and says what to set; with `--no-auth` or a token it starts, and the banner warns.
#[test]
fn an_open_port_to_the_world_must_be_asked_for() {
    for listen in [
        "--grpc-listen=0.0.0.0:0",
        "--http-listen=0.0.0.0:0",
        "--http-listen=[::]:0",
    ] {
        let (code, said) = start_failing(&[listen], None);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("OTLAKE_TOKEN") && said.contains("--no-auth"),
            "{said}"
        );
        let (code, said) = start_failing(&[listen], Some(TOKEN));
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = start_failing(&[listen, "--no-auth"], None);
        assert_eq!(code, Some(0), "{said}");
    }
    let server = Server::with(&["--http-listen=0.0.0.0:0", "--no-auth"]);
    assert!(server.banner().contains("NO TOKEN"), "{}", server.banner());
    let server = Server::start();
    assert!(server.banner().contains("no token"), "{}", server.banner());
}

/// Scenario: tokens that are too short, not expanded, or cannot stand in a header.
/// Guarantees: the start is refused with the reason; the token itself is never printed.
#[test]
fn a_bad_token_is_refused_at_the_start() {
    let bad = [
        "short-short-sho",
        "${OTLAKE_TOKEN_FROM_ELSEWHERE}",
        "with space with space",
        "tökentökentökentöken",
    ];
    for token in bad {
        let (code, said) = start_failing(&[], Some(token));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("OTLAKE_TOKEN"), "{said}");
        assert!(!said.contains(token), "{said}");
        let (code, said) = start_failing(&["--token", token], None);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--token") && !said.contains(token), "{said}");
    }
    let (code, said) = start_failing(&[], Some("exactly-16-chars"));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = start_failing(&["--token", TOKEN, "--no-auth"], None);
    assert_eq!(code, Some(2), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
}

/// Scenario: a server with a token at the most talkative log level, from the environment, a flag and a file; `--check`.
/// Guarantees: the token is in no log, banner, server file or printed setting.
#[tokio::test]
async fn the_token_is_never_shown() {
    let builder = ServerBuilder::new().args(&["--token", TOKEN]);
    let server = builder
        .args(&["--log-level", "trace", "--log-format", "json"])
        .start();
    let bearer = format!("Bearer {TOKEN}");
    over_grpc(&server, &[("authorization", &bearer)]).await;
    over_http(&server, &[("x-api-key", TOKEN)]).await;
    over_http(&server, &[("x-api-key", &TOKEN[1..])]).await;
    assert!(
        server.banner().contains("needs the token"),
        "{}",
        server.banner()
    );
    let file = std::fs::read_to_string(server.data_dir().join("server.json")).unwrap();
    for shown in [server.log(), server.banner(), file] {
        assert!(!shown.contains(&TOKEN[1..]), "{shown}");
    }
    let (status, dir) = server.stop();
    assert!(status.success());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains(&TOKEN[1..]), "{log}");

    let file = dir.path().join("otlake.toml");
    std::fs::write(&file, format!("token = \"{TOKEN}\"\n")).unwrap();
    let (code, said) = start_failing(&["--config", file.to_str().unwrap()], None);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("********") && !said.contains(TOKEN), "{said}");
    let (code, said) = start_failing(&[], Some(TOKEN));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("********") && !said.contains(TOKEN), "{said}");
}

/// Scenario: requests that a browser sends for some page, to a server with defaults.
/// Guarantees: 403 / PERMISSION_DENIED on both ports, no permission in the headers, not even for the preflight; counted.
#[tokio::test]
async fn browsers_are_refused_by_default() {
    let server = Server::start();
    for origin in [PAGE, "null", "http://localhost:3000", "file://"] {
        let headers = [("origin", origin)];
        let answer = over_grpc(&server, &headers).await;
        assert_eq!(answer.status.code(), Code::PermissionDenied, "{origin}");
        assert!(answer.status.message().contains("--cors-origin"));

        let answer = over_http(&server, &headers).await;
        assert_eq!(answer.status, 403, "{origin}");
        assert!(answer.rpc_status().message.contains("--cors-origin"));
        assert!(!answer.headers.contains_key("access-control-allow-origin"));

        let preflight = preflight(&server, origin).await;
        assert_eq!(preflight.status, 403, "{origin}");
        assert!(
            !preflight
                .headers
                .contains_key("access-control-allow-origin")
        );
    }
    let status = server.status().await;
    assert_eq!(refused(&status, "grpc", "forbidden_origin"), (4, 0));
    assert_eq!(refused(&status, "http", "forbidden_origin"), (8, 0));
    assert_eq!(accepted_rows(&status), 0);
}

async fn preflight(server: &Server, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,content-type",
        ),
    ];
    server
        .request(Method::OPTIONS, "/v1/traces", &headers, "")
        .await
}

/// Scenario: a page whose origin is allowed, on a server with a token; and another page.
/// Guarantees: the preflight passes without the token and permits method and headers; the request itself needs the
/// token, and even its refusal can be read by the page; the other page is refused with and without the token.
#[tokio::test]
async fn an_allowed_page_may_send_with_the_token() {
    let server = ServerBuilder::new()
        .args(&[
            "--cors-origin",
            PAGE,
            "--seal-max-age",
            "1h",
            "--token",
            TOKEN,
        ])
        .start();
    let permitted = preflight(&server, PAGE).await;
    assert!(permitted.status.is_success(), "{}", permitted.status);
    assert_eq!(permitted.header("access-control-allow-origin"), PAGE);
    assert!(
        permitted
            .header("access-control-allow-methods")
            .contains("POST")
    );
    let allowed = permitted.header("access-control-allow-headers");
    assert!(
        allowed.contains("authorization") && allowed.contains("content-type"),
        "{allowed}"
    );
    assert!(
        permitted
            .header("access-control-max-age")
            .parse::<u32>()
            .unwrap()
            > 0
    );
    assert!(permitted.header("vary").contains("origin"));

    let bearer = format!("Bearer {TOKEN}");
    let headers = [("origin", PAGE), ("authorization", bearer.as_str())];
    let taken = over_http(&server, &headers).await;
    assert_eq!(taken.status, 200);
    assert_eq!(taken.header("access-control-allow-origin"), PAGE);
    assert!(taken.header("vary").contains("origin"));
    let taken = over_grpc(&server, &headers).await;
    assert_eq!(taken.status.code(), Code::Ok);

    let without_token = over_http(&server, &headers[..1]).await;
    assert_eq!(without_token.status, 401);
    assert_eq!(without_token.header("access-control-allow-origin"), PAGE);

    for other in [
        "https://evil.example.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "null",
    ] {
        let headers = [("origin", other), headers[1]];
        assert_eq!(over_http(&server, &headers).await.status, 403, "{other}");
        assert_eq!(
            over_grpc(&server, &headers).await.status.code(),
            Code::PermissionDenied
        );
        assert_eq!(preflight(&server, other).await.status, 403, "{other}");
    }
    assert_eq!(accepted_rows(&server.status_with(Some(TOKEN)).await), 2);
}

/// Scenario: `--cors-origin *`.
/// Guarantees: every page may send, and is answered by its own name.
#[tokio::test]
async fn every_page_may_send_when_all_are_allowed() {
    let server = Server::with(&["--cors-origin", "*"]);
    for origin in [PAGE, "null"] {
        assert!(preflight(&server, origin).await.status.is_success());
        let headers = [("origin", origin), ("content-type", JSON)];
        let answer = server.post("/v1/logs", &headers, "{}").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
    }
}
