//! A disk in memory that keeps apart what processes see and what a power loss leaves, and fails when it is told to.
//!
//! | | processes see | survives [`FaultyDisk::crash`] |
//! |---|---|---|
//! | content | every write | what was synced, and any of the pages written since |
//! | a sync that failed | every write, or what is on the disk | what got there; no later sync writes the rest |
//! | names | every create, rename, remove | what [`Disk::sync_dir`] followed, and any of those since |
//! | cutting a file | at once | as its file system's journal orders it: what was written after it is not there without it |
//!
//! Everything random comes from the seed, so a test that failed fails again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otlake::disk::{Disk, DiskFile, DiskRead};

use super::faulty_file::{Inode, Random, Survivors};

/// What is done to the disk; reading is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    Write,
    Sync,
    SetLen,
    Rename,
    Remove,
    MakeDir,
    SyncDir,
    /// Opening a file or listing a folder. Can be made to fail; is not counted.
    Read,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

/// A change of names that no `sync_dir` followed.
#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, Node),
    Rename(PathBuf, PathBuf, Node),
    Remove(PathBuf),
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            NameChange::Add(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to, _) => [from, to].map(|p| p.parent()).contains(&Some(dir)),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Add(path, node) => drop(names.insert(path, node)),
            NameChange::Remove(path) => drop(names.remove(&path)),
            NameChange::Rename(from, to, node) => {
                names.remove(&from);
                names.insert(to, node);
            }
        }
    }
}

struct State {
    random: Random,
    inodes: Vec<Inode>,
    /// As processes see them.
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<NameChange>,
    capacity: u64,
    /// What `free_bytes` says instead of the truth.
    claimed_free: Option<u64>,
    has_short_writes: bool,
    /// Operations that are to fail: after so many more of their kind.
    faults: Vec<(Op, u64, io::ErrorKind)>,
    ops: u64,
    crash_at: u64,
    is_down: bool,
    log: Vec<(Op, PathBuf)>,
}

fn power_lost() -> io::Error {
    io::Error::other("the power is gone")
}

impl FaultyDisk {
    /// An empty disk with the folder `root`.
    pub fn new(seed: u64, root: &Path) -> FaultyDisk {
        let names: BTreeMap<PathBuf, Node> = root
            .ancestors()
            .map(|dir| (dir.to_owned(), Node::Dir))
            .collect();
        let state = State {
            random: Random::new(seed),
            inodes: Vec::new(),
            durable: names.clone(),
            names,
            pending: Vec::new(),
            capacity: 1 << 40,
            claimed_free: None,
            has_short_writes: false,
            faults: Vec::new(),
            ops: 0,
            crash_at: u64::MAX,
            is_down: false,
            log: Vec::new(),
        };
        FaultyDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Lets the disk fail for ever at its `n`-th operation from now on, counted from 1: that one is done or not, the later
    /// ones are not.
    pub fn crash_at(&self, n: u64) {
        let mut state = self.lock();
        state.crash_at = state.ops.saturating_add(n);
    }

    /// Lets everything fail from now on.
    pub fn go_down(&self) {
        self.lock().is_down = true;
    }

    /// Whether the operation to crash at has come.
    pub fn is_down(&self) -> bool {
        self.lock().is_down
    }

    /// The power was lost and is back: what was not synced is there, or not, or in part.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        state.random = Random::new(seed);
        state.lose_unsynced();
        state.restart();
    }

    /// The process was killed and the system was not: all it wrote is there, synced or not.
    pub fn restart(&self) {
        self.lock().restart();
    }

    /// Lets the operation of this kind fail that comes after `skipped` others of it.
    pub fn fail(&self, op: Op, skipped: u64, error: io::ErrorKind) {
        self.lock().faults.push((op, skipped, error));
    }

    /// Whether anything is to fail, or space is short.
    pub fn has_faults(&self) -> bool {
        let state = self.lock();
        !state.faults.is_empty() || state.capacity < 1 << 40 || state.crash_at < u64::MAX
    }

