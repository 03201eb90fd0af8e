//! What stub processes hold, and what they may do.

use std::time::Duration;
use trapgate::platform::ptrace::layout;
use trapgate_kernel::platform::Cpu;
use trapgate_kernel::platform::Exit;
use trapgate_kernel::platform::Platform;
use trapgate_kernel::platform::PlatformError;
use trapgate_kernel::platform::Registers;

use super::calls::{load, store, syscalls};
use super::cpus::spin;
use super::harness::*;
use super::memory::VA;

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
