use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::Response;

use super::*;
use crate::cli::flush::flush;
use crate::proto::admin::admin_server::{Admin, AdminServer};
use crate::proto::admin::{
    FlushRequest, FlushResponse, SealsRequest, SealsResponse, StatusRequest, StatusResponse,
    StopRequest, StopResponse, TailRequest, TailResponse,
};

const TOKEN: &str = "0123456789abcdef";

/// An admin service that wants [`TOKEN`] and keeps the time limits of flushes.
#[derive(Clone, Default)]
struct FakeAdmin {
    timeouts_ms: Arc<Mutex<Vec<u32>>>,
}

#[tonic::async_trait]
impl Admin for FakeAdmin {
    async fn flush(
        &self,
        request: Request<FlushRequest>,
    ) -> Result<Response<FlushResponse>, Status> {
        let token = request.metadata().get("authorization");
        if token.and_then(|token| token.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("no or a wrong token"));
        }
        self.timeouts_ms
            .lock()
            .unwrap()
            .push(request.get_ref().timeout_ms);
        Ok(Response::new(FlushResponse {
            rows: 3,
            seal_id: 1,
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(Status::internal("broken"))
    }

    async fn seals(&self, _: Request<SealsRequest>) -> Result<Response<SealsResponse>, Status> {
        std::future::pending().await
    }

    type TailStream = tokio_stream::Empty<Result<TailResponse, Status>>;

    async fn tail(&self, _: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        Err(Status::internal("broken"))
    }

    async fn stop(&self, _: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        Err(Status::internal("broken"))
    }
}

async fn start(admin: FakeAdmin) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(AdminServer::new(admin));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn args(endpoint: Option<&str>, data_dir: &std::path::Path) -> ClientArgs {
    ClientArgs {
        endpoint: endpoint.map(str::to_owned),
        token: None,
        tls: ClientTlsArgs::default(),
        data_dir: data_dir.to_owned(),
    }
}

fn given(endpoint: &str) -> Target {
    Target::find(&args(Some(endpoint), "nowhere".as_ref())).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

/// Scenario: a server with a token, called with it, without it and with another.
/// Guarantees: the token arrives as a bearer; the errors say what to do, each in a line.
#[tokio::test]
async fn the_token_is_shown_and_its_lack_explained() {
    let admin = FakeAdmin::default();
    let target = given(&start(admin.clone()).await.to_string());
    let token = |text: &str| Secret::from(text.to_owned());

    let response = flush(&target, Some(&token(TOKEN)), SECOND).await.unwrap();
    assert_eq!((response.rows, response.seal_id), (3, 1));
    assert_eq!(*admin.timeouts_ms.lock().unwrap(), [1000]);

    let error = flush(&target, None, SECOND).await.unwrap_err().to_string();
    assert!(
        error.contains("wants a token: --token or OTLAKE_TOKEN"),
        "{error}"
    );
    let wrong = token("fedcba9876543210");
    let error = flush(&target, Some(&wrong), SECOND)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("refuses the token"), "{error}");
    let error = flush(&target, Some(&token("a\nb")), SECOND)
        .await
        .unwrap_err();
    assert!(error.is::<UsageError>(), "{error}");
}

/// Scenario: the server answers with an error of its own.
/// Guarantees: its words reach the user.
#[tokio::test]
async fn a_failed_call_has_the_servers_words() {
    let target = given(&start(FakeAdmin::default()).await.to_string());
    let mut client = Client::connect(&target, None, SECOND).await.unwrap();
    let status = client.admin.status(StatusRequest {}).await.unwrap_err();
    let error = client.explain(&status).to_string();
    assert!(error.ends_with("says: broken"), "{error}");
}

/// Scenario: the server never answers.
/// Guarantees: the client gives up when its time is over, and says so.
#[tokio::test]
async fn a_call_without_an_answer_ends() {
    let target = given(&start(FakeAdmin::default()).await.to_string());
    let short = Duration::from_millis(50);
    let mut client = Client::connect(&target, None, short).await.unwrap();
    let status = client
        .admin
        .seals(SealsRequest { limit: 1 })
        .await
        .unwrap_err();
    let error = client.explain(&status).to_string();
    assert!(error.starts_with("no answer in time from"), "{error}");
}

/// Scenario: nothing listens: on an address that was given, and on that of the data folder's server.
/// Guarantees: one line with the address, the system's words, and what to check.
#[tokio::test]
async fn an_unreachable_server_is_one_clear_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = given(&address.to_string());
    let error = flush(&target, None, SECOND).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "nothing answers at http://{address} (connection refused): is `otlake serve` running? check --endpoint"
        )
    );
    let target = Target {
        found: Found::Guessed,
        ..target
    };
    let error = flush(&target, None, SECOND).await.unwrap_err().to_string();
    assert!(error.starts_with("no server runs in nowhere"), "{error}");
}

