//! File operations by path: resolution, permission, then the inode's own operation.
//!
//! What handlers, the program loader and sockets' names call. Each function takes on whose behalf it
//! acts, where relative paths start, and the path.

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
};

use super::{
    body::Use,
    dentry::{Dentry, Path},
    file::{FileOps, OpenFile},
    flags::{OpenFlags, Resolve},
    inode::{Actor, Attr, Inode, Magic, NewNode, RenameFlags, SetAttr, mode},
    inotify::{self, Events},
    lease::Opened,
    mount::MountFlags,
    perm,
    walk::{Followed, Found, Last, Parent, Walk},
};
use crate::{
    call::Cx,
    creds::cap,
    error::{Errno, Stop, Wait},
    pipe::Pipe,
};

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// open(2) flags.
    pub flags: OpenFlags,
    /// Permission bits of a file that is created, umask not yet applied.
    pub mode: u32,
    /// openat2(2) restrictions.
    pub resolve: Resolve,
}

impl How {
    /// With `flags` alone.
    #[must_use]
    pub fn flags(flags: OpenFlags) -> How {
        How { flags, mode: 0, resolve: Resolve::empty() }
    }
}

/// The place `path` names; a final link is followed if `follow`.
///
/// # Errors
/// As path_resolution(7).
pub fn find(who: &Actor, start: &Path, path: &[u8], follow: bool) -> Result<Path, Errno> {
    Walk::new(who, start, Resolve::empty()).find(start, path, follow)?.path()
}

