//! System calls: look the row up, try the handler, wait and retry, decide what an interruption
//! becomes.
//!
//! A wait, in order: register on every queue; try the handler once more (what changed before the
//! registration is seen by this try, what changes after it wakes the parker); sleep until woken, the
//! deadline or pending work; repeat. Registrations are always undone.
//!
//! When a signal ends a wait, the handler is tried once more with [`Call::interrupted`] set, so that
//! it may return partial progress or store what is left of a sleep. If it still wants to wait,
//! progress in [`Call::done`] is the result; else the signal is delivered, and its handler's frame
//! settles EINTR or a restart by [`Restart`]. If no handler runs, the wait goes on with the same
//! [`Call`]: deadline and progress are kept.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use super::{
    RunState, Task,
    run::{self, Life, panic_text},
};
use crate::{
    call::{Call, Cx},
    error::{Errno, Restart, Stop, SysResult, Wait},
    linux::table::Row,
    num::Word,
    platform::{Cpu, Registers},
    signal::{self, Delivered, number::SIGKILL},
    wait::{WaitQueue, Wake},
};

/// How a call ended.
enum Outcome {
    /// RAX.
    Value(u64),
    /// The registers were replaced as a whole.
    Replaced,
    /// The registers enter a signal handler; its frame knows what becomes of the call.
    Handler,
    /// The task ends.
    Exit,
}

/// Answers the system call that `regs` ask for.
pub(super) fn syscall(task: &Arc<Task>, regs: &mut Registers, cpu: &mut dyn Cpu) -> Life {
    let kernel = &task.kernel;
    let started = kernel.stopwatch();
    // A ring server may have begun it: then its deadline and progress lie in its own record.
    let begun = task.begun.take().filter(|call| call.number == u64::from(regs.rax.low_u32()));
    let mut call = begun.unwrap_or_else(|| {
        let call = Call::new(regs);
        task.step();
        call
    });
    let row = kernel.table.get(call.number);
    let after = regs.rip;
    let mut waited = Duration::ZERO;
    let outcome = match row {
        None => Outcome::Value(errno_word(Errno::ENOSYS)),
        Some(row) => {
            let mut attempt =
                Attempt { task, row, call: &mut call, regs: &mut *regs, cpu: &mut *cpu };
            match attempt.once() {
                Err(Stop::Wait(wait)) => attempt.wait(wait, &mut waited),
                result => settle(result),
            }
        }
    };
    let value = match outcome {
        Outcome::Value(value) => Some(value),
        Outcome::Replaced => Some(regs.rax),
        Outcome::Handler | Outcome::Exit => None,
    };
    record(task, &call, value, kernel.stopwatch().saturating_sub(started).saturating_sub(waited));
    if matches!(outcome, Outcome::Value(_)) {
        let movable = kernel.table.in_ring(call.number, &call.args);
        let known = kernel.table.has_known_answer(call.number);
        task.mm().note_call(after, call.number, known, movable);
    }
    match outcome {
        Outcome::Value(value) => regs.rax = value,
        Outcome::Replaced | Outcome::Handler => {}
        Outcome::Exit => return Life::Ends,
    }
    Life::Goes
}

/// Counts and shows a call that ended with `value` in RAX, `spent` of it in its handler.
pub(super) fn record(task: &Arc<Task>, call: &Call, value: Option<u64>, spent: Duration) {
    task.kernel.stats.count(call.number, value.is_some_and(is_error), spent);
    if let Some(tracer) = task.kernel.tracer.get() {
        tracer.call(task, call, value);
    }
}

/// Tries the handler of `cx`'s call once. A panic in it ends the VM with a report.
pub(super) fn attempt(row: &Row, cx: &mut Cx<'_>) -> SysResult {
    let (task, words) = (cx.task, cx.call.args);
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| (row.handler)(cx, &words)));
    cx.call.tries = cx.call.tries.saturating_add(1);
    result.unwrap_or_else(|panic| {
        let (text, name) = (panic_text(&*panic), row.name);
        task.kernel.fatal(&format!("panic in {name}{words:x?} of task {}: {text}", task.tid));
        Err(Stop::Exit)
    })
}

/// -errno as RAX holds it.
#[must_use]
pub fn errno_word(errno: Errno) -> u64 {
    (-i64::from(errno.raw())).cast_unsigned()
}
/// RAX holds an errno (the highest 4095 values).
#[must_use]
pub fn is_error(value: u64) -> bool {
    value > u64::MAX - 4095
}

