//! Signal frames: `struct rt_sigframe` of x86-64, and its way back (rt_sigreturn(2)).
//!
//! From the handler's RSP upwards: return address, `ucontext`, `siginfo_t`, then at a 64-byte
//! boundary the XSAVE area with its software bytes and end marker. What a frame says when it comes
//! back is the program's word: flags are masked, the FPU state is checked by the platform.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::siginfo::{RawSigInfo, RawStack};
use crate::{
    error::Errno,
    mm::Mm,
    num::Word,
    platform::{Cpu, Registers, USER_END},
    signal::{
        self, SigInfo, SigSet,
        action::{Action, ActionFlags},
        state::{AltStack, LastFault},
    },
    task::Task,
};

/// SS_ONSTACK.
pub const SS_ONSTACK: u32 = 1;
/// SS_DISABLE.
pub const SS_DISABLE: u32 = 2;
/// SS_AUTODISARM.
pub const SS_AUTODISARM: u32 = 1 << 31;

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// FXSAVE region; the last 48 bytes are the software's.
const FXSAVE_SIZE: usize = 512;
const SW_BYTES: usize = 464;
/// XSTATE_BV in the XSAVE header, which follows the FXSAVE region.
const XSTATE_BV: usize = 512;
/// Smallest XSAVE area: legacy region and header.
const MIN_XSAVE: usize = 576;
/// x87 and SSE, always saved.
const FP_AND_SSE: u64 = 3;
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;
const RED_ZONE: u64 = 128;

const TF: u64 = 1 << 8;
const DF: u64 = 1 << 10;
const RF: u64 = 1 << 16;
/// RFLAGS a frame may set: AC, RF, OF, DF, TF, SF, ZF, AF, PF, CF.
const RESTORABLE: u64 = 1 << 18 | RF | 1 << 11 | DF | TF | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2 | 1;

/// `struct sigcontext`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    di: u64,
    si: u64,
    bp: u64,
    bx: u64,
    dx: u64,
    ax: u64,
    cx: u64,
    sp: u64,
    ip: u64,
    flags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

/// `struct ucontext`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct UContext {
    flags: u64,
    link: u64,
    stack: RawStack,
    mcontext: SigContext,
    mask: u64,
}

/// `struct rt_sigframe`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RtSigFrame {
    pretcode: u64,
    uc: UContext,
    info: RawSigInfo,
}

/// `struct _fpx_sw_bytes`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SoftwareBytes {
    magic1: u32,
    extended_size: u32,
    xfeatures: u64,
    xstate_size: u32,
    padding: [u32; 7],
}

/// A handler about to be entered.
pub struct Frame<'a> {
    /// The signal's information.
    pub info: &'a SigInfo,
    /// Its action.
    pub action: &'a Action,
    /// The handler's address.
    pub entry: u64,
    /// What the handler's return restores.
    pub mask: SigSet,
}

fn save(regs: &Registers, fault: &LastFault, mask: SigSet, fpstate: u64) -> SigContext {
    SigContext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        di: regs.rdi,
        si: regs.rsi,
        bp: regs.rbp,
        bx: regs.rbx,
        dx: regs.rdx,
        ax: regs.rax,
        cx: regs.rcx,
        sp: regs.rsp,
        ip: regs.rip,
        flags: regs.rflags,
        cs: USER_CS,
        gs: 0,
        fs: 0,
        ss: USER_SS,
        err: fault.error,
        trapno: u64::from(fault.vector),
        oldmask: mask.0,
        cr2: fault.addr,
        fpstate,
        reserved: [0; 8],
    }
}

fn load(regs: &mut Registers, from: &SigContext) {
    *regs = Registers {
        rax: from.ax,
        rbx: from.bx,
        rcx: from.cx,
        rdx: from.dx,
        rsi: from.si,
        rdi: from.di,
        rsp: from.sp,
        rbp: from.bp,
        r8: from.r8,
        r9: from.r9,
        r10: from.r10,
        r11: from.r11,
        r12: from.r12,
        r13: from.r13,
        r14: from.r14,
        r15: from.r15,
        rip: from.ip,
        rflags: (regs.rflags & !RESTORABLE) | (from.flags & RESTORABLE),
        fs_base: regs.fs_base,
        gs_base: regs.gs_base,
    };
}

