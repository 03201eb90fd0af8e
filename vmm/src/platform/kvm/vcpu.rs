//! One virtual CPU: its registers through KVM_CAP_SYNC_REGS (or ioctls where that is missing), its
//! FPU, and KVM_RUN with the exits boiled down to what this monitor tells apart.

use std::{os::fd::AsRawFd, sync::Arc};

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_MEMORY_FAULT, Msrs, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_sregs, kvm_xcrs,
};
use kvm_ioctls::{SyncReg, VcpuFd};
use trapgate_firmware::layout;
use trapgate_kernel::platform::{Gpa, PAGE_SIZE, PlatformError};
use vm_memory::{Bytes, VolatileSlice};

use super::{Kind, KvmError, Machine, call, fpu, host, image};
use crate::memory::{GuestRam, RAM_BASE};

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_CSTAR: u32 = 0xc000_0083;
const MSR_SFMASK: u32 = 0xc000_0084;
/// What SYSCALL clears in RFLAGS: everything a ring-0 gate could trip over, as Linux does.
const SFMASK: u64 = 0x25_7fd5;
/// The same for a ring-3 gate, which puts the others back itself.
const SFMASK_USER: u64 = layout::ODD_FLAGS as u64;

/// PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;

/// How often in a row KVM_RUN may be refused a page while no zap explains it.
pub(super) const MAX_REFUSALS: u32 = 64;

/// Why KVM_RUN returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// An `out`.
    Out(u8),
    /// An `in`: KVM still wants to complete it.
    In,
    /// A signal or `immediate_exit`.
    Interrupted,
    /// The host would not give KVM a page.
    Refused,
    /// Any other exit reason.
    Other(u32),
}

pub(super) struct Vcpu {
    fd: VcpuFd,
    ram: GuestRam,
    page: Gpa,
    page_va: u64,
    sync: bool,
    /// The registers as of the last exit where there is no KVM_CAP_SYNC_REGS.
    regs: kvm_regs,
    sregs: kvm_sregs,
    dirty: bool,
    dirty_sregs: bool,
    layout: trapgate_kernel::platform::XsaveLayout,
    mxcsr_mask: u32,
}

