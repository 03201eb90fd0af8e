//! Credentials (credentials(7), capabilities(7)): immutable, replaced as a whole.

use std::sync::Arc;

/// Capability numbers the kernel itself asks for (capabilities(7)).
pub mod cap {
    /// Override file ownership rules for chown.
    pub const CHOWN: u32 = 0;
    /// Override file permission checks.
    pub const DAC_OVERRIDE: u32 = 1;
    /// Override read and search permission checks.
    pub const DAC_READ_SEARCH: u32 = 2;
    /// Override checks that the file owner is the caller.
    pub const FOWNER: u32 = 3;
    /// Keep set-id bits on modification.
    pub const FSETID: u32 = 4;
    /// Override permission checks for signals.
    pub const KILL: u32 = 5;
    /// Change group ids.
    pub const SETGID: u32 = 6;
    /// Change user ids.
    pub const SETUID: u32 = 7;
    /// Change capability sets.
    pub const SETPCAP: u32 = 8;
    /// Bind to ports below 1024.
    pub const NET_BIND_SERVICE: u32 = 10;
    /// Network administration.
    pub const NET_ADMIN: u32 = 12;
    /// Raw sockets.
    pub const NET_RAW: u32 = 13;
    /// chroot(2).
    pub const SYS_CHROOT: u32 = 18;
    /// Trace any process.
    pub const SYS_PTRACE: u32 = 19;
    /// A range of administration operations.
    pub const SYS_ADMIN: u32 = 21;
    /// reboot(2).
    pub const SYS_BOOT: u32 = 22;
    /// Raise priorities.
    pub const SYS_NICE: u32 = 23;
    /// Override resource limits.
    pub const SYS_RESOURCE: u32 = 24;
    /// Set clocks.
    pub const SYS_TIME: u32 = 25;
    /// vhangup(2).
    pub const SYS_TTY_CONFIG: u32 = 26;
    /// mknod(2) of devices.
    pub const MKNOD: u32 = 27;
    /// Leases on others' files.
    pub const LEASE: u32 = 28;
    /// CAP_WAKE_ALARM.
    pub const WAKE_ALARM: u32 = 35;
    /// One past the last capability (CAP_CHECKPOINT_RESTORE = 40).
    pub const COUNT: u32 = 41;
    /// All of them.
    pub const ALL: u64 = (1 << COUNT) - 1;
}

/// User, group and capability sets of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "credentials(7) and capabilities(7) name the fields")]
pub struct Creds {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<[u32]>,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
    pub no_new_privs: bool,
    pub keep_caps: bool,
}

impl Creds {
    /// Credentials of a fresh login as `uid`:`gid`; root has every capability.
    #[must_use]
    pub fn user(uid: u32, gid: u32) -> Creds {
        let caps = if uid == 0 { cap::ALL } else { 0 };
        Creds {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: Arc::from([]),
            permitted: caps,
            effective: caps,
            inheritable: 0,
            bounding: cap::ALL,
            ambient: 0,
            securebits: 0,
            no_new_privs: false,
            keep_caps: false,
        }
    }
    /// The capability is in the effective set.
    #[must_use]
    pub fn capable(&self, capability: u32) -> bool {
        self.effective & (1 << capability) != 0
    }
    /// `gid` is the file-system group or a supplementary one.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
