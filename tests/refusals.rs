//! What cannot be taken is refused in OTLP's words, counted and logged, and nothing of it is stored.

use std::time::Instant;

use bytes::Bytes;
use http::Method;
use otlake::proto::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use otlake::proto::collector::trace::v1::ExportTraceServiceResponse;
use otlake::proto::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, metric,
};
use otlake::proto::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use tonic::Code;

use crate::support::raw::{
    COMPRESSIONS, EXPORT_LOGS, EXPORT_METRICS, EXPORT_TRACES, JSON, NDJSON, PROTOBUF,
    accepted_rows, call, compress, export, frame, post, refused,
};
use crate::support::telemetry::{TIME, log, logs, span, spans};
use crate::support::{Answer, Server, ServerBuilder};

const INVALID_ARGUMENT: i32 = 3;
const UNIMPLEMENTED: i32 = 12;

async fn post_logs(server: &Server, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let headers = [("content-type", content_type)];
    server.post("/v1/logs", &headers, body).await
}

/// Nothing has come into the lake, and nothing waits to.
async fn assert_nothing_stored(server: &Server) {
    assert_eq!(accepted_rows(&server.status().await), 0);
    assert_eq!(server.flush().await, 0);
    for table in ["otlp_logs", "otlp_traces", "otlp_metrics_gauge"] {
        assert_eq!(server.count(&format!("SELECT count(*) FROM {table}")), 0);
    }
}

/// Protobuf bodies that no parser may take.
fn malformed_protobuf() -> Vec<Vec<u8>> {
    let good = logs(vec![log("one"), log("two")]).encode_to_vec();
    let mut not_utf8 = good.clone();
    let place = good.windows(3).position(|three| three == b"one").unwrap();
    not_utf8[place] = 0xff;
    vec![
        good[..good.len() - 1].to_vec(),
        [&good, &b"\x0a"[..]].concat(),
        not_utf8,
        vec![0xff; 64],
        b"{\"resourceLogs\":[]}".to_vec(),
        b"resourceLogs".to_vec(),
        b"\x08\x01".to_vec(),                 // a number where a message belongs
        b"\x0a\x80\x80\x80\x80\x10".to_vec(), // a length beyond 32 bits
        b"\x00\x00".to_vec(),                 // field number 0
        b"\x0c".to_vec(),                     // the end of a group that never began
    ]
}

const GOOD_JSON: &str =
    r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;

