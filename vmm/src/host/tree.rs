//! A directory tree of the host, reached only through the descriptor of its root: one opened at
//! start, or that of a directory found below such a root.
//!
//! Nothing a guest names can lead outside, because a path is either
//! * one name, neither `.` nor `..` and without a slash ([`only_name`]), given to a *at call together
//!   with the root's descriptor and told not to follow a link (AT_SYMLINK_NOFOLLOW; mkdirat, linkat,
//!   renameat2, unlinkat and readlinkat never follow the last component): the answer is an entry of
//!   that very directory; or
//! * resolved by openat2(2) inside the root, without following any link (IN_ROOT, NO_SYMLINKS,
//!   NO_MAGICLINKS). Whatever yields a new descriptor is of this kind, one name or several.
//!
//! A tree made by `below` has as its root a directory that was inside when it was opened. If the host
//! moves that directory out, the tree goes with it, as a process's working directory in a bind mount
//! does; it still leads to what lies in that directory and to nothing above it.

use std::{
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Uid};
use trapgate_kernel::{
    error::Errno,
    host::{HostDirEntry, HostFile, HostStat, HostTree},
};

use super::{errno, file::RegularFile};

/// The path, if it is a single name that can only mean an entry of the root itself.
fn only_name(path: &Path) -> Option<&Path> {
    let bytes = path.as_os_str().as_bytes();
    let plain = !matches!(bytes, b"" | b"." | b"..") && !bytes.contains(&b'/');
    plain.then_some(path)
}

/// The directory an entry lies in.
enum Dir<'t> {
    /// The root.
    Root(&'t OwnedFd),
    /// One below it.
    Below(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Root(fd) => fd.as_fd(),
            Dir::Below(fd) => fd.as_fd(),
        }
    }
}

