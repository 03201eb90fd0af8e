//! The ptrace platform alone, driven with hand-assembled guest code.
//!
//! Nothing of the kernel is involved: the tests map frames, run code and look at exits.

use std::{
    arch::naked_asm,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use trapgate::{
    memory::GuestRam,
    platform::ptrace::{PtraceCpu, PtracePlatform, layout},
};
use trapgate_kernel::{
    frames::Frame,
    platform::{
        Access, AddressSpace, Cpu, Edit, Exit, Fault, Platform, PlatformError, Prot, Registers,
    },
};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const RX: Prot = Prot::READ.union(Prot::EXEC);
const RW: Prot = Prot::READ.union(Prot::WRITE);
const MARK: u64 = 0x1122_3344_5566_7788;

/// Guest code: the lines given, then a marker that is not part of it.
macro_rules! guest {
    ($name:ident: $($line:literal),* $(,)?) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!($($line,)* ".quad 0x1122334455667788")
        }
    };
}

/// The bytes of a [`guest!`].
fn bytes(code: unsafe extern "C" fn()) -> Vec<u8> {
    let at: *const u8 = (code as *const ()).cast();
    let mut out = Vec::new();
    // SAFETY: every `guest!` ends with MARK, at which the reading stops.
    while !out.ends_with(&MARK.to_le_bytes()) {
        out.push(unsafe { at.add(out.len()).read() });
    }
    out.truncate(out.len() - 8);
    out
}

/// A platform with some memory.
struct Machine {
    ram: GuestRam,
    platform: Arc<PtracePlatform>,
}

impl Machine {
    fn new() -> Machine {
        let ram = GuestRam::new(64 << 20).unwrap();
        let platform = PtracePlatform::new(&ram).unwrap();
        Machine { ram, platform }
    }
    fn frame(&self) -> Frame {
        self.ram.frames.alloc().unwrap()
    }
    fn code(&self, code: unsafe extern "C" fn()) -> Frame {
        let frame = self.frame();
        frame.write(0, &bytes(code));
        frame
    }
    /// A space with `code` at CODE and one page of data.
    fn space(&self, code: unsafe extern "C" fn()) -> Guest {
        let (code, data) = (self.code(code), self.frame());
        let space = self.platform.new_space().unwrap();
        space.apply(&[map(CODE, &code, RX), map(DATA, &data, RW)]).unwrap();
        Guest { space, code, data }
    }
    fn cpu(&self, guest: &Guest) -> PtraceCpu {
        self.platform.new_ptrace_cpu(&guest.space).unwrap()
    }
}

struct Guest {
    space: Arc<dyn AddressSpace>,
    #[expect(dead_code, reason = "keeps the frame")]
    code: Frame,
    data: Frame,
}

impl Guest {
    fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.data.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.data.write(offset, &value.to_le_bytes());
    }
}

fn map(va: u64, frame: &Frame, prot: Prot) -> Edit {
    Edit::Map { va, gpa: frame.gpa(), len: 4096, prot }
}
fn start() -> Registers {
    Registers { rip: CODE, rsp: DATA + 4096, rflags: 0x202, ..Registers::default() }
}
/// Runs until something happens.
fn run(cpu: &mut PtraceCpu, regs: &mut Registers) -> Exit {
    loop {
        match cpu.run(regs).unwrap() {
            Exit::Interrupted => {}
            exit => return exit,
        }
    }
}
#[track_caller]
fn fault(cpu: &mut PtraceCpu, regs: &mut Registers) -> Fault {
    match run(cpu, regs) {
        Exit::Fault(fault) => fault,
        exit => panic!("{exit:?}, not a fault"),
    }
}

guest!(syscalls: "2:", "syscall", "jmp 2b");