/// Scenario: bodies that are not what their content type says: cut off, garbage, of another encoding.
/// Guarantees: 400 with a `google.rpc.Status` INVALID_ARGUMENT in the request's own encoding; one bad NDJSON line refuses
/// the good ones too; nothing is stored; each is counted.
#[tokio::test]
async fn malformed_http_bodies_are_refused_in_their_encoding() {
    let server = Server::start();
    let mut sent = 0;
    let mut refuse = async |content_type: &str, answered: &str, body: Vec<u8>| {
        let what = String::from_utf8_lossy(&body).into_owned();
        let answer = post_logs(&server, content_type, body).await;
        assert_eq!(answer.status, 400, "{content_type} {what}");
        assert_eq!(answer.header("content-type"), answered, "{what}");
        let status = answer.rpc_status();
        assert_eq!(status.code, INVALID_ARGUMENT, "{what}");
        assert!(!status.message.is_empty(), "{what}");
        sent += 1;
    };
    for body in malformed_protobuf() {
        refuse(PROTOBUF, PROTOBUF, body).await;
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{\"resourceLogs\":7}",
        "{\"resourceLogs\":[}",
        "{} {}",
        &GOOD_JSON[..GOOD_JSON.len() - 1],
        "\u{0}",
    ] {
        refuse(JSON, JSON, body.into()).await;
        refuse("application/json; charset=utf-8", JSON, body.into()).await;
    }
    refuse(JSON, JSON, logs(vec![log("x")]).encode_to_vec()).await;
    refuse(JSON, JSON, b"{\"a\":\"\xff\"}".to_vec()).await;
    refuse(NDJSON, JSON, format!("{GOOD_JSON}\n{{\n").into()).await;
    refuse(NDJSON, JSON, format!("{GOOD_JSON}\n{GOOD_JSON} 1\n").into()).await;
    refuse(NDJSON, JSON, "null\n".into()).await;

    let status = server.status().await;
    assert_eq!(refused(&status, "http", "malformed"), (sent, 0));
    assert_nothing_stored(&server).await;
}

/// Scenario: messages that are no protobuf, and frames that are none, over gRPC.
/// Guarantees: INVALID_ARGUMENT, which no client retries; nothing is stored; each is counted.
#[tokio::test]
async fn malformed_grpc_messages_are_refused() {
    let server = Server::start();
    let good = logs(vec![log("x")]).encode_to_vec();
    let mut framed: Vec<Vec<u8>> = Vec::new();
    framed.extend(malformed_protobuf().iter().map(|body| frame(false, body)));
    framed.push(Vec::new()); // no message at all
    framed.push(vec![0, 0]); // half of a frame's head
    framed.push(frame(false, &good)[..20].to_vec()); // half of a message
    framed.push(frame(true, &good)); // compressed, but no word of how
    framed.push([&b"\x07"[..], &frame(false, &good)[1..]].concat()); // an unknown flag
    let sent = framed.len() as u64;
    for body in framed {
        let what = format!("{body:?}");
        let answer = call(server.grpc, EXPORT_LOGS, &[], body).await;
        assert_eq!(answer.status.code(), Code::InvalidArgument, "{what}");
        assert!(!answer.status.message().is_empty(), "{what}");
    }
    let status = server.status().await;
    assert_eq!(refused(&status, "grpc", "malformed"), (sent, 0));
    assert_nothing_stored(&server).await;
}

/// A body of which every prefix that ends between two groups is a body of its own, the empty one included.
fn splittable() -> Vec<u8> {
    let one = logs(vec![log(
        "a record that is stored alone if the rest is lost",
    )])
    .encode_to_vec();
    one.repeat(3)
}

/// Compressed bodies that end early or were changed on the way.
fn broken(encoding: &str) -> Vec<Vec<u8>> {
    let good = compress(encoding, &splittable());
    let mut broken: Vec<_> = (1..good.len()).map(|end| good[..end].to_vec()).collect();
    for from_end in [1, 3] {
        let mut wrong_sum = good.clone();
        let place = good.len() - from_end - if encoding == "gzip" { 4 } else { 0 };
        wrong_sum[place] ^= 0x55;
        broken.push(wrong_sum);
    }
    broken.push(b"this was never compressed".to_vec());
    broken.push(splittable());
    broken
}

/// Scenario: compressed HTTP bodies, cut at every byte, with a wrong checksum, or never compressed; their first groups
/// alone would be a good request.
/// Guarantees: each is refused whole with 400; nothing is stored.
#[tokio::test]
async fn broken_compression_is_refused_whole_over_http() {
    let server = Server::start();
    for encoding in COMPRESSIONS {
        for (place, body) in broken(encoding).into_iter().enumerate() {
            let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
            let answer = server.post("/v1/logs", &headers, body).await;
            assert_eq!(answer.status, 400, "{encoding} {place}");
            assert_eq!(answer.rpc_status().code, INVALID_ARGUMENT);
        }
    }
    assert_nothing_stored(&server).await;
}

/// Scenario: the same bodies in whole gRPC frames.
/// Guarantees: each is refused whole with INVALID_ARGUMENT; nothing is stored.
#[tokio::test]
async fn broken_compression_is_refused_whole_over_grpc() {
    let server = Server::start();
    for encoding in COMPRESSIONS {
        for (place, body) in broken(encoding).into_iter().enumerate() {
            let headers = [("grpc-encoding", encoding)];
            let answer = call(server.grpc, EXPORT_LOGS, &headers, frame(true, &body)).await;
            assert_eq!(
                answer.status.code(),
                Code::InvalidArgument,
                "{encoding} {place}"
            );
        }
    }
    assert_nothing_stored(&server).await;
}

/// Scenario: a body of two gzip members or two zstd frames, as `cat a.gz b.gz` makes it.
/// Guarantees: both parts are stored over both protocols; nothing behind the first is dropped unseen.
#[tokio::test]
async fn every_member_of_a_compressed_body_is_read() {
    let server = Server::start();
    let message = logs(vec![log("x")]).encode_to_vec();
    for encoding in ["gzip", "zstd"] {
        let two = compress(encoding, &message).repeat(2);
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let answer = server.post("/v1/logs", &headers, two.clone()).await;
        assert_eq!(answer.status, 200, "{encoding}");
        let headers = [("grpc-encoding", encoding)];
        let answer = call(server.grpc, EXPORT_LOGS, &headers, frame(true, &two)).await;
        assert_eq!(answer.status.code(), Code::Ok, "{encoding}");
    }
    assert_eq!(accepted_rows(&server.status().await), 8);
}

/// Scenario: content types that are not OTLP, or none.
/// Guarantees: 415 with a status that names the right ones; parameters and case of a right one do not matter.
#[tokio::test]
async fn other_content_types_are_unsupported() {
    let server = Server::start();
    let others = [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "x",
    ];
    for content_type in others {
        let answer = post_logs(&server, content_type, GOOD_JSON).await;
        assert_eq!(answer.status, 415, "{content_type}");
        let status = answer.rpc_status();
        assert_eq!(status.code, UNIMPLEMENTED);
        assert!(
            status.message.contains("application/x-protobuf"),
            "{}",
            status.message
        );
    }
    assert_eq!(server.post("/v1/logs", &[], GOOD_JSON).await.status, 415);
    let status = server.status().await;
    assert_eq!(refused(&status, "http", "unsupported_media_type"), (5, 0));
    assert_nothing_stored(&server).await;
    for content_type in ["Application/JSON", "application/json;charset=UTF-8"] {
        assert_eq!(
            post_logs(&server, content_type, GOOD_JSON).await.status,
            200
        );
    }
}

/// Scenario: requests to paths that do not exist; POST to `/` is what a forgotten path looks like.
/// Guarantees: 404 in the request's encoding that names the three paths.
#[tokio::test]
async fn unknown_paths_are_told_the_right_ones() {
    let server = Server::start();
    let paths = [
        "/",
        "/v1",
        "/v1/",
        "/v1/log",
        "/v1/logs/",
        "/v1/logs/x",
        "/V1/LOGS",
        "//v1/logs",
    ];
    for path in paths {
        for content_type in [PROTOBUF, JSON] {
            let headers = [("content-type", content_type)];
            let answer = server.post(path, &headers, "").await;
            assert_eq!(answer.status, 404, "{path}");
            assert_eq!(answer.header("content-type"), content_type, "{path}");
            let status = answer.rpc_status();
            assert_eq!(status.code, UNIMPLEMENTED, "{path}");
            for right in ["/v1/logs", "/v1/traces", "/v1/metrics"] {
                assert!(status.message.contains(right), "{path}: {}", status.message);
            }
        }
    }
    assert_eq!(server.get("/").await.status, 404);
    let sent = paths.len() as u64 * 2 + 1;
    let status = server.status().await;
    assert_eq!(refused(&status, "http", "unknown_path"), (sent, 0));
}

/// Scenario: methods other than POST on OTLP's paths.
/// Guarantees: 405 with `Allow: POST`.
#[tokio::test]
async fn other_methods_are_told_to_post() {
    let server = Server::start();
    for path in ["/v1/logs", "/v1/traces", "/v1/metrics"] {
        for method in [
            Method::GET,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ] {
            let answer = server.request(method, path, &[], "").await;
            assert_eq!(answer.status, 405);
            assert_eq!(answer.header("allow"), "POST");
            assert_eq!(answer.rpc_status().code, UNIMPLEMENTED);
        }
    }
    let status = server.status().await;
    assert_eq!(refused(&status, "http", "wrong_method"), (15, 0));
}

/// Scenario: compressions that are not supported, over both protocols.
/// Guarantees: 415 over HTTP, UNIMPLEMENTED with `grpc-accept-encoding` over gRPC; counted, nothing stored.
#[tokio::test]
async fn other_compressions_are_unsupported() {
    let server = Server::start();
    for encoding in ["br", "snappy", "gzip, gzip", "lz4"] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let answer = server.post("/v1/logs", &headers, "x").await;
        assert_eq!(answer.status, 415, "{encoding}");
        assert_eq!(answer.header("content-type"), PROTOBUF);
        let status = answer.rpc_status();
        assert_eq!(status.code, UNIMPLEMENTED);
        assert!(
            status.message.contains("gzip, zstd, deflate"),
            "{}",
            status.message
        );

        let headers = [("grpc-encoding", encoding)];
        let answer = call(server.grpc, EXPORT_LOGS, &headers, frame(true, b"x")).await;
        assert_eq!(answer.status.code(), Code::Unimplemented, "{encoding}");
        let accepted = answer.headers["grpc-accept-encoding"].to_str().unwrap();
        for supported in COMPRESSIONS {
            assert!(accepted.contains(supported), "{accepted}");
        }
    }
    let status = server.status().await;
    for protocol in ["http", "grpc"] {
        let reason = "unsupported_compression";
        assert_eq!(refused(&status, protocol, reason), (4, 0), "{protocol}");
    }
    assert_nothing_stored(&server).await;
}

