//! stat(2), statx(2), access(2), chmod(2), chown(2), utimensat(2), statfs(2).

use std::{sync::Arc, time::Duration};

use super::path::{self, AT_FDCWD, Target, actor, at, target, target_or_null};
use crate::{
    call::Cx,
    creds::{Creds, cap},
    error::{Errno, SysResult},
    fs::{
        file::OpenFile,
        inode::{Actor, Attr, SetAttr, mode},
        inotify::Events,
        perm,
    },
    ipc::mqueue::MqFile,
    linux::layout_fs::{Stat, Statfs, Statx},
    task::pidfd::PidFd,
};

/// stat(2).
pub fn stat(cx: &mut Cx<'_>, path: u64, buf: u64) -> SysResult {
    newfstatat(cx, AT_FDCWD, path, buf, 0)
}
/// lstat(2).
pub fn lstat(cx: &mut Cx<'_>, path: u64, buf: u64) -> SysResult {
    newfstatat(cx, AT_FDCWD, path, buf, at::SYMLINK_NOFOLLOW)
}
/// fstat(2).
pub fn fstat(cx: &mut Cx<'_>, fd: i32, buf: u64) -> SysResult {
    let attr = cx.files().get(fd)?.attr()?;
    cx.mm().write_obj(buf, &Stat::from(&attr))?;
    Ok(0)
}
/// newfstatat(2).
pub fn newfstatat(cx: &mut Cx<'_>, dirfd: i32, path: u64, buf: u64, flags: u32) -> SysResult {
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | at::NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let attr = target_or_null(cx, &actor(cx), dirfd, path, flags)?.attr()?;
    cx.mm().write_obj(buf, &Stat::from(&attr))?;
    Ok(0)
}
/// statx(2): everything is reported, whatever the mask asks for.
pub fn statx(cx: &mut Cx<'_>, dirfd: i32, path: u64, flags: u32, mask: u32, buf: u64) -> SysResult {
    let known = at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | at::NO_AUTOMOUNT | at::STATX_SYNC;
    let sync = flags & at::STATX_SYNC;
    if flags & !known != 0 || sync == at::STATX_SYNC || mask & 0x8000_0000 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = target_or_null(cx, &actor(cx), dirfd, path, flags)?;
    let attr = found.attr()?;
    let (mount, root) = match &found {
        Target::Path(p, _) => (p.mount.id, Arc::ptr_eq(&p.dentry, p.mount.root())),
        Target::File(_) => (0, false),
    };
    cx.mm().write_obj(buf, &Statx::new(&attr, mount, root))?;
    Ok(0)
}

/// access(2).
pub fn access(cx: &mut Cx<'_>, path: u64, want: u32) -> SysResult {
    faccessat2(cx, AT_FDCWD, path, want, 0)
}
/// faccessat(2), the system call: without flags.
pub fn faccessat(cx: &mut Cx<'_>, dirfd: i32, path: u64, want: u32) -> SysResult {
    faccessat2(cx, dirfd, path, want, 0)
}
/// faccessat2(2).
pub fn faccessat2(cx: &mut Cx<'_>, dirfd: i32, path: u64, want: u32, flags: u32) -> SysResult {
    let known = at::EACCESS | at::SYMLINK_NOFOLLOW | at::EMPTY_PATH;
    if want & !7 != 0 || flags & !known != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut who = actor(cx);
    if flags & at::EACCESS == 0 {
        who.creds = Arc::new(as_real(&who.creds));
    }
    let found = target(cx, &who, dirfd, path, flags & !at::EACCESS)?;
    let attr = found.attr()?;
    if let Target::Path(place, _) = &found {
        if want & perm::WRITE != 0 && (attr.is_regular() || attr.is_dir()) {
            place.mount.writable()?;
        }
        let noexec = place.mount.flags().contains(crate::fs::mount::MountFlags::NOEXEC);
        if want & perm::EXEC != 0 && attr.is_regular() && noexec {
            return Err(Errno::EACCES.into());
        }
    }
    perm::check(&who.creds, &attr, want)?;
    Ok(0)
}
/// Credentials by the real ids, with the capabilities those would have (access(2)).
fn as_real(creds: &Creds) -> Creds {
    let mut real = creds.clone();
    (real.fsuid, real.fsgid) = (creds.uid, creds.gid);
    real.effective = if creds.uid == 0 { creds.permitted } else { 0 };
    real
}

