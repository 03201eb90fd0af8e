//! close(2), dup(2), fcntl(2), flock(2), ioctl(2): what is done to descriptors themselves.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, Restart, Stop, SysResult, Wait},
    fs::{
        file::{OpenFile, OpenFlags},
        lock::{Lock, Owner},
    },
    num::{Word, ret_i32},
    pipe::PipeEnd,
    task::process::rlimit,
};

/// Flags that F_SETFL may change (fcntl(2)).
fn changeable() -> OpenFlags {
    OpenFlags::APPEND
        | OpenFlags::ASYNC
        | OpenFlags::DIRECT
        | OpenFlags::NOATIME
        | OpenFlags::NONBLOCK
}

/// close(2).
pub fn close(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let entry = cx.files().close(fd)?;
    drop_locks(cx, &entry.file);
    Ok(0)
}

/// POSIX record locks go when their process closes any descriptor of the file (fcntl(2)).
fn drop_locks(cx: &Cx<'_>, file: &OpenFile) {
    if let Some(path) = file.path.as_ref() {
        path.inode().common().locks.release(record_owner(cx));
    }
}

/// Who holds the caller's record locks: its descriptor table, as in Linux.
fn record_owner(cx: &Cx<'_>) -> Owner {
    Owner::Table(std::sync::Arc::as_ptr(&cx.files()).addr(), cx.task.process.pid)
}

/// close_range(2); CLOSE_RANGE_UNSHARE (2), CLOSE_RANGE_CLOEXEC (4).
pub fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: u32) -> SysResult {
    if flags & !6 != 0 || first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags & 2 != 0 {
        let own = cx.files().duplicate();
        cx.task.set_files(own);
    }
    let files = cx.files();
    for (fd, _) in files.list() {
        let number = fd.cast_unsigned();
        if number < first || number > last {
            continue;
        }
        if flags & 4 != 0 {
            files.set_cloexec(fd, true)?;
        } else if let Ok(entry) = files.close(fd) {
            drop_locks(cx, &entry.file);
        }
    }
    Ok(0)
}

/// dup(2).
pub fn dup(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let file = cx.files().get(fd)?;
    Ok(ret_i32(cx.install(file, false)?))
}

/// dup2(2).
pub fn dup2(cx: &mut Cx<'_>, from: i32, to: i32) -> SysResult {
    if from == to {
        cx.files().get(from)?;
        return Ok(ret_i32(to));
    }
    replace(cx, from, to, false)
}

/// dup3(2).
pub fn dup3(cx: &mut Cx<'_>, from: i32, to: i32, flags: u32) -> SysResult {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 || from == to {
        return Err(Errno::EINVAL.into());
    }
    replace(cx, from, to, flags != 0)
}

fn replace(cx: &Cx<'_>, from: i32, to: i32, cloexec: bool) -> SysResult {
    let file = cx.files().get(from)?;
    let limit = cx.task.process.limit(rlimit::NOFILE);
    if let Some(old) = cx.files().replace(to, file, cloexec, limit)? {
        drop_locks(cx, &old.file);
    }
    Ok(ret_i32(to))
}

/// struct flock (fcntl(2)).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Flock {
    kind: i16,
    whence: i16,
    pad: i32,
    start: i64,
    len: i64,
    pid: i32,
    pad2: i32,
}

const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

fn record_range(file: &OpenFile, raw: &Flock) -> Result<(u64, u64), Errno> {
    let base = match raw.whence {
        0 => 0,
        1 => file.with_position(|p| p.cast_signed()),
        2 => file.attr()?.size.cast_signed(),
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(raw.start).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match raw.len {
        0 => (start, i64::MAX),
        len if len > 0 => (start, start.checked_add(len).ok_or(Errno::EOVERFLOW)?),
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start),
    };
    let end = if end == i64::MAX { u64::MAX } else { end.cast_unsigned() };
    Ok((u64::try_from(start).map_err(|_| Errno::EINVAL)?, end))
}

