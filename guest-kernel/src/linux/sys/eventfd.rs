//! eventfd(2).

use crate::{
    call::Cx,
    error::{Errno, SysResult},
    eventfd::EventFd,
    fs::file::{OpenFile, OpenFlags},
    num::ret_i32,
};

/// EFD_SEMAPHORE.
const SEMAPHORE: u32 = 1;

/// eventfd(2), the call without flags.
pub fn eventfd(cx: &mut Cx<'_>, initial: u32) -> SysResult {
    eventfd2(cx, initial, 0)
}

/// eventfd(2) with flags.
pub fn eventfd2(cx: &mut Cx<'_>, initial: u32, flags: u32) -> SysResult {
    let open = OpenFlags::from_bits_retain(flags & !SEMAPHORE);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(open) {
        return Err(Errno::EINVAL.into());
    }
    let counter = EventFd::new(u64::from(initial), flags & SEMAPHORE != 0);
    let file = OpenFile::new(counter, open | OpenFlags::RDWR);
    Ok(ret_i32(cx.install(file, open.contains(OpenFlags::CLOEXEC))?))
}
