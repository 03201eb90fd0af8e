//! KVM: one VM, two memory slots at most, many address spaces, a pool of vCPUs.
//!
//! Modules: `image` puts the ring-0 image into guest RAM; `space` edits page tables; `revoke` makes
//! removed translations unusable; `vcpu` is one virtual CPU; `pool` leases them; `cpu` runs guest
//! code; `ring` is a thread's ring page, `server` answers the calls in rings, `protocol` is who of them may
//! when; `fpu` checks XSAVE areas; `hostile` has the fuzz targets of all these; `probe` finds out what kind of host this is. Design notes: docs/gate.md and
//! docs/revocation.md.

mod check;
mod cores;
mod cpu;
mod fpu;
#[cfg(any(test, feature = "fuzzing"))]
pub mod hostile;
mod image;
mod kick;
mod pool;
pub mod probe;
pub mod protocol;
mod registers;
mod revoke;
mod ring;
mod server;
mod space;
mod vcpu;

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use trapgate_firmware::abi::Phases;
use trapgate_kernel::platform::{AddressSpace, Cpu, Platform, PlatformError, Traffic, XsaveLayout};

pub use self::probe::{Kind, Report};
use self::{
    cpu::KvmCpu, fpu::FpuRules, pool::Pool, revoke::Revoker, server::Servers, space::Space,
};
use crate::memory::{GuestRam, RAM_BASE};

/// Guest RAM in the first memory slot; the rest is added when it is wanted. KVM makes and frees its bookkeeping
/// for a slot by its size: 1.9 ms at the start and 2 at the end for 4 GiB, which most programs never use.
const FIRST_SLOT: u64 = 256 << 20;

/// KVM cannot be used; the message is the user's.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// /dev/kvm cannot be opened.
    #[error("/dev/kvm: {}", open_advice(.0))]
    Open(io::Error),
    /// A KVM version or capability is missing.
    #[error("/dev/kvm: {0} is missing; use --backend ptrace")]
    Missing(&'static str),
    /// A KVM call failed during set-up.
    #[error("/dev/kvm: {op}: {source}")]
    Call {
        /// The operation.
        op: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The image embedded in this binary is not the one it was built for.
    #[error("firmware image: {0}")]
    Firmware(String),
    /// SYSCALL arrived neither in ring 0 nor in ring 3.
    #[error("/dev/kvm: SYSCALL behaves in no known way here ({0}); use --backend ptrace")]
    Probe(String),
    /// Guest RAM is too small for the platform's own tables.
    #[error("guest memory is too small; raise --mem")]
    Memory,
}

fn open_advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "permission denied; add yourself to group kvm, or use --backend ptrace".into()
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "not there; load the module kvm_intel or kvm_amd (in a virtual machine, turn on nested \
             virtualization), or use --backend ptrace"
                .into()
        }
        _ => format!("{error}; use --backend ptrace"),
    }
}

/// Turns a kvm-ioctls error into ours.
fn call(op: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |e| KvmError::Call { op, source: io::Error::from_raw_os_error(e.errno()) }
}
/// The same while guests run.
fn host(op: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> PlatformError {
    move |e| PlatformError::Host { op, source: io::Error::from_raw_os_error(e.errno()) }
}

/// How to set the platform up.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvmOptions {
    /// Most vCPUs to create (`--vcpus`); KVM's own limit if `None`.
    pub vcpus: Option<usize>,
    /// Ring servers (`--ring-servers`); 0 is `--gate exit`.
    pub servers: usize,
    /// Servers never sleep (`--gate ring`).
    pub always: bool,
    /// Call sites may be rewritten to enter the gate by a jump, where that pays.
    pub rewrite: bool,
}

