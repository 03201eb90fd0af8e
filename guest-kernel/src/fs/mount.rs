//! Mounts and the tree they form (mount_namespaces(7)).

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

pub use super::flags::MountFlags;
use super::{
    dentry::{Dentry, Path},
    inode::FileSystem,
    state::FsState,
};
use crate::error::Errno;

/// One mounted file system, or a part of it (bind).
pub struct Mount {
    /// mnt_id of /proc/PID/mountinfo.
    pub id: u64,
    /// What /proc/mounts prints as the source.
    pub source: String,
    root: Arc<Dentry>,
    fs: Arc<dyn FileSystem>,
    flags: AtomicU32,
    on: Mutex<Option<Path>>,
}

impl Mount {
    /// A mount of the tree at `root`, not yet attached.
    #[must_use]
    pub fn new(id: u64, source: &str, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        Arc::new(Mount {
            id,
            source: source.to_owned(),
            fs: root.inode().fs(),
            root,
            flags: AtomicU32::new(flags.bits()),
            on: Mutex::new(None),
        })
    }
    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }
    /// Its file system.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }
    /// Its flags.
    #[must_use]
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Changes its flags (MS_REMOUNT).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }
    /// Where it is mounted; `None` for the root of the tree and after umount.
    #[must_use]
    pub fn mountpoint(&self) -> Option<Path> {
        self.on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Its root as a path.
    #[must_use]
    pub fn top(self: &Arc<Self>) -> Path {
        Path { mount: self.clone(), dentry: self.root.clone() }
    }
    /// EROFS if nothing may be written through this mount.
    ///
    /// # Errors
    /// EROFS.
    pub fn writable(&self) -> Result<(), Errno> {
        if self.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }
    fn set_mountpoint(&self, on: Option<Path>) -> Option<Path> {
        std::mem::replace(&mut *self.on.lock().unwrap_or_else(PoisonError::into_inner), on)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for mount in self.mounts().iter() {
            if let Some(on) = mount.set_mountpoint(None) {
                on.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// Most mounts of a tree (`fs.mount-max`).
pub const MAX_MOUNTS: usize = 10_000;

/// A mount tree.
pub struct Namespace {
    id: u64,
    mounts: Mutex<Vec<Arc<Mount>>>,
}

impl Namespace {
    /// A tree of one mount.
    #[must_use]
    pub fn new(root: Arc<Mount>) -> Arc<Namespace> {
        Arc::new(Namespace { id: 0, mounts: Mutex::new(vec![root]) })
    }
    /// A number no other mount tree of the VM has; 0 for the first.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
    fn mounts(&self) -> MutexGuard<'_, Vec<Arc<Mount>>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// All mounts, parents before children.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Mount>> {
        self.mounts().clone()
    }
    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Option<Path> {
        self.mounts().first().map(Mount::top)
    }
    /// Mounts `mount` on `at`.
    pub fn attach(&self, mount: Arc<Mount>, at: Path) {
        at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        mount.set_mountpoint(Some(at));
        self.mounts().push(mount);
    }
    /// There is room for `more` mounts.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn admit(&self, more: usize) -> Result<(), Errno> {
        if self.mounts().len() + more > MAX_MOUNTS { Err(Errno::ENOSPC) } else { Ok(()) }
    }
    /// The mounts below `path`, parents before children: what a recursive bind takes along.
    #[must_use]
    pub fn below(&self, path: &Path) -> Vec<Arc<Mount>> {
        let mut found: Vec<Arc<Mount>> = Vec::new();
        let mut again = true;
        let all = self.list();
        // The list has parents first except after a pivot, so look until nothing is added.
        while std::mem::take(&mut again) {
            for mount in &all {
                let Some(on) = mount.mountpoint() else { continue };
                let inside = Arc::ptr_eq(&on.mount, &path.mount)
                    && path.dentry.is_ancestor_of(&on.dentry)
                    || found.iter().any(|m| Arc::ptr_eq(m, &on.mount));
                if inside && !found.iter().any(|m| Arc::ptr_eq(m, mount)) {
                    found.push(mount.clone());
                    again = true;
                }
            }
        }
        found
    }
    /// Moves `mount` to `at` (MS_MOVE).
    ///
    /// # Errors
    /// EINVAL if it is not a mount of this tree or its root; ELOOP if `at` lies in it.
    pub fn move_to(&self, mount: &Arc<Mount>, at: Path) -> Result<(), Errno> {
        let mut mounts = self.mounts();
        let index = mounts.iter().position(|m| Arc::ptr_eq(m, mount)).ok_or(Errno::EINVAL)?;
        if index == 0 {
            return Err(Errno::EINVAL);
        }
        let mut above = Some(at.mount.clone());
        while let Some(here) = above {
            if Arc::ptr_eq(&here, mount) {
                return Err(Errno::ELOOP);
            }
            above = here.mountpoint().map(|on| on.mount);
        }
        at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        if let Some(old) = mount.set_mountpoint(Some(at)) {
            old.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        }
        // The last mount on a place is the one that is seen.
        let moved = mounts.remove(index);
        mounts.push(moved);
        Ok(())
    }
    /// A tree of its own with the same mounts (CLONE_NEWNS), and `places` in it.
    #[must_use]
    pub fn copy(&self, fs: &FsState, places: &mut [&mut Path]) -> Arc<Namespace> {
        let old = self.list();
        let new: Vec<Arc<Mount>> = old
            .iter()
            .map(|m| Mount::new(fs.new_mount(), &m.source, m.root.clone(), m.flags()))
            .collect();
        let twin = |mount: &Arc<Mount>| {
            old.iter().position(|m| Arc::ptr_eq(m, mount)).map(|index| new[index].clone())
        };
        for (from, to) in old.iter().zip(&new) {
            let Some(on) = from.mountpoint() else { continue };
            if let Some(mount) = twin(&on.mount) {
                on.dentry.mounted.fetch_add(1, Ordering::AcqRel);
                to.set_mountpoint(Some(Path { mount, dentry: on.dentry }));
            }
        }
        for place in places {
            if let Some(mount) = twin(&place.mount) {
                place.mount = mount;
            }
        }
        Arc::new(Namespace { id: fs.new_namespace(), mounts: Mutex::new(new) })
    }
    /// Takes `mount` out of the tree.
    ///
    /// # Errors
    /// EBUSY if something is mounted below it or it is the root; EINVAL if it is not mounted.
    pub fn detach(&self, mount: &Arc<Mount>, lazy: bool) -> Result<(), Errno> {
        let mut mounts = self.mounts();
        let index = mounts.iter().position(|m| Arc::ptr_eq(m, mount)).ok_or(Errno::EINVAL)?;
        let below = |m: &Arc<Mount>| m.mountpoint().is_some_and(|p| Arc::ptr_eq(&p.mount, mount));
        if index == 0 || (!lazy && mounts.iter().any(below)) {
            return Err(Errno::EBUSY);
        }
        let mut gone = vec![mounts.remove(index)];
        let mut next = 0;
        while next < gone.len() {
            let top = gone[next].clone();
            let (under, kept): (Vec<_>, Vec<_>) = mounts
                .drain(..)
                .partition(|m| m.mountpoint().is_some_and(|p| Arc::ptr_eq(&p.mount, &top)));
            *mounts = kept;
            gone.extend(under);
            next += 1;
        }
        for mount in &gone {
            if let Some(on) = mount.set_mountpoint(None) {
                on.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }
    /// Puts `new` where `root` was, and `root` on `put_old` (pivot_root(2)).
    ///
    /// # Errors
    /// EINVAL if one of them is not a mount of this tree, or `new` is its root.
    pub fn pivot(&self, root: &Arc<Mount>, new: &Arc<Mount>, put_old: Path) -> Result<(), Errno> {
        let mut mounts = self.mounts();
        let place = |m: &Arc<Mount>| mounts.iter().position(|other| Arc::ptr_eq(other, m));
        let (from, index) = (place(root).ok_or(Errno::EINVAL)?, place(new).ok_or(Errno::EINVAL)?);
        if index == 0 {
            return Err(Errno::EINVAL);
        }
        if from == 0 {
            let top = mounts.remove(index);
            mounts.insert(0, top);
        }
        put_old.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        let below = root.set_mountpoint(Some(put_old));
        // The place below goes from one to the other and stays a mount point.
        if let Some(on) = new.set_mountpoint(below) {
            on.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }
    /// What is seen at `path`: the topmost mount there, or `path` itself.
    #[must_use]
    pub fn cover(&self, mut path: Path) -> Path {
        while path.dentry.is_mountpoint() {
            let mounts = self.mounts();
            let here = |m: &&Arc<Mount>| m.mountpoint().is_some_and(|p| p.same(&path));
            let Some(top) = mounts.iter().rev().find(here).map(Mount::top) else { break };
            drop(mounts);
            path = top;
        }
        path
    }
    /// Something is mounted on `dentry` in this tree. What other trees have there keeps nobody from
    /// removing or renaming it (`is_local_mountpoint()` in Linux).
    #[must_use]
    pub fn mounts_on(&self, dentry: &Arc<Dentry>) -> bool {
        let on = |m: &Arc<Mount>| m.mountpoint().is_some_and(|p| Arc::ptr_eq(&p.dentry, dentry));
        dentry.is_mountpoint() && self.mounts().iter().any(on)
    }
    /// `mount` is part of this tree.
    #[must_use]
    pub fn holds(&self, mount: &Arc<Mount>) -> bool {
        self.mounts().iter().any(|m| Arc::ptr_eq(m, mount))
    }
}
