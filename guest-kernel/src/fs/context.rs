//! What a task's paths are relative to: mount tree, root, working directory, umask (CLONE_FS shares
//! it).

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use super::{dentry::Path, mount::Namespace, state::FsState};

struct Places {
    root: Path,
    cwd: Path,
}

/// A task's file-system context.
pub struct FsContext {
    namespace: Arc<Namespace>,
    places: Mutex<Places>,
    umask: AtomicU32,
}

impl FsContext {
    /// A context in `namespace`; umask 022.
    #[must_use]
    pub fn new(namespace: Arc<Namespace>, root: Path, cwd: Path) -> Arc<FsContext> {
        Arc::new(FsContext {
            namespace,
            places: Mutex::new(Places { root, cwd }),
            umask: AtomicU32::new(0o022),
        })
    }
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A copy that changes on its own (fork without CLONE_FS).
    #[must_use]
    pub fn duplicate(&self) -> Arc<FsContext> {
        let places = self.places();
        Arc::new(FsContext {
            namespace: self.namespace.clone(),
            places: Mutex::new(Places { root: places.root.clone(), cwd: places.cwd.clone() }),
            umask: AtomicU32::new(self.umask()),
        })
    }
    /// A copy in a mount tree of its own (CLONE_NEWNS).
    #[must_use]
    pub fn isolate(&self, state: &FsState) -> Arc<FsContext> {
        let (mut root, mut cwd) = (self.root(), self.cwd());
        let namespace = self.namespace.copy(state, &mut [&mut root, &mut cwd]);
        Arc::new(FsContext {
            namespace,
            places: Mutex::new(Places { root, cwd }),
            umask: AtomicU32::new(self.umask()),
        })
    }
    /// Whoever was at `old` is at `new` now (pivot_root(2)).
    pub fn pivot(&self, old: &Path, new: &Path) {
        let mut places = self.places();
        let Places { root, cwd } = &mut *places;
        let mut gone = Vec::new();
        for place in [root, cwd] {
            if place.same(old) {
                gone.push(std::mem::replace(place, new.clone()));
            }
        }
        drop(places);
        drop(gone);
    }
    /// The mount tree.
    #[must_use]
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }
    /// `/`.
    #[must_use]
    pub fn root(&self) -> Path {
        self.places().root.clone()
    }
    /// The working directory.
    #[must_use]
    pub fn cwd(&self) -> Path {
        self.places().cwd.clone()
    }
    /// chroot(2).
    pub fn set_root(&self, root: Path) {
        let old = std::mem::replace(&mut self.places().root, root);
        drop(old);
    }
    /// chdir(2).
    pub fn set_cwd(&self, cwd: Path) {
        let old = std::mem::replace(&mut self.places().cwd, cwd);
        drop(old);
    }
    /// File mode bits that creation removes.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }
    /// Sets the mask; the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
