//! The seal queue against a model: every row in exactly one seal, whole requests, in order, under numbers never used
//! twice.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::UInt32Type;
use otlake::decode::{Encoding, decode};
use otlake::memory::Budget;
use otlake::proto::logs::v1::LogRecord;
use otlake::proto::metrics::v1::metric::Data;
use otlake::proto::metrics::v1::{Gauge, Metric, NumberDataPoint, Sum};
use otlake::rows::{Rows, batch_bytes, compact};
use otlake::seal::queue::{ROOM_CUT_PAUSE, Seal, SealLimits, SealQueue, SealSequence};
use otlake::signal::{CutCause, SealId, Table};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::arbitrary::{self, seeded};
use crate::support::otlp::{Export, kv, resource, text};
use crate::support::real_disk;

const HOUR: Duration = Duration::from_secs(3600);

fn rows_of(export: &Export, budget: &Budget) -> Rows {
    let body = export.to_protobuf();
    decode(
        export.signal(),
        Encoding::Protobuf,
        &body,
        1,
        budget.empty(),
    )
    .unwrap()
}

/// One request: its records are told apart by their flags, which count up from `first`.
fn request(kind: Kind, first: u32, records: u32) -> Export {
    // More than the views of a text column hold themselves, so that it has a buffer.
    let service = resource(vec![kv("service.name", text("a service of some length"))]);
    let flags = first..first + records;
    match kind {
        Kind::Logs { text_len } => {
            let logs = flags.map(|flags| LogRecord {
                flags,
                body: text(&"x".repeat(text_len)),
                ..LogRecord::default()
            });
            Export::logs(service, Default::default(), logs.collect())
        }
        Kind::Metrics => {
            let data_points: Vec<_> = flags
                .map(|flags| NumberDataPoint {
                    flags,
                    ..NumberDataPoint::default()
                })
                .collect();
            let gauge = Gauge {
                data_points: data_points.clone(),
            };
            let sum = Sum {
                data_points,
                ..Sum::default()
            };
            let metrics = [Data::Gauge(gauge), Data::Sum(sum)].map(|data| Metric {
                data: Some(data),
                ..Metric::default()
            });
            Export::metrics(service, Default::default(), metrics.into())
        }
    }
}

/// The flags of every row of a table in a seal, in order.
fn flags(batches: &[RecordBatch]) -> Vec<u32> {
    let columns = batches
        .iter()
        .map(|batch| batch.column_by_name("flags").unwrap());
    columns
        .flat_map(|column| column.as_primitive::<UInt32Type>().values().to_vec())
        .collect()
}

fn flags_by_table(seal: &Seal) -> [Vec<u32>; Table::ALL.len()] {
    let mut by_table: [Vec<u32>; Table::ALL.len()] = Default::default();
    for (table, batches) in &seal.tables {
        assert!(by_table[table.index()].is_empty(), "{table} stands twice");
        by_table[table.index()] = flags(batches);
    }
    by_table
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Logs { text_len: usize },
    Metrics,
}