fn record_lock(cx: &mut Cx<'_>, file: &OpenFile, command: u32, arg: u64) -> SysResult {
    let mut raw: Flock = cx.mm().read_obj(arg)?;
    let open_file = command >= 36;
    if open_file && raw.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let owner = if open_file { Owner::File(file.address()) } else { record_owner(cx) };
    let (start, end) = record_range(file, &raw)?;
    let path = file.path.as_ref().ok_or(Errno::EBADF)?;
    let inode = path.inode();
    let locks = &inode.common().locks;
    let lock = Lock { owner, write: raw.kind == F_WRLCK, start, end };
    match (command, raw.kind) {
        (5 | 36, F_RDLCK | F_WRLCK) => {
            match locks.conflict(&lock) {
                None => raw.kind = F_UNLCK,
                Some(held) => {
                    raw.kind = if held.write { F_WRLCK } else { F_RDLCK };
                    raw.whence = 0;
                    raw.start = held.start.cast_signed();
                    raw.len = if held.end == u64::MAX {
                        0
                    } else {
                        (held.end - held.start).cast_signed()
                    };
                    raw.pid = match held.owner {
                        Owner::Table(_, pid) => pid,
                        Owner::File(_) => -1,
                    };
                }
            }
            cx.mm().write_obj(arg, &raw)?;
            Ok(0)
        }
        (_, F_UNLCK) => {
            locks.unset(&lock);
            Ok(0)
        }
        (6 | 7 | 37 | 38, F_RDLCK | F_WRLCK) => {
            let allowed = if lock.write { file.writable() } else { file.readable() };
            if !allowed {
                return Err(Errno::EBADF.into());
            }
            match locks.set(lock) {
                Ok(()) => Ok(0),
                Err(_) if matches!(command, 6 | 37) => Err(Errno::EAGAIN.into()),
                Err(_) => Err(Stop::Wait(Wait::on(locks.queue()))),
            }
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// fcntl(2).
pub fn fcntl(cx: &mut Cx<'_>, fd: i32, command: u32, arg: u64) -> SysResult {
    let entry = cx.files().entry(fd)?;
    let file = &entry.file;
    let path_only = file.flags().contains(OpenFlags::PATH);
    if path_only && !matches!(command, 0 | 1 | 2 | 3 | 1030) {
        return Err(Errno::EBADF.into());
    }
    match command {
        // F_DUPFD, F_DUPFD_CLOEXEC
        0 | 1030 => {
            let limit = cx.task.process.limit(rlimit::NOFILE);
            let from = arg.low_u32();
            if u64::from(from) >= limit {
                return Err(Errno::EINVAL.into());
            }
            let file = file.clone();
            Ok(ret_i32(cx.files().install(file, command == 1030, from.size(), limit)?))
        }
        // F_GETFD, F_SETFD
        1 => Ok(u64::from(entry.cloexec)),
        2 => {
            cx.files().set_cloexec(fd, arg & 1 != 0)?;
            Ok(0)
        }
        // F_GETFL, F_SETFL
        3 => Ok(u64::from(file.flags().bits())),
        4 => {
            let wanted = OpenFlags::from_bits_truncate(arg.low_u32()) & changeable();
            file.set_flags((file.flags() - changeable()) | wanted);
            Ok(0)
        }
        5..=7 | 36..=38 => record_lock(cx, file, command, arg),
        // F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG: no asynchronous I/O signals are sent.
        8..=11 => Ok(0),
        // F_SETLEASE, F_GETLEASE: never granted; F_UNLCK is what nobody holds.
        1024 => Err(Errno::EAGAIN.into()),
        1025 => Ok(2),
        // F_SETPIPE_SZ, F_GETPIPE_SZ
        1031 | 1032 => pipe_size(cx, file, command, arg),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn pipe_size(cx: &Cx<'_>, file: &OpenFile, command: u32, arg: u64) -> SysResult {
    let end = file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?;
    if command == 1032 {
        return Ok(end.pipe.capacity() as u64);
    }
    let privileged = cx.task.creds().capable(cap::SYS_RESOURCE);
    Ok(end.pipe.set_capacity(arg.low_u32().size(), privileged)? as u64)
}

/// flock(2).
pub fn flock(cx: &mut Cx<'_>, fd: i32, operation: u32) -> SysResult {
    const LOCK_NB: u32 = 4;
    let file = cx.files().get(fd)?;
    let write = match operation & !LOCK_NB {
        1 => Some(false),
        2 => Some(true),
        8 => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let path = file.path.as_ref().ok_or(Errno::EBADF)?;
    let inode = path.inode();
    let locks = &inode.common().locks;
    if locks.flock(Owner::File(file.address()), write) {
        Ok(0)
    } else if operation & LOCK_NB != 0 {
        Err(Errno::EAGAIN.into())
    } else {
        Err(Stop::Wait(Wait::on(locks.queue()).restart(Restart::IfSaRestart)))
    }
}

/// ioctl(2): what every file has, then the file's own.
pub fn ioctl(cx: &mut Cx<'_>, fd: i32, command: u32, arg: u64) -> SysResult {
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    let file = cx.files().get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    match command {
        FIOCLEX | FIONCLEX => {
            cx.files().set_cloexec(fd, command == FIOCLEX)?;
            Ok(0)
        }
        FIONBIO | FIOASYNC => {
            let on = cx.mm().read_obj::<i32>(arg)? != 0;
            let flag = if command == FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let mut flags = file.flags();
            flags.set(flag, on);
            file.set_flags(flags);
            Ok(0)
        }
        _ => {
            let file = file.clone();
            file.ops.ioctl(cx, &file, command, arg)
        }
    }
}
