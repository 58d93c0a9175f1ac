//! Any bytes as a request to either listener, the admin service above all: no panic, an answer always, none of success without the
//! token and the host for it, and nothing held afterwards.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../counted.rs"]
mod counted;
#[path = "../../support"]
#[allow(dead_code)]
mod support {
    pub mod kept;
    pub mod request_input;
}

/// What one request may hold: decompressors with their windows, which the budget does not count, and small things.
const BYTES_MAX: usize = 64 << 20;

fuzz_target!(|input: &[u8]| {
    let held = counted::peak(|| support::request_input::request(input));
    assert!(
        held <= BYTES_MAX,
        "{held} bytes for {} of input",
        input.len()
    );
});
