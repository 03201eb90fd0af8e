//! Files: open file descriptions, descriptors, paths, mounts and file systems.
//!
//! `inode` is what a file system implements, `dentry` and `mount` name inodes, `walk` resolves paths,
//! `perm` decides, `vfs` puts these together for handlers; `file` is what a descriptor refers to.

pub mod async_io;
pub mod body;
pub mod buf;
pub mod context;
pub mod cpuinfo;
pub mod dentry;
pub mod devfs;
pub mod device;
pub mod devpts;
pub mod dirfile;
pub mod fdtable;
pub mod file;
pub mod flags;
pub mod hostfs;
pub mod inode;
pub mod inotify;
pub mod lease;
pub mod lock;
pub mod mount;
pub mod nameless;
pub mod perm;
pub mod procfs;
pub mod setup;
pub mod state;
pub mod synth;
pub mod sysfs;
pub mod textfile;
pub mod tmpfs;
pub mod vfs;
pub mod walk;
