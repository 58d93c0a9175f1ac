//! The way from the journal to a lake over a disk that fails, put together as `daemon/pipeline.rs` does, and the clients
//! that send until they have an answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::AsArray as _;
use arrow::datatypes::UInt32Type;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use otlake::decode::{Encoding, decode};
use otlake::disk::Disk;
use otlake::journal::scan::secure_end;
use otlake::journal::{
    Append, Digest, Hooks, Journal, JournalConfig, JournalError, Outcome, ScanError, batch, scan,
};
use otlake::memory::Budget;
use otlake::proto::logs::v1::LogRecord;
use otlake::rows::Rows;
use otlake::seal::ledger::Ledger;
use otlake::seal::queue::{SealLimits, SealQueue, SealSequence};
use otlake::seal::recovery::{RecoveryError, recover, refill};
use otlake::seal::sealer::{Sealer, SealerParts};
use otlake::seal::staged::StagedSeal;
use otlake::signal::{Durability, SealId};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::faulty_disk::FaultyDisk;
use crate::support::otlp::{Export, kv, resource, text};

/// The data folder.
pub const ROOT: &str = "/data";

pub const HOUR: Duration = Duration::from_secs(3600);

/// One more than the records of any request: a request's records are told apart by their flags, which count up from a
/// multiple of this.
const RECORDS_MAX: u32 = 1000;

/// The rows of request `number`.
pub fn rows_of(number: u32, records: u32, budget: &Budget) -> Rows {
    assert!(records < RECORDS_MAX);
    let service = resource(vec![kv("service.name", text("a service of some length"))]);
    let first = number * RECORDS_MAX;
    let logs = (first..first + records).map(|flags| LogRecord {
        flags,
        body: text(&format!("a body that no view holds, number {flags}")),
        ..LogRecord::default()
    });
    let export = Export::logs(service, Default::default(), logs.collect());
    let body = export.to_protobuf();
    let reservation = budget.empty();
    decode(export.signal(), Encoding::Protobuf, &body, 1, reservation).unwrap()
}

/// The flags of every row of some batches, in order.
pub fn flags<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Vec<u32> {
    let of = |batch: &RecordBatch| {
        let column = batch.column_by_name("flags").unwrap();
        column.as_primitive::<UInt32Type>().values().to_vec()
    };
    batches.into_iter().flat_map(of).collect()
}

/// The flags of the rows of request `number`.
pub fn flags_of(number: u32, records: u32) -> Vec<u32> {
    let first = number * RECORDS_MAX;
    (first..first + records).collect()
}

/// A request as its client sees it.
#[derive(Clone, Debug)]
pub struct Request {
    pub number: u32,
    pub records: u32,
    pub is_answered: bool,
}

impl Request {
    pub fn digest(&self) -> Digest {
        Digest(u128::from(self.number))
    }
}

/// Seals with their rows: those in the lake, and all that were ever staged.
#[derive(Debug, Default)]
pub struct FakeLake {
    pub published: BTreeMap<SealId, Vec<u32>>,
    pub staged: BTreeMap<SealId, Vec<u32>>,
}

/// What outlives a process: the disk, the lake, the clients.
pub struct World {
    pub disk: FaultyDisk,
    pub lake: Mutex<FakeLake>,
    pub requests: Vec<Request>,
    pub segment_bytes: u64,
    pub disk_bytes_max: u64,
    pub moment: Duration,
}

/// A running server without sockets.
pub struct Process {
    pub journal: Arc<Journal>,
    pub queue: Arc<SealQueue>,
    pub ledger: Arc<Ledger>,
    pub remembered: Arc<Mutex<Vec<Digest>>>,
    sealer: Sealer,
    staged: Receiver<StagedSeal>,
    /// The requests that it answered, in order.
    answered: Mutex<Vec<usize>>,
    /// Staged and not published.
    pub waiting: Vec<StagedSeal>,
    budget: Budget,
}

/// Why a process did not start.
#[expect(dead_code, reason = "shown when a test fails")]
#[derive(Debug)]
pub enum StartError {
    Scan(ScanError),
    Recovery(RecoveryError<std::convert::Infallible>),
    Io(std::io::Error),
}

