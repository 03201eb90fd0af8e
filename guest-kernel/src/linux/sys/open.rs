//! open(2), openat2(2), close(2), dup(2), umask(2), chdir(2), chroot(2), getcwd(2).

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::path::{self, AT_FDCWD, actor};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, SysResult},
    fs::{
        dentry::PATH_MAX,
        file::OpenFlags,
        flags::Resolve,
        inode::mode,
        perm,
        vfs::{self, How},
    },
    num::{Word, ret_i32},
    task::process::rlimit,
};

/// open(2).
pub fn open(cx: &mut Cx<'_>, path: u64, flags: u32, mode: u32) -> SysResult {
    openat(cx, AT_FDCWD, path, flags, mode)
}
/// creat(2).
pub fn creat(cx: &mut Cx<'_>, path: u64, mode: u32) -> SysResult {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    openat(cx, AT_FDCWD, path, flags.bits(), mode)
}
/// openat(2): unknown flags are ignored, as open(2) always has.
pub fn openat(cx: &mut Cx<'_>, dirfd: i32, path: u64, flags: u32, bits: u32) -> SysResult {
    let mut flags = OpenFlags::from_bits_truncate(flags);
    if flags.contains(OpenFlags::PATH) {
        flags &= WITH_PATH;
    }
    open_how(cx, dirfd, path, &How { flags, mode: bits & mode::PERM, resolve: Resolve::empty() })
}

/// What goes with O_PATH (O_PATH_FLAGS).
const WITH_PATH: OpenFlags = OpenFlags::DIRECTORY
    .union(OpenFlags::NOFOLLOW)
    .union(OpenFlags::PATH)
    .union(OpenFlags::CLOEXEC);
/// O_TMPFILE without O_DIRECTORY, which it comes with.
const TMPFILE_ALONE: OpenFlags = OpenFlags::TMPFILE.difference(OpenFlags::DIRECTORY);

/// Refuses flags that contradict each other, before the path is read (`build_open_flags()`).
fn consistent(flags: OpenFlags) -> Result<(), Errno> {
    let tmpfile = flags.contains(TMPFILE_ALONE);
    let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
    if flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY)
        || (tmpfile && !(flags.contains(OpenFlags::DIRECTORY) && writes))
        || (flags.contains(OpenFlags::PATH) && !WITH_PATH.contains(flags))
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2). RESOLVE_CACHED never succeeds: there is no cached-only resolution.
pub fn openat2(cx: &mut Cx<'_>, dirfd: i32, path: u64, how: u64, size: u64) -> SysResult {
    const SIZE: u64 = 24;
    if size < SIZE {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let raw: OpenHow = cx.mm().read_obj(how)?;
    let mut rest = vec![0; (size - SIZE).size()];
    cx.mm().read_bytes(how.saturating_add(SIZE), &mut rest)?;
    if rest.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG.into());
    }
    let flags = u32::try_from(raw.flags).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let resolve = Resolve::from_bits(raw.resolve).ok_or(Errno::EINVAL)?;
    let creates = flags.intersects(OpenFlags::CREAT) || flags.contains(OpenFlags::TMPFILE);
    let bad_mode = if creates { raw.mode & !0o7777 != 0 } else { raw.mode != 0 };
    if bad_mode || resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
        return Err(Errno::EINVAL.into());
    }
    if resolve.contains(Resolve::CACHED) {
        return Err(Errno::EAGAIN.into());
    }
    open_how(cx, dirfd, path, &How { flags, mode: raw.mode.low_u32(), resolve })
}

fn open_how(cx: &mut Cx<'_>, dirfd: i32, addr: u64, how: &How) -> SysResult {
    consistent(how.flags)?;
    let who = actor(cx);
    let text = path::text(cx, addr)?;
    // The descriptor is there before the file is: without room for one nothing is made.
    cx.files().room(cx.task.process.limit(rlimit::NOFILE))?;
    // Confined to a directory, even an absolute path starts there.
    let confined = how.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
    let from = if confined { b"" } else { text.as_slice() };
    let start = path::start(cx, &who, dirfd, from)?;
    let mut how = *how;
    if !how.flags.contains(OpenFlags::PATH) {
        // Every 64-bit program's files are large (force_o_largefile()).
        how.flags |= OpenFlags::LARGEFILE;
    }
    let how = &how;
    let file = vfs::open(&who, &start, &text, how, Some(cx))?;
    Ok(ret_i32(cx.install(file, how.flags.contains(OpenFlags::CLOEXEC))?))
}

