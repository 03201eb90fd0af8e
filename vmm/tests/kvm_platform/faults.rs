//! Exceptions and instructions a guest has no right to: all become faults of the guest.

use trapgate_kernel::platform::{Access, Exit, Prot, Registers};

use super::harness::{CODE, DATA, RW, Vm, fault, run, start};
use crate::guest;

guest!(
    table,
    // 16 bytes each.
    ".balign 16",
    "xor ecx, ecx",
    "div ecx",
    ".balign 16",
    "int3",
    ".balign 16",
    "ud2",
    ".balign 16",
    "hlt",
    ".balign 16",
    "cli",
    ".balign 16",
    "in al, 0x60",
    ".balign 16",
    "out 0x80, al",
    ".balign 16",
    "out 0xe1, al",
    ".balign 16",
    "mov rax, cr3",
    ".balign 16",
    "mov dr7, rax",
    ".balign 16",
    "wrmsr",
    ".balign 16",
    "int 0x20",
    ".balign 16",
    "int 0x0e",
    ".balign 16",
    "int 0x02",
    ".balign 16",
    "lgdt [rbx]",
    ".balign 16",
    "ltr ax",
    ".balign 16",
    "invlpg [rbx]",
    ".balign 16",
    "swapgs",
    ".balign 16",
    "sysretq",
    ".balign 16",
    "iretq",
    ".balign 16",
    "wbinvd",
    ".balign 16",
    "mov ds, r15d",
);

/// Vector and whether RIP is behind the instruction, in the order of `table`.
const WANTED: [u8; 22] =
    [0, 3, 6, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13];

#[test]
fn exceptions_arrive_with_their_vector_and_rip() {
    let Some(vm) = Vm::new(table()) else { return };
    let mut cpu = vm.cpu();
    for (i, wanted) in WANTED.iter().enumerate() {
        let rip = CODE + 16 * i as u64;
        // An IRET frame that would raise the CPL, and a selector past the GDT's end.
        for (slot, value) in [DATA, 0x10, 0x202, DATA + 512, 0x18].into_iter().enumerate() {
            vm.data.write(256 + slot * 8, &value.to_le_bytes());
        }
        let mut regs =
            Registers { rip, rbx: DATA, rsp: DATA + 256, r15: 0x1000, rcx: 0x10, ..start() };
        let f = fault(&mut *cpu, &mut regs);
        // A deprivileged host answers software interrupts with #UD instead of #GP.
        let software = (11..=13).contains(&i) && f.vector == 6;
        // QEMU's emulated IRET reads its frame as ring 0 would; SMAP stops it.
        let emulated = i == 19 && f.vector == 14;
        // Nor does it mind WBINVD in ring 3; what follows it stores to address 0.
        if i == 20 && f.vector == 14 && f.addr == 0 && regs.rip == rip + 2 {
            continue;
        }
        assert!(software || emulated || f.vector == *wanted, "case {i}: {f:?} {regs:x?}");
        let at = match i {
            0 => rip + 2,
            1 => rip + 1,
            _ => rip,
        };
        assert_eq!(regs.rip, at, "case {i}");
        assert_eq!((regs.rbx, regs.rsp), (DATA, DATA + 256), "case {i}");
    }
    // The CPU is none the worse.
    vm.code.write(0, &[0x0f, 0x05]);
    assert_eq!(run(&mut *cpu, &mut start()), Exit::Syscall);
}

guest!(
    odd,
    ".balign 16",
    "int 0x80",
    ".balign 16",
    "sysenter",
    ".balign 16",
    "rdtscp",
    "syscall",
    ".balign 16",
    "cpuid",
    "syscall",
    ".balign 16",
    "vmcall",
    "syscall",
    ".balign 16",
    "vmmcall",
    "syscall",
    ".balign 16",
    "rdpmc",
    "syscall",
    ".balign 16",
    ".byte 0xf1",
    "syscall",
    ".balign 16",
    "monitor",
    "syscall",
    ".balign 16",
    "sgdt [rbx]",
    "syscall",
    ".balign 16",
    "push 0x10",
    "push rax",
    "retfq",
    ".balign 16",
    "push 0x23",
    "push rax",
    "retfq",
    ".balign 16",
    "push 0x0f",
    "popfq",
    "syscall",
    ".balign 16",
    "xgetbv",
    "syscall",
    ".balign 16",
    "rep outsb",
    "syscall",
    ".balign 16",
    "lock ud2",
    "syscall",
    ".balign 16",
    "enclu",
    "syscall",
    ".balign 16",
    "fwait",
    "syscall",
);

