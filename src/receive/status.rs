//! The only maker of gRPC statuses and HTTP errors.
//!
//! | refusal | gRPC | HTTP | retried by clients |
//! |---|---|---|---|
//! | unauthenticated | UNAUTHENTICATED | 401 | no |
//! | forbidden_origin, forbidden_host, not_permitted | PERMISSION_DENIED | 403 | no |
//! | unknown_path, wrong_method | UNIMPLEMENTED | 404, 405 | no |
//! | unsupported_media_type, unsupported_compression | UNIMPLEMENTED | 415 | no |
//! | wrong_protocol | FAILED_PRECONDITION | 400 | no |
//! | body_too_large, rows_too_large | RESOURCE_EXHAUSTED without RetryInfo | 413 | no |
//! | memory_full, disk_full, journal_failed, stopping | UNAVAILABLE with RetryInfo | 503 with Retry-After | yes |
//! | malformed | INVALID_ARGUMENT | 400 | no |
//! | incomplete | CANCELLED | 400 | yes, no |
//! | internal | INTERNAL | 500 | no |
//!
//! Source: OTLP 1.x, "Failures" and "Failures" of OTLP/HTTP.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::refusal::{RETRY_AFTER, Refusal};
use crate::decode::Encoding;
use crate::rows::Rejections;
use crate::signal::Signal;
use crate::telemetry::Reason;

/// The gRPC code of a reason.
#[must_use]
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::ForbiddenOrigin | Reason::ForbiddenHost | Reason::NotPermitted => {
            Code::PermissionDenied
        }
        Reason::UnknownPath
        | Reason::WrongMethod
        | Reason::UnsupportedMediaType
        | Reason::UnsupportedCompression => Code::Unimplemented,
        Reason::WrongProtocol | Reason::TlsHandshake => Code::FailedPrecondition,
        Reason::BodyTooLarge | Reason::RowsTooLarge => Code::ResourceExhausted,
        Reason::MemoryFull | Reason::DiskFull | Reason::JournalFailed | Reason::Stopping => {
            Code::Unavailable
        }
        Reason::Malformed | Reason::Record(_) => Code::InvalidArgument,
        Reason::Incomplete => Code::Cancelled,
        Reason::Internal => Code::Internal,
    }
}

fn http_code(reason: Reason) -> StatusCode {
    match reason {
        Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
        Reason::ForbiddenOrigin | Reason::ForbiddenHost | Reason::NotPermitted => {
            StatusCode::FORBIDDEN
        }
        Reason::UnknownPath => StatusCode::NOT_FOUND,
        Reason::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        Reason::UnsupportedMediaType | Reason::UnsupportedCompression => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        Reason::BodyTooLarge | Reason::RowsTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::MemoryFull | Reason::DiskFull | Reason::JournalFailed | Reason::Stopping => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::WrongProtocol
        | Reason::TlsHandshake
        | Reason::Malformed
        | Reason::Record(_)
        | Reason::Incomplete => StatusCode::BAD_REQUEST,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal as a gRPC status.
#[must_use]
pub fn to_grpc(refusal: &Refusal) -> Status {
    let code = code(refusal.reason);
    if refusal.is_retryable() {
        let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
        return Status::with_error_details(code, &refusal.message, details);
    }
    Status::new(code, &refusal.message)
}

/// How a stream of record batches ends by a refusal. RESOURCE_EXHAUSTED would be tried again by some clients.
#[must_use]
pub fn to_grpc_stream(refusal: &Refusal) -> Status {
    match code(refusal.reason) {
        Code::ResourceExhausted => Status::invalid_argument(&refusal.message),
        _ => to_grpc(refusal),
    }
}

/// A refusal as a gRPC response without a body, for layers that answer before a service does.
#[must_use]
pub fn to_grpc_response(refusal: &Refusal) -> Response {
    to_grpc(refusal).into_http::<Body>()
}

/// A refusal as an HTTP response whose body is a `google.rpc.Status` in the request's encoding.
#[must_use]
pub fn to_http(refusal: &Refusal, encoding: Encoding) -> Response {
    let body = match encoding {
        Encoding::Protobuf => {
            let status = to_grpc(refusal);
            let full = if status.details().is_empty() {
                tonic_types::Status {
                    code: status.code().into(),
                    message: refusal.message.clone(),
                    details: Vec::new(),
                }
                .encode_to_vec()
            } else {
                // tonic carries the whole google.rpc.Status in the details of a status that has any.
                status.details().to_vec()
            };
            Bytes::from(full)
        }
        Encoding::Json | Encoding::Ndjson => {
            let code = i32::from(code(refusal.reason));
            let mut status = serde_json::json!({"code": code, "message": refusal.message});
            if refusal.is_retryable() {
                status["details"] = serde_json::json!([{
                    "@type": "type.googleapis.com/google.rpc.RetryInfo",
                    "retryDelay": format!("{}s", RETRY_AFTER.as_secs()),
                }]);
            }
            Bytes::from(status.to_string())
        }
    };
    let mut response = respond(http_code(refusal.reason), encoding, body);
    let headers = response.headers_mut();
    if refusal.is_retryable() {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(RETRY_AFTER.as_secs()),
        );
    }
    if refusal.reason == Reason::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The answer to an accepted request over HTTP: `Export*ServiceResponse` in the request's encoding.
#[must_use]
pub fn accepted_http(signal: Signal, encoding: Encoding, rejections: &Rejections) -> Response {
    let body = match encoding {
        Encoding::Protobuf => Bytes::from(ExportResponse::new(signal, rejections).encode_to_vec()),
        Encoding::Json | Encoding::Ndjson if rejections.total() == 0 => Bytes::from_static(b"{}"),
        Encoding::Json | Encoding::Ndjson => {
            let rejected = match signal {
                Signal::Logs => "rejectedLogRecords",
                Signal::Traces => "rejectedSpans",
                Signal::Metrics => "rejectedDataPoints",
            };
            // int64 is a string in protobuf's JSON.
            let partial = serde_json::json!({"partialSuccess": {
                rejected: rejections.total().to_string(),
                "errorMessage": rejections.message(signal),
            }});
            Bytes::from(partial.to_string())
        }
    };
    respond(StatusCode::OK, encoding, body)
}

fn respond(status: StatusCode, encoding: Encoding, body: Bytes) -> Response {
    let content_type = match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json | Encoding::Ndjson => "application/json",
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// `Export{Logs,Trace,Metrics}ServiceResponse`: the three have the same fields under the same numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {
    /// Unset on full success.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// `Export{Logs,Trace,Metrics}PartialSuccess`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    /// Records refused.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

impl ExportResponse {
    /// The answer to a request of which `rejections` were refused.
    #[must_use]
    pub fn new(signal: Signal, rejections: &Rejections) -> ExportResponse {
        let rejected = i64::try_from(rejections.total()).unwrap_or(i64::MAX);
        ExportResponse {
            partial_success: (rejected > 0).then(|| PartialSuccess {
                rejected,
                error_message: rejections.message(signal),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// Scenario: a refusal for want of memory, answered in JSON.
    /// Guarantees: the pause is in the header and, as `google.rpc.RetryInfo`, in the body.
    #[tokio::test]
    async fn a_retryable_refusal_in_json_carries_retry_info() {
        let refusal = Refusal::new(Reason::MemoryFull, "full");
        let response = to_http(&refusal, Encoding::Json);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["code"], 14);
        assert_eq!(
            status["details"],
            serde_json::json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}])
        );
    }
}
