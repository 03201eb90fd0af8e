//! Making removed translations unusable (docs/revocation.md).
//!
//! Two steps, each one function. [`Revoker::zap`] drops KVM's knowledge of data frames: the host's
//! MMU notifier removes every shadow or nested entry for them and flushes every vCPU. It works on a
//! mapping of guest RAM that only KVM uses. [`Revoker::touch`] makes KVM forget its shadow of a
//! *page table*: it watches guest stores to pages it shadows, so the maintenance vCPU stores to them.
//! Retired table pages wait here until both was done to them, and only then are free again.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use trapgate_kernel::{
    frames::Frame,
    platform::{Gpa, PAGE_SIZE, PlatformError},
};

use super::{Counters, Machine, bump, vcpu::Vcpu};
use crate::memory::{GuestRam, RAM_BASE};

/// Retired table pages that are freed in one go.
const BATCH: usize = 64;

/// Longest run of which a zap drops the host's own entries as well.
const SHORT: usize = 128 << 10;
/// Most bytes an edit of an address space has the host commit ahead of the first store.
const POPULATE: u64 = 2 << 20;

/// Runs of guest-physical memory, merged as they come.
#[derive(Default)]
pub(super) struct Runs(Vec<(u64, u64)>);

impl Runs {
    pub(super) fn push(&mut self, gpa: u64, len: u64) {
        match self.0.last_mut() {
            Some((start, n)) if *start + *n == gpa => *n += len,
            Some((start, n)) if gpa + len == *start => {
                *start = gpa;
                *n += len;
            }
            _ => self.0.push((gpa, len)),
        }
    }
    /// Sorted and merged.
    fn merged(mut self) -> Vec<(u64, u64)> {
        self.0.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(self.0.len());
        for (gpa, len) in self.0 {
            match out.last_mut() {
                Some((start, n)) if gpa <= *start + *n => *n = (*n).max(gpa + len - *start),
                _ => out.push((gpa, len)),
            }
        }
        out
    }
}

pub(super) struct Revoker {
    /// KVM's own mapping of the memfd; the monitor reads and writes through another.
    slot: *mut libc::c_void,
    size: usize,
    /// Held while a window of `zap` is open; counts them.
    windows: Mutex<u64>,
    retired: Mutex<Vec<Frame>>,
    tables: AtomicU64,
    /// The vCPU that stores to page tables; only on hosts that shadow them.
    keeper: Mutex<Option<Vcpu>>,
}

// SAFETY: `slot` is an address that is handed to host calls only, never dereferenced here.
unsafe impl Send for Revoker {}
// SAFETY: as above; everything else is behind locks or atomic.
unsafe impl Sync for Revoker {}

impl Revoker {
    pub(super) fn new(ram: &GuestRam) -> io::Result<Revoker> {
        use std::os::fd::AsRawFd;
        let size = usize::try_from(ram.size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping of our own descriptor at an address the host chooses.
        let slot = unsafe {
            libc::mmap(std::ptr::null_mut(), size, prot, flags, ram.memfd.as_raw_fd(), 0)
        };
        if slot == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Revoker {
            slot,
            size,
            windows: Mutex::new(0),
            retired: Mutex::new(Vec::new()),
            tables: AtomicU64::new(0),
            keeper: Mutex::new(None),
        })
    }
    pub(super) fn slot_address(&self) -> u64 {
        self.slot as u64
    }
    /// Hands over the vCPU that will do the touching, if this host needs it.
    pub(super) fn adopt(&self, keeper: Vcpu, shadow: bool) {
        if shadow {
            *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        }
    }

