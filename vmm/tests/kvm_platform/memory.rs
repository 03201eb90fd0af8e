//! Translations appear, change and above all disappear when they should.

use trapgate_kernel::platform::{Access, Edit, Exit, Gpa, PAGE_SIZE, Platform, Prot, Registers};

use super::harness::{CODE, DATA, RW, Vm, fault, platform, run, start};
use crate::guest;

guest!(
    touches,
    ".balign 16",
    "mov rax, [rbx]",
    "syscall",
    ".balign 16",
    "mov [rbx], rax",
    "syscall",
    ".balign 16",
    "jmp rbx",
);

fn read(vm: &Vm, cpu: &mut dyn trapgate_kernel::platform::Cpu, va: u64) -> Option<u64> {
    let _ = vm;
    let mut regs = Registers { rbx: va, ..start() };
    match run(cpu, &mut regs) {
        Exit::Syscall => Some(regs.rax),
        Exit::Fault(f) => {
            assert_eq!((f.vector, f.addr, f.access), (14, va, Access::Read));
            None
        }
        Exit::Interrupted => unreachable!(),
    }
}

#[test]
fn edits_are_seen_at_once() {
    let Some(vm) = Vm::new(touches()) else { return };
    let mut cpu = vm.cpu();
    let va = 0x1234_5000_0000u64;
    let frames: Vec<_> = (0..4u64)
        .map(|i| {
            let frame = vm.frame();
            frame.write(0, &(100 + i).to_le_bytes());
            frame
        })
        .collect();
    for round in 0..20 {
        assert_eq!(read(&vm, &mut *cpu, va), None, "round {round}");
        for (i, frame) in frames.iter().enumerate() {
            vm.map(va, frame.gpa(), RW);
            assert_eq!(read(&vm, &mut *cpu, va), Some(100 + i as u64), "round {round}");
        }
        let mut regs = Registers { rip: CODE + 16, rbx: va + 8, rax: 7, ..start() };
        assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
        vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: Prot::READ });
        let mut regs = Registers { rip: CODE + 16, rbx: va + 8, rax: 7, ..start() };
        assert_eq!(fault(&mut *cpu, &mut regs).access, Access::Write);
        vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: RW });
        let mut regs = Registers { rip: CODE + 16, rbx: va + 8, rax: 7, ..start() };
        assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
        // Half the rounds free the page's table, half do not.
        if round % 2 == 0 {
            vm.unmap(va);
        } else {
            vm.apply(Edit::Unmap { va: va - (1 << 30), len: 2 << 30 });
        }
    }
}

#[test]
fn large_entries_split_and_come_back() {
    let Some(vm) = Vm::new(touches()) else { return };
    let mut cpu = vm.cpu();
    let block = vm.ram.frames.alloc_block().expect("a block");
    let other = vm.ram.frames.alloc_block().expect("a block");
    let (len, va) = (2 << 20, 0x4000_0000u64);
    for page in 0..512u64 {
        for (base, tag) in [(block, 0x1000), (other, 0x2000)] {
            let gpa = trapgate_kernel::platform::Gpa(base.0 + page * PAGE_SIZE);
            let bytes = (tag + page).to_le_bytes();
            let _ = vm_memory::Bytes::write_slice(&vm.ram.frames.slice(gpa, 8), &bytes, 0);
        }
    }
    let at = |page: u64| va + page * PAGE_SIZE;
    for round in 0..4 {
        let before = vm.platform.in_use()[1].1;
        vm.apply(Edit::Map { va, gpa: block, len, prot: RW });
        for page in [0, 5, 511] {
            assert_eq!(read(&vm, &mut *cpu, at(page)), Some(0x1000 + page));
        }
        if round > 0 {
            assert_eq!(vm.platform.in_use()[1].1, before + 1, "one directory, no leaf table");
        }
        // Split it: one page redirected, one removed, one read-only; the rest as before.
        let frame = vm.frame();
        frame.write(0, &0x99u64.to_le_bytes());
        vm.map(at(5), frame.gpa(), RW);
        vm.unmap(at(6));
        vm.apply(Edit::Protect { va: at(7), len: PAGE_SIZE, prot: Prot::READ });
        assert_eq!(read(&vm, &mut *cpu, at(5)), Some(0x99));
        assert_eq!(read(&vm, &mut *cpu, at(6)), None);
        assert_eq!(read(&vm, &mut *cpu, at(7)), Some(0x1007));
        let mut regs = Registers { rip: CODE + 16, rbx: at(7), ..start() };
        assert_eq!(fault(&mut *cpu, &mut regs).access, Access::Write);
        for page in [0, 4, 8, 511] {
            assert_eq!(read(&vm, &mut *cpu, at(page)), Some(0x1000 + page));
        }
        // Another large page over the table, then over the large page.
        vm.apply(Edit::Map { va, gpa: other, len, prot: Prot::READ });
        for page in [0, 5, 6, 7, 511] {
            assert_eq!(read(&vm, &mut *cpu, at(page)), Some(0x2000 + page));
        }
        vm.apply(Edit::Map { va, gpa: block, len, prot: Prot::READ });
        for page in [0, 5, 6, 511] {
            assert_eq!(read(&vm, &mut *cpu, at(page)), Some(0x1000 + page));
        }
        vm.apply(Edit::Protect { va, len, prot: Prot::empty() });
        for page in [0, 5, 511] {
            assert_eq!(read(&vm, &mut *cpu, at(page)), None);
        }
    }
}

