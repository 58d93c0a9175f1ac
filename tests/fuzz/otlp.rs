//! What holds for every encoding of OTLP.

use otlake::decode::Encoding;

#[path = "counted.rs"]
mod counted;
#[path = "../support"]
#[allow(dead_code)]
pub mod support {
    pub mod otlp;
    pub mod otlp_input;
    pub mod otlp_json_form;
    pub mod otlp_plain;
    pub mod rows;
}

use self::support::otlp_input::{decode_bytes, split};

/// What decoding may hold at once, so much for each byte of the input: the shortest record is two bytes long, and a row in
/// builders that have grown by doubling.
const BYTES_EACH: usize = 1000;

/// What it may hold whatever the input is.
const BYTES_ALWAYS: usize = 4 << 20;

/// Decodes an input, which holds no more memory than is allowed, and runs its target on it.
pub fn check(encoding: Encoding, run: fn(&[u8]), input: &[u8]) {
    let held = counted::peak(|| {
        if let Some((_, signal, body)) = split(input) {
            let _ = decode_bytes(signal, encoding, body);
        }
    });
    let allowed = BYTES_ALWAYS + BYTES_EACH * input.len();
    assert!(held <= allowed, "{held} bytes for {} of input", input.len());
    run(input);
}
