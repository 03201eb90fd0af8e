//! mmap and munmap: placing, replacing, filling ahead.

use std::sync::Arc;

use super::{
    Inner, Limits, MAX_MAPPINGS, Mm,
    layout::STACK_GUARD,
    object::MemObject,
    pagemap::{CHUNK_SIZE, Pte},
    vma::{Source, Vma, VmaFlags},
};
use crate::{
    error::Errno,
    fs::file::OpenFile,
    platform::{PAGE_SHIFT, PAGE_SIZE, Prot, USER_START},
};

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At the hint if that is free, else anywhere.
    Hint(u64),
    /// Anywhere in the low 2 GiB (MAP_32BIT).
    Low,
    /// Exactly here, replacing what is there.
    Fixed(u64),
    /// Exactly here, EEXIST if something is there.
    FixedNoReplace(u64),
}

/// A mapping to be made.
#[derive(Clone)]
pub struct MapRequest {
    /// Where.
    pub place: Place,
    /// Bytes, not rounded.
    pub len: u64,
    /// Access.
    pub prot: Prot,
    /// Access mprotect may grant later.
    pub max_prot: Prot,
    /// Properties.
    pub flags: VmaFlags,
    /// Pages.
    pub source: Source,
    /// The file kept open.
    pub file: Option<Arc<OpenFile>>,
    /// Name for `/proc/PID/maps`.
    pub name: Option<Arc<str>>,
    /// SysV segment.
    pub shm: Option<Arc<super::shm::Attachment>>,
    /// MAP_POPULATE.
    pub populate: bool,
}

impl MapRequest {
    /// Private anonymous memory.
    #[must_use]
    pub fn anon(place: Place, len: u64, prot: Prot) -> MapRequest {
        MapRequest {
            place,
            len,
            prot,
            max_prot: Prot::all(),
            flags: VmaFlags::empty(),
            source: Source::Anon,
            file: None,
            name: None,
            shm: None,
            populate: false,
        }
    }
    /// An object from its page `first` on.
    #[must_use]
    pub fn object(
        place: Place,
        len: u64,
        prot: Prot,
        object: Arc<dyn MemObject>,
        first: u64,
    ) -> MapRequest {
        MapRequest { source: Source::Object(object, first), ..MapRequest::anon(place, len, prot) }
    }
}

/// Largest mapping that is filled as it is made. Of larger ones each 2 MiB is filled by a fault: one for 512
/// pages costs nothing next to zeroing them, and nobody knows that all of it will be touched.
const FILL_AHEAD: u64 = CHUNK_SIZE;
/// Of a thread's stack, what is filled as it is made.
const FILL_STACK: u64 = 128 << 10;
/// Of reserved memory made accessible, what is filled at once.
const FILL_RESERVED: u64 = 1 << 20;
/// Private writable file mappings up to this size are copied at once: data segments, of which
/// nearly every page is written by the dynamic linker.
const FILL_DATA: u64 = 16 * PAGE_SIZE;
/// Of other file mappings, pages already in memory are mapped at once up to this size.
const FILL_FILE: u64 = 4 << 20;

impl Mm {
    /// Makes a mapping; its address.
    ///
    /// # Errors
    /// As mmap(2): EINVAL, ENOMEM, EEXIST, EPERM, EAGAIN.
    pub fn map(&self, request: MapRequest, limits: Limits) -> Result<u64, Errno> {
        if let Source::Object(object, _) = &request.source
            && let Some(me) = self.weak().upgrade()
        {
            object.mappers().add(&me);
        }
        self.edit(|inner| self.map_locked(inner, request, limits))
    }

    pub(super) fn map_locked(
        &self,
        inner: &mut Inner,
        request: MapRequest,
        limits: Limits,
    ) -> Result<u64, Errno> {
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = round_up(request.len).ok_or(Errno::ENOMEM)?;
        let start = self.place(inner, request.place, len, &request)?;
        let end = start + len;
        let mut vma = Vma {
            start,
            end,
            prot: request.prot,
            max_prot: request.max_prot,
            flags: request.flags,
            source: request.source,
            file: request.file,
            name: request.name,
            shm: request.shm,
        };
        if inner.lock_future {
            vma.flags |= VmaFlags::LOCKED;
        }
        self.admit(inner, &vma, limits)?;
        if matches!(request.place, Place::Fixed(_)) {
            self.unmap_locked(inner, start, end);
        }
        let filled = vma.clone();
        inner.vmas.insert(vma);
        self.fill_new(inner, &filled, request.populate || inner.lock_future);
        Ok(start)
    }

