//! mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2), msync(2), mincore(2), pkeys(7).

use bitflags::bitflags;

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::tmpfs::file::{RegularFile, seal},
    mm::{
        Limits,
        advise::Advice,
        map::{MapRequest, Place, round_up},
        remap::RemapFlags,
        store::PageStore,
        vma::{Source, VmaFlags},
    },
    num::Word,
    platform::{PAGE_SHIFT, PAGE_SIZE, Prot},
    task::process::rlimit,
};

pub(super) const IPC_LOCK: u32 = 14;

bitflags! {
    /// mmap(2) flags beside the type.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct MapFlags: u64 {
        const FIXED = 0x10;
        const ANONYMOUS = 0x20;
        const LOW = 0x40;
        const GROWSDOWN = 0x100;
        const DENYWRITE = 0x800;
        const EXECUTABLE = 0x1000;
        const LOCKED = 0x2000;
        const NORESERVE = 0x4000;
        const POPULATE = 0x8000;
        const NONBLOCK = 0x1_0000;
        const STACK = 0x2_0000;
        const HUGETLB = 0x4_0000;
        const FIXED_NOREPLACE = 0x10_0000;
    }
}
const MAP_TYPE: u64 = 0xf;
/// MAP_HUGE_2MB and MAP_HUGE_1GB, whose bits are known whatever they say together.
const HUGE_SIZES: u64 = 0x7c00_0000;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_SHARED_VALIDATE: u64 = 3;

bitflags! {
    /// mprotect(2) bits.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct ProtBits: u64 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
        const SEM = 8;
        const GROWSDOWN = 0x0100_0000;
        const GROWSUP = 0x0200_0000;
    }
}

fn access(prot: u64) -> Prot {
    Prot::from_bits_truncate((prot & 7).low_u8())
}

/// The caller's limits.
pub fn limits(cx: &Cx<'_>) -> Limits {
    let process = &cx.task.process;
    let locked = if cx.task.creds().capable(IPC_LOCK) {
        rlimit::INFINITY
    } else {
        process.limit(rlimit::MEMLOCK)
    };
    Limits { address_space: process.limit(rlimit::AS), data: process.limit(rlimit::DATA), locked }
}

