//! The slot file: the memory that the monitor and its stubs share besides guest RAM.
//!
//! One sparse memfd, mapped once here. Page 0 is the stub code; slot 0 belongs to the zygote, every
//! other one to one stub process at a time (`layout` says what lies in them).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    ptr::NonNull,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    layout::{BATCH, CALL_SIZE, Call, SLOT_FILE_SIZE, SLOT_SIZE, SLOTS, slot_offset},
    stub,
};

/// The mapped slot file.
pub struct Slots {
    file: File,
    base: NonNull<u8>,
    free: Mutex<Free>,
}

struct Free {
    returned: Vec<usize>,
    fresh: usize,
}

// SAFETY: `base` points at a shared mapping that lives as long as `self` and that is accessed only
// through atomics, or by `write_calls`, whose callers own the slot.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Makes the file and puts the stub code in it.
    pub fn new() -> io::Result<Slots> {
        // SAFETY: the name is a NUL-terminated literal; the flags are defined by memfd_create(2).
        let fd = unsafe { libc::memfd_create(c"stub-slots".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned to us and nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(SLOT_FILE_SIZE as u64)?;
        std::os::unix::fs::FileExt::write_all_at(&file, stub::code(), 0)?;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the host's choice disturbs nothing.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), SLOT_FILE_SIZE, prot, flags, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Slots { file, base, free: Mutex::new(Free { returned: Vec::new(), fresh: 1 }) })
    }

    /// The file's descriptor.
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// A slot for a new process, its birth fields cleared.
    pub fn take(&self) -> Option<usize> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match free.returned.pop() {
            Some(slot) => slot,
            None if free.fresh < SLOTS => {
                free.fresh += 1;
                free.fresh - 1
            }
            None => return None,
        };
        drop(free);
        for offset in (0..16).step_by(4) {
            self.word(slot, offset).store(0, Ordering::Relaxed);
        }
        Some(slot)
    }
    /// Gives a slot back; its process will run nothing any more.
    pub fn give_back(&self, slot: usize) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(slot);
    }

    fn at(&self, slot: usize, offset: usize, len: usize) -> NonNull<u8> {
        assert!(slot < SLOTS && offset + len <= SLOT_SIZE && offset.is_multiple_of(len.min(8)));
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.add(slot_offset(slot) + offset) }
    }
    /// A 32-bit field of a slot.
    pub fn word(&self, slot: usize, offset: usize) -> &AtomicU32 {
        // SAFETY: in bounds and aligned by `at`; the mapping lives as long as `self`; this process
        // accesses these bytes atomically, or while no one else does (`write_calls`).
        unsafe { AtomicU32::from_ptr(self.at(slot, offset, 4).as_ptr().cast()) }
    }
    /// A 64-bit field of a slot.
    pub fn quad(&self, slot: usize, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.at(slot, offset, 8).as_ptr().cast()) }
    }
    /// Writes a batch of at most [`BATCH`] calls. The caller holds the lock of the space that the
    /// slot's process serves, and the thread that will run the batch is stopped.
    pub fn write_calls(&self, slot: usize, calls: &[Call]) {
        assert!(calls.len() <= BATCH);
        for (i, call) in calls.iter().enumerate() {
            let to: *mut Call = self.at(slot, i * CALL_SIZE, CALL_SIZE).as_ptr().cast();
            // SAFETY: in bounds and aligned (32 divides the page size); no thread of this process
            // accesses the slot meanwhile, and the stub's reader is stopped.
            unsafe { to.write_volatile(*call) };
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), SLOT_FILE_SIZE) };
    }
}
