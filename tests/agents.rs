//! What coding agents really send is accepted in full, and the rows say what the agents meant.

use otlake::signal::{Signal, Table};
use prost::Message as _;

use crate::support::{Captured, Server, captured};

/// Sends a captured request over the transport it was captured on; every record must be accepted.
async fn replay(server: &Server, request: Captured) {
    if !request.is_grpc {
        let path = format!("/v1/{}", request.signal);
        let headers = [("content-type", request.content_type.as_str())];
        let answer = server.post(&path, &headers, request.body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            matches!(answer.text().as_str(), "" | "{}"),
            "{}",
            answer.text()
        );
        return;
    }
    use otlake::proto::collector::{logs, metrics, trace};
    use tonic::codec::CompressionEncoding::Gzip;
    let is_gzip = request.encoding == "gzip";
    macro_rules! export {
        ($client:expr, $message:ty) => {{
            let mut client = $client;
            if is_gzip {
                client = client.send_compressed(Gzip);
            }
            let message = <$message>::decode(request.body).unwrap();
            let response = client.export(message).await.unwrap().into_inner();
            assert!(response.partial_success.is_none());
        }};
    }
    match request.signal.as_str() {
        "logs" => export!(server.logs().await, logs::v1::ExportLogsServiceRequest),
        "traces" => export!(server.traces().await, trace::v1::ExportTraceServiceRequest),
        _ => export!(
            server.metrics().await,
            metrics::v1::ExportMetricsServiceRequest
        ),
    }
}

async fn lake_of(name: &str) -> Server {
    let server = Server::start();
    for request in captured(name) {
        replay(&server, request).await;
    }
    server.flush().await;
    server
}

/// Rows by signal: spans, logs, data points, and the distinct names of the metrics these belong to.
fn counts(server: &Server) -> [i64; 4] {
    let points = Table::ALL
        .iter()
        .filter(|table| table.signal() == Signal::Metrics)
        .map(|table| format!("SELECT name FROM {table}"))
        .collect::<Vec<_>>()
        .join(" UNION ALL ");
    [
        "SELECT count(*) FROM otlp_traces".to_owned(),
        "SELECT count(*) FROM otlp_logs".to_owned(),
        format!("SELECT count(*) FROM ({points})"),
        format!("SELECT count(DISTINCT name) FROM ({points})"),
    ]
    .map(|query| server.count(&query))
}

/// Scenario: Codex exports its three signals over gRPC.
/// Guarantees: 744 spans, 36 logs and 56 metrics arrive; its logs, sent without a time, are dated by their observed one;
/// its own event names, which it sends as attributes, are found; spans hang together, and metrics are deltas.
#[tokio::test]
async fn codex_arrives_in_full() {
    let server = lake_of("codex-grpc").await;
    assert_eq!(counts(&server), [744, 36, 185, 56]);

    let dated = "SELECT count(*) FROM otlp_logs WHERE time_unix_nano = observed_time_unix_nano
        AND time_unix_nano BETWEEN TIMESTAMP '2026-01-01' AND TIMESTAMP '2027-01-01'";
    assert_eq!(server.count(dated), 36);
    // The record's own field holds a place in Codex's source and stays what it is.
    let places = "SELECT count(*) FROM otlp_logs WHERE event_name LIKE 'event otel/src/%.rs:%'";
    assert_eq!(server.count(places), 36);
    let events = "SELECT log_attributes->>'$.\"event.name\"' AS event, count(*) FROM otlp_logs
        WHERE scope_name = 'codex_otel.log_only' GROUP BY event ORDER BY event";
    assert_eq!(
        server.sql(events),
        [
            ["codex.api_request", "5"],
            ["codex.conversation_starts", "1"],
            ["codex.sse_event", "20"],
            ["codex.startup_phase", "2"],
            ["codex.tool_decision", "2"],
            ["codex.tool_result", "3"],
            ["codex.turn_ttft", "1"],
            ["codex.user_prompt", "1"],
        ]
    );
    let bodies = "SELECT scope_name FROM otlp_logs WHERE body IS NOT NULL";
    assert_eq!(server.sql(bodies), [["codex_otel::metrics::client"]]);

    // Spans hang together: every parent that was sent too has the child's trace.
    let strays = "SELECT count(*) FROM otlp_traces child JOIN otlp_traces parent
        ON child.parent_span_id = parent.span_id WHERE child.trace_id != parent.trace_id";
    assert_eq!(server.count(strays), 0);
    let traces = "SELECT count(DISTINCT trace_id), count(DISTINCT span_id), count(*) - count(parent_span_id),
        min(duration_time_unix_nano) >= 0 FROM otlp_traces";
    assert_eq!(server.sql(traces), [["18", "744", "18", "true"]]);
    let delta = "SELECT DISTINCT aggregation_temporality FROM otlp_metrics_sum UNION ALL
        SELECT DISTINCT aggregation_temporality FROM otlp_metrics_histogram";
    assert_eq!(server.sql(delta), [["1"], ["1"]]);
    let buckets = "SELECT count(*) FROM otlp_metrics_histogram WHERE len(bucket_counts) != len(explicit_bounds) + 1
        OR list_sum(bucket_counts) != count";
    assert_eq!(server.count(buckets), 0);
}

