//! Addresses and shared structures of a stub process: what lies where, defined once.
//!
//! A stub's address space holds guest pages below [`STUB_BASE`] and, from there to the top, one page
//! of code (`stub.rs`) and one *slot*: pages of the slot file that the monitor writes and the stub
//! reads. Both are read-only in the stub once guest code can run there, so that no guest thread can
//! change what another thread of its process is told to do.

use std::ops::Range;

use trapgate_kernel::platform::USER_END;

/// First address the platform keeps for itself (see [`trapgate_kernel::platform::Platform::reserved`]).
pub const STUB_BASE: u64 = 0x7fff_ffff_0000;
/// The addresses no guest may map.
pub const RESERVED: Range<u64> = STUB_BASE..USER_END;
/// The page of stub code, the only one from which a stub may make host system calls.
pub const CODE: u64 = STUB_BASE;
/// The slot, as the stub sees it.
pub const SLOT: u64 = STUB_BASE + 0x1000;
/// Bytes in a slot.
pub const SLOT_SIZE: usize = 0x2000;
/// First byte after the stub's own pages.
pub const STUB_END: u64 = SLOT + SLOT_SIZE as u64;

/// Slots in the slot file, so stub processes alive at once. The file is sparse.
pub const SLOTS: usize = 16384;
/// Where slot `index` lies in the slot file; the code page comes first.
pub const fn slot_offset(index: usize) -> usize {
    0x1000 + index * SLOT_SIZE
}
/// Bytes in the slot file.
pub const SLOT_FILE_SIZE: usize = slot_offset(SLOTS);

/// The file descriptor of guest RAM in a stub.
pub const RAM_FD: i32 = 0;
/// The file descriptor of the slot file in a stub.
pub const SLOT_FD: i32 = 1;

/// Fields of the zygote's slot (slot 0); the zygote may write them. Forks asked for so far.
pub const ZYGOTE_WANT: usize = 0;
/// Ring of [`ZYGOTE_RING_LEN`] slot-file offsets, one for each fork asked for; the zygote overwrites
/// it with all ones if the fork fails.
pub const ZYGOTE_RING: usize = 64;
/// Entries in the ring.
pub const ZYGOTE_RING_LEN: u32 = 64;

/// Fields of a new process's slot, written by it before it is sealed. Set when the others are valid.
pub const BIRTH_READY: usize = 0;
/// Its process id, also its leader's thread id.
pub const BIRTH_PID: usize = 4;
/// The first worker's thread id.
pub const BIRTH_WORKER: usize = 8;

/// One call for the batch loop, as it lies in a sealed slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// mmap, munmap or mprotect.
    pub number: u32,
    /// `PROT_*`.
    pub prot: u32,
    /// First address.
    pub va: u64,
    /// Bytes.
    pub len: u64,
    /// Offset in guest RAM's file.
    pub offset: u64,
}
/// Bytes in a [`Call`].
pub const CALL_SIZE: usize = size_of::<Call>();
/// Calls that fit in a slot.
pub const BATCH: usize = SLOT_SIZE / CALL_SIZE;
