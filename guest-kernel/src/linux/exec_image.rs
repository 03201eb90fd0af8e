//! Loading a program into a new address space (execve(2)): scripts, ELF, its interpreter, its stack.
//!
//! The old address space is not touched: a failed load leaves the caller as it was. The file is
//! hostile; see `elf`.

use std::sync::Arc;

use super::{
    auxv::{self, Stack, at},
    elf::{self, Elf, Mapped},
    vdso,
};
use crate::{
    creds::Creds,
    error::Errno,
    fs::file::OpenFile,
    kernel::Kernel,
    mm::{
        Layout, Limits, Mm,
        layout::STACK_GUARD,
        map::{MapRequest, Place},
        vma::VmaFlags,
    },
    platform::{PAGE_SIZE, Prot, Registers},
};

/// Bytes of a file looked at to tell what it is (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// Interpreters of interpreters followed before ELOOP.
const MAX_DEPTH: usize = 5;
/// What the stack has before it grows.
const FIRST_STACK: u64 = 132 << 10;
/// Range of the stack's random offset: 16 GiB.
const STACK_RANDOM: u64 = 16 << 30;
/// Bits of the random page number added to the mmap base and to a relocatable program's.
const MMAP_BITS: u32 = 28;
/// Range of the random gap between a program and its heap.
const BRK_RANDOM: u64 = 32 << 20;
/// `__USER_CS`'s interrupt-enable and the always-one bit.
const RFLAGS: u64 = 0x202;

/// Opens a program or an interpreter for execution: resolves the path as the caller would, and
/// refuses what may not be executed (EACCES).
pub type Open<'a> = &'a dyn Fn(&[u8]) -> Result<Arc<OpenFile>, Errno>;

/// A program to load.
pub struct Request<'a> {
    /// The kernel.
    pub kernel: &'a Arc<Kernel>,
    /// The program's file, opened with the checks of [`Open`].
    pub file: Arc<OpenFile>,
    /// Its path as the caller gave it (AT_EXECFN, and what a script's interpreter is told).
    pub path: &'a [u8],
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Credentials the program will have.
    pub creds: &'a Creds,
    /// RLIMIT_STACK.
    pub stack_limit: u64,
    /// False with personality(2)'s ADDR_NO_RANDOMIZE.
    pub randomize: bool,
    /// Opens interpreters.
    pub open: Open<'a>,
}

/// A loaded program, ready to run.
pub struct Image {
    /// Its memory.
    pub mm: Arc<Mm>,
    /// Its registers at entry.
    pub regs: Registers,
    /// Its name (`PR_SET_NAME`), at most 15 bytes.
    pub comm: Vec<u8>,
    /// Its file, for `/proc/PID/exe`.
    pub exe: Arc<OpenFile>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("regs", &self.regs).field("comm", &self.comm).finish()
    }
}

/// Loads a program.
///
/// # Errors
/// As execve(2): ENOEXEC, ENOENT, EACCES, E2BIG, ELOOP, EINVAL, ELIBBAD, ENOMEM.
pub fn load(mut request: Request<'_>) -> Result<Image, Errno> {
    if request.argv.is_empty() {
        // Programs rely on argv[0]; Linux gives them an empty one since 5.18.
        request.argv.push(Vec::new());
    }
    auxv::check_size(&request.argv, &request.envp, request.path, request.stack_limit)?;
    let (file, argv, head) = follow_scripts(&request)?;
    auxv::check_size(&argv, &request.envp, request.path, request.stack_limit)?;
    let elf = Elf::parse(&file, &head)?;
    let interpreter = match elf.interpreter(&file)? {
        None => None,
        Some(path) => {
            let file = (request.open)(&path)?;
            let (head, _) = read_head(&file)?;
            let elf = Elf::parse(&file, &head).map_err(|_| Errno::ELIBBAD)?;
            Some((file, elf))
        }
    };
    let mm = Mm::new(request.kernel)?;
    let mut random = Random { kernel: request.kernel, on: request.randomize };
    place(&mm, &request, &mut random);
    let program = map_program(&mm, &file, &elf, interpreter.is_some(), &mut random)?;
    let start = match &interpreter {
        Some((file, elf)) => Some(elf.map(&mm, file, 0)?),
        None => None,
    };
    let brk = program.end.saturating_add(random.below(BRK_RANDOM) & !(PAGE_SIZE - 1));
    mm.init_brk(brk);
    let vdso = vdso::map(&mm)?;
    let executable = if elf.wants_executable_stack() { Prot::EXEC } else { Prot::empty() };
    let sp = build_stack(
        &mm,
        &request,
        &argv,
        &mut random,
        executable,
        vector(&request, &elf, program, start, vdso),
    )?;
    mm.set_layout(|layout| {
        layout.code = program.code;
        layout.data = program.data;
        layout.exe = Some(file.clone());
        layout.vdso = vdso;
    });
    let entry = start.map_or(program.entry, |s| s.entry);
    if entry >= mm.user_end() {
        return Err(Errno::EINVAL);
    }
    let regs = Registers { rip: entry, rsp: sp, rflags: RFLAGS, ..Registers::default() };
    Ok(Image { mm, regs, comm: comm(request.path), exe: file })
}

