//! The monitor's side of the kernel's door to the host: every host call the kernel can cause is
//! made in this module.
//!
//! * `mod.rs`: clocks, randomness, threads, CPU time (clock_gettime, getrandom, clone, getrusage; at
//!   start sysinfo and prlimit64).
//! * `repeat.rs`: randomness from a seed and virtual time instead, which call nobody.
//! * `tree.rs`: a directory tree (openat2, fstat, newfstatat, readlinkat, getdents64, mkdirat, symlinkat,
//!   linkat, renameat2, unlinkat, fchmod, fchown, utimensat, fstatfs).
//! * `file.rs`: a regular file (pread, preadv, pwrite, ftruncate, fsync, fstat).
//! * `seccomp.rs`: the table of all these calls, from which the monitor's filter is made.
//! * `clock.rs`: the clocks again, and the time-stamp counter they are read by; `threads.rs`: threads.
//! * `resident.rs`: the monitor's own peak (openat before the filter is on, pread).
//! * `closed.rs`: which standard streams were closed at start (fcntl).
//! * `stream.rs`: the monitor's standard streams (read, write, pread, lseek, poll, epoll).

mod clock;
mod closed;
mod file;
mod repeat;
mod resident;
pub mod seccomp;
mod stream;
mod threads;
mod tree;

use std::{io, path::Path, sync::Arc, time::Duration};

pub(crate) use self::clock::counter;
pub use self::{
    repeat::RepeatableHost,
    resident::Resident,
    stream::{Shown, Streams},
};
use rustix::time::{ClockId, clock_gettime};
use trapgate_kernel::{
    error::Errno,
    host::{ClockLine, Host, HostStat, HostTree},
};

/// The real host.
pub struct LinuxHost {
    cpus: usize,
    memory: u64,
    descriptors: usize,
    threads: Arc<threads::Threads>,
    clock: clock::Clock,
}

impl LinuxHost {
    /// Looks at the machine once.
    #[must_use]
    pub fn new() -> LinuxHost {
        let info = rustix::system::sysinfo();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = info.totalram.saturating_mul(u64::from(info.mem_unit));
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors =
            descriptors.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        LinuxHost { cpus, memory, descriptors, threads: Arc::default(), clock: clock::Clock::new() }
    }
}

impl Default for LinuxHost {
    fn default() -> LinuxHost {
        LinuxHost::new()
    }
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    // Neither part is negative for clocks that count up from boot or the epoch.
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn timeval(value: libc::timeval) -> Duration {
    let micros = u32::try_from(value.tv_usec).unwrap_or(0);
    Duration::new(value.tv_sec.cast_unsigned(), micros.saturating_mul(1000))
}

impl Host for LinuxHost {
    fn monotonic(&self) -> Duration {
        self.clock.now().map_or_else(|| clock(ClockId::Monotonic), |(mono, _)| mono)
    }
    fn realtime(&self) -> Duration {
        self.clock.now().map_or_else(|| clock(ClockId::Realtime), |(_, real)| real)
    }
    fn refresh_clock(&self) -> Option<ClockLine> {
        self.clock.refresh()
    }
    fn boottime(&self) -> Duration {
        clock(ClockId::Boottime)
    }
    fn thread_cpu_time(&self) -> (Duration, Duration) {
        // SAFETY: an all-zero rusage is a valid value of a plain C structure.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a live, writable rusage; RUSAGE_THREAD is defined since Linux 2.6.26.
        let rc = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        if rc != 0 {
            return (Duration::ZERO, Duration::ZERO);
        }
        (timeval(usage.ru_utime), timeval(usage.ru_stime))
    }
    fn random(&self, buf: &mut [u8]) {
        let mut at = 0;
        while at < buf.len() {
            let rest = &mut buf[at..];
            // SAFETY: the pointer and length describe `rest`, which is writable and outlives the
            // call.
            let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            // Only EINTR is possible with these arguments; then nothing was written.
            at += usize::try_from(n).unwrap_or(0);
        }
    }
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.threads.spawn(name, body)
    }
    fn cpus(&self) -> usize {
        self.cpus
    }
    fn total_memory(&self) -> u64 {
        self.memory
    }
    fn descriptors(&self) -> usize {
        self.descriptors
    }
    fn open_tree(&self, path: &Path) -> Result<Arc<dyn HostTree>, Errno> {
        Ok(Arc::new(tree::Tree::open(path)?))
    }
}

/// The kernel's errno for a host error; one it does not know is EIO.
fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error()).unwrap_or(Errno::EIO)
}

fn stat(raw: &rustix::fs::Stat) -> HostStat {
    let time = |seconds: i64, nanos: u64| {
        let nanos = u32::try_from(nanos).unwrap_or(0);
        Duration::new(u64::try_from(seconds).unwrap_or(0), nanos)
    };
    HostStat {
        dev: raw.st_dev,
        ino: raw.st_ino,
        mode: raw.st_mode,
        nlink: raw.st_nlink,
        uid: raw.st_uid,
        gid: raw.st_gid,
        rdev: raw.st_rdev,
        size: raw.st_size.cast_unsigned(),
        blocks: raw.st_blocks.cast_unsigned(),
        atime: time(raw.st_atime, raw.st_atime_nsec),
        mtime: time(raw.st_mtime, raw.st_mtime_nsec),
        ctime: time(raw.st_ctime, raw.st_ctime_nsec),
    }
}
