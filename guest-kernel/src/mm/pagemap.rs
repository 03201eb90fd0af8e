//! The page map: which frame backs each page of an address space, and what the platform was told
//! to grant on it. The platform-independent truth that [`super::batch`] turns into edits.
//!
//! A radix of 2 MiB chunks. Each present entry stands for one owner of its frame.

use std::collections::BTreeMap;

use crate::{
    num::Word,
    platform::{Gpa, PAGE_SHIFT, PAGE_SIZE, Prot},
};

/// Pages in a chunk.
pub const CHUNK_PAGES: usize = 512;
/// Bytes a chunk covers.
pub const CHUNK_SIZE: u64 = PAGE_SIZE * CHUNK_PAGES as u64;
const CHUNK_SHIFT: u32 = PAGE_SHIFT + 9;

const PROT_MASK: u64 = 0b111;
const ANON: u64 = 1 << 3;
const PRESENT: u64 = 1 << 4;

/// What backs a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pte(u64);

impl Pte {
    const NONE: Pte = Pte(0);
    /// The frame at `gpa` with `prot` granted; `anon` if it belongs to the process and not to an
    /// object.
    #[must_use]
    pub fn new(gpa: Gpa, prot: Prot, anon: bool) -> Pte {
        Pte(gpa.0 | u64::from(prot.bits()) | PRESENT | if anon { ANON } else { 0 })
    }
    fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }
    /// The frame.
    #[must_use]
    pub fn gpa(self) -> Gpa {
        Gpa(self.0 & !(PAGE_SIZE - 1))
    }
    /// The access granted.
    #[must_use]
    pub fn prot(self) -> Prot {
        Prot::from_bits_truncate((self.0 & PROT_MASK).low_u8())
    }
    /// The frame is the process's own (or shared with a fork of it).
    #[must_use]
    pub fn is_anon(self) -> bool {
        self.0 & ANON != 0
    }
    /// The same frame with other access.
    #[must_use]
    pub fn with_prot(self, prot: Prot) -> Pte {
        Pte((self.0 & !PROT_MASK) | u64::from(prot.bits()))
    }
}

struct Chunk {
    entries: [Pte; CHUNK_PAGES],
    used: usize,
}

/// All present pages of an address space.
#[derive(Default)]
pub struct PageMap {
    chunks: BTreeMap<u64, Box<Chunk>>,
    pages: u64,
    anon: u64,
}

fn slot(va: u64) -> (u64, usize) {
    (va >> CHUNK_SHIFT, ((va >> PAGE_SHIFT) & (CHUNK_PAGES as u64 - 1)).size())
}

impl PageMap {
    /// Present pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }
    /// Present pages that are the process's own.
    #[must_use]
    pub fn anon_pages(&self) -> u64 {
        self.anon
    }
    /// What backs the page at `va`.
    #[must_use]
    pub fn get(&self, va: u64) -> Option<Pte> {
        let (chunk, index) = slot(va);
        let pte = self.chunks.get(&chunk)?.entries[index];
        pte.is_present().then_some(pte)
    }
    /// Sets what backs the page at `va`; the caller takes over the former entry's ownership.
    pub fn set(&mut self, va: u64, pte: Pte) -> Option<Pte> {
        let (chunk, index) = slot(va);
        let chunk = self
            .chunks
            .entry(chunk)
            .or_insert_with(|| Box::new(Chunk { entries: [Pte::NONE; CHUNK_PAGES], used: 0 }));
        let old = std::mem::replace(&mut chunk.entries[index], pte);
        self.anon += u64::from(pte.is_anon());
        if old.is_present() {
            self.anon -= u64::from(old.is_anon());
            Some(old)
        } else {
            chunk.used += 1;
            self.pages += 1;
            None
        }
    }
    /// Visits the present pages of `[start, end)` in order; `visit` answers what is to stand there
    /// (`None` removes the entry, whose ownership passes to the visitor).
    pub fn update(&mut self, start: u64, end: u64, mut visit: impl FnMut(u64, Pte) -> Option<Pte>) {
        if start >= end {
            return;
        }
        let (first, last) = (start >> CHUNK_SHIFT, (end - 1) >> CHUNK_SHIFT);
        let mut emptied = Vec::new();
        for (&number, chunk) in self.chunks.range_mut(first..=last) {
            let base = number << CHUNK_SHIFT;
            let from = if number == first { slot(start).1 } else { 0 };
            let to = if number == last { slot(end - 1).1 + 1 } else { CHUNK_PAGES };
            for index in from..to {
                let pte = chunk.entries[index];
                if !pte.is_present() {
                    continue;
                }
                let new = visit(base + ((index as u64) << PAGE_SHIFT), pte);
                self.anon -= u64::from(pte.is_anon());
                match new {
                    Some(new) => {
                        self.anon += u64::from(new.is_anon());
                        chunk.entries[index] = new;
                    }
                    None => {
                        chunk.entries[index] = Pte::NONE;
                        chunk.used -= 1;
                        self.pages -= 1;
                    }
                }
            }
            if chunk.used == 0 {
                emptied.push(number);
            }
        }
        for number in emptied {
            self.chunks.remove(&number);
        }
    }
    /// Visits the present pages of `[start, end)` in order.
    pub fn each(&self, start: u64, end: u64, mut visit: impl FnMut(u64, Pte)) {
        if start >= end {
            return;
        }
        let (first, last) = (start >> CHUNK_SHIFT, (end - 1) >> CHUNK_SHIFT);
        for (&number, chunk) in self.chunks.range(first..=last) {
            let base = number << CHUNK_SHIFT;
            let from = if number == first { slot(start).1 } else { 0 };
            let to = if number == last { slot(end - 1).1 + 1 } else { CHUNK_PAGES };
            for (index, pte) in chunk.entries[from..to].iter().enumerate() {
                if pte.is_present() {
                    visit(base + (((from + index) as u64) << PAGE_SHIFT), *pte);
                }
            }
        }
    }
    /// No page of `[start, end)` is present.
    #[must_use]
    pub fn is_empty_range(&self, start: u64, end: u64) -> bool {
        self.count(start, end) == 0
    }
    /// Present pages in `[start, end)`.
    #[must_use]
    pub fn count(&self, start: u64, end: u64) -> u64 {
        let mut count = 0;
        self.each(start, end, |_, _| count += 1);
        count
    }
}
