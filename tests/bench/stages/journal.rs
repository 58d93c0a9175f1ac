//! Journal: rows to Arrow IPC frames in a file, with and without its syncs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use otlake::disk::{Disk, DiskFile, DiskRead, RealDisk};
use otlake::journal::{Append, CutRecord, Hooks, Journal, JournalConfig, MOMENT, batch, scan};
use otlake::memory::Budget;
use otlake::rows::Rows;
use otlake::signal::{CutCause, Durability, SealId, Signal};
use otlake_bench::measure::{Contender, measure};
use otlake_bench::workload::Workload;
use tempfile::TempDir;

use crate::report::{Line, Report};
use crate::{BATCH, Options};

/// Requests that wait for their answers at a time.
const WAITING: usize = 8;

/// As the server's.
const SEGMENT_BYTES: u64 = 64 << 20;

pub fn run(options: &Options, report: &mut Report) {
    for signal in Signal::ALL {
        let requests = (options.rows / BATCH) as u64;
        let workload = Workload::generated(signal, requests, BATCH as u64);
        let requests = workload.decoded();
        let encoded = || {
            requests
                .iter()
                .map(|rows| batch::encode(&rows.batches, None).unwrap())
        };
        let bytes: u64 = encoded().map(|encoded| encoded.bytes()).sum();
        let mut unsynced = Running::start(Arc::new(Unsynced(RealDisk)));
        let mut synced = Running::start(Arc::new(RealDisk));
        let mut contenders = [
            Contender::new("journal encode", || {
                encoded().map(|encoded| encoded.bytes() as usize).sum()
            }),
            Contender::new("journal append, no sync", || unsynced.append(&requests)),
            Contender::new("journal append, synced", || synced.append(&requests)),
        ];
        let times = measure(options.rounds, &mut contenders);
        let names = contenders.each_ref().map(|contender| contender.name);
        for (place, stage) in names.into_iter().enumerate() {
            report.line(&Line {
                stage,
                workload: workload.name,
                rows: workload.rows,
                seconds: times.median(place),
                bytes_a_row: bytes as f64 / workload.rows as f64,
                beside: None,
            });
        }
    }
}

/// A journal in a folder of its own.
struct Running {
    journal: Arc<Journal>,
    budget: Budget,
    appended: u64,
    seals: u64,
    _dir: TempDir,
}

impl Running {
    fn start(disk: Arc<dyn Disk>) -> Running {
        let dir = TempDir::new().unwrap();
        let config = JournalConfig {
            dir: dir.path().join("journal"),
            segment_bytes: SEGMENT_BYTES,
            disk_bytes_max: 64 << 30,
            durability: Durability::Journal,
            moment: MOMENT,
        };
        disk.create_dir_all(&config.dir).unwrap();
        let hooks = Hooks {
            deliver: Box::new(|_, _| None),
            staged_bytes: Box::new(|| 0),
            remembered: Box::new(Vec::new),
        };
        let found = scan(&*disk, &config.dir).unwrap();
        Running {
            journal: Journal::start(disk, config, &found, 0, hooks).unwrap(),
            budget: Budget::new(u64::MAX),
            appended: 0,
            seals: 0,
            _dir: dir,
        }
    }

    /// Journals every request and waits for all answers; then they count as published, so that their segments are used again.
    fn append(&mut self, requests: &[Rows]) -> usize {
        let (done, answers) = sync_channel(WAITING);
        for (number, rows) in requests.iter().enumerate() {
            if number >= WAITING {
                answers.recv().unwrap();
            }
            let done = done.clone();
            self.journal.append(Append {
                encoded: batch::encode(&rows.batches, None).unwrap(),
                rows: Rows {
                    batches: rows.batches.clone(),
                    rejections: rows.rejections.clone(),
                    reservation: self.budget.empty(),
                },
                done: Box::new(move |outcome| {
                    outcome.unwrap();
                    done.send(()).unwrap();
                }),
            });
        }
        for _ in 0..requests.len().min(WAITING) {
            answers.recv().unwrap();
        }
        self.appended += requests.len() as u64;
        self.seals += 1;
        let cut = CutRecord {
            seal: SealId(self.seals),
            through: self.appended,
            cause: CutCause::Size,
            opened_unix_ms: 0,
            sealed_unix_ms: 0,
        };
        self.journal.cut(cut).unwrap();
        self.journal.published(SealId(self.seals));
        requests.len()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.journal.close();
        self.journal.finish();
    }
}

/// The file system, without what makes it durable.
#[derive(Debug)]
struct Unsynced(RealDisk);

struct UnsyncedFile(Box<dyn DiskFile>);

impl io::Write for UnsyncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskFile for UnsyncedFile {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl Disk for Unsynced {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(self.0.create(path)?)))
    }

    fn overwrite(&self, path: &Path) -> io::Result<(Box<dyn DiskFile>, u64)> {
        let (file, len) = self.0.overwrite(path)?;
        Ok((Box::new(UnsyncedFile(file)), len))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        self.0.open(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.0.truncate(path, len)
    }

    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        self.0.write_again(path, from)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
}
