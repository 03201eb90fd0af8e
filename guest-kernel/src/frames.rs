//! Physical memory: one sparse region of guest-physical addresses cut into 4 KiB frames, each with
//! an owner count.
//!
//! The host commits a frame when it is first touched and takes it back on [`Backing::discard`].
//! Frames are handed out zeroed. A block of 512 frames (2 MiB, aligned) is the unit of contiguity,
//! so that page tables may use large entries. Neighbours: `mm` owns most frames, `fs` the page
//! caches, platforms their page tables.
//!
//! Invariant: a frame's count drops to zero only after every translation to it was revoked.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};
use zerocopy::FromZeros;

use crate::platform::{Gpa, PAGE_SHIFT, PAGE_SIZE};

/// Frames in a block.
pub const BLOCK_FRAMES: usize = 512;
const WORDS: usize = BLOCK_FRAMES / 64;
/// Free blocks whose host memory is kept for quick reuse (2 MiB each).
const WARM_BLOCKS: usize = 32;

/// The host side of the region.
pub trait Backing: Send + Sync {
    /// Gives the host memory behind `[gpa, gpa+len)` back; it reads as zero afterwards. Nothing
    /// maps it in any guest.
    fn discard(&self, gpa: Gpa, len: u64);
    /// A hint that the monitor is about to store to all of `[gpa, gpa+len)`.
    fn commit(&self, gpa: Gpa, len: u64) {
        let _ = (gpa, len);
    }
}

/// Someone who holds frames that could be had again (a page cache).
pub trait Shrink: Send + Sync {
    /// Gives up to `want` frames back; how many. It is called wherever a frame is allocated, so
    /// it takes only locks that are free now (`try_lock`) and frames that nobody maps.
    fn shrink(&self, want: usize) -> usize;
}

#[derive(Clone)]
struct Block {
    /// Bit set: the frame is free.
    free: [u64; WORDS],
    /// Bit set: the frame was handed out since the host last zeroed it.
    dirty: [u64; WORDS],
    count: usize,
    /// The monitor has stored to all of it since the host last zeroed it.
    mapped: bool,
}

struct Pool {
    blocks: Vec<Block>,
    /// Blocks with some free frames, most recently used last; may hold stale entries.
    partial: Vec<usize>,
    /// Entirely free blocks, host memory perhaps still committed.
    warm: Vec<usize>,
    /// Entirely free blocks that cost the host nothing.
    cold: Vec<usize>,
    /// The same, but held back (see [`Frames::hold_back`]).
    held: Vec<usize>,
    free: usize,
}

/// The VM's physical memory.
pub struct Frames {
    memory: Arc<GuestMemoryMmap<()>>,
    backing: Box<dyn Backing>,
    base: u64,
    counts: Vec<AtomicU32>,
    pool: Mutex<Pool>,
    peak: AtomicU64,
    shrinkers: Mutex<Vec<Weak<dyn Shrink>>>,
    grow: OnceLock<Grow>,
}

/// Makes the rest of the region usable; false if that fails.
pub type Grow = Box<dyn Fn() -> bool + Send + Sync>;

