//! Advice and queries about ranges: madvise, msync, mincore, mlock.

use super::{
    Inner, Limits, Mm,
    map::round_up,
    vma::{Vma, VmaFlags},
};
use crate::{
    error::Errno,
    platform::{Access, PAGE_SHIFT, PAGE_SIZE, Prot},
};

/// What madvise(2) is asked to do, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Nothing to do but to check the range.
    Hint,
    /// Sets and clears properties.
    Flags(VmaFlags, VmaFlags),
    /// Empties private memory (MADV_DONTNEED, MADV_FREE when `.0`).
    Drop(bool),
    /// Reads ahead.
    WillNeed,
    /// Punches a hole into the shared object (MADV_REMOVE).
    Remove,
    /// Fills pages for reading, or writing when `.0`.
    Populate(bool),
    /// MADV_WIPEONFORK: only private anonymous memory has it.
    WipeOnFork,
}

impl Mm {
    /// madvise(2). Holes in the range are skipped and reported at the end, as Linux does.
    ///
    /// # Errors
    /// EINVAL, ENOMEM, EACCES, EFAULT, ENOSYS…
    pub fn advise(&self, start: u64, len: u64, advice: Advice) -> Result<(), Errno> {
        let len = round_up(len).ok_or(Errno::EINVAL)?;
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        match advice {
            Advice::Populate(write) => return self.populate_range(start, end, write),
            Advice::Remove => return self.remove_range(start, end),
            _ => {}
        }
        self.edit(|inner| {
            let whole = inner.vmas.covers(start, end);
            let ranges: Vec<Vma> = inner.vmas.overlapping(start, end).cloned().collect();
            for vma in ranges {
                let (from, to) = (vma.start.max(start), vma.end.min(end));
                self.advise_one(inner, &vma, from, to, advice)?;
            }
            if whole { Ok(()) } else { Err(Errno::ENOMEM) }
        })
    }

    fn advise_one(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        start: u64,
        end: u64,
        advice: Advice,
    ) -> Result<(), Errno> {
        match advice {
            Advice::Drop(free) => {
                if vma.flags.contains(VmaFlags::LOCKED) || free && !vma.is_private_anon() {
                    return Err(Errno::EINVAL);
                }
                self.drop_pages(inner, start, end);
            }
            Advice::WillNeed => {
                if let Some((object, first)) = vma.object_page(start) {
                    object.prefetch(first, ((end - start) >> PAGE_SHIFT).min(4096));
                }
            }
            Advice::WipeOnFork => {
                if !vma.is_private_anon() || vma.is_shared() {
                    return Err(Errno::EINVAL);
                }
                inner.vmas.change(start, end, |v| v.flags |= VmaFlags::WIPEONFORK);
            }
            Advice::Flags(set, clear) => {
                inner.vmas.change(start, end, |v| v.flags = (v.flags | set) - clear);
            }
            Advice::Hint | Advice::Populate(_) | Advice::Remove => {}
        }
        Ok(())
    }

    fn populate_range(&self, start: u64, end: u64, write: bool) -> Result<(), Errno> {
        let (need, access) =
            if write { (Prot::WRITE, Access::Write) } else { (Prot::READ, Access::Read) };
        let mut at = start;
        while at < end {
            let vma = self.mapping(at).ok_or(Errno::ENOMEM)?;
            if !vma.access().contains(need) {
                return Err(if vma.prot.is_empty() { Errno::EFAULT } else { Errno::EINVAL });
            }
            self.fault_in(at, access)?;
            at += PAGE_SIZE;
        }
        Ok(())
    }

