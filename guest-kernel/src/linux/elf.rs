//! ELF headers, decoded from hostile bytes (elf(5)), and the mapping of one ELF file.
//!
//! What Linux's `fs/binfmt_elf.c` refuses is refused here with the same errno. Offsets and sizes in
//! a file are allegations: every sum is checked.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    error::Errno,
    fs::{
        buf::Sink,
        file::{FileOps, OpenFile},
    },
    mm::{
        Limits, Mm,
        map::{MapRequest, Place},
        object::MemObject,
        vma::VmaFlags,
    },
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE, Prot},
};

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PATH_MAX: u64 = 4096;
/// Most bytes of program headers Linux reads (`ELF_MIN_ALIGN` table limit).
const MAX_HEADERS: usize = 65536;
/// Pages of a segment read ahead while it is mapped.
const READ_AHEAD: u64 = 256;

/// ELF64 file header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "elf(5) names the fields")]
pub struct Ehdr {
    pub e_ident: [u8; 16],
    pub e_type: u16,
    pub e_machine: u16,
    pub e_version: u32,
    pub e_entry: u64,
    pub e_phoff: u64,
    pub e_shoff: u64,
    pub e_flags: u32,
    pub e_ehsize: u16,
    pub e_phentsize: u16,
    pub e_phnum: u16,
    pub e_shentsize: u16,
    pub e_shnum: u16,
    pub e_shstrndx: u16,
}

/// ELF64 program header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "elf(5) names the fields")]
pub struct Phdr {
    pub p_type: u32,
    pub p_flags: u32,
    pub p_offset: u64,
    pub p_vaddr: u64,
    pub p_paddr: u64,
    pub p_filesz: u64,
    pub p_memsz: u64,
    pub p_align: u64,
}

/// Reads `len` bytes at `offset` of a file into the kernel.
///
/// # Errors
/// EIO at the end of the file, or the file's errno.
fn read_exact(file: &OpenFile, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    if read_some(file, offset, &mut bytes)? == len { Ok(bytes) } else { Err(Errno::EIO) }
}

/// Reads at `offset` until `dst` is full or the file ends.
///
/// # Errors
/// The file's errno.
pub fn read_some(file: &OpenFile, offset: u64, dst: &mut [u8]) -> Result<usize, Errno> {
    let ops: &dyn FileOps = &*file.ops;
    let mut done = 0;
    while done < dst.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        match ops.read_at(file, &mut Sink::kernel(&mut dst[done..]), at)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// One ELF file's headers.
#[derive(Debug)]
pub struct Elf {
    /// The file header.
    pub header: Ehdr,
    /// The program headers.
    pub segments: Vec<Phdr>,
}

/// Where a file was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// What was added to its addresses.
    pub bias: u64,
    /// Entry point.
    pub entry: u64,
    /// Address of the program headers in memory, 0 if no segment holds them.
    pub phdr: u64,
    /// One past its last byte.
    pub end: u64,
    /// Text range.
    pub code: (u64, u64),
    /// Data range.
    pub data: (u64, u64),
}

impl Elf {
    /// Decodes the headers of `file`, whose first bytes are `head`.
    ///
    /// # Errors
    /// ENOEXEC for anything Linux would not take for an x86-64 program; EIO for a truncated one.
    pub fn parse(file: &OpenFile, head: &[u8]) -> Result<Elf, Errno> {
        let (header, _) = Ehdr::read_from_prefix(head).map_err(|_| Errno::ENOEXEC)?;
        if header.e_ident[..4] != *b"\x7fELF"
            || !matches!(header.e_type, ET_EXEC | ET_DYN)
            || header.e_machine != EM_X86_64
            || usize::from(header.e_phentsize) != size_of::<Phdr>()
        {
            return Err(Errno::ENOEXEC);
        }
        let size = usize::from(header.e_phnum) * size_of::<Phdr>();
        if size == 0 || size > MAX_HEADERS {
            return Err(Errno::ENOEXEC);
        }
        let bytes = read_exact(file, header.e_phoff, size).map_err(|errno| match errno {
            Errno::EINVAL => Errno::ENOEXEC,
            errno => errno,
        })?;
        let segments = bytes
            .chunks_exact(size_of::<Phdr>())
            .filter_map(|chunk| Phdr::read_from_bytes(chunk).ok())
            .collect();
        Ok(Elf { header, segments })
    }

