//! What the kernel asks of the machine below it: address spaces and CPUs.
//!
//! A platform (`kvm`, `ptrace`) implements these traits; the kernel holds the only copy of
//! policy (VMAs, frames, who may run) and a platform only makes it so. Neighbours: `mm` drives
//! [`AddressSpace`], `task::run` drives [`Cpu`].
//!
//! Invariants:
//! * A [`Frame`](crate::frames::Frame) may be reused only after every [`AddressSpace::apply`] that
//!   removed it from a space has returned.
//! * Adding or widening a translation is seen by every CPU at its next fault at the latest;
//!   removing, narrowing or redirecting one is seen by every CPU before `apply` returns.

use std::{ops::Range, sync::Arc, time::Duration};

use bitflags::bitflags;

/// Guest-physical address of a byte in the VM's one memory, as handed out by `frames`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gpa(pub u64);

/// Bytes in a page, the unit of every mapping.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// First address past what a guest may map: 47 bits less the guard page Linux keeps
/// (`TASK_SIZE_MAX`), so that no SYSCALL can end at a non-canonical return address.
pub const USER_END: u64 = 0x7fff_ffff_f000;
/// Lowest address a guest may map (`vm.mmap_min_addr`).
pub const USER_START: u64 = 0x1_0000;

bitflags! {
    /// Access a translation grants. `READ` is implied by the others on x86-64.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
    }
}

/// One edit of an address space; addresses and lengths are page-aligned, ranges lie below
/// [`USER_END`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Translate `[va, va+len)` to the physically contiguous `[gpa, gpa+len)`, replacing what was
    /// there. `prot` is never empty.
    Map {
        /// First guest-virtual byte.
        va: u64,
        /// First guest-physical byte.
        gpa: Gpa,
        /// Bytes.
        len: u64,
        /// Access granted.
        prot: Prot,
    },
    /// Translate nothing in `[va, va+len)`.
    Unmap {
        /// First guest-virtual byte.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// Change the access of whatever is translated in `[va, va+len)`; holes stay holes. An empty
    /// `prot` is an [`Edit::Unmap`].
    Protect {
        /// First guest-virtual byte.
        va: u64,
        /// Bytes.
        len: u64,
        /// Access granted from now on.
        prot: Prot,
    },
}

/// The host could not do what a platform asked of it.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// No memory left for page tables or stubs.
    #[error("out of memory for {0}")]
    OutOfMemory(&'static str),
    /// A host operation failed.
    #[error("{op}: {source}")]
    Host {
        /// The operation that failed.
        op: &'static str,
        /// Why, as the host words it.
        source: std::io::Error,
    },
    /// The address space's host side is gone (a stub was killed from outside).
    #[error("the address space's host process is gone")]
    Gone,
}

/// A backend: makes address spaces and CPUs.
pub trait Platform: Send + Sync {
    /// `kvm` or `ptrace`.
    fn name(&self) -> &'static str;
    /// A new space in which nothing is mapped.
    ///
    /// # Errors
    /// [`PlatformError`] when the host refuses the resources.
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError>;
    /// A CPU for one guest thread, to be used on the calling host thread only. It starts in
    /// `space`, with the FPU in its initial state.
    ///
    /// # Errors
    /// [`PlatformError`] when the host refuses the resources.
    fn new_cpu(&self, space: &Arc<dyn AddressSpace>) -> Result<Box<dyn Cpu>, PlatformError>;
    /// Addresses below [`USER_END`] that the platform keeps for itself in every space: the kernel
    /// places nothing there and refuses a guest that asks for them. Page-aligned, may be empty.
    fn reserved(&self) -> Range<u64> {
        USER_END..USER_END
    }
    /// Bytes of an XSAVE area holding all state a guest may use in standard format
    /// (`CPUID.0DH.0:EBX` for the features guests see), and the mask of those features (XCR0 bits).
    fn xsave_layout(&self) -> XsaveLayout;
    /// Guest code runs on the host thread that called [`Cpu::run`], so that the host bills its CPU
    /// time to that thread.
    fn bills_caller(&self) -> bool {
        true
    }
    /// A guest's RDTSC reads what the monitor's does.
    fn shares_tsc(&self) -> bool {
        true
    }
    /// Where a call site may jump to instead of executing SYSCALL, which does as SYSCALL does with RCX set to
    /// the address it goes on at; `None` where that would gain nothing. The same in every space.
    fn jump_gate(&self) -> Option<u64> {
        None
    }
    /// What went on below the kernel, for `--stats`.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
    /// Further counters of this platform alone: name and value, in display order.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Resources now in use that must return to their baseline once guests end: name and count
    /// (vCPU leases, page-table frames, stub processes...).
    fn in_use(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// What a platform did that the kernel does not see. Zero where it has no such thing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    /// Calls answered inside the guest, as the guest's own memory says.
    pub in_guest: u64,
    /// Calls in rings that server threads answered.
    pub by_servers: u64,
    /// Calls in rings that threads about to sleep answered.
    pub by_sleepers: u64,
    /// Calls that were in a ring and were left to the caller's own thread.
    pub passed_on: u64,
    /// Server threads.
    pub servers: u64,
    /// Times a server was woken.
    pub wakes: u64,
    /// Times a server went to sleep.
    pub sleeps: u64,
    /// How long servers were awake, all of them together.
    pub awake: Duration,
    /// Entries that the host refused because a page was being revoked.
    pub refused: u64,
    /// Exits that no guest should be able to cause; they reach the kernel as vector 8.
    pub strange: u64,
    /// Revocations.
    pub zaps: u64,
    /// Pages they took away.
    pub zapped_pages: u64,
}

/// Shape of the FPU state that [`Cpu::fpu`] returns (SDM vol. 1, 13.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XsaveLayout {
    /// Bytes, at least 576 (legacy region and header).
    pub size: usize,
    /// XCR0 feature bits that may be set in the area's XSTATE_BV.
    pub features: u64,
}

