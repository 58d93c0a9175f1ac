//! Bytes of any kind as a request to either listener, the admin service above all: what the fuzzer feeds, and the test that
//! replays its corpus.
//!
//! | part of the input | meaning |
//! |---|---|
//! | byte 0 | which of [`PATHS`] |
//! | byte 1 | how long the pieces are in which the body comes; 0 for all at once |
//! | lines up to an empty one | headers, `name: value`; those in [`Head`] stand for the request's line |
//! | the rest | the body |

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::BodyExt as _;
use otlake::config::{AllowedHosts, CorsOrigins, Tokens};
use otlake::disk::{Disk, RealDisk};
use otlake::journal::{Hooks, Journal, JournalConfig, MOMENT, scan};
use otlake::receive::admin::AdminService;
use otlake::receive::auth::Gate;
use otlake::receive::intake::Intake;
use otlake::receive::overview::{Identity, JournalStatus, Overview};
use otlake::receive::readiness::Readiness;
use otlake::receive::router;
use otlake::receive::tokens::TokenBook;
use otlake::seal::ledger::Ledger;
use otlake::seal::queue::{SealLimits, SealQueue, SealSequence};
use otlake::signal::{Durability, SealId, WriterId};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tower::ServiceExt as _;

use super::kept::{self, Kept};

/// By the first byte.
pub const PATHS: [&str; 18] = [
    "/otlake.admin.v1.Admin/Flush",
    "/otlake.admin.v1.Admin/Status",
    "/otlake.admin.v1.Admin/Seals",
    STOP,
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.experimental.arrow.v1.ArrowLogsService/ArrowLogs",
    "/opentelemetry.proto.experimental.arrow.v1.ArrowTracesService/ArrowTraces",
    "/opentelemetry.proto.experimental.arrow.v1.ArrowMetricsService/ArrowMetrics",
    "/v1/logs",
    "/v1/traces",
    "/v1/metrics",
    "/readyz",
    "/otlake.admin.v1.Admin/Tail",
    "/metrics",
];
const STOP: &str = "/otlake.admin.v1.Admin/Stop";

/// The tokens that are taken, each for one thing.
pub const INGEST: &str = "token-for-ingest";
pub const QUERY: &str = "token-for-queries";
pub const ADMIN: &str = "token-for-admins";

/// The largest body, compressed or not.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The longest answer that is waited for; health's `Watch` has no end.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Both listeners, on a loopback address, with tokens.
struct Served {
    grpc: Router,
    http: Router,
    stop: Arc<Notify>,
    intake: Arc<Intake>,
    kept: Arc<Kept>,
    /// Its end would end the streams.
    _going: watch::Sender<bool>,
    _dir: TempDir,
}

/// A request's head as the input has it.
struct Head {
    /// `:method`.
    method: Method,
    /// `:path` and `:authority`.
    uri: Uri,
    headers: HeaderMap,
}

/// A request is answered; with success only where its token and every host that it names allow that. A stop is asked for
/// with success alone. When it is over, it holds no memory.
pub fn request(input: &[u8]) {
    let _ = is_success(input);
}