/// `stack_t` as the kernel stores it: flags as given to sigaltstack(2).
fn raw_stack(stack: &AltStack) -> RawStack {
    let flags = match stack {
        AltStack { size: 0, .. } => SS_DISABLE,
        AltStack { autodisarm: true, .. } => SS_AUTODISARM,
        AltStack { .. } => 0,
    };
    RawStack { sp: stack.base, flags, pad: 0, size: stack.size }
}

/// Where things of a frame lie.
struct Place {
    frame: u64,
    fpstate: u64,
}

fn place(
    regs: &Registers,
    stack: &AltStack,
    flags: ActionFlags,
    xsave: u64,
) -> Result<Place, Errno> {
    let fault = Errno::EFAULT;
    let nested = stack.size > 0 && stack.in_use(regs.rsp);
    let mut top = regs.rsp.checked_sub(RED_ZONE).ok_or(fault)?;
    let entering = flags.contains(ActionFlags::ONSTACK) && stack.size > 0 && !stack.in_use(top);
    if entering {
        top = stack.base.checked_add(stack.size).ok_or(fault)?;
    }
    // The end marker follows the area.
    let fpstate = top.checked_sub(xsave + 4).ok_or(fault)? & !63;
    let size = size_of::<RtSigFrame>() as u64;
    let frame = (fpstate.checked_sub(size).ok_or(fault)? & !15).checked_sub(8).ok_or(fault)?;
    // A frame that runs off its alternate stack would hit what lies below it.
    if (nested || entering) && !stack.covers(frame) {
        return Err(fault);
    }
    Ok(Place { frame, fpstate })
}

/// The program's XSAVE area as frames hold it: with software bytes and end marker.
fn fpu_image(cpu: &mut dyn Cpu, features: u64) -> Result<Vec<u8>, Errno> {
    let mut area = cpu.fpu().map_err(|_| Errno::EFAULT)?;
    let size = area.len();
    if size < MIN_XSAVE {
        return Err(Errno::EFAULT);
    }
    let sw = SoftwareBytes {
        magic1: FP_XSTATE_MAGIC1,
        extended_size: size.low_u32() + 4,
        xfeatures: features,
        xstate_size: size.low_u32(),
        padding: [0; 7],
    };
    area[SW_BYTES..FXSAVE_SIZE].copy_from_slice(sw.as_bytes());
    // As Linux: readers of the frame may rely on x87 and SSE being there.
    area[XSTATE_BV] |= FP_AND_SSE.low_u8();
    area.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    Ok(area)
}

/// Builds the frame of a handler on the stack it wants and points `regs` at the handler.
///
/// # Errors
/// EFAULT when the stack cannot hold it or the action has no restorer; `regs` are then unchanged.
pub fn push(
    task: &Arc<Task>,
    regs: &mut Registers,
    cpu: &mut dyn Cpu,
    new: &Frame<'_>,
) -> Result<(), Errno> {
    if !new.action.flags.contains(ActionFlags::RESTORER) {
        return Err(Errno::EFAULT);
    }
    let (stack, fault) = {
        let own = task.signals.lock();
        (own.altstack, own.fault)
    };
    let image = fpu_image(cpu, task.kernel.platform.xsave_layout().features)?;
    let at = place(regs, &stack, new.action.flags, image.len() as u64 - 4)?;
    let frame = RtSigFrame {
        pretcode: new.action.restorer,
        uc: UContext {
            flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack: raw_stack(&stack),
            mcontext: save(regs, &fault, new.mask, at.fpstate),
            mask: new.mask.0,
        },
        info: RawSigInfo::encode(new.info),
    };
    let mm = task.mm();
    mm.write_bytes(at.fpstate, &image)?;
    mm.write_obj(at.frame, &frame)?;
    cpu.reset_fpu().map_err(|_| Errno::EFAULT)?;
    regs.rdi = u64::from(new.info.signal);
    regs.rsi = at.frame + std::mem::offset_of!(RtSigFrame, info) as u64;
    regs.rdx = at.frame + std::mem::offset_of!(RtSigFrame, uc) as u64;
    regs.rax = 0;
    regs.rip = new.entry;
    regs.rsp = at.frame;
    regs.rflags &= !(DF | RF | TF);
    Ok(())
}