/// Events worth showing in `--stats`.
#[derive(Default)]
struct Counters {
    /// Exits that no guest of ours should be able to cause.
    strange: AtomicU64,
    refusals: AtomicU64,
    zaps: AtomicU64,
    zapped_pages: AtomicU64,
    touches: AtomicU64,
    steals: AtomicU64,
    preempts: AtomicU64,
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What all parts share: the VM, guest RAM, and how this host behaves.
struct Machine {
    vm: VmFd,
    ram: GuestRam,
    revoker: Revoker,
    image: image::Image,
    cpuid: CpuId,
    xsave: XsaveLayout,
    /// MXCSR bits this processor has.
    mxcsr_mask: u32,
    /// SYSCALL raises the CPL: the gate runs in ring 0.
    kind: Kind,
    /// Page-table edits need the shadow tables cut (docs/revocation.md).
    shadow: bool,
    sync_regs: bool,
    /// A guest's RDTSC reads what the monitor's does.
    shares_tsc: bool,
    rewrite: bool,
    counters: Counters,
    /// Where the phases of the gate begin that SYSCALL lands on here.
    phases: Phases,
    servers: Servers,
}

impl Machine {
    /// What XSAVE areas from guests may hold.
    fn fpu_rules(&self) -> FpuRules {
        FpuRules { layout: self.xsave, mxcsr_mask: self.mxcsr_mask }
    }
    /// What the FPU state in a ring page may hold; `None` if the gate saves no registers there.
    fn whole(&self) -> Option<FpuRules> {
        let fits = self.xsave.size as u64 <= trapgate_firmware::layout::RING_XSAVE_SIZE;
        // A ring-0 gate would have to load segment registers as well, and exits are cheap there.
        (self.kind == Kind::Deprivileged && fits).then(|| self.fpu_rules())
    }
    /// XSAVE features that the gate can save to a ring page and load from there; 0 if it can save nothing.
    fn whole_features(&self) -> u64 {
        self.whole().map_or(0, |rules| rules.layout.features)
    }
    /// Where SYSCALL lands on hosts on which it raises the CPL.
    fn ring0_gate(&self) -> u64 {
        self.image.phases(&self.ram)[1].entry
    }
}

/// The KVM backend.
pub struct KvmPlatform {
    machine: Arc<Machine>,
    pool: Arc<Pool>,
}

impl KvmPlatform {
    /// Creates the VM over `ram`, loads the ring-0 image and probes the host.
    ///
    /// # Errors
    /// [`KvmError`], whose message is meant for the user.
    pub fn new(ram: &GuestRam, options: KvmOptions) -> Result<Arc<KvmPlatform>, KvmError> {
        kick::install()?;
        let kvm =
            Kvm::new().map_err(|e| KvmError::Open(io::Error::from_raw_os_error(e.errno())))?;
        if kvm.get_api_version() != 12 {
            return Err(KvmError::Missing("KVM API version 12"));
        }
        for (cap, name) in [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::SyncMmu, "KVM_CAP_SYNC_MMU"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
            (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
        ] {
            if !kvm.check_extension(cap) {
                return Err(KvmError::Missing(name));
            }
        }
        let vm = kvm.create_vm().map_err(call("KVM_CREATE_VM"))?;
        // Intel parts that cannot run real mode natively want these three pages; nothing maps them.
        vm.set_tss_address(0xfffb_d000).map_err(call("KVM_SET_TSS_ADDR"))?;
        // Do not let KVM patch guest code that holds the other vendor's hypercall instruction.
        // Old kernels lack the capability; then such a guest only edits its own page.
        let quirks = kvm_enable_cap {
            cap: kvm_bindings::KVM_CAP_DISABLE_QUIRKS2,
            args: [u64::from(kvm_bindings::KVM_X86_QUIRK_FIX_HYPERCALL_INSN), 0, 0, 0],
            ..Default::default()
        };
        let _ = vm.enable_cap(&quirks);
        let revoker = Revoker::new(ram)
            .map_err(|source| KvmError::Call { op: "mapping guest memory for KVM", source })?;
        let first = ram.size.min(FIRST_SLOT);
        add_memory(&vm, &revoker, 0, 0..first).map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        let image = image::Image::load(ram)?;
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(call("KVM_GET_SUPPORTED_CPUID"))?;
        let (cpuid, xsave) = fpu::guest_cpuid(supported);
        let shared = image.shared();
        let mut machine = Machine {
            vm,
            ram: ram.clone(),
            revoker,
            image,
            cpuid,
            xsave,
            mxcsr_mask: 0xffbf,
            kind: Kind::Hardware,
            shadow: true,
            sync_regs: kvm.check_extension_int(Cap::SyncRegs) & 3 == 3,
            shares_tsc: false,
            rewrite: options.rewrite && options.servers > 0,
            counters: Counters::default(),
            phases: Phases::default(),
            servers: Servers::new(shared),
        };
        let keeper = probe::settle(&mut machine)?;
        machine.servers.exit_cost = machine.kind.exit_cost();
        let [ring3, ring0] = machine.image.phases(ram);
        machine.phases = if machine.kind == Kind::Hardware { ring0 } else { ring3 };
        let limit = kvm
            .get_max_vcpus()
            .min(usize::try_from(trapgate_firmware::layout::VCPU_MAX).unwrap_or(1));
        let limit = options.vcpus.unwrap_or(limit).clamp(1, limit.saturating_sub(1).max(1));
        machine.mxcsr_mask = keeper.mxcsr_mask();
        machine.revoker.adopt(keeper, machine.shadow);
        let machine = Arc::new(machine);
        if first < ram.size {
            let (held, size) = (Arc::downgrade(&machine), ram.size);
            let grow = move || {
                let Some(machine) = held.upgrade() else { return false };
                add_memory(&machine.vm, &machine.revoker, 1, first..size).is_ok()
            };
            ram.frames.hold_back(first, Box::new(grow));
        }
        let pool = Arc::new(Pool::new(machine.clone(), limit));
        Servers::start(&machine, options.servers, options.always)
            .map_err(|source| KvmError::Call { op: "starting a ring server", source })?;
        Ok(Arc::new(KvmPlatform { machine, pool }))
    }

    /// SYSCALL's kind on this host.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.machine.kind
    }
    /// Are page-table edits invisible until the shadow tables are cut?
    #[must_use]
    pub fn shadow_paging(&self) -> bool {
        self.machine.shadow
    }
    /// Guest RAM.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.machine.ram
    }
}

