//! A task's life on its host thread: look at what is pending, run guest code, answer why it came
//! back, until the task ends.

use std::sync::{
    Arc, PoisonError,
    atomic::{Ordering, fence},
};

use super::{RunState, Task, dispatch, exit, status::ExitStatus, trap};
use crate::{
    error::Restart,
    kernel::Kernel,
    platform::{Cpu, Exit, PlatformError, Registers},
    signal::{self, Delivered, number::*},
};

/// What a new task's CPU starts with.
pub struct Start {
    /// Integer registers.
    pub regs: Registers,
    /// FPU state; `None` is the initial state.
    pub fpu: Option<Vec<u8>>,
    /// Where the new thread stores its id as its first act (CLONE_CHILD_SETTID); 0 for nowhere.
    pub set_tid: u64,
}

/// Whether the task goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Goes,
    Ends,
}

/// Starts `task`, which is in the table, on a host thread of its own.
///
/// # Errors
/// The host's refusal; the task has then been taken out of the table again by the caller.
pub(super) fn launch(task: &Arc<Task>, start: Start) -> std::io::Result<()> {
    let kernel = task.kernel.clone();
    kernel.tasks.thread_started();
    if let Some(time) = &kernel.virtual_time {
        time.begin();
    }
    let ended = |kernel: &Kernel| {
        if let Some(time) = &kernel.virtual_time {
            time.end();
        }
        kernel.tasks.thread_ended();
    };
    let body = {
        let (task, kernel) = (task.clone(), kernel.clone());
        Box::new(move || {
            kernel.guard("task", || run(&task, start));
            exit::finish(&task);
            drop(task);
            ended(&kernel);
        })
    };
    let result = kernel.host.spawn(&format!("task-{}", task.tid), body);
    if result.is_err() {
        ended(&kernel);
    }
    result
}

/// Runs the task until it ends; [`exit::finish`] does the rest.
fn run(task: &Arc<Task>, start: Start) {
    task.begin_usage();
    let mut cpu = match boot_cpu(task, &start) {
        Ok(cpu) => cpu,
        Err(error) => return platform_failed(task, &error),
    };
    let mut regs = start.regs;
    task.kernel.stats.first_entry.get_or_init(|| task.kernel.stopwatch());
    loop {
        while task.must_exit() || task.signals.busy() {
            if let Delivered::Exit { .. } = deliver(task, &mut regs, &mut *cpu, None) {
                return leave(task);
            }
        }
        // Announced before the last look: whoever makes work after it sees that a kick is needed.
        task.in_guest.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result =
            if task.has_work() { Ok(Exit::Interrupted) } else { enter(task, &mut *cpu, &mut regs) };
        task.in_guest.store(false, Ordering::Relaxed);
        let life = match result {
            Ok(Exit::Syscall) => dispatch::syscall(task, &mut regs, &mut *cpu),
            Ok(Exit::Fault(fault)) => {
                trap::taken(task, &fault, &regs, &mut *cpu);
                Life::Goes
            }
            Ok(Exit::Interrupted) => {
                // Whoever interrupts may want to know (CPU timers).
                task.update_usage();
                Life::Goes
            }
            Err(error) => {
                platform_failed(task, &error);
                Life::Ends
            }
        };
        if life == Life::Ends {
            return leave(task);
        }
    }
}

/// Runs guest code and accounts for its time where the host does not.
fn enter(task: &Task, cpu: &mut dyn Cpu, regs: &mut Registers) -> Result<Exit, PlatformError> {
    let kernel = &task.kernel;
    // In virtual time the calls are all that is billed.
    if kernel.platform.bills_caller() || kernel.virtual_time.is_some() {
        return cpu.run(regs).inspect(|exit| kernel.stats.count_exit(*exit));
    }
    let entered = kernel.now();
    let result = cpu.run(regs);
    let spent = kernel.now().saturating_sub(entered);
    let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
    task.billed_elsewhere.fetch_add(nanos, Ordering::Relaxed);
    result.inspect(|exit| kernel.stats.count_exit(*exit))
}

/// Publishes the thread's CPU time while it is still its own, and drops the way to its CPU.
fn leave(task: &Task) {
    drop(task.begun.take());
    task.update_usage();
    *task.kicker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    *task.answers.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn boot_cpu(task: &Arc<Task>, start: &Start) -> Result<Box<dyn Cpu>, PlatformError> {
    let mm = task.mm();
    let mut cpu = task.kernel.platform.new_cpu(mm.space())?;
    *task.kicker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cpu.kicker());
    task.attach(&mut *cpu);
    task.publish();
    if let Some(fpu) = &start.fpu {
        cpu.set_fpu(fpu)?;
    }
    if start.set_tid != 0 {
        // A bad address is the program's own business, as in Linux (schedule_tail).
        let _ = mm.write_obj(start.set_tid, &task.tid);
    }
    Ok(cpu)
}

/// A host failure ends the process that it hit, as an unhandled SIGKILL would; other processes go
/// on. An address space that vanished was killed from outside: nothing to report.
fn platform_failed(task: &Task, error: &PlatformError) {
    if !matches!(error, PlatformError::Gone) && !task.must_exit() {
        task.kernel.note_failure(&format!("process {}: {error}", task.process.pid));
    }
    task.process.begin_exit(ExitStatus::Signaled { signal: SIGKILL, core: false });
}

/// Handles what is pending: the end, stops, signals. `interrupted` is the rule and number of a call
/// whose wait this ends.
pub(super) fn deliver(
    task: &Arc<Task>,
    regs: &mut Registers,
    cpu: &mut dyn Cpu,
    interrupted: Option<(Restart, u64)>,
) -> Delivered {
    regs.rip = task.mm().original_rip(regs.rip);
    loop {
        if task.must_exit() {
            return Delivered::Exit { signal: SIGKILL, core: false };
        }
        match signal::deliver(task, regs, cpu, interrupted) {
            Delivered::Stopped => {
                task.set_run_state(RunState::Stopped);
                task.update_usage();
                cpu.idle(&|| true);
                signal::stop::wait(task);
                cpu.resume();
                task.set_run_state(RunState::Running);
            }
            Delivered::Exit { signal, .. } => {
                // No core is ever written, so no status says that one was.
                task.process.begin_exit(ExitStatus::Signaled { signal, core: false });
                return Delivered::Exit { signal, core: false };
            }
            other => return other,
        }
    }
}

impl Kernel {
    /// Runs `body`; a panic in it is our bug and ends the VM with a report.
    pub(crate) fn guard(self: &Arc<Kernel>, what: &str, body: impl FnOnce()) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if let Err(panic) = result {
            self.fatal(&format!("panic in {what}: {}", panic_text(&*panic)));
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
