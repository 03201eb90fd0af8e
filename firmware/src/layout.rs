//! Where everything lies in the kernel half of every address space, the selectors and the ports.
//!
//! The kernel half is the same in every space: one PML4 entry ([`PML4_KERNEL`]) shared by all, and
//! one private entry per thread ([`PML4_PRIVATE`]). `link.ld` asserts the image's addresses.

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// PML4 entry of the kernel half, shared by every root.
pub const PML4_KERNEL: usize = 511;
/// PML4 entry each root has for itself.
pub const PML4_PRIVATE: usize = 510;
/// PML4 entries `0..PML4_USER` belong to the guest.
pub const PML4_USER: usize = 256;

/// Where the image is linked: the last 2 GiB, as the kernel code model wants.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// Pages of the image.
pub const IMAGE_PAGES: u64 = 6;
/// The header, read by the monitor only.
pub const HEADER: u64 = IMAGE;
/// The gate: LSTAR. The only page of the kernel half a guest may ever execute.
pub const GATE: u64 = IMAGE + PAGE;
/// The exception stubs, [`VECTOR_STRIDE`] apart.
pub const VECTORS: u64 = IMAGE + 2 * PAGE;
/// Bytes from one exception stub to the next.
pub const VECTOR_STRIDE: u64 = 16;
/// The other ring-0 code: [`SYSRET`], [`CSTAR`], [`TOUCH`].
pub const RING0: u64 = IMAGE + 3 * PAGE;
/// SYSRETQ: the way back from a ring-0 gate.
pub const SYSRET: u64 = RING0;
/// Where SYSCALL from compatibility mode would land. No descriptor allows that mode.
pub const CSTAR: u64 = RING0 + 16;
/// Writes one byte, unchanged, at each of the [`TOUCH_REGS`] addresses in the registers.
pub const TOUCH: u64 = RING0 + 32;
/// Addresses one [`TOUCH`] takes: all general registers but RSP.
pub const TOUCH_REGS: usize = 15;
/// The interrupt descriptor table.
pub const IDT: u64 = IMAGE + 4 * PAGE;

/// The vCPUs' own pages: vCPU `n` has the page at `VCPU + n * PAGE`.
pub const VCPU: u64 = IMAGE + 0x20_0000;
/// vCPUs there is room for.
pub const VCPU_MAX: u64 = 4096;
/// Offset of the GDT in a vCPU's page.
pub const VCPU_GDT: u64 = 0;
/// Offset of the TSS in a vCPU's page; the I/O bitmap follows it.
pub const VCPU_TSS: u64 = 0x80;
/// Offset of the top of the stack of interrupt-stack-table entry `n` (1 to 4).
#[must_use]
pub const fn vcpu_ist_top(n: u64) -> u64 {
    0x200 + n * 0x200
}
/// Offset of the top of the stack that exceptions from ring 3 use.
pub const VCPU_STACK_TOP: u64 = PAGE;

/// All of guest RAM, seen by the maintenance vCPU alone (its private PML4 entry).
pub const PHYSMAP: u64 = 0xffff_ff00_0000_0000;

/// The page the monitor tells all gates something by ([`SHARED_AWAKE`], [`SHARED_SPIN`]).
pub const SHARED: u64 = IMAGE + 5 * PAGE;
/// In [`SHARED`], u32: 0 while no server looks at the rings.
pub const SHARED_AWAKE: u64 = 0;
/// In [`SHARED`], u32: how often a gate looks for its answer before it leaves the VM instead.
pub const SHARED_SPIN: u64 = 4;
/// In [`SHARED`], two u32: the XSAVE features that [`STATE_SAVE`] saves.
pub const SHARED_FEATURES: u64 = 8;

