//! TLS of both listeners and of the commands, with openssl's certificates, curl, tonic and sockets.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use otlake::otap_producer::{Options, Producer};
use otlake::proto::admin::admin_client::AdminClient;
use otlake::proto::admin::{StatusRequest, StatusResponse};
use otlake::proto::arrow::StatusCode;
use otlake::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use otlake::server_file::ServerFile;
use otlake::signal::Signal;
use prost::Message as _;
use rustix::process;
use socket2::SockRef;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use tonic::Code;

use crate::support::certs::{Certs, EXPIRED, GOOD, status_and_version};
use crate::support::raw::{EXPORT_LOGS, call, frame, post};
use crate::support::stream::OtapStream;
use crate::support::telemetry::{log, logs};
use crate::support::{Server, ServerBuilder, eventually, otlake};

const BODY: &str =
    r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
const JSON: [&str; 4] = ["--header", "content-type: application/json", "--data", BODY];

fn start(certs: &Certs, more: &[&str]) -> Server {
    let flags = certs.flags("server");
    let args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let args = [&args[..], &["--seal-max-age", "1h"], more].concat();
    ServerBuilder::new().args(&args).start()
}

/// Runs a command on the server's data folder.
fn run(server: &Server, args: &[&str]) -> Output {
    let mut command = otlake();
    command.args(args).arg("--data-dir").arg(server.data_dir());
    command.output().unwrap()
}

fn succeed(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fail(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&succeed(&run(server, &["status", "--json"]))).unwrap()
}

/// Requests refused for a reason, over both ports.
fn refused(status: &serde_json::Value, reason: &str) -> u64 {
    let refusals = status["refusals"].as_array().unwrap().iter();
    let of_reason = refusals.filter(|refusal| refusal["reason"] == reason);
    of_reason
        .map(|refusal| refusal["requests"].as_u64().unwrap())
        .sum()
}

/// New requests and retries, over all signals and protocols.
fn requests(status: &serde_json::Value) -> (u64, u64) {
    let signals = status["signals"].as_array().unwrap().iter();
    signals.fold((0, 0), |(requests, repeated), signal| {
        let count = |key: &str| signal[key].as_u64().unwrap();
        (
            requests + count("requests"),
            repeated + count("repeated_requests"),
        )
    })
}

/// The status over a connection of its own, which ends with the call.
async fn told(certs: &Certs, server: &Server) -> StatusResponse {
    let channel = certs.channel("ca", server.grpc).await.unwrap();
    let status = AdminClient::new(channel).status(StatusRequest {}).await;
    status.unwrap().into_inner()
}

/// New requests and retries, as [`requests`] has them.
async fn counted(certs: &Certs, server: &Server) -> (u64, u64) {
    let status = told(certs, server).await;
    let signals = status.signals.iter();
    signals.fold((0, 0), |(requests, repeated), signal| {
        (
            requests + signal.requests,
            repeated + signal.repeated_requests,
        )
    })
}

/// A connection that this test leads itself.
fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(tls, stream)
}

fn http1(more: &str) -> String {
    let length = BODY.len();
    format!(
        "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{BODY}"
    )
}

/// Reads the answer to one request; its body is `{}`.
fn read_answer(stream: &mut impl std::io::Read) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n{}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// Sends one request and reads its answer.
fn exchange(stream: &mut StreamOwned<ClientConnection, TcpStream>) {
    stream.write_all(http1("").as_bytes()).unwrap();
    read_answer(stream);
}

/// SHA-256 of the certificate that the server shows.
fn shown(config: &Arc<ClientConfig>, address: SocketAddr) -> String {
    let mut stream = connect(config, address);
    exchange(&mut stream);
    let certificates = stream.conn.peer_certificates().unwrap();
    otlake::receive::tls::fingerprint(&certificates[0])
}

