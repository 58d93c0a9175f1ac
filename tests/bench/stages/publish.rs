//! Publish: a staged seal becomes visible in the lake. It takes the same whatever the seal's size, so what counts is the
//! CPU time a seal; a small one has few rows to share it.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use otlake::disk::RealDisk;
use otlake::lake::{Catalog, Lake, LakeConfig};
use otlake::seal::stage::stage;
use otlake::signal::{SealId, Signal, WriterId};
use otlake_bench::measure::{Contender, measure};
use otlake_bench::workload::Workload;
use tempfile::TempDir;

use crate::report::{Line, Report};
use crate::stage::{seal, tables};
use crate::{BATCH, Options};

/// Seals that are published in a round.
const SEALS: usize = 10;

pub fn run(options: &Options, report: &mut Report) {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig {
        catalog: Catalog::Sqlite(dir.path().join("catalog.sqlite")),
        data_path: dir.path().join("lake"),
        schema: "main".to_owned(),
        extension_dir: None,
        target_file_size_bytes: 256 << 20,
        snapshot_retention: Duration::from_secs(900),
        is_group_readable: false,
    };
    let writer = WriterId("00000000-0000-0000-0000-000000000001".to_owned());
    let lake = RefCell::new(Lake::open(&config, &writer).unwrap());
    let number = Cell::new(0);
    for signal in [Signal::Logs, Signal::Metrics] {
        let workload = Workload::generated(signal, 1, BATCH as u64);
        let bytes = Cell::new(0);
        // Staging is in every round too: it is taken off again.
        let stage_one = || {
            number.set(number.get() + 1);
            let seal = seal(SealId(number.get()), tables(&workload));
            let staged = stage(&RealDisk, &seal, &dir.path().join("staged")).unwrap();
            bytes.set(staged.bytes());
            staged
        };
        let publish = || {
            for _ in 0..SEALS {
                lake.borrow_mut().publish(&stage_one()).unwrap();
            }
            SEALS
        };
        let stage_alone = || (0..SEALS).map(|_| stage_one().files.len()).sum();
        let mut contenders = [
            Contender::new("publish", publish),
            Contender::new("stage", stage_alone),
        ];
        let times = measure(options.rounds.div_ceil(2), &mut contenders);
        // A line of seals instead of rows.
        report.line(&Line {
            stage: "publish seals",
            workload: workload.name,
            rows: SEALS,
            seconds: times.median(0) - times.median(1),
            bytes_a_row: bytes.get() as f64,
            beside: None,
        });
    }
}
