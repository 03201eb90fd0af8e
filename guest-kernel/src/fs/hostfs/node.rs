//! An inode of a passed-through tree.

use std::{
    any::Any,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{HostFs, file::RegularFile, listing::Listing};
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
    host::HostStat,
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
    common: Common,
    state: Mutex<State>,
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
        Arc::new(Node {
            fs: fs.clone(),
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
    fn moved(&self, place: Option<Place>) {
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
                let lower = Lower::new(self.fs.tree.clone(), path, true);
                let size = lower.handle()?.stat()?.size;
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
        let path = self.path();
        let mut state = lock(&self.state);
        let told = match path {
            Ok(path) => self.fs.tree.stat(&path),
            Err(errno) => Err(errno),
        };
        match told {
            // Another file lies there: ours has gone, behind our back.
            Ok(stat) if (stat.dev, stat.ino) != (state.stat.dev, state.stat.ino) => {}
            Ok(stat) => state.stat = stat,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EXDEV | Errno::ELOOP) => {}
            Err(errno) => return Err(errno),
        }
        let mut stat = state.stat;
        if state.gone {
            stat.nlink = if stat.mode & mode::FMT == mode::DIR { 0 } else { stat.nlink };
        }
        Ok(stat)
    }
    fn child(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Node>, Errno> {
        let stat = self.fs.tree.stat(&self.below(name)?)?;
        Ok(self.fs.node(Some((self.clone(), name.to_vec())), &stat))
    }
    /// This very node's `Arc`.
    fn me(&self) -> Result<Arc<Node>, Errno> {
        let key = {
            let state = lock(&self.state);
            (state.stat.dev, state.stat.ino)
        };
        let nodes = lock(&self.fs.nodes);
        let me = nodes.get(&key).and_then(Weak::upgrade);
        me.filter(|me| std::ptr::eq(&raw const **me, self)).ok_or(Errno::ESTALE)
    }
    fn peer(&self, other: &Arc<dyn Inode>) -> Result<Arc<Node>, Errno> {
        let other: Arc<dyn Any + Send + Sync> = other.clone();
        let other = other.downcast::<Node>().map_err(|_| Errno::EXDEV)?;
        if Arc::ptr_eq(&other.fs, &self.fs) { Ok(other) } else { Err(Errno::EXDEV) }
    }
    fn known(&self, name: &[u8]) -> Option<Arc<Node>> {
        let stat = self.fs.tree.stat(&self.below(name).ok()?).ok()?;
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
        let stat = self.stat()?;
        Ok(Attr {
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
        })
    }
    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        if let Some(size) = change.size {
            match self.body() {
                Some(body) => body.set_size(size)?,
                None => self.fs.tree.open(&self.path()?, true)?.set_len(size)?,
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
            self.fs.tree.set_attr(&self.path()?, change.mode, owner, times)?;
        }
        Ok(())
    }
    fn lookup(&self, _who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        if self.kind() != mode::DIR {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.me()?.child(name)?)
    }
    fn create(&self, who: &Actor, name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let (path, tree) = (self.below(name)?, &self.fs.tree);
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
        let node = self.me()?.child(name)?;
        if let Some(file) = opened {
            let lower = Lower::created(tree.clone(), path, file);
            let body = Body::through(who.kernel.fresh_id(), &self.fs.pool, lower, 0);
            *lock(&node.body) = Arc::downgrade(&body);
            *lock(&node.fresh) = Some(body);
        }
        Ok(node)
    }
    fn link(&self, _who: &Actor, name: &[u8], target: &Arc<dyn Inode>) -> Result<(), Errno> {
        self.fs.tree.link(&self.peer(target)?.path()?, &self.below(name)?)
    }
    fn unlink(&self, _who: &Actor, name: &[u8], dir: bool) -> Result<(), Errno> {
        let path = self.below(name)?;
        let victim = self.known(name);
        self.fs.tree.unlink(&path, dir)?;
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
        self.fs.tree.rename(&self.below(name)?, &to.below(to_name)?, flags.bits())?;
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
        self.fs.tree.read_link(&self.path()?)
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
        let fresh = if from == 0 { Some(self.fs.tree.read_dir(&self.path()?)?) } else { None };
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
