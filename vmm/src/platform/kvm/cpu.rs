//! A guest thread's CPU: enters the guest, and tells the kernel why it came back.

use std::sync::Arc;

use kvm_bindings::kvm_regs;
use trapgate_firmware::layout;
use trapgate_kernel::{
    frames::Frame,
    platform::{
        Access, AddressSpace, Answers, Cpu, Exit, Fault, Kick, PlatformError, Registers, Serve,
        USER_END,
    },
};

use super::{
    Kind, Machine, bump,
    cores::Berth,
    fpu, host,
    pool::{Pool, Seat},
    ring::{Found, Ring},
    server::Idler,
    space::{Space, canonical},
    vcpu::{MAX_REFUSALS, Stop, Vcpu},
};

/// RFLAGS a guest may choose: CF PF AF ZF SF TF DF OF RF AC ID. NT, IOPL and the virtual-8086 bits
/// are not among them; IF and bit 1 are always set.
const USER_FLAGS: u64 = 0x25_0dd5;
const FIXED_FLAGS: u64 = 0x202;
/// TF and RF, which SYSRET cannot restore as IRET does.
const NO_SYSRET_FLAGS: u64 = 0x1_0100;

/// #DB.
const DEBUG: u8 = 1;
/// #DF, reported where KVM gave up on the guest: always fatal.
const FATAL: Fault = Fault { vector: 8, error: 0, addr: 0, access: Access::Unknown };

pub(super) struct KvmCpu {
    machine: Arc<Machine>,
    pool: Arc<Pool>,
    seat: Arc<Seat>,
    space: Arc<dyn AddressSpace>,
    root: Option<Frame>,
    ring: Arc<Ring>,
    idler: Idler,
    berth: Berth,
    /// Its thread sleeps in the kernel.
    asleep: bool,
}

impl KvmCpu {
    pub(super) fn new(
        machine: Arc<Machine>,
        pool: Arc<Pool>,
        space: &Arc<dyn AddressSpace>,
    ) -> Result<KvmCpu, PlatformError> {
        let (root, ring) = Space::of(space)?.take_root()?;
        let root = Some(root);
        let (seat, space) = (pool.seat(), space.clone());
        machine.servers.busy();
        let berth = machine.servers.placement.join();
        let idler = Idler::default();
        Ok(KvmCpu { machine, pool, seat, space, root, ring, idler, berth, asleep: false })
    }

    /// What an exit means; `None`: nothing, run on.
    fn interpret(
        &self,
        vcpu: &mut Vcpu,
        stop: Stop,
        regs: &mut Registers,
    ) -> Result<Option<Exit>, PlatformError> {
        let ring3 = vcpu.cpl() == 3;
        let raw = vcpu.regs();
        let user_gate = self.machine.kind == Kind::Deprivileged;
        let phases = &self.machine.phases;
        let in_gate = raw.rip >= phases.entry && raw.rip < phases.end;
        let at_gate = raw.rip.wrapping_sub(phases.out) <= 2;
        let stub = raw.rip.wrapping_sub(layout::VECTORS);
        match stop {
            // In ring 3 a guest may jump to the gate as well: a system call with its RCX and R11.
            // A deprivileged host emulates some SYSCALLs (a wild RSP is enough): those raise the
            // CPL as on hardware.
            Stop::Out(layout::PORT_SYSCALL) if at_gate && (user_gate || !ring3) => {
                Ok(Some(self.leave_gate(regs, &raw, vcpu)))
            }
            Stop::Out(layout::PORT_EXCEPTION) if !ring3 && stub < 4096 => {
                let vector = u8::try_from(stub / layout::VECTOR_STRIDE).unwrap_or(8);
                let frame = vcpu.frame(raw.rsp, vector);
                store(regs, &raw, vcpu);
                let Some([error, rip, cs, rflags, rsp]) = frame else {
                    return Ok(Some(self.strange(vcpu)));
                };
                (regs.rip, regs.rflags, regs.rsp) = (rip, rflags, rsp);
                if cs & 3 != 3 {
                    // The gate or a stub itself faulted.
                    return Ok(Some(self.strange(vcpu)));
                }
                if vector == DEBUG && rip >= phases.entry && rip < phases.end {
                    // A single step in the gate, entered by a jump: as from SYSCALL, which masks TF.
                    return Ok(Some(self.found(regs, vcpu)));
                }
                Ok(Some(Exit::Fault(fault(vector, error, vcpu.sregs().cr2))))
            }
            // Deliver what is on its way first: the kernel may change RIP before the next run. The
            // exit follows at once.
            Stop::Interrupted if vcpu.event_pending()? => Ok(None),
            Stop::Interrupted if in_gate && (user_gate || !ring3) => {
                Ok(Some(self.leave_gate(regs, &raw, vcpu)))
            }
            Stop::Interrupted if !ring3 => {
                // Not yet in ring 3: `regs` still holds. Or in a stub or the gate: on to its exit.
                Ok((raw.rip == layout::SYSRET).then_some(Exit::Interrupted))
            }
            Stop::Interrupted => {
                store(regs, &raw, vcpu);
                Ok(Some(Exit::Interrupted))
            }
            Stop::Out(_) | Stop::In if ring3 => {
                // Ring 3 used the gate's port from elsewhere: what any other port gives, #GP.
                store(regs, &raw, vcpu);
                if stop == Stop::In {
                    vcpu.complete().map_err(host("KVM_RUN"))?;
                    regs.rip = vcpu.regs().rip;
                }
                regs.rip = self.back_up(regs.rip);
                Ok(Some(Exit::Fault(fault(13, 0, 0))))
            }
            _ => {
                store(regs, &raw, vcpu);
                Ok(Some(self.strange(vcpu)))
            }
        }
    }

