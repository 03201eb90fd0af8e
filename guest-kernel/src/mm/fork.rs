//! fork: a copy of an address space that shares its frames until one side stores.

use std::sync::Arc;

use super::{
    Mm,
    batch::Batch,
    layout::Layout,
    pagemap::{PageMap, Pte},
    vma::{Vma, VmaFlags, VmaTree},
};
use crate::{
    error::Errno,
    platform::{PAGE_SIZE, Prot},
};

impl Mm {
    /// A copy for a new process. The pages that hold `hot` addresses (the caller's stack),
    /// and those stored to after earlier forks, are copied at once: both sides will store there.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn fork(&self, hot: &[u64]) -> Result<Arc<Mm>, Errno> {
        let child = self.for_fork()?;
        child.set_stack_limit(self.stack_limit());
        let mut hot: Vec<u64> = hot.iter().map(|a| a & !(PAGE_SIZE - 1)).collect();
        self.edit(|parent| {
            if parent.broken {
                return Err(Errno::ENOMEM);
            }
            let layout: Layout = parent.layout.clone();
            let stored = parent.stored.clone();
            hot.extend(stored.list());
            let mut vmas = VmaTree::default();
            let mut pages = PageMap::default();
            let mut batch = Batch::default();
            for vma in parent.vmas.iter() {
                if vma.flags.contains(VmaFlags::DONTFORK) {
                    continue;
                }
                let mut copy: Vma = vma.clone();
                copy.flags -= VmaFlags::LOCKED;
                if let Some((object, _)) = vma.object_page(vma.start) {
                    object.mappers().add(&child);
                }
                vmas.insert(copy);
                if vma.flags.contains(VmaFlags::WIPEONFORK) {
                    continue;
                }
                let frames = self.frames();
                let shared = vma.is_shared();
                let revoke = &mut parent.batch;
                parent.pages.update(vma.start, vma.end, |va, pte| {
                    let writable = pte.prot().contains(Prot::WRITE);
                    // The parent may have lost its own grant to an earlier fork.
                    if !shared
                        && vma.prot.contains(Prot::WRITE)
                        && hot.contains(&va)
                        && let Some(copy) = frames.alloc_copy(pte.gpa())
                    {
                        let gpa = copy.into_gpa();
                        pages.set(va, Pte::new(gpa, vma.access(), true));
                        batch.map(va, gpa, vma.access());
                        return Some(pte);
                    }
                    frames.retain(pte.gpa());
                    let prot = if shared { pte.prot() } else { pte.prot() - Prot::WRITE };
                    pages.set(va, pte.with_prot(prot));
                    if !prot.is_empty() {
                        batch.map(va, pte.gpa(), prot);
                    }
                    if !shared && writable {
                        revoke.protect(va, PAGE_SIZE, prot);
                    }
                    Some(pte.with_prot(prot))
                });
            }
            child.edit(|inner| {
                inner.layout = layout;
                inner.stored = stored;
                child.inherit_sites(inner, parent);
                inner.vmas = vmas;
                inner.pages = pages;
                inner.batch = batch;
                // The child's edits are made before the parent's stores are revoked; the child
                // does not run yet.
                self.commit(parent);
                child.commit(inner);
                if inner.broken || parent.broken { Err(Errno::ENOMEM) } else { Ok(()) }
            })
        })?;
        Ok(child)
    }
}
