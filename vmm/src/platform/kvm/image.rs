//! The ring-0 image in guest RAM and the kernel half of the page tables that maps it.
//!
//! One 2 MiB block of guest RAM holds the image, the kernel half's tables and the first vCPUs'
//! pages. It is never mapped for guests, but for the gate's page where the gate runs in ring 3.

use std::{
    io::Cursor,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use linux_loader::loader::{Elf, KernelLoader};
use trapgate_firmware::{
    abi::{self, Header, Phases},
    layout,
};
use trapgate_kernel::platform::{Gpa, PAGE_SIZE, PlatformError};
use vm_memory::{Bytes, GuestAddress};

use super::{KvmError, space::pte};
use crate::memory::GuestRam;

static FIRMWARE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware.elf"));

/// Pages in a block.
const BLOCK_PAGES: u64 = 512;

/// The loaded image.
pub(super) struct Image {
    block: Gpa,
    next: AtomicU64,
    /// The kernel half's second level, to be put into every root.
    pub(super) kernel_half: Gpa,
    directory: Gpa,
    /// The image's page table.
    low: Gpa,
    /// Tables of the vCPU pages, by 512 vCPUs.
    vcpu_tables: Mutex<Vec<Gpa>>,
}

impl Image {
    /// Loads the embedded image and maps it, the gate supervisor-only.
    pub(super) fn load(ram: &GuestRam) -> Result<Image, KvmError> {
        let block = ram.frames.alloc_block().ok_or(KvmError::Memory)?;
        let bad = |what: String| KvmError::Firmware(what);
        Elf::load(
            &**ram.frames.memory(),
            Some(GuestAddress(block.0)),
            &mut Cursor::new(FIRMWARE),
            None,
        )
        .map_err(|e| bad(format!("cannot be loaded: {e}")))?;
        let mut bytes = [0; Header::SIZE];
        ram.frames
            .memory()
            .read_slice(&mut bytes, GuestAddress(block.0))
            .map_err(|e| bad(format!("cannot be read: {e}")))?;
        let header = Header::from_bytes(&bytes);
        if header.magic != abi::MAGIC {
            return Err(bad(format!("bad magic {:#x}", header.magic)));
        }
        if header.version != abi::VERSION {
            let (theirs, ours) = (header.version, abi::VERSION);
            return Err(bad(format!("is version {theirs}, this monitor wants version {ours}")));
        }
        if header != Header::CURRENT {
            return Err(bad(format!("other layout: {header:x?}")));
        }
        let mut image = Image {
            block,
            next: AtomicU64::new(layout::IMAGE_PAGES),
            kernel_half: Gpa(0),
            directory: Gpa(0),
            low: Gpa(0),
            vcpu_tables: Mutex::new(Vec::new()),
        };
        image.kernel_half = image.page().ok_or(KvmError::Memory)?;
        image.directory = image.page().ok_or(KvmError::Memory)?;
        image.low = image.page().ok_or(KvmError::Memory)?;
        // The upper levels let ring 3 through: the leaves decide.
        let link = pte::PRESENT | pte::WRITE | pte::USER | pte::ACCESSED;
        let third = index(layout::IMAGE, 30);
        pte::store(&ram.frames, image.kernel_half, third, image.directory.0 | link);
        pte::store(&ram.frames, image.directory, index(layout::IMAGE, 21), image.low.0 | link);
        let leaf = pte::PRESENT | pte::ACCESSED;
        for page in 0..layout::IMAGE_PAGES {
            let code = [layout::GATE, layout::VECTORS, layout::RING0]
                .contains(&(layout::IMAGE + page * PAGE_SIZE));
            let nx = if code { 0 } else { pte::NX };
            let gpa = block.0 + page * PAGE_SIZE;
            let va = layout::IMAGE + page * PAGE_SIZE;
            pte::store(&ram.frames, image.low, index(va, 12), gpa | leaf | nx);
        }
        Ok(image)
    }

    /// Lets ring 3 run the gate. Widening: seen at the next fault.
    pub(super) fn open_gate(&self, ram: &GuestRam) {
        for page in [layout::GATE, layout::SHARED] {
            let slot = index(page, 12);
            let entry = pte::load(&ram.frames, self.low, slot);
            pte::store(&ram.frames, self.low, slot, entry | pte::USER);
        }
    }
    /// The page of [`layout::SHARED`].
    pub(super) fn shared(&self) -> Gpa {
        Gpa(self.block.0 + (layout::SHARED - layout::IMAGE))
    }
    /// Where the gates' phases begin: the ring-3 gate's and the ring-0 gate's.
    pub(super) fn phases(&self, ram: &GuestRam) -> [Phases; 2] {
        [0, Phases::SIZE].map(|gate| {
            let from = at(layout::PHASES - layout::IMAGE) + gate;
            let mut bytes = [0; Phases::SIZE];
            // Inside the image's first page: this cannot fail.
            let _ = ram.frames.slice(self.block, 4096).read_slice(&mut bytes, from);
            Phases::from_bytes(&bytes)
        })
    }

    /// A page that is never given back: of the block while it lasts.
    pub(super) fn page(&self) -> Option<Gpa> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n < BLOCK_PAGES).then(|| Gpa(self.block.0 + n * PAGE_SIZE))
    }
    pub(super) fn page_or_frame(&self, ram: &GuestRam) -> Option<Gpa> {
        self.page().or_else(|| Some(ram.frames.alloc()?.into_gpa()))
    }

    /// Makes and maps the page of vCPU `id`: GDT, TSS, stacks.
    pub(super) fn vcpu_page(
        &self,
        ram: &GuestRam,
        id: u64,
        user_gate: bool,
    ) -> Result<Gpa, PlatformError> {
        let none = || PlatformError::OutOfMemory("a vCPU's tables");
        let mut tables = self.vcpu_tables.lock().unwrap_or_else(PoisonError::into_inner);
        let va = layout::VCPU + id * PAGE_SIZE;
        let group = usize::try_from(id / 512).unwrap_or(usize::MAX);
        while tables.len() <= group {
            let table = self.page_or_frame(ram).ok_or_else(none)?;
            let link = pte::PRESENT | pte::WRITE | pte::USER | pte::ACCESSED;
            let slot = index(layout::VCPU, 21) + tables.len();
            pte::store(&ram.frames, self.directory, slot, table.0 | link);
            tables.push(table);
        }
        let page = self.page_or_frame(ram).ok_or_else(none)?;
        write_tables(ram, page, va, user_gate);
        let leaf = pte::PRESENT | pte::WRITE | pte::ACCESSED | pte::DIRTY | pte::NX;
        pte::store(&ram.frames, tables[group], index(va, 12), page.0 | leaf);
        Ok(page)
    }
}

/// Writes the GDT and TSS of the vCPU page at `gpa`, seen at `va`; returns the TSS limit.
pub(super) fn write_tables(ram: &GuestRam, gpa: Gpa, va: u64, user_gate: bool) -> u64 {
    let (tss, limit) = abi::tss(va, user_gate);
    let gdt = abi::gdt(va + layout::VCPU_TSS, limit);
    let bytes: Vec<u8> = gdt.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let page = ram.frames.slice(gpa, 4096);
    // Both lie inside the page: these cannot fail.
    let _ = page.write_slice(&bytes, at(layout::VCPU_GDT));
    let _ = page.write_slice(&tss, at(layout::VCPU_TSS));
    limit
}

/// An offset of `layout` within a page, as vm-memory takes it.
pub(super) fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

/// The index of `va` in the table whose entries cover `1 << shift` bytes.
pub(super) fn index(va: u64, shift: u32) -> usize {
    usize::try_from(va >> shift & 511).unwrap_or(0)
}
