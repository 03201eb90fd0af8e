//! Address spaces: x86-64 page tables in guest RAM, edited in bulk from the monitor's side.
//!
//! A space has one set of lower tables. Every CPU has a root (PML4) of its own: the user entries are
//! copies of the space's master, entry `PML4_KERNEL` is the shared kernel half, entry
//! `PML4_PRIVATE` is the CPU's own. Tables are never mapped for guests, so their contents are ours.
//!
//! Order within an edit: entry first, then `Revoker::touch` where an entry that KVM may hold as a
//! *link* changed (a 2 MiB entry gave way to something else), then `Revoker::zap` of the old frames.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use trapgate_firmware::layout;
use trapgate_kernel::{
    frames::Frame,
    platform::{AddressSpace, Edit, Gpa, PAGE_SIZE, PlatformError, Prot, USER_END},
};

use vm_memory::{Bytes, GuestAddress};

use super::{Machine, image::index, revoke::Runs, ring::Ring};

/// Page-table entries (SDM vol. 3, 4.5).
pub(super) mod pte {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use trapgate_kernel::{
        frames::Frames,
        platform::{Gpa, Prot},
    };
    use vm_memory::{Bytes, VolatileMemory};

    pub(in super::super) const PRESENT: u64 = 1;
    pub(in super::super) const WRITE: u64 = 1 << 1;
    pub(in super::super) const USER: u64 = 1 << 2;
    pub(in super::super) const ACCESSED: u64 = 1 << 5;
    pub(in super::super) const DIRTY: u64 = 1 << 6;
    pub(in super::super) const LARGE: u64 = 1 << 7;
    pub(in super::super) const NX: u64 = 1 << 63;
    pub(in super::super) const ADDR: u64 = 0x000f_ffff_ffff_f000;
    /// An entry that leads to another table.
    pub(in super::super) const LINK: u64 = PRESENT | WRITE | USER | ACCESSED;

    /// Permission bits of a user leaf. Accessed and dirty are preset: so a fault on one page takes its
    /// neighbours along, and no walker need write.
    pub(in super::super) fn leaf(prot: Prot) -> u64 {
        let write = if prot.contains(Prot::WRITE) { WRITE | DIRTY } else { 0 };
        let nx = if prot.contains(Prot::EXEC) { 0 } else { NX };
        PRESENT | USER | ACCESSED | write | nx
    }
    pub(in super::super) fn load(frames: &Arc<Frames>, table: Gpa, slot: usize) -> u64 {
        frames.slice(table, 4096).load(slot * 8, Ordering::Relaxed).expect("inside a table")
    }
    pub(in super::super) fn store(frames: &Arc<Frames>, table: Gpa, slot: usize, entry: u64) {
        let page = frames.slice(table, 4096);
        page.store(entry, slot * 8, Ordering::Release).expect("inside a table");
    }
    /// Replaces an entry by what `new` makes of it; both. A walker may set its accessed and dirty bits at any
    /// time: whichever it has set by now is seen here.
    pub(in super::super) fn exchange(
        frames: &Arc<Frames>,
        table: Gpa,
        slot: usize,
        new: impl Fn(u64) -> u64,
    ) -> (u64, u64) {
        let page = frames.slice(table, 4096);
        let entry = page.get_atomic_ref::<AtomicU64>(slot * 8).expect("inside a table");
        let result = entry.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |old| Some(new(old)));
        let old = result.unwrap_or_else(|old| old);
        (old, new(old))
    }
    /// May a processor use what `old` allowed and `new` does not? Only if it was used: a walker sets ACCESSED
    /// before it lets a translation be cached, and DIRTY before it lets a store through (SDM vol. 3, 4.8;
    /// KVM's shadow walker does the same, and takes no neighbour along that is not ACCESSED).
    pub(in super::super) fn narrows(old: u64, new: u64) -> bool {
        old & PRESENT != 0
            && old & ACCESSED != 0
            && (new & PRESENT == 0
                || (old ^ new) & (ADDR | LARGE) != 0
                || old & DIRTY != 0 && old & !new & WRITE != 0
                || !old & new & NX != 0)
    }
}

