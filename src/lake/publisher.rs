//! The publisher: the one thread that writes to the lake.
//!
//! It publishes seals in order and retries the one that fails for ever, so what is acknowledged gets there. While
//! nothing waits it maintains the lake, a step at a time.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::maintain::{Load, MaintainStep};
use super::publish::Lake;
use super::queue::{Next, PublishQueue};
use super::{LakeConfig, LakeError};
use crate::disk::RealDisk;
use crate::memory::Budget;
use crate::seal::backoff::Backoff;
use crate::seal::ledger::{LakeFiles, Ledger};
use crate::seal::staged::StagedSeal;
use crate::signal::{Table, WriterId};

/// A failure that lasts is logged again this often.
const REMIND_PAUSE: Duration = Duration::from_secs(60);

/// Merging waits until no seal has come for this long, unless files have become very many.
const QUIET: Duration = Duration::from_secs(1);

/// Requests that held much of their memory at some moment may do so again for this long.
const MEMORY_QUIET: Duration = Duration::from_secs(5);

/// After maintenance failed it rests this long; publishing goes on.
const MAINTENANCE_REST: Duration = Duration::from_secs(30);

/// Owns the lake, on its own thread.
pub struct Publisher {
    lake: Lake,
    queue: PublishQueue,
    ledger: Arc<Ledger>,
    /// The memory of requests.
    budget: Budget,
    /// When more than half of that was last found in use.
    short_of_memory: Option<Instant>,
    files: [LakeFiles; Table::ALL.len()],
    snapshots: u64,
    /// Maintenance does not run before.
    rest_until: Instant,
    /// The last publish or maintenance step may have left work to do.
    look_for_work: bool,
    /// When the last seal was published.
    published: Option<Instant>,
    /// Since then it was found that only work is left that can wait for [`QUIET`].
    waits_for_quiet: bool,
    /// Something was maintained since the last time no work remained.
    worked: bool,
}

impl Publisher {
    /// Starts the thread. It ends after [`PublishQueue::close`] and answers how many seals it left staged.
    ///
    /// `first` is the lake as the start of the server opened it, so that a lake that cannot be opened at all
    /// stops the start.
    ///
    /// # Errors
    /// An I/O error when the system gives no thread.
    pub fn spawn(
        config: LakeConfig,
        writer: WriterId,
        first: Lake,
        queue: PublishQueue,
        ledger: Arc<Ledger>,
        budget: Budget,
    ) -> io::Result<JoinHandle<usize>> {
        tracing::debug!(catalog = %config.catalog, writer = %writer, "publisher starts");
        let mut lake = first;
        lake.give_way_to(queue.clone());
        let publisher = Publisher {
            lake,
            queue,
            ledger,
            budget,
            short_of_memory: None,
            files: Default::default(),
            snapshots: 0,
            rest_until: Instant::now(),
            look_for_work: true,
            published: None,
            waits_for_quiet: false,
            worked: false,
        };
        thread::Builder::new()
            .name("otlake-publish".to_owned())
            .spawn(move || publisher.run())
    }

    fn run(mut self) -> usize {
        self.count_files();
        loop {
            match self.queue.next(self.maintenance_due()) {
                Next::Seal(seal) => {
                    self.look_at_memory();
                    if !self.publish(&seal) {
                        break;
                    }
                    self.queue.done();
                    self.look_for_work = true;
                    self.published = Some(Instant::now());
                    self.waits_for_quiet = false;
                }
                Next::Idle => self.maintain(),
                Next::Closed => break,
            }
        }
        self.queue.len()
    }

    /// When to stop waiting for a seal and maintain instead.
    fn maintenance_due(&self) -> Instant {
        let due = match (self.look_for_work, self.published) {
            (true, Some(published)) if self.waits_for_quiet => published + QUIET,
            (true, _) => self.rest_until,
            (false, _) => self.lake.maintenance_due(),
        };
        due.max(self.rest_until)
    }

    /// What goes on: a seal that was published a moment ago may be followed by the next one.
    fn load(&mut self) -> Load {
        self.look_at_memory();
        let is_recent = |moment: Option<Instant>, within| {
            moment.is_some_and(|moment: Instant| moment.elapsed() < within)
        };
        match is_recent(self.published, QUIET) {
            true if is_recent(self.short_of_memory, MEMORY_QUIET) => Load::Memory,
            true => Load::Seals,
            false => Load::Quiet,
        }
    }