/// chmod(2).
pub fn chmod(cx: &mut Cx<'_>, path: u64, bits: u32) -> SysResult {
    fchmodat2(cx, AT_FDCWD, path, bits, 0)
}
/// fchmodat(2), the system call: without flags.
pub fn fchmodat(cx: &mut Cx<'_>, dirfd: i32, path: u64, bits: u32) -> SysResult {
    fchmodat2(cx, dirfd, path, bits, 0)
}
/// fchmodat2(2).
pub fn fchmodat2(cx: &mut Cx<'_>, dirfd: i32, path: u64, bits: u32, flags: u32) -> SysResult {
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let who = actor(cx);
    set_mode(&who, &target(cx, &who, dirfd, path, flags)?, bits)
}
/// fchmod(2).
pub fn fchmod(cx: &mut Cx<'_>, fd: i32, bits: u32) -> SysResult {
    set_mode(&actor(cx), &Target::of(path::file(cx, fd)?), bits)
}
fn set_mode(who: &Actor, place: &Target, bits: u32) -> SysResult {
    let attr = place.attr()?;
    place.writable()?;
    place.settable()?;
    if !perm::owns(&who.creds, &attr) {
        return Err(Errno::EPERM.into());
    }
    if attr.is_symlink() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut bits = bits & mode::PERM;
    if !who.creds.in_group(attr.gid) && !who.creds.capable(cap::FSETID) {
        bits &= !mode::SGID;
    }
    place.set_attr(&SetAttr { mode: Some(bits), ..SetAttr::default() }, Events::ATTRIB)?;
    Ok(0)
}

/// chown(2).
pub fn chown(cx: &mut Cx<'_>, path: u64, uid: u32, gid: u32) -> SysResult {
    fchownat(cx, AT_FDCWD, path, uid, gid, 0)
}
/// lchown(2).
pub fn lchown(cx: &mut Cx<'_>, path: u64, uid: u32, gid: u32) -> SysResult {
    fchownat(cx, AT_FDCWD, path, uid, gid, at::SYMLINK_NOFOLLOW)
}
/// fchownat(2).
pub fn fchownat(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: u64,
    uid: u32,
    gid: u32,
    flags: u32,
) -> SysResult {
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let who = actor(cx);
    set_owner(&who, &target(cx, &who, dirfd, path, flags)?, uid, gid)
}
/// fchown(2).
pub fn fchown(cx: &mut Cx<'_>, fd: i32, uid: u32, gid: u32) -> SysResult {
    set_owner(&actor(cx), &Target::of(path::file(cx, fd)?), uid, gid)
}
fn set_owner(who: &Actor, place: &Target, uid: u32, gid: u32) -> SysResult {
    let attr = place.attr()?;
    place.writable()?;
    place.settable()?;
    let creds = &who.creds;
    let own = creds.fsuid == attr.uid;
    let uid_ok = uid == u32::MAX || (own && uid == attr.uid);
    let gid_ok = gid == u32::MAX || (own && (gid == attr.gid || creds.in_group(gid)));
    if !(creds.capable(cap::CHOWN) || (uid_ok && gid_ok)) {
        return Err(Errno::EPERM.into());
    }
    let kept = |id: u32| (id != u32::MAX).then_some(id);
    let strips = !attr.is_dir() && attr.mode & (mode::SUID | mode::SGID) != 0;
    let mode = strips.then(|| perm::without_set_id(attr.mode) & mode::PERM);
    let change = SetAttr { uid: kept(uid), gid: kept(gid), mode, ..SetAttr::default() };
    // That nothing but ctime changes is no event (`fsnotify_change()`).
    let told = change.uid.or(change.gid).or(change.mode).is_some();
    place.set_attr(&change, if told { Events::ATTRIB } else { Events::empty() })?;
    Ok(0)
}

/// Two times to set: seconds and nanoseconds, or what stands for them; `None` is "now".
type Times = Option<[(i64, i64); 2]>;

