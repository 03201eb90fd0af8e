//! Leases (fcntl(2), F_SETLEASE): a holder is told before somebody else's open gets through.
//!
//! Every inode counts its open descriptions, so that a lease is granted only where nobody is who
//! would have to be told already. An open counts itself, then looks for leases in its way; each is
//! marked as breaking, its holder signalled once, and the open waits until the holder gives in or
//! [`BREAK_TIME`] is over. The lock is a leaf: signals are sent and queues woken after it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{async_io, file::OpenFile, inode::Inode};
use crate::{error::Errno, kernel::Kernel, wait::WaitQueue};

/// `/proc/sys/fs/lease-break-time`.
const BREAK_TIME: Duration = Duration::from_secs(45);

/// What a lease is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// F_RDLCK: an open for writing.
    Read,
    /// F_WRLCK: any open.
    Write,
}

/// A break under way: what may remain of the lease, and when it is taken away.
struct Break {
    to: Option<Kind>,
    at: Duration,
}

struct Lease {
    file: Weak<OpenFile>,
    address: usize,
    fd: i32,
    kind: Kind,
    breaking: Option<Break>,
}

/// The leases of one inode, and how many have it open.
#[derive(Default)]
pub struct Leases {
    readers: AtomicU32,
    writers: AtomicU32,
    list: Mutex<Vec<Lease>>,
    queue: Mutex<Option<Arc<WaitQueue>>>,
}

impl Leases {
    fn list(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn queue(&self) -> Arc<WaitQueue> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.get_or_insert_with(WaitQueue::new).clone()
    }
    fn wake(&self) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(queue) = queue {
            queue.wake();
        }
    }
    fn count(&self, write: bool) -> &AtomicU32 {
        if write { &self.writers } else { &self.readers }
    }
    /// F_SETLEASE with F_RDLCK or F_WRLCK.
    ///
    /// # Errors
    /// EAGAIN when somebody has the file open whom the lease would have to be told of.
    pub fn set(&self, file: &Arc<OpenFile>, fd: i32, kind: Kind) -> Result<(), Errno> {
        let mut list = self.list();
        let (readers, writers) = (self.readers.load(SeqCst), self.writers.load(SeqCst));
        let free = match kind {
            Kind::Read => writers == 0,
            Kind::Write => readers + writers == 1,
        };
        if !free {
            return Err(Errno::EAGAIN);
        }
        let address = file.address();
        let Some(held) = list.iter_mut().find(|l| l.address == address) else {
            let file = Arc::downgrade(file);
            list.push(Lease { file, address, fd, kind, breaking: None });
            return Ok(());
        };
        // What is asked to go altogether stays asked.
        if held.breaking.as_ref().is_some_and(|b| b.to == Some(kind)) {
            held.breaking = None;
        }
        held.kind = kind;
        drop(list);
        self.wake();
        Ok(())
    }
    /// F_SETLEASE with F_UNLCK.
    ///
    /// # Errors
    /// EAGAIN when there is none.
    pub fn unset(&self, address: usize) -> Result<(), Errno> {
        let mut list = self.list();
        let before = list.len();
        list.retain(|l| l.address != address);
        if list.len() == before {
            return Err(Errno::EAGAIN);
        }
        drop(list);
        self.wake();
        Ok(())
    }
    /// F_GETLEASE: what is held, or what it is being broken to.
    #[must_use]
    pub fn get(&self, address: usize) -> Option<Kind> {
        let list = self.list();
        let held = list.iter().find(|l| l.address == address)?;
        held.breaking.as_ref().map_or(Some(held.kind), |b| b.to)
    }
    /// An open is under way: starts the breaks it needs. `None` lets it through; otherwise what it
    /// waits for, at most until then.
    pub fn admit(&self, kernel: &Kernel, write: bool) -> Option<(Arc<WaitQueue>, Duration)> {
        let mut list = self.list();
        if list.is_empty() {
            return None;
        }
        let now = kernel.host.monotonic();
        let to = if write { None } else { Some(Kind::Read) };
        let mut told = Vec::new();
        let mut until: Option<Duration> = None;
        list.retain_mut(|lease| {
            if !write && lease.kind == Kind::Read {
                return true;
            }
            let breaking = lease.breaking.get_or_insert_with(|| {
                told.extend(lease.file.upgrade().map(|file| (file, lease.fd)));
                Break { to, at: now.saturating_add(BREAK_TIME) }
            });
            if write {
                breaking.to = None;
            }
            if now < breaking.at {
                until = Some(until.map_or(breaking.at, |at| at.max(breaking.at)));
                return true;
            }
            match breaking.to {
                None => false,
                Some(kind) => {
                    (lease.kind, lease.breaking) = (kind, None);
                    true
                }
            }
        });
        drop(list);
        for (file, fd) in told {
            async_io::tell(kernel, &file, fd, async_io::Event::Message);
        }
        until.map(|at| (self.queue(), at))
    }
}

/// Somebody has an inode open.
pub struct Opened {
    inode: Arc<dyn Inode>,
    write: bool,
}

impl Opened {
    /// Counts one more.
    #[must_use]
    pub fn new(inode: &Arc<dyn Inode>, write: bool) -> Opened {
        inode.common().leases.count(write).fetch_add(1, SeqCst);
        Opened { inode: inode.clone(), write }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.inode.common().leases.count(self.write).fetch_sub(1, SeqCst);
    }
}