    /// Forgets what was to fail.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.capacity = 1 << 40;
        state.claimed_free = None;
        state.has_short_writes = false;
    }

    /// Bytes that all files may take.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// What the system says is free, whatever is.
    pub fn claim_free(&self, bytes: u64) {
        self.lock().claimed_free = Some(bytes);
    }

    /// Lets every write write a part, as long as it is not a byte.
    pub fn write_short(&self) {
        self.lock().has_short_writes = true;
    }

    /// Operations so far.
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// Bytes that all files take.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// The operations so far.
    pub fn log(&self) -> Vec<(Op, PathBuf)> {
        self.lock().log.clone()
    }

    /// A file's content, as processes see it.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.read(path).unwrap()
    }

    /// Puts a file there, durably, as if it had always been there.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let mut state = self.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode::durable(content.to_vec()));
        state.names.insert(path.to_owned(), Node::File(inode));
        state.durable.insert(path.to_owned(), Node::File(inode));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation, and does it unless it is to fail.
    fn perform<T>(
        &mut self,
        op: Op,
        path: &Path,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_down {
            return Err(power_lost());
        }
        self.ops += 1;
        self.log.push((op, path.to_owned()));
        if self.ops >= self.crash_at {
            self.is_down = true;
            if self.random.coin() {
                let _ = effect(self);
            }
            return Err(power_lost());
        }
        self.fault(op)?;
        effect(self)
    }

    fn fault(&mut self, op: Op) -> io::Result<()> {
        let mut failed = None;
        for (place, (of, skipped, error)) in self.faults.iter_mut().enumerate() {
            if *of == op && *skipped == 0 {
                failed = Some((place, *error));
            } else if *of == op {
                *skipped -= 1;
            }
        }
        let Some((place, error)) = failed else {
            return Ok(());
        };
        self.faults.remove(place);
        Err(io::Error::new(error, "as the test wants it"))
    }

    fn reading(&mut self) -> io::Result<()> {
        if self.is_down {
            return Err(power_lost());
        }
        self.fault(Op::Read)
    }

    fn lose_unsynced(&mut self) {
        for inode in &mut self.inodes {
            inode.crash(&mut self.random);
        }
        let pending = std::mem::take(&mut self.pending);
        let survivors = Survivors::new(&mut self.random, pending.len());
        for (place, change) in pending.into_iter().enumerate() {
            if survivors.has(place, &mut self.random) {
                change.apply(&mut self.durable);
            }
        }
        // A file whose folder is lost is lost.
        let has_folder = |path: &PathBuf| {
            path.ancestors()
                .skip(1)
                .all(|dir| self.durable.get(dir) == Some(&Node::Dir))
        };
        self.names = self.durable.clone();
        self.names.retain(|path, _| has_folder(path));
        self.durable = self.names.clone();
    }

    fn restart(&mut self) {
        self.is_down = false;
        self.crash_at = u64::MAX;
        self.faults.clear();
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|node| match node {
            Node::File(inode) => Some(self.inodes[*inode].len()),
            Node::Dir => None,
        });
        files.sum()
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|dir| self.names.get(dir)) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        self.check_parent(path)?;
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending.push(change);
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        match self.file(path) {
            Ok(inode) => {
                self.inodes[inode].set_len(0);
                Ok(inode)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_parent(path)?;
                let inode = self.inodes.len();
                self.inodes.push(Inode::default());
                self.change(NameChange::Add(path.to_owned(), Node::File(inode)));
                Ok(inode)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, inode: usize, at: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut len = bytes.len();
        if self.has_short_writes && len > 0 {
            len = 1 + self.random.below(len as u64) as usize;
        }
        // What is written over takes no new room.
        let old = self.inodes[inode].len().saturating_sub(at as u64);
        let room = self
            .capacity
            .saturating_sub(self.used())
            .saturating_add(old);
        len = len.min(usize::try_from(room).unwrap_or(usize::MAX));
        if len == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inodes[inode].write(at, &bytes[..len]);
        Ok(len)
    }

    fn sync(&mut self, path: &Path, inode: usize) -> io::Result<()> {
        let synced = self.perform(Op::Sync, path, |state| {
            state.inodes[inode].sync();
            Ok(())
        });
        if synced.is_err() && !self.is_down {
            self.inodes[inode].fail_sync(&mut self.random);
        }
        synced
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").finish_non_exhaustive()
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self
            .lock()
            .perform(Op::Create, path, |state| state.create(path))?;
        Ok(Box::new(self.handle(path, inode)))
    }

    fn overwrite(&self, path: &Path) -> io::Result<(Box<dyn DiskFile>, u64)> {
        let mut state = self.lock();
        state.reading()?;
        let inode = state.file(path)?;
        let len = state.inodes[inode].len();
        drop(state);
        Ok((Box::new(self.handle(path, inode)), len))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        let mut state = self.lock();
        state.reading()?;
        let inode = state.file(path)?;
        drop(state);
        Ok(Box::new(self.handle(path, inode)))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.file(path)?;
        state.perform(Op::SetLen, path, |state| {
            state.inodes[inode].set_len(len as usize);
            Ok(())
        })?;
        state.sync(path, inode)
    }

    fn write_again(&self, path: &Path, from: u64) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.file(path)?;
        state.perform(Op::Write, path, |state| {
            state.inodes[inode].write_again(from as usize);
            Ok(())
        })?;
        state.sync(path, inode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().perform(Op::Rename, from, |state| {
            let node = Node::File(state.file(from)?);
            state.check_parent(to)?;
            state.change(NameChange::Rename(from.to_owned(), to.to_owned(), node));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.lock().perform(Op::Remove, path, |state| {
            state.file(path)?;
            state.change(NameChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let mut missing: Vec<&Path> = dir
            .ancestors()
            .take_while(|dir| !state.names.contains_key(*dir))
            .collect();
        while let Some(dir) = missing.pop() {
            state.perform(Op::MakeDir, dir, |state| {
                state.change(NameChange::Add(dir.to_owned(), Node::Dir));
                Ok(())
            })?;
        }
        match state.names.get(dir) {
            _ if state.is_down => Err(power_lost()),
            Some(Node::Dir) => Ok(()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let below: Vec<PathBuf> = state
            .names
            .keys()
            .filter(|path| path.starts_with(dir))
            .cloned()
            .collect();
        // What is inside goes first.
        for path in below.into_iter().rev() {
            state.perform(Op::Remove, &path, |state| {
                state.change(NameChange::Remove(path.clone()));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.lock();
        state.reading()?;
        match state.names.get(dir) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let is_in = |path: &&PathBuf| path.parent() == Some(dir);
        Ok(state.names.keys().filter(is_in).cloned().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().perform(Op::SyncDir, dir, |state| {
            let pending = std::mem::take(&mut state.pending);
            for change in pending {
                if change.is_in(dir) {
                    change.apply(&mut state.durable);
                } else {
                    state.pending.push(change);
                }
            }
            Ok(())
        })
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.lock();
        let free = state.capacity.saturating_sub(state.used());
        Ok(state.claimed_free.unwrap_or(free))
    }
}

struct Handle {
    disk: FaultyDisk,
    path: PathBuf,
    inode: usize,
    /// Where the next write goes.
    at: usize,
}

impl FaultyDisk {
    fn handle(&self, path: &Path, inode: usize) -> Handle {
        Handle {
            disk: self.clone(),
            path: path.to_owned(),
            inode,
            at: 0,
        }
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (inode, at) = (self.inode, self.at);
        let mut state = self.disk.lock();
        let written =
            state.perform(Op::Write, &self.path, |state| state.write(inode, at, bytes))?;
        drop(state);
        self.at += written;
        Ok(written)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.write(&bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Handle {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.lock().sync(&self.path, self.inode)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let inode = self.inode;
        let mut state = self.disk.lock();
        state.perform(Op::SetLen, &self.path, |state| {
            state.inodes[inode].set_len(len as usize);
            Ok(())
        })?;
        drop(state);
        self.at = len as usize;
        Ok(())
    }
}

impl DiskRead for Handle {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.reading()?;
        Ok(state.inodes[self.inode].len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.reading()?;
        let content = state.inodes[self.inode].content();
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = begin
            .checked_add(buffer.len())
            .and_then(|end| content.get(begin..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}
