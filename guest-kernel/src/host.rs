//! The door to the host: everything the kernel asks of it that is not a CPU or an address space.
//!
//! `vmm::host` implements these traits and names every host call it makes; a test may implement
//! them with a fake. Time and randomness come from here so that a run can be made deterministic.

use std::{io, path::Path, sync::Arc, time::Duration};

use vm_memory::VolatileSlice;

use crate::{error::Errno, time::virtual_time::VirtualTime};

/// Host services.
pub trait Host: Send + Sync {
    /// Time since boot, never set back (`CLOCK_MONOTONIC`).
    fn monotonic(&self) -> Duration;
    /// Time since the Unix epoch (`CLOCK_REALTIME`).
    fn realtime(&self) -> Duration;
    /// Time since boot including suspend (`CLOCK_BOOTTIME`).
    fn boottime(&self) -> Duration {
        self.monotonic()
    }
    /// Lays the line over the processor's time-stamp counter anew by which guests may read the clocks
    /// themselves; from then on [`Host::monotonic`] and [`Host::realtime`] follow it as well. To be called
    /// a few times a second. `None` where there is none (yet).
    fn refresh_clock(&self) -> Option<ClockLine> {
        None
    }
    /// The clock that all the others show, if the guest's own doings move it. CPU times are then counted
    /// in system calls, and [`Host::thread_cpu_time`] says nothing.
    fn virtual_time(&self) -> Option<Arc<VirtualTime>> {
        None
    }
    /// For what is measured of the monitor itself: goes on while virtual time stands still.
    fn stopwatch(&self) -> Duration {
        self.monotonic()
    }
    /// CPU time the calling host thread has used: user, system.
    fn thread_cpu_time(&self) -> (Duration, Duration);
    /// Fills `buf` with random bytes.
    fn random(&self, buf: &mut [u8]);
    /// Runs `body` on a new host thread.
    ///
    /// # Errors
    /// The host's refusal (thread limits).
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;
    /// CPUs a guest sees.
    fn cpus(&self) -> usize;
    /// Bytes of physical memory the host has.
    fn total_memory(&self) -> u64;
    /// Descriptors the monitor may have open (RLIMIT_NOFILE), of which what is only kept to save time
    /// takes a small part.
    fn descriptors(&self) -> usize {
        1024
    }
    /// Opens the directory tree at `path` on the host; nothing outside it can be reached through
    /// the result.
    ///
    /// # Errors
    /// The host's errno.
    fn open_tree(&self, path: &Path) -> Result<Arc<dyn HostTree>, Errno>;
}

/// Clocks as a line over the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockLine {
    /// The counter at its beginning.
    pub tsc: u64,
    /// Nanoseconds a tick, times 2^32.
    pub slope: u64,
    /// `CLOCK_MONOTONIC` at its beginning, nanoseconds.
    pub mono: u64,
    /// `CLOCK_REALTIME` at its beginning, nanoseconds since the epoch.
    pub real: u64,
}

impl ClockLine {
    /// Nanoseconds from its beginning to `tsc`; 0 before it.
    #[must_use]
    pub fn passed(&self, tsc: u64) -> u64 {
        // Counters of different CPUs may differ by a few ticks.
        let ticks = tsc.saturating_sub(self.tsc);
        u64::try_from((u128::from(ticks) * u128::from(self.slope)) >> 32).unwrap_or(u64::MAX)
    }
}

/// Metadata of a host file.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "stat(2) names them")]
pub struct HostStat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: Duration,
    pub mtime: Duration,
    pub ctime: Duration,
}

/// One directory entry of the host.
#[derive(Clone, Debug)]
pub struct HostDirEntry {
    /// File name, no slash.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// `DT_*` of getdents(2).
    pub kind: u8,
}