fn settle(result: SysResult) -> Outcome {
    match result {
        Ok(value) => Outcome::Value(value),
        Err(Stop::Errno(errno)) => Outcome::Value(errno_word(errno)),
        Err(Stop::Replaced) => Outcome::Replaced,
        Err(Stop::Exit | Stop::Wait(_)) => Outcome::Exit,
    }
}

/// One call being tried.
struct Attempt<'a> {
    task: &'a Arc<Task>,
    row: &'static Row,
    call: &'a mut Call,
    regs: &'a mut Registers,
    cpu: &'a mut dyn Cpu,
}

impl Attempt<'_> {
    fn once(&mut self) -> SysResult {
        let (call, regs, cpu) = (&mut *self.call, &mut *self.regs, &mut *self.cpu);
        attempt(self.row, &mut Cx { task: self.task, call, regs, cpu })
    }

    /// Waits as asked and retries until the handler has an answer or the wait is interrupted.
    fn wait(&mut self, first: Wait, waited: &mut Duration) -> Outcome {
        let task = self.task;
        let parker = &task.parker;
        let waker: Arc<dyn Wake> = parker.clone();
        let mut registered = Registered::new(&waker, &first);
        drop(first);
        loop {
            // Order matters: forget old wake-ups, then look at everything a wake-up may announce.
            parker.clear();
            let wait;
            match self.once() {
                Err(Stop::Wait(again)) => {
                    let same = same_queues(&registered.queues, &again.queues);
                    wait = again;
                    if !same {
                        // What changed between the try and this registration is seen by the next.
                        registered = Registered::new(&waker, &wait);
                        continue;
                    }
                }
                result => return settle(result),
            }
            match self.interruption(wait.restart) {
                Interruption::None => {}
                Interruption::Over => continue,
                Interruption::Ends(outcome) => return outcome,
            }
            let now = task.kernel.now();
            let timeout = wait.deadline.map(|at| at.saturating_sub(now));
            let killable = wait.restart == Restart::Killable;
            task.set_run_state(if killable {
                RunState::Uninterruptible
            } else {
                RunState::Sleeping
            });
            task.count_usage(|u| u.voluntary = u.voluntary.wrapping_add(1));
            task.update_usage();
            let asleep = task.kernel.stopwatch();
            self.cpu.idle(&|| parker.is_woken());
            let idled = task.kernel.now().saturating_sub(now);
            parker.park(timeout.map(|t| t.saturating_sub(idled)));
            self.cpu.resume();
            task.set_run_state(RunState::Running);
            *waited += task.kernel.stopwatch().saturating_sub(asleep);
        }
    }

    /// Handles what is pending during a wait.
    fn interruption(&mut self, rule: Restart) -> Interruption {
        use Interruption::{Ends, None, Over};
        let task = self.task;
        if task.must_exit() {
            return Ends(Outcome::Exit);
        }
        if !signal::pending(task) || (rule == Restart::Killable && !killed(task)) {
            return None;
        }
        if rule != Restart::Killable {
            self.call.interrupted = true;
            match self.once() {
                Err(Stop::Wait(_)) if self.call.done > 0 => {
                    return Ends(Outcome::Value(self.call.done as u64));
                }
                Err(Stop::Wait(_)) => self.call.interrupted = false,
                result => return Ends(settle(result)),
            }
        }
        match run::deliver(task, self.regs, self.cpu, Some((rule, self.call.number))) {
            Delivered::Handler => Ends(Outcome::Handler),
            Delivered::Exit { .. } => Ends(Outcome::Exit),
            Delivered::Nothing if rule == Restart::Never => Ends(Outcome::Replaced),
            Delivered::Nothing | Delivered::Stopped => Over,
        }
    }
}

/// What was pending during a wait came to.
enum Interruption {
    /// There was nothing.
    None,
    /// It is dealt with. The handler was told and may have given up what a wake-up would find (a futex's
    /// waiter), so it has to be tried again before the task sleeps.
    Over,
    /// The call ends.
    Ends(Outcome),
}

/// SIGKILL is queued.
fn killed(task: &Task) -> bool {
    let shared = task.process.signals.lock().pending.set();
    (shared | task.signals.lock().pending.set()).has(SIGKILL)
}

fn same_queues(one: &[Arc<WaitQueue>], other: &[Arc<WaitQueue>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// A parker's registrations, undone when dropped.
struct Registered<'a> {
    waker: &'a Arc<dyn Wake>,
    queues: Vec<Arc<WaitQueue>>,
}

impl<'a> Registered<'a> {
    fn new(waker: &'a Arc<dyn Wake>, wait: &Wait) -> Registered<'a> {
        for queue in &wait.queues {
            queue.add(waker);
        }
        Registered { waker, queues: wait.queues.clone() }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.remove(self.waker);
        }
    }
}
