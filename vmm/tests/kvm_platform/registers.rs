//! System calls, registers, FPU, segment bases.

use trapgate::platform::kvm::Kind;
use trapgate_kernel::platform::{Exit, Platform, Registers};

use super::harness::{CODE, DATA, STACK, Vm, fault, run, start, word};
use crate::guest;

guest!(syscalls, "2: syscall", "jmp 2b");

#[test]
fn a_system_call_preserves_every_register() {
    let Some(vm) = Vm::new(syscalls()) else { return };
    let mut cpu = vm.cpu();
    let mut regs = Registers {
        rax: 0x1111,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rsp: STACK - 8,
        rbp: 0xffff_8000_dead_beef,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: u64::MAX,
        rip: CODE,
        rflags: 0x246 | 0x400,
        fs_base: 0x1234_5678_9000,
        gs_base: 0xffff_8765_4321_0000,
    };
    let sent = regs;
    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
    let wanted =
        Registers { rip: CODE + 2, rcx: CODE + 2, r11: sent.rflags, rflags: sent.rflags, ..sent };
    assert_eq!(regs, wanted);
    // Return as Linux does, and differently (as sigreturn does), a few times over.
    for round in 0..50 {
        let mut sent = regs;
        sent.rax = round;
        sent.fs_base = 0x1000 * round;
        if round % 2 == 1 {
            (sent.rcx, sent.r11) = (0x77, 0x88);
        }
        regs = sent;
        assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
        let wanted = Registers { rip: CODE + 2, rcx: CODE + 2, r11: sent.rflags, ..sent };
        assert_eq!(regs, wanted, "round {round}");
    }
}

#[test]
fn flags_a_guest_may_not_have_are_dropped() {
    let Some(vm) = Vm::new(syscalls()) else { return };
    let mut cpu = vm.cpu();
    // IOPL 3, NT, VM, VIF, VIP, no IF.
    let mut regs = Registers { rflags: 0x1a_7000, ..start() };
    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
    assert_eq!(regs.rflags & 0x1a_7202, 0x202, "{:x}", regs.rflags);
}

#[test]
fn registers_the_processor_refuses_become_faults() {
    let Some(vm) = Vm::new(syscalls()) else { return };
    let mut cpu = vm.cpu();
    for rip in [0x7fff_ffff_f000, 0x8000_0000_0000, u64::MAX, 0xffff_ffff_8000_1000] {
        let f = fault(&mut *cpu, &mut Registers { rip, ..start() });
        assert!(f.vector == 13 || f.vector == 14 && f.addr == rip, "{f:?}");
    }
    let f = fault(&mut *cpu, &mut Registers { fs_base: 1 << 47, ..start() });
    assert_eq!(f.vector, 13);
    assert_eq!(run(&mut *cpu, &mut start()), Exit::Syscall);
}

guest!(
    fpu_code,
    "mov eax, 0xe7",
    "xor edx, edx",
    "xrstor64 [rbx]",
    "syscall",
    "mov eax, 0xe7",
    "xor edx, edx",
    "xsave64 [rbx]",
    "syscall",
);

#[test]
fn the_fpu_round_trips() {
    if !std::is_x86_feature_detected!("avx") {
        eprintln!("\n*** SKIPPED, NOT TESTED: no AVX ***\n");
        return;
    }
    let Some(vm) = Vm::new(fpu_code()) else { return };
    let layout = vm.platform.xsave_layout();
    assert!(layout.features & 7 == 7 && layout.size >= 832, "{layout:?}");
    let mut cpu = vm.cpu();
    let mut other = vm.cpu();
    // What the guest loads, the monitor reads.
    let mut area = vec![0u8; 4096];
    area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    area[24..28].copy_from_slice(&0x9fc0u32.to_le_bytes());
    area[160..176].fill(0xa5);
    area[576..592].fill(0x5a);
    area[512] = 7;
    vm.data.write(0, &area);
    let mut regs = Registers { rbx: DATA, ..start() };
    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
    let read = cpu.fpu().expect("FPU state");
    assert_eq!(read.len(), layout.size);
    // Processors differ in whether they track an x87 state equal to the initial one (bit 0).
    assert_eq!((read[24], read[25], read[512] & 6), (0xc0, 0x9f, 6));
    assert!(read[160..176].iter().all(|b| *b == 0xa5), "XMM0");
    assert!(read[576..592].iter().all(|b| *b == 0x5a), "YMM0, upper half");
    // Another CPU starts clean.
    let clean = other.fpu().expect("FPU state");
    assert!(clean[160..176].iter().all(|b| *b == 0));
    // What the monitor sets, the guest stores.
    let mut set = read.clone();
    set[160..176].fill(0x33);
    set[576..592].fill(0x44);
    cpu.set_fpu(&set).expect("a good area");
    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
    assert_eq!(
        (word(&vm.data, 160), word(&vm.data, 576)),
        (0x3333_3333_3333_3333, 0x4444_4444_4444_4444)
    );
    // Hostile areas are refused and change nothing.
    let mut bad = set.clone();
    bad[519] = 0x80;
    assert!(cpu.set_fpu(&bad).is_err());
    assert!(cpu.set_fpu(&[0xff; 512]).is_err());
    assert!(cpu.set_fpu(&[]).is_err());
    assert_eq!(cpu.fpu().expect("FPU state")[160], 0x33);
    cpu.reset_fpu().expect("reset");
    let clean = cpu.fpu().expect("FPU state");
    assert!(clean[160..176].iter().all(|b| *b == 0) && clean[24] == 0x80 && clean[25] == 0x1f);
}

guest!(bases, "mov rax, fs:[0]", "mov rbx, gs:[8]", "syscall");

#[test]
fn segment_bases_take_effect() {
    let Some(vm) = Vm::new(bases()) else { return };
    let mut cpu = vm.cpu();
    vm.data.write(0x100, &0xaau64.to_le_bytes());
    vm.data.write(0x208, &0xbbu64.to_le_bytes());
    let mut regs = Registers { fs_base: DATA + 0x100, gs_base: DATA + 0x200, ..start() };
    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
    assert_eq!((regs.rax, regs.rbx), (0xaa, 0xbb));
    assert_eq!((regs.fs_base, regs.gs_base), (DATA + 0x100, DATA + 0x200));
}

#[test]
fn the_probe_is_quick() {
    let begin = std::time::Instant::now();
    match trapgate::platform::kvm::probe::probe() {
        Ok(report) => {
            let took = begin.elapsed();
            println!("{report:?} in {took:?}");
            assert!(report.exit_ns > 0 && report.max_vcpus > 1, "{report:?}");
            assert_eq!(report.gate_ring == 0, report.kind == Kind::Hardware);
            // Half a second is doctor's share; emulated hardware may take its time.
            assert!(report.kind == Kind::Hardware || took.as_millis() < 500, "{took:?}");
        }
        Err(e) => eprintln!("\n*** SKIPPED, NOT TESTED: {e} ***\n"),
    }
}
