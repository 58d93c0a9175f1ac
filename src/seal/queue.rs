//! The shared seal queue: every protocol pushes rows in, the sealer takes seals out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;

use super::buffer::OpenBuffer;
use super::ledger::{Amount, unix_ms};
use crate::disk::Disk;
use crate::memory::Reservation;
use crate::rows::{Rows, batch_bytes};
use crate::signal::{CutCause, SealId, Table};

/// Cuts for want of room are this far apart at least.
pub const ROOM_CUT_PAUSE: Duration = Duration::from_secs(1);

/// When the open buffer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealLimits {
    /// Memory held by the buffer's rows, bytes.
    pub target_bytes: u64,
    /// Age of its oldest row.
    pub max_age: Duration,
}

/// Rows cut from the open buffer, on their way to Parquet.
#[derive(Debug)]
pub struct Seal {
    /// The seal's number.
    pub id: SealId,
    /// Why it was cut.
    pub cause: CutCause,
    /// The batches of each table that has any.
    pub tables: Vec<(Table, Vec<RecordBatch>)>,
    /// Receipt of its oldest row, Unix milliseconds.
    pub opened_unix_ms: i64,
    /// The cut, Unix milliseconds.
    pub sealed_unix_ms: i64,
    /// The journal's sequence of the newest batch in it; 0 when none of its rows is in the journal.
    pub journaled_through: u64,
    /// Rows of it that are in memory alone.
    pub unjournaled_rows: u64,
    /// Covers the batches' memory until the seal is staged.
    pub reservation: Option<Reservation>,
}

impl Seal {
    /// Rows and memory by table, in the order of [`Table::ALL`].
    #[must_use]
    pub fn amounts(&self) -> [Amount; Table::ALL.len()] {
        let mut amounts = [Amount::default(); Table::ALL.len()];
        for (table, batches) in &self.tables {
            amounts[table.index()] = Amount {
                rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
                bytes: batches.iter().map(batch_bytes).sum(),
            };
        }
        amounts
    }

    /// Rows by table.
    #[must_use]
    pub fn rows(&self) -> [u64; Table::ALL.len()] {
        self.amounts().map(|amount| amount.rows)
    }
}

/// The server no longer takes rows: it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Closed;

/// The open buffer behind a lock, and the conditions on which it is cut.
///
/// Lock order: this lock is held alone, never while another one is taken. The work under it is appending a few
/// pointers; what costs time (decoding, staging) happens outside.
pub struct SealQueue {
    limits: SealLimits,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    buffer: OpenBuffer,
    next: SealId,
    /// The newest seal on its way or in the lake: of this run, or staged by the last one. Numbers between it and
    /// `next` belong to no seal.
    last_cut: SealId,
    sequence: SealSequence,
    /// The journal's sequence of the newest batch in the buffer; 0 when none of its rows is in the journal.
    journaled_through: u64,
    /// Rows in the buffer that are in memory alone.
    unjournaled_rows: u64,
    wanted: Option<CutCause>,
    /// When a cut was last asked for want of room.
    room_wanted: Option<Instant>,
    closed: bool,
}

impl SealQueue {
    /// An empty queue whose seals are numbered by `sequence`.
    #[must_use]
    pub fn new(limits: SealLimits, sequence: SealSequence) -> Arc<SealQueue> {
        Arc::new(SealQueue {
            limits,
            state: Mutex::new(State {
                buffer: OpenBuffer::default(),
                next: sequence.next,
                last_cut: sequence.last_staged,
                sequence,
                journaled_through: 0,
                unjournaled_rows: 0,
                wanted: None,
                room_wanted: None,
                closed: false,
            }),
            changed: Condvar::new(),
        })
    }

