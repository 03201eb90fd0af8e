//! The kernel's own file system: files in memory, over a host directory tree or over nothing.
//!
//! Over nothing it is tmpfs. Over a host tree it is the overlay that `--root` gets: a directory
//! learns its entries from the host as they are asked for, and keeps every change to itself, so that
//! nothing written reaches the host. A node keeps its own host path, so renaming a directory that
//! came from the host only moves the node.
//!
//! `node` is the inode, `dir` a directory's entries, `file` an open regular file.

mod dir;
pub mod file;
mod node;

use std::{
    any::Any,
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use node::Node;

use super::{
    body::Pool,
    dentry::Dentry,
    inode::{FileSystem, Inode, NewNode, StatFs, mode},
};
use crate::{
    error::Errno,
    host::{Host, HostStat, HostTree},
    kernel::Kernel,
    mm::store::Quota,
    platform::PAGE_SIZE,
};

/// Inode numbers of files made here start above those a host file system is likely to use.
const FIRST_INO: u64 = 1 << 40;

/// Linux's TMPFS_MAGIC and OVERLAYFS_SUPER_MAGIC.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// One tmpfs or overlay.
pub struct TmpFs {
    name: &'static str,
    dev: u64,
    pool: Pool,
    quota: Arc<Quota>,
    kernel: Weak<Kernel>,
    host: Arc<dyn Host>,
    tree: Option<Arc<dyn HostTree>>,
    next_ino: AtomicU64,
    inodes: AtomicU64,
    max_inodes: u64,
    /// Guest device numbers by host device number.
    devs: Mutex<HashMap<u64, u64>>,
    /// Nodes of host files with several names.
    linked: Mutex<HashMap<(u64, u64), Weak<Node>>>,
    /// Held by a rename between directories, so that only one at a time locks two.
    renames: Mutex<()>,
}

impl TmpFs {
    /// An empty file system of at most `size` bytes, its root a directory with `mode`.
    #[must_use]
    pub fn create(kernel: &Arc<Kernel>, name: &'static str, size: u64, perm: u32) -> Arc<Dentry> {
        let fs = TmpFs::make(kernel, name, size, None);
        let new = NewNode {
            mode: mode::DIR | (perm & mode::PERM),
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
        };
        Dentry::root(Node::fresh(&fs, kernel.fresh_id(), &new))
    }
    /// The overlay over `tree`; what is written takes at most `size` bytes.
    ///
    /// # Errors
    /// The host's errno if the tree's root cannot be read.
    pub fn overlay(
        kernel: &Arc<Kernel>,
        tree: Arc<dyn HostTree>,
        size: u64,
    ) -> Result<Arc<Dentry>, Errno> {
        let stat = tree.stat(std::path::Path::new("."))?;
        let fs = TmpFs::make(kernel, "overlay", size, Some(tree));
        let root = Node::lower(&fs, kernel.fresh_id(), PathBuf::new(), &stat);
        Ok(Dentry::root(root))
    }
    fn make(
        kernel: &Arc<Kernel>,
        name: &'static str,
        size: u64,
        tree: Option<Arc<dyn HostTree>>,
    ) -> Arc<TmpFs> {
        let quota = Quota::new(size.div_ceil(PAGE_SIZE));
        Arc::new(TmpFs {
            name,
            dev: kernel.fs.new_dev(),
            pool: Pool {
                frames: kernel.frames.clone(),
                quota: Some(quota.clone()),
                caches: Some(kernel.fs.caches.clone()),
            },
            quota,
            kernel: Arc::downgrade(kernel),
            host: kernel.host.clone(),
            next_ino: AtomicU64::new(if tree.is_some() { FIRST_INO } else { 1 }),
            tree,
            inodes: AtomicU64::new(0),
            // A node costs the monitor well under 1 KiB; tmpfs(5) allows one inode for every two
            // pages of memory.
            max_inodes: (kernel.config.memory / PAGE_SIZE / 2).max(1024),
            devs: Mutex::default(),
            linked: Mutex::default(),
            renames: Mutex::new(()),
        })
    }
    /// Bytes that may be stored.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.quota.limit() * PAGE_SIZE
    }
    /// Pages that hold data.
    #[must_use]
    pub fn used_pages(&self) -> u64 {
        self.quota.used()
    }
    /// Changes the size (remount).
    pub fn set_size(&self, size: u64) {
        self.quota.set_limit(size.div_ceil(PAGE_SIZE));
    }
    fn now(&self) -> Duration {
        self.host.realtime()
    }
    fn ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }
    /// Counts one more inode.
    fn charge_inode(&self) -> Result<(), Errno> {
        if self.inodes.fetch_add(1, Ordering::Relaxed) >= self.max_inodes {
            self.inodes.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }
    /// The guest's device number for a host device: the root's own device is the file system's.
    fn dev_of(&self, host_dev: u64) -> u64 {
        let mut devs = self.devs.lock().unwrap_or_else(PoisonError::into_inner);
        let first = devs.is_empty();
        *devs.entry(host_dev).or_insert_with(|| match self.kernel.upgrade() {
            Some(kernel) if !first => kernel.fs.new_dev(),
            _ => self.dev,
        })
    }
    /// The node of a host file: a file with several names has one.
    fn lower_node(self: &Arc<Self>, id: u64, path: PathBuf, stat: &HostStat) -> Arc<Node> {
        if stat.nlink < 2 || stat.mode & mode::FMT == mode::DIR {
            return Node::lower(self, id, path, stat);
        }
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (stat.dev, stat.ino);
        if let Some(node) = linked.get(&key).and_then(Weak::upgrade) {
            return node;
        }
        if linked.len() >= 1024 && linked.len().is_power_of_two() {
            linked.retain(|_, node| node.strong_count() > 0);
        }
        let node = Node::lower(self, id, path, stat);
        linked.insert(key, Arc::downgrade(&node));
        node
    }
    /// The root inode's own type.
    #[must_use]
    pub fn of(inode: &Arc<dyn Inode>) -> Option<&Node> {
        inode.as_any().downcast_ref::<Node>()
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        let (limit, used) = (self.quota.limit(), self.quota.used());
        let free = limit.saturating_sub(used);
        let inodes = self.inodes.load(Ordering::Relaxed);
        Ok(StatFs {
            magic: if self.tree.is_some() { OVERLAY_MAGIC } else { TMPFS_MAGIC },
            block_size: PAGE_SIZE,
            blocks: limit,
            free,
            available: free,
            files: self.max_inodes,
            files_free: self.max_inodes.saturating_sub(inodes),
            name_max: 255,
        })
    }
    fn options(&self) -> String {
        format!("size={}k", self.size() >> 10)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
