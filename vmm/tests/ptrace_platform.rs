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
    while !out.ends_with(&MARK.to_le_bytes()) {
        // SAFETY: every `guest!` ends with MARK, at which the reading stops.
        let byte = unsafe { at.add(out.len()).read() };
        out.push(byte);
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

#[test]
fn each_fault_is_told_apart() {
    let machine = Machine::new();
    let plain = |vector| Fault { vector, error: 0, addr: 0, access: Access::Unknown };
    let page = |addr| Fault { vector: 14, error: 0, addr, access: Access::Unknown };
    let write = |addr| Fault { access: Access::Write, ..page(addr) };
    let check = |name: &str, code, rdi, expect: Fault, rip: u64| {
        let guest = machine.space(code);
        let mut cpu = machine.cpu(&guest);
        let mut regs = Registers { rdi, rax: 0xabc, ..start() };
        let got = fault(&mut cpu, &mut regs);
        assert_eq!(got, expect, "{name}");
        assert_eq!(regs.rip, CODE + rip, "{name}");
    };
    check("int3", trap, 0, plain(3), 1);
    check("ud2", illegal, 0, plain(6), 0);
    check("div", divide, 0, plain(0), 4);
    check("load", load, 0x1234_5000, page(0x1234_5000), 0);
    check("load of null", load, 0, page(0), 0);
    check("store", store, CODE + 0x100, write(CODE + 0x100), 0);
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
            assert_eq!((got.addr, got.access), (rip, Access::Exec));
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

guest!(vectors: "vmovdqu ymm0, [rdi]", "vmovdqu ymm15, [rdi + 32]", "2:", "syscall", "vmovdqu [rdi + 64], ymm0",
    "vmovdqu [rdi + 96], ymm15", "jmp 2b");

#[test]
fn fpu_state_makes_the_round_trip() {
    let machine = Machine::new();
    let layout = machine.platform.xsave_layout();
    if layout.features & 4 == 0 {
        eprintln!("SKIPPED: no AVX here");
        return;
    }
    let guest = machine.space(vectors);
    for i in 0..64u8 {
        guest.data.write(usize::from(i), &[i + 1]);
    }
    let mut cpu = machine.cpu(&guest);
    let initial = cpu.fpu().unwrap();
    assert_eq!(initial.len(), layout.size);
    assert_eq!(initial[24..28], 0x1f80u32.to_le_bytes(), "MXCSR");
    assert!(initial[160..416].iter().all(|b| *b == 0), "nothing of the monitor's is in XMM");
    let mut regs = Registers { rdi: DATA, ..start() };
    assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
    let state = cpu.fpu().unwrap();
    assert_eq!(state[160..176], (1..17).collect::<Vec<u8>>(), "XMM0");
    assert_eq!(state[512] & 7, 6 | state[512] & 1, "XSTATE_BV");
    cpu.reset_fpu().unwrap();
    run(&mut cpu, &mut regs);
    assert_eq!((guest.word(64), guest.word(120)), (0, 0), "reset");
    cpu.set_fpu(&state).unwrap();
    run(&mut cpu, &mut regs);
    let mut back = [0; 64];
    guest.data.read(64, &mut back);
    assert_eq!(back.to_vec(), (1..65).collect::<Vec<u8>>(), "restored");
    assert_eq!(cpu.fpu().unwrap()[160..416], state[160..416]);
    // The legacy format leaves the upper halves in their initial state.
    cpu.set_fpu(&state[..512]).unwrap();
    run(&mut cpu, &mut regs);
    assert_eq!((guest.word(64), guest.word(80)), (u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]), 0));
    // Hostile ones change nothing.
    for (at, byte) in [(27, 0xff), (519, 0x80), (527, 0x80), (550, 1)] {
        let mut bad = state.clone();
        bad[at] = byte;
        assert!(matches!(cpu.set_fpu(&bad), Err(PlatformError::Host { source, .. })
                if source.kind() == std::io::ErrorKind::InvalidInput));
    }
    assert!(cpu.set_fpu(&[]).is_err());
}

guest!(bases: "rdfsbase rax", "rdgsbase rbx", "syscall", "wrfsbase rdi", "wrgsbase rsi", "syscall", "ud2");