/// Scenario: curl with each version of TLS and of HTTP, to both ports, and tonic's client.
/// Guarantees: ALPN gives what the client asks for; everything is taken, and status, banner and server.json tell of TLS.
#[tokio::test]
async fn both_listeners_speak_tls() {
    let certs = Certs::new();
    let server = start(&certs, &[]);
    let mut sent = 0;
    for tls in [
        ["--tlsv1.2", "--tls-max", "1.2"],
        ["--tlsv1.3", "--tls-max", "1.3"],
    ] {
        for (http, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let args = [&tls[..], &[http], &JSON].concat();
            let answer = certs.curl(server.http, "/v1/logs", &args);
            assert_eq!(status_and_version(&answer), format!("200 {version}"));
            sent += 1;
        }
        let body = certs.path("grpc");
        fs::write(&body, frame(false, &logs(vec![log("x")]).encode_to_vec())).unwrap();
        let data = format!("@{}", body.display());
        let grpc = [
            "--header",
            "content-type: application/grpc",
            "--data-binary",
            &data,
        ];
        let head = ["--header", "te: trailers", "--http2"];
        let args = [&tls[..], &grpc, &head].concat();
        let answer = certs.curl(server.grpc, EXPORT_LOGS, &args);
        assert_eq!(status_and_version(&answer), "200 2");
        // One empty message: nothing of it was refused.
        assert!(answer.stdout.starts_with(&[0; 5]), "{answer:?}");
        sent += 1;
    }
    let channel = certs.channel("ca", server.grpc).await.unwrap();
    let request = logs(vec![log("x")]);
    LogsServiceClient::new(channel)
        .export(request)
        .await
        .unwrap();
    sent += 1;

    let told = status(&server);
    assert_eq!(requests(&told), (sent, 0));
    assert_eq!(told["transport_security"], "tls");
    assert!(
        server.banner().contains("transport  TLS"),
        "{}",
        server.banner()
    );
    assert!(
        server
            .banner()
            .contains(&format!("https://HOST:{}", server.grpc.port()))
    );
    let file = ServerFile::read(&server.data_dir()).unwrap();
    let certificate = shown(&certs.client("ca"), server.http);
    assert_eq!(file.tls.unwrap().certificates, [certificate]);
}

/// Scenario: clients that trust another authority, or none of these; and a server whose certificate has expired.
/// Guarantees: none of them connects; the log says why, and at the start that the certificate has expired.
#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told() {
    let certs = Certs::new();
    certs.authority("other");
    let server = start(&certs, &[]);
    assert!(certs.channel("other", server.grpc).await.is_err());
    let other = ["--cacert", &certs.text("other.pem")];
    let answer = certs.curl(server.http, "/v1/logs", &[&other[..], &JSON].concat());
    assert_eq!(answer.status.code(), Some(60));
    eventually("both refusals", async || {
        refused(&status(&server), "tls_handshake") == 2
    })
    .await;
    let logged = server.refusals_logged("tls_handshake");
    let is_clear = |line: &String| line.contains("does not trust the server's certificate");
    assert!(
        logged.len() == 2 && logged.iter().all(is_clear),
        "{logged:?}"
    );

    certs.issue("ca", "server", EXPIRED);
    let server = start(&certs, &[]);
    assert!(
        server.log().contains("the certificate has expired"),
        "{}",
        server.log()
    );
    let answer = certs.curl(server.http, "/v1/logs", &JSON);
    assert_eq!(answer.status.code(), Some(60));
    let url = format!("https://localhost:{}", server.grpc.port());
    let ca = certs.text("ca.pem");
    let sent = otlake()
        .args(["send", "--count", "1", "--endpoint", &url, "--ca", &ca])
        .output();
    let error = fail(&sent.unwrap(), 1);
    assert!(
        error.contains("the server's certificate has expired"),
        "{error}"
    );
    // A command on this machine knows the very certificate.
    assert!(status(&server)["ready"].as_bool().unwrap());
}

