//! /dev/pts (pts(4)): the terminals there are, each a node that exists as long as its master.
//!
//! Owner, mode and times lie in the terminal. Every mount shows all terminals of the VM: there are
//! no instances of their own.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use super::{
    dentry::Dentry,
    device::makedev,
    dirfile::{DirFile, kind_of},
    file::FileOps,
    flags::OpenFlags,
    inode::{Actor, Attr, Common, DirEntry, FileSystem, Inode, NewNode, SetAttr, StatFs, mode},
};
use crate::{error::Errno, kernel::Kernel, tty::Tty};

/// `DEVPTS_SUPER_MAGIC`.
const MAGIC: u64 = 0x1cd1;
/// Inode numbers: the root, `ptmx`, and terminals from here on.
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
/// Inode number of terminal 0.
pub const FIRST_INO: u64 = 3;

struct DevPts {
    dev: u64,
    nodes: Mutex<BTreeMap<u32, Weak<Node>>>,
}

impl FileSystem for DevPts {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { magic: MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
    fn options(&self) -> String {
        "gid=5,mode=620,ptmxmode=666".to_owned()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

enum What {
    Root(Arc<Node>),
    Ptmx,
    Terminal(Weak<Tty>),
}

struct Node {
    fs: Arc<DevPts>,
    common: Common,
    what: What,
    time: Duration,
}

/// A tree for /dev/pts.
#[must_use]
pub fn create(kernel: &Arc<Kernel>) -> Arc<Dentry> {
    let fs = Arc::new(DevPts { dev: kernel.fs.new_dev(), nodes: Mutex::default() });
    let time = kernel.host.realtime();
    let node = |what| Arc::new(Node { fs: fs.clone(), common: Common::default(), what, time });
    let root: Arc<dyn Inode> = node(What::Root(node(What::Ptmx)));
    Dentry::root(root)
}

impl Node {
    fn terminal(&self, tty: &Arc<Tty>) -> Arc<Node> {
        let mut nodes = self.fs.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, node| node.strong_count() > 0);
        let is_it = |node: &Arc<Node>| match &node.what {
            What::Terminal(known) => std::ptr::eq(known.as_ptr(), Arc::as_ptr(tty)),
            _ => false,
        };
        if let Some(known) = nodes.get(&tty.index).and_then(Weak::upgrade).filter(is_it) {
            return known;
        }
        let what = What::Terminal(Arc::downgrade(tty));
        let new = Arc::new(Node {
            fs: self.fs.clone(),
            common: Common::default(),
            what,
            time: self.time,
        });
        nodes.insert(tty.index, Arc::downgrade(&new));
        new
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
        let attr = Attr {
            dev: self.fs.dev,
            nlink: 1,
            blksize: 1024,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            ..Attr::default()
        };
        Ok(match &self.what {
            What::Root(_) => Attr { ino: ROOT_INO, mode: mode::DIR | 0o755, nlink: 2, ..attr },
            What::Ptmx => {
                let rdev = makedev(5, 2);
                Attr { ino: PTMX_INO, mode: mode::CHR | 0o666, rdev, ..attr }
            }
            What::Terminal(tty) => {
                let tty = tty.upgrade().ok_or(Errno::EIO)?;
                Attr { dev: self.fs.dev, ..tty.attr() }
            }
        })
    }
    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        match &self.what {
            What::Terminal(tty) => tty.upgrade().ok_or(Errno::EIO)?.set_attr(change),
            _ => Ok(()),
        }
    }
    fn lookup(&self, who: &Actor, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let What::Root(ptmx) = &self.what else { return Err(Errno::ENOTDIR) };
        if name == b"ptmx" {
            return Ok(ptmx.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        let tty = who.kernel.ttys.get(index).filter(|tty| tty.is_listed());
        let tty = tty.filter(|_| index.to_string() == text).ok_or(Errno::ENOENT)?;
        Ok(self.terminal(&tty))
    }
    fn create(&self, _who: &Actor, _name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(super::synth::refuse_create("devpts", new))
    }
    fn read_dir(
        &self,
        who: &Actor,
        from: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        if !matches!(self.what, What::Root(_)) {
            return Err(Errno::ENOTDIR);
        }
        let kind = kind_of(mode::CHR);
        if from == 0 && !emit(DirEntry { name: b"ptmx", ino: PTMX_INO, kind, next: 1 }) {
            return Ok(());
        }
        for index in who.kernel.ttys.list() {
            let (name, place) = (index.to_string(), u64::from(index));
            let next = place + 2;
            let entry = DirEntry { name: name.as_bytes(), ino: FIRST_INO + place, kind, next };
            if next > from && !emit(entry) {
                break;
            }
        }
        Ok(())
    }
    fn open(self: Arc<Self>, _who: &Actor, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        match self.what {
            What::Root(_) => Ok(Arc::new(DirFile)),
            // Devices are opened by number.
            _ => Err(Errno::ENXIO),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