#[derive(Clone, Debug)]
enum Action {
    Push {
        kind: Kind,
        records: u32,
        times: u32,
    },
    CutNow,
    Take,
    /// The oldest seal taken is staged, and gives its memory back.
    Stage,
    /// The server stops in order: the rest is taken.
    Stop,
    /// The server dies: what is buffered is gone.
    Die {
        knows_last: bool,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let kind = prop_oneof![
        (0..200usize).prop_map(|text_len| Kind::Logs { text_len }),
        Just(Kind::Logs { text_len: 3000 }),
        Just(Kind::Metrics),
    ];
    // Enough small requests in a row for them to be put together, and requests too large for it.
    let records = prop_oneof![Just(0), Just(1), 1..8u32, 60..70u32];
    let times = prop_oneof![4 => 1..4u32, 1 => 60..140u32];
    prop_oneof![
        6 => (kind, records, times).prop_map(|(kind, records, times)| Action::Push { kind, records, times }),
        2 => Just(Action::CutNow),
        3 => Just(Action::Take),
        2 => Just(Action::Stage),
        1 => Just(Action::Stop),
        1 => any::<bool>().prop_map(|knows_last| Action::Die { knows_last }),
    ]
}

/// The queue under test and what it ought to hold.
struct Model {
    dir: TempDir,
    budget: Budget,
    limits: SealLimits,
    queue: Arc<SealQueue>,
    buffered: [Vec<u32>; Table::ALL.len()],
    is_cut_wanted: bool,
    taken: VecDeque<Seal>,
    last: SealId,
    next_flags: u32,
}

impl Model {
    fn new(target_bytes: u64) -> Model {
        let dir = TempDir::new().unwrap();
        let limits = SealLimits {
            target_bytes,
            max_age: HOUR,
        };
        let sequence =
            SealSequence::open(&real_disk(), &dir.path().join("seal"), SealId(0)).unwrap();
        Model {
            dir,
            budget: Budget::new(1 << 30),
            limits,
            queue: SealQueue::new(limits, sequence),
            buffered: Default::default(),
            is_cut_wanted: false,
            taken: VecDeque::new(),
            last: SealId(0),
            next_flags: 1,
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Push {
                kind,
                records,
                times,
            } => {
                for _ in 0..times {
                    self.push(kind, records);
                }
            }
            Action::CutNow => self.cut_now(),
            Action::Take => self.take(),
            Action::Stage => drop(self.taken.pop_front()),
            Action::Stop => self.stop(),
            Action::Die { knows_last } => self.reopen(knows_last),
        }
        self.check_buffer();
    }

    fn push(&mut self, kind: Kind, records: u32) {
        let flags = self.next_flags..self.next_flags + records;
        let rows = rows_of(&request(kind, self.next_flags, records), &self.budget);
        self.queue.push(rows, 0).unwrap();
        self.next_flags += records;
        let tables: &[Table] = match kind {
            Kind::Logs { .. } => &[Table::Logs],
            Kind::Metrics => &[Table::Gauge, Table::Sum],
        };
        for table in tables {
            self.buffered[table.index()].extend(flags.clone());
        }
    }

    fn is_empty(&self) -> bool {
        self.buffered.iter().all(Vec::is_empty)
    }

    fn buffered_bytes(&self) -> u64 {
        let taken = self
            .taken
            .iter()
            .filter_map(|seal| seal.reservation.as_ref());
        self.budget.reserved() - taken.map(|reservation| reservation.bytes()).sum::<u64>()
    }

    fn cut_now(&mut self) {
        let (id, rows) = self.queue.cut_now();
        let expected: usize = self.buffered.iter().map(Vec::len).sum();
        assert_eq!(rows, expected as u64);
        if self.is_empty() {
            // The newest seal there is: taken by this run, or staged by an earlier one, or none.
            assert!(id <= self.last);
        } else {
            assert!(id > self.last);
            self.is_cut_wanted = true;
        }
    }

    /// Takes the next seal where one is due; the queue would wait for it otherwise.
    fn take(&mut self) {
        let is_full = self.buffered_bytes() >= self.limits.target_bytes;
        if self.is_empty() || !(is_full || self.is_cut_wanted) {
            return;
        }
        let (promised, _) = self.queue.cut_now();
        let seal = self.queue.next_seal().unwrap().unwrap();
        assert_eq!(seal.id, promised);
        let cause = match is_full {
            true => CutCause::Size,
            false => CutCause::Flush,
        };
        assert_eq!(seal.cause, cause);
        self.check_seal(seal);
    }

