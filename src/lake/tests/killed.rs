//! Processes that are killed with SIGKILL while they publish and merge: SQLite's log and locks are left as they are then.

use std::env;
use std::fs::FileTimes;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Instant, SystemTime};

use super::*;
use crate::lake::{PublishQueue, Publisher, crash};
use crate::memory::Budget;
use crate::seal::ledger::Ledger;

/// In the child: its data folder, and what it is to do there.
const DIR: &str = "OTLAKE_TEST_KILLED_DIR";
const TASK: &str = "OTLAKE_TEST_KILLED_TASK";

/// Runs the named test of this binary in another process, which finds its task in the environment.
fn spawn(test: &str, dir: &Path, task: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("lake::tests::killed::{test}"))
        .envs([(DIR, dir.as_os_str()), (TASK, task.as_ref())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The data folder and the task, in the child.
fn task() -> Option<(Fixture, String)> {
    let dir = env::var_os(DIR)?;
    Some((Fixture::at(Path::new(&dir)), env::var(TASK).unwrap()))
}

fn assert_killed(status: ExitStatus, task: &str) {
    assert_eq!(status.signal(), Some(9), "{task}: {status}");
}

/// Scenario: one process after another is killed in its publish, each after another step.
/// Guarantees: each start makes good what the one before left; every row is in the lake once, no file is lost or left.
#[test]
fn a_publish_that_is_killed_is_made_good_by_the_next_start() {
    if let Some((fixture, point)) = task() {
        return publish_until(&fixture, &point);
    }
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    let seal = fixture.stage(1, &[Table::Logs, Table::Sum], 2);
    let (published, mut points) = crash::note(|| lake.publish(&seal));
    published.unwrap();
    drop(lake);
    points.dedup();
    points.retain(|point| !["folder made", "table's folder synced"].contains(point));
    for point in &points {
        let child = spawn(
            "a_publish_that_is_killed_is_made_good_by_the_next_start",
            fixture.dir.path(),
            point,
        );
        assert_killed(child.wait_with_output().unwrap().status, point);
    }
    let mut lake = fixture.open();
    for seal in fixture.staged() {
        lake.publish(&seal).unwrap();
        seal.remove(&RealDisk).unwrap();
    }
    let seals = i64::try_from(points.len() + 1).unwrap();
    let recorded = fixture.ask("SELECT count(DISTINCT seal_id) FROM otlake_seals");
    assert_eq!(recorded, seals);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlake_seals"), seals);
    let logs = fixture.ask("SELECT count(DISTINCT time_unix_nano) FROM otlp_logs");
    let sums = fixture.ask("SELECT count(*) FROM otlp_metrics_sum");
    assert_eq!((logs, sums), (2 * seals, 2 * seals));
    assert_eq!(fixture.unreferenced(), Vec::<PathBuf>::new());
}

/// The child: makes good what it finds, then publishes one more seal up to the crash point.
fn publish_until(fixture: &Fixture, point: &str) {
    let mut lake = fixture.open();
    let mut last = 1;
    for seal in fixture.staged() {
        last = seal.id.0;
        lake.publish(&seal).unwrap();
        seal.remove(&RealDisk).unwrap();
    }
    let seal = fixture.stage(last + 1, &[Table::Logs, Table::Sum], 2);
    crash::kill_at(point);
    lake.publish(&seal).unwrap();
}

/// Scenario: a process is killed when a merge has written its file and not committed it.
/// Guarantees: no row is touched; the file stays while it may be another writer's that commits yet, and then goes.
#[test]
fn a_merge_that_is_killed_leaves_a_file_that_goes() {
    if let Some((fixture, point)) = task() {
        crash::kill_at(&point);
        maintain(&mut fixture.open());
        return;
    }
    let fixture = Fixture::new();
    let mut lake = fixture.open();
    for id in 1..=8 {
        let seal = fixture.stage(id, &[Table::Logs], 2);
        lake.publish(&seal).unwrap();
        seal.remove(&RealDisk).unwrap();
    }
    drop(lake);
    let point = "merge written";
    let test = "a_merge_that_is_killed_leaves_a_file_that_goes";
    let child = spawn(test, fixture.dir.path(), point);
    assert_killed(child.wait_with_output().unwrap().status, point);

    let left = fixture.unreferenced();
    let [left] = left.as_slice() else {
        panic!("{left:?}");
    };
    assert!(left.to_string_lossy().contains("/ducklake-"), "{left:?}");
    let mut lake = fixture.open();
    assert_eq!(lake.live_files().unwrap()[0].files, 8);
    assert_eq!(maintain(&mut lake), 1);
    assert!(left.is_file());
    drop(lake);
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    let times = FileTimes::new().set_modified(two_hours_ago);
    File::open(left).unwrap().set_times(times).unwrap();
    maintain(&mut fixture.open());
    assert!(!left.exists());
    let times = "SELECT count(DISTINCT time_unix_nano) FROM otlp_logs";
    assert_eq!(fixture.ask(times), 16);
    assert_eq!(fixture.ask("SELECT count(*) FROM otlp_logs"), 16);
}

/// Scenario: a publisher that merges and expires all the time is killed at moments that nobody chose: in its first start,
/// in commits, in merges.
/// Guarantees: every seal that was staged is in the lake once when all is over.
#[test]
fn a_publisher_that_is_killed_again_and_again_loses_nothing() {
    if let Some((fixture, _)) = task() {
        return publish_for_ever(fixture);
    }
    let fixture = Fixture::new();
    let promised = fixture.dir.path().join("promised");
    fs::write(&promised, "").unwrap();
    fs::create_dir(&fixture.staged_dir).unwrap();
    let count = || fs::read_to_string(&promised).unwrap().lines().count();
    let rounds = env::var("OTLAKE_TEST_KILLS").map_or(9, |n| n.parse().unwrap());
    for round in 0..rounds {
        let test = "a_publisher_that_is_killed_again_and_again_loses_nothing";
        let mut child = spawn(test, fixture.dir.path(), "");
        // A third of the rounds end in a start, the others after some seals.
        let (seals, pause_ms) = match round {
            _ if round < rounds / 3 => (0, 350 * round / (rounds / 3)),
            _ => (5 + round % 30, 3 * round % 25),
        };
        let (started, wanted) = (Instant::now(), count() + seals);
        while count() < wanted {
            assert!(started.elapsed() < Duration::from_secs(60), "{round}");
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(pause_ms as u64));
        child.kill().unwrap();
        assert_killed(child.wait().unwrap(), "for ever");
    }
    let mut lake = fixture.open();
    for seal in fixture.staged() {
        lake.publish(&seal).unwrap();
        seal.remove(&RealDisk).unwrap();
    }
    let reader = open_read_only(&fixture.config).unwrap();
    let seals = ask(&reader, "SELECT count(*) FROM otlake_seals");
    for (sql, wanted) in [
        ("SELECT count(DISTINCT seal_id) FROM otlake_seals", seals),
        ("SELECT count(*) FROM otlp_logs", 3 * seals),
        (
            "SELECT count(DISTINCT time_unix_nano) FROM otlp_logs",
            3 * seals,
        ),
        ("SELECT count(*) FROM otlp_metrics_sum", 3 * seals),
        (
            "SELECT count(DISTINCT time_unix_nano) FROM otlp_metrics_sum",
            3 * seals,
        ),
    ] {
        assert_eq!(ask(&reader, sql), wanted, "{sql}");
    }
    for id in fs::read_to_string(&promised).unwrap().lines() {
        let id = SealId(id.parse().unwrap());
        assert!(lake.is_published(id).unwrap(), "{id} is lost");
    }
    println!("{seals} seals, {} promised", count());
}

/// The child: takes up what it finds, then stages seal after seal. What it stages it notes, as a server answers.
fn publish_for_ever(mut fixture: Fixture) {
    fixture.config.snapshot_retention = Duration::ZERO;
    let lake = fixture.open();
    let found = fixture.staged();
    let promised = fixture.staged_dir.with_file_name("promised");
    let noted = fs::read_to_string(&promised).unwrap();
    let last = noted.lines().last().map_or(0, |id| id.parse().unwrap());
    let staged = found.last().map_or(0, |seal| seal.id.0);
    let mut id = lake.last_seal().unwrap().0.max(last).max(staged);
    let (queue, ledger) = (PublishQueue::new(), Arc::new(Ledger::new()));
    let (config, writer) = (fixture.config.clone(), fixture.writer.clone());
    let budget = Budget::new(1 << 20);
    Publisher::spawn(
        config,
        writer,
        lake,
        queue.clone(),
        Arc::clone(&ledger),
        budget,
    )
    .unwrap();
    let push = |seal: StagedSeal| {
        ledger.staged(&seal);
        queue.push(seal);
    };
    found.into_iter().for_each(push);
    let mut note = File::options().append(true).open(&promised).unwrap();
    loop {
        id += 1;
        let seal = fixture.stage(id, &[Table::Logs, Table::Sum], 3);
        // In one write: a kill between a number and its line's end would join it to the next process's first.
        note.write_all(format!("{id}\n").as_bytes()).unwrap();
        push(seal);
        while queue.len() > 2 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
