//! The server under a service manager and in a container: what it tells, its unit file, and `otlake healthcheck`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::outage::LakeAway;
use crate::support::{PATIENCE, Server, ServerBuilder, eventually, otlake};

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    _dir: tempfile::TempDir,
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager {
            _dir: dir,
            path,
            socket,
        }
    }

    fn server(&self) -> ServerBuilder {
        ServerBuilder::new()
            .args(&["--seal-max-age", "1h"])
            .env("NOTIFY_SOCKET", self.path.to_str().unwrap())
    }

    /// The assignments of the next message.
    fn told(&self) -> BTreeMap<String, String> {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).unwrap();
        let text = std::str::from_utf8(&message[..len]).unwrap();
        let assignments = text.lines().map(|line| line.split_once('=').unwrap());
        assignments
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The next message that is not the watchdog's.
    fn news(&self) -> BTreeMap<String, String> {
        loop {
            let told = self.told();
            if !told.contains_key("WATCHDOG") {
                return told;
            }
        }
    }
}

fn one(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), "1".to_owned())])
}

/// Scenario: a server with a service manager is started, gets SIGHUP, which without files to look after ends other servers, and
/// is stopped.
/// Guarantees: it says that it is ready once it can be connected to; that it reloads, with the time of the monotonic clock, and
/// that it is ready again; that it stops; each once and in this order.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_each_step() {
    let manager = Manager::new();
    let server = manager.server().start();
    let ready = manager.news();
    assert_eq!(ready["READY"], "1");
    let (grpc, http) = (server.grpc.to_string(), server.http.to_string());
    assert!(ready["STATUS"].contains(&grpc) && ready["STATUS"].contains(&http));
    assert_eq!(server.get("/healthz").await.status, 200);
    for _ in 0..2 {
        let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        server.signal(Signal::HUP);
        let reloading = manager.news();
        assert_eq!(reloading["RELOADING"], "1");
        let time: i64 = reloading["MONOTONIC_USEC"].parse().unwrap();
        let after = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        assert!((before.tv_sec * 1_000_000..=(after.tv_sec + 1) * 1_000_000).contains(&time));
        assert_eq!(manager.news(), one("READY"));
    }
    let (status, _dir) = server.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(manager.news(), one("STOPPING"));
}

/// Scenario: a service manager with a watchdog of 200 ms, for this process, and one for another process.
/// Guarantees: the server speaks up again and again by itself; where it is not meant it does not.
#[test]
fn the_watchdog_is_kept_quiet() {
    let manager = Manager::new();
    let server = manager.server().env("WATCHDOG_USEC", "200000").start();
    assert_eq!(manager.told()["READY"], "1");
    for _ in 0..5 {
        assert_eq!(manager.told(), one("WATCHDOG"));
    }
    drop(server);

    let manager = Manager::new();
    let builder = manager.server().env("WATCHDOG_USEC", "1000");
    let server = builder.env("WATCHDOG_PID", "1").start();
    assert_eq!(manager.told()["READY"], "1");
    server.stop();
    assert_eq!(manager.told(), one("STOPPING"));
}

/// Scenario: a socket that nobody listens at.
/// Guarantees: the server runs all the same, and says so.
#[tokio::test]
async fn a_service_manager_that_is_gone_keeps_nothing_from_running() {
    let builder = ServerBuilder::new().env("NOTIFY_SOCKET", "/nowhere/notify");
    let server = builder.start();
    eventually("the warning", async || {
        server.log().contains("the service manager cannot be told")
    })
    .await;
    assert_eq!(server.get("/healthz").await.status, 200);
}

fn unit() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("docs/otlake.service")).unwrap()
}

fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=");
    let mut found = unit.lines().filter_map(|line| line.strip_prefix(&start));
    let value = found.next().unwrap();
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

