//! A real server in a folder of its own, and what tests need to talk to it.

pub mod arbitrary;
pub mod certs;
pub mod compression_input;
pub mod crash_load;
pub mod failing_sync;
pub mod fake_clock;
pub mod faulty_disk;
pub mod faulty_file;
pub mod frames;
pub mod journal_input;
pub mod kept;
pub mod load;
pub mod open_metrics;
pub mod otap_input;
pub mod otap_load;
pub mod otlp;
pub mod otlp_input;
pub mod otlp_json_form;
pub mod otlp_plain;
pub mod otlp_send;
pub mod outage;
pub mod preload;
pub mod quack;
pub mod raw;
pub mod request_input;
pub mod rows;
pub mod sample;
pub mod stream;
pub mod telemetry;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use otlake::lake::{Catalog, LakeConfig, open_read_only};
use otlake::proto::admin::FlushRequest;
use otlake::proto::admin::admin_client::AdminClient;
use otlake::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use otlake::proto::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use otlake::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use otlake::server_file::ServerFile;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long a test waits for a state before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The real binary.
pub const OTLAKE: &str = env!("CARGO_BIN_EXE_otlake");

/// A server with settings of its own.
pub struct ServerBuilder {
    dir: TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// A running server; killed when dropped.
pub struct Server {
    pub dir: TempDir,
    pub child: Child,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

/// The answer to an HTTP request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl ServerBuilder {
    pub fn new() -> ServerBuilder {
        ServerBuilder {
            dir: TempDir::new().unwrap(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Goes on in the folder of a server that has stopped.
    pub fn again(dir: TempDir) -> ServerBuilder {
        ServerBuilder {
            dir,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    pub fn args(mut self, args: &[&str]) -> ServerBuilder {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> ServerBuilder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command that would be started: data folder, ports chosen by the system, log into a file.
    pub fn command(&self) -> Command {
        let mut command = otlake();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir(&self.dir));
        for (flag, address) in [
            ("--grpc-listen", "127.0.0.1:0"),
            ("--http-listen", "127.0.0.1:0"),
        ] {
            let is_theirs = flag == "--http-listen"
                && self.env.iter().any(|(name, _)| name == "OTEL_HTTP_ADDR");
            if !is_theirs && !self.args.iter().any(|arg| arg.starts_with(flag)) {
                command.args([flag, address]);
            }
        }
        command.args(&self.args).envs(self.env.clone());
        command
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(&self) -> Child {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let banner = fs::File::create(self.dir.path().join("banner")).unwrap();
        // A file of an earlier run says nothing about this one.
        let _ = ServerFile::remove(&data_dir(&self.dir));
        self.command()
            .stdin(Stdio::null())
            .stdout(banner)
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Kills the process `after` its start, ready or not; answers whether it was, and the folder.
    pub fn kill_in_start(self, after: Duration) -> (bool, TempDir) {
        let mut child = self.spawn();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
        let was_ready = ServerFile::read(&data_dir(&self.dir)).is_some();
        (was_ready, self.dir)
    }

    /// Starts the process and waits until it is ready.
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|(status, dir)| {
            panic!("the server ended with {status}: {}", read_log(&dir))
        })
    }

    /// The same; gives the folder back when the process ended instead.
    pub fn try_start(self) -> Result<Server, (ExitStatus, TempDir)> {
        let mut child = self.spawn();
        let started = Instant::now();
        let file = loop {
            if let Some(file) = ServerFile::read(&data_dir(&self.dir)) {
                break file;
            }
            if let Some(status) = child.try_wait().unwrap() {
                return Err((status, self.dir));
            }
            assert!(started.elapsed() < PATIENCE, "{}", read_log(&self.dir));
            std::thread::sleep(Duration::from_millis(5));
        };
        Ok(Server {
            dir: self.dir,
            child,
            grpc: file.grpc,
            http: file.http,
        })
    }
}

/// The real binary, without the variables of whoever runs the tests.
pub fn otlake() -> Command {
    let mut command = Command::new(OTLAKE);
    for (name, _) in std::env::vars() {
        if name.starts_with("OTLAKE_") || name == "DUCKDB_MODE" {
            command.env_remove(name);
        }
    }
    command
}

pub fn data_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

pub fn read_log(dir: &TempDir) -> String {
    fs::read_to_string(dir.path().join("log")).unwrap_or_default()
}

impl Server {
    /// A server with default settings that seals only when asked to, so that tests decide when.
    pub fn start() -> Server {
        Server::with(&["--seal-max-age", "1h"])
    }

    pub fn with(args: &[&str]) -> Server {
        ServerBuilder::new().args(args).start()
    }

    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.dir)
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        read_log(&self.dir)
    }

    /// What the server printed to its standard output, which comes a moment after it answers.
    pub fn banner(&self) -> String {
        let started = Instant::now();
        loop {
            let banner = fs::read_to_string(self.dir.path().join("banner")).unwrap_or_default();
            if banner.ends_with('\n') {
                return banner;
            }
            assert!(started.elapsed() < PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks the server to stop, and waits until it has.
    pub fn stop(mut self) -> (ExitStatus, TempDir) {
        self.signal(rustix::process::Signal::TERM);
        (self.wait(), self.into_dir())
    }

    /// Kills the server in the middle of whatever it does.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.into_dir()
    }

    /// The folder of a server that has ended.
    fn into_dir(mut self) -> TempDir {
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
    }

    /// Waits until the server has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A line of `/proc/<pid>/status` that tells memory, such as `VmRSS`, bytes.
    pub fn memory_bytes(&self, name: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() << 10
    }

    /// How many threads the server has.
    pub fn threads(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.child.id());
        fs::read_dir(tasks).unwrap().count()
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn logs(&self) -> LogsServiceClient<Channel> {
        LogsServiceClient::new(self.channel().await)
    }

    pub async fn traces(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::new(self.channel().await)
    }

    pub async fn metrics(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.channel().await)
    }

    pub async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await)
    }

    /// Waits until everything accepted so far is in the lake; answers how many rows the call brought there.
    pub async fn flush(&self) -> u64 {
        let timeout_ms = u32::try_from(PATIENCE.as_millis()).unwrap();
        let request = FlushRequest { timeout_ms };
        let flushed = self.admin().await.flush(request).await;
        flushed
            .unwrap_or_else(|status| panic!("{status}\n{}", self.log()))
            .into_inner()
            .rows
    }

    /// POSTs to OTLP/HTTP.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.request(Method::POST, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// Runs a query on the lake as another process would; each cell as DuckDB prints it, null as `NULL`.
    pub fn sql(&self, query: &str) -> Vec<Vec<String>> {
        sql(&self.data_dir(), query)
    }

    /// The single number that a query gives.
    pub fn count(&self, query: &str) -> i64 {
        self.sql(query)[0][0].parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// The default lake of a data folder.
pub fn lake_config(data_dir: &Path) -> LakeConfig {
    LakeConfig {
        catalog: Catalog::Sqlite(data_dir.join("catalog.sqlite")),
        data_path: data_dir.join("lake"),
        schema: "main".to_owned(),
        extension_dir: None,
        target_file_size_bytes: 256 << 20,
        snapshot_retention: Duration::from_secs(900),
        is_group_readable: false,
    }
}

/// Runs a query on a data folder's lake, read-only; each cell as DuckDB prints it, null as `NULL`.
pub fn sql(data_dir: &Path, query: &str) -> Vec<Vec<String>> {
    let lake = open_read_only(&lake_config(data_dir)).unwrap();
    query_all(&lake, query)
}

/// Runs a query on an open connection; each cell as DuckDB prints it, null as `NULL`.
pub fn query_all(lake: &duckdb::Connection, query: &str) -> Vec<Vec<String>> {
    let as_text = format!("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query})");
    let mut statement = lake
        .prepare(&as_text)
        .unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut rows = statement.query([]).unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let width = row.as_ref().column_count();
        let cells = (0..width).map(|place| {
            let cell: Option<String> = row.get(place).unwrap();
            cell.unwrap_or_else(|| "NULL".to_owned())
        });
        all.push(cells.collect());
    }
    all
}

/// Polls until `met` says so.
pub async fn eventually(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !met().await {
        assert!(
            started.elapsed() < PATIENCE,
            "{what} did not happen in {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One captured request of a real client.
pub struct Captured {
    pub signal: String,
    pub is_grpc: bool,
    pub content_type: String,
    pub encoding: String,
    pub body: Bytes,
}

/// The captured requests of `tests/fixtures/agents/<name>`, in order.
pub fn captured(name: &str) -> Vec<Captured> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/agents")
        .join(name);
    let index = fs::read_to_string(dir.join("index.jsonl")).unwrap();
    let lines = index.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            Captured {
                signal: text("signal"),
                is_grpc: text("transport") == "grpc",
                content_type: text("content_type"),
                encoding: text("encoding"),
                body: fs::read(dir.join(text("file"))).unwrap().into(),
            }
        })
        .collect()
}

/// The file system.
pub fn real_disk() -> std::sync::Arc<dyn otlake::disk::Disk> {
    std::sync::Arc::new(otlake::disk::RealDisk)
}
