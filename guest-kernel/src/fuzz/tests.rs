//! A short form of every target, and the corpora they start from.
//!
//! `WRITE_CORPUS=1 cargo test -p trapgate-kernel --lib fuzz` writes the corpora anew.

use std::{fs, path::Path};

use super::*;
use crate::{
    linux::{sigframe, sys::poll},
    net::addr::Ucred,
    platform::Registers,
    signal::{
        SigFields, SigInfo, SigSet,
        action::{Action, ActionFlags},
        number::SIGUSR1,
        state::AltStack,
    },
    testing::{BUFFER, BUFFER_SIZE, FakeCpu, Mutator},
};

/// Rounds of damage for each good input.
const ROUNDS: usize = 3000;

/// Runs `one` on the good inputs and on damaged ones; the good ones are the corpus of `target`.
fn damaged(seed: u64, target: &str, good: &[Vec<u8>], mut one: impl FnMut(&[u8])) {
    corpus(target, good);
    let mut mutator = Mutator::new(seed);
    for input in good {
        one(input);
        for _ in 0..ROUNDS {
            one(&mutator.mutate(input));
        }
    }
}

/// Holds the corpus of `target` against the good inputs, or writes it.
fn corpus(target: &str, good: &[Vec<u8>]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    for (nth, input) in good.iter().enumerate() {
        let file = dir.join(format!("{nth}"));
        assert!(input.len() < 4096, "{}: {} bytes", file.display(), input.len());
        if std::env::var_os("WRITE_CORPUS").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&file, input).unwrap();
        }
        assert!(fs::read(&file).ok().as_ref() == Some(input), "{} is out of date", file.display());
    }
}
#[test]
fn loader() {
    let target = Loader::default();
    target.one(&elf(3, 0, false));
    let good = [
        elf(2, 0x40_0000, false),
        elf(3, 0, false),
        elf(3, 0, true),
        b"#! /interpreter  -x y \n".to_vec(),
    ];
    // Its headers and the interpreter's name.
    let short: Vec<_> = good.iter().map(|input| input[..input.len().min(1024)].to_vec()).collect();
    corpus("loader", &short);
    let headers = 64 + 4 * 56;
    let mut mutator = Mutator::new(0x656c_6666);
    for input in &good {
        for round in 0..ROUNDS {
            let split = if round % 4 == 0 { input.len() } else { headers.min(input.len()) };
            let mut bytes = mutator.mutate(&input[..split]);
            bytes.extend_from_slice(&input[split..]);
            target.one(&bytes);
        }
    }
}

