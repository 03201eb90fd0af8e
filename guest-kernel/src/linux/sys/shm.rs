//! shmget(2), shmat(2), shmdt(2), shmctl(2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::mm::{IPC_LOCK, huge_page_size};
use crate::{
    call::Cx,
    creds::{Creds, cap},
    error::{Errno, SysResult},
    mm::{
        map::{MapRequest, Place, round_up},
        shm::{MAX_SEGMENTS, MAX_SIZE, NewSegment, Segment, attached},
        vma::VmaFlags,
    },
    num::{Word, ret_i32},
    platform::{PAGE_SHIFT, PAGE_SIZE, Prot},
};

const IPC_CREAT: i32 = 0o1000;
const IPC_EXCL: i32 = 0o2000;
const SHM_HUGETLB: i32 = 0o4000;
const IPC_OWNER: u32 = 15;
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

/// `struct shmid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ShmidDs {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    seq: u16,
    pad: [u16; 3],
    unused: [u64; 2],
    segsz: u64,
    atime: u64,
    dtime: u64,
    ctime: u64,
    cpid: i32,
    lpid: i32,
    nattch: u64,
    unused2: [u64; 2],
}

/// May `creds` use the segment for `want` (4 read, 2 write, as one permission digit)?
fn permits(creds: &Creds, segment: &Segment, want: u32) -> bool {
    let shift = if creds.euid == segment.uid || creds.euid == segment.cuid {
        6
    } else if [segment.gid, segment.cgid].iter().any(|g| creds.egid == *g || creds.in_group(*g)) {
        3
    } else {
        0
    };
    (segment.mode >> shift) & want == want || creds.capable(IPC_OWNER)
}

/// shmget(2). SHM_HUGETLB finds no huge pages.
pub fn shmget(cx: &mut Cx<'_>, key: i32, size: u64, flags: i32) -> SysResult {
    let creds = cx.task.creds();
    let kernel = cx.kernel();
    loop {
        if key != 0
            && let Some(segment) = kernel.shm.by_key(key)
        {
            if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                return Err(Errno::EEXIST.into());
            }
            let bits = flags.cast_unsigned() & 0o777;
            let want = (bits | bits >> 3 | bits >> 6) & 6;
            if !permits(&creds, &segment, want) {
                return Err(Errno::EACCES.into());
            }
            if size > segment.size {
                return Err(Errno::EINVAL.into());
            }
            return Ok(ret_i32(segment.id));
        }
        if key != 0 && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT.into());
        }
        if size == 0 || size > MAX_SIZE {
            return Err(Errno::EINVAL.into());
        }
        let pages = round_up(size).ok_or(Errno::EINVAL)? >> PAGE_SHIFT;
        if flags & SHM_HUGETLB != 0 {
            huge_page_size(flags.cast_unsigned().into())?;
            // vm.hugetlb_shm_group is 0.
            if !creds.capable(IPC_LOCK) && creds.egid != 0 && !creds.in_group(0) {
                return Err(Errno::EPERM.into());
            }
        }
        if flags & SHM_HUGETLB != 0 || pages > kernel.frames.total() as u64 {
            return Err(Errno::ENOMEM.into());
        }
        let new = NewSegment {
            key,
            size,
            mode: flags.cast_unsigned() & 0o777,
            uid: creds.euid,
            gid: creds.egid,
            pid: cx.task.process.pid,
            now: kernel.host.realtime(),
        };
        match kernel.shm.create(new, kernel.fresh_id(), &kernel.frames) {
            // Another thread was quicker: look again.
            Err(Errno::EEXIST) => {}
            result => return Ok(ret_i32(result?)),
        }
    }
}

/// shmat(2).
pub fn shmat(cx: &mut Cx<'_>, id: i32, addr: u64, flags: i32) -> SysResult {
    const RDONLY: i32 = 0o10000;
    const RND: i32 = 0o20000;
    const REMAP: i32 = 0o40000;
    const EXEC: i32 = 0o100_000;
    let segment = cx.kernel().shm.get(id).ok_or(Errno::EINVAL)?;
    let mut addr = addr;
    if !addr.is_multiple_of(PAGE_SIZE) {
        if flags & RND == 0 {
            return Err(Errno::EINVAL.into());
        }
        addr &= !(PAGE_SIZE - 1);
    }
    if addr == 0 && flags & REMAP != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut prot = Prot::READ;
    prot.set(Prot::WRITE, flags & RDONLY == 0);
    prot.set(Prot::EXEC, flags & EXEC != 0);
    let want = if flags & RDONLY != 0 { 4 } else { 6 } | u32::from(flags & EXEC != 0);
    if !permits(&cx.task.creds(), &segment, want) {
        return Err(Errno::EACCES.into());
    }
    let end = addr.checked_add(segment.size);
    if addr != 0 && flags & REMAP == 0 && end.is_none() {
        return Err(Errno::EINVAL.into());
    }
    let place = match addr {
        0 => Place::Hint(0),
        addr if flags & REMAP != 0 => Place::Fixed(addr),
        addr => Place::FixedNoReplace(addr),
    };
    let mut vma_flags = VmaFlags::SHARED;
    vma_flags.set(VmaFlags::LOCKED, segment.locked);
    let mut max_prot = Prot::all();
    max_prot.set(Prot::WRITE, prot.contains(Prot::WRITE));
    let request = MapRequest {
        flags: vma_flags,
        max_prot,
        name: Some(format!("/SYSV{:08x} (deleted)", segment.key).into()),
        shm: Some(segment.attachment.clone()),
        ..MapRequest::object(place, segment.size, prot, segment.store.clone(), 0)
    };
    let limits = super::mm::limits(cx);
    let at = cx.mm().map(request, limits).map_err(|errno| match errno {
        Errno::EEXIST => Errno::EINVAL,
        errno => errno,
    })?;
    let (pid, now) = (cx.task.process.pid, cx.kernel().host.realtime());
    cx.kernel().shm.change(id, |s| (s.lpid, s.atime) = (pid, now));
    Ok(at)
}