/// The same; answers whether it was a success.
pub fn is_success(input: &[u8]) -> bool {
    let Some((&[which, piece], rest)) = input.split_first_chunk::<2>() else {
        return false;
    };
    let listed = PATHS[usize::from(which) % PATHS.len()];
    let is_grpc = is_grpc(listed);
    let (head, body) = head(listed, rest);
    let path = head.uri.path().to_owned();
    let (is_own, has) = (is_own(&head), tokens(&head.headers));
    let given_none = gives_none(&head.headers);
    thread_local! {
        static SERVED: Served = served();
    }
    SERVED.with(|served| {
        let mut request = Request::new(kept::pieces(body, piece));
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.headers_mut() = head.headers;
        *request.version_mut() = if is_grpc {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        let router = if is_grpc { &served.grpc } else { &served.http };
        let (is_ok, is_stopped) = kept::run(async {
            let is_ok = is_ok(router, request, is_grpc).await;
            let stopped = tokio::time::timeout(Duration::ZERO, served.stop.notified());
            let is_stopped = stopped.await.is_ok();
            settle(served).await;
            (is_ok, is_stopped)
        });
        let rows = served.kept.take();
        assert_eq!(is_stopped, is_ok && is_grpc && path == STOP);
        let is_stream = path.contains(".arrow.");
        if rows > 0 {
            // A stream's token may come with its batches.
            assert!(
                is_own && (has[0] || is_stream && given_none),
                "{rows} rows at {path}"
            );
        }
        if is_ok {
            assert!(is_own, "{path}");
            let [ingest, query, admin] = has;
            let is_allowed = match path.as_str() {
                STOP => admin,
                path if path.starts_with("/otlake.admin.") => query || admin,
                path if path.starts_with("/grpc.health.") => true,
                path if path.starts_with("/grpc.reflection.") => ingest || query || admin,
                "/readyz" | "/healthz" => true,
                "/metrics" => query || admin,
                _ => ingest || is_stream && given_none,
            };
            assert!(is_allowed, "{path}");
        }
        is_ok
    })
}

/// Whether one of [`PATHS`] is at the listener of gRPC.
pub fn is_grpc(path: &str) -> bool {
    !path.starts_with("/v1/") && !["/readyz", "/metrics"].contains(&path)
}

/// Waits until what the request began is over.
async fn settle(served: &Served) {
    for _ in 0..100 {
        if served.intake.budget.reserved() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{} bytes are held", served.intake.budget.reserved());
}

async fn is_ok(router: &Router, request: Request<Body>, is_grpc: bool) -> bool {
    let response = router.clone().oneshot(request).await.unwrap();
    let is_success = response.status().is_success();
    let in_head = response.headers().get("grpc-status").cloned();
    let body = tokio::time::timeout(ANSWER_MAX, response.into_body().collect()).await;
    // At the other listener too a refusal is in gRPC for who speaks that.
    if !is_grpc && in_head.is_none() {
        return is_success;
    }
    let trailers = body.ok().map(|body| body.expect("an answer is whole"));
    let in_trailers = trailers.and_then(|body| body.trailers()?.get("grpc-status").cloned());
    in_head.or(in_trailers).is_some_and(|status| status == "0")
}

fn head<'a>(path: &str, mut rest: &'a [u8]) -> (Head, &'a [u8]) {
    let mut head = Head {
        method: Method::POST,
        uri: Uri::default(),
        headers: HeaderMap::new(),
    };
    let (mut authority, mut path) = (None, path.as_bytes());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let from = usize::from(line.starts_with(b":"));
        let Some(colon) = line[from..].iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(from + colon);
        let value = value[1..].trim_ascii();
        match name {
            b":authority" => authority = Some(value),
            b":path" => path = value,
            b":method" => head.method = Method::from_bytes(value).unwrap_or(Method::POST),
            name => {
                let name = HeaderName::from_bytes(name);
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                    // As many as a connection takes.
                    let _ = head.headers.try_append(name, value);
                }
            }
        }
    }
    let mut uri = Uri::builder().path_and_query(path);
    if let Some(authority) = authority {
        uri = uri.scheme("http").authority(authority);
    }
    head.uri = uri.build().unwrap_or_default();
    (head, rest)
}

/// Whether the headers have nothing where a token is looked for.
fn gives_none(headers: &HeaderMap) -> bool {
    let bearer = headers
        .get(http::header::AUTHORIZATION)
        .is_some_and(|value| {
            let scheme = value.as_bytes().get(..7);
            scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
        });
    !bearer && !headers.contains_key("x-api-key")
}

/// Which of the tokens the headers have anywhere: for ingest, queries, admins.
fn tokens(headers: &HeaderMap) -> [bool; 3] {
    [INGEST, QUERY, ADMIN].map(|token| {
        let mut values = headers.values().map(HeaderValue::as_bytes);
        values.any(|value| {
            value
                .windows(token.len())
                .any(|part| part == token.as_bytes())
        })
    })
}

