//! A journal whose syncs fail once the test says so, under one server alone.

use std::fs::File;
use std::path::PathBuf;

use tempfile::TempDir;

use super::ServerBuilder;
use super::preload::compile;

/// The library that the server is started with, and the file whose presence makes the syncs fail.
pub struct FailingSync {
    library: PathBuf,
    marker: PathBuf,
    _dir: TempDir,
}

impl FailingSync {
    /// Syncs that work.
    ///
    /// # Errors
    /// Why this machine cannot have it.
    pub fn new() -> Result<FailingSync, String> {
        let dir = TempDir::new().unwrap();
        Ok(FailingSync {
            library: compile("failing_sync", dir.path())?,
            marker: dir.path().join("fails"),
            _dir: dir,
        })
    }

    /// The server's syncs will be these.
    pub fn give_to(&self, server: ServerBuilder) -> ServerBuilder {
        server
            .env("LD_PRELOAD", self.library.to_str().unwrap())
            .env("FAILING_SYNC", self.marker.to_str().unwrap())
    }

    /// From now on each sync of the journal fails.
    pub fn fail(&self) {
        File::create(&self.marker).unwrap();
    }
}