/// Scenario: plain HTTP, over both versions, comes to the ports with TLS; TLS comes to those without; with a token in the
/// headers.
/// Guarantees: the client and the log are told in words what to change; nothing is taken; the token is not looked at.
#[tokio::test]
async fn the_wrong_transport_is_told() {
    let certs = Certs::new();
    let token = "0123456789abcdef-token";
    let server = start(&certs, &["--token", token]);
    let bearer = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", &bearer),
    ];
    let answer = post(server.http, "/v1/logs", &headers, BODY).await;
    assert_eq!(answer.status, 400);
    assert!(answer.rpc_status().message.contains("write https://"));
    let answer = call(server.grpc, EXPORT_LOGS, &headers[1..], frame(false, b"")).await;
    assert_eq!(answer.status.code(), Code::FailedPrecondition);
    assert!(answer.status.message().contains("write https://"));
    let url = format!("http://{}", server.grpc);
    let flush = ["flush", "--endpoint", &url, "--token", token];
    let error = fail(&run(&server, &flush), 1);
    assert!(error.contains("write https://"), "{error}");
    for protocol in ["grpc", "http"] {
        let logged = server.refusals_logged("wrong_protocol");
        let protocol = format!("protocol=\"{protocol}\"");
        assert!(
            logged.iter().any(|line| line.contains(&protocol)),
            "{logged:?}"
        );
    }
    let told = succeed(&run(&server, &["status", "--json", "--token", token]));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (requests(&told), refused(&told, "wrong_protocol")),
        ((0, 0), 3)
    );

    let server = Server::start();
    assert_eq!(
        certs.curl(server.http, "/v1/logs", &JSON).status.code(),
        Some(35)
    );
    assert!(certs.channel("ca", server.grpc).await.is_err());
    eventually("both refusals", async || {
        refused(&status(&server), "tls_handshake") == 2
    })
    .await;
    let logged = server.refusals_logged("tls_handshake");
    let is_clear = |line: &String| line.contains("the client speaks TLS, and this port does not");
    assert!(
        logged.len() == 2 && logged.iter().all(is_clear),
        "{logged:?}"
    );
    let url = format!("https://{}", server.grpc);
    let error = fail(&run(&server, &["flush", "--endpoint", &url]), 1);
    assert!(
        error.contains("does not speak TLS there: write http://"),
        "{error}"
    );
}

/// Scenario: the certificate is renewed while connections stand, by the files alone and with SIGHUP; between these come a
/// key that does not match, a certificate that has expired, a file of rubbish, and no file at all.
/// Guarantees: new connections get the new certificate, those that stand go on; what is no good is told and changes
/// nothing; commands on this machine work all along.
#[tokio::test]
async fn a_renewed_certificate_is_taken_up_without_dropping_connections() {
    let certs = Certs::new();
    certs.issue("ca", "second", GOOD);
    certs.issue("ca", "third", GOOD);
    certs.issue("ca", "old", EXPIRED);
    let server = start(&certs, &[]);
    let client = certs.client("ca");
    let first = shown(&client, server.http);
    let mut standing = connect(&client, server.http);
    exchange(&mut standing);
    let url = format!("https://localhost:{}", server.grpc.port());
    let connector = certs.connector("ca");
    let stream = OtapStream::connect_over(connector, &url, Signal::Logs, &[]).await;
    let mut stream = stream.unwrap();
    let mut producer = Producer::new(Options::default());
    let request = logs(vec![log("x")]);
    let mut go_on = async |standing: &mut _| {
        exchange(standing);
        let batch = producer.logs(&request).unwrap();
        assert_eq!(stream.exchange(&batch).await.0, StatusCode::Ok);
    };
    go_on(&mut standing).await;

    certs.install("second.pem", "second.key", "server");
    eventually("the second certificate", async || {
        shown(&client, server.http) != first
    })
    .await;
    let second = shown(&client, server.http);
    let file = ServerFile::read(&server.data_dir()).unwrap();
    assert_eq!(
        file.tls.unwrap().certificates,
        [second.as_str(), first.as_str()]
    );
    go_on(&mut standing).await;

    fs::write(
        certs.path("rubbish"),
        "-----BEGIN CERTIFICATE-----\nrubbish",
    )
    .unwrap();
    for (cert, key, told) in [
        ("third.pem", "second.key", "does not match the certificate"),
        ("old.pem", "old.key", "has expired"),
        ("rubbish", "third.key", "is not well-formed PEM"),
        ("", "third.key", "cannot read"),
    ] {
        match cert {
            "" => fs::remove_file(certs.path("server.pem")).unwrap(),
            cert => certs.install(cert, key, "server"),
        }
        eventually(told, async || server.log().contains(told)).await;
        assert_eq!(shown(&client, server.http), second, "{told}");
    }
    let refusals = server
        .log()
        .matches("the new TLS files are refused")
        .count();
    assert_eq!(refusals, 4, "{}", server.log());

    certs.install("third.pem", "third.key", "server");
    server.signal(process::Signal::HUP);
    eventually("the third certificate", async || {
        ![&first, &second].contains(&&shown(&client, server.http))
    })
    .await;
    go_on(&mut standing).await;
    drop(stream);
    succeed(&run(&server, &["flush"]));
    let (status, _) = server.stop();
    assert!(status.success());
}

