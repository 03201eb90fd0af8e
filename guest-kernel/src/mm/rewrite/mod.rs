//! Hot call sites enter the gate by a jump (docs/rewriting.md).
//!
//! The instruction before the SYSCALL becomes a jump to a *trampoline*: that instruction, RCX set to where
//! the program goes on, a jump to the platform's gate. The page is exchanged for a changed copy by one edit
//! of the page map, so another CPU runs the old code or the new and never half of each; no thread need be
//! stopped.
//!
//! Invariant: while a site is in [`Sites::live`], its jump and its trampoline are in place. Whatever takes
//! either away, or lets the program change it, calls [`Mm::release_sites`] first.

mod site;

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub use self::site::Refusal;
#[cfg(any(test, feature = "fuzzing"))]
pub use self::site::hostile_site;
use self::site::{Displaced, LOOK_AHEAD, LOOK_BACK, SYSCALL, displaced};
use super::{
    Inner, MAX_MAPPINGS, Mm,
    map::{gap_below, gap_in},
    pagemap::Pte,
    vma::{Source, Vma, VmaFlags},
};
use crate::{
    num::Word,
    platform::{Gpa, PAGE_SIZE, Prot, USER_START},
};

/// Calls a site must have made: rewriting it costs about as much as 100 SYSCALLs of a deprivileged host.
const HOT: u32 = 128;
/// Sites counted at a time.
const COUNTED: usize = 4096;
/// Sites rewritten in one address space.
const MOST: usize = 1024;
/// Pages of trampolines in one address space.
const MOST_PAGES: usize = 128;
/// How far a jump reaches, less what rounding to pages may add.
const REACH: u64 = (1 << 31) - (1 << 16);
/// At the start of a trampoline page: the gate's address.
const POINTER: u16 = 8;

/// A rewritten site.
#[derive(Clone, Copy)]
struct Site {
    /// The jump.
    at: u64,
    /// Length of the instruction it replaced.
    len: usize,
    /// What was there, as far as it changed.
    original: [u8; 5],
    /// Its trampoline.
    trampoline: u64,
    trampoline_end: u64,
}

impl Site {
    fn syscall(&self) -> u64 {
        self.at + self.len as u64
    }
    fn changed(&self) -> usize {
        self.len.min(5)
    }
}

/// One page of trampolines.
#[derive(Clone)]
struct Page {
    va: u64,
    /// Parts in use, in order.
    used: Vec<(u16, u16)>,
}

impl Page {
    /// Room for `len` bytes at an address in `[lo, hi)`.
    fn room(&self, lo: u64, hi: u64, len: u16) -> Option<u64> {
        let mut from = 0;
        let ends = self.used.iter().copied().chain([(4096, 4096)]);
        for (start, end) in ends {
            let at = (self.va + u64::from(from)).max(lo);
            if at < hi && at + u64::from(len) <= self.va + u64::from(start) {
                return Some(at);
            }
            from = end;
        }
        None
    }
    fn take(&mut self, at: u64, len: u16) {
        let start = (at - self.va).low_u16();
        self.used.push((start, start + len));
        self.used.sort_unstable();
    }
}

/// The rewritten sites of an address space.
#[derive(Clone, Default)]
pub(crate) struct Sites {
    live: Vec<Site>,
    /// Sites that are as they were again; a thread may still be in their trampolines.
    former: Vec<Site>,
    pages: Vec<Page>,
}

/// Calls counted by site: the address after the SYSCALL. [`HOT`] and above: decided.
#[derive(Default)]
pub(crate) struct Tallies {
    calls: Mutex<HashMap<u64, u32>>,
    /// Some site was rewritten at some time.
    any: AtomicBool,
}

impl Mm {
    /// A call `number` was made by the SYSCALL before `after`. Rewrites the site once it has made many, at
    /// once if `hot`; `movable` says that the call may be answered without leaving the guest.
    pub fn note_call(&self, after: u64, number: u64, hot: bool, movable: bool) {
        let Some(gate) = self.jump_gate else { return };
        {
            let mut calls = self.tallies.calls.lock().unwrap_or_else(PoisonError::into_inner);
            if calls.len() >= COUNTED && !calls.contains_key(&after) {
                calls.clear();
            }
            let count = calls.entry(after).or_insert(0);
            if *count >= HOT {
                return;
            }
            *count = if hot { HOT } else { *count + 1 };
            if *count < HOT {
                return;
            }
        }
        let result = if movable {
            self.edit(|inner| self.rewrite(inner, after.wrapping_sub(2), number, gate))
        } else {
            Err(Refusal::OwnThread)
        };
        self.kernel.stats.count_site(result.err());
    }

