//! Calls about the machine, which is not a guest's to change: reboot(2), vhangup(2), setns(2).

use super::path::file;
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    task::pidfd::PidFd,
};

fn need(cx: &Cx<'_>, capability: u32) -> Result<(), Errno> {
    if cx.task.creds().capable(capability) { Ok(()) } else { Err(Errno::EPERM) }
}

/// reboot(2): Ctrl-Alt-Del may be turned on and off, there is no such key; the rest is refused.
pub fn reboot(cx: &mut Cx<'_>, magic: u32, second: u32, command: u32, _arg: u64) -> SysResult {
    const MAGIC: u32 = 0xfee1_dead;
    const SECOND: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const CAD_OFF: u32 = 0;
    const CAD_ON: u32 = 0x89ab_cdef;
    const RESTART: u32 = 0x0123_4567;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    const RESTART2: u32 = 0xa1b2_c3d4;
    need(cx, cap::SYS_BOOT)?;
    if magic != MAGIC || !SECOND.contains(&second) {
        return Err(Errno::EINVAL.into());
    }
    match command {
        CAD_OFF | CAD_ON => Ok(0),
        RESTART | HALT | POWER_OFF | RESTART2 => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// vhangup(2): nothing to hang up; a session that has a terminal is not taken from it.
pub fn vhangup(cx: &mut Cx<'_>) -> SysResult {
    need(cx, cap::SYS_TTY_CONFIG)?;
    Ok(0)
}

/// setns(2): no descriptor stands for a namespace; what a pidfd names cannot be entered.
pub fn setns(cx: &mut Cx<'_>, fd: i32, _kind: u32) -> SysResult {
    let file = file(cx, fd)?;
    let named = file.downcast::<PidFd>().is_some();
    Err(if named { Errno::EPERM } else { Errno::EINVAL }.into())
}
