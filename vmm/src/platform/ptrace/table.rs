//! What a space ought to translate: the reference from which the host's calls are worked out.
//!
//! Kept because the host's own record is not enough: mprotect(2) over a hole fails half-way, and
//! single pages that turn out contiguous should become one mapping.

use std::collections::BTreeMap;

use trapgate_kernel::platform::{Edit, PAGE_SIZE, Prot};

use super::layout::{Call, RESERVED};
use crate::memory::RAM_BASE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Region {
    end: u64,
    /// In guest RAM's file.
    offset: u64,
    prot: Prot,
}

/// Translations by first address.
#[derive(Default)]
pub struct Table {
    regions: BTreeMap<u64, Region>,
}

fn host_prot(prot: Prot) -> u32 {
    let mut bits = libc::PROT_READ;
    if prot.contains(Prot::WRITE) {
        bits |= libc::PROT_WRITE;
    }
    if prot.contains(Prot::EXEC) {
        bits |= libc::PROT_EXEC;
    }
    bits.cast_unsigned()
}

pub(super) fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// Appends `call`, or lengthens the last one by it.
fn push(calls: &mut Vec<Call>, call: Call) {
    if let Some(last) = calls.last_mut() {
        let joins = last.number == call.number
            && last.prot == call.prot
            && last.va + last.len == call.va
            && (call.number != number(libc::SYS_mmap) || last.offset + last.len == call.offset);
        if joins {
            last.len += call.len;
            return;
        }
    }
    calls.push(call);
}

impl Table {
    /// Makes `edit` and appends the host calls that do the same. `None` if the edit is not one the
    /// kernel may ask for (our bug).
    pub fn edit(&mut self, edit: &Edit, calls: &mut Vec<Call>) -> Option<()> {
        match *edit {
            Edit::Map { va, gpa, len, prot } => {
                let end = va.checked_add(len)?;
                let offset = gpa.0.checked_sub(RAM_BASE)?;
                if end > RESERVED.start || len == 0 {
                    return None;
                }
                self.map(va, end, offset, prot, calls);
            }
            Edit::Unmap { va, len } => {
                let end = va.checked_add(len)?.min(RESERVED.start);
                self.unmap(va, end, calls);
            }
            Edit::Protect { va, len, prot } => {
                let end = va.checked_add(len)?.min(RESERVED.start);
                if prot.is_empty() {
                    self.unmap(va, end, calls);
                } else {
                    self.protect(va, end, prot, calls);
                }
            }
        }
        Some(())
    }

    fn map(&mut self, va: u64, end: u64, offset: u64, prot: Prot, calls: &mut Vec<Call>) {
        self.carve(va, end);
        self.insert(va, Region { end, offset, prot });
        let (number, prot) = (number(libc::SYS_mmap), host_prot(prot));
        push(calls, Call { number, prot, va, len: end - va, offset });
    }

    fn unmap(&mut self, va: u64, end: u64, calls: &mut Vec<Call>) {
        if let Some((first, last)) = self.carve(va, end) {
            let number = number(libc::SYS_munmap);
            push(calls, Call { number, prot: 0, va: first, len: last - first, offset: 0 });
        }
    }

    fn protect(&mut self, va: u64, end: u64, prot: Prot, calls: &mut Vec<Call>) {
        let mut at = va;
        while at < end {
            let Some((start, region)) = self.at_or_after(at, end) else { return };
            let (first, last) = (start.max(at), region.end.min(end));
            if region.prot != prot {
                self.carve(first, last);
                let offset = region.offset + (first - start);
                self.insert(first, Region { end: last, offset, prot });
                let number = number(libc::SYS_mprotect);
                let prot = host_prot(prot);
                push(calls, Call { number, prot, va: first, len: last - first, offset: 0 });
            }
            at = last;
        }
    }

    /// The access granted at `va`, if it is translated.
    pub fn access(&self, va: u64) -> Option<Prot> {
        let page = va & !(PAGE_SIZE - 1);
        self.at_or_after(page, page.checked_add(PAGE_SIZE)?).map(|(_, region)| region.prot)
    }

    /// The call that installs the translation of `va` anew, and some of its surroundings with it.
    pub fn reinstall(&self, va: u64) -> Option<Call> {
        const AROUND: u64 = 16 * PAGE_SIZE;
        let page = va & !(PAGE_SIZE - 1);
        let (start, region) = self.at_or_after(page, page.checked_add(PAGE_SIZE)?)?;
        let first = start.max(page.saturating_sub(AROUND));
        let last = region.end.min(page.saturating_add(AROUND));
        Some(Call {
            number: number(libc::SYS_mmap),
            prot: host_prot(region.prot),
            va: first,
            len: last - first,
            offset: region.offset + (first - start),
        })
    }

    /// The first region that ends after `at` and starts before `end`.
    fn at_or_after(&self, at: u64, end: u64) -> Option<(u64, Region)> {
        let before = self.regions.range(..=at).next_back().filter(|(_, r)| r.end > at);
        let found = before.or_else(|| self.regions.range(at..end).next());
        found.map(|(start, region)| (*start, *region))
    }

