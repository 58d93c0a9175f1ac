//! Any bytes as the journal that a start finds: no panic, no memory beyond a small multiple of the input.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;

#[path = "../../support/journal_input.rs"]
#[allow(dead_code)]
mod journal_input;

/// What reading may hold at once: so much for each byte of the input, beside what is held whatever the input is.
const BYTES_EACH: usize = 100;
const BYTES_ALWAYS: usize = 8 << 20;

/// Counts what is held now and was held at most.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        grown(bytes);
        unsafe { System.realloc(at, layout, bytes) }
    }
}

fuzz_target!(|input: &[u8]| {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    journal_input::recover(input);
    let held = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let allowed = BYTES_ALWAYS + BYTES_EACH * input.len();
    assert!(held <= allowed, "{held} bytes for {} of input", input.len());
});
