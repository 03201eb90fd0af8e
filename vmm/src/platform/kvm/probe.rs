//! Finding out what kind of host this is, by trying.
//!
//! [`settle`] runs a SYSCALL on the maintenance vCPU before any guest exists; [`probe`] is for
//! `trapgate doctor`.

use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;
use serde::Serialize;
use trapgate_firmware::layout;
use trapgate_kernel::platform::{
    Edit, Exit, Gpa, PAGE_SIZE, Platform, PlatformError, Prot, Registers,
};

use super::{
    KvmError, KvmOptions, KvmPlatform, Machine, call,
    image::index,
    space::pte,
    vcpu::{Stop, Vcpu},
};
use crate::{
    host::counter,
    memory::{GuestRam, RAM_BASE},
};

/// What SYSCALL does here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It raises the CPL: ring 0 is native (VMX or SVM).
    Hardware,
    /// It does not: ring 0 is emulated (PVM).
    Deprivileged,
}

impl Kind {
    /// What a system call by an exit costs more than one in a ring, about.
    pub(super) fn exit_cost(self) -> Duration {
        Duration::from_micros(match self {
            Kind::Hardware => 1,
            Kind::Deprivileged => 26,
        })
    }
}

/// Where the probe's code and data lie in the probe's address space.
const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x1_1000;
/// `syscall; ud2`, at 16 `mov rax, [rbx]; ud2`, at 32 `rdtsc; shl rdx, 32; or rax, rdx; ud2`.
const PROGRAM: [u8; 43] = [
    0x0f, 0x05, 0x0f, 0x0b, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    0x48, 0x8b, 0x03, 0x0f, 0x0b, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x0f, 0x0b,
];
const READ: u64 = CODE + 16;
const TSC: u64 = CODE + 32;

/// The probe's own tables, all on pages of the image's block.
struct Tables {
    roots: [Gpa; 2],
    leaf: Gpa,
    data: [Gpa; 2],
}

/// A root with the kernel half and, at `layout::PHYSMAP`, all of guest RAM for ring 0.
fn root(machine: &Machine) -> Option<Gpa> {
    let frames = &machine.ram.frames;
    let root = machine.image.page()?;
    let kernel = machine.image.kernel_half.0 | pte::LINK;
    pte::store(frames, root, layout::PML4_KERNEL, kernel);
    Some(root)
}

fn map_ram(machine: &Machine, root: Gpa) -> Option<()> {
    let frames = &machine.ram.frames;
    let link = pte::PRESENT | pte::WRITE | pte::ACCESSED;
    let upper = machine.image.page_or_frame(&machine.ram)?;
    pte::store(frames, root, layout::PML4_PRIVATE, upper.0 | link);
    let leaf = link | pte::DIRTY | pte::LARGE | pte::NX;
    let mut offset = 0;
    let mut directory = Gpa(0);
    while offset < machine.ram.size {
        let slot = index(offset, 21);
        if slot == 0 {
            directory = machine.image.page_or_frame(&machine.ram)?;
            pte::store(frames, upper, index(offset, 30), directory.0 | link);
        }
        pte::store(frames, directory, slot, (RAM_BASE + offset) | leaf);
        offset += 2 << 20;
    }
    Some(())
}

fn tables(machine: &Machine) -> Option<Tables> {
    use vm_memory::Bytes;
    let frames = &machine.ram.frames;
    let page = || machine.image.page();
    let (upper, middle, leaf) = (page()?, page()?, page()?);
    let (code, a, b) = (page()?, page()?, page()?);
    let roots = [root(machine)?, root(machine)?];
    for root in roots {
        pte::store(frames, root, 0, upper.0 | pte::LINK);
    }
    pte::store(frames, upper, 0, middle.0 | pte::LINK);
    pte::store(frames, middle, 0, leaf.0 | pte::LINK);
    pte::store(frames, leaf, index(CODE, 12), code.0 | pte::leaf(Prot::READ | Prot::EXEC));
    pte::store(frames, leaf, index(DATA, 12), a.0 | pte::leaf(Prot::READ));
    frames.slice(code, 4096).write_slice(&PROGRAM, 0).ok()?;
    frames.slice(a, 4096).write_slice(b"A", 0).ok()?;
    frames.slice(b, 4096).write_slice(b"B", 0).ok()?;
    Some(Tables { roots, leaf, data: [a, b] })
}

/// Runs the probe's code at `rip` in ring 3 until it leaves the guest.
fn enter(vcpu: &mut Vcpu, root: Gpa, rip: u64) -> Result<(Stop, kvm_regs), KvmError> {
    vcpu.set_ring(true);
    vcpu.sregs_mut().cr3 = root.0;
    // ID is one of the flags with which the gate leaves at once: no ring is mapped here.
    vcpu.set_regs(&kvm_regs { rip, rflags: 0x20_0202, rbx: DATA, ..Default::default() });
    loop {
        let stop = vcpu.run().map_err(call("KVM_RUN"))?;
        if stop != Stop::Interrupted {
            return Ok((stop, vcpu.regs()));
        }
    }
}

