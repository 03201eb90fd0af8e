//! Exceptions: resolved by the address space, or turned into Linux's signal (arch/x86/kernel/traps.c).
//!
//! Where a platform cannot tell what a processor with Linux's own tables would have reported, the
//! instruction that faulted says it.

use std::sync::Arc;

use super::{Task, status::ExitStatus};
use crate::{
    mm::MemFault,
    platform::{Cpu, Fault, Registers},
    signal::{self, SigFields, SigInfo, number::*},
};

/// Vectors (SDM vol. 3, table 6-1).
const DEBUG: u8 = 1;
const UNDEFINED: u8 = 6;
const PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;

/// A hardware exception: resolved by the address space, or a signal (Linux's arch/x86 traps).
pub(super) fn taken(task: &Arc<Task>, fault: &Fault, regs: &Registers, cpu: &mut dyn Cpu) {
    if fault.vector != PAGE_FAULT {
        // A step inside a trampoline is none of the program's.
        let original = task.mm().in_trampoline(regs.rip);
        if fault.vector == DEBUG && original.is_some() {
            return;
        }
        let regs = &Registers { rip: original.unwrap_or(regs.rip), ..*regs };
        let fault = as_on_linux(task, fault, regs);
        if let Some(info) = trap_signal(&fault, regs, cpu) {
            signal::force_fault(task, &fault, info);
        }
        return;
    }
    task.count_usage(|u| u.minor_faults = u.minor_faults.wrapping_add(1));
    match task.mm().fault(fault) {
        Ok(()) => {}
        Err(MemFault::OutOfMemory) => {
            task.kernel.note_failure(&format!(
                "out of guest memory: killed process {} ({})",
                task.process.pid,
                String::from_utf8_lossy(&task.name())
            ));
            task.process.begin_exit(ExitStatus::Signaled { signal: SIGKILL, core: false });
        }
        Err(kind) => {
            const SEGV_MAPERR: i32 = 1;
            const SEGV_ACCERR: i32 = 2;
            const BUS_ADRERR: i32 = 2;
            let (signal, code) = match kind {
                MemFault::Bus => (SIGBUS, BUS_ADRERR),
                MemFault::Protected => (SIGSEGV, SEGV_ACCERR),
                _ => (SIGSEGV, SEGV_MAPERR),
            };
            let fields = SigFields::Fault { addr: fault.addr };
            signal::force_fault(task, fault, SigInfo { signal, code, errno: 0, fields });
        }
    }
}

/// What the exception would have been above Linux's descriptor tables.
///
/// A deprivileged KVM host emulates software interrupts as undefined instructions, and ptrace has no
/// error codes: `int n` for a vector that user code may not raise is #GP with its selector, also
/// `int 0x80`, as on a kernel without 32-bit system calls. Such a host takes MONITOR and MWAIT for
/// privileged; they are undefined outside ring 0.
fn as_on_linux(task: &Task, fault: &Fault, regs: &Registers) -> Fault {
    /// The selector of an error code that points into the interrupt table (SDM vol. 3, 6.13).
    const IDT: u64 = 2;
    let mut seen = *fault;
    if !matches!(fault.vector, UNDEFINED | PROTECTION) {
        return seen;
    }
    let mm = task.mm();
    let Ok([first, second]) = mm.read_obj::<[u8; 2]>(regs.rip) else { return seen };
    match (first, second) {
        // #BP and #OF may be raised.
        (0xcd, 3 | 4) => {}
        (0xcd, vector) => (seen.vector, seen.error) = (PROTECTION, u64::from(vector) << 3 | IDT),
        (0x0f, 0x01) if fault.vector == PROTECTION => {
            if let Ok(0xc8 | 0xc9) = mm.read_obj::<u8>(regs.rip.wrapping_add(2)) {
                (seen.vector, seen.error) = (UNDEFINED, 0);
            }
        }
        _ => {}
    }
    seen
}

/// The signal of an exception other than #PF, with Linux's si_code and si_addr; `None` for an FPU
/// exception of which nothing is left.
fn trap_signal(fault: &Fault, regs: &Registers, cpu: &mut dyn Cpu) -> Option<SigInfo> {
    const SI_KERNEL: i32 = 0x80;
    /// RFLAGS.TF.
    const STEPPING: u64 = 0x100;
    let at =
        |signal, code, addr| SigInfo { signal, code, errno: 0, fields: SigFields::Fault { addr } };
    Some(match fault.vector {
        0 => at(SIGFPE, 1, regs.rip), // #DE: FPE_INTDIV
        // TRAP_TRACE for a step, TRAP_BRKPT for INT1: nothing else raises #DB.
        DEBUG => at(SIGTRAP, if regs.rflags & STEPPING == 0 { 1 } else { 2 }, regs.rip),
        3 => SigInfo::kernel(SIGTRAP),        // #BP
        UNDEFINED => at(SIGILL, 2, regs.rip), // #UD: ILL_ILLOPN
        16 | 19 => {
            let area = cpu.fpu().unwrap_or_default();
            at(SIGFPE, fpe_code(fault.vector == 19, &area)?, regs.rip)
        }
        17 => at(SIGBUS, 1, 0),        // #AC: BUS_ADRALN
        12 => SigInfo::kernel(SIGBUS), // #SS
        // #OF, #BR, #TS, #NP, #GP and what else there may be.
        _ => at(SIGSEGV, SI_KERNEL, 0),
    })
}

/// si_code of #XM (`simd`) or #MF from the FXSAVE part of the FPU state: of the exceptions that are
/// set and not masked, the first in Linux's order (`fpu__exception_code()`).
fn fpe_code(simd: bool, area: &[u8]) -> Option<i32> {
    let word = |at: usize| {
        area.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
    };
    let raised = if simd {
        let mxcsr = word(24);
        mxcsr & !(mxcsr >> 7)
    } else {
        word(2) & !word(0)
    };
    // Invalid, divide by zero, overflow, underflow or denormal, inexact.
    [(0x01, 7), (0x04, 3), (0x08, 4), (0x12, 5), (0x20, 6)]
        .into_iter()
        .find_map(|(bit, code)| (raised & bit != 0).then_some(code))
}

#[cfg(test)]
mod tests {
    use super::fpe_code;

    #[test]
    fn the_unmasked_exception_is_told() {
        let mut area = [0; 512];
        area[24..26].copy_from_slice(&0x1f84_u16.to_ne_bytes());
        assert_eq!(fpe_code(true, &area), None);
        area[24..26].copy_from_slice(&0x1d84_u16.to_ne_bytes());
        assert_eq!(fpe_code(true, &area), Some(3));
        area[..2].copy_from_slice(&0x37e_u16.to_ne_bytes());
        area[2..4].copy_from_slice(&0x21_u16.to_ne_bytes());
        assert_eq!(fpe_code(false, &area), Some(7));
        assert_eq!(fpe_code(false, &[]), None);
    }
}
