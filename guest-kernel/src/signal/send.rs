//! Sending: from a program, a timer, a terminal or a fault to a queue and the thread that takes it.

use std::sync::Arc;

use super::{
    SigFields, SigInfo, Signal,
    action::{Action, ActionFlags, Handler},
    number::{SIGCHLD, SIGCONT, SIGKILL},
    queue::{Entry, Queue, SIGRTMIN, Source},
    set::SigSet,
    state::{LastFault, SharedState, StateChange},
};
use crate::{
    creds::{Creds, cap},
    error::Errno,
    kernel::Kernel,
    platform::Fault,
    task::{
        Task,
        process::{Process, rlimit},
    },
};

impl Task {
    /// Sends a thread-directed signal.
    pub fn send(self: &Arc<Self>, info: SigInfo) {
        // A queue that is full loses the signal, as it does for kill(2).
        let _ = self.queue_signal(info, None);
    }
    /// Queues a thread-directed signal; `source` hears when it is taken. False if it is
    /// ignored or already pending.
    ///
    /// # Errors
    /// EAGAIN when a real-time signal would exceed RLIMIT_SIGPENDING.
    pub fn queue_signal(
        self: &Arc<Self>,
        info: SigInfo,
        source: Option<Arc<dyn Source>>,
    ) -> Result<bool, Errno> {
        post(&self.process, Some(self), info, source)
    }
}

impl Process {
    /// Sends a process-directed signal; any thread that does not block it may take it.
    pub fn send(self: &Arc<Self>, info: SigInfo) {
        // A queue that is full loses the signal, as it does for kill(2).
        let _ = self.queue_signal(info, None);
    }
    /// Queues a process-directed signal; `source` hears when it is taken. False if it is
    /// ignored or already pending.
    ///
    /// # Errors
    /// EAGAIN when a real-time signal would exceed RLIMIT_SIGPENDING.
    pub fn queue_signal(
        self: &Arc<Self>,
        info: SigInfo,
        source: Option<Arc<dyn Source>>,
    ) -> Result<bool, Errno> {
        post(self, None, info, source)
    }
}

/// Sends `info` to every process of group `pgid`; the number of processes. For terminals, which ask
/// nobody's permission.
pub fn send_group(kernel: &Kernel, pgid: i32, info: SigInfo) -> usize {
    let members: Vec<_> =
        kernel.tasks.processes().into_iter().filter(|p| p.pgid() == pgid).collect();
    for process in &members {
        process.send(info);
    }
    members.len()
}

/// `sender` may signal a process whose credentials are `target` (kill(2)); `same_session` allows
/// SIGCONT.
#[must_use]
pub fn may_signal(sender: &Creds, target: &Creds, signal: Signal, same_session: bool) -> bool {
    let uids = [target.suid, target.uid];
    uids.contains(&sender.euid)
        || uids.contains(&sender.uid)
        || sender.capable(cap::KILL)
        || (signal == SIGCONT && same_session)
}

/// What one queueing has to wake once the locks are gone.
#[derive(Default)]
struct Wakes {
    tasks: Vec<Arc<Task>>,
    parent: Option<(i32, i32)>,
}

fn post(
    process: &Arc<Process>,
    target: Option<&Arc<Task>>,
    info: SigInfo,
    source: Option<Arc<dyn Source>>,
) -> Result<bool, Errno> {
    if process.is_exiting() {
        return Ok(false);
    }
    let tasks = process.tasks();
    let Some(main) = target.or(tasks.first()).cloned() else { return Ok(false) };
    let mut wakes = Wakes::default();
    let result = {
        let mut shared = process.signals.lock();
        prepare(&mut shared, &tasks, info.signal, &mut wakes);
        enqueue(&mut shared, process, &main, target.is_some(), info, source).inspect(|queued| {
            if *queued {
                choose(&main, &tasks, target.is_some(), info.signal, &mut wakes);
            }
        })
    };
    for task in &wakes.tasks {
        task.notify();
    }
    process.signals.arrivals.wake();
    if let Some((code, status)) = wakes.parent {
        notify_parent(process, code, status);
    }
    result
}

