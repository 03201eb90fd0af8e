//! The mount tree a VM starts with.
//!
//! `--root` below an overlay, then the kernel's own /proc, /sys, /dev and /tmp, then `--tmpfs` and
//! `--bind` in the order given. Mount points that do not exist are made in the overlay.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path as HostPath, PathBuf},
    sync::Arc,
};

use super::{
    context::FsContext,
    dentry::{Dentry, Path},
    hostfs::HostFs,
    inode::{Actor, mode},
    mount::{Mount, MountFlags, Namespace},
    tmpfs::TmpFs,
    vfs,
};
use crate::{error::Errno, kernel::Kernel};

/// One `--bind`.
#[derive(Clone, Debug)]
pub struct Bind {
    /// File or directory on the host.
    pub source: PathBuf,
    /// Where guests see it.
    pub target: Vec<u8>,
    /// Nothing may be written.
    pub read_only: bool,
}

/// What to mount.
#[derive(Clone, Debug, Default)]
pub struct FsConfig {
    /// The host directory that becomes `/`; an empty tmpfs if `None`.
    pub root: Option<PathBuf>,
    /// Host files and directories passed through.
    pub binds: Vec<Bind>,
    /// Places for empty tmpfs.
    pub tmpfs: Vec<Vec<u8>>,
    /// Working directory of the first program.
    pub cwd: Vec<u8>,
}

/// Why the mount tree could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The root directory cannot be used.
    #[error("--root {path}: {errno}")]
    Root {
        /// The directory.
        path: PathBuf,
        /// The host's error.
        errno: Errno,
    },
    /// A `--bind` source cannot be used.
    #[error("--bind {path}: {errno}")]
    Bind {
        /// The source.
        path: PathBuf,
        /// The host's error.
        errno: Errno,
    },
    /// A mount point cannot be made.
    #[error("cannot mount on {target}: {errno}")]
    Target {
        /// The mount point.
        target: String,
        /// Why.
        errno: Errno,
    },
    /// The working directory does not exist.
    #[error("--cwd {path}: {errno}")]
    Cwd {
        /// The directory.
        path: String,
        /// Why.
        errno: Errno,
    },
}

impl SetupError {
    /// Why it failed.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            SetupError::Root { errno, .. }
            | SetupError::Bind { errno, .. }
            | SetupError::Target { errno, .. }
            | SetupError::Cwd { errno, .. } => *errno,
        }
    }
}

/// Builds the tree; the context of the first process.
///
/// # Errors
/// [`SetupError`], whose text is for the user.
pub fn build(kernel: &Arc<Kernel>, config: &FsConfig) -> Result<Arc<FsContext>, SetupError> {
    let half = kernel.config.memory / 2;
    let (root, source) = match &config.root {
        None => (TmpFs::create(kernel, "tmpfs", half, 0o755), "tmpfs"),
        Some(path) => {
            let fail = |errno| SetupError::Root { path: path.clone(), errno };
            let tree = kernel.host.open_tree(path).map_err(fail)?;
            (TmpFs::overlay(kernel, tree, half).map_err(fail)?, "overlay")
        }
    };
    let flags = MountFlags::RELATIME;
    let mount = Mount::new(kernel.fs.new_mount(), source, root, flags);
    let top = mount.top();
    let context = FsContext::new(Namespace::new(mount), top.clone(), top);
    let who = Actor::kernel(kernel, &context);
    let tree = Tree { kernel, who: &who };

    let quiet = MountFlags::NOSUID | MountFlags::NODEV | flags;
    let dev = super::devfs::create(kernel, &who)
        .map_err(|errno| SetupError::Target { target: "/dev".to_owned(), errno })?;
    // The host's own /proc and /sys must not show through: they speak of the monitor.
    let system = quiet | MountFlags::NOEXEC;
    tree.mount("proc", b"/proc", super::procfs::create(kernel), system)?;
    tree.mount("sysfs", b"/sys", super::sysfs::create(kernel), system)?;
    tree.mount("devtmpfs", b"/dev", dev, MountFlags::NOSUID | flags)?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC | flags;
    tree.mount("devpts", b"/dev/pts", super::devpts::create(kernel), terminals)?;
    tree.mount("tmpfs", b"/dev/shm", TmpFs::create(kernel, "tmpfs", half, 0o1777), quiet)?;
    tree.mount("tmpfs", b"/tmp", TmpFs::create(kernel, "tmpfs", half, 0o1777), quiet)?;
    for target in &config.tmpfs {
        tree.mount("tmpfs", target, TmpFs::create(kernel, "tmpfs", half, 0o1777), quiet)?;
    }
    for bind in &config.binds {
        tree.bind(bind)?;
    }
    if !config.cwd.is_empty() {
        let shown = String::from_utf8_lossy(&config.cwd).into_owned();
        let fail = |errno| SetupError::Cwd { path: shown.clone(), errno };
        let cwd = vfs::find(&who, &context.root(), &config.cwd, true).map_err(fail)?;
        if !cwd.attr().map_err(fail)?.is_dir() {
            return Err(fail(Errno::ENOTDIR));
        }
        context.set_cwd(cwd);
    }
    Ok(context)
}

