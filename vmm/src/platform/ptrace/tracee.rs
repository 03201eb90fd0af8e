//! A stub thread under this host thread's control: taking it up, running stub code in it, letting go.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
};

use libc::user_regs_struct;
use trapgate_kernel::platform::PlatformError;

use super::{
    layout::{BATCH, CALL_SIZE, Call, RAM_FD, SLOT},
    slots::Slots,
    stub::{Entries, MAP_FLAGS, THREAD_FLAGS},
    sys::{self, Status, Tid},
};
use crate::platform::affinity::{self, CpuSet};

/// Code and stack selectors of 64-bit user code on Linux, the only ones a guest gets.
pub const USER_CS: u64 = 0x33;
/// See [`USER_CS`].
pub const USER_SS: u64 = 0x2b;
/// Bit 1 (always set) and IF.
pub const RFLAGS: u64 = 0x202;

/// Wraps a host error; "no such process" means that the stub was killed.
pub fn host(op: &'static str) -> impl FnOnce(io::Error) -> PlatformError {
    move |source| match source.raw_os_error() {
        Some(libc::ESRCH) => PlatformError::Gone,
        Some(libc::ENOMEM) => PlatformError::OutOfMemory(op),
        _ => PlatformError::Host { op, source },
    }
}

/// A stopped, seized stub thread of this host thread.
pub struct Tracee {
    /// Its thread id.
    pub tid: Tid,
    /// The CPU it was bound to when taken up.
    pub cpu: usize,
    /// Set when its registers are no longer the guest's.
    pub dirty: Cell<bool>,
    detached: Cell<bool>,
    entries: Entries,
}

impl Tracee {
    /// Takes up a parked thread.
    pub fn seize(tid: Tid, entries: Entries) -> Result<Tracee, PlatformError> {
        // Here first, so that it wakes on our CPU: a stop across CPUs costs several times more.
        let cpu = affinity::current();
        CpuSet::only(cpu).bind(tid);
        sys::seize(tid).map_err(host("PTRACE_SEIZE"))?;
        let (dirty, detached) = (Cell::new(true), Cell::new(false));
        let tracee = Tracee { tid, cpu, dirty, detached, entries };
        sys::interrupt(tid).map_err(host("PTRACE_INTERRUPT"))?;
        loop {
            match sys::wait(tid) {
                Status::Event => return Ok(tracee),
                Status::Signal(_) | Status::Syscall => {
                    sys::resume_free(tid).map_err(host("PTRACE_CONT"))?;
                }
                Status::Gone => return Err(PlatformError::Gone),
            }
        }
    }

    /// Runs stub code from `regs` to the trap before `end`; returns the registers there.
    fn inject(&self, regs: &user_regs_struct, end: u64) -> Result<user_regs_struct, PlatformError> {
        self.dirty.set(true);
        sys::set_registers(self.tid, regs).map_err(host("PTRACE_SETREGS"))?;
        loop {
            sys::resume_free(self.tid).map_err(host("PTRACE_CONT"))?;
            let fault = match sys::wait(self.tid) {
                Status::Gone => return Err(PlatformError::Gone),
                Status::Signal(libc::SIGTRAP) => {
                    let regs = sys::registers(self.tid).map_err(host("PTRACE_GETREGS"))?;
                    if regs.rip == end {
                        return Ok(regs);
                    }
                    true
                }
                Status::Signal(signal) => is_fault(signal),
                Status::Syscall | Status::Event => false,
            };
            // Signals from outside and late kicks are dropped; a fault in the stub is not survivable.
            if fault {
                let info = sys::signal_info(self.tid).map_err(host("PTRACE_GETSIGINFO"))?;
                if info.si_code > 0 {
                    let source = io::Error::other(format!("signal {}", info.si_signo));
                    return Err(PlatformError::Host { op: "stub code", source });
                }
            }
        }
    }