    fn rewrite(&self, inner: &mut Inner, site: u64, number: u64, gate: u64) -> Result<(), Refusal> {
        let vma = inner.vmas.find(site).ok_or(Refusal::NotFileCode)?.clone();
        if vma.file.is_none()
            || vma.is_shared()
            || !vma.prot.contains(Prot::EXEC)
            || vma.prot.contains(Prot::WRITE)
            || inner.broken
        {
            return Err(Refusal::NotFileCode);
        }
        let (before, after) = self.code_around(inner, &vma, site).ok_or(Refusal::Unclear)?;
        let displaced = displaced(&before, &after, number)?;
        let at = site - displaced.len as u64;
        let page = at & !(PAGE_SIZE - 1);
        if inner.sites.live.iter().any(|s| s.at == at) {
            return Err(Refusal::Unclear);
        }
        if (at + displaced.len.min(5) as u64 - 1) & !(PAGE_SIZE - 1) != page {
            return Err(Refusal::Straddles);
        }
        if inner.sites.live.len() >= MOST {
            return Err(Refusal::NoRoom);
        }
        let old = inner.pages.get(page).ok_or(Refusal::Unclear)?;
        let moved = &before[before.len() - displaced.len..];
        let (start, end) = self.trampoline(inner, &vma, at, displaced, moved, gate)?;
        let displacement = start.wrapping_sub(at + 5).cast_signed();
        let displacement = i32::try_from(displacement).map_err(|_| Refusal::NoRoom)?;
        let (jump, changed) = displaced.jump(displacement);
        let mut original = [0; 5];
        original[..changed].copy_from_slice(&moved[..changed]);
        self.exchange(inner, page, old, at, &jump[..changed]).ok_or(Refusal::NoRoom)?;
        inner.sites.live.push(Site {
            at,
            len: displaced.len,
            original,
            trampoline: start,
            trampoline_end: end,
        });
        self.tallies.any.store(true, Ordering::Release);
        Ok(())
    }

    /// The code before the SYSCALL at `site`, as far as it is in memory, and from it on.
    fn code_around(&self, inner: &Inner, vma: &Vma, site: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let read = |from: u64, to: u64| {
            let mut out = Vec::new();
            let mut at = from;
            while at < to {
                let pte = inner.pages.get(at & !(PAGE_SIZE - 1))?;
                let within = at % PAGE_SIZE;
                let len = (PAGE_SIZE - within).min(to - at).size();
                let mut bytes = vec![0; len];
                self.frames().slice(Gpa(pte.gpa().0 + within), len).copy_to(&mut bytes);
                out.extend(bytes);
                at += len as u64;
            }
            Some(out)
        };
        let from = site.saturating_sub(LOOK_BACK).max(vma.start);
        let before = read(from, site).or_else(|| read(from.max(site & !(PAGE_SIZE - 1)), site))?;
        let to = (site + LOOK_AHEAD).min(vma.end);
        let after = read(site, to).or_else(|| read(site, (site | (PAGE_SIZE - 1)) + 1))?;
        after.starts_with(&SYSCALL).then_some((before, after))
    }

    /// Puts a trampoline where a jump at `at` may lead; its place.
    fn trampoline(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        at: u64,
        displaced: Displaced,
        moved: &[u8],
        gate: u64,
    ) -> Result<(u64, u64), Refusal> {
        let whole = displaced.span > u64::from(u32::MAX);
        let first = (at + 5).checked_add_signed(i64::from(displaced.first));
        let (lo, hi) = match first {
            _ if whole => (at.saturating_sub(REACH), at + REACH),
            Some(first) => (first, first + displaced.span),
            None => return Err(Refusal::NoRoom),
        };
        // The moved instruction, LEA RCX, JMP to the gate.
        let len = moved.len() + 7 + 6;
        let size = (len as u64).low_u16();
        let found = inner.sites.pages.iter().enumerate();
        let found = found.filter_map(|(i, page)| Some((i, page.room(lo, hi, size)?))).next();
        let (index, start) = match found {
            Some(found) => found,
            None => self.new_page(inner, vma, (lo, hi), size, gate).ok_or(Refusal::NoRoom)?,
        };
        let page = inner.sites.pages[index].va;
        let relative = |target: u64, next: u64| {
            i32::try_from(target.wrapping_sub(next).cast_signed()).map(i32::to_le_bytes)
        };
        let lea_end = start + moved.len() as u64 + 7;
        let resume = at + displaced.len as u64 + SYSCALL.len() as u64;
        let (Ok(back), Ok(pointer)) = (relative(resume, lea_end), relative(page, lea_end + 6))
        else {
            return Err(Refusal::NoRoom);
        };
        let code =
            [moved, &[0x48, 0x8d, 0x0d][..], &back[..], &[0xff, 0x25][..], &pointer[..]].concat();
        let mut pte = inner.pages.get(page).ok_or(Refusal::NoRoom)?;
        if self.frames().owners(pte.gpa()) > 1 {
            // A fork shares it and may put something else there.
            self.exchange(inner, page, pte, page, &[]).ok_or(Refusal::NoRoom)?;
            pte = inner.pages.get(page).ok_or(Refusal::NoRoom)?;
        }
        let place = Gpa(pte.gpa().0 + (start - page));
        self.frames().slice(place, len).copy_from(&code);
        inner.sites.pages[index].take(start, size);
        Ok((start, start + len as u64))
    }

