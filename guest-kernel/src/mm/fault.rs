//! Page faults: demand filling, copy on write, stack growth.
//!
//! An exit is dear, so a fault does more than it was asked for: neighbours that are in memory are
//! mapped too, anonymous memory is filled in large pieces, stores that need no copy are granted all
//! around.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering};

use super::{
    Inner, MemFault, Mm,
    layout::STACK_GUARD,
    object::PageError,
    pagemap::{CHUNK_SIZE, Pte},
    vma::{Source, Vma, VmaFlags},
};
use crate::{
    error::Errno,
    frames::Frame,
    platform::{Access, Fault, PAGE_SHIFT, PAGE_SIZE, Prot},
};

/// Pages mapped around a fault on an object.
const AROUND: u64 = 32 * PAGE_SIZE;
/// Pages filled around a fault on anonymous memory when memory is no longer plentiful.
const SMALL_FILL: u64 = 16 * PAGE_SIZE;
/// Bytes of private pages copied around a store.
const COPY_AROUND: u64 = 4 * PAGE_SIZE;
/// Pages that a fork copies at once because they were stored to after earlier forks.
const COPY_AHEAD: usize = 32;
/// How often an access of unknown kind may find everything granted before it is taken for a
/// violation: other threads may have resolved the same fault first.
const SPURIOUS_UNKNOWN: u32 = 40;
/// The same for an access whose kind is known to be granted: only a guard against spinning.
const SPURIOUS_KNOWN: u32 = 1000;

impl From<PageError> for MemFault {
    fn from(error: PageError) -> MemFault {
        match error {
            PageError::PastEnd | PageError::Io => MemFault::Bus,
            PageError::NoMemory => MemFault::OutOfMemory,
        }
    }
}

impl Mm {
    /// Resolves a page fault of the guest, or says what signal it is.
    ///
    /// # Errors
    /// The fault the program must hear of.
    pub fn fault(&self, fault: &Fault) -> Result<(), MemFault> {
        self.resolve(fault.addr, fault.access, true)
    }

    /// Makes `addr` accessible, as a guest's own access would.
    pub(crate) fn fault_in(&self, addr: u64, access: Access) -> Result<(), MemFault> {
        self.resolve(addr, access, false)
    }

    fn resolve(&self, addr: u64, access: Access, hardware: bool) -> Result<(), MemFault> {
        if addr >= self.user_end() {
            return Err(MemFault::Unmapped);
        }
        self.edit(|inner| {
            let result = self.resolve_locked(inner, addr & !(PAGE_SIZE - 1), access, hardware);
            if inner.broken { Err(MemFault::OutOfMemory) } else { result }
        })
    }

    fn resolve_locked(
        &self,
        inner: &mut Inner,
        page: u64,
        access: Access,
        hardware: bool,
    ) -> Result<(), MemFault> {
        if inner.vmas.find(page).is_none() {
            self.grow_stack(inner, page)?;
        }
        let vma = inner.vmas.find(page).cloned().ok_or(MemFault::Unmapped)?;
        let allowed = vma.access();
        let old = inner.pages.get(page);
        let need = match (access, old) {
            (Access::Read, _) => Prot::READ,
            (Access::Write, _) => Prot::WRITE,
            (Access::Exec, _) => Prot::EXEC,
            (Access::Unknown, None) if !vma.is_private_anon() => Prot::READ,
            (Access::Unknown, Some(pte)) if pte.prot().contains(allowed) => Prot::READ,
            (Access::Unknown, _) => allowed & Prot::WRITE,
        };
        if allowed.is_empty() || !allowed.contains(need) {
            return Err(MemFault::Protected);
        }
        match old {
            Some(pte) if pte.prot().contains(need) && !pte.prot().is_empty() => {
                if !hardware {
                    return Ok(());
                }
                let patience =
                    if access == Access::Unknown { SPURIOUS_UNKNOWN } else { SPURIOUS_KNOWN };
                if inner.is_violation(page, patience) {
                    return Err(MemFault::Protected);
                }
                inner.batch.map(page, pte.gpa(), pte.prot());
                Ok(())
            }
            Some(pte) => {
                inner.was_missing(page);
                self.widen(inner, &vma, page, pte, need)
            }
            None => {
                inner.was_missing(page);
                self.fill(inner, &vma, page, need)
            }
        }
    }