pub fn journal_dir() -> PathBuf {
    Path::new(ROOT).join("journal")
}

pub fn staged_dir() -> PathBuf {
    Path::new(ROOT).join("staged")
}

impl World {
    pub fn new(seed: u64, moment: Duration) -> World {
        let disk = FaultyDisk::new(seed, Path::new(ROOT));
        // As `DataDir` does.
        for dir in [journal_dir(), staged_dir()] {
            disk.create_dir_all(&dir).unwrap();
        }
        disk.sync_dir(Path::new(ROOT)).unwrap();
        World {
            disk,
            lake: Mutex::default(),
            requests: Vec::new(),
            segment_bytes: 12_000,
            disk_bytes_max: 1 << 40,
            moment,
        }
    }

    pub fn start(&self) -> Result<Process, StartError> {
        let disk = self.disk.shared();
        let found = scan(&*disk, &journal_dir()).map_err(StartError::Scan)?;
        secure_end(&*disk, &found).map_err(StartError::Scan)?;
        let is_published = |seal| Ok(self.lake.lock().unwrap().published.contains_key(&seal));
        let recovery = recover(&*disk, &found, &staged_dir(), is_published, |_, _| false)
            .map_err(StartError::Recovery)?;
        for seal in &recovery.staged {
            self.look_at(seal).map_err(StartError::Io)?;
        }
        let last_staged = recovery.staged.last().map_or(SealId(0), |seal| seal.id);
        let last_cut = found.cuts.last().map_or(SealId(0), |cut| cut.seal);
        let file = Path::new(ROOT).join("seal_sequence");
        let sequence = SealSequence::open(&disk, &file, last_staged).map_err(StartError::Io)?;
        let limits = SealLimits {
            target_bytes: u64::MAX,
            max_age: HOUR,
        };
        let queue = SealQueue::new(limits, sequence.after(last_cut));
        let ledger = Arc::new(Ledger::new());
        for seal in &recovery.staged {
            ledger.staged(seal);
        }
        let digests = found.remembered.iter().map(|(digest, _)| *digest);
        let remembered = Arc::new(Mutex::new(digests.collect::<Vec<_>>()));
        let config = JournalConfig {
            dir: journal_dir(),
            segment_bytes: self.segment_bytes,
            disk_bytes_max: self.disk_bytes_max,
            durability: Durability::Journal,
            moment: self.moment,
        };
        let hooks = hooks(&queue, &ledger, &remembered);
        let through = recovery.published_through;
        let journal = Journal::start(Arc::clone(&disk), config, &found, through, hooks)
            .map_err(StartError::Io)?;
        journal.wait_idle();
        let (tell, staged) = sync_channel(100);
        let cuts = Arc::clone(&journal);
        let sealer = Sealer::spawn(SealerParts {
            queue: Arc::clone(&queue),
            ledger: Arc::clone(&ledger),
            disk: Arc::clone(&disk),
            staged_dir: staged_dir(),
            record_cut: Box::new(move |cut| cuts.cut(cut)),
            publish: Box::new(move |seal| tell.send(seal).unwrap()),
        })
        .map_err(StartError::Io)?;
        let process = Process {
            journal,
            queue,
            ledger,
            remembered,
            sealer,
            staged,
            answered: Mutex::default(),
            waiting: recovery.staged,
            budget: Budget::new(1 << 30),
        };
        let pushed = refill(&*disk, &found, &process.budget, |rows, sequence| {
            process.queue.push(rows, sequence).unwrap();
        });
        match pushed {
            Ok(_) => Ok(process),
            Err(error) => {
                process.stop(self);
                Err(StartError::Scan(error))
            }
        }
    }

    /// Adds a request that no client has sent yet.
    pub fn request(&mut self, records: u32) -> usize {
        self.requests.push(Request {
            number: self.requests.len() as u32 + 1,
            records,
            is_answered: false,
        });
        self.requests.len() - 1
    }

