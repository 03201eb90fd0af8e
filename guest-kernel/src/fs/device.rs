//! Character devices: the kernel's, by number, whatever name a node gives them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::{dentry::Path, file::FileOps, flags::OpenFlags, inode::Actor};
use crate::{error::Stop, num::Word};

/// A driver.
pub trait Device: Send + Sync {
    /// Opens the device whose node is at `path` and has number `rdev`.
    ///
    /// # Errors
    /// As open(2): ENXIO, EIO, EBUSY; or a wait.
    fn open(
        &self,
        who: &Actor,
        path: &Path,
        rdev: u64,
        flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Stop>;
}

/// A device number from its parts, as Linux encodes st_rdev (makedev(3)).
#[must_use]
pub fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}
/// The major number of `dev`.
#[must_use]
pub fn major(dev: u64) -> u32 {
    (((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff)).low_u32()
}
/// The minor number of `dev`.
#[must_use]
pub fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | ((dev >> 12) & 0xffff_ff00)).low_u32()
}

/// All drivers.
#[derive(Default)]
pub struct Devices {
    chars: RwLock<HashMap<u64, Arc<dyn Device>>>,
}

impl Devices {
    /// Makes `device` answer for the character device `major`:`minor`.
    pub fn register(&self, major: u32, minor: u32, device: Arc<dyn Device>) {
        let mut chars = self.chars.write().unwrap_or_else(PoisonError::into_inner);
        chars.insert(makedev(major, minor), device);
    }
    /// The device no longer exists.
    pub fn unregister(&self, major: u32, minor: u32) {
        let mut chars = self.chars.write().unwrap_or_else(PoisonError::into_inner);
        chars.remove(&makedev(major, minor));
    }
    /// The driver of the character device `rdev`.
    #[must_use]
    pub fn get(&self, rdev: u64) -> Option<Arc<dyn Device>> {
        self.chars.read().unwrap_or_else(PoisonError::into_inner).get(&rdev).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_encoding() {
        for (a, b) in [(0, 0), (1, 3), (136, 300), (0xabc, 0x12345), (5000, 1 << 19)] {
            let dev = makedev(a, b);
            assert_eq!((major(dev), minor(dev)), (a, b));
        }
        assert_eq!(makedev(5, 2), 0x502);
    }
}