const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn seconds(secs: i64, nanos: i64) -> Duration {
    // A time before 1970 wraps round, and back when it is shown.
    Duration::new(secs.cast_unsigned(), u32::try_from(nanos).unwrap_or(0))
}
/// Sets the times of what was found (`vfs_utimes()`): only here is it seen whether they are valid.
fn set_times(cx: &Cx<'_>, who: &Actor, place: &Target, times: Times) -> SysResult {
    let now = cx.kernel().host.realtime();
    let one = |(secs, nanos): (i64, i64)| match nanos {
        UTIME_NOW => Ok(Some(now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(seconds(secs, nanos))),
        _ => Err(Errno::EINVAL),
    };
    let [atime, mtime] = match times {
        None => [Some(now); 2],
        Some([atime, mtime]) => [one(atime)?, one(mtime)?],
    };
    place.writable()?;
    let attr: Attr = place.attr()?;
    if !perm::owns(&who.creds, &attr) {
        if times.is_some_and(|times| times.iter().any(|time| time.1 != UTIME_NOW)) {
            place.settable()?;
            return Err(Errno::EPERM.into());
        }
        perm::check(&who.creds, &attr, perm::WRITE)?;
    }
    let event = match (atime, mtime) {
        (Some(_), None) => Events::ACCESS,
        (None, Some(_)) => Events::MODIFY,
        _ => Events::ATTRIB,
    };
    place.set_attr(&SetAttr { atime, mtime, ..SetAttr::default() }, event)?;
    Ok(0)
}
/// The file times are set of: without a path a descriptor's, which takes no flags (`do_utimes()`).
fn timed(cx: &Cx<'_>, who: &Actor, dirfd: i32, path: u64, flags: u32) -> Result<Target, Errno> {
    if path == 0 && dirfd != AT_FDCWD {
        return if flags == 0 {
            Ok(Target::of(path::file(cx, dirfd)?))
        } else {
            Err(Errno::EINVAL)
        };
    }
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    target(cx, who, dirfd, path, flags)
}
/// utimensat(2).
pub fn utimensat(cx: &mut Cx<'_>, dirfd: i32, path: u64, times: u64, flags: u32) -> SysResult {
    let times = match times {
        0 => None,
        addr => {
            let raw: [i64; 4] = cx.mm().read_obj(addr)?;
            Some([(raw[0], raw[1]), (raw[2], raw[3])])
        }
    };
    if times.is_some_and(|times| times.iter().all(|time| time.1 == UTIME_OMIT)) {
        // Not even the path is looked at.
        return Ok(0);
    }
    let who = actor(cx);
    set_times(cx, &who, &timed(cx, &who, dirfd, path, flags)?, times)
}
/// utimes(2).
pub fn utimes(cx: &mut Cx<'_>, path: u64, times: u64) -> SysResult {
    futimesat(cx, AT_FDCWD, path, times)
}
/// futimesat(2).
pub fn futimesat(cx: &mut Cx<'_>, dirfd: i32, path: u64, times: u64) -> SysResult {
    let times = match times {
        0 => None,
        addr => {
            let raw: [i64; 4] = cx.mm().read_obj(addr)?;
            if !(0..1_000_000).contains(&raw[1]) || !(0..1_000_000).contains(&raw[3]) {
                return Err(Errno::EINVAL.into());
            }
            Some([(raw[0], raw[1] * 1000), (raw[2], raw[3] * 1000)])
        }
    };
    let who = actor(cx);
    set_times(cx, &who, &timed(cx, &who, dirfd, path, 0)?, times)
}
/// utime(2).
pub fn utime(cx: &mut Cx<'_>, path: u64, times: u64) -> SysResult {
    let times = match times {
        0 => None,
        addr => {
            let raw: [i64; 2] = cx.mm().read_obj(addr)?;
            Some([(raw[0], 0), (raw[1], 0)])
        }
    };
    let who = actor(cx);
    set_times(cx, &who, &timed(cx, &who, AT_FDCWD, path, 0)?, times)
}

fn put_statfs(cx: &Cx<'_>, mount: &crate::fs::mount::Mount, buf: u64) -> SysResult {
    let fs = mount.fs();
    cx.mm().write_obj(buf, &Statfs::new(&fs.statfs()?, fs.dev(), mount.flags().bits()))?;
    Ok(0)
}
/// statfs(2).
pub fn statfs(cx: &mut Cx<'_>, path: u64, buf: u64) -> SysResult {
    let place = path::find(cx, &actor(cx), path, true)?;
    put_statfs(cx, &place.mount, buf)
}
/// fstatfs(2).
pub fn fstatfs(cx: &mut Cx<'_>, fd: i32, buf: u64) -> SysResult {
    let file = cx.files().get(fd)?;
    match &file.path {
        Some(place) => put_statfs(cx, &place.mount, buf),
        None => {
            let none = crate::fs::inode::StatFs {
                magic: magic(&file),
                block_size: 4096,
                name_max: 255,
                ..Default::default()
            };
            cx.mm().write_obj(buf, &Statfs::new(&none, 0, 0))?;
            Ok(0)
        }
    }
}
/// The kernel's own file system that a file without a place would be of (linux/magic.h).
fn magic(file: &OpenFile) -> u64 {
    match file.attr().map_or(0, |attr| attr.mode) & mode::FMT {
        mode::FIFO => 0x5049_5045,
        mode::SOCK => 0x534f_434b,
        _ if file.downcast::<MqFile>().is_some() => 0x1980_0202,
        _ if file.downcast::<PidFd>().is_some() => 0x5049_4446,
        _ => 0x0904_1934,
    }
}
