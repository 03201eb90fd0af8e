//! Semaphores and message queues, System V's (svipc(7)) and POSIX's (mq_overview(7)).
//!
//! Objects of one kind live in a [`Registry`] under ids as Linux makes them: a slot, and a sequence
//! that tells a slot's successive tenants apart. Neighbours: `mm::shm` has the shared memory,
//! `linux::sys::{sem, msg, mqueue}` the calls. Lock order: a registry, then an object; queues are
//! woken with neither locked.

pub mod mqueue;
pub mod msg;
pub mod sem;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    creds::Creds,
    error::Errno,
    num::{Word, ret_i32},
};

/// Ids of one slot lie this far apart (IPCMNI).
pub const INDEX_LIMIT: i32 = 32768;
/// CAP_IPC_OWNER.
const IPC_OWNER: u32 = 15;
/// Most bytes all messages of a VM may hold: they lie in the monitor's memory.
const MESSAGE_BYTES: u64 = 64 << 20;

/// Owner and permission bits (`struct ipc_perm`).
#[derive(Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "svipc(7) names the fields")]
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
}

impl Perm {
    /// For a new object of `creds`.
    #[must_use]
    pub fn new(key: i32, mode: u32, creds: &Creds) -> Perm {
        let (uid, gid) = (creds.euid, creds.egid);
        Perm { key, uid, gid, cuid: uid, cgid: gid, mode: mode & 0o777 }
    }
    /// `creds` may use the object for `want` (4 read, 2 write).
    #[must_use]
    pub fn permits(&self, creds: &Creds, want: u32) -> bool {
        let shift = if creds.euid == self.uid || creds.euid == self.cuid {
            6
        } else if [self.gid, self.cgid].iter().any(|g| creds.egid == *g || creds.in_group(*g)) {
            3
        } else {
            0
        };
        (self.mode >> shift) & want == want || creds.capable(IPC_OWNER)
    }
    /// `creds` may change or remove the object.
    #[must_use]
    pub fn owned_by(&self, creds: &Creds) -> bool {
        creds.euid == self.uid
            || creds.euid == self.cuid
            || creds.capable(crate::creds::cap::SYS_ADMIN)
    }
    /// IPC_SET.
    pub fn change(&mut self, uid: u32, gid: u32, mode: u32) {
        (self.uid, self.gid, self.mode) = (uid, gid, mode & 0o777);
    }
}

/// What a registry holds.
pub trait Object: Send + Sync {
    /// Its owner and permissions.
    fn perm(&self) -> Perm;
    /// Removed: whoever waits on it hears EIDRM.
    fn remove(&self);
}

struct Slots<T> {
    objects: BTreeMap<i32, Arc<T>>,
    sequence: i32,
}

/// All objects of one kind.
pub struct Registry<T> {
    slots: Mutex<Slots<T>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Registry<T> {
        Registry { slots: Mutex::new(Slots { objects: BTreeMap::new(), sequence: 0 }) }
    }
}

