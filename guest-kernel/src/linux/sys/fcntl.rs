//! fcntl(2), flock(2), memfd_create(2).

use std::sync::{Arc, PoisonError};

use super::path::file;
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, Stop, SysResult, Wait},
    fs::{
        async_io::{Async, SignalOwner},
        dentry::{Dentry, Path},
        file::{OpenFile, OpenFlags},
        inode::{Actor, Inode, NewNode, mode},
        lease::Kind,
        lock::{Lock, Owner},
        mount::{Mount, MountFlags},
        tmpfs::{TmpFs, file::RegularFile, file::seal},
        vfs,
    },
    linux::layout_fs::Flock,
    num::{Word, ret_i32},
    task::process::rlimit,
};

/// fcntl(2).
pub fn fcntl(cx: &mut Cx<'_>, fd: i32, command: u32, arg: u64) -> SysResult {
    const DUPFD_CLOEXEC: u32 = 1030;
    let files = cx.files();
    let entry = files.entry(fd)?;
    let file = &entry.file;
    if file.flags().contains(OpenFlags::PATH) && !matches!(command, 0..=3 | DUPFD_CLOEXEC) {
        return Err(Errno::EBADF.into());
    }
    match command {
        0 | DUPFD_CLOEXEC => {
            let limit = cx.task.process.limit(rlimit::NOFILE);
            let from = usize::try_from(arg.low_i32()).map_err(|_| Errno::EINVAL)?;
            if from as u64 >= limit {
                return Err(Errno::EINVAL.into());
            }
            let cloexec = command == DUPFD_CLOEXEC;
            Ok(ret_i32(files.install(file.clone(), cloexec, from, limit)?))
        }
        1 => Ok(u64::from(entry.cloexec)),
        2 => {
            files.set_cloexec(fd, arg & 1 != 0)?;
            Ok(0)
        }
        3 => Ok(u64::from(file.flags().bits())),
        4 => set_flags(cx, file, fd, arg.low_u32()),
        5 | 36 => get_lock(cx, file, arg, command == 36),
        6 | 7 | 37 | 38 => set_lock(cx, file, arg, command),
        8..=11 | 15 | 16 => owner(cx, file, command, arg),
        1024 => set_lease(cx, file, fd, arg.low_u32()),
        1025 => {
            Ok(match leases(file).and_then(|inode| inode.common().leases.get(file.address())) {
                Some(Kind::Read) => 0,
                Some(Kind::Write) => 1,
                None => 2,
            })
        }
        // F_NOTIFY is absent, but for what is not a directory.
        1026 if !file.attr()?.is_dir() => Err(Errno::ENOTDIR.into()),
        // F_DUPFD_QUERY: the same description?
        1027 => {
            let other = files.entry(arg.low_i32())?.file;
            Ok(u64::from(Arc::ptr_eq(&other, file)))
        }
        1035..=1038 => hint(cx, file, command, arg),
        1031 | 1032 => pipe_size(cx, file, command, arg),
        1033 => add_seals(file, arg.low_u32()),
        1034 => {
            let regular = file.downcast::<RegularFile>().ok_or(Errno::EINVAL)?;
            Ok(u64::from(regular.body().seals()))
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn set_flags(cx: &Cx<'_>, file: &Arc<OpenFile>, fd: i32, flags: u32) -> SysResult {
    let mut settable =
        OpenFlags::APPEND | OpenFlags::NONBLOCK | OpenFlags::DIRECT | OpenFlags::NOATIME;
    // Files that never become ready keep O_ASYNC as it was.
    if file.ops.queue().is_some() {
        settable |= OpenFlags::ASYNC;
    }
    let new = OpenFlags::from_bits_truncate(flags) & settable;
    if new.contains(OpenFlags::NOATIME) && !file.flags().contains(OpenFlags::NOATIME) {
        let creds = cx.task.creds();
        if creds.fsuid != file.attr()?.uid && !creds.capable(cap::FOWNER) {
            return Err(Errno::EPERM.into());
        }
    }
    let attr = file.attr()?;
    let fifo = attr.mode & mode::FMT == mode::FIFO;
    if new.contains(OpenFlags::DIRECT) && !fifo && !vfs::takes_direct(&attr, &*file.ops) {
        return Err(Errno::EINVAL.into());
    }
    file.set_flags((file.flags() - settable) | new);
    Async::follow(cx.kernel(), file, fd);
    Ok(0)
}

fn leases(file: &OpenFile) -> Option<&Arc<dyn Inode>> {
    file.path.as_ref().map(Path::inode)
}
/// F_SETLEASE. Without an owner the caller becomes it.
fn set_lease(cx: &Cx<'_>, file: &Arc<OpenFile>, fd: i32, kind: u32) -> SysResult {
    let (inode, attr) = (leases(file).ok_or(Errno::EINVAL)?, file.attr()?);
    let creds = cx.task.creds();
    let held = &inode.common().leases;
    let kind = match kind {
        0 => Kind::Read,
        1 => Kind::Write,
        2 => {
            held.unset(file.address())?;
            file.set_flags(file.flags() - OpenFlags::ASYNC);
            *file.owner.lock().unwrap_or_else(PoisonError::into_inner) = SignalOwner::default();
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if creds.fsuid != attr.uid && !creds.capable(cap::LEASE) {
        return Err(Errno::EACCES.into());
    }
    if !attr.is_regular() {
        return Err(Errno::EINVAL.into());
    }
    held.set(file, fd, kind)?;
    // Its breaking is told as readiness is (`lease_setup()`).
    file.set_flags(file.flags() | OpenFlags::ASYNC);
    let mut owner = file.owner.lock().unwrap_or_else(PoisonError::into_inner);
    if owner.id == 0 {
        (owner.kind, owner.id) = (1, cx.task.process.pid);
        owner.users = (creds.uid, creds.euid);
    }
    Ok(0)
}

/// F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG, F_SETOWN_EX, F_GETOWN_EX.
fn owner(cx: &Cx<'_>, file: &OpenFile, command: u32, arg: u64) -> SysResult {
    const TID: i32 = 0;
    const PID: i32 = 1;
    const PGRP: i32 = 2;
    let lock = || file.owner.lock().unwrap_or_else(PoisonError::into_inner);
    match command {
        8 => {
            let id = arg.low_i32();
            let (kind, id) = match id {
                i32::MIN => return Err(Errno::EINVAL.into()),
                id if id < 0 => (PGRP, -id),
                id => (PID, id),
            };
            set_owner(cx, file, kind, id)
        }
        9 => {
            let owner = *lock();
            Ok(ret_i32(if owner.kind == PGRP { -owner.id } else { owner.id }))
        }
        10 => {
            lock().signal =
                u8::try_from(arg.low_u32()).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?;
            Ok(0)
        }
        11 => Ok(u64::from(lock().signal)),
        15 => {
            let [kind, id]: [i32; 2] = cx.mm().read_obj(arg)?;
            if !(TID..=PGRP).contains(&kind) {
                return Err(Errno::EINVAL.into());
            }
            set_owner(cx, file, kind, id)
        }
        _ => {
            let owner = *lock();
            cx.mm().write_obj(arg, &[owner.kind, owner.id])?;
            Ok(0)
        }
    }
}
/// F_GET_RW_HINT and its kin: hints are taken, forgotten, and shown as not set.
fn hint(cx: &Cx<'_>, file: &OpenFile, command: u32, addr: u64) -> SysResult {
    const EXTREME: u64 = 5;
    // The hints of a description (F_GET_FILE_RW_HINT) are gone from Linux.
    if command > 1036 {
        return Err(Errno::EINVAL.into());
    }
    if command == 1035 {
        cx.mm().write_obj(addr, &0u64)?;
    } else if !crate::fs::perm::owns(&cx.task.creds(), &file.attr()?) {
        return Err(Errno::EPERM.into());
    } else if cx.mm().read_obj::<u64>(addr)? > EXTREME {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}
fn set_owner(cx: &Cx<'_>, file: &OpenFile, kind: i32, id: i32) -> SysResult {
    let tasks = &cx.kernel().tasks;
    let there = id == 0
        || match kind {
            0 => tasks.task(id).is_some(),
            1 => tasks.process(id).is_some(),
            _ => !tasks.group(id).is_empty(),
        };
    if !there {
        return Err(Errno::ESRCH.into());
    }
    let mut owner = file.owner.lock().unwrap_or_else(PoisonError::into_inner);
    (owner.kind, owner.id) = (kind, id);
    let creds = cx.task.creds();
    owner.users = (creds.uid, creds.euid);
    Ok(0)
}

fn pipe_size(cx: &Cx<'_>, file: &OpenFile, command: u32, arg: u64) -> SysResult {
    let end = crate::pipe::PipeEnd::of(file).ok_or(Errno::EBADF)?;
    if command == 1032 {
        return Ok(end.pipe.capacity() as u64);
    }
    let privileged = cx.task.creds().capable(crate::creds::cap::SYS_RESOURCE);
    Ok(end.pipe.set_capacity(arg.low_u32().size(), privileged)? as u64)
}

fn add_seals(file: &OpenFile, seals: u32) -> SysResult {
    if !file.writable() {
        return Err(Errno::EPERM.into());
    }
    let regular = file.downcast::<RegularFile>().ok_or(Errno::EINVAL)?;
    if seals & !0x3f != 0 {
        return Err(Errno::EINVAL.into());
    }
    if regular.body().seals() & seal::SEAL != 0 {
        return Err(Errno::EPERM.into());
    }
    let mut seals = seals;
    if seals & seal::EXEC != 0 && file.attr()?.mode & 0o111 != 0 {
        // What stays executable is not written any more.
        seals |= seal::SHRINK | seal::GROW | seal::WRITE | seal::FUTURE_WRITE;
    }
    if seals & seal::WRITE != 0 {
        let body = regular.body();
        let id = crate::mm::object::MemObject::id(&**body);
        let mappers = crate::mm::object::MemObject::mappers(&**body);
        if mappers.list().iter().any(|mm| mm.maps_writable(id)) {
            return Err(Errno::EBUSY.into());
        }
    }
    regular.body().add_seals(seals);
    Ok(0)
}

/// The range a struct flock means.
fn range(file: &OpenFile, raw: &Flock) -> Result<(u64, u64), Errno> {
    let base = match raw.whence {
        0 => 0,
        1 => file.with_position(|p| *p),
        2 => file.attr()?.size,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.cast_signed().checked_add(raw.start).ok_or(Errno::EOVERFLOW)?;
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    // The last byte there may be (OFFSET_MAX) is the end of what reaches to the end.
    const PAST: u64 = 1 << 63;
    match (raw.len.unsigned_abs(), raw.len < 0) {
        (0, _) => Ok((start, u64::MAX)),
        (len, true) => Ok((start.checked_sub(len).ok_or(Errno::EINVAL)?, start)),
        (len, false) => match start + len {
            PAST => Ok((start, u64::MAX)),
            end if end < PAST => Ok((start, end)),
            _ => Err(Errno::EOVERFLOW),
        },
    }
}

const RDLCK: i16 = 0;
const WRLCK: i16 = 1;
const UNLCK: i16 = 2;

fn wanted(cx: &Cx<'_>, file: &Arc<OpenFile>, raw: &Flock, by_file: bool) -> Result<Lock, Errno> {
    let (start, end) = range(file, raw)?;
    let owner = if by_file {
        Owner::File(file.address())
    } else {
        Owner::Table(Arc::as_ptr(&cx.files()).addr(), cx.task.process.pid)
    };
    if !(RDLCK..=UNLCK).contains(&raw.kind) {
        return Err(Errno::EINVAL);
    }
    Ok(Lock { owner, write: raw.kind == WRLCK, start, end })
}

fn get_lock(cx: &Cx<'_>, file: &Arc<OpenFile>, addr: u64, by_file: bool) -> SysResult {
    let mut raw: Flock = cx.mm().read_obj(addr)?;
    // Only open file descriptions' locks can be asked about with F_UNLCK.
    if raw.kind == UNLCK && !by_file {
        return Err(Errno::EINVAL.into());
    }
    let lock = wanted(cx, file, &raw, by_file)?;
    if by_file && raw.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    match file.locks().conflict(&lock) {
        None => raw.kind = UNLCK,
        Some(held) => {
            raw.kind = if held.write { WRLCK } else { RDLCK };
            raw.whence = 0;
            raw.start = held.start.cast_signed();
            raw.len = if held.end == u64::MAX { 0 } else { (held.end - held.start).cast_signed() };
            raw.pid = match held.owner {
                Owner::Table(_, pid) => pid,
                Owner::File(_) => -1,
            };
        }
    }
    cx.mm().write_obj(addr, &raw)?;
    Ok(0)
}

fn set_lock(cx: &Cx<'_>, file: &Arc<OpenFile>, addr: u64, command: u32) -> SysResult {
    let raw: Flock = cx.mm().read_obj(addr)?;
    let by_file = command >= 37;
    let waits = command == 7 || command == 38;
    let lock = wanted(cx, file, &raw, by_file)?;
    if (raw.kind == RDLCK && !file.readable()) || (raw.kind == WRLCK && !file.writable()) {
        return Err(Errno::EBADF.into());
    }
    if by_file && raw.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let locks = file.locks();
    if raw.kind == UNLCK {
        locks.unset(&lock);
        return Ok(0);
    }
    let (kernel, me) = (cx.kernel(), id(lock.owner));
    match locks.set(lock) {
        Ok(()) => {
            kernel.fs.lock_waits.remove(me);
            Ok(0)
        }
        Err(_) if !waits => Err(Errno::EAGAIN.into()),
        Err(held) => {
            if cx.call.interrupted {
                kernel.fs.lock_waits.remove(me);
            } else if !by_file && !kernel.fs.lock_waits.add(me, id(held.owner)) {
                return Err(Errno::EDEADLK.into());
            }
            Err(Stop::Wait(Wait::on(locks.queue())))
        }
    }
}
fn id(owner: Owner) -> usize {
    match owner {
        Owner::Table(id, _) | Owner::File(id) => id,
    }
}

/// flock(2).
pub fn flock(cx: &mut Cx<'_>, fd: i32, operation: u32) -> SysResult {
    const NONBLOCK: u32 = 4;
    const MAND: u32 = 32;
    if operation & MAND != 0 {
        // What is left of LOCK_MAND: nothing, of whatever descriptor.
        return Ok(0);
    }
    let write = match operation & !NONBLOCK {
        1 => Some(false),
        2 => Some(true),
        8 => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let file = file(cx, fd)?;
    if write.is_some() && !file.readable() && !file.writable() {
        return Err(Errno::EBADF.into());
    }
    let locks = file.locks();
    if locks.flock(Owner::File(file.address()), write) {
        return Ok(0);
    }
    if operation & NONBLOCK != 0 {
        return Err(Errno::EAGAIN.into());
    }
    Err(Wait::on(locks.queue()).into())
}

/// memfd_create(2): a file of a tmpfs of its own, which is mounted nowhere. MFD_HUGETLB is refused
/// as by a kernel without huge pages, once all else is seen to be right.
pub fn memfd_create(cx: &mut Cx<'_>, name: u64, flags: u32) -> SysResult {
    const CLOEXEC: u32 = 1;
    const ALLOW_SEALING: u32 = 2;
    const HUGETLB: u32 = 4;
    const NOEXEC_SEAL: u32 = 8;
    const EXEC: u32 = 16;
    // MFD_HUGE_MASK << MFD_HUGE_SHIFT.
    const HUGE_SIZE: u32 = 0x3f << 26;
    let huge = flags & HUGETLB != 0;
    let known = CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC;
    let known = if huge { known | HUGETLB | HUGE_SIZE } else { known };
    if flags & !known != 0 || flags & (NOEXEC_SEAL | EXEC) == NOEXEC_SEAL | EXEC {
        return Err(Errno::EINVAL.into());
    }
    let name = cx.mm().read_cstr(name, 250, Errno::EINVAL)?;
    if huge {
        return Err(Errno::ENOSYS.into());
    }
    let who = Actor::of(cx.task);
    let kernel = cx.kernel();
    let root = TmpFs::create(kernel, "tmpfs", kernel.config.memory, 0o777);
    let bits = mode::REG | if flags & NOEXEC_SEAL == 0 { 0o777 } else { 0o666 };
    let (uid, gid) = (who.creds.fsuid, who.creds.fsgid);
    let new = NewNode { mode: bits, uid, gid, rdev: 0, target: Vec::new() };
    let inode = root.inode().tmpfile(&who, &new)?;
    let open = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    // As on Linux, its first description does not keep it from being executed.
    let ops = inode.clone().open(&who, OpenFlags::empty())?;
    if let Some(regular) = ops.as_any().downcast_ref::<RegularFile>() {
        let sealable = flags & (ALLOW_SEALING | NOEXEC_SEAL) != 0;
        let mut seals = if sealable { 0 } else { seal::SEAL };
        if flags & NOEXEC_SEAL != 0 {
            seals |= seal::EXEC;
        }
        regular.body().set_seals(seals);
    }
    let shown = [b"memfd:".as_slice(), &name].concat();
    let dentry = Dentry::nameless(&root, inode, &shown);
    let mount = Mount::new(0, "tmpfs", root, MountFlags::empty());
    let file = OpenFile::at(ops, Path { mount, dentry }, open);
    Ok(ret_i32(cx.install(file, flags & CLOEXEC != 0)?))
}