/// One guest address space.
pub trait AddressSpace: Send + Sync + std::any::Any {
    /// Makes `edits`, in order. On return no CPU of this space can use a translation that an edit
    /// removed, narrowed or redirected (see the module's invariants).
    ///
    /// # Errors
    /// [`PlatformError`]; the space is then in an unknown state and its process must be killed.
    fn apply(&self, edits: &[Edit]) -> Result<(), PlatformError>;
    /// An empty space for a fork of this one: what will be mapped in it resembles what is mapped here, and
    /// what was mapped in earlier forks. `None`: [`Platform::new_space`] will do.
    ///
    /// # Errors
    /// [`PlatformError`] when the host refuses the resources.
    fn fork(&self) -> Result<Option<Arc<dyn AddressSpace>>, PlatformError> {
        Ok(None)
    }
    /// No CPU uses the space, and none ever will again: it is about to be dropped. On return its frames may
    /// be reused.
    ///
    /// # Errors
    /// As [`AddressSpace::apply`].
    fn end(&self) -> Result<(), PlatformError> {
        self.apply(&[Edit::Unmap { va: 0, len: USER_END }])
    }
    /// Compares what processors may use here with what the kernel granted: `granted` has the frame and the access
    /// of a page. Nothing more may be usable; less may, for it is faulted in.
    ///
    /// # Errors
    /// The first page that is wrong, in words.
    fn check(&self, _granted: &dyn Fn(u64) -> Option<(Gpa, Prot)>) -> Result<(), String> {
        Ok(())
    }
    /// For implementations to find their own type again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// User-visible integer state of a guest thread.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the architecture names them")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// What a faulting access wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
    /// The platform cannot tell (ptrace).
    Unknown,
}

/// A hardware exception in guest user code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Architectural vector (SDM vol. 3, table 6-1): 0 #DE, 1 #DB, 3 #BP, 6 #UD, 13 #GP, 14 #PF...
    pub vector: u8,
    /// The pushed error code, 0 where there is none or it is unknown.
    pub error: u64,
    /// CR2 for #PF, else 0.
    pub addr: u64,
    /// For #PF: what the access wanted.
    pub access: Access,
}

/// Why [`Cpu::run`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A SYSCALL instruction. The registers are Linux's at entry: `rax` the number, `rip` after the
    /// instruction, `rcx`/`r11` as the architecture leaves them.
    Syscall,
    /// A hardware exception; `rip` is as the architecture reports it.
    Fault(Fault),
    /// [`Kick::kick`], or nothing in particular: look at what is pending and run again.
    Interrupted,
}