#[test]
fn netlink() {
    let message = |kind: u8, flags: u16, body: &[u8]| {
        let len = u8::try_from(16 + body.len()).unwrap();
        let mut out = vec![len, 0, 0, 0, kind, 0];
        out.extend(flags.to_le_bytes());
        out.extend([42, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(body);
        out
    };
    let good = [
        message(18, 0x301, &[0; 16]),
        message(22, 0x301, &[2, 0, 0, 0, 0, 0, 0, 0]),
        message(26, 0x301, &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        message(26, 5, &[2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 127, 0, 0, 1]),
        [message(18, 5, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\x03\0lo\0\0"), vec![0; 40]]
            .concat(),
    ];
    let target = Netlink::default();
    damaged(0x6e65_746c, "netlink", &good, |bytes| target.one(bytes));
}

#[test]
fn socket_addresses() {
    let good = [
        b"\x01\0/tmp/socket\0".to_vec(),
        b"\x01\0\0abstract".to_vec(),
        [&b"\x01\0"[..], &[b'p'; 108]].concat(),
        b"\x02\0\x1f\x90\x7f\0\0\x01\0\0\0\0\0\0\0\0".to_vec(),
        [&b"\x0a\0\x1f\x90\0\0\0\0"[..], &[0; 15], &[1, 0, 0, 0, 0]].concat(),
        b"\x10\0\0\0\x07\0\0\0\x01\0\0\0".to_vec(),
    ];
    damaged(0x6164_6472, "addresses", &good, addresses);
}

#[test]
fn line_discipline() {
    let modes = Line::default().termios;
    let mut head = Vec::new();
    for word in [modes.input.bits(), modes.output.bits(), modes.local.bits()] {
        head.extend(word.to_le_bytes());
    }
    head.extend(modes.chars);
    let typed = b"hello\x7f\x7flo w\x17world\r\n\x03\x1c\x1a\x16\x03\x04\t\ttabs\x15\x12\x13\x11\xc3\xa4\x7f\n";
    let raw = [&[0; 31], &typed[..]].concat();
    damaged(0x7474_7900, "terminal", &[[head, typed.to_vec()].concat(), raw], terminal);
}

/// A frame that the kernel pushes for a handler, without its first word, as if it began at `BUFFER`.
fn pushed(stack: AltStack) -> Vec<u8> {
    let task = SignalFrames::default().0;
    task.signals.lock().altstack = stack;
    let fields = SigFields::Kill { pid: 1, uid: 0 };
    let info = SigInfo { signal: SIGUSR1, code: 0, errno: 0, fields };
    let action = Action { flags: ActionFlags::RESTORER, ..Action::default() };
    let frame = sigframe::Frame { info: &info, action: &action, entry: 0x40_0000, mask: SigSet(2) };
    let rsp = BUFFER + BUFFER_SIZE;
    let mut regs = Registers { rsp, rip: 0x40_1000, rflags: 0x246, ..Registers::default() };
    sigframe::push(&task, &mut regs, &mut FakeCpu::default(), &frame).unwrap();
    let mut bytes = vec![0; FPU + 836];
    task.mm().read_bytes(regs.rsp + 8, &mut bytes[..304 + 128]).unwrap();
    let fpstate: u64 = task.mm().read_obj(regs.rsp + 8 + FPSTATE as u64).unwrap();
    task.mm().read_bytes(fpstate, &mut bytes[FPU..]).unwrap();
    put(&mut bytes, FPSTATE, BUFFER + FPU as u64);
    bytes
}
/// Where the FPU state lies in [`pushed`] frames, and in `struct ucontext` the pointer to it.
const FPU: usize = 448;
const FPSTATE: usize = 40 + 184;

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

#[test]
fn signal_frames() {
    let plain = pushed(AltStack::default());
    let on_stack = pushed(AltStack { base: BUFFER, size: 0x3000, autodisarm: true });
    let (mut no_fpu, mut old_fpu) = (plain.clone(), plain.clone());
    put(&mut no_fpu, FPSTATE, 0);
    // Without its magic number it is a 512-byte FXSAVE area.
    old_fpu[FPU + 464..FPU + 512].fill(0);
    let target = SignalFrames::default();
    damaged(0x7369_6766, "signal_frames", &[plain, on_stack, no_fpu, old_fpu], |bytes| {
        target.one(bytes);
    });
}

/// `struct cmsghdr` and data.
fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut control = Control::new(usize::MAX);
    control.put(level, kind, data);
    control.bytes
}

#[test]
fn control_messages() {
    let rights = message(1, 1, &[0, 0, 0, 0, 3, 0, 0, 0]);
    let creds = message(1, 2, &cmsg::ucred(Ucred { pid: 3, uid: 0, gid: 0 }));
    let other = message(0, 8, b"packet");
    let good = [
        [&[64], &rights[..]].concat(),
        [&[40], &creds[..], &rights].concat(),
        [&[255], &other[..], &creds, &rights].concat(),
    ];
    damaged(0x636d_7367, "control", &good, control);
}

#[test]
fn sent_and_received() {
    let target = Sendmsg::default();
    // A msghdr; at 0x40 two vectors; at 0x60 an address; at 0x80 what is sent; at 0xc0 control messages.
    let sent = |name: &[u8], control: &[u8]| {
        let mut bytes = vec![0; 0xc0];
        let words = [
            if name.is_empty() { 0 } else { BUFFER + 0x60 },
            name.len() as u64,
            BUFFER + 0x40,
            2,
            if control.is_empty() { 0 } else { BUFFER + 0xc0 },
            control.len() as u64,
        ];
        words.iter().enumerate().for_each(|(i, word)| put(&mut bytes, i * 8, *word));
        for (at, word) in [(0x40, BUFFER + 0x80), (0x48, 8), (0x50, BUFFER + 0x90), (0x58, 4)] {
            put(&mut bytes, at, word);
        }
        bytes[0x60..0x60 + name.len()].copy_from_slice(name);
        bytes[0x80..0x88].copy_from_slice(b"datagram");
        bytes.extend(control);
        bytes
    };
    let rights = message(1, 1, &[0, 0, 0, 0, 3, 0, 0, 0]);
    let me = message(1, 2, &cmsg::ucred(Ucred { pid: 3, uid: 0, gid: 0 }));
    let good = [
        sent(b"", b""),
        sent(b"", &rights),
        sent(b"", &[me, rights].concat()),
        sent(b"\x01\0\0abstract", b""),
        sent(b"\x01\0/socket\0", b""),
    ];
    damaged(0x7365_6e64, "sendmsg", &good, |bytes| target.one(bytes));
}

#[test]
fn call_sites() {
    // A number, what follows the SYSCALL, and glibc's getppid before it.
    let site = |number: u64, last: &[u8]| {
        let before: &[u8] = &[
            0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x66, 0x90, 0x48, 0x8b, 0x05, 0x11,
            0x22, 0x03, 0, 0x48, 0x89, 0x07, 0x31, 0xc0, 0xc3, 0x0f, 0x1f, 0x44, 0, 0, 0x48, 0x83,
            0xec, 0x08, 0x48, 0x89, 0x3c, 0x24, 0x48, 0x8b, 0x14, 0x24, 0x48, 0x83, 0xc4, 0x08,
            0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x66, 0x90,
        ];
        let after = [0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0];
        [&number.to_le_bytes()[..], &after, before, last].concat()
    };
    let good = [
        site(0x6e, &[0xb8, 0x6e, 0, 0, 0]),
        site(0, &[0x31, 0xc0]),
        site(1, &[0x48, 0x89, 0xf8]),
        site(0x6e, &[0xc7, 0x84, 0x24, 0xb8, 0, 0, 0, 0x6e, 0, 0, 0]),
    ];
    damaged(0x7369_7465, "sites", &good, sites);
}

#[test]
fn addresses_at_the_very_end_are_refused() {
    let target = Sendmsg::default();
    let last = u64::MAX - 7;
    for words in [[0, 0, last, 1, 0, 0], [0, 0, last, 1024, 0, 0], [0, 0, 0, 0, last, 16]] {
        target.one(words.map(u64::to_le_bytes).as_flattened());
    }
    // No descriptors are looked at, so any number may stand for their address.
    assert_eq!(target.call(|cx| poll::poll(cx, u64::MAX, 0, 0)), Some(0));
}