    /// The limits, against what the mapping adds to what it replaces.
    fn admit(&self, inner: &Inner, vma: &Vma, limits: Limits) -> Result<(), Errno> {
        if inner.broken || inner.vmas.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let (mut total, mut data) = (0, 0);
        for old in inner.vmas.overlapping(vma.start, vma.end) {
            let pages = (old.end.min(vma.end) - old.start.max(vma.start)) >> PAGE_SHIFT;
            total += pages;
            data += if old.is_data() { pages } else { 0 };
        }
        let after = |now: u64, gone: u64| (now - gone + vma.pages()) << PAGE_SHIFT;
        if after(inner.vmas.total_pages(), total) > limits.address_space
            || vma.is_data() && after(inner.vmas.data_pages(), data) > limits.data
        {
            return Err(Errno::ENOMEM);
        }
        if vma.flags.contains(VmaFlags::LOCKED)
            && (inner.vmas.locked_pages() + vma.pages()) << PAGE_SHIFT > limits.locked
        {
            return Err(Errno::EAGAIN);
        }
        self.admit_commit(vma)
    }

    /// The overcommit heuristic: one mapping may not want more than there is in all
    /// (`vm.overcommit_memory` = 0).
    pub(super) fn admit_commit(&self, vma: &Vma) -> Result<(), Errno> {
        let charged = vma.is_data() && !vma.flags.contains(VmaFlags::NORESERVE);
        let anon_shared = vma.is_shared() && vma.file.is_none();
        if (charged || anon_shared && !vma.flags.contains(VmaFlags::NORESERVE))
            && vma.pages() > self.frames().total() as u64
        {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn place(
        &self,
        inner: &Inner,
        place: Place,
        len: u64,
        request: &MapRequest,
    ) -> Result<u64, Errno> {
        match place {
            Place::Fixed(addr) | Place::FixedNoReplace(addr) => {
                if !addr.is_multiple_of(PAGE_SIZE) {
                    return Err(Errno::EINVAL);
                }
                let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
                if end > self.user_end() {
                    return Err(Errno::ENOMEM);
                }
                if addr < USER_START {
                    return Err(Errno::EPERM);
                }
                let taken = inner.vmas.overlapping(addr, end).next().is_some();
                if taken && matches!(place, Place::FixedNoReplace(_)) {
                    return Err(Errno::EEXIST);
                }
                Ok(addr)
            }
            Place::Low => gap_below(inner, 1 << 31, len, PAGE_SIZE).ok_or(Errno::ENOMEM),
            Place::Hint(hint) => {
                let hint = hint & !(PAGE_SIZE - 1);
                if hint != 0 {
                    let at = hint.max(USER_START);
                    if is_free(inner, at, len, self.user_end()) {
                        return Ok(at);
                    }
                }
                let align = request.flags.contains(VmaFlags::STACK)
                    || !matches!(request.source, Source::Anon)
                    || !len.is_multiple_of(CHUNK_SIZE);
                self.find_gap(inner, len, if align { PAGE_SIZE } else { CHUNK_SIZE })
                    .ok_or(Errno::ENOMEM)
            }
        }
    }

    /// Free room for `len` bytes, as high as possible below the mmap base, else above it.
    pub(super) fn find_gap(&self, inner: &Inner, len: u64, align: u64) -> Option<u64> {
        let base = inner.layout.mmap_base;
        let below = || gap_below(inner, base, len, align);
        below()
            .or_else(|| gap_below(inner, base, len, PAGE_SIZE))
            .or_else(|| gap_below(inner, self.user_end(), len, PAGE_SIZE))
    }

    /// Fills a new mapping as far as it pays, so that the guest's first touch takes no fault.
    fn fill_new(&self, inner: &mut Inner, vma: &Vma, populate: bool) {
        if vma.prot.is_empty() {
            return;
        }
        if populate {
            self.populate(inner, vma.start, vma.end);
            return;
        }
        match &vma.source {
            Source::Anon => self.fill_ahead(inner, vma, vma.start, vma.end),
            Source::Object(..) if vma.is_shared() || !vma.prot.contains(Prot::WRITE) => {
                let end = vma.end.min(vma.start + FILL_FILE);
                self.map_resident(inner, vma, vma.start, end);
            }
            Source::Object(..) if vma.len() <= FILL_DATA => {
                for page in (vma.start..vma.end).step_by(4096) {
                    if self.fill_private(inner, vma, page).is_err() {
                        break;
                    }
                }
            }
            Source::Object(..) => {}
        }
    }

    /// Gives `[start, end)` of anonymous `vma` frames if it is of modest size.
    pub(super) fn fill_ahead(&self, inner: &mut Inner, vma: &Vma, start: u64, end: u64) {
        if !vma.is_private_anon() || vma.prot.is_empty() {
            return;
        }
        let free = (self.frames().free() as u64) << PAGE_SHIFT;
        let (mut start, len) = (start, end - start);
        if vma.flags.contains(VmaFlags::STACK) {
            start = start.max(end.saturating_sub(FILL_STACK));
        } else if vma.flags.contains(VmaFlags::NORESERVE) && len > FILL_RESERVED {
            return;
        }
        if len > FILL_AHEAD || end - start > free / 4 {
            return;
        }
        // A failure leaves pages for their faults to fill, or to report.
        let _ = self.fill_anon(inner, start, end, vma.access());
    }

    /// Gives the holes of `[start, end)` zeroed frames, whole blocks where they fit.
    pub(super) fn fill_anon(
        &self,
        inner: &mut Inner,
        start: u64,
        end: u64,
        access: Prot,
    ) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let whole = at.is_multiple_of(CHUNK_SIZE) && end - at >= CHUNK_SIZE;
            if whole
                && inner.pages.is_empty_range(at, at + CHUNK_SIZE)
                && let Some(block) = self.frames().alloc_block()
            {
                for offset in (0..CHUNK_SIZE).step_by(4096) {
                    let gpa = crate::platform::Gpa(block.0 + offset);
                    inner.pages.set(at + offset, Pte::new(gpa, access, true));
                    inner.batch.map(at + offset, gpa, access);
                }
                at += CHUNK_SIZE;
                continue;
            }
            if inner.pages.get(at).is_none() {
                let gpa = self.frames().alloc().ok_or(Errno::ENOMEM)?.into_gpa();
                inner.pages.set(at, Pte::new(gpa, access, true));
                inner.batch.map(at, gpa, access);
            }
            at += PAGE_SIZE;
        }
        Ok(())
    }

