//! What the *at family shares: path arguments, directory descriptors, AT_* flags.

use std::sync::Arc;

use crate::{
    call::Cx,
    error::Errno,
    fs::{
        dentry::{PATH_MAX, Path},
        file::{OpenFile, OpenFlags},
        inode::{Actor, Attr, Inode, SetAttr},
        inotify::{self, Events},
        vfs,
    },
};

/// AT_FDCWD.
pub const AT_FDCWD: i32 = -100;
/// AT_* flags of the family.
#[expect(missing_docs, reason = "the man pages name them")]
pub mod at {
    pub const SYMLINK_NOFOLLOW: u32 = 0x100;
    pub const REMOVEDIR: u32 = 0x200;
    pub const EACCESS: u32 = 0x200;
    pub const SYMLINK_FOLLOW: u32 = 0x400;
    pub const NO_AUTOMOUNT: u32 = 0x800;
    pub const EMPTY_PATH: u32 = 0x1000;
    pub const STATX_SYNC: u32 = 0x6000;
}

/// What a path and a directory descriptor together name.
pub enum Target {
    /// A place in the tree, with its attributes if finding it has told them.
    Path(Path, Option<Attr>),
    /// A descriptor's file that has no place (AT_EMPTY_PATH on a pipe).
    File(Arc<OpenFile>),
}

impl Target {
    /// stat(2).
    ///
    /// # Errors
    /// The host's errno.
    pub fn attr(&self) -> Result<Attr, Errno> {
        match self {
            Target::Path(_, Some(attr)) => Ok(*attr),
            Target::Path(path, None) => path.attr(),
            Target::File(file) => file.attr(),
        }
    }
    /// What a descriptor refers to.
    #[must_use]
    pub fn of(file: Arc<OpenFile>) -> Target {
        let place = file.path.clone().map(|path| Target::Path(path, None));
        place.unwrap_or(Target::File(file))
    }
    /// The place.
    ///
    /// # Errors
    /// EXDEV for a file without one: it lies in no file system that a name could lie in.
    pub fn path(self) -> Result<Path, Errno> {
        match self {
            Target::Path(path, _) => Ok(path),
            Target::File(_) => Err(Errno::EXDEV),
        }
    }
    /// Its file system takes changes (`mnt_want_write()`).
    ///
    /// # Errors
    /// EROFS.
    pub fn writable(&self) -> Result<(), Errno> {
        match self {
            Target::Path(path, _) => path.mount.writable(),
            Target::File(_) => Ok(()),
        }
    }
    /// Its attributes can be changed at all, whoever asks (`anon_inode_setattr()`).
    ///
    /// # Errors
    /// EOPNOTSUPP.
    pub fn settable(&self) -> Result<(), Errno> {
        match self {
            Target::File(file) if file.ops.nameless().is_none() => Err(Errno::EOPNOTSUPP),
            _ => Ok(()),
        }
    }
    /// Changes attributes, and tells who watches of `event`; the caller has checked that it may.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_attr(&self, change: &SetAttr, event: Events) -> Result<(), Errno> {
        match self {
            Target::Path(path, _) => {
                path.inode().set_attr(change)?;
                inotify::changed(path, event);
            }
            Target::File(file) => file.ops.nameless().ok_or(Errno::EOPNOTSUPP)?.set_attr(change),
        }
        Ok(())
    }
}

/// Who calls.
#[must_use]
pub fn actor(cx: &Cx<'_>) -> Actor {
    Actor::of(cx.task)
}
/// A path argument (`getname()`), which is read before a directory descriptor is looked at.
///
/// # Errors
/// EFAULT, ENAMETOOLONG; ENOENT if it is empty.
pub fn text(cx: &Cx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let path = text_or_empty(cx, addr)?;
    if path.is_empty() { Err(Errno::ENOENT) } else { Ok(path) }
}
/// A path argument that may be empty.
///
/// # Errors
/// EFAULT, ENAMETOOLONG.
pub fn text_or_empty(cx: &Cx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    cx.mm().read_cstr(addr, PATH_MAX, Errno::ENAMETOOLONG)
}
/// Where `path` starts if it is relative.
///
/// # Errors
/// EBADF, ENOTDIR.
pub fn start(cx: &Cx<'_>, who: &Actor, dirfd: i32, path: &[u8]) -> Result<Path, Errno> {
    if path.starts_with(b"/") || dirfd == AT_FDCWD {
        return Ok(who.fs.cwd());
    }
    cx.files().get(dirfd)?.path.clone().ok_or(Errno::ENOTDIR)
}
/// Resolves a path argument under AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH; the caller has rejected
/// flags it does not know.
///
/// # Errors
/// As path_resolution(7).
pub fn target(
    cx: &Cx<'_>,
    who: &Actor,
    dirfd: i32,
    addr: u64,
    flags: u32,
) -> Result<Target, Errno> {
    let empty = flags & at::EMPTY_PATH != 0;
    let path = if empty { text_or_empty(cx, addr)? } else { text(cx, addr)? };
    if path.is_empty() {
        return dir(cx, who, dirfd);
    }
    let start = start(cx, who, dirfd, &path)?;
    let follow = flags & at::SYMLINK_NOFOLLOW == 0;
    let mut walk = crate::fs::walk::Walk::new(who, &start, crate::fs::flags::Resolve::empty());
    Ok(match walk.find(&start, &path, follow)? {
        crate::fs::walk::Found::Path(path, attr) => Target::Path(path, attr),
        crate::fs::walk::Found::File(file) => Target::File(file),
    })
}
/// What an empty path names: the directory descriptor's own file.
fn dir(cx: &Cx<'_>, who: &Actor, dirfd: i32) -> Result<Target, Errno> {
    if dirfd == AT_FDCWD {
        return Ok(Target::Path(who.fs.cwd(), None));
    }
    Ok(Target::of(cx.files().get(dirfd)?))
}
/// [`target`] for statx(2) and newfstatat(2), which take NULL for an empty path since Linux 6.11.
///
/// # Errors
/// As [`target`].
pub fn target_or_null(
    cx: &Cx<'_>,
    who: &Actor,
    dirfd: i32,
    addr: u64,
    flags: u32,
) -> Result<Target, Errno> {
    if addr == 0 && flags & at::EMPTY_PATH != 0 {
        return dir(cx, who, dirfd);
    }
    target(cx, who, dirfd, addr, flags)
}
/// A path argument relative to the working directory.
///
/// # Errors
/// As path_resolution(7).
pub fn find(cx: &Cx<'_>, who: &Actor, addr: u64, follow: bool) -> Result<Path, Errno> {
    vfs::find(who, &who.fs.cwd(), &text(cx, addr)?, follow)
}
/// A descriptor that may be used for more than naming a place.
///
/// # Errors
/// EBADF, also for O_PATH descriptors.
pub fn file(cx: &Cx<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
    let file = cx.files().get(fd)?;
    if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(file) }
}
/// The inode of a descriptor's file.
///
/// # Errors
/// `without` if the file has no place in any file system.
pub fn inode(file: &OpenFile, without: Errno) -> Result<Arc<dyn Inode>, Errno> {
    file.path.as_ref().map(|p| p.inode().clone()).ok_or(without)
}
