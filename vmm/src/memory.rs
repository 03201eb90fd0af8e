//! Guest RAM: one sparse memfd, mapped once here, given to KVM as a slot or two and to ptrace stubs page
//! by page.
//!
//! The whole region is reserved at start and committed by the host on first touch, so memory slots
//! never change; one may be added. Unsafe code: the two host calls on the mapping.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    sync::Arc,
};

use trapgate_kernel::{
    frames::{Backing, Frames},
    platform::Gpa,
};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Where guest RAM starts: above every hole of the PC's 32-bit space (LAPIC, IOAPIC, the real-mode
/// TSS of old VMX), so that they lie in a row.
pub const RAM_BASE: u64 = 1 << 32;

/// Why guest RAM could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// memfd_create(2) or its sizing failed.
    #[error("cannot create {size} bytes of guest memory: {source}")]
    Memfd {
        /// Bytes asked for.
        size: u64,
        /// The host's error.
        source: io::Error,
    },
    /// The mapping failed.
    #[error("cannot map {size} bytes of guest memory (lower --mem): {source}")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// The library's error.
        source: vm_memory::mmap::FromRangesError,
    },
}

/// Guest RAM and its allocator.
#[derive(Clone)]
pub struct GuestRam {
    /// The frames.
    pub frames: Arc<Frames>,
    /// The memfd behind them; offset 0 is [`RAM_BASE`].
    pub memfd: Arc<File>,
    /// Bytes, a multiple of 2 MiB.
    pub size: u64,
}

impl GuestRam {
    /// Reserves `size` bytes, rounded up to 2 MiB.
    ///
    /// # Errors
    /// [`MemoryError`] when the host refuses.
    pub fn new(size: u64) -> Result<GuestRam, MemoryError> {
        let size = size.next_multiple_of(2 << 20);
        let fail = |source| MemoryError::Memfd { size, source };
        // SAFETY: the name is a NUL-terminated literal; the flags are defined by memfd_create(2).
        let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(fail(io::Error::last_os_error()));
        }
        // SAFETY: `fd` was just returned to us and nobody else owns it.
        let memfd = unsafe { File::from_raw_fd(fd) };
        memfd.set_len(size).map_err(fail)?;
        let file = FileOffset::new(memfd.try_clone().map_err(fail)?, 0);
        let len = usize::try_from(size).map_err(|_| fail(io::ErrorKind::InvalidInput.into()))?;
        let memory =
            GuestMemoryMmap::from_ranges_with_files([(GuestAddress(RAM_BASE), len, Some(file))])
                .map_err(|source| MemoryError::Map { size, source })?;
        let memory = Arc::new(memory);
        let memfd = Arc::new(memfd);
        let mapping = memory
            .get_host_address(GuestAddress(RAM_BASE))
            .map_err(|_| fail(io::ErrorKind::InvalidInput.into()))?
            .expose_provenance();
        let backing = Box::new(Memfd { memfd: memfd.clone(), mapping });
        let frames = Frames::new(memory, Gpa(RAM_BASE), size, backing);
        Ok(GuestRam { frames, memfd, size })
    }

    /// Where `gpa` is mapped in this process.
    ///
    /// # Panics
    /// If `gpa` lies outside guest RAM (our bug).
    #[must_use]
    pub fn host_address(&self, gpa: Gpa) -> *mut u8 {
        self.frames
            .memory()
            .get_host_address(GuestAddress(gpa.0))
            .expect("a guest-physical address of ours")
    }
}

struct Memfd {
    memfd: Arc<File>,
    /// Where the monitor has it mapped. `Frames` owns this and the mapping.
    mapping: usize,
}

impl Backing for Memfd {
    fn discard(&self, gpa: Gpa, len: u64) {
        let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (offset, len) = ((gpa.0 - RAM_BASE).cast_signed(), len.cast_signed());
        // SAFETY: the descriptor is ours and open; fallocate(2) touches no memory of this process
        // but the pages of the memfd, which their owners have given up.
        let rc = unsafe { libc::fallocate(self.memfd.as_raw_fd(), flags, offset, len) };
        // tmpfs supports hole punching since Linux 3.5; failing would break the zeroing promise.
        assert!(rc == 0, "fallocate(PUNCH_HOLE): {}", io::Error::last_os_error());
    }
    fn commit(&self, gpa: Gpa, len: u64) {
        let Some(offset) = gpa.0.checked_sub(RAM_BASE) else { return };
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else { return };
        // Only a hint, which hosts before 5.14 do not know; failing costs one fault a page.
        // SAFETY: MADV_POPULATE_WRITE changes no byte of any mapping.
        let _ = unsafe {
            let at = std::ptr::with_exposed_provenance_mut(self.mapping + offset);
            libc::madvise(at, len, libc::MADV_POPULATE_WRITE)
        };
    }
}
