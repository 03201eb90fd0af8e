//! Our vDSO (vdso(7)): a one-page shared object that every program finds through AT_SYSINFO_EHDR.
//!
//! Its functions make the system call; answering in the guest comes with the data page. The image
//! is built here, byte by byte, from the few tables that glibc, musl and Go look at: a SysV hash
//! table, symbols, versions (`LINUX_2.6`), no sections.

use std::sync::{Arc, PoisonError};

use zerocopy::IntoBytes;

use super::elf::{Ehdr, Phdr};
use crate::{
    error::Errno,
    fs::buf::Source,
    kernel::Kernel,
    mm::{
        Limits, Mm,
        map::{MapRequest, Place},
        store::PageStore,
        vma::VmaFlags,
    },
    num::Word,
    platform::{PAGE_SIZE, Prot},
};

/// Exported functions and the system calls they make.
const FUNCTIONS: [(&str, u32); 5] = [
    ("__vdso_clock_gettime", 228),
    ("__vdso_gettimeofday", 96),
    ("__vdso_time", 201),
    ("__vdso_getcpu", 309),
    ("__vdso_clock_getres", 229),
];
const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";
/// Bytes of code kept for each function.
const SLOT: usize = 16;

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

    // Code: `mov $number, %eax; syscall; ret`, padded with `int3`.
    let mut code = Vec::new();
    for (_, number) in FUNCTIONS {
        let start = code.len();
        code.push(0xb8);
        code.extend_from_slice(&number.to_le_bytes());
        code.extend_from_slice(&[0x0f, 0x05, 0xc3]);
        code.resize(start + SLOT, 0xcc);
    }
    let code_at = image.push(&code);

    // Symbols: the null one, then the functions; all versions the one we define.
    let mut symbols = vec![0u8; 24];
    let mut versions: Vec<u16> = vec![0];
    for (i, name) in names.iter().enumerate() {
        symbols.extend_from_slice(&name.to_le_bytes());
        // STB_GLOBAL, STT_FUNC; default visibility; any defined section index.
        symbols.extend_from_slice(&[0x12, 0]);
        symbols.extend_from_slice(&1u16.to_le_bytes());
        symbols.extend_from_slice(&(code_at + (i * SLOT) as u64).to_le_bytes());
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

/// The VM's one copy of the image.
fn object(kernel: &Arc<Kernel>) -> Result<Arc<PageStore>, Errno> {
    let mut known = kernel.vdso.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = &*known {
        return Ok(store.clone());
    }
    let store = PageStore::new(kernel.fresh_id(), &kernel.frames, PAGE_SIZE, None);
    store.write_at(&mut Source::kernel(&build()), 0)?;
    Ok(known.insert(store).clone())
}

/// Maps the vDSO; its address.
///
/// # Errors
/// ENOMEM.
pub fn map(mm: &Mm) -> Result<u64, Errno> {
    let object = object(&mm.kernel)?;
    let request = MapRequest {
        flags: VmaFlags::DONTEXPAND,
        name: Some(Arc::from("[vdso]")),
        ..MapRequest::object(Place::Hint(0), PAGE_SIZE, Prot::READ | Prot::EXEC, object, 0)
    };
    mm.map(request, Limits::NONE)
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