    fn remove_range(&self, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let vma = self.mapping(at).ok_or(Errno::ENOMEM)?;
            if vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EINVAL);
            }
            let (object, first) = vma.object_page(at).ok_or(Errno::EINVAL)?;
            if !vma.is_shared() || !vma.max_prot.contains(Prot::WRITE) {
                return Err(Errno::EACCES);
            }
            let to = vma.end.min(end);
            // The space's lock is open here: punching revokes the pages in every mapper.
            if !object.punch(first, first + ((to - at) >> PAGE_SHIFT)) {
                return Err(Errno::EOPNOTSUPP);
            }
            at = to;
        }
        Ok(())
    }

    /// msync(2): writes shared pages back.
    ///
    /// # Errors
    /// EINVAL, ENOMEM, EBUSY.
    pub fn sync(&self, start: u64, len: u64, write_back: bool, drop: bool) -> Result<(), Errno> {
        // As on Linux what is too long to be rounded up becomes nothing.
        let len = round_up(len).unwrap_or(0);
        let end = start.checked_add(len).ok_or(Errno::ENOMEM)?;
        if len == 0 {
            return Ok(());
        }
        let (ranges, whole) = {
            let inner = self.read();
            let ranges: Vec<Vma> = inner.vmas.overlapping(start, end).cloned().collect();
            (ranges, inner.vmas.covers(start, end))
        };
        for vma in &ranges {
            if drop && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            let (from, to) = (vma.start.max(start), vma.end.min(end));
            if write_back
                && vma.is_shared()
                && let Some((object, first)) = vma.object_page(from)
            {
                object.sync(first, first + ((to - from) >> PAGE_SHIFT));
            }
        }
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// mincore(2): one byte a page, 1 where it is in memory.
    ///
    /// # Errors
    /// ENOMEM if a page is not mapped.
    pub fn resident(&self, start: u64, pages: u64) -> Result<Vec<u8>, Errno> {
        let end = start.saturating_add(pages << PAGE_SHIFT);
        let inner = self.read();
        if !inner.vmas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        let mut out = Vec::new();
        for vma in inner.vmas.overlapping(start, end) {
            for page in (vma.start.max(start)..vma.end.min(end)).step_by(4096) {
                let cached = || vma.object_page(page).is_some_and(|(o, i)| o.resident(i).is_some());
                out.push(u8::from(inner.pages.get(page).is_some() || cached()));
            }
        }
        Ok(out)
    }

    /// mlock(2) and munlock(2): only accounting, as memory never leaves.
    ///
    /// # Errors
    /// ENOMEM, EINVAL.
    pub fn lock(
        &self,
        start: u64,
        len: u64,
        on: bool,
        fill: bool,
        limits: Limits,
    ) -> Result<(), Errno> {
        let offset = start % PAGE_SIZE;
        let start = start - offset;
        // As on Linux what is too long to be rounded up becomes nothing.
        let len = len.checked_add(offset).and_then(round_up).unwrap_or(0);
        self.edit(|inner| {
            if on {
                let end = start.saturating_add(len);
                let already: u64 = inner
                    .vmas
                    .overlapping(start, end)
                    .filter(|v| v.flags.contains(VmaFlags::LOCKED))
                    .map(|v| v.end.min(end) - v.start.max(start))
                    .sum();
                let locked = (inner.vmas.locked_pages() << PAGE_SHIFT) - already;
                if locked.saturating_add(len) > limits.locked {
                    return Err(Errno::ENOMEM);
                }
            }
            let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
            if !inner.vmas.covers(start, end) {
                return Err(Errno::ENOMEM);
            }
            inner.vmas.change(start, end, |v| v.flags.set(VmaFlags::LOCKED, on));
            if on && fill {
                self.populate(inner, start, end);
                // Locked, but for what nobody can have in memory.
                if inner.vmas.overlapping(start, end).any(|v| v.prot.is_empty()) {
                    return Err(Errno::ENOMEM);
                }
            }
            Ok(())
        })
    }

    /// mlockall(2) and munlockall(2).
    ///
    /// # Errors
    /// ENOMEM.
    pub fn lock_all(
        &self,
        current: bool,
        future: bool,
        fill: bool,
        limits: Limits,
    ) -> Result<(), Errno> {
        let end = self.user_end();
        self.edit(|inner| {
            // MCL_FUTURE alone is held against the limit by the mappings to come.
            if current && (inner.vmas.total_pages() << PAGE_SHIFT) > limits.locked {
                return Err(Errno::ENOMEM);
            }
            inner.lock_future = future;
            if current || !future {
                inner.vmas.change(0, end, |v| v.flags.set(VmaFlags::LOCKED, current));
            }
            if current && fill {
                self.populate(inner, 0, end);
            }
            Ok(())
        })
    }
}