#[test]
fn a_system_call_round_trip_keeps_every_register() {
    let machine = Machine::new();
    let guest = machine.space(syscalls);
    let mut cpu = machine.cpu(&guest);
    let mut regs = Registers {
        rax: 0x1001,
        rbx: 0x1002,
        rcx: 0x1003,
        rdx: 0x1004,
        rsi: 0x1005,
        rdi: 0x1006,
        rbp: 0x1007,
        r8: 0x1008,
        r9: 0x1009,
        r10: 0x100a,
        r11: 0x100b,
        r12: 0x100c,
        r13: 0x100d,
        r14: 0x100e,
        r15: 0x8000_0000_0000_100f,
        fs_base: 0x7000_1234_5678,
        gs_base: 0x7000_8765_4321,
        ..start()
    };
    let before = regs;
    assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
    let expect =
        Registers { rip: CODE + 2, rcx: CODE + 2, r11: regs.rflags, rflags: regs.rflags, ..before };
    assert_eq!(regs, expect);
    assert_eq!(regs.rflags & !0x10000, 0x202);
    // Through the jump and again, with other values; negative numbers are no special case.
    for rax in [0u64, 231, u64::MAX, (-512i64).cast_unsigned(), (-516i64).cast_unsigned()] {
        regs.rax = rax;
        regs.rcx = 5;
        assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
        assert_eq!(regs, Registers { rax, ..expect });
    }
    // RCX and R11 are ours to choose when we do not return like SYSRET.
    guest.space.apply(&[map(CODE, &machine.code(trap), RX)]).unwrap();
    regs = Registers { rcx: 77, r11: 78, rip: CODE, ..regs };
    let before = regs;
    assert_eq!(fault(&mut cpu, &mut regs).vector, 3);
    assert_eq!(Registers { rflags: 0, ..regs }, Registers { rip: CODE + 1, rflags: 0, ..before });
}

