//! The whole register file in a ring page: put there by a gate for calls that look at it, and loaded from
//! there when such a call replaces it (docs/gate.md, Signals in rings).

use trapgate_firmware::layout;
use trapgate_kernel::platform::{PlatformError, Registers, SavedFpu};

use super::{
    fpu::{self, FpuRules},
    ring::Ring,
};

/// Byte offsets in [`layout::RING_REGISTERS`] of the registers that are simply words there.
fn words(regs: &mut Registers) -> [(u64, &mut u64); 16] {
    [
        (0, &mut regs.rax),
        (8, &mut regs.rbx),
        (16, &mut regs.rcx),
        (24, &mut regs.rdx),
        (32, &mut regs.rsi),
        (40, &mut regs.rdi),
        (48, &mut regs.rsp),
        (56, &mut regs.rbp),
        (64, &mut regs.r8),
        (72, &mut regs.r9),
        (80, &mut regs.r10),
        (88, &mut regs.r11),
        (96, &mut regs.r12),
        (104, &mut regs.r13),
        (112, &mut regs.r14),
        (120, &mut regs.r15),
    ]
}

/// What the gate saved, as at SYSCALL. Each word is read once.
pub(super) fn saved(ring: &Ring) -> Registers {
    let mut regs = Registers::default();
    for (offset, register) in words(&mut regs) {
        *register = ring.word(layout::RING_REGISTERS + offset);
    }
    regs.rax = ring.word(layout::RING_NUMBER);
    regs.rip = ring.word(layout::RING_FRAME);
    regs.rflags = ring.word(layout::RING_FLAGS);
    (regs.rcx, regs.r11) = (regs.rip, regs.rflags);
    regs
}

/// Puts `regs` where the gate loads them from.
pub(super) fn put(ring: &Ring, mut regs: Registers) {
    let (rip, rflags, rsp) = (regs.rip, regs.rflags, regs.rsp);
    for (offset, register) in words(&mut regs) {
        ring.set_word(layout::RING_REGISTERS + offset, *register);
    }
    let frame = [rip, layout::USER_CS.into(), rflags, rsp, layout::USER_SS.into()];
    for (offset, word) in (0..).step_by(8).zip(frame) {
        ring.set_word(layout::RING_FRAME + offset, word);
    }
}

/// What [`put`] put there, or the guest since. Segment bases stay.
pub(super) fn loaded(ring: &Ring, regs: &mut Registers) {
    for (offset, register) in words(regs) {
        *register = ring.word(layout::RING_REGISTERS + offset);
    }
    regs.rip = ring.word(layout::RING_FRAME);
    regs.rflags = ring.word(layout::RING_FRAME + 16);
    regs.rsp = ring.word(layout::RING_FRAME + 24);
}

/// The FPU state in the ring page.
pub(super) struct PageFpu<'a> {
    pub(super) ring: &'a Ring,
    pub(super) rules: FpuRules,
}

impl SavedFpu for PageFpu<'_> {
    fn get(&mut self) -> Result<Vec<u8>, PlatformError> {
        // The guest may have written there meanwhile: checked as what comes from a signal frame is.
        fpu::check(&self.ring.area(self.rules.layout.size), self.rules)
    }
    fn set(&mut self, area: &[u8]) -> Result<(), PlatformError> {
        let area = fpu::check(area, self.rules)?;
        self.ring.set_area(&area);
        Ok(())
    }
    fn reset(&mut self) {
        self.ring.set_area(&fpu::initial(self.rules.layout));
    }
}