/// Scenario: mutual TLS, required and optional: clients with a certificate, without one, with one of another authority and
/// with an expired one.
/// Guarantees: required lets in only the first; optional the second too; the log and the commands say what is missing.
#[tokio::test]
async fn clients_are_asked_for_their_certificate() {
    let certs = Certs::new();
    certs.authority("clients");
    certs.authority("other");
    certs.issue("clients", "client", GOOD);
    certs.issue("clients", "old", EXPIRED);
    certs.issue("other", "stranger", GOOD);
    let ca = certs.text("clients.pem");
    let [cert, key] = [certs.text("client.pem"), certs.text("client.key")];
    let identity = ["--cert", &cert, "--key", &key];
    for (auth, security) in [("required", "mtls"), ("optional", "tls")] {
        let server = start(&certs, &["--tls-client-ca", &ca, "--tls-client-auth", auth]);
        let post = |address, name: &str| {
            let [cert, key] = ["pem", "key"].map(|end| certs.text(&format!("{name}.{end}")));
            let identity = ["--cert", &cert, "--key", &key];
            certs.curl(address, "/v1/logs", &[&identity[..], &JSON].concat())
        };
        let told = || {
            let status = [&["status", "--json"][..], &identity].concat();
            let told = succeed(&run(&server, &status));
            serde_json::from_str::<serde_json::Value>(&told).unwrap()
        };
        assert_eq!(status_and_version(&post(server.http, "client")), "200 2");
        // To a port each: of one reason and port only one line is logged in five seconds.
        for (name, port, why) in [
            (
                "stranger",
                server.http,
                "was not issued by one of --tls-client-ca",
            ),
            ("old", server.grpc, "the client's certificate has expired"),
        ] {
            assert!(!post(port, name).status.success(), "{auth} {name}");
            eventually(why, async || server.log().contains(why)).await;
        }
        eventually("two refusals", async || {
            refused(&told(), "tls_handshake") == 2
        })
        .await;
        assert_eq!(told()["transport_security"], security);
        let anonymous = certs.curl(server.http, "/v1/logs", &JSON);
        if auth == "optional" {
            assert_eq!(status_and_version(&anonymous), "200 2");
            continue;
        }
        assert!(!anonymous.status.success());
        eventually("the third", async || refused(&told(), "tls_handshake") == 3).await;
        let error = fail(&run(&server, &["status"]), 1);
        let is_clear = error.contains("for a client certificate") && error.contains("--key");
        assert!(is_clear, "{error}");
        let error = fail(&run(&server, &["status", "--cert", &cert]), 2);
        assert!(error.contains("--cert needs --key"), "{error}");
        let other = ["--cert", &certs.text("stranger.pem"), "--key", &key];
        let error = fail(&run(&server, &[&["status"][..], &other].concat()), 2);
        assert!(error.contains("--key does not match"), "{error}");
        let banner = server.banner();
        assert!(
            banner.contains("every client needs a certificate"),
            "{banner}"
        );
    }
}

