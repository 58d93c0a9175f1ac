//! A server says what it serves and whether it is fit: reflection, health, probes, HTTP/2 on either port.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use otlake::proto::admin::StopRequest;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::raw::{JSON, PROTOBUF};
use crate::support::telemetry::{log, logs};
use crate::support::{Server, eventually};

const SERVICES: [&str; 7] = [
    "opentelemetry.proto.collector.logs.v1.LogsService",
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "opentelemetry.proto.experimental.arrow.v1.ArrowLogsService",
    "opentelemetry.proto.experimental.arrow.v1.ArrowMetricsService",
    "opentelemetry.proto.experimental.arrow.v1.ArrowTracesService",
    "otlake.admin.v1.Admin",
];

/// Asks one version of the reflection service one question; the two differ in nothing but their package.
macro_rules! reflect {
    ($server:expr, $version:ident, $question:ident($about:expr)) => {{
        use pb::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version as pb;
        let channel = $server.channel().await;
        let mut client = pb::server_reflection_client::ServerReflectionClient::new(channel);
        let question = pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::$question($about.to_owned())),
        };
        let answers = client
            .server_reflection_info(tokio_stream::once(question))
            .await;
        let mut answers = answers.unwrap().into_inner();
        answers
            .next()
            .await
            .unwrap()
            .map(|answer| answer.message_response.unwrap())
    }};
}

/// Lists the services, and describes each of them, in one version of the protocol.
macro_rules! check_reflection {
    ($server:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let answer = reflect!($server, $version, ListServices("")).unwrap();
        let MessageResponse::ListServicesResponse(list) = answer else {
            panic!("{answer:?}")
        };
        let mut names: Vec<_> = list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        names.sort();
        let mut expected: Vec<_> = SERVICES.map(str::to_owned).into();
        expected.push("grpc.health.v1.Health".to_owned());
        expected.push(
            concat!(
                "grpc.reflection.",
                stringify!($version),
                ".ServerReflection"
            )
            .to_owned(),
        );
        for name in &expected {
            assert!(names.contains(name), "{name} is missing in {names:?}");
        }
        for name in &names {
            let answer = reflect!($server, $version, FileContainingSymbol(name)).unwrap();
            let MessageResponse::FileDescriptorResponse(files) = answer else {
                panic!("{name}: {answer:?}")
            };
            let file =
                FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
            let package = file.package().to_owned();
            let found = file
                .service
                .iter()
                .any(|service| format!("{package}.{}", service.name()) == *name);
            assert!(found, "{name} is not in {}", file.name());
            for import in &file.dependency {
                let answer = reflect!($server, $version, FileByFilename(import)).unwrap();
                assert!(
                    matches!(answer, MessageResponse::FileDescriptorResponse(_)),
                    "{import}: {answer:?}"
                );
            }
        }
        let unknown = reflect!($server, $version, FileContainingSymbol("no.such.Service"));
        match unknown {
            Err(status) => assert_eq!(status.code(), Code::NotFound),
            Ok(MessageResponse::ErrorResponse(error)) => assert_eq!(error.error_code, 5),
            Ok(other) => panic!("{other:?}"),
        }
    }};
}

/// Scenario: `grpcurl list` and `describe`, with the current and the older reflection protocol.
/// Guarantees: every service is listed and described, with the files it imports.
#[tokio::test]
async fn reflection_lists_and_describes_every_service() {
    let server = Server::start();
    check_reflection!(server, v1);
    check_reflection!(server, v1alpha);
}

async fn health(server: &Server, service: &str) -> Result<i32, tonic::Status> {
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    Ok(client.check(request).await?.into_inner().status)
}

/// Scenario: a probe asks `grpc.health.v1` for the whole server and for each service.
/// Guarantees: SERVING soon after the start; a service that does not exist is NOT_FOUND.
#[tokio::test]
async fn health_is_told_for_each_service() {
    let server = Server::start();
    for service in SERVICES.into_iter().chain([""]) {
        let serving = ServingStatus::Serving as i32;
        eventually(service, async || {
            health(&server, service).await.ok() == Some(serving)
        })
        .await;
    }
    let unknown = health(&server, "no.such.Service").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

/// Scenario: probes over HTTP of a server that is well.
/// Guarantees: `/healthz` is ok and `/readyz` ready; POST is not taken.
#[tokio::test]
async fn probes_answer_over_http() {
    let server = Server::start();
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.text().trim()), (200, "ready"));
    let alive = server.get("/healthz").await;
    assert_eq!((alive.status.as_u16(), alive.text().trim()), (200, "ok"));
    let head = server.request(http::Method::HEAD, "/readyz", &[], "").await;
    assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""));
    let posted = server
        .post("/readyz", &[("content-type", JSON)], "{}")
        .await;
    assert_eq!(posted.status, 405);
    assert!(posted.header("allow").contains("GET"));
}

/// Scenario: OTLP/HTTP over HTTP/2 with prior knowledge, as Go and Java clients may choose.
/// Guarantees: it is taken as over HTTP/1.1.
#[tokio::test]
async fn http2_is_spoken_on_the_http_port() {
    let server = Server::start();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = Request::post(format!("http://{}/v1/logs", server.http))
        .header("content-type", PROTOBUF)
        .body(Full::from(logs(vec![log("over h2c")]).encode_to_vec()))
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.status(), 200);
    assert!(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    assert_eq!(server.flush().await, 1);
}

/// Scenario: `otlake stop`'s call, on a server that does nothing else.
/// Guarantees: it is answered, and the server ends with success.
#[tokio::test]
async fn the_stop_call_is_answered_before_the_server_ends() {
    let mut server = Server::start();
    server.admin().await.stop(StopRequest {}).await.unwrap();
    assert!(server.wait().success());
}
