//! A guest thread's CPU: a worker thread of its space's stub process, run by PTRACE_SYSEMU.

use std::{io, rc::Rc, sync::Arc};

use libc::user_regs_struct;
use trapgate_kernel::platform::{
    Access, AddressSpace, Cpu, Exit, Fault, Kick, PlatformError, Registers, USER_END,
};

use super::{
    Shared, fpu,
    seat::{Hops, KICK, NOWHERE, Seat},
    space::{Space, Verdict},
    sys::{self, Status},
    tracee::{self, RFLAGS, Tracee, USER_CS, USER_SS, host, is_fault},
};

/// A guest thread's CPU.
pub struct PtraceCpu {
    shared: Arc<Shared>,
    space: Arc<dyn AddressSpace>,
    tracee: Rc<Tracee>,
    seat: Arc<Seat>,
    hops: Hops,
    /// The tracee's registers, if it would go on with them as they are.
    loaded: Option<Registers>,
    area: Vec<u8>,
}

fn as_space(space: &Arc<dyn AddressSpace>) -> Result<&Space, PlatformError> {
    space.as_any().downcast_ref().ok_or_else(|| PlatformError::Host {
        op: "an address space of another platform",
        source: io::ErrorKind::InvalidInput.into(),
    })
}

impl PtraceCpu {
    /// A CPU for the calling thread.
    pub(super) fn new(
        shared: &Arc<Shared>,
        space: &Arc<dyn AddressSpace>,
    ) -> Result<PtraceCpu, PlatformError> {
        let (tracee, used) = as_space(space)?.take_worker()?;
        let tracee = Rc::new(tracee);
        let seat = Arc::new(Seat::new());
        shared.balancer.add(&seat);
        let mut cpu = PtraceCpu {
            shared: shared.clone(),
            space: space.clone(),
            tracee,
            seat,
            hops: Hops::default(),
            loaded: None,
            area: Vec::new(),
        };
        cpu.take_up(used)?;
        Ok(cpu)
    }

    /// Finishes taking up a new tracee.
    fn take_up(&mut self, used: bool) -> Result<(), PlatformError> {
        let space = as_space(&self.space)?;
        tracee::own(space.id, &self.tracee);
        self.seat.aim(space.pid().map(|pid| (pid, self.tracee.tid)), self.tracee.cpu);
        if used { self.reset_fpu() } else { Ok(()) }
    }
    fn let_go(&mut self) {
        self.seat.aim(None, NOWHERE);
        tracee::disown(&self.tracee);
        if let Ok(space) = as_space(&self.space) {
            space.return_worker(&self.tracee);
        }
    }

    /// The tracee's thread id, for tests.
    #[must_use]
    pub fn stub_thread(&self) -> i32 {
        self.tracee.tid
    }

    /// Reads the tracee's FPU state into `self.area`.
    fn read_area(&mut self) -> Result<(), PlatformError> {
        if self.area.is_empty() {
            self.area = vec![0; 16 << 10];
        }
        let len = sys::xstate(self.tracee.tid, &mut self.area).map_err(host("PTRACE_GETREGSET"))?;
        self.area.truncate(len);
        Ok(())
    }

    /// Gives the tracee the guest's registers.
    fn load(&mut self, regs: &Registers) -> Result<(), PlatformError> {
        if !self.tracee.dirty.get() && self.loaded == Some(*regs) {
            return Ok(());
        }
        let raw = to_raw(regs);
        let tid = self.tracee.tid;
        if raw.fs_base < USER_END && raw.gs_base < USER_END {
            sys::set_registers(tid, &raw).map_err(host("PTRACE_SETREGS"))?;
        } else {
            // WRFSBASE takes any canonical base, ptrace(2) only a user's. Such a base stays in the
            // tracee; all else is set one by one.
            self.load_singly(&raw)?;
        }
        self.tracee.dirty.set(false);
        self.loaded = Some(*regs);
        Ok(())
    }

