//! User, group and capability ids: setresuid(2) and its relatives, setgroups(2), capset(2).

use std::sync::Arc;

use crate::{
    call::Cx,
    creds::{Creds, cap},
    error::{Errno, SysResult},
    num::Word,
    task::table::TaskTable,
};

/// "Leave it as it is."
const KEEP: u32 = u32::MAX;
/// SECBIT_NO_SETUID_FIXUP.
const NO_FIXUP: u32 = 4;
/// Most supplementary groups (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

fn creds(cx: &Cx<'_>) -> Creds {
    (*cx.task.creds()).clone()
}

/// getuid(2).
pub fn getuid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.task.creds().uid))
}
/// geteuid(2).
pub fn geteuid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.task.creds().euid))
}
/// getgid(2).
pub fn getgid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.task.creds().gid))
}
/// getegid(2).
pub fn getegid(cx: &mut Cx<'_>) -> SysResult {
    Ok(u64::from(cx.task.creds().egid))
}
/// getresuid(2).
pub fn getresuid(cx: &mut Cx<'_>, real: u64, effective: u64, saved: u64) -> SysResult {
    let creds = cx.task.creds();
    let mm = cx.mm();
    mm.write_obj(real, &creds.uid)?;
    mm.write_obj(effective, &creds.euid)?;
    mm.write_obj(saved, &creds.suid)?;
    Ok(0)
}
/// getresgid(2).
pub fn getresgid(cx: &mut Cx<'_>, real: u64, effective: u64, saved: u64) -> SysResult {
    let creds = cx.task.creds();
    let mm = cx.mm();
    mm.write_obj(real, &creds.gid)?;
    mm.write_obj(effective, &creds.egid)?;
    mm.write_obj(saved, &creds.sgid)?;
    Ok(0)
}

/// What a change of user ids does to capabilities (capabilities(7)).
fn fix_capabilities(old: &Creds, new: &mut Creds) {
    if old.securebits & NO_FIXUP != 0 {
        return;
    }
    let had_root = [old.uid, old.euid, old.suid].contains(&0);
    if had_root && ![new.uid, new.euid, new.suid].contains(&0) {
        if !old.keep_caps {
            new.permitted = 0;
            new.effective = 0;
        }
        new.ambient = 0;
    }
    if old.euid == 0 && new.euid != 0 {
        new.effective = 0;
    } else if old.euid != 0 && new.euid == 0 {
        new.effective = new.permitted;
    }
}

fn adopt_uids(cx: &Cx<'_>, old: &Creds, mut new: Creds) {
    new.fsuid = new.euid;
    fix_capabilities(old, &mut new);
    privilege_changed(cx, old, &new);
    cx.task.set_creds(new);
}
fn adopt_gids(cx: &Cx<'_>, old: &Creds, mut new: Creds) {
    new.fsgid = new.egid;
    privilege_changed(cx, old, &new);
    cx.task.set_creds(new);
}

/// commit_creds(): other effective ids end dumpability and the parent-death signal.
fn privilege_changed(cx: &Cx<'_>, old: &Creds, new: &Creds) {
    use std::sync::atomic::Ordering::Relaxed;
    if (old.euid, old.egid, old.fsuid, old.fsgid) != (new.euid, new.egid, new.fsuid, new.fsgid) {
        cx.task.process.dumpable.store(0, Relaxed);
        cx.task.pdeath_signal.store(0, Relaxed);
    }
}