fn segment(selector: u16) -> kvm_segment {
    let code = selector == layout::KERNEL_CS || selector == layout::USER_CS;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: if code { 11 } else { 3 },
        present: 1,
        dpl: u8::from(selector & 3 != 0) * 3,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

/// Has the guest's RDTSC read what ours does: the vCPU's offset becomes 0 (KVM_VCPU_TSC_OFFSET, KVM API
/// "generic vm device control"). Whether it does is probed (`probe::settle`), so an old host may refuse.
fn share_tsc(fd: &VcpuFd) {
    /// `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`.
    const KVM_SET_DEVICE_ATTR: libc::Ioctl = 0x4018_aee1;
    let offset = 0i64;
    let attribute = kvm_bindings::kvm_device_attr {
        group: kvm_bindings::KVM_VCPU_TSC_CTRL,
        attr: u64::from(kvm_bindings::KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the descriptor is a vCPU's; the attribute and the 8 bytes it points to are live and only
    // read.
    let _ = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) };
}

impl Vcpu {
    /// Creates vCPU `id` with everything set but the register file and the root.
    pub(super) fn new(machine: &Machine, id: u64, user_gate: bool) -> Result<Vcpu, KvmError> {
        let fd = machine.vm.create_vcpu(id).map_err(call("KVM_CREATE_VCPU"))?;
        let page =
            machine.image.vcpu_page(&machine.ram, id, user_gate).map_err(|_| KvmError::Memory)?;
        let page_va = layout::VCPU + id * PAGE_SIZE;
        let mut cpuid = machine.cpuid.clone();
        let apic = u32::try_from(id).unwrap_or(0);
        let (mut xsave, mut fsgsbase, mut smep, mut smap) = (false, false, false, false);
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => {
                    entry.ebx = entry.ebx & 0x00ff_ffff | (apic & 0xff) << 24;
                    xsave = entry.ecx & 1 << 26 != 0;
                }
                7 if entry.index == 0 => {
                    fsgsbase = entry.ebx & 1 != 0;
                    smep = entry.ebx & 1 << 7 != 0;
                    smap = entry.ebx & 1 << 20 != 0;
                }
                0xb | 0x1f => entry.edx = apic,
                _ => {}
            }
        }
        fd.set_cpuid2(&cpuid).map_err(call("KVM_SET_CPUID2"))?;
        let mut sregs = fd.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        sregs.cr0 = CR0;
        sregs.cr4 = CR4;
        for (have, bit) in [(xsave, CR4_OSXSAVE), (fsgsbase, CR4_FSGSBASE)] {
            sregs.cr4 |= if have { bit } else { 0 };
        }
        if !user_gate {
            // Ring 0 really runs here: it must neither execute nor touch the guest's pages.
            for (have, bit) in [(smep, CR4_SMEP), (smap, CR4_SMAP)] {
                sregs.cr4 |= if have { bit } else { 0 };
            }
        }
        sregs.efer = EFER;
        sregs.gdt.base = page_va + layout::VCPU_GDT;
        sregs.gdt.limit = u16::try_from(trapgate_firmware::abi::GDT_ENTRIES * 8 - 1).unwrap_or(0);
        sregs.idt.base = layout::IDT;
        sregs.idt.limit = 4095;
        sregs.cs = segment(layout::KERNEL_CS);
        sregs.ss = segment(layout::KERNEL_SS);
        let data = segment(layout::USER_SS);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data);
        let limit = image::write_tables(&machine.ram, page, page_va, user_gate);
        sregs.tr = kvm_segment {
            base: page_va + layout::VCPU_TSS,
            limit: u32::try_from(limit).unwrap_or(0),
            selector: layout::TSS,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
        let star = u64::from(layout::USER32_CS) << 48 | u64::from(layout::KERNEL_CS) << 32;
        let msrs: Vec<kvm_msr_entry> = [
            (MSR_STAR, star),
            (MSR_LSTAR, if user_gate { layout::GATE } else { machine.ring0_gate() }),
            (MSR_CSTAR, layout::CSTAR),
            (MSR_SFMASK, if user_gate { SFMASK_USER } else { SFMASK }),
        ]
        .map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() })
        .to_vec();
        let msrs = Msrs::from_entries(&msrs).map_err(|_| KvmError::Missing("the SYSCALL MSRs"))?;
        if fd.set_msrs(&msrs).map_err(call("KVM_SET_MSRS"))? != 4 {
            return Err(KvmError::Missing("the SYSCALL MSRs"));
        }
        if machine.xsave.features != 3 {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0].value = machine.xsave.features;
            // Deprivileged hosts run ring 3 with the host's XCR0 whatever this says.
            if let Err(e) = fd.set_xcrs(&xcrs)
                && !user_gate
            {
                return Err(call("KVM_SET_XCRS")(e));
            }
        }
        share_tsc(&fd);
        fd.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
        let initial = fd.get_xsave().map_err(call("KVM_GET_XSAVE"))?;
        // MXCSR_MASK, 0 meaning the oldest processors' (SDM vol. 1, 11.6.6).
        let mxcsr_mask = if initial.region[7] == 0 { 0xffbf } else { initial.region[7] };
        let mut vcpu = Vcpu {
            fd,
            ram: machine.ram.clone(),
            page,
            page_va,
            sync: machine.sync_regs,
            regs: kvm_regs::default(),
            sregs,
            dirty: true,
            dirty_sregs: true,
            layout: machine.xsave,
            mxcsr_mask,
        };
        if vcpu.sync {
            vcpu.fd.set_sync_valid_reg(SyncReg::Register);
            vcpu.fd.set_sync_valid_reg(SyncReg::SystemRegister);
            vcpu.fd.sync_regs_mut().sregs = sregs;
        }
        Ok(vcpu)
    }

    /// `kvm_run::immediate_exit`, valid as long as the vCPU lives.
    pub(super) fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// The general registers as of the last exit.
    pub(super) fn regs(&mut self) -> kvm_regs {
        if self.sync { self.fd.sync_regs_mut().regs } else { self.regs }
    }
    /// The registers for the next entry.
    pub(super) fn set_regs(&mut self, regs: &kvm_regs) {
        if self.sync {
            self.fd.sync_regs_mut().regs = *regs;
            self.fd.set_sync_dirty_reg(SyncReg::Register);
        } else {
            self.regs = *regs;
            self.dirty = true;
        }
    }
    /// The system registers as of the last exit.
    pub(super) fn sregs(&mut self) -> &kvm_sregs {
        if self.sync { &self.fd.sync_regs_mut().sregs } else { &self.sregs }
    }
    /// The same, to be changed for the next entry.
    pub(super) fn sregs_mut(&mut self) -> &mut kvm_sregs {
        if self.sync {
            self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
            &mut self.fd.sync_regs_mut().sregs
        } else {
            self.dirty_sregs = true;
            &mut self.sregs
        }
    }
    /// Ring 3 or ring 0 from the next entry on.
    pub(super) fn set_ring(&mut self, user: bool) {
        let sregs = self.sregs_mut();
        (sregs.cs, sregs.ss) = if user {
            (segment(layout::USER_CS), segment(layout::USER_SS))
        } else {
            (segment(layout::KERNEL_CS), segment(layout::KERNEL_SS))
        };
    }
    /// Current privilege level as of the last exit.
    pub(super) fn cpl(&mut self) -> u8 {
        let cs = self.sregs().cs.selector;
        u8::from(cs & 3 != 0) * 3
    }

    /// KVM_RUN.
    pub(super) fn run(&mut self) -> Result<Stop, kvm_ioctls::Error> {
        if !self.sync {
            if std::mem::take(&mut self.dirty) {
                self.fd.set_regs(&self.regs)?;
            }
            if std::mem::take(&mut self.dirty_sregs) {
                self.fd.set_sregs(&self.sregs)?;
            }
        }
        let failed = self.fd.run().err();
        if !self.sync {
            self.regs = self.fd.get_regs()?;
            self.sregs = self.fd.get_sregs()?;
        }
        match failed {
            Some(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
                Ok(Stop::Interrupted)
            }
            Some(e) if e.errno() == libc::EFAULT => Ok(Stop::Refused),
            Some(e) => Err(e),
            None => Ok(self.stop()),
        }
    }
    fn stop(&mut self) -> Stop {
        let run = self.fd.get_kvm_run();
        if run.exit_reason == KVM_EXIT_MEMORY_FAULT {
            return Stop::Refused;
        }
        if run.exit_reason != KVM_EXIT_IO {
            return Stop::Other(run.exit_reason);
        }
        // SAFETY: the exit reason says that KVM filled this member of the union.
        let io = unsafe { run.__bindgen_anon_1.io };
        match u8::try_from(io.port) {
            _ if u32::from(io.direction) == KVM_EXIT_IO_IN => Stop::In,
            Ok(port) => Stop::Out(port),
            Err(_) => Stop::Out(0),
        }
    }
    /// Lets KVM finish an instruction it exited in the middle of, without running another.
    pub(super) fn complete(&mut self) -> Result<(), kvm_ioctls::Error> {
        self.fd.set_kvm_immediate_exit(1);
        self.run()?;
        Ok(())
    }
    /// Is an exception or interrupt on its way into the guest?
    pub(super) fn event_pending(&self) -> Result<bool, PlatformError> {
        let events = self.fd.get_vcpu_events().map_err(host("KVM_GET_VCPU_EVENTS"))?;
        let exception = &events.exception;
        Ok(exception.injected | exception.pending | events.interrupt.injected != 0)
    }
    /// Forgets whatever was on its way into the guest (the guest is being killed for it).
    pub(super) fn clear_events(&self) {
        if let Ok(mut events) = self.fd.get_vcpu_events() {
            events.exception = Default::default();
            events.interrupt = Default::default();
            events.nmi.injected = 0;
            events.nmi.pending = 0;
            // What cannot be cleared is delivered to the next guest as a spurious fault.
            let _ = self.fd.set_vcpu_events(&events);
        }
    }

    /// The exception frame the processor pushed at `rsp` on this vCPU's own page. `None` if `rsp` is not there.
    pub(super) fn frame(&self, rsp: u64, vector: u8) -> Option<[u64; 5]> {
        let offset = rsp.checked_sub(self.page_va)?;
        exception_frame(&self.ram.frames.slice(self.page, 4096), offset, vector)
    }

    /// The FPU state in the guest's layout.
    pub(super) fn fpu(&self) -> Result<Vec<u8>, PlatformError> {
        let xsave = self.fd.get_xsave().map_err(host("KVM_GET_XSAVE"))?;
        Ok(fpu::from_kvm(&xsave, self.layout))
    }
    /// Replaces it by an area that `fpu::check` passed.
    pub(super) fn set_fpu(&self, area: &[u8]) -> Result<(), PlatformError> {
        let xsave = fpu::to_kvm(area);
        // SAFETY: without dynamically enabled features (none is ever asked for) KVM reads no more
        // than the 4096 bytes of `kvm_xsave`.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(host("KVM_SET_XSAVE"))
    }
    pub(super) fn mxcsr_mask(&self) -> u32 {
        self.mxcsr_mask
    }

    /// Stores to the last byte of each of the pages at `tables`, unchanged, in ring 0. The root must
    /// map guest RAM at `layout::PHYSMAP`.
    pub(super) fn touch(&mut self, tables: &[Gpa], machine: &Machine) -> Result<(), PlatformError> {
        let strange = |what: String| PlatformError::Host {
            op: "cutting shadow tables",
            source: std::io::Error::other(what),
        };
        for group in tables.chunks(layout::TOUCH_REGS) {
            let last = group[group.len() - 1];
            let at = |i: usize| {
                let gpa = group.get(i).unwrap_or(&last);
                layout::PHYSMAP + (gpa.0 - RAM_BASE) + PAGE_SIZE - 1
            };
            let regs = kvm_regs {
                rip: layout::TOUCH,
                rflags: 2,
                rsp: self.page_va + layout::VCPU_STACK_TOP,
                rax: at(0),
                rbx: at(1),
                rcx: at(2),
                rdx: at(3),
                rsi: at(4),
                rdi: at(5),
                rbp: at(6),
                r8: at(7),
                r9: at(8),
                r10: at(9),
                r11: at(10),
                r12: at(11),
                r13: at(12),
                r14: at(13),
                r15: at(14),
            };
            self.set_regs(&regs);
            self.set_ring(false);
            let mut refusals = 0;
            loop {
                match self.run().map_err(host("KVM_RUN"))? {
                    Stop::Out(layout::PORT_TOUCHED) => break,
                    Stop::Interrupted => {}
                    // Another thread's window; at most one zap is ahead of us.
                    Stop::Refused if refusals < MAX_REFUSALS => {
                        refusals += 1;
                        machine.revoker.pass();
                    }
                    other => return Err(strange(format!("{other:x?}"))),
                }
            }
        }
        Ok(())
    }
}