/// A path's last component, as a thread's name.
#[must_use]
pub fn comm(path: &[u8]) -> Vec<u8> {
    let base = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    base[..base.len().min(15)].to_vec()
}

fn read_head(file: &OpenFile) -> Result<(Vec<u8>, usize), Errno> {
    let mut head = vec![0; HEAD];
    let got = elf::read_some(file, 0, &mut head)?;
    Ok((head, got))
}

/// A file to load, the arguments it gets, and its first bytes.
type Program = (Arc<OpenFile>, Vec<Vec<u8>>, Vec<u8>);

/// Resolves `#!` lines until something that is not a script comes up.
fn follow_scripts(request: &Request<'_>) -> Result<Program, Errno> {
    let mut file = request.file.clone();
    let mut path = request.path.to_vec();
    let mut argv = request.argv.clone();
    for depth in 0.. {
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let (head, got) = read_head(&file)?;
        if !head.starts_with(b"#!") {
            return Ok((file, argv, head[..got].to_vec()));
        }
        let (interpreter, argument) = parse_script(&head)?;
        let mut front = vec![interpreter.clone()];
        front.extend(argument);
        front.push(path);
        argv.splice(..1, front);
        file = (request.open)(&interpreter)?;
        path = interpreter;
    }
    Err(Errno::ELOOP)
}

/// Splits a `#!` line as `load_script()` does: the interpreter, and at most one argument.
fn parse_script(head: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), Errno> {
    let blank = |b: &u8| matches!(*b, b' ' | b'\t');
    let line = &head[2..];
    let line = match line.iter().position(|b| *b == b'\n') {
        Some(end) => &line[..end],
        None => {
            // The line goes on past what we read: the interpreter's path at least must be whole.
            let text = line.iter().position(|b| !blank(b)).ok_or(Errno::ENOEXEC)?;
            let whole = line[text..].iter().any(|b| blank(b) || *b == 0);
            if !whole {
                return Err(Errno::ENOEXEC);
            }
            line
        }
    };
    let line = &line[..line.iter().position(|b| *b == 0).unwrap_or(line.len())];
    let start = line.iter().position(|b| !blank(b)).ok_or(Errno::ENOEXEC)?;
    let end = line.iter().rposition(|b| !blank(b)).ok_or(Errno::ENOEXEC)?;
    let line = &line[start..=end];
    match line.iter().position(blank) {
        None => Ok((line.to_vec(), None)),
        Some(cut) => {
            let rest = &line[cut..];
            let from = rest.iter().position(|b| !blank(b)).unwrap_or(0);
            Ok((line[..cut].to_vec(), Some(rest[from..].to_vec())))
        }
    }
}

struct Random<'a> {
    kernel: &'a Kernel,
    on: bool,
}

impl Random<'_> {
    /// A number below `limit`, a power of two; 0 when nothing is to be random.
    fn below(&mut self, limit: u64) -> u64 {
        if !self.on {
            return 0;
        }
        let mut bytes = [0; 8];
        self.kernel.host.random(&mut bytes);
        u64::from_le_bytes(bytes) & (limit - 1)
    }
    fn pages(&mut self, bits: u32) -> u64 {
        self.below(1 << bits) * PAGE_SIZE
    }
}

/// Chooses the mmap base below whatever the stack may come to.
fn place(mm: &Mm, request: &Request<'_>, random: &mut Random<'_>) {
    let pad = if random.on { STACK_RANDOM } else { 0 };
    let reach = request.stack_limit.saturating_add(pad);
    let mut layout = Layout::top_down(mm.user_end(), reach);
    layout.mmap_base -= random.pages(MMAP_BITS);
    mm.set_layout(|l| *l = layout);
    mm.set_stack_limit(request.stack_limit);
}