impl<T: Object> Registry<T> {
    fn slots(&self) -> MutexGuard<'_, Slots<T>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// semget(2), msgget(2): finds `key` or makes an object of at most `most`.
    ///
    /// # Errors
    /// ENOENT, EEXIST, EACCES, ENOSPC; `fits`'s and `make`'s.
    pub fn get_or_make(
        &self,
        key: i32,
        flags: i32,
        creds: &Creds,
        most: i32,
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(i32, Perm) -> Result<T, Errno>,
    ) -> Result<u64, Errno> {
        const CREAT: i32 = 0o1000;
        const EXCL: i32 = 0o2000;
        let mut slots = self.slots();
        let bits = flags.cast_unsigned() & 0o777;
        let found = slots.objects.iter().find(|(_, o)| key != 0 && o.perm().key == key);
        if let Some((id, object)) = found {
            if flags & (CREAT | EXCL) == CREAT | EXCL {
                return Err(Errno::EEXIST);
            }
            if !object.perm().permits(creds, (bits | bits >> 3 | bits >> 6) & 6) {
                return Err(Errno::EACCES);
            }
            fits(object)?;
            return Ok(ret_i32(*id));
        }
        if key != 0 && flags & CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let free = |i: &i32| !slots.objects.keys().any(|id| id % INDEX_LIMIT == *i);
        let index = (0..most).find(free).ok_or(Errno::ENOSPC)?;
        let id = slots.sequence * INDEX_LIMIT + index;
        let object = make(id, Perm::new(key, bits, creds))?;
        slots.sequence = (slots.sequence + 1) % 0xffff;
        slots.objects.insert(id, Arc::new(object));
        Ok(ret_i32(id))
    }
    /// The object with an id.
    ///
    /// # Errors
    /// EINVAL.
    pub fn get(&self, id: i32) -> Result<Arc<T>, Errno> {
        self.slots().objects.get(&id).cloned().ok_or(Errno::EINVAL)
    }
    /// The object in slot `index` and its id (SEM_STAT, MSG_STAT).
    ///
    /// # Errors
    /// EINVAL.
    pub fn by_index(&self, index: i32) -> Result<(i32, Arc<T>), Errno> {
        let slots = self.slots();
        let found = slots.objects.iter().find(|(id, _)| **id % INDEX_LIMIT == index);
        found.map(|(id, object)| (*id, object.clone())).ok_or(Errno::EINVAL)
    }
    /// All, by id.
    #[must_use]
    pub fn list(&self) -> Vec<(i32, Arc<T>)> {
        self.slots().objects.iter().map(|(id, o)| (*id, o.clone())).collect()
    }
    /// The highest slot in use, as IPC_INFO returns it.
    #[must_use]
    pub fn highest(&self) -> u64 {
        ret_i32(self.slots().objects.keys().map(|id| id % INDEX_LIMIT).max().unwrap_or(0))
    }
    /// IPC_RMID.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove(&self, id: i32, creds: &Creds) -> Result<(), Errno> {
        let object = {
            let mut slots = self.slots();
            let object = slots.objects.get(&id).ok_or(Errno::EINVAL)?;
            if !object.perm().owned_by(creds) {
                return Err(Errno::EPERM);
            }
            slots.objects.remove(&id).ok_or(Errno::EINVAL)?
        };
        object.remove();
        Ok(())
    }
}

/// Counts bytes of messages; shared by both kinds of queue.
#[derive(Default)]
pub struct Budget {
    used: AtomicU64,
}

impl Budget {
    /// Takes `bytes` and what a message costs besides.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Charge, Errno> {
        let bytes = bytes as u64 + 64;
        let more = |used: u64| Some(used + bytes).filter(|sum| *sum <= MESSAGE_BYTES);
        let order = Ordering::Relaxed;
        self.used.fetch_update(order, order, more).map_err(|_| Errno::ENOMEM)?;
        Ok(Charge { budget: self.clone(), bytes })
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// All IPC objects of a VM.
#[derive(Default)]
pub struct Ipc {
    /// SysV semaphore sets.
    pub sems: Registry<sem::SemSet>,
    /// SysV message queues.
    pub msgs: Registry<msg::MsgQueue>,
    /// POSIX message queues.
    pub mqueues: mqueue::Names,
    /// What messages take.
    pub budget: Arc<Budget>,
    /// Semaphores in all sets.
    pub sem_count: Arc<AtomicU64>,
}

impl Ipc {
    /// Removes all (the VM ends).
    pub fn clear(&self) {
        let sems = std::mem::take(&mut self.sems.slots().objects);
        let msgs = std::mem::take(&mut self.msgs.slots().objects);
        drop((sems, msgs));
        self.mqueues.clear();
    }
}

/// Whole seconds, as the `_ds` structures hold them.
#[must_use]
pub fn seconds(time: Duration) -> u64 {
    time.as_secs()
}

/// The sequence number in an id, for `ipc_perm.__seq`.
#[must_use]
pub fn sequence(id: i32) -> u16 {
    (id.cast_unsigned() / 32768).low_u16()
}
