//! The whole command against a server in the same process.

mod server;
mod streams;

use std::collections::BTreeSet;
use std::fs;

use clap::Parser;
use prost::Message;

use self::server::{Answer, Server};
use super::*;
use crate::cli::args::{Cli, Command};
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::collector::trace::v1::ExportTraceServiceRequest;

fn args(server: &Server, line: &str) -> SendArgs {
    let endpoint = format!("http://{}/", server.address);
    parsed(&format!("otlake send --endpoint {endpoint} {line}"))
}

fn parsed(line: &str) -> SendArgs {
    match Cli::try_parse_from(line.split_whitespace())
        .unwrap()
        .command
    {
        Command::Send(args) => args,
        other => panic!("{other:?}"),
    }
}

/// The values of `"otlake.seq"` in a JSON document.
fn json_seqs(document: &str) -> impl Iterator<Item = u64> {
    let mark = r#""otlake.seq","value":{"intValue":""#;
    document
        .split(mark)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
}

/// Scenario: each protocol with each compression, all signals, three connections, a token.
/// Guarantees: every record arrives once, readable, at its signal's path, with the token; the command says success.
#[tokio::test]
async fn every_record_arrives_once_over_each_protocol() {
    for protocol in ["grpc", "http", "http-json"] {
        for compression in ["none", "gzip", "zstd", "deflate"] {
            let server = Server::start(Answer::Accept).await;
            let line = format!(
                "--signal all --count 205 --batch 20 --connections 3 --token 0123456789abcdef --quiet \
                 --protocol {protocol} --compression {compression}"
            );
            assert!(generated(&args(&server, &line)).await.unwrap());
            let received = server.received();
            assert_eq!(received.len(), 33);
            let mut seqs = Vec::new();
            for request in received {
                assert_eq!(request.headers["authorization"], "Bearer 0123456789abcdef");
                let mut document = Vec::new();
                if protocol == "http-json" {
                    document.extend_from_slice(&request.body);
                } else {
                    json::write(request.signal(), &request.body, &mut document).unwrap();
                }
                let text = String::from_utf8(document).unwrap();
                assert_eq!(
                    guess::json_signal(text.as_bytes()).unwrap(),
                    request.signal()
                );
                seqs.extend(json_seqs(&text));
            }
            seqs.sort_unstable();
            assert_eq!(
                seqs,
                (0..615).collect::<Vec<u64>>(),
                "{protocol} {compression}"
            );
        }
    }
}

/// What one request of ten records becomes under an answer.
async fn report_of(answer: Answer, protocol: &str, more: &str) -> String {
    let server = Server::start(answer).await;
    let args = args(
        &server,
        &format!("--count 10 --batch 10 --protocol {protocol} {more}"),
    );
    report_of_run(&args, 10, 10).await
}

/// The report of a run of so many log records over one connection.
async fn report_of_run(args: &SendArgs, records: u64, batch: u64) -> String {
    let target = Target::new(args, transport(args.protocol)).unwrap();
    let plan = Plan::new(records, batch, vec![Signal::Logs]);
    let (stop, stopped) = watch::channel(None);
    let shared = Shared {
        catalog: Catalog::new(SEED, "3f9a1c07", 0),
        encoding: match args.protocol {
            SendProtocol::HttpJson => Encoding::Json,
            _ => Encoding::Protobuf,
        },
        next: AtomicU64::new(0),
        pace: None,
        clock: Clock::Now,
        progress: ProgressBar::hidden(),
        plan,
        stop,
    };
    let client = target.connect().await.unwrap();
    let tally = send_all(Arc::new(shared), client, stopped).await.unwrap();
    let report = Report {
        run: "3f9a1c07",
        signals: &[Signal::Logs],
        planned: records,
        elapsed: Duration::from_secs(1),
        ended_early: None,
        hint: None,
        tally,
    };
    report.to_string()
}