guest!(trap: "int3");
guest!(illegal: "ud2");
guest!(divide: "xor edx, edx", "xor ecx, ecx", "div ecx");
guest!(load: "mov rax, [rdi]");
guest!(store: "mov [rdi], rax");
guest!(privileged: "hlt");
guest!(old_call: "int 0x80");
guest!(sysenter: "sysenter");
guest!(step: "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
guest!(call_vsyscall: "mov rax, 0xffffffffff600000", "call rax", "ud2");
guest!(x87: "fninit", "push 0x340", "fldcw [rsp]", "fldz", "fld1", "fdivrp", "fdivp", "fwait", "nop");
guest!(simd: "push 0x1d00", "ldmxcsr [rsp]", "xorps xmm0, xmm0", "mov eax, 0x3f800000",
    "movd xmm1, eax", "divss xmm1, xmm0", "nop");
guest!(breakpoint_1: ".byte 0xf1");

#[test]
fn each_fault_is_told_apart() {
    let machine = Machine::new();
    let plain = |vector| Fault { vector, error: 0, addr: 0, access: Access::Unknown };
    let page = |addr| Fault { vector: 14, error: 0, addr, access: Access::Unknown };
    let check = |name: &str, code, rdi, expect: Fault, rip: u64| {
        let guest = machine.space(code);
        let mut cpu = machine.cpu(&guest);
        let mut regs = Registers { rdi, rax: 0xabc, ..start() };
        let got = fault(&mut cpu, &mut regs);
        assert_eq!(got, expect, "{name}");
        assert_eq!(regs.rip, CODE + rip, "{name}");
    };
    check("int3", trap, 0, plain(3), 1);
    check("icebp", breakpoint_1, 0, plain(1), 1);
    check("ud2", illegal, 0, plain(6), 0);
    check("div", divide, 0, plain(0), 4);
    check("load", load, 0x1234_5000, page(0x1234_5000), 0);
    check("load of null", load, 0, page(0), 0);
    check("store", store, CODE + 0x10, page(CODE + 0x10), 0);
    check("kernel half", load, 0xffff_8000_0000_0000, page(0xffff_8000_0000_0000), 0);
    check("non-canonical", load, 0x8000_0000_0000_0000, plain(13), 0);
    check("hlt", privileged, 0, plain(13), 0);
    check("int 0x80", old_call, 0, Fault { error: 0x402, ..plain(13) }, 0);
    check("x87", x87, 0, plain(16), 16);
    check("simd", simd, 0, plain(19), 21);
    check("single step", step, 0, plain(1), 11);
}

#[test]
fn a_fetch_fault_and_a_wild_jump() {
    let machine = Machine::new();
    let guest = machine.space(trap);
    let mut cpu = machine.cpu(&guest);
    for (rip, vector) in [(0x6666_0000, 14), (DATA, 14), (0x8000_0000_0000, 13), (1 << 63, 13)] {
        let mut regs = Registers { rip, ..start() };
        let got = fault(&mut cpu, &mut regs);
        assert_eq!(regs.rip, rip);
        assert_eq!(got.vector, vector, "{rip:x} {got:?}");
        if vector == 14 {
            assert_eq!(got.addr, rip);
        }
    }
}

#[test]
fn the_hosts_vsyscall_page_is_not_served() {
    let machine = Machine::new();
    let guest = machine.space(call_vsyscall);
    let mut cpu = machine.cpu(&guest);
    let mut regs = start();
    let got = fault(&mut cpu, &mut regs);
    assert_eq!((got.vector, got.addr), (14, 0xffff_ffff_ff60_0000));
    assert_eq!(regs.rip, 0xffff_ffff_ff60_0000);
    assert_eq!(regs.rsp, DATA + 4088);
    assert_eq!(guest.word(4088), CODE + 9, "the return address is on the stack");
}

#[test]
fn sysenter_is_not_a_call() {
    let machine = Machine::new();
    let guest = machine.space(sysenter);
    let mut cpu = machine.cpu(&guest);
    let mut regs = Registers { rax: 39, rbp: DATA, ..start() };
    assert!(matches!(run(&mut cpu, &mut regs), Exit::Fault(f) if f.vector == 13 || f.vector == 6));
}

/// Medians of what the platform's own operations cost (run with --ignored --nocapture).
#[test]
#[ignore = "a measurement"]
fn costs() {
    let machine = Machine::new();
    let median = |name: &str, count: usize, per: u32, op: &mut dyn FnMut()| {
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                let begun = Instant::now();
                op();
                begun.elapsed() / per
            })
            .collect();
        times.sort();
        println!("{name:32} {:>9.2?} best {:>9.2?}", times[count / 2], times[0]);
    };
    let guest = machine.space(syscalls);
    let mut cpu = machine.cpu(&guest);
    let mut regs = start();
    median("stop", 200, 100, &mut || {
        for _ in 0..100 {
            assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
        }
    });
    let frame = machine.frame();
    let va = 0x60_0000;
    median("map, stop, unmap, stop", 200, 10, &mut || {
        for _ in 0..10 {
            guest.space.apply(&[map(va, &frame, RW)]).unwrap();
            run(&mut cpu, &mut regs);
            guest.space.apply(&[Edit::Unmap { va, len: 4096 }]).unwrap();
            run(&mut cpu, &mut regs);
        }
    });
    let frames: Vec<Frame> = (0..256).map(|_| machine.frame()).collect();
    let scattered: Vec<Edit> =
        (0..256u64).map(|i| map(va + i * 8192, &frames[(i as usize * 7) % 256], RW)).collect();
    median("256 scattered maps, per map", 50, 256, &mut || {
        guest.space.apply(&scattered).unwrap();
        run(&mut cpu, &mut regs);
        guest.space.apply(&[Edit::Unmap { va, len: 0x40_0000 }]).unwrap();
    });
    median("new space, cpu, stop, drop", 300, 1, &mut || {
        let guest = machine.space(syscalls);
        let mut cpu = machine.cpu(&guest);
        run(&mut cpu, &mut start());
    });
    median("the same on a new thread", 300, 1, &mut || {
        std::thread::scope(|s| {
            s.spawn(|| {
                let guest = machine.space(syscalls);
                let mut cpu = machine.cpu(&guest);
                run(&mut cpu, &mut start());
            });
        });
    });
    median("second thread, stop, drop", 300, 1, &mut || {
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut cpu = machine.cpu(&guest);
                run(&mut cpu, &mut start());
            });
        });
    });
    median("a bare thread", 300, 1, &mut || {
        std::thread::scope(|s| {
            s.spawn(|| {});
        });
    });
    median("switch", 300, 1, &mut || {
        let guest = machine.space(syscalls);
        cpu.switch(&guest.space).unwrap();
        run(&mut cpu, &mut start());
    });
}