#[test]
fn segment_bases() {
    let machine = Machine::new();
    let guest = machine.space(bases);
    let mut cpu = machine.cpu(&guest);
    let mut regs = Registers { fs_base: 0x1_2345, gs_base: 0x7fff_0000_1000, ..start() };
    run(&mut cpu, &mut regs);
    assert_eq!((regs.rax, regs.rbx), (0x1_2345, 0x7fff_0000_1000));
    // A base no ptrace request would set, but the instruction does.
    (regs.rdi, regs.rsi) = (0x6000_0000_0000, 0xffff_8000_0000_0000);
    run(&mut cpu, &mut regs);
    assert_eq!((regs.fs_base, regs.gs_base), (0x6000_0000_0000, 0xffff_8000_0000_0000));
    regs.rip = CODE;
    run(&mut cpu, &mut regs);
    assert_eq!((regs.rax, regs.rbx), (0x6000_0000_0000, 0xffff_8000_0000_0000));
}

guest!(count: "2:", "lock inc qword ptr [rdi]", "dec rcx", "jnz 2b", "syscall", "ud2");

#[test]
fn several_cpus_in_one_space() {
    let machine = Machine::new();
    let guest = machine.space(count);
    for _ in 0..5 {
        guest.set_word(0, 0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    let mut cpu = machine.cpu(&guest);
                    for _ in 0..20 {
                        let mut regs = Registers { rdi: DATA, rcx: 1000, ..start() };
                        assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
                    }
                });
            }
        });
        assert_eq!(guest.word(0), 8 * 20 * 1000);
    }
    assert_eq!(machine.platform.in_use(), [("stub processes", 1), ("stub threads", 0)]);
}

guest!(spin: "2:", "inc qword ptr [rdi]", "jmp 2b");

#[test]
fn kicks_are_never_lost() {
    let machine = Machine::new();
    let guest = machine.space(spin);
    let (tell, told) = mpsc::channel();
    let answered = AtomicU64::new(0);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut cpu = machine.cpu(&guest);
            let mut regs = Registers { rdi: DATA, ..start() };
            tell.send(cpu.kicker()).unwrap();
            for _ in 0..2000 {
                assert_eq!(cpu.run(&mut regs).unwrap(), Exit::Interrupted);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
        let kick = told.recv().unwrap();
        for i in 0..2000 {
            // Before it runs, as it enters, deep in guest code.
            if i % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            kick.kick();
            let begun = Instant::now();
            while answered.load(Ordering::SeqCst) <= i {
                assert!(begun.elapsed() < Duration::from_secs(5), "kick {i} lost");
                std::thread::yield_now();
            }
        }
    });
    assert!(guest.word(0) > 0);
}

#[test]
fn a_kick_after_the_cpu_has_gone_is_harmless() {
    let machine = Machine::new();
    let guest = machine.space(syscalls);
    let cpu = machine.cpu(&guest);
    let kick = cpu.kicker();
    drop(cpu);
    kick.kick();
    let mut cpu = machine.cpu(&guest);
    let mut regs = start();
    assert_eq!(cpu.run(&mut regs).unwrap(), Exit::Syscall);
}

// Reads a word for ever; what it saw last is in memory that the test reads.
guest!(hammer: "2:", "mov rax, [rsi]", "mov [rdi], rax", "inc qword ptr [rdi + 8]", "jmp 2b");