/// Scenario: gRPC methods and services that do not exist.
/// Guarantees: UNIMPLEMENTED, counted as an unknown path.
#[tokio::test]
async fn unknown_grpc_methods_are_unimplemented_and_counted() {
    let server = Server::start();
    let paths = [
        "/opentelemetry.proto.collector.logs.v1.LogsService/Import",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "/",
    ];
    for path in paths {
        let answer = call(server.grpc, path, &[], frame(false, b"")).await;
        assert_eq!(answer.status.code(), Code::Unimplemented, "{path}");
        assert!(!answer.status.message().is_empty(), "{path}");
    }
    let status = server.status().await;
    assert_eq!(refused(&status, "grpc", "unknown_path"), (3, 0));
}

/// Two good spans, and one that breaks each rule.
fn spans_with_bad_ones() -> Vec<Span> {
    let ids = |trace: &[u8], id: &[u8], parent: &[u8]| Span {
        trace_id: Bytes::copy_from_slice(trace),
        span_id: Bytes::copy_from_slice(id),
        parent_span_id: Bytes::copy_from_slice(parent),
        ..span(1)
    };
    vec![
        span(1),
        ids(&[1; 15], &[1; 8], &[]),
        ids(&[0; 16], &[1; 8], &[]),
        ids(&[1; 16], &[1; 9], &[]),
        ids(&[1; 16], &[1; 8], &[1; 7]),
        Span {
            start_time_unix_nano: u64::MAX,
            ..span(1)
        },
        span(2),
    ]
}

