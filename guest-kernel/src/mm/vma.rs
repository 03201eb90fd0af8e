//! Mappings (VMAs) and the ordered set of them.
//!
//! Invariants: VMAs are page-aligned, not empty, do not overlap; neighbours that could be one are
//! merged. Counters are kept as VMAs come and go.

use std::{collections::BTreeMap, sync::Arc};

use bitflags::bitflags;

use super::object::MemObject;
use crate::{
    fs::file::OpenFile,
    platform::{PAGE_SHIFT, Prot},
};

bitflags! {
    /// Properties of a mapping.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u32 {
        /// Stores are seen by all mappers.
        const SHARED = 1;
        /// Grows down on a fault below it (stacks).
        const GROWSDOWN = 1 << 1;
        /// Not charged against memory.
        const NORESERVE = 1 << 2;
        /// Locked by mlock(2).
        const LOCKED = 1 << 3;
        /// Not copied by fork (MADV_DONTFORK).
        const DONTFORK = 1 << 4;
        /// Empty in a fork's child (MADV_WIPEONFORK).
        const WIPEONFORK = 1 << 5;
        /// Left out of core dumps (MADV_DONTDUMP).
        const DONTDUMP = 1 << 6;
        /// MADV_HUGEPAGE.
        const HUGEPAGE = 1 << 7;
        /// MADV_NOHUGEPAGE.
        const NOHUGEPAGE = 1 << 8;
        /// MADV_SEQUENTIAL.
        const SEQUENTIAL = 1 << 9;
        /// MADV_RANDOM.
        const RANDOM = 1 << 10;
        /// A thread's stack (MAP_STACK): only its top is worth filling ahead.
        const STACK = 1 << 11;
        /// Cannot be resized or moved (vdso).
        const DONTEXPAND = 1 << 12;
        /// Pages are filled as they are mapped (mlock without MLOCK_ONFAULT).
        const POPULATE = 1 << 13;
    }
}

/// Where a mapping's pages come from.
#[derive(Clone)]
pub enum Source {
    /// Zero pages of the process's own.
    Anon,
    /// An object's pages from page `.1` on.
    Object(Arc<dyn MemObject>, u64),
}

/// One mapping.
#[derive(Clone)]
pub struct Vma {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Access as asked for.
    pub prot: Prot,
    /// Access mprotect(2) may grant.
    pub max_prot: Prot,
    /// Properties.
    pub flags: VmaFlags,
    /// Where pages come from.
    pub source: Source,
    /// The file mapped, kept open.
    pub file: Option<Arc<OpenFile>>,
    /// What `/proc/PID/maps` calls it if it has no file (`[heap]`, `[anon:…]`).
    pub name: Option<Arc<str>>,
    /// The SysV segment attached here.
    pub shm: Option<Arc<super::shm::Attachment>>,
}

impl Vma {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }
    /// Never true: a mapping has at least a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// Pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.len() >> PAGE_SHIFT
    }
    /// Stores are seen by all mappers.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }
    /// Private memory without a file behind it.
    #[must_use]
    pub fn is_private_anon(&self) -> bool {
        matches!(self.source, Source::Anon)
    }
    /// What the hardware grants when nothing stands in the way of a store.
    #[must_use]
    pub fn access(&self) -> Prot {
        effective(self.prot)
    }
    /// The object's page at address `va`.
    #[must_use]
    pub fn object_page(&self, va: u64) -> Option<(&Arc<dyn MemObject>, u64)> {
        match &self.source {
            Source::Anon => None,
            Source::Object(object, first) => {
                Some((object, first + ((va - self.start) >> PAGE_SHIFT)))
            }
        }
    }
    /// Counts towards RLIMIT_DATA: private, writable, not a stack.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE)
            && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
    }
    /// Cuts at `at`, which lies strictly inside; the upper part is returned.
    fn split_off(&mut self, at: u64) -> Vma {
        let mut upper = self.clone();
        upper.start = at;
        if let Source::Object(_, first) = &mut upper.source {
            *first += (at - self.start) >> PAGE_SHIFT;
        }
        self.end = at;
        upper
    }
    fn continues(&self, next: &Vma) -> bool {
        let same_source = match (&self.source, &next.source) {
            (Source::Anon, Source::Anon) => true,
            (Source::Object(a, first), Source::Object(b, second)) => {
                Arc::ptr_eq(a, b) && first + self.pages() == *second
            }
            _ => false,
        };
        let same_file = match (&self.file, &next.file) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same_source
            && same_file
            && self.end == next.start
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && self.name == next.name
            && self.shm.is_none()
            && next.shm.is_none()
    }
}