/// Runs `hammer` on the page at VA on another thread while `body` runs; `body` gets a closure that
/// waits until the hammer has gone round. Faults of the hammer are counted and retried.
fn hammered(own_edits: bool, body: impl FnOnce(&Machine, &Guest, &dyn Fn(), &AtomicU64)) {
    let machine = Machine::new();
    let guest = machine.space(hammer);
    let first = machine.frame();
    guest.space.apply(&[map(VA, &first, RW)]).unwrap();
    let (stop, faults) = (AtomicBool::new(false), AtomicU64::new(0));
    let (tell, told) = mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut cpu = machine.cpu(&guest);
            tell.send(cpu.kicker()).unwrap();
            let mut regs = Registers { rdi: DATA, rsi: VA, ..start() };
            while !stop.load(Ordering::SeqCst) {
                if let Exit::Fault(fault) = cpu.run(&mut regs).unwrap() {
                    assert_eq!((fault.vector, fault.addr), (14, VA));
                    faults.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let kick = told.recv().unwrap();
        let mut own = None;
        if own_edits {
            own = Some(machine.cpu(&guest));
        }
        let round = || {
            let (words, faulted) = (guest.word(8), faults.load(Ordering::SeqCst));
            let begun = Instant::now();
            while guest.word(8) < words + 2 && faults.load(Ordering::SeqCst) < faulted + 2 {
                assert!(begun.elapsed() < Duration::from_secs(5), "the hammer stands still");
                std::hint::spin_loop();
            }
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            body(&machine, &guest, &round, &faults);
        }));
        stop.store(true, Ordering::SeqCst);
        kick.kick();
        drop(own);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}
const VA: u64 = 0x7000_0000;

fn edits_are_seen_at_once(own: bool) {
    hammered(own, |machine, guest, round, faults| {
        let frames: Vec<Frame> = (0..8).map(|_| machine.frame()).collect();
        for i in 1..300u64 {
            let nth = usize::try_from(i % 8).unwrap();
            let frame = &frames[nth];
            frame.write(0, &i.to_le_bytes());
            guest.space.apply(&[map(VA, frame, if i % 2 == 0 { RW } else { Prot::READ })]).unwrap();
            round();
            // From here on only the new frame is seen, whatever the old one says.
            frames[(nth + 7) % 8].write(0, &u64::MAX.to_le_bytes());
            round();
            assert_eq!(guest.word(0), i, "redirected");
            if i % 3 == 0 {
                guest.space.apply(&[Edit::Unmap { va: VA, len: 4096 }]).unwrap();
                frame.write(0, &u64::MAX.to_le_bytes());
                let before = faults.load(Ordering::SeqCst);
                round();
                assert!(faults.load(Ordering::SeqCst) > before, "unmapped");
                assert_ne!(guest.word(0), u64::MAX);
            }
            if i % 7 == 0 {
                let none = Prot::empty();
                guest.space.apply(&[Edit::Protect { va: VA, len: 4096, prot: none }]).unwrap();
                frame.write(0, &u64::MAX.to_le_bytes());
                round();
                assert_ne!(guest.word(0), u64::MAX, "no access");
            }
        }
    });
}

#[test]
fn own_edits_are_seen_at_once_by_others() {
    edits_are_seen_at_once(true);
}
#[test]
fn foreign_edits_are_seen_at_once() {
    edits_are_seen_at_once(false);
}

guest!(write_loop: "2:", "mov [rsi], rcx", "inc rcx", "jmp 2b");

#[test]
fn a_page_made_read_only_is_written_no_more() {
    let machine = Machine::new();
    let guest = machine.space(write_loop);
    let page = machine.frame();
    let (tell, told) = mpsc::channel();
    let faults = AtomicU64::new(0);
    std::thread::scope(|s| {
        guest.space.apply(&[map(VA, &page, RW)]).unwrap();
        s.spawn(|| {
            let mut cpu = machine.cpu(&guest);
            tell.send(cpu.kicker()).unwrap();
            let mut regs = Registers { rsi: VA, ..start() };
            for _ in 0..200 {
                let fault = fault(&mut cpu, &mut regs);
                assert_eq!((fault.vector, fault.addr), (14, VA));
                faults.fetch_add(1, Ordering::SeqCst);
                while faults.load(Ordering::SeqCst) % 2 == 1 {
                    std::thread::yield_now();
                }
            }
        });
        told.recv().unwrap();
        for _ in 0..200 {
            let read = |b: &mut [u8; 8]| page.read(0, b);
            let (mut one, mut two) = ([0; 8], [0; 8]);
            let protect = |prot| [Edit::Protect { va: VA, len: 4096, prot }];
            guest.space.apply(&protect(Prot::READ)).unwrap();
            read(&mut one);
            while faults.load(Ordering::SeqCst).is_multiple_of(2) {
                std::thread::yield_now();
            }
            read(&mut two);
            assert_eq!(one, two, "written after protection");
            guest.space.apply(&protect(RW)).unwrap();
            faults.fetch_add(1, Ordering::SeqCst);
        }
    });
}