    /// Appends the rows of one request, whole; answers the seal that they will be in. `journaled` is their sequence in the
    /// journal, above all before it, or 0 when they are not there.
    ///
    /// # Errors
    /// [`Closed`] once the server stops; nothing is kept then.
    pub fn push(&self, rows: Rows, journaled: u64) -> Result<SealId, Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        let was_empty = state.buffer.opened().is_none();
        if journaled == 0 {
            state.unjournaled_rows += rows.rows();
        }
        state.buffer.push(rows);
        state.journaled_through = state.journaled_through.max(journaled);
        // The sealer sleeps until the oldest row is due, so only a first row or a full buffer is news to it.
        if was_empty || state.buffer.bytes() >= self.limits.target_bytes {
            self.changed.notify_one();
        }
        Ok(state.next)
    }

    /// Asks for a cut now. Answers with the seal that holds the newest row pushed so far (0 when there is none to wait
    /// for), and with how many rows the cut takes from the buffer.
    pub fn cut_now(&self) -> (SealId, u64) {
        let mut state = self.lock();
        if state.buffer.opened().is_none() {
            return (state.last_cut, 0);
        }
        state.wanted = Some(CutCause::Flush);
        self.changed.notify_one();
        let rows = state
            .buffer
            .amounts()
            .iter()
            .map(|amount| amount.rows)
            .sum();
        (state.next, rows)
    }

    /// Asks for a cut because rows were refused for want of room: in the lake those of the buffer need none in the journal.
    /// Without rows there is nothing to cut, and cuts are not asked for more often than each [`ROOM_CUT_PAUSE`]: while
    /// the lake is away they make no room, and small requests may still fit between large ones that do not.
    pub fn cut_for_room(&self) {
        let mut state = self.lock();
        let is_too_soon = state
            .room_wanted
            .is_some_and(|last| last.elapsed() < ROOM_CUT_PAUSE);
        if state.buffer.opened().is_none() || state.wanted.is_some() || is_too_soon {
            return;
        }
        state.room_wanted = Some(Instant::now());
        state.wanted = Some(CutCause::Room);
        self.changed.notify_one();
    }

    /// Refuses rows from now on; what is buffered is cut as the last seal.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Rows and memory in the open buffer by table, and the age of the oldest row.
    #[must_use]
    pub fn buffered(&self) -> ([Amount; Table::ALL.len()], Duration) {
        let state = self.lock();
        let age = state.buffer.opened().map(|opened| opened.elapsed());
        (state.buffer.amounts(), age.unwrap_or_default())
    }

    /// Rows in the open buffer, and how many of them are in memory alone.
    #[must_use]
    pub fn left(&self) -> (u64, u64) {
        let state = self.lock();
        let amounts = state.buffer.amounts();
        let rows = amounts.iter().map(|amount| amount.rows).sum();
        (rows, state.unjournaled_rows)
    }

    /// Waits for the next seal; `None` once the queue is closed and empty.
    ///
    /// # Errors
    /// An I/O error when the seal's number cannot be made durable; the rows stay in the buffer.
    pub fn next_seal(&self) -> io::Result<Option<Seal>> {
        let mut state = self.lock();
        let cause = loop {
            let Some(opened) = state.buffer.opened() else {
                if state.closed {
                    return Ok(None);
                }
                state = self.wait(state, None);
                continue;
            };
            let age = opened.elapsed();
            if state.closed {
                break CutCause::Stop;
            } else if state.buffer.bytes() >= self.limits.target_bytes {
                break CutCause::Size;
            } else if let Some(wanted) = state.wanted {
                break wanted;
            } else if age >= self.limits.max_age {
                break CutCause::Age;
            }
            state = self.wait(state, Some(self.limits.max_age - age));
        };
        let id = state.next;
        state.sequence.reserve(id)?;
        state.next = id.next();
        state.last_cut = id;
        state.wanted = None;
        let buffer = std::mem::take(&mut state.buffer);
        let journaled_through = std::mem::take(&mut state.journaled_through);
        let unjournaled_rows = std::mem::take(&mut state.unjournaled_rows);
        drop(state);
        let opened_unix_ms = buffer.opened_unix_ms();
        let (tables, reservation) = buffer.into_parts();
        Ok(Some(Seal {
            id,
            cause,
            tables,
            opened_unix_ms,
            sealed_unix_ms: unix_ms(),
            journaled_through,
            unjournaled_rows,
            reservation,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        limit: Option<Duration>,
    ) -> MutexGuard<'s, State> {
        match limit {
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.changed
                    .wait_timeout(state, limit)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        }
    }

    /// How long the sealer may sleep before it looks again. For tests of the timing.
    #[must_use]
    pub fn limits(&self) -> SealLimits {
        self.limits
    }
}

/// Numbers the seals of one data folder, over restarts too.
///
/// Numbers are reserved in blocks: the file says from where the next run has to count, so that one small synced write
/// is paid every [`SealSequence::BLOCK`] seals and a restart leaves a gap, never a number used twice.
#[derive(Debug)]
pub struct SealSequence {
    disk: Arc<dyn Disk>,
    file: PathBuf,
    next: SealId,
    reserved: SealId,
    last_staged: SealId,
}

impl SealSequence {
    const BLOCK: u64 = 1000;

    /// Reads where to go on; a missing file begins at 1. `last_staged` is the newest seal that
    /// the last run left staged, 0 if none.
    ///
    /// # Errors
    /// Any I/O error, and `InvalidData` when the file holds no number.
    pub fn open(
        disk: &Arc<dyn Disk>,
        file: &Path,
        last_staged: SealId,
    ) -> io::Result<SealSequence> {
        let stored = match disk.read(file) {
            Ok(text) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} holds no seal number", file.display()),
                    )
                })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error),
        };
        let next = SealId(stored.max(last_staged.0 + 1));
        Ok(SealSequence {
            disk: Arc::clone(disk),
            file: file.to_owned(),
            next,
            reserved: next,
            last_staged,
        })
    }

    /// Numbers the next seal above `last`, whatever the file said.
    #[must_use]
    pub fn after(mut self, last: SealId) -> SealSequence {
        self.next = self.next.max(last.next());
        self.reserved = self.reserved.max(self.next);
        self
    }

    /// The number of the next seal.
    #[must_use]
    pub fn next(&self) -> SealId {
        self.next
    }

    /// Makes sure that no later run uses `id`.
    fn reserve(&mut self, id: SealId) -> io::Result<()> {
        if id >= self.reserved {
            let reserved = SealId(id.0 + SealSequence::BLOCK);
            let text = reserved.0.to_string();
            self.disk.write_synced(&self.file, text.as_bytes())?;
            self.reserved = reserved;
        }
        Ok(())
    }
}