    /// Seals give memory back, so that any one moment says little.
    fn look_at_memory(&mut self) {
        if self.budget.reserved() > self.budget.limit() / 2 {
            self.short_of_memory = Some(Instant::now());
        }
    }

    /// Publishes the seal, with as many attempts as it takes. Answers `false` when the deadline came first.
    fn publish(&mut self, seal: &StagedSeal) -> bool {
        let mut trouble = Trouble::default();
        loop {
            let started = Instant::now();
            let pause = match self.lake.publish(seal) {
                Ok(()) => {
                    self.published(seal, started.elapsed());
                    trouble.over(seal);
                    return true;
                }
                Err(error) => {
                    self.ledger.publish_failed(seal.id, &error.to_string());
                    trouble.note(seal, &error)
                }
            };
            let mut until = Instant::now() + pause;
            if let Some(deadline) = self.queue.deadline() {
                if Instant::now() >= deadline {
                    return false;
                }
                until = until.min(deadline);
            }
            self.queue.pause(until);
        }
    }

    fn published(&mut self, seal: &StagedSeal, took: Duration) {
        if let Err(error) = seal.remove(&RealDisk) {
            // Harmless: the next start finds the seal published and tries again.
            tracing::warn!(dir = %seal.dir.display(), %error, "cannot remove the folder of a published seal");
        }
        for file in &seal.files {
            let counted = &mut self.files[file.table.index()];
            counted.files += 1;
            counted.bytes += file.bytes;
        }
        self.ledger.counted_files(self.files);
        self.snapshots += 1;
        self.ledger.counted_snapshots(self.snapshots);
        // Last: whoever waits for the commit then finds the files counted.
        let publish_ms = took.as_secs_f64() * 1e3;
        self.ledger.committed(seal, publish_ms);
        tracing::debug!(
            seal = seal.id.0,
            rows = seal.rows(),
            publish_ms,
            "published"
        );
    }

    /// One step of maintenance, while nothing waits.
    fn maintain(&mut self) {
        let load = self.load();
        let is_under_load = load != Load::Quiet;
        let step = self.lake.maintain_step(load);
        let trouble = step.as_ref().err().map(ToString::to_string);
        self.ledger.maintenance_step(trouble.as_deref());
        match step {
            Ok(MaintainStep::Idle) => {
                // Under load what is left can wait.
                self.waits_for_quiet = is_under_load;
                self.look_for_work = is_under_load;
                if std::mem::take(&mut self.worked) {
                    self.count_files();
                    self.ledger.maintained();
                }
            }
            Ok(step) => {
                tracing::debug!(?step, "maintained the lake");
                if let MaintainStep::Merged { files_read, .. } = step {
                    self.ledger.merged(files_read);
                }
                self.look_for_work = true;
                self.worked = true;
            }
            Err(error) => {
                tracing::warn!(%error, "maintaining the lake failed, it is tried again later");
                self.rest_until = Instant::now() + MAINTENANCE_REST;
            }
        }
    }

    fn count_files(&mut self) {
        let counted = self.lake.live_files();
        match counted.and_then(|files| Ok((files, self.lake.snapshots()?))) {
            Ok((files, snapshots)) => {
                (self.files, self.snapshots) = (files, snapshots);
                self.ledger.counted_files(files);
                self.ledger.counted_snapshots(snapshots);
            }
            // Only a figure for `otlake status`: the next count makes it good.
            Err(error) => tracing::debug!(%error, "cannot count the lake's files"),
        }
    }
}

/// The failures of one seal, and when they were spoken of.
#[derive(Default)]
struct Trouble {
    backoff: Backoff,
    said: Option<(Instant, String)>,
}

impl Trouble {
    /// Takes note of one more failure; answers how long to pause.
    fn note(&mut self, seal: &StagedSeal, error: &LakeError) -> Duration {
        let pause = self.backoff.next_pause();
        let error = error.to_string();
        let known = self
            .said
            .as_ref()
            .is_some_and(|(when, text)| *text == error && when.elapsed() < REMIND_PAUSE);
        if !known {
            tracing::warn!(
                seal = seal.id.0,
                attempts = self.backoff.failures(),
                error,
                "publishing failed; the rows are safe on disk and it is tried again"
            );
            self.said = Some((Instant::now(), error));
        }
        pause
    }

    fn over(&self, seal: &StagedSeal) {
        if self.backoff.failures() > 0 {
            tracing::info!(
                seal = seal.id.0,
                attempts = self.backoff.failures(),
                "publishing works again"
            );
        }
    }
}