#[test]
fn guest_code_gains_nothing_from_the_stubs_pages() {
    let machine = Machine::new();
    let guest = machine.space(store);
    let mut cpu = machine.cpu(&guest);
    // Not writable, neither of them.
    for va in [layout::CODE, layout::SLOT, layout::SLOT + 4096] {
        let mut regs = Registers { rdi: va, ..start() };
        assert_eq!(fault(&mut cpu, &mut regs).vector, 14, "{va:x}");
    }
    // Nothing else of the host's is there to read: stack, vDSO, the monitor.
    let guest = machine.space(load);
    let mut cpu = machine.cpu(&guest);
    for va in (0x7000_0000_0000..0x7fff_ffff_0000u64).step_by(0x1_2345_6000).chain([
        layout::STUB_END,
        layout::STUB_BASE - 4096,
        0x7fff_ffff_e000,
    ]) {
        let mut regs = Registers { rdi: va, ..start() };
        assert_eq!(fault(&mut cpu, &mut regs).vector, 14, "{va:x}");
    }
    // Every SYSCALL in the stub's code is a guest's call when a guest jumps to it.
    let guest = machine.space(syscalls);
    let mut cpu = machine.cpu(&guest);
    let mut code = vec![0; 4096];
    let maps = std::fs::read_dir(format!("/proc/{}/fd", cpu.stub_thread())).unwrap();
    let slots = maps
        .map(|f| f.unwrap().path())
        .find(|f| std::fs::read_link(f).unwrap().to_string_lossy().contains("stub-slots"));
    let file = std::fs::File::open(slots.unwrap()).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut code, 0).unwrap();
    let places: Vec<usize> =
        (0..4095).filter(|i| code[*i] == 0x0f && code[i + 1] == 0x05).collect();
    assert!(places.len() > 8);
    for place in places {
        let rip = layout::CODE + place as u64;
        let mut regs = Registers { rip, rax: 231, ..start() };
        assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
        assert_eq!((regs.rip, regs.rax), (rip + 2, 231));
    }
}

/// The mappings of a stub process, as the host lists them.
fn host_maps(tid: i32) -> Vec<(u64, u64, String)> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/maps")).unwrap();
    text.lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (a, b) = range.split_once('-').unwrap();
            let hex = |s| u64::from_str_radix(s, 16).unwrap();
            (hex(a), hex(b), rest[..4].to_owned())
        })
        .collect()
}

#[test]
fn a_stub_holds_nothing_but_its_own() {
    let machine = Machine::new();
    let guest = machine.space(syscalls);
    let mut cpu = machine.cpu(&guest);
    run(&mut cpu, &mut start());
    let tid = cpu.stub_thread();
    let maps = host_maps(tid);
    let expect = [
        (CODE, CODE + 4096, "r-xs".to_owned()),
        (DATA, DATA + 4096, "rw-s".to_owned()),
        (layout::CODE, layout::SLOT, "r-xs".to_owned()),
        (layout::SLOT, layout::STUB_END, "r--s".to_owned()),
    ];
    let own: Vec<_> = maps.into_iter().filter(|(a, ..)| *a < 1 << 63).collect();
    assert_eq!(own, expect);
    let fds = std::fs::read_dir(format!("/proc/{tid}/fd")).unwrap().count();
    assert_eq!(fds, 2);
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "SigBlk:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
}

#[test]
fn a_stub_let_loose_dies_at_its_first_call() {
    let machine = Machine::new();
    let guest = machine.space(syscalls);
    let mut cpu = machine.cpu(&guest);
    let mut regs = Registers { rax: 39, ..start() };
    run(&mut cpu, &mut regs);
    let tid = cpu.stub_thread();
    // SAFETY: plain requests on a tracee of this thread; nothing of ours is written but `status`.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_CONT, tid, 0, 0), 0);
        let mut status = 0;
        // The status of the whole group's death by SIGSYS.
        assert_eq!(libc::waitpid(tid, &raw mut status, libc::__WALL), tid);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS, "{status:x}");
    }
    assert!(matches!(cpu.run(&mut regs), Err(PlatformError::Gone)));
    assert!(matches!(guest.space.apply(&[map(VA, &guest.data, RW)]), Err(PlatformError::Gone)));
}