/// The directory and name a new file of type `kind` gets; EEXIST if the name is taken.
fn new_name(who: &Actor, start: &Path, path: &[u8], kind: u32) -> Result<(Path, Vec<u8>), Errno> {
    let mut walk = Walk::new(who, start, Resolve::empty());
    let parent = walk.parent(start, path)?;
    let Last::Name(name, slash) = parent.last else { return Err(Errno::EEXIST) };
    match walk.child(&parent.dir, &name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    if slash && kind != mode::DIR {
        return Err(Errno::ENOENT);
    }
    may_change(who, &parent.dir)?;
    Ok((parent.dir, name))
}

/// `who` may add names to `dir`.
fn may_change(who: &Actor, dir: &Path) -> Result<Attr, Errno> {
    let attr = dir.attr()?;
    dir.mount.writable()?;
    perm::check(&who.creds, &attr, perm::WRITE | perm::EXEC)?;
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    Ok(attr)
}

/// Owner, group and set-group-id of a file that `who` makes in a directory with `dir`.
fn owned(who: &Actor, dir: &Attr, bits: u32, rdev: u64, target: &[u8]) -> NewNode {
    let inherits = dir.mode & mode::SGID != 0;
    let is_dir = bits & mode::FMT == mode::DIR;
    let gid = if inherits { dir.gid } else { who.creds.fsgid };
    let mut bits = bits;
    if inherits && is_dir {
        bits |= mode::SGID;
    } else if inherits
        && bits & (mode::SGID | 0o010) == mode::SGID | 0o010
        && !who.creds.in_group(gid)
        && !who.creds.capable(cap::FSETID)
    {
        bits &= !mode::SGID;
    }
    NewNode { mode: bits, uid: who.creds.fsuid, gid, rdev, target: target.to_vec() }
}

/// Makes a file of any type (mknod, mkdir, symlink, bind): `bits` are type and permission, to which
/// the umask is applied here (except to symbolic links).
///
/// # Errors
/// As mknod(2), mkdir(2), symlink(2).
pub fn create(
    who: &Actor,
    start: &Path,
    path: &[u8],
    bits: u32,
    rdev: u64,
    target: &[u8],
) -> Result<Path, Errno> {
    let kind = bits & mode::FMT;
    let (dir, name) = new_name(who, start, path, kind)?;
    let whiteout = kind == mode::CHR && rdev == 0;
    if matches!(kind, mode::CHR | mode::BLK) && !whiteout && !who.creds.capable(cap::MKNOD) {
        return Err(Errno::EPERM);
    }
    let bits = if kind == mode::LNK { mode::LNK | 0o777 } else { bits & !who.fs.umask() };
    let new = owned(who, &dir.attr()?, bits, rdev, target);
    let inode = dir.inode().create(who, &name, &new)?;
    inotify::named(dir.inode(), &name, &inode, Events::CREATE, 0);
    let dentry = dir.dentry.child(&name, inode);
    Ok(Path { mount: dir.mount, dentry })
}

/// unlink(2), or rmdir(2) when `dir`.
///
/// # Errors
/// As those calls.
pub fn unlink(who: &Actor, start: &Path, path: &[u8], dir: bool) -> Result<(), Errno> {
    let mut walk = Walk::new(who, start, Resolve::empty());
    let parent = walk.parent(start, path)?;
    let (name, slash) = match parent.last {
        Last::Name(name, slash) => (name, slash),
        Last::Dot if dir && path.iter().all(|b| *b == b'/') => return Err(Errno::EBUSY),
        Last::Dot if dir => return Err(Errno::EINVAL),
        Last::DotDot if dir => return Err(Errno::ENOTEMPTY),
        _ => return Err(Errno::EISDIR),
    };
    let at = &parent.dir;
    at.mount.writable()?;
    let victim = at.dentry.lookup(who, &name)?;
    let attr = victim.inode().attr()?;
    if slash && !dir {
        return Err(if attr.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    perm::may_delete(&who.creds, &at.attr()?, &attr)?;
    if dir && !attr.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if !dir && attr.is_dir() {
        return Err(Errno::EISDIR);
    }
    if who.fs.namespace().mounts_on(&victim) {
        return Err(Errno::EBUSY);
    }
    at.inode().unlink(who, &name, dir)?;
    at.dentry.forget(&name);
    let inode = victim.inode().clone();
    if !dir {
        inotify::itself(&inode, Events::ATTRIB);
    }
    // Its last use may end here: whoever watches the file itself hears of it first.
    drop(victim);
    let event = if dir { Events::DELETE | Events::ISDIR } else { Events::DELETE };
    inotify::named(at.inode(), &name, &inode, event, 0);
    Ok(())
}

/// link(2) of what `from` already names.
///
/// # Errors
/// As link(2).
pub fn link(who: &Actor, from: &Path, start: &Path, path: &[u8]) -> Result<(), Errno> {
    let attr = from.attr()?;
    let (dir, name) = new_name(who, start, path, mode::REG)?;
    if !Arc::ptr_eq(&from.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    if attr.is_dir() {
        return Err(Errno::EPERM);
    }
    // What has lost its last name gets no other, but for a temporary file that was meant to.
    let linkable = &from.inode().common().linkable;
    if !linkable.swap(false, Ordering::Relaxed) && attr.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    dir.inode().link(who, &name, from.inode())?;
    inotify::itself(from.inode(), Events::ATTRIB);
    inotify::named(dir.inode(), &name, from.inode(), Events::CREATE, 0);
    Ok(())
}

/// renameat2(2), once both parents are found.
///
/// # Errors
/// As renameat2(2).
pub fn rename(who: &Actor, from: Parent, to: Parent, flags: RenameFlags) -> Result<(), Errno> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(name, slash) = from.last else { return Err(Errno::EBUSY) };
    let Last::Name(to_name, to_slash) = to.last else {
        let busy =
            if flags.contains(RenameFlags::NOREPLACE) { Errno::EEXIST } else { Errno::EBUSY };
        return Err(busy);
    };
    from.dir.mount.writable()?;
    let moving = from.dir.dentry.lookup(who, &name)?;
    let target = match to.dir.dentry.lookup(who, &to_name) {
        Ok(dentry) => Some(dentry),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EEXIST);
    }
    let attr = moving.inode().attr()?;
    if exchange && target.is_none() {
        return Err(Errno::ENOENT);
    }
    if !attr.is_dir() && (slash || (!exchange && to_slash)) {
        return Err(Errno::ENOTDIR);
    }
    if moving.is_ancestor_of(&to.dir.dentry) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = &target
        && target.is_ancestor_of(&from.dir.dentry)
    {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    let (from_attr, to_attr) = (from.dir.attr()?, to.dir.attr()?);
    perm::may_delete(&who.creds, &from_attr, &attr)?;
    match &target {
        None => drop(may_change(who, &to.dir)?),
        Some(target) => {
            let victim = target.inode().attr()?;
            perm::may_delete(&who.creds, &to_attr, &victim)?;
            if exchange && to_slash && !victim.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            if !exchange && attr.is_dir() != victim.is_dir() {
                return Err(if attr.is_dir() { Errno::ENOTDIR } else { Errno::EISDIR });
            }
            if who.fs.namespace().mounts_on(target) {
                return Err(Errno::EBUSY);
            }
        }
    }
    // A directory that changes its parent changes its own `..`.
    let reparents = !Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
    if reparents && attr.is_dir() {
        perm::check(&who.creds, &attr, perm::WRITE)?;
    }
    if who.fs.namespace().mounts_on(&moving) {
        return Err(Errno::EBUSY);
    }
    if target.as_ref().is_some_and(|t| Arc::ptr_eq(t.inode(), moving.inode())) {
        return Ok(());
    }
    from.dir.inode().rename(who, &name, to.dir.inode(), &to_name, flags)?;
    from.dir.dentry.moved(&name, &to.dir.dentry, &to_name, exchange);
    if who.kernel.fs.inotify.in_use() {
        let moved = |(from, name): (&Path, &[u8]), (to, to_name): (&Path, &[u8]), inode, over| {
            let cookie = who.kernel.fs.inotify.cookie();
            inotify::named(from.inode(), name, inode, Events::MOVED_FROM, cookie);
            inotify::named(to.inode(), to_name, inode, Events::MOVED_TO, cookie);
            if let Some(over) = over {
                inotify::itself(over, Events::ATTRIB);
            }
            inotify::itself(inode, Events::MOVE_SELF);
        };
        let (old, new) = ((&from.dir, name.as_slice()), (&to.dir, to_name.as_slice()));
        let other = target.as_ref().map(|target| target.inode());
        moved(old, new, moving.inode(), other.filter(|_| !exchange));
        if let (true, Some(other)) = (exchange, other) {
            moved(new, old, other, None);
        }
    }
    Ok(())
}

/// Opens `path`. A FIFO can be opened only with the call `cx` that may have to wait for its other end.
///
/// # Errors
/// As openat2(2), or a wait (a FIFO without its other end).
pub fn open(
    who: &Actor,
    start: &Path,
    path: &[u8],
    how: &How,
    cx: Option<&mut Cx<'_>>,
) -> Result<Arc<OpenFile>, Stop> {
    let flags = how.flags;
    if flags.contains(OpenFlags::TMPFILE) {
        return open_tmpfile(who, start, path, how).map_err(Stop::Errno);
    }
    let mut walk = Walk::new(who, start, how.resolve);
    if flags.contains(OpenFlags::CREAT) && !flags.contains(OpenFlags::PATH) {
        return open_or_create(who, &mut walk, start, path, how, cx);
    }
    let follow = !flags.contains(OpenFlags::NOFOLLOW);
    match walk.find(start, path, follow)? {
        Found::Path(path, Some(attr)) => open_known(who, &path, &attr, flags, false, cx),
        Found::Path(path, None) => open_at(who, &path, flags, false, cx),
        Found::File(file) => reopen(who, &file, flags, cx),
    }
}

fn open_or_create(
    who: &Actor,
    walk: &mut Walk<'_>,
    start: &Path,
    path: &[u8],
    how: &How,
    cx: Option<&mut Cx<'_>>,
) -> Result<Arc<OpenFile>, Stop> {
    let flags = how.flags;
    let exclusive = flags.contains(OpenFlags::EXCL);
    let (mut start, mut path) = (start.clone(), path.to_vec());
    loop {
        let parent = walk.parent(&start, &path)?;
        let Last::Name(name, slash) = parent.last else {
            return Err(if exclusive { Errno::EEXIST } else { Errno::EISDIR }.into());
        };
        if slash {
            return Err(Errno::EISDIR.into());
        }
        let dir = parent.dir;
        let (found, told) = match walk.child_attr(&dir, &name) {
            Ok(found) => found,
            Err(Errno::ENOENT) => match create_in(who, &dir, &name, how) {
                // Somebody else was faster.
                Err(Errno::EEXIST) if !exclusive => walk.child_attr(&dir, &name)?,
                Err(errno) => return Err(errno.into()),
                Ok(made) => return open_at(who, &made, flags, true, cx),
            },
            Err(errno) => return Err(errno.into()),
        };
        if exclusive {
            return Err(Errno::EEXIST.into());
        }
        let attr = told.map_or_else(|| found.attr(), Ok)?;
        if !attr.is_symlink() {
            return open_known(who, &found, &attr, flags, false, cx);
        }
        if flags.contains(OpenFlags::NOFOLLOW) {
            return Err(Errno::ELOOP.into());
        }
        match walk.follow(&dir, &found)? {
            Followed::Magic(Magic::Path(path)) => return open_at(who, &path, flags, false, cx),
            Followed::Magic(Magic::File(file)) => return reopen(who, &file, flags, cx),
            Followed::Text(from, text) => (start, path) = (from, text),
        }
    }
}

fn create_in(who: &Actor, dir: &Path, name: &[u8], how: &How) -> Result<Path, Errno> {
    let attr = may_change(who, dir)?;
    let bits = mode::REG | (how.mode & mode::PERM & !who.fs.umask());
    let inode = dir.inode().create(who, name, &owned(who, &attr, bits, 0, b""))?;
    inotify::named(dir.inode(), name, &inode, Events::CREATE, 0);
    Ok(Path { mount: dir.mount.clone(), dentry: dir.dentry.child(name, inode) })
}

fn open_tmpfile(who: &Actor, start: &Path, path: &[u8], how: &How) -> Result<Arc<OpenFile>, Errno> {
    let dir = Walk::new(who, start, how.resolve).find(start, path, true)?.path()?;
    if !dir.attr()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let attr = may_change(who, &dir)?;
    let bits = mode::REG | (how.mode & mode::PERM & !who.fs.umask());
    let inode = dir.inode().tmpfile(who, &owned(who, &attr, bits, 0, b""))?;
    inode.common().linkable.store(!how.flags.contains(OpenFlags::EXCL), Ordering::Relaxed);
    let ino = inode.attr()?.ino;
    let ops = inode.clone().open(who, how.flags)?;
    let dentry = Dentry::nameless(&dir.dentry, inode, format!("#{ino}").as_bytes());
    Ok(opened(ops, Path { mount: dir.mount, dentry }, how.flags))
}

/// Opens an object that has no place again, through /proc/self/fd.
fn reopen(
    who: &Actor,
    file: &Arc<OpenFile>,
    flags: OpenFlags,
    cx: Option<&mut Cx<'_>>,
) -> Result<Arc<OpenFile>, Stop> {
    match &file.path {
        Some(path) => open_at(who, path, flags, false, cx),
        None => Ok(OpenFile::new(file.ops.reopen(file, flags)?, flags)),
    }
}

/// Opens what lies at `path`; `created` says that this very call made it, so that permission and
/// truncation do not matter.
///
/// # Errors
/// As open(2).
pub fn open_at(
    who: &Actor,
    path: &Path,
    flags: OpenFlags,
    created: bool,
    cx: Option<&mut Cx<'_>>,
) -> Result<Arc<OpenFile>, Stop> {
    open_known(who, path, &path.attr()?, flags, created, cx)
}

/// [`open_at`] of a place whose attributes the same call has been told.
fn open_known(
    who: &Actor,
    path: &Path,
    attr: &Attr,
    flags: OpenFlags,
    created: bool,
    cx: Option<&mut Cx<'_>>,
) -> Result<Arc<OpenFile>, Stop> {
    if flags.contains(OpenFlags::DIRECTORY) && !attr.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::at(Arc::new(PathOnly), path.clone(), flags));
    }
    let (reads, writes) = access_of(flags);
    let truncates = flags.contains(OpenFlags::TRUNC) && !created;
    match attr.mode & mode::FMT {
        mode::LNK => return Err(Errno::ELOOP.into()),
        mode::DIR if writes || truncates || flags.contains(OpenFlags::CREAT) => {
            return Err(Errno::EISDIR.into());
        }
        mode::CHR | mode::BLK if path.mount.flags().contains(MountFlags::NODEV) => {
            return Err(Errno::EACCES.into());
        }
        _ => {}
    }
    if !created {
        let mut want = 0;
        if reads {
            want |= perm::READ;
        }
        if writes || truncates {
            want |= perm::WRITE;
            if attr.is_regular() {
                path.mount.writable()?;
            }
        }
        perm::check(&who.creds, attr, want)?;
    }
    if flags.contains(OpenFlags::NOATIME) && !perm::owns(&who.creds, attr) {
        return Err(Errno::EPERM.into());
    }
    if writes || truncates {
        free_of(path.inode(), Use::Executes)?;
    }
    // Counted before the leases are looked at, so that none is granted meanwhile.
    let _opening = Opened::new(path.inode(), writes);
    if let Some((queue, until)) =
        path.inode().common().leases.admit(&who.kernel, writes || truncates)
    {
        return Err(if flags.contains(OpenFlags::NONBLOCK) {
            Stop::Errno(Errno::EAGAIN)
        } else {
            Wait::on(queue).until(Some(until)).into()
        });
    }
    let ops: Arc<dyn FileOps> = match attr.mode & mode::FMT {
        mode::CHR => {
            let device = who.kernel.fs.devices.get(attr.rdev).ok_or(Errno::ENXIO)?;
            device.open(who, path, attr.rdev, flags)?
        }
        mode::FIFO => open_fifo(who, path, flags, cx)?,
        mode::SOCK | mode::BLK => return Err(Errno::ENXIO.into()),
        _ => path.inode().clone().open(who, flags)?,
    };
    if flags.contains(OpenFlags::DIRECT) && !takes_direct(attr, &*ops) {
        return Err(Errno::EINVAL.into());
    }
    if truncates && attr.is_regular() {
        let mode = perm::stripped(&who.creds, attr);
        path.inode().set_attr(&SetAttr { size: Some(0), mode, ..SetAttr::default() })?;
    }
    let file = opened(ops, path.clone(), flags);
    if truncates && attr.is_regular() {
        inotify::changed(path, Events::MODIFY);
    }
    Ok(file)
}

/// O_DIRECT is for files with pages of their own (FMODE_CAN_ODIRECT).
#[must_use]
pub fn takes_direct(attr: &Attr, ops: &dyn FileOps) -> bool {
    attr.is_regular() && ops.object().is_ok()
}

/// A new description, and who watches the place told of it.
fn opened(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags) -> Arc<OpenFile> {
    let file = OpenFile::at(ops, path, flags);
    inotify::file(&file, Events::OPEN);
    file
}

/// Which accesses an open asks for: reading, writing. Access mode 3 asks for both and gets neither.
fn access_of(flags: OpenFlags) -> (bool, bool) {
    let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
    (!flags.contains(OpenFlags::WRONLY) || flags.contains(OpenFlags::RDWR), writes)
}

fn open_fifo(
    who: &Actor,
    path: &Path,
    flags: OpenFlags,
    cx: Option<&mut Cx<'_>>,
) -> Result<Arc<dyn FileOps>, Stop> {
    let cx = cx.ok_or(Errno::ENXIO)?;
    let make = || -> Arc<dyn Any + Send + Sync> {
        Pipe::new(who.kernel.fresh_id(), (who.creds.fsuid, who.creds.fsgid))
    };
    let pipe = path.inode().common().attached_or(make);
    let pipe = pipe.downcast::<Pipe>().map_err(|_| Errno::ENXIO)?;
    let end: Arc<dyn FileOps> = crate::pipe::open_fifo(cx, &pipe, flags)?;
    Ok(end)
}

/// What an O_PATH descriptor refers to: nothing can be done with it but to name the place.
pub struct PathOnly;

impl FileOps for PathOnly {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Opens a program for the loader: a regular file that `who` may execute, on a mount that allows it.
///
/// # Errors
/// As execve(2): EACCES, ENOENT, ELOOP.
pub fn open_exec(
    who: &Actor,
    start: &Path,
    path: &[u8],
    follow: bool,
) -> Result<Arc<OpenFile>, Errno> {
    let found = find(who, start, path, follow)?;
    open_exec_at(who, &found)
}

/// [`open_exec`] of a place that was already found.
///
/// # Errors
/// As execve(2).
pub fn open_exec_at(who: &Actor, path: &Path) -> Result<Arc<OpenFile>, Errno> {
    let attr = path.attr()?;
    if attr.is_symlink() {
        return Err(Errno::ELOOP);
    }
    if !attr.is_regular() || path.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    perm::check(&who.creds, &attr, perm::EXEC)?;
    free_of(path.inode(), Use::Writes)?;
    let flags = OpenFlags::empty();
    let any: Arc<dyn Any + Send + Sync> = path.inode().clone();
    let ops = match any.downcast::<super::tmpfs::Node>() {
        Ok(node) => node.open_program(who)?,
        Err(_) => path.inode().clone().open(who, flags)?,
    };
    Ok(opened(ops, path.clone(), flags))
}

/// Nobody uses the file so.
fn free_of(inode: &Arc<dyn Inode>, kind: Use) -> Result<(), Errno> {
    let body = super::tmpfs::TmpFs::of(inode).and_then(super::tmpfs::Node::body);
    if body.is_some_and(|body| body.is_used(kind)) { Err(Errno::ETXTBSY) } else { Ok(()) }
}

/// truncate(2) and ftruncate(2) of a regular file.
///
/// # Errors
/// As truncate(2), without the permission to write.
pub fn truncate(who: &Actor, inode: &Arc<dyn Inode>, size: u64) -> Result<(), Errno> {
    let attr = inode.attr()?;
    super::tmpfs::file::check_resize(inode, size)?;
    free_of(inode, Use::Executes)?;
    let mode = perm::stripped(&who.creds, &attr);
    inode.set_attr(&SetAttr { size: Some(size), mode, ..SetAttr::default() })
}
