//! A regular host file.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs;
use trapgate_kernel::{
    error::Errno,
    host::{HostFile, HostStat},
};
use vm_memory::VolatileSlice;

use super::errno;

/// An open regular file.
pub struct RegularFile {
    fd: OwnedFd,
}

impl RegularFile {
    /// Wraps a descriptor known to be a regular file's.
    pub fn new(fd: OwnedFd) -> RegularFile {
        RegularFile { fd }
    }
}

/// errno after a failed call.
fn last_error() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Errno::from_raw(code).unwrap_or(Errno::EIO)
}

impl HostFile for RegularFile {
    fn read_into(&self, dst: VolatileSlice<'_>, offset: u64) -> Result<usize, Errno> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let guard = dst.ptr_guard_mut();
        // SAFETY: the guard keeps `dst.len()` bytes of guest RAM mapped and writable for the call;
        // guests may write there at the same time, which is theirs to sort out: no Rust reference
        // to the bytes exists. The descriptor is open.
        let n =
            unsafe { libc::pread(self.fd.as_raw_fd(), guard.as_ptr().cast(), dst.len(), offset) };
        usize::try_from(n).map_err(|_| last_error())
    }
    fn read_parts(&self, dst: &[VolatileSlice<'_>], offset: u64) -> Result<usize, Errno> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let guards: Vec<_> = dst.iter().map(VolatileSlice::ptr_guard_mut).collect();
        let parts: Vec<libc::iovec> = guards
            .iter()
            .map(|g| libc::iovec { iov_base: g.as_ptr().cast(), iov_len: g.len() })
            .collect();
        let count = libc::c_int::try_from(parts.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: as in `read_into`, for each part; the array of parts lives through the call.
        let n = unsafe { libc::preadv(self.fd.as_raw_fd(), parts.as_ptr(), count, offset) };
        usize::try_from(n).map_err(|_| last_error())
    }
    fn read_at(&self, dst: &mut [u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pread(&self.fd, dst, offset).map_err(errno)
    }
    fn write_at(&self, src: &[u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pwrite(&self.fd, src, offset).map_err(errno)
    }
    fn set_len(&self, len: u64) -> Result<(), Errno> {
        fs::ftruncate(&self.fd, len).map_err(errno)
    }
    fn sync(&self) -> Result<(), Errno> {
        fs::fsync(&self.fd).map_err(errno)
    }
    fn stat(&self) -> Result<HostStat, Errno> {
        fs::fstat(&self.fd).map(|raw| super::stat(&raw)).map_err(errno)
    }
}