/// The process of a stub thread.
fn stub_process(tid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn a_stub_killed_from_outside_is_gone() {
    let machine = Machine::new();
    let guest = machine.space(spin);
    let mut cpu = machine.cpu(&guest);
    let mut regs = Registers { rdi: DATA, ..start() };
    let tid = cpu.stub_thread();
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            // Any other signal is dropped, whichever thread it hits.
            for signal in
                [libc::SIGTERM, libc::SIGINT, libc::SIGSTOP, libc::SIGUSR1, libc::SIGRTMIN()]
            {
                // SAFETY: signals a process of ours.
                unsafe { libc::kill(tid, signal) };
                std::thread::sleep(Duration::from_millis(2));
            }
            let pid = stub_process(tid);
            for signal in [libc::SIGSEGV, libc::SIGTRAP, libc::SIGFPE, libc::SIGSYS] {
                // SAFETY: signals a thread of ours.
                unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(std::fs::exists(format!("/proc/{tid}")).unwrap());
            // SAFETY: as above.
            unsafe { libc::kill(tid, libc::SIGKILL) };
        });
        assert!(matches!(cpu.run(&mut regs), Err(PlatformError::Gone)));
    });
    assert!(matches!(cpu.run(&mut regs), Err(PlatformError::Gone)));
    assert!(matches!(cpu.fpu(), Err(PlatformError::Gone)));
    drop(cpu);
    assert!(machine.platform.new_cpu(&guest.space).is_err());
    // Others live on.
    let guest = machine.space(syscalls);
    assert_eq!(run(&mut machine.cpu(&guest), &mut start()), Exit::Syscall);
}

/// Processes of the zygote's family that this process has, zombies included.
fn stubs() -> usize {
    let me = std::process::id().to_string();
    let mut family = vec![me];
    let mut found = 0;
    let list: Vec<(String, String)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| {
            let pid = e.ok()?.file_name().into_string().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            Some((pid, rest.split(' ').nth(1)?.to_owned()))
        })
        .collect();
    while let Some(parent) = family.pop() {
        for (pid, _) in list.iter().filter(|(_, p)| *p == parent) {
            family.push(pid.clone());
            found += 1;
        }
    }
    found
}

/// Tests that count processes run alone, in a process of their own.
fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os("PTRACE_TEST_ALONE").is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("PTRACE_TEST_ALONE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_left_after_200_spaces() {
    alone("nothing_is_left_after_200_spaces", || {
        let machine = Machine::new();
        let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let churn = |count: u32| {
            for i in 0..count {
                let guest = machine.space(syscalls);
                std::thread::scope(|s| {
                    for _ in 0..i % 3 {
                        s.spawn(|| run(&mut machine.cpu(&guest), &mut start()));
                    }
                });
                let mut cpu = machine.cpu(&guest);
                run(&mut cpu, &mut start());
                let next = machine.space(syscalls);
                cpu.switch(&next.space).unwrap();
                run(&mut cpu, &mut start());
            }
        };
        churn(5);
        eventually("stubs end", || stubs() <= 3);
        let (files, free) = (fds(), machine.ram.frames.free());
        churn(200);
        assert_eq!(machine.platform.in_use(), [("stub processes", 0), ("stub threads", 0)]);
        eventually("only the zygote and its spares are left", || stubs() <= 3);
        assert_eq!((fds(), machine.ram.frames.free()), (files, free));
        drop(machine);
        eventually("and then nothing", || stubs() == 0);
    });
}

