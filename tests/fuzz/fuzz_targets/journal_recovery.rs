//! Any bytes as the journal that a start finds: no panic, no memory beyond a small multiple of the input.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../counted.rs"]
mod counted;
#[path = "../../support/journal_input.rs"]
#[allow(dead_code)]
mod journal_input;

/// What reading may hold at once: so much for each byte of the input, beside what is held whatever the input is.
const BYTES_EACH: usize = 100;
const BYTES_ALWAYS: usize = 8 << 20;

fuzz_target!(|input: &[u8]| {
    let held = counted::peak(|| journal_input::recover(input));
    let allowed = BYTES_ALWAYS + BYTES_EACH * input.len();
    assert!(held <= allowed, "{held} bytes for {} of input", input.len());
});
