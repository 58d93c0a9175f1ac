//! The journal alone over a disk that fails.

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otlake::journal::scan::secure_end;
use otlake::journal::{
    CutRecord, Digest, Hooks, Journal, JournalConfig, JournalError, Outcome, Scan, ScanError,
    replay, scan,
};
use otlake::memory::Budget;
use otlake::signal::{CutCause, Durability, SealId};

use super::world::{HOUR, append, flags, journal_dir, rows_of};
use crate::support::faulty_disk::FaultyDisk;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    pub segment_bytes: u64,
    pub disk_bytes_max: u64,
    pub moment: Duration,
    pub durability: Durability,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            segment_bytes: 1 << 20,
            disk_bytes_max: 1 << 40,
            moment: HOUR,
            durability: Durability::Journal,
        }
    }
}

/// A batch: its sequence, and the flags of its rows.
pub type Batch = (u64, Vec<u32>);

/// A running journal, and what came out of it.
pub struct Alone {
    pub journal: Arc<Journal>,
    /// What the start found.
    pub scan: Scan,
    /// The batches that it found.
    pub found: Vec<Batch>,
    /// The batches that were delivered.
    pub delivered: Arc<Mutex<Vec<Batch>>>,
    /// What is remembered, for the journal to ask.
    pub remembered: Arc<Mutex<Vec<Digest>>>,
    budget: Budget,
}

pub fn digest(number: u32) -> Digest {
    Digest(u128::from(number))
}

pub fn cut_record(seal: u64, through: u64) -> CutRecord {
    CutRecord {
        seal: SealId(seal),
        through,
        cause: CutCause::Flush,
        opened_unix_ms: 1,
        sealed_unix_ms: 2,
    }
}

/// The file of a segment.
pub fn segment(number: u64) -> PathBuf {
    journal_dir().join(format!("{number:016}.journal"))
}

/// The batches in the journal.
pub fn found(disk: &FaultyDisk, scan: &Scan) -> Vec<Batch> {
    let mut all = Vec::new();
    replay(disk, scan, 0..=u64::MAX, |stored| {
        let batches = stored.batches.iter().map(|(_, batch)| batch);
        all.push((stored.sequence, flags(batches)));
        Ok::<(), ScanError>(())
    })
    .unwrap();
    all
}

impl Alone {
    /// Goes on with what is there, of which the batches up to `published` are in the lake.
    pub fn start(
        disk: &FaultyDisk,
        settings: &Settings,
        published: u64,
    ) -> Result<Alone, ScanError> {
        let scan = scan(disk, &journal_dir())?;
        secure_end(disk, &scan)?;
        let found = found(disk, &scan);
        let digests = scan.remembered.iter().map(|(digest, _)| *digest);
        let remembered = Arc::new(Mutex::new(digests.collect::<Vec<_>>()));
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let (asked, seen) = (Arc::clone(&remembered), Arc::clone(&delivered));
        let hooks = Hooks {
            deliver: Box::new(move |rows, sequence| {
                let batches = rows.batches.iter().map(|(_, batch)| batch);
                seen.lock().unwrap().push((sequence, flags(batches)));
                Some(SealId(1))
            }),
            staged_bytes: Box::new(|| 0),
            remembered: Box::new(move || {
                let digests = asked.lock().unwrap();
                digests.iter().map(|digest| (*digest, HOUR)).collect()
            }),
        };
        let config = JournalConfig {
            dir: journal_dir(),
            segment_bytes: settings.segment_bytes,
            disk_bytes_max: settings.disk_bytes_max,
            durability: settings.durability,
            moment: settings.moment,
        };
        let published = published.clamp(scan.before_first, scan.last_sequence);
        let journal = Journal::start(disk.shared(), config, &scan, published, hooks).unwrap();
        journal.wait_idle();
        Ok(Alone {
            journal,
            scan,
            found,
            delivered,
            remembered,
            budget: Budget::new(1 << 30),
        })
    }

    /// Sends requests, numbers and records, at the same time: the first alone, the others as one group.
    pub fn send(&self, requests: &[(u32, u32)]) -> Vec<Outcome> {
        let (release, held) = sync_channel(0);
        let mut held = Some(held);
        let (mut outcomes, mut waiting) = (Vec::new(), Vec::new());
        for (number, records) in requests {
            let rows = rows_of(*number, *records, &self.budget);
            let (tell, outcome) = sync_channel(1);
            let held = held.take();
            let is_first = held.is_some();
            self.journal
                .append(append(rows, digest(*number), tell, held));
            match is_first {
                true => outcomes.push(outcome.recv().unwrap()),
                false => waiting.push(outcome),
            }
        }
        drop(release);
        outcomes.extend(waiting.into_iter().map(|outcome| outcome.recv().unwrap()));
        self.journal.wait_idle();
        outcomes
    }

    pub fn cut(&self, cut: CutRecord) -> Result<(), JournalError> {
        let outcome = self.journal.cut(cut);
        self.journal.wait_idle();
        outcome
    }

    pub fn publish(&self, seal: u64) {
        self.journal.published(SealId(seal));
        self.journal.wait_idle();
    }

    /// Notes that the answer of a request cannot have arrived.
    pub fn note_undelivered(&self, number: u32) {
        self.remembered.lock().unwrap().push(digest(number));
        self.journal.note_undelivered(digest(number));
        self.journal.wait_idle();
    }

    /// The retry of a request comes; `false` when it is not remembered.
    pub fn repeat(&self, number: u32) -> bool {
        let mut remembered = self.remembered.lock().unwrap();
        let place = remembered.iter().position(|known| *known == digest(number));
        let Some(place) = place else {
            return false;
        };
        remembered.remove(place);
        drop(remembered);
        self.journal.note_repeated(digest(number));
        self.journal.wait_idle();
        true
    }
}
