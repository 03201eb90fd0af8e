//! Open file descriptions: what a descriptor refers to, and the operations a kind of file has.
//!
//! Operations never block: one that cannot go on returns EAGAIN, and the handler either passes that
//! on (O_NONBLOCK) or waits on the file's queue and is retried.

use std::{
    any::Any,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::buf::{Sink, Source};
pub use super::flags::{OpenFlags, Ready};
use super::lock::{LockList, Owner};
use super::nameless::Nameless;
use super::{
    async_io::{Async, SignalOwner},
    lease::Opened,
};
use super::{
    dentry::Path,
    inode::{Actor, Attr, DirEntry},
    inotify::{self, Events},
};
use crate::{
    call::Cx, error::Errno, error::Stop, error::SysResult, mm::object::MemObject, wait::WaitQueue,
};

/// What kinds of file implement; defaults refuse as Linux does for a file without the operation.
pub trait FileOps: Send + Sync + Any {
    /// read(2) at the file's own position; EAGAIN when it would block.
    ///
    /// # Errors
    /// As read(2).
    fn read(&self, _file: &OpenFile, _dst: &mut Sink<'_>) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
    /// write(2) at the file's own position; EAGAIN when it would block. A short count means that
    /// the rest would block.
    ///
    /// # Errors
    /// As write(2); EPIPE makes the handler raise SIGPIPE.
    fn write(&self, _file: &OpenFile, _src: &mut Source<'_>) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
    /// pread(2).
    ///
    /// # Errors
    /// As pread(2); ESPIPE for files without a position.
    fn read_at(&self, _file: &OpenFile, _dst: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::ESPIPE)
    }
    /// pwrite(2).
    ///
    /// # Errors
    /// As pwrite(2); ESPIPE for files without a position.
    fn write_at(
        &self,
        _file: &OpenFile,
        _src: &mut Source<'_>,
        _offset: u64,
    ) -> Result<usize, Errno> {
        Err(Errno::ESPIPE)
    }
    /// It has read(2), write(2) at all (FMODE_CAN_READ, FMODE_CAN_WRITE).
    fn moves(&self) -> (bool, bool) {
        (true, true)
    }
    /// pread(2) and pwrite(2) are for it; what is not, or not for reading, says ESPIPE all the same
    /// in [`FileOps::read_at`].
    fn positioned(&self) -> bool {
        true
    }
    /// lseek(2), all of SEEK_*; the new position.
    ///
    /// # Errors
    /// As lseek(2).
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        Err(Errno::ESPIPE)
    }
    /// Asked before a read or write on the caller's behalf: a terminal stops background processes.
    ///
    /// # Errors
    /// EIO, or the wait that the stop signal ends.
    fn admit(&self, _task: &Arc<crate::task::Task>, _write: bool) -> Result<(), Stop> {
        Ok(())
    }
    /// What an operation would find now.
    fn poll(&self, _file: &OpenFile) -> Ready {
        Ready::IN | Ready::OUT | Ready::RDNORM | Ready::WRNORM
    }
    /// Woken whenever [`FileOps::poll`]'s answer may have changed; `None` for files always ready.
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        None
    }
    /// ioctl(2) beyond what every file has (FIONBIO, FIOCLEX, …).
    ///
    /// # Errors
    /// ENOTTY when the command is not for this kind of file.
    fn ioctl(&self, _cx: &mut Cx<'_>, _file: &OpenFile, _command: u32, _arg: u64) -> SysResult {
        Err(Stop::Errno(Errno::ENOTTY))
    }
    /// The object mmap(2) maps.
    ///
    /// # Errors
    /// ENODEV for files that cannot be mapped.
    fn object(&self) -> Result<Arc<dyn MemObject>, Errno> {
        Err(Errno::ENODEV)
    }
    /// fstat(2) of a file without a place in the tree (pipe, socket, anonymous inode).
    ///
    /// # Errors
    /// The host's errno.
    fn attr(&self, _file: &OpenFile) -> Result<Attr, Errno> {
        let anonymous = Attr { mode: 0o600, nlink: 1, blksize: 4096, ..Attr::default() };
        Ok(self.nameless().map_or(anonymous, Nameless::attr))
    }
    /// What it has in place of an inode of a file system; `None` for the inode that all anonymous
    /// files share, which is root's and cannot be changed.
    fn nameless(&self) -> Option<&Nameless> {
        None
    }
    /// Opens the same object again, through /proc/PID/fd (a pipe's either end).
    ///
    /// # Errors
    /// ENXIO for objects that cannot be opened by name (sockets).
    fn reopen(&self, _file: &OpenFile, _flags: OpenFlags) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
    /// What /proc/PID/fd shows for a file without a place: `pipe:[7]`, `anon_inode:[eventfd]`.
    fn describe(&self) -> String {
        "anon_inode:[unknown]".to_owned()
    }
    /// Lines of /proc/PID/fdinfo beyond pos, flags, mnt_id and ino.
    fn fdinfo(&self, _file: &OpenFile) -> String {
        String::new()
    }
    /// getdents64(2): entries after the file's position, which the caller advances.
    ///
    /// # Errors
    /// ENOTDIR for anything but a directory.
    fn read_dir(
        &self,
        _file: &OpenFile,
        _who: &Actor,
        _from: u64,
        _emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }
    /// fsync(2), or fdatasync(2) when `data`.
    ///
    /// # Errors
    /// EINVAL for files that cannot be synchronised.
    fn sync(&self, _file: &OpenFile, _data: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// fallocate(2); the mode bits are Linux's.
    ///
    /// # Errors
    /// As fallocate(2).
    fn allocate(&self, _file: &OpenFile, _mode: u32, _at: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }
    /// A descriptor of `process` was closed, not necessarily the last.
    fn closed(&self, _process: &Arc<crate::task::process::Process>) {}
    /// The last descriptor of this description was closed.
    fn release(&self, _file: &OpenFile) {}
    /// The flags set by F_SETFL or FIONBIO changed.
    fn flags_changed(&self, _file: &OpenFile) {}
    /// For kinds to find their own type again.
    fn as_any(&self) -> &dyn Any;
}

/// An open file description (open(2), NOTES).
pub struct OpenFile {
    /// The kind's operations.
    pub ops: Arc<dyn FileOps>,
    /// Where it was opened; `None` for pipes, sockets and anonymous inodes.
    pub path: Option<Path>,
    flags: AtomicU32,
    /// Whom SIGIO goes to (F_SETOWN, F_SETSIG).
    pub owner: Mutex<SignalOwner>,
    /// Who signals them.
    pub asynchronous: Async,
    /// Counted where it was opened.
    _opened: Option<Opened>,
    /// Locks of a file without a place.
    own_locks: Arc<LockList>,
    /// File position, held during a read or write as Linux does for regular files.
    pub position: Mutex<u64>,
}

impl OpenFile {
    /// A new description.
    #[must_use]
    pub fn new(ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<OpenFile> {
        OpenFile::make(ops, None, flags)
    }
    /// A new description of the file at `path`.
    #[must_use]
    pub fn at(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags) -> Arc<OpenFile> {
        OpenFile::make(ops, Some(path), flags)
    }
    fn make(ops: Arc<dyn FileOps>, path: Option<Path>, flags: OpenFlags) -> Arc<OpenFile> {
        let kept = flags
            - (OpenFlags::CREAT
                | OpenFlags::EXCL
                | OpenFlags::NOCTTY
                | OpenFlags::TRUNC
                | OpenFlags::CLOEXEC);
        let opened = path
            .as_ref()
            .filter(|_| !flags.contains(OpenFlags::PATH))
            .map(|path| Opened::new(path.inode(), flags.access().1));
        Arc::new(OpenFile {
            ops,
            path,
            _opened: opened,
            own_locks: Arc::default(),
            asynchronous: Async::default(),
            flags: AtomicU32::new(kept.bits()),
            owner: Mutex::default(),
            position: Mutex::new(0),
        })
    }
    /// Status flags and access mode.
    #[must_use]
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Replaces the flags that F_SETFL may change.
    pub fn set_flags(&self, flags: OpenFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
        self.ops.flags_changed(self);
    }
    /// O_NONBLOCK is set.
    #[must_use]
    pub fn nonblock(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }
    /// Open for reading.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.flags().access().0
    }
    /// Open for writing.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.flags().access().1
    }
    /// flock(2) and record locks of what it is a description of.
    #[must_use]
    pub fn locks(&self) -> &Arc<LockList> {
        self.path.as_ref().map_or(&self.own_locks, |path| &path.inode().common().locks)
    }
    /// It has positions to read and write at (FMODE_PREAD).
    #[must_use]
    pub fn positioned(&self) -> bool {
        self.ops.positioned()
    }
    /// Runs `body` with the position locked.
    pub fn with_position<T>(&self, body: impl FnOnce(&mut u64) -> T) -> T {
        body(&mut self.position.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// fstat(2).
    ///
    /// # Errors
    /// The host's errno.
    pub fn attr(&self) -> Result<Attr, Errno> {
        match &self.path {
            Some(path) => path.attr(),
            None => self.ops.attr(self),
        }
    }
    /// Identifies the description while it lives (lock owners).
    #[must_use]
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
    /// The kind's own type.
    #[must_use]
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref::<T>()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        inotify::file(
            self,
            if self.writable() { Events::CLOSE_WRITE } else { Events::CLOSE_NOWRITE },
        );
        let ops = self.ops.clone();
        ops.release(self);
        if let Some(path) = &self.path {
            let common = path.inode().common();
            common.locks.release(Owner::File(self.address()));
            // Without a lease there is nothing to drop.
            let _ = common.leases.unset(self.address());
        }
    }
}

/// lseek(2) for files with a size: `end` tells it, `find` is SEEK_DATA (true) and SEEK_HOLE.
///
/// # Errors
/// EINVAL for a position before the start or past what fits, ENXIO from `find`.
pub fn seek_in(
    file: &OpenFile,
    offset: i64,
    whence: u32,
    end: impl FnOnce() -> Result<u64, Errno>,
    find: impl FnOnce(u64, bool) -> Result<u64, Errno>,
) -> Result<u64, Errno> {
    file.with_position(|position| {
        let from = |base: u64| {
            let at = base.cast_signed().checked_add(offset).ok_or(Errno::EINVAL)?;
            u64::try_from(at).map_err(|_| Errno::EINVAL)
        };
        let to = match whence {
            0 => from(0)?,
            1 => from(*position)?,
            2 => from(end()?)?,
            3 | 4 => find(u64::try_from(offset).map_err(|_| Errno::ENXIO)?, whence == 3)?,
            _ => return Err(Errno::EINVAL),
        };
        *position = to;
        Ok(to)
    })
}
