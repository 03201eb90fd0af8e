//! An inode of a passed-through tree.

use std::{
    any::Any,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{HostFs, file::RegularFile, held::Hold, listing::Listing};
use crate::{
    error::Errno,
    fs::{
        body::{Body, Lower},
        dirfile::DirFile,
        file::FileOps,
        flags::OpenFlags,
        inode::{
            Actor, Attr, Common, DirEntry, FileSystem, Inode, NewNode, RenameFlags, SetAttr, mode,
        },
    },
    host::{HostStat, HostTree},
};

/// A directory and the name in it.
pub(super) type Place = (Arc<Node>, Vec<u8>);

struct State {
    /// `None` for the root, and once the last known name is gone.
    place: Option<Place>,
    /// The name was removed.
    gone: bool,
    /// What the host last told.
    stat: HostStat,
}

/// A host file of any type.
pub struct Node {
    fs: Arc<HostFs>,
    me: Weak<Node>,
    common: Common,
    state: Mutex<State>,
    /// A directory, while it is held open.
    hold: Hold,
    /// A regular file's contents, while it is open or mapped.
    body: Mutex<Weak<Body>>,
    /// The contents of a file just made here, until it is opened.
    fresh: Mutex<Option<Arc<Body>>>,
    listing: Mutex<Listing>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(super) fn new(fs: &Arc<HostFs>, place: Option<Place>, stat: &HostStat) -> Arc<Node> {
        Arc::new_cyclic(|me| Node {
            fs: fs.clone(),
            me: me.clone(),
            hold: Hold::default(),
            common: Common::default(),
            state: Mutex::new(State { place, gone: false, stat: *stat }),
            body: Mutex::default(),
            fresh: Mutex::default(),
            listing: Mutex::default(),
        })
    }
    /// The type bits of its mode.
    pub(super) fn kind(&self) -> u32 {
        lock(&self.state).stat.mode & mode::FMT
    }
    /// It was found again, perhaps under another name.
    pub(super) fn found(&self, place: Option<Place>, stat: &HostStat) {
        let old = {
            let mut state = lock(&self.state);
            state.stat = *stat;
            state.gone = false;
            std::mem::replace(&mut state.place, place)
        };
        drop(old);
    }
    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }
    fn moved(&self, place: Option<Place>) {
        self.hold.release();
        let old = {
            let mut state = lock(&self.state);
            state.gone = place.is_none();
            std::mem::replace(&mut state.place, place)
        };
        drop(old);
    }
    /// Where it lies in the tree.
    fn path(&self) -> Result<PathBuf, Errno> {
        let mut names = Vec::new();
        let (mut next, gone) = {
            let state = lock(&self.state);
            (state.place.clone(), state.gone)
        };
        if gone {
            return Err(Errno::ENOENT);
        }
        while let Some((dir, name)) = next {
            names.push(name);
            let state = lock(&dir.state);
            if state.gone {
                return Err(Errno::ENOENT);
            }
            next = state.place.clone();
        }
        Ok(names.iter().rev().map(|name| OsStr::from_bytes(name)).collect())
    }
    fn below(&self, name: &[u8]) -> Result<PathBuf, Errno> {
        Ok(self.path()?.join(OsStr::from_bytes(name)))
    }
    /// The directory it is: held, or opened below the nearest one above that is.
    fn dir(&self) -> Result<Arc<dyn HostTree>, Errno> {
        let mut names = Vec::new();
        let mut above: Option<Arc<Node>> = None;
        let near = loop {
            let node = above.as_deref().unwrap_or(self);
            let held = node.hold.get();
            let place = {
                let state = lock(&node.state);
                if state.gone {
                    return Err(Errno::ENOENT);
                }
                if held.is_none() { state.place.clone() } else { None }
            };
            match place {
                Some((dir, name)) => {
                    names.push(name);
                    above = Some(dir);
                }
                None => break held.unwrap_or_else(|| self.fs.tree.clone()),
            }
        };
        if names.is_empty() {
            return Ok(near);
        }
        let path: PathBuf = names.iter().rev().map(|name| OsStr::from_bytes(name)).collect();
        let dir = near.below(&path)?;
        let found = dir.stat(Path::new(""))?;
        // Another directory that has taken its place serves this call and no other.
        if (found.dev, found.ino) == self.key()
            && found.dev == self.fs.host_dev
            && let (Some(held), Some(me)) = (self.fs.held.upgrade(), self.me.upgrade())
        {
            held.keep(&me, &dir);
        }
        Ok(dir)
    }
    /// The directory it lies in, and its name there; a root is nameless in itself.
    fn entry(&self) -> Result<(Arc<dyn HostTree>, PathBuf), Errno> {
        let (place, gone) = {
            let state = lock(&self.state);
            (state.place.clone(), state.gone)
        };
        match place {
            _ if gone => Err(Errno::ENOENT),
            Some((dir, name)) => Ok((dir.dir()?, PathBuf::from(OsStr::from_bytes(&name)))),
            None => Ok((self.fs.tree.clone(), PathBuf::new())),
        }
    }
    /// The host's device and inode number.
    fn key(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.stat.dev, state.stat.ino)
    }
    /// The contents, if anybody uses them.
    #[must_use]
    pub fn body(&self) -> Option<Arc<Body>> {
        lock(&self.body).upgrade()
    }
    /// The contents, opened on the host; `write` must be granted by it.
    fn open_body(&self, id: u64, write: bool) -> Result<Arc<Body>, Errno> {
        let path = self.path()?;
        let _fresh = lock(&self.fresh).take();
        let mut slot = lock(&self.body);
        let body = match slot.upgrade() {
            Some(body) => body,
            None => {
                let (dir, name) = self.entry()?;
                let (file, writable) = match dir.open(&name, true) {
                    Err(Errno::EACCES | Errno::EROFS | Errno::ETXTBSY | Errno::EPERM) => {
                        (dir.open(&name, false)?, false)
                    }
                    other => (other?, true),
                };
                let size = file.stat()?.size;
                let lower = Lower::opened(self.fs.tree.clone(), path, file, writable);
                let body = Body::through(id, &self.fs.pool, lower, size);
                *slot = Arc::downgrade(&body);
                body
            }
        };
        drop(slot);
        if let Some(lower) = body.lower() {
            lower.grant(write)?;
        }
        self.refresh(&body)?;
        Ok(body)
    }
    /// Takes over what others have done to the file on the host.
    pub(super) fn refresh(&self, body: &Arc<Body>) -> Result<HostStat, Errno> {
        let since = body.edits();
        let stat = body.lower().ok_or(Errno::EIO)?.handle()?.stat()?;
        body.host_changed(&stat, since);
        lock(&self.state).stat = stat;
        Ok(stat)
    }
    fn stat(&self) -> Result<HostStat, Errno> {
        if let Some(body) = self.body() {
            let mut stat = self.refresh(&body)?;
            stat.size = body.size();
            return Ok(stat);
        }
        let told = match self.hold.get() {
            Some(dir) => dir.stat(Path::new("")),
            None => self.entry().and_then(|(dir, name)| dir.stat(&name)),
        };
        let mut state = lock(&self.state);
        match told {
            // Another file lies there: ours has gone, behind our back.
            Ok(stat) if (stat.dev, stat.ino) != (state.stat.dev, state.stat.ino) => {}
            // Its own, although another thread may have been told something newer meanwhile.
            Ok(stat) => {
                state.stat = stat;
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EXDEV | Errno::ELOOP) => {}
            Err(errno) => return Err(errno),
        }
        let mut stat = state.stat;
        if state.gone {
            stat.nlink = if stat.mode & mode::FMT == mode::DIR { 0 } else { stat.nlink };
        }
        Ok(stat)
    }
    /// The entry `name`, and what the host told of it.
    fn child(&self, name: &[u8]) -> Result<(Arc<Node>, HostStat), Errno> {
        let stat = self.dir()?.stat(Path::new(OsStr::from_bytes(name)))?;
        Ok((self.fs.node(Some((self.me()?, name.to_vec())), &stat), stat))
    }
    /// This very node's `Arc`.
    fn me(&self) -> Result<Arc<Node>, Errno> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }
    fn attr_from(&self, stat: &HostStat) -> Attr {
        Attr {
            dev: self.fs.dev,
            ino: stat.ino,
            mode: stat.mode,
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            rdev: stat.rdev,
            size: stat.size,
            blocks: stat.blocks,
            blksize: 4096,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: stat.ctime,
        }
    }
    /// Two entries, by paths in one tree.
    fn two(
        &self,
        name: &[u8],
        other: &Arc<Node>,
        other_name: &[u8],
    ) -> Result<(Arc<dyn HostTree>, PathBuf, PathBuf), Errno> {
        if std::ptr::eq(&raw const **other, self) {
            let path = |name| PathBuf::from(OsStr::from_bytes(name));
            return Ok((self.dir()?, path(name), path(other_name)));
        }
        Ok((self.fs.tree.clone(), self.below(name)?, other.below(other_name)?))
    }
    fn peer(&self, other: &Arc<dyn Inode>) -> Result<Arc<Node>, Errno> {
        let other: Arc<dyn Any + Send + Sync> = other.clone();
        let other = other.downcast::<Node>().map_err(|_| Errno::EXDEV)?;
        if Arc::ptr_eq(&other.fs, &self.fs) { Ok(other) } else { Err(Errno::EXDEV) }
    }
    fn known(&self, name: &[u8]) -> Option<Arc<Node>> {
        let stat = self.dir().ok()?.stat(Path::new(OsStr::from_bytes(name))).ok()?;
        lock(&self.fs.nodes).get(&(stat.dev, stat.ino)).and_then(Weak::upgrade)
    }
}