/// Creates vCPU 0, learns from it how SYSCALL arrives, opens the gate to ring 3 if it must be, and
/// readies the vCPU for maintenance.
pub(super) fn settle(machine: &mut Machine) -> Result<Vcpu, KvmError> {
    // With an I/O bitmap: hardware runs the gate in ring 0 whatever the bitmap says.
    // Its SYSCALL lands on the ring-3 gate, which leaves at once when it finds itself in ring 0.
    let mut vcpu = Vcpu::new(machine, 0, true)?;
    let tables = tables(machine).ok_or(KvmError::Memory)?;
    let (stop, regs) = enter(&mut vcpu, tables.roots[0], CODE)?;
    let fault = Stop::Out(layout::PORT_EXCEPTION);
    let page_fault = layout::VECTORS + 14 * layout::VECTOR_STRIDE;
    if stop == Stop::Out(layout::PORT_SYSCALL) && vcpu.cpl() == 0 {
        machine.kind = Kind::Hardware;
        machine.shadow = !sees_edits(machine, &mut vcpu, &tables)?;
    } else if stop == fault
        && regs.rip.wrapping_sub(page_fault) < layout::VECTOR_STRIDE
        && vcpu.sregs().cr2 == layout::GATE
    {
        machine.kind = Kind::Deprivileged;
        machine.shadow = true;
        machine.image.open_gate(&machine.ram);
        let (stop, _) = enter(&mut vcpu, tables.roots[0], CODE)?;
        if stop != Stop::Out(layout::PORT_SYSCALL) || vcpu.cpl() != 3 {
            return Err(KvmError::Probe(format!("{stop:x?} from an open gate")));
        }
    } else {
        return Err(KvmError::Probe(format!("{stop:x?} at {:#x}", regs.rip)));
    }
    let before = counter();
    let (_, regs) = enter(&mut vcpu, tables.roots[0], TSC)?;
    machine.shares_tsc = (before..=counter()).contains(&regs.rax);
    map_ram(machine, tables.roots[0]).ok_or(KvmError::Memory)?;
    vcpu.sregs_mut().cr3 = tables.roots[0].0;
    Ok(vcpu)
}

/// Redirects a translation behind the guest's back and looks whether a vCPU with a fresh CR3 sees
/// it. One that shadows page tables does not.
fn sees_edits(machine: &Machine, vcpu: &mut Vcpu, tables: &Tables) -> Result<bool, KvmError> {
    let mut read = |root: Gpa| -> Result<u64, KvmError> {
        let (_, regs) = enter(vcpu, root, READ)?;
        Ok(regs.rax & 0xff)
    };
    if read(tables.roots[0])? != u64::from(b'A') {
        return Err(KvmError::Probe("a mapped page does not read".into()));
    }
    let entry = tables.data[1].0 | pte::leaf(Prot::READ);
    pte::store(&machine.ram.frames, tables.leaf, index(DATA, 12), entry);
    Ok(read(tables.roots[1])? == u64::from(b'B'))
}

/// What `trapgate doctor` prints about KVM.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which of the two kinds.
    pub kind: Kind,
    /// The ring the gate runs in.
    pub gate_ring: u8,
    /// A removed translation is gone without zapping the frame behind it.
    pub sees_edits: bool,
    /// KVM_CAP_SYNC_REGS is used for the registers.
    pub sync_regs: bool,
    /// XCR0 features guests' state is kept for.
    pub xsave_features: u64,
    /// Most vCPUs the pool will create.
    pub max_vcpus: usize,
    /// Nanoseconds from a guest's SYSCALL to the monitor and back, median.
    pub exit_ns: u64,
}

/// Measures this host's KVM.
///
/// # Errors
/// [`KvmError`] if KVM cannot be used, with the reason.
pub fn probe() -> Result<Report, KvmError> {
    let ram = GuestRam::new(16 << 20).map_err(|_| KvmError::Memory)?;
    let platform = KvmPlatform::new(&ram, KvmOptions::default())?;
    let machine = &platform.machine;
    let exit_ns = exit_cost(&platform).map_err(|e| KvmError::Probe(e.to_string()))?;
    Ok(Report {
        kind: machine.kind,
        gate_ring: if machine.kind == Kind::Hardware { 0 } else { 3 },
        sees_edits: !machine.shadow,
        sync_regs: machine.sync_regs,
        xsave_features: machine.xsave.features,
        max_vcpus: platform.pool.limit(),
        exit_ns,
    })
}

fn exit_cost(platform: &KvmPlatform) -> Result<u64, PlatformError> {
    const ROUNDS: usize = 400;
    let page = platform.machine.ram.frames.alloc();
    let page = page.ok_or(PlatformError::OutOfMemory("the probe"))?;
    page.write(0, &PROGRAM);
    let space = platform.new_space()?;
    let prot = Prot::READ | Prot::EXEC;
    space.apply(&[Edit::Map { va: CODE, gpa: page.gpa(), len: PAGE_SIZE, prot }])?;
    let mut cpu = platform.new_cpu(&space)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let mut regs = Registers { rip: CODE, rflags: 0x202, ..Default::default() };
        let start = Instant::now();
        let exit = cpu.run(&mut regs)?;
        let time = start.elapsed();
        if exit != Exit::Syscall {
            return Err(PlatformError::Host {
                op: "measuring an exit",
                source: std::io::Error::other(format!("{exit:?}")),
            });
        }
        times.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}
