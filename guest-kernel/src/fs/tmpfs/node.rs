//! An inode of a tmpfs or overlay.
//!
//! Locks: a directory's entries, then an inode's metadata. Two directories are locked together only
//! under the file system's rename lock.

use std::{
    any::Any,
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{
    TmpFs,
    dir::{Entries, Entry, Look},
    file::{RegularFile, seal},
};
use crate::{
    error::Errno,
    fs::{
        body::{Body, Lower, Use},
        dirfile::DirFile,
        file::FileOps,
        flags::OpenFlags,
        inode::{
            Actor, Attr, Common, DirEntry, FileSystem, Inode, NewNode, RenameFlags, SetAttr, mode,
        },
    },
    host::HostStat,
    num::Word,
};

#[derive(Clone, Copy)]
struct Meta {
    mode: u32,
    nlink: u64,
    uid: u32,
    gid: u32,
    atime: Duration,
    mtime: Duration,
    ctime: Duration,
    btime: Duration,
}

enum Content {
    Dir(Mutex<Entries>),
    File { body: Arc<Body> },
    Link { text: OnceLock<Vec<u8>> },
    Special { rdev: u64 },
}

/// A file of any type.
pub struct Node {
    fs: Arc<TmpFs>,
    common: Common,
    dev: u64,
    ino: u64,
    /// It was made here, and counts against the inode limit.
    owned: bool,
    /// Where it lies on the host, its size and blocks there.
    lower: Option<PathBuf>,
    lower_len: u64,
    lower_blocks: u64,
    content: Content,
    meta: Mutex<Meta>,
    xattrs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// Most bytes of extended attributes a file may have, names and values (tmpfs has a like limit).
const XATTR_SPACE: usize = 64 << 10;

impl Node {
    pub(super) fn fresh(fs: &Arc<TmpFs>, id: u64, new: &NewNode) -> Arc<Node> {
        let now = fs.now();
        let content = match new.mode & mode::FMT {
            mode::DIR => Content::Dir(Mutex::default()),
            mode::REG => Content::File { body: Body::new(id, &fs.pool) },
            mode::LNK => Content::Link { text: OnceLock::from(new.target.clone()) },
            _ => Content::Special { rdev: new.rdev },
        };
        let dir = matches!(content, Content::Dir(_));
        Arc::new(Node {
            fs: fs.clone(),
            common: Common::default(),
            dev: fs.dev,
            ino: fs.ino(),
            owned: true,
            lower: None,
            lower_len: 0,
            lower_blocks: 0,
            content,
            meta: Mutex::new(Meta {
                mode: new.mode,
                nlink: if dir { 2 } else { 1 },
                uid: new.uid,
                gid: new.gid,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
            }),
            xattrs: Mutex::default(),
        })
    }
    pub(super) fn lower(fs: &Arc<TmpFs>, id: u64, path: PathBuf, stat: &HostStat) -> Arc<Node> {
        let content = match (stat.mode & mode::FMT, &fs.tree) {
            (mode::DIR, _) => Content::Dir(Mutex::new(Entries::over(path.clone()))),
            (mode::REG, Some(tree)) => {
                let lower = Lower::new(tree.clone(), path.clone(), false);
                let body = Body::over(id, &fs.pool, lower, stat.size);
                Content::File { body }
            }
            (mode::LNK, _) => Content::Link { text: OnceLock::new() },
            _ => Content::Special { rdev: stat.rdev },
        };
        // When somebody last read it on the host is no business of a VM that runs again and again alike.
        let steady = fs.host.virtual_time().is_some();
        Arc::new(Node {
            fs: fs.clone(),
            common: Common::default(),
            dev: fs.dev_of(stat.dev),
            ino: stat.ino,
            owned: false,
            lower: Some(path),
            lower_len: stat.size,
            lower_blocks: stat.blocks,
            content,
            meta: Mutex::new(Meta {
                mode: stat.mode,
                nlink: stat.nlink,
                uid: stat.uid,
                gid: stat.gid,
                atime: if steady { stat.mtime } else { stat.atime },
                mtime: stat.mtime,
                ctime: stat.ctime,
                btime: stat.ctime,
            }),
            xattrs: Mutex::default(),
        })
    }
    fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn xattrs(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.xattrs.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn entries(&self) -> Result<MutexGuard<'_, Entries>, Errno> {
        match &self.content {
            Content::Dir(entries) => Ok(entries.lock().unwrap_or_else(PoisonError::into_inner)),
            _ => Err(Errno::ENOTDIR),
        }
    }
    /// The entries with the host's listing read, for a change.
    fn entries_for_change(&self) -> Result<MutexGuard<'_, Entries>, Errno> {
        let mut entries = self.entries()?;
        entries.list_lower(self.fs.tree.as_ref())?;
        Ok(entries)
    }
    fn is_dir(&self) -> bool {
        matches!(self.content, Content::Dir(_))
    }
    /// Opens a regular file as a program.
    ///
    /// # Errors
    /// EACCES if it is none; the host's errno.
    pub fn open_program(self: Arc<Self>, who: &Actor) -> Result<Arc<dyn FileOps>, Errno> {
        let body = self.body().ok_or(Errno::EACCES)?.clone();
        who.kernel.fs.handles.open(&body)?;
        Ok(Arc::new(RegularFile::new(self, body, Some(Use::Executes))))
    }
    /// The contents of a regular file.
    #[must_use]
    pub fn body(&self) -> Option<&Arc<Body>> {
        match &self.content {
            Content::File { body, .. } => Some(body),
            _ => None,
        }
    }
    /// Notes an access (relatime: only if the last one is older than the last change, or a day).
    pub(super) fn accessed(&self) {
        let now = self.fs.now();
        let mut meta = self.meta();
        let stale = now.saturating_sub(meta.atime) > Duration::from_secs(86400);
        if meta.atime <= meta.mtime || meta.atime <= meta.ctime || stale {
            meta.atime = now;
        }
    }
    /// Notes a change of contents.
    pub(super) fn modified(&self) {
        let now = self.fs.now();
        let mut meta = self.meta();
        meta.mtime = now;
        meta.ctime = now;
    }
    fn add_links(&self, by: i64) {
        let now = self.fs.now();
        let mut meta = self.meta();
        meta.nlink = meta.nlink.saturating_add_signed(by);
        meta.ctime = now;
    }
    /// Turns an entry into its node, asking the host about it.
    fn resolve(
        &self,
        who: &Actor,
        entries: &mut Entries,
        name: &[u8],
        entry: &Entry,
    ) -> Result<Arc<Node>, Errno> {
        if let Entry::Node(node) = entry {
            return Ok(node.clone());
        }
        let node = self.adopt_lower(who, name)?;
        entries.insert(name, Entry::Node(node.clone()));
        Ok(node)
    }
    fn adopt_lower(&self, who: &Actor, name: &[u8]) -> Result<Arc<Node>, Errno> {
        use std::os::unix::ffi::OsStrExt;
        let tree = self.fs.tree.as_ref().ok_or(Errno::ENOENT)?;
        let path =
            self.lower.as_ref().ok_or(Errno::ENOENT)?.join(std::ffi::OsStr::from_bytes(name));
        let stat = tree.stat(&path)?;
        Ok(self.fs.lower_node(who.kernel.fresh_id(), path, &stat))
    }
    fn find(&self, who: &Actor, entries: &mut Entries, name: &[u8]) -> Result<Arc<Node>, Errno> {
        match entries.look(name) {
            Look::Found(entry) => self.resolve(who, entries, name, &entry),
            Look::Absent => Err(Errno::ENOENT),
            Look::AskHost => match self.adopt_lower(who, name) {
                Ok(node) => {
                    entries.insert(name, Entry::Node(node.clone()));
                    Ok(node)
                }
                Err(Errno::ENOENT) => {
                    if entries.missed() {
                        // Only a cheaper way to say ENOENT: a refusal changes nothing.
                        let _ = entries.list_lower(self.fs.tree.as_ref());
                    }
                    Err(Errno::ENOENT)
                }
                Err(errno) => Err(errno),
            },
        }
    }
    fn absent(entries: &Entries, name: &[u8]) -> Result<(), Errno> {
        if entries.dead {
            return Err(Errno::ENOENT);
        }
        match entries.look(name) {
            Look::Absent => Ok(()),
            _ => Err(Errno::EEXIST),
        }
    }
    /// A directory that may be removed or replaced is marked so that nothing is made in it.
    fn kill(&self) -> Result<(), Errno> {
        let mut entries = self.entries_for_change()?;
        if !entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        entries.dead = true;
        Ok(())
    }
    /// The victim's last name in a directory went.
    fn dropped(&self) {
        if self.is_dir() {
            let mut meta = self.meta();
            meta.nlink = 0;
            meta.ctime = self.fs.now();
        } else {
            self.add_links(-1);
        }
    }
    fn rename_into(
        &self,
        who: &Actor,
        name: &[u8],
        to: &Node,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let same = std::ptr::eq(self, to);
        let mut from_entries = self.entries_for_change()?;
        let mut to_guard = if same { None } else { Some(to.entries_for_change()?) };
        let moving = self.find(who, &mut from_entries, name)?;
        let target = {
            let entries = to_guard.as_deref_mut().unwrap_or(&mut from_entries);
            if entries.dead {
                return Err(Errno::ENOENT);
            }
            match to.find(who, entries, to_name) {
                Ok(node) => Some(node),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(errno),
            }
        };
        if let Some(target) = &target {
            if flags.contains(RenameFlags::NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            if Arc::ptr_eq(target, &moving) {
                return Ok(());
            }
        }
        let whiteout = if flags.contains(RenameFlags::WHITEOUT) {
            let (uid, gid) = (who.creds.fsuid, who.creds.fsgid);
            let new = NewNode { mode: mode::CHR, uid, gid, rdev: 0, target: Vec::new() };
            Some(self.make(who, &new)?)
        } else {
            None
        };
        let now = self.fs.now();
        if flags.contains(RenameFlags::EXCHANGE) {
            let target = target.ok_or(Errno::ENOENT)?;
            let dirs = i64::from(moving.is_dir()) - i64::from(target.is_dir());
            moving.meta().ctime = now;
            target.meta().ctime = now;
            from_entries.insert(name, Entry::Node(target));
            to_guard
                .as_deref_mut()
                .unwrap_or(&mut from_entries)
                .insert(to_name, Entry::Node(moving));
            if !same {
                self.add_links(-dirs);
                to.add_links(dirs);
            }
        } else {
            if let Some(target) = &target {
                match (moving.is_dir(), target.is_dir()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) => target.kill()?,
                    (false, false) => {}
                }
                target.dropped();
            }
            from_entries.remove(name);
            if let Some(whiteout) = whiteout {
                from_entries.insert(name, Entry::Node(whiteout));
            }
            let entries = to_guard.as_deref_mut().unwrap_or(&mut from_entries);
            entries.insert(to_name, Entry::Node(moving.clone()));
            moving.meta().ctime = now;
            if moving.is_dir() {
                self.add_links(-1);
                if !target.as_ref().is_some_and(|t| t.is_dir()) {
                    to.add_links(1);
                }
            }
        }
        self.modified();
        to.modified();
        Ok(())
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
        let meta = *self.meta();
        let (size, blocks, rdev) = match &self.content {
            Content::File { body } => (body.size(), body.blocks(self.lower_blocks), 0),
            Content::Dir(entries) if self.owned => {
                let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
                (40 + entries.len() as u64 * 20, 0, 0)
            }
            // What is made or removed here does not change what the host said.
            Content::Dir(_) => (self.lower_len, self.lower_blocks, 0),
            Content::Link { text } => {
                let len = text.get().map_or(self.lower_len, |t| t.len() as u64);
                (len, self.lower_blocks, 0)
            }
            Content::Special { rdev } => (0, 0, *rdev),
        };
        Ok(Attr {
            dev: self.dev,
            ino: self.ino,
            mode: meta.mode,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            size,
            blocks,
            blksize: 4096,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: meta.btime,
        })
    }
    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        let now = self.fs.now();
        if let Some(size) = change.size {
            let body = self.body().ok_or(Errno::EINVAL)?;
            body.set_size(size)?;
        }
        let mut meta = self.meta();
        if let Some(bits) = change.mode {
            let sealed = self.body().is_some_and(|body| body.seals() & seal::EXEC != 0);
            if sealed && (meta.mode ^ bits) & 0o111 != 0 {
                return Err(Errno::EPERM);
            }
            meta.mode = (meta.mode & mode::FMT) | (bits & mode::PERM);
        }
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        if change.size.is_some() {
            meta.mtime = now;
        }
        meta.atime = change.atime.unwrap_or(meta.atime);
        meta.mtime = change.mtime.unwrap_or(meta.mtime);
        meta.ctime = now;
        Ok(())
    }
    fn lookup(&self, who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let mut entries = self.entries()?;
        let node = self.find(who, &mut entries, name)?;
        Ok(node)
    }
    fn create(&self, who: &Actor, name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let mut entries = self.entries_for_change()?;
        Self::absent(&entries, name)?;
        let node = self.make(who, new)?;
        entries.insert(name, Entry::Node(node.clone()));
        drop(entries);
        if node.is_dir() {
            self.add_links(1);
        }
        self.modified();
        Ok(node)
    }
    fn tmpfile(&self, who: &Actor, new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        if self.entries()?.dead {
            return Err(Errno::ENOENT);
        }
        let node = self.make(who, new)?;
        node.meta().nlink = 0;
        Ok(node)
    }
    fn link(&self, _who: &Actor, name: &[u8], target: &Arc<dyn Inode>) -> Result<(), Errno> {
        let target: Arc<dyn Any + Send + Sync> = target.clone();
        let target = target.downcast::<Node>().map_err(|_| Errno::EXDEV)?;
        if !Arc::ptr_eq(&target.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        let mut entries = self.entries_for_change()?;
        Self::absent(&entries, name)?;
        target.add_links(1);
        entries.insert(name, Entry::Node(target));
        drop(entries);
        self.modified();
        Ok(())
    }
    fn unlink(&self, who: &Actor, name: &[u8], dir: bool) -> Result<(), Errno> {
        // Two directories' entries are locked together: see the module's lock order.
        let _one_at_a_time =
            dir.then(|| self.fs.renames.lock().unwrap_or_else(PoisonError::into_inner));
        let mut entries = self.entries_for_change()?;
        let victim = self.find(who, &mut entries, name)?;
        match (dir, victim.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) => victim.kill()?,
            (false, false) => {}
        }
        entries.remove(name);
        drop(entries);
        victim.dropped();
        if dir {
            self.add_links(-1);
        }
        self.modified();
        Ok(())
    }
    fn rename(
        &self,
        who: &Actor,
        name: &[u8],
        to: &Arc<dyn Inode>,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let to = to.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&to.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        let _one_at_a_time = self.fs.renames.lock().unwrap_or_else(PoisonError::into_inner);
        self.rename_into(who, name, to, to_name, flags)
    }
    fn read_link(&self, _who: &Actor) -> Result<Vec<u8>, Errno> {
        let Content::Link { text } = &self.content else { return Err(Errno::EINVAL) };
        if let Some(text) = text.get() {
            return Ok(text.clone());
        }
        let tree = self.fs.tree.as_ref().ok_or(Errno::ENOENT)?;
        let read = tree.read_link(self.lower.as_ref().ok_or(Errno::ENOENT)?)?;
        Ok(text.get_or_init(|| read).clone())
    }
    fn read_dir(
        &self,
        _who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        let mut entries = self.entries()?;
        entries.list_lower(self.fs.tree.as_ref())?;
        for (next, name, entry) in entries.after(from) {
            let (ino, kind) = match entry {
                Entry::Lower(ino, kind) => (*ino, *kind),
                Entry::Node(node) => (node.ino, (node.meta().mode >> 12).low_u8()),
            };
            if !emit(DirEntry { name, ino, kind, next }) {
                break;
            }
        }
        drop(entries);
        self.accessed();
        Ok(())
    }
    fn open(self: Arc<Self>, who: &Actor, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        match &self.content {
            Content::Dir(_) => Ok(Arc::new(DirFile)),
            Content::File { body } => {
                who.kernel.fs.handles.open(body)?;
                let body = body.clone();
                let writes = flags.intersects(OpenFlags::WRONLY | OpenFlags::RDWR);
                Ok(Arc::new(RegularFile::new(self, body, writes.then_some(Use::Writes))))
            }
            Content::Link { .. } => Err(Errno::ELOOP),
            Content::Special { .. } => Err(Errno::ENXIO),
        }
    }
    fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattrs().get(name).cloned().ok_or(Errno::ENODATA)
    }
    fn xattr_set(&self, name: &[u8], value: Option<&[u8]>, flags: u32) -> Result<(), Errno> {
        const CREATE: u32 = 1;
        const REPLACE: u32 = 2;
        let mut xattrs = self.xattrs();
        let there = xattrs.contains_key(name);
        let Some(value) = value else {
            return xattrs.remove(name).map(|_| ()).ok_or(Errno::ENODATA);
        };
        if there && flags & CREATE != 0 {
            return Err(Errno::EEXIST);
        }
        if !there && flags & REPLACE != 0 {
            return Err(Errno::ENODATA);
        }
        let others = |(n, v): (&Vec<u8>, &Vec<u8>)| {
            if n == name { 0 } else { n.len() + v.len() }
        };
        if xattrs.iter().map(others).sum::<usize>() + name.len() + value.len() > XATTR_SPACE {
            return Err(Errno::ENOSPC);
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        drop(xattrs);
        self.meta().ctime = self.fs.now();
        Ok(())
    }
    fn xattr_list(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.xattrs().keys().cloned().collect())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Node {
    fn make(&self, who: &Actor, new: &NewNode) -> Result<Arc<Node>, Errno> {
        self.fs.charge_inode()?;
        let node = Node::fresh(&self.fs, who.kernel.fresh_id(), new);
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.owned {
            self.fs.inodes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
