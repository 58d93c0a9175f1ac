//! A seal on its way to disk, crashed at each operation: without a journal, as with `--durability memory`, what is staged
//! has no second place.

use std::path::Path;

use otlake::disk::Disk as _;
use otlake::memory::Budget;
use otlake::seal::queue::Seal;
use otlake::seal::stage::stage;
use otlake::seal::staged::find;
use otlake::signal::{CutCause, SealId};

use super::world::{ROOT, flags, read_staged, rows_of, staged_dir};
use crate::support::faulty_disk::FaultyDisk;

fn seal() -> Seal {
    let rows = rows_of(1, 50, &Budget::new(1 << 30));
    let tables = rows.batches.into_iter();
    Seal {
        id: SealId(7),
        cause: CutCause::Flush,
        tables: tables.map(|(table, batch)| (table, vec![batch])).collect(),
        opened_unix_ms: 1,
        sealed_unix_ms: 2,
        journaled_through: 0,
        unjournaled_rows: 50,
        reservation: None,
    }
}

/// Scenario: the power is lost at each operation of a stage in turn, and right after it; also while an older attempt lies
/// there.
/// Guarantees: a seal that was staged is found, whole; one that was not is found whole or not at all, and can be staged
/// again.
#[test]
fn a_stage_is_whole_or_not_there() {
    let seal = seal();
    let expected = flags(&seal.tables[0].1);
    for (seed, crash_at) in (0..4).flat_map(|seed| (1..40).map(move |at| (seed, at))) {
        let disk = FaultyDisk::new(seed, Path::new(ROOT));
        disk.create_dir_all(&staged_dir()).unwrap();
        disk.sync_dir(Path::new(ROOT)).unwrap();
        if seed % 2 == 1 {
            disk.crash_at(9);
            stage(&disk, &seal, &staged_dir()).unwrap_err();
            disk.crash(seed);
        }
        disk.crash_at(crash_at);
        let staged = stage(&disk, &seal, &staged_dir());
        disk.go_down();
        disk.crash(seed + crash_at);
        let found = find(&disk, &staged_dir()).unwrap();
        assert!(found.damaged.is_empty(), "at {crash_at}");
        for seal in &found.seals {
            seal.check(&disk).unwrap();
            assert!(seal.absent(&disk).is_empty());
            assert_eq!(read_staged(&disk, seal).unwrap(), expected, "at {crash_at}");
        }
        if let Ok(staged) = staged {
            let [found] = &found.seals[..] else {
                panic!("at {crash_at}: {:?}", found.seals);
            };
            assert_eq!(found.files, staged.files, "at {crash_at}");
        } else {
            stage(&disk, &seal, &staged_dir()).unwrap();
        }
    }
}
