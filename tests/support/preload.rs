//! Small C libraries that a server is started with, in place of a part of the system.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/support/<name>.c` into a library in `dir`, for `LD_PRELOAD`.
///
/// # Errors
/// Why this machine cannot have one.
pub fn compile(name: &str, dir: &Path) -> Result<PathBuf, String> {
    if !cfg!(target_os = "linux") {
        return Err("LD_PRELOAD works on Linux only".to_owned());
    }
    let library = dir.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/support/{name}.c"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    Ok(library)
}