fn as_json(span: &Span) -> serde_json::Value {
    let hex = |id: &[u8]| -> String { id.iter().map(|byte| format!("{byte:02x}")).collect() };
    json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id),
        "name": span.name,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
    })
}

const SPANS_REFUSED: &str = "5 spans refused (\
    2 x bad_trace_id: trace id is not 16 bytes or is all zero; \
    1 x bad_span_id: span id is not 8 bytes or is all zero; \
    1 x bad_parent_span_id: parent span id is neither empty nor 8 bytes; \
    1 x time_out_of_range: time is above 9223372036854775806 ns (year 2262))";

/// Scenario: a batch of two good spans and five bad ones, over gRPC, HTTP with protobuf, JSON and NDJSON.
/// Guarantees: the request succeeds; `partial_success` counts the five and says why, the same everywhere; the good ones
/// are stored; the bad ones are counted by reason.
#[tokio::test]
async fn bad_spans_are_refused_alone() {
    let server = Server::start();
    let all = spans_with_bad_ones();
    let message = spans(all.clone()).encode_to_vec();
    let answer = export(&server, EXPORT_TRACES, "identity", &message).await;
    assert_eq!(answer.status.code(), Code::Ok);
    let partial = answer
        .message::<ExportTraceServiceResponse>()
        .partial_success;
    let partial = partial.unwrap();
    assert_eq!(
        (partial.rejected_spans, partial.error_message.as_str()),
        (5, SPANS_REFUSED)
    );

    let headers = [("content-type", PROTOBUF)];
    let answer = server.post("/v1/traces", &headers, message).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, PROTOBUF)
    );
    let response = ExportTraceServiceResponse::decode(answer.body).unwrap();
    assert_eq!(response.partial_success.unwrap(), partial);

    let document = json!({"resourceSpans": [{"scopeSpans": [{"spans": all.iter().map(as_json).collect::<Vec<_>>()}]}]});
    for content_type in [JSON, NDJSON] {
        let headers = [("content-type", content_type)];
        let answer = server
            .post("/v1/traces", &headers, document.to_string())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, JSON)
        );
        let response: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            response,
            json!({"partialSuccess": {"rejectedSpans": "5", "errorMessage": SPANS_REFUSED}})
        );
    }

    let status = server.status().await;
    for (protocol, times) in [("grpc", 1), ("http", 3)] {
        assert_eq!(refused(&status, protocol, "bad_trace_id"), (0, 2 * times));
        for reason in ["bad_span_id", "bad_parent_span_id", "time_out_of_range"] {
            assert_eq!(refused(&status, protocol, reason), (0, times), "{reason}");
        }
    }
    server.flush().await;
    let stored = server.sql("SELECT name, count(*) FROM otlp_traces GROUP BY ALL ORDER BY ALL");
    assert_eq!(stored, [["span 1", "4"], ["span 2", "4"]]);
}

