//! mkdir(2), rmdir(2), rename(2), link(2), symlink(2), unlink(2), readlink(2), mknod(2),
//! getdents(2).

use super::path::{self, AT_FDCWD, actor, at, start, target, text, text_or_empty};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::{
        flags::Resolve,
        inode::{DirEntry, RenameFlags, mode},
        inotify::Events,
        vfs,
        walk::Walk,
    },
    linux::layout_fs,
    num::Word,
};

fn make(cx: &Cx<'_>, dirfd: i32, addr: u64, bits: u32, rdev: u64, link_text: &[u8]) -> SysResult {
    let who = actor(cx);
    let path = text(cx, addr)?;
    let from = start(cx, &who, dirfd, &path)?;
    vfs::create(&who, &from, &path, bits, rdev, link_text)?;
    Ok(0)
}
/// mkdir(2).
pub fn mkdir(cx: &mut Cx<'_>, path: u64, bits: u32) -> SysResult {
    mkdirat(cx, AT_FDCWD, path, bits)
}
/// mkdirat(2).
pub fn mkdirat(cx: &mut Cx<'_>, dirfd: i32, path: u64, bits: u32) -> SysResult {
    make(cx, dirfd, path, mode::DIR | (bits & (0o777 | mode::STICKY)), 0, b"")
}
/// mknod(2).
pub fn mknod(cx: &mut Cx<'_>, path: u64, bits: u32, rdev: u32) -> SysResult {
    mknodat(cx, AT_FDCWD, path, bits, rdev)
}
/// mknodat(2).
pub fn mknodat(cx: &mut Cx<'_>, dirfd: i32, path: u64, bits: u32, rdev: u32) -> SysResult {
    let kind = match bits & mode::FMT {
        0 => mode::REG,
        mode::DIR => return Err(Errno::EPERM.into()),
        kind @ (mode::REG | mode::CHR | mode::BLK | mode::FIFO | mode::SOCK) => kind,
        _ => return Err(Errno::EINVAL.into()),
    };
    make(cx, dirfd, path, kind | (bits & mode::PERM), u64::from(rdev), b"")
}
/// symlink(2).
pub fn symlink(cx: &mut Cx<'_>, target: u64, path: u64) -> SysResult {
    symlinkat(cx, target, AT_FDCWD, path)
}
/// symlinkat(2).
pub fn symlinkat(cx: &mut Cx<'_>, target: u64, dirfd: i32, path: u64) -> SysResult {
    let link_text = text(cx, target)?;
    make(cx, dirfd, path, mode::LNK, 0, &link_text)
}
/// link(2).
pub fn link(cx: &mut Cx<'_>, old: u64, new: u64) -> SysResult {
    linkat(cx, AT_FDCWD, old, AT_FDCWD, new, 0)
}
/// linkat(2).
pub fn linkat(
    cx: &mut Cx<'_>,
    old_dir: i32,
    old: u64,
    new_dir: i32,
    new: u64,
    flags: u32,
) -> SysResult {
    if flags & !(at::SYMLINK_FOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let who = actor(cx);
    if flags & at::EMPTY_PATH != 0
        && old_dir != AT_FDCWD
        && !who.creds.capable(cap::DAC_READ_SEARCH)
        && text_or_empty(cx, old)?.is_empty()
    {
        // Not even by who opened it, as before Linux 6.10.
        cx.files().get(old_dir)?;
        return Err(Errno::ENOENT.into());
    }
    let nofollow = if flags & at::SYMLINK_FOLLOW == 0 { at::SYMLINK_NOFOLLOW } else { 0 };
    let from = target(cx, &who, old_dir, old, nofollow | (flags & at::EMPTY_PATH))?.path()?;
    let path = text(cx, new)?;
    let begin = start(cx, &who, new_dir, &path)?;
    vfs::link(&who, &from, &begin, &path)?;
    Ok(0)
}
fn remove(cx: &Cx<'_>, dirfd: i32, addr: u64, dir: bool) -> SysResult {
    let who = actor(cx);
    let path = text(cx, addr)?;
    let from = start(cx, &who, dirfd, &path)?;
    vfs::unlink(&who, &from, &path, dir)?;
    Ok(0)
}
/// unlink(2).
pub fn unlink(cx: &mut Cx<'_>, path: u64) -> SysResult {
    remove(cx, AT_FDCWD, path, false)
}
/// rmdir(2).
pub fn rmdir(cx: &mut Cx<'_>, path: u64) -> SysResult {
    remove(cx, AT_FDCWD, path, true)
}
/// unlinkat(2).
pub fn unlinkat(cx: &mut Cx<'_>, dirfd: i32, path: u64, flags: u32) -> SysResult {
    if flags & !at::REMOVEDIR != 0 {
        return Err(Errno::EINVAL.into());
    }
    remove(cx, dirfd, path, flags != 0)
}
/// rename(2).
pub fn rename(cx: &mut Cx<'_>, old: u64, new: u64) -> SysResult {
    renameat2(cx, AT_FDCWD, old, AT_FDCWD, new, 0)
}
/// renameat(2).
pub fn renameat(cx: &mut Cx<'_>, old_dir: i32, old: u64, new_dir: i32, new: u64) -> SysResult {
    renameat2(cx, old_dir, old, new_dir, new, 0)
}
/// renameat2(2).
pub fn renameat2(
    cx: &mut Cx<'_>,
    old_dir: i32,
    old: u64,
    new_dir: i32,
    new: u64,
    flags: u32,
) -> SysResult {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let alone = RenameFlags::NOREPLACE | RenameFlags::WHITEOUT;
    if flags.contains(RenameFlags::EXCHANGE) && flags.intersects(alone) {
        return Err(Errno::EINVAL.into());
    }
    let who = actor(cx);
    // All of the old path but its last component is walked before the new one is looked at.
    let parent = |dirfd, addr| {
        let path = text(cx, addr)?;
        let start = start(cx, &who, dirfd, &path)?;
        Walk::new(&who, &start, Resolve::empty()).parent(&start, &path)
    };
    let (from, to) = (parent(old_dir, old)?, parent(new_dir, new)?);
    vfs::rename(&who, from, to, flags)?;
    Ok(0)
}
/// readlink(2).
pub fn readlink(cx: &mut Cx<'_>, path: u64, buf: u64, size: i32) -> SysResult {
    readlinkat(cx, AT_FDCWD, path, buf, size)
}
/// readlinkat(2).
pub fn readlinkat(cx: &mut Cx<'_>, dirfd: i32, path: u64, buf: u64, size: i32) -> SysResult {
    let room = usize::try_from(size).ok().filter(|s| *s > 0).ok_or(Errno::EINVAL)?;
    let who = actor(cx);
    let name = text_or_empty(cx, path)?;
    let place = if name.is_empty() {
        // readlinkat(2) reads the link an O_PATH | O_NOFOLLOW descriptor refers to.
        let place = match dirfd {
            AT_FDCWD => None,
            dirfd => cx.files().get(dirfd)?.path.clone(),
        };
        place.filter(|p| p.attr().is_ok_and(|a| a.is_symlink())).ok_or(Errno::ENOENT)?
    } else {
        let from = start(cx, &who, dirfd, &name)?;
        vfs::find(&who, &from, &name, false)?
    };
    let link_text = place.inode().read_link(&who)?;
    let len = link_text.len().min(room);
    cx.mm().write_bytes(buf, &link_text[..len])?;
    Ok(len as u64)
}

type Pack = fn(&mut Vec<u8>, usize, &DirEntry<'_>) -> bool;

fn entries(cx: &Cx<'_>, fd: i32, buf: u64, size: u32, pack: Pack) -> SysResult {
    let file = path::file(cx, fd)?;
    let who = actor(cx);
    let room = size.size().min(1 << 20);
    let mut out = Vec::new();
    let from = file.with_position(|p| *p);
    let (mut next, mut too_small) = (from, false);
    file.ops.read_dir(&file, &who, from, &mut |entry| {
        if !pack(&mut out, room, &entry) {
            too_small = out.is_empty();
            return false;
        }
        next = entry.next;
        true
    })?;
    if too_small {
        return Err(Errno::EINVAL.into());
    }
    cx.mm().write_bytes(buf, &out)?;
    file.with_position(|p| *p = next);
    super::io::told(cx, &file, Events::ACCESS);
    Ok(out.len() as u64)
}
/// getdents(2).
pub fn getdents(cx: &mut Cx<'_>, fd: i32, buf: u64, size: u32) -> SysResult {
    entries(cx, fd, buf, size, layout_fs::dirent)
}
/// getdents64(2).
pub fn getdents64(cx: &mut Cx<'_>, fd: i32, buf: u64, size: u32) -> SysResult {
    entries(cx, fd, buf, size, layout_fs::dirent64)
}
