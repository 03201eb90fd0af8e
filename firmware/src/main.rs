//! The ring-0 image: gates, exception stubs, interrupt table. No stack is used and no state kept but in
//! the running thread's ring page; the monitor does the rest.
//!
//! On deprivileged hosts KVM *emulates* ring 0, one instruction at a time and not every instruction,
//! so ring-0 code is as short as it can be and uses plain moves and `out` only. Addresses are fixed
//! (`layout.rs`); `link.ld` asserts them.
#![no_std]
#![no_main]
#![allow(dead_code, reason = "the monitor uses the rest of the shared modules")]

mod abi;
mod layout;

use core::arch::global_asm;

/// One gate. `$cpl` comes after the number was stored, `$back` returns to the caller with all but RCX and
/// R11 in place, `$jump` is where rewritten call sites come in: its last instruction falls into `5:`. `$full`
/// begins with `10:`, the states that concern the whole register file. But there, RSP is the guest's and is not
/// touched.
macro_rules! gate {
    ($n:literal, $cpl:literal, $back:literal, $jump:literal, $full:literal) => {
        concat!(
            ".globl gate", $n, ", gate", $n, "_end, gate", $n, "_jump\n",
            "gate", $n, ":\n",
            "test r11d, {odd}\n",
            "jnz 9f\n",
            "movabs qword ptr [{number}], rax\n",
            "gate", $n, "_number:\n",
            $cpl,
            "movabs rax, {ring}\n",
            "mov [rax + {o_flags}], r11\n",
            "gate", $n, "_flags:\n",
            "mov [rax + {o_caller}], rcx\n",
            // Now and then the kernel is shown a call whose answer is known, for it looks for hot sites.
            "inc dword ptr [rax + {o_tick}]\n",
            "test dword ptr [rax + {o_tick}], {tick}\n",
            "jz 2f\n",
            // Tier 0: what the kernel has told us beforehand.
            "5: mov r11, [rax + {o_number}]\n",
            "cmp r11, {calls}\n",
            "jae 2f\n",
            "mov r11, [rax + r11 * 8 + {o_known}]\n",
            "cmp r11, -1\n",
            "je 2f\n",
            "inc qword ptr [rax + {o_count}]\n",
            "mov [rax + {o_value}], r11\n",
            "jmp 6f\n",
            // Tier 1: the ring.
            "2: cmp dword ptr [rip + shared + {o_awake}], 0\n",
            "je 7f\n",
            "mov [rax + {o_args}], rdi\n",
            "mov [rax + {o_args} + 8], rsi\n",
            "mov [rax + {o_args} + 16], rdx\n",
            "mov [rax + {o_args} + 24], r10\n",
            "mov [rax + {o_args} + 32], r8\n",
            "mov [rax + {o_args} + 40], r9\n",
            "mov r11d, [rip + shared + {o_spin}]\n",
            "mov dword ptr [rax + {o_state}], {posted}\n",
            "gate", $n, "_posted:\n",
            "3: cmp dword ptr [rax + {o_state}], {posted}\n",
            "jne 4f\n",
            "pause\n",
            "dec r11d\n",
            "jnz 3b\n",
            // Nobody came for it; the monitor settles with the server who answers.
            "jmp 7f\n",
            "4: cmp dword ptr [rax + {o_state}], {done}\n",
            "jne 10f\n",
            "mov dword ptr [rax + {o_state}], {idle}\n",
            "gate", $n, "_answered:\n",
            "6: mov r11, [rax + {o_flags}]\n",
            $back,
            // Tier 2: out of the VM.
            "gate", $n, "_unposted:\n",
            "7: mov r11, [rax + {o_flags}]\n",
            "gate", $n, "_leave:\n",
            "8: movabs rax, qword ptr [{number}]\n",
            "gate", $n, "_out:\n",
            "9: out {syscall}, al\n",
            "ud2\n",
            "gate", $n, "_jump:\n",
            $jump,
            $full,
            "gate", $n, "_end:\n",
        )
    };
}

/// The phases of one gate, as `abi::Phases` has them.
macro_rules! phases {
    ($n:literal) => {
        concat!(
            ".quad gate", $n, " - layout_image, gate", $n, "_number - layout_image\n",
            ".quad gate", $n, "_flags - layout_image, gate", $n, "_posted - layout_image\n",
            ".quad gate", $n, "_answered - layout_image, gate", $n, "_unposted - layout_image\n",
            ".quad gate", $n, "_leave - layout_image, gate", $n, "_out - layout_image\n",
            ".quad gate", $n, "_jump - layout_image, gate", $n, "_jump_number - layout_image\n",
            ".quad gate", $n, "_full - layout_image, gate", $n, "_load - layout_image\n",
            ".quad gate", $n, "_loading - layout_image, gate", $n, "_end - layout_image\n",
        )
    };
}

