//! Writes the folder of DuckDB's library into the run path: the program's own build script does that for the program alone.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = root.join(env::var_os("DUCKDB_LIB_DIR").unwrap_or_else(|| "vendor/duckdb".into()));
    if let Ok(dir) = dir.canonicalize() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", dir.display());
    }
}
