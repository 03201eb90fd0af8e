//! Extended attributes (xattr(7)): `user.`, `trusted.` and `security.`, kept in memory; POSIX ACLs
//! are refused as by a file system mounted without them.

use std::sync::Arc;

use super::path::{actor, file, find};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::{
        dentry::Path,
        inode::{Actor, mode},
        inotify::{self, Events},
        perm,
    },
    num::Word,
};

const NAME_MAX: usize = 255;
const SIZE_MAX: u64 = 65536;

fn name(cx: &Cx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let name = cx.mm().read_cstr(addr, NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}
fn allowed(who: &Actor, place: &Path, name: &[u8], write: bool) -> Result<(), Errno> {
    let attr = place.attr()?;
    if write {
        place.mount.writable()?;
    }
    let refused = if write { Errno::EPERM } else { Errno::ENODATA };
    if name.starts_with(b"trusted.") {
        return if who.creds.capable(cap::SYS_ADMIN) { Ok(()) } else { Err(refused) };
    }
    if name.starts_with(b"security.") {
        let free = !write || who.creds.capable(cap::SYS_ADMIN);
        return if free { Ok(()) } else { Err(Errno::EPERM) };
    }
    if !name.starts_with(b"user.") {
        return Err(Errno::EOPNOTSUPP);
    }
    if !matches!(attr.mode & mode::FMT, mode::REG | mode::DIR) {
        return Err(refused);
    }
    perm::check(&who.creds, &attr, if write { perm::WRITE } else { perm::READ })
}
fn set(cx: &Cx<'_>, place: &Path, key: u64, value: u64, size: u64, flags: u32) -> SysResult {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = name(cx, key)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; size.size()];
    cx.mm().read_bytes(value, &mut bytes)?;
    allowed(&actor(cx), place, &name, true)?;
    place.inode().xattr_set(&name, Some(&bytes), flags)?;
    inotify::changed(place, Events::ATTRIB);
    Ok(0)
}
fn put(cx: &Cx<'_>, bytes: &[u8], addr: u64, size: u64) -> SysResult {
    if size == 0 {
        return Ok(bytes.len() as u64);
    }
    if bytes.len() as u64 > size {
        return Err(Errno::ERANGE.into());
    }
    cx.mm().write_bytes(addr, bytes)?;
    Ok(bytes.len() as u64)
}
fn get(cx: &Cx<'_>, place: &Path, key: u64, value: u64, size: u64) -> SysResult {
    let name = name(cx, key)?;
    allowed(&actor(cx), place, &name, false)?;
    put(cx, &place.inode().xattr_get(&name)?, value, size)
}
fn list(cx: &Cx<'_>, place: &Path, addr: u64, size: u64) -> SysResult {
    let hidden = !cx.task.creds().capable(cap::SYS_ADMIN);
    let mut out = Vec::new();
    for name in place.inode().xattr_list()? {
        if !(hidden && name.starts_with(b"trusted.")) {
            out.extend_from_slice(&name);
            out.push(0);
        }
    }
    put(cx, &out, addr, size)
}
fn remove(cx: &Cx<'_>, place: &Path, key: u64) -> SysResult {
    let name = name(cx, key)?;
    allowed(&actor(cx), place, &name, true)?;
    place.inode().xattr_set(&name, None, 0)?;
    inotify::changed(place, Events::ATTRIB);
    Ok(0)
}
fn of(cx: &Cx<'_>, fd: i32) -> Result<Path, Errno> {
    let file: Arc<_> = file(cx, fd)?;
    file.path.clone().ok_or(Errno::EOPNOTSUPP)
}

/// setxattr(2).
pub fn setxattr(cx: &mut Cx<'_>, path: u64, k: u64, v: u64, size: u64, flags: u32) -> SysResult {
    set(cx, &find(cx, &actor(cx), path, true)?, k, v, size, flags)
}
/// lsetxattr(2).
pub fn lsetxattr(cx: &mut Cx<'_>, path: u64, k: u64, v: u64, size: u64, flags: u32) -> SysResult {
    set(cx, &find(cx, &actor(cx), path, false)?, k, v, size, flags)
}
/// fsetxattr(2).
pub fn fsetxattr(cx: &mut Cx<'_>, fd: i32, k: u64, v: u64, size: u64, flags: u32) -> SysResult {
    set(cx, &of(cx, fd)?, k, v, size, flags)
}
/// getxattr(2).
pub fn getxattr(cx: &mut Cx<'_>, path: u64, key: u64, value: u64, size: u64) -> SysResult {
    get(cx, &find(cx, &actor(cx), path, true)?, key, value, size)
}
/// lgetxattr(2).
pub fn lgetxattr(cx: &mut Cx<'_>, path: u64, key: u64, value: u64, size: u64) -> SysResult {
    get(cx, &find(cx, &actor(cx), path, false)?, key, value, size)
}
/// fgetxattr(2).
pub fn fgetxattr(cx: &mut Cx<'_>, fd: i32, key: u64, value: u64, size: u64) -> SysResult {
    get(cx, &of(cx, fd)?, key, value, size)
}
/// listxattr(2).
pub fn listxattr(cx: &mut Cx<'_>, path: u64, list_addr: u64, size: u64) -> SysResult {
    list(cx, &find(cx, &actor(cx), path, true)?, list_addr, size)
}
/// llistxattr(2).
pub fn llistxattr(cx: &mut Cx<'_>, path: u64, list_addr: u64, size: u64) -> SysResult {
    list(cx, &find(cx, &actor(cx), path, false)?, list_addr, size)
}
/// flistxattr(2).
pub fn flistxattr(cx: &mut Cx<'_>, fd: i32, list_addr: u64, size: u64) -> SysResult {
    list(cx, &of(cx, fd)?, list_addr, size)
}
/// removexattr(2).
pub fn removexattr(cx: &mut Cx<'_>, path: u64, key: u64) -> SysResult {
    remove(cx, &find(cx, &actor(cx), path, true)?, key)
}
/// lremovexattr(2).
pub fn lremovexattr(cx: &mut Cx<'_>, path: u64, key: u64) -> SysResult {
    remove(cx, &find(cx, &actor(cx), path, false)?, key)
}
/// fremovexattr(2).
pub fn fremovexattr(cx: &mut Cx<'_>, fd: i32, key: u64) -> SysResult {
    remove(cx, &of(cx, fd)?, key)
}
