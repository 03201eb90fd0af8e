//! A task's system calls that come through its ring: tried here on a server's thread, which must not
//! wait. What would have to wait, or needs the registers, goes to the task's own thread.
//!
//! The platform sees to it that the task's own thread does nothing for it meanwhile.

use std::{
    cell::Cell,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use super::{
    Task, Tid,
    dispatch::{attempt, errno_word, record},
    status::ExitStatus,
};
use crate::{
    call::{Call, Cx},
    error::Stop,
    num::Word,
    platform::{AddressSpace, Cpu, Exit, Kick, PlatformError, Registers, SavedFpu, Serve, Served},
    signal::{self, Delivered},
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
            Some(_) if kernel.table.in_ring_whole(number) && !task.has_work() => {
                return Served::Save;
            }
            _ => return Served::Punt,
        };
        let timing = kernel.stats.timing(number).map(|weight| (weight, kernel.stopwatch()));
        task.step();
        let mut call = Call::with(number, args);
        let (regs, cpu) = (&mut Registers::default(), &mut NoCpu(None));
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
        let spent = timing.map(|(weight, from)| kernel.stopwatch().saturating_sub(from) * weight);
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
    fn serve_whole(&self, regs: &mut Registers, fpu: &mut dyn SavedFpu) -> Served {
        let cpu = &mut NoCpu(Some(fpu));
        let task = &self.0;
        let kernel = &task.kernel;
        let mut call = Call::new(regs);
        let row = match kernel.table.get(call.number) {
            Some(row) if kernel.table.in_ring_whole(call.number) && !task.has_work() => row,
            _ => return Served::Punt,
        };
        let _here = Serving::begin(task);
        let from = kernel.stopwatch();
        task.step();
        let result = attempt(row, &mut Cx { task, call: &mut call, regs, cpu });
        let replaced = matches!(result, Err(Stop::Replaced));
        match result {
            Ok(value) => regs.rax = value,
            Err(Stop::Errno(errno)) => regs.rax = errno_word(errno),
            Err(Stop::Replaced) => {}
            Err(Stop::Wait(_)) => {
                task.begun.put(call);
                return Served::Punt;
            }
            Err(Stop::Exit) => return Served::Leave(0),
        }
        record(task, &call, Some(regs.rax), kernel.stopwatch().saturating_sub(from));
        let value = regs.rax;
        let handler = task.signals.busy()
            && !task.must_exit()
            && signal::only_handlers(task)
            && match signal::deliver(task, regs, cpu, None) {
                Delivered::Handler => true,
                Delivered::Exit { signal, .. } => {
                    // There was no room for the frame.
                    let status = ExitStatus::Signaled { signal, core: false };
                    task.process.begin_exit(status);
                    false
                }
                Delivered::Nothing | Delivered::Stopped => false,
            };
        match (replaced || handler, task.has_work()) {
            (true, more) => {
                // What else is pending wants the CPU back.
                if more && let Some(kicker) = task.kicker() {
                    kicker.kick();
                }
                Served::Load
            }
            (false, true) => Served::Leave(value),
            (false, false) => Served::Value(value),
        }
    }
}

thread_local! {
    /// The task for which this thread answers a call; 0: none.
    static SERVED: Cell<Tid> = const { Cell::new(0) };
}

/// While it lives, this thread answers a call of a task whose CPU waits for that.
struct Serving;

impl Serving {
    fn begin(task: &Task) -> Serving {
        SERVED.set(task.tid);
        Serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVED.set(0);
    }
}

/// This thread answers a call of `task`, and will see by itself what has come to be pending.
pub(super) fn is_serving(task: &Task) -> bool {
    SERVED.get() == task.tid
}

/// Stands where a call's CPU would, with its FPU state if that was saved; calls that need more of a CPU are
/// never served in a ring.
struct NoCpu<'a>(Option<&'a mut dyn SavedFpu>);

impl NoCpu<'_> {
    const ERROR: PlatformError = PlatformError::Gone;
    fn saved(&mut self) -> Result<&mut (dyn SavedFpu + '_), PlatformError> {
        match &mut self.0 {
            Some(fpu) => Ok(&mut **fpu),
            None => Err(Self::ERROR),
        }
    }
}

impl Cpu for NoCpu<'_> {
    fn run(&mut self, _: &mut Registers) -> Result<Exit, PlatformError> {
        Err(Self::ERROR)
    }
    fn switch(&mut self, _: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        Err(Self::ERROR)
    }
    fn fpu(&mut self) -> Result<Vec<u8>, PlatformError> {
        self.saved()?.get()
    }
    fn set_fpu(&mut self, area: &[u8]) -> Result<(), PlatformError> {
        self.saved()?.set(area)
    }
    fn reset_fpu(&mut self) -> Result<(), PlatformError> {
        self.saved()?.reset();
        Ok(())
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::new(NoKick)
    }
}

struct NoKick;

impl Kick for NoKick {
    fn kick(&self) {}
}