    /// A vCPU that stopped in the gate: its caller's registers, and what is to be done for it.
    fn leave_gate(&self, regs: &mut Registers, raw: &kvm_regs, vcpu: &mut Vcpu) -> Exit {
        store(regs, raw, vcpu);
        self.found(regs, vcpu)
    }
    /// The same with the registers in `regs`.
    fn found(&self, regs: &mut Registers, vcpu: &Vcpu) -> Exit {
        match self.ring.recover(regs, &self.machine.phases) {
            Found::Call => Exit::Syscall,
            Found::Answered => Exit::Interrupted,
            Found::AnsweredWithFpu => {
                let area = self.ring.area(self.machine.xsave.size);
                let area = fpu::check(&area, self.machine.fpu_rules());
                // What XRSTOR would have refused the guest has put there itself.
                if area.and_then(|area| vcpu.set_fpu(&area)).is_err() {
                    return Exit::Fault(fault(13, 0, 0));
                }
                Exit::Interrupted
            }
        }
    }

    /// An exit no guest should be able to cause. It costs the guest its life, not the monitor.
    fn strange(&self, vcpu: &mut Vcpu) -> Exit {
        bump(&self.machine.counters.strange);
        vcpu.clear_events();
        Exit::Fault(FATAL)
    }

    /// The address of the port instruction that ends at `rip`.
    fn back_up(&self, rip: u64) -> u64 {
        let byte = |n: u64| Space::of(&self.space).ok()?.peek(rip.checked_sub(n)?);
        let mut len = match (byte(2), byte(1)) {
            (Some(0xe4..=0xe7), Some(layout::PORT_SYSCALL)) => 2,
            (_, Some(0x6c..=0x6f | 0xec..=0xef)) => 1,
            // A string instruction is reported at its own address.
            _ => 0,
        };
        while len > 0
            && len < 15
            && matches!(byte(len + 1), Some(0x66 | 0x67 | 0xf2 | 0xf3 | 0x40..=0x4f))
        {
            len += 1;
        }
        rip - len
    }
}

/// The exception as the kernel wants it.
pub(super) fn fault(vector: u8, error: u64, cr2: u64) -> Fault {
    let access = match error {
        _ if vector != 14 => Access::Unknown,
        e if e & 0x10 != 0 => Access::Exec,
        e if e & 2 != 0 => Access::Write,
        _ => Access::Read,
    };
    Fault { vector, error, addr: if vector == 14 { cr2 } else { 0 }, access }
}

/// The registers of the last exit.
fn store(regs: &mut Registers, raw: &kvm_regs, vcpu: &mut Vcpu) {
    let sregs = vcpu.sregs();
    *regs = Registers {
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
        rflags: raw.rflags,
        fs_base: sregs.fs.base,
        gs_base: sregs.gs.base,
    };
}

/// Loads `regs` and the root for the next entry, touching as little as possible.
fn load(vcpu: &mut Vcpu, regs: &Registers, root: u64, kind: Kind) {
    let flags = regs.rflags & USER_FLAGS | FIXED_FLAGS;
    let mut raw = kvm_regs {
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
        rflags: flags,
    };
    if vcpu.cpl() == 0 {
        // Where ring 0 is native, SYSRET is the cheaper way back. It loads RIP from RCX and RFLAGS from R11, as a returning system call wants them
        // anyway. RIP is below USER_END, so it cannot fault in ring 0.
        let sysret = kind == Kind::Hardware
            && regs.rcx == regs.rip
            && regs.r11 == flags
            && flags & NO_SYSRET_FLAGS == 0;
        if sysret {
            raw.rip = layout::SYSRET;
            raw.rflags = 2;
        } else {
            vcpu.set_ring(true);
        }
    }
    let sregs = vcpu.sregs();
    if sregs.fs.base != regs.fs_base || sregs.gs.base != regs.gs_base || sregs.cr3 != root {
        let sregs = vcpu.sregs_mut();
        sregs.fs.base = regs.fs_base;
        sregs.gs.base = regs.gs_base;
        sregs.cr3 = root;
    }
    vcpu.set_regs(&raw);
}