    /// Reads the rows of a staged seal, and compares them with those that it had before.
    fn look_at(&self, seal: &StagedSeal) -> std::io::Result<Vec<u32>> {
        let rows = match read_staged(&self.disk, seal) {
            Ok(rows) => rows,
            // A folder that was not removed whole, once its seal was in the lake.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let lake = self.lake.lock().unwrap();
                return lake.published.get(&seal.id).cloned().ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let mut lake = self.lake.lock().unwrap();
        let known = lake.staged.entry(seal.id).or_insert_with(|| rows.clone());
        assert_eq!(*known, rows, "seal {} has other rows than before", seal.id);
        Ok(rows)
    }

    /// Whether every answered request is in the lake, whole, in one seal, once, and every other at most once.
    pub fn check_lake(&self) {
        let lake = self.lake.lock().unwrap();
        let mut expected = BTreeMap::new();
        for request in &self.requests {
            let number = request.number;
            expected.insert(number * RECORDS_MAX, flags_of(number, request.records));
        }
        let mut found: BTreeMap<u32, SealId> = BTreeMap::new();
        for (seal, rows) in &lake.published {
            let mut rows = &rows[..];
            while let Some(first) = rows.first() {
                let request = &expected[first];
                assert!(rows.starts_with(request), "seal {seal}: {rows:?}");
                let before = found.insert(*first, *seal);
                assert_eq!(before, None, "request {first} twice, also in {seal}");
                rows = &rows[request.len()..];
            }
        }
        for request in self.requests.iter().filter(|request| request.is_answered) {
            let first = request.number * RECORDS_MAX;
            assert!(found.contains_key(&first), "request {first} is lost");
        }
    }
}

fn hooks(
    queue: &Arc<SealQueue>,
    ledger: &Arc<Ledger>,
    remembered: &Arc<Mutex<Vec<Digest>>>,
) -> Hooks {
    let (queue, ledger, remembered) = (
        Arc::clone(queue),
        Arc::clone(ledger),
        Arc::clone(remembered),
    );
    Hooks {
        deliver: Box::new(move |rows, sequence| queue.push(rows, sequence).ok()),
        staged_bytes: Box::new(move || ledger.staged_bytes()),
        remembered: Box::new(move || {
            let digests = remembered.lock().unwrap();
            digests.iter().map(|digest| (*digest, HOUR)).collect()
        }),
    }
}

/// The flags of the rows in a staged seal's files.
pub fn read_staged(disk: &FaultyDisk, seal: &StagedSeal) -> std::io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for file in &seal.files {
        let content = Bytes::from(disk.read(&seal.dir.join(file.name()))?);
        let reader = ParquetRecordBatchReaderBuilder::try_new(content).unwrap();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let rows = flags(&batches);
        assert_eq!(rows.len() as u64, file.rows);
        all.extend(rows);
    }
    Ok(all)
}

/// An append whose outcome comes through a channel. `held` keeps the journal's thread there until it is dropped.
pub fn append(
    rows: Rows,
    digest: Digest,
    outcomes: SyncSender<Outcome>,
    held: Option<Receiver<()>>,
) -> Append {
    let encoded = batch::encode(&rows.batches, Some(digest)).unwrap();
    let done = move |outcome: Outcome| {
        // A refusal can be told on the thread that appends.
        let held = held.filter(|_| outcome.is_ok());
        outcomes.send(outcome).unwrap();
        if let Some(held) = held {
            let _ = held.recv();
        }
    };
    Append {
        rows,
        encoded,
        done: Box::new(done),
    }
}

