//! Processes that are killed with SIGKILL while they publish and merge: SQLite's log and locks are left as they are then.

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};

use super::*;
use crate::lake::crash;

/// In the child: its data folder, and what it is to do there.
const DIR: &str = "OTLAKE_TEST_KILLED_DIR";
const TASK: &str = "OTLAKE_TEST_KILLED_TASK";

/// Runs the named test of this binary in another process, which finds its task in the environment.
fn spawn(test: &str, dir: &Path, task: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("lake::tests::killed::{test}"))
        .envs([(DIR, dir.as_os_str()), (TASK, task.as_ref())])
        .stdout(std::process::Stdio::null())
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