/// The running thread's ring page: at one address in every thread, in [`PML4_PRIVATE`]. Where the gate is
/// in ring 3 the guest can reach it, so it lies where nobody looks by accident.
pub const RING: u64 = 0xffff_ff40_2010_0000;
/// In the ring page, six u64: the arguments.
pub const RING_ARGS: u64 = 0;
/// In the ring page, u64: the number.
pub const RING_NUMBER: u64 = 48;
/// In the ring page, u64: the address after the SYSCALL, 0 if the call came from a rewritten site.
pub const RING_CALLER: u64 = 56;
/// In the ring page, u32: [`STATE_IDLE`] and so on. On a cache line of its own with the answer: the gate
/// waits on it while the server reads the call.
pub const RING_STATE: u64 = 64;
/// In the ring page, u64: the answer.
pub const RING_VALUE: u64 = 72;
/// In the ring page, u64: R11 while the gate uses it. The gate's own line.
pub const RING_FLAGS: u64 = 128;
/// In the ring page, u64: calls answered from [`KNOWN`].
pub const RING_COUNT: u64 = 136;
/// In the ring page, u32: counts the SYSCALLs. When its bits under [`TICK_MASK`] are 0 the call is not
/// answered from [`KNOWN`].
pub const RING_TICK: u64 = 144;
/// See [`RING_TICK`].
pub const TICK_MASK: u32 = 1023;
/// In the ring page, u32: with [`STATE_LOAD`], the FPU state is to be loaded as well.
pub const RING_FPU: u64 = 152;
/// In the ring page, 16 u64: RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15.
pub const RING_REGISTERS: u64 = 256;
/// In the ring page, five u64 as IRETQ takes them: RIP, CS, RFLAGS, RSP, SS.
pub const RING_FRAME: u64 = 384;
/// In the ring page: an XSAVE area in standard format.
pub const RING_XSAVE: u64 = 512;
/// Bytes there are for it.
pub const RING_XSAVE_SIZE: u64 = PAGE - RING_XSAVE;
/// The page after it, not writable: an answer for each call number below [`KNOWN_CALLS`], or
/// [`UNKNOWN`].
pub const KNOWN: u64 = RING + PAGE;
/// Calls that may have an answer in [`KNOWN`].
pub const KNOWN_CALLS: u64 = 512;
/// No answer in [`KNOWN`].
pub const UNKNOWN: u64 = u64::MAX;

/// No call in the ring.
pub const STATE_IDLE: u32 = 0;
/// The guest has put a call in and waits.
pub const STATE_POSTED: u32 = 1;
/// The server has answered it.
pub const STATE_DONE: u32 = 2;
/// The server could not: leave the VM with it.
pub const STATE_PUNT: u32 = 3;
/// The server has answered it, but leave the VM: something is pending.
pub const STATE_LEAVE: u32 = 4;

/// The server wants the whole register file: put it in and post again.
pub const STATE_SAVE: u32 = 5;
/// The guest has put the call and the whole register file in and waits.
pub const STATE_FULL: u32 = 6;
/// The server has answered by a register file: load it, RIP and RSP included.
pub const STATE_LOAD: u32 = 7;

/// RFLAGS with which the gate does not return by itself: TF, DF, NT, RF, AC, ID.
pub const ODD_FLAGS: u32 = 0x25_4500;

/// In the image's first page: offsets from [`IMAGE`] of the gates' phases (`abi::Phases`), first those
/// of [`GATE`], then those of the ring-0 gate.
pub const PHASES: u64 = HEADER + 0x100;

/// Ring-0 code segment. The selectors are Linux's, for programs that look.
pub const KERNEL_CS: u16 = 0x10;
/// Ring-0 stack segment.
pub const KERNEL_SS: u16 = 0x18;
/// What SYSRET derives the user selectors from. Its own descriptor (32-bit code) is absent.
pub const USER32_CS: u16 = 0x23;
/// Ring-3 stack segment.
pub const USER_SS: u16 = 0x2b;
/// Ring-3 64-bit code segment.
pub const USER_CS: u16 = 0x33;
/// Task-state segment.
pub const TSS: u16 = 0x40;

/// The gate's port: a system call. On deprivileged hosts the I/O bitmap gives it to ring 3.
pub const PORT_SYSCALL: u8 = 0xe0;
/// The exception stubs' port.
pub const PORT_EXCEPTION: u8 = 0xe1;
/// The port [`TOUCH`] ends with.
pub const PORT_TOUCHED: u8 = 0xe2;