/// A page-table page that one space gave up becomes another's: neither may see the other's memory
/// through what the host remembers of it (docs/revocation.md).
#[test]
fn recycled_page_tables_carry_nothing_over() {
    let Some((ram, platform)) = platform(Default::default()) else { return };
    let far = 0x5_0000_0000u64;
    for round in 0..300u64 {
        let a = Vm::on(&ram, &platform, touches());
        let b = Vm::on(&ram, &platform, touches());
        let (mut on_a, mut on_b) = (a.cpu(), b.cpu());
        let secret = a.frame();
        secret.write(0, &(0x5ec_0000 + round).to_le_bytes());
        let own = b.frame();
        // A: map, touch, unmap: a table is given up; then again, with another table.
        a.map(far, secret.gpa(), RW);
        assert!(read(&a, &mut *on_a, far).is_some());
        a.unmap(far);
        let spare: Vec<_> = (0..round % 7).map(|_| ram.frames.alloc()).collect();
        if round % 2 == 0 {
            platform.in_use();
        }
        a.map(far, secret.gpa(), RW);
        assert_eq!(read(&a, &mut *on_a, far), Some(0x5ec_0000 + round));
        drop(spare);
        if round % 3 == 0 {
            platform.in_use();
        }
        // B: maps at the same index below other tables, and looks at A's index.
        for gib in 0..12u64 {
            let at = 0x10_0000_0000 + (gib << 30) + 0x3000;
            b.map(at, own.gpa(), RW);
            assert_eq!(read(&b, &mut *on_b, at), Some(0), "round {round}");
            assert_eq!(read(&b, &mut *on_b, at - 0x3000), None, "round {round}: A's memory seen");
        }
        assert_eq!(read(&b, &mut *on_b, far), None, "round {round}");
        assert_eq!(read(&a, &mut *on_a, far), Some(0x5ec_0000 + round));
    }
}

guest!(hammer_read, "2: mov rax, [rbx]", "cmp rax, rdx", "je 2b", "syscall",);
guest!(hammer_write, "2: mov [rbx], rdx", "jmp 2b");

/// Another thread hammers a page while it is unmapped, redirected or write-protected under it.
#[test]
fn a_hammering_thread_loses_the_page_at_once() {
    const ROUNDS: u64 = 200;
    for write in [false, true] {
        let code = if write { hammer_write() } else { hammer_read() };
        let Some(vm) = Vm::new(code) else { return };
        let va = DATA + 0x10_0000;
        for round in 0..ROUNDS {
            let frame = vm.frame();
            frame.write(0, &1u64.to_le_bytes());
            vm.map(va, frame.gpa(), RW);
            let entered = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                let hammer = scope.spawn(|| {
                    let mut cpu = vm.cpu();
                    let mut regs = Registers { rbx: va, rdx: 1, ..start() };
                    entered.wait();
                    let exit = run(&mut *cpu, &mut regs);
                    (exit, regs.rax)
                });
                entered.wait();
                std::thread::sleep(std::time::Duration::from_micros(300 + 37 * (round % 16)));
                match round % 3 {
                    0 => vm.unmap(va),
                    1 if write => {
                        vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: Prot::READ });
                    }
                    _ => {
                        let other = vm.frame();
                        other.write(0, &2u64.to_le_bytes());
                        vm.map(va, other.gpa(), Prot::READ);
                        // Kept alive by the map until the round's end.
                        let _ = other.into_gpa();
                    }
                }
                // From here on the frame is somebody else's.
                frame.write(0, &1u64.to_le_bytes());
                frame.write(0, &0x7777u64.to_le_bytes());
                std::thread::sleep(std::time::Duration::from_micros(200));
                let mut now = [0; 8];
                frame.read(0, &mut now);
                assert_eq!(
                    u64::from_le_bytes(now),
                    0x7777,
                    "round {round}: a store after revocation"
                );
                let (exit, rax) = hammer.join().expect("the hammer");
                match exit {
                    Exit::Fault(f) => assert_eq!((f.vector, f.addr), (14, va)),
                    Exit::Syscall => assert_eq!(rax, 2, "round {round}: a load after revocation"),
                    Exit::Interrupted => unreachable!(),
                }
            });
        }
    }
}

