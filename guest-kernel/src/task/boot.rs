//! The first program, and the end of the VM.
//!
//! The VM lives as long as its first program, as a container does; what it leaves running is
//! killed.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    Task, TaskParts, Tid,
    process::{Process, rlimit},
    run::{self, Start},
    status::ExitStatus,
    table::{INIT, SUPERVISOR, TaskTable},
};
use crate::{
    error::Errno,
    kernel::Kernel,
    platform::Registers,
    signal::{SharedSignals, SigInfo, number::*},
    tty::Console,
};

/// The first program, running.
pub struct Handle {
    kernel: Arc<Kernel>,
    /// Its process.
    pub process: Arc<Process>,
}

/// What is in use now, for `--stats`: once the VM has ended, all but the platform's pools are 0.
#[derive(Clone, Debug)]
pub struct InUse {
    /// Named counts, in display order.
    pub counts: Vec<(&'static str, u64)>,
}

impl Kernel {
    /// Puts the phantoms in the table.
    pub(crate) fn populate(self: &Arc<Kernel>) {
        let mut tree = self.tasks.tree();
        for (pid, parent) in [(INIT, 0), (SUPERVISOR, INIT)] {
            let limits = rlimit::defaults();
            let phantom = Process::new(self, pid, SharedSignals::new(Arc::default()), limits);
            TaskTable::adopt_process(&mut tree, &phantom, parent, 0);
            if let Some(node) = tree.nodes.get_mut(&pid) {
                (node.pgid, node.sid) = (pid, pid);
            }
        }
    }

    /// Starts the first task with `parts` at `regs`: a group leader in the supervisor's session, or
    /// the leader of a session of its own with `console` as its controlling terminal.
    ///
    /// # Errors
    /// EAGAIN if the host gives no thread or the VM has ended; what the console refuses.
    pub fn start_first(
        self: &Arc<Kernel>,
        parts: TaskParts,
        regs: Registers,
        console: Option<&Console>,
    ) -> Result<Handle, Errno> {
        let task = self.admit(parts, console.is_some())?;
        if let Some(Err(errno)) = console.map(|console| console.control(&task)) {
            super::exit::abandon(&task);
            return Err(errno);
        }
        let start = Start { regs, fpu: None, set_tid: 0 };
        if run::launch(&task, start).is_err() {
            super::exit::abandon(&task);
            return Err(Errno::EAGAIN);
        }
        Ok(Handle { kernel: self.clone(), process: task.process.clone() })
    }
    /// Makes the first task with `parts`, which has no host thread yet; it leads a session of its own if
    /// `session`.
    ///
    /// # Errors
    /// EAGAIN if the VM has ended.
    pub(crate) fn admit(
        self: &Arc<Kernel>,
        parts: TaskParts,
        session: bool,
    ) -> Result<Arc<Task>, Errno> {
        let pid = self.tasks.reserve()?;
        let process =
            Process::new(self, pid, SharedSignals::new(Arc::default()), rlimit::defaults());
        let task = Task::new(&process, pid, parts);
        {
            let mut tree = self.tasks.tree();
            TaskTable::adopt_process(&mut tree, &process, SUPERVISOR, SIGCHLD);
            if let Some(node) = tree.nodes.get_mut(&pid) {
                node.pgid = pid;
                node.execed = true;
                if session {
                    node.sid = pid;
                }
            }
            TaskTable::adopt_task(&mut tree, &task);
        }
        Ok(task)
    }

    /// Our bug: ends the VM with a report.
    pub(crate) fn fatal(&self, report: &str) {
        self.failures.set_fatal(report);
        self.kill_all();
    }
    /// Something failed on the host's side; the VM goes on.
    pub(crate) fn note_failure(&self, text: &str) {
        self.failures.note(text);
    }
    /// Ends every process and lets no new one start.
    pub fn kill_all(&self) {
        let processes = {
            let mut tree = self.tasks.tree();
            tree.closed = true;
            tree.nodes.values().map(|n| n.process.clone()).collect::<Vec<_>>()
        };
        for process in processes {
            process.begin_exit(ExitStatus::Signaled { signal: SIGKILL, core: false });
        }
    }
    /// Ends the VM: kills what runs, waits until every task's host thread is gone, stops the timer
    /// thread and empties the table. False if threads are left after `patience`.
    pub fn shutdown(&self, patience: Duration) -> bool {
        self.kill_all();
        let threads = || self.tasks.host_threads() == 0;
        let gone = self.tasks.wait_until(Some(patience), |_| threads());
        self.timers.close();
        let mut tree = self.tasks.tree();
        let zombies: Vec<Tid> =
            tree.nodes.iter().filter(|(_, n)| n.zombie.is_some()).map(|(pid, _)| *pid).collect();
        for pid in zombies {
            TaskTable::remove(&mut tree, pid);
        }
        if gone {
            // The phantoms own the kernel; without them it is freed with its last handle.
            let rest = (std::mem::take(&mut tree.nodes), std::mem::take(&mut tree.terminals));
            drop(tree);
            drop(rest);
            // What outlives processes does not outlive the VM.
            drop(self.vdso.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.shm.clear();
            self.ipc.clear();
            self.fs.caches.shrink(usize::MAX);
        }
        gone
    }
    /// What is in use now.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        // Asked first: a platform settles then what it frees in batches.
        let platform = self.platform.in_use();
        let used = self.frames.total() - self.frames.free();
        let files: usize = self
            .tasks
            .processes()
            .iter()
            .filter_map(|p| p.any_thread())
            .map(|t| t.files().list().len())
            .sum();
        let mut counts = vec![
            ("tasks", self.tasks.live() as u64),
            ("zombies", self.tasks.zombies() as u64),
            ("host threads", self.tasks.host_threads()),
            ("frames", used as u64),
            ("descriptors", files as u64),
        ];
        counts.extend(platform);
        InUse { counts }
    }
}

impl Handle {
    /// Sleeps until the first program has ended; `None` if `timeout` passed first.
    #[must_use]
    pub fn wait(&self, timeout: Option<Duration>) -> Option<ExitStatus> {
        let pid = self.process.pid;
        let ended = self
            .kernel
            .tasks
            .wait_until(timeout, |tree| tree.nodes.get(&pid).is_none_or(|n| n.zombie.is_some()));
        ended.then(|| self.status()).flatten()
    }
    /// How it ended, if it has.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }
    /// Sends it a signal, as kill(2) from its parent would.
    pub fn signal(&self, signal: crate::signal::Signal) {
        self.process.send(SigInfo::kernel(signal));
    }
    /// Host threads that run tasks.
    #[must_use]
    pub fn threads(&self) -> u64 {
        self.kernel.tasks.host_threads()
    }
}
