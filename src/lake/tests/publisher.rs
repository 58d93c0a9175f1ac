//! The publisher's thread: order, retries, stopping.

use std::thread;
use std::time::Instant;

use super::*;
use crate::lake::{PublishQueue, Publisher};
use crate::memory::Budget;
use crate::seal::ledger::Ledger;

struct Running {
    queue: PublishQueue,
    ledger: Arc<Ledger>,
    thread: thread::JoinHandle<usize>,
}

fn run(fixture: &Fixture) -> Running {
    let queue = PublishQueue::new();
    let ledger = Arc::new(Ledger::new());
    let thread = Publisher::spawn(
        fixture.config.clone(),
        fixture.writer.clone(),
        fixture.open(),
        queue.clone(),
        Arc::clone(&ledger),
        Budget::new(1 << 20),
    )
    .unwrap();
    Running {
        queue,
        ledger,
        thread,
    }
}

impl Running {
    fn push(&self, seal: StagedSeal) {
        self.ledger.staged(&seal);
        self.queue.push(seal);
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Scenario: seals are pushed, the queue is closed at once.
/// Guarantees: all are published before the thread ends, their folders are gone, idle time went into merging.
#[test]
fn queued_seals_are_drained_on_close() {
    let fixture = Fixture::new();
    let running = run(&fixture);
    for id in 1..=8 {
        running.push(fixture.stage(id, &[Table::Logs], 2));
    }
    eventually("a merge", || {
        let snapshot = running.ledger.snapshot();
        snapshot.committed_seals == 8
            && snapshot.files[0].files == 1
            && snapshot.maintenance_runs > 0
    });
    running.push(fixture.stage(9, &[Table::Logs], 2));
    running
        .queue
        .close(Instant::now() + Duration::from_secs(10));
    assert_eq!(running.thread.join().unwrap(), 0);
    let snapshot = running.ledger.snapshot();
    assert_eq!(snapshot.committed_seals, 9);
    assert_eq!(*running.ledger.watch_committed().borrow(), SealId(9));
    assert_eq!(
        fs::read_dir(fixture.dir.path().join("staged"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 18);
}

/// Scenario: the lake's folder is away for a while, then back.
/// Guarantees: degraded in between, then everything arrives in order and once.
#[test]
fn a_failing_seal_is_retried_until_it_is_in() {
    let fixture = Fixture::new();
    let running = run(&fixture);
    let away = fixture.dir.path().join("away");
    fs::rename(&fixture.config.data_path, &away).unwrap();
    for id in 1..=2 {
        running.push(fixture.stage(id, &[Table::Logs], 2));
    }
    eventually("trouble", || running.ledger.degraded().is_some());
    fs::rename(&away, &fixture.config.data_path).unwrap();
    eventually("arrival", || running.ledger.snapshot().committed_seals == 2);
    assert!(running.ledger.degraded().is_none());
    assert!(running.ledger.recent(2)[1].attempts > 1);
    running.queue.close(Instant::now());
    assert_eq!(running.thread.join().unwrap(), 0);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 4);
}

/// Scenario: the server stops while the lake is away, in the middle of a long pause.
/// Guarantees: the thread ends at the deadline, says what it left, and the rows stay staged.
#[test]
fn close_ends_a_pause_and_leaves_seals_staged() {
    let fixture = Fixture::new();
    let running = run(&fixture);
    fs::rename(&fixture.config.data_path, fixture.dir.path().join("away")).unwrap();
    for id in 1..=2 {
        running.push(fixture.stage(id, &[Table::Logs], 2));
    }
    eventually("a few failures", || {
        running.ledger.recent(2)[1].attempts >= 4
    });
    let started = Instant::now();
    running
        .queue
        .close(Instant::now() + Duration::from_millis(100));
    assert_eq!(running.thread.join().unwrap(), 2);
    assert!(
        started.elapsed() < Duration::from_millis(600),
        "{:?}",
        started.elapsed()
    );
    let left =
        crate::seal::staged::find(&crate::disk::RealDisk, &fixture.dir.path().join("staged"))
            .unwrap();
    assert_eq!(left.seals.len(), 2);
}
