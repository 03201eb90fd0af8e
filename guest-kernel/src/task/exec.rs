//! Replacing a process's program (execve(2)): the other threads go, the caller becomes the leader,
//! and everything execve resets is reset.
//!
//! The new image is loaded before anything is given up, so a failed exec changes nothing. Waiting
//! for the other threads is a wait like any other: the image lies in the call's slot meanwhile.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{
    Task, TaskParts, exit,
    run::{self, Start},
    status::ExitStatus,
    table::TaskTable,
};
use crate::{
    creds::{Creds, cap},
    fs::inode::{Attr, mode},
    linux::exec_image::Image,
    platform::{Cpu, PlatformError, Registers},
    signal::{
        TaskSignals,
        number::{SIGCHLD, SIGKILL},
    },
};

/// An image waiting for the other threads to go.
pub struct Loaded {
    /// The program.
    pub image: Image,
    /// Credentials it will have.
    pub creds: Creds,
}

/// What became of an exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Became {
    /// The caller runs the new program.
    Replaced,
    /// The caller, not being the leader, ends; a new leader runs the new program.
    Moved,
}

/// Makes all other threads go; true once they are gone. Wait on the process's `thread_events`.
pub fn alone(task: &Arc<Task>) -> bool {
    // Under the tree's lock nobody adds a thread.
    let _tree = task.kernel.tasks.tree();
    let others: Vec<_> =
        task.process.tasks().into_iter().filter(|t| !Arc::ptr_eq(t, task)).collect();
    for other in &others {
        other.kill_thread();
    }
    others.is_empty()
}

/// Puts the new program in the place of the old one.
///
/// # Errors
/// The host failed after the point of no return: the process must end.
pub fn commit(
    task: &Arc<Task>,
    regs: &mut Registers,
    cpu: &mut dyn Cpu,
    loaded: Loaded,
) -> Result<Became, PlatformError> {
    let Loaded { image, creds } = loaded;
    let process = &task.process;
    if let Some(old) = task.try_mm() {
        exit::release_memory(task, &old);
    }
    let files = task.files();
    let files = if Arc::strong_count(&files) > 2 { files.duplicate() } else { files };
    files.close_on_exec();
    process.signals.exec();
    process.timers.exec();
    let privileged = creds.uid != creds.euid || creds.gid != creds.egid;
    process.dumpable.store(u32::from(!privileged), Ordering::Relaxed);
    {
        let mut tree = task.kernel.tasks.tree();
        if let Some(node) = tree.nodes.get_mut(&process.pid) {
            node.execed = true;
            node.exit_signal = SIGCHLD;
        }
    }
    let became = if task.is_leader() {
        cpu.switch(image.mm.space())?;
        task.attach(cpu);
        cpu.reset_fpu()?;
        task.signals.exec();
        if privileged {
            task.pdeath_signal.store(0, Ordering::Relaxed);
        }
        drop(task.set_files(files));
        task.set_creds(creds);
        task.set_name(&image.comm);
        // Dropped last: the CPU has left the old space.
        drop(task.set_mm(Some(image.mm)));
        *regs = image.regs;
        Became::Replaced
    } else {
        new_leader(task, image, files, creds);
        Became::Moved
    };
    exit::release_vfork(task);
    Ok(became)
}

/// The thread that called execve takes the leader's id; as ids do not change, a new task does.
fn new_leader(
    task: &Arc<Task>,
    image: Image,
    files: Arc<crate::fs::fdtable::FdTable>,
    creds: Creds,
) {
    let parts = TaskParts {
        mm: image.mm,
        files,
        fs: task.fs(),
        creds: Arc::new(creds),
        signals: TaskSignals::inherit(&task.signals, false),
        comm: super::comm_from(&image.comm),
    };
    let leader = Task::new(&task.process, task.process.pid, parts);
    leader.inherit_scheduling(task);
    let owed = task.sem_undo.lock().unwrap_or_else(PoisonError::into_inner).take();
    *leader.sem_undo.lock().unwrap_or_else(PoisonError::into_inner) = owed;
    {
        let mut tree = task.kernel.tasks.tree();
        if let Some(node) = tree.nodes.get_mut(&task.process.pid) {
            node.leader_status = None;
        }
        TaskTable::adopt_task(&mut tree, &leader);
    }
    let start = Start { regs: image.regs, fpu: None, set_tid: 0 };
    if run::launch(&leader, start).is_err() {
        task.process.begin_exit(ExitStatus::Signaled { signal: SIGKILL, core: false });
        exit::abandon(&leader);
    }
}

/// Credentials after an exec of a file with `attr` (capabilities(7), "Transformation of
/// capabilities during execve()"; files carry no capabilities here).
#[must_use]
pub fn creds_after(old: &Creds, attr: &Attr, honour_set_id: bool) -> Creds {
    let mut new = old.clone();
    if honour_set_id && !old.no_new_privs {
        if attr.mode & mode::SUID != 0 {
            new.euid = attr.uid;
        }
        if attr.mode & (mode::SGID | 0o010) == mode::SGID | 0o010 {
            new.egid = attr.gid;
        }
    }
    let changed = new.euid != old.euid || new.egid != old.egid;
    (new.suid, new.fsuid, new.sgid, new.fsgid) = (new.euid, new.euid, new.egid, new.egid);
    new.keep_caps = false;
    /// SECBIT_NOROOT.
    const NOROOT: u32 = 1;
    let root = new.securebits & NOROOT == 0 && (new.uid == 0 || new.euid == 0);
    if changed {
        new.ambient = 0;
    }
    if root {
        new.permitted = (new.bounding | new.inheritable) & cap::ALL;
        new.effective = if new.euid == 0 { new.permitted } else { 0 };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
    new
}
