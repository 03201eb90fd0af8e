//! What a guest's instructions become: calls, faults, registers.

use trapgate_kernel::platform::Access;
use trapgate_kernel::platform::Cpu;
use trapgate_kernel::platform::Exit;
use trapgate_kernel::platform::Fault;
use trapgate_kernel::platform::PlatformError;
use trapgate_kernel::platform::Registers;

use trapgate_kernel::platform::Platform;

use super::harness::*;

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
