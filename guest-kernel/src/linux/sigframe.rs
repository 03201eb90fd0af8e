//! Signal frames: `struct rt_sigframe` of x86-64, and its way back (rt_sigreturn(2)).

use std::sync::Arc;

use crate::{
    error::Errno,
    platform::{Cpu, Registers},
    signal::{SigInfo, SigSet, action::Action},
    task::Task,
};

/// Builds the frame of a handler on the stack it wants and points `regs` at `entry`; `mask` is what
/// the handler's return restores.
///
/// # Errors
/// EFAULT when the stack cannot hold it.
pub fn push(
    _task: &Arc<Task>,
    _regs: &mut Registers,
    _cpu: &mut dyn Cpu,
    _info: &SigInfo,
    _action: &Action,
    _entry: u64,
    _mask: SigSet,
) -> Result<(), Errno> {
    Err(Errno::EFAULT)
}