    /// Removes `[va, end)`; returns the first and last address that was translated there.
    fn carve(&mut self, va: u64, end: u64) -> Option<(u64, u64)> {
        let mut span: Option<(u64, u64)> = None;
        while let Some((start, region)) = self.at_or_after(va, end) {
            self.regions.remove(&start);
            if start < va {
                self.regions.insert(start, Region { end: va, ..region });
            }
            if region.end > end {
                let offset = region.offset + (end - start);
                self.regions.insert(end, Region { offset, ..region });
            }
            let (first, last) = (start.max(va), region.end.min(end));
            span = Some((span.map_or(first, |s| s.0), last));
        }
        span
    }

    /// Adds a region where there is none, joining it with its neighbours.
    fn insert(&mut self, mut start: u64, mut region: Region) {
        let joins = |a_start: u64, a: &Region, b_start: u64, b: &Region| {
            a.end == b_start && a.prot == b.prot && a.offset + (a.end - a_start) == b.offset
        };
        if let Some((s, r)) = self.regions.range(..start).next_back().map(|(s, r)| (*s, *r))
            && joins(s, &r, start, &region)
        {
            self.regions.remove(&s);
            region.offset = r.offset;
            start = s;
        }
        if let Some(r) = self.regions.get(&region.end).copied()
            && joins(start, &region, region.end, &r)
        {
            self.regions.remove(&region.end);
            region.end = r.end;
        }
        self.regions.insert(start, region);
    }
}

#[cfg(test)]
mod tests {
    use trapgate_kernel::platform::Gpa;

    use super::*;

    const RW: Prot = Prot::READ.union(Prot::WRITE);

    fn map(va: u64, page: u64, pages: u64, prot: Prot) -> Edit {
        Edit::Map { va, gpa: Gpa(RAM_BASE + page * 0x1000), len: pages * 0x1000, prot }
    }

    /// Replays calls on a page-by-page model, refusing what a host would refuse.
    fn replay(model: &mut BTreeMap<u64, (u64, u32)>, calls: &[Call]) {
        for call in calls {
            for page in (call.va..call.va + call.len).step_by(0x1000) {
                let number = i64::from(call.number);
                if number == libc::SYS_mmap {
                    model.insert(page, (call.offset + (page - call.va), call.prot));
                } else if number == libc::SYS_munmap {
                    model.remove(&page);
                } else {
                    model.get_mut(&page).expect("mprotect over a hole").1 = call.prot;
                }
            }
        }
    }

    #[test]
    fn contiguous_pages_become_one_call() {
        let (mut table, mut calls) = (Table::default(), Vec::new());
        for page in 0..10 {
            table.edit(&map(0x10000 + page * 0x1000, 7 + page, 1, RW), &mut calls).unwrap();
        }
        assert_eq!(calls.len(), 1);
        assert_eq!((table.regions.len(), calls[0].len, calls[0].offset), (1, 0xa000, 0x7000));
    }

    #[test]
    fn random_edits_agree_with_a_model() {
        let mut seed = 12345u64;
        let mut next = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let (mut table, mut calls) = (Table::default(), Vec::new());
        let (mut want, mut host) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..20_000 {
            let (page, pages) = (16 + next(40), 1 + next(8));
            let (va, len) = (page * 0x1000, pages * 0x1000);
            let prot =
                [Prot::READ, RW, Prot::READ.union(Prot::EXEC)][usize::try_from(next(3)).unwrap()];
            let range = (page..page + pages).map(|p| p * 0x1000);
            let edit = match next(3) {
                0 => {
                    let frame = next(64);
                    for (p, f) in range.zip(frame..) {
                        want.insert(p, (f * 0x1000, host_prot(prot)));
                    }
                    map(va, frame, pages, prot)
                }
                1 => {
                    for p in range {
                        want.remove(&p);
                    }
                    Edit::Unmap { va, len }
                }
                _ => {
                    for p in range {
                        if let Some(entry) = want.get_mut(&p) {
                            entry.1 = host_prot(prot);
                        }
                    }
                    Edit::Protect { va, len, prot }
                }
            };
            table.edit(&edit, &mut calls).unwrap();
            if next(4) == 0 {
                replay(&mut host, &calls);
                calls.clear();
                assert_eq!(host, want);
            }
        }
    }

    #[test]
    fn the_stubs_pages_are_out_of_reach() {
        let (mut table, mut calls) = (Table::default(), Vec::new());
        assert!(table.edit(&map(RESERVED.start - 0x1000, 0, 2, RW), &mut calls).is_none());
        table.edit(&map(RESERVED.start - 0x1000, 0, 1, RW), &mut calls).unwrap();
        calls.clear();
        table.edit(&Edit::Unmap { va: 0, len: RESERVED.end }, &mut calls).unwrap();
        assert_eq!(calls[0].va + calls[0].len, RESERVED.start);
    }
}