#[test]
fn a_killed_monitor_leaves_no_process() {
    const NAME: &str = "a_killed_monitor_leaves_no_process";
    if std::env::var_os("PTRACE_TEST_VICTIM").is_some() {
        // The monitor: three spaces, two of them spinning, then silence.
        let machine = Machine::new();
        std::thread::scope(|s| {
            for code in [spin, spin, syscalls] {
                s.spawn({
                    let machine = &machine;
                    move || {
                        let guest = machine.space(code);
                        let mut cpu = machine.cpu(&guest);
                        println!("stub {}", cpu.stub_thread());
                        let mut regs = Registers { rdi: DATA, ..start() };
                        run(&mut cpu, &mut regs);
                        std::thread::sleep(Duration::from_secs(60));
                    }
                });
            }
        });
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env("PTRACE_TEST_VICTIM", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut tids: Vec<String> = Vec::new();
    while tids.len() < 3 {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, tid)) = line.split_once("stub ") {
            tids.push(tid.trim().to_owned());
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    // The zygote and its spares die too: find them by their session.
    let session = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(3)?.to_owned())
    };
    let own = session(&tids[0]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("no stub is left", || {
        std::fs::read_dir("/proc").unwrap().all(|entry| {
            let pid = entry.unwrap().file_name().into_string().unwrap();
            session(&pid).is_none_or(|s| s != own)
        })
    });
}

guest!(read_all: "2:", "add rax, [rdi]", "add rdi, 8192", "dec rcx", "jnz 2b", "syscall", "ud2");

#[test]
fn more_mappings_than_the_host_allows_a_process() {
    const PAGES: u64 = 80_000;
    let machine = Machine::new();
    let guest = machine.space(read_all);
    let frames: Vec<Frame> = (0..7).map(|_| machine.frame()).collect();
    for (value, frame) in (1u64..).zip(&frames) {
        frame.write(0, &value.to_le_bytes());
    }
    let scattered: Vec<Edit> = (0..PAGES)
        .map(|i| map(VA + i * 8192, &frames[usize::try_from(i % 7).unwrap()], RW))
        .collect();
    guest.space.apply(&scattered).unwrap();
    let sum: u64 = (0..PAGES).map(|i| i % 7 + 1).sum();
    let mut cpu = machine.cpu(&guest);
    for _ in 0..2 {
        let mut regs = Registers { rdi: VA, rcx: PAGES, ..start() };
        assert_eq!(run(&mut cpu, &mut regs), Exit::Syscall);
        assert_eq!(regs.rax, sum);
    }
    // What is not there, and what is not allowed, is still told.
    let mut regs = Registers { rdi: VA + 4096, rcx: 1, ..start() };
    assert_eq!(fault(&mut cpu, &mut regs).addr, VA + 4096);
    let whole = Edit::Protect { va: VA, len: PAGES * 8192, prot: Prot::READ };
    guest.space.apply(&[whole, map(CODE, &machine.code(store), RX)]).unwrap();
    let mut regs = Registers { rdi: VA + 8192 * 50_000, ..start() };
    assert_eq!(fault(&mut cpu, &mut regs).addr, VA + 8192 * 50_000);
    guest.space.apply(&[map(CODE, &machine.code(load), RX)]).unwrap();
    guest.space.apply(&[Edit::Unmap { va: VA, len: PAGES * 8192 }]).unwrap();
    for page in [0, 1, 50_000, PAGES - 1] {
        let mut regs = Registers { rdi: VA + 8192 * page, ..start() };
        assert_eq!(fault(&mut cpu, &mut regs).addr, VA + 8192 * page);
    }
}

#[test]
fn computing_guests_spread_over_the_cpus() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus < 2 {
        eprintln!("SKIPPED: one CPU");
        return;
    }
    let machine = Machine::new();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let guest = machine.space(spin);
                let mut cpu = machine.cpu(&guest);
                let kick = cpu.kicker();
                let tid = cpu.stub_thread();
                s.spawn(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    // Unbound by now, so that the host can balance.
                    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap();
                    let allowed =
                        status.lines().find(|l| l.starts_with("Cpus_allowed_list")).unwrap();
                    assert!(allowed.contains(['-', ',']), "{allowed}");
                    kick.kick();
                });
                let mut regs = Registers { rdi: DATA, ..start() };
                assert_eq!(cpu.run(&mut regs).unwrap(), Exit::Interrupted);
            });
        }
    });
}

#[test]
fn the_probe_is_quick() {
    let begun = Instant::now();
    let probe = trapgate::platform::ptrace::probe().unwrap();
    assert!(probe.stop > Duration::ZERO && begun.elapsed() < Duration::from_millis(300));
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
        (0..256).map(|i| map(va + i as u64 * 8192, &frames[(i * 7) % 256], RW)).collect();
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
