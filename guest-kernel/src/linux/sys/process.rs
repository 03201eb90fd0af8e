//! A process's identity and end: getpid(2), setpgid(2), setsid(2), exit(2), pidfds.

use std::sync::atomic::Ordering;

use crate::{
    call::Cx,
    error::{Errno, Stop, SysResult},
    fs::file::OpenFlags,
    linux::siginfo::{RawSigInfo, SI_USER},
    num::{Word, ret_i32},
    signal::{SigFields, SigInfo, send::may_signal},
    task::{family, pidfd::PidFd, status::ExitStatus},
};

/// getpid(2).
pub fn getpid(cx: &mut Cx<'_>) -> SysResult {
    Ok(ret_i32(cx.task.process.pid))
}
/// gettid(2).
pub fn gettid(cx: &mut Cx<'_>) -> SysResult {
    Ok(ret_i32(cx.task.tid))
}
/// getppid(2).
pub fn getppid(cx: &mut Cx<'_>) -> SysResult {
    Ok(ret_i32(cx.task.process.ids().ppid))
}
/// exit(2): this thread alone.
pub fn exit(cx: &mut Cx<'_>, code: i32) -> SysResult {
    cx.task.set_exit_code(u64::from(code.cast_unsigned()).low_u8());
    Err(Stop::Exit)
}
/// exit_group(2).
pub fn exit_group(cx: &mut Cx<'_>, code: i32) -> SysResult {
    let code = u64::from(code.cast_unsigned()).low_u8();
    cx.task.process.begin_exit(ExitStatus::Exited(code));
    Err(Stop::Exit)
}
/// set_tid_address(2).
pub fn set_tid_address(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    cx.task.clear_child_tid.store(addr, Ordering::Relaxed);
    Ok(ret_i32(cx.task.tid))
}

/// setpgid(2).
pub fn setpgid(cx: &mut Cx<'_>, pid: i32, pgid: i32) -> SysResult {
    family::set_group(cx.task, pid, pgid)?;
    Ok(0)
}
/// getpgid(2).
pub fn getpgid(cx: &mut Cx<'_>, pid: i32) -> SysResult {
    let pid = if pid == 0 { cx.task.process.pid } else { pid };
    let process = cx.kernel().tasks.process_of(pid).ok_or(Errno::ESRCH)?;
    Ok(ret_i32(process.pgid()))
}
/// getpgrp(2).
pub fn getpgrp(cx: &mut Cx<'_>) -> SysResult {
    Ok(ret_i32(cx.task.process.pgid()))
}
/// setsid(2).
pub fn setsid(cx: &mut Cx<'_>) -> SysResult {
    Ok(ret_i32(family::new_session(cx.task)?))
}
/// getsid(2).
pub fn getsid(cx: &mut Cx<'_>, pid: i32) -> SysResult {
    let pid = if pid == 0 { cx.task.process.pid } else { pid };
    let process = cx.kernel().tasks.process_of(pid).ok_or(Errno::ESRCH)?;
    Ok(ret_i32(process.sid()))
}

/// pidfd_open(2). PIDFD_THREAD is refused.
pub fn pidfd_open(cx: &mut Cx<'_>, pid: i32, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !OpenFlags::NONBLOCK.contains(flags) || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let tasks = &cx.kernel().tasks;
    let Some(process) = tasks.process(pid) else {
        // A thread that leads no process.
        let thread = tasks.task(pid).is_some();
        return Err(if thread { Errno::EINVAL } else { Errno::ESRCH }.into());
    };
    let file = PidFd::open(&process, flags.contains(OpenFlags::NONBLOCK));
    Ok(ret_i32(cx.install(file, true)?))
}

/// The process a pidfd or an open /proc/PID stands for.
fn process_at(
    cx: &Cx<'_>,
    fd: i32,
) -> Result<std::sync::Arc<crate::task::process::Process>, Errno> {
    let file = cx.files().entry(fd)?.file;
    if let Some(pidfd) = file.downcast::<PidFd>() {
        return Ok(pidfd.process.clone());
    }
    let path = file.path.as_ref().ok_or(Errno::EBADF)?;
    let pid = crate::fs::procfs::pid_of(&**path.inode()).ok_or(Errno::EBADF)?;
    cx.kernel().tasks.process(pid).ok_or(Errno::ESRCH)
}

/// pidfd_send_signal(2). A process's pidfd reaches the process, whatever PIDFD_SIGNAL_* says of
/// threads; PIDFD_SIGNAL_PROCESS_GROUP is refused.
pub fn pidfd_send_signal(
    cx: &mut Cx<'_>,
    fd: i32,
    signal: i32,
    info: u64,
    flags: u32,
) -> SysResult {
    const THREAD_GROUP: u32 = 2;
    if flags & !THREAD_GROUP != 0 {
        return Err(Errno::EINVAL.into());
    }
    let process = process_at(cx, fd)?;
    let signal = u8::try_from(signal).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?;
    let own = &cx.task.process;
    let creds = cx.task.creds();
    let message = if info == 0 {
        let fields = SigFields::Kill { pid: own.pid, uid: creds.uid };
        SigInfo { signal, code: SI_USER, errno: 0, fields }
    } else {
        let raw: RawSigInfo = cx.mm().read_obj(info)?;
        if raw.signo != i32::from(signal) {
            return Err(Errno::EINVAL.into());
        }
        let message = raw.decode(signal);
        if process.pid != own.pid && (message.code >= 0 || message.code == -6) {
            return Err(Errno::EPERM.into());
        }
        message
    };
    if process.is_reaped() {
        return Err(Errno::ESRCH.into());
    }
    if let Some(target) = process.any_thread() {
        let same_session = process.sid() == own.sid();
        if !may_signal(&creds, &target.creds(), signal, same_session) {
            return Err(Errno::EPERM.into());
        }
    }
    if signal != 0 {
        process.send(message);
    }
    Ok(0)
}

/// pidfd_getfd(2): the permission is that of a signal rather than of ptrace.
pub fn pidfd_getfd(cx: &mut Cx<'_>, pidfd: i32, target: i32, flags: u32) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.files().get(pidfd)?;
    let process = file.downcast::<PidFd>().ok_or(Errno::EBADF)?.process.clone();
    let task = process.any_thread().ok_or(Errno::ESRCH)?;
    let (own, other) = (cx.task.creds(), task.creds());
    if own.euid != 0 && (own.uid != other.uid || own.uid != other.suid || own.uid != other.euid) {
        return Err(Errno::EPERM.into());
    }
    let file = task.files().get(target)?;
    Ok(ret_i32(cx.install(file, true)?))
}
