//! Any bytes as a body in one of the compressions, of HTTP or in a gRPC frame: no panic, no more than is allowed comes out, and the
//! bytes are those that another driver of the decompressors gets.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../counted.rs"]
mod counted;
#[path = "../../support"]
#[allow(dead_code)]
mod support {
    pub mod compression_input;
    pub mod kept;
    pub mod otlp;
    pub mod otlp_input;
    pub mod otlp_json_form;
    pub mod otlp_plain;
    pub mod rows;
}

/// What one request may hold: decompressors with their windows, which the budget does not count, and small things.
const BYTES_MAX: usize = 24 << 20;

fuzz_target!(|input: &[u8]| {
    let held = counted::peak(|| support::compression_input::compressed(input));
    assert!(
        held <= BYTES_MAX,
        "{held} bytes for {} of input",
        input.len()
    );
});
