//! What the platform's own operations cost.

use std::time::Duration;
use std::time::Instant;
use trapgate_kernel::frames::Frame;
use trapgate_kernel::platform::Cpu;
use trapgate_kernel::platform::Edit;
use trapgate_kernel::platform::Exit;

use super::calls::syscalls;
use super::harness::*;

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
