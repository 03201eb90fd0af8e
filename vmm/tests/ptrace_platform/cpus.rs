//! Several CPUs, and kicks.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use trapgate_kernel::platform::Cpu;
use trapgate_kernel::platform::Exit;
use trapgate_kernel::platform::Platform;
use trapgate_kernel::platform::Registers;

use super::calls::{count, syscalls};
use super::harness::*;

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