/// What x86-64 grants for an access asked for: any access implies loads.
#[must_use]
pub fn effective(prot: Prot) -> Prot {
    if prot.is_empty() { prot } else { prot | Prot::READ }
}

/// The mappings of an address space.
#[derive(Default, Clone)]
pub struct VmaTree {
    tree: BTreeMap<u64, Vma>,
    total: u64,
    data: u64,
    locked: u64,
}

impl VmaTree {
    /// Mappings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.len()
    }
    /// There is no mapping.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }
    /// Pages mapped in all.
    #[must_use]
    pub fn total_pages(&self) -> u64 {
        self.total
    }
    /// Pages that count towards RLIMIT_DATA.
    #[must_use]
    pub fn data_pages(&self) -> u64 {
        self.data
    }
    /// Pages locked by mlock(2).
    #[must_use]
    pub fn locked_pages(&self) -> u64 {
        self.locked
    }
    /// All, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.tree.values()
    }
    /// The mapping that holds `addr`.
    #[must_use]
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        let (_, vma) = self.tree.range(..=addr).next_back()?;
        (addr < vma.end).then_some(vma)
    }
    /// The first mapping that ends above `addr`.
    #[must_use]
    pub fn find_at_or_above(&self, addr: u64) -> Option<&Vma> {
        self.find(addr).or_else(|| self.tree.range(addr..).next().map(|(_, v)| v))
    }
    /// The last mapping that ends at or below `addr`.
    #[must_use]
    pub fn below(&self, addr: u64) -> Option<&Vma> {
        self.tree.range(..addr).next_back().map(|(_, v)| v)
    }
    /// Mappings that overlap `[start, end)`, in order.
    pub fn overlapping(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        let from = self.find(start).map_or(start, |v| v.start);
        self.tree.range(from..end.max(from)).map(|(_, v)| v)
    }
    /// Every byte of `[start, end)` is mapped.
    #[must_use]
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= end
    }
    fn count(&mut self, vma: &Vma, add: bool) {
        let pages = vma.pages();
        let apply = |counter: &mut u64, on: bool| {
            if on && add {
                *counter += pages;
            } else if on {
                *counter -= pages;
            }
        };
        apply(&mut self.total, true);
        apply(&mut self.data, vma.is_data());
        apply(&mut self.locked, vma.flags.contains(VmaFlags::LOCKED));
    }
    fn add(&mut self, vma: Vma) {
        self.count(&vma, true);
        let old = self.tree.insert(vma.start, vma);
        debug_assert!(old.is_none(), "overlapping mappings");
    }
    fn take(&mut self, start: u64) -> Option<Vma> {
        let vma = self.tree.remove(&start)?;
        self.count(&vma, false);
        Some(vma)
    }
    fn split(&mut self, at: u64) {
        let Some(start) = self.find(at).map(|v| v.start).filter(|s| *s < at) else { return };
        if let Some(mut lower) = self.take(start) {
            let upper = lower.split_off(at);
            self.add(lower);
            self.add(upper);
        }
    }
    /// Takes all of `[start, end)` out, splitting at its ends.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        self.split(start);
        self.split(end);
        let starts: Vec<u64> = self.tree.range(start..end).map(|(s, _)| *s).collect();
        starts.into_iter().filter_map(|s| self.take(s)).collect()
    }
    /// Puts a mapping where nothing is, merging it with its neighbours.
    pub fn insert(&mut self, mut vma: Vma) {
        if let Some(before) = self.below(vma.start).filter(|b| b.continues(&vma)).map(|b| b.start)
            && let Some(before) = self.take(before)
        {
            vma.start = before.start;
            vma.source = before.source;
        }
        let after = self.tree.get(&vma.end).filter(|a| vma.continues(a)).map(|a| a.start);
        if let Some(after) = after.and_then(|a| self.take(a)) {
            vma.end = after.end;
        }
        self.add(vma);
    }
    /// Changes all mappings in `[start, end)`, splitting at its ends and merging afterwards.
    pub fn change(&mut self, start: u64, end: u64, mut with: impl FnMut(&mut Vma)) {
        for mut vma in self.remove(start, end) {
            with(&mut vma);
            self.insert(vma);
        }
    }
}