    fn check_seal(&mut self, seal: Seal) {
        assert!(seal.id > self.last, "{} after {}", seal.id, self.last);
        self.last = seal.id;
        self.is_cut_wanted = false;
        let expected = std::mem::take(&mut self.buffered);
        assert_eq!(flags_by_table(&seal), expected);
        assert_eq!(seal.rows(), expected.map(|rows| rows.len() as u64));
        let held: u64 = seal
            .tables
            .iter()
            .flat_map(|(_, batches)| batches)
            .map(batch_bytes)
            .sum();
        let reserved = seal.reservation.as_ref().map_or(0, |held| held.bytes());
        assert!(
            reserved >= held,
            "{held} bytes are held, {reserved} reserved"
        );
        self.taken.push_back(seal);
    }

    fn check_buffer(&self) {
        let (amounts, _) = self.queue.buffered();
        for (table, amount) in Table::ALL.iter().zip(amounts) {
            let rows = self.buffered[table.index()].len() as u64;
            assert_eq!(amount.rows, rows, "{table}");
        }
        let bytes: u64 = amounts.iter().map(|amount| amount.bytes).sum();
        assert_eq!(bytes, self.buffered_bytes());
    }

    fn stop(&mut self) {
        self.queue.close();
        let refused = rows_of(&request(Kind::Metrics, 0, 3), &self.budget);
        let before = self.budget.reserved() - refused.reservation.bytes();
        self.queue.push(refused, 0).unwrap_err();
        assert_eq!(self.budget.reserved(), before);
        while let Some(seal) = self.queue.next_seal().unwrap() {
            assert_eq!(seal.cause, CutCause::Stop);
            self.check_seal(seal);
        }
        assert!(self.is_empty());
        self.reopen(true);
    }

    /// Starts again in the same folder. Who is told the last seal's number from elsewhere may or may not be there.
    fn reopen(&mut self, knows_last: bool) {
        let after = match knows_last {
            true => self.last,
            false => SealId(0),
        };
        let sequence =
            SealSequence::open(&real_disk(), &self.dir.path().join("seal"), after).unwrap();
        assert!(sequence.next() > self.last);
        self.queue = SealQueue::new(self.limits, sequence);
        self.buffered = Default::default();
        self.is_cut_wanted = false;
    }
}

proptest! {
    #![proptest_config(seeded(150))]

    /// Scenario: requests are pushed, cuts asked for, seals taken and staged, the server stopped, killed and started
    /// again, in any order.
    /// Guarantees: every row is in exactly one seal, whole requests, in order; no number is used twice; the memory of
    /// what is held is always reserved, and all of it comes back.
    #[test]
    fn the_queue_keeps_to_its_model(
        target_bytes in prop_oneof![Just(1u64), Just(64 << 10), Just(1 << 20), Just(u64::MAX)],
        actions in prop::collection::vec(action(), 1..25),
    ) {
        let mut model = Model::new(target_bytes);
        for action in &actions {
            model.act(action);
        }
        model.stop();
        let budget = model.budget.clone();
        drop(model);
        prop_assert_eq!(budget.reserved(), 0);
    }

    /// Scenario: the batches of random requests, cut into single rows.
    /// Guarantees: put together again they hold the same rows in the same order.
    #[test]
    fn compaction_keeps_rows_and_order(exports in prop::collection::vec(arbitrary::export(), 1..6)) {
        let budget = Budget::new(1 << 30);
        let batches: Vec<_> = exports.iter().flat_map(|export| rows_of(export, &budget).batches).collect();
        for table in Table::ALL {
            let whole: Vec<_> = batches
                .iter()
                .filter(|(of, _)| *of == table)
                .map(|(_, batch)| batch.clone())
                .collect();
            let Some(first) = whole.first() else {
                continue;
            };
            let single: Vec<_> = whole
                .iter()
                .flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1)))
                .collect();
            let expected = concat_batches(&first.schema(), &whole).unwrap();
            prop_assert_eq!(&compact(table, &single), &expected);
            prop_assert_eq!(&compact(table, &whole), &expected);
        }
    }
}