/// setuid(2).
pub fn setuid(cx: &mut Cx<'_>, uid: u32) -> SysResult {
    let old = creds(cx);
    let mut new = old.clone();
    if uid == KEEP {
        return Err(Errno::EINVAL.into());
    }
    if old.capable(cap::SETUID) {
        (new.uid, new.suid) = (uid, uid);
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM.into());
    }
    new.euid = uid;
    adopt_uids(cx, &old, new);
    Ok(0)
}
/// setgid(2).
pub fn setgid(cx: &mut Cx<'_>, gid: u32) -> SysResult {
    let old = creds(cx);
    let mut new = old.clone();
    if gid == KEEP {
        return Err(Errno::EINVAL.into());
    }
    if old.capable(cap::SETGID) {
        (new.gid, new.sgid) = (gid, gid);
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM.into());
    }
    new.egid = gid;
    adopt_gids(cx, &old, new);
    Ok(0)
}
/// setreuid(2).
pub fn setreuid(cx: &mut Cx<'_>, real: u32, effective: u32) -> SysResult {
    let old = creds(cx);
    let mut new = old.clone();
    let free = old.capable(cap::SETUID);
    if real != KEEP {
        if !free && real != old.uid && real != old.euid {
            return Err(Errno::EPERM.into());
        }
        new.uid = real;
    }
    if effective != KEEP {
        if !free && ![old.uid, old.euid, old.suid].contains(&effective) {
            return Err(Errno::EPERM.into());
        }
        new.euid = effective;
    }
    if real != KEEP || (effective != KEEP && effective != old.uid) {
        new.suid = new.euid;
    }
    adopt_uids(cx, &old, new);
    Ok(0)
}
/// setregid(2).
pub fn setregid(cx: &mut Cx<'_>, real: u32, effective: u32) -> SysResult {
    let old = creds(cx);
    let mut new = old.clone();
    let free = old.capable(cap::SETGID);
    if real != KEEP {
        if !free && real != old.gid && real != old.egid {
            return Err(Errno::EPERM.into());
        }
        new.gid = real;
    }
    if effective != KEEP {
        if !free && ![old.gid, old.egid, old.sgid].contains(&effective) {
            return Err(Errno::EPERM.into());
        }
        new.egid = effective;
    }
    if real != KEEP || (effective != KEEP && effective != old.gid) {
        new.sgid = new.egid;
    }
    adopt_gids(cx, &old, new);
    Ok(0)
}
/// setresuid(2).
pub fn setresuid(cx: &mut Cx<'_>, real: u32, effective: u32, saved: u32) -> SysResult {
    let old = creds(cx);
    let known = [KEEP, old.uid, old.euid, old.suid];
    if !old.capable(cap::SETUID) && ![real, effective, saved].iter().all(|u| known.contains(u)) {
        return Err(Errno::EPERM.into());
    }
    let or = |new, old| if new == KEEP { old } else { new };
    let mut new = old.clone();
    new.uid = or(real, old.uid);
    new.euid = or(effective, old.euid);
    new.suid = or(saved, old.suid);
    adopt_uids(cx, &old, new);
    Ok(0)
}
/// setresgid(2).
pub fn setresgid(cx: &mut Cx<'_>, real: u32, effective: u32, saved: u32) -> SysResult {
    let old = creds(cx);
    let known = [KEEP, old.gid, old.egid, old.sgid];
    if !old.capable(cap::SETGID) && ![real, effective, saved].iter().all(|u| known.contains(u)) {
        return Err(Errno::EPERM.into());
    }
    let or = |new, old| if new == KEEP { old } else { new };
    let mut new = old.clone();
    new.gid = or(real, old.gid);
    new.egid = or(effective, old.egid);
    new.sgid = or(saved, old.sgid);
    adopt_gids(cx, &old, new);
    Ok(0)
}
/// setfsuid(2): answers the old one whatever happens.
pub fn setfsuid(cx: &mut Cx<'_>, uid: u32) -> SysResult {
    /// CAP_CHOWN, CAP_DAC_*, CAP_FOWNER, CAP_FSETID and their like follow the file-system user.
    const FS_CAPS: u64 = 0x1f | 1 << 9 | 1 << 27 | 1 << 32;
    let old = creds(cx);
    let allowed = [old.uid, old.euid, old.suid, old.fsuid].contains(&uid);
    if uid != KEEP && (allowed || old.capable(cap::SETUID)) {
        let mut new = old.clone();
        new.fsuid = uid;
        if old.securebits & NO_FIXUP == 0 {
            if old.fsuid == 0 && uid != 0 {
                new.effective &= !FS_CAPS;
            } else if old.fsuid != 0 && uid == 0 {
                new.effective |= new.permitted & FS_CAPS;
            }
        }
        cx.task.set_creds(new);
    }
    Ok(u64::from(old.fsuid))
}
/// setfsgid(2).
pub fn setfsgid(cx: &mut Cx<'_>, gid: u32) -> SysResult {
    let old = creds(cx);
    let allowed = [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid);
    if gid != KEEP && (allowed || old.capable(cap::SETGID)) {
        let mut new = old.clone();
        new.fsgid = gid;
        cx.task.set_creds(new);
    }
    Ok(u64::from(old.fsgid))
}
/// getgroups(2).
pub fn getgroups(cx: &mut Cx<'_>, size: i32, list: u64) -> SysResult {
    let groups = cx.task.creds().groups.clone();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size != 0 {
        if size < groups.len() {
            return Err(Errno::EINVAL.into());
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        cx.mm().write_bytes(list, &bytes)?;
    }
    Ok(groups.len() as u64)
}
/// setgroups(2).
pub fn setgroups(cx: &mut Cx<'_>, size: usize, list: u64) -> SysResult {
    let mut new = creds(cx);
    if !new.capable(cap::SETGID) {
        return Err(Errno::EPERM.into());
    }
    if size > MAX_GROUPS {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; size * 4];
    cx.mm().read_bytes(list, &mut bytes)?;
    let mut groups: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|b| b.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
        .collect();
    groups.sort_unstable();
    new.groups = Arc::from(groups);
    cx.task.set_creds(new);
    Ok(0)
}

/// Versions of capget(2)'s header, and how many words of each set they carry.
fn words(version: u32) -> Option<usize> {
    match version {
        0x1998_0330 => Some(1),
        0x2007_1026 | 0x2008_0522 => Some(2),
        _ => None,
    }
}
const VERSION_3: u32 = 0x2008_0522;

/// The header: its word count and pid, or the preferred version written back.
fn header(cx: &Cx<'_>, addr: u64, probe: bool) -> Result<Option<(usize, i32)>, Errno> {
    let [version, pid]: [u32; 2] = cx.mm().read_obj(addr)?;
    match words(version) {
        Some(count) => Ok(Some((count, pid.cast_signed()))),
        None => {
            cx.mm().write_obj(addr, &VERSION_3)?;
            if probe { Ok(None) } else { Err(Errno::EINVAL) }
        }
    }
}

/// capget(2).
pub fn capget(cx: &mut Cx<'_>, head: u64, data: u64) -> SysResult {
    let Some((count, pid)) = header(cx, head, data == 0)? else { return Ok(0) };
    if pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let sets = |creds: &Creds| [creds.effective, creds.permitted, creds.inheritable];
    let sets = if pid == 0 || pid == cx.task.tid {
        sets(&cx.task.creds())
    } else if TaskTable::is_phantom(pid) {
        // The kernel's own processes may do everything.
        [cap::ALL, cap::ALL, 0]
    } else {
        sets(&cx.kernel().tasks.task(pid).ok_or(Errno::ESRCH)?.creds())
    };
    if data == 0 {
        return Ok(0);
    }
    let half = |set: u64, word: usize| (set >> (32 * word)).low_u32();
    for word in 0..count {
        cx.mm().write_obj(data + 12 * word as u64, &sets.map(|s| half(s, word)))?;
    }
    Ok(0)
}
/// capset(2).
pub fn capset(cx: &mut Cx<'_>, head: u64, data: u64) -> SysResult {
    let Some((count, pid)) = header(cx, head, false)? else { return Ok(0) };
    if pid != 0 && pid != cx.task.tid {
        return Err(Errno::EPERM.into());
    }
    let mut sets = [0u64; 3];
    for word in 0..count {
        let at = data.checked_add(12 * word as u64).ok_or(Errno::EFAULT)?;
        let values: [u32; 3] = cx.mm().read_obj(at)?;
        for (set, value) in sets.iter_mut().zip(values) {
            *set |= u64::from(value) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|s| s & cap::ALL);
    let mut new = creds(cx);
    let more = inheritable & !(new.inheritable | new.permitted);
    let refused = (more != 0 && !new.capable(cap::SETPCAP))
        || inheritable & !(new.inheritable | new.bounding) != 0
        || permitted & !new.permitted != 0
        || effective & !permitted != 0;
    if refused {
        return Err(Errno::EPERM.into());
    }
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    new.ambient &= permitted & inheritable;
    cx.task.set_creds(new);
    Ok(0)
}