guest!(
    store_loop,
    "2: inc rax",
    "mov [rbx], rax",
    "cmp rax, [rbx]",
    "jne 3f",
    "dec rsi",
    "jnz 2b",
    "syscall",
    "3: ud2"
);

/// A frame is revoked from one space over and over while another, rightly, stores to it.
#[test]
fn revoking_elsewhere_disturbs_nobody() {
    let Some(vm) = Vm::new(store_loop()) else { return };
    let other = Vm::on(&vm.ram, &vm.platform, touches());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut cpu = vm.cpu();
            let mut regs = start();
            for round in 1..=10 {
                (regs.rip, regs.rbx, regs.rsi) = (CODE, DATA, 3_000_000);
                assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall, "{regs:x?}");
                assert_eq!(regs.rax, round * 3_000_000);
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) && !writer.is_finished() {
            other.map(DATA, vm.data.gpa(), RW);
            other.unmap(DATA);
        }
        writer.join().expect("the writer");
    });
    println!("{:?}", vm.platform.counters());
}

#[test]
fn nothing_leaks() {
    let Some((ram, platform)) = platform(Default::default()) else { return };
    let round = || {
        let vm = Vm::on(&ram, &platform, touches());
        let mut cpus = [vm.cpu(), vm.cpu()];
        for cpu in &mut cpus {
            assert_eq!(read(&vm, &mut **cpu, DATA), Some(0));
        }
        let second = Vm::on(&ram, &platform, touches());
        cpus[0].switch(&second.space).expect("a switch");
        assert_eq!(read(&second, &mut *cpus[0], DATA), Some(0));
    };
    round();
    let before = (platform.in_use(), ram.frames.free());
    for _ in 0..200 {
        round();
    }
    assert_eq!((platform.in_use(), ram.frames.free()), before);
    assert_eq!(before.0, [("vCPU leases", 0), ("page-table frames", 0)]);
}

#[test]
fn bad_edits_are_refused() {
    let Some(vm) = Vm::new(touches()) else { return };
    for (va, len) in [(1, 4096), (0, 1), (!4095, 4096), (0x7fff_ffff_f000, 4096)] {
        assert!(vm.space.apply(&[Edit::Unmap { va, len }]).is_err(), "{va:x}");
    }
    vm.apply(Edit::Unmap { va: 0, len: 0x7fff_ffff_f000 });
    let mut cpu = vm.cpu();
    assert_eq!(fault(&mut *cpu, &mut start()).access, Access::Exec);
    let _ = RW;
}