    /// munmap(2): takes `[start, start+len)` out.
    ///
    /// # Errors
    /// EINVAL, ENOMEM.
    pub fn unmap(&self, start: u64, len: u64) -> Result<(), Errno> {
        let len = round_up(len).ok_or(Errno::EINVAL)?;
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if !start.is_multiple_of(PAGE_SIZE) || len == 0 || end > self.user_end() {
            return Err(Errno::EINVAL);
        }
        self.edit(|inner| {
            let splits = inner.vmas.find(start).is_some_and(|v| v.start < start && v.end > end);
            if splits && inner.vmas.len() >= MAX_MAPPINGS {
                return Err(Errno::ENOMEM);
            }
            self.unmap_locked(inner, start, end);
            Ok(())
        })
    }

    pub(super) fn unmap_locked(&self, inner: &mut Inner, start: u64, end: u64) {
        let removed = inner.vmas.remove(start, end);
        if removed.is_empty() {
            return;
        }
        self.drop_pages(inner, start, end);
        inner.batch.vmas.extend(removed);
    }

    /// Takes the pages of `[start, end)` out of the page map; the mappings stay.
    pub(super) fn drop_pages(&self, inner: &mut Inner, start: u64, end: u64) {
        self.release_sites(inner, start, end);
        let frames = &mut inner.batch.frames;
        let before = frames.len();
        let (mut low, mut high) = (u64::MAX, 0);
        inner.pages.update(start, end, |va, pte| {
            frames.push(pte.gpa());
            low = low.min(va);
            high = va + PAGE_SIZE;
            None
        });
        if frames.len() > before {
            inner.batch.unmap(low, high - low);
        }
    }
}

/// Bytes rounded up to whole pages.
#[must_use]
pub fn round_up(len: u64) -> Option<u64> {
    Some(len.checked_add(PAGE_SIZE - 1)? & !(PAGE_SIZE - 1))
}

/// A free page in `[lo, hi)`, as low as possible.
pub(super) fn gap_in(inner: &Inner, lo: u64, hi: u64) -> Option<u64> {
    let mut at = lo;
    for vma in inner.vmas.overlapping(lo, hi) {
        if at + PAGE_SIZE <= floor(vma) {
            break;
        }
        at = at.max(vma.end);
    }
    (at + PAGE_SIZE <= hi).then_some(at)
}

fn is_free(inner: &Inner, start: u64, len: u64, limit: u64) -> bool {
    let Some(end) = start.checked_add(len).filter(|e| *e <= limit) else { return false };
    inner.vmas.find_at_or_above(start).is_none_or(|next| end <= floor(next))
}

/// The highest address a mapping placed below `vma` may end at.
fn floor(vma: &Vma) -> u64 {
    let guard = if vma.flags.contains(VmaFlags::GROWSDOWN) { STACK_GUARD } else { 0 };
    vma.start.saturating_sub(guard)
}

/// Free room for `len` bytes, as high as possible below `base`.
pub(super) fn gap_below(inner: &Inner, base: u64, len: u64, align: u64) -> Option<u64> {
    let fits = |low: u64, high: u64| {
        let start = high.checked_sub(len)? & !(align - 1);
        (start >= low.max(USER_START)).then_some(start)
    };
    let mut high = base;
    for vma in inner.vmas.overlapping(0, base).rev() {
        if let Some(start) = fits(vma.end, high) {
            return Some(start);
        }
        high = high.min(floor(vma));
    }
    fits(USER_START, high)
}
