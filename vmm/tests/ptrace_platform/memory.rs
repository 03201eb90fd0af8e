//! Edits of a space in use are seen at once.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use trapgate_kernel::frames::Frame;
use trapgate_kernel::platform::Cpu;
use trapgate_kernel::platform::Edit;
use trapgate_kernel::platform::Exit;
use trapgate_kernel::platform::Prot;
use trapgate_kernel::platform::Registers;

use super::calls::{load, store};
use super::ends::read_all;
use super::harness::*;

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
pub const VA: u64 = 0x7000_0000;

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
