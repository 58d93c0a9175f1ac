//! Each stage of the server by itself, in rows a CPU second, beside what others have for the same work.
//!
//! ```text
//! stages [--rounds N] [--rows N] [--json] [STAGE ...]        stages: decode journal stage publish
//! ```
//!
//! Prints a Markdown table, or with `--json` an object a line.

mod decode;
mod journal;
mod publish;
mod report;
mod stage;

use std::env;

use report::Report;

/// What is measured, and how long.
pub struct Options {
    /// Rounds that count.
    pub rounds: usize,
    /// Rows of each generated signal that are decoded or journaled in a round; staging takes more, publishing fewer.
    pub rows: usize,
}

/// Rows in a request.
pub const BATCH: usize = 1000;

fn main() {
    let mut options = Options {
        rounds: 7,
        rows: 100_000,
    };
    let mut report = Report::new();
    let mut stages = Vec::new();
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> usize {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value
                .filter(|value| *value > 0)
                .unwrap_or_else(|| panic!("{argument} needs a number above 0"))
        };
        match argument.as_str() {
            "--rounds" => options.rounds = number(),
            "--rows" => options.rows = number().next_multiple_of(BATCH),
            "--json" => report.as_json(),
            // What `cargo bench` adds.
            "--bench" => {}
            _ => stages.push(argument),
        }
    }
    let all: [(&str, fn(&Options, &mut Report)); 4] = [
        ("decode", decode::run),
        ("journal", journal::run),
        ("stage", stage::run),
        ("publish", publish::run),
    ];
    for stage in &stages {
        let is_known = all.iter().any(|(name, _)| name == stage);
        assert!(is_known, "there is no stage {stage}");
    }
    for (name, run) in all {
        if stages.is_empty() || stages.iter().any(|stage| stage == name) {
            run(&options, &mut report);
        }
    }
}
