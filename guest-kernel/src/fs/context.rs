//! What a task's paths are relative to: root, working directory, umask (CLONE_FS shares it).

use std::sync::atomic::{AtomicU32, Ordering};

/// A task's file-system context.
pub struct FsContext {
    umask: AtomicU32,
}

impl FsContext {
    /// File mode bits that creation removes.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }
    /// Sets the mask; the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}

impl Default for FsContext {
    fn default() -> FsContext {
        FsContext { umask: AtomicU32::new(0o022) }
    }
}
