//! Sending the requests of [`super::otlp`].

use serde_json::Value;
use tonic::codec::CompressionEncoding;

use super::Server;
use super::otlp::Export;

/// What `partial_success` said: records refused, and why.
pub type Partial = (i64, String);

impl Export {
    /// Exports over gRPC.
    pub async fn send_grpc(
        &self,
        server: &Server,
        compression: Option<CompressionEncoding>,
    ) -> Partial {
        macro_rules! export {
            ($client:expr, $request:expr, $rejected:ident) => {{
                let mut client = $client;
                if let Some(compression) = compression {
                    client = client.send_compressed(compression);
                }
                let response = client.export($request.clone()).await.unwrap().into_inner();
                let partial = response.partial_success.unwrap_or_default();
                (partial.$rejected, partial.error_message)
            }};
        }
        match self {
            Export::Logs(request) => export!(server.logs().await, request, rejected_log_records),
            Export::Traces(request) => export!(server.traces().await, request, rejected_spans),
            Export::Metrics(request) => {
                export!(server.metrics().await, request, rejected_data_points)
            }
        }
    }

    /// Exports as OTLP/JSON over HTTP.
    pub async fn send_json(&self, server: &Server) -> Partial {
        let headers = [("content-type", "application/json")];
        let body = self.to_json().to_string();
        let answer = server.post(&self.path(), &headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response: Value = serde_json::from_slice(&answer.body).unwrap();
        let partial = &response["partialSuccess"];
        let rejected = ["rejectedLogRecords", "rejectedSpans", "rejectedDataPoints"]
            .iter()
            .find_map(|name| partial[*name].as_str())
            .map_or(0, |count| count.parse().unwrap());
        let message = partial["errorMessage"].as_str().unwrap_or_default();
        (rejected, message.to_owned())
    }
}
