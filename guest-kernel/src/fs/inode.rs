//! What a file system implements: inodes, and the file system they belong to.
//!
//! Neighbours: `dentry` names inodes, `walk` finds them, `vfs` checks permission before it calls
//! here (an inode checks only what it alone can know: existence, type, emptiness, space).

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use bitflags::bitflags;

use super::{
    context::FsContext, dentry::Path, file::FileOps, flags::OpenFlags, inotify::Watchers,
    lease::Leases, lock::LockList,
};
use crate::{creds::Creds, error::Errno, kernel::Kernel, task::Task};

/// The file-type and permission bits of st_mode (inode(7)).
#[expect(missing_docs, reason = "inode(7) names them")]
pub mod mode {
    pub const FMT: u32 = 0o170_000;
    pub const SOCK: u32 = 0o140_000;
    pub const LNK: u32 = 0o120_000;
    pub const REG: u32 = 0o100_000;
    pub const BLK: u32 = 0o060_000;
    pub const DIR: u32 = 0o040_000;
    pub const CHR: u32 = 0o020_000;
    pub const FIFO: u32 = 0o010_000;
    pub const SUID: u32 = 0o4000;
    pub const SGID: u32 = 0o2000;
    pub const STICKY: u32 = 0o1000;
    /// Permission, set-id and sticky bits.
    pub const PERM: u32 = 0o7777;
}

/// On whose behalf a file operation is done.
#[derive(Clone)]
pub struct Actor {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Credentials that permission checks use (fsuid, fsgid, capabilities).
    pub creds: Arc<Creds>,
    /// Root and working directory.
    pub fs: Arc<FsContext>,
    /// The calling task; `None` for the kernel itself.
    pub task: Option<Arc<Task>>,
}

impl Actor {
    /// `task` as it is now.
    #[must_use]
    pub fn of(task: &Arc<Task>) -> Actor {
        Actor {
            kernel: task.kernel.clone(),
            creds: task.creds(),
            fs: task.fs(),
            task: Some(task.clone()),
        }
    }
    /// The kernel itself, as root, in the context `fs`.
    #[must_use]
    pub fn kernel(kernel: &Arc<Kernel>, fs: &Arc<FsContext>) -> Actor {
        Actor {
            kernel: kernel.clone(),
            creds: Arc::new(Creds::user(0, 0)),
            fs: fs.clone(),
            task: None,
        }
    }
}

/// An inode's attributes (inode(7)); times are since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "inode(7) names them")]
pub struct Attr {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Duration,
    pub mtime: Duration,
    pub ctime: Duration,
    pub btime: Duration,
}

impl Attr {
    /// It is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & mode::FMT == mode::DIR
    }
    /// It is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode & mode::FMT == mode::LNK
    }
    /// It is a regular file.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.mode & mode::FMT == mode::REG
    }
}

/// Attributes to change; `None` keeps. ctime follows by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission, set-id and sticky bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Duration>,
    /// Last modification.
    pub mtime: Option<Duration>,
}

/// A node to create.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Type and permission bits, umask already applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Text of a symbolic link.
    pub target: Vec<u8>,
}

/// One directory entry.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// File name.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// `DT_*` of getdents(2): the type bits of st_mode shifted right by 12.
    pub kind: u8,
    /// Position after this entry.
    pub next: u64,
}

bitflags! {
    /// renameat2(2) flags.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RenameFlags: u32 {
        /// Do not replace.
        const NOREPLACE = 1;
        /// Swap the two.
        const EXCHANGE = 2;
        /// Leave a whiteout.
        const WHITEOUT = 4;
    }
}

/// Figures of statfs(2).
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "statfs(2) names them")]
pub struct StatFs {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
}

/// A mounted file system.
pub trait FileSystem: Send + Sync + Any {
    /// Its type, as /proc/mounts prints it.
    fn name(&self) -> &'static str;
    /// st_dev of its inodes.
    fn dev(&self) -> u64;
    /// statfs(2).
    ///
    /// # Errors
    /// The host's errno for passed-through directories.
    fn statfs(&self) -> Result<StatFs, Errno>;
    /// Options beyond the mount's own, for /proc/mounts (`size=65536k`).
    fn options(&self) -> String {
        String::new()
    }
    /// For implementations to find their own type again.
    fn as_any(&self) -> &dyn Any;
}

