//! Mounts and the tree they form (mount_namespaces(7)).

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

pub use super::flags::MountFlags;
use super::{
    dentry::{Dentry, Path},
    inode::FileSystem,
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
    /// Makes `new` the root and puts the old root on `put_old` (pivot_root(2)).
    ///
    /// # Errors
    /// EINVAL if `new` is not a mount of this tree.
    pub fn pivot(&self, new: &Arc<Mount>, put_old: Path) -> Result<(), Errno> {
        let mut mounts = self.mounts();
        let index = mounts.iter().position(|m| Arc::ptr_eq(m, new)).ok_or(Errno::EINVAL)?;
        if index == 0 {
            return Err(Errno::EBUSY);
        }
        let old = mounts[0].clone();
        let top = mounts.remove(index);
        mounts.insert(0, top);
        if let Some(on) = new.set_mountpoint(None) {
            on.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        }
        put_old.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        old.set_mountpoint(Some(put_old));
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
    /// `mount` is part of this tree.
    #[must_use]
    pub fn holds(&self, mount: &Arc<Mount>) -> bool {
        self.mounts().iter().any(|m| Arc::ptr_eq(m, mount))
    }
}