    fn load_singly(&self, raw: &user_regs_struct) -> Result<(), PlatformError> {
        let base = std::mem::offset_of!(libc::user, regs);
        let values: [(usize, u64); 24] = {
            use std::mem::offset_of as at;
            type R = user_regs_struct;
            [
                (at!(R, r15), raw.r15),
                (at!(R, r14), raw.r14),
                (at!(R, r13), raw.r13),
                (at!(R, r12), raw.r12),
                (at!(R, rbp), raw.rbp),
                (at!(R, rbx), raw.rbx),
                (at!(R, r11), raw.r11),
                (at!(R, r10), raw.r10),
                (at!(R, r9), raw.r9),
                (at!(R, r8), raw.r8),
                (at!(R, rax), raw.rax),
                (at!(R, rcx), raw.rcx),
                (at!(R, rdx), raw.rdx),
                (at!(R, rsi), raw.rsi),
                (at!(R, rdi), raw.rdi),
                (at!(R, orig_rax), raw.orig_rax),
                (at!(R, rip), raw.rip),
                (at!(R, cs), raw.cs),
                (at!(R, eflags), raw.eflags),
                (at!(R, rsp), raw.rsp),
                (at!(R, ss), raw.ss),
                (at!(R, fs_base), raw.fs_base),
                (at!(R, gs_base), raw.gs_base),
                (at!(R, ds), raw.ds),
            ]
        };
        for (offset, value) in values {
            let is_base = offset == std::mem::offset_of!(user_regs_struct, fs_base)
                || offset == std::mem::offset_of!(user_regs_struct, gs_base);
            if is_base && value >= USER_END {
                continue;
            }
            let poked = sys::poke_user(self.tracee.tid, base + offset, value);
            poked.map_err(host("PTRACE_POKEUSER"))?;
        }
        Ok(())
    }

    /// What a stop means; `None` to go on as if nothing had been.
    fn decode(
        &mut self,
        status: Status,
        regs: &mut Registers,
    ) -> Result<Option<Exit>, PlatformError> {
        let signal = match status {
            Status::Gone => return Err(PlatformError::Gone),
            Status::Syscall => 0,
            Status::Signal(signal) => signal,
            // Someone outside stopped the process (SIGSTOP): not for them to say.
            Status::Event => return Ok(None),
        };
        if signal != 0 && signal != KICK && !is_fault(signal) {
            return Ok(None);
        }
        if signal == KICK && !self.seat.is_kicked() {
            return Ok(None);
        }
        let raw = sys::registers(self.tracee.tid).map_err(host("PTRACE_GETREGS"))?;
        let exit = match signal {
            0 => syscall(&raw),
            KICK => {
                self.seat.take_kick();
                Exit::Interrupted
            }
            _ => match self.fault()? {
                Some(fault) => Exit::Fault(fault),
                None => return Ok(None),
            },
        };
        *regs = from_raw(&raw);
        self.loaded = None;
        match exit {
            Exit::Syscall => regs.rax = raw.orig_rax,
            // INT n is a fault at the instruction, whose call number the host moved aside.
            Exit::Fault(_) if signal == 0 => {
                regs.rax = raw.orig_rax;
                regs.rip = raw.rip.wrapping_sub(2);
            }
            Exit::Fault(fault) if signal == libc::SIGSYS => {
                // The host has already made the vsyscall page's RET.
                regs.rip = fault.addr;
                regs.rsp = regs.rsp.wrapping_sub(8);
            }
            _ => self.loaded = Some(*regs),
        }
        Ok(Some(exit))
    }

    /// The exception behind a signal, if the processor raised it.
    fn fault(&mut self) -> Result<Option<Fault>, PlatformError> {
        let info = sys::signal_info(self.tracee.tid).map_err(host("PTRACE_GETSIGINFO"))?;
        if info.si_code <= 0 {
            return Ok(None);
        }
        // SAFETY: for the signals of `is_fault` with a kernel code the address is what the union holds.
        let addr = unsafe { info.si_addr() }.addr() as u64;
        let plain = |vector| Fault { vector, error: 0, addr: 0, access: Access::Unknown };
        let page = Fault { vector: 14, error: 0, addr, access: Access::Unknown };
        Ok(Some(match (info.si_signo, info.si_code) {
            (libc::SIGSEGV, SI_KERNEL) => plain(13),
            (libc::SIGSEGV, _) => page,
            (libc::SIGSYS, _) => Fault { access: Access::Exec, ..page },
            (libc::SIGBUS, BUS_ADRALN) => plain(17),
            (libc::SIGBUS, SI_KERNEL) => plain(12),
            // A page of guest RAM that the host could not give.
            (libc::SIGBUS, _) => return Err(PlatformError::OutOfMemory("guest RAM on the host")),
            (libc::SIGFPE, FPE_INTDIV) => plain(0),
            (libc::SIGFPE, FPE_INTOVF) => plain(4),
            (libc::SIGFPE, _) => {
                self.read_area()?;
                plain(if fpu::is_simd_exception(&self.area) { 19 } else { 16 })
            }
            (libc::SIGILL, _) => plain(6),
            (libc::SIGTRAP, SI_KERNEL) => plain(3),
            (_, _) => plain(1),
        }))
    }
}

// siginfo codes (sigaction(2)).
const SI_KERNEL: i32 = 0x80;
const BUS_ADRALN: i32 = 1;
const FPE_INTDIV: i32 = 1;
const FPE_INTOVF: i32 = 2;