/// Scenario: the unit file, with the binary that is tested in the place of the installed one, read by systemd's own tools where
/// the machine has them.
/// Guarantees: the command line and the variables are ones that otlake takes; its times fit those of the server; systemd finds
/// no fault with it, and its sandbox is worth the name.
#[test]
fn the_unit_file_is_one_that_systemd_and_otlake_take() {
    let unit = unit();
    let dir = tempfile::tempdir().unwrap();
    let (program, args) = setting(&unit, "ExecStart").split_once(' ').unwrap();
    assert_eq!(program, "/usr/local/bin/otlake");
    let (name, value) = setting(&unit, "Environment").split_once('=').unwrap();
    assert_eq!(
        value,
        format!("/var/lib/{}", setting(&unit, "StateDirectory"))
    );
    let mut check = otlake();
    check.args(args.split(' ')).arg("--check");
    let checked = check.env(name, dir.path()).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let effective = String::from_utf8(checked.stdout).unwrap();
    assert!(
        effective.contains(dir.path().to_str().unwrap()),
        "{effective}"
    );
    assert!(effective.contains("shutdown-grace"), "{effective}");
    let grace = effective
        .lines()
        .find(|line| line.contains("shutdown-grace"));
    assert!(grace.unwrap().contains("30s") && setting(&unit, "TimeoutStopSec") == "45s");

    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("there is no systemd-analyze here: its part is left out");
        return;
    }
    let installed = unit
        .replace(program, crate::support::OTLAKE)
        .replace("otlake\nGroup=otlake", "root\nGroup=root");
    let path = dir.path().join("otlake.service");
    fs::write(&path, installed).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert!(verified.stderr.is_empty(), "{verified:?}");
    // As a user of its own, as it is in the file. The scale is 0 to 100, the less the better.
    fs::write(&path, unit).unwrap();
    let rated = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(rated.status.success(), "{rated:?}");
}

fn healthcheck(args: &[&str]) -> Output {
    otlake().arg("healthcheck").args(args).output().unwrap()
}

/// One line on one of the two, and nothing on the other.
fn line(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.is_empty() != err.is_empty(), "{output:?}");
    let said = out + &err;
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Scenario: a server that is well, with a token that the check does not have; found by its data folder and by its address.
/// Then it is stopped.
/// Guarantees: exit code 0 and one line; afterwards 1 and one line that says what to do.
#[test]
fn a_healthy_server_is_told_from_none() {
    let builder = ServerBuilder::new().env("OTLAKE_TOKEN", "0123456789abcdef-token");
    let server = builder.start();
    let data_dir = server.data_dir();
    let by_folder = ["--data-dir", data_dir.to_str().unwrap()];
    let url = format!("http://{}", server.grpc);
    for args in [&by_folder[..], &["--endpoint", &url]] {
        let checked = healthcheck(args);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        assert!(line(&checked).starts_with("healthy: "), "{checked:?}");
    }
    let (_, _dir) = server.stop();
    let checked = healthcheck(&["--endpoint", &url]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(line(&checked).contains("otlake serve"), "{checked:?}");
}

/// Scenario: a server whose lake's folder is gone, so that rows do not reach the lake.
/// Guarantees: the check fails with the server's own reason; asked only whether it lives, it is fine.
#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_server_is_unhealthy_and_alive() {
    let server = Server::with(&["--seal-max-age", "100ms"]);
    let _away = LakeAway::take(&server.data_dir());
    let url = format!("http://{}", server.grpc);
    let mut send = otlake();
    send.args(["send", "--count", "1", "--endpoint", &url]);
    assert!(send.output().unwrap().status.success());
    eventually("the health's change", async || {
        healthcheck(&["--endpoint", &url]).status.code() == Some(1)
    })
    .await;
    let said = line(&healthcheck(&["--endpoint", &url]));
    assert!(said.contains("cannot be published"), "{said}");
    let alive = healthcheck(&["--live", "--endpoint", &url]);
    assert_eq!(alive.status.code(), Some(0), "{alive:?}");
    assert!(line(&alive).contains("degraded"));
}

/// Scenario: something that takes connections and never answers.
/// Guarantees: the check gives up when its time is over, with exit code 1 and a line that names the time.
#[test]
fn silence_is_given_up_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let began = std::time::Instant::now();
    let checked = healthcheck(&["--timeout", "300ms", "--endpoint", &url]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(line(&checked).contains("300ms"), "{checked:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
}
