//! Clocks for one server alone, which can be set while it runs; the machine's are never touched.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::ServerBuilder;
use super::preload::compile;

/// The clocks: a library that the server is started with, and the file that it takes the differences from.
pub struct FakeClock {
    library: PathBuf,
    offset_path: PathBuf,
    offset: File,
    _dir: TempDir,
}

impl FakeClock {
    /// Clocks that show the real time.
    ///
    /// # Errors
    /// Why this machine cannot have one.
    pub fn new() -> Result<FakeClock, String> {
        let dir = TempDir::new().unwrap();
        let library = compile("fake_clock", dir.path())?;
        let offset_path = dir.path().join("offset");
        let offset = File::create(&offset_path).unwrap();
        let clock = FakeClock {
            library,
            offset_path,
            offset,
            _dir: dir,
        };
        clock.set(0);
        clock.forward(0);
        Ok(clock)
    }

    /// The server will go by these clocks.
    pub fn give_to(&self, server: ServerBuilder) -> ServerBuilder {
        server
            .env("LD_PRELOAD", self.library.to_str().unwrap())
            .env("FAKE_CLOCK", self.offset_path.to_str().unwrap())
    }

    /// Sets the wall clock to so many seconds after the real time, at once.
    pub fn set(&self, seconds: i64) {
        // In place: the server has the file mapped.
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Makes so many seconds go by on the clock that timers go by, at once and altogether. A timer that is due then fires when
    /// the server looks, as it does at each request. A thread that waits on a lock for a time waits for these seconds too: the
    /// system counts by its own clock until when.
    pub fn forward(&self, seconds: u64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 8).unwrap();
    }
}