    /// The path of the program interpreter, if one is asked for.
    ///
    /// # Errors
    /// ENOEXEC for a path Linux would not take, EIO for a truncated file.
    pub fn interpreter(&self, file: &OpenFile) -> Result<Option<Vec<u8>>, Errno> {
        let Some(segment) = self.segments.iter().find(|s| s.p_type == PT_INTERP) else {
            return Ok(None);
        };
        if segment.p_filesz < 2 || segment.p_filesz > PATH_MAX {
            return Err(Errno::ENOEXEC);
        }
        let mut path = read_exact(file, segment.p_offset, segment.p_filesz.size())?;
        if path.pop() != Some(0) {
            return Err(Errno::ENOEXEC);
        }
        path.truncate(path.iter().position(|b| *b == 0).unwrap_or(path.len()));
        Ok(Some(path))
    }

    /// It may lie anywhere.
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.header.e_type == ET_DYN
    }
    /// It wants to execute its stack.
    #[must_use]
    pub fn wants_executable_stack(&self) -> bool {
        self.segments.iter().any(|s| s.p_type == PT_GNU_STACK && s.p_flags & 1 != 0)
    }

    fn loads(&self) -> impl DoubleEndedIterator<Item = &Phdr> {
        self.segments.iter().filter(|s| s.p_type == PT_LOAD)
    }

    /// First and one-past-last page of all segments, before the bias.
    fn span(&self, user_end: u64) -> Result<(u64, u64), Errno> {
        let (mut low, mut high) = (u64::MAX, 0);
        for s in self.loads() {
            if s.p_filesz > s.p_memsz || s.p_memsz > user_end {
                return Err(Errno::EINVAL);
            }
            let end = s.p_vaddr.checked_add(s.p_memsz).ok_or(Errno::EINVAL)?;
            low = low.min(s.p_vaddr & !(PAGE_SIZE - 1));
            high = high.max(end.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?);
        }
        if low >= high || high > user_end {
            return Err(if high == 0 { Errno::ENOEXEC } else { Errno::EINVAL });
        }
        Ok((low, high))
    }

    fn alignment(&self) -> u64 {
        let aligned = |s: &Phdr| s.p_align.is_power_of_two() && s.p_align > PAGE_SIZE;
        self.loads().filter(|s| aligned(s)).map(|s| s.p_align).max().unwrap_or(PAGE_SIZE)
    }

    /// Maps the file into `mm`. A relocatable one goes at `base`, or anywhere if that is 0.
    ///
    /// # Errors
    /// EINVAL or ENOEXEC for impossible segments, ENOMEM.
    pub fn map(&self, mm: &Mm, file: &Arc<OpenFile>, base: u64) -> Result<Mapped, Errno> {
        let object = file.ops.object().map_err(|_| Errno::ENOEXEC)?;
        let (low, high) = self.span(mm.user_end())?;
        let size = high - low;
        // Claim the whole span at once, so that no segment can land on anything else.
        let align = self.alignment().min(1 << 30);
        let place = if !self.is_relocatable() {
            Place::FixedNoReplace(low)
        } else if base != 0 {
            Place::Hint(base & !(align - 1))
        } else {
            Place::Hint(0)
        };
        let slack = if align > PAGE_SIZE && self.is_relocatable() { 2 * align } else { 0 };
        let claim = size.checked_add(slack).ok_or(Errno::ENOMEM)?;
        let at = mm.map(MapRequest::anon(place, claim, Prot::empty()), Limits::NONE)?;
        let start = at.checked_next_multiple_of(if slack > 0 { align } else { PAGE_SIZE });
        let start = start.ok_or(Errno::ENOMEM)?;
        // `low` itself may be misaligned against the alignment asked for; the bias must not be.
        let bias = if slack > 0 {
            start.wrapping_sub(low & !(align - 1))
        } else {
            start.wrapping_sub(low)
        };
        let first = low.wrapping_add(bias);
        if first < at || first - at > slack {
            return Err(Errno::EINVAL);
        }
        if first > at {
            mm.unmap(at, first - at)?;
        }
        if at + claim > first + size {
            mm.unmap(first + size, at + claim - (first + size))?;
        }
        let mut mapped = Mapped {
            bias,
            entry: self.header.e_entry.wrapping_add(bias),
            phdr: 0,
            end: first + size,
            code: (u64::MAX, 0),
            data: (0, 0),
        };
        let mut cursor = first;
        for segment in self.loads() {
            let (from, to) = map_segment(mm, file, &object, segment, bias)?;
            if from > cursor {
                mm.unmap(cursor, from - cursor)?;
            }
            cursor = cursor.max(to);
            let (from, to) = (segment.p_vaddr.wrapping_add(bias), segment.p_filesz);
            if segment.p_flags & 1 != 0 {
                mapped.code = (mapped.code.0.min(from), mapped.code.1.max(from + to));
            }
            if from > mapped.data.0 {
                mapped.data.0 = from;
            }
            mapped.data.1 = mapped.data.1.max(from + to);
            let (offset, phoff) = (segment.p_offset, self.header.e_phoff);
            if phoff >= offset && phoff - offset < segment.p_filesz {
                mapped.phdr = from + (phoff - offset);
            }
        }
        if let Some(s) = self.segments.iter().find(|s| s.p_type == PT_PHDR) {
            mapped.phdr = s.p_vaddr.wrapping_add(bias);
        }
        Ok(mapped)
    }
}

