//! One file of a [`super::faulty_disk::FaultyDisk`]: what is in the page cache, and what is on the disk.

/// What a disk writes at once.
const PAGE_BYTES: usize = 512;

/// A small generator, the same on every machine (SplitMix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Which of the changes in a row survive a power loss.
#[derive(Clone, Copy, Debug)]
pub enum Survivors {
    None,
    All,
    First(usize),
    Last(usize),
    Each,
}

impl Survivors {
    pub fn new(random: &mut Random, count: usize) -> Survivors {
        let some = random.below(count as u64 + 1) as usize;
        match random.below(6) {
            0 => Survivors::None,
            1 => Survivors::All,
            2 => Survivors::First(some),
            3 => Survivors::Last(some),
            _ => Survivors::Each,
        }
    }

    pub fn has(self, place: usize, random: &mut Random) -> bool {
        match self {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::First(count) => place < count,
            Survivors::Last(from) => place >= from,
            Survivors::Each => random.coin(),
        }
    }
}

#[derive(Debug)]
enum Change {
    Page(usize, Vec<u8>),
    Len(usize),
}

/// A file's content.
#[derive(Debug, Default)]
pub struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// Written since the last sync, by pages, in order.
    dirty: Vec<Change>,
}

impl Inode {
    pub fn durable(content: Vec<u8>) -> Inode {
        Inode {
            cache: content.clone(),
            disk: content,
            dirty: Vec::new(),
        }
    }

    pub fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    pub fn content(&self) -> &[u8] {
        &self.cache
    }

    pub fn write_again(&mut self, from: usize) {
        let bytes = self.cache.split_off(from.min(self.cache.len()));
        self.write(from, &bytes);
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.cache, offset, bytes);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (page, behind) = rest.split_at(rest.len().min(PAGE_BYTES - at % PAGE_BYTES));
            self.dirty.push(Change::Page(at, page.to_vec()));
            at += page.len();
            rest = behind;
        }
    }

    pub fn set_len(&mut self, len: usize) {
        self.cache.resize(len, 0);
        self.dirty.push(Change::Len(len));
    }

    /// Writes what is dirty. What a failed sync dropped is not dirty any more.
    pub fn sync(&mut self) {
        for change in self.dirty.drain(..) {
            change.apply(&mut self.disk);
        }
        // The length is the inode's, not the pages'.
        self.disk.resize(self.cache.len(), 0);
    }

    /// Writes some of what is dirty, and counts all of it as written, as Linux does. The pages stay in the cache, or are
    /// read from the disk again.
    pub fn fail_sync(&mut self, random: &mut Random) {
        let len = self.cache.len();
        self.write_some(random);
        self.disk.resize(len, 0);
        if random.coin() {
            self.cache.clone_from(&self.disk);
        }
    }

    /// Loses what is dirty, or a part of it.
    pub fn crash(&mut self, random: &mut Random) {
        self.write_some(random);
        self.cache.clone_from(&self.disk);
    }

    fn write_some(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.dirty);
        let is_len = |change: &&Change| matches!(change, Change::Len(_));
        let lens = changes.iter().filter(is_len).count();
        let mut lens_left = random.below(lens as u64 + 1);
        let survivors = Survivors::new(random, changes.len());
        let mut end = self.disk.len();
        for (place, change) in changes.into_iter().enumerate() {
            match &change {
                Change::Len(_) if lens_left == 0 => break,
                Change::Len(len) => {
                    lens_left -= 1;
                    end = *len;
                    change.apply(&mut self.disk);
                }
                Change::Page(offset, bytes) => {
                    end = end.max(offset + bytes.len());
                    if survivors.has(place, random) {
                        change.apply(&mut self.disk);
                    }
                }
            }
        }
        // The new length can be there without the pages.
        if random.coin() {
            self.disk.resize(end, 0);
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Page(offset, bytes) => put(content, *offset, bytes),
            Change::Len(len) => content.resize(*len, 0),
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