/// What every inode has, whatever its file system: locks, and the object a socket or FIFO name
/// stands for.
#[derive(Default)]
pub struct Common {
    /// flock(2) and fcntl(2) record locks.
    pub locks: Arc<LockList>,
    /// inotify(7).
    pub watchers: Watchers,
    /// Leases, and who has it open.
    pub leases: Leases,
    /// A file without a name may get one (O_TMPFILE without O_EXCL).
    pub linkable: AtomicBool,
    attached: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Common {
    /// The object attached to the inode: a bound socket, a FIFO's pipe.
    #[must_use]
    pub fn attached(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Attaches, replaces or detaches the object.
    pub fn attach(&self, object: Option<Arc<dyn Any + Send + Sync>>) {
        *self.attached.lock().unwrap_or_else(PoisonError::into_inner) = object;
    }
    /// The attached object, made by `make` if there is none yet.
    pub fn attached_or(
        &self,
        make: impl FnOnce() -> Arc<dyn Any + Send + Sync>,
    ) -> Arc<dyn Any + Send + Sync> {
        let mut slot = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(make).clone()
    }
}

/// A file of any type. Defaults refuse as Linux does for a type or file system without the operation.
pub trait Inode: Send + Sync + Any {
    /// State that does not depend on the file system.
    fn common(&self) -> &Common;
    /// The file system it belongs to.
    fn fs(&self) -> Arc<dyn FileSystem>;
    /// stat(2).
    ///
    /// # Errors
    /// The host's errno for passed-through files.
    fn attr(&self) -> Result<Attr, Errno>;
    /// chmod, chown, truncate, utimensat; the caller has checked that it may.
    ///
    /// # Errors
    /// As those calls.
    fn set_attr(&self, _change: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// The entry `name`, never `.` or `..`. The same file gives the same `Arc` while it is in use.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    fn lookup(&self, _who: &Actor, _name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::ENOTDIR)
    }
    /// [`Inode::lookup`], with the attributes of what was found where the answer came with them; they
    /// serve the call that looked it up, no later one.
    ///
    /// # Errors
    /// As [`Inode::lookup`].
    fn lookup_attr(
        &self,
        who: &Actor,
        name: &[u8],
    ) -> Result<(Arc<dyn Inode>, Option<Attr>), Errno> {
        Ok((self.lookup(who, name)?, None))
    }
    /// Makes a file of any type under `name`.
    ///
    /// # Errors
    /// EEXIST, ENOENT if the directory was removed, ENOSPC, EPERM.
    fn create(&self, _who: &Actor, _name: &[u8], _new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::EPERM)
    }
    /// link(2): a further name for `target`, which is of this file system and no directory.
    ///
    /// # Errors
    /// EEXIST, EPERM, EMLINK.
    fn link(&self, _who: &Actor, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// unlink(2), or rmdir(2) when `dir`.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOTDIR, ENOTEMPTY.
    fn unlink(&self, _who: &Actor, _name: &[u8], _dir: bool) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// rename(2) within this file system; types and ancestry were checked.
    ///
    /// # Errors
    /// ENOENT, EEXIST, ENOTEMPTY.
    fn rename(
        &self,
        _who: &Actor,
        _name: &[u8],
        _to: &Arc<dyn Inode>,
        _to_name: &[u8],
        _flags: RenameFlags,
    ) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// A file without a name (O_TMPFILE) in this directory.
    ///
    /// # Errors
    /// EOPNOTSUPP where the file system has none.
    fn tmpfile(&self, _who: &Actor, _new: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// readlink(2).
    ///
    /// # Errors
    /// EINVAL if it is no symbolic link.
    fn read_link(&self, _who: &Actor) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }
    /// Where a magic link (proc(5): fd/N, exe, cwd, root) leads without reading its text; `None` for
    /// ordinary links.
    fn magic(&self, _who: &Actor) -> Option<Result<Magic, Errno>> {
        None
    }
    /// Passes entries after position `from` to `emit` until it returns false; `.` and `..` are not
    /// among them. Positions are the file system's own, 0 the start.
    ///
    /// # Errors
    /// ENOTDIR, ENOENT if the directory was removed.
    fn read_dir(
        &self,
        _who: &Actor,
        _from: u64,
        _emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }
    /// Opens it. FIFOs, sockets and device nodes never come here (`vfs::open` deals with them).
    ///
    /// # Errors
    /// As open(2).
    fn open(self: Arc<Self>, who: &Actor, flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno>;
    /// getxattr(2).
    ///
    /// # Errors
    /// ENODATA, EOPNOTSUPP.
    fn xattr_get(&self, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// setxattr(2); `None` removes.
    ///
    /// # Errors
    /// ENODATA, EEXIST, EOPNOTSUPP.
    fn xattr_set(&self, _name: &[u8], _value: Option<&[u8]>, _flags: u32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// listxattr(2).
    ///
    /// # Errors
    /// EOPNOTSUPP.
    fn xattr_list(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(Vec::new())
    }
    /// For implementations to find their own type again.
    fn as_any(&self) -> &dyn Any;
}

/// Where a magic link leads.
pub enum Magic {
    /// A place in the tree.
    Path(Path),
    /// An open file without a place (a pipe, a socket): opening it opens the same object again
    /// where the kind allows.
    File(Arc<super::file::OpenFile>),
}
