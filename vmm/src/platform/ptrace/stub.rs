//! The code that runs in stub processes, and where its entry points are.
//!
//! Position-independent, stackless, all state in registers: nothing a guest thread of the same
//! process can write is ever read (the slot is read-only there by then). Guest code may jump here;
//! its system calls stop at the tracer like any other of its calls. See `layout` for the fields.

use super::layout::CODE;

std::arch::global_asm!(
    ".pushsection .rodata.trapgate_stub, \"a\", @progbits",
    ".balign 16",
    ".global trapgate_stub_start",
    "trapgate_stub_start:",
    // The zygote's entry. r12 = slot, r14 = STUB_BASE, r15 = STUB_END, rbp = end of user space.
    // Drop everything inherited from the monitor.
    "xor edi, edi",
    "mov rsi, r14",
    "mov eax, {munmap}",
    "syscall",
    "test rax, rax",
    "jnz 9f",
    "mov rdi, r15",
    "mov rsi, rbp",
    "sub rsi, r15",
    "mov eax, {munmap}",
    "syscall",
    "test rax, rax",
    "jnz 9f",
    "mov eax, {getpid}",
    "syscall",
    "mov r13d, eax",
    "xor ebx, ebx",
    // Fork whenever the monitor's count is ahead of ours.
    "2:",
    "mov eax, [r12 + {want}]",
    "cmp eax, ebx",
    "jne 3f",
    "lea rdi, [r12 + {want}]",
    "xor esi, esi",
    "mov edx, ebx",
    "xor r10d, r10d",
    "mov eax, {futex}",
    "syscall",
    "jmp 2b",
    "3:",
    "mov eax, ebx",
    "and eax, {ring_mask}",
    "mov r14, [r12 + rax * 8 + {ring}]",
    "inc ebx",
    "mov edi, {sigchld}",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {clone}",
    "syscall",
    "test rax, rax",
    "jz 4f",
    "jns 2b",
    "lea eax, [rbx - 1]",
    "and eax, {ring_mask}",
    "mov qword ptr [r12 + rax * 8 + {ring}], -1",
    "jmp 2b",
    // A new process: die with the zygote, take our own slot, make the first worker.
    "4:",
    "mov edi, {pdeathsig}",
    "mov esi, {sigkill}",
    "mov eax, {prctl}",
    "syscall",
    "mov eax, {getppid}",
    "syscall",
    "cmp eax, r13d",
    "jne 9f",
    "mov rdi, r12",
    "mov esi, {slot_size}",
    "mov edx, {prot_rw}",
    "mov r10d, {map_flags}",
    "mov r8d, {slot_fd}",
    "mov r9, r14",
    "mov eax, {mmap}",
    "syscall",
    "cmp rax, r12",
    "jne 9f",
    "mov edi, {thread_flags} | {parent_settid}",
    "xor esi, esi",
    "lea rdx, [r12 + {birth_worker}]",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, {clone}",
    "syscall",
    "test rax, rax",
    "jz trapgate_stub_park",
    "js 9f",
    "mov eax, {getpid}",
    "syscall",
    "mov [r12 + {birth_pid}], eax",
    "mov dword ptr [r12 + {birth_ready}], 1",
    "lea rdi, [r12 + {birth_ready}]",
    "mov esi, 1",
    "mov edx, 1",
    "mov eax, {futex}",
    "syscall",
    // Wait to be taken up by a tracer.
    ".global trapgate_stub_park",
    "trapgate_stub_park:",
    "mov eax, {pause}",
    "syscall",
    "jmp trapgate_stub_park",
    // The batch loop: rbx = first call, rbp = after the last, r8 = RAM_FD, r10 = map flags.
    // Stops at the trap with rax = 0, or with the error and rbx at the call that failed.
    // A guest may have denied itself access by protection keys; the loop must read all the same.
    ".global trapgate_stub_batch_pku",
    "trapgate_stub_batch_pku:",
    "xor ecx, ecx",
    "rdpkru",
    "mov r15d, eax",
    "xor eax, eax",
    "xor edx, edx",
    "wrpkru",
    "mov r14d, 1",
    "jmp 5f",
    ".global trapgate_stub_batch",
    "trapgate_stub_batch:",
    "xor r14d, r14d",
    "5:",
    "mov eax, [rbx]",
    "mov edx, [rbx + 4]",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov r9, [rbx + 24]",
    "syscall",
    "cmp rax, -4095",
    "jae 6f",
    "add rbx, {call_size}",
    "cmp rbx, rbp",
    "jb 5b",
    "xor eax, eax",
    "6:",
    "test r14d, r14d",
    "jz 7f",
    "mov r12, rax",
    "mov eax, r15d",
    "xor ecx, ecx",
    "xor edx, edx",
    "wrpkru",
    "mov rax, r12",
    "7:",
    "int3",
    ".global trapgate_stub_batch_end",
    "trapgate_stub_batch_end:",
    "ud2",
    // One call, arguments in place; a new thread parks, the caller traps.
    ".global trapgate_stub_clone",
    "trapgate_stub_clone:",
    "syscall",
    "test rax, rax",
    "jz trapgate_stub_park",
    "int3",
    ".global trapgate_stub_clone_end",
    "trapgate_stub_clone_end:",
    "ud2",
    "9:",
    "mov edi, 1",
    "mov eax, {exit_group}",
    "syscall",
    "ud2",
    ".global trapgate_stub_end",
    "trapgate_stub_end:",
    ".popsection",
    munmap = const libc::SYS_munmap,
    mmap = const libc::SYS_mmap,
    getpid = const libc::SYS_getpid,
    getppid = const libc::SYS_getppid,
    futex = const libc::SYS_futex,
    clone = const libc::SYS_clone,
    prctl = const libc::SYS_prctl,
    pause = const libc::SYS_pause,
    exit_group = const libc::SYS_exit_group,
    sigchld = const libc::SIGCHLD,
    sigkill = const libc::SIGKILL,
    pdeathsig = const libc::PR_SET_PDEATHSIG,
    prot_rw = const libc::PROT_READ | libc::PROT_WRITE,
    map_flags = const MAP_FLAGS,
    thread_flags = const THREAD_FLAGS,
    parent_settid = const libc::CLONE_PARENT_SETTID,
    slot_fd = const super::layout::SLOT_FD,
    slot_size = const super::layout::SLOT_SIZE,
    want = const super::layout::ZYGOTE_WANT,
    ring = const super::layout::ZYGOTE_RING,
    ring_mask = const super::layout::ZYGOTE_RING_LEN - 1,
    birth_ready = const super::layout::BIRTH_READY,
    birth_pid = const super::layout::BIRTH_PID,
    birth_worker = const super::layout::BIRTH_WORKER,
    call_size = const super::layout::CALL_SIZE,
);