impl Cpu for KvmCpu {
    fn run(&mut self, regs: &mut Registers) -> Result<Exit, PlatformError> {
        // What the processor would refuse to load must not reach it.
        if regs.rip >= USER_END {
            return Ok(Exit::Fault(if canonical(regs.rip) {
                fault(14, 0x14, regs.rip)
            } else {
                fault(13, 0, 0)
            }));
        }
        if !canonical(regs.fs_base) || !canonical(regs.gs_base) {
            return Ok(Exit::Fault(fault(13, 0, 0)));
        }
        let root = self.root.as_ref().ok_or(PlatformError::Gone)?.gpa().0;
        let mut seated = self.seat.lock();
        let kicker = &self.seat.kicker;
        let exit = loop {
            if kicker.take() {
                break Exit::Interrupted;
            }
            if kicker.take_yield() {
                self.pool.leave(&self.seat, &mut seated, true);
            }
            if seated.vcpu.is_none() && !self.pool.sit(&self.seat, &mut seated)? {
                break Exit::Interrupted;
            }
            let Some(vcpu) = seated.vcpu.as_mut() else { continue };
            if !kicker.enter() {
                kicker.leave();
                continue;
            }
            load(vcpu, regs, root, self.machine.kind);
            let (mut refusals, mut windows) = (0, 0);
            let exit = loop {
                self.machine.servers.open(&self.ring);
                let mut stop = vcpu.run();
                self.machine.servers.close_ring(&self.ring);
                kicker.leave();
                if matches!(stop, Ok(Stop::Refused)) && refusals < MAX_REFUSALS {
                    // A store met a page another thread is revoking elsewhere: once more.
                    let now = self.machine.revoker.pass();
                    refusals = if now == windows { refusals + 1 } else { 0 };
                    windows = now;
                    bump(&self.machine.counters.refusals);
                    if kicker.enter() {
                        continue;
                    }
                    kicker.leave();
                    stop = Ok(Stop::Interrupted);
                }
                if let Some(exit) = self.interpret(vcpu, stop.map_err(host("KVM_RUN"))?, regs)? {
                    break exit;
                }
                // The exit is a few ring-0 instructions away; a kick stays pending until then.
                kicker.enter();
            };
            // The pool's wish is no business of the kernel's.
            if exit != Exit::Interrupted || !kicker.take_yield() {
                break exit;
            }
            self.pool.leave(&self.seat, &mut seated, true);
        };
        if exit == Exit::Interrupted {
            kicker.take();
        }
        drop(seated);
        if exit == Exit::Syscall {
            self.machine.servers.note_call();
        }
        self.pool.offer();
        Ok(exit)
    }
    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        let (root, ring) = Space::of(space)?.take_root()?;
        let old = self.root.replace(root);
        let old_ring = std::mem::replace(&mut self.ring, ring);
        let before = std::mem::replace(&mut self.space, space.clone());
        if let Some(old) = old {
            Space::of(&before)?.give_root(old, old_ring);
        }
        Ok(())
    }
    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError> {
        let seated = self.seat.lock();
        match &seated.vcpu {
            Some(vcpu) => vcpu.fpu(),
            None => Ok(seated.fpu.clone()),
        }
    }
    fn set_fpu(&mut self, area: &[u8]) -> Result<(), PlatformError> {
        let mut seated = self.seat.lock();
        let area = fpu::check(area, self.machine.fpu_rules())?;
        match &seated.vcpu {
            Some(vcpu) => vcpu.set_fpu(&area),
            None => {
                seated.fpu = area;
                Ok(())
            }
        }
    }
    fn reset_fpu(&mut self) -> Result<(), PlatformError> {
        self.set_fpu(&fpu::initial(self.machine.xsave))
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        self.seat.kicker.clone()
    }
    fn serve_with(&mut self, server: Arc<dyn Serve>) {
        self.ring.set_server(server);
    }
    fn idle(&mut self, woken: &dyn Fn() -> bool) {
        self.asleep = true;
        self.machine.servers.quiet();
        self.machine.servers.idle(&self.machine, &mut self.idler, woken);
    }
    fn resume(&mut self) {
        self.asleep = false;
        self.machine.servers.busy();
    }
    fn answers(&self) -> Option<Arc<dyn Answers>> {
        Some(self.ring.clone())
    }
}

impl Drop for KvmCpu {
    fn drop(&mut self) {
        if !self.asleep {
            self.machine.servers.quiet();
        }
        self.machine.servers.placement.leave(self.berth);
        self.pool.unseat(&self.seat);
        if let (Some(root), Ok(space)) = (self.root.take(), Space::of(&self.space)) {
            space.give_root(root, self.ring.clone());
        }
    }
}
