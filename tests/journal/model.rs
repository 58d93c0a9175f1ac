//! The journal alone against a model: requests, cuts, notes, stops, kills, power losses and failures in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use otlake::disk::Disk as _;
use otlake::journal::{CutRecord, Digest, JournalError, Outcome};
use proptest::prelude::*;

use super::alone::{Alone, Settings, cut_record, digest};
use super::world::{HOUR, ROOT, flags_of, journal_dir};
use crate::support::arbitrary::seeded;
use crate::support::faulty_disk::{FaultyDisk, Op};

#[derive(Clone, Debug)]
enum Action {
    /// Requests by their number of records.
    Send(Vec<u32>),
    Cut,
    Publish,
    /// The answer of the `n`th request, from the newest, cannot have arrived.
    Undelivered(usize),
    /// The retry of the `n`th remembered request comes.
    Repeat(usize),
    Stop,
    /// The process is killed, and with a seed the power is lost.
    Kill(Option<u64>),
    /// The disk fails for ever so many operations from now, and what it kept is as the seed says.
    CrashAt(u64),
    /// An operation of this kind fails, after so many others.
    Fail(Op, u64, ErrorKind),
    /// There is room for so many bytes; the system says so, or knows nothing of it.
    Room(u64, bool),
    WriteShort,
    Heal,
}

fn action() -> impl Strategy<Value = Action> {
    let records = prop_oneof![2 => 1..5u32, 1 => 20..60u32];
    let fault = prop_oneof![
        3 => Just((Op::Sync, ErrorKind::Other)),
        1 => Just((Op::Write, ErrorKind::Other)),
        2 => Just((Op::Write, ErrorKind::StorageFull)),
        1 => Just((Op::Create, ErrorKind::ResourceBusy)),
        1 => Just((Op::Create, ErrorKind::StorageFull)),
        1 => Just((Op::SetLen, ErrorKind::Other)),
        1 => Just((Op::SyncDir, ErrorKind::Other)),
        1 => Just((Op::Remove, ErrorKind::Other)),
    ];
    prop_oneof![
        12 => prop::collection::vec(records, 1..5).prop_map(Action::Send),
        4 => Just(Action::Cut),
        4 => Just(Action::Publish),
        2 => (0..6usize).prop_map(Action::Undelivered),
        2 => (0..4usize).prop_map(Action::Repeat),
        1 => Just(Action::Stop),
        1 => Just(Action::Kill(None)),
        2 => any::<u64>().prop_map(|seed| Action::Kill(Some(seed))),
        2 => (1..12u64).prop_map(Action::CrashAt),
        3 => (fault, 0..3u64).prop_map(|((op, error), skipped)| Action::Fail(op, skipped, error)),
        2 => (0..9000u64, any::<bool>()).prop_map(|(room, is_told)| Action::Room(room, is_told)),
        1 => Just(Action::WriteShort),
        2 => Just(Action::Heal),
    ]
}

/// What is known of a request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its rows are in the journal under this sequence.
    There(u64),
    /// Its rows may be there.
    Maybe,
    /// Its rows were taken back, and come again at most where power is lost before the next sync.
    TakenBack,
    Never,
    /// Its rows were in the journal and need not be there any more.
    Published,
}

struct Sent {
    records: u32,
    fate: Fate,
    /// A crash now must leave the request remembered, if its rows are there.
    is_owed: bool,
}

struct Model {
    disk: FaultyDisk,
    settings: Settings,
    alone: Option<Alone>,
    /// By their numbers, from 1.
    sent: BTreeMap<u32, Sent>,
    /// The newest sequence that is there for sure.
    sequence: u64,
    /// Cuts that were answered with success.
    cuts: Vec<CutRecord>,
    /// A cut that was not: it is tried again.
    tried: Option<CutRecord>,
    last_seal: u64,
    published: u64,
    /// Operations of the disk when the journal was poisoned.
    poisoned_at: Option<usize>,
    /// Whose retry came.
    repeated: Vec<Digest>,
}

impl Model {
    fn new(seed: u64, segment_bytes: u64, moment: Duration) -> Model {
        let disk = FaultyDisk::new(seed, Path::new(ROOT));
        disk.create_dir_all(&journal_dir()).unwrap();
        disk.sync_dir(Path::new(ROOT)).unwrap();
        let settings = Settings {
            segment_bytes,
            moment,
            ..Settings::default()
        };
        let alone = Alone::start(&disk, &settings, 0).unwrap();
        Model {
            disk,
            settings,
            alone: Some(alone),
            sent: BTreeMap::new(),
            sequence: 0,
            cuts: Vec::new(),
            tried: None,
            last_seal: 0,
            published: 0,
            poisoned_at: None,
            repeated: Vec::new(),
        }
    }

