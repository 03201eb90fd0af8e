//! Signal descriptors (signalfd(2)): pending signals read as records.

use std::{
    any::Any,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use zerocopy::IntoBytes;

use super::{SigSet, take};
use crate::{
    error::Errno,
    fs::{
        buf::Sink,
        file::{FileOps, OpenFile, Ready},
    },
    linux::siginfo::SignalfdInfo,
    task::Task,
    wait::WaitQueue,
};

/// Reads the signals of the thread that made it, and its process's.
pub struct SignalFd {
    set: AtomicU64,
    owner: Weak<Task>,
    arrivals: Arc<WaitQueue>,
}

impl SignalFd {
    /// One for `task`'s signals in `set`.
    #[must_use]
    pub fn new(task: &Arc<Task>, set: SigSet) -> Arc<SignalFd> {
        Arc::new(SignalFd {
            set: AtomicU64::new(set.blockable().0),
            owner: Arc::downgrade(task),
            arrivals: task.process.signals.arrivals.clone(),
        })
    }
    /// The signals it reads.
    #[must_use]
    pub fn set(&self) -> SigSet {
        SigSet(self.set.load(Ordering::Relaxed))
    }
    /// Reads other signals from now on.
    pub fn change(&self, set: SigSet) {
        self.set.store(set.blockable().0, Ordering::Relaxed);
        self.arrivals.wake();
    }
}

impl FileOps for SignalFd {
    fn moves(&self) -> (bool, bool) {
        (true, false)
    }
    fn read(&self, _file: &OpenFile, dst: &mut Sink<'_>) -> Result<usize, Errno> {
        const RECORD: usize = size_of::<SignalfdInfo>();
        if dst.left() < RECORD {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while dst.left() >= RECORD {
            let taken = self.owner.upgrade().and_then(|task| take(&task, self.set()));
            let Some(info) = taken else { break };
            match dst.put(SignalfdInfo::encode(&info).as_bytes()) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }
    fn poll(&self, _file: &OpenFile) -> Ready {
        let Some(task) = self.owner.upgrade() else { return Ready::empty() };
        let shared = task.process.signals.lock().pending.set();
        let pending = (shared | task.signals.lock().pending.set()) & self.set();
        if pending.is_empty() { Ready::empty() } else { Ready::IN | Ready::RDNORM }
    }
    fn queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.arrivals.clone())
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: u32) -> Result<u64, Errno> {
        // `noop_llseek()`.
        Ok(0)
    }
    fn positioned(&self) -> bool {
        false
    }
    fn describe(&self) -> String {
        "anon_inode:[signalfd]".to_owned()
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        format!("sigmask:\t{:016x}\n", self.set().0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