#[test]
fn odd_instructions_fault_or_do_nothing() {
    let Some(vm) = Vm::new(odd()) else { return };
    let mut cpu = vm.cpu();
    for i in 0..18 {
        for dx in [0xe0, 0xe1, 0x3f8] {
            let rip = CODE + 16 * i;
            let mut regs = Registers {
                rip,
                rbx: DATA,
                rsi: DATA,
                rcx: 4,
                rdx: dx,
                rsp: DATA + 256,
                ..start()
            };
            let exit = run(&mut *cpu, &mut regs);
            let fine = match exit {
                Exit::Syscall => true,
                Exit::Fault(f) => matches!(f.vector, 1 | 6 | 13 | 14),
                Exit::Interrupted => false,
            };
            assert!(fine, "case {i}: {exit:?} {regs:x?}");
            assert!(regs.rip.wrapping_sub(CODE) < 4096 || exit != Exit::Syscall, "{regs:x?}");
        }
    }
}

guest!(
    ports,
    ".balign 16",
    "out 0xe0, al",
    ".balign 16",
    "out dx, al",
    ".balign 16",
    "out dx, eax",
    ".balign 16",
    "in al, 0xe0",
    ".balign 16",
    "in eax, dx",
    ".balign 16",
    "insb",
    ".balign 16",
    "outsb",
    ".balign 16",
    "rep insb",
);

#[test]
fn the_gates_port_is_no_door() {
    let Some(vm) = Vm::new(ports()) else { return };
    let mut cpu = vm.cpu();
    for i in 0..8 {
        let rip = CODE + 16 * i;
        let mut regs =
            Registers { rip, rax: 0x1122, rcx: 3, rdx: 0xe0, rsi: DATA, rdi: DATA, ..start() };
        let f = fault(&mut *cpu, &mut regs);
        assert_eq!((f.vector, regs.rip), (13, rip), "case {i}: {f:?}");
        assert_eq!(regs.rax, 0x1122, "case {i}");
    }
    vm.code.write(0, &[0x0f, 0x05]);
    assert_eq!(run(&mut *cpu, &mut start()), Exit::Syscall);
}

guest!(
    accesses,
    ".balign 16",
    "mov rax, [rbx]",
    "syscall",
    ".balign 16",
    "mov [rbx], rax",
    "syscall",
    ".balign 16",
    "jmp rbx",
);

#[test]
fn page_faults_tell_address_and_access() {
    let Some(vm) = Vm::new(accesses()) else { return };
    let mut cpu = vm.cpu();
    let mut check = |case: u64, rbx: u64, access: Access| {
        let mut regs = Registers { rip: CODE + 16 * case, rbx, ..start() };
        let f = fault(&mut *cpu, &mut regs);
        assert_eq!((f.vector, f.addr, f.access), (14, rbx, access), "case {case} {rbx:x}");
        assert_eq!(regs.rip, if case == 2 { rbx } else { CODE + 16 * case });
        assert_eq!(f.error & 4, 4, "ring 3");
    };
    check(0, 0x1234_5678, Access::Read);
    check(1, 0x7ffe_dcba_9870, Access::Write);
    check(2, 0x6000_0123, Access::Exec);
    check(1, CODE + 8, Access::Write);
    check(2, DATA + 8, Access::Exec);
    let read_only = vm.frame();
    vm.map(DATA + 0x1000, read_only.gpa(), Prot::READ);
    check(1, DATA + 0x1010, Access::Write);
}