/// A size of huge pages (MAP_HUGE_SHIFT) that x86-64 has; 0 is the default's.
///
/// # Errors
/// EINVAL.
pub(super) fn huge_page_size(flags: u64) -> Result<(), Errno> {
    /// MAP_HUGE_2MB and MAP_HUGE_1GB.
    const SIZES: [u64; 3] = [0, 21, 30];
    if SIZES.contains(&(flags >> 26 & 0x3f)) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// mmap(2). MAP_HUGETLB finds no huge pages reserved, as on a system that has none.
pub fn mmap(
    cx: &mut Cx<'_>,
    addr: u64,
    len: u64,
    prot: u64,
    flags: u64,
    fd: i32,
    offset: u64,
) -> SysResult {
    let kind = flags & MAP_TYPE;
    let bits = MapFlags::from_bits_truncate(flags);
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let file = if bits.contains(MapFlags::ANONYMOUS) {
        None
    } else {
        let file = cx.files().get(fd)?;
        if file.flags().contains(crate::fs::flags::OpenFlags::PATH) {
            return Err(Errno::EBADF.into());
        }
        Some(file)
    };
    if bits.contains(MapFlags::HUGETLB) {
        if file.is_some() {
            return Err(Errno::EINVAL.into());
        }
        huge_page_size(flags)?;
    }
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    let rounded = round_up(len).ok_or(Errno::ENOMEM)?;
    if offset.checked_add(rounded).is_none() {
        return Err(Errno::EOVERFLOW.into());
    }
    let fixed = bits.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE);
    if fixed && !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let limits = limits(cx);
    if bits.contains(MapFlags::LOCKED) && limits.locked == 0 {
        return Err(Errno::EPERM.into());
    }
    let place = if bits.contains(MapFlags::FIXED_NOREPLACE) {
        Place::FixedNoReplace(addr)
    } else if bits.contains(MapFlags::FIXED) {
        Place::Fixed(addr)
    } else if bits.contains(MapFlags::LOW) && addr == 0 {
        Place::Low
    } else {
        Place::Hint(addr)
    };
    let mut request = MapRequest::anon(place, len, access(prot));
    let shared = match kind {
        MAP_SHARED => true,
        MAP_SHARED_VALIDATE => {
            // Only files may be mapped so; Linux does not count MAP_FIXED_NOREPLACE among what
            // they take.
            let known =
                MAP_TYPE | HUGE_SIZES | (MapFlags::all() - MapFlags::FIXED_NOREPLACE).bits();
            if file.is_none() {
                return Err(Errno::EINVAL.into());
            }
            if flags & !known != 0 {
                return Err(Errno::EOPNOTSUPP.into());
            }
            true
        }
        MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    if bits.contains(MapFlags::HUGETLB) {
        return Err(Errno::ENOMEM.into());
    }
    request.flags.set(VmaFlags::SHARED, shared);
    request.flags.set(VmaFlags::NORESERVE, bits.contains(MapFlags::NORESERVE));
    request.flags.set(VmaFlags::STACK, bits.contains(MapFlags::STACK));
    request.flags.set(VmaFlags::LOCKED, bits.contains(MapFlags::LOCKED));
    request.populate = bits.contains(MapFlags::LOCKED)
        || bits.contains(MapFlags::POPULATE) && !bits.contains(MapFlags::NONBLOCK);
    if bits.contains(MapFlags::GROWSDOWN) {
        if shared || file.is_some() {
            return Err(Errno::EINVAL.into());
        }
        request.flags |= VmaFlags::GROWSDOWN;
    }
    match file {
        Some(file) => {
            if shared && request.prot.contains(Prot::WRITE) && !file.writable() || !file.readable()
            {
                return Err(Errno::EACCES.into());
            }
            if shared && !file.writable() {
                request.max_prot -= Prot::WRITE;
            }
            let sealed = file.downcast::<RegularFile>().is_some_and(|regular| {
                regular.body().seals() & (seal::WRITE | seal::FUTURE_WRITE) != 0
            });
            if shared && sealed {
                if request.prot.contains(Prot::WRITE) {
                    return Err(Errno::EPERM.into());
                }
                request.max_prot -= Prot::WRITE;
            }
            request.source = Source::Object(file.ops.object()?, offset >> PAGE_SHIFT);
            request.file = Some(file);
        }
        None if shared => {
            let kernel = cx.kernel();
            if rounded >> PAGE_SHIFT > kernel.frames.total() as u64
                && !bits.contains(MapFlags::NORESERVE)
            {
                return Err(Errno::ENOMEM.into());
            }
            let store = PageStore::new(kernel.fresh_id(), &kernel.frames, rounded, None);
            request.source = Source::Object(store, 0);
            request.name = Some("/dev/zero (deleted)".into());
        }
        None => {}
    }
    Ok(cx.mm().map(request, limits)?)
}

/// munmap(2).
pub fn munmap(cx: &mut Cx<'_>, addr: u64, len: u64) -> SysResult {
    cx.mm().unmap(addr, len)?;
    Ok(0)
}

/// mprotect(2).
pub fn mprotect(cx: &mut Cx<'_>, addr: u64, len: u64, prot: u64) -> SysResult {
    pkey_mprotect(cx, addr, len, prot, -1)
}

/// pkey_mprotect(2) on a CPU without protection keys: only -1 is a key.
pub fn pkey_mprotect(cx: &mut Cx<'_>, addr: u64, len: u64, prot: u64, pkey: i32) -> SysResult {
    let bits = ProtBits::from_bits_retain(prot);
    let both = ProtBits::GROWSDOWN | ProtBits::GROWSUP;
    if bits.contains(both) || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    // The rest of the bits is looked at when there is something to change.
    if len == 0 {
        return Ok(0);
    }
    if round_up(len).and_then(|len| addr.checked_add(len)).is_none_or(|end| end <= addr) {
        return Err(Errno::ENOMEM.into());
    }
    if !ProtBits::all().contains(bits) || pkey != -1 {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let limits = limits(cx);
    let (mut start, mut len) = (addr, len);
    if bits.intersects(both) {
        let vma = mm.mapping(addr).ok_or(Errno::ENOMEM)?;
        if bits.contains(ProtBits::GROWSUP) || !vma.flags.contains(VmaFlags::GROWSDOWN) {
            return Err(Errno::EINVAL.into());
        }
        len = len.checked_add(addr - vma.start).ok_or(Errno::ENOMEM)?;
        start = vma.start;
    }
    mm.protect(start, len, access(prot), limits)?;
    Ok(0)
}

/// pkey_alloc(2): on a CPU without keys Linux finds one, and cannot set its rights.
pub fn pkey_alloc(_cx: &mut Cx<'_>, _flags: u64, _rights: u64) -> SysResult {
    Err(Errno::EINVAL.into())
}
/// pkey_free(2).
pub fn pkey_free(_cx: &mut Cx<'_>, _pkey: i32) -> SysResult {
    Err(Errno::EINVAL.into())
}

/// mremap(2).
pub fn mremap(
    cx: &mut Cx<'_>,
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u64,
    new: u64,
) -> SysResult {
    let flags = RemapFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let limits = limits(cx);
    Ok(cx.mm().remap(old, old_len, new_len, flags, new, limits)?)
}

/// brk(2).
pub fn brk(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let limits = limits(cx);
    Ok(cx.mm().set_brk(addr, limits))
}

/// madvise(2).
pub fn madvise(cx: &mut Cx<'_>, addr: u64, len: u64, advice: i32) -> SysResult {
    let none = VmaFlags::empty();
    let advice = match advice {
        0 => Advice::Flags(none, VmaFlags::RANDOM | VmaFlags::SEQUENTIAL),
        1 => Advice::Flags(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL),
        2 => Advice::Flags(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM),
        3 => Advice::WillNeed,
        4 | 24 => Advice::Drop(false),
        8 => Advice::Drop(true),
        9 => Advice::Remove,
        10 => Advice::Flags(VmaFlags::DONTFORK, none),
        11 => Advice::Flags(none, VmaFlags::DONTFORK),
        14 => Advice::Flags(VmaFlags::HUGEPAGE, VmaFlags::NOHUGEPAGE),
        15 => Advice::Flags(VmaFlags::NOHUGEPAGE, VmaFlags::HUGEPAGE),
        16 => Advice::Flags(VmaFlags::DONTDUMP, none),
        17 => Advice::Flags(none, VmaFlags::DONTDUMP),
        18 => Advice::WipeOnFork,
        19 => Advice::Flags(none, VmaFlags::WIPEONFORK),
        12 | 13 | 20 | 21 | 25 => Advice::Hint,
        22 => Advice::Populate(false),
        23 => Advice::Populate(true),
        100 | 101 if !cx.task.creds().capable(cap::SYS_ADMIN) => return Err(Errno::EPERM.into()),
        _ => return Err(Errno::EINVAL.into()),
    };
    cx.mm().advise(addr, len, advice)?;
    Ok(0)
}

/// msync(2).
pub fn msync(cx: &mut Cx<'_>, addr: u64, len: u64, flags: i32) -> SysResult {
    const ASYNC: i32 = 1;
    const INVALIDATE: i32 = 2;
    const SYNC: i32 = 4;
    if flags & !(ASYNC | INVALIDATE | SYNC) != 0
        || flags & (ASYNC | SYNC) == (ASYNC | SYNC)
        || !addr.is_multiple_of(PAGE_SIZE)
    {
        return Err(Errno::EINVAL.into());
    }
    cx.mm().sync(addr, len, flags & SYNC != 0, flags & INVALIDATE != 0)?;
    Ok(0)
}

/// mincore(2).
pub fn mincore(cx: &mut Cx<'_>, addr: u64, len: u64, vec: u64) -> SysResult {
    const STEP: u64 = 4096;
    let mm = cx.mm();
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    if !mm.in_user_range(addr, len) {
        return Err(Errno::ENOMEM.into());
    }
    let pages = len.div_ceil(PAGE_SIZE);
    if !mm.in_user_range(vec, pages) {
        return Err(Errno::EFAULT.into());
    }
    let mut done = 0;
    while done < pages {
        let step = STEP.min(pages - done);
        let bytes = mm.resident(addr + (done << PAGE_SHIFT), step)?;
        mm.write_bytes(vec + done, &bytes)?;
        done += step;
    }
    Ok(0)
}

/// remap_file_pages(2), emulated as Linux does since 4.0: a new mapping in place of the old.
pub fn remap_file_pages(
    cx: &mut Cx<'_>,
    start: u64,
    size: u64,
    prot: u64,
    page: u64,
    _flags: u64,
) -> SysResult {
    let mm = cx.mm();
    let start = start & !(PAGE_SIZE - 1);
    let size = size & !(PAGE_SIZE - 1);
    let end = start.checked_add(size).ok_or(Errno::EINVAL)?;
    if prot != 0 || size == 0 || page.checked_add(size >> PAGE_SHIFT).is_none() {
        return Err(Errno::EINVAL.into());
    }
    let vma = mm.mapping(start).filter(|v| v.is_shared() && end <= v.end).ok_or(Errno::EINVAL)?;
    let Source::Object(object, _) = vma.source else { return Err(Errno::EINVAL.into()) };
    let request = MapRequest {
        max_prot: vma.max_prot,
        flags: vma.flags,
        file: vma.file,
        name: vma.name,
        shm: vma.shm,
        ..MapRequest::object(Place::Fixed(start), size, vma.prot, object, page)
    };
    mm.map(request, limits(cx))?;
    Ok(0)
}
