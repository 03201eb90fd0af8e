//! Passed-through host directories (`--bind SRC:DST`): what a guest writes reaches the host.
//!
//! The host is the truth. A node is a host file while somebody uses it: its place (a parent node and
//! a name) follows the guest's renames, and every operation goes through [`HostTree`], which resolves
//! paths inside the directory opened at start and follows no link; so a place that a rename has made
//! stale leads to another file of the tree or to none, never outside. Neighbours: `fs::body` holds
//! the pages of files in use, `listing` gives directory positions, `file` is an open regular file,
//! `held` bounds the directories that are held open.
//!
//! What is done to an entry is done by its name in its directory, which is opened (below the nearest
//! directory that is) when first needed and held while it is much used. A directory is held only once
//! the host has shown it to be the very one its node stands for, by device and inode number, which
//! cannot pass to another while it is held. Directories of other devices than the root's are not held:
//! it would keep the host from unmounting them. So every walk from a root asks the host about each name
//! in turn and sees it vanish or become another file; and a directory that the host moves while a
//! guest is in it is still that directory for this guest, even outside the tree, as on Linux for a
//! process whose working directory is moved out of its bind mount. Nothing above it is reached:
//! `..` is the guest's own tree's affair.
//!
//! Lock order: the table of nodes, then a node's place; `held` and bodies have their own. Only a body's
//! is held across a call of [`HostTree`]: guest threads that look up names and attributes do not wait
//! for each other's host calls.

mod file;
mod held;
mod listing;
mod node;

use std::{
    any::Any,
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

pub use self::{held::Held, node::Node};

use super::{
    body::Pool,
    dentry::Dentry,
    inode::{FileSystem, Inode, StatFs, mode},
};
use crate::{
    error::Errno,
    host::{HostStat, HostTree},
    kernel::Kernel,
};

/// What statfs(2) calls it: virtiofs passes host directories through, too.
const FUSE_MAGIC: u64 = 0x6573_5546;

/// One passed-through tree.
pub struct HostFs {
    dev: u64,
    tree: Arc<dyn HostTree>,
    pool: Pool,
    /// The VM's; it holds nodes.
    held: Weak<Held>,
    /// The root's device on the host.
    host_dev: u64,
    /// Nodes in use, by the host's device and inode number.
    nodes: Mutex<HashMap<(u64, u64), Weak<Node>>>,
}

impl HostFs {
    /// The root directory of `tree`.
    ///
    /// # Errors
    /// The host's errno.
    pub fn create(kernel: &Arc<Kernel>, tree: Arc<dyn HostTree>) -> Result<Arc<Dentry>, Errno> {
        let stat = tree.stat(Path::new(""))?;
        kernel.fs.held.stay_below(kernel.host.descriptors());
        let fs = Arc::new(HostFs {
            dev: kernel.fs.new_dev(),
            tree,
            pool: Pool {
                frames: kernel.frames.clone(),
                quota: None,
                caches: Some(kernel.fs.caches.clone()),
            },
            held: Arc::downgrade(&kernel.fs.held),
            host_dev: stat.dev,
            nodes: Mutex::default(),
        });
        Ok(Dentry::root(fs.node(None, &stat)))
    }
    /// The node of a host file found under `place`; a file with several names has one.
    fn node(self: &Arc<Self>, place: Option<node::Place>, stat: &HostStat) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (stat.dev, stat.ino);
        if let Some(known) = nodes.get(&key).and_then(Weak::upgrade)
            && known.kind() == stat.mode & mode::FMT
        {
            known.found(place, stat);
            return known;
        }
        if nodes.len() >= 1024 && nodes.len().is_power_of_two() {
            nodes.retain(|_, node| node.strong_count() > 0);
        }
        let node = Node::new(self, place, stat);
        nodes.insert(key, Arc::downgrade(&node));
        node
    }
    /// The node behind an inode of any file system.
    #[must_use]
    pub fn of(inode: &Arc<dyn Inode>) -> Option<&Node> {
        inode.as_any().downcast_ref::<Node>()
    }
}

impl FileSystem for HostFs {
    fn name(&self) -> &'static str {
        "virtiofs"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        let [block_size, blocks, free, available, files, files_free] = self.tree.statfs()?;
        let magic = FUSE_MAGIC;
        Ok(StatFs { magic, block_size, blocks, free, available, files, files_free, name_max: 255 })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
