//! A task's system calls that come through its ring: tried here on a server's thread, which must not
//! wait. What would have to wait, or needs the registers, goes to the task's own thread.
//!
//! The platform sees to it that the task's own thread does nothing for it meanwhile.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use super::{
    Task,
    dispatch::{attempt, errno_word, record},
};
use crate::{
    call::{Call, Cx},
    error::Stop,
    num::Word,
    platform::{AddressSpace, Cpu, Exit, Kick, PlatformError, Registers, Serve, Served},
};

/// A call that a server began and could not finish.
#[derive(Default)]
pub struct Begun(Mutex<Option<Box<Call>>>);

impl Begun {
    fn put(&self, call: Call) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(call));
    }
    /// The call, to be gone on with.
    pub(super) fn take(&self) -> Option<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|call| *call)
    }
}

/// Answers `task`'s ring.
pub(super) struct Server(pub(super) Arc<Task>);

impl Serve for Server {
    fn serve(&self, rax: u64, args: [u64; 6], caller: Option<u64>) -> Served {
        let task = &self.0;
        let number = u64::from(rax.low_u32());
        let kernel = &task.kernel;
        let row = match kernel.table.get(number) {
            Some(row) if kernel.table.in_ring(number, &args) && !task.has_work() => row,
            _ => return Served::Punt,
        };
        let timing = kernel.stats.timing(number).map(|weight| (weight, kernel.now()));
        let mut call = Call::with(number, args);
        let (regs, cpu) = (&mut Registers::default(), &mut NoCpu);
        let value = match attempt(row, &mut Cx { task, call: &mut call, regs, cpu }) {
            Ok(value) => value,
            Err(Stop::Errno(errno)) => errno_word(errno),
            Err(Stop::Wait(_) | Stop::Replaced) => {
                task.begun.put(call);
                return Served::Punt;
            }
            // A handler panicked: the VM is ending.
            Err(Stop::Exit) => return Served::Leave(0),
        };
        let spent = timing.map(|(weight, from)| kernel.now().saturating_sub(from) * weight);
        record(task, &call, Some(value), spent.unwrap_or_default());
        match caller {
            Some(after) => {
                task.mm().note_call(after, number, kernel.table.has_known_answer(number), true);
            }
            None => {
                kernel.stats.jumped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if task.has_work() { Served::Leave(value) } else { Served::Value(value) }
    }
}

/// Stands where a call's CPU would; calls that touch it are never served in a ring.
struct NoCpu;

impl NoCpu {
    const ERROR: PlatformError = PlatformError::Gone;
}

impl Cpu for NoCpu {
    fn run(&mut self, _: &mut Registers) -> Result<Exit, PlatformError> {
        Err(Self::ERROR)
    }
    fn switch(&mut self, _: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        Err(Self::ERROR)
    }
    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError> {
        Err(Self::ERROR)
    }
    fn set_fpu(&mut self, _: &[u8]) -> Result<(), PlatformError> {
        Err(Self::ERROR)
    }
    fn reset_fpu(&mut self) -> Result<(), PlatformError> {
        Err(Self::ERROR)
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::new(NoKick)
    }
}

struct NoKick;

impl Kick for NoKick {
    fn kick(&self) {}
}