/// The tree.
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens the directory `path` of the host.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EACCES.
    pub fn open(path: &Path) -> Result<Tree, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map(|root| Tree { root }).map_err(errno)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            match fs::openat2(&self.root, path, flags, mode, how) {
                // A rename raced with the resolution (openat2(2), ERRORS).
                Err(rustix::io::Errno::AGAIN) => {}
                result => return result.map_err(errno),
            }
        }
    }
    fn handle(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlags::PATH, Mode::empty())
    }
    /// fstat(2) of what lies at `path`, of the link itself where it is one.
    fn look(&self, path: &Path) -> Result<fs::Stat, Errno> {
        if let Some(name) = only_name(path) {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            return fs::statat(&self.root, name, flags).map_err(errno);
        }
        if path.as_os_str().is_empty() {
            return fs::fstat(&self.root).map_err(errno);
        }
        fs::fstat(self.handle(path)?).map_err(errno)
    }
    /// chmod(2) of the very file `path` leads to. By name it would follow a link that a racing
    /// rename puts there; the descriptor's own link leads nowhere else.
    fn change_mode(&self, path: &Path, mode: u32) -> Result<(), Errno> {
        let file = self.handle(path)?;
        let raw = fs::fstat(&file).map_err(errno)?;
        if fs::FileType::from_raw_mode(raw.st_mode).is_symlink() {
            return Err(Errno::EOPNOTSUPP);
        }
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        fs::chmodat(fs::CWD, own.as_str(), mode, AtFlags::empty()).map_err(errno)
    }
    /// The directory that holds `path`, and its last component.
    fn parent<'p>(&self, path: &'p Path) -> Result<(Dir<'_>, &'p Path), Errno> {
        if let Some(name) = only_name(path) {
            return Ok((Dir::Root(&self.root), name));
        }
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((Dir::Below(self.handle(parent)?), Path::new(name)))
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

impl HostTree for Tree {
    fn stat(&self, path: &Path) -> Result<HostStat, Errno> {
        self.look(path).map(|raw| super::stat(&raw))
    }
    fn below(&self, path: &Path) -> Result<Arc<dyn HostTree>, Errno> {
        let root = self.resolve(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Arc::new(Tree { root }))
    }
    fn read_link(&self, path: &Path) -> Result<Vec<u8>, Errno> {
        let (dir, name) = self.parent(path)?;
        fs::readlinkat(&dir, name, Vec::new()).map(|text| text.into_bytes()).map_err(errno)
    }
    fn read_dir(&self, path: &Path) -> Result<Vec<HostDirEntry>, Errno> {
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in fs::Dir::new(fd).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            // DT_* is the file type's four bits of st_mode (getdents(2)).
            let kind = u8::try_from(entry.file_type().as_raw_mode() >> 12).unwrap_or(0);
            entries.push(HostDirEntry { name: name.to_vec(), ino: entry.ino(), kind });
        }
        Ok(entries)
    }
    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn HostFile>, Errno> {
        // Looked at before it is opened: opening a device may have effects of its own.
        if !fs::FileType::from_raw_mode(self.look(path)?.st_mode).is_file() {
            return Err(Errno::EACCES);
        }
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = self.resolve(path, access | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())?;
        Ok(Arc::new(RegularFile::new(fd)))
    }
    fn create(&self, path: &Path, mode: u32) -> Result<Arc<dyn HostFile>, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let fd = self.resolve(path, flags, Mode::from_bits_truncate(mode & 0o7777))?;
        // The monitor's own umask must not narrow what the guest asked for.
        fs::fchmod(&fd, Mode::from_bits_truncate(mode & 0o7777)).map_err(errno)?;
        Ok(Arc::new(RegularFile::new(fd)))
    }
    fn mkdir(&self, path: &Path, mode: u32) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        fs::mkdirat(&parent, name, Mode::from_bits_truncate(mode & 0o7777)).map_err(errno)?;
        self.change_mode(path, mode)
    }
    fn symlink(&self, text: &[u8], path: &Path) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        fs::symlinkat(std::ffi::OsStr::from_bytes(text), &parent, name).map_err(errno)
    }
    fn link(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let (from, source) = self.parent(from)?;
        let (to, target) = self.parent(to)?;
        fs::linkat(&from, source, &to, target, AtFlags::empty()).map_err(errno)
    }
    fn rename(&self, from: &Path, to: &Path, flags: u32) -> Result<(), Errno> {
        let (from, source) = self.parent(from)?;
        let (to, target) = self.parent(to)?;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        fs::renameat_with(&from, source, &to, target, flags).map_err(errno)
    }
    fn unlink(&self, path: &Path, dir: bool) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        let flags = if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        fs::unlinkat(&parent, name, flags).map_err(errno)
    }
    fn set_attr(
        &self,
        path: &Path,
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
        times: Option<(Duration, Duration)>,
    ) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        if let Some((uid, gid)) = owner {
            let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
            let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
            fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
        }
        if let Some(mode) = mode {
            self.change_mode(path, mode)?;
        }
        if let Some((access, modification)) = times {
            let times = fs::Timestamps {
                last_access: timespec(access),
                last_modification: timespec(modification),
            };
            fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
        }
        Ok(())
    }
    fn statfs(&self) -> Result<[u64; 6], Errno> {
        let raw = fs::fstatvfs(&self.root).map_err(errno)?;
        Ok([raw.f_bsize, raw.f_blocks, raw.f_bfree, raw.f_bavail, raw.f_files, raw.f_ffree])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_do_not_lead_out() {
        let dir = std::env::temp_dir().join(format!("trapgate-tree-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("in")).expect("a scratch directory");
        std::fs::write(dir.join("secret"), "s").expect("written");
        std::os::unix::fs::symlink("../secret", dir.join("in/out")).expect("linked");
        let tree = Tree::open(&dir.join("in")).expect("opened");
        assert!(matches!(tree.open(Path::new("out"), false), Err(Errno::EACCES)));
        assert!(tree.open(Path::new("../secret"), false).is_err());
        assert!(tree.open(Path::new("out/x"), false).is_err());
        assert_eq!(tree.read_link(Path::new("out")).expect("a link"), b"../secret");
        assert_eq!(tree.read_dir(Path::new("")).expect("listed").len(), 1);
        let kind = |path: &str| tree.stat(Path::new(path)).map(|stat| stat.mode & 0o170_000);
        assert_eq!(kind("out"), Ok(0o120_000));
        let top = tree.stat(Path::new("")).expect("the root");
        for up in ["..", "../..", "/..", "."] {
            // Above the root there is the root, as for a process in it.
            assert_eq!(tree.stat(Path::new(up)).map(|stat| stat.ino), Ok(top.ino), "{up}");
        }
        assert!(tree.unlink(Path::new(".."), true).is_err());
        std::fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_directory_of_a_tree_is_a_tree() {
        let dir = std::env::temp_dir().join(format!("trapgate-below-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("in/a/b")).expect("a scratch directory");
        std::fs::write(dir.join("secret"), "s").expect("written");
        std::fs::write(dir.join("in/a/file"), "f").expect("written");
        let tree = Tree::open(&dir.join("in")).expect("opened");
        let a = tree.below(Path::new("a")).expect("a directory");
        // What stands in its place later is another thing, and the tree above sees that.
        std::fs::rename(dir.join("in/a"), dir.join("in/moved")).expect("renamed");
        std::os::unix::fs::symlink("..", dir.join("in/a")).expect("linked");
        assert!(tree.below(Path::new("a")).is_err());
        assert!(tree.below(Path::new("moved/file")).is_err());
        assert!(a.open(Path::new("file"), false).is_ok());
        let own = a.stat(Path::new("")).expect("itself");
        assert_eq!(a.stat(Path::new("..")).map(|stat| stat.ino), Ok(own.ino));
        assert_eq!(a.stat(Path::new("../a")).err(), Some(Errno::ENOENT));
        assert!(a.open(Path::new("../../secret"), false).is_err());
        assert!(a.rename(Path::new("file"), Path::new("../file"), 0).is_ok());
        assert!(dir.join("in/moved/file").exists());
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