impl Frames {
    /// Takes charge of the region `[base, base+len)` of `memory`, both multiples of 2 MiB.
    #[must_use]
    pub fn new(
        memory: Arc<GuestMemoryMmap<()>>,
        base: Gpa,
        len: u64,
        backing: Box<dyn Backing>,
    ) -> Arc<Frames> {
        let blocks = usize::try_from(len >> PAGE_SHIFT).unwrap_or(0) / BLOCK_FRAMES;
        let block = Block {
            free: [u64::MAX; WORDS],
            dirty: [0; WORDS],
            count: BLOCK_FRAMES,
            mapped: false,
        };
        // Zeroed memory straight from the host: touching a word a page would cost milliseconds at start.
        let counts = AtomicU32::new_vec_zeroed(blocks * BLOCK_FRAMES)
            .unwrap_or_else(|_| panic!("no memory for the counts of {blocks} blocks"));
        Arc::new(Frames {
            memory,
            backing,
            base: base.0,
            counts,
            pool: Mutex::new(Pool {
                blocks: vec![block; blocks],
                partial: Vec::new(),
                warm: Vec::new(),
                cold: (0..blocks).rev().collect(),
                held: Vec::new(),
                free: blocks * BLOCK_FRAMES,
            }),
            peak: AtomicU64::new(0),
            shrinkers: Mutex::default(),
            grow: OnceLock::new(),
        })
    }
    /// Keeps back what lies `bytes` and more into the region and was never handed out. When there is nothing else,
    /// `grow` is called, which must not allocate here, and if it agrees all of it is used. Takes effect once.
    pub fn hold_back(&self, bytes: u64, grow: Grow) {
        if self.grow.set(grow).is_err() {
            return;
        }
        let first = usize::try_from(bytes >> PAGE_SHIFT).unwrap_or(usize::MAX) / BLOCK_FRAMES;
        let mut pool = self.pool();
        let cold = std::mem::take(&mut pool.cold);
        (pool.held, pool.cold) = cold.into_iter().partition(|block| *block >= first);
    }
    /// An entirely free block.
    fn fresh(&self, pool: &mut Pool) -> Option<usize> {
        // Zeroing costs a third of what the host wants for memory it has to find.
        let ready = pool.warm.pop().or_else(|| pool.cold.pop());
        if ready.is_some() || pool.held.is_empty() || !self.grow.get().is_some_and(|grow| grow()) {
            return ready;
        }
        pool.cold = std::mem::take(&mut pool.held);
        pool.cold.pop()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn index(&self, gpa: Gpa) -> usize {
        usize::try_from((gpa.0 - self.base) >> PAGE_SHIFT).unwrap_or(usize::MAX)
    }
    fn gpa(&self, index: usize) -> Gpa {
        Gpa(self.base + ((index as u64) << PAGE_SHIFT))
    }

    /// The memory itself, for platforms that map it.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemoryMmap<()>> {
        &self.memory
    }
    /// First guest-physical address of the region.
    #[must_use]
    pub fn base(&self) -> Gpa {
        Gpa(self.base)
    }
    /// Frames in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.counts.len()
    }
    /// Frames not handed out.
    #[must_use]
    pub fn free(&self) -> usize {
        self.pool().free
    }
    /// Most frames that were ever handed out at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Asks `shrinker` for memory when there is none left.
    pub fn add_shrinker(&self, shrinker: Weak<dyn Shrink>) {
        self.shrinkers.lock().unwrap_or_else(PoisonError::into_inner).push(shrinker);
    }
    /// Has the shrinkers free some frames; true if any did.
    fn shrink(&self, want: usize) -> bool {
        let list = self.shrinkers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut freed = 0;
        for shrinker in list.iter().filter_map(Weak::upgrade) {
            freed += shrinker.shrink(want - freed);
            if freed >= want {
                break;
            }
        }
        freed > 0
    }

    /// A zeroed frame, or `None` when memory is exhausted.
    #[must_use]
    pub fn alloc(self: &Arc<Self>) -> Option<Frame> {
        let (gpa, dirty) = self.take()?;
        if dirty {
            self.zero(gpa, 1);
        }
        Some(Frame { frames: self.clone(), gpa })
    }
    /// A frame holding a copy of the one at `from`.
    #[must_use]
    pub fn alloc_copy(self: &Arc<Self>, from: Gpa) -> Option<Frame> {
        let (gpa, _) = self.take()?;
        let frame = Frame { frames: self.clone(), gpa };
        self.slice(from, 4096).copy_to_volatile_slice(frame.bytes());
        Some(frame)
    }
    /// A frame counted once, and whether it may hold old bytes.
    fn take(&self) -> Option<(Gpa, bool)> {
        let found = self.take_free().or_else(|| {
            // Others may be quicker than we are to take what was freed.
            (0..3).find_map(|_| if self.shrink(64) { self.take_free() } else { None })
        });
        let (index, dirty) = found?;
        self.counts[index].store(1, Ordering::Relaxed);
        Some((self.gpa(index), dirty))
    }
    fn take_free(&self) -> Option<(usize, bool)> {
        let mut pool = self.pool();
        let block = loop {
            match pool.partial.last().copied() {
                Some(b) if pool.blocks[b].count > 0 && pool.blocks[b].count < BLOCK_FRAMES => {
                    break b;
                }
                Some(_) => {
                    pool.partial.pop();
                }
                None => {
                    let b = self.fresh(&mut pool)?;
                    pool.partial.push(b);
                    break b;
                }
            }
        };
        let entry = &mut pool.blocks[block];
        let word = entry.free.iter().position(|w| *w != 0)?;
        let bit = entry.free[word].trailing_zeros();
        entry.free[word] &= !(1 << bit);
        let dirty = entry.dirty[word] & (1 << bit) != 0;
        entry.dirty[word] |= 1 << bit;
        entry.count -= 1;
        pool.free -= 1;
        self.note_peak(&pool);
        Some((block * BLOCK_FRAMES + word * 64 + bit as usize, dirty))
    }

    /// An aligned run of [`BLOCK_FRAMES`] zeroed frames, each counted once and owned by the caller
    /// (see [`Frame::from_gpa`]).
    #[must_use]
    pub fn alloc_block(self: &Arc<Self>) -> Option<Gpa> {
        let (block, dirty, mapped) = {
            let mut pool = self.pool();
            let block = self.fresh(&mut pool)?;
            let entry = &mut pool.blocks[block];
            let (dirty, mapped) = (entry.dirty, entry.mapped);
            entry.mapped |= dirty == [u64::MAX; WORDS];
            (entry.free, entry.dirty, entry.count) = ([0; WORDS], [u64::MAX; WORDS], 0);
            pool.free -= BLOCK_FRAMES;
            self.note_peak(&pool);
            (block, dirty, mapped)
        };
        let first = block * BLOCK_FRAMES;
        for count in &self.counts[first..first + BLOCK_FRAMES] {
            count.store(1, Ordering::Relaxed);
        }
        if dirty == [u64::MAX; WORDS] {
            if !mapped {
                self.backing.commit(self.gpa(first), PAGE_SIZE * BLOCK_FRAMES as u64);
            }
            self.zero(self.gpa(first), BLOCK_FRAMES);
            return Some(self.gpa(first));
        }
        for (i, word) in dirty.iter().enumerate() {
            for bit in (0..64).filter(|bit| word & (1 << bit) != 0) {
                self.zero(self.gpa(first + i * 64 + bit), 1);
            }
        }
        Some(self.gpa(first))
    }

    fn note_peak(&self, pool: &Pool) {
        let used = (self.counts.len() - pool.free) as u64;
        self.peak.fetch_max(used, Ordering::Relaxed);
    }

    fn zero(&self, gpa: Gpa, pages: usize) {
        const ZERO: [u8; 4096] = [0; 4096];
        for page in 0..pages as u64 {
            // The region is one mapping that lives as long as `memory`: this cannot fail.
            let _ = self.memory.write_slice(&ZERO, GuestAddress(gpa.0 + page * PAGE_SIZE));
        }
    }

    /// One more owner of the frame at `gpa`, which the caller knows to be owned.
    pub fn retain(&self, gpa: Gpa) {
        self.counts[self.index(gpa)].fetch_add(1, Ordering::Relaxed);
    }
    /// One owner less; the last one frees the frame.
    pub fn release(&self, gpa: Gpa) {
        let index = self.index(gpa);
        let before = self.counts[index].fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "frame {gpa:?} released twice");
        if before == 1 {
            self.free_frame(&mut self.pool(), index);
        }
    }
    /// [`Frames::release`] for many at once.
    pub fn release_all(&self, frames: &[Gpa]) {
        if frames.is_empty() {
            return;
        }
        let mut pool = self.pool();
        for gpa in frames {
            let index = self.index(*gpa);
            let before = self.counts[index].fetch_sub(1, Ordering::AcqRel);
            debug_assert!(before > 0, "frame {gpa:?} released twice");
            if before == 1 {
                self.free_frame(&mut pool, index);
            }
        }
    }
    /// Owners of the frame at `gpa`.
    #[must_use]
    pub fn owners(&self, gpa: Gpa) -> u32 {
        self.counts[self.index(gpa)].load(Ordering::Acquire)
    }

    fn free_frame(&self, pool: &mut Pool, index: usize) {
        let (block, bit) = (index / BLOCK_FRAMES, index % BLOCK_FRAMES);
        let entry = &mut pool.blocks[block];
        entry.free[bit / 64] |= 1 << (bit % 64);
        entry.count += 1;
        let count = entry.count;
        pool.free += 1;
        if count == 1 {
            pool.partial.push(block);
        }
        if count < BLOCK_FRAMES {
            return;
        }
        pool.partial.retain(|b| *b != block);
        if pool.warm.len() < WARM_BLOCKS {
            pool.warm.push(block);
            return;
        }
        // Discarded under the lock: nobody may be handed the block while the host drops it.
        pool.blocks[block].dirty = [0; WORDS];
        pool.blocks[block].mapped = false;
        self.backing.discard(self.gpa(block * BLOCK_FRAMES), PAGE_SIZE * BLOCK_FRAMES as u64);
        pool.cold.push(block);
    }

    /// The frame's bytes, shared with running guests: read once, never twice.
    ///
    /// # Panics
    /// If `gpa` was not handed out by this allocator (our bug).
    #[must_use]
    pub fn slice(&self, gpa: Gpa, len: usize) -> VolatileSlice<'_> {
        self.memory.get_slice(GuestAddress(gpa.0), len).expect("a frame lies inside the region")
    }
}

