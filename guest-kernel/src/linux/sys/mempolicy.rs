//! mbind(2), set_mempolicy(2), get_mempolicy(2), migrate_pages(2), move_pages(2) on a machine with
//! one memory node: policies are checked and change nothing.

use crate::{
    call::Cx,
    error::{Errno, SysResult},
    num::Word,
    platform::PAGE_SIZE,
};

/// Bits of a node mask looked at (MAX_NUMNODES on distribution kernels).
const MAX_NODES: u64 = 1024;
const MODE_FLAGS: u32 = 0xe000;
const DEFAULT: u32 = 0;
const LOCAL: u32 = 4;
const LAST_MODE: u32 = 6;

/// Checks a mode with its node mask: only node 0 exists.
fn check(cx: &Cx<'_>, mode: u32, mask: u64, max: u64) -> Result<(), Errno> {
    let kind = mode & !MODE_FLAGS;
    if kind > LAST_MODE {
        return Err(Errno::EINVAL);
    }
    // As on Linux 0 is not "none" but too many.
    let bits = max.wrapping_sub(1);
    let mut nodes = 0u64;
    if mask != 0 && bits > 0 {
        if bits > PAGE_SIZE * 8 {
            return Err(Errno::EINVAL);
        }
        let mm = cx.mm();
        for word in 0..bits.div_ceil(64) {
            let at = mask.checked_add(word * 8).ok_or(Errno::EFAULT)?;
            let mut value: u64 = mm.read_obj(at)?;
            if word == bits / 64 {
                value &= (1 << (bits % 64)) - 1;
            }
            if word > 0 && value != 0 {
                return Err(Errno::EINVAL);
            }
            nodes |= value;
        }
    }
    match kind {
        DEFAULT | LOCAL if nodes != 0 => Err(Errno::EINVAL),
        DEFAULT | LOCAL => Ok(()),
        // MPOL_PREFERRED without nodes means the local one.
        1 if nodes == 0 => Ok(()),
        _ if nodes & 1 == 0 => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// set_mempolicy(2).
pub fn set_mempolicy(cx: &mut Cx<'_>, mode: u32, mask: u64, max: u64) -> SysResult {
    check(cx, mode, mask, max)?;
    Ok(0)
}

/// mbind(2).
pub fn mbind(
    cx: &mut Cx<'_>,
    addr: u64,
    len: u64,
    mode: u32,
    mask: u64,
    max: u64,
    flags: u32,
) -> SysResult {
    if !addr.is_multiple_of(PAGE_SIZE) || flags & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    check(cx, mode, mask, max)?;
    let mm = cx.mm();
    let mut at = addr;
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    while at < end {
        at = mm.mapping(at).ok_or(Errno::EFAULT)?.end;
    }
    Ok(0)
}

/// get_mempolicy(2): the default policy.
pub fn get_mempolicy(
    cx: &mut Cx<'_>,
    mode: u64,
    mask: u64,
    max: u64,
    addr: u64,
    flags: u64,
) -> SysResult {
    const NODE: u64 = 1;
    const ADDR: u64 = 2;
    const ALLOWED: u64 = 4;
    if flags & !(NODE | ADDR | ALLOWED) != 0
        || flags & ALLOWED != 0 && flags & (NODE | ADDR) != 0
        || mask != 0 && max < 1
        || flags & ADDR == 0 && addr != 0
    {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    if flags & ADDR != 0 && mm.mapping(addr).is_none() {
        return Err(Errno::EFAULT.into());
    }
    if flags & NODE != 0 && flags & ADDR == 0 {
        // Only an interleaving policy has a next node.
        return Err(Errno::EINVAL.into());
    }
    if mode != 0 {
        mm.write_obj(mode, &0u32)?;
    }
    if mask != 0 {
        let bytes = max.min(MAX_NODES).div_ceil(64) * 8;
        mm.zero_bytes(mask, bytes)?;
        if flags & ALLOWED != 0 {
            mm.write_obj(mask, &1u64)?;
        }
    }
    Ok(0)
}

/// migrate_pages(2): there is nowhere to go.
pub fn migrate_pages(cx: &mut Cx<'_>, pid: i32, _max: u64, _old: u64, _new: u64) -> SysResult {
    if pid != 0 && cx.kernel().tasks.process_of(pid).is_none() {
        return Err(Errno::ESRCH.into());
    }
    Ok(0)
}

/// move_pages(2): every present page is on node 0.
pub fn move_pages(
    cx: &mut Cx<'_>,
    pid: i32,
    count: u64,
    pages: u64,
    nodes: u64,
    status: u64,
    flags: u32,
) -> SysResult {
    if flags & !6 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let own = cx.mm();
    let target = if pid == 0 {
        own.clone()
    } else {
        let task = cx.kernel().tasks.task(pid).ok_or(Errno::ESRCH)?;
        task.try_mm().ok_or(Errno::EINVAL)?
    };
    for i in 0..count {
        if cx.task.must_exit() {
            return Err(Errno::EINTR.into());
        }
        let at = |base: u64, size: u64| {
            i.checked_mul(size).and_then(|o| base.checked_add(o)).ok_or(Errno::EFAULT)
        };
        let page: u64 = own.read_obj(at(pages, 8)?)?;
        if nodes != 0 && own.read_obj::<u32>(at(nodes, 4)?)? != 0 {
            return Err(Errno::ENODEV.into());
        }
        let answer: i32 = match target.mapping(page) {
            None => -i32::from(Errno::EFAULT.raw()),
            Some(_) if !target.is_present(page) => -i32::from(Errno::ENOENT.raw()),
            Some(_) => 0,
        };
        if status != 0 {
            own.write_obj(at(status, 4)?, &answer.cast_unsigned().low_u32())?;
        }
    }
    Ok(0)
}
