//! The contents of a regular file: pages in memory over an optional host file.
//!
//! One type serves tmpfs and memfd (no host file), the overlay (a host file that is only read; pages
//! written stay here) and passed-through directories (writes go to the host, pages cache what is
//! mapped). Neighbours: `mm` maps it, `tmpfs` and `hostfs` read and write it.
//!
//! Invariants: a clean page equals the host file's; a dirty one is charged to the quota. Lock order:
//! an address space may be locked when the state's lock is taken, never the reverse, so no guest
//! memory is touched and no mapping revoked under it.

mod cache;
mod holes;
mod lower;
#[cfg(test)]
mod tests;
mod through;

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

pub use self::{
    cache::{Caches, Handles},
    lower::Lower,
};
use super::buf::{Sink, Source};
use crate::{
    error::Errno,
    frames::{Frame, Frames},
    host::{HostFile, MAX_PARTS},
    mm::{
        object::{Mappers, MemObject, PageError},
        store::Quota,
    },
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE},
};

const PAGE: usize = 4096;
const ZERO: [u8; PAGE] = [0; PAGE];
/// Most bytes read from the host at once.
const RUN: u64 = 128 << 10;
/// Largest file (MAX_LFS_FILESIZE).
pub const MAX_SIZE: u64 = i64::MAX.cast_unsigned();

struct Page {
    frame: Frame,
    dirty: bool,
}

struct State {
    size: u64,
    /// Bytes of the host file that are visible where no page hides them.
    lower_len: u64,
    pages: BTreeMap<u64, Page>,
    /// Dirty pages.
    dirty: u64,
    /// What a passed-through host file looked like when its pages were last known to be right.
    version: Option<(Duration, Duration, u64)>,
    /// Writes to a passed-through host file: under way, and done.
    writing: u32,
    edits: u64,
}

/// What an open description is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It may write.
    Writes,
    /// It is a program, open as long as anybody runs it.
    Executes,
}

/// A regular file's contents.
pub struct Body {
    id: u64,
    frames: Arc<Frames>,
    quota: Option<Arc<Quota>>,
    caches: Option<Arc<Caches>>,
    lower: Option<Lower>,
    through: bool,
    state: Mutex<State>,
    mappers: Mappers,
    seals: AtomicU32,
    open_writers: AtomicU32,
    programs: AtomicU32,
    writers: Mutex<()>,
}

/// Where pages come from and are charged to.
#[derive(Clone)]
pub struct Pool {
    /// Physical memory.
    pub frames: Arc<Frames>,
    /// What written pages are charged to.
    pub quota: Option<Arc<Quota>>,
    /// Where clean pages are listed so that they can be evicted.
    pub caches: Option<Arc<Caches>>,
}

