//! Tasks: guest threads, and the thread groups, process groups and sessions they form.

pub mod process;
pub mod run;
pub mod table;

use std::sync::{Arc, Mutex, PoisonError};

use self::process::Process;
use crate::{
    creds::Creds,
    fs::{context::FsContext, fdtable::FdTable},
    kernel::Kernel,
    mm::Mm,
    platform::Kick,
    signal::TaskSignals,
    wait::Parker,
};

/// A thread id; a process is named by its leader's.
pub type Tid = i32;

/// One guest thread.
pub struct Task {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// gettid(2).
    pub tid: Tid,
    /// Its thread group.
    pub process: Arc<Process>,
    /// Where its host thread sleeps in the kernel.
    pub parker: Arc<Parker>,
    /// Interrupts its CPU once it has one.
    pub kicker: Mutex<Option<Arc<dyn Kick>>>,
    /// Its mask and its own pending signals.
    pub signals: TaskSignals,
    mm: Mutex<Arc<Mm>>,
    files: Mutex<Arc<FdTable>>,
    fs: Mutex<Arc<FsContext>>,
    creds: Mutex<Arc<Creds>>,
}

fn current<T>(slot: &Mutex<Arc<T>>) -> Arc<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
fn replace<T>(slot: &Mutex<Arc<T>>, value: Arc<T>) -> Arc<T> {
    std::mem::replace(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner), value)
}

impl Task {
    /// Its memory; execve replaces it.
    #[must_use]
    pub fn mm(&self) -> Arc<Mm> {
        current(&self.mm)
    }
    /// Its descriptors; unshare and execve replace them.
    #[must_use]
    pub fn files(&self) -> Arc<FdTable> {
        current(&self.files)
    }
    /// What its paths are relative to.
    #[must_use]
    pub fn fs(&self) -> Arc<FsContext> {
        current(&self.fs)
    }
    /// Its credentials.
    #[must_use]
    pub fn creds(&self) -> Arc<Creds> {
        current(&self.creds)
    }
    /// Replaces its credentials.
    pub fn set_creds(&self, creds: Creds) {
        replace(&self.creds, Arc::new(creds));
    }
    /// Makes the task look at what is pending, wherever it is.
    pub fn notify(&self) {
        crate::wait::Wake::wake(&*self.parker);
        let kicker = self.kicker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kicker) = kicker {
            kicker.kick();
        }
    }
}
