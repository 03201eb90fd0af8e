//! Layouts of file calls: stat, statx, statfs, directory entries, flock.

use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    fs::{
        device::{major, minor},
        inode::{Attr, StatFs},
    },
    num::Word,
};

/// struct stat (stat(2)), out.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "stat(2) names them")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pad: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u64,
    pub blocks: u64,
    pub atime: [u64; 2],
    pub mtime: [u64; 2],
    pub ctime: [u64; 2],
    unused: [u64; 3],
}

fn time(t: Duration) -> [u64; 2] {
    [t.as_secs(), u64::from(t.subsec_nanos())]
}

impl From<&Attr> for Stat {
    fn from(a: &Attr) -> Stat {
        Stat {
            dev: a.dev,
            ino: a.ino,
            nlink: a.nlink,
            mode: a.mode,
            uid: a.uid,
            gid: a.gid,
            pad: 0,
            rdev: a.rdev,
            size: a.size,
            blksize: u64::from(a.blksize),
            blocks: a.blocks,
            atime: time(a.atime),
            mtime: time(a.mtime),
            ctime: time(a.ctime),
            unused: [0; 3],
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct StatxTime {
    sec: u64,
    nsec: u32,
    pad: u32,
}

/// struct statx (statx(2)), out.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    times: [StatxTime; 4],
    rdev: [u32; 2],
    dev: [u32; 2],
    mount: u64,
    spare: [u64; 13],
}

impl Statx {
    /// Of a file with `a` on the mount `mount`.
    #[must_use]
    pub fn new(a: &Attr, mount: u64, is_mount_root: bool) -> Statx {
        const BASIC_AND_BTIME: u32 = 0xfff;
        const MNT_ID: u32 = 0x1000;
        const MOUNT_ROOT: u64 = 0x2000;
        let time = |t: Duration| StatxTime { sec: t.as_secs(), nsec: t.subsec_nanos(), pad: 0 };
        Statx {
            mask: BASIC_AND_BTIME | MNT_ID,
            blksize: a.blksize,
            attributes: if is_mount_root { MOUNT_ROOT } else { 0 },
            nlink: a.nlink.low_u32(),
            uid: a.uid,
            gid: a.gid,
            mode: a.mode.low_u16(),
            pad: 0,
            ino: a.ino,
            size: a.size,
            blocks: a.blocks,
            attributes_mask: MOUNT_ROOT,
            times: [time(a.atime), time(a.btime), time(a.ctime), time(a.mtime)],
            rdev: [major(a.rdev), minor(a.rdev)],
            dev: [major(a.dev), minor(a.dev)],
            mount,
            spare: [0; 13],
        }
    }
}

/// struct statfs (statfs(2)), out.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Statfs {
    kind: u64,
    bsize: u64,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    files_free: u64,
    id: u64,
    name_max: u64,
    frsize: u64,
    flags: u64,
    spare: [u64; 4],
}

impl Statfs {
    /// From a file system's figures and its mount's flags.
    #[must_use]
    pub fn new(s: &StatFs, dev: u64, mount_flags: u32) -> Statfs {
        const VALID: u64 = 0x20;
        Statfs {
            kind: s.magic,
            bsize: s.block_size,
            blocks: s.blocks,
            free: s.free,
            available: s.available,
            files: s.files,
            files_free: s.files_free,
            id: dev,
            name_max: s.name_max,
            frsize: s.block_size,
            flags: VALID | u64::from(mount_flags & 0xf) | u64::from((mount_flags >> 21 & 1) << 12),
            spare: [0; 4],
        }
    }
}

/// struct flock (fcntl(2)), in and out.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "fcntl(2) names them")]
pub struct Flock {
    pub kind: i16,
    pub whence: i16,
    pad: u32,
    pub start: i64,
    pub len: i64,
    pub pid: i32,
    pad2: u32,
}

/// Appends a `struct linux_dirent64` (getdents64(2)) if it fits into `room` bytes.
pub fn dirent64(out: &mut Vec<u8>, room: usize, e: &crate::fs::inode::DirEntry<'_>) -> bool {
    let len = (19 + e.name.len() + 1).next_multiple_of(8);
    if out.len() + len > room {
        return false;
    }
    let end = out.len() + len;
    out.extend_from_slice(&e.ino.to_le_bytes());
    out.extend_from_slice(&e.next.to_le_bytes());
    out.extend_from_slice(&len.low_u16().to_le_bytes());
    out.push(e.kind);
    out.extend_from_slice(e.name);
    out.resize(end, 0);
    true
}
/// Appends a `struct linux_dirent` (getdents(2)): the type is its last byte.
pub fn dirent(out: &mut Vec<u8>, room: usize, e: &crate::fs::inode::DirEntry<'_>) -> bool {
    let len = (18 + e.name.len() + 2).next_multiple_of(8);
    if out.len() + len > room {
        return false;
    }
    let end = out.len() + len;
    out.extend_from_slice(&e.ino.to_le_bytes());
    out.extend_from_slice(&e.next.to_le_bytes());
    out.extend_from_slice(&len.low_u16().to_le_bytes());
    out.extend_from_slice(e.name);
    out.resize(end, 0);
    out[end - 1] = e.kind;
    true
}
