//! `scripts/package`: what it makes runs where there is nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use otlake::server_file::ServerFile;
use tempfile::TempDir;

use crate::support::{OTLAKE, Server, eventually};

/// Packs the binary under test and unpacks it; answers the folder that came out.
fn unpacked(dir: &TempDir) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = dir.path().join("made");
    let status = Command::new(root.join("scripts/package"))
        .args(["--binary", OTLAKE, "--out"])
        .arg(&made)
        .status()
        .unwrap();
    assert!(status.success());
    let archives: Vec<PathBuf> = fs::read_dir(&made)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [archive] = archives.as_slice() else {
        panic!("{archives:?}");
    };
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    let name = archive.file_name().unwrap().to_str().unwrap();
    dir.path().join(name.strip_suffix(".tar.gz").unwrap())
}

/// The program of a package, in an empty home, without any variable or any other program.
struct Packed {
    binary: PathBuf,
    home: PathBuf,
}

impl Packed {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env_clear().env("HOME", &self.home);
        command.current_dir(&self.home).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        output
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Scenario: a package is unpacked in an empty folder, and its program serves, sends, queries and stops with no other program on
/// its path, no variables, and a home of its own.
/// Guarantees: it uses the library and the extensions of the package and nothing else; what was sent is there; it has man pages,
/// completions, the unit and the licences.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_package_runs_where_there_is_nothing_else() {
    let dir = TempDir::new().unwrap();
    let tree = tokio::task::block_in_place(|| unpacked(&dir));
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    // A link, as docs/OPERATIONS.md and the image make one: the library is found beside what it points to.
    let link = dir.path().join("otlake");
    std::os::unix::fs::symlink(tree.join("bin/otlake"), &link).unwrap();
    let packed = Packed {
        binary: link,
        home: home.clone(),
    };

    let listen = [
        "--grpc-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ];
    let mut serve = packed.command(&["serve"]);
    serve.args(listen).args(["--quack-listen", "127.0.0.1:0"]);
    serve.env("OTLAKE_QUACK_TOKEN", "a-token-of-the-tests");
    serve.stdout(Stdio::null());
    let server = Running(serve.stderr(Stdio::null()).spawn().unwrap());
    let data = home.join("otlake-data");
    eventually("the server", async || ServerFile::read(&data).is_some()).await;
    let endpoint = ServerFile::read(&data).unwrap().grpc.to_string();
    tokio::task::block_in_place(|| {
        packed.run(&[
            "send",
            "--signal",
            "all",
            "--count",
            "10",
            "--endpoint",
            &endpoint,
        ]);
        packed.run(&["flush"]);
        let found = packed.run(&[
            "query",
            "--format",
            "csv",
            "SELECT count(*) AS n FROM otlp_logs",
        ]);
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "n\n10\n");
    });
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.0.id())).unwrap();
    for part in [
        "libduckdb.so",
        "ducklake.duckdb_extension",
        "sqlite_scanner.duckdb_extension",
        "quack.duckdb_extension",
        "httpfs.duckdb_extension",
    ] {
        let mut loaded = maps.lines().filter(|line| line.ends_with(part));
        let inside = tree.join("lib");
        let is_inside = |line: &str| line.contains(inside.to_str().unwrap());
        assert!(loaded.next().is_some_and(is_inside), "{part}");
    }
    packed.run(&["stop"]);
    let left: Vec<_> = fs::read_dir(&home)
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left, ["otlake-data"]);

    for (file, text) in [
        ("share/man/man1/otlake-serve.1", "otlake\\-serve"),
        ("share/bash-completion/completions/otlake", "complete"),
        ("share/zsh/site-functions/_otlake", "#compdef otlake"),
        (
            "share/fish/vendor_completions.d/otlake.fish",
            "complete -c otlake",
        ),
        ("lib/systemd/system/otlake.service", "ExecStart="),
        ("share/doc/otlake/README.md", "otlake"),
        ("LICENSE", "Apache License"),
        (
            "LICENCES-OF-DEPENDENCIES.txt",
            "Stichting DuckDB Foundation",
        ),
    ] {
        let found = fs::read_to_string(tree.join(file)).unwrap();
        assert!(found.contains(text), "{file}");
    }
}

/// Scenario: `otlake --version` and `otlake -V`, and a lake.
/// Guarantees: version and commit; the DuckDB that reads the lake, and the DuckLake that the lake is; the short one is one line.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_names_what_it_was_built_of() {
    let output = |flag: &str| {
        let output = Command::new(OTLAKE).arg(flag).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(output("-V"), format!("otlake {version}\n"));
    let text = output("--version");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("otlake {version}"));
    assert!(lines[1].starts_with("commit   "), "{text}");
    let server = Server::start();
    server.flush().await;
    let duckdb = server.sql("SELECT version()")[0][0].clone();
    let duckdb = duckdb.trim_start_matches('v');
    let format =
        "SELECT value FROM __ducklake_metadata_lake.ducklake_metadata WHERE key = 'version'";
    let ducklake = server.sql(format)[0][0].clone();
    let found = [format!("DuckDB   {duckdb}"), format!("DuckLake {ducklake}")];
    assert_eq!(lines[2..], found);
}