const LARGE_SIZE: u64 = 2 << 20;

struct Inner {
    /// The user entries every root copies; never loaded into CR3 itself.
    master: Frame,
    roots: Vec<Gpa>,
    /// Of the roots, those that no CPU uses, for the next one.
    idle: Vec<(Frame, Arc<Ring>)>,
    /// The tables are an ended space's and still lead to its frames.
    stale: bool,
}

/// The tables of an ended space. Making new ones costs more than putting right what differs: KVM has to
/// forget what it knows of a page before it can be another table, and then learns all of it anew.
struct Tree {
    master: Frame,
    idle: Vec<(Frame, Arc<Ring>)>,
}

impl Tree {
    /// Gives the pages up. No CPU uses them, so nothing needs a zap: retiring cuts every table out of KVM's
    /// shadow before its page is used again.
    fn retire(self, machine: &Machine) {
        for (root, ring) in self.idle {
            machine.revoker.retire(root, machine);
            machine.servers.rings.give(ring, machine);
        }
        retire_tree(machine, self.master.gpa(), 4);
        machine.revoker.retire(self.master, machine);
    }
}

/// Trees of a space's ended forks; `None` once the space itself has ended.
struct Nursery(Mutex<Option<Vec<Tree>>>);

impl Nursery {
    fn trees(&self) -> MutexGuard<'_, Option<Vec<Tree>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Trees kept for a space's next forks.
const TREES: usize = 2;
/// Roots kept for a space's next CPUs.
const IDLE: usize = 2;

/// One guest address space.
pub(super) struct Space {
    machine: Arc<Machine>,
    inner: Mutex<Inner>,
    /// For its forks.
    nursery: Arc<Nursery>,
    /// Where its own tables go in the end.
    home: Weak<Nursery>,
}

impl Space {
    pub(super) fn new(machine: Arc<Machine>) -> Result<Space, PlatformError> {
        let master = table(&machine)?;
        Ok(Self::made_of(machine, Tree { master, idle: Vec::new() }, false, Weak::new()))
    }
    fn made_of(machine: Arc<Machine>, tree: Tree, stale: bool, home: Weak<Nursery>) -> Space {
        let Tree { master, idle } = tree;
        let roots = idle.iter().map(|(root, _)| root.gpa()).collect();
        let inner = Mutex::new(Inner { master, roots, idle, stale });
        let nursery = Arc::new(Nursery(Mutex::new(Some(Vec::new()))));
        Space { machine, inner, nursery, home }
    }
    /// The KVM space behind `space`.
    pub(super) fn of(space: &Arc<dyn AddressSpace>) -> Result<&Space, PlatformError> {
        space.as_any().downcast_ref().ok_or(PlatformError::Host {
            op: "another platform's address space",
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    }
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A root for one CPU, and the ring to which its entry `PML4_PRIVATE` leads.
    pub(super) fn take_root(&self) -> Result<(Frame, Arc<Ring>), PlatformError> {
        let mut inner = self.inner();
        if inner.stale {
            inner.stale = false;
            self.edit(&inner, &[Edit::Unmap { va: 0, len: USER_END }])?;
        }
        if let Some(pair) = inner.idle.pop() {
            return Ok(pair);
        }
        let ring = self.machine.servers.rings.take(&self.machine)?;
        match self.new_root(&mut inner, ring.root_entry()) {
            Ok(root) => Ok((root, ring)),
            Err(error) => {
                self.machine.servers.rings.give(ring, &self.machine);
                Err(error)
            }
        }
    }
    fn new_root(&self, inner: &mut Inner, private: u64) -> Result<Frame, PlatformError> {
        let root = table(&self.machine)?;
        let frames = &self.machine.ram.frames;
        for slot in 0..layout::PML4_USER {
            let entry = pte::load(frames, inner.master.gpa(), slot);
            if entry != 0 {
                pte::store(frames, root.gpa(), slot, entry);
            }
        }
        let kernel = self.machine.image.kernel_half.0 | pte::LINK;
        pte::store(frames, root.gpa(), layout::PML4_KERNEL, kernel);
        pte::store(frames, root.gpa(), layout::PML4_PRIVATE, private);
        inner.roots.push(root.gpa());
        Ok(root)
    }
    /// The byte at `va`, if it is mapped.
    pub(super) fn peek(&self, va: u64) -> Option<u8> {
        let frames = &self.machine.ram.frames;
        let inner = self.inner();
        let mut table = inner.master.gpa();
        for level in (1..=4u32).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry = pte::load(frames, table, index(va, shift));
            if entry & pte::PRESENT == 0 || va >= USER_END {
                return None;
            }
            if level == 1 || entry & pte::LARGE != 0 {
                let offset = va & ((1 << shift) - 1);
                let gpa = (entry & pte::ADDR) + offset;
                return frames.memory().read_obj(GuestAddress(gpa)).ok();
            }
            table = Gpa(entry & pte::ADDR);
        }
        None
    }
    /// Takes back a root that no vCPU runs on any more, and its ring.
    pub(super) fn give_root(&self, root: Frame, ring: Arc<Ring>) {
        self.machine.servers.rings.rest(&ring);
        let mut inner = self.inner();
        if inner.idle.len() < IDLE {
            inner.idle.push((root, ring));
            return;
        }
        inner.roots.retain(|gpa| *gpa != root.gpa());
        drop(inner);
        self.machine.revoker.retire(root, &self.machine);
        self.machine.servers.rings.give(ring, &self.machine);
    }
    /// Makes `edits` in the locked tables.
    fn edit(&self, inner: &Inner, edits: &[Edit]) -> Result<(), PlatformError> {
        let mut editor = Editor { machine: &self.machine, inner, runs: Runs::default() };
        let mut result = Ok(());
        let mut stores = Runs::default();
        for edit in edits {
            let (va, len, op) = match *edit {
                Edit::Map { va, gpa, len, prot } => {
                    let offset = gpa.0.wrapping_sub(va);
                    // A page by itself takes no neighbour along. Whether it was used is then known, and if
                    // not, taking it away again costs nothing.
                    let alone = edits.len() == 1 && len == PAGE_SIZE;
                    if prot.contains(Prot::WRITE) && !alone {
                        stores.push(gpa.0, len);
                    }
                    let unused = if alone { pte::ACCESSED | pte::DIRTY } else { 0 };
                    (va, len, Op::Map { offset, bits: pte::leaf(prot) & !unused })
                }
                Edit::Protect { va, len, prot } if !prot.is_empty() => {
                    (va, len, Op::Protect { bits: pte::leaf(prot) })
                }
                Edit::Unmap { va, len } | Edit::Protect { va, len, .. } => (va, len, Op::Unmap),
            };
            let end = va.checked_add(len).filter(|end| *end <= USER_END);
            let Some(end) = end.filter(|_| (va | len).is_multiple_of(PAGE_SIZE)) else {
                result = Err(PlatformError::Host {
                    op: "address space edit",
                    source: std::io::ErrorKind::InvalidInput.into(),
                });
                break;
            };
            if va < end {
                result = editor.edit(inner.master.gpa(), 4, va, end, op);
                if result.is_err() {
                    break;
                }
            }
        }
        // What was done so far must hold even if the rest failed.
        self.machine.revoker.zap(editor.runs, &self.machine.counters);
        if result.is_ok() {
            self.machine.revoker.populate(stores);
        }
        result
    }
}

/// The first edits of a space that has an ended one's tables: they map what they map and remove all else.
fn over_stale(edits: &[Edit]) -> Vec<Edit> {
    let everything = Edit::Unmap { va: 0, len: USER_END };
    let mut all = Vec::with_capacity(2 * edits.len() + 1);
    let mut at = 0;
    for edit in edits {
        let Edit::Map { va, len, .. } = *edit else { return [&[everything], edits].concat() };
        let Some(end) = va.checked_add(len).filter(|end| va >= at && *end <= USER_END) else {
            return [&[everything], edits].concat();
        };
        if va > at {
            all.push(Edit::Unmap { va: at, len: va - at });
        }
        all.push(*edit);
        at = end;
    }
    all.push(Edit::Unmap { va: at, len: USER_END - at });
    all
}

/// A page for a table, zeroed.
pub(super) fn table(machine: &Machine) -> Result<Frame, PlatformError> {
    let frame = machine.ram.frames.alloc().or_else(|| {
        machine.revoker.settle(machine);
        machine.ram.frames.alloc()
    });
    let frame = frame.ok_or(PlatformError::OutOfMemory("page tables"))?;
    machine.revoker.count_table();
    Ok(frame)
}

impl AddressSpace for Space {
    fn apply(&self, edits: &[Edit]) -> Result<(), PlatformError> {
        let mut inner = self.inner();
        if std::mem::take(&mut inner.stale) {
            return self.edit(&inner, &over_stale(edits));
        }
        self.edit(&inner, edits)
    }
    fn fork(&self) -> Result<Option<Arc<dyn AddressSpace>>, PlatformError> {
        let tree = self.nursery.trees().as_mut().and_then(Vec::pop);
        let home = Arc::downgrade(&self.nursery);
        let (tree, stale) = match tree {
            Some(tree) => (tree, true),
            None => (Tree { master: table(&self.machine)?, idle: Vec::new() }, false),
        };
        Ok(Some(Arc::new(Self::made_of(self.machine.clone(), tree, stale, home))))
    }
    fn check(&self, granted: &dyn Fn(u64) -> Option<(Gpa, Prot)>) -> Result<(), String> {
        let inner = self.inner();
        // Tables of another space, which nobody has used since.
        if inner.stale {
            return Ok(());
        }
        super::check::tables(&self.machine, inner.master.gpa(), &inner.roots, granted)
    }
    fn end(&self) -> Result<(), PlatformError> {
        // No root leads here any more, and a root's page is cut out of KVM's shadow and flushed from every
        // vCPU before it is used again. What KVM still knows of the space nobody can reach.
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let tree = Tree { master: inner.master.clone(), idle: std::mem::take(&mut inner.idle) };
        for tree in self.nursery.trees().take().into_iter().flatten() {
            tree.retire(&self.machine);
        }
        if let Some(home) = self.home.upgrade()
            && let Some(trees) = home.trees().as_mut()
            && trees.len() < TREES
        {
            // What it still leads to is put right before a CPU gets there (`over_stale`).
            trees.push(tree);
            return;
        }
        tree.retire(&self.machine);
    }
}

/// Retires all tables below `table`, which is at `level`.
fn retire_tree(machine: &Machine, table: Gpa, level: u32) {
    if level == 1 {
        return;
    }
    for slot in 0..512 {
        let entry = pte::load(&machine.ram.frames, table, slot);
        if entry & pte::PRESENT != 0 && entry & pte::LARGE == 0 {
            let child = Gpa(entry & pte::ADDR);
            retire_tree(machine, child, level - 1);
            machine.revoker.retire(Frame::from_gpa(&machine.ram.frames, child), machine);
        }
    }
}

#[derive(Clone, Copy)]
enum Op {
    /// Translate to the address plus `offset`.
    Map {
        offset: u64,
        bits: u64,
    },
    Unmap,
    Protect {
        bits: u64,
    },
}

impl Op {
    /// What a leaf for `va` becomes that was `old`.
    fn leaf(self, old: u64, va: u64) -> u64 {
        match self {
            Op::Map { offset, bits } => {
                let new = va.wrapping_add(offset) | bits;
                // The same page again, say after a fault that another thread had: it was used before.
                let same = old & pte::PRESENT != 0 && (old ^ new) & (pte::ADDR | pte::LARGE) == 0;
                let dirty = if bits & pte::WRITE != 0 { pte::DIRTY } else { 0 };
                if same { new | old & (pte::ACCESSED | dirty) } else { new }
            }
            Op::Unmap => 0,
            Op::Protect { .. } if old & pte::PRESENT == 0 => old,
            // What was not used so far is not used by this. A store that becomes possible is seen when it
            // happens: it has to fault anyway.
            Op::Protect { bits } if old & pte::LARGE != 0 => old & (pte::ADDR | pte::LARGE) | bits,
            Op::Protect { bits } => {
                let used = old & pte::ACCESSED | old & bits & pte::DIRTY;
                old & (pte::ADDR | pte::LARGE) | bits & !(pte::ACCESSED | pte::DIRTY) | used
            }
        }
    }
}

struct Editor<'a> {
    machine: &'a Machine,
    inner: &'a Inner,
    /// Frames some translation to which was taken away.
    runs: Runs,
}

impl Editor<'_> {
    fn load(&self, table: Gpa, slot: usize) -> u64 {
        pte::load(&self.machine.ram.frames, table, slot)
    }
    fn store(&self, level: u32, table: Gpa, slot: usize, entry: u64) {
        pte::store(&self.machine.ram.frames, table, slot, entry);
        if level == 4 {
            for root in &self.inner.roots {
                pte::store(&self.machine.ram.frames, *root, slot, entry);
            }
        }
    }
    fn note(&mut self, old: u64, new: u64, span: u64) {
        if pte::narrows(old, new) {
            self.runs.push(old & pte::ADDR, span);
        }
    }