/// Whether every host that is named is this machine's own name or loopback address.
fn is_own(head: &Head) -> bool {
    let hosts = head.headers.get_all(http::header::HOST).iter();
    let hosts = hosts.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let authority = head.uri.authority().map(|authority| authority.to_string());
    hosts
        .chain(authority)
        .all(|host| host.is_empty() || is_own_host(&host))
}

fn is_own_host(host: &str) -> bool {
    let host = host.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return ip.to_canonical().is_loopback();
    }
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    host == "localhost" || host.ends_with(".localhost")
}

fn served() -> Served {
    let dir = TempDir::new().unwrap();
    let (intake, kept) = kept::intake(BODY_BYTES_MAX);
    let gate = gate(dir.path(), &intake);
    let overview = overview(dir.path(), &intake, SealId(0));
    let stop = Arc::new(Notify::new());
    let (going, ends) = watch::channel(false);
    let admin = AdminService {
        overview: Arc::clone(&overview),
        stop: Arc::clone(&stop),
        stopping: ends.clone(),
    };
    // The gRPC listener's health begins a task.
    let grpc = kept::run(async { router::grpc(&gate, &intake, admin, 4318, ends).unwrap() });
    Served {
        grpc,
        http: router::http(&gate, &intake, &overview, 4317),
        stop,
        intake,
        kept,
        _going: going,
        _dir: dir,
    }
}

/// A server of which nothing runs; `last` is the newest seal that is staged, and on its way to the lake.
pub fn overview(dir: &Path, intake: &Intake, last: SealId) -> Arc<Overview> {
    let ledger = Arc::new(Ledger::new());
    let readiness = Readiness::new(Arc::clone(&ledger), journal(dir));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let sequence = SealSequence::open(&disk, &dir.join("seals"), last).unwrap();
    let limits = SealLimits {
        target_bytes: u64::MAX,
        max_age: Duration::from_secs(3600),
    };
    Arc::new(Overview {
        identity: Identity {
            writer: WriterId("fuzz".to_owned()),
            started_unix_ms: 0,
            listeners: Vec::new(),
            token_required: true,
            transport_security: "",
            catalog: String::new(),
            data_path: String::new(),
            connections_max: 1,
            quack: None,
        },
        counters: Arc::clone(&intake.counters),
        queries: Arc::default(),
        budget: intake.budget.clone(),
        queue: SealQueue::new(limits, sequence),
        ledger,
        journal_status: Box::new(JournalStatus::default),
        readiness,
        connections: Arc::default(),
        otap_streams: Arc::default(),
        tails: Arc::clone(&intake.tails),
    })
}

/// A gate on a loopback address, with the three tokens.
fn gate(dir: &Path, intake: &Intake) -> Gate {
    let file = dir.join("tokens");
    let named = [
        ("a", "ingest", INGEST),
        ("b", "query", QUERY),
        ("c", "admin", ADMIN),
    ];
    let lines = named.map(|(name, role, token)| format!("{name} {role} {token}\n"));
    fs::write(&file, lines.concat()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let source = Tokens {
        token: None,
        file: Some(file),
        quack: None,
    };
    let named = TokenBook::read(&source).unwrap();
    let book = TokenBook::new(source, &named, &intake.counters);
    let gate = Gate::new(Some(Arc::new(book)), CorsOrigins::None);
    let loopback: SocketAddr = ([127, 0, 0, 1], 4317).into();
    gate.at(loopback, &AllowedHosts::Named(Vec::new()))
}

/// A journal in which nothing is written: the readiness asks for one.
fn journal(dir: &Path) -> Arc<Journal> {
    let config = JournalConfig {
        dir: dir.join("journal"),
        segment_bytes: 1 << 20,
        disk_bytes_max: 1 << 30,
        durability: Durability::Memory,
        moment: MOMENT,
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    disk.create_dir_all(&config.dir).unwrap();
    let found = scan(&*disk, &config.dir).unwrap();
    let hooks = Hooks {
        deliver: Box::new(|_, _| None),
        staged_bytes: Box::new(|| 0),
        remembered: Box::new(Vec::new),
    };
    Journal::start(disk, config, &found, 0, hooks).unwrap()
}
