//! mremap: growing, shrinking and moving mappings with their pages.

use bitflags::bitflags;

use super::{
    Inner, Limits, MAX_MAPPINGS, Mm,
    map::{MapRequest, Place, round_up},
    pagemap::Pte,
    vma::{Source, Vma, VmaFlags},
};
use crate::{
    error::Errno,
    platform::{PAGE_SHIFT, PAGE_SIZE},
};

bitflags! {
    /// mremap(2) flags.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RemapFlags: u64 {
        /// May move.
        const MAYMOVE = 1;
        /// Moves to the address given.
        const FIXED = 2;
        /// Leaves the old range mapped and empty.
        const DONTUNMAP = 4;
    }
}

impl Mm {
    /// mremap(2); the mapping's new address.
    ///
    /// # Errors
    /// As mremap(2).
    pub fn remap(
        &self,
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: RemapFlags,
        new: u64,
        limits: Limits,
    ) -> Result<u64, Errno> {
        use RemapFlags as F;
        let fixed = flags.contains(F::FIXED);
        let keep = flags.contains(F::DONTUNMAP);
        if !old.is_multiple_of(PAGE_SIZE)
            || (fixed || keep) && !flags.contains(F::MAYMOVE)
            || keep && round_up(old_len) != round_up(new_len)
        {
            return Err(Errno::EINVAL);
        }
        let old_len = round_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = round_up(new_len).filter(|l| *l > 0).ok_or(Errno::EINVAL)?;
        let old_end = old.checked_add(old_len).ok_or(Errno::EINVAL)?;
        if fixed || keep {
            let new_end = new.checked_add(new_len).ok_or(Errno::EINVAL)?;
            let overlaps = new < old_end && old < new_end;
            if new_len > self.user_end()
                || new_end > self.user_end()
                || !new.is_multiple_of(PAGE_SIZE)
                || overlaps
            {
                return Err(Errno::EINVAL);
            }
        }
        self.edit(|inner| {
            if inner.broken || inner.vmas.len() + 3 >= MAX_MAPPINGS {
                return Err(Errno::ENOMEM);
            }
            let vma = inner.vmas.find(old).ok_or(Errno::EFAULT)?.clone();
            if fixed {
                return self.move_to(
                    inner,
                    &vma,
                    old,
                    old_len,
                    new_len,
                    Place::Fixed(new),
                    keep,
                    limits,
                );
            }
            if keep {
                let place = Place::Hint(new);
                return self.move_to(inner, &vma, old, old_len, new_len, place, true, limits);
            }
            if new_len <= old_len && old_len > 0 {
                if new_len < old_len {
                    self.unmap_locked(inner, old + new_len, old_end);
                }
                return Ok(old);
            }
            check_source(&vma, old, old_len, new_len)?;
            if old_len > 0 && vma.end == old_end && self.grow(inner, &vma, old, new_len, limits)? {
                return Ok(old);
            }
            if !flags.contains(F::MAYMOVE) {
                return Err(Errno::ENOMEM);
            }
            self.move_to(inner, &vma, old, old_len, new_len, Place::Hint(0), false, limits)
        })
    }

    /// Extends in place if the room behind is free.
    fn grow(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        old: u64,
        new_len: u64,
        limits: Limits,
    ) -> Result<bool, Errno> {
        let Some(end) = old.checked_add(new_len).filter(|e| *e <= self.user_end()) else {
            return Ok(false);
        };
        if inner.vmas.overlapping(vma.end, end).next().is_some() {
            return Ok(false);
        }
        let request = continuation(vma, Place::Fixed(vma.end), end - vma.end, vma.end);
        self.map_locked(inner, request, limits)?;
        Ok(true)
    }

    #[expect(clippy::too_many_arguments, reason = "mremap's own")]
    fn move_to(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        old: u64,
        old_len: u64,
        new_len: u64,
        place: Place,
        keep: bool,
        limits: Limits,
    ) -> Result<u64, Errno> {
        check_source(vma, old, old_len, new_len)?;
        self.release_sites(inner, old, old + old_len.min(new_len));
        if keep && !vma.is_private_anon() && !vma.is_shared() && vma.file.is_none() {
            return Err(Errno::EINVAL);
        }
        let moved = old_len.min(new_len);
        // The new mapping starts without pages: they come from the old one.
        let mut request = continuation(vma, place, new_len, old);
        request.prot = crate::platform::Prot::empty();
        let prot = vma.prot;
        let growth = new_len - if keep { 0 } else { moved };
        let after = inner.vmas.total_pages() + (growth >> PAGE_SHIFT);
        if after.saturating_mul(PAGE_SIZE) > limits.address_space {
            return Err(Errno::ENOMEM);
        }
        let start =
            self.map_locked(inner, request, Limits { locked: limits.locked, ..Limits::NONE })?;
        inner.vmas.change(start, start + new_len, |v| v.prot = prot);
        let mut pages: Vec<(u64, Pte)> = Vec::new();
        if old_len > 0 {
            inner.pages.update(old, old + moved, |va, pte| {
                pages.push((va, pte));
                None
            });
            if !pages.is_empty() {
                inner.batch.unmap(old, moved);
            }
        }
        for (va, pte) in pages {
            let to = start + (va - old);
            inner.pages.set(to, pte);
            if !pte.prot().is_empty() {
                inner.batch.map(to, pte.gpa(), pte.prot());
            }
        }
        if !keep && old_len > 0 {
            self.unmap_locked(inner, old, old + old_len);
        }
        if new_len > moved {
            let grown = inner.vmas.find(start + moved).cloned();
            if let Some(grown) = grown {
                self.fill_ahead(inner, &grown, start + moved, start + new_len);
            }
        }
        Ok(start)
    }
}

/// What mremap refuses by the old mapping's nature (`vma_to_resize()`).
fn check_source(vma: &Vma, old: u64, old_len: u64, new_len: u64) -> Result<(), Errno> {
    if old_len == 0 && !vma.is_shared() {
        return Err(Errno::EINVAL);
    }
    if old_len > vma.end - old {
        return Err(Errno::EFAULT);
    }
    if new_len > old_len && vma.flags.contains(VmaFlags::DONTEXPAND) {
        return Err(Errno::EFAULT);
    }
    Ok(())
}

/// A mapping like `vma` whose first page is what `vma` has, or would have, at `at`.
fn continuation(vma: &Vma, place: Place, len: u64, at: u64) -> MapRequest {
    let source = match &vma.source {
        Source::Anon => Source::Anon,
        Source::Object(object, first) => {
            Source::Object(object.clone(), first + ((at - vma.start) >> PAGE_SHIFT))
        }
    };
    MapRequest {
        place,
        len,
        prot: vma.prot,
        max_prot: vma.max_prot,
        flags: vma.flags,
        source,
        file: vma.file.clone(),
        name: vma.name.clone(),
        shm: vma.shm.clone(),
        populate: false,
    }
}