impl Process {
    /// Clients send these requests at the same time: the first alone, the others as one group. One whose answer did not
    /// come is sent again, and known again where its rows are here.
    pub fn send(&self, world: &mut World, requests: &[usize]) -> Vec<Outcome> {
        let (mut told, mut waiting) = (Vec::new(), Vec::new());
        let (release, held) = sync_channel(0);
        let mut held = Some(held);
        for place in requests {
            let request = &mut world.requests[*place];
            if request.is_answered {
                continue;
            }
            if self.is_known(request.digest()) {
                request.is_answered = true;
                continue;
            }
            let rows = rows_of(request.number, request.records, &self.budget);
            let (tell, outcome) = sync_channel(1);
            let held = held.take();
            let is_first = held.is_some();
            self.journal
                .append(append(rows, request.digest(), tell, held));
            match is_first {
                true => told.push((*place, outcome.recv().unwrap())),
                false => waiting.push((*place, outcome)),
            }
        }
        drop(release);
        let waited = waiting.into_iter();
        told.extend(waited.map(|(place, outcome)| (place, outcome.recv().unwrap())));
        self.journal.wait_idle();
        for (place, outcome) in &told {
            world.requests[*place].is_answered = outcome.is_ok();
            if outcome.is_ok() {
                self.answered.lock().unwrap().push(*place);
            }
        }
        told.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Every client without an answer sends again.
    pub fn send_all(&self, world: &mut World) -> Vec<Outcome> {
        let all: Vec<usize> = (0..world.requests.len()).collect();
        self.send(world, &all)
    }

    /// The answer to the `n`th answered request, from the newest, did not arrive, and that is known within the moment.
    pub fn lose_answer(&self, world: &mut World, back: usize) {
        if world.moment.is_zero() {
            return;
        }
        let mut answered = self.answered.lock().unwrap();
        if let Some(place) = answered.len().checked_sub(back + 1) {
            let request = &mut world.requests[answered.remove(place)];
            request.is_answered = false;
            self.remembered.lock().unwrap().push(request.digest());
            self.journal.note_undelivered(request.digest());
            self.journal.wait_idle();
        }
    }

    /// Whether the retry of a remembered request came.
    fn is_known(&self, digest: Digest) -> bool {
        let mut remembered = self.remembered.lock().unwrap();
        let Some(place) = remembered.iter().position(|known| *known == digest) else {
            return false;
        };
        remembered.remove(place);
        drop(remembered);
        self.journal.note_repeated(digest);
        true
    }

    /// Cuts what is buffered and waits until it is staged; `false` when that does not come about.
    pub fn seal(&mut self, world: &World) -> bool {
        let (_, rows) = self.queue.cut_now();
        if rows == 0 {
            return true;
        }
        loop {
            if let Ok(seal) = self.staged.recv_timeout(Duration::from_millis(1)) {
                self.journal.wait_idle();
                // A crash can come right behind.
                let _ = world.look_at(&seal);
                self.waiting.push(seal);
                return true;
            }
            if self.is_stuck(world) {
                return false;
            }
        }
    }

    /// Whether nothing can be staged any more.
    pub fn is_stuck(&self, world: &World) -> bool {
        let trouble = self.journal.trouble();
        world.disk.is_down() || matches!(trouble, Some(JournalError::Poisoned(_)))
    }

    /// Publishes the oldest staged seal.
    pub fn publish(&mut self, world: &World) {
        if self.waiting.is_empty() {
            return;
        }
        let seal = self.waiting[0].clone();
        let Ok(rows) = world.look_at(&seal) else {
            return;
        };
        let mut lake = world.lake.lock().unwrap();
        let in_lake = lake
            .published
            .entry(seal.id)
            .or_insert_with(|| rows.clone());
        assert_eq!(*in_lake, rows);
        drop(lake);
        let _ = seal.remove(&world.disk);
        self.waiting.remove(0);
        self.ledger.committed(&seal, 0.0);
        self.journal.published(seal.id);
        self.journal.wait_idle();
    }

    /// Stops in order, or as good as it can be.
    pub fn stop(self, world: &World) {
        self.journal.close();
        self.queue.close();
        // The sealer drops its end of the channel when it has staged all.
        let mut end = Ok(());
        while end != Err(RecvTimeoutError::Disconnected) && !self.is_stuck(world) {
            end = self.staged.recv_timeout(Duration::from_millis(1)).map(drop);
        }
        let _ = self.sealer.finish(Instant::now());
        self.journal.finish();
    }

    /// Brings everything into the lake and stops.
    pub fn drain(mut self, world: &mut World) {
        for outcome in self.send_all(world) {
            outcome.unwrap();
        }
        assert!(self.seal(world));
        while !self.waiting.is_empty() {
            self.publish(world);
        }
        self.stop(world);
    }
}
