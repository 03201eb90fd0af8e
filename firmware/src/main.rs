//! The ring-0 image: gate, exception stubs, interrupt table. No stack is used and no state kept; the
//! monitor does the rest.
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

global_asm!(
    // What link.ld checks against.
    ".globl layout_image, layout_gate, layout_vectors, layout_ring0, layout_idt",
    ".set layout_image, {image}",
    ".set layout_gate, {gate}",
    ".set layout_vectors, {vectors}",
    ".set layout_ring0, {ring0}",
    ".set layout_idt, {idt}",
    // SYSCALL lands here: in ring 0 on hardware, in ring 3 on deprivileged hosts. RSP is the
    // guest's and must not be touched in ring 0. The monitor resumes elsewhere, so what follows
    // `out` runs only if a guest jumps there in ring 3.
    ".section .gate, \"ax\"",
    ".globl gate",
    "gate:",
    "out {syscall}, al",
    "ud2",
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
    image = const layout::IMAGE.cast_signed(),
    gate = const layout::GATE.cast_signed(),
    vectors = const layout::VECTORS.cast_signed(),
    ring0 = const layout::RING0.cast_signed(),
    idt = const layout::IDT.cast_signed(),
    stride = const layout::VECTOR_STRIDE,
    syscall = const layout::PORT_SYSCALL,
    exception = const layout::PORT_EXCEPTION,
    touched = const layout::PORT_TOUCHED,
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