/// Scenario: every command that speaks to a server, to one with TLS: found by its data folder, and by an address with the
/// authority, with another one, and with none; `send` over each protocol.
/// Guarantees: they work, or say in one line that the issuer is not trusted.
#[test]
fn the_commands_speak_tls() {
    let certs = Certs::new();
    certs.authority("other");
    let server = start(&certs, &[]);
    let ca = certs.text("ca.pem");
    for (protocol, port) in [
        ("grpc", server.grpc.port()),
        ("otap", server.grpc.port()),
        ("http", server.http.port()),
        ("http-json", server.http.port()),
    ] {
        let url = format!("https://localhost:{port}");
        let send = [
            "send",
            "--count",
            "10",
            "--protocol",
            protocol,
            "--endpoint",
            &url,
        ];
        let trusting = otlake().args(send).args(["--ca", &ca]).output().unwrap();
        succeed(&trusting);
        let other = otlake()
            .args(send)
            .args(["--ca", &certs.text("other.pem")])
            .output();
        let other = other.unwrap();
        assert_eq!(other.status.code(), Some(1));
        let said = [other.stdout, other.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.contains("issuer that is not trusted"),
            "{protocol}: {said}"
        );
    }
    assert!(succeed(&run(&server, &["flush"])).contains("40 rows flushed"));
    let counted = run(
        &server,
        &["query", "--format", "csv", "SELECT count(*) FROM otlp_logs"],
    );
    assert!(succeed(&counted).contains("40"));
    assert!(String::from_utf8_lossy(&counted.stderr).is_empty());
    assert!(!succeed(&run(&server, &["seals", "--json"])).is_empty());

    let elsewhere = tempfile::tempdir().unwrap();
    let url = format!("https://localhost:{}", server.grpc.port());
    let far = |args: &[&str]| {
        let mut command = otlake();
        command.args(["status", "--endpoint", &url, "--data-dir"]);
        command.arg(elsewhere.path()).args(args).output().unwrap()
    };
    succeed(&far(&["--ca", &ca]));
    // Who names an issuer wants TLS.
    let bare = format!("localhost:{}", server.grpc.port());
    let send = ["send", "--count", "1", "--endpoint", &bare, "--ca", &ca];
    succeed(&otlake().args(send).output().unwrap());
    for none in [&[][..], &["--ca", &certs.text("other.pem")]] {
        let error = fail(&far(none), 1);
        assert!(error.contains("issuer that is not trusted"), "{error}");
    }
    let error = fail(&far(&["--ca", &certs.text("ca.key")]), 2);
    assert!(error.contains("holds no certificate in PEM"), "{error}");
    assert!(succeed(&run(&server, &["stop"])).contains("stopped"));
}

/// Scenario: a data folder whose server.json names another certificate than the server there shows.
/// Guarantees: the command does not speak with it, and says so; a token is not sent.
#[test]
fn a_server_that_is_not_the_one_of_the_data_folder_is_not_trusted() {
    let certs = Certs::new();
    let server = start(&certs, &[]);
    let mut file = ServerFile::read(&server.data_dir()).unwrap();
    file.tls.as_mut().unwrap().certificates = vec!["00".repeat(32)];
    file.write(&server.data_dir()).unwrap();
    let error = fail(&run(&server, &["status", "--token", "0123456789abcdef"]), 1);
    assert!(
        error.contains("another certificate than server.json names"),
        "{error}"
    );
}

