//! pipe(2), and ioctl(2) on pipes.

use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::file::OpenFlags,
    num::Word,
    pipe::{Pipe, PipeEnd},
};

/// FIONREAD of ioctl_tty(2): bytes ready to be read.
pub const FIONREAD: u32 = 0x541b;

/// pipe(2).
pub fn pipe(cx: &mut Cx<'_>, fds: u64) -> SysResult {
    pipe2(cx, fds, 0)
}

/// pipe2(2). O_NOTIFICATION_PIPE (the bit of O_EXCL) is refused as a kernel without watch queues does.
pub fn pipe2(cx: &mut Cx<'_>, fds: u64, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let notification = flags.contains(OpenFlags::EXCL);
    let flags = flags - OpenFlags::EXCL;
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    if notification {
        return Err(Errno::ENOPKG.into());
    }
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let creds = cx.task.creds();
    let owner = (creds.fsuid, creds.fsgid);
    let (reader, writer) = Pipe::pair(cx.kernel().fresh_id(), owner, flags);
    let first = cx.install(reader, cloexec)?;
    let second = match cx.install(writer, cloexec) {
        Ok(fd) => fd,
        Err(e) => {
            drop(cx.files().close(first));
            return Err(e.into());
        }
    };
    if let Err(e) = cx.mm().write_obj(fds, &[first, second]) {
        drop(cx.files().close(first));
        drop(cx.files().close(second));
        return Err(e.into());
    }
    Ok(0)
}

/// ioctl(2) on a pipe or FIFO.
pub fn ioctl(cx: &mut Cx<'_>, end: &PipeEnd, command: u32, arg: u64) -> SysResult {
    match command {
        FIONREAD => {
            cx.mm().write_obj(arg, &end.pipe.pending().low_i32())?;
            Ok(0)
        }
        _ => Err(Errno::ENOTTY.into()),
    }
}
