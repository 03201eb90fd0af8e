//! New threads and processes (clone(2)).
#![expect(missing_docs, reason = "clone(2) names the flags")]

use std::sync::{Arc, PoisonError, atomic::Ordering};

use bitflags::bitflags;

use super::{
    Task, TaskParts, Tid, VforkDone,
    process::{Process, rlimit},
    run::{self, Start},
    table::{SUPERVISOR, TaskTable},
};
use crate::{
    creds::cap,
    error::Errno,
    platform::{Cpu, Registers},
    signal::{SharedSignals, Signal, TaskSignals},
};

bitflags! {
    /// What a child shares with its creator, with Linux's values (clone(2)).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct CloneFlags: u64 {
        const VM = 0x100;
        const FS = 0x200;
        const FILES = 0x400;
        const SIGHAND = 0x800;
        const PIDFD = 0x1000;
        const PTRACE = 0x2000;
        const VFORK = 0x4000;
        const PARENT = 0x8000;
        const THREAD = 0x1_0000;
        const NEWNS = 0x2_0000;
        const SYSVSEM = 0x4_0000;
        const SETTLS = 0x8_0000;
        const PARENT_SETTID = 0x10_0000;
        const CHILD_CLEARTID = 0x20_0000;
        const DETACHED = 0x40_0000;
        const UNTRACED = 0x80_0000;
        const CHILD_SETTID = 0x100_0000;
        const NEWCGROUP = 0x200_0000;
        const NEWUTS = 0x400_0000;
        const NEWIPC = 0x800_0000;
        const NEWUSER = 0x1000_0000;
        const NEWPID = 0x2000_0000;
        const NEWNET = 0x4000_0000;
        const IO = 0x8000_0000;
        const CLEAR_SIGHAND = 0x1_0000_0000;
        const INTO_CGROUP = 0x2_0000_0000;
        const NEWTIME = 0x80;
    }
}

/// A child to be made.
pub struct CloneSpec {
    /// What it shares.
    pub flags: CloneFlags,
    /// Sent to its parent at its end; 0 for none.
    pub exit_signal: Signal,
    /// Its stack pointer; `None` keeps the creator's.
    pub stack: Option<u64>,
    /// Its FS base with SETTLS.
    pub tls: u64,
    /// Where PARENT_SETTID stores its id.
    pub parent_tid: u64,
    /// Where CHILD_SETTID and CHILD_CLEARTID point.
    pub child_tid: u64,
}

/// A child made; it does not run yet.
pub struct Born {
    /// Its first and only thread.
    pub task: Arc<Task>,
    /// Released when it execs or ends (CLONE_VFORK).
    pub vfork: Option<Arc<VforkDone>>,
    start: Start,
}

/// Makes a child of `task`, in the table but not yet running.
///
/// # Errors
/// EAGAIN for limits, ENOMEM; the flags have been checked.
pub fn make(
    task: &Arc<Task>,
    regs: &Registers,
    cpu: &mut dyn Cpu,
    spec: &CloneSpec,
) -> Result<Born, Errno> {
    let kernel = &task.kernel;
    let flags = spec.flags;
    check_limit(task)?;
    let fpu = cpu.fpu().map_err(|_| Errno::ENOMEM)?;
    let mm = if flags.contains(CloneFlags::VM) {
        task.mm()
    } else {
        // The pages both sides store to first: the top of the stack.
        task.mm().fork(&[regs.rsp, regs.rsp.wrapping_sub(4096)])?
    };
    let files = task.files();
    let fs = task.fs();
    let keep_stack = !flags.contains(CloneFlags::VM) || flags.contains(CloneFlags::VFORK);
    let parts = TaskParts {
        mm,
        files: if flags.contains(CloneFlags::FILES) { files } else { files.duplicate() },
        fs: if flags.contains(CloneFlags::FS) {
            fs
        } else if flags.contains(CloneFlags::NEWNS) {
            fs.isolate(&kernel.fs)
        } else {
            fs.duplicate()
        },
        creds: task.creds(),
        signals: TaskSignals::inherit(&task.signals, keep_stack),
        comm: task.comm(),
    };
    let tid = kernel.tasks.reserve()?;
    let process = if flags.contains(CloneFlags::THREAD) {
        task.process.clone()
    } else {
        child_process(task, tid, flags)
    };
    let child = Task::new(&process, tid, parts);
    if flags.contains(CloneFlags::CHILD_CLEARTID) {
        child.clear_child_tid.store(spec.child_tid, Ordering::Relaxed);
    }
    child.timer_slack.store(task.timer_slack.load(Ordering::Relaxed), Ordering::Relaxed);
    child.inherit_scheduling(task);
    if flags.contains(CloneFlags::SYSVSEM) {
        let shared = crate::linux::sys::sem::undo_list(task);
        *child.sem_undo.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared);
    }
    let vfork = flags.contains(CloneFlags::VFORK).then(Arc::<VforkDone>::default);
    *child.vfork_done.lock().unwrap_or_else(PoisonError::into_inner) = vfork.clone();
    if let Err(errno) = enter_table(task, &child, spec) {
        kernel.tasks.unreserve(tid);
        return Err(errno);
    }
    let mut child_regs = Registers { rax: 0, ..*regs };
    if let Some(stack) = spec.stack {
        child_regs.rsp = stack;
    }
    if flags.contains(CloneFlags::SETTLS) {
        child_regs.fs_base = spec.tls;
    }
    let set_tid = if flags.contains(CloneFlags::CHILD_SETTID) { spec.child_tid } else { 0 };
    Ok(Born { task: child, vfork, start: Start { regs: child_regs, fpu: Some(fpu), set_tid } })
}