/// Gives KVM a part of guest RAM, as offsets into it, as memory slot `slot`.
fn add_memory(
    vm: &VmFd,
    revoker: &Revoker,
    slot: u32,
    part: Range<u64>,
) -> Result<(), kvm_ioctls::Error> {
    let slot = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: RAM_BASE + part.start,
        memory_size: part.end - part.start,
        userspace_addr: revoker.slot_address() + part.start,
    };
    // SAFETY: the part lies in the mapping at `slot_address`, as large as guest RAM, which lives in `revoker`;
    // `Machine` drops that after `vm`. The two parts that are ever added do not overlap.
    unsafe { vm.set_user_memory_region(slot) }
}

impl Drop for KvmPlatform {
    fn drop(&mut self) {
        // They hold the machine.
        self.machine.servers.close();
    }
}

impl Platform for KvmPlatform {
    fn name(&self) -> &'static str {
        "kvm"
    }
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(Space::new(self.machine.clone())?))
    }
    fn new_cpu(&self, space: &Arc<dyn AddressSpace>) -> Result<Box<dyn Cpu>, PlatformError> {
        Ok(Box::new(KvmCpu::new(self.machine.clone(), self.pool.clone(), space)?))
    }
    fn xsave_layout(&self) -> XsaveLayout {
        self.machine.xsave
    }
    fn shares_tsc(&self) -> bool {
        self.machine.shares_tsc
    }
    fn jump_gate(&self) -> Option<u64> {
        // Where ring 0 is native, SYSCALL costs no more than the jumps would.
        let pays = self.machine.rewrite && self.machine.kind == Kind::Deprivileged;
        pays.then_some(self.machine.phases.jump)
    }
    fn traffic(&self) -> Traffic {
        let (c, servers) = (&self.machine.counters, &self.machine.servers);
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let traffic = Traffic {
            in_guest: servers.rings.known_calls(),
            refused: get(&c.refusals),
            strange: get(&c.strange),
            zaps: get(&c.zaps),
            zapped_pages: get(&c.zapped_pages),
            ..Traffic::default()
        };
        servers.report(traffic)
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let c = &self.machine.counters;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        vec![
            ("shadow tables cut", get(&c.touches)),
            ("vCPUs created", self.pool.created()),
            ("vCPUs taken from idle threads", get(&c.steals)),
            ("vCPUs preempted", get(&c.preempts)),
        ]
    }
    fn in_use(&self) -> Vec<(&'static str, u64)> {
        self.machine.servers.rings.drain(&self.machine);
        self.machine.revoker.settle(&self.machine);
        vec![
            ("vCPU leases", self.pool.leases()),
            ("page-table frames", self.machine.revoker.tables()),
        ]
    }
}