/// A fork takes over the tables of one that ended: never what they led to.
#[test]
fn forks_take_over_tables_and_nothing_else() {
    let Some(vm) = Vm::new(touches()) else { return };
    let far = 0x6_0000_0000u64;
    let child = |edits: &[Edit]| {
        let space = vm.space.fork().expect("a fork").expect("a space of its own");
        space.apply(edits).expect("edits");
        Vm { space, ..Vm::on(&vm.ram, &vm.platform, touches()) }
    };
    let page = |va, gpa, prot| Edit::Map { va, gpa, len: PAGE_SIZE, prot };
    let code = page(CODE, vm.code.gpa(), super::harness::RX);
    for round in 0..40u64 {
        let secret = vm.frame();
        secret.write(0, &(0x5ec_0000 + round).to_le_bytes());
        {
            let first = child(&[code, page(far, secret.gpa(), RW)]);
            let mut cpu = first.cpu();
            assert_eq!(read(&first, &mut *cpu, far), Some(0x5ec_0000 + round));
            // Beside it, so that its table stays in use.
            first.map(far + PAGE_SIZE, secret.gpa(), RW);
            assert!(read(&first, &mut *cpu, far + PAGE_SIZE).is_some());
        }
        let other = vm.frame();
        other.write(0, &round.to_le_bytes());
        let edits = match round % 4 {
            // Nothing at all; elsewhere; the same place with another page; no order to rely on.
            0 => vec![code],
            1 => vec![code, page(far + 2 * PAGE_SIZE, other.gpa(), RW)],
            2 => vec![code, page(far, other.gpa(), Prot::READ)],
            _ => vec![page(far + 2 * PAGE_SIZE, other.gpa(), RW), code],
        };
        let second = child(&edits);
        let mut cpus = [second.cpu(), second.cpu()];
        for cpu in &mut cpus {
            let expected = (round % 4 == 2).then_some(round);
            assert_eq!(read(&second, &mut **cpu, far), expected, "round {round}");
            assert_eq!(read(&second, &mut **cpu, far + PAGE_SIZE), None, "round {round}");
            let mut regs = Registers { rip: CODE + 16, rbx: far, rax: 7, ..start() };
            let stored = run(&mut **cpu, &mut regs);
            assert!(matches!(stored, Exit::Fault(f) if f.access == Access::Write), "{stored:?}");
            assert_eq!(super::harness::word(&secret, 0), 0x5ec_0000 + round);
        }
        // A fork that a CPU enters before anything is mapped.
        drop(cpus);
        drop(second);
        let empty = vm.space.fork().expect("a fork").expect("a space of its own");
        let mut cpu = vm.platform.new_cpu(&empty).expect("a CPU");
        let f = fault(&mut *cpu, &mut Registers { rbx: far, ..start() });
        assert_eq!((f.vector, f.addr, f.access), (14, CODE, Access::Exec), "round {round}");
    }
}

/// What was never used needs no revocation; what was used does, however often it is mapped again.
#[test]
fn only_what_was_used_is_revoked() {
    let Some(vm) = Vm::new(touches()) else { return };
    let mut cpu = vm.cpu();
    let va = 0x1234_5000_0000u64;
    let frame = vm.frame();
    let zaps = || vm.platform.traffic().zaps;
    let before = zaps();
    for _ in 0..10 {
        vm.map(va, frame.gpa(), RW);
        vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: Prot::READ });
        vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: RW });
        vm.unmap(va);
    }
    assert_eq!(zaps(), before);
    let store = |cpu: &mut dyn trapgate_kernel::platform::Cpu| {
        let mut regs = Registers { rip: CODE + 16, rbx: va, rax: 7, ..start() };
        run(cpu, &mut regs)
    };
    vm.map(va, frame.gpa(), RW);
    assert!(read(&vm, &mut *cpu, va).is_some());
    // As after a fault that another thread had as well.
    vm.map(va, frame.gpa(), RW);
    vm.unmap(va);
    assert_eq!(read(&vm, &mut *cpu, va), None);
    vm.map(va, frame.gpa(), RW);
    assert_eq!(store(&mut *cpu), Exit::Syscall);
    vm.map(va, frame.gpa(), RW);
    vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: Prot::READ });
    assert!(matches!(store(&mut *cpu), Exit::Fault(f) if f.access == Access::Write));
    vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: RW });
    let before = zaps();
    vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: Prot::READ });
    assert_eq!(zaps(), before, "writable, but not stored to");
    vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: RW });
    assert_eq!(store(&mut *cpu), Exit::Syscall);
    vm.apply(Edit::Protect { va, len: PAGE_SIZE, prot: Prot::READ });
    assert!(matches!(store(&mut *cpu), Exit::Fault(f) if f.access == Access::Write));
}

/// `--audit` would tell of a page that is usable and should not be.
#[test]
fn tables_are_compared_with_what_was_granted() {
    let Some(vm) = Vm::new(touches()) else { return };
    let _cpu = vm.cpu();
    let (va, frame, other) = (0x1234_5000_0000u64, vm.frame(), vm.frame());
    let check = |page: Option<(Gpa, Prot)>| {
        vm.space.check(&|at| if at == va { page } else { vm.granted(at) })
    };
    assert_eq!(check(None), Ok(()));
    vm.map(va, frame.gpa(), RW);
    assert_eq!(check(Some((frame.gpa(), RW))), Ok(()));
    let wrong = |page, words: &str| {
        let said = check(page).expect_err(words);
        assert!(said.contains(words) && said.contains("0x123450000000"), "{said}");
    };
    wrong(None, "not granted");
    wrong(Some((other.gpa(), RW)), "leads to");
    wrong(Some((frame.gpa(), Prot::READ)), "may be used for more");
}