/// Maps one segment: its file pages, then zeroes, then zero pages. The pages it covers.
fn map_segment(
    mm: &Mm,
    file: &Arc<OpenFile>,
    object: &Arc<dyn MemObject>,
    segment: &Phdr,
    bias: u64,
) -> Result<(u64, u64), Errno> {
    let vaddr = segment.p_vaddr.wrapping_add(bias);
    let within = vaddr % PAGE_SIZE;
    let start = vaddr - within;
    let file_end = vaddr.checked_add(segment.p_filesz).ok_or(Errno::EINVAL)?;
    let mem_end = vaddr.checked_add(segment.p_memsz).ok_or(Errno::EINVAL)?;
    let last = mem_end.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let mut prot = Prot::empty();
    prot.set(Prot::READ, segment.p_flags & 4 != 0);
    prot.set(Prot::WRITE, segment.p_flags & 2 != 0);
    prot.set(Prot::EXEC, segment.p_flags & 1 != 0);
    let mut zero_from = start;
    if segment.p_filesz > 0 {
        let offset = segment.p_offset.checked_sub(within).ok_or(Errno::EINVAL)?;
        if !offset.is_multiple_of(PAGE_SIZE) || offset > i64::MAX.cast_unsigned() {
            return Err(Errno::EINVAL);
        }
        let len = (file_end - start).next_multiple_of(PAGE_SIZE);
        let first = offset >> PAGE_SHIFT;
        object.prefetch(first, (len >> PAGE_SHIFT).min(READ_AHEAD));
        let request = MapRequest {
            file: Some(file.clone()),
            ..MapRequest::object(Place::Fixed(start), len, prot, object.clone(), first)
        };
        mm.map(request, Limits::NONE)?;
        zero_from = start + len;
        if mem_end > file_end && prot.contains(Prot::WRITE) {
            mm.zero_bytes(file_end, zero_from.min(mem_end.max(zero_from)) - file_end)?;
        }
    }
    if last > zero_from {
        let request = MapRequest {
            flags: VmaFlags::empty(),
            ..MapRequest::anon(Place::Fixed(zero_from), last - zero_from, prot | Prot::READ)
        };
        mm.map(request, Limits::NONE)?;
    }
    Ok((start, last.max(zero_from)))
}