global_asm!(
    // What link.ld checks against.
    ".globl layout_image, layout_gate, layout_vectors, layout_ring0, layout_idt, layout_shared",
    ".set layout_image, {image}",
    ".set layout_gate, {gate}",
    ".set layout_vectors, {vectors}",
    ".set layout_ring0, {ring0}",
    ".set layout_idt, {idt}",
    ".set layout_shared, {shared}",
    // SYSCALL lands here on deprivileged hosts, which leave the CPL at 3. But KVM emulates some SYSCALLs
    // there, and these do raise it: ring 0 must not go back by a jump. What the masked flags and the
    // instructions above changed of RFLAGS is put back by SAHF and, for OF, by an addition.
    ".section .gate, \"ax\"",
    gate!(
        "",
        "mov eax, cs\ntest al, 3\njz 8f\n",
        "mov eax, r11d\nshl eax, 8\nbt r11d, 11\nsetc al\nadd al, 0x7f\nsahf\n\
         movabs rax, qword ptr [{value}]\njmp rcx\n",
        // As SYSCALL would leave it: R11 the flags, whose arithmetic part LAHF and SETO tell; no
        // instruction up to `5:` changes them. RCX is set.
        "movabs qword ptr [{number}], rax\n\
         gate_jump_number:\n\
         lahf\nseto al\nmovzx r11d, al\n\
         lea r11d, [r11 * 8]\nlea r11d, [r11 * 8]\nlea r11d, [r11 * 8]\n\
         movzx eax, ah\nlea r11d, [rax + r11 * 4 + 0x200]\n\
         movabs rax, {ring}\nmov [rax + {o_flags}], r11\n\
         mov qword ptr [rax + {o_caller}], 0\njmp 5b\n",
        "gate_full:\n\
         10: cmp dword ptr [rax + {o_state}], {save}\nje 11f\n\
         cmp dword ptr [rax + {o_state}], {load}\nje 13f\njmp 7b\n\
         11: mov [rax + {o_registers} + 8], rbx\nmov [rax + {o_registers} + 24], rdx\n\
         mov [rax + {o_registers} + 32], rsi\nmov [rax + {o_registers} + 40], rdi\n\
         mov [rax + {o_registers} + 48], rsp\nmov [rax + {o_registers} + 56], rbp\n\
         mov [rax + {o_registers} + 64], r8\nmov [rax + {o_registers} + 72], r9\n\
         mov [rax + {o_registers} + 80], r10\nmov [rax + {o_registers} + 96], r12\n\
         mov [rax + {o_registers} + 104], r13\nmov [rax + {o_registers} + 112], r14\n\
         mov [rax + {o_registers} + 120], r15\nmov [rax + {o_frame}], rcx\n\
         mov r11, rax\nmov eax, [rip + shared + {o_features}]\n\
         mov edx, [rip + shared + {o_features} + 4]\nxsave64 [r11 + {o_xsave}]\n\
         mov rax, r11\nmov rdx, [rax + {o_registers} + 24]\n\
         mov r11d, [rip + shared + {o_spin}]\nmov dword ptr [rax + {o_state}], {full}\n\
         12: cmp dword ptr [rax + {o_state}], {full}\njne 4b\npause\ndec r11d\njnz 12b\njmp 7b\n\
         gate_load:\n\
         13: mov r11, rax\ncmp dword ptr [r11 + {o_fpu}], 0\nje 14f\n\
         mov eax, [rip + shared + {o_features}]\nmov edx, [rip + shared + {o_features} + 4]\n\
         xrstor64 [r11 + {o_xsave}]\n\
         14: mov dword ptr [r11 + {o_state}], {idle}\n\
         gate_loading:\n\
         mov rax, [r11 + {o_registers}]\nmov rbx, [r11 + {o_registers} + 8]\n\
         mov rcx, [r11 + {o_registers} + 16]\nmov rdx, [r11 + {o_registers} + 24]\n\
         mov rsi, [r11 + {o_registers} + 32]\nmov rdi, [r11 + {o_registers} + 40]\n\
         mov rbp, [r11 + {o_registers} + 56]\n\
         mov r8, [r11 + {o_registers} + 64]\nmov r9, [r11 + {o_registers} + 72]\n\
         mov r10, [r11 + {o_registers} + 80]\nmov r12, [r11 + {o_registers} + 96]\n\
         mov r13, [r11 + {o_registers} + 104]\nmov r14, [r11 + {o_registers} + 112]\n\
         mov r15, [r11 + {o_registers} + 120]\n\
         lea rsp, [r11 + {o_frame}]\nmov r11, [r11 + {o_registers} + 88]\niretq\n"
    ),
    // Vector n at n * 16. The processor has pushed the frame; the monitor reads it.
    ".section .vectors, \"ax\"",
    ".globl vectors",
    "vectors:",
    ".rept 256",
    ".balign {stride}",
    "out {exception}, al",
    "ud2",
    ".endr",
    ".balign {stride}",
    ".globl vectors_end",
    "vectors_end:",
    ".section .ring0, \"ax\"",
    ".globl ring0",
    "ring0:",
    "sysretq",
    ".balign 16",
    "out {exception}, al",
    "ud2",
    ".balign 16",
    "or byte ptr [rax], 0",
    "or byte ptr [rbx], 0",
    "or byte ptr [rcx], 0",
    "or byte ptr [rdx], 0",
    "or byte ptr [rsi], 0",
    "or byte ptr [rdi], 0",
    "or byte ptr [rbp], 0",
    "or byte ptr [r8], 0",
    "or byte ptr [r9], 0",
    "or byte ptr [r10], 0",
    "or byte ptr [r11], 0",
    "or byte ptr [r12], 0",
    "or byte ptr [r13], 0",
    "or byte ptr [r14], 0",
    "or byte ptr [r15], 0",
    "out {touched}, al",
    "ud2",
    // SYSCALL lands here on hardware. RCX is the address after a SYSCALL instruction and so canonical:
    // SYSRET cannot fault in ring 0.
    ".balign 64",
    // Nothing is rewritten where SYSCALL is cheap.
    gate!("0", "", "movabs rax, qword ptr [{value}]\nsysretq\n", "gate0_jump_number: ud2\n",
        "gate0_full:\n10: jmp 7b\ngate0_load:\ngate0_loading: ud2\n"
    ),
    ".section .phases, \"a\"",
    phases!(""),
    phases!("0"),
    ".section .shared, \"a\"",
    ".quad 0",
    image = const layout::IMAGE.cast_signed(),
    gate = const layout::GATE.cast_signed(),
    vectors = const layout::VECTORS.cast_signed(),
    ring0 = const layout::RING0.cast_signed(),
    idt = const layout::IDT.cast_signed(),
    shared = const layout::SHARED.cast_signed(),
    stride = const layout::VECTOR_STRIDE,
    syscall = const layout::PORT_SYSCALL,
    exception = const layout::PORT_EXCEPTION,
    touched = const layout::PORT_TOUCHED,
    odd = const layout::ODD_FLAGS,
    ring = const layout::RING.cast_signed(),
    number = const (layout::RING + layout::RING_NUMBER).cast_signed(),
    value = const (layout::RING + layout::RING_VALUE).cast_signed(),
    calls = const layout::KNOWN_CALLS,
    o_args = const layout::RING_ARGS,
    o_number = const layout::RING_NUMBER,
    o_state = const layout::RING_STATE,
    o_value = const layout::RING_VALUE,
    o_flags = const layout::RING_FLAGS,
    o_count = const layout::RING_COUNT,
    o_tick = const layout::RING_TICK,
    tick = const layout::TICK_MASK,
    o_caller = const layout::RING_CALLER,
    o_registers = const layout::RING_REGISTERS,
    o_frame = const layout::RING_FRAME,
    o_xsave = const layout::RING_XSAVE,
    o_fpu = const layout::RING_FPU,
    o_features = const layout::SHARED_FEATURES,
    save = const layout::STATE_SAVE,
    full = const layout::STATE_FULL,
    load = const layout::STATE_LOAD,
    o_known = const layout::KNOWN - layout::RING,
    o_awake = const layout::SHARED_AWAKE,
    o_spin = const layout::SHARED_SPIN,
    idle = const layout::STATE_IDLE,
    posted = const layout::STATE_POSTED,
    done = const layout::STATE_DONE,
);

#[used]
#[unsafe(link_section = ".header")]
static HEADER: abi::Header = abi::Header::CURRENT;

#[used]
#[unsafe(link_section = ".idt")]
static IDT: [[u64; 2]; 256] = abi::idt();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