/// The exception frame at `offset` in a vCPU's page: error code, RIP, CS, RFLAGS, RSP. `None` if none fits there.
pub(super) fn exception_frame(
    page: &VolatileSlice<'_>,
    offset: u64,
    vector: u8,
) -> Option<[u64; 5]> {
    let error = trapgate_firmware::abi::has_error_code(vector);
    let words = if error { 6 } else { 5 };
    if !offset.is_multiple_of(8) || offset > PAGE_SIZE - 8 * words {
        return None;
    }
    let mut frame = [0; 5];
    for (i, word) in frame.iter_mut().enumerate().skip(usize::from(!error)) {
        let at = usize::try_from(offset).ok()? + (i - usize::from(!error)) * 8;
        *word = page.load(at, std::sync::atomic::Ordering::Relaxed).ok()?;
    }
    Some(frame)
}

/// Makes vCPUs for the pool.
pub(super) fn create(machine: &Arc<Machine>, id: u64) -> Result<Box<Vcpu>, PlatformError> {
    let user_gate = machine.kind == Kind::Deprivileged;
    Vcpu::new(machine, id, user_gate).map(Box::new).map_err(|e| match e {
        KvmError::Call { op, source } => PlatformError::Host { op, source },
        KvmError::Memory => PlatformError::OutOfMemory("a vCPU's tables"),
        other => PlatformError::Host {
            op: "creating a vCPU",
            source: std::io::Error::other(other.to_string()),
        },
    })
}
