//! Descriptor tables: small integers to open file descriptions.
//!
//! Shared between tasks by CLONE_FILES. The lowest free number is handed out, as POSIX demands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{file::OpenFile, lock::Owner};
use crate::{error::Errno, num::Word};

/// One descriptor.
#[derive(Clone)]
pub struct Entry {
    /// What it refers to.
    pub file: Arc<OpenFile>,
    /// FD_CLOEXEC.
    pub cloexec: bool,
}

/// A process's descriptors.
#[derive(Default)]
pub struct FdTable {
    slots: Mutex<Vec<Option<Entry>>>,
}

impl FdTable {
    fn slots(&self) -> MutexGuard<'_, Vec<Option<Entry>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn index(fd: i32) -> Result<usize, Errno> {
        usize::try_from(fd).map_err(|_| Errno::EBADF)
    }
    /// The description behind `fd`.
    ///
    /// # Errors
    /// EBADF.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.entry(fd).map(|e| e.file)
    }
    /// The entry behind `fd`.
    ///
    /// # Errors
    /// EBADF.
    pub fn entry(&self, fd: i32) -> Result<Entry, Errno> {
        let index = Self::index(fd)?;
        self.slots().get(index).cloned().flatten().ok_or(Errno::EBADF)
    }
    /// Installs `file` at the lowest free number that is at least `from` and below `limit`
    /// (RLIMIT_NOFILE).
    ///
    /// # Errors
    /// EMFILE.
    pub fn install(
        &self,
        file: Arc<OpenFile>,
        cloexec: bool,
        from: usize,
        limit: u64,
    ) -> Result<i32, Errno> {
        let mut slots = self.slots();
        let free = (from..slots.len()).find(|i| slots[*i].is_none());
        let index = free.unwrap_or(slots.len().max(from));
        if index as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        if index >= slots.len() {
            slots.resize(index + 1, None);
        }
        slots[index] = Some(Entry { file, cloexec });
        Ok(index.low_i32())
    }
    /// The two lowest free numbers, which the next two [`FdTable::install`]s get if nobody is quicker.
    ///
    /// # Errors
    /// EMFILE.
    pub fn free_pair(&self, limit: u64) -> Result<[i32; 2], Errno> {
        let slots = self.slots();
        let mut free = (0..).filter(|i| slots.get(*i).is_none_or(Option::is_none));
        let mut next = || free.next().filter(|i| (*i as u64) < limit).ok_or(Errno::EMFILE);
        Ok([next()?.low_i32(), next()?.low_i32()])
    }
    /// A descriptor could be installed below `limit`.
    ///
    /// # Errors
    /// EMFILE.
    pub fn room(&self, limit: u64) -> Result<(), Errno> {
        let slots = self.slots();
        let full =
            slots.len() as u64 >= limit && slots.iter().take(limit.size()).all(Option::is_some);
        if full { Err(Errno::EMFILE) } else { Ok(()) }
    }
    /// Puts `file` at exactly `fd`; what was there comes back, to be dropped outside the lock.
    ///
    /// # Errors
    /// EBADF if `fd` is negative or not below `limit`.
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<OpenFile>,
        cloexec: bool,
        limit: u64,
    ) -> Result<Option<Entry>, Errno> {
        let index = Self::index(fd)?;
        if index as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots();
        if index >= slots.len() {
            slots.resize(index + 1, None);
        }
        Ok(slots[index].replace(Entry { file, cloexec }))
    }
    /// Takes `fd` out of the table.
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&self, fd: i32) -> Result<Entry, Errno> {
        let index = Self::index(fd)?;
        let mut slots = self.slots();
        slots.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)
    }
    /// Sets FD_CLOEXEC.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_cloexec(&self, fd: i32, cloexec: bool) -> Result<(), Errno> {
        let index = Self::index(fd)?;
        let mut slots = self.slots();
        let entry = slots.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        entry.cloexec = cloexec;
        Ok(())
    }
    /// One past the highest descriptor the table has room for without growing, in Linux's steps of
    /// 64; select(2) looks no further.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots().len().max(1).next_multiple_of(64)
    }
    /// A copy with its own slots (fork).
    #[must_use]
    pub fn duplicate(&self) -> Arc<FdTable> {
        Arc::new(FdTable { slots: Mutex::new(self.slots().clone()) })
    }
    /// Closes what execve closes.
    pub fn close_on_exec(&self) {
        let closed: Vec<Entry> = {
            let mut slots = self.slots();
            let due = |slot: &mut Option<Entry>| {
                if slot.as_ref().is_some_and(|e| e.cloexec) { slot.take() } else { None }
            };
            slots.iter_mut().filter_map(due).collect()
        };
        for entry in closed {
            self.forget(&entry.file);
        }
    }
    /// Closing any descriptor of a file gives up the process's record locks on it (fcntl(2)).
    pub fn forget(&self, file: &OpenFile) {
        file.locks().release(Owner::Table(std::ptr::from_ref(self).addr(), 0));
    }
    /// Open descriptors, ascending.
    #[must_use]
    pub fn list(&self) -> Vec<(i32, Entry)> {
        let slots = self.slots();
        slots.iter().enumerate().filter_map(|(i, s)| Some((i.low_i32(), s.clone()?))).collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut *self.slots());
        for entry in slots.into_iter().flatten() {
            self.forget(&entry.file);
        }
    }
}
