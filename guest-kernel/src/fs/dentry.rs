//! Names: the tree of directory entries of a file system, and paths in the mount tree.
//!
//! A dentry gives an inode its name and parent for as long as somebody uses it; the inode's
//! directory stays the truth. Bind mounts share dentries. Invariant: children point up strongly,
//! parents down weakly, so an unused branch frees itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    inode::{Actor, Attr, Inode},
    inotify,
    mount::Mount,
};
use crate::error::Errno;

/// Longest file name (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest path with its NUL (PATH_MAX).
pub const PATH_MAX: usize = 4096;

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
    deleted: bool,
}

/// A named inode.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    place: Mutex<Place>,
    children: Mutex<HashMap<Arc<[u8]>, Weak<Dentry>>>,
    /// Mounts that sit on this dentry, over all namespaces.
    pub(super) mounted: AtomicU32,
}

impl Dentry {
    /// The root of a file system, or a file that has no place in any (a memfd).
    #[must_use]
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::make(inode, None, Arc::from(&b"/"[..]))
    }
    fn make(inode: Arc<dyn Inode>, parent: Option<Arc<Dentry>>, name: Arc<[u8]>) -> Arc<Dentry> {
        Arc::new(Dentry {
            inode,
            place: Mutex::new(Place { parent, name, deleted: false }),
            children: Mutex::default(),
            mounted: AtomicU32::new(0),
        })
    }
    /// A file that has no name any more, or never had one (O_TMPFILE): shown as `name (deleted)`.
    #[must_use]
    pub fn nameless(parent: &Arc<Dentry>, inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Dentry> {
        let dentry = Dentry::make(inode, Some(parent.clone()), Arc::from(name));
        dentry.place().deleted = true;
        dentry
    }
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn children(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, Weak<Dentry>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The inode it names.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }
    /// The directory it lies in; `None` for a root.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place().parent.clone()
    }
    /// Its name in that directory.
    #[must_use]
    pub fn name(&self) -> Arc<[u8]> {
        self.place().name.clone()
    }
    /// The name was removed.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.place().deleted
    }
    /// Something is mounted on it.
    #[must_use]
    pub fn is_mountpoint(&self) -> bool {
        self.mounted.load(Ordering::Acquire) > 0
    }
    /// The entry `name`, looked up in the inode.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, or the host's errno.
    pub fn lookup(self: &Arc<Self>, who: &Actor, name: &[u8]) -> Result<Arc<Dentry>, Errno> {
        Ok(self.lookup_attr(who, name)?.0)
    }
    /// [`Dentry::lookup`], with the attributes where looking up has told them.
    ///
    /// # Errors
    /// As [`Dentry::lookup`].
    pub fn lookup_attr(
        self: &Arc<Self>,
        who: &Actor,
        name: &[u8],
    ) -> Result<(Arc<Dentry>, Option<Attr>), Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let (inode, attr) = self.inode.lookup_attr(who, name)?;
        Ok((self.child(name, inode), attr))
    }
    /// The dentry of `inode` under `name`: the one in use, or a new one.
    pub fn child(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let mut children = self.children();
        if let Some(known) = children.get(name).and_then(Weak::upgrade)
            && Arc::ptr_eq(&known.inode, &inode)
        {
            return known;
        }
        if children.len() >= 64 && children.len().is_power_of_two() {
            children.retain(|_, child| child.strong_count() > 0);
        }
        let name: Arc<[u8]> = Arc::from(name);
        let new = Dentry::make(inode, Some(self.clone()), name.clone());
        children.insert(name, Arc::downgrade(&new));
        new
    }
    /// Notes that `name` was removed here.
    pub fn forget(&self, name: &[u8]) {
        let child = self.children().remove(name).and_then(|c| c.upgrade());
        if let Some(child) = child {
            child.place().deleted = true;
        }
    }
    /// Notes that the entry `name` here became `to_name` in `to` (renameat2(2)).
    pub fn moved(self: &Arc<Self>, name: &[u8], to: &Arc<Dentry>, to_name: &[u8], exchange: bool) {
        let from_child = self.children().remove(name).and_then(|c| c.upgrade());
        let to_child = to.children().remove(to_name).and_then(|c| c.upgrade());
        let settle = |child: Option<Arc<Dentry>>, dir: &Arc<Dentry>, name: &[u8]| {
            let Some(child) = child else { return };
            let name: Arc<[u8]> = Arc::from(name);
            {
                let mut place = child.place();
                place.parent = Some(dir.clone());
                place.name = name.clone();
            }
            dir.children().insert(name, Arc::downgrade(&child));
        };
        settle(from_child, to, to_name);
        if exchange {
            settle(to_child, self, name);
        } else if let Some(gone) = to_child {
            gone.place().deleted = true;
        }
    }
    /// `self` is `other` or lies above it.
    #[must_use]
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = other.clone();
        loop {
            if Arc::ptr_eq(self, &at) {
                return true;
            }
            let Some(up) = at.parent() else { return false };
            at = up;
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        if self.is_deleted() {
            inotify::name_dropped(&self.inode);
        }
    }
}

/// A place in a mount tree.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The name in it.
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// The inode there.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }
    /// stat(2) of it.
    ///
    /// # Errors
    /// The host's errno for passed-through files.
    pub fn attr(&self) -> Result<Attr, Errno> {
        self.inode().attr()
    }
    /// The same mount and dentry.
    #[must_use]
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
    /// One step up, through mount points; `None` at the root of the mount tree.
    #[must_use]
    pub fn up(&self) -> Option<Path> {
        let mut at = self.clone();
        while Arc::ptr_eq(&at.dentry, at.mount.root()) {
            at = at.mount.mountpoint()?;
        }
        let dentry = at.dentry.parent()?;
        Some(Path { mount: at.mount, dentry })
    }
    /// The path's text as seen from `root` (d_path): absolute, with ` (deleted)` after a removed
    /// name. A place that `root` does not contain is told from the mount tree's root.
    #[must_use]
    pub fn text(&self, root: &Path) -> Vec<u8> {
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        loop {
            if at.same(root) {
                break;
            }
            if Arc::ptr_eq(&at.dentry, at.mount.root()) {
                match at.mount.mountpoint() {
                    Some(point) => at = point,
                    None => break,
                }
                continue;
            }
            names.push(at.dentry.name());
            let Some(parent) = at.dentry.parent() else { break };
            at.dentry = parent;
        }
        let mut out = Vec::new();
        for name in names.iter().rev() {
            if name.first() != Some(&b'/') {
                out.push(b'/');
            }
            out.extend_from_slice(name);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        if self.dentry.is_deleted() {
            out.extend_from_slice(b" (deleted)");
        }
        out
    }
}