fn queue_in(dir: &TempDir, target_bytes: u64, max_age: Duration) -> Arc<SealQueue> {
    let sequence = SealSequence::open(&real_disk(), &dir.path().join("seal"), SealId(0)).unwrap();
    let limits = SealLimits {
        target_bytes,
        max_age,
    };
    SealQueue::new(limits, sequence)
}

/// Scenario: four threads push while a fifth takes seals and a sixth asks for cuts.
/// Guarantees: every row is in exactly one seal, the requests of a thread are whole and in their order.
#[test]
fn concurrent_pushes_lose_and_double_nothing() {
    const REQUESTS: u32 = 200;
    const RECORDS: u32 = 3;
    let dir = TempDir::new().unwrap();
    let budget = Budget::new(1 << 30);
    let queue = queue_in(&dir, 64 << 10, HOUR);
    let taker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            let mut seals = Vec::new();
            while let Some(seal) = queue.next_seal().unwrap() {
                seals.push((seal.id, flags_by_table(&seal)));
            }
            seals
        }
    });
    thread::scope(|scope| {
        for pusher in 0..4 {
            let (queue, budget) = (&queue, &budget);
            scope.spawn(move || {
                for number in 0..REQUESTS {
                    let first = (pusher << 16) | (number * RECORDS);
                    let rows = rows_of(&request(Kind::Metrics, first, RECORDS), budget);
                    queue.push(rows, 0).unwrap();
                    if number % 16 == pusher {
                        queue.cut_now();
                    }
                }
            });
        }
    });
    queue.close();
    let seals = taker.join().unwrap();
    assert!(seals.len() > 1);
    assert!(seals.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (id, by_table) in &seals {
        assert_eq!(
            by_table[Table::Gauge.index()],
            by_table[Table::Sum.index()],
            "{id}"
        );
        let gauge = &by_table[Table::Gauge.index()];
        for request in gauge.chunks(RECORDS as usize) {
            assert_eq!(request[0] % (1 << 16) % RECORDS, 0, "{id}: {request:?}");
            assert_eq!(
                *request,
                [request[0], request[0] + 1, request[0] + 2],
                "{id}"
            );
        }
    }
    let all: Vec<u32> = seals
        .iter()
        .flat_map(|(_, by_table)| by_table[Table::Gauge.index()].clone())
        .collect();
    for pusher in 0..4 {
        let own: Vec<u32> = all
            .iter()
            .copied()
            .filter(|flags| flags >> 16 == pusher)
            .collect();
        let expected: Vec<u32> = (0..REQUESTS * RECORDS)
            .map(|row| (pusher << 16) | row)
            .collect();
        assert_eq!(own, expected);
    }
    assert_eq!(budget.reserved(), 0);
}

/// Scenario: large single records of slightly different sizes come in, so many that they are put together.
/// Guarantees: what their texts hold then is reserved, to the byte.
#[test]
fn memory_of_large_rows_put_together_stays_reserved() {
    let dir = TempDir::new().unwrap();
    let budget = Budget::new(1 << 30);
    let queue = queue_in(&dir, u64::MAX, HOUR);
    for number in 0..64 {
        let text_len = 100_000 + 1_000 * number as usize;
        let row = rows_of(&request(Kind::Logs { text_len }, number, 1), &budget);
        queue.push(row, 0).unwrap();
    }
    queue.cut_now();
    let seal = queue.next_seal().unwrap().unwrap();
    let [(Table::Logs, batches)] = &seal.tables[..] else {
        panic!("{:?}", seal.rows());
    };
    assert_eq!(batches.len(), 1, "they are put together");
    assert_eq!(budget.reserved(), batch_bytes(&batches[0]));
}

/// Scenario: one row waits for company that does not come.
/// Guarantees: it is cut once it has the age, not before, and by nobody's wish.
#[test]
fn the_oldest_row_is_cut_at_its_age() {
    let dir = TempDir::new().unwrap();
    let budget = Budget::new(1 << 20);
    let age = Duration::from_millis(50);
    let queue = queue_in(&dir, u64::MAX, age);
    let pushed = Instant::now();
    let row = rows_of(&request(Kind::Metrics, 1, 1), &budget);
    queue.push(row, 0).unwrap();
    let seal = queue.next_seal().unwrap().unwrap();
    assert_eq!(seal.cause, CutCause::Age);
    assert!(pushed.elapsed() >= age);
}

