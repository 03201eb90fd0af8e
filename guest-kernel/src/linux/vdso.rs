//! Our vDSO (vdso(7)): a one-page shared object that every program finds through AT_SYSINFO_EHDR, and
//! before it a page of data, from which it reads the clock without a system call.
//!
//! The clock is the host's as a line over the time-stamp counter ([`ClockLine`]), brought up to date a few
//! times a second; until it is there the functions make the system call. The image is built here, byte by byte, from the few tables that glibc, musl and Go look at: a SysV hash
//! table, symbols, versions (`LINUX_2.6`), no sections.

use std::{
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use vm_memory::Bytes;
use zerocopy::IntoBytes;

use super::{
    elf::{Ehdr, Phdr},
    vdso_code::{CODE, DISPLACEMENT, FUNCTIONS},
};
use crate::{
    error::Errno,
    frames::Frame,
    fs::buf::Source,
    host::ClockLine,
    kernel::Kernel,
    mm::{
        Limits, Mm,
        map::{MapRequest, Place},
        object::MemObject,
        store::PageStore,
        vma::VmaFlags,
    },
    num::Word,
    platform::{PAGE_SIZE, Prot},
    timer::Expire,
};

const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";
/// The data page: what the code before it reads.
mod data {
    /// u32: odd while the others change.
    pub const SEQUENCE: usize = 0;
    /// u32: 0 while there is nothing to read.
    pub const USABLE: usize = 4;
    /// u64: the time-stamp counter at the line's beginning.
    pub const TSC: usize = 8;
    /// u64: nanoseconds a tick, times 2^32.
    pub const SLOPE: usize = 16;
    /// u64, by clock id: CLOCK_REALTIME and CLOCK_MONOTONIC there.
    pub const NANOS: usize = 24;
}
/// Pauses after the first looks at the clock: short, for a line can be laid from the second.
const FIRST_LOOKS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(60)];
/// Time between later looks.
const LOOKS: Duration = Duration::from_millis(250);

const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_SYMENT: u64 = 11;
const DT_SONAME: u64 = 14;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;

/// The SysV ABI's symbol hash.
fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

struct Image(Vec<u8>);

impl Image {
    /// Appends, aligned to 8; where it starts.
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let at = self.0.len();
        self.0.extend_from_slice(bytes);
        at as u64
    }
}