/// Scenario: files that cannot be used: missing, exchanged, of two pairs, with a passphrase, empty.
/// Guarantees: the server does not start, with exit code 2 and one line that names the file and what to do.
#[test]
fn files_that_cannot_be_used_are_named() {
    let certs = Certs::new();
    certs.issue("ca", "second", GOOD);
    certs.openssl(&[
        "ec",
        "-in",
        "server.key",
        "-out",
        "locked.key",
        "-aes128",
        "-passout",
        "pass:secret",
    ]);
    certs.openssl(&[
        "pkcs8",
        "-topk8",
        "-in",
        "server.key",
        "-out",
        "locked8.key",
        "-passout",
        "pass:secret",
    ]);
    fs::write(certs.path("empty"), "").unwrap();
    for (cert, key, ca, parts) in [
        (
            "nowhere.pem",
            "server.key",
            "",
            ["cannot read", "nowhere.pem (--tls-cert)"],
        ),
        (
            "server.pem",
            "nowhere.key",
            "",
            ["cannot read", "nowhere.key (--tls-key)"],
        ),
        (
            "server.key",
            "server.pem",
            "",
            ["server.key (--tls-cert)", "exchanged"],
        ),
        (
            "server.pem",
            "server.pem",
            "",
            ["server.pem (--tls-key)", "exchanged"],
        ),
        (
            "server.pem",
            "second.key",
            "",
            ["does not match the certificate", "server.pem"],
        ),
        (
            "server.pem",
            "locked.key",
            "",
            ["locked.key (--tls-key)", "openssl pkey"],
        ),
        (
            "server.pem",
            "locked8.key",
            "",
            ["locked8.key (--tls-key)", "openssl pkey"],
        ),
        (
            "empty",
            "server.key",
            "",
            ["empty (--tls-cert)", "is empty"],
        ),
        ("server.pem", "empty", "", ["empty (--tls-key)", "is empty"]),
        (
            "server.pem",
            "server.key",
            "empty",
            ["empty (--tls-client-ca)", "is empty"],
        ),
    ] {
        let [cert, key, client_ca] = [cert, key, ca].map(|file| certs.text(file));
        let mut args = vec!["--tls-cert", &cert, "--tls-key", &key];
        if !ca.is_empty() {
            args.extend(["--tls-client-ca", &client_ca]);
        }
        for check in [&[][..], &["--check"]] {
            let args = [&args[..], check].concat();
            let output = ServerBuilder::new().args(&args).command().output().unwrap();
            let error = fail(&output, 2);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}

/// Scenario: files in other forms than PEM, and of other things: DER, PKCS#12, a request, a public key, cut off, empty, with a byte
/// order mark, and keys of kinds that are not supported.
/// Guarantees: each is told for what it is, with what to do; nothing is shown in rustls's own words alone.
#[test]
fn other_forms_are_told_for_what_they_are() {
    let certs = Certs::new();
    let run = |line: &str| certs.openssl(&line.split(' ').collect::<Vec<_>>());
    run("x509 -in server.pem -outform DER -out cert.der");
    run("pkcs8 -topk8 -nocrypt -in server.key -outform DER -out key.der");
    run("pkcs12 -export -in server.pem -inkey server.key -passout pass:secret -out both.p12");
    run("pkey -in server.key -pubout -out public.pem");
    run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out small.key");
    run("req -x509 -key small.key -subj /CN=localhost -out small.pem");
    let text = fs::read_to_string(certs.path("server.pem")).unwrap();
    fs::write(certs.path("marked.pem"), format!("\u{feff}{text}")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let cut = [&lines[..3], &["-----END CERTIFICATE-----\n"]].concat();
    fs::write(certs.path("cut.pem"), cut.join("\n")).unwrap();
    fs::write(certs.path("torn.pem"), lines[..3].join("\n")).unwrap();
    fs::write(certs.path("empty"), "\n").unwrap();
    for (cert, key, what, advice) in [
        (
            "cert.der",
            "server.key",
            "a certificate in DER",
            "openssl x509 -inform DER",
        ),
        (
            "both.p12",
            "server.key",
            "PKCS#12",
            "openssl pkcs12 -in FILE",
        ),
        (
            "server.csr",
            "server.key",
            "the request for a certificate",
            "the authority has made",
        ),
        (
            "cut.pem",
            "server.key",
            "cannot be read, damaged or cut off",
            "a new copy",
        ),
        (
            "torn.pem",
            "server.key",
            "not well-formed PEM",
            "cut off perhaps",
        ),
        (
            "marked.pem",
            "server.key",
            "a byte order mark",
            "plain text",
        ),
        (
            "empty",
            "server.key",
            "(--tls-cert) is empty",
            "the right file",
        ),
        (
            "server.pem",
            "key.der",
            "a private key in DER",
            "openssl pkey -inform DER",
        ),
        ("server.pem", "both.p12", "PKCS#12", "-nocerts -noenc"),
        (
            "server.pem",
            "public.pem",
            "a public key",
            "the private one",
        ),
        (
            "server.pem",
            "server.csr",
            "the request for a certificate",
            "the key that the request",
        ),
        (
            "server.pem",
            "empty",
            "(--tls-key) is empty",
            "the right file",
        ),
        (
            "small.pem",
            "small.key",
            "a kind that is not supported",
            "ECDSA with P-256",
        ),
    ] {
        let [cert, key] = [cert, key].map(|file| certs.text(file));
        let args = ["--tls-cert", &cert, "--tls-key", &key, "--check"];
        let output = ServerBuilder::new().args(&args).command().output().unwrap();
        let error = fail(&output, 2);
        assert!(
            error.contains(what) && error.contains(advice),
            "{what}: {error}"
        );
    }
}

/// Scenario: an authority's own certificate for a server, one that names no host, one that is for clients alone, and a good one;
/// with a client that trusts it.
/// Guarantees: the log says at the start what clients will object to, and the client says so in plain words; of the good one nothing is
/// said.
#[test]
fn certificates_that_clients_will_refuse_are_told() {
    let certs = Certs::new();
    let make = |name: &str, more: &[&str]| {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let new = [
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ];
        let files = ["-keyout", &key, "-out", &cert, "-subj", "/CN=localhost"];
        certs.openssl(&[&new[..], &files, more].concat());
    };
    let (leaf, names) = (
        "basicConstraints=critical,CA:FALSE",
        "subjectAltName=DNS:localhost",
    );
    make("authority", &["-addext", names]);
    make("nameless", &["-addext", leaf]);
    make(
        "client",
        &[
            "-addext",
            leaf,
            "-addext",
            names,
            "-addext",
            "extendedKeyUsage=clientAuth",
        ],
    );
    make(
        "addressed",
        &["-addext", leaf, "-addext", "subjectAltName=IP:127.0.0.1"],
    );
    make("good", &["-addext", leaf, "-addext", names]);
    for (name, warned, said) in [
        (
            "authority",
            "is an authority's own (CA:TRUE",
            "is an authority's own (CA:TRUE",
        ),
        (
            "nameless",
            "names no host in its subjectAltName",
            "is for another name",
        ),
        ("client", "is for another purpose", "is for another purpose"),
        ("addressed", "", "is for another name"),
        ("good", "", ""),
    ] {
        let flags = certs.flags(name);
        let args: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = ServerBuilder::new().args(&args).start();
        let log = server.log();
        let is_warned = log.contains("WARN the certificate ");
        assert_eq!(is_warned, !warned.is_empty(), "{name}: {log}");
        assert!(log.contains(warned), "{name}: {log}");
        let url = format!("https://localhost:{}", server.grpc.port());
        let output = run(
            &server,
            &[
                "status",
                "--endpoint",
                &url,
                "--ca",
                &certs.text(&format!("{name}.pem")),
            ],
        );
        match said {
            "" => drop(succeed(&output)),
            said => {
                let error = fail(&output, 1);
                assert!(error.contains(said), "{name}: {error}");
                assert!(!error.contains("OtherError"), "{name}: {error}");
            }
        }
    }
}

/// Scenario: a key with rights for all, for a group, and for its user alone.
/// Guarantees: the first is warned about.
#[test]
fn a_key_that_all_can_read_is_warned_about() {
    let certs = Certs::new();
    use std::os::unix::fs::PermissionsExt as _;
    for (mode, is_warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        let open = fs::Permissions::from_mode(mode);
        fs::set_permissions(certs.path("server.key"), open).unwrap();
        let server = start(&certs, &[]);
        let log = server.log();
        assert_eq!(
            log.contains("can read the private key"),
            is_warned,
            "{mode:o} {log}"
        );
    }
}

/// Scenario: many connections are opened to a port with TLS, of which some send nothing and some half a handshake.
/// Guarantees: others are served meanwhile; a stop does not wait for them.
#[test]
fn silent_connections_keep_nobody_out() {
    let certs = Certs::new();
    let server = start(&certs, &[]);
    let silent: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut stream = TcpStream::connect(server.http).unwrap();
            if number % 2 == 0 {
                stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    let answer = certs.curl(server.http, "/v1/logs", &JSON);
    assert_eq!(status_and_version(&answer), "200 2");
    let began = std::time::Instant::now();
    let (status, _) = server.stop();
    assert!(status.success() && began.elapsed() < Duration::from_secs(9));
    drop(silent);
}

/// Scenario: clients get their answer inside TLS and leave: by closing TLS and the socket, or the socket alone, or by
/// having the server close; each then sends the same again, over a new connection. Then one is reset before it has read its
/// answer, and sends the same again twice.
/// Guarantees: what was answered is not taken for a retry; what was not is, once.
#[tokio::test]
async fn answers_inside_tls_are_watched_as_others_are() {
    let certs = Certs::new();
    let server = start(&certs, &[]);
    let client = certs.client("ca");
    let all_have_left = async || {
        eventually("the end of all connections", async || {
            told(&certs, &server).await.connections == 1
        })
        .await;
    };
    let mut sent = 0;
    for round in 0..5 {
        for leave in ["notify", "close", "server"] {
            let mut stream = connect(&client, server.http);
            if leave == "server" {
                stream
                    .write_all(http1("connection: close\r\n").as_bytes())
                    .unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                assert!(all.ends_with(b"{}"));
            } else {
                exchange(&mut stream);
            }
            if leave != "close" {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
            drop(stream);
            sent += 1;
            all_have_left().await;
            assert_eq!(counted(&certs, &server).await, (sent, 0), "{round} {leave}");
        }
    }
    for leave in ["notify", "reset"] {
        let mut stream = connect(&client, server.http);
        // The handshake first, so that what comes after it is the answer alone.
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.write_all(http1("").as_bytes()).unwrap();
        let before = sent;
        eventually("the answer", async || {
            counted(&certs, &server).await.0 == before + 1
        })
        .await;
        assert!(stream.sock.peek(&mut [0]).unwrap() > 0);
        if leave == "notify" {
            // As a client that has run out of patience does.
            stream.conn.send_close_notify();
            stream.conn.write_tls(&mut stream.sock).unwrap();
        } else {
            let socket = SockRef::from(&stream.sock);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        all_have_left().await;
        let before = counted(&certs, &server).await;
        exchange(&mut connect(&client, server.http));
        assert_eq!(
            counted(&certs, &server).await,
            (before.0, before.1 + 1),
            "{leave}"
        );
        exchange(&mut connect(&client, server.http));
        assert_eq!(
            counted(&certs, &server).await,
            (before.0 + 1, before.1 + 1),
            "{leave}"
        );
        sent = before.0 + 1;
        all_have_left().await;
    }
}