impl Born {
    /// Lets it run.
    ///
    /// # Errors
    /// EAGAIN if the host gives no thread; the child is gone then.
    pub fn launch(self) -> Result<(), Errno> {
        run::launch(&self.task, self.start).map_err(|_| {
            super::exit::abandon(&self.task);
            Errno::EAGAIN
        })
    }
    /// Undoes it before it ran.
    pub fn abandon(self) {
        super::exit::abandon(&self.task);
    }
}

/// RLIMIT_NPROC, which binds the unprivileged only.
fn check_limit(task: &Task) -> Result<(), Errno> {
    let limit = task.process.limit(rlimit::NPROC);
    let creds = task.creds();
    let free = creds.uid == 0
        || creds.capable(cap::SYS_RESOURCE)
        || creds.capable(cap::SYS_ADMIN)
        || limit == rlimit::INFINITY;
    if free {
        return Ok(());
    }
    let tree = task.kernel.tasks.tree();
    let used = tree.tasks.values().filter(|t| t.creds().uid == creds.uid).count();
    if used as u64 >= limit { Err(Errno::EAGAIN) } else { Ok(()) }
}

fn child_process(task: &Task, pid: Tid, flags: CloneFlags) -> Arc<Process> {
    let parent = &task.process;
    let actions = parent.signals.actions();
    let actions = if flags.contains(CloneFlags::SIGHAND) { actions } else { actions.duplicate() };
    if flags.contains(CloneFlags::CLEAR_SIGHAND) {
        actions.clear_handlers();
    }
    let child = Process::new(&task.kernel, pid, SharedSignals::new(actions), parent.limits());
    child.timers.watch_limit(&child);
    child.dumpable.store(parent.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    child.personality.store(parent.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    child
        .oom_score_adj_min
        .store(parent.oom_score_adj_min.load(Ordering::Relaxed), Ordering::Relaxed);
    child.coredump_filter.store(parent.coredump_filter.load(Ordering::Relaxed), Ordering::Relaxed);
    child.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    child
}

/// Puts the child in the tree. A creator that is being ended by its group makes none: whoever ends
/// the group has already counted its threads.
fn enter_table(task: &Arc<Task>, child: &Arc<Task>, spec: &CloneSpec) -> Result<(), Errno> {
    let mut tree = task.kernel.tasks.tree();
    if tree.closed || task.must_exit() {
        return Err(Errno::EAGAIN);
    }
    let pid = task.process.pid;
    if !spec.flags.contains(CloneFlags::THREAD) {
        let (parent, exit_signal) = if spec.flags.contains(CloneFlags::PARENT) {
            let node = tree.nodes.get(&pid).ok_or(Errno::EAGAIN)?;
            if node.parent <= SUPERVISOR {
                return Err(Errno::EINVAL);
            }
            (node.parent, node.exit_signal)
        } else {
            (pid, spec.exit_signal)
        };
        TaskTable::adopt_process(&mut tree, &child.process, parent, exit_signal);
        if let (Some(own), Some(new)) =
            (tree.nodes.get(&pid).map(|n| (n.pgid, n.sid)), tree.nodes.get_mut(&child.tid))
        {
            (new.pgid, new.sid) = own;
        }
    }
    TaskTable::adopt_task(&mut tree, child);
    Ok(())
}