    /// On return no vCPU can use a translation to these frames that is no longer in the page tables.
    ///
    /// Whatever takes the host's own entries away, or write access from them, makes the MMU notifier do
    /// that. MADV_DONTNEED does the first, which for a few pages is cheapest. Touching them again costs
    /// three times as much, so from longer runs write protection is taken and given back, for which the
    /// host splits and merges its mapping (20 us). The price is a window in which a vCPU that stores to the
    /// frame, rightly, through another translation leaves KVM_RUN with EFAULT; see [`Revoker::pass`].
    pub(super) fn zap(&self, runs: Runs, counters: &Counters) {
        if runs.0.is_empty() {
            return;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        *windows += 1;
        for (gpa, len) in runs.merged() {
            let offset = usize::try_from(gpa - RAM_BASE).unwrap_or(usize::MAX);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            assert!(offset.checked_add(len).is_some_and(|end| end <= self.size), "zap outside RAM");
            bump(&counters.zaps);
            counters.zapped_pages.fetch_add((len / 4096) as u64, Ordering::Relaxed);
            let at = self.slot.wrapping_byte_add(offset);
            if len <= SHORT {
                drop_entries(at, len);
                continue;
            }
            // SAFETY: the range lies in our mapping (asserted), into which nobody holds Rust
            // references; the monitor's own accesses go through another mapping.
            let closed = unsafe { libc::mprotect(at, len, libc::PROT_READ) } == 0;
            if !closed {
                // No host memory to split the mapping: drop the host's entries instead.
                drop_entries(at, len);
            }
            // SAFETY: as above.
            let rc = unsafe { libc::mprotect(at, len, libc::PROT_READ | libc::PROT_WRITE) };
            assert!(rc == 0, "mprotect: {}", io::Error::last_os_error());
        }
    }
    /// Has the host fill in its own entries for frames that guests are about to store to.
    ///
    /// A fault of KVM's own that finds them takes its neighbours along, eight at a time; one that does
    /// not costs the guest 3 us more for every page. More than [`POPULATE`] at once is left to be
    /// committed as it is touched: nobody knows that all of it will be.
    pub(super) fn populate(&self, runs: Runs) {
        if runs.0.iter().map(|(_, len)| len).sum::<u64>() > POPULATE {
            return;
        }
        for (gpa, len) in runs.merged() {
            let offset = usize::try_from(gpa - RAM_BASE).unwrap_or(usize::MAX);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            assert!(offset.checked_add(len).is_some_and(|end| end <= self.size), "outside RAM");
            // Only a hint: hosts before 5.14 do not know it, and it may meet a window of `zap`.
            // SAFETY: the range lies in our mapping (asserted); MADV_POPULATE_WRITE changes no byte.
            let _ = unsafe {
                libc::madvise(self.slot.wrapping_byte_add(offset), len, libc::MADV_POPULATE_WRITE)
            };
        }
    }
    /// Waits until no window of [`Revoker::zap`] is open; returns how many there were so far.
    pub(super) fn pass(&self) -> u64 {
        *self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On return KVM has forgotten its shadows of the page tables at `tables`. Their contents are
    /// left as they are; nobody may store to their last byte meanwhile.
    pub(super) fn touch(&self, tables: &[Gpa], machine: &Machine) -> Result<(), PlatformError> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(keeper) = keeper.as_mut() else { return Ok(()) };
        machine.counters.touches.fetch_add(tables.len() as u64, Ordering::Relaxed);
        keeper.touch(tables, machine)
    }

    /// A table frame came into use.
    pub(super) fn count_table(&self) {
        self.tables.fetch_add(1, Ordering::Relaxed);
    }
    /// Table frames in use, retired ones included.
    pub(super) fn tables(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }

    /// Takes a table page that no live table points to. It is freed later.
    pub(super) fn retire(&self, frame: Frame, machine: &Machine) {
        let full = {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.push(frame);
            retired.len() >= BATCH
        };
        if full {
            self.settle(machine);
        }
    }
    /// Frees all retired table pages.
    pub(super) fn settle(&self, machine: &Machine) {
        let frames =
            std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        if frames.is_empty() {
            return;
        }
        let tables: Vec<Gpa> = frames.iter().map(Frame::gpa).collect();
        if self.touch(&tables, machine).is_err() {
            // The pages cannot be made safe: keep them out of use for good.
            bump(&machine.counters.strange);
            frames.into_iter().for_each(|frame| {
                let _ = frame.into_gpa();
            });
            return;
        }
        let mut runs = Runs::default();
        for gpa in tables {
            runs.push(gpa.0, PAGE_SIZE);
        }
        self.zap(runs, &machine.counters);
        self.tables.fetch_sub(frames.len() as u64, Ordering::Relaxed);
    }
}

/// Drops the host's entries for a part of KVM's mapping.
fn drop_entries(at: *mut libc::c_void, len: usize) {
    // SAFETY: the caller's range lies in the slot's mapping, into which nobody holds Rust references; on a
    // shared file mapping MADV_DONTNEED discards page-table entries, not data (madvise(2)).
    let rc = unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) };
    assert!(rc == 0, "madvise: {}", io::Error::last_os_error());
}

impl Drop for Revoker {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and KVM's VM, its only user, was dropped before.
        unsafe {
            libc::munmap(self.slot, self.size);
        }
    }
}
