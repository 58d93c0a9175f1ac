//! Measuring in CPU seconds: user and system time of the whole process.
//!
//! Neither criterion nor divan measures what is wanted here. Others run on the same machine, so that wall time says little;
//! some contenders work on several threads, so that a thread's own clock says too little; and a ratio is only fair between
//! runs that met the same noise, so that contenders have to take turns instead of running one after the other.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

/// One of those that do the same work.
pub struct Contender<'a> {
    /// Its name in the table.
    pub name: &'a str,
    /// Does the work once, and answers what it made, so that none of it can be left out.
    pub run: Box<dyn FnMut() -> usize + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender that does `run`.
    pub fn new(name: &'a str, run: impl FnMut() -> usize + 'a) -> Contender<'a> {
        Contender {
            name,
            run: Box::new(run),
        }
    }
}

/// CPU seconds of each round, by contender.
#[derive(Clone, Debug)]
pub struct Times(pub Vec<Vec<f64>>);

impl Times {
    /// The median of a contender's rounds, CPU seconds.
    pub fn median(&self, contender: usize) -> f64 {
        median(&self.0[contender])
    }

    /// How many times the first contender is as fast as another one: the median over the rounds of the ratio in each.
    pub fn ratio_to(&self, other: usize) -> f64 {
        let ours = self.0[0].iter();
        let ratios: Vec<f64> = ours
            .zip(&self.0[other])
            .map(|(ours, theirs)| theirs / ours)
            .collect();
        median(&ratios)
    }
}

/// Lets the contenders take turns, `rounds` times after a first one that does not count (memory that is touched for the
/// first time, caches).
pub fn measure(rounds: usize, contenders: &mut [Contender<'_>]) -> Times {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        for turn in 0..contenders.len() {
            // Each is first in its turn.
            let place = (turn + round) % contenders.len();
            let before = cpu_seconds();
            black_box((contenders[place].run)());
            let took = cpu_seconds() - before;
            if round > 0 {
                times[place].push(took);
            }
        }
    }
    Times(times)
}

/// CPU seconds that this process has taken so far, user and system, over all its threads.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The middle value; of an even number of values the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}
