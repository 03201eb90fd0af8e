//! A VM, a space with code, data and a stack, and guest code by `guest!`.

use std::sync::Arc;

use trapgate::{
    memory::GuestRam,
    platform::kvm::{KvmOptions, KvmPlatform},
};
use trapgate_kernel::{
    frames::Frame,
    platform::{AddressSpace, Cpu, Edit, Exit, Fault, Gpa, PAGE_SIZE, Platform, Prot, Registers},
};

pub const RW: Prot = Prot::READ.union(Prot::WRITE);
pub const RX: Prot = Prot::READ.union(Prot::EXEC);

/// Where code lies.
pub const CODE: u64 = 0x40_0000;
/// A writable page.
pub const DATA: u64 = 0x50_0000;
/// The stack's end.
pub const STACK: u64 = 0x7fff_0000_0000;

/// Position-independent guest code as bytes.
#[macro_export]
macro_rules! guest {
    ($name:ident, $($line:literal),+ $(,)?) => {
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("guest_", stringify!($name), "_end")]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: both symbols are defined below, `END` after `START` in the same section.
            unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
        }
        std::arch::global_asm!(
            ".pushsection .rodata",
            ".balign 16",
            concat!(".globl guest_", stringify!($name)),
            concat!("guest_", stringify!($name), ":"),
            $($line,)+
            concat!(".globl guest_", stringify!($name), "_end"),
            concat!("guest_", stringify!($name), "_end:"),
            ".byte 0",
            ".popsection",
        );
    };
}

/// The platform, or `None` (said loudly) where there is no KVM.
pub fn platform(options: KvmOptions) -> Option<(GuestRam, Arc<KvmPlatform>)> {
    let ram = GuestRam::new(256 << 20).expect("guest RAM");
    match KvmPlatform::new(&ram, options) {
        Ok(platform) => Some((ram, platform)),
        Err(e) => {
            eprintln!("\n*** SKIPPED, NOT TESTED: {e} ***\n");
            None
        }
    }
}

/// One address space with code, data and stack.
pub struct Vm {
    pub ram: GuestRam,
    pub platform: Arc<KvmPlatform>,
    pub space: Arc<dyn AddressSpace>,
    pub code: Frame,
    pub data: Frame,
    pub stack: Frame,
}

impl Vm {
    pub fn new(code: &[u8]) -> Option<Vm> {
        let (ram, platform) = platform(KvmOptions::default())?;
        Some(Vm::on(&ram, &platform, code))
    }
    pub fn on(ram: &GuestRam, platform: &Arc<KvmPlatform>, bytes: &[u8]) -> Vm {
        let space = platform.new_space().expect("a space");
        let frame = || ram.frames.alloc().expect("a frame");
        let (code, data, stack) = (frame(), frame(), frame());
        code.write(0, bytes);
        let vm = Vm {
            ram: ram.clone(),
            platform: platform.clone(),
            space,
            code,
            data,
            stack: stack.clone(),
        };
        vm.map(CODE, vm.code.gpa(), RX);
        vm.map(DATA, vm.data.gpa(), RW);
        vm.map(STACK - PAGE_SIZE, stack.gpa(), RW);
        vm
    }
    /// What is mapped in the beginning.
    pub fn granted(&self, va: u64) -> Option<(Gpa, Prot)> {
        match va {
            CODE => Some((self.code.gpa(), RX)),
            DATA => Some((self.data.gpa(), RW)),
            _ if va == STACK - PAGE_SIZE => Some((self.stack.gpa(), RW)),
            _ => None,
        }
    }
    pub fn map(&self, va: u64, gpa: Gpa, prot: Prot) {
        self.apply(Edit::Map { va, gpa, len: PAGE_SIZE, prot });
    }
    pub fn unmap(&self, va: u64) {
        self.apply(Edit::Unmap { va, len: PAGE_SIZE });
    }
    pub fn apply(&self, edit: Edit) {
        self.space.apply(&[edit]).expect("an edit");
    }
    pub fn frame(&self) -> Frame {
        self.ram.frames.alloc().expect("a frame")
    }
    pub fn cpu(&self) -> Box<dyn Cpu> {
        self.platform.new_cpu(&self.space).expect("a CPU")
    }
}

/// Registers at the start of the code.
pub fn start() -> Registers {
    Registers { rip: CODE, rsp: STACK - 64, rflags: 0x202, ..Registers::default() }
}

/// Runs on until something but a spurious interruption happens.
pub fn run(cpu: &mut dyn Cpu, regs: &mut Registers) -> Exit {
    loop {
        let exit = cpu.run(regs).expect("KVM works");
        if exit != Exit::Interrupted {
            return exit;
        }
    }
}

/// Runs until a fault and returns it.
#[track_caller]
pub fn fault(cpu: &mut dyn Cpu, regs: &mut Registers) -> Fault {
    match run(cpu, regs) {
        Exit::Fault(fault) => fault,
        other => panic!("{other:?} with {regs:x?}"),
    }
}

pub fn word(frame: &Frame, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    frame.read(offset, &mut bytes);
    u64::from_le_bytes(bytes)
}