    /// A present page lacks access its mapping has: copy on write, or the first store to a shared
    /// page.
    fn widen(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        page: u64,
        pte: Pte,
        need: Prot,
    ) -> Result<(), MemFault> {
        if vma.is_shared() {
            return self.fill_shared(inner, vma, page, need.contains(Prot::WRITE));
        }
        if !need.contains(Prot::WRITE) {
            inner.pages.set(page, pte.with_prot(vma.access() - Prot::WRITE));
            inner.batch.map(page, pte.gpa(), vma.access() - Prot::WRITE);
            return Ok(());
        }
        self.kernel.stats.cow.fetch_add(1, Ordering::Relaxed);
        inner.stored.note(page);
        if pte.is_anon() && self.frames().owners(pte.gpa()) == 1 {
            self.reclaim_around(inner, vma, page);
            return Ok(());
        }
        self.copy_page(inner, vma, page, pte)?;
        let (start, end) = window(vma, page, COPY_AROUND);
        let mut more = Vec::new();
        inner.pages.each(start, end, |va, pte| {
            if va != page && !pte.prot().contains(Prot::WRITE) {
                more.push((va, pte));
            }
        });
        for (va, pte) in more {
            if self.copy_page(inner, vma, va, pte).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Gives the process its own copy of a private page, unless it has the only one already.
    fn copy_page(&self, inner: &mut Inner, vma: &Vma, page: u64, pte: Pte) -> Result<(), MemFault> {
        if pte.is_anon() && self.frames().owners(pte.gpa()) == 1 {
            inner.pages.set(page, pte.with_prot(vma.access()));
            inner.batch.map(page, pte.gpa(), vma.access());
            return Ok(());
        }
        let copy = self.frames().alloc_copy(pte.gpa()).ok_or(MemFault::OutOfMemory)?.into_gpa();
        inner.pages.set(page, Pte::new(copy, vma.access(), true));
        inner.batch.map(page, copy, vma.access());
        inner.batch.drop_frame(pte.gpa());
        Ok(())
    }

    /// Grants stores on every page of the chunk around `page` that has come to belong to the
    /// process alone (after a fork's child went away).
    fn reclaim_around(&self, inner: &mut Inner, vma: &Vma, page: u64) {
        let (start, end) = window(vma, page, CHUNK_SIZE);
        let frames = self.frames();
        let batch = &mut inner.batch;
        inner.pages.update(start, end, |va, pte| {
            let alone = pte.is_anon() && frames.owners(pte.gpa()) == 1;
            if alone && !pte.prot().contains(Prot::WRITE) {
                batch.map(va, pte.gpa(), vma.access());
                return Some(pte.with_prot(vma.access()));
            }
            Some(pte)
        });
    }

    fn fill(&self, inner: &mut Inner, vma: &Vma, page: u64, need: Prot) -> Result<(), MemFault> {
        match &vma.source {
            Source::Anon => self.fill_zero(inner, vma, page),
            Source::Object(..) if vma.is_shared() => {
                self.fill_shared(inner, vma, page, need.contains(Prot::WRITE))
            }
            Source::Object(..) if need.contains(Prot::WRITE) => {
                self.kernel.stats.cow.fetch_add(1, Ordering::Relaxed);
                self.prefetch(vma, page);
                self.fill_private(inner, vma, page)?;
                let (start, end) = window(vma, page, COPY_AROUND);
                for near in (start..end).step_by(4096).filter(|near| *near != page) {
                    let resident =
                        vma.object_page(near).is_some_and(|(o, i)| o.resident(i).is_some());
                    if resident && self.fill_private(inner, vma, near).is_err() {
                        break;
                    }
                }
                Ok(())
            }
            Source::Object(..) => {
                self.prefetch(vma, page);
                let (object, index) = vma.object_page(page).ok_or(MemFault::Unmapped)?;
                let frame = object.page(index, false)?;
                install(inner, page, frame, vma.access() - Prot::WRITE);
                let (start, end) = window(vma, page, AROUND);
                self.map_resident(inner, vma, start, end);
                Ok(())
            }
        }
    }

    fn prefetch(&self, vma: &Vma, page: u64) {
        let (start, end) = window(vma, page, AROUND);
        if let Some((object, first)) = vma.object_page(start) {
            object.prefetch(first, (end - start) >> PAGE_SHIFT);
        }
    }

    /// Zeroed memory: 2 MiB while memory is plentiful, less and less as it runs out.
    fn fill_zero(&self, inner: &mut Inner, vma: &Vma, page: u64) -> Result<(), MemFault> {
        let (free, total) = (self.frames().free(), self.frames().total());
        let size = if vma.flags.contains(VmaFlags::GROWSDOWN) {
            SMALL_FILL
        } else if free > total / 4 {
            CHUNK_SIZE
        } else if free > total / 16 {
            SMALL_FILL
        } else {
            PAGE_SIZE
        };
        let (start, end) = window(vma, page, size);
        match self.fill_anon(inner, start, end, vma.access()) {
            Ok(()) => Ok(()),
            Err(_) if inner.pages.get(page).is_some() => Ok(()),
            Err(_) => self
                .fill_anon(inner, page, page + PAGE_SIZE, vma.access())
                .map_err(|_| MemFault::OutOfMemory),
        }
    }

    /// An object's page in a shared mapping, and around it what is in memory.
    fn fill_shared(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        page: u64,
        write: bool,
    ) -> Result<(), MemFault> {
        self.prefetch(vma, page);
        let (object, index) = vma.object_page(page).ok_or(MemFault::Unmapped)?;
        let frame = object.page(index, write)?;
        let stores = write || !object.tracks_writes();
        let access = if stores { vma.access() } else { vma.access() - Prot::WRITE };
        install(inner, page, frame, access);
        let (start, end) = window(vma, page, AROUND);
        if vma.file.is_none() {
            // Anonymous shared memory: what is near will be wanted too.
            for near in (start..end).step_by(4096) {
                if inner.pages.get(near).is_none()
                    && let Some((object, index)) = vma.object_page(near)
                    && let Ok(frame) = object.page(index, true)
                {
                    install(inner, near, frame, access);
                }
            }
        }
        self.map_resident(inner, vma, start, end);
        Ok(())
    }

    /// The process's own copy of an object's page.
    pub(super) fn fill_private(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        page: u64,
    ) -> Result<(), MemFault> {
        if inner.pages.get(page).is_some() {
            return Ok(());
        }
        let (object, index) = vma.object_page(page).ok_or(MemFault::Unmapped)?;
        let original = object.page(index, false)?;
        let copy = self.frames().alloc_copy(original.gpa()).ok_or(MemFault::OutOfMemory)?;
        let gpa = copy.into_gpa();
        inner.pages.set(page, Pte::new(gpa, vma.access(), true));
        inner.batch.map(page, gpa, vma.access());
        Ok(())
    }

    /// Maps those pages of `[start, end)` that the object has in memory, without stores unless
    /// nobody needs to hear of them.
    pub(super) fn map_resident(&self, inner: &mut Inner, vma: &Vma, start: u64, end: u64) {
        let Some((object, first)) = vma.object_page(start) else { return };
        let stores = vma.is_shared() && !object.tracks_writes();
        let access = if stores { vma.access() } else { vma.access() - Prot::WRITE };
        for (i, page) in (start..end).step_by(4096).enumerate() {
            if inner.pages.get(page).is_none()
                && let Some(frame) = object.resident(first + i as u64)
            {
                install(inner, page, frame, access);
            }
        }
    }

    /// Fills every page of `[start, end)` as an access would (MAP_POPULATE, mlock); stops at the
    /// first that cannot be.
    pub(super) fn populate(&self, inner: &mut Inner, start: u64, end: u64) {
        let ranges: Vec<Vma> = inner.vmas.overlapping(start, end).cloned().collect();
        for vma in ranges {
            let (from, to) = (vma.start.max(start), vma.end.min(end));
            if vma.prot.is_empty() {
                continue;
            }
            if vma.is_private_anon() {
                if self.fill_anon(inner, from, to, vma.access()).is_err() {
                    return;
                }
                continue;
            }
            let write = vma.prot.contains(Prot::WRITE) && !vma.is_shared();
            let need = if write { Prot::WRITE } else { Prot::READ };
            for page in (from..to).step_by(4096) {
                if inner.pages.get(page).is_none() && self.fill(inner, &vma, page, need).is_err() {
                    return;
                }
            }
        }
    }

    /// Extends a growing mapping down to `page`, within RLIMIT_STACK and clear of its neighbour.
    fn grow_stack(&self, inner: &mut Inner, page: u64) -> Result<(), MemFault> {
        let above = inner.vmas.find_at_or_above(page).ok_or(MemFault::Unmapped)?;
        let below = inner.vmas.below(page);
        let room = below.is_none_or(|b| {
            b.end.saturating_add(STACK_GUARD) <= page
                || b.flags.contains(VmaFlags::GROWSDOWN) && b.end <= page
        });
        if !above.flags.contains(VmaFlags::GROWSDOWN)
            || !above.is_private_anon()
            || !room
            || above.end - page > self.stack_limit()
            || page < crate::platform::USER_START
        {
            return Err(MemFault::Unmapped);
        }
        let (start, end) = (above.start, above.end);
        for mut vma in inner.vmas.remove(start, end) {
            vma.start = page;
            inner.vmas.insert(vma);
        }
        Ok(())
    }

    /// Takes pages `[first, last)` of object `id` out of this space. Truncation (`last` is
    /// `u64::MAX`) takes private copies too; a hole punched leaves them.
    pub fn invalidate(&self, id: u64, first: u64, last: u64) {
        self.edit(|inner| {
            let mut ranges = Vec::new();
            for vma in inner.vmas.iter() {
                let Some((object, base)) = vma.object_page(vma.start) else { continue };
                let end = base + vma.pages();
                let (from, to) = (first.max(base), last.min(end));
                if object.id() == id && from < to {
                    let at = |index: u64| vma.start + ((index - base) << PAGE_SHIFT);
                    ranges.push((at(from), at(to)));
                }
            }
            for (start, end) in ranges {
                self.release_sites(inner, start, end);
                let batch = &mut inner.batch;
                inner.pages.update(start, end, |va, pte| {
                    if pte.is_anon() && last != u64::MAX {
                        return Some(pte);
                    }
                    batch.unmap(va, PAGE_SIZE);
                    batch.drop_frame(pte.gpa());
                    None
                });
            }
        });
    }
}

/// Pages that were stored to after a fork, by parent or child: the next fork copies them ahead. Shared by
/// all that forked since an exec, for what a child stores to its siblings will store to.
#[derive(Default)]
pub(crate) struct Stored(Mutex<Vec<u64>>);

impl Stored {
    fn pages(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn note(&self, page: u64) {
        let mut pages = self.pages();
        if !pages.contains(&page) {
            if pages.len() == COPY_AHEAD {
                pages.remove(0);
            }
            pages.push(page);
        }
    }
    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<u64> {
        self.pages().clone()
    }
}

impl Inner {
    /// Something was missing at `page` after all: the threads that come too late start at 0 again.
    fn was_missing(&mut self, page: u64) {
        if let Some(entry) = self.spurious.iter_mut().find(|e| e.0 == page | 1) {
            *entry = (0, 0);
        }
    }

    /// Counts a fault on a page where nothing was missing; true once it has come too often.
    fn is_violation(&mut self, page: u64, patience: u32) -> bool {
        let key = page | 1;
        if let Some(entry) = self.spurious.iter_mut().find(|e| e.0 == key) {
            entry.1 += 1;
            if entry.1 > patience {
                *entry = (0, 0);
                return true;
            }
            return false;
        }
        self.spurious.rotate_right(1);
        self.spurious[0] = (key, 1);
        false
    }
}

/// Puts an object's frame at `page`.
fn install(inner: &mut Inner, page: u64, frame: Frame, access: Prot) {
    let gpa = frame.into_gpa();
    inner.batch.map(page, gpa, access);
    if let Some(old) = inner.pages.set(page, Pte::new(gpa, access, false)) {
        inner.batch.drop_frame(old.gpa());
    }
}

/// The aligned window of `size` bytes around `page`, within its mapping.
fn window(vma: &Vma, page: u64, size: u64) -> (u64, u64) {
    let base = page / size * size;
    (base.max(vma.start), base.saturating_add(size).min(vma.end))
}

impl From<MemFault> for Errno {
    fn from(fault: MemFault) -> Errno {
        match fault {
            MemFault::OutOfMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        }
    }
}