/// Scenario: two data points, one with a bucket too few, one beyond the year 2262, and a good one; the same for logs.
/// Guarantees: the good ones are stored, `partial_success` counts the others in data points and log records.
#[tokio::test]
async fn bad_points_and_logs_are_refused_alone() {
    let server = Server::start();
    let point = |time_unix_nano, bucket_counts| HistogramDataPoint {
        time_unix_nano,
        bucket_counts,
        explicit_bounds: vec![1.0],
        ..HistogramDataPoint::default()
    };
    let points = vec![
        point(TIME, vec![1, 2]),
        point(TIME, vec![1]),
        point(u64::MAX, vec![1, 2]),
    ];
    let histogram = Histogram {
        data_points: points,
        ..Histogram::default()
    };
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric {
                    name: "m".to_owned(),
                    data: Some(metric::Data::Histogram(histogram)),
                    ..Metric::default()
                }],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    let answer = export(&server, EXPORT_METRICS, "gzip", &metrics.encode_to_vec()).await;
    let partial = answer
        .message::<ExportMetricsServiceResponse>()
        .partial_success;
    let partial = partial.unwrap();
    assert_eq!(partial.rejected_data_points, 2);
    assert_eq!(
        partial.error_message,
        "2 data points refused (1 x time_out_of_range: time is above 9223372036854775806 ns (year 2262); \
         1 x bad_buckets: bucket_counts is not one longer than explicit_bounds)"
    );

    let mut late = log("late");
    late.time_unix_nano = 1 << 63;
    let request = logs(vec![log("good"), late]).encode_to_vec();
    let answer = post_logs(&server, PROTOBUF, request).await;
    let response =
        otlake::proto::collector::logs::v1::ExportLogsServiceResponse::decode(answer.body);
    let partial = response.unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert!(
        partial
            .error_message
            .starts_with("1 log record refused (1 x time_out_of_range")
    );

    assert_eq!(server.flush().await, 2);
    assert_eq!(server.sql("SELECT body FROM otlp_logs"), [["good"]]);
    assert_eq!(
        server.count("SELECT count(*) FROM otlp_metrics_histogram"),
        1
    );
}

/// Scenario: requests without a record, in every encoding.
/// Guarantees: they succeed, `partial_success` is unset, nothing is stored.
#[tokio::test]
async fn empty_requests_succeed() {
    let server = Server::start();
    for path in [EXPORT_LOGS, EXPORT_TRACES, EXPORT_METRICS] {
        for encoding in ["identity", "gzip", "zstd", "deflate"] {
            for message in [&b""[..], b"\x0a\x00", b"\x0a\x02\x12\x00"] {
                let answer = export(&server, path, encoding, message).await;
                assert_eq!(answer.status.code(), Code::Ok, "{path} {encoding}");
                assert_eq!(answer.body, frame(false, b""), "{path} {encoding}");
            }
        }
    }
    for path in ["/v1/logs", "/v1/traces", "/v1/metrics"] {
        for body in [&b""[..], b"\x0a\x00", b"\x0a\x02\x12\x00"] {
            let answer = server.post(path, &[("content-type", PROTOBUF)], body).await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""));
        }
        let signal = path.trim_start_matches("/v1/");
        let resources = match signal {
            "logs" => "resourceLogs",
            "traces" => "resourceSpans",
            _ => "resourceMetrics",
        };
        for body in [
            "{}".to_owned(),
            format!("{{\"{resources}\":[]}}"),
            format!("{{\"{resources}\":null}}"),
        ] {
            let answer = server.post(path, &[("content-type", JSON)], body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.text().as_str()),
                (200, "{}")
            );
        }
        let answer = server
            .post(path, &[("content-type", NDJSON)], "\n{}\r\n\n")
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "{}")
        );
    }
    assert_nothing_stored(&server).await;
    assert!(server.status().await.refusals.is_empty());
}