    /// Applies `op` to `[lo, hi)`, which lies within the range of `table` at `level`.
    fn edit(
        &mut self,
        table: Gpa,
        level: u32,
        lo: u64,
        hi: u64,
        op: Op,
    ) -> Result<(), PlatformError> {
        let shift = 12 + 9 * (level - 1);
        let span = 1u64 << shift;
        let mut va = lo;
        while va < hi {
            let next = ((va & !(span - 1)) + span).min(hi);
            let slot = index(va, shift);
            let old = self.load(table, slot);
            if level == 1 {
                if op.leaf(old, va) != old {
                    let frames = &self.machine.ram.frames;
                    let (old, new) = pte::exchange(frames, table, slot, |old| op.leaf(old, va));
                    self.note(old, new, span);
                }
            } else if level == 2 && next - va == span && self.large(table, slot, old, va, op)? {
                // Done with one entry.
            } else {
                self.descend(table, slot, level, (va, next), old, op)?;
            }
            va = next;
        }
        Ok(())
    }

    /// Applies `op` to the part `range` of one entry through the table below it.
    fn descend(
        &mut self,
        table: Gpa,
        slot: usize,
        level: u32,
        range: (u64, u64),
        old: u64,
        op: Op,
    ) -> Result<(), PlatformError> {
        let child = if old & pte::PRESENT == 0 {
            if !matches!(op, Op::Map { .. }) {
                return Ok(());
            }
            let child = self::table(self.machine)?.into_gpa();
            self.store(level, table, slot, child.0 | pte::LINK);
            child
        } else if old & pte::LARGE != 0 {
            self.split(table, slot, old)?
        } else {
            Gpa(old & pte::ADDR)
        };
        self.edit(child, level - 1, range.0, range.1, op)?;
        if matches!(op, Op::Unmap) && (0..512).all(|slot| self.load(child, slot) == 0) {
            self.store(level, table, slot, 0);
            self.retire(child);
        }
        Ok(())
    }