/// What sending does before anything is queued: stop signals and SIGCONT cancel each other, and
/// SIGCONT continues a stopped process even if it is blocked or ignored.
fn prepare(shared: &mut SharedState, tasks: &[Arc<Task>], signal: Signal, wakes: &mut Wakes) {
    let cancelled = if SigSet::STOP.has(signal) {
        SigSet::one(SIGCONT)
    } else if signal == SIGCONT {
        SigSet::STOP
    } else {
        return;
    };
    shared.pending.flush(cancelled);
    for task in tasks {
        task.signals.lock().pending.flush(cancelled);
    }
    if signal != SIGCONT {
        return;
    }
    if let Some(stop) = shared.stop.take() {
        shared.change = Some(StateChange::Continued);
        wakes.tasks.extend(tasks.iter().cloned());
        wakes.parent = Some(if stop.complete {
            (child::CONTINUED, i32::from(SIGCONT))
        } else {
            (child::STOPPED, i32::from(stop.signal))
        });
    }
}

/// Puts the signal in its queue; false if it is ignored or already there.
fn enqueue(
    shared: &mut SharedState,
    process: &Arc<Process>,
    main: &Arc<Task>,
    private: bool,
    info: SigInfo,
    source: Option<Arc<dyn Source>>,
) -> Result<bool, Errno> {
    let signal = info.signal;
    let mut own = main.signals.lock();
    // A blocked signal is kept even if ignored now: its action may change before it is unblocked.
    if !own.mask.has(signal) && process.signals.actions().get(signal).ignores(signal) {
        return Ok(false);
    }
    let queue: &mut Queue = if private { &mut own.pending } else { &mut shared.pending };
    if signal < SIGRTMIN && queue.set().has(signal) {
        return Ok(false);
    }
    // The kernel's own standard signals are never refused their record (override_rlimit).
    let exempt = signal < SIGRTMIN && info.code >= 0;
    let limit = if exempt { u64::MAX } else { process.limit(rlimit::SIGPENDING) };
    let charge = main.kernel.queued_signals.take(main.creds().uid, limit);
    if charge.is_some() || source.is_some() {
        queue.push(Entry { info, source, charge });
    } else if signal >= SIGRTMIN && info.code != 0 {
        return Err(Errno::EAGAIN);
    } else {
        queue.mark(signal);
    }
    Ok(true)
}

/// Drops what is pending of `set` in every queue of `process`.
pub fn discard(process: &Process, set: SigSet) {
    let tasks = process.tasks();
    let mut shared = process.signals.lock();
    shared.pending.flush(set);
    for task in tasks {
        task.signals.lock().pending.flush(set);
    }
}

/// Picks the thread that is to take a queued signal.
fn choose(main: &Arc<Task>, tasks: &[Arc<Task>], private: bool, signal: Signal, wakes: &mut Wakes) {
    let wants = |task: &Arc<Task>| !task.signals.lock().mask.has(signal);
    if signal == SIGKILL || private {
        if signal == SIGKILL || wants(main) {
            main.signals.set_attention(true);
            wakes.tasks.push(main.clone());
        }
        return;
    }
    // One that has nothing else to look at; the others will find the signal by themselves.
    let idle = |task: &&Arc<Task>| !task.signals.attention() && wants(task);
    if let Some(task) = std::iter::once(main).chain(tasks).find(idle) {
        task.signals.set_attention(true);
        wakes.tasks.push(task.clone());
    }
}

/// Recomputes whether `task` has anything to look at; call with its process's lock held.
pub(super) fn refresh(shared: &SharedState, task: &Task) {
    let own = task.signals.lock();
    let deliverable = (own.pending.set() | shared.pending.set()) - own.mask;
    let on = !deliverable.is_empty() || shared.stop.is_some() || task.process.is_exiting();
    task.signals.set_attention(on);
}

