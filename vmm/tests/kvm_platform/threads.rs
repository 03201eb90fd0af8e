//! Several CPUs: in parallel, kicked, and more of them than vCPUs.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use trapgate::platform::kvm::KvmOptions;
use trapgate_kernel::platform::{Exit, Kick, Platform, Registers};

use super::harness::{DATA, Vm, platform, run, start, word};
use crate::guest;

guest!(count, "2: lock inc qword ptr [rbx]", "dec rsi", "jnz 2b", "syscall");

#[test]
fn two_cpus_share_a_space() {
    let Some(vm) = Vm::new(count()) else { return };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut cpu = vm.cpu();
                let mut regs = Registers { rbx: DATA, rsi: 100_000, ..start() };
                assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
            });
        }
    });
    assert_eq!(word(&vm.data, 0), 200_000);
}

guest!(spin, "2: inc rax", "jmp 2b");
guest!(calls, "2: syscall", "jmp 2b");

#[test]
fn a_spinning_cpu_can_be_kicked() {
    let Some(vm) = Vm::new(spin()) else { return };
    let (send, receive) = mpsc::channel::<Arc<dyn Kick>>();
    std::thread::scope(|scope| {
        let spinner = scope.spawn(|| {
            let mut cpu = vm.cpu();
            send.send(cpu.kicker()).expect("the other end lives");
            let mut regs = start();
            for _ in 0..30 {
                assert_eq!(cpu.run(&mut regs).expect("KVM works"), Exit::Interrupted);
            }
            regs.rax
        });
        let kick = receive.recv().expect("the kicker");
        while !spinner.is_finished() {
            kick.kick();
            std::thread::sleep(Duration::from_micros(500));
        }
        assert!(spinner.join().expect("the spinner") > 0);
        // Harmless after the CPU has gone.
        kick.kick();
    });
}

/// A kick at any moment of a system-call loop, in the gate or around it, is seen and loses nothing.
#[test]
fn no_kick_is_lost() {
    let Some(vm) = Vm::new(calls()) else { return };
    let mut cpu = vm.cpu();
    let kick = cpu.kicker();
    kick.kick();
    let mut regs = start();
    assert_eq!(cpu.run(&mut regs).expect("KVM works"), Exit::Interrupted);
    assert_eq!(regs, start());
    let stop = AtomicBool::new(false);
    let kicks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                kick.kick();
                kicks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(70));
            }
        });
        let (mut calls, mut interrupts) = (0u64, 0u64);
        let end = Instant::now() + Duration::from_millis(700);
        while Instant::now() < end {
            regs.rax = calls;
            let sent = regs;
            match cpu.run(&mut regs).expect("KVM works") {
                Exit::Syscall => {
                    assert_eq!((regs.rax, regs.rsp, regs.rbx), (calls, sent.rsp, 0));
                    calls += 1;
                }
                Exit::Interrupted => {
                    interrupts += 1;
                    assert!(regs.rip < 0x40_1000, "{:x}", regs.rip);
                }
                Exit::Fault(f) => panic!("{f:?} {regs:x?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(calls > 100 && interrupts > 10, "{calls} calls, {interrupts} interrupts");
    });
}

/// Eight threads on two vCPUs: those that wait outside the guest lose theirs, those that spin in it
/// are preempted, and each keeps its registers and FPU state.
#[test]
fn more_threads_than_vcpus() {
    let options = KvmOptions { vcpus: Some(2), ..KvmOptions::default() };
    let Some((ram, platform)) = platform(options) else { return };
    let vm = Vm::on(&ram, &platform, fpu_loop());
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for i in 0..8u64 {
            let (vm, barrier) = (&vm, &barrier);
            scope.spawn(move || {
                let mut cpu = vm.cpu();
                let mut regs = Registers { rbx: 0x1111 * (i + 1), rsi: 2000, ..start() };
                // The marker is loaded by the first stretch.
                assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
                for _ in 0..6 {
                    barrier.wait();
                    regs.rsi = 300_000;
                    assert_eq!(run(&mut *cpu, &mut regs), Exit::Syscall);
                    assert_eq!((regs.rdx, regs.rbx), (0x1111 * (i + 1), 0x1111 * (i + 1)));
                }
            });
        }
    });
    let counters = platform.counters();
    let get = |name| counters.iter().find(|(n, _)| *n == name).expect("a counter").1;
    assert_eq!(get("vCPUs created"), 2);
    assert!(get("vCPUs taken from idle threads") > 0, "{counters:?}");
    assert_eq!(platform.in_use()[0], ("vCPU leases", 0));
}

guest!(
    fpu_loop,
    "movq xmm3, rbx",
    "syscall",
    "2: dec rsi",
    "jnz 2b",
    "movq rdx, xmm3",
    "syscall",
    "jmp 2b",
);