#[test]
fn supervisor_memory_is_out_of_reach() {
    let Some(vm) = Vm::new(accesses()) else { return };
    let mut cpu = vm.cpu();
    let base = 0xffff_ffff_8000_0000u64;
    let pages = [0, 2, 3, 4, 0x200, 0x201].map(|page| base + page * 4096);
    for va in pages.into_iter().chain([0xffff_ff00_0000_0000, 0xffff_8000_0000_0000]) {
        for (case, access) in [(0, Access::Read), (1, Access::Write), (2, Access::Exec)] {
            let mut regs = Registers { rip: CODE + 16 * case, rbx: va, ..start() };
            let f = fault(&mut *cpu, &mut regs);
            assert_eq!((f.vector, f.addr, f.access), (14, va, access));
        }
    }
    // The gate's page may be read and run where the gate is in ring 3, never written.
    let mut regs = Registers { rip: CODE + 16, rbx: base + 4096, ..start() };
    assert_eq!(fault(&mut *cpu, &mut regs).access, Access::Write);
}

#[test]
fn a_forged_gate_entry_is_a_system_call_at_most() {
    let Some(vm) = Vm::new(accesses()) else { return };
    let mut cpu = vm.cpu();
    let gate = 0xffff_ffff_8000_1000u64;
    // Every byte of the gate, whichever instruction begins there.
    for offset in 0..0x300 {
        for rcx in [CODE, 0, u64::MAX, gate, 0x8000_0000_0000] {
            let r11 = u64::MAX;
            let mut regs = Registers { rip: CODE + 32, rbx: gate + offset, rcx, r11, ..start() };
            match run(&mut *cpu, &mut regs) {
                Exit::Syscall => {
                    // Or what the guest's own code did after the gate had gone back to it.
                    // RCX may be another by now: the middle of an instruction is some other instruction.
                    let own = rcx == CODE && regs.rip == CODE + 5;
                    assert!(own || regs.rip == regs.rcx, "{:#x}", regs.rip);
                    // Running on from there is harmless too.
                    let exit = run(&mut *cpu, &mut regs);
                    assert!(matches!(exit, Exit::Fault(_) | Exit::Syscall), "{exit:?}");
                }
                Exit::Fault(f) => assert!(matches!(f.vector, 1 | 3 | 6 | 12..=14), "{f:?}"),
                // As after a call that was answered: by nobody, at the guest's own word.
                Exit::Interrupted => assert_eq!(regs.rip, regs.rcx),
            }
        }
    }
}

guest!(steps, "nop", "mov eax, 1", "syscall", "nop", "nop");

#[test]
fn single_steps_trap_after_each_instruction() {
    let Some(vm) = Vm::new(steps()) else { return };
    let mut cpu = vm.cpu();
    let mut regs = Registers { rflags: 0x302, ..start() };
    for at in [1, 6] {
        let f = fault(&mut *cpu, &mut regs);
        assert_eq!((f.vector, regs.rip), (1, CODE + at));
        assert_eq!(regs.rflags & 0x100, 0x100);
    }
    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
    assert_eq!((regs.rip, regs.rflags & 0x100), (CODE + 8, 0x100));
    let f = fault(&mut *cpu, &mut regs);
    assert_eq!((f.vector, regs.rip), (1, CODE + 9));
}

guest!(stack_fault, "mov rsp, rbx", "push rax", "syscall");

#[test]
fn a_wild_stack_is_the_guests_problem() {
    let Some(vm) = Vm::new(stack_fault()) else { return };
    let mut cpu = vm.cpu();
    for rbx in [0, 8, 0x8000_0000_0000, 0xffff_ffff_8020_1000, u64::MAX] {
        let f = fault(&mut *cpu, &mut Registers { rbx, ..start() });
        assert!(matches!(f.vector, 12..=14), "{f:?}");
        // A SYSCALL with such a stack works: the gate uses none.
        let mut regs = Registers { rip: CODE + 4, rsp: rbx, ..start() };
        assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
        assert_eq!(regs.rsp, rbx);
    }
    let _ = RW;
}