/// Hands shared signals in `set` to another thread, because `task` no longer takes them.
pub(super) fn retarget(shared: &SharedState, task: &Arc<Task>, set: SigSet) -> Vec<Arc<Task>> {
    let mut left = shared.pending.set() & set;
    let mut wake = Vec::new();
    if left.is_empty() {
        return wake;
    }
    for other in task.process.tasks() {
        if Arc::ptr_eq(&other, task) {
            continue;
        }
        let takes = left - other.signals.lock().mask;
        if !takes.is_empty() {
            left = left - takes;
            if !other.signals.set_attention(true) {
                wake.push(other);
            }
        }
    }
    wake
}

/// si_code values of SIGCHLD (sigaction(2)).
#[expect(missing_docs, reason = "sigaction(2) names them")]
pub mod child {
    pub const EXITED: i32 = 1;
    pub const KILLED: i32 = 2;
    pub const DUMPED: i32 = 3;
    pub const TRAPPED: i32 = 4;
    pub const STOPPED: i32 = 5;
    pub const CONTINUED: i32 = 6;
}

/// The SIGCHLD that tells `process`'s parent of a change: `code` of [`child`], `status` the exit
/// code or signal.
#[must_use]
pub fn child_info(process: &Process, code: i32, status: i32) -> SigInfo {
    let uid = process.tasks().first().map_or(0, |task| task.creds().uid);
    let (user, system) = process.cpu_time();
    // clock_t: hundredths of a second.
    let ticks = |t: std::time::Duration| u64::try_from(t.as_millis() / 10).unwrap_or(u64::MAX);
    let fields = SigFields::Child {
        pid: process.pid,
        uid,
        status,
        utime: ticks(user),
        stime: ticks(system),
    };
    SigInfo { signal: SIGCHLD, code, errno: 0, fields }
}

/// Tells the parent that `process` stopped or continued, unless it set SA_NOCLDSTOP or ignores it.
pub(super) fn notify_parent(process: &Arc<Process>, code: i32, status: i32) {
    let Some(parent) = process.parent() else { return };
    let action = parent.signals.actions().get(SIGCHLD);
    let quiet = action.handler == Handler::Ignore || action.flags.contains(ActionFlags::NOCLDSTOP);
    if !quiet {
        parent.send(child_info(process, code, status));
    }
    parent.child_events.wake();
}

/// Sends a signal that `task` must not escape (a fault): blocked or ignored, it becomes fatal.
pub fn force(task: &Arc<Task>, info: SigInfo) {
    let signal = info.signal;
    let actions = task.process.signals.actions();
    let shared = task.process.signals.lock();
    let mut own = task.signals.lock();
    let blocked = own.mask.has(signal);
    if blocked || actions.get(signal).handler == Handler::Ignore {
        actions.set(signal, Action::default());
        own.mask.remove(signal);
    }
    if !own.pending.set().has(signal) || info.code > 0 {
        own.pending.push(Entry { info, source: None, charge: None });
    }
    drop(own);
    refresh(&shared, task);
}

/// Sends the signal of a hardware exception and records what frames tell of it.
pub fn force_fault(task: &Arc<Task>, fault: &Fault, info: SigInfo) {
    let record = LastFault { vector: fault.vector, error: fault.error, addr: fault.addr };
    task.signals.lock().fault = record;
    force(task, info);
}

/// Ends `task`'s part in its process's signals: what it would have taken goes to another thread, and
/// a stop it held up completes. Called once it is no longer among [`Process::tasks`].
pub fn task_gone(task: &Arc<Task>) {
    let (wake, stopped) = {
        let mut shared = task.process.signals.lock();
        let mask = task.signals.lock().mask;
        let wake = retarget(&shared, task, !mask);
        (wake, super::stop::complete(&mut shared, &task.process))
    };
    for other in wake {
        other.notify();
    }
    if let Some(signal) = stopped {
        notify_parent(&task.process, child::STOPPED, i32::from(signal));
    }
}