/// close(2).
pub fn close(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let entry = cx.files().close(fd)?;
    cx.files().forget(&entry.file);
    entry.file.ops.closed(&cx.task.process);
    Ok(0)
}
/// close_range(2).
pub fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: u32) -> SysResult {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    if first > last || flags & !(UNSHARE | CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & UNSHARE != 0 {
        let own = cx.files().duplicate();
        drop(cx.task.set_files(own));
    }
    let files = cx.files();
    for (fd, entry) in files.list() {
        if !(first..=last).contains(&fd.cast_unsigned()) {
            continue;
        }
        if flags & CLOEXEC != 0 {
            // A descriptor that somebody else closed meanwhile needs no flag.
            let _ = files.set_cloexec(fd, true);
        } else if files.close(fd).is_ok() {
            cx.files().forget(&entry.file);
        }
    }
    Ok(0)
}
/// dup(2).
pub fn dup(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let file = cx.files().get(fd)?;
    Ok(ret_i32(cx.install(file, false)?))
}
/// dup2(2).
pub fn dup2(cx: &mut Cx<'_>, old: i32, new: i32) -> SysResult {
    if old == new {
        cx.files().get(old)?;
        return Ok(ret_i32(new));
    }
    dup_to(cx, old, new, false)
}
/// dup3(2).
pub fn dup3(cx: &mut Cx<'_>, old: i32, new: i32, flags: u32) -> SysResult {
    let cloexec = OpenFlags::CLOEXEC.bits();
    if old == new || flags & !cloexec != 0 {
        return Err(Errno::EINVAL.into());
    }
    dup_to(cx, old, new, flags == cloexec)
}
fn dup_to(cx: &Cx<'_>, old: i32, new: i32, cloexec: bool) -> SysResult {
    let file = cx.files().get(old)?;
    let limit = cx.task.process.limit(rlimit::NOFILE);
    if let Some(gone) = cx.files().replace(new, file, cloexec, limit)? {
        cx.files().forget(&gone.file);
    }
    Ok(ret_i32(new))
}
/// umask(2).
pub fn umask(cx: &mut Cx<'_>, mask: u32) -> SysResult {
    Ok(u64::from(cx.task.fs().set_umask(mask)))
}
/// chdir(2).
pub fn chdir(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let who = actor(cx);
    let to = path::find(cx, &who, addr, true)?;
    enter(&who, &to)?;
    who.fs.set_cwd(to);
    Ok(0)
}
/// fchdir(2).
pub fn fchdir(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let who = actor(cx);
    let to = cx.files().get(fd)?.path.clone().ok_or(Errno::ENOTDIR)?;
    enter(&who, &to)?;
    who.fs.set_cwd(to);
    Ok(0)
}
fn enter(who: &crate::fs::inode::Actor, to: &crate::fs::dentry::Path) -> Result<(), Errno> {
    let attr = to.attr()?;
    if !attr.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    perm::check(&who.creds, &attr, perm::EXEC)
}
/// chroot(2).
pub fn chroot(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let who = actor(cx);
    let to = path::find(cx, &who, addr, true)?;
    enter(&who, &to)?;
    if !who.creds.capable(cap::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    who.fs.set_root(to);
    Ok(0)
}
/// getcwd(2): the count includes the NUL.
pub fn getcwd(cx: &mut Cx<'_>, buf: u64, size: u64) -> SysResult {
    let fs = cx.task.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT.into());
    }
    let mut text = cwd.text(&fs.root());
    text.push(0);
    if text.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if text.len() as u64 > size {
        return Err(Errno::ERANGE.into());
    }
    cx.mm().write_bytes(buf, &text)?;
    Ok(text.len() as u64)
}
