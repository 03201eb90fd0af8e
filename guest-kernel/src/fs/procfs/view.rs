//! Whom an entry is about, and what its text is made from.

use std::sync::{Arc, Weak};

use crate::{
    creds::Creds,
    error::Errno,
    kernel::Kernel,
    mm::Mm,
    task::{RunState, Task, Tid, process::Process},
};

/// A process or one of its threads, held weakly.
#[derive(Clone)]
pub(super) struct Subject {
    process: Weak<Process>,
    /// The id the entry's directory has.
    pub(super) id: Tid,
    /// It is about one thread (`task/TID`), not the whole process.
    pub(super) thread: bool,
}

impl Subject {
    pub(super) fn new(process: &Arc<Process>, id: Tid, thread: bool) -> Subject {
        Subject { process: Arc::downgrade(process), id, thread }
    }
    pub(super) fn same(&self, other: &Subject) -> bool {
        self.id == other.id
            && self.thread == other.thread
            && Weak::ptr_eq(&self.process, &other.process)
    }
    /// As it is now.
    ///
    /// # Errors
    /// ESRCH once it is gone.
    pub(super) fn view(&self, kernel: &Arc<Kernel>) -> Result<View, Errno> {
        let process = self.process.upgrade().ok_or(Errno::ESRCH)?;
        if process.is_reaped() {
            return Err(Errno::ESRCH);
        }
        let whole = self.id == process.pid && !self.thread;
        let task = if whole {
            process.any_thread()
        } else {
            let threads = process.tasks();
            Some(threads.into_iter().find(|t| t.tid == self.id).ok_or(Errno::ESRCH)?)
        };
        Ok(View {
            kernel: kernel.clone(),
            process,
            task,
            id: self.id,
            thread: self.thread,
            trusted: false,
        })
    }
}

/// A process or thread at the moment it is looked at.
pub(super) struct View {
    pub(super) kernel: Arc<Kernel>,
    pub(super) process: Arc<Process>,
    /// The thread meant; of a process any, its leader while that lives. None once all have ended.
    pub(super) task: Option<Arc<Task>>,
    pub(super) id: Tid,
    pub(super) thread: bool,
    /// Whoever looks may trace it.
    pub(super) trusted: bool,
}

impl View {
    /// The thread, which must not have ended.
    pub(super) fn live(&self) -> Result<&Arc<Task>, Errno> {
        self.task.as_ref().ok_or(Errno::ESRCH)
    }
    pub(super) fn mm(&self) -> Option<Arc<Mm>> {
        self.task.as_ref().and_then(|t| t.try_mm())
    }
    pub(super) fn creds(&self) -> Arc<Creds> {
        match &self.task {
            Some(task) => task.creds(),
            None => self.process.last_creds().unwrap_or_else(|| Arc::new(Creds::user(0, 0))),
        }
    }
    pub(super) fn comm(&self) -> Vec<u8> {
        match &self.task {
            Some(task) => task.name(),
            None => self.process.last_name(),
        }
    }
    /// The state's letter and word.
    pub(super) fn state(&self) -> (char, &'static str) {
        let ended = match &self.task {
            None => self.process.exit_status().is_some(),
            // The leader has gone and others have not.
            Some(task) => !self.thread && task.tid != self.id,
        };
        if ended {
            return ('Z', "zombie");
        }
        if self.process.signals.is_stopped() {
            return ('T', "stopped");
        }
        match self.task.as_ref().map(|t| t.run_state()) {
            Some(RunState::Running) => ('R', "running"),
            Some(RunState::Uninterruptible) => ('D', "disk sleep"),
            Some(RunState::Stopped) => ('T', "stopped"),
            Some(RunState::Ended) => ('Z', "zombie"),
            Some(RunState::Sleeping) | None => ('S', "sleeping"),
        }
    }
}
