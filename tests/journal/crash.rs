//! The power is lost, or the process killed, at every single operation of the disk.

use std::time::Duration;

use super::world::{HOUR, Process, World};
use crate::support::faulty_file::Random;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Requests by their number of records, the first alone and the others in one group.
    Send(&'static [u32]),
    Seal,
    Publish,
    Restart,
}

/// Goes through all that the disk is used for: segments that follow each other and go, seals staged and published late,
/// orderly stops with rows in every place.
const SCRIPT: [Step; 22] = [
    Step::Send(&[1]),
    Step::Send(&[1, 40, 1]),
    Step::Seal,
    Step::Send(&[60, 2]),
    Step::Publish,
    Step::Send(&[3]),
    Step::Seal,
    Step::Send(&[90, 1, 1]),
    Step::Restart,
    Step::Send(&[2]),
    Step::Publish,
    Step::Publish,
    Step::Seal,
    Step::Send(&[80]),
    Step::Send(&[5, 5]),
    Step::Seal,
    Step::Restart,
    Step::Seal,
    Step::Publish,
    Step::Publish,
    Step::Send(&[1]),
    Step::Seal,
];

/// Says on a panic which run it was.
struct Told {
    seed: u64,
    crash_at: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, crash at operation {}", self.seed, self.crash_at);
        }
    }
}

/// Runs the script, and loses power at the `crash_at`th operation and then a few times more, soon. `false` when the
/// script has fewer operations.
fn run(seed: u64, crash_at: u64) -> bool {
    let _told = Told { seed, crash_at };
    let mut random = Random::new(seed ^ (crash_at << 20));
    let moment = if random.coin() { Duration::ZERO } else { HOUR };
    let mut world = World::new(random.next(), moment);
    world.disk.crash_at(crash_at);
    let mut crashes = 0;
    let mut steps = SCRIPT.iter().enumerate();
    let mut step = steps.next();
    let mut sent = Vec::new();
    let mut process = None;
    while let Some((place, what)) = step {
        if let Some(running) = process.take() {
            process = perform(&mut world, running, *what, &mut sent);
        } else {
            process = world.start().map_or_else(
                |error| {
                    assert!(world.disk.is_down(), "before step {place}: {error:?}");
                    None
                },
                Some,
            );
            if process.is_some() {
                continue;
            }
        }
        if !world.disk.is_down() {
            step = steps.next();
            sent.clear();
            continue;
        }
        if let Some(process) = process.take() {
            process.stop(&world);
        }
        crashes += 1;
        restart(&world, &mut random, crashes);
    }
    if let Some(process) = process {
        process.stop(&world);
    }
    world.disk.crash(random.next());
    let process = world.start().unwrap();
    process.drain(&mut world);
    world.check_lake();
    crashes > 0
}

fn perform(
    world: &mut World,
    mut process: Process,
    step: Step,
    sent: &mut Vec<usize>,
) -> Option<Process> {
    match step {
        Step::Send(records) => {
            if sent.is_empty() {
                sent.extend(records.iter().map(|records| world.request(*records)));
            }
            let outcomes = process.send(world, sent);
            let is_down = world.disk.is_down();
            assert!(
                is_down || outcomes.iter().all(Result::is_ok),
                "{outcomes:?}"
            );
        }
        Step::Seal => {
            let is_sealed = process.seal(world);
            assert!(is_sealed || world.disk.is_down());
        }
        Step::Publish => process.publish(world),
        Step::Restart => {
            process.stop(world);
            return None;
        }
    }
    Some(process)
}

/// Most often the power is lost; else only the process is killed, and the power is lost some operations later.
fn restart(world: &World, random: &mut Random, crashes: u32) {
    if random.below(3) == 0 {
        world.disk.restart();
    } else {
        world.disk.crash(random.next());
    }
    if crashes < 4 {
        world.disk.crash_at(1 + random.below(30));
    }
}

/// Scenario: at each operation of the disk in turn, while requests are journaled, sealed, staged and published, segments
/// made and removed, the server stopped and started, the power is lost or the process killed; and again, soon, also while
/// the next start takes up what is there. Clients send again what was not answered.
/// Guarantees: every start succeeds; a seal that is staged again has the rows it had; in the end every request is in the
/// lake, once, whole.
#[test]
fn a_crash_at_any_operation_loses_and_doubles_nothing() {
    // `CRASH_SEEDS` looks further.
    let seeds = std::env::var("CRASH_SEEDS").map_or(2, |seeds| seeds.parse().unwrap());
    const THREADS: u64 = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for seed in 0..seeds {
                    let crashes = (1 + thread..).step_by(THREADS as usize);
                    let ended = crashes.take_while(|at| run(seed, *at)).count();
                    assert!(ended > 25, "only {ended} operations");
                }
            });
        }
    });
}
