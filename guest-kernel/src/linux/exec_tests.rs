//! Loading programs: a good one, scripts, and hostile headers.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{
    elf::{Ehdr, Phdr},
    exec_image::{Image, Request, load},
};
use crate::{
    creds::Creds,
    error::Errno,
    fs::file::OpenFile,
    kernel::Kernel,
    testing::{self, FixedFile, Random, check},
};

/// A program of one text and one data segment, with 3 pages of bss.
fn program(kind: u16, base: u64) -> Vec<u8> {
    let header = Ehdr {
        e_ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        e_type: kind,
        e_machine: 62,
        e_version: 1,
        e_entry: base + 0x100,
        e_phoff: 64,
        e_ehsize: 64,
        e_phentsize: 56,
        e_phnum: 2,
        ..Ehdr::default()
    };
    let text = Phdr {
        p_type: 1,
        p_flags: 5,
        p_vaddr: base,
        p_filesz: 0x200,
        p_memsz: 0x200,
        p_align: 4096,
        ..Phdr::default()
    };
    let data = Phdr {
        p_flags: 6,
        p_offset: 0x1000,
        p_vaddr: base + 0x1000,
        p_filesz: 0x80,
        p_memsz: 0x3000,
        ..text
    };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(data.as_bytes());
    bytes.resize(0x1000, 0x90);
    bytes.resize(0x1100, 0x55);
    bytes
}

fn exec(kernel: &Arc<Kernel>, bytes: &[u8], argv: &[&str]) -> Result<Image, Errno> {
    let open = |path: &[u8]| -> Result<Arc<OpenFile>, Errno> {
        match path {
            b"/bin/prog" => Ok(FixedFile::open(kernel, &program(2, 0x40_0000))),
            b"/bin/again" => Ok(FixedFile::open(kernel, b"#! /bin/again")),
            _ => Err(Errno::ENOENT),
        }
    };
    load(Request {
        kernel,
        file: FixedFile::open(kernel, bytes),
        path: b"/dir/a-rather-long-name",
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        envp: vec![b"K=V".to_vec()],
        creds: &Creds::user(0, 0),
        stack_limit: 8 << 20,
        randomize: true,
        open: &open,
    })
}

fn arguments(image: &Image) -> Vec<Vec<u8>> {
    let mm = &image.mm;
    let argc: u64 = mm.read_obj(image.regs.rsp).unwrap();
    let argument = |i: u64| {
        let pointer: u64 = mm.read_obj(image.regs.rsp + 8 + 8 * i).unwrap();
        mm.read_cstr(pointer, 4096, Errno::E2BIG).unwrap()
    };
    (0..argc).map(argument).collect()
}

#[test]
fn a_program_is_loaded() {
    let kernel = testing::kernel(32);
    for (kind, base) in [(2, 0x40_0000), (3, 0)] {
        let image = exec(&kernel, &program(kind, base), &["prog", "one"]).unwrap();
        check(&image.mm);
        assert_eq!(image.comm, b"a-rather-long-n");
        assert_eq!(image.regs.rsp % 16, 0);
        assert_eq!(arguments(&image), [b"prog".to_vec(), b"one".to_vec()]);
        let base = image.regs.rip - 0x100;
        let mut data = [1; 0x100];
        image.mm.read_bytes(base + 0x1000, &mut data).unwrap();
        assert!(data[..0x80].iter().all(|b| *b == 0x55) && data[0x80..].iter().all(|b| *b == 0));
        image.mm.write_bytes(base + 0x3ff8, &[1; 8]).unwrap();
        assert_eq!(image.mm.write_bytes(base, b"x"), Err(Errno::EFAULT));
        let vdso: u32 = image.mm.read_obj(image.mm.layout().vdso).unwrap();
        assert_eq!(vdso, u32::from_le_bytes(*b"\x7fELF"));
    }
}

#[test]
fn scripts_name_their_interpreter() {
    let kernel = testing::kernel(32);
    let image = exec(&kernel, b"#! /bin/prog  -x y \nrest", &["script", "one"]).unwrap();
    let expected: [&[u8]; 4] = [b"/bin/prog", b"-x y", b"/dir/a-rather-long-name", b"one"];
    assert_eq!(arguments(&image), expected);
    let refused = |bytes: &[u8]| exec(&kernel, bytes, &["s"]).unwrap_err();
    assert_eq!(refused(b"#!/bin/again\n"), Errno::ELOOP);
    assert_eq!(refused(b"#!/missing\n"), Errno::ENOENT);
    assert_eq!(refused(b"#!  \n"), Errno::ENOEXEC);
    assert_eq!(refused(b"echo hello\n"), Errno::ENOEXEC);
    assert_eq!(refused(b""), Errno::ENOEXEC);
    let long = [b"#!/".to_vec(), vec![b'a'; 400]].concat();
    assert_eq!(refused(&long), Errno::ENOEXEC);
}

#[test]
fn arguments_have_limits() {
    let kernel = testing::kernel(32);
    let long = "x".repeat(128 << 10);
    assert_eq!(exec(&kernel, &program(2, 0x40_0000), &["p", &long]).unwrap_err(), Errno::E2BIG);
    let many = vec!["x".repeat(100 << 10); 30];
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(exec(&kernel, &program(2, 0x40_0000), &many).unwrap_err(), Errno::E2BIG);
}

#[test]
fn hostile_headers_are_refused_without_a_trace() {
    let kernel = testing::kernel(32);
    drop(exec(&kernel, &program(3, 0), &["warm"]));
    let free = kernel.frames.free();
    let mut random = Random(0x5eed);
    let good = program(3, 0);
    for length in 0..300 {
        drop(exec(&kernel, &good[..length], &["cut"]));
    }
    for round in 0..3000 {
        let mut bytes = program(if round % 2 == 0 { 3 } else { 2 }, 0x40_0000 * (round % 3));
        for _ in 0..1 + random.below(4) {
            let at = usize::try_from(random.below(176)).unwrap();
            let odd = [0, 1, 0x7f, 0x80, 0xff, 0x10];
            bytes[at] = odd[usize::try_from(random.below(6)).unwrap()];
        }
        if let Ok(image) = exec(&kernel, &bytes, &["bent"]) {
            check(&image.mm);
        }
    }
    assert_eq!(kernel.frames.free(), free);
}