/// Scenario: what listens there speaks no HTTP/2.
/// Guarantees: the error says so instead of hanging.
#[tokio::test]
async fn another_protocol_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = given(&listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, answer).await;
        }
    });
    let error = flush(&target, None, SECOND).await.unwrap_err().to_string();
    assert!(error.contains("is it otlake's gRPC port?"), "{error}");
}

/// Scenario: the ways to write an address.
/// Guarantees: host and port are completed; paths, other schemes and addresses without a port are usage errors.
#[test]
fn endpoints_are_checked() {
    for (given, expected) in [
        ("localhost:4317", "http://localhost:4317"),
        (" http://localhost:4317/ ", "http://localhost:4317"),
        ("HTTP://[::1]:4317", "http://[::1]:4317"),
        ("HTTPS://lake.example:4317", "https://lake.example:4317"),
    ] {
        assert_eq!(url(given, "http").unwrap(), expected);
    }
    // Who names an issuer wants TLS.
    let tls = ClientTlsArgs {
        ca: Some("ca.pem".into()),
        ..ClientTlsArgs::default()
    };
    for (given, scheme) in [("a:1", "https"), ("http://a:1", "http")] {
        let completed = url(given, tls.default_scheme()).unwrap();
        assert_eq!(completed, format!("{scheme}://a:1"));
    }
    for wrong in [
        "https://localhost",
        "localhost",
        "http://localhost:4317/v1",
        "",
        "grpc://a:1",
    ] {
        assert!(url(wrong, "http").is_err(), "{wrong}");
    }
}

/// Scenario: a data folder with a running server, with one that is gone, and an endpoint that is given.
/// Guarantees: what is given goes first, then the server of the folder, then the usual port.
#[test]
fn the_server_is_found_in_this_order() {
    use crate::config::LakeArgs;
    use crate::data_dir::DataDir;
    use crate::server_file::LakeFile;
    let dir = tempfile::tempdir().unwrap();
    let lake = LakeArgs::default().resolve(dir.path()).unwrap();
    let address = |text: &str| text.parse().unwrap();
    let file = ServerFile::new(
        address("0.0.0.0:5317"),
        address("0.0.0.0:5318"),
        LakeFile::new(&lake, dir.path()),
    );
    file.write(dir.path()).unwrap();
    let lock = DataDir::open(dir.path()).unwrap();

    let target = Target::find(&args(None, dir.path())).unwrap();
    assert_eq!(target.url, "http://127.0.0.1:5317");
    assert_eq!(target.found, Found::Running(Box::new(file.clone())));
    let target = Target::find(&args(Some("127.0.0.1:5317"), dir.path())).unwrap();
    assert_eq!(
        (&target.found, target.local_server()),
        (&Found::Given, Some(file))
    );
    let target = Target::find(&args(Some("127.0.0.1:1"), dir.path())).unwrap();
    assert_eq!(target.local_server(), None);

    drop(lock);
    let target = Target::find(&args(None, dir.path())).unwrap();
    assert_eq!(
        (target.url.as_str(), &target.found),
        (DEFAULT_URL, &Found::Guessed)
    );
}
