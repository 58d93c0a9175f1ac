//! What each listener serves, behind the gate.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Version, header};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use super::admin::AdminService;
use super::auth::{self, Gate};
use super::body::{self, LingeringBody};
use super::grpc::{self, FRAME_HEAD_BYTES, client};
use super::http;
use super::intake::Intake;
use super::metrics;
use super::otap;
use super::overview::Overview;
use super::readiness::Readiness;
use super::refusal::Refusal;
use super::status;
use crate::config::tokens::Role;
use crate::memory::Budget;
use crate::proto;
use crate::proto::admin::admin_server::AdminServer;
use crate::signal::Protocol;
use crate::telemetry::Reason;

/// How often the gRPC health service takes over what the readiness says.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// The services that are named by reflection and health, beside health and reflection themselves.
const SERVICES: [&str; 7] = [
    "opentelemetry.proto.experimental.arrow.v1.ArrowLogsService",
    "opentelemetry.proto.experimental.arrow.v1.ArrowTracesService",
    "opentelemetry.proto.experimental.arrow.v1.ArrowMetricsService",
    "opentelemetry.proto.collector.logs.v1.LogsService",
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "otlake.admin.v1.Admin",
];

/// Paths below these prefixes need no token: probes cannot send one, and they tell nothing but yes or no.
const OPEN_PREFIX: &str = "/grpc.health.v1.Health/";

/// Whoever has a token may ask which services there are.
const REFLECTION_PREFIX: &str = "/grpc.reflection.";

/// The admin service's methods.
const ADMIN_PREFIX: &str = "/otlake.admin.v1.Admin/";

/// The only one of them that changes more than the time of a commit.
const STOP_PATH: &str = "/otlake.admin.v1.Admin/Stop";

/// The largest request to the health and admin services, bytes: theirs are a few words.
const UNARY_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
struct Door {
    gate: Gate,
    intake: Arc<Intake>,
    protocol: Protocol,
    other_port: u16,
}

/// Reflection cannot be set up: the descriptors in the binary are broken.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC reflection service cannot be set up: {0}")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

/// The gRPC listener: OTLP, OTAP, admin, health and reflection. Streams end when `stop` turns true.
///
/// # Errors
/// [`ReflectionError`] when the descriptors in the binary are broken.
pub fn grpc(
    gate: &Gate,
    intake: &Arc<Intake>,
    admin: AdminService,
    http_port: u16,
    stop: watch::Receiver<bool>,
) -> Result<Router, ReflectionError> {
    let readiness = Arc::clone(&admin.overview.readiness);
    let streams = Arc::clone(&admin.overview.otap_streams);
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(reporter, readiness));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(AdminServer::new(admin))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let router = grpc::with_exports(routes.into_axum_router(), intake);
    let router = otap::with_streams(router, intake, gate, &streams, stop);
    let door = Door {
        gate: gate.clone(),
        intake: Arc::clone(intake),
        protocol: Protocol::Grpc,
        other_port: http_port,
    };
    Ok(known_by_host(behind(router, &door), door))
}

/// The HTTP listener: OTLP/HTTP, the metrics and the probes.
pub fn http(gate: &Gate, intake: &Arc<Intake>, overview: &Arc<Overview>, grpc_port: u16) -> Router {
    let router = http::routes(intake).merge(metrics::routes(overview));
    let door = Door {
        gate: gate.clone(),
        intake: Arc::clone(intake),
        protocol: Protocol::Http,
        other_port: grpc_port,
    };
    let router = http::probes(&overview.readiness).merge(behind(router, &door));
    known_by_host(router, door)
}

/// Answers requests that come without TLS to a listener that speaks it. Their headers are not looked at: what is in them
/// was sent for all to read.
pub fn without_tls(intake: &Arc<Intake>, protocol: Protocol) -> Router {
    let intake = Arc::clone(intake);
    Router::new().fallback(move |request: Request<Body>| async move {
        let request = lingering(request);
        let refusal = Refusal::new(
            Reason::WrongProtocol,
            "this port speaks TLS: write https:// in the client's endpoint, and do not turn its TLS off (insecure)",
        );
        refuse(&intake, protocol, &refusal, &request)
    })
}

/// Puts the gate before a router: protocol, then origin, then (for browsers) CORS, then the token.
fn behind(router: Router, door: &Door) -> Router {
    // A layer is run before those added above it.
    router
        .layer(middleware::from_fn_with_state(door.clone(), check_token))
        .layer(cors())
        .layer(middleware::from_fn_with_state(door.clone(), check_origin))
}

/// Puts the check of the host before everything, the probes too: what answers a page tells it what runs here.
fn known_by_host(router: Router, door: Door) -> Router {
    router.layer(middleware::from_fn_with_state(door, check_host))
}

async fn check_host(State(door): State<Door>, request: Request<Body>, next: Next) -> Response {
    match door.gate.check_host(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => door.refuse(&refusal, &lingering(request)),
    }
}

/// CORS for the origins that the gate lets through: it has already refused all others.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::POST, Method::GET])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list([header::RETRY_AFTER]))
        .max_age(Duration::from_secs(600))
}

