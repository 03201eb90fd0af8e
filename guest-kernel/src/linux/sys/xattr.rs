//! Extended attributes (xattr(7)): `user.`, `trusted.` and `security.`, kept in memory; POSIX ACLs
//! are refused as by a file system mounted without them.

use super::path::{AT_FDCWD, Target, actor, at, file, target};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::{
        inode::{Actor, Attr, mode},
        inotify::{self, Events},
        perm,
    },
    net::Socket,
    num::Word,
};

const NAME_MAX: usize = 255;
const SIZE_MAX: u64 = 65536;
/// The one attribute of a socket: its protocol's name.
const PROTOCOL_NAME: &[u8] = b"system.sockprotoname";

fn name(cx: &Cx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let name = cx.mm().read_cstr(addr, NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}
/// Whether `who` may read or write the attribute `name` (`xattr_permission()`).
fn allowed(who: &Actor, attr: &Attr, name: &[u8], write: bool) -> Result<(), Errno> {
    let refused = if write { Errno::EPERM } else { Errno::ENODATA };
    let admin = who.creds.capable(cap::SYS_ADMIN);
    if name.starts_with(b"trusted.") {
        return if admin { Ok(()) } else { Err(refused) };
    }
    if name.starts_with(b"security.") {
        return if admin || !write { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"system.") {
        return Ok(());
    }
    if name.starts_with(b"user.") {
        let others_sticky = attr.is_dir() && write && attr.mode & mode::STICKY != 0;
        if others_sticky && !perm::owns(&who.creds, attr) {
            return Err(Errno::EPERM);
        }
        if !attr.is_regular() && !attr.is_dir() {
            return Err(refused);
        }
    }
    perm::check(&who.creds, attr, if write { perm::WRITE } else { perm::READ })
}
/// The name is one of a kind that a file system keeps, with something after the prefix
/// (`xattr_resolve_name()`).
fn known(name: &[u8]) -> Result<(), Errno> {
    const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
        None => Err(Errno::EOPNOTSUPP),
        Some(b"") => Err(Errno::EINVAL),
        Some(_) => Ok(()),
    }
}
/// Sets or (`None`) removes an attribute of what was found.
fn change(cx: &Cx<'_>, of: &Target, name: &[u8], value: Option<&[u8]>, flags: u32) -> SysResult {
    of.writable()?;
    if matches!(of, Target::File(_)) && name.starts_with(b"security.") {
        return Err(Errno::EOPNOTSUPP.into());
    }
    allowed(&actor(cx), &of.attr()?, name, true)?;
    let Target::Path(place, _) = of else { return Err(Errno::EOPNOTSUPP.into()) };
    known(name)?;
    place.inode().xattr_set(name, value, flags)?;
    inotify::changed(place, Events::ATTRIB);
    Ok(0)
}

/// What a call names: read and looked up only after the name and value of an attribute.
enum What {
    /// A path, a final link followed or not.
    Path(u64, bool),
    Fd(i32),
}

impl What {
    fn find(self, cx: &Cx<'_>) -> Result<Target, Errno> {
        match self {
            What::Path(path, follow) => {
                let flags = if follow { 0 } else { at::SYMLINK_NOFOLLOW };
                target(cx, &actor(cx), AT_FDCWD, path, flags)
            }
            What::Fd(fd) => Ok(Target::of(file(cx, fd)?)),
        }
    }
}

fn set(cx: &Cx<'_>, what: What, key: u64, value: u64, size: u64, flags: u32) -> SysResult {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = name(cx, key)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; size.size()];
    cx.mm().read_bytes(value, &mut bytes)?;
    change(cx, &what.find(cx)?, &name, Some(&bytes), flags)
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
fn get(cx: &Cx<'_>, what: What, key: u64, value: u64, size: u64) -> SysResult {
    let name = name(cx, key)?;
    let of = what.find(cx)?;
    allowed(&actor(cx), &of.attr()?, &name, false)?;
    let bytes = match &of {
        Target::Path(place, _) => {
            known(&name)?;
            place.inode().xattr_get(&name)?
        }
        Target::File(file) => match file.downcast::<Socket>() {
            Some(socket) if name == PROTOCOL_NAME => socket.protocol_name().to_vec(),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        },
    };
    put(cx, &bytes, value, size)
}
fn list(cx: &Cx<'_>, what: What, addr: u64, size: u64) -> SysResult {
    let names = match what.find(cx)? {
        Target::Path(place, _) => place.inode().xattr_list()?,
        Target::File(file) if file.downcast::<Socket>().is_some() => vec![PROTOCOL_NAME.to_vec()],
        Target::File(_) => Vec::new(),
    };
    let hidden = !cx.task.creds().capable(cap::SYS_ADMIN);
    let mut out = Vec::new();
    for name in names {
        if !(hidden && name.starts_with(b"trusted.")) {
            out.extend_from_slice(&name);
            out.push(0);
        }
    }
    put(cx, &out, addr, size)
}
fn remove(cx: &Cx<'_>, what: What, key: u64) -> SysResult {
    let name = name(cx, key)?;
    change(cx, &what.find(cx)?, &name, None, 0)
}

/// setxattr(2).
pub fn setxattr(cx: &mut Cx<'_>, path: u64, k: u64, v: u64, size: u64, flags: u32) -> SysResult {
    set(cx, What::Path(path, true), k, v, size, flags)
}
/// lsetxattr(2).
pub fn lsetxattr(cx: &mut Cx<'_>, path: u64, k: u64, v: u64, size: u64, flags: u32) -> SysResult {
    set(cx, What::Path(path, false), k, v, size, flags)
}
/// fsetxattr(2).
pub fn fsetxattr(cx: &mut Cx<'_>, fd: i32, k: u64, v: u64, size: u64, flags: u32) -> SysResult {
    set(cx, What::Fd(fd), k, v, size, flags)
}
/// getxattr(2).
pub fn getxattr(cx: &mut Cx<'_>, path: u64, key: u64, value: u64, size: u64) -> SysResult {
    get(cx, What::Path(path, true), key, value, size)
}
/// lgetxattr(2).
pub fn lgetxattr(cx: &mut Cx<'_>, path: u64, key: u64, value: u64, size: u64) -> SysResult {
    get(cx, What::Path(path, false), key, value, size)
}
/// fgetxattr(2).
pub fn fgetxattr(cx: &mut Cx<'_>, fd: i32, key: u64, value: u64, size: u64) -> SysResult {
    get(cx, What::Fd(fd), key, value, size)
}
/// listxattr(2).
pub fn listxattr(cx: &mut Cx<'_>, path: u64, list_addr: u64, size: u64) -> SysResult {
    list(cx, What::Path(path, true), list_addr, size)
}
/// llistxattr(2).
pub fn llistxattr(cx: &mut Cx<'_>, path: u64, list_addr: u64, size: u64) -> SysResult {
    list(cx, What::Path(path, false), list_addr, size)
}
/// flistxattr(2).
pub fn flistxattr(cx: &mut Cx<'_>, fd: i32, list_addr: u64, size: u64) -> SysResult {
    list(cx, What::Fd(fd), list_addr, size)
}
/// removexattr(2).
pub fn removexattr(cx: &mut Cx<'_>, path: u64, key: u64) -> SysResult {
    remove(cx, What::Path(path, true), key)
}
/// lremovexattr(2).
pub fn lremovexattr(cx: &mut Cx<'_>, path: u64, key: u64) -> SysResult {
    remove(cx, What::Path(path, false), key)
}
/// fremovexattr(2).
pub fn fremovexattr(cx: &mut Cx<'_>, fd: i32, key: u64) -> SysResult {
    remove(cx, What::Fd(fd), key)
}