/// What kind of system call stopped the tracee.
fn syscall(raw: &user_regs_struct) -> Exit {
    // SYSCALL leaves RIP in RCX and RFLAGS in R11; INT 0x80 and SYSENTER leave them alone. A guest
    // that forges both before INT 0x80 only fools itself. The 32-bit SYSCALL runs in another CS.
    const RF: u64 = 1 << 16;
    if raw.cs == USER_CS && raw.rcx == raw.rip && (raw.r11 ^ raw.eflags) & !RF == 0 {
        Exit::Syscall
    } else {
        let error = 0x80 << 3 | 2;
        Exit::Fault(Fault { vector: 13, error, addr: 0, access: Access::Unknown })
    }
}

fn to_raw(regs: &Registers) -> user_regs_struct {
    user_regs_struct {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rsp: regs.rsp,
        rbp: regs.rbp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rip: regs.rip,
        eflags: regs.rflags | RFLAGS,
        fs_base: regs.fs_base,
        gs_base: regs.gs_base,
        cs: USER_CS,
        ss: USER_SS,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
        // Not in a system call: the host must not restart one.
        orig_rax: u64::MAX,
    }
}

fn from_raw(raw: &user_regs_struct) -> Registers {
    Registers {
        rax: raw.rax,
        rbx: raw.rbx,
        rcx: raw.rcx,
        rdx: raw.rdx,
        rsi: raw.rsi,
        rdi: raw.rdi,
        rsp: raw.rsp,
        rbp: raw.rbp,
        r8: raw.r8,
        r9: raw.r9,
        r10: raw.r10,
        r11: raw.r11,
        r12: raw.r12,
        r13: raw.r13,
        r14: raw.r14,
        r15: raw.r15,
        rip: raw.rip,
        rflags: raw.eflags,
        fs_base: raw.fs_base,
        gs_base: raw.gs_base,
    }
}

impl Cpu for PtraceCpu {
    fn run(&mut self, regs: &mut Registers) -> Result<Exit, PlatformError> {
        let space = self.space.clone();
        let space = as_space(&space)?;
        let epoch = space.enter(&self.tracee)?;
        let result = self.run_entered(regs, space, epoch);
        self.seat.leave();
        space.leave();
        if matches!(result, Err(PlatformError::Gone)) {
            space.set_broken();
        }
        result
    }

    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        let (tracee, used) = as_space(space)?.take_worker()?;
        self.let_go();
        self.tracee = Rc::new(tracee);
        self.space = space.clone();
        self.take_up(used)
    }

    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError> {
        self.read_area()?;
        Ok(self.shared.fpu.export(&self.area))
    }

    fn set_fpu(&mut self, area: &[u8]) -> Result<(), PlatformError> {
        self.read_area()?;
        let invalid =
            || PlatformError::Host { op: "FPU state", source: io::ErrorKind::InvalidInput.into() };
        let area = self.shared.fpu.import(area, &self.area).ok_or_else(invalid)?;
        match sys::set_xstate(self.tracee.tid, &area) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(invalid()),
            done => done.map_err(host("PTRACE_SETREGSET")),
        }
    }

    fn reset_fpu(&mut self) -> Result<(), PlatformError> {
        let initial = self.shared.fpu.initial();
        self.set_fpu(&initial)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.seat.clone()
    }
}

impl PtraceCpu {
    /// The inside of [`Cpu::run`], with the space entered.
    fn run_entered(
        &mut self,
        regs: &mut Registers,
        space: &Space,
        mut epoch: u64,
    ) -> Result<Exit, PlatformError> {
        let tid = self.tracee.tid;
        self.seat.place(tid, &mut self.hops);
        self.load(regs)?;
        if !self.seat.enter() {
            return Ok(Exit::Interrupted);
        }
        self.shared.balancer.note_entry();
        let mut last = None;
        loop {
            sys::resume_emulated(tid).map_err(host("PTRACE_SYSEMU"))?;
            let status = sys::wait(tid);
            let Some(exit) = self.decode(status, regs)? else { continue };
            let Exit::Fault(Fault { vector: 14, addr, .. }) = exit else { return Ok(exit) };
            let place = (regs.rip, addr);
            let again = last.replace(place) == Some(place);
            match space.judge(&self.tracee, place, &mut epoch, again)? {
                Verdict::Retry => {}
                Verdict::RetryFresh => self.load(regs)?,
                Verdict::Report(access) => {
                    return Ok(Exit::Fault(Fault { vector: 14, error: 0, addr, access }));
                }
            }
            // A kick's signal may have been dropped in the stub's code.
            if self.seat.take_kick() {
                return Ok(Exit::Interrupted);
            }
        }
    }
}

impl Drop for PtraceCpu {
    fn drop(&mut self) {
        self.let_go();
    }
}
