//! mlock(2) and its family: accounting only, as guest memory is never swapped out.

use crate::{
    call::Cx,
    error::{Errno, SysResult},
};

/// Limits, if the caller may lock at all (`can_do_mlock()`).
fn may_lock(cx: &Cx<'_>) -> Result<crate::mm::Limits, Errno> {
    let limits = super::mm::limits(cx);
    if limits.locked == 0 { Err(Errno::EPERM) } else { Ok(limits) }
}

/// mlock(2).
pub fn mlock(cx: &mut Cx<'_>, addr: u64, len: u64) -> SysResult {
    mlock2(cx, addr, len, 0)
}
/// mlock2(2).
pub fn mlock2(cx: &mut Cx<'_>, addr: u64, len: u64, flags: i32) -> SysResult {
    const ONFAULT: i32 = 1;
    if flags & !ONFAULT != 0 {
        return Err(Errno::EINVAL.into());
    }
    let limits = may_lock(cx)?;
    cx.mm().lock(addr, len, true, flags == 0, limits)?;
    Ok(0)
}
/// munlock(2).
pub fn munlock(cx: &mut Cx<'_>, addr: u64, len: u64) -> SysResult {
    cx.mm().lock(addr, len, false, false, crate::mm::Limits::NONE)?;
    Ok(0)
}
/// mlockall(2).
pub fn mlockall(cx: &mut Cx<'_>, flags: i32) -> SysResult {
    const CURRENT: i32 = 1;
    const FUTURE: i32 = 2;
    const ONFAULT: i32 = 4;
    if flags == 0 || flags & !(CURRENT | FUTURE | ONFAULT) != 0 || flags == ONFAULT {
        return Err(Errno::EINVAL.into());
    }
    let limits = may_lock(cx)?;
    let (current, future) = (flags & CURRENT != 0, flags & FUTURE != 0);
    cx.mm().lock_all(current, future, flags & ONFAULT == 0, limits)?;
    Ok(0)
}
/// munlockall(2).
pub fn munlockall(cx: &mut Cx<'_>) -> SysResult {
    cx.mm().lock_all(false, false, false, crate::mm::Limits::NONE)?;
    Ok(0)
}
