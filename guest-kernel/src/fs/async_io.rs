//! Signal-driven I/O (fcntl(2), O_ASYNC): SIGIO when a file becomes ready.
//!
//! A description with O_ASYNC is one more waiter on its file's queue. It is woken as others are,
//! maybe with the file's own locks held, so it does not ask the file: what the wake-up says is
//! what the signal says.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::file::{OpenFile, OpenFlags, Ready};
use crate::{
    kernel::Kernel,
    linux::siginfo::SI_KERNEL,
    signal::{SigFields, SigInfo, number::SIGIO},
    task::Task,
    wait::{WaitQueue, Wake},
};

/// What happened: si_code's POLL_*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Something to read.
    In,
    /// Room to write.
    Out,
    /// A lease is to be given up.
    Message,
}

impl Event {
    /// si_code and si_band.
    fn told(self) -> (i32, i64) {
        match self {
            Event::In => (1, 0x041),
            Event::Out => (2, 0x304),
            Event::Message => (3, 0x441),
        }
    }
}

/// Whom F_SETOWN named, and with whose rights a signal goes there.
#[derive(Clone, Copy, Default, Debug)]
pub struct SignalOwner {
    /// F_OWNER_TID, F_OWNER_PID or F_OWNER_PGRP.
    pub kind: i32,
    /// The id, 0 for nobody.
    pub id: i32,
    /// F_SETSIG; 0 for SIGIO without si_fd.
    pub signal: u8,
    /// Real and effective user of who set it.
    pub users: (u32, u32),
}

/// Signals a description's owner.
pub fn tell(kernel: &Kernel, file: &OpenFile, fd: i32, event: Event) {
    let owner = *file.owner.lock().unwrap_or_else(PoisonError::into_inner);
    if owner.id == 0 {
        return;
    }
    let (code, band) = event.told();
    let info = if owner.signal == 0 {
        SigInfo { signal: SIGIO, code: SI_KERNEL, errno: 0, fields: SigFields::None }
    } else {
        let fields = SigFields::Poll { band, fd };
        SigInfo { signal: owner.signal, code, errno: 0, fields }
    };
    let allowed = |task: &Task| {
        let (uid, euid) = owner.users;
        let other = task.creds();
        euid == 0 || [uid, euid].iter().any(|u| *u == other.uid || *u == other.suid)
    };
    let tasks = &kernel.tasks;
    let processes = match owner.kind {
        0 => {
            if let Some(task) = tasks.task(owner.id).filter(|t| allowed(t)) {
                task.send(info);
            }
            return;
        }
        1 => tasks.process(owner.id).into_iter().collect(),
        _ => tasks.group(owner.id),
    };
    for process in processes {
        if process.any_thread().is_some_and(|t| allowed(&t)) {
            process.send(info);
        }
    }
}

/// The waiter of one description with O_ASYNC.
struct Watcher {
    kernel: Weak<Kernel>,
    file: Weak<OpenFile>,
    fd: i32,
}

impl Wake for Watcher {
    fn wake(&self) {
        self.wake_for(Ready::all());
    }
    fn wake_for(&self, ready: Ready) {
        let (Some(kernel), Some(file)) = (self.kernel.upgrade(), self.file.upgrade()) else {
            return;
        };
        if file.readable() && ready.intersects(Ready::IN | Ready::PRI | Ready::HUP) {
            tell(&kernel, &file, self.fd, Event::In);
        } else if file.writable() && ready.contains(Ready::OUT) {
            tell(&kernel, &file, self.fd, Event::Out);
        }
    }
}

/// A watcher, and the queue it is on.
type Watching = (Arc<dyn Wake>, Arc<WaitQueue>);

/// The watcher of a description, while O_ASYNC is set.
#[derive(Default)]
pub struct Async {
    on: Mutex<Option<Watching>>,
}

impl Async {
    /// Follows the O_ASYNC flag that `file`, known to the caller as `fd`, now has.
    pub fn follow(kernel: &Arc<Kernel>, file: &Arc<OpenFile>, fd: i32) {
        let Some(queue) = file.ops.queue() else { return };
        let mut on = file.asynchronous.on.lock().unwrap_or_else(PoisonError::into_inner);
        if !file.flags().contains(OpenFlags::ASYNC) {
            if let Some((waiter, queue)) = on.take() {
                queue.remove(&waiter);
            }
        } else if on.is_none() {
            let (kernel, file) = (Arc::downgrade(kernel), Arc::downgrade(file));
            let waiter: Arc<dyn Wake> = Arc::new(Watcher { kernel, file, fd });
            queue.add(&waiter);
            *on = Some((waiter, queue));
        }
    }
}
