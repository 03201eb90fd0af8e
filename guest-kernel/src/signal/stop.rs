//! Stopping and continuing a whole process (job control, signal(7)).

use std::sync::Arc;

use super::{
    Signal,
    number::SIGKILL,
    send::{child, notify_parent},
    state::{GroupStop, SharedState, StateChange},
};
use crate::task::{Task, process::Process};

/// Begins a stop of the whole process; the other threads are to be notified.
pub(super) fn begin(shared: &mut SharedState, task: &Arc<Task>, signal: Signal) -> Vec<Arc<Task>> {
    if shared.stop.is_none() {
        shared.stop = Some(GroupStop { signal, complete: false });
    }
    let mut others = task.process.tasks();
    others.retain(|other| !Arc::ptr_eq(other, task));
    for other in &others {
        other.signals.set_attention(true);
    }
    others
}

/// Completes a stop that no thread holds up any more; the signal, if it is complete just now.
pub(super) fn complete(shared: &mut SharedState, process: &Process) -> Option<Signal> {
    let stop = shared.stop.as_mut().filter(|stop| !stop.complete)?;
    let tasks = process.tasks();
    if tasks.is_empty() || !tasks.iter().all(|task| task.signals.lock().stopped) {
        return None;
    }
    stop.complete = true;
    let signal = stop.signal;
    shared.change = Some(StateChange::Stopped(signal));
    Some(signal)
}

/// Parks `task`'s host thread until SIGCONT, SIGKILL or the process's end. The run loop calls this
/// when `deliver` answers `Stopped`, and then `deliver` again.
pub fn wait(task: &Arc<Task>) {
    let process = &task.process;
    let completed = {
        let mut shared = process.signals.lock();
        task.signals.lock().stopped = true;
        complete(&mut shared, process)
    };
    if let Some(signal) = completed {
        notify_parent(process, child::STOPPED, i32::from(signal));
    }
    loop {
        if process.is_exiting() {
            break;
        }
        {
            let shared = process.signals.lock();
            let killed = shared.pending.set() | task.signals.lock().pending.set();
            if shared.stop.is_none() || killed.has(SIGKILL) {
                break;
            }
        }
        task.parker.park(None);
    }
    task.signals.lock().stopped = false;
}

/// No member of `process`'s group has a parent outside it in the same session: nobody is there to
/// continue it, so terminal stop signals are ignored (setpgid(2), orphaned process groups).
#[must_use]
pub fn is_orphaned(process: &Process, task: &Task) -> bool {
    let (group, session) = (process.pgid(), process.sid());
    task.kernel.tasks.processes().iter().filter(|member| member.pgid() == group).all(|member| {
        member.parent().is_none_or(|parent| parent.pgid() == group || parent.sid() != session)
    })
}