/// mmap(2) flags of every mapping in a stub.
pub const MAP_FLAGS: i32 = libc::MAP_SHARED | libc::MAP_FIXED;
/// clone(2) flags of a stub's threads.
pub const THREAD_FLAGS: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

unsafe extern "C" {
    static trapgate_stub_start: u8;
    static trapgate_stub_park: u8;
    static trapgate_stub_batch: u8;
    static trapgate_stub_batch_pku: u8;
    static trapgate_stub_batch_end: u8;
    static trapgate_stub_clone: u8;
    static trapgate_stub_clone_end: u8;
    static trapgate_stub_end: u8;
}

/// The stub's code, less than a page, to be placed at [`CODE`].
pub fn code() -> &'static [u8] {
    // SAFETY: both labels bound one constant section defined above; `start` lies before `end`, and
    // the bytes between them are initialised, read-only and live for ever.
    unsafe {
        let (start, end) = (&raw const trapgate_stub_start, &raw const trapgate_stub_end);
        std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

/// Where the points of [`code`] lie in a stub.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// The zygote's start.
    pub zygote: u64,
    /// Waits for a tracer for ever.
    pub park: u64,
    /// The batch loop.
    pub batch: u64,
    /// The instruction pointer after the batch's trap.
    pub batch_end: u64,
    /// One clone(2).
    pub clone: u64,
    /// The instruction pointer after clone's trap.
    pub clone_end: u64,
}

/// The entries; `pku` if the host has protection keys switched on.
pub fn entries(pku: bool) -> Entries {
    let start = &raw const trapgate_stub_start;
    let at = |label: *const u8| CODE + (label.addr() - start.addr()) as u64;
    Entries {
        zygote: CODE,
        park: at(&raw const trapgate_stub_park),
        batch: at(if pku {
            &raw const trapgate_stub_batch_pku
        } else {
            &raw const trapgate_stub_batch
        }),
        batch_end: at(&raw const trapgate_stub_batch_end),
        clone: at(&raw const trapgate_stub_clone),
        clone_end: at(&raw const trapgate_stub_clone_end),
    }
}
