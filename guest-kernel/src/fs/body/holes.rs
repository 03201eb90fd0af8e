//! Holes: made, filled and found.

use super::{Body, State, ZERO};
use crate::{
    error::Errno,
    fs::buf::Source,
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE},
};

impl Body {
    /// Makes `[start, start+len)` read as zero within the file (FALLOC_FL_PUNCH_HOLE).
    ///
    /// # Errors
    /// ENOSPC, or the host's errno.
    pub fn punch(&self, start: u64, len: u64) -> Result<(), Errno> {
        let end = start.saturating_add(len).min(self.size().next_multiple_of(PAGE_SIZE));
        let mut at = start;
        while at < end {
            let step = (PAGE_SIZE - at % PAGE_SIZE).min(end - at);
            let index = at >> PAGE_SHIFT;
            let whole = step == PAGE_SIZE;
            let (cut, hidden) = {
                let mut state = self.state();
                let hidden = (index << PAGE_SHIFT) >= state.lower_len;
                let cut = if whole && hidden && !self.through {
                    self.take_pages(&mut state, index, index + 1)
                } else {
                    Vec::new()
                };
                (cut, hidden)
            };
            if !cut.is_empty() {
                self.mappers.invalidate(self.id, index, index + 1);
            } else if self.through {
                let zeros = &ZERO[..step.size()];
                self.write_at(&mut Source::kernel(zeros), at, end)?;
            } else if !(hidden && whole) {
                let frame = self.fetch(index, true)?;
                frame.write((at % PAGE_SIZE).size(), &ZERO[..step.size()]);
            }
            drop(cut);
            at += step;
        }
        Ok(())
    }
    /// Allocates the holes of `[start, start+len)` without changing the size.
    ///
    /// # Errors
    /// ENOSPC; what was allocated stays.
    pub fn reserve(&self, start: u64, len: u64) -> Result<(), Errno> {
        if self.through {
            return Ok(());
        }
        let end = start.saturating_add(len).div_ceil(PAGE_SIZE);
        if let Some(quota) = &self.quota
            && end - (start >> PAGE_SHIFT) > quota.limit()
        {
            return Err(Errno::ENOSPC);
        }
        for index in start >> PAGE_SHIFT..end {
            self.fetch(index, false)
                .map_err(|e| if e == Errno::ENOMEM { Errno::ENOSPC } else { e })?;
        }
        Ok(())
    }
    /// lseek(2) SEEK_DATA (`data`) and SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO past the end, or when there is no more data.
    pub fn seek(&self, offset: u64, data: bool) -> Result<u64, Errno> {
        let state = self.state();
        if offset >= state.size {
            return Err(Errno::ENXIO);
        }
        if offset < state.lower_len {
            return Ok(if data { offset } else { self.hole_from(&state, state.lower_len) });
        }
        let first = offset >> PAGE_SHIFT;
        if data {
            let (index, _) = state.pages.range(first..).next().ok_or(Errno::ENXIO)?;
            let at = offset.max(index << PAGE_SHIFT);
            return if at < state.size { Ok(at) } else { Err(Errno::ENXIO) };
        }
        Ok(self.hole_from(&state, offset))
    }
    #[expect(clippy::unused_self, reason = "reads as a question to the body")]
    fn hole_from(&self, state: &State, offset: u64) -> u64 {
        let mut index = offset >> PAGE_SHIFT;
        if !offset.is_multiple_of(PAGE_SIZE) && offset == state.lower_len {
            index += 1;
        }
        for (page, _) in state.pages.range(index..) {
            if *page != index {
                break;
            }
            index += 1;
        }
        offset.max(index << PAGE_SHIFT).min(state.size)
    }
}