    fn retire(&self, table: Gpa) {
        let frame = Frame::from_gpa(&self.machine.ram.frames, table);
        self.machine.revoker.retire(frame, self.machine);
    }

    /// Handles a whole 2 MiB entry at once if that is possible.
    fn large(
        &mut self,
        table: Gpa,
        slot: usize,
        old: u64,
        va: u64,
        op: Op,
    ) -> Result<bool, PlatformError> {
        let was_large = old & pte::PRESENT != 0 && old & pte::LARGE != 0;
        let new = match op {
            Op::Map { offset, bits } if va.wrapping_add(offset).is_multiple_of(LARGE_SIZE) => {
                va.wrapping_add(offset) | bits | pte::LARGE
            }
            Op::Unmap | Op::Protect { .. } if was_large => op.leaf(old, va),
            _ => return Ok(false),
        };
        if was_large {
            self.note(old, new, LARGE_SIZE);
            if (old ^ new) & (pte::ADDR | pte::LARGE) == 0 {
                self.store(2, table, slot, new);
                return Ok(true);
            }
        }
        if old & pte::PRESENT != 0 {
            // KVM may hold the old target as a link under this entry.
            self.store(2, table, slot, 0);
            self.machine.revoker.touch(&[table], self.machine)?;
        }
        if old & pte::PRESENT != 0 && !was_large {
            let child = Gpa(old & pte::ADDR);
            for i in 0..512 {
                let (leaf, gone) = pte::exchange(&self.machine.ram.frames, child, i, |_| 0);
                self.note(leaf, gone, PAGE_SIZE);
            }
            self.retire(child);
        }
        if new != 0 {
            self.store(2, table, slot, new);
        }
        Ok(true)
    }

