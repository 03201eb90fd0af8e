//! A directory tree of the host, reached only through a descriptor opened at start.
//!
//! Every path is resolved by openat2(2) inside that directory, without following any link, so that
//! nothing a guest names can lead outside.

use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
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
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p Path), Errno> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.handle(parent)?, Path::new(name)))
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
        fs::fstat(self.handle(path)?).map(|raw| super::stat(&raw)).map_err(errno)
    }
    fn read_link(&self, path: &Path) -> Result<Vec<u8>, Errno> {
        let link = self.handle(path)?;
        fs::readlinkat(&link, "", Vec::new()).map(|text| text.into_bytes()).map_err(errno)
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
        let raw = fs::fstat(self.handle(path)?).map_err(errno)?;
        if !fs::FileType::from_raw_mode(raw.st_mode).is_file() {
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
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
