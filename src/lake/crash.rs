//! Crash points: the places between two steps at which a test cuts publishing or merging off, as a kill would. Only
//! builds for tests have them.

/// Marks a place between two steps by what was done last.
macro_rules! crash_point {
    ($done:literal) => {
        #[cfg(test)]
        $crate::lake::crash::reached($done);
    };
}
pub(super) use crash_point;

#[cfg(test)]
pub(super) use armed::{cut_at, kill_at, note, reached};

#[cfg(test)]
mod armed {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};

    /// What happens at this thread's crash points.
    enum Plan {
        Nothing,
        Note(Vec<&'static str>),
        CutAt(usize),
        KillAt(String),
    }

    thread_local! {
        static PLAN: RefCell<Plan> = const { RefCell::new(Plan::Nothing) };
    }

    /// Where work was cut off: what was done last.
    struct Cut(&'static str);

    /// A crash point was reached.
    pub(in crate::lake) fn reached(done: &'static str) {
        let cut = PLAN.with_borrow_mut(|plan| match plan {
            Plan::Nothing => false,
            Plan::Note(points) => {
                points.push(done);
                false
            }
            Plan::CutAt(0) => {
                *plan = Plan::Nothing;
                true
            }
            Plan::CutAt(left) => {
                *left -= 1;
                false
            }
            Plan::KillAt(point) => {
                if point == done {
                    kill_this_process();
                }
                false
            }
        });
        if cut {
            // Not a panic: nobody need read of it.
            resume_unwind(Box::new(Cut(done)));
        }
    }

    /// Does the work, and answers which points it passed.
    pub(in crate::lake) fn note<T>(work: impl FnOnce() -> T) -> (T, Vec<&'static str>) {
        PLAN.set(Plan::Note(Vec::new()));
        let done = work();
        match PLAN.replace(Plan::Nothing) {
            Plan::Note(points) => (done, points),
            _ => panic!("the plan changed meanwhile"),
        }
    }

    /// Does the work up to the crash point with this number, counted from 0, and answers what was done last. Nothing runs
    /// after it but drops on the way out: whoever calls this throws away all that the work held in memory.
    pub(in crate::lake) fn cut_at<T>(
        point: usize,
        work: impl FnOnce() -> T,
    ) -> Result<T, &'static str> {
        PLAN.set(Plan::CutAt(point));
        let outcome = catch_unwind(AssertUnwindSafe(work));
        PLAN.set(Plan::Nothing);
        outcome.map_err(|thrown| match thrown.downcast::<Cut>() {
            Ok(cut) => cut.0,
            Err(panic) => resume_unwind(panic),
        })
    }

    /// Kills the process, as `kill -9` does, when this thread comes to the named crash point.
    pub(in crate::lake) fn kill_at(point: &str) {
        PLAN.set(Plan::KillAt(point.to_owned()));
    }

    fn kill_this_process() -> ! {
        kill_process(getpid(), Signal::KILL).unwrap();
        loop {
            thread::park();
        }
    }
}
