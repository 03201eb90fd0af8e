//! signalfd(2). Deviation: a descriptor reads the signals of the thread that made it, also when
//! another thread or a forked child reads.

use super::path::file;
use crate::{
    call::Cx,
    error::{Errno, SysResult},
    fs::file::{OpenFile, OpenFlags},
    num::ret_i32,
    signal::{SigSet, fd::SignalFd},
};

/// signalfd(2), the call without flags.
pub fn signalfd(cx: &mut Cx<'_>, fd: i32, set: u64, size: u64) -> SysResult {
    signalfd4(cx, fd, set, size, 0)
}

/// signalfd4(2).
pub fn signalfd4(cx: &mut Cx<'_>, fd: i32, set: u64, size: u64, flags: u32) -> SysResult {
    if size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let set = SigSet(cx.mm().read_obj(set)?);
    let open = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(open) {
        return Err(Errno::EINVAL.into());
    }
    if fd == -1 {
        let file = OpenFile::new(SignalFd::new(cx.task, set), open | OpenFlags::RDWR);
        return Ok(ret_i32(cx.install(file, open.contains(OpenFlags::CLOEXEC))?));
    }
    let file = file(cx, fd)?;
    file.downcast::<SignalFd>().ok_or(Errno::EINVAL)?.change(set);
    Ok(ret_i32(fd))
}