/// Scenario: Gemini CLI exports its three signals over gRPC with gzip.
/// Guarantees: 9 spans, 25 logs and 10 metrics arrive, each log with an event name and a text.
#[tokio::test]
async fn gemini_arrives_in_full() {
    let server = lake_of("gemini-grpc").await;
    assert_eq!(counts(&server), [9, 25, 24, 10]);
    let events = "SELECT event_name, count(*) FROM otlp_logs WHERE body IS NOT NULL
        AND event_name = (log_attributes->>'$.\"event.name\"') GROUP BY event_name ORDER BY event_name";
    assert_eq!(
        server.sql(events),
        [
            ["gemini_cli.api_request", "4"],
            ["gemini_cli.api_response", "4"],
            ["gemini_cli.config", "1"],
            ["gemini_cli.model_routing", "1"],
            ["gemini_cli.plan.approval_mode_duration", "1"],
            ["gemini_cli.ripgrep_fallback", "1"],
            ["gemini_cli.startup_stats", "1"],
            ["gemini_cli.tool_call", "3"],
            ["gemini_cli.user_prompt", "1"],
            ["gen_ai.client.inference.operation.details", "8"],
        ]
    );
    let spans = "SELECT name, count(*) FROM otlp_traces GROUP BY name ORDER BY name";
    assert_eq!(
        server.sql(spans),
        [
            ["llm_call", "4"],
            ["schedule_tool_calls", "3"],
            ["tool_call", "2"],
        ]
    );
    // A null of the client's is kept apart from what it did not send.
    let decisions = "SELECT metric_attributes->'decision' FROM otlp_metrics_sum
        WHERE name = 'gemini_cli.tool.call.count' ORDER BY 1";
    assert_eq!(server.sql(decisions), [["\"accept\""], ["null"]]);
}

/// Scenario: the public Python and Node SDKs export over gRPC and HTTP with gzip.
/// Guarantees: everything arrives under the service's name.
#[tokio::test]
async fn sdks_arrive_in_full() {
    for (name, expected) in [
        ("pysdk-grpc-gzip", [3, 1, 4, 4]),
        ("nodesdk-proto-gzip", [3, 0, 0, 0]),
    ] {
        let server = lake_of(name).await;
        assert_eq!(counts(&server), expected, "{name}");
        let services = "SELECT count(*) FROM otlp_traces WHERE service_name = 'unknown_service'";
        assert_eq!(server.count(services), 0, "{name}");
    }
}

/// What must be the same in every run of Claude Code, whatever carried it: names, kinds, the keys of the attributes
/// and the types of their values, in the order of the events; no ids, times, durations and costs.
const CLAUDE_STABLE: [&str; 5] = [
    // Order by the client's own sequence.
    "SELECT event_name, body, typeof(body), severity_number, severity_text, flags, scope_name, scope_version,
        json_structure(log_attributes), log_attributes->>'model', log_attributes->>'tool_name',
        json_type(log_attributes->'event.sequence')
     FROM otlp_logs ORDER BY CAST(log_attributes->>'$.\"event.sequence\"' AS INTEGER)",
    "SELECT name, kind, status_code, scope_name, scope_version, json_structure(span_attributes), flags,
        span_attributes->>'model', span_attributes->>'tool_name', parent_span_id IS NULL, json_structure(events_json),
        links_json
     FROM otlp_traces ORDER BY ALL",
    "SELECT name, description, unit, int_value IS NULL, double_value IS NULL, aggregation_temporality, is_monotonic,
        json_structure(metric_attributes), metric_attributes->>'model', metric_attributes->>'type', exemplars_json
     FROM otlp_metrics_sum ORDER BY ALL",
    "SELECT DISTINCT service_name, service_namespace, service_instance_id, resource_attributes FROM otlp_logs",
    "SELECT DISTINCT service_name, service_namespace, service_instance_id, resource_attributes FROM otlp_traces",
];

/// Scenario: three runs of Claude Code, over gRPC, HTTP protobuf and HTTP JSON.
/// Guarantees: each arrives in full, and the three agree on everything that does not change from run to run.
#[tokio::test]
async fn claude_code_arrives_alike_over_three_transports() {
    let mut runs = Vec::new();
    for name in ["claude-grpc", "claude-httpproto", "claude-httpjson"] {
        let server = lake_of(name).await;
        assert_eq!(counts(&server), [18, 19, 15, 6], "{name}");
        let traces = "SELECT count(DISTINCT trace_id), count(DISTINCT span_id), min(duration_time_unix_nano) >= 0,
            max(duration_time_unix_nano) < 3_600_000_000_000 FROM otlp_traces";
        assert_eq!(server.sql(traces), [["1", "18", "true", "true"]], "{name}");
        let times = "SELECT count(*) FROM otlp_logs WHERE year(time_unix_nano) = 2026 AND year(observed_time_unix_nano) = 2026";
        assert_eq!(server.count(times), 19, "{name}");
        runs.push((name, CLAUDE_STABLE.map(|query| server.sql(query))));
    }
    let (_, first) = &runs[0];
    assert_eq!(first.each_ref().map(Vec::len), [19, 18, 15, 1, 1]);
    for (name, run) in &runs {
        for (rows, first) in run.iter().zip(first) {
            for (row, first) in rows.iter().zip(first) {
                assert_eq!(row, first, "{name}");
            }
            assert_eq!(rows.len(), first.len(), "{name}");
        }
    }
}
