//! `otlake`: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

/// Requests take and give back buffers of some hundred kilobytes, from one thread to another. The system's allocator gives each
/// back to the system, and gets it anew page by page: nearly half of what decoding took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long memory that was given back stays with the process, milliseconds. A flood takes it again within a few; the
/// allocator's own second lets a third more stay than is in use, and a shorter time than this costs system calls.
const MEMORY_KEPT_MS: std::ffi::c_long = 50;

/// `mi_option_purge_delay` of mimalloc 3, which its crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // SAFETY: takes two numbers, and does nothing when there is no option with the first one. Nothing else runs yet.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MEMORY_KEPT_MS);
    }
    otlake::cli::run()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the allocator's options as they are before any is set.
    /// Guarantees: the one that is set is a time of a second: the delay that it is taken for.
    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: takes a number and gives one.
        #[allow(unsafe_code)]
        let delay = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay, 1000);
    }
}