impl Inode for Node {
    fn common(&self) -> &Common {
        &self.common
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.attr_from(&self.stat()?))
    }
    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        if let Some(size) = change.size {
            match self.body() {
                Some(body) => body.set_size(size)?,
                None => {
                    let (dir, name) = self.entry()?;
                    dir.open(&name, true)?.set_len(size)?;
                }
            }
        }
        let owner = (change.uid.is_some() || change.gid.is_some())
            .then(|| (change.uid.unwrap_or(u32::MAX), change.gid.unwrap_or(u32::MAX)));
        let times = if change.atime.is_some() || change.mtime.is_some() {
            let now = self.stat()?;
            Some((change.atime.unwrap_or(now.atime), change.mtime.unwrap_or(now.mtime)))
        } else {
            None
        };
        if change.mode.is_some() || owner.is_some() || times.is_some() {
            let (dir, name) = self.entry()?;
            dir.set_attr(&name, change.mode, owner, times)?;
        }
        Ok(())
    }
    fn lookup(&self, who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        Ok(self.lookup_attr(who, name)?.0)
    }
    fn lookup_attr(
        &self,
        _who: &Actor,
        name: &[u8],
    ) -> Result<(Arc<dyn Inode>, Option<Attr>), Errno> {
        if self.kind() != mode::DIR {
            return Err(Errno::ENOTDIR);
        }
        let (node, stat) = self.child(name)?;
        // Of contents in use the pages know more than the host.
        let attr = node.body().is_none().then(|| node.attr_from(&stat));
        Ok((node, attr))
    }
    fn create(&self, who: &Actor, name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let (path, tree) = (PathBuf::from(OsStr::from_bytes(name)), self.dir()?);
        let bits = new.mode & mode::PERM;
        let mut opened = None;
        match new.mode & mode::FMT {
            mode::REG => opened = Some(tree.create(&path, bits)?),
            mode::DIR => tree.mkdir(&path, bits)?,
            mode::LNK => tree.symlink(&new.target, &path)?,
            // Nodes that stand for something of this VM do not belong on the host.
            _ => return Err(Errno::EPERM),
        }
        let stat = tree.stat(&path)?;
        if (stat.uid, stat.gid) != (new.uid, new.gid) {
            // An unprivileged monitor's files are its own.
            let _ = tree.set_attr(&path, None, Some((new.uid, new.gid)), None);
            if new.mode & mode::FMT != mode::LNK && bits & (mode::SUID | mode::SGID) != 0 {
                // chown(2) has cleared the set-id bits.
                let _ = tree.set_attr(&path, Some(bits), None, None);
            }
        }
        let (node, _) = self.child(name)?;
        if let Some(file) = opened {
            let lower = Lower::opened(self.fs.tree.clone(), self.below(name)?, file, true);
            let body = Body::through(who.kernel.fresh_id(), &self.fs.pool, lower, 0);
            *lock(&node.body) = Arc::downgrade(&body);
            *lock(&node.fresh) = Some(body);
        }
        Ok(node)
    }
    fn link(&self, _who: &Actor, name: &[u8], target: &Arc<dyn Inode>) -> Result<(), Errno> {
        let place = lock(&self.peer(target)?.state).place.clone();
        let (dir, known_as) = place.ok_or(Errno::ENOENT)?;
        let (tree, from, to) = dir.two(&known_as, &self.me()?, name)?;
        tree.link(&from, &to)
    }
    fn unlink(&self, _who: &Actor, name: &[u8], dir: bool) -> Result<(), Errno> {
        let victim = self.known(name);
        self.dir()?.unlink(Path::new(OsStr::from_bytes(name)), dir)?;
        if let Some(victim) = victim {
            let here = {
                let state = lock(&victim.state);
                state
                    .place
                    .as_ref()
                    .is_some_and(|(d, n)| std::ptr::eq(&raw const **d, self) && n == name)
            };
            if here {
                victim.moved(None);
            }
        }
        Ok(())
    }
    fn rename(
        &self,
        _who: &Actor,
        name: &[u8],
        to: &Arc<dyn Inode>,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let (me, to) = (self.me()?, self.peer(to)?);
        let (moving, replaced) = (self.known(name), to.known(to_name));
        let (tree, old, new) = self.two(name, &to, to_name)?;
        tree.rename(&old, &new, flags.bits())?;
        if let Some(replaced) = replaced {
            let exchange = flags.contains(RenameFlags::EXCHANGE);
            replaced.moved(exchange.then(|| (me, name.to_vec())));
        }
        if let Some(moving) = moving {
            moving.moved(Some((to, to_name.to_vec())));
        }
        Ok(())
    }
    fn read_link(&self, _who: &Actor) -> Result<Vec<u8>, Errno> {
        if self.kind() != mode::LNK {
            return Err(Errno::EINVAL);
        }
        let (dir, name) = self.entry()?;
        dir.read_link(&name)
    }
    fn read_dir(
        &self,
        _who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        if self.kind() != mode::DIR {
            return Err(Errno::ENOTDIR);
        }
        let fresh = if from == 0 { Some(self.dir()?.read_dir(Path::new(""))?) } else { None };
        let mut listing = lock(&self.listing);
        if let Some(fresh) = fresh {
            listing.refresh(&fresh);
        }
        for (next, name, ino, kind) in listing.after(from) {
            if !emit(DirEntry { name, ino, kind, next }) {
                break;
            }
        }
        Ok(())
    }
    fn open(self: Arc<Self>, who: &Actor, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        match self.kind() {
            mode::DIR => Ok(Arc::new(DirFile)),
            mode::REG => {
                let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
                let body = self.open_body(who.kernel.fresh_id(), writes)?;
                Ok(Arc::new(RegularFile::new(self, body)))
            }
            mode::LNK => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