/// shmdt(2).
pub fn shmdt(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let mm = cx.mm();
    let mut pieces = Vec::new();
    let mut found = None;
    mm.each_mapping(|vma, _| {
        let Some(attachment) = &vma.shm else { return };
        let Some((_, page)) = vma.object_page(vma.start) else { return };
        let base = vma.start.wrapping_sub(page << PAGE_SHIFT);
        if base == addr && found.is_none_or(|id| id == attachment.id) {
            found = Some(attachment.id);
            pieces.push((vma.start, vma.len()));
        }
    });
    let id = found.ok_or(Errno::EINVAL)?;
    for (start, len) in pieces {
        mm.unmap(start, len)?;
    }
    let (pid, now) = (cx.task.process.pid, cx.kernel().host.realtime());
    cx.kernel().shm.change(id, |s| (s.lpid, s.dtime) = (pid, now));
    Ok(0)
}

fn describe(segment: &Segment) -> ShmidDs {
    let mut mode = segment.mode;
    mode |= if segment.removed { SHM_DEST } else { 0 };
    mode |= if segment.locked { SHM_LOCKED } else { 0 };
    ShmidDs {
        key: if segment.removed { 0 } else { segment.key },
        uid: segment.uid,
        gid: segment.gid,
        cuid: segment.cuid,
        cgid: segment.cgid,
        mode,
        seq: (segment.id.cast_unsigned() / 32768).low_u16(),
        segsz: segment.size,
        atime: segment.atime.as_secs(),
        dtime: segment.dtime.as_secs(),
        ctime: segment.ctime.as_secs(),
        cpid: segment.cpid,
        lpid: segment.lpid,
        // The copy being described is no attachment.
        nattch: attached(segment).saturating_sub(1),
        ..ShmidDs::default()
    }
}

/// shmctl(2).
pub fn shmctl(cx: &mut Cx<'_>, id: i32, command: i32, buf: u64) -> SysResult {
    const RMID: i32 = 0;
    const SET: i32 = 1;
    const STAT: i32 = 2;
    const INFO: i32 = 3;
    const LOCK: i32 = 11;
    const UNLOCK: i32 = 12;
    const SHM_STAT: i32 = 13;
    const SHM_INFO: i32 = 14;
    const SHM_STAT_ANY: i32 = 15;
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    let (kernel, mm, creds) = (cx.kernel().clone(), cx.mm(), cx.task.creds());
    let highest = || {
        let index = |s: &Segment| s.id % 32768;
        ret_i32(kernel.shm.list().iter().map(index).max().unwrap_or(0))
    };
    match command {
        INFO => {
            let info =
                [MAX_SIZE, 1, MAX_SEGMENTS as u64, MAX_SEGMENTS as u64, MAX_SIZE, 0, 0, 0, 0];
            mm.write_obj(buf, &info)?;
            return Ok(highest());
        }
        SHM_INFO => {
            let list = kernel.shm.list();
            let total: u64 = list.iter().map(|s| s.size.div_ceil(PAGE_SIZE)).sum();
            let resident: u64 = list.iter().map(|s| s.store.pages()).sum();
            mm.write_obj(buf, &[list.len() as u64, total, resident, 0, 0, 0])?;
            return Ok(highest());
        }
        SHM_STAT | SHM_STAT_ANY => {
            let segment = kernel.shm.by_index(id).ok_or(Errno::EINVAL)?;
            if command == SHM_STAT && !permits(&creds, &segment, 4) {
                return Err(Errno::EACCES.into());
            }
            mm.write_obj(buf, &describe(&segment))?;
            return Ok(ret_i32(segment.id));
        }
        RMID | SET | STAT | LOCK | UNLOCK => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    let segment = kernel.shm.get(id).ok_or(Errno::EINVAL)?;
    if command == STAT {
        if !permits(&creds, &segment, 4) {
            return Err(Errno::EACCES.into());
        }
        mm.write_obj(buf, &describe(&segment))?;
        return Ok(0);
    }
    let owner = creds.euid == segment.uid || creds.euid == segment.cuid;
    if !owner && !creds.capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    // Our copy counts as an attachment: it must go before the removal is looked at.
    drop(segment);
    match command {
        RMID => kernel.shm.change(id, |s| s.removed = true),
        SET => {
            let new: ShmidDs = mm.read_obj(buf)?;
            let now = kernel.host.realtime();
            kernel.shm.change(id, |s| {
                (s.uid, s.gid, s.ctime) = (new.uid, new.gid, now);
                s.mode = new.mode & 0o777;
            });
        }
        _ => kernel.shm.change(id, |s| s.locked = command == LOCK),
    }
    Ok(0)
}
