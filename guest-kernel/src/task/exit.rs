//! The end of threads and processes, and what the family is told (exit(2), wait(2), setpgid(2)).
//!
//! A thread gives up its memory, files and table entry; the last one makes its process a zombie,
//! hands its children on and tells the parent. That all happens under the tree's lock, so that a
//! parent sees the zombie and the SIGCHLD at once or neither.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{
    RunState, Task, Tid,
    process::Process,
    status::ExitStatus,
    table::{INIT, SUPERVISOR, TaskTable, Terminal, Tree},
};
use crate::{
    fs::fdtable::FdTable,
    signal::{self, SigFields, SigInfo, action::Handler, number::*, send::child},
};

/// si_code and si_status of a child that ended so.
#[must_use]
pub fn child_code(status: ExitStatus) -> (i32, i32) {
    match status {
        ExitStatus::Exited(code) => (child::EXITED, i32::from(code)),
        ExitStatus::Signaled { signal, core: false } => (child::KILLED, i32::from(signal)),
        ExitStatus::Signaled { signal, core: true } => (child::DUMPED, i32::from(signal)),
    }
}

/// What is left to do once the tree's lock is released.
#[derive(Default)]
struct Aftermath {
    /// Process groups to hang up and continue.
    orphaned: Vec<Tid>,
    /// A terminal that lost its session, and its foreground group.
    terminal: Option<Arc<dyn Terminal>>,
    /// Signals whose sending needs the tree.
    signals: Vec<(Arc<Process>, SigInfo)>,
    wake: Vec<Arc<Process>>,
}

/// Ends `task`, on its own host thread and with its CPU gone.
pub(super) fn finish(task: &Arc<Task>) {
    release(task);
    let kernel = &task.kernel;
    if let Some(tracer) = kernel.tracer.get() {
        let status = own_status(task);
        tracer.exit(task, &describe(status));
    }
    let mut after = Aftermath::default();
    let left = {
        let mut tree = kernel.tasks.tree();
        tree.tasks.remove(&task.tid);
        let process = &task.process;
        {
            let mut state = process.state();
            state.dead_threads.add(&task.usage());
            state.last = Some((task.creds(), task.name()));
        }
        task.set_run_state(RunState::Ended);
        let left = process.drop_thread(task);
        if let Some(node) = tree.nodes.get_mut(&process.pid)
            && task.is_leader()
        {
            node.leader_status = Some(own_status(task));
        }
        if left == 0 {
            process_ended(&mut tree, task, &mut after);
        }
        kernel.tasks.announce();
        left
    };
    if left == 0 {
        task.process.timers.clear();
        task.process.exit_events.wake();
    }
    task.process.thread_events.wake();
    // Shared signals it would have taken, a stop that only it held up.
    signal::task_gone(task);
    let kernel = kernel.clone();
    for process in after.wake {
        process.child_events.wake();
    }
    for (process, info) in after.signals {
        process.send(info);
    }
    for pgid in after.orphaned {
        hang_up(&kernel.tasks, pgid);
    }
    if let Some(terminal) = after.terminal {
        if let Some(pgid) = terminal.foreground() {
            hang_up(&kernel.tasks, pgid);
        }
        terminal.disconnect();
    }
}

fn hang_up(tasks: &TaskTable, pgid: Tid) {
    for process in tasks.group(pgid) {
        process.send(SigInfo::kernel(SIGHUP));
        process.send(SigInfo::kernel(SIGCONT));
    }
}

/// Takes back a task whose host thread could not be started, and its process if it is the only one.
pub(crate) fn abandon(task: &Arc<Task>) {
    release(task);
    let mut tree = task.kernel.tasks.tree();
    tree.tasks.remove(&task.tid);
    if task.process.drop_thread(task) == 0 {
        TaskTable::remove(&mut tree, task.process.pid);
    }
}

/// Gives up what the thread holds, outside every lock.
fn release(task: &Arc<Task>) {
    if let Some(mm) = task.try_mm() {
        release_memory(task, &mm);
    }
    release_vfork(task);
    let mm = task.set_mm(None);
    let files = task.set_files(Arc::new(FdTable::default()));
    let owed = task.sem_undo.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop((mm, files, owed));
}

/// What a thread owes its memory before it leaves it: robust futexes, `clear_child_tid`.
pub(crate) fn release_memory(task: &Arc<Task>, mm: &Arc<crate::mm::Mm>) {
    // One reference is the task's, one is the caller's: more mean that others use the memory.
    let shared = Arc::strong_count(mm) > 2;
    crate::futex::robust::release(task, mm, shared);
}

/// Lets a vfork parent go on: the child has its own memory now, or is gone.
pub(crate) fn release_vfork(task: &Task) {
    let done = task.vfork_done.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(done) = done {
        done.release();
    }
}

/// How this thread would have its process end.
fn own_status(task: &Task) -> ExitStatus {
    let code = task.exit_code.load(Ordering::Relaxed);
    task.process.state().exit.unwrap_or(ExitStatus::Exited(code))
}

fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exited with {code}"),
        ExitStatus::Signaled { signal, core } => {
            format!("killed by signal {signal}{}", if core { " (core dumped)" } else { "" })
        }
    }
}

/// The last thread has gone.
fn process_ended(tree: &mut Tree, task: &Arc<Task>, after: &mut Aftermath) {
    let process = &task.process;
    let pid = process.pid;
    let Some(node) = tree.nodes.get_mut(&pid) else { return };
    let group_exit = process.state().exit;
    let status = group_exit.or(node.leader_status).unwrap_or_else(|| own_status(task));
    process.state().ended = Some(status);
    let (own_group, sid) = (node.pgid, node.sid);
    let children = std::mem::take(&mut node.children);
    let mut groups: Vec<Tid> = vec![own_group];
    groups.extend(children.iter().filter_map(|c| tree.nodes.get(c)).map(|n| n.pgid));
    groups.sort_unstable();
    groups.dedup();
    let was_orphaned: Vec<bool> =
        groups.iter().map(|g| TaskTable::orphaned(tree, *g, None)).collect();
    if let Some(node) = tree.nodes.get_mut(&pid) {
        node.zombie = Some(status);
    }
    for child in children {
        hand_on(tree, pid, child, after);
    }
    for (pgid, was) in groups.into_iter().zip(was_orphaned) {
        let stopped =
            tree.group(pgid).any(|n| n.zombie.is_none() && n.process.signals.is_stopped());
        if !was && stopped && TaskTable::orphaned(tree, pgid, None) {
            after.orphaned.push(pgid);
        }
    }
    if sid == pid {
        after.terminal = tree.terminals.remove(&sid);
    }
    tell_parent(tree, task, status, after);
}

/// Gives an orphan its new parent: the nearest living subreaper among its ancestors, else init.
fn hand_on(tree: &mut Tree, old: Tid, child: Tid, after: &mut Aftermath) {
    let parent = reaper_of(tree, old);
    let Some(node) = tree.nodes.get_mut(&child) else { return };
    node.parent = parent;
    node.exit_signal = SIGCHLD;
    let zombie = node.zombie.is_some();
    let orphan = node.process.clone();
    orphan.tasks().iter().for_each(|task| task.publish_parent(parent));
    if let Some(new) = tree.nodes.get_mut(&parent) {
        new.children.insert(child);
        if !zombie {
            // PR_SET_PDEATHSIG, per thread of the child.
            for task in orphan.tasks() {
                let signal = task.pdeath_signal.load(Ordering::Relaxed);
                if signal != 0 {
                    let fields = SigFields::Kill { pid: old, uid: 0 };
                    after
                        .signals
                        .push((orphan.clone(), SigInfo { signal, code: 0, errno: 0, fields }));
                }
            }
            return;
        }
        let reaper = new.process.clone();
        if parent == INIT || reaper.signals.actions().reaps_children() {
            TaskTable::remove(tree, child);
        } else {
            after.signals.push((reaper.clone(), SigInfo::kernel(SIGCHLD)));
            after.wake.push(reaper);
        }
    }
}

fn reaper_of(tree: &Tree, mut pid: Tid) -> Tid {
    while let Some(node) = tree.nodes.get(&pid) {
        pid = node.parent;
        let Some(parent) = tree.nodes.get(&pid) else { break };
        let alive = parent.zombie.is_none() && !parent.process.is_exiting();
        if alive && parent.process.subreaper.load(Ordering::Relaxed) {
            return pid;
        }
    }
    INIT
}

/// Sends the exit signal, or reaps at once where the parent wants no zombies.
fn tell_parent(tree: &mut Tree, task: &Task, status: ExitStatus, after: &mut Aftermath) {
    let pid = task.process.pid;
    let Some(node) = tree.nodes.get(&pid) else { return };
    let (parent_pid, exit_signal) = (node.parent, node.exit_signal);
    if parent_pid == INIT {
        return TaskTable::remove(tree, pid);
    }
    if parent_pid == SUPERVISOR {
        return;
    }
    let Some(parent) = tree.nodes.get(&parent_pid).map(|n| n.process.clone()) else {
        return TaskTable::remove(tree, pid);
    };
    let actions = parent.signals.actions();
    if exit_signal == SIGCHLD && actions.reaps_children() {
        TaskTable::remove(tree, pid);
    }
    if exit_signal != 0
        && !(exit_signal == SIGCHLD && actions.get(SIGCHLD).handler == Handler::Ignore)
    {
        let (code, value) = child_code(status);
        let mut info = signal::child_info(&task.process, code, value);
        info.signal = exit_signal;
        if let SigFields::Child { uid, .. } = &mut info.fields {
            // No thread is left to ask.
            *uid = task.creds().uid;
        }
        if exit_signal == SIGCONT {
            after.signals.push((parent.clone(), info));
        } else {
            parent.send(info);
        }
    }
    after.wake.push(parent);
}