/// Scenario: rows are refused for want of room again and again, with rows in the buffer and without.
/// Guarantees: the buffer is cut once, named so; neither an empty one nor the few rows that came since are cut at once.
#[test]
fn a_cut_for_room_is_not_repeated_at_once() {
    let dir = TempDir::new().unwrap();
    let budget = Budget::new(1 << 20);
    let age = ROOM_CUT_PAUSE / 4;
    let queue = queue_in(&dir, u64::MAX, age);
    let push = |number| {
        let row = rows_of(&request(Kind::Metrics, number, 1), &budget);
        queue.push(row, 0).unwrap();
    };
    queue.cut_for_room();
    let causes = [1, 2].map(|number| {
        push(number);
        for _ in 0..3 {
            queue.cut_for_room();
        }
        queue.next_seal().unwrap().unwrap().cause
    });
    assert_eq!(causes, [CutCause::Room, CutCause::Age]);
}

/// Scenario: the sealer waits for the first row while the queue is closed.
/// Guarantees: it wakes up and is told that there is nothing more.
#[test]
fn closing_wakes_the_sealer() {
    let dir = TempDir::new().unwrap();
    let queue = queue_in(&dir, u64::MAX, HOUR);
    let sealer = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.next_seal().unwrap().is_none()
    });
    queue.close();
    assert!(sealer.join().unwrap());
}

/// Scenario: the number of a seal cannot be written, because the folder is away, and then it can.
/// Guarantees: the rows stay in the buffer, and are in the seal once it can be numbered.
#[test]
fn rows_stay_while_their_seal_cannot_be_numbered() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("away");
    let sequence = SealSequence::open(&real_disk(), &folder.join("seal"), SealId(4)).unwrap();
    let limits = SealLimits {
        target_bytes: u64::MAX,
        max_age: HOUR,
    };
    let queue = SealQueue::new(limits, sequence);
    let budget = Budget::new(1 << 20);
    let rows = rows_of(&request(Kind::Metrics, 1, 2), &budget);
    queue.push(rows, 0).unwrap();
    assert_eq!(queue.cut_now(), (SealId(5), 4));
    queue.next_seal().unwrap_err();
    assert_eq!(queue.buffered().0[Table::Gauge.index()].rows, 2);
    let more = rows_of(&request(Kind::Metrics, 3, 1), &budget);
    queue.push(more, 0).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let seal = queue.next_seal().unwrap().unwrap();
    assert_eq!(seal.id, SealId(5));
    assert_eq!(flags_by_table(&seal)[Table::Sum.index()], [1, 2, 3]);
}

/// Scenario: the sequence's file is missing, behind what is known from elsewhere, ahead of it, and damaged.
/// Guarantees: numbers go on behind the higher of the two; a damaged file is an error and no new beginning.
#[test]
fn the_sequence_goes_on_behind_the_highest_known_number() {
    let dir = TempDir::new().unwrap();
    let file: PathBuf = dir.path().join("seal");
    let next = |after| {
        SealSequence::open(&real_disk(), &file, SealId(after)).map(|sequence| sequence.next())
    };
    assert_eq!(next(0).unwrap(), SealId(1));
    assert_eq!(next(7).unwrap(), SealId(8));
    std::fs::write(&file, "1001\n").unwrap();
    assert_eq!(next(7).unwrap(), SealId(1001));
    assert_eq!(next(2000).unwrap(), SealId(2001));
    for damaged in ["", "x", "-1", "18446744073709551616"] {
        std::fs::write(&file, damaged).unwrap();
        let error = next(7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{damaged:?}");
    }
}