/// Undoes [`push`] for a handler that returned: `regs.rsp` points past the return address.
///
/// # Errors
/// EFAULT when the frame cannot be read or holds what the CPU refuses: the program gets SIGSEGV.
pub fn restore(task: &Arc<Task>, regs: &mut Registers, cpu: &mut dyn Cpu) -> Result<(), Errno> {
    let mm = task.mm();
    let frame = regs.rsp.checked_sub(8).ok_or(Errno::EFAULT)?;
    let at = frame.checked_add(8).ok_or(Errno::EFAULT)?;
    let uc: UContext = mm.read_obj(at)?;
    signal::set_mask(task, SigSet(uc.mask));
    load(regs, &uc.mcontext);
    restore_fpu(&mm, task, cpu, uc.mcontext.fpstate)?;
    // A stack the program could not have set is ignored, as Linux ignores it.
    let _ = set_altstack(task, &uc.stack, regs.rsp);
    if !is_canonical(regs.rip) {
        return Err(Errno::EFAULT);
    }
    Ok(())
}

/// The CPU would take this as an instruction pointer (SDM vol. 1, 3.3.7.1).
fn is_canonical(addr: u64) -> bool {
    !(USER_END + 0x1000..0xffff_8000_0000_0000).contains(&addr)
}

fn restore_fpu(mm: &Mm, task: &Task, cpu: &mut dyn Cpu, at: u64) -> Result<(), Errno> {
    let refused = |_| Errno::EFAULT;
    if at == 0 {
        return cpu.reset_fpu().map_err(refused);
    }
    let layout = task.kernel.platform.xsave_layout();
    let mut area = vec![0u8; FXSAVE_SIZE];
    mm.read_bytes(at, &mut area)?;
    let sw = SoftwareBytes::read_from_bytes(&area[SW_BYTES..]).map_err(|_| Errno::EFAULT)?;
    area[SW_BYTES..].fill(0);
    let size = sw.xstate_size.size();
    let marked = sw.magic1 == FP_XSTATE_MAGIC1
        && (MIN_XSAVE..=layout.size).contains(&size)
        && sw.xstate_size <= sw.extended_size
        && mm.read_obj::<u32>(at.checked_add(size as u64).ok_or(Errno::EFAULT)?)?
            == FP_XSTATE_MAGIC2;
    if marked {
        area.resize(layout.size, 0);
        let rest = at.checked_add(FXSAVE_SIZE as u64).ok_or(Errno::EFAULT)?;
        mm.read_bytes(rest, &mut area[FXSAVE_SIZE..size])?;
        // Features the frame does not claim go back to their initial state. Bits no CPU of ours has
        // are left for the platform to refuse.
        let bits = &mut area[XSTATE_BV..XSTATE_BV + 8];
        let claimed = u64::read_from_bytes(bits).map_err(|_| Errno::EFAULT)?;
        let kept = claimed & (sw.xfeatures | !layout.features);
        bits.copy_from_slice(&kept.to_le_bytes());
    }
    cpu.set_fpu(&area).map_err(refused)
}

