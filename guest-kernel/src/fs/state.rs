//! What all file systems of a VM share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    body::{Caches, Handles},
    device::{Devices, makedev},
    hostfs::Held,
    inotify::Counts,
    lock::Waits,
};

/// Shared state; part of the kernel.
#[derive(Default)]
pub struct FsState {
    /// Character devices by number.
    pub devices: Devices,
    /// Clean pages that can be evicted.
    pub caches: Arc<Caches>,
    /// Host files kept open.
    pub handles: Handles,
    /// Host directories kept open.
    pub held: Arc<Held>,
    /// inotify(7) instances and watches.
    pub inotify: Arc<Counts>,
    /// Who waits for whose record locks.
    pub lock_waits: Waits,
    devs: AtomicU64,
    mounts: AtomicU64,
    namespaces: AtomicU64,
}

impl FsState {
    /// A device number for a file system without a device (major 0).
    pub fn new_dev(&self) -> u64 {
        let minor = 20 + self.devs.fetch_add(1, Ordering::Relaxed);
        makedev(0, u32::try_from(minor).unwrap_or(u32::MAX))
    }
    /// A mount tree's number; the first has 0.
    pub fn new_namespace(&self) -> u64 {
        1 + self.namespaces.fetch_add(1, Ordering::Relaxed)
    }
    /// A mount id.
    pub fn new_mount(&self) -> u64 {
        20 + self.mounts.fetch_add(1, Ordering::Relaxed)
    }
}
