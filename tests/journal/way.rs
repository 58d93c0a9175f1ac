//! The whole way from requests to the lake, in any order, with any failure between any two steps.

use std::io::ErrorKind;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{HOUR, Process, World};
use crate::support::arbitrary::seeded;
use crate::support::faulty_disk::Op;

#[derive(Clone, Debug)]
enum Action {
    /// Requests by their number of records, at the same time.
    Send(Vec<u32>),
    /// All requests without an answer are sent again.
    Retry,
    /// The answer to the `n`th request, from the newest, is lost: its client sends it again.
    LoseAnswer(usize),
    Seal,
    Publish,
    Stop,
    /// The process is killed, and with a seed the power is lost.
    Kill(Option<u64>),
    /// The disk fails for ever so many operations from now, also in the next start.
    CrashAt(u64),
    /// An operation of this kind fails, after so many others.
    Fail(Op, u64, ErrorKind),
}

fn action() -> impl Strategy<Value = Action> {
    let records = prop_oneof![4 => 1..5u32, 1 => 60..120u32];
    // What makes a stage or a cut fail is tried again after 100 ms: few of those.
    let fault = prop_oneof![
        2 => Just((Op::Sync, ErrorKind::Other)),
        2 => Just((Op::Write, ErrorKind::StorageFull)),
        1 => Just((Op::Write, ErrorKind::Other)),
        1 => Just((Op::Create, ErrorKind::StorageFull)),
        1 => Just((Op::SyncDir, ErrorKind::Other)),
        1 => Just((Op::Remove, ErrorKind::Other)),
        1 => Just((Op::Rename, ErrorKind::Other)),
    ];
    prop_oneof![
        10 => prop::collection::vec(records, 1..5).prop_map(Action::Send),
        3 => Just(Action::Retry),
        2 => (0..4usize).prop_map(Action::LoseAnswer),
        6 => Just(Action::Seal),
        6 => Just(Action::Publish),
        2 => Just(Action::Stop),
        1 => Just(Action::Kill(None)),
        2 => any::<u64>().prop_map(|seed| Action::Kill(Some(seed))),
        6 => (1..40u64).prop_map(Action::CrashAt),
        1 => (fault, 0..6u64).prop_map(|((op, error), skipped)| Action::Fail(op, skipped, error)),
    ]
}

/// The world, and the process that runs in it.
struct Run {
    world: World,
    process: Option<Process>,
}

impl Run {
    fn act(&mut self, action: &Action) {
        let Run { world, process } = self;
        let running = process.as_mut().unwrap();
        match action {
            Action::Send(records) => {
                let requests: Vec<usize> = records
                    .iter()
                    .map(|records| world.request(*records))
                    .collect();
                running.send(world, &requests);
            }
            Action::Retry => drop(running.send_all(world)),
            Action::LoseAnswer(back) => running.lose_answer(world, *back),
            Action::Seal => drop(running.seal(world)),
            Action::Publish => running.publish(world),
            Action::Stop => {
                process.take().unwrap().stop(world);
            }
            Action::Kill(power) => {
                world.disk.go_down();
                process.take().unwrap().stop(world);
                match power {
                    Some(seed) => world.disk.crash(*seed),
                    None => world.disk.restart(),
                }
            }
            Action::CrashAt(operations) => world.disk.crash_at(*operations),
            Action::Fail(op, skipped, error) => world.disk.fail(*op, *skipped, *error),
        }
        let is_stuck = process
            .as_ref()
            .is_some_and(|process| process.is_stuck(world));
        if is_stuck {
            process.take().unwrap().stop(world);
        }
        while process.is_none() {
            if world.disk.is_down() {
                let seed = world.disk.ops();
                world.disk.crash(seed);
            }
            let may_fail = world.disk.has_faults();
            match world.start() {
                Ok(started) => *process = Some(started),
                // Only the disk may keep it from starting.
                Err(error) => {
                    assert!(may_fail, "{error:?}");
                    world.disk.heal();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(seeded(60))]

    /// Scenario: requests, retries, lost answers, seals, publishes, stops, kills, power losses at any operation also of a
    /// start, and operations that fail, in any order. Clients send again until they have an answer.
    /// Guarantees: every start succeeds when the disk does; a seal that is staged again has the rows it had; in the end each
    /// request is in the lake, once, whole.
    #[test]
    fn nothing_is_lost_or_doubled_on_the_way(
        seed in any::<u64>(),
        moment in prop_oneof![Just(Duration::ZERO), Just(HOUR)],
        actions in prop::collection::vec(action(), 1..30),
    ) {
        let world = World::new(seed, moment);
        let process = Some(world.start().unwrap());
        let mut run = Run { world, process };
        for action in &actions {
            run.act(action);
        }
        run.world.disk.heal();
        run.act(&Action::Kill(Some(seed)));
        let Run { mut world, process } = run;
        process.unwrap().drain(&mut world);
        world.check_lake();
    }
}
