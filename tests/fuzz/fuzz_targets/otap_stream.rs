//! Any bytes as the batches of one OTAP stream: no panic, not even one that is caught, and no memory beyond the budget.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../otap.rs"]
mod otap;

fuzz_target!(|input: &[u8]| otap::check(otap::otap_input::stream, input));
