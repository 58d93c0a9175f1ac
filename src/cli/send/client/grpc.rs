//! OTLP/gRPC, unary.

use std::error::Error;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::HeaderValue;
use http::uri::PathAndQuery;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstDecoder;

use super::{ACCEPTED, Outcome, Target, chain, disconnected, late};
use crate::cli::args::SendCompression;
use crate::cli::tls;
use crate::proto::collector::logs::v1::ExportLogsServiceResponse;
use crate::signal::Signal;

/// A channel with one connection.
#[derive(Debug)]
pub(in crate::cli::send) struct GrpcClient {
    grpc: Grpc<Channel>,
    authorization: Option<AsciiMetadataValue>,
    timeout: Duration,
}

impl GrpcClient {
    pub(super) async fn connect(target: &Target) -> anyhow::Result<GrpcClient> {
        let (grpc, authorization) = open(target).await?;
        Ok(GrpcClient {
            grpc,
            authorization,
            timeout: target.timeout,
        })
    }

    pub(super) async fn send(&mut self, signal: Signal, message: Bytes) -> Outcome {
        let limit = self.timeout;
        match timeout(limit, self.export(signal, message)).await {
            Err(_) => late(limit),
            Ok(Ok(response)) => accepted(response),
            Ok(Err(status)) => refused(&status),
        }
    }

    async fn export(
        &mut self,
        signal: Signal,
        message: Bytes,
    ) -> Result<ExportLogsServiceResponse, Status> {
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        let response = self.grpc.unary(request, path(signal), ExportCodec).await?;
        Ok(response.into_inner())
    }
}

/// Opens a connection that compresses as the target says; returns it with what goes into each call's metadata.
pub(super) async fn open(
    target: &Target,
) -> anyhow::Result<(Grpc<Channel>, Option<AsciiMetadataValue>)> {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    let connector = tls::connector(http, &target.tls);
    let channel = tonic::transport::Endpoint::from_shared(target.endpoint.url())?
        .user_agent(super::http::USER_AGENT)?
        .connect_timeout(target.timeout)
        .connect_with_connector(connector)
        .await
        .map_err(|error| {
            anyhow::anyhow!(
                "cannot speak gRPC with {}: {}",
                target.endpoint.authority(),
                tls::explain(&error).unwrap_or_else(|| chain(&error))
            )
        })?;
    let grpc = Grpc::new(channel);
    let grpc = match target.compression {
        SendCompression::None => grpc,
        SendCompression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
        SendCompression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
        SendCompression::Deflate => grpc.send_compressed(CompressionEncoding::Deflate),
    };
    Ok((
        grpc,
        target.authorization.as_ref().map(metadata).transpose()?,
    ))
}

fn metadata(value: &HeaderValue) -> anyhow::Result<AsciiMetadataValue> {
    let mut value = AsciiMetadataValue::try_from(value.as_bytes())?;
    value.set_sensitive(true);
    Ok(value)
}

fn path(signal: Signal) -> PathAndQuery {
    PathAndQuery::from_static(match signal {
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    })
}

pub(super) fn accepted(response: ExportLogsServiceResponse) -> Outcome {
    match response.partial_success {
        None => ACCEPTED,
        Some(partial) => Outcome::Accepted {
            rejected: partial.rejected_log_records.try_into().unwrap_or(0),
            message: partial.error_message,
        },
    }
}

pub(super) fn refused(status: &Status) -> Outcome {
    // A status that the server sent has no source; one that stands for a broken connection has.
    if let Some(source) = status.source() {
        return disconnected(source);
    }
    Outcome::Refused {
        reason: code_name(status.code()).to_owned(),
        message: status.message().to_owned(),
    }
}

/// The code as the gRPC documentation spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Requests are bytes already. The responses of the three signals are the same on the wire but for names, so one type reads all.
#[derive(Clone, Copy, Debug)]
struct ExportCodec;

impl Codec for ExportCodec {
    type Encode = Bytes;
    type Decode = ExportLogsServiceResponse;
    type Encoder = ExportCodec;
    type Decoder = ProstDecoder<ExportLogsServiceResponse>;

    fn encoder(&mut self) -> ExportCodec {
        ExportCodec
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for ExportCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.len());
        out.put(message);
        Ok(())
    }
}