impl Body {
    /// An empty file; `id` is unique in the VM (`Kernel::fresh_id`).
    #[must_use]
    pub fn new(id: u64, pool: &Pool) -> Arc<Body> {
        Body::make(id, pool, None, false, 0)
    }
    /// A file over a host file of `size` bytes, which is never written.
    #[must_use]
    pub fn over(id: u64, pool: &Pool, lower: Lower, size: u64) -> Arc<Body> {
        Body::make(id, pool, Some(lower), false, size)
    }
    /// A host file of `size` bytes, written through.
    #[must_use]
    pub fn through(id: u64, pool: &Pool, lower: Lower, size: u64) -> Arc<Body> {
        Body::make(id, pool, Some(lower), true, size)
    }
    fn make(id: u64, pool: &Pool, lower: Option<Lower>, through: bool, size: u64) -> Arc<Body> {
        let over = lower.is_some();
        let body = Arc::new(Body {
            id,
            frames: pool.frames.clone(),
            quota: if through { None } else { pool.quota.clone() },
            caches: pool.caches.clone(),
            lower,
            through,
            state: Mutex::new(State {
                size,
                lower_len: size,
                pages: BTreeMap::new(),
                dirty: 0,
                version: None,
                writing: 0,
                edits: 0,
            }),
            mappers: Mappers::default(),
            // Only memfd_create(2) makes files that can be sealed.
            seals: AtomicU32::new(super::tmpfs::file::seal::SEAL),
            open_writers: AtomicU32::new(0),
            programs: AtomicU32::new(0),
            writers: Mutex::new(()),
        });
        if over && let Some(caches) = &pool.caches {
            caches.add(&body);
        }
        body
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The host file below.
    #[must_use]
    pub fn lower(&self) -> Option<&Lower> {
        self.lower.as_ref()
    }
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.state().size
    }
    /// 512-byte blocks that hold data; `lower` are those of the host file.
    #[must_use]
    pub fn blocks(&self, lower: u64) -> u64 {
        let state = self.state();
        if state.dirty == 0 && state.lower_len == state.size && self.lower.is_some() {
            return lower;
        }
        state.dirty * 8 + state.lower_len.div_ceil(PAGE_SIZE).min(lower.div_ceil(8)) * 8
    }
    /// memfd_create(2) seals (F_SEAL_*).
    pub fn seals(&self) -> u32 {
        self.seals.load(Ordering::Relaxed)
    }
    /// Sets the seals of a file that nobody else knows yet.
    pub fn set_seals(&self, seals: u32) {
        self.seals.store(seals, Ordering::Relaxed);
    }
    /// Adds seals.
    pub fn add_seals(&self, seals: u32) {
        self.seals.fetch_or(seals, Ordering::Relaxed);
    }
    /// Open descriptions that may write, and those that are programs: each kind keeps the other out
    /// (ETXTBSY).
    #[must_use]
    pub fn users(&self, kind: Use) -> &AtomicU32 {
        match kind {
            Use::Writes => &self.open_writers,
            Use::Executes => &self.programs,
        }
    }
    /// Somebody uses it so.
    #[must_use]
    pub fn is_used(&self, kind: Use) -> bool {
        self.users(kind).load(Ordering::Relaxed) > 0
    }
    /// Held while a write chooses its place and is done: appends do not overlap. An address space
    /// may be locked under it, never the reverse.
    pub fn writing(&self) -> MutexGuard<'_, ()> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn handle(&self) -> Result<Arc<dyn HostFile>, Errno> {
        self.lower.as_ref().ok_or(Errno::EIO)?.handle()
    }
    fn alloc(&self) -> Result<Frame, Errno> {
        if let Some(frame) = self.frames.alloc() {
            return Ok(frame);
        }
        if let Some(caches) = &self.caches
            && caches.shrink(256) > 0
            && let Some(frame) = self.frames.alloc()
        {
            return Ok(frame);
        }
        Err(Errno::ENOMEM)
    }
    /// Marks a page dirty, charging it.
    fn dirty(&self, state: &mut State, index: u64) -> Result<Frame, Errno> {
        let page = state.pages.get_mut(&index).ok_or(Errno::EIO)?;
        if !page.dirty {
            if self.quota.as_ref().is_some_and(|q| !q.charge()) {
                return Err(Errno::ENOSPC);
            }
            page.dirty = true;
            state.dirty += 1;
        }
        Ok(page.frame.clone())
    }
    /// The frame of page `index`, read from the host if it lies there. The page need not lie within
    /// the file (a write will extend it).
    fn fetch(&self, index: u64, write: bool) -> Result<Frame, Errno> {
        loop {
            let (visible, since) = {
                let mut state = self.state();
                if let Some(page) = state.pages.get(&index) {
                    let frame = page.frame.clone();
                    return if write { self.dirty(&mut state, index) } else { Ok(frame) };
                }
                (state.lower_len, (state.writing == 0).then_some(state.edits))
            };
            if since.is_none() {
                // A write to the host is under way: what it changes must not be missed.
                std::thread::yield_now();
                continue;
            }
            let frame = self.alloc()?;
            let start = index << PAGE_SHIFT;
            let want = visible.saturating_sub(start).min(PAGE_SIZE).size();
            if want > 0 {
                let handle = self.handle()?;
                let mut done = 0;
                while done < want {
                    let all = frame.bytes();
                    let rest = all.subslice(done, want - done).map_err(|_| Errno::EIO)?;
                    match handle.read_into(rest, start + done as u64)? {
                        0 => break,
                        n => done += n,
                    }
                }
            }
            let mut state = self.state();
            // A page appeared, or the file was cut, while the host was asked: look again.
            let changed = state.lower_len != visible || since != Some(state.edits);
            if state.pages.contains_key(&index) || state.writing > 0 || (want > 0 && changed) {
                continue;
            }
            let dirty = self.lower.is_none();
            if dirty && self.quota.as_ref().is_some_and(|q| !q.charge()) {
                return Err(Errno::ENOSPC);
            }
            state.dirty += u64::from(dirty);
            state.pages.insert(index, Page { frame: frame.clone(), dirty });
            let result = if write { self.dirty(&mut state, index) } else { Ok(frame) };
            if result.is_err() {
                state.pages.remove(&index);
            }
            return result;
        }
    }

    /// Reads the first pages of `[from, last)` that are not there yet and lie in a row, at once; where to go on.
    fn read_ahead(&self, from: u64, last: u64) -> Result<u64, Errno> {
        let (run, visible, edits) = {
            let state = self.state();
            let end = state.lower_len.div_ceil(PAGE_SIZE).min(last);
            let absent = |at: &u64| !state.pages.contains_key(at);
            let Some(first) = (from..end).find(absent).filter(|_| state.writing == 0) else {
                return Ok(last);
            };
            let past = (first..end).find(|at| !absent(at)).unwrap_or(end);
            (first..past, state.lower_len, state.edits)
        };
        let frames = run.clone().map(|_| self.alloc()).collect::<Result<Vec<Frame>, Errno>>()?;
        // What lies past the visible end must read as zero, whatever the host has there.
        let wanted = |index: u64| visible.saturating_sub(index << PAGE_SHIFT).min(PAGE_SIZE);
        let mut parts = Vec::with_capacity(frames.len());
        for (index, frame) in run.clone().zip(&frames) {
            let part = frame.bytes().subslice(0, wanted(index).size());
            parts.push(part.map_err(|_| Errno::EIO)?);
        }
        let start = run.start << PAGE_SHIFT;
        let read = self.handle()?.read_parts(&parts, start)? as u64;
        let mut state = self.state();
        // The file was written to or cut while the host was asked.
        if state.lower_len != visible || state.edits != edits || state.writing > 0 {
            return Ok(last);
        }
        for (index, frame) in run.clone().zip(&frames) {
            if (index << PAGE_SHIFT) + wanted(index) > start + read {
                // A short read: not ahead, then.
                return Ok(last);
            }
            let page = Page { frame: frame.clone(), dirty: false };
            state.pages.entry(index).or_insert(page);
        }
        Ok(run.end)
    }

    /// pread(2): until the end of the file, the buffer's end, or a fault; the count.
    ///
    /// # Errors
    /// EFAULT or the host's errno if nothing could be read.
    pub fn read_at(&self, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        let mut buffer = Vec::new();
        while dst.left() > 0 {
            let at = offset.saturating_add(done as u64);
            match self.read_step(dst, at, &mut buffer) {
                Ok((0, _)) => break,
                Ok((n, whole)) => {
                    done += n;
                    if !whole {
                        break;
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    /// Copies one run; the count, and whether all of it could be stored.
    fn read_step(
        &self,
        dst: &mut Sink<'_>,
        at: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(usize, bool), Errno> {
        let index = at >> PAGE_SHIFT;
        let within = (at % PAGE_SIZE).size();
        let room = dst.left();
        let (frame, run) = {
            let state = self.state();
            let left = state.size.saturating_sub(at);
            if left == 0 {
                return Ok((0, true));
            }
            match state.pages.get(&index) {
                Some(page) => (Some(page.frame.clone()), left.min(PAGE_SIZE - at % PAGE_SIZE)),
                None => {
                    let next = state.pages.range(index..).next().map(|(i, _)| *i << PAGE_SHIFT);
                    let mut run = left.min(next.unwrap_or(u64::MAX) - at).min(RUN);
                    if at < state.lower_len {
                        run = run.min(state.lower_len - at);
                        (None, run)
                    } else {
                        let want = run.size().min(room).min(PAGE);
                        drop(state);
                        return dst.put(&ZERO[..want]).map(|n| (n, n == want));
                    }
                }
            }
        };
        let want = run.size().min(room);
        if let Some(frame) = frame {
            let mut page = [0; PAGE];
            frame.read(within, &mut page[..want]);
            return dst.put(&page[..want]).map(|n| (n, n == want));
        }
        buffer.resize(want, 0);
        let got = self.handle()?.read_at(&mut buffer[..want], at)?;
        dst.put(&buffer[..got]).map(|n| (n, n == got && got > 0))
    }
    /// pwrite(2), growing the file up to `limit`; the count.
    ///
    /// # Errors
    /// EFAULT, ENOSPC, EFBIG or the host's errno if nothing could be written.
    pub fn write_at(&self, src: &mut Source<'_>, offset: u64, limit: u64) -> Result<usize, Errno> {
        if src.left() == 0 {
            return Ok(0);
        }
        let limit = limit.min(MAX_SIZE);
        if offset >= limit {
            return Err(Errno::EFBIG);
        }
        let mut done = 0;
        let mut buffer = vec![0; if self.through { src.left().min(64 << 10) } else { PAGE }];
        while src.left() > 0 {
            let at = offset + done as u64;
            let cap = (limit - at).size();
            let step = if self.through {
                self.write_through(src, at, cap, &mut buffer)
            } else {
                self.write_page(src, at, cap, &mut buffer)
            };
            match step {
                Ok((n, whole)) => {
                    done += n;
                    if !whole || n == 0 {
                        break;
                    }
                }
                Err(errno) if done == 0 => {
                    return Err(if errno == Errno::ENOMEM { Errno::ENOSPC } else { errno });
                }
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn write_page(
        &self,
        src: &mut Source<'_>,
        at: u64,
        cap: usize,
        buffer: &mut [u8],
    ) -> Result<(usize, bool), Errno> {
        let within = (at % PAGE_SIZE).size();
        let want = (PAGE - within).min(src.left()).min(cap);
        let got = src.take(&mut buffer[..want])?;
        let frame = self.fetch(at >> PAGE_SHIFT, true)?;
        let mut state = self.state();
        frame.write(within, &buffer[..got]);
        state.size = state.size.max(at + got as u64);
        Ok((got, got == want))
    }
    fn take_pages(&self, state: &mut State, first: u64, last: u64) -> Vec<Frame> {
        if first >= last {
            return Vec::new();
        }
        let mut upper = state.pages.split_off(&first);
        let mut rest = upper.split_off(&last);
        state.pages.append(&mut rest);
        let dirty = upper.values().filter(|p| p.dirty).count() as u64;
        state.dirty -= dirty;
        if let Some(quota) = &self.quota {
            quota.refund(dirty);
        }
        upper.into_values().map(|p| p.frame).collect()
    }
    /// ftruncate(2). Every mapping of pages past the end is revoked before this returns.
    ///
    /// # Errors
    /// EFBIG, ENOSPC, or the host's errno.
    pub fn set_size(&self, size: u64) -> Result<(), Errno> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if self.through {
            let handle = self.handle()?;
            return self.edit(|| {
                handle.set_len(size)?;
                self.resize(size);
                Ok(())
            });
        }
        self.resize(size);
        Ok(())
    }
    fn resize(&self, size: u64) {
        let first = size.div_ceil(PAGE_SIZE);
        let cut = {
            let mut state = self.state();
            let shrinks = size < state.size;
            state.size = size;
            state.lower_len = if self.through { size } else { state.lower_len.min(size) };
            // The cut page must read as zero past the end if the file grows again.
            if !size.is_multiple_of(PAGE_SIZE)
                && let Some(page) = state.pages.get(&(size >> PAGE_SHIFT))
            {
                let from = (size % PAGE_SIZE).size();
                page.frame.write(from, &ZERO[from..]);
            }
            if !shrinks {
                return;
            }
            self.take_pages(&mut state, first, u64::MAX)
        };
        self.mappers.invalidate(self.id, first, u64::MAX);
        drop(cut);
    }
}

impl MemObject for Body {
    fn id(&self) -> u64 {
        self.id
    }
    fn page(&self, index: u64, write: bool) -> Result<Frame, PageError> {
        if index >= self.state().size.div_ceil(PAGE_SIZE) {
            return Err(PageError::PastEnd);
        }
        self.fetch(index, write).map_err(|errno| match errno {
            Errno::ENOMEM => PageError::NoMemory,
            _ => PageError::Io,
        })
    }
    fn resident(&self, index: u64) -> Option<Frame> {
        let state = self.state();
        if index >= state.size.div_ceil(PAGE_SIZE) {
            return None;
        }
        state.pages.get(&index).map(|p| p.frame.clone())
    }
    fn prefetch(&self, index: u64, count: u64) {
        if self.lower.is_none() {
            return;
        }
        let last = index.saturating_add(count.min(MAX_PARTS as u64));
        let mut at = index;
        while at < last {
            match self.read_ahead(at, last) {
                Ok(next) => at = next,
                // A hint: whoever needs a page is told what is wrong with it.
                Err(_) => break,
            }
        }
    }
    fn tracks_writes(&self) -> bool {
        self.lower.is_some()
    }
    fn punch(&self, first: u64, last: u64) -> bool {
        let len = last.saturating_sub(first) << PAGE_SHIFT;
        !self.through && Body::punch(self, first << PAGE_SHIFT, len).is_ok()
    }
    fn sync(&self, first: u64, last: u64) {
        // msync(2) reports through fsync; a host refusal here has nobody to hear it.
        let _ = self.write_back(first, last);
    }
    fn mappers(&self) -> &Mappers {
        &self.mappers
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let _ = self.write_back(0, u64::MAX);
        if let Some(quota) = &self.quota {
            quota.refund(self.state().dirty);
        }
    }
}
