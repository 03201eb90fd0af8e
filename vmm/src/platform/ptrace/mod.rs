//! The ptrace backend: guest code runs in *stub processes* that this process traces.
//!
//! One stub process per address space, one of its threads per guest thread, resumed with
//! PTRACE_SYSEMU so that a guest's SYSCALL stops and is skipped. Guest memory is pages of guest
//! RAM's memfd, mapped by calls we make the stub make (`stub`, `tracee`). All stubs are born from a
//! zygote (`zygote`) that has shed everything of the monitor's and lives under a seccomp floor
//! (`seccomp`). `docs/ptrace.md` tells the whole story.
//!
//! Invariants:
//! * Guest code runs only in a thread seized with PTRACE_O_EXITKILL, resumed with PTRACE_SYSEMU.
//! * What a stub thread does on our behalf depends on registers and read-only pages only.
//! * `Space::apply` orders edits and entries to guest code by one lock per space.

mod cpu;
mod fpu;
pub mod layout;
mod probe;
mod seat;
mod seccomp;
mod slots;
mod space;
mod stub;
mod sys;
mod table;
mod tracee;
mod zygote;

use std::{
    io,
    ops::Range,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use cpu::PtraceCpu;
pub use probe::{Probe, probe};
use trapgate_kernel::platform::{AddressSpace, Cpu, Platform, PlatformError, XsaveLayout};

use crate::memory::GuestRam;

/// Why the backend cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum PtraceError {
    /// The zygote could not be made.
    #[error("cannot make stub processes: {0}")]
    Zygote(#[source] io::Error),
    /// A first stub could not be run.
    #[error(
        "cannot trace stub processes (is ptrace allowed here? see kernel.yama.ptrace_scope): {0}"
    )]
    Trace(#[source] PlatformError),
    /// Guest RAM for the probe could not be made.
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
}

/// The backend.
pub struct PtracePlatform {
    shared: Arc<Shared>,
}

/// What spaces and CPUs share.
struct Shared {
    slots: Arc<slots::Slots>,
    zygote: zygote::Zygote,
    entries: stub::Entries,
    fpu: fpu::Fpu,
    balancer: seat::Balancer,
    /// Keeps guest RAM's descriptor open.
    _ram: GuestRam,
    processes: AtomicU64,
    threads: AtomicU64,
    batches: AtomicU64,
    calls: AtomicU64,
    evictions: AtomicU64,
}

impl PtracePlatform {
    /// Starts the backend for guests in `ram`. Call it before the monitor restricts itself.
    ///
    /// # Errors
    /// [`PtraceError`] when the host refuses.
    pub fn new(ram: &GuestRam) -> Result<Arc<PtracePlatform>, PtraceError> {
        sys::no_signal_for_stops();
        let fpu = fpu::Fpu::probe();
        let entries = stub::entries(fpu.pku);
        let slots = Arc::new(slots::Slots::new().map_err(PtraceError::Zygote)?);
        let zygote = zygote::Zygote::start(&slots, ram.memfd.as_raw_fd(), entries.zygote)
            .map_err(PtraceError::Zygote)?;
        let shared = Arc::new(Shared {
            slots,
            zygote,
            entries,
            fpu,
            balancer: seat::Balancer::start().map_err(PtraceError::Zygote)?,
            _ram: ram.clone(),
            processes: AtomicU64::new(0),
            threads: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        });
        Ok(Arc::new(PtracePlatform { shared }))
    }

    /// [`Platform::new_cpu`] with the concrete type, for tests.
    ///
    /// # Errors
    /// As there.
    pub fn new_ptrace_cpu(
        &self,
        space: &Arc<dyn AddressSpace>,
    ) -> Result<PtraceCpu, PlatformError> {
        PtraceCpu::new(&self.shared, space)
    }
}

impl Platform for PtracePlatform {
    fn name(&self) -> &'static str {
        "ptrace"
    }
    fn bills_caller(&self) -> bool {
        // Guest code runs in the stub's threads.
        false
    }
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(space::Space::new(&self.shared)))
    }
    fn new_cpu(&self, space: &Arc<dyn AddressSpace>) -> Result<Box<dyn Cpu>, PlatformError> {
        Ok(Box::new(self.new_ptrace_cpu(space)?))
    }
    fn reserved(&self) -> Range<u64> {
        layout::RESERVED
    }
    fn xsave_layout(&self) -> XsaveLayout {
        self.shared.fpu.layout
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("stub batches", self.shared.batches.load(Ordering::Relaxed)),
            ("stub calls", self.shared.calls.load(Ordering::Relaxed)),
            ("stub evictions", self.shared.evictions.load(Ordering::Relaxed)),
        ]
    }
    fn in_use(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("stub processes", self.shared.processes.load(Ordering::Relaxed)),
            ("stub threads", self.shared.threads.load(Ordering::Relaxed)),
        ]
    }
}