    fn alone(&self) -> &Alone {
        self.alone.as_ref().unwrap()
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Send(records) => self.send(records),
            Action::Cut => self.cut(),
            Action::Publish => self.publish(),
            Action::Undelivered(back) => self.note_undelivered(*back),
            Action::Repeat(place) => self.repeat(*place),
            Action::Stop => self.stop(),
            Action::Kill(power) => self.kill(*power),
            Action::CrashAt(ops) => self.disk.crash_at(*ops),
            Action::Fail(op, skipped, error) => self.disk.fail(*op, *skipped, *error),
            Action::Room(bytes, is_told) => {
                self.disk.set_capacity(self.disk.used() + bytes);
                if !is_told {
                    self.disk.claim_free(1 << 40);
                }
            }
            Action::WriteShort => self.disk.write_short(),
            Action::Heal => self.disk.heal(),
        }
        if self.disk.is_down() {
            let seed = self.disk.ops();
            self.kill(Some(seed));
        }
    }

    fn send(&mut self, records: &[u32]) {
        let first = self.sent.len() as u32 + 1;
        let requests: Vec<(u32, u32)> = (first..).zip(records.iter().copied()).collect();
        let was_poisoned = self.is_poisoned();
        let seen = self.alone().delivered.lock().unwrap().len();
        let outcomes = self.alone().send(&requests);
        let delivered = self.alone().delivered.lock().unwrap()[seen..].to_vec();
        let mut expected = Vec::new();
        for ((number, records), outcome) in requests.into_iter().zip(outcomes) {
            let fate = self.fate(&outcome, was_poisoned);
            if let Fate::There(sequence) = fate {
                expected.push((sequence, flags_of(number, records)));
            }
            let sent = Sent {
                records,
                fate,
                is_owed: fate != Fate::Never && (outcome.is_err() || self.settings.moment == HOUR),
            };
            self.sent.insert(number, sent);
        }
        assert_eq!(delivered, expected);
        self.note_poison();
    }

    fn fate(&mut self, outcome: &Outcome, was_poisoned: bool) -> Fate {
        match outcome {
            Ok(_) => {
                self.synced();
                self.sequence += 1;
                Fate::There(self.sequence)
            }
            Err(JournalError::Poisoned(_)) if !was_poisoned => Fate::Maybe,
            Err(error) if was_poisoned => {
                assert!(matches!(error, JournalError::Poisoned(_)), "{error}");
                Fate::Never
            }
            Err(JournalError::NoSpace) => Fate::TakenBack,
            Err(_) => Fate::Never,
        }
    }

    /// What was taken back before a sync stays away.
    fn synced(&mut self) {
        for sent in self.sent.values_mut() {
            if sent.fate == Fate::TakenBack {
                sent.fate = Fate::Never;
                sent.is_owed = false;
            }
        }
    }

    fn is_poisoned(&self) -> bool {
        matches!(
            self.alone().journal.trouble(),
            Some(JournalError::Poisoned(_))
        )
    }

    fn note_poison(&mut self) {
        if self.is_poisoned() && self.poisoned_at.is_none() {
            self.poisoned_at = Some(self.disk.log().len());
        }
    }

    /// A poisoned journal writes and syncs no file any more.
    fn check_poison(&mut self) {
        let Some(from) = self.poisoned_at.take() else {
            return;
        };
        for (op, path) in &self.disk.log()[from..] {
            let is_segment = path.starts_with(journal_dir()) && *path != journal_dir();
            let is_removal = *op == Op::Remove;
            assert!(
                !is_segment || is_removal,
                "{op:?} of {path:?} in a poisoned journal"
            );
        }
    }

    fn cut(&mut self) {
        let last = self.cuts.last().map_or(0, |cut| cut.through);
        let cut = match self.tried.take() {
            Some(cut) => cut,
            None if self.sequence > last.max(self.published) => {
                self.last_seal += 1;
                cut_record(self.last_seal, self.sequence)
            }
            None => return,
        };
        let outcome = self.alone().cut(cut);
        match outcome {
            Ok(()) => {
                self.synced();
                self.cuts.push(cut);
            }
            Err(_) => self.tried = Some(cut),
        }
        self.note_poison();
    }

    fn publish(&mut self) {
        let next = self.cuts.iter().find(|cut| cut.through > self.published);
        if let Some(cut) = next.copied() {
            self.published = cut.through;
            self.alone().publish(cut.seal.0);
            self.note_poison();
        }
    }

    fn note_undelivered(&mut self, back: usize) {
        let answered = |sent: &&Sent| matches!(sent.fate, Fate::There(_)) && !sent.is_owed;
        let mut numbers = self.sent.iter().rev().filter(|(_, sent)| answered(sent));
        if let Some(number) = numbers.nth(back).map(|(number, _)| *number) {
            self.alone().note_undelivered(number);
            self.note_poison();
        }
    }

    fn repeat(&mut self, place: usize) {
        let remembered = self.alone().remembered.lock().unwrap().get(place).copied();
        let Some(Digest(number)) = remembered else {
            return;
        };
        let number = u32::try_from(number).unwrap();
        assert!(self.alone().repeat(number));
        self.repeated.push(digest(number));
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.is_owed = false;
        }
        self.note_poison();
    }

    fn stop(&mut self) {
        let alone = self.alone.take().unwrap();
        let has_trouble = alone.journal.trouble().is_some();
        let has_faults = self.disk.has_faults();
        alone.journal.finish();
        self.check_poison();
        let is_orderly = !has_trouble && !has_faults;
        let kept = alone.remembered.lock().unwrap().clone();
        for (number, sent) in &mut self.sent {
            // Every answer was written before the stop.
            sent.is_owed &= kept.contains(&digest(*number));
        }
        if self.disk.is_down() {
            self.disk.crash(self.disk.ops());
        } else {
            self.disk.restart();
        }
        self.reopen();
        if is_orderly {
            // A note that begins a segment is also in what its start remembers, and so counts twice: those are left out.
            let again = self.alone().remembered.lock().unwrap().clone();
            let once = |digests: Vec<Digest>| -> BTreeSet<Digest> {
                let is_once = |digest: &Digest| !self.repeated.contains(digest);
                digests.into_iter().filter(is_once).collect()
            };
            assert_eq!(once(again), once(kept), "after an orderly stop");
        }
    }

    fn kill(&mut self, power: Option<u64>) {
        self.disk.go_down();
        self.alone.take().unwrap().journal.finish();
        self.check_poison();
        match power {
            Some(seed) => self.disk.crash(seed),
            None => self.disk.restart(),
        }
        self.reopen();
    }

    /// Starts again, compares what is there, and takes over what may or may not have been.
    fn reopen(&mut self) {
        let alone = Alone::start(&self.disk, &self.settings, self.published).unwrap();
        let scan = &alone.scan;
        if scan.segments.is_empty() {
            self.forget();
        }
        assert!(scan.before_first <= self.published, "{scan:?}");
        let mut next = scan.before_first + 1;
        for (sequence, flags) in alone.found.clone() {
            assert_eq!(sequence, next);
            next += 1;
            let is_it =
                |(number, sent): &(&u32, &mut Sent)| flags_of(**number, sent.records) == flags;
            let (number, sent) = self.sent.iter_mut().find(is_it).unwrap();
            match sent.fate {
                Fate::There(expected) => assert_eq!(sequence, expected, "request {number}"),
                Fate::Never | Fate::Published => {
                    panic!("request {number} is {:?} and is there", sent.fate)
                }
                Fate::Maybe | Fate::TakenBack => sent.fate = Fate::There(sequence),
            }
        }
        let last = next - 1;
        assert_eq!(last, scan.last_sequence);
        assert!(last >= self.sequence.min(last), "{} is lost", self.sequence);
        for (number, sent) in &mut self.sent {
            match sent.fate {
                Fate::There(sequence) if sequence > scan.before_first => {
                    assert!(sequence <= last, "request {number} is lost");
                }
                Fate::Maybe | Fate::TakenBack => {
                    sent.fate = Fate::Never;
                    sent.is_owed = false;
                }
                _ => {}
            }
        }
        self.sequence = last;
        self.check_cuts(&alone);
        let remembered = alone.remembered.lock().unwrap().clone();
        for (number, sent) in self.sent.iter().filter(|(_, sent)| sent.is_owed) {
            let is_known = remembered.contains(&digest(*number));
            assert!(
                is_known,
                "request {number} ({:?}) is not remembered",
                sent.fate
            );
        }
        self.alone = Some(alone);
    }

    /// No segment is left: all was published, and sequences begin anew.
    fn forget(&mut self) {
        assert_eq!(self.published, self.sequence, "a segment is lost");
        for sent in self.sent.values_mut() {
            if let Fate::There(_) = sent.fate {
                sent.fate = Fate::Published;
            }
        }
        (self.sequence, self.published) = (0, 0);
        self.cuts.clear();
    }

    fn check_cuts(&mut self, alone: &Alone) {
        let scan = &alone.scan;
        for cut in &scan.cuts {
            let is_known = self.cuts.contains(cut);
            assert!(is_known || self.tried == Some(*cut), "{cut:?}");
            if !is_known {
                self.cuts.push(*cut);
            }
        }
        self.tried = None;
        for cut in self
            .cuts
            .iter()
            .filter(|cut| cut.through > scan.before_first)
        {
            assert!(scan.cuts.contains(cut), "{cut:?} is lost");
        }
    }
}

proptest! {
    #![proptest_config(seeded(150))]

    /// Scenario: requests alone and in groups, cuts, publishes, notes, stops, kills, power losses at any operation, full
    /// disks, and operations that fail, in any order.
    /// Guarantees: every start succeeds. What was answered is there, in order, once; what was refused for good is not;
    /// cuts that were answered are there; a segment goes only when its batches are published. A poisoned journal writes
    /// and syncs nothing. After a crash every request is remembered whose rows are there and whose answer may not be.
    #[test]
    fn the_journal_keeps_to_its_model(
        seed in any::<u64>(),
        segment_bytes in prop_oneof![Just(1u64), Just(12_000), Just(1 << 20)],
        moment in prop_oneof![Just(Duration::ZERO), Just(HOUR)],
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let mut model = Model::new(seed, segment_bytes, moment);
        for action in &actions {
            model.act(action);
        }
        model.disk.heal();
        model.kill(Some(seed));
        model.stop();
    }
}
