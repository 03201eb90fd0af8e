//! mprotect: narrowing and widening what is granted.

use super::{
    Inner, MAX_MAPPINGS, Mm,
    map::round_up,
    pagemap::Pte,
    vma::{Vma, effective},
};
use crate::{
    error::Errno,
    platform::{PAGE_SIZE, Prot},
};

impl Mm {
    /// mprotect(2) without PROT_GROWSDOWN.
    ///
    /// # Errors
    /// EINVAL, ENOMEM, EACCES; what lies before the failing mapping has changed.
    pub fn protect(
        &self,
        start: u64,
        len: u64,
        prot: Prot,
        limits: super::Limits,
    ) -> Result<(), Errno> {
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let len = round_up(len).ok_or(Errno::ENOMEM)?;
        let end = start.checked_add(len).ok_or(Errno::ENOMEM)?;
        if len == 0 {
            return Ok(());
        }
        self.edit(|inner| {
            let mut at = start;
            while at < end {
                let vma = inner.vmas.find(at).ok_or(Errno::ENOMEM)?.clone();
                let to = vma.end.min(end);
                if !vma.max_prot.contains(prot) {
                    return Err(Errno::EACCES);
                }
                self.protect_one(inner, &vma, at, to, prot, limits)?;
                at = to;
            }
            Ok(())
        })
    }

    fn protect_one(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        start: u64,
        end: u64,
        prot: Prot,
        limits: super::Limits,
    ) -> Result<(), Errno> {
        if vma.prot == prot {
            return Ok(());
        }
        if (vma.start < start || end < vma.end) && inner.vmas.len() + 1 >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let changed = Vma { prot, ..vma.clone() };
        if changed.is_data() && !vma.is_data() {
            let after = inner.vmas.data_pages() + ((end - start) / PAGE_SIZE);
            if after.saturating_mul(PAGE_SIZE) > limits.data {
                return Err(Errno::ENOMEM);
            }
            self.admit_commit(&Vma { start, end, ..changed.clone() })?;
        }
        // What may be changed must be the program's own; what cannot run, nobody jumps to.
        self.release_sites(inner, start, end);
        inner.vmas.change(start, end, |v| v.prot = prot);
        self.regrant(inner, &changed, start, end);
        if vma.prot.is_empty() {
            self.fill_ahead(inner, &changed, start, end);
        }
        Ok(())
    }

    /// Brings what is granted on the present pages of `[start, end)` in line with `vma`.
    pub(super) fn regrant(&self, inner: &mut Inner, vma: &Vma, start: u64, end: u64) {
        let access = effective(vma.prot);
        let frames = self.frames();
        let stores = vma.object_page(vma.start).is_some_and(|(o, _)| !o.tracks_writes());
        let grant = |pte: Pte| -> Prot {
            let may_store = pte.prot().contains(Prot::WRITE)
                || if vma.is_shared() {
                    stores
                } else {
                    pte.is_anon() && frames.owners(pte.gpa()) == 1
                };
            if may_store { access } else { access - Prot::WRITE }
        };
        // One edit over the whole range if all of it becomes the same and nothing reappears.
        let (mut uniform, mut first, mut present) = (true, None, false);
        inner.pages.each(start, end, |_, pte| {
            let new = grant(pte);
            uniform &= !pte.prot().is_empty() && first.is_none_or(|f| f == new);
            first = first.or(Some(new));
            present = true;
        });
        if !present {
            return;
        }
        let batch = &mut inner.batch;
        inner.pages.update(start, end, |va, pte| {
            let new = grant(pte);
            if uniform || new == pte.prot() {
            } else if pte.prot().is_empty() {
                batch.map(va, pte.gpa(), new);
            } else if new.is_empty() {
                batch.unmap(va, PAGE_SIZE);
            } else {
                batch.protect(va, PAGE_SIZE, new);
            }
            Some(pte.with_prot(new))
        });
        if let Some(prot) = first.filter(|_| uniform) {
            batch.protect(start, end - start, prot);
        }
    }
}
