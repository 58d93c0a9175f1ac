//! `otlake`: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

/// Requests take and give back buffers of some hundred kilobytes, from one thread to another. The system's allocator gives each
/// back to the system, and gets it anew page by page: nearly half of what decoding took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    otlake::cli::run()
}