    /// Replaces a 2 MiB entry by a table of 512 entries that mean the same.
    fn split(&mut self, table: Gpa, slot: usize, old: u64) -> Result<Gpa, PlatformError> {
        let child = self::table(self.machine)?.into_gpa();
        let bits = old & !(pte::ADDR | pte::LARGE);
        for i in 0..512u64 {
            let entry = ((old & pte::ADDR) + i * PAGE_SIZE) | bits;
            pte::store(&self.machine.ram.frames, child, index(i << 12, 12), entry);
        }
        self.store(2, table, slot, child.0 | pte::LINK);
        self.machine.revoker.touch(&[table], self.machine)?;
        Ok(child)
    }
}

/// Is `address` canonical with 48 address bits?
pub(super) fn canonical(address: u64) -> bool {
    (address.cast_signed() << 16 >> 16).cast_unsigned() == address
}

#[cfg(test)]
mod tests {
    use trapgate_kernel::platform::Prot;

    use super::*;

    #[test]
    fn narrowing_is_what_takes_something_away() {
        let rw = pte::leaf(Prot::READ | Prot::WRITE) | 0x1000;
        let ro = pte::leaf(Prot::READ) | 0x1000;
        let rx = pte::leaf(Prot::READ | Prot::EXEC) | 0x1000;
        assert!(pte::narrows(rw, ro) && pte::narrows(rw, 0) && pte::narrows(rx, ro));
        assert!(pte::narrows(ro, ro | 0x2000), "redirected");
        assert!(!pte::narrows(ro, rw) && !pte::narrows(0, rw) && !pte::narrows(ro, rx));
        // Never used; used, but for no store.
        let (unused, clean) = (rw & !(pte::ACCESSED | pte::DIRTY), rw & !pte::DIRTY);
        assert!(!pte::narrows(unused, 0) && !pte::narrows(unused, ro | 0x2000));
        assert!(!pte::narrows(clean, ro) && pte::narrows(clean, 0));
        assert!(pte::narrows(clean, ro | 0x2000) && pte::narrows(clean | pte::DIRTY, ro));
    }
    #[test]
    fn protection_keeps_what_was_used() {
        let rw = pte::leaf(Prot::READ | Prot::WRITE);
        let (widen, narrow) =
            (Op::Protect { bits: rw }, Op::Protect { bits: pte::leaf(Prot::READ) });
        let dirty = rw | 0x1000;
        let read_only = narrow.leaf(dirty, 0);
        assert_eq!(read_only, pte::leaf(Prot::READ) | 0x1000);
        // Writable again, but not yet stored to.
        assert_eq!(widen.leaf(read_only, 0), dirty & !pte::DIRTY);
        assert_eq!(widen.leaf(dirty, 0), dirty);
        let unused = dirty & !(pte::ACCESSED | pte::DIRTY);
        let again = Op::Map { offset: 0x1000, bits: rw & !(pte::ACCESSED | pte::DIRTY) };
        assert_eq!((again.leaf(dirty, 0), again.leaf(0, 0)), (dirty, unused));
        assert_eq!(again.leaf(dirty ^ 0x3000, 0), unused, "another page");
        assert_eq!(widen.leaf(unused, 0), unused);
    }
    #[test]
    fn canonical_addresses() {
        assert!(canonical(0) && canonical(0x7fff_ffff_ffff) && canonical(0xffff_8000_0000_0000));
        assert!(!canonical(0x8000_0000_0000) && !canonical(0xfffe_ffff_ffff_ffff));
    }
}
