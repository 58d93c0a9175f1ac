//! What coding agents really send is accepted in full, and the rows say what the agents meant.

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

/// Scenario: Codex exports its three signals over gRPC.
/// Guarantees: 744 spans and 36 logs arrive; its logs, sent without a time, are dated; the event's name is found.
#[tokio::test]
async fn codex_arrives_in_full() {
    let server = lake_of("codex-grpc").await;
    assert_eq!(server.count("SELECT count(*) FROM otlp_traces"), 744);
    assert_eq!(server.count("SELECT count(*) FROM otlp_logs"), 36);
    let undated = "SELECT count(*) FROM otlp_logs WHERE time_unix_nano IS NULL OR time_unix_nano < TIMESTAMP '2026-01-01'";
    assert_eq!(server.count(undated), 0);
    let named =
        "SELECT count(*) FROM otlp_logs WHERE log_attributes->>'$.\"event.name\"' LIKE 'codex.%'";
    assert!(server.count(named) > 0);
}