/// A guest thread's CPU. Lives and dies on one host thread.
pub trait Cpu {
    /// Runs guest code from `regs` until something needs the kernel; `regs` is updated. The CPU may
    /// have had its own copy of them since the last run, but `regs` is the truth.
    ///
    /// # Errors
    /// [`PlatformError::Gone`] when the space was destroyed under us; others are host failures.
    fn run(&mut self, regs: &mut Registers) -> Result<Exit, PlatformError>;
    /// Moves to another address space (execve). [`Cpu::serve_with`] and [`Cpu::answers`] are to be called anew.
    ///
    /// # Errors
    /// [`PlatformError`] when the host refuses the resources.
    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> Result<(), PlatformError>;
    /// The FPU state in XSAVE standard format, [`XsaveLayout::size`] bytes.
    ///
    /// # Errors
    /// [`PlatformError`] when the host fails.
    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError>;
    /// Replaces the FPU state; `area` is hostile (it may come from a guest's signal frame): a header
    /// the hardware would refuse is an `InvalidInput` [`PlatformError::Host`], never a panic. An
    /// area of 512 bytes is FXSAVE format.
    ///
    /// # Errors
    /// [`PlatformError`] as above; the old state is then kept.
    fn set_fpu(&mut self, area: &[u8]) -> Result<(), PlatformError>;
    /// Puts the FPU in its initial state (execve).
    ///
    /// # Errors
    /// [`PlatformError`] when the host fails.
    fn reset_fpu(&mut self) -> Result<(), PlatformError>;
    /// From now on `server` may answer system calls of this CPU on other threads, while it is in
    /// [`Cpu::run`]. Platforms without rings do nothing.
    fn serve_with(&mut self, server: Arc<dyn Serve>) {
        let _ = server;
    }
    /// Where answers go that the guest may know beforehand, if the platform has such a place.
    fn answers(&self) -> Option<Arc<dyn Answers>> {
        None
    }
    /// The calling thread is about to sleep in the kernel. The platform may first use it for a moment to
    /// answer other CPUs' system calls; it stops as soon as `woken` says so.
    fn idle(&mut self, woken: &dyn Fn() -> bool) {
        let _ = woken;
    }
    /// The calling thread sleeps no more ([`Cpu::idle`] came before).
    fn resume(&mut self) {}
    /// A handle with which other threads interrupt [`Cpu::run`].
    fn kicker(&self) -> Arc<dyn Kick>;
}

/// What became of a call that a ring server was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// Answered: RAX.
    Value(u64),
    /// Answered, but the CPU must come back to the kernel: something is pending.
    Leave(u64),
    /// To be answered on the CPU's own thread: [`Cpu::run`] returns [`Exit::Syscall`].
    Punt,
    /// To be answered by [`Serve::serve_whole`], or if the platform cannot, as [`Served::Punt`].
    Save,
    /// Answered by the registers as a whole.
    Load,
}

/// Answers a guest thread's system calls away from its CPU's own thread.
pub trait Serve: Send + Sync {
    /// Answers one call; never blocks. The platform sees to it that the CPU's own thread does nothing
    /// for the guest thread meanwhile. `caller` is the address after the SYSCALL instruction, `None` for a
    /// call from a rewritten site.
    fn serve(&self, number: u64, args: [u64; 6], caller: Option<u64>) -> Served;
    /// The same for a call that looks at the whole register file: `regs` (but for the segment bases, which are
    /// 0 and not to be changed) and `fpu`.
    fn serve_whole(&self, regs: &mut Registers, fpu: &mut dyn SavedFpu) -> Served;
}

/// A guest thread's FPU state, saved away from its CPU, to which it will be loaded again.
pub trait SavedFpu {
    /// As [`Cpu::fpu`].
    ///
    /// # Errors
    /// [`PlatformError`] when what is there is no state the hardware would take.
    fn get(&mut self) -> Result<Vec<u8>, PlatformError>;
    /// As [`Cpu::set_fpu`].
    ///
    /// # Errors
    /// As there.
    fn set(&mut self, area: &[u8]) -> Result<(), PlatformError>;
    /// As [`Cpu::reset_fpu`].
    fn reset(&mut self);
}

/// Answers to system calls that depend on nothing but the calling thread, kept where its CPU finds them
/// without leaving the guest.
pub trait Answers: Send + Sync {
    /// Call `number` of this thread is answered `value` from now on; `None` asks the kernel again.
    fn set(&self, number: u64, value: Option<u64>);
}

/// Interrupts a CPU from another thread.
pub trait Kick: Send + Sync {
    /// Makes the current or next [`Cpu::run`] return [`Exit::Interrupted`] soon. Never lost, may be
    /// spurious, harmless after the CPU has gone.
    fn kick(&self);
}
