//! A sparse, growable store of pages: anonymous shared memory, SysV segments, memfd and tmpfs files.
//!
//! Holes read as zero and cost nothing. Neighbours: `mm` maps it as a [`MemObject`], file systems
//! read and write it. Lock order: an address space's lock may be held when the store's is taken,
//! never the reverse; so nothing is copied to or from a guest under the store's lock.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::object::{Mappers, MemObject, PageError};
use crate::{
    error::Errno,
    frames::{Frame, Frames},
    fs::buf::{Sink, Source},
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE},
};

const PAGE: usize = 4096;
const ZERO: [u8; PAGE] = [0; PAGE];

/// Pages that several stores may hold together (a tmpfs's size).
pub struct Quota {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Quota {
    /// At most `pages` pages.
    #[must_use]
    pub fn new(pages: u64) -> Arc<Quota> {
        Arc::new(Quota { limit: AtomicU64::new(pages), used: AtomicU64::new(0) })
    }
    /// Pages allowed.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }
    /// Pages held.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
    /// Changes the limit; what is held stays.
    pub fn set_limit(&self, pages: u64) {
        self.limit.store(pages, Ordering::Relaxed);
    }
    /// Takes one page; false if the quota is used up.
    pub fn charge(&self) -> bool {
        let limit = self.limit();
        let more = |used: u64| (used < limit).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
    /// Gives pages back.
    pub fn refund(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
    }
}

struct State {
    pages: BTreeMap<u64, Frame>,
    len: u64,
}

/// Sparse pages with a length in bytes.
pub struct PageStore {
    id: u64,
    frames: Arc<Frames>,
    quota: Option<Arc<Quota>>,
    state: Mutex<State>,
    mappers: Mappers,
}

impl PageStore {
    /// An empty store of `len` bytes; `id` is unique in the VM (`Kernel::fresh_id`).
    #[must_use]
    pub fn new(id: u64, frames: &Arc<Frames>, len: u64, quota: Option<Arc<Quota>>) -> Arc<Self> {
        Arc::new(PageStore {
            id,
            frames: frames.clone(),
            quota,
            state: Mutex::new(State { pages: BTreeMap::new(), len }),
            mappers: Mappers::default(),
        })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.state().len
    }
    /// No bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Pages that hold memory.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.state().pages.len() as u64
    }
    fn take_pages(&self, state: &mut State, first: u64, last: u64) -> Vec<Frame> {
        if first >= last {
            return Vec::new();
        }
        let mut upper = state.pages.split_off(&first);
        let mut rest = upper.split_off(&last);
        state.pages.append(&mut rest);
        if let Some(quota) = &self.quota {
            quota.refund(upper.len() as u64);
        }
        upper.into_values().collect()
    }
    fn zero_part(state: &State, start: u64, end: u64) {
        if let Some(frame) = state.pages.get(&(start >> PAGE_SHIFT)) {
            let from = (start % PAGE_SIZE).size();
            frame.write(from, &ZERO[..(end - start).size()]);
        }
    }
    /// Cuts or extends to `len` bytes; bytes cut off read as zero when it grows again. Every
    /// mapping of pages past the end is revoked before this returns.
    pub fn set_len(&self, len: u64) {
        let first = len.div_ceil(PAGE_SIZE);
        let cut = {
            let mut state = self.state();
            let shrinks = len < state.len;
            state.len = len;
            if !shrinks {
                return;
            }
            if !len.is_multiple_of(PAGE_SIZE) {
                Self::zero_part(&state, len, first << PAGE_SHIFT);
            }
            self.take_pages(&mut state, first, u64::MAX)
        };
        self.mappers.invalidate(self.id, first, u64::MAX);
        drop(cut);
    }
    /// Makes `[start, start+len)` read as zero, giving its whole pages back; the length stays.
    pub fn punch(&self, start: u64, len: u64) {
        let end = start.saturating_add(len).min(u64::MAX - PAGE_SIZE);
        let (first, last) = (start.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        let cut = {
            let mut state = self.state();
            if first > last {
                Self::zero_part(&state, start, end);
                return;
            }
            if start < first << PAGE_SHIFT {
                Self::zero_part(&state, start, first << PAGE_SHIFT);
            }
            if last << PAGE_SHIFT < end {
                Self::zero_part(&state, last << PAGE_SHIFT, end);
            }
            self.take_pages(&mut state, first, last)
        };
        self.mappers.invalidate(self.id, first, last);
        drop(cut);
    }
    fn frame(&self, state: &mut State, index: u64) -> Result<Frame, Errno> {
        if let Some(frame) = state.pages.get(&index) {
            return Ok(frame.clone());
        }
        if self.quota.as_ref().is_some_and(|q| !q.charge()) {
            return Err(Errno::ENOSPC);
        }
        let Some(frame) = self.frames.alloc() else {
            if let Some(quota) = &self.quota {
                quota.refund(1);
            }
            return Err(Errno::ENOMEM);
        };
        state.pages.insert(index, frame.clone());
        Ok(frame)
    }
    /// Allocates the holes of `[start, start+len)` (fallocate(2)).
    ///
    /// # Errors
    /// ENOSPC, ENOMEM; what was allocated stays.
    pub fn allocate(&self, start: u64, len: u64) -> Result<(), Errno> {
        let end = start.saturating_add(len).div_ceil(PAGE_SIZE);
        for index in start >> PAGE_SHIFT..end {
            self.frame(&mut self.state(), index)?;
        }
        Ok(())
    }
    /// Reads at `offset` until the end, the buffer's end, or a fault; the count.
    ///
    /// # Errors
    /// EFAULT if nothing could be stored.
    pub fn read_at(&self, dst: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        loop {
            let at = offset.saturating_add(done as u64);
            let (frame, end) = {
                let state = self.state();
                (state.pages.get(&(at >> PAGE_SHIFT)).cloned(), state.len)
            };
            let within = (at % PAGE_SIZE).size();
            let left = end.saturating_sub(at).min(PAGE_SIZE).size();
            let want = (PAGE - within).min(left).min(dst.left());
            if want == 0 {
                return Ok(done);
            }
            let put = match frame {
                None => dst.put(&ZERO[..want]),
                Some(frame) => {
                    let mut page = [0; PAGE];
                    frame.read(within, &mut page[..want]);
                    dst.put(&page[..want])
                }
            };
            match put {
                Ok(n) if n == want => done += n,
                Ok(n) => return Ok(done + n),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => return Ok(done),
            }
        }
    }
    /// Writes at `offset`, growing the store; the count.
    ///
    /// # Errors
    /// EFAULT, ENOSPC or ENOMEM if nothing could be written.
    pub fn write_at(&self, src: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while src.left() > 0 {
            let at = offset.checked_add(done as u64).ok_or(Errno::EFBIG)?;
            let within = (at % PAGE_SIZE).size();
            let want = (PAGE - within).min(src.left());
            let mut page = [0; PAGE];
            let step = src.take(&mut page[..want]).and_then(|n| {
                let mut state = self.state();
                let frame = self.frame(&mut state, at >> PAGE_SHIFT)?;
                frame.write(within, &page[..n]);
                state.len = state.len.max(at + n as u64);
                Ok(n)
            });
            match step {
                Ok(n) if n == want => done += n,
                Ok(n) => return Ok(done + n),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    /// The first byte at or after `offset` that holds data (`data`) or lies in a hole, as
    /// lseek(2)'s SEEK_DATA and SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO past the end, or when there is no more data.
    pub fn seek(&self, offset: u64, data: bool) -> Result<u64, Errno> {
        let state = self.state();
        if offset >= state.len {
            return Err(Errno::ENXIO);
        }
        let first = offset >> PAGE_SHIFT;
        if data {
            let (index, _) = state.pages.range(first..).next().ok_or(Errno::ENXIO)?;
            let at = offset.max(index << PAGE_SHIFT);
            return if at < state.len { Ok(at) } else { Err(Errno::ENXIO) };
        }
        let mut index = first;
        for (page, _) in state.pages.range(first..) {
            if *page != index {
                break;
            }
            index += 1;
        }
        Ok(offset.max(index << PAGE_SHIFT).min(state.len))
    }
}

impl MemObject for PageStore {
    fn id(&self) -> u64 {
        self.id
    }
    fn page(&self, index: u64, _write: bool) -> Result<Frame, PageError> {
        let mut state = self.state();
        if index >= state.len.div_ceil(PAGE_SIZE) {
            return Err(PageError::PastEnd);
        }
        self.frame(&mut state, index).map_err(|errno| match errno {
            Errno::ENOSPC => PageError::Io,
            _ => PageError::NoMemory,
        })
    }
    fn resident(&self, index: u64) -> Option<Frame> {
        let state = self.state();
        if index >= state.len.div_ceil(PAGE_SIZE) {
            return None;
        }
        state.pages.get(&index).cloned()
    }
    fn tracks_writes(&self) -> bool {
        false
    }
    fn punch(&self, first: u64, last: u64) -> bool {
        PageStore::punch(self, first << PAGE_SHIFT, (last - first) << PAGE_SHIFT);
        true
    }
    fn mappers(&self) -> &Mappers {
        &self.mappers
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for PageStore {
    fn drop(&mut self) {
        if let Some(quota) = &self.quota {
            quota.refund(self.state().pages.len() as u64);
        }
    }
}