/// Builds the image: one page.
fn build() -> Vec<u8> {
    let headers = size_of::<Ehdr>() + 2 * size_of::<Phdr>();
    let mut image = Image(vec![0; headers]);
    let mut strings = vec![0u8];
    let mut string = |text: &str| {
        let at = strings.len().low_u32();
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    let soname = string(SONAME);
    let version = string(VERSION);
    let names: Vec<u32> = FUNCTIONS.iter().map(|(name, _)| string(name)).collect();

    let code_at = image.push(CODE);
    let (field, end) = DISPLACEMENT;
    let field = usize::try_from(code_at).unwrap_or(0) + field;
    let displacement = -(PAGE_SIZE.cast_signed() + code_at.cast_signed() + end);
    image.0[field..field + 4]
        .copy_from_slice(&displacement.cast_unsigned().low_i32().to_le_bytes());

    // Symbols: the null one, then the functions; all versions the one we define.
    let mut symbols = vec![0u8; 24];
    let mut versions: Vec<u16> = vec![0];
    for (name, (_, offset)) in names.iter().zip(FUNCTIONS) {
        symbols.extend_from_slice(&name.to_le_bytes());
        // STB_GLOBAL, STT_FUNC; default visibility; any defined section index.
        symbols.extend_from_slice(&[0x12, 0]);
        symbols.extend_from_slice(&1u16.to_le_bytes());
        symbols.extend_from_slice(&(code_at + offset as u64).to_le_bytes());
        symbols.extend_from_slice(&8u64.to_le_bytes());
        versions.push(2);
    }
    let symbols_at = image.push(&symbols);
    let strings_at = image.push(&strings);
    let versions_at = image.push(versions.as_bytes());

    // Hash table with a single bucket: nbucket, nchain, bucket, chain.
    let count = names.len().low_u32() + 1;
    let mut hash = vec![1, count, 1, 0];
    hash.extend((1..count).map(|i| if i + 1 < count { i + 1 } else { 0 }));
    let hash_at = image.push(hash.as_bytes());

    // Version definitions: the object's own name, then ours (Elf64_Verdef and Verdaux).
    let mut verdef = Vec::new();
    for (flags, index, name, text, next) in
        [(1u16, 1u16, soname, SONAME, 28u32), (0, 2, version, VERSION, 0)]
    {
        for half in [1u16, flags, index, 1] {
            verdef.extend_from_slice(&half.to_le_bytes());
        }
        for word in [sysv_hash(text), 20, next, name, 0] {
            verdef.extend_from_slice(&word.to_le_bytes());
        }
    }
    let verdef_at = image.push(&verdef);

    let dynamic = [
        (DT_SONAME, u64::from(soname)),
        (DT_HASH, hash_at),
        (DT_STRTAB, strings_at),
        (DT_SYMTAB, symbols_at),
        (DT_STRSZ, strings.len() as u64),
        (DT_SYMENT, 24),
        (DT_VERSYM, versions_at),
        (DT_VERDEF, verdef_at),
        (DT_VERDEFNUM, 2),
        (0, 0),
    ];
    let words: Vec<u64> = dynamic.iter().flat_map(|(tag, value)| [*tag, *value]).collect();
    let dynamic_at = image.push(words.as_bytes());
    let dynamic_size = (words.len() * 8) as u64;

    let size = image.0.len() as u64;
    debug_assert!(size <= PAGE_SIZE);
    let header = Ehdr {
        e_ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        e_type: 3,
        e_machine: 62,
        e_version: 1,
        e_phoff: 64,
        e_ehsize: 64,
        e_phentsize: 56,
        e_phnum: 2,
        ..Ehdr::default()
    };
    let load = Phdr {
        p_type: 1,
        p_flags: 5,
        p_filesz: size,
        p_memsz: size,
        p_align: PAGE_SIZE,
        ..Phdr::default()
    };
    let dynamic = Phdr {
        p_type: 2,
        p_flags: 4,
        p_offset: dynamic_at,
        p_vaddr: dynamic_at,
        p_paddr: dynamic_at,
        p_filesz: dynamic_size,
        p_memsz: dynamic_size,
        p_align: 8,
    };
    image.0[..64].copy_from_slice(header.as_bytes());
    image.0[64..120].copy_from_slice(load.as_bytes());
    image.0[120..176].copy_from_slice(dynamic.as_bytes());
    image.0
}

/// The vDSO of a VM: its two pages, and the clock in the first of them.
pub struct Vdso {
    pages: Arc<PageStore>,
    data: Frame,
    kernel: Weak<Kernel>,
    looks: AtomicUsize,
    /// Itself, as the timer that looks again.
    me: Weak<Vdso>,
}

impl Vdso {
    fn new(kernel: &Arc<Kernel>) -> Result<Arc<Vdso>, Errno> {
        let pages = PageStore::new(kernel.fresh_id(), &kernel.frames, 2 * PAGE_SIZE, None);
        pages.write_at(&mut Source::kernel(&[0; 64]), 0)?;
        pages.write_at(&mut Source::kernel(&build()), PAGE_SIZE)?;
        let data = pages.page(0, true).map_err(|_| Errno::ENOMEM)?;
        let kernel = Arc::downgrade(kernel);
        let looks = AtomicUsize::new(0);
        let vdso = Arc::new_cyclic(|me| Vdso { pages, data, kernel, looks, me: me.clone() });
        vdso.look();
        Ok(vdso)
    }
    /// Brings the clock up to date, now and again and again.
    fn look(&self) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        // Virtual time follows no counter: the vDSO asks the kernel.
        if !kernel.platform.shares_tsc() || kernel.virtual_time.is_some() {
            return;
        }
        if let Some(line) = kernel.host.refresh_clock() {
            self.publish(&line);
        }
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST_LOOKS.get(looks).copied().unwrap_or(LOOKS);
        kernel.timers.arm(kernel.now() + pause, self.me.clone());
    }
    fn publish(&self, line: &ClockLine) {
        let page = self.data.bytes();
        // All inside the page: none of these can fail.
        let sequence: u32 = page.load(data::SEQUENCE, Ordering::Relaxed).unwrap_or(0);
        let _ = page.store(sequence.wrapping_add(1), data::SEQUENCE, Ordering::SeqCst);
        let nanos = [line.real, line.mono];
        let words = [(data::TSC, line.tsc), (data::SLOPE, line.slope)];
        let clocks = (0..2).map(|clock| (data::NANOS + clock * 8, nanos[clock]));
        for (offset, word) in words.into_iter().chain(clocks) {
            let _ = page.store(word, offset, Ordering::Release);
        }
        let _ = page.store(1u32, data::USABLE, Ordering::Release);
        let _ = page.store(sequence.wrapping_add(2), data::SEQUENCE, Ordering::SeqCst);
    }
}

impl Expire for Vdso {
    fn expire(&self, _: Duration) {
        self.look();
    }
}

/// The VM's one vDSO.
fn object(kernel: &Arc<Kernel>) -> Result<Arc<PageStore>, Errno> {
    let mut known = kernel.vdso.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(vdso) = &*known {
        return Ok(vdso.pages.clone());
    }
    Ok(known.insert(Vdso::new(kernel)?).pages.clone())
}

/// Maps the data page and, after it, the vDSO; its address.
///
/// # Errors
/// ENOMEM.
pub fn map(mm: &Mm) -> Result<u64, Errno> {
    let object = object(&mm.kernel)?;
    let part = |place, pages, prot, first, name| {
        let request = MapRequest {
            flags: VmaFlags::DONTEXPAND,
            name: Some(Arc::from(name)),
            ..MapRequest::object(place, pages * PAGE_SIZE, prot, object.clone(), first)
        };
        mm.map(request, Limits::NONE)
    };
    let data = part(Place::Hint(0), 2, Prot::READ, 0, "[vvar]")?;
    part(Place::Fixed(data + PAGE_SIZE), 1, Prot::READ | Prot::EXEC, 1, "[vdso]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_abis() {
        // The value every implementation has for our version (Go's runtime spells it out).
        assert_eq!(sysv_hash(VERSION), 0x3ae_75f6);
    }

    #[test]
    fn image_fits_a_page() {
        assert!(build().len() <= 4096);
    }
}