/// sigaltstack(2)'s new stack; `sp` says whether the current one is in use.
///
/// # Errors
/// EPERM while on the current one, EINVAL for unknown flags, ENOMEM if it is too small.
pub fn set_altstack(task: &Task, new: &RawStack, sp: u64) -> Result<(), Errno> {
    let mut own = task.signals.lock();
    if own.altstack.size > 0 && own.altstack.in_use(sp) {
        return Err(Errno::EPERM);
    }
    let mode = new.flags & !SS_AUTODISARM;
    if mode > SS_DISABLE {
        return Err(Errno::EINVAL);
    }
    let autodisarm = new.flags & SS_AUTODISARM != 0;
    // No stack set once more is no change, whatever size one must have.
    if (new.sp, new.size, new.flags) == (0, 0, 0) && own.altstack == AltStack::default() {
        return Ok(());
    }
    own.altstack = if mode == SS_DISABLE {
        AltStack::default()
    } else if new.size < min_altstack(task) {
        return Err(Errno::ENOMEM);
    } else {
        AltStack { base: new.sp, size: new.size, autodisarm }
    };
    Ok(())
}

/// MINSIGSTKSZ; what a frame really needs is AT_MINSIGSTKSZ ([`frame_size`]).
fn min_altstack(_task: &Task) -> u64 {
    2048
}

/// AT_MINSIGSTKSZ: what a frame needs at most for an XSAVE area of `xsave` bytes.
#[must_use]
pub fn frame_size(xsave: usize) -> u64 {
    let parts = size_of::<RtSigFrame>() + xsave + 4 + 64 + 16 + 8;
    (parts as u64).next_multiple_of(16)
}

/// sigaltstack(2)'s old stack.
#[must_use]
pub fn get_altstack(task: &Task, sp: u64) -> RawStack {
    let stack = task.signals.lock().altstack;
    let mut raw = raw_stack(&stack);
    if stack.size > 0 && stack.in_use(sp) {
        raw.flags |= SS_ONSTACK;
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_abi() {
        assert_eq!(size_of::<SigContext>(), 256);
        assert_eq!(size_of::<UContext>(), 304);
        assert_eq!(size_of::<RtSigFrame>(), 440);
        assert_eq!(size_of::<SoftwareBytes>(), 48);
        assert_eq!(std::mem::offset_of!(RtSigFrame, info), 312);
        assert_eq!(std::mem::offset_of!(SigContext, fpstate), 184);
    }

    fn at_sp(rsp: u64) -> Registers {
        Registers { rsp, ..Registers::default() }
    }

    #[test]
    fn frames_are_aligned_below_the_red_zone() {
        for rsp in 0x7000_0000u64..0x7000_0080 {
            let at = place(&at_sp(rsp), &AltStack::default(), ActionFlags::ONSTACK, 2696).unwrap();
            assert_eq!((at.frame + 8) % 16, 0);
            assert_eq!(at.fpstate % 64, 0);
            assert!(at.fpstate + 2700 <= rsp - 128 && at.frame + 440 <= at.fpstate);
        }
        assert!(place(&at_sp(1000), &AltStack::default(), ActionFlags::empty(), 576).is_err());
    }

    #[test]
    fn alternate_stack_is_entered_once_and_not_overrun() {
        let stack = AltStack { base: 0x1_0000, size: 0x4000, autodisarm: false };
        let inside = |frame: u64| (0x1_0000..0x1_4000).contains(&frame);
        let first = place(&at_sp(0x7000_0000), &stack, ActionFlags::ONSTACK, 576).unwrap();
        assert!(inside(first.frame));
        let second = place(&at_sp(first.frame), &stack, ActionFlags::ONSTACK, 576).unwrap();
        assert!(second.frame < first.frame && inside(second.frame));
        assert!(place(&at_sp(0x1_0400), &stack, ActionFlags::ONSTACK, 576).is_err());
        let off = place(&at_sp(0x7000_0000), &stack, ActionFlags::empty(), 576).unwrap();
        assert!(!inside(off.frame));
    }

    #[test]
    fn only_harmless_flags_come_back() {
        let mut regs = Registers { rflags: 0x202, ..Registers::default() };
        let from = SigContext::read_from_bytes(&[0xff; 256]).unwrap();
        load(&mut regs, &from);
        assert_eq!(regs.rflags & (3 << 12), 0, "IOPL stays 0");
        assert_eq!(regs.rflags & 0x202, 0x202);
        assert!(!is_canonical(regs.rip - 0x8000_0000_0000_0000));
    }
}