/// A directory tree of the host. Paths are relative to its root, hold no `..`, and never follow a
/// symbolic link in any component (openat2 with RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS). A path of one
/// name is the cheap case: there is nothing to resolve but that name.
pub trait HostTree: Send + Sync {
    /// The directory at `path` as a tree of its own: it stays that directory, wherever the host moves
    /// it, and costs a descriptor while it lives.
    ///
    /// # Errors
    /// The host's errno.
    fn below(&self, path: &Path) -> Result<Arc<dyn HostTree>, Errno>;
    /// Metadata, of the link itself where it is one.
    ///
    /// # Errors
    /// The host's errno.
    fn stat(&self, path: &Path) -> Result<HostStat, Errno>;
    /// A symbolic link's text.
    ///
    /// # Errors
    /// The host's errno.
    fn read_link(&self, path: &Path) -> Result<Vec<u8>, Errno>;
    /// All entries but `.` and `..`.
    ///
    /// # Errors
    /// The host's errno.
    fn read_dir(&self, path: &Path) -> Result<Vec<HostDirEntry>, Errno>;
    /// Opens a regular file.
    ///
    /// # Errors
    /// The host's errno.
    fn open(&self, path: &Path, write: bool) -> Result<Arc<dyn HostFile>, Errno>;
    /// Creates and opens a regular file (O_CREAT | O_EXCL | O_RDWR).
    ///
    /// # Errors
    /// The host's errno.
    fn create(&self, path: &Path, mode: u32) -> Result<Arc<dyn HostFile>, Errno>;
    /// mkdir(2).
    ///
    /// # Errors
    /// The host's errno.
    fn mkdir(&self, path: &Path, mode: u32) -> Result<(), Errno>;
    /// symlink(2).
    ///
    /// # Errors
    /// The host's errno.
    fn symlink(&self, text: &[u8], path: &Path) -> Result<(), Errno>;
    /// link(2).
    ///
    /// # Errors
    /// The host's errno.
    fn link(&self, from: &Path, to: &Path) -> Result<(), Errno>;
    /// rename(2) with renameat2(2)'s flags.
    ///
    /// # Errors
    /// The host's errno.
    fn rename(&self, from: &Path, to: &Path, flags: u32) -> Result<(), Errno>;
    /// unlink(2), or rmdir(2) when `dir`.
    ///
    /// # Errors
    /// The host's errno.
    fn unlink(&self, path: &Path, dir: bool) -> Result<(), Errno>;
    /// chmod, chown (`u32::MAX` keeps) and utimens in one; `None` keeps.
    ///
    /// # Errors
    /// The host's errno.
    fn set_attr(
        &self,
        path: &Path,
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
        times: Option<(Duration, Duration)>,
    ) -> Result<(), Errno>;
    /// statfs(2): block size, total, free and available blocks, files, free files.
    ///
    /// # Errors
    /// The host's errno.
    fn statfs(&self) -> Result<[u64; 6], Errno>;
}

/// Most parts of one [`HostFile::read_parts`].
pub const MAX_PARTS: usize = 64;

/// An open regular file of the host.
pub trait HostFile: Send + Sync {
    /// pread(2) into guest memory; 0 at the end of the file.
    ///
    /// # Errors
    /// The host's errno.
    fn read_into(&self, dst: VolatileSlice<'_>, offset: u64) -> Result<usize, Errno>;
    /// preadv(2) into guest memory, of at most [`MAX_PARTS`] parts; may read less.
    ///
    /// # Errors
    /// The host's errno.
    fn read_parts(&self, dst: &[VolatileSlice<'_>], offset: u64) -> Result<usize, Errno>;
    /// pread(2).
    ///
    /// # Errors
    /// The host's errno.
    fn read_at(&self, dst: &mut [u8], offset: u64) -> Result<usize, Errno>;
    /// pwrite(2).
    ///
    /// # Errors
    /// The host's errno.
    fn write_at(&self, src: &[u8], offset: u64) -> Result<usize, Errno>;
    /// ftruncate(2).
    ///
    /// # Errors
    /// The host's errno.
    fn set_len(&self, len: u64) -> Result<(), Errno>;
    /// fsync(2).
    ///
    /// # Errors
    /// The host's errno.
    fn sync(&self) -> Result<(), Errno>;
    /// fstat(2).
    ///
    /// # Errors
    /// The host's errno.
    fn stat(&self) -> Result<HostStat, Errno>;
}