    /// Maps a page that has room for a trampoline of `size` bytes in the given range.
    fn new_page(
        &self,
        inner: &mut Inner,
        vma: &Vma,
        (lo, hi): (u64, u64),
        size: u16,
        gate: u64,
    ) -> Option<(usize, u64)> {
        if inner.sites.pages.len() >= MOST_PAGES || inner.vmas.len() >= MAX_MAPPINGS {
            return None;
        }
        let first = (lo & !(PAGE_SIZE - 1)).max(USER_START);
        let end = hi.checked_next_multiple_of(PAGE_SIZE)?.min(self.user_end());
        // Below the code, where a program puts nothing itself; else wherever there is room.
        let below = || {
            let wide = hi - lo >= REACH;
            gap_below(inner, vma.start, PAGE_SIZE, PAGE_SIZE).filter(|va| wide && *va >= lo)
        };
        let mut from = first;
        let (va, start) = loop {
            let va = below().or_else(|| gap_in(inner, from, end))?;
            let empty = Page { va, used: vec![(0, POINTER)] };
            match empty.room(lo, hi, size) {
                Some(start) => break (va, start),
                None => from = va + PAGE_SIZE,
            }
        };
        let prot = Prot::READ | Prot::EXEC;
        let frame = self.frames().alloc()?;
        frame.write(0, &gate.to_le_bytes());
        let gpa = frame.into_gpa();
        inner.vmas.insert(Vma {
            start: va,
            end: va + PAGE_SIZE,
            prot,
            max_prot: Prot::all(),
            flags: VmaFlags::DONTEXPAND,
            source: Source::Anon,
            file: None,
            name: Some("[trapgate]".into()),
            shm: None,
        });
        inner.pages.set(va, Pte::new(gpa, prot, true));
        inner.batch.map(va, gpa, prot);
        inner.sites.pages.push(Page { va, used: vec![(0, POINTER)] });
        Some((inner.sites.pages.len() - 1, start))
    }

    /// Exchanges a page for a copy with `bytes` at `at`.
    fn exchange(
        &self,
        inner: &mut Inner,
        page: u64,
        old: Pte,
        at: u64,
        bytes: &[u8],
    ) -> Option<()> {
        let copy = self.frames().alloc_copy(old.gpa())?;
        copy.write((at - page).size(), bytes);
        let gpa = copy.into_gpa();
        inner.pages.set(page, Pte::new(gpa, old.prot(), true));
        inner.batch.map(page, gpa, old.prot());
        inner.batch.drop_frame(old.gpa());
        Some(())
    }

    /// Puts back the sites that lie in `[start, end)` or jump there, before that range changes.
    pub(super) fn release_sites(&self, inner: &mut Inner, start: u64, end: u64) {
        if inner.sites.live.is_empty() {
            return;
        }
        let (gone, kept): (Vec<Site>, Vec<Site>) =
            std::mem::take(&mut inner.sites.live).into_iter().partition(|site| {
                site.at < end && start < site.syscall()
                    || site.trampoline < end && start < site.trampoline_end
            });
        inner.sites.live = kept;
        inner.sites.pages.retain(|page| page.va + PAGE_SIZE <= start || end <= page.va);
        for site in gone {
            let page = site.at & !(PAGE_SIZE - 1);
            if let Some(old) = inner.pages.get(page)
                && self
                    .exchange(inner, page, old, site.at, &site.original[..site.changed()])
                    .is_none()
            {
                // No memory for another copy. The bytes go into this one: its owner may see half of them.
                let at = Gpa(old.gpa().0 + (site.at - page));
                self.frames().slice(at, site.changed()).copy_from(&site.original[..site.changed()]);
            }
            if inner.sites.former.len() >= MOST {
                inner.sites.former.remove(0);
            }
            inner.sites.former.push(site);
        }
        self.tallies.calls.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Where the program believes to be when it is in a trampoline at `rip`.
    #[must_use]
    pub fn original_rip(&self, rip: u64) -> u64 {
        self.in_trampoline(rip).unwrap_or(rip)
    }
    /// The same; `None` if `rip` is in no trampoline.
    pub(crate) fn in_trampoline(&self, rip: u64) -> Option<u64> {
        if !self.tallies.any.load(Ordering::Acquire) {
            return None;
        }
        let inner = self.read();
        let mut sites = inner.sites.live.iter().chain(&inner.sites.former);
        let site = sites.find(|site| rip >= site.trampoline && rip < site.trampoline_end)?;
        // Past the moved instruction nothing has happened that SYSCALL would not do again.
        Some(if rip == site.trampoline { site.at } else { site.syscall() })
    }
    /// A fork's child has its parent's sites.
    pub(super) fn inherit_sites(&self, inner: &mut Inner, parent: &Inner) {
        inner.sites = parent.sites.clone();
        self.tallies.any.store(!inner.sites.live.is_empty(), Ordering::Release);
    }
}