fn map_program(
    mm: &Mm,
    file: &Arc<OpenFile>,
    elf: &Elf,
    interpreted: bool,
    random: &mut Random<'_>,
) -> Result<Mapped, Errno> {
    // A static-PIE program (or a loader run as a program) goes to the mmap area, as on Linux.
    let base = if !elf.is_relocatable() || !interpreted {
        0
    } else {
        ((mm.user_end() / 3 * 2) & !(PAGE_SIZE - 1)) + random.pages(MMAP_BITS)
    };
    let mut mapped = elf.map(mm, file, base)?;
    if elf.is_relocatable() && !interpreted {
        // The heap of a program in the mmap area grows where relocatable programs lie, not into
        // its neighbours.
        mapped.end = ((mm.user_end() / 3 * 2) & !(PAGE_SIZE - 1)) + random.pages(MMAP_BITS);
    }
    Ok(mapped)
}

/// The auxiliary vector but for what points into the stack.
fn vector(
    request: &Request<'_>,
    elf: &Elf,
    program: Mapped,
    interpreter: Option<Mapped>,
    vdso: u64,
) -> Vec<(u64, u64)> {
    let creds = request.creds;
    let secure = creds.uid != creds.euid || creds.gid != creds.egid;
    // The frame: its fixed part, alignment and FPU state (`sigframe`), rounded up as Linux does.
    let frame = request.kernel.platform.xsave_layout().size as u64 + 1024;
    vec![
        (at::SYSINFO_EHDR, vdso),
        (at::HWCAP, u64::from(core::arch::x86_64::__cpuid(1).edx)),
        (at::PAGESZ, PAGE_SIZE),
        (at::CLKTCK, 100),
        (at::PHDR, program.phdr),
        (at::PHENT, 56),
        (at::PHNUM, u64::from(elf.header.e_phnum)),
        (at::BASE, interpreter.map_or(0, |i| i.bias)),
        (at::FLAGS, 0),
        (at::ENTRY, program.entry),
        (at::UID, u64::from(creds.uid)),
        (at::EUID, u64::from(creds.euid)),
        (at::GID, u64::from(creds.gid)),
        (at::EGID, u64::from(creds.egid)),
        (at::SECURE, u64::from(secure)),
        (at::HWCAP2, hwcap2()),
        (at::MINSIGSTKSZ, frame),
    ]
}

/// `HWCAP2_FSGSBASE` where the CPU lets programs set FS and GS themselves.
fn hwcap2() -> u64 {
    const FSGSBASE: u64 = 1 << 1;
    let known = core::arch::x86_64::__cpuid(0).eax >= 7
        && core::arch::x86_64::__cpuid_count(7, 0).ebx & 1 != 0;
    if known { FSGSBASE } else { 0 }
}

/// Maps the stack and writes what a program finds there; the stack pointer.
fn build_stack(
    mm: &Mm,
    request: &Request<'_>,
    argv: &[Vec<u8>],
    random: &mut Random<'_>,
    executable: Prot,
    auxv: Vec<(u64, u64)>,
) -> Result<u64, Errno> {
    let top = mm.user_end() - PAGE_SIZE - (random.below(STACK_RANDOM) & !(PAGE_SIZE - 1));
    let mut bytes = [0; 16];
    request.kernel.host.random(&mut bytes);
    let stack = Stack {
        argv,
        envp: &request.envp,
        execfn: request.path,
        random: bytes,
        auxv,
        skew: random.below(8192) & !15,
    };
    let size = stack.size().saturating_add(FIRST_STACK).next_multiple_of(PAGE_SIZE);
    if size > request.stack_limit.max(STACK_GUARD) {
        return Err(Errno::E2BIG);
    }
    let map = MapRequest {
        flags: VmaFlags::GROWSDOWN,
        name: Some(Arc::from("[stack]")),
        ..MapRequest::anon(
            Place::FixedNoReplace(top - size),
            size,
            Prot::READ | Prot::WRITE | executable,
        )
    };
    mm.map(map, Limits::NONE)?;
    let written = stack.write(mm, top)?;
    mm.set_layout(|layout| {
        layout.stack = written.sp;
        layout.args = written.args;
        layout.env = written.env;
        layout.auxv = written.auxv;
    });
    Ok(written.sp)
}
