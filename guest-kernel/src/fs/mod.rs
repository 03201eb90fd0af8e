//! Files: open file descriptions, descriptors, paths, mounts and file systems.

pub mod buf;
pub mod context;
pub mod fdtable;
pub mod file;
pub mod flags;
