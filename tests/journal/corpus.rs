//! What the fuzzer `journal_recovery` begins with.

use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use otlake::decode::{Encoding, decode};
use otlake::disk::Disk as _;
use otlake::journal::scan;
use otlake::memory::Budget;
use otlake::rows::Rows;

use super::alone::{Alone, Settings, cut_record, digest, segment};
use super::world::{ROOT, append, journal_dir};
use crate::corpora::corpus;
use crate::support::faulty_disk::FaultyDisk;
use crate::support::journal_input::{COUNTED, STARTED, SUMMED, TWO};
use crate::support::otlp::Export;
use crate::support::sample;

pub fn rows_of(export: &Export) -> Rows {
    let reservation = Budget::new(1 << 30).empty();
    let body = export.to_protobuf();
    decode(export.signal(), Encoding::Protobuf, &body, 1, reservation).unwrap()
}

pub fn send(alone: &Alone, export: &Export, number: u32) {
    let (tell, outcome) = sync_channel(1);
    let sent = append(rows_of(export), digest(number), tell, None);
    alone.journal.append(sent);
    outcome.recv().unwrap().unwrap();
}

/// Writes the inputs that the fuzzer begins with: a journal of each signal, one with all kinds of frames, one of two
/// segments, without the start that the fuzzer puts before them; and one as it is on disk.
#[test]
#[ignore = "writes the first inputs of the fuzzer anew: only where the format has changed"]
fn write_the_first_inputs() {
    let write = |name: &str, flags: u8, frames: &[u8]| {
        let mut input = vec![flags, 0, 0x80];
        input.extend(frames);
        fs::write(corpus("journal_recovery").join(name), input).unwrap();
    };
    let journal = |exports: &[Export], segment_bytes: u64| {
        let disk = FaultyDisk::new(1, Path::new(ROOT));
        disk.create_dir_all(&journal_dir()).unwrap();
        let settings = Settings {
            segment_bytes,
            ..Settings::default()
        };
        let alone = Alone::start(&disk, &settings, 0).unwrap();
        for (number, export) in (1..).zip(exports) {
            send(&alone, export, number);
        }
        alone.cut(cut_record(1, 1)).unwrap();
        alone.note_undelivered(7);
        alone.repeat(7);
        alone.journal.finish();
        disk
    };
    let rest = |disk: &FaultyDisk, number: u64| {
        let content = disk.content(&segment(number));
        let start = u32::from_le_bytes(content[24..28].try_into().unwrap()) as usize;
        content[16 + 48 + start.next_multiple_of(8)..].to_vec()
    };
    let all = sample::exports();
    let flags = SUMMED | STARTED | COUNTED;
    for export in &all {
        let disk = journal(std::slice::from_ref(export), 1 << 20);
        write(&export.signal().to_string(), flags, &rest(&disk, 1));
    }
    let disk = journal(&all, 1 << 20);
    write("as_it_is", 0, &disk.content(&segment(1)));
    let disk = journal(&all[..2], 1);
    assert!(scan(&disk, &journal_dir()).unwrap().segments.len() >= 2);
    let [mut first, second] = [1, 2].map(|number| rest(&disk, number));
    let len = first.len().max(second.len());
    first.resize(len, 0);
    write("two", flags | TWO, &[first, second].concat());
}