async fn check_origin(State(door): State<Door>, request: Request<Body>, next: Next) -> Response {
    let request = lingering(request);
    if let Err(refusal) = door
        .check_protocol(&request)
        .and_then(|()| door.gate.check_origin(request.headers()))
    {
        return door.refuse(&refusal, &request);
    }
    let has_origin = request.headers().contains_key(header::ORIGIN);
    if request.method() == Method::OPTIONS && !has_origin {
        // No browser asks: the layer that answers browsers would say 200 to it.
        return http::wrong_method(State(door.intake), request).await;
    }
    let mut response = next.run(request).await;
    if !has_origin {
        // Only browsers care; other clients get short answers.
        let headers = response.headers_mut();
        headers.remove(header::VARY);
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    }
    response
}

/// Lets refusals reach senders that are still sending; HTTP/2 takes care of that itself, and who sends
/// `Expect: 100-continue` waits for the answer.
fn lingering(request: Request<Body>) -> Request<Body> {
    if request.version() >= Version::HTTP_2 || request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| Body::new(LingeringBody::new(body)))
}

async fn check_token(State(door): State<Door>, mut request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path();
    let is_grpc = door.protocol == Protocol::Grpc;
    if is_grpc && path.starts_with(OPEN_PREFIX) {
        return run_whole(&door, request, next).await;
    }
    let is_admin = is_grpc && path.starts_with(ADMIN_PREFIX);
    // Streams of record batches refuse by themselves: their token may still come. If it is here, it has its name.
    let is_stream = is_grpc && otap::signal_of(path).is_some();
    let role = match door.protocol {
        Protocol::Grpc | Protocol::Otap => role(path),
        Protocol::Http if path == metrics::PATH => Some(Role::Query),
        Protocol::Http => Some(Role::Ingest),
    };
    let checked = match door.gate.pass(request.headers()) {
        Ok(None) => Ok(()),
        Ok(Some(pass)) => {
            request.extensions_mut().insert(Arc::clone(&pass.holder));
            role.map_or(Ok(()), |role| auth::permit(&pass, role))
        }
        Err(refusal) => Err(refusal),
    };
    match checked {
        Err(refusal) if !is_stream => door.refuse(&refusal, &request),
        _ if is_admin => run_whole(&door, request, next).await,
        _ => next.run(request).await,
    }
}

/// Reads the request of a call that has only one, before its service does: that would wait for it for ever, and hold
/// megabytes of it. Its memory is not of the budget, so that these services answer when that is spent.
async fn run_whole(door: &Door, request: Request<Body>, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let budget = Budget::new(2 * UNARY_BYTES_MAX as u64);
    let received = body::receive(body, UNARY_BYTES_MAX, FRAME_HEAD_BYTES, &budget).await;
    match received {
        Ok((whole, _reservation)) => {
            let request = Request::from_parts(parts, Body::from(whole));
            next.run(request).await
        }
        Err(refusal) => door.refuse(&refusal, &Request::from_parts(parts, Body::empty())),
    }
}

/// What a token must be for to call this gRPC method; any will do for `None`.
fn role(path: &str) -> Option<Role> {
    if path == STOP_PATH {
        Some(Role::Admin)
    } else if path.starts_with(ADMIN_PREFIX) {
        Some(Role::Query)
    } else if path.starts_with(REFLECTION_PREFIX) {
        None
    } else {
        Some(Role::Ingest)
    }
}

impl Door {
    /// Tells a client that knocks at the other protocol's port so, in the protocol that it speaks.
    fn check_protocol(&self, request: &Request<Body>) -> Result<(), Refusal> {
        let is_grpc = is_grpc(request);
        match self.protocol {
            Protocol::Grpc if !is_grpc => Err(Refusal::new(
                Reason::WrongProtocol,
                format!(
                    "this is the OTLP/gRPC port; OTLP/HTTP is served on port {}",
                    self.other_port
                ),
            )),
            Protocol::Http if is_grpc => Err(Refusal::new(
                Reason::WrongProtocol,
                format!(
                    "this is the OTLP/HTTP port; OTLP/gRPC is served on port {}",
                    self.other_port
                ),
            )),
            _ => Ok(()),
        }
    }

    fn refuse(&self, refusal: &Refusal, request: &Request<Body>) -> Response {
        refuse(&self.intake, self.protocol, refusal, request)
    }
}

/// Counts, logs and answers a request that does not come in.
fn refuse(
    intake: &Intake,
    protocol: Protocol,
    refusal: &Refusal,
    request: &Request<Body>,
) -> Response {
    let path = request.uri().path();
    // Either path tells it, also at the other one's port.
    let mut signals = crate::signal::Signal::ALL.into_iter();
    let signal =
        grpc::signal_of(path).or_else(|| signals.find(|signal| http::path(*signal) == path));
    intake.refuse(signal, protocol, refusal, &client(request));
    if is_grpc(request) {
        return status::to_grpc_response(refusal);
    }
    let mut response = status::to_http(refusal, http::answer_encoding(request.headers()));
    if request.version() < Version::HTTP_2 {
        // The body was not read by us, so the connection shall not serve another request.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

fn is_grpc(request: &Request<Body>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Keeps `grpc.health.v1` at what the readiness says. Ends with the runtime.
async fn report_health(reporter: HealthReporter, readiness: Arc<Readiness>) {
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        ticks.tick().await;
        let status = match readiness.trouble() {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        };
        for service in SERVICES.into_iter().chain([""]) {
            reporter.set_service_status(service, status).await;
        }
    }
}
