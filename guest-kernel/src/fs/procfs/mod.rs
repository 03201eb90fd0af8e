//! /proc (proc(5)): processes and threads, the system, and sysctls.
//!
//! What is about no process is a table (`system`, `net`, `sysctl`) over [`synth`](super::synth). A
//! process's entries are a table too (`entries`): one row gives name, mode, who may look, and the
//! function that makes the text. `tree` turns rows into inodes; texts are made when they are read,
//! by `status`, `maps`, `fd`, `mounts`. Inodes hold their process weakly: a process that ends takes
//! its own with it, and a new one with its id is not mistaken for it.

mod access;
mod entries;
mod fd;
mod maps;
mod memory;
mod mounts;
mod namespaces;
mod net;
mod scores;
mod stat;
mod status;
pub mod sysctl;
mod system;
mod tree;
mod view;

use std::sync::Arc;

use super::{
    dentry::Dentry,
    synth::{Builder, SynthFs},
};
use crate::kernel::Kernel;

pub use tree::pid_of;

/// `PROC_SUPER_MAGIC`.
const MAGIC: u64 = 0x9fa0;
/// Inode numbers of the tables start here; those about processes lie above 2^51.
const FIRST_TABLE_INO: u64 = 0xf000_0000;

/// The tree for /proc.
#[must_use]
pub fn create(kernel: &Arc<Kernel>) -> Arc<Dentry> {
    let fs = Arc::new(SynthFs { name: "proc", dev: kernel.fs.new_dev(), magic: MAGIC });
    let time = kernel.host.realtime();
    let mut tables = Builder::new();
    system::add(&mut tables, kernel);
    sysctl::add(&mut tables, kernel);
    let tables = tables.finish(&fs, FIRST_TABLE_INO, time);
    let mut net = Builder::new();
    net::add(&mut net);
    let net = net.finish(&fs, FIRST_TABLE_INO << 1, time);
    Dentry::root(tree::root(fs, tables, net, time))
}
