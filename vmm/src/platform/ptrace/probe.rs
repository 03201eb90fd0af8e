//! Whether ptrace works here and what a stop costs, for `trapgate doctor` and backend choice.

use std::time::{Duration, Instant};

use trapgate_kernel::platform::{Cpu, Edit, Exit, Platform, PlatformError, Prot, Registers};

use super::{PtraceError, PtracePlatform};
use crate::memory::GuestRam;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// One system call of a guest: stop, look, resume.
    pub stop: Duration,
    /// Making a stub process and taking it up.
    pub process: Duration,
}

/// Runs a minimal guest for at most a tenth of a second or so.
///
/// # Errors
/// [`PtraceError`] saying what is refused.
pub fn probe() -> Result<Probe, PtraceError> {
    let ram = GuestRam::new(2 << 20)?;
    let platform = PtracePlatform::new(&ram)?;
    let out_of_memory = || PtraceError::Trace(PlatformError::OutOfMemory("the probe"));
    let frame = ram.frames.alloc().ok_or_else(out_of_memory)?;
    // syscall; jmp back to it
    frame.write(0, &[0x0f, 0x05, 0xeb, 0xfc]);
    let trace = PtraceError::Trace;
    let (va, prot) = (0x40_0000, Prot::READ | Prot::EXEC);
    let begun = Instant::now();
    let space = platform.new_space().map_err(trace)?;
    space.apply(&[Edit::Map { va, gpa: frame.gpa(), len: 4096, prot }]).map_err(trace)?;
    let mut cpu = platform.new_cpu(&space).map_err(trace)?;
    let mut regs = Registers { rip: va, rsp: va, ..Registers::default() };
    let mut stop = |cpu: &mut Box<dyn Cpu>| loop {
        match cpu.run(&mut regs).map_err(PtraceError::Trace)? {
            Exit::Syscall => return Ok(()),
            Exit::Interrupted => {}
            Exit::Fault(_) => return Err(PtraceError::Trace(PlatformError::Gone)),
        }
    };
    stop(&mut cpu)?;
    let process = begun.elapsed();
    let mut best = Duration::MAX;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(60) {
        let slice = Instant::now();
        for _ in 0..100 {
            stop(&mut cpu)?;
        }
        best = best.min(slice.elapsed() / 100);
    }
    Ok(Probe { stop: best, process })
}
