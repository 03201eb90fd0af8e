//! Flag sets of open(2), poll(2), mount(2), openat2(2) and inotify(7), with their x86-64 values.
#![expect(missing_docs, reason = "the man pages name the flags")]

use bitflags::bitflags;

bitflags! {
    /// open(2) flags, x86-64 values.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct OpenFlags: u32 {
        const WRONLY = 0o1;
        const RDWR = 0o2;
        const CREAT = 0o100;
        const EXCL = 0o200;
        const NOCTTY = 0o400;
        const TRUNC = 0o1000;
        const APPEND = 0o2000;
        const NONBLOCK = 0o4000;
        const DSYNC = 0o10000;
        const ASYNC = 0o20000;
        const DIRECT = 0o40000;
        const LARGEFILE = 0o100000;
        const DIRECTORY = 0o200000;
        const NOFOLLOW = 0o400000;
        const NOATIME = 0o1000000;
        const CLOEXEC = 0o2000000;
        const SYNC = 0o4010000;
        const PATH = 0o10000000;
        const TMPFILE = 0o20200000;
    }
}

impl OpenFlags {
    /// Which accesses a description with these flags allows: reading, writing. O_PATH and access
    /// mode 3 allow neither.
    #[must_use]
    pub fn access(self) -> (bool, bool) {
        let (writes, both) = (self.contains(OpenFlags::WRONLY), self.contains(OpenFlags::RDWR));
        let none = self.contains(OpenFlags::PATH) || (writes && both);
        (!none && !writes, !none && (writes || both))
    }
}

bitflags! {
    /// Readiness, with the values of poll(2) and epoll(7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Ready: u32 {
        const IN = 1;
        const PRI = 2;
        const OUT = 4;
        const ERR = 8;
        const HUP = 0x10;
        const NVAL = 0x20;
        const RDNORM = 0x40;
        const RDBAND = 0x80;
        const WRNORM = 0x100;
        const WRBAND = 0x200;
        const RDHUP = 0x2000;
    }
}

bitflags! {
    /// Per-mount flags of mount(2), with Linux's MS_* values.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
    }
}

bitflags! {
    /// openat2(2) RESOLVE_* flags.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Resolve: u64 {
        const NO_XDEV = 1;
        const NO_MAGICLINKS = 2;
        const NO_SYMLINKS = 4;
        const BENEATH = 8;
        const IN_ROOT = 0x10;
        const CACHED = 0x20;
    }
}

bitflags! {
    /// Events, and how they are asked for (inotify_add_watch(2)).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Events: u32 {
        const ACCESS = 1;
        const MODIFY = 2;
        const ATTRIB = 4;
        const CLOSE_WRITE = 8;
        const CLOSE_NOWRITE = 0x10;
        const OPEN = 0x20;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        const UNMOUNT = 0x2000;
        const Q_OVERFLOW = 0x4000;
        const IGNORED = 0x8000;
        const ONLYDIR = 0x0100_0000;
        const DONT_FOLLOW = 0x0200_0000;
        const EXCL_UNLINK = 0x0400_0000;
        const MASK_CREATE = 0x1000_0000;
        const MASK_ADD = 0x2000_0000;
        const ISDIR = 0x4000_0000;
        const ONESHOT = 0x8000_0000;
        /// IN_ALL_EVENTS.
        const ALL = 0xfff;
        /// What a watch remembers of its request.
        const KEPT = Self::ALL.bits() | Self::EXCL_UNLINK.bits() | Self::ONESHOT.bits();
    }
}