/// Scenario: the same bad request thirty times over each protocol, with a word in the payload that nobody should see.
/// Guarantees: each is counted; the log has one line a protocol and interval, with reason, peer and user agent, and never
/// the payload or the token.
#[tokio::test]
async fn refusals_are_logged_seldom_and_without_payload_or_token() {
    const TOKEN: &str = "a-token-nobody-should-see";
    const PAYLOAD: &str = "a-payload-nobody-should-see";
    let server = ServerBuilder::new()
        .args(&["--seal-max-age", "1h", "--log-level", "trace"])
        .env("OTLAKE_TOKEN", TOKEN)
        .start();
    let started = Instant::now();
    let body = format!("{{\"resourceLogs\":[{{\"{PAYLOAD}\":\"{PAYLOAD}\"}},\"{PAYLOAD}\"]}}");
    for _ in 0..30 {
        let headers = [
            ("content-type", JSON),
            ("user-agent", "test-agent/7"),
            ("authorization", &format!("Bearer {TOKEN}")),
        ];
        assert_eq!(
            server.post("/v1/logs", &headers, body.clone()).await.status,
            400
        );
        let headers = [("x-api-key", TOKEN), ("user-agent", "test-agent/8")];
        let answer = call(
            server.grpc,
            EXPORT_LOGS,
            &headers,
            frame(false, body.as_bytes()),
        )
        .await;
        assert_eq!(answer.status.code(), Code::InvalidArgument);
    }
    let status = server.status_with(Some(TOKEN)).await;
    for protocol in ["grpc", "http"] {
        assert_eq!(refused(&status, protocol, "malformed"), (30, 0));
    }
    let lines = server.refusals_logged("malformed");
    // At least five seconds lie between two lines of one kind.
    let most = 2 * (1 + usize::try_from(started.elapsed().as_secs()).unwrap() / 5);
    assert!((2..=most).contains(&lines.len()), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("test-agent/7")),
        "{lines:#?}"
    );
    assert!(
        lines.iter().all(|line| line.contains("peer=127.0.0.1:")),
        "{lines:#?}"
    );
    for secret in [TOKEN, PAYLOAD] {
        assert!(!server.log().contains(secret), "{}", server.log());
    }
}

/// Scenario: a client knocks with HTTP at the gRPC port, or with gRPC at the HTTP port.
/// Guarantees: it is told so in its own protocol, with the right port; counted and logged.
#[tokio::test]
async fn the_wrong_port_says_which_one_is_right() {
    let server = Server::start();
    let swapped = |port: u16| format!("port {port}");

    let request = logs(vec![log("x")]).encode_to_vec();
    let answer = call(server.http, EXPORT_LOGS, &[], frame(false, &request)).await;
    assert_eq!(answer.status.code(), Code::FailedPrecondition);
    assert!(
        answer
            .status
            .message()
            .contains(&swapped(server.grpc.port())),
        "{}",
        answer.status
    );

    let at_grpc = post(
        server.grpc,
        "/v1/logs",
        &[("content-type", PROTOBUF)],
        request,
    )
    .await;
    assert_eq!(at_grpc.status, 400);
    assert!(
        at_grpc
            .rpc_status()
            .message
            .contains(&swapped(server.http.port()))
    );
    let at_grpc = post(
        server.grpc,
        "/v1/logs",
        &[("content-type", JSON)],
        GOOD_JSON,
    )
    .await;
    assert!(
        at_grpc
            .rpc_status()
            .message
            .contains(&swapped(server.http.port()))
    );

    let status = server.status().await;
    assert_eq!(refused(&status, "http", "wrong_protocol"), (1, 0));
    assert_eq!(refused(&status, "grpc", "wrong_protocol"), (2, 0));
    assert_eq!(server.refusals_logged("wrong_protocol").len(), 2);
    assert_nothing_stored(&server).await;
}
