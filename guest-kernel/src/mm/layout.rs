//! Where things lie in an address space: the mmap area, the break, the stack, what /proc tells.

use std::sync::Arc;

use crate::{
    fs::file::OpenFile,
    platform::{PAGE_SIZE, USER_START},
};

/// RLIMIT_STACK's usual soft value.
pub const DEFAULT_STACK: u64 = 8 << 20;
/// Room the kernel keeps below a growing stack (`stack_guard_gap`).
pub const STACK_GUARD: u64 = 256 * PAGE_SIZE;
/// Room below the end of the address space, for the stack. Larger than Linux's 128 MiB, because the jumps of
/// short rewritten sites lead 1.2 GiB up (`mm::rewrite`).
const MIN_GAP: u64 = 2 << 30;

/// Landmarks of an address space.
#[derive(Clone, Default)]
pub struct Layout {
    /// Mappings without a fixed address are placed below this, top down.
    pub mmap_base: u64,
    /// First byte of the heap.
    pub brk_start: u64,
    /// The program break.
    pub brk: u64,
    /// Program text.
    pub code: (u64, u64),
    /// Program data.
    pub data: (u64, u64),
    /// The stack pointer at the program's start.
    pub stack: u64,
    /// Argument strings.
    pub args: (u64, u64),
    /// Environment strings.
    pub env: (u64, u64),
    /// The auxiliary vector, as written to the stack.
    pub auxv: Vec<u8>,
    /// The program's file.
    pub exe: Option<Arc<OpenFile>>,
    /// Where the vDSO is.
    pub vdso: u64,
}

impl Layout {
    /// The mmap area ends below the highest place the stack may reach (`mmap_base()` in
    /// arch/x86/mm/mmap.c).
    #[must_use]
    pub fn top_down(user_end: u64, stack_limit: u64) -> Layout {
        let gap = stack_limit.saturating_add(STACK_GUARD).clamp(MIN_GAP, user_end / 6 * 5);
        let base = (user_end - gap) & !(PAGE_SIZE - 1);
        Layout { mmap_base: base.max(USER_START), ..Layout::default() }
    }
}