/// Scenario: flags that only OTAP goes by, with every other protocol and none, for generated records and files.
/// Guarantees: a usage error that names the flag and the protocol, before a server is looked for.
#[tokio::test]
async fn flags_of_otap_are_no_flags_of_otlp() {
    for protocol in [
        "",
        "--protocol grpc",
        "--protocol http",
        "--protocol http-json",
    ] {
        for flag in [
            "--in-flight 2",
            "--arrow-compression none",
            "--arrow-compression zstd a.pb",
        ] {
            let error = run(parsed(&format!("otlake send {protocol} {flag}"))).await;
            let error = error.unwrap_err();
            assert!(error.is::<UsageError>(), "{protocol} {flag}: {error}");
            let (name, _) = flag.split_once(' ').unwrap();
            let start = format!("{name} is for --protocol otap");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
}

/// Scenario: refusals and partial successes over each protocol.
/// Guarantees: status and message of the server are in the report, and rejected records are not acknowledged.
#[tokio::test]
async fn what_the_server_says_is_reported() {
    for protocol in ["grpc", "http", "http-json"] {
        let text = report_of(Answer::Partial(3, "3 bad ids"), protocol, "").await;
        assert!(text.contains("acknowledged   7\n"), "{text}");
        assert!(
            text.contains(
                "rejected       3 (single records, in requests that were accepted)\n    3 bad ids\n"
            ),
            "{text}"
        );

        let text = report_of(Answer::Partial(0, "old schema"), protocol, "").await;
        assert!(
            text.contains("acknowledged   10\n    old schema\n"),
            "{text}"
        );

        let reason = match protocol {
            "grpc" => "UNAVAILABLE",
            _ => "503 Service Unavailable",
        };
        let text = report_of(Answer::Refuse(14, 503, "disk full"), protocol, "").await;
        assert!(text.contains("refused        10\n"), "{text}");
        let lines = format!("  {reason}: 10 records in 1 requests\n    disk full\n");
        assert!(text.contains(&lines), "{text}");

        let text = report_of(Answer::Silence, protocol, "--timeout 20ms").await;
        assert!(
            text.contains("unanswered     10\n  no answer in time: 10 records"),
            "{text}"
        );
    }
}

/// Scenario: the server goes away while a run is under way.
/// Guarantees: the run ends soon, says failure, and does not try a million requests.
#[tokio::test]
async fn a_lost_server_ends_the_run() {
    for protocol in ["grpc", "http"] {
        let server = Server::start(Answer::Silence).await;
        let args = args(
            &server,
            &format!("--count 1000000 --batch 1 --quiet --timeout 5ms --protocol {protocol}"),
        );
        assert!(!generated(&args).await.unwrap());
        assert!(server.received().len() <= UNREACHED_MAX as usize);
    }
}

/// Scenario: nobody listens.
/// Guarantees: one line that names the address and what to check.
#[tokio::test]
async fn no_server_is_one_clear_line() {
    let server = Server::start(Answer::Accept).await;
    let args = args(&server, "--protocol http");
    let address = server.address;
    drop(server);
    // The listener goes with its task, soon.
    let error = loop {
        match generated(&args).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break format!("{error:#}"),
        }
    };
    assert!(
        error.contains(&address.to_string()) && error.contains("otlake serve"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
}

/// Scenario: 300 records at 1000 a second over two connections.
/// Guarantees: it takes the time that it should, within what a loaded machine allows, and never less.
#[tokio::test]
async fn a_rate_is_held() {
    let server = Server::start(Answer::Accept).await;
    let args = args(
        &server,
        "--count 300 --batch 10 --rate 1000 --connections 2 --quiet",
    );
    let start = Instant::now();
    assert!(generated(&args).await.unwrap());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(290), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Scenario: protobuf, pretty-printed JSON and NDJSON files, and two that cannot be sent.
/// Guarantees: each request goes out as it is in its file, to its signal's path; the bad ones make the command fail alone.
#[tokio::test]
async fn files_are_sent_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let catalog = Catalog::new(SEED, "3f9a1c07", 0);
    let plan = Plan::new(3, 3, Signal::ALL.to_vec());
    let body = |index| {
        let request = plan.request(index).unwrap();
        Writer::default()
            .write(
                &catalog,
                &request,
                Encoding::Protobuf,
                1_700_000_000_000_000_000,
            )
            .unwrap()
    };
    let (logs, spans) = (body(0), body(1));
    let pretty = "{\n  \"resourceMetrics\": []\n}\n";
    let lines = "{\"resourceLogs\":[]}\n\n{\"resourceSpans\":[]}\r\n";
    let good = [
        write("a.binpb", &logs),
        write("b.pb", &spans),
        write("c.json", pretty.as_bytes()),
        write("d.ndjson", lines.as_bytes()),
    ]
    .join(" ");

    let server = Server::start(Answer::Accept).await;
    assert!(
        files::send(&args(&server, &format!("--protocol http --quiet {good}")))
            .await
            .unwrap()
    );
    let received = server.received();
    let found: Vec<(&str, &[u8])> = received
        .iter()
        .map(|request| (request.path.as_str(), &request.body[..]))
        .collect();
    let expected: [(&str, &[u8]); 5] = [
        ("/v1/logs", &logs),
        ("/v1/traces", &spans),
        ("/v1/metrics", pretty.as_bytes()),
        ("/v1/logs", b"{\"resourceLogs\":[]}"),
        ("/v1/traces", b"{\"resourceSpans\":[]}"),
    ];
    assert_eq!(found, expected);

    let bad = [write("e.txt", b""), write("f.json", b"{}")].join(" ");
    let server = Server::start(Answer::Accept).await;
    let line = format!("--protocol http-json --quiet {bad} {good}");
    assert!(!files::send(&args(&server, &line)).await.unwrap());
    let received = server.received();
    assert_eq!(received.len(), 5);
    let types: BTreeSet<&str> = received
        .iter()
        .map(|request| request.headers["content-type"].to_str().unwrap())
        .collect();
    assert_eq!(types, BTreeSet::from(["application/json"]));

    let server = Server::start(Answer::Accept).await;
    let line = format!(
        "--quiet {} {}",
        folder.path().join("a.binpb").display(),
        folder.path().join("b.pb").display()
    );
    assert!(files::send(&args(&server, &line)).await.unwrap());
    let received = server.received();
    assert_eq!(
        ExportLogsServiceRequest::decode(received[0].body.clone())
            .unwrap()
            .encoded_len(),
        logs.len()
    );
    assert_eq!(
        ExportTraceServiceRequest::decode(received[1].body.clone())
            .unwrap()
            .encoded_len(),
        spans.len()
    );
}

/// Scenario: a JSON file, gRPC, and an endpoint that was named for gRPC.
/// Guarantees: nothing is sent to a port that cannot take it; the message says what to add.
#[tokio::test]
async fn json_files_need_an_http_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    fs::write(&path, "{\"resourceLogs\":[]}").unwrap();
    let server = Server::start(Answer::Accept).await;
    let error = files::send(&args(&server, &path.display().to_string()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("add --protocol http"), "{error}");
    assert!(server.received().is_empty());
}

/// Scenario: a server that takes 60 ms for each answer.
/// Guarantees: the report says so, over each protocol.
#[tokio::test]
async fn the_time_to_an_answer_is_reported() {
    for protocol in ["grpc", "http", "http-json"] {
        let text = report_of(Answer::Slow(60), protocol, "").await;
        let p50 = text
            .split("p50 ")
            .nth(1)
            .unwrap()
            .split(" ms")
            .next()
            .unwrap();
        let p50: f64 = p50.parse().unwrap();
        assert!((59.0..2000.0).contains(&p50), "{text}");
    }
}