struct Tree<'a> {
    kernel: &'a Arc<Kernel>,
    who: &'a Actor,
}

impl Tree<'_> {
    fn mount(
        &self,
        source: &str,
        target: &[u8],
        root: Arc<Dentry>,
        flags: MountFlags,
    ) -> Result<(), SetupError> {
        let is_dir = root.inode().attr().is_ok_and(|a| a.is_dir());
        let at = self.place(target, is_dir)?;
        let mount = Mount::new(self.kernel.fs.new_mount(), source, root, flags);
        self.who.fs.namespace().attach(mount, at);
        Ok(())
    }
    /// The mount point `target`, made with its parents where it does not exist.
    fn place(&self, target: &[u8], is_dir: bool) -> Result<Path, SetupError> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let fail = |errno| SetupError::Target { target: shown.clone(), errno };
        if !target.starts_with(b"/") {
            return Err(fail(Errno::EINVAL));
        }
        let mut at = self.who.fs.root();
        let names: Vec<&[u8]> = target.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        for (i, name) in names.iter().enumerate() {
            at = match vfs::find(self.who, &at, name, true) {
                Ok(found) => found,
                Err(Errno::ENOENT) => {
                    let kind = if is_dir || i + 1 < names.len() {
                        mode::DIR | 0o755
                    } else {
                        mode::REG | 0o644
                    };
                    vfs::create(self.who, &at, name, kind, 0, b"").map_err(fail)?
                }
                Err(errno) => return Err(fail(errno)),
            };
        }
        let found_dir = at.attr().map_err(fail)?.is_dir();
        match (is_dir, found_dir) {
            (true, false) => Err(fail(Errno::ENOTDIR)),
            (false, true) => Err(fail(Errno::EISDIR)),
            _ => Ok(at),
        }
    }
    fn bind(&self, bind: &Bind) -> Result<(), SetupError> {
        let fail = |errno| SetupError::Bind { path: bind.source.clone(), errno };
        let root = self.open_bind(&bind.source, bind.read_only).map_err(fail)?;
        let mut flags = MountFlags::RELATIME;
        if bind.read_only {
            flags |= MountFlags::RDONLY;
        }
        self.mount(&bind.source.to_string_lossy(), &bind.target, root, flags)
    }
    /// The source's own tree: passed through, or for a read-only mount an overlay that never
    /// changes.
    fn open_bind(&self, source: &HostPath, read_only: bool) -> Result<Arc<Dentry>, Errno> {
        let make = |tree| match read_only {
            true => TmpFs::overlay(self.kernel, tree, 0),
            false => HostFs::create(self.kernel, tree),
        };
        match self.kernel.host.open_tree(source) {
            Ok(tree) => make(tree),
            Err(Errno::ENOTDIR) => {
                let name = source.file_name().ok_or(Errno::EINVAL)?;
                let parent = source.parent().filter(|p| !p.as_os_str().is_empty());
                let tree = self.kernel.host.open_tree(parent.unwrap_or(HostPath::new(".")))?;
                make(tree)?.lookup(self.who, name.as_bytes())
            }
            Err(errno) => Err(errno),
        }
    }
}