/// An owned reference to one 4 KiB frame; cloning adds an owner.
pub struct Frame {
    frames: Arc<Frames>,
    gpa: Gpa,
}

impl Frame {
    /// Where it lies.
    #[must_use]
    pub fn gpa(&self) -> Gpa {
        self.gpa
    }
    /// Gives up the handle but not the ownership, to be stored as a bare address.
    #[must_use]
    pub fn into_gpa(self) -> Gpa {
        self.frames.retain(self.gpa);
        self.gpa
    }
    /// Takes back an ownership given up by [`Frame::into_gpa`] or [`Frames::alloc_block`].
    #[must_use]
    pub fn from_gpa(frames: &Arc<Frames>, gpa: Gpa) -> Frame {
        Frame { frames: frames.clone(), gpa }
    }
    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> VolatileSlice<'_> {
        self.frames.slice(self.gpa, 4096)
    }
    /// Copies out of the frame; `offset + dst.len()` is at most a page.
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        let _ = self.bytes().read_slice(dst, offset);
    }
    /// Copies into the frame; `offset + src.len()` is at most a page.
    pub fn write(&self, offset: usize, src: &[u8]) {
        let _ = self.bytes().write_slice(src, offset);
    }
}

impl Clone for Frame {
    fn clone(&self) -> Frame {
        self.frames.retain(self.gpa);
        Frame { frames: self.frames.clone(), gpa: self.gpa }
    }
}
impl Drop for Frame {
    fn drop(&mut self) {
        self.frames.release(self.gpa);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::testing;

    #[test]
    fn what_is_held_back_comes_last_and_only_with_consent() {
        const BLOCK: u64 = PAGE_SIZE * BLOCK_FRAMES as u64;
        let frames = testing::kernel(16).frames.clone();
        let free = frames.free();
        let consent = Arc::new(AtomicBool::new(false));
        let asked = consent.clone();
        frames.hold_back(2 * BLOCK, Box::new(move || asked.load(Ordering::Relaxed)));
        // As much memory as before, but not all of it at hand.
        assert_eq!((frames.free(), frames.total()), (free, 8 * BLOCK_FRAMES));
        let mut taken: Vec<Frame> = std::iter::from_fn(|| frames.alloc()).collect();
        let end = Gpa(frames.base().0 + 2 * BLOCK);
        assert!(!taken.is_empty() && taken.iter().all(|frame| frame.gpa() < end));
        assert!(frames.alloc_block().is_none());
        consent.store(true, Ordering::Relaxed);
        let block = frames.alloc_block().unwrap();
        assert!(block >= end);
        taken.extend(std::iter::from_fn(|| frames.alloc()));
        assert_eq!((taken.len(), frames.free()), (free - BLOCK_FRAMES, 0));
    }
}
