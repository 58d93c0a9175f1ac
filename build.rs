//! Generates the wire interfaces from `proto/` and tells the linker where DuckDB's shared library is.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    generate_wire_interfaces(&root.join("proto"))?;
    if env::var_os("CARGO_FEATURE_BUNDLED").is_none() {
        link_duckdb(&root)?;
    }
    println!("cargo::rustc-env=OTLAKE_COMMIT={}", commit(&root));
    println!(
        "cargo::rustc-env=OTLAKE_DUCKDB_VERSION={}",
        duckdb_version(&root)?
    );
    Ok(())
}

/// The version of DuckDB that scripts/versions.lock pins, which the `duckdb` crate and the extensions fit.
fn duckdb_version(root: &Path) -> Result<String, Box<dyn Error>> {
    let path = root.join("scripts/versions.lock");
    println!("cargo::rerun-if-changed={}", path.display());
    let pins = fs::read_to_string(&path)?;
    let version = pins.lines().find_map(|line| line.strip_prefix("duckdb "));
    let version = version.ok_or_else(|| format!("{} names no DuckDB", path.display()))?;
    Ok(version.trim().to_owned())
}

/// Compiles all of `proto/` (in Rust: no `protoc`) into messages, services, and the descriptors that gRPC reflection serves.
///
/// OTLP gets clients only, for `otlake send` and the tests: the receiver serves these paths itself, from raw bytes.
fn generate_wire_interfaces(proto: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", proto.display());
    let mut files = Vec::new();
    collect_protos(proto, &mut files)?;
    files.sort(); // the same descriptors on every machine

    let mut compiler = protox::Compiler::new([proto])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("otlake.fds.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    // Two passes, because servers are switched on for a whole pass. Each package is one file named after it, so nothing collides.
    let (own, public): (Vec<_>, Vec<_>) = compiler
        .file_descriptor_set()
        .file
        .into_iter()
        .partition(|file| file.package().starts_with("otlake."));
    for (file, build_server) in [(own, true), (public, false)] {
        tonic_prost_build::configure()
            .build_server(build_server)
            .bytes(".")
            .compile_fds(FileDescriptorSet { file })?;
    }
    Ok(())
}

fn collect_protos(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_protos(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Checks that DuckDB's library is there, and writes its folder into the run path of binaries and tests.
///
/// The run path names the folders beside the binary first, so that a package can carry the library along.
fn link_duckdb(root: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    let macos = env::var("CARGO_CFG_TARGET_OS")? == "macos";
    let library = if macos {
        "libduckdb.dylib"
    } else {
        "libduckdb.so"
    };
    // Cargo reads .cargo/config.toml from where it runs; without it (--manifest-path) the folder is the same.
    let dir = root.join(env::var_os("DUCKDB_LIB_DIR").unwrap_or_else(|| "vendor/duckdb".into()));
    if !dir.join(library).is_file() {
        println!("cargo::error=run scripts/setup first");
        println!(
            "cargo::error=it fetches DuckDB's library, and there is no {library} in {} (DUCKDB_LIB_DIR); \
             or compile DuckDB itself with `--features bundled`, about 20 minutes",
            dir.display()
        );
        return Ok(());
    }
    let dir = dir.canonicalize()?;
    println!("cargo::rustc-link-search=native={}", dir.display());
    let beside = if macos { "@executable_path" } else { "$ORIGIN" };
    // A package carries the library along, and must not look where it was built.
    println!("cargo::rerun-if-env-changed=OTLAKE_PACKAGE");
    let here = env::var_os("OTLAKE_PACKAGE").is_none();
    let here = here.then(|| dir.display().to_string());
    let paths = [beside.to_owned(), format!("{beside}/../lib")];
    for path in paths.into_iter().chain(here) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
    }
    Ok(())
}

/// The short hash of the commit that is built, or `unknown` outside of a git clone.
fn commit(root: &Path) -> String {
    let unknown = || "unknown".to_owned();
    // Not a clone (a source package): a git folder further up would be another project's.
    if !root.join(".git").exists() {
        return unknown();
    }
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // The log of HEAD grows with every commit, HEAD itself changes with the branch only: enough for a debug build,
    // which shall not be compiled again for each commit.
    let watched = if env::var("PROFILE").as_deref() == Ok("release") {
        "logs/HEAD"
    } else {
        "HEAD"
    };
    if let Some(path) = git(&["rev-parse", "--git-path", watched]).map(|path| root.join(path))
        && path.exists()
    {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(unknown)
}