    /// Makes `calls` in the thread's process, whose slot is `slot`.
    pub fn batch(&self, slots: &Slots, slot: usize, calls: &[Call]) -> Result<(), PlatformError> {
        for chunk in calls.chunks(BATCH) {
            slots.write_calls(slot, chunk);
            let end = SLOT + (chunk.len() * CALL_SIZE) as u64;
            let regs = user_regs_struct {
                rbx: SLOT,
                rbp: end,
                r8: u64::from(RAM_FD.cast_unsigned()),
                r10: u64::from(MAP_FLAGS.cast_unsigned()),
                ..at(self.entries.batch)
            };
            let after = self.inject(&regs, self.entries.batch_end)?;
            if after.rax != 0 {
                let errno = i32::try_from(after.rax.wrapping_neg()).unwrap_or(libc::EINVAL);
                let op = "mappings in a stub process (see vm.max_map_count)";
                return Err(host(op)(io::Error::from_raw_os_error(errno)));
            }
            if after.rbx != end {
                let source = io::Error::other("batch incomplete");
                return Err(PlatformError::Host { op: "stub code", source });
            }
        }
        Ok(())
    }

    /// Makes another parked thread in the process.
    pub fn clone_thread(&self) -> Result<Tid, PlatformError> {
        let regs = user_regs_struct {
            rax: libc::SYS_clone.cast_unsigned(),
            rdi: u64::from(THREAD_FLAGS.cast_unsigned()),
            ..at(self.entries.clone)
        };
        let after = self.inject(&regs, self.entries.clone_end)?;
        match Tid::try_from(after.rax.cast_signed()) {
            Ok(tid) if tid > 0 => Ok(tid),
            _ => Err(PlatformError::OutOfMemory("a stub thread (pid limits?)")),
        }
    }

    /// Parks the thread and lets go of it; whether it still exists.
    pub fn release(&self) -> bool {
        self.detached.set(true);
        // Its registers first: never may guest code run without a tracer.
        let released = sys::set_registers(self.tid, &at(self.entries.park))
            .and_then(|()| sys::detach(self.tid, 0));
        if released.is_err() {
            // Killed from outside. A zombie is left over that only its tracer can remove, a moment
            // from now perhaps; the leader's waits for its threads and ends with this thread.
            for _ in 0..20 {
                if sys::reap(self.tid) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        released.is_ok()
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.detached.get() {
            self.release();
        }
    }
}

/// Registers for stub code at `rip`.
fn at(rip: u64) -> user_regs_struct {
    // SAFETY: a struct of integers, for which zero is valid.
    let zero: user_regs_struct = unsafe { std::mem::zeroed() };
    user_regs_struct {
        rip,
        cs: USER_CS,
        ss: USER_SS,
        eflags: RFLAGS,
        // Not in a system call, so the host has nothing to restart.
        orig_rax: u64::MAX,
        ..zero
    }
}

/// Whether the processor may have raised `signal`.
pub fn is_fault(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP | libc::SIGSYS
    )
}

thread_local! {
    /// The tracees of this host thread's CPUs, by the number of their space. All are stopped
    /// whenever other code than `Cpu::run` runs here.
    static OWN: RefCell<Vec<(u64, Rc<Tracee>)>> = const { RefCell::new(Vec::new()) };
}

/// Notes that this host thread has `tracee` in `space`.
pub fn own(space: u64, tracee: &Rc<Tracee>) {
    OWN.with_borrow_mut(|own| own.push((space, tracee.clone())));
}
/// Undoes [`own`].
pub fn disown(tracee: &Rc<Tracee>) {
    OWN.with_borrow_mut(|own| own.retain(|(_, other)| !Rc::ptr_eq(other, tracee)));
}
/// A tracee of this host thread in `space`.
pub fn owned(space: u64) -> Option<Rc<Tracee>> {
    OWN.with_borrow(|own| own.iter().find(|(id, _)| *id == space).map(|(_, tracee)| tracee.clone()))
}
