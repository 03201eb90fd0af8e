//! What a pipe or socket has in place of an inode of a file system: attributes of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inode::{Attr, SetAttr, mode};

/// The attributes, shared by all descriptions of the object.
#[derive(Default)]
pub struct Nameless(Mutex<Attr>);

impl Nameless {
    /// Of an object with number `ino`, type and permission `bits`, made by `uid` and `gid`.
    #[must_use]
    pub fn new(ino: u64, bits: u32, (uid, gid): (u32, u32)) -> Nameless {
        let attr = Attr { ino, mode: bits, uid, gid, nlink: 1, blksize: 4096, ..Attr::default() };
        Nameless(Mutex::new(attr))
    }
    fn lock(&self) -> MutexGuard<'_, Attr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// fstat(2).
    #[must_use]
    pub fn attr(&self) -> Attr {
        *self.lock()
    }
    /// fchmod(2), fchown(2), futimens(3); the caller has checked that it may.
    pub fn set_attr(&self, change: &SetAttr) {
        let mut attr = self.lock();
        if let Some(bits) = change.mode {
            attr.mode = (attr.mode & mode::FMT) | (bits & mode::PERM);
        }
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
    }
}
