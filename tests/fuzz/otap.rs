//! What holds for every target of OTAP.

#[path = "counted.rs"]
mod counted;
#[path = "../support/otap_input.rs"]
#[allow(dead_code)]
pub mod otap_input;

/// What decoding may hold at once: what the budget counts, what arrow-ipc's decompressors take beside it (LZ4 two blocks of
/// 8 MiB, zstd its tables), and what small things add up to.
const BYTES_HELD_MAX: usize = (64 << 20) + (32 << 20);

/// What it may hold beside that for each byte of the input.
const BYTES_EACH: usize = 100;

/// Runs a target on its input; no more memory is held than is allowed.
pub fn check(run: fn(&[u8]), input: &[u8]) {
    let held = counted::peak(|| run(input));
    let allowed = BYTES_HELD_MAX + BYTES_EACH * input.len();
    assert!(held <= allowed, "{held} bytes for {} of input", input.len());
}
